//! Messages of the server as text for people without a client program. Pure.
//!
//! All text here is lines that end in `\n`; [`to_terminal`] turns it into what is sent. Text that players or games have
//! chosen (names, chat, drawings) reaches a terminal only as visible characters of one line.
//!
//! Reading order: [`message`] renders a message. Rooms, the events of a room, and the wrapping of lines have a module
//! each.

mod events;
mod rooms;
mod wrap;

use forkade_games::{AnyGame, Games, floor_char_boundary};
use forkade_protocol::{Phase, ServerMessage};

use crate::commands::{self, Description};
use crate::escape::Escaped;
use crate::limits::DRAWING_ROWS_MAX;
use crate::render::rooms::{list_of_rooms, own_label};

pub use crate::render::events::RenderContext;
pub use crate::render::rooms::{name_in, room, room_number, view_text};
pub use crate::render::wrap::{chat_prefix, quoted_input, quoted_name, to_terminal, wrap, wrap_to};

/// The beginning of the line in which the player types.
pub const PROMPT: &str = "> ";

/// Shown in place of a match that its game cannot draw.
pub const NO_DRAWING: &str = "(The game cannot draw itself.)\n";

/// Clears the screen and moves the cursor to the last row, so that the rows at the top are free for a drawing.
pub const FREE_TOP_ROWS: &str = "\x1b[2J\x1b[999;1H";

/// Sent before text that was not asked for, so that it overwrites the prompt.
pub const OVERWRITE_PROMPT: &str = "\r";

/// The first text that a new player sees.
pub fn welcome(name: &str, resume_word: &str, games: &Games) -> String {
    let title = games.program().title();
    let hint = resume_hint(resume_word);
    let names: Vec<_> = games.iter().map(|(_, game)| game.name()).collect();
    let Some(first) = names.first() else {
        return format!(
            "Welcome to {title}. You are called {name}; \"name NEW\" changes that.\n\
             This server has no games. \"help\" lists all commands.\n{hint}"
        );
    };
    format!(
        "Welcome to {title}. You are called {name}; \"name NEW\" changes that.\n\
         Games: {}.\n\
         \"quick {first}\" finds somebody to play with, \"rooms\" shows who plays,\n\
         \"help\" lists all commands.\n{hint}",
        names.join(", ")
    )
}

/// What a client is told that has sent nothing for a moment. Programs skip it: it is one line, and its first four bytes
/// are not the length of a frame.
pub const BANNER: &str = "This is a game server. Press Enter to play.\r\n";

/// How a player gets a seat back after a lost connection.
pub fn resume_hint(resume_word: &str) -> String {
    format!("After a lost connection, \"resume {resume_word}\" takes you to your seat.\n")
}

/// What a player sees that has resumed.
pub fn resumed(name: &str, next_resume_word: &str) -> String {
    format!(
        "Welcome back, {name}. That word is used up.\n{}",
        resume_hint(next_resume_word)
    )
}

/// The list of all commands.
pub fn help() -> String {
    let lines = commands::overview().map(|line| format!("  {line}\n"));
    lines.collect::<String>() + "Anything else is a move in your game.\n"
}

/// The explanation of one command; of `create`, with the options that a room of each game has by default.
pub fn command_help(about: &Description, games: &Games) -> String {
    let mut text: String = about.explanation().map(|line| format!("  {line}\n")).collect();
    if about.name() == "create" {
        for (_, game) in games.iter() {
            if let Some(options) = game
                .describe_options(&[])
                .ok()
                .filter(|options| !options.is_empty())
            {
                text.push_str(&format!("  {} by default: {options}\n", game.name()));
            }
        }
    }
    text
}

/// The name of a room that was created without one.
pub fn default_room_name(opener: &str) -> String {
    // A player's name has at most 24 characters, a room's 40.
    format!("{opener}'s room")
}

/// The list of games.
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

/// A message. Events of a room are rendered with their [`RenderContext`]; here they lack names.
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
                own_label(games, snapshot),
                view_text(games, snapshot)
            )
        }
        ServerMessage::Resync {
            snapshot: Some(snapshot),
        } => format!("Some messages were lost. You are in {}", room(games, snapshot)),
        ServerMessage::Resync { snapshot: None } => "You are in the lobby.\n".into(),
        ServerMessage::Picture { snapshot, .. } => format!("You are in {}", room(games, snapshot)),
        ServerMessage::PictureToMove {
            snapshot, to_move, ..
        } => format!(
            "You are in {}{}",
            room(games, snapshot),
            turn_hint(*to_move, snapshot.seat)
        ),
        ServerMessage::Left { .. } => "You are back in the lobby.\n".into(),
        ServerMessage::Rejected { text, .. } | ServerMessage::RejectedTooFast { text, .. } => refusal(text),
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
        } => wrap(
            "",
            &format!(
                "{from} keeps a seat for you for {seconds} seconds in {} ({game}): \"join {code}\" takes it.",
                quoted_name(name)
            ),
        ),
        ServerMessage::Removed { text, .. } => to_sentence(text),
        ServerMessage::ChatMissed { lines } => format!("{lines} lines of the lobby's chat were lost.\n"),
        // For programs.
        ServerMessage::Welcome { .. }
        | ServerMessage::Greeted { .. }
        | ServerMessage::Resumed { .. }
        | ServerMessage::Accepted { .. }
        | ServerMessage::Pong { .. } => String::new(),
    }
}

/// A sentence for the player whose move it is, else nothing.
pub fn turn_hint(to_move: Option<u8>, seat: Option<u8>) -> &'static str {
    match to_move {
        Some(_) if to_move == seat => "It is your move.\n",
        _ => "",
    }
}

/// A drawing for the top of a terminal that understands ANSI's control sequences, and its number of rows. The cursor
/// stays where it is, and with it what the player is typing. The drawing before had `rows_before` rows.
pub fn in_place(drawing: &str, rows_before: u32) -> (String, u32) {
    const SAVE_CURSOR_AND_GO_TO_TOP: &str = "\x1b7\x1b[H";
    const END_ROW: &str = "\x1b[K\r\n";
    const RESTORE_CURSOR: &str = "\x1b8";
    let mut wire = SAVE_CURSOR_AND_GO_TO_TOP.to_owned();
    let mut rows = 0;
    for row in to_terminal(drawing)
        .split_terminator("\r\n")
        .take(DRAWING_ROWS_MAX)
    {
        wire.push_str(row);
        wire.push_str(END_ROW);
        rows += 1;
    }
    let rows_left = (rows..rows_before).map(|_| END_ROW);
    wire.extend(rows_left);
    wire.push_str(RESTORE_CURSOR);
    (wire, rows)
}

/// A refusal.
pub fn refusal(why: &str) -> String {
    format!("No: {why}.\n")
}

/// A reason, as a sentence in a line of its own.
pub fn to_sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    format!(
        "{}{}.\n",
        first.unwrap_or_default(),
        characters.as_str().trim_end_matches('.')
    )
}

/// The text of a close message to a client that may be a program or a person at a terminal, because it has sent nothing
/// yet. The message is a frame for a program, and a person can read its text.
///
/// A terminal shows the beginning of the frame like this: the frame's length is a visible character and three bytes
/// that show nothing; the variant's number is a line end; the code may be a line end, too, or switch the character set
/// (14), which the first character here reverts; the text's length is a visible character, which the sentence
/// overwrites.
pub fn readable_by_any_client(text: &str) -> String {
    const SHIFT_IN: char = '\u{f}';
    let text = &text[..floor_char_boundary(text, READABLE_TEXT_BYTES.end - 10)];
    let sentence = to_sentence(text);
    let line = format!("{SHIFT_IN}\r{}", Escaped(sentence.trim_end()));
    let bytes_min = READABLE_TEXT_BYTES.start - "\r\n".len();
    format!("{line:bytes_min$}\r\n")
}

/// The lengths of a text that are visible characters as bytes; so is the frame's length, which is greater by three.
const READABLE_TEXT_BYTES: std::ops::Range<usize> = 32..120;

/// What a client is told whose name an operator has banned, for `left_ms` milliseconds more.
pub fn banned(left_ms: u64) -> String {
    format!(
        "an operator has banned this name; it is free again in {}",
        duration(left_ms)
    )
}

/// What a client is told whose address an operator has banned, for `left_ms` milliseconds more.
pub fn address_banned(left_ms: u64) -> String {
    format!(
        "an operator has banned your address; it may connect again in {}",
        duration(left_ms)
    )
}

/// What a player is told whose name an operator has muted, for `left_ms` milliseconds more.
pub fn muted(left_ms: u64) -> String {
    format!(
        "an operator has muted you; you may chat again in {}",
        duration(left_ms)
    )
}

/// A time, rounded up, in the largest unit of which it has at least two.
pub fn duration(ms: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "days"), (3600, "hours"), (60, "minutes")];
    let seconds = ms.div_ceil(1000);
    let fitting = UNITS.iter().find(|(unit, _)| seconds >= 2 * unit);
    let (unit, name) = fitting.copied().unwrap_or((1, "seconds"));
    match seconds.div_ceil(unit) {
        1 => "1 second".to_owned(),
        count => format!("{count} {name}"),
    }
}

/// The close reason after `limit_ms` milliseconds without input.
pub fn idle_timeout_text(limit_ms: u64) -> String {
    match limit_ms {
        60_000.. => format!("you have typed nothing for {} minutes", limit_ms / 60_000),
        _ => format!("you have typed nothing for {} seconds", limit_ms.div_ceil(1000)),
    }
}

#[cfg(test)]
mod tests;
