//! Handlers that die while the server stops delay nothing: every client is told once, and the server exits
//! cleanly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forkade_protocol::ServerMessage;
use nix::sys::signal::Signal;

use crate::common::killer::{Handlers, send};
use crate::common::random::{Random, seed};
use crate::common::raw_client::{End, RawClient};
use crate::common::{Server, children, eventually, is_alive, of_name};

const PLAYERS: usize = 12;
const ROUNDS: u64 = 8;

#[test]
fn handlers_that_die_during_a_stop_leave_no_client_untold_and_no_process_running() {
    let mut random = Random::new(seed(), 0);
    let mut killed = 0;
    for round in 0..ROUNDS {
        let mut server = Server::start(&["--heartbeat-timeout-ms", "600000"]);
        let mut players: Vec<RawClient> = (0..PLAYERS)
            .map(|player| RawClient::connect_as(&server, &format!("player {player}")))
            .collect();
        let handlers = Handlers::of(&server);
        let is_over = Arc::new(AtomicBool::new(false));
        let (told, mut moments) = (Arc::clone(&is_over), Random::new(random.next(), round));
        let killing = std::thread::spawn(move || {
            let mut killed = Vec::new();
            while !told.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(moments.below(400) as u64));
                // Each player's handler dies once: three deaths in a row would be attributed to the player.
                let pids = handlers.pids();
                let mortal: Vec<u32> = pids.into_iter().filter(|pid| !killed.contains(pid)).collect();
                if killed.len() < PLAYERS && !mortal.is_empty() {
                    let victim = *moments.choose(&mortal);
                    if send(victim, Signal::SIGKILL) {
                        killed.push(victim);
                    }
                }
            }
            killed.len()
        });
        std::thread::sleep(Duration::from_micros(random.below(2000) as u64));
        server.signal(server.pid(), Signal::SIGTERM);
        for (number, player) in players.iter_mut().enumerate() {
            let (messages, end) = player.rest();
            assert!(
                matches!(messages[..], [ServerMessage::ShuttingDown { .. }]),
                "in round {round} player {number} was told {messages:?}"
            );
            assert_eq!(end, End::Closed, "in round {round}, of player {number}");
        }
        assert_eq!(server.wait().code(), Some(0));
        is_over.store(true, Ordering::Relaxed);
        killed += killing.join().expect("killing does not fail");
        server.expect_no_errors();
    }
    println!("{killed} handlers killed over {ROUNDS} stops");
}

#[test]
fn players_of_a_dead_keeper_are_told_that_the_server_stops() {
    let mut server = Server::start(&["--heartbeat-timeout-ms", "600000"]);
    let mut players: Vec<RawClient> = (0..PLAYERS)
        .map(|player| RawClient::connect_as(&server, &format!("player {player}")))
        .collect();
    let keepers = of_name(&children(server.pid()), "keeper");
    // The keeper learns of all deaths at once, and replaces no handler any more.
    server.signal(server.pid(), Signal::SIGSTOP);
    keepers.iter().for_each(|keeper| server.kill(*keeper));
    eventually("they have died", || {
        !keepers.iter().any(|keeper| is_alive(*keeper))
    });
    server.signal(server.pid(), Signal::SIGTERM);
    server.signal(server.pid(), Signal::SIGCONT);
    for player in &mut players {
        let (messages, end) = player.rest();
        assert!(
            matches!(messages[..], [ServerMessage::ShuttingDown { .. }]),
            "{messages:?}"
        );
        assert_eq!(end, End::Closed);
    }
    assert_eq!(server.wait().code(), Some(0));
    server.expect_no_errors();
}
