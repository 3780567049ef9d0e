//! Errors of a session.

use thiserror::Error;

use crate::{codec::CodecError, messages::ErrorCode};

/// Why a session cannot perform a call, or why its connection has to end.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SessionError {
    /// The message cannot be sent: it is longer than a frame may be.
    #[error("the message cannot be sent")]
    Unsendable(#[source] CodecError),
    /// Only the session itself sends `Hello`, `Resume`, `Confirm` and pings with
    /// [`SESSION_NONCE`](super::SESSION_NONCE).
    #[error("the session sends this message itself")]
    Reserved,
    /// The session's version of the protocol has no such message.
    #[error("this server speaks a version of the protocol without this message")]
    NotInVersion,
    /// The session keeps so many bytes that the server has not processed that this message does not fit. Receive, then
    /// try again.
    #[error("{unacknowledged} of {bytes_max} bytes are kept until the server has processed them")]
    BufferFull {
        /// Bytes kept now.
        unacknowledged: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// More input than [`INPUT_BYTES_MAX`](super::INPUT_BYTES_MAX): fetch the messages before receiving more.
    #[error("received bytes have to be fetched as messages before more can be received")]
    InputFull,
    /// The session has ended by a goodbye or by an earlier error.
    #[error("the session has ended")]
    Ended,
    /// The server ended the connection.
    #[error("the server ended the connection: {code:?}: {text}")]
    Closed {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        text: String,
    },
    /// The server sent a frame whose body is not a valid message.
    #[error("the server sent an invalid message")]
    Undecodable(#[source] CodecError),
    /// The server announced a frame that is longer than the limit.
    #[error("the server announced a frame of {announced} bytes")]
    FrameTooLarge {
        /// Bytes announced.
        announced: usize,
    },
    /// The server violated the protocol.
    #[error("the server violated the protocol: {0}")]
    Violation(&'static str),
    /// The server lost bytes that it had acknowledged. The session no longer keeps them.
    #[error(
        "the server requests the stream from byte {requested}, but it is kept only from byte {kept_from}"
    )]
    Unresumable {
        /// Offset from which the server requests the stream.
        requested: u64,
        /// The first byte kept.
        kept_from: u64,
    },
}
