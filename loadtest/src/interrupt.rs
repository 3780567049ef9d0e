//! Ctrl-C: the first one ends the load early, and the report shows what was measured; the second one ends the
//! program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

use crate::run_state::RunState;

/// Exit status of a program that was interrupted: 128 and the signal's number.
pub(crate) const EXIT_STATUS: u8 = 130;

/// Why signals cannot be received.
#[derive(Debug, thiserror::Error)]
#[error("cannot handle Ctrl-C: {0}")]
pub(crate) struct InterruptError(#[from] io::Error);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Interrupt;

impl Interrupt {
    /// Starts a thread that waits for SIGINT and SIGTERM. Must be called before any other thread is started,
    /// so that all threads inherit the blocked signals.
    ///
    /// # Errors
    /// When the kernel provides no descriptor for the signals.
    pub(crate) fn watch(state: Arc<RunState>) -> Result<(), InterruptError> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block().map_err(io::Error::from)?;
        let descriptor = SignalFd::new(&signals).map_err(io::Error::from)?;
        std::thread::spawn(move || {
            if descriptor.read_signal().is_err() {
                return;
            }
            eprintln!("interrupted: the report follows (interrupt again to end without it)");
            state.interrupted.store(true, Ordering::Relaxed);
            if descriptor.read_signal().is_ok() {
                // The server that this program started receives a signal from the kernel then, and ends.
                std::process::exit(i32::from(EXIT_STATUS));
            }
        });
        Ok(())
    }
}
