//! The undo journal of one lock: the old bytes of everything that the current transaction has changed.
//!
//! An entry is complete before it counts: its words are written first, then the journal's length is stored. Commit is
//! one store: the length becomes zero. A roll-back restores the old bytes from the newest entry to the oldest. It may
//! be interrupted and started again any number of times, because it leaves the journal alone until all bytes are
//! restored.
//!
//! Only SIGKILL has to be survived, and every store that the process executed before it is in memory. So only the order
//! in which the compiler emits the stores matters. Hence the length is an atomic between compiler fences.

use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use crate::limits::JOURNAL_BYTES;
use crate::mutants::Mutant;
use crate::shared_record;
use crate::sys::memory::Mapping;

const WORDS: usize = JOURNAL_BYTES / 8;
/// Longest cell that can be journaled, in bytes.
pub(crate) const CELL_BYTES_MAX: usize = 256;

shared_record! {
    /// Entries: a cell's old bytes, padded to words, then a word `offset << 16 | length in bytes`.
    pub(crate) struct Journal {
        used_words: AtomicU64,
        words: [AtomicU64; WORDS],
    }
}

/// The transaction changed more than the journal can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the transaction overflowed its journal of {JOURNAL_BYTES} bytes")]
pub struct JournalFull;

impl Journal {
    /// True if there is nothing to undo.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.used_words.load(Ordering::Relaxed) == 0
    }

    /// Appends the old bytes of the cell at `offset` of the mapping. Only then may the caller change the cell.
    ///
    /// # Errors
    ///
    /// [`JournalFull`]; then nothing was appended and the cell must not be changed.
    ///
    /// # Panics
    ///
    /// If the cell is longer than [`CELL_BYTES_MAX`].
    pub(crate) fn append(&self, offset: usize, old: &[u8]) -> Result<(), JournalFull> {
        if Mutant::JournalSkipped.is_active() {
            return Ok(());
        }
        assert!(old.len() <= CELL_BYTES_MAX, "cell too long for the journal");
        let used = self.used();
        let (whole, last) = old.as_chunks::<8>();
        let entry_words = whole.len() + usize::from(!last.is_empty()) + 1;
        let entry = self.words.get(used..used + entry_words).ok_or(JournalFull)?;
        for (word, chunk) in entry.iter().zip(whole) {
            word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
        }
        if !last.is_empty() {
            let mut padded = [0; 8];
            padded[..last.len()].copy_from_slice(last);
            entry[whole.len()].store(u64::from_ne_bytes(padded), Ordering::Relaxed);
        }
        entry[entry_words - 1].store((offset as u64) << 16 | old.len() as u64, Ordering::Relaxed);
        self.set_used(used + entry_words);
        Ok(())
    }

    /// Makes the changes final, by one store.
    pub(crate) fn commit(&self) {
        if Mutant::CommitInTwoStores.is_active() {
            self.set_used(self.first_entry_end());
        }
        self.set_used(0);
    }

    /// Undoes the changes. Does nothing to an empty journal.
    ///
    /// # Panics
    ///
    /// If the journal is damaged, which only a stray write to the mapping can do. In
    /// [`Abandoned::repair`](crate::sys::mutex::Abandoned::repair) a panic aborts the process. In
    /// [`Tx::drop`](crate::transaction::Tx) it unwinds, and the lock is released with the changes half undone: the
    /// journal is not empty then, and the next holder rolls it back before anything else.
    pub(crate) fn roll_back(&self, mapping: &Mapping) {
        let mut end = self.used();
        while end > 0 {
            let header = self.words[end - 1].load(Ordering::Relaxed);
            let (offset, length) = ((header >> 16) as usize, (header & 0xFFFF) as usize);
            assert!(
                length <= CELL_BYTES_MAX,
                "journal damaged: entry of {length} bytes"
            );
            let start = (end - 1)
                .checked_sub(length.div_ceil(8))
                .expect("journal damaged: entry begins before it");
            let mut old = [0; CELL_BYTES_MAX];
            for (word, chunk) in self.words[start..end - 1].iter().zip(old.as_chunks_mut::<8>().0) {
                *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
            }
            mapping.restore(offset, &old[..length]);
            end = start;
        }
        self.set_used(0);
    }

    fn used(&self) -> usize {
        usize::try_from(self.used_words.load(Ordering::Relaxed))
            .unwrap_or(usize::MAX)
            .min(WORDS)
    }

    fn set_used(&self, words: usize) {
        compiler_fence(Ordering::SeqCst);
        self.used_words.store(words as u64, Ordering::Release);
        compiler_fence(Ordering::SeqCst);
    }

    /// Word after the oldest entry, found by walking back from the newest.
    fn first_entry_end(&self) -> usize {
        let mut end = self.used();
        while end > 0 {
            let length = (self.words[end - 1].load(Ordering::Relaxed) & 0xFFFF) as usize;
            let start = end - 1 - length.div_ceil(8);
            if start == 0 {
                return end;
            }
            end = start;
        }
        0
    }
}
