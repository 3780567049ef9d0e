//! Parses a line into a command. Pure.

mod descriptions;

use std::net::IpAddr;

use log::LevelFilter;
use thiserror::Error;

use crate::frontends::console::commands::descriptions::COMMANDS;
pub(crate) use crate::frontends::console::commands::descriptions::Description;
use crate::limits::{
    BAN_MS_DEFAULT, EVENTS_SHOWN_DEFAULT, MUTE_MS_DEFAULT, SANCTION_MS_MAX, TOP_SECONDS_MAX,
};
use crate::state::sanctions::SanctionKind;
use forkade_text::escape::Escaped;

/// An operator's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConsoleCommand {
    /// List the commands, or explain one of them.
    Help(Option<&'static Description>),
    /// Show something of the server.
    Query(Query, Format),
    /// Check that the server's processes respond.
    Ping(Format),
    /// Show who is busiest, over so many seconds.
    Top { seconds: u32, format: Format },
    /// Upgrade the server in place.
    Upgrade,
    /// Follow a room's events; `hidden`: including those for one seat only.
    Watch { room: u64, hidden: bool },
    /// Follow the frames of the player with this name or id.
    Trace(String),
    /// Set the level of the log.
    Log(LevelFilter),
    /// Send a line to all players.
    Say(String),
    /// Remove the player with this name.
    Kick(String),
    /// Ban or mute a name, for so many milliseconds.
    Sanction {
        kind: SanctionKind,
        name: String,
        time_ms: u64,
    },
    /// Ban the source of an address.
    BanAddress { address: IpAddr, time_ms: u64 },
    /// Lift the ban and the penalties of the source of an address.
    UnbanAddress(IpAddr),
    /// Lift the bans and mutes of this name.
    Unban(String),
    /// Begin or cancel a drain.
    Drain(Drain),
    /// Stop the server.
    Stop,
    /// Give the console's password.
    Password(String),
    /// Switch line editing on or off.
    Edit(bool),
    /// End the connection.
    Quit,
}

impl ConsoleCommand {
    /// Whether it changes the server, so that the audit log has a line about it.
    pub(crate) fn is_act(&self) -> bool {
        match self {
            Self::Upgrade
            | Self::Log(_)
            | Self::Say(_)
            | Self::Kick(_)
            | Self::Sanction { .. }
            | Self::BanAddress { .. }
            | Self::UnbanAddress(_)
            | Self::Unban(_)
            | Self::Drain(_)
            | Self::Stop => true,
            Self::Help(_)
            | Self::Query(..)
            | Self::Ping(_)
            | Self::Top { .. }
            | Self::Watch { .. }
            | Self::Trace(_)
            | Self::Password(_)
            | Self::Edit(_)
            | Self::Quit => false,
        }
    }
}

/// What a query shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Query {
    Status,
    Processes {
        memory: bool,
    },
    Players,
    /// By name or id.
    Player(String),
    Rooms,
    Bans,
    /// Where clients connect from; or those that are penalised alone.
    Sources {
        penalised: bool,
    },
    Closes,
    /// The last incidents, at most so many.
    Events {
        count: usize,
    },
    /// By id; with a seat: the game as that seat sees it.
    Room {
        id: u64,
        seat: Option<u8>,
    },
    Locks {
        all: bool,
    },
    Config,
    LogLevel,
}

/// The argument of `drain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// Stop after the last match, or after so many seconds.
    On { seconds_max: Option<u32> },
    /// Cancel the drain.
    Off,
}

/// The format of a query's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A table, for people.
    Table,
    /// One line of JSON, for programs.
    Json,
}

/// Why a line is not a command.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CommandError {
    #[error("not a command: a line is text in UTF-8, without control characters")]
    NotText,
    #[error("unknown command \"{}\": `help` lists them", Escaped(.0))]
    Unknown(String),
    #[error("usage: {0}")]
    Usage(&'static str),
}

/// Parses a line. An empty line asks for help.
///
/// # Errors
///
/// [`CommandError`].
pub(crate) fn parse(line: &[u8]) -> Result<ConsoleCommand, CommandError> {
    let line = std::str::from_utf8(line).map_err(|_| CommandError::NotText)?;
    if line
        .chars()
        .any(|character| character.is_control() && character != '\t')
    {
        return Err(CommandError::NotText);
    }
    let line = line.trim();
    if line.is_empty() {
        return Ok(ConsoleCommand::Help(None));
    }
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let description = find(name)?;
    let rest = rest.trim_start();
    match description.name {
        "help" if rest.is_empty() => Ok(ConsoleCommand::Help(None)),
        "help" => Ok(ConsoleCommand::Help(Some(find(rest)?))),
        name => parse_arguments(name, rest).ok_or(CommandError::Usage(description.usage)),
    }
}

/// The list of all commands, one per line.
pub(crate) fn overview() -> Vec<String> {
    COMMANDS.iter().map(Description::line).collect()
}

fn find(name: &str) -> Result<&'static Description, CommandError> {
    let found = COMMANDS
        .iter()
        .find(|command| command.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| CommandError::Unknown(name.to_owned()))
}

/// The command of this name with its arguments `rest`; `None` if the usage is wrong.
fn parse_arguments(name: &str, rest: &str) -> Option<ConsoleCommand> {
    match name {
        // The argument is the rest of the line, spaces included.
        "kick" => (!rest.is_empty()).then(|| ConsoleCommand::Kick(rest.to_owned())),
        "unban" => (!rest.is_empty()).then(|| match rest.parse() {
            Ok(address) => ConsoleCommand::UnbanAddress(address),
            Err(_) => ConsoleCommand::Unban(unquoted(rest).to_owned()),
        }),
        "ban" => parse_sanction(SanctionKind::BAN, rest, BAN_MS_DEFAULT),
        "mute" => parse_sanction(SanctionKind::MUTE, rest, MUTE_MS_DEFAULT),
        "password" => (!rest.is_empty()).then(|| ConsoleCommand::Password(rest.to_owned())),
        "say" => (!rest.is_empty()).then(|| ConsoleCommand::Say(rest.to_owned())),
        "trace" => (!rest.is_empty()).then(|| ConsoleCommand::Trace(rest.to_owned())),
        "player" => {
            let (player, format) = match rest.strip_suffix("--json") {
                Some(player) if player.ends_with(char::is_whitespace) => (player.trim_end(), Format::Json),
                _ => (rest, Format::Table),
            };
            (!player.is_empty()).then(|| ConsoleCommand::Query(Query::Player(player.to_owned()), format))
        }
        _ => {
            let mut arguments = Arguments(rest.split_whitespace().collect());
            let command = parse_words(name, &mut arguments)?;
            arguments.0.is_empty().then_some(command)
        }
    }
}

fn parse_words(name: &str, arguments: &mut Arguments<'_>) -> Option<ConsoleCommand> {
    let format = |arguments: &mut Arguments<'_>| {
        if arguments.take_flag("--json") {
            Format::Json
        } else {
            Format::Table
        }
    };
    let query = match name {
        "stop" => return Some(ConsoleCommand::Stop),
        "upgrade" => return Some(ConsoleCommand::Upgrade),
        "quit" => return Some(ConsoleCommand::Quit),
        "edit" => return parse_on_off(arguments.take().unwrap_or("on")).map(ConsoleCommand::Edit),
        "drain" => return parse_drain(arguments.take()).map(ConsoleCommand::Drain),
        "ping" => return Some(ConsoleCommand::Ping(format(arguments))),
        "top" => {
            let format = format(arguments);
            let seconds = arguments.take().map_or(Some(1), |seconds| seconds.parse().ok())?;
            let is_possible = (1..=TOP_SECONDS_MAX).contains(&seconds);
            return is_possible.then_some(ConsoleCommand::Top { seconds, format });
        }
        "watch" => {
            let hidden = arguments.take_flag("--hidden");
            let room = arguments.take()?.parse().ok()?;
            return Some(ConsoleCommand::Watch { room, hidden });
        }
        "log" => match arguments.0.first() {
            None | Some(&"--json") => Query::LogLevel,
            Some(_) => return arguments.take()?.parse().ok().map(ConsoleCommand::Log),
        },
        "status" => Query::Status,
        "processes" => Query::Processes {
            memory: arguments.take_flag("--memory"),
        },
        "players" => Query::Players,
        "rooms" => Query::Rooms,
        "bans" => Query::Bans,
        "sources" => Query::Sources { penalised: false },
        "penalties" => Query::Sources { penalised: true },
        "closes" => Query::Closes,
        "events" => {
            let format = format(arguments);
            let count = arguments
                .take()
                .map_or(Some(EVENTS_SHOWN_DEFAULT), |count| count.parse().ok())?;
            return Some(ConsoleCommand::Query(Query::Events { count }, format));
        }
        "room" => {
            let seat = match arguments.take_option("--seat") {
                Some(seat) => Some(seat?.parse().ok()?),
                None => None,
            };
            let format = format(arguments);
            let id = arguments.take()?.parse().ok()?;
            return Some(ConsoleCommand::Query(Query::Room { id, seat }, format));
        }
        "locks" => Query::Locks {
            all: arguments.take_flag("--all"),
        },
        "config" => Query::Config,
        _ => return None,
    };
    let format = format(arguments);
    Some(ConsoleCommand::Query(query, format))
}

/// A name, which may have spaces or be in quotes, and perhaps a time.
fn parse_sanction(kind: SanctionKind, rest: &str, default_ms: u64) -> Option<ConsoleCommand> {
    let timed = rest.rsplit_once(char::is_whitespace);
    let timed = timed.and_then(|(name, time)| Some((name.trim_end(), parse_time(time)?)));
    let (name, time_ms) = timed.unwrap_or((rest, default_ms));
    let is_possible = !name.is_empty() && (1..=SANCTION_MS_MAX).contains(&time_ms);
    is_possible.then(|| match name.parse() {
        // A name that is written like an address stands in quotes.
        Ok(address) if kind == SanctionKind::BAN => ConsoleCommand::BanAddress { address, time_ms },
        _ => ConsoleCommand::Sanction {
            kind,
            name: unquoted(name).to_owned(),
            time_ms,
        },
    })
}

/// A time like `30s`, `10m`, `2h` or `1d`, in milliseconds.
fn parse_time(word: &str) -> Option<u64> {
    let (unit_start, unit) = word.char_indices().next_back()?;
    let (count, unit_ms) = (
        &word[..unit_start],
        match unit.to_ascii_lowercase() {
            's' => 1000,
            'm' => 60_000,
            'h' => 3_600_000,
            'd' => 24 * 3_600_000,
            _ => return None,
        },
    );
    let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| {
        count
            .parse::<u64>()
            .map_or(u64::MAX, |count| count.saturating_mul(unit_ms))
    })
}

fn unquoted(text: &str) -> &str {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.unwrap_or(text)
}

fn parse_on_off(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn parse_drain(word: Option<&str>) -> Option<Drain> {
    match word {
        None => Some(Drain::On { seconds_max: None }),
        Some(word) if parse_on_off(word) == Some(false) => Some(Drain::Off),
        Some(seconds) => Some(Drain::On {
            seconds_max: Some(seconds.parse().ok()?),
        }),
    }
}

/// What follows a command and was not understood yet.
struct Arguments<'l>(Vec<&'l str>);

impl<'l> Arguments<'l> {
    /// The first one.
    fn take(&mut self) -> Option<&'l str> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }

    /// Whether the flag is there.
    fn take_flag(&mut self, flag: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|word| *word != flag);
        self.0.len() < before
    }

    /// If the option is there, what follows it.
    fn take_option(&mut self, option: &str) -> Option<Option<&'l str>> {
        let at = self.0.iter().position(|word| *word == option)?;
        self.0.remove(at);
        Some((at < self.0.len()).then(|| self.0.remove(at)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn queries_accept_their_own_flags_in_any_order() {
        let json = |query| Ok(ConsoleCommand::Query(query, Format::Json));
        assert_eq!(
            parse(b"status"),
            Ok(ConsoleCommand::Query(Query::Status, Format::Table))
        );
        assert_eq!(parse(b"  STATUS\t --json "), json(Query::Status));
        assert_eq!(
            parse(b"processes --json --memory"),
            json(Query::Processes { memory: true })
        );
        assert_eq!(parse(b"locks --all --json"), json(Query::Locks { all: true }));
        for wrong in [
            "status --all",
            "players anna",
            "room",
            "room five",
            "room 5 --seat",
            "room 5 --seat x",
            "room 5 6",
            "watch",
            "watch five",
            "watch 5 6",
            "trace",
            "player",
            "log loud",
            "log info debug",
            "drain soon",
            "drain -1",
            "drain 5 6",
            "edit please",
            "config --all",
            "ping 127.0.0.1",
            "rooms --json extra",
            "stop now",
            "quit --json",
            "kick  ",
            "ban",
            "mute  ",
            "unban",
            "ban Ann 0m",
            "ban Ann 31d",
            "mute Ann 99999999999999999999h",
            "bans Ann",
        ] {
            assert!(
                matches!(parse(wrong.as_bytes()), Err(CommandError::Usage(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_name_is_the_rest_of_the_line() {
        assert_eq!(
            parse("kick  Ana María ".as_bytes()),
            Ok(ConsoleCommand::Kick("Ana María".to_owned()))
        );
        assert_eq!(
            parse(b"kick --json"),
            Ok(ConsoleCommand::Kick("--json".to_owned()))
        );
        assert_eq!(
            parse(b"trace Ana 2 "),
            Ok(ConsoleCommand::Trace("Ana 2".to_owned()))
        );
        let player = |name: &str, format| Ok(ConsoleCommand::Query(Query::Player(name.to_owned()), format));
        assert_eq!(parse(b"player Ana 2"), player("Ana 2", Format::Table));
        assert_eq!(parse(b"player Ana 2\t --json"), player("Ana 2", Format::Json));
        assert_eq!(parse(b"player --json"), player("--json", Format::Table));
        assert_eq!(parse(b"player Ana--json"), player("Ana--json", Format::Table));
    }

    #[test]
    fn a_time_may_follow_the_name_in_a_ban() {
        let ban = |name: &str, time_ms| {
            let (kind, name) = (SanctionKind::BAN, name.to_owned());
            Ok(ConsoleCommand::Sanction { kind, name, time_ms })
        };
        assert_eq!(parse(b"ban Ann"), ban("Ann", BAN_MS_DEFAULT));
        assert_eq!(parse(b"ban Ann 30s"), ban("Ann", 30_000));
        assert_eq!(parse(b"ban  Ann Lee  10M "), ban("Ann Lee", 600_000));
        assert_eq!(parse(b"ban Ann 30d"), ban("Ann", SANCTION_MS_MAX));
        assert_eq!(parse(b"ban 10m"), ban("10m", BAN_MS_DEFAULT));
        assert_eq!(parse(b"ban Ann 2"), ban("Ann 2", BAN_MS_DEFAULT));
        assert_eq!(parse(b"ban Ann m"), ban("Ann m", BAN_MS_DEFAULT));
        assert_eq!(parse("ban Ann 5ä".as_bytes()), ban("Ann 5ä", BAN_MS_DEFAULT));
        assert_eq!(parse(b"ban \"Ann 10m\""), ban("Ann 10m", BAN_MS_DEFAULT));
        assert_eq!(parse(b"ban \"Ann 10m\" 2h"), ban("Ann 10m", 7_200_000));
        assert_eq!(
            parse(b"unban \"Ann 10m\""),
            Ok(ConsoleCommand::Unban("Ann 10m".to_owned()))
        );
    }

    #[test]
    fn arguments_and_flags_may_come_in_any_order() {
        let room = |id, seat, format| Ok(ConsoleCommand::Query(Query::Room { id, seat }, format));
        assert_eq!(parse(b"room 7"), room(7, None, Format::Table));
        assert_eq!(parse(b"room --seat 1 7 --json"), room(7, Some(1), Format::Json));
        assert_eq!(
            parse(b"watch --hidden 7"),
            Ok(ConsoleCommand::Watch {
                room: 7,
                hidden: true
            })
        );
        assert_eq!(parse(b"log DEBUG"), Ok(ConsoleCommand::Log(LevelFilter::Debug)));
        assert_eq!(
            parse(b"log --json"),
            Ok(ConsoleCommand::Query(Query::LogLevel, Format::Json))
        );
        let drain = |seconds_max| Ok(ConsoleCommand::Drain(Drain::On { seconds_max }));
        assert_eq!(
            (parse(b"drain"), parse(b"drain 30")),
            (drain(None), drain(Some(30)))
        );
        assert_eq!(parse(b"drain OFF"), Ok(ConsoleCommand::Drain(Drain::Off)));
    }

    #[test]
    fn each_command_can_be_parsed_and_explained() {
        for command in &COMMANDS {
            assert_eq!(
                parse(format!("help {}", command.name).as_bytes()),
                Ok(ConsoleCommand::Help(Some(command)))
            );
            // A wrong use is answered with the usage, except for `help` and for commands that accept any text.
            let wrong = parse(format!("{} --wrong", command.name).as_bytes());
            match command.name {
                "help" => assert!(matches!(wrong, Err(CommandError::Unknown(_)))),
                "kick" | "ban" | "mute" | "unban" | "password" | "player" | "trace" | "say" => {
                    assert!(wrong.is_ok());
                }
                _ => assert_eq!(wrong, Err(CommandError::Usage(command.usage))),
            }
        }
        assert_eq!(parse(b""), Ok(ConsoleCommand::Help(None)));
    }

    #[test]
    fn an_invalid_line_is_rejected_and_quoted_escaped() {
        assert_eq!(parse(b"caf\xc3"), Err(CommandError::NotText));
        assert_eq!(parse(b"stat\x1bus"), Err(CommandError::NotText));
        let error = parse("\u{202e}pots".as_bytes()).expect_err("no such command");
        assert_eq!(
            error.to_string(),
            "unknown command \"\\u{202e}pots\": `help` lists them"
        );
    }

    proptest! {
        #[test]
        fn an_error_is_always_a_single_line(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Err(error) = parse(&line) {
                prop_assert!(!error.to_string().chars().any(char::is_control));
            }
        }
    }
}
