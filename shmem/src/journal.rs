//! The undo journal of one lock: the old bytes of everything that the current transaction has changed.
//!
//! An entry is complete before it counts: its words are written first, then the length is stored. Commit is one store of the
//! length, to zero. A roll-back puts the old bytes back from the newest entry to the oldest; it may be interrupted and begun again
//! any number of times, since it does not change the journal until all is restored.
//!
//! Only SIGKILL has to be survived, after which every store the process executed is in memory: what matters is the order in
//! which the compiler emits the stores, so the length is an atomic between compiler fences.

use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use crate::limits::JOURNAL_BYTES;
use crate::mutants::Mutant;
use crate::shared_record;
use crate::sys::memory::Mapping;

const WORDS: usize = JOURNAL_BYTES / 8;
/// Longest cell that can be journaled, in bytes.
pub const CELL_BYTES_MAX: usize = 256;

shared_record! {
    /// Old bytes, each followed by a word that says where they belong: `offset << 16 | length`.
    pub struct Journal {
        used_words: AtomicU64,
        words: [AtomicU64; WORDS],
    }
}

/// The transaction changed more than the journal can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the transaction overflowed its journal of {JOURNAL_BYTES} bytes")]
pub struct JournalFull;

impl Journal {
    /// Whether there is nothing to undo.
    pub fn is_empty(&self) -> bool {
        self.used_words.load(Ordering::Relaxed) == 0
    }

    /// Keeps the old bytes of the cell at `offset`. The caller may change the cell when this has returned.
    ///
    /// # Errors
    ///
    /// [`JournalFull`]; then nothing was kept and the cell must not be changed.
    pub fn append(&self, offset: usize, old: &[u8]) -> Result<(), JournalFull> {
        if Mutant::JournalSkipped.is_on() {
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

    /// Makes the changes final: one store.
    pub fn commit(&self) {
        if Mutant::CommitInTwoStores.is_on() {
            self.set_used(self.first_entry_end());
        }
        self.set_used(0);
    }

    /// Undoes the changes.
    ///
    /// # Panics
    ///
    /// If the journal is damaged. The caller is then inside [`Abandoned::repair`](crate::sys::mutex::Abandoned::repair), which
    /// aborts the process instead of letting anybody see half a change.
    pub fn roll_back(&self, mapping: &Mapping) {
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

    /// Where the oldest entry ends, found by walking back from the newest.
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
