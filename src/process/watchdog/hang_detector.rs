//! Whether one process that is at one thing hangs: a pure decision from what is seen of it.

use std::fmt;

use crate::limits::{WATCHDOG_ASLEEP_POLLS, WATCHDOG_STOPPED_POLLS};
use crate::state::hang_kind::HangKind;
use shmem::sys::process::{ProcessId, ProcessStatus, RunState};

/// What a process may do, while it is observed, before it counts as hung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HangLimits {
    /// Processor time that it may use, in milliseconds.
    pub(crate) cpu_ms: u64,
    /// Looks in a row that may find it stopped.
    pub(crate) stopped_looks: u32,
    /// Looks in a row that may find it asleep; `None`: it may sleep.
    pub(crate) asleep_looks: Option<u32>,
}

impl HangLimits {
    /// The usual limits, with so much processor time. A process without a lock may sleep.
    pub(crate) fn with_cpu_ms(cpu_ms: u64) -> Self {
        Self {
            cpu_ms,
            stopped_looks: WATCHDOG_STOPPED_POLLS,
            asleep_looks: None,
        }
    }

    /// For a process that holds a lock: no process of this server sleeps under one.
    #[must_use]
    pub(crate) fn under_lock(self) -> Self {
        Self {
            asleep_looks: Some(WATCHDOG_ASLEEP_POLLS),
            ..self
        }
    }
}

/// How a process hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hang {
    /// It has used so many milliseconds of processor time.
    Looping(u64),
    /// It was stopped, and not continued.
    Stopped,
    /// It sleeps under a lock.
    Asleep,
}

impl Hang {
    /// Without its figures.
    pub(crate) fn kind(self) -> HangKind {
        match self {
            Self::Looping(_) => HangKind::Looping,
            Self::Stopped => HangKind::Stopped,
            Self::Asleep => HangKind::Asleep,
        }
    }
}

impl fmt::Display for Hang {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Looping(cpu_ms) => write!(formatter, "has used {cpu_ms} ms of processor time over it"),
            Self::Stopped => formatter.write_str("is stopped"),
            Self::Asleep => formatter.write_str("sleeps"),
        }
    }
}

/// What was seen of a process since the first look. Time is measured in the process's own processor time and in
/// looks, and so stands still while the watchdog itself is not scheduled.
#[derive(Debug, Clone)]
pub(crate) struct HangDetector {
    first: ProcessStatus,
    stopped_looks: u32,
    asleep_looks: u32,
    cpu_ms_at_last_look: u64,
}

impl HangDetector {
    /// Begins with the first look.
    pub(crate) fn open(first: ProcessStatus) -> Self {
        Self {
            first,
            stopped_looks: 0,
            asleep_looks: 0,
            cpu_ms_at_last_look: first.cpu_ms,
        }
    }

    /// The process that is observed.
    pub(crate) fn process(&self) -> ProcessId {
        self.first.process
    }

    /// Enters another look at the process, which is still at the same thing. Says how it hangs, if it does.
    pub(crate) fn judge(&mut self, seen: ProcessStatus, limits: HangLimits) -> Option<Hang> {
        let slept = seen.state == RunState::Sleeping && seen.cpu_ms == self.cpu_ms_at_last_look;
        self.cpu_ms_at_last_look = seen.cpu_ms;
        self.asleep_looks = if slept { self.asleep_looks + 1 } else { 0 };
        self.stopped_looks = match seen.state {
            RunState::Stopped => self.stopped_looks + 1,
            _ => 0,
        };
        let used_ms = seen.cpu_ms.saturating_sub(self.first.cpu_ms);
        if used_ms >= limits.cpu_ms {
            Some(Hang::Looping(used_ms))
        } else if self.stopped_looks >= limits.stopped_looks {
            Some(Hang::Stopped)
        } else if limits
            .asleep_looks
            .is_some_and(|looks| self.asleep_looks >= looks)
        {
            Some(Hang::Asleep)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HangLimits = HangLimits {
        cpu_ms: 1000,
        stopped_looks: 5,
        asleep_looks: Some(50),
    };

    fn seen(state: RunState, cpu_ms: u64) -> ProcessStatus {
        ProcessStatus {
            process: ProcessId {
                pid: 7,
                start_time: 7,
            },
            state,
            cpu_ms,
        }
    }

    #[test]
    fn a_process_that_waits_for_a_processor_never_hangs_however_long_it_takes() {
        let mut detector = HangDetector::open(seen(RunState::Running, 5_000));
        for _ in 0..100_000 {
            assert_eq!(detector.judge(seen(RunState::Running, 5_999), LIMITS), None);
        }
    }

    #[test]
    fn a_process_that_uses_up_its_processor_time_hangs_and_earlier_use_does_not_count() {
        let mut detector = HangDetector::open(seen(RunState::Running, 50_000));
        assert_eq!(detector.judge(seen(RunState::Running, 50_990), LIMITS), None);
        assert_eq!(
            detector.judge(seen(RunState::Running, 51_000), LIMITS),
            Some(Hang::Looping(1000))
        );
    }

    #[test]
    fn a_stopped_process_hangs_unless_it_is_continued_in_time() {
        let mut detector = HangDetector::open(seen(RunState::Stopped, 0));
        let (stopped, running) = (seen(RunState::Stopped, 0), seen(RunState::Running, 0));
        for look in [stopped, stopped, stopped, stopped, running] {
            assert_eq!(detector.judge(look, LIMITS), None);
        }
        let verdicts: Vec<_> = (0..5).map(|_| detector.judge(stopped, LIMITS)).collect();
        assert_eq!(verdicts, [None, None, None, None, Some(Hang::Stopped)]);
    }

    #[test]
    fn a_process_that_sleeps_under_lock_hangs_unless_it_wakes_now_and_then() {
        let asleep = |cpu_ms| seen(RunState::Sleeping, cpu_ms);
        let mut sleeps_all_the_time = HangDetector::open(asleep(10));
        let mut wakes = HangDetector::open(asleep(10));
        for look in 1..50 {
            assert_eq!(sleeps_all_the_time.judge(asleep(10), LIMITS), None);
            assert_eq!(wakes.judge(asleep(10 + look / 40 * 10), LIMITS), None);
        }
        assert_eq!(sleeps_all_the_time.judge(asleep(10), LIMITS), Some(Hang::Asleep));
        assert_eq!(wakes.judge(asleep(20), LIMITS), None);
    }

    #[test]
    fn a_process_without_a_lock_may_sleep_and_any_may_wait_for_a_disk() {
        for state in [RunState::Sleeping, RunState::Blocked] {
            let mut detector = HangDetector::open(seen(state, 0));
            for _ in 0..100_000 {
                assert_eq!(
                    detector.judge(seen(state, 0), HangLimits::with_cpu_ms(1000)),
                    None
                );
            }
        }
    }
}
