//! Promise: what an operator imposes on a name holds for it and for what looks like it, over reconnects, crashes and
//! upgrades, until its time is over; and what an owner's kick holds for.

use std::thread;
use std::time::Duration;

use forkade::limits::SANCTIONS_MAX;
use forkade_protocol::client::{Client, ClientError};
use forkade_protocol::{ChatScope, ErrorCode, RejectCode, RoomSettings, ServerMessage};

use crate::common::killer::{Handlers, send};
use crate::common::operator::Operator;
use crate::common::rooms::{rejection, room_of};
use crate::common::stream_client::{Cut, StreamClient};
use crate::common::text_client::TextClient;
use crate::common::{Server, WAIT_MAX, eventually, patient};
use crate::upgrade::Upgradable;
use nix::sys::signal::Signal;

/// Connecting under the name is refused because of a ban. Returns the text.
#[track_caller]
fn expect_banned(server: &Server, name: &str) -> String {
    match Client::connect(server.game, name, patient()).err() {
        Some(ClientError::Session(error)) => {
            let text = error.to_string();
            assert_eq!(
                ClientError::Session(error).error_code(),
                Some(ErrorCode::Kicked),
                "{name}"
            );
            assert!(text.contains("an operator has banned this name"), "{text}");
            text
        }
        other => panic!("{name} is not banned: {other:?}"),
    }
}

/// The session ends because an operator has removed the player. Returns the text.
#[track_caller]
fn expect_kicked(client: &mut Client) -> String {
    let ended = client
        .receive_where(WAIT_MAX, |_| false)
        .expect_err("the session ends");
    assert_eq!(ended.error_code(), Some(ErrorCode::Kicked), "{ended:?}");
    ended.to_string()
}

#[test]
fn a_banned_player_is_told_for_how_long_and_cannot_come_back_under_the_name() {
    let server = Server::start(&[]);
    let mut ann = server.client("Ann Ivy");
    server.ask("ban Ann Ivy 10m");
    let text = expect_kicked(&mut ann);
    assert!(text.contains("free again in 10 minutes"), "{text}");
    // In small letters, and with a small L in place of the I.
    for name in ["Ann Ivy", "ann ivy", "Ann lvy"] {
        expect_banned(&server, name);
    }
    server.client("Ann");
    assert_eq!(server.status("banned_total"), 3);
    server.ask("unban ANN IVY");
    server.client("Ann Ivy");
    assert!(
        server
            .try_ask("unban Ann Ivy")
            .expect_err("lifted")
            .contains("there is no ban")
    );
    server.expect_no_errors();
}

#[test]
fn a_session_under_a_banned_name_cannot_be_resumed() {
    let server = Server::start(&[]);
    let ann = server.client("Ann");
    let token = ann.token();
    drop(ann);
    server.ask("ban Ann");
    let resumed = Client::resume(server.game, token, patient()).err();
    let code = resumed.and_then(|error| error.error_code());
    assert_eq!(code, Some(ErrorCode::Kicked));
}

#[test]
fn a_client_that_waits_for_its_session_is_told_of_the_ban() {
    let server = Server::start(&[]);
    let mut ann = StreamClient::enter(server.game, "Ann");
    let handler = server.handler_of("Ann").expect("Ann has a handler");
    // Until the watchdog ends it, it does not release the session.
    assert!(send(handler, Signal::SIGSTOP));
    ann.cut(Cut::Abandon);
    thread::scope(|scope| {
        let resumed = scope.spawn(|| {
            let received = ann.received();
            ann.resume(None, received)
        });
        // Enough for the resume to arrive. If it does not, or if the session is released first, Ann is told the same.
        thread::sleep(Duration::from_millis(300));
        server.ask("ban Ann");
        match resumed.join().expect("it does not panic") {
            Err(code) => assert_eq!(code, ErrorCode::Kicked),
            Ok(_) => eventually("Ann is sent out", || server.handler_of("Ann").is_none()),
        }
    });
}

#[test]
fn a_text_player_cannot_take_or_keep_a_banned_name() {
    let server = Server::start(&[]);
    let mut ann = TextClient::named(&server, "Ann");
    let mut bob = TextClient::named(&server, "Bob");
    server.ask("ban Ann 2h");
    let last = ann.read_to_end();
    assert!(last.contains("free again in 2 hours"), "{last}");
    let refused = bob.ask("name ANN");
    assert!(refused.contains("an operator has banned this name"), "{refused}");
    assert!(bob.ask("whoami").contains("You are Bob"));
    bob.ask("name Cyd");
}

#[test]
fn a_banned_text_player_cannot_take_its_seat_back_by_the_resume_word() {
    let server = Server::start(&[]);
    let mut ann = TextClient::named(&server, "Ann");
    let mut again = TextClient::named(&server, "Again");
    let shown = ann.ask("whoami");
    let word = shown.split('"').find_map(|part| part.strip_prefix("resume "));
    let word = word.expect("whoami shows the word").to_owned();
    ann.ask("create tictactoe");
    drop(ann);
    server.ask("ban Ann");
    let refused = again.ask(&format!("resume {word}"));
    assert!(refused.contains("an operator has banned this name"), "{refused}");
    server.ask("unban Ann");
    assert!(!again.ask(&format!("resume {word}")).contains("banned"));
}

#[test]
fn a_guest_does_not_get_a_banned_name() {
    let server = Server::start(&[]);
    let mut operator = Operator::new(&server);
    let mut first = TextClient::connect(&server);
    first.type_line("");
    first.read_until("guest-");
    // The names are numbered in the order of the connections.
    let number: u64 = first.read_until(";").parse().expect("a number");
    for next in number + 1..number + 9 {
        operator.ask(&format!("ban guest-{next}"));
    }
    let mut second = TextClient::connect(&server);
    second.type_line("");
    second.read_until("guest-");
    let name = second.read_until(";");
    assert!(name.ends_with("-2"), "{name}");
}

#[test]
fn a_ban_and_a_mute_survive_the_handlers_and_an_upgrade() {
    let upgradable = Upgradable::start(&[]);
    let server = &upgradable.server;
    let mut bob = server.client("Bob");
    server.ask("ban Ann 1h");
    server.ask("mute Bob 1h");
    expect_banned(server, "Ann");
    Handlers::of(server).signal_all(Signal::SIGKILL);
    expect_banned(server, "Ann");
    assert_eq!(
        rejection(bob.chat(ChatScope::Lobby, "hi")),
        RejectCode::ChatTooFast
    );
    upgradable.install_itself();
    assert!(upgradable.ask_by_command().status.success());
    expect_banned(server, "Ann");
    assert_eq!(
        rejection(bob.chat(ChatScope::Lobby, "hi")),
        RejectCode::ChatTooFast
    );
    let listed = server.ask_json("bans");
    let listed: Vec<_> = listed.as_array().expect("a list").iter().collect();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(
        (&listed[0]["kind"], &listed[0]["name"]),
        (&"ban".into(), &"Ann".into())
    );
    assert_eq!(
        (&listed[1]["kind"], &listed[1]["name"]),
        (&"mute".into(), &"Bob".into())
    );
    for row in listed {
        let left = row["seconds_left"].as_f64().expect("a number");
        assert!(left > 0.0 && left <= 3600.0, "{left}");
    }
}

#[test]
fn a_ban_and_a_mute_are_over_after_their_time() {
    let server = Server::start(&[]);
    let mut bob = server.client("Bob");
    server.ask("ban Ann 1s");
    server.ask("mute Bob 1s");
    eventually("the ban is over", || {
        Client::connect(server.game, "Ann", patient()).is_ok()
    });
    eventually("the mute is over", || bob.chat(ChatScope::Lobby, "hi").is_ok());
    assert_eq!(server.ask_json("bans").as_array().map(Vec::len), Some(0));
}

#[test]
fn a_muted_player_is_not_heard_in_any_scope_and_is_told_for_how_long() {
    let server = Server::start(&["--chat-burst", "100"]);
    let (mut ann, [mut eve], room) = room_of(&server, "relay", RoomSettings::default(), ["Eve"]);
    server.ask("mute eve 30m");
    let whisper = || ChatScope::Whisper { to: "Ann".into() };
    for scope in [ChatScope::Room, ChatScope::Lobby, whisper()] {
        let refused = eve.chat(scope, "psst").expect_err("she is muted");
        let ClientError::Rejected {
            code,
            text,
            retry_after,
        } = refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!(code, RejectCode::ChatTooFast);
        assert!(text.contains("you may chat again in 30 minutes"), "{text}");
        let seconds = retry_after.expect("the time is told").as_secs();
        assert!((1700..=1800).contains(&seconds), "{seconds}");
    }
    // The rest she may do.
    eve.act(b"a move".to_vec()).expect("a match is on");
    eve.goodbye().expect("she leaves");
    // Another session of the name is muted, too, also in text mode.
    let mut again = TextClient::named(&server, "Eve");
    for line in ["shout hi", "tell Ann hi"] {
        let refused = again.ask(line);
        assert!(refused.contains("an operator has muted you"), "{refused}");
    }
    again.ask(&format!("join {}", (room.0 & 0xffff_ffff) + 1));
    let refused = again.ask("say hi");
    assert!(refused.contains("an operator has muted you"), "{refused}");
    assert_eq!(server.status("muted_total"), 6);
    ann.ping().expect("connected");
    while let Some(message) = ann
        .receive_where(std::time::Duration::ZERO, |_| true)
        .expect("connected")
    {
        let is_chat =
            matches!(&message, ServerMessage::Chat { .. }) || format!("{message:?}").contains("Chat");
        assert!(!is_chat, "{message:?}");
    }
    server.ask("unban EVE");
    assert!(!again.ask("say hi").contains("muted"));
}

#[test]
fn when_all_places_are_taken_the_operator_is_told_and_one_that_is_over_is_used_again() {
    let server = Server::start(&[]);
    let mut operator = Operator::new(&server);
    operator.ask("ban first 1s");
    for number in 1..SANCTIONS_MAX {
        operator.ask(&format!("mute player {number} 1h"));
    }
    let mut ask = |command: &str| operator.ask(command).pop().expect("a last line");
    eventually("the first is over", || ask("ban Ann 1h") == "OK");
    expect_banned(&server, "Ann");
    let reply = ask("ban Bob 1h");
    assert!(reply.contains("there are 1024 bans and mutes already"), "{reply}");
    let mut bob = server.client("Bob");
    bob.ping().expect("a ban that was refused has no effect");
    // In place of an earlier one of the same name there is always a place.
    assert_eq!(ask("ban ANN 2h"), "OK");
    // The lists are read in steps.
    let listed = server.ask_json("bans");
    assert_eq!(listed.as_array().map(Vec::len), Some(SANCTIONS_MAX));
    server.expect_no_errors();
}

#[test]
fn an_owners_kick_holds_for_the_name_on_a_new_session() {
    let server = Server::start(&[]);
    let (mut ann, [bob], room) = room_of(&server, "relay", RoomSettings::default(), ["Bob"]);
    ann.kick(1, "Bob").expect("the owner may");
    bob.goodbye().expect("he leaves");
    let mut again = server.client("BOB");
    assert_eq!(rejection(again.join_room(room, None)), RejectCode::Banned);
    assert_eq!(rejection(again.spectate(room, None)), RejectCode::Banned);
    // It does not hold for another name, nor in another room.
    let mut other = server.client("Bobby");
    other.join_room(room, None).expect("a seat is free");
    again.quick_match("tictactoe", Vec::new()).expect("another room");
    again.leave().expect("in a room");
    // An invitation lifts it.
    ann.reserve("bob").expect("a seat is free");
    again.join_room(room, None).expect("a seat is reserved");
    server.expect_no_errors();
}
