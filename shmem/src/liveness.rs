//! When a process last made progress, for the watchdog.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::shared_record;
use crate::sys::clock::now_ms;

shared_record! {
    /// The liveness of one process. It is not updated while the process has nothing to do: the watchdog judges only
    /// processes with pending work.
    pub struct Liveness {
        last_progress_ms: AtomicU64,
    }
}

impl Liveness {
    /// Notes that the event loop made progress now.
    #[inline]
    pub fn record_progress(&self) {
        self.last_progress_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// Time of the last progress, in milliseconds of [`now_ms`]; 0 if there was none.
    #[inline]
    pub fn last_progress_ms(&self) -> u64 {
        self.last_progress_ms.load(Ordering::Relaxed)
    }
}
