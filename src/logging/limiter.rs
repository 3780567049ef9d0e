//! How much of one kind is logged. A client can repeat whatever makes the server log, on as many connections as it
//! likes. So the counts lie in shared memory, one for each place in the code that logs.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use log::Record;

use crate::limits::LOG_RECORDS_PER_KIND_AND_SECOND_MAX;

/// Where the counts lie.
#[derive(Clone, Copy)]
pub(crate) struct LogLimits {
    /// By kind: see [`admit`].
    pub(crate) kinds: &'static [AtomicU64],
    /// By the place of a panic: the minute in which its backtrace was logged last, + 1.
    pub(crate) panic_places: &'static [AtomicU64],
    /// All records that were left out.
    pub(crate) left_out_total: &'static AtomicU64,
}

static LIMITS: OnceLock<LogLimits> = OnceLock::new();

/// Limits the records of this process and of those forked from it from now on. Only the first call has an effect.
pub(crate) fn set_log_limits(limits: LogLimits) {
    let _ = LIMITS.set(limits);
}

/// Whether a record is logged. If so: how many of its kind were left out before it.
pub(super) fn check(record: &Record<'_>) -> Option<u64> {
    let Some(limits) = LIMITS.get() else {
        return Some(0);
    };
    let kind = (record.target(), record.line());
    let admitted = admit(cell_of(limits.kinds, kind), now_s());
    if admitted.is_none() {
        limits.left_out_total.fetch_add(1, Ordering::Relaxed);
    }
    admitted
}

/// Whether the backtrace of a panic is logged: once per place and minute.
pub(super) fn is_backtrace_due(place: &str) -> bool {
    let Some(limits) = LIMITS.get() else { return true };
    let minute = u64::from(now_s()) / 60 + 1;
    cell_of(limits.panic_places, place).swap(minute, Ordering::Relaxed) != minute
}

/// Two kinds may share a cell, and then its limit.
fn cell_of(cells: &'static [AtomicU64], kind: impl Hash) -> &'static AtomicU64 {
    // With fixed keys: all processes must find the same cell.
    let mut hasher = DefaultHasher::new();
    kind.hash(&mut hasher);
    let index = hasher.finish() % cells.len() as u64;
    &cells[usize::try_from(index).expect("below a length")]
}

fn now_s() -> u32 {
    u32::try_from(shmem::sys::clock::now_ms() / 1000).unwrap_or(u32::MAX)
}

/// Counts a record in its kind's cell: the second, the records logged in it, and those left out and not reported yet.
/// `None`: too many in this second.
fn admit(cell: &AtomicU64, second: u32) -> Option<u64> {
    const LEFT_OUT_BITS: u32 = 24;
    const LEFT_OUT_MAX: u64 = (1 << LEFT_OUT_BITS) - 1;
    const _: () = assert!(LOG_RECORDS_PER_KIND_AND_SECOND_MAX <= 0xFF);
    let mut admitted = None;
    let change = |word: u64| {
        let is_same_second = word >> 32 == u64::from(second);
        let logged = if is_same_second {
            word >> LEFT_OUT_BITS & 0xFF
        } else {
            0
        };
        let left_out = word & LEFT_OUT_MAX;
        let (logged, left_out) = if logged < LOG_RECORDS_PER_KIND_AND_SECOND_MAX {
            admitted = Some(left_out);
            (logged + 1, 0)
        } else {
            admitted = None;
            (logged, (left_out + 1).min(LEFT_OUT_MAX))
        };
        Some(u64::from(second) << 32 | logged << LEFT_OUT_BITS | left_out)
    };
    // It always succeeds: there is always a change.
    let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_records_and_the_next_one_reports_those_left_out() {
        let cell = AtomicU64::new(0);
        let max = LOG_RECORDS_PER_KIND_AND_SECOND_MAX;
        let logged = (0..max + 7).filter(|_| admit(&cell, 5).is_some()).count();
        assert_eq!(logged as u64, max);
        assert_eq!(admit(&cell, 6), Some(7));
        assert_eq!(admit(&cell, 6), Some(0));
        // The clock of another process may be a moment behind.
        assert_eq!(admit(&cell, 5), Some(0));
    }
}
