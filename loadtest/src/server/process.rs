//! Starts a server (this executable, run again as `serve`) or a [peer](super::peer), waits until it is ready,
//! and stops it at the end.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdout, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::Deserialize;

use crate::machine::process_tree::Stat;
use crate::server::log::{LogError, READ_TIMEOUT, READ_TIMEOUT_RUNNING, ServerLog};
use crate::server::peer::ServerChoice;

const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// A server with thousands of handlers needs time to close all connections; beyond this it is taken to hang.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a server in this process, with this process's arguments.
pub(crate) fn serve(arguments: Vec<OsString>) -> ExitCode {
    end_with_parent(|| forkade::Server::standard().main_from(arguments))
}

/// Runs the floor in this process.
pub(crate) fn serve_floor() -> ExitCode {
    // The load generator blocks these signals, and its children inherit that. The floor must end by them.
    if let Err(cause) = SigSet::empty().thread_set_mask() {
        eprintln!("cannot unblock signals: {cause}");
        return ExitCode::from(2);
    }
    end_with_parent(forkade_floor::main)
}

/// A load generator that is killed cannot stop its server, so the kernel does it. Only the server's root
/// process has this setting; its forks do not inherit it.
fn end_with_parent(serve: impl FnOnce() -> ExitCode) -> ExitCode {
    match set_parent_process_death_signal(Some(Signal::TERM)) {
        Ok(()) => serve(),
        Err(cause) => {
            eprintln!("cannot request a signal for the end of the load generator: {cause}");
            ExitCode::from(2)
        }
    }
}

/// A running server that this program started. Dropping it kills it; [`ServerProcess::stop`] stops it in an
/// orderly way.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    ready: Ready,
    log: ServerLog,
    is_forkade: bool,
}

/// The server's ready line.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Ready {
    game: SocketAddr,
    /// `None` if an argument disabled it, and for a peer.
    #[serde(default)]
    console: Option<SocketAddr>,
    pid: u32,
}

/// Why a server could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot start a server: {cause}")]
    Start { cause: io::Error },
    #[error("the server ended before it was ready ({status})")]
    EndedEarly { status: ExitStatus },
    #[error("the server was not ready within {} seconds", READY_TIMEOUT.as_secs())]
    NotReady,
    /// It did not start; with the end of its log.
    #[error("{cause}\n{log_tail}")]
    WithLog { cause: Box<Self>, log_tail: String },
    #[error("cannot read the server's ready line {line:?}: {cause}")]
    ReadyLine { line: String, cause: serde_json::Error },
    #[error("cannot stop the server (pid {pid}): {cause}")]
    Stop { pid: u32, cause: io::Error },
    #[error("the server (pid {pid}) had not stopped {} seconds after SIGTERM and was killed", STOP_TIMEOUT.as_secs())]
    NotStopping { pid: u32 },
    #[error("the server did not stop cleanly: {status}")]
    BadExit { status: ExitStatus },
}

impl ServerProcess {
    /// Starts a server on free ports and waits until it is ready. Its log is appended to `log`, or goes to
    /// stderr if that is "-"; without `log` only its end is kept.
    ///
    /// # Errors
    /// When it cannot be started, ends early, or is not ready in time. No process is left running then.
    pub(crate) fn start(choice: &ServerChoice, log: Option<&Path>) -> Result<Self, ServerError> {
        let (mut log, stderr) = ServerLog::open(log)?;
        let own_executable = std::env::current_exe().map_err(|cause| ServerError::Start { cause })?;
        let mut child = choice
            .command(&own_executable)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // A Ctrl-C on the terminal is for the load generator, which stops its server itself.
            .process_group(0)
            .spawn()
            .map_err(|cause| ServerError::Start { cause })?;
        log.read_pipe(child.stderr.take());
        let stdout = child.stdout.take();
        match stdout
            .ok_or(ServerError::NotReady)
            .and_then(|stdout| read_ready_line(stdout, &mut child))
        {
            Ok(ready) => Ok(Self {
                child,
                ready,
                log,
                is_forkade: matches!(choice, ServerChoice::Forkade(_)),
            }),
            Err(cause) => {
                kill_and_reap(&mut child);
                Err(match log.tail(READ_TIMEOUT) {
                    Some(log_tail) => ServerError::WithLog {
                        cause: Box::new(cause),
                        log_tail,
                    },
                    None => cause,
                })
            }
        }
    }

    /// Address of the game port.
    pub(crate) fn game(&self) -> SocketAddr {
        self.ready.game
    }

    /// Address of the console, if it has one.
    pub(crate) fn console(&self) -> Option<SocketAddr> {
        self.ready.console
    }

    /// The last lines of its log, if there are any.
    pub(crate) fn log_tail(&self) -> Option<String> {
        // It has not been reaped, so its pid cannot belong to another process.
        let is_running = Stat::of(self.child.id()).is_ok_and(|stat| !stat.is_dead());
        self.log.tail(match is_running {
            true => READ_TIMEOUT_RUNNING,
            false => READ_TIMEOUT,
        })
    }

    /// The server's root process.
    pub(crate) fn pid(&self) -> u32 {
        self.ready.pid
    }

    /// Stops the server by SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it does not end, or not with status 0.
    pub(crate) fn stop(mut self) -> Result<(), ServerError> {
        let pid = self.child.id();
        let stop_failed = |cause| ServerError::Stop { pid, cause };
        let target = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let target = target.ok_or_else(|| stop_failed(io::ErrorKind::InvalidInput.into()))?;
        kill_process(target, Signal::TERM).map_err(|cause| stop_failed(cause.into()))?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            match self.child.try_wait().map_err(stop_failed)? {
                Some(status) if self.is_expected(status) => return Ok(()),
                Some(status) => return Err(ServerError::BadExit { status }),
                None if Instant::now() > deadline => return Err(ServerError::NotStopping { pid }),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Peers may end by the signal: they have no state to save.
    fn is_expected(&self, status: ExitStatus) -> bool {
        status.success() || !self.is_forkade && status.signal() == Some(Signal::TERM.as_raw())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        kill_and_reap(&mut self.child);
    }
}

/// Kills and reaps the process if it is still running. After an orderly stop this does nothing.
fn kill_and_reap(child: &mut Child) {
    if let Err(cause) = child.kill().and_then(|()| child.wait()) {
        eprintln!("cannot end the server, pid {}: {cause}", child.id());
    }
}

fn read_ready_line(stdout: ChildStdout, child: &mut Child) -> Result<Ready, ServerError> {
    let (sender, receiver) = mpsc::channel();
    // The thread reads to the end, so that further output of the server never blocks it.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // After the first line the receiver is gone.
            let _ = sender.send(line);
        }
    });
    match receiver.recv_timeout(READY_TIMEOUT) {
        Ok(line) => serde_json::from_str(&line).map_err(|cause| ServerError::ReadyLine { line, cause }),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(ServerError::NotReady),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let status = child.wait().map_err(|cause| ServerError::Start { cause })?;
            Err(ServerError::EndedEarly { status })
        }
    }
}
