//! Shows the operator's line while it is typed, and applies keys to it. Pure.
//!
//! It is for a terminal in character mode, which shows nothing by itself. It sends visible characters, CR, LF, BEL and
//! "erase to the end of the line" (`ESC [ K`), which every terminal understands. A line longer than the window is shown
//! in part, so that it never wraps, whatever size the client says its window has.

use std::ops::Range;

use crate::limits::{CONSOLE_HISTORY_LINES_MAX, CONSOLE_LINE_BYTES_MAX};
use forkade_text::escape::is_harmful;
use forkade_text::keys::{Key, KeyDecoder};
use forkade_text::line_editor::{Edit, LineEditor, LineLimits};
use forkade_text::telnet::Event;

/// What stands before the line.
pub(crate) const PROMPT: &str = "forkade> ";

/// Columns of a window whose size is not known, or cannot be true.
const COLUMNS_DEFAULT: u16 = 80;

/// Fewer columns than this are taken for this many.
const COLUMNS_MIN: u16 = 20;

const ERASE_TO_END: &str = "\x1b[K";
const BELL: &str = "\x07";

const LIMITS: LineLimits = LineLimits {
    characters_max: CONSOLE_LINE_BYTES_MAX,
    bytes_max: CONSOLE_LINE_BYTES_MAX,
    history_lines_max: CONSOLE_HISTORY_LINES_MAX,
    accepts: |character| !is_harmful(character),
};

/// The result of a key that ends the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edited {
    /// A line was entered.
    Line(String),
    /// Ctrl-C: the line is discarded.
    Cancelled,
    /// Ctrl-D on an empty line.
    End,
}

/// The line under construction at an operator's terminal.
#[derive(Debug)]
pub(crate) struct TerminalEditor {
    line: LineEditor,
    keys: KeyDecoder,
    /// The index of the first character shown.
    first: usize,
    columns: u16,
}

impl TerminalEditor {
    /// An empty line, for a window of so many columns; 0: not known.
    pub(crate) fn new(columns: u16) -> Self {
        Self {
            line: LineEditor::new(LIMITS),
            keys: KeyDecoder::default(),
            first: 0,
            columns,
        }
    }

    /// Whether nothing was typed, not even a part of a key.
    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty() && !self.keys.is_undecided()
    }

    /// Sets the number of the window's columns; 0: the client does not know.
    pub(crate) fn resize(&mut self, columns: u16) {
        self.columns = columns;
    }

    /// Shows prompt and line in the terminal's current line.
    pub(crate) fn draw(&mut self, out: &mut String) {
        let shown = self.window();
        let cursor = self.line.cursor();
        out.push('\r');
        out.push_str(PROMPT);
        out.extend(self.line.characters(shown.clone()));
        out.push_str(ERASE_TO_END);
        if cursor < shown.end {
            out.push('\r');
            out.push_str(PROMPT);
            out.extend(self.line.characters(shown.start..cursor));
        }
    }

    /// Applies what was typed.
    pub(crate) fn push(&mut self, event: Event, out: &mut String) -> Option<Edited> {
        match event {
            Event::Byte(byte) => {
                let keys = self.keys.push(&[byte]);
                keys.into_iter().filter_map(|key| self.key(key, out)).next_back()
            }
            Event::Enter => {
                out.push_str("\r\n");
                let line = self.line.take();
                self.clear();
                Some(Edited::Line(line))
            }
            Event::EraseLine | Event::Interrupt => Some(self.cancel(out)),
            Event::EraseCharacter => {
                self.keys = KeyDecoder::default();
                self.key(Key::Backspace, out)
            }
            Event::Option(..)
            | Event::AreYouThere
            | Event::SubnegotiationByte(_)
            | Event::SubnegotiationEnd => None,
        }
    }

    fn key(&mut self, key: Key, out: &mut String) -> Option<Edited> {
        match key {
            Key::Interrupt => return Some(self.cancel(out)),
            Key::EndOfInput if self.line.is_empty() => {
                out.push_str("\r\n");
                return Some(Edited::End);
            }
            Key::EndOfInput => self.edit(Key::Delete, out),
            Key::Redraw => self.draw(out),
            Key::Tab => self.edit(Key::Character(' '), out),
            Key::Unknown | Key::Suspend => out.push_str(BELL),
            key => self.edit(key, out),
        }
        None
    }

    fn edit(&mut self, key: Key, out: &mut String) {
        let was_at_end = self.line.is_at_end();
        match (self.line.edit(key), key) {
            (Edit::NotHandled, _) => return,
            (Edit::NoEffect, _) => return out.push_str(BELL),
            // A recalled line is shown from its beginning.
            (Edit::Changed, Key::Up | Key::Down) => self.first = 0,
            (Edit::Changed, Key::Character(character)) if was_at_end => {
                let first = self.first;
                if self.window().start == first {
                    return out.push(character);
                }
            }
            (Edit::Changed, _) => {}
        }
        self.draw(out);
    }

    fn cancel(&mut self, out: &mut String) -> Edited {
        out.push_str("^C\r\n");
        self.clear();
        Edited::Cancelled
    }

    fn clear(&mut self) {
        self.line.clear();
        self.keys = KeyDecoder::default();
        self.first = 0;
    }

    /// The characters to show, so that the cursor is among them or right behind them.
    fn window(&mut self) -> Range<usize> {
        let columns = match self.columns {
            0 => COLUMNS_DEFAULT,
            columns => columns.max(COLUMNS_MIN),
        };
        let window = self.line.window(self.first, usize::from(columns) - PROMPT.len());
        self.first = window.start;
        window
    }
}

#[cfg(test)]
mod tests;
