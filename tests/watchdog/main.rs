//! Promise: a process that hangs is killed, and then it is as if it had died. A process that does not hang is never
//! killed, however crowded the machine is.
//!
//! Without the test harness, since this program is also the server: started with `serve` it offers games that hang.

#[path = "../common/mod.rs"]
mod common;
mod crowd;
mod games;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::control_pair::ControlPair;
use common::{Server, WAIT_MAX, eventually};
use crowd::{be_busy, on_a_crowded_machine_no_innocent_process_is_killed};
use forkade::games::relay::Relay;
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{
    ClientMessage, Outcome, RejectCode, RoomEvent, RoomFilter, RoomId, RoomSettings, ServerMessage, codec,
};
use games::{Deed, How, Metronome, Sticky};
use nix::sys::signal::Signal;

/// As arguments of a server.
const ANY_PORTS: [&str; 4] = ["--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"];

fn this_program() -> PathBuf {
    std::env::current_exe().expect("a running program has a file")
}

/// This program as a server, with a watchdog that decides soon.
fn start() -> Server {
    let arguments = ["serve", "--watchdog-cpu-ms", "500"];
    Server::run(Command::new(this_program()).args(arguments).args(ANY_PORTS))
}

/// How often each way to hang is tried.
fn rounds() -> u32 {
    std::env::var("FORKADE_TEST_STUCK").map_or(20, |rounds| rounds.parse().expect("a number"))
}

/// Ann and Bob in a room of the sticky game.
fn together(server: &Server) -> [Client; 2] {
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let room = ann
        .create_room(NewRoom::new("sticky", "fly paper"))
        .expect("a room is free");
    bob.join_room(room.room, None).expect("a seat is free");
    [ann, bob]
}

fn deed(deed: &Deed) -> Vec<u8> {
    codec::encode(deed).expect("encodes")
}

fn send(client: &mut Client, what: &Deed) {
    let action = deed(what);
    client
        .send(&ClientMessage::Act { request: 9, action })
        .expect("the session lives");
}

/// The next number that the game sends.
fn number(client: &mut Client) -> u32 {
    loop {
        match client.receive(WAIT_MAX).expect("the session lives") {
            Some(ServerMessage::Event {
                event: RoomEvent::Game { data },
                ..
            }) => return codec::decode(&data).expect("a number"),
            Some(ServerMessage::Event { .. } | ServerMessage::Pong { .. }) => {}
            other => panic!(
                "the game says nothing, but {other:?}; it was away {:?}",
                client.counters()
            ),
        }
    }
}

/// A file that makes one process hang.
struct Token(PathBuf);

impl Token {
    fn lay(name: &str) -> Self {
        static LAID: AtomicU32 = AtomicU32::new(0);
        let number = LAID.fetch_add(1, Ordering::Relaxed);
        let file = format!("forkade-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, "").expect("a temporary file can be written");
        Self(path)
    }

    fn was_taken(&self) -> bool {
        !self.0.exists()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Ann's process hangs under the lock of her room, once in each round.
fn stuck_under_a_rooms_lock(how: How, rounds: u32) {
    let server = start();
    let [mut ann, mut bob] = together(&server);
    let control_pair = ControlPair::start(&server);
    let mut sum = 0;
    for round in 1..=rounds {
        let token = Token::lay("stuck");
        let ann_was = server.handler_of("Ann").expect("she is served");
        let bob_was = server.handler_of("Bob").expect("he is served");
        send(&mut ann, &Deed::StickOnce(how, token.0.clone()));
        eventually("she is stuck", || token.was_taken());
        // Bob waits for the same lock; others do not.
        send(&mut bob, &Deed::Add(1));
        control_pair.expect_progress();
        for client in [&mut ann, &mut bob] {
            assert_eq!([number(client), number(client)], [sum + 1, sum + 2], "{how:?}");
        }
        sum += 2;
        assert_eq!(server.status("watchdog_kills_total"), u64::from(round), "{how:?}");
        assert_ne!(server.handler_of("Ann"), Some(ann_was), "she was taken over");
        assert_eq!(server.handler_of("Bob"), Some(bob_was), "he was let alone");
    }
    for client in [&ann, &bob] {
        assert_eq!(client.counters().resumes, 0, "nobody lost the connection");
    }
    assert_eq!(server.status("takeovers_total"), u64::from(rounds));
    assert_eq!(server.status("blamed_total"), 0);
    control_pair.finish();
    server.expect_logged(match how {
        // Its parent is told of that at once.
        How::Stopped => "does not come round its loop and is stopped",
        How::Looping | How::Asleep => "keeps others waiting for the lock of room 1 (sticky, \"fly paper\")",
    });
}

fn a_process_that_is_stopped_under_a_rooms_lock_is_killed_and_its_player_is_taken_over() {
    stuck_under_a_rooms_lock(How::Stopped, rounds());
}

fn an_endless_loop_under_a_rooms_lock_is_killed_and_its_player_is_taken_over() {
    stuck_under_a_rooms_lock(How::Looping, rounds());
}

fn a_process_that_sleeps_under_a_rooms_lock_is_killed_and_its_player_is_taken_over() {
    stuck_under_a_rooms_lock(How::Asleep, 1);
}

fn a_process_that_sleeps_under_a_rooms_lock_is_killed_although_only_tickers_need_it() {
    let server = start();
    let mut ann = server.client("Ann");
    ann.create_room(NewRoom::new("metronome", "music"))
        .expect("a room is free");
    assert_eq!(number(&mut ann), 1);
    let token = Token::lay("alone");
    send(&mut ann, &Deed::StickOnce(How::Asleep, token.0.clone()));
    eventually("the game hangs", || token.was_taken());
    eventually("its process is killed", || {
        server.status("watchdog_kills_total") == 1
    });
    let seen = number(&mut ann);
    while number(&mut ann) < seen + 20 {}
    assert_eq!(ann.counters().resumes, 0);
}

fn no_client_waits_for_a_room_whose_game_hangs() {
    let mut server = start();
    let (mut ann, mut cyd, mut dan) = (server.client("Ann"), server.client("Cyd"), server.client("Dan"));
    let hung = ann
        .create_room(NewRoom::new("sticky", "fly paper"))
        .expect("a room is free");
    let token = Token::lay("hung");
    send(&mut ann, &Deed::StickOnce(How::Asleep, token.0.clone()));
    eventually("the game hangs", || token.was_taken());
    let (rooms, _) = cyd
        .list_rooms(RoomFilter::default(), None)
        .expect("the session lives");
    let listed: Vec<_> = rooms.iter().map(|room| (room.room, room.taken)).collect();
    assert_eq!(listed, [(hung.room, 1)]);
    // Two players still find each other.
    let cyds = cyd.quick_match("sticky", vec![]).expect("a seat");
    let dans = dan.quick_match("sticky", vec![]).expect("a seat");
    assert!(cyds.room != hung.room && cyds.room == dans.room);
    let shown = server.ask_json("rooms");
    let names = |room: RoomId| {
        let is_it = |row: &&serde_json::Value| row["id"] == room.0;
        let row = shown.as_array().expect("a list").iter().find(is_it);
        row.expect("it is listed")["players"].clone()
    };
    assert_eq!(names(hung.room), serde_json::Value::Null);
    assert_eq!(names(cyds.room), serde_json::json!(["Cyd", "Dan"]));
    assert_eq!(server.ask_json("players").as_array().map(Vec::len), Some(3));
    let busy = server.try_ask(&format!("room {}", hung.room.0));
    assert!(busy.is_err_and(|why| why.contains("its game hangs")));
    // The ticker does not wait, either: the time given to the drain ends it.
    server.ask("drain 1");
    eventually("the server stops", || {
        server
            .log()
            .contains("the drain is over, with 2 matches under way")
    });
    assert!(!server.log().contains(" and sleeps: killed"), "it was waited for");
    server.expect_any_end();
    server.wait();
}

fn a_frame_in_which_all_get_stuck_is_refused_and_costs_one_connection_and_no_other() {
    for how in [How::Looping, How::Stopped] {
        let server = start();
        let [mut ann, mut bob] = together(&server);
        let control_pair = ControlPair::start(&server);
        let bob_was = server.handler_of("Bob").expect("he is served");
        send(&mut bob, &Deed::Add(5));
        assert_eq!([number(&mut ann), number(&mut bob)], [5, 5]);
        send(&mut ann, &Deed::Stick(how));
        let is_refusal = |message: &ServerMessage| matches!(message, ServerMessage::Rejected { .. });
        let deadline = Instant::now() + WAIT_MAX;
        let (mut refusal, mut sum) = (None, 5);
        while refusal.is_none() && Instant::now() < deadline {
            // Bob waits for the lock, whichever process holds it.
            send(&mut bob, &Deed::Add(1));
            sum += 1;
            assert_eq!(number(&mut bob), sum);
            let soon = Duration::from_millis(10);
            refusal = ann.receive_where(soon, is_refusal).expect("the session goes on");
        }
        assert!(
            matches!(
                refusal,
                Some(ServerMessage::Rejected {
                    request: 9,
                    code: RejectCode::GameFailed,
                    ..
                })
            ),
            "{refusal:?}"
        );
        // Her connection has ended, but not her session: she continues after the refused frame.
        eventually("she is back", || {
            ann.ping().expect("the session goes on");
            ann.counters().resumes == 1
        });
        send(&mut ann, &Deed::Add(1));
        assert_eq!(number(&mut bob), sum + 1);
        assert_eq!(server.status("watchdog_kills_total"), 3, "{how:?}");
        assert_eq!(server.status("blamed_total"), 1);
        assert_eq!(server.handler_of("Bob"), Some(bob_was));
        assert_eq!(bob.counters().resumes, 0);
        control_pair.finish();
    }
}

fn a_handler_that_is_stopped_is_killed_and_its_player_is_taken_over() {
    let server = start();
    let [mut ann, mut bob] = together(&server);
    let control_pair = ControlPair::start(&server);
    for round in 1..=rounds() {
        let stopped = server.handler_of("Ann").expect("she is served");
        server.signal(stopped, Signal::SIGSTOP);
        // She says something every other time; and she is told what happens in any case.
        if round % 2 == 0 {
            send(&mut ann, &Deed::Add(0));
            assert_eq!([number(&mut ann), number(&mut bob)], [round - 1; 2]);
        }
        send(&mut bob, &Deed::Add(1));
        assert_eq!([number(&mut bob), number(&mut ann)], [round; 2]);
        let now = server.handler_of("Ann").expect("she is served");
        assert_ne!(now, stopped, "she was taken over");
        assert_eq!(server.status("watchdog_kills_total"), u64::from(round));
    }
    assert_eq!((ann.counters().resumes, bob.counters().resumes), (0, 0));
    assert_eq!(server.status("takeovers_total"), u64::from(rounds()));
    assert_eq!(
        server.status("blamed_total"),
        0,
        "nobody is to blame for being stopped"
    );
    control_pair.finish();
}

fn a_handler_that_loops_is_killed_also_when_nobody_waits_for_it() {
    let server = start();
    let mut ann = server.client("Ann");
    ann.create_room(NewRoom::new("sticky", "alone"))
        .expect("a room is free");
    let control_pair = ControlPair::start(&server);
    let token = Token::lay("alone");
    send(&mut ann, &Deed::StickOnce(How::Looping, token.0.clone()));
    assert_eq!(number(&mut ann), 1);
    assert_eq!(server.status("watchdog_kills_total"), 1);
    assert_eq!(server.status("takeovers_total"), 1);
    // A connection whose handlers hang again and again is given up.
    let refused = ann.act(deed(&Deed::Stick(How::Looping)));
    let code = refused.expect_err("nobody can do it").reject_code();
    assert_eq!(code, Some(RejectCode::GameFailed));
    assert_eq!(server.status("watchdog_kills_total"), 4);
    control_pair.finish();
    ann.act(deed(&Deed::Add(1))).expect("the game goes on");
    server.expect_logged("does not come round its loop");
}

fn a_role_that_is_stopped_is_replaced_and_players_do_not_notice() {
    let server = start();
    let control_pair = ControlPair::start(&server);
    let pids = |role: &str| {
        let processes = server.ask_json("processes");
        let is_it = |process: &&serde_json::Value| process["role"] == role;
        let pids = processes.as_array().expect("a list").iter().filter(is_it);
        pids.map(|process| process["pid"].as_u64().expect("a number"))
            .collect::<Vec<_>>()
    };
    // The keepers last: the console's connection goes with its keeper.
    for role in ["ticker", "listener", "keeper"] {
        let before = pids(role);
        for pid in &before {
            server.signal(u32::try_from(*pid).expect("a pid"), Signal::SIGSTOP);
        }
        eventually("the stopped ones are gone", || {
            before
                .iter()
                .all(|pid| !common::is_alive(u32::try_from(*pid).expect("a pid")))
        });
        // A client that connects meanwhile waits and is served.
        server.client("Carol").goodbye().expect("said in order");
        eventually("all are replaced", || pids(role).len() == before.len());
        control_pair.expect_progress();
    }
    let stopped = 1 + pids("ticker").len() + pids("keeper").len();
    assert_eq!(server.status("watchdog_kills_total"), stopped as u64);
    control_pair.finish();
}

fn a_tick_that_never_ends_costs_its_match_and_no_other() {
    for how in [How::Looping, How::Stopped] {
        let server = start();
        let control_pair = ControlPair::start(&server);
        let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
        let metronome = |sticks: Option<How>| NewRoom {
            settings: RoomSettings {
                options: codec::encode(&sticks).expect("encodes"),
                ..RoomSettings::default()
            },
            ..NewRoom::new("metronome", "music")
        };
        bob.create_room(metronome(None)).expect("a room is free");
        ann.create_room(metronome(Some(how))).expect("a room is free");
        assert_eq!([number(&mut ann), number(&mut ann)], [1, 2]);
        let end = ann.receive_where(WAIT_MAX, |message| {
            matches!(
                message,
                ServerMessage::Event {
                    event: RoomEvent::Finished {
                        outcome: Outcome::Abandoned
                    },
                    ..
                }
            )
        });
        assert!(matches!(end, Ok(Some(_))), "she is told: {end:?}");
        assert_eq!(server.status("rooms_blamed_total"), 1);
        assert_eq!(server.status("watchdog_kills_total"), 3, "{how:?}");
        // Time goes on in the other room.
        let seen = number(&mut bob);
        while number(&mut bob) < seen + 20 {}
        ann.leave().expect("in the room");
        ann.create_room(metronome(None)).expect("a room is free");
        assert_eq!(number(&mut ann), 1);
        assert_eq!((ann.counters().resumes, bob.counters().resumes), (0, 0));
        assert_eq!(server.status("takeovers_total"), 0);
        control_pair.finish();
    }
}

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => {
            return forkade::Server::new()
                .game::<Sticky>()
                .game::<Metronome>()
                .game::<Relay>()
                .main();
        }
        Some("be-busy") => be_busy(),
        _ => {}
    }
    // These mostly wait for time to pass, so they run in parallel.
    run_all(&[
        named!(a_process_that_is_stopped_under_a_rooms_lock_is_killed_and_its_player_is_taken_over),
        named!(an_endless_loop_under_a_rooms_lock_is_killed_and_its_player_is_taken_over),
        named!(a_process_that_sleeps_under_a_rooms_lock_is_killed_and_its_player_is_taken_over),
        named!(a_process_that_sleeps_under_a_rooms_lock_is_killed_although_only_tickers_need_it),
        named!(no_client_waits_for_a_room_whose_game_hangs),
        named!(a_frame_in_which_all_get_stuck_is_refused_and_costs_one_connection_and_no_other),
        named!(a_handler_that_is_stopped_is_killed_and_its_player_is_taken_over),
        named!(a_handler_that_loops_is_killed_also_when_nobody_waits_for_it),
        named!(a_role_that_is_stopped_is_replaced_and_players_do_not_notice),
        named!(a_tick_that_never_ends_costs_its_match_and_no_other),
    ]);
    // This one makes the machine as busy as it can.
    run_all(&[named!(on_a_crowded_machine_no_innocent_process_is_killed)]);
    ExitCode::SUCCESS
}

type Test = (&'static str, fn());

/// Runs tests in parallel; those whose names contain the first argument, if there is one. A panic in one ends the
/// program when the others have ended, with a status that says so.
fn run_all(tests: &[Test]) {
    let part = std::env::args().nth(1).unwrap_or_default();
    std::thread::scope(|scope| {
        for (name, test) in tests.iter().filter(|(name, _)| name.contains(&part)) {
            let run = move || {
                println!("test {name} ...");
                let began = Instant::now();
                test();
                println!("test {name} ... ok after {:.1?}", began.elapsed());
            };
            let thread = std::thread::Builder::new().name((*name).to_owned());
            thread.spawn_scoped(scope, run).expect("a thread can be started");
        }
    });
}

/// A test and its name.
macro_rules! named {
    ($test:ident) => {
        (stringify!($test), $test as fn())
    };
}
use named;
