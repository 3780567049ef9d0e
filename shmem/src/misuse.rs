//! What safe code cannot do with shared memory, because it does not compile. Each example differs in one line from the
//! one before it, which compiles. What is refused at run time instead is in `tests/misuse.rs`.
//!
//! A place gives a reference of its own type:
//!
//! ```
//! # use std::sync::atomic::{AtomicU32, AtomicU64}; use shmem::sys::memory::{Mapping, Place};
//! fn seen_as(mapping: &'static Mapping, place: Place<AtomicU32>) -> &'static AtomicU32 {
//!     mapping.record(place)
//! }
//! ```
//!
//! and not of another one, even of the same size:
//!
//! ```compile_fail,E0308
//! # use std::sync::atomic::{AtomicU32, AtomicU64}; use shmem::sys::memory::{Guarded, Mapping, Place};
//! fn seen_as(mapping: &'static Mapping, place: Place<AtomicU32>) -> &'static Guarded<u32> {
//!     mapping.record(place)
//! }
//! ```
//!
//! A place cannot be made without a plan:
//!
//! ```compile_fail,E0451
//! # use std::marker::PhantomData; use std::sync::atomic::AtomicU64; use shmem::sys::memory::{Mapping, Place};
//! fn anywhere(mapping: &'static Mapping) -> &'static AtomicU64 {
//!     mapping.record(Place { offset: 8, len: 1, record: PhantomData })
//! }
//! ```
//!
//! A mapping that can be written to gives references:
//!
//! ```
//! # use std::sync::atomic::{AtomicU64, Ordering}; use shmem::sys::memory::{Mapping, Place, ReadOnlyMapping};
//! fn store(mapping: &'static Mapping, place: Place<AtomicU64>) {
//!     mapping.record(place).store(1, Ordering::Relaxed);
//! }
//! ```
//!
//! and one that cannot gives none:
//!
//! ```compile_fail,E0599
//! # use std::sync::atomic::{AtomicU64, Ordering}; use shmem::sys::memory::{Mapping, Place, ReadOnlyMapping};
//! fn store(mapping: &'static ReadOnlyMapping, place: Place<AtomicU64>) {
//!     mapping.record(place).store(1, Ordering::Relaxed);
//! }
//! ```
//!
//! A cell holds plain data:
//!
//! ```
//! shmem::shared_record! { pub struct Record { cell: shmem::sys::memory::Guarded<u8>, } }
//! ```
//!
//! and nothing with an invalid value, or with a pointer:
//!
//! ```compile_fail,E0277
//! shmem::shared_record! { pub struct Record { cell: shmem::sys::memory::Guarded<bool>, } }
//! ```
//!
//! ```compile_fail,E0277
//! shmem::shared_record! { pub struct Record { cell: shmem::sys::memory::Guarded<&'static u8>, } }
//! ```
//!
//! An attachment may be given to another thread:
//!
//! ```
//! # use shmem::transaction::{Attachment, Record, Tx};
//! # fn send<T: Send>(_: T) {}
//! fn elsewhere<R: Record>(attachment: Attachment) {
//!     send(attachment);
//! }
//! ```
//!
//! and a transaction may not: only the thread that has acquired the lock may release it.
//!
//! ```compile_fail,E0277
//! # use shmem::transaction::{Attachment, Record, Tx};
//! # fn send<T: Send>(_: T) {}
//! fn elsewhere<R: Record>(transaction: Tx<'static, R>) {
//!     send(transaction);
//! }
//! ```
//!
//! A mapping is not overwritten without a promise that no process uses it:
//!
//! ```compile_fail
//! # use shmem::sys::memory::Mapping;
//! fn overwrite(mapping: &'static Mapping, other: &'static Mapping) {
//!     mapping.copy_from(other, 0..8);
//! }
//! ```
