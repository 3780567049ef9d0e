//! Promise: however many clients connect and disconnect, in whatever way, the server afterwards uses no more
//! processes, open files and memory than before.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::common::Server;
use crate::common::footprint::{Footprint, memory_kib};
use crate::common::raw_client::{RawClient, frame, handshake};
use forkade_protocol::ClientMessage;

/// Threads that connect and disconnect at the same time.
const VISITORS: usize = 4;

/// Tolerance in KiB for the memory of the whole server: it depends on the number of simultaneous clients.
const MEMORY_NOISE_KIB: u64 = 4096;

/// Number of visits: enough that a page lost with each would be noticed, or `FORKADE_TEST_VISITS`.
fn visits() -> usize {
    std::env::var("FORKADE_TEST_VISITS").map_or(10_000, |visits| visits.parse().expect("a number"))
}

/// Connects, and disconnects in one of the possible ways.
fn visit(server: &Server, number: usize) {
    let name = format!("visitor {number}");
    let create = ClientMessage::CreateRoom {
        request: 1,
        game: "relay".to_owned(),
        name: "for a moment".to_owned(),
        settings: forkade_protocol::RoomSettings::default(),
    };
    let mut raw = RawClient::connect(server);
    match number % 7 {
        0 => drop(raw),
        1 => raw.reset(),
        2 => {
            raw.send(&[handshake(&name), frame(&create), frame(&ClientMessage::Goodbye)].concat());
            raw.rest();
        }
        3 => {
            raw.send(&[handshake(&name), frame(&create)].concat());
            raw.next_message().expect("a welcome");
        }
        4 => {
            raw.send(&[handshake(&name), frame(&create)].concat());
            raw.next_message().expect("a welcome");
            raw.reset();
        }
        5 => {
            raw.send(&handshake(&name)[..20]);
            raw.half_close();
            raw.rest();
        }
        _ => {
            raw.send(&[handshake(&name), vec![0xff; 100]].concat());
            raw.rest();
        }
    }
}

fn visit_often(server: &Server, visits: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..VISITORS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= visits {
                        return;
                    }
                    visit(server, number);
                }
            });
        }
    });
}

#[test]
fn thousands_of_visits_leave_no_process_file_or_memory_behind() {
    let server = Server::start(&["--seat-grace-ms", "100", "--log", "warn"]);
    let before = Footprint::settled(&server);
    // Memory that is used for the first time grows once.
    visit_often(&server, 2000);
    before.expect_again(&server);
    let memory_before_kib = memory_kib(&server);

    let began = Instant::now();
    visit_often(&server, visits());
    let seconds = began.elapsed().as_secs_f64();

    before.expect_again(&server);
    let memory_after_kib = memory_kib(&server);
    println!(
        "{} visits in {seconds:.1} s; memory {memory_before_kib} KiB before, {memory_after_kib} KiB after; {before:?}",
        visits()
    );
    assert!(
        memory_after_kib < memory_before_kib + MEMORY_NOISE_KIB,
        "{memory_before_kib} KiB before, {memory_after_kib} KiB after"
    );
    assert_eq!(server.status("takeovers_total"), 0, "{}", server.log());
}
