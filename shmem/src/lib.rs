//! Shared memory whose state survives SIGKILL of any process at any instruction.
//!
//! # Reading order
//!
//! 1. [`sys::memory`]: the mapping, and the types that may live in it;
//! 2. `sys::mutex`, then [`lock`]: a robust mutex, and the record's lock that is built on it;
//! 3. [`journal`]: the undo journal beside each lock;
//! 4. [`transaction`]: the only way to change shared state. It ties the three above together;
//! 5. [`byte_ring`] and [`event_log`]: a stream's bytes, and a room's events that members read without a lock;
//! 6. [`doorbell`], [`hang_reports`] and [`liveness`]: what one process tells the others;
//! 7. [`table`]: records by index and generation; [`word`]: the atomic words by which processes agree without a lock;
//! 8. [`sys::process`], [`sys::sockets`] and the rest of [`sys`]: a thin layer over the kernel.
//!
//! # Invariants
//!
//! - No unsafe code outside [`sys`].
//! - No pointers in shared memory, only indices and offsets. No type with an invalid bit pattern.
//! - No transaction under two locks: beginning a second one does not compile, and panics where the compiler cannot see
//!   it.
//! - No byte of a mapping that is seen as two types, in this process or in another.
//! - No lock-free step outside a function over [`Word`](word::Word), which a model checks.
//! - No change of a [`Guarded`](sys::memory::Guarded) cell without its old bytes in the journal.
//! - No unlocking of half-changed state: what a dead holder left is rolled back first, or the process aborts.
//! - No system call while a lock is held, apart from those of the mutex itself, and no logging.
//! - No wait that another process can make endless without a [report](hang_reports) of it.
//! - No rule of the games or of the lobby. This crate knows neither players nor rooms; only comments name them.
#![deny(unsafe_code)]

pub mod byte_ring;
pub mod doorbell;
pub mod event_log;
pub mod hang_reports;
pub mod journal;
pub mod limits;
pub mod liveness;
pub mod lock;
#[doc(hidden)]
pub mod mutants;
pub mod sys;
pub mod table;
pub mod transaction;
pub mod word;

#[cfg(doctest)]
mod misuse;
#[cfg(test)]
mod tests;
