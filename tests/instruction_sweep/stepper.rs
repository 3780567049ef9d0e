//! A process that is stopped after every instruction.

use std::io;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use shmem::sys::process;
use shmem::sys::process::{ForkError, ProcessId};

/// Exit status of a child that may not be traced.
const NOT_PERMITTED: u8 = 77;

/// A child that runs one step at a time.
pub(crate) struct Stepper {
    pid: Pid,
    /// It has ended and was reaped: the pid may be another's by now.
    reaped: bool,
}

/// Why there is no child to step through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// A container's filter, say, forbids it.
    #[error("this machine does not let processes be traced")]
    NotPermitted,
    #[error("no child can be forked")]
    Fork(#[source] ForkError),
    #[error("ptrace or waitpid failed")]
    Trace(#[source] io::Error),
    #[error("the child ended instead of going on: {0:?}")]
    Ended(WaitStatus),
}

impl Stepper {
    /// Forks a child that runs `prepare`, and stops it before the first instruction of what that gives.
    pub(crate) fn start<R, A: FnOnce() -> R>(prepare: impl FnOnce() -> A) -> Result<Self, StepError> {
        let child: ProcessId = process::fork(
            || {},
            |_| {
                let act = prepare();
                if ptrace::traceme().is_err() {
                    return NOT_PERMITTED;
                }
                stop();
                let done = act();
                stop();
                drop(done);
                0
            },
        )
        .map_err(StepError::Fork)?;
        let pid = Pid::from_raw(i32::try_from(child.pid).expect("pids are small"));
        let mut stepper = Self { pid, reaped: false };
        match stepper.wait()? {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
            WaitStatus::Exited(_, code) if code == i32::from(NOT_PERMITTED) => {
                return Err(StepError::NotPermitted);
            }
            ended => return Err(StepError::Ended(ended)),
        }
        // Should this process die, so must the child: it may hold a lock for ever.
        ptrace::setoptions(stepper.pid, ptrace::Options::PTRACE_O_EXITKILL).map_err(trace_error)?;
        Ok(stepper)
    }

    /// Lets the child execute one instruction; false when it has come to its end instead.
    pub(crate) fn step(&mut self) -> Result<bool, StepError> {
        ptrace::step(self.pid, None).map_err(trace_error)?;
        match self.wait()? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => Ok(true),
            WaitStatus::Stopped(_, Signal::SIGSTOP) => Ok(false),
            ended => Err(StepError::Ended(ended)),
        }
    }

    fn wait(&mut self) -> Result<WaitStatus, StepError> {
        loop {
            match waitpid(self.pid, None) {
                Err(Errno::EINTR) => {}
                Ok(status @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..))) => {
                    self.reaped = true;
                    return Ok(status);
                }
                waited => return waited.map_err(trace_error),
            }
        }
    }
}

impl Drop for Stepper {
    fn drop(&mut self) {
        if !self.reaped {
            kill(self.pid, Signal::SIGKILL).expect("a child that was not reaped is there");
            waitpid(self.pid, None).expect("a killed child ends");
        }
    }
}

fn stop() {
    raise(Signal::SIGSTOP).expect("a process can stop itself");
}

fn trace_error(errno: Errno) -> StepError {
    StepError::Trace(errno.into())
}
