//! How children end, and reaping them.

use std::{fmt, io};

use nix::sys::signal::Signal;
use rustix::io::Errno;
use rustix::process::{self, Pid, WaitOptions, WaitStatus};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(u8),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// `None` for a process that has not ended: waits report stops too.
    fn of(status: WaitStatus) -> Option<Self> {
        let code = status
            .exit_status()
            .and_then(|code| u8::try_from(code).ok())
            .map(Self::Code);
        code.or_else(|| status.terminating_signal().map(Self::Signal))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(formatter, "exit status {code}"),
            Self::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => formatter.write_str(signal.as_str()),
                Err(_) => write!(formatter, "signal {number}"),
            },
        }
    }
}

/// A child that has ended and was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Its former pid, which the kernel may reuse from now on.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
}

/// A change of a child's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEvent {
    /// It has ended and was reaped.
    Exited(Reaped),
    /// It was stopped by a signal.
    Stopped {
        /// Its pid.
        pid: u32,
    },
}

/// Reaps the children that have ended, without waiting. Exhaust the iterator: one SIGCHLD may stand for several
/// children.
///
/// Each step costs one `waitpid(-1)`, which grows with the number of living children (34 µs with 1,000).
pub fn reap() -> impl Iterator<Item = Reaped> {
    child_events().filter_map(|event| match event {
        ChildEvent::Exited(reaped) => Some(reaped),
        ChildEvent::Stopped { .. } => None,
    })
}

/// Like [`reap`], but also reports the children that were stopped.
pub fn child_events() -> impl Iterator<Item = ChildEvent> {
    std::iter::from_fn(|| {
        loop {
            match process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((pid, status))) => {
                    let pid = pid.as_raw_nonzero().get().cast_unsigned();
                    if let Some(exit) = Exit::of(status) {
                        return Some(ChildEvent::Exited(Reaped { pid, exit }));
                    }
                    if status.stopped() {
                        return Some(ChildEvent::Stopped { pid });
                    }
                }
                Err(Errno::INTR) => {}
                // None has ended, or there are none.
                Ok(None) | Err(_) => return None,
            }
        }
    })
}

/// Waits until the child has ended, and reaps it.
pub(super) fn wait_for(pid: Pid) -> io::Result<Exit> {
    loop {
        match process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                if let Some(exit) = Exit::of(status) {
                    return Ok(exit);
                }
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_shown_by_name() {
        assert_eq!(Exit::Code(3).to_string(), "exit status 3");
        assert_eq!(Exit::Signal(libc::SIGKILL).to_string(), "SIGKILL");
        assert_eq!(Exit::Signal(60).to_string(), "signal 60");
    }
}
