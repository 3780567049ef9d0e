//! Two players that the tested fault does not concern. They exchange messages continuously and notice every
//! loss, repetition and reordering.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{ChatScope, ClientMessage, RoomEvent, RoomSettings, ServerMessage, codec};

use super::footprint::Footprint;
use super::{Server, WAIT_MAX, eventually};

/// Runs a server and `attack` against it while a control pair plays. The pair must notice nothing, the attack
/// must leave no resources behind, and no process may die.
pub fn expect_harmless(arguments: &[&str], attack: impl FnOnce(&Server)) {
    // A short grace, so that the test sees all resources released.
    let arguments = [&["--seat-grace-ms", "100"], arguments].concat();
    let server = Server::start(&arguments);
    let control_pair = ControlPair::start(&server);
    let before = Footprint::settled(&server);
    attack(&server);
    before.expect_again(&server);
    control_pair.finish();
    assert_eq!(
        server.status("takeovers_total"),
        0,
        "a handler died; log: {}",
        server.log()
    );
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// Two players in a relay room of their own, driven by a thread.
pub struct ControlPair {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl ControlPair {
    /// Starts exchanging messages.
    pub fn start(server: &Server) -> Self {
        let mut players = [server.client("control one"), server.client("control two")];
        let room = players[0]
            .create_room(NewRoom {
                settings: RoomSettings {
                    seats: 2,
                    ..RoomSettings::default()
                },
                ..NewRoom::new("relay", "apart")
            })
            .expect("a room")
            .room;
        players[1].join_room(room, None).expect("a seat is free");
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&rounds));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                round(&mut players, counted.load(Ordering::Relaxed));
                // The pair is a probe, not a load.
                std::thread::sleep(Duration::from_millis(1));
                counted.fetch_add(1, Ordering::Relaxed);
            }
            for player in players {
                let counters = player.counters();
                assert_eq!(
                    (counters.resumes, counters.gaps, counters.resyncs),
                    (0, 0, 0),
                    "the control pair was disturbed"
                );
                player.goodbye().expect("said in order");
            }
        });
        let control_pair = Self { stop, rounds, thread };
        control_pair.expect_progress();
        control_pair
    }

    /// Messages are still exchanged at this moment.
    pub fn expect_progress(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        let goes_on = || self.rounds.load(Ordering::Relaxed) > before + 1 || self.thread.is_finished();
        eventually("the control pair makes progress", goes_on);
        assert!(!self.thread.is_finished(), "the control pair noticed the fault");
    }

    /// Ends the exchange. Nothing was lost, repeated or reordered, and neither client had to resume.
    pub fn finish(self) {
        self.expect_progress();
        self.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Each player sends the number of the round, and both receive both.
fn round(players: &mut [Client; 2], round: u64) {
    for player in &mut *players {
        let action = round.to_le_bytes().to_vec();
        player
            .send(&ClientMessage::Act { request: 0, action })
            .expect("the session lives");
    }
    for player in players {
        let mut heard = [next_payload(player), next_payload(player)];
        heard.sort_unstable();
        assert_eq!(heard, [(0, round), (1, round)]);
    }
}

/// The seat and payload of the next event.
fn next_payload(player: &mut Client) -> (u8, u64) {
    loop {
        match player
            .receive(WAIT_MAX)
            .expect("the session lives")
            .expect("an event in time")
        {
            ServerMessage::Event {
                event: RoomEvent::Game { data },
                ..
            } => {
                let (seat, payload): (u8, Vec<u8>) = codec::decode(&data).expect("an event of the relay");
                return (
                    seat,
                    u64::from_le_bytes(payload.try_into().expect("eight bytes were sent")),
                );
            }
            // Lobby chat reaches all players.
            ServerMessage::Chat {
                scope: ChatScope::Lobby,
                ..
            }
            | ServerMessage::ChatMissed { .. } => {}
            // The second player joins.
            ServerMessage::Event {
                event: RoomEvent::Joined { .. },
                ..
            } => {}
            other => panic!("the control pair received {other:?}"),
        }
    }
}
