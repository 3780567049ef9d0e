//! Hundreds of players: those whose handlers live notice nothing of killed handlers, and clients that connect
//! while all handlers die at once are served.
//!
//! `FORKADE_TEST_PLAYERS=500 FORKADE_TEST_SECONDS=30 cargo test --release --test kills scale:: --
//! --nocapture` runs more of it and shows the figures.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{ClientMessage, RoomEvent, RoomSettings, ServerMessage, codec};
use nix::sys::signal::Signal;

use crate::common::killer::{Handlers, send};
use crate::common::latencies::Latencies;
use crate::common::liveness::expect_no_pending_work;
use crate::common::random::{Random, seed};
use crate::common::raw_client::{RawClient, handshake};
use crate::common::tcp_table::server_end;
use crate::common::{Server, WAIT_MAX, children, eventually, is_alive, is_asleep, of_name};

/// Pause between two messages of a pair.
const ROUND: Duration = Duration::from_millis(100);
/// Pause between two kills.
const KILL_EVERY: Duration = Duration::from_millis(100);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What pairs do with the latency of a message.
const FORGET: u8 = 0;
const CALM: u8 = 1;
const KILLING: u8 = 2;
const STOP: u8 = 3;

/// Two players in a room of their own that send messages alternately, driven by a thread.
struct Pair {
    /// By what was done with them.
    words: JoinHandle<[Latencies; STOP as usize]>,
}

impl Pair {
    fn begin(server: &Server, number: usize, phase: &Arc<AtomicU8>, rounds: &Arc<AtomicU64>) -> Self {
        let mut players = ["one", "other"].map(|which| server.client(&format!("{which} {number}")));
        let room = NewRoom {
            settings: RoomSettings {
                seats: 2,
                ..RoomSettings::default()
            },
            ..NewRoom::new("relay", format!("room {number}"))
        };
        let room = players[0].create_room(room).expect("a room is free").room;
        players[1].join_room(room, None).expect("a seat is free");
        let (phase, rounds) = (Arc::clone(phase), Arc::clone(rounds));
        let talk = move || {
            let mut words = [(); STOP as usize].map(|()| Latencies::default());
            let mut said = 0_u64;
            loop {
                let now = phase.load(Ordering::SeqCst);
                if now == STOP {
                    break;
                }
                words[usize::from(now)].measure(|| send_and_receive(&mut players, said));
                said += 1;
                rounds.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(ROUND);
            }
            for player in players {
                let counters = player.counters();
                assert_eq!(
                    (counters.resumes, counters.gaps, counters.resyncs),
                    (0, 0, 0),
                    "a player of pair {number} lost its connection"
                );
                player.goodbye().expect("said in order");
            }
            words
        };
        Self {
            words: std::thread::spawn(talk),
        }
    }
}

/// One sends the number, and both receive it once.
fn send_and_receive(players: &mut [Client; 2], said: u64) {
    let speaker = usize::from(said % 2 == 1);
    let action = said.to_le_bytes().to_vec();
    players[speaker]
        .send(&ClientMessage::Act { request: 0, action })
        .expect("the session lives");
    for player in players {
        loop {
            match player.receive(WAIT_MAX).expect("the session lives") {
                Some(ServerMessage::Event {
                    event: RoomEvent::Game { data },
                    ..
                }) => {
                    let (seat, payload): (u8, Vec<u8>) = codec::decode(&data).expect("an event of the relay");
                    assert_eq!(
                        (usize::from(seat), payload),
                        (speaker, said.to_le_bytes().to_vec())
                    );
                    break;
                }
                Some(ServerMessage::Event {
                    event: RoomEvent::Joined { .. },
                    ..
                }) => {}
                other => panic!("instead of an event: {other:?}"),
            }
        }
    }
}

#[test]
fn players_do_not_notice_the_killed_handlers_of_others() {
    let (players, seconds) = (
        number("FORKADE_TEST_PLAYERS", 100),
        number("FORKADE_TEST_SECONDS", 3),
    );
    let server = Server::start(&["--connections-max", "2000", "--heartbeat-timeout-ms", "600000"]);
    let handlers = Handlers::of(&server);
    let (phase, rounds) = (Arc::new(AtomicU8::new(FORGET)), Arc::new(AtomicU64::new(0)));
    let pairs = |from: usize, to: usize| -> Vec<Pair> {
        let begin = |number| Pair::begin(&server, number, &phase, &rounds);
        (from..to).map(begin).collect()
    };
    // A tenth of the players lose their handlers.
    let victims = pairs(0, players.div_ceil(20));
    let of_victims = victims.len() * 2;
    eventually("the victims are served", || handlers.pids().len() == of_victims);
    let mortal = handlers.pids();
    let control_pair = pairs(victims.len(), players / 2);
    let everybody = of_victims + control_pair.len() * 2;
    eventually("all are served", || handlers.pids().len() == everybody);
    let spared: Vec<u32> = handlers.pids();
    let spared: Vec<u32> = spared.into_iter().filter(|pid| !mortal.contains(pid)).collect();
    phase.store(CALM, Ordering::SeqCst);
    std::thread::sleep(Duration::from_secs(seconds as u64));
    phase.store(KILLING, Ordering::SeqCst);
    let (mut random, began) = (Random::new(seed(), 0), Instant::now());
    // No pid is killed twice: a killed process may be listed for a while.
    let mut killed = HashSet::new();
    while began.elapsed() < Duration::from_secs(seconds as u64) {
        let mortal: Vec<u32> = handlers
            .pids()
            .into_iter()
            .filter(|pid| !spared.contains(pid) && !killed.contains(pid))
            .collect();
        if !mortal.is_empty() {
            let victim = *random.choose(&mortal);
            send(victim, Signal::SIGKILL);
            killed.insert(victim);
        }
        std::thread::sleep(KILL_EVERY);
    }
    phase.store(FORGET, Ordering::SeqCst);
    let before = rounds.load(Ordering::SeqCst);
    eventually("all go on talking", || {
        rounds.load(Ordering::SeqCst) > before + 2 * players as u64
    });
    assert!(
        spared.iter().all(|pid| is_alive(*pid)),
        "a handler of a control pair died"
    );
    let kills = killed.len() as u64;
    eventually("all killed handlers were replaced", || {
        server.status("takeovers_total") >= kills
    });
    phase.store(STOP, Ordering::SeqCst);
    println!("{players} players, {of_victims} of them with {kills} handlers killed in {seconds} s");
    for (who, pairs) in [
        ("control pairs", control_pair),
        ("those whose handlers die", victims),
    ] {
        let (mut calm, mut killing) = (Latencies::default(), Latencies::default());
        for pair in pairs {
            match pair.words.join() {
                Ok([_, of_calm, of_killing]) => {
                    calm.add(of_calm);
                    killing.add(of_killing);
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        calm.print(&format!("a message among {who}, without kills"));
        killing.print(&format!("a message among {who}, with kills   "));
    }
    assert_eq!(
        server.status("takeovers_total"),
        kills,
        "and no other handler was"
    );
    server.expect_no_errors();
    expect_no_pending_work(&server);
}

#[test]
fn a_client_that_connects_while_all_handlers_die_is_served() {
    const NEWCOMERS: usize = 30;
    let players = number("FORKADE_TEST_PLAYERS", 100);
    let server = Server::start(&["--connections-max", "2000", "--heartbeat-timeout-ms", "600000"]);
    let mut established: Vec<Client> = (0..players)
        .map(|number| server.client(&format!("player {number}")))
        .collect();
    let handlers = Handlers::of(&server);
    let enough = Arc::new(AtomicBool::new(false));
    let (told, killers) = (Arc::clone(&enough), handlers.clone());
    // Repeatedly: whenever all handlers exist again, all are killed.
    let storms = std::thread::spawn(move || {
        let (mut storms, mut killed) = (0, HashSet::new());
        while !told.load(Ordering::Relaxed) {
            let mut there = Vec::new();
            eventually("all have successors", || {
                there = killers.pids();
                there.retain(|pid| !killed.contains(pid));
                there.len() >= players
            });
            killed.extend(there.into_iter().filter(|pid| send(*pid, Signal::SIGKILL)));
            storms += 1;
        }
        (storms, killed.len())
    });
    let mut greetings = Latencies::default();
    let newcomers: Vec<RawClient> = (0..NEWCOMERS)
        .map(|number| {
            let mut newcomer = None;
            greetings
                .measure(|| newcomer = Some(RawClient::connect_as(&server, &format!("newcomer {number}"))));
            newcomer.expect("greeted")
        })
        .collect();
    enough.store(true, Ordering::Relaxed);
    let (storms, killed) = storms.join().expect("killing does not fail");
    println!("{killed} handlers of {players} players killed, all at once in each of {storms} storms");
    greetings.print("a greeting meanwhile");
    for mut newcomer in newcomers {
        newcomer.send_message(&ClientMessage::Ping { nonce: 1 });
        let pong = newcomer.next_message();
        assert!(
            matches!(pong, Ok(ServerMessage::Pong { nonce: 1, .. })),
            "{pong:?}"
        );
    }
    for player in &mut established {
        player.ping().expect("the session lives");
        assert_eq!(player.counters().resumes, 0, "a connection was lost");
    }
    assert_eq!(server.status("lost_before_greeting_total"), 0);
    expect_no_pending_work(&server);
    server.expect_no_errors();
}

#[test]
fn a_client_that_connects_after_all_handlers_died_does_not_wait_for_all_replacements() {
    const PLAYERS: usize = 60;
    // The watchdog ignores stopped processes here.
    let server = Server::start(&["--heartbeat-timeout-ms", "600000", "--watchdog-cpu-ms", "0"]);
    let mut established: Vec<Client> = (0..PLAYERS)
        .map(|number| server.client(&format!("player {number}")))
        .collect();
    let handlers = Handlers::of(&server);
    let keepers = of_name(&children(server.pid()), "keeper");
    eventually("all are served", || handlers.pids().len() == PLAYERS);
    // When the keepers continue, they find all handlers dead and the new client waiting.
    for keeper in &keepers {
        server.signal(*keeper, Signal::SIGSTOP);
    }
    assert_eq!(handlers.signal_all(Signal::SIGKILL), PLAYERS);
    let mut newcomer = RawClient::connect(&server);
    newcomer.send(&handshake("newcomer"));
    eventually("the listener has accepted the newcomer", || {
        server_end(server.game.port(), newcomer.port()).is_some_and(|end| end.inode != 0)
    });
    eventually("the listener sleeps again", || {
        of_name(&children(server.pid()), "listener")
            .iter()
            .all(|listener| is_asleep(*listener))
    });
    for keeper in &keepers {
        server.signal(*keeper, Signal::SIGCONT);
    }
    newcomer.next_where(|message| matches!(message, ServerMessage::Welcome { .. }));
    for player in &mut established {
        player.ping().expect("the session lives");
        assert_eq!(player.counters().resumes, 0, "a connection was lost");
    }
    let its_handler = server.handler_of("newcomer").expect("it is served");
    // In the order in which they started.
    let mut of_keepers = keepers.iter().map(|keeper| children(*keeper));
    let handlers = of_keepers
        .find(|handlers| handlers.contains(&its_handler))
        .expect("a keeper has forked it");
    let after = handlers.iter().skip_while(|pid| **pid != its_handler).count() - 1;
    assert!(
        after > handlers.len() / 2,
        "only {after} of {} successors were forked after the newcomer's handler",
        handlers.len() - 1
    );
    server.expect_no_errors();
}

/// A server with one keeper and these players. The watchdog ignores stopped processes.
fn with_one_keeper(players: usize) -> (Server, Vec<Client>, Handlers) {
    let server = Server::start(&[
        "--keepers",
        "1",
        "--connections-max",
        "900",
        "--watchdog-cpu-ms",
        "0",
    ]);
    let clients: Vec<Client> = (0..players)
        .map(|number| server.client(&format!("player {number}")))
        .collect();
    let handlers = Handlers::of(&server);
    eventually("all are served", || handlers.pids().len() == players);
    (server, clients, handlers)
}

#[test]
fn a_keeper_that_is_told_to_end_first_replaces_all_dead_handlers() {
    const PLAYERS: usize = 30;
    let (server, mut players, handlers) = with_one_keeper(PLAYERS);
    let (keeper, dying) = (server.keeper(), handlers.pids());
    // As in an upgrade. The keeper finds all of this at once when it continues.
    server.signal(keeper, Signal::SIGSTOP);
    assert_eq!(handlers.signal_all(Signal::SIGKILL), PLAYERS);
    eventually("they have died", || !dying.iter().any(|pid| is_alive(*pid)));
    server.signal(keeper, Signal::SIGTERM);
    server.signal(keeper, Signal::SIGCONT);
    server.keeper_after(keeper);
    for player in &mut players {
        player.ping().expect("the session lives");
        assert_eq!(player.counters().resumes, 0, "a connection was lost");
    }
    // Only their parent learns how they died.
    eventually("it says of each how it died", || {
        server.log().matches("died (SIGKILL): replaced").count() == PLAYERS
    });
    server.expect_no_errors();
}

#[test]
fn handlers_that_die_between_two_keepers_are_replaced() {
    // More than one transfer message holds.
    const PLAYERS: usize = 130;
    let (server, mut players, handlers) = with_one_keeper(PLAYERS);
    let (keeper, dying) = (server.keeper(), handlers.pids());
    // The supervisor is stopped, so it starts no other keeper.
    server.signal(server.pid(), Signal::SIGSTOP);
    server.signal(keeper, Signal::SIGTERM);
    eventually("the keeper has ended", || !is_alive(keeper));
    for handler in &dying {
        server.kill(*handler);
    }
    eventually("they have died", || !dying.iter().any(|pid| is_alive(*pid)));
    server.signal(server.pid(), Signal::SIGCONT);
    for player in &mut players {
        player.ping().expect("the session lives");
        assert_eq!(player.counters().resumes, 0, "a connection was lost");
    }
    server.expect_no_errors();
}
