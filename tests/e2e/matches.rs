//! Promise: a match follows its game's rules. It starts when all are ready, illegal actions are rejected with
//! the reason, and it can be watched, abandoned and repeated.

use crate::common::rooms::{event, rejection, table};
use crate::common::{Server, WAIT_MAX};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{Outcome, Phase, RejectCode, RoomEvent, RoomId, ServerMessage, Snapshot, codec};

/// The cells of a board, and the seat to move.
type Board = ([Option<u8>; 9], u8);

/// Two players in a match.
fn playing(server: &Server) -> (Client, Client, RoomId) {
    let (mut ann, mut bob, room) = table(server);
    ann.ready(true).expect("not yet started");
    bob.ready(true).expect("not yet started");
    for client in [&mut ann, &mut bob] {
        started(client);
    }
    (ann, bob, room)
}

fn started(client: &mut Client) -> Snapshot {
    let is_start = |message: &ServerMessage| matches!(message, ServerMessage::Started { .. });
    match client
        .receive_where(WAIT_MAX, is_start)
        .expect("the session lives")
    {
        Some(ServerMessage::Started { snapshot }) => snapshot,
        other => panic!("the match did not start, but {other:?}"),
    }
}

fn board(snapshot: &Snapshot) -> Board {
    codec::decode(&snapshot.view).expect("a board")
}

fn outcome(client: &mut Client) -> Outcome {
    event(client, |event| match event {
        RoomEvent::Finished { outcome } => Some(outcome.clone()),
        _ => None,
    })
}

#[test]
fn a_match_starts_when_all_seats_are_taken_and_ready() {
    let server = Server::start(&[]);
    let mut ann = server.client("Ann");
    let room = ann
        .create_room(NewRoom::new("tictactoe", "table"))
        .expect("a room is free");
    assert_eq!(
        (room.phase, room.seat, room.seats.len(), room.view.len()),
        (Phase::Waiting, Some(0), 2, 0)
    );
    ann.ready(true).expect("not yet started");
    assert_eq!(rejection(ann.act(vec![0])), RejectCode::NotPlaying, "ready alone");

    let mut bob = server.client("Bob");
    let joined = bob.join_room(room.room, None).expect("a seat is free");
    assert_eq!(
        joined.seats[0]
            .as_ref()
            .map(|seat| (seat.name.as_str(), seat.ready)),
        Some(("Ann", true))
    );
    ann.ready(false).expect("not yet started");
    bob.ready(true).expect("not yet started");
    assert_eq!(
        rejection(bob.act(vec![0])),
        RejectCode::NotPlaying,
        "the other is not ready any more"
    );
    ann.ready(true).expect("not yet started");

    for (seat, client) in [(0, &mut ann), (1, &mut bob)] {
        let snapshot = started(client);
        assert_eq!((snapshot.phase, snapshot.seat), (Phase::Playing, Some(seat)));
        assert!(
            snapshot.seats.iter().flatten().all(|seat| !seat.ready),
            "{snapshot:?}"
        );
        assert_eq!(board(&snapshot), ([None; 9], 0));
        assert_eq!(rejection(client.ready(true)), RejectCode::AlreadyStarted);
    }
    let said = |event: &RoomEvent| match event {
        RoomEvent::Ready { seat, ready } => Some((*seat, *ready)),
        _ => None,
    };
    // The snapshot contained everything that happened before he joined.
    let heard: Vec<_> = std::iter::repeat_with(|| event(&mut bob, said)).take(3).collect();
    assert_eq!(heard, [(0, false), (1, true), (0, true)]);
}

#[test]
fn what_the_rules_forbid_is_rejected_and_changes_nothing() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, room) = playing(&server);
    assert_eq!(rejection(bob.act(vec![0])), RejectCode::NotYourTurn);
    ann.act(vec![4]).expect("legal");
    assert_eq!(rejection(ann.act(vec![0])), RejectCode::NotYourTurn);
    for (action, expected) in [
        (vec![4], RejectCode::IllegalAction),
        (vec![9], RejectCode::IllegalAction),
        (vec![255], RejectCode::IllegalAction),
        (vec![], RejectCode::BadAction),
        (vec![0, 0], RejectCode::BadAction),
        (vec![0; 8000], RejectCode::BadAction),
    ] {
        assert_eq!(rejection(bob.act(action.clone())), expected, "{action:?}");
    }
    let mut watcher = server.client("Watcher");
    let seen = watcher.spectate(room, None).expect("spectators are allowed");
    let mut cells = [None; 9];
    cells[4] = Some(0);
    assert_eq!(board(&seen), (cells, 1));
    bob.act(vec![0]).expect("legal");
}

#[test]
fn a_running_match_cannot_be_joined() {
    let server = Server::start(&[]);
    let (_ann, _bob, room) = playing(&server);
    let mut carol = server.client("Carol");
    assert_eq!(rejection(carol.join_room(room, None)), RejectCode::AlreadyStarted);
    carol.spectate(room, None).expect("but spectators are allowed");
}

#[test]
fn a_spectator_sees_everything_and_can_do_nothing() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, room) = table(&server);
    let mut watcher = server.client("Watcher");
    let seen = watcher.spectate(room, None).expect("spectators are allowed");
    assert_eq!(
        (seen.seat, seen.spectators, seen.phase),
        (None, 1, Phase::Waiting)
    );
    assert_eq!(rejection(watcher.ready(true)), RejectCode::Spectating);
    assert_eq!(rejection(watcher.rematch()), RejectCode::Spectating);
    ann.ready(true).expect("not yet started");
    bob.ready(true).expect("not yet started");
    let start = started(&mut watcher);
    assert_eq!((start.seat, board(&start)), (None, ([None; 9], 0)));
    assert_eq!(rejection(watcher.act(vec![0])), RejectCode::Spectating);
    ann.act(vec![8]).expect("legal");
    let placed = event(&mut watcher, |event| match event {
        RoomEvent::Game { data } => Some(codec::decode::<(u8, u8)>(data).expect("a placement")),
        _ => None,
    });
    assert_eq!(placed, (0, 8));
}

#[test]
fn a_match_can_be_repeated_once_it_is_over() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, _) = playing(&server);
    assert_eq!(rejection(ann.rematch()), RejectCode::NotOver);
    for _ in 0..3 {
        for (turn, cell) in [4_u8, 0, 1, 2, 7].into_iter().enumerate() {
            let mover = if turn % 2 == 0 { &mut ann } else { &mut bob };
            mover.act(vec![cell]).expect("legal");
        }
        for client in [&mut ann, &mut bob] {
            assert_eq!(outcome(client), Outcome::Won { seats: vec![0] });
            assert_eq!(rejection(client.act(vec![8])), RejectCode::NotPlaying);
        }
        ann.rematch().expect("it is over");
        bob.rematch().expect("it is over");
        for client in [&mut ann, &mut bob] {
            assert_eq!(board(&started(client)), ([None; 9], 0));
        }
    }
}

#[test]
fn a_full_board_is_a_draw() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, _) = playing(&server);
    for (turn, cell) in [0_u8, 1, 2, 4, 3, 5, 7, 6, 8].into_iter().enumerate() {
        let mover = if turn % 2 == 0 { &mut ann } else { &mut bob };
        mover.act(vec![cell]).expect("legal");
    }
    assert_eq!(
        (outcome(&mut ann), outcome(&mut bob)),
        (Outcome::Draw, Outcome::Draw)
    );
}

#[test]
fn a_player_that_leaves_a_match_loses_it_and_frees_the_seat() {
    let server = Server::start(&[]);
    let (mut ann, bob, room) = playing(&server);
    bob.goodbye().expect("said in order");
    assert_eq!(outcome(&mut ann), Outcome::Won { seats: vec![0] });
    let mut carol = server.client("Carol");
    let joined = carol.join_room(room, None).expect("the seat is free");
    assert_eq!((joined.seat, joined.phase), (Some(1), Phase::Finished));
    carol.ready(true).expect("no match is on");
    ann.rematch().expect("it is over");
    assert_eq!(board(&started(&mut carol)), ([None; 9], 0));
}
