//! Why the server refuses: codes for programs, in the order of the wire format.

use serde::{Deserialize, Serialize};

/// Why a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ErrorCode {
    /// The first bytes are no preamble.
    BadPreamble,
    /// No version in common.
    VersionUnsupported,
    /// A frame announces more than the limit.
    FrameTooLarge,
    /// A frame does not contain one whole message and nothing else.
    Malformed,
    /// A valid message that has no place here, such as a second `Hello`.
    WrongState,
    /// The greeting did not come in time.
    HandshakeTimeout,
    /// No sign of life for longer than the heartbeat allows.
    Silent,
    /// The client does not read what it is sent.
    NotReading,
    /// Nothing is left of the name after cleaning, or too much, or it is one that nobody can have.
    NameInvalid,
    /// Somebody has this name now.
    NameTaken,
    /// No room for another player.
    ServerFull,
    /// No player has this token (any more).
    TokenUnknown,
    /// The same player came back on another connection.
    Replaced,
    /// An operator removed the player.
    Kicked,
    /// The server stops.
    ShuttingDown,
    /// A fault of the server; the player's seat keeps its grace.
    InternalError,
}

impl ErrorCode {
    /// Whether a client that has a token may expect a `Resume` to succeed, now or a little later. With any other
    /// code coming back is pointless, or would take the player from the connection that has it now.
    pub fn may_resume(self) -> bool {
        match self {
            Self::HandshakeTimeout
            | Self::Silent
            | Self::NotReading
            | Self::ServerFull
            | Self::InternalError => true,
            Self::BadPreamble
            | Self::VersionUnsupported
            | Self::FrameTooLarge
            | Self::Malformed
            | Self::WrongState
            | Self::NameInvalid
            | Self::NameTaken
            | Self::TokenUnknown
            | Self::Replaced
            | Self::Kicked
            | Self::ShuttingDown => false,
        }
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum RejectCode {
    /// No such game here.
    UnknownGame,
    /// Nothing is left of the room's name after cleaning, or too much.
    RoomNameInvalid,
    /// No such room (any more).
    RoomNotFound,
    /// No free seat.
    RoomFull,
    /// The server has as many rooms as it can.
    RoomsFull,
    /// The passcode is missing or wrong.
    WrongPasscode,
    /// Leave your room first.
    AlreadyInRoom,
    /// You are in no room.
    NotInRoom,
    /// There is no match under way.
    NotPlaying,
    /// The match has begun.
    AlreadyStarted,
    /// Another seat is to move.
    NotYourTurn,
    /// The rules forbid this move.
    IllegalAction,
    /// The bytes are no action of this game.
    BadAction,
    /// The bytes are no options of this game, or impossible ones.
    BadOptions,
    /// The game is not played with so many seats.
    SeatsOutOfRange,
    /// The game's code failed; the match is as it was before.
    GameFailed,
    /// More than the limit.
    ChatTooLong,
    /// Nothing is left of the text after cleaning.
    TextInvalid,
    /// Nobody has this name now.
    UnknownPlayer,
    /// The addressee has too many messages waiting.
    MailboxFull,
    /// Spectators cannot do this.
    Spectating,
    /// The match is not over yet.
    NotOver,
    /// The match would need more memory than a room has.
    StateTooLarge,
    /// This server does not offer it.
    NotOffered,
    /// Only the room's owner may do this.
    NotOwner,
    /// The owner of this room has sent you out.
    Banned,
    /// No room has this invite code (any more).
    InviteUnknown,
    /// No such seat, or not as you think it is: nobody sits there, or it is your own.
    NoSuchSeat,
    /// Wait a little before you say more.
    ChatTooFast,
    /// Nobody may watch this room.
    NoSpectators,
    /// The room cannot be like this.
    BadSettings,
    /// Wait a little before you ask for more.
    TooFast,
    /// Somebody else has that seat by now.
    SeatChanged,
    /// The server is about to stop: no match begins any more.
    Draining,
}
