//! Shared parts of the benchmarks: a second process, and alternatives to Forkade's lobby.
//!
//! ```text
//! cargo bench --manifest-path benches/Cargo.toml
//! cargo bench --manifest-path benches/Cargo.toml --bench lobby -- redis
//! ```

#![deny(unsafe_code)]

pub mod background_process;
pub mod lmdb;
pub mod redis_server;

pub use background_process::BackgroundProcess;

/// Bytes of a room's state, which a benchmark reads, changes and writes.
pub const ROOM_BYTES: usize = 256;
/// Bytes of a player's record.
pub const PLAYER_BYTES: usize = 64;
/// Index of the byte of a room's state that an update increments.
pub const COUNT_INDEX: usize = 0;
/// Index of the byte that tells, in a room's state, whether its second seat is taken, and in a player's record, whether
/// the player is in the room.
pub const TAKEN_INDEX: usize = 1;
