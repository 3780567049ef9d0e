//! A server that has one player and all its memory: enough of the protocol's other side to test clients against.

use forkade_protocol::{
    ClientMessage, ErrorCode, GameInfo, Limits, PlayerId, RejectCode, ServerMessage, Token, codec,
    frame::{self, Split},
    limits::{CONFIRM_EVERY_BYTES, FRAME_BYTES_MAX},
    preamble::{self, PREAMBLE_BYTES, PreambleResult},
};

/// The one player's token.
pub(crate) const TOKEN: Token = Token(*b"the only player.");

/// An action that this server rejects; it takes in any other.
pub(crate) const REJECTED_ACTION: &[u8] = b"illegal";

/// What survives connections.
pub(crate) struct ModelServer {
    /// The server's stream from `kept_from` on.
    stream: Vec<u8>,
    kept_from: u64,
    /// Bytes of stream that are kept at most; what is beyond is lost to a client that comes back for it.
    keeps_bytes: usize,
    /// How far the client has confirmed.
    pub(crate) confirmed: u64,
    /// Bytes of the client's stream taken in: always whole frames.
    pub(crate) taken_in: u64,
    /// The messages in them, without confirms and pings.
    pub(crate) messages: Vec<ClientMessage>,
    /// How many of its pings were answered.
    pub(crate) pings: u64,
    pub(crate) said_goodbye: bool,
    pub(crate) heartbeat_timeout_ms: u32,
    /// Refuses that many greetings with this code.
    pub(crate) refuse: Option<(usize, ErrorCode)>,
    connection: Option<Connection>,
}

#[derive(Default)]
struct Connection {
    input: Vec<u8>,
    preamble_seen: bool,
    greeted: bool,
    closing: bool,
    /// Frames outside of the stream.
    greeting: Vec<u8>,
    /// Offset in the stream of the next byte to send.
    sent: u64,
}

impl ModelServer {
    pub(crate) fn new(keeps_bytes: usize) -> Self {
        Self {
            stream: Vec::new(),
            kept_from: 0,
            keeps_bytes,
            confirmed: 0,
            taken_in: 0,
            messages: Vec::new(),
            pings: 0,
            said_goodbye: false,
            heartbeat_timeout_ms: 60_000,
            refuse: None,
            connection: None,
        }
    }

    pub(crate) fn accept(&mut self) {
        self.connection = Some(Connection::default());
    }

    pub(crate) fn connection_lost(&mut self) {
        self.connection = None;
    }

    /// Whether the connection is to be closed once everything is sent.
    pub(crate) fn is_closing(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.closing)
    }

    /// Where the stream ends now.
    pub(crate) fn stream_end(&self) -> u64 {
        self.kept_from + self.stream.len() as u64
    }

    /// Adds a message to the stream.
    pub(crate) fn say(&mut self, message: &ServerMessage) {
        frame::append_frame(message, &mut self.stream).expect("messages of tests fit");
        let sent = self
            .connection
            .as_ref()
            .filter(|open| open.greeted)
            .map_or(u64::MAX, |open| open.sent);
        // What an open connection has yet to send is never forgotten.
        let dispensable = self.stream.len().saturating_sub(self.keeps_bytes) as u64;
        let forget_to = (self.kept_from + dispensable).min(sent).max(self.confirmed);
        self.forget_before(forget_to);
    }

    fn forget_before(&mut self, offset: u64) {
        if offset > self.kept_from {
            self.stream
                .drain(..usize::try_from(offset - self.kept_from).expect("small"));
            self.kept_from = offset;
        }
    }

    /// At most `count` bytes for the client.
    pub(crate) fn send(&mut self, count: usize) -> Vec<u8> {
        let Some(connection) = &mut self.connection else {
            return Vec::new();
        };
        if !connection.greeting.is_empty() {
            let count = count.min(connection.greeting.len());
            return connection.greeting.drain(..count).collect();
        }
        if !connection.greeted || connection.closing {
            return Vec::new();
        }
        let unsent = &self.stream[usize::try_from(connection.sent - self.kept_from).expect("small")..];
        let bytes = unsent[..count.min(unsent.len())].to_vec();
        connection.sent += bytes.len() as u64;
        bytes
    }

    /// Takes bytes from the client.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        connection.input.extend_from_slice(bytes);
        if !connection.preamble_seen {
            match preamble::classify(&connection.input) {
                PreambleResult::Incomplete => {}
                PreambleResult::Preamble { min: 1, max: 1 } => {
                    connection.preamble_seen = true;
                    connection.input.drain(..PREAMBLE_BYTES);
                }
                other => panic!("the client opened with {other:?}"),
            }
        }
        while connection.preamble_seen && !connection.closing {
            let (message, total) = match frame::split(&connection.input, FRAME_BYTES_MAX) {
                Split::Incomplete { .. } => break,
                Split::Frame { body, total } => (
                    codec::decode::<ClientMessage>(body).expect("a client sends messages"),
                    total,
                ),
                Split::TooLarge { announced } => panic!("the client announced {announced} bytes"),
            };
            connection.input.drain(..total);
            if connection.greeted {
                self.taken_in += total as u64;
                self.take(message, &mut connection);
            } else {
                self.greet(message, &mut connection);
            }
        }
        self.connection = Some(connection);
    }

    fn greet(&mut self, message: ClientMessage, connection: &mut Connection) {
        if let Some((times @ 1.., code)) = self.refuse {
            self.refuse = Some((times - 1, code));
            return self.end(connection, code);
        }
        let answer = match message {
            ClientMessage::Hello { name, .. } => {
                // A hello makes a new player, whose streams begin.
                (self.taken_in, self.confirmed, self.kept_from) = (0, 0, 0);
                self.stream.clear();
                self.messages.clear();
                connection.sent = 0;
                welcome(name, self.heartbeat_timeout_ms)
            }
            ClientMessage::Resume { token, received } if token == TOKEN => {
                assert!(
                    received <= self.stream_end(),
                    "the client has received bytes that were never sent"
                );
                let resuming_at = if received >= self.kept_from {
                    received
                } else {
                    self.stream_end()
                };
                connection.sent = resuming_at;
                self.confirmed = resuming_at;
                self.forget_before(resuming_at);
                if resuming_at != received {
                    let resync = ServerMessage::Resync { snapshot: None };
                    frame::append_frame(&resync, &mut self.stream).expect("a resync fits");
                }
                ServerMessage::Resumed {
                    received: self.taken_in,
                    resuming_at,
                }
            }
            _ => return self.end(connection, ErrorCode::TokenUnknown),
        };
        connection.greeted = true;
        frame::append_frame(&answer, &mut connection.greeting).expect("a greeting fits");
    }

    fn end(&mut self, connection: &mut Connection, code: ErrorCode) {
        connection.closing = true;
        let error = ServerMessage::Error {
            code,
            text: "as the test wants it".into(),
        };
        frame::append_frame(&error, &mut connection.greeting).expect("an error fits");
    }

    fn take(&mut self, message: ClientMessage, connection: &mut Connection) {
        match message {
            ClientMessage::Confirm { received } => {
                assert!(
                    received <= connection.sent,
                    "only what was sent can have been received"
                );
                // One that was on its way when the connection was lost tells less than the resume did.
                self.confirmed = self.confirmed.max(received);
                self.forget_before(received);
            }
            ClientMessage::Ping { nonce } => {
                self.pings += 1;
                let pong = ServerMessage::Pong {
                    nonce,
                    received: self.taken_in,
                };
                frame::append_frame(&pong, &mut self.stream).expect("a pong fits");
            }
            ClientMessage::Act { request, action } if action == REJECTED_ACTION => {
                let code = RejectCode::IllegalAction;
                let rejected = ServerMessage::Rejected {
                    request,
                    code,
                    text: "as the test wants it".into(),
                };
                frame::append_frame(&rejected, &mut self.stream).expect("a rejection fits");
            }
            ClientMessage::ListRooms { request, .. } => {
                let rooms = ServerMessage::Rooms {
                    request,
                    rooms: Vec::new(),
                    next: None,
                };
                frame::append_frame(&rooms, &mut self.stream).expect("no rooms fit");
            }
            ClientMessage::Goodbye => {
                connection.closing = true;
                self.said_goodbye = true;
            }
            other => self.messages.push(other),
        }
    }
}

fn welcome(name: String, heartbeat_timeout_ms: u32) -> ServerMessage {
    ServerMessage::Welcome {
        version: 1,
        token: TOKEN,
        player: PlayerId(1),
        name,
        limits: Limits {
            frame_bytes_max: u32::try_from(FRAME_BYTES_MAX).expect("small"),
            name_bytes_max: 96,
            chat_bytes_max: 500,
            confirm_every_bytes: CONFIRM_EVERY_BYTES,
            heartbeat_timeout_ms,
            seat_grace_ms: 60_000,
        },
        games: vec![GameInfo {
            name: "relay".into(),
            seats_min: 1,
            seats_max: 8,
            ticks_per_second: 0,
        }],
    }
}
