//! What safe code cannot do with shared memory, because it is refused at run time. What does not compile is in
//! `src/misuse.rs`.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::shared_record;
use crate::sys::memory::{Guarded, LayoutPlan, Mapping, Place, ReadOnlyMapping, Shared};
use crate::sys::process::{ForkError, fork};
use crate::tests::{bench, panics};
use crate::transaction::{Attachment, Record};

#[test]
fn a_place_of_another_plan_is_refused() {
    let mut plan = LayoutPlan::default();
    let _words: Place<[AtomicU64; 4]> = plan.reserve(1);
    let mapping = Mapping::create("misuse", &plan).expect("a page");
    let others: Place<[AtomicU32; 8]> = LayoutPlan::default().reserve(1);
    assert!(panics(|| mapping.record(others)), "another type");
    let more: Place<[AtomicU64; 4]> = LayoutPlan::default().reserve(2);
    assert!(panics(|| mapping.region(more)), "more records");
    let same: Place<[AtomicU64; 4]> = LayoutPlan::default().reserve(1);
    mapping.record(same)[3].store(1, Ordering::Relaxed);
}

/// In modules of their own, because a layout is described by the names of its types.
mod one {
    use super::*;

    #[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
    #[repr(C)]
    pub(super) struct Seat {
        pub(super) player: u32,
        pub(super) room: u32,
    }

    shared_record! {
        pub(super) struct Cursor {
            head: Guarded<u64>,
            tail: Guarded<u64>,
        }
    }
}

mod other {
    use super::*;

    #[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
    #[repr(C)]
    pub(super) struct Seat {
        pub(super) room: u32,
        pub(super) player: u32,
    }

    shared_record! {
        pub(super) struct Cursor {
            tail: Guarded<u64>,
            head: Guarded<u64>,
        }
    }
}

fn plan_of<R: Shared>() -> LayoutPlan {
    let mut plan = LayoutPlan::default();
    let _place: Place<[R; 2]> = plan.reserve(1);
    plan
}

#[test]
fn a_program_with_two_swapped_fields_of_equal_size_cannot_open_the_memory() {
    let read = |seat: one::Seat, other: other::Seat| (seat.player, seat.room) == (other.player, other.room);
    assert!(read(
        one::Seat { player: 1, room: 2 },
        other::Seat { player: 1, room: 2 }
    ));
    let (one, other) = (plan_of::<one::Cursor>(), plan_of::<other::Cursor>());
    let of_plain = [plan_of::<Guarded<one::Seat>>(), plan_of::<Guarded<other::Seat>>()];
    assert_eq!(one.bytes(), other.bytes(), "only the hash tells them apart");
    for (one, other) in [(&one, &other), (&of_plain[0], &of_plain[1])] {
        let mapping = Mapping::create("misuse", one).expect("a page");
        let copy = || mapping.descriptor_for_another_program();
        assert!(Mapping::open(copy(), one).is_ok());
        assert!(Mapping::open(copy(), other).is_err());
        let read_only = ReadOnlyMapping::open(copy()).expect("it can be read");
        assert!(read_only.check(one).is_ok() && read_only.check(other).is_err());
    }
}

#[test]
fn a_number_of_a_state_is_part_of_the_layout() {
    let with = |number| {
        let mut plan = plan_of::<AtomicU64>();
        plan.include("claim held", number);
        plan.hash()
    };
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
}

#[test]
fn a_process_has_one_attachment() {
    let (mapping, memory, _) = bench();
    let attach = || Attachment::new(mapping, &memory.recoveries, &memory.hang_reports);
    let first = attach();
    assert!(panics(attach), "a second one could hold a second lock");
    drop(first);
    drop(attach());
}

#[test]
fn a_thread_has_one_transaction_even_with_two_attachments() {
    let (mapping, memory, mut one) = bench();
    let mut other = Attachment::imitate(mapping, &memory.recoveries, &memory.hang_reports);
    let tx = one.begin(&memory.bench);
    assert!(panics(|| drop(other.begin(&memory.other))));
    drop(tx);
    drop(other.begin(&memory.other));
    // A forgotten one is still open.
    std::mem::forget(one.begin(&memory.bench));
    assert!(panics(|| drop(one.begin(&memory.other))));
}

#[test]
fn a_process_does_not_fork_within_a_transaction() {
    let (_, memory, mut attachment) = bench();
    let tx = attachment.begin(&memory.bench);
    let forked = fork(|| {}, |_| 0);
    assert!(matches!(forked, Err(ForkError::InTransaction)));
    drop(tx);
}

#[test]
fn a_clean_owner_rolls_back_what_a_panic_has_left_in_the_journal() {
    let (mapping, memory, mut attachment) = bench();
    let cell = &memory.bench.cells[1];
    let journal = memory.bench.lock().journal();
    let offset = mapping.offset_of(cell.address());
    journal
        .append(offset, &7_u64.to_ne_bytes())
        .expect("there is space");
    let tx = attachment.begin(&memory.bench);
    assert_eq!(tx.get(cell), 7, "the journal was ignored");
    drop(tx);
    assert_eq!(memory.recoveries.load(Ordering::Relaxed), 1);
    assert!(journal.is_empty());
}

#[test]
fn a_damaged_journal_is_never_ignored() {
    let (mapping, memory, mut attachment) = bench();
    let journal = memory.bench.lock().journal();
    let panicked = panics(|| {
        let mut tx = attachment.begin(&memory.bench);
        tx.set(&memory.bench.cells[0], 1);
        journal.append(mapping.bytes(), &[0; 8]).expect("there is space");
    });
    assert!(panicked && !journal.is_empty());
    // The lock is free, but no process sees the changes that are half undone.
    for _ in 0..2 {
        assert!(panics(|| attachment.begin(&memory.bench).imitate_death()));
    }
}

#[test]
fn the_holder_of_a_lock_is_a_process_whichever_thread_holds_it() {
    let (_, memory, mut attachment) = bench();
    std::thread::scope(|scope| {
        let holds = scope.spawn(|| {
            let _tx = attachment.begin(&memory.bench);
            memory.bench.lock().holder()
        });
        let holder = holds.join().expect("no panic").expect("it is held");
        assert_eq!(holder.pid, std::process::id());
    });
}
