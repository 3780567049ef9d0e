//! A process that is stopped after every instruction that stores into the shared memory.
//!
//! The child maps the memory read-only. So it runs at full speed up to an instruction that stores into it, where the
//! kernel stops it. Then the tracer makes the memory writable, lets the child execute that one instruction, and makes
//! the memory read-only again; it has the child call `mprotect` itself. Stepping through each instruction finds the
//! same states, in 215 s instead of 35 s for all operations.
//!
//! A system call that stores into the memory would fail. No operation makes one; if one did, it would come to another
//! end than the undisturbed operation, and the sweep would report it.

use std::io;
use std::ops::Range;

use forkade::testing::state::layout::Memory;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use shmem::sys::process::{self, ForkError, ProcessId};

/// Exit status of a child that cannot be traced.
const NOT_PERMITTED: u8 = 77;

/// Length of the instruction that enters the kernel.
const SYSCALL_BYTES: u64 = 2;

/// A child that runs one store at a time.
pub(crate) struct Stepper {
    pid: Pid,
    /// Addresses of the shared memory, the same in parent and child.
    memory: Range<usize>,
    /// Address of an instruction that enters the kernel.
    syscall: u64,
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
    /// `prepare` returns. `memory` is the memory whose stores stop it.
    pub(crate) fn start<R, A: FnOnce() -> R>(
        memory: &Memory,
        prepare: impl FnOnce() -> A,
    ) -> Result<Self, StepError> {
        let start = std::ptr::from_ref(memory.header).addr();
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
        let mut stepper = Self {
            pid,
            memory: start..start + memory.mapping.bytes(),
            syscall: 0,
            reaped: false,
        };
        match stepper.wait()? {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
            WaitStatus::Exited(_, code) if code == i32::from(NOT_PERMITTED) => {
                return Err(StepError::NotPermitted);
            }
            ended => return Err(StepError::Ended(ended)),
        }
        // If this process dies, the child must die, too: it may hold a lock for ever.
        ptrace::setoptions(stepper.pid, ptrace::Options::PTRACE_O_EXITKILL).map_err(trace_error)?;
        // The child has just stopped itself by a system call.
        stepper.syscall = stepper.registers()?.rip - SYSCALL_BYTES;
        stepper.protect(libc::PROT_READ)?;
        Ok(stepper)
    }

    /// Lets the child run until it has executed one instruction that stores into the memory. Returns false when the
    /// child has come to its end instead.
    pub(crate) fn step(&mut self) -> Result<bool, StepError> {
        ptrace::cont(self.pid, None).map_err(trace_error)?;
        match self.wait()? {
            WaitStatus::Stopped(_, Signal::SIGSEGV) => {}
            WaitStatus::Stopped(_, Signal::SIGSTOP) => return Ok(false),
            ended => return Err(StepError::Ended(ended)),
        }
        self.protect(libc::PROT_READ | libc::PROT_WRITE)?;
        // A fault that has another reason comes again here.
        self.execute_one()?;
        self.protect(libc::PROT_READ)?;
        Ok(true)
    }

    /// Has the child change its access to the memory.
    fn protect(&mut self, access: libc::c_int) -> Result<(), StepError> {
        let before = self.registers()?;
        let call = libc::user_regs_struct {
            rip: self.syscall,
            rax: u64::try_from(libc::SYS_mprotect).expect("a small number"),
            rdi: self.memory.start as u64,
            rsi: self.memory.len() as u64,
            rdx: u64::try_from(access).expect("flags"),
            // No system call is under way that the kernel might start again.
            orig_rax: u64::MAX,
            ..before
        };
        ptrace::setregs(self.pid, call).map_err(trace_error)?;
        self.execute_one()?;
        assert_eq!(self.registers()?.rax, 0, "the child's mprotect succeeds");
        ptrace::setregs(self.pid, before).map_err(trace_error)
    }

    fn execute_one(&mut self) -> Result<(), StepError> {
        ptrace::step(self.pid, None).map_err(trace_error)?;
        match self.wait()? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => Ok(()),
            ended => Err(StepError::Ended(ended)),
        }
    }

    fn registers(&self) -> Result<libc::user_regs_struct, StepError> {
        ptrace::getregs(self.pid).map_err(trace_error)
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
            // The kernel marks the locks of a process that dies, and does so with the access of that process.
            // If it cannot, it was killed by another process, and then the caller knows.
            let _ = self.protect(libc::PROT_READ | libc::PROT_WRITE);
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
