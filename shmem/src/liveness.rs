//! A process's pulse: when it last came round its loop, for those who watch whether it gets on.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::shared_record;
use crate::sys::clock::now_ms;

shared_record! {
    /// The pulse of one process. One that waits has none, and need not have: only who has something to do must get on.
    pub struct Pulse {
        last_ms: AtomicU64,
    }
}

impl Pulse {
    /// The process gets on.
    pub fn beat(&self) {
        self.last_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// When it last did, in milliseconds of [`now_ms`].
    pub fn last_ms(&self) -> u64 {
        self.last_ms.load(Ordering::Relaxed)
    }
}
