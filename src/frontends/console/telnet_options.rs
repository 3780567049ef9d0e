//! Telnet's options that a console uses: it echoes what is typed (so that it can edit it), and is told how wide the window is. Pure.
//!
//! It stands before the [`Parser`](forkade_text::telnet::Parser), to which it passes on everything but what is about these options, and which
//! refuses all others. What the client answers to an offer is never answered again, so there is no quarrel without end.

use forkade_text::telnet::IAC;

const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SUBNEGOTIATION: u8 = 250;
const INTERRUPT_PROCESS: u8 = 244;
const SUBNEGOTIATION_END: u8 = 240;

const ECHO: u8 = 1;
const SUPPRESS_GO_AHEAD: u8 = 3;
const TIMING_MARK: u8 = 6;
const WINDOW_SIZE: u8 = 31;

/// What the server offers and asks for. (RFC 857, 858, 1073)
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

/// Where the negotiation stands.
#[derive(Debug, Default)]
pub(crate) struct Negotiation {
    stream: Stream,
    offered: bool,
    echo: bool,
    suppress_go_ahead: bool,
}

/// What a byte has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The client negotiates by itself: it is telnet.
    IsTelnet,
    /// The client has agreed to character mode, or does not any more.
    CharacterMode(bool),
    /// The window has so many columns; 0: the client does not know.
    Columns(u16),
    /// Ctrl-C in a client that makes a command of it.
    Interrupt,
}

/// Bytes that are no negotiation of this one's.
pub(crate) type ByteCounts = Vec<u8>;

#[derive(Debug, Default, PartialEq, Eq)]
enum Stream {
    #[default]
    Text,
    Command,
    Option(u8),
    Subnegotiation,
    WindowSize {
        bytes: [u8; 4],
        length: usize,
        after_iac: bool,
    },
    OtherSubnegotiation {
        after_iac: bool,
    },
}

impl Negotiation {
    /// As a predecessor has agreed on it.
    pub(crate) fn agreed() -> Self {
        Self {
            stream: Stream::Text,
            offered: true,
            echo: true,
            suppress_go_ahead: true,
        }
    }

    /// Whether character mode is offered.
    pub(crate) fn has_offered(&self) -> bool {
        self.offered
    }

    /// No command of telnet's has begun.
    pub(crate) fn is_between_commands(&self) -> bool {
        self.stream == Stream::Text
    }

    /// Offers character mode: what to send.
    pub(crate) fn offer(&mut self) -> &'static [u8] {
        if std::mem::replace(&mut self.offered, true) {
            return &[];
        }
        &OFFER
    }

    /// Takes the offer back: what to send.
    pub(crate) fn withdraw(&mut self) -> &'static [u8] {
        (self.echo, self.suppress_go_ahead) = (false, false);
        if std::mem::replace(&mut self.offered, false) {
            &WITHDRAWAL
        } else {
            &[]
        }
    }

    /// Takes in one byte.
    pub(crate) fn push(&mut self, byte: u8) -> (ByteCounts, Option<Event>) {
        let nothing = (Vec::new(), None);
        match std::mem::take(&mut self.stream) {
            Stream::Text if byte == IAC => {
                self.stream = Stream::Command;
                nothing
            }
            Stream::Text => (vec![byte], None),
            Stream::Command => match byte {
                DO | DONT | WILL | WONT => {
                    self.stream = Stream::Option(byte);
                    nothing
                }
                SUBNEGOTIATION => {
                    self.stream = Stream::Subnegotiation;
                    nothing
                }
                INTERRUPT_PROCESS => (vec![IAC, byte], Some(Event::Interrupt)),
                _ => (vec![IAC, byte], None),
            },
            Stream::Option(verb) => self.option(verb, byte),
            Stream::Subnegotiation if byte == WINDOW_SIZE && self.offered => {
                self.stream = Stream::WindowSize {
                    bytes: [0; 4],
                    length: 0,
                    after_iac: false,
                };
                nothing
            }
            Stream::Subnegotiation => {
                self.stream = Stream::OtherSubnegotiation {
                    after_iac: byte == IAC,
                };
                (vec![IAC, SUBNEGOTIATION, byte], None)
            }
            Stream::OtherSubnegotiation { after_iac } => {
                if !(after_iac && byte == SUBNEGOTIATION_END) {
                    self.stream = Stream::OtherSubnegotiation {
                        after_iac: byte == IAC && !after_iac,
                    };
                }
                (vec![byte], None)
            }
            Stream::WindowSize {
                bytes,
                length,
                after_iac,
            } => (Vec::new(), self.window_size(bytes, length, after_iac, byte)),
        }
    }

    fn option(&mut self, verb: u8, option: u8) -> (ByteCounts, Option<Event>) {
        let was_agreed = self.echo && self.suppress_go_ahead;
        match (verb, option) {
            (DO | DONT, ECHO) if self.offered || verb == DO => self.echo = verb == DO,
            (DO | DONT, SUPPRESS_GO_AHEAD) if self.offered || verb == DO => {
                self.suppress_go_ahead = verb == DO;
            }
            (WILL | WONT, WINDOW_SIZE) if self.offered || verb == WILL => {}
            _ => {
                let negotiates = (verb == WILL || verb == DO) && option != TIMING_MARK;
                let event = (negotiates && !self.offered).then_some(Event::IsTelnet);
                return (vec![IAC, verb, option], event);
            }
        }
        if !self.offered {
            // The offer is the answer.
            return (Vec::new(), Some(Event::IsTelnet));
        }
        let is_agreed = self.echo && self.suppress_go_ahead;
        (
            Vec::new(),
            (is_agreed != was_agreed).then_some(Event::CharacterMode(is_agreed)),
        )
    }

    fn window_size(
        &mut self,
        mut bytes: [u8; 4],
        mut length: usize,
        after_iac: bool,
        byte: u8,
    ) -> Option<Event> {
        match (after_iac, byte) {
            (false, IAC) => {}
            (true, SUBNEGOTIATION_END) => {
                return (length == bytes.len())
                    .then(|| Event::Columns(u16::from_be_bytes([bytes[0], bytes[1]])));
            }
            // Doubled, as 255 is where it means itself.
            (true, IAC) | (false, _) => {
                if let Some(place) = bytes.get_mut(length) {
                    *place = byte;
                }
                // One more than there can be is enough to know that it is too many.
                length = (length + 1).min(bytes.len() + 1);
            }
            (true, _) => {}
        }
        self.stream = Stream::WindowSize {
            bytes,
            length,
            after_iac: byte == IAC && !after_iac,
        };
        None
    }

    /// Whether the client agreed before it was offered anything: an offer now is an agreement.
    pub(crate) fn is_agreed(&self) -> bool {
        self.offered && self.echo && self.suppress_go_ahead
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(negotiation: &mut Negotiation, bytes: &[u8]) -> (ByteCounts, Vec<Event>) {
        let (mut passed, mut events) = (Vec::new(), Vec::new());
        for byte in bytes {
            let (some, event) = negotiation.push(*byte);
            passed.extend(some);
            events.extend(event);
        }
        (passed, events)
    }

    #[test]
    fn character_mode_begins_when_both_are_agreed_and_ends_with_one() {
        let mut negotiation = Negotiation::default();
        assert_eq!((negotiation.offer(), negotiation.offer()), (&OFFER[..], &[][..]));
        let agree = [
            IAC,
            DO,
            ECHO,
            b'a',
            IAC,
            DO,
            SUPPRESS_GO_AHEAD,
            IAC,
            WILL,
            WINDOW_SIZE,
            IAC,
            DO,
            ECHO,
        ];
        assert_eq!(
            push(&mut negotiation, &agree),
            (b"a".to_vec(), vec![Event::CharacterMode(true)])
        );
        let size = [
            IAC,
            SUBNEGOTIATION,
            WINDOW_SIZE,
            1,
            IAC,
            IAC,
            0,
            24,
            IAC,
            SUBNEGOTIATION_END,
        ];
        assert_eq!(
            push(&mut negotiation, &size),
            (vec![], vec![Event::Columns(0x1ff)])
        );
        assert_eq!(
            push(&mut negotiation, &[IAC, DONT, ECHO]),
            (vec![], vec![Event::CharacterMode(false)])
        );
        assert_eq!(
            (negotiation.withdraw(), negotiation.withdraw()),
            (&WITHDRAWAL[..], &[][..])
        );
    }

    #[test]
    fn a_client_that_negotiates_by_itself_is_telnet() {
        let mut negotiation = Negotiation::default();
        assert_eq!(
            push(&mut negotiation, &[IAC, DO, ECHO]),
            (vec![], vec![Event::IsTelnet])
        );
        assert_eq!(
            push(&mut negotiation, &[IAC, DO, SUPPRESS_GO_AHEAD]),
            (vec![], vec![Event::IsTelnet])
        );
        negotiation.offer();
        assert!(negotiation.is_agreed());
        let mut negotiation = Negotiation::default();
        let others = [IAC, WILL, 24, IAC, DO, TIMING_MARK, IAC, INTERRUPT_PROCESS];
        assert_eq!(
            push(&mut negotiation, &others),
            (others.to_vec(), vec![Event::IsTelnet, Event::Interrupt])
        );
        let silent = [IAC, DONT, ECHO, IAC, WONT, WINDOW_SIZE, b'x'];
        assert_eq!(
            push(&mut Negotiation::default(), &silent),
            (silent.to_vec(), vec![])
        );
    }

    proptest! {
        /// Who was offered nothing and asks for nothing finds every byte passed on.
        #[test]
        fn what_is_not_ours_is_passed_on(bytes in proptest::collection::vec(prop::sample::select(vec![
            b'a', b'\r', b'\n', 0, IAC, SUBNEGOTIATION, SUBNEGOTIATION_END, WONT, DONT, 24, 255,
        ]), 0..200)) {
            let mut negotiation = Negotiation::default();
            let (mut passed, _) = push(&mut negotiation, &bytes);
            // What is still in the middle of a command comes with its end.
            passed.extend(push(&mut negotiation, b"...").0);
            prop_assert_eq!(passed, [&bytes[..], b"..."].concat());
        }

        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let mut negotiation = Negotiation::default();
            negotiation.offer();
            let (passed, _) = push(&mut negotiation, &bytes);
            prop_assert!(passed.len() <= bytes.len());
        }
    }
}
