//! A model of the server with one player: enough of the protocol to test clients against.

use forkade_protocol::{
    Budgets, ClientMessage, ErrorCode, GameInfo, Limits, PlayerId, RejectCode, ServerMessage, Token, codec,
    frame::{self, Split},
    limits::{CONFIRM_EVERY_BYTES, FRAME_BYTES_MAX},
    preamble::{self, PREAMBLE_BYTES, PreambleResult},
};

/// The one player's token.
pub(crate) const TOKEN: Token = Token(*b"the only player.");

/// An action that this server rejects. It accepts any other.
pub(crate) const REJECTED_ACTION: &[u8] = b"illegal";

/// The state that outlives connections.
pub(crate) struct ModelServer {
    /// The server's stream from `kept_from` on.
    stream: Vec<u8>,
    kept_from: u64,
    /// Greatest number of stream bytes that are kept. A client that resumes before them loses bytes.
    kept_bytes_max: usize,
    /// Offset up to which the client has confirmed.
    pub(crate) confirmed: u64,
    /// Processed bytes of the client's stream: always whole frames.
    pub(crate) processed: u64,
    /// The processed messages, without confirms and pings.
    pub(crate) messages: Vec<ClientMessage>,
    /// Number of answered pings.
    pub(crate) pings: u64,
    pub(crate) received_goodbye: bool,
    pub(crate) heartbeat_timeout_ms: u32,
    /// Refuses this number of handshakes with this code.
    pub(crate) refusals: Option<(usize, ErrorCode)>,
    connection: Option<Connection>,
}

#[derive(Default)]
struct Connection {
    input: Vec<u8>,
    preamble_seen: bool,
    established: bool,
    closing: bool,
    /// Output outside of the stream.
    handshake: Vec<u8>,
    /// Offset in the stream of the next byte to send.
    sent: u64,
}

impl ModelServer {
    pub(crate) fn new(kept_bytes_max: usize) -> Self {
        Self {
            stream: Vec::new(),
            kept_from: 0,
            kept_bytes_max,
            confirmed: 0,
            processed: 0,
            messages: Vec::new(),
            pings: 0,
            received_goodbye: false,
            heartbeat_timeout_ms: 60_000,
            refusals: None,
            connection: None,
        }
    }

    pub(crate) fn accept(&mut self) {
        self.connection = Some(Connection::default());
    }

    pub(crate) fn connection_lost(&mut self) {
        self.connection = None;
    }

    /// Whether the server closes the connection after its output is sent.
    pub(crate) fn is_closing(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.closing)
    }

    /// Offset of the end of the stream.
    pub(crate) fn stream_end(&self) -> u64 {
        self.kept_from + self.stream.len() as u64
    }

    /// Adds a message to the stream.
    pub(crate) fn queue(&mut self, message: &ServerMessage) {
        frame::append_frame(message, &mut self.stream).expect("messages of tests fit");
        let sent = self
            .connection
            .as_ref()
            .filter(|open| open.established)
            .map_or(u64::MAX, |open| open.sent);
        // Bytes that an open connection has not sent yet are never discarded.
        let dispensable = self.stream.len().saturating_sub(self.kept_bytes_max) as u64;
        let discard_to = (self.kept_from + dispensable).min(sent).max(self.confirmed);
        self.discard_before(discard_to);
    }

    fn discard_before(&mut self, offset: u64) {
        if offset > self.kept_from {
            self.stream
                .drain(..usize::try_from(offset - self.kept_from).expect("small"));
            self.kept_from = offset;
        }
    }

    /// Returns at most `count` bytes to send to the client.
    pub(crate) fn send(&mut self, count: usize) -> Vec<u8> {
        let Some(connection) = &mut self.connection else {
            return Vec::new();
        };
        if !connection.handshake.is_empty() {
            let count = count.min(connection.handshake.len());
            return connection.handshake.drain(..count).collect();
        }
        if !connection.established || connection.closing {
            return Vec::new();
        }
        let unsent = &self.stream[usize::try_from(connection.sent - self.kept_from).expect("small")..];
        let bytes = unsent[..count.min(unsent.len())].to_vec();
        connection.sent += bytes.len() as u64;
        bytes
    }

    /// Processes bytes from the client.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        connection.input.extend_from_slice(bytes);
        if !connection.preamble_seen {
            match preamble::classify(&connection.input) {
                PreambleResult::Incomplete => {}
                PreambleResult::Preamble { min: ..=2, max: 1.. } => {
                    connection.preamble_seen = true;
                    connection.input.drain(..PREAMBLE_BYTES);
                }
                other => panic!("the client sent {other:?} instead of a preamble"),
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
            if connection.established {
                self.processed += total as u64;
                self.handle_message(message, &mut connection);
            } else {
                self.handle_handshake(message, &mut connection);
            }
        }
        self.connection = Some(connection);
    }

    fn handle_handshake(&mut self, message: ClientMessage, connection: &mut Connection) {
        if let Some((times @ 1.., code)) = self.refusals {
            self.refusals = Some((times - 1, code));
            return self.refuse_connection(connection, code);
        }
        let answer = match message {
            ClientMessage::Hello { name, .. } | ClientMessage::Greet { name, .. } => {
                // A greeting creates a new player with new streams.
                (self.processed, self.confirmed, self.kept_from) = (0, 0, 0);
                self.stream.clear();
                self.messages.clear();
                connection.sent = 0;
                greeted(name, self.heartbeat_timeout_ms)
            }
            ClientMessage::Resume { token, received } if token == TOKEN => {
                assert!(
                    received <= self.stream_end(),
                    "the client claims bytes that were never sent"
                );
                let resuming_at = if received >= self.kept_from {
                    received
                } else {
                    self.stream_end()
                };
                connection.sent = resuming_at;
                self.confirmed = resuming_at;
                self.discard_before(resuming_at);
                if resuming_at != received {
                    let resync = ServerMessage::Resync { snapshot: None };
                    frame::append_frame(&resync, &mut self.stream).expect("a resync fits");
                }
                ServerMessage::Resumed {
                    received: self.processed,
                    resuming_at,
                }
            }
            _ => return self.refuse_connection(connection, ErrorCode::TokenUnknown),
        };
        connection.established = true;
        frame::append_frame(&answer, &mut connection.handshake).expect("the answer fits");
    }

    fn refuse_connection(&mut self, connection: &mut Connection, code: ErrorCode) {
        connection.closing = true;
        let error = ServerMessage::Error {
            code,
            text: "requested by the test".into(),
        };
        frame::append_frame(&error, &mut connection.handshake).expect("an error fits");
    }

    fn handle_message(&mut self, message: ClientMessage, connection: &mut Connection) {
        match message {
            ClientMessage::Confirm { received } => {
                assert!(
                    received <= connection.sent,
                    "a client can confirm only bytes that were sent"
                );
                // A confirm that was in transit when the connection was lost can be lower than the resume's offset.
                self.confirmed = self.confirmed.max(received);
                self.discard_before(received);
            }
            ClientMessage::Ping { nonce } => {
                self.pings += 1;
                let pong = ServerMessage::Pong {
                    nonce,
                    received: self.processed,
                };
                frame::append_frame(&pong, &mut self.stream).expect("a pong fits");
            }
            ClientMessage::Act { request, action } if action == REJECTED_ACTION => {
                let code = RejectCode::IllegalAction;
                let rejected = ServerMessage::Rejected {
                    request,
                    code,
                    text: "requested by the test".into(),
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
                self.received_goodbye = true;
            }
            other => self.messages.push(other),
        }
    }
}

fn greeted(name: String, heartbeat_timeout_ms: u32) -> ServerMessage {
    ServerMessage::Greeted {
        version: 2,
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
        budgets: Budgets {
            unconfirmed_bytes_max: 65_536,
            unconfirmed_timeout_ms: 30_000,
            room_log_bytes: 262_144,
            chat_burst: 10,
            chat_per_minute: 60,
            requests_burst: 60,
            requests_per_minute: 120,
        },
        received: 0,
        games: vec![GameInfo {
            name: "relay".into(),
            seats_min: 1,
            seats_max: 8,
            ticks_per_second: 0,
        }],
    }
}
