//! A client's knowledge of its room, from the messages it received.

use std::collections::BTreeMap;

use forkade_protocol::{Phase, RoomEvent, RoomId, RoomRules, SeatInfo, ServerMessage, Snapshot};

use crate::model::Room;

/// A room as a client has reconstructed it: a snapshot, and all events since.
pub(crate) struct View {
    pub(crate) room: RoomId,
    pub(crate) seat: Option<u8>,
    phase: Phase,
    seats: Vec<Option<SeatInfo>>,
    owner: Option<u8>,
    rules: RoomRules,
    /// By seat: the player for whom it is reserved.
    kept: BTreeMap<u8, String>,
    turn: Option<u8>,
    /// Number of the last event.
    event: u64,
}

impl View {
    /// Applies a message of the server's stream. `room_of` returns rooms of the model.
    pub(crate) fn hear<'m>(
        view: &mut Option<Self>,
        message: &ServerMessage,
        room_of: impl Fn(RoomId) -> Option<&'m Room>,
    ) {
        match message {
            ServerMessage::Joined { snapshot, .. }
            | ServerMessage::Started { snapshot }
            | ServerMessage::Resync {
                snapshot: Some(snapshot),
            } => {
                if let (ServerMessage::Started { .. }, Some(before)) = (message, view.as_ref()) {
                    assert!(
                        snapshot.event > before.event,
                        "a match that started before the last event"
                    );
                }
                *view = Some(Self::of(snapshot));
            }
            ServerMessage::Left { .. } | ServerMessage::Resync { snapshot: None } => *view = None,
            ServerMessage::Removed { room, .. } => {
                if let Some(view) = view.take() {
                    assert_eq!(view.room, *room, "the room that one is removed from");
                }
            }
            ServerMessage::Event { number, event } => {
                let view = view.as_mut().expect("events come in rooms");
                assert_eq!(*number, view.event + 1, "an event was lost or repeated");
                if let Some(room) = room_of(view.room) {
                    let index = usize::try_from(*number - 1).expect("few events");
                    assert_eq!(room.events.get(index), Some(event), "event {number}");
                }
                view.event = *number;
                view.apply(event);
            }
            _ => {}
        }
    }

    fn of(snapshot: &Snapshot) -> Self {
        let Snapshot {
            room,
            phase,
            seat,
            seats,
            event,
            owner,
            rules,
            reservations,
            turn,
            ..
        } = snapshot;
        Self {
            room: *room,
            seat: *seat,
            phase: *phase,
            seats: seats.clone(),
            owner: *owner,
            rules: rules.clone(),
            kept: reservations
                .iter()
                .map(|kept| (kept.seat, kept.name.clone()))
                .collect(),
            turn: turn.map(|turn| turn.seat),
            event: *event,
        }
    }

    fn apply(&mut self, event: &RoomEvent) {
        match event {
            RoomEvent::Joined { seat, name } => {
                self.kept.remove(seat);
                self.seats[usize::from(*seat)] = Some(SeatInfo {
                    name: name.clone(),
                    connected: true,
                    ready: false,
                });
            }
            RoomEvent::Left { seat } | RoomEvent::Kicked { seat } => {
                assert_ne!(self.seat, Some(*seat), "a removed player is told otherwise");
                self.seats[usize::from(*seat)] = None;
                if self.owner == Some(*seat) {
                    self.owner = None;
                }
            }
            RoomEvent::Owner { seat } => self.owner = Some(*seat),
            RoomEvent::Configured { rules } => {
                self.rules = rules.clone();
                self.seats.resize(usize::from(rules.seats), None);
                self.clear_ready();
            }
            RoomEvent::Connection { seat, connected } => self.info(*seat).connected = *connected,
            RoomEvent::Ready { seat, ready } => self.info(*seat).ready = *ready,
            RoomEvent::Finished { .. } => {
                self.phase = Phase::Finished;
                self.turn = None;
                self.clear_ready();
            }
            RoomEvent::Reserved { seat, name } => {
                self.kept.insert(*seat, name.clone());
            }
            RoomEvent::ReservationOver { seat } => assert!(self.kept.remove(seat).is_some()),
            RoomEvent::Turn { seat, .. } => self.turn = Some(*seat),
            RoomEvent::TurnTimedOut { seat } => assert_eq!(self.turn.take(), Some(*seat)),
            RoomEvent::TurnStopped => self.turn = None,
            RoomEvent::Game { .. } | RoomEvent::Chat { .. } => {}
            RoomEvent::Started => panic!("never on the wire"),
        }
    }

    fn clear_ready(&mut self) {
        self.seats
            .iter_mut()
            .flatten()
            .for_each(|info| info.ready = false);
    }

    fn info(&mut self, seat: u8) -> &mut SeatInfo {
        self.seats[usize::from(seat)]
            .as_mut()
            .expect("news of a taken seat")
    }

    /// Compares the client's knowledge, after it has received everything, with the model.
    pub(crate) fn compare(&self, room: &Room) {
        assert_eq!(self.event, room.events.len() as u64, "the last event");
        assert_eq!(self.phase, room.phase, "the phase");
        assert_eq!(self.seats, room.seats, "the seats");
        assert_eq!(self.owner, room.owner, "the owner");
        assert_eq!(self.rules, room.rules, "the settings");
        let kept = room.kept.iter().map(|(seat, (_, name))| (*seat, name.clone()));
        assert_eq!(self.kept, kept.collect(), "the seats that are kept");
        assert_eq!(self.turn, room.turn, "whose turn it is");
    }
}
