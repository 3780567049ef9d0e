//! What all clients together know about the rooms: which members are certainly in them, which may be, and
//! which rooms have closed. One loop drives all clients, so their answers together bound what the server may
//! tell any of them.
//!
//! An answer that arrives at `now` to a request sent at `sent` was true at some moment between the two. A
//! client that had joined by `sent` and has not asked to leave by `now` was in the room all the time. A
//! client that had left by `sent` and has not asked to join was never in it during that time.

use std::collections::{BTreeMap, VecDeque};

use forkade_protocol::{Phase, RejectCode, RoomId, RoomSummary, Snapshot};

use crate::workload::ClientIndex;

/// The game of quick matches: no other workload creates rooms of it.
pub(super) const QUICK_GAME: &str = "eights";
/// Departures from a room that are remembered, for requests that were sent before.
const DEPARTURES_MAX: usize = 64;

/// All rooms that clients of this workload are in, or may be in.
#[derive(Debug, Default)]
pub(super) struct Model {
    rooms: BTreeMap<RoomId, Room>,
    /// Rooms that have certainly closed, and when that was known.
    closed: BTreeMap<RoomId, u64>,
    /// Unanswered requests for quick matches: each may put a client into any room of their game.
    quick_matches: u32,
}

/// The properties with which a room was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CreatedRoom {
    pub(super) game: String,
    pub(super) name: String,
    pub(super) seats: u8,
    pub(super) passcode: Option<String>,
}

/// A room.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) created: CreatedRoom,
    visits: BTreeMap<ClientIndex, RoomVisit>,
    /// Unanswered requests to join.
    pending_joins: u32,
    departures: VecDeque<Departure>,
}

#[derive(Debug)]
struct RoomVisit {
    name: String,
    /// `None`: a spectator.
    seat: Option<u8>,
    /// When its client received that it has joined.
    since_ns: u64,
    /// It has asked to leave.
    leaving: bool,
}

#[derive(Debug)]
struct Departure {
    seat: Option<u8>,
    /// When its client received that it has left.
    at_ns: u64,
}

/// `Err`: an answer is not possible, and why.
pub(super) type CheckResult = Result<(), String>;

impl Model {
    pub(super) fn room(&self, room: RoomId) -> Option<&Room> {
        self.rooms.get(&room)
    }

    /// The rooms that exist, or may exist.
    pub(super) fn rooms(&self) -> impl Iterator<Item = (RoomId, &Room)> {
        self.rooms.iter().map(|(id, room)| (*id, room))
    }

    /// Whether the room had certainly closed at this time.
    pub(super) fn was_closed(&self, room: RoomId, at_ns: u64) -> bool {
        self.closed
            .get(&room)
            .is_some_and(|closed_ns| *closed_ns <= at_ns)
    }

    /// Whether the room is remembered as closed.
    pub(super) fn is_closed(&self, room: RoomId) -> bool {
        self.closed.contains_key(&room)
    }

    /// Forgets rooms that closed before this time. No pending request was sent before.
    pub(super) fn forget_closed_before(&mut self, ns: u64) {
        self.closed.retain(|_, closed_ns| *closed_ns >= ns);
    }

    /// A client asks to join.
    pub(super) fn add_pending_join(&mut self, room: RoomId) {
        if let Some(room) = self.rooms.get_mut(&room) {
            room.pending_joins += 1;
        }
    }

    /// A request to join was answered.
    pub(super) fn end_pending_join(&mut self, id: RoomId, now_ns: u64) {
        if let Some(room) = self.rooms.get_mut(&id) {
            room.pending_joins = room.pending_joins.saturating_sub(1);
        }
        self.close_if_empty(id, now_ns);
    }

    /// A client asks for a quick match.
    pub(super) fn add_quick_match(&mut self) {
        self.quick_matches += 1;
    }

    /// A request for a quick match was answered.
    pub(super) fn end_quick_match(&mut self) {
        self.quick_matches = self.quick_matches.saturating_sub(1);
    }

    /// A client has received that it is in a room. `created` gives the properties of a room that is not in
    /// the model yet.
    pub(super) fn client_joined(
        &mut self,
        id: RoomId,
        created: impl FnOnce() -> CreatedRoom,
        (client, name, seat): (ClientIndex, &str, Option<u8>),
        now_ns: u64,
    ) {
        let room = self.rooms.entry(id).or_insert_with(|| Room {
            created: created(),
            visits: BTreeMap::new(),
            pending_joins: 0,
            departures: VecDeque::new(),
        });
        let visit = RoomVisit {
            name: name.to_owned(),
            seat,
            since_ns: now_ns,
            leaving: false,
        };
        room.visits.insert(client, visit);
    }

    /// A client asks to leave.
    pub(super) fn client_leaving(&mut self, id: RoomId, client: ClientIndex) {
        if let Some(visit) = self
            .rooms
            .get_mut(&id)
            .and_then(|room| room.visits.get_mut(&client))
        {
            visit.leaving = true;
        }
    }

    /// A client has received that it has left.
    pub(super) fn client_left(&mut self, id: RoomId, client: ClientIndex, now_ns: u64) {
        if let Some(room) = self.rooms.get_mut(&id)
            && let Some(visit) = room.visits.remove(&client)
        {
            if room.departures.len() == DEPARTURES_MAX {
                room.departures.pop_front();
            }
            room.departures.push_back(Departure {
                seat: visit.seat,
                at_ns: now_ns,
            });
        }
        self.close_if_empty(id, now_ns);
    }

    fn close_if_empty(&mut self, id: RoomId, now_ns: u64) {
        let Some(room) = self.rooms.get(&id) else { return };
        if room.visits.is_empty() && room.pending_joins == 0 {
            // A client of another program may keep it open.
            if !room.is_public() {
                self.closed.insert(id, now_ns);
            }
            self.rooms.remove(&id);
        }
    }

    /// Checks an entry of a list that was requested at `sent_ns`.
    pub(super) fn check_summary(&self, summary: &RoomSummary, sent_ns: u64) -> CheckResult {
        let id = summary.room;
        if self.was_closed(id, sent_ns) {
            return Err(format!("{:?} is listed, and had closed before", summary.name));
        }
        let Some(room) = self.rooms.get(&id) else {
            return Ok(());
        };
        let created = &room.created;
        let reported = CreatedRoom {
            game: summary.game.clone(),
            name: summary.name.clone(),
            seats: summary.seats,
            passcode: created.passcode.clone().filter(|_| summary.passcode),
        };
        if reported != *created || summary.passcode != created.passcode.is_some() {
            return Err(format!("{created:?} is listed as {summary:?}"));
        }
        let phase = if created.game == "relay" {
            Phase::Playing
        } else {
            Phase::Waiting
        };
        if summary.phase != phase {
            return Err(format!(
                "{:?} is listed as {:?}, and no player was ready",
                created.name, summary.phase
            ));
        }
        let taken = self.bounds(room, sent_ns, true);
        let watching = self.bounds(room, sent_ns, false);
        if !taken.contains(&u32::from(summary.taken)) {
            return Err(format!(
                "{:?} has {taken:?} seats taken, and is listed with {}",
                created.name, summary.taken
            ));
        }
        if !watching.contains(&summary.spectators) {
            let listed = summary.spectators;
            return Err(format!(
                "{:?} has {watching:?} spectators, and is listed with {listed}",
                created.name
            ));
        }
        Ok(())
    }

    /// Checks the snapshot that `client` received when it joined, after a request sent at `sent_ns`.
    pub(super) fn check_snapshot(
        &self,
        client: ClientIndex,
        snapshot: &Snapshot,
        sent_ns: u64,
    ) -> CheckResult {
        if self.was_closed(snapshot.room, sent_ns) {
            return Err(format!(
                "client {client} joined {:?}, which had closed before",
                snapshot.name
            ));
        }
        let Some(room) = self.rooms.get(&snapshot.room) else {
            return Ok(());
        };
        let created = &room.created;
        if (&snapshot.game, &snapshot.name, snapshot.seats.len())
            != (&created.game, &created.name, usize::from(created.seats))
        {
            return Err(format!("{created:?} is shown as {snapshot:?}"));
        }
        for (seat, shown) in (0..).zip(&snapshot.seats) {
            let shown = shown.as_ref().map(|info| info.name.as_str());
            if snapshot.seat == Some(seat) {
                continue;
            }
            let at_seat = |visit: &&RoomVisit| visit.seat == Some(seat);
            let certain = room
                .visits
                .values()
                .filter(at_seat)
                .find(|visit| visit.is_certain(sent_ns));
            if certain.is_some_and(|visit| shown != Some(&visit.name)) {
                return Err(format!(
                    "{:?} shows {shown:?} at seat {seat}, which {certain:?} has",
                    created.name
                ));
            }
            let left_since = room
                .departures
                .iter()
                .any(|left| left.seat == Some(seat) && left.at_ns >= sent_ns);
            let explained =
                room.visits.values().any(|visit| at_seat(&visit)) || left_since || self.may_be_joined(room);
            if shown.is_some() && !explained {
                return Err(format!(
                    "{:?} shows {shown:?} at seat {seat}, which is free",
                    created.name
                ));
            }
        }
        Ok(())
    }

    /// Checks a refusal of a request to join that `client` sent at `sent_ns`.
    pub(super) fn check_refusal(
        &self,
        client: ClientIndex,
        id: RoomId,
        spectate: bool,
        code: RejectCode,
        sent_ns: u64,
    ) -> CheckResult {
        let Some(room) = self.rooms.get(&id) else {
            return match code {
                RejectCode::RoomNotFound => Ok(()),
                other => Err(format!(
                    "client {client} was refused with {other:?} by a room that has closed"
                )),
            };
        };
        let name = &room.created.name;
        match code {
            RejectCode::RoomNotFound if room.is_certain(sent_ns) => Err(format!(
                "{name:?} was not found by client {client}, and a client is in it"
            )),
            RejectCode::RoomNotFound => Ok(()),
            RejectCode::RoomFull if !spectate => {
                // The client itself is counted among the pending joins.
                let most = self.bounds(room, sent_ns, true).end().saturating_sub(1);
                if most >= u32::from(room.created.seats) || room.is_public() {
                    Ok(())
                } else {
                    Err(format!(
                        "{name:?} was full for client {client}, with {most} of its seats taken at most"
                    ))
                }
            }
            other => Err(format!("{name:?} refused client {client} with {other:?}")),
        }
    }

    /// Whether a client's view of the seats matches the model, when no request is pending.
    pub(super) fn matches_view(&self, id: RoomId, seats: &[Option<String>]) -> bool {
        let Some(room) = self.rooms.get(&id) else {
            return false;
        };
        let mut known = vec![None; usize::from(room.created.seats)];
        for visit in room.visits.values() {
            if let Some(place) = visit.seat.and_then(|seat| known.get_mut(usize::from(seat))) {
                *place = Some(visit.name.clone());
            }
        }
        let unknown_clients = room.is_public();
        let agree = |(known, seen): (&Option<String>, &Option<String>)| {
            known == seen || (unknown_clients && known.is_none())
        };
        known.len() == seats.len() && known.iter().zip(seats).all(agree)
    }

    /// The fewest and the most players that can have been seated (or watching) at any moment since `sent_ns`.
    fn bounds(&self, room: &Room, sent_ns: u64, seated: bool) -> std::ops::RangeInclusive<u32> {
        let of_kind = |seat: &Option<u8>| seat.is_some() == seated;
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let visits = room.visits.values().filter(|visit| of_kind(&visit.seat));
        let certain = count(visits.clone().filter(|visit| visit.is_certain(sent_ns)).count());
        let left_since = room
            .departures
            .iter()
            .filter(|left| of_kind(&left.seat) && left.at_ns >= sent_ns);
        let quick = if seated { self.quick_matches_into(room) } else { 0 };
        let unknown_clients = if room.is_public() { u32::MAX / 2 } else { 0 };
        let most =
            count(visits.count()) + count(left_since.count()) + room.pending_joins + quick + unknown_clients;
        certain..=most
    }

    fn may_be_joined(&self, room: &Room) -> bool {
        room.pending_joins > 0 || self.quick_matches_into(room) > 0 || room.is_public()
    }

    fn quick_matches_into(&self, room: &Room) -> u32 {
        if room.is_public() { self.quick_matches } else { 0 }
    }
}

impl Room {
    /// Whether a client has been in the room without a break since this time, so that the room must exist.
    pub(super) fn is_certain(&self, sent_ns: u64) -> bool {
        self.visits.values().any(|visit| visit.is_certain(sent_ns))
    }

    /// Quick matches may put clients of other programs into the room.
    fn is_public(&self) -> bool {
        self.created.game == QUICK_GAME && self.created.passcode.is_none()
    }
}

impl RoomVisit {
    fn is_certain(&self, sent_ns: u64) -> bool {
        self.since_ns <= sent_ns && !self.leaving
    }
}

#[cfg(test)]
mod tests;
