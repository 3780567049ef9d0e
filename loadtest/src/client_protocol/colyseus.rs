//! The protocol of a Colyseus server: a POST request for a seat in a room, then a WebSocket on which each
//! message is a code, a type and the payload. Both use one connection, so the server has one accept less per
//! client than with its own client library.

use std::io::{self, Read, Write};

use bytes::{Buf, BytesMut};
use forkade_protocol::{ClientMessage, RoomId};
use serde::Deserialize;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use super::{PeerError, PeerSession, Queues, joined, relayed};

// Codes of messages, as Colyseus numbers them.
const JOIN_ROOM: u8 = 10;
const ERROR: u8 = 11;
const LEAVE_ROOM: u8 = 12;
const ROOM_STATE: u8 = 14;
const ROOM_STATE_PATCH: u8 = 15;
const ROOM_DATA_BYTES: u8 = 17;
/// The only type of message in the room.
const MESSAGE: u8 = 0;

const STATUS_OK: u16 = 200;
const STATUS_SWITCHING_PROTOCOLS: u16 = 101;
const HEADERS_MAX: usize = 32;
/// Length of a room's id. Each character holds six bits, so an id fits into the 64 bits of [`RoomId`].
const ID_CHARACTERS: usize = 9;
const ID_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
/// Small, because there are thousands of clients, most of them idle.
const BUFFER_BYTES: usize = 4096;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Colyseus {
    queues: Queues,
    /// Bytes of an incomplete HTTP response.
    input: BytesMut,
    request: u32,
    /// The room's id as a number, once it is known.
    room: u64,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// A seat was requested.
    RequestingSeat,
    /// A seat was reserved; the WebSocket is being opened.
    Upgrading,
    Open(Box<WebSocket<ByteBuffer>>),
}

/// The WebSocket's stream: received bytes, and bytes to be sent.
#[derive(Debug, Default)]
struct ByteBuffer {
    input: BytesMut,
    output: BytesMut,
}

/// A reserved seat.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seat {
    session_id: String,
    room_id: String,
    process_id: String,
}

impl PeerSession for Colyseus {
    fn send(&mut self, message: &ClientMessage) -> Result<(), PeerError> {
        match (message, &mut self.state) {
            (ClientMessage::CreateRoom { request, .. }, State::Idle) => {
                self.request_seat(*request, "create/relay");
            }
            (ClientMessage::JoinRoom { request, room, .. }, State::Idle) => {
                self.request_seat(*request, &format!("joinById/{}", room_id_text(*room)));
            }
            (ClientMessage::Act { action, .. }, State::Open(socket)) => {
                let mut bytes = BytesMut::with_capacity(action.len() + 2);
                bytes.extend_from_slice(&[ROOM_DATA_BYTES, MESSAGE]);
                bytes.extend_from_slice(action);
                send_binary(socket, bytes)?;
                self.collect_output();
            }
            (ClientMessage::Goodbye, State::Open(socket)) => {
                send_binary(socket, BytesMut::from(&[LEAVE_ROOM][..]))?;
                self.collect_output();
            }
            _ => return Err(PeerError::Unsupported("this message")),
        }
        Ok(())
    }

    fn receive(&mut self, mut bytes: &[u8]) -> Result<(), PeerError> {
        if !matches!(self.state, State::Open(_)) {
            self.input.extend_from_slice(bytes);
            bytes = &[];
        }
        match self.state {
            State::Idle => {
                return Err(PeerError::UnexpectedAnswer(
                    "a response without a request".to_owned(),
                ));
            }
            State::RequestingSeat => self.on_seat_response()?,
            State::Upgrading => self.on_upgraded()?,
            State::Open(_) => {}
        }
        self.read_websocket(bytes)
    }

    fn queues(&mut self) -> &mut Queues {
        &mut self.queues
    }

    fn output(&self) -> &[u8] {
        &self.queues.output
    }
}

impl Colyseus {
    fn request_seat(&mut self, request: u32, action: &str) {
        self.request = request;
        self.state = State::RequestingSeat;
        let request_text = format!(
            "POST /matchmake/{action} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        self.queues.output.extend_from_slice(request_text.as_bytes());
    }

    fn on_seat_response(&mut self) -> Result<(), PeerError> {
        let Some(body) = self.take_response(STATUS_OK)? else {
            return Ok(());
        };
        let seat: Seat =
            serde_json::from_slice(&body).map_err(|error| PeerError::UnexpectedAnswer(error.to_string()))?;
        self.room = room_number(&seat.room_id)?;
        self.state = State::Upgrading;
        let Seat {
            session_id,
            room_id,
            process_id,
        } = seat;
        let upgrade = format!(
            "GET /{process_id}/{room_id}?sessionId={session_id} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: Zm9ya2FkZS1sb2FkdGVzdA==\r\n\r\n"
        );
        self.queues.output.extend_from_slice(upgrade.as_bytes());
        Ok(())
    }

    fn on_upgraded(&mut self) -> Result<(), PeerError> {
        if self.take_response(STATUS_SWITCHING_PROTOCOLS)?.is_none() {
            return Ok(());
        }
        let buffers = ByteBuffer {
            input: self.input.split(),
            output: BytesMut::new(),
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0);
        let socket = WebSocket::from_raw_socket(buffers, Role::Client, Some(config));
        self.state = State::Open(Box::new(socket));
        Ok(())
    }

    /// The body of the HTTP response once it is complete. Its status must be `status`.
    fn take_response(&mut self, status: u16) -> Result<Option<BytesMut>, PeerError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response
            .parse(&self.input)
            .map_err(|error| PeerError::UnexpectedAnswer(error.to_string()))?;
        let httparse::Status::Complete(head_bytes) = parsed else {
            return Ok(None);
        };
        let length = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let body_bytes = length
            .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
            .unwrap_or(0_usize);
        let found = response.code;
        if self.input.len() - head_bytes < body_bytes {
            return Ok(None);
        }
        self.input.advance(head_bytes);
        let body = self.input.split_to(body_bytes);
        if found == Some(status) {
            Ok(Some(body))
        } else {
            let found = found.unwrap_or(0);
            let text = String::from_utf8_lossy(&body);
            Err(PeerError::UnexpectedAnswer(format!("status {found}: {text}")))
        }
    }

    /// Handles bytes that the WebSocket has received.
    fn read_websocket(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        let State::Open(socket) = &mut self.state else {
            return Ok(());
        };
        socket.get_mut().input.extend_from_slice(bytes);
        loop {
            match socket.read() {
                Ok(Message::Binary(message)) => match message[..] {
                    [JOIN_ROOM, ..] => {
                        send_binary(socket, BytesMut::from(&[JOIN_ROOM][..]))?;
                        let joined = joined(self.request, RoomId(self.room));
                        self.queues.messages.push_back(joined);
                    }
                    [ROOM_DATA_BYTES, MESSAGE, ref payload @ ..] => {
                        self.queues.messages.push_back(relayed(payload)?);
                    }
                    [ROOM_STATE | ROOM_STATE_PATCH, ..] => {}
                    [ERROR, ref text @ ..] => {
                        let text = String::from_utf8_lossy(text).into_owned();
                        return Err(PeerError::UnexpectedAnswer(text));
                    }
                    _ => return Err(PeerError::UnexpectedAnswer(format!("{:?}", &message[..]))),
                },
                // The WebSocket library answers pings itself.
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The end of the connection reports the same.
                Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => break,
                Err(error) => return Err(Box::new(error).into()),
            }
        }
        self.collect_output();
        Ok(())
    }

    /// Moves the WebSocket's output to the client's output.
    fn collect_output(&mut self) {
        if let State::Open(socket) = &mut self.state {
            let output = &mut socket.get_mut().output;
            self.queues.output.extend_from_slice(output);
            output.clear();
        }
    }
}

fn send_binary(socket: &mut WebSocket<ByteBuffer>, bytes: BytesMut) -> Result<(), PeerError> {
    Ok(socket.send(Message::Binary(bytes.freeze())).map_err(Box::new)?)
}

impl Read for ByteBuffer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(self.input.len());
        self.input.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl Write for ByteBuffer {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A room's id as a number.
fn room_number(id: &str) -> Result<u64, PeerError> {
    let bits = |character: u8| ID_ALPHABET.iter().position(|known| *known == character);
    let number = id
        .bytes()
        .try_fold(0, |number, character| Some(number << 6 | bits(character)? as u64));
    number
        .filter(|_| id.len() == ID_CHARACTERS)
        .ok_or_else(|| PeerError::UnexpectedAnswer(format!("room id {id:?}")))
}

/// The room's id of a number.
fn room_id_text(RoomId(number): RoomId) -> String {
    let character = |position: usize| ID_ALPHABET[(number >> (6 * position) & 63) as usize];
    (0..ID_CHARACTERS)
        .rev()
        .map(|position| char::from(character(position)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use forkade_protocol::ServerMessage;

    const SEAT: &str = r#"{"name":"relay","sessionId":"S","roomId":"2iRlCFer7","processId":"P"}"#;

    /// A frame as a server sends it: unmasked.
    fn frame(payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("a short one");
        [&[0x82, length], payload].concat()
    }

    /// A client that has requested a seat.
    fn with_seat_requested() -> Colyseus {
        let mut client = Colyseus::default();
        client
            .send(&crate::client_protocol::create_room(7, "relay", 0, 2))
            .expect("a request");
        client
    }

    fn take_output(client: &mut Colyseus) -> String {
        String::from_utf8_lossy(&client.queues().output.split()).into_owned()
    }

    #[test]
    fn a_seat_is_requested_and_taken_on_one_connection_however_the_bytes_are_split() {
        let mut client = with_seat_requested();
        assert!(take_output(&mut client).starts_with("POST /matchmake/create/relay HTTP/1.1\r\n"));
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{SEAT}", SEAT.len());
        for byte in answer.as_bytes() {
            client.receive(&[*byte]).expect("a part of the answer");
        }
        assert!(take_output(&mut client).starts_with("GET /P/2iRlCFer7?sessionId=S HTTP/1.1\r\n"));
        // The first message arrives together with the response.
        let opened = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        client
            .receive(&[&opened[..], &frame(&[JOIN_ROOM, 0, 0])].concat())
            .expect("a WebSocket");
        let room = RoomId(room_number("2iRlCFer7").expect("an id"));
        assert_eq!(client.queues().messages.pop_front(), Some(joined(7, room)));
        assert!(!client.output().is_empty(), "the client acknowledges the join");
        let message = frame(&[ROOM_DATA_BYTES, MESSAGE, 5, 6]);
        for byte in message {
            client.receive(&[byte]).expect("a part of a message");
        }
        let relayed: Vec<ServerMessage> = client.queues().messages.drain(..).collect();
        assert_eq!(relayed, [super::relayed(&[5, 6]).expect("it is encoded")]);
    }

    #[test]
    fn a_refused_seat_is_an_error_with_its_text() {
        let error = with_seat_requested()
            .receive(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 4\r\n\r\nfull")
            .expect_err("no seat");
        assert!(error.to_string().contains("status 400: full"), "{error}");
    }

    #[test]
    fn room_ids_convert_to_numbers_and_back() {
        for id in ["2iRlCFer7", "AAAAAAAAA", "---------"] {
            assert_eq!(room_id_text(RoomId(room_number(id).expect("an id"))), id);
        }
        assert!(room_number("short").is_err() && room_number("2iRlCFer.").is_err());
    }
}
