//! Tables of records by index, references that go stale, and where everything lies in the mapping.

use std::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::sys::memory::{Mapping, Shared};

/// Names a record's present occupant. When the record is given to another, the generation differs and the reference is stale.
///
/// Generation 0 is nobody: the value of zeroed memory.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct Reference<R> {
    /// `generation << 32 | index`.
    packed: u64,
    table: PhantomData<R>,
}

impl<R> Reference<R> {
    /// Refers to nobody.
    pub const NONE: Self = Self::from_id(0);

    /// Refers to the occupant `generation` of the record `index`.
    pub fn new(index: u32, generation: u32) -> Self {
        Self::from_id(u64::from(generation) << 32 | u64::from(index))
    }

    /// The record's index in its table.
    pub fn index(self) -> u32 {
        u32::try_from(self.packed & u64::from(u32::MAX)).expect("masked to 32 bits")
    }

    /// Which of the record's occupants, counted from 1.
    pub fn generation(self) -> u32 {
        (self.packed >> 32) as u32
    }

    /// Whether this refers to somebody.
    pub fn is_some(self) -> bool {
        self.generation() != 0
    }

    /// The reference as one number, unique for the server's life: what clients are given as an id.
    pub fn to_id(self) -> u64 {
        self.packed
    }

    /// The reference that a client's id stands for. It may be stale or point nowhere.
    pub const fn from_id(id: u64) -> Self {
        Self {
            packed: id,
            table: PhantomData,
        }
    }
}

// Derived implementations would ask for the same of `R`.
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

/// `len` records of one type, one after the other in the mapping.
pub struct Table<R> {
    mapping: &'static Mapping,
    offset: usize,
    /// From the beginning of one record to that of the next.
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
    /// How many records there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The record at `index`, if there is one.
    pub fn get(&self, index: u32) -> Option<&'static R> {
        (index < self.len).then(|| self.mapping.record(self.offset + index as usize * self.stride))
    }

    /// The record at `index`.
    ///
    /// # Panics
    ///
    /// If there is none: an index from shared memory is always one.
    pub fn at(&self, index: u32) -> &'static R {
        self.get(index).expect("an index in shared memory names a record")
    }

    /// Index of the record that begins at `offset` of the mapping, if one of this table does.
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

/// A record that is larger than a page begins with one: what is touched of it lies at its beginning, and should not be cut in two.
fn stride<R>() -> usize {
    let page = rustix::param::page_size();
    match size_of::<R>() {
        small if small < page => small,
        large => large.next_multiple_of(page),
    }
}

/// Lays tables out one after the other, each at the start of a page.
#[derive(Debug, Default)]
pub struct LayoutPlan {
    bytes: usize,
}

impl LayoutPlan {
    /// Reserves the place for `len` records and gives its offset.
    pub fn reserve<R: Shared>(&mut self, len: u32) -> usize {
        let offset = self
            .bytes
            .next_multiple_of(rustix::param::page_size().max(align_of::<R>()));
        self.bytes = offset + stride::<R>() * len as usize;
        offset
    }

    /// How many bytes the mapping needs.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The table whose place was reserved at `offset`.
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
