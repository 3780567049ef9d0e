//! The turn clock: in a room that has one, a turn has a time limit.
//!
//! After each call the game says whose turn it is. The clock starts with a turn, and starts again whenever the seat to
//! move has acted. When it has run out, the ticker calls the game, which decides the consequence. The clock is part of
//! the room, under the room's lock. If the ticker dies, its successor finds the same deadline: a turn may end late,
//! never early.

use std::time::Duration;

use forkade_protocol::{Phase as MatchPhase, RoomEvent, Turn};
use shmem::sys::clock::now_ms;

use crate::lobby::delivery::Events;
use crate::lobby::match_play::{self, Abandonment, RoomTimers, call_game, end_timer_call};
use crate::lobby::news::Before;
use crate::lobby::tick_budget::{CallTimer, budget_us};
use crate::session::rejection::Rejection;
use crate::state::fault::GameCall;
use crate::state::handle::StateHandle;
use crate::state::layout::RoomRef;
use crate::state::rooms::{RoomLife, RoomTx, game_of, phase_of};
use crate::state::running_game::mark_game_running;

/// Value of a room's `turn_seat` while no clock is running.
pub(crate) const NO_TURN: u32 = u32::MAX;

/// Ends the turn, if the room's clock has run out at `now_ms`.
///
/// # Errors
///
/// If the game fails, or takes too long again and again; the match is then abandoned.
pub(crate) fn run_turn_timer(
    state: &mut StateHandle,
    index: u32,
    now_ms: u64,
) -> Result<RoomTimers, Rejection> {
    let header = state.memory.header;
    let Some(mut tx) = state
        .attachment
        .try_begin(state.memory.rooms.at(index), Duration::ZERO)
    else {
        return Ok(RoomTimers::Busy);
    };
    let record = tx.record();
    let playing = phase_of(tx.get(&record.phase)) == MatchPhase::Playing;
    let open = tx.get(&record.life) == RoomLife::OPEN.raw();
    let Some(seat) = seat_to_move(&tx).filter(|_| open && playing) else {
        return Ok(RoomTimers::NotDue);
    };
    if tx.get(&record.turn_ends_at_ms) > now_ms {
        return Ok(RoomTimers::NotDue);
    }
    let mut events = Events::begin(&mut tx);
    events.push_to_all(&mut tx, RoomEvent::TurnTimedOut { seat })?;
    events.finish(&mut tx);
    let room = RoomRef::new(index, tx.get(&record.generation));
    let before = Before::of(&tx);
    let running_mark = mark_game_running(state.running_mark, room);
    let budget_us = budget_us(game_of(&tx, state.games));
    let timer = CallTimer::start();
    let ended = call_game(
        &mut tx,
        state.games,
        &mut state.outbox,
        Some(seat),
        |game, state, out, next| game.turn_timed_out(state, seat, out, next),
    );
    let call = (GameCall::of("turn_timed_out", Some(seat)), ended);
    let context = (state.games, header, timer.stop(budget_us));
    let kept = match end_timer_call(&mut tx, room, call, context, &mut state.faults) {
        Ok(kept) => kept,
        Err(rejection) => {
            drop(tx);
            return match match_play::abandon_match(state, room)? {
                Abandonment::Busy => Ok(RoomTimers::Busy),
                Abandonment::Done | Abandonment::NoMatch => Err(rejection),
            };
        }
    };
    let news = before.compare(&tx, state.games, room);
    tx.commit()?;
    drop(running_mark);
    if let Some(news) = news {
        news.log(state.memory);
    }
    kept.map(|()| RoomTimers::Done)
}

/// Starts, restarts or stops the clock after a call of the game, and tells the room. `mover` is the seat that acted.
pub(crate) fn update_turn_clock(
    tx: &mut RoomTx<'_>,
    to_move: Option<u8>,
    mover: Option<u8>,
) -> Result<(), Rejection> {
    let runs_on = to_move == seat_to_move(tx) && mover.is_none_or(|mover| Some(mover) != to_move);
    if runs_on {
        return Ok(());
    }
    let was_running = seat_to_move(tx).is_some();
    start_turn_clock(tx, to_move);
    let milliseconds = tx.get(&tx.record().turn_seconds).saturating_mul(1000);
    let event = match seat_to_move(tx) {
        Some(seat) => RoomEvent::Turn { seat, milliseconds },
        None if was_running => RoomEvent::TurnStopped,
        None => return Ok(()),
    };
    let mut events = Events::begin(tx);
    events.push_to_all(tx, event)?;
    events.finish(tx);
    Ok(())
}

/// Starts the clock for the seat to move, or stops it for `None`. Pushes no event.
pub(crate) fn start_turn_clock(tx: &mut RoomTx<'_>, to_move: Option<u8>) {
    let record = tx.record();
    let lasts_ms = u64::from(tx.get(&record.turn_seconds)) * 1000;
    // A seat that the match does not have cannot be waited for.
    let seat = to_move.filter(|seat| lasts_ms > 0 && u32::from(*seat) < tx.get(&record.match_seats));
    let ends_at_ms = seat.map_or(u64::MAX, |_| now_ms() + lasts_ms);
    tx.set(&record.turn_seat, seat.map_or(NO_TURN, u32::from));
    tx.set(&record.turn_ends_at_ms, ends_at_ms);
}

/// Returns the seat whose clock is running, and the time left.
pub(crate) fn current_turn(tx: &RoomTx<'_>) -> Option<Turn> {
    let ends_at_ms = tx.get(&tx.record().turn_ends_at_ms);
    seat_to_move(tx).map(|seat| Turn {
        seat,
        milliseconds: remaining_ms(ends_at_ms, now_ms()),
    })
}

fn seat_to_move(tx: &RoomTx<'_>) -> Option<u8> {
    u8::try_from(tx.get(&tx.record().turn_seat)).ok()
}

/// Returns the milliseconds from `now_ms` until `until_ms`, 0 if that has passed, as the protocol encodes them.
pub(crate) fn remaining_ms(until_ms: u64, now_ms: u64) -> u32 {
    u32::try_from(until_ms.saturating_sub(now_ms)).unwrap_or(u32::MAX)
}
