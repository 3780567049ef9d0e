//! Promise: a session belongs to the newest connection that presents its token, until its grace expires. The
//! client gets everything it missed, or a snapshot of the present state.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::killer::{Handlers, kills, send};
use crate::common::random::{Random, seed};
use crate::common::raw_client::frame;
use crate::common::stream_client::{
    Cut, Resumed, StreamClient, connect, read_handshake_reply, resume_handshake,
};
use crate::common::{Server, WAIT_MAX, eventually};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::frame::{Split, split};
use forkade_protocol::limits::FRAME_BYTES_MAX;
use forkade_protocol::{
    ChatScope, ClientMessage, ErrorCode, Phase, RoomEvent, RoomId, RoomSettings, ServerMessage, Snapshot,
    Token, codec,
};
use nix::sys::signal::Signal;

/// Bytes of output that the server retains for a client that confirms nothing.
const KEPT_BYTES: u64 = 64 * 1024;

/// The next event with its number, except joins.
fn next_event(client: &mut Client) -> (u64, RoomEvent) {
    loop {
        let message = client.receive(WAIT_MAX).expect("the session lives");
        match message.expect("a message in time") {
            ServerMessage::Event {
                event: RoomEvent::Joined { .. },
                ..
            } => {}
            ServerMessage::Event { number, event } => return (number, event),
            other => panic!("instead of an event: {other:?}"),
        }
    }
}

fn expect_connection(client: &mut Client, is_alive: bool) {
    let (_, event) = next_event(client);
    let expected = RoomEvent::Connection {
        seat: 1,
        connected: is_alive,
    };
    assert_eq!(event, expected);
}

/// The event of a relay when seat 0 sends this payload.
fn word(payload: &[u8]) -> RoomEvent {
    RoomEvent::Game {
        data: codec::encode(&(0_u8, payload)).expect("it can be encoded"),
    }
}

/// Ann creates a room of this game and takes seat 0.
fn ann_in_a_room(server: &Server, game: &str) -> (Client, RoomId) {
    let mut ann = server.client("Ann");
    let room = ann
        .create_room(NewRoom::new(game, "Two"))
        .expect("a room is free")
        .room;
    (ann, room)
}

/// Bob takes seat 1, with a client that counts bytes itself.
fn bob_in_room(server: &Server, room: RoomId) -> StreamClient {
    let mut bob = StreamClient::enter(server.game, "Bob");
    bob.append(&frame(&ClientMessage::JoinRoom {
        request: 1,
        room,
        passcode: None,
    }));
    let joined = bob.wait_for_message();
    assert!(matches!(joined, ServerMessage::Joined { .. }), "{joined:?}");
    bob
}

#[test]
fn all_messages_to_an_absent_player_arrive_after_its_resume() {
    let server = Server::start(&[]);
    let (mut ann, room) = ann_in_a_room(&server, "relay");
    let mut bob = server.client("Bob");
    bob.join_room(room, None).expect("a seat is free");
    bob.disconnect_abruptly();
    expect_connection(&mut ann, false);
    for number in 0..100_u8 {
        ann.act(vec![number; 40]).expect("accepted");
    }
    let before = next_event(&mut bob);
    assert!(
        matches!(
            before.1,
            RoomEvent::Connection {
                seat: 1,
                connected: false
            }
        ),
        "{before:?}"
    );
    for number in 0..100_u8 {
        assert_eq!(next_event(&mut bob).1, word(&[number; 40]));
        assert_eq!(next_event(&mut ann).1, word(&[number; 40]));
    }
    expect_connection(&mut ann, true);
    let counters = bob.counters();
    assert_eq!((counters.resumes, counters.gaps, counters.resyncs), (1, 0, 0));
    server.expect_no_errors();
}

#[test]
fn a_resume_beyond_the_retained_output_gets_a_snapshot() {
    let server = Server::start(&["--chat-per-minute", "0"]);
    let (mut ann, room) = ann_in_a_room(&server, "tictactoe");
    let mut bob = bob_in_room(&server, room);
    ann.ready(true).expect("not yet started");
    bob.append(&frame(&ClientMessage::Ready {
        request: 2,
        ready: true,
    }));
    while !matches!(bob.wait_for_message(), ServerMessage::Started { .. }) {}
    ann.receive_where(WAIT_MAX, |message| {
        matches!(message, ServerMessage::Started { .. })
    })
    .expect("the session lives")
    .expect("the match starts");
    ann.act(vec![0]).expect("a legal move");
    bob.append(&frame(&ClientMessage::Act {
        request: 3,
        action: vec![8],
    }));
    while !matches!(bob.wait_for_message(), ServerMessage::Event { event: RoomEvent::Game { ref data }, .. } if *data == [1, 8])
    {
    }
    for _ in 0..200 {
        ann.chat(ChatScope::Room, "!".repeat(490)).expect("said");
        bob.wait_for_message();
    }
    let received = bob.received();
    assert!(received > KEPT_BYTES + 8192);

    bob.cut(Cut::Reset);
    // If he resumed before the server noticed the cut, he would never have been absent.
    let is_gone = |message: &ServerMessage| {
        matches!(
            message,
            ServerMessage::Event {
                event: RoomEvent::Connection {
                    seat: 1,
                    connected: false
                },
                ..
            }
        )
    };
    ann.receive_where(WAIT_MAX, is_gone)
        .expect("the session lives")
        .expect("he is gone");
    let exact = bob
        .resume(None, received - KEPT_BYTES)
        .expect("the token is good");
    assert_eq!(exact.resuming_at, received - KEPT_BYTES, "so much is kept");
    let (mut lost, mut back) = (false, false);
    while !back {
        match bob.wait_for_message() {
            ServerMessage::Event {
                event: RoomEvent::Connection { seat: 1, connected },
                ..
            } => {
                (lost, back) = (lost || !connected, back || connected);
            }
            other => panic!("only what was missed comes anew, not {other:?}"),
        }
    }
    let received = bob.received();

    bob.cut(Cut::Reset);
    let gap = bob.resume(None, 0).expect("the token is good");
    assert!(gap.resuming_at >= received, "what was lost is not sent");
    let ServerMessage::Resync {
        snapshot: Some(snapshot),
    } = bob.wait_for_message()
    else {
        panic!("no Resync came first");
    };
    let view: ([Option<u8>; 9], u8) = codec::decode(&snapshot.view).expect("a view of tic-tac-toe");
    let mut cells = [None; 9];
    (cells[0], cells[8]) = (Some(0), Some(1));
    assert_eq!(view, (cells, 0));
    assert_eq!((snapshot.phase, snapshot.seat), (Phase::Playing, Some(1)));
    let names: Vec<_> = snapshot
        .seats
        .iter()
        .flatten()
        .map(|seat| (seat.name.as_str(), seat.connected))
        .collect();
    assert_eq!(names, [("Ann", true), ("Bob", true)]);
    ann.act(vec![4]).expect("a legal move");
    let ServerMessage::Event {
        number,
        event: RoomEvent::Game { data },
    } = bob.wait_for_message()
    else {
        panic!("nothing but the move comes after the Resync");
    };
    assert_eq!((number, data), (snapshot.event + 1, vec![0, 4]));
    server.expect_no_errors();
}

#[test]
fn a_resume_beyond_the_rooms_event_log_gets_one_snapshot() {
    let server = Server::start(&[]);
    let (mut ann, room) = ann_in_a_room(&server, "relay");
    let mut bob = server.client("Bob");
    bob.join_room(room, None).expect("a seat is free");
    bob.disconnect_abruptly();
    expect_connection(&mut ann, false);
    for _ in 0..50 {
        ann.act(vec![1; 8000]).expect("accepted");
        next_event(&mut ann);
    }
    let snapshot = loop {
        match bob
            .receive(WAIT_MAX)
            .expect("the session lives")
            .expect("in time")
        {
            ServerMessage::Resync {
                snapshot: Some(snapshot),
            } => break snapshot,
            // Output that was prepared for Bob before his absence was noticed.
            ServerMessage::Event {
                event: RoomEvent::Connection { .. },
                ..
            } => {}
            other => panic!("instead of a Resync: {other:?}"),
        }
    };
    assert!(snapshot.event > 50);
    ann.act(b"and now".to_vec()).expect("accepted");
    assert_eq!(next_event(&mut bob), (snapshot.event + 1, word(b"and now")));
    let counters = bob.counters();
    assert_eq!((counters.resumes, counters.gaps, counters.resyncs), (1, 0, 1));
    server.expect_no_errors();
}

/// Sends a resume on a new connection. Returns the connection and the answer.
fn show(server: &Server, token: Token, received: u64) -> (TcpStream, ServerMessage) {
    let mut stream = connect(server.game, None);
    stream
        .write_all(&resume_handshake(token, received))
        .expect("the server reads");
    let answer = read_handshake_reply(&mut stream).expect("an answer");
    (stream, answer)
}

#[track_caller]
fn expect_refusal(server: &Server, token: Token, received: u64, expected: ErrorCode) {
    let (_, answer) = show(server, token, received);
    let ServerMessage::Error { code, .. } = answer else {
        panic!("{token:?} at {received} was answered {answer:?}");
    };
    assert_eq!(code, expected, "{token:?} at {received}");
}

/// A player alone in a room sends a message and receives it, on its original connection.
struct Undisturbed(Client);

impl Undisturbed {
    fn enter(server: &Server) -> Self {
        let mut owner = server.client("Owner");
        owner
            .create_room(NewRoom::new("relay", "Alone"))
            .expect("a room is free");
        Self(owner)
    }

    fn check(&mut self) {
        self.0.act(b"I".to_vec()).expect("accepted");
        assert_eq!(next_event(&mut self.0).1, word(b"I"));
        assert_eq!(self.0.counters().resumes, 0, "the connection was lost");
    }
}

#[test]
fn a_token_with_any_wrong_byte_is_refused_and_affects_nobody() {
    let server = Server::start(&[]);
    let mut owner = Undisturbed::enter(&server);
    let other = server.client("Other");
    let token = owner.0.token();
    for index in 0..token.0.len() {
        for change in [1, 0x80, 0xff] {
            let mut wrong = token;
            wrong.0[index] ^= change;
            expect_refusal(&server, wrong, 0, ErrorCode::TokenUnknown);
        }
    }
    // Another player's record, or no record, with this player's secret.
    for place in [other.token().0[..4].to_vec(), vec![0xff; 4]] {
        let mut wrong = token;
        wrong.0[..4].copy_from_slice(&place);
        expect_refusal(&server, wrong, 0, ErrorCode::TokenUnknown);
    }
    expect_refusal(&server, Token([0; 16]), 0, ErrorCode::TokenUnknown);
    owner.check();
    server.expect_no_errors();
}

#[test]
fn the_token_of_an_ended_session_does_not_open_the_next_one() {
    let server = Server::start(&["--seat-grace-ms", "1000"]);
    let gone = server.client("Gone");
    let (gone_token, mut expired) = (gone.token(), server.client("Expired"));
    gone.goodbye().expect("said in order");
    let expired_token = expired.token();
    expired.disconnect_abruptly();
    eventually("the grace is over", || {
        matches!(
            show(&server, gone_token, 0).1,
            ServerMessage::Error {
                code: ErrorCode::TokenUnknown,
                ..
            }
        ) && server.status("players") == 0
    });
    // These players have the records of those that left.
    let mut owners = [Undisturbed::enter(&server), Undisturbed(server.client("Second"))];
    owners[1]
        .0
        .create_room(NewRoom::new("relay", "Alone"))
        .expect("a room is free");
    for token in [gone_token, expired_token] {
        expect_refusal(&server, token, 0, ErrorCode::TokenUnknown);
    }
    for owner in &mut owners {
        owner.check();
    }
    server.expect_no_errors();
}

#[test]
fn a_resume_that_claims_more_than_was_sent_is_refused_and_affects_nobody() {
    let server = Server::start(&[]);
    let mut owner = Undisturbed::enter(&server);
    owner.check();
    let (token, received) = (owner.0.token(), owner.0.session().received());
    for claimed in [received + 1, received + KEPT_BYTES, u64::MAX - 1, u64::MAX] {
        expect_refusal(&server, token, claimed, ErrorCode::Malformed);
        owner.check();
    }
    let received = owner.0.session().received();
    owner.0.disconnect_abruptly();
    eventually("the connection is found lost", || {
        server.handler_of("Owner").is_none()
    });
    expect_refusal(&server, token, received + 1000, ErrorCode::Malformed);
    owner.0.act(b"still I".to_vec()).expect("the session lives");
    let counters = owner.0.counters();
    assert_eq!((counters.resumes, counters.gaps, counters.resyncs), (1, 0, 0));
    server.expect_no_errors();
}

/// The rest of the connection: only the error that the session continues elsewhere.
#[track_caller]
fn expect_replaced(stream: TcpStream) {
    let rest = rest_of(stream);
    assert!(rest.len() == 1 && is_replaced(&rest[0]), "{rest:?}");
}

fn is_replaced(message: &ServerMessage) -> bool {
    matches!(
        message,
        ServerMessage::Error {
            code: ErrorCode::Replaced,
            ..
        }
    )
}

/// The rest of the connection: complete frames up to the end.
#[track_caller]
fn rest_of(mut stream: TcpStream) -> Vec<ServerMessage> {
    let mut rest = Vec::new();
    stream.set_nonblocking(false).expect("an option can be set");
    stream
        .set_read_timeout(Some(WAIT_MAX))
        .expect("an option can be set");
    stream.read_to_end(&mut rest).expect("the server closes in order");
    let (mut messages, mut parsed) = (Vec::new(), 0);
    while let Split::Frame { body, total } = split(&rest[parsed..], FRAME_BYTES_MAX) {
        messages.push(codec::decode(body).expect("a message"));
        parsed += total;
    }
    assert_eq!(parsed, rest.len(), "whole frames");
    messages
}

#[test]
fn a_newer_connection_takes_the_session_and_the_older_is_told() {
    let server = Server::start(&[]);
    let (mut ann, room) = ann_in_a_room(&server, "relay");
    let mut bob = bob_in_room(&server, room);
    for round in 0..40_u8 {
        let old = bob.cut(Cut::Abandon).expect("it was not ended");
        let Resumed { resuming_at, .. } = bob.resume(None, bob.received()).expect("the token is good");
        assert_eq!(resuming_at, bob.received());
        expect_replaced(old);
        ann.act(vec![round]).expect("accepted");
        let heard = bob.wait_for_message();
        let ServerMessage::Event { event, .. } = heard else {
            panic!("{heard:?}")
        };
        assert_eq!(event, word(&[round]));
        // No player saw him leave: there was always a connection.
        assert_eq!(next_event(&mut ann).1, word(&[round]));
    }
    server.expect_no_errors();
}

#[test]
fn a_handler_killed_while_it_yields_a_session_still_tells_its_client() {
    let server = Server::start(&[]);
    let mut random = Random::new(seed(), 0);
    let (mut ann, room) = ann_in_a_room(&server, "relay");
    let mut bob = bob_in_room(&server, room);
    let mut usual = Duration::from_micros(300);
    for round in 0..kills(100) {
        let holder = server.handler_of("Bob").expect("he is served");
        let old = bob.cut(Cut::Abandon).expect("it was not ended");
        let number = &round.to_le_bytes()[..];
        // This may be in transit to Bob when his handler is killed.
        ann.act(number.to_vec()).expect("accepted");
        let mut new = connect(server.game, None);
        let greeting = resume_handshake(bob.token, bob.received());
        let began = Instant::now();
        new.write_all(&greeting).expect("the server reads");
        // The handler yields somewhat after the middle of the time until the answer.
        let kill_at = usual.mul_f64(0.3 + random.below(600) as f64 / 1000.0);
        let is_killed = round % 3 != 0;
        if is_killed {
            while began.elapsed() < kill_at {
                std::hint::spin_loop();
            }
            send(holder, Signal::SIGKILL);
        }
        let resumed = read_handshake_reply(&mut new).expect("an answer");
        if !is_killed {
            usual = (usual * 3 + began.elapsed()) / 4;
        }
        let ServerMessage::Resumed {
            received,
            resuming_at,
        } = resumed
        else {
            panic!("{resumed:?}")
        };
        let last_words = rest_of(old);
        assert!(
            last_words.last().is_some_and(is_replaced),
            "round {round}, killed after {kill_at:?}: {last_words:?}"
        );
        bob.continue_on(new, received, resuming_at);
        let heard = bob.wait_for_message();
        let ServerMessage::Event { event, .. } = heard else {
            panic!("{heard:?}")
        };
        assert_eq!(event, word(number));
        // No player saw him leave: there was always a connection.
        assert_eq!(next_event(&mut ann).1, word(number), "round {round}");
    }
    assert!(server.status("takeovers_total") > 0);
    server.expect_no_errors();
}

#[test]
fn the_newest_of_many_connections_with_one_token_gets_the_session() {
    let server = Server::start(&[]);
    let mut owner = StreamClient::enter(server.game, "Owner");
    for _ in 0..15 {
        let old = owner.cut(Cut::Abandon).expect("it was not ended");
        // The order in which the connections were made counts.
        let mut streams: Vec<TcpStream> = (0..8).map(|_| connect(server.game, None)).collect();
        let greeting = resume_handshake(owner.token, owner.received());
        std::thread::scope(|scope| {
            for stream in &mut streams {
                scope.spawn(|| stream.write_all(&greeting).expect("the server reads"));
            }
        });
        let mut newest = streams.pop().expect("one of eight");
        let resumed = read_handshake_reply(&mut newest).expect("an answer");
        assert!(matches!(resumed, ServerMessage::Resumed { .. }), "{resumed:?}");
        expect_replaced(old);
        for mut stream in streams {
            match read_handshake_reply(&mut stream).expect("an answer") {
                ServerMessage::Resumed { .. } => expect_replaced(stream),
                ServerMessage::Error {
                    code: ErrorCode::Replaced,
                    ..
                } => {}
                other => panic!("an older connection was told {other:?}"),
            }
        }
        let ServerMessage::Resumed {
            received,
            resuming_at,
        } = resumed
        else {
            unreachable!()
        };
        owner.continue_on(newest, received, resuming_at);
        owner.append(&frame(&ClientMessage::Ping { nonce: 5 }));
        let pong = owner.wait_for_message();
        assert!(matches!(pong, ServerMessage::Pong { nonce: 5, .. }), "{pong:?}");
    }
    server.expect_no_errors();
}

#[test]
fn a_hung_handler_cannot_keep_a_session_from_a_newer_connection() {
    let server = Server::start(&[]);
    let mut owner = StreamClient::enter(server.game, "Owner");
    let handler = Handlers::of(&server).only();
    server.signal(handler, Signal::SIGSTOP);
    // It was sent while no connection was open.
    owner.append(&frame(&ClientMessage::Ping { nonce: 1 }));
    owner.write(usize::MAX);
    let old = owner.cut(Cut::Abandon).expect("it was not ended");
    owner.resume(None, owner.received()).expect("the token is good");
    expect_replaced(old);
    let pong = owner.wait_for_message();
    assert!(matches!(pong, ServerMessage::Pong { nonce: 1, .. }), "{pong:?}");
    assert_eq!(server.status("watchdog_kills_total"), 1);
}

#[test]
fn a_seat_is_kept_for_the_grace_period_and_freed_afterwards() {
    let server = Server::start(&["--seat-grace-ms", "2500"]);
    let mut ann = server.client("Ann");
    let room = NewRoom {
        settings: RoomSettings {
            seats: 2,
            ..RoomSettings::default()
        },
        ..NewRoom::new("relay", "Two")
    };
    let room = ann.create_room(room).expect("a room is free").room;
    let mut bob = server.client("Bob");
    bob.join_room(room, None).expect("a seat is free");
    let mut cid = server.client("Cid");
    let token = bob.token();
    bob.disconnect_abruptly();
    expect_connection(&mut ann, false);
    let full = cid.join_room(room, None).expect_err("both seats are taken");
    assert_eq!(full.reject_code(), Some(forkade_protocol::RejectCode::RoomFull));
    assert_eq!(next_event(&mut ann).1, RoomEvent::Left { seat: 1 });
    expect_refusal(&server, token, 0, ErrorCode::TokenUnknown);
    let Snapshot { seat, .. } = cid.join_room(room, None).expect("the seat is free again");
    assert_eq!(seat, Some(1));
    let gone = bob.receive(WAIT_MAX).expect_err("the session is over");
    assert_eq!(gone.error_code(), Some(ErrorCode::TokenUnknown));
    server.client("Bob").goodbye().expect("the name is free");
    server.expect_no_errors();
}

#[test]
fn each_short_outage_is_shown_to_the_room() {
    let server = Server::start(&[]);
    let (mut ann, room) = ann_in_a_room(&server, "relay");
    let mut bob = server.client("Bob");
    bob.join_room(room, None).expect("a seat is free");
    for _ in 0..5 {
        bob.disconnect_abruptly();
        expect_connection(&mut ann, false);
        eventually("Bob is back", || {
            bob.receive(Duration::from_millis(1)).expect("the session lives");
            bob.is_connected()
        });
        expect_connection(&mut ann, true);
    }
    server.expect_no_errors();
}
