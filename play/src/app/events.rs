//! Messages of the server, and changes of the connection.

use forkade_protocol::{ChatScope, Phase, RejectCode, RoomEvent, ServerMessage, Snapshot};

use crate::app::commands::{LOOK_REQUEST, list_request_after};
use crate::app::{App, ConnectionStatus, Location, ViewRequest};
use crate::connection::ConnectionEvent;
use crate::room::{Effect, Room};
use crate::styled::{Line, Style};
use forkade_text::render::{self, room_number};

impl App<'_> {
    /// Handles an event of the connection.
    pub(crate) fn on_event(&mut self, event: ConnectionEvent, now_ms: u64) {
        match event {
            ConnectionEvent::Message(message) => self.on_message(message, now_ms),
            ConnectionEvent::Lost { cause, retry_for } => {
                self.connection_status = ConnectionStatus::Lost {
                    since_ms: now_ms,
                    retry_for_seconds: retry_for.as_secs(),
                };
                self.print(
                    Style::Bad,
                    &format!("The connection is lost ({cause}). It is being made again."),
                );
            }
            ConnectionEvent::Ended(end) => self.connection_ended(end),
        }
    }

    fn on_message(&mut self, message: ServerMessage, now_ms: u64) {
        match message {
            ServerMessage::Welcome {
                name, limits, games, ..
            } => {
                self.connection_status = ConnectionStatus::Up;
                (self.name, self.limits) = (name, Some(limits));
                self.listing.set_games(games);
                self.print_welcome();
                self.run_startup_action();
            }
            ServerMessage::Resumed { .. } => {
                self.connection_status = ConnectionStatus::Up;
                self.print(Style::Good, "Connected again: nothing is lost.");
            }
            ServerMessage::Rooms {
                request, rooms, next, ..
            } => self.on_rooms(request, rooms, next),
            ServerMessage::Joined { snapshot, .. } => self.on_joined(snapshot, now_ms),
            ServerMessage::Picture { snapshot, .. } => self.on_view(snapshot, None, now_ms),
            ServerMessage::PictureToMove {
                snapshot, to_move, ..
            } => self.on_view(snapshot, to_move, now_ms),
            ServerMessage::Started { snapshot } => {
                self.print(Style::Good, "The match begins.");
                self.replace_room(snapshot, now_ms);
            }
            ServerMessage::Resync { snapshot } => self.on_resync(snapshot, now_ms),
            ServerMessage::Event { number, event } => self.on_room_event(number, &event, now_ms),
            ServerMessage::Left { .. } => self.enter_lobby("You are back in the lobby."),
            ServerMessage::Removed { text, .. } => {
                self.enter_lobby("");
                self.print(Style::Bad, &render::to_sentence(&text));
            }
            ServerMessage::Rejected { request, code, text } => self.on_rejected(request, code, &text),
            ServerMessage::Chat { scope, from, text } => self.print_chat(&scope, &from, &text),
            message @ (ServerMessage::Invitation { .. }
            | ServerMessage::Invited { .. }
            | ServerMessage::ChatMissed { .. }) => {
                self.print(Style::Strong, &render::message(self.games, &message));
            }
            // The session handles the first ones; the connection turns the others into its end.
            ServerMessage::Greeted { .. }
            | ServerMessage::RejectedTooFast { .. }
            | ServerMessage::Accepted { .. }
            | ServerMessage::Pong { .. }
            | ServerMessage::Error { .. }
            | ServerMessage::ShuttingDown { .. } => {}
        }
    }

    fn print_welcome(&mut self) {
        let text = format!(
            "Welcome, {}. Choose with the arrow keys and press Enter, or type: F1 shows what.",
            self.name
        );
        self.print(Style::Good, &text);
        let is_unknown = |name: &&str| self.games.find(name).is_none();
        let offered = self.listing.games().iter().map(|game| game.name.as_str());
        let unknown: Vec<_> = offered.filter(is_unknown).collect();
        if !unknown.is_empty() {
            let text = format!(
                "This program does not know {}: of these games it can show players, chat and events, but no board.",
                unknown.join(", ")
            );
            self.print(Style::Bad, &text);
        }
    }

    fn on_rooms(
        &mut self,
        request: u32,
        rooms: Vec<forkade_protocol::RoomSummary>,
        next: Option<forkade_protocol::RoomId>,
    ) {
        let next_request = self.next_list_request;
        match self.listing.on_page(request, rooms, next, next_request) {
            Some(message) => {
                self.next_list_request = list_request_after(next_request);
                self.messages.push(message);
            }
            None => self.run_startup_action(),
        }
    }

    fn on_joined(&mut self, snapshot: Snapshot, now_ms: u64) {
        let room = format!(
            "You are in room {}, {}: {}.",
            room_number(snapshot.room),
            render::quoted_name(&snapshot.name),
            snapshot.game
        );
        let hint = match (snapshot.seat, snapshot.phase) {
            (None, _) => " You are watching.",
            (Some(_), Phase::Waiting) => {
                " Press Enter when you are ready; the match begins when all seats are."
            }
            (Some(_), _) => "",
        };
        self.print(Style::Good, &(room + hint));
        self.view_request = ViewRequest::None;
        self.replace_room(snapshot, now_ms);
        if let Location::Room(room) = &self.location
            && room.game(self.games).is_none()
        {
            self.print(
                Style::Bad,
                "This program does not know the game and cannot show its board.",
            );
        }
    }

    fn replace_room(&mut self, snapshot: Snapshot, now_ms: u64) {
        self.scrolled = 0;
        let is_playing = snapshot.phase == Phase::Playing;
        match &mut self.location {
            Location::Room(room) if room.id() == snapshot.room => {
                room.update(snapshot, None, self.games, now_ms);
            }
            _ => self.location = Location::Room(Box::new(Room::new(snapshot, self.games, now_ms))),
        }
        // Only the answer says whose move it is.
        if is_playing {
            self.request_view();
        }
    }

    fn on_resync(&mut self, snapshot: Option<Snapshot>, now_ms: u64) {
        self.print(
            Style::Bad,
            "Some messages were lost on the way to you; this is how things are now.",
        );
        // Replies may be among the lost messages.
        self.view_request = ViewRequest::None;
        self.listing.refresh_now();
        match snapshot {
            Some(snapshot) => self.replace_room(snapshot, now_ms),
            None if self.is_in_lobby() => {}
            None => self.enter_lobby("You are in the lobby."),
        }
    }

    fn on_view(&mut self, snapshot: Snapshot, to_move: Option<u8>, now_ms: u64) {
        let is_stale =
            std::mem::replace(&mut self.view_request, ViewRequest::None) == ViewRequest::PendingAndStale;
        if let Location::Room(room) = &mut self.location
            && room.id() == snapshot.room
        {
            room.update(snapshot, to_move, self.games, now_ms);
            if is_stale {
                self.request_view();
            }
        }
    }

    fn enter_lobby(&mut self, text: &str) {
        self.print(Style::Good, text);
        self.location = Location::Lobby;
        (self.view_request, self.passcode_given) = (ViewRequest::None, None);
        self.listing.refresh_now();
    }

    fn on_room_event(&mut self, number: u64, event: &RoomEvent, now_ms: u64) {
        let Location::Room(room) = &mut self.location else {
            return;
        };
        // Described before it is applied: a player who leaves has a name until then. (The event itself names one who
        // joins.)
        let before = room.describe(event, self.games);
        let effect = room.apply(number, event, now_ms);
        match event {
            RoomEvent::Chat { from, text } => {
                self.print_chat(&ChatScope::Room, from, text);
            }
            RoomEvent::Finished { .. } => {
                self.print(Style::Strong, &before);
                self.scrolled = 0;
            }
            _ => self.print(Style::Dim, &before),
        }
        if effect == Effect::ViewChanged {
            self.request_view();
        }
    }

    fn print_chat(&mut self, scope: &ChatScope, from: &str, text: &str) {
        let line = Line::of(Style::Strong, &render::chat_prefix(scope, from));
        self.add_to_log(line.and(Style::Plain, text));
    }

    fn on_rejected(&mut self, request: u32, code: RejectCode, text: &str) {
        if request == LOOK_REQUEST {
            self.view_request = ViewRequest::None;
            // The player has left meanwhile, which another message says.
            if code == RejectCode::NotInRoom {
                return;
            }
        }
        self.print(Style::Bad, &render::refusal(text));
    }
}
