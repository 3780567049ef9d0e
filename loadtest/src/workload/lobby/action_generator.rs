//! Generates the next random request of a client, and its message.

use std::collections::BTreeSet;

use forkade_protocol::{ClientMessage, RejectCode, RoomFilter, RoomId, RoomSettings};

use super::Lobby;
use super::member::RequestKind;
use super::model::{CreatedRoom, Model, QUICK_GAME};
use crate::workload::{Actions, ClientIndex};

/// Games of the rooms. No player gets ready, so the matches do not start (except relay's, which starts with
/// the room).
const GAMES: [&str; 4] = ["relay", "tictactoe", "connect4", QUICK_GAME];
/// No room has this id: the server's ids contain a generation above 0.
const NO_ROOM: RoomId = RoomId(0);

impl Lobby {
    /// Sends a random request of a client.
    pub(super) fn send_random_request(
        &mut self,
        client: ClientIndex,
        intended_ns: u64,
        now_ns: u64,
        actions: &mut Actions,
    ) {
        let choice = self.random.below(100);
        let kind = match &self.members[client as usize].view {
            Some(view) => {
                let room = view.room;
                match choice {
                    0..60 => RequestKind::Leave { room },
                    60..80 => self.find(room),
                    80..85 => self.list(now_ns),
                    _ => RequestKind::Invalid {
                        code: RejectCode::AlreadyInRoom,
                        room: None,
                    },
                }
            }
            None => match choice {
                0..25 => self.create(client),
                25..60 => self.enter(client, choice >= 50),
                60..75 => RequestKind::QuickMatch,
                75..82 => self.find_random(client),
                82..88 => self.list(now_ns),
                88..95 => self.invalid_request(),
                _ => RequestKind::NewPlayer,
            },
        };
        self.send_request(client, kind, None, intended_ns, now_ns, actions);
    }

    fn create(&mut self, client: ClientIndex) -> RequestKind {
        let most_rooms = self.members.len() / 2;
        if self.model.rooms().count() > most_rooms {
            return self.enter(client, false);
        }
        self.rooms_created += 1;
        let game = self.random.pick(&GAMES).copied().unwrap_or(QUICK_GAME);
        let has_passcode = self.random.below(4) == 0;
        RequestKind::Create(CreatedRoom {
            game: game.to_owned(),
            // The semicolon keeps one name from being part of another.
            name: format!("{}{};", self.tag, self.rooms_created),
            seats: 2,
            passcode: has_passcode.then(|| format!("open {}", self.rooms_created)),
        })
    }

    fn enter(&mut self, client: ClientIndex, spectate: bool) -> RequestKind {
        match self.random_room() {
            Some(room) => RequestKind::Join { room, spectate },
            None => {
                // The first client creates a room; without rooms their number needs no limit.
                self.create(client)
            }
        }
    }

    fn random_room(&mut self) -> Option<RoomId> {
        let rooms: Vec<RoomId> = self.model.rooms().map(|(id, _)| id).collect();
        self.random.pick(&rooms).copied()
    }

    fn find(&self, room: RoomId) -> RequestKind {
        let name = self.model.room(room).map(|room| room.created.name.clone());
        RequestKind::Find {
            room,
            name: name.unwrap_or_default(),
        }
    }

    fn find_random(&mut self, client: ClientIndex) -> RequestKind {
        match self.random_room() {
            Some(room) => self.find(room),
            None => self.create(client),
        }
    }

    fn list(&mut self, now_ns: u64) -> RequestKind {
        RequestKind::List {
            game: self.random.pick(&GAMES).copied().unwrap_or(QUICK_GAME),
            seen: BTreeSet::new(),
            began_ns: now_ns,
        }
    }

    fn invalid_request(&mut self) -> RequestKind {
        let locked: Vec<RoomId> = self
            .model
            .rooms()
            .filter(|(_, room)| room.created.passcode.is_some())
            .map(|(id, _)| id)
            .collect();
        match (self.random.below(3), self.random.pick(&locked)) {
            (0, Some(room)) => RequestKind::Invalid {
                code: RejectCode::WrongPasscode,
                room: Some(*room),
            },
            (1, _) => RequestKind::Invalid {
                code: RejectCode::NotInRoom,
                room: None,
            },
            _ => RequestKind::Invalid {
                code: RejectCode::RoomNotFound,
                room: Some(NO_ROOM),
            },
        }
    }
}

/// The message of a request; `None` for a new player, which needs no request.
pub(super) fn message(
    kind: &RequestKind,
    request: u32,
    after: Option<RoomId>,
    model: &Model,
) -> Option<ClientMessage> {
    let passcode_of = |room: RoomId| model.room(room).and_then(|room| room.created.passcode.clone());
    Some(match kind {
        RequestKind::Create(created) => ClientMessage::CreateRoom {
            request,
            game: created.game.clone(),
            name: created.name.clone(),
            settings: RoomSettings {
                seats: created.seats,
                passcode: created.passcode.clone(),
                ..RoomSettings::default()
            },
        },
        RequestKind::Join {
            room,
            spectate: false,
        } => ClientMessage::JoinRoom {
            request,
            room: *room,
            passcode: passcode_of(*room),
        },
        RequestKind::Join { room, spectate: true } => ClientMessage::Spectate {
            request,
            room: *room,
            passcode: passcode_of(*room),
        },
        RequestKind::QuickMatch => ClientMessage::QuickMatch {
            request,
            game: QUICK_GAME.to_owned(),
            options: Vec::new(),
        },
        RequestKind::Leave { .. } => ClientMessage::Leave { request },
        RequestKind::Invalid {
            code: RejectCode::NotInRoom,
            ..
        } => ClientMessage::Leave { request },
        RequestKind::Invalid { code, room } => ClientMessage::JoinRoom {
            request,
            room: room.unwrap_or(NO_ROOM),
            passcode: (*code == RejectCode::WrongPasscode).then(|| "wrong passcode".to_owned()),
        },
        RequestKind::Find { name, .. } => ClientMessage::ListRooms {
            request,
            filter: RoomFilter {
                game: None,
                name_contains: Some(name.clone()),
                joinable: false,
            },
            after,
        },
        RequestKind::List { game, .. } => ClientMessage::ListRooms {
            request,
            filter: RoomFilter {
                game: Some((*game).to_owned()),
                name_contains: None,
                joinable: false,
            },
            after,
        },
        RequestKind::NewPlayer => return None,
    })
}
