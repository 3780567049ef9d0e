//! One client of the lobby workload: its view of its room, and its pending request.

use std::collections::{BTreeSet, VecDeque};

use forkade_protocol::{RejectCode, RoomEvent, RoomId, Snapshot};

use super::model::{CheckResult, CreatedRoom};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// Its name, as the server normalized it.
    pub(super) name: String,
    pub(super) view: Option<RoomView>,
    pub(super) pending: Option<PendingRequest>,
    /// Times of requests that became due while another request was pending.
    pub(super) backlog: VecDeque<u64>,
    /// Number of the last request.
    pub(super) request: u32,
}

/// The room of a client, as the client has seen it.
#[derive(Debug)]
pub(super) struct RoomView {
    pub(super) room: RoomId,
    /// Number of the last event.
    event: u64,
    /// The player at each seat.
    pub(super) seats: Vec<Option<String>>,
}

/// A request that has not been answered.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) request: u32,
    pub(super) intended_ns: u64,
    pub(super) sent_ns: u64,
    pub(super) kind: RequestKind,
}

/// What a client requests.
#[derive(Debug)]
pub(super) enum RequestKind {
    Create(CreatedRoom),
    Join {
        room: RoomId,
        spectate: bool,
    },
    QuickMatch,
    Leave {
        room: RoomId,
    },
    /// All rooms whose name contains this room's name.
    Find {
        room: RoomId,
        name: String,
    },
    /// All rooms of a game, page by page.
    List {
        game: &'static str,
        seen: BTreeSet<RoomId>,
        began_ns: u64,
    },
    /// A request that must be refused with this code, or because the room has closed.
    Invalid {
        code: RejectCode,
        room: Option<RoomId>,
    },
    /// To end the session and reconnect as a new player.
    NewPlayer,
}

impl RoomView {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let name = |seat: &Option<forkade_protocol::SeatInfo>| seat.as_ref().map(|info| info.name.clone());
        Self {
            room: snapshot.room,
            event: snapshot.event,
            seats: snapshot.seats.iter().map(name).collect(),
        }
    }

    /// Applies an event of the room.
    ///
    /// # Errors
    /// When the event contradicts those before.
    pub(super) fn apply_event(&mut self, number: u64, event: &RoomEvent) -> CheckResult {
        if number <= self.event {
            return Err(format!("event {number} came after event {}", self.event));
        }
        self.event = number;
        let (seat, occupant) = match event {
            RoomEvent::Joined { seat, name } => (seat, Some(name.clone())),
            RoomEvent::Left { seat } => (seat, None),
            _ => return Ok(()),
        };
        let current = self.seats.get_mut(usize::from(*seat));
        let current = current.ok_or_else(|| format!("there is no seat {seat} for {event:?}"))?;
        if current.is_some() == occupant.is_some() {
            return Err(format!("seat {seat} was {current:?} before {event:?}"));
        }
        *current = occupant;
        Ok(())
    }
}
