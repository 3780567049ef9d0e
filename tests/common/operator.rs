//! An operator's connection to the console.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::{Server, WAIT_MAX, eventually};

/// A connection to the console.
pub struct Operator {
    pub stream: TcpStream,
    /// Received and not yet parsed.
    pub received: Vec<u8>,
}

impl Operator {
    pub fn new(server: &Server) -> Self {
        let stream = TcpStream::connect(server.console).expect("the console accepts");
        stream
            .set_read_timeout(Some(WAIT_MAX))
            .expect("a timeout can be set");
        stream.set_nodelay(true).expect("an option can be set");
        Self {
            stream,
            received: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the console reads");
    }

    /// The next line, which ends in LF, or CR LF for telnet; `None` at the end of the connection.
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.received.drain(..=end).take(end).collect();
                line.pop_if(|byte| *byte == b'\r');
                return Some(String::from_utf8(line).expect("the console speaks UTF-8"));
            }
            if !self.receive() {
                assert!(
                    self.received.is_empty(),
                    "half a line at the end: {:?}",
                    self.received
                );
                return None;
            }
        }
    }

    pub fn receive(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        let length = match self.stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                panic!("the console reset the connection")
            }
            // A read with a timeout is not restarted by the kernel after a signal.
            Err(error) if error.kind() == ErrorKind::Interrupted => return self.receive(),
            read => read.expect("the console replies in time"),
        };
        self.received.extend(&buffer[..length]);
        length > 0
    }

    /// The lines of a reply, the last of which is `OK` or `ERR …`.
    pub fn reply(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self
                .line()
                .unwrap_or_else(|| panic!("the reply has no end: {lines:?}"));
            let is_last = line == "OK" || line.starts_with("ERR ");
            lines.push(line);
            if is_last {
                return lines;
            }
        }
    }

    pub fn ask(&mut self, command: &str) -> Vec<String> {
        self.send(format!("{command}\r\n").as_bytes());
        self.reply()
    }

    pub fn ask_json(&mut self, query: &str) -> Value {
        let lines = self.ask(&format!("{query} --json"));
        assert!(lines.len() == 2 && lines[1] == "OK", "{query}: {lines:?}");
        serde_json::from_str(&lines[0]).expect("JSON")
    }

    /// Everything up to the end of the connection.
    pub fn read_to_end(&mut self) -> String {
        while self.receive() {}
        String::from_utf8(std::mem::take(&mut self.received)).expect("the console speaks UTF-8")
    }

    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().expect("it is connected")
    }
}

/// The first entry of a list that has this value.
pub fn one<'l>(list: &'l Value, key: &str, value: Value) -> &'l Value {
    let entries = list.as_array().expect("a list").iter();
    entries
        .clone()
        .find(|entry| entry[key] == value)
        .unwrap_or_else(|| panic!("no {key} {value} in {list}"))
}

/// The process that serves an operator, as another operator's query shows it.
pub fn console_process(server: &Server, operator: &Operator, query: &str) -> Value {
    let processes = Operator::new(server).ask_json(query);
    one(&processes, "peer", operator.address().to_string().into()).clone()
}

/// Kills the process that serves an operator, and waits for its replacement.
pub fn kill_console(server: &Server, operator: &Operator) {
    let takeovers = server.status("takeovers_total");
    let pid = console_process(server, operator, "processes")["pid"]
        .as_u64()
        .expect("a number");
    server.kill(u32::try_from(pid).expect("a pid"));
    eventually("another process takes over", || {
        server.status("takeovers_total") > takeovers
    });
}
