//! Promise: `Look` returns the room's state as seen from the player's own seat, and does not change which
//! events are delivered.

use crate::common::{Server, WAIT_MAX};
use forkade::games::eights::{Action, Table};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{Phase, RejectCode, RoomEvent, RoomSettings, ServerMessage, codec};

fn table(client: &mut Client) -> Table {
    let seen = client.look().expect("the client is in a room");
    codec::decode(&seen.view).expect("a view of eights")
}

#[test]
fn look_shows_a_player_only_its_own_hand() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, mut eve) = (server.client("Ann"), server.client("Bob"), server.client("Eve"));
    let settings = RoomSettings {
        seats: 2,
        ..RoomSettings::default()
    };
    let room = NewRoom {
        settings,
        ..NewRoom::new("eights", "cards")
    };
    let room = ann.create_room(room).expect("a room is free").room;
    let early = ann.look().expect("she is there");
    assert!(early.view.is_empty(), "there is no match yet");
    bob.join_room(room, None).expect("a seat is free");
    eve.spectate(room, None).expect("spectators are allowed");
    for player in [&mut ann, &mut bob] {
        player.ready(true).expect("the match has not begun");
    }
    let before = [&mut ann, &mut bob, &mut eve].map(table);
    assert_eq!(
        [before[0].seat, before[1].seat, before[2].seat],
        [Some(0), Some(1), None]
    );
    assert!(!before[0].hand.is_empty() && !before[1].hand.is_empty() && before[2].hand.is_empty());
    assert_ne!(before[0].hand, before[1].hand);

    let draw = codec::encode(&Action::Draw).expect("an action");
    ann.act(draw).expect("there are cards to draw");
    let after = [&mut ann, &mut bob, &mut eve].map(table);
    assert_eq!(after[0].hand.len(), before[0].hand.len() + 1);
    assert_eq!(after[1].hand, before[1].hand);
    assert!(after[2].hand.is_empty());
    assert_eq!(after[1].counts, after[0].counts);
}

#[test]
fn look_does_not_suppress_events_that_its_view_contains() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let room = NewRoom::new("relay", "talk");
    let room = ann.create_room(room).expect("a room is free").room;
    bob.join_room(room, None).expect("a seat is free");
    for number in 0..100_u8 {
        ann.act(vec![number]).expect("relay takes all");
        let seen = bob.look().expect("he is there");
        assert_eq!((seen.phase, seen.seat), (Phase::Playing, Some(1)));
        assert!(seen.event > u64::from(number), "Ann's move was accepted before");
    }
    let relayed = |message: &ServerMessage| match message {
        ServerMessage::Event {
            event: RoomEvent::Game { data },
            ..
        } => data.last().copied(),
        _ => None,
    };
    for number in 0..100_u8 {
        let heard = bob.receive_where(WAIT_MAX, |message| relayed(message).is_some());
        let heard = heard.expect("the session lives").expect("it comes");
        assert_eq!(relayed(&heard), Some(number));
    }
    assert_eq!(bob.counters().resyncs, 0);
}

#[test]
fn look_outside_a_room_is_rejected() {
    let server = Server::start(&[]);
    let mut ann = server.client("Ann");
    let error = ann.look().expect_err("she is in no room");
    assert_eq!(error.reject_code(), Some(RejectCode::NotInRoom));
    ann.create_room(NewRoom::new("tictactoe", "for a moment"))
        .expect("a room is free");
    ann.look().expect("she is in a room");
    ann.leave().expect("she may");
    let error = ann.look().expect_err("she has left");
    assert_eq!(error.reject_code(), Some(RejectCode::NotInRoom));
}
