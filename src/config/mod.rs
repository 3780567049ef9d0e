//! The configuration: one table of [`SETTINGS`] and three sources for their values. The command line takes precedence
//! over the environment (`FORKADE_*`), the environment over a TOML file, and the file over the default.
//!
//! All mistakes are reported at once, each with its remedy; nothing is guessed. [`capacity`] decides whether this
//! machine can hold the configured capacity.

pub mod capacity;
mod listen;
pub mod machine;
mod settings;
mod sources;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ipnet::IpNet;
use log::LevelFilter;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::settings::number;
use crate::limits::{
    BACKLOG_DEFAULT, BANNER_AFTER_MS_DEFAULT, CHAT_BURST_DEFAULT, CHAT_PER_MINUTE_DEFAULT,
    CONNECTIONS_BEYOND_PLAYERS_DEFAULT, CONNECTIONS_PER_KEEPER_MAX, DRAIN_TIMEOUT_MS_DEFAULT,
    EARLY_REFUSAL_PERCENT_DEFAULT, EARLY_REFUSAL_START_MIN, FAILURES_BURST_DEFAULT,
    FAILURES_PER_MINUTE_DEFAULT, GUESSES_PER_MINUTE_DEFAULT, HANDSHAKE_TIMEOUT_MS_DEFAULT,
    HEARTBEAT_TIMEOUT_MS_DEFAULT, KEEPERS_MAX, LOBBY_FANOUT_DEFAULT, PLAYERS_MAX_DEFAULT,
    READER_WAIT_MS_DEFAULT, REQUESTS_BURST_DEFAULT, REQUESTS_PER_MINUTE_DEFAULT, ROOM_FANOUT_DEFAULT,
    ROOMS_MAX_DEFAULT, SEAT_GRACE_MS_DEFAULT, SEAT_RESERVATION_MS_DEFAULT, SEND_BUFFER_BYTES_DEFAULT,
    SERVER_FANOUT_DEFAULT, SOURCE_CONNECTIONS_DEFAULT, SOURCE_CONNECTS_PER_SECOND_DEFAULT,
    SOURCE_GUESSES_PER_MINUTE_DEFAULT, SOURCE_KIB_PER_SECOND_DEFAULT, SOURCE_MESSAGES_PER_SECOND_DEFAULT,
    TEXT_IDLE_TIMEOUT_MS_DEFAULT, TICKERS_AUTOMATIC_MAX, TICKERS_MIN, WATCHDOG_CPU_MS_DEFAULT,
};

pub use crate::config::listen::ListenAddress;
pub use crate::config::settings::{SETTINGS, Setting};
pub use crate::config::sources::load;
pub(crate) use crate::config::sources::{password_digest, password_in};

/// The values of all settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect.
    pub listen: List<ListenAddress>,
    /// The networks of the proxies whose PROXY headers are believed, and required.
    pub trusted_proxies: List<IpNet>,
    /// Address for operators; `None`: there is no console on TCP.
    pub console: Option<SocketAddr>,
    /// Path of the unix socket for operators of this machine; `None`: there is none.
    pub console_unix: Option<&'static Path>,
    /// File with the password of the console on TCP; `None`: it has none.
    pub console_password_file: Option<&'static Path>,
    /// File to which a line is appended for each act of an operator.
    pub audit_log: Option<&'static Path>,
    /// Most players at once, connected or within their grace.
    pub players_max: u32,
    /// Most rooms at once.
    pub rooms_max: u32,
    /// Most connections at once, before and after their handshake.
    pub connections_max: u32,
    /// Number of keeper processes.
    pub keepers: u32,
    /// Number of ticker processes.
    pub tickers: u32,
    /// Most clients that one handler serves at once: the isolation dial.
    pub clients_per_handler: u32,
    /// Most clients that one handler serves before it ends.
    pub handler_life: u32,
    /// Spare handlers of each keeper.
    pub spare_handlers: Span,
    /// Most connections that wait in the kernel to be accepted.
    pub backlog: u32,
    /// Silence after which a client counts as gone.
    pub heartbeat_timeout_ms: u32,
    /// Silence after which a player in text mode counts as gone.
    pub text_idle_timeout_ms: u32,
    /// How long a seat is kept for a player without a connection.
    pub seat_grace_ms: u32,
    /// How long a seat is kept for a player whom the room's owner invited.
    pub seat_reservation_ms: u32,
    /// How long a move or chat line waits for readers of its room that have fallen behind.
    pub reader_wait_ms: u32,
    /// Time for a connection's handshake.
    pub handshake_timeout_ms: u32,
    /// Milliseconds from the accept after which a client that has sent nothing gets the banner; 0: never.
    pub banner_after_ms: u32,
    /// How long an orderly stop waits for output on its way to clients.
    pub drain_timeout_ms: u32,
    /// Chat lines that a player may send at once.
    pub chat_burst: u32,
    /// Chat lines that a player may send per minute in the long run; 0: no limit.
    pub chat_per_minute: u32,
    /// Rate-limited requests that a player may make at once.
    pub requests_burst: u32,
    /// Rate-limited requests that a player may make per minute in the long run; 0: no limit.
    pub requests_per_minute: u32,
    /// Requests of a player that may be rejected in a row before the next one has to wait.
    pub failures_burst: u32,
    /// Requests of a player that may be rejected per minute in the long run; 0: no limit.
    pub failures_per_minute: u32,
    /// Wrong passcodes, and as many wrong invite codes, that a room judges per minute; 0: no limit.
    pub guesses_per_minute: u32,
    /// Deliveries of lobby lines per second, to all players together; 0: no limit.
    pub lobby_fanout: u32,
    /// Deliveries of a room's events per second, to its members together; 0: no limit.
    pub room_fanout: u32,
    /// Deliveries of all rooms' events per second; 0: no limit.
    pub server_fanout: u32,
    /// Connections that one source may have at once; 0: no limit.
    pub source_connections: u32,
    /// Connections that one source may open per second in the long run; 0: no limit.
    pub source_connects_per_second: u32,
    /// Wrong passcodes and invite codes that are judged per minute from one source; 0: no limit.
    pub source_guesses_per_minute: u32,
    /// Frames or lines that one source may send per second; 0: no limit.
    pub source_messages_per_second: u32,
    /// Kibibytes that one source may send per second; 0: no limit.
    pub source_kib_per_second: u32,
    /// How many bits of an IPv4 address name its source.
    pub ipv4_source_prefix: u32,
    /// How many bits of an IPv6 address name its source.
    pub ipv6_source_prefix: u32,
    /// From when on connections are refused at random because many others have not greeted.
    pub early_refusal: EarlyRefusal,
    /// Processor time that a hung process may use before the watchdog kills it; 0: the watchdog kills no process.
    pub watchdog_cpu_ms: u32,
    /// `SO_SNDBUF` of each connection.
    pub send_buffer_bytes: u32,
    /// Names that players cannot have, besides those that no server allows.
    pub reserved_names: List<String>,
    /// The level of logging.
    pub log: LevelFilter,
}

/// A list of values. (It is read once, for all the life of the program.)
#[derive(Debug, PartialEq, Eq)]
pub struct List<T: 'static>(pub &'static [T]);

impl<T> Clone for List<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<T> {}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect::<Vec<_>>().leak())
    }
}

impl<T: fmt::Display> fmt::Display for List<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, value) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(out, "{separator}{value}")?;
        }
        match self.0 {
            [] => out.write_str("none"),
            _ => Ok(()),
        }
    }
}

/// When connections are refused at random: the more of the others have not greeted, the more likely. Like `MaxStartups`
/// of OpenSSH's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyRefusal {
    /// From half of `connections_max` on, and not before [`EARLY_REFUSAL_START_MIN`] connections.
    Automatic,
    /// Never.
    Never,
    /// From a number of connections on.
    From {
        /// Connections that have not greeted.
        start: u32,
        /// The chance at `start`, in percent.
        percent: u32,
        /// Connections that have not greeted, from which on all further ones are refused.
        full: u32,
    },
}

impl fmt::Display for EarlyRefusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Automatic => out.write_str("auto"),
            Self::Never => out.write_str("none"),
            Self::From { start, percent, full } => write!(out, "{start}:{percent}:{full}"),
        }
    }
}

/// A range of numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The least number.
    pub min: u32,
    /// The greatest number.
    pub max: u32,
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}..{}", self.min, self.max)
    }
}

/// Stands for `auto` until [`Config::derive_automatic`] replaces it.
const AUTOMATIC: u32 = 0;

static LISTEN_DEFAULT: [ListenAddress; 1] = [ListenAddress::Address(SocketAddr::new(
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    4000,
))];

impl Default for Config {
    /// The defaults. Automatic values are not derived yet.
    fn default() -> Self {
        Config {
            listen: List(&LISTEN_DEFAULT),
            trusted_proxies: List(&[]),
            console: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 4001))),
            console_unix: None,
            console_password_file: None,
            audit_log: None,
            players_max: PLAYERS_MAX_DEFAULT,
            rooms_max: ROOMS_MAX_DEFAULT,
            connections_max: AUTOMATIC,
            keepers: AUTOMATIC,
            tickers: AUTOMATIC,
            clients_per_handler: 1,
            handler_life: AUTOMATIC,
            spare_handlers: Span { min: 0, max: 0 },
            backlog: BACKLOG_DEFAULT,
            heartbeat_timeout_ms: HEARTBEAT_TIMEOUT_MS_DEFAULT,
            text_idle_timeout_ms: TEXT_IDLE_TIMEOUT_MS_DEFAULT,
            seat_grace_ms: SEAT_GRACE_MS_DEFAULT,
            seat_reservation_ms: SEAT_RESERVATION_MS_DEFAULT,
            reader_wait_ms: READER_WAIT_MS_DEFAULT,
            handshake_timeout_ms: HANDSHAKE_TIMEOUT_MS_DEFAULT,
            banner_after_ms: BANNER_AFTER_MS_DEFAULT,
            drain_timeout_ms: DRAIN_TIMEOUT_MS_DEFAULT,
            chat_burst: CHAT_BURST_DEFAULT,
            chat_per_minute: CHAT_PER_MINUTE_DEFAULT,
            requests_burst: REQUESTS_BURST_DEFAULT,
            requests_per_minute: REQUESTS_PER_MINUTE_DEFAULT,
            failures_burst: FAILURES_BURST_DEFAULT,
            failures_per_minute: FAILURES_PER_MINUTE_DEFAULT,
            guesses_per_minute: GUESSES_PER_MINUTE_DEFAULT,
            lobby_fanout: LOBBY_FANOUT_DEFAULT,
            room_fanout: ROOM_FANOUT_DEFAULT,
            server_fanout: SERVER_FANOUT_DEFAULT,
            source_connections: SOURCE_CONNECTIONS_DEFAULT,
            source_connects_per_second: SOURCE_CONNECTS_PER_SECOND_DEFAULT,
            source_guesses_per_minute: SOURCE_GUESSES_PER_MINUTE_DEFAULT,
            source_messages_per_second: SOURCE_MESSAGES_PER_SECOND_DEFAULT,
            source_kib_per_second: SOURCE_KIB_PER_SECOND_DEFAULT,
            ipv4_source_prefix: 32,
            ipv6_source_prefix: 64,
            early_refusal: EarlyRefusal::Automatic,
            watchdog_cpu_ms: WATCHDOG_CPU_MS_DEFAULT,
            send_buffer_bytes: SEND_BUFFER_BYTES_DEFAULT,
            reserved_names: List(&[]),
            log: LevelFilter::Info,
        }
    }
}

impl Config {
    /// Derives the automatic values from the others and from the number of cores.
    fn derive_automatic(&mut self, cores: u32) {
        if self.connections_max == AUTOMATIC {
            self.connections_max = self.players_max + CONNECTIONS_BEYOND_PLAYERS_DEFAULT;
        }
        if self.early_refusal == EarlyRefusal::Automatic {
            let start = (self.connections_max / 2).max(EARLY_REFUSAL_START_MIN);
            self.early_refusal = match start < self.connections_max {
                true => EarlyRefusal::From {
                    start,
                    percent: EARLY_REFUSAL_PERCENT_DEFAULT,
                    full: self.connections_max,
                },
                false => EarlyRefusal::Never,
            };
        }
        if self.keepers == AUTOMATIC {
            // Where clients share handlers there is little to fork, and all players of a room should have the same
            // keeper.
            let at_once = if self.clients_per_handler == 1 { cores } else { 1 };
            self.keepers = self.keepers_min().max(at_once).min(number(KEEPERS_MAX));
        }
        if self.tickers == AUTOMATIC {
            self.tickers = cores.clamp(number(TICKERS_MIN), TICKERS_AUTOMATIC_MAX);
        }
        if self.handler_life == AUTOMATIC {
            self.handler_life = self.clients_per_handler;
        }
    }

    /// Whether connections from the address must begin with a PROXY header, which is then believed.
    pub(crate) fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies
            .0
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Fewest keepers that can hold `connections_max` connections.
    fn keepers_min(&self) -> u32 {
        self.connections_max.div_ceil(CONNECTIONS_PER_KEEPER_MAX)
    }

    /// Values that contradict each other.
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
                    "a handler cannot serve {} clients at once and {} in its lifetime",
                    self.clients_per_handler, self.handler_life
                ),
                "set handler-life to clients-per-handler or more, or leave it out",
            ));
        }
        // Where a name leads to is not known yet.
        let clash = self.console.and_then(|console| {
            let is_same = |listen: &&ListenAddress| {
                matches!(listen, ListenAddress::Address(address) if overlap(console, *address))
            };
            Some((self.listen.0.iter().find(is_same)?, console))
        });
        if let Some((listen, console)) = clash {
            problems.push(Problem::error(
                format!("listen ({listen}) and console ({console}) want the same port"),
                "give the console another port, or switch it off with `none`",
            ));
        }
        if let Some(console) = self.console.filter(|console| !console.ip().is_loopback())
            && self.console_password_file.is_none()
        {
            problems.push(Problem::error(
                format!("the console would listen on {console}, where everyone who can reach it could stop the server"),
                "name a file with its password (console-password-file), or keep it on 127.0.0.1 or on a unix socket \
                 (unix:PATH)",
            ));
        }
        problems
    }
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    // A socket of one family takes no connections of the other.
    let same_host = one.ip() == other.ip() || (is_any && one.is_ipv4() == other.is_ipv4());
    one.port() != 0 && one.port() == other.port() && same_host
}

/// What the program is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subcommand {
    /// Run the server.
    Serve,
    /// Check the configuration, and whether this machine can hold its capacity.
    Check,
    /// Ask a running server for an upgrade in place.
    Upgrade,
}

/// A complete and consistent configuration, with the sources of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The values.
    pub config: Config,
    /// The source of each value, in the order of [`SETTINGS`].
    pub sources: [ConfigSource; SETTINGS.len()],
    /// The configuration file, if one was named.
    pub file: Option<PathBuf>,
    /// SHA-256 of the password of the console on TCP, if it has one.
    pub console_password: Option<[u8; 32]>,
    /// Possible mistakes that do not prevent the start.
    pub warnings: Vec<Problem>,
}

impl Settings {
    /// Each setting with its value and the value's source.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Setting, String, ConfigSource)> {
        SETTINGS
            .iter()
            .zip(self.sources)
            .map(|(setting, source)| (setting, setting.format_value(self.config), source))
    }
}

/// A checked configuration as text.
#[derive(Serialize, Deserialize)]
struct CheckedSettings {
    /// Flag, value and source of each setting.
    values: Vec<(String, String, ConfigSource)>,
    file: Option<PathBuf>,
    console_password: Option<[u8; 32]>,
}

impl Settings {
    /// In the form in which an upgrade hands it over to the program that has checked it. The program that runs until
    /// then passes it on unread.
    ///
    /// # Errors
    ///
    /// What it has written, this program cannot read.
    pub(crate) fn to_checked(&self) -> Result<Value, String> {
        let value = |(setting, value, source): (&Setting, String, ConfigSource)| {
            (setting.flag.to_owned(), value, source)
        };
        let checked = serde_json::to_value(CheckedSettings {
            values: self.iter().map(value).collect(),
            file: self.file.clone(),
            console_password: self.console_password,
        })
        .map_err(|error| error.to_string())?;
        let read = Self::from_checked(&checked)?;
        // Warnings are not handed over.
        match (read.config, read.sources) == (self.config, self.sources) {
            true => Ok(checked),
            false => Err("it would be read as another one".to_owned()),
        }
    }

    /// From what the same program has written with [`to_checked`](Self::to_checked).
    ///
    /// # Errors
    ///
    /// Another program has written it.
    pub(crate) fn from_checked(checked: &Value) -> Result<Self, String> {
        let checked = CheckedSettings::deserialize(checked).map_err(|error| error.to_string())?;
        let mut config = Config::default();
        let mut sources = [ConfigSource::Default; SETTINGS.len()];
        if checked.values.len() != SETTINGS.len() {
            return Err("it has other settings".to_owned());
        }
        for ((setting, source), (flag, value, from)) in SETTINGS.iter().zip(&mut sources).zip(&checked.values)
        {
            if setting.flag != flag {
                return Err(format!("it has the setting {flag} in place of {}", setting.flag));
            }
            setting
                .set(&mut config, value)
                .map_err(|valid| format!("{flag} is {value}, and should be {valid}"))?;
            *source = *from;
        }
        Ok(Self {
            config,
            sources,
            file: checked.file,
            console_password: checked.console_password,
            warnings: Vec::new(),
        })
    }

    /// Each setting as the console shows it: key, value, source, and where exactly that is.
    pub(crate) fn rows(&self) -> Vec<[Option<String>; 4]> {
        let row = |(setting, value, source): (&Setting, String, ConfigSource)| {
            let from = match source {
                ConfigSource::Default => None,
                ConfigSource::File => self.file.as_ref().map(|path| path.display().to_string()),
                ConfigSource::Environment => Some(setting.variable()),
                ConfigSource::CommandLine => Some(format!("--{}", setting.flag)),
            };
            [Some(setting.key()), Some(value), Some(source.to_string()), from]
        };
        self.iter().map(row).collect()
    }
}

/// The source of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConfigSource {
    /// The default.
    Default,
    /// The TOML file.
    File,
    /// A `FORKADE_*` variable.
    Environment,
    /// A command-line option.
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

/// A mistake, or a possible mistake, and its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the server refuses to start with it.
    pub is_error: bool,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
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

/// Why the configuration was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line is wrong, or asks only for help or the version.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// All wrong values.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// Prints the error and returns the exit status: 0 after help, 2 after an error.
    pub fn report(&self) -> ExitCode {
        match self {
            // Help goes to stdout, errors go to stderr. A failure to print cannot be reported anywhere.
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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn settings() -> Settings {
        let mut config = Config {
            trusted_proxies: ["10.0.0.0/8", "2001:db8::1/128"]
                .map(|network| network.parse().expect("a network"))
                .into_iter()
                .collect(),
            console_unix: Some(Path::new("/run/forkade")),
            console_password_file: Some(Path::new("/etc/password")),
            spare_handlers: Span { min: 2, max: 16 },
            reserved_names: ["The Crew".to_owned(), "none".to_owned()].into_iter().collect(),
            ..Config::default()
        };
        config.derive_automatic(2);
        let mut sources = [ConfigSource::Default; SETTINGS.len()];
        sources[4] = ConfigSource::File;
        Settings {
            config,
            sources,
            file: Some(PathBuf::from("/etc/forkade.toml")),
            console_password: Some([7; 32]),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn what_is_handed_over_is_read_as_it_was_checked() {
        let checked = settings().to_checked().expect("it can be read");
        // As the program passes it on that runs until then.
        let passed_on = serde_json::from_str(&checked.to_string()).expect("JSON");
        assert_eq!(Settings::from_checked(&passed_on), Ok(settings()));
    }

    #[test]
    fn a_configuration_that_could_not_be_read_is_not_handed_over() {
        let mut out_of_range = settings();
        out_of_range.config.backlog = 0;
        let why = out_of_range.to_checked().expect_err("0 is no backlog");
        assert!(
            why.contains("backlog is 0, and should be a number from 1"),
            "{why}"
        );
        let mut read_otherwise = settings();
        read_otherwise.config.reserved_names = List::from_iter(["Crew,Staff".to_owned()]);
        let why = read_otherwise.to_checked().expect_err("it has two names");
        assert!(why.contains("read as another one"), "{why}");
        let mut unnamed = settings();
        unnamed.file = Some(PathBuf::from(OsString::from_vec(vec![b'/', 0xff])));
        let why = unnamed.to_checked().expect_err("the path is no text");
        assert!(why.contains("UTF-8"), "{why}");
    }
}
