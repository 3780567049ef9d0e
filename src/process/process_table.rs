//! The table of the roles' entry functions, and how each role begins.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use rustix::process::Signal;

use crate::config::{Config, Settings};
use crate::logging;
use crate::process::ipc::IpcHandles;
use crate::process::{keeper, listener, ticker};
use crate::state::header::RoleSlot;
use crate::state::layout::Memory;
use crate::state::roles::{Role, RoleInstance, signal_supervisor};
use forkade_games::Games;
use shmem::sys::process::{NewProcess, ProcessId, set_name};
use shmem::sys::signals::ignore_interrupts;

/// What every process of the server is given.
#[derive(Clone, Copy)]
pub(crate) struct Context {
    pub(crate) memory: &'static Memory,
    pub(crate) games: &'static Games,
    pub(crate) ipc: &'static IpcHandles,
    pub(crate) config: &'static Config,
    /// Number of the program that this process runs: see [`Header::build`](crate::state::header::Header::build).
    pub(crate) build: u32,
    /// The configuration with the source of each setting.
    pub(crate) settings: &'static Settings,
}

impl Context {
    /// Signals the supervisor.
    ///
    /// # Errors
    ///
    /// Those of [`signal_supervisor`].
    pub(crate) fn signal_supervisor(self, signal: Signal) -> io::Result<()> {
        signal_supervisor(self.memory.header, &self.ipc.lifeline, signal)
    }
}

/// What the processes of a role run, which gives their exit status. Each is started again whenever it exits before
/// the server does.
fn entry_of(role: Role) -> fn(&RoleStart) -> io::Result<u8> {
    match role {
        Role::Ticker => ticker::run,
        Role::Keeper => keeper::run,
        Role::Listener => listener::run,
    }
}

/// A process of a role when it starts.
pub(crate) struct RoleStart {
    pub(crate) context: Context,
    pub(crate) index: u32,
    instance: RoleInstance,
    new_process: NewProcess,
}

/// Closes every descriptor of a process just forked but the standard streams and `keep`.
///
/// This is the one unsafe operation outside `shmem::sys`. The rule that makes it sound concerns the whole of a process,
/// and types cannot express it: an entry function keeps, as its first act, all that it ever uses. What it does not keep
/// lies in its parent's frames, which it never returns to, or in the context that it was given, which it never drops.
///
/// # Errors
///
/// Those of close_range(2).
#[allow(unsafe_code)]
pub(crate) fn keep_only(new_process: &NewProcess, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    // SAFETY: see above: nothing that is not in `keep` is used or dropped in this process.
    unsafe { new_process.close_all_except(keep) }
}

impl RoleStart {
    /// Runs the role in the process that was just forked for it. Gives the exit status.
    pub(crate) fn run(context: Context, instance: RoleInstance, new_process: NewProcess) -> u8 {
        let role = instance.role;
        logging::set_role(role.name());
        let start = Self {
            context,
            index: instance.index,
            instance,
            new_process,
        };
        // The supervisor alone decides how the server ends. Its roles, and the handlers after them, wait for its
        // signal.
        let begun = set_name(role.name()).and_then(|()| ignore_interrupts());
        let begun = begun.and_then(|()| ProcessId::try_current());
        match begun.and_then(|_| entry_of(role)(&start)) {
            Ok(status) => status,
            Err(error) => {
                log::error!("cannot continue: {error}");
                1
            }
        }
    }

    /// See [`keep_only`].
    pub(crate) fn keep_only(&self, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
        keep_only(&self.new_process, keep)
    }

    /// Tells the supervisor that the role is ready.
    pub(crate) fn report_ready(&self) {
        self.instance
            .slot(self.context.memory)
            .ready
            .store(1, Ordering::Release);
        self.context.ipc.ready.ring();
    }

    /// By which the process shows that it makes progress.
    pub(crate) fn liveness(&self) -> LivenessHandle {
        LivenessHandle {
            memory: self.context.memory,
            slot: self.instance.slot(self.context.memory),
        }
    }
}

/// By which a process of a role shows that it makes progress.
#[derive(Clone, Copy)]
pub(crate) struct LivenessHandle {
    memory: &'static Memory,
    slot: &'static RoleSlot,
}

impl LivenessHandle {
    /// To be called whenever the process wakes up, and repeatedly in whatever takes long.
    pub(crate) fn report(self) {
        self.slot.liveness.record_progress();
        self.slot.pong.answer(&self.memory.header.ping);
    }
}
