//! The room one is in, as it is shown: the last snapshot, and what has happened since.

use std::collections::BTreeMap;

use forkade_protocol::{Phase, Reservation, RoomEvent, RoomId, SeatInfo, Snapshot, Turn};

use forkade_games::{AnyGame, GameError, Games};
use forkade_text::render::RenderContext;

/// A room.
#[derive(Debug)]
pub(crate) struct Room {
    snapshot: Snapshot,
    drawing: Drawing,
    /// By seat, who had it last: a picture may know that somebody has left before we are told.
    former: BTreeMap<u8, String>,
    /// When the snapshot's clocks were right, in milliseconds of the caller's clock.
    seen_at_ms: u64,
}

/// The game's picture.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Drawing {
    /// There is no match yet, or nothing to be seen of it.
    Nothing,
    /// Its lines.
    Lines(Vec<String>),
    /// This program does not have the game.
    Unknown,
    /// The game's code has failed.
    Failed(String),
}

/// What an event means for the one who shows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing that was not shown.
    None,
    /// The game's view may be another one.
    ViewChanged,
}

impl Room {
    pub(crate) fn new(snapshot: Snapshot, games: &Games, now_ms: u64) -> Self {
        let mut room = Self {
            snapshot,
            drawing: Drawing::Nothing,
            former: BTreeMap::new(),
            seen_at_ms: now_ms,
        };
        room.draw(games);
        room
    }

    /// Takes a newer picture of the same room.
    pub(crate) fn update(&mut self, snapshot: Snapshot, games: &Games, now_ms: u64) {
        self.remember_names();
        self.snapshot = snapshot;
        self.seen_at_ms = now_ms;
        self.draw(games);
    }

    fn remember_names(&mut self) {
        let seats = (0..).zip(&self.snapshot.seats);
        let names = seats.filter_map(|(seat, info)| Some((seat, info.as_ref()?.name.clone())));
        self.former.extend(names);
    }

    fn draw(&mut self, games: &Games) {
        self.drawing = match game(&self.snapshot, games) {
            None => Drawing::Unknown,
            Some(_) if self.snapshot.view.is_empty() => Drawing::Nothing,
            Some(game) => match game.draw(&self.snapshot.view) {
                Ok(text) if text.trim().is_empty() => Drawing::Nothing,
                Ok(text) => Drawing::Lines(text.lines().map(str::to_owned).collect()),
                Err(error) => Drawing::Failed(error.to_string()),
            },
        };
    }

    /// What has happened, in words. A fault of the game's own code is told like an event.
    pub(crate) fn describe(&self, event: &RoomEvent, games: &Games) -> String {
        let name = |seat| {
            let name = self.name_of(seat).map(str::to_owned);
            name.or_else(|| self.former.get(&seat).cloned())
        };
        let context = RenderContext {
            game: game(&self.snapshot, games),
            seat: self.snapshot.seat,
            names: &name,
            // Told before it is applied: who leaves still has the seat.
            left: &name,
        };
        match (context.event(event), event) {
            (Ok(told), RoomEvent::Game { data }) if told.is_empty() && self.drawing == Drawing::Unknown => {
                format!(
                    "(an event of the game, {} bytes: {})",
                    data.len(),
                    data.escape_ascii()
                )
            }
            (Ok(told), _) => told,
            (Err(error), _) => format!("(an event of the game that cannot be told: {error})"),
        }
    }

    /// Takes in what has happened. An event that the snapshot contains changes nothing.
    pub(crate) fn apply(&mut self, number: u64, event: &RoomEvent, now_ms: u64) -> Effect {
        if number <= self.snapshot.event {
            return Effect::None;
        }
        self.remember_names();
        self.snapshot.event = number;
        let room = &mut self.snapshot;
        match event {
            RoomEvent::Joined { seat, name } => {
                room.reservations.retain(|kept| kept.seat != *seat);
                set(&mut room.seats, *seat, Some(seated(name)));
                if room.owner.is_none() {
                    room.owner = Some(*seat);
                }
            }
            RoomEvent::Left { seat } | RoomEvent::Kicked { seat } => set(&mut room.seats, *seat, None),
            RoomEvent::Connection { seat, connected } => {
                change(&mut room.seats, *seat, |info| info.connected = *connected);
            }
            RoomEvent::Ready { seat, ready } => change(&mut room.seats, *seat, |info| info.ready = *ready),
            RoomEvent::Finished { .. } => {
                (room.phase, room.turn) = (Phase::Finished, None);
                for info in room.seats.iter_mut().flatten() {
                    info.ready = false;
                }
            }
            RoomEvent::Owner { seat } => room.owner = Some(*seat),
            RoomEvent::Reserved { .. } => {}
            RoomEvent::ReservationOver { seat } => room.reservations.retain(|kept| kept.seat != *seat),
            RoomEvent::Configured { rules } => {
                room.seats.resize(rules.seats.into(), None);
                room.rules = rules.clone();
            }
            RoomEvent::Turn { seat, milliseconds } => {
                let (seat, milliseconds) = (*seat, *milliseconds);
                room.turn = Some(Turn { seat, milliseconds });
                self.seen_at_ms = now_ms;
            }
            RoomEvent::TurnTimedOut { .. } | RoomEvent::TurnStopped => room.turn = None,
            RoomEvent::Started | RoomEvent::Game { .. } | RoomEvent::Chat { .. } => {}
        }
        match event {
            RoomEvent::Game { .. } | RoomEvent::Finished { .. } | RoomEvent::TurnTimedOut { .. } => {
                Effect::ViewChanged
            }
            // It says for whom, but not for how long.
            RoomEvent::Reserved { .. } => Effect::ViewChanged,
            // The game may take its share.
            RoomEvent::Joined { .. } | RoomEvent::Left { .. } | RoomEvent::Kicked { .. }
                if !self.snapshot.view.is_empty() =>
            {
                Effect::ViewChanged
            }
            _ => Effect::None,
        }
    }

    pub(crate) fn id(&self) -> RoomId {
        self.snapshot.room
    }

    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(crate) fn drawing(&self) -> &Drawing {
        &self.drawing
    }

    pub(crate) fn game<'g>(&self, games: &'g Games) -> Option<&'g dyn AnyGame> {
        game(&self.snapshot, games)
    }

    /// The bytes of a move.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for people.
    pub(crate) fn parse_move(&self, text: &str, games: &Games) -> Result<Vec<u8>, String> {
        let name = &self.snapshot.game;
        let Some(game) = game(&self.snapshot, games) else {
            return Err(format!(
                "this program does not know the game {name}, and so none of its moves"
            ));
        };
        game.parse_action(text).map_err(|error| match error {
            GameError::Rejected(rejection) => rejection.text().to_owned(),
            other => other.to_string(),
        })
    }

    /// Whether there is a match in which we have a seat.
    pub(crate) fn is_playing(&self) -> bool {
        self.snapshot.phase == Phase::Playing && self.snapshot.seat.is_some()
    }

    /// Our own seat, if it is taken by us.
    pub(crate) fn own_seat(&self) -> Option<&SeatInfo> {
        self.snapshot
            .seats
            .get(usize::from(self.snapshot.seat?))?
            .as_ref()
    }

    /// Who has a seat.
    pub(crate) fn name_of(&self, seat: u8) -> Option<&str> {
        let info = self.snapshot.seats.get(usize::from(seat))?.as_ref()?;
        Some(&info.name)
    }

    /// Which seat somebody has.
    pub(crate) fn seat_of(&self, name: &str) -> Option<u8> {
        let names = (0..).zip(&self.snapshot.seats);
        let mut named = names.filter_map(|(seat, info)| Some((seat, &info.as_ref()?.name)));
        named
            .find(|(_, other)| other.to_lowercase() == name.to_lowercase())
            .map(|(seat, _)| seat)
    }

    /// Whose clock runs, and how many seconds are left.
    pub(crate) fn turn(&self, now_ms: u64) -> Option<(u8, u64)> {
        let Turn { seat, milliseconds } = self.snapshot.turn?;
        Some((seat, self.seconds_left(milliseconds, now_ms)))
    }

    /// For whom a seat is kept, and for how many more seconds.
    pub(crate) fn reservation(&self, seat: u8, now_ms: u64) -> Option<(&str, u64)> {
        let Reservation {
            name, milliseconds, ..
        } = self.snapshot.reservations.iter().find(|kept| kept.seat == seat)?;
        Some((name, self.seconds_left(*milliseconds, now_ms)))
    }

    /// Whether something on the screen counts down.
    pub(crate) fn has_clock(&self) -> bool {
        self.snapshot.turn.is_some() || !self.snapshot.reservations.is_empty()
    }

    fn seconds_left(&self, milliseconds: u32, now_ms: u64) -> u64 {
        let passed = now_ms.saturating_sub(self.seen_at_ms);
        u64::from(milliseconds).saturating_sub(passed).div_ceil(1000)
    }
}

fn game<'g>(snapshot: &Snapshot, games: &'g Games) -> Option<&'g dyn AnyGame> {
    games.find(&snapshot.game).map(|(_, game)| game)
}

fn seated(name: &str) -> SeatInfo {
    SeatInfo {
        name: name.to_owned(),
        connected: true,
        ready: false,
    }
}

/// Sets a seat. One that there is not was none of this room's: a server may say what it likes.
fn set(seats: &mut [Option<SeatInfo>], seat: u8, info: Option<SeatInfo>) {
    if let Some(place) = seats.get_mut(usize::from(seat)) {
        *place = info;
    }
}

fn change(seats: &mut [Option<SeatInfo>], seat: u8, change: impl FnOnce(&mut SeatInfo)) {
    if let Some(Some(info)) = seats.get_mut(usize::from(seat)) {
        change(info);
    }
}
