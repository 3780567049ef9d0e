//! Promise: a player that repeatedly changes shared state is refused with a typed error. The refusal does not count
//! towards the limit, and ordinary play never reaches it.

use crate::common::rooms::{event, message, public, rejection, room_of, start};
use crate::common::text_client::TextClient;
use crate::common::{Server, eventually};
use forkade_protocol::client::{ClientError, NewRoom};
use forkade_protocol::{RejectCode, RoomEvent, ServerMessage, codec};

/// A player may make five requests, and no more within the time of any test.
const FIVE: [&str; 4] = ["--requests-burst", "5", "--requests-per-minute", "1"];
/// A player may make one request.
const ONE: [&str; 4] = ["--requests-burst", "1", "--requests-per-minute", "1"];

/// Repeats a request until it is refused. Returns the number of accepted ones.
fn until_too_fast(mut ask: impl FnMut() -> Result<(), ClientError>) -> usize {
    for done in 0..100 {
        match ask() {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.reject_code(), Some(RejectCode::TooFast), "{error}");
                assert!(error.to_string().contains("wait"), "{error}");
                return done;
            }
        }
    }
    panic!("never refused");
}

#[test]
fn every_request_that_others_see_has_a_rate() {
    let server = Server::start(&FIVE);
    let (mut ann, [mut bob], room) = room_of(&server, "tictactoe", public(), ["Bob"]);
    // Bob has joined, which was the first of his five requests, and Ann has created the room.
    let toggles = until_too_fast(|| {
        bob.ready(true)?;
        bob.ready(false)
    });
    assert_eq!(toggles, 4);
    // The limit counts all kinds of requests together.
    bob.leave().expect("a player that joined can leave");
    assert_eq!(rejection(bob.join_room(room, None)), RejectCode::TooFast);
    assert_eq!(rejection(bob.spectate(room, None)), RejectCode::TooFast);
    assert_eq!(
        rejection(bob.quick_match("tictactoe", Vec::new())),
        RejectCode::TooFast
    );
    assert_eq!(
        rejection(bob.create_room(NewRoom::new("relay", "mine"))),
        RejectCode::TooFast
    );
    assert_eq!(rejection(bob.join_by_invite("0", false)), RejectCode::TooFast);
    // Each player has its own limit.
    assert_eq!(until_too_fast(|| ann.configure(public())), 4);
    assert_eq!(rejection(ann.kick(1, "Bob")), RejectCode::TooFast);
    assert_eq!(rejection(ann.hand_over(1, "Bob")), RejectCode::TooFast);
    assert_eq!(rejection(ann.invite(true)), RejectCode::TooFast);
    let mut cyd = server.client("Cyd");
    let visits = until_too_fast(|| {
        cyd.join_room(room, None)?;
        cyd.leave()
    });
    assert_eq!(visits, 5);
    let mut dan = server.client("Dan");
    let rooms = until_too_fast(|| {
        dan.create_room(NewRoom::new("relay", "mine"))?;
        dan.leave()
    });
    assert_eq!(rooms, 5);
    server.expect_no_errors();
}

#[test]
fn a_repeated_ready_counts_towards_the_rate() {
    let server = Server::start(&FIVE);
    let (mut ann, [_bob], _) = room_of(&server, "tictactoe", public(), ["Bob"]);
    // The first one changes state, and is free.
    assert_eq!(until_too_fast(|| ann.ready(true)), 5);
    server.expect_no_errors();
}

#[test]
fn name_changes_in_text_mode_have_a_rate() {
    let server = Server::start(&FIVE);
    let mut text_player = TextClient::connect(&server);
    text_player.type_line("");
    text_player.read_until("Welcome");
    for number in 0..5 {
        text_player.type_line(&format!("name Eve {number}"));
        text_player.read_until(&format!("You are called Eve {number} now."));
    }
    text_player.type_line("name Eve 6");
    text_player.read_until("No: you may do this 1 times a minute; wait");
}

#[test]
fn a_rejected_request_does_not_count_towards_the_rate() {
    let server = Server::start(&FIVE);
    let (mut ann, [mut bob], room) = room_of(&server, "tictactoe", public(), ["Bob"]);
    for _ in 0..4 {
        assert_eq!(rejection(bob.kick(0, "Ann")), RejectCode::NotOwner);
        assert_eq!(rejection(bob.join_room(room, None)), RejectCode::AlreadyInRoom);
        assert_eq!(rejection(ann.kick(0, "Ann")), RejectCode::NoSuchSeat);
    }
    assert_eq!(until_too_fast(|| ann.configure(public())), 4);
}

#[test]
fn a_new_handler_or_connection_does_not_reset_the_rate() {
    let server = Server::start(&FIVE);
    let (mut ann, [], _) = room_of(&server, "relay", public(), []);
    assert_eq!(until_too_fast(|| ann.configure(public())), 4);
    let handler = server.handler_of("Ann").expect("she has one");
    server.kill(handler);
    eventually("another goes on", || {
        server.handler_of("Ann").is_some_and(|other| other != handler)
    });
    assert_eq!(rejection(ann.configure(public())), RejectCode::TooFast);
    ann.disconnect_abruptly();
    assert_eq!(rejection(ann.configure(public())), RejectCode::TooFast);
    assert_eq!(ann.counters().resumes, 1);
}

#[test]
fn the_rate_budget_refills_with_time() {
    let server = Server::start(&["--requests-burst", "1", "--requests-per-minute", "120"]);
    let (mut ann, [], _) = room_of(&server, "relay", public(), []);
    eventually("half a second has passed", || ann.configure(public()).is_ok());
}

#[test]
fn ordinary_play_never_reaches_the_rate() {
    let server = Server::start(&ONE);
    let (mut ann, [mut bob], _) = room_of(&server, "tictactoe", public(), ["Bob"]);
    start(&mut [&mut ann, &mut bob]);
    for _ in 0..30 {
        for (cell, is_anns) in [(0_u8, true), (3, false), (1, true), (4, false), (2, true)] {
            let player = if is_anns { &mut ann } else { &mut bob };
            player
                .act(codec::encode(&cell).expect("a cell"))
                .expect("it is free");
        }
        for client in [&mut ann, &mut bob] {
            event(client, |event| {
                matches!(event, RoomEvent::Finished { .. }).then_some(())
            });
            client.rematch().expect("no rate");
        }
        for client in [&mut ann, &mut bob] {
            message(client, |message| {
                matches!(message, ServerMessage::Started { .. }).then_some(())
            });
        }
    }
    server.expect_no_errors();
}
