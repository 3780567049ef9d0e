//! What lies in shared memory: where every record lies, what it holds, and how it is referred to. No rule of the lobby.
//!
//! * [`layout`]: what lies where, and how the memory is made;
//! * [`header`]: what every process reads without a lock;
//! * [`directory`]: names, tokens and room entries, under the lobby's lock;
//! * [`connections`], [`players`], [`rooms`]: the records;
//! * [`roles`], [`doorbells`], [`hang_kind`]: what all layers say of the server's processes.

pub(crate) mod buffers;
pub mod chat;
pub mod connection_counts;
pub mod connections;
pub mod directory;
pub(crate) mod doorbells;
pub mod fixed_string;
pub mod handle;
pub mod hang_kind;
pub mod header;
pub mod layout;
pub mod mailbox;
pub mod players;
pub(crate) mod roles;
pub mod rooms;
pub mod running_game;
pub mod stream_tap;
