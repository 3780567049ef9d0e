//! Promise: whatever process is killed, and however often, every message arrives exactly once and in order,
//! no process sleeps while it has work, and a single death costs no connection.
//!
//! Players that use the client library send messages in rooms, join and leave, and lose connections of their
//! own. Meanwhile handlers, keepers, the ticker and the listener are killed at random moments. Only a player
//! that loses its handler *and* that handler's keeper at the same moment may lose its connection, which is
//! resumed without loss. The test causes this now and then, and counts it. No client sends heartbeats that
//! would wake a handler that sleeps wrongly: then the awaited message would not arrive, and the test would
//! fail.
//!
//! This is a program of its own: beside other tests a killed process would take seconds to die.
//!
//! `FORKADE_TEST_FAULTS=100000 cargo test --release --test faults -- --nocapture` kills more often.

mod chaos;
#[path = "../common/mod.rs"]
mod common;
mod room_script;
mod visitor_script;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::footprint::held;
use crate::common::liveness::expect_no_pending_work;
use crate::common::random::{Random, seed};
use crate::common::{Server, WAIT_MAX, eventually};
use chaos::{Chaos, Tally};
use forkade_protocol::client::ClientOptions;
use room_script::{Pacing, RoomScript};

/// Rooms with many messages.
const LIVELY_ROOMS: u64 = 6;
/// Rooms with fewer messages, in which visitors join and leave.
const QUIET_ROOMS: u64 = 2;
/// Visitors at the same time.
const VISITORS: u64 = 2;
/// Time limit for any step: longer than a role whose processes keep dying may be without a process.
const LIMIT: Duration = Duration::from_secs(30);

/// What happened to players beyond their own requests.
#[derive(Debug, Default)]
struct Figures {
    /// Latency of every message until all in the room had received it, in microseconds.
    pauses_us: Vec<u64>,
    words: u64,
    /// Connections cut by the players themselves.
    cuts: u64,
    resumes: u64,
    gaps: u64,
    resyncs: u64,
    /// Handshakes that were not answered in time.
    not_greeted: u64,
    /// How often a room was told that a player's connection is lost.
    shown_away: u64,
    visits: u64,
}

impl Figures {
    fn add(&mut self, other: Self) {
        self.pauses_us.extend(other.pauses_us);
        self.words += other.words;
        self.cuts += other.cuts;
        self.resumes += other.resumes;
        self.gaps += other.gaps;
        self.resyncs += other.resyncs;
        self.not_greeted += other.not_greeted;
        self.shown_away += other.shown_away;
        self.visits += other.visits;
    }
}

/// Number of processes to kill.
fn kills() -> usize {
    std::env::var("FORKADE_TEST_FAULTS").map_or(1500, |kills| kills.parse().expect("a number"))
}

/// Options of a client that sends no heartbeats, and gives up if nothing arrives.
fn options() -> ClientOptions {
    ClientOptions {
        connect_timeout: LIMIT,
        reply_timeout: LIMIT,
        reconnect_timeout: LIMIT,
        reconnect_pause_max: Duration::from_millis(20),
        heartbeat: Some(WAIT_MAX * 60),
        ..ClientOptions::default()
    }
}

#[test]
fn every_message_arrives_once_and_no_work_is_left_whatever_process_is_killed() {
    let random = Random::new(seed(), 0);
    let mut server = Server::start(&[
        "--heartbeat-timeout-ms",
        "86400000",
        "--keepers",
        "3",
        "--requests-per-minute",
        "0",
    ]);
    let [no_more_visits, no_more_talk] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (mut rooms, mut talks, mut visits) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..LIVELY_ROOMS + QUIET_ROOMS {
        let is_lively = number < LIVELY_ROOMS;
        let manner = if is_lively { Pacing::LIVELY } else { Pacing::QUIET };
        let random = Random::new(random.clone().next(), number);
        let talk = RoomScript::begin(server.game, number, manner, random);
        if !is_lively {
            rooms.push(talk.room);
        }
        let stop = Arc::clone(&no_more_talk);
        talks.push(std::thread::spawn(move || talk.run(&stop)));
    }
    for number in 0..VISITORS {
        let random = Random::new(random.clone().next(), 1000 + number);
        let (stop, rooms, address) = (Arc::clone(&no_more_visits), rooms.clone(), server.game);
        visits.push(std::thread::spawn(move || {
            visitor_script::visit(address, number, &rooms, random, &stop)
        }));
    }
    let began = Instant::now();
    let all_go_on = || talks.iter().chain(&visits).all(|thread| !thread.is_finished());
    let mut chaos = Chaos::new(server.pid(), Random::new(random.clone().next(), 2000));
    while chaos.tally.total() < kills() && all_go_on() {
        chaos.kill_next();
    }
    chaos.wait_until_recovered();
    let seconds = began.elapsed().as_secs_f64();
    let mut figures = Figures::default();
    // The visitors stop first: they are in the other players' rooms.
    for (stop, threads) in [(no_more_visits, visits), (no_more_talk, talks)] {
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            match thread.join() {
                Ok(of_thread) => figures.add(of_thread),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    }
    let tally = chaos.tally;
    report(&tally, &mut figures, seconds);
    check_figures(&server, &tally, &figures);
    expect_no_pending_work(&server);
    eventually("all resources are released", || held(&server) == [0, 0, 0]);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert_eq!(server.stop().code(), Some(0));
}

fn report(tally: &Tally, figures: &mut Figures, seconds: f64) {
    figures.pauses_us.sort_unstable();
    let at = |per_mille: usize| {
        let last = figures.pauses_us.len() - 1;
        figures.pauses_us[last * per_mille / 1000] as f64 / 1000.0
    };
    println!("{tally:?} in {seconds:.1} s");
    println!(
        "{} messages received by all, {} visits, {} connections cut by their players, {} resumes",
        figures.words, figures.visits, figures.cuts, figures.resumes
    );
    println!(
        "latency of a message, in ms: p50 {:.2}  p90 {:.2}  p99 {:.1}  p99.9 {:.1}  max {:.1}",
        at(500),
        at(900),
        at(990),
        at(999),
        at(1000)
    );
}

fn check_figures(server: &Server, tally: &Tally, figures: &Figures) {
    let Tally {
        handlers,
        keepers,
        tickers,
        listeners,
        double_faults,
    } = *tally;
    assert!(
        handlers > 0 && keepers > 0 && tickers > 0 && listeners > 0 && double_faults > 0,
        "{tally:?}"
    );
    assert!(figures.words > 0 && figures.visits > 0 && figures.cuts > 0);
    assert_eq!(figures.gaps, 0, "something was lost");
    // Three deaths over one frame are attributed to that frame, even by chance.
    let excused = double_faults as u64
        + server.status("blamed_total")
        // A dead keeper may have held a new connection.
        + server.status("lost_before_greeting_total");
    let unwanted = figures.resumes.saturating_sub(figures.cuts) + figures.not_greeted;
    assert!(
        unwanted <= excused,
        "{unwanted} connections were lost, of which {excused} may be"
    );
    // A player that was away for longer than the room's event log reaches gets a snapshot.
    assert!(figures.resyncs <= excused, "{} resyncs", figures.resyncs);
    assert!(
        figures.shown_away <= figures.cuts + excused,
        "a player was shown as absent {} times",
        figures.shown_away
    );
}
