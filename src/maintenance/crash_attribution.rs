//! Attributes a crash to the room whose game the process was running. A game that crashes one ticker after another
//! loses its match; one that crashes one handler after another while it shows the match is not asked to show it any
//! more. No connection is blamed for either.
//!
//! Each ticker has a mark in the header. It marks the room before it runs a game's code, and clears the mark
//! afterwards. A ticker that finds a mark of its predecessor counts a crash for that room; until then the other tickers
//! leave the room alone. The mark and the counter are atomics outside every lock, and only tickers write them. The
//! match is abandoned in one transaction under the room's lock. The mark is cleared last: a ticker that is killed while
//! it counts is counted, too.
//!
//! A handler marks the room in the record of its connection ([`ShownGame`](crate::state::shown_game::ShownGame)). Its
//! keeper, which takes no lock, counts the crash, unless the handler was killed from outside.

use std::sync::atomic::Ordering;

use shmem::sys::clock::now_ms;
use shmem::sys::process::ProcessId;

use crate::limits::TICK_MARK_TIMEOUT_MS;
use crate::lobby::match_play::{Abandonment, abandon_match};
use crate::maintenance::crash_policy::{RestartDecision, RoomCrashHistory};
use crate::session::rejection::Rejection;
use crate::state::handle::StateHandle;
use crate::state::layout::{Memory, RoomRef};
use crate::state::running_game::{RoomCrashCounter, RunningGame};

/// The consequence of a ticker's death in a game's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TickerCrash {
    /// The crash was counted; the match goes on.
    Counted {
        /// The room whose game was running.
        room: RoomRef,
        /// Crashes of this room's game within the crash window, this one included.
        crashes: u32,
    },
    /// The limit was reached; the match is abandoned.
    MatchAbandoned {
        /// The room whose game was running.
        room: RoomRef,
    },
}

/// Counts the death of this ticker's predecessor, if it died in a game's code. From here on, this process marks each
/// game that it runs, as the ticker of this number.
///
/// # Errors
///
/// If the match cannot be abandoned. That is a bug in the server.
pub fn attribute_ticker_crash(
    state: &mut StateHandle,
    ticker: usize,
) -> Result<Option<TickerCrash>, Rejection> {
    let mark = &state.memory.header.running_games[ticker];
    state.running_mark = Some(mark);
    let process = state.attachment.process().to_u64();
    let dead = mark.process.load(Ordering::Acquire);
    let crash = match take_mark(mark, dead, process) {
        true => count_crash(state, mark.room.load(Ordering::Acquire), mark),
        // Another ticker counts it.
        false => Ok(None),
    };
    mark.process.store(process, Ordering::Relaxed);
    mark.room.store(0, Ordering::Release);
    crash
}

/// Takes over the mark of a dead ticker: of all that find it, one counts the death.
fn take_mark(mark: &RunningGame, dead: u64, process: u64) -> bool {
    let taken = mark
        .process
        .compare_exchange(dead, process, Ordering::AcqRel, Ordering::Relaxed);
    taken.is_ok()
}

/// Counts the death of another ticker in a game's code, if one died some time ago and has no successor yet.
///
/// # Errors
///
/// If the match cannot be abandoned. That is a bug in the server.
pub fn attribute_crash_without_successor(state: &mut StateHandle) -> Result<Option<TickerCrash>, Rejection> {
    let Some(own) = state.running_mark else {
        return Ok(None);
    };
    let now_ms = now_ms();
    let is_left = |mark: &RunningGame| {
        let since_ms = mark.since_ms.load(Ordering::Relaxed);
        now_ms.saturating_sub(since_ms) >= TICK_MARK_TIMEOUT_MS
            && ProcessId::from_u64(mark.process.load(Ordering::Relaxed))
                .is_some_and(|process| process.is_alive().is_ok_and(|is_alive| !is_alive))
    };
    for mark in &state.memory.header.running_games {
        let (id, dead) = (
            mark.room.load(Ordering::Acquire),
            mark.process.load(Ordering::Acquire),
        );
        if id == 0 || std::ptr::eq(mark, own) || !is_left(mark) {
            continue;
        }
        // The room stays claimed, by this ticker's mark.
        own.room.store(id, Ordering::Release);
        let crash = match take_mark(mark, dead, state.attachment.process().to_u64()) {
            true => {
                let crash = count_crash(state, id, mark);
                // Unless its successor has come up meanwhile, and runs another room.
                let _ = mark
                    .room
                    .compare_exchange(id, 0, Ordering::AcqRel, Ordering::Relaxed);
                crash
            }
            // Its successor has come up.
            false => Ok(None),
        };
        own.room.store(0, Ordering::Release);
        return crash;
    }
    Ok(None)
}

/// Counts the death of a ticker with this mark for the room that it had marked, whose number is `id`.
fn count_crash(
    state: &mut StateHandle,
    id: u64,
    mark: &RunningGame,
) -> Result<Option<TickerCrash>, Rejection> {
    let room = RoomRef::from_id(id);
    let Some(record) = (id != 0).then(|| state.memory.rooms.get(room.index())).flatten() else {
        return Ok(None);
    };
    let ran_for_ms = now_ms().saturating_sub(mark.since_ms.load(Ordering::Relaxed));
    let (decision, crashes) = enter_crash(&record.crash_counter, room, ran_for_ms);
    // If the room's lock is held, the next such crash abandons the match: no ticker waits for a room.
    if decision == RestartDecision::Replace || abandon_match(state, room)? != Abandonment::Done {
        return Ok(Some(TickerCrash::Counted { room, crashes }));
    }
    record.crash_counter.crashes.store(0, Ordering::Relaxed);
    state
        .memory
        .header
        .matches_abandoned_total
        .fetch_add(1, Ordering::Relaxed);
    Ok(Some(TickerCrash::MatchAbandoned { room }))
}

/// Counts the crash of a handler in code of the room's game that showed its match. Returns whether the room is not
/// shown any more from now on, and how many such crashes there were within the crash window. A hang for which the
/// watchdog killed the handler is enough by itself: that code has no reason to compute for a second, and everyone in
/// the room has waited.
pub(crate) fn attribute_show_crash(memory: &Memory, room: RoomRef, has_hung: bool) -> (bool, u32) {
    let Some(record) = memory.rooms.get(room.index()) else {
        return (false, 0);
    };
    let (decision, crashes) = enter_crash(&record.show_crash_counter, room, 0);
    let is_over = (has_hung || decision != RestartDecision::Replace)
        && record.not_shown.swap(room.generation(), Ordering::AcqRel) != room.generation();
    if is_over {
        let total = &memory.header.matches_not_shown_total;
        total.fetch_add(1, Ordering::Relaxed);
    }
    (is_over, crashes)
}

/// Whether the room is not shown any more.
pub(crate) fn is_switched_off(memory: &Memory, room: RoomRef) -> bool {
    let record = memory.rooms.get(room.index());
    record.is_some_and(|record| record.not_shown.load(Ordering::Acquire) == room.generation())
}

/// Enters a crash into a room's counter. Returns what follows from it, and the number of crashes. (If two keepers enter
/// one at the same time, one of them may be lost.)
fn enter_crash(counter: &RoomCrashCounter, room: RoomRef, ran_for_ms: u64) -> (RestartDecision, u32) {
    let mut history = RoomCrashHistory::default();
    if counter.generation.swap(room.generation(), Ordering::Relaxed) == room.generation() {
        history.window_began_ms = counter.window_began_ms.load(Ordering::Relaxed);
        history.count = counter.crashes.load(Ordering::Relaxed);
    }
    let decision = history.enter(now_ms(), ran_for_ms);
    counter
        .window_began_ms
        .store(history.window_began_ms, Ordering::Relaxed);
    counter.crashes.store(history.count, Ordering::Relaxed);
    (decision, history.count)
}
