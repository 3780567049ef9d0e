//! Which room's game each ticker runs, and how many tickers a room's game has crashed.
//!
//! A ticker's mark is also its claim on the room: no other ticker waits for that room's lock. When the ticker dies, the
//! mark stays until its successor has counted the death (or another ticker, if there is no successor for a while). So a
//! game that ends tickers ends one at a time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::limits::CRASH_WINDOW_MS;
use crate::state::layout::{Memory, RoomRef};
use shmem::shared_record;
use shmem::sys::clock::now_ms;

shared_record! {
    /// The room whose game a ticker runs.
    pub struct RunningGame {
        /// A room's reference; 0 for none.
        pub(crate) room: AtomicU64,
        pub(crate) since_ms: AtomicU64,
        /// The ticker, as the number of a [`ProcessId`](shmem::sys::process::ProcessId).
        pub(crate) process: AtomicU64,
    }
}

/// Whether another ticker than the one with this mark runs the room's game, or died while it ran it.
pub(crate) fn is_run_elsewhere(memory: &Memory, own: &RunningGame, index: u32) -> bool {
    let mut others = memory
        .header
        .running_games
        .iter()
        .filter(|mark| !std::ptr::eq(*mark, own));
    others.any(|mark| {
        let room = mark.room.load(Ordering::Acquire);
        room != 0 && RoomRef::from_id(room).index() == index
    })
}

shared_record! {
    /// Recent crashes of tickers, or of handlers, that a room's game caused.
    pub struct RoomCrashCounter {
        pub(crate) generation: AtomicU32,
        pub(crate) crashes: AtomicU32,
        pub(crate) window_began_ms: AtomicU64,
    }
}

impl RoomCrashCounter {
    /// Whether the room of this generation has caused a crash that still counts.
    pub(crate) fn is_recent(&self, generation: u32, now_ms: u64) -> bool {
        self.crashes.load(Ordering::Relaxed) != 0
            && self.generation.load(Ordering::Relaxed) == generation
            && now_ms <= self.window_began_ms.load(Ordering::Relaxed) + CRASH_WINDOW_MS
    }
}

/// Clears the running game when dropped.
#[must_use]
pub(crate) struct RunningGameGuard(Option<&'static RunningGame>);

impl Drop for RunningGameGuard {
    fn drop(&mut self) {
        if let Some(note) = self.0 {
            note.room.store(0, Ordering::Release);
        }
    }
}

/// Enters that the room's game is about to run, if this process has a mark for that.
pub(crate) fn mark_game_running(note: Option<&'static RunningGame>, room: RoomRef) -> RunningGameGuard {
    if let Some(note) = note {
        note.since_ms.store(now_ms(), Ordering::Relaxed);
        note.room.store(room.to_id(), Ordering::Release);
    }
    RunningGameGuard(note)
}
