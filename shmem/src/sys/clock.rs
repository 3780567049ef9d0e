//! The clock that all processes of one machine share.

use nix::sys::resource::{UsageWho, getrusage};
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

/// What the calling thread has used of its processor, for differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadUsage {
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// How often it gave the processor up by itself, in order to wait for something.
    pub sleeps: u64,
}

impl ThreadUsage {
    /// What it has used up to now.
    ///
    /// # Panics
    ///
    /// Never: the kernel tells every thread.
    pub fn now() -> Self {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("every thread can ask");
        let us = |part: nix::sys::time::TimeVal| {
            u64::try_from(part.tv_sec()).unwrap_or(0) * 1_000_000 + u64::try_from(part.tv_usec()).unwrap_or(0)
        };
        Self {
            cpu_us: us(usage.user_time()) + us(usage.system_time()),
            sleeps: u64::try_from(usage.voluntary_context_switches()).unwrap_or(0),
        }
    }
}

/// The monotonic clock counts from boot: neither part is negative.
fn nanoseconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::ThreadUsage;

    #[test]
    fn time_never_goes_back() {
        let first = super::now_ns();
        assert!(super::now_ns() >= first);
        assert!(super::now_ms() >= first / 1_000_000);
    }

    #[test]
    fn a_thread_that_sleeps_is_told_from_one_that_computes() {
        let before = ThreadUsage::now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let slept = ThreadUsage::now();
        assert!(slept.sleeps > before.sleeps);
        while ThreadUsage::now().cpu_us < slept.cpu_us + 2000 {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn the_last_tick_is_never_in_the_future() {
        let tick = super::last_tick_ms();
        assert!(tick > 0 && tick <= super::now_ms());
    }
}
