//! Who is to blame for what is stuck, as shared memory tells without a lock.

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
            Subject::Connection { .. } | Subject::Role { .. } => None,
        }
    }

    /// What is said against who is stuck with it, for the log.
    pub(super) fn accusation(&self, subject: Subject) -> String {
        match subject {
            Subject::Lock { offset } => match self.context.memory.lock_at(offset) {
                Some((_, owner)) => format!("keeps others waiting for the lock of {owner}"),
                None => "keeps others waiting for a lock".to_owned(),
            },
            Subject::Connection { .. } | Subject::Role { .. } => "does not get on".to_owned(),
        }
    }

    /// What a process of this server's is, for the log.
    pub(super) fn name_of(&self, process: ProcessId) -> String {
        let posts = Post::all(self.context.config);
        let is_it = |post: &&Post| {
            let slot = post.slot(self.context.memory);
            slot.pid.load(std::sync::atomic::Ordering::Relaxed) == process.pid
        };
        match (posts.iter().find(is_it), self.connection_of(process)) {
            (Some(post), _) => format!("the {} (process {process})", post.name(self.context.config)),
            (None, Some((index, _))) => format!("handler {process} of connection {index}"),
            (None, None) => format!("process {process}"),
        }
    }

    /// The connection that a process animates, if it is a handler. Looks at all that were ever claimed: for the rare case.
    pub(super) fn connection_of(&self, process: ProcessId) -> Option<(u32, &'static ConnectionRecord)> {
        let is_its = |(_, record): &(u32, &ConnectionRecord)| {
            record.claimed() != Claim::Free && record.handler() == Some(process)
        };
        self.context.memory.touched_connections().find(is_its)
    }
}
