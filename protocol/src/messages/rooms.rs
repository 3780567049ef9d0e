//! The parts of messages that describe rooms: settings, state, events and outcomes.

use serde::{Deserialize, Serialize};

use super::RoomId;
use crate::codec::{bytes, list};

/// An event in a room. Everyone in the room gets the events in the same order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RoomEvent {
    /// A player took a seat.
    Joined {
        /// The seat.
        seat: u8,
        /// The player's name.
        name: String,
    },
    /// A player gave up its seat for good.
    Left {
        /// The seat.
        seat: u8,
    },
    /// The connection of a seat's player was lost or restored. A lost player's seat is kept for the grace time.
    Connection {
        /// The seat.
        seat: u8,
        /// Whether the player has a connection now.
        connected: bool,
    },
    /// A seat is ready to start, or no longer ready.
    Ready {
        /// The seat.
        seat: u8,
        /// Whether the seat is ready.
        ready: bool,
    },
    /// The match began. It is never sent: everyone in the room gets
    /// [`ServerMessage::Started`](super::ServerMessage::Started) with its own view instead.
    Started,
    /// An event of the game.
    Game {
        /// The event, encoded by the game.
        #[serde(with = "bytes")]
        data: Vec<u8>,
    },
    /// A chat text to the room.
    Chat {
        /// The sender's name.
        from: String,
        /// The text.
        text: String,
    },
    /// The match is over.
    Finished {
        /// The outcome.
        outcome: Outcome,
    },
    /// The room has another owner.
    Owner {
        /// The owner's seat.
        seat: u8,
    },
    /// The owner has taken the seat from its player. That player gets
    /// [`ServerMessage::Removed`](super::ServerMessage::Removed) instead.
    Kicked {
        /// The seat.
        seat: u8,
    },
    /// A free seat is reserved for a player.
    Reserved {
        /// The seat.
        seat: u8,
        /// The player's name.
        name: String,
    },
    /// A reservation has ended, and the seat is free for everyone again.
    ReservationOver {
        /// The seat.
        seat: u8,
    },
    /// The owner has changed the room's settings. No seat is ready any more.
    Configured {
        /// The new settings.
        rules: RoomRules,
    },
    /// A turn and its clock have started. Only in rooms that have a turn clock.
    Turn {
        /// The seat to move.
        seat: u8,
        /// How long the turn may take.
        milliseconds: u32,
    },
    /// A turn has taken too long. The game decides what follows.
    TurnTimedOut {
        /// The seat whose turn it was.
        seat: u8,
    },
    /// No clock is running, because the match continues and it is nobody's turn.
    TurnStopped,
}

/// How a match ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// At least one seat won.
    Won {
        /// The winning seats, in ascending order.
        #[serde(with = "bytes")]
        seats: Vec<u8>,
    },
    /// No seat won.
    Draw,
    /// The match was abandoned.
    Abandoned,
}

/// The state of a room, as one viewer sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The room.
    pub room: RoomId,
    /// Name of its game.
    pub game: String,
    /// The room's name.
    pub name: String,
    /// The phase of the match.
    pub phase: Phase,
    /// The viewer's seat; `None` for a spectator.
    pub seat: Option<u8>,
    /// All seats in order; `None` is a free seat.
    #[serde(with = "list")]
    pub seats: Vec<Option<SeatInfo>>,
    /// Number of spectators.
    pub spectators: u32,
    /// Number of the last event that the snapshot includes. Later events apply to it.
    pub event: u64,
    /// The game's view for this viewer; empty while there is no match.
    #[serde(with = "bytes")]
    pub view: Vec<u8>,
    /// The owner's seat; `None` if no seat is taken.
    pub owner: Option<u8>,
    /// The room's settings.
    pub rules: RoomRules,
    /// The reserved seats.
    #[serde(with = "list")]
    pub reservations: Vec<Reservation>,
    /// The turn whose clock is running, if there is one.
    pub turn: Option<Turn>,
}

/// The settings that the owner of a room chooses.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoomSettings {
    /// The passcode for joining; at most [`PASSCODE_BYTES_MAX`](crate::limits::PASSCODE_BYTES_MAX) bytes. The room
    /// stays listed, and marked as having a passcode.
    pub passcode: Option<String>,
    /// Number of seats; 0 means the game's greatest number.
    pub seats: u8,
    /// The game's options; empty means the game's defaults.
    #[serde(with = "bytes")]
    pub options: Vec<u8>,
    /// The room is not listed and not used for quick matches. Its id and its invite code work.
    pub unlisted: bool,
    /// The room does not allow spectators.
    pub no_spectators: bool,
    /// How long a turn may take, in seconds, up to [`TURN_SECONDS_MAX`](crate::limits::TURN_SECONDS_MAX); 0: no limit.
    /// Only for games in which seats move in turn.
    pub turn_seconds: u16,
}

/// The settings of a room that everyone in it may know.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoomRules {
    /// Number of seats.
    pub seats: u8,
    /// Whether the room has a passcode.
    pub passcode: bool,
    /// The game's options; empty means the game's defaults.
    #[serde(with = "bytes")]
    pub options: Vec<u8>,
    /// The room is not listed and not used for quick matches.
    pub unlisted: bool,
    /// The room does not allow spectators.
    pub no_spectators: bool,
    /// How long a turn may take, in seconds; 0: no limit.
    pub turn_seconds: u16,
}

/// A seat that is reserved for a player.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reservation {
    /// The seat.
    pub seat: u8,
    /// The player's name.
    pub name: String,
    /// Remaining time, in milliseconds.
    pub milliseconds: u32,
}

/// A turn whose clock is running.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// The seat to move.
    pub seat: u8,
    /// Remaining time, in milliseconds.
    pub milliseconds: u32,
}

/// The phase of a room's match.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// The match has not begun.
    Waiting,
    /// The match is in progress.
    Playing,
    /// The match is over.
    Finished,
}

/// A taken seat.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeatInfo {
    /// The player's name.
    pub name: String,
    /// Whether the player has a connection now.
    pub connected: bool,
    /// Whether the player is ready to start.
    pub ready: bool,
}

/// A room in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoomSummary {
    /// The room.
    pub room: RoomId,
    /// Name of its game.
    pub game: String,
    /// The room's name.
    pub name: String,
    /// The phase of the match.
    pub phase: Phase,
    /// Number of seats.
    pub seats: u8,
    /// Number of taken seats.
    pub taken: u8,
    /// Number of spectators.
    pub spectators: u32,
    /// Whether the room has a passcode.
    pub passcode: bool,
}

/// Selects rooms for a list. Conditions that are `None` or `false` match all rooms.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoomFilter {
    /// Only rooms of this game.
    pub game: Option<String>,
    /// Only rooms whose name contains this, ignoring case.
    pub name_contains: Option<String>,
    /// Only rooms in which anyone can take a seat now: one is free and not reserved, the room has no passcode, and no
    /// match in progress prevents it.
    pub joinable: bool,
}
