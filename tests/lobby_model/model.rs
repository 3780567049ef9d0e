//! The lobby as it is meant to be: ordinary collections, one process, no deaths.

use std::collections::{BTreeMap, BTreeSet};

use forkade::games::relay::Relayed;
use forkade::games::tictactoe::TicTacToe;
use forkade::games::{Game, Outbox};
use forkade_protocol::{ClientMessage, Outcome, Phase, RejectCode, RoomEvent, RoomId, SeatInfo, codec};

/// Who is here, and which rooms there are.
pub(crate) struct Model {
    /// By name in small letters.
    pub(crate) players: BTreeMap<String, Player>,
    pub(crate) rooms: BTreeMap<RoomId, Room>,
    pub(crate) players_max: usize,
    pub(crate) rooms_max: usize,
}

pub(crate) struct Player {
    pub(crate) connected: bool,
    pub(crate) place: Option<(RoomId, Option<u8>)>,
}

pub(crate) struct Room {
    pub(crate) game: &'static str,
    pub(crate) passcode: Option<String>,
    pub(crate) seats: Vec<Option<SeatInfo>>,
    pub(crate) spectators: BTreeSet<String>,
    pub(crate) phase: Phase,
    /// The match that is on or was.
    pub(crate) board: Option<TicTacToe>,
    /// Ticks of a clock, and after how many it ends.
    pub(crate) ticks: (u32, u32),
    /// All that has happened; the first has the number 1.
    pub(crate) events: Vec<RoomEvent>,
}

/// What a request leads to.
pub(crate) enum Effect {
    /// It is done.
    Done,
    /// A room is opened, whose id is not known yet.
    Opens(Box<Room>),
}

impl Model {
    pub(crate) fn new(players_max: usize, rooms_max: usize) -> Self {
        Self {
            players: BTreeMap::new(),
            rooms: BTreeMap::new(),
            players_max,
            rooms_max,
        }
    }

    /// What the server is to do about a request.
    pub(crate) fn request(&mut self, who: &str, message: &ClientMessage) -> Result<Effect, RejectCode> {
        match message {
            ClientMessage::CreateRoom { game, settings, .. } => self
                .create(
                    who,
                    game,
                    settings.passcode.clone(),
                    settings.seats,
                    &settings.options,
                )
                .map(|room| Effect::Opens(Box::new(room))),
            ClientMessage::QuickMatch { game, options, .. } => self.quick_match(who, game, options),
            ClientMessage::JoinRoom { room, passcode, .. } => {
                self.join(who, *room, passcode.as_deref(), false)
            }
            ClientMessage::Spectate { room, passcode, .. } => {
                self.join(who, *room, passcode.as_deref(), true)
            }
            ClientMessage::Leave { .. } => {
                self.place(who)?;
                self.vacate(who);
                Ok(Effect::Done)
            }
            ClientMessage::Ready { ready, .. } => self.ready(
                who,
                *ready,
                &[Phase::Waiting, Phase::Finished],
                RejectCode::AlreadyStarted,
            ),
            ClientMessage::Rematch { .. } => self.ready(who, true, &[Phase::Finished], RejectCode::NotOver),
            ClientMessage::Act { action, .. } => self.act(who, action),
            ClientMessage::Chat { text, .. } => {
                let (id, _) = self.place(who)?;
                let event = RoomEvent::Chat {
                    from: who.to_owned(),
                    text: text.clone(),
                };
                self.room(id).events.push(event);
                Ok(Effect::Done)
            }
            ClientMessage::ListRooms { .. } | ClientMessage::Ping { .. } | ClientMessage::Confirm { .. } => {
                Ok(Effect::Done)
            }
            other => unreachable!("not asked for: {other:?}"),
        }
    }

    /// The room that `who` has opened.
    pub(crate) fn opened(&mut self, who: &str, id: RoomId, room: Room) {
        assert!(
            self.rooms.insert(id, room).is_none(),
            "{id:?} was given out twice"
        );
        self.player(who).place = Some((id, Some(0)));
    }

    /// The player's connection is lost, or back.
    pub(crate) fn connected(&mut self, who: &str, connected: bool) {
        let player = self.player(who);
        player.connected = connected;
        if let Some((id, Some(seat))) = player.place {
            let room = self.room(id);
            let info = room.seats[usize::from(seat)].as_mut().expect("a taken seat");
            if info.connected != connected {
                info.connected = connected;
                room.events.push(RoomEvent::Connection { seat, connected });
            }
        }
    }

    /// The player leaves for good.
    pub(crate) fn remove(&mut self, who: &str) {
        self.vacate(who);
        self.players.remove(&who.to_lowercase());
    }

    /// A second has passed in all rooms.
    pub(crate) fn tick(&mut self) {
        for room in self
            .rooms
            .values_mut()
            .filter(|room| room.game == "clock" && room.phase == Phase::Playing)
        {
            room.ticks.0 += 1;
            let data = codec::encode(&room.ticks.0).expect("a number");
            room.events.push(RoomEvent::Game { data });
            if room.ticks.0 == room.ticks.1 {
                room.finish(Outcome::Draw);
            }
        }
    }

    pub(crate) fn player(&mut self, who: &str) -> &mut Player {
        self.players
            .get_mut(&who.to_lowercase())
            .expect("a player who is here")
    }

    fn room(&mut self, id: RoomId) -> &mut Room {
        self.rooms.get_mut(&id).expect("a room that is open")
    }

    fn place(&mut self, who: &str) -> Result<(RoomId, Option<u8>), RejectCode> {
        self.player(who).place.ok_or(RejectCode::NotInRoom)
    }

    fn seat(&mut self, who: &str) -> Result<(RoomId, u8), RejectCode> {
        let (id, seat) = self.place(who)?;
        Ok((id, seat.ok_or(RejectCode::Spectating)?))
    }

    fn create(
        &mut self,
        who: &str,
        game: &str,
        passcode: Option<String>,
        seats: u8,
        options: &[u8],
    ) -> Result<Room, RejectCode> {
        if self.player(who).place.is_some() {
            return Err(RejectCode::AlreadyInRoom);
        }
        let (game, allowed, starts) = match game {
            "relay" => ("relay", 1..=32, true),
            "tictactoe" => ("tictactoe", 2..=2, false),
            "clock" => ("clock", 1..=2, true),
            _ => return Err(RejectCode::UnknownGame),
        };
        let seats = if seats == 0 { *allowed.end() } else { seats };
        if !allowed.contains(&seats) {
            return Err(RejectCode::SeatsOutOfRange);
        }
        if self.rooms.len() == self.rooms_max {
            return Err(RejectCode::RoomsFull);
        }
        let last = if game == "clock" && !options.is_empty() {
            codec::decode(options).expect("a number")
        } else {
            0
        };
        let mut room = Room {
            game,
            passcode,
            seats: vec![None; usize::from(seats)],
            spectators: BTreeSet::new(),
            phase: if starts { Phase::Playing } else { Phase::Waiting },
            board: None,
            ticks: (0, last),
            events: Vec::new(),
        };
        room.seats[0] = Some(SeatInfo {
            name: who.to_owned(),
            connected: true,
            ready: false,
        });
        Ok(room)
    }

    fn quick_match(&mut self, who: &str, game: &str, options: &[u8]) -> Result<Effect, RejectCode> {
        if self.player(who).place.is_some() {
            return Err(RejectCode::AlreadyInRoom);
        }
        let joinable = |room: &Room| {
            let free = room.seats.iter().any(Option::is_none);
            let open = room.phase != Phase::Playing || room.game != "tictactoe";
            room.game == game && free && open && room.passcode.is_none()
        };
        // The server looks in the order of its records.
        let found = self
            .rooms
            .iter()
            .filter(|(_, room)| joinable(room))
            .map(|(id, _)| *id)
            .min_by_key(|id| id.0 & 0xFFFF_FFFF);
        match found {
            Some(id) => self.join(who, id, None, false),
            None => self
                .create(who, game, None, 0, options)
                .map(|room| Effect::Opens(Box::new(room))),
        }
    }

    fn join(
        &mut self,
        who: &str,
        id: RoomId,
        passcode: Option<&str>,
        watch: bool,
    ) -> Result<Effect, RejectCode> {
        if self.player(who).place.is_some() {
            return Err(RejectCode::AlreadyInRoom);
        }
        let room = self.rooms.get_mut(&id).ok_or(RejectCode::RoomNotFound)?;
        if room.passcode.is_some() && room.passcode.as_deref() != passcode {
            return Err(RejectCode::WrongPasscode);
        }
        let seat = if watch {
            room.spectators.insert(who.to_lowercase());
            None
        } else {
            if room.phase == Phase::Playing && room.game == "tictactoe" {
                return Err(RejectCode::AlreadyStarted);
            }
            let free = room
                .seats
                .iter()
                .position(Option::is_none)
                .ok_or(RejectCode::RoomFull)?;
            room.seats[free] = Some(SeatInfo {
                name: who.to_owned(),
                connected: true,
                ready: false,
            });
            let seat = u8::try_from(free).expect("few seats");
            room.events.push(RoomEvent::Joined {
                seat,
                name: who.to_owned(),
            });
            Some(seat)
        };
        self.player(who).place = Some((id, seat));
        Ok(Effect::Done)
    }

    fn vacate(&mut self, who: &str) {
        let Some((id, seat)) = self.player(who).place.take() else {
            return;
        };
        let room = self.room(id);
        match seat {
            None => {
                room.spectators.remove(&who.to_lowercase());
            }
            Some(seat) => {
                room.seats[usize::from(seat)] = None;
                room.events.push(RoomEvent::Left { seat });
                if room.phase == Phase::Playing && room.game == "tictactoe" {
                    room.finish(Outcome::Won {
                        seats: vec![1 - seat],
                    });
                }
            }
        }
        if room.seats.iter().all(Option::is_none) && room.spectators.is_empty() {
            self.rooms.remove(&id);
        }
    }

    fn ready(
        &mut self,
        who: &str,
        ready: bool,
        allowed: &[Phase],
        refusal: RejectCode,
    ) -> Result<Effect, RejectCode> {
        let (id, seat) = self.seat(who)?;
        let room = self.room(id);
        if !allowed.contains(&room.phase) {
            return Err(refusal);
        }
        room.seats[usize::from(seat)]
            .as_mut()
            .expect("a taken seat")
            .ready = ready;
        room.events.push(RoomEvent::Ready { seat, ready });
        if room
            .seats
            .iter()
            .all(|seat| seat.as_ref().is_some_and(|info| info.ready))
        {
            room.phase = Phase::Playing;
            room.clear_ready();
            room.events.push(RoomEvent::Started);
            room.ticks.0 = 0;
            if room.game == "tictactoe" {
                room.board = Some(TicTacToe::new((), 2, 0).expect("two can play"));
            }
        }
        Ok(Effect::Done)
    }

    fn act(&mut self, who: &str, action: &[u8]) -> Result<Effect, RejectCode> {
        let (id, seat) = self.seat(who)?;
        let room = self.room(id);
        if room.phase != Phase::Playing {
            return Err(RejectCode::NotPlaying);
        }
        match room.game {
            "relay" => {
                let relayed = Relayed {
                    seat,
                    payload: action.to_vec(),
                };
                let data = codec::encode(&relayed).expect("bytes");
                room.events.push(RoomEvent::Game { data });
            }
            "clock" => match codec::decode(action) {
                Ok(false) => {}
                Ok(true) => return Err(RejectCode::GameFailed),
                Err(_) => return Err(RejectCode::BadAction),
            },
            _ => {
                let cell = TicTacToe::decode_action(action).map_err(|rejection| rejection.code())?;
                let board = room.board.as_mut().expect("a match that is on");
                let mut events = Outbox::new();
                board
                    .act(seat, cell, &mut events)
                    .map_err(|rejection| rejection.code())?;
                let outcome = board.outcome();
                for (_, placed) in events.events() {
                    let data = codec::encode(&placed).expect("two numbers");
                    room.events.push(RoomEvent::Game { data });
                }
                if let Some(outcome) = outcome {
                    room.finish(outcome);
                }
            }
        }
        Ok(Effect::Done)
    }
}

impl Room {
    fn finish(&mut self, outcome: Outcome) {
        self.phase = Phase::Finished;
        self.clear_ready();
        self.events.push(RoomEvent::Finished { outcome });
    }

    fn clear_ready(&mut self) {
        self.seats
            .iter_mut()
            .flatten()
            .for_each(|info| info.ready = false);
    }
}
