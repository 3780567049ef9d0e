//! The console's unix socket: a file that only the server's user can connect through.
//!
//! A socket's file outlives its server, so each server that starts looks whether another one listens there, and
//! replaces the file if not. Between the look and listen(2) it holds a lock on the directory: of two servers that start
//! at the same time, the second one looks when the first one listens.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use shmem::sys::clock::now_ms;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::limits::{DIRECTORY_LOCK_POLL_MS, DIRECTORY_LOCK_TIMEOUT_MS};

/// Why the server cannot listen there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnixConsoleError {
    #[error("{} is in use by another server: stop that one, or choose another path", .0.display())]
    InUse(PathBuf),
    #[error("{} is no socket: choose another path for the console, or remove it", .0.display())]
    NoSocket(PathBuf),
    #[error("cannot listen on {}: another process keeps its directory locked: stop that one, or choose another directory", .0.display())]
    DirectoryLocked(PathBuf),
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
    // Held until the socket listens.
    let _directory = lock_directory(path)?;
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

/// Locks the directory of a path, without a file that would be left over. The kernel releases the lock when the file is
/// closed, also that of a process that is killed.
fn lock_directory(path: &Path) -> Result<File, UnixConsoleError> {
    let failed = |source: io::Error| UnixConsoleError::System {
        step: "the lock on its directory",
        path: path.to_owned(),
        source,
    };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let directory = File::open(directory).map_err(failed)?;
    let give_up_at_ms = now_ms() + DIRECTORY_LOCK_TIMEOUT_MS;
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(Errno::WOULDBLOCK | Errno::INTR) if now_ms() < give_up_at_ms => {
                std::thread::sleep(Duration::from_millis(DIRECTORY_LOCK_POLL_MS));
            }
            Err(Errno::WOULDBLOCK) => return Err(UnixConsoleError::DirectoryLocked(path.to_owned())),
            Err(error) => return Err(failed(error.into())),
        }
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Barrier;

    use super::*;

    /// An empty directory that is removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("forkade-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory can be made");
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn of_servers_that_start_at_the_same_time_one_listens_and_the_others_are_refused() {
        const SERVERS: usize = 4;
        let directory = Directory::new("starts");
        let path = directory.0.join("console");
        for round in 0..300 {
            // What a server that was killed leaves.
            drop(UnixListener::bind(&path).expect("a socket"));
            let start = Barrier::new(SERVERS);
            let started: Vec<_> = std::thread::scope(|scope| {
                let server = || {
                    start.wait();
                    listen(&path, 8)
                };
                let servers: Vec<_> = (0..SERVERS).map(|_| scope.spawn(server)).collect();
                servers
                    .into_iter()
                    .map(|server| server.join().expect("no panic"))
                    .collect()
            });
            let refused = |it: &Result<_, _>| matches!(it, Err(UnixConsoleError::InUse(_)));
            assert_eq!(
                started.iter().filter(|it| refused(it)).count(),
                SERVERS - 1,
                "{round}: {started:?}"
            );
            // The path leads to the one that listens.
            let listening = started.into_iter().find_map(Result::ok).expect("one listens");
            let _operator = UnixStream::connect(&path).expect("it listens");
            listening.accept().expect("the operator has come here");
            unlink(&path);
        }
    }

    #[test]
    fn a_directory_that_stays_locked_is_an_error_and_its_socket_is_left_alone() {
        let directory = Directory::new("locked");
        let path = directory.0.join("console");
        drop(UnixListener::bind(&path).expect("a socket"));
        let stranger = File::open(&directory.0).expect("it is there");
        flock(&stranger, FlockOperation::LockExclusive).expect("it is free");
        let refused = listen(&path, 8).expect_err("it is locked");
        assert!(
            matches!(refused, UnixConsoleError::DirectoryLocked(_)),
            "{refused}"
        );
        assert!(path.exists());
        drop(stranger);
        listen(&path, 8).expect("it is free again");
    }
}
