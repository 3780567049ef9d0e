//! Processes: forking, identity, reaping, and what a new process sheds or sets for itself.
//!
//! A forked child has the parent's memory and the parent's open files, but it is not the parent: it never returns into the
//! parent's code and never runs the parent's destructors. [`fork`] sees to that. What the child does not need, it gives up with
//! [`NewProcess::close_all_except`].

mod stat;

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::signal::Signal;
use nix::unistd::ForkResult;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{self, Pid, PidfdFlags, Resource, Rlimit, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};

use crate::sys::process::stat::ProcessStat;
pub use crate::sys::process::stat::{ProcessStatus, RunState};

/// The exit status of a child whose closure panicked.
pub const EXIT_STATUS_PANIC: u8 = 101;

/// Why there is no new process.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// A thread other than the forking one would be missing in the child, with the locks it holds locked for good.
    #[error("this process has more than one thread: it must not fork")]
    HasThreads,
    /// Whether there are other threads could not be found out.
    #[error("cannot count this process's threads in /proc/self/task: {0}")]
    CountThreads(#[source] io::Error),
    /// fork(2) refused: the limit of processes, or memory.
    #[error("cannot fork: {0}")]
    Fork(#[source] io::Error),
    /// The child's start time could not be read; the child was killed and reaped.
    #[error("cannot read the new process's start time: {0}")]
    Identify(#[source] io::Error),
}

/// Runs `child` in a new process, which ends when it returns: with its result as exit status.
///
/// - What `child` owns moves into the new process; the parent's copies of it (its end of a pipe, say) are closed at once.
/// - The child ends with `_exit`: nothing of the parent's is dropped or flushed twice.
/// - If `child` panics, `on_panic` is called, and the exit status is [`EXIT_STATUS_PANIC`].
/// - Blocked signals stay blocked, so that none is lost before the child has its own
///   [`Signals`](crate::sys::signals::Signals).
///
/// SIGCHLD must not be ignored by the parent: the kernel would then reap children by itself.
///
/// # Errors
///
/// [`ForkError`]; then there is no new process.
pub fn fork(on_panic: fn(), child: impl FnOnce(NewProcess) -> u8) -> Result<ProcessId, ForkError> {
    if !is_alone().map_err(ForkError::CountThreads)? {
        return Err(ForkError::HasThreads);
    }
    // SAFETY: this is the only thread, and only it could start another: the child's memory is whole, no lock in it is held
    // by a thread that does not exist there, so the child may do anything.
    match unsafe { nix::unistd::fork() } {
        Ok(ForkResult::Child) => exit_now(run_child(on_panic, child)),
        Ok(ForkResult::Parent { child: pid }) => identify(pid.as_raw()),
        Err(errno) => Err(ForkError::Fork(errno.into())),
    }
}

/// Given to a process just forked: what only such a process may do.
#[derive(Debug)]
pub struct NewProcess(());

impl NewProcess {
    /// Closes all open files but standard input, output and error and those in `keep`.
    ///
    /// Owners in the child's memory do not notice: whatever the child goes on to use must be in `keep`, and so must whatever
    /// it will drop, for a number that was closed may belong to another file by then. Owners that the child leaves alone, as
    /// it leaves all of its parent's, are harmless. Closing a parent's epoll edits nothing in the parent.
    ///
    /// Costs one system call per gap between kept descriptors, plus what closing costs the kernel.
    ///
    /// # Errors
    ///
    /// Those of close_range(2): a kernel before Linux 5.9, or a system-call filter.
    pub fn close_all_except(&self, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
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

/// Ends the process at once: no destructors, nothing flushed.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(i32::from(status)) }
}

/// What [`ProcessId::try_current`] has found; 0: nothing in this process.
static FOUND_PID: AtomicU32 = AtomicU32::new(0);
/// See [`FOUND_PID`].
static FOUND_START_TIME: AtomicU64 = AtomicU64::new(0);

/// Which process: pids are used again, a pid together with its start time is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid.
    pub pid: u32,
    /// When it was started, in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_time: u64,
}

/// No pid needs more: `PID_MAX_LIMIT` of the kernel is 2²².
const PID_BITS: u32 = 22;

impl ProcessId {
    /// As one number, which is 0 for no process. What is left beside the pid counts ticks for a thousand years.
    pub fn to_u64(self) -> u64 {
        self.start_time << PID_BITS | u64::from(self.pid)
    }

    /// From [that number](Self::to_u64).
    pub fn from_u64(number: u64) -> Option<Self> {
        let pid = u32::try_from(number & ((1 << PID_BITS) - 1)).expect("masked");
        (number != 0).then_some(Self {
            pid,
            start_time: number >> PID_BITS,
        })
    }

    /// This process. Once it was found, it is known without looking.
    ///
    /// # Errors
    ///
    /// If `/proc/self/stat` cannot be read, for want of a descriptor, say.
    pub fn try_current() -> io::Result<Self> {
        let pid = std::process::id();
        if FOUND_PID.load(Ordering::Acquire) != pid {
            let stat = ProcessStat::read("/proc/self/stat")?.ok_or(Errno::SRCH)?;
            FOUND_START_TIME.store(stat.start_time, Ordering::Relaxed);
            FOUND_PID.store(pid, Ordering::Release);
        }
        let start_time = FOUND_START_TIME.load(Ordering::Relaxed);
        Ok(Self { pid, start_time })
    }

    /// This process, for who has [found](Self::try_current) itself.
    ///
    /// # Panics
    ///
    /// If it has not, and `/proc/self/stat` cannot be read.
    pub fn current() -> Self {
        Self::try_current().expect("/proc/self/stat can be read")
    }

    /// Whether it can still execute an instruction. A process that is dead but not reaped cannot: its files are closed by then,
    /// and its robust mutexes marked.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read, for want of a descriptor, say: then nothing is known.
    pub fn is_alive(self) -> io::Result<bool> {
        let stat = ProcessStat::of(self.pid)?;
        Ok(stat.is_some_and(|stat| stat.start_time == self.start_time && !stat.is_dead()))
    }

    /// Whether there is no process of this pid any more, neither this one nor another. Costs one short system call; of one that was not
    /// reaped yet, and of one that may not be signalled, it says no.
    pub fn pid_is_free(self) -> bool {
        self.raw()
            .is_none_or(|pid| matches!(process::test_kill_process(pid), Err(Errno::SRCH)))
    }

    /// A descriptor of the process, readable when it has ended; `None` if it was reaped already.
    ///
    /// # Errors
    ///
    /// No descriptor left, or `/proc` cannot be read.
    pub fn open_pidfd(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = self.raw() else { return Ok(None) };
        let pidfd = match process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Err(Errno::SRCH) => return Ok(None),
            opened => opened?,
        };
        // Opened first, so it cannot be that of a later process once the pid is found to be still this one's.
        let stat = ProcessStat::of(self.pid)?;
        Ok(stat
            .filter(|stat| stat.start_time == self.start_time)
            .map(|_| pidfd))
    }

    /// Sends a signal to this process and no other; tells whether it was there to get it. One that is dead but not reaped
    /// counts as there.
    ///
    /// # Errors
    ///
    /// Those of [`ProcessId::open_pidfd`], or no right to signal that process.
    pub fn send_signal(self, signal: Signal) -> io::Result<bool> {
        let Some(pidfd) = self.open_pidfd()? else {
            return Ok(false);
        };
        let signal =
            process::Signal::from_named_raw(signal as i32).expect("named signals have the same numbers");
        match process::pidfd_send_signal(pidfd, signal) {
            Err(Errno::SRCH) => Ok(false),
            sent => sent.map(|()| true).map_err(io::Error::from),
        }
    }

    /// Waits until this child has ended, and reaps it.
    ///
    /// # Errors
    ///
    /// It is no child of this process, or was reaped already.
    pub fn wait(self) -> io::Result<Exit> {
        let not_ours = io::Error::from(Errno::CHILD);
        match (self.raw(), ProcessStat::of(self.pid)?) {
            (Some(pid), Some(stat)) if stat.start_time == self.start_time => wait_for(pid),
            _ => Err(not_ours),
        }
    }

    fn raw(self) -> Option<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.pid)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Code(u8),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// `None` for a process that has not ended (its tracer is told of stops, too).
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

/// A child that has ended and is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// The pid it had: from now on the kernel may use it again.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
}

/// What has become of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEvent {
    /// It has ended and is no more.
    Exited(Reaped),
    /// It was stopped by a signal.
    Stopped {
        /// Which one: it is still there.
        pid: u32,
    },
}

/// Reaps the children that have ended, without waiting. Take all: one SIGCHLD may stand for several.
///
/// Each step costs what `waitpid(-1)` costs, which grows with the children alive (34 µs with 1,000).
pub fn reap() -> impl Iterator<Item = Reaped> {
    child_events().filter_map(|event| match event {
        ChildEvent::Exited(reaped) => Some(reaped),
        ChildEvent::Stopped { .. } => None,
    })
}

/// As [`reap`], and tells as well which children were stopped meanwhile.
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

/// Makes this process the one that adopts, and reaps, what its descendants leave behind.
///
/// # Errors
///
/// Those of prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    Ok(process::set_child_subreaper(Some(process::getpid()))?)
}

/// Switches core dumps off for this process and its children to come: while one is written, the dead process's locks stay held.
///
/// The limit is one byte, not zero: no dump fits in it either, and it is the only one that the kernel obeys where
/// `/proc/sys/kernel/core_pattern` is a pipe. (`PR_SET_DUMPABLE` would hide the process's figures in `/proc` as well.)
///
/// # Errors
///
/// Those of setrlimit(2).
pub fn disable_core_dumps() -> io::Result<()> {
    let maximum = process::getrlimit(Resource::Core)
        .maximum
        .map_or(1, |maximum| maximum.min(1));
    Ok(process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(maximum),
            maximum: Some(maximum),
        },
    )?)
}

/// Raises the limit of open files as far as it goes without privileges, and gives it; `None` is no limit.
///
/// # Errors
///
/// Those of setrlimit(2).
pub fn raise_open_file_limit() -> io::Result<Option<u64>> {
    let Rlimit { maximum, .. } = process::getrlimit(Resource::Nofile);
    process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    Ok(maximum)
}

/// Names this process in `ps` and `/proc`. The kernel cuts the name after 15 bytes.
///
/// # Errors
///
/// The name contains a NUL.
pub fn set_name(name: &str) -> io::Result<()> {
    Ok(rustix::thread::set_name(&std::ffi::CString::new(name)?)?)
}

/// Lets the kernel kill this process when its parent ends. For a child that runs another program, which knows nothing of lifelines.
///
/// # Errors
///
/// Those of prctl(2).
pub fn die_with_parent() -> io::Result<()> {
    Ok(process::set_parent_process_death_signal(Some(
        process::Signal::KILL,
    ))?)
}

/// Makes a lifeline: while its holder lives, the other end is quiet.
///
/// # Errors
///
/// No descriptor left.
pub fn lifeline() -> io::Result<(LifelineHolder, Lifeline)> {
    let (read_end, write_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    Ok((LifelineHolder { write_end }, Lifeline { read_end }))
}

/// The end of a lifeline by whose death it is cut. Every child forked while it exists must close its copy
/// ([`NewProcess::close_all_except`] does): the line is cut when the last copy is gone.
#[derive(Debug)]
pub struct LifelineHolder {
    write_end: OwnedFd,
}

impl AsFd for LifelineHolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.write_end.as_fd()
    }
}

/// For the program that goes on in the holder's place.
impl From<OwnedFd> for LifelineHolder {
    fn from(write_end: OwnedFd) -> Self {
        Self { write_end }
    }
}

/// The end of a lifeline that all processes inherit which must end with its holder: a poll reports it as readable or hung
/// up when the holder is gone, however it died. Nothing is ever sent.
#[derive(Debug)]
pub struct Lifeline {
    read_end: OwnedFd,
}

impl Lifeline {
    /// Whether the holder is gone.
    ///
    /// # Errors
    ///
    /// Those of poll(2): no memory.
    pub fn is_cut(&self) -> io::Result<bool> {
        let mut poll = [PollFd::new(&self.read_end, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&at_once)))?;
        Ok(poll[0].revents().contains(PollFlags::HUP))
    }
}

/// For the program that goes on in the holder's place.
impl From<OwnedFd> for Lifeline {
    fn from(read_end: OwnedFd) -> Self {
        Self { read_end }
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read_end.as_fd()
    }
}

fn is_alone() -> io::Result<bool> {
    // The kernel counts the threads in the folder's links, beside its own two. (Reading the folder would dirty a buffer before
    // every fork, and each child would keep pages of it.)
    let links = rustix::fs::stat("/proc/self/task")?.st_nlink;
    Ok(links == 3)
}

fn run_child(on_panic: fn(), child: impl FnOnce(NewProcess) -> u8) -> u8 {
    // That was the parent, or somebody before it.
    FOUND_PID.store(0, Ordering::Release);
    // Nothing that a panic could leave half done is ever looked at again: the process ends.
    let result = catch_unwind(AssertUnwindSafe(|| child(NewProcess(()))));
    result.unwrap_or_else(|payload| {
        // Its drop is not our code and could panic in turn.
        mem::forget(payload);
        mem::forget(catch_unwind(on_panic));
        EXIT_STATUS_PANIC
    })
}

/// The identity of the child just forked, which nobody has reaped.
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
                // Ours and not reaped, so the pid is still the child's. If it is gone, so much the better.
                let _ = process::kill_process(pid, process::Signal::KILL);
                let _ = wait_for(pid);
            }
            Err(ForkError::Identify(error))
        }
    }
}

fn wait_for(pid: Pid) -> io::Result<Exit> {
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

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: only a process just forked gets here (`NewProcess`), whose parent's owners never run again; those that the
    // child itself goes on to use are its own to name. No memory depends on a descriptor.
    let result = unsafe { libc::close_range(first.cast_unsigned(), last.cast_unsigned(), 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
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

    #[test]
    fn a_lifeline_is_cut_when_its_holder_goes() {
        let (holder, line) = lifeline().expect("descriptors");
        assert!(!line.is_cut().expect("poll"));
        drop(holder);
        assert!(line.is_cut().expect("poll"));
    }
}
