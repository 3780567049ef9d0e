//! What the server says, in words: for people who have no client that would do it. Pure.
//!
//! All texts here are lines that end in `\n`; [`to_terminal`] makes them what a terminal may be sent. Nothing of what others have chosen
//! (names, chat, whatever a game shows) reaches a terminal but as visible characters of one line.

use forkade_protocol::{
    ChatScope, Outcome, Phase, RoomEvent, RoomId, RoomRules, RoomSummary, ServerMessage, Snapshot,
};

use crate::commands;
use crate::commands::Description;
use crate::escape::Escaped;
use crate::limits::TEXT_OUTPUT_BYTES_MAX;
use forkade_games::{AnyGame, GameError, Games, floor_char_boundary};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands at the beginning of the line on which something may be typed.
pub const PROMPT: &str = "> ";

/// What a terminal has to be sent before something that was not asked for, so that it takes the prompt's place.
pub const OVERWRITE_PROMPT: &str = "\r";

/// Columns of a line of something that is said: of a terminal of 80, the last one stays free, where some begin a new line.
const SPOKEN_COLUMNS_MAX: usize = 79;

/// What a line begins with that goes on with what was said in the one before.
const SPOKEN_INDENT: &str = "    ";

/// What is sent in place of the end of something too long.
const CUT: &str = "[this was too long to show all of it]\r\n";

/// Text as a terminal may be sent it: lines end in CR LF, and whatever else could control a terminal is shown as an escape. Lines that
/// do not fit are [broken](wrap) here: a terminal's edge would make a row of whatever stands there. At most
/// [`TEXT_OUTPUT_BYTES_MAX`] bytes. (Telnet's byte 255, which would have to be doubled, does not occur in UTF-8.)
pub fn to_terminal(text: &str) -> String {
    let mut wire = String::with_capacity(text.len() + 64);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let rows = wrap("", line).replace('\n', "\r\n");
        let reserved = if lines.peek().is_some() { CUT.len() } else { 0 };
        if wire.len() + rows.len() + reserved > TEXT_OUTPUT_BYTES_MAX {
            wire.push_str(CUT);
            break;
        }
        wire.push_str(&rows);
    }
    wire
}

/// The number by which people call a room: short, and free for another one when the room is gone.
pub fn room_number(room: RoomId) -> u64 {
    (room.0 & u64::from(u32::MAX)) + 1
}

/// The first words to somebody new.
pub fn welcome(name: &str, games: &Games) -> String {
    let names: Vec<_> = games.iter().map(|(_, game)| game.name()).collect();
    let first = names.first().copied().unwrap_or("GAME");
    format!(
        "Welcome to Forkade. You are called {name}; \"name NEW\" changes that.\n\
         Games: {}.\n\
         \"quick {first}\" finds somebody to play with, \"rooms\" shows who plays,\n\
         \"help\" lists all commands.\n",
        names.join(", ")
    )
}

/// All commands.
pub fn help() -> String {
    let lines = commands::overview().map(|line| format!("  {line}\n"));
    lines.collect::<String>() + "Anything else is a move in your game.\n"
}

/// One command.
pub fn command_help(about: &Description) -> String {
    about.explanation().map(|line| format!("  {line}\n")).collect()
}

/// Something that was typed, with quotes around it.
pub fn quoted_input(typed: &str) -> String {
    const CHARACTERS_MAX: usize = 40;
    let shown: String = typed.chars().take(CHARACTERS_MAX).collect();
    let more = if shown.len() < typed.len() { "..." } else { "" };
    format!("\"{}{more}\"", Escaped(&shown))
}

/// A room's name, with quotes around it, in which there is no other: it ends where it seems to.
pub fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "'"))
}

/// What a room is called whose opener has not said.
pub fn default_room_name(opener: &str) -> String {
    // A player's name has at most 24 characters, a room's 40.
    format!("{opener}'s room")
}

/// The games that can be played.
pub fn games(games: &Games) -> String {
    let line = |game: &dyn AnyGame| {
        let (min, max) = (*game.seats().start(), *game.seats().end());
        let seats = if min == max {
            format!("{min} seats")
        } else {
            format!("{min} to {max} seats")
        };
        format!("  {:16}{seats}\n", game.name())
    };
    let lines = games.iter().map(|(_, game)| line(game));
    lines.collect::<String>()
        + "\"quick GAME\" to play with anybody, \"create GAME\" for a room of your own.\n"
}

/// What a request led to, or anything else that is not about one room's match.
pub fn message(games: &Games, message: &ServerMessage) -> String {
    match message {
        ServerMessage::Rooms { rooms, next, .. } => list_of_rooms(rooms, *next),
        ServerMessage::Joined { snapshot, .. } => {
            let room = room(games, snapshot);
            let hint = match (snapshot.seat, snapshot.phase) {
                (Some(_), Phase::Waiting) => {
                    "Type \"ready\" when you are; the match begins when all seats are.\n"
                }
                (Some(_), _) => "",
                (None, _) => "You are watching.\n",
            };
            format!("You are in {room}{hint}")
        }
        ServerMessage::Started { snapshot } => {
            format!(
                "The match begins.{}\n{}",
                you_are(games, snapshot),
                picture(games, snapshot)
            )
        }
        ServerMessage::Resync {
            snapshot: Some(snapshot),
        } => format!("You have missed something. You are in {}", room(games, snapshot)),
        ServerMessage::Resync { snapshot: None } => "You are in the lobby.\n".into(),
        ServerMessage::Picture { snapshot, .. } => format!("You are in {}", room(games, snapshot)),
        ServerMessage::Left { .. } => "You are back in the lobby.\n".into(),
        ServerMessage::Rejected { text, .. } => refusal(text),
        ServerMessage::Chat { scope, from, text } => wrap(&chat_prefix(scope, from), text),
        ServerMessage::Event { event, .. } => {
            let context = RenderContext {
                game: None,
                seat: None,
                names: &|_| None,
                left: &|_| None,
            };
            context.event(event).unwrap_or_default()
        }
        ServerMessage::Error { text, .. } | ServerMessage::ShuttingDown { text } => to_sentence(text),
        ServerMessage::Invitation { code, .. } => {
            format!("With the code {code} anybody can come in, by \"join {code}\".\n")
        }
        ServerMessage::Invited {
            game,
            name,
            from,
            code,
            seconds,
            ..
        } => one_line(&format!(
            "{from} keeps a seat for you for {seconds} seconds in {} ({game}): \"join {code}\" takes it.",
            quoted_name(name)
        )),
        ServerMessage::Removed { text, .. } => to_sentence(text),
        ServerMessage::ChatMissed { lines } => format!("{lines} lines of the lobby's chat were lost.\n"),
        // For programs.
        ServerMessage::Welcome { .. } | ServerMessage::Resumed { .. } | ServerMessage::Pong { .. } => {
            String::new()
        }
    }
}

/// A refusal.
pub fn refusal(why: &str) -> String {
    format!("No: {why}.\n")
}

/// A reason as a sentence.
pub fn to_sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    format!(
        "{}{}.\n",
        first.unwrap_or_default(),
        characters.as_str().trim_end_matches('.')
    )
}

/// The text of the last frame to somebody of whom nothing is known yet, and who may be a person at a terminal: all of it is a frame to a
/// program, and a person can read what is in it.
///
/// What a terminal makes of the frame's head: its length is a letter, and three bytes that show nothing; then the variant's number is a
/// line's end; the code may be another, or switch the character set (14), which the first character here takes back; the text's length
/// is a letter, which the sentence is written over.
pub fn readable_by_any_client(text: &str) -> String {
    const BACK_TO_LETTERS: char = '\u{f}';
    let text = &text[..floor_char_boundary(text, FOR_ANYBODY_BYTES.end - 10)];
    let sentence = to_sentence(text);
    let line = format!("{BACK_TO_LETTERS}\r{}", Escaped(sentence.trim_end()));
    let bytes_min = FOR_ANYBODY_BYTES.start - "\r\n".len();
    format!("{line:bytes_min$}\r\n")
}

/// Lengths of a text that are visible characters, as is the frame's, which is greater by three.
const FOR_ANYBODY_BYTES: std::ops::Range<usize> = 32..120;

/// What somebody who types nothing for so long is told.
pub fn idle_timeout_text(limit_ms: u64) -> String {
    match limit_ms {
        60_000.. => format!("you have typed nothing for {} minutes", limit_ms / 60_000),
        _ => format!("you have typed nothing for {} seconds", limit_ms.div_ceil(1000)),
    }
}

/// The room and what is in it. Begins in the middle of a sentence.
pub fn room(games: &Games, snapshot: &Snapshot) -> String {
    let game = find(games, &snapshot.game);
    let state = match snapshot.phase {
        Phase::Waiting => "waiting for players",
        Phase::Playing => "a match is on",
        Phase::Finished => "the match is over",
    };
    let number = room_number(snapshot.room);
    let mut text = format!(
        "room {number}, {}: {}, {state}.\n",
        quoted_name(&snapshot.name),
        snapshot.game
    );
    for (seat, info) in (0..).zip(&snapshot.seats) {
        let seat_name = seat_name(game, seat);
        let kept = snapshot.reservations.iter().find(|kept| kept.seat == seat);
        let line = match (info, kept) {
            (None, None) => "free".to_owned(),
            (None, Some(kept)) => format!(
                "kept for {} for {} s",
                kept.name,
                kept.milliseconds.div_ceil(1000)
            ),
            (Some(info), _) => {
                let mut line = info.name.clone();
                for (holds, words) in [
                    (snapshot.seat == Some(seat), " (you)"),
                    (snapshot.owner == Some(seat), ", owner"),
                    (info.ready && snapshot.phase != Phase::Playing, ", ready"),
                    (!info.connected, ", connection lost"),
                ] {
                    line.push_str(if holds { words } else { "" });
                }
                line
            }
        };
        text.push_str(&format!("  {seat_name}: {line}\n"));
    }
    if snapshot.spectators > 0 {
        text.push_str(&format!("  watching: {}\n", snapshot.spectators));
    }
    let rules = rules(&snapshot.rules);
    if !rules.is_empty() {
        text.push_str(&format!("  rules: {rules}\n"));
    }
    text + &picture(games, snapshot)
}

/// The board as its viewer sees it; nothing while there is none.
fn picture(games: &Games, snapshot: &Snapshot) -> String {
    let drawn = find(games, &snapshot.game)
        .filter(|_| !snapshot.view.is_empty())
        .map(|game| game.draw(&snapshot.view));
    match drawn {
        None => String::new(),
        Some(Ok(drawn)) => drawn,
        Some(Err(_)) => "(The game cannot draw itself.)\n".into(),
    }
}

fn you_are(games: &Games, snapshot: &Snapshot) -> String {
    let game = find(games, &snapshot.game);
    match snapshot.seat {
        Some(seat) => format!(" You are {}.", label(game, seat)),
        None => String::new(),
    }
}

fn list_of_rooms(rooms: &[RoomSummary], next: Option<RoomId>) -> String {
    if rooms.is_empty() {
        return "There is no such room. \"create GAME\" opens one.\n".into();
    }
    let head = ("room", "game", "seats", "watching", "match");
    let mut text = format!(
        "  {:>5}  {:12}{:>6}  {:>8}  {:5}  name\n",
        head.0, head.1, head.2, head.3, head.4
    );
    for room in rooms {
        let phase = match room.phase {
            Phase::Waiting => "-",
            Phase::Playing => "on",
            Phase::Finished => "over",
        };
        text.push_str(&format!(
            "  {:>5}  {:12}{:>6}  {:>8}  {phase:5}  {}{}\n",
            room_number(room.room),
            room.game,
            format!("{}/{}", room.taken, room.seats),
            room.spectators,
            room.name,
            if room.passcode { " *" } else { "" },
        ));
    }
    if rooms.iter().any(|room| room.passcode) {
        text.push_str("  (*: asks for a passcode)\n");
    }
    if let Some(next) = next {
        text.push_str(&format!(
            "There are more: \"rooms after {}\".\n",
            room_number(next)
        ));
    }
    text
}

fn rules(rules: &RoomRules) -> String {
    let turn = (rules.turn_seconds > 0).then(|| format!("{} seconds for a turn", rules.turn_seconds));
    let others = [
        (rules.passcode, "passcode"),
        (rules.unlisted, "unlisted"),
        (rules.no_spectators, "no spectators"),
    ];
    let others = others
        .into_iter()
        .filter(|(holds, _)| *holds)
        .map(|(_, words)| words.to_owned());
    others.chain(turn).collect::<Vec<_>>().join(", ")
}

fn find<'g>(games: &'g Games, name: &str) -> Option<&'g dyn AnyGame> {
    games.find(name).map(|(_, game)| game)
}

/// What the game calls a seat.
fn label(game: Option<&dyn AnyGame>, seat: u8) -> String {
    game.and_then(|game| game.seat_label(seat).ok())
        .unwrap_or_else(|| format!("seat {seat}"))
}

/// A seat by its number and what the game calls it.
fn seat_name(game: Option<&dyn AnyGame>, seat: u8) -> String {
    let (plain, label) = (format!("seat {seat}"), label(game, seat));
    if label == plain {
        plain
    } else {
        format!("{plain} ({label})")
    }
}

/// Where events happen: what is needed to tell of them.
#[derive(Clone, Copy)]
pub struct RenderContext<'s> {
    /// The room's game.
    pub game: Option<&'s dyn AnyGame>,
    /// The listener's own seat.
    pub seat: Option<u8>,
    /// The names of those who have a seat.
    pub names: &'s dyn Fn(u8) -> Option<String>,
    /// Of seats that are free: the names of those who had them.
    pub left: &'s dyn Fn(u8) -> Option<String>,
}

impl RenderContext<'_> {
    /// What has happened.
    ///
    /// # Errors
    ///
    /// A fault of the game's code: there is nothing to tell.
    pub fn event(&self, event: &RoomEvent) -> Result<String, GameError> {
        let own = |seat: u8| self.seat == Some(seat);
        let who = |seat: u8| (self.names)(seat).unwrap_or_else(|| format!("seat {seat}"));
        let who_had = |seat: u8| {
            (self.left)(seat).unwrap_or_else(|| format!("whoever had {}", seat_name(self.game, seat)))
        };
        let text = match event {
            RoomEvent::Joined { seat, name } => format!("{name} takes {}.", seat_name(self.game, *seat)),
            RoomEvent::Left { seat } => match (self.left)(*seat) {
                Some(name) => format!("{name} has left."),
                None => format!("Whoever had {} has left.", seat_name(self.game, *seat)),
            },
            RoomEvent::Connection {
                seat,
                connected: true,
            } => format!("{} is back.", who(*seat)),
            RoomEvent::Connection {
                seat,
                connected: false,
            } => {
                format!(
                    "{} has lost the connection; the seat is kept for a while.",
                    who(*seat)
                )
            }
            RoomEvent::Ready { seat, ready } => {
                let whose = if own(*seat) {
                    "You are".to_owned()
                } else {
                    format!("{} is", who(*seat))
                };
                format!("{whose} {}.", if *ready { "ready" } else { "not ready any more" })
            }
            // Told with a picture instead.
            RoomEvent::Started => String::new(),
            RoomEvent::Game { data } => match self.game {
                Some(game) => game.describe(data, &who)?,
                None => String::new(),
            },
            RoomEvent::Chat { from, text } => return Ok(wrap(&chat_prefix(&ChatScope::Room, from), text)),
            RoomEvent::Finished { outcome } => {
                let end = match outcome {
                    Outcome::Won { seats } if self.seat.is_some_and(|seat| seats == &[seat]) => {
                        "You have won!".to_owned()
                    }
                    Outcome::Won { seats } => {
                        let names: Vec<_> = seats.iter().map(|seat| who(*seat)).collect();
                        format!(
                            "{} {} won.",
                            names.join(" and "),
                            if seats.len() == 1 { "has" } else { "have" }
                        )
                    }
                    Outcome::Draw => "A draw.".to_owned(),
                    Outcome::Abandoned => "The match was broken off.".to_owned(),
                };
                let hint = match self.seat {
                    Some(_) => " \"rematch\" for another one, \"leave\" for the lobby.",
                    None => "",
                };
                end + hint
            }
            RoomEvent::Owner { seat } if own(*seat) => "You own the room now.".into(),
            RoomEvent::Owner { seat } => format!("{} owns the room now.", who(*seat)),
            RoomEvent::Kicked { seat } => format!("The owner has sent {} out.", who_had(*seat)),
            RoomEvent::Reserved { seat, name } => {
                format!("{} is kept for {name}.", capital(&seat_name(self.game, *seat)))
            }
            RoomEvent::ReservationOver { seat } => {
                format!(
                    "{} is free for anybody again.",
                    capital(&seat_name(self.game, *seat))
                )
            }
            RoomEvent::Configured { rules: changed } => {
                let others = match rules(changed) {
                    none if none.is_empty() => String::new(),
                    others => format!(", {others}"),
                };
                format!("The owner has changed the room: {} seats{others}.", changed.seats)
            }
            RoomEvent::Turn { seat, milliseconds } => {
                let seconds = milliseconds.div_ceil(1000);
                let whose = if own(*seat) {
                    "Your".to_owned()
                } else {
                    who(*seat) + "'s"
                };
                format!("{whose} turn: {seconds} seconds.")
            }
            RoomEvent::TurnTimedOut { seat } if own(*seat) => "You took too long.".into(),
            RoomEvent::TurnTimedOut { seat } => format!("{} took too long.", who(*seat)),
            RoomEvent::TurnStopped => "It is nobody's turn: the clock stands still.".into(),
        };
        Ok(if text.is_empty() { text } else { one_line(&text) })
    }
}

/// One line, whatever is in it: nobody's words become lines that somebody else seems to have said.
/// Where it does not fit a terminal, it is broken here, as what is [said](wrap) is.
fn one_line(text: &str) -> String {
    wrap("", text)
}

/// What stands in front of something that is said: by whom, and to whom.
///
/// Nothing else that is told looks like this, and this looks like nothing else: a [name](forkade_protocol::text::clean_player_name) has no
/// colon, and does not begin as the server's own words do.
pub fn chat_prefix(scope: &ChatScope, from: &str) -> String {
    if from.is_empty() {
        return "*** The server says: ".into();
    }
    match scope {
        ChatScope::Room => format!("{from} says: "),
        ChatScope::Lobby => format!("{from} shouts: "),
        ChatScope::Whisper { to } => format!("{from} tells {to}: "),
    }
}

/// What somebody says, broken into lines here rather than by the terminal: what goes on in the next line is indented, and so is not
/// taken for what somebody else says.
pub fn wrap(speaker: &str, text: &str) -> String {
    wrap_to(speaker, text, SPOKEN_COLUMNS_MAX)
}

/// As [`wrap`], for rows of so many columns.
pub fn wrap_to(speaker: &str, text: &str, columns_max: usize) -> String {
    // Of a narrower terminal nothing can be expected.
    let columns_max = columns_max.max(4 * SPOKEN_INDENT.len());
    let mut lines = Escaped(speaker).to_string();
    let mut column = lines.width();
    let words = Escaped(text).to_string();
    for (number, word) in words.split(' ').enumerate() {
        let space = if number == 0 { "" } else { " " };
        let is_too_long = column + space.len() + word.width() > columns_max;
        if is_too_long && word.width() <= columns_max - SPOKEN_INDENT.len() {
            lines.push('\n');
            lines.push_str(SPOKEN_INDENT);
            lines.push_str(word);
            column = SPOKEN_INDENT.len() + word.width();
            continue;
        }
        lines.push_str(space);
        column += space.len();
        for character in word.chars() {
            let columns = character.width().unwrap_or(0);
            if column + columns > columns_max {
                lines.push('\n');
                lines.push_str(SPOKEN_INDENT);
                column = SPOKEN_INDENT.len();
            }
            lines.push(character);
            column += columns;
        }
    }
    lines.push('\n');
    lines
}

/// With a capital letter.
fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + characters.as_str()
}

#[cfg(test)]
mod tests;
