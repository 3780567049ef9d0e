//! Kills processes of the server under load, and tells which lost connections that explains.

pub(crate) mod kill_log;
pub(crate) mod killer;
