//! What no client asks for: expiry by time, cleaning up after dead processes, and checks of the whole state.
//!
//! * [`expiry`]: players whose grace is over, closed rooms, orphaned connections; [`eviction`]: a shorter grace when
//!   places run out;
//! * [`crash_policy`]: whether a connection gets another handler; [`crash_attribution`]: which room's game ended a
//!   ticker;
//! * [`check`]: whether all records agree; [`state_dump`]: their contents, for proofs.

pub mod check;
pub mod crash_attribution;
pub(crate) mod crash_policy;
pub(crate) mod eviction;
pub mod expiry;
#[doc(hidden)]
pub mod state_dump;
