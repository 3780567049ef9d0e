//! The bounds of this crate, with their units in their names.

/// The undo journal beside a lock: half a page, so that it and the lock's own figures share one.
pub const JOURNAL_BYTES: usize = 2048;

/// A wait for a lock that lasts so long is counted and reported to the watchdog, and the wait goes on.
pub const LOCK_WAIT_REPORT_MS: u64 = 250;

/// Things that are reported to the watchdog at once; beyond them reports wait until there is space.
pub const REPORTS_MAX: usize = 64;
