//! Messages survive encoding and decoding, however their bytes are split, and no bytes cause a panic.

#[path = "support/arbitrary.rs"]
mod arbitrary;

use arbitrary::{client_message, server_message};
use forkade_protocol::{
    ClientMessage, ClientSession, ServerMessage, SessionError,
    codec::{self, CodecError},
    frame::{self, Split},
    limits::{FRAME_BYTES_MAX, FRAME_TOTAL_BYTES_MAX},
    preamble::{self, PreambleResult},
};
use proptest::{collection::vec, prelude::*, sample::Index};
use serde::Serialize;

fn framed<Message: Serialize>(messages: &[Message]) -> Vec<u8> {
    let mut stream = Vec::new();
    for message in messages {
        frame::append_frame(message, &mut stream).expect("generated messages fit a frame");
    }
    stream
}

proptest! {
    #[test]
    fn every_client_message_survives_encoding_and_decoding(message in client_message()) {
        let bytes = codec::encode(&message).expect("it can be encoded");
        prop_assert_eq!(codec::decode(&bytes), Ok(message));
    }

    #[test]
    fn every_server_message_survives_encoding_and_decoding(message in server_message()) {
        let bytes = codec::encode(&message).expect("it can be encoded");
        prop_assert_eq!(codec::decode(&bytes), Ok(message));
    }

    #[test]
    fn a_truncated_or_extended_message_is_an_error(message in client_message(), cut: Index, more: u8) {
        let mut bytes = codec::encode(&message).expect("it can be encoded");
        prop_assert_eq!(codec::decode::<ClientMessage>(&bytes[..cut.index(bytes.len())]), Err(CodecError::Truncated));
        bytes.push(more);
        prop_assert_eq!(codec::decode::<ClientMessage>(&bytes), Err(CodecError::TrailingBytes { count: 1 }));
    }

    #[test]
    fn a_stream_yields_the_same_messages_however_it_is_split(
        messages in vec(server_message().prop_filter("not in a stream", is_streamed), 1..10),
        cuts in vec(1..100_usize, 1..20),
    ) {
        let mut session = established();
        let mut stream = &framed(&messages)[..];
        let mut received = Vec::new();
        for length in cuts.iter().cycle() {
            let (piece, rest) = stream.split_at(stream.len().min(*length));
            session.receive(piece).expect("there is space");
            while let Some(message) = session.next_message().expect("the stream is valid") {
                received.push(message);
            }
            stream = rest;
            if stream.is_empty() {
                break;
            }
        }
        prop_assert_eq!(received, messages);
    }

    #[test]
    fn an_incomplete_frame_reports_how_many_bytes_it_needs(message in client_message(), cut: Index) {
        let frame = framed(&[message]);
        let partial = &frame[..cut.index(frame.len())];
        match frame::split(partial, FRAME_BYTES_MAX) {
            Split::Incomplete { needed } => {
                prop_assert!(partial.len() < needed && needed <= frame.len());
                prop_assert!(partial.len() < 4 || needed == frame.len());
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn a_buffer_that_is_too_small_is_an_error(message in client_message(), size in 0..400_usize) {
        let frame = framed(std::slice::from_ref(&message));
        let mut buffer = vec![0; size];
        match frame::write_frame_into(&message, &mut buffer) {
            Ok(length) => prop_assert_eq!(&buffer[..length], &frame[..]),
            Err(error) => {
                prop_assert!(size < frame.len());
                prop_assert_eq!(error, CodecError::BufferFull { capacity: size });
            }
        }
    }

    #[test]
    fn no_first_bytes_of_a_connection_cause_a_panic(bytes in vec(prop_oneof![any::<u8>(), Just(0xF7), Just(b'F'), Just(b'K')], 0..12)) {
        match preamble::classify(&bytes) {
            PreambleResult::Incomplete => prop_assert!(bytes.len() < preamble::PREAMBLE_BYTES),
            PreambleResult::Text(first) => prop_assert!(bytes[0] == first && first != preamble::MAGIC[0]),
            PreambleResult::Preamble { min, max } => prop_assert_eq!(&bytes[..8], &preamble::build(min, max)[..]),
            PreambleResult::Invalid => prop_assert_eq!(bytes[0], preamble::MAGIC[0]),
        }
    }
}

/// Whether the message is in the stream, and the session returns it as it is.
fn is_streamed(message: &ServerMessage) -> bool {
    use ServerMessage::*;
    !matches!(
        message,
        Welcome { .. }
            | Greeted { .. }
            | Resumed { .. }
            | Error { .. }
            | ShuttingDown { .. }
            | Pong { .. }
            | RejectedTooFast { .. }
    )
}

fn established() -> ClientSession {
    let mut session = ClientSession::from_token(forkade_protocol::Token([0; 16]));
    session.begin().expect("a new session can begin");
    let resumed = ServerMessage::Resumed {
        received: 0,
        resuming_at: 0,
    };
    session.receive(&framed(&[resumed])).expect("there is space");
    session
        .next_message()
        .expect("the answer is valid")
        .expect("the answer is complete");
    session
}

#[test]
fn a_message_beyond_the_limit_cannot_be_framed() {
    let of = |length| ClientMessage::Act {
        request: 0,
        action: vec![7; length],
    };
    let mut buffer = [0; FRAME_TOTAL_BYTES_MAX + 100];
    let longest = FRAME_BYTES_MAX - 5;
    assert_eq!(
        frame::write_frame_into(&of(longest), &mut buffer),
        Ok(FRAME_TOTAL_BYTES_MAX)
    );
    let too_large = Err(CodecError::MessageTooLarge {
        bytes_max: FRAME_BYTES_MAX,
    });
    assert_eq!(frame::write_frame_into(&of(longest + 1), &mut buffer), too_large);
    let mut stream = vec![1];
    assert_eq!(frame::append_frame(&of(longest + 1), &mut stream), too_large);
    assert_eq!(stream, [1]);
}

#[test]
fn a_frame_beyond_the_limit_is_refused_by_its_header() {
    let announced = FRAME_BYTES_MAX + 1;
    let header = u32::try_from(announced).expect("small").to_le_bytes();
    assert_eq!(
        frame::split(&header, FRAME_BYTES_MAX),
        Split::TooLarge { announced }
    );
    assert_eq!(
        frame::split(&u32::MAX.to_le_bytes(), FRAME_BYTES_MAX),
        Split::TooLarge {
            announced: 0xFFFF_FFFF
        }
    );
    let mut session = established();
    session.receive(&header).expect("there is space");
    assert_eq!(
        session.next_message(),
        Err(SessionError::FrameTooLarge { announced })
    );
    assert!(session.is_ended());
}

#[test]
fn negotiation_selects_the_highest_common_version() {
    assert_eq!(preamble::negotiate(1, 1), Some(1));
    assert_eq!(preamble::negotiate(0, u16::MAX), Some(3));
    assert_eq!(preamble::negotiate(2, 7), Some(3));
    assert_eq!(preamble::negotiate(4, 7), None);
    assert_eq!(preamble::negotiate(0, 0), None);
    assert_eq!(
        preamble::classify(&preamble::build(2, 1)),
        PreambleResult::Invalid
    );
}

#[test]
fn a_frame_full_of_small_numbers_is_within_the_decode_limit() {
    let free = vec![None; FRAME_BYTES_MAX - 40];
    let snapshot = forkade_protocol::Snapshot {
        room: forkade_protocol::RoomId(1),
        game: String::new(),
        name: String::new(),
        phase: forkade_protocol::Phase::Waiting,
        seat: None,
        seats: free,
        spectators: 0,
        event: 0,
        view: Vec::new(),
        owner: None,
        rules: forkade_protocol::RoomRules::default(),
        reservations: Vec::new(),
        turn: None,
    };
    let message = ServerMessage::Started { snapshot };
    let bytes = codec::encode(&message).expect("it can be encoded");
    assert!(bytes.len() <= FRAME_BYTES_MAX);
    assert_eq!(codec::decode(&bytes), Ok(message));
    let numbers = vec![1_u64; FRAME_BYTES_MAX - 16];
    assert_eq!(
        codec::decode(&codec::encode(&numbers).expect("it can be encoded")),
        Ok(numbers)
    );
}
