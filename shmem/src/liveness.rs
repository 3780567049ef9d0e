//! A process's liveness: when it last came round its loop, for those who watch whether it gets on.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::shared_record;
use crate::sys::clock::now_ms;

shared_record! {
    /// The liveness of one process. One that waits has none, and need not have: only who has something to do must get on.
    pub struct Liveness {
        last_progress_ms: AtomicU64,
    }
}

impl Liveness {
    /// The process gets on.
    pub fn record_progress(&self) {
        self.last_progress_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// When it last did, in milliseconds of [`now_ms`].
    pub fn last_progress_ms(&self) -> u64 {
        self.last_progress_ms.load(Ordering::Relaxed)
    }
}
