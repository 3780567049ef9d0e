//! One run: random operations from the seed.

mod sessions;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use forkade_protocol::{
    ChatScope, ClientMessage, RoomFilter, RoomId, RoomSettings, RoomSummary, ServerMessage, Token, codec,
};

use crate::harness::{Actor, World};
use crate::model::{Effect, Model};
use crate::random::Random;
use crate::view::View;
use forkade::testing::frontends::dispatch::FrameOutcome;
use forkade::testing::lobby::chat;
use forkade::testing::lobby::match_play::{self, RoomTimers};
use forkade::testing::maintenance::check::check_all;
use forkade::testing::maintenance::expiry;
use forkade::testing::state::connections::{Claim, Phase};
use forkade::testing::state::handle::StateHandle;
use forkade::testing::state::layout::Capacity;

/// One seed in this many has hundreds of players.
const CROWDED_EVERY: u64 = 4;
/// Long enough that no grace expires except in the final sweep.
const SEAT_GRACE_MS: u64 = 60_000;

/// A client with a session.
struct TextClient {
    /// As given in the handshake.
    name: String,
    token: Token,
    /// Index of the player's record.
    record: u64,
    /// Bytes of the server's stream that the client has processed.
    received: u64,
    view: Option<View>,
    /// Bytes of the stream were lost: events tell of a state that the client does not know.
    awaits_resync: bool,
    /// Slot of the connection, while there is one.
    slot: Option<u32>,
}

/// The sizes of a run, which depend on its seed.
struct Size {
    players: u32,
    /// As many rooms as fit into a page of the list.
    rooms: u32,
    /// More than the maximum of players: some are refused, and some connections wait for a session.
    names: Vec<String>,
    /// Only one in this many operations that remove players happens, or else there would never be many.
    calm: usize,
    /// Operations between two checks of derived data. With hundreds of players a check takes much longer than
    /// an operation.
    check_every: usize,
}

impl Size {
    fn of(seed: u64) -> Self {
        const NAMES: [&str; 8] = ["Ann", "bob", "Cyd", "dan", "eve", "fay", "Gus", "hal"];
        if seed.is_multiple_of(CROWDED_EVERY) {
            Self {
                players: 250,
                rooms: 40,
                names: (0..1000).map(|number| format!("Player {number}")).collect(),
                calm: 4,
                check_every: 20,
            }
        } else {
            Self {
                players: 6,
                rooms: 3,
                names: NAMES.map(str::to_owned).to_vec(),
                calm: 1,
                check_every: 1,
            }
        }
    }

    /// Maximum of simultaneous connections.
    fn slots(&self) -> u32 {
        self.players + 4
    }
}

pub(crate) struct Run {
    seed: u64,
    size: Size,
    random: Random,
    world: World,
    /// Of the ticker and the operator.
    lobby: StateHandle,
    model: Model,
    /// By name in lower case.
    people: BTreeMap<String, TextClient>,
    actors: BTreeMap<u32, Actor>,
    request: u32,
    /// All invite codes that were ever returned, valid or not.
    codes: Vec<String>,
    /// The ticker's clock.
    now_us: u64,
    done: Vec<String>,
}

impl Run {
    pub(crate) fn new(seed: u64) -> Self {
        let size = Size::of(seed);
        let world = World::new(Capacity {
            players: size.players,
            rooms: size.rooms,
            keepers: 1,
        });
        world
            .memory
            .header
            .seat_grace_ms
            .store(SEAT_GRACE_MS, Ordering::Relaxed);
        Self {
            seed,
            random: Random::new(seed),
            world,
            lobby: world.lobby(),
            model: Model::new(size.players as usize, size.rooms as usize),
            size,
            people: BTreeMap::new(),
            actors: BTreeMap::new(),
            request: 0,
            codes: Vec::new(),
            now_us: 0,
            done: Vec::new(),
        }
    }

    pub(crate) fn go(mut self, operations: usize) {
        let (mut players_most, mut rooms_most) = (0, 0);
        for operation in 0..operations {
            self.do_something();
            self.some_listen();
            players_most = players_most.max(self.model.players.len());
            rooms_most = rooms_most.max(self.model.rooms.len());
            if operation % self.size.check_every == 0 {
                self.check();
            }
        }
        println!(
            "seed {}: {operations} operations, at most {players_most} players in {rooms_most} rooms",
            self.seed
        );
        while let Some(who) = self.people.keys().next().cloned() {
            self.lose_connection(&who);
            self.grace_is_over();
            self.check();
        }
        let directory = self.world.memory.directory.record;
        assert_eq!(directory.players_published.load(Ordering::Relaxed), 0);
        assert_eq!(
            directory.rooms_published.load(Ordering::Relaxed),
            0,
            "rooms are left behind"
        );
    }

    fn do_something(&mut self) {
        let attached: Vec<String> = self
            .people
            .iter()
            .filter(|(_, person)| person.slot.is_some())
            .map(|(who, _)| who.clone())
            .collect();
        let all: Vec<String> = self.people.keys().cloned().collect();
        let somebody = |random: &mut Random, from: &[String]| {
            (!from.is_empty()).then(|| from[random.below(from.len())].clone())
        };
        let (here, anybody) = (
            somebody(&mut self.random, &attached),
            somebody(&mut self.random, &all),
        );
        let goes = self.random.one_in(self.size.calm);
        match (self.random.below(100), here, anybody) {
            (0..=7, ..) => self.hello(),
            (8..=71, Some(who), _) => self.asks(&who),
            (72..=79 | 93, Some(who), _) if !goes => self.asks(&who),
            (72, Some(who), _) => self.says_goodbye(&who),
            (73..=77, Some(who), _) => self.lose_connection(&who),
            (78..=79, Some(who), _) => self.lose_processes(&who),
            (80..=84, Some(who), _) => self.replace_handler(&who),
            (85..=92, _, Some(who)) => self.resume(&who),
            (93, _, Some(who)) => self.kick(&who),
            (94, ..) if goes && self.random.one_in(self.size.calm) => self.grace_is_over(),
            (95..=97, ..) => self.tick(),
            (98, Some(who), Some(other)) if self.random.one_in(3) => self.chatters(&who, &other),
            (98, ..) => self.show_bad_token(),
            (99, ..) if self.random.one_in(3) => self.announces(),
            (99, ..) => expiry::free_closed_rooms(self.lobby()),
            _ => self.hello(),
        }
    }

    fn note(&mut self, what: String) {
        // Enough to recognise it: long actions differ only in length.
        self.done.push(what.chars().take(120).collect());
    }

    /// The name of an existing player or of none.
    fn some_name(&mut self) -> String {
        self.size.names[self.random.below(self.size.names.len())].clone()
    }

    fn lobby(&mut self) -> &mut StateHandle {
        &mut self.lobby
    }

    fn free_slot(&self) -> u32 {
        let is_free = |slot: &u32| self.world.memory.connections.at(*slot).claimed() == Claim::Free;
        (0..self.size.slots())
            .find(is_free)
            .expect("more slots than connections")
    }

    fn connect(&mut self) -> Actor {
        Actor::connect(self.world, self.free_slot())
    }

    fn asks(&mut self, who: &str) {
        self.request += 1;
        let message = self.some_request(who, self.request);
        self.asks_for(who, &message);
    }

    fn asks_for(&mut self, who: &str, message: &ClientMessage) {
        let (request, name) = (self.request, self.people[who].name.clone());
        self.note(format!("{name} asks {message:?}"));
        let expected = self.model.request(&name, message);
        let slot = self.people[who].slot.expect("attached");
        self.actors
            .get_mut(&slot)
            .expect("an actor")
            .send_message(message);
        if self.random.one_in(10) {
            self.replace_handler(who);
        }
        let next = self.actors.get_mut(&slot).expect("an actor").handle();
        assert_eq!(next, FrameOutcome::Handled);
        let answers: Vec<ServerMessage> = self
            .listen(who)
            .into_iter()
            .filter(|answer| answer.request() == Some(request))
            .collect();
        match (expected, &answers[..]) {
            (Err(expected), [ServerMessage::Rejected { code, .. }]) if *code == expected => {}
            (Ok(Effect::Opens(room)), [ServerMessage::Joined { snapshot, .. }]) => {
                self.model.opened(&name, snapshot.room, *room);
            }
            (
                Ok(Effect::Done),
                [
                    ServerMessage::Rooms {
                        rooms, next: None, ..
                    },
                ],
            ) => self.compare_list(rooms),
            (Ok(Effect::Done), [ServerMessage::Invitation { code, .. }]) => {
                let (id, _) = self.model.player(who).place.expect("an owner is in a room");
                let renewed = matches!(message, ClientMessage::Invite { renew: true, .. });
                let room = self.model.rooms.get_mut(&id).expect("a room that is open");
                let former = room.code.replace(code.clone());
                assert!(former.is_none() || (former.as_ref() != Some(code)) == renewed);
                self.codes.push(code.clone());
            }
            (Ok(Effect::Done), [ServerMessage::Joined { .. } | ServerMessage::Left { .. }] | []) => {}
            (expected, answers) => {
                panic!(
                    "{answers:?} instead of {:?}",
                    expected.map(|effect| matches!(effect, Effect::Opens(_)))
                )
            }
        }
    }

    fn some_request(&mut self, who: &str, request: u32) -> ClientMessage {
        let passcode = self.random.one_in(5).then(|| "sesame".to_owned());
        let game = self
            .random
            .pick(&["relay", "tictactoe", "tictactoe", "clock", "chess"])
            .expect("games");
        let options_of_clock = codec::encode(&3_u32).expect("a number");
        let options = if game == "clock" {
            options_of_clock.clone()
        } else {
            Vec::new()
        };
        let game = game.to_owned();
        let rooms: Vec<RoomId> = self.model.rooms.keys().copied().collect();
        let room = self.random.pick(&rooms).unwrap_or(RoomId(7 << 32 | 1));
        if self.random.one_in(6) {
            return self.some_line(request);
        }
        match self.random.below(37) {
            0..=1 => ClientMessage::CreateRoom {
                request,
                settings: self.some_settings(passcode, options),
                game,
                name: "Here".into(),
            },
            24..=25 => {
                let game = self.game_of(who);
                let options = if game == Some("clock") {
                    options_of_clock
                } else {
                    Vec::new()
                };
                ClientMessage::Configure {
                    request,
                    settings: self.some_settings(passcode, options),
                }
            }
            26..=27 => {
                let (seat, name) = self.random_seat(who);
                ClientMessage::Kick { request, seat, name }
            }
            28 => {
                let (seat, name) = self.random_seat(who);
                ClientMessage::HandOver { request, seat, name }
            }
            30..=32 => {
                let people: Vec<&TextClient> = self.people.values().collect();
                let invited = self.random.pick(&people);
                let player = invited.map_or("Nobody", |person| &person.name).to_owned();
                ClientMessage::Reserve { request, player }
            }
            33 => ClientMessage::Invite {
                request,
                renew: self.random.one_in(3),
            },
            34..=35 => {
                let codes: Vec<&String> = self.codes.iter().collect();
                let code = self.random.pick(&codes).cloned();
                ClientMessage::JoinByInvite {
                    request,
                    code: code.unwrap_or_else(|| "0000-0000-0000".into()),
                    watch: self.random.one_in(4),
                }
            }
            2..=3 => ClientMessage::QuickMatch {
                request,
                game,
                options,
            },
            4..=6 => ClientMessage::JoinRoom {
                request,
                room,
                passcode,
            },
            7 => ClientMessage::Spectate {
                request,
                room,
                passcode,
            },
            8 => ClientMessage::Leave { request },
            9..=11 => ClientMessage::Ready {
                request,
                ready: !self.random.one_in(5),
            },
            12..=17 => ClientMessage::Act {
                request,
                action: self.some_action(who),
            },
            18 => ClientMessage::Rematch { request },
            19..=20 => {
                let text = "x".repeat(1 + self.random.below(500));
                ClientMessage::Chat {
                    request,
                    scope: ChatScope::Room,
                    text,
                }
            }
            21 => ClientMessage::ListRooms {
                request,
                filter: RoomFilter::default(),
                after: None,
            },
            // Some clients never confirm.
            22 if self.people[who].record.is_multiple_of(2) => ClientMessage::Confirm {
                received: self.people[who].received,
            },
            _ => ClientMessage::Ping { nonce: 5 },
        }
    }

    /// Chat for the lobby or for a player that may exist.
    fn some_line(&mut self, request: u32) -> ClientMessage {
        let scope = match self.random.below(5) {
            0..=1 => ChatScope::Lobby,
            _ => {
                let to = self.some_name();
                ChatScope::Whisper { to }
            }
        };
        // All texts are different.
        let text = format!("{request} {}", "x".repeat(self.random.below(490)));
        ClientMessage::Chat {
            request,
            scope,
            text: text.trim_end().to_owned(),
        }
    }

    /// Sends one player more than the mailbox of an absent player holds.
    fn chatters(&mut self, who: &str, to: &str) {
        for _ in 0..1 + self.random.below(40) {
            self.request += 1;
            let message = ClientMessage::Chat {
                request: self.request,
                scope: ChatScope::Whisper { to: to.to_owned() },
                text: format!("{} {}", self.request, "?".repeat(480)),
            };
            self.asks_for(who, &message);
        }
    }

    /// The operator announces so much that slow readers fall out of the log's window.
    fn announces(&mut self) {
        let lines = 1 + self.random.below(400);
        self.note(format!("{lines} lines are announced"));
        for line in 0..lines {
            let text = format!("{} {line} {}", self.done.len(), "!".repeat(480));
            chat::announce(self.lobby(), &text).expect("it can be said");
            self.model.talk.say("", &text);
        }
    }

    fn some_settings(&mut self, passcode: Option<String>, options: Vec<u8>) -> RoomSettings {
        RoomSettings {
            passcode,
            seats: u8::try_from(self.random.below(4)).expect("few"),
            options,
            unlisted: self.random.one_in(6),
            no_spectators: self.random.one_in(6),
            turn_seconds: [0, 0, 0, 60][self.random.below(4)],
        }
    }

    /// A seat in the room of `who`, and the player that has it; now and then another player's name.
    fn random_seat(&mut self, who: &str) -> (u8, String) {
        let seat = [0, 0, 1, 1, 1, 2, 3, 31, 32, 255][self.random.below(10)];
        let place = self.model.player(who).place;
        let seated = place.and_then(|(room, _)| {
            let info = self.model.rooms[&room].seats.get(usize::from(seat))?;
            Some(info.as_ref()?.name.clone())
        });
        match seated {
            Some(name) if self.random.below(5) > 0 => (seat, name),
            _ => (seat, "Somebody".to_owned()),
        }
    }

    fn game_of(&mut self, who: &str) -> Option<&'static str> {
        let place = self.model.player(who).place;
        place.map(|(room, _)| self.model.rooms[&room].game)
    }

    fn some_action(&mut self, who: &str) -> Vec<u8> {
        match self.game_of(who) {
            // Enough that slow readers fall out of the log's window, and unconfirmed output out of the ring.
            Some("relay") => vec![7; self.random.below(7000)],
            Some("clock") => vec![u8::from(self.random.one_in(4))],
            _ => vec![u8::try_from(self.random.below(10)).expect("few")],
        }
    }

    fn compare_list(&self, rooms: &[RoomSummary]) {
        let listed = self.model.rooms.values().filter(|room| !room.rules.unlisted);
        assert_eq!(rooms.len(), listed.count());
        for summary in rooms {
            let room = &self.model.rooms[&summary.room];
            assert_eq!(summary.game, room.game);
            assert_eq!(summary.phase, room.phase);
            assert_eq!(usize::from(summary.seats), room.seats.len());
            assert_eq!(usize::from(summary.taken), room.seats.iter().flatten().count());
            assert_eq!(summary.spectators as usize, room.spectators.len());
            assert_eq!(summary.passcode, room.rules.passcode);
            assert!(!room.rules.unlisted);
        }
    }

    fn grace_is_over(&mut self) {
        self.note("the grace is over".into());
        expiry::expire_players(self.lobby(), u64::MAX);
        let gone = self.people.iter().filter(|(_, person)| person.slot.is_none());
        let mut gone: Vec<(u64, String)> = gone.map(|(who, person)| (person.record, who.clone())).collect();
        // The ticker processes the records.
        gone.sort();
        for (_, who) in gone {
            self.forget(&who);
        }
    }

    fn tick(&mut self) {
        self.note("the clocks tick".into());
        // Far beyond every deadline, repeatedly.
        self.now_us += 1 << 50;
        let now_us = self.now_us;
        for index in 0..self.size.rooms {
            if self.world.memory.rooms.at(index).is_due(now_us) {
                let run = match_play::run_room_timers(self.lobby(), index, now_us);
                assert_eq!(run.expect("clocks do not fail"), RoomTimers::Done);
            }
        }
        self.model.tick();
    }

    /// The player has left for good.
    fn forget(&mut self, who: &str) {
        self.people.remove(who);
        self.model.remove(who);
        self.model.talk.remove(who);
    }

    /// Removes and returns the actor of a player whose connection is about to end.
    fn take_actor(&mut self, who: &str) -> Actor {
        let slot = self
            .people
            .get_mut(who)
            .expect("a person")
            .slot
            .take()
            .expect("attached");
        self.actors.remove(&slot).expect("an actor")
    }

    fn some_listen(&mut self) {
        for who in self.people.keys().cloned().collect::<Vec<_>>() {
            if self.people[&who].slot.is_some() && self.random.one_in(6) {
                self.listen(&who);
            }
        }
    }

    /// The client receives everything, and then knows the whole state.
    fn listen(&mut self, who: &str) -> Vec<ServerMessage> {
        let person = self.people.get_mut(who).expect("a person");
        let actor = self
            .actors
            .get_mut(&person.slot.expect("attached"))
            .expect("an actor");
        assert_eq!(actor.session.phase(), Phase::OPEN);
        let mut messages = Vec::new();
        loop {
            for message in actor.receive_messages() {
                person.awaits_resync &= !matches!(message, ServerMessage::Resync { .. });
                if !person.awaits_resync {
                    View::hear(&mut person.view, &message, |id| self.model.rooms.get(&id));
                }
                self.model.talk.hear(who, &message);
                messages.push(message);
            }
            if !actor.session.waits_for_confirm() {
                break;
            }
            actor.request(&ClientMessage::Confirm {
                received: actor.received,
            });
        }
        self.model.talk.expect_all_received(who);
        person.received = actor.received;
        let player = self.model.player(who);
        player.lost = None;
        if let (Some(view), Some((id, seat))) = (&person.view, player.place) {
            assert_eq!((view.room, view.seat), (id, seat));
            view.compare(&self.model.rooms[&id]);
        }
        messages
    }

    fn check(&mut self) {
        let faults = check_all(self.lobby());
        assert!(faults.is_empty(), "{faults:#?}");
        let directory = self.world.memory.directory.record;
        assert_eq!(
            directory.players_published.load(Ordering::Relaxed),
            self.model.players.len() as u64
        );
        assert_eq!(
            directory.rooms_published.load(Ordering::Relaxed),
            self.model.rooms.len() as u64
        );
        for (who, person) in &self.people {
            let Some(slot) = person.slot else { continue };
            let place = self.actors[&slot]
                .session
                .membership()
                .place()
                .map(|(room, seat)| (RoomId(room.to_id()), seat));
            let player = &self.model.players[who];
            if player.lost.is_some() {
                // A seat that the player was removed from, told or not.
                assert!(place == player.place || place == player.lost, "where {who} is");
            } else {
                assert_eq!(place, player.place, "where {who} is");
                assert!(
                    place.is_some() || person.view.is_none(),
                    "{who} was not notified of the removal"
                );
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = self.done.len().saturating_sub(12);
            eprintln!(
                "the run with FORKADE_TEST_SEED={} has failed in operation {}, after",
                self.seed,
                self.done.len()
            );
            self.done[last..].iter().for_each(|what| eprintln!("  {what}"));
        }
    }
}
