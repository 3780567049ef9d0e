//! What the benches share: a second process, and what one might take instead of Forkade's lobby.
//!
//! ```text
//! cargo bench --manifest-path benches/Cargo.toml
//! cargo bench --manifest-path benches/Cargo.toml --bench lobby -- redis
//! ```

#![deny(unsafe_code)]

pub mod lmdb;
pub mod redis_server;
pub mod rival;

pub use rival::Rival;

/// Bytes of a room's state, which is read, changed and written.
pub const ROOM_BYTES: usize = 256;
/// Bytes of what is kept of a player.
pub const PLAYER_BYTES: usize = 64;
/// Place in a room's bytes that an update changes.
pub const COUNT_AT: usize = 0;
/// Place in a room's bytes that says whether its other seat is taken; in a player's, whether the player is in the room.
pub const TAKEN_AT: usize = 1;
