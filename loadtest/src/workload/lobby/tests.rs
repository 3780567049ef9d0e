//! Clients use a simulated lobby that follows the rules, with random delays of requests and answers; and
//! simulated lobbies with one kind of error each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forkade_protocol::{ClientMessage, Phase, RejectCode, RoomFilter, RoomRules, RoomSummary, SeatInfo};

use super::*;
use crate::options::Options;

/// Rooms on one page: few, so that lists have several pages.
const PAGE: usize = 3;
const CLIENTS: u32 = 12;

/// What is delivered to a client.
#[derive(Debug, Clone)]
enum Delivery {
    Message(ServerMessage),
    Welcome(String),
}

#[derive(Debug)]
struct SimulatedRoom {
    game: String,
    name: String,
    passcode: Option<String>,
    seats: Vec<Option<ClientIndex>>,
    watchers: BTreeSet<ClientIndex>,
    events: u64,
}

/// A lobby by the server's rules.
#[derive(Default)]
struct SimulatedServer {
    rooms: BTreeMap<u64, SimulatedRoom>,
    rooms_created: u64,
    places: BTreeMap<ClientIndex, u64>,
    names: BTreeMap<ClientIndex, String>,
    players_made: u32,
    /// Messages to each client that are not delivered yet.
    outgoing: BTreeMap<ClientIndex, VecDeque<Delivery>>,
}

impl SimulatedServer {
    fn send(&mut self, client: ClientIndex, message: ServerMessage) {
        self.outgoing
            .entry(client)
            .or_default()
            .push_back(Delivery::Message(message));
    }

    fn welcome(&mut self, client: ClientIndex) {
        self.players_made += 1;
        let name = format!("player {client}.{}", self.players_made);
        self.names.insert(client, name.clone());
        self.outgoing
            .entry(client)
            .or_default()
            .push_back(Delivery::Welcome(name));
    }

    fn send_to_room(&mut self, id: u64, event: &RoomEvent, but: ClientIndex) {
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        room.events += 1;
        let number = room.events;
        let members: Vec<ClientIndex> = room
            .seats
            .iter()
            .flatten()
            .chain(&room.watchers)
            .copied()
            .collect();
        for member in members.into_iter().filter(|member| *member != but) {
            self.send(
                member,
                ServerMessage::Event {
                    number,
                    event: event.clone(),
                },
            );
        }
    }

    fn snapshot(&self, id: u64, seat: Option<u8>) -> Snapshot {
        let room = &self.rooms[&id];
        let info = |client: &ClientIndex| SeatInfo {
            name: self.names[client].clone(),
            connected: true,
            ready: false,
        };
        Snapshot {
            room: RoomId(id),
            game: room.game.clone(),
            name: room.name.clone(),
            phase: Phase::Waiting,
            seat,
            seats: room.seats.iter().map(|seat| seat.as_ref().map(info)).collect(),
            spectators: 0,
            event: room.events,
            view: Vec::new(),
            owner: None,
            rules: RoomRules {
                seats: u8::try_from(room.seats.len()).expect("few"),
                ..RoomRules::default()
            },
            reservations: Vec::new(),
            turn: None,
        }
    }

    fn create(&mut self, game: String, name: String, passcode: Option<String>, seats: usize) -> u64 {
        self.rooms_created += 1;
        let room = SimulatedRoom {
            game,
            name,
            passcode,
            seats: vec![None; seats],
            watchers: BTreeSet::new(),
            events: 0,
        };
        self.rooms.insert(self.rooms_created, room);
        self.rooms_created
    }

    fn enter(&mut self, client: ClientIndex, request: u32, id: u64, spectate: bool) -> Option<RejectCode> {
        let room = self.rooms.get_mut(&id).expect("it is there");
        let seat = if spectate {
            room.watchers.insert(client);
            None
        } else {
            let Some(seat) = room.seats.iter().position(Option::is_none) else {
                return Some(RejectCode::RoomFull);
            };
            room.seats[seat] = Some(client);
            u8::try_from(seat).ok()
        };
        self.places.insert(client, id);
        if let Some(seat) = seat {
            let name = self.names[&client].clone();
            self.send_to_room(id, &RoomEvent::Joined { seat, name }, client);
        }
        let snapshot = self.snapshot(id, seat);
        self.send(client, ServerMessage::Joined { request, snapshot });
        None
    }

    fn leave(&mut self, client: ClientIndex, request: u32) -> Option<RejectCode> {
        let Some(id) = self.places.remove(&client) else {
            return Some(RejectCode::NotInRoom);
        };
        let room = self.rooms.get_mut(&id).expect("it is there");
        room.watchers.remove(&client);
        let seat = room.seats.iter().position(|seat| *seat == Some(client));
        if let Some(seat) = seat {
            room.seats[seat] = None;
            let seat = u8::try_from(seat).expect("few");
            self.send_to_room(id, &RoomEvent::Left { seat }, client);
        }
        let room = &self.rooms[&id];
        if room.watchers.is_empty() && room.seats.iter().all(Option::is_none) {
            self.rooms.remove(&id);
        }
        self.send(client, ServerMessage::Left { request });
        None
    }

    fn list(&mut self, client: ClientIndex, request: u32, filter: &RoomFilter, after: Option<RoomId>) {
        let passes = |room: &SimulatedRoom| {
            let has_name = filter
                .name_contains
                .as_ref()
                .is_none_or(|part| room.name.contains(part));
            has_name && filter.game.as_ref().is_none_or(|game| *game == room.game)
        };
        let after = after.map_or(0, |room| room.0);
        let found = self.rooms.range(after + 1..).filter(|(_, room)| passes(room));
        let summary = |(id, room): (&u64, &SimulatedRoom)| RoomSummary {
            room: RoomId(*id),
            game: room.game.clone(),
            name: room.name.clone(),
            phase: if room.game == "relay" {
                Phase::Playing
            } else {
                Phase::Waiting
            },
            seats: u8::try_from(room.seats.len()).expect("few"),
            taken: u8::try_from(room.seats.iter().flatten().count()).expect("few"),
            spectators: u32::try_from(room.watchers.len()).expect("few"),
            passcode: room.passcode.is_some(),
        };
        let mut rooms: Vec<RoomSummary> = found.map(summary).take(PAGE + 1).collect();
        let more = rooms.len() > PAGE;
        rooms.truncate(PAGE);
        let next = rooms.last().filter(|_| more).map(|room| room.room);
        self.send(client, ServerMessage::Rooms { request, rooms, next });
    }

    fn handle(&mut self, client: ClientIndex, message: ClientMessage) {
        let request = message.request().expect("it has a number");
        let is_inside = self.places.contains_key(&client);
        let refusal = match message {
            ClientMessage::ListRooms { filter, after, .. } => {
                self.list(client, request, &filter, after);
                None
            }
            ClientMessage::Leave { .. } => self.leave(client, request),
            _ if is_inside => Some(RejectCode::AlreadyInRoom),
            ClientMessage::CreateRoom {
                game, name, settings, ..
            } => {
                let id = self.create(game, name, settings.passcode, usize::from(settings.seats));
                self.enter(client, request, id, false)
            }
            ClientMessage::QuickMatch { game, .. } => {
                let fits = |room: &SimulatedRoom| {
                    room.game == game && room.passcode.is_none() && room.seats.iter().any(Option::is_none)
                };
                let found = self.rooms.iter().find(|(_, room)| fits(room)).map(|(id, _)| *id);
                let name = format!("{game} quick match");
                let id = found.unwrap_or_else(|| self.create(game, name, None, 6));
                self.enter(client, request, id, false)
            }
            ClientMessage::JoinRoom { room, passcode, .. } => {
                self.join_room(client, request, room, passcode, false)
            }
            ClientMessage::Spectate { room, passcode, .. } => {
                self.join_room(client, request, room, passcode, true)
            }
            other => panic!("{other:?}"),
        };
        if let Some(code) = refusal {
            let text = String::new();
            self.send(client, ServerMessage::Rejected { request, code, text });
        }
    }

    fn join_room(
        &mut self,
        client: ClientIndex,
        request: u32,
        room: RoomId,
        passcode: Option<String>,
        spectate: bool,
    ) -> Option<RejectCode> {
        match self.rooms.get(&room.0) {
            None => Some(RejectCode::RoomNotFound),
            Some(room) if room.passcode.is_some() && room.passcode != passcode => {
                Some(RejectCode::WrongPasscode)
            }
            Some(_) => self.enter(client, request, room.0, spectate),
        }
    }
}

/// Runs the clients for `steps` steps, then until nothing is outstanding. `tamper` may change or drop each
/// message to a client.
fn run(seed: u64, steps: u64, mut tamper: impl FnMut(ServerMessage) -> Option<ServerMessage>) -> Figures {
    let mut random = Random::new(seed, 9);
    let clients = CLIENTS.to_string();
    let plan = Options::plan_for_test(&["--workload", "lobby", "--clients", &clients, "--rate", "0"]);
    let mut workload = Lobby::new(&WorkloadPlan { seed, ..plan });
    let (mut server, mut actions) = (SimulatedServer::default(), Actions::default());
    let mut incoming: BTreeMap<ClientIndex, VecDeque<Option<ClientMessage>>> = BTreeMap::new();
    for client in 0..CLIENTS {
        server.welcome(client);
        if let Some(Delivery::Welcome(name)) = server.outgoing.get_mut(&client).and_then(VecDeque::pop_front)
        {
            workload.welcomed(client, &name, 0, &mut actions);
        }
    }
    workload.start(0, u64::MAX, &mut actions);
    for now_ns in 1.. {
        for (client, message) in actions.sends.drain(..) {
            incoming.entry(client).or_default().push_back(Some(message));
        }
        for client in actions.new_players.drain(..) {
            incoming.entry(client).or_default().push_back(None);
        }
        if now_ns == steps {
            workload.stop(now_ns);
        }
        // Either a random request arrives, or a random answer.
        let waiting = |queues: &mut dyn Iterator<Item = (ClientIndex, usize)>| -> Vec<ClientIndex> {
            queues
                .filter(|(_, length)| *length > 0)
                .map(|(client, _)| client)
                .collect()
        };
        let requests = waiting(&mut incoming.iter().map(|(client, queue)| (*client, queue.len())));
        let answers = waiting(
            &mut server
                .outgoing
                .iter()
                .map(|(client, queue)| (*client, queue.len())),
        );
        let take_request = requests.len() > answers.len() || random.below(2) == 0;
        match (random.pick(&requests), random.pick(&answers)) {
            (None, None) => break,
            (Some(client), answer) if take_request || answer.is_none() => {
                match incoming.get_mut(client).and_then(VecDeque::pop_front).flatten() {
                    Some(message) => server.handle(*client, message),
                    None => server.welcome(*client),
                }
            }
            (_, Some(client)) => match server.outgoing.get_mut(client).and_then(VecDeque::pop_front) {
                Some(Delivery::Welcome(name)) => workload.welcomed(*client, &name, now_ns, &mut actions),
                Some(Delivery::Message(message)) => {
                    if let Some(message) = tamper(message) {
                        workload.received(*client, message, now_ns, &mut actions);
                    }
                }
                None => {}
            },
            (Some(_), None) => {}
        }
    }
    workload.figures()
}

#[test]
fn a_lobby_that_follows_the_rules_has_no_mismatches() {
    for seed in 0..40 {
        let figures = run(seed, 4_000, Some);
        assert_eq!(
            (figures.counts.mismatches, figures.lost),
            (0, 0),
            "seed {seed}: {:?}",
            figures.examples
        );
        assert_eq!(figures.counts.sent, figures.counts.received);
        assert_eq!(figures.counts.rejected, 0);
        for what in [
            "created",
            "joined",
            "watched",
            "matched_quickly",
            "left",
            "found",
            "listed",
            "refused_as_due",
            "came_back_as_new",
        ] {
            assert!(
                figures
                    .details
                    .iter()
                    .any(|(name, count)| *name == what && *count > 3),
                "{what}: {figures:?}"
            );
        }
    }
}

/// `alter` changes each message that it can; the errors must be detected.
fn assert_is_detected(alter: impl Fn(&mut ServerMessage) -> bool) {
    let mut alterations = 0;
    let figures = run(3, 6_000, |mut message| {
        alterations += u64::from(alter(&mut message));
        Some(message)
    });
    assert!(alterations > 0, "no message could be altered");
    assert!(
        figures.counts.mismatches > 0,
        "{alterations} alterations were not detected: {figures:?}"
    );
}

#[test]
fn a_room_that_is_missing_in_a_list_is_detected() {
    assert_is_detected(|message| match message {
        ServerMessage::Rooms { rooms, .. } => rooms.pop().is_some(),
        _ => false,
    });
}

#[test]
fn a_wrong_count_in_a_list_is_detected() {
    assert_is_detected(|message| match message {
        ServerMessage::Rooms { rooms, .. } => rooms.iter_mut().any(|room| {
            room.spectators += 3;
            true
        }),
        _ => false,
    });
    assert_is_detected(|message| match message {
        ServerMessage::Rooms { rooms, .. } => {
            rooms.iter_mut().any(|room| std::mem::take(&mut room.taken) > 0)
        }
        _ => false,
    });
}

#[test]
fn a_room_that_is_listed_twice_or_under_another_name_is_detected() {
    assert_is_detected(|message| match message {
        ServerMessage::Rooms { rooms, .. } => rooms.first().cloned().is_some_and(|first| {
            rooms.push(first);
            true
        }),
        _ => false,
    });
    assert_is_detected(|message| match message {
        ServerMessage::Rooms { rooms, .. } => rooms.first_mut().is_some_and(|room| {
            room.name.push('!');
            true
        }),
        _ => false,
    });
}

#[test]
fn a_wrong_answer_that_a_room_does_not_exist_is_detected() {
    assert_is_detected(|message| match message {
        ServerMessage::Rejected { code, .. } if *code == RejectCode::RoomFull => {
            *code = RejectCode::RoomNotFound;
            true
        }
        _ => false,
    });
}

#[test]
fn a_taken_seat_that_is_shown_as_free_is_detected() {
    assert_is_detected(|message| match message {
        ServerMessage::Joined { snapshot, .. } => {
            let own = snapshot.seat.map(usize::from);
            let others = snapshot
                .seats
                .iter_mut()
                .enumerate()
                .filter(|(seat, _)| Some(*seat) != own);
            others.fold(false, |altered, (_, seat)| seat.take().is_some() || altered)
        }
        _ => false,
    });
}

#[test]
fn an_event_that_is_never_sent_is_detected_at_once_or_at_the_end() {
    let mut dropped = 0;
    let figures = run(3, 6_000, |message| match &message {
        ServerMessage::Event {
            event: RoomEvent::Left { .. },
            ..
        } => {
            dropped += 1;
            None
        }
        _ => Some(message),
    });
    assert!(dropped > 0 && figures.counts.mismatches > 0, "{figures:?}");
}

#[test]
fn an_answer_that_never_comes_is_lost() {
    let mut dropped = 0;
    let figures = run(3, 6_000, |message| match &message {
        ServerMessage::Left { .. } if dropped < 2 => {
            dropped += 1;
            None
        }
        _ => Some(message),
    });
    assert_eq!((dropped, figures.lost), (2, 2));
}

#[test]
fn an_answer_without_a_request_is_detected() {
    assert_is_detected(|message| match message {
        ServerMessage::Left { request } => {
            *request += 1;
            true
        }
        _ => false,
    });
}
