//! What records consist of, beside atomics: cells of plain data, and bytes.

use std::cell::UnsafeCell;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::shared_record;
use crate::sys::memory::{LayoutText, Shared};

/// A value that is only its bytes: any bytes are a valid value, and there is no padding. Derive `Debug`: it tells the
/// [layout's hash](LayoutText) the type's fields.
pub trait Plain: FromBytes + IntoBytes + Immutable + Copy + Debug + Send + 'static {}
impl<T: FromBytes + IntoBytes + Immutable + Copy + Debug + Send + 'static> Plain for T {}

shared_record! {
    /// Takes no space. The next field of the record starts on a page (of 4096 bytes), so that its hot part touches as
    /// few pages as possible.
    #[repr(align(4096))]
    pub struct PageStart {}
}

/// Plain bytes of shared memory, accessed by atomic words only: the largest that are aligned and fit. So accesses to
/// the same bytes always use the same words.
///
#[derive(Clone, Copy)]
pub(super) struct Words {
    start: *mut u8,
    bytes: usize,
    /// What is known of the first byte, so that the compiler need not ask.
    alignment: usize,
}

/// One word of [`Words`].
enum Word<'a> {
    Eight(&'a AtomicU64),
    Four(&'a AtomicU32),
    Two(&'a AtomicU16),
    One(&'a AtomicU8),
}

impl Words {
    /// # Safety
    ///
    /// The bytes are valid for reads and writes as long as this is used, any bytes are valid there, and all other
    /// accesses meanwhile are by such words of the same bytes. `start` is aligned to `alignment`.
    #[inline(always)]
    pub(super) unsafe fn new(start: *mut u8, bytes: usize, alignment: usize) -> Self {
        Self {
            start,
            bytes,
            alignment,
        }
    }

    /// The word at `done`, of the bytes before `self.bytes`.
    #[inline(always)]
    fn word(&self, done: usize) -> Word<'_> {
        let rest = self.bytes - done;
        // SAFETY: `done` is less than the number of bytes.
        let at = unsafe { self.start.add(done) };
        let is_aligned = |to: usize| {
            (self.alignment.is_multiple_of(to) && done.is_multiple_of(to)) || at.addr().is_multiple_of(to)
        };
        if rest >= 8 && is_aligned(8) {
            // SAFETY: aligned, inside the bytes, and accessed by atomics only.
            Word::Eight(unsafe { AtomicU64::from_ptr(at.cast()) })
        } else if rest >= 4 && is_aligned(4) {
            // SAFETY: as above.
            Word::Four(unsafe { AtomicU32::from_ptr(at.cast()) })
        } else if rest >= 2 && is_aligned(2) {
            // SAFETY: as above.
            Word::Two(unsafe { AtomicU16::from_ptr(at.cast()) })
        } else {
            // SAFETY: inside the bytes, and accessed by atomics only.
            Word::One(unsafe { AtomicU8::from_ptr(at) })
        }
    }

    /// Copies the bytes to `target`, which is as long.
    #[inline(always)]
    pub(super) fn load(self, target: &mut [u8]) {
        assert_eq!(target.len(), self.bytes, "as many bytes");
        let mut done = 0;
        while done < self.bytes {
            let rest = &mut target[done..];
            done += match self.word(done) {
                Word::Eight(word) => put(rest, word.load(Ordering::Relaxed).to_ne_bytes()),
                Word::Four(word) => put(rest, word.load(Ordering::Relaxed).to_ne_bytes()),
                Word::Two(word) => put(rest, word.load(Ordering::Relaxed).to_ne_bytes()),
                Word::One(word) => put(rest, word.load(Ordering::Relaxed).to_ne_bytes()),
            };
        }
    }

    /// Copies `source`, which is as long, to the bytes.
    #[inline(always)]
    pub(super) fn store(self, source: &[u8]) {
        assert_eq!(source.len(), self.bytes, "as many bytes");
        let mut done = 0;
        while done < self.bytes {
            let rest = &source[done..];
            done += match self.word(done) {
                Word::Eight(word) => {
                    word.store(u64::from_ne_bytes(first(rest)), Ordering::Relaxed);
                    8
                }
                Word::Four(word) => {
                    word.store(u32::from_ne_bytes(first(rest)), Ordering::Relaxed);
                    4
                }
                Word::Two(word) => {
                    word.store(u16::from_ne_bytes(first(rest)), Ordering::Relaxed);
                    2
                }
                Word::One(word) => {
                    word.store(rest[0], Ordering::Relaxed);
                    1
                }
            };
        }
    }
}

#[inline(always)]
fn put<const BYTES: usize>(target: &mut [u8], word: [u8; BYTES]) -> usize {
    target[..BYTES].copy_from_slice(&word);
    BYTES
}

#[inline(always)]
fn first<const BYTES: usize>(source: &[u8]) -> [u8; BYTES] {
    *source.first_chunk().expect("the word fits")
}

/// A cell that only the holder of the lock that guards it may access.
///
/// [`Tx`](crate::transaction::Tx) and [`Attachment`](crate::transaction::Attachment) access it, after a check that the
/// held lock guards its address. If that check were wrong, a reader could get bytes of two values: a wrong value, but
/// never an invalid one, because the content is [`Plain`], and never a data race, because it is accessed by atomic
/// words.
#[repr(transparent)]
pub struct Guarded<T>(UnsafeCell<T>);

// SAFETY: access is by atomic words, of plain data.
unsafe impl<T: Plain> Sync for Guarded<T> {}
// SAFETY: the content is plain data in an `UnsafeCell`, accessed by atomic words.
unsafe impl<T: Plain> Shared for Guarded<T> {
    fn describe(layout: &mut LayoutText) {
        layout.add_plain::<T>();
    }
}

impl<T: Plain> Guarded<T> {
    /// The cell's value. The caller holds the lock.
    #[inline]
    pub(crate) fn load(&self) -> T {
        let mut value = T::new_zeroed();
        self.words().load(value.as_mut_bytes());
        value
    }

    /// Replaces the cell's value. The caller holds the lock.
    #[inline]
    pub(crate) fn store(&self, value: T) {
        self.words().store(value.as_bytes());
    }

    /// The cell's address.
    #[inline]
    pub fn address(&self) -> usize {
        self.0.get() as usize
    }

    #[inline(always)]
    fn words(&self) -> Words {
        // SAFETY: the cell is there as long as the reference, holds plain data, and is only accessed here and by
        // `Mapping::restore`, for the same bytes.
        unsafe { Words::new(self.0.get().cast(), size_of::<T>(), align_of::<T>()) }
    }
}

/// `8 × WORDS` bytes that one process writes while others may be reading.
///
/// A reader that races with the writer gets a mixture of old and new bytes. A reader without the lock must check
/// afterwards that the bytes were not overwritten meanwhile (see [`EventLog`](crate::event_log::EventLog)).
#[repr(C)]
pub struct SharedBytes<const WORDS: usize>([AtomicU64; WORDS]);

// SAFETY: nothing but atomics.
unsafe impl<const WORDS: usize> Shared for SharedBytes<WORDS> {
    fn describe(layout: &mut LayoutText) {
        layout.add(format_args!("{WORDS} words of bytes"));
    }
}

impl<const WORDS: usize> SharedBytes<WORDS> {
    /// Size in bytes.
    pub const BYTES: usize = WORDS * 8;

    /// Copies `bytes` to index `at`. There must be one writer at a time.
    ///
    /// # Panics
    ///
    /// If they do not fit.
    pub fn copy_in(&self, at: usize, bytes: &[u8]) {
        assert!(
            at <= Self::BYTES && bytes.len() <= Self::BYTES - at,
            "write beyond shared bytes"
        );
        let (mut word, skip) = (at / 8, at % 8);
        let (first, rest) = bytes.split_at(bytes.len().min((8 - skip) % 8));
        if !first.is_empty() {
            self.patch(word, skip, first);
            word += 1;
        }
        let (whole, last) = rest.as_chunks::<8>();
        for (cell, chunk) in self.0[word..].iter().zip(whole) {
            cell.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
        }
        if !last.is_empty() {
            self.patch(word + whole.len(), 0, last);
        }
    }

    /// Copies the bytes from index `at` on into `target`.
    ///
    /// # Panics
    ///
    /// If there are fewer bytes than `target` is long.
    pub fn copy_out(&self, at: usize, target: &mut [u8]) {
        assert!(
            at <= Self::BYTES && target.len() <= Self::BYTES - at,
            "read beyond shared bytes"
        );
        let (mut word, skip) = (at / 8, at % 8);
        let (first, rest) = target.split_at_mut(target.len().min((8 - skip) % 8));
        if !first.is_empty() {
            let bytes = self.0[word].load(Ordering::Relaxed).to_ne_bytes();
            first.copy_from_slice(&bytes[skip..skip + first.len()]);
            word += 1;
        }
        let (whole, last) = rest.as_chunks_mut::<8>();
        let whole_words = whole.len();
        for (cell, chunk) in self.0[word..].iter().zip(whole) {
            *chunk = cell.load(Ordering::Relaxed).to_ne_bytes();
        }
        if !last.is_empty() {
            let bytes = self.0[word + whole_words].load(Ordering::Relaxed).to_ne_bytes();
            last.copy_from_slice(&bytes[..last.len()]);
        }
    }

    /// The address of the first byte, for system calls that fill or send a part of the bytes.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.0.as_ptr().cast_mut().cast()
    }

    fn patch(&self, word: usize, skip: usize, part: &[u8]) {
        let mut bytes = self.0[word].load(Ordering::Relaxed).to_ne_bytes();
        bytes[skip..skip + part.len()].copy_from_slice(part);
        self.0[word].store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    }
}
