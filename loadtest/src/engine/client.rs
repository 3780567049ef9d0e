//! One client: a session and the non-blocking connection that carries it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

use forkade_protocol::session::Counters;
use forkade_protocol::{ClientMessage, ServerMessage};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::sys::socket::{setsockopt, sockopt};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use crate::client_protocol::{ProtocolError, ProtocolSession};
use crate::random::Random;
use crate::server::peer::Protocol;

/// Bytes of one read. All clients share one buffer.
pub(crate) const READ_BYTES: usize = 64 * 1024;

const BACK_OFF_NS_MIN: u64 = 10_000_000;
const BACK_OFF_DOUBLINGS_MAX: u32 = 7;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Client {
    /// The prefix of its players' names.
    name: String,
    /// How many players this client has been before the present one.
    players_before: u32,
    session: ProtocolSession,
    protocol: Protocol,
    /// The counters of the sessions before the present one.
    earlier_counters: Counters,
    connection: Connection,
    /// Messages that the session cannot hold yet, because the server has not confirmed enough of those
    /// before.
    queued: VecDeque<ClientMessage>,
    /// When something was last written to the connection, in nanoseconds.
    pub(crate) last_sent_ns: u64,
    /// Consecutive connection attempts that failed.
    pub(crate) failed_attempts: u32,
    /// The connection is lost and a timer is set to try another one.
    pub(crate) will_reconnect: bool,
    /// It has sent a goodbye and will reconnect as a new player.
    pub(crate) is_replacing_player: bool,
    /// The server has answered the handshake of this connection.
    is_handshake_done: bool,
    /// Intended time of a call of the workload that was put off because messages are `queued`.
    pub(crate) deferred_due_ns: Option<u64>,
}

#[derive(Debug)]
enum Connection {
    None,
    Connecting(TcpStream),
    Open(TcpStream),
}

/// Why a connection was lost or could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("the connection failed: {0}")]
    Failed(io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("{0}")]
    Session(ProtocolError),
}

impl ConnectionError {
    /// Whether no process listens at the server's address.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

impl Client {
    /// A client that speaks `protocol` and is not connected.
    pub(crate) fn new(name: String, protocol: Protocol) -> Self {
        Self {
            session: ProtocolSession::new(protocol, name.clone()),
            protocol,
            name,
            players_before: 0,
            earlier_counters: Counters::default(),
            connection: Connection::None,
            queued: VecDeque::new(),
            last_sent_ns: 0,
            failed_attempts: 0,
            will_reconnect: false,
            is_replacing_player: false,
            is_handshake_done: false,
            deferred_due_ns: None,
        }
    }

    pub(crate) fn session(&self) -> &ProtocolSession {
        &self.session
    }

    /// The name of the present player.
    pub(crate) fn player_name(&self) -> Option<&str> {
        self.session.player_name()
    }

    /// The counters of all its sessions.
    pub(crate) fn counters(&self) -> Counters {
        sum(self.earlier_counters, self.session.counters())
    }

    /// Whether the server has answered the handshake of this connection.
    pub(crate) fn is_handshake_done(&self) -> bool {
        self.is_handshake_done
    }

    /// Becomes a new player. It has another name, because the old player may still exist on the server.
    pub(crate) fn start_new_player(&mut self) {
        self.players_before += 1;
        self.earlier_counters = self.counters();
        self.session = ProtocolSession::new(self.protocol, format!("{}.{}", self.name, self.players_before));
        self.queued.clear();
        self.is_replacing_player = false;
    }

    /// The pause before the next connection attempt, in nanoseconds. It doubles with each failed attempt, and its
    /// random part keeps clients that were cut off together from reconnecting together.
    pub(crate) fn back_off_ns(&mut self, random: &mut Random) -> u64 {
        let longest_ns = BACK_OFF_NS_MIN << self.failed_attempts.min(BACK_OFF_DOUBLINGS_MAX);
        self.failed_attempts += 1;
        longest_ns / 2 + random.below(longest_ns / 2)
    }

    /// Whether there are messages that the session cannot hold yet.
    pub(crate) fn is_congested(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Whether there is a connection, or a timer is set to make one.
    pub(crate) fn is_active(&self) -> bool {
        self.will_reconnect || !matches!(self.connection, Connection::None)
    }

    /// Begins to connect, from `source` if it is given.
    ///
    /// # Errors
    /// When connecting fails at once.
    pub(crate) fn connect(
        &mut self,
        registry: &Registry,
        server: SocketAddr,
        source: Option<IpAddr>,
        token: Token,
    ) -> Result<(), ConnectionError> {
        let mut stream = match source {
            None => TcpStream::connect(server),
            Some(source) => connect_from(source, server),
        }
        .map_err(ConnectionError::Connect)?;
        registry
            .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
            .map_err(ConnectionError::Connect)?;
        self.connection = Connection::Connecting(stream);
        self.is_handshake_done = false;
        Ok(())
    }

    /// Closes the connection; closing the descriptor removes it from the poll. The session stays.
    pub(crate) fn disconnect(&mut self) {
        self.connection = Connection::None;
        self.session.connection_lost();
    }

    /// Queues a message. What the session cannot hold now stays queued here.
    ///
    /// # Errors
    /// When the session can never send it.
    pub(crate) fn send(&mut self, message: ClientMessage) -> Result<(), ProtocolError> {
        self.queued.push_back(message);
        self.send_queued()
    }

    /// Queues a heartbeat, unless so much is queued that none is needed.
    pub(crate) fn ping(&mut self) {
        self.session.ping();
    }

    fn send_queued(&mut self) -> Result<(), ProtocolError> {
        while let Some(message) = self.queued.front() {
            match self.session.send(message) {
                Ok(()) => drop(self.queued.pop_front()),
                Err(error) if error.is_full() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Handles an event of the poll: completes the connection, reads all there is and appends the received
    /// messages to `messages`, even if the connection is lost after them.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) fn on_ready(
        &mut self,
        event: &Event,
        buffer: &mut [u8],
        messages: &mut Vec<ServerMessage>,
    ) -> Result<(), ConnectionError> {
        if !self.complete_connect()? {
            return Ok(());
        }
        // A peer without a handshake of its own has a simulated welcome, which is there as soon as the
        // connection is.
        self.take_messages(messages)?;
        // Edge-triggered events: reading must continue until nothing is left. A short read also shows that,
        // but if the end of the stream was reported with this event, no further event would report it.
        let end_announced = event.is_read_closed() || event.is_error();
        while let Connection::Open(stream) = &mut self.connection {
            match stream.read(buffer) {
                Ok(0) => return Err(ConnectionError::Closed),
                Ok(count) => {
                    self.session
                        .receive(&buffer[..count])
                        .map_err(ConnectionError::Session)?;
                    self.take_messages(messages)?;
                    if count < buffer.len() && !end_announced {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ConnectionError::Failed(error)),
            }
        }
        self.send_queued().map_err(ConnectionError::Session)
    }

    fn take_messages(&mut self, messages: &mut Vec<ServerMessage>) -> Result<(), ConnectionError> {
        while let Some(message) = self.session.next_message().map_err(ConnectionError::Session)? {
            self.is_handshake_done = true;
            messages.push(message);
        }
        Ok(())
    }

    /// Writes the session's output as far as the kernel accepts it. The poll reports when it accepts more.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(crate) fn flush(&mut self, now_ns: u64) -> Result<(), ConnectionError> {
        let Connection::Open(stream) = &mut self.connection else {
            return Ok(());
        };
        while !self.session.bytes().is_empty() {
            match stream.write(self.session.bytes()) {
                Ok(0) => return Err(ConnectionError::Failed(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.session.advance(count);
                    self.last_sent_ns = now_ns;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ConnectionError::Failed(error)),
            }
        }
        Ok(())
    }

    /// Whether the connection is established. Begins the handshake of a connection that has just been
    /// established.
    fn complete_connect(&mut self) -> Result<bool, ConnectionError> {
        match std::mem::replace(&mut self.connection, Connection::None) {
            Connection::None => Ok(false),
            Connection::Open(stream) => {
                self.connection = Connection::Open(stream);
                Ok(true)
            }
            Connection::Connecting(stream) => {
                if let Some(error) = stream.take_error().map_err(ConnectionError::Connect)? {
                    return Err(ConnectionError::Connect(error));
                }
                match stream.peer_addr() {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                        self.connection = Connection::Connecting(stream);
                        return Ok(false);
                    }
                    Err(error) => return Err(ConnectionError::Connect(error)),
                }
                stream.set_nodelay(true).map_err(ConnectionError::Connect)?;
                self.session.begin().map_err(ConnectionError::Session)?;
                self.connection = Connection::Open(stream);
                Ok(true)
            }
        }
    }
}

/// As [`TcpStream::connect`], from any port of `source`.
fn connect_from(source: IpAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM.nonblocking(), None)?;
    // If bind() chose a port, it would look for one that no socket uses, which takes ever longer from 15,000
    // clients on.
    if source.is_ipv4() {
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    }
    socket.bind(&SocketAddr::new(source, 0).into())?;
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

pub(crate) fn sum(one: Counters, other: Counters) -> Counters {
    Counters {
        resumes: one.resumes + other.resumes,
        gaps: one.gaps + other.gaps,
        resyncs: one.resyncs + other.resyncs,
    }
}
