//! Tables of records by index, and references that go stale.

use std::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::sys::memory::{Mapping, Place, Region, Shared};

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

/// The records of one [place](Place), by index.
pub struct Table<R> {
    region: Region<R>,
}

impl<R> Clone for Table<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Table<R> {}

impl<R: Shared> Table<R> {
    /// The table of what the mapping's plan has reserved.
    ///
    /// # Panics
    ///
    /// If the place is not of the mapping's plan.
    pub fn new(mapping: &'static Mapping, place: Place<R>) -> Self {
        Self {
            region: mapping.region(place),
        }
    }

    /// Number of records.
    #[inline]
    pub fn len(&self) -> u32 {
        self.region.len()
    }

    /// True if there are no records.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.region.is_empty()
    }

    /// The record at `index`, or `None` beyond the table's end.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&'static R> {
        self.region.get(index)
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
        self.region.index_of_offset(offset)
    }

    /// All records with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &'static R)> {
        let table = *self;
        (0..self.len()).map(move |index| (index, table.at(index)))
    }
}
