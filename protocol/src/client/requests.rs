//! Requests that wait for their answer.
//!
//! Some messages are answered only if they are rejected. Behind those a ping is sent: the server works in order, so a
//! pong without a rejection before it means *accepted*.

use std::time::{Duration, Instant};

use super::{Client, ClientError, LIBRARY_NONCES_FROM};
use crate::{
    messages::{
        ChatScope, ClientMessage, RoomFilter, RoomId, RoomSettings, RoomSummary, ServerMessage, Snapshot,
    },
    session::{SESSION_NONCE, SessionError},
};

/// A room to be created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRoom {
    /// Name of the game.
    pub game: String,
    /// Name of the room.
    pub name: String,
    /// What it is to be like.
    pub settings: RoomSettings,
}

impl NewRoom {
    /// A public room with as many seats as the game can have, and the game's default options.
    pub fn new(game: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            game: game.into(),
            name: name.into(),
            settings: RoomSettings::default(),
        }
    }
}

/// Each of these waits at most [`reply_timeout`](super::ClientOptions::reply_timeout) and fails with
/// [`ClientError::Rejected`] if the server refuses, [`ClientError::Timeout`] or [`ClientError::AnswerLost`] if no
/// answer comes, and otherwise as [`Client::receive_where`] and [`Client::send`] do.
impl Client {
    /// One page of the rooms that pass `filter`, and what to give as `after` for the next page, if there is one.
    ///
    /// # Errors
    /// As for all requests.
    pub fn list_rooms(
        &mut self,
        filter: RoomFilter,
        after: Option<RoomId>,
    ) -> Result<(Vec<RoomSummary>, Option<RoomId>), ClientError> {
        match self.request(|request| ClientMessage::ListRooms {
            request,
            filter,
            after,
        })? {
            ServerMessage::Rooms { rooms, next, .. } => Ok((rooms, next)),
            _ => Err(wrong_answer()),
        }
    }

    /// Creates a room and takes a seat in it.
    ///
    /// # Errors
    /// As for all requests.
    pub fn create_room(&mut self, room: NewRoom) -> Result<Snapshot, ClientError> {
        let NewRoom { game, name, settings } = room;
        self.enter(|request| ClientMessage::CreateRoom {
            request,
            game,
            name,
            settings,
        })
    }

    /// Takes a seat in a room.
    ///
    /// # Errors
    /// As for all requests.
    pub fn join_room(&mut self, room: RoomId, passcode: Option<&str>) -> Result<Snapshot, ClientError> {
        let passcode = passcode.map(str::to_owned);
        self.enter(|request| ClientMessage::JoinRoom {
            request,
            room,
            passcode,
        })
    }

    /// Takes a seat in any open room of this game, or in a new one with these options.
    ///
    /// # Errors
    /// As for all requests.
    pub fn quick_match(
        &mut self,
        game: impl Into<String>,
        options: Vec<u8>,
    ) -> Result<Snapshot, ClientError> {
        self.enter(|request| ClientMessage::QuickMatch {
            request,
            game: game.into(),
            options,
        })
    }

    /// Watches a room.
    ///
    /// # Errors
    /// As for all requests.
    pub fn spectate(&mut self, room: RoomId, passcode: Option<&str>) -> Result<Snapshot, ClientError> {
        let passcode = passcode.map(str::to_owned);
        self.enter(|request| ClientMessage::Spectate {
            request,
            room,
            passcode,
        })
    }

    /// Leaves the room.
    ///
    /// # Errors
    /// As for all requests.
    pub fn leave(&mut self) -> Result<(), ClientError> {
        match self.request(|request| ClientMessage::Leave { request })? {
            ServerMessage::Left { .. } => Ok(()),
            _ => Err(wrong_answer()),
        }
    }

    /// Says whether this seat is ready to start.
    ///
    /// # Errors
    /// As for all requests.
    pub fn ready(&mut self, ready: bool) -> Result<(), ClientError> {
        self.unless_rejected(|request| ClientMessage::Ready { request, ready })
    }

    /// Makes a move. What comes of it are events, which stay queued.
    ///
    /// # Errors
    /// As for all requests.
    pub fn act(&mut self, action: Vec<u8>) -> Result<(), ClientError> {
        self.unless_rejected(|request| ClientMessage::Act { request, action })
    }

    /// The room as it looks now, with the game's view. Events that it contains may still be in the queue.
    ///
    /// # Errors
    /// As for all requests.
    pub fn look(&mut self) -> Result<Snapshot, ClientError> {
        match self.request(|request| ClientMessage::Look { request })? {
            ServerMessage::Picture { snapshot, .. } => Ok(snapshot),
            _ => Err(wrong_answer()),
        }
    }

    /// Says something.
    ///
    /// # Errors
    /// As for all requests.
    pub fn chat(&mut self, scope: ChatScope, text: impl Into<String>) -> Result<(), ClientError> {
        self.unless_rejected(|request| ClientMessage::Chat {
            request,
            scope,
            text: text.into(),
        })
    }

    /// Asks for another match.
    ///
    /// # Errors
    /// As for all requests.
    pub fn rematch(&mut self) -> Result<(), ClientError> {
        self.unless_rejected(|request| ClientMessage::Rematch { request })
    }

    /// Takes a seat with a room's invite code, or with `watch` a place to look on.
    ///
    /// # Errors
    /// As for all requests.
    pub fn join_by_invite(&mut self, code: impl Into<String>, watch: bool) -> Result<Snapshot, ClientError> {
        self.enter(|request| ClientMessage::JoinByInvite {
            request,
            code: code.into(),
            watch,
        })
    }

    /// As the room's owner, changes all its settings.
    ///
    /// # Errors
    /// As for all requests.
    pub fn configure(&mut self, settings: RoomSettings) -> Result<(), ClientError> {
        self.unless_rejected(|request| ClientMessage::Configure { request, settings })
    }

    /// As the room's owner, asks for its invite code; with `renew` for a new one, and all before are worth nothing.
    ///
    /// # Errors
    /// As for all requests.
    pub fn invite(&mut self, renew: bool) -> Result<String, ClientError> {
        match self.request(|request| ClientMessage::Invite { request, renew })? {
            ServerMessage::Invitation { code, .. } => Ok(code),
            _ => Err(wrong_answer()),
        }
    }

    /// As the room's owner, keeps a seat for the player of this name for a while.
    ///
    /// # Errors
    /// As for all requests.
    pub fn reserve(&mut self, player: impl Into<String>) -> Result<(), ClientError> {
        self.unless_rejected(|request| ClientMessage::Reserve {
            request,
            player: player.into(),
        })
    }

    /// As the room's owner, sends the player in this seat out for good. `name` is who that is, so that it is nobody else if the
    /// seat has changed hands meanwhile.
    ///
    /// # Errors
    /// As for all requests.
    pub fn kick(&mut self, seat: u8, name: impl Into<String>) -> Result<(), ClientError> {
        self.unless_rejected(|request| ClientMessage::Kick {
            request,
            seat,
            name: name.into(),
        })
    }

    /// As the room's owner, makes the player in this seat its owner. `name` is who that is, so that it is nobody else if the
    /// seat has changed hands meanwhile.
    ///
    /// # Errors
    /// As for all requests.
    pub fn hand_over(&mut self, seat: u8, name: impl Into<String>) -> Result<(), ClientError> {
        self.unless_rejected(|request| ClientMessage::HandOver {
            request,
            seat,
            name: name.into(),
        })
    }

    /// Asks for a sign of life and returns how long the answer took.
    ///
    /// # Errors
    /// As for all requests.
    pub fn ping(&mut self) -> Result<Duration, ClientError> {
        let start = Instant::now();
        self.wait_for_pong()?;
        Ok(start.elapsed())
    }

    fn enter(&mut self, message: impl FnOnce(u32) -> ClientMessage) -> Result<Snapshot, ClientError> {
        match self.request(message)? {
            ServerMessage::Joined { snapshot, .. } => Ok(snapshot),
            _ => Err(wrong_answer()),
        }
    }

    /// Sends a message that is always answered, and waits for the answer.
    fn request(&mut self, message: impl FnOnce(u32) -> ClientMessage) -> Result<ServerMessage, ClientError> {
        let gaps = self.counters().gaps;
        let request = self.send_request(message)?;
        let timeout = self.options.reply_timeout;
        match self.receive_where(timeout, |answer| answer.request() == Some(request))? {
            Some(ServerMessage::Rejected { code, text, .. }) => Err(ClientError::Rejected { code, text }),
            Some(answer) => Ok(answer),
            None => Err(self.no_answer_since(gaps)),
        }
    }

    /// Sends a message that is answered only if it is rejected, and waits until it is clear that it was not.
    fn unless_rejected(&mut self, message: impl FnOnce(u32) -> ClientMessage) -> Result<(), ClientError> {
        let gaps = self.counters().gaps;
        let request = self.send_request(message)?;
        self.wait_for_pong()?;
        let is_answer = |answer: &ServerMessage| answer.request() == Some(request);
        match self
            .queue
            .iter()
            .position(is_answer)
            .and_then(|index| self.queue.remove(index))
        {
            Some(ServerMessage::Rejected { code, text, .. }) => Err(ClientError::Rejected { code, text }),
            Some(_) => Err(wrong_answer()),
            None if self.counters().gaps != gaps => Err(ClientError::AnswerLost),
            None => Ok(()),
        }
    }

    fn wait_for_pong(&mut self) -> Result<(), ClientError> {
        let gaps = self.counters().gaps;
        let nonce = self.next_nonce;
        self.next_nonce = if nonce + 1 == SESSION_NONCE {
            LIBRARY_NONCES_FROM
        } else {
            nonce + 1
        };
        self.send(&ClientMessage::Ping { nonce })?;
        let deadline = Instant::now() + self.options.reply_timeout;
        while self.last_pong != Some(nonce) {
            self.check_before_waiting()?;
            if Instant::now() >= deadline {
                return Err(self.no_answer_since(gaps));
            }
            self.step(deadline)?;
        }
        Ok(())
    }

    fn send_request(&mut self, message: impl FnOnce(u32) -> ClientMessage) -> Result<u32, ClientError> {
        let request = self.next_request;
        self.next_request = request.wrapping_add(1);
        self.send(&message(request))?;
        Ok(request)
    }

    fn no_answer_since(&self, gaps: u64) -> ClientError {
        if self.counters().gaps == gaps {
            ClientError::Timeout(self.options.reply_timeout)
        } else {
            ClientError::AnswerLost
        }
    }
}

fn wrong_answer() -> ClientError {
    SessionError::Violation("an answer of the wrong kind").into()
}
