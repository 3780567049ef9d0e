//! Promise: an operator can inspect one player, one room, every lock, every setting and every process of a
//! running server.

use crate::common::operator::{Operator, one};
use crate::common::{Server, WAIT_MAX, command, eventually};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{ChatScope, RoomId, RoomSettings, ServerMessage, codec};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn table(server: &Server) -> (Client, Client, RoomId) {
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob the 2nd"));
    let room = ann
        .create_room(NewRoom::new("tictactoe", "The corner"))
        .expect("a room is free")
        .room;
    bob.join_room(room, None).expect("a seat is free");
    (ann, bob, room)
}

#[test]
fn a_player_is_shown_with_room_process_and_byte_counts() {
    let server = Server::start(&[]);
    let (_ann, mut bob, _) = table(&server);
    bob.ping().expect("it answers");
    let mut operator = Operator::new(&server);
    eventually("all is handled and sent", || {
        let shown = operator.ask_json("player Bob the 2nd");
        shown["output_unsent"] == 0 && shown["lock_taken"].as_u64() > Some(0)
    });
    let shown = operator.ask_json("player bob THE 2nd");
    let id = shown["id"].as_u64().expect("a number");
    assert_eq!(operator.ask_json(&format!("player {id}"))["name"], "Bob the 2nd");
    assert_eq!(
        (
            &shown["presence"],
            &shown["room"],
            &shown["room_name"],
            &shown["seat"]
        ),
        (&"connected".into(), &1.into(), &"The corner".into(), &1.into())
    );
    let peer = bob.local_addr().expect("it is connected").to_string();
    assert_eq!(shown["peer"], peer);
    assert_eq!(
        shown["pid"].as_u64(),
        server.handler_of("Bob the 2nd").map(u64::from)
    );
    let number = |key: &str| shown[key].as_u64().unwrap_or_else(|| panic!("{key} in {shown}"));
    assert!(number("input_handled") > 0 && number("output_written") > 0 && number("lock_taken") > 0);
    assert_eq!((number("input_waiting"), number("output_unsent")), (0, 0));
    assert!(number("output_kept") <= number("output_ring"));
    assert!(
        shown["idle_seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds < 60.0)
    );
    // Input is handled, and counted as handled.
    let before = number("input_handled");
    bob.ping().expect("it answers");
    eventually("the ping counts as handled", || {
        operator.ask_json("player Bob the 2nd")["input_handled"].as_u64() > Some(before)
    });
    drop(bob);
    eventually("the lost connection shows", || {
        operator.ask_json("player Bob the 2nd")["presence"] == "away"
    });
    let away = operator.ask_json("player Bob the 2nd");
    assert!(away["peer"].is_null() && away["pid"].is_null(), "{away}");
    assert_eq!(away["seat"], 1);
    assert!(
        operator
            .ask("player Ann")
            .iter()
            .any(|line| line.starts_with("peer "))
    );
}

#[test]
fn a_room_is_shown_with_seats_clocks_log_and_game_view() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, room) = table(&server);
    let mut operator = Operator::new(&server);
    let query = format!("room {room}");
    let waiting = operator.ask_json(&query);
    assert_eq!(
        (&waiting["phase"], &waiting["picture"]),
        (&"waiting".into(), &Value::Null)
    );
    ann.ready(true).expect("sent");
    bob.ready(true).expect("sent");
    ann.act(codec::encode(&4_u8).expect("a cell")).expect("sent");
    let has_moved = |room: &Value| {
        room["picture"]
            .as_str()
            .is_some_and(|picture| picture.contains("3 | X | 5"))
    };
    eventually("the move is seen", || has_moved(&operator.ask_json(&query)));
    let shown = operator.ask_json(&query);
    assert_eq!(
        (&shown["name"], &shown["game"], &shown["phase"]),
        (&"The corner".into(), &"tictactoe".into(), &"playing".into())
    );
    let bobs = operator.ask_json("player Bob the 2nd")["id"].clone();
    let seat = one(&shown["seats"], "seat", 1.into());
    assert_eq!(
        (&seat["player"], &seat["name"], &seat["connected"]),
        (&bobs, &"Bob the 2nd".into(), &true.into())
    );
    let log: Vec<u64> = serde_json::from_value(shown["log"].clone()).expect("offsets");
    assert!(log[0] <= log[2] && log[2] <= log[1] && log[1] > 0, "{log:?}");
    assert!(
        shown["events"].as_u64().is_some_and(|events| events >= 5),
        "{shown}"
    );
    let table = operator.ask(&query);
    assert!(table.iter().any(|line| line == "   3 | X | 5"), "{table:?}");
    assert_eq!(
        operator.ask(&format!("room {room} --seat 2")),
        ["ERR the room has no such seat: they count from 0"]
    );
}

#[test]
fn hidden_cards_are_shown_only_if_the_operator_asks_for_the_seat() {
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
    ann.ready(true).expect("sent");
    bob.ready(true).expect("sent");
    let mut operator = Operator::new(&server);
    let mut picture = |query: String| operator.ask_json(&query)["picture"].as_str().map(str::to_owned);
    eventually("the match begins", || picture(format!("room {room}")).is_some());
    let spectator = picture(format!("room {room}")).expect("a picture");
    let [first, second] =
        [0, 1].map(|seat| picture(format!("room {room} --seat {seat}")).expect("a picture"));
    assert!(
        first != second && first != spectator && second != spectator,
        "{spectator}\n{first}\n{second}"
    );
}

#[test]
fn settings_are_shown_with_their_source() {
    let path = std::env::temp_dir().join(format!("forkade-console-{}.toml", std::process::id()));
    std::fs::write(&path, "rooms_max = 77\nbacklog = 99\n").expect("a temporary file");
    let file = path.to_str().expect("a plain path");
    let mut server = command(&["--config", file, "--players-max", "55"]);
    server.env("FORKADE_BACKLOG", "88");
    let server = Server::run(&mut server);
    let mut operator = Operator::new(&server);
    let config = operator.ask_json("config");
    let shown = |setting: &str| {
        let row = one(&config, "setting", setting.into());
        json!([row["value"], row["source"], row["from"]])
    };
    assert_eq!(
        shown("players_max"),
        json!(["55", "command line", "--players-max"])
    );
    assert_eq!(shown("backlog"), json!(["88", "environment", "FORKADE_BACKLOG"]));
    assert_eq!(shown("rooms_max"), json!(["77", "file", file]));
    assert_eq!(shown("seat_grace_ms"), json!(["60000", "default", null]));
    std::fs::remove_file(&path).expect("removed");
}

#[test]
fn the_log_level_changes_for_all_processes_at_once() {
    let server = Server::start(&["--log", "warn"]);
    let mut early = server.client("Early");
    let mut operator = Operator::new(&server);
    assert_eq!(
        operator.ask_json("log"),
        json!({"level": "warn", "configured": "warn"})
    );
    assert_eq!(operator.ask("log debug"), ["OK"]);
    assert_eq!(operator.ask_json("log")["level"], "debug");
    // A process forked now, and one that existed before.
    let mut late = server.client("Late");
    late.create_room(NewRoom::new("relay", "another"))
        .expect("a room is free");
    early
        .create_room(NewRoom::new("relay", "room"))
        .expect("a room is free");
    eventually("the new handler logs at the new level", || {
        server
            .log()
            .lines()
            .any(|line| line.contains(" DEBUG handler[") && line.contains("CreateRoom: done"))
    });
    let listener = one(&operator.ask_json("processes"), "role", "listener".into())["pid"].clone();
    assert_eq!(operator.ask("log off"), ["OK"]);
    let before = server.log();
    server.kill(u32::try_from(listener.as_u64().expect("a number")).expect("a pid"));
    eventually("the listener is started again", || {
        let processes = operator.ask_json("processes");
        let is_it = |process: &Value| process["role"] == "listener" && process["restarts"] == 1;
        processes.as_array().expect("a list").iter().any(is_it)
    });
    assert_eq!(server.log(), before, "the supervisor logs below its level");
}

#[test]
fn ping_names_the_process_that_does_not_answer() {
    // Otherwise the watchdog would replace the process that does not answer.
    let server = Server::start(&["--keepers", "3", "--tickers", "2", "--watchdog-cpu-ms", "0"]);
    let mut operator = Operator::new(&server);
    let pong = operator.ask_json("ping");
    for role in ["supervisor", "listener", "ticker", "keeper"] {
        let milliseconds = &one(&pong, "pong", role.into())["milliseconds"];
        assert!(milliseconds.is_number(), "{pong}");
    }
    assert_eq!(pong.as_array().map(Vec::len), Some(7));
    assert!(operator.ask("ping")[0].starts_with("pong"));
    // Answered in order, together with the commands after it.
    operator.send(b"ping --json\nhelp quit\n");
    assert_eq!((operator.reply().len(), operator.reply().len()), (2, 2));
    for role in ["listener", "ticker"] {
        let pid = one(&pong, "pong", role.into())["pid"].as_u64().expect("a number");
        let pid = u32::try_from(pid).expect("a pid");
        server.signal(pid, Signal::SIGSTOP);
        let answer = operator.ask_json("ping");
        server.signal(pid, Signal::SIGCONT);
        assert_eq!(one(&answer, "pong", role.into())["milliseconds"], "no answer");
        assert!(one(&answer, "pong", "supervisor".into())["milliseconds"].is_number());
    }
    eventually("it answers again", || {
        let answer = operator.ask_json("ping");
        one(&answer, "pong", "listener".into())["milliseconds"].is_number()
    });
}

#[test]
fn a_lock_is_shown_with_its_holder() {
    let server = Server::start(&["--heartbeat-timeout-ms", "600000"]);
    let mut ann = server.client("Ann");
    ann.create_room(NewRoom::new("relay", "room"))
        .expect("a room is free");
    let mut operator = Operator::new(&server);
    let locks = operator.ask_json("locks --all");
    for lock in ["lobby", "player", "room", "total"] {
        let row = one(&locks, "lock", lock.into());
        for key in ["taken", "waits", "long_waits", "recoveries"] {
            assert!(row[key].is_number(), "{row}");
        }
        assert!(row.get("role").is_some() && row.get("held_ms").is_some());
    }
    let quiet = operator.ask_json("locks");
    assert!(quiet.as_array().map(Vec::len) <= locks.as_array().map(Vec::len));
}

#[test]
fn an_announcement_reaches_every_player_once() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, _) = table(&server);
    bob.disconnect_abruptly();
    let mut operator = Operator::new(&server);
    assert_eq!(operator.ask("say  We stop at noon — sorry! "), ["OK"]);
    for client in [&mut ann, &mut bob] {
        let mut heard = || {
            let is_chat = |message: &ServerMessage| matches!(message, ServerMessage::Chat { .. });
            client
                .receive_where(WAIT_MAX, is_chat)
                .expect("it lives")
                .expect("it is told")
        };
        let expected = |text: &str| ServerMessage::Chat {
            scope: ChatScope::Lobby,
            from: String::new(),
            text: text.to_owned(),
        };
        assert_eq!(heard(), expected("We stop at noon — sorry!"));
    }
    assert!(operator.ask(&format!("say {}", "x".repeat(900)))[0].starts_with("ERR "));
}
