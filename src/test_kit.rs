//! For the tests of programs that are built with this library: a server of one's own on free ports. For a game alone,
//! without a server, see [`games::test_kit`](crate::games::test_kit).

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running server. It is stopped when dropped.
///
/// ```no_run
/// // In tests/ of a package with the binary `my-server`:
/// # fn main() -> std::io::Result<()> {
/// # let program = "my-server"; /*
/// let program = env!("CARGO_BIN_EXE_my-server");
/// # */
/// let server = forkade::test_kit::TestServer::start(program, &["--seat-grace-ms", "500"])?;
/// let _connection = std::net::TcpStream::connect(server.game())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestServer {
    child: Child,
    game: SocketAddr,
    console: SocketAddr,
}

impl TestServer {
    /// Runs `program`, which ends in [`Server::main`](crate::Server::main), on ports that the kernel chooses, and waits
    /// until it can be connected to. (A server forks, so it cannot run inside a test, which has threads.)
    ///
    /// # Errors
    ///
    /// It cannot be run, or ends without a ready line; its log on stderr says why.
    pub fn start(program: impl AsRef<Path>, arguments: &[&str]) -> io::Result<Self> {
        let mut child = Command::new(program.as_ref())
            .args(["--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let ready: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        let address = |key: &str| ready.as_ref()?.get(key)?.as_str()?.parse().ok();
        match (address("game"), address("console")) {
            (Some(game), Some(console)) => Ok(Self { child, game, console }),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                Err(io::Error::other(format!("no ready line, but {line:?}")))
            }
        }
    }

    /// Where players connect.
    pub fn game(&self) -> SocketAddr {
        self.game
    }

    /// Where operators connect.
    pub fn console(&self) -> SocketAddr {
        self.console
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // The first one drains, the second one stops at once.
            for _ in 0..2 {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        let _ = self.child.wait();
    }
}
