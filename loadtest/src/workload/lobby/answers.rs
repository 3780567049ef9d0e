//! Whether an answer is possible, given the request and the model.

use forkade_protocol::{RejectCode, RoomId, RoomSummary, Snapshot};

use super::Lobby;
use super::member::{PendingRequest, RequestKind, RoomView};
use super::model::{CheckResult, CreatedRoom, QUICK_GAME, Room};
use crate::workload::ClientIndex;

impl Lobby {
    pub(super) fn check_joined(
        &mut self,
        client: ClientIndex,
        pending: PendingRequest,
        snapshot: &Snapshot,
        now_ns: u64,
    ) {
        let sent_ns = pending.sent_ns;
        let own = (client, self.members[client as usize].name.clone());
        let shown = snapshot
            .seat
            .and_then(|seat| snapshot.seats.get(usize::from(seat))?.as_ref());
        if snapshot.seat.is_some() && shown.map(|info| &info.name) != Some(&own.1) {
            self.check(Err(format!("client {client}, {}, is shown as {shown:?}", own.1)));
        }
        let result = self.model.check_snapshot(client, snapshot, sent_ns);
        self.check(result);
        let is_seated = snapshot.seat.is_some();
        let result = match &pending.kind {
            RequestKind::Create(created) => {
                self.count_detail("created");
                // A quick match may have put another client into the room, whose answer came first.
                let may_have_others = created.game == QUICK_GAME && created.passcode.is_none();
                let is_new =
                    snapshot.seats.iter().flatten().count() == 1 && self.model.room(snapshot.room).is_none();
                let reported = (
                    &snapshot.game,
                    &snapshot.name,
                    snapshot.seats.len(),
                    snapshot.seat,
                );
                let is_same = reported == (&created.game, &created.name, usize::from(created.seats), Some(0));
                if is_same && (is_new || may_have_others) {
                    Ok(())
                } else {
                    Err(format!(
                        "client {client} created {created:?} and got {snapshot:?}"
                    ))
                }
            }
            RequestKind::Join { room, spectate } => {
                self.count_detail(if *spectate { "watched" } else { "joined" });
                if (snapshot.room, is_seated) == (*room, !spectate) {
                    Ok(())
                } else {
                    Err(format!(
                        "client {client} asked for {:?} and got {snapshot:?}",
                        pending.kind
                    ))
                }
            }
            RequestKind::QuickMatch => {
                self.count_detail("matched_quickly");
                self.model.end_quick_match();
                let is_locked = self
                    .model
                    .room(snapshot.room)
                    .is_some_and(|room| room.created.passcode.is_some());
                if snapshot.game == QUICK_GAME && is_seated && !is_locked {
                    Ok(())
                } else {
                    Err(format!("client {client} was matched quickly into {snapshot:?}"))
                }
            }
            other => Err(format!(
                "client {client} asked for {other:?} and joined {:?}",
                snapshot.name
            )),
        };
        self.check(result);
        let pending_join = match pending.kind {
            RequestKind::Join { room, .. } => Some(room),
            _ => None,
        };
        self.on_joined(own, snapshot, now_ns, pending.kind);
        // Only after the join is entered: a room with neither members nor pending joins counts as closed.
        if let Some(room) = pending_join {
            self.model.end_pending_join(room, now_ns);
        }
    }

    /// Enters that a client is in a room.
    pub(super) fn on_joined(
        &mut self,
        (client, name): (ClientIndex, String),
        snapshot: &Snapshot,
        now_ns: u64,
        kind: RequestKind,
    ) {
        let created = || match kind {
            RequestKind::Create(created) => created,
            // A room that the quick match has found or created.
            _ => CreatedRoom {
                game: snapshot.game.clone(),
                name: snapshot.name.clone(),
                seats: snapshot.rules.seats,
                passcode: None,
            },
        };
        self.model
            .client_joined(snapshot.room, created, (client, &name, snapshot.seat), now_ns);
        self.members[client as usize].view = Some(RoomView::of(snapshot));
    }

    pub(super) fn on_left(&mut self, client: ClientIndex, now_ns: u64) {
        if let Some(view) = self.members[client as usize].view.take() {
            self.model.client_left(view.room, client, now_ns);
        }
    }

    pub(super) fn check_refused(
        &mut self,
        client: ClientIndex,
        pending: PendingRequest,
        code: RejectCode,
        text: &str,
        now_ns: u64,
    ) {
        let sent_ns = pending.sent_ns;
        let result = match pending.kind {
            // A server limits each player's request rate, which a closed loop may reach.
            _ if code == RejectCode::TooFast => {
                self.count_detail("too_fast");
                if let RequestKind::Join { room, .. } = pending.kind {
                    self.model.end_pending_join(room, now_ns);
                }
                Ok(())
            }
            RequestKind::Create(_) | RequestKind::QuickMatch if code == RejectCode::RoomsFull => {
                self.counts.rejected += 1;
                Ok(())
            }
            RequestKind::Join { room, spectate } => {
                self.count_detail("came_too_late");
                let result = self.model.check_refusal(client, room, spectate, code, sent_ns);
                self.model.end_pending_join(room, now_ns);
                result
            }
            RequestKind::Invalid { code: due, room } => {
                self.count_detail("refused_as_due");
                let may_be_gone = room
                    .is_some_and(|room| !self.model.room(room).is_some_and(|room| room.is_certain(sent_ns)));
                if code == due || (code == RejectCode::RoomNotFound && may_be_gone) {
                    Ok(())
                } else {
                    Err(format!(
                        "client {client} was refused with {code:?} ({text}) instead of {due:?}"
                    ))
                }
            }
            ref other => Err(format!(
                "client {client} asked for {other:?} and was refused: {code:?}: {text}"
            )),
        };
        if let RequestKind::QuickMatch = pending.kind {
            self.model.end_quick_match();
        }
        self.check(result);
    }

    /// Checks one page of a list. If the list has further pages, returns the request for the next one.
    pub(super) fn check_list(
        &mut self,
        client: ClientIndex,
        pending: PendingRequest,
        rooms: &[RoomSummary],
        next: Option<RoomId>,
    ) -> Option<(RequestKind, RoomId)> {
        match pending.kind {
            RequestKind::Find { room, name } => {
                self.count_detail("found");
                for summary in rooms {
                    let result = self.model.check_summary(summary, pending.sent_ns);
                    self.check(result);
                    if !summary.name.contains(&name) {
                        self.check(Err(format!(
                            "{:?} is no room with {name:?} in its name",
                            summary.name
                        )));
                    }
                }
                let must_be_there = self
                    .model
                    .room(room)
                    .is_some_and(|room| room.is_certain(pending.sent_ns));
                // Rooms created by quick matches share a name, and may fill more than a page.
                if must_be_there && next.is_none() && !rooms.iter().any(|summary| summary.room == room) {
                    self.check(Err(format!(
                        "client {client} did not find {name:?}, and a client is in it"
                    )));
                }
                None
            }
            RequestKind::List {
                game,
                mut seen,
                began_ns,
            } => {
                for summary in rooms {
                    let result =
                        self.check_list_entry(client, summary, game, seen.insert(summary.room), began_ns);
                    self.check(result);
                }
                if let Some(after) = next {
                    return Some((RequestKind::List { game, seen, began_ns }, after));
                }
                self.count_detail("listed");
                let is_missing = |(id, room): &(RoomId, &Room)| {
                    room.created.game == game && room.is_certain(began_ns) && !seen.contains(id)
                };
                let missing: Vec<String> = self
                    .model
                    .rooms()
                    .filter(is_missing)
                    .map(|(_, room)| room.created.name.clone())
                    .collect();
                for name in missing {
                    self.check(Err(format!(
                        "client {client} received a list without {name:?}, and a client is in it"
                    )));
                }
                None
            }
            other => {
                self.check(Err(format!(
                    "client {client} asked for {other:?} and received a list"
                )));
                None
            }
        }
    }

    fn check_list_entry(
        &self,
        client: ClientIndex,
        summary: &RoomSummary,
        game: &str,
        is_new: bool,
        began_ns: u64,
    ) -> CheckResult {
        if !is_new {
            return Err(format!(
                "client {client} received a list with {:?} twice",
                summary.name
            ));
        }
        if summary.game != game {
            return Err(format!(
                "client {client} received a list of {game} with {summary:?}"
            ));
        }
        // A room of this run without a known member is being created, or has just closed.
        let is_ours = summary.name.starts_with(&self.tag) && (game != QUICK_GAME || summary.passcode);
        let is_known = self.model.room(summary.room).is_some() || self.model.is_closed(summary.room);
        let is_being_made = || {
            let pending = self.members.iter().filter_map(|member| member.pending.as_ref());
            let mut created = pending.filter_map(|pending| match &pending.kind {
                RequestKind::Create(created) => Some(&created.name),
                _ => None,
            });
            created.any(|name| *name == summary.name)
        };
        if is_ours && !is_known && !is_being_made() {
            return Err(format!(
                "client {client} received a list with {:?}, which had closed long before",
                summary.name
            ));
        }
        self.model.check_summary(summary, began_ns)
    }
}
