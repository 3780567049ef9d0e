//! What a keeper sees of handlers that do not get on. It only reports them; the [watchdog](crate::process::watchdog) judges.
//!
//! A handler that waits for its client, or for a lock, is innocent whatever has arrived for it. So only those are reported that have
//! something to do, have not come round their loop since the last look, and are stopped or use a processor.

use std::sync::atomic::Ordering;

use crate::limits::WATCHDOG_PULSE_LOOK_MS;
use crate::process::keeper::Keeper;
use crate::state::connections::{Claim, ConnectionRecord};
use shmem::hang_reports::Subject;
use shmem::sys::clock::now_ms;
use shmem::sys::process::{ProcessId, ProcessStatus, RunState};
use shmem::sys::sockets::unread_bytes;

/// What the keeper remembers between two looks.
#[derive(Debug, Default)]
pub(crate) struct HandlerMarks {
    /// By the connection's place among this keeper's: its handler's [mark](ConnectionRecord::mark).
    marks: Vec<u64>,
    next_look_ms: u64,
}

impl Keeper {
    /// How long until the handlers are to be looked at, if there are any.
    pub(crate) fn watch_again_ms(&self) -> Option<u64> {
        let has_handlers = !(self.held.is_empty() && self.to_adopt.is_empty());
        has_handlers.then(|| self.watch.next_look_ms.saturating_sub(now_ms()))
    }

    /// Reports the handlers that do not get on, if it is time to look.
    pub(crate) fn watch_handlers(&mut self) {
        let now = now_ms();
        if now < self.watch.next_look_ms {
            return;
        }
        self.watch.next_look_ms = now + WATCHDOG_PULSE_LOOK_MS;
        let slots = self.context.memory.touched_connections_of_keeper(self.index);
        self.watch.marks.resize(slots.len(), 0);
        for (place, index) in slots.enumerate() {
            let record = self.context.memory.connections.at(index);
            if record.claimed() != Claim::Held {
                continue;
            }
            let mark = record.mark();
            let before = std::mem::replace(&mut self.watch.marks[place], mark);
            if mark == before
                && self.has_something_to_do(index, record)
                && record.handler().is_some_and(is_stopped_or_busy)
            {
                self.report_handler(index);
            }
        }
    }

    /// Tells the watchdog that a handler does not get on.
    pub(crate) fn report_handler(&self, index: u32) {
        let hang_reports = &self.context.memory.header.hang_reports;
        hang_reports.report(Subject::Connection { index });
    }

    /// Whether the handler has begun something, has bytes to receive, or is to offer its socket to this keeper.
    fn has_something_to_do(&self, index: u32, record: &ConnectionRecord) -> bool {
        record.working_on.load(Ordering::Relaxed) != 0
            || self
                .held
                .get(&index)
                .is_none_or(|held| unread_bytes(&held.socket).is_ok_and(|bytes| bytes > 0))
    }
}

fn is_stopped_or_busy(handler: ProcessId) -> bool {
    let activity = ProcessStatus::of(handler.pid).ok().flatten();
    activity.is_some_and(|activity| {
        activity.process == handler && matches!(activity.state, RunState::Stopped | RunState::Running)
    })
}
