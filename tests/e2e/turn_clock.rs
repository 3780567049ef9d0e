//! Promise: with a turn clock, no player waits longer than its limit for a move. A clock never runs out
//! early, whatever process dies, and the game decides what a timeout means.

use std::time::{Duration, Instant};

use crate::common::Server;
use crate::common::rooms::{event, expect_event, message, picture, public, rejection, room_of};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{Outcome, RejectCode, RoomEvent, RoomSettings, ServerMessage, Snapshot, Turn, codec};

fn with_clock(seconds: u16) -> RoomSettings {
    RoomSettings {
        seats: 2,
        turn_seconds: seconds,
        ..public()
    }
}

/// Ann and Bob in a match of this game.
fn playing(server: &Server, game: &str, seconds: u16) -> (Client, Client, Snapshot) {
    let (mut ann, [mut bob], _) = room_of(server, game, with_clock(seconds), ["Bob"]);
    ann.ready(true).expect("not yet started");
    assert_eq!(picture(&mut ann).turn, None, "no turn before the match");
    bob.ready(true).expect("not yet started");
    let started = |client: &mut Client| {
        message(client, |message| match message {
            ServerMessage::Started { snapshot } => Some(snapshot.clone()),
            _ => None,
        })
    };
    started(&mut ann);
    let snapshot = started(&mut bob);
    (ann, bob, snapshot)
}

fn place(client: &mut Client, cell: u8) {
    client
        .act(codec::encode(&cell).expect("a number"))
        .expect("a free cell");
}

fn outcome(client: &mut Client) -> Outcome {
    event(client, |event| match event {
        RoomEvent::Finished { outcome } => Some(outcome.clone()),
        _ => None,
    })
}

/// The seats whose turns have timed out, up to the end of the match or `wanted` of them.
fn timed_out(client: &mut Client) -> u8 {
    event(client, |event| match event {
        RoomEvent::TurnTimedOut { seat } => Some(*seat),
        _ => None,
    })
}

#[test]
fn a_turn_timeout_loses_tic_tac_toe_and_connect_four() {
    let server = Server::start(&[]);
    for game in ["tictactoe", "connect4"] {
        let begun = Instant::now();
        let (mut ann, mut bob, snapshot) = playing(&server, game, 1);
        let Turn { seat, milliseconds } = snapshot.turn.expect("a clock is running");
        assert!(
            seat == 0 && (1..=1000).contains(&milliseconds),
            "{seat}, {milliseconds}"
        );
        for client in [&mut ann, &mut bob] {
            assert_eq!(timed_out(client), 0);
            assert_eq!(outcome(client), Outcome::Won { seats: vec![1] });
        }
        assert!(begun.elapsed() >= Duration::from_secs(1), "early");
        assert_eq!(picture(&mut ann).turn, None, "no turn after the match");
        ann.goodbye().expect("the server lives");
        bob.goodbye().expect("the server lives");
        crate::common::eventually("both are gone", || server.status("players") == 0);
    }
    server.expect_no_errors();
}

#[test]
fn the_clock_restarts_with_each_turn() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, _) = playing(&server, "tictactoe", 3600);
    for (turn, cell) in [4, 0, 8].into_iter().enumerate() {
        let (mover, next) = if turn % 2 == 0 {
            (&mut ann, 1)
        } else {
            (&mut bob, 0)
        };
        place(mover, cell);
        for client in [&mut ann, &mut bob] {
            expect_event(
                client,
                &RoomEvent::Turn {
                    seat: next,
                    milliseconds: 3_600_000,
                },
            );
        }
    }
    // A request that changes nothing starts no turn.
    rejection(ann.act(codec::encode(&1_u8).expect("a number")));
    let left = picture(&mut bob).turn.expect("a clock is running");
    assert_eq!(left.seat, 1);
    assert!((3_500_000..=3_600_000).contains(&left.milliseconds), "{left:?}");
}

#[test]
fn a_turn_timeout_passes_the_turn_in_a_game_that_continues() {
    let server = Server::start(&[]);
    let begun = Instant::now();
    let (mut ann, mut bob, _) = playing(&server, "eights", 1);
    // No player acts; the timeout draws and passes for the seat to move.
    for turn in 0..3_u8 {
        let (seat, next) = (turn % 2, 1 - turn % 2);
        for client in [&mut ann, &mut bob] {
            assert_eq!(timed_out(client), seat);
            let drew = codec::encode(&(1_u8, seat)).expect("numbers");
            let passed = codec::encode(&(3_u8, seat, next)).expect("numbers");
            expect_event(client, &RoomEvent::Game { data: drew });
            expect_event(client, &RoomEvent::Game { data: passed });
            expect_event(
                client,
                &RoomEvent::Turn {
                    seat: next,
                    milliseconds: 1000,
                },
            );
        }
    }
    assert!(begun.elapsed() >= Duration::from_secs(3), "early");
    server.expect_no_errors();
}

#[test]
fn an_absent_player_gets_no_extra_time() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, _) = playing(&server, "tictactoe", 1);
    ann.disconnect_abruptly();
    assert_eq!(timed_out(&mut bob), 0);
    assert_eq!(outcome(&mut bob), Outcome::Won { seats: vec![1] });
    assert_eq!(timed_out(&mut ann), 0, "and is told coming back");
}

#[test]
fn a_turn_times_out_although_the_ticker_dies_repeatedly() {
    let server = Server::start(&[]);
    let begun = Instant::now();
    let (mut ann, _bob, _) = playing(&server, "tictactoe", 1);
    for _ in 0..3 {
        if let Some(ticker) = process_of(&server, "ticker") {
            server.kill(ticker);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(timed_out(&mut ann), 0);
    assert!(begun.elapsed() >= Duration::from_secs(1), "early");
}

fn process_of(server: &Server, role: &str) -> Option<u32> {
    let processes = server.ask_json("processes");
    let found = processes
        .as_array()
        .expect("a list")
        .iter()
        .find(|process| process["role"] == role)?;
    found["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
}

#[test]
fn a_clock_can_be_set_only_between_matches_of_games_with_turns() {
    let server = Server::start(&[]);
    let mut cyd = server.client("Cyd");
    let wish = NewRoom {
        settings: with_clock(10),
        ..NewRoom::new("relay", "talk")
    };
    assert_eq!(rejection(cyd.create_room(wish)), RejectCode::BadSettings);
    let (mut ann, mut bob, _) = playing(&server, "tictactoe", 3600);
    for seconds in [0, 1, 3599] {
        assert_eq!(
            rejection(ann.configure(with_clock(seconds))),
            RejectCode::AlreadyStarted
        );
    }
    bob.leave().expect("in a room");
    let room = picture(&mut ann).room;
    ann.configure(with_clock(1)).expect("the match is over");
    assert_eq!(picture(&mut ann).turn, None);
    bob.join_room(room, None).expect("a seat is free");
    ann.rematch().expect("the match is over");
    bob.ready(true).expect("not yet started");
    assert_eq!(timed_out(&mut bob), 0);
    assert_eq!(outcome(&mut ann), Outcome::Won { seats: vec![0] }, "the first");
    assert_eq!(outcome(&mut ann), Outcome::Won { seats: vec![1] }, "the second");
}
