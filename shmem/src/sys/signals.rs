//! Signals as events of a poll: blocked in the signal mask and read from a signalfd. There are no signal handlers.
//!
//! A forked child inherits the mask but no pending signals. An inherited signalfd reads the signals of the process that
//! *reads* it, but an inherited epoll reports those of the process that registered it. So a child makes its own poll
//! and its own [`Signals`].

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::{io, ptr};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

pub use nix::sys::signal::Signal;

/// A descriptor from which signals are read.
#[derive(Debug)]
pub struct Signals(SignalFd);

/// One signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedSignal {
    /// The signal. Of several equal signals that were not read yet, the kernel keeps only the first.
    pub signal: Signal,
    /// The process that sent it, or the child that SIGCHLD is about; 0 if the kernel sent it.
    pub sender_pid: u32,
}

impl Signals {
    /// Blocks exactly `signals`, to be read here. All others are unblocked.
    ///
    /// For a process with one thread. The signals stay blocked when the value is dropped.
    ///
    /// # Errors
    ///
    /// No descriptor left.
    pub fn block(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&set), None)?;
        Ok(Self(descriptor))
    }

    /// The next pending signal, or `None`. Call it until there is none.
    ///
    /// # Errors
    ///
    /// Those of read(2); none is expected.
    pub fn read(&self) -> io::Result<Option<ReceivedSignal>> {
        loop {
            return match self.0.read_signal() {
                Ok(None) => Ok(None),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => Err(error.into()),
                Ok(Some(info)) => {
                    // Cannot fail: only members of the enum `Signal` were blocked.
                    let signal = Signal::try_from(info.ssi_signo.cast_signed())?;
                    Ok(Some(ReceivedSignal {
                        signal,
                        sender_pid: info.ssi_pid,
                    }))
                }
            };
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Unblocks all signals, as a new program expects. Pending ones are delivered at once.
///
/// # Errors
///
/// Those of pthread_sigmask(3); none is expected.
pub fn unblock_all() -> io::Result<()> {
    Ok(pthread_sigmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::empty()),
        None,
    )?)
}

/// Restores the default action of every ignored signal, apart from those in `keep`. The program that started this one
/// may have ignored some (a shell ignores SIGINT and SIGQUIT in the background). With SIGCHLD ignored, the kernel would
/// reap the children; with SIGTERM ignored, processes would survive it.
///
/// # Errors
///
/// Those of sigaction(2); none is expected.
pub fn reset_ignored(keep: &[Signal]) -> io::Result<()> {
    for signal in Signal::iterator() {
        if keep.contains(&signal) || matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        // Only if it is ignored: setting the default action would discard a pending SIGCHLD.
        if is_ignored(signal)? {
            // SAFETY: the default action installs no handler, so no code runs at an arbitrary moment.
            unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
        }
    }
    Ok(())
}

/// Ignores SIGINT, which Ctrl-C on a terminal sends to all its processes at once. Inherited by children.
///
/// # Errors
///
/// Those of sigaction(2); none is expected.
pub fn ignore_interrupts() -> io::Result<()> {
    // SAFETY: ignoring a signal installs no handler, so no code runs at an arbitrary moment.
    unsafe { nix::sys::signal::signal(Signal::SIGINT, SigHandler::SigIgn) }?;
    Ok(())
}

fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: no action is set, and the kernel writes one `sigaction` where the pointer points.
    if unsafe { libc::sigaction(signal as i32, ptr::null(), action.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has filled it.
    let action = unsafe { action.assume_init() };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

/// Ignores SIGPIPE: writing to a pipe without a reader fails with `EPIPE`. Inherited by children.
///
/// # Errors
///
/// Those of sigaction(2); none is expected.
pub fn ignore_broken_pipes() -> io::Result<()> {
    // SAFETY: ignoring a signal installs no handler, so no code runs at an arbitrary moment.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigIgn) }?;
    Ok(())
}
