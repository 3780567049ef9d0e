//! The atomic words by which processes agree without a lock.
//!
//! What they do with them is written for any [`Word`]: the memory's own, and those of a model checker. So the models in
//! `tests/models.rs` run the functions that the processes run.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// An atomic word, and the fences that belong to it.
pub trait Word {
    /// Loads the value.
    fn load(&self, order: Ordering) -> u64;
    /// Stores a value, which must fit the word.
    fn store(&self, value: u64, order: Ordering);
    /// Stores `new` if the value is `current`. Returns the former value: in `Ok` if it was `current`.
    ///
    /// # Errors
    ///
    /// The value was another one.
    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64>;
    /// A fence between accesses to words of this kind.
    fn fence(order: Ordering);

    /// Stores what `change` makes of the value, and returns the former value.
    #[inline]
    fn update(&self, change: impl Fn(u64) -> u64) -> u64 {
        let mut current = self.load(Ordering::Acquire);
        loop {
            match self.compare_exchange(current, change(current), Ordering::AcqRel, Ordering::Acquire) {
                Ok(former) => return former,
                Err(other) => current = other,
            }
        }
    }
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    #[inline]
    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.compare_exchange(current, new, success, failure)
    }

    #[inline]
    fn fence(order: Ordering) {
        fence(order);
    }
}

impl Word for AtomicU32 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order).into()
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(narrow(value), order);
    }

    #[inline]
    fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.compare_exchange(narrow(current), narrow(new), success, failure)
            .map(u64::from)
            .map_err(u64::from)
    }

    #[inline]
    fn fence(order: Ordering) {
        fence(order);
    }
}

#[inline]
fn narrow(value: u64) -> u32 {
    u32::try_from(value).expect("the value fits the word")
}
