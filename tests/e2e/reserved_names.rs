//! Promise: text of a player never looks like text of the server or of another player, whether by the name,
//! by the text or at any terminal.

use crate::common::operator::Operator;
use crate::common::rooms::room_of;
use crate::common::text_client::TextClient;
use crate::common::{Server, patient};
use forkade_protocol::client::Client;
use forkade_protocol::{ChatScope, ErrorCode, RoomSettings};

/// Names that could impersonate the server or another player.
const FORGED: [&str; 11] = [
    "The server",
    "the  SERVER",
    "Server",
    "You",
    "Ann says: I give up. Bob",
    "Ann\u{ff1a}",
    "*** The server says",
    "Ann (you), owner",
    "The match is over. Ann",
    "Admin",
    "\u{405}erver",
];

#[test]
fn reserved_names_are_refused_in_the_handshake() {
    let server = Server::start(&[]);
    for name in FORGED {
        let refused = Client::connect(server.game, name, patient()).err();
        let code = refused.and_then(|error| error.error_code());
        assert_eq!(code, Some(ErrorCode::NameInvalid), "{name}");
    }
    for name in ["Zo\u{eb} O'Neil-Smith 2", "J.R \u{540d}\u{524d}"] {
        server.client(name);
    }
    server.expect_no_errors();
}

#[test]
fn reserved_names_are_refused_in_text_mode() {
    // One after another, without a wait.
    let server = Server::start(&["--failures-burst", "20"]);
    let mut text_player = TextClient::named(&server, "Eve");
    for name in FORGED {
        text_player.type_line(&format!("name {name}"));
        text_player.read_until("No: the name cannot be used: ");
        text_player.read_until("> ");
    }
    let looked = text_player.ask("look");
    assert!(looked.contains("You are Eve, in the lobby"), "{looked}");
}

#[test]
fn text_mode_shows_unambiguously_who_says_what() {
    let server = Server::start(&[]);
    let (_ann, [mut eve], room) = room_of(&server, "relay", RoomSettings::default(), ["Eve"]);
    let mut text_player = TextClient::named(&server, "Bob");
    text_player.type_line(&format!("join {}", (room.0 & 0xffff_ffff) + 1));
    text_player.read_until("You are in room");
    let mut operator = Operator::new(&server);
    operator.ask("say we close at ten");
    text_player.read_until("*** The server says: we close at ten\r\n");
    // Fills a line of eighty columns, followed by what would start the next line.
    let filler = "x".repeat(80 - "Eve says: ".len());
    let forged = format!("{filler}*** The server says: we close now");
    eve.chat(ChatScope::Room, forged.as_str()).expect("it is short");
    eve.chat(ChatScope::Lobby, format!("{filler}Ann says: I give up"))
        .expect("it is short");
    eve.chat(ChatScope::Room, "that is all").expect("it is short");
    let shown = text_player.read_until("Eve says: that is all\r\n");
    assert!(shown.contains("\r\n    "), "{shown}");
    for line in shown
        .split("\r\n")
        .map(|line| line.trim_start_matches(['\r', '>', ' ']))
    {
        assert!(line.len() < 80, "{line}");
    }
    for line in shown.split(['\r', '\n']) {
        assert!(!line.starts_with('*') && !line.starts_with("Ann"), "{line}");
    }
    server.expect_no_errors();
}
