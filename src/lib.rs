//! Forkade: a multi-process TCP game server for Linux.
//!
//! > State lives in shared memory, connections live in the kernel, processes only animate them — so any process can be
//! > killed at any instruction and no player notices.
#![deny(unsafe_code)]

pub mod config;
pub mod games;
pub mod limits;
pub mod lobby;
mod logging;
pub mod shm;
pub mod sys;
mod wiring;
