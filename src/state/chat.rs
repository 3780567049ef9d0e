//! The record of the lobby's chat: one log with a lock of its own.

use crate::limits::CHAT_LOG_BYTES;
use crate::state::handle::StateHandle;
use shmem::event_log::EventLog;
use shmem::lock::Lock;
use shmem::shared_record;
use shmem::transaction::{Record, View};

shared_record! {
    /// The lobby's chat.
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

/// A reader's position in the lobby's chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatCursor {
    /// Log offset behind the last line that was read.
    pub cursor: u64,
    /// The number of that line.
    pub line: u64,
}

impl StateHandle {
    /// The position of a reader that starts now.
    pub(crate) fn end_of_chat(&mut self) -> ChatCursor {
        let tx = self.attachment.begin(self.memory.chat);
        let log = &tx.record().log;
        ChatCursor {
            cursor: log.head(&tx),
            line: log.last_number(&tx),
        }
    }
}
