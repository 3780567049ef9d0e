//! What can be typed: one table of commands, and a line made into one. Pure.

use forkade_protocol::{ChatScope, ClientMessage, RoomFilter, RoomSettings};
use thiserror::Error;

use crate::escape::Escaped;
use forkade_games::{AnyGame, GameError, Rejection};
use forkade_protocol::limits::INVITE_CODE_BYTES;

/// The number of every request: an answer is shown when it comes, whatever it answers.
pub const REQUEST: u32 = 0;

/// What a line means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Nothing was typed.
    Nothing,
    /// To know the commands, or one of them.
    Help(Option<&'static Description>),
    /// To have another name.
    Rename(String),
    /// To know the games.
    Games,
    /// To know who is here.
    Who,
    /// To see the room, or the lobby.
    Look,
    /// To open a room.
    Create {
        /// Name of the game.
        game: String,
        /// The room's name; none was given if it is empty.
        name: String,
        /// What it is to be like, where that is not as usual.
        settings: Vec<Setting>,
    },
    /// To come into the room of this [number](crate::render::room_number), or id.
    Join {
        /// Which.
        room: u64,
        /// What was said to be let in.
        passcode: Option<String>,
        /// Only to watch.
        watch: bool,
    },
    /// A list of rooms behind the one of this number.
    Rooms {
        /// Which rooms.
        filter: RoomFilter,
        /// The number, or id, of the last room that was seen.
        after: Option<u64>,
    },
    /// To have the own room like this.
    Set(Vec<Setting>),
    /// Whoever has this name out of the own room. (Not whoever has a seat: that may change while somebody types its number.)
    Kick(String),
    /// Whoever has this name to own the room.
    HandOver(String),
    /// What a program would ask for in the same words.
    Ask(ClientMessage),
    /// A move, in the words of the game.
    Move(String),
    /// To leave the server.
    Quit,
}

/// One thing about a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// What one must know to come in; nothing any more if there is none.
    Passcode(Option<String>),
    /// How many seats; 0: as many as the game can have.
    Seats(u8),
    /// Seconds that a turn may take; 0: as long as it takes.
    TurnSeconds(u16),
    /// In no list.
    Unlisted(bool),
    /// Nobody may watch.
    NoSpectators(bool),
    /// What is to be chosen about the game itself, in its own words; nothing any more if it is empty.
    Options(String),
}

impl Setting {
    /// Changes the settings accordingly, of a room of `game`, if that is known here.
    ///
    /// # Errors
    ///
    /// Options that the game does not understand.
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

/// Why a line means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// Bytes that are no UTF-8.
    #[error("that line is not UTF-8, so nothing was done: set your terminal to UTF-8, or use plain letters")]
    NotUtf8,
    /// A key that is no character.
    #[error("that line has the control character {}{hint} in it, so nothing was done", Escaped(&.found.to_string()))]
    ControlCharacter {
        /// It.
        found: char,
        /// What it may have been.
        hint: &'static str,
    },
    /// Something is missing, or there is too much.
    #[error("the command is: {usage}")]
    Usage {
        /// How it is used.
        usage: &'static str,
    },
    /// A number was expected.
    #[error("\"{}\" is no {what}; the command is: {usage}", Escaped(.found))]
    NoSuch {
        /// What was found.
        found: String,
        /// What was expected.
        what: &'static str,
        /// How the command is used.
        usage: &'static str,
    },
    /// Help was asked for about something that is no command.
    #[error("there is no command \"{}\"; \"help\" lists them", Escaped(.0))]
    NoCommand(String),
}

/// A command as `help` describes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Description {
    name: &'static str,
    usage: &'static str,
    summary: &'static str,
    more: &'static [&'static str],
}

impl Description {
    /// The command's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its line in a list of commands.
    pub fn line(&self) -> String {
        format!("{:30}{}", self.usage, self.summary)
    }

    /// The lines of `help NAME`.
    pub fn explanation(&self) -> impl Iterator<Item = &'static str> {
        [self.usage, self.summary]
            .into_iter()
            .chain(self.more.iter().copied())
    }
}

/// Groups of an invite code, with a hyphen between two.
const CODE_GROUPS: usize = 3;
/// Letters and digits of an invite code.
const CODE_LETTERS: usize = INVITE_CODE_BYTES - (CODE_GROUPS - 1);

const SETTINGS: &str =
    "passcode=WORD seats=NUMBER turn=SECONDS unlisted=yes|no spectators=yes|no options=WORD (the game's own)";

const COMMANDS: &[Description] = &[
    Description {
        name: "help",
        usage: "help [COMMAND]",
        summary: "this list, or more about one command",
        more: &[],
    },
    Description {
        name: "name",
        usage: "name NEW",
        summary: "call yourself something else; only in the lobby",
        more: &["A name has at most 24 characters, and nobody else here may have it."],
    },
    Description {
        name: "games",
        usage: "games",
        summary: "what can be played here",
        more: &[],
    },
    Description {
        name: "rooms",
        usage: "rooms [GAME] [after N]",
        summary: "where people play, or wait for somebody to play with",
        more: &["A list has a page; it says how to ask for the next one."],
    },
    Description {
        name: "who",
        usage: "who",
        summary: "who is here",
        more: &[],
    },
    Description {
        name: "quick",
        usage: "quick GAME",
        summary: "a seat in any room of the game, or a new room",
        more: &[],
    },
    Description {
        name: "create",
        usage: "create GAME [NAME] [OPTIONS]",
        summary: "open a room and take its first seat",
        more: &["Options, of which any may be left out:", SETTINGS],
    },
    Description {
        name: "join",
        usage: "join N|CODE [PASSCODE]",
        summary: "take a seat in room N, or in the room of an invite code",
        more: &[],
    },
    Description {
        name: "watch",
        usage: "watch N|CODE [PASSCODE]",
        summary: "look on in room N, without a seat",
        more: &[],
    },
    Description {
        name: "look",
        usage: "look",
        summary: "the room with its board, or the lobby",
        more: &[],
    },
    Description {
        name: "ready",
        usage: "ready",
        summary: "say that the match may begin; it does when all are ready",
        more: &[],
    },
    Description {
        name: "unready",
        usage: "unready",
        summary: "take that back",
        more: &[],
    },
    Description {
        name: "move",
        usage: "move MOVE",
        summary: "make a move; \"move\" may be left out, as in \"4\"",
        more: &["What a move looks like depends on the game. Whatever is no command is taken for one."],
    },
    Description {
        name: "rematch",
        usage: "rematch",
        summary: "another match with the same people, once one is over",
        more: &[],
    },
    Description {
        name: "leave",
        usage: "leave",
        summary: "back to the lobby; your seat is given up",
        more: &[],
    },
    Description {
        name: "say",
        usage: "say TEXT",
        summary: "talk to all in the room",
        more: &[],
    },
    Description {
        name: "shout",
        usage: "shout TEXT",
        summary: "talk to all on the server",
        more: &[],
    },
    Description {
        name: "tell",
        usage: "tell NAME TEXT",
        summary: "talk to one player",
        more: &["A name with a space in it stands in quotes: tell \"Ann Lee\" hello"],
    },
    Description {
        name: "invite",
        usage: "invite [new]",
        summary: "the invite code of your room; \"new\" makes the old one worthless",
        more: &[],
    },
    Description {
        name: "reserve",
        usage: "reserve NAME",
        summary: "keep a free seat of your room for somebody",
        more: &[],
    },
    Description {
        name: "kick",
        usage: "kick NAME",
        summary: "send somebody out of your room for good",
        more: &[],
    },
    Description {
        name: "owner",
        usage: "owner NAME",
        summary: "make somebody else the owner of your room",
        more: &[],
    },
    Description {
        name: "set",
        usage: "set OPTIONS",
        summary: "change your room, while no match is on",
        more: &[
            "Options, of which the others stay as they are:",
            SETTINGS,
            "\"passcode=\" lets everybody in again.",
        ],
    },
    Description {
        name: "quit",
        usage: "quit",
        summary: "leave the server",
        more: &[],
    },
];

/// Other names.
const ALIASES: &[(&str, &str)] = &[
    ("?", "help"),
    ("nick", "name"),
    ("whisper", "tell"),
    ("spectate", "watch"),
    ("exit", "quit"),
    ("bye", "quit"),
];

/// The lines of `help`.
pub fn overview() -> impl Iterator<Item = String> {
    all().map(Description::line)
}

/// All commands.
pub fn all() -> impl Iterator<Item = &'static Description> {
    COMMANDS.iter()
}

/// What a line means that somebody has typed.
///
/// # Errors
///
/// [`ParseError`]; nothing is to be done.
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
    match described(first) {
        Some(description) => understand(description, rest),
        None => Ok(Command::Move(line.to_owned())),
    }
}

fn described(word: &str) -> Option<&'static Description> {
    let word = word.strip_prefix('/').unwrap_or(word).to_lowercase();
    let alias = ALIASES.iter().find(|(alias, _)| *alias == word);
    let name = alias.map_or(word.as_str(), |(_, name)| name);
    COMMANDS.iter().find(|command| command.name == name)
}

fn understand(description: &'static Description, rest: &str) -> Result<Command, ParseError> {
    let usage = description.usage;
    let wrong = || ParseError::Usage { usage };
    let no_such = |found: &str, what| ParseError::NoSuch {
        found: found.to_owned(),
        what,
        usage,
    };
    let something = || match rest {
        "" => Err(wrong()),
        text => Ok(text.to_owned()),
    };
    let one_word = || match split_word(rest) {
        ("", _) => Err(wrong()),
        (word, "") => Ok(word),
        _ => Err(wrong()),
    };
    let nothing = |command: Command| {
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
            word => match described(word) {
                Some(description) => Ok(Command::Help(Some(description))),
                None => Err(ParseError::NoCommand(word.to_owned())),
            },
        },
        "name" => Ok(Command::Rename(something()?)),
        "games" => nothing(Command::Games),
        "who" => nothing(Command::Who),
        "look" => nothing(Command::Look),
        "rooms" => rooms(rest).ok_or_else(wrong),
        "create" => {
            let (game, rest) = split_word(rest);
            let (words, settings) = settings(rest, &no_such)?;
            match game {
                "" => Err(wrong()),
                game => Ok(Command::Create {
                    game: game.to_lowercase(),
                    name: words.join(" "),
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
                // A room of four digits with a passcode of two words is less likely than a code that begins with digits.
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
        "ready" => nothing(Command::Ask(ClientMessage::Ready { request, ready: true })),
        "unready" => nothing(Command::Ask(ClientMessage::Ready {
            request,
            ready: false,
        })),
        "rematch" => nothing(Command::Ask(ClientMessage::Rematch { request })),
        "leave" => nothing(Command::Ask(ClientMessage::Leave { request })),
        "move" => Ok(Command::Move(something()?)),
        "say" => Ok(chat(ChatScope::Room, something()?)),
        "shout" => Ok(chat(ChatScope::Lobby, something()?)),
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
            player: unquoted(&something()?).to_owned(),
        })),
        "kick" => Ok(Command::Kick(unquoted(&something()?).to_owned())),
        "owner" => Ok(Command::HandOver(unquoted(&something()?).to_owned())),
        "set" => match settings(&something()?, &no_such)? {
            (words, settings) if words.is_empty() => Ok(Command::Set(settings)),
            (words, _) => Err(no_such(words.first().copied().unwrap_or_default(), "option")),
        },
        _ => nothing(Command::Quit),
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

/// The words that are no options, and the options.
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

/// Whether this is an invite code with spaces in it: as many letters and digits as it has, and hyphens.
fn is_spaced_code(text: &str) -> bool {
    let letters = text.chars().filter(char::is_ascii_alphanumeric).count();
    let is_part = |one: char| one == ' ' || one == '-' || one.is_ascii_alphanumeric();
    letters == CODE_LETTERS && text.chars().all(is_part)
}

/// Whether it is one as it is read out: in its groups.
fn is_code_in_groups(text: &str) -> bool {
    is_spaced_code(text)
        && text
            .split_whitespace()
            .all(|group| group.len() == CODE_LETTERS / CODE_GROUPS)
}

/// The first word, which may stand in quotes, and what is behind it.
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
