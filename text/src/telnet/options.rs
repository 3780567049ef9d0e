//! What the server answers to telnet's options.
//!
//! [`RefusedOptions`] refuses each option once: two programs that answer each other's answers never stop.
//! [`Negotiation`] uses three options for a client at the console and refuses all others. It never answers a client's
//! answer to its own offer, so it cannot loop either.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::telnet::{DO, DONT, Event, IAC, Verb, WILL, WONT};

const ECHO: u8 = 1;
const SUPPRESS_GO_AHEAD: u8 = 3;
const WINDOW_SIZE: u8 = 31;

/// After Ctrl-C a client discards all output until this option is answered (RFC 860). So it is answered each time.
const TIMING_MARK: u8 = 6;

/// What the server offers and asks for (RFC 857, 858, 1073).
const OFFER: [u8; 9] = [
    IAC,
    WILL,
    ECHO,
    IAC,
    WILL,
    SUPPRESS_GO_AHEAD,
    IAC,
    DO,
    WINDOW_SIZE,
];
const WITHDRAWAL: [u8; 6] = [IAC, WONT, ECHO, IAC, WONT, SUPPRESS_GO_AHEAD];

/// The options that were refused, as plain data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct RefusedOptions {
    /// One bit per option that the client has offered (WILL).
    offers: [u64; 4],
    /// One bit per option that the client has asked for (DO).
    requests: [u64; 4],
}

impl RefusedOptions {
    /// The refusal of an offer or a request. `None`: it was refused before, or the client says that the option is not
    /// in use (WONT, DONT), which needs no answer.
    pub fn refuse(&mut self, verb: Verb, option: u8) -> Option<[u8; 3]> {
        let (refused, answer) = match verb {
            Verb::Will => (&mut self.offers, DONT),
            Verb::Do => (&mut self.requests, WONT),
            Verb::Wont | Verb::Dont => return None,
        };
        let (word, bit) = (&mut refused[usize::from(option / 64)], 1 << (option % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        let is_timing_mark = verb == Verb::Do && option == TIMING_MARK;
        (is_new || is_timing_mark).then_some([IAC, answer, option])
    }
}

/// The negotiation of character mode and of the window's size. In character mode the server echoes what is typed, so
/// that it can edit the line.
#[derive(Debug, Default)]
pub struct Negotiation {
    offered: bool,
    echo: bool,
    suppress_go_ahead: bool,
    subnegotiation: Subnegotiation,
    refused: RefusedOptions,
}

/// What an event has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The client negotiates of its own accord: it is telnet.
    IsTelnet,
    /// The client has agreed to character mode, or no longer agrees.
    CharacterMode(bool),
    /// The window has so many columns; 0: the client does not know.
    Columns(u16),
}

#[derive(Debug, Default)]
enum Subnegotiation {
    #[default]
    None,
    WindowSize {
        bytes: [u8; 4],
        length: usize,
    },
    Other,
}

impl Negotiation {
    /// The negotiation as the process before this one left it: character mode is agreed.
    pub fn agreed() -> Self {
        Self {
            offered: true,
            echo: true,
            suppress_go_ahead: true,
            ..Self::default()
        }
    }

    /// Whether character mode is offered.
    pub fn has_offered(&self) -> bool {
        self.offered
    }

    /// Whether character mode is offered and agreed. A client can agree before it is offered anything.
    pub fn is_agreed(&self) -> bool {
        self.offered && self.echo && self.suppress_go_ahead
    }

    /// Offers character mode. Returns the bytes to send.
    pub fn offer(&mut self) -> &'static [u8] {
        if std::mem::replace(&mut self.offered, true) {
            return &[];
        }
        &OFFER
    }

    /// Withdraws the offer. Returns the bytes to send.
    pub fn withdraw(&mut self) -> &'static [u8] {
        (self.echo, self.suppress_go_ahead) = (false, false);
        if std::mem::replace(&mut self.offered, false) {
            &WITHDRAWAL
        } else {
            &[]
        }
    }

    /// Consumes one event. Returns what it changes, and an option's refusal to send after that.
    pub fn push(&mut self, event: Event) -> (Option<Change>, Option<[u8; 3]>) {
        if !matches!(event, Event::SubnegotiationByte(_) | Event::SubnegotiationEnd) {
            self.subnegotiation = Subnegotiation::None;
        }
        match event {
            Event::Option(verb, option) => self.option(verb, option),
            Event::SubnegotiationByte(byte) => {
                self.subnegotiation_byte(byte);
                (None, None)
            }
            Event::SubnegotiationEnd => (self.subnegotiation_end(), None),
            _ => (None, None),
        }
    }

    fn option(&mut self, verb: Verb, option: u8) -> (Option<Change>, Option<[u8; 3]>) {
        let was_agreed = self.is_agreed();
        let is_request = matches!(verb, Verb::Will | Verb::Do);
        match (verb, option) {
            // What the client no longer does, or never did, matters only after an offer.
            _ if !self.offered && !is_request => return (None, None),
            (Verb::Do | Verb::Dont, ECHO) => self.echo = is_request,
            (Verb::Do | Verb::Dont, SUPPRESS_GO_AHEAD) => self.suppress_go_ahead = is_request,
            (Verb::Will | Verb::Wont, WINDOW_SIZE) => {}
            _ => {
                let is_telnet = is_request && option != TIMING_MARK && !self.offered;
                let change = is_telnet.then_some(Change::IsTelnet);
                return (change, self.refused.refuse(verb, option));
            }
        }
        if !self.offered {
            // The offer is the answer.
            return (Some(Change::IsTelnet), None);
        }
        let is_agreed = self.is_agreed();
        let change = (is_agreed != was_agreed).then_some(Change::CharacterMode(is_agreed));
        (change, None)
    }

    fn subnegotiation_byte(&mut self, byte: u8) {
        match &mut self.subnegotiation {
            Subnegotiation::None if byte == WINDOW_SIZE && self.offered => {
                self.subnegotiation = Subnegotiation::WindowSize {
                    bytes: [0; 4],
                    length: 0,
                };
            }
            Subnegotiation::None => self.subnegotiation = Subnegotiation::Other,
            Subnegotiation::WindowSize { bytes, length } => {
                if let Some(target) = bytes.get_mut(*length) {
                    *target = byte;
                }
                // One more than the maximum is enough to tell that there are too many.
                *length = (*length + 1).min(bytes.len() + 1);
            }
            Subnegotiation::Other => {}
        }
    }

    fn subnegotiation_end(&mut self) -> Option<Change> {
        match std::mem::take(&mut self.subnegotiation) {
            Subnegotiation::WindowSize { bytes, length } if length == bytes.len() => {
                Some(Change::Columns(u16::from_be_bytes([bytes[0], bytes[1]])))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
