//! The server as a program: the games that it offers, its command line, and its exit status.

use std::ffi::OsString;
use std::fs::File;
use std::process::ExitCode;

use crate::config::machine::Machine;
use crate::config::{self, Config, ConfigError, Problem, Settings, Subcommand, capacity};
use crate::limits::UPGRADE_TEXT_BYTES;
use crate::logging::{self, audit};
use crate::process::supervisor::{self, StartError};
use crate::process::upgrade::{self, Handover, ProbeReply, StartMode};
use crate::state::layout::{Capacity, Memory};
use forkade_games::connect4::Connect4;
use forkade_games::eights::Eights;
use forkade_games::relay::Relay;
use forkade_games::tictactoe::TicTacToe;
use forkade_games::{Game, Games, GamesError, floor_char_boundary};

/// Exit status if the command line, the environment or the configuration file is invalid, or asks for more than the
/// machine has.
const BAD_CONFIGURATION: u8 = 2;

/// A server and the games it offers.
///
/// ```no_run
/// use forkade::games::tictactoe::TicTacToe;
///
/// fn main() -> std::process::ExitCode {
///     forkade::Server::new().game::<TicTacToe>().main()
/// }
/// ```
#[derive(Default)]
pub struct Server {
    games: Games,
    fault: Option<GamesError>,
}

impl Server {
    /// A server without games.
    pub fn new() -> Self {
        Self::default()
    }

    /// A server with the games that come with Forkade.
    pub fn standard() -> Self {
        Self::new()
            .game::<TicTacToe>()
            .game::<Relay>()
            .game::<Connect4>()
            .game::<Eights>()
    }

    /// Adds a game. Two of the same name, or too many, are reported when the server is run.
    #[must_use]
    pub fn game<G: Game>(mut self) -> Self {
        if let Err(error) = self.games.add::<G>() {
            self.fault.get_or_insert(error);
        }
        self
    }

    /// Names the program, for `--version`, `--help`, the players' welcome and the operators' console and log. Both are
    /// visible ASCII characters, at most 32.
    ///
    /// ```no_run
    /// use forkade::games::tictactoe::TicTacToe;
    ///
    /// let server = forkade::Server::new().game::<TicTacToe>();
    /// server.program("board-club", env!("CARGO_PKG_VERSION")).main();
    /// ```
    #[must_use]
    pub fn program(mut self, name: &'static str, version: &'static str) -> Self {
        if let Err(error) = self.games.set_program(name, version) {
            self.fault.get_or_insert(error);
        }
        self
    }

    /// Runs what this program's command line says: the server, a check of the configuration, an upgrade, or the client.
    pub fn main(self) -> ExitCode {
        self.main_from(std::env::args_os())
    }

    /// As [`Self::main`], with these arguments; the first is the program's name.
    pub fn main_from(self, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
        let start_mode = match upgrade::start_mode() {
            Ok(start_mode) => start_mode,
            Err(error) => {
                eprintln!("forkade: {error}");
                return ExitCode::FAILURE;
            }
        };
        if let Some(fault) = self.fault {
            eprintln!("forkade: {fault}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        // The client does not read a server's settings.
        if arguments.get(1).is_some_and(|first| first == "play") {
            return forkade_play::main(&self.games, &arguments);
        }
        let program = self.games.program();
        let load = || config::load(program, arguments, std::env::vars_os());
        match start_mode {
            Some(StartMode::Probe(handover, report)) => {
                return reply_to_probe(&handover, &report, load(), &self.games);
            }
            Some(StartMode::Continue(handover)) => return go_on(&handover, self.games, load),
            None => {}
        }
        let (command, settings) = match load() {
            Ok(loaded) => loaded,
            Err(error) => return error.report(),
        };
        let machine = match Machine::read() {
            Ok(machine) => machine,
            Err(error) => {
                eprintln!("forkade: {error}");
                return ExitCode::FAILURE;
            }
        };
        match command {
            Subcommand::Check => check(&settings, &machine),
            Subcommand::Upgrade => upgrade::request::run(&settings.config),
            Subcommand::Serve => serve(self.games, settings, &machine),
        }
    }
}

fn check(settings: &Settings, machine: &Machine) -> ExitCode {
    let (report, can_start) = capacity::report(settings, machine, mapping_bytes(settings));
    print!("{report}");
    if can_start {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(BAD_CONFIGURATION)
    }
}

fn serve(games: Games, settings: Settings, machine: &Machine) -> ExitCode {
    if let Err(error) = logging::start(settings.config.log) {
        eprintln!("forkade: {error}");
        return ExitCode::FAILURE;
    }
    logging::set_role("supervisor");
    for (_, game) in games.iter() {
        if let Err(fault) = game.check_types() {
            log::error!(
                "{} cannot be played: {fault} (serde's tag, untagged, flatten and skip_serializing_if do not work with \
                 this encoding)",
                game.name()
            );
            return ExitCode::from(BAD_CONFIGURATION);
        }
    }
    if games.is_empty() {
        log::warn!("this server has no games, so its players can only talk: add games with Server::game");
    }
    let mut problems = capacity::problems(&settings.config, machine, mapping_bytes(&settings));
    problems.extend(audit_log_problem(&settings.config));
    for problem in settings.warnings.iter().chain(&problems) {
        log::log!(
            if problem.is_error {
                log::Level::Error
            } else {
                log::Level::Warn
            },
            "{}: {}",
            problem.what,
            problem.remedy
        );
    }
    if problems.iter().any(|problem| problem.is_error) {
        return ExitCode::from(BAD_CONFIGURATION);
    }
    // They live as long as the process: every role inherits them.
    exit_code(supervisor::run(
        Box::leak(Box::new(settings)),
        Box::leak(Box::new(games)),
    ))
}

/// Whether the audit log can be written. (It is created here: the server, not `forkade check`, is to own it.)
fn audit_log_problem(config: &Config) -> Option<Problem> {
    let path = config.audit_log?;
    let error = audit::open(path).err()?;
    Some(Problem {
        is_error: true,
        what: format!("cannot write the audit log {}: {error}", path.display()),
        remedy: "name a file in a folder that the server may write (audit-log)".to_owned(),
    })
}

/// Why this program cannot continue in the place of the running one.
fn objection(handover: &Handover, settings: &Settings, games: &Games) -> Option<String> {
    let config = &settings.config;
    let machine = match Machine::read() {
        Ok(machine) => machine,
        Err(error) => return Some(error.to_string()),
    };
    capacity::problems(config, &machine, mapping_bytes(settings))
        .into_iter()
        .find(|problem| problem.is_error)
        .or_else(|| audit_log_problem(config))
        .map(|problem| problem.what)
        .or_else(|| handover.objection(config, games))
        .or_else(|| {
            let checked = handover.check_memory(config);
            checked.err().map(|error| error.to_string())
        })
        .or_else(|| {
            let checked = handover.objection_to_states(games);
            checked.unwrap_or_else(|error| Some(error.to_string()))
        })
}

/// Replies to the running program.
fn reply_to_probe(
    handover: &Handover,
    mut report: &File,
    loaded: Result<(Subcommand, Settings), ConfigError>,
    games: &Games,
) -> ExitCode {
    let checked = loaded
        .map_err(|error| error.to_string())
        .and_then(|(_, settings)| {
            let checked = settings
                .to_checked()
                .map_err(|why| format!("its configuration could not be handed over: {why}"))?;
            objection(handover, &settings, games).map_or(Ok(checked), Err)
        });
    let (settings, objection) = match checked {
        Ok(settings) => (Some(settings), None),
        Err(mut text) => {
            text.truncate(floor_char_boundary(&text, UPGRADE_TEXT_BYTES));
            (None, Some(text))
        }
    };
    let reply = ProbeReply {
        version: games.program().version(),
        objection,
        settings,
    };
    match serde_json::to_writer(&mut report, &reply) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Continues in the place of the program that ran in this process before, with the configuration that was handed over.
/// If there is none, or it cannot be read, with that which `load` finds now: without a server nobody plays.
fn go_on(
    handover: &Handover,
    games: Games,
    load: impl FnOnce() -> Result<(Subcommand, Settings), ConfigError>,
) -> ExitCode {
    let handed_over = handover.settings.as_ref().map(Settings::from_checked).transpose();
    let unreadable = handed_over.as_ref().err().cloned();
    let settings = match handed_over.ok().flatten() {
        Some(settings) => Ok(settings),
        None => load()
            .map_err(|error| error.to_string())
            .and_then(|(_, settings)| {
                // Nothing has checked it.
                let objection = handover.objection(&settings.config, &games);
                objection.map_or(Ok(settings), Err)
            }),
    };
    let settings = match settings {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("forkade: cannot go on: {why}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = logging::start(settings.config.log) {
        eprintln!("forkade: {error}");
        return ExitCode::FAILURE;
    }
    logging::set_role("supervisor");
    if let Some(why) = unreadable {
        log::error!("the configuration that was handed over cannot be read, and was loaded anew: {why}");
    }
    // They live as long as the process: every role inherits them.
    exit_code(supervisor::upgrade::go_on(
        handover,
        Box::leak(Box::new(settings)),
        Box::leak(Box::new(games)),
    ))
}

fn exit_code(result: Result<(), StartError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Virtual size of the shared memory.
fn mapping_bytes(settings: &Settings) -> u64 {
    let config = settings.config;
    let capacity = Capacity {
        players: config.players_max,
        rooms: config.rooms_max,
        keepers: config.keepers,
    };
    Memory::bytes_needed(capacity) as u64
}
