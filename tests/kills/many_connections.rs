//! Many connections at once, each with its own behaviour: slow and fast readers, payloads of any length,
//! urgent bytes, half-closed connections. Handlers are killed throughout, and every byte is compared.
//!
//! `FORKADE_TEST_KILLS=40000 cargo test --release --test kills many_connections:: -- --nocapture` kills more
//! often and shows the figures.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::byte_exact::{Pacing, Script, SoloPlayer, handshake_and_room};
use crate::common::footprint::held;
use crate::common::killer::{Killer, kills};
use crate::common::latencies::Latencies;
use crate::common::liveness::expect_no_pending_work;
use crate::common::random::{Random, seed};
use crate::common::{Server, WAIT_MAX, eventually};

/// Number of simultaneous connections.
const TALKERS: u64 = 12;
/// Payloads of one connection that are sent before they are read, at most: they fit into the buffers on the
/// way.
const WORDS_AT_ONCE: usize = 12;
const WORD_BYTES_MAX: usize = 3000;
/// Longest pause between two kills.
const PAUSE_MAX: Duration = Duration::from_micros(2500);

/// Opens one connection after the other until told to stop. Returns their number.
fn talk(
    game: SocketAddr,
    talker: u64,
    mut random: Random,
    stop: &AtomicBool,
    words: &AtomicU64,
) -> (u64, Latencies) {
    let (mut connections, mut echoes) = (0, Latencies::default());
    while !stop.load(Ordering::Relaxed) {
        let script = Script::new(random.next(), *random.choose(&[8, 100, 600, WORD_BYTES_MAX]));
        let manner = Pacing {
            piece_bytes_max: *random.choose(&[7, 100, 1500, 8000]),
            pauses_percent: *random.choose(&[0, 2, 20]),
            urgent_percent: *random.choose(&[0, 0, 30]),
        };
        let mut alone = SoloPlayer::connected(connect(game), &random, manner, script);
        alone
            .speaker
            .send(&handshake_and_room(&format!("talker {talker}-{connections}")));
        alone.listener.expect_welcome();
        for _ in 0..random.below(6) {
            // A payload that is sent alone shows the latency.
            let count = if random.chance(50) {
                1
            } else {
                1 + random.below(WORDS_AT_ONCE)
            };
            let said = |alone: &mut SoloPlayer| (0..count).for_each(|_| alone.send_next());
            if count == 1 && manner.pauses_percent == 0 {
                echoes.measure(|| {
                    said(&mut alone);
                    alone.receive_sent();
                });
            } else {
                said(&mut alone);
                alone.receive_sent();
            }
            words.fetch_add(count as u64, Ordering::Relaxed);
        }
        if random.chance(50) {
            alone.leave();
        } else {
            // Everything sent before the half-close is still answered.
            (0..random.below(WORDS_AT_ONCE)).for_each(|_| alone.send_next());
            let speaker = &alone.speaker.stream;
            speaker.shutdown(Shutdown::Write).expect("the connection lives");
            alone.receive_sent();
            alone.listener.expect_end();
        }
        connections += 1;
    }
    (connections, echoes)
}

fn connect(game: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(game).expect("the server accepts");
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&stream, Some(WAIT_MAX)).expect("a timeout can be set");
    }
    stream
}

#[test]
fn no_byte_is_lost_repeated_or_reordered_over_many_connections() {
    let server = Server::start(&["--heartbeat-timeout-ms", "600000", "--seat-grace-ms", "500"]);
    let random = Random::new(seed(), 0);
    let (stop, words) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let killer = Killer::start(&server, random.clone(), kills(100), PAUSE_MAX);
    let talkers: Vec<_> = (0..TALKERS)
        .map(|talker| {
            let (game, random) = (server.game, Random::new(random.clone().next(), 1 + talker));
            let (stop, words) = (Arc::clone(&stop), Arc::clone(&words));
            std::thread::spawn(move || talk(game, talker, random, &stop, &words))
        })
        .collect();
    while !killer.is_done() && talkers.iter().all(|talker| !talker.is_finished()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let killed = killer.stop();
    stop.store(true, Ordering::Relaxed);
    let (mut connections, mut echoes) = (0, Latencies::default());
    for talker in talkers {
        match talker.join() {
            Ok((count, of_talker)) => {
                connections += count;
                echoes.add(of_talker);
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    let words = words.load(Ordering::Relaxed);
    println!("{killed} handlers killed over {connections} connections and {words} words");
    echoes.print("an echo meanwhile");
    server.expect_no_errors();
    eventually("nothing is left of them", || held(&server) == [0, 0, 0]);
    expect_no_pending_work(&server);
}
