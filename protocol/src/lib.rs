//! The wire protocol of Forkade: what client and server say, how it becomes bytes, and a client that resumes by
//! itself.
//!
//! From the bottom up: [`codec`] makes bytes of values, [`frame`] delimits them, [`preamble`] opens a connection,
//! [`messages`] is the vocabulary, [`text`] cleans what people type, [`limits`] bounds it all. [`session`] is a
//! client without sockets, for whoever drives many connections from one loop; [`client`] is a blocking client over
//! it. `WIRE.md` beside this crate is the specification, for clients in other languages.

#![forbid(unsafe_code)]

mod byte_queue;
pub mod client;
pub mod codec;
pub mod frame;
pub mod limits;
pub mod messages;
pub mod preamble;
pub mod session;
pub mod text;

pub use client::{Client, ClientError, ClientOptions};
pub use messages::{
    ChatScope, ClientMessage, ErrorCode, GameInfo, Limits, Outcome, Phase, PlayerId, RejectCode, Reservation,
    RoomEvent, RoomFilter, RoomId, RoomRules, RoomSettings, RoomSummary, SeatInfo, ServerMessage, Snapshot,
    Token, Turn,
};
pub use preamble::{VERSION_MAX, VERSION_MIN};
pub use session::{ClientSession, SessionError};
