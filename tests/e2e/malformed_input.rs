//! Promise: any input on the game port gets a clear answer within limited time and memory, leaves no
//! resources behind, and affects no other client.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::common::control_pair::expect_harmless;
use crate::common::eventually;
use crate::common::raw_client::{End, RawClient, frame, framed, handshake, handshake_preamble};
use forkade_protocol::limits::{FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX};
use forkade_protocol::{
    ChatScope, ClientMessage, ErrorCode, RejectCode, RoomFilter, RoomId, RoomSettings, ServerMessage, Token,
    codec, preamble,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[test]
fn a_wrong_preamble_is_refused() {
    expect_harmless(&[], |server| {
        let backwards = preamble::build(2, 1);
        for bytes in [&b"\xf7FK\0"[..], b"\xf7GET / HTTP/1.1\r\n", &backwards] {
            let mut raw = RawClient::connect(server);
            raw.send(bytes);
            raw.expect_error(ErrorCode::BadPreamble);
        }
    });
}

#[test]
fn a_client_of_other_versions_is_told_the_supported_ones() {
    expect_harmless(&[], |server| {
        for (min, max) in [(0, 0), (4, 4), (4, u16::MAX)] {
            let mut raw = RawClient::connect(server);
            raw.send(&preamble::build(min, max));
            let text = raw.expect_error(ErrorCode::VersionUnsupported);
            assert!(text.contains("versions 1 to 3"), "{text}");
        }
        let mut raw = RawClient::connect(server);
        raw.send(&preamble::build(0, u16::MAX));
        raw.send(&handshake("New")[handshake_preamble().len()..]);
        let welcome = raw.next_message();
        assert!(
            matches!(welcome, Ok(ServerMessage::Welcome { version: 3, .. })),
            "{welcome:?}"
        );
    });
}

#[test]
fn text_and_telnet_clients_get_a_readable_answer() {
    expect_harmless(&[], |server| {
        for bytes in [
            &b"hello\r\n"[..],
            b"GET /\r\n",
            b"\xff\xfd\x01",
            b"\0",
            b"\x16\x02\x01",
        ] {
            let mut raw = RawClient::connect(server);
            raw.send(bytes);
            raw.half_close();
            let words = words_of(&mut raw);
            assert!(words.starts_with("Welcome to Forkade."), "{words:?}");
        }
    });
}

/// All text-mode output up to the end of the connection, without answers to telnet commands: lines without
/// control characters.
fn words_of(raw: &mut RawClient) -> String {
    const IAC: u8 = 255;
    let mut answer = Vec::new();
    raw.stream
        .read_to_end(&mut answer)
        .expect("words, and then the end");
    let mut words = Vec::new();
    let mut bytes = answer.into_iter();
    while let Some(byte) = bytes.next() {
        if byte == IAC {
            let refusal = (bytes.next(), bytes.next());
            assert!(matches!(refusal, (Some(252 | 254), Some(_))), "{refusal:?}");
        } else {
            words.push(byte);
        }
    }
    let words = String::from_utf8(words).expect("words");
    let is_harmful = |found: char| found.is_control() && !"\r\n".contains(found);
    assert!(!words.contains(is_harmful), "{words:?}");
    words
}

#[test]
fn a_frame_beyond_the_limit_is_refused_by_its_header() {
    expect_harmless(&[], |server| {
        let greeting_max = HANDSHAKE_BYTES_MAX - handshake_preamble().len() - 4;
        for length in [greeting_max + 1, FRAME_BYTES_MAX, u32::MAX as usize] {
            let mut raw = RawClient::connect(server);
            raw.send(&handshake_preamble());
            raw.send(&u32::try_from(length).expect("small").to_le_bytes());
            raw.expect_error(ErrorCode::FrameTooLarge);
        }
        for (name, length) in [("a", FRAME_BYTES_MAX + 1), ("b", u32::MAX as usize)] {
            let mut raw = RawClient::connect_as(server, name);
            raw.send(&u32::try_from(length).expect("small").to_le_bytes());
            raw.expect_error(ErrorCode::FrameTooLarge);
        }
    });
}

#[test]
fn a_frame_at_the_limit_is_handled() {
    expect_harmless(&[], |server| {
        let mut raw = RawClient::connect_as(server, "Long");
        let act = |bytes| ClientMessage::Act {
            request: 7,
            action: vec![0; bytes],
        };
        let envelope = frame(&act(FRAME_BYTES_MAX - 100)).len() - 4 - (FRAME_BYTES_MAX - 100);
        let longest = frame(&act(FRAME_BYTES_MAX - envelope));
        assert_eq!(longest.len(), 4 + FRAME_BYTES_MAX);
        raw.send(&longest);
        let answer = raw.next_message();
        assert!(
            matches!(
                answer,
                Ok(ServerMessage::Rejected {
                    request: 7,
                    code: RejectCode::NotInRoom,
                    ..
                })
            ),
            "{answer:?}"
        );
    });
}

#[test]
fn a_handshake_with_too_long_a_name_is_refused() {
    expect_harmless(&[], |server| {
        let hello = |name: &str, client: &str| ClientMessage::Hello {
            name: name.to_owned(),
            client: client.to_owned(),
        };
        let refused = [
            hello(&"n".repeat(25), ""),
            hello(" \u{202e}\n", ""),
            hello("Ann", &"c".repeat(65)),
        ];
        for refused in refused {
            let mut raw = RawClient::connect(server);
            raw.send(&[&handshake_preamble()[..], &frame(&refused)].concat());
            raw.expect_error(ErrorCode::NameInvalid);
        }
    });
}

#[test]
fn a_body_that_is_not_one_message_is_malformed() {
    expect_harmless(&[], |server| {
        let ping = codec::encode(&ClientMessage::Ping { nonce: 1 }).expect("encodes");
        let trailing = [&ping[..], &[0]].concat();
        let bodies: [(&str, &[u8]); 8] = [
            ("nothing", &[]),
            ("a trailing byte", &trailing),
            ("no such message", &[15]),
            ("a reserved number", &[13, 0xff]),
            ("half a number", &[13, 0xfd, 1, 2]),
            ("neither some nor none", &[4, 1, 1, 2]),
            ("not UTF-8", &[10, 1, 0, 2, 0xc3, 0x28]),
            (
                "a length beyond the end",
                &[9, 1, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            ),
        ];
        for (what, body) in bodies {
            let mut raw = RawClient::connect_as(server, what);
            raw.send(&framed(body));
            raw.expect_error(ErrorCode::Malformed);
            let mut raw = RawClient::connect(server);
            raw.send(&handshake_preamble());
            raw.send(&framed(body));
            raw.expect_error(ErrorCode::Malformed);
        }
    });
}

#[test]
fn a_client_that_disconnects_at_any_point_leaves_nothing_behind() {
    expect_harmless(&[], |server| {
        let chat = ClientMessage::Chat {
            request: 1,
            scope: ChatScope::Room,
            text: "half".to_owned(),
        };
        let whole = [handshake("Half"), frame(&chat)].concat();
        for (index, length) in (0..whole.len()).enumerate() {
            let mut raw = RawClient::connect(server);
            raw.send(&whole[..length]);
            match index % 3 {
                0 => raw.reset(),
                1 => drop(raw),
                _ => {
                    raw.half_close();
                    // After a handshake, the client is answered before the connection ends.
                    raw.rest();
                }
            }
            // The name is the same each time: it must be free again.
            eventually("the player is gone", || server.status("players") == 2);
        }
    });
}

#[test]
fn a_valid_message_in_the_wrong_phase_is_refused() {
    expect_harmless(&[], |server| {
        let hello = ClientMessage::Hello {
            name: "Again".to_owned(),
            client: String::new(),
        };
        let resume = ClientMessage::Resume {
            token: Token([7; 16]),
            received: 0,
        };

        for first in [
            ClientMessage::Ping { nonce: 1 },
            ClientMessage::Goodbye,
            ClientMessage::Leave { request: 1 },
        ] {
            let mut raw = RawClient::connect(server);
            raw.send(&[&handshake_preamble()[..], &frame(&first)].concat());
            raw.expect_error(ErrorCode::WrongState);
        }
        for (name, second) in [("One", &hello), ("Two", &resume)] {
            let mut raw = RawClient::connect_as(server, name);
            raw.send_message(second);
            raw.expect_error(ErrorCode::WrongState);
        }
        let mut raw = RawClient::connect(server);
        raw.send(&[&handshake_preamble()[..], &frame(&resume)].concat());
        raw.expect_error(ErrorCode::TokenUnknown);

        let mut raw = RawClient::connect_as(server, "Impatient");
        raw.send_message(&ClientMessage::Confirm { received: 1 });
        let text = raw.expect_error(ErrorCode::Malformed);
        assert!(text.contains("confirmed"), "{text}");
    });
}

#[test]
fn bytes_after_a_resume_are_refused_and_affect_nobody() {
    expect_harmless(&["--seat-grace-ms", "60000"], |server| {
        let player = server.client("Rightful");
        let resume = ClientMessage::Resume {
            token: player.token(),
            received: 0,
        };
        let mut raw = RawClient::connect(server);
        raw.send(
            &[
                &handshake_preamble()[..],
                &frame(&resume),
                &frame(&ClientMessage::Ping { nonce: 1 }),
            ]
            .concat(),
        );
        raw.expect_error(ErrorCode::WrongState);
        player.goodbye().expect("the session is untouched");
    });
}

#[test]
fn a_request_in_the_wrong_state_is_rejected_and_the_session_continues() {
    expect_harmless(&[], |server| {
        let mut raw = RawClient::connect_as(server, "Hasty");
        let without_a_room = [
            ClientMessage::Leave { request: 1 },
            ClientMessage::Ready {
                request: 2,
                ready: true,
            },
            ClientMessage::Act {
                request: 3,
                action: vec![4],
            },
            ClientMessage::Chat {
                request: 4,
                scope: ChatScope::Room,
                text: "anyone?".to_owned(),
            },
            ClientMessage::Rematch { request: 5 },
        ];
        for message in &without_a_room {
            raw.send_message(message);
            match raw.next_message() {
                Ok(ServerMessage::Rejected {
                    request,
                    code: RejectCode::NotInRoom,
                    ..
                }) => {
                    assert_eq!(Some(request), message.request());
                }
                other => panic!("{message:?} was answered {other:?}"),
            }
        }
        raw.send_message(&ClientMessage::Ping { nonce: 9 });
        assert!(matches!(
            raw.next_message(),
            Ok(ServerMessage::Pong { nonce: 9, .. })
        ));
        // Input after a goodbye is not read.
        raw.send(
            &[
                frame(&ClientMessage::Goodbye),
                frame(&ClientMessage::Ping { nonce: 10 }),
            ]
            .concat(),
        );
        assert_eq!(raw.rest(), (vec![], End::Closed));
    });
}

#[test]
fn requests_at_their_longest_are_rejected_with_a_short_reason() {
    expect_harmless(&[], |server| {
        let mut raw = RawClient::connect_as(server, "Windy");
        // Escaped, a control character becomes several characters.
        let long = |bytes| "\u{7f}".repeat(bytes);
        let (almost_a_frame, request) = (FRAME_BYTES_MAX - 64, 1);
        let create = |game: &str, name: &str, options: Vec<u8>| ClientMessage::CreateRoom {
            request,
            game: game.to_owned(),
            name: name.to_owned(),
            settings: RoomSettings {
                options,
                ..RoomSettings::default()
            },
        };
        let expected = [
            (
                create(&long(almost_a_frame), "r", vec![]),
                RejectCode::UnknownGame,
            ),
            (
                create("relay", &"r".repeat(almost_a_frame), vec![]),
                RejectCode::RoomNameInvalid,
            ),
            (
                create("relay", &long(almost_a_frame), vec![]),
                RejectCode::RoomNameInvalid,
            ),
            (
                create("relay", "r", vec![0; almost_a_frame]),
                RejectCode::BadOptions,
            ),
            (
                ClientMessage::QuickMatch {
                    request,
                    game: long(almost_a_frame),
                    options: vec![],
                },
                RejectCode::UnknownGame,
            ),
            (
                ClientMessage::Chat {
                    request,
                    scope: ChatScope::Room,
                    text: "t".repeat(almost_a_frame),
                },
                RejectCode::ChatTooLong,
            ),
            (
                ClientMessage::Chat {
                    request,
                    scope: ChatScope::Whisper {
                        to: long(almost_a_frame),
                    },
                    text: "t".to_owned(),
                },
                RejectCode::UnknownPlayer,
            ),
            (
                ClientMessage::JoinRoom {
                    request,
                    room: RoomId(u64::MAX),
                    passcode: Some(long(almost_a_frame)),
                },
                RejectCode::WrongPasscode,
            ),
            (
                ClientMessage::Spectate {
                    request,
                    room: RoomId(u64::MAX),
                    passcode: None,
                },
                RejectCode::RoomNotFound,
            ),
        ];
        for (message, expected) in expected {
            raw.send_message(&message);
            match raw.next_message() {
                Ok(ServerMessage::Rejected { code, text, .. }) => {
                    assert_eq!(code, expected);
                    assert!(text.len() <= 200, "{text}");
                }
                other => panic!("instead of {expected:?}: {other:?}"),
            }
        }
        let filter = RoomFilter {
            game: None,
            name_contains: Some(long(almost_a_frame)),
            joinable: true,
        };
        raw.send_message(&ClientMessage::ListRooms {
            request,
            filter,
            after: Some(RoomId(u64::MAX)),
        });
        let answer = raw.next_message();
        let is_rejected = matches!(
            &answer,
            Ok(ServerMessage::Rejected { code: RejectCode::RoomNameInvalid, text, .. }) if text.len() <= 200
        );
        assert!(is_rejected, "{answer:?}");
    });
}

/// A fuzzed client's input after an optional handshake, and whether it then reads or disconnects.
#[derive(Debug, Clone)]
struct Fuzz {
    greets: bool,
    bytes: Vec<u8>,
    reads: bool,
}

fn fuzz() -> impl Strategy<Value = Fuzz> {
    let bytes = prop::collection::vec(any::<u8>(), 0..600);
    let body = prop::collection::vec(any::<u8>(), 0..40);
    let of_some_message =
        (0..15_u8, body).prop_map(|(message, rest)| framed(&[&[message][..], &rest].concat()));
    let several = prop::collection::vec(of_some_message, 1..8).prop_map(|frames| frames.concat());
    // Valid frames with a few bits flipped, which get further than noise.
    let flipped =
        (prop::collection::vec(any::<(u16, u8)>(), 1..4), valid_frames()).prop_map(|(flips, mut bytes)| {
            for (at, bit) in flips {
                let at = usize::from(at) % bytes.len();
                bytes[at] ^= 1 << (bit % 8);
            }
            bytes
        });
    let behind_a_preamble = bytes
        .clone()
        .prop_map(|bytes| [&handshake_preamble()[..], &bytes].concat());
    let sent = prop_oneof![bytes, several, flipped, behind_a_preamble, valid_frames()];
    (any::<bool>(), sent, any::<bool>()).prop_map(|(greets, bytes, reads)| Fuzz { greets, bytes, reads })
}

fn valid_frames() -> impl Strategy<Value = Vec<u8>> {
    let request = 1;
    let message = prop_oneof![
        Just(ClientMessage::CreateRoom {
            request,
            game: "tictactoe".to_owned(),
            name: "fuzz".to_owned(),
            settings: RoomSettings {
                passcode: Some("code".to_owned()),
                seats: 2,
                ..RoomSettings::default()
            }
        }),
        Just(ClientMessage::QuickMatch {
            request,
            game: "tictactoe".to_owned(),
            options: vec![]
        }),
        Just(ClientMessage::ListRooms {
            request,
            filter: RoomFilter::default(),
            after: None
        }),
        any::<u64>().prop_map(move |room| ClientMessage::JoinRoom {
            request,
            room: RoomId(room),
            passcode: None
        }),
        any::<u64>().prop_map(move |room| ClientMessage::Spectate {
            request,
            room: RoomId(room),
            passcode: None
        }),
        any::<bool>().prop_map(move |ready| ClientMessage::Ready { request, ready }),
        prop::collection::vec(any::<u8>(), 0..3)
            .prop_map(move |action| ClientMessage::Act { request, action }),
        (scope(), ".{0,20}").prop_map(move |(scope, text)| ClientMessage::Chat { request, scope, text }),
        Just(ClientMessage::Leave { request }),
        Just(ClientMessage::Rematch { request }),
        (0..200_u64).prop_map(move |received| ClientMessage::Confirm { received }),
        any::<u64>().prop_map(move |nonce| ClientMessage::Ping { nonce }),
    ];
    prop::collection::vec(message, 1..12).prop_map(|messages| messages.iter().flat_map(frame).collect())
}

fn scope() -> impl Strategy<Value = ChatScope> {
    prop_oneof![
        Just(ChatScope::Room),
        Just(ChatScope::Lobby),
        ".{0,9}".prop_map(|to| ChatScope::Whisper { to }),
    ]
}

#[test]
fn garbage_is_answered_and_kills_no_process() {
    expect_harmless(&[], |server| {
        let mut runner = TestRunner::new(Config {
            cases: 400,
            failure_persistence: None,
            ..Config::default()
        });
        let names = AtomicU64::new(0);
        let outcome = runner.run(&fuzz(), |fuzz| {
            let mut raw = if fuzz.greets {
                RawClient::connect_as(server, &format!("fuzz {}", names.fetch_add(1, Ordering::Relaxed)))
            } else {
                RawClient::connect(server)
            };
            raw.send(&fuzz.bytes);
            if fuzz.reads {
                raw.half_close();
                if !fuzz.greets
                    && fuzz
                        .bytes
                        .first()
                        .is_some_and(|first| *first != preamble::MAGIC[0])
                {
                    let words = words_of(&mut raw);
                    prop_assert!(words.starts_with("Welcome to Forkade."), "{words:?}");
                    return Ok(());
                }
                // The server sends only complete frames, and closes.
                let (messages, _) = raw.rest();
                let errors = messages
                    .iter()
                    .filter(|message| matches!(message, ServerMessage::Error { .. }))
                    .count();
                prop_assert!(errors <= 1, "{messages:?}");
            }
            prop_assert!(!server.log().contains("panicked"), "{}", server.log());
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
    });
}
