//! Upgrade in place: what the running program hands over to the one that goes on in its place, and how that one finds
//! it.
//!
//! ```text
//! old supervisor ── opens the new program once ── forks ──▶ check: the new program maps the memory for reading,
//!        │                                                  lays its own tables over it, and says whether it can go on
//!        └── execve of that same file, same pid ──▶ new supervisor ── claims memory, sockets, doorbells, children
//!                                                        │
//!                              one after another: ticker, keepers, listener; then each handler, by takeover
//! ```
//!
//! Nothing is given up before the new program has agreed, and if executing it fails, the old one continues. The new
//! program cannot continue with a memory of another layout, with processes that exchange other messages, with games
//! whose states it cannot read, or with a configuration that needs other memory or other sockets. Such an upgrade is
//! refused with the reason, and needs a drain and a fresh start.

pub(crate) mod request;
pub(crate) mod states;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::limits::HANDOVER_BYTES_MAX;
use crate::process::ipc::{IpcDescriptors, MESSAGES_VERSION};
use crate::state::layout::{Capacity, Memory};
use forkade_games::Games;
use shmem::sys::exec;
use shmem::sys::process::ProcessId;

/// Environment variable of the new program: why it was started, and the numbers of the descriptors that say the rest.
/// The name does not begin with `FORKADE_`, because it is not a setting.
const VARIABLE: &str = "_FORKADE_HANDOVER";

/// What a program is given that replaces another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// Path of the program, in bytes: the next upgrade takes what lies there then.
    pub(crate) program: Vec<u8>,
    /// The memory.
    memory: RawFd,
    layout_hash: u64,
    /// [`MESSAGES_VERSION`]: the processes of both programs exchange messages until all are replaced.
    #[serde(default)]
    messages: u32,
    players_max: u32,
    rooms_max: u32,
    keepers: u32,
    /// The keys of sources, in bans and elsewhere, are of these lengths.
    #[serde(default)]
    source_prefixes: (u32, u32),
    /// As configured: a name may have other addresses by now.
    listen: String,
    console: Option<SocketAddr>,
    #[serde(default)]
    console_unix: Option<PathBuf>,
    /// Name of each game, in order, and the version of its state.
    games: Vec<(String, u32)>,
    /// A file with the [states] of all matches, for a probe.
    #[serde(default)]
    pub(crate) states: Option<RawFd>,
    /// The configuration that the new program has checked, in its own form; `None` for a probe, and from a program that
    /// does not hand it over.
    #[serde(default)]
    pub(crate) settings: Option<Value>,
    /// Sockets, channels and doorbells; `None` for a probe.
    pub(crate) ipc: Option<IpcDescriptors>,
    /// The processes that the supervisor had forked: role, index and process.
    pub(crate) processes: Vec<(String, u32, ProcessId)>,
}

/// Why this program was started, if another one started it during an upgrade.
#[derive(Debug)]
pub(crate) enum StartMode {
    /// To say, through the pipe, whether it could continue.
    Probe(Handover, File),
    /// To continue in the place of the other.
    Continue(Handover),
}

/// Why a handover cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(crate) struct HandoverError {
    step: &'static str,
    #[source]
    source: io::Error,
}

impl HandoverError {
    /// Names the step that failed.
    pub(crate) fn at(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self { step, source }
    }
}

fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> HandoverError {
    move |source| HandoverError {
        step,
        source: source.into(),
    }
}

impl Handover {
    /// What a server hands over. The caller leaves the memory's descriptor open.
    pub(crate) fn of(
        program: Vec<u8>,
        memory: RawFd,
        config: &Config,
        games: &Games,
        processes: Vec<(String, u32, ProcessId)>,
    ) -> Self {
        Self {
            program,
            memory,
            layout_hash: Memory::layout_hash(capacity_of(config)),
            messages: MESSAGES_VERSION,
            players_max: config.players_max,
            rooms_max: config.rooms_max,
            keepers: config.keepers,
            source_prefixes: (config.ipv4_source_prefix, config.ipv6_source_prefix),
            listen: config.listen.to_string(),
            console: config.console,
            console_unix: config.console_unix.map(Path::to_owned),
            games: versions(games),
            states: None,
            settings: None,
            ipc: None,
            processes,
        }
    }

    /// Writes it to a memfd for the next program.
    ///
    /// # Errors
    ///
    /// No memory or no descriptor left.
    pub(crate) fn write(&self) -> Result<OwnedFd, HandoverError> {
        let file = rustix::fs::memfd_create("handover", MemfdFlags::CLOEXEC);
        let mut file = File::from(file.map_err(step("cannot create the handover"))?);
        let text = serde_json::to_vec(self).map_err(step("cannot write the handover"))?;
        file.write_all(&text).map_err(step("cannot write the handover"))?;
        file.rewind().map_err(step("cannot write the handover"))?;
        Ok(file.into())
    }

    fn read(number: RawFd) -> Result<Self, HandoverError> {
        let file = exec::take_inherited(number).map_err(step("the handover is not there"))?;
        let mut text = Vec::new();
        File::from(file)
            .take(HANDOVER_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(step("cannot read the handover"))?;
        serde_json::from_slice(&text).map_err(step("the handover is of another form"))
    }

    /// Maps the memory that is handed over.
    ///
    /// # Errors
    ///
    /// It is missing, or was created by a program with another layout.
    pub(crate) fn open_memory(&self, config: &Config) -> Result<&'static Memory, HandoverError> {
        Memory::open(self.take_memory()?, capacity_of(config)).map_err(step("cannot use the shared memory"))
    }

    /// Checks whether [`open_memory`](Self::open_memory) could map the memory, without changing it.
    ///
    /// # Errors
    ///
    /// Those of [`open_memory`](Self::open_memory).
    pub(crate) fn check_memory(&self, config: &Config) -> Result<(), HandoverError> {
        Memory::check(self.take_memory()?, capacity_of(config)).map_err(step("cannot use the shared memory"))
    }

    /// Why these games cannot continue with the matches under way.
    ///
    /// # Errors
    ///
    /// The states cannot be read.
    pub(crate) fn objection_to_states(&self, games: &Games) -> Result<Option<String>, HandoverError> {
        let Some(number) = self.states else {
            return Ok(None);
        };
        let file = exec::take_inherited(number).map_err(step("the states of the matches are not there"))?;
        let mut file = BufReader::new(File::from(file));
        // It was written through the same open file.
        file.rewind()
            .and_then(|()| states::objection(file, games))
            .map_err(step("cannot read the states of the matches"))
    }

    fn take_memory(&self) -> Result<OwnedFd, HandoverError> {
        exec::take_inherited(self.memory).map_err(step("the shared memory is not there"))
    }

    /// Why this program, with this configuration and these games, cannot continue with what is handed over.
    pub(crate) fn objection(&self, config: &Config, games: &Games) -> Option<String> {
        let numbers = [
            ("players_max", self.players_max, config.players_max),
            ("rooms_max", self.rooms_max, config.rooms_max),
            ("keepers", self.keepers, config.keepers),
            (
                "ipv4_source_prefix",
                self.source_prefixes.0,
                config.ipv4_source_prefix,
            ),
            (
                "ipv6_source_prefix",
                self.source_prefixes.1,
                config.ipv6_source_prefix,
            ),
        ];
        if let Some((name, running, new)) = numbers.into_iter().find(|(_, running, new)| running != new) {
            return Some(format!(
                "{name} would change from {running} to {new}, for which the memory is not made"
            ));
        }
        let (running, new) = (&self.listen, config.listen.to_string());
        if *running != new {
            return Some(format!("listen would change from {running} to {new}"));
        }
        if self.console != config.console {
            let shown = |address: Option<SocketAddr>| {
                address.map_or("none".to_owned(), |address| address.to_string())
            };
            let (running, new) = (shown(self.console), shown(config.console));
            return Some(format!("console would change from {running} to {new}"));
        }
        if self.console_unix.as_deref() != config.console_unix {
            let shown = |path: Option<&Path>| {
                path.map_or("none".to_owned(), |path| format!("unix:{}", path.display()))
            };
            let (running, new) = (shown(self.console_unix.as_deref()), shown(config.console_unix));
            return Some(format!("console would change from {running} to {new}"));
        }
        let new = versions(games);
        for (index, (name, version)) in self.games.iter().enumerate() {
            match new.get(index) {
                Some((new_name, _)) if new_name != name => {
                    return Some(format!("game {index} is {name}, and would become {new_name}"));
                }
                Some((_, new_version)) if new_version != version => {
                    return Some(format!(
                        "the states of {name} are of version {version}, and it would read version {new_version}"
                    ));
                }
                Some(_) => {}
                None => return Some(format!("the game {name} would be missing")),
            }
        }
        if self.messages != MESSAGES_VERSION {
            return Some(
                "its processes talk to each other otherwise: such a change needs a drain and a fresh start"
                    .to_owned(),
            );
        }
        let hash = Memory::layout_hash(capacity_of(config));
        (self.layout_hash != hash).then(|| {
            "it lays the shared memory out otherwise: such a change needs a drain and a fresh start"
                .to_owned()
        })
    }
}

fn capacity_of(config: &Config) -> Capacity {
    Capacity {
        players: config.players_max,
        rooms: config.rooms_max,
        keepers: config.keepers,
    }
}

fn versions(games: &Games) -> Vec<(String, u32)> {
    games
        .iter()
        .map(|(_, game)| (game.name().to_owned(), game.state_version()))
        .collect()
}

/// What a probed program replies.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProbeReply {
    /// Its version.
    pub(crate) version: String,
    /// Why it cannot continue, if it cannot.
    pub(crate) objection: Option<String>,
    /// Its configuration, which is not loaded again: it might have changed meanwhile. It is in the replying program's
    /// own form, which only that program reads.
    #[serde(default)]
    pub(crate) settings: Option<Value>,
}

/// Why this program was started, if that was during an upgrade.
///
/// # Errors
///
/// The variable was set by something else, or the other program's handover has another form.
pub(crate) fn start_mode() -> Result<Option<StartMode>, HandoverError> {
    let Some(value) = std::env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let malformed =
        || step("the handover is not there")(io::Error::other(format!("{VARIABLE} is malformed")));
    let value = value.into_string().map_err(|_| malformed())?;
    let mut words = value.split(':');
    let what = words.next().ok_or_else(malformed)?;
    let mut number = || {
        words
            .next()
            .and_then(|word| word.parse().ok())
            .ok_or_else(malformed)
    };
    match what {
        "check" => {
            let (handover, report) = (number()?, number()?);
            let report = exec::take_inherited(report).map_err(step("the way to answer is not there"))?;
            Ok(Some(StartMode::Probe(Handover::read(handover)?, report.into())))
        }
        "go-on" => Ok(Some(StartMode::Continue(Handover::read(number()?)?))),
        _ => Err(malformed()),
    }
}

/// The environment of a program that is probed: this one's, and where it finds the handover and replies.
///
/// # Errors
///
/// Those of [`exec::keep_open`].
pub(crate) fn environment_for_check(
    handover: &OwnedFd,
    report: &OwnedFd,
) -> io::Result<impl Iterator<Item = (OsString, OsString)>> {
    let (handover, report) = (
        exec::keep_open(handover.as_fd())?,
        exec::keep_open(report.as_fd())?,
    );
    Ok(environment(format!("check:{handover}:{report}")))
}

/// The environment of the program that continues.
///
/// # Errors
///
/// Those of [`exec::keep_open`].
pub(crate) fn environment_to_go_on(
    handover: &OwnedFd,
) -> io::Result<impl Iterator<Item = (OsString, OsString)>> {
    Ok(environment(format!(
        "go-on:{}",
        exec::keep_open(handover.as_fd())?
    )))
}

fn environment(value: String) -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
        .filter(|(name, _)| name != VARIABLE)
        .chain([(VARIABLE.into(), value.into())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use forkade_games::relay::Relay;
    use forkade_games::tictactoe::TicTacToe;

    fn games(both: bool) -> Games {
        let mut games = Games::new();
        games.add::<TicTacToe>().expect("the first");
        if both {
            games.add::<Relay>().expect("the second");
        }
        games
    }

    fn handover(games: &Games) -> Handover {
        Handover::of(b"/forkade".to_vec(), 3, &Config::default(), games, Vec::new())
    }

    #[test]
    fn the_same_program_may_continue_and_so_may_one_with_more_games() {
        let config = Config::default();
        assert_eq!(handover(&games(true)).objection(&config, &games(true)), None);
        assert_eq!(handover(&games(false)).objection(&config, &games(true)), None);
    }

    #[test]
    fn a_program_that_cannot_read_the_running_state_may_not_continue() {
        let config = Config::default();
        let objection = |handover: Handover, config: &Config, games: &Games| {
            handover.objection(config, games).expect("it may not")
        };
        assert!(objection(handover(&games(true)), &config, &games(false)).contains("relay would be missing"));
        let rooms = Config {
            rooms_max: 7,
            ..config
        };
        assert!(objection(handover(&games(true)), &rooms, &games(true)).contains("rooms_max"));
        let wider = Config {
            ipv6_source_prefix: 48,
            ..config
        };
        assert!(objection(handover(&games(true)), &wider, &games(true)).contains("ipv6_source_prefix"));
        for listen in ["127.0.0.1:4000,[::1]:4000", "127.0.0.2:4000", "localhost:4000"] {
            let addresses = listen
                .split(',')
                .map(|one| one.parse().expect("an address or a name"));
            let elsewhere = Config {
                listen: addresses.collect(),
                ..config
            };
            assert_eq!(
                objection(handover(&games(true)), &elsewhere, &games(true)),
                format!("listen would change from 127.0.0.1:4000 to {listen}")
            );
        }
        let elsewhere = Config {
            console: None,
            ..config
        };
        assert!(objection(handover(&games(true)), &elsewhere, &games(true)).contains("console"));
        let mut other = handover(&games(true));
        other.games[0].1 += 1;
        assert!(objection(other, &config, &games(true)).contains("version"));
        let mut other = handover(&games(true));
        other.games.swap(0, 1);
        assert!(objection(other, &config, &games(true)).contains("would become"));
        let mut other = handover(&games(true));
        other.layout_hash ^= 1;
        assert!(objection(other, &config, &games(true)).contains("lays the shared memory out otherwise"));
        let mut other = handover(&games(true));
        other.messages += 1;
        assert!(objection(other, &config, &games(true)).contains("talk to each other otherwise"));
    }
}
