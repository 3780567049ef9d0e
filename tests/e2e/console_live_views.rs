//! Promise: an operator sees a room's events and a player's frames as they happen, whatever is killed meanwhile, and
//! delays no player.

use std::time::Duration;

use forkade::games::eights::Action;
use forkade::limits::WRITE_STALL_TIMEOUT_MS;
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{ChatScope, ClientMessage, RoomFilter, RoomId, RoomSettings, ServerMessage, codec};

use crate::common::operator::{Operator, kill_console};
use crate::common::{Server, WAIT_MAX, eventually};

fn table(server: &Server) -> (Client, Client, RoomId) {
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let room = ann
        .create_room(NewRoom::new("tictactoe", "The corner"))
        .expect("a room is free")
        .room;
    bob.join_room(room, None).expect("a seat is free");
    (ann, bob, room)
}

/// Starts a live view, and returns its first line.
fn follow(operator: &mut Operator, command: &str) -> String {
    operator.send(format!("{command}\n").as_bytes());
    let line = operator.line().expect("it begins");
    assert!(!line.starts_with("ERR"), "{command}: {line}");
    line
}

/// Lines up to the first that contains `part`.
fn until(operator: &mut Operator, part: &str) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let line = operator
            .line()
            .unwrap_or_else(|| panic!("no {part:?} in {lines:?}"));
        assert!(
            !line.starts_with("OK") && !line.starts_with("ERR"),
            "{line} after {lines:?}"
        );
        let found = line.contains(part);
        lines.push(line);
        if found {
            return lines;
        }
    }
}

fn say(client: &mut Client, text: &str) {
    client.chat(ChatScope::Room, text).expect("sent");
}

#[test]
fn watch_shows_a_rooms_events_in_order_until_enter() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, room) = table(&server);
    let mut operator = Operator::new(&server);
    assert!(
        follow(&mut operator, &format!("watch {room}"))
            .starts_with("(watching room 1 (tictactoe, \"The corner\") after event 1")
    );
    ann.ready(true).expect("sent");
    bob.ready(true).expect("sent");
    until(&mut operator, "Started");
    ann.act(codec::encode(&4_u8).expect("a cell")).expect("sent");
    say(&mut bob, "well \u{1b}[2Jdone");
    let lines = until(&mut operator, "done");
    let numbers: Vec<u64> = lines
        .iter()
        .map(|line| {
            line.split_whitespace()
                .next()
                .and_then(|number| number.parse().ok())
                .expect("a number")
        })
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("Game Ann")), "{lines:?}");
    assert!(!lines.concat().contains('\u{1b}'), "{lines:?}");
    // The line that ends the view is not executed; the next one is.
    operator.send(b"stop\nhelp quit\n");
    assert_eq!(operator.reply(), ["OK"]);
    assert_eq!(operator.reply().len(), 2);
    assert_eq!(operator.ask_json("status")["stopping"], false);
    // An empty line ends it, too.
    follow(&mut operator, &format!("watch {room}"));
    operator.send(b"\r\n");
    assert_eq!(operator.reply(), ["OK"]);
}

#[test]
fn events_for_one_seat_are_shown_only_on_request() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let settings = RoomSettings {
        seats: 2,
        ..RoomSettings::default()
    };
    let new = NewRoom {
        settings,
        ..NewRoom::new("eights", "cards")
    };
    let room = ann.create_room(new).expect("a room is free").room;
    bob.join_room(room, None).expect("a seat is free");
    let (mut discreet, mut nosy) = (Operator::new(&server), Operator::new(&server));
    follow(&mut discreet, &format!("watch {room}"));
    follow(&mut nosy, &format!("watch {room} --hidden"));
    ann.ready(true).expect("sent");
    bob.ready(true).expect("sent");
    // The player to move draws cards, which only that player may see.
    until(&mut discreet, "Started");
    until(&mut nosy, "Started");
    let draw = codec::encode(&Action::Draw).expect("an action");
    for client in [&mut ann, &mut bob] {
        // Only one of them has the turn.
        let _ = client.act(draw.clone());
    }
    say(&mut ann, "over");
    let (seen, all) = (until(&mut discreet, "over"), until(&mut nosy, "over"));
    assert_eq!(seen.len(), all.len(), "{seen:?}\n{all:?}");
    let hidden = |lines: &[String]| {
        lines
            .iter()
            .filter(|line| line.contains("(to seat "))
            .cloned()
            .collect::<Vec<_>>()
    };
    assert!(!hidden(&seen).is_empty(), "{seen:?}");
    assert!(
        hidden(&seen).iter().all(|line| line.ends_with(" only)")),
        "{seen:?}"
    );
    assert!(
        hidden(&all).iter().all(|line| line.contains("only) Game ")),
        "{all:?}"
    );
}

#[test]
fn a_watcher_that_does_not_read_delays_nobody_and_is_told_what_it_missed() {
    const ROUNDS: u64 = 200;
    const PAYLOADS_PER_ROUND: u64 = 50;
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let room = ann
        .create_room(NewRoom::new("relay", "The corner"))
        .expect("a room is free")
        .room;
    bob.join_room(room, None).expect("a seat is free");
    let mut operator = Operator::new(&server);
    socket2::SockRef::from(&operator.stream)
        .set_recv_buffer_size(4096)
        .expect("an option can be set");
    let first = follow(&mut operator, &format!("watch {room}"));
    assert!(first.contains("after event 1"), "{first}");
    let is_event = |message: &ServerMessage| matches!(message, ServerMessage::Event { .. });
    for _ in 0..ROUNDS {
        for request in 0..PAYLOADS_PER_ROUND {
            let (request, action) = (u32::try_from(request).expect("small"), vec![7; 400]);
            ann.send(&ClientMessage::Act { request, action }).expect("sent");
        }
        for client in [&mut ann, &mut bob] {
            for _ in 0..PAYLOADS_PER_ROUND {
                client
                    .receive_where(WAIT_MAX, is_event)
                    .expect("it lives")
                    .expect("it is told");
            }
        }
    }
    let (mut expected, mut missed_in_all) = (2, 0);
    while expected < 2 + ROUNDS * PAYLOADS_PER_ROUND {
        let line = operator.line().expect("the watch goes on");
        if let Some(missed) = line.strip_prefix("(missed ") {
            let missed: u64 = missed.trim_end_matches(" events)").parse().expect("a number");
            expected += missed;
            missed_in_all += missed;
        } else {
            let number: u64 = line
                .split_whitespace()
                .next()
                .and_then(|number| number.parse().ok())
                .expect("a number");
            assert_eq!(number, expected, "{line}");
            expected += 1;
        }
    }
    assert_eq!(expected, 2 + ROUNDS * PAYLOADS_PER_ROUND);
    assert!(missed_in_all > 0, "the test was too gentle: nothing was missed");
}

#[test]
fn a_watch_ends_with_its_room_and_a_new_console_process_reports_the_interruption() {
    let server = Server::start(&[]);
    let (ann, bob, room) = table(&server);
    let mut operator = Operator::new(&server);
    let mut killed = Operator::new(&server);
    follow(&mut operator, &format!("watch {room}"));
    follow(&mut killed, &format!("watch {room}"));
    kill_console(&server, &killed);
    let reply = killed.reply();
    assert!(
        reply
            .last()
            .expect("a last line")
            .starts_with("ERR interrupted: "),
        "{reply:?}"
    );
    follow(&mut killed, &format!("watch {room}"));
    ann.goodbye().expect("sent");
    bob.goodbye().expect("sent");
    for operator in [&mut operator, &mut killed] {
        let reply = operator.reply();
        assert_eq!(
            reply[reply.len() - 2..],
            ["(the room has closed)", "OK"],
            "{reply:?}"
        );
        operator.ask_json("status");
    }
}

#[test]
fn trace_shows_frames_in_both_directions_without_secrets() {
    let server = Server::start(&[]);
    let mut ann = server.client("Ann");
    let mut operator = Operator::new(&server);
    let first = follow(&mut operator, "trace ann");
    let peer = ann.local_addr().expect("it is connected").to_string();
    assert!(
        first.contains("* Ann: connected from") && first.contains(&peer),
        "{first}"
    );
    let settings = RoomSettings {
        passcode: Some("sesame".into()),
        ..RoomSettings::default()
    };
    let new = NewRoom {
        settings,
        ..NewRoom::new("relay", "den\u{202e}")
    };
    ann.create_room(new).expect("a room is free");
    say(&mut ann, "a\u{9b}b");
    ann.list_rooms(RoomFilter::default(), None).expect("it answers");
    let lines = until(&mut operator, "< Rooms");
    let seen = lines.join("\n");
    assert!(
        !seen.contains("sesame") && seen.contains("passcode=(secret)"),
        "{seen}"
    );
    assert!(
        !seen.contains(
            |character: char| character != '\n' && (character.is_control() || character == '\u{202e}')
        )
    );
    let place = |part: &str| {
        lines
            .iter()
            .position(|line| line.contains(part))
            .unwrap_or_else(|| panic!("no {part}: {seen}"))
    };
    assert!(place("> CreateRoom") < place("< Joined"), "{seen}");
    assert!(
        place("> Chat") < place("> ListRooms") && place("< Event") < place("< Rooms"),
        "{seen}"
    );
    operator.send(b"\n");
    assert_eq!(operator.reply(), ["OK"]);
}

#[test]
fn a_trace_survives_killed_handlers_and_resumes_and_ends_with_the_player() {
    let server = Server::start(&[]);
    let mut ann = server.client("Ann");
    server.handler_of("Ann").expect("she has left the reception");
    let mut operator = Operator::new(&server);
    follow(&mut operator, "trace Ann");
    for _ in 0..3 {
        let handler = server.handler_of("Ann").expect("she has one");
        server.kill(handler);
        ann.ping().expect("another handler answers");
        let lines = until(&mut operator, "was replaced by");
        assert!(
            lines.last().expect("a line").contains(&handler.to_string()),
            "{lines:?}"
        );
    }
    ann.disconnect_abruptly();
    ann.ping().expect("it resumes by itself");
    until(&mut operator, "connected from");
    ann.ping().expect("it answers");
    until(&mut operator, "< Pong");
    let mut killed = Operator::new(&server);
    follow(&mut killed, "trace Ann");
    kill_console(&server, &killed);
    assert!(
        killed
            .reply()
            .last()
            .expect("a last line")
            .starts_with("ERR interrupted: ")
    );
    ann.ping().expect("it answers");
    until(&mut operator, "< Pong");
    ann.goodbye().expect("sent");
    let reply = operator.reply();
    assert!(
        reply[reply.len() - 2].ends_with("* the player has left"),
        "{reply:?}"
    );
    assert_eq!(reply[reply.len() - 1], "OK");
}

#[test]
fn trace_shows_or_counts_every_frame_of_a_busy_player() {
    const PINGS: u64 = 64 * 400;
    let server = Server::start(&[]);
    let mut ann = server.client("Ann");
    let mut operator = Operator::new(&server);
    follow(&mut operator, "trace Ann");
    // Frames of equal length, so that missed bytes can be counted as frames.
    let first_nonce = 1 << 40;
    let frame_bytes = 4 + codec::encode(&ClientMessage::Ping { nonce: first_nonce })
        .expect("it can be encoded")
        .len() as u64;
    for nonce in first_nonce..first_nonce + PINGS {
        ann.send(&ClientMessage::Ping { nonce }).expect("sent");
        if nonce % 64 == 63 {
            for _ in 0..64 {
                ann.receive(WAIT_MAX).expect("it lives").expect("it answers");
            }
        }
    }
    let mut expected = first_nonce;
    let (mut shown, end) = (0, first_nonce + PINGS);
    while expected < end {
        let line = operator.line().expect("the trace goes on");
        let Some((_, text)) = line.split_once(" > ") else {
            continue;
        };
        assert!(
            !text.contains("no frame") && !text.contains("no message"),
            "{text}"
        );
        if let Some(missed) = text.strip_prefix("(missed ") {
            let bytes: u64 = missed.trim_end_matches(" bytes)").parse().expect("a number");
            // Confirmations may be among them, which are shorter.
            expected = (expected + bytes / frame_bytes).min(end);
        } else if let Some(nonce) = text.strip_prefix("Ping nonce=") {
            let nonce: u64 = nonce.parse().expect("a number");
            assert!(nonce <= expected, "{nonce} after {expected}");
            (expected, shown) = (nonce + 1, shown + 1);
        }
    }
    assert!(shown > 0, "it showed none of {PINGS}");
}

#[test]
fn a_watch_continues_after_a_long_silence() {
    let server = Server::start(&["--heartbeat-timeout-ms", "600000"]);
    let (mut ann, _bob, room) = table(&server);
    let mut operator = Operator::new(&server);
    follow(&mut operator, &format!("watch {room}"));
    std::thread::sleep(Duration::from_millis(WRITE_STALL_TIMEOUT_MS + 1000));
    say(&mut ann, "at last");
    until(&mut operator, "at last");
}

#[test]
fn trace_shows_a_text_players_lines_without_passcodes() {
    use std::io::Write;
    let server = Server::start(&[]);
    let mut telnet = server.connect();
    telnet.write_all(b"\r\n").expect("sent");
    let mut operator = Operator::new(&server);
    eventually("the text player is there", || {
        operator
            .ask_json("players")
            .as_array()
            .is_some_and(|players| players.len() == 1)
    });
    let id = operator.ask_json("players")[0]["id"].as_u64().expect("a number");
    eventually("the text player is shown", || {
        operator.ask_json(&format!("player {id}"))["mode"] == "text"
    });
    follow(&mut operator, &format!("trace {id}"));
    telnet
        .write_all(b"create relay den passcode=ses\x08same\r\nsay \x1b[2Jhello\r\n")
        .expect("sent");
    let lines = until(&mut operator, "> say");
    let seen = lines.join("\n");
    assert!(seen.contains("> create relay den passcode=(secret)"), "{seen}");
    assert!(
        seen.contains("> say \\u{1b}[2Jhello") && !seen.contains("sesame"),
        "{seen}"
    );
    until(&mut operator, " < ");
}
