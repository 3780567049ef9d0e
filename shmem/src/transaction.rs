//! The only way to change shared state: a transaction, under exactly one lock, that happens as a whole or not at all.
//!
//! A process has one [`Attachment`]. Beginning a transaction borrows it mutably, so a second lock beside the first does not compile:
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
//! A transaction may touch the record whose lock it holds, and the records its process *animates*: those that no living process
//! but this one changes (a handler's connection and player). Before the first write the lock is noted in the animated records; a
//! successor takes and releases the noted lock before it reads anything else, and so finds them as they were before or after.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use crate::hang_reports::{HangReports, Subject};
use crate::journal::JournalFull;
use crate::lock::{Lock, LockGuard};
use crate::sys::memory::{Guarded, Mapping, Plain, Shared, SharedBytes};
use crate::sys::process::ProcessId;

/// A record with a lock of its own, which guards all its cells (except where they belong to who animates them).
pub trait Record: Shared + Sized {
    /// The lock, which should be the record's first field.
    fn lock(&self) -> &Lock;

    /// The addresses that the lock guards: the record, unless it is the head of a larger region.
    fn guarded_addresses(&self) -> Range<usize> {
        range_of(self)
    }

    /// Stores in atomics what others read without the lock. Called after every commit, and after every recovery, before the
    /// lock is released.
    fn publish(&'static self, view: &View<'_>);
}

/// A record that is changed by one process at a time, under whatever lock that process happens to hold.
pub trait SingleWriter: Shared + Sized {
    /// Offset of the record whose lock was noted before the animator's last transaction; 0 for none.
    fn noted_lock(&self) -> &AtomicU64;
}

/// One process's access to shared state.
pub struct Attachment {
    mapping: &'static Mapping,
    me: ProcessId,
    recoveries_total: &'static AtomicU64,
    hang_reports: &'static HangReports,
    owned: Vec<(Range<usize>, &'static AtomicU64)>,
}

impl Attachment {
    /// The hand of the calling process. A process has only one: see [`Memory::attach`](crate::state::layout::Memory::attach).
    pub fn new(
        mapping: &'static Mapping,
        recoveries_total: &'static AtomicU64,
        hang_reports: &'static HangReports,
    ) -> Self {
        Self {
            mapping,
            me: ProcessId::current(),
            recoveries_total,
            hang_reports,
            owned: Vec::with_capacity(2),
        }
    }

    /// The process this is the hand of.
    pub fn process(&self) -> ProcessId {
        self.me
    }

    /// From now on this process, and no other, changes `record`.
    pub fn acquire<A: SingleWriter>(&mut self, record: &'static A) {
        let range = range_of(record);
        if !self.owned.iter().any(|(other, _)| *other == range) {
            self.owned.push((range, record.noted_lock()));
        }
    }

    /// This process does not animate `record` any more.
    pub fn release<A: SingleWriter>(&mut self, record: &'static A) {
        let range = range_of(record);
        self.owned.retain(|(other, _)| *other != range);
    }

    /// This process owns nothing any more.
    pub fn release_all(&mut self) {
        self.owned.clear();
    }

    /// The value of a cell in a record that this process animates. No lock is needed: nobody else changes it.
    ///
    /// # Panics
    ///
    /// If the cell lies elsewhere.
    pub fn read_own<T: Plain>(&self, cell: &Guarded<T>) -> T {
        assert!(
            self.owns(cell.address(), size_of::<T>()),
            "a cell read as one's own that is not"
        );
        cell.load()
    }

    /// Takes the record's lock, waiting for it, and opens a transaction. If its last holder died, its changes are undone first.
    pub fn begin<R: Record>(&mut self, record: &'static R) -> Tx<'_, R> {
        let record_range = record.guarded_addresses();
        let offset = self.mapping.offset_of(record_range.start) as u64;
        for (_, noted) in &self.owned {
            noted.store(offset, Ordering::Relaxed);
        }
        // The note must be in memory before the first write is.
        compiler_fence(Ordering::SeqCst);
        let hang_reports = self.hang_reports;
        let guard = record.lock().acquire(self.me, self.mapping, || {
            hang_reports.report(Subject::Lock { offset });
        });
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

    /// Decides what a dead process left under this record's lock, by taking and releasing it.
    pub fn recover<R: Record>(&mut self, record: &'static R) {
        drop(self.begin(record));
    }

    fn owns(&self, address: usize, bytes: usize) -> bool {
        self.owned
            .iter()
            .any(|(range, _)| contains(range, address, bytes))
    }
}

/// What a transaction may read.
pub struct View<'h> {
    attachment: &'h mut Attachment,
    record_range: Range<usize>,
}

impl View<'_> {
    /// The cell's value.
    ///
    /// # Panics
    ///
    /// If neither the held lock guards the cell nor this process animates it.
    pub fn get<T: Plain>(&self, cell: &Guarded<T>) -> T {
        self.check(cell.address(), size_of::<T>());
        cell.load()
    }

    fn check(&self, address: usize, bytes: usize) {
        assert!(
            contains(&self.record_range, address, bytes) || self.attachment.owns(address, bytes),
            "a cell that the held lock does not guard"
        );
    }
}

/// An open transaction on the record `R`. Dropped without [`Tx::commit`], it never happened.
pub struct Tx<'h, R: Record> {
    view: View<'h>,
    record: &'static R,
    _guard: LockGuard,
    full: bool,
}

impl<'h, R: Record> Tx<'h, R> {
    /// The record whose lock is held.
    pub fn record(&self) -> &'static R {
        self.record
    }

    /// The cell's value. See [`View::get`].
    pub fn get<T: Plain>(&self, cell: &Guarded<T>) -> T {
        self.view.get(cell)
    }

    /// Changes the cell, after its old bytes have gone into the journal.
    ///
    /// If the journal is full, nothing is changed, and the commit will say so.
    ///
    /// # Panics
    ///
    /// If neither the held lock guards the cell nor this process animates it.
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
        // The next entry must not be written before this cell is.
        compiler_fence(Ordering::SeqCst);
    }

    /// Writes bytes that nothing committed refers to yet: no journal needed.
    ///
    /// # Panics
    ///
    /// If the bytes are neither guarded by the held lock nor animated by this process, or do not fit.
    pub fn write<const WORDS: usize>(&mut self, target: &SharedBytes<WORDS>, at: usize, bytes: &[u8]) {
        self.view.check(
            std::ptr::from_ref(target) as usize,
            size_of::<SharedBytes<WORDS>>(),
        );
        target.copy_in(at, bytes);
    }

    /// From now on this process animates `record` as well, which the open transaction gives to it.
    ///
    /// If the transaction comes to nothing, the caller must [`Attachment::release`] of it.
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
    /// [`JournalFull`] if the transaction changed more than its journal holds; then it never happened.
    pub fn commit(self) -> Result<(), JournalFull> {
        if self.full {
            return Err(JournalFull);
        }
        self.record.lock().journal().commit();
        self.record.publish(&self.view);
        Ok(())
    }
}

impl<R: Record> Drop for Tx<'_, R> {
    /// Undoes what was not committed; then the lock is released. After a commit there is nothing to undo.
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
