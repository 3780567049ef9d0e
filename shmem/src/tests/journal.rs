//! Transactions against plain variables: all or nothing.

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use crate::journal::JournalFull;
use crate::limits::JOURNAL_BYTES;
use crate::tests::{Bench, CELLS, after_death, bench, panics};
use crate::transaction::{Attachment, Record, Tx};

/// The values of all cells.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Values {
    cells: [u64; CELLS],
    wide: [u8; 200],
    odd: [u8; 3],
}

impl Values {
    fn read(attachment: &mut Attachment, bench: &'static Bench) -> Self {
        let tx = attachment.begin(bench);
        let cells = bench.cells.each_ref().map(|cell| tx.get(cell));
        Self {
            cells,
            wide: tx.get(&bench.wide),
            odd: tx.get(&bench.odd),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Set {
    Cell(usize, u64),
    Wide(u8),
    Odd(u8),
}

impl Set {
    fn apply(self, tx: &mut Tx<'_, Bench>, values: &mut Values) {
        let bench = tx.record();
        match self {
            Self::Cell(index, value) => {
                tx.set(&bench.cells[index], value);
                values.cells[index] = value;
            }
            Self::Wide(byte) => {
                tx.set(&bench.wide, [byte; 200]);
                values.wide = [byte; 200];
            }
            Self::Odd(byte) => {
                tx.set(&bench.odd, [byte; 3]);
                values.odd = [byte; 3];
            }
        }
    }

    /// What it takes up in the journal.
    fn journal_bytes(self) -> usize {
        match self {
            Self::Cell(..) | Self::Odd(_) => 16,
            Self::Wide(_) => 208,
        }
    }
}

fn set() -> impl Strategy<Value = Set> {
    prop_oneof![
        4 => (0..CELLS, any::<u64>()).prop_map(|(index, value)| Set::Cell(index, value)),
        1 => any::<u8>().prop_map(Set::Wide),
        1 => any::<u8>().prop_map(Set::Odd),
    ]
}

#[derive(Debug, Clone, Copy)]
enum End {
    Commit,
    Drop,
    /// The process dies, and another recovers; perhaps that one is killed as well, in the middle.
    Die,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Commit), Just(End::Drop), Just(End::Die)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_transaction_happens_as_a_whole_or_not_at_all(
        transactions in proptest::collection::vec((proptest::collection::vec(set(), 0..30), end()), 1..8),
    ) {
        let (mut mapping, mut memory, mut attachment) = bench();
        let mut model = Values::read(&mut attachment, &memory.bench);
        for (sets, end) in transactions {
            let recoveries = memory.recoveries.load(Ordering::Relaxed);
            let mut values = model;
            let mut tx = attachment.begin(&memory.bench);
            sets.iter().for_each(|set| set.apply(&mut tx, &mut values));
            let fits = sets.iter().map(|set| set.journal_bytes()).sum::<usize>() <= JOURNAL_BYTES;
            match end {
                End::Commit if fits => {
                    prop_assert_eq!(tx.commit(), Ok(()));
                    model = values;
                }
                End::Commit => prop_assert_eq!(tx.commit(), Err(JournalFull)),
                End::Drop => drop(tx),
                End::Die => {
                    tx.imitate_death();
                    (mapping, memory, attachment) = after_death(mapping);
                    prop_assert_eq!(Values::read(&mut attachment, &memory.bench), model);
                    prop_assert_eq!(memory.recoveries.load(Ordering::Relaxed), recoveries + 1);
                }
            }
            prop_assert_eq!(Values::read(&mut attachment, &memory.bench), model);
            prop_assert_eq!(memory.bench.published.load(Ordering::Relaxed), model.cells[0]);
            prop_assert!(memory.bench.lock().journal().is_empty());
        }
    }

    #[test]
    fn a_roll_back_that_was_interrupted_is_done_again_from_the_start(
        sets in proptest::collection::vec((0..CELLS, any::<u64>()), 1..60),
        interruptions in proptest::collection::vec(0..60_usize, 0..4),
    ) {
        let (mapping, memory, mut attachment) = bench();
        let model = Values::read(&mut attachment, &memory.bench);
        let mut tx = attachment.begin(&memory.bench);
        let mut undo = Vec::new();
        for (index, value) in &sets {
            let cell = &memory.bench.cells[*index];
            undo.push((cell, tx.get(cell)));
            tx.set(cell, *value);
        }
        tx.imitate_death();
        for restored in interruptions {
            // So far had each recoverer come, from the newest entry on, when it was killed.
            undo.iter().rev().take(restored).for_each(|(cell, old)| cell.store(*old));
        }
        let (_, memory, mut attachment) = after_death(mapping);
        prop_assert_eq!(Values::read(&mut attachment, &memory.bench), model);
    }

    #[test]
    fn a_journal_that_is_cut_anywhere_leads_back_to_the_start(
        sets in proptest::collection::vec(set(), 1..12),
        is_appended in any::<bool>(),
    ) {
        // A process dies after each of its changes, or when the next one's old bytes are in the journal already.
        for cut in 0..=sets.len() {
            let (mapping, memory, mut attachment) = bench();
            let start = Values::read(&mut attachment, &memory.bench);
            let mut values = start;
            let mut tx = attachment.begin(&memory.bench);
            sets[..cut].iter().for_each(|set| set.apply(&mut tx, &mut values));
            if is_appended {
                let cell = &memory.bench.cells[0];
                let old = tx.get(cell).to_ne_bytes();
                let offset = mapping.offset_of(cell.address());
                memory.bench.lock().journal().append(offset, &old).expect("there is space");
            }
            tx.imitate_death();
            let (_, memory, mut attachment) = after_death(mapping);
            prop_assert_eq!(Values::read(&mut attachment, &memory.bench), start);
        }
    }
}

#[test]
fn an_overflowing_transaction_is_refused_and_has_changed_nothing() {
    let (_, memory, mut attachment) = bench();
    let before = Values::read(&mut attachment, &memory.bench);
    let mut tx = attachment.begin(&memory.bench);
    // 16 bytes for each cell: the journal's last one is still taken, the next is not.
    for number in 1..=JOURNAL_BYTES as u64 / 16 {
        tx.set(&memory.bench.cells[0], number);
    }
    assert_eq!(tx.get(&memory.bench.cells[0]), JOURNAL_BYTES as u64 / 16);
    tx.set(&memory.bench.cells[1], 1);
    assert_eq!(
        tx.get(&memory.bench.cells[1]),
        0,
        "a change that cannot be undone"
    );
    tx.set(&memory.bench.cells[2], 1);
    assert_eq!(tx.commit(), Err(JournalFull));
    assert_eq!(Values::read(&mut attachment, &memory.bench), before);
}

#[test]
fn a_cell_is_out_of_reach_without_the_lock_that_guards_it() {
    let (_, memory, mut attachment) = bench();
    assert!(
        panics(|| attachment.read_own(&memory.bench.cells[0])),
        "no lock is held"
    );
    let mut tx = attachment.begin(&memory.bench);
    assert!(
        panics(|| tx.get(&memory.other.cells[0])),
        "another lock guards it"
    );
    assert!(panics(|| tx.set(&memory.other.cells[0], 1)));
    tx.set(&memory.owned.consumed, 5);
    tx.commit().expect("one cell fits");
    attachment.release(&memory.owned);
    assert!(
        panics(|| attachment.read_own(&memory.owned.consumed)),
        "not animated any more"
    );
}

#[test]
fn a_panic_in_the_middle_undoes_the_changes_and_releases_the_lock() {
    let (_, memory, mut attachment) = bench();
    let panicked = panics(|| {
        let mut tx = attachment.begin(&memory.bench);
        tx.set(&memory.bench.cells[0], 1);
        panic!("on purpose");
    });
    assert!(panicked);
    let tx = attachment.begin(&memory.bench);
    assert_eq!(tx.get(&memory.bench.cells[0]), 0);
    drop(tx);
    assert_eq!(memory.recoveries.load(Ordering::Relaxed), 0, "nobody has died");
}

#[test]
fn what_is_animated_notes_the_lock_before_anything_is_changed() {
    let (mapping, memory, mut attachment) = bench();
    let noted = || memory.owned.noted_lock.load(Ordering::Relaxed);
    drop(attachment.begin(&memory.other));
    let other = noted();
    assert_eq!(
        other,
        mapping.offset_of(std::ptr::from_ref(&memory.other) as usize) as u64
    );
    drop(attachment.begin(&memory.bench));
    assert_ne!(noted(), other);
}

#[test]
fn figures_tell_how_a_lock_has_fared() {
    let (mapping, memory, mut attachment) = bench();
    let me = attachment.process();
    let tx = attachment.begin(&memory.bench);
    let figures = memory.bench.lock().stats();
    assert_eq!(
        (figures.holder, figures.epoch, figures.recoveries),
        (Some(me), 1, 0)
    );
    tx.imitate_death();
    let (_, memory, mut attachment) = after_death(mapping);
    drop(attachment.begin(&memory.bench));
    let figures = memory.bench.lock().stats();
    assert_eq!((figures.holder, figures.epoch, figures.recoveries), (None, 2, 1));
}
