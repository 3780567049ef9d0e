//! Memory that all processes of one server share: one sealed memfd, and the types that may live in it.
//!
//! Shared memory holds plain data only. A [`Shared`] type consists of atomics, [`Guarded`] cells, [`SharedBytes`] and
//! mutexes: every part may change under a reference. So a reference stays valid whatever other processes do. There are
//! no pointers in shared memory, only indices and offsets.
//!
//! What lies where is a [`LayoutPlan`]. It gives out each byte once, for one type. A mapping is created for a plan,
//! bears its hash at its head, and gives out nothing but the plan's [places](Place). A program that opens the mapping
//! needs an equal plan. So no byte of a mapping is ever seen as two types.

mod cells;
mod plan;

use std::io;
#[cfg(any(test, feature = "testing"))]
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::sys::exec;
use crate::sys::memory::cells::Words;
use crate::sys::memory::plan::Reserved;

pub use crate::sys::memory::cells::{Guarded, PageStart, Plain, SharedBytes};
pub use crate::sys::memory::plan::{LayoutPlan, LayoutText, Place, Region, Shared};

/// One shared mapping of fixed size: created before the first fork, inherited by all processes, never unmapped.
///
/// When the owner of a robust mutex dies, the kernel writes to the mutex's address, whatever is mapped there by then
/// (sourceware bug 14485). Hence the mapping is leaked on purpose and its size is sealed. It is left out of core dumps.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    descriptor: OwnedFd,
    /// What the mapping's plan has reserved.
    reserved: Box<[Reserved]>,
}

// SAFETY: the mapping is never unmapped, and the references that it returns are to `Shared` types.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Creates a mapping of zeroes for the plan, rounded up to whole pages. Only touched pages cost memory. `name` is
    /// shown in `/proc/PID/maps`.
    ///
    /// # Errors
    ///
    /// Those of memfd_create(2), ftruncate(2) and mmap(2): no memory, or no descriptor left.
    pub fn create(name: &str, plan: &LayoutPlan) -> io::Result<&'static Self> {
        let bytes = mapped_bytes(plan);
        let descriptor = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&descriptor, bytes as u64)?;
        fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let mapping = Self::of(descriptor, bytes, plan)?;
        mapping.layout_hash().store(plan.hash(), Ordering::Release);
        Ok(mapping)
    }

    /// Creates a mapping for one record.
    ///
    /// # Errors
    ///
    /// Those of [`create`](Self::create).
    pub fn create_record<R: Shared>(name: &str) -> io::Result<&'static R> {
        let mut plan = LayoutPlan::default();
        let place = plan.reserve(1);
        Ok(Self::create(name, &plan)?.record(place))
    }

    /// Maps all of the memory that another program has created for an equal plan.
    ///
    /// # Errors
    ///
    /// The descriptor is not a memfd of sealed size, was created for another plan, or cannot be mapped.
    pub fn open(descriptor: OwnedFd, plan: &LayoutPlan) -> io::Result<&'static Self> {
        ReadOnlyMapping::open(descriptor.try_clone()?)?.check(plan)?;
        Self::of(descriptor, mapped_bytes(plan), plan)
    }

    fn of(descriptor: OwnedFd, bytes: usize, plan: &LayoutPlan) -> io::Result<&'static Self> {
        let start = map(&descriptor, bytes, ProtFlags::READ | ProtFlags::WRITE)?;
        Ok(Box::leak(Box::new(Self {
            start,
            bytes,
            descriptor,
            reserved: plan.reserved().into(),
        })))
    }

    /// The mapping's size, in bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The records of a place.
    ///
    /// # Panics
    ///
    /// If the place is not of this mapping's plan.
    pub fn region<R: Shared>(&'static self, place: Place<R>) -> Region<R> {
        assert!(
            self.reserved.contains(&place.reserved()),
            "a place of another plan"
        );
        // SAFETY: the plan has reserved it, so it lies inside the mapping.
        let start = unsafe { self.start.add(place.offset) };
        // SAFETY: the mapping is never unmapped. Its plan, and every plan of the same hash, has reserved these bytes
        // for this type and no other. They were zeroes once, and only the type's own operations have changed them.
        unsafe { Region::new(start, place) }
    }

    /// The record of a place.
    ///
    /// # Panics
    ///
    /// If the place is not of this mapping's plan, or holds no record.
    pub fn record<R: Shared>(&'static self, place: Place<R>) -> &'static R {
        self.region(place).get(0).expect("the place holds a record")
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

    /// Restores the old bytes of the cell at `offset`, for the roll-back of a journal.
    ///
    /// # Panics
    ///
    /// If they do not fit into the mapping: the journal is damaged.
    pub(crate) fn restore(&self, offset: usize, old: &[u8]) {
        assert!(
            offset <= self.bytes && old.len() <= self.bytes - offset,
            "journal entry outside the mapping"
        );
        // SAFETY: the range was just found to lie inside.
        let target = unsafe { self.start.add(offset) };
        // SAFETY: inside the mapping, which is never unmapped. A journal has only entries of whole cells.
        unsafe { Words::new(target.as_ptr(), old.len(), 1) }.store(old);
    }

    /// The first word of the first page, which belongs to no place.
    fn layout_hash(&self) -> &AtomicU64 {
        // SAFETY: aligned to a page, inside the mapping, and accessed by atomics only.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().cast()) }
    }
}

/// A promise that a mapping is a copy for tests, in which no thread has locked a mutex: see
/// [`Lock::abandon_copy`](crate::lock::Lock::abandon_copy).
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
#[derive(Debug)]
pub struct PrivateCopy(());

#[cfg(any(test, feature = "testing"))]
impl PrivateCopy {
    /// # Safety
    ///
    /// The promise holds for every mapping that this is used for.
    pub unsafe fn new() -> Self {
        Self(())
    }
}

#[cfg(any(test, feature = "testing"))]
impl Mapping {
    /// Overwrites a part of this mapping with the same part of another one of the same size.
    ///
    /// For tests that look at the memory of a stopped process. The locks in the copy are those of the original: see
    /// [`Lock::abandon_copy`](crate::lock::Lock::abandon_copy).
    ///
    /// # Safety
    ///
    /// Both have equal plans. No process writes to either meanwhile, or holds a lock in this one.
    ///
    /// # Panics
    ///
    /// If the sizes differ or the part lies outside.
    #[doc(hidden)]
    pub unsafe fn copy_from(&self, other: &Self, part: Range<usize>) {
        let length = self.part(other, &part);
        // SAFETY: the part was found to lie inside both.
        let target = unsafe { self.start.add(part.start) };
        // SAFETY: as above.
        let source = unsafe { other.start.add(part.start) };
        // SAFETY: both are valid for that length and belong to different mappings; by the contract no process uses
        // them.
        unsafe { target.copy_from(source, length) };
    }

    /// True if a part equals the same part of another mapping of the same size.
    ///
    /// # Safety
    ///
    /// No process writes to either meanwhile.
    ///
    /// # Panics
    ///
    /// If the sizes differ or the part lies outside.
    #[doc(hidden)]
    pub unsafe fn equals(&self, other: &Self, part: Range<usize>) -> bool {
        let length = self.part(other, &part);
        // SAFETY: the part was found to lie inside both.
        let mine = unsafe { self.start.add(part.start) };
        // SAFETY: as above.
        let theirs = unsafe { other.start.add(part.start) };
        // SAFETY: valid for that length, plain bytes, and by the contract no process changes them.
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

/// The memory's descriptor is not lent: whoever has it could write any bytes over the records.
impl Mapping {
    /// The number of the memory's descriptor.
    pub fn descriptor_number(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Keeps the memory's descriptor [open](crate::sys::exec::keep_open) over execve(2).
    ///
    /// # Errors
    ///
    /// Those of fcntl(2).
    pub fn keep_open(&self) -> io::Result<RawFd> {
        exec::keep_open(self.descriptor.as_fd())
    }

    /// A further descriptor of the memory, as another program gets it.
    #[cfg(test)]
    pub(crate) fn descriptor_for_another_program(&self) -> OwnedFd {
        self.descriptor.try_clone().expect("a descriptor")
    }
}

/// Memory that another program has created, to be looked at without changing it. It has no operation that stores.
#[derive(Debug)]
pub struct ReadOnlyMapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl ReadOnlyMapping {
    /// Maps all of the memory.
    ///
    /// # Errors
    ///
    /// The descriptor is not a memfd of sealed size, or cannot be mapped.
    pub fn open(descriptor: OwnedFd) -> io::Result<Self> {
        // If the file could shrink, an access beyond its end would end the process with SIGBUS.
        if !fcntl_get_seals(&descriptor)?.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err(io::Error::other("the size of the shared memory is not sealed"));
        }
        let bytes = usize::try_from(fstat(&descriptor)?.st_size).map_err(io::Error::other)?;
        let start = map(&descriptor, bytes, ProtFlags::READ)?;
        Ok(Self { start, bytes })
    }

    /// Checks that the memory was created for an equal plan.
    ///
    /// # Errors
    ///
    /// It was created for another one.
    pub fn check(&self, plan: &LayoutPlan) -> io::Result<()> {
        if self.bytes != mapped_bytes(plan) {
            return Err(io::Error::other("it has another size than this program's"));
        }
        // SAFETY: aligned to a page and inside the mapping, which has at least the plan's first page. It is only
        // loaded.
        let hash = unsafe { AtomicU64::from_ptr(self.start.as_ptr().cast()) };
        if hash.load(Ordering::Acquire) != plan.hash() {
            return Err(io::Error::other("it is laid out otherwise"));
        }
        Ok(())
    }
}

impl Drop for ReadOnlyMapping {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping that `open` has made, and no reference into it outlives this.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "unmapping a whole mapping cannot fail");
    }
}

fn mapped_bytes(plan: &LayoutPlan) -> usize {
    plan.bytes().next_multiple_of(rustix::param::page_size())
}

fn map(descriptor: &OwnedFd, bytes: usize, protection: ProtFlags) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
    let start = unsafe {
        mmap(
            std::ptr::null_mut(),
            bytes,
            protection,
            MapFlags::SHARED,
            descriptor,
            0,
        )?
    };
    // SAFETY: the range is the mapping just made, and this advice does not change its content.
    unsafe { madvise(start, bytes, Advice::LinuxDontDump)? };
    NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap gave the null address"))
}
