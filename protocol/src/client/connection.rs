//! The client's socket: reading, writing, heartbeats and reconnecting.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, SockRef, Socket, Type};

use super::{Client, ClientError, ClientOptions, LIBRARY_NONCE_MIN};
use crate::{
    messages::{ErrorCode, ServerMessage},
    session::{ClientSession, SessionError},
};

/// The client sends a ping after so long without a write, if neither the options nor the server set another interval.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);

/// Heartbeat intervals without an answer after which the connection counts as lost.
const HEARTBEATS_UNANSWERED_MAX: u32 = 3;

/// How long a write can block. It is short, because a server that waits for the client to read does not read either.
const WRITE_TIMEOUT: Duration = Duration::from_millis(10);

/// The pause before the second attempt to reconnect. The first has none; each later pause is twice as long.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(10);

/// How long a connection must have been up before the pauses after earlier failures are forgotten. A server that
/// accepts and then fails is not reconnected to without pause.
const PROVED_AFTER: Duration = Duration::from_secs(5);

/// Bytes of one read.
const READ_BYTES_MAX: usize = 16 * 1024;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum ConnectionError {
    /// The server closed the connection in an orderly way.
    Closed,
    /// The connection failed.
    Failed(io::Error),
    /// The session reported an error.
    Session(SessionError),
}

impl From<ConnectionError> for io::Error {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Closed => {
                io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")
            }
            ConnectionError::Failed(error) => error,
            ConnectionError::Session(error) => io::Error::other(error),
        }
    }
}

/// When to reconnect, and when to give up, while no connection has completed its handshake.
#[derive(Debug)]
pub(super) struct RetryState {
    since: Instant,
    duration_max: Duration,
    attempts_failed: u32,
    next_attempt: Instant,
    cause: Option<io::Error>,
    /// When the handshake of the present connection was completed.
    up_since: Option<Instant>,
}

impl RetryState {
    pub(super) fn new(duration_max: Duration) -> Self {
        let now = Instant::now();
        Self {
            since: now,
            duration_max,
            attempts_failed: 0,
            next_attempt: now,
            cause: None,
            up_since: None,
        }
    }

    /// A connection has completed its handshake. If it is lost, the time for reconnecting starts again, but the pauses
    /// do not: see [`PROVED_AFTER`].
    fn connection_is_up(&mut self) {
        self.up_since = Some(Instant::now());
    }

    /// The connection is lost, or was not established.
    fn connection_is_lost(&mut self, duration_max: Duration) {
        if let Some(up_since) = self.up_since.take() {
            (self.since, self.duration_max) = (Instant::now(), duration_max);
            if up_since.elapsed() >= PROVED_AFTER {
                self.attempts_failed = 0;
            }
        }
    }

    /// Schedules the next attempt after a failure: the first at once, later ones after growing pauses. Half of each
    /// pause is random, so that many clients do not reconnect in step. (The first is at once because most connections
    /// are lost alone.)
    fn schedule(&mut self, cause: io::Error, pause_max: Duration) {
        let doublings = self.attempts_failed.saturating_sub(1).min(16);
        let pause = match self.attempts_failed {
            0 => Duration::ZERO,
            _ => RECONNECT_PAUSE_MIN.saturating_mul(1 << doublings).min(pause_max),
        };
        let random = RandomState::new().build_hasher().finish();
        let percent = u32::try_from(50 + random % 51).unwrap_or(100);
        self.next_attempt = Instant::now() + pause * percent / 100;
        self.attempts_failed += 1;
        self.cause = Some(cause);
    }
}

/// An established TCP connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// How long a read blocks; zero: the socket is non-blocking. `None`: not set yet.
    read_timeout: Option<Duration>,
    last_write: Instant,
    /// When the client began to wait for a byte from the server: at the handshake, or after a heartbeat.
    answer_due_since: Option<Instant>,
    /// Why writing failed. Reading continues, because the server may have sent the reason before it closed.
    write_error: Option<io::Error>,
}

impl Connection {
    fn connect(server: SocketAddr, options: &ClientOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        if let Some(address) = options.local_address {
            socket.bind(&SocketAddr::new(address, 0).into())?;
        }
        socket.connect_timeout(&server.into(), options.connect_timeout)?;
        socket.set_tcp_nodelay(true)?;
        let stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let now = Instant::now();
        Ok(Self {
            stream,
            read_timeout: None,
            last_write: now,
            answer_due_since: Some(now),
            write_error: None,
        })
    }

    /// Writes as much as the socket accepts now.
    pub(super) fn write(&mut self, session: &mut ClientSession) {
        while self.write_error.is_none() && !session.bytes().is_empty() {
            match self.stream.write(session.bytes()) {
                Ok(count) => {
                    session.advance(count);
                    self.last_write = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => break,
                Err(error) => self.write_error = Some(error),
            }
        }
    }

    /// Reads into the session. Blocks for at most `timeout`.
    fn read(&mut self, session: &mut ClientSession, timeout: Duration) -> Result<(), ConnectionError> {
        self.set_read_timeout(timeout).map_err(ConnectionError::Failed)?;
        let mut buffer = [0; READ_BYTES_MAX];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(self
                .write_error
                .take()
                .map_or(ConnectionError::Closed, ConnectionError::Failed)),
            Ok(count) => {
                self.answer_due_since = None;
                session
                    .receive(&buffer[..count])
                    .map_err(ConnectionError::Session)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted || is_timeout(&error) => Ok(()),
            Err(error) => Err(ConnectionError::Failed(error)),
        }
    }

    fn set_read_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        if self.read_timeout != Some(timeout) {
            self.stream.set_nonblocking(timeout.is_zero())?;
            if !timeout.is_zero() {
                self.stream.set_read_timeout(Some(timeout))?;
            }
            self.read_timeout = Some(timeout);
        }
        Ok(())
    }

    /// Closes the connection with a reset (RST instead of FIN).
    pub(super) fn reset(self) {
        // It fails only if the connection is already closed.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }
}

impl Client {
    /// Reconnects, or writes, reads and dispatches received messages, once. Returns at `deadline`, or earlier if there
    /// was an event.
    pub(super) fn step(&mut self, deadline: Instant) -> Result<(), ClientError> {
        if self.ended.is_some() {
            return Ok(());
        }
        let Some(mut connection) = self.connection.take() else {
            return self.reconnect(deadline);
        };
        match self.exchange(&mut connection, deadline) {
            Ok(()) => self.connection = Some(connection),
            Err(error) => self.on_connection_lost(error),
        }
        Ok(())
    }

    /// Connects to the first of the server's addresses that accepts. The caller begins the handshake.
    pub(super) fn open_connection(&mut self) -> Result<(), (Option<SocketAddr>, io::Error)> {
        let mut failure = (
            None,
            io::Error::new(ErrorKind::NotFound, "the name resolves to no address"),
        );
        for &server in &self.servers {
            match Connection::connect(server, &self.options) {
                Ok(connection) => {
                    self.connection = Some(connection);
                    return Ok(());
                }
                Err(error) => failure = (Some(server), error),
            }
        }
        Err(failure)
    }

    fn exchange(&mut self, connection: &mut Connection, deadline: Instant) -> Result<(), ConnectionError> {
        let now = Instant::now();
        let established = self.session.is_established();
        let heartbeat = self.heartbeat();
        let answer_timeout = if established {
            heartbeat * HEARTBEATS_UNANSWERED_MAX
        } else {
            self.options.connect_timeout
        };
        if established && now >= connection.last_write + heartbeat {
            // If there is no space for a ping, other output is waiting to be written.
            let _ = self.session.ping();
            connection.last_write = now;
            connection.answer_due_since.get_or_insert(now);
        }
        connection.write(&mut self.session);

        let answer_deadline = connection
            .answer_due_since
            .map_or(deadline, |since| since + answer_timeout);
        let mut wait_until = deadline
            .min(answer_deadline)
            .min(connection.last_write + heartbeat);
        if !self.session.bytes().is_empty() {
            wait_until = wait_until.min(now + WRITE_TIMEOUT);
        }
        connection.read(&mut self.session, wait_until.saturating_duration_since(now))?;
        self.dispatch_messages()?;
        if connection
            .answer_due_since
            .is_some_and(|since| since.elapsed() >= answer_timeout)
        {
            return Err(ConnectionError::Failed(io::Error::new(
                ErrorKind::TimedOut,
                "the server does not answer",
            )));
        }
        connection.write(&mut self.session);
        Ok(())
    }

    /// Queues received messages, and handles those that concern the connection.
    fn dispatch_messages(&mut self) -> Result<(), ConnectionError> {
        while let Some(message) = self.session.next_message().map_err(ConnectionError::Session)? {
            match message {
                ServerMessage::Welcome { .. } | ServerMessage::Resumed { .. } => {
                    if let Some(retry) = &mut self.retry {
                        retry.connection_is_up();
                    }
                }
                ServerMessage::Pong { nonce, .. } if nonce >= LIBRARY_NONCE_MIN => {
                    self.last_pong = Some(nonce)
                }
                ServerMessage::ShuttingDown { text } => {
                    self.queue
                        .push_back(ServerMessage::ShuttingDown { text: text.clone() });
                    let code = ErrorCode::ShuttingDown;
                    return Err(ConnectionError::Session(SessionError::Closed { code, text }));
                }
                message => self.queue.push_back(message),
            }
        }
        Ok(())
    }

    /// Ends the session, or schedules the next attempt to reconnect.
    fn on_connection_lost(&mut self, error: ConnectionError) {
        let was_established = self.session.is_established();
        let all_sent = was_established && self.session.bytes().is_empty();
        self.session.connection_lost();
        match error {
            // The server answers `Goodbye` by closing the connection.
            ConnectionError::Closed if all_sent && self.session.is_leaving() => {
                self.ended = Some(SessionError::Ended)
            }
            ConnectionError::Session(error) if !self.may_retry(&error) => self.ended = Some(error),
            error => {
                self.hello_lost |= self.session.token().is_none();
                let pause_max = self.options.reconnect_pause_max;
                let duration_max = self.options.reconnect_timeout;
                let retry = self.retry.get_or_insert_with(|| RetryState::new(duration_max));
                retry.connection_is_lost(duration_max);
                retry.schedule(error.into(), pause_max);
            }
        }
    }

    fn may_retry(&self, error: &SessionError) -> bool {
        match self.session.token() {
            Some(_) => !self.session.is_ended(),
            // If the answer to an earlier `Hello` was lost, the name may be taken by the player of that `Hello`.
            None => {
                self.session.falls_back()
                    || self.hello_lost
                        && matches!(
                            error,
                            SessionError::Closed {
                                code: ErrorCode::NameTaken,
                                ..
                            }
                        )
            }
        }
    }

    fn reconnect(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let duration_max = self.options.reconnect_timeout;
        let retry = self.retry.get_or_insert_with(|| RetryState::new(duration_max));
        if retry.since.elapsed() >= retry.duration_max {
            let cause = retry
                .cause
                .take()
                .unwrap_or_else(|| ErrorKind::NotConnected.into());
            return Err(ClientError::ReconnectTimeout(retry.duration_max, cause));
        }
        let next_attempt = retry.next_attempt;
        std::thread::sleep(
            next_attempt
                .min(deadline)
                .saturating_duration_since(Instant::now()),
        );
        if Instant::now() < next_attempt {
            return Ok(());
        }
        match self.open_connection() {
            Ok(()) => self.session.begin()?,
            Err((_, error)) => self.on_connection_lost(ConnectionError::Failed(error)),
        }
        Ok(())
    }

    /// The interval of heartbeats: so long after the last write the client sends a ping.
    fn heartbeat(&self) -> Duration {
        let server_timeout_ms = self.session_info().map(|info| info.limits.heartbeat_timeout_ms);
        let server_interval =
            server_timeout_ms.map(|timeout_ms| Duration::from_millis(u64::from(timeout_ms / 3).max(1)));
        self.options
            .heartbeat
            .or(server_interval)
            .unwrap_or(HEARTBEAT_DEFAULT)
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
