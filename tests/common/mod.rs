//! Shared by the integration tests: a server of their own, and clients for it.
#![allow(dead_code, unreachable_pub)]

pub mod byte_exact;
pub mod control_pair;
pub mod cutting_proxy;
pub mod footprint;
pub mod killer;
pub mod latencies;
pub mod liveness;
pub mod operator;
pub mod pair;
pub mod random;
pub mod raw_client;
pub mod rooms;
pub mod stream_client;
pub mod tcp_table;
pub mod terminal;
pub mod text_client;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forkade_protocol::client::{Client, ClientOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

/// Arguments for tests that make many requests which are rejected.
pub const MAY_FAIL: [&str; 4] = ["--failures-per-minute", "0", "--guesses-per-minute", "0"];

/// Time limit for any condition: much longer than it ever takes.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// The real server, on ports chosen by the kernel. When dropped, it is told to stop and must exit cleanly.
pub struct Server {
    child: Child,
    pub game: SocketAddr,
    /// All addresses for clients, `game` first.
    pub games: Vec<SocketAddr>,
    pub console: SocketAddr,
    log: Arc<Mutex<String>>,
    expects_clean_end: bool,
}

impl Server {
    /// Starts the server with additional arguments.
    pub fn start(arguments: &[&str]) -> Self {
        Self::run(&mut command(arguments))
    }

    /// Runs `command`, which must start a server.
    pub fn run(command: &mut Command) -> Self {
        Self::run_with_stderr(command, Stdio::piped())
    }

    /// Like [`Server::run`]. Without a pipe, [`Server::log`] stays empty.
    pub fn run_with_stderr(command: &mut Command, stderr: Stdio) -> Self {
        command.stdout(Stdio::piped()).stderr(stderr);
        let mut child = loop {
            match command.spawn() {
                // A test has just copied the file while another thread was starting a process, which has it
                // open for a moment.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                spawned => break spawned.expect("the server's binary can be run"),
            }
        };
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take();
        let written = Arc::clone(&log);
        std::thread::spawn(move || {
            let Some(mut stderr) = stderr else { return };
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut buffer) {
                written
                    .lock()
                    .expect("no panic under it")
                    .push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout
            .read_line(&mut line)
            .expect("the server's stdout can be read");
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!(
                "no ready line, but {line:?}; log: {}",
                log.lock().expect("no panic under it")
            )
        });
        let address = |key: &str| {
            ready[key]
                .as_str()
                .expect("an address")
                .parse()
                .expect("an address")
        };
        Self {
            game: address("game"),
            games: serde_json::from_value(ready["games"].clone()).expect("addresses"),
            console: address("console"),
            child,
            log,
            expects_clean_end: true,
        }
    }

    /// Pid of the supervisor.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic under it").clone()
    }

    /// A client with a session, under this name.
    pub fn client(&self, name: &str) -> Client {
        Client::connect(self.game, name, patient())
            .unwrap_or_else(|error| panic!("{name} cannot connect: {error:?}; log: {}", self.log()))
    }

    /// Connects as `name` from another address of the loopback network than 127.0.0.1, which has no limits of sources.
    pub fn client_from(&self, address: &str, name: &str) -> Client {
        let options = ClientOptions {
            local_address: Some(address.parse().expect("an address")),
            ..patient()
        };
        Client::connect(self.game, name, options).expect("the server accepts the client")
    }

    /// A bare connection to the game's port.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.game).expect("the server accepts");
        stream
            .set_read_timeout(Some(WAIT_MAX))
            .expect("a timeout can be set");
        stream
    }

    /// A bare connection to the game's port from this address of the machine.
    pub fn connect_from(&self, from: [u8; 4]) -> TcpStream {
        connect_from(from, self.game)
    }

    /// The lines of the console's reply to `command`, without the final `OK`.
    pub fn ask(&self, command: &str) -> String {
        self.try_ask(command)
            .unwrap_or_else(|refusal| panic!("the console's answer to {command:?}: {refusal}"))
    }

    /// Like [`Server::ask`].
    ///
    /// # Errors
    ///
    /// The console's `ERR` line.
    pub fn try_ask(&self, command: &str) -> Result<String, String> {
        let mut console = TcpStream::connect(self.console).expect("the console accepts");
        console
            .set_read_timeout(Some(WAIT_MAX))
            .expect("a timeout can be set");
        console
            .write_all(format!("{command}\n").as_bytes())
            .expect("the console reads");
        let mut reply = String::new();
        for line in BufReader::new(console).lines() {
            let line = line.expect("the console replies in time");
            if line.starts_with("ERR") {
                return Err(line);
            }
            if line == "OK" {
                return Ok(reply);
            }
            if !line.starts_with('#') {
                reply.push_str(&line);
                reply.push('\n');
            }
        }
        panic!("the console's reply to {command:?} had no end: {reply:?}");
    }

    /// The console's reply to a query, as JSON.
    pub fn ask_json(&self, query: &str) -> serde_json::Value {
        let reply = self.ask(&format!("{query} --json"));
        serde_json::from_str(&reply).unwrap_or_else(|error| panic!("{query}: {error}: {reply:?}"))
    }

    /// A number of the console's `status`.
    pub fn status(&self, key: &str) -> u64 {
        self.ask_json("status")[key]
            .as_u64()
            .unwrap_or_else(|| panic!("status has no number {key}"))
    }

    /// The log contains no error so far.
    pub fn expect_no_errors(&self) {
        let log = self.log();
        let errors: Vec<_> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
        assert!(errors.is_empty(), "the server has logged {errors:?}");
    }

    /// The log contains `part`, or will in a moment: its writer and its reader may be late.
    pub fn expect_logged(&self, part: &str) {
        eventually(&format!("the log says {part:?}"), || self.log().contains(part));
    }

    /// Pid of a player's handler, if it has one.
    pub fn handler_of(&self, player: &str) -> Option<u32> {
        let mut found = None;
        eventually("it has left the reception", || {
            let processes = self.ask_json("processes");
            let mut processes = processes.as_array().expect("a list").iter();
            found = processes.find(|process| process["player"] == player).cloned();
            found.as_ref().is_none_or(|process| process["role"] == "handler")
        });
        found?["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
    }

    /// Pid of the keeper of a server that has only one.
    pub fn keeper(&self) -> u32 {
        let [keeper] = of_name(&children(self.pid()), "keeper")[..] else {
            panic!("there is one keeper");
        };
        keeper
    }

    /// Waits until another keeper has replaced `former`, the only one. Returns its pid.
    pub fn keeper_after(&self, former: u32) -> u32 {
        eventually("there is another keeper", || {
            let keepers = of_name(&children(self.pid()), "keeper");
            keepers.len() == 1 && keepers != [former]
        });
        self.keeper()
    }

    /// Kills a process of this server.
    pub fn kill(&self, pid: u32) {
        self.signal(pid, Signal::SIGKILL);
    }

    /// Signals a process of this server.
    pub fn signal(&self, pid: u32, signal: Signal) {
        assert_ne!(pid, 0, "that would be this process and all beside it");
        kill(Pid::from_raw(pid.cast_signed()), signal).expect("the process exists");
    }

    /// The test expects an exit status other than 0.
    pub fn expect_any_end(&mut self) {
        self.expects_clean_end = false;
    }

    /// Waits for the server's end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + WAIT_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the server did not end; log: {}", self.log());
    }

    /// Tells the server to stop, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        if self.child.try_wait().expect("it is a child").is_none() {
            self.signal(self.pid(), Signal::SIGTERM);
        }
        self.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}---", self.log());
        }
        let processes = processes_below(self.pid());
        let status = self.stop();
        if std::thread::panicking() {
            return;
        }
        assert!(
            !self.expects_clean_end || status.success(),
            "the server ended with {status}; log: {}",
            self.log()
        );
        eventually("every process of the server is gone", || {
            processes.iter().all(|pid| !is_alive(*pid))
        });
    }
}

/// A command that starts the server on ports chosen by the kernel, with additional arguments.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forkade-under-test"));
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"])
        .args(arguments);
    command
}

/// A bare connection from one address of this machine to another.
pub fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = SocketAddr::from((from, 0));
    socket
        .bind(&from.into())
        .expect("all of 127.0.0.0/8 is this machine");
    socket.connect(&to.into()).expect("it is listened there");
    socket
        .set_read_timeout(Some(WAIT_MAX))
        .expect("a timeout can be set");
    socket.set_tcp_nodelay(true).expect("an option can be set");
    socket.into()
}

/// Options of a client that waits long enough for a busy machine.
pub fn patient() -> ClientOptions {
    ClientOptions {
        connect_timeout: WAIT_MAX,
        reply_timeout: WAIT_MAX,
        reconnect_timeout: WAIT_MAX,
        ..ClientOptions::default()
    }
}

/// Waits until a condition holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "in {WAIT_MAX:?} it did not happen that {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The direct children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// Those of the processes that have this name.
pub fn of_name(pids: &[u32], name: &str) -> Vec<u32> {
    let bears_it = |pid: &&u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|bears| bears.trim_end() == name)
    };
    pids.iter().filter(bears_it).copied().collect()
}

/// All descendants of a process.
pub fn processes_below(pid: u32) -> Vec<u32> {
    let children = children(pid);
    children
        .iter()
        .flat_map(|child| processes_below(*child))
        .chain(children.iter().copied())
        .collect()
}

/// Whether a process exists and has not ended (a zombie has).
pub fn is_alive(pid: u32) -> bool {
    condition(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// Whether a process sleeps until an event.
pub fn is_asleep(pid: u32) -> bool {
    condition(pid) == Some('S')
}

/// The process's state letter, as in proc(5).
fn condition(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.chars().next()
}
