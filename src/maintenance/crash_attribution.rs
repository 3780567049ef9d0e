//! Attributes a ticker's crash to the room whose game it was running. A game that crashes one ticker after another
//! loses its match.
//!
//! The ticker marks the room in the header before it runs a game's code, and clears the mark afterwards. A ticker that
//! finds a mark when it starts counts a crash for that room. The mark and the counter are atomics outside every lock,
//! and only the ticker writes them. The match is abandoned in one transaction under the room's lock. If the ticker dies
//! after it has cleared the mark and before it has stored the count, that one crash is not counted.

use std::sync::atomic::Ordering;

use forkade_protocol::{Outcome, Phase as MatchPhase};
use shmem::sys::clock::now_ms;

use crate::lobby::match_play::finish;
use crate::maintenance::crash_policy::{RestartDecision, RoomCrashHistory};
use crate::session::rejection::Rejection;
use crate::state::handle::StateHandle;
use crate::state::layout::RoomRef;
use crate::state::rooms::{is_open, phase_of};

/// The consequence of a crash of the previous ticker in a game's code.
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

/// Counts the crash of the previous ticker, if it died in a game's code. From here on, this process marks each game
/// that it runs.
///
/// # Errors
///
/// If the match cannot be abandoned. That is a bug in the server.
pub fn attribute_ticker_crash(state: &mut StateHandle) -> Result<Option<TickerCrash>, Rejection> {
    state.tracks_running_game = true;
    let mark = &state.memory.header.running_game;
    let id = mark.room.swap(0, Ordering::AcqRel);
    let room = RoomRef::from_id(id);
    let Some(record) = (id != 0).then(|| state.memory.rooms.get(room.index())).flatten() else {
        return Ok(None);
    };
    let (now, counter) = (now_ms(), &record.crash_counter);
    let mut history = RoomCrashHistory::default();
    if counter.generation.swap(room.generation(), Ordering::Relaxed) == room.generation() {
        history.window_began_ms = counter.window_began_ms.load(Ordering::Relaxed);
        history.count = counter.crashes.load(Ordering::Relaxed);
    }
    let decision = history.enter(now, now.saturating_sub(mark.since_ms.load(Ordering::Relaxed)));
    counter
        .window_began_ms
        .store(history.window_began_ms, Ordering::Relaxed);
    counter.crashes.store(history.count, Ordering::Relaxed);
    if decision == RestartDecision::Replace || !abandon_running_match(state, room)? {
        let crashes = history.count;
        return Ok(Some(TickerCrash::Counted { room, crashes }));
    }
    counter.crashes.store(0, Ordering::Relaxed);
    state
        .memory
        .header
        .matches_abandoned_total
        .fetch_add(1, Ordering::Relaxed);
    Ok(Some(TickerCrash::MatchAbandoned { room }))
}

/// Abandons the match in a room without a call of its game. Returns false if no match is being played.
fn abandon_running_match(state: &mut StateHandle, room: RoomRef) -> Result<bool, Rejection> {
    let mut tx = state.attachment.begin(state.memory.rooms.at(room.index()));
    let record = tx.record();
    let is_playing = is_open(&tx, room) && phase_of(tx.get(&record.phase)) == MatchPhase::Playing;
    if is_playing {
        finish(&mut tx, Outcome::Abandoned)?;
        tx.commit()?;
    }
    Ok(is_playing)
}
