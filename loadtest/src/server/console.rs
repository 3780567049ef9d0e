//! Queries the server's console for its counters and its processes.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A console that has not answered within this time is given up.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between a lost connection and the next attempt.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
const REPLY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A console and the connection to it. The queries change nothing, so a query whose answer was lost with the
/// connection is repeated on a new one. That happens because the console's own processes may be killed, too.
#[derive(Debug)]
pub(crate) struct Console {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

/// The fields of the answer to `status --json` that matter here.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Status {
    takeovers_total: u64,
}

/// One entry of the answer to `processes --json`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Process {
    pub role: String,
    pub pid: u32,
    /// How often the process of a role was restarted; `None` for processes that serve a connection.
    #[serde(default)]
    pub restarts: Option<u64>,
    /// Name of the player that it serves; `None` if it serves none.
    #[serde(default)]
    pub player: Option<String>,
}

#[cfg(test)]
impl Process {
    /// A process as the console lists it.
    pub(crate) fn listed(role: &str, pid: u32, player: Option<&str>) -> Self {
        Self {
            role: role.to_owned(),
            pid,
            restarts: None,
            player: player.map(ToOwned::to_owned),
        }
    }
}

/// What the server has counted so far.
#[derive(Debug, Default)]
pub(crate) struct ServerCounters {
    pub takeovers: Option<u64>,
    /// How often processes were restarted, by role.
    pub restarts: BTreeMap<String, u64>,
    /// Processes of roles that are restarted when they die.
    restartable: usize,
}

impl ServerCounters {
    /// Whether all processes that existed `before` exist again, and each kill of a process that the server
    /// restarts has been followed by a restart. A process that is being restarted is not listed. A process
    /// that was killed a moment ago may still be listed, so its restart is waited for.
    pub(crate) fn is_complete(&self, before: &Self, killed: impl Fn(&str) -> u64) -> bool {
        self.restartable >= before.restartable && self.have_restarted(before, killed)
    }

    fn have_restarted(&self, before: &Self, killed: impl Fn(&str) -> u64) -> bool {
        before.restarts.iter().all(|(role, restarts)| {
            let now = self.restarts.get(role).copied().unwrap_or(0);
            now >= restarts + killed(role)
        })
    }
}

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsoleError {
    #[error("cannot connect to the console at {address}: {cause}")]
    Connect { address: SocketAddr, cause: io::Error },
    #[error("the console did not answer `{command}`: {cause}")]
    Reply { command: &'static str, cause: io::Error },
    #[error("the console answered `{command}` with: {reply}")]
    Refused { command: &'static str, reply: String },
    #[error("cannot read the console's answer to `{command}`: {cause}")]
    Unexpected {
        command: &'static str,
        cause: serde_json::Error,
    },
}

impl Console {
    /// Connects to the console at `address`.
    ///
    /// # Errors
    /// When the connection is refused.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, ConsoleError> {
        let stream = stream_to(address).map_err(|cause| ConsoleError::Connect { address, cause })?;
        Ok(Self { address, stream })
    }

    /// The server's status.
    ///
    /// # Errors
    /// When the console is gone or its answer cannot be read.
    fn status(&mut self) -> Result<Status, ConsoleError> {
        self.query("status --json")
    }

    /// All processes of the server.
    ///
    /// # Errors
    /// When the console is gone or its answer cannot be read.
    pub(crate) fn processes(&mut self) -> Result<Vec<Process>, ConsoleError> {
        self.query("processes --json")
    }

    /// Takeovers, and restarts by role.
    ///
    /// # Errors
    /// When the console is gone or its answer cannot be read.
    pub(crate) fn counters(&mut self) -> Result<ServerCounters, ConsoleError> {
        let mut counters = ServerCounters {
            takeovers: Some(self.status()?.takeovers_total),
            ..ServerCounters::default()
        };
        for process in self.processes()? {
            if let Some(restarts) = process.restarts {
                *counters.restarts.entry(process.role).or_default() += restarts;
                counters.restartable += 1;
            }
        }
        Ok(counters)
    }

    fn query<Answer: DeserializeOwned>(&mut self, command: &'static str) -> Result<Answer, ConsoleError> {
        let began = Instant::now();
        let line = loop {
            match self.exchange(command) {
                Ok(line) => break line,
                Err(cause) if began.elapsed() > REPLY_TIMEOUT => {
                    return Err(ConsoleError::Reply { command, cause });
                }
                Err(_) => {
                    std::thread::sleep(RECONNECT_PAUSE);
                    let address = self.address;
                    self.stream =
                        stream_to(address).map_err(|cause| ConsoleError::Connect { address, cause })?;
                }
            }
        };
        let json = line.map_err(|reply| ConsoleError::Refused { command, reply })?;
        serde_json::from_str(&json).map_err(|cause| ConsoleError::Unexpected { command, cause })
    }

    /// Sends a command and reads lines up to the `OK` that ends every reply. Returns the line before it, or
    /// as an error the line `ERR …`.
    fn exchange(&mut self, command: &str) -> io::Result<Result<String, String>> {
        self.stream
            .get_mut()
            .write_all(format!("{command}\r\n").as_bytes())?;
        let mut limited = (&mut self.stream).take(REPLY_BYTES_MAX);
        let mut before = String::new();
        loop {
            let mut line = String::new();
            if limited.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "OK" => return Ok(Ok(before)),
                refused if refused.starts_with("ERR") => return Ok(Err(refused.to_owned())),
                other => before = other.to_owned(),
            }
        }
    }
}

fn stream_to(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, REPLY_TIMEOUT)?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A console with prepared replies. An empty reply closes the connection.
    fn console_that_answers(replies: &'static [&'static str]) -> Console {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            for reply in replies {
                stream.read_line(&mut String::new()).unwrap();
                if reply.is_empty() {
                    drop(stream);
                    stream = BufReader::new(listener.accept().unwrap().0);
                } else {
                    stream.get_mut().write_all(reply.as_bytes()).unwrap();
                }
            }
        });
        Console::connect(address).unwrap()
    }

    #[test]
    fn a_reply_is_read_up_to_its_ok() {
        let mut console = console_that_answers(&[
            "{\"takeovers_total\":3,\"players\":9}\r\nOK\r\n",
            "[{\"role\":\"handler\",\"pid\":7,\"player\":\"anna\"},{\"role\":\"keeper\",\"pid\":8,\"player\":null}]\nOK\n",
        ]);
        assert_eq!(console.status().unwrap().takeovers_total, 3);
        let processes = console.processes().unwrap();
        assert_eq!(processes[0].player.as_deref(), Some("anna"));
        assert_eq!((processes[1].role.as_str(), processes[1].pid), ("keeper", 8));
        assert!(processes[1].player.is_none());
    }

    #[test]
    fn a_refusal_an_unreadable_reply_and_a_closed_console_are_different_errors() {
        let mut console = console_that_answers(&["ERR busy\n", "what?\nOK\n"]);
        assert!(matches!(console.status(), Err(ConsoleError::Refused { reply, .. }) if reply == "ERR busy"));
        assert!(matches!(console.status(), Err(ConsoleError::Unexpected { .. })));
        assert!(matches!(console.status(), Err(ConsoleError::Connect { .. })));
    }

    #[test]
    fn a_query_whose_answer_was_lost_with_the_connection_is_repeated() {
        let mut console = console_that_answers(&["", "{\"takeovers_total\":4}\nOK\n"]);
        assert_eq!(console.status().unwrap().takeovers_total, 4);
    }

    #[test]
    fn a_restart_is_missing_for_a_process_that_was_killed_and_is_still_listed() {
        let counters = |keeper, listener| ServerCounters {
            restarts: [("keeper".to_owned(), keeper), ("listener".to_owned(), listener)].into(),
            restartable: 2,
            ..ServerCounters::default()
        };
        let before = counters(1, 0);
        let killed = |role: &str| match role {
            "keeper" => 2,
            // Handlers are replaced, not restarted.
            "handler" => 9,
            _ => 0,
        };
        assert!(!counters(2, 0).have_restarted(&before, killed));
        assert!(counters(3, 0).have_restarted(&before, killed));
        assert!(
            !ServerCounters::default().have_restarted(&before, killed),
            "it is not listed"
        );
    }
}
