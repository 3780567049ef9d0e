//! Promise: an operator learns from the log and from `events` who came and went, what was opened, begun, ended, refused
//! or has died, and from `top` who is busiest.

use std::time::{Duration, Instant};

use crate::common::operator::Operator;
use crate::common::raw_client::{RawClient, framed, handshake};
use crate::common::{Server, eventually};
use forkade_protocol::client::NewRoom;
use forkade_protocol::{ErrorCode, codec};
use serde_json::Value;

fn rows(list: &Value) -> &Vec<Value> {
    list.as_array().expect("a list")
}

/// The log has one record of level info that contains this.
#[track_caller]
fn expect_told_once(server: &Server, line: &str) {
    eventually(&format!("the log has {line:?}"), || {
        let log = server.log();
        log.lines()
            .filter(|record| record.contains(" INFO ") && record.contains(line))
            .count()
            == 1
    });
}

#[test]
fn the_log_says_who_comes_and_goes_and_how_matches_end_and_never_what_is_said() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let mut new = NewRoom::new("tictactoe", "A \"duel\"");
    new.settings.passcode = Some("open sesame".to_owned());
    let room = ann.create_room(new).expect("a room is free").room;
    bob.join_room(room, Some("open sesame")).expect("a seat is free");
    ann.ready(true).expect("sent");
    bob.ready(true).expect("sent");
    ann.ping().expect("the session lives");
    bob.ping().expect("the session lives");
    bob.chat(forkade_protocol::ChatScope::Room, "between us")
        .expect("sent");
    let label = "room 1 (tictactoe, \"A \\\"duel\\\"\")";
    for (cell, is_anns) in [(0_u8, true), (3, false), (1, true), (4, false), (2, true)] {
        let mover = if is_anns { &mut ann } else { &mut bob };
        mover.act(codec::encode(&cell).expect("a cell")).expect("sent");
        mover.ping().expect("the session lives");
    }
    bob.leave().expect("in the room");
    drop(bob);
    ann.leave().expect("in the room");
    for line in [
        "player=\"Ann\" forkade::process::handler::drive: came, from 127.0.0.1:".to_owned(),
        format!("{label} was opened"),
        format!("a match begins in {label}"),
        format!("a match has ended in {label}: won by the seats [0]"),
        "player=\"Bob\" forkade::process::handler::drive: has lost the connection".to_owned(),
        format!("{label} has closed"),
    ] {
        expect_told_once(&server, &line);
    }
    let operator = &mut Operator::new(&server);
    operator.ask("log trace");
    ann.ping().expect("the session lives");
    ann.create_room(NewRoom::new("relay", "open"))
        .expect("a room is free");
    ann.chat(forkade_protocol::ChatScope::Room, "between us")
        .expect("sent");
    ann.ping().expect("the session lives");
    eventually("the requests are logged", || {
        let log = server.log();
        log.contains("CreateRoom: done") && log.contains("Chat: done")
    });
    let log = server.log();
    assert!(
        !log.contains("sesame") && !log.contains("between us") && !log.contains("mio::"),
        "{log}"
    );
}

#[test]
fn a_match_that_begins_with_its_room_is_logged_and_so_is_a_player_that_does_not_come_back() {
    let server = Server::start(&["--seat-grace-ms", "200"]);
    let mut ann = server.client("Ann");
    ann.create_room(NewRoom::new("relay", "Hall"))
        .expect("a room is free");
    drop(ann);
    let label = "room 1 (relay, \"Hall\")";
    for line in [
        format!("{label} was opened"),
        format!("a match begins in {label}"),
        "\"Ann\" has left: it did not come back in time".to_owned(),
        format!("{label} has closed"),
    ] {
        expect_told_once(&server, &line);
    }
    let events = server.ask_json("events");
    let is_removal = |event: &&Value| {
        event["kind"] == "departure"
            && event["player"] == "Ann"
            && event["room"] == 1
            && event["what"] == "has left: it did not come back in time"
    };
    assert_eq!(rows(&events).iter().filter(is_removal).count(), 1, "{events}");
}

#[test]
fn events_lists_deaths_takeovers_refusals_and_departures_and_survives_the_deaths() {
    let server = Server::start(&[]);
    let mut ann = server.client("Ann");
    let bob = server.client("Bob");
    let handler = server.handler_of("Ann").expect("she is served");
    server.kill(handler);
    ann.ping().expect("another handler answers");
    let mut raw = RawClient::connect(&server);
    raw.send(&[handshake("Eve"), framed(&[0xff])].concat());
    raw.expect_error(ErrorCode::Malformed);
    drop(bob);
    let mut operator = Operator::new(&server);
    eventually("all is among the events", || {
        let events = operator.ask_json("events");
        let has = |kind: &str, player: Option<&str>, what: &str| {
            rows(&events).iter().any(|event| {
                event["kind"] == kind
                    && event["player"].as_str() == player
                    && event["what"].as_str().is_some_and(|text| text.contains(what))
            })
        };
        has("death", Some("Ann"), &format!("handler {handler} died (SIGKILL)"))
            && has("takeover", Some("Ann"), "goes on with 1 connections")
            && has("refusal", Some("Eve"), "Malformed")
            && has("departure", Some("Bob"), "has lost the connection")
    });
    let ticker = {
        let processes = operator.ask_json("processes");
        let ticker = rows(&processes)
            .iter()
            .find(|row| row["role"] == "ticker")
            .cloned();
        ticker.expect("there is one")["pid"].as_u64().expect("a pid")
    };
    server.kill(u32::try_from(ticker).expect("a pid"));
    eventually("the ticker's death is the latest event", || {
        let latest = &operator.ask_json("events 1")[0];
        latest["kind"] == "death" && latest["pid"] == ticker
    });
    assert_eq!(operator.ask("events 2").len(), 4, "a head, two rows and OK");
}

#[test]
fn top_shows_who_sends_most_and_the_busiest_room_without_keeping_other_queries_waiting() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, mut eve) = (server.client("Ann"), server.client("Bob"), server.client("Eve"));
    let quiet = ann
        .create_room(NewRoom::new("relay", "quiet"))
        .expect("a room is free");
    let busy = bob
        .create_room(NewRoom::new("relay", "busy"))
        .expect("a room is free");
    eve.spectate(busy.room, None).expect("anybody may");
    let mut operator = Operator::new(&server);
    operator.send(b"top 2 --json\n");
    let mut other = Operator::new(&server);
    // A spectator's room is shown; and this query is answered while the other one lasts.
    let players = other.ask_json("players");
    let of = |name: &str| {
        rows(&players)
            .iter()
            .find(|row| row["name"] == name)
            .cloned()
            .expect("present")
    };
    assert_eq!(
        (&of("Eve")["room"], &of("Eve")["seat"]),
        (&2.into(), &Value::Null)
    );
    assert_eq!(of("Ann")["room"], 1, "{quiet:?}");
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        // The quiet room is not still.
        ann.act(vec![7]).expect("sent");
        ann.ping().expect("the session lives");
        for _ in 0..5 {
            bob.act(vec![7; 100]).expect("sent");
            bob.ping().expect("the session lives");
            while bob.receive(Duration::ZERO).expect("the session lives").is_some() {}
        }
    }
    let reply = operator.reply();
    let top: Value = serde_json::from_str(&reply[0]).expect("JSON");
    let first = |kind: &str| {
        rows(&top)
            .iter()
            .find(|row| row["top"] == kind)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(
        (&first("room")["room"], &first("room")["name"]),
        (&2.into(), &"busy".into()),
        "{top}"
    );
    let names_of = |kind: &str| -> Vec<_> {
        let all = rows(&top).iter().filter(|row| row["top"] == kind);
        all.map(|row| row["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(names_of("room"), ["busy", "quiet"], "{top}");
    assert_eq!(names_of("player")[..2], ["Bob", "Ann"], "{top}");
    assert_eq!(
        (&first("player")["name"], &first("player")["room"]),
        (&"Bob".into(), &2.into()),
        "{top}"
    );
    assert!(first("player")["bytes_in_s"].as_f64() > Some(1000.0), "{top}");
    assert!(other.ask("top 0")[0].starts_with("ERR usage"));
}

#[test]
fn processes_shows_the_age_of_each_and_the_total_of_their_memory() {
    let server = Server::start(&[]);
    let mut ann = server.client("Ann");
    // The kernel counts the age of a process in hundredths of a second.
    std::thread::sleep(Duration::from_millis(300));
    server.kill(server.handler_of("Ann").expect("she is served"));
    ann.ping().expect("another handler answers");
    let processes = server.ask_json("processes --memory");
    let rows = rows(&processes);
    let ann = rows
        .iter()
        .find(|row| row["player"] == "Ann")
        .expect("she is served");
    let (age, seconds) = (ann["age"].as_f64(), ann["seconds"].as_f64());
    assert!(
        age.is_some() && age < seconds,
        "the successor is younger than its connection: {ann}"
    );
    let last = rows.last().expect("there are some");
    let sum: u64 = rows[..rows.len() - 1]
        .iter()
        .filter_map(|row| row["pss_kib"].as_u64())
        .sum();
    assert_eq!(
        (&last["role"], last["pss_kib"].as_u64()),
        (&"total".into(), Some(sum))
    );
}
