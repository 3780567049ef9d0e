//! Promise: whoever connects and says nothing is told what people do, and no program is harmed by that.

use std::io::{Read, Write};
use std::time::Duration;

use forkade_protocol::frame::banner;
use forkade_protocol::{ClientMessage, ClientSession, ServerMessage};

use crate::common::Server;
use crate::common::raw_client::RawClient;
use crate::common::text_client::TextClient;

const BANNER: &str = "This is a game server. Press Enter to play.\r\n";

#[test]
fn a_person_is_spoken_to_and_plays_after_enter() {
    let server = Server::start(&[]);
    let mut person = TextClient::connect(&server);
    assert_eq!(person.read_until(BANNER), "", "nothing precedes it");
    person.type_line("");
    let before = person.read_until("Welcome to Forkade.");
    assert_eq!(before, "", "it is said once");
    person.ask("name Ann");
    assert!(person.ask("who").contains("Ann"));
    server.expect_no_errors();
}

#[test]
fn whoever_speaks_first_gets_no_banner() {
    let server = Server::start(&["--banner-after-ms", "1"]);
    let mut person = TextClient::connect(&server);
    person.send(b"h");
    person.type_line("elp");
    person.read_until("Welcome to Forkade.");
    let mut never = RawClient::connect(&Server::start(&[
        "--banner-after-ms",
        "0",
        "--handshake-timeout-ms",
        "300",
    ]));
    assert!(never.peek_header() < 1024, "an error, and nothing before it");
}

/// A client that waits before its greeting, and then sends it in pieces.
fn greet(server: &Server, name: &str, waits_for_banner: bool, piece: usize, pause: Duration) {
    let mut stream = server.connect();
    let mut session = ClientSession::new(name, "paced");
    session.begin().expect("it is new");
    let mut buffer = [0; 4096];
    if waits_for_banner {
        let mut line = vec![0; BANNER.len()];
        stream.read_exact(&mut line).expect("it is spoken to");
        assert_eq!(banner(&line), Some(line.len()));
        // Byte by byte.
        for byte in line {
            session.receive(&[byte]).expect("there is space");
            assert_eq!(session.next_message(), Ok(None));
        }
    }
    while !session.is_established() {
        let bytes = session.bytes();
        let piece = piece.min(bytes.len());
        stream.write_all(&bytes[..piece]).expect("it is taken");
        session.advance(piece);
        std::thread::sleep(pause);
        if session.bytes().is_empty() {
            let count = stream.read(&mut buffer).expect("it is answered");
            session.receive(&buffer[..count]).expect("there is space");
            let message = session.next_message().expect("it is a message");
            assert!(matches!(message, None | Some(ServerMessage::Welcome { .. })));
        }
    }
    session.send(&ClientMessage::Goodbye).expect("it is established");
    stream.write_all(session.bytes()).expect("it is taken");
    let rest = stream.read(&mut buffer).expect("the end");
    assert_eq!(rest, 0, "nothing follows");
}

#[test]
fn programs_of_every_pace_greet_before_and_after_the_banner() {
    let server = Server::start(&["--banner-after-ms", "20"]);
    for (name, waits_for_banner, piece, pause_ms) in [
        ("at once", false, 1000, 0),
        ("byte by byte", false, 1, 1),
        ("after the banner", true, 1000, 0),
        ("after it byte by byte", true, 1, 1),
    ] {
        greet(
            &server,
            name,
            waits_for_banner,
            piece,
            Duration::from_millis(pause_ms),
        );
    }
    server.expect_no_errors();
}
