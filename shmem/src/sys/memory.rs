//! Memory that all processes of one server share: one sealed memfd, and the types that may live in it.
//!
//! Shared memory holds plain data only. A [`Shared`] type consists of atomics, [`Guarded`] cells and [`SharedBytes`]:
//! every bit pattern is a valid value, and every part may change under a reference. So a reference stays valid whatever
//! other processes do. There are no pointers in shared memory, only indices and offsets.

use std::cell::UnsafeCell;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A value that is only its bytes: any bytes are a valid value, and there is no padding.
pub trait Plain: FromBytes + IntoBytes + Immutable + Copy + Send + 'static {}
impl<T: FromBytes + IntoBytes + Immutable + Copy + Send + 'static> Plain for T {}

/// A type that may be referenced while other processes change it.
///
/// # Safety
///
/// Any bytes must be a valid value, and every byte must lie in an atomic, a [`Guarded`] cell or a type that is itself
/// `Shared`. Declare such types with [`shared_record!`](crate::shared_record), which checks that.
pub unsafe trait Shared: Sync + 'static {}

// SAFETY: atomics have no invalid values and may change under a reference.
unsafe impl Shared for AtomicU8 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU16 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}
// SAFETY: an array has no bytes beside those of its elements.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// Declares a record for shared memory. A field that is not [`Shared`](crate::sys::memory::Shared) does not compile.
///
/// The record gets a constant `FINGERPRINT`, the text of its fields, for the layout hash at the mapping's head.
#[macro_export]
#[doc(hidden)]
macro_rules! shared_record {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident $(<const $parameter:ident: usize>)? {
        $($(#[$field_meta:meta])* $field_visibility:vis $field:ident: $type:ty),* $(,)?
    }) => {
        $(#[$meta])*
        #[repr(C)]
        $visibility struct $name $(<const $parameter: usize>)? { $($(#[$field_meta])* $field_visibility $field: $type),* }

        // SAFETY: the where clause demands `Shared` of every field; padding bytes are never read.
        #[allow(unsafe_code)]
        unsafe impl $(<const $parameter: usize>)? $crate::sys::memory::Shared for $name $(<$parameter>)?
            where $($type: $crate::sys::memory::Shared),* {}

        impl $(<const $parameter: usize>)? $name $(<$parameter>)? {
            /// The text of the record's fields, for the layout hash.
            #[allow(dead_code, unreachable_pub)]
            pub const FINGERPRINT: &'static str =
                concat!(stringify!($name), $("|", stringify!($field), ":", stringify!($type)),*);
        }
    };
}

shared_record! {
    /// Takes no space. The next field of the record starts on a page (of 4096 bytes), so that its hot part touches as
    /// few pages as possible.
    #[repr(align(4096))]
    pub struct PageStart {}
}

/// A cell that only the holder of the lock that guards it may access.
///
/// [`Tx`](crate::transaction::Tx) and [`Attachment`](crate::transaction::Attachment) access it, after a check that the
/// held lock guards its address. If that check were wrong, a reader could get bytes of two values: a wrong value, but
/// never an invalid one, because the content is [`Plain`].
#[repr(transparent)]
pub struct Guarded<T>(UnsafeCell<T>);

// SAFETY: access is volatile, of plain data, and by the protocol above under a lock.
unsafe impl<T: Plain> Sync for Guarded<T> {}
// SAFETY: the content is plain data in an `UnsafeCell`.
unsafe impl<T: Plain> Shared for Guarded<T> {}

impl<T: Plain> Guarded<T> {
    /// The cell's value. The caller holds the lock.
    #[inline]
    pub(crate) fn load(&self) -> T {
        // SAFETY: the pointer is to an initialised, aligned cell of plain data.
        unsafe { self.0.get().read_volatile() }
    }

    /// Replaces the cell's value. The caller holds the lock.
    #[inline]
    pub(crate) fn store(&self, value: T) {
        // SAFETY: the pointer is to an aligned cell of plain data, and there is no reference into it.
        unsafe { self.0.get().write_volatile(value) }
    }

    /// The cell's address.
    #[inline]
    pub fn address(&self) -> usize {
        self.0.get() as usize
    }
}

/// `8 × WORDS` bytes that one process writes while others may be reading.
///
/// A reader that races with the writer gets a mixture of old and new bytes. A reader without the lock must check
/// afterwards that the bytes were not overwritten meanwhile (see [`EventLog`](crate::event_log::EventLog)).
#[repr(C)]
pub struct SharedBytes<const WORDS: usize>([AtomicU64; WORDS]);

// SAFETY: nothing but atomics.
unsafe impl<const WORDS: usize> Shared for SharedBytes<WORDS> {}

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

/// One shared mapping of fixed size: created before the first fork, inherited by all processes, never unmapped.
///
/// When the owner of a robust mutex dies, the kernel writes to the mutex's address, whatever is mapped there by then
/// (sourceware bug 14485). Hence the mapping is leaked on purpose and its size is sealed. It is left out of core dumps.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    descriptor: OwnedFd,
}

/// Access to memory that another program has created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only: a write ends the process with SIGSEGV.
    Read,
    /// As its creator.
    ReadAndWrite,
}

// SAFETY: the mapping is never unmapped, and the references that it returns are to `Shared` types.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Creates a mapping of `bytes` zeroes, rounded up to whole pages. Only touched pages cost memory. `name` is shown
    /// in `/proc/PID/maps`.
    ///
    /// # Errors
    ///
    /// Those of memfd_create(2), ftruncate(2) and mmap(2): no memory, or no descriptor left.
    pub fn create(name: &str, bytes: usize) -> io::Result<&'static Self> {
        let bytes = bytes.next_multiple_of(rustix::param::page_size());
        let descriptor = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&descriptor, bytes as u64)?;
        fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::of(descriptor, bytes, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Maps all of the memory that another program has created.
    ///
    /// # Errors
    ///
    /// The descriptor is not a memfd of sealed size, or cannot be mapped with that access.
    pub fn open(descriptor: OwnedFd, access: Access) -> io::Result<&'static Self> {
        // If the file could shrink, an access beyond its end would end the process with SIGBUS.
        if !fcntl_get_seals(&descriptor)?.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err(io::Error::other("the size of the shared memory is not sealed"));
        }
        let bytes = usize::try_from(fstat(&descriptor)?.st_size).map_err(io::Error::other)?;
        let protection = match access {
            Access::Read => ProtFlags::READ,
            Access::ReadAndWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        Self::of(descriptor, bytes, protection)
    }

    fn of(descriptor: OwnedFd, bytes: usize, protection: ProtFlags) -> io::Result<&'static Self> {
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED,
                &descriptor,
                0,
            )?
        };
        // SAFETY: the range is the mapping just made, and this advice does not change its content.
        unsafe { madvise(start, bytes, Advice::LinuxDontDump)? };
        let start =
            NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap gave the null address"))?;
        Ok(Box::leak(Box::new(Self {
            start,
            bytes,
            descriptor,
        })))
    }

    /// The mapping's size, in bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The record of type `T` at `offset`, in bytes.
    ///
    /// # Panics
    ///
    /// If it is not aligned, or not inside the mapping.
    #[inline]
    pub fn record<T: Shared>(&'static self, offset: usize) -> &'static T {
        let end = offset
            .checked_add(size_of::<T>())
            .expect("the record's end is a number");
        assert!(end <= self.bytes, "record beyond the mapping");
        // SAFETY: the offset was just found to lie inside.
        let record = unsafe { self.start.add(offset) }.cast::<T>();
        assert!(record.is_aligned(), "record not aligned");
        // SAFETY: in bounds and aligned, never unmapped, and any content is a `T` that may change under the reference
        // (`Shared`).
        unsafe { record.as_ref() }
    }

    /// The offset in the mapping of an address, in bytes.
    ///
    /// # Panics
    ///
    /// If the address is not inside the mapping.
    #[inline]
    pub fn offset_of(&self, address: usize) -> usize {
        let offset = address.wrapping_sub(self.start.as_ptr() as usize);
        assert!(offset < self.bytes, "address outside the mapping");
        offset
    }

    /// Restores old bytes at `offset`, for the roll-back of a journal.
    ///
    /// # Panics
    ///
    /// If they do not fit into the mapping: the journal is damaged.
    pub(crate) fn restore(&self, offset: usize, old: &[u8]) {
        assert!(
            offset <= self.bytes && old.len() <= self.bytes - offset,
            "journal entry outside the mapping"
        );
        for (index, byte) in old.iter().enumerate() {
            // SAFETY: the range was just found to lie inside.
            let target = unsafe { self.start.add(offset + index) };
            // SAFETY: inside the mapping, which holds only plain data, and only references to `Shared` types exist.
            unsafe { target.write_volatile(*byte) };
        }
    }

    /// Overwrites a part of this mapping with the same part of another one of the same size. No process may write to
    /// either meanwhile.
    ///
    /// For tests that look at the memory of a stopped process. The locks in the copy are those of the original: see
    /// [`Lock::abandon_copy`](crate::lock::Lock::abandon_copy).
    ///
    /// # Panics
    ///
    /// If the sizes differ or the part lies outside.
    #[doc(hidden)]
    pub fn copy_from(&self, other: &Self, part: Range<usize>) {
        let length = self.part(other, &part);
        // SAFETY: the part was found to lie inside both.
        let target = unsafe { self.start.add(part.start) };
        // SAFETY: as above.
        let source = unsafe { other.start.add(part.start) };
        // SAFETY: both are valid for that length and belong to different mappings, and the target holds plain data.
        unsafe { target.copy_from(source, length) };
    }

    /// True if a part equals the same part of another mapping of the same size. No process may write to either
    /// meanwhile.
    ///
    /// # Panics
    ///
    /// If the sizes differ or the part lies outside.
    #[doc(hidden)]
    pub fn equals(&self, other: &Self, part: Range<usize>) -> bool {
        let length = self.part(other, &part);
        // SAFETY: the part was found to lie inside both.
        let mine = unsafe { self.start.add(part.start) };
        // SAFETY: as above.
        let theirs = unsafe { other.start.add(part.start) };
        // SAFETY: valid for that length, plain bytes.
        let mine = unsafe { std::slice::from_raw_parts(mine.as_ptr(), length) };
        // SAFETY: as above.
        let theirs = unsafe { std::slice::from_raw_parts(theirs.as_ptr(), length) };
        mine == theirs
    }

    /// The length of a part, after a check that both mappings contain it.
    fn part(&self, other: &Self, part: &Range<usize>) -> usize {
        assert_eq!(self.bytes, other.bytes, "mappings of different size");
        assert!(
            part.start <= part.end && part.end <= self.bytes,
            "part outside the mapping"
        );
        part.end - part.start
    }
}

impl AsFd for Mapping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
