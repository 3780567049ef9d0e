//! One room of the model.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forkade::games::tictactoe::TicTacToe;
use forkade_protocol::text::is_same_name;
use forkade_protocol::{Outcome, Phase, RejectCode, RoomEvent, RoomRules, RoomSettings, SeatInfo, codec};

pub(crate) struct Room {
    pub(super) name: String,
    pub(crate) game: &'static str,
    pub(super) passcode: Option<String>,
    pub(crate) rules: RoomRules,
    pub(crate) owner: Option<u8>,
    /// Ids and names of kicked players, the oldest first; `None` for a ban that was lifted. The test does not last as
    /// long as a name is banned.
    pub(super) bans: VecDeque<Option<(u64, String)>>,
    /// Reserved seats: id and name of the player.
    pub(crate) kept: BTreeMap<u8, (u64, String)>,
    /// The seat whose turn clock is running.
    pub(crate) turn: Option<u8>,
    /// The invite code, once it was requested.
    pub(crate) code: Option<String>,
    pub(crate) seats: Vec<Option<SeatInfo>>,
    pub(crate) spectators: BTreeSet<String>,
    pub(crate) phase: Phase,
    /// The current or last match.
    pub(crate) board: Option<TicTacToe>,
    /// Ticks of the clock game, and the number after which it ends.
    pub(crate) ticks: (u32, u32),
    /// All events; the first has the number 1.
    pub(crate) events: Vec<RoomEvent>,
}

impl Room {
    /// The player has left the seat.
    pub(super) fn free(&mut self, seat: u8, how: RoomEvent) {
        self.seats[usize::from(seat)] = None;
        self.events.push(how);
        self.elect_owner();
        if self.phase == Phase::Playing && self.game == "tictactoe" {
            self.finish(Outcome::Won {
                seats: vec![1 - seat],
            });
        }
    }

    pub(super) fn elect_owner(&mut self) {
        if self
            .owner
            .is_some_and(|seat| self.seats[usize::from(seat)].is_some())
        {
            return;
        }
        let seats = || {
            (0..)
                .zip(&self.seats)
                .filter_map(|(seat, info)| Some((seat, info.as_ref()?)))
        };
        let connected = seats().find(|(_, info)| info.connected);
        let next = connected.or(seats().next()).map(|(seat, _)| seat);
        match next {
            Some(seat) => self.set_owner(seat),
            None => self.owner = None,
        }
    }

    pub(super) fn set_owner(&mut self, seat: u8) {
        self.owner = Some(seat);
        self.events.push(RoomEvent::Owner { seat });
    }

    /// The seat that the next player without reservation gets.
    pub(super) fn free_seat(&self) -> Option<u8> {
        let is_free =
            |(seat, info): &(u8, &Option<SeatInfo>)| info.is_none() && !self.kept.contains_key(seat);
        (0..).zip(&self.seats).find(is_free).map(|(seat, _)| seat)
    }

    pub(super) fn is_banned(&self, player: u64, name: &str) -> bool {
        self.bans
            .iter()
            .flatten()
            .any(|(id, banned)| *id == player || is_same_name(banned, name))
    }

    pub(super) fn reserved_for(&self, player: u64) -> Option<u8> {
        let found = self
            .kept
            .iter()
            .find(|(_, (reserved_for, _))| *reserved_for == player);
        found.map(|(seat, _)| *seat)
    }

    pub(super) fn finish(&mut self, outcome: Outcome) {
        self.phase = Phase::Finished;
        self.turn = None;
        self.clear_ready();
        self.events.push(RoomEvent::Finished { outcome });
    }

    pub(super) fn clear_ready(&mut self) {
        self.seats
            .iter_mut()
            .flatten()
            .for_each(|info| info.ready = false);
    }
}

/// The effective settings of a room of this game.
pub(super) fn rules(game: &str, settings: &RoomSettings) -> Result<RoomRules, RejectCode> {
    let allowed = match game {
        "relay" => 1..=32,
        "tictactoe" => 2..=2,
        _ => 1..=2,
    };
    let seats = if settings.seats == 0 {
        *allowed.end()
    } else {
        settings.seats
    };
    if !allowed.contains(&seats) {
        return Err(RejectCode::SeatsOutOfRange);
    }
    if settings.turn_seconds > 0 && game != "tictactoe" {
        return Err(RejectCode::BadSettings);
    }
    Ok(RoomRules {
        seats,
        passcode: settings.passcode.is_some(),
        options: settings.options.clone(),
        unlisted: settings.unlisted,
        no_spectators: settings.no_spectators,
        turn_seconds: settings.turn_seconds,
    })
}

/// The number of ticks after which a clock game with these options ends.
pub(super) fn last_tick(rules: &RoomRules) -> u32 {
    codec::decode(&rules.options).unwrap_or_default()
}
