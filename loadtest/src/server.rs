//! The server under test: which one it is, its process, its log and its console.

pub(crate) mod console;
mod log;
pub(crate) mod peer;
pub(crate) mod process;
pub(crate) mod roles;
