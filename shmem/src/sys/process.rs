//! Processes: forking, identity, reaping, lifelines, and settings of the calling process.
//!
//! A forked child has the parent's memory and open files. It never returns into the parent's code and never runs the
//! parent's destructors; [`fork`] sees to that. It closes the files that it does not need with
//! [`NewProcess::close_all_except`].

mod child;
mod fork;
mod id;
mod lifeline;
mod status;

use std::io;

use rustix::process::{self, Resource, Rlimit};

pub use crate::sys::process::child::{ChildEvent, Exit, Reaped, child_events, reap};
pub(crate) use crate::sys::process::fork::generation;
pub use crate::sys::process::fork::{EXIT_STATUS_PANIC, ForkError, NewProcess, exit_now, fork};
pub use crate::sys::process::id::ProcessId;
pub use crate::sys::process::lifeline::{Lifeline, LifelineHolder, lifeline};
pub use crate::sys::process::status::{ProcessStatus, RunState, process_of_thread};

/// Makes this process the parent of its orphaned descendants, which it must then reap.
///
/// # Errors
///
/// Those of prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    Ok(process::set_child_subreaper(Some(process::getpid()))?)
}

/// Disables core dumps for this process and its future children: the locks of a dead process stay held while a dump is
/// written.
///
/// The limit is one byte, not zero. No dump fits into one byte, and where `/proc/sys/kernel/core_pattern` is a pipe the
/// kernel obeys no other limit. (`PR_SET_DUMPABLE` would also hide the process's files in `/proc`.)
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

/// Raises the soft limit of open files to the hard limit, and returns that; `None` is no limit.
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

/// Lets the kernel kill this process when its parent ends. For a child that will run another program, without a
/// lifeline.
///
/// # Errors
///
/// Those of prctl(2).
pub fn die_with_parent() -> io::Result<()> {
    Ok(process::set_parent_process_death_signal(Some(
        process::Signal::KILL,
    ))?)
}
