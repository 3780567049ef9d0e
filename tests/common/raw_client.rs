//! A connection to the game port that sends arbitrary bytes and reads frames.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use forkade_protocol::frame::{Split, append_frame, banner, split};
use forkade_protocol::{ClientMessage, ErrorCode, ServerMessage, codec, preamble};
use socket2::{Domain, SockRef, Socket, Type};

use super::{Server, WAIT_MAX};

/// The preamble of a client that speaks all of this server's versions.
pub fn handshake_preamble() -> [u8; preamble::PREAMBLE_BYTES] {
    preamble::build(preamble::VERSION_MIN, preamble::VERSION_MAX)
}

/// A message as a frame.
pub fn frame(message: &ClientMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_frame(message, &mut bytes).expect("the message fits a frame");
    bytes
}

/// Any bytes as a frame.
pub fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short");
    [&length.to_le_bytes(), body].concat()
}

/// Preamble and `Hello` of a client that speaks version 1 only.
pub fn handshake(name: &str) -> Vec<u8> {
    let hello = ClientMessage::Hello {
        name: name.to_owned(),
        client: "raw".to_owned(),
    };
    [&preamble::build(1, 1)[..], &frame(&hello)].concat()
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server closed, and everything it had sent was read.
    Closed,
    /// By a reset.
    Reset,
}

/// A bare connection.
#[derive(Debug)]
pub struct RawClient {
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl RawClient {
    /// The port at this end.
    pub fn port(&self) -> u16 {
        self.stream.local_addr().expect("connected").port()
    }

    /// Connects without sending anything.
    pub fn connect(server: &Server) -> Self {
        Self::connect_to(server.game)
    }

    /// Like [`RawClient::connect`], to any address.
    pub fn connect_to(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("the server accepts"))
    }

    /// Connects with a receive buffer as close to `bytes` as the kernel allows.
    pub fn with_receive_buffer(server: &Server, bytes: usize) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // The size bounds the advertised window only if it is set before connecting.
        socket.set_recv_buffer_size(bytes).expect("an option can be set");
        socket.connect(&server.game.into()).expect("the server accepts");
        Self::over(socket.into())
    }

    /// Uses a connection that exists.
    pub fn over(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(WAIT_MAX))
            .expect("a timeout can be set");
        stream
            .set_write_timeout(Some(WAIT_MAX))
            .expect("a timeout can be set");
        stream.set_nodelay(true).expect("an option can be set");
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Connects and completes the handshake as `name`.
    pub fn connect_as(server: &Server, name: &str) -> Self {
        let mut raw = Self::connect(server);
        raw.send(&handshake(name));
        let welcome = raw.next_message();
        assert!(
            matches!(welcome, Ok(ServerMessage::Welcome { .. })),
            "{name} was answered {welcome:?}"
        );
        raw
    }

    /// Sends bytes. It is no error if the server has closed the connection meanwhile.
    pub fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            let is_end = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
            assert!(is_end, "sending to the server: {error}");
        }
    }

    /// Sends a message.
    pub fn send_message(&mut self, message: &ClientMessage) {
        self.send(&frame(message));
    }

    /// The next message, or how the connection ended.
    pub fn next_message(&mut self) -> Result<ServerMessage, End> {
        loop {
            match split(&self.received, forkade_protocol::limits::FRAME_BYTES_MAX) {
                Split::Frame { body, total } => {
                    let message = codec::decode(body).expect("the server sends whole messages");
                    self.received.drain(..total);
                    return Ok(message);
                }
                Split::Incomplete { .. } => {}
                // Only of a client that was slow to greet.
                Split::TooLarge { announced } => match banner(&self.received) {
                    Some(0) => panic!("the server announced a frame of {announced} bytes"),
                    Some(line) => {
                        self.received.drain(..line);
                        continue;
                    }
                    None => {}
                },
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    assert!(self.received.is_empty(), "the server closed within a frame");
                    return Err(End::Closed);
                }
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(End::Reset),
                Err(error) => panic!("no answer from the server: {error}"),
            }
        }
    }

    /// Whether anything has arrived that was not taken.
    pub fn has_more(&self) -> bool {
        self.stream.set_nonblocking(true).expect("an option can be set");
        let arrived = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_nonblocking(false).expect("an option can be set");
        arrived || !self.received.is_empty()
    }

    /// The next bytes, of any kind.
    pub fn read_exact(&mut self, bytes: &mut [u8]) {
        self.fill(bytes.len());
        bytes.copy_from_slice(&self.received[..bytes.len()]);
        self.received.drain(..bytes.len());
    }

    /// What the next four bytes say, if they are the length of a frame.
    pub fn peek_header(&mut self) -> u32 {
        self.fill(4);
        u32::from_le_bytes(self.received[..4].try_into().expect("four"))
    }

    fn fill(&mut self, count: usize) {
        let mut buffer = [0; 1024];
        while self.received.len() < count {
            let count = self.stream.read(&mut buffer).expect("the server answers");
            assert!(count > 0, "the server has closed");
            self.received.extend_from_slice(&buffer[..count]);
        }
    }

    /// The next message that `wanted` accepts. Earlier ones are dropped.
    pub fn next_where(&mut self, wanted: impl Fn(&ServerMessage) -> bool) -> ServerMessage {
        loop {
            match self.next_message() {
                Ok(message) if wanted(&message) => return message,
                Ok(_) => {}
                Err(end) => panic!("the connection ended ({end:?}) before the message came"),
            }
        }
    }

    /// All messages up to the end of the connection, and how it ended.
    pub fn rest(&mut self) -> (Vec<ServerMessage>, End) {
        let mut messages = Vec::new();
        loop {
            match self.next_message() {
                Ok(message) => messages.push(message),
                Err(end) => return (messages, end),
            }
        }
    }

    /// The server reports this error and closes the connection without a reset. Returns the error's text.
    #[track_caller]
    pub fn expect_error(&mut self, expected: ErrorCode) -> String {
        match self.rest() {
            (messages, End::Closed) => match messages.last() {
                Some(ServerMessage::Error { code, text }) if *code == expected => text.clone(),
                other => panic!("not {expected:?}, but {other:?}"),
            },
            (messages, End::Reset) => panic!("a reset instead of {expected:?}, after {messages:?}"),
        }
    }

    /// Closes the sending direction.
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("connected");
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("an option can be set");
    }
}
