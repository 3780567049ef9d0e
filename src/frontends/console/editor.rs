//! A line under an operator's fingers: keys in, what to show out. Pure.
//!
//! It is for a terminal in character mode, which shows nothing by itself. All that it is sent are visible characters, CR, LF, BEL and
//! "erase to the end of the line" (`ESC [ K`), which every terminal of the last forty years understands. A line longer than the window is
//! shown in part, so that it never wraps, whatever size the client says its window has.

use std::collections::VecDeque;
use std::ops::Range;

use crate::limits::{CONSOLE_HISTORY_LINES_MAX, CONSOLE_LINE_BYTES_MAX};
use forkade_text::escape::Escaped;
use forkade_text::telnet::Event;

/// What stands before the line.
pub(crate) const PROMPT: &str = "forkade> ";

/// Columns of a window whose size is not known, or cannot be true.
const COLUMNS_DEFAULT: u16 = 80;

/// Fewer columns than this are taken for this many.
const COLUMNS_MIN: u16 = 20;

const ERASE_TO_END: &str = "\x1b[K";
const BEL: &str = "\x07";
const ESCAPE: u8 = 0x1b;

/// The key that is pressed together with Ctrl, as its byte.
const fn ctrl(key: u8) -> u8 {
    key & 0x1f
}

/// What a key has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edited {
    /// A line was entered.
    Line(String),
    /// Ctrl-C: the line is given up.
    Cancelled,
    /// Ctrl-D on an empty line.
    End,
}

/// The line and what was entered before it.
#[derive(Debug, Default)]
pub(crate) struct Editor {
    text: Vec<char>,
    /// Index of the character that the cursor stands on; behind the last one: the length.
    cursor: usize,
    /// Index of the first character shown.
    first: usize,
    columns: u16,
    history: VecDeque<Vec<char>>,
    /// Which line of the history is shown, and what had been typed before.
    recalled: Option<(usize, Vec<char>)>,
    keys: Keys,
}

/// How much of a key that sends several bytes has come.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Keys {
    #[default]
    Whole,
    Escape,
    /// `ESC [` or `ESC O`, with the number that has followed.
    Sequence(u16),
    /// The first bytes of a character.
    Character(Vec<u8>),
}

impl Editor {
    /// Nothing was typed, not even in part.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.keys == Keys::Whole
    }

    /// The window has so many columns; 0 if the client does not know.
    pub(crate) fn resize(&mut self, columns: u16) {
        self.columns = columns;
    }

    /// Shows prompt and line, in the terminal's present line.
    pub(crate) fn draw(&mut self, out: &mut String) {
        let shown = self.window();
        out.push('\r');
        out.push_str(PROMPT);
        out.extend(&self.text[shown.clone()]);
        out.push_str(ERASE_TO_END);
        if self.cursor < shown.end {
            out.push('\r');
            out.push_str(PROMPT);
            out.extend(&self.text[shown.start..self.cursor]);
        }
    }

    /// Takes in what was typed.
    pub(crate) fn push(&mut self, typed: Event, out: &mut String) -> Option<Edited> {
        match typed {
            Event::Byte(byte) => return self.byte(byte, out),
            Event::Enter => return Some(self.enter(out)),
            Event::EraseLine => return Some(self.cancel(out)),
            Event::EraseCharacter => {
                self.keys = Keys::Whole;
                self.remove(self.cursor.saturating_sub(1)..self.cursor, out);
            }
            Event::Reply(_) => {}
        }
        None
    }

    fn byte(&mut self, byte: u8, out: &mut String) -> Option<Edited> {
        match std::mem::take(&mut self.keys) {
            Keys::Escape => self.after_escape(byte, out),
            Keys::Sequence(number) => self.in_sequence(number, byte, out),
            Keys::Whole if byte == ESCAPE => self.keys = Keys::Escape,
            Keys::Whole if byte < b' ' => return self.control(byte, out),
            Keys::Whole => self.character(Vec::new(), byte, out),
            Keys::Character(bytes) => self.character(bytes, byte, out),
        }
        None
    }

    fn control(&mut self, byte: u8, out: &mut String) -> Option<Edited> {
        const START: u8 = ctrl(b'a');
        const LEFT: u8 = ctrl(b'b');
        const CANCEL: u8 = ctrl(b'c');
        const END_OR_DELETE: u8 = ctrl(b'd');
        const END: u8 = ctrl(b'e');
        const RIGHT: u8 = ctrl(b'f');
        const CUT_TO_END: u8 = ctrl(b'k');
        const REDRAW: u8 = ctrl(b'l');
        const NEXT: u8 = ctrl(b'n');
        const PREVIOUS: u8 = ctrl(b'p');
        const CUT_TO_START: u8 = ctrl(b'u');
        const CUT_WORD: u8 = ctrl(b'w');
        match byte {
            CANCEL => return Some(self.cancel(out)),
            END_OR_DELETE if self.text.is_empty() => {
                out.push_str("\r\n");
                return Some(Edited::End);
            }
            END_OR_DELETE => self.remove(self.cursor..self.cursor + 1, out),
            START => self.move_to(0, out),
            END => self.move_to(self.text.len(), out),
            LEFT => self.move_to(self.cursor.saturating_sub(1), out),
            RIGHT => self.move_to(self.cursor + 1, out),
            CUT_TO_END => self.remove(self.cursor..self.text.len(), out),
            CUT_TO_START => self.remove(0..self.cursor, out),
            CUT_WORD => self.remove(self.word_before()..self.cursor, out),
            REDRAW => self.draw(out),
            PREVIOUS => self.recall_older(out),
            NEXT => self.recall_newer(out),
            b'\t' => self.insert(' ', out),
            _ => out.push_str(BEL),
        }
        None
    }

    fn after_escape(&mut self, byte: u8, out: &mut String) {
        match byte {
            b'[' | b'O' => self.keys = Keys::Sequence(0),
            ESCAPE => self.keys = Keys::Escape,
            b'b' => self.move_to(self.word_before(), out),
            b'f' => self.move_to(self.word_after(), out),
            // A key that means nothing here.
            _ => {}
        }
    }

    fn in_sequence(&mut self, number: u16, byte: u8, out: &mut String) {
        match (byte, number) {
            (b'0'..=b'9', _) => {
                let digit = u16::from(byte - b'0');
                self.keys = Keys::Sequence(number.saturating_mul(10).saturating_add(digit));
            }
            // Behind it stands with which other keys it was pressed.
            (b' '..=b'?', _) => self.keys = Keys::Sequence(number),
            (b'A', _) => self.recall_older(out),
            (b'B', _) => self.recall_newer(out),
            (b'C', _) => self.move_to(self.cursor + 1, out),
            (b'D', _) => self.move_to(self.cursor.saturating_sub(1), out),
            (b'H', _) | (b'~', 1 | 7) => self.move_to(0, out),
            (b'F', _) | (b'~', 4 | 8) => self.move_to(self.text.len(), out),
            (b'~', 3) => self.remove(self.cursor..self.cursor + 1, out),
            _ => {}
        }
    }

    fn character(&mut self, mut bytes: Vec<u8>, byte: u8, out: &mut String) {
        bytes.push(byte);
        match std::str::from_utf8(&bytes) {
            Ok(text) => text.chars().for_each(|character| self.insert(character, out)),
            // Never more than four bytes: then it is a character or none.
            Err(error) if error.error_len().is_none() => self.keys = Keys::Character(bytes),
            Err(_) => out.push_str(BEL),
        }
    }

    fn insert(&mut self, character: char, out: &mut String) {
        let bytes: usize = self.text.iter().map(|character| character.len_utf8()).sum();
        let is_visible = Escaped(character.encode_utf8(&mut [0; 4]))
            .to_string()
            .chars()
            .eq([character]);
        if !is_visible || bytes + character.len_utf8() > CONSOLE_LINE_BYTES_MAX {
            return out.push_str(BEL);
        }
        let at_end = self.cursor == self.text.len();
        self.text.insert(self.cursor, character);
        self.cursor += 1;
        let first = self.first;
        if at_end && self.window().start == first {
            out.push(character);
        } else {
            self.draw(out);
        }
    }

    fn remove(&mut self, range: Range<usize>, out: &mut String) {
        let range = range.start..range.end.min(self.text.len());
        if range.is_empty() {
            return out.push_str(BEL);
        }
        self.cursor = range.start;
        self.text.drain(range);
        self.draw(out);
    }

    fn move_to(&mut self, cursor: usize, out: &mut String) {
        let cursor = cursor.min(self.text.len());
        if cursor == self.cursor {
            return out.push_str(BEL);
        }
        self.cursor = cursor;
        self.draw(out);
    }

    fn word_before(&self) -> usize {
        let mut at = self.cursor;
        while at > 0 && self.text[at - 1] == ' ' {
            at -= 1;
        }
        while at > 0 && self.text[at - 1] != ' ' {
            at -= 1;
        }
        at
    }

    fn word_after(&self) -> usize {
        let mut at = self.cursor;
        while at < self.text.len() && self.text[at] == ' ' {
            at += 1;
        }
        while at < self.text.len() && self.text[at] != ' ' {
            at += 1;
        }
        at
    }

    fn enter(&mut self, out: &mut String) -> Edited {
        out.push_str("\r\n");
        let line = self.clear();
        if !line.is_empty() && self.history.back() != Some(&line) {
            if self.history.len() == CONSOLE_HISTORY_LINES_MAX {
                self.history.pop_front();
            }
            self.history.push_back(line.clone());
        }
        Edited::Line(line.into_iter().collect())
    }

    fn cancel(&mut self, out: &mut String) -> Edited {
        out.push_str("^C\r\n");
        self.clear();
        Edited::Cancelled
    }

    fn clear(&mut self) -> Vec<char> {
        self.keys = Keys::Whole;
        self.recalled = None;
        (self.cursor, self.first) = (0, 0);
        std::mem::take(&mut self.text)
    }

    fn recall_older(&mut self, out: &mut String) {
        let newest = self.history.len();
        let shown = self.recalled.as_ref().map_or(newest, |(shown, _)| *shown);
        let Some(older) = shown.checked_sub(1) else {
            return out.push_str(BEL);
        };
        let line = self.history[older].clone();
        let left = std::mem::replace(&mut self.text, line);
        let draft = self.recalled.take().map_or(left, |(_, draft)| draft);
        self.recalled = Some((older, draft));
        self.show_all(out);
    }

    fn recall_newer(&mut self, out: &mut String) {
        let Some((shown, draft)) = self.recalled.take() else {
            return out.push_str(BEL);
        };
        match self.history.get(shown + 1) {
            Some(newer) => {
                self.text.clone_from(newer);
                self.recalled = Some((shown + 1, draft));
            }
            None => self.text = draft,
        }
        self.show_all(out);
    }

    fn show_all(&mut self, out: &mut String) {
        (self.cursor, self.first) = (self.text.len(), 0);
        self.draw(out);
    }

    /// The characters to show, so that the cursor is among them or right behind them.
    fn window(&mut self) -> Range<usize> {
        let columns = match self.columns {
            0 => COLUMNS_DEFAULT,
            columns => columns.max(COLUMNS_MIN),
        };
        // The last column stays free for the cursor: a character there makes some terminals wrap.
        let room = usize::from(columns) - PROMPT.len() - 1;
        let width = |range: Range<usize>| self.text[range].iter().copied().map(columns_of).sum::<usize>();
        let mut first = self.first.min(self.cursor);
        while width(first..self.cursor) > room {
            first += 1;
        }
        let mut end = self.cursor;
        while end < self.text.len() && width(first..end + 1) <= room {
            end += 1;
        }
        self.first = first;
        first..end
    }
}

/// Columns that a character takes, or more: the scripts whose characters take two begin at Hangul.
fn columns_of(character: char) -> usize {
    if character < '\u{1100}' { 1 } else { 2 }
}

#[cfg(test)]
mod tests;
