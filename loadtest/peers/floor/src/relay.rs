//! All connections and rooms, and the handling of messages.

use std::io;

use forkade_protocol::frame::{self, Split};
use forkade_protocol::limits::{CHAT_BYTES_MAX, CONFIRM_EVERY_BYTES, FRAME_BYTES_MAX, PLAYER_NAME_BYTES_MAX};
use forkade_protocol::preamble::{self, PreambleResult};
use forkade_protocol::{
    Budgets, ClientMessage, GameInfo, Limits, Phase, PlayerId, RoomEvent, RoomId, RoomRules, ServerMessage,
    Snapshot, Token, VERSION_MAX, codec,
};
use mio::event::Event;

use crate::connection::Connection;

/// The only game.
const GAME: &str = "relay";
/// The wire cannot name more members of a room.
const SEATS_MAX: u8 = 255;
/// No client times out; this only tells clients how often to send heartbeats.
const HEARTBEAT_TIMEOUT_MS: u32 = 30_000;
const PREAMBLE_BYTES: usize = 8;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Relay {
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    rooms: Vec<Room>,
}

#[derive(Default)]
struct Room {
    members: Vec<usize>,
    events: u64,
}

impl Relay {
    /// The index of the next connection.
    pub(crate) fn free_index(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        })
    }

    /// Enters a connection.
    pub(crate) fn enter(&mut self, client: usize, connection: Connection) {
        self.connections[client] = Some(connection);
    }

    /// Handles an event of the poll.
    pub(crate) fn ready(&mut self, client: usize, event: &Event, buffer: &mut [u8]) {
        let Some(connection) = &mut self.connections[client] else {
            return;
        };
        let end_announced = event.is_read_closed() || event.is_error();
        let read = connection.read(buffer, end_announced);
        let handled = read
            .and_then(|()| self.handle_input(client))
            .and_then(|()| self.flush(client));
        if handled.is_err() {
            self.drop_client(client);
        }
    }

    /// Handles all complete frames.
    fn handle_input(&mut self, client: usize) -> io::Result<()> {
        let Some(connection) = &mut self.connections[client] else {
            return Ok(());
        };
        let input = std::mem::take(&mut connection.input);
        let mut from = 0;
        if !connection.is_opened {
            match preamble::classify(&input) {
                PreambleResult::Preamble { .. } => from = PREAMBLE_BYTES,
                PreambleResult::Incomplete => {
                    connection.input = input;
                    return Ok(());
                }
                PreambleResult::Invalid | PreambleResult::Text(_) => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
            connection.is_opened = true;
        }
        loop {
            match frame::split(&input[from..], FRAME_BYTES_MAX) {
                Split::Frame { body, total } => {
                    from += total;
                    self.handle(client, codec::decode(body).map_err(io::Error::other)?, total)?;
                }
                Split::Incomplete { .. } => break,
                Split::TooLarge { .. } => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        if let Some(connection) = &mut self.connections[client] {
            connection.input = input;
            connection.input.drain(..from);
        }
        Ok(())
    }

    /// Handles one message. An error ends the connection.
    fn handle(&mut self, client: usize, message: ClientMessage, frame_bytes: usize) -> io::Result<()> {
        let Some(connection) = &mut self.connections[client] else {
            return Ok(());
        };
        if !matches!(message, ClientMessage::Hello { .. } | ClientMessage::Greet { .. }) {
            connection.handled_bytes += frame_bytes as u64;
        }
        match message {
            ClientMessage::Greet { name, .. } => connection.queue(&greeted(client, name)),
            ClientMessage::CreateRoom { request, .. } => {
                self.rooms.push(Room::default());
                self.join(client, request, self.rooms.len() - 1)
            }
            ClientMessage::JoinRoom { request, room, .. } | ClientMessage::Spectate { request, room, .. } => {
                let room = usize::try_from(room.0).map_err(io::Error::other)?;
                self.join(client, request, room)
            }
            ClientMessage::Act { action, .. } => self.relay(client, action),
            ClientMessage::Ping { nonce } => {
                let received = connection.handled_bytes;
                connection.queue(&ServerMessage::Pong { nonce, received })
            }
            ClientMessage::Confirm { .. } => Ok(()),
            // A goodbye, or a message that is not supported.
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    fn join(&mut self, client: usize, request: u32, number: usize) -> io::Result<()> {
        let (Some(connection), Some(room)) = (&mut self.connections[client], self.rooms.get_mut(number))
        else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let seat = u8::try_from(room.members.len()).ok();
        room.members.push(client);
        connection.room = Some(number);
        let snapshot = snapshot(number, seat, room.events);
        connection.queue(&ServerMessage::Joined { request, snapshot })
    }

    /// Relays a payload to all members of its sender's room. The frame is encoded once.
    fn relay(&mut self, client: usize, payload: Vec<u8>) -> io::Result<()> {
        let room = self.connections[client].as_ref().and_then(|from| from.room);
        let Some(room) = room.and_then(|room| self.rooms.get_mut(room)) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        room.events += 1;
        let seat = room.members.iter().position(|member| *member == client);
        let seat = seat.and_then(|seat| u8::try_from(seat).ok()).unwrap_or(SEATS_MAX);
        let event = ServerMessage::Event {
            number: room.events,
            event: RoomEvent::Game {
                data: codec::encode(&(seat, payload)).map_err(io::Error::other)?,
            },
        };
        let mut frame = Vec::new();
        frame::append_frame(&event, &mut frame).map_err(io::Error::other)?;
        let members = room.members.clone();
        for member in members {
            let Some(connection) = &mut self.connections[member] else {
                continue;
            };
            connection.queue_frame(&frame);
            // The sender's own copy is flushed with its other output.
            if member != client && connection.flush().is_err() {
                self.drop_client(member);
            }
        }
        Ok(())
    }

    fn flush(&mut self, client: usize) -> io::Result<()> {
        self.connections[client]
            .as_mut()
            .map_or(Ok(()), Connection::flush)
    }

    fn drop_client(&mut self, client: usize) {
        let Some(connection) = self.connections[client].take() else {
            return;
        };
        if let Some(room) = connection.room.and_then(|room| self.rooms.get_mut(room)) {
            room.members.retain(|member| *member != client);
        }
        self.free.push(client);
    }
}

fn greeted(client: usize, name: String) -> ServerMessage {
    let bytes = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    ServerMessage::Greeted {
        version: VERSION_MAX,
        token: Token([0; 16]),
        player: PlayerId(client as u64),
        name,
        limits: Limits {
            frame_bytes_max: bytes(FRAME_BYTES_MAX),
            name_bytes_max: bytes(PLAYER_NAME_BYTES_MAX),
            chat_bytes_max: bytes(CHAT_BYTES_MAX),
            confirm_every_bytes: CONFIRM_EVERY_BYTES,
            heartbeat_timeout_ms: HEARTBEAT_TIMEOUT_MS,
            seat_grace_ms: 0,
        },
        // It limits nothing.
        budgets: Budgets {
            unconfirmed_bytes_max: u32::MAX,
            unconfirmed_timeout_ms: u32::MAX,
            room_log_bytes: u32::MAX,
            chat_burst: u32::MAX,
            chat_per_minute: 0,
            requests_burst: u32::MAX,
            requests_per_minute: 0,
        },
        received: 0,
        games: vec![GameInfo {
            name: GAME.to_owned(),
            seats_min: 1,
            seats_max: SEATS_MAX,
            ticks_per_second: 0,
        }],
    }
}

fn snapshot(room: usize, seat: Option<u8>, event: u64) -> Snapshot {
    Snapshot {
        room: RoomId(room as u64),
        game: GAME.to_owned(),
        name: String::new(),
        phase: Phase::Playing,
        seat,
        seats: Vec::new(),
        spectators: 0,
        event,
        view: Vec::new(),
        owner: None,
        rules: RoomRules::default(),
        reservations: Vec::new(),
        turn: None,
    }
}
