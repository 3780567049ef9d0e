//! The limit of open files: each client takes one.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files besides the clients' connections.
const OTHER_FILES: u64 = 32;

/// Why there are not enough open files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenFilesError {
    #[error(
        "{clients} clients need {needed} open files a process, and one may have {hard}: \
         use fewer clients, more --swarm-processes, or raise the hard limit (ulimit -Hn)"
    )]
    TooFew { clients: u32, needed: u64, hard: u64 },
    #[error("cannot raise the limit of open files: {0}")]
    Raise(io::Error),
}

/// Checks that the hard limit suffices for `clients` clients, divided among `processes` processes.
///
/// # Errors
/// When it does not.
pub(crate) fn check(clients: u32, processes: u32) -> Result<(), OpenFilesError> {
    let needed = u64::from(clients.div_ceil(processes)) + OTHER_FILES;
    match getrlimit(Resource::Nofile).maximum {
        Some(hard) if hard < needed => Err(OpenFilesError::TooFew {
            clients,
            needed,
            hard,
        }),
        _ => Ok(()),
    }
}

/// Raises the soft limit of this process to its hard limit.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn raise() -> Result<(), OpenFilesError> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|error| OpenFilesError::Raise(error.into()))
}
