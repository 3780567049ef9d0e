//! Whether an engine keeps to its schedule. There is no server: messages stay queued in the sessions.

use std::net::Ipv4Addr;

use clap::Parser;

use super::*;

const RATE: u64 = 20;
const CLIENTS: u64 = 4;
/// So long that each client is late with several messages.
const LATE: Duration = Duration::from_millis(400);

fn engine() -> Engine {
    let (rate, clients) = (RATE.to_string(), CLIENTS.to_string());
    let options = Options::parse_from(["loadtest", "--clients", &clients, "--rate", &rate]);
    let plans = options.plan().expect("a plan");
    let nowhere = (Ipv4Addr::LOCALHOST, 1).into();
    Engine::new(nowhere, &options, plans, Arc::default()).expect("a poll")
}

fn sent_and_unsent(engine: &Engine) -> (u64, u64) {
    let figures = engine.groups()[0].workload().figures();
    (figures.counts.sent, figures.unsent)
}

#[test]
fn a_client_that_is_late_at_the_end_still_sends_all_that_was_due_in_the_load() {
    let mut engine = engine();
    engine.start_load(300_000_000).expect("it begins");
    std::thread::sleep(LATE);
    engine.stop_load().expect("it ends");
    assert_eq!(sent_and_unsent(&engine), (CLIENTS * RATE * 3 / 10, 0));
}

#[test]
fn an_interrupted_load_has_sent_all_that_was_due_before_the_interrupt() {
    let mut engine = engine();
    engine.start_load(600_000_000_000).expect("it begins");
    std::thread::sleep(LATE);
    engine.stop_load().expect("it ends");
    let (sent, unsent) = sent_and_unsent(&engine);
    // The schedules begin at random times within the first interval.
    assert!(sent >= CLIENTS * (RATE * 4 / 10 - 1), "{sent}");
    assert_eq!(unsent, 0);
}
