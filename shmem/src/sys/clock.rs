//! The clock that all processes of one machine share.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of the monotonic clock, comparable between processes until the machine reboots.
#[inline]
pub fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

/// Nanoseconds of the monotonic clock, comparable between processes until the machine reboots.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The monotonic clock counts from boot: neither part is negative.
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_never_goes_back() {
        let first = super::now_ns();
        assert!(super::now_ns() >= first);
        assert!(super::now_ms() >= first / 1_000_000);
    }
}
