//! Safe abstractions over the shared mapping: what makes "killed at any instruction" survivable.
//!
//! * [`lock`]: a robust mutex with its undo journal beside it;
//! * [`transaction`]: the only way to change shared state — one lock, all or nothing;
//! * [`journal`]: the undo journal;
//! * [`byte_ring`]: a player's bytes, in and out, by absolute offsets;
//! * [`event_log`]: a room's events, written under its lock and read without;
//! * [`hang_reports`]: how a process that waits in vain reports it;
//! * [`doorbell`]: how one process makes others look;
//! * [`liveness`]: how others see that a process gets on;
//! * [`table`]: records by index and generation, and where they lie;
//! * [`sys`]: the only unsafe code: a thin layer over the kernel and the C library.
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

#[cfg(test)]
mod tests;
