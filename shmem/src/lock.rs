//! A lock in shared memory: a robust mutex, its undo journal, who holds it, and how it has fared.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::journal::Journal;
use crate::limits::LOCK_WAIT_REPORT_MS;
use crate::shared_record;
use crate::sys::clock::now_ms;
use crate::sys::memory::Mapping;
use crate::sys::mutex::{Acquired, Held, LockError, RobustMutex};
use crate::sys::process::ProcessId;

shared_record! {
    /// The lock at the head of a record. Zeroes are a lock that nobody has prepared yet.
    pub struct Lock {
        mutex: RobustMutex,
        prepared: AtomicU32,
        holder_pid: AtomicU32,
        holder_start_time: AtomicU64,
        epoch: AtomicU64,
        acquired_at_ms: AtomicU64,
        waits: AtomicU64,
        long_waits: AtomicU64,
        recoveries: AtomicU64,
        journal: Journal,
    }
}

/// Who holds a lock, as far as one can say from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its pid, from the moment that the kernel counts the lock as its own.
    pub pid: u32,
    /// When it was started; `None` while it has not entered itself yet.
    pub start_time: Option<u64>,
    /// Which one of all holds it is.
    pub epoch: u64,
}

/// How a lock has fared, for operators. The figures are read one by one, without the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockStats {
    /// Who holds it just now.
    pub holder: Option<ProcessId>,
    /// How often it was taken.
    pub epoch: u64,
    /// When it was last taken, in milliseconds of [`now_ms`].
    pub acquired_at_ms: u64,
    /// How often somebody found it taken and waited.
    pub waits: u64,
    /// How often a wait lasted [`LOCK_WAIT_REPORT_MS`] or more.
    pub long_waits: u64,
    /// How often a holder died and its transaction was decided by the next taker.
    pub recoveries: u64,
}

impl Lock {
    /// Makes zeroes a usable lock; does nothing to a lock that is one already.
    ///
    /// To be called before anybody else can reach the record: by the creator of the memory, or under the lock that guards
    /// the allocation of records. Killed half-way, the next caller does it again.
    pub fn prepare(&self) {
        if self.prepared.load(Ordering::Acquire) == 0 {
            self.mutex
                .initialise()
                .expect("the C library can initialise a robust mutex");
            self.prepared.store(1, Ordering::Release);
        }
    }

    /// Whether the lock was ever prepared, and so may have been taken.
    pub fn is_prepared(&self) -> bool {
        self.prepared.load(Ordering::Acquire) != 0
    }

    /// The figures for operators.
    pub fn stats(&self) -> LockStats {
        let pid = self.holder_pid.load(Ordering::Relaxed);
        let start_time = self.holder_start_time.load(Ordering::Relaxed);
        LockStats {
            holder: (pid != 0).then_some(ProcessId { pid, start_time }),
            epoch: self.epoch.load(Ordering::Relaxed),
            acquired_at_ms: self.acquired_at_ms.load(Ordering::Relaxed),
            waits: self.waits.load(Ordering::Relaxed),
            long_waits: self.long_waits.load(Ordering::Relaxed),
            recoveries: self.recoveries.load(Ordering::Relaxed),
        }
    }

    /// Who holds the lock: also a holder that is stopped between taking it and entering itself.
    pub fn holder(&self) -> Option<Holder> {
        let pid = self.mutex.holder()?;
        let has_entered_itself = self.holder_pid.load(Ordering::Acquire) == pid;
        Some(Holder {
            pid,
            start_time: has_entered_itself.then(|| self.holder_start_time.load(Ordering::Relaxed)),
            epoch: self.epoch.load(Ordering::Acquire),
        })
    }

    /// Takes the lock, waiting as long as it takes, and undoes what a dead holder left half done. Whenever another
    /// [`LOCK_WAIT_REPORT_MS`] were waited, `report` is called.
    ///
    /// # Panics
    ///
    /// If the lock was never prepared or is unusable: nothing in this program unlocks without repair.
    pub fn acquire(&'static self, me: ProcessId, mapping: &Mapping, report: impl Fn()) -> LockGuard {
        assert!(self.is_prepared(), "lock taken before it was prepared");
        let acquired = match self.mutex.try_lock() {
            Ok(Some(acquired)) => acquired,
            Ok(None) => self.wait(report),
            Err(error) => panic!("cannot take a lock: {error}"),
        };
        let (held, recovered) = match acquired {
            Acquired::Clean(held) => (held, false),
            Acquired::Abandoned(abandoned) => (abandoned.repair(|_| self.journal.roll_back(mapping)), true),
        };
        self.holder_start_time.store(me.start_time, Ordering::Relaxed);
        // Last, so that who sees the one sees the other.
        self.holder_pid.store(me.pid, Ordering::Release);
        self.acquired_at_ms.store(now_ms(), Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::Relaxed);
        if recovered {
            self.recoveries.fetch_add(1, Ordering::Relaxed);
        }
        LockGuard {
            held: Some(held),
            lock: self,
            recovered,
        }
    }

    /// In a copy of a mapping that is nobody else's: leaves the lock as the death of its holder, if it has one, would leave it.
    #[doc(hidden)]
    pub fn abandon_copy(&self) {
        if self.is_prepared() {
            self.mutex.abandon_copy();
        }
    }

    /// The undo journal beside it.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    fn wait(&self, report: impl Fn()) -> Acquired<'_> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        loop {
            match self.mutex.lock(Duration::from_millis(LOCK_WAIT_REPORT_MS)) {
                Ok(acquired) => return acquired,
                // Not logged here: a thousand may wait for the same lock.
                Err(LockError::TimedOut(_)) => {
                    self.long_waits.fetch_add(1, Ordering::Relaxed);
                    report();
                }
                Err(error) => panic!("cannot take a lock: {error}"),
            }
        }
    }
}

/// The lock is held; dropping this releases it.
pub struct LockGuard {
    held: Option<Held<'static>>,
    lock: &'static Lock,
    /// Whether a dead holder left something to decide.
    pub recovered: bool,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.lock.holder_pid.store(0, Ordering::Relaxed);
        drop(self.held.take());
    }
}
