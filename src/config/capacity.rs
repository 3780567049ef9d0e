//! Checks whether a machine can hold the configured capacity: pure functions over the limits of a [`Machine`].
//!
//! A server that starts and then fails at the thousandth player is worse than one that reports at once what is missing.

use std::fmt::Write as _;

use crate::config::machine::Machine;
use crate::config::{Config, Problem, Settings};
use crate::limits::{
    CONNECTIONS_PER_KEEPER_MAX, KEEPERS_MAX, MEMORY_PER_CONNECTION_BYTES, MEMORY_PER_HANDLER_BYTES,
    OPEN_FILES_BASE, PLACES_FOR_MOVES_ONE_IN, RECEPTIONS_PER_KEEPER_MAX,
};

/// What a configuration needs at full capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// Open files of a keeper: one per connection, for a moment once more as many as one handler serves, one per
    /// handler (the channel to it, or for an adopted handler the descriptor that reports its exit), and its own.
    pub keeper_open_files: u64,
    /// Open files of the supervisor and of a ticker: one doorbell per room and their own.
    pub ticker_open_files: u64,
    /// Processes: the handlers (with all their places used except those reserved for moves), the spare handlers, the
    /// keepers, the tickers, supervisor and listener.
    pub processes: u64,
    /// Memory: the handlers, the connections and the shared mapping.
    pub memory_bytes: u64,
}

impl Requirements {
    /// The requirements of `config` with a shared mapping of `mapping_bytes`.
    pub fn of(config: &Config, mapping_bytes: u64) -> Self {
        let connections = u64::from(config.connections_max);
        let keepers = u64::from(config.keepers);
        let (places, spares) = (
            u64::from(config.clients_per_handler),
            u64::from(config.spare_handlers.max),
        );
        let receptions = u64::from(RECEPTIONS_PER_KEEPER_MAX);
        let places_used = places - places / u64::from(PLACES_FOR_MOVES_ONE_IN);
        let handlers = connections.div_ceil(places_used);
        Requirements {
            keeper_open_files: connections
                .div_ceil(keepers)
                .min(CONNECTIONS_PER_KEEPER_MAX.into())
                + (places - 1)
                + handlers.div_ceil(keepers).min(CONNECTIONS_PER_KEEPER_MAX.into())
                + spares
                + receptions
                + OPEN_FILES_BASE,
            ticker_open_files: u64::from(config.rooms_max) + OPEN_FILES_BASE,
            processes: handlers + (spares + receptions + 1) * keepers + u64::from(config.tickers) + 2,
            memory_bytes: (handlers + (spares + receptions) * keepers) * MEMORY_PER_HANDLER_BYTES
                + connections * MEMORY_PER_CONNECTION_BYTES
                + mapping_bytes,
        }
    }
}

/// Reasons why `machine` cannot hold the capacity of `config` with a shared mapping of `mapping_bytes`, and warnings.
/// The server refuses to start with errors.
pub fn problems(config: &Config, machine: &Machine, mapping_bytes: u64) -> Vec<Problem> {
    let needs = Requirements::of(config, mapping_bytes);
    let mut problems = Vec::new();
    open_files(&mut problems, config, machine, needs);
    processes(&mut problems, config, machine, needs);
    memory(&mut problems, config, machine, needs);
    if u64::from(config.backlog) > machine.backlog_max {
        problems.push(Problem::warning(
            format!(
                "the system cuts the backlog of {} to {}",
                config.backlog, machine.backlog_max
            ),
            format!(
                "sysctl -w net.core.somaxconn={}, or a smaller backlog",
                config.backlog
            ),
        ));
    }
    if let Some(console) = config.console.filter(|console| !console.ip().is_loopback()) {
        problems.push(Problem::warning(
            format!("the console listens on {console}, and its password crosses the network unencrypted"),
            "keep it on 127.0.0.1 and connect through ssh, or protect it with a firewall",
        ));
    }
    problems
}

fn open_files(problems: &mut Vec<Problem>, config: &Config, machine: &Machine, needs: Requirements) {
    let max = machine.open_files_max;
    let raise =
        |needed| format!("raise the hard limit to {needed} (ulimit -Hn, or LimitNOFILE= in a systemd unit)");
    let for_peers = max.saturating_sub(OPEN_FILES_BASE);
    if needs.keeper_open_files > max {
        let each = u64::from(config.connections_max).div_ceil(config.keepers.into());
        let fits = |keepers: &u32| {
            let config = Config {
                keepers: *keepers,
                ..*config
            };
            Requirements::of(&config, 0).keeper_open_files <= max
        };
        let remedy = match (1..).take(KEEPERS_MAX).find(fits) {
            None => raise(needs.keeper_open_files),
            Some(keepers) => {
                format!(
                    "{}, or set keepers to {keepers} or more",
                    raise(needs.keeper_open_files)
                )
            }
        };
        problems.push(Problem::error(
            format!(
                "a keeper of {each} connections needs {} open files, and a process may have {max}",
                needs.keeper_open_files
            ),
            remedy,
        ));
    }
    if needs.ticker_open_files > max {
        problems.push(Problem::error(
            format!(
                "{} rooms need {} open files, and a process may have {max}",
                config.rooms_max, needs.ticker_open_files
            ),
            match for_peers {
                0 => raise(needs.ticker_open_files),
                _ => format!(
                    "{}, or set rooms_max to {for_peers} or less",
                    raise(needs.ticker_open_files)
                ),
            },
        ));
    }
}

fn processes(problems: &mut Vec<Problem>, config: &Config, machine: &Machine, needs: Requirements) {
    let limits = [
        (
            machine.processes_of_user_max,
            "this user",
            "ulimit -u, or LimitNPROC= in a systemd unit",
        ),
        (
            Some(machine.processes_max),
            "this system",
            "sysctl kernel.pid_max and kernel.threads-max, or the container's pids limit",
        ),
    ];
    for (max, whose, how) in limits {
        let Some(max) = max else { continue };
        let what = format!(
            "{} connections need {} processes, and {whose} may have {max}, {} of them in use",
            config.connections_max, needs.processes, machine.processes_now
        );
        let remedy = format!("raise the limit ({how}), or lower connections_max");
        if needs.processes > max {
            problems.push(Problem::error(what, remedy));
        } else if needs.processes + machine.processes_now > max {
            problems.push(Problem::warning(what, remedy));
        }
    }
}

fn memory(problems: &mut Vec<Problem>, config: &Config, machine: &Machine, needs: Requirements) {
    let what = |kind, bytes| {
        format!(
            "{} connections, {} players and {} rooms need up to {} of memory, and {} {kind}",
            config.connections_max,
            config.players_max,
            config.rooms_max,
            mebibytes(needs.memory_bytes),
            mebibytes(bytes)
        )
    };
    let remedy =
        "lower connections_max, players_max and rooms_max, or give the machine or container more memory";
    if needs.memory_bytes > machine.memory_bytes {
        problems.push(Problem::error(
            what("is all there is", machine.memory_bytes),
            remedy,
        ));
    } else if needs.memory_bytes > machine.memory_available_bytes {
        problems.push(Problem::warning(
            what("is free now", machine.memory_available_bytes),
            remedy,
        ));
    }
}

/// The output of `forkade check`, and whether the server would start.
pub fn report(settings: &Settings, machine: &Machine, mapping_bytes: u64) -> (String, bool) {
    let mut text = String::new();
    for (setting, value, source) in settings.iter() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:22} = {value:22} # {source}", setting.key());
    }
    let needs = Requirements::of(&settings.config, mapping_bytes);
    let rows = [
        (
            "open files per process",
            needs.keeper_open_files.max(needs.ticker_open_files),
            machine.open_files_max,
        ),
        (
            "processes",
            needs.processes,
            machine
                .processes_max
                .min(machine.processes_of_user_max.unwrap_or(u64::MAX)),
        ),
        (
            "memory in MiB",
            needs.memory_bytes >> 20,
            machine.memory_available_bytes >> 20,
        ),
    ];
    let _ = writeln!(text, "\nat full capacity             needs     there are");
    for (what, needed, allowed) in rows {
        let _ = writeln!(text, "{what:22} {needed:>11} {allowed:>13}");
    }
    text.push('\n');
    let found = [
        settings.warnings.clone(),
        problems(&settings.config, machine, mapping_bytes),
    ]
    .concat();
    for problem in &found {
        let _ = writeln!(text, "{problem}");
    }
    let can_start = !found.iter().any(|problem| problem.is_error);
    text += if can_start {
        "ok: the server can start\n"
    } else {
        "the server would not start\n"
    };
    (text, can_start)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPING_BYTES: u64 = 200 << 20;

    /// A machine that can hold the default capacity.
    fn machine() -> Machine {
        Machine {
            open_files_max: 20_000,
            processes_of_user_max: None,
            processes_max: 32_768,
            processes_now: 300,
            memory_bytes: 8 << 30,
            memory_available_bytes: 6 << 30,
            backlog_max: 4096,
        }
    }

    fn config() -> Config {
        let mut config = Config::default();
        config.derive_automatic(2);
        config
    }

    /// The only problem of `config` on `machine`: whether it is an error, and its text.
    fn problem(config: &Config, machine: &Machine) -> (bool, String) {
        let found = problems(config, machine, MAPPING_BYTES);
        assert_eq!(found.len(), 1, "{found:?}");
        (found[0].is_error, found[0].to_string())
    }

    #[test]
    fn the_defaults_fit_an_ordinary_machine() {
        assert_eq!(problems(&config(), &machine(), MAPPING_BYTES), []);
    }

    #[test]
    fn too_few_open_files_are_an_error_that_says_how_many_are_needed() {
        let (is_error, text) = problem(
            &Config {
                keepers: 3,
                rooms_max: 600,
                ..config()
            },
            &Machine {
                open_files_max: 763,
                ..machine()
            },
        );
        let machine_for_rooms = Machine {
            open_files_max: 1472,
            ..machine()
        };
        assert!(is_error, "{text}");
        assert!(
            text.contains("700 connections needs 1472 open files, and a process may have 763"),
            "{text}"
        );
        assert!(
            text.contains("LimitNOFILE") && text.contains("set keepers to 7 or more"),
            "{text}"
        );
        assert_eq!(problems(&config(), &machine_for_rooms, MAPPING_BYTES), []);
        let (is_error, text) = problem(
            &Config {
                rooms_max: 1409,
                ..config()
            },
            &machine_for_rooms,
        );
        assert!(
            is_error && text.contains("set rooms_max to 1408 or less"),
            "{text}"
        );
    }

    #[test]
    fn too_few_processes_are_an_error_and_too_few_free_ones_a_warning() {
        let with = |of_user, altogether| Machine {
            processes_of_user_max: of_user,
            processes_max: altogether,
            ..machine()
        };
        let needed = Requirements::of(&config(), 0).processes;
        // Keepers, tickers, supervisor and listener.
        assert_eq!(needed, 2100 + 3 * (1 + 8) + 2 + 2);
        assert_eq!(
            problems(&config(), &with(Some(needed + 300), needed + 300), 0),
            []
        );
        let (is_error, text) = problem(&config(), &with(Some(needed - 1), 32_768));
        assert!(is_error && text.contains("ulimit -u"), "{text}");
        let (is_error, text) = problem(&config(), &with(None, needed - 1));
        assert!(is_error && text.contains("pid_max"), "{text}");
        let (is_error, text) = problem(&config(), &with(None, needed + 299));
        assert!(!is_error && text.contains("300 of them in use"), "{text}");
    }

    #[test]
    fn missing_memory_is_an_error_and_memory_in_use_a_warning() {
        let with = |memory_bytes, memory_available_bytes| Machine {
            memory_bytes,
            memory_available_bytes,
            ..machine()
        };
        let needed = Requirements::of(&config(), MAPPING_BYTES).memory_bytes;
        assert!(problem(&config(), &with(needed - 1, needed - 1)).0);
        assert!(!problem(&config(), &with(needed, needed - 1)).0);
        assert_eq!(problems(&config(), &with(needed, needed), MAPPING_BYTES), []);
    }

    #[test]
    fn a_backlog_above_the_system_limit_and_an_exposed_console_are_warnings() {
        let (is_error, text) = problem(
            &Config {
                backlog: 5000,
                ..config()
            },
            &machine(),
        );
        assert!(!is_error && text.contains("somaxconn=5000"), "{text}");
        let console = "0.0.0.0:4001".parse().ok();
        let (is_error, text) = problem(&Config { console, ..config() }, &machine());
        assert!(!is_error && text.contains("unencrypted"), "{text}");
    }

    #[test]
    fn a_report_lists_settings_requirements_and_problems() {
        let arguments = ["forkade", "--backlog", "5000"].map(Into::into);
        let (_, settings) = crate::config::load(forkade_games::Games::new().program(), arguments, [])
            .expect("a good command line");
        let (text, can_start) = report(&settings, &machine(), MAPPING_BYTES);
        assert!(
            can_start && text.ends_with("ok: the server can start\n"),
            "{text}"
        );
        assert!(
            text.contains("backlog                = 5000                   # command line\n"),
            "{text}"
        );
        assert!(
            text.contains("log                    = info                   # default\n"),
            "{text}"
        );
        assert!(
            text.contains("open files per process        1472         20000\n"),
            "{text}"
        );
        assert!(text.contains("warning: the system cuts the backlog"), "{text}");
        let (text, can_start) = report(
            &settings,
            &Machine {
                memory_bytes: 0,
                ..machine()
            },
            MAPPING_BYTES,
        );
        assert!(
            !can_start && text.ends_with("the server would not start\n"),
            "{text}"
        );
    }
}
