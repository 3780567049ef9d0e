//! A small blocking client over [`ClientSession`]: connects, comes back by itself when the connection is lost, and
//! waits for answers.
//!
//! One thread, one socket, no time of its own: reconnecting, resuming and heartbeats happen inside the calls that
//! wait ([`receive`](Client::receive) and the requests), so a client has to call one of them now and then. Messages
//! that arrive while a request waits for its answer are queued for `receive`.

mod link;
mod requests;

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    time::{Duration, Instant},
};

use thiserror::Error;

use self::link::{Link, Outage};
pub use self::requests::NewRoom;
use crate::{
    messages::{ClientMessage, ErrorCode, RejectCode, ServerMessage, Token},
    session::{ClientSession, Counters, SessionError, SessionInfo},
};

/// Messages that may wait in the queue while a request waits for its answer.
pub const QUEUED_MESSAGES_MAX: usize = 4096;

/// Nonces from here on are the library's own: `receive` does not show their pongs.
pub const LIBRARY_NONCES_FROM: u64 = 1 << 63;

/// Why a call failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address could not be resolved, or names nothing.
    #[error("the server's address cannot be resolved")]
    Address(#[source] io::Error),
    /// The first connection could not be made.
    #[error("cannot connect to {address}")]
    Connect {
        /// The address tried last.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection was lost and could not be made again in [`ClientOptions::reconnect_timeout`].
    #[error("the connection was lost and could not be made again in {0:?}")]
    GaveUp(Duration, #[source] io::Error),
    /// No answer in time.
    #[error("no answer in {0:?}")]
    Timeout(Duration),
    /// The server refused the request; it changed nothing.
    #[error("rejected: {code:?}: {text}")]
    Rejected {
        /// Why, for programs.
        code: RejectCode,
        /// Why, for people.
        text: String,
    },
    /// Bytes of the server's stream were lost while a request waited, its answer perhaps among them. A `Resync` tells
    /// what is true now.
    #[error("the answer was lost with part of the server's stream")]
    AnswerLost,
    /// More than [`QUEUED_MESSAGES_MAX`] messages came while a request waited for its answer.
    #[error("more than {QUEUED_MESSAGES_MAX} messages came before the answer")]
    QueueFull,
    /// The session is over, or does not take the message.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl ClientError {
    /// The code with which the server rejected the request, if it did.
    pub fn reject_code(&self) -> Option<RejectCode> {
        match self {
            Self::Rejected { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The code with which the server ended the connection, if it did.
    pub fn error_code(&self) -> Option<ErrorCode> {
        match self {
            Self::Session(SessionError::Closed { code, .. }) => Some(*code),
            _ => None,
        }
    }
}

/// How long a client waits, and who it says it is.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Program and version, for the operator.
    pub client: String,
    /// The whole of [`Client::connect`]; later, one attempt to connect and be greeted.
    pub connect_timeout: Duration,
    /// How long a lost connection is tried to be made again. Zero: not at all.
    pub reconnect_timeout: Duration,
    /// The longest pause between two attempts; the first pauses are shorter.
    pub reconnect_pause_max: Duration,
    /// How long a request waits for its answer, and `send` for room.
    pub reply_timeout: Duration,
    /// After how long without sending a ping is sent. `None`: a third of the server's heartbeat timeout.
    pub heartbeat: Option<Duration>,
    /// The local address to connect from. `None`: the system's choice.
    pub local_address: Option<IpAddr>,
    /// Bytes kept for sending them again, see [`ClientSession::with_unconfirmed_bytes_max`].
    pub unconfirmed_bytes_max: usize,
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
            unconfirmed_bytes_max: crate::session::UNCONFIRMED_BYTES_MAX,
        }
    }
}

/// See the module's documentation. Dropping it closes the connection without a goodbye: the server keeps the seat for
/// its grace time.
#[derive(Debug)]
pub struct Client {
    servers: Vec<SocketAddr>,
    options: ClientOptions,
    session: ClientSession,
    link: Option<Link>,
    /// Since when there is no greeted connection.
    outage: Option<Outage>,
    /// A `Hello` went out on a connection that was lost before the answer.
    hello_lost: bool,
    /// Why there will be no other connection; told once the queue is empty.
    ended: Option<SessionError>,
    queue: VecDeque<ServerMessage>,
    next_request: u32,
    next_nonce: u64,
    last_pong: Option<u64>,
}

impl Client {
    /// Connects as a new player and waits for the greeting. A connection that ends without a word is tried again.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if nobody listens; [`ClientError::Session`] with [`SessionError::Closed`] if the server
    /// refuses; [`ClientError::Timeout`], [`ClientError::Address`].
    pub fn connect(
        server: impl ToSocketAddrs,
        name: impl Into<String>,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let session = ClientSession::new(name, options.client.clone());
        Self::connect_session(server, session, options)
    }

    /// Connects as the player who has this token, in place of any other connection of that player.
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
            session: session.with_unconfirmed_bytes_max(options.unconfirmed_bytes_max),
            link: None,
            outage: Some(Outage::beginning(timeout)),
            hello_lost: false,
            options,
            ended: None,
            queue: VecDeque::new(),
            next_request: 1,
            next_nonce: LIBRARY_NONCES_FROM,
            last_pong: None,
        };
        // Nobody there at all is an answer too: only a connection that was made and lost is worth another attempt.
        client.open_link().map_err(|(address, source)| match address {
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

    /// The next message, waiting for one for at most `timeout` (a little longer if an attempt to reconnect is under
    /// way). Zero: only what is there.
    ///
    /// # Errors
    /// [`ClientError::GaveUp`] if the connection cannot be made again, [`ClientError::Session`] if the session is over.
    pub fn receive(&mut self, timeout: Duration) -> Result<Option<ServerMessage>, ClientError> {
        self.receive_where(timeout, |_| true)
    }

    /// The next message that `wanted` accepts. Others stay queued, in their order, for other calls.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), and [`ClientError::QueueFull`].
    pub fn receive_where(
        &mut self,
        timeout: Duration,
        wanted: impl Fn(&ServerMessage) -> bool,
    ) -> Result<Option<ServerMessage>, ClientError> {
        let deadline = Instant::now() + timeout;
        let mut seen = 0;
        loop {
            if let Some(found) = self.queue.range(seen..).position(&wanted) {
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

    /// Sends a message: at once if the connection is up and takes it, else in later calls. It reaches the server exactly
    /// once, unless the session ends.
    ///
    /// # Errors
    /// [`ClientError::Session`] if the session is over or the message cannot be sent; [`ClientError::Timeout`] if the
    /// server does not take in what was sent before.
    pub fn send(&mut self, message: &ClientMessage) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.options.reply_timeout;
        loop {
            match self.session.send(message) {
                Ok(()) => break,
                Err(SessionError::BufferFull { .. }) if Instant::now() < deadline => self.step(deadline)?,
                Err(SessionError::BufferFull { .. }) => {
                    return Err(ClientError::Timeout(self.options.reply_timeout));
                }
                Err(error) => return Err(self.ended.clone().unwrap_or(error).into()),
            }
        }
        if let Some(link) = &mut self.link {
            link.write(&mut self.session);
        }
        Ok(())
    }

    /// Says goodbye: gives up seat and token, and waits until the server closes. Messages still queued are dropped.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] if the server does not close; as [`receive`](Self::receive).
    pub fn goodbye(mut self) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.options.reply_timeout;
        self.send(&ClientMessage::Goodbye)?;
        loop {
            self.queue.clear();
            match self.ended.take() {
                // However the server ended it, the player is gone. (The token is unknown if the connection was lost
                // after the goodbye had arrived.)
                Some(SessionError::Ended | SessionError::Closed { .. }) => return Ok(()),
                Some(error) => return Err(error.into()),
                None if Instant::now() >= deadline => {
                    return Err(ClientError::Timeout(self.options.reply_timeout));
                }
                None => self.step(deadline)?,
            }
        }
    }

    /// Cuts the connection like a pulled cable: a reset, no goodbye, what is under way is lost. The session stays, and
    /// the next call that waits resumes it.
    pub fn disconnect_abruptly(&mut self) {
        if let Some(link) = self.link.take() {
            link.reset();
            self.session.connection_lost();
            self.outage = Some(Outage::beginning(self.options.reconnect_timeout));
        }
    }

    /// From which local address the next connection is made.
    pub fn set_local_address(&mut self, address: Option<IpAddr>) {
        self.options.local_address = address;
    }

    /// The local end of the connection, while there is one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.link.as_ref().and_then(Link::local_addr)
    }

    /// Whether messages flow now.
    pub fn is_connected(&self) -> bool {
        self.link.is_some() && self.session.is_established()
    }

    /// The session, to look at its offsets.
    pub fn session(&self) -> &ClientSession {
        &self.session
    }

    /// What the `Welcome` said; `None` for a client made by [`resume`](Self::resume).
    pub fn session_info(&self) -> Option<&SessionInfo> {
        self.session.session_info()
    }

    /// The secret for coming back.
    ///
    /// # Panics
    /// Never: a client exists only after its greeting.
    pub fn token(&self) -> Token {
        self.session.token().expect("a client has been greeted")
    }

    /// Resumes, gaps and resyncs so far.
    pub fn counters(&self) -> Counters {
        self.session.counters()
    }

    /// Waiting is pointless once the session is over, and must not let the queue grow without end.
    fn check_before_waiting(&self) -> Result<(), ClientError> {
        match &self.ended {
            Some(error) => Err(error.clone().into()),
            None if self.queue.len() >= QUEUED_MESSAGES_MAX => Err(ClientError::QueueFull),
            None => Ok(()),
        }
    }
}
