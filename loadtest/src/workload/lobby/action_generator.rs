//! What a client of the lobby asks for next, and how that is put into words.

use std::collections::BTreeSet;

use forkade_protocol::{ClientMessage, RejectCode, RoomFilter, RoomId, RoomSettings};

use super::Lobby;
use super::member::Asked;
use super::model::{Made, Model, QUICK_GAME};
use crate::workload::{Actions, ClientIndex};

/// Games of the rooms that are made; nobody in them gets ready, so their matches do not begin (relay's begins with the room).
const GAMES: [&str; 4] = ["relay", "tictactoe", "connect4", QUICK_GAME];
/// No room has this id: the server's begin with a generation above 0.
const NO_ROOM: RoomId = RoomId(0);

impl Lobby {
    /// A client asks for something, whatever comes to its mind.
    pub(super) fn act(&mut self, client: ClientIndex, intended_ns: u64, now_ns: u64, actions: &mut Actions) {
        let whim = self.random.below(100);
        let asked = match &self.members[client as usize].place {
            Some(place) => {
                let room = place.room;
                match whim {
                    0..60 => Asked::Leave { room },
                    60..80 => self.find(room),
                    80..85 => self.list(now_ns),
                    _ => Asked::Wrong {
                        code: RejectCode::AlreadyInRoom,
                        room: None,
                    },
                }
            }
            None => match whim {
                0..25 => self.create(client),
                25..60 => self.enter(client, whim >= 50),
                60..75 => Asked::QuickMatch,
                75..82 => self.find_any(client),
                82..88 => self.list(now_ns),
                88..95 => self.ask_wrongly(),
                _ => Asked::Renewal,
            },
        };
        self.ask(client, asked, None, intended_ns, now_ns, actions);
    }

    fn create(&mut self, client: ClientIndex) -> Asked {
        let most_rooms = self.members.len() / 2;
        if self.model.rooms().count() > most_rooms {
            return self.enter(client, false);
        }
        self.rooms_made += 1;
        let game = self.random.pick(&GAMES).copied().unwrap_or(QUICK_GAME);
        let has_passcode = self.random.below(4) == 0;
        Asked::Create(Made {
            game: game.to_owned(),
            // Its end keeps one name from being contained in another.
            name: format!("{}{};", self.tag, self.rooms_made),
            seats: 2,
            passcode: has_passcode.then(|| format!("open {}", self.rooms_made)),
        })
    }

    fn enter(&mut self, client: ClientIndex, watch: bool) -> Asked {
        match self.any_room() {
            Some(room) => Asked::Enter { room, watch },
            None => {
                // The first of all makes a room; with none there is nothing to limit.
                self.create(client)
            }
        }
    }

    fn any_room(&mut self) -> Option<RoomId> {
        let rooms: Vec<RoomId> = self.model.rooms().map(|(id, _)| id).collect();
        self.random.pick(&rooms).copied()
    }

    fn find(&self, room: RoomId) -> Asked {
        let name = self.model.room(room).map(|room| room.made.name.clone());
        Asked::Find {
            room,
            name: name.unwrap_or_default(),
        }
    }

    fn find_any(&mut self, client: ClientIndex) -> Asked {
        match self.any_room() {
            Some(room) => self.find(room),
            None => self.create(client),
        }
    }

    fn list(&mut self, now_ns: u64) -> Asked {
        Asked::List {
            game: self.random.pick(&GAMES).copied().unwrap_or(QUICK_GAME),
            seen: BTreeSet::new(),
            began_ns: now_ns,
        }
    }

    fn ask_wrongly(&mut self) -> Asked {
        let locked: Vec<RoomId> = self
            .model
            .rooms()
            .filter(|(_, room)| room.made.passcode.is_some())
            .map(|(id, _)| id)
            .collect();
        match (self.random.below(3), self.random.pick(&locked)) {
            (0, Some(room)) => Asked::Wrong {
                code: RejectCode::WrongPasscode,
                room: Some(*room),
            },
            (1, _) => Asked::Wrong {
                code: RejectCode::NotInRoom,
                room: None,
            },
            _ => Asked::Wrong {
                code: RejectCode::RoomNotFound,
                room: Some(NO_ROOM),
            },
        }
    }
}

/// How a request is put into words; nothing for a renewal, which is none.
pub(super) fn message(
    asked: &Asked,
    request: u32,
    after: Option<RoomId>,
    model: &Model,
) -> Option<ClientMessage> {
    let passcode_of = |room: RoomId| model.room(room).and_then(|room| room.made.passcode.clone());
    Some(match asked {
        Asked::Create(made) => ClientMessage::CreateRoom {
            request,
            game: made.game.clone(),
            name: made.name.clone(),
            settings: RoomSettings {
                seats: made.seats,
                passcode: made.passcode.clone(),
                ..RoomSettings::default()
            },
        },
        Asked::Enter { room, watch: false } => ClientMessage::JoinRoom {
            request,
            room: *room,
            passcode: passcode_of(*room),
        },
        Asked::Enter { room, watch: true } => ClientMessage::Spectate {
            request,
            room: *room,
            passcode: passcode_of(*room),
        },
        Asked::QuickMatch => ClientMessage::QuickMatch {
            request,
            game: QUICK_GAME.to_owned(),
            options: Vec::new(),
        },
        Asked::Leave { .. } => ClientMessage::Leave { request },
        Asked::Wrong {
            code: RejectCode::NotInRoom,
            ..
        } => ClientMessage::Leave { request },
        Asked::Wrong { code, room } => ClientMessage::JoinRoom {
            request,
            room: room.unwrap_or(NO_ROOM),
            passcode: (*code == RejectCode::WrongPasscode).then(|| "let me in".to_owned()),
        },
        Asked::Find { name, .. } => ClientMessage::ListRooms {
            request,
            filter: RoomFilter {
                game: None,
                name_contains: Some(name.clone()),
                joinable: false,
            },
            after,
        },
        Asked::List { game, .. } => ClientMessage::ListRooms {
            request,
            filter: RoomFilter {
                game: Some((*game).to_owned()),
                name_contains: None,
                joinable: false,
            },
            after,
        },
        Asked::Renewal => return None,
    })
}
