//! What an operator can choose: one table of [`SETTINGS`], and three places to choose in. The command line goes before the
//! environment (`FORKADE_*`), the environment before a TOML file, and that before the default.
//!
//! A mistake in any of them is an error that says what to do, all mistakes at once; nothing is guessed. Whether this
//! machine can hold what was chosen is decided in [`capacity`].

pub mod capacity;
mod sources;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;

use log::LevelFilter;

use crate::limits::{
    BACKLOG_DEFAULT, CHAT_BURST_DEFAULT, CHAT_PER_MINUTE_DEFAULT, CLIENTS_PER_HANDLER_MAX,
    CONNECTIONS_BEYOND_PLAYERS_DEFAULT, CONNECTIONS_PER_KEEPER_MAX, DRAIN_TIMEOUT_MS_DEFAULT,
    HANDSHAKE_TIMEOUT_MS_DEFAULT, HEARTBEAT_TIMEOUT_MS_DEFAULT, KEEPERS_MAX, PLAYERS_MAX_DEFAULT,
    PLAYERS_OR_ROOMS_MAX, REQUESTS_BURST_DEFAULT, REQUESTS_PER_MINUTE_DEFAULT, ROOMS_MAX_DEFAULT,
    SEAT_GRACE_MS_DEFAULT, SEAT_RESERVATION_MS_DEFAULT, SEND_BUFFER_BYTES_DEFAULT, SPARE_HANDLERS_MAX,
    TEXT_IDLE_TIMEOUT_MS_DEFAULT, WATCHDOG_CPU_MS_DEFAULT,
};

pub use crate::config::sources::load;

/// What the server runs with. See [`SETTINGS`] for what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// Where operators connect.
    pub console: Option<SocketAddr>,
    /// Players at once, connected or in their grace.
    pub players_max: u32,
    /// Rooms at once.
    pub rooms_max: u32,
    /// Connections at once, greeted or not.
    pub connections_max: u32,
    /// Keeper processes.
    pub keepers: u32,
    /// Most clients that one handler serves at once: the isolation dial.
    pub clients_per_handler: u32,
    /// Most clients that one handler serves in its life; 0: any number.
    pub handler_life: u32,
    /// Handlers that each keeper holds ready for connections to come.
    pub spare_handlers: Span,
    /// Connections that wait in the kernel to be accepted.
    pub backlog: u32,
    /// Silence after which a client is taken for gone.
    pub heartbeat_timeout_ms: u32,
    /// Time without a key after which somebody in text mode is taken for gone.
    pub text_idle_timeout_ms: u32,
    /// How long a seat is kept for a player without a connection.
    pub seat_grace_ms: u32,
    /// Milliseconds that a seat is kept for a player whom a room's owner has invited.
    pub seat_reservation_ms: u32,
    /// Time that a connection has to greet.
    pub handshake_timeout_ms: u32,
    /// How long an orderly stop waits for what is on its way to clients.
    pub drain_timeout_ms: u32,
    /// Lines that a player may say at once.
    pub chat_burst: u32,
    /// Lines that a player may say in a minute in the long run; 0: any number.
    pub chat_per_minute: u32,
    /// Requests that have their price which a player may make at once.
    pub requests_burst: u32,
    /// The same in a minute in the long run; 0: any number.
    pub requests_per_minute: u32,
    /// Processor time that a process may use over one thing before the watchdog kills it; 0: there is no watchdog.
    pub watchdog_cpu_ms: u32,
    /// `SO_SNDBUF` of each connection.
    pub send_buffer_bytes: u32,
    /// Least important records that are logged.
    pub log: LevelFilter,
}

/// A number that goes up and down between two others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The least.
    pub min: u32,
    /// The most.
    pub max: u32,
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}..{}", self.min, self.max)
    }
}

/// Stands for "to be derived from the others" until [`Config::derive_automatic`].
const AUTOMATIC: u32 = 0;

impl Default for Config {
    /// The defaults. Those that depend on others or on the machine are not derived yet.
    fn default() -> Self {
        Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4000)),
            console: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 4001))),
            players_max: PLAYERS_MAX_DEFAULT,
            rooms_max: ROOMS_MAX_DEFAULT,
            connections_max: AUTOMATIC,
            keepers: AUTOMATIC,
            clients_per_handler: 1,
            handler_life: AUTOMATIC,
            spare_handlers: Span { min: 0, max: 0 },
            backlog: BACKLOG_DEFAULT,
            heartbeat_timeout_ms: HEARTBEAT_TIMEOUT_MS_DEFAULT,
            text_idle_timeout_ms: TEXT_IDLE_TIMEOUT_MS_DEFAULT,
            seat_grace_ms: SEAT_GRACE_MS_DEFAULT,
            seat_reservation_ms: SEAT_RESERVATION_MS_DEFAULT,
            handshake_timeout_ms: HANDSHAKE_TIMEOUT_MS_DEFAULT,
            drain_timeout_ms: DRAIN_TIMEOUT_MS_DEFAULT,
            chat_burst: CHAT_BURST_DEFAULT,
            chat_per_minute: CHAT_PER_MINUTE_DEFAULT,
            requests_burst: REQUESTS_BURST_DEFAULT,
            requests_per_minute: REQUESTS_PER_MINUTE_DEFAULT,
            watchdog_cpu_ms: WATCHDOG_CPU_MS_DEFAULT,
            send_buffer_bytes: SEND_BUFFER_BYTES_DEFAULT,
            log: LevelFilter::Info,
        }
    }
}

impl Config {
    /// Derives what is automatic.
    fn derive_automatic(&mut self, cores: u32) {
        if self.connections_max == AUTOMATIC {
            self.connections_max = self.players_max + CONNECTIONS_BEYOND_PLAYERS_DEFAULT;
        }
        if self.keepers == AUTOMATIC {
            // Where clients share handlers there is little to fork, and all of a room should have the same keeper.
            let at_once = if self.clients_per_handler == 1 { cores } else { 1 };
            self.keepers = self.keepers_min().max(at_once).min(number(KEEPERS_MAX));
        }
        if self.handler_life == AUTOMATIC {
            self.handler_life = self.clients_per_handler;
        }
    }

    /// Fewest keepers for so many connections.
    fn keepers_min(&self) -> u32 {
        self.connections_max.div_ceil(CONNECTIONS_PER_KEEPER_MAX)
    }

    /// What is wrong with the values taken together.
    fn conflicts(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.keepers < self.keepers_min() {
            problems.push(Problem::error(
                format!(
                    "{} keepers cannot hold {} connections: each holds at most {CONNECTIONS_PER_KEEPER_MAX}",
                    self.keepers, self.connections_max
                ),
                format!("set keepers to {} or more, or leave it out", self.keepers_min()),
            ));
        }
        if self.handler_life < self.clients_per_handler {
            problems.push(Problem::error(
                format!(
                    "a handler cannot serve {} clients at once and {} in its life",
                    self.clients_per_handler, self.handler_life
                ),
                "set handler-life to as many as clients-per-handler, or more, or leave it out",
            ));
        }
        if let Some(console) = self.console.filter(|console| overlap(*console, self.listen)) {
            problems.push(Problem::error(
                format!(
                    "listen ({}) and console ({console}) want the same port",
                    self.listen
                ),
                "give the console another port, or switch it off with `none`",
            ));
        }
        problems
    }
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_host
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subcommand {
    /// Run the server.
    Serve,
    /// Say what is wrong with the configuration, and whether this machine can hold it.
    Check,
    /// Ask a running server to go on in the program that lies where it was started from.
    Upgrade,
}

/// A complete and consistent configuration, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The values.
    pub config: Config,
    /// Where each of [`SETTINGS`] came from, in their order.
    pub sources: [ConfigSource; SETTINGS.len()],
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// What looks like a mistake but need not be one.
    pub warnings: Vec<Problem>,
}

impl Settings {
    /// Each setting with its value and where that came from.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Setting, String, ConfigSource)> {
        SETTINGS
            .iter()
            .zip(self.sources)
            .map(|(setting, source)| (setting, setting.format_value(self.config), source))
    }
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigSource {
    /// Nobody chose it.
    Default,
    /// The TOML file.
    File,
    /// A `FORKADE_*` variable.
    Environment,
    /// An option.
    CommandLine,
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            ConfigSource::Default => "default",
            ConfigSource::File => "file",
            ConfigSource::Environment => "environment",
            ConfigSource::CommandLine => "command line",
        })
    }
}

/// Something that is wrong, or looks wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the server refuses to start with it.
    pub is_error: bool,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    fn error(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem {
            is_error: true,
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Problem {
            is_error: false,
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.is_error { "error" } else { "warning" };
        write!(out, "{severity}: {}\n  {}", self.what, self.remedy)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line is wrong, or asked for nothing but help or the version.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// Values are wrong: all that are.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// Tells whoever started the program, and gives its exit status: 0 after help, 2 after an error.
    pub fn report(&self) -> ExitCode {
        match self {
            // Help goes to stdout, and errors to stderr. With neither of them there is nobody left to tell.
            ConfigError::CommandLine(error) => {
                let _ = error.print();
                u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
            }
            ConfigError::Invalid(_) => {
                eprintln!("{self}");
                ExitCode::from(2)
            }
        }
    }
}

/// One thing that can be chosen.
#[derive(Debug)]
pub struct Setting {
    /// `--flag` on the command line. The key in the file has `_` for `-`, and the variable is in capitals after
    /// `FORKADE_`.
    pub flag: &'static str,
    value_name: &'static str,
    help: &'static str,
    kind: ValueKind,
}

/// What values a setting has, and the field they go to.
#[derive(Debug)]
enum ValueKind {
    Address(fn(&mut Config) -> &mut SocketAddr),
    AddressOrNone(fn(&mut Config) -> &mut Option<SocketAddr>),
    Number(fn(&mut Config) -> &mut u32, RangeInclusive<u32>),
    NumberOrAutomatic(fn(&mut Config) -> &mut u32, RangeInclusive<u32>),
    /// Two numbers up to a greatest one, as `MIN..MAX`.
    Span(fn(&mut Config) -> &mut Span, u32),
    Level(fn(&mut Config) -> &mut LevelFilter),
}

const DAY_MS: u32 = 86_400_000;
const HOUR_MS: u32 = 3_600_000;

/// All that can be chosen.
pub const SETTINGS: [Setting; 23] = [
    Setting {
        flag: "listen",
        value_name: "IP:PORT",
        help: "Where clients connect; port 0 lets the system choose",
        kind: ValueKind::Address(|config| &mut config.listen),
    },
    Setting {
        flag: "console",
        value_name: "IP:PORT|none",
        help: "Where operators connect. The console has no password: keep it on a loopback address",
        kind: ValueKind::AddressOrNone(|config| &mut config.console),
    },
    Setting {
        flag: "players-max",
        value_name: "NUMBER",
        help: "Players at once, connected or in their grace",
        kind: ValueKind::Number(|config| &mut config.players_max, 1..=PLAYERS_OR_ROOMS_MAX),
    },
    Setting {
        flag: "rooms-max",
        value_name: "NUMBER",
        help: "Rooms at once",
        kind: ValueKind::Number(|config| &mut config.rooms_max, 1..=PLAYERS_OR_ROOMS_MAX),
    },
    Setting {
        flag: "connections-max",
        value_name: "NUMBER|auto",
        help: "Connections at once, greeted or not; `auto` leaves some beyond players-max",
        kind: ValueKind::NumberOrAutomatic(
            |config| &mut config.connections_max,
            1..=number(KEEPERS_MAX) * CONNECTIONS_PER_KEEPER_MAX,
        ),
    },
    Setting {
        flag: "keepers",
        value_name: "NUMBER|auto",
        help: "Processes that keep connections, 1000 each at most; `auto`: one per core, and as many as it takes",
        kind: ValueKind::NumberOrAutomatic(|config| &mut config.keepers, 1..=number(KEEPERS_MAX)),
    },
    Setting {
        flag: "clients-per-handler",
        value_name: "NUMBER",
        help: "Clients that one process serves at once: 1 isolates each from all others, more cost less",
        kind: ValueKind::Number(
            |config| &mut config.clients_per_handler,
            1..=CLIENTS_PER_HANDLER_MAX,
        ),
    },
    Setting {
        flag: "handler-life",
        value_name: "CLIENTS|auto",
        help: "Clients that one process serves in its life; `auto`: clients-per-handler, so that nobody gets a used place",
        kind: ValueKind::NumberOrAutomatic(|config| &mut config.handler_life, 1..=u32::MAX),
    },
    Setting {
        flag: "spare-handlers",
        value_name: "MIN..MAX",
        help: "Processes that each keeper holds ready for clients to come: as few as MIN when it is quiet, as many as MAX when many come",
        kind: ValueKind::Span(|config| &mut config.spare_handlers, SPARE_HANDLERS_MAX),
    },
    Setting {
        flag: "backlog",
        value_name: "NUMBER",
        help: "Connections that wait in the kernel to be accepted",
        kind: ValueKind::Number(|config| &mut config.backlog, 1..=65_535),
    },
    Setting {
        flag: "heartbeat-timeout-ms",
        value_name: "MS",
        help: "A client that sends nothing for so long is taken for gone",
        kind: ValueKind::Number(|config| &mut config.heartbeat_timeout_ms, 100..=DAY_MS),
    },
    Setting {
        flag: "text-idle-timeout-ms",
        value_name: "MS",
        help: "A player in text mode who types nothing for so long is taken for gone",
        kind: ValueKind::Number(|config| &mut config.text_idle_timeout_ms, 100..=DAY_MS),
    },
    Setting {
        flag: "seat-grace-ms",
        value_name: "MS",
        help: "How long a seat is kept for a player who lost the connection",
        kind: ValueKind::Number(|config| &mut config.seat_grace_ms, 0..=DAY_MS),
    },
    Setting {
        flag: "seat-reservation-ms",
        value_name: "MS",
        help: "How long a seat is kept for a player whom the room's owner has invited",
        kind: ValueKind::Number(|config| &mut config.seat_reservation_ms, 100..=HOUR_MS),
    },
    Setting {
        flag: "handshake-timeout-ms",
        value_name: "MS",
        help: "Time that a connection has to say who it is",
        kind: ValueKind::Number(|config| &mut config.handshake_timeout_ms, 100..=DAY_MS),
    },
    Setting {
        flag: "drain-timeout-ms",
        value_name: "MS",
        help: "How long an orderly stop waits for what is on its way to clients",
        kind: ValueKind::Number(|config| &mut config.drain_timeout_ms, 0..=DAY_MS),
    },
    Setting {
        flag: "chat-burst",
        value_name: "NUMBER",
        help: "Lines that a player may say at once, to whomever",
        kind: ValueKind::Number(|config| &mut config.chat_burst, 1..=1000),
    },
    Setting {
        flag: "chat-per-minute",
        value_name: "NUMBER",
        help: "Lines that a player may say in a minute in the long run; 0: any number",
        kind: ValueKind::Number(|config| &mut config.chat_per_minute, 0..=60_000),
    },
    Setting {
        flag: "requests-burst",
        value_name: "NUMBER",
        help: "Requests that leave traces for others (to open, enter or change a room) which a player may make at once",
        kind: ValueKind::Number(|config| &mut config.requests_burst, 1..=100_000),
    },
    Setting {
        flag: "requests-per-minute",
        value_name: "NUMBER",
        help: "The same in a minute in the long run; 0: any number",
        kind: ValueKind::Number(|config| &mut config.requests_per_minute, 0..=6_000_000),
    },
    Setting {
        flag: "watchdog-cpu-ms",
        value_name: "MS",
        help: "Processor time after which a process that holds others up, or does not get on, is killed; 0: never",
        kind: ValueKind::Number(|config| &mut config.watchdog_cpu_ms, 0..=DAY_MS),
    },
    Setting {
        flag: "send-buffer-bytes",
        value_name: "BYTES",
        help: "What the kernel buffers for a client that does not read (SO_SNDBUF)",
        kind: ValueKind::Number(|config| &mut config.send_buffer_bytes, 4096..=16 << 20),
    },
    Setting {
        flag: "log",
        value_name: "LEVEL",
        help: "What is logged on stderr: off, error, warn, info, debug or trace",
        kind: ValueKind::Level(|config| &mut config.log),
    },
];

impl Setting {
    /// Its key in the configuration file.
    pub fn key(&self) -> String {
        self.flag.replace('-', "_")
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("{}{}", sources::VARIABLE_PREFIX, self.key().to_uppercase())
    }

    /// Its value in `config`, in the form in which it is given.
    pub fn format_value(&self, mut config: Config) -> String {
        match &self.kind {
            ValueKind::Address(field) => field(&mut config).to_string(),
            ValueKind::AddressOrNone(field) => {
                field(&mut config).map_or("none".to_owned(), |address| address.to_string())
            }
            ValueKind::NumberOrAutomatic(field, _) if *field(&mut config) == AUTOMATIC => "auto".to_owned(),
            ValueKind::Number(field, _) | ValueKind::NumberOrAutomatic(field, _) => {
                field(&mut config).to_string()
            }
            ValueKind::Span(field, _) => field(&mut config).to_string(),
            ValueKind::Level(field) => field(&mut config).to_string().to_lowercase(),
        }
    }

    /// Puts the value that `text` says into `config`; else says what a value would be.
    fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        const ADDRESS: &str = "an address with its port, like 127.0.0.1:4000, 0.0.0.0:4000 or [::1]:4000";
        let number = |range: &RangeInclusive<u32>| text.parse().ok().filter(|value| range.contains(value));
        let numbers =
            |range: &RangeInclusive<u32>| format!("a number from {} to {}", range.start(), range.end());
        match &self.kind {
            ValueKind::Address(field) => *field(config) = text.parse().map_err(|_| ADDRESS.to_owned())?,
            ValueKind::AddressOrNone(field) => {
                *field(config) = match text {
                    "none" => None,
                    address => Some(address.parse().map_err(|_| format!("{ADDRESS}, or `none`"))?),
                }
            }
            ValueKind::Number(field, range) => {
                *field(config) = number(range).ok_or_else(|| numbers(range))?
            }
            ValueKind::NumberOrAutomatic(field, range) => {
                *field(config) = match text {
                    "auto" => AUTOMATIC,
                    _ => number(range).ok_or_else(|| numbers(range) + ", or `auto`")?,
                }
            }
            ValueKind::Span(field, max) => {
                let ends = text.split_once("..").unwrap_or((text, text));
                let number = |text: &str| text.parse().ok().filter(|value| value <= max);
                let span = number(ends.0)
                    .zip(number(ends.1))
                    .filter(|(min, max)| min <= max)
                    .map(|(min, max)| Span { min, max });
                *field(config) =
                    span.ok_or_else(|| format!("two numbers up to {max}, the lesser first, like 2..16"))?;
            }
            ValueKind::Level(field) => {
                let level = text
                    .parse()
                    .map_err(|_| "one of off, error, warn, info, debug and trace".to_owned());
                *field(config) = level?;
            }
        }
        Ok(())
    }
}

/// A limit as a setting has it.
const fn number(limit: usize) -> u32 {
    assert!(limit <= u32::MAX as usize);
    #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
    let number = limit as u32;
    number
}
