//! The abstractions over shared memory against simple models.

mod bytes;
mod event_log;
mod hang_reports;
mod journal;
mod misuse;
mod rings;
mod table;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::byte_ring::ByteRing;
use crate::event_log::EventLog;
use crate::hang_reports::HangReports;
use crate::lock::Lock;
use crate::shared_record;
use crate::sys::memory::{Guarded, LayoutPlan, Mapping, PrivateCopy};
use crate::transaction::{Attachment, Record, SingleWriter, View};

/// Words of the ring and of the log: so few that everything wraps around all the time.
const WORDS: usize = 16;
const CELLS: usize = 6;

shared_record! {
    /// One of everything, under one lock.
    struct Bench {
        lock: Lock,
        cells: [Guarded<u64>; CELLS],
        wide: Guarded<[u8; 200]>,
        odd: Guarded<[u8; 3]>,
        log: EventLog<WORDS>,
        /// The first cell, as others see it.
        published: AtomicU64,
    }
}

shared_record! {
    /// What one process animates.
    struct Owned {
        noted_lock: AtomicU64,
        consumed: Guarded<u64>,
        ring: ByteRing<WORDS>,
    }
}

shared_record! {
    struct Memory {
        recoveries: AtomicU64,
        hang_reports: HangReports,
        bench: Bench,
        other: Bench,
        owned: Owned,
    }
}

impl Record for Bench {
    fn lock(&self) -> &Lock {
        &self.lock
    }

    fn publish(&'static self, view: &View<'_>) {
        self.published.store(view.get(&self.cells[0]), Ordering::Release);
        self.log.publish(view);
    }
}

impl SingleWriter for Owned {
    fn noted_lock(&self) -> &AtomicU64 {
        &self.noted_lock
    }
}

fn zeroed() -> (&'static Mapping, &'static Memory) {
    let mut plan = LayoutPlan::default();
    let place = plan.reserve(1);
    let mapping = Mapping::create("shm-tests", &plan).expect("memory for a test");
    (mapping, mapping.record(place))
}

/// A mapping of its own, and an attachment that owns what can be owned.
fn bench() -> (&'static Mapping, &'static Memory, Attachment) {
    let (mapping, memory) = zeroed();
    memory.bench.lock.prepare();
    memory.other.lock.prepare();
    let mut attachment = Attachment::imitate(mapping, &memory.recoveries, &memory.hang_reports);
    attachment.acquire(&memory.owned);
    (mapping, memory, attachment)
}

/// The memory as the death of a lock's holder would leave it.
fn after_death(original: &Mapping) -> (&'static Mapping, &'static Memory, Attachment) {
    let (mapping, memory) = zeroed();
    // SAFETY: of equal plans, and only this test uses them.
    #[allow(unsafe_code, reason = "only tests copy mappings")]
    unsafe {
        mapping.copy_from(original, 0..original.bytes());
    };
    // SAFETY: the memory is a copy, in which no lock was acquired.
    #[allow(unsafe_code, reason = "as above")]
    let copy = unsafe { PrivateCopy::new() };
    memory.bench.lock.abandon_copy(&copy);
    memory.other.lock.abandon_copy(&copy);
    (
        mapping,
        memory,
        Attachment::imitate(mapping, &memory.recoveries, &memory.hang_reports),
    )
}

/// Whether `run` panics. (What it prints about that is captured with the test's output.)
fn panics<R>(run: impl FnOnce() -> R) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
}
