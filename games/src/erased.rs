//! A game without its types, bytes in and bytes out, as handlers and ticker call it. Internal to the server.
//!
//! Game code may fail. A call decodes the state, runs, and encodes the new state in another slot, inside one
//! `catch_unwind`. If it fails, the current state is unchanged. An endless loop or a stack overflow cannot be caught:
//! it costs the process, which the watchdog kills or the keeper replaces.

use std::marker::PhantomData;
use std::ops::RangeInclusive;

use forkade_protocol::codec::{self, CodecError};
use forkade_protocol::{GameInfo, Outcome, RejectCode};
use serde::Serialize;
use thiserror::Error;

use crate::limits::{
    ACTION_BYTES_MAX, GAME_STATE_BYTES_MAX, GAME_VIEW_BYTES_MAX, OPTIONS_TEXT_BYTES_MAX, SEATS_MAX,
};
use crate::panics::{Panic, catch_panic};
use crate::rejection::floor_char_boundary;
use crate::{ErasedOutbox, Game, MissedTicks, Outbox, OutboxError, Rejection, Start, Viewer};

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The length of the new state in its slot, in bytes. It may be 0.
    pub state_bytes: usize,
    /// How the match ended, if it is over.
    pub outcome: Option<Outcome>,
    /// The seat that is to move: [`Game::to_move`].
    pub to_move: Option<u8>,
}

/// Why a call failed. A failed call has not happened: there is no new state, and there are no events.
#[derive(Debug, Error)]
pub enum GameError {
    /// The game refused.
    #[error("rejected: {0}")]
    Rejected(Rejection),
    /// The game panicked. Log it without a lock: displaying the backtrace can take a tenth of a second.
    #[error("{0}")]
    Panicked(Panic),
    /// The game gave out more events than it may.
    #[error("gave out {0}")]
    Outbox(OutboxError),
    /// The new state is too large.
    #[error("its state would need more than {bytes_max} bytes")]
    StateTooLarge {
        /// The size of the slot.
        bytes_max: usize,
    },
    /// The view is too large.
    #[error("its view would need more than {bytes_max} bytes")]
    ViewTooLarge {
        /// The size of the slot.
        bytes_max: usize,
    },
    /// The stored state is no state of this game, or its `Deserialize` cannot read what its `Serialize` wrote.
    #[error("its state cannot be decoded: {0}")]
    Undecodable(CodecError),
    /// A state that was decoded does not encode to the same bytes.
    #[error(
        "its state of {decoded_bytes} bytes becomes one of {encoded_bytes} bytes when it is encoded again"
    )]
    StateChanged {
        /// Length of the state that was decoded.
        decoded_bytes: usize,
        /// Length of the same state when it is encoded.
        encoded_bytes: usize,
    },
    /// A state or view of a type that the codec cannot encode.
    #[error("its state or view cannot be encoded: {0}")]
    Unencodable(CodecError),
    /// The outcome's winners are no seats, or not in ascending order.
    #[error("its outcome names impossible seats: {0:?}")]
    BadOutcome(Vec<u8>),
    /// The seat to move does not exist.
    #[error("it waits for seat {0}, which there cannot be")]
    BadTurn(u8),
    /// A call names a seat that the match does not have.
    #[error("its {what} names seat {seat}, and the match has {seats} seats, counted from 0")]
    NoSuchSeat {
        /// What names the seat: outcome, event, or `to_move`.
        what: &'static str,
        /// The seat.
        seat: u8,
        /// The number of seats of the match.
        seats: u8,
    },
    /// A call took too long. It took effect, but everyone in the room has waited.
    #[error("it took {took_ms} ms, while nobody else in the room could do anything")]
    Slow {
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// Calls took too long several times. The room is ticked less often from now on.
    #[error("{overruns} of the last {calls} calls took too long: the room is ticked less often")]
    Slowed {
        /// Calls that took too long.
        overruns: u32,
        /// The calls among which they are.
        calls: u32,
    },
    /// Calls took too long again and again. The match is abandoned.
    #[error("{overruns} of the last {calls} calls took too long, the last one {took_ms} ms")]
    AlwaysSlow {
        /// How long the last call took, in milliseconds.
        took_ms: u64,
        /// Calls that took too long.
        overruns: u32,
        /// The calls among which they are.
        calls: u32,
    },
}

impl Step {
    /// Checks that the step and its events name seats of a match with `seats` seats only.
    ///
    /// # Errors
    ///
    /// [`GameError::NoSuchSeat`].
    pub fn check_seats(&self, out: &ErasedOutbox, seats: u8) -> Result<(), GameError> {
        let winners = match &self.outcome {
            Some(Outcome::Won { seats }) => seats.as_slice(),
            _ => &[],
        };
        let addressed = out.iter().filter_map(|(audience, _)| audience.seat());
        let named = (winners.iter().map(|seat| ("outcome", *seat)))
            .chain(addressed.map(|seat| ("event", seat)))
            .chain(self.to_move.map(|seat| ("to_move", seat)));
        let mut wrong = named.filter(|(_, seat)| *seat >= seats);
        wrong.next().map_or(Ok(()), |(what, seat)| {
            Err(GameError::NoSuchSeat { what, seat, seats })
        })
    }
}

impl GameError {
    /// Whether the game refused the player's request. Otherwise the game's code has failed, which is worth a warning in
    /// the log.
    pub fn is_rejection(&self) -> bool {
        matches!(self, GameError::Rejected(_))
    }

    /// What the player is told. Of a fault in the game's code the player learns only that there was one.
    pub fn rejection(&self) -> Rejection {
        match self {
            GameError::Rejected(rejection) => rejection.clone(),
            GameError::StateTooLarge { .. } => Rejection::new(
                RejectCode::StateTooLarge,
                "the match would need more memory than a room has; nothing has changed".into(),
            ),
            _ => Rejection::new(
                RejectCode::GameFailed,
                "the game's code failed; nothing has changed".into(),
            ),
        }
    }
}

/// A game over bytes, as the server calls it. [`Games::add`](crate::Games::add) makes one of every [`Game`].
///
/// `state` is the current encoded state, and `next_state` the slot for the new one, whose content after an error means
/// nothing. `out` is cleared first, and holds events after an `Ok` only.
pub trait AnyGame: Send + Sync {
    /// [`Game::NAME`].
    fn name(&self) -> &'static str;

    /// [`Game::SEATS`].
    fn seats(&self) -> RangeInclusive<u8>;

    /// [`Game::TICKS_PER_SECOND`].
    fn ticks_per_second(&self) -> u16;

    /// [`Game::MISSED_TICKS`].
    fn missed_ticks(&self) -> MissedTicks;

    /// [`Game::START`].
    fn start_rule(&self) -> Start;

    /// [`Game::STATE_VERSION`].
    fn state_version(&self) -> u32;

    /// What clients learn about the game.
    fn info(&self) -> GameInfo {
        GameInfo {
            name: self.name().to_owned(),
            seats_min: *self.seats().start(),
            seats_max: *self.seats().end(),
            ticks_per_second: self.ticks_per_second(),
        }
    }

    /// Begins a match: [`Game::new`], with default options if there are none.
    ///
    /// # Errors
    ///
    /// Options or number of seats rejected, or a fault of the game's code.
    fn start(&self, options: &[u8], seats: u8, seed: u64, next_state: &mut [u8]) -> Result<Step, GameError>;

    /// [`Game::act`].
    ///
    /// # Errors
    ///
    /// The action rejected, or a fault of the game's code.
    fn act(
        &self,
        state: &[u8],
        seat: u8,
        action: &[u8],
        out: &mut ErasedOutbox,
        next_state: &mut [u8],
    ) -> Result<Step, GameError>;

    /// [`Game::tick`].
    ///
    /// # Errors
    ///
    /// A fault of the game's code.
    fn tick(&self, state: &[u8], out: &mut ErasedOutbox, next_state: &mut [u8]) -> Result<Step, GameError>;

    /// [`Game::leave`].
    ///
    /// # Errors
    ///
    /// A fault of the game's code.
    fn leave(
        &self,
        state: &[u8],
        seat: u8,
        out: &mut ErasedOutbox,
        next_state: &mut [u8],
    ) -> Result<Step, GameError>;

    /// [`Game::turn_timed_out`].
    ///
    /// # Errors
    ///
    /// A fault of the game's code.
    fn turn_timed_out(
        &self,
        state: &[u8],
        seat: u8,
        out: &mut ErasedOutbox,
        next_state: &mut [u8],
    ) -> Result<Step, GameError>;

    /// Decodes a state and encodes it again in `scratch`, to find out whether this game can continue with it.
    ///
    /// # Errors
    ///
    /// The state has another form, or a fault of the game's code.
    fn check_state(&self, state: &[u8], scratch: &mut [u8]) -> Result<(), GameError>;

    /// Begins a match with default options, and encodes and decodes its state and views: finds types that the codec
    /// cannot encode or decode, before a player does. A game that does not begin, or panics, is not judged.
    ///
    /// # Errors
    ///
    /// What the codec found.
    fn check_types(&self) -> Result<(), GameError> {
        let (mut state, mut scratch) = (vec![0; GAME_STATE_BYTES_MAX], vec![0; GAME_STATE_BYTES_MAX]);
        let checked = self
            .start(&[], *self.seats().start(), 0, &mut state)
            .and_then(|step| {
                let state = &state[..step.state_bytes];
                self.check_state(state, &mut scratch)?;
                self.describe_options(&[])?;
                for viewer in [Viewer::Seat(0), Viewer::Spectator] {
                    let length = self.view(state, viewer, &mut scratch)?;
                    self.draw(&scratch[..length], &|seat| format!("seat {seat}"))?;
                }
                Ok(())
            });
        match checked {
            Err(
                fault @ (GameError::Undecodable(_)
                | GameError::Unencodable(_)
                | GameError::StateChanged { .. }),
            ) => Err(fault),
            _ => Ok(()),
        }
    }

    /// [`Game::view`], encoded at the beginning of `view`. Returns its length in bytes.
    ///
    /// # Errors
    ///
    /// A fault of the game's code.
    fn view(&self, state: &[u8], viewer: Viewer, view: &mut [u8]) -> Result<usize, GameError>;

    /// [`Game::outcome`].
    ///
    /// # Errors
    ///
    /// A fault of the game's code.
    fn outcome(&self, state: &[u8]) -> Result<Option<Outcome>, GameError>;

    /// [`Game::to_move`], until the match is over.
    ///
    /// # Errors
    ///
    /// A fault of the game's code.
    fn to_move(&self, state: &[u8]) -> Result<Option<u8>, GameError>;

    /// [`Game::parse_action`] with an encoded view, or with none if `view` is empty; encoded as a client would send it.
    ///
    /// # Errors
    ///
    /// Text that is no action, or a fault of the game's code.
    fn parse_action(&self, text: &str, view: &[u8]) -> Result<Vec<u8>, GameError>;

    /// [`Game::parse_options`].
    ///
    /// # Errors
    ///
    /// Text that is no options, or a fault of the game's code.
    fn parse_options(&self, text: &str) -> Result<Vec<u8>, GameError>;

    /// [`Game::describe_options`] of encoded options; empty bytes are the default.
    ///
    /// # Errors
    ///
    /// A fault of the game's code.
    fn describe_options(&self, options: &[u8]) -> Result<String, GameError>;

    /// [`Game::draw`] of an encoded view.
    ///
    /// # Errors
    ///
    /// A fault of the game's code.
    fn draw(&self, view: &[u8], name_of: &dyn Fn(u8) -> String) -> Result<String, GameError>;

    /// [`Game::describe`] of an encoded event.
    ///
    /// # Errors
    ///
    /// A fault of the game's code.
    fn describe(&self, event: &[u8], name_of: &dyn Fn(u8) -> String) -> Result<String, GameError>;

    /// [`Game::seat_label`].
    ///
    /// # Errors
    ///
    /// A fault of the game's code.
    fn seat_label(&self, seat: u8) -> Result<String, GameError>;
}

/// The one implementation of [`AnyGame`].
pub(crate) struct Erased<G>(PhantomData<fn() -> G>);

impl<G> Erased<G> {
    pub(crate) fn new() -> Self {
        Erased(PhantomData)
    }
}

impl<G: Game> AnyGame for Erased<G> {
    fn name(&self) -> &'static str {
        G::NAME
    }

    fn seats(&self) -> RangeInclusive<u8> {
        G::SEATS
    }

    fn ticks_per_second(&self) -> u16 {
        G::TICKS_PER_SECOND
    }

    fn missed_ticks(&self) -> MissedTicks {
        G::MISSED_TICKS
    }

    fn start_rule(&self) -> Start {
        G::START
    }

    fn state_version(&self) -> u32 {
        G::STATE_VERSION
    }

    fn start(&self, options: &[u8], seats: u8, seed: u64, next_state: &mut [u8]) -> Result<Step, GameError> {
        catching_panics(|| {
            if !G::SEATS.contains(&seats) {
                let (min, max) = (*G::SEATS.start(), *G::SEATS.end());
                let text = format!(
                    "{} is played with {min} to {max} seats, not with {seats}",
                    G::NAME
                );
                return Err(GameError::Rejected(Rejection::seats_out_of_range(text)));
            }
            let options = decode_options::<G>(options)?;
            let step = encode_step(&G::new(options, seats, seed)?, next_state)?;
            step.check_seats(&ErasedOutbox::new(), seats)?;
            Ok(step)
        })
    }

    fn act(
        &self,
        state: &[u8],
        seat: u8,
        action: &[u8],
        out: &mut ErasedOutbox,
        next_state: &mut [u8],
    ) -> Result<Step, GameError> {
        run_call::<G>(state, out, next_state, |game, out| {
            if action.len() > ACTION_BYTES_MAX {
                return Err(Rejection::bad_action(format!(
                    "an action has at most {ACTION_BYTES_MAX} bytes"
                )));
            }
            game.act(seat, G::decode_action(action)?, out)
        })
    }

    fn tick(&self, state: &[u8], out: &mut ErasedOutbox, next_state: &mut [u8]) -> Result<Step, GameError> {
        run_call::<G>(state, out, next_state, |game, out| {
            game.tick(out);
            Ok(())
        })
    }

    fn leave(
        &self,
        state: &[u8],
        seat: u8,
        out: &mut ErasedOutbox,
        next_state: &mut [u8],
    ) -> Result<Step, GameError> {
        run_call::<G>(state, out, next_state, |game, out| {
            game.leave(seat, out);
            Ok(())
        })
    }

    fn turn_timed_out(
        &self,
        state: &[u8],
        seat: u8,
        out: &mut ErasedOutbox,
        next_state: &mut [u8],
    ) -> Result<Step, GameError> {
        run_call::<G>(state, out, next_state, |game, out| {
            game.turn_timed_out(seat, out);
            Ok(())
        })
    }

    fn check_state(&self, state: &[u8], scratch: &mut [u8]) -> Result<(), GameError> {
        catching_panics(|| {
            let encoded_bytes = encode_state(&decode_state::<G>(state)?, scratch)?;
            // Not byte by byte: the order in a hash map may differ.
            if encoded_bytes != state.len() {
                return Err(GameError::StateChanged {
                    decoded_bytes: state.len(),
                    encoded_bytes,
                });
            }
            Ok(())
        })
    }

    fn view(&self, state: &[u8], viewer: Viewer, view: &mut [u8]) -> Result<usize, GameError> {
        catching_panics(|| {
            let seen = decode_state::<G>(state)?.view(viewer);
            encode_into(&seen, view, GAME_VIEW_BYTES_MAX, |bytes_max| {
                GameError::ViewTooLarge { bytes_max }
            })
        })
    }

    fn outcome(&self, state: &[u8]) -> Result<Option<Outcome>, GameError> {
        catching_panics(|| checked_outcome(&decode_state::<G>(state)?))
    }

    fn to_move(&self, state: &[u8]) -> Result<Option<u8>, GameError> {
        catching_panics(|| {
            let game = decode_state::<G>(state)?;
            Ok(if checked_outcome(&game)?.is_none() {
                game.to_move()
            } else {
                None
            })
        })
    }

    fn parse_action(&self, text: &str, view: &[u8]) -> Result<Vec<u8>, GameError> {
        catching_panics(|| {
            let view = match view {
                [] => None,
                view => Some(codec::decode(view).map_err(GameError::Undecodable)?),
            };
            Ok(G::encode_action(&G::parse_action(text, view.as_ref())?)?)
        })
    }

    fn parse_options(&self, text: &str) -> Result<Vec<u8>, GameError> {
        catching_panics(|| Ok(G::parse_options(text)?))
    }

    fn describe_options(&self, options: &[u8]) -> Result<String, GameError> {
        catching_panics(|| {
            let mut text = G::describe_options(&decode_options::<G>(options)?);
            text.truncate(floor_char_boundary(&text, OPTIONS_TEXT_BYTES_MAX));
            Ok(text)
        })
    }

    fn draw(&self, view: &[u8], name_of: &dyn Fn(u8) -> String) -> Result<String, GameError> {
        catching_panics(|| {
            let view = codec::decode(view).map_err(GameError::Undecodable)?;
            Ok(G::draw(&view, name_of))
        })
    }

    fn describe(&self, event: &[u8], name_of: &dyn Fn(u8) -> String) -> Result<String, GameError> {
        catching_panics(|| {
            let event = codec::decode(event).map_err(GameError::Undecodable)?;
            Ok(G::describe(&event, name_of))
        })
    }

    fn seat_label(&self, seat: u8) -> Result<String, GameError> {
        catching_panics(|| Ok(G::seat_label(seat)))
    }
}

impl From<Rejection> for GameError {
    fn from(rejection: Rejection) -> Self {
        GameError::Rejected(rejection)
    }
}

fn decode_options<G: Game>(options: &[u8]) -> Result<G::Options, Rejection> {
    match options {
        [] => Ok(G::Options::default()),
        bytes => codec::decode(bytes).map_err(|error| Rejection::bad_options(error.to_string())),
    }
}

/// Runs game code and turns a panic into an error.
fn catching_panics<R>(run: impl FnOnce() -> Result<R, GameError>) -> Result<R, GameError> {
    catch_panic(run).map_err(GameError::Panicked)?
}

/// Runs one call that may change the state and give out events.
fn run_call<G: Game>(
    state: &[u8],
    out: &mut ErasedOutbox,
    next_state: &mut [u8],
    call: impl FnOnce(&mut G, &mut Outbox<G::Event>) -> Result<(), Rejection>,
) -> Result<Step, GameError> {
    out.clear();
    let mut typed = Outbox::from_erased(std::mem::take(out));
    let result = catching_panics(|| {
        let mut game = decode_state::<G>(state)?;
        call(&mut game, &mut typed)?;
        encode_step(&game, next_state)
    });
    *out = typed.into_erased();
    let result = match (result, out.take_error()) {
        (Ok(_), Some(error)) => Err(GameError::Outbox(error)),
        (result, _) => result,
    };
    if result.is_err() {
        out.clear();
    }
    result
}

fn encode_step<G: Game>(game: &G, next_state: &mut [u8]) -> Result<Step, GameError> {
    let outcome = checked_outcome(game)?;
    let state_bytes = encode_state(game, next_state)?;
    let to_move = if outcome.is_none() { game.to_move() } else { None };
    if let Some(seat) = to_move.filter(|seat| seat >= G::SEATS.end()) {
        return Err(GameError::BadTurn(seat));
    }
    Ok(Step {
        state_bytes,
        outcome,
        to_move,
    })
}

fn checked_outcome<G: Game>(game: &G) -> Result<Option<Outcome>, GameError> {
    match game.outcome() {
        Some(Outcome::Won { seats })
            if !seats.is_sorted_by(|a, b| a < b) || seats.last().is_none_or(|&last| last >= SEATS_MAX) =>
        {
            Err(GameError::BadOutcome(seats))
        }
        outcome => Ok(outcome),
    }
}

fn decode_state<G: Game>(state: &[u8]) -> Result<G, GameError> {
    // Twice the most that the codec charges for a byte of state (a `u128` that takes one byte). The server itself
    // encoded these bytes, so they are no attack.
    const DECODE_BYTES_MAX: usize = 32 * GAME_STATE_BYTES_MAX;
    codec::decode_within::<DECODE_BYTES_MAX, G>(state).map_err(GameError::Undecodable)
}

fn encode_state<G: Game>(game: &G, next_state: &mut [u8]) -> Result<usize, GameError> {
    encode_into(game, next_state, GAME_STATE_BYTES_MAX, |bytes_max| {
        GameError::StateTooLarge { bytes_max }
    })
}

fn encode_into(
    value: &impl Serialize,
    buffer: &mut [u8],
    bytes_max: usize,
    too_large: impl FnOnce(usize) -> GameError,
) -> Result<usize, GameError> {
    let bytes_max = bytes_max.min(buffer.len());
    codec::encode_into(value, &mut buffer[..bytes_max]).map_err(|error| match error {
        CodecError::BufferFull { capacity } => too_large(capacity),
        other => GameError::Unencodable(other),
    })
}

#[cfg(test)]
mod tests;
