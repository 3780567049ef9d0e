//! Games whose ticks take long, or never end.

use std::process::Command;
use std::time::Duration;

use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{Outcome, Phase, RoomEvent, RoomSettings, ServerMessage, codec};
use nix::sys::signal::Signal;

use crate::common::operator::Operator;
use crate::common::{Server, WAIT_MAX};
use crate::games::Pace;
use crate::{expect_logged, number, start};

fn room(way: Pace) -> NewRoom {
    NewRoom {
        settings: RoomSettings {
            options: codec::encode(&way).expect("encodes"),
            ..RoomSettings::default()
        },
        ..NewRoom::new("sluggish", "waiting room")
    }
}

const NO_WATCHDOG: [&str; 2] = ["--watchdog-cpu-ms", "0"];

/// Waits until the match is abandoned.
fn expect_abandoned(player: &mut Client) {
    let is_end = |message: &ServerMessage| {
        let outcome = Outcome::Abandoned;
        matches!(message, ServerMessage::Event { event: RoomEvent::Finished { outcome: ended }, .. } if *ended == outcome)
    };
    let end = player.receive_where(WAIT_MAX, is_end).expect("the session lives");
    assert!(end.is_some(), "the match goes on");
    // The player keeps seat and connection.
    assert_eq!(player.look().expect("in the room").phase, Phase::Finished);
    assert_eq!(player.counters().resumes, 0);
}

/// The numbers of the ticks that have reached the player, each once.
fn last_tick(player: &mut Client, mut last: u32) -> u32 {
    while let Some(message) = player
        .receive(std::time::Duration::ZERO)
        .expect("the session lives")
    {
        if let ServerMessage::Event {
            event: RoomEvent::Game { data },
            ..
        } = message
        {
            let tick: u32 = codec::decode(&data).expect("a number");
            assert_eq!(tick, last + 1, "a tick was lost or came twice");
            last = tick;
        }
    }
    last
}

pub(crate) fn a_room_whose_ticks_take_long_is_slowed_and_abandoned_and_others_tick_on() {
    for way in [Pace::Sleeps, Pace::Computes] {
        let server = start();
        let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
        bob.create_room(room(Pace::Prompt)).expect("a room is free");
        ann.create_room(room(way)).expect("a room is free");
        let first = number(&mut ann);
        assert_eq!(first, 1);
        let before = last_tick(&mut bob, 0);
        expect_abandoned(&mut ann);
        let ticks = last_tick(&mut bob, before) - before;
        // The slow ticks took 3 s. Had the other room waited for each, it would have had hardly more ticks than that.
        assert!(ticks >= 18, "{ticks} ticks of the other room: {way:?}");
        for parts in [
            ["tick in room", "(sluggish, ", ": it took "],
            ["tick in room", "(sluggish, ", "ticked less often"],
            ["the match is abandoned", "(sluggish, ", "10 of the last"],
        ] {
            expect_logged(&server, &[&["ticker"][..], &parts].concat());
        }
        assert_eq!(server.status("slow_calls_total"), 10);
        assert_eq!(server.status("rooms_slowed_total"), 1);
        assert_eq!(server.status("rooms_blamed_total"), 1);
        assert_eq!(server.status("watchdog_kills_total"), 0);
    }
}

pub(crate) fn a_tick_that_never_ends_keeps_one_ticker_and_no_other_room() {
    for way in [Pace::Loops, Pace::FallsAsleep, Pace::Aborts] {
        let server = start();
        let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
        bob.create_room(room(Pace::Prompt)).expect("a room is free");
        ann.create_room(room(way)).expect("a room is free");
        assert_eq!(number(&mut ann), 1);
        let before = last_tick(&mut bob, 0);
        expect_abandoned(&mut ann);
        let ticks = last_tick(&mut bob, before) - before;
        // Three tickers were killed after a second of processor time each, or five of sleep.
        assert!(
            way == Pace::Aborts || ticks >= 15,
            "{ticks} ticks of the other room"
        );
        let next = last_tick(&mut bob, before + ticks);
        assert!(next >= before + ticks);
        assert_eq!(number(&mut bob), next + 1, "it is ticked further");
        expect_logged(&server, &["ticker", "one ticker after another", "abandoned"]);
        let ended = "a match has ended in room 2 (sluggish, \"waiting room\"): Abandoned";
        expect_logged(&server, &["ticker", " INFO ", ended]);
    }
}

/// A server with two tickers, which may be stopped if there is no watchdog.
fn start_with_tickers(options: &[&str]) -> (Server, Vec<u32>) {
    let this_program = std::env::current_exe().expect("a running program has a file");
    let addresses = ["--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"];
    let server = Server::run(
        Command::new(this_program)
            .arg("serve")
            .args(addresses)
            .args(["--tickers", "2"])
            .args(options),
    );
    let processes = server.ask_json("processes");
    let tickers = processes.as_array().expect("a list").iter();
    let tickers: Vec<u32> = tickers
        .filter(|process| process["role"] == "ticker")
        .map(|process| u32::try_from(process["pid"].as_u64().expect("a number")).expect("a pid"))
        .collect();
    assert_eq!(tickers.len(), 2);
    (server, tickers)
}

/// Nobody but the watchdog sees that: no process is left that would wait for one of the rooms.
pub(crate) fn ticks_that_sleep_in_as_many_rooms_as_there_are_tickers_are_ended() {
    let (server, _) = start_with_tickers(&[]);
    let mut players = [server.client("Ann"), server.client("Bob")];
    for player in &mut players {
        player
            .create_room(room(Pace::FallsAsleep))
            .expect("a room is free");
    }
    players.iter_mut().for_each(expect_abandoned);
    assert!(server.status("watchdog_kills_total") >= 2);
}

pub(crate) fn late_ticks_are_shown_by_status_and_for_their_room_by_top() {
    let (server, tickers) = start_with_tickers(&NO_WATCHDOG);
    let mut ann = server.client("Ann");
    ann.create_room(room(Pace::Prompt)).expect("a room is free");
    assert_eq!(number(&mut ann), 1);
    let mut operator = Operator::new(&server);
    operator.send(b"top 3 --json\n");
    for ticker in &tickers {
        server.signal(*ticker, Signal::SIGSTOP);
    }
    // Several ticks are due meanwhile; the first of them comes late, and the others are left out.
    std::thread::sleep(Duration::from_millis(400));
    for ticker in &tickers {
        server.signal(*ticker, Signal::SIGCONT);
    }
    last_tick(&mut ann, 1);
    let top: serde_json::Value = serde_json::from_str(&operator.reply()[0]).expect("JSON");
    let rows = top.as_array().expect("a list");
    let of_room = rows
        .iter()
        .find(|row| row["top"] == "room")
        .expect("it is ticked");
    assert!(of_room["ticks_late"].as_u64() >= Some(1), "{top}");
    let status = server.ask_json("status");
    assert!(status["ticks_late_total"].as_u64() >= Some(1), "{status}");
    for figure in ["tick_lateness_p99_ms", "tick_lateness_max_ms"] {
        assert!(status[figure].as_f64() >= Some(200.0), "{figure}: {status}");
    }
}

pub(crate) fn any_ticker_runs_the_rooms_of_another_that_stands_still() {
    let (server, tickers) = start_with_tickers(&NO_WATCHDOG);
    let mut players = [server.client("Ann"), server.client("Bob")];
    for player in &mut players {
        player.create_room(room(Pace::Prompt)).expect("a room is free");
        assert_eq!(number(player), 1);
    }
    let mut ticks = [1, 1];
    let mut expect_ticks = |players: &mut [Client; 2], count: u32| {
        for (player, last) in players.iter_mut().zip(&mut ticks) {
            for _ in 0..count {
                *last += 1;
                assert_eq!(number(player), *last, "a tick was lost or came twice");
            }
        }
    };
    for ticker in &tickers {
        server.signal(*ticker, Signal::SIGSTOP);
        expect_ticks(&mut players, 5);
        server.signal(*ticker, Signal::SIGCONT);
        expect_ticks(&mut players, 1);
    }
    for ticker in &tickers {
        server.kill(*ticker);
        expect_ticks(&mut players, 5);
    }
    assert!(server.status("ticks_total") >= 26);
}
