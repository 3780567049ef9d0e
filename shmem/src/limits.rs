//! The bounds of this crate, with the units in their names.

/// Size of the undo journal beside a lock: half a page, so that it shares one page with the lock itself.
pub const JOURNAL_BYTES: usize = 2048;

/// A wait for a lock is counted and reported to the watchdog each time it has lasted this long. The wait goes on.
pub const LOCK_WAIT_REPORT_MS: u64 = 250;

/// Pending hang reports. When there are more, reports are dropped and repeated by their senders.
pub const REPORTS_MAX: usize = 64;
