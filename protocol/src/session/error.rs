//! What can go wrong with a session.

use thiserror::Error;

use crate::{codec::CodecError, messages::ErrorCode};

/// Why a session cannot do what was asked, or why its connection has to end.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SessionError {
    /// The message cannot be sent: it is longer than a frame may be.
    #[error("the message cannot be sent")]
    Unsendable(#[source] CodecError),
    /// `Hello`, `Resume`, `Confirm` and pings with [`SESSION_NONCE`](super::SESSION_NONCE) are the session's own business.
    #[error("the session sends this message itself")]
    Reserved,
    /// The server has yet to take in so much that this message cannot be kept. Receive, then try again.
    #[error("{unconfirmed} of {bytes_max} bytes wait for the server to take them in")]
    BufferFull {
        /// Bytes kept now.
        unconfirmed: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// More input than [`INPUT_BYTES_MAX`](super::INPUT_BYTES_MAX): fetch the messages before receiving more.
    #[error("received bytes have to be fetched as messages before more can be received")]
    InputFull,
    /// The session is over: it said goodbye, or was ended by an earlier error.
    #[error("the session is over")]
    Ended,
    /// The server ended the connection.
    #[error("the server ended the connection: {code:?}: {text}")]
    Closed {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        text: String,
    },
    /// The server sent something that is no message.
    #[error("the server sent something that is no message")]
    Undecodable(#[source] CodecError),
    /// The server announced a frame beyond the limit.
    #[error("the server announced a frame of {announced} bytes")]
    FrameTooLarge {
        /// Bytes announced.
        announced: usize,
    },
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Violation(&'static str),
    /// The server lost client bytes that it had already confirmed, so they are no longer kept here.
    #[error("the server wants the stream from byte {wanted}, but it is kept only from byte {kept_from}")]
    Unresumable {
        /// Where the server wants to go on.
        wanted: u64,
        /// The first byte kept.
        kept_from: u64,
    },
}
