//! A client that keeps both streams whole, by absolute offsets, over any number of connections that end
//! anywhere, even within a frame.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use forkade_protocol::frame::{Split, split};
use forkade_protocol::limits::FRAME_BYTES_MAX;
use forkade_protocol::{ClientMessage, ErrorCode, ServerMessage, Token, codec};
use socket2::{Domain, SockRef, Socket, Type};

use super::WAIT_MAX;
use super::raw_client::{frame, handshake, handshake_preamble};

/// How a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// A reset: bytes in transit are lost in both directions.
    Reset,
    /// An orderly close of both directions, at an arbitrary byte. (With unread bytes it becomes a reset.)
    Close,
    /// An orderly close of the client's sending direction. The client does not read any more.
    HalfClose,
    /// Nothing: the server is not told.
    Abandon,
}

impl Cut {
    pub const ALL: [Self; 4] = [Self::Reset, Self::Close, Self::HalfClose, Self::Abandon];
}

/// The server's answer to a `Resume`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    pub received: u64,
    pub resuming_at: u64,
}

/// See the module's documentation.
pub struct StreamClient {
    pub token: Token,
    server: SocketAddr,
    /// `None` while there is no connection.
    stream: Option<TcpStream>,
    /// The client's stream from its beginning.
    said: Vec<u8>,
    /// How much of it was written to the connection, or received by the server.
    written: usize,
    /// The server's stream from its beginning. Bytes that were lost are zeros.
    heard: Vec<u8>,
    /// Offset of the next byte to arrive on this connection.
    position: usize,
    /// How much of `heard` was parsed into messages.
    parsed: usize,
    /// Offset confirmed to the server, which may have dropped everything before it.
    confirmed: u64,
}

impl StreamClient {
    /// A new player.
    pub fn enter(server: SocketAddr, name: &str) -> Self {
        let mut stream = connect(server, None);
        stream.write_all(&handshake(name)).expect("the server reads");
        let ServerMessage::Welcome { token, .. } = read_handshake_reply(&mut stream).expect("an answer")
        else {
            panic!("{name} was not welcome");
        };
        Self {
            token,
            server,
            stream: Some(stream),
            said: Vec::new(),
            written: 0,
            heard: Vec::new(),
            position: 0,
            parsed: 0,
            confirmed: 0,
        }
    }

    /// Adds a frame to the stream; nothing is written yet.
    pub fn append(&mut self, frame: &[u8]) {
        self.said.extend_from_slice(frame);
    }

    /// Adds a confirmation of everything processed.
    pub fn confirm(&mut self) {
        // Without the bytes that are about to be repeated.
        let received = self.parsed.min(self.position) as u64;
        self.append(&frame(&ClientMessage::Confirm { received }));
        self.confirmed = self.confirmed.max(received);
    }

    /// Writes at most `bytes_max` bytes of what was said. Returns whether anything is left to write.
    pub fn write(&mut self, bytes_max: usize) -> bool {
        let end = self.said.len().min(self.written.saturating_add(bytes_max));
        let stream = self.stream.as_mut().expect("there is a connection");
        // There is no space only if the server waits for this client to read.
        stream.set_nonblocking(true).expect("an option can be set");
        match stream.write(&self.said[self.written..end]) {
            Ok(count) => self.written += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        self.written < self.said.len()
    }

    /// Reads at most `bytes_max` bytes, waiting up to `patience` for the first. (The kernel rounds such
    /// timeouts to milliseconds.)
    pub fn read(&mut self, bytes_max: usize, patience: Duration) {
        let stream = self.stream.as_mut().expect("there is a connection");
        stream
            .set_nonblocking(patience.is_zero())
            .expect("an option can be set");
        if !patience.is_zero() {
            stream
                .set_read_timeout(Some(patience))
                .expect("an option can be set");
        }
        let mut buffer = vec![0; bytes_max];
        match stream.read(&mut buffer) {
            Ok(0) => panic!("the server has closed at {}", self.position),
            Ok(count) => self.take(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }

    /// Repeated bytes must equal the first ones.
    fn take(&mut self, bytes: &[u8]) {
        let (again, new) = bytes.split_at(bytes.len().min(self.heard.len() - self.position));
        assert_eq!(
            again,
            &self.heard[self.position..self.position + again.len()],
            "other bytes than at first, from {} on",
            self.position
        );
        self.heard.extend_from_slice(new);
        self.position += bytes.len();
    }

    /// The next message that has arrived completely.
    pub fn next_message(&mut self) -> Option<ServerMessage> {
        match split(&self.heard[self.parsed..], FRAME_BYTES_MAX) {
            Split::Frame { body, total } => {
                self.parsed += total;
                Some(codec::decode(body).expect("the server sends messages"))
            }
            Split::Incomplete { .. } => None,
            Split::TooLarge { announced } => panic!("the server announced a frame of {announced} bytes"),
        }
    }

    /// Writes everything said, and reads until a message arrives.
    pub fn wait_for_message(&mut self) -> ServerMessage {
        let began = std::time::Instant::now();
        loop {
            if let Some(message) = self.next_message() {
                return message;
            }
            assert!(
                began.elapsed() < WAIT_MAX,
                "nothing comes any more, at {} of {} written",
                self.written,
                self.said.len()
            );
            let more_to_write = self.written < self.said.len() && self.write(usize::MAX);
            let patience = if more_to_write {
                Duration::from_millis(1)
            } else {
                WAIT_MAX
            };
            self.read(16 * 1024, patience);
        }
    }

    /// Bytes of the server's stream that have arrived.
    pub fn received(&self) -> u64 {
        self.heard.len() as u64
    }

    /// Bytes of the server's stream that were parsed into whole messages.
    pub fn processed(&self) -> u64 {
        self.parsed as u64
    }

    /// Offset up to which the server may have dropped its stream.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Ends the connection; bytes not yet written or read are lost with it. Returns the socket if the server
    /// does not know that the connection has ended.
    pub fn cut(&mut self, cut: Cut) -> Option<TcpStream> {
        let stream = self.stream.take()?;
        match cut {
            Cut::Reset => SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .expect("an option can be set"),
            Cut::Close => {}
            Cut::HalfClose => {
                // The server may have closed already, in favour of another connection.
                let _ = stream.shutdown(Shutdown::Write);
                return Some(stream);
            }
            Cut::Abandon => return Some(stream),
        }
        None
    }

    /// Resumes the session on a new connection, from offset `from` of the server's stream.
    ///
    /// # Errors
    ///
    /// The code of the server's error.
    pub fn resume(&mut self, local: Option<IpAddr>, from: u64) -> Result<Resumed, ErrorCode> {
        let mut stream = connect(self.server, local);
        stream
            .write_all(&resume_handshake(self.token, from))
            .expect("the server reads");
        self.confirmed = self.confirmed.max(from);
        match read_handshake_reply(&mut stream) {
            Ok(ServerMessage::Resumed {
                received,
                resuming_at,
            }) => {
                self.continue_on(stream, received, resuming_at);
                Ok(Resumed {
                    received,
                    resuming_at,
                })
            }
            Ok(ServerMessage::Error { code, .. }) => Err(code),
            other => panic!("a resume was answered {other:?}"),
        }
    }

    /// Sends a resume on a connection that ends after `bytes` bytes, before the answer arrives.
    pub fn resume_and_cut(&mut self, bytes: usize, from: u64) {
        let greeting = resume_handshake(self.token, from);
        let mut stream = connect(self.server, None);
        stream
            .write_all(&greeting[..bytes.min(greeting.len())])
            .expect("the server reads");
        self.confirmed = self.confirmed.max(from);
    }

    /// Continues on a connection whose resume was answered.
    pub fn continue_on(&mut self, stream: TcpStream, received: u64, resuming_at: u64) {
        self.stream = Some(stream);
        self.written = usize::try_from(received).expect("fits into memory");
        assert!(
            self.written <= self.said.len(),
            "the server received more than was sent"
        );
        self.position = usize::try_from(resuming_at).expect("fits into memory");
        if self.position > self.heard.len() {
            self.heard.resize(self.position, 0);
            self.parsed = self.position;
        }
    }
}

/// Preamble and `Resume`.
pub fn resume_handshake(token: Token, received: u64) -> Vec<u8> {
    [
        &handshake_preamble()[..],
        &frame(&ClientMessage::Resume { token, received }),
    ]
    .concat()
}

/// Connects, from this local address if one is given.
pub fn connect(server: SocketAddr, local: Option<IpAddr>) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    if let Some(address) = local {
        socket
            .bind(&SocketAddr::new(address, 0).into())
            .expect("a local address");
    }
    socket.connect(&server.into()).expect("the server accepts");
    socket.set_tcp_nodelay(true).expect("an option can be set");
    socket
        .set_read_timeout(Some(WAIT_MAX))
        .expect("an option can be set");
    socket.into()
}

/// Reads the one frame that precedes the stream, and no byte of the stream.
///
/// # Errors
///
/// The connection ended before the frame was complete.
pub fn read_handshake_reply(stream: &mut TcpStream) -> Result<ServerMessage, ErrorKind> {
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes).map_err(|error| error.kind())?;
    let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    bytes.resize(4 + length, 0);
    stream.read_exact(&mut bytes[4..]).map_err(|error| error.kind())?;
    Ok(codec::decode(&bytes[4..]).expect("the server sends messages"))
}
