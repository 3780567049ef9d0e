//! A reception serves newcomers until they have greeted. Killed at any moment, it costs nobody anything: nobody is
//! refused, no connection is lost, and whoever has greeted gets a process.
//!
//! `FORKADE_TEST_KILLS=5000` kills more often in the first test.

use std::collections::BTreeSet;
use std::time::Duration;

use forkade_protocol::{ClientMessage, ErrorCode, ServerMessage};
use nix::sys::signal::Signal;

use crate::common::killer::{Handlers, kills, send};
use crate::common::liveness::expect_no_pending_work;
use crate::common::random::{Random, seed};
use crate::common::raw_client::{RawClient, frame, handshake};
use crate::common::{Server, eventually, is_alive, is_asleep, of_name};
use crate::roles::{Newcomers, Tally};

/// One keeper, so that the receptions can be found. The watchdog ignores stopped processes here.
const SERVER: [&str; 8] = [
    "--connections-max",
    "900",
    "--keepers",
    "1",
    "--watchdog-cpu-ms",
    "0",
    "--handshake-timeout-ms",
    "600000",
];

fn receptions(server: &Server) -> Vec<u32> {
    Handlers::of(server).receptions()
}

/// The reception that serves this connection.
fn reception_of(server: &Server, client: &RawClient) -> u32 {
    let peer = format!("127.0.0.1:{}", client.port());
    let mut pid = None;
    eventually("it is in the reception", || {
        let processes = server.ask_json("processes");
        let mut processes = processes.as_array().expect("a list").iter();
        let found = processes.find(|process| process["role"] == "reception" && process["peer"] == peer);
        pid = found.and_then(|process| process["pid"].as_u64());
        pid.is_some()
    });
    u32::try_from(pid.expect("it was found")).expect("a pid")
}

fn ping(nonce: u64) -> ClientMessage {
    ClientMessage::Ping { nonce }
}

fn expect_pong(client: &mut RawClient, expected: u64) {
    let answer = client.next_message();
    let is_it = matches!(&answer, Ok(ServerMessage::Pong { nonce, .. }) if *nonce == expected);
    assert!(is_it, "{answer:?}");
}

fn expect_welcome(client: &mut RawClient) {
    let answer = client.next_message();
    assert!(matches!(answer, Ok(ServerMessage::Welcome { .. })), "{answer:?}");
}

#[test]
fn receptions_that_die_under_a_stream_of_newcomers_lose_and_refuse_nobody() {
    let server = Server::start(&[&SERVER[..4], &["--handshake-timeout-ms", "600000"]].concat());
    let newcomers = Newcomers::start(&server);
    let mut random = Random::new(seed(), 0);
    let (handlers, mut killed) = (Handlers::of(&server), 0);
    while killed < kills(60) && !newcomers.have_failed() {
        std::thread::sleep(Duration::from_micros(random.below(8000) as u64));
        let victims = handlers.receptions();
        if !victims.is_empty() && send(*random.choose(&victims), Signal::SIGKILL) {
            killed += 1;
        }
    }
    let Tally { greeted, early_ends } = newcomers.finish();
    println!("{killed} receptions killed, {greeted} clients served");
    assert_eq!(early_ends, 0, "of {greeted}");
    for counter in ["lost_before_greeting_total", "resumes_total"] {
        assert_eq!(server.status(counter), 0, "{counter}");
    }
    expect_no_pending_work(&server);
    server.expect_no_errors();
}

#[test]
fn a_client_is_answered_at_once_and_only_its_own_process_runs_what_it_sends_next() {
    let server = Server::start(&SERVER);
    let mut client = RawClient::connect(&server);
    let reception = reception_of(&server, &client);
    let keeper = server.keeper();
    server.signal(keeper, Signal::SIGSTOP);
    client.send(&[handshake("Newcomer"), frame(&ping(1))].concat());
    expect_welcome(&mut client);
    client.send_message(&ping(2));
    eventually("the reception has nothing to do", || is_asleep(reception));
    assert!(!client.has_more(), "the reception has run a player's frame");
    server.signal(keeper, Signal::SIGCONT);
    expect_pong(&mut client, 1);
    expect_pong(&mut client, 2);
    let handler = server.handler_of("Newcomer").expect("it is served");
    assert!(handler != reception && is_alive(reception));
    server.expect_no_errors();
}

#[test]
fn a_client_that_has_greeted_gets_a_process_although_its_reception_dies_first() {
    let server = Server::start(&SERVER);
    let mut clients: Vec<RawClient> = (0..10).map(|_| RawClient::connect(&server)).collect();
    let receptions: Vec<u32> = clients
        .iter()
        .map(|client| reception_of(&server, client))
        .collect();
    let keeper = server.keeper();
    server.signal(keeper, Signal::SIGSTOP);
    for (nth, client) in clients.iter_mut().enumerate().take(5) {
        client.send(&[handshake(&format!("Newcomer{nth}")), frame(&ping(1))].concat());
        expect_welcome(client);
    }
    assert!(
        receptions.iter().all(|pid| *pid == receptions[0]),
        "they share one"
    );
    server.kill(receptions[0]);
    server.signal(keeper, Signal::SIGCONT);
    let mut handlers = BTreeSet::new();
    for (nth, client) in clients.iter_mut().enumerate() {
        let name = format!("Newcomer{nth}");
        if nth >= 5 {
            client.send(&[handshake(&name), frame(&ping(1))].concat());
            expect_welcome(client);
        }
        expect_pong(client, 1);
        handlers.insert(server.handler_of(&name).expect("it is served"));
    }
    assert_eq!(handlers.len(), clients.len(), "each has a process of its own");
    assert_eq!(server.status("takeovers_total"), 1);
    expect_no_pending_work(&server);
    server.expect_no_errors();
}

#[test]
fn newcomers_and_clients_that_have_greeted_are_served_although_their_keeper_dies() {
    let server = Server::start(&SERVER);
    let mut clients: Vec<RawClient> = (0..10).map(|_| RawClient::connect(&server)).collect();
    for client in &clients {
        reception_of(&server, client);
    }
    let keeper = server.keeper();
    server.signal(keeper, Signal::SIGSTOP);
    for (nth, client) in clients.iter_mut().enumerate().take(5) {
        client.send(&[handshake(&format!("Newcomer{nth}")), frame(&ping(1))].concat());
        expect_welcome(client);
    }
    server.kill(keeper);
    for (nth, mut client) in clients.into_iter().enumerate() {
        if nth >= 5 {
            client.send(&[handshake(&format!("Newcomer{nth}")), frame(&ping(1))].concat());
            expect_welcome(&mut client);
        }
        expect_pong(&mut client, 1);
        let name = format!("Newcomer{nth}");
        let handler = server.handler_of(&name).expect("it is served");
        assert!(
            !receptions(&server).contains(&handler),
            "it has left the reception"
        );
    }
    assert_eq!(server.status("resumes_total"), 0);
    expect_no_pending_work(&server);
    server.expect_no_errors();
}

#[test]
fn a_client_that_has_greeted_gets_a_process_although_the_first_one_for_it_dies() {
    let server = Server::start(&SERVER);
    let mut client = RawClient::connect(&server);
    let reception = reception_of(&server, &client);
    server.signal(reception, Signal::SIGSTOP);
    client.send(&[handshake("Newcomer"), frame(&ping(1))].concat());
    let keeper = server.keeper();
    server.signal(keeper, Signal::SIGSTOP);
    server.signal(reception, Signal::SIGCONT);
    expect_welcome(&mut client);
    eventually("the keeper is asked for a process", || is_asleep(reception));
    server.signal(reception, Signal::SIGSTOP);
    server.signal(keeper, Signal::SIGCONT);
    let mut next = Vec::new();
    eventually("there is one", || {
        next = of_name(&Handlers::of(&server).pids(), "handler");
        next.len() == 1 && is_asleep(next[0])
    });
    server.kill(next[0]);
    eventually("there is another", || {
        let now = of_name(&Handlers::of(&server).pids(), "handler");
        now.len() == 1 && now != next
    });
    server.signal(reception, Signal::SIGCONT);
    expect_pong(&mut client, 1);
    expect_no_pending_work(&server);
    server.expect_no_errors();
}

#[test]
fn a_client_that_gets_no_process_in_time_is_told_so_and_nobody_else() {
    let server = Server::start(&SERVER);
    let mut served = server.client("Served");
    served.ping().expect("it has a process");
    let (mut client, mut later) = (RawClient::connect(&server), RawClient::connect(&server));
    reception_of(&server, &later);
    let keeper = server.keeper();
    server.signal(keeper, Signal::SIGSTOP);
    client.send(&handshake("Newcomer"));
    expect_welcome(&mut client);
    client.expect_error(ErrorCode::ServerFull);
    served.ping().expect("its process needs no keeper");
    server.signal(keeper, Signal::SIGCONT);
    later.send(&[handshake("Later"), frame(&ping(1))].concat());
    expect_welcome(&mut later);
    expect_pong(&mut later, 1);
    server.expect_no_errors();
}

/// Connections of different paces while receptions die around the time of the banner: each gets it exactly once.
#[test]
fn a_banner_appears_once_although_receptions_die_around_it() {
    const BANNER: &str = "This is a game server. Press Enter to play.\r\n";
    const AFTER_MS: u64 = 40;
    let server = Server::start(&[&SERVER[..4], &["--banner-after-ms", "40"]].concat());
    let handlers = Handlers::of(&server);
    let mut random = Random::new(seed(), 0);
    for round in 0..kills(8) {
        let mut clients: Vec<RawClient> = (0..4).map(|_| RawClient::connect(&server)).collect();
        std::thread::sleep(Duration::from_micros(
            (AFTER_MS - 5) * 1000 + random.below(8000) as u64,
        ));
        for victim in handlers.receptions() {
            send(victim, Signal::SIGKILL);
        }
        for (nth, client) in clients.iter_mut().enumerate() {
            let mut banner = vec![0; BANNER.len()];
            client.read_exact(&mut banner);
            assert_eq!(String::from_utf8_lossy(&banner), BANNER);
            client.send(&handshake(&format!("Visitor{round}-{nth}")));
            // As bytes: a second banner would be taken for a frame that is too long.
            let header = client.peek_header();
            assert!(header < 1024, "round {round}: the answer follows the banner");
            expect_welcome(client);
            client.send_message(&ClientMessage::Goodbye);
        }
    }
    expect_no_pending_work(&server);
    server.expect_no_errors();
}
