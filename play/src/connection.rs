//! The connection to the server, without ever waiting: a [`ClientSession`] over one socket at a time.
//!
//! Whoever drives it polls the [socket](Connection::socket) until the [deadline](Connection::deadline), calls
//! [`Connection::step`], and is told by [`Report`]s what came of it. A lost connection is made again with growing pauses until
//! the server says that the session is gone, or until the seat's grace must be over.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use forkade_protocol::session::SessionError;
use forkade_protocol::{ClientMessage, ClientSession, ErrorCode, ServerMessage};
use socket2::{Domain, Socket, Type};

/// How long one attempt may take, from the socket to the greeting.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the first greeting is tried for.
const FIRST_GREETING_TIMEOUT: Duration = Duration::from_secs(15);

/// Pauses between attempts: none before the first, then from the smallest on, each twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How much longer than the seat's grace a lost connection is tried to be made again: the server notices later than we do.
const BEYOND_GRACE: Duration = Duration::from_secs(5);

/// Heartbeats without an answer after which the connection is taken for lost.
const HEARTBEATS_UNANSWERED_MAX: u32 = 3;

/// After how long without sending a sign of life is sent, if the server does not say.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Shortest time between two signs of life, whatever the server says.
const HEARTBEAT_MS_MIN: u32 = 20;

/// Bytes read at once.
const READ_BYTES_MAX: usize = 16 * 1024;

/// Reads in one step, so that a server that never stops does not keep the keyboard waiting.
const READS_MAX: usize = 16;

/// What happened.
#[derive(Debug)]
pub(crate) enum Report {
    /// The server says something.
    Message(ServerMessage),
    /// A connection that was up is lost; another is tried for so long.
    Lost {
        /// Why.
        cause: String,
        /// How long it will be tried to make another.
        tried_for: Duration,
    },
    /// There will be no other connection, and why.
    Ended(End),
}

/// Why there will be no other connection.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum End {
    /// The goodbye was heard.
    #[error("goodbye")]
    Left,
    /// Nobody could be reached at the start.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server stops.
    #[error("the server has stopped: {0}")]
    Stopped(String),
    /// The server did not want us.
    #[error("the server refuses: {1}")]
    Refused(ErrorCode, String),
    /// The server does not want us any more, or does not know us.
    #[error("the server has ended your session: {1}")]
    Dismissed(ErrorCode, String),
    /// It could not be reached any more for so long.
    #[error(
        "the server could not be reached for {seconds} seconds, and by now your session is gone: {cause}"
    )]
    GaveUp { seconds: u64, cause: String },
    /// It does not speak as it should.
    #[error("this is no server that can be understood: {0}")]
    Broken(String),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Connection {
    servers: Vec<SocketAddr>,
    client: String,
    /// Names to try if those before them are taken.
    names: VecDeque<String>,
    session: ClientSession,
    socket: Option<Link>,
    /// Which attempt is next, since when there is no greeted connection, and why.
    outage: Option<Outage>,
    /// Whether the present connection has been greeted.
    is_up: bool,
    /// Whether any connection was ever made.
    was_reached: bool,
    /// A greeting went out on a connection that was lost before the answer: our own ghost may have the name.
    hello_lost: bool,
    seat_grace: Duration,
    heartbeat: Duration,
    is_over: bool,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    tried_for: Duration,
    attempts: usize,
    next: Instant,
    cause: String,
}

#[derive(Debug)]
struct Link {
    stream: TcpStream,
    is_connected: bool,
    last_write: Instant,
    /// Since when the server owes us a byte.
    owed_since: Option<Instant>,
}

/// What to do about a connection that failed.
enum Failure {
    /// The server closed, or the network failed.
    Socket(String),
    Session(SessionError),
}

impl Connection {
    /// Nothing is done before the first [step](Self::step). The first of `names` that is free becomes the player's.
    ///
    /// `None`: no server, or no name.
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
            socket: None,
            outage: Some(Outage::beginning(FIRST_GREETING_TIMEOUT, now)),
            is_up: false,
            was_reached: false,
            hello_lost: false,
            seat_grace: Duration::ZERO,
            heartbeat: HEARTBEAT,
            is_over: false,
        })
    }

    /// What to poll, and whether for writing, too.
    pub(crate) fn socket(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let link = self.socket.as_ref()?;
        let writes = !link.is_connected || !self.session.bytes().is_empty();
        Some((link.stream.as_fd(), writes))
    }

    /// When to call [`step`](Self::step) even if nothing has happened.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.is_over {
            return None;
        }
        let Some(link) = &self.socket else {
            return self.outage.as_ref().map(|outage| outage.next);
        };
        let owed = link.owed_since.map(|since| since + self.owed_max());
        let heartbeat = self
            .session
            .is_established()
            .then(|| link.last_write + self.heartbeat);
        owed.into_iter().chain(heartbeat).min()
    }

    /// Whether messages flow now.
    pub(crate) fn is_up(&self) -> bool {
        self.is_up
    }

    /// Whether the server keeps a seat for us that it could not be told to give up.
    pub(crate) fn is_waiting_to_come_back(&self) -> bool {
        !self.is_over && !self.is_up && self.session.token().is_some()
    }

    /// Queues a message; it goes out when there is a connection that takes it.
    ///
    /// # Errors
    ///
    /// Why it can not be sent, for people.
    pub(crate) fn send(&mut self, message: &ClientMessage) -> Result<(), String> {
        self.session.send(message).map_err(|error| error.to_string())
    }

    /// Does whatever can be done without waiting.
    pub(crate) fn step(&mut self, now: Instant) -> Vec<Report> {
        let mut reports = Vec::new();
        if self.is_over {
            return reports;
        }
        if self.socket.is_none() {
            self.attempt(now, &mut reports);
        }
        if let Some(mut link) = self.socket.take() {
            match self.exchange(&mut link, now, &mut reports) {
                Ok(()) => self.socket = Some(link),
                Err(failure) => self.lose(failure, now, &mut reports),
            }
        }
        reports
    }

    /// Begins another connection, if it is time to.
    fn attempt(&mut self, now: Instant, reports: &mut Vec<Report>) {
        let Some(outage) = &mut self.outage else { return };
        if now < outage.next {
            return;
        }
        if now >= outage.since + outage.tried_for {
            let (seconds, cause) = (outage.tried_for.as_secs(), outage.cause.clone());
            return self.end(End::GaveUp { seconds, cause }, reports);
        }
        let server = self.servers[outage.attempts % self.servers.len()];
        match Link::connecting(server, now) {
            Ok(link) => self.socket = Some(link),
            Err(error) => self.lose(Failure::Socket(error.to_string()), now, reports),
        }
    }

    fn exchange(&mut self, link: &mut Link, now: Instant, reports: &mut Vec<Report>) -> Result<(), Failure> {
        if !link.is_connected {
            if !link.has_connected()? {
                return self.check_owed(link, now);
            }
            self.was_reached = true;
            self.session.begin().map_err(Failure::Session)?;
        }
        if self.session.is_established() && now >= link.last_write + self.heartbeat {
            // With no room for a sign of life there is enough else to be written.
            let _ = self.session.ping();
            link.last_write = now;
            link.owed_since.get_or_insert(now);
        }
        // Reading comes first: the server may have said why before it closed. What fails to be written fails to be read next.
        let written = link.write(&mut self.session, now);
        let read = self.read(link, reports);
        read.and(written)?;
        link.write(&mut self.session, now)?;
        self.check_owed(link, now)
    }

    fn read(&mut self, link: &mut Link, reports: &mut Vec<Report>) -> Result<(), Failure> {
        let mut buffer = [0; READ_BYTES_MAX];
        for _ in 0..READS_MAX {
            match link.stream.read(&mut buffer) {
                Ok(0) => return Err(Failure::Socket("the server closed the connection".to_owned())),
                Ok(length) => {
                    link.owed_since = None;
                    self.session
                        .receive(&buffer[..length])
                        .map_err(Failure::Session)?;
                    self.fetch(reports)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Socket(error.to_string())),
            }
        }
        Ok(())
    }

    fn fetch(&mut self, reports: &mut Vec<Report>) -> Result<(), Failure> {
        while let Some(message) = self.session.next_message().map_err(Failure::Session)? {
            match &message {
                ServerMessage::Welcome { limits, .. } => {
                    (self.is_up, self.outage) = (true, None);
                    self.seat_grace = Duration::from_millis(limits.seat_grace_ms.into());
                    self.heartbeat =
                        Duration::from_millis((limits.heartbeat_timeout_ms / 3).max(HEARTBEAT_MS_MIN).into());
                }
                ServerMessage::Resumed { .. } => (self.is_up, self.outage) = (true, None),
                ServerMessage::ShuttingDown { text } => {
                    let (code, text) = (ErrorCode::ShuttingDown, text.clone());
                    return Err(Failure::Session(SessionError::Closed { code, text }));
                }
                _ => {}
            }
            reports.push(Report::Message(message));
        }
        Ok(())
    }

    fn check_owed(&self, link: &Link, now: Instant) -> Result<(), Failure> {
        match link.owed_since {
            Some(since) if now >= since + self.owed_max() => {
                Err(Failure::Socket("the server is silent".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn owed_max(&self) -> Duration {
        if self.session.is_established() {
            self.heartbeat * HEARTBEATS_UNANSWERED_MAX
        } else {
            ATTEMPT_TIMEOUT
        }
    }

    /// The connection is gone, or was never made: from here on either there is an outage, or the session is over.
    fn lose(&mut self, failure: Failure, now: Instant, reports: &mut Vec<Report>) {
        let was_up = std::mem::take(&mut self.is_up);
        self.session.connection_lost();
        let is_first = self.session.token().is_none();
        let cause = match failure {
            Failure::Socket(_) if self.session.is_leaving() && was_up => return self.end(End::Left, reports),
            Failure::Socket(cause) => {
                self.hello_lost |= is_first && self.was_reached;
                cause
            }
            Failure::Session(SessionError::Closed { code, text }) => match self.after_refusal(code, text) {
                Ok(cause) => cause,
                Err(end) => return self.end(end, reports),
            },
            Failure::Session(error) => return self.end(End::Broken(error.to_string()), reports),
        };
        let tried_for = if is_first {
            FIRST_GREETING_TIMEOUT
        } else {
            self.seat_grace + BEYOND_GRACE
        };
        let outage = self
            .outage
            .get_or_insert_with(|| Outage::beginning(tried_for, now));
        outage.postpone(cause.clone(), self.servers.len(), now);
        // Nobody there at all is an answer too, at the start.
        if !self.was_reached && outage.attempts >= self.servers.len() {
            return self.end(End::Unreachable(cause), reports);
        }
        if was_up {
            reports.push(Report::Lost { cause, tried_for });
        }
    }

    /// The server ended the connection: why another one may be tried, or why none.
    fn after_refusal(&mut self, code: ErrorCode, text: String) -> Result<String, End> {
        match self.session.token() {
            Some(_) if self.session.is_leaving() => Err(End::Left),
            Some(_) if code.may_resume() => Ok(text),
            None if code == ErrorCode::NameTaken && self.hello_lost => Ok(text),
            None if code == ErrorCode::NameTaken => match self.names.pop_front() {
                Some(name) => {
                    self.session = ClientSession::new(name, self.client.clone());
                    // It was an answer, not an outage.
                    self.outage = None;
                    Ok(text)
                }
                None => Err(End::Refused(code, text)),
            },
            _ if code == ErrorCode::ShuttingDown => Err(End::Stopped(text)),
            Some(_) => Err(End::Dismissed(code, text)),
            None => Err(End::Refused(code, text)),
        }
    }

    fn end(&mut self, end: End, reports: &mut Vec<Report>) {
        self.is_over = true;
        reports.push(Report::Ended(end));
    }
}

impl Outage {
    fn beginning(tried_for: Duration, now: Instant) -> Self {
        Self {
            since: now,
            tried_for,
            attempts: 0,
            next: now,
            cause: String::new(),
        }
    }

    /// An attempt failed. Once all addresses were tried, there is a pause, half of it by chance so that many clients do not come
    /// back in step.
    fn postpone(&mut self, cause: String, servers: usize, now: Instant) {
        let rounds = u32::try_from(self.attempts / servers).unwrap_or(u32::MAX);
        let pause = match rounds {
            0 => Duration::ZERO,
            _ => PAUSE_MIN.saturating_mul(1 << rounds.min(10)).min(PAUSE_MAX),
        };
        let random = RandomState::new().build_hasher().finish();
        let percent = u32::try_from(50 + random % 51).unwrap_or(100);
        self.next = now + pause * percent / 100;
        self.attempts += 1;
        self.cause = cause;
    }
}

impl Link {
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
            owed_since: Some(now),
        })
    }

    /// Whether the connection has been made.
    fn has_connected(&mut self) -> Result<bool, Failure> {
        let socket = |error: io::Error| Failure::Socket(error.to_string());
        if let Some(error) = self.stream.take_error().map_err(socket)? {
            return Err(socket(error));
        }
        // Without a peer and without an error it is still on its way.
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
