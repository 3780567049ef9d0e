//! Promise: players meet in rooms and play, each served by a process of its own.

mod common;

use common::{PATIENCE, Server};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{Outcome, Phase, RoomEvent, ServerMessage};

/// Waits for the next event that `wanted` picks from.
fn event<T>(client: &mut Client, wanted: impl Fn(&RoomEvent) -> Option<T>) -> T {
    let is_wanted = |message: &ServerMessage| matches!(message, ServerMessage::Event { event, .. } if wanted(event).is_some());
    match client
        .receive_where(PATIENCE, is_wanted)
        .expect("the session lives")
    {
        Some(ServerMessage::Event { event, .. }) => wanted(&event).expect("it was picked"),
        other => panic!("no such event, but {other:?}"),
    }
}

fn started(client: &mut Client) {
    let is_start = |message: &ServerMessage| matches!(message, ServerMessage::Started { .. });
    let message = client
        .receive_where(PATIENCE, is_start)
        .expect("the session lives");
    assert!(matches!(message, Some(ServerMessage::Started { snapshot }) if snapshot.phase == Phase::Playing));
}

#[test]
fn two_players_play_a_match_to_its_end() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let room = ann
        .create_room(NewRoom::new("tictactoe", "The corner"))
        .expect("a room is free")
        .room;
    let joined = bob.join_room(room, None).expect("a seat is free");
    assert_eq!(joined.seat, Some(1));
    ann.ready(true).expect("not yet started");
    bob.ready(true).expect("not yet started");
    started(&mut ann);
    started(&mut bob);
    for (turn, cell) in [0_u8, 3, 1, 4, 2].into_iter().enumerate() {
        let mover = if turn % 2 == 0 { &mut ann } else { &mut bob };
        mover.act(vec![cell]).expect("a legal move");
    }
    for client in [&mut ann, &mut bob] {
        let outcome = event(client, |event| match event {
            RoomEvent::Finished { outcome } => Some(outcome.clone()),
            _ => None,
        });
        assert_eq!(outcome, Outcome::Won { seats: vec![0] });
    }
    ann.goodbye().expect("said in order");
    bob.goodbye().expect("said in order");
}
