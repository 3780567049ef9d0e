//! Which room's game the ticker runs, and how many tickers a room has cost.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::state::layout::{Memory, RoomRef};
use shmem::shared_record;
use shmem::sys::clock::now_ms;

shared_record! {
    /// Whose game's code the ticker runs.
    pub struct RunningGame {
        /// A room's reference; 0 for none.
        pub(crate) room: AtomicU64,
        pub(crate) since_ms: AtomicU64,
    }
}

shared_record! {
    /// How many tickers a room has cost lately. Only the ticker writes it.
    pub struct RoomCrashCounter {
        pub(crate) generation: AtomicU32,
        pub(crate) deaths: AtomicU32,
        pub(crate) window_began_ms: AtomicU64,
    }
}

/// The room is noted until this is dropped.
#[must_use]
pub(crate) struct RunningGameGuard(Option<&'static RunningGame>);

impl Drop for RunningGameGuard {
    fn drop(&mut self) {
        if let Some(note) = self.0 {
            note.room.store(0, Ordering::Release);
        }
    }
}

/// Notes that the room's game is about to run, if this process is the one that does so.
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
