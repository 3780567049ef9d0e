//! Who is to blame for what is stuck, as shared memory tells without a lock.

use std::sync::atomic::Ordering;

use super::Watchdog;
use crate::lobby::connections::{Claim, ConnectionRecord};
use crate::role::Post;
use crate::shm::alarm::Subject;
use crate::sys::process::ProcessId;

impl Watchdog {
    /// Who is to blame at this moment, with a mark that changes when it gets on; `None` if nobody is.
    pub(super) fn accused(&self, subject: Subject) -> Option<(u32, u64)> {
        let memory = self.context.memory;
        match subject {
            Subject::Lock { offset } => memory.lock_at(offset)?.0.held(),
            Subject::Connection { index } => {
                let record = memory.connections.get(index)?;
                let handler = record.handler().filter(|_| record.claimed() == Claim::Held)?;
                Some((handler.pid, record.mark()))
            }
            Subject::Role { slot } => memory.header.roles.get(slot as usize)?.gets_on(),
        }
    }

    /// What is said against who is stuck with it, for the log.
    pub(super) fn accusation(&self, subject: Subject) -> String {
        match subject {
            Subject::Lock { offset } => match self.context.memory.lock_at(offset) {
                Some((_, owner)) => format!("keeps others waiting for the lock of {owner}"),
                None => "keeps others waiting for a lock".to_owned(),
            },
            Subject::Connection { .. } | Subject::Role { .. } => "does not come round its loop".to_owned(),
        }
    }

    /// What a process of this server's is, for the log.
    pub(super) fn name_of(&self, process: ProcessId) -> String {
        let posts = Post::all(self.context.config);
        let is_it = |post: &&Post| {
            let slot = post.slot(self.context.memory);
            slot.pid.load(Ordering::Relaxed) == process.pid
        };
        if let Some(post) = posts.iter().find(is_it) {
            return format!("the {} (process {process})", post.name(self.context.config));
        }
        match self.connection_with(|handler| handler == process) {
            Some((index, _)) => format!("handler {process} of connection {index}"),
            None => format!("process {process}"),
        }
    }

    /// The connection whose handler is the one that is meant. Looks at all that were ever claimed: for the rare case.
    pub(super) fn connection_with(
        &self,
        is_meant: impl Fn(ProcessId) -> bool,
    ) -> Option<(u32, &'static ConnectionRecord)> {
        let is_its = |(_, record): &(u32, &ConnectionRecord)| {
            record.claimed() != Claim::Free && record.handler().is_some_and(&is_meant)
        };
        self.context.memory.touched_connections().find(is_its)
    }
}
