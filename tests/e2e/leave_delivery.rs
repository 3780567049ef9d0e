//! Promise: a player that leaves a room first gets all earlier events, also in text mode, and however little
//! output space is free.

use crate::harness::{Actor, World};
use forkade::limits::FRAME_TOTAL_BYTES_MAX;
use forkade::testing::frontends::dispatch::FrameOutcome;
use forkade::testing::state::layout::Capacity;
use forkade_protocol::{ChatScope, ClientMessage, RoomId};

/// The id of the first room that is created.
const ROOM: RoomId = RoomId(1 << 32);

/// Ann, in text mode, in a room with Bob.
fn room_with_typist() -> (Actor, Actor) {
    let world = World::new(Capacity {
        players: 4,
        rooms: 4,
        keepers: 1,
    });
    let mut ann = Actor::connect(world, 0);
    ann.send(b"\r\n");
    ann.process_handshake();
    types(&mut ann, "name Ann");
    types(&mut ann, "create tictactoe");
    let mut bob = Actor::connect_as(world, 1, "Bob");
    bob.request(&ClientMessage::JoinRoom {
        request: 1,
        room: ROOM,
        passcode: None,
    });
    while ann.handle() == FrameOutcome::Handled {}
    (ann, bob)
}

fn types(actor: &mut Actor, line: &str) {
    actor.send(format!("{line}\r\n").as_bytes());
    while actor.handle() == FrameOutcome::Handled {}
}

#[test]
fn a_text_player_that_leaves_first_gets_all_earlier_events() {
    let (mut ann, mut bob) = room_with_typist();
    // Nothing is sent until the output has space for an answer but not for an event with everything that may
    // follow it.
    while ann.session.output_space() >= 2 * FRAME_TOTAL_BYTES_MAX as u64 {
        types(&mut ann, "help");
    }
    assert!(ann.session.output_space() >= FRAME_TOTAL_BYTES_MAX as u64);
    bob.request(&ClientMessage::Chat {
        request: 2,
        scope: ChatScope::Room,
        text: "farewell".into(),
    });
    let mut shown = String::new();
    types(&mut ann, "leave");
    while !shown.contains("You are back in the lobby.") {
        let more = ann.terminal_output();
        assert!(!more.is_empty(), "nothing comes any more, after {shown}");
        shown.push_str(&more);
        while ann.handle() == FrameOutcome::Handled {}
    }
    let said = shown.find("Bob says: farewell").expect("she hears it");
    assert!(said < shown.find("You are back").expect("it is there"));
}
