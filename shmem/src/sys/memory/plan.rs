//! Which records lie where in a mapping, and the hash by which two programs tell whether they agree about that.

use std::any::TypeId;
use std::fmt::{self, Write as _};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use crate::sys::memory::Plain;

/// A type that may be referenced while other processes change it.
///
/// # Safety
///
/// Zeroes must be a valid value, and so must be whatever the type's own operations leave. Every byte must lie in an
/// atomic, a [`Guarded`](crate::sys::memory::Guarded) cell or a type that is itself `Shared`. Types with different
/// fields must have different descriptions. Declare such types with [`shared_record!`](crate::shared_record), which
/// checks that.
pub unsafe trait Shared: Sync + 'static {
    /// Adds the type's fields, nested ones included, to the description of a layout.
    fn describe(layout: &mut LayoutText);
}

macro_rules! shared_atomics {
    ($($atomic:ident)*) => {
        $(
            // SAFETY: atomics have no invalid values and may change under a reference.
            unsafe impl Shared for $atomic {
                fn describe(layout: &mut LayoutText) {
                    layout.add(format_args!(stringify!($atomic)));
                }
            }
        )*
    };
}

shared_atomics!(AtomicU8 AtomicU16 AtomicU32 AtomicU64);

// SAFETY: an array has no bytes beside those of its elements.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {
    fn describe(layout: &mut LayoutText) {
        layout.add(format_args!("{N} times"));
        T::describe(layout);
    }
}

/// Declares a record for shared memory. A field that is not [`Shared`](crate::sys::memory::Shared) does not compile.
#[macro_export]
#[doc(hidden)]
macro_rules! shared_record {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident $(<const $parameter:ident: usize>)? {
        $($(#[$field_meta:meta])* $field_visibility:vis $field:ident: $type:ty),* $(,)?
    }) => {
        $(#[$meta])*
        #[repr(C)]
        $visibility struct $name $(<const $parameter: usize>)? { $($(#[$field_meta])* $field_visibility $field: $type),* }

        // SAFETY: the where clause demands `Shared` of every field; padding bytes are never read; the description names
        // every field.
        #[allow(unsafe_code)]
        unsafe impl $(<const $parameter: usize>)? $crate::sys::memory::Shared for $name $(<$parameter>)?
            where $($type: $crate::sys::memory::Shared),*
        {
            fn describe(layout: &mut $crate::sys::memory::LayoutText) {
                layout.add(format_args!("{} of {} bytes", stringify!($name), size_of::<Self>()));
                $(
                    layout.add(format_args!("{} at {}", stringify!($field), std::mem::offset_of!(Self, $field)));
                    <$type as $crate::sys::memory::Shared>::describe(layout);
                )*
                layout.add(format_args!("end"));
            }
        }
    };
}

/// The description of a layout, as its hash (FNV-1a).
#[derive(Clone, Debug)]
pub struct LayoutText {
    hash: u64,
}

impl LayoutText {
    const EMPTY: Self = Self {
        hash: 0xCBF2_9CE4_8422_2325,
    };

    /// Adds a line.
    pub fn add(&mut self, line: fmt::Arguments<'_>) {
        writeln!(self, "{line}").expect("hashing never fails");
    }

    /// Adds the fields of a plain type, as its `Debug` shows them when its bytes are 0, 1, 2 and so on. So the
    /// description changes when two fields of equal size are swapped.
    pub(super) fn add_plain<T: Plain>(&mut self) {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(size_of::<T>()).collect();
        let value = T::read_from_bytes(&bytes).expect("as many bytes as the type has");
        self.add(format_args!(
            "{} bytes aligned to {}: {value:?}",
            size_of::<T>(),
            align_of::<T>()
        ));
    }
}

impl fmt::Write for LayoutText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        Ok(())
    }
}

/// Lays out records one after another, each kind at the start of a page. The first page is the mapping's own.
///
/// A plan is how programs agree about a mapping: it gives out every byte once, for one type, and a program that opens
/// the mapping must have made an equal plan.
#[derive(Clone, Debug)]
pub struct LayoutPlan {
    bytes: usize,
    reserved: Vec<Reserved>,
    text: LayoutText,
}

/// What a plan has reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reserved {
    offset: usize,
    len: u32,
    record: TypeId,
}

/// Where a plan has reserved space for `len` records of one type.
pub struct Place<R> {
    pub(super) offset: usize,
    pub(super) len: u32,
    record: PhantomData<fn() -> R>,
}

impl<R> Clone for Place<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Place<R> {}

impl<R> Place<R> {
    /// Offset in the mapping of the first record, in bytes.
    pub fn offset(self) -> usize {
        self.offset
    }
}

impl<R: 'static> Place<R> {
    pub(super) fn reserved(self) -> Reserved {
        Reserved {
            offset: self.offset,
            len: self.len,
            record: TypeId::of::<R>(),
        }
    }
}

impl Default for LayoutPlan {
    fn default() -> Self {
        Self {
            bytes: rustix::param::page_size(),
            reserved: Vec::new(),
            text: LayoutText::EMPTY,
        }
    }
}

impl LayoutPlan {
    /// Reserves space for `len` records.
    ///
    /// # Panics
    ///
    /// If the end of the space overflows a number.
    pub fn reserve<R: Shared>(&mut self, len: u32) -> Place<R> {
        // A mapping begins at a page, and the smallest page of any machine has so many bytes.
        const { assert!(align_of::<R>() <= 4096, "more than a page's alignment") };
        let offset = self
            .bytes
            .next_multiple_of(rustix::param::page_size().max(align_of::<R>()));
        let bytes = stride::<R>().checked_mul(len as usize);
        self.bytes = bytes
            .and_then(|bytes| offset.checked_add(bytes))
            .expect("the end of the mapping is a number");
        self.text.add(format_args!("{len} from {offset}"));
        R::describe(&mut self.text);
        let place = Place {
            offset,
            len,
            record: PhantomData,
        };
        self.reserved.push(place.reserved());
        place
    }

    /// Includes in the hash a number on which the contents of records depend, but not their fields: the number of a
    /// state, for example, or a version.
    pub fn include(&mut self, name: &str, number: u64) {
        self.text.add(format_args!("{name} = {number}"));
    }

    /// Size that the mapping needs, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The hash of the whole plan. Programs with different layouts have different hashes.
    pub fn hash(&self) -> u64 {
        self.text.hash
    }

    pub(super) fn reserved(&self) -> &[Reserved] {
        &self.reserved
    }
}

/// Distance of two records, in bytes. A record larger than a page starts on a page, because its hot cells are at its
/// start and should share one page.
pub(super) fn stride<R>() -> usize {
    let page = rustix::param::page_size();
    match size_of::<R>() {
        small if small < page => small,
        large => large.next_multiple_of(page),
    }
}

/// The records of a [`Place`] in a mapping.
pub struct Region<R> {
    start: NonNull<R>,
    offset: usize,
    /// Distance of two records, in bytes.
    stride: usize,
    len: u32,
}

// SAFETY: like a shared reference to the records, which may be used in all threads.
unsafe impl<R: Shared> Send for Region<R> {}
// SAFETY: as above.
unsafe impl<R: Shared> Sync for Region<R> {}

impl<R> Clone for Region<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Region<R> {}

impl<R: Shared> Region<R> {
    /// # Safety
    ///
    /// At `start` lies what the place's plan has reserved it for, in a mapping that is never unmapped, and nothing
    /// there is used as another type.
    pub(super) unsafe fn new(start: NonNull<u8>, place: Place<R>) -> Self {
        Self {
            start: start.cast(),
            offset: place.offset,
            stride: stride::<R>(),
            len: place.len,
        }
    }

    /// Number of records.
    #[inline]
    pub fn len(self) -> u32 {
        self.len
    }

    /// True if there are no records.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The record at `index`, or `None` beyond the end.
    #[inline]
    pub fn get(self, index: u32) -> Option<&'static R> {
        if index >= self.len {
            return None;
        }
        // SAFETY: the index was just found to be inside the region.
        let record = unsafe { self.start.byte_add(index as usize * self.stride) };
        // SAFETY: by the contract of `new` a record of this type lies there for ever. It is aligned: the region begins
        // at a page, or at a multiple of the type's alignment, of which the stride is a multiple as sizes are.
        Some(unsafe { record.as_ref() })
    }

    /// Index of the record that begins at `offset` of the mapping, if it is one of these.
    pub fn index_of_offset(self, offset: u64) -> Option<u32> {
        let distance = usize::try_from(offset).ok()?.checked_sub(self.offset)?;
        let index = u32::try_from(distance.checked_div(self.stride)?).ok()?;
        (distance.is_multiple_of(self.stride) && index < self.len).then_some(index)
    }
}
