//! Commands that are typed: [`parse`] turns a line into a [`Command`]. Pure.

use forkade_protocol::{ChatScope, ClientMessage, RoomFilter, RoomSettings};
use thiserror::Error;

use crate::escape::Escaped;
use forkade_games::{AnyGame, GameError, Rejection};
use forkade_protocol::limits::INVITE_CODE_BYTES;

/// The request number of everything that is typed: a reply is shown when it arrives, whichever request it answers.
pub const REQUEST: u32 = 0;

/// The meaning of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A blank line.
    Nothing,
    /// Explain all commands, or one.
    Help(Option<&'static Description>),
    /// Change the player's name.
    Rename(String),
    /// Go on with the session that has this resume word.
    Resume(String),
    /// Show the player's name and resume word.
    WhoAmI,
    /// List the games.
    Games,
    /// List the players.
    Who,
    /// Show the room, or the lobby.
    Look,
    /// Say whether the terminal understands ANSI's control sequences.
    Ansi(bool),
    /// Create a room.
    Create {
        /// The game's name.
        game: String,
        /// The room's name; empty if none was given.
        name: String,
        /// Settings that differ from the default.
        settings: Vec<Setting>,
    },
    /// Join the room with this [number](crate::render::room_number), or id.
    Join {
        /// The number or id.
        room: u64,
        /// The passcode, if one was given.
        passcode: Option<String>,
        /// Join as a spectator.
        watch: bool,
    },
    /// List rooms.
    Rooms {
        /// Which rooms.
        filter: RoomFilter,
        /// Begin behind the room with this number or id.
        after: Option<u64>,
    },
    /// Change the settings of the player's room.
    Set(Vec<Setting>),
    /// Remove the player with this name from the room. (Not the player in a seat: that can change while the number is
    /// typed.)
    Kick(String),
    /// Make the player with this name the owner of the room.
    HandOver(String),
    /// List the names that the player ignores.
    Ignored,
    /// Ignore the players of this name, or not any more.
    Ignore {
        /// The name.
        player: String,
        /// Whether to ignore it.
        ignore: bool,
    },
    /// A request that needs no translation.
    Ask(ClientMessage),
    /// A move, to be parsed by the game.
    Move(String),
    /// Leave the server.
    Quit,
}

/// One setting of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// The passcode; `None` removes it.
    Passcode(Option<String>),
    /// The number of seats; 0: as many as the game can have.
    Seats(u8),
    /// Seconds that a turn may take; 0: no limit.
    TurnSeconds(u16),
    /// Whether the room is left out of lists.
    Unlisted(bool),
    /// Whether spectators are refused.
    NoSpectators(bool),
    /// Options of the game, to be parsed by it; empty: the default.
    Options(String),
}

impl Setting {
    /// Applies the setting to those of a room of `game`; `None`: this program does not have the game.
    ///
    /// # Errors
    ///
    /// Options that the game rejects, or that need a game that this program does not have.
    pub fn apply(self, settings: &mut RoomSettings, game: Option<&dyn AnyGame>) -> Result<(), GameError> {
        match self {
            Self::Passcode(passcode) => settings.passcode = passcode,
            Self::Seats(seats) => settings.seats = seats,
            Self::TurnSeconds(seconds) => settings.turn_seconds = seconds,
            Self::Unlisted(unlisted) => settings.unlisted = unlisted,
            Self::NoSpectators(none) => settings.no_spectators = none,
            Self::Options(text) if text.is_empty() => settings.options.clear(),
            Self::Options(text) => {
                let unknown =
                    || Rejection::bad_options("the game is not known here, and so its options are not");
                settings.options = game.ok_or_else(unknown)?.parse_options(&text)?;
            }
        }
        Ok(())
    }
}

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// The line is not UTF-8.
    #[error("that line is not UTF-8, so nothing was done: set your terminal to UTF-8, or use plain letters")]
    NotUtf8,
    /// The line contains a control character.
    #[error("that line has the control character {}{hint} in it, so nothing was done", Escaped(&.found.to_string()))]
    ControlCharacter {
        /// The character.
        found: char,
        /// The key that may have produced it.
        hint: &'static str,
    },
    /// An argument is missing, or there are too many.
    #[error("the command is: {usage}")]
    Usage {
        /// The command's usage.
        usage: &'static str,
    },
    /// An argument is not what was expected.
    #[error("\"{}\" is no {what}; the command is: {usage}", Escaped(.found))]
    NoSuch {
        /// The argument.
        found: String,
        /// What was expected.
        what: &'static str,
        /// The command's usage.
        usage: &'static str,
    },
    /// Help was requested for an unknown command.
    #[error("there is no command \"{}\"; \"help\" lists them", Escaped(.0))]
    NoCommand(String),
}

mod table;

pub use crate::commands::table::{Description, all, overview};

use crate::commands::table::find;

/// Groups of an invite code, with a hyphen between two.
const CODE_GROUPS: usize = 3;
/// Letters and digits of an invite code.
const CODE_LETTERS: usize = INVITE_CODE_BYTES - (CODE_GROUPS - 1);

/// Parses a typed line. A line that is no command is a [`Command::Move`].
///
/// # Errors
///
/// [`ParseError`]; the line has no effect.
pub fn parse(line: &[u8]) -> Result<Command, ParseError> {
    let line = std::str::from_utf8(line).map_err(|_| ParseError::NotUtf8)?;
    if let Some(found) = line.chars().find(|found| found.is_control() && *found != '\t') {
        let hint = match found {
            '\u{1b}' => " (an arrow key?)",
            '\u{3}' => " (Ctrl-C)",
            '\u{4}' => " (Ctrl-D)",
            _ => "",
        };
        return Err(ParseError::ControlCharacter { found, hint });
    }
    let line = line.trim();
    let (first, rest) = split_word(line);
    if line.is_empty() {
        return Ok(Command::Nothing);
    }
    match find(first) {
        Some(description) => parse_arguments(description, rest),
        None => Ok(Command::Move(line.to_owned())),
    }
}

fn parse_arguments(description: &'static Description, rest: &str) -> Result<Command, ParseError> {
    let usage = description.usage;
    let wrong = || ParseError::Usage { usage };
    let no_such = |found: &str, what| ParseError::NoSuch {
        found: found.to_owned(),
        what,
        usage,
    };
    let text_argument = || match rest {
        "" => Err(wrong()),
        text => Ok(text.to_owned()),
    };
    let one_word = || match split_word(rest) {
        ("", _) => Err(wrong()),
        (word, "") => Ok(word),
        _ => Err(wrong()),
    };
    let no_arguments = |command: Command| {
        if rest.is_empty() {
            Ok(command)
        } else {
            Err(wrong())
        }
    };
    let chat = |scope, text: String| {
        Command::Ask(ClientMessage::Chat {
            request: REQUEST,
            scope,
            text,
        })
    };
    let request = REQUEST;
    match description.name {
        "help" => match rest {
            "" => Ok(Command::Help(None)),
            word => match find(word) {
                Some(description) => Ok(Command::Help(Some(description))),
                None => Err(ParseError::NoCommand(word.to_owned())),
            },
        },
        "name" => Ok(Command::Rename(text_argument()?)),
        "resume" => Ok(Command::Resume(text_argument()?)),
        "whoami" => no_arguments(Command::WhoAmI),
        "games" => no_arguments(Command::Games),
        "who" => no_arguments(Command::Who),
        "look" => no_arguments(Command::Look),
        "ansi" => match rest {
            "on" | "off" => Ok(Command::Ansi(rest == "on")),
            _ => Err(wrong()),
        },
        "rooms" => rooms(rest).ok_or_else(wrong),
        "create" => {
            let (game, rest) = split_word(rest);
            let (words, settings) = settings(rest, &no_such)?;
            match game {
                "" => Err(wrong()),
                game => Ok(Command::Create {
                    game: game.to_lowercase(),
                    name: unquoted(&words.join(" ")).to_owned(),
                    settings,
                }),
            }
        }
        "quick" => Ok(Command::Ask(ClientMessage::QuickMatch {
            request,
            game: one_word()?.to_lowercase(),
            options: Vec::new(),
        })),
        "join" | "watch" => {
            let watch = description.name == "watch";
            let (which, passcode) = split_word(rest);
            match (which, which.trim_start_matches('#').parse()) {
                ("", _) => Err(wrong()),
                // A room of four digits with a passcode of two words is less likely than a code that begins with
                // digits.
                (_, Ok(room)) if !is_code_in_groups(rest) => Ok(Command::Join {
                    room,
                    passcode: (!passcode.is_empty()).then(|| passcode.to_owned()),
                    watch,
                }),
                (code, _) if passcode.is_empty() || is_spaced_code(rest) => {
                    let code = if passcode.is_empty() { code } else { rest }.to_owned();
                    Ok(Command::Ask(ClientMessage::JoinByInvite { request, code, watch }))
                }
                (found, _) => Err(no_such(found, "number of a room")),
            }
        }
        "ready" => no_arguments(Command::Ask(ClientMessage::Ready { request, ready: true })),
        "unready" => no_arguments(Command::Ask(ClientMessage::Ready {
            request,
            ready: false,
        })),
        "rematch" => no_arguments(Command::Ask(ClientMessage::Rematch { request })),
        "leave" => no_arguments(Command::Ask(ClientMessage::Leave { request })),
        "move" => Ok(Command::Move(text_argument()?)),
        "say" => Ok(chat(ChatScope::Room, text_argument()?)),
        "shout" => Ok(chat(ChatScope::Lobby, text_argument()?)),
        "tell" => match split_word(rest) {
            ("", _) | (_, "") => Err(wrong()),
            (to, text) => Ok(chat(ChatScope::Whisper { to: to.to_owned() }, text.to_owned())),
        },
        "invite" => match rest {
            "" | "new" => Ok(Command::Ask(ClientMessage::Invite {
                request,
                renew: rest == "new",
            })),
            _ => Err(wrong()),
        },
        "reserve" => Ok(Command::Ask(ClientMessage::Reserve {
            request,
            player: unquoted(&text_argument()?).to_owned(),
        })),
        "ignore" if rest.is_empty() => Ok(Command::Ignored),
        "ignore" | "unignore" => Ok(Command::Ignore {
            player: unquoted(&text_argument()?).to_owned(),
            ignore: description.name == "ignore",
        }),
        "kick" => Ok(Command::Kick(unquoted(&text_argument()?).to_owned())),
        "owner" => Ok(Command::HandOver(unquoted(&text_argument()?).to_owned())),
        "set" => match settings(&text_argument()?, &no_such)? {
            (words, settings) if words.is_empty() => Ok(Command::Set(settings)),
            (words, _) => Err(no_such(words.first().copied().unwrap_or_default(), "option")),
        },
        _ => no_arguments(Command::Quit),
    }
}

fn rooms(rest: &str) -> Option<Command> {
    let (mut words, mut filter, mut after) =
        (rest.split_whitespace().peekable(), RoomFilter::default(), None);
    if words.peek().is_some_and(|word| *word != "after") {
        filter.game = words.next().map(str::to_lowercase);
    }
    if words.next_if_eq(&"after").is_some() {
        after = Some(words.next()?.trim_start_matches('#').parse().ok()?);
    }
    words.next().is_none().then_some(Command::Rooms { filter, after })
}

/// The words that are no settings, and the settings.
fn settings<'l>(
    rest: &'l str,
    no_such: &dyn Fn(&str, &'static str) -> ParseError,
) -> Result<(Vec<&'l str>, Vec<Setting>), ParseError> {
    let (mut words, mut settings) = (Vec::new(), Vec::new());
    for word in rest.split_whitespace() {
        let Some((key, value)) = word.split_once('=') else {
            words.push(word);
            continue;
        };
        let yes_or_no = || match value {
            "yes" | "on" => Ok(true),
            "no" | "off" => Ok(false),
            _ => Err(no_such(value, "\"yes\" or \"no\"")),
        };
        settings.push(match key.to_lowercase().as_str() {
            "passcode" => Setting::Passcode((!value.is_empty()).then(|| value.to_owned())),
            "seats" => Setting::Seats(value.parse().map_err(|_| no_such(value, "number of seats"))?),
            "turn" => Setting::TurnSeconds(value.parse().map_err(|_| no_such(value, "number of seconds"))?),
            "unlisted" => Setting::Unlisted(yes_or_no()?),
            "spectators" => Setting::NoSpectators(!yes_or_no()?),
            "options" => Setting::Options(value.to_owned()),
            _ => return Err(no_such(key, "option")),
        });
    }
    Ok((words, settings))
}

/// Whether this is an invite code that may contain spaces and hyphens.
fn is_spaced_code(text: &str) -> bool {
    let letters = text.chars().filter(char::is_ascii_alphanumeric).count();
    let is_part = |one: char| one == ' ' || one == '-' || one.is_ascii_alphanumeric();
    letters == CODE_LETTERS && text.chars().all(is_part)
}

/// Whether this is an invite code in groups, as people read it out.
fn is_code_in_groups(text: &str) -> bool {
    is_spaced_code(text)
        && text
            .split_whitespace()
            .all(|group| group.len() == CODE_LETTERS / CODE_GROUPS)
}

/// The first word, which may be in quotes, and the rest.
fn split_word(text: &str) -> (&str, &str) {
    if let Some((word, rest)) = text.strip_prefix('"').and_then(|text| text.split_once('"')) {
        return (word, rest.trim_start());
    }
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn unquoted(text: &str) -> &str {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.unwrap_or(text)
}
