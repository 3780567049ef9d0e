//! The lobby's rules, as functions on a session or on the shared state. Every change is a transaction under exactly one
//! lock.
//!
//! Reading order:
//!
//! 1. [`join_leave`]: create, join, spectate and leave a room. [`change_room`](join_leave::change_room) is the frame of
//!    every request about the room that the player is in.
//! 2. [`match_play`]: ready, act, ticks, and the end of a match; [`turns`]: turn clocks.
//! 3. [`delivery`]: from the room's event log, the lobby's chat and the [`mailbox`] to the player's output;
//!    [`text_delivery`]: the same for text mode.
//! 4. [`settings`], [`ownership`], [`reservations`], [`invites`]: what a room's owner decides.
//! 5. [`listing`], [`room_query`], [`room_view`]: what a client sees of rooms.
//! 6. [`chat`]; [`text_requests`]: what only text mode asks for.
//! 7. [`departure`]: how a connection gives up its session, and how a player leaves for good.
//!
//! A change of the lobby *and* of a room takes two transactions. The state between them is stored in the records, so any
//! process that finds it can complete or undo it: a [player opening a
//! room](crate::state::players::Membership::opening), a [room that
//! closes](crate::state::rooms::RoomLife::CLOSING), a [player that leaves for
//! good](crate::state::directory::Presence::EXPIRING).

pub mod chat;
pub mod delivery;
pub mod departure;
pub mod invites;
pub mod join_leave;
pub mod listing;
pub mod mail_delivery;
pub mod match_play;
pub mod ownership;
pub mod reservations;
pub mod room_view;
pub mod settings;
pub(crate) mod text_delivery;
pub mod text_requests;
pub mod turns;
