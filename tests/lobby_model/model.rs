//! The specification of the lobby: ordinary collections, one process, no deaths.

mod room;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forkade::games::relay::Relayed;
use forkade::games::tictactoe::TicTacToe;
use forkade::games::{Game, Outbox};
use forkade::limits::{BANS_PER_ROOM_MAX, INVITED_BYTES_MAX};
use forkade_protocol::text::is_same_name;
use forkade_protocol::{
    ChatScope, ClientMessage, Outcome, Phase, RejectCode, RoomEvent, RoomId, RoomRules, RoomSettings,
    SeatInfo, ServerMessage, codec,
};

pub(crate) use self::room::Room;
use self::room::{last_tick, rules};
use crate::chat_model::ChatModel;

/// The players and the rooms.
pub(crate) struct Model {
    /// By name in lower case.
    pub(crate) players: BTreeMap<String, Player>,
    pub(crate) rooms: BTreeMap<RoomId, Room>,
    pub(crate) talk: ChatModel,
    players_max: usize,
    rooms_max: usize,
    /// Number of players so far.
    players_total: u64,
}

pub(crate) struct Player {
    /// Never given to another player.
    id: u64,
    connected: bool,
    pub(crate) place: Option<(RoomId, Option<u8>)>,
    /// The seat that the player was removed from without having been told yet.
    pub(crate) lost: Option<(RoomId, Option<u8>)>,
}

/// The result of a request.
pub(crate) enum Effect {
    /// It is done.
    Done,
    /// A room is created, whose id is not known yet.
    Opens(Box<Room>),
}

impl Model {
    pub(crate) fn new(players_max: usize, rooms_max: usize) -> Self {
        Self {
            players: BTreeMap::new(),
            rooms: BTreeMap::new(),
            talk: ChatModel::default(),
            players_max,
            rooms_max,
            players_total: 0,
        }
    }

    /// Whether no further player can join.
    pub(crate) fn is_full(&self) -> bool {
        self.players.len() == self.players_max
    }

    /// A new player.
    pub(crate) fn add(&mut self, who: String) {
        self.players_total += 1;
        let player = Player {
            id: self.players_total,
            connected: true,
            place: None,
            lost: None,
        };
        assert!(self.players.insert(who, player).is_none());
    }

    /// What the server must do with a request.
    pub(crate) fn request(&mut self, who: &str, message: &ClientMessage) -> Result<Effect, RejectCode> {
        match message {
            ClientMessage::CreateRoom { game, settings, .. } => self
                .create(who, game, settings)
                .map(|room| Effect::Opens(Box::new(room))),
            ClientMessage::QuickMatch { game, options, .. } => self.quick_match(who, game, options),
            ClientMessage::JoinRoom { room, passcode, .. } => {
                self.join(who, *room, passcode.as_deref(), false)
            }
            ClientMessage::Spectate { room, passcode, .. } => {
                self.join(who, *room, passcode.as_deref(), true)
            }
            ClientMessage::Configure { settings, .. } => self.configure(who, settings),
            ClientMessage::Kick { seat, name, .. } => {
                let (id, seat) = self.other_seat(who, *seat, name)?;
                self.kick(id, seat);
                Ok(Effect::Done)
            }
            ClientMessage::Reserve { player, .. } => self.reserve(who, player),
            ClientMessage::Invite { .. } => {
                self.own(who)?;
                Ok(Effect::Done)
            }
            ClientMessage::JoinByInvite { code, watch, .. } => {
                if self.player(who).place.is_some() {
                    return Err(RejectCode::AlreadyInRoom);
                }
                let found = self
                    .rooms
                    .iter()
                    .find(|(_, room)| room.code.as_ref() == Some(code));
                let id = *found.ok_or(RejectCode::InviteUnknown)?.0;
                self.come_in(who, id, *watch, |_, _| Ok(()))
            }
            ClientMessage::HandOver { seat, name, .. } => {
                let (id, seat) = self.other_seat(who, *seat, name)?;
                self.room(id).set_owner(seat);
                Ok(Effect::Done)
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
            ClientMessage::Chat {
                scope: ChatScope::Lobby,
                text,
                ..
            } => {
                self.talk.say(who, text);
                Ok(Effect::Done)
            }
            ClientMessage::Chat {
                scope: ChatScope::Whisper { to },
                text,
                ..
            } => self.talk.whisper(who, to, text).map(|()| Effect::Done),
            ClientMessage::Chat {
                scope: ChatScope::Room,
                text,
                ..
            } => {
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

    /// The room that `who` has created.
    pub(crate) fn opened(&mut self, who: &str, id: RoomId, room: Room) {
        assert!(
            self.rooms.insert(id, room).is_none(),
            "{id:?} was given out twice"
        );
        self.player(who).place = Some((id, Some(0)));
    }

    /// The player's connection is lost or resumed.
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

    /// All timers have expired.
    pub(crate) fn tick(&mut self) {
        for room in self.rooms.values_mut() {
            for (seat, _) in std::mem::take(&mut room.kept) {
                room.events.push(RoomEvent::ReservationOver { seat });
            }
            if let Some(seat) = room.turn {
                room.events.push(RoomEvent::TurnTimedOut { seat });
                room.finish(Outcome::Won {
                    seats: vec![1 - seat],
                });
            }
        }
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
            .expect("an existing player")
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

    /// The room that the player owns.
    fn own(&mut self, who: &str) -> Result<(RoomId, u8), RejectCode> {
        let (id, seat) = self.place(who)?;
        match seat {
            Some(seat) if self.room(id).owner == Some(seat) => Ok((id, seat)),
            _ => Err(RejectCode::NotOwner),
        }
    }

    /// Another player's seat in the player's own room.
    fn other_seat(&mut self, who: &str, seat: u8, name: &str) -> Result<(RoomId, u8), RejectCode> {
        let (id, own) = self.own(who)?;
        match self.room(id).seats.get(usize::from(seat)) {
            Some(Some(info)) if seat != own && info.name == name => Ok((id, seat)),
            Some(Some(_)) if seat != own => Err(RejectCode::SeatChanged),
            _ => Err(RejectCode::NoSuchSeat),
        }
    }

    fn create(&mut self, who: &str, game: &str, settings: &RoomSettings) -> Result<Room, RejectCode> {
        if self.player(who).place.is_some() {
            return Err(RejectCode::AlreadyInRoom);
        }
        let (game, starts) = match game {
            "relay" => ("relay", true),
            "tictactoe" => ("tictactoe", false),
            "clock" => ("clock", true),
            _ => return Err(RejectCode::UnknownGame),
        };
        let rules = rules(game, settings)?;
        if self.rooms.len() == self.rooms_max {
            return Err(RejectCode::RoomsFull);
        }
        let mut room = Room {
            name: "Here".to_owned(),
            game,
            passcode: settings.passcode.clone(),
            seats: vec![None; usize::from(rules.seats)],
            ticks: (0, last_tick(&rules)),
            rules,
            owner: Some(0),
            bans: VecDeque::new(),
            kept: BTreeMap::new(),
            turn: None,
            code: None,
            spectators: BTreeSet::new(),
            phase: if starts { Phase::Playing } else { Phase::Waiting },
            board: None,
            events: Vec::new(),
        };
        room.seats[0] = Some(SeatInfo {
            name: who.to_owned(),
            connected: true,
            ready: false,
        });
        Ok(room)
    }

    fn configure(&mut self, who: &str, settings: &RoomSettings) -> Result<Effect, RejectCode> {
        let (id, _) = self.own(who)?;
        let room = self.room(id);
        let rules = rules(room.game, settings)?;
        let of_the_match = |rules: &RoomRules| (rules.seats, rules.options.clone(), rules.turn_seconds);
        if room.phase == Phase::Playing && of_the_match(&rules) != of_the_match(&room.rules) {
            return Err(RejectCode::AlreadyStarted);
        }
        if room
            .seats
            .iter()
            .skip(usize::from(rules.seats))
            .any(Option::is_some)
        {
            return Err(RejectCode::BadSettings);
        }
        room.seats.resize(usize::from(rules.seats), None);
        for (seat, _) in room.kept.split_off(&rules.seats) {
            room.events.push(RoomEvent::ReservationOver { seat });
        }
        room.clear_ready();
        room.passcode.clone_from(&settings.passcode);
        room.ticks.1 = last_tick(&rules);
        room.rules = rules.clone();
        room.events.push(RoomEvent::Configured { rules });
        Ok(Effect::Done)
    }

    fn reserve(&mut self, who: &str, name: &str) -> Result<Effect, RejectCode> {
        let (id, _) = self.own(who)?;
        let (invited, place) = match self.players.get(&name.to_lowercase()) {
            Some(player) => (player.id, player.place),
            None => return Err(RejectCode::UnknownPlayer),
        };
        self.talk.expect_space(name, INVITED_BYTES_MAX)?;
        if matches!(place, Some((room, Some(_))) if room == id) {
            return Err(RejectCode::AlreadyInRoom);
        }
        // As given in the handshake.
        let room = self.room(id);
        let seat = match room.reserved_for(invited) {
            Some(seat) => seat,
            None if room.phase == Phase::Playing && room.game == "tictactoe" => {
                return Err(RejectCode::AlreadyStarted);
            }
            None => room.free_seat().ok_or(RejectCode::RoomFull)?,
        };
        for ban in &mut room.bans {
            ban.take_if(|(id, banned)| *id == invited || is_same_name(banned, name));
        }
        room.kept.insert(seat, (invited, name.to_owned()));
        room.events.push(RoomEvent::Reserved {
            seat,
            name: name.to_owned(),
        });
        let invited = ServerMessage::Invited {
            room: id,
            game: room.game.to_owned(),
            name: room.name.clone(),
            from: who.to_owned(),
            // All codes have the same length.
            code: "0000-0000-0000".to_owned(),
            seconds: 0,
        };
        self.talk.post(name, &invited)?;
        Ok(Effect::Done)
    }

    fn kick(&mut self, id: RoomId, seat: u8) {
        let (name, found) = self
            .players
            .iter_mut()
            .find(|(_, player)| player.place == Some((id, Some(seat))))
            .expect("the seat is taken");
        found.lost = found.place.take();
        let banned = Some((found.id, name.clone()));
        let room = self.room(id);
        room.bans.push_back(banned);
        if room.bans.len() > BANS_PER_ROOM_MAX {
            room.bans.pop_front();
        }
        room.free(seat, RoomEvent::Kicked { seat });
    }

    fn quick_match(&mut self, who: &str, game: &str, options: &[u8]) -> Result<Effect, RejectCode> {
        if self.player(who).place.is_some() {
            return Err(RejectCode::AlreadyInRoom);
        }
        let joinable = |room: &Room| {
            let free = room.free_seat().is_some();
            let open = room.phase != Phase::Playing || room.game != "tictactoe";
            room.game == game && free && open && room.passcode.is_none() && !room.rules.unlisted
        };
        let player = self.player(who).id;
        // The server searches in the order of its records.
        let found = self
            .rooms
            .iter()
            .filter(|(_, room)| joinable(room) && !room.is_banned(player, who))
            .map(|(id, _)| *id)
            .min_by_key(|id| id.0 & 0xFFFF_FFFF);
        match found {
            Some(id) => self.join(who, id, None, false),
            None => {
                let settings = RoomSettings {
                    options: options.to_vec(),
                    ..RoomSettings::default()
                };
                let mut room = self.create(who, game, &settings)?;
                room.name = format!("{game} for anybody");
                Ok(Effect::Opens(Box::new(room)))
            }
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
        self.come_in(who, id, watch, |room, is_expected| {
            if !is_expected && room.passcode.is_some() && room.passcode.as_deref() != passcode {
                return Err(RejectCode::WrongPasscode);
            }
            Ok(())
        })
    }

    fn come_in(
        &mut self,
        who: &str,
        id: RoomId,
        watch: bool,
        admit: impl FnOnce(&Room, bool) -> Result<(), RejectCode>,
    ) -> Result<Effect, RejectCode> {
        let player = self.player(who).id;
        let room = self.rooms.get_mut(&id).ok_or(RejectCode::RoomNotFound)?;
        let kept = room.reserved_for(player).filter(|_| !watch);
        admit(room, kept.is_some())?;
        if room.is_banned(player, who) {
            return Err(RejectCode::Banned);
        }
        if watch && room.rules.no_spectators {
            return Err(RejectCode::NoSpectators);
        }
        let seat = if watch {
            room.spectators.insert(who.to_lowercase());
            None
        } else {
            if room.phase == Phase::Playing && room.game == "tictactoe" {
                return Err(RejectCode::AlreadyStarted);
            }
            let seat = kept.or(room.free_seat()).ok_or(RejectCode::RoomFull)?;
            room.kept.remove(&seat);
            room.seats[usize::from(seat)] = Some(SeatInfo {
                name: who.to_owned(),
                connected: true,
                ready: false,
            });
            room.events.push(RoomEvent::Joined {
                seat,
                name: who.to_owned(),
            });
            room.elect_owner();
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
            Some(seat) => room.free(seat, RoomEvent::Left { seat }),
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
                room.turn = (room.rules.turn_seconds > 0).then_some(0);
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
                let (outcome, next) = (board.outcome(), board.to_move());
                for (_, placed) in events.events() {
                    let data = codec::encode(&placed).expect("two numbers");
                    room.events.push(RoomEvent::Game { data });
                }
                match (outcome, next) {
                    (Some(outcome), _) => room.finish(outcome),
                    (None, Some(seat)) if room.rules.turn_seconds > 0 => {
                        room.turn = Some(seat);
                        let milliseconds = u32::from(room.rules.turn_seconds) * 1000;
                        room.events.push(RoomEvent::Turn { seat, milliseconds });
                    }
                    (None, _) => {}
                }
            }
        }
        Ok(Effect::Done)
    }
}
