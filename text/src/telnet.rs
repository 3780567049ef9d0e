//! What a telnet client, a netcat or a script sends, made into lines: pure, byte by byte, so that it does not matter how the bytes
//! were cut into packets.
//!
//! Telnet (RFC 854) mixes text with commands that begin with [`IAC`]. The options that a client offers or asks for are all refused,
//! each once, since two programs that answer each other's answers never stop. Nothing here grows with what is sent: a
//! sub-negotiation of any length is skipped as it comes, and a line is bounded.
//!
//! In the other direction nothing is to be done: byte 255, which would have to be doubled, never occurs in UTF-8.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// "Interpret as command": what follows is not text.
pub const IAC: u8 = 255;

const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SUBNEGOTIATION: u8 = 250;
const ERASE_LINE: u8 = 248;
const ERASE_CHARACTER: u8 = 247;
const INTERRUPT_PROCESS: u8 = 244;
const SUBNEGOTIATION_END: u8 = 240;

/// After Ctrl-C a client throws all output away until this option is answered (RFC 860): so it is answered each time.
const OPTION_TIMING_MARK: u8 = 6;

/// What one byte turned out to mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A byte of text.
    Byte(u8),
    /// The end of a line.
    Enter,
    /// Backspace: the last character is taken back.
    EraseCharacter,
    /// Ctrl-C and the like: the whole line is taken back.
    EraseLine,
    /// Nothing was typed, but the client is to be sent this.
    Reply([u8; 3]),
}

/// Separates text from telnet's commands.
///
/// Plain data without a heap: what one process has understood so far, another can go on with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parser {
    /// Where in the stream's grammar the next byte comes.
    pub state: ParserState,
    /// What has been refused.
    pub refused: RefusedOptions,
}

/// Where in a telnet stream one is, as plain data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct ParserState {
    /// One of those below. (Any other, which only a taken-over process could write, counts as text.)
    mode: u8,
    /// The WILL, WONT, DO or DONT whose option is awaited.
    verb: u8,
    /// Nonzero if the last byte of text was CR: an LF or NUL behind it belongs to the same Enter.
    after_return: u8,
    padding: u8,
}

const TEXT: u8 = 0;
const IN_COMMAND: u8 = 1;
const AT_OPTION: u8 = 2;
const IN_SUBNEGOTIATION: u8 = 3;
const COMMAND_IN_SUBNEGOTIATION: u8 = 4;

/// Options that were refused: a second answer to the same offer would begin a quarrel without end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct RefusedOptions {
    /// One bit per option that the client has offered (WILL).
    offers: [u64; 4],
    /// One bit per option that the client has asked for (DO).
    requests: [u64; 4],
}

impl Parser {
    /// Takes in one byte.
    pub fn push(&mut self, byte: u8) -> Option<Event> {
        let state = &mut self.state;
        match state.mode {
            IN_COMMAND => return self.command(byte),
            AT_OPTION => {
                state.mode = TEXT;
                let verb = state.verb;
                return self.refused.refuse(verb, byte).map(Event::Reply);
            }
            IN_SUBNEGOTIATION if byte == IAC => state.mode = COMMAND_IN_SUBNEGOTIATION,
            IN_SUBNEGOTIATION => {}
            COMMAND_IN_SUBNEGOTIATION if byte == SUBNEGOTIATION_END => state.mode = TEXT,
            COMMAND_IN_SUBNEGOTIATION => state.mode = IN_SUBNEGOTIATION,
            _ if byte == IAC => state.mode = IN_COMMAND,
            _ => return self.text(byte),
        }
        None
    }

    /// Whether the last command, if any, was complete.
    pub fn is_between_commands(&self) -> bool {
        self.state.mode == TEXT
    }

    fn text(&mut self, byte: u8) -> Option<Event> {
        let after_return = std::mem::replace(&mut self.state.after_return, u8::from(byte == b'\r')) != 0;
        match byte {
            b'\n' | 0 if after_return => None,
            b'\r' | b'\n' => Some(Event::Enter),
            0 => None,
            0x08 | 0x7f => Some(Event::EraseCharacter),
            _ => Some(Event::Byte(byte)),
        }
    }

    fn command(&mut self, byte: u8) -> Option<Event> {
        self.state.mode = match byte {
            SUBNEGOTIATION => IN_SUBNEGOTIATION,
            WILL | WONT | DO | DONT => AT_OPTION,
            _ => TEXT,
        };
        self.state.verb = byte;
        match byte {
            IAC => self.text(IAC),
            ERASE_CHARACTER => Some(Event::EraseCharacter),
            ERASE_LINE | INTERRUPT_PROCESS => Some(Event::EraseLine),
            // Go-ahead, "are you there", the data mark of a Synch …: nothing that a line needs.
            _ => None,
        }
    }
}

impl RefusedOptions {
    /// The answer to an offer or a request. That an option is not in use (WONT, DONT) goes without saying.
    fn refuse(&mut self, verb: u8, option: u8) -> Option<[u8; 3]> {
        let (refused, answer) = match verb {
            WILL => (&mut self.offers, DONT),
            DO => (&mut self.requests, WONT),
            _ => return None,
        };
        let (word, bit) = (&mut refused[usize::from(option / 64)], 1 << (option % 64));
        let is_news = *word & bit == 0;
        *word |= bit;
        (is_news || (verb == DO && option == OPTION_TIMING_MARK)).then_some([IAC, answer, option])
    }
}

/// What came of the bytes so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineEvent {
    /// A line, without its end. Any bytes but CR, LF and NUL.
    Line(Vec<u8>),
    /// A line has become too long. What was typed of it is forgotten, and so will be the rest of it.
    TooLong,
    /// The client is to be sent this; it is no line's business.
    Reply([u8; 3]),
}

/// Makes lines out of what a client sends.
#[derive(Debug)]
pub struct LineReader {
    filter: Parser,
    line: Vec<u8>,
    bytes_max: usize,
    discarding: bool,
}

impl LineReader {
    /// A reader of lines of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            filter: Parser::default(),
            line: Vec::new(),
            bytes_max,
            discarding: false,
        }
    }

    /// Takes in one byte.
    pub fn push(&mut self, byte: u8) -> Option<LineEvent> {
        match self.filter.push(byte)? {
            Event::Reply(answer) => return Some(LineEvent::Reply(answer)),
            Event::Enter => {
                let line = std::mem::take(&mut self.line);
                return (!std::mem::take(&mut self.discarding)).then_some(LineEvent::Line(line));
            }
            Event::EraseLine => {
                self.line.clear();
                self.discarding = false;
            }
            _ if self.discarding => {}
            Event::EraseCharacter => erase_character(&mut self.line),
            Event::Byte(_) if self.line.len() == self.bytes_max => {
                self.line.clear();
                self.discarding = true;
                return Some(LineEvent::TooLong);
            }
            Event::Byte(byte) => self.line.push(byte),
        }
        None
    }

    /// Whether nothing has begun that is not complete: neither a line nor a command of telnet's.
    pub fn is_between_lines(&self) -> bool {
        self.line.is_empty() && !self.discarding && self.filter.is_between_commands()
    }
}

/// Takes back the last character, which has up to four bytes.
pub fn erase_character(line: &mut Vec<u8>) {
    const CHARACTER_BYTES_MAX: usize = 4;
    for _ in 0..CHARACTER_BYTES_MAX {
        let is_continuation = line.pop().is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
        if !is_continuation {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Vec<LineEvent> {
        let mut reader = LineReader::new(16);
        bytes.iter().filter_map(|byte| reader.push(*byte)).collect()
    }

    fn lines(bytes: &[u8]) -> Vec<String> {
        let lines = read(bytes).into_iter().map(|input| match input {
            LineEvent::Line(line) => String::from_utf8(line).expect("text"),
            other => panic!("{other:?}"),
        });
        lines.collect()
    }

    #[test]
    fn each_kind_of_line_end_is_one_enter() {
        assert_eq!(lines(b"a\r\nb\r\0c\nd\re\n"), ["a", "b", "c", "d", "e"]);
        assert_eq!(lines(b"\r\n\r\n\n\n"), ["", "", "", ""]);
        assert_eq!(lines(b"a\0b\n"), ["ab"]);
    }

    #[test]
    fn backspace_and_delete_take_back_one_character() {
        assert_eq!(lines("stap\u{8}\u{8}op\u{7f}\u{7f}op\n".as_bytes()), ["stop"]);
        assert_eq!(lines("ñé\u{8}\u{8}\u{8}o日\u{7f}k\n".as_bytes()), ["ok"]);
        assert_eq!(lines(&[b'a', IAC, ERASE_CHARACTER, b'b', b'\n']), ["b"]);
        assert_eq!(lines(&[b'a', b'b', IAC, INTERRUPT_PROCESS, b'c', b'\n']), ["c"]);
        // Bytes that are no characters are erased too, some at a time.
        assert_eq!(lines(b"\x80\x80\x80\x80\x80\x08\x08a\n"), ["a"]);
    }

    #[test]
    fn each_option_is_refused_once() {
        let negotiation = [
            IAC, WILL, 31, IAC, DO, 1, IAC, WILL, 31, IAC, DO, 1, IAC, WONT, 31, IAC, DONT, 1,
        ];
        let answers = [
            LineEvent::Reply([IAC, DONT, 31]),
            LineEvent::Reply([IAC, WONT, 1]),
        ];
        assert_eq!(read(&negotiation), answers);
    }

    #[test]
    fn every_timing_mark_is_answered() {
        let twice = [IAC, DO, OPTION_TIMING_MARK, IAC, DO, OPTION_TIMING_MARK];
        assert_eq!(
            read(&twice),
            [
                LineEvent::Reply([IAC, WONT, OPTION_TIMING_MARK]),
                LineEvent::Reply([IAC, WONT, OPTION_TIMING_MARK])
            ]
        );
    }

    #[test]
    fn a_doubled_255_is_text_and_commands_are_not() {
        let bytes = [b'a', IAC, IAC, IAC, 241, b'b', IAC, 242, b'\r', IAC, 241, b'\n'];
        assert_eq!(read(&bytes), [LineEvent::Line(vec![b'a', IAC, b'b'])]);
    }

    #[test]
    fn a_subnegotiation_of_any_length_is_skipped() {
        let mut bytes = vec![b'a', IAC, SUBNEGOTIATION, 24];
        for _ in 0..100_000 {
            bytes.extend([b'\n', IAC, IAC, IAC, WILL, 1]);
        }
        let mut reader = LineReader::new(16);
        assert!(bytes.iter().all(|byte| reader.push(*byte).is_none()));
        assert!(!reader.is_between_lines());
        let rest = [IAC, SUBNEGOTIATION_END, b'b', b'\n'];
        let read: Vec<_> = rest.iter().filter_map(|byte| reader.push(*byte)).collect();
        assert_eq!(read, [LineEvent::Line(b"ab".to_vec())]);
        assert!(reader.is_between_lines());
    }

    #[test]
    fn a_line_too_long_is_told_once_and_the_next_one_is_whole() {
        assert_eq!(
            read(b"0123456789abcdef\n"),
            [LineEvent::Line(b"0123456789abcdef".to_vec())]
        );
        let mut bytes = vec![b'x'; 100_000];
        bytes.extend(b"\r\nnext\n");
        assert_eq!(
            read(&bytes),
            [LineEvent::TooLong, LineEvent::Line(b"next".to_vec())]
        );
        bytes.truncate(50);
        bytes.extend([IAC, ERASE_LINE]);
        bytes.extend(b"again\n");
        assert_eq!(
            read(&bytes),
            [LineEvent::TooLong, LineEvent::Line(b"again".to_vec())]
        );
    }

    proptest! {
        /// What a person typed comes out the same, whatever a telnet client puts in between.
        #[test]
        fn commands_anywhere_in_the_text_change_no_line(
            typed in vec("[a-z é日]{0,8}", 1..6),
            ends in vec(prop::sample::select(vec!["\r\n", "\r\0", "\n"]), 6),
            commands in vec((any::<prop::sample::Index>(), prop::sample::select(vec![
                vec![IAC, 241],
                vec![IAC, WONT, 3],
                vec![IAC, SUBNEGOTIATION, 24, b'\n', IAC, IAC, SUBNEGOTIATION_END, IAC, SUBNEGOTIATION_END],
            ])), 0..5),
        ) {
            let text: String = typed.iter().zip(&ends).flat_map(|(line, end)| [line.as_str(), end]).collect();
            let mut bytes = text.into_bytes();
            // From the back, so that no command lands inside another.
            let mut places: Vec<_> = commands.iter().map(|(at, command)| (at.index(bytes.len() + 1), command)).collect();
            places.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
            for (at, command) in places {
                bytes.splice(at..at, command.iter().copied());
            }
            let mut reader = LineReader::new(64);
            let read: Vec<_> = bytes.iter().filter_map(|byte| reader.push(*byte)).collect();
            let expected: Vec<_> = typed.into_iter().map(|line| LineEvent::Line(line.into_bytes())).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn no_bytes_make_a_line_longer_than_allowed(bytes in vec(any::<u8>(), 0..2000)) {
            for input in read(&bytes) {
                if let LineEvent::Line(line) = input {
                    prop_assert!(line.len() <= 16 && !line.iter().any(|byte| b"\r\n\0".contains(byte)));
                }
            }
        }
    }
}
