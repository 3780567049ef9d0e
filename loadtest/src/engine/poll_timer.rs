//! Wakes a mio poll at an exact time. The poll's own timeout counts whole milliseconds, which would add to
//! every measured latency.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// A timer descriptor registered in a poll.
#[derive(Debug)]
pub(crate) struct PollTimer {
    timer: OwnedFd,
    armed_ns: Option<u64>,
}

impl PollTimer {
    /// A timer that reports under `token`.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self {
            timer,
            armed_ns: None,
        })
    }

    /// Arms the timer to expire once, at `due_ns`, in place of any time set before.
    ///
    /// # Errors
    /// Those of `timerfd_settime`, none of which arises from valid times.
    pub(crate) fn set(&mut self, due_ns: u64, now_ns: u64) -> io::Result<()> {
        if self.armed_ns == Some(due_ns) {
            return Ok(());
        }
        // Zero would disarm the timer.
        let ahead_ns = due_ns.saturating_sub(now_ns).max(1);
        let overflow = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let ahead = Timespec {
            tv_sec: i64::try_from(ahead_ns / 1_000_000_000).map_err(overflow)?,
            tv_nsec: i64::try_from(ahead_ns % 1_000_000_000).map_err(overflow)?,
        };
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: ahead,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.armed_ns = Some(due_ns);
        Ok(())
    }

    /// Must be called after the timer has expired, so that the same time can be set again.
    pub(crate) fn clear(&mut self) {
        self.armed_ns = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_timer_expires_not_before_its_time_and_again_when_armed_again() {
        let mut poll = mio::Poll::new().unwrap();
        let mut timer = PollTimer::new(poll.registry(), Token(7)).unwrap();
        let mut events = mio::Events::with_capacity(4);
        for _ in 0..2 {
            let before = Instant::now();
            timer.set(30_000_000, 0).unwrap();
            poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
            assert_eq!(events.iter().next().unwrap().token(), Token(7));
            assert!(before.elapsed() >= Duration::from_millis(30));
            timer.clear();
        }
    }
}
