//! Tables of records by index, references that go stale, and the layout of the mapping.

use std::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::sys::memory::{Mapping, Shared};

/// Names an occupant of a record. When the record is reused, its generation changes and the reference is stale.
///
/// Generation 0, the value of zeroed memory, refers to nothing.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct Reference<R> {
    /// `generation << 32 | index`.
    packed: u64,
    table: PhantomData<R>,
}

impl<R> Reference<R> {
    /// Refers to nothing.
    pub const NONE: Self = Self::from_id(0);

    /// Refers to the occupant `generation` of the record `index`.
    pub fn new(index: u32, generation: u32) -> Self {
        Self::from_id(u64::from(generation) << 32 | u64::from(index))
    }

    /// The record's index in its table.
    #[inline]
    pub fn index(self) -> u32 {
        u32::try_from(self.packed & u64::from(u32::MAX)).expect("masked to 32 bits")
    }

    /// The occupant's number among those of the record, counted from 1.
    #[inline]
    pub fn generation(self) -> u32 {
        (self.packed >> 32) as u32
    }

    /// False for [`NONE`](Self::NONE).
    #[inline]
    pub fn is_some(self) -> bool {
        self.generation() != 0
    }

    /// The reference as one number, unique in the server's lifetime: the id that clients see.
    #[inline]
    pub fn to_id(self) -> u64 {
        self.packed
    }

    /// The reference for an id from a client. It may be stale or refer to nothing.
    #[inline]
    pub const fn from_id(id: u64) -> Self {
        Self {
            packed: id,
            table: PhantomData,
        }
    }
}

// Derived implementations would demand the same traits of `R`.
impl<R> Clone for Reference<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Reference<R> {}
impl<R> PartialEq for Reference<R> {
    fn eq(&self, other: &Self) -> bool {
        self.packed == other.packed
    }
}
impl<R> Eq for Reference<R> {}
impl<R> std::fmt::Debug for Reference<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.index(), self.generation())
    }
}

/// `len` records of one type, one after another in the mapping.
pub struct Table<R> {
    mapping: &'static Mapping,
    offset: usize,
    /// Distance of two records, in bytes.
    stride: usize,
    len: u32,
    record: PhantomData<fn() -> R>,
}

impl<R> Clone for Table<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Table<R> {}

impl<R: Shared> Table<R> {
    /// Number of records.
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True if there are no records.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The record at `index`, or `None` beyond the table's end.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&'static R> {
        (index < self.len).then(|| self.mapping.record(self.offset + index as usize * self.stride))
    }

    /// The record at `index`.
    ///
    /// # Panics
    ///
    /// If `index` is beyond the table's end, which an index from shared memory never is.
    #[inline]
    pub fn at(&self, index: u32) -> &'static R {
        self.get(index).expect("an index in shared memory names a record")
    }

    /// Index of the record that begins at `offset` of the mapping, if it is one of this table.
    pub fn index_of_offset(&self, offset: u64) -> Option<u32> {
        let distance = usize::try_from(offset).ok()?.checked_sub(self.offset)?;
        let index = u32::try_from(distance / self.stride).ok()?;
        (distance.is_multiple_of(self.stride) && index < self.len).then_some(index)
    }

    /// All records with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &'static R)> {
        let table = *self;
        (0..self.len).map(move |index| (index, table.at(index)))
    }
}

/// Distance of two records, in bytes. A record larger than a page starts on a page, because its hot cells are at its
/// start and should share one page.
fn stride<R>() -> usize {
    let page = rustix::param::page_size();
    match size_of::<R>() {
        small if small < page => small,
        large => large.next_multiple_of(page),
    }
}

/// Lays out tables one after another, each at the start of a page.
#[derive(Debug, Default)]
pub struct LayoutPlan {
    bytes: usize,
}

impl LayoutPlan {
    /// Reserves space for `len` records and returns its offset, in bytes.
    pub fn reserve<R: Shared>(&mut self, len: u32) -> usize {
        let offset = self
            .bytes
            .next_multiple_of(rustix::param::page_size().max(align_of::<R>()));
        self.bytes = offset + stride::<R>() * len as usize;
        offset
    }

    /// Size that the mapping needs, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The table of `len` records whose space was reserved at `offset`.
    ///
    /// # Panics
    ///
    /// If it ends beyond the mapping.
    pub fn table<R: Shared>(mapping: &'static Mapping, offset: usize, len: u32) -> Table<R> {
        let stride = stride::<R>();
        assert!(
            offset + stride * len as usize <= mapping.bytes(),
            "table beyond the mapping"
        );
        Table {
            mapping,
            offset,
            stride,
            len,
            record: PhantomData,
        }
    }
}
