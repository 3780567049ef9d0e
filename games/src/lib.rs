//! What a game developer implements, and the games that come with the server.
//!
//! A game is a plain value with rules: an implementation of [`Game`]. It knows no player, connection, process or clock.
//! Reading order: [`Game`], then [`Outbox`] (the events that a call gives out), [`Rejection`] (what a call refuses),
//! [`limits`], and [`tictactoe`] as an example. [`Games`] is the list of games that a server offers.
//!
//! The server keeps the encoded state of a match in shared memory. For each call, a process decodes the state, calls
//! the game and encodes the new state, under the lock of that room alone. Therefore:
//!
//! - **Any process may run the next call.** Only the value itself survives a call: no statics, caches, threads or
//!   files. What is not serialized is lost.
//! - **Everyone in the room waits while a call runs.** A call computes for microseconds. It must not sleep, log, or do
//!   input or output. A process whose call runs for seconds is killed.
//! - **A failed call has not happened.** After an `Err` or a panic the room is as before the call, and none of its
//!   events is seen. If the process is killed during a call, the call either took place completely or not at all.
//! - **A game is deterministic.** State, seat and input alone decide the new state and the events, byte for byte.
//!   Randomness comes from the seed given to [`Game::new`], kept in the state; time is counted in ticks. A game must
//!   not use clocks, the system's random generators or addresses, nor `HashMap` or `HashSet` in its state (their order
//!   differs in each process; use `BTreeMap`). In return, matches can be replayed, taken over at any instruction, and
//!   tested without a server.
//!
//! ```
//! use forkade_games::tictactoe::{Placed, TicTacToe};
//! use forkade_games::{Game, Outbox};
//!
//! let mut game = TicTacToe::new((), 2, 0)?;
//! let mut out = Outbox::new();
//! game.act(0, 4, &mut out)?;
//! assert_eq!(out.events()[0].1, Placed { seat: 0, cell: 4 });
//! assert!(game.act(0, 5, &mut out).is_err(), "it is the other player's turn");
//! # Ok::<(), forkade_games::Rejection>(())
//! ```
#![forbid(unsafe_code)]

pub mod connect4;
pub mod eights;
mod erased;
pub mod limits;
mod outbox;
#[doc(hidden)]
pub mod panics;
mod program;
mod registry;
mod rejection;
pub mod relay;
pub mod test_kit;
pub mod tictactoe;

use std::ops::RangeInclusive;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::outbox::{Audience, Outbox, OutboxError};
pub use crate::program::Program;
pub use crate::registry::{Games, GamesError};
pub use crate::rejection::Rejection;
pub use forkade_protocol::Outcome;
/// The encoding of options, actions, events and views.
pub use forkade_protocol::codec;

// For the server. A game needs none of these.
#[doc(hidden)]
pub use crate::erased::{AnyGame, GameError, Step};
#[doc(hidden)]
pub use crate::outbox::ErasedOutbox;
#[doc(hidden)]
pub use crate::panics::Panic;
#[doc(hidden)]
pub use crate::rejection::floor_char_boundary;

/// The rules of a game; its value is the state of one match.
///
/// Sizes, encoded by [`forkade_protocol::codec`] (the format that `WIRE.md` specifies, so that any client can speak
/// it):
///
/// | | at most, in bytes |
/// |---|---|
/// | a state | [`GAME_STATE_BYTES_MAX`](crate::limits::GAME_STATE_BYTES_MAX) |
/// | a view | [`GAME_VIEW_BYTES_MAX`](crate::limits::GAME_VIEW_BYTES_MAX) |
/// | an action | [`ACTION_BYTES_MAX`](crate::limits::ACTION_BYTES_MAX) |
/// | an event | [`GAME_EVENT_BYTES_MAX`](crate::limits::GAME_EVENT_BYTES_MAX) |
/// | options | [`GAME_OPTIONS_BYTES_MAX`](crate::limits::GAME_OPTIONS_BYTES_MAX) |
///
/// A call that exceeds a limit fails as a whole, and the player is told. So does a call that panics.
pub trait Game: Serialize + DeserializeOwned + 'static {
    /// What the creator of a room may choose. A request without options gets the default.
    type Options: DeserializeOwned + Default;
    /// What a seat does.
    type Action: Serialize + DeserializeOwned;
    /// What has happened, for players and spectators.
    type Event: Serialize + DeserializeOwned;
    /// The match as one viewer may see it.
    type View: Serialize + DeserializeOwned;

    /// The name that clients use for the game: 1 to 32 bytes of `a`–`z`, `0`–`9`, `-` and `_`. No two games of a server
    /// have the same.
    const NAME: &'static str;
    /// The numbers of seats that a room can have, from 1 to [`SEATS_MAX`](crate::limits::SEATS_MAX).
    const SEATS: RangeInclusive<u8>;
    /// Calls of [`tick`](Game::tick) per second, up to [`TICKS_PER_SECOND_MAX`](crate::limits::TICKS_PER_SECOND_MAX); 0
    /// for a game that changes by actions alone. Tick number *k* is due exactly *k* / `TICKS_PER_SECOND` seconds after
    /// the match began.
    const TICKS_PER_SECOND: u16;
    /// What happens to ticks whose time passed while the room could not be ticked.
    const MISSED_TICKS: MissedTicks = MissedTicks::Skip;
    /// When a match begins.
    const START: Start;
    /// The version of the encoded state. Increase it whenever this program cannot decode the states of the version
    /// before. An upgrade in place continues the running matches, so it is refused if the version differs.
    const STATE_VERSION: u32 = 1;

    /// Begins a match with `seats` seats, a number within [`SEATS`](Game::SEATS). All randomness of the match comes
    /// from `seed`.
    ///
    /// # Errors
    ///
    /// [`Rejection::bad_options`] for options that the game does not have; [`Rejection::seats_out_of_range`] for
    /// options that it does not have with so many seats.
    fn new(options: Self::Options, seats: u8, seed: u64) -> Result<Self, Rejection>;

    /// Player `seat`, counted from 0, does `action`. The game may change `self` before it refuses; the change is
    /// discarded.
    ///
    /// # Errors
    ///
    /// The reason why the rules forbid it. Only this player sees it.
    fn act(&mut self, seat: u8, action: Self::Action, out: &mut Outbox<Self::Event>)
    -> Result<(), Rejection>;

    /// `1 / TICKS_PER_SECOND` of a second has passed. The default does nothing.
    ///
    /// A tick may take half of that time, and a tenth of a second at most. One that takes longer is logged. If that
    /// happens again and again, the room is ticked less often, and at last the match is abandoned.
    fn tick(&mut self, _out: &mut Outbox<Self::Event>) {}

    /// The player in `seat` has left for good while the match runs. (A lost connection does not call this: the seat is
    /// kept for its grace.) The default does nothing.
    fn leave(&mut self, _seat: u8, _out: &mut Outbox<Self::Event>) {}

    /// The seat that is to move, for games in which the seats move in turn. A room can then limit the time of a turn.
    /// `None`: the match does not wait for one seat. Asked after each call that changed the state.
    fn to_move(&self) -> Option<u8> {
        None
    }

    /// `seat`, which was [to move](Game::to_move), has taken longer than the room allows. By default the game treats
    /// the seat as given up; a later [`leave`](Game::leave) of the same seat may follow. If the seat is still to move
    /// after this, its turn clock starts again.
    fn turn_timed_out(&mut self, seat: u8, out: &mut Outbox<Self::Event>) {
        self.leave(seat, out);
    }

    /// The match as `viewer` may see it. It must not contain what is hidden from that viewer.
    fn view(&self, viewer: Viewer) -> Self::View;

    /// How the match ended; `None` while it runs. Asked after each call that changed the state.
    fn outcome(&self) -> Option<Outcome>;

    /// Parses an action that a player types in text mode. `view` is the match as the player sees it; `None`
    /// if no match has begun, or its views fail.
    ///
    /// # Errors
    ///
    /// [`Rejection::bad_action`] for text that is no action; its text says what would be one.
    fn parse_action(text: &str, view: Option<&Self::View>) -> Result<Self::Action, Rejection>;

    /// Parses the options that a player types as `options=TEXT` after `create`, and encodes them with [`codec::encode`]
    /// as a client would. By default a game has no options.
    ///
    /// # Errors
    ///
    /// [`Rejection::bad_options`] for text that is no options; its text says what would be.
    fn parse_options(_text: &str) -> Result<Vec<u8>, Rejection> {
        Err(Rejection::bad_options(format!("{} has no options", Self::NAME)))
    }

    /// Describes a room's options for people, as part of a sentence: those who join, `help create` (the default) and
    /// the console show it, up to [`OPTIONS_TEXT_BYTES_MAX`](crate::limits::OPTIONS_TEXT_BYTES_MAX). Empty if there is
    /// nothing to say, which is the default.
    fn describe_options(_options: &Self::Options) -> String {
        String::new()
    }

    /// Draws a view for people, in text mode and on the console: lines of plain text, each ending in `\n`, or nothing.
    /// `name_of` gives the name of the player in a seat.
    fn draw(view: &Self::View, name_of: &dyn Fn(u8) -> String) -> String;

    /// Describes an event in one line of plain text for people, in text mode. Empty if the drawn view alone shows it,
    /// which is the default. `name_of` gives the name of the player in a seat.
    fn describe(_event: &Self::Event, _name_of: &dyn Fn(u8) -> String) -> String {
        String::new()
    }

    /// What the drawn view calls a seat, for people: its mark or colour, for example. By default its number.
    fn seat_label(seat: u8) -> String {
        format!("seat {seat}")
    }

    /// Decodes an action that a client sent. Override it only if the actions *are* bytes, together with
    /// [`encode_action`](Game::encode_action).
    ///
    /// # Errors
    ///
    /// [`Rejection::bad_action`] for bytes that are no action.
    fn decode_action(bytes: &[u8]) -> Result<Self::Action, Rejection> {
        codec::decode(bytes).map_err(|error| Rejection::bad_action(error.to_string()))
    }

    /// Encodes an action as a client would send it.
    ///
    /// # Errors
    ///
    /// [`Rejection::bad_action`] for an action of a type that the codec cannot encode.
    fn encode_action(action: &Self::Action) -> Result<Vec<u8>, Rejection> {
        codec::encode(action).map_err(|error| Rejection::bad_action(error.to_string()))
    }
}

/// When a match begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Once all seats are taken and all their players are ready.
    WhenSeatsReady,
    /// When the room is created. A player who takes a seat later joins the running match.
    AtOnce,
}

/// What happens to ticks whose time has passed when the room is ticked again: the tick before took too long, or the
/// machine was busy. Later ticks are due at their usual times in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissedTicks {
    /// They are left out: for the match, that time has not passed.
    Skip,
    /// They are made up for, one call right after another: the match keeps to the wall clock.
    CatchUp {
        /// Most ticks that are made up for, up to [`CATCH_UP_TICKS_MAX`](crate::limits::CATCH_UP_TICKS_MAX). Those
        /// missed before them are left out.
        at_most: u16,
    },
}

impl MissedTicks {
    /// Most missed ticks that are made up for.
    pub const fn made_up_for(self) -> u16 {
        match self {
            Self::Skip => 0,
            Self::CatchUp { at_most } => at_most,
        }
    }
}

/// Who sees a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// The player in this seat.
    Seat(u8),
    /// A viewer without a seat, who sees only what everyone may see.
    Spectator,
}
