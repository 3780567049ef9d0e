//! The processes: one file or folder for each role, and what passes between them. No rule of the lobby.
//!
//! Reading order:
//!
//! 1. [`process_table`]: the roles and how each starts; [`ipc`]: channels, doorbells and messages;
//! 2. [`supervisor`]: forks the roles and restarts them;
//! 3. [`listener`] and [`admission`]: accept a connection, or refuse it;
//! 4. [`keeper`]: holds the connections' sockets and forks handlers;
//! 5. [`handler`]: serves connections;
//! 6. [`ticker`]: what happens by time;
//! 7. [`watchdog`]: kills processes that hang; [`upgrade`]: another program takes over.

pub(crate) mod admission;
pub(crate) mod handler;
pub(crate) mod ipc;
pub(crate) mod keeper;
pub(crate) mod listener;
pub(crate) mod process_table;
pub(crate) mod source_gate;
pub(crate) mod supervisor;
pub(crate) mod ticker;
pub(crate) mod unix_console;
pub(crate) mod upgrade;
pub(crate) mod watchdog;
