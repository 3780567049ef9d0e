//! The limits of games, with their units in their names.

use forkade_protocol::limits::FRAME_BYTES_MAX;

/// Seats of a room. A snapshot with all their names and the longest view still fits a frame.
pub const SEATS_MAX: u8 = 32;

/// Games that a server offers. The `Welcome` message lists all of them.
pub const GAMES_MAX: usize = 16;

/// Options of a room, as its game encodes them.
pub const GAME_OPTIONS_BYTES_MAX: usize = 64;

/// A game's encoded state. A room has two slots of this size.
pub const GAME_STATE_BYTES_MAX: usize = 8 * 1024;

/// Ticks per second of a game. Ten times as many as players of most real-time games notice; a tick costs tens of
/// microseconds, so a hundred such rooms take a fifth of a processor.
pub const TICKS_PER_SECOND_MAX: u16 = 100;

/// Ticks that a game can have made up for at once, after its room was not ticked for a while.
pub const CATCH_UP_TICKS_MAX: u16 = 100;

/// An encoded view of a match.
pub const GAME_VIEW_BYTES_MAX: usize = 4 * 1024;

/// An encoded action: a frame less its longest envelope.
pub const ACTION_BYTES_MAX: usize = FRAME_BYTES_MAX - 64;

/// An encoded event of a game: a frame less its longest envelope. It is more than an action, so that a game can pass
/// one on.
pub const GAME_EVENT_BYTES_MAX: usize = FRAME_BYTES_MAX - 32;

/// Events that one call of a game can give out.
pub const OUTBOX_EVENTS_MAX: usize = 256;

/// Bytes of all events that one call of a game can give out, including [`OUTBOX_EVENT_HEADER_BYTES`] for each.
pub const OUTBOX_BYTES_MAX: usize = 16 * 1024;

/// Bytes that an event in an outbox needs besides its own: audience and length.
pub const OUTBOX_EVENT_HEADER_BYTES: usize = 4;

/// Bytes of a rejection's text. A longer text is cut.
pub const REJECTION_TEXT_BYTES_MAX: usize = 200;

/// The longest description of a room's options, in bytes: it is a part of one line.
pub const OPTIONS_TEXT_BYTES_MAX: usize = 256;
