//! Promise: a killed handler is replaced by a fresh one on the same TCP connection. Not a byte is lost, repeated or
//! reordered.
//!
//! `FORKADE_TEST_KILLS=20000 cargo test --release --test kills takeover:: -- --nocapture` kills more often and shows
//! the figures.

use std::collections::HashSet;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::byte_exact::{Pacing, Receiver, Script, Sender, SoloPlayer, handshake_and_room};
use crate::common::footprint::{held, running};
use crate::common::killer::{Handlers, Killer, kills, send};
use crate::common::latencies::Latencies;
use crate::common::liveness::expect_no_pending_work;
use crate::common::random::{Random, seed};
use crate::common::raw_client::{RawClient, frame};
use crate::common::{Server, WAIT_MAX, eventually};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{ClientMessage, RoomEvent, RoomSettings, ServerMessage, codec};
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

/// A server without heartbeat timeout: a process that sleeps despite work is not woken by it, and the test
/// notices.
const NO_HEARTBEAT: [&str; 2] = ["--heartbeat-timeout-ms", "600000"];

/// A server whose watchdog ignores stopped processes.
const NO_WATCHDOG: [&str; 2] = ["--watchdog-cpu-ms", "0"];

/// Longest pauses between a replacement's start and its death: some die before they have done anything, some
/// do much.
const PAUSE_MAX: Duration = Duration::from_micros(2500);

/// Bytes of answers that the player has not received when it sends more.
const IN_FLIGHT_BYTES_MAX: u64 = 32 * 1024;

/// How one player sends and receives while handlers die.
struct Talk {
    script: Script,
    speaks: Pacing,
    listens: Pacing,
    /// Bytes of the client's receive buffer; 0 for the system's default.
    receive_buffer_bytes: usize,
}

impl Talk {
    /// One player sends to itself while its handler is killed repeatedly, from before the handshake.
    fn hold(&self, server: &Server, random: &Random, kills: usize) {
        let (stream, killer) = (
            self.connect(server),
            Killer::start(server, random.clone(), kills, PAUSE_MAX),
        );
        let mut speaker = Sender {
            stream: stream.try_clone().expect("a descriptor"),
            random: Random::new(random.clone().next(), 1),
            manner: self.speaks,
        };
        let mut listener = Receiver::new(
            stream,
            Random::new(random.clone().next(), 2),
            self.listens,
            self.script,
        );
        let (received, count) = (listener.received(), Arc::new(AtomicU64::new(u64::MAX)));
        let awaited = Arc::clone(&count);
        let listening = std::thread::spawn(move || {
            listener.expect_welcome();
            listener.receive(&awaited);
            listener
        });
        speaker.send(&handshake_and_room("Talker"));
        let (mut said, mut answers_bytes) = (0, 0);
        while !killer.is_done() && !listening.is_finished() {
            // A client that confirms keeps less in flight than the server sends unconfirmed, so that the next confirm
            // is not stuck behind frames that wait for it.
            while answers_bytes > received.load(Ordering::Relaxed) + IN_FLIGHT_BYTES_MAX
                && !listening.is_finished()
            {
                std::thread::sleep(Duration::from_micros(100));
            }
            let received = received.load(Ordering::Relaxed);
            speaker.send(&frame(&ClientMessage::Confirm { received }));
            speaker.send(&self.script.said(said));
            answers_bytes += self.script.heard(said).len() as u64;
            said += 1;
        }
        count.store(said + 1, Ordering::SeqCst);
        speaker.send(&self.script.said(said));
        let mut listener = listening.join().expect("the listener heard what it must");
        speaker.send(&frame(&ClientMessage::Goodbye));
        listener.expect_end();
        println!(
            "{} handlers killed over {} payloads, {} bytes",
            killer.stop(),
            listener.payloads,
            received.load(Ordering::Relaxed)
        );
        expect_no_pending_work(server);
    }

    fn connect(&self, server: &Server) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
        if self.receive_buffer_bytes > 0 {
            socket
                .set_recv_buffer_size(self.receive_buffer_bytes)
                .expect("an option can be set");
        }
        socket.connect(&server.game.into()).expect("the server accepts");
        socket
            .set_read_timeout(Some(WAIT_MAX))
            .expect("an option can be set");
        socket
            .set_write_timeout(Some(WAIT_MAX))
            .expect("an option can be set");
        socket.set_tcp_nodelay(true).expect("an option can be set");
        socket.into()
    }
}

#[test]
fn no_byte_is_lost_repeated_or_reordered_however_often_the_handler_is_killed() {
    let random = Random::new(seed(), 1);
    let talk = Talk {
        script: Script::new(random.clone().next(), 300),
        speaks: Pacing::FAST,
        listens: Pacing::FAST,
        receive_buffer_bytes: 0,
    };
    talk.hold(&Server::start(&NO_HEARTBEAT), &random, kills(40));
}

#[test]
fn no_byte_to_a_slow_reader_is_lost_when_its_handler_is_killed() {
    let random = Random::new(seed(), 2);
    let talk = Talk {
        script: Script::new(random.clone().next(), 4000),
        speaks: Pacing::FAST,
        listens: Pacing {
            piece_bytes_max: 2000,
            pauses_percent: 90,
            urgent_percent: 0,
        },
        receive_buffer_bytes: 4096,
    };
    let server = Server::start(&[&NO_HEARTBEAT[..], &["--send-buffer-bytes", "4096"]].concat());
    talk.hold(&server, &random, kills(15));
}

#[test]
fn urgent_bytes_are_received_like_all_others() {
    let random = Random::new(seed(), 3);
    let talk = Talk {
        script: Script::new(random.clone().next(), 100),
        speaks: Pacing {
            piece_bytes_max: 100,
            pauses_percent: 20,
            urgent_percent: 30,
        },
        listens: Pacing::FAST,
        receive_buffer_bytes: 0,
    };
    talk.hold(&Server::start(&NO_HEARTBEAT), &random, kills(10));
}

#[test]
fn a_fragmented_handshake_is_answered_once_although_handlers_are_killed() {
    let server = Server::start(&NO_HEARTBEAT);
    let random = Random::new(seed(), 4);
    let script = Script::new(random.clone().next(), 200);
    let manner = Pacing {
        piece_bytes_max: 30,
        pauses_percent: 30,
        urgent_percent: 0,
    };
    let killer = Killer::start(&server, random.clone(), kills(15), PAUSE_MAX);
    let mut greeted = 0;
    while !killer.is_done() {
        let random = Random::new(random.clone().next(), greeted);
        let mut alone = SoloPlayer::enter(
            server.connect(),
            &format!("Guest {greeted}"),
            &random,
            manner,
            script,
        );
        for _ in 0..5 {
            alone.send_next();
        }
        alone.receive_sent();
        alone.leave();
        greeted += 1;
    }
    println!("{} handlers killed over {greeted} greetings", killer.stop());
    server.expect_no_errors();
    eventually("nothing is left of them", || held(&server) == [0, 0, 0]);
}

#[test]
fn all_input_before_a_half_close_is_answered() {
    let server = Server::start(&[&NO_HEARTBEAT[..], &["--seat-grace-ms", "1000"]].concat());
    let mut random = Random::new(seed(), 5);
    let script = Script::new(random.clone().next(), 3000);
    let manner = Pacing {
        piece_bytes_max: 8000,
        pauses_percent: 20,
        urgent_percent: 0,
    };
    let killer = Killer::start(&server, random.clone(), kills(15), PAUSE_MAX);
    let mut greeted = 0;
    while !killer.is_done() {
        let random = Random::new(random.next(), greeted);
        let mut alone = SoloPlayer::connected(server.connect(), &random, manner, script);
        alone
            .speaker
            .send(&handshake_and_room(&format!("Guest {greeted}")));
        for _ in 0..random.clone().below(60) {
            alone.send_next();
        }
        alone
            .speaker
            .stream
            .shutdown(Shutdown::Write)
            .expect("the connection lives");
        alone.listener.expect_welcome();
        alone.receive_sent();
        alone.listener.expect_end();
        greeted += 1;
    }
    println!(
        "{} handlers killed over {greeted} half-closed connections",
        killer.stop()
    );
    server.expect_no_errors();
    eventually("nothing is left of them", || held(&server) == [0, 0, 0]);
}

#[test]
fn a_handler_is_replaced_whatever_way_it_dies() {
    let server = Server::start(&NO_HEARTBEAT);
    let random = Random::new(seed(), 6);
    let script = Script::new(random.clone().next(), 300);
    let mut alone = SoloPlayer::enter(server.connect(), "Cat", &random, Pacing::FAST, script);
    let handlers = Handlers::of(&server);
    let signals = [
        Signal::SIGSEGV,
        Signal::SIGABRT,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGKILL,
    ];
    // The server inherits signals ignored by the process that runs the tests (under nohup, for example).
    let deadly = signals.into_iter().filter(|signal| !is_ignored(*signal));
    let mut deaths = 0;
    for signal in deadly {
        deaths += 1;
        let victim = handlers.only();
        alone.send_next();
        send(victim, signal);
        alone.send_next();
        eventually("another process has taken over", || {
            // Rust's runtime ignores the first SIGSEGV that no instruction has caused.
            let dies = handlers.pids().contains(&victim);
            if dies {
                send(victim, signal);
            }
            !dies
        });
        alone.receive_sent();
    }
    expect_no_pending_work(&server);
    alone.leave();
    server.expect_no_errors();
    assert_eq!(server.status("takeovers_total"), deaths);
}

/// Whether this process, and so its children, ignores the signal.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("every process has one");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.expect("the kernel says").trim(), 16).expect("a mask");
    ignored & 1 << (signal as i32 - 1) != 0
}

#[test]
fn a_hundred_handlers_that_die_at_once_are_replaced() {
    const SEATS: u8 = 10;
    let server = Server::start(&NO_HEARTBEAT);
    let mut random = Random::new(seed(), 7);
    let mut players: Vec<Client> = Vec::new();
    for index in 0..100 {
        let mut player = server.client(&format!("Player {index}"));
        if index % u64::from(SEATS) == 0 {
            let room = NewRoom {
                settings: RoomSettings {
                    seats: SEATS,
                    ..RoomSettings::default()
                },
                ..NewRoom::new("relay", format!("Room {index}"))
            };
            player.create_room(room).expect("a room is free");
        } else {
            player.quick_match("relay", Vec::new()).expect("a seat is free");
        }
        players.push(player);
    }
    let handlers = Handlers::of(&server);
    assert_eq!(handlers.pids().len(), 100);
    let mut killed = 0;
    for round in 0..4_u64 {
        let (handlers, pause_us) = (handlers.clone(), random.below(10_000) as u64);
        let killing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(pause_us));
            handlers.signal_all(Signal::SIGKILL)
        });
        for player in &mut players {
            let action = round.to_le_bytes().to_vec();
            player
                .send(&ClientMessage::Act { request: 0, action })
                .expect("the session lives");
        }
        killed += killing.join().expect("killing does not fail");
        for player in &mut players {
            let mut heard: Vec<u8> = (0..SEATS).map(|_| next_payload(player, round)).collect();
            heard.sort_unstable();
            assert_eq!(heard, (0..SEATS).collect::<Vec<_>>());
        }
    }
    expect_no_pending_work(&server);
    for player in players {
        let counters = player.counters();
        assert_eq!((counters.resumes, counters.gaps, counters.resyncs), (0, 0, 0));
        player.goodbye().expect("said in order");
    }
    println!("{killed} handlers killed, all at once in each of 4 rounds");
    server.expect_no_errors();
}

/// The seat that sent the next payload, which must be this round's.
fn next_payload(player: &mut Client, round: u64) -> u8 {
    loop {
        let message = player.receive(WAIT_MAX).expect("the session lives");
        match message.expect("an event in time") {
            ServerMessage::Event {
                event: RoomEvent::Game { data },
                ..
            } => {
                let (seat, payload): (u8, Vec<u8>) = codec::decode(&data).expect("an event of the relay");
                assert_eq!(payload, round.to_le_bytes());
                return seat;
            }
            ServerMessage::Event {
                event: RoomEvent::Joined { .. },
                ..
            } => {}
            other => panic!("instead of an event: {other:?}"),
        }
    }
}

#[test]
fn an_event_reaches_its_listener_although_the_senders_handler_is_killed() {
    let server = Server::start(&NO_HEARTBEAT);
    let handlers = Handlers::of(&server);
    let mut random = Random::new(seed(), 8);
    let mut listener = server.client("Listener");
    let listeners_handler = handlers.pids();
    let mut talker = server.client("Talker");
    let room = talker
        .create_room(NewRoom::new("relay", "Two"))
        .expect("a room")
        .room;
    listener.join_room(room, None).expect("a seat is free");
    let mut pauses = Latencies::default();
    let mut victim_before = 0;
    for round in 0..kills(10) as u64 {
        let of_talker = |pid: &u32| !listeners_handler.contains(pid) && *pid != victim_before;
        let mut victim = None;
        eventually("the talker has a handler", || {
            victim = handlers.pids().into_iter().find(of_talker);
            victim.is_some()
        });
        victim_before = victim.expect("found");
        pauses.measure(|| {
            let action = round.to_le_bytes().to_vec();
            talker
                .send(&ClientMessage::Act { request: 0, action })
                .expect("the session lives");
            std::thread::sleep(Duration::from_micros(random.below(300) as u64));
            send(victim_before, Signal::SIGKILL);
            assert_eq!(next_payload(&mut listener, round), 0);
        });
    }
    pauses.print("a message whose sender's handler is killed");
    expect_no_pending_work(&server);
    server.expect_no_errors();
}

#[test]
fn a_takeover_is_seen_only_as_a_pause() {
    let server = Server::start(&NO_HEARTBEAT);
    let handlers = Handlers::of(&server);
    let random = Random::new(seed(), 9);
    let script = Script::new(random.clone().next(), 100);
    let mut alone = SoloPlayer::enter(server.connect(), "Cat", &random, Pacing::FAST, script);
    let (mut undisturbed, mut killed) = (Latencies::default(), Latencies::default());
    for _ in 0..kills(10) {
        undisturbed.measure(|| {
            alone.send_next();
            alone.receive_sent();
        });
        killed.measure(|| {
            handlers.signal_all(Signal::SIGKILL);
            alone.send_next();
            alone.receive_sent();
        });
    }
    undisturbed.print("an echo");
    killed.print("an echo whose handler is killed");
    expect_no_pending_work(&server);
    alone.leave();
    server.expect_no_errors();
}

#[test]
fn a_failed_doorbell_request_is_repeated() {
    const WATCHERS: u32 = 320;
    let server = Server::start(&[&NO_HEARTBEAT[..], &NO_WATCHDOG].concat());
    let mut talker = server.client("Talker");
    let room = talker
        .create_room(NewRoom::new("relay", "Stage"))
        .expect("a room")
        .room;
    let mut watchers: Vec<RawClient> = (0..WATCHERS)
        .map(|index| {
            let mut watcher = RawClient::connect_as(&server, &format!("Watcher {index}"));
            watcher.send_message(&ClientMessage::Spectate {
                request: 0,
                room,
                passcode: None,
            });
            watcher.next_where(|message| matches!(message, ServerMessage::Joined { .. }));
            watcher
        })
        .collect();
    let tickers = running(&server, "ticker");
    let handlers = Handlers::of(&server);
    // More handlers start and send requests than fit into the channel while no ticker answers.
    tickers
        .iter()
        .for_each(|ticker| server.signal(*ticker, Signal::SIGSTOP));
    let before = handlers.pids();
    handlers.signal_all(Signal::SIGKILL);
    // They repeat the request from time to time, so they do not all sleep at one moment.
    let mut have_slept = HashSet::new();
    eventually("all successors have slept", || {
        let now = handlers.pids();
        have_slept.extend(now.iter().copied().filter(|pid| sleeps(*pid)));
        now.len() == before.len()
            && now
                .iter()
                .all(|pid| !before.contains(pid) && have_slept.contains(pid))
    });
    tickers
        .iter()
        .for_each(|ticker| server.signal(*ticker, Signal::SIGCONT));
    talker.act(b"listen".to_vec()).expect("accepted");
    for watcher in &mut watchers {
        let is_game = |message: &ServerMessage| {
            matches!(
                message,
                ServerMessage::Event {
                    event: RoomEvent::Game { .. },
                    ..
                }
            )
        };
        watcher.next_where(is_game);
    }
    expect_no_pending_work(&server);
    server.expect_no_errors();
}

#[test]
fn a_client_that_connects_without_a_ticker_receives_events() {
    let server = Server::start(&NO_WATCHDOG);
    let mut talker = server.client("Talker");
    let room = talker
        .create_room(NewRoom::new("relay", "Stage"))
        .expect("a room")
        .room;
    // The sender's handler has the room's doorbell.
    talker.act(b"first".to_vec()).expect("accepted");
    let tickers = running(&server, "ticker");
    tickers
        .iter()
        .for_each(|ticker| server.signal(*ticker, Signal::SIGSTOP));
    let mut late = server.client("Late");
    late.join_room(room, None).expect("a seat is free");
    eventually("the newcomer sleeps", || {
        server.handler_of("Late").is_some_and(sleeps)
    });
    talker.act(b"welcome".to_vec()).expect("accepted");
    let is_said = |message: &ServerMessage| {
        matches!(
            message,
            ServerMessage::Event {
                event: RoomEvent::Game { .. },
                ..
            }
        )
    };
    let heard = late
        .receive_where(WAIT_MAX / 6, is_said)
        .expect("the session lives");
    tickers
        .iter()
        .for_each(|ticker| server.signal(*ticker, Signal::SIGCONT));
    assert!(heard.is_some(), "the newcomer slept over it");
    expect_no_pending_work(&server);
}

fn sleeps(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains("(handler) S")
}
