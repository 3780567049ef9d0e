//! A client in text mode: types lines and reads text.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::{Server, WAIT_MAX};

/// Telnet's "interpret as command".
pub const IAC: u8 = 255;

/// A connection in text mode.
#[derive(Debug)]
pub struct TextClient {
    pub stream: TcpStream,
    /// Everything received.
    pub heard: Vec<u8>,
    /// How much of it was read by the test.
    seen: usize,
}

impl TextClient {
    /// Connects without sending anything.
    pub fn connect(server: &Server) -> Self {
        let stream = server.connect();
        stream.set_nodelay(true).expect("an option can be set");
        Self {
            stream,
            heard: Vec::new(),
            seen: 0,
        }
    }

    /// Connects, presses Enter, and sets a name.
    pub fn named(server: &Server, name: &str) -> Self {
        let mut person = Self::connect(server);
        person.types("");
        person.reads("Welcome to Forkade.");
        person.types(&format!("name {name}"));
        person.reads(&format!("You are called {name} now.\r\n> "));
        person
    }

    /// Types a line, and Enter.
    pub fn types(&mut self, line: &str) {
        self.sends(line.as_bytes());
        self.sends(b"\r\n");
    }

    /// Sends bytes.
    pub fn sends(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes it");
    }

    /// Reads up to these words. Returns the text before them.
    #[track_caller]
    pub fn reads(&mut self, words: &str) -> String {
        loop {
            let unseen = &self.heard[self.seen..];
            let found = unseen
                .windows(words.len())
                .position(|part| part == words.as_bytes());
            if let Some(at) = found {
                let before = String::from_utf8_lossy(&unseen[..at]).into_owned();
                self.seen += at + words.len();
                return before;
            }
            assert!(
                self.hears(),
                "the connection ended before {words:?} came, after {:?}",
                String::from_utf8_lossy(&self.heard[self.seen..])
            );
        }
    }

    /// Reads up to the end of the connection. Returns the text not yet read.
    pub fn reads_to_the_end(&mut self) -> String {
        while self.hears() {}
        let rest = String::from_utf8_lossy(&self.heard[self.seen..]).into_owned();
        self.seen = self.heard.len();
        rest
    }

    /// Types a line, and reads up to the next prompt.
    #[track_caller]
    pub fn asks(&mut self, line: &str) -> String {
        self.types(line);
        self.reads("\r\n> ")
    }

    /// Closes the sending direction.
    pub fn hangs_up(&self) {
        self.stream.shutdown(Shutdown::Write).expect("connected");
    }

    /// Receives more bytes. Returns false at the end of the connection.
    #[track_caller]
    fn hears(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.heard.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!(
                "in {WAIT_MAX:?} nothing more came than {:?}: {error}",
                String::from_utf8_lossy(&self.heard[self.seen..])
            ),
        }
    }
}
