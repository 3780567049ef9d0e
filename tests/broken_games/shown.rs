//! Games that end the process in which they are to show their match.

use forkade_protocol::client::NewRoom;
use forkade_protocol::{ClientError, RoomSettings, codec};

use crate::common::control_pair::ControlPair;
use crate::common::eventually;
use crate::common::text_client::TextClient;
use crate::games::{Shows, Way};
use crate::{expect_logged, start};

fn sum(event_or_view: &[u8]) -> u32 {
    let (sum, _): (u32, (Shows, Way)) = codec::decode(event_or_view).expect("a sum");
    sum
}

fn room(fault: (Shows, Way)) -> NewRoom {
    NewRoom {
        settings: RoomSettings {
            options: codec::encode(&fault).expect("encodes"),
            ..RoomSettings::default()
        },
        ..NewRoom::new("unseen", "dark room")
    }
}

/// Ann has a client program, Bob is at a terminal. What both see ends the process that shows it.
fn expect_room_blamed(fault: (Shows, Way)) {
    let server = start();
    let control_pair = ControlPair::start(&server);
    let mut ann = server.client("Ann");
    let mut bob = {
        let mut bob = TextClient::connect(&server);
        bob.type_line("name Bob");
        bob.read_until("You are called Bob now.");
        bob
    };
    let joined = ann.create_room(room(fault)).expect("a room is free");
    assert_eq!(sum(&joined.view), 0, "there is nothing wrong yet");
    let number = (joined.room.0 & u64::from(u32::MAX)) + 1;
    bob.type_line(&format!("join {number}"));
    let room_as_seen = bob.read_until("the sum of Ann is 0\r\n> ");
    let (shows, way) = fault;
    assert!(
        room_as_seen.contains(&format!("rules: {shows:?} {way:?}")),
        "{room_as_seen}"
    );
    assert!(
        bob.ask("help create")
            .contains("unseen by default: Nothing Loops")
    );
    let on_console = server.ask(&format!("room {number}"));
    assert!(on_console.contains(&format!("{shows:?} {way:?}")), "{on_console}");
    ann.act(codec::encode(&1_u32).expect("encodes")).expect("legal");
    // Ann's client asks for a view, and an operator for a drawing.
    let seen = ann.look().expect("the connection and the seat are kept");
    eventually("the room is blamed", || {
        // An operator whose console dies is told so.
        let _ = server.try_ask(&format!("room {number}"));
        // The console does not wait for a room. A client does, and reports that it does.
        match ann.look() {
            Ok(_) | Err(ClientError::Rejected { .. }) => {}
            Err(error) => panic!("the connection and the seat are kept: {error}"),
        }
        server.status("rooms_blamed_total") == 1
    });
    // Otherwise the view is there, unless the room was blamed before.
    assert!(seen.view.is_empty() || fault.0 != Shows::View, "{fault:?}");
    // The match goes on.
    bob.type_line("3");
    let is_sum = |data: &[u8]| sum(data) == 4;
    eventually("Bob's move reaches Ann", || {
        let message = ann
            .receive(std::time::Duration::from_secs(1))
            .expect("the session lives");
        matches!(message, Some(forkade_protocol::ServerMessage::Event {
            event: forkade_protocol::RoomEvent::Game { data }, ..
        }) if is_sum(&data))
    });
    if fault.0 == Shows::Describe {
        bob.ask("look");
    } else {
        bob.read_until("(The game cannot draw itself.)");
    }
    bob.ask("look");
    // A spectator comes and a member goes.
    server
        .client("Carol")
        .spectate(joined.room, None)
        .expect("spectators are allowed");
    ann.leave().expect("in the room");
    assert_eq!(server.status("rooms_blamed_total"), 1, "{fault:?}");
    assert_eq!(server.status("blamed_total"), 0, "no connection is blamed");
    assert_eq!(ann.counters().resumes, 0, "nobody lost the connection");
    let deaths_max = match fault.1 {
        Way::Loops => 1,
        Way::Aborts => 3,
    };
    // One more process may have begun before the last death was counted.
    assert!(server.status("takeovers_total") <= deaths_max + 1, "{fault:?}");
    control_pair.finish();
    let what = format!(
        "view, draw or a description of room {number} (unseen, \"dark room\"), which gets no pictures"
    );
    expect_logged(&server, &["keeper", &what]);
}

pub(crate) fn options_that_cannot_be_described_cost_the_room_its_pictures_and_nobody_a_connection() {
    let server = start();
    let mut ann = server.client("Ann");
    ann.create_room(room((Shows::Options, Way::Loops)))
        .expect("a room is free");
    let mut bob = TextClient::connect(&server);
    bob.type_line("join 1");
    bob.read_until("You are in room 1");
    assert_eq!(server.status("rooms_blamed_total"), 1);
    assert_eq!(server.status("blamed_total"), 0);
    bob.read_until("\r\n> ");
    bob.type_line("3");
    // His move is made, but nothing of the game is asked to show it.
    bob.read_until("(The game cannot draw itself.)");
}

pub(crate) fn a_match_that_cannot_be_shown_goes_on_without_pictures_and_no_player_loses_a_connection() {
    for shows in [Shows::View, Shows::Draw, Shows::Describe] {
        for way in [Way::Loops, Way::Aborts] {
            expect_room_blamed((shows, way));
        }
    }
}
