//! The only unsafe code: a thin layer over the kernel and the C library.
//!
//! Each file wraps one thing behind a safe interface that cannot be misused: memory that several processes share, the
//! robust mutex, forking and reaping, signals as descriptors, sockets.
#![allow(unsafe_code)]

pub mod clock;
pub mod eventfd;
pub mod exec;
pub mod heap;
pub mod memory;
pub(crate) mod mutex;
pub mod process;
pub mod shared_io;
pub mod signals;
pub mod sockets;
pub mod tcp_progress;
pub mod timer;
