//! One client: a session and the non-blocking connection that carries it now.

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
use crate::server::peer::Protocol;

/// What is read at once. All clients share one buffer.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// A client of the swarm.
#[derive(Debug)]
pub(crate) struct Client {
    /// What its players' names begin with.
    name: String,
    /// How many players it was before this one.
    players_before: u32,
    session: ProtocolSession,
    protocol: Protocol,
    /// What happened to the sessions before this one.
    earlier_counters: Counters,
    connection: Connection,
    /// What the session could not take yet: the server has too much of this client's to take in.
    queued: VecDeque<ClientMessage>,
    /// When something was last sent, in nanoseconds.
    pub(crate) last_sent_ns: u64,
    /// Connections tried in a row that came to nothing.
    pub(crate) failed_attempts: u32,
    /// It has lost its connection and will try another one.
    pub(crate) will_reconnect: bool,
    /// It has said goodbye, to come back as a new player.
    pub(crate) is_replacing_player: bool,
    /// The server has answered the greeting of this connection.
    is_handshake_done: bool,
    /// Intended time of a call of the workload that could not be made because of what is `queued`.
    pub(crate) deferred_due_ns: Option<u64>,
}

#[derive(Debug)]
enum Connection {
    None,
    Connecting(TcpStream),
    Open(TcpStream),
}

/// Why a connection is gone.
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
    /// Whether nobody listens at the server's address.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

impl Client {
    /// One that speaks in this protocol.
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

    /// The present player's name.
    pub(crate) fn player_name(&self) -> Option<&str> {
        self.session.player_name()
    }

    /// What happened to all its sessions.
    pub(crate) fn counters(&self) -> Counters {
        sum(self.earlier_counters, self.session.counters())
    }

    /// Whether the server has answered the greeting of this connection.
    pub(crate) fn is_handshake_done(&self) -> bool {
        self.is_handshake_done
    }

    /// From now on a new player, under another name: the old one may be there still.
    pub(crate) fn start_new_player(&mut self) {
        self.players_before += 1;
        self.earlier_counters = self.counters();
        self.session = ProtocolSession::new(self.protocol, format!("{}.{}", self.name, self.players_before));
        self.queued.clear();
        self.is_replacing_player = false;
    }

    /// Whether the session has more to send than it may hold.
    pub(crate) fn is_congested(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Whether there is a connection, or will be one.
    pub(crate) fn is_active(&self) -> bool {
        self.will_reconnect || !matches!(self.connection, Connection::None)
    }

    /// Begins to connect, from this address if it matters.
    ///
    /// # Errors
    /// When that fails at once.
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

    /// Gives up the connection (a closed descriptor leaves the poll by itself). The session stays.
    pub(crate) fn disconnect(&mut self) {
        self.connection = Connection::None;
        self.session.connection_lost();
    }

    /// Queues a message. What the session cannot hold now waits here.
    ///
    /// # Errors
    /// When the session can never send it.
    pub(crate) fn send(&mut self, message: ClientMessage) -> Result<(), ProtocolError> {
        self.queued.push_back(message);
        self.send_queued()
    }

    /// Queues a sign of life, unless so much is queued that there are enough already.
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

    /// Takes what the poll reported: completes the connection, reads all there is and appends the messages to `messages`
    /// (also when the connection is found lost after them).
    ///
    /// # Errors
    /// When the connection is over.
    pub(crate) fn on_ready(
        &mut self,
        event: &Event,
        buffer: &mut [u8],
        messages: &mut Vec<ServerMessage>,
    ) -> Result<(), ConnectionError> {
        if !self.complete_connect()? {
            return Ok(());
        }
        // A peer that greets nobody is greeted for.
        self.take_messages(messages)?;
        // Edge-triggered: reading must go on until nothing is left. A short read shows that, too; only an end that has
        // been announced already would bring no further event.
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

    /// Writes what the session has, as far as the connection takes it. (The poll reports when it takes more.)
    ///
    /// # Errors
    /// When the connection is over.
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

    /// Whether the connection stands; one that has just come to stand is greeted.
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

/// As [`TcpStream::connect`], from any port of an address.
fn connect_from(source: IpAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM.nonblocking(), None)?;
    // With a port chosen here the kernel would look for one that nobody has, which takes ever longer from 15,000 clients on.
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
