//! Brings a workload's clients into their rooms: the first of each room makes it, the others join it. Without rooms, whoever is
//! greeted is in. Decides only; the swarm acts.

use forkade_protocol::{ClientMessage, GameInfo, RejectCode, RoomId, ServerMessage};

use crate::client_protocol::create_room;
use crate::plan::{Shape, WorkloadKind};
use crate::workload::{Actions, ClientIndex};

/// No client has another request under way before it is in its room.
const REQUEST: u32 = 0;

/// How far each client is on its way into its room.
#[derive(Debug)]
pub(crate) struct Entry {
    workload: WorkloadKind,
    /// The game of the rooms; nothing if there are none.
    game: Option<&'static str>,
    shape: Shape,
    /// Clients from here on have not been started.
    next: ClientIndex,
    places: Vec<Place>,
    rooms: Vec<Option<RoomId>>,
    inside: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    /// Welcomed by the server; the room may not exist yet.
    Welcomed,
    Inside,
}

/// Why clients cannot enter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("the server has no game {0:?}")]
    NoSuchGame(&'static str),
    #[error("the server's {game} has {seats_min} to {seats_max} seats: rooms of {room_size} are impossible")]
    RoomSize {
        game: &'static str,
        seats_min: u8,
        seats_max: u8,
        room_size: u32,
    },
    #[error("the server refused to let client {client} into its room: {code:?}: {text}")]
    Refused {
        client: ClientIndex,
        code: RejectCode,
        text: String,
    },
}

impl Entry {
    pub(crate) fn new(workload: WorkloadKind, shape: Shape) -> Self {
        Self {
            workload,
            game: workload.game(),
            shape,
            next: 0,
            places: vec![Place::Outside; shape.clients as usize],
            rooms: vec![None; shape.rooms as usize],
            inside: 0,
        }
    }

    /// How many clients are in their rooms.
    pub(crate) fn inside(&self) -> u32 {
        self.inside
    }

    /// Whether all are.
    pub(crate) fn is_complete(&self) -> bool {
        self.inside == self.shape.clients
    }

    /// How many are on their way.
    pub(crate) fn on_their_way(&self) -> u32 {
        self.next - self.inside
    }

    /// How many have set out.
    pub(crate) fn started(&self) -> u32 {
        self.next
    }

    /// The next client that should connect. Clients start in order, so that whoever waits for a room waits for one that is
    /// being made.
    pub(crate) fn start_next(&mut self) -> Option<ClientIndex> {
        let client = self.next;
        (client < self.shape.clients).then(|| {
            self.next += 1;
            client
        })
    }

    /// The server said something to a client that is on its way.
    ///
    /// # Errors
    /// When it cannot get where it should.
    pub(crate) fn received(
        &mut self,
        client: ClientIndex,
        message: ServerMessage,
        actions: &mut Actions,
    ) -> Result<(), EntryError> {
        match message {
            ServerMessage::Welcome { games, .. } => match self.game {
                Some(game) => {
                    self.check_game(game, &games)?;
                    self.places[client as usize] = Place::Welcomed;
                    self.ask(game, client, actions);
                }
                None => {
                    let before = std::mem::replace(&mut self.places[client as usize], Place::Inside);
                    self.inside += u32::from(before != Place::Inside);
                }
            },
            ServerMessage::Joined { snapshot, .. }
            | ServerMessage::Resync {
                snapshot: Some(snapshot),
            } => {
                self.entered(client, snapshot.room, actions);
            }
            ServerMessage::Rejected { code, text, .. } => {
                return Err(EntryError::Refused { client, code, text });
            }
            _ => {}
        }
        Ok(())
    }

    fn check_game(&self, game: &'static str, games: &[GameInfo]) -> Result<(), EntryError> {
        let info = games
            .iter()
            .find(|info| info.name == game)
            .ok_or(EntryError::NoSuchGame(game))?;
        let (seats_min, seats_max, room_size) = (info.seats_min, info.seats_max, self.seats());
        if (u32::from(seats_min)..=u32::from(seats_max)).contains(&room_size) {
            Ok(())
        } else {
            Err(EntryError::RoomSize {
                game,
                seats_min,
                seats_max,
                room_size,
            })
        }
    }

    /// A welcomed client makes its room, or joins it if it is there.
    fn ask(&self, game: &str, client: ClientIndex, actions: &mut Actions) {
        let number = client / self.shape.room_size;
        let message = if client.is_multiple_of(self.shape.room_size) {
            let seats = u8::try_from(self.seats()).expect("the command line allows at most 255");
            create_room(REQUEST, game, number, seats)
        } else if let Some(room) = self.rooms[number as usize] {
            let (request, passcode) = (REQUEST, None);
            if client % self.shape.room_size < self.seats() {
                ClientMessage::JoinRoom {
                    request,
                    room,
                    passcode,
                }
            } else {
                ClientMessage::Spectate {
                    request,
                    room,
                    passcode,
                }
            }
        } else {
            return;
        };
        actions.sends.push((client, message));
    }

    /// Of each room.
    fn seats(&self) -> u32 {
        self.workload.seats(self.shape.room_size)
    }

    fn entered(&mut self, client: ClientIndex, room: RoomId, actions: &mut Actions) {
        let place = std::mem::replace(&mut self.places[client as usize], Place::Inside);
        if place == Place::Inside {
            return;
        }
        self.inside += 1;
        let Some(game) = self.game else { return };
        let number = client / self.shape.room_size;
        if self.rooms[number as usize].replace(room).is_none() {
            for mate in client + 1..client + self.shape.room_size {
                if self.places[mate as usize] == Place::Welcomed {
                    self.ask(game, mate, actions);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_protocol;
    use crate::options::Options;
    use forkade_protocol::RoomSettings;

    fn entry(arguments: &[&str]) -> Entry {
        let part = Options::part_for_test(arguments);
        Entry::new(part.kind, part.shape)
    }

    /// The relay has at most four seats here.
    fn welcome() -> ServerMessage {
        let mut message = client_protocol::welcome("load".to_owned());
        if let ServerMessage::Welcome { games, .. } = &mut message {
            games[0].seats_max = 4;
        }
        message
    }

    fn joined(room: u64) -> ServerMessage {
        client_protocol::joined(REQUEST, RoomId(room))
    }

    #[test]
    fn whoever_is_welcomed_before_the_room_is_there_joins_once_it_is() {
        let mut entry = entry(&["--clients", "3", "--room-size", "3"]);
        let mut actions = Actions::default();
        for client in [1, 0] {
            entry.received(client, welcome(), &mut actions).unwrap();
        }
        assert!(matches!(
            actions.sends[..],
            [(
                0,
                ClientMessage::CreateRoom {
                    settings: RoomSettings { seats: 3, .. },
                    ..
                }
            )]
        ));
        actions.sends.clear();
        entry.received(0, joined(7), &mut actions).unwrap();
        assert!(matches!(
            actions.sends[..],
            [(1, ClientMessage::JoinRoom { room: RoomId(7), .. })]
        ));
        actions.sends.clear();
        entry.received(2, welcome(), &mut actions).unwrap();
        assert!(matches!(
            actions.sends[..],
            [(2, ClientMessage::JoinRoom { room: RoomId(7), .. })]
        ));
        for client in [1, 2] {
            assert!(!entry.is_complete());
            entry.received(client, joined(7), &mut actions).unwrap();
        }
        assert!(entry.is_complete());
    }

    #[test]
    fn clients_set_out_in_order_and_are_on_their_way_until_they_are_in() {
        let mut entry = entry(&["--clients", "4"]);
        assert_eq!((entry.start_next(), entry.start_next()), (Some(0), Some(1)));
        assert_eq!((entry.started(), entry.on_their_way()), (2, 2));
        entry.received(0, joined(1), &mut Actions::default()).unwrap();
        assert_eq!((entry.started(), entry.on_their_way()), (2, 1));
        assert_eq!([(); 3].map(|()| entry.start_next()), [Some(2), Some(3), None]);
    }

    #[test]
    fn without_rooms_whoever_is_greeted_is_in() {
        let mut entry = entry(&["--workload", "lobby", "--clients", "2"]);
        let mut actions = Actions::default();
        for (client, inside) in [(0, 1), (0, 1), (1, 2)] {
            entry.received(client, welcome(), &mut actions).unwrap();
            assert_eq!(entry.inside(), inside);
        }
        assert!(entry.is_complete() && actions.sends.is_empty());
    }

    #[test]
    fn a_server_that_cannot_hold_the_rooms_is_told_apart() {
        let too_large =
            entry(&["--clients", "5", "--room-size", "5"]).received(0, welcome(), &mut Actions::default());
        assert!(matches!(
            too_large,
            Err(EntryError::RoomSize { seats_max: 4, .. })
        ));
        let unknown = entry(&["--workload", "tictactoe"]).received(0, welcome(), &mut Actions::default());
        assert!(matches!(unknown, Err(EntryError::NoSuchGame("tictactoe"))));
    }
}
