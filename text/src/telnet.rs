//! Telnet (RFC 854): separates what a person types from telnet's own commands. Pure, and byte by byte: how the bytes
//! were cut into packets makes no difference.
//!
//! Reading order: [`Parser`] turns bytes into [`Event`]s; [`LineReader`] turns events into lines; [`options`] answers a
//! client that negotiates. The console and the text mode use the same parser. The text mode refuses all options; the
//! console negotiates a few.
//!
//! Nothing here grows with what is sent: a subnegotiation is passed on byte by byte, and ends at the next command or at
//! its limit, as if it had been ended; a line is bounded.
//!
//! Output needs no escaping: byte 255, which telnet would double, never occurs in UTF-8.

mod line_reader;
pub mod options;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::limits::SUBNEGOTIATION_BYTES_MAX;

pub use crate::telnet::line_reader::{Line, LineReader, erase_character};

/// "Interpret as command": the bytes that follow are not text.
pub const IAC: u8 = 255;

pub(crate) const DONT: u8 = 254;
pub(crate) const DO: u8 = 253;
pub(crate) const WONT: u8 = 252;
pub(crate) const WILL: u8 = 251;
const SUBNEGOTIATION: u8 = 250;
const ERASE_LINE: u8 = 248;
const ERASE_CHARACTER: u8 = 247;
const ARE_YOU_THERE: u8 = 246;
const INTERRUPT_PROCESS: u8 = 244;
const SUBNEGOTIATION_END: u8 = 240;
/// The command with the lowest number (RFC 1184). A byte below it, after [`IAC`], is no command.
const END_OF_FILE: u8 = 236;

/// What "are you there" is answered with (RFC 854).
pub const I_AM_HERE: &[u8] = b"\r\n[Yes]\r\n";

/// The meaning of one byte of the stream, or of the command that the byte completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A byte of text.
    Byte(u8),
    /// The end of a line.
    Enter,
    /// Backspace: erase the last character.
    EraseCharacter,
    /// Erase the whole line.
    EraseLine,
    /// Ctrl-C in a client that sends a command for it. It erases the line, too.
    Interrupt,
    /// The client asks for [a visible sign](I_AM_HERE) that the server is there.
    AreYouThere,
    /// The client negotiates an option.
    Option(Verb, u8),
    /// A byte between the two ends of a subnegotiation. The first one is the option.
    SubnegotiationByte(u8),
    /// A subnegotiation has ended. (It has ended as well, unfinished, at any event but one of its bytes.)
    SubnegotiationEnd,
}

/// What a client says about an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// The client offers to use the option.
    Will,
    /// The client does not use the option.
    Wont,
    /// The client asks the server to use the option.
    Do,
    /// The client asks the server not to use the option.
    Dont,
}

/// Separates text from telnet's commands.
///
/// It has no heap and its state is plain data, so another process can continue where this one stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parser {
    /// The position in the stream's grammar.
    pub state: ParserState,
}

/// The position in the grammar of a telnet stream, as plain data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct ParserState {
    /// One of the constants below. Any other value, which only a compromised process could write, counts as [`TEXT`].
    mode: u8,
    /// The verb whose option comes next.
    verb: u8,
    /// Nonzero if the last byte of text was CR: LF or NUL behind it belongs to the same line end.
    after_return: u8,
    padding: u8,
    /// Bytes of the subnegotiation so far.
    subnegotiation_bytes: u32,
}

const TEXT: u8 = 0;
const IN_COMMAND: u8 = 1;
const AT_OPTION: u8 = 2;
const IN_SUBNEGOTIATION: u8 = 3;
const COMMAND_IN_SUBNEGOTIATION: u8 = 4;

impl Parser {
    /// Consumes one byte.
    pub fn push(&mut self, byte: u8) -> Option<Event> {
        let state = &mut self.state;
        match state.mode {
            IN_COMMAND => self.command(byte),
            AT_OPTION => {
                state.mode = TEXT;
                Verb::from_byte(state.verb).map(|verb| Event::Option(verb, byte))
            }
            IN_SUBNEGOTIATION if byte == IAC => {
                state.mode = COMMAND_IN_SUBNEGOTIATION;
                None
            }
            IN_SUBNEGOTIATION => self.subnegotiation(byte),
            COMMAND_IN_SUBNEGOTIATION if byte == SUBNEGOTIATION_END => {
                state.mode = TEXT;
                Some(Event::SubnegotiationEnd)
            }
            COMMAND_IN_SUBNEGOTIATION if byte == IAC || byte < END_OF_FILE => self.subnegotiation(byte),
            COMMAND_IN_SUBNEGOTIATION if byte == SUBNEGOTIATION => {
                (state.mode, state.subnegotiation_bytes) = (IN_SUBNEGOTIATION, 0);
                Some(Event::SubnegotiationEnd)
            }
            // Its end is missing. Otherwise the rest of what the client sends would be lost in it.
            COMMAND_IN_SUBNEGOTIATION => self.command(byte).or(Some(Event::SubnegotiationEnd)),
            _ if byte == IAC => {
                state.mode = IN_COMMAND;
                None
            }
            _ => self.text(byte),
        }
    }

    /// Whether the last command, if any, is complete.
    pub fn is_between_commands(&self) -> bool {
        self.state.mode == TEXT
    }

    fn subnegotiation(&mut self, byte: u8) -> Option<Event> {
        let state = &mut self.state;
        state.subnegotiation_bytes += 1;
        if state.subnegotiation_bytes > SUBNEGOTIATION_BYTES_MAX {
            state.mode = TEXT;
            return self.text(byte).or(Some(Event::SubnegotiationEnd));
        }
        state.mode = IN_SUBNEGOTIATION;
        Some(Event::SubnegotiationByte(byte))
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
        self.state.subnegotiation_bytes = 0;
        match byte {
            IAC => self.text(IAC),
            ERASE_CHARACTER => Some(Event::EraseCharacter),
            ERASE_LINE => Some(Event::EraseLine),
            INTERRUPT_PROCESS => Some(Event::Interrupt),
            ARE_YOU_THERE => Some(Event::AreYouThere),
            // Go-ahead, the data mark of a Synch …: a line needs none of them.
            _ => None,
        }
    }
}

impl Verb {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            WILL => Some(Self::Will),
            WONT => Some(Self::Wont),
            DO => Some(Self::Do),
            DONT => Some(Self::Dont),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
