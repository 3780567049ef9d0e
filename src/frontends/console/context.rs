//! What a handler passes to a console.

use std::io;

use rustix::process::Signal;

use crate::config::Config;
use crate::state::doorbells::Doorbells;
use crate::state::layout::Memory;
use crate::state::roles::signal_supervisor;
use forkade_games::Games;
use shmem::sys::process::Lifeline;

/// The parts of the server that an operator can inspect and control.
#[derive(Clone, Copy)]
pub(crate) struct ConsoleContext {
    pub(crate) memory: &'static Memory,
    pub(crate) games: &'static Games,
    pub(crate) config: &'static Config,
    pub(crate) doorbells: &'static Doorbells,
    pub(crate) lifeline: &'static Lifeline,
    /// SHA-256 of the password of the console on TCP, if it has one.
    pub(crate) password: Option<[u8; 32]>,
}

impl ConsoleContext {
    /// Signals the supervisor.
    ///
    /// # Errors
    ///
    /// Those of [`signal_supervisor`].
    pub(crate) fn signal_supervisor(self, signal: Signal) -> io::Result<()> {
        signal_supervisor(self.memory.header, self.lifeline, signal)
    }
}
