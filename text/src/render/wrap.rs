//! Text that a terminal can be sent: wrapped, quoted and escaped.

use forkade_protocol::ChatScope;
use unicode_segmentation::UnicodeSegmentation as _;

use crate::columns::{columns_at_most, columns_of_grapheme, pieces};
use crate::escape::Escaped;
use crate::limits::TEXT_OUTPUT_BYTES_MAX;

/// Columns of a line. The last one of a terminal of 80 stays free, because some terminals begin a new line there.
const COLUMNS_MAX: usize = 79;

/// What a line begins with that continues the one before.
const INDENT: &str = "    ";

/// What is sent in place of the end of text that is too long.
const CUT: &str = "[this was too long to show all of it]\r\n";

/// Text as it is sent to a terminal, at most [`TEXT_OUTPUT_BYTES_MAX`] bytes. Lines end in CR LF; what else could
/// control a terminal is escaped. Lines that are too long are [wrapped](wrap) here: at a terminal's edge, any part of a
/// line could begin a row of its own.
pub fn to_terminal(text: &str) -> String {
    let mut wire = String::with_capacity(text.len() + 64);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let rows = read_from_the_left(&wrap("", line)).replace('\n', "\r\n");
        let reserved = if lines.peek().is_some() { CUT.len() } else { 0 };
        if wire.len() + rows.len() + reserved > TEXT_OUTPUT_BYTES_MAX {
            wire.push_str(CUT);
            break;
        }
        wire.push_str(&rows);
    }
    wire
}

/// Text behind a prefix, wrapped into lines for a terminal of 80 columns. Continued lines are indented, so that they
/// are not taken for messages of their own. Both are escaped.
pub fn wrap(prefix: &str, text: &str) -> String {
    wrap_to(prefix, text, COLUMNS_MAX)
}

/// As [`wrap`], for lines of at most `columns_max` columns.
pub fn wrap_to(prefix: &str, text: &str, columns_max: usize) -> String {
    // A narrower terminal cannot show text usefully.
    let columns_max = columns_max.max(4 * INDENT.len());
    let mut lines = Escaped(prefix).to_string();
    let mut column = columns_at_most(&lines);
    let words = Escaped(text).to_string();
    for (number, word) in words.split(' ').enumerate() {
        let (space, columns) = (if number == 0 { "" } else { " " }, columns_at_most(word));
        let is_too_long = column + space.len() + columns > columns_max;
        if is_too_long && columns <= columns_max - INDENT.len() {
            lines.push('\n');
            lines.push_str(INDENT);
            lines.push_str(word);
            column = INDENT.len() + columns;
            continue;
        }
        lines.push_str(space);
        column += space.len();
        for piece in pieces(word, columns_max - INDENT.len()) {
            let columns = columns_of_grapheme(piece);
            if column + columns > columns_max {
                lines.push('\n');
                lines.push_str(INDENT);
                column = INDENT.len();
            }
            lines.push_str(piece);
            column += columns;
        }
    }
    lines.push('\n');
    lines
}

/// Rows of which each is read from the left: one that begins with a letter of a script that is written from the right
/// gets a mark in front. Otherwise a terminal could draw the row from the right, and show a text before the name of the
/// player that says it.
fn read_from_the_left(rows: &str) -> String {
    let begins_from_the_right = |row: &str| {
        let first = row.chars().find(|character| character.is_alphabetic());
        first.is_some_and(is_written_from_the_right)
    };
    let marked = rows
        .split_inclusive('\n')
        .map(|row| match begins_from_the_right(row) {
            true => LEFT_TO_RIGHT_MARK.to_owned() + row,
            false => row.to_owned(),
        });
    marked.collect()
}

const LEFT_TO_RIGHT_MARK: &str = "\u{200e}";

/// Whether the letter is one of the blocks that Unicode keeps for scripts that are written from right to left.
fn is_written_from_the_right(letter: char) -> bool {
    matches!(letter,
        '\u{590}'..='\u{8FF}'
        | '\u{FB1D}'..='\u{FDFF}'
        | '\u{FE70}'..='\u{FEFE}'
        | '\u{10800}'..='\u{10FFF}'
        | '\u{1E800}'..='\u{1EFFF}')
}

/// What precedes a chat message: who says it, and to whom.
///
/// No other text looks like this: a [name](forkade_protocol::text::clean_player_name) has no colon, and does not begin
/// as the server's own messages do.
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

/// What was typed, in quotes; its beginning if it is long.
pub fn quoted_input(typed: &str) -> String {
    const CHARACTERS_MAX: usize = 40;
    let shown: String = typed.graphemes(true).take(CHARACTERS_MAX).collect();
    let more = if shown.len() < typed.len() { "..." } else { "" };
    format!("\"{}{more}\"", Escaped(&shown))
}

/// A room's name in quotes. Quotes within it are replaced, so that it ends where it seems to.
pub fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "'"))
}
