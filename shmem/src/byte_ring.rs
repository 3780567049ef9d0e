//! The part of one direction of a player's byte stream that is kept in shared memory, by absolute offsets.
//!
//! Offsets count from the stream's first byte. They outlive connections and processes. The byte at `offset` lies at
//! `(offset − base) mod BYTES`. Whenever the ring is empty, the base may move to the current offset. So the bytes of a
//! quiet player use the same few pages again and again.
//!
//! The bytes are not journaled: they are written where no committed offset refers to them. The offset is journaled.

use std::ops::Range;

use crate::shared_record;
use crate::sys::memory::{Guarded, SharedBytes};
use crate::transaction::{Attachment, Record, Tx};

shared_record! {
    /// `8 × WORDS` bytes of a stream, in a record with a [single writer](crate::transaction::SingleWriter).
    pub struct ByteRing<const WORDS: usize> {
        base: Guarded<u64>,
        bytes: SharedBytes<WORDS>,
    }
}

impl<const WORDS: usize> ByteRing<WORDS> {
    /// Capacity in bytes.
    pub const BYTES: u64 = WORDS as u64 * 8;

    /// Moves the base of an empty ring to `offset`, so that the next byte uses the ring's first page again.
    pub fn rebase<R: Record>(&self, tx: &mut Tx<'_, R>, offset: u64) {
        if tx.get(&self.base) != offset {
            tx.set(&self.base, offset);
        }
    }

    /// The ring as its writer sees it.
    ///
    /// # Panics
    ///
    /// If this process does not own the record.
    pub fn view(&self, attachment: &Attachment) -> RingView<'_, WORDS> {
        self.view_from(self.base(attachment))
    }

    /// The ring as a transaction sees it that may touch the record.
    pub fn view_in<R: Record>(&self, tx: &Tx<'_, R>) -> RingView<'_, WORDS> {
        self.view_from(tx.get(&self.base))
    }

    /// Stream offset of the byte that lies, or would lie, at the ring's first byte.
    ///
    /// # Panics
    ///
    /// If this process does not own the record.
    pub fn base(&self, attachment: &Attachment) -> u64 {
        attachment.read_own(&self.base)
    }

    /// The ring as seen with a `base` from elsewhere: for readers that do not own the record.
    pub fn view_from(&self, base: u64) -> RingView<'_, WORDS> {
        RingView {
            bytes: &self.bytes,
            base,
        }
    }

    /// Writes stream bytes from `offset` on, where no committed offset refers to them yet.
    ///
    /// # Panics
    ///
    /// If `bytes` exceed the ring, or the transaction may not touch the record.
    pub fn write<R: Record>(&self, tx: &mut Tx<'_, R>, offset: u64, bytes: &[u8]) {
        let base = tx.get(&self.base);
        let first_range = contiguous::<WORDS>(base, offset, bytes.len());
        let (first, second) = bytes.split_at(first_range.len());
        tx.write(&self.bytes, first_range.start, first);
        if !second.is_empty() {
            tx.write(&self.bytes, 0, second);
        }
    }
}

/// A ring's bytes and its base. Valid until the next transaction that rebases the ring.
#[derive(Clone, Copy)]
pub struct RingView<'a, const WORDS: usize> {
    bytes: &'a SharedBytes<WORDS>,
    base: u64,
}

impl<'a, const WORDS: usize> RingView<'a, WORDS> {
    /// The memory, for a system call on one of the [`ranges`](Self::range).
    pub fn bytes(&self) -> &'a SharedBytes<WORDS> {
        self.bytes
    }

    /// Where the bytes from `offset` on lie: at most `length` of them, and only up to the ring's last byte.
    ///
    /// # Panics
    ///
    /// If `length` exceeds the ring.
    pub fn range(&self, offset: u64, length: usize) -> Range<usize> {
        contiguous::<WORDS>(self.base, offset, length)
    }

    /// Copies the stream's bytes from `offset` on into `target`.
    ///
    /// # Panics
    ///
    /// If `target` is longer than the ring.
    pub fn read(&self, offset: u64, target: &mut [u8]) {
        let range = self.range(offset, target.len());
        let (first, second) = target.split_at_mut(range.len());
        self.bytes.copy_out(range.start, first);
        if !second.is_empty() {
            self.bytes.copy_out(0, second);
        }
    }
}

fn contiguous<const WORDS: usize>(base: u64, offset: u64, length: usize) -> Range<usize> {
    let size = ByteRing::<WORDS>::BYTES;
    assert!(length as u64 <= size, "more bytes than the ring holds");
    let position =
        usize::try_from(offset.wrapping_sub(base) % size).expect("a position in the ring is small");
    position..(position + length).min(SharedBytes::<WORDS>::BYTES)
}
