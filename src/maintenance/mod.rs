//! What happens by time, and what proofs look at.

pub mod check;
pub mod crash_attribution;
pub(crate) mod crash_policy;
mod eviction;
pub mod expiry;
#[doc(hidden)]
pub mod state_dump;
