//! What is said of rooms: what they are like, what happens in them, and how a match ends.

use serde::{Deserialize, Serialize};

use super::RoomId;
use crate::codec::{bytes, list};

/// What happens in a room, in the order in which it happened for everybody.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RoomEvent {
    /// Somebody took a seat.
    Joined {
        /// Which.
        seat: u8,
        /// Who.
        name: String,
    },
    /// A seat was vacated for good.
    Left {
        /// Which.
        seat: u8,
    },
    /// A seated player's connection was lost, or is back. The seat is kept for the grace time.
    Connection {
        /// Which.
        seat: u8,
        /// Back, or lost.
        connected: bool,
    },
    /// A seat is ready to start, or no longer.
    Ready {
        /// Which.
        seat: u8,
        /// Ready, or no longer.
        ready: bool,
    },
    /// The match began. Never on the wire: every member gets [`ServerMessage::Started`](super::ServerMessage::Started) with its own view instead.
    Started,
    /// An event of the game.
    Game {
        /// What the game defines.
        #[serde(with = "bytes")]
        data: Vec<u8>,
    },
    /// Somebody in the room says something.
    Chat {
        /// Who.
        from: String,
        /// What.
        text: String,
    },
    /// The match is over.
    Finished {
        /// How it ended.
        outcome: Outcome,
    },
    /// The room has another owner.
    Owner {
        /// Who has this seat.
        seat: u8,
    },
    /// The owner has taken the seat from its player, who gets [`ServerMessage::Removed`](super::ServerMessage::Removed) instead.
    Kicked {
        /// Which.
        seat: u8,
    },
    /// A free seat is kept for a player.
    Reserved {
        /// Which.
        seat: u8,
        /// For whom.
        name: String,
    },
    /// A seat is free for anybody again: its player did not come in time.
    ReservationOver {
        /// Which.
        seat: u8,
    },
    /// The owner has changed the room's settings. No seat is ready any more.
    Configured {
        /// What holds from now on.
        rules: RoomRules,
    },
    /// A turn has begun, and its clock with it. Only in rooms that have a turn clock.
    Turn {
        /// Whose turn it is.
        seat: u8,
        /// How long it may take.
        milliseconds: u32,
    },
    /// A turn has taken too long; what that means is the game's to say.
    TurnTimedOut {
        /// Whose turn it was.
        seat: u8,
    },
    /// No clock is running any more, though the match goes on: nobody in particular is waited for.
    TurnStopped,
}

/// How a match ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// These seats won.
    Won {
        /// In ascending order.
        #[serde(with = "bytes")]
        seats: Vec<u8>,
    },
    /// Nobody did.
    Draw,
    /// It was broken off.
    Abandoned,
}

/// A room as one viewer sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which room.
    pub room: RoomId,
    /// Name of its game.
    pub game: String,
    /// The room's own name.
    pub name: String,
    /// Where the match stands.
    pub phase: Phase,
    /// The viewer's seat; `None` for a spectator.
    pub seat: Option<u8>,
    /// All seats in order; `None` is a free one.
    #[serde(with = "list")]
    pub seats: Vec<Option<SeatInfo>>,
    /// How many watch.
    pub spectators: u32,
    /// Number of the last event that is contained; events after it apply to this picture.
    pub event: u64,
    /// The game's view for this viewer; empty while there is no match.
    #[serde(with = "bytes")]
    pub view: Vec<u8>,
    /// The owner's seat; `None` if nobody has a seat.
    pub owner: Option<u8>,
    /// The room's settings.
    pub rules: RoomRules,
    /// Free seats that are kept for somebody.
    #[serde(with = "list")]
    pub reservations: Vec<Reservation>,
    /// Whose clock is running, if one is.
    pub turn: Option<Turn>,
}

/// What the owner of a room can choose.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoomSettings {
    /// Whoever joins must know it; at most [`PASSCODE_BYTES_MAX`](crate::limits::PASSCODE_BYTES_MAX) bytes. The room stays
    /// listed, marked as having one.
    pub passcode: Option<String>,
    /// Number of seats; 0 means as many as the game can have.
    pub seats: u8,
    /// The game's options; empty means the game's defaults.
    #[serde(with = "bytes")]
    pub options: Vec<u8>,
    /// In no list and no quick match: one comes in by its number or an invite code.
    pub unlisted: bool,
    /// Nobody may watch.
    pub no_spectators: bool,
    /// How long a turn may take, in seconds, up to [`TURN_SECONDS_MAX`](crate::limits::TURN_SECONDS_MAX); 0: as long as it
    /// takes. Only for games in which seats move in turn.
    pub turn_seconds: u16,
}

/// A room's settings as everybody in it may know them.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoomRules {
    /// Number of seats.
    pub seats: u8,
    /// Whether one needs a passcode.
    pub passcode: bool,
    /// The game's options; empty means the game's defaults.
    #[serde(with = "bytes")]
    pub options: Vec<u8>,
    /// In no list and no quick match.
    pub unlisted: bool,
    /// Nobody may watch.
    pub no_spectators: bool,
    /// How long a turn may take, in seconds; 0: as long as it takes.
    pub turn_seconds: u16,
}

/// A seat that is kept for a player who is to come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reservation {
    /// Which seat.
    pub seat: u8,
    /// The player's name.
    pub name: String,
    /// For how much longer.
    pub milliseconds: u32,
}

/// A turn whose clock is running.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// Whose turn it is.
    pub seat: u8,
    /// How much longer it may take.
    pub milliseconds: u32,
}

/// Where a room's match stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// It has not begun.
    Waiting,
    /// It is being played.
    Playing,
    /// It is over.
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
    /// Which room.
    pub room: RoomId,
    /// Name of its game.
    pub game: String,
    /// The room's own name.
    pub name: String,
    /// Where the match stands.
    pub phase: Phase,
    /// Number of seats.
    pub seats: u8,
    /// How many of them are taken.
    pub taken: u8,
    /// How many watch.
    pub spectators: u32,
    /// Whether one needs a passcode.
    pub passcode: bool,
}

/// Which rooms a list shall have; conditions that are `None` or `false` let all pass.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoomFilter {
    /// Only rooms of this game.
    pub game: Option<String>,
    /// Only rooms whose name contains this, in capital or small letters.
    pub name_contains: Option<String>,
    /// Only rooms in which anybody can take a seat now: one is free, there is no passcode, and no match under way keeps
    /// one from it.
    pub joinable: bool,
}
