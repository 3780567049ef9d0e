//! Error and rejection codes, in the order of the wire format.

use serde::{Deserialize, Serialize};

/// Why the server closes a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ErrorCode {
    /// The first bytes are not a preamble.
    BadPreamble,
    /// There is no common version.
    VersionUnsupported,
    /// A frame announces more bytes than the limit.
    FrameTooLarge,
    /// A frame's body is not exactly one message, or an offset is impossible.
    Malformed,
    /// The message is not valid at this point, such as a second `Hello`.
    WrongState,
    /// The preamble and the first frame did not arrive in time.
    HandshakeTimeout,
    /// No complete frame arrived within the heartbeat timeout.
    Silent,
    /// The client does not read what the server sends.
    NotReading,
    /// After cleaning, the name is empty, too long or not allowed.
    NameInvalid,
    /// A present player has this name.
    NameTaken,
    /// There is no space for another player or connection.
    ServerFull,
    /// No player has this token, or no longer.
    TokenUnknown,
    /// The same player has a newer connection.
    Replaced,
    /// An operator removed the player, or has banned its name.
    Kicked,
    /// The server stops.
    ShuttingDown,
    /// An error in the server. The player's seat is kept for its grace time.
    InternalError,
    /// Version 2: the client reads, but does not confirm what it has received.
    NotConfirming,
    /// Version 2: a resume has waited for too long, because the former connection's process has not released the session
    /// in time, or because the player comes back too often. The client may try again.
    SessionHeld,
}

const _: () = {
    let mut index = 0;
    while index < ErrorCode::ALL.len() {
        assert!(ErrorCode::ALL[index] as usize == index);
        index += 1;
    }
};

impl ErrorCode {
    /// All codes, in the order of the wire format.
    pub const ALL: [Self; 18] = [
        Self::BadPreamble,
        Self::VersionUnsupported,
        Self::FrameTooLarge,
        Self::Malformed,
        Self::WrongState,
        Self::HandshakeTimeout,
        Self::Silent,
        Self::NotReading,
        Self::NameInvalid,
        Self::NameTaken,
        Self::ServerFull,
        Self::TokenUnknown,
        Self::Replaced,
        Self::Kicked,
        Self::ShuttingDown,
        Self::InternalError,
        Self::NotConfirming,
        Self::SessionHeld,
    ];

    /// The code for a client of this protocol version, which knows no later codes.
    pub fn in_version(self, version: u16) -> Self {
        match self {
            Self::NotConfirming if version < 2 => Self::NotReading,
            Self::SessionHeld if version < 2 => Self::InternalError,
            code => code,
        }
    }

    /// Whether a client that has a token can expect a `Resume` to succeed, now or a little later. After any other code
    /// a `Resume` is useless, or would take the session from the connection that has it now.
    pub fn may_resume(self) -> bool {
        match self {
            Self::HandshakeTimeout
            | Self::Silent
            | Self::NotReading
            | Self::NotConfirming
            | Self::ServerFull
            | Self::SessionHeld
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

/// Why the server rejected a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum RejectCode {
    /// The server does not offer this game.
    UnknownGame,
    /// After cleaning, the room's name is empty or too long.
    RoomNameInvalid,
    /// There is no such room, or no longer.
    RoomNotFound,
    /// No seat is free.
    RoomFull,
    /// The server has its greatest number of rooms.
    RoomsFull,
    /// The passcode is missing, wrong or too long.
    WrongPasscode,
    /// The client is in a room, which it has to leave first.
    AlreadyInRoom,
    /// The client is in no room.
    NotInRoom,
    /// No match is in progress.
    NotPlaying,
    /// The match has begun.
    AlreadyStarted,
    /// Another seat is to move.
    NotYourTurn,
    /// The rules of the game do not allow this action.
    IllegalAction,
    /// The bytes are not an action of this game.
    BadAction,
    /// The bytes are not options of this game, or the options are impossible.
    BadOptions,
    /// The game does not support this number of seats.
    SeatsOutOfRange,
    /// The game's code failed. The match is unchanged.
    GameFailed,
    /// The text is longer than the limit.
    ChatTooLong,
    /// The text is empty after cleaning.
    TextInvalid,
    /// No player has this name.
    UnknownPlayer,
    /// Too many messages wait for the recipient.
    MailboxFull,
    /// Spectators cannot do this.
    Spectating,
    /// There is no finished match to repeat.
    NotOver,
    /// The match would need more memory than a room has.
    StateTooLarge,
    /// The server does not offer this.
    NotOffered,
    /// Only the room's owner may do this.
    NotOwner,
    /// The owner of this room has banned the client, or lately a player of its name.
    Banned,
    /// No room has this invite code, or no longer.
    InviteUnknown,
    /// The seat does not exist, is free, or is the client's own.
    NoSuchSeat,
    /// The client exceeds the rate limit of chat lines, or an operator has muted it.
    ChatTooFast,
    /// The room does not allow spectators.
    NoSpectators,
    /// The room cannot have these settings.
    BadSettings,
    /// The client exceeds the rate limit of requests.
    TooFast,
    /// Another player has that seat by now.
    SeatChanged,
    /// The server is about to stop: it creates no rooms and starts no matches.
    Draining,
    /// Version 2: the client ignores as many names as it can.
    IgnoringTooMany,
}
