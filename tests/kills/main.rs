//! The promise on which all others rest: any process can be killed at any moment, and no player notices. One
//! module per proof: `cargo test --test kills takeover::` runs one.

#[path = "../common/mod.rs"]
mod common;

mod many_connections;
mod moves;
#[cfg(feature = "mutants")]
mod mutants;
mod receptions;
mod roles;

mod scale;
mod stop;
mod takeover;
