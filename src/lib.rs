//! Forkade: a multi-process TCP game server for Linux.
//!
//! > State lives in shared memory, connections live in the kernel, processes only animate them — so any process can be
//! > killed at any instruction and no player notices.
//!
//! A game developer writes one [`Game`](games::Game) and links this library:
//!
//! ```no_run
//! use forkade::games::{relay::Relay, tictactoe::TicTacToe};
//!
//! fn main() -> std::process::ExitCode {
//!     forkade::Server::new().game::<TicTacToe>().game::<Relay>().main()
//! }
//! ```
//!
//! # The story, in the order in which a connection meets it
//!
//! 1. **Start.** [`server`] reads the [`config`]. The [`supervisor`](process::supervisor) creates the
//!    [shared memory](state::layout) and the listening sockets, and forks the roles of the
//!    [process table](process::process_table). They inherit the channels and doorbells of [`ipc`](process::ipc).
//! 2. **Accept.** The [`listener`](process::listener) accepts a connection, lets [`admission`](process::admission)
//!    decide, and sends the socket to a keeper.
//! 3. **Fork.** The [`keeper`](process::keeper) claims a slot for the connection and gives it a handler, a new process
//!    or one that serves others. When a handler dies, the keeper forks a successor on the same connection, unless
//!    [`crash_policy`](maintenance::crash_policy) decides otherwise.
//! 4. **Handshake.** The [`handler`](process::handler) receives bytes into shared memory. The
//!    [`session`] layer knows which byte is which; [`dispatch`](frontends::dispatch) reads the preamble and `Hello` or
//!    `Resume`.
//! 5. **Lobby.** [`dispatch`](frontends::dispatch) turns each frame into one call of the [`lobby`], and each such call
//!    commits one or more [transactions](shmem::transaction). Operators use the [`console`](frontends::console)
//!    instead.
//! 6. **Room.** [`match_play`](lobby::match_play) runs the [game](games) under the room's lock. The resulting events go
//!    to the room's [event log](shmem::event_log), and a doorbell wakes the other members' handlers.
//! 7. **Wire.** [`delivery`](lobby::delivery) copies events from the log into each player's output ring;
//!    [`transport`](session::transport) sends them.
//!
//! Beside this flow, the [`ticker`](process::ticker) does what is due by time, the [`watchdog`](process::watchdog)
//! kills processes that hang, and an [`upgrade`](process::upgrade) replaces the program in place.
//!
//! Modules form layers: none refers to a module above it. `docs/architecture.md` has the layers, the invariants, a
//! glossary, and where a change would go. The crate [`shmem`] has the only unsafe code. All bounds are in [`limits`].
// The story links to private modules: they resolve with `--document-private-items`.
#![allow(rustdoc::private_intra_doc_links)]
#![deny(unsafe_code)]
#![cfg_attr(not(feature = "testing"), allow(unreachable_pub, dead_code))]

mod config;
mod frontends;
pub mod limits;
mod lobby;
mod logging;
mod maintenance;
mod process;
mod server;
mod session;
mod state;
pub mod test_kit;

pub use forkade_games as games;
pub use server::Server;

/// The inside, for this package's own tests. No promise is made about any of it.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing {
    pub mod config {
        pub use crate::config::*;
    }
    pub mod frontends {
        pub use crate::frontends::*;
    }
    pub mod lobby {
        pub use crate::lobby::*;
    }
    pub mod maintenance {
        pub use crate::maintenance::*;
    }
    pub mod session {
        pub use crate::session::*;
    }
    pub mod state {
        pub use crate::state::*;
    }
}
