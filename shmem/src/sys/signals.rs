//! Signals as events of a poll: blocked in the mask and read from a signalfd, never handled where they strike.
//!
//! After a fork: the mask is inherited, pending signals are not. An inherited signalfd reads the signals of the *reading*
//! process, but an inherited epoll reports those of the process that registered it. So a child makes its own poll
//! and its own [`Signals`], and the parent's stay out of it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

pub use nix::sys::signal::Signal;

/// Signals that arrive as something to read.
#[derive(Debug)]
pub struct Signals(SignalFd);

/// One signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedSignal {
    /// Which one. Of several of the same kind that were not read yet, the kernel keeps only the first.
    pub signal: Signal,
    /// Who sent it, or whose end it tells of (SIGCHLD); 0 if the kernel did.
    pub sender_pid: u32,
}

impl Signals {
    /// From now on, exactly `signals` are blocked, and read here instead. Those that were blocked before are no longer.
    ///
    /// For a process with one thread; when the value is dropped, the signals stay blocked.
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

    /// The next signal that has arrived, or `None`. Read until there is none.
    ///
    /// # Errors
    ///
    /// Those of read(2), which this descriptor has no cause to give.
    pub fn read(&self) -> io::Result<Option<ReceivedSignal>> {
        loop {
            return match self.0.read_signal() {
                Ok(None) => Ok(None),
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => Err(error.into()),
                Ok(Some(info)) => {
                    // Only signals of the closed list `Signal` can have been asked for.
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

/// Lets all signals strike again, as a new program expects it. Those that were pending strike at once.
///
/// # Errors
///
/// Those of pthread_sigmask(3), which has no cause to give any.
pub fn unblock_all() -> io::Result<()> {
    Ok(pthread_sigmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::empty()),
        None,
    )?)
}

/// Gives every signal that is ignored its usual effect again, but for those in `keep`. Whoever started this program may have left some
/// ignored (a shell does so for SIGINT and SIGQUIT in the background): children would not be reaped as they must (SIGCHLD), and who is
/// to die would live.
///
/// # Errors
///
/// Those of sigaction(2), which has no cause to give any.
pub fn reset_ignored(keep: &[Signal]) -> io::Result<()> {
    for signal in Signal::iterator() {
        if keep.contains(&signal) || matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        // Asked first, and changed only if it must be: that would throw away a SIGCHLD that waits to be read.
        if is_ignored(signal)? {
            // SAFETY: the default action installs no code that could run at a bad moment.
            unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
        }
    }
    Ok(())
}

/// Makes Ctrl-C on the terminal, which goes to all processes at once, a matter of others. Inherited by children.
///
/// # Errors
///
/// Those of sigaction(2), which has no cause to give any.
pub fn ignore_interrupts() -> io::Result<()> {
    // SAFETY: ignoring a signal installs no code that could run at a bad moment.
    unsafe { nix::sys::signal::signal(Signal::SIGINT, SigHandler::SigIgn) }?;
    Ok(())
}

fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is changed, and the kernel's answer fits where the pointer points.
    if unsafe { libc::sigaction(signal as i32, ptr::null(), action.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has filled it.
    let action = unsafe { action.assume_init() };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

/// Makes writing to a pipe without a reader an error instead of death. Inherited by children.
///
/// # Errors
///
/// Those of sigaction(2), which has no cause to give any.
pub fn ignore_broken_pipes() -> io::Result<()> {
    // SAFETY: ignoring a signal installs no code that could run at a bad moment.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigIgn) }?;
    Ok(())
}
