//! Any role can die repeatedly under a stream of new connections. No connection is refused, no established
//! session notices, and the connections lost before the handshake are at most those that are counted.
//!
//! `FORKADE_TEST_ROLE_KILLS=100 cargo test --release --test kills roles:: -- --nocapture` kills more often
//! and shows the figures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use forkade_protocol::{ClientMessage, ServerMessage};
use nix::sys::signal::Signal;

use crate::common::control_pair::ControlPair;
use crate::common::footprint::{held, sockets};
use crate::common::killer::{Handlers, send};
use crate::common::liveness::expect_no_pending_work;
use crate::common::random::{Random, seed};
use crate::common::raw_client::{End, RawClient, handshake};
use crate::common::{Server, children, eventually, is_alive, of_name};

/// Threads that connect and disconnect at the same time.
const STREAMS: usize = 4;
/// Connections that one thread opens at once, so that the listener is often in the middle of a transfer.
const AT_ONCE: usize = 6;
/// A process that dies sooner than this is restarted with a growing delay.
const LIFE_MS_MIN: u64 = 510;

/// How often a role is killed.
fn deaths() -> u64 {
    std::env::var("FORKADE_TEST_ROLE_KILLS").map_or(12, |deaths| deaths.parse().expect("a number"))
}

/// What became of the new connections.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Completed the handshake and were served to the end.
    pub(crate) greeted: u64,
    /// Connections that ended before the handshake.
    pub(crate) early_ends: u64,
}

/// Threads whose clients connect and disconnect at the same time.
pub(crate) struct Newcomers {
    stop: Arc<AtomicBool>,
    streams: Vec<JoinHandle<Tally>>,
}

impl Newcomers {
    pub(crate) fn start(server: &Server) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let streams = (0..STREAMS).map(|stream| {
            let (game, stop) = (server.game, Arc::clone(&stop));
            std::thread::spawn(move || come_and_go(game, stream, &stop))
        });
        Self {
            streams: streams.collect(),
            stop,
        }
    }

    /// Whether one of them was not served.
    pub(crate) fn have_failed(&self) -> bool {
        self.streams.iter().any(JoinHandle::is_finished)
    }

    /// Stops them. Panics with the one that was not served.
    pub(crate) fn finish(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        for stream in self.streams {
            match stream.join() {
                Ok(of_stream) => {
                    tally.greeted += of_stream.greeted;
                    tally.early_ends += of_stream.early_ends;
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        tally
    }
}

/// Opens several connections at once, completes the handshake, is served, and disconnects, until told to
/// stop.
fn come_and_go(game: SocketAddr, stream: usize, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Relaxed) {
        let guests: Vec<RawClient> = (0..AT_ONCE).map(|_| RawClient::connect_to(game)).collect();
        for mut guest in guests {
            // A lost connection's player may exist under its name: the next one gets another.
            let name = format!("guest {stream}-{}", tally.greeted + tally.early_ends);
            guest.send(&handshake(&name));
            match guest.next_message() {
                Ok(ServerMessage::Welcome { .. }) => {}
                Ok(other) => panic!("{name} was not greeted, but told {other:?}"),
                Err(_) => {
                    tally.early_ends += 1;
                    continue;
                }
            }
            guest.send_message(&ClientMessage::Ping { nonce: 7 });
            let pong = guest.next_message();
            assert!(
                matches!(pong, Ok(ServerMessage::Pong { nonce: 7, .. })),
                "{pong:?}"
            );
            guest.send_message(&ClientMessage::Goodbye);
            assert_eq!(guest.rest(), (Vec::new(), End::Closed), "{name}");
            tally.greeted += 1;
        }
    }
    tally
}

/// Kills the processes of a role in turn, while clients connect and disconnect and a control pair plays.
fn kill_repeatedly(role: &str) {
    // Several connect before the first handshake, and may have to wait.
    let server = Server::start(&[
        "--keepers",
        "3",
        "--seat-grace-ms",
        "500",
        "--handshake-timeout-ms",
        "600000",
    ]);
    let of_role = |role| of_name(&children(server.pid()), role);
    let kept = || of_role("keeper").into_iter().map(sockets).sum::<usize>();
    let kept_of_nobody = kept();
    let control_pair = ControlPair::start(&server);
    let control_handlers = Handlers::of(&server).pids();
    let newcomers = Newcomers::start(&server);
    let posts = of_role(role).len();
    let mut random = Random::new(seed(), 0);
    for _ in 0..deaths() {
        // The oldest process of the role.
        let victim = of_role(role)[0];
        std::thread::sleep(Duration::from_micros(random.below(20_000) as u64));
        server.kill(victim);
        eventually("it is replaced", || {
            let now = of_role(role);
            now.len() == posts && !now.contains(&victim)
        });
        control_pair.expect_progress();
        assert!(!newcomers.have_failed(), "a guest has failed");
        std::thread::sleep(Duration::from_millis(LIFE_MS_MIN / posts as u64));
    }
    let tally = newcomers.finish();
    eventually("the keepers hold the sockets of the control pair", || {
        kept() == kept_of_nobody + 2
    });
    let counted = server.status("lost_before_greeting_total");
    println!(
        "{role} killed {} times: {} connections greeted, {} ended before, {counted} of those counted at most",
        deaths(),
        tally.greeted,
        tally.early_ends
    );
    assert!(tally.greeted > deaths(), "no client connected");
    assert!(
        tally.early_ends <= counted,
        "{tally:?}, but {counted} are counted"
    );
    assert!(counted <= deaths(), "a death costs one connection at most");
    // The control pair still has the same handlers, and they have a keeper.
    assert!(control_handlers.iter().all(|pid| is_alive(*pid)));
    // The receptions of a dead keeper are replaced.
    let takeovers = server.status("takeovers_total");
    assert!(role == "keeper" || takeovers == 0, "{takeovers}");
    for handler in control_handlers {
        send(handler, Signal::SIGKILL);
    }
    control_pair.expect_progress();
    eventually("both are taken over", || {
        server.status("takeovers_total") == takeovers + 2
    });
    control_pair.finish();
    eventually("no resources of clients are left", || held(&server) == [0, 0, 0]);
    expect_no_pending_work(&server);
}

#[test]
fn a_listener_that_dies_repeatedly_loses_only_connections_in_transfer() {
    kill_repeatedly("listener");
}

#[test]
fn keepers_that_die_repeatedly_lose_only_connections_in_transfer() {
    kill_repeatedly("keeper");
}

#[test]
fn a_ticker_that_dies_repeatedly_affects_nobody() {
    kill_repeatedly("ticker");
}

#[test]
fn new_connections_wait_for_overloaded_keepers_and_are_not_refused() {
    // More than fit into the channel to a keeper.
    const GUESTS: usize = 400;
    let server = Server::start(&[
        "--keepers",
        "1",
        "--connections-max",
        "1000",
        "--watchdog-cpu-ms",
        "0",
    ]);
    let keeper = of_name(&children(server.pid()), "keeper")[0];
    server.signal(keeper, Signal::SIGSTOP);
    let mut guests: Vec<RawClient> = (0..GUESTS).map(|_| RawClient::connect(&server)).collect();
    // Until the listener finds the channel full.
    std::thread::sleep(Duration::from_millis(200));
    server.signal(keeper, Signal::SIGCONT);
    for (number, guest) in guests.iter_mut().enumerate() {
        guest.send(&handshake(&format!("guest {number}")));
    }
    for guest in &mut guests {
        let welcome = guest.next_message();
        assert!(
            matches!(welcome, Ok(ServerMessage::Welcome { .. })),
            "{welcome:?}"
        );
    }
    assert_eq!(server.status("refused_total"), 0);
}
