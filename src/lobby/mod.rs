//! The rules of the lobby and its rooms: functions that change shared state on behalf of one session, or of time.
//!
//! In the order of a match's life:
//!
//! * [`listing`]: which rooms there are, and quick match;
//! * [`join_leave`]: create, join, spectate, leave. The room's lock decides which player gets the last seat
//!   (`join_leave::join`). [`invites`] and [`reservations`] are other ways to a seat, and [`guesses`] slows guesses at
//!   passcodes and invite codes;
//! * [`settings`] and [`ownership`]: what the room's owner decides;
//! * [`match_play`]: ready, act, tick, end of the match; [`turns`]: the turn clock;
//!   [`tick_schedule`]: when ticks are due; [`tick_budget`]: how long a ticker's call of a game may take;
//! * [`delivery`]: from the room's log to the player's output. [`text_delivery`] does it for text mode,
//!   [`mail_delivery`] for a player's mailbox. [`room_view`] builds snapshots and lines of a list;
//! * [`news`]: what of it the log says;
//! * [`chat`]: to a room, to the lobby, to one player (the rate limit is [`rate`](crate::session::rate));
//! * [`fanout`]: budgets for what reaches many;
//! * [`departure`]: disconnect, kick, and leave for good. Expiry is in `maintenance`;
//! * [`text_requests`]: requests that only text mode has.
//!
//! Every change is one transaction under one lock: a room's, the lobby's (names, mailboxes, rooms in use), that of the
//! lobby's chat, or the player's own. If the process dies before the commit, the next one that takes the lock rolls
//! back.
//!
//! A change of the lobby *and* a room takes two transactions. The state in between is valid, and any process that finds
//! it completes or undoes it: a [player that opens a room](crate::state::players::Membership::opening), a [room that
//! closes](crate::state::rooms::RoomLife::CLOSING), a [player that
//! expires](crate::state::directory::Presence::EXPIRING).

pub mod chat;
pub mod delivery;
pub mod departure;
pub(crate) mod fanout;
pub(crate) mod guesses;
pub mod ignoring;
pub mod invites;
pub mod join_leave;
pub mod listing;
pub mod mail_delivery;
pub mod match_play;
pub mod names;
pub(crate) mod news;
pub mod ownership;
pub mod reservations;
pub mod room_view;
pub mod sanctions;
pub mod settings;
pub(crate) mod text_delivery;
pub mod text_requests;
pub(crate) mod tick_budget;
pub(crate) mod tick_schedule;
pub mod turns;
