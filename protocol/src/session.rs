//! A client's session without sockets: received bytes in, messages out, and the reverse for sending.
//!
//! A session outlives its connections. It counts the bytes of both streams, confirms what it has received, keeps its
//! output until the server has processed it, and resumes at the exact byte after a lost connection. It holds no socket
//! and reads no clock, so one event loop can drive thousands of sessions, and tests can cut a connection at any byte.
//! For each connection:
//!
//! 1. call [`begin`](ClientSession::begin) when it is established;
//! 2. write [`bytes`](ClientSession::bytes), and report the number of written bytes with
//!    [`advance`](ClientSession::advance);
//! 3. pass received bytes to [`receive`](ClientSession::receive), then call
//!    [`next_message`](ClientSession::next_message) until it returns `None`; after that there may be bytes to write;
//! 4. call [`connection_lost`](ClientSession::connection_lost) when it ends, and begin again with a new connection,
//!    unless the session [`is_ended`](ClientSession::is_ended).
//!
//! Memory is bounded: a session keeps at most [`INPUT_BYTES_MAX`] of unprocessed input and
//! [`UNACKNOWLEDGED_BYTES_MAX`] (or a configured number of bytes) of output.

mod error;
mod output;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

pub use self::error::SessionError;
pub use self::output::UNACKNOWLEDGED_BYTES_MAX;
use self::output::{OutputStream, Reserve};
use crate::{
    byte_queue::ByteQueue,
    codec,
    frame::{self, Split},
    limits::{CONFIRM_EVERY_BYTES, FRAME_BYTES_MAX},
    messages::{Budgets, ClientMessage, ErrorCode, GameInfo, Limits, PlayerId, ServerMessage, Token},
    preamble::{self, VERSION_MAX, VERSION_MIN},
};

/// Bytes that a session accepts before they are fetched as messages.
pub const INPUT_BYTES_MAX: usize = 256 * 1024;

/// The nonce of the session's own pings. The session does not return their pongs.
pub const SESSION_NONCE: u64 = u64::MAX;

/// Fewest bytes of the server's stream after which a session confirms, whatever the server announces.
pub const CONFIRM_EVERY_BYTES_MIN: u32 = 256;

/// Shortest heartbeat timeout that a session works with, whatever the server announces.
pub const HEARTBEAT_TIMEOUT_MS_MIN: u32 = 300;

/// Longest heartbeat timeout that a session works with.
pub const HEARTBEAT_TIMEOUT_MS_MAX: u32 = 600_000;

/// Longest grace for a seat that a session works with.
pub const SEAT_GRACE_MS_MAX: u32 = 86_400_000;

/// The first protocol version with `Greet`.
const VERSION_WITH_GREET: u16 = 2;

/// The content of the `Welcome` or `Greeted`, except the token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// Protocol version of the session.
    pub version: u16,
    /// The client's player id.
    pub player: PlayerId,
    /// The player's name, as the server cleaned it.
    pub name: String,
    /// The server's limits.
    pub limits: Limits,
    /// What the server allows in the long run; `None` from a server that speaks only version 1.
    pub budgets: Option<Budgets>,
    /// The games that the server offers.
    pub games: Vec<GameInfo>,
}

/// Counts of events in a session.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Connections on which the session was resumed.
    pub resumes: u64,
    /// Resumes after which bytes of the server's stream were missing.
    pub gaps: u64,
    /// `Resync` messages received.
    pub resyncs: u64,
}

/// State of the handshake on the current connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// There was no connection yet.
    New,
    /// `Greet` or `Hello` is queued or sent, and not answered.
    GreetingSent,
    /// `Resume` is queued or sent, and not answered.
    ResumeSent,
    /// The handshake is complete.
    Established,
    /// The session has ended and cannot be resumed.
    Ended,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct ClientSession {
    name: String,
    client: String,
    token: Option<Token>,
    info: Option<SessionInfo>,
    /// The highest protocol version that the session offers.
    version_max: u16,
    /// The server has refused the offered version, and the next connection offers a lower one.
    falls_back: bool,
    /// A secret of this session, which asks again for a lost `Greeted`.
    nonce: u64,
    acknowledge: bool,
    /// A `Greet` was sent before on a connection that is lost. The server may have processed some of the stream.
    greeting_is_repeated: bool,
    stage: Stage,
    connected: bool,
    leaving: bool,
    /// Unwritten bytes of this connection's preamble and first frame, which belong to no stream.
    handshake: ByteQueue,
    output: OutputStream,
    /// Whether the offsets of `output` are absolute. A session made from a token alone learns its offset from the
    /// server.
    output_offset_known: bool,
    input: ByteQueue,
    /// Offset in the server's stream up to which messages were fetched: always the end of a frame.
    received: u64,
    /// The value of `received` that was last sent to the server.
    confirmed: u64,
    /// A ping of the session itself is not answered yet.
    ping_pending: bool,
    /// The latest request that was rejected because it came too early, and the time to wait.
    retry_after: Option<(u32, Duration)>,
    /// Bytes of the server's stream are missing: events belong to an unknown state until the `Resync`.
    awaits_resync: bool,
    counters: Counters,
}

impl ClientSession {
    /// Creates the session of a new player. The server cleans `name`. `client` identifies the program to the operator.
    pub fn new(name: impl Into<String>, client: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            client: client.into(),
            token: None,
            info: None,
            version_max: VERSION_MAX,
            falls_back: false,
            nonce: random_nonce(),
            acknowledge: false,
            greeting_is_repeated: false,
            stage: Stage::New,
            connected: false,
            leaving: false,
            handshake: ByteQueue::default(),
            output: OutputStream::default(),
            output_offset_known: true,
            input: ByteQueue::default(),
            received: 0,
            confirmed: 0,
            ping_pending: false,
            retry_after: None,
            awaits_resync: false,
            counters: Counters::default(),
        }
    }

    /// Creates a session that resumes a player's session of which only the token is left. It replaces any other
    /// connection with this token. If the server no longer has all of its stream, a `Resync` replaces it.
    pub fn from_token(token: Token) -> Self {
        Self {
            token: Some(token),
            output_offset_known: false,
            ..Self::new("", "")
        }
    }

    /// Limits the output that is kept for resending, instead of [`UNACKNOWLEDGED_BYTES_MAX`]. The limit is at least two
    /// frames of the largest size.
    pub fn with_unacknowledged_bytes_max(mut self, bytes_max: usize) -> Self {
        self.output.set_bytes_max(bytes_max);
        self
    }

    /// Asks the server to answer requests that have no other answer with `Accepted`. A server that speaks only version
    /// 1 does not do so.
    pub fn with_acknowledgements(mut self) -> Self {
        self.acknowledge = true;
        self
    }

    /// Offers no higher protocol version than this one.
    pub fn with_version_max(mut self, version_max: u16) -> Self {
        self.version_max = version_max.clamp(VERSION_MIN, VERSION_MAX);
        self
    }

    /// Begins the handshake on a new connection: queues the preamble and a greeting, or `Resume` if there is a token.
    /// Discards received bytes that were not fetched yet; the server sends them again.
    ///
    /// # Errors
    /// [`SessionError::Ended`] if the session has ended; [`SessionError::Unsendable`] if the name is longer than a
    /// frame.
    pub fn begin(&mut self) -> Result<(), SessionError> {
        if self.stage == Stage::Ended {
            return Err(SessionError::Ended);
        }
        let (name, client) = (self.name.clone(), self.client.clone());
        let (version_min, first_message) = match self.token {
            // The server continues with the session's version.
            Some(token) => {
                let received = self.received;
                (VERSION_MIN, ClientMessage::Resume { token, received })
            }
            // A server that does not speak this version refuses it before it reads the greeting.
            None if self.version_max >= VERSION_WITH_GREET => {
                let (nonce, acknowledge) = (self.nonce, self.acknowledge);
                let greet = ClientMessage::Greet {
                    name,
                    client,
                    nonce,
                    acknowledge,
                };
                (VERSION_WITH_GREET, greet)
            }
            None => (VERSION_MIN, ClientMessage::Hello { name, client }),
        };
        self.greeting_is_repeated =
            self.stage == Stage::GreetingSent && self.version_max >= VERSION_WITH_GREET;
        self.falls_back = false;
        self.input.clear();
        self.handshake.clear();
        let preamble = preamble::build(version_min, self.version_max);
        self.handshake.tail_mut().extend_from_slice(&preamble);
        frame::append_frame(&first_message, self.handshake.tail_mut()).map_err(SessionError::Unsendable)?;
        self.stage = if self.token.is_some() {
            Stage::ResumeSent
        } else {
            Stage::GreetingSent
        };
        self.output.rewind();
        self.connected = true;
        Ok(())
    }

    /// Records that the connection ended. Messages received before can still be fetched.
    pub fn connection_lost(&mut self) {
        self.connected = false;
    }

    /// Bytes to write to the connection now. There may be more after these are written. Empty if there are none.
    pub fn bytes(&self) -> &[u8] {
        if !self.connected {
            return &[];
        }
        if self.handshake.len() > 0 {
            return self.handshake.as_slice();
        }
        match self.stage {
            // The offset to continue at is not known before the answer.
            Stage::GreetingSent if self.greeting_is_repeated => &[],
            Stage::ResumeSent => &[],
            Stage::GreetingSent | Stage::Established => self.output.unwritten(),
            Stage::New | Stage::Ended => &[],
        }
    }

    /// Records that the first `count` bytes of [`bytes`](Self::bytes) were written.
    ///
    /// # Panics
    /// If `count` is greater than their number.
    pub fn advance(&mut self, count: usize) {
        if self.handshake.len() > 0 {
            self.handshake.consume(count);
        } else {
            assert!(
                count <= self.bytes().len(),
                "only bytes that were offered can be written"
            );
            self.output.advance(count);
        }
    }

    /// Accepts bytes that were received on the connection.
    ///
    /// # Errors
    /// [`SessionError::InputFull`] if messages have to be fetched first. No byte is accepted then.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        if self.input.len() + bytes.len() > INPUT_BYTES_MAX {
            return Err(SessionError::InputFull);
        }
        self.input.tail_mut().extend_from_slice(bytes);
        Ok(())
    }

    /// Returns the next complete message, including `Welcome` and `Resumed` but not the answers to the session's own
    /// pings. A `Greeted` is returned as the `Welcome` and a `RejectedTooFast` as the `Rejected` that it replaces;
    /// [`session_info`](Self::session_info) and [`retry_after`](Self::retry_after) have their other content. Events
    /// between a gap in the stream and its `Resync` are left out: they belong to a state that is not known. After
    /// `ShuttingDown` the session has ended.
    ///
    /// # Errors
    /// [`SessionError::Closed`] if the server ended the connection, others if the server violated the protocol. In each
    /// case the caller must close the connection. [`is_ended`](Self::is_ended) tells whether it can try another one.
    pub fn next_message(&mut self) -> Result<Option<ServerMessage>, SessionError> {
        loop {
            if let Stage::GreetingSent | Stage::ResumeSent = self.stage {
                let Some(banner) = frame::banner(self.input.as_slice()) else {
                    return Ok(None);
                };
                self.input.consume(banner);
            }
            let (message, total) = match frame::split(self.input.as_slice(), FRAME_BYTES_MAX) {
                Split::Incomplete { .. } => return Ok(None),
                Split::TooLarge { announced } => return self.fail(SessionError::FrameTooLarge { announced }),
                Split::Frame { body, total } => match codec::decode(body) {
                    Ok(message) => (message, total),
                    Err(error) => return self.fail(SessionError::Undecodable(error)),
                },
            };
            self.input.consume(total);
            if let Err(error) = self.process(&message, total as u64) {
                return self.fail(error);
            }
            match message {
                ServerMessage::Pong {
                    nonce: SESSION_NONCE, ..
                } => {}
                ServerMessage::Event { .. } if self.awaits_resync => {}
                message => return Ok(Some(as_in_version_1(message))),
            }
        }
    }

    /// Queues a message. It reaches the server exactly once, over any number of connections, unless the session ends.
    ///
    /// # Errors
    /// [`SessionError::BufferFull`] until the server has processed more; [`SessionError::Unsendable`],
    /// [`SessionError::Reserved`] and [`SessionError::NotInVersion`] for messages that can never be sent;
    /// [`SessionError::Ended`] after a goodbye.
    pub fn send(&mut self, message: &ClientMessage) -> Result<(), SessionError> {
        match message {
            _ if self.leaving || self.stage == Stage::Ended => return Err(SessionError::Ended),
            ClientMessage::Hello { .. }
            | ClientMessage::Greet { .. }
            | ClientMessage::Resume { .. }
            | ClientMessage::Confirm { .. } => return Err(SessionError::Reserved),
            ClientMessage::Ping { nonce: SESSION_NONCE } => return Err(SessionError::Reserved),
            ClientMessage::Ignore { .. }
                if self
                    .info
                    .as_ref()
                    .is_some_and(|info| info.version < VERSION_WITH_GREET) =>
            {
                return Err(SessionError::NotInVersion);
            }
            _ => {}
        }
        let appended = self.output.append(message, Reserve::Keep);
        if let Err(SessionError::BufferFull { .. }) = appended {
            // A large message can exceed the limit before the buffer is half full.
            self.request_acknowledgement();
        }
        appended?;
        self.leaving = matches!(message, ClientMessage::Goodbye);
        self.request_acknowledgement_if_half_full();
        Ok(())
    }

    /// Queues a heartbeat: confirms what was received, and requests an acknowledgement of what was sent.
    ///
    /// # Errors
    /// [`SessionError::BufferFull`] if the server has not processed anything for long; [`SessionError::Ended`].
    pub fn ping(&mut self) -> Result<(), SessionError> {
        if self.leaving || self.stage == Stage::Ended {
            return Err(SessionError::Ended);
        }
        if self.received > self.confirmed {
            self.confirm()?;
        }
        let ping = ClientMessage::Ping { nonce: SESSION_NONCE };
        self.output.append(&ping, Reserve::Use)?;
        self.ping_pending = true;
        Ok(())
    }

    /// Whether the handshake on the current connection is complete.
    pub fn is_established(&self) -> bool {
        self.connected && self.stage == Stage::Established
    }

    /// Whether the session has ended and cannot be resumed.
    pub fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Whether a `Goodbye` was queued.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The secret for resuming; `None` before the `Welcome`.
    pub fn token(&self) -> Option<Token> {
        self.token
    }

    /// The content of the `Welcome`; `None` before it, and in a session made from a token alone.
    pub fn session_info(&self) -> Option<&SessionInfo> {
        self.info.as_ref()
    }

    /// How long to wait before this request is sent again, if it is the latest that was rejected because it came too
    /// early. A server that speaks only version 1 says so only in the rejection's text.
    pub fn retry_after(&self, request: u32) -> Option<Duration> {
        self.retry_after
            .filter(|(rejected, _)| *rejected == request)
            .map(|(_, wait)| wait)
    }

    /// Whether the server has refused the offered protocol version and another connection would offer a lower one.
    pub fn falls_back(&self) -> bool {
        self.falls_back
    }

    /// Whether a new connection can ask again for a lost answer to the greeting. If not, the player of the lost answer
    /// keeps the name for a while.
    pub fn can_greet_again(&self) -> bool {
        self.version_max >= VERSION_WITH_GREET || self.falls_back
    }

    /// Whether the server answers every request of this session: those that have no other answer, with `Accepted`.
    pub fn has_acknowledgements(&self) -> bool {
        let version = self.info.as_ref().map_or(VERSION_MIN, |info| info.version);
        self.acknowledge && version >= VERSION_WITH_GREET
    }

    /// Offset in the server's stream up to which messages were fetched.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Offset in the client's stream behind the last queued byte.
    pub fn sent(&self) -> u64 {
        self.output.end()
    }

    /// Number of queued bytes that the server has not acknowledged as processed.
    pub fn unacknowledged(&self) -> usize {
        self.output.unacknowledged()
    }

    /// Counts of resumes, gaps and resyncs.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Ends the connection, and the session unless `error` allows resuming. Before the `Welcome` the session can send
    /// `Hello` again after any `Error` from the server.
    fn fail<T>(&mut self, error: SessionError) -> Result<T, SessionError> {
        self.connected = false;
        let may_retry = match &error {
            SessionError::Closed { code, .. } => self.token.is_none() || code.may_resume(),
            _ => false,
        };
        if let SessionError::Closed { code, .. } = &error
            && *code == ErrorCode::VersionUnsupported
            && self.token.is_none()
            && self.version_max > VERSION_MIN
        {
            self.version_max = VERSION_MIN;
            self.falls_back = true;
        }
        if !may_retry {
            self.stage = Stage::Ended;
        }
        Err(error)
    }

    fn process(&mut self, message: &ServerMessage, total: u64) -> Result<(), SessionError> {
        match (self.stage, message) {
            (_, ServerMessage::Error { code, text }) => Err(SessionError::Closed {
                code: *code,
                // Before the client's first byte the server sends a text that is readable in a terminal, too.
                text: text
                    .trim_matches(|character: char| character.is_control() || character.is_whitespace())
                    .to_owned(),
            }),
            (_, ServerMessage::ShuttingDown { .. }) => {
                self.connected = false;
                self.stage = Stage::Ended;
                Ok(())
            }
            (Stage::GreetingSent, ServerMessage::Welcome { .. } | ServerMessage::Greeted { .. }) => {
                self.on_welcome(message)
            }
            (
                Stage::ResumeSent,
                ServerMessage::Resumed {
                    received,
                    resuming_at,
                },
            ) => self.on_resumed(*received, *resuming_at),
            (
                Stage::Established,
                ServerMessage::Welcome { .. } | ServerMessage::Greeted { .. } | ServerMessage::Resumed { .. },
            ) => Err(SessionError::Violation("a second answer to the handshake")),
            (Stage::Established, _) => self.on_stream_message(message, total),
            _ => Err(SessionError::Violation(
                "a message before the answer to the handshake",
            )),
        }
    }

    fn on_welcome(&mut self, answer: &ServerMessage) -> Result<(), SessionError> {
        let (version, token, player, name, limits, games, budgets, received) = match answer {
            ServerMessage::Welcome {
                version,
                token,
                player,
                name,
                limits,
                games,
            } if self.version_max < VERSION_WITH_GREET => {
                (version, token, player, name, limits, games, None, 0)
            }
            ServerMessage::Greeted {
                version,
                token,
                player,
                name,
                limits,
                budgets,
                received,
                games,
            } if self.version_max >= VERSION_WITH_GREET => (
                version,
                token,
                player,
                name,
                limits,
                games,
                Some(*budgets),
                *received,
            ),
            _ => return Err(SessionError::Violation("another answer to the handshake")),
        };
        if received > if self.greeting_is_repeated { self.sent() } else { 0 } {
            return Err(SessionError::Violation(
                "it acknowledges bytes that were never sent",
            ));
        }
        if self.greeting_is_repeated {
            self.output.resume_at(received);
        }
        self.token = Some(*token);
        self.info = Some(SessionInfo {
            version: *version,
            player: *player,
            name: name.clone(),
            limits: clamped(*limits),
            budgets,
            games: games.clone(),
        });
        self.stage = Stage::Established;
        Ok(())
    }

    fn on_resumed(&mut self, received: u64, resuming_at: u64) -> Result<(), SessionError> {
        if !self.output_offset_known {
            self.output.set_start(received);
            self.output_offset_known = true;
        }
        if received < self.output.start() {
            return Err(SessionError::Unresumable {
                requested: received,
                kept_from: self.output.start(),
            });
        }
        if received > self.sent() {
            return Err(SessionError::Violation(
                "it acknowledges bytes that were never sent",
            ));
        }
        if resuming_at < self.received {
            return Err(SessionError::Violation(
                "it repeats bytes that were already received",
            ));
        }
        self.output.resume_at(received);
        if resuming_at > self.received {
            self.counters.gaps += 1;
            self.awaits_resync = true;
            // The pong may be among the lost bytes.
            self.ping_pending = false;
            self.request_acknowledgement_if_half_full();
        }
        self.received = resuming_at;
        self.confirmed = resuming_at;
        self.counters.resumes += 1;
        self.stage = Stage::Established;
        Ok(())
    }

    fn on_stream_message(&mut self, message: &ServerMessage, total: u64) -> Result<(), SessionError> {
        self.received += total;
        match message {
            ServerMessage::Pong { nonce, received } => {
                if *received > self.output.written() {
                    return Err(SessionError::Violation(
                        "it acknowledges bytes that were never sent",
                    ));
                }
                self.output.acknowledge(*received);
                if *nonce == SESSION_NONCE {
                    self.ping_pending = false;
                    self.request_acknowledgement_if_half_full();
                }
            }
            ServerMessage::Resync { .. } => {
                self.counters.resyncs += 1;
                self.awaits_resync = false;
            }
            ServerMessage::RejectedTooFast {
                request,
                retry_after_ms,
                ..
            } => {
                self.retry_after = Some((*request, Duration::from_millis((*retry_after_ms).into())));
            }
            _ => {}
        }
        if self.received - self.confirmed >= self.confirm_every_bytes() && !self.leaving {
            // If the buffer is full, the next message tries again.
            let _ = self.confirm();
        }
        Ok(())
    }

    fn confirm_every_bytes(&self) -> u64 {
        self.info
            .as_ref()
            .map_or(CONFIRM_EVERY_BYTES, |info| info.limits.confirm_every_bytes)
            .into()
    }

    fn confirm(&mut self) -> Result<(), SessionError> {
        let confirm = ClientMessage::Confirm {
            received: self.received,
        };
        self.output.append(&confirm, Reserve::Use)?;
        self.confirmed = self.received;
        Ok(())
    }

    /// Requests an acknowledgement early, so that it frees the buffer before that is full.
    fn request_acknowledgement_if_half_full(&mut self) {
        if self.output.is_half_full() {
            self.request_acknowledgement();
        }
    }

    /// Pings the server, unless a pong is pending: each pong acknowledges what the server has processed.
    fn request_acknowledgement(&mut self) {
        if !self.ping_pending && !self.leaving {
            let ping = ClientMessage::Ping { nonce: SESSION_NONCE };
            // If there is no space for the ping, an earlier one is among the queued bytes.
            self.ping_pending = self.output.append(&ping, Reserve::Use).is_ok();
        }
    }
}

/// The limits, brought into the range that this library can work with: it then confirms before the server's output
/// stops, but not after every byte, and pings regularly, but not without pause.
fn clamped(limits: Limits) -> Limits {
    Limits {
        confirm_every_bytes: limits
            .confirm_every_bytes
            .clamp(CONFIRM_EVERY_BYTES_MIN, CONFIRM_EVERY_BYTES),
        heartbeat_timeout_ms: limits
            .heartbeat_timeout_ms
            .clamp(HEARTBEAT_TIMEOUT_MS_MIN, HEARTBEAT_TIMEOUT_MS_MAX),
        seat_grace_ms: limits.seat_grace_ms.min(SEAT_GRACE_MS_MAX),
        ..limits
    }
}

/// A number that no other program can guess: the hasher's keys are random.
fn random_nonce() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

/// The message of version 1 that this one replaces, if it does, with limits that the library can work with.
fn as_in_version_1(message: ServerMessage) -> ServerMessage {
    match message {
        ServerMessage::RejectedTooFast {
            request, code, text, ..
        } => ServerMessage::Rejected { request, code, text },
        ServerMessage::Greeted {
            version,
            token,
            player,
            name,
            limits,
            games,
            ..
        }
        | ServerMessage::Welcome {
            version,
            token,
            player,
            name,
            limits,
            games,
        } => ServerMessage::Welcome {
            version,
            token,
            player,
            name,
            limits: clamped(limits),
            games,
        },
        message => message,
    }
}
