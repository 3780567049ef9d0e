//! Clients that agree, refuse, negotiate by themselves, or send garbage.

use proptest::prelude::*;

use crate::telnet::options::*;
use crate::telnet::{INTERRUPT_PROCESS, Parser, SUBNEGOTIATION, SUBNEGOTIATION_END};

/// One client's stream.
#[derive(Default)]
struct Client {
    parser: Parser,
    negotiation: Negotiation,
}

/// What came of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Events that are no negotiation.
    typed: Vec<Event>,
    changes: Vec<Change>,
    replies: Vec<[u8; 3]>,
}

impl Client {
    fn push(&mut self, bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        for event in bytes.iter().filter_map(|byte| self.parser.push(*byte)) {
            let (change, reply) = self.negotiation.push(event);
            seen.changes.extend(change);
            seen.replies.extend(reply);
            if !is_negotiation(&event) {
                seen.typed.push(event);
            }
        }
        seen
    }
}

fn is_negotiation(event: &Event) -> bool {
    matches!(
        event,
        Event::Option(..) | Event::SubnegotiationByte(_) | Event::SubnegotiationEnd
    )
}

fn changed(changes: &[Change]) -> Seen {
    Seen {
        changes: changes.to_vec(),
        ..Seen::default()
    }
}

#[test]
fn character_mode_begins_when_both_are_agreed_and_ends_with_one() {
    let mut client = Client::default();
    assert_eq!(
        (client.negotiation.offer(), client.negotiation.offer()),
        (&OFFER[..], &[][..])
    );
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
        client.push(&agree),
        Seen {
            typed: vec![Event::Byte(b'a')],
            changes: vec![Change::CharacterMode(true)],
            replies: vec![],
        }
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
    assert_eq!(client.push(&size), changed(&[Change::Columns(0x1ff)]));
    assert_eq!(
        client.push(&[IAC, DONT, ECHO]),
        changed(&[Change::CharacterMode(false)])
    );
    assert_eq!(
        (client.negotiation.withdraw(), client.negotiation.withdraw()),
        (&WITHDRAWAL[..], &[][..])
    );
}

#[test]
fn a_window_size_of_another_length_is_ignored() {
    let mut client = Client::default();
    client.negotiation.offer();
    for size in [&[0, 80, 0][..], &[0, 80, 0, 24, 0]] {
        let begin = [IAC, SUBNEGOTIATION, WINDOW_SIZE];
        let bytes = [&begin[..], size, &[IAC, SUBNEGOTIATION_END]].concat();
        assert_eq!(client.push(&bytes), Seen::default());
    }
}

#[test]
fn a_client_that_negotiates_by_itself_is_telnet() {
    let mut client = Client::default();
    assert_eq!(client.push(&[IAC, DO, ECHO]), changed(&[Change::IsTelnet]));
    assert_eq!(
        client.push(&[IAC, DO, SUPPRESS_GO_AHEAD]),
        changed(&[Change::IsTelnet])
    );
    client.negotiation.offer();
    assert!(client.negotiation.is_agreed());
    let others = [IAC, WILL, 24, IAC, DO, TIMING_MARK, IAC, INTERRUPT_PROCESS];
    assert_eq!(
        Client::default().push(&others),
        Seen {
            typed: vec![Event::Interrupt],
            changes: vec![Change::IsTelnet],
            replies: vec![[IAC, DONT, 24], [IAC, WONT, TIMING_MARK]],
        }
    );
    let silent = [IAC, DONT, ECHO, IAC, WONT, WINDOW_SIZE, b'x'];
    assert_eq!(
        Client::default().push(&silent),
        Seen {
            typed: vec![Event::Byte(b'x')],
            ..Seen::default()
        }
    );
}

proptest! {
    /// A client that was offered nothing and asks for nothing is not affected by the negotiation.
    #[test]
    fn what_does_not_negotiate_is_left_alone(bytes in proptest::collection::vec(prop::sample::select(vec![
        b'a', b'\r', b'\n', 0, IAC, SUBNEGOTIATION, SUBNEGOTIATION_END, WONT, DONT, 24, 255,
    ]), 0..200)) {
        let mut parser = Parser::default();
        let events = bytes.iter().filter_map(|byte| parser.push(*byte));
        let typed = events.filter(|event| !is_negotiation(event)).collect();
        prop_assert_eq!(Client::default().push(&bytes), Seen { typed, ..Seen::default() });
    }

    /// Every reply is a refusal of something that the client has sent, so there are never more replies than requests.
    #[test]
    fn no_bytes_make_the_negotiation_panic_or_talk_without_end(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let mut client = Client::default();
        client.negotiation.offer();
        let seen = client.push(&bytes);
        prop_assert!(seen.typed.len() + 3 * seen.replies.len() <= bytes.len());
    }
}
