//! A small blocking client on top of [`ClientSession`]: it connects, reconnects and resumes after a lost connection,
//! and waits for answers.
//!
//! A client has no thread or timer. It reconnects, resumes and sends heartbeats only during calls that wait
//! ([`receive`](Client::receive) and the requests), so a program has to make such a call now and then. Messages that
//! arrive while a request waits for its answer are queued for `receive`.

mod connection;
mod requests;

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    time::{Duration, Instant},
};

use thiserror::Error;

use self::connection::{Connection, RetryState};
pub use self::requests::NewRoom;
use crate::{
    messages::{ClientMessage, ErrorCode, RejectCode, ServerMessage, Token},
    session::{ClientSession, Counters, SessionError, SessionInfo},
};

/// Messages that can be queued while a request waits for its answer.
pub const QUEUED_MESSAGES_MAX: usize = 4096;

/// The smallest nonce that the library uses for its own pings. `receive` does not return their pongs.
pub const LIBRARY_NONCE_MIN: u64 = 1 << 63;

/// Why a call failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address could not be resolved, or resolves to nothing.
    #[error("the server's address cannot be resolved")]
    Address(#[source] io::Error),
    /// The first connection could not be established.
    #[error("cannot connect to {address}")]
    Connect {
        /// The last address that was tried.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The connection was lost, and reconnecting failed for [`ClientOptions::reconnect_timeout`].
    #[error("the connection was lost, and reconnecting failed for {0:?}")]
    ReconnectTimeout(Duration, #[source] io::Error),
    /// No answer arrived in time.
    #[error("no answer in {0:?}")]
    Timeout(Duration),
    /// The server rejected the request, which changed nothing.
    #[error("rejected: {code:?}: {text}")]
    Rejected {
        /// The reason, for programs.
        code: RejectCode,
        /// The reason, for people.
        text: String,
        /// How long to wait before the request is sent again, if it came too early and the server says so.
        retry_after: Option<Duration>,
    },
    /// Bytes of the server's stream were lost while a request waited, possibly with its answer. A `Resync` with the
    /// current state follows.
    #[error("the answer was lost with part of the server's stream")]
    AnswerLost,
    /// More than [`QUEUED_MESSAGES_MAX`] messages arrived while a request waited for its answer.
    #[error("more than {QUEUED_MESSAGES_MAX} messages arrived before the answer")]
    QueueFull,
    /// The session has ended, or cannot send the message.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl ClientError {
    /// The code of the rejection, if this is one.
    pub fn reject_code(&self) -> Option<RejectCode> {
        match self {
            Self::Rejected { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The code of the `Error` with which the server ended the connection, if it sent one.
    pub fn error_code(&self) -> Option<ErrorCode> {
        match self {
            Self::Session(SessionError::Closed { code, .. }) => Some(*code),
            _ => None,
        }
    }
}

/// Timeouts and other options of a client.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Program and version of the client, for the operator.
    pub client: String,
    /// Limit for all of [`Client::connect`]; later for each attempt to connect and complete the handshake.
    pub connect_timeout: Duration,
    /// How long a client tries to reconnect after a lost connection. Zero: it does not try.
    pub reconnect_timeout: Duration,
    /// The longest pause between two attempts. The first pauses are shorter.
    pub reconnect_pause_max: Duration,
    /// How long a request waits for its answer, and `send` for buffer space.
    pub reply_timeout: Duration,
    /// The client sends a ping after so long without a write. `None`: a third of the server's heartbeat timeout.
    pub heartbeat: Option<Duration>,
    /// The local address to connect from. `None`: the kernel chooses.
    pub local_address: Option<IpAddr>,
    /// Whether requests that have no answer of their own wait for an `Accepted` instead of a pong. Such messages that
    /// [`Client::send`] has sent are answered with `Accepted`, too.
    pub acknowledge: bool,
    /// Bytes kept for resending, see [`ClientSession::with_unacknowledged_bytes_max`].
    pub unacknowledged_bytes_max: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            client: concat!("forkade-protocol ", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            reconnect_timeout: Duration::from_secs(30),
            reconnect_pause_max: Duration::from_secs(1),
            reply_timeout: Duration::from_secs(10),
            heartbeat: None,
            local_address: None,
            acknowledge: false,
            unacknowledged_bytes_max: crate::session::UNACKNOWLEDGED_BYTES_MAX,
        }
    }
}

/// See the module's documentation. Dropping a client closes the connection without a goodbye, so the server keeps the
/// seat for its grace time.
#[derive(Debug)]
pub struct Client {
    servers: Vec<SocketAddr>,
    options: ClientOptions,
    session: ClientSession,
    connection: Option<Connection>,
    /// Present while no connection has completed its handshake.
    retry: Option<RetryState>,
    /// A connection was lost after `Hello` may have been sent and before its answer arrived.
    hello_lost: bool,
    /// Why the session ended. Calls return it once the queue is empty.
    ended: Option<SessionError>,
    queue: VecDeque<ServerMessage>,
    next_request: u32,
    next_nonce: u64,
    last_pong: Option<u64>,
}

impl Client {
    /// Connects as a new player and waits for the `Welcome`. If a connection ends without an `Error` from the server,
    /// the client tries again.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if no server listens; [`ClientError::Session`] with [`SessionError::Closed`] if the
    /// server refuses; [`ClientError::Timeout`], [`ClientError::Address`].
    pub fn connect(
        server: impl ToSocketAddrs,
        name: impl Into<String>,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let mut session = ClientSession::new(name, options.client.clone());
        if options.acknowledge {
            session = session.with_acknowledgements();
        }
        Self::connect_session(server, session, options)
    }

    /// Connects as the player that has this token, and replaces any other connection of that player.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn resume(
        server: impl ToSocketAddrs,
        token: Token,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        Self::connect_session(server, ClientSession::from_token(token), options)
    }

    fn connect_session(
        server: impl ToSocketAddrs,
        session: ClientSession,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let started = Instant::now();
        let timeout = options.connect_timeout;
        let mut client = Self {
            servers: server.to_socket_addrs().map_err(ClientError::Address)?.collect(),
            session: session.with_unacknowledged_bytes_max(options.unacknowledged_bytes_max),
            connection: None,
            retry: Some(RetryState::new(timeout)),
            hello_lost: false,
            options,
            ended: None,
            queue: VecDeque::new(),
            next_request: 1,
            next_nonce: LIBRARY_NONCE_MIN,
            last_pong: None,
        };
        // Only a connection that was established and lost is worth another attempt. If no server listens, that is
        // final.
        client
            .open_connection()
            .map_err(|(address, source)| match address {
                Some(address) => ClientError::Connect { address, source },
                None => ClientError::Address(source),
            })?;
        client.session.begin()?;
        while !client.session.is_established() {
            client.step(started + timeout)?;
            if let Some(error) = client.ended.take() {
                return Err(error.into());
            }
            if !client.session.is_established() && started.elapsed() >= timeout {
                return Err(ClientError::Timeout(timeout));
            }
        }
        Ok(client)
    }

    /// Returns the next message. Waits for at most `timeout`, or a little longer during an attempt to reconnect. Zero:
    /// returns only a message that is already there.
    ///
    /// # Errors
    /// [`ClientError::ReconnectTimeout`] if reconnecting fails, [`ClientError::Session`] if the session has ended.
    pub fn receive(&mut self, timeout: Duration) -> Result<Option<ServerMessage>, ClientError> {
        self.receive_where(timeout, |_| true)
    }

    /// Returns the next message for which `predicate` is true. Other messages stay queued in their order for other
    /// calls.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and [`ClientError::QueueFull`].
    pub fn receive_where(
        &mut self,
        timeout: Duration,
        predicate: impl Fn(&ServerMessage) -> bool,
    ) -> Result<Option<ServerMessage>, ClientError> {
        let deadline = Instant::now() + timeout;
        let mut seen = 0;
        loop {
            if let Some(found) = self.queue.range(seen..).position(&predicate) {
                return Ok(self.queue.remove(seen + found));
            }
            seen = self.queue.len();
            self.check_before_waiting()?;
            self.step(deadline)?;
            if self.queue.len() == seen && self.ended.is_none() && Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// Sends a message: at once if the connection is up and accepts it, else in later calls. It reaches the server
    /// exactly once, unless the session ends.
    ///
    /// # Errors
    /// [`ClientError::Session`] if the session has ended or the message cannot be sent; [`ClientError::Timeout`] if the
    /// server does not process what was sent before; [`ClientError::QueueFull`] if too many messages wait meanwhile.
    pub fn send(&mut self, message: &ClientMessage) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.options.reply_timeout;
        loop {
            match self.session.send(message) {
                Ok(()) => break,
                Err(SessionError::BufferFull { .. }) if Instant::now() < deadline => {
                    // Messages that arrive meanwhile are queued.
                    self.check_before_waiting()?;
                    self.step(deadline)?;
                }
                Err(SessionError::BufferFull { .. }) => {
                    return Err(ClientError::Timeout(self.options.reply_timeout));
                }
                Err(error) => return Err(self.ended.clone().unwrap_or(error).into()),
            }
        }
        if let Some(connection) = &mut self.connection {
            connection.write(&mut self.session);
        }
        Ok(())
    }

    /// Sends `Goodbye`, which gives up seat and token, and waits until the server closes the connection. Discards
    /// queued messages.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] if the server does not close; as [`receive`](Self::receive).
    pub fn goodbye(mut self) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.options.reply_timeout;
        self.send(&ClientMessage::Goodbye)?;
        loop {
            self.queue.clear();
            match self.ended.take() {
                // The player is gone, whatever code the server sent. (It sends `TokenUnknown` if the connection was
                // lost after the goodbye had arrived.)
                Some(SessionError::Ended | SessionError::Closed { .. }) => return Ok(()),
                Some(error) => return Err(error.into()),
                None if Instant::now() >= deadline => {
                    return Err(ClientError::Timeout(self.options.reply_timeout));
                }
                None => self.step(deadline)?,
            }
        }
    }

    /// Resets the connection without a goodbye. Bytes in transit are lost. The next call that waits resumes the
    /// session.
    pub fn disconnect_abruptly(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.reset();
            self.session.connection_lost();
            self.retry = Some(RetryState::new(self.options.reconnect_timeout));
        }
    }

    /// Sets the local address of the next connection.
    pub fn set_local_address(&mut self, address: Option<IpAddr>) {
        self.options.local_address = address;
    }

    /// The local address of the connection, if there is one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.connection.as_ref().and_then(Connection::local_addr)
    }

    /// Whether there is a connection that has completed its handshake.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some() && self.session.is_established()
    }

    /// The session, for its offsets.
    pub fn session(&self) -> &ClientSession {
        &self.session
    }

    /// The content of the `Welcome`; `None` for a client made by [`resume`](Self::resume).
    pub fn session_info(&self) -> Option<&SessionInfo> {
        self.session.session_info()
    }

    /// The secret for resuming the session.
    ///
    /// # Panics
    /// Never: a client exists only after its handshake.
    pub fn token(&self) -> Token {
        self.session.token().expect("the handshake is complete")
    }

    /// Counts of resumes, gaps and resyncs.
    pub fn counters(&self) -> Counters {
        self.session.counters()
    }

    /// Fails if the session has ended or the queue is full.
    fn check_before_waiting(&self) -> Result<(), ClientError> {
        match &self.ended {
            Some(error) => Err(error.clone().into()),
            None if self.queue.len() >= QUEUED_MESSAGES_MAX => Err(ClientError::QueueFull),
            None => Ok(()),
        }
    }
}
