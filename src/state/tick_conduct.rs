//! How a room's game keeps to the time that a ticker's call of it may take.

use std::sync::atomic::{AtomicU32, Ordering};

use shmem::shared_record;

shared_record! {
    /// The [`TickConduct`] of a room. Only a ticker that holds the room's lock writes it. Outside the journal: a count
    /// that is wrong by one after a death does no harm.
    pub struct TickConductCell {
        /// Of the room that it is about.
        generation: AtomicU32,
        calls: AtomicU32,
        overruns: AtomicU32,
        slowed: AtomicU32,
    }
}

/// The recent calls of a room's game by tickers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TickConduct {
    /// Calls in the present window.
    pub(crate) calls: u32,
    /// Those that took too long.
    pub(crate) overruns: u32,
    /// The room is ticked less often.
    pub(crate) is_slowed: bool,
}

impl TickConductCell {
    /// The conduct of the room of this generation.
    pub(crate) fn load(&self, generation: u32) -> TickConduct {
        if self.generation.load(Ordering::Relaxed) != generation {
            return TickConduct::default();
        }
        TickConduct {
            calls: self.calls.load(Ordering::Relaxed),
            overruns: self.overruns.load(Ordering::Relaxed),
            is_slowed: self.slowed.load(Ordering::Relaxed) != 0,
        }
    }

    /// Enters the conduct of the room of this generation.
    pub(crate) fn store(&self, generation: u32, conduct: TickConduct) {
        self.calls.store(conduct.calls, Ordering::Relaxed);
        self.overruns.store(conduct.overruns, Ordering::Relaxed);
        self.slowed.store(conduct.is_slowed.into(), Ordering::Relaxed);
        self.generation.store(generation, Ordering::Relaxed);
    }
}
