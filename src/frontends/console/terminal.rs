//! From the operator's bytes to lines: a script, netcat or telnet. Pure.
//!
//! A client that sends nothing but lines receives nothing but replies. A client is offered character mode once it shows
//! that it is telnet: it negotiates, its first line is empty and ends as telnet ends lines, or the operator sends
//! `edit`. If it agrees, the server [edits](crate::frontends::console::editor) its line.

use crate::frontends::console::editor::{Edited, TerminalEditor};
use crate::limits::CONSOLE_LINE_BYTES_MAX;
use forkade_text::telnet::options::{Change, Negotiation};
use forkade_text::telnet::{Event, I_AM_HERE, Line, LineReader, Parser};

/// The [mode](Terminal::mode) of a client in line mode that ends its lines with LF alone. (No window is so wide.)
const LF_ALONE: u32 = u32::MAX;

/// What the operator has entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// A line without its end.
    Line(Vec<u8>),
    /// A line that is longer than [`CONSOLE_LINE_BYTES_MAX`]; it is discarded.
    TooLong,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D on an empty line.
    End,
}

/// What an operator types, from bytes to lines.
#[derive(Debug)]
pub(crate) struct Terminal {
    parser: Parser,
    negotiation: Negotiation,
    /// The line of a client in line mode.
    reader: LineReader,
    /// The line of a client in character mode.
    editor: TerminalEditor,
    is_character_mode: bool,
    is_prompt_shown: bool,
    is_first_line: bool,
    /// The last line has ended with LF alone, as a script's lines do.
    ends_lines_with_lf: bool,
    /// Columns of the window; 0: not known.
    columns: u16,
}

impl Terminal {
    /// For a new connection.
    pub(crate) fn new() -> Self {
        Self {
            parser: Parser::default(),
            negotiation: Negotiation::default(),
            reader: LineReader::new(CONSOLE_LINE_BYTES_MAX),
            editor: TerminalEditor::new(0),
            is_character_mode: false,
            is_prompt_shown: false,
            is_first_line: true,
            ends_lines_with_lf: false,
            columns: 0,
        }
    }

    /// For a connection whose former process has left [`mode`](Self::mode).
    pub(crate) fn resumed(mode: u32) -> Self {
        let mut terminal = Self::new();
        terminal.is_first_line = false;
        if mode == LF_ALONE {
            terminal.ends_lines_with_lf = true;
        } else if let Some(columns) = mode.checked_sub(1) {
            terminal.negotiation = Negotiation::agreed();
            terminal.is_character_mode = true;
            terminal.columns = u16::try_from(columns).unwrap_or(0);
            terminal.editor.resize(terminal.columns);
        }
        terminal
    }

    /// What a successor must know: 0 or [`LF_ALONE`] in line mode, else the window's columns + 1.
    pub(crate) fn mode(&self) -> u32 {
        match (self.is_character_mode, self.ends_lines_with_lf) {
            (true, _) => u32::from(self.columns) + 1,
            (false, true) => LF_ALONE,
            (false, false) => 0,
        }
    }

    /// Whether the client has agreed to character mode, as only telnet does.
    pub(crate) fn is_in_character_mode(&self) -> bool {
        self.is_character_mode
    }

    /// How the server ends its lines: as the client does. Telnet requires both characters.
    pub(crate) fn line_end(&self) -> &'static str {
        match self.mode() == LF_ALONE {
            true => "\n",
            false => "\r\n",
        }
    }

    /// Columns of the operator's terminal, if it is in character mode and they are known.
    pub(crate) fn columns(&self) -> Option<usize> {
        (self.is_character_mode && self.columns > 0).then(|| usize::from(self.columns))
    }

    /// Whether nothing has begun that is incomplete: neither a line nor a telnet command.
    pub(crate) fn is_between_lines(&self) -> bool {
        let is_line_empty = if self.is_character_mode {
            self.editor.is_empty()
        } else {
            self.reader.is_between_lines()
        };
        is_line_empty && self.parser.is_between_commands()
    }

    /// Shows the prompt, if the operator's terminal is in character mode and does not show it yet.
    pub(crate) fn prompt(&mut self, output: &mut impl Extend<u8>) {
        if self.is_character_mode && !std::mem::replace(&mut self.is_prompt_shown, true) {
            self.draw(output);
        }
    }

    /// Removes the prompt, if it is shown, because output follows.
    pub(crate) fn clear_prompt(&mut self, output: &mut impl Extend<u8>) {
        if self.is_character_mode && std::mem::take(&mut self.is_prompt_shown) {
            output.extend(*b"\r\x1b[K");
        }
    }

    /// Switches line editing on, if the client agrees, or off.
    pub(crate) fn set_editing(&mut self, on: bool, output: &mut impl Extend<u8>) {
        if on {
            self.offer(output);
        } else {
            output.extend(self.negotiation.withdraw().iter().copied());
            self.set_character_mode(false);
        }
    }

    /// Consumes one byte. While a live view runs, keys end it and are not shown.
    pub(crate) fn push(
        &mut self,
        byte: u8,
        in_live_view: bool,
        output: &mut impl Extend<u8>,
    ) -> Option<Input> {
        let event = self.parser.push(byte)?;
        self.negotiate(event, output);
        match event {
            Event::Option(..) | Event::SubnegotiationByte(_) | Event::SubnegotiationEnd => None,
            Event::AreYouThere => {
                output.extend(I_AM_HERE.iter().copied());
                if self.is_character_mode && self.is_prompt_shown {
                    self.draw(output);
                }
                None
            }
            _ if self.is_character_mode && in_live_view => ends_live_view(event).then_some(Input::Interrupt),
            _ if self.is_character_mode => self.edit(event, output),
            _ => self.read(event, byte, output),
        }
    }

    fn negotiate(&mut self, event: Event, output: &mut impl Extend<u8>) {
        let (change, refusal) = self.negotiation.push(event);
        match change {
            Some(Change::IsTelnet) => self.offer(output),
            Some(Change::CharacterMode(on)) => self.set_character_mode(on),
            Some(Change::Columns(columns)) => self.resize(columns, output),
            None => {}
        }
        output.extend(refusal.into_iter().flatten());
    }

    /// Handles an event in line mode.
    fn read(&mut self, event: Event, byte: u8, output: &mut impl Extend<u8>) -> Option<Input> {
        match self.reader.push(event) {
            Some(Line::TooLong) => Some(Input::TooLong),
            Some(Line::Complete(line)) => {
                self.ends_lines_with_lf = byte == b'\n';
                // Telnet ends a line with CR. A script has no reason to send an empty line, and netcat ends it with LF
                // alone.
                if std::mem::take(&mut self.is_first_line) && line.is_empty() && byte == b'\r' {
                    self.offer(output);
                }
                Some(Input::Line(line))
            }
            None => (event == Event::Interrupt).then_some(Input::Interrupt),
        }
    }

    /// Handles an event in character mode.
    fn edit(&mut self, event: Event, output: &mut impl Extend<u8>) -> Option<Input> {
        let mut drawn = String::new();
        let edited = self.editor.push(event, &mut drawn);
        output.extend(drawn.into_bytes());
        let edited = edited?;
        self.is_prompt_shown = false;
        Some(match edited {
            Edited::Line(line) => Input::Line(line.into_bytes()),
            Edited::Cancelled => Input::Interrupt,
            Edited::End => Input::End,
        })
    }

    fn offer(&mut self, output: &mut impl Extend<u8>) {
        if !self.negotiation.has_offered() {
            output.extend(self.negotiation.offer().iter().copied());
            // The client may have agreed before it was offered anything.
            self.set_character_mode(self.negotiation.is_agreed());
        }
    }

    fn set_character_mode(&mut self, on: bool) {
        if self.is_character_mode != on {
            self.is_character_mode = on;
            self.is_prompt_shown = false;
            self.editor = TerminalEditor::new(self.columns);
            self.reader = LineReader::new(CONSOLE_LINE_BYTES_MAX);
        }
    }

    fn resize(&mut self, columns: u16, output: &mut impl Extend<u8>) {
        self.columns = columns;
        self.editor.resize(columns);
        if self.is_character_mode && self.is_prompt_shown {
            self.draw(output);
        }
    }

    fn draw(&mut self, output: &mut impl Extend<u8>) {
        let mut drawn = String::new();
        self.editor.draw(&mut drawn);
        output.extend(drawn.into_bytes());
    }
}

fn ends_live_view(event: Event) -> bool {
    const CTRL_C: u8 = 3;
    const CTRL_D: u8 = 4;
    matches!(
        event,
        Event::Enter | Event::EraseLine | Event::Interrupt | Event::Byte(CTRL_C | CTRL_D | b'q')
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_as_the_client_ends_its_lines_also_after_a_takeover() {
        let mut terminal = Terminal::new();
        let mut ends = Vec::new();
        for line in [&b"status\n"[..], b"status\r\n", b"status\n", b"status\r\0"] {
            push(&mut terminal, line);
            assert_eq!(Terminal::resumed(terminal.mode()).line_end(), terminal.line_end());
            ends.push(terminal.line_end());
        }
        assert_eq!(ends, ["\n", "\r\n", "\n", "\r\n"]);
    }

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
        terminal.clear_prompt(&mut output);
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
    fn a_client_that_asks_whether_the_server_is_there_is_told_so() {
        let mut terminal = Terminal::new();
        assert_eq!(push(&mut terminal, &[255, 246]).1, b"\r\n[Yes]\r\n");
        push(&mut terminal, b"\r\n");
        push(&mut terminal, &AGREE);
        push(&mut terminal, b"pi");
        let mut output = Vec::new();
        terminal.prompt(&mut output);
        let shown = push(&mut terminal, &[255, 246]).1;
        assert!(shown.starts_with(b"\r\n[Yes]\r\n\rforkade> pi"), "{shown:?}");
    }

    #[test]
    fn an_unfinished_window_size_does_not_spoil_the_next_one() {
        let mut terminal = Terminal::new();
        push(&mut terminal, b"\r\n");
        push(&mut terminal, &AGREE);
        for unfinished in [
            &[255, 250, 31, 0, 100][..],
            &[255, 250, 31, 0, 255, 241],
            &[255, 250, 24, 0],
        ] {
            push(&mut terminal, unfinished);
            push(&mut terminal, &[255, 250, 31, 0, 90, 0, 30, 255, 240]);
            assert_eq!(terminal.mode(), 91, "{unfinished:?}");
            push(&mut terminal, &[255, 250, 31, 0, 80, 0, 30, 255, 240]);
        }
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
