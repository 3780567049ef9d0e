//! What clients can do, and the bounds and defaults of each kind of workload.

use std::fmt;

use clap::ValueEnum;
use forkade_protocol::limits::CHAT_BYTES_MAX;
use serde::{Deserialize, Serialize};

const RATE_DEFAULT: f64 = 10.0;
/// Half of what a server allows by default.
const CHAT_RATE_DEFAULT: f64 = 0.5;
/// The message rate of a typical real-time game.
const BROADCAST_RATE_DEFAULT: f64 = 60.0;
/// Half of what a server allows by default.
const ANNOUNCE_RATE_DEFAULT: f64 = 0.5;

/// Sender, number and intended time at the start of every relay payload.
pub(crate) const RELAY_HEADER_BYTES: u32 = 4 + 8 + 8;
const RELAY_PAYLOAD_BYTES_DEFAULT: u32 = 32;
/// The frame limit less the longest envelope that the server adds.
pub(crate) const RELAY_PAYLOAD_BYTES_MAX: u32 = 8_192 - 64;
/// The shortest line of chat, broadcast and announce holds the longest numbers.
const LINE_BYTES_MIN: u32 = 80;
const LINE_BYTES_DEFAULT: u32 = 80;
const LINE_BYTES_MAX: u32 = 500;
const _: () = assert!(LINE_BYTES_MAX as usize == CHAT_BYTES_MAX);
/// Every client receives every lobby line, so the state that the checks need grows with the square of this.
pub(crate) const LOBBY_CHAT_CLIENTS_MAX: u32 = 2_000;

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WorkloadKind {
    /// Every message goes to all members of the room, numbered and checked.
    Relay,
    /// Pairs play random legal matches of tic-tac-toe, and check every event and result.
    Tictactoe,
    /// The same with connect four.
    Connect4,
    /// Clients list, create, join, watch and leave rooms, ask for quick matches, disconnect and return as new
    /// players; every answer and every event is checked against what all clients know.
    Lobby,
    /// All clients chat, in rooms, in the lobby and by whispers: every line must reach each of its recipients
    /// once and in its sender's order.
    Chat,
    /// One seat of each room sends, and all others watch: every message reaches each of them.
    Broadcast,
    /// One client sends lobby chat, which every client on the server receives.
    Announce,
}

impl WorkloadKind {
    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Tictactoe => "tictactoe",
            Self::Connect4 => "connect4",
            Self::Lobby => "lobby",
            Self::Chat => "chat",
            Self::Broadcast => "broadcast",
            Self::Announce => "announce",
        }
    }

    /// The game of its rooms; `None` if it puts its clients into no rooms.
    pub(crate) const fn game(self) -> Option<&'static str> {
        match self {
            // Room chat needs a room; its game does not matter.
            Self::Relay | Self::Chat | Self::Broadcast => Some("relay"),
            Self::Tictactoe => Some("tictactoe"),
            Self::Connect4 => Some("connect4"),
            Self::Lobby | Self::Announce => None,
        }
    }

    /// How many of a room's members have seats; the others watch.
    pub(crate) const fn seats(self, room_size: u32) -> u32 {
        match self {
            Self::Broadcast => 1,
            _ => room_size,
        }
    }

    /// Whether its rooms have exactly two seats.
    pub(super) const fn is_paired(self) -> bool {
        matches!(self, Self::Tictactoe | Self::Connect4)
    }

    /// Shortest, default and longest payload in bytes; `None` if it sends none.
    pub(super) const fn payload_bytes(self) -> Option<(u32, u32, u32)> {
        match self {
            Self::Relay => Some((
                RELAY_HEADER_BYTES,
                RELAY_PAYLOAD_BYTES_DEFAULT,
                RELAY_PAYLOAD_BYTES_MAX,
            )),
            Self::Chat | Self::Broadcast | Self::Announce => {
                Some((LINE_BYTES_MIN, LINE_BYTES_DEFAULT, LINE_BYTES_MAX))
            }
            Self::Tictactoe | Self::Connect4 | Self::Lobby => None,
        }
    }

    pub(super) const fn rate_default(self) -> f64 {
        match self {
            Self::Chat => CHAT_RATE_DEFAULT,
            Self::Broadcast => BROADCAST_RATE_DEFAULT,
            Self::Announce => ANNOUNCE_RATE_DEFAULT,
            Self::Relay | Self::Tictactoe | Self::Connect4 | Self::Lobby => RATE_DEFAULT,
        }
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The recipients of a chat line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// All in the room, the sender included.
    Room,
    /// All on the server, the sender included.
    Lobby,
    /// The next client; after the last client comes the first.
    Whisper,
}

impl Scope {
    pub(crate) const ALL: [Self; 3] = [Self::Room, Self::Lobby, Self::Whisper];
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Room => "room",
            Self::Lobby => "lobby",
            Self::Whisper => "whisper",
        })
    }
}
