//! A lock in shared memory: a robust mutex, its undo journal, its holder and its statistics.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::journal::Journal;
use crate::limits::LOCK_WAIT_REPORT_MS;
use crate::shared_record;
use crate::sys::clock::last_tick_ms;
use crate::sys::memory::Mapping;
#[cfg(any(test, feature = "testing"))]
use crate::sys::memory::PrivateCopy;
use crate::sys::mutex::{Acquired, Held, LockError, RobustMutex};
use crate::sys::process::{ProcessId, process_of_thread};

shared_record! {
    /// The lock at the head of a record. In zeroed memory it is not yet prepared.
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

/// The process that holds a lock, as other processes see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its pid, from the moment that the mutex counts as its own: the pid of the process, whichever thread holds it.
    pub pid: u32,
    /// Its start time as in [`ProcessId`]; `None` until the holder has written it.
    pub start_time: Option<u64>,
    /// How often the lock was acquired before: tells one hold from the next.
    pub epoch: u64,
}

/// Statistics of a lock, for operators. They are read one by one, without the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockStats {
    /// The process that holds it now.
    pub holder: Option<ProcessId>,
    /// How often it was acquired.
    pub epoch: u64,
    /// When it was last acquired, in milliseconds of [`last_tick_ms`].
    pub acquired_at_ms: u64,
    /// How often a process found it held and waited.
    pub waits: u64,
    /// How often a wait lasted another [`LOCK_WAIT_REPORT_MS`].
    pub long_waits: u64,
    /// How often a holder died, and the next one rolled its transaction back.
    pub recoveries: u64,
}

impl Lock {
    /// Makes zeroed memory a usable lock. Does nothing if the lock is prepared already, or is being prepared by another
    /// process. If the caller is killed half-way, the next caller completes it.
    ///
    /// # Panics
    ///
    /// If the C library refuses.
    pub fn prepare(&self) {
        if self.prepared.load(Ordering::Acquire) == 0 {
            self.mutex
                .initialise()
                .expect("the C library can initialise a robust mutex");
            self.prepared.store(1, Ordering::Release);
        }
    }

    /// True if the lock was ever prepared, and so may have been acquired.
    #[inline]
    pub fn is_prepared(&self) -> bool {
        self.prepared.load(Ordering::Acquire) != 0
    }

    /// The statistics.
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

    /// The process that holds the lock, even if it was stopped before it could write its start time.
    pub fn holder(&self) -> Option<Holder> {
        let thread = self.mutex.holding_thread()?;
        // Unknown if it has ended meanwhile, or if `/proc` cannot be read: a process that waits asks again.
        let pid = process_of_thread(thread).ok()??;
        let has_written_itself = self.holder_pid.load(Ordering::Acquire) == pid;
        Some(Holder {
            pid,
            start_time: has_written_itself.then(|| self.holder_start_time.load(Ordering::Relaxed)),
            epoch: self.epoch.load(Ordering::Acquire),
        })
    }

    /// Acquires the lock and rolls back what a dead holder left half done. Waits without limit, and calls `report`
    /// each time another [`LOCK_WAIT_REPORT_MS`] have passed.
    ///
    /// # Panics
    ///
    /// If the lock was never prepared, or was unlocked without repair, which no code in this program does.
    pub(crate) fn acquire(&'static self, me: ProcessId, mapping: &Mapping, report: impl Fn()) -> LockGuard {
        let acquired = self.try_lock().unwrap_or_else(|| self.wait(report));
        self.enter_holder(acquired, me, mapping)
    }

    /// Like [`acquire`](Self::acquire), but waits for at most `patience` and reports nothing; `None` if other processes
    /// held the lock all the time.
    ///
    /// # Panics
    ///
    /// Like [`acquire`](Self::acquire).
    pub(crate) fn try_acquire(
        &'static self,
        me: ProcessId,
        mapping: &Mapping,
        patience: Duration,
    ) -> Option<LockGuard> {
        let acquired = match self.try_lock() {
            Some(acquired) => acquired,
            None if patience.is_zero() => return None,
            None => match self.mutex.lock(patience) {
                Ok(acquired) => acquired,
                Err(LockError::TimedOut(_)) => return None,
                Err(error) => panic!("cannot acquire a lock: {error}"),
            },
        };
        Some(self.enter_holder(acquired, me, mapping))
    }

    fn try_lock(&self) -> Option<Acquired<'_>> {
        assert!(self.is_prepared(), "lock acquired before it was prepared");
        match self.mutex.try_lock() {
            Ok(acquired) => acquired,
            Err(error) => panic!("cannot acquire a lock: {error}"),
        }
    }

    /// The mutex is held: rolls back what a dead holder left, and enters this process as the holder.
    fn enter_holder(
        &'static self,
        acquired: Acquired<'static>,
        me: ProcessId,
        mapping: &Mapping,
    ) -> LockGuard {
        let (held, recovered) = match acquired {
            Acquired::Clean(held) if self.journal.is_empty() => (held, false),
            // The last holder panicked during a roll-back, and its lock was released all the same.
            Acquired::Clean(held) => {
                self.journal.roll_back(mapping);
                (held, true)
            }
            Acquired::Abandoned(abandoned) => (abandoned.repair(|_| self.journal.roll_back(mapping)), true),
        };
        self.holder_start_time.store(me.start_time, Ordering::Relaxed);
        // After the start time: a reader that sees this pid sees its start time.
        self.holder_pid.store(me.pid, Ordering::Release);
        self.acquired_at_ms.store(last_tick_ms(), Ordering::Relaxed);
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

    /// In a private copy of a mapping: leaves the lock as the death of its holder, if there is one, would.
    #[doc(hidden)]
    #[cfg(any(test, feature = "testing"))]
    pub fn abandon_copy(&self, copy: &PrivateCopy) {
        if self.is_prepared() {
            self.mutex.abandon_copy(copy);
        }
    }

    /// The undo journal of the transaction under this lock.
    #[inline]
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    fn wait(&self, report: impl Fn()) -> Acquired<'_> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        loop {
            match self.mutex.lock(Duration::from_millis(LOCK_WAIT_REPORT_MS)) {
                Ok(acquired) => return acquired,
                // Not logged: a thousand processes may wait for the same lock.
                Err(LockError::TimedOut(_)) => {
                    self.long_waits.fetch_add(1, Ordering::Relaxed);
                    report();
                }
                Err(error) => panic!("cannot acquire a lock: {error}"),
            }
        }
    }
}

/// Holds the lock; dropping it releases the lock.
pub(crate) struct LockGuard {
    held: Option<Held<'static>>,
    lock: &'static Lock,
    /// True if the previous holder died, and its transaction was rolled back.
    pub(crate) recovered: bool,
}

#[cfg(any(test, feature = "testing"))]
impl LockGuard {
    /// For tests: leaves what a holder that dies leaves.
    pub(crate) fn imitate_death(&self) {
        if let Some(held) = &self.held {
            held.imitate_death();
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.lock.holder_pid.store(0, Ordering::Relaxed);
        drop(self.held.take());
    }
}
