//! What client and server say to each other.
//!
//! The order of the variants is the wire format: a variant's position is its discriminant, and new ones go to the
//! end with a new protocol version. `WIRE.md` is the specification. Actions, events, views and options of games are
//! opaque bytes here; the games themselves encode them.

mod codes;
mod rooms;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::codes::{ErrorCode, RejectCode};
pub use self::rooms::{
    Outcome, Phase, Reservation, RoomEvent, RoomFilter, RoomRules, RoomSettings, RoomSummary, SeatInfo,
    Snapshot, Turn,
};
use crate::codec::{bytes, list};

/// Identifies a room for as long as the server lives; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RoomId(pub u64);

/// Identifies a player for as long as the server lives; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PlayerId(pub u64);

impl fmt::Display for RoomId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Display for PlayerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// The secret with which a player comes back after its connection was lost. Whoever has it, is the player: it is
/// never shown, not even by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token(pub [u8; 16]);

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(secret)")
    }
}

/// What a client says. `request` is a number of the client's choice that the answer repeats.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClientMessage {
    /// First frame of a new player, before its stream begins. Answer: `Welcome` or `Error`.
    Hello {
        /// The player's name; the server cleans it, see [`crate::text::clean_player_name`].
        name: String,
        /// Program and version of the client, for the operator's eyes; at most
        /// [`CLIENT_NAME_BYTES_MAX`](crate::limits::CLIENT_NAME_BYTES_MAX) bytes.
        client: String,
    },
    /// First frame of a player who comes back. Answer: `Resumed` or `Error`.
    Resume {
        /// From the `Welcome`.
        token: Token,
        /// Bytes of the server's stream that the client has received and kept: where it wants to go on.
        received: u64,
    },
    /// Asks for one page of rooms. Answer: `Rooms`.
    ListRooms {
        /// Repeated in the answer.
        request: u32,
        /// Which rooms.
        filter: RoomFilter,
        /// Only rooms after this one: `next` of the page before.
        after: Option<RoomId>,
    },
    /// Creates a room and takes a seat in it. Answer: `Joined` or `Rejected`.
    CreateRoom {
        /// Repeated in the answer.
        request: u32,
        /// Name of the game, one of those in the `Welcome`.
        game: String,
        /// The room's name; the server cleans it, see [`crate::text::clean_room_name`].
        name: String,
        /// What the room is to be like.
        settings: RoomSettings,
    },
    /// Takes a seat. Answer: `Joined` or `Rejected`.
    JoinRoom {
        /// Repeated in the answer.
        request: u32,
        /// Which room.
        room: RoomId,
        /// The room's passcode, if it has one.
        passcode: Option<String>,
    },
    /// Takes a seat in some open room of this game, or in a new one. Answer: `Joined` or `Rejected`.
    QuickMatch {
        /// Repeated in the answer.
        request: u32,
        /// Name of the game.
        game: String,
        /// The game's options, should a room have to be created.
        #[serde(with = "bytes")]
        options: Vec<u8>,
    },
    /// Watches a room without a seat. Answer: `Joined` (with no seat) or `Rejected`.
    Spectate {
        /// Repeated in the answer.
        request: u32,
        /// Which room.
        room: RoomId,
        /// The room's passcode, if it has one.
        passcode: Option<String>,
    },
    /// Leaves the room for good. Answer: `Left` or `Rejected`.
    Leave {
        /// Repeated in the answer.
        request: u32,
    },
    /// Says whether this seat is ready to start. Seen by all in the room as an event; answered only if rejected.
    Ready {
        /// Repeated in the rejection.
        request: u32,
        /// Ready, or no longer.
        ready: bool,
    },
    /// A move in the game. Its consequences are events; answered only if rejected.
    Act {
        /// Repeated in the rejection.
        request: u32,
        /// What the game defines.
        #[serde(with = "bytes")]
        action: Vec<u8>,
    },
    /// Says something. Answered only if rejected.
    Chat {
        /// Repeated in the rejection.
        request: u32,
        /// To whom.
        scope: ChatScope,
        /// At most [`CHAT_BYTES_MAX`](crate::limits::CHAT_BYTES_MAX) bytes; see [`crate::text::clean_chat`].
        text: String,
    },
    /// Asks for another match in the same room once one is over. Answered only if rejected.
    Rematch {
        /// Repeated in the rejection.
        request: u32,
    },
    /// Tells how far the server's stream has been processed, so that the server can forget that part.
    Confirm {
        /// Bytes of the server's stream, from its beginning.
        received: u64,
    },
    /// Sign of life. Answer: `Pong`.
    Ping {
        /// Repeated in the answer.
        nonce: u64,
    },
    /// The player leaves for good: seat and token are given up at once, then the server closes.
    Goodbye,
    /// Takes a seat, or a place to watch, with a room's invite code, which stands in for id and passcode. Answer: `Joined`
    /// or `Rejected`.
    JoinByInvite {
        /// Repeated in the answer.
        request: u32,
        /// From an `Invitation` or `Invited`; capital or small letters, with or without its hyphens.
        code: String,
        /// Watch instead of taking a seat.
        watch: bool,
    },
    /// The owner changes the room's settings, all of them at once; while a match is being played, what it depends on must stay
    /// as it is (seats, options, turn clock). Seen by all in the room as an event; answered only if rejected.
    Configure {
        /// Repeated in the rejection.
        request: u32,
        /// What the room is to be like from now on.
        settings: RoomSettings,
    },
    /// The owner asks for the room's invite code. Answer: `Invitation` or `Rejected`.
    Invite {
        /// Repeated in the answer.
        request: u32,
        /// Make a new code: the one before it is worth nothing any more.
        renew: bool,
    },
    /// The owner keeps a free seat for a player for a while, who is told by `Invited`. Seen by all in the room as an event;
    /// answered only if rejected. For a player who has a seat kept already, its time begins anew; one who was sent out is
    /// welcome again.
    Reserve {
        /// Repeated in the rejection.
        request: u32,
        /// The player's name.
        player: String,
    },
    /// The owner takes the seat from a player, who cannot come back to this room. Seen by all in the room as an event;
    /// answered only if rejected.
    Kick {
        /// Repeated in the rejection.
        request: u32,
        /// Whose.
        seat: u8,
        /// The name of the player whom the owner sees in that seat: if somebody else has it by now, nothing happens.
        name: String,
    },
    /// The owner makes another player the room's owner. Seen by all in the room as an event; answered only if rejected.
    HandOver {
        /// Repeated in the rejection.
        request: u32,
        /// Which player.
        seat: u8,
        /// That player's name, as the owner sees it: if somebody else has the seat by now, nothing happens.
        name: String,
    },
    /// Asks how the room looks now, with the game's view of it: events of a game say what happened, and what that makes of the
    /// view only the game itself knows. Answer: `Picture` or `Rejected`.
    Look {
        /// Repeated in the answer.
        request: u32,
    },
}

impl ClientMessage {
    /// The request number, of messages that have one.
    pub fn request(&self) -> Option<u32> {
        match self {
            Self::ListRooms { request, .. }
            | Self::CreateRoom { request, .. }
            | Self::JoinRoom { request, .. }
            | Self::QuickMatch { request, .. }
            | Self::Spectate { request, .. }
            | Self::Leave { request }
            | Self::Ready { request, .. }
            | Self::Act { request, .. }
            | Self::Chat { request, .. }
            | Self::Rematch { request }
            | Self::JoinByInvite { request, .. }
            | Self::Configure { request, .. }
            | Self::Invite { request, .. }
            | Self::Reserve { request, .. }
            | Self::Kick { request, .. }
            | Self::HandOver { request, .. }
            | Self::Look { request } => Some(*request),
            Self::Hello { .. }
            | Self::Resume { .. }
            | Self::Confirm { .. }
            | Self::Ping { .. }
            | Self::Goodbye => None,
        }
    }
}

/// What the server says. `request` repeats the number of the message that is answered.
///
/// `Welcome`, `Resumed`, `Error` and `ShuttingDown` belong to one connection and stand outside the server's stream: their
/// bytes are not counted in its offsets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ServerMessage {
    /// Answer to `Hello`; the streams of both sides begin after it.
    Welcome {
        /// The protocol version of this connection.
        version: u16,
        /// For `Resume`.
        token: Token,
        /// Who the client is now.
        player: PlayerId,
        /// The name as the server cleaned it.
        name: String,
        /// What this server allows.
        limits: Limits,
        /// What can be played here.
        #[serde(with = "list")]
        games: Vec<GameInfo>,
    },
    /// Answer to `Resume`; the streams of both sides go on after it.
    Resumed {
        /// Bytes of the client's stream that the server has taken in for good: the client sends again from there.
        received: u64,
        /// Offset in the server's stream of the byte that follows this frame. If it is not the one asked for, bytes
        /// were lost and a `Resync` follows.
        resuming_at: u64,
    },
    /// One page of rooms.
    Rooms {
        /// Whose answer this is.
        request: u32,
        /// In the server's order, which pages keep.
        #[serde(with = "list")]
        rooms: Vec<RoomSummary>,
        /// There are more: ask again with this as `after`.
        next: Option<RoomId>,
    },
    /// You are in a room now.
    Joined {
        /// Whose answer this is.
        request: u32,
        /// The room as you find it.
        snapshot: Snapshot,
    },
    /// Something happened in your room.
    Event {
        /// Goes up within a room, by one with each event; numbers are left out where an event was for others only.
        number: u64,
        /// What happened.
        event: RoomEvent,
    },
    /// Events (or more) were lost on the way to you; here is what is true now.
    Resync {
        /// Your room, or nothing if you are in none.
        snapshot: Option<Snapshot>,
    },
    /// A request was refused and changed nothing.
    Rejected {
        /// Whose answer this is.
        request: u32,
        /// Why, for programs.
        code: RejectCode,
        /// Why, for people.
        text: String,
    },
    /// You have left the room.
    Left {
        /// Whose answer this is.
        request: u32,
    },
    /// Somebody says something to the lobby or to you. (In a room it is a [`RoomEvent::Chat`].)
    Chat {
        /// To whom it was said; of a whisper, the name of its addressee.
        scope: ChatScope,
        /// Who says it; empty if it is the server itself: an operator.
        from: String,
        /// What.
        text: String,
    },
    /// Answer to `Ping`.
    Pong {
        /// From the `Ping`.
        nonce: u64,
        /// Bytes of the client's stream that the server has taken in for good; the client may forget them.
        received: u64,
    },
    /// The connection ends after this frame, and why.
    Error {
        /// Why, for programs; [`ErrorCode::may_resume`] tells whether to come back.
        code: ErrorCode,
        /// Why, for people.
        text: String,
    },
    /// The server stops: connection and session end after this frame.
    ShuttingDown {
        /// For people.
        text: String,
    },
    /// The match in your room has begun.
    Started {
        /// The room with your own view of the match.
        snapshot: Snapshot,
    },
    /// Your room's invite code.
    Invitation {
        /// Whose answer this is.
        request: u32,
        /// With it, anybody can come in as long as the room has a free seat.
        code: String,
    },
    /// A seat is kept for you in somebody's room.
    Invited {
        /// Which room.
        room: RoomId,
        /// Name of its game.
        game: String,
        /// The room's own name.
        name: String,
        /// Who keeps the seat for you.
        from: String,
        /// For `JoinByInvite`.
        code: String,
        /// For how long.
        seconds: u16,
    },
    /// You are no longer in the room, by no wish of yours.
    Removed {
        /// Which room.
        room: RoomId,
        /// Why, for people.
        text: String,
    },
    /// Lines of the lobby's chat were lost on the way to you: you read more slowly than they came.
    ChatMissed {
        /// How many.
        lines: u64,
    },
    /// Your room as it looks now. Events that are contained in it may still be on their way to you: their numbers tell.
    Picture {
        /// Whose answer this is.
        request: u32,
        /// The room.
        snapshot: Snapshot,
    },
}

impl ServerMessage {
    /// The request that this answers, if it answers one.
    pub fn request(&self) -> Option<u32> {
        match self {
            Self::Rooms { request, .. }
            | Self::Joined { request, .. }
            | Self::Rejected { request, .. }
            | Self::Left { request }
            | Self::Invitation { request, .. }
            | Self::Picture { request, .. } => Some(*request),
            _ => None,
        }
    }
}

/// Who shall read a chat text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ChatScope {
    /// All in the room.
    Room,
    /// All who are on the server.
    Lobby,
    /// One player.
    Whisper {
        /// The player's name.
        to: String,
    },
}

/// A game that the server offers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GameInfo {
    /// Its name.
    pub name: String,
    /// Fewest seats of a room.
    pub seats_min: u8,
    /// Most seats of a room.
    pub seats_max: u8,
    /// 0: turn by turn.
    pub ticks_per_second: u16,
}

/// What this server allows, and what it expects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of a frame's body.
    pub frame_bytes_max: u32,
    /// Bytes of a player's name.
    pub name_bytes_max: u32,
    /// Bytes of a chat text.
    pub chat_bytes_max: u32,
    /// The client confirms at least once in so many bytes of the server's stream.
    pub confirm_every_bytes: u32,
    /// A client that completes no frame for so long is taken for gone.
    pub heartbeat_timeout_ms: u32,
    /// How long a seat is kept for a player without a connection.
    pub seat_grace_ms: u32,
}
