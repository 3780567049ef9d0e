//! The game's side: what a game developer implements, and the games that come with the server.
//!
//! A game is a plain value with rules: [`Game`]. It knows no player, connection, process or clock. The server keeps its
//! encoded state in the room's shared memory; the process that has an action for it decodes the state, calls the game,
//! and encodes the new state, all under the lock of that room alone. So
//!
//! - **any process may run the next call.** Nothing survives a call but the value itself: no statics, no caches, no
//!   threads, no files. What is not serialised is gone.
//! - **others wait while it runs.** A call computes for microseconds; it does not sleep, log or do input or output. What
//!   takes long is the business of workers.
//! - **a call that fails has not happened.** An `Err` or a panic leaves the room as it was before the call, and no event
//!   of it is seen. A call whose process is killed is either complete or has not happened.
//! - **it is deterministic**: state, seat and input alone decide the new state and the events, byte for byte. Chance comes
//!   from the seed given to [`Game::new`], kept in the state; time is counted in ticks. That forbids clocks, random
//!   generators of the system, addresses, and `HashMap` or `HashSet` in a state (their order differs in each process; use
//!   `BTreeMap`). It buys replays, takeover at any instruction and tests without a server.
//!
//! ```
//! use forkade::games::tictactoe::{Placed, TicTacToe};
//! use forkade::games::{Game, Outbox};
//!
//! let mut game = TicTacToe::new((), 2, 0)?;
//! let mut out = Outbox::new();
//! game.act(0, 4, &mut out)?;
//! assert_eq!(out.events()[0].1, Placed { seat: 0, cell: 4 });
//! assert!(game.act(0, 5, &mut out).is_err(), "it is the other one's turn");
//! # Ok::<(), forkade::games::Rejection>(())
//! ```

pub mod connect4;
pub mod eights;
mod erased;
pub mod limits;
mod outbox;
pub mod panics;
mod registry;
mod rejection;
pub mod relay;
pub mod tictactoe;

use std::ops::RangeInclusive;

use forkade_protocol::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::erased::{AnyGame, GameError, Step};
pub use crate::outbox::{Audience, ErasedOutbox, Outbox, OutboxError};
pub use crate::registry::{Games, GamesError};
pub use crate::rejection::Rejection;
pub use crate::rejection::floor_char_boundary;
pub use forkade_protocol::Outcome;

pub use crate::panics::Panic;

/// A game: the rules, and as its value the state of one match.
///
/// Encoded, a state takes at most [`GAME_STATE_BYTES_MAX`](crate::limits::GAME_STATE_BYTES_MAX) bytes, a view
/// [`GAME_VIEW_BYTES_MAX`](crate::limits::GAME_VIEW_BYTES_MAX), an action
/// [`ACTION_BYTES_MAX`](crate::limits::ACTION_BYTES_MAX) and an event
/// [`GAME_EVENT_BYTES_MAX`](crate::limits::GAME_EVENT_BYTES_MAX). A call that exceeds one fails as a whole, and the player
/// is told. All of them are encoded by [`forkade_protocol::codec`], whose format any client can speak (`WIRE.md`).
pub trait Game: Serialize + DeserializeOwned + 'static {
    /// What the creator of a room may choose. A request without options gets the default.
    type Options: DeserializeOwned + Default;
    /// What a seat does.
    type Action: Serialize + DeserializeOwned;
    /// What happened, for those who watch.
    type Event: Serialize + DeserializeOwned;
    /// The match as one viewer may see it.
    type View: Serialize + DeserializeOwned;

    /// What clients call the game: 1 to 32 bytes of `a`–`z`, `0`–`9`, `-` and `_`.
    const NAME: &'static str;
    /// How many seats a room can have, from 1 to [`SEATS_MAX`](crate::limits::SEATS_MAX).
    const SEATS: RangeInclusive<u8>;
    /// How often [`tick`](Game::tick) is called; 0 for a game that goes on by actions alone.
    const TICKS_PER_SECOND: u16;
    /// When a match begins.
    const START: Start;
    /// Version of the encoded state. To be counted up whenever this program would not understand the states of one before it: an
    /// upgrade in place, which goes on with the matches that are being played, is then refused.
    const STATE_VERSION: u32 = 1;

    /// Begins a match with `seats` seats, a number within [`SEATS`](Game::SEATS). All its chance comes from `seed`.
    ///
    /// # Errors
    ///
    /// Options that the game does not know or cannot have with so many seats.
    fn new(options: Self::Options, seats: u8, seed: u64) -> Result<Self, Rejection>;

    /// `seat` does `action`. May change `self` before it refuses: the change is thrown away.
    ///
    /// # Errors
    ///
    /// What the rules forbid, told to this player alone.
    fn act(&mut self, seat: u8, action: Self::Action, out: &mut Outbox<Self::Event>)
    -> Result<(), Rejection>;

    /// `1 / TICKS_PER_SECOND` of a second has passed.
    fn tick(&mut self, _out: &mut Outbox<Self::Event>) {}

    /// `seat` was given up for good while the match is on. (A lost connection does not call this: the seat is kept for
    /// its grace.)
    fn leave(&mut self, _seat: u8, _out: &mut Outbox<Self::Event>) {}

    /// The seat whose turn it is, in a game in which the seats move in turn, from the beginning of a match to its end. A room can then
    /// bound how long a turn takes. `None`: nobody in particular is waited for.
    fn to_move(&self) -> Option<u8> {
        None
    }

    /// `seat`, which was [to move](Game::to_move), has taken longer than the room allows. Unless the game knows better, it is as if the
    /// seat were given up: a later [`leave`](Game::leave) of the same seat may follow. If the seat is still to move after this, its
    /// clock begins anew.
    fn turn_timed_out(&mut self, seat: u8, out: &mut Outbox<Self::Event>) {
        self.leave(seat, out);
    }

    /// The match as `viewer` may see it: what is hidden from that seat is not in it.
    fn view(&self, viewer: Viewer) -> Self::View;

    /// How the match ended, once it has. It is looked at after each call that changed the state.
    fn outcome(&self) -> Option<Outcome>;

    /// The action that a player means who types `text`, in text mode.
    ///
    /// # Errors
    ///
    /// Text that means no action; the rejection says what would.
    fn parse_action(text: &str) -> Result<Self::Action, Rejection>;

    /// The encoded options that somebody means who types `options=TEXT` behind `create`: what a client would send for them, made with
    /// [`codec::encode`].
    ///
    /// # Errors
    ///
    /// Text that means no options; the rejection says what would. Unless the game has something to choose, any.
    fn parse_options(_text: &str) -> Result<Vec<u8>, Rejection> {
        Err(Rejection::bad_options(format!("{} has no options", Self::NAME)))
    }

    /// A view for people, in text mode and on the console: lines of plain text, each ending in `\n`, or nothing.
    fn draw(view: &Self::View) -> String;

    /// What happened, as one line of plain text for people, in text mode; empty if the picture alone shows it. `who` gives the name
    /// of the player in a seat.
    fn describe(_event: &Self::Event, _who: &dyn Fn(u8) -> String) -> String {
        String::new()
    }

    /// What a seat is called in the game's pictures, for people: its mark or colour, say.
    fn seat_label(seat: u8) -> String {
        format!("seat {seat}")
    }

    /// An action from the bytes that a client sent. Only a game whose actions *are* bytes has a reason to replace this,
    /// together with [`encode_action`](Game::encode_action).
    ///
    /// # Errors
    ///
    /// Bytes that are no action.
    fn decode_action(bytes: &[u8]) -> Result<Self::Action, Rejection> {
        codec::decode(bytes).map_err(|error| Rejection::bad_action(error.to_string()))
    }

    /// The bytes that a client would send for `action`.
    ///
    /// # Errors
    ///
    /// An action of a type that the codec cannot encode.
    fn encode_action(action: &Self::Action) -> Result<Vec<u8>, Rejection> {
        codec::encode(action).map_err(|error| Rejection::bad_action(error.to_string()))
    }
}

/// When a match begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Once all seats are taken and everyone is ready.
    WhenSeatsReady,
    /// With the room; who takes a seat later joins a match that is on.
    AtOnce,
}

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// The player on this seat.
    Seat(u8),
    /// Somebody without a seat, who sees what everybody may see.
    Spectator,
}
