//! A client's session without sockets: bytes in, messages out, and the other way round.
//!
//! A session outlives its connections. It counts the bytes of both streams, confirms what it has received, keeps what
//! the server has not taken in yet, and after a lost connection goes on from the exact byte. It holds no socket and
//! no clock: one loop can drive thousands, and tests can cut a connection at any byte. For every connection:
//!
//! 1. [`begin`](ClientSession::begin) when it is established;
//! 2. write [`bytes`](ClientSession::bytes) and report what was written by [`advance`](ClientSession::advance);
//! 3. give what arrives to [`receive`](ClientSession::receive), then call
//!    [`next_message`](ClientSession::next_message) until it returns `None`; then there may be bytes to write;
//! 4. [`connection_lost`](ClientSession::connection_lost) when it ends, and begin again with another one, unless the
//!    session [`is_ended`](ClientSession::is_ended).
//!
//! Memory is bounded: at most [`INPUT_BYTES_MAX`] unprocessed input and `unconfirmed_bytes_max` of output.

mod error;

pub use self::error::SessionError;
use crate::{
    byte_queue::ByteQueue,
    codec,
    frame::{self, Split},
    limits::{CONFIRM_EVERY_BYTES, FRAME_BYTES_MAX, FRAME_TOTAL_BYTES_MAX},
    messages::{ClientMessage, GameInfo, Limits, PlayerId, ServerMessage, Token},
    preamble,
};

/// Bytes of sent stream that a session keeps, unless it is told otherwise, until the server has taken them in.
pub const UNCONFIRMED_BYTES_MAX: usize = 64 * 1024;

/// Bytes that may have been received but not yet fetched as messages.
pub const INPUT_BYTES_MAX: usize = 256 * 1024;

/// The nonce of the session's own pings, whose answers no caller sees.
pub const SESSION_NONCE: u64 = u64::MAX;

/// Bytes of `unconfirmed_bytes_max` that only the session's own confirms and pings may use.
const CONTROL_BYTES_RESERVED: usize = 256;

/// Who the server says the client is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// Protocol version of the connection.
    pub version: u16,
    /// The player.
    pub player: PlayerId,
    /// The name as the server cleaned it.
    pub name: String,
    /// What the server allows.
    pub limits: Limits,
    /// What can be played.
    pub games: Vec<GameInfo>,
}

/// What happened to a session so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Connections on which the session was resumed.
    pub resumes: u64,
    /// Resumes after which bytes of the server's stream were missing.
    pub gaps: u64,
    /// `Resync` messages received.
    pub resyncs: u64,
}

/// How far the current connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// There was no connection yet.
    New,
    /// `Hello` is queued or sent.
    Introducing,
    /// `Resume` is queued or sent.
    Resuming,
    /// Both streams flow.
    Open,
    /// There will be no other connection.
    Ended,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct ClientSession {
    name: String,
    client: String,
    token: Option<Token>,
    info: Option<SessionInfo>,
    stage: Stage,
    connected: bool,
    leaving: bool,
    /// Preamble and first frame of this connection, which belong to no stream.
    greeting: ByteQueue,
    /// The client's stream from `output_start` on: what the server has not taken in for certain.
    output: ByteQueue,
    output_start: u64,
    /// Offset in the client's stream of the next byte to write to this connection.
    written: u64,
    /// Whether `output_start` counts from the stream's beginning; a session made from a bare token learns it.
    output_offset_known: bool,
    unconfirmed_bytes_max: usize,
    input: ByteQueue,
    /// Offset in the server's stream up to which messages were fetched: always the end of a frame.
    received: u64,
    /// The last `received` that the server was told.
    confirmed: u64,
    /// A ping of the session's own has not been answered yet.
    asked: bool,
    counters: Counters,
}

impl ClientSession {
    /// A new player's session. `name` is cleaned by the server; `client` tells the operator which program this is.
    pub fn new(name: impl Into<String>, client: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            client: client.into(),
            token: None,
            info: None,
            stage: Stage::New,
            connected: false,
            leaving: false,
            greeting: ByteQueue::default(),
            output: ByteQueue::default(),
            output_start: 0,
            written: 0,
            output_offset_known: true,
            unconfirmed_bytes_max: UNCONFIRMED_BYTES_MAX,
            input: ByteQueue::default(),
            received: 0,
            confirmed: 0,
            asked: false,
            counters: Counters::default(),
        }
    }

    /// The session of a player of whom nothing but the token is left. It takes over from any other connection with
    /// this token; what the server no longer has of its stream is replaced by a `Resync`.
    pub fn from_token(token: Token) -> Self {
        Self {
            token: Some(token),
            output_offset_known: false,
            ..Self::new("", "")
        }
    }

    /// Limits the bytes that are kept for sending them again, instead of [`UNCONFIRMED_BYTES_MAX`]; at least two
    /// frames of the largest size.
    pub fn with_unconfirmed_bytes_max(mut self, bytes_max: usize) -> Self {
        self.unconfirmed_bytes_max = bytes_max.max(2 * FRAME_TOTAL_BYTES_MAX);
        self
    }

    /// Starts on a new connection: queues the preamble and `Hello`, or `Resume` once there is a token. Received bytes
    /// that were not yet fetched are dropped; the server sends them again.
    ///
    /// # Errors
    /// [`SessionError::Ended`] if there is nothing to go on with; [`SessionError::Unsendable`] if the name is longer
    /// than a frame.
    pub fn begin(&mut self) -> Result<(), SessionError> {
        if self.stage == Stage::Ended {
            return Err(SessionError::Ended);
        }
        let greeting = match self.token {
            Some(token) => ClientMessage::Resume {
                token,
                received: self.received,
            },
            None => ClientMessage::Hello {
                name: self.name.clone(),
                client: self.client.clone(),
            },
        };
        self.input.clear();
        self.greeting.clear();
        let preamble = preamble::build(preamble::VERSION_MIN, preamble::VERSION_MAX);
        self.greeting.end().extend_from_slice(&preamble);
        frame::append_frame(&greeting, self.greeting.end()).map_err(SessionError::Unsendable)?;
        self.stage = if self.token.is_some() {
            Stage::Resuming
        } else {
            Stage::Introducing
        };
        self.written = self.output_start;
        self.connected = true;
        Ok(())
    }

    /// The connection is gone. What was received before can still be fetched.
    pub fn connection_lost(&mut self) {
        self.connected = false;
    }

    /// What to write to the connection now; not always all there is. Empty: nothing.
    pub fn bytes(&self) -> &[u8] {
        if !self.connected {
            return &[];
        }
        if self.greeting.len() > 0 {
            return self.greeting.as_slice();
        }
        match self.stage {
            Stage::Introducing | Stage::Open => &self.output.as_slice()[self.written_of_output()..],
            // Where to go on is not known before the answer.
            Stage::Resuming => &[],
            Stage::New | Stage::Ended => &[],
        }
    }

    /// The first `count` bytes of [`bytes`](Self::bytes) were written.
    ///
    /// # Panics
    /// If there were not so many.
    pub fn advance(&mut self, count: usize) {
        if self.greeting.len() > 0 {
            self.greeting.consume(count);
        } else {
            assert!(
                count <= self.bytes().len(),
                "only bytes that were offered can be written"
            );
            self.written += count as u64;
        }
    }

    /// Takes what arrived on the connection.
    ///
    /// # Errors
    /// [`SessionError::InputFull`] if the caller does not fetch messages in between; nothing was taken then.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        if self.input.len() + bytes.len() > INPUT_BYTES_MAX {
            return Err(SessionError::InputFull);
        }
        self.input.end().extend_from_slice(bytes);
        Ok(())
    }

    /// The next message that was received whole. `Welcome` and `Resumed` are among them; answers to the session's own
    /// pings are not. After a `ShuttingDown` the session has ended.
    ///
    /// # Errors
    /// [`SessionError::Closed`] if the server ended the connection, others if it broke the protocol. In each case the
    /// connection must be dropped, and [`is_ended`](Self::is_ended) tells whether another one may be tried.
    pub fn next_message(&mut self) -> Result<Option<ServerMessage>, SessionError> {
        loop {
            let (message, total) = match frame::split(self.input.as_slice(), FRAME_BYTES_MAX) {
                Split::Incomplete { .. } => return Ok(None),
                Split::TooLarge { announced } => return self.fail(SessionError::FrameTooLarge { announced }),
                Split::Frame { body, total } => match codec::decode(body) {
                    Ok(message) => (message, total),
                    Err(error) => return self.fail(SessionError::Undecodable(error)),
                },
            };
            self.input.consume(total);
            match self.process(&message, total as u64) {
                Err(error) => return self.fail(error),
                Ok(())
                    if matches!(
                        message,
                        ServerMessage::Pong {
                            nonce: SESSION_NONCE,
                            ..
                        }
                    ) => {}
                Ok(()) => return Ok(Some(message)),
            }
        }
    }

    /// Queues a message. It reaches the server exactly once, over however many connections, unless the session ends.
    ///
    /// # Errors
    /// [`SessionError::BufferFull`] until the server has taken in more; [`SessionError::Unsendable`],
    /// [`SessionError::Reserved`] for messages that can never be sent; [`SessionError::Ended`] after a goodbye.
    pub fn send(&mut self, message: &ClientMessage) -> Result<(), SessionError> {
        match message {
            _ if self.leaving || self.stage == Stage::Ended => return Err(SessionError::Ended),
            ClientMessage::Hello { .. } | ClientMessage::Resume { .. } | ClientMessage::Confirm { .. } => {
                return Err(SessionError::Reserved);
            }
            ClientMessage::Ping { nonce: SESSION_NONCE } => return Err(SessionError::Reserved),
            _ => {}
        }
        let appended = self.append(message, self.unconfirmed_bytes_max - CONTROL_BYTES_RESERVED);
        if let Err(SessionError::BufferFull { .. }) = appended {
            // A large message can meet a full buffer before it was half full.
            self.ask();
        }
        appended?;
        self.leaving = matches!(message, ClientMessage::Goodbye);
        self.ask_if_half_full();
        Ok(())
    }

    /// Queues a sign of life: confirms what was received, and asks how far the server is.
    ///
    /// # Errors
    /// [`SessionError::BufferFull`] if the server has not taken in anything for long; [`SessionError::Ended`].
    pub fn ping(&mut self) -> Result<(), SessionError> {
        if self.leaving || self.stage == Stage::Ended {
            return Err(SessionError::Ended);
        }
        if self.received > self.confirmed {
            self.confirm()?;
        }
        self.append(
            &ClientMessage::Ping { nonce: SESSION_NONCE },
            self.unconfirmed_bytes_max,
        )?;
        self.asked = true;
        Ok(())
    }

    /// Whether the current connection has been greeted and messages flow.
    pub fn is_established(&self) -> bool {
        self.connected && self.stage == Stage::Open
    }

    /// Whether no connection can bring this session back.
    pub fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Whether a goodbye was queued.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The secret for coming back, once the server has given it.
    pub fn token(&self) -> Option<Token> {
        self.token
    }

    /// What the `Welcome` said; `None` before it, and in a session made from a bare token.
    pub fn session_info(&self) -> Option<&SessionInfo> {
        self.info.as_ref()
    }

    /// Bytes of the server's stream up to which messages were fetched.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes of the client's stream that were queued so far.
    pub fn sent(&self) -> u64 {
        self.output_start + self.output.len() as u64
    }

    /// Bytes queued of which it is not certain that the server has taken them in.
    pub fn unconfirmed(&self) -> usize {
        self.output.len()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Ends what `error` ends. Before the `Welcome` there is nothing to end: the same session may introduce itself again.
    fn fail<T>(&mut self, error: SessionError) -> Result<T, SessionError> {
        self.connected = false;
        let may_go_on = match &error {
            SessionError::Closed { code, .. } => self.token.is_none() || code.may_resume(),
            _ => false,
        };
        if !may_go_on {
            self.stage = Stage::Ended;
        }
        Err(error)
    }

    fn process(&mut self, message: &ServerMessage, total: u64) -> Result<(), SessionError> {
        match (self.stage, message) {
            (_, ServerMessage::Error { code, text }) => Err(SessionError::Closed {
                code: *code,
                // To somebody of whom the server knew nothing yet, it says it so that a person can read it, too.
                text: text
                    .trim_matches(|one: char| one.is_control() || one.is_whitespace())
                    .to_owned(),
            }),
            (_, ServerMessage::ShuttingDown { .. }) => {
                self.connected = false;
                self.stage = Stage::Ended;
                Ok(())
            }
            (Stage::Introducing, ServerMessage::Welcome { .. }) => self.welcomed(message),
            (
                Stage::Resuming,
                ServerMessage::Resumed {
                    received,
                    resuming_at,
                },
            ) => self.resumed(*received, *resuming_at),
            (Stage::Open, ServerMessage::Welcome { .. } | ServerMessage::Resumed { .. }) => {
                Err(SessionError::Violation("a greeting inside of the stream"))
            }
            (Stage::Open, _) => self.streamed(message, total),
            _ => Err(SessionError::Violation(
                "a message before the greeting was answered",
            )),
        }
    }

    fn welcomed(&mut self, welcome: &ServerMessage) -> Result<(), SessionError> {
        let ServerMessage::Welcome {
            version,
            token,
            player,
            name,
            limits,
            games,
        } = welcome
        else {
            return Err(SessionError::Violation("a greeting of another kind"));
        };
        self.token = Some(*token);
        self.info = Some(SessionInfo {
            version: *version,
            player: *player,
            name: name.clone(),
            limits: *limits,
            games: games.clone(),
        });
        self.stage = Stage::Open;
        Ok(())
    }

    fn resumed(&mut self, received: u64, resuming_at: u64) -> Result<(), SessionError> {
        if !self.output_offset_known {
            self.output_start = received;
            self.output_offset_known = true;
        }
        if received < self.output_start {
            return Err(SessionError::Unresumable {
                wanted: received,
                kept_from: self.output_start,
            });
        }
        if received > self.sent() {
            return Err(SessionError::Violation(
                "it has taken in bytes that were never sent",
            ));
        }
        if resuming_at < self.received {
            return Err(SessionError::Violation("it repeats bytes that were received"));
        }
        self.written = received;
        self.forget_output_before(received);
        if resuming_at > self.received {
            self.counters.gaps += 1;
            // The answer may be among what was lost.
            self.asked = false;
            self.ask_if_half_full();
        }
        self.received = resuming_at;
        self.confirmed = resuming_at;
        self.counters.resumes += 1;
        self.stage = Stage::Open;
        Ok(())
    }

    fn streamed(&mut self, message: &ServerMessage, total: u64) -> Result<(), SessionError> {
        self.received += total;
        match message {
            ServerMessage::Pong { nonce, received } => {
                if *received > self.written {
                    return Err(SessionError::Violation(
                        "it has taken in bytes that were never sent",
                    ));
                }
                self.forget_output_before(*received);
                if *nonce == SESSION_NONCE {
                    self.asked = false;
                    self.ask_if_half_full();
                }
            }
            ServerMessage::Resync { .. } => self.counters.resyncs += 1,
            _ => {}
        }
        if self.received - self.confirmed >= self.confirm_every_bytes() && !self.leaving {
            // With no room for it now, the next message gives the next occasion.
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
        self.append(
            &ClientMessage::Confirm {
                received: self.received,
            },
            self.unconfirmed_bytes_max,
        )?;
        self.confirmed = self.received;
        Ok(())
    }

    /// Half of the room is used up: asks how far the server is, so that the answer makes room before it is needed.
    fn ask_if_half_full(&mut self) {
        if self.output.len() >= self.unconfirmed_bytes_max / 2 {
            self.ask();
        }
    }

    /// Asks how far the server is, unless an answer is due.
    fn ask(&mut self) {
        if !self.asked && !self.leaving {
            let ping = ClientMessage::Ping { nonce: SESSION_NONCE };
            // Without room for the question there is an earlier one among what waits to be sent.
            self.asked = self.append(&ping, self.unconfirmed_bytes_max).is_ok();
        }
    }

    fn append(&mut self, message: &ClientMessage, bytes_max: usize) -> Result<(), SessionError> {
        let before = self.output.len();
        frame::append_frame(message, self.output.end()).map_err(SessionError::Unsendable)?;
        if self.output.len() > bytes_max {
            self.output.truncate(before);
            return Err(SessionError::BufferFull {
                unconfirmed: before,
                bytes_max,
            });
        }
        Ok(())
    }

    fn forget_output_before(&mut self, offset: u64) {
        if let Some(count) = offset.checked_sub(self.output_start) {
            self.output
                .consume(usize::try_from(count).expect("the output fits into memory"));
            self.output_start = offset;
        }
    }

    fn written_of_output(&self) -> usize {
        usize::try_from(self.written - self.output_start).expect("the output fits into memory")
    }
}
