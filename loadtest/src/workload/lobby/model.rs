//! What is known of the rooms: who is in them for certain, who may be, and which are gone. All clients are driven by one loop,
//! so their answers put together bound what the server may tell any of them.
//!
//! What somebody was told at `now` about a question asked at `kind` was true at some moment between the two. Somebody who
//! had come in by `kind` and has not begun to leave by `now` was in the room all the time; somebody who was out by `kind`,
//! and has not asked to come in, was not at any.

use std::collections::{BTreeMap, VecDeque};

use forkade_protocol::{Phase, RejectCode, RoomId, RoomSummary, Snapshot};

use crate::workload::ClientIndex;

/// The game that quick matches are asked for: no other workload makes rooms of it.
pub(super) const QUICK_GAME: &str = "eights";
/// Who has left a room is remembered for questions that were asked before.
const DEPARTURES_MAX: usize = 64;

/// All rooms that clients of this workload are in, or may be.
#[derive(Debug, Default)]
pub(super) struct Model {
    rooms: BTreeMap<RoomId, Room>,
    /// Rooms that are closed for certain, and since when.
    closed: BTreeMap<RoomId, u64>,
    /// Quick matches that were asked for and not answered: each may put somebody into any room of their game.
    quick_matches: u32,
}

/// A room as it was made.
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
    /// Requests to come in that were not answered.
    pending_joins: u32,
    departures: VecDeque<Departure>,
}

#[derive(Debug)]
struct RoomVisit {
    name: String,
    /// Nothing: watches.
    seat: Option<u8>,
    /// When its client was told that it is in.
    since_ns: u64,
    /// It has asked to leave.
    leaving: bool,
}

#[derive(Debug)]
struct Departure {
    seat: Option<u8>,
    /// When its client was told that it is out.
    at_ns: u64,
}

/// What was told is not possible, and why.
pub(super) type CheckResult = Result<(), String>;

impl Model {
    pub(super) fn room(&self, room: RoomId) -> Option<&Room> {
        self.rooms.get(&room)
    }

    /// The rooms that are there, or may be.
    pub(super) fn rooms(&self) -> impl Iterator<Item = (RoomId, &Room)> {
        self.rooms.iter().map(|(id, room)| (*id, room))
    }

    /// Whether the room had closed for certain at this time.
    pub(super) fn was_closed(&self, room: RoomId, at_ns: u64) -> bool {
        self.closed
            .get(&room)
            .is_some_and(|closed_ns| *closed_ns <= at_ns)
    }

    /// Whether the room is known to have closed, and not forgotten.
    pub(super) fn is_closed(&self, room: RoomId) -> bool {
        self.closed.contains_key(&room)
    }

    /// Forgets rooms that were gone before this time: nobody will ask about them any more.
    pub(super) fn forget_closed_before(&mut self, ns: u64) {
        self.closed.retain(|_, closed_ns| *closed_ns >= ns);
    }

    /// A client asks to come in.
    pub(super) fn add_pending_join(&mut self, room: RoomId) {
        if let Some(room) = self.rooms.get_mut(&room) {
            room.pending_joins += 1;
        }
    }

    /// That request was answered.
    pub(super) fn end_pending_join(&mut self, id: RoomId, now_ns: u64) {
        if let Some(room) = self.rooms.get_mut(&id) {
            room.pending_joins = room.pending_joins.saturating_sub(1);
        }
        self.close_if_empty(id, now_ns);
    }

    /// A client asks for a quick match, or has got the answer.
    pub(super) fn quick_matches(&mut self, is_pending: bool) {
        self.quick_matches = if is_pending {
            self.quick_matches + 1
        } else {
            self.quick_matches.saturating_sub(1)
        };
    }

    /// A client was told that it is in a room. `created` is what is known of one that was not heard of before.
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

    /// A client was told that it is out.
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
            // Whether a stranger keeps it open is not known.
            if !room.is_open_to_strangers() {
                self.closed.insert(id, now_ns);
            }
            self.rooms.remove(&id);
        }
    }

    /// Checks a line of a list that was asked for at `sent_ns`.
    pub(super) fn check_summary(&self, summary: &RoomSummary, sent_ns: u64) -> CheckResult {
        let id = summary.room;
        if self.was_closed(id, sent_ns) {
            return Err(format!("{:?} is listed, and had closed before", summary.name));
        }
        let Some(room) = self.rooms.get(&id) else {
            return Ok(());
        };
        let created = &room.created;
        let told = CreatedRoom {
            game: summary.game.clone(),
            name: summary.name.clone(),
            seats: summary.seats,
            passcode: created.passcode.clone().filter(|_| summary.passcode),
        };
        if told != *created || summary.passcode != created.passcode.is_some() {
            return Err(format!("{created:?} is listed as {summary:?}"));
        }
        let phase = if created.game == "relay" {
            Phase::Playing
        } else {
            Phase::Waiting
        };
        if summary.phase != phase {
            return Err(format!(
                "{:?} is listed as {:?}, and nobody was ready",
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

    /// Checks the picture of a room that `client` was given when it came in, and had asked for at `sent_ns`.
    pub(super) fn check_snapshot(
        &self,
        client: ClientIndex,
        snapshot: &Snapshot,
        sent_ns: u64,
    ) -> CheckResult {
        if self.was_closed(snapshot.room, sent_ns) {
            return Err(format!(
                "client {client} came into {:?}, which had closed before",
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
                    "{:?} shows {shown:?} at seat {seat}, where {certain:?} sits",
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
                    "{:?} shows {shown:?} at seat {seat}, where nobody sits",
                    created.name
                ));
            }
        }
        Ok(())
    }

    /// Checks a refusal to let `client` in, who had asked at `sent_ns`.
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
                    "client {client} was refused with {other:?} by a room that is gone"
                )),
            };
        };
        let name = &room.created.name;
        match code {
            RejectCode::RoomNotFound if room.is_certain(sent_ns) => Err(format!(
                "{name:?} was not found by client {client}, and somebody is in it"
            )),
            RejectCode::RoomNotFound => Ok(()),
            RejectCode::RoomFull if !spectate => {
                // The seeker itself is counted among those who may have come.
                let most = self.bounds(room, sent_ns, true).end().saturating_sub(1);
                if most >= u32::from(room.created.seats) || room.is_open_to_strangers() {
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

    /// Whether what `client` has seen of its room is what is known, now that nothing is under way.
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
        let strangers = room.is_open_to_strangers();
        let agree = |(known, seen): (&Option<String>, &Option<String>)| {
            known == seen || (strangers && known.is_none())
        };
        known.len() == seats.len() && known.iter().zip(seats).all(agree)
    }

    /// The fewest and the most who can have been seated (or watching) at any moment since `sent_ns`.
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
        let strangers = if room.is_open_to_strangers() {
            u32::MAX / 2
        } else {
            0
        };
        let most = count(visits.count()) + count(left_since.count()) + room.pending_joins + quick + strangers;
        certain..=most
    }

    fn may_be_joined(&self, room: &Room) -> bool {
        room.pending_joins > 0 || self.quick_matches_into(room) > 0 || room.is_open_to_strangers()
    }

    fn quick_matches_into(&self, room: &Room) -> u32 {
        if room.is_open_to_strangers() {
            self.quick_matches
        } else {
            0
        }
    }
}

impl Room {
    /// Whether somebody has been in it since this time without a break, so that it must be there.
    pub(super) fn is_certain(&self, sent_ns: u64) -> bool {
        self.visits.values().any(|visit| visit.is_certain(sent_ns))
    }

    /// Quick matches bring in whoever asks for one, be it a client of another program.
    fn is_open_to_strangers(&self) -> bool {
        self.created.game == QUICK_GAME && self.created.passcode.is_none()
    }
}

impl RoomVisit {
    fn is_certain(&self, sent_ns: u64) -> bool {
        self.since_ns <= sent_ns && !self.leaving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomId = RoomId(7);

    fn created() -> CreatedRoom {
        CreatedRoom {
            game: "relay".to_owned(),
            name: "a room".to_owned(),
            seats: 2,
            passcode: None,
        }
    }

    fn summary(taken: u8, spectators: u32) -> RoomSummary {
        RoomSummary {
            room: ROOM,
            game: "relay".to_owned(),
            name: "a room".to_owned(),
            phase: Phase::Playing,
            seats: 2,
            taken,
            spectators,
            passcode: false,
        }
    }

    /// Client 0 sits since 10, client 1 watches since 20.
    fn model() -> Model {
        let mut model = Model::default();
        model.client_joined(ROOM, created, (0, "anna", Some(0)), 10);
        model.client_joined(ROOM, created, (1, "bert", None), 20);
        model
    }

    #[test]
    fn a_count_may_lag_behind_only_as_far_as_the_question_goes_back() {
        let mut model = model();
        assert_eq!(model.check_summary(&summary(1, 1), 20), Ok(()));
        assert_eq!(
            model.check_summary(&summary(1, 0), 19),
            Ok(()),
            "asked before client 1 was in"
        );
        assert!(model.check_summary(&summary(1, 0), 20).is_err());
        assert!(model.check_summary(&summary(0, 1), 20).is_err());
        assert!(model.check_summary(&summary(2, 1), 20).is_err());
        model.add_pending_join(ROOM);
        assert_eq!(
            model.check_summary(&summary(2, 1), 20),
            Ok(()),
            "somebody may have come in"
        );
        model.client_leaving(ROOM, 1);
        assert_eq!(
            model.check_summary(&summary(1, 0), 20),
            Ok(()),
            "client 1 may have gone"
        );
        model.client_left(ROOM, 1, 30);
        assert_eq!(
            model.check_summary(&summary(1, 1), 30),
            Ok(()),
            "the question may have come first"
        );
        model.end_pending_join(ROOM, 31);
        assert!(model.check_summary(&summary(1, 1), 32).is_err());
    }

    #[test]
    fn a_room_that_all_have_left_is_gone_unless_somebody_is_on_the_way_in() {
        let mut model = model();
        model.add_pending_join(ROOM);
        model.client_left(ROOM, 0, 30);
        model.client_left(ROOM, 1, 40);
        assert!(!model.was_closed(ROOM, 50) && model.room(ROOM).is_some());
        model.end_pending_join(ROOM, 60);
        assert!(model.was_closed(ROOM, 60) && !model.was_closed(ROOM, 59));
        assert!(
            model.check_summary(&summary(0, 0), 60).is_err(),
            "a room that had closed is listed"
        );
        assert_eq!(model.check_summary(&summary(0, 0), 59), Ok(()));
        model.forget_closed_before(61);
        assert!(!model.was_closed(ROOM, 60));
    }

    #[test]
    fn altered_rooms_and_wrong_refusals_are_noticed() {
        let model = model();
        for altered in [
            RoomSummary {
                seats: 3,
                ..summary(1, 1)
            },
            RoomSummary {
                passcode: true,
                ..summary(1, 1)
            },
            RoomSummary {
                game: "eights".to_owned(),
                ..summary(1, 1)
            },
            RoomSummary {
                phase: Phase::Waiting,
                ..summary(1, 1)
            },
        ] {
            assert!(model.check_summary(&altered, 20).is_err(), "{altered:?}");
        }
        let refused = |code| model.check_refusal(2, ROOM, false, code, 20);
        assert!(refused(RejectCode::RoomNotFound).is_err());
        assert!(refused(RejectCode::RoomFull).is_err(), "one seat is free");
        assert!(refused(RejectCode::WrongPasscode).is_err());
        assert_eq!(
            model.check_refusal(2, RoomId(8), false, RejectCode::RoomNotFound, 20),
            Ok(())
        );
    }

    #[test]
    fn a_full_room_is_full_for_whoever_comes_then() {
        let mut model = model();
        model.client_joined(ROOM, created, (2, "cleo", Some(1)), 25);
        model.add_pending_join(ROOM);
        assert_eq!(
            model.check_refusal(3, ROOM, false, RejectCode::RoomFull, 30),
            Ok(())
        );
        assert!(
            model
                .check_refusal(3, ROOM, true, RejectCode::RoomFull, 30)
                .is_err(),
            "one can watch"
        );
    }

    #[test]
    fn at_rest_everybody_must_have_seen_the_same() {
        let model = model();
        assert!(model.matches_view(ROOM, &[Some("anna".to_owned()), None]));
        assert!(!model.matches_view(ROOM, &[None, None]));
        assert!(!model.matches_view(ROOM, &[Some("anna".to_owned()), Some("bert".to_owned())]));
        assert!(!model.matches_view(RoomId(8), &[None, None]));
    }
}
