//! The identity of a process, which survives the reuse of its pid.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::{fmt, io};

use nix::sys::signal::Signal;
use rustix::io::Errno;
use rustix::process::{self, Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use crate::sys::process::child::{Exit, wait_for};
use crate::sys::process::status::ProcessStat;

/// The pid that [`ProcessId::try_current`] has found; 0 if it was not called in this process.
static FOUND_PID: AtomicU32 = AtomicU32::new(0);
/// The start time of [`FOUND_PID`].
static FOUND_START_TIME: AtomicU64 = AtomicU64::new(0);

/// Identifies a process. The kernel reuses pids, but not together with their start times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid.
    pub pid: u32,
    /// Its start time in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_time: u64,
}

/// Enough for any pid: the kernel's `PID_MAX_LIMIT` is 2²².
const PID_BITS: u32 = 22;

impl ProcessId {
    /// The identity as one number, which is never 0. The bits above the pid hold the ticks of a thousand years.
    #[inline]
    pub fn to_u64(self) -> u64 {
        self.start_time << PID_BITS | u64::from(self.pid)
    }

    /// The process of a [number](Self::to_u64); `None` for 0.
    #[inline]
    pub fn from_u64(number: u64) -> Option<Self> {
        let pid = u32::try_from(number & ((1 << PID_BITS) - 1)).expect("masked");
        (number != 0).then_some(Self {
            pid,
            start_time: number >> PID_BITS,
        })
    }

    /// The calling process. Reads `/proc` on the first call only.
    ///
    /// # Errors
    ///
    /// If `/proc/self/stat` cannot be read, for example without a free descriptor.
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

    /// The calling process.
    ///
    /// # Panics
    ///
    /// If `/proc/self/stat` cannot be read. Not after a successful [`try_current`](Self::try_current).
    pub fn current() -> Self {
        Self::try_current().expect("/proc/self/stat can be read")
    }

    /// True if the process can still execute an instruction. A zombie cannot: its files are closed by then, and its
    /// robust mutexes marked.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read, for example without a free descriptor. The answer is unknown then.
    pub fn is_alive(self) -> io::Result<bool> {
        let stat = ProcessStat::of(self.pid)?;
        Ok(stat.is_some_and(|stat| stat.start_time == self.start_time && !stat.is_dead()))
    }

    /// True if no process has this pid, neither this one nor a later one. A zombie still has it. Costs one short system
    /// call.
    pub(crate) fn pid_is_free(self) -> bool {
        self.raw()
            .is_none_or(|pid| matches!(process::test_kill_process(pid), Err(Errno::SRCH)))
    }

    /// A descriptor of the process, which is readable when the process has ended; `None` if it was reaped already.
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
        // The start time is read after opening. If it matches, the descriptor cannot be that of a later process.
        let stat = ProcessStat::of(self.pid)?;
        Ok(stat
            .filter(|stat| stat.start_time == self.start_time)
            .map(|_| pidfd))
    }

    /// Sends a signal to this process and no other. Returns false if it was reaped already; a zombie counts as present.
    ///
    /// # Errors
    ///
    /// Those of [`ProcessId::open_pidfd`], or no permission to signal the process.
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
    /// `ECHILD` if it is no child of this process or was reaped already; those of reading `/proc`.
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

/// In a process just forked: forgets the identity that its parent found.
pub(super) fn forget_current() {
    FOUND_PID.store(0, Ordering::Release);
}

impl fmt::Display for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.pid)
    }
}
