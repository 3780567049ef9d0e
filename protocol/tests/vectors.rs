//! `vectors.json` and this crate agree byte by byte. (A different encoder produced the vectors.)

use forkade_protocol::{
    ClientMessage, ClientSession, ServerMessage,
    codec::{self, CodecError},
    frame::{self, Split},
    limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_TOTAL_BYTES_MAX},
    preamble::{self, PreambleResult},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    about: String,
    varints: Vec<Varint>,
    preambles: Vec<Preamble>,
    client_frames: Vec<Frame<ClientMessage>>,
    server_frames: Vec<Frame<ServerMessage>>,
    refused_bodies: Vec<Refused>,
    games: Vec<GameBytes>,
    /// The test `resume_vectors` runs these.
    resume: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Varint {
    value: u64,
    hex: String,
}

#[derive(Deserialize)]
struct Preamble {
    min: u16,
    max: u16,
    hex: String,
}

#[derive(Deserialize)]
struct Frame<Message> {
    message: Message,
    hex: String,
}

#[derive(Deserialize)]
struct Refused {
    from: String,
    why: String,
    hex: String,
}

#[derive(Deserialize)]
struct GameBytes {
    game: String,
    kind: String,
    means: String,
    hex: String,
}

fn vectors() -> Vectors {
    let vectors: Vectors =
        serde_json::from_str(include_str!("../vectors.json")).expect("vectors.json is valid");
    assert!(!vectors.about.is_empty() && !vectors.resume.is_empty());
    vectors
}

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect(hex))
        .collect()
}

fn check_frames<Message>(frames: &[Frame<Message>], variants: u8)
where
    Message: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    for Frame { message, hex } in frames {
        let expected = bytes(hex);
        let mut buffer = [0; FRAME_TOTAL_BYTES_MAX];
        let length = frame::write_frame_into(message, &mut buffer).expect(hex);
        assert_eq!(buffer[..length], expected, "{message:?}");
        let mut appended = vec![7];
        assert_eq!(frame::append_frame(message, &mut appended), Ok(length));
        assert_eq!(appended[1..], expected, "{message:?}");

        let Split::Frame { body, total } = frame::split(&expected, FRAME_BYTES_MAX) else {
            panic!("{hex}")
        };
        assert_eq!(total, expected.len());
        assert_eq!(codec::decode::<Message>(body).as_ref(), Ok(message), "{hex}");
    }
    for variant in 0..variants {
        let is_variant = |frame: &Frame<Message>| bytes(&frame.hex)[FRAME_HEADER_BYTES] == variant;
        assert!(frames.iter().any(is_variant), "no vector has variant {variant}");
    }
}

#[test]
fn client_frames_encode_and_decode_as_in_the_vectors() {
    check_frames(&vectors().client_frames, 24);
}

#[test]
fn server_frames_encode_and_decode_as_in_the_vectors() {
    check_frames(&vectors().server_frames, 22);
}

#[test]
fn integers_encode_and_decode_as_in_the_vectors() {
    for Varint { value, hex } in vectors().varints {
        assert_eq!(codec::encode(&value), Ok(bytes(&hex)));
        assert_eq!(codec::decode(&bytes(&hex)), Ok(value));
    }
}

#[test]
fn preambles_encode_and_classify_as_in_the_vectors() {
    for Preamble { min, max, hex } in vectors().preambles {
        assert_eq!(preamble::build(min, max)[..], bytes(&hex));
        assert_eq!(
            preamble::classify(&bytes(&hex)),
            PreambleResult::Preamble { min, max }
        );
    }
}

#[test]
fn bodies_that_are_not_a_message_are_refused() {
    for Refused { from, why, hex } in vectors().refused_bodies {
        let body = bytes(&hex);
        let error: CodecError = match from.as_str() {
            "client" => codec::decode::<ClientMessage>(&body).expect_err(&why),
            "server" => codec::decode::<ServerMessage>(&body).expect_err(&why),
            other => panic!("unknown side {other}"),
        };
        assert!(!error.to_string().is_empty());
    }
}

#[derive(Serialize, Deserialize)]
enum Suit {
    Clubs,
    Diamonds,
    Hearts,
    Spades,
}

#[derive(Serialize, Deserialize)]
enum EightsAction {
    Play { card: u8, named: Option<Suit> },
    Draw,
    Pass,
}

#[derive(Serialize, Deserialize)]
enum EightsEvent {
    Played {
        seat: u8,
        card: u8,
        follow: Suit,
        next: u8,
    },
    Drew {
        seat: u8,
    },
    Got {
        card: u8,
    },
    Passed {
        seat: u8,
        next: u8,
    },
    Turned {
        stock: u8,
    },
    Left {
        seat: u8,
        stock: u8,
        next: u8,
    },
}

#[derive(Serialize, Deserialize)]
struct EightsView {
    seat: Option<u8>,
    hand: Vec<u8>,
    counts: Vec<Option<u8>>,
    top: u8,
    follow: Suit,
    stock: u8,
    beneath: u8,
    next: u8,
    has_drawn: bool,
    over: bool,
}

#[test]
fn games_bytes_decode_as_in_the_vectors() {
    for GameBytes {
        game,
        kind,
        means,
        hex,
    } in vectors().games
    {
        let bytes = bytes(&hex);
        let encoded_again = match (game.as_str(), kind.as_str()) {
            ("relay", "action") => Ok(bytes.clone()),
            ("relay", "event") => codec::encode(&codec::decode::<(u8, Vec<u8>)>(&bytes).expect(&means)),
            ("tictactoe", "action") => codec::encode(&codec::decode::<u8>(&bytes).expect(&means)),
            ("tictactoe", "event") => codec::encode(&codec::decode::<(u8, u8)>(&bytes).expect(&means)),
            ("tictactoe", "view") => {
                codec::encode(&codec::decode::<([Option<u8>; 9], u8)>(&bytes).expect(&means))
            }
            ("connect4", "action") => codec::encode(&codec::decode::<u8>(&bytes).expect(&means)),
            ("connect4", "event") => codec::encode(&codec::decode::<(u8, u8, u8)>(&bytes).expect(&means)),
            ("connect4", "view") => {
                codec::encode(&codec::decode::<([[Option<u8>; 7]; 6], u8)>(&bytes).expect(&means))
            }
            ("eights", "action") => codec::encode(&codec::decode::<EightsAction>(&bytes).expect(&means)),
            ("eights", "event") => codec::encode(&codec::decode::<EightsEvent>(&bytes).expect(&means)),
            ("eights", "view") => codec::encode(&codec::decode::<EightsView>(&bytes).expect(&means)),
            other => panic!("unknown bytes {other:?}"),
        };
        assert_eq!(encoded_again, Ok(bytes), "{means}");
    }
}

/// Plays the client's side of the example in `WIRE.md` and compares every byte and every offset.
#[test]
fn a_session_sends_the_bytes_of_the_example_in_the_specification() {
    let specification = include_str!("../WIRE.md");
    let (_, example) = specification
        .split_once("```session\n")
        .expect("there is an example");
    let (example, _) = example.split_once("```").expect("the example ends");
    let mut session = ClientSession::new("Ann", "demo 1.0").with_version_max(1);
    session.begin().expect("it can begin");
    for line in joined_lines(example) {
        let mut words = line.split_whitespace();
        let (side, offset) = (
            words.next(),
            words.next().and_then(|offset| offset.parse::<u64>().ok()),
        );
        let bytes = bytes(&words.collect::<String>());
        match side {
            Some("C") => {
                if offset == Some(session.sent()) {
                    let message = codec::decode(&bytes[FRAME_HEADER_BYTES..]).expect(&line);
                    session.send(&message).expect(&line);
                } else if let Some(offset) = offset {
                    // The session itself sends the lost bytes again.
                    assert_eq!(session.sent(), offset + bytes.len() as u64, "{line}");
                }
                assert_eq!(&session.bytes()[..bytes.len()], bytes, "{line}");
                session.advance(bytes.len());
            }
            Some("S") => {
                if let Some(offset) = offset {
                    assert_eq!(session.received(), offset, "{line}");
                }
                session.receive(&bytes).expect(&line);
                session.next_message().expect(&line).expect(&line);
            }
            Some("LOST") => {
                session.connection_lost();
                session.begin().expect("the session continues");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(session.is_leaving());
    assert_eq!(session.counters().resumes, 1);
    assert_eq!(session.counters().gaps, 0);
}

/// The lines of the example without comments. Continuation lines, which begin with a space, are joined to their line.
fn joined_lines(example: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in example.lines().filter(|line| !line.starts_with('#')) {
        match lines.last_mut() {
            Some(last) if line.starts_with(' ') => last.push_str(line),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}
