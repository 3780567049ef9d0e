//! Promise: what reaches many costs what it causes, so no number of players makes the server deliver more than it can;
//! and when a room has too much to deliver, players with a seat go before spectators and newcomers.

use std::time::Instant;

use crate::common::raw_client::frame;
use crate::common::rooms::{event, heard, public, room_of};
use crate::common::stream_client::{Cut, StreamClient};
use crate::common::{Server, eventually};
use forkade_protocol::client::{Client, ClientError, NewRoom};
use forkade_protocol::{ChatScope, ClientMessage, RejectCode, RoomEvent, RoomId, ServerMessage};

/// Deliveries per second in these tests. Four times as many are granted at once.
const RATE: usize = 10;
const ROOM: [&str; 6] = [
    "--room-fanout",
    "10",
    "--requests-per-minute",
    "0",
    "--chat-per-minute",
    "0",
];
const SERVER: [&str; 6] = [
    "--server-fanout",
    "10",
    "--requests-per-minute",
    "0",
    "--chat-per-minute",
    "0",
];

/// Repeats a request for a hundred times. Returns how often it was granted, and the whole seconds that it took.
fn granted(code: RejectCode, mut ask: impl FnMut() -> Result<(), ClientError>) -> (usize, usize) {
    let began = Instant::now();
    let done = (0..100).filter(|_| match ask() {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.reject_code(), Some(code), "{error}");
            assert!(error.to_string().contains("; wait "), "{error}");
            false
        }
    });
    let count = done.count();
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("a test ends");
    (count, seconds + 1)
}

/// Repeats a request until it is refused.
fn until_refused(code: RejectCode, mut ask: impl FnMut() -> Result<(), ClientError>) {
    let refused = (0..1000).any(|_| match ask() {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.reject_code(), Some(code), "{error}");
            true
        }
    });
    assert!(refused, "never refused");
}

fn watchers(server: &Server, room: RoomId, count: usize) -> Vec<Client> {
    (0..count)
        .map(|number| {
            let mut watcher = server.client(&format!("Watcher {number}"));
            eventually("a watcher is let in", || watcher.spectate(room, None).is_ok());
            watcher
        })
        .collect()
}

#[test]
fn a_player_that_comes_and_goes_is_charged_for_every_member_that_is_told() {
    let server = Server::start(&ROOM);
    let (_ann, [], room) = room_of(&server, "relay", public(), []);
    let mut watchers = watchers(&server, room, 4);
    let mut eve = server.client("Eve");
    let (visits, seconds) = granted(RejectCode::TooFast, || {
        eve.join_room(room, None)?;
        eve.leave()
    });
    // A visit of a room with five members is ten deliveries. Half of the burst is kept for those with a seat.
    assert!(visits * 10 <= RATE * (2 + seconds), "{visits} in {seconds} s");
    assert!(visits >= 1);
    let of_eve = |message: &ServerMessage| {
        matches!(
            message,
            ServerMessage::Event {
                event: RoomEvent::Joined { .. } | RoomEvent::Left { .. },
                ..
            }
        )
    };
    for watcher in &mut watchers {
        let told = heard(watcher).iter().filter(|message| of_eve(message)).count();
        assert_eq!(told, 2 * visits);
    }
    assert!(server.status("fanout_refused_total") >= 1);
    server.expect_no_errors();
}

#[test]
fn players_with_a_seat_go_before_spectators_and_newcomers() {
    let server = Server::start(&ROOM);
    let (mut ann, [], room) = room_of(&server, "relay", public(), []);
    let mut watchers = watchers(&server, room, 1);
    let mut eve = server.client("Eve");
    until_refused(RejectCode::TooFast, || {
        eve.join_room(room, None)?;
        eve.leave()
    });
    until_refused(RejectCode::ChatTooFast, || {
        watchers[0].chat(ChatScope::Room, "boo")
    });
    until_refused(RejectCode::TooFast, || watchers[0].look().map(drop));
    // Half of the burst is left.
    for _ in 0..3 {
        ann.chat(ChatScope::Room, "good evening").expect("Ann has a seat");
    }
    // A reserved seat counts the same.
    ann.reserve("Eve").expect("a seat is free");
    eve.join_room(room, None).expect("the seat is kept for Eve");
    let line =
        |event: &RoomEvent| matches!(event, RoomEvent::Chat { from, .. } if from == "Ann").then_some(());
    event(&mut watchers[0], line);
    // In the end a seat has no more than the whole burst.
    until_refused(RejectCode::ChatTooFast, || ann.chat(ChatScope::Room, "and"));
    server.expect_no_errors();
}

#[test]
fn leaving_is_never_refused() {
    let server = Server::start(&ROOM);
    let (mut ann, [mut bob], room) = room_of(&server, "relay", public(), ["Bob"]);
    let mut watchers = watchers(&server, room, 2);
    until_refused(RejectCode::ChatTooFast, || ann.chat(ChatScope::Room, "and"));
    watchers[0].leave().expect("one can always leave");
    bob.leave().expect("one can always leave");
    ann.leave().expect("one can always leave");
}

#[test]
fn all_rooms_together_deliver_no_more_than_the_server_can() {
    let server = Server::start(&SERVER);
    let mut rooms: Vec<_> = (0..4)
        .map(|number| {
            // Half of the burst would be kept from a single address.
            let mut owner =
                server.client_from(&format!("127.0.0.{}", number + 2), &format!("Owner {number}"));
            let new = NewRoom::new("relay", "room");
            owner.create_room(new).expect("a room is free");
            owner
        })
        .collect();
    let began = Instant::now();
    let mut lines = 0;
    for number in 0..100 {
        let owner = &mut rooms[number % 4];
        lines += usize::from(owner.chat(ChatScope::Room, "hello").is_ok());
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("a test ends") + 1;
    assert!(lines >= 30, "{lines}");
    assert!(lines <= RATE * (4 + seconds), "{lines} in {seconds} s");
}

#[test]
fn a_line_to_the_lobby_is_charged_for_every_player_and_one_address_leaves_half_to_others() {
    let server = Server::start(&["--lobby-fanout", "10", "--chat-per-minute", "0"]);
    let mut players: Vec<_> = (0..5)
        .map(|number| {
            server.client_from(
                &format!("127.0.0.{}", number / 4 + 2),
                &format!("Player {number}"),
            )
        })
        .collect();
    let mut say = |player: usize| {
        granted(RejectCode::ChatTooFast, || {
            players[player].chat(ChatScope::Lobby, "hello")
        })
    };
    let (lines, seconds) = say(0);
    assert!(lines >= 4, "{lines}");
    assert!(lines * 5 <= RATE * (2 + seconds), "{lines} in {seconds} s");
    // Under another name, from the same address.
    let (same, more) = say(1);
    assert!(
        (lines + same) * 5 <= RATE * (2 + seconds + more),
        "{lines} and {same} in {seconds} and {more} s"
    );
    let (others, _) = say(4);
    assert!(others >= 4, "{others}");
    // The budget of rooms is another one, and an operator's words are not charged.
    let new = NewRoom::new("relay", "room");
    players[0].create_room(new).expect("a room is free");
    players[0].chat(ChatScope::Room, "hello").expect("in a room");
    server.ask("say the server stops at noon");
    server.expect_no_errors();
}

#[test]
fn the_defaults_are_limits() {
    let server = Server::run(crate::common::command(&[]).env_clear());
    let mut ann = server.client("Ann");
    let began = Instant::now();
    let mut rooms = 0;
    loop {
        let new = NewRoom::new("relay", "room");
        match ann.create_room(new) {
            Ok(_) => rooms += 1,
            Err(error) => {
                assert_eq!(error.reject_code(), Some(RejectCode::TooFast), "{error}");
                break;
            }
        }
        ann.leave().expect("in a room");
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("a test ends") + 1;
    assert!(rooms >= 60 && rooms <= 60 + 2 * seconds, "{rooms} in {seconds} s");
}

/// How the console shows the player's presence.
fn presence(server: &Server, name: &str) -> String {
    let players = server.ask_json("players");
    let mut rows = players.as_array().expect("a list").iter();
    let row = rows.find(|row| row["name"] == name).expect("the player is here");
    row["presence"].as_str().expect("a text").to_owned()
}

#[test]
fn a_player_that_comes_back_all_the_time_waits_for_what_its_room_is_told() {
    /// Deliveries that the returns of one player cause per second, and at once.
    const RETURN_DELIVERIES_PER_SECOND: u64 = 500;
    const RETURN_DELIVERIES_BURST: u64 = 5000;
    const WATCHERS: u8 = 24;
    let server = Server::start(&["--requests-per-minute", "0"]);
    let (_ann, [], room) = room_of(&server, "relay", public(), []);
    let mut watchers = watchers(&server, room, WATCHERS.into());
    let mut eve = StreamClient::enter(server.game, "Eve");
    eve.append(&frame(&ClientMessage::JoinRoom {
        request: 1,
        room,
        passcode: None,
    }));
    let joined = eve.wait_for_message();
    assert!(matches!(joined, ServerMessage::Joined { .. }), "{joined:?}");
    // Each return is told to Ann and to the watchers, and so is the loss before it.
    let price = 2 * (1 + u64::from(WATCHERS));
    let (began, free) = (Instant::now(), RETURN_DELIVERIES_BURST / price);
    let returns = 2 * free;
    for _ in 0..returns {
        eve.cut(Cut::Close);
        // A return before the room knows of the loss would tell it nothing, and cost nothing.
        eventually("the room knows that Eve is away", || {
            presence(&server, "Eve") == "away"
        });
        let received = eve.received();
        eve.resume(None, received).expect("the session lives");
    }
    let seconds = began.elapsed().as_secs() + 1;
    let granted = RETURN_DELIVERIES_BURST + RETURN_DELIVERIES_PER_SECOND * seconds;
    assert!(returns * price <= granted, "{returns} returns in {seconds} s");
    // What she does once she is back reaches the room.
    let action = b"back".to_vec();
    eve.append(&frame(&ClientMessage::Act { request: 2, action }));
    eve.wait_for_message();
    let is_move = |event: &RoomEvent| matches!(event, RoomEvent::Game { .. }).then_some(());
    event(&mut watchers[0], is_move);
    server.expect_no_errors();
}
