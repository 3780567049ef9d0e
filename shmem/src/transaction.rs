//! The only way to change shared state: a transaction under exactly one lock, all or nothing.
//!
//! A process has one [`Attachment`]: a second one is refused, and a forked process needs its own. Beginning a
//! transaction borrows it mutably, so holding two locks does not compile:
//!
//! ```compile_fail,E0499
//! # use shmem::transaction::{Attachment, Record};
//! fn two_locks<R: Record>(attachment: &mut Attachment, one: &'static R, other: &'static R) {
//!     let first = attachment.begin(one);
//!     let second = attachment.begin(other); // error[E0499]: cannot borrow `*attachment` as mutable more than once at a time
//!     drop((first, second));
//! }
//! ```
//!
//! A transaction may touch the record whose lock it holds, and the records that its process *owns*. An owned record has
//! a [single writer](SingleWriter), this process; an example is the connection that a handler serves. Before a
//! transaction writes, it notes its lock in the owned records. After a crash, the process that takes them over acquires
//! and releases the noted lock before it reads anything else. That rolls the transaction back, or finds it committed.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};
use std::time::Duration;

use crate::hang_reports::{HangReports, Subject};
use crate::journal::JournalFull;
use crate::limits::LOCK_WAIT_REPORT_MS;
use crate::lock::{Lock, LockGuard};
use crate::sys::memory::{Guarded, Mapping, Plain, Shared, SharedBytes};
use crate::sys::process::{ProcessId, generation};

/// A record with a lock of its own, which guards all its cells. Cells of a record that also is a [`SingleWriter`] may
/// be changed under another lock, by the owner.
pub trait Record: Shared + Sized {
    /// The lock. It should be the record's first field.
    fn lock(&self) -> &Lock;

    /// The addresses that the lock guards: the record, unless it is the head of a larger region.
    fn guarded_addresses(&self) -> Range<usize> {
        range_of(self)
    }

    /// Stores in atomics what other processes read without the lock. Called after every commit and every recovery,
    /// before the lock is released.
    fn publish(&'static self, view: &View<'_>);
}

/// A record that one process at a time may change, its owner, under whatever lock the owner holds.
pub trait SingleWriter: Shared + Sized {
    /// Offset in the mapping of the record under whose lock the owner last began a transaction, in bytes; 0 for none.
    fn noted_lock(&self) -> &AtomicU64;
}

/// The [generation](crate::sys::process::generation) + 1 of the process that has an attachment: a forked process does
/// not have its parent's.
static ATTACHED: AtomicU32 = AtomicU32::new(0);

/// One process's access to shared state: the attached mapping and the records that the process owns.
pub struct Attachment {
    /// The generation of the process.
    generation: u32,
    /// It is the one attachment of its process, not one of a test's.
    is_only: bool,
    mapping: &'static Mapping,
    me: ProcessId,
    recoveries_total: &'static AtomicU64,
    hang_reports: &'static HangReports,
    owned: Vec<(Range<usize>, &'static AtomicU64)>,
}

impl Attachment {
    /// Attaches the calling process. `recoveries_total` counts roll-backs of what dead processes left; waits for locks
    /// are reported to `hang_reports`.
    ///
    /// # Panics
    ///
    /// If the process has another attachment, or its own start time cannot be read from `/proc`.
    pub fn new(
        mapping: &'static Mapping,
        recoveries_total: &'static AtomicU64,
        hang_reports: &'static HangReports,
    ) -> Self {
        let generation = generation();
        let before = ATTACHED.swap(generation + 1, Ordering::Relaxed);
        assert_ne!(before, generation + 1, "this process is attached already");
        let mut attachment = Self::beside_others(mapping, recoveries_total, hang_reports);
        attachment.is_only = true;
        attachment
    }

    /// For tests that imitate several processes in one: an attachment as if of another process. Each thread has still
    /// at most one transaction open.
    #[doc(hidden)]
    #[cfg(any(test, feature = "testing"))]
    pub fn imitate(
        mapping: &'static Mapping,
        recoveries_total: &'static AtomicU64,
        hang_reports: &'static HangReports,
    ) -> Self {
        Self::beside_others(mapping, recoveries_total, hang_reports)
    }

    fn beside_others(
        mapping: &'static Mapping,
        recoveries_total: &'static AtomicU64,
        hang_reports: &'static HangReports,
    ) -> Self {
        Self {
            generation: generation(),
            is_only: false,
            mapping,
            me: ProcessId::current(),
            recoveries_total,
            hang_reports,
            owned: Vec::with_capacity(2),
        }
    }

    /// The attached process.
    #[inline]
    pub fn process(&self) -> ProcessId {
        self.me
    }

    /// Makes this process the owner of `record`. The caller must know that no other process owns it.
    pub fn acquire<A: SingleWriter>(&mut self, record: &'static A) {
        let range = range_of(record);
        if !self.owned.iter().any(|(other, _)| *other == range) {
            self.owned.push((range, record.noted_lock()));
        }
    }

    /// Gives up the ownership of `record`.
    pub fn release<A: SingleWriter>(&mut self, record: &'static A) {
        let range = range_of(record);
        self.owned.retain(|(other, _)| *other != range);
    }

    /// Gives up the ownership of all records, for example before a process turns to another session.
    pub fn release_all(&mut self) {
        self.owned.clear();
    }

    /// The value of a cell in a record that this process owns. No lock is needed, because no other process changes it.
    ///
    /// # Panics
    ///
    /// If the cell lies elsewhere.
    #[inline]
    pub fn read_own<T: Plain>(&self, cell: &Guarded<T>) -> T {
        assert!(
            self.owns(cell.address(), size_of::<T>()),
            "read of a cell that this process does not own"
        );
        cell.load()
    }

    /// Acquires the record's lock and opens a transaction. Waits for the lock without limit, and reports every
    /// [`LOCK_WAIT_REPORT_MS`] of waiting. If the last holder died, its changes are
    /// rolled back first.
    ///
    /// # Panics
    ///
    /// If the record's lock was never prepared, or the record lies outside the mapping; if this process was forked from
    /// the one that made the attachment, or this thread has a transaction open through another one.
    pub fn begin<R: Record>(&mut self, record: &'static R) -> Tx<'_, R> {
        let record_range = record.guarded_addresses();
        let offset = self.note_lock(&record_range, record.lock());
        let hang_reports = self.hang_reports;
        let guard = record.lock().acquire(self.me, self.mapping, || {
            hang_reports.report(Subject::Lock { offset });
        });
        self.open(record, record_range, guard)
    }

    /// Like [`begin`](Self::begin), but waits for at most `patience`; `None` if other processes held the lock all the
    /// time. Reports that at the end, if it is as long as `begin` waits before it reports.
    ///
    /// # Panics
    ///
    /// Like [`begin`](Self::begin).
    pub fn try_begin<R: Record>(&mut self, record: &'static R, patience: Duration) -> Option<Tx<'_, R>> {
        let record_range = record.guarded_addresses();
        let offset = self.note_lock(&record_range, record.lock());
        let Some(guard) = record.lock().try_acquire(self.me, self.mapping, patience) else {
            if patience >= Duration::from_millis(LOCK_WAIT_REPORT_MS) {
                self.hang_reports.report(Subject::Lock { offset });
            }
            // Nothing is open: a successor must not wait for this lock.
            for (_, noted) in &self.owned {
                noted.store(0, Ordering::Relaxed);
            }
            return None;
        };
        Some(self.open(record, record_range, guard))
    }

    /// Reports that the record's lock is held, for a process that needs it and does not wait: the holder may hang.
    /// Repeat it as long as the lock is held.
    pub fn report_held<R: Record>(&self, record: &R) {
        let offset = self.mapping.offset_of(record.guarded_addresses().start) as u64;
        self.hang_reports.report(Subject::Lock { offset });
    }

    /// Notes the lock of the record at these addresses in the owned records. Returns its offset.
    fn note_lock(&self, record_range: &Range<usize>, lock: &Lock) -> u64 {
        assert_eq!(
            self.generation,
            generation(),
            "the attachment of a process's parent"
        );
        let offset = self.mapping.offset_of(record_range.start) as u64;
        // A journal of another mapping must not be rolled back into this one.
        self.mapping.offset_of(std::ptr::from_ref(lock).addr());
        for (_, noted) in &self.owned {
            noted.store(offset, Ordering::Relaxed);
        }
        // The note must be in memory before the transaction's first write.
        compiler_fence(Ordering::SeqCst);
        offset
    }

    fn open<R: Record>(
        &mut self,
        record: &'static R,
        record_range: Range<usize>,
        guard: LockGuard,
    ) -> Tx<'_, R> {
        if guard.recovered {
            self.recoveries_total.fetch_add(1, Ordering::Relaxed);
        }
        let recovered = guard.recovered;
        let tx = Tx {
            record,
            _guard: guard,
            view: View {
                attachment: self,
                record_range,
            },
            full: false,
        };
        if recovered {
            record.publish(&tx.view);
        }
        tx
    }

    /// Rolls back what a dead process left uncommitted under this record's lock, by acquiring and releasing it.
    pub fn recover<R: Record>(&mut self, record: &'static R) {
        drop(self.begin(record));
    }

    fn owns(&self, address: usize, bytes: usize) -> bool {
        self.owned
            .iter()
            .any(|(range, _)| contains(range, address, bytes))
    }
}

impl Drop for Attachment {
    /// The process may attach again.
    fn drop(&mut self) {
        if self.is_only && self.generation == generation() {
            ATTACHED.store(0, Ordering::Relaxed);
        }
    }
}

/// Read access to what the held lock guards and to the owned records.
pub struct View<'h> {
    attachment: &'h mut Attachment,
    record_range: Range<usize>,
}

impl View<'_> {
    /// The cell's value.
    ///
    /// # Panics
    ///
    /// If neither the held lock guards the cell nor this process owns it.
    #[inline]
    pub fn get<T: Plain>(&self, cell: &Guarded<T>) -> T {
        self.check(cell.address(), size_of::<T>());
        cell.load()
    }

    fn check(&self, address: usize, bytes: usize) {
        assert!(
            contains(&self.record_range, address, bytes) || self.attachment.owns(address, bytes),
            "access to a cell that the held lock does not guard"
        );
    }
}

/// An open transaction under the lock of a record `R`. Dropping it without [`Tx::commit`] rolls it back.
pub struct Tx<'h, R: Record> {
    view: View<'h>,
    record: &'static R,
    /// Dropped last, when the journal is empty.
    _guard: LockGuard,
    full: bool,
}

impl<'h, R: Record> Tx<'h, R> {
    /// The record whose lock is held.
    #[inline]
    pub fn record(&self) -> &'static R {
        self.record
    }

    /// The cell's value: see [`View::get`].
    ///
    /// # Panics
    ///
    /// Like [`View::get`].
    #[inline]
    pub fn get<T: Plain>(&self, cell: &Guarded<T>) -> T {
        self.view.get(cell)
    }

    /// Changes the cell, after its old bytes were appended to the journal.
    ///
    /// If the journal is full, the cell is not changed, and [`commit`](Self::commit) will fail.
    ///
    /// # Panics
    ///
    /// If neither the held lock guards the cell nor this process owns it.
    #[inline]
    pub fn set<T: Plain>(&mut self, cell: &Guarded<T>, value: T) {
        self.view.check(cell.address(), size_of::<T>());
        let offset = self.view.attachment.mapping.offset_of(cell.address());
        let old = cell.load();
        if self.full
            || self
                .record
                .lock()
                .journal()
                .append(offset, old.as_bytes())
                .is_err()
        {
            self.full = true;
            return;
        }
        cell.store(value);
        // The cell must be stored before the next journal entry is.
        compiler_fence(Ordering::SeqCst);
    }

    /// Writes bytes that no committed value refers to yet, so without the journal.
    ///
    /// # Panics
    ///
    /// If neither the held lock guards `target` nor this process owns it, or the bytes do not fit.
    pub fn write<const WORDS: usize>(&mut self, target: &SharedBytes<WORDS>, at: usize, bytes: &[u8]) {
        self.view.check(
            std::ptr::from_ref(target) as usize,
            size_of::<SharedBytes<WORDS>>(),
        );
        target.copy_in(at, bytes);
    }

    /// Makes this process the owner of `record`, which the open transaction gives to it.
    ///
    /// If the transaction is not committed, the caller must [release](Attachment::release) the record.
    pub fn acquire<A: SingleWriter>(&mut self, record: &'static A) {
        record.noted_lock().store(self.lock_offset(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.view.attachment.acquire(record);
    }

    fn lock_offset(&self) -> u64 {
        self.view
            .attachment
            .mapping
            .offset_of(self.view.record_range.start) as u64
    }

    /// Makes the changes final.
    ///
    /// # Errors
    ///
    /// [`JournalFull`] if the transaction changed more than its journal can hold. It is then rolled back.
    pub fn commit(self) -> Result<(), JournalFull> {
        if self.full {
            return Err(JournalFull);
        }
        self.record.lock().journal().commit();
        self.record.publish(&self.view);
        Ok(())
    }
}

#[cfg(any(test, feature = "testing"))]
impl<R: Record> Tx<'_, R> {
    /// For tests: leaves what a process that dies leaves. The lock stays taken.
    #[doc(hidden)]
    pub fn imitate_death(self) {
        // Nothing is rolled back: this type's own destructor must not run.
        let tx = std::mem::ManuallyDrop::new(self);
        tx._guard.imitate_death();
    }
}

impl<R: Record> Drop for Tx<'_, R> {
    /// Rolls back what was not committed. The lock is released afterwards. After a commit there is nothing to undo.
    fn drop(&mut self) {
        self.record
            .lock()
            .journal()
            .roll_back(self.view.attachment.mapping);
    }
}

fn range_of<T>(record: &T) -> Range<usize> {
    let start = std::ptr::from_ref(record) as usize;
    start..start + size_of::<T>()
}

fn contains(range: &Range<usize>, address: usize, bytes: usize) -> bool {
    range.start <= address && address + bytes <= range.end
}
