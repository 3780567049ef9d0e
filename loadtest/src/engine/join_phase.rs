//! Brings a workload's clients into their rooms: the first client of each room creates it, the others join
//! it. In a workload without rooms, a client has joined when it is welcomed. This module only decides; the
//! engine acts.

use forkade_protocol::{ClientMessage, GameInfo, RejectCode, RoomId, ServerMessage};

use crate::client_protocol::create_room;
use crate::plan::{Shape, WorkloadKind};
use crate::workload::{Actions, ClientIndex};

/// No client has another request outstanding before it is in its room.
const REQUEST: u32 = 0;

/// How far each client has come.
#[derive(Debug)]
pub(crate) struct JoinPhase {
    workload: WorkloadKind,
    /// The game of the rooms; `None` if there are none.
    game: Option<&'static str>,
    shape: Shape,
    /// Clients from this index on have not been started.
    next_client: ClientIndex,
    states: Vec<JoinState>,
    rooms: Vec<Option<RoomId>>,
    joined_count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JoinState {
    NotWelcomed,
    /// The server has welcomed it; its room may not exist yet.
    Welcomed,
    Joined,
}

/// Why clients cannot join.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
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

impl JoinPhase {
    pub(crate) fn new(workload: WorkloadKind, shape: Shape) -> Self {
        Self {
            workload,
            game: workload.game(),
            shape,
            next_client: 0,
            states: vec![JoinState::NotWelcomed; shape.clients as usize],
            rooms: vec![None; shape.rooms as usize],
            joined_count: 0,
        }
    }

    /// How many clients are in their rooms.
    pub(crate) fn joined(&self) -> u32 {
        self.joined_count
    }

    /// Whether all clients are in their rooms.
    pub(crate) fn is_complete(&self) -> bool {
        self.joined_count == self.shape.clients
    }

    /// How many have started and are not in their rooms yet.
    pub(crate) fn joining(&self) -> u32 {
        self.next_client - self.joined_count
    }

    /// How many have started.
    pub(crate) fn started(&self) -> u32 {
        self.next_client
    }

    /// The next client that should connect. Clients start in order, so the room that a client waits for is
    /// always being created.
    pub(crate) fn start_next(&mut self) -> Option<ClientIndex> {
        let client = self.next_client;
        (client < self.shape.clients).then(|| {
            self.next_client += 1;
            client
        })
    }

    /// A client that is joining has received `message`.
    ///
    /// # Errors
    /// When the client cannot get into its room.
    pub(crate) fn received(
        &mut self,
        client: ClientIndex,
        message: ServerMessage,
        actions: &mut Actions,
    ) -> Result<(), JoinError> {
        match message {
            ServerMessage::Welcome { games, .. } => match self.game {
                Some(game) => {
                    self.check_game(game, &games)?;
                    self.states[client as usize] = JoinState::Welcomed;
                    self.send_join_request(game, client, actions);
                }
                None => {
                    let before = std::mem::replace(&mut self.states[client as usize], JoinState::Joined);
                    self.joined_count += u32::from(before != JoinState::Joined);
                }
            },
            ServerMessage::Joined { snapshot, .. }
            | ServerMessage::Resync {
                snapshot: Some(snapshot),
            } => {
                self.on_joined(client, snapshot.room, actions);
            }
            ServerMessage::Rejected { code, text, .. } => {
                return Err(JoinError::Refused { client, code, text });
            }
            _ => {}
        }
        Ok(())
    }

    fn check_game(&self, game: &'static str, games: &[GameInfo]) -> Result<(), JoinError> {
        let info = games
            .iter()
            .find(|info| info.name == game)
            .ok_or(JoinError::NoSuchGame(game))?;
        let (seats_min, seats_max, room_size) = (info.seats_min, info.seats_max, self.seats());
        if (u32::from(seats_min)..=u32::from(seats_max)).contains(&room_size) {
            Ok(())
        } else {
            Err(JoinError::RoomSize {
                game,
                seats_min,
                seats_max,
                room_size,
            })
        }
    }

    /// A welcomed client creates its room, or joins it if it exists.
    fn send_join_request(&self, game: &str, client: ClientIndex, actions: &mut Actions) {
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

    /// The number of seats of each room.
    fn seats(&self) -> u32 {
        self.workload.seats(self.shape.room_size)
    }

    fn on_joined(&mut self, client: ClientIndex, room: RoomId, actions: &mut Actions) {
        let state = std::mem::replace(&mut self.states[client as usize], JoinState::Joined);
        if state == JoinState::Joined {
            return;
        }
        self.joined_count += 1;
        let Some(game) = self.game else { return };
        let number = client / self.shape.room_size;
        if self.rooms[number as usize].replace(room).is_none() {
            for member in client + 1..client + self.shape.room_size {
                if self.states[member as usize] == JoinState::Welcomed {
                    self.send_join_request(game, member, actions);
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

    fn join_phase(arguments: &[&str]) -> JoinPhase {
        let plan = Options::plan_for_test(arguments);
        JoinPhase::new(plan.kind, plan.shape)
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
    fn a_client_that_is_welcomed_before_its_room_exists_joins_once_it_does() {
        let mut join_phase = join_phase(&["--clients", "3", "--room-size", "3"]);
        let mut actions = Actions::default();
        for client in [1, 0] {
            join_phase.received(client, welcome(), &mut actions).unwrap();
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
        join_phase.received(0, joined(7), &mut actions).unwrap();
        assert!(matches!(
            actions.sends[..],
            [(1, ClientMessage::JoinRoom { room: RoomId(7), .. })]
        ));
        actions.sends.clear();
        join_phase.received(2, welcome(), &mut actions).unwrap();
        assert!(matches!(
            actions.sends[..],
            [(2, ClientMessage::JoinRoom { room: RoomId(7), .. })]
        ));
        for client in [1, 2] {
            assert!(!join_phase.is_complete());
            join_phase.received(client, joined(7), &mut actions).unwrap();
        }
        assert!(join_phase.is_complete());
    }

    #[test]
    fn clients_start_in_order_and_are_joining_until_they_are_in_their_rooms() {
        let mut join_phase = join_phase(&["--clients", "4"]);
        assert_eq!(
            (join_phase.start_next(), join_phase.start_next()),
            (Some(0), Some(1))
        );
        assert_eq!((join_phase.started(), join_phase.joining()), (2, 2));
        join_phase
            .received(0, joined(1), &mut Actions::default())
            .unwrap();
        assert_eq!((join_phase.started(), join_phase.joining()), (2, 1));
        assert_eq!(
            [(); 3].map(|()| join_phase.start_next()),
            [Some(2), Some(3), None]
        );
    }

    #[test]
    fn in_a_workload_without_rooms_a_welcomed_client_has_joined() {
        let mut join_phase = join_phase(&["--workload", "lobby", "--clients", "2"]);
        let mut actions = Actions::default();
        for (client, joined_count) in [(0, 1), (0, 1), (1, 2)] {
            join_phase.received(client, welcome(), &mut actions).unwrap();
            assert_eq!(join_phase.joined(), joined_count);
        }
        assert!(join_phase.is_complete() && actions.sends.is_empty());
    }

    #[test]
    fn rooms_that_the_server_cannot_have_are_an_error_that_says_why() {
        let too_large = join_phase(&["--clients", "5", "--room-size", "5"]).received(
            0,
            welcome(),
            &mut Actions::default(),
        );
        assert!(matches!(too_large, Err(JoinError::RoomSize { seats_max: 4, .. })));
        let unknown =
            join_phase(&["--workload", "tictactoe"]).received(0, welcome(), &mut Actions::default());
        assert!(matches!(unknown, Err(JoinError::NoSuchGame("tictactoe"))));
    }
}
