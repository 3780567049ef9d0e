//! The room that the player is in: the last snapshot, with the events since applied.

use std::collections::BTreeMap;

use forkade_protocol::text::is_same_name;
use forkade_protocol::{Phase, Reservation, RoomEvent, RoomId, SeatInfo, Snapshot, Turn};

use forkade_games::{AnyGame, GameError, Games};
use forkade_text::render::{RenderContext, name_in};

/// A room.
#[derive(Debug)]
pub(crate) struct Room {
    snapshot: Snapshot,
    /// The seat to move at the time of the snapshot, if the server says so.
    to_move: Option<u8>,
    drawing: Drawing,
    /// The last player of each seat: a snapshot may show that a player has left before the event arrives.
    former: BTreeMap<u8, String>,
    /// When the snapshot's clocks were current, in milliseconds of the caller's clock.
    seen_at_ms: u64,
}

/// The game's drawing of the view.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Drawing {
    /// There is no match yet, or its drawing is empty.
    Nothing,
    /// Its lines.
    Lines(Vec<String>),
    /// This program does not have the game.
    Unknown,
    /// The game's code has failed; its error.
    Failed(String),
}

/// The effect of an event on what is shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The event itself says all.
    None,
    /// The snapshot may have changed in ways that the event does not say.
    ViewChanged,
}

impl Room {
    pub(crate) fn new(snapshot: Snapshot, games: &Games, now_ms: u64) -> Self {
        let mut room = Self {
            snapshot,
            to_move: None,
            drawing: Drawing::Nothing,
            former: BTreeMap::new(),
            seen_at_ms: now_ms,
        };
        room.draw(games);
        room
    }

    /// Replaces the snapshot by a newer one of the same room.
    pub(crate) fn update(&mut self, snapshot: Snapshot, to_move: Option<u8>, games: &Games, now_ms: u64) {
        self.remember_names();
        self.to_move = to_move;
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
            Some(game) => match game.draw(&self.snapshot.view, &|seat| name_in(&self.snapshot, seat)) {
                Ok(text) if text.trim().is_empty() => Drawing::Nothing,
                Ok(text) => Drawing::Lines(text.lines().map(str::to_owned).collect()),
                Err(error) => Drawing::Failed(error.to_string()),
            },
        };
    }

    /// Describes an event. A fault of the game's code is described like an event.
    pub(crate) fn describe(&self, event: &RoomEvent, games: &Games) -> String {
        let name = |seat| {
            let name = self.name_of(seat).map(str::to_owned);
            name.or_else(|| self.former.get(&seat).cloned())
        };
        let context = RenderContext {
            game: game(&self.snapshot, games),
            seat: self.snapshot.seat,
            names: &name,
            // Described before it is applied: a player who leaves still has the seat.
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

    /// Applies an event. An event that the snapshot contains changes nothing.
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
                (room.phase, room.turn, self.to_move) = (Phase::Finished, None, None);
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
            // It does not say for how long.
            RoomEvent::Reserved { .. } => Effect::ViewChanged,
            // The game may react.
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
    /// The reason why it is no move, for the player.
    pub(crate) fn parse_move(&self, text: &str, games: &Games) -> Result<Vec<u8>, String> {
        let name = &self.snapshot.game;
        let Some(game) = game(&self.snapshot, games) else {
            return Err(format!(
                "this program does not know the game {name}, and so none of its moves"
            ));
        };
        game.parse_action(text, &self.snapshot.view)
            .map_err(|error| match error {
                GameError::Rejected(rejection) => rejection.text().to_owned(),
                other => other.to_string(),
            })
    }

    /// Whether the player has a seat in a running match.
    pub(crate) fn is_playing(&self) -> bool {
        self.snapshot.phase == Phase::Playing && self.snapshot.seat.is_some()
    }

    /// The seat to move, if seats move in turn.
    pub(crate) fn to_move(&self) -> Option<u8> {
        // A clock says it at once; the view comes later.
        self.snapshot.turn.map(|turn| turn.seat).or(self.to_move)
    }

    /// The player's own seat.
    pub(crate) fn own_seat(&self) -> Option<&SeatInfo> {
        self.snapshot
            .seats
            .get(usize::from(self.snapshot.seat?))?
            .as_ref()
    }

    /// The name of the player in a seat.
    pub(crate) fn name_of(&self, seat: u8) -> Option<&str> {
        let info = self.snapshot.seats.get(usize::from(seat))?.as_ref()?;
        Some(&info.name)
    }

    /// The seat of the player with this name, in any case.
    pub(crate) fn seat_of(&self, name: &str) -> Option<u8> {
        let names = (0..).zip(&self.snapshot.seats);
        let mut named = names.filter_map(|(seat, info)| Some((seat, &info.as_ref()?.name)));
        named
            .find(|(_, other)| is_same_name(other, name))
            .map(|(seat, _)| seat)
    }

    /// The seat whose turn clock runs, and the seconds left.
    pub(crate) fn turn(&self, now_ms: u64) -> Option<(u8, u64)> {
        let Turn { seat, milliseconds } = self.snapshot.turn?;
        Some((seat, self.seconds_left(milliseconds, now_ms)))
    }

    /// The name of the player for whom a seat is reserved, and the seconds left.
    pub(crate) fn reservation(&self, seat: u8, now_ms: u64) -> Option<(&str, u64)> {
        let Reservation {
            name, milliseconds, ..
        } = self.snapshot.reservations.iter().find(|kept| kept.seat == seat)?;
        Some((name, self.seconds_left(*milliseconds, now_ms)))
    }

    /// Whether a clock runs.
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

/// Sets a seat. A seat that does not exist is ignored: the server may send anything.
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
