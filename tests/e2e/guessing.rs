//! Promise: rejected requests are charged to their player, so that neither one session nor many together find a
//! passcode, an invite code or a name by trying; and the room's members notice nothing.

use std::time::{Duration, Instant};

use crate::common::rooms::{heard, public, rejection, room_of};
use crate::common::text_client::TextClient;
use crate::common::{Server, eventually};
use forkade_protocol::client::{Client, ClientError, NewRoom};
use forkade_protocol::{ChatScope, RejectCode, RoomId, RoomSettings};

/// A player may fail three times, and no more within the time of any test.
const THREE: [&str; 4] = ["--failures-burst", "3", "--failures-per-minute", "1"];

fn with_passcode() -> RoomSettings {
    RoomSettings {
        passcode: Some("271828".into()),
        ..public()
    }
}

/// Tries wrong passcodes until one is not judged. Returns how many were.
fn judged(client: &mut Client, room: RoomId) -> usize {
    (0..1000)
        .find(|number| {
            let wrong = format!("{number:06}");
            match rejection(client.join_room(room, Some(&wrong))) {
                RejectCode::WrongPasscode => false,
                RejectCode::TooFast => true,
                other => panic!("{other:?}"),
            }
        })
        .expect("somebody who only guesses is stopped")
}

/// Fails by `ask` until it is refused as too fast. Returns the number of other rejections.
fn failures(mut ask: impl FnMut() -> Result<(), ClientError>) -> usize {
    (0..100)
        .find(|_| rejection(ask()) == RejectCode::TooFast)
        .expect("failures have an end")
}

#[test]
fn ten_wrong_passcodes_are_judged_and_then_one_every_few_seconds() {
    let server = Server::start(&[]);
    let (_ann, [], room) = room_of(&server, "relay", with_passcode(), []);
    let mut bob = server.client("Bob");
    assert_eq!(judged(&mut bob, room), 10);
    // Not even the right one is judged now: otherwise its refusal would tell that it is right.
    let refusal = bob.join_room(room, Some("271828")).expect_err("too fast");
    assert_eq!(refusal.reject_code(), Some(RejectCode::TooFast));
    assert!(refusal.to_string().contains("; wait "), "{refusal}");
    let began = Instant::now();
    eventually("the next one is judged", || {
        rejection(bob.join_room(room, Some("000000"))) == RejectCode::WrongPasscode
    });
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(server.status("failed_requests_total") >= 11);
    assert!(server.status("too_fast_total") >= 2);
    server.expect_no_errors();
}

#[test]
fn a_wrong_passcode_is_charged_to_the_guesser() {
    let server = Server::start(&THREE);
    let (mut ann, [], room) = room_of(&server, "relay", with_passcode(), []);
    heard(&mut ann);
    let (mut bob, mut cyd) = (server.client("Bob"), server.client("Cyd"));
    assert_eq!(judged(&mut bob, room), 3);
    assert_eq!(heard(&mut ann), [], "those inside notice nothing");
    cyd.join_room(room, Some("271828"))
        .expect("Cyd has guessed nothing");
    ann.chat(ChatScope::Room, "welcome")
        .expect("Ann has guessed nothing");
}

#[test]
fn every_kind_of_rejected_request_is_charged() {
    let server = Server::start(&THREE);
    let (mut ann, [_bob], room) = room_of(&server, "tictactoe", public(), ["Bob"]);
    let newcomer = |name: &str| server.client(name);
    let mut client = newcomer("Invites");
    assert_eq!(
        failures(|| client.join_by_invite("0000-0000-0000", false).map(drop)),
        3
    );
    client = newcomer("Rooms");
    assert_eq!(failures(|| client.join_room(RoomId(77), None).map(drop)), 3);
    client = newcomer("Seats");
    assert_eq!(failures(|| client.join_room(room, None).map(drop)), 3);
    client = newcomer("Watchers");
    assert_eq!(failures(|| client.spectate(RoomId(77), None).map(drop)), 3);
    client = newcomer("Games");
    assert_eq!(
        failures(|| client.create_room(NewRoom::new("chess", "mine")).map(drop)),
        3
    );
    client = newcomer("Matches");
    assert_eq!(failures(|| client.quick_match("chess", Vec::new()).map(drop)), 3);
    client = newcomer("Whispers");
    let nobody = ChatScope::Whisper { to: "Nobody".into() };
    assert_eq!(failures(|| client.chat(nobody.clone(), "are you here?")), 3);
    // All kinds are charged to one account.
    assert_eq!(rejection(client.join_room(room, None)), RejectCode::TooFast);
    // Requests that are not charged tell nothing: Ann owns the room, and no player of that name is in it or elsewhere.
    assert_eq!(rejection(ann.kick(1, "Nobody")), RejectCode::SeatChanged);
    assert_eq!(rejection(ann.hand_over(1, "Nobody")), RejectCode::SeatChanged);
    assert_eq!(rejection(ann.reserve("Nobody")), RejectCode::UnknownPlayer);
    assert_eq!(rejection(ann.kick(1, "Bob")), RejectCode::TooFast);
    server.expect_no_errors();
}

#[test]
fn names_tried_in_text_mode_are_charged() {
    let server = Server::start(&THREE);
    let _ann = server.client("Ann");
    let mut text_player = TextClient::connect(&server);
    text_player.type_line("");
    text_player.read_until("Welcome");
    for _ in 0..3 {
        text_player.type_line("name Ann");
        text_player.read_until("somebody here has this name");
    }
    text_player.type_line("name Bob");
    text_player.read_until("No: too many of your requests were refused; wait");
}

#[test]
fn what_succeeds_costs_nothing_of_what_may_fail() {
    let server = Server::start(&THREE);
    let (_ann, [mut bob], room) = room_of(&server, "relay", public(), ["Bob"]);
    for _ in 0..20 {
        bob.leave().expect("in a room");
        bob.join_room(room, None).expect("a seat is free");
    }
    bob.leave().expect("in a room");
    assert_eq!(failures(|| bob.join_room(RoomId(77), None).map(drop)), 3);
}

#[test]
fn many_sessions_together_find_a_passcode_no_sooner() {
    // Each may fail as often as it likes; the room's own budget does not refill within the time of any test.
    let server = Server::start(&["--failures-burst", "1000", "--guesses-per-minute", "1"]);
    let (mut ann, [], room) = room_of(&server, "relay", with_passcode(), []);
    heard(&mut ann);
    let mut guessers: Vec<_> = (0..8)
        .map(|number| server.client(&format!("Guesser {number}")))
        .collect();
    let all: usize = guessers.iter_mut().map(|client| judged(client, room)).sum();
    // Half of the budget: that a player has another name does not help where its address has failed.
    assert_eq!(all, 10);
    for guesser in &mut guessers {
        let right = guesser.join_room(room, Some("271828"));
        assert_eq!(rejection(right), RejectCode::TooFast);
    }
    assert_eq!(heard(&mut ann), [], "those inside notice nothing");
    assert!(server.status("guesses_refused_total") >= 16);
    // A player that has not failed is judged, as long as the other half lasts.
    let mut guest = server.client_from("127.0.0.2", "Guest of honour");
    guest
        .join_room(room, Some("271828"))
        .expect("the passcode is right");
    guest.leave().expect("in a room");
    // Neither an invite code nor a reserved seat is affected.
    let code = ann.invite(false).expect("Ann owns the room");
    guessers[0]
        .join_by_invite(code, false)
        .expect("the code is right");
    ann.reserve("Guesser 1").expect("a seat is free");
    guessers[1]
        .join_room(room, None)
        .expect("the seat is kept for this player");
    server.expect_no_errors();
}

#[test]
fn many_sessions_together_find_an_invite_code_no_sooner() {
    let server = Server::start(&["--failures-burst", "1000", "--guesses-per-minute", "1"]);
    let (mut ann, [], room) = room_of(&server, "relay", with_passcode(), []);
    let code = ann.invite(false).expect("Ann owns the room");
    // The first letters name the room.
    let wrong = format!("{}{}", &code[..4], "-0000-0000");
    let mut guessers: Vec<_> = (0..3)
        .map(|number| server.client(&format!("Guesser {number}")))
        .collect();
    let tries = |client: &mut Client| failures(|| client.join_by_invite(wrong.clone(), false).map(drop));
    let all: usize = guessers.iter_mut().map(tries).sum();
    assert_eq!(all, 10);
    assert_eq!(
        rejection(guessers[0].join_by_invite(code.clone(), false)),
        RejectCode::TooFast
    );
    server
        .client_from("127.0.0.2", "Guest")
        .join_by_invite(code, false)
        .expect("the code is right");
    // Passcodes have a budget of their own.
    guessers[0]
        .join_room(room, Some("271828"))
        .expect("the passcode is right");
}

#[test]
fn a_new_handler_or_connection_does_not_forgive_failures() {
    let server = Server::start(&THREE);
    let mut bob = server.client("Bob");
    assert_eq!(failures(|| bob.join_room(RoomId(77), None).map(drop)), 3);
    let handler = server.handler_of("Bob").expect("he has one");
    server.kill(handler);
    eventually("another goes on", || {
        server.handler_of("Bob").is_some_and(|other| other != handler)
    });
    assert_eq!(rejection(bob.join_room(RoomId(77), None)), RejectCode::TooFast);
    bob.disconnect_abruptly();
    assert_eq!(rejection(bob.join_room(RoomId(77), None)), RejectCode::TooFast);
}

#[test]
fn a_new_greeting_under_the_same_name_is_no_new_account() {
    let server = Server::start(
        &[
            &THREE[..],
            &["--chat-burst", "1", "--chat-per-minute", "1"],
            &["--requests-burst", "1", "--requests-per-minute", "1"],
        ]
        .concat(),
    );
    let mut bob = server.client("Bob");
    assert_eq!(failures(|| bob.join_room(RoomId(77), None).map(drop)), 3);
    bob.chat(ChatScope::Lobby, "once").expect("the first line");
    bob.goodbye().expect("connected");
    eventually("Bob is gone", || server.status("players") == 0);
    let mut again = server.client("BOB");
    assert_eq!(rejection(again.join_room(RoomId(77), None)), RejectCode::TooFast);
    assert_eq!(
        rejection(again.chat(ChatScope::Lobby, "twice")),
        RejectCode::ChatTooFast
    );
    let mut other = server.client("Bobby");
    other
        .chat(ChatScope::Lobby, "hello")
        .expect("another player has another account");
}

#[test]
fn typed_requests_that_fail_before_they_reach_the_lobby_are_charged() {
    let server = Server::start(&THREE);
    for failing in [
        "kick Nobody",
        "owner Nobody",
        "set seats=2",
        "create tictactoe seats=99",
        "name Server",
        "resume 0000-0000-0000-0000",
    ] {
        let mut text_player = TextClient::named(&server, "Ann");
        // (After three wrong words the connection would be closed.)
        let answers = [failing, failing, "kick Nobody", failing].map(|line| text_player.ask(line));
        let is_too_fast = answers
            .each_ref()
            .map(|answer| answer.starts_with("No: too many of your requests were refused"));
        assert_eq!(is_too_fast, [false, false, false, true], "{answers:?}");
        text_player.type_line("quit");
        text_player.read_to_end();
        eventually("the name is free", || server.status("players") == 0);
    }
    server.expect_no_errors();
}
