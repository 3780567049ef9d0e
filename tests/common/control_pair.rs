//! Two players whom nothing concerns: they talk to each other all the time, and notice anything that is lost, repeated or
//! reordered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{ChatScope, ClientMessage, RoomEvent, RoomSettings, ServerMessage, codec};

use super::footprint::Footprint;
use super::{Server, WAIT_MAX, eventually};

/// Runs a server, and on it `attack`, while two bystanders talk: they must not notice, nothing may be left of the attack, and
/// no process may have died of it.
pub fn expect_harmless(arguments: &[&str], attack: impl FnOnce(&Server)) {
    // Nobody's seat is kept for long, so that it can be seen that all is given back.
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

/// Two players in a relay room of their own, in a thread of their own.
pub struct ControlPair {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl ControlPair {
    /// Begins the conversation.
    pub fn start(server: &Server) -> Self {
        let mut players = [server.client("bystander one"), server.client("bystander two")];
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
                // They are to notice what happens, not to be what happens.
                std::thread::sleep(Duration::from_millis(1));
                counted.fetch_add(1, Ordering::Relaxed);
            }
            for player in players {
                let counters = player.counters();
                assert_eq!(
                    (counters.resumes, counters.gaps, counters.resyncs),
                    (0, 0, 0),
                    "a bystander was disturbed"
                );
                player.goodbye().expect("said in order");
            }
        });
        let control_pair = Self { stop, rounds, thread };
        control_pair.expect_progress();
        control_pair
    }

    /// The conversation goes on at this moment.
    pub fn expect_progress(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        let goes_on = || self.rounds.load(Ordering::Relaxed) > before + 1 || self.thread.is_finished();
        eventually("the bystanders go on talking", goes_on);
        assert!(!self.thread.is_finished(), "a bystander noticed something");
    }

    /// Ends the conversation; nothing of it was lost, repeated or reordered, and nobody had to come back.
    pub fn finish(self) {
        self.expect_progress();
        self.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Each says the number of the round, and both hear both.
fn round(players: &mut [Client; 2], round: u64) {
    for player in &mut *players {
        let action = round.to_le_bytes().to_vec();
        player
            .send(&ClientMessage::Act { request: 0, action })
            .expect("the session lives");
    }
    for player in players {
        let mut heard = [next_word(player), next_word(player)];
        heard.sort_unstable();
        assert_eq!(heard, [(0, round), (1, round)]);
    }
}

/// Who says what next.
fn next_word(player: &mut Client) -> (u8, u64) {
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
            // To everybody, and so to them.
            ServerMessage::Chat {
                scope: ChatScope::Lobby,
                ..
            }
            | ServerMessage::ChatMissed { .. } => {}
            // The second one's coming in.
            ServerMessage::Event {
                event: RoomEvent::Joined { .. },
                ..
            } => {}
            other => panic!("a bystander was told {other:?}"),
        }
    }
}
