//! Which room's game the ticker runs, and how many tickers a room's game has crashed.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::state::layout::{Memory, RoomRef};
use shmem::shared_record;
use shmem::sys::clock::now_ms;

shared_record! {
    /// The room whose game the ticker runs.
    pub struct RunningGame {
        /// A room's reference; 0 for none.
        pub(crate) room: AtomicU64,
        pub(crate) since_ms: AtomicU64,
    }
}

shared_record! {
    /// Recent crashes of tickers, or of handlers, that a room's game caused.
    pub struct RoomCrashCounter {
        pub(crate) generation: AtomicU32,
        pub(crate) crashes: AtomicU32,
        pub(crate) window_began_ms: AtomicU64,
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

/// Enters that the room's game is about to run, if this process tracks that.
pub(crate) fn mark_game_running(
    memory: &Memory,
    tracks_running_game: bool,
    room: RoomRef,
) -> RunningGameGuard {
    let note = tracks_running_game.then_some(&memory.header.running_game);
    if let Some(note) = note {
        note.since_ms.store(now_ms(), Ordering::Relaxed);
        note.room.store(room.to_id(), Ordering::Release);
    }
    RunningGameGuard(note)
}
