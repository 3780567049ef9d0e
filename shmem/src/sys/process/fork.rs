//! Forking, and what only a process just forked may do.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{io, mem};

use nix::unistd::ForkResult;
use rustix::io::Errno;
use rustix::process::{self, Pid};

use crate::sys::process::child::wait_for;
use crate::sys::process::id::{ProcessId, forget_current};
use crate::sys::process::status::ProcessStat;
use crate::sys::{exec, mutex};

/// The exit status of a child whose closure panicked.
pub const EXIT_STATUS_PANIC: u8 = 101;

/// Why [`fork`] failed. There is no new process then.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// Other threads would be missing in the child, and the locks that they hold would stay locked.
    #[error("this process has more than one thread: it must not fork")]
    HasThreads,
    /// The child would inherit the transaction, and could end it without holding its lock.
    #[error("this process has a transaction open: it must not fork")]
    InTransaction,
    /// The threads of this process could not be counted.
    #[error("cannot count this process's threads in /proc/self/task: {0}")]
    CountThreads(#[source] io::Error),
    /// fork(2) failed: the limit of processes, or no memory.
    #[error("cannot fork: {0}")]
    Fork(#[source] io::Error),
    /// The child's start time could not be read. The child was killed and reaped.
    #[error("cannot read the new process's start time: {0}")]
    Identify(#[source] io::Error),
}

/// Number of forks from the first process to this one: tells a process from its parent without a system call.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// A number that differs from those of all processes that this one descends from.
#[inline]
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Runs `child` in a new process, which exits with its result.
///
/// - What `child` owns moves into the new process. The parent's copies (its end of a pipe, for example) are dropped.
/// - The new process ends with `_exit`: no destructor runs twice and no buffer is flushed twice.
/// - If `child` panics, `on_panic` is called, and the exit status is [`EXIT_STATUS_PANIC`].
/// - Blocked signals stay blocked, so that none is lost before the new process has its own
///   [`Signals`](crate::sys::signals::Signals).
///
/// The caller must not ignore SIGCHLD, because the kernel would then reap the children.
///
/// # Errors
///
/// [`ForkError`].
pub fn fork(on_panic: fn(), child: impl FnOnce(NewProcess) -> u8) -> Result<ProcessId, ForkError> {
    if mutex::is_one_held() {
        return Err(ForkError::InTransaction);
    }
    if !is_alone().map_err(ForkError::CountThreads)? {
        return Err(ForkError::HasThreads);
    }
    // SAFETY: in a process with more threads the child may call only async-signal-safe functions. This is the only
    // thread, and no other can start one, so no lock in the child's memory is held by a thread that does not exist
    // there.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Child) => exit_now(run_child(on_panic, child)),
        Ok(ForkResult::Parent { child: pid }) => identify(pid.as_raw()),
        Err(errno) => Err(ForkError::Fork(errno.into())),
    }
}

/// Proof that the process was just forked, for what only such a process may do.
#[derive(Debug)]
pub struct NewProcess(());

impl NewProcess {
    /// Closes all open files apart from standard input, output and error and those in `keep`.
    ///
    /// Costs one system call per gap between the kept descriptors, and the closing itself. Closing a copy of the
    /// parent's epoll does not change that epoll.
    ///
    /// # Safety
    ///
    /// The owners of the closed descriptors still lie in the process's memory, and their numbers may belong to other
    /// files soon. So `keep` contains every descriptor that the process will use, and every one whose owner it will
    /// drop.
    ///
    /// # Errors
    ///
    /// Those of close_range(2): a kernel before Linux 5.9, or a system-call filter.
    pub unsafe fn close_all_except(&self, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
        exec::forget_inherited();
        let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
        kept.sort_unstable();
        let mut next = 3;
        for descriptor in kept {
            if descriptor > next {
                close_range(next, descriptor - 1)?;
            }
            next = next.max(descriptor + 1);
        }
        close_range(next, RawFd::MAX)
    }
}

/// Ends the process at once, without destructors and without flushing.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(i32::from(status)) }
}

fn is_alone() -> io::Result<bool> {
    // The directory has two links of its own and one for each thread. (Reading its entries would dirty a buffer before
    // every fork, and each child would keep pages of it.)
    let links = rustix::fs::stat("/proc/self/task")?.st_nlink;
    Ok(links == 3)
}

fn run_child(on_panic: fn(), child: impl FnOnce(NewProcess) -> u8) -> u8 {
    forget_current();
    GENERATION.fetch_add(1, Ordering::Relaxed);
    // Unwind safe: the process ends, so no data that a panic left half changed is used again.
    let result = catch_unwind(AssertUnwindSafe(|| child(NewProcess(()))));
    result.unwrap_or_else(|payload| {
        // Not dropped: its destructor could panic in turn.
        mem::forget(payload);
        mem::forget(catch_unwind(on_panic));
        EXIT_STATUS_PANIC
    })
}

/// The identity of the child just forked, which was not reaped yet.
fn identify(pid: i32) -> Result<ProcessId, ForkError> {
    let pid_number = pid.cast_unsigned();
    let read = ProcessStat::of(pid_number).and_then(|stat| stat.ok_or_else(|| Errno::SRCH.into()));
    match read {
        Ok(stat) => Ok(ProcessId {
            pid: pid_number,
            start_time: stat.start_time,
        }),
        Err(error) => {
            if let Some(pid) = Pid::from_raw(pid) {
                // Not reaped, so the pid is still the child's. An error means that it has ended already.
                let _ = process::kill_process(pid, process::Signal::KILL);
                let _ = wait_for(pid);
            }
            Err(ForkError::Identify(error))
        }
    }
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: only a process just forked has a `NewProcess`. The owners that it inherited never run again, apart from
    // those that its caller kept. No memory depends on a descriptor.
    let result = unsafe { libc::close_range(first.cast_unsigned(), last.cast_unsigned(), 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
