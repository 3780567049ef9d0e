//! Why connections were closed: counters by error code, in all processes together.

use std::sync::atomic::{AtomicU64, Ordering};

use forkade_protocol::ErrorCode;
use shmem::shared_record;
use shmem::sys::clock::last_tick_ms;

shared_record! {
    /// Connections that were closed with one error code.
    pub struct CloseCounter {
        refused: AtomicU64,
        ended: AtomicU64,
        last_at_ms: AtomicU64,
    }
}

/// By the number of the [`ErrorCode`].
pub type CloseCounters = [CloseCounter; ErrorCode::ALL.len()];

/// What was counted for one error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closes {
    /// The code.
    pub code: ErrorCode,
    /// Connections that were refused: their client had no session there.
    pub refused: u64,
    /// Connections that carried a session.
    pub ended: u64,
    /// When the last one was closed, in milliseconds of [`last_tick_ms`].
    pub last_at_ms: u64,
}

/// Counts a connection that is closed with this code. (If the process dies while it closes it, its successor may count
/// it again.)
pub(crate) fn count_close(counters: &CloseCounters, code: ErrorCode, has_session: bool) {
    let counter = &counters[code as usize];
    let closes = if has_session {
        &counter.ended
    } else {
        &counter.refused
    };
    closes.fetch_add(1, Ordering::Relaxed);
    counter.last_at_ms.store(last_tick_ms(), Ordering::Relaxed);
}

/// All codes, with what was counted.
pub(crate) fn closes(counters: &CloseCounters) -> impl Iterator<Item = Closes> {
    ErrorCode::ALL
        .into_iter()
        .zip(counters)
        .map(|(code, counter)| Closes {
            code,
            refused: counter.refused.load(Ordering::Relaxed),
            ended: counter.ended.load(Ordering::Relaxed),
            last_at_ms: counter.last_at_ms.load(Ordering::Relaxed),
        })
}
