//! The roles of a server's processes, as its console names them.

/// The server's root process. Its death ends the server.
pub(crate) const SUPERVISOR: &str = "supervisor";
pub(crate) const KEEPER: &str = "keeper";
pub(crate) const HANDLER: &str = "handler";
pub(crate) const CONSOLE: &str = "console";
