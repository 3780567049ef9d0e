//! A timer as a descriptor: a poll wakes up at a microsecond, not at a millisecond as by its timeout.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A timer that expires once, at a time of the monotonic clock. Its descriptor is readable from then on. For an
/// edge-triggered poll nothing has to be read: each expiry is a new edge.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// A timer that is not set, closed on exec and non-blocking.
    ///
    /// # Errors
    ///
    /// No descriptor left, or no memory.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// Lets the timer expire at `at_us`, in microseconds of the monotonic clock, and not at the time set before. A time
    /// that has passed is now.
    ///
    /// # Errors
    ///
    /// Those of timerfd_settime(2); none is expected.
    pub fn set_at_us(&self, at_us: u64) -> io::Result<()> {
        // 0 would switch the timer off. A time beyond the clock's range is never reached.
        let at_us = i64::try_from(at_us.max(1)).unwrap_or(i64::MAX);
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: at_us / 1_000_000,
                tv_nsec: at_us % 1_000_000 * 1000,
            },
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use mio::unix::SourceFd;
    use mio::{Events, Interest, Poll, Token};

    use super::*;
    use crate::sys::clock::now_ns;

    #[test]
    fn each_time_that_is_set_wakes_a_poll_once_and_never_early() {
        let timer = Timer::new().expect("a descriptor");
        let mut poll = Poll::new().expect("a descriptor");
        let source = &mut SourceFd(&timer.as_fd().as_raw_fd());
        poll.registry()
            .register(source, Token(0), Interest::READABLE)
            .expect("registers");
        let mut events = Events::with_capacity(1);
        for wait_us in [0, 1, 700, 1300] {
            let at_us = now_ns() / 1000 + wait_us;
            // The time set last is the one that counts.
            timer.set_at_us(u64::MAX).expect("it is a time");
            timer.set_at_us(at_us).expect("it is a time");
            poll.poll(&mut events, None).expect("polls");
            assert!(!events.is_empty() && now_ns() / 1000 >= at_us);
        }
        poll.poll(&mut events, Some(Duration::ZERO)).expect("polls");
        assert!(events.is_empty());
    }
}
