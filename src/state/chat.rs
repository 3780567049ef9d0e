//! The lobby's chat: one log with a lock of its own.

use crate::limits::CHAT_LOG_BYTES;
use crate::state::handle::StateHandle;
use shmem::event_log::EventLog;
use shmem::lock::Lock;
use shmem::shared_record;
use shmem::transaction::{Record, View};

shared_record! {
    /// What is said to the lobby.
    pub struct ChatRecord {
        lock: Lock,
        /// The lines, as frames that are ready to be sent.
        pub log: EventLog<{ CHAT_LOG_BYTES / 8 }>,
    }
}

impl Record for ChatRecord {
    fn lock(&self) -> &Lock {
        &self.lock
    }

    fn publish(&'static self, view: &View<'_>) {
        self.log.publish(view);
    }
}

/// A reader's place in the lobby's chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatPlace {
    /// Offset in the log behind the last line that was read.
    pub cursor: u64,
    /// That line's number.
    pub line: u64,
}

impl StateHandle {
    /// The end of the lobby's chat: where somebody begins to hear it who comes in now.
    pub(crate) fn end_of_chat(&mut self) -> ChatPlace {
        let tx = self.attachment.begin(self.memory.chat);
        let log = &tx.record().log;
        ChatPlace {
            cursor: log.head(&tx),
            line: log.last_number(&tx),
        }
    }
}
