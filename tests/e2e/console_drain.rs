//! Promise: a draining server accepts no new players, does not disturb those it has, and stops cleanly when
//! its matches have ended.

use crate::common::operator::{Operator, one};
use crate::common::rooms::{message, rejection, table};
use crate::common::{Server, WAIT_MAX, eventually, patient};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{ErrorCode, RejectCode, RoomEvent, ServerMessage, codec};
use serde_json::Value;

fn playing(server: &Server) -> (Client, Client) {
    let (mut ann, mut bob, _) = table(server);
    ann.ready(true).expect("not yet started");
    bob.ready(true).expect("not yet started");
    (ann, bob)
}

fn mark(client: &mut Client, cell: u8) {
    client
        .act(codec::encode(&cell).expect("a cell"))
        .expect("it is free");
}

fn newcomer(server: &Server) -> Option<ErrorCode> {
    let refused = Client::connect(server.game, "Newcomer", patient());
    refused.err().and_then(|error| error.error_code())
}

#[test]
fn a_draining_server_waits_for_matches_and_resuming_players() {
    let mut server = Server::start(&[]);
    let (mut ann, mut bob) = playing(&server);
    let mut operator = Operator::new(&server);
    assert_eq!(operator.ask("drain"), ["OK"]);
    let status = operator.ask_json("status");
    assert_eq!(
        (&status["draining"], &status["drain_seconds_left"]),
        (&true.into(), &Value::Null)
    );
    assert_eq!(newcomer(&server), Some(ErrorCode::ShuttingDown));
    // Existing players are not affected by a lost connection, a killed handler or a killed ticker.
    bob.disconnect_abruptly();
    bob.ping().expect("it resumes by itself");
    server.kill(server.handler_of("Ann").expect("she has one"));
    let ticker = one(&operator.ask_json("processes"), "role", "ticker".into())["pid"].as_u64();
    server.kill(ticker.and_then(|pid| u32::try_from(pid).ok()).expect("a pid"));
    for (cell, player) in [(0, 0), (3, 1), (1, 0), (4, 1), (2, 0)] {
        mark(if player == 0 { &mut ann } else { &mut bob }, cell);
    }
    for client in [&mut ann, &mut bob] {
        let is_over = |message: &ServerMessage| {
            matches!(
                message,
                ServerMessage::Event {
                    event: RoomEvent::Finished { .. },
                    ..
                }
            )
        };
        client
            .receive_where(WAIT_MAX, is_over)
            .expect("it lives")
            .expect("the match is over");
        let is_told = |message: &ServerMessage| matches!(message, ServerMessage::ShuttingDown { .. });
        let told = client.receive_where(WAIT_MAX, is_told);
        assert!(matches!(told, Ok(Some(_)) | Err(_)), "{told:?}");
    }
    assert_eq!(operator.reply(), ["ERR the server is stopping"]);
    assert!(server.wait().success());
    server.expect_logged("drained");
}

#[test]
fn no_match_starts_during_a_drain() {
    let mut server = Server::start(&[]);
    let (mut ann, mut bob) = playing(&server);
    let (mut cyd, mut dan) = (server.client("Cyd"), server.client("Dan"));
    let room = cyd
        .create_room(NewRoom::new("tictactoe", "late"))
        .expect("a room is free")
        .room;
    dan.join_room(room, None).expect("a seat is free");
    cyd.ready(true).expect("not yet started");
    let mut operator = Operator::new(&server);
    assert_eq!(operator.ask("drain"), ["OK"]);
    assert_eq!(rejection(dan.ready(true)), RejectCode::Draining);
    cyd.ready(false).expect("that begins nothing");
    dan.leave().expect("in a room");
    for game in ["tictactoe", "relay"] {
        let refused = dan.create_room(NewRoom::new(game, "mine"));
        assert_eq!(rejection(refused), RejectCode::Draining, "{game}");
    }
    assert_eq!(
        rejection(dan.quick_match("connect4", Vec::new())),
        RejectCode::Draining
    );
    for (cell, player) in [(0, 0), (3, 1), (1, 0), (4, 1)] {
        mark(if player == 0 { &mut ann } else { &mut bob }, cell);
    }
    // Bob requests a rematch as soon as this match is over: the server does not wait for that.
    mark(&mut ann, 2);
    if let Err(error) = bob.rematch() {
        let is_refused = error.reject_code() == Some(RejectCode::Draining);
        assert!(is_refused || error.reject_code().is_none(), "{error}");
    } else {
        panic!("a match was to begin");
    }
    assert!(server.wait().success());
}

#[test]
fn matches_start_again_after_a_drain_is_cancelled() {
    let server = Server::start(&[]);
    let (_ann, _bob) = playing(&server);
    let mut cyd = server.client("Cyd");
    let mut operator = Operator::new(&server);
    assert_eq!(operator.ask("drain"), ["OK"]);
    let table = || NewRoom::new("tictactoe", "late");
    assert_eq!(rejection(cyd.create_room(table())), RejectCode::Draining);
    assert_eq!(operator.ask("drain off"), ["OK"]);
    cyd.create_room(table()).expect("a room is free");
    cyd.ready(true).expect("not yet started");
}

/// The server tells the player something that contains this.
#[track_caller]
fn expect_told(client: &mut Client, part: &str) {
    message(client, |message| match message {
        ServerMessage::Chat { text, .. } => text.contains(part).then_some(()),
        _ => None,
    });
}

#[test]
fn a_drain_ends_at_its_deadline_and_can_be_cancelled() {
    let mut server = Server::start(&[]);
    let (mut ann, _bob) = playing(&server);
    let mut operator = Operator::new(&server);
    assert_eq!(operator.ask("drain 3600"), ["OK"]);
    let left = operator.ask_json("status")["drain_seconds_left"]
        .as_f64()
        .expect("a number");
    assert!((3000.0..=3600.0).contains(&left), "{left}");
    expect_told(
        &mut ann,
        "when the matches under way have ended, in 60 minutes at the latest",
    );
    assert_eq!(newcomer(&server), Some(ErrorCode::ShuttingDown));
    assert_eq!(operator.ask("drain off"), ["OK"]);
    expect_told(&mut ann, "does not stop");
    assert_eq!(operator.ask_json("status")["draining"], false);
    assert_eq!(newcomer(&server), None);
    assert_eq!(operator.ask("drain off"), ["ERR the server does not drain"]);
    mark(&mut ann, 4);
    assert_eq!(operator.ask("drain 1"), ["OK"]);
    assert_eq!(operator.reply(), ["ERR the server is stopping"]);
    assert!(server.wait().success());
}

#[test]
fn a_server_without_matches_drains_at_once() {
    let mut server = Server::start(&[]);
    let mut ann = server.client("Ann");
    ann.create_room(NewRoom::new("tictactoe", "table"))
        .expect("a room is free");
    let mut operator = Operator::new(&server);
    assert_eq!(operator.ask("drain"), ["OK"]);
    assert!(server.wait().success());
    eventually("the players are told", || ann.receive(WAIT_MAX).is_err());
}
