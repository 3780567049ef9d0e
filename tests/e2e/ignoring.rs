//! Promise: a player gets nothing of what those that it ignores write, over takeovers and resumes, and they notice
//! nothing; and everything of all others.

use forkade::limits::IGNORED_NAMES_MAX;
use forkade_protocol::client::Client;
use forkade_protocol::{
    ChatScope, ClientMessage, ErrorCode, RejectCode, RoomEvent, RoomSettings, ServerMessage,
};

use crate::common::raw_client::{RawClient, frame, handshake};
use crate::common::rooms::{rejection, room_of};
use crate::common::text_client::TextClient;
use crate::common::{Server, WAIT_MAX, eventually, patient};

/// No chat rate limit.
const NO_RATE: [&str; 2] = ["--chat-per-minute", "0"];

fn to(name: &str) -> ChatScope {
    ChatScope::Whisper { to: name.to_owned() }
}

/// Lets `client` write to the room, to the lobby, and to one player.
fn talk(client: &mut Client, text: &str, addressee: &str) {
    for scope in [ChatScope::Room, ChatScope::Lobby, to(addressee)] {
        client.chat(scope, text).expect("the sender notices nothing");
    }
}

/// Receives everything up to and including three lines of this text, one in each scope. Returns the texts of all lines.
fn heard_up_to(client: &mut Client, last: &str) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.iter().filter(|text| *text == last).count() < 3 {
        match client.receive_where(WAIT_MAX, |_| true).expect("connected") {
            Some(ServerMessage::Chat { text, .. }) => texts.push(text),
            Some(ServerMessage::Event {
                event: RoomEvent::Chat { text, .. },
                ..
            }) => texts.push(text),
            Some(_) => {}
            None => panic!("only {texts:?} was heard"),
        }
    }
    texts
}

#[test]
fn a_program_hears_nothing_of_whom_it_ignores_over_a_takeover_and_a_resume() {
    let server = Server::start(&NO_RATE);
    let (mut ann, [mut eve, mut bob], _) =
        room_of(&server, "relay", RoomSettings::default(), ["Eve 1", "Bob"]);
    // Names that look alike count as one.
    ann.ignore("eve l", true).expect("it can be ignored");
    talk(&mut eve, "one", "Ann");
    talk(&mut bob, "first", "Ann");
    assert_eq!(heard_up_to(&mut ann, "first"), ["first"; 3]);
    // Moves of an ignored player are part of the match.
    eve.act(b"a move".to_vec()).expect("a match is on");
    let is_move = |message: &ServerMessage| {
        matches!(
            message,
            ServerMessage::Event {
                event: RoomEvent::Game { .. },
                ..
            }
        )
    };
    ann.receive_where(WAIT_MAX, is_move)
        .expect("connected")
        .expect("the move is seen");

    let handler = server.handler_of("Ann").expect("she is connected");
    server.kill(handler);
    eventually("another handler serves her", || {
        server.handler_of("Ann").is_some_and(|other| other != handler)
    });
    talk(&mut eve, "two", "Ann");
    talk(&mut bob, "second", "Ann");
    assert_eq!(heard_up_to(&mut ann, "second"), ["second"; 3]);

    let token = ann.token();
    drop(ann);
    talk(&mut eve, "three", "Ann");
    let mut ann = Client::resume(server.game, token, patient()).expect("the session lives");
    // What she missed has arrived.
    ann.ping().expect("connected");
    talk(&mut bob, "third", "Ann");
    let heard = heard_up_to(&mut ann, "third");
    assert!(
        !heard.iter().any(|text| text == "two" || text == "three"),
        "{heard:?}"
    );

    ann.ignore("Eve 1", false).expect("it can be heard again");
    talk(&mut eve, "four", "Ann");
    assert_eq!(heard_up_to(&mut ann, "four"), ["four"; 3]);
    assert_eq!(server.status("lobby_lines_missed_total"), 0);
    server.expect_no_errors();
}

#[test]
fn an_invitation_of_an_ignored_player_does_not_arrive() {
    let server = Server::start(&NO_RATE);
    let (mut eve, [], _) = room_of(&server, "relay", RoomSettings::default(), []);
    let mut bob = server.client("Bob");
    bob.ignore("Ann", true).expect("it can be ignored");
    eve.reserve("Bob").expect("the owner notices nothing");
    eve.chat(to("Bob"), "come!").expect("nor here");
    let mut cyd = server.client("Cyd");
    cyd.chat(to("Bob"), "hello").expect("he is here");
    let first = bob.receive_where(WAIT_MAX, |_| true).expect("connected");
    assert!(
        matches!(&first, Some(ServerMessage::Chat { text, .. }) if text == "hello"),
        "{first:?}"
    );
}

#[test]
fn a_text_player_hears_nothing_of_whom_it_ignores_and_sees_the_list() {
    let server = Server::start(&NO_RATE);
    let (mut eve, [mut bob], room) = room_of(&server, "relay", RoomSettings::default(), ["Bob"]);
    let mut typist = TextClient::named(&server, "Tom");
    assert!(typist.ask("ignore").contains("You ignore nobody."));
    assert!(typist.ask("ignore \"ANN\"").contains("You ignore ANN now."));
    typist.ask("ignore Zoe");
    assert!(typist.ask("ignore").contains("You ignore ANN, Zoe."));
    typist.ask(&format!("join {}", (room.0 & 0xffff_ffff) + 1));
    talk(&mut eve, "spam", "Tom");
    talk(&mut bob, "hello", "Tom");
    let handler = server.handler_of("Tom").expect("connected");
    server.kill(handler);
    talk(&mut eve, "spam", "Tom");
    talk(&mut bob, "the end", "Tom");
    let mut shown = String::new();
    while shown.matches("the end").count() < 3 {
        shown += &typist.read_until("the end");
        shown += "the end";
    }
    assert!(!shown.contains("spam") && !shown.contains("Ann says"), "{shown}");
    assert_eq!(shown.matches("hello").count(), 3, "{shown}");
    typist.type_line("unignore ann");
    typist.read_until("You do not ignore ann.");
    eve.chat(ChatScope::Room, "again").expect("she may");
    typist.read_until("again");
    typist.type_line("ignore TOM");
    typist.read_until("that is your own name");
    server.expect_no_errors();
}

#[test]
fn a_player_can_ignore_a_bounded_number_of_names() {
    let server = Server::start(&[]);
    let mut ann = server.client("Ann");
    for number in 0..IGNORED_NAMES_MAX {
        ann.ignore(format!("player {number}"), true)
            .expect("there is space");
    }
    assert_eq!(rejection(ann.ignore("Eve", true)), RejectCode::IgnoringTooMany);
    assert_eq!(rejection(ann.ignore("no: name", true)), RejectCode::UnknownPlayer);
    assert_eq!(rejection(ann.ignore("ANN", true)), RejectCode::UnknownPlayer);
    // Again in place of itself.
    ann.ignore("PLAYER 0", true).expect("there is space");
    ann.ignore("player 7", false).expect("there is one");
    ann.ignore("player 7", false).expect("it is not there already");
    ann.ignore("Eve", true).expect("there is space again");
    let mut eve = server.client("Eve");
    let mut other = server.client("player 7");
    eve.chat(to("Ann"), "psst").expect("she notices nothing");
    other.chat(to("Ann"), "hello").expect("she is here");
    let first = ann.receive_where(WAIT_MAX, |message| matches!(message, ServerMessage::Chat { .. }));
    let first = first.expect("connected");
    assert!(
        matches!(&first, Some(ServerMessage::Chat { from, .. }) if from == "player 7"),
        "{first:?}"
    );
    // A new session ignores nobody.
    ann.goodbye().expect("she leaves");
    let mut again = server.client("Ann");
    eve.chat(to("Ann"), "psst").expect("she is here");
    let first = again.receive_where(WAIT_MAX, |_| true).expect("connected");
    assert!(
        matches!(&first, Some(ServerMessage::Chat { from, .. }) if from == "Eve"),
        "{first:?}"
    );
}

#[test]
fn a_client_of_version_1_cannot_ignore() {
    let server = Server::start(&[]);
    let mut old = RawClient::connect(&server);
    let ignore = ClientMessage::Ignore {
        request: 1,
        player: "Ann".to_owned(),
        ignore: true,
    };
    old.send(&[handshake("Old"), frame(&ignore)].concat());
    assert!(matches!(
        old.next_message(),
        Ok(ServerMessage::Welcome { version: 1, .. })
    ));
    old.expect_error(ErrorCode::Malformed);
}
