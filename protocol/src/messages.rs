//! The messages of client and server.
//!
//! The order of the variants is part of the wire format: a variant's position is its discriminant. New variants are
//! added at the end, with a new protocol version. `WIRE.md` is the specification. Actions, events, views and options
//! of games are opaque bytes here; the games encode them.

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

/// A room's id. It is unique for the lifetime of the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RoomId(pub u64);

/// A player's id. It is unique for the lifetime of the server.
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

/// The secret for resuming a session. It gives full access to the session, so `Debug` does not print it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token(pub [u8; 16]);

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(secret)")
    }
}

/// A message of the client. `request` is a number that the client chooses and that the answer repeats.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClientMessage {
    /// First frame of a new player, before its stream begins. Answer: `Welcome` or `Error`.
    Hello {
        /// The player's name; the server cleans it, see [`crate::text::clean_player_name`].
        name: String,
        /// Program and version of the client, for the operator; at most
        /// [`CLIENT_NAME_BYTES_MAX`](crate::limits::CLIENT_NAME_BYTES_MAX) bytes.
        client: String,
    },
    /// First frame on a connection that resumes a session. Answer: `Resumed` or `Error`.
    Resume {
        /// The token from the `Welcome`.
        token: Token,
        /// Offset in the server's stream of the first byte that the client still needs.
        received: u64,
    },
    /// Requests one page of rooms. Answer: `Rooms`.
    ListRooms {
        /// Repeated in the answer.
        request: u32,
        /// Selects rooms.
        filter: RoomFilter,
        /// Selects rooms after this one: `next` of the previous page.
        after: Option<RoomId>,
    },
    /// Creates a room and takes a seat in it. Answer: `Joined` or `Rejected`.
    CreateRoom {
        /// Repeated in the answer.
        request: u32,
        /// Name of the game, one of the games in the `Welcome`.
        game: String,
        /// The room's name; the server cleans it, see [`crate::text::clean_room_name`].
        name: String,
        /// The room's settings.
        settings: RoomSettings,
    },
    /// Takes a seat. Answer: `Joined` or `Rejected`.
    JoinRoom {
        /// Repeated in the answer.
        request: u32,
        /// The room.
        room: RoomId,
        /// The room's passcode, if it has one.
        passcode: Option<String>,
    },
    /// Takes a seat in a joinable room of this game, or in a new one. Answer: `Joined` or `Rejected`.
    QuickMatch {
        /// Repeated in the answer.
        request: u32,
        /// Name of the game.
        game: String,
        /// The game's options, if a room has to be created.
        #[serde(with = "bytes")]
        options: Vec<u8>,
    },
    /// Enters a room as a spectator. Answer: `Joined` (without a seat) or `Rejected`.
    Spectate {
        /// Repeated in the answer.
        request: u32,
        /// The room.
        room: RoomId,
        /// The room's passcode, if it has one.
        passcode: Option<String>,
    },
    /// Leaves the room for good. Answer: `Left` or `Rejected`.
    Leave {
        /// Repeated in the answer.
        request: u32,
    },
    /// Sets whether this seat is ready to start. Everyone in the room gets an event; answered only if rejected.
    Ready {
        /// Repeated in the rejection.
        request: u32,
        /// Whether the seat is ready.
        ready: bool,
    },
    /// Makes a move in the game. Its effects are events; answered only if rejected.
    Act {
        /// Repeated in the rejection.
        request: u32,
        /// The action, encoded by the game.
        #[serde(with = "bytes")]
        action: Vec<u8>,
    },
    /// Sends a chat text. Answered only if rejected.
    Chat {
        /// Repeated in the rejection.
        request: u32,
        /// The recipients.
        scope: ChatScope,
        /// At most [`CHAT_BYTES_MAX`](crate::limits::CHAT_BYTES_MAX) bytes; see [`crate::text::clean_chat`].
        text: String,
    },
    /// Requests another match in the same room after one is over. Answered only if rejected.
    Rematch {
        /// Repeated in the rejection.
        request: u32,
    },
    /// States how far the client has processed the server's stream, so that the server can discard that part.
    Confirm {
        /// Offset in the server's stream.
        received: u64,
    },
    /// Heartbeat. Answer: `Pong`.
    Ping {
        /// Repeated in the answer.
        nonce: u64,
    },
    /// The player leaves for good and gives up its seat and token. The server closes the connection.
    Goodbye,
    /// Takes a seat, or becomes a spectator, with a room's invite code, which replaces id and passcode. Answer:
    /// `Joined` or `Rejected`.
    JoinByInvite {
        /// Repeated in the answer.
        request: u32,
        /// The code from an `Invitation` or `Invited`; case-insensitive, with or without hyphens.
        code: String,
        /// Become a spectator instead of taking a seat.
        watch: bool,
    },
    /// The owner changes all of the room's settings at once. During a match the settings that it depends on (seats,
    /// options, turn clock) must stay unchanged. Everyone in the room gets an event; answered only if rejected.
    Configure {
        /// Repeated in the rejection.
        request: u32,
        /// The new settings.
        settings: RoomSettings,
    },
    /// The owner requests the room's invite code. Answer: `Invitation` or `Rejected`.
    Invite {
        /// Repeated in the answer.
        request: u32,
        /// Create a new code, which invalidates the previous one.
        renew: bool,
    },
    /// The owner reserves a free seat for a player for a limited time. The player gets `Invited`, and everyone in the
    /// room gets an event; answered only if rejected. If the player already has a reservation, its time starts again. A
    /// reservation lifts a ban.
    Reserve {
        /// Repeated in the rejection.
        request: u32,
        /// The player's name.
        player: String,
    },
    /// The owner takes the seat from a player and bans it from this room, and its name for some time. Everyone in the
    /// room gets an event; answered only if rejected.
    Kick {
        /// Repeated in the rejection.
        request: u32,
        /// The player's seat.
        seat: u8,
        /// The player's name: if another player has the seat by now, the request is rejected.
        name: String,
    },
    /// The owner makes another player the room's owner. Everyone in the room gets an event; answered only if rejected.
    HandOver {
        /// Repeated in the rejection.
        request: u32,
        /// The player's seat.
        seat: u8,
        /// The player's name: if another player has the seat by now, the request is rejected.
        name: String,
    },
    /// Requests the current state of the room, with the game's view. A client that does not compute the effect of the
    /// game's events on the view uses this. Answer: `Picture` (in version 3 `PictureToMove`) or `Rejected`.
    Look {
        /// Repeated in the answer.
        request: u32,
    },
    /// Version 2: first frame of a new player, instead of `Hello`. If its answer is lost, the same frame on a new
    /// connection asks for it again. Answer: `Greeted` or `Error`.
    Greet {
        /// The player's name, as in `Hello`.
        name: String,
        /// Program and version of the client, as in `Hello`.
        client: String,
        /// A random number, which the client keeps secret: a client that repeats name and nonce gets the session. 0:
        /// the greeting cannot be repeated.
        nonce: u64,
        /// The server answers accepted requests that have no other answer with `Accepted`.
        acknowledge: bool,
    },
    /// Version 2: the client gets no more chat, whispers or invitations of the players of this name, or gets them
    /// again. They are not told. It holds for the session. Answered only if rejected.
    Ignore {
        /// Repeated in the rejection.
        request: u32,
        /// The name; names that look like it count as the same.
        player: String,
        /// Whether to ignore the name, or not any more.
        ignore: bool,
    },
}

impl ClientMessage {
    /// The request number, for messages that have one.
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
            | Self::Ignore { request, .. }
            | Self::Look { request } => Some(*request),
            Self::Hello { .. }
            | Self::Greet { .. }
            | Self::Resume { .. }
            | Self::Confirm { .. }
            | Self::Ping { .. }
            | Self::Goodbye => None,
        }
    }
}

/// A message of the server. `request` repeats the number of the message that it answers.
///
/// `Welcome`, `Resumed`, `Error` and `ShuttingDown` belong to a connection and not to the server's stream: offsets do
/// not count their bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ServerMessage {
    /// Answer to `Hello`. The server's stream begins after it.
    Welcome {
        /// The protocol version of this connection.
        version: u16,
        /// The token for `Resume`.
        token: Token,
        /// The client's player id.
        player: PlayerId,
        /// The player's name, as the server cleaned it.
        name: String,
        /// The server's limits.
        limits: Limits,
        /// The games that the server offers.
        #[serde(with = "list")]
        games: Vec<GameInfo>,
    },
    /// Answer to `Resume`. Both streams continue after it.
    Resumed {
        /// Offset up to which the server has processed the client's stream. The client sends its stream again from
        /// there.
        received: u64,
        /// Offset in the server's stream of the byte that follows this frame. If it is greater than the requested
        /// offset, bytes were lost and a `Resync` follows.
        resuming_at: u64,
    },
    /// One page of rooms.
    Rooms {
        /// The request that this answers.
        request: u32,
        /// The rooms, in the same order on all pages.
        #[serde(with = "list")]
        rooms: Vec<RoomSummary>,
        /// Value of `after` for the next page, if there is one.
        next: Option<RoomId>,
    },
    /// The client is in a room now.
    Joined {
        /// The request that this answers.
        request: u32,
        /// The room's current state.
        snapshot: Snapshot,
    },
    /// An event in the client's room.
    Event {
        /// Increases by one with each event of a room. The client does not receive the numbers of events that are only
        /// for others.
        number: u64,
        /// The event.
        event: RoomEvent,
    },
    /// Part of the stream was lost, or the client fell behind the room's log. The snapshot replaces what is missing.
    Resync {
        /// The client's room; `None` if it is in none.
        snapshot: Option<Snapshot>,
    },
    /// The server rejected a request, which changed nothing.
    Rejected {
        /// The request that this answers.
        request: u32,
        /// The reason, for programs.
        code: RejectCode,
        /// The reason, for people.
        text: String,
    },
    /// The client has left the room.
    Left {
        /// The request that this answers.
        request: u32,
    },
    /// A chat text to the lobby or to the client. (A text to a room is a [`RoomEvent::Chat`].)
    Chat {
        /// The recipients; for a whisper with the recipient's name.
        scope: ChatScope,
        /// The sender's name; empty if an operator of the server sent it.
        from: String,
        /// The text.
        text: String,
    },
    /// Answer to `Ping`.
    Pong {
        /// The nonce of the `Ping`.
        nonce: u64,
        /// Offset up to which the server has processed the client's stream. The client may discard everything before
        /// it.
        received: u64,
    },
    /// The server closes the connection after this frame.
    Error {
        /// The reason, for programs. [`ErrorCode::may_resume`] tells whether the client may resume.
        code: ErrorCode,
        /// The reason, for people.
        text: String,
    },
    /// The server stops: the connection and the session end after this frame.
    ShuttingDown {
        /// The reason, for people.
        text: String,
    },
    /// The match in the client's room has begun.
    Started {
        /// The room, with the client's view of the match.
        snapshot: Snapshot,
    },
    /// The room's invite code.
    Invitation {
        /// The request that this answers.
        request: u32,
        /// Anyone with this code can join while the room has a free seat.
        code: String,
    },
    /// A seat is reserved for the client.
    Invited {
        /// The room.
        room: RoomId,
        /// Name of its game.
        game: String,
        /// The room's name.
        name: String,
        /// Name of the player that reserved the seat.
        from: String,
        /// The room's invite code, for `JoinByInvite`.
        code: String,
        /// Duration of the reservation, in seconds.
        seconds: u16,
    },
    /// The room's owner removed the client from the room.
    Removed {
        /// The room.
        room: RoomId,
        /// The reason, for people.
        text: String,
    },
    /// The server dropped lines of the lobby's chat, because the client reads more slowly than they arrive.
    ChatMissed {
        /// Number of dropped lines.
        lines: u64,
    },
    /// Answer to `Look`: the room's current state. Events that it already includes may still follow; their numbers
    /// tell.
    Picture {
        /// The request that this answers.
        request: u32,
        /// The room.
        snapshot: Snapshot,
    },
    /// Version 2: answer to `Greet`. The server's stream begins after it.
    Greeted {
        /// The protocol version of the session.
        version: u16,
        /// The token for `Resume`. A repeated greeting gets a new one, and the former one is void.
        token: Token,
        /// The client's player id.
        player: PlayerId,
        /// The player's name, as the server cleaned it.
        name: String,
        /// The server's limits.
        limits: Limits,
        /// What the server allows a client in the long run.
        budgets: Budgets,
        /// Offset up to which the server has processed the client's stream: 0, except after a repeated greeting.
        received: u64,
        /// The games that the server offers.
        #[serde(with = "list")]
        games: Vec<GameInfo>,
    },
    /// Version 2: the server has accepted and executed a request that has no other answer. Only for clients that asked
    /// for it in `Greet`.
    Accepted {
        /// The request.
        request: u32,
    },
    /// Version 2, instead of `Rejected`: the server rejected a request that came too early.
    RejectedTooFast {
        /// The request that this answers.
        request: u32,
        /// The reason, for programs.
        code: RejectCode,
        /// The reason, for people.
        text: String,
        /// The same request can succeed after this time, in milliseconds.
        retry_after_ms: u32,
    },
    /// Version 3, instead of `Picture`: the same, and the seat to move.
    PictureToMove {
        /// The request that this answers.
        request: u32,
        /// The room.
        snapshot: Snapshot,
        /// The seat to move; `None` if no match is in progress, or if the game's seats do not move in turn.
        to_move: Option<u8>,
    },
}

impl ServerMessage {
    /// The number of the request that this answers, if it answers one.
    pub fn request(&self) -> Option<u32> {
        match self {
            Self::Rooms { request, .. }
            | Self::Joined { request, .. }
            | Self::Rejected { request, .. }
            | Self::Left { request }
            | Self::Invitation { request, .. }
            | Self::Picture { request, .. }
            | Self::Accepted { request }
            | Self::RejectedTooFast { request, .. }
            | Self::PictureToMove { request, .. } => Some(*request),
            _ => None,
        }
    }
}

/// The recipients of a chat text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ChatScope {
    /// Everyone in the room.
    Room,
    /// Everyone on the server.
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
    /// The game's name.
    pub name: String,
    /// Smallest number of seats of a room.
    pub seats_min: u8,
    /// Greatest number of seats of a room.
    pub seats_max: u8,
    /// Ticks per second; 0 for a turn-based game.
    pub ticks_per_second: u16,
}

/// Limits of the server, and what it requires of clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Greatest number of bytes of a frame's body.
    pub frame_bytes_max: u32,
    /// Greatest number of bytes of a player's name.
    pub name_bytes_max: u32,
    /// Greatest number of bytes of a chat text.
    pub chat_bytes_max: u32,
    /// The client must confirm at least once in this number of bytes of the server's stream.
    pub confirm_every_bytes: u32,
    /// The server closes the connection of a client that completes no frame for this time, in milliseconds.
    pub heartbeat_timeout_ms: u32,
    /// How long the server keeps the seat of a player without a connection, in milliseconds.
    pub seat_grace_ms: u32,
}

/// Version 2: what the server allows a client besides [`Limits`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Budgets {
    /// Greatest number of bytes of its stream that the server sends before the client confirms any of them.
    pub unconfirmed_bytes_max: u32,
    /// The server closes the connection of a client that lets so many bytes wait unconfirmed for this time, in
    /// milliseconds.
    pub unconfirmed_timeout_ms: u32,
    /// Bytes of a room's log. A client that falls further behind the room's events gets `Resync`.
    pub room_log_bytes: u32,
    /// Chat lines that a player may send at once.
    pub chat_burst: u32,
    /// Chat lines that a player may send per minute in the long run; 0: no limit.
    pub chat_per_minute: u32,
    /// Rate-limited requests that a player may make at once.
    pub requests_burst: u32,
    /// Rate-limited requests that a player may make per minute in the long run; 0: no limit.
    pub requests_per_minute: u32,
}
