//! The clock that all processes of one machine share.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Milliseconds of the monotonic clock, comparable between processes until the machine reboots.
#[inline]
pub fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

/// The time of [`now_ms`] at the kernel's last tick, which is up to 10 ms ago. It costs a quarter of the exact time, and
/// is meant for what every transaction notes. It may go back a little when the clock is adjusted.
#[inline]
pub fn last_tick_ms() -> u64 {
    nanoseconds(clock_gettime(ClockId::MonotonicCoarse)) / 1_000_000
}

/// Nanoseconds of the monotonic clock, comparable between processes until the machine reboots.
pub fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// The monotonic clock counts from boot: neither part is negative.
fn nanoseconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_never_goes_back() {
        let first = super::now_ns();
        assert!(super::now_ns() >= first);
        assert!(super::now_ms() >= first / 1_000_000);
    }

    #[test]
    fn the_last_tick_is_never_in_the_future() {
        let tick = super::last_tick_ms();
        assert!(tick > 0 && tick <= super::now_ms());
    }
}
