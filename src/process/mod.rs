//! The processes: one file or folder for each role, the table of roles, and what passes between processes.

pub(crate) mod admission;
pub(crate) mod handler;
pub(crate) mod ipc;
pub(crate) mod keeper;
pub(crate) mod listener;
pub(crate) mod process_table;
pub(crate) mod supervisor;
pub(crate) mod ticker;
pub(crate) mod upgrade;
pub(crate) mod watchdog;
