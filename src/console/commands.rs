//! The commands: one table of them, and a line made into one. Pure.

use thiserror::Error;

use crate::logging::Escaped;

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// To know the commands, or one of them.
    Help(Option<&'static Description>),
    /// To know something of the server.
    Query(Query, Form),
    /// The player of this name out.
    Kick(String),
    /// The server to end.
    Stop,
    /// The connection to end.
    Quit,
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Query {
    Status,
    Processes { memory: bool },
    Players,
    Rooms,
    Locks { all: bool },
}

/// For whom an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Table,
    /// For programs: one line.
    Json,
}

/// A command as `help` describes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Description {
    name: &'static str,
    usage: &'static str,
    summary: &'static str,
    more: &'static [&'static str],
}

const COMMANDS: [Description; 9] = [
    Description {
        name: "help",
        usage: "help [COMMAND]",
        summary: "what can be said here, or more about one command",
        more: &[
            "Every reply ends in a line `OK` or `ERR <why>`.",
            "An empty line is answered with a hint and `OK`.",
        ],
    },
    Description {
        name: "status",
        usage: "status [--json]",
        summary: "the server's counters",
        more: &[
            "`…_total` counts since the server was started; the others are what is there now.",
            "handlers: processes that serve players, one per connection; consoles have their own.",
            "takeovers_total: handlers that were replaced on a living connection.",
            "recoveries_total: locks whose holder died, and whose transaction was undone or found complete.",
            "blamed_total: connections closed because their handler kept dying over the same input.",
        ],
    },
    Description {
        name: "processes",
        usage: "processes [--memory] [--json]",
        summary: "all processes of the server, and the player each one serves",
        more: &[
            "role: supervisor, ticker, keeper, listener, handler (of a player), console (a handler of an operator).",
            "number: which one of its kind, for roles of which there are several.",
            "restarts: how often the supervisor has started it again.",
            "--memory adds each one's state (R running, S sleeping, T stopped …) and its share of memory in KiB (PSS);",
            "with many processes that takes the kernel a while.",
        ],
    },
    Description {
        name: "players",
        usage: "players [--json]",
        summary: "who is here, connected or not, and where",
        more: &[
            "presence: connected; away (the connection is lost, the seat is kept for the grace); leaving.",
            "seconds: since the connection was accepted, or since it was lost.",
        ],
    },
    Description {
        name: "rooms",
        usage: "rooms [--json]",
        summary: "the rooms, their games and who plays",
        more: &["events: how many the room has had; its clients count the same."],
    },
    Description {
        name: "locks",
        usage: "locks [--all] [--json]",
        summary: "the locks that were ever waited for or left by a dead process, and those held now",
        more: &[
            "taken: how often. waits: how often somebody found it taken. long_waits: how many of them lasted 250 ms.",
            "recoveries: how often its holder died and the next taker decided the transaction.",
            "record: index of the player's or room's record. The last line sums up all locks, shown or not.",
            "--all shows those of which there is nothing to tell, too.",
        ],
    },
    Description {
        name: "kick",
        usage: "kick PLAYER",
        summary: "sends a player out of the server, for good (a new greeting is welcome)",
        more: &["The name is all that follows, spaces included; upper and lower case are the same."],
    },
    Description {
        name: "stop",
        usage: "stop",
        summary: "ends the server in order, as SIGTERM does",
        more: &[
            "Clients are told and what waits for them is sent. Said a second time, it ends the server at once.",
        ],
    },
    Description {
        name: "quit",
        usage: "quit",
        summary: "ends this connection",
        more: &[],
    },
];

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum CommandError {
    #[error("not a command: a line is text in UTF-8, without control characters")]
    NotText,
    #[error("unknown command \"{}\": `help` lists them", Escaped(.0))]
    Unknown(String),
    #[error("usage: {0}")]
    Usage(&'static str),
}

/// What a line asks for. An empty one asks for help.
///
/// # Errors
///
/// [`CommandError`]: what to say instead.
pub(super) fn parse(line: &[u8]) -> Result<Command, CommandError> {
    let line = std::str::from_utf8(line).map_err(|_| CommandError::NotText)?;
    if line
        .chars()
        .any(|character| character.is_control() && character != '\t')
    {
        return Err(CommandError::NotText);
    }
    let line = line.trim();
    if line.is_empty() {
        return Ok(Command::Help(None));
    }
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let description = find(name)?;
    match (description.name, rest.trim_start()) {
        ("help", "") => Ok(Command::Help(None)),
        ("help", about) => Ok(Command::Help(Some(find(about)?))),
        ("stop", "") => Ok(Command::Stop),
        ("quit", "") => Ok(Command::Quit),
        ("kick", player) if !player.is_empty() => Ok(Command::Kick(player.to_owned())),
        (name, flags) => query(name, flags).ok_or(CommandError::Usage(description.usage)),
    }
}

/// All commands, one per line.
pub(super) fn overview() -> Vec<String> {
    let lines = COMMANDS
        .iter()
        .map(|command| format!("{:<32}{}", command.usage, command.summary));
    lines.collect()
}

impl Description {
    /// The command, explained.
    pub(super) fn explanation(&self) -> Vec<String> {
        let more = self.more.iter().map(ToString::to_string);
        [format!("{}: {}", self.usage, self.summary)]
            .into_iter()
            .chain(more)
            .collect()
    }
}

fn find(name: &str) -> Result<&'static Description, CommandError> {
    let found = COMMANDS
        .iter()
        .find(|command| command.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| CommandError::Unknown(name.to_owned()))
}

fn query(name: &str, flags: &str) -> Option<Command> {
    let mut flags: Vec<&str> = flags.split_whitespace().collect();
    let mut take = |wanted: &str| {
        let before = flags.len();
        flags.retain(|flag| *flag != wanted);
        flags.len() < before
    };
    let form = if take("--json") { Form::Json } else { Form::Table };
    let query = match name {
        "status" => Query::Status,
        "processes" => Query::Processes {
            memory: take("--memory"),
        },
        "players" => Query::Players,
        "rooms" => Query::Rooms,
        "locks" => Query::Locks { all: take("--all") },
        _ => return None,
    };
    flags.is_empty().then_some(Command::Query(query, form))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn queries_take_their_own_flags_in_any_order() {
        let json = |query| Ok(Command::Query(query, Form::Json));
        assert_eq!(parse(b"status"), Ok(Command::Query(Query::Status, Form::Table)));
        assert_eq!(parse(b"  STATUS\t --json "), json(Query::Status));
        assert_eq!(
            parse(b"processes --json --memory"),
            json(Query::Processes { memory: true })
        );
        assert_eq!(parse(b"locks --all --json"), json(Query::Locks { all: true }));
        for wrong in [
            "status --all",
            "players anna",
            "rooms --json extra",
            "stop now",
            "quit --json",
            "kick  ",
        ] {
            assert!(
                matches!(parse(wrong.as_bytes()), Err(CommandError::Usage(_))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_name_is_all_that_follows() {
        assert_eq!(
            parse("kick  Ana María ".as_bytes()),
            Ok(Command::Kick("Ana María".to_owned()))
        );
        assert_eq!(parse(b"kick --json"), Ok(Command::Kick("--json".to_owned())));
    }

    #[test]
    fn each_command_is_found_and_explained() {
        for command in &COMMANDS {
            assert_eq!(
                parse(format!("help {}", command.name).as_bytes()),
                Ok(Command::Help(Some(command)))
            );
            // "usage" is what a wrong use of any but kick (whose argument may be anything) and help is answered with.
            let wrong = parse(format!("{} --wrong", command.name).as_bytes());
            match command.name {
                "help" => assert!(matches!(wrong, Err(CommandError::Unknown(_)))),
                "kick" => assert!(wrong.is_ok()),
                _ => assert_eq!(wrong, Err(CommandError::Usage(command.usage))),
            }
        }
        assert_eq!(parse(b""), Ok(Command::Help(None)));
    }

    #[test]
    fn what_is_no_command_is_refused_without_repeating_it_raw() {
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
        fn no_line_makes_more_than_one_line_of_an_error(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Err(error) = parse(&line) {
                prop_assert!(!error.to_string().chars().any(char::is_control));
            }
        }
    }
}
