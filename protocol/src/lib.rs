//! The wire protocol of Forkade: messages, their encoding, and a client that resumes its session by itself.
//!
//! From the bottom up: [`codec`] encodes values, [`frame`] delimits messages in a byte stream, [`preamble`] opens a
//! connection, [`messages`] defines all messages, [`text`] cleans names and chat, and [`limits`] holds every limit.
//! [`session`] is a client without sockets, for programs that drive many connections from one event loop. [`client`]
//! is a blocking client on top of it. `WIRE.md` beside this crate is the specification, for clients in other languages.

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
    Budgets, ChatScope, ClientMessage, ErrorCode, GameInfo, Limits, Outcome, Phase, PlayerId, RejectCode,
    Reservation, RoomEvent, RoomFilter, RoomId, RoomRules, RoomSettings, RoomSummary, SeatInfo,
    ServerMessage, Snapshot, Token, Turn,
};
pub use preamble::{VERSION_MAX, VERSION_MIN};
pub use session::{ClientSession, SessionError};
