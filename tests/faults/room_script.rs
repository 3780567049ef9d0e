//! Players in a room of their own: all send a numbered message at once, and receive all of them before the
//! next round.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{ChatScope, ClientMessage, RoomEvent, RoomId, ServerMessage, codec};

use super::{Figures, LIMIT, options};
use crate::common::byte_exact::Script;
use crate::common::random::Random;

/// Players of a room.
const PLAYERS: u8 = 3;
/// Rounds in a thousand in which one player's connection is cut.
const CUTS_PER_MILLE: usize = 3;
/// Time between two lines of chat in a room: below the rate limit.
const CHAT_EVERY: Duration = Duration::from_secs(2);
/// How many messages a room exchanges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pacing {
    /// Longest message in bytes.
    pub(crate) word_bytes_max: usize,
    /// Time between two rounds.
    pub(crate) pause: Duration,
}

impl Pacing {
    /// As many as leave time for others.
    pub(crate) const LIVELY: Self = Self {
        word_bytes_max: 400,
        pause: Duration::from_millis(2),
    };
    /// So few that a player that is away for some seconds can still get all of them.
    pub(crate) const QUIET: Self = Self {
        word_bytes_max: 100,
        pause: Duration::from_millis(10),
    };
}

/// How long one player receives before the next one's turn.
const TURN: Duration = Duration::from_millis(2);

/// See the module's documentation.
pub(crate) struct RoomScript {
    pub(crate) room: RoomId,
    players: Vec<Player>,
    random: Random,
    manner: Pacing,
    chat_at: Instant,
}

struct Player {
    client: Client,
    name: String,
    script: Script,
    /// Number of the last event.
    event: u64,
    shown_away: u64,
}

/// A message of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RoomMessage {
    /// By the player in this seat.
    Act(u8, Vec<u8>),
    /// By the player of this name.
    Chat(String, String),
}

impl RoomScript {
    /// All players join the room.
    pub(crate) fn begin(server: SocketAddr, number: u64, manner: Pacing, mut random: Random) -> Self {
        let mut room = None;
        let mut players = Vec::new();
        for seat in 0..PLAYERS {
            let name = format!("talker {number}-{seat}");
            let mut client = Client::connect(server, name.clone(), options()).expect("a place is free");
            let snapshot = match room {
                None => client.create_room(NewRoom::new("relay", "talk")),
                Some(room) => client.join_room(room, None),
            };
            let snapshot = snapshot.expect("a seat is free");
            assert_eq!(snapshot.seat, Some(seat));
            room = Some(snapshot.room);
            players.push(Player {
                client,
                name,
                script: Script::new(random.next(), manner.word_bytes_max),
                event: snapshot.event,
                shown_away: 0,
            });
        }
        Self {
            room: room.expect("the first player has opened it"),
            players,
            random,
            manner,
            chat_at: Instant::now(),
        }
    }

    /// Sends and receives until told to stop.
    pub(crate) fn run(mut self, stop: &AtomicBool) -> Figures {
        let mut figures = Figures::default();
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            self.round(number, &mut figures);
            number += 1;
            std::thread::sleep(self.manner.pause);
        }
        for player in self.players {
            let counters = player.client.counters();
            figures.resumes += counters.resumes;
            figures.gaps += counters.gaps;
            figures.resyncs += counters.resyncs;
            figures.shown_away += player.shown_away;
            player.client.goodbye().expect("said in order");
        }
        // All three players were told the same.
        figures.shown_away /= u64::from(PLAYERS);
        figures
    }

    fn round(&mut self, number: u64, figures: &mut Figures) {
        let began = Instant::now();
        let mut said = Vec::new();
        let chatter = (began >= self.chat_at).then(|| self.random.below(self.players.len()));
        for (index, player) in self.players.iter_mut().enumerate() {
            let seat = u8::try_from(index).expect("a few");
            let action = player.script.payload(number);
            said.push(RoomMessage::Act(seat, action.clone()));
            player.say(&ClientMessage::Act { request: 0, action });
            if chatter == Some(index) {
                let text = format!("round {number}");
                said.push(RoomMessage::Chat(player.name.clone(), text.clone()));
                let scope = ChatScope::Room;
                player.say(&ClientMessage::Chat {
                    request: 0,
                    scope,
                    text,
                });
                self.chat_at = began + CHAT_EVERY;
            }
        }
        if self.random.below(1000) < CUTS_PER_MILLE {
            let index = self.random.below(self.players.len());
            if self.players[index].client.is_connected() {
                self.players[index].client.disconnect_abruptly();
                figures.cuts += 1;
            }
        }
        // In turn: a client that lost its connection resumes, and sends what is pending, only when it is
        // driven.
        let mut awaited = vec![said.clone(); self.players.len()];
        while awaited.iter().any(|awaited| !awaited.is_empty()) {
            for (player, awaited) in self.players.iter_mut().zip(&mut awaited) {
                if awaited.is_empty() || !player.hear(number, awaited) {
                    continue;
                }
                let pause_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                figures.pauses_us.push(pause_us);
                figures.words += said.len() as u64;
            }
            assert!(
                began.elapsed() < LIMIT,
                "in {LIMIT:?} of round {number} {} have not received {awaited:?}",
                self.players[0].name
            );
        }
    }
}

impl Player {
    fn say(&mut self, message: &ClientMessage) {
        if let Err(error) = self.client.send(message) {
            panic!("{} cannot speak: {error:?}", self.name);
        }
    }

    /// Receives the awaited messages: each one once, each sender's in order, and nothing else. Returns
    /// whether all have arrived.
    fn hear(&mut self, round: u64, awaited: &mut Vec<RoomMessage>) -> bool {
        let name = &self.name;
        while !awaited.is_empty() {
            let message = match self.client.receive(TURN) {
                Ok(Some(message)) => message,
                Ok(None) => return false,
                Err(error) => panic!("{name} has lost the session: {error:?}"),
            };
            let ServerMessage::Event { number, event } = message else {
                panic!("{name} was told {message:?}")
            };
            assert_eq!(
                number,
                self.event + 1,
                "{name} missed an event, or received it again"
            );
            self.event = number;
            let word = match event {
                RoomEvent::Game { data } => {
                    let (seat, payload) = codec::decode(&data).expect("an event of the relay");
                    RoomMessage::Act(seat, payload)
                }
                RoomEvent::Chat { from, text } => RoomMessage::Chat(from, text),
                RoomEvent::Connection { connected, .. } => {
                    self.shown_away += u64::from(!connected);
                    continue;
                }
                RoomEvent::Joined { .. } | RoomEvent::Left { .. } => continue,
                other => panic!("{name} was told {other:?}"),
            };
            if is_a_visitors(&word) {
                continue;
            }
            let position = awaited.iter().position(|awaited| *awaited == word);
            let Some(position) = position else {
                panic!("{name} received in round {round} what was not sent, or twice: {word:?}")
            };
            awaited.remove(position);
        }
        true
    }
}

fn is_a_visitors(word: &RoomMessage) -> bool {
    match word {
        RoomMessage::Act(seat, _) => *seat >= PLAYERS,
        RoomMessage::Chat(from, _) => !from.starts_with("talker"),
    }
}
