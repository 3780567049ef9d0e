//! One process's handle on the shared state.

use crate::state::connections::ConnectionRecord;
use crate::state::fault::Fault;
use crate::state::layout::Memory;
use crate::state::running_game::RunningGame;
use forkade_games::{ErasedOutbox, Games};
use shmem::transaction::Attachment;

/// One process's handle on the shared state: the memory, the attachment that takes its locks, and the games.
pub struct StateHandle {
    /// The shared memory.
    pub memory: &'static Memory,
    /// The games that this server offers.
    pub games: &'static Games,
    /// Names that players cannot have, besides those of the protocol.
    pub reserved_names: &'static [String],
    pub(crate) attachment: Attachment,
    /// The events of one call of a game; reused.
    pub(crate) outbox: ErasedOutbox,
    /// Where this process, if it is a ticker, marks which room's game it runs: see
    /// [`running_game`](crate::state::running_game).
    pub(crate) running_mark: Option<&'static RunningGame>,
    /// The connection that this process works for at present, if it serves any.
    pub(crate) serving: Option<&'static ConnectionRecord>,
    /// See [`StateHandle::take_faults`].
    pub(crate) faults: Vec<Fault>,
}

impl StateHandle {
    /// Attaches the calling process. Call it once per process, after its fork.
    ///
    /// # Panics
    ///
    /// If the process is attached already.
    pub fn attach(memory: &'static Memory, games: &'static Games) -> Self {
        Self::over(memory, games, memory.attach())
    }

    /// For tests that imitate several processes in one: a handle as if of another process.
    #[doc(hidden)]
    #[cfg(any(test, feature = "testing"))]
    pub fn imitate(memory: &'static Memory, games: &'static Games) -> Self {
        Self::over(memory, games, memory.imitate_attachment())
    }

    fn over(memory: &'static Memory, games: &'static Games, attachment: Attachment) -> Self {
        Self {
            memory,
            games,
            reserved_names: &[],
            attachment,
            outbox: ErasedOutbox::new(),
            running_mark: None,
            serving: None,
            faults: Vec::new(),
        }
    }

    /// Takes the failures of game code that no request could be rejected for. Log them when no lock is held.
    pub fn take_faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    /// Room records from this index on were never used.
    pub fn rooms_touched(&mut self) -> u32 {
        let directory = self.memory.directory;
        let tx = self.attachment.begin(directory.record);
        tx.get(&directory.record.rooms_touched)
    }

    /// Decides the transaction that a dead process left unfinished under the lock at `offset`, as noted in a record
    /// that it owned.
    pub fn recover(&mut self, offset: u64) {
        self.memory.recover(&mut self.attachment, offset);
    }
}
