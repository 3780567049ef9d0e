//! A failure of a game's own code, for the log.

use std::fmt;

use forkade_games::{GameError, Games};

use crate::limits::LOGGED_ACTION_BYTES_MAX;
use crate::state::directory::Name;
use crate::state::incidents::IncidentKind;
use crate::state::layout::{Memory, RoomRef};
use crate::state::room_label::{Quoted, RoomLabel};
use crate::state::rooms::RoomTx;

/// A failure of a game's own code: in which room, in which call, and for which player. Display it only when no lock is
/// held: that of a panic's backtrace can take a tenth of a second.
#[derive(Debug)]
pub struct Fault {
    error: GameError,
    method: &'static str,
    game: &'static str,
    /// `None` if there is no room yet.
    room: Option<RoomLabel>,
    /// The seat that the call was for, with its player's name.
    seat: Option<(u8, Name)>,
    /// The first bytes of the action, and how many it has.
    action: Option<(Vec<u8>, usize)>,
}

/// A call of a game's code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GameCall<'a> {
    method: &'static str,
    seat: Option<u8>,
    action: Option<&'a [u8]>,
}

impl<'a> GameCall<'a> {
    /// A call of this method, perhaps for a seat.
    pub(crate) fn of(method: &'static str, seat: Option<u8>) -> Self {
        Self {
            method,
            seat,
            action: None,
        }
    }

    /// The seat's action.
    pub(crate) fn act(seat: u8, action: &'a [u8]) -> Self {
        Self {
            action: Some(action),
            ..Self::of("act", Some(seat))
        }
    }
}

impl Fault {
    /// The game of the transaction's room has failed in a call.
    pub(crate) fn in_room(
        tx: &RoomTx<'_>,
        games: &Games,
        room: RoomRef,
        call: GameCall<'_>,
        error: GameError,
    ) -> Self {
        let label = RoomLabel::of(tx, games, room);
        let seats = &tx.record().seats;
        let seat = call
            .seat
            .and_then(|seat| Some((seat, tx.get(seats.get(usize::from(seat))?).name)));
        let shown = |action: &[u8]| {
            let first = action.len().min(LOGGED_ACTION_BYTES_MAX);
            (action[..first].to_vec(), action.len())
        };
        Self {
            error,
            method: call.method,
            game: label.game(),
            room: Some(label),
            seat,
            action: call.action.map(shown),
        }
    }

    /// The game has failed in a call that was made for a player of this room, without its lock.
    pub(crate) fn for_player(
        room: RoomLabel,
        seat: Option<(u8, Name)>,
        method: &'static str,
        error: GameError,
    ) -> Self {
        Self {
            room: Some(room),
            seat,
            ..Self::without_room(room.game(), method, error)
        }
    }

    /// The game has failed in a call that concerns no room yet.
    pub(crate) fn without_room(game: &'static str, method: &'static str, error: GameError) -> Self {
        Self {
            error,
            method,
            game,
            room: None,
            seat: None,
            action: None,
        }
    }
}

impl Fault {
    /// Counts the failure and enters it among the incidents. A call that was only slow is none. (The log's line is the
    /// caller's: it knows the level.)
    pub(crate) fn enter(&self, memory: &Memory) {
        if matches!(self.error, GameError::Slow { .. } | GameError::Slowed { .. }) {
            return;
        }
        let player = self.seat.as_ref().map(|(_, name)| name.as_str());
        let room = self.room.and_then(|room| room.index());
        memory.incidents.enter(
            IncidentKind::Failure,
            (std::process::id(), room),
            player.unwrap_or_default(),
            format_args!("{}", WithoutBacktrace(self)),
        );
    }

    fn write_call(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.room {
            Some(room) => write!(out, "{} in {room}", self.method)?,
            None => write!(out, "{} of {}", self.method, self.game)?,
        }
        if let Some((seat, name)) = &self.seat {
            write!(out, ", seat {seat} {}", Quoted(name.as_str()))?;
        }
        if let Some((first, length)) = &self.action {
            write!(out, ", action of {length} bytes ")?;
            for byte in first {
                write!(out, "{byte:02x}")?;
            }
            out.write_str(if first.len() < *length { "…" } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_call(out)?;
        write!(out, ": {}", self.error)
    }
}

/// The failure without a panic's backtrace, which takes long to display.
struct WithoutBacktrace<'f>(&'f Fault);

impl fmt::Display for WithoutBacktrace<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_call(out)?;
        match &self.0.error {
            GameError::Panicked(panic) => write!(out, ": panicked: {}", panic.message()),
            error => write!(out, ": {error}"),
        }
    }
}
