//! The settings of a room, which its owner chooses on creation and may change later.
//!
//! They are part of the room, under the room's lock. Passcodes are hashed and the game is asked without a lock, before
//! the transaction. A change is one transaction: after a crash all of it is stored, or none.

use forkade_games::{AnyGame, GameError, Step};
use forkade_protocol::{Phase as MatchPhase, RejectCode, RoomEvent, RoomRules, RoomSettings};

use crate::limits::{GAME_OPTIONS_BYTES_MAX, PASSCODE_BYTES_MAX, SEATS_MAX, TURN_SECONDS_MAX};
use crate::lobby::delivery::Events;
use crate::lobby::join_leave::{self, random_seed};
use crate::lobby::reservations::release_reservations;
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::buffers;
use crate::state::fault::Fault;
use crate::state::rooms::{HAS_PASSCODE, Passcode, RoomOptions, RoomTx, UNLISTED, game_of, phase_of};

/// Bit of a room's `flags`: spectators are refused.
const NO_SPECTATORS: u32 = 2;

/// Settings that the server and the game allow, as a room's record stores them.
pub(crate) struct CheckedSettings {
    seats: u8,
    options: RoomOptions,
    passcode: Passcode,
    flags: u32,
    turn_seconds: u16,
}

/// A match as it begins with certain settings.
pub(crate) struct InitialState {
    /// The encoded state.
    pub(crate) state: Vec<u8>,
    pub(crate) step: Step,
}

impl CheckedSettings {
    /// Checks settings for a room of `game`. The game checks options and seats by starting a match with them.
    ///
    /// Hashes the passcode, which is slow: to be called without a lock.
    ///
    /// # Errors
    ///
    /// If there are too many seats, options or passcode are too long, the turn clock is impossible, or the game
    /// refuses.
    pub(crate) fn check(
        game: &dyn AnyGame,
        requested: &RoomSettings,
    ) -> Result<(Self, InitialState), Rejection> {
        let seats = match requested.seats {
            0 => (*game.seats().end()).min(SEATS_MAX),
            seats if seats > SEATS_MAX => {
                let text = format!("a room has at most {SEATS_MAX} seats");
                return Err(Rejection::new(RejectCode::SeatsOutOfRange, text));
            }
            seats => seats,
        };
        let options = RoomOptions::new(&requested.options).ok_or_else(|| {
            let text = format!("options have at most {GAME_OPTIONS_BYTES_MAX} bytes");
            Rejection::new(RejectCode::BadOptions, text)
        })?;
        let passcode = check_passcode_length(requested.passcode.as_deref())?;
        if requested.turn_seconds > TURN_SECONDS_MAX {
            let text = format!("a turn may be given at most {TURN_SECONDS_MAX} seconds");
            return Err(Rejection::new(RejectCode::BadSettings, text));
        }
        let seed = random_seed()?;
        let first = buffers::with_state(|state| {
            let step = game.start(&requested.options, seats, seed, state)?;
            let state = state[..step.state_bytes].to_vec();
            Ok::<_, GameError>(InitialState { state, step })
        })
        .map_err(|error| {
            Rejection::of_call(error, |error| Fault::without_room(game.name(), "start", error))
        })?;
        if requested.turn_seconds > 0 && first.step.to_move.is_none() {
            let text = "this game does not say whose turn it is, so turns have no end";
            return Err(Rejection::new(RejectCode::BadSettings, text));
        }
        let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
        let settings = Self {
            seats,
            options,
            passcode: passcode.map_or(Passcode::NONE, Passcode::new),
            flags: flag(requested.unlisted, UNLISTED)
                | flag(requested.no_spectators, NO_SPECTATORS)
                | flag(passcode.is_some(), HAS_PASSCODE),
            turn_seconds: requested.turn_seconds,
        };
        Ok((settings, first))
    }

    /// Stores the settings in the room.
    pub(crate) fn store(&self, tx: &mut RoomTx<'_>) {
        let record = tx.record();
        tx.set(&record.capacity, u32::from(self.seats));
        tx.set(&record.options, self.options);
        tx.set(&record.passcode, self.passcode);
        tx.set(&record.flags, self.flags);
        tx.set(&record.turn_seconds, u32::from(self.turn_seconds));
    }

    /// Whether a running match is unaffected: it keeps its seats, options and turn clock.
    fn preserve_match(&self, tx: &RoomTx<'_>) -> bool {
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
/// If the player is in no room or not the owner, the settings are invalid, or they would affect a running match.
pub fn configure(session: &mut Session<'_>, requested: &RoomSettings) -> Result<(), Rejection> {
    // The settings are checked without the lock. That is safe, because a room's game never changes.
    let game = join_leave::with_room(session, |tx, context| {
        context.ensure_owner(&tx)?;
        Ok(game_of(&tx, context.calls.games))
    })?;
    let (settings, _) = CheckedSettings::check(game, requested)?;
    join_leave::change_room(session, |tx, context| {
        context.ensure_owner(tx)?;
        context.charge_event(tx)?;
        apply(tx, &settings)
    })
}

fn apply(tx: &mut RoomTx<'_>, settings: &CheckedSettings) -> Result<(), Rejection> {
    let record = tx.record();
    if phase_of(tx.get(&record.phase)) == MatchPhase::Playing && !settings.preserve_match(tx) {
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

/// Returns the room's settings as its members see them: without the passcode itself.
pub(crate) fn rules(tx: &RoomTx<'_>) -> RoomRules {
    let record = tx.record();
    RoomRules {
        seats: u8::try_from(tx.get(&record.capacity)).unwrap_or(u8::MAX),
        passcode: has_passcode(tx),
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

/// Whether the room asks for a passcode.
pub(crate) fn has_passcode(tx: &RoomTx<'_>) -> bool {
    tx.get(&tx.record().flags) & HAS_PASSCODE != 0
}

/// Whether the room admits spectators.
pub(crate) fn allows_spectators(tx: &RoomTx<'_>) -> bool {
    tx.get(&tx.record().flags) & NO_SPECTATORS == 0
}

/// Checks that a passcode is short enough: hashing a longer one would take too long.
pub(crate) fn check_passcode_length(passcode: Option<&str>) -> Result<Option<&str>, Rejection> {
    if passcode.is_some_and(|passcode| passcode.len() > PASSCODE_BYTES_MAX) {
        let text = format!("a passcode has at most {PASSCODE_BYTES_MAX} bytes");
        return Err(Rejection::new(RejectCode::WrongPasscode, text));
    }
    Ok(passcode)
}
