//! The connection to the server: a [`ClientSession`] over one non-blocking socket at a time.
//!
//! The caller polls the [socket](Connection::socket) until the [deadline](Connection::deadline), calls
//! [`Connection::step`], and is told by [`ConnectionEvent`]s what came of it. A lost connection is made again with
//! growing pauses until the server says that the session is gone, or until the seat's grace must be over.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use forkade_protocol::session::SessionError;
use forkade_protocol::{ClientMessage, ClientSession, ErrorCode, ServerMessage};
use socket2::{Domain, Socket, Type};

/// How long one attempt may take, from the socket to the end of the handshake.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the first handshake is tried for.
const FIRST_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// Delays between attempts: none before the first, then from the minimum on, each twice as long as the one before.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(20);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);

/// How much longer than the seat's grace to retry: the server notices a lost connection later than the client.
const RETRY_BEYOND_GRACE: Duration = Duration::from_secs(5);

/// The connection counts as lost after the time of this many heartbeats without a reply.
const HEARTBEATS_UNANSWERED_MAX: u32 = 3;

/// The heartbeat interval, until the server's limits are known.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);

/// The shortest heartbeat interval, whatever the server's limits are.
const HEARTBEAT_MS_MIN: u32 = 20;

/// Bytes read at once.
const READ_BYTES_MAX: usize = 16 * 1024;

/// Reads in one step, so that a server that never stops sending does not delay the keyboard.
const READS_MAX: usize = 16;

/// What has happened.
#[derive(Debug)]
pub(crate) enum ConnectionEvent {
    /// A message has arrived.
    Message(ServerMessage),
    /// A connection that was up is lost.
    Lost {
        /// The reason.
        cause: String,
        /// How long it is retried.
        retry_for: Duration,
    },
    /// The session has ended.
    Ended(SessionEnd),
}

/// Why the session has ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionEnd {
    /// The server has received the goodbye.
    #[error("goodbye")]
    Left,
    /// No connection could be established at the start.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server stops.
    #[error("the server has stopped: {0}")]
    Stopped(String),
    /// The server has refused the handshake.
    #[error("the server refuses: {1}")]
    Refused(ErrorCode, String),
    /// The server has ended the session, or does not know it.
    #[error("the server has ended your session: {1}")]
    Closed(ErrorCode, String),
    /// The server could not be reached for so long.
    #[error(
        "the server could not be reached for {seconds} seconds, and by now your session is gone: {cause}"
    )]
    GaveUp { seconds: u64, cause: String },
    /// The server has violated the protocol.
    #[error("this is no server that can be understood: {0}")]
    ProtocolError(String),
}

/// The connection; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Connection {
    servers: Vec<SocketAddr>,
    client: String,
    /// Names to try next if a name is taken.
    names: VecDeque<String>,
    session: ClientSession,
    transport: Option<Transport>,
    /// The state of the retries while no connection is up.
    retry: Option<RetryState>,
    /// Whether the handshake on the current connection is complete.
    is_up: bool,
    /// Whether any connection was ever established.
    has_ever_connected: bool,
    /// A handshake was lost before the reply: the server may hold a session of this client, which has the name.
    hello_lost: bool,
    seat_grace: Duration,
    heartbeat: Duration,
    is_over: bool,
}

#[derive(Debug)]
struct RetryState {
    since: Instant,
    retry_for: Duration,
    attempts: usize,
    next: Instant,
    cause: String,
}

#[derive(Debug)]
struct Transport {
    stream: TcpStream,
    is_connected: bool,
    last_write: Instant,
    /// Since when a reply is due.
    reply_due_since: Option<Instant>,
}

/// Why a connection failed.
enum Failure {
    /// The server closed, or the network failed.
    Socket(String),
    Session(SessionError),
}

impl Connection {
    /// Does nothing before the first [step](Self::step). The first of `names` that is free becomes the player's.
    ///
    /// `None` without a server or without a name.
    pub(crate) fn new(
        servers: Vec<SocketAddr>,
        names: Vec<String>,
        client: &str,
        now: Instant,
    ) -> Option<Self> {
        let mut names = VecDeque::from(names);
        let name = names.pop_front()?;
        if servers.is_empty() {
            return None;
        }
        Some(Self {
            servers,
            client: client.to_owned(),
            names,
            session: ClientSession::new(name, client),
            transport: None,
            retry: Some(RetryState::starting(FIRST_HANDSHAKE_TIMEOUT, now)),
            is_up: false,
            has_ever_connected: false,
            hello_lost: false,
            seat_grace: Duration::ZERO,
            heartbeat: HEARTBEAT_DEFAULT,
            is_over: false,
        })
    }

    /// The socket to poll, and whether to poll it for writing, too.
    pub(crate) fn socket(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let transport = self.transport.as_ref()?;
        let writes = !transport.is_connected || !self.session.bytes().is_empty();
        Some((transport.stream.as_fd(), writes))
    }

    /// When to call [`step`](Self::step) even if nothing has happened.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.is_over {
            return None;
        }
        let Some(transport) = &self.transport else {
            return self.retry.as_ref().map(|retry| retry.next);
        };
        let owed = transport
            .reply_due_since
            .map(|since| since + self.reply_timeout());
        let heartbeat = self
            .session
            .is_established()
            .then(|| transport.last_write + self.heartbeat);
        owed.into_iter().chain(heartbeat).min()
    }

    /// Whether messages flow now.
    pub(crate) fn is_up(&self) -> bool {
        self.is_up
    }

    /// Whether the server keeps a seat for this client, because it could not be told that the client leaves.
    pub(crate) fn has_resumable_session(&self) -> bool {
        !self.is_over && !self.is_up && self.session.token().is_some()
    }

    /// Queues a message; it goes out when there is a connection that takes it.
    ///
    /// # Errors
    ///
    /// The reason why it cannot be sent, for the player.
    pub(crate) fn send(&mut self, message: &ClientMessage) -> Result<(), String> {
        self.session.send(message).map_err(|error| error.to_string())
    }

    /// Does everything that is possible without waiting.
    pub(crate) fn step(&mut self, now: Instant) -> Vec<ConnectionEvent> {
        let mut events = Vec::new();
        if self.is_over {
            return events;
        }
        if self.transport.is_none() {
            self.try_connect(now, &mut events);
        }
        if let Some(mut transport) = self.transport.take() {
            match self.transfer(&mut transport, now, &mut events) {
                Ok(()) => self.transport = Some(transport),
                Err(failure) => self.on_failure(failure, now, &mut events),
            }
        }
        events
    }

    /// Begins another connection, if it is due.
    fn try_connect(&mut self, now: Instant, events: &mut Vec<ConnectionEvent>) {
        let Some(retry) = &mut self.retry else { return };
        if now < retry.next {
            return;
        }
        if now >= retry.since + retry.retry_for {
            let (seconds, cause) = (retry.retry_for.as_secs(), retry.cause.clone());
            return self.end(SessionEnd::GaveUp { seconds, cause }, events);
        }
        let server = self.servers[retry.attempts % self.servers.len()];
        match Transport::connecting(server, now) {
            Ok(transport) => self.transport = Some(transport),
            Err(error) => self.on_failure(Failure::Socket(error.to_string()), now, events),
        }
    }

    fn transfer(
        &mut self,
        transport: &mut Transport,
        now: Instant,
        events: &mut Vec<ConnectionEvent>,
    ) -> Result<(), Failure> {
        if !transport.is_connected {
            if !transport.has_connected()? {
                return self.check_reply_timeout(transport, now);
            }
            self.has_ever_connected = true;
            self.session.begin().map_err(Failure::Session)?;
        }
        if self.session.is_established() && now >= transport.last_write + self.heartbeat {
            // If there is no space for a heartbeat, other bytes are about to be sent.
            let _ = self.session.ping();
            transport.last_write = now;
            transport.reply_due_since.get_or_insert(now);
        }
        // The result of the read counts first: the server may have sent a reason before it closed. A connection that
        // cannot be written fails at the next read.
        let written = transport.write(&mut self.session, now);
        let read = self.read(transport, events);
        read.and(written)?;
        transport.write(&mut self.session, now)?;
        self.check_reply_timeout(transport, now)
    }

    fn read(&mut self, transport: &mut Transport, events: &mut Vec<ConnectionEvent>) -> Result<(), Failure> {
        let mut buffer = [0; READ_BYTES_MAX];
        for _ in 0..READS_MAX {
            match transport.stream.read(&mut buffer) {
                Ok(0) => return Err(Failure::Socket("the server closed the connection".to_owned())),
                Ok(length) => {
                    transport.reply_due_since = None;
                    self.session
                        .receive(&buffer[..length])
                        .map_err(Failure::Session)?;
                    self.read_messages(events)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Socket(error.to_string())),
            }
        }
        Ok(())
    }

    fn read_messages(&mut self, events: &mut Vec<ConnectionEvent>) -> Result<(), Failure> {
        while let Some(message) = self.session.next_message().map_err(Failure::Session)? {
            match &message {
                ServerMessage::Welcome { limits, .. } => {
                    (self.is_up, self.retry) = (true, None);
                    self.seat_grace = Duration::from_millis(limits.seat_grace_ms.into());
                    self.heartbeat =
                        Duration::from_millis((limits.heartbeat_timeout_ms / 3).max(HEARTBEAT_MS_MIN).into());
                }
                ServerMessage::Resumed { .. } => (self.is_up, self.retry) = (true, None),
                ServerMessage::ShuttingDown { text } => {
                    let (code, text) = (ErrorCode::ShuttingDown, text.clone());
                    return Err(Failure::Session(SessionError::Closed { code, text }));
                }
                _ => {}
            }
            events.push(ConnectionEvent::Message(message));
        }
        Ok(())
    }

    fn check_reply_timeout(&self, transport: &Transport, now: Instant) -> Result<(), Failure> {
        match transport.reply_due_since {
            Some(since) if now >= since + self.reply_timeout() => {
                Err(Failure::Socket("the server is silent".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn reply_timeout(&self) -> Duration {
        if self.session.is_established() {
            self.heartbeat * HEARTBEATS_UNANSWERED_MAX
        } else {
            ATTEMPT_TIMEOUT
        }
    }

    /// The connection is lost, or was not established: schedules a retry, or ends the session.
    fn on_failure(&mut self, failure: Failure, now: Instant, events: &mut Vec<ConnectionEvent>) {
        let was_up = std::mem::take(&mut self.is_up);
        self.session.connection_lost();
        let is_first = self.session.token().is_none();
        let cause = match failure {
            Failure::Socket(_) if self.session.is_leaving() && was_up => {
                return self.end(SessionEnd::Left, events);
            }
            Failure::Socket(cause) => {
                self.hello_lost |= is_first && self.has_ever_connected;
                cause
            }
            Failure::Session(SessionError::Closed { code, text }) => match self.on_server_close(code, text) {
                Ok(cause) => cause,
                Err(end) => return self.end(end, events),
            },
            Failure::Session(error) => return self.end(SessionEnd::ProtocolError(error.to_string()), events),
        };
        let retry_for = if is_first {
            FIRST_HANDSHAKE_TIMEOUT
        } else {
            self.seat_grace + RETRY_BEYOND_GRACE
        };
        let retry = self
            .retry
            .get_or_insert_with(|| RetryState::starting(retry_for, now));
        retry.schedule_next(cause.clone(), self.servers.len(), now);
        // At the start, one round of failures means that there is no server.
        if !self.has_ever_connected && retry.attempts >= self.servers.len() {
            return self.end(SessionEnd::Unreachable(cause), events);
        }
        if was_up {
            events.push(ConnectionEvent::Lost { cause, retry_for });
        }
    }

    /// The server has closed the connection: returns the reason to retry, or the end of the session.
    fn on_server_close(&mut self, code: ErrorCode, text: String) -> Result<String, SessionEnd> {
        match self.session.token() {
            Some(_) if self.session.is_leaving() => Err(SessionEnd::Left),
            Some(_) if code.may_resume() => Ok(text),
            None if self.session.falls_back() => {
                // The refusal was a reply, not a failure.
                self.retry = None;
                Ok(text)
            }
            None if code == ErrorCode::NameTaken && self.hello_lost => Ok(text),
            None if code == ErrorCode::NameTaken => match self.names.pop_front() {
                Some(name) => {
                    self.session = ClientSession::new(name, self.client.clone());
                    // The refusal was a reply, not a failure.
                    self.retry = None;
                    Ok(text)
                }
                None => Err(SessionEnd::Refused(code, text)),
            },
            _ if code == ErrorCode::ShuttingDown => Err(SessionEnd::Stopped(text)),
            Some(_) => Err(SessionEnd::Closed(code, text)),
            None => Err(SessionEnd::Refused(code, text)),
        }
    }

    fn end(&mut self, end: SessionEnd, events: &mut Vec<ConnectionEvent>) {
        self.is_over = true;
        events.push(ConnectionEvent::Ended(end));
    }
}

impl RetryState {
    fn starting(retry_for: Duration, now: Instant) -> Self {
        Self {
            since: now,
            retry_for,
            attempts: 0,
            next: now,
            cause: String::new(),
        }
    }

    /// An attempt failed. Once all addresses were tried, there is a delay. Half of it is random, so that many clients
    /// do not return at the same time.
    fn schedule_next(&mut self, cause: String, servers: usize, now: Instant) {
        let rounds = u32::try_from(self.attempts / servers).unwrap_or(u32::MAX);
        let pause = match rounds {
            0 => Duration::ZERO,
            _ => RETRY_DELAY_MIN
                .saturating_mul(1 << rounds.min(10))
                .min(RETRY_DELAY_MAX),
        };
        let random = RandomState::new().build_hasher().finish();
        let percent = u32::try_from(50 + random % 51).unwrap_or(100);
        self.next = now + pause * percent / 100;
        self.attempts += 1;
        self.cause = cause;
    }
}

impl Transport {
    fn connecting(server: SocketAddr, now: Instant) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&server.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            stream: socket.into(),
            is_connected: false,
            last_write: now,
            reply_due_since: Some(now),
        })
    }

    /// Whether the connection is established.
    fn has_connected(&mut self) -> Result<bool, Failure> {
        let socket = |error: io::Error| Failure::Socket(error.to_string());
        if let Some(error) = self.stream.take_error().map_err(socket)? {
            return Err(socket(error));
        }
        // Without a peer and without an error it is still being established.
        self.is_connected = self.stream.peer_addr().is_ok();
        Ok(self.is_connected)
    }

    /// Writes what the connection takes now.
    fn write(&mut self, session: &mut ClientSession, now: Instant) -> Result<(), Failure> {
        while !session.bytes().is_empty() {
            match self.stream.write(session.bytes()) {
                Ok(count) => {
                    session.advance(count);
                    self.last_write = now;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(Failure::Socket(error.to_string())),
            }
        }
        Ok(())
    }
}
