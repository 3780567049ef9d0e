//! Which process is responsible for a reported hang, as shared memory tells without a lock.

use crate::process::process_table::Context;
use crate::process::watchdog::Watchdog;
use crate::state::connections::{Claim, ConnectionRecord};
use crate::state::roles::RoleInstance;
use crate::state::room_label::lock_owner_name;
use shmem::hang_reports::Subject;
use shmem::sys::process::ProcessId;

/// The process that is responsible at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) pid: u32,
    /// Not known of a process that holds a lock and has not entered itself yet.
    start_time: Option<u64>,
    /// Changes when it makes progress.
    pub(crate) mark: u64,
}

impl Target {
    fn new(process: ProcessId, mark: u64) -> Self {
        Self {
            pid: process.pid,
            start_time: Some(process.start_time),
            mark,
        }
    }

    /// True if pid and start time match: this guards against pid reuse.
    pub(crate) fn is(self, process: ProcessId) -> bool {
        self.pid == process.pid
            && self
                .start_time
                .is_none_or(|start_time| start_time == process.start_time)
    }
}

impl Watchdog {
    /// The process that is responsible at this moment; `None` if there is none.
    pub(crate) fn target_of(&self, subject: Subject) -> Option<Target> {
        let memory = self.context.memory;
        match subject {
            Subject::Lock { offset } => {
                let holder = memory.lock_at(offset)?.0.holder()?;
                Some(Target {
                    pid: holder.pid,
                    start_time: holder.start_time,
                    mark: holder.epoch,
                })
            }
            Subject::Connection { index } => {
                let record = memory.connections.get(index)?;
                let handler = record.handler().filter(|_| record.claimed() == Claim::Held)?;
                Some(Target::new(handler, record.last_progress_ms()))
            }
            Subject::Role { slot } => {
                // One that is not ready yet may be stopped, too.
                let role = memory.header.roles.get(slot as usize)?;
                Some(Target::new(role.process()?, role.liveness.last_progress_ms()))
            }
        }
    }

    /// What a hung process does to others, for the log.
    pub(crate) fn describe_hang(&self, subject: Subject) -> String {
        let Context { memory, games, .. } = self.context;
        match subject {
            Subject::Lock { offset } => match memory.lock_at(offset) {
                Some((_, owner)) => format!(
                    "keeps others waiting for the lock of {}",
                    lock_owner_name(memory, games, owner)
                ),
                None => "keeps others waiting for a lock".to_owned(),
            },
            Subject::Connection { .. } | Subject::Role { .. } => "does not come round its loop".to_owned(),
        }
    }

    /// What a process of this server is, for the log.
    pub(crate) fn name_of(&self, process: ProcessId) -> String {
        let children = RoleInstance::all(self.context.config);
        let is_it = |instance: &&RoleInstance| instance.slot(self.context.memory).process() == Some(process);
        if let Some(instance) = children.iter().find(is_it) {
            return format!("the {} (process {process})", instance.name(self.context.config));
        }
        match self.find_connection(|handler| handler == process) {
            Some((index, _)) => format!("handler {process} of connection {index}"),
            None => format!("process {process}"),
        }
    }

    /// The connection whose handler is the wanted one. Looks at all slots that were ever claimed: for the rare case.
    pub(crate) fn find_connection(
        &self,
        is_wanted: impl Fn(ProcessId) -> bool,
    ) -> Option<(u32, &'static ConnectionRecord)> {
        let is_its = |(_, record): &(u32, &ConnectionRecord)| {
            record.claimed() != Claim::Free && record.handler().is_some_and(&is_wanted)
        };
        self.context.memory.touched_connections().find(is_its)
    }
}
