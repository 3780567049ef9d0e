//! Requests that wait for their answer.
//!
//! The server answers some messages only if it rejects them. The client sends a ping after those. The server answers in
//! order, so a pong without a preceding rejection means that the message was accepted.

use std::time::{Duration, Instant};

use super::{Client, ClientError, LIBRARY_NONCE_MIN};
use crate::{
    messages::{
        ChatScope, ClientMessage, RejectCode, RoomFilter, RoomId, RoomSettings, RoomSummary, ServerMessage,
        Snapshot,
    },
    session::{SESSION_NONCE, SessionError},
};

/// A room to create.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRoom {
    /// Name of the game.
    pub game: String,
    /// Name of the room.
    pub name: String,
    /// The room's settings.
    pub settings: RoomSettings,
}

impl NewRoom {
    /// A public room with the game's greatest number of seats and the game's default options.
    pub fn new(game: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            game: game.into(),
            name: name.into(),
            settings: RoomSettings::default(),
        }
    }
}

/// Requests. Each waits for at most [`reply_timeout`](super::ClientOptions::reply_timeout). It fails with
/// [`ClientError::Rejected`] if the server rejects it, with [`ClientError::Timeout`] or [`ClientError::AnswerLost`] if
/// no answer arrives, and otherwise as [`Client::receive_where`] and [`Client::send`] do.
impl Client {
    /// Lists one page of the rooms that match `filter`. Also returns the value of `after` for the next page, if there
    /// is one.
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
            _ => Err(wrong_answer_error()),
        }
    }

    /// Creates a room and takes a seat in it.
    ///
    /// # Errors
    /// As for all requests.
    pub fn create_room(&mut self, room: NewRoom) -> Result<Snapshot, ClientError> {
        let NewRoom { game, name, settings } = room;
        self.join(|request| ClientMessage::CreateRoom {
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
        self.join(|request| ClientMessage::JoinRoom {
            request,
            room,
            passcode,
        })
    }

    /// Takes a seat in any joinable room of this game, or in a new one with these options.
    ///
    /// # Errors
    /// As for all requests.
    pub fn quick_match(
        &mut self,
        game: impl Into<String>,
        options: Vec<u8>,
    ) -> Result<Snapshot, ClientError> {
        self.join(|request| ClientMessage::QuickMatch {
            request,
            game: game.into(),
            options,
        })
    }

    /// Enters a room as a spectator.
    ///
    /// # Errors
    /// As for all requests.
    pub fn spectate(&mut self, room: RoomId, passcode: Option<&str>) -> Result<Snapshot, ClientError> {
        let passcode = passcode.map(str::to_owned);
        self.join(|request| ClientMessage::Spectate {
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
            _ => Err(wrong_answer_error()),
        }
    }

    /// Sets whether this player is ready to start.
    ///
    /// # Errors
    /// As for all requests.
    pub fn ready(&mut self, ready: bool) -> Result<(), ClientError> {
        self.request_accepted(|request| ClientMessage::Ready { request, ready })
    }

    /// Makes a move. Its events stay queued.
    ///
    /// # Errors
    /// As for all requests.
    pub fn act(&mut self, action: Vec<u8>) -> Result<(), ClientError> {
        self.request_accepted(|request| ClientMessage::Act { request, action })
    }

    /// Requests the room's current state, with the game's view. Events that it contains can still be in the queue.
    ///
    /// # Errors
    /// As for all requests.
    pub fn look(&mut self) -> Result<Snapshot, ClientError> {
        match self.request(|request| ClientMessage::Look { request })? {
            ServerMessage::Picture { snapshot, .. } | ServerMessage::PictureToMove { snapshot, .. } => {
                Ok(snapshot)
            }
            _ => Err(wrong_answer_error()),
        }
    }

    /// Sends a chat text.
    ///
    /// # Errors
    /// As for all requests.
    pub fn chat(&mut self, scope: ChatScope, text: impl Into<String>) -> Result<(), ClientError> {
        self.request_accepted(|request| ClientMessage::Chat {
            request,
            scope,
            text: text.into(),
        })
    }

    /// Gets no more chat, whispers or invitations of the players of this name, or with `ignore` false gets them again.
    /// Only in version 2.
    ///
    /// # Errors
    /// As for all requests.
    pub fn ignore(&mut self, player: impl Into<String>, ignore: bool) -> Result<(), ClientError> {
        self.request_accepted(|request| ClientMessage::Ignore {
            request,
            player: player.into(),
            ignore,
        })
    }

    /// Asks for another match.
    ///
    /// # Errors
    /// As for all requests.
    pub fn rematch(&mut self) -> Result<(), ClientError> {
        self.request_accepted(|request| ClientMessage::Rematch { request })
    }

    /// Takes a seat with a room's invite code, or with `watch` enters as a spectator.
    ///
    /// # Errors
    /// As for all requests.
    pub fn join_by_invite(&mut self, code: impl Into<String>, watch: bool) -> Result<Snapshot, ClientError> {
        self.join(|request| ClientMessage::JoinByInvite {
            request,
            code: code.into(),
            watch,
        })
    }

    /// Changes all settings of the room. Only for the room's owner.
    ///
    /// # Errors
    /// As for all requests.
    pub fn configure(&mut self, settings: RoomSettings) -> Result<(), ClientError> {
        self.request_accepted(|request| ClientMessage::Configure { request, settings })
    }

    /// Requests the room's invite code, or with `renew` a new one, which invalidates all earlier ones. Only for the
    /// room's owner.
    ///
    /// # Errors
    /// As for all requests.
    pub fn invite(&mut self, renew: bool) -> Result<String, ClientError> {
        match self.request(|request| ClientMessage::Invite { request, renew })? {
            ServerMessage::Invitation { code, .. } => Ok(code),
            _ => Err(wrong_answer_error()),
        }
    }

    /// Reserves a seat for the player of this name for a limited time. Only for the room's owner.
    ///
    /// # Errors
    /// As for all requests.
    pub fn reserve(&mut self, player: impl Into<String>) -> Result<(), ClientError> {
        self.request_accepted(|request| ClientMessage::Reserve {
            request,
            player: player.into(),
        })
    }

    /// Removes the player in this seat from the room and bans it. Only for the room's owner. `name` is the player's
    /// name: if another player has the seat by now, the server rejects the request.
    ///
    /// # Errors
    /// As for all requests.
    pub fn kick(&mut self, seat: u8, name: impl Into<String>) -> Result<(), ClientError> {
        self.request_accepted(|request| ClientMessage::Kick {
            request,
            seat,
            name: name.into(),
        })
    }

    /// Makes the player in this seat the room's owner. Only for the room's owner. `name` is the player's name: if
    /// another player has the seat by now, the server rejects the request.
    ///
    /// # Errors
    /// As for all requests.
    pub fn hand_over(&mut self, seat: u8, name: impl Into<String>) -> Result<(), ClientError> {
        self.request_accepted(|request| ClientMessage::HandOver {
            request,
            seat,
            name: name.into(),
        })
    }

    /// Sends a ping and returns the round-trip time.
    ///
    /// # Errors
    /// As for all requests.
    pub fn ping(&mut self) -> Result<Duration, ClientError> {
        let start = Instant::now();
        self.wait_for_pong()?;
        Ok(start.elapsed())
    }

    fn join(&mut self, message: impl FnOnce(u32) -> ClientMessage) -> Result<Snapshot, ClientError> {
        match self.request(message)? {
            ServerMessage::Joined { snapshot, .. } => Ok(snapshot),
            _ => Err(wrong_answer_error()),
        }
    }

    /// Sends a message that the server always answers, and waits for the answer.
    fn request(&mut self, message: impl FnOnce(u32) -> ClientMessage) -> Result<ServerMessage, ClientError> {
        let gaps = self.counters().gaps;
        let request = self.send_request(message)?;
        let timeout = self.options.reply_timeout;
        match self.receive_where(timeout, |answer| answer.request() == Some(request))? {
            Some(ServerMessage::Rejected { code, text, .. }) => Err(self.rejected(request, code, text)),
            Some(answer) => Ok(answer),
            None => Err(self.missing_answer_error(gaps)),
        }
    }

    fn rejected(&self, request: u32, code: RejectCode, text: String) -> ClientError {
        let retry_after = self.session.retry_after(request);
        ClientError::Rejected {
            code,
            text,
            retry_after,
        }
    }

    /// Sends a message that the server answers only if it rejects it or acknowledges all, and waits until the server
    /// has accepted it.
    fn request_accepted(&mut self, message: impl FnOnce(u32) -> ClientMessage) -> Result<(), ClientError> {
        if self.session.has_acknowledgements() {
            return match self.request(message)? {
                ServerMessage::Accepted { .. } => Ok(()),
                _ => Err(wrong_answer_error()),
            };
        }
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
            Some(ServerMessage::Rejected { code, text, .. }) => Err(self.rejected(request, code, text)),
            Some(_) => Err(wrong_answer_error()),
            None if self.counters().gaps != gaps => Err(ClientError::AnswerLost),
            None => Ok(()),
        }
    }

    fn wait_for_pong(&mut self) -> Result<(), ClientError> {
        let gaps = self.counters().gaps;
        let nonce = self.next_nonce;
        self.next_nonce = if nonce + 1 == SESSION_NONCE {
            LIBRARY_NONCE_MIN
        } else {
            nonce + 1
        };
        self.send(&ClientMessage::Ping { nonce })?;
        let deadline = Instant::now() + self.options.reply_timeout;
        while self.last_pong != Some(nonce) {
            self.check_before_waiting()?;
            if Instant::now() >= deadline {
                return Err(self.missing_answer_error(gaps));
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

    /// The error for a missing answer: it is lost if the stream has new gaps.
    fn missing_answer_error(&self, gaps: u64) -> ClientError {
        if self.counters().gaps == gaps {
            ClientError::Timeout(self.options.reply_timeout)
        } else {
            ClientError::AnswerLost
        }
    }
}

fn wrong_answer_error() -> ClientError {
    SessionError::Violation("an answer of another kind").into()
}
