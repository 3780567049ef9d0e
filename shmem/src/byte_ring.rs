//! A window onto one direction of a player's byte stream, by absolute offsets.
//!
//! A stream's offsets count from its first byte and outlive connections, processes and the ring's size. The byte at `offset`
//! lies at `(offset − base) mod BYTES`. Whenever the ring is empty the base may be moved to the current offset, so that a quiet
//! player's bytes use the same few pages again and again.
//!
//! The ring's bytes are not journaled: they are written where nothing committed refers to them, and then an offset is.

use std::ops::Range;

use crate::shared_record;
use crate::sys::memory::{Guarded, SharedBytes};
use crate::transaction::{Attachment, Record, Tx};

shared_record! {
    /// `8 × WORDS` bytes of a stream, in a record that one process animates.
    pub struct ByteRing<const WORDS: usize> {
        base: Guarded<u64>,
        bytes: SharedBytes<WORDS>,
    }
}

impl<const WORDS: usize> ByteRing<WORDS> {
    /// How many bytes of the stream fit.
    pub const BYTES: u64 = WORDS as u64 * 8;

    /// Makes an empty ring begin at `offset`: at its first byte, so that the pages behind stay untouched.
    pub fn rebase<R: Record>(&self, tx: &mut Tx<'_, R>, offset: u64) {
        if tx.get(&self.base) != offset {
            tx.set(&self.base, offset);
        }
    }

    /// Where the stream's bytes from `offset` on lie: see [`RingView`].
    pub fn view(&self, attachment: &Attachment) -> RingView<'_, WORDS> {
        self.view_from(self.base(attachment))
    }

    /// Offset of the byte that lies, or would lie, at the ring's first byte.
    pub fn base(&self, attachment: &Attachment) -> u64 {
        attachment.read_own(&self.base)
    }

    /// Where the stream's bytes lie if the ring was begun at offset `base`: for who does not animate the record, and was told.
    pub fn view_from(&self, base: u64) -> RingView<'_, WORDS> {
        RingView {
            bytes: &self.bytes,
            base,
        }
    }

    /// Writes stream bytes that nothing committed refers to yet, from `offset` on.
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

/// A ring's bytes and its base, read once: valid until the next transaction that rebases the ring.
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

    /// The longest piece, of at most `length` bytes, that lies in one stretch from `offset` on.
    pub fn range(&self, offset: u64, length: usize) -> Range<usize> {
        contiguous::<WORDS>(self.base, offset, length)
    }

    /// Copies the stream's bytes from `offset` on.
    pub fn read(&self, offset: u64, target: &mut [u8]) {
        let range = self.range(offset, target.len());
        let (first, second) = target.split_at_mut(range.len());
        self.bytes.copy_out(range.start, first);
        if !second.is_empty() {
            self.bytes.copy_out(0, second);
        }
    }
}

/// # Panics
///
/// If `length` exceeds the ring: the caller has not checked its space.
fn contiguous<const WORDS: usize>(base: u64, offset: u64, length: usize) -> Range<usize> {
    let size = ByteRing::<WORDS>::BYTES;
    assert!(length as u64 <= size, "more bytes than the ring holds");
    let position =
        usize::try_from(offset.wrapping_sub(base) % size).expect("a position in the ring is small");
    position..(position + length).min(SharedBytes::<WORDS>::BYTES)
}
