//! A process that is stopped after every instruction.

use std::io;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use shmem::sys::process::{self, ForkError, ProcessId};

/// Exit status of a child that cannot be traced.
const NOT_PERMITTED: u8 = 77;

/// A child that runs one step at a time.
pub(crate) struct Stepper {
    pid: Pid,
    /// It was reaped: the pid may belong to another process by now.
    reaped: bool,
}

/// Why the child cannot be stepped through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// For example, a container's filter forbids it.
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
    /// Forks a child that runs `prepare`, and stops it before the first instruction of the function that
    /// `prepare` returns.
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
        // If this process dies, the child must die, too: it may hold a lock for ever.
        ptrace::setoptions(stepper.pid, ptrace::Options::PTRACE_O_EXITKILL).map_err(trace_error)?;
        Ok(stepper)
    }

    /// Executes one instruction of the child. Returns false when the child has ended.
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
