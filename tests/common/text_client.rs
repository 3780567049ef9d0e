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
    pub received: Vec<u8>,
    /// How much of it was read by the test.
    seen: usize,
}

impl TextClient {
    /// Connects without sending anything.
    pub fn connect(server: &Server) -> Self {
        Self::over(server.connect())
    }

    /// Uses a connection that exists.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an option can be set");
        Self {
            stream,
            received: Vec::new(),
            seen: 0,
        }
    }

    /// Connects, presses Enter, and sets a name.
    pub fn named(server: &Server, name: &str) -> Self {
        let mut text_player = Self::connect(server);
        text_player.type_line("");
        text_player.read_until("Welcome to Forkade.");
        text_player.type_line(&format!("name {name}"));
        text_player.read_until(&format!("You are called {name} now.\r\n> "));
        text_player
    }

    /// Types a line, and Enter.
    pub fn type_line(&mut self, line: &str) {
        self.send(line.as_bytes());
        self.send(b"\r\n");
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes it");
    }

    /// Reads up to these words. Returns the text before them.
    #[track_caller]
    pub fn read_until(&mut self, words: &str) -> String {
        loop {
            let unseen = &self.received[self.seen..];
            let found = unseen
                .windows(words.len())
                .position(|part| part == words.as_bytes());
            if let Some(at) = found {
                let before = String::from_utf8_lossy(&unseen[..at]).into_owned();
                self.seen += at + words.len();
                return before;
            }
            assert!(
                self.receive(),
                "the connection ended before {words:?} came, after {:?}",
                String::from_utf8_lossy(&self.received[self.seen..])
            );
        }
    }

    /// Reads up to the end of the connection. Returns the text not yet read.
    pub fn read_to_end(&mut self) -> String {
        while self.receive() {}
        let rest = String::from_utf8_lossy(&self.received[self.seen..]).into_owned();
        self.seen = self.received.len();
        rest
    }

    /// Takes all bytes that the test has read: what a terminal shows, as far as it was not taken before.
    pub fn take_read(&mut self) -> Vec<u8> {
        self.received.drain(..std::mem::take(&mut self.seen)).collect()
    }

    /// Types a line, and reads up to the next prompt.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        self.type_line(line);
        self.read_until("\r\n> ")
    }

    /// Closes the sending direction.
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("connected");
    }

    /// Receives more bytes. Returns false at the end of the connection.
    #[track_caller]
    fn receive(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!(
                "in {WAIT_MAX:?} nothing more came than {:?}: {error}",
                String::from_utf8_lossy(&self.received[self.seen..])
            ),
        }
    }
}
