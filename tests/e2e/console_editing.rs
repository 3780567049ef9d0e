//! Promise: an operator with a telnet client can edit lines and has a history, whatever process is killed
//! meanwhile. A script receives no byte of it.

use crate::common::operator::{Operator, console_process, kill_console};
use crate::common::{Server, eventually};
use forkade_protocol::client::NewRoom;

const OFFER: [u8; 9] = [255, 251, 1, 255, 251, 3, 255, 253, 31];
const AGREE: [u8; 9] = [255, 253, 1, 255, 253, 3, 255, 251, 31];
const PROMPT: &str = "forkade> ";

/// The operator's output up to `end`.
fn shown(operator: &mut Operator, end: &str) -> String {
    loop {
        let so_far = String::from_utf8_lossy(&operator.received).into_owned();
        if so_far.ends_with(end) {
            operator.received.clear();
            return so_far;
        }
        assert!(operator.receive(), "no {end:?} in {so_far:?}");
    }
}

/// An operator with a telnet client whose window has this many columns.
fn at_telnet(server: &Server, columns: u16) -> Operator {
    let mut operator = Operator::new(server);
    operator.send(b"\r\n");
    while operator.received.len() < OFFER.len() {
        assert!(operator.receive());
    }
    assert_eq!(operator.received.drain(..OFFER.len()).collect::<Vec<_>>(), OFFER);
    assert_eq!(operator.reply().pop().expect("a last line"), "OK");
    operator.send(&AGREE);
    let [high, low] = columns.to_be_bytes();
    operator.send(&[255, 250, 31, high, low, 0, 24, 255, 240]);
    shown(&mut operator, &format!("{PROMPT}\u{1b}[K"));
    operator
}

#[test]
fn keys_edit_the_line_and_recall_history() {
    let server = Server::start(&[]);
    for columns in [0, 1, 80, 400] {
        let mut operator = at_telnet(&server, columns);
        operator.send(b"xelp quix\x7ft\x01\x04h\r\0");
        let seen = shown(&mut operator, &format!("OK\r\n\r{PROMPT}\u{1b}[K"));
        assert!(seen.contains("quit: ends this connection"), "{seen:?}");
        operator.send(b"\x1b[A\r\0");
        let again = shown(&mut operator, &format!("OK\r\n\r{PROMPT}\u{1b}[K"));
        assert!(again.contains("quit: ends this connection"), "{again:?}");
        // Ctrl-C discards the line, Ctrl-D ends the session.
        operator.send(b"stop\x03");
        shown(&mut operator, &format!("^C\r\n\r{PROMPT}\u{1b}[K"));
        operator.send(b"\x04");
        assert!(!operator.read_to_end().contains("ERR"));
    }
}

#[test]
fn a_console_killed_during_a_line_says_so_and_still_edits() {
    let server = Server::start(&[]);
    let mut operator = at_telnet(&server, 80);
    operator.send(b"stat");
    shown(&mut operator, "stat");
    kill_console(&server, &operator);
    let seen = shown(&mut operator, &format!("\r{PROMPT}\u{1b}[K"));
    assert!(seen.starts_with("\r\nERR interrupted: "), "{seen:?}");
    operator.send(b"help quix\x7ft\r\0");
    let seen = shown(&mut operator, &format!("OK\r\n\r{PROMPT}\u{1b}[K"));
    assert!(seen.contains("quit: ends this connection"), "{seen:?}");
    // Killed without pending input, it reports nothing.
    eventually("the console is idle", || {
        console_process(&server, &operator, "processes --memory")["state"] == "S"
    });
    kill_console(&server, &operator);
    shown(&mut operator, &format!("\r{PROMPT}\u{1b}[K"));
    operator.send(b"edit off\r\0");
    while !operator.received.ends_with(b"OK\r\n") {
        assert!(operator.receive());
    }
    let withdrawal = [255, 252, 1, 255, 252, 3];
    assert!(operator.received.windows(6).any(|part| part == withdrawal));
    operator.received.clear();
    assert_eq!(operator.ask("help quit").len(), 2);
}

#[test]
fn ctrl_c_ends_a_watch_and_other_keys_do_not() {
    let server = Server::start(&[]);
    let mut ann = server.client("Ann");
    let room = ann
        .create_room(NewRoom::new("relay", "The corner"))
        .expect("a room is free")
        .room;
    let mut operator = at_telnet(&server, 80);
    operator.send(format!("watch {room}\r\0").as_bytes());
    shown(&mut operator, "Enter ends it)\r\n");
    operator.send(b"abc\x1b[A");
    ann.ready(true).ok();
    ann.act(b"payload".to_vec()).expect("sent");
    let seen = shown(&mut operator, "\r\n");
    assert!(!seen.contains("abc") && seen.contains("Game"), "{seen:?}");
    operator.send(b"\x03");
    shown(&mut operator, &format!("OK\r\n\r{PROMPT}\u{1b}[K"));
}

#[test]
fn a_client_that_does_not_answer_the_offer_stays_in_line_mode() {
    let server = Server::start(&[]);
    let mut operator = Operator::new(&server);
    operator.send(b"edit\n");
    while operator.received.len() < OFFER.len() {
        assert!(operator.receive());
    }
    assert_eq!(operator.received.drain(..OFFER.len()).collect::<Vec<_>>(), OFFER);
    assert_eq!(operator.reply(), ["OK"]);
    assert_eq!(operator.ask("help quit").len(), 2);
    // So does a client that refuses.
    operator.send(&[255, 254, 1, 255, 254, 3, 255, 252, 31]);
    assert_eq!(operator.ask("help quit").len(), 2);
}
