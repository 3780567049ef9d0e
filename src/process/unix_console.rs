//! The console's unix socket: a file that only the server's user can connect through.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Why the server cannot listen there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnixConsoleError {
    #[error("{} is in use by another server: stop that one, or choose another path", .0.display())]
    InUse(PathBuf),
    #[error("{} is no socket: choose another path for the console, or remove it", .0.display())]
    NoSocket(PathBuf),
    #[error("cannot listen on {}: {step} failed: {source}", path.display())]
    System {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Listens on a unix socket, non-blocking, that only this user can connect to. The file of a server that is dead is
/// replaced.
///
/// # Errors
///
/// [`UnixConsoleError`].
pub(crate) fn listen(path: &Path, backlog: u32) -> Result<UnixListener, UnixConsoleError> {
    let failed = |step| {
        move |source: io::Error| UnixConsoleError::System {
            step,
            path: path.to_owned(),
            source,
        }
    };
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(failed("socket"))?;
    let address = SockAddr::unix(path).map_err(failed("the path"))?;
    socket.bind(&address).map_err(failed("bind"))?;
    // No process can connect before listen(2), so the permissions are in force from the first connection on.
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(failed("chmod"))
        .and_then(|()| {
            socket
                .listen(i32::try_from(backlog).unwrap_or(i32::MAX))
                .map_err(failed("listen"))
        })
        .inspect_err(|_| unlink(path))?;
    Ok(socket.into())
}

/// Removes the socket's file. Only the server that listens there may call this: no other one has replaced it.
pub(crate) fn unlink(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        log::warn!("cannot remove the console's socket {}: {error}", path.display());
    }
}

/// Removes the file of a socket that no process listens on.
fn remove_stale(path: &Path) -> Result<(), UnixConsoleError> {
    match fs::symlink_metadata(path) {
        Err(_) => return Ok(()),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(UnixConsoleError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    // Non-blocking: a living server may be stopped, with its backlog full.
    let connected = SockAddr::unix(path).and_then(|address| {
        let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        probe.connect(&address)
    });
    match connected {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            log::info!("replacing {}, which a dead server has left", path.display());
            unlink(path);
            Ok(())
        }
        _ => Err(UnixConsoleError::InUse(path.to_owned())),
    }
}
