//! What the threads of a run share: the counts that the progress display shows, and the request to end the
//! load early.

use std::sync::atomic::{AtomicBool, AtomicU64};

/// See the module's documentation. All accesses may be relaxed: no other memory depends on these values.
#[derive(Debug, Default)]
pub(crate) struct RunState {
    /// Set to end the load before its time.
    pub interrupted: AtomicBool,
    /// Clients that are in their rooms.
    pub joined: AtomicU64,
    pub sent: AtomicU64,
    pub received: AtomicU64,
    pub matches: AtomicU64,
    pub disconnects: AtomicU64,
}
