//! Plays a match: ready, act, tick, and the end. Everything happens under the room's lock.
//!
//! A call of the game and everything that follows from it (state, events, turn clock, the consumed frame) is one
//! transaction. If the game fails or panics, the transaction is rolled back and the request is rejected. If the process
//! dies, a transaction that has not committed is rolled back, and the next handler handles the frame again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use forkade_games::{AnyGame, ErasedOutbox, GameError, Games, Start, Step};
use forkade_protocol::{Outcome, Phase as MatchPhase, RejectCode, RoomEvent};
use shmem::mutants::Mutant;
use shmem::sys::clock::last_tick_ms;

use crate::limits::{GAME_CALL_REPORTED_MS, TICK_SLOWED_PERIODS};
use crate::lobby::delivery::Events;
use crate::lobby::join_leave::{self, random_seed};
use crate::lobby::news::Before;
use crate::lobby::reservations;
use crate::lobby::text_delivery;
use crate::lobby::tick_budget::{CallTime, CallTimer, Verdict, budget_us, enter_call};
use crate::lobby::tick_schedule::TickSchedule;
use crate::lobby::turns::{self, start_turn_clock, update_turn_clock};
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::budget::now_us;
use crate::state::buffers;
use crate::state::fault::{Fault, GameCall};
use crate::state::handle::StateHandle;
use crate::state::header::Header;
use crate::state::layout::RoomRef;
use crate::state::rooms::{
    RoomLife, RoomTx, game_of, is_open, occupants, phase_of, raw_phase, read_state, write_state,
};
use crate::state::running_game::mark_game_running;

/// What a transaction needs for a call of a game.
pub(crate) struct GameCalls<'l> {
    pub(crate) games: &'static Games,
    /// The events that the call emits.
    pub(crate) outbox: &'l mut ErasedOutbox,
    /// Failures of a game that reject no request; for the log, once no lock is held.
    pub(crate) faults: &'l mut Vec<Fault>,
    /// The room whose game is called.
    pub(crate) room: RoomRef,
}

impl GameCalls<'_> {
    /// The game of the transaction's room has failed, or refused, in this call.
    fn rejection(&self, tx: &RoomTx<'_>, call: GameCall<'_>, error: GameError) -> Rejection {
        Rejection::of_call(error, |error| {
            Fault::in_room(tx, self.games, self.room, call, error)
        })
    }

    /// Keeps a failure in this call that rejects no request.
    pub(crate) fn keep_fault(&mut self, tx: &RoomTx<'_>, call: GameCall<'_>, error: GameError) {
        let fault = Fault::in_room(tx, self.games, self.room, call, error);
        self.faults.push(fault);
    }
}

/// Sets whether the player is ready. The match begins when all seats are.
///
/// # Errors
///
/// If the player is in no room or a spectator, the match has begun, or the server drains.
pub fn ready(session: &mut Session<'_>, ready: bool) -> Result<(), Rejection> {
    set_ready(session, ready, |phase| match phase {
        MatchPhase::Playing => Err(Rejection::new(RejectCode::AlreadyStarted, "the match has begun")),
        MatchPhase::Waiting | MatchPhase::Finished => Ok(()),
    })
}

/// Sets the player ready for another match, after the last one is over.
///
/// # Errors
///
/// If the player is in no room or a spectator, no match is over, or the server drains.
pub fn rematch(session: &mut Session<'_>) -> Result<(), Rejection> {
    set_ready(session, true, |phase| match phase {
        MatchPhase::Finished => Ok(()),
        MatchPhase::Waiting | MatchPhase::Playing => Err(Rejection::new(
            RejectCode::NotOver,
            "there is no finished match to repeat",
        )),
    })
}

/// Passes the player's action to the game.
///
/// # Errors
///
/// If the player is in no room or a spectator, no match is being played, or the game refuses or fails.
pub fn act(session: &mut Session<'_>, action: &[u8]) -> Result<(), Rejection> {
    join_leave::change_room(session, |tx, context| {
        let seat = context.ensure_seat()?;
        if phase_of(tx.get(&tx.record().phase)) != MatchPhase::Playing {
            return Err(Rejection::new(RejectCode::NotPlaying, "no match is being played"));
        }
        if Mutant::OneActRejected.is_active() && random_seed()? % 100 == 0 {
            return Err(Rejection::new(
                RejectCode::BadAction,
                "a mutant has rejected this",
            ));
        }
        let began_ms = last_tick_ms();
        let acted = call_game(
            tx,
            context.calls.games,
            context.calls.outbox,
            Some(seat),
            |game, state, out, next| game.act(state, seat, action, out, next),
        );
        let took_ms = last_tick_ms().saturating_sub(began_ms);
        let call = GameCall::act(seat, action);
        if took_ms >= GAME_CALL_REPORTED_MS {
            context.calls.keep_fault(tx, call, GameError::Slow { took_ms });
        }
        acted.map_err(|error| context.calls.rejection(tx, call, error))??;
        text_delivery::owe_drawing(tx, &context.player_tx, context.calls.games);
        Ok(())
    })
}

fn set_ready(
    session: &mut Session<'_>,
    ready: bool,
    allowed: impl FnOnce(MatchPhase) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let seed = random_seed()?;
    let (header, paid) = (session.state.memory.header, session.charge_request());
    join_leave::change_room(session, |tx, context| {
        let (record, seat) = (tx.record(), context.ensure_seat()?);
        allowed(phase_of(tx.get(&record.phase)))?;
        if ready {
            ensure_not_draining(header)?;
        }
        let (bits, bit) = (tx.get(&record.ready), 1 << seat);
        // Becoming ready is free: the player has withdrawn it before, which was charged, or has played a match since.
        if !ready || bits & bit != 0 {
            paid?.enter(tx, context.player_tx.player);
        }
        context.charge_event(tx)?;
        tx.set(&record.ready, if ready { bits | bit } else { bits & !bit });
        let mut events = Events::begin(tx);
        events.push_to_all(tx, RoomEvent::Ready { seat, ready })?;
        events.finish(tx);
        start_if_all_are_ready(tx, &context.calls, seed)
    })
}

/// What became of a room's timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomTimers {
    /// Another process holds the room's lock: nobody waits for it, and the timers are to be tried again.
    Busy,
    /// None was due.
    NotDue,
    /// What was due has happened.
    Done,
}

impl RoomTimers {
    fn and(self, next: Self) -> Self {
        match (self, next) {
            (Self::Busy, _) | (_, Self::Busy) => Self::Busy,
            (Self::NotDue, next) => next,
            (Self::Done, _) => Self::Done,
        }
    }
}

/// Runs the room's timers that are due at `now_us`: reservations, turn clock, tick; each in a transaction of its own.
/// Waits for no lock.
///
/// # Errors
///
/// If the game fails, or takes too long again and again; the match is then abandoned.
pub fn run_room_timers(state: &mut StateHandle, index: u32, now_us: u64) -> Result<RoomTimers, Rejection> {
    let expired = reservations::expire_reservations(state, index, now_us / 1000)?;
    let timed_out = turns::run_turn_timer(state, index, now_us / 1000)?;
    Ok(expired.and(timed_out).and(tick(state, index, now_us)?))
}

/// Ticks the room's game, if it is due at `now_us`.
///
/// # Errors
///
/// If the game fails, or takes too long again and again; the match is then abandoned.
pub fn tick(state: &mut StateHandle, index: u32, now_us: u64) -> Result<RoomTimers, Rejection> {
    let (header, room_record) = (state.memory.header, state.memory.rooms.at(index));
    let Some(mut tx) = state.attachment.try_begin(room_record, Duration::ZERO) else {
        return Ok(RoomTimers::Busy);
    };
    let record = tx.record();
    let playing = phase_of(tx.get(&record.phase)) == MatchPhase::Playing;
    let due_us = tx.get(&record.next_tick_at_us);
    let open = tx.get(&record.life) == RoomLife::OPEN.raw();
    if !open || !playing || due_us > now_us {
        return Ok(RoomTimers::NotDue);
    }
    let room = RoomRef::new(index, tx.get(&record.generation));
    let before = Before::of(&tx);
    let running_mark = mark_game_running(state.running_mark, room);
    let budget_us = budget_us(game_of(&tx, state.games));
    let timer = CallTimer::start();
    let ticked = call_game(
        &mut tx,
        state.games,
        &mut state.outbox,
        None,
        |game, state, out, next| game.tick(state, out, next),
    );
    let time = timer.stop(budget_us);
    if header.ticks.enter_tick(now_us, now_us - due_us) {
        record.late_ticks.fetch_add(1, Ordering::Relaxed);
    }
    let ended = end_timer_call(
        &mut tx,
        room,
        (GameCall::of("tick", None), ticked),
        (state.games, header, time),
        &mut state.faults,
    );
    let kept = match ended {
        Ok(kept) => kept,
        Err(rejection) => {
            drop(tx);
            return match abandon_match(state, room)? {
                Abandonment::Busy => Ok(RoomTimers::Busy),
                Abandonment::Done | Abandonment::NoMatch => Err(rejection),
            };
        }
    };
    if phase_of(tx.get(&record.phase)) == MatchPhase::Playing {
        let game = game_of(&tx, state.games);
        let schedule = TickSchedule {
            from_us: tx.get(&record.ticks_from_us),
            ticks_per_second: game.ticks_per_second().max(1),
        };
        let (made_up_for, stride) = match record.tick_conduct.load(room.generation()).is_slowed {
            true => (0, TICK_SLOWED_PERIODS),
            false => (game.missed_ticks().made_up_for(), 1),
        };
        let next = schedule.after(due_us, now_us.saturating_add(time.took_us), made_up_for, stride);
        header
            .ticks
            .missed_total
            .fetch_add(next.missed, Ordering::Relaxed);
        tx.set(&record.next_tick_at_us, next.due_us);
    }
    let news = before.compare(&tx, state.games, room);
    tx.commit()?;
    drop(running_mark);
    if let Some(news) = news {
        news.log(state.memory);
    }
    kept.map(|()| RoomTimers::Done)
}

/// What became of a match that was to be abandoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abandonment {
    /// It is abandoned.
    Done,
    /// No match is being played.
    NoMatch,
    /// Another process holds the room's lock.
    Busy,
}

/// Ends the room's match as abandoned, without a call of the game. Waits for no lock.
pub(crate) fn abandon_match(state: &mut StateHandle, room: RoomRef) -> Result<Abandonment, Rejection> {
    let record = state.memory.rooms.at(room.index());
    let Some(mut tx) = state.attachment.try_begin(record, Duration::ZERO) else {
        return Ok(Abandonment::Busy);
    };
    if !is_open(&tx, room) || phase_of(tx.get(&record.phase)) != MatchPhase::Playing {
        return Ok(Abandonment::NoMatch);
    }
    let before = Before::of(&tx);
    finish(&mut tx, Outcome::Abandoned)?;
    let news = before.compare(&tx, state.games, room);
    tx.commit()?;
    if let Some(news) = news {
        news.log(state.memory);
    }
    Ok(Abandonment::Done)
}

/// Decides what follows from a call of the room's game by a ticker: the match is abandoned if the call has failed, or
/// if such calls take too long again and again. Then the inner result is an error, and the transaction is to be
/// committed all the same.
///
/// # Errors
///
/// If the room cannot take what the game gave out; the transaction is not to be committed, and the match to be
/// abandoned. That is a bug in the server.
pub(crate) fn end_timer_call(
    tx: &mut RoomTx<'_>,
    room: RoomRef,
    (call, called): (GameCall<'_>, Result<Result<(), Rejection>, GameError>),
    (games, header, time): (&Games, &Header, CallTime),
    faults: &mut Vec<Fault>,
) -> Result<Result<(), Rejection>, Rejection> {
    let record = tx.record();
    let generation = tx.get(&record.generation);
    let mut conduct = record.tick_conduct.load(generation);
    let (calls, overruns) = (conduct.calls + 1, conduct.overruns + 1);
    let verdict = enter_call(&mut conduct, time.is_too_long);
    record.tick_conduct.store(generation, conduct);
    let took_ms = time.took_us / 1000;
    if time.is_too_long {
        header.ticks.overruns_total.fetch_add(1, Ordering::Relaxed);
        let slow = GameError::Slow { took_ms };
        faults.push(Fault::in_room(tx, games, room, call, slow));
    }
    let why = match (called, verdict) {
        (Ok(applied), Verdict::Abandoned) => {
            applied?;
            if phase_of(tx.get(&record.phase)) != MatchPhase::Playing {
                return Ok(Ok(()));
            }
            header.matches_abandoned_total.fetch_add(1, Ordering::Relaxed);
            GameError::AlwaysSlow {
                took_ms,
                overruns,
                calls,
            }
        }
        (Ok(applied), verdict) => {
            applied?;
            if verdict == Verdict::Slowed {
                header.ticks.slowed_total.fetch_add(1, Ordering::Relaxed);
                let slowed = GameError::Slowed { overruns, calls };
                faults.push(Fault::in_room(tx, games, room, call, slowed));
            }
            return Ok(Ok(()));
        }
        // Nothing of a failed call has reached the transaction.
        (Err(fault), _) => fault,
    };
    finish(tx, Outcome::Abandoned)?;
    Ok(Err(Rejection::of_call(why, |why| {
        Fault::in_room(tx, games, room, call, why)
    })))
}

/// Tells the game that a seat became free during the match. If the game fails, or too few players are left for one that
/// needs all seats, the match is abandoned.
pub(crate) fn player_left(tx: &mut RoomTx<'_>, calls: &mut GameCalls<'_>, seat: u8) -> Result<(), Rejection> {
    let game = game_of(tx, calls.games);
    let too_few = occupants(tx).count() < usize::from(*game.seats().start());
    let left = call_game(tx, calls.games, calls.outbox, None, |game, state, out, next| {
        game.leave(state, seat, out, next)
    });
    match left {
        Ok(applied) => applied?,
        Err(error) => {
            let call = GameCall::of("leave", Some(seat));
            calls.keep_fault(tx, call, error);
            return finish(tx, Outcome::Abandoned);
        }
    }
    let playing = phase_of(tx.get(&tx.record().phase)) == MatchPhase::Playing;
    if playing && too_few && game.start_rule() == Start::WhenSeatsReady {
        finish(tx, Outcome::Abandoned)?;
    }
    Ok(())
}

/// Sets the time of the first tick of a match that begins now.
pub(crate) fn schedule_first_tick(tx: &mut RoomTx<'_>, ticks_per_second: u16) {
    let from_us = now_us();
    let first_us = match ticks_per_second {
        0 => u64::MAX,
        ticks_per_second => TickSchedule {
            from_us,
            ticks_per_second,
        }
        .due_us(1),
    };
    tx.set(&tx.record().ticks_from_us, from_us);
    tx.set(&tx.record().next_tick_at_us, first_us);
}

fn start_if_all_are_ready(tx: &mut RoomTx<'_>, calls: &GameCalls<'_>, seed: u64) -> Result<(), Rejection> {
    let record = tx.record();
    let (capacity, ready) = (tx.get(&record.capacity), tx.get(&record.ready));
    if u32::try_from(occupants(tx).count()) != Ok(capacity) || ready.count_ones() != capacity {
        return Ok(());
    }
    let game = game_of(tx, calls.games);
    let options = tx.get(&record.options);
    let seats = u8::try_from(capacity).unwrap_or(u8::MAX);
    let step = buffers::with_state(|state| {
        let step = game.start(options.as_slice(), seats, seed, state)?;
        write_state(tx, &state[..step.state_bytes], capacity);
        Ok::<_, GameError>(step)
    })
    .map_err(|error| calls.rejection(tx, GameCall::of("start", None), error))?;
    tx.set(&record.phase, raw_phase(MatchPhase::Playing));
    tx.set(&record.ready, 0);
    schedule_first_tick(tx, game.ticks_per_second());
    start_turn_clock(tx, step.to_move);
    let mut events = Events::begin(tx);
    events.start_match(tx)?;
    events.finish(tx);
    step.outcome.map_or(Ok(()), |outcome| finish(tx, outcome))
}

/// Calls the game and stores the result in the transaction. `mover` is the seat whose action or timeout it is. The
/// outer error is the game's, the inner one the room's.
pub(crate) fn call_game(
    tx: &mut RoomTx<'_>,
    games: &Games,
    outbox: &mut ErasedOutbox,
    mover: Option<u8>,
    call: impl FnOnce(&dyn AnyGame, &[u8], &mut ErasedOutbox, &mut [u8]) -> Result<Step, GameError>,
) -> Result<Result<(), Rejection>, GameError> {
    let state = read_state(tx);
    let seats = u8::try_from(tx.get(&tx.record().match_seats)).unwrap_or(u8::MAX);
    buffers::with_state(|next| {
        let step = call(game_of(tx, games), &state, outbox, next)?;
        step.check_seats(outbox, seats)?;
        Ok(apply(tx, &step, next, outbox, mover))
    })
}

/// Stores the state, the events and the outcome that a call of the game has returned.
fn apply(
    tx: &mut RoomTx<'_>,
    step: &Step,
    next: &[u8],
    outbox: &ErasedOutbox,
    mover: Option<u8>,
) -> Result<(), Rejection> {
    let seats = tx.get(&tx.record().match_seats);
    write_state(tx, &next[..step.state_bytes], seats);
    let mut events = Events::begin(tx);
    for (audience, data) in outbox.iter() {
        events.push_game_event(tx, audience, data)?;
    }
    events.finish(tx);
    match step.outcome.clone() {
        Some(outcome) => finish(tx, outcome),
        None => update_turn_clock(tx, step.to_move, mover),
    }
}

/// Checks that matches may begin.
///
/// # Errors
///
/// [`RejectCode::Draining`] while the server waits for its matches to end before it stops.
pub(crate) fn ensure_not_draining(header: &Header) -> Result<(), Rejection> {
    if !header.is_draining() {
        return Ok(());
    }
    let text = "the server is about to stop, and no match begins any more";
    Err(Rejection::new(RejectCode::Draining, text))
}

/// Ends the match with `outcome`, and stops tick and turn clock.
pub(crate) fn finish(tx: &mut RoomTx<'_>, outcome: Outcome) -> Result<(), Rejection> {
    let record = tx.record();
    tx.set(&record.phase, raw_phase(MatchPhase::Finished));
    tx.set(&record.ready, 0);
    tx.set(&record.next_tick_at_us, u64::MAX);
    start_turn_clock(tx, None);
    let mut events = Events::begin(tx);
    events.push_to_all(tx, RoomEvent::Finished { outcome })?;
    events.finish(tx);
    Ok(())
}
