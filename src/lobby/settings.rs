//! What a room is like: the settings that its owner chooses, at first and later.

use forkade_games::{AnyGame, GameError, Step};
use forkade_protocol::{Phase as MatchPhase, RejectCode, RoomEvent, RoomRules, RoomSettings};

use crate::limits::{GAME_OPTIONS_BYTES_MAX, PASSCODE_BYTES_MAX, SEATS_MAX, TURN_SECONDS_MAX};
use crate::lobby::delivery::Events;
use crate::lobby::join_leave::{self, random_seed};
use crate::lobby::reservations::release_reservations;
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::buffers;
use crate::state::rooms::{Passcode, RoomOptions, RoomTx, game_of, phase_of};

/// In a room's `flags`: in no list and no quick match.
const UNLISTED: u32 = 1;
/// In a room's `flags`: nobody may watch.
const NO_SPECTATORS: u32 = 2;

/// CheckedSettings that the server and the game allow, as a room's record keeps them.
pub(crate) struct CheckedSettings {
    seats: u8,
    options: RoomOptions,
    passcode: Passcode,
    flags: u32,
    turn_seconds: u16,
}

/// A match as it would begin with certain settings.
pub(crate) struct InitialState {
    /// The encoded state.
    pub(crate) state: Vec<u8>,
    pub(crate) step: Step,
}

impl CheckedSettings {
    /// Checks settings for a room of `game`, which itself says whether it likes options and seats: it begins a match with them.
    ///
    /// Hashes the passcode, so no lock should be held.
    ///
    /// # Errors
    ///
    /// Too many seats, too long options or passcode, a turn clock that cannot be, or what the game does not like.
    pub(crate) fn check(game: &dyn AnyGame, wish: &RoomSettings) -> Result<(Self, InitialState), Rejection> {
        let seats = match wish.seats {
            0 => (*game.seats().end()).min(SEATS_MAX),
            seats if seats > SEATS_MAX => {
                let text = format!("a room has at most {SEATS_MAX} seats");
                return Err(Rejection::new(RejectCode::SeatsOutOfRange, text));
            }
            seats => seats,
        };
        let options = RoomOptions::new(&wish.options).ok_or_else(|| {
            let text = format!("options have at most {GAME_OPTIONS_BYTES_MAX} bytes");
            Rejection::new(RejectCode::BadOptions, text)
        })?;
        let passcode = check_passcode_length(wish.passcode.as_deref())?;
        if wish.turn_seconds > TURN_SECONDS_MAX {
            let text = format!("a turn may be given at most {TURN_SECONDS_MAX} seconds");
            return Err(Rejection::new(RejectCode::BadSettings, text));
        }
        let seed = random_seed()?;
        let first = buffers::with_state(|state| {
            let step = game.start(&wish.options, seats, seed, state)?;
            let state = state[..step.state_bytes].to_vec();
            Ok::<_, GameError>(InitialState { state, step })
        })?;
        if wish.turn_seconds > 0 && first.step.to_move.is_none() {
            let text = "this game does not say whose turn it is, so turns have no end";
            return Err(Rejection::new(RejectCode::BadSettings, text));
        }
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let settings = Self {
            seats,
            options,
            passcode: passcode.map_or(Passcode::NONE, Passcode::new),
            flags: flag(wish.unlisted, UNLISTED) | flag(wish.no_spectators, NO_SPECTATORS),
            turn_seconds: wish.turn_seconds,
        };
        Ok((settings, first))
    }

    /// Makes them the room's.
    pub(crate) fn store(&self, tx: &mut RoomTx<'_>) {
        let record = tx.record();
        tx.set(&record.capacity, u32::from(self.seats));
        tx.set(&record.options, self.options);
        tx.set(&record.passcode, self.passcode);
        tx.set(&record.flags, self.flags);
        tx.set(&record.turn_seconds, u32::from(self.turn_seconds));
    }

    /// Whether a match that is being played in the room could go on as if nothing had changed.
    fn leave_the_match_alone(&self, tx: &RoomTx<'_>) -> bool {
        let record = tx.record();
        u32::from(self.seats) == tx.get(&record.capacity)
            && u32::from(self.turn_seconds) == tx.get(&record.turn_seconds)
            && self.options.as_slice() == tx.get(&record.options).as_slice()
    }
}

/// Changes the settings of the room that the player owns.
///
/// # Errors
///
/// In no room, not the owner, settings that cannot be, or a match under way that they would change.
pub fn configure(session: &mut Session<'_>, wish: &RoomSettings) -> Result<(), Rejection> {
    // The passcode is hashed and the game asked without the lock; a room's game never changes.
    let game = join_leave::with_room(session, |tx, context| {
        context.ensure_owner(&tx)?;
        Ok(game_of(&tx, context.calls.games))
    })?;
    let (settings, _) = CheckedSettings::check(game, wish)?;
    join_leave::change_room(session, |tx, context| {
        context.ensure_owner(tx)?;
        apply(tx, &settings)
    })
}

fn apply(tx: &mut RoomTx<'_>, settings: &CheckedSettings) -> Result<(), Rejection> {
    let record = tx.record();
    if phase_of(tx.get(&record.phase)) == MatchPhase::Playing && !settings.leave_the_match_alone(tx) {
        let text = "while a match is being played, seats, options and turn clock must stay as they are";
        return Err(Rejection::new(RejectCode::AlreadyStarted, text));
    }
    let taken = tx.get(&record.taken);
    if taken >> settings.seats != 0 {
        let text = "somebody sits in a seat that the room would not have any more";
        return Err(Rejection::new(RejectCode::BadSettings, text));
    }
    settings.store(tx);
    tx.set(&record.ready, 0);
    let beyond = tx.get(&record.reserved) >> settings.seats << settings.seats;
    release_reservations(tx, beyond)?;
    let mut events = Events::begin(tx);
    let rules = rules(tx);
    events.push_to_all(tx, RoomEvent::Configured { rules })?;
    events.finish(tx);
    Ok(())
}

/// The room's settings, as everybody in it may know them.
pub(crate) fn rules(tx: &RoomTx<'_>) -> RoomRules {
    let record = tx.record();
    RoomRules {
        seats: u8::try_from(tx.get(&record.capacity)).unwrap_or(u8::MAX),
        passcode: tx.get(&record.passcode).set != 0,
        options: tx.get(&record.options).as_slice().to_vec(),
        unlisted: is_unlisted(tx),
        no_spectators: !allows_spectators(tx),
        turn_seconds: u16::try_from(tx.get(&record.turn_seconds)).unwrap_or(u16::MAX),
    }
}

/// Whether the room is in no list and no quick match.
pub(crate) fn is_unlisted(tx: &RoomTx<'_>) -> bool {
    tx.get(&tx.record().flags) & UNLISTED != 0
}

/// Whether one may watch the room.
pub(crate) fn allows_spectators(tx: &RoomTx<'_>) -> bool {
    tx.get(&tx.record().flags) & NO_SPECTATORS == 0
}

/// A passcode that is short enough to be looked at: hashing takes its time.
pub(crate) fn check_passcode_length(passcode: Option<&str>) -> Result<Option<&str>, Rejection> {
    if passcode.is_some_and(|passcode| passcode.len() > PASSCODE_BYTES_MAX) {
        let text = format!("a passcode has at most {PASSCODE_BYTES_MAX} bytes");
        return Err(Rejection::new(RejectCode::WrongPasscode, text));
    }
    Ok(passcode)
}
