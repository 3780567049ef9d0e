//! The client's socket: one exchange at a time, and what happens when it fails.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, SockRef, Socket, Type};

use super::{Client, ClientError, ClientOptions, LIBRARY_NONCES_FROM};
use crate::{
    messages::{ErrorCode, ServerMessage},
    session::{ClientSession, SessionError},
};

/// After how long without sending a ping is sent, if neither the options nor the server say.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Heartbeats without an answer after which the connection is taken for lost.
const HEARTBEATS_UNANSWERED_MAX: u32 = 3;

/// How long one write may block. Short, since a server that waits for us to read does not read either.
const WRITE_TIMEOUT: Duration = Duration::from_millis(10);

/// The pause before the second attempt to reconnect; there is none before the first. Each is twice the one before.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(10);

/// Bytes read at once.
const READ_BYTES_MAX: usize = 16 * 1024;

/// Why a connection has to be given up.
#[derive(Debug)]
pub(super) enum LinkError {
    /// The server closed in an orderly way.
    End,
    /// The network did, or the server in another way.
    Broken(io::Error),
    /// The session says so.
    Session(SessionError),
}

impl From<LinkError> for io::Error {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::End => io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection"),
            LinkError::Broken(error) => error,
            LinkError::Session(error) => io::Error::other(error),
        }
    }
}

/// A time without a greeted connection.
#[derive(Debug)]
pub(super) struct Outage {
    since: Instant,
    duration_max: Duration,
    attempts_failed: u32,
    next_attempt: Instant,
    cause: Option<io::Error>,
}

impl Outage {
    pub(super) fn beginning(duration_max: Duration) -> Self {
        let now = Instant::now();
        Self {
            since: now,
            duration_max,
            attempts_failed: 0,
            next_attempt: now,
            cause: None,
        }
    }

    /// An attempt failed: the next one follows at once, the one after it with a pause, and so on with longer pauses,
    /// of which the half is random so that many clients do not come back in step.
    fn postpone(&mut self, cause: io::Error, pause_max: Duration) {
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
pub(super) struct Link {
    stream: TcpStream,
    /// How long a read waits; zero: the socket is non-blocking. `None`: not set yet.
    wait: Option<Duration>,
    last_write: Instant,
    /// Since when the server owes us a byte: since the greeting or a ping was sent.
    owed_since: Option<Instant>,
    /// Why writing failed. Reading goes on, since the server may have said why before it closed.
    failure: Option<io::Error>,
}

impl Link {
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
            wait: None,
            last_write: now,
            owed_since: Some(now),
            failure: None,
        })
    }

    /// Writes what the connection takes now.
    pub(super) fn write(&mut self, session: &mut ClientSession) {
        while self.failure.is_none() && !session.bytes().is_empty() {
            match self.stream.write(session.bytes()) {
                Ok(count) => {
                    session.advance(count);
                    self.last_write = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => break,
                Err(error) => self.failure = Some(error),
            }
        }
    }

    /// Waits for input for at most `wait` and hands it to the session.
    fn read(&mut self, session: &mut ClientSession, wait: Duration) -> Result<(), LinkError> {
        self.set_wait(wait).map_err(LinkError::Broken)?;
        let mut buffer = [0; READ_BYTES_MAX];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(self.failure.take().map_or(LinkError::End, LinkError::Broken)),
            Ok(count) => {
                self.owed_since = None;
                session.receive(&buffer[..count]).map_err(LinkError::Session)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted || is_timeout(&error) => Ok(()),
            Err(error) => Err(LinkError::Broken(error)),
        }
    }

    fn set_wait(&mut self, wait: Duration) -> io::Result<()> {
        if self.wait != Some(wait) {
            self.stream.set_nonblocking(wait.is_zero())?;
            if !wait.is_zero() {
                self.stream.set_read_timeout(Some(wait))?;
            }
            self.wait = Some(wait);
        }
        Ok(())
    }

    /// Closes with a reset instead of an orderly end.
    pub(super) fn reset(self) {
        // If it cannot be set, the connection is gone already.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }
}

impl Client {
    /// One round of whatever is due: reconnect, or write, read and sort what came. Waits until `deadline` at the
    /// longest, and returns early as soon as anything happened.
    pub(super) fn step(&mut self, deadline: Instant) -> Result<(), ClientError> {
        if self.ended.is_some() {
            return Ok(());
        }
        let Some(mut link) = self.link.take() else {
            return self.reconnect(deadline);
        };
        match self.exchange(&mut link, deadline) {
            Ok(()) => self.link = Some(link),
            Err(error) => self.lose(error),
        }
        Ok(())
    }

    /// Tries all addresses of the server in turn.
    pub(super) fn open_link(&mut self) -> Result<(), (Option<SocketAddr>, io::Error)> {
        let mut failure = (
            None,
            io::Error::new(ErrorKind::NotFound, "the name has no address"),
        );
        for &server in &self.servers {
            match Link::connect(server, &self.options) {
                Ok(link) => {
                    self.session
                        .begin()
                        .map_err(|error| (Some(server), io::Error::other(error)))?;
                    self.link = Some(link);
                    return Ok(());
                }
                Err(error) => failure = (Some(server), error),
            }
        }
        Err(failure)
    }

    fn exchange(&mut self, link: &mut Link, deadline: Instant) -> Result<(), LinkError> {
        let now = Instant::now();
        let established = self.session.is_established();
        let heartbeat = self.heartbeat();
        let owed_max = if established {
            heartbeat * HEARTBEATS_UNANSWERED_MAX
        } else {
            self.options.connect_timeout
        };
        if established && now >= link.last_write + heartbeat {
            // With no room for a ping there is enough else to be written.
            let _ = self.session.ping();
            link.last_write = now;
            link.owed_since.get_or_insert(now);
        }
        link.write(&mut self.session);

        let owed_until = link.owed_since.map_or(deadline, |since| since + owed_max);
        let mut wait_until = deadline.min(owed_until).min(link.last_write + heartbeat);
        if !self.session.bytes().is_empty() {
            wait_until = wait_until.min(now + WRITE_TIMEOUT);
        }
        link.read(&mut self.session, wait_until.saturating_duration_since(now))?;
        self.sort_messages()?;
        if link.owed_since.is_some_and(|since| since.elapsed() >= owed_max) {
            return Err(LinkError::Broken(io::Error::new(
                ErrorKind::TimedOut,
                "the server is silent",
            )));
        }
        link.write(&mut self.session);
        Ok(())
    }

    fn sort_messages(&mut self) -> Result<(), LinkError> {
        while let Some(message) = self.session.next_message().map_err(LinkError::Session)? {
            match message {
                ServerMessage::Welcome { .. } | ServerMessage::Resumed { .. } => self.outage = None,
                ServerMessage::Pong { nonce, .. } if nonce >= LIBRARY_NONCES_FROM => {
                    self.last_pong = Some(nonce)
                }
                ServerMessage::ShuttingDown { text } => {
                    self.queue
                        .push_back(ServerMessage::ShuttingDown { text: text.clone() });
                    let code = ErrorCode::ShuttingDown;
                    return Err(LinkError::Session(SessionError::Closed { code, text }));
                }
                message => self.queue.push_back(message),
            }
        }
        Ok(())
    }

    /// The connection is gone: from here on either there is an outage, or the session has ended.
    fn lose(&mut self, error: LinkError) {
        let was_established = self.session.is_established();
        let all_said = was_established && self.session.bytes().is_empty();
        self.session.connection_lost();
        match error {
            // After the goodbye, the server's close is the answer.
            LinkError::End if all_said && self.session.is_leaving() => self.ended = Some(SessionError::Ended),
            LinkError::Session(error) if !self.may_try_again(&error) => self.ended = Some(error),
            error => {
                self.hello_lost |= self.session.token().is_none();
                let pause_max = self.options.reconnect_pause_max;
                let duration_max = self.options.reconnect_timeout;
                let outage = self.outage.get_or_insert_with(|| Outage::beginning(duration_max));
                outage.postpone(error.into(), pause_max);
            }
        }
    }

    fn may_try_again(&self, error: &SessionError) -> bool {
        match self.session.token() {
            Some(_) => !self.session.is_ended(),
            // Nobody but our own ghost need have the name, if a hello's answer was lost before.
            None => {
                self.hello_lost
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
        let outage = self.outage.get_or_insert_with(|| Outage::beginning(duration_max));
        if outage.since.elapsed() >= outage.duration_max {
            let cause = outage
                .cause
                .take()
                .unwrap_or_else(|| ErrorKind::NotConnected.into());
            return Err(ClientError::GaveUp(outage.duration_max, cause));
        }
        let next_attempt = outage.next_attempt;
        std::thread::sleep(
            next_attempt
                .min(deadline)
                .saturating_duration_since(Instant::now()),
        );
        if Instant::now() < next_attempt {
            return Ok(());
        }
        match self.open_link() {
            Ok(()) => self.session.begin()?,
            Err((_, error)) => self.lose(LinkError::Broken(error)),
        }
        Ok(())
    }

    fn heartbeat(&self) -> Duration {
        let of_server = self.session_info().map(|info| info.limits.heartbeat_timeout_ms);
        let third_of_servers =
            of_server.map(|timeout_ms| Duration::from_millis(u64::from(timeout_ms / 3).max(1)));
        self.options.heartbeat.or(third_of_servers).unwrap_or(HEARTBEAT)
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
