//! What the server says, and what becomes of the connection.

use forkade_protocol::{ChatScope, Phase, RejectCode, RoomEvent, ServerMessage, Snapshot};

use crate::app::commands::{LOOK_REQUEST, list_request_after};
use crate::app::{App, Link, Look, Place};
use crate::connection::Report;
use crate::room::{Consequence, Room};
use crate::styled::{Line, Style};
use forkade_text::render;
use forkade_text::render::room_number;

impl App<'_> {
    /// Something came from the connection.
    pub(crate) fn hear(&mut self, report: Report, now_ms: u64) {
        match report {
            Report::Message(message) => self.hear_message(message, now_ms),
            Report::Lost { cause, tried_for } => {
                self.link = Link::Lost {
                    since_ms: now_ms,
                    tried_for_seconds: tried_for.as_secs(),
                };
                self.tell(
                    Style::Bad,
                    &format!("The connection is lost ({cause}). It is being made again."),
                );
            }
            Report::Ended(end) => self.connection_ended(end),
        }
    }

    fn hear_message(&mut self, message: ServerMessage, now_ms: u64) {
        match message {
            ServerMessage::Welcome {
                name, limits, games, ..
            } => {
                self.link = Link::Up;
                (self.name, self.limits) = (name, Some(limits));
                self.listing.offer(games);
                self.greet();
                self.grant_wish();
            }
            ServerMessage::Resumed { .. } => {
                self.link = Link::Up;
                self.tell(Style::Good, "Connected again: nothing is lost.");
            }
            ServerMessage::Rooms {
                request, rooms, next, ..
            } => self.hear_rooms(request, rooms, next),
            ServerMessage::Joined { snapshot, .. } => self.come_in(snapshot, now_ms),
            ServerMessage::Picture { snapshot, .. } => self.see(snapshot, now_ms),
            ServerMessage::Started { snapshot } => {
                self.tell(Style::Good, "The match begins.");
                self.replace_room(snapshot, now_ms);
            }
            ServerMessage::Resync { snapshot } => self.resync(snapshot, now_ms),
            ServerMessage::Event { number, event } => self.hear_event(number, &event, now_ms),
            ServerMessage::Left { .. } => self.go_to_lobby("You are back in the lobby."),
            ServerMessage::Removed { text, .. } => {
                self.go_to_lobby("");
                self.tell(Style::Bad, &render::to_sentence(&text));
            }
            ServerMessage::Rejected { request, code, text } => self.hear_no(request, code, &text),
            ServerMessage::Chat { scope, from, text } => self.hear_chat(&scope, &from, &text),
            message @ (ServerMessage::Invitation { .. }
            | ServerMessage::Invited { .. }
            | ServerMessage::ChatMissed { .. }) => {
                self.tell(Style::Strong, &render::message(self.games, &message));
            }
            // The first belongs to the session; of the others the connection makes its end.
            ServerMessage::Pong { .. } | ServerMessage::Error { .. } | ServerMessage::ShuttingDown { .. } => {
            }
        }
    }

    fn greet(&mut self) {
        let text = format!(
            "Welcome, {}. Choose with the arrow keys and press Enter, or type: F1 shows what.",
            self.name
        );
        self.tell(Style::Good, &text);
        let is_unknown = |name: &&str| self.games.find(name).is_none();
        let offered = self.listing.offered().iter().map(|game| game.name.as_str());
        let unknown: Vec<_> = offered.filter(is_unknown).collect();
        if !unknown.is_empty() {
            let text = format!(
                "This program does not know {}: of these games it can show players, chat and events, but no board.",
                unknown.join(", ")
            );
            self.tell(Style::Bad, &text);
        }
    }

    fn hear_rooms(
        &mut self,
        request: u32,
        rooms: Vec<forkade_protocol::RoomSummary>,
        next: Option<forkade_protocol::RoomId>,
    ) {
        let next_request = self.next_list_request;
        match self.listing.take(request, rooms, next, next_request) {
            Some(message) => {
                self.next_list_request = list_request_after(next_request);
                self.messages.push(message);
            }
            None => self.grant_wish(),
        }
    }

    fn come_in(&mut self, snapshot: Snapshot, now_ms: u64) {
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
        self.tell(Style::Good, &(room + hint));
        self.look = Look::None;
        self.replace_room(snapshot, now_ms);
        if let Place::Room(room) = &self.place
            && room.game(self.games).is_none()
        {
            self.tell(
                Style::Bad,
                "This program does not know the game and cannot show its board.",
            );
        }
    }

    fn replace_room(&mut self, snapshot: Snapshot, now_ms: u64) {
        self.scrolled = 0;
        match &mut self.place {
            Place::Room(room) if room.id() == snapshot.room => room.update(snapshot, self.games, now_ms),
            _ => self.place = Place::Room(Box::new(Room::new(snapshot, self.games, now_ms))),
        }
    }

    fn resync(&mut self, snapshot: Option<Snapshot>, now_ms: u64) {
        self.tell(
            Style::Bad,
            "Some messages were lost on the way to you; this is how things are now.",
        );
        // Whatever was asked, its answer may be among what was lost.
        self.look = Look::None;
        self.listing.hurry();
        match snapshot {
            Some(snapshot) => self.replace_room(snapshot, now_ms),
            None if self.is_in_lobby() => {}
            None => self.go_to_lobby("You are in the lobby."),
        }
    }

    fn see(&mut self, snapshot: Snapshot, now_ms: u64) {
        let is_stale = std::mem::replace(&mut self.look, Look::None) == Look::AwaitedAndStale;
        if let Place::Room(room) = &mut self.place
            && room.id() == snapshot.room
        {
            room.update(snapshot, self.games, now_ms);
            if is_stale {
                self.look();
            }
        }
    }

    fn go_to_lobby(&mut self, text: &str) {
        self.tell(Style::Good, text);
        self.place = Place::Lobby;
        (self.look, self.passcode_given) = (Look::None, None);
        self.listing.hurry();
    }

    fn hear_event(&mut self, number: u64, event: &RoomEvent, now_ms: u64) {
        let Place::Room(room) = &mut self.place else {
            return;
        };
        // Told before it is applied: whoever leaves has a name until then. But whoever comes has one only then.
        let before = room.told(event, self.games);
        let consequence = room.apply(number, event, now_ms);
        match event {
            RoomEvent::Chat { from, text } => {
                self.hear_chat(&ChatScope::Room, from, text);
            }
            RoomEvent::Finished { .. } => {
                self.tell(Style::Strong, &before);
                self.scrolled = 0;
            }
            _ => self.tell(Style::Dim, &before),
        }
        if consequence == Consequence::ViewChanged {
            self.look();
        }
    }

    fn hear_chat(&mut self, scope: &ChatScope, from: &str, text: &str) {
        let line = Line::of(Style::Strong, &render::chat_prefix(scope, from));
        self.add_to_log(line.and(Style::Plain, text));
    }

    fn hear_no(&mut self, request: u32, code: RejectCode, text: &str) {
        if request == LOOK_REQUEST {
            self.look = Look::None;
            // That one has left meanwhile is told by another message.
            if code == RejectCode::NotInRoom {
                return;
            }
        }
        self.tell(Style::Bad, &render::refusal(text));
    }
}
