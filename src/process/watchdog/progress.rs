//! Which of many processes have made no progress since the last look: those are candidates for a hang report.
//!
//! A process that waits for something makes no progress and is not at fault. So a candidate is reported only if it has
//! something to do and is stopped or uses a processor ([`run_state`]).

use crate::limits::LIVENESS_POLL_MS;
use shmem::sys::process::{ProcessId, ProcessStatus, RunState};

/// A set of processes, by index, and how far each was at the last look.
#[derive(Debug, Default)]
pub(crate) struct ProgressMarks {
    marks: Vec<u64>,
    next_look_ms: u64,
}

impl ProgressMarks {
    /// Whether it is time to look; then the set has `count` processes, and the next look is due later.
    pub(crate) fn begin_look(&mut self, count: usize, now_ms: u64) -> bool {
        let is_due = self.next_look_ms <= now_ms;
        if is_due {
            self.next_look_ms = now_ms + LIVENESS_POLL_MS;
            self.marks.resize(count, 0);
        }
        is_due
    }

    /// Enters a process's mark, which changes when it makes progress. Says whether it is the same as at the last look.
    pub(crate) fn is_unchanged(&mut self, index: usize, mark: u64) -> bool {
        std::mem::replace(&mut self.marks[index], mark) == mark
    }

    /// When the next look is due, in milliseconds of the monotonic clock.
    pub(crate) fn next_look_ms(&self) -> u64 {
        self.next_look_ms
    }
}

/// What the process does at this moment; `None` if it has ended or cannot be looked at.
pub(crate) fn run_state(process: ProcessId) -> Option<RunState> {
    let status = ProcessStatus::of(process.pid).ok().flatten()?;
    // Another process may have got the pid.
    (status.process == process).then_some(status.state)
}
