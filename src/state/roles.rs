//! The processes that the supervisor keeps running, and their slots in the header.

use std::io;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::config::Config;
use crate::limits::{KEEPERS_MAX, TICKERS_MAX};
use crate::state::header::{Header, RoleSlot};
use crate::state::layout::Memory;
use shmem::sys::process::Lifeline;

/// A kind of process that the supervisor forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs what happens by time.
    Ticker,
    /// Holds the sockets of connections and forks their handlers.
    Keeper,
    /// Accepts connections.
    Listener,
}

impl Role {
    /// All roles, in the order in which they are started.
    pub(crate) const ALL: [Self; 3] = [Self::Ticker, Self::Keeper, Self::Listener];

    /// The name in logs, `ps` and the console.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ticker => "ticker",
            Self::Keeper => "keeper",
            Self::Listener => "listener",
        }
    }

    /// Index of the first one's slot in the header. It does not depend on the configuration, which an upgrade may
    /// change while processes of the program before use their slots.
    fn first_slot(self) -> usize {
        match self {
            Self::Ticker => 0,
            Self::Keeper => TICKERS_MAX,
            Self::Listener => TICKERS_MAX + KEEPERS_MAX,
        }
    }

    /// How many processes have this role.
    pub(crate) fn count(self, config: &Config) -> u32 {
        match self {
            Self::Keeper => config.keepers,
            Self::Ticker => config.tickers,
            Self::Listener => 1,
        }
    }
}

/// One process of a role, independent of its present pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoleInstance {
    pub(crate) role: Role,
    /// Its number among the processes of the role, from 0.
    pub(crate) index: u32,
    /// Index of its slot in the header.
    pub(crate) slot: usize,
}

impl RoleInstance {
    /// All instances, in the order in which they are started.
    pub(crate) fn all(config: &Config) -> Vec<Self> {
        let instances = Role::ALL
            .into_iter()
            .flat_map(|role| (0..role.count(config)).map(move |index| (role, index)));
        instances
            .map(|(role, index)| Self {
                role,
                index,
                slot: role.first_slot() + index as usize,
            })
            .collect()
    }

    /// The name in logs and the console: `listener`, `keeper 0`.
    pub(crate) fn name(self, config: &Config) -> String {
        match self.role.count(config) {
            1 => self.role.name().to_owned(),
            _ => format!("{} {}", self.role.name(), self.index),
        }
    }

    /// The instance's slot.
    pub(crate) fn slot(self, memory: &Memory) -> &'static RoleSlot {
        &memory.header.roles[self.slot]
    }
}

/// Signals the supervisor.
///
/// # Errors
///
/// Those of pidfd_open(2) and pidfd_send_signal(2); `ESRCH` if the supervisor is gone.
pub(crate) fn signal_supervisor(header: &Header, lifeline: &Lifeline, signal: Signal) -> io::Result<()> {
    let pid = header.supervisor_pid.load(Ordering::Relaxed);
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Errno::SRCH)?;
    let supervisor = pidfd_open(pid, PidfdFlags::empty())?;
    // The lifeline is cut when the supervisor ends. While it holds, the pid was the supervisor's when the descriptor
    // was opened.
    if lifeline.is_cut()? {
        return Err(Errno::SRCH.into());
    }
    Ok(pidfd_send_signal(supervisor, signal)?)
}
