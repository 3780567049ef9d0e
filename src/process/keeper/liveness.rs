//! How a keeper finds handlers that hang. It only reports them; the [watchdog](crate::process::watchdog) decides.
//!
//! A handler that waits for its client, or for a lock, is not at fault, whatever has arrived for it. So a handler is
//! reported only if it has something to do, has not come round its loop since the last look, and is stopped or uses a
//! processor.

use std::sync::atomic::Ordering;

use crate::process::keeper::Keeper;
use crate::process::watchdog::progress::run_state;
use crate::state::connections::{Claim, ConnectionRecord};
use shmem::hang_reports::Subject;
use shmem::sys::clock::now_ms;
use shmem::sys::process::RunState;
use shmem::sys::sockets::unread_bytes;

impl Keeper {
    /// How long until the handlers are looked at, in milliseconds, if there are any.
    pub(crate) fn liveness_due_ms(&self) -> Option<u64> {
        let has_handlers = !(self.held.is_empty() && self.to_adopt.is_empty());
        has_handlers.then(|| self.progress_marks.next_look_ms().saturating_sub(now_ms()))
    }

    /// Reports the handlers that make no progress, if it is time to look.
    pub(crate) fn check_liveness(&mut self) {
        let slots = self.context.memory.touched_connections_of_keeper(self.index);
        if !self.progress_marks.begin_look(slots.len(), now_ms()) {
            return;
        }
        for (nth, index) in slots.enumerate() {
            let record = self.context.memory.connections.at(index);
            if record.claimed() != Claim::Held {
                continue;
            }
            let hangs = self.progress_marks.is_unchanged(nth, record.last_progress_ms())
                && self.has_something_to_do(index, record)
                && matches!(
                    record.handler().and_then(run_state),
                    Some(RunState::Stopped | RunState::Running)
                );
            if hangs {
                self.report_hang(index);
            }
        }
    }

    /// Tells the watchdog that a handler makes no progress.
    pub(crate) fn report_hang(&self, index: u32) {
        let hang_reports = &self.context.memory.header.hang_reports;
        hang_reports.report(Subject::Connection { index });
    }

    /// Whether the handler is in the middle of something, has bytes to receive, or should offer its socket to this
    /// keeper.
    fn has_something_to_do(&self, index: u32, record: &ConnectionRecord) -> bool {
        record.current_frame.load(Ordering::Relaxed) != 0
            || self
                .held
                .get(&index)
                .is_none_or(|held| unread_bytes(&held.socket).is_ok_and(|bytes| bytes > 0))
    }
}
