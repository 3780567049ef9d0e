//! The lobby: an API over shared state. Every change is a transaction under exactly one lock.
//!
//! * [`memory`]: what lies where; [`header`]: what is read without a lock; [`directory`], [`connections`], [`players`], [`rooms`]: the records;
//! * [`session`]: one connection and its player, as animated by a handler: [greeting](session::Session::greet), resume, end;
//! * [`membership`]: create, join, watch, leave; `settings`, `ownership`, [`invites`] and `reservations`: what a room's owner decides;
//! * [`play`]: ready, act; `turns`: their clocks; [`listing`]: what rooms there are;
//! * [`chat`]: what is said, and to whom; [`rate`]: how fast; [`mailbox`]: what waits for one player;
//! * [`delivery`]: from the room's log, the lobby's chat and the mailbox to the player's output;
//! * [`text_session`]: what is different with players in text mode;
//! * [`blame`]: rooms whose game kills the ticker;
//! * [`spyglass`]: an operator's look at a player's streams;
//! * [`sweep`]: what happens by time, and what dead processes left;
//! * [`check`]: whether all of it is consistent; [`picture`]: what it shows, for proofs.
//!
//! What concerns the lobby *and* a room takes two transactions with a lasting state in between, which whoever finds it can
//! complete or undo: a [player opening a room](players::Membership::opening), a [room that
//! closes](rooms::RoomLife::CLOSING), a [player who leaves for good](directory::Presence::EXPIRING).

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
