//! Promise: a client of version 1 gets exactly what version 1 has. What later versions add reaches only clients that
//! have negotiated them, and a session keeps its version.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use crate::common::Server;
use crate::common::raw_client::{RawClient, frame, handshake};
use forkade_protocol::client::{Client, ClientError, ClientOptions, NewRoom};
use forkade_protocol::{
    ChatScope, ClientMessage, ErrorCode, RejectCode, RoomSettings, ServerMessage, Token, preamble,
};

const NONCE: u64 = 0x1234_5678_9abc_def0;

/// A connection that has sent this frame behind the preamble of these versions.
fn opened(server: &Server, (min, max): (u16, u16), first: &ClientMessage, more: &[u8]) -> RawClient {
    let mut client = RawClient::connect(server);
    client.send(&[&preamble::build(min, max)[..], &frame(first), more].concat());
    client
}

fn greet(name: &str, nonce: u64, acknowledge: bool) -> ClientMessage {
    ClientMessage::Greet {
        name: name.to_owned(),
        client: "raw".to_owned(),
        nonce,
        acknowledge,
    }
}

fn hello(name: &str) -> ClientMessage {
    ClientMessage::Hello {
        name: name.to_owned(),
        client: "raw".to_owned(),
    }
}

fn create_room(request: u32) -> ClientMessage {
    ClientMessage::CreateRoom {
        request,
        game: "relay".to_owned(),
        name: "Room".to_owned(),
        settings: RoomSettings::default(),
    }
}

fn act(request: u32) -> ClientMessage {
    ClientMessage::Act {
        request,
        action: b"hi".to_vec(),
    }
}

/// Token and player id of the answer to a `Greet`, and how much of the client's stream the server has processed.
fn greeted(client: &mut RawClient) -> (Token, u64, u64) {
    match client.next_message() {
        Ok(ServerMessage::Greeted {
            version: 2,
            token,
            player,
            received,
            budgets,
            ..
        }) => {
            assert_eq!(budgets.unconfirmed_bytes_max, 65_536);
            assert_eq!(budgets.room_log_bytes, 262_144);
            (token, player.0, received)
        }
        other => panic!("no greeting, but {other:?}"),
    }
}

#[test]
fn a_client_of_version_1_gets_only_messages_of_version_1() {
    let server = Server::start(&["--requests-burst", "1", "--requests-per-minute", "1"]);
    let mut ann = opened(&server, (1, 1), &hello("Ann"), &[]);
    let welcome = ann.next_message();
    assert!(
        matches!(welcome, Ok(ServerMessage::Welcome { version: 1, .. })),
        "{welcome:?}"
    );
    for message in [create_room(1), act(2), create_room(3)] {
        ann.send_message(&message);
    }
    let joined = ann.next_message();
    assert!(
        matches!(joined, Ok(ServerMessage::Joined { request: 1, .. })),
        "{joined:?}"
    );
    let answers = [ann.next_message(), ann.next_message()];
    let is_plain = |answer: &Result<ServerMessage, _>| {
        matches!(
            answer,
            Ok(ServerMessage::Event { .. }
                | ServerMessage::Rejected {
                    code: RejectCode::TooFast,
                    ..
                })
        )
    };
    assert!(answers.iter().all(is_plain), "{answers:?}");
    let greeted = opened(&server, (1, 1), &greet("Bob", NONCE, true), &[]).expect_error(ErrorCode::Malformed);
    assert!(greeted.contains("version 1"), "{greeted}");
    let mut cyd = opened(&server, (1, 2), &hello("Cyd"), &[]);
    let welcome = cyd.next_message();
    assert!(
        matches!(welcome, Ok(ServerMessage::Welcome { version: 2, .. })),
        "{welcome:?}"
    );
    server.expect_no_errors();
}

#[test]
fn a_lost_answer_to_a_greeting_can_be_asked_for_again() {
    let server = Server::start(&[]);
    let greeting = greet("Ann", NONCE, false);
    // One request was sent and executed before the connection was lost.
    let request = frame(&create_room(1));
    // What the server has not read yet when the connection is reset would be lost.
    let client = opened(&server, (2, 2), &greeting, &request);
    crate::common::eventually("the room exists", || server.status("rooms") == 1);
    client.reset();
    opened(&server, (2, 2), &greet("Ann", NONCE + 1, false), &[]).expect_error(ErrorCode::NameTaken);
    opened(&server, (2, 2), &greet("Ann", 0, false), &[]).expect_error(ErrorCode::NameTaken);
    opened(&server, (1, 1), &hello("Ann"), &[]).expect_error(ErrorCode::NameTaken);
    opened(&server, (2, 2), &greeting, &request).expect_error(ErrorCode::WrongState);
    let mut last = None;
    for _ in 0..3 {
        let mut again = opened(&server, (2, 2), &greeting, &[]);
        let (token, player, received) = greeted(&mut again);
        assert_eq!(received, request.len() as u64);
        let joined = again.next_message();
        assert!(
            matches!(joined, Ok(ServerMessage::Joined { request: 1, .. })),
            "{joined:?}"
        );
        if let Some((former_token, former_player)) = last.replace((token, player)) {
            assert_eq!(player, former_player);
            let resume = ClientMessage::Resume {
                token: former_token,
                received: 0,
            };
            opened(&server, (1, 2), &resume, &[]).expect_error(ErrorCode::TokenUnknown);
        }
        again.reset();
    }
    assert_eq!(server.status("players"), 1);
    // Once the client has confirmed any of the stream, it has the answer, and the answer is not sent again.
    let mut again = opened(&server, (2, 2), &greeting, &[]);
    let (token, ..) = greeted(&mut again);
    again.send_message(&ClientMessage::Confirm { received: 1 });
    again.send_message(&ClientMessage::Ping { nonce: 5 });
    again.next_where(|message| matches!(message, ServerMessage::Pong { nonce: 5, .. }));
    opened(&server, (2, 2), &greeting, &[]).expect_error(ErrorCode::NameTaken);
    let mut resumed = opened(
        &server,
        (1, 2),
        &ClientMessage::Resume { token, received: 1 },
        &[],
    );
    assert!(matches!(
        resumed.next_message(),
        Ok(ServerMessage::Resumed { .. })
    ));
    server.expect_no_errors();
}

#[test]
fn the_library_asks_again_for_a_lost_answer_to_its_greeting() {
    let server = Server::start(&[]);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let (address, game) = (listener.local_addr().expect("bound"), server.game);
    std::thread::spawn(move || {
        for nth in 0.. {
            let (Ok((client, _)), Ok(upstream)) = (listener.accept(), TcpStream::connect(game)) else {
                return;
            };
            if nth == 0 {
                // The greeting arrives, and its answer is lost with the connection.
                let mut buffer = [0; 512];
                let count = (&client).read(&mut buffer).expect("a greeting");
                (&upstream).write_all(&buffer[..count]).expect("it is sent on");
                upstream.peek(&mut [0]).expect("it is answered");
                continue;
            }
            let (mut to, mut from) = (
                upstream.try_clone().expect("a descriptor"),
                client.try_clone().expect("a descriptor"),
            );
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let (mut from, mut to) = (upstream, client);
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
    });
    let mut ann = Client::connect(address, "Ann", ClientOptions::default()).expect("the name is her own");
    ann.ping().expect("the session lives");
    assert_eq!(server.status("players"), 1);
    server.expect_no_errors();
}

#[test]
fn an_error_that_ends_a_session_frees_its_name_at_once() {
    let server = Server::start(&[]);
    for _ in 0..3 {
        let mut raw = RawClient::connect_as(&server, "Ann");
        raw.send(&[1, 0, 0, 0, 255]);
        raw.expect_error(ErrorCode::Malformed);
        crate::common::eventually("the name is free", || server.status("players") == 0);
    }
}

#[test]
fn accepted_requests_are_acknowledged_to_those_that_asked_for_it() {
    let server = Server::start(&[]);
    let mut ann = opened(&server, (2, 2), &greet("Ann", NONCE, true), &[]);
    greeted(&mut ann);
    let chat = ClientMessage::Chat {
        request: 4,
        scope: ChatScope::Whisper { to: "nobody".into() },
        text: "hi".into(),
    };
    for message in [create_room(1), act(2), chat, ClientMessage::Leave { request: 5 }] {
        ann.send_message(&message);
    }
    let answers: Vec<_> = std::iter::from_fn(|| ann.next_message().ok())
        .filter(|message| message.request().is_some())
        .take(4)
        .collect();
    assert!(
        matches!(
            answers[..],
            [
                ServerMessage::Joined { request: 1, .. },
                ServerMessage::Accepted { request: 2 },
                ServerMessage::Rejected { request: 4, .. },
                ServerMessage::Left { request: 5 },
            ]
        ),
        "{answers:?}"
    );
    let options = ClientOptions {
        acknowledge: true,
        ..ClientOptions::default()
    };
    let mut bob = Client::connect(server.game, "Bob", options).expect("there is space");
    bob.create_room(NewRoom::new("relay", "Room"))
        .expect("there is space");
    bob.act(vec![1]).expect("the server accepts it");
    assert!(bob.session().has_acknowledgements());
    server.expect_no_errors();
}

/// The client's answer to a `Look`.
fn look(client: &mut RawClient) -> ServerMessage {
    client.send_message(&ClientMessage::Look { request: 9 });
    client.next_where(|message| message.request() == Some(9))
}

#[test]
fn only_a_client_of_version_3_is_told_whose_move_it_is() {
    let server = Server::start(&[]);
    let mut players = [(1, "Ann"), (2, "Bob"), (3, "Cyd"), (7, "Dan")].map(|(version, name)| {
        let first = match version {
            1 => hello(name),
            _ => greet(name, NONCE, false),
        };
        let mut client = opened(&server, (1, version), &first, &[]);
        client.send_message(&ClientMessage::QuickMatch {
            request: 1,
            game: "tictactoe".to_owned(),
            options: Vec::new(),
        });
        client.next_where(|message| matches!(message, ServerMessage::Joined { .. }));
        client
    });
    let says = |answer: &ServerMessage, seat| matches!(answer, ServerMessage::PictureToMove { to_move, .. } if *to_move == seat);
    let before = look(&mut players[2]);
    assert!(says(&before, None), "{before:?}");
    for player in &mut players {
        player.send_message(&ClientMessage::Ready {
            request: 2,
            ready: true,
        });
    }
    for player in &mut players {
        player.next_where(|message| matches!(message, ServerMessage::Started { .. }));
    }
    for player in &mut players[..2] {
        let answer = look(player);
        assert!(matches!(answer, ServerMessage::Picture { .. }), "{answer:?}");
    }
    for player in &mut players[2..] {
        let answer = look(player);
        assert!(says(&answer, Some(0)), "{answer:?}");
    }
    players[2].send_message(&ClientMessage::Act {
        request: 3,
        action: vec![4],
    });
    let answer = look(&mut players[2]);
    assert!(says(&answer, Some(1)), "{answer:?}");
    server.expect_no_errors();
}

#[test]
fn a_request_that_comes_too_early_is_told_in_milliseconds_when_it_can_succeed() {
    let server = Server::start(&["--requests-burst", "1", "--requests-per-minute", "6"]);
    let mut ann = server.client("Ann");
    ann.create_room(NewRoom::new("relay", "Room"))
        .expect("the first is allowed");
    ann.leave().expect("leaving is always allowed");
    match ann.create_room(NewRoom::new("relay", "Room")) {
        Err(ClientError::Rejected {
            code: RejectCode::TooFast,
            retry_after: Some(wait),
            ..
        }) => assert!((1..=10_000).contains(&wait.as_millis()), "{wait:?}"),
        other => panic!("no wait, but {other:?}"),
    }
}

#[test]
fn a_resumed_session_keeps_its_version() {
    let server = Server::start(&[]);
    let mut old = RawClient::connect(&server);
    old.send(&handshake("Old"));
    let Ok(ServerMessage::Welcome { token: old_token, .. }) = old.next_message() else {
        panic!("no welcome")
    };
    let mut new = opened(&server, (2, 2), &greet("New", NONCE, false), &[]);
    let (new_token, ..) = greeted(&mut new);
    let resume = |token| ClientMessage::Resume { token, received: 0 };
    opened(&server, (2, 2), &resume(old_token), &[]).expect_error(ErrorCode::VersionUnsupported);
    opened(&server, (1, 1), &resume(new_token), &[]).expect_error(ErrorCode::VersionUnsupported);
    for (versions, token) in [
        ((1, 1), old_token),
        ((1, 2), old_token),
        ((2, 2), new_token),
        ((1, 7), new_token),
    ] {
        let resumed = opened(&server, versions, &resume(token), &[]).next_message();
        assert!(
            matches!(resumed, Ok(ServerMessage::Resumed { .. })),
            "{versions:?}: {resumed:?}"
        );
    }
    server.expect_no_errors();
}
