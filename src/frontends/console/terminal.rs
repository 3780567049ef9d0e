//! The operator's side of a console: lines from whatever is there, a script, netcat or telnet. Pure.
//!
//! A client that sends nothing but lines is sent nothing but replies. One that shows that it is telnet, by negotiating, by an empty
//! first line with telnet's line end, or because the operator says `edit`, is offered character mode, and if it agrees, its line is
//! [edited](crate::frontends::console::editor) here.

use crate::frontends::console::editor::{Edited, Editor};
use crate::frontends::console::telnet_options::{Event, Negotiation};
use crate::limits::CONSOLE_LINE_BYTES_MAX;
use forkade_text::telnet::{Event as TelnetEvent, LineReader, Parser};

/// What the operator has typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    Line(Vec<u8>),
    TooLong,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D where nothing was typed.
    End,
}

/// Lines under construction.
#[derive(Debug)]
pub(crate) struct Terminal {
    negotiation: Negotiation,
    /// For a client in line mode.
    reader: LineReader,
    /// For one in character mode.
    filter: Parser,
    editor: Editor,
    edits: bool,
    /// The prompt is on the screen.
    is_prompted: bool,
    is_first_line: bool,
    columns: u16,
}

impl Terminal {
    /// For a new connection.
    pub(crate) fn new() -> Self {
        Self {
            negotiation: Negotiation::default(),
            reader: LineReader::new(CONSOLE_LINE_BYTES_MAX),
            filter: Parser::default(),
            editor: Editor::default(),
            edits: false,
            is_prompted: false,
            is_first_line: true,
            columns: 0,
        }
    }

    /// For a connection whose former process has left `mode`.
    pub(crate) fn resumed(mode: u32) -> Self {
        let mut terminal = Self::new();
        terminal.is_first_line = false;
        if let Some(columns) = mode.checked_sub(1) {
            terminal.negotiation = Negotiation::agreed();
            terminal.edits = true;
            terminal.columns = u16::try_from(columns).unwrap_or(0);
            terminal.editor.resize(terminal.columns);
        }
        terminal
    }

    /// What a successor must know: 0 in line mode, else the window's columns + 1.
    pub(crate) fn mode(&self) -> u32 {
        if self.edits {
            u32::from(self.columns) + 1
        } else {
            0
        }
    }

    /// Columns of the operator's terminal, if there is one and it is known to be.
    pub(crate) fn columns(&self) -> Option<usize> {
        (self.mode() > 1).then(|| usize::from(self.columns))
    }

    /// Nothing has begun that is not complete: neither a line nor a command of telnet's.
    pub(crate) fn is_between_lines(&self) -> bool {
        let typed = if self.edits {
            self.editor.is_empty() && self.filter.is_between_commands()
        } else {
            self.reader.is_between_lines()
        };
        typed && self.negotiation.is_between_commands()
    }

    /// Shows the prompt, if the operator's terminal is in character mode and does not show it yet.
    pub(crate) fn prompt(&mut self, output: &mut impl Extend<u8>) {
        if self.edits && !std::mem::replace(&mut self.is_prompted, true) {
            let mut drawn = String::new();
            self.editor.draw(&mut drawn);
            output.extend(drawn.into_bytes());
        }
    }

    /// Something is about to be said where the prompt may stand.
    pub(crate) fn make_way(&mut self, output: &mut impl Extend<u8>) {
        if self.edits && std::mem::take(&mut self.is_prompted) {
            output.extend(*b"\r\x1b[K");
        }
    }

    /// Switches line editing on, if the client agrees, or off.
    pub(crate) fn set_editing(&mut self, on: bool, output: &mut impl Extend<u8>) {
        if on {
            self.offer(output);
        } else {
            output.extend(self.negotiation.withdraw().iter().copied());
            self.edit(false);
        }
    }

    /// Takes in one byte. While the operator `follows` something, keys end that, and are not shown.
    pub(crate) fn push(&mut self, byte: u8, follows: bool, output: &mut impl Extend<u8>) -> Option<Input> {
        let (passed, event) = self.negotiation.push(byte);
        let mut input = None;
        match event {
            Some(Event::IsTelnet) => self.offer(output),
            Some(Event::CharacterMode(on)) => self.edit(on),
            Some(Event::Columns(columns)) => self.resize(columns, output),
            // In character mode the editor is told as well.
            Some(Event::Interrupt) if !self.edits => input = Some(Input::Interrupt),
            Some(Event::Interrupt) | None => {}
        }
        for byte in passed {
            let typed = if self.edits {
                self.key(byte, follows, output)
            } else {
                self.letter(byte, output)
            };
            input = input.or(typed);
        }
        input
    }

    fn letter(&mut self, byte: u8, output: &mut impl Extend<u8>) -> Option<Input> {
        use forkade_text::telnet::LineEvent as Read;
        match self.reader.push(byte)? {
            Read::Reply(answer) => {
                output.extend(answer);
                None
            }
            Read::TooLong => Some(Input::TooLong),
            Read::Line(line) => {
                // A script has no reason to say nothing, and netcat ends a line otherwise.
                if std::mem::take(&mut self.is_first_line) && line.is_empty() && byte == b'\r' {
                    self.offer(output);
                }
                Some(Input::Line(line))
            }
        }
    }

    fn key(&mut self, byte: u8, follows: bool, output: &mut impl Extend<u8>) -> Option<Input> {
        const CTRL_C: u8 = 3;
        const CTRL_D: u8 = 4;
        let typed = match self.filter.push(byte)? {
            TelnetEvent::Reply(answer) => {
                output.extend(answer);
                return None;
            }
            typed => typed,
        };
        if follows {
            let ends = matches!(
                typed,
                TelnetEvent::Enter | TelnetEvent::EraseLine | TelnetEvent::Byte(CTRL_C | CTRL_D | b'q')
            );
            return ends.then_some(Input::Interrupt);
        }
        let mut drawn = String::new();
        let edited = self.editor.push(typed, &mut drawn);
        output.extend(drawn.into_bytes());
        let edited = edited?;
        self.is_prompted = false;
        Some(match edited {
            Edited::Line(line) => Input::Line(line.into_bytes()),
            Edited::Cancelled => Input::Interrupt,
            Edited::End => Input::End,
        })
    }

    fn offer(&mut self, output: &mut impl Extend<u8>) {
        if !self.negotiation.has_offered() {
            output.extend(self.negotiation.offer().iter().copied());
            // Asked for before it was offered, it is agreed on now.
            self.edit(self.negotiation.is_agreed());
        }
    }

    fn edit(&mut self, on: bool) {
        if self.edits != on {
            self.edits = on;
            self.is_prompted = false;
            self.filter = Parser::default();
            let mut editor = Editor::default();
            editor.resize(self.columns);
            self.editor = editor;
            self.reader = LineReader::new(CONSOLE_LINE_BYTES_MAX);
        }
    }

    fn resize(&mut self, columns: u16, output: &mut impl Extend<u8>) {
        self.columns = columns;
        self.editor.resize(columns);
        if self.edits && self.is_prompted {
            let mut drawn = String::new();
            self.editor.draw(&mut drawn);
            output.extend(drawn.into_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGREE: [u8; 6] = [255, 253, 1, 255, 253, 3];
    const OFFER: [u8; 9] = [255, 251, 1, 255, 251, 3, 255, 253, 31];

    fn push(terminal: &mut Terminal, bytes: &[u8]) -> (Vec<Input>, Vec<u8>) {
        let mut output = Vec::new();
        let inputs = bytes
            .iter()
            .filter_map(|byte| terminal.push(*byte, false, &mut output))
            .collect();
        (inputs, output)
    }

    fn line(text: &str) -> Input {
        Input::Line(text.into())
    }

    #[test]
    fn scripts_and_netcat_get_no_byte_that_is_no_reply() {
        let mut terminal = Terminal::new();
        for bytes in [&b"\nstatus\n"[..], b"\x1b[Astatus\x04\n", b"a\r\n\r\n"] {
            assert_eq!(push(&mut terminal, bytes).1, b"");
        }
        let mut output = Vec::new();
        terminal.prompt(&mut output);
        terminal.make_way(&mut output);
        assert_eq!((output, terminal.mode()), (vec![], 0));
    }

    #[test]
    fn telnet_is_offered_character_mode_by_its_first_enter_and_edits_once_it_agrees() {
        let mut terminal = Terminal::new();
        assert_eq!(push(&mut terminal, b"\r\n"), (vec![line("")], OFFER.to_vec()));
        assert_eq!(push(&mut terminal, b"status\r\n"), (vec![line("status")], vec![]));
        push(&mut terminal, &AGREE);
        assert_eq!(terminal.mode(), 1);
        let (inputs, shown) = push(&mut terminal, b"x\x7fping\r\0\x03\x04");
        assert_eq!(inputs, [line("ping"), Input::Interrupt, Input::End]);
        assert!(shown.ends_with(b"ping\r\n^C\r\n\r\n"), "{shown:?}");
    }

    #[test]
    fn a_successor_goes_on_in_the_same_mode() {
        let mut terminal = Terminal::new();
        terminal.set_editing(true, &mut Vec::new());
        push(&mut terminal, &AGREE);
        push(&mut terminal, &[255, 250, 31, 0, 100, 0, 30, 255, 240]);
        let mut successor = Terminal::resumed(terminal.mode());
        let mut output = Vec::new();
        successor.prompt(&mut output);
        assert_eq!((output, successor.mode()), (b"\rforkade> \x1b[K".to_vec(), 101));
        assert_eq!(Terminal::resumed(0).mode(), 0);
        successor.set_editing(false, &mut Vec::new());
        assert_eq!(successor.mode(), 0);
    }

    #[test]
    fn keys_end_what_is_followed_and_are_not_shown() {
        let mut terminal = Terminal::resumed(1);
        for (keys, ends) in [
            (&b"abc\x1b[A"[..], 0),
            (b"\r\0", 1),
            (b"\x03", 1),
            (&[255, 244], 1),
        ] {
            let mut output = Vec::new();
            let inputs: Vec<_> = keys
                .iter()
                .filter_map(|byte| terminal.push(*byte, true, &mut output))
                .collect();
            assert_eq!(
                (inputs, output),
                (vec![Input::Interrupt; ends], vec![]),
                "{keys:?}"
            );
        }
    }
}
