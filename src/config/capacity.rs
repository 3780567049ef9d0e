//! Whether a machine can hold the capacity that is asked for: pure functions over a [`Machine`], and one reader of the
//! machine that this is.
//!
//! A server that starts and then fails at the thousandth player is worse than one that says at once what is missing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::process::{Resource, geteuid, getrlimit};
use thiserror::Error;

use crate::config::{Config, Problem, Settings};
use crate::limits::{
    CONNECTIONS_PER_KEEPER_MAX, KEEPERS_MAX, MEMORY_PER_CONNECTION_BYTES, MEMORY_PER_HANDLER_BYTES,
    OPEN_FILES_BASE, PLACES_FOR_MOVES_ONE_IN,
};

/// What a machine allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Open files of one process (the hard limit, up to which the server raises its own).
    pub open_files_max: u64,
    /// Processes of this user; `None` for root, whom the limit does not bind.
    pub processes_of_user_max: Option<u64>,
    /// Processes altogether: ids, threads, and what this container may have.
    pub processes_max: u64,
    /// Processes that there are now.
    pub processes_now: u64,
    /// Memory altogether, or what this container may have.
    pub memory_bytes: u64,
    /// Memory that can be had now.
    pub memory_available_bytes: u64,
    /// Longest backlog of a listening socket.
    pub backlog_max: u64,
}

/// What a configuration needs at full capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// Open files of a keeper: one per connection, as many again for a moment as one handler serves, one per handler (the channel by which
    /// it is given connections, or where a predecessor has forked it what tells of its end), and its own.
    pub keeper_open_files: u64,
    /// Open files of supervisor and ticker: one doorbell per room and their own.
    pub ticker_open_files: u64,
    /// Processes: the handlers (as many as it takes where all their places are used but those left for moves), those held ready, the
    /// keepers, supervisor, listener and ticker.
    pub processes: u64,
    /// Memory: the handlers, the connections, and the shared mapping.
    pub memory_bytes: u64,
}

impl Requirements {
    /// What `config` needs with a shared mapping of `mapping_bytes`.
    pub fn of(config: &Config, mapping_bytes: u64) -> Self {
        let connections = u64::from(config.connections_max);
        let keepers = u64::from(config.keepers);
        let (places, spares) = (
            u64::from(config.clients_per_handler),
            u64::from(config.spare_handlers.max),
        );
        let places_used = places - places / u64::from(PLACES_FOR_MOVES_ONE_IN);
        let handlers = connections.div_ceil(places_used);
        Requirements {
            keeper_open_files: connections
                .div_ceil(keepers)
                .min(CONNECTIONS_PER_KEEPER_MAX.into())
                + (places - 1)
                + handlers.div_ceil(keepers).min(CONNECTIONS_PER_KEEPER_MAX.into())
                + spares
                + OPEN_FILES_BASE,
            ticker_open_files: u64::from(config.rooms_max) + OPEN_FILES_BASE,
            processes: handlers + (spares + 1) * keepers + 3,
            memory_bytes: (handlers + spares * keepers) * MEMORY_PER_HANDLER_BYTES
                + connections * MEMORY_PER_CONNECTION_BYTES
                + mapping_bytes,
        }
    }
}

/// What keeps `machine` from holding the capacity of `config` with a shared mapping of `mapping_bytes`, and what else
/// looks wrong. The server refuses to start with errors.
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
            format!("the console listens on {console}, and whoever reaches it can stop the server"),
            "keep it on 127.0.0.1 and come in by ssh, or make sure that a firewall guards it",
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

/// What `forkade check` prints, and whether the server would start.
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

/// The machine does not tell its limits.
#[derive(Debug, Error)]
#[error("cannot read this machine's limits from {}: {cause}; is /proc mounted?", path.display())]
pub struct MachineError {
    /// The file that tells.
    pub path: PathBuf,
    /// What went wrong.
    pub cause: io::Error,
}

impl Machine {
    /// Reads the limits of the machine, container and user that this process runs on, in and as.
    ///
    /// # Errors
    ///
    /// When `/proc` is not there or not what it should be.
    pub fn read() -> Result<Self, MachineError> {
        let pids = read_number("/proc/sys/kernel/pid_max", parse_number)?;
        let threads = read_number("/proc/sys/kernel/threads-max", parse_number)?;
        let memory_total = read_number("/proc/meminfo", |text| parse_meminfo(text, "MemTotal:"))?;
        let memory_free = read_number("/proc/meminfo", |text| parse_meminfo(text, "MemAvailable:"))?;
        let mut machine = Machine {
            open_files_max: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            processes_of_user_max: getrlimit(Resource::Nproc)
                .current
                .filter(|_| !geteuid().is_root()),
            processes_max: pids.min(threads),
            processes_now: read_number("/proc/loadavg", |text| {
                text.split(['/', ' ']).nth(4)?.parse().ok()
            })?,
            memory_bytes: memory_total,
            memory_available_bytes: memory_free,
            backlog_max: read_number("/proc/sys/net/core/somaxconn", parse_number)?,
        };
        for folder in cgroup_folders() {
            machine.apply_cgroup_limits(&folder);
        }
        Ok(machine)
    }

    /// A control group may allow less. (File names of versions 2 and 1.)
    fn apply_cgroup_limits(&mut self, folder: &Path) {
        let number = |name| parse_number(&fs::read_to_string(folder.join(name)).ok()?);
        if let Some(max) = number("pids.max") {
            self.processes_max = self.processes_max.min(max);
        }
        let memory = [
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ];
        for (max, used) in memory {
            if let (Some(max), Some(used)) = (number(max), number(used)) {
                self.memory_bytes = self.memory_bytes.min(max);
                self.memory_available_bytes = self.memory_available_bytes.min(max.saturating_sub(used));
            }
        }
    }
}

/// The folders of the control groups that bind this process: its own and those above, as far as they can be seen.
fn cgroup_folders() -> Vec<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut folders = Vec::new();
    for line in groups.lines() {
        // `id:controllers:path`; version 2 has no controllers, version 1 one mount for each.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        if matches!(controllers, "" | "memory" | "pids") {
            let mount = Path::new("/sys/fs/cgroup").join(controllers);
            let path = Path::new(path.trim_start_matches('/'));
            folders.extend(path.ancestors().map(|ancestor| mount.join(ancestor)));
        }
    }
    folders
}

fn read_number(path: &str, find: impl FnOnce(&str) -> Option<u64>) -> Result<u64, MachineError> {
    let read = fs::read_to_string(path);
    let number = read.and_then(|text| find(&text).ok_or_else(|| io::Error::other("not what it should be")));
    number.map_err(|cause| MachineError {
        path: path.into(),
        cause,
    })
}

fn parse_number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn parse_meminfo(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    Some(parse_number(line.trim_end_matches("kB"))? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPING_BYTES: u64 = 200 << 20;

    /// A machine that holds the defaults.
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
    fn open_files_that_do_not_suffice_are_an_error_that_says_how_many_would() {
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
            open_files_max: 1464,
            ..machine()
        };
        assert!(is_error, "{text}");
        assert!(
            text.contains("700 connections needs 1464 open files, and a process may have 763"),
            "{text}"
        );
        assert!(
            text.contains("LimitNOFILE") && text.contains("set keepers to 7 or more"),
            "{text}"
        );
        assert_eq!(problems(&config(), &machine_for_rooms, MAPPING_BYTES), []);
        let (is_error, text) = problem(
            &Config {
                rooms_max: 1401,
                ..config()
            },
            &machine_for_rooms,
        );
        assert!(
            is_error && text.contains("set rooms_max to 1400 or less"),
            "{text}"
        );
    }

    #[test]
    fn processes_that_do_not_suffice_are_an_error_and_a_tight_fit_is_a_warning() {
        let with = |of_user, altogether| Machine {
            processes_of_user_max: of_user,
            processes_max: altogether,
            ..machine()
        };
        let needed = Requirements::of(&config(), 0).processes;
        assert_eq!(needed, 2100 + 3 + 3);
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
    fn memory_that_is_not_there_is_an_error_and_memory_in_use_a_warning() {
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
    fn a_backlog_that_is_cut_and_a_console_in_the_open_are_warnings() {
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
        assert!(!is_error && text.contains("can stop the server"), "{text}");
    }

    #[test]
    fn this_machine_tells_its_limits() {
        let machine = Machine::read().expect("Linux with /proc");
        assert!(
            machine.open_files_max > 0 && machine.processes_now > 0 && machine.backlog_max > 0,
            "{machine:?}"
        );
        assert!(
            machine.memory_bytes > 0 && machine.memory_available_bytes <= machine.memory_bytes,
            "{machine:?}"
        );
    }

    #[test]
    fn a_report_lists_settings_needs_and_problems() {
        let arguments = ["forkade", "--backlog", "5000"].map(Into::into);
        let (_, settings) = crate::config::load(arguments, []).expect("a good command line");
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
            text.contains("open files per process        1464         20000\n"),
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
