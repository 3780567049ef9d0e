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
//! 1. `server` reads the [configuration](config); the `supervisor` creates the [shared memory](lobby::memory) and the sockets, and forks
//!    the roles in the table of `role`. `wiring` is what they inherit.
//! 2. The `listener` accepts a connection, asks [`admission`], and sends the socket to a keeper.
//! 3. The `keeper` forks a `handler` for it, or gives it to one that has a place, and to another whenever that one dies (unless
//!    [`deaths`] says that it is hopeless).
//! 4. The `handler` gives its clients turns, in which it lets [`player`] shake hands, and then turn frames into calls of the [`lobby`].
//! 5. Every such call is a [transaction](shm::transaction) on a room, the player, or the directory. [Games](games) run inside.
//! 6. What happened lies in the room's [log](shm::event_log). A doorbell wakes the others in the room, who
//!    [deliver](lobby::delivery) it to their players. (`room_doorbell` is a handler's, the `ticker` rings what was not rung.)
//! 7. Operators look in through the `console`.
//! 8. An `upgrade` puts a new program into the supervisor's process, and then into all others by takeover.
//!
//! `play` is the other side of all this: a client in a terminal, which has nothing of the server but the games' code.
//!
//! Below all that lie [`shm`], the safe abstractions over the mapping, and [`sys`], the only unsafe code. The bounds that
//! clients and operators can meet are in [`limits`].
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
