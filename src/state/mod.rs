//! What lies in shared memory: where each record lies, what it holds, and how it is referred to. No rule of the
//! lobby.
//!
//! * [`layout`]: where every record lies, and how the memory is created; [`handle`]: a process's access to it;
//! * [`header`]: what every process reads without a lock;
//! * [`directory`]: names, tokens and rooms in use, under the lobby's lock; [`sanctions`], [`mailbox`], [`chat`];
//! * [`connections`], [`players`], [`rooms`]: the records;
//! * [`stream_tap`], [`running_game`], [`shown_game`], [`tick_conduct`], [`tick_figures`], [`connection_counts`],
//!   [`budget`]: parts of them;
//! * [`roles`], [`doorbells`], [`hang_kind`]: the server's processes, as every layer names them;
//! * [`incidents`]: what has gone wrong lately; [`room_label`], [`fault`]: rooms, and failures of their games, as log
//!   and console name them.

pub(crate) mod budget;
pub(crate) mod buffers;
pub mod chat;
pub mod close_counters;
pub mod connection_counts;
pub mod connections;
pub mod directory;
pub(crate) mod doorbells;
pub mod fault;
pub mod fixed_string;
pub mod handle;
pub mod hang_kind;
pub mod header;
pub mod incidents;
pub mod layout;
pub mod mailbox;
pub mod players;
pub(crate) mod roles;
pub mod room_label;
pub mod rooms;
pub mod running_game;
pub mod sanctions;
pub mod shown_game;
pub mod sources;
pub mod stream_tap;
pub mod tick_conduct;
pub mod tick_figures;
