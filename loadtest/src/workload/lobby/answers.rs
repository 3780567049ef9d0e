//! Whether an answer is possible, given what was asked for and what is known.

use forkade_protocol::{RejectCode, RoomId, RoomSummary, Snapshot};

use super::Lobby;
use super::member::{Asked, Pending, Place};
use super::model::{Made, QUICK_GAME, Room, Verdict};
use crate::workload::ClientIndex;

impl Lobby {
    pub(super) fn joined(&mut self, client: ClientIndex, pending: Pending, snapshot: &Snapshot, now_ns: u64) {
        let asked_ns = pending.asked_ns;
        let own = (client, self.members[client as usize].name.clone());
        let shown = snapshot
            .seat
            .and_then(|seat| snapshot.seats.get(usize::from(seat))?.as_ref());
        if snapshot.seat.is_some() && shown.map(|info| &info.name) != Some(&own.1) {
            self.judge(Err(format!("client {client}, {}, is shown as {shown:?}", own.1)));
        }
        let verdict = self.model.check_snapshot(client, snapshot, asked_ns);
        self.judge(verdict);
        let is_seated = snapshot.seat.is_some();
        let verdict = match &pending.asked {
            Asked::Create(made) => {
                self.count("created");
                // A quick match may have brought somebody in already, who has told of it.
                let may_have_company = made.game == QUICK_GAME && made.passcode.is_none();
                let is_new =
                    snapshot.seats.iter().flatten().count() == 1 && self.model.room(snapshot.room).is_none();
                let told = (
                    &snapshot.game,
                    &snapshot.name,
                    snapshot.seats.len(),
                    snapshot.seat,
                );
                let is_it = told == (&made.game, &made.name, usize::from(made.seats), Some(0));
                if is_it && (is_new || may_have_company) {
                    Ok(())
                } else {
                    Err(format!("client {client} made {made:?} and got {snapshot:?}"))
                }
            }
            Asked::Enter { room, watch } => {
                self.count(if *watch { "watched" } else { "joined" });
                if (snapshot.room, is_seated) == (*room, !watch) {
                    Ok(())
                } else {
                    Err(format!(
                        "client {client} asked for {:?} and got {snapshot:?}",
                        pending.asked
                    ))
                }
            }
            Asked::QuickMatch => {
                self.count("matched_quickly");
                self.model.quick_matches(false);
                let is_locked = self
                    .model
                    .room(snapshot.room)
                    .is_some_and(|room| room.made.passcode.is_some());
                if snapshot.game == QUICK_GAME && is_seated && !is_locked {
                    Ok(())
                } else {
                    Err(format!("client {client} was matched quickly into {snapshot:?}"))
                }
            }
            other => Err(format!(
                "client {client} asked for {other:?} and was let into {:?}",
                snapshot.name
            )),
        };
        self.judge(verdict);
        let sought = match pending.asked {
            Asked::Enter { room, .. } => Some(room),
            _ => None,
        };
        self.is_in(own, snapshot, now_ns, pending.asked);
        // Only now: a room with neither members nor seekers has closed.
        if let Some(room) = sought {
            self.model.sought(room, now_ns);
        }
    }

    /// A client is in a room now.
    pub(super) fn is_in(
        &mut self,
        (client, name): (ClientIndex, String),
        snapshot: &Snapshot,
        now_ns: u64,
        asked: Asked,
    ) {
        let made = || match asked {
            Asked::Create(made) => made,
            // Somebody's whom the quick match has found, or made for it.
            _ => Made {
                game: snapshot.game.clone(),
                name: snapshot.name.clone(),
                seats: snapshot.rules.seats,
                passcode: None,
            },
        };
        self.model
            .enter(snapshot.room, made, (client, &name, snapshot.seat), now_ns);
        self.members[client as usize].place = Some(Place::of(snapshot));
    }

    pub(super) fn is_out(&mut self, client: ClientIndex, now_ns: u64) {
        if let Some(place) = self.members[client as usize].place.take() {
            self.model.left(place.room, client, now_ns);
        }
    }

    pub(super) fn refused(
        &mut self,
        client: ClientIndex,
        pending: Pending,
        code: RejectCode,
        text: &str,
        now_ns: u64,
    ) {
        let asked_ns = pending.asked_ns;
        let verdict = match pending.asked {
            // A server lets each player ask for so much and no more; a closed loop may come that far.
            _ if code == RejectCode::TooFast => {
                self.count("too_fast");
                if let Asked::Enter { room, .. } = pending.asked {
                    self.model.sought(room, now_ns);
                }
                Ok(())
            }
            Asked::Create(_) | Asked::QuickMatch if code == RejectCode::RoomsFull => {
                self.counts.rejected += 1;
                Ok(())
            }
            Asked::Enter { room, watch } => {
                self.count("came_too_late");
                let verdict = self.model.check_refusal(client, room, watch, code, asked_ns);
                self.model.sought(room, now_ns);
                verdict
            }
            Asked::Wrong { code: due, room } => {
                self.count("refused_as_due");
                let may_be_gone = room.is_some_and(|room| {
                    !self
                        .model
                        .room(room)
                        .is_some_and(|room| room.is_certain(asked_ns))
                });
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
        if let Asked::QuickMatch = pending.asked {
            self.model.quick_matches(false);
        }
        self.judge(verdict);
    }

    /// Gives where the list goes on, and what it has shown so far, if it does.
    pub(super) fn listed(
        &mut self,
        client: ClientIndex,
        pending: Pending,
        rooms: &[RoomSummary],
        next: Option<RoomId>,
    ) -> Option<(Asked, RoomId)> {
        match pending.asked {
            Asked::Find { room, name } => {
                self.count("found");
                for summary in rooms {
                    let verdict = self.model.check_summary(summary, pending.asked_ns);
                    self.judge(verdict);
                    if !summary.name.contains(&name) {
                        self.judge(Err(format!(
                            "{:?} is no room with {name:?} in its name",
                            summary.name
                        )));
                    }
                }
                let must_be_there = self
                    .model
                    .room(room)
                    .is_some_and(|room| room.is_certain(pending.asked_ns));
                // Rooms made by quick matches share a name, and may fill more than a page.
                if must_be_there && next.is_none() && !rooms.iter().any(|summary| summary.room == room) {
                    self.judge(Err(format!(
                        "client {client} did not find {name:?}, and somebody is in it"
                    )));
                }
                None
            }
            Asked::List {
                game,
                mut seen,
                began_ns,
            } => {
                for summary in rooms {
                    let verdict =
                        self.check_listed(client, summary, game, seen.insert(summary.room), began_ns);
                    self.judge(verdict);
                }
                if let Some(after) = next {
                    return Some((Asked::List { game, seen, began_ns }, after));
                }
                self.count("listed");
                let is_missing = |(id, room): &(RoomId, &Room)| {
                    room.made.game == game && room.is_certain(began_ns) && !seen.contains(id)
                };
                let missing: Vec<String> = self
                    .model
                    .rooms()
                    .filter(is_missing)
                    .map(|(_, room)| room.made.name.clone())
                    .collect();
                for name in missing {
                    self.judge(Err(format!(
                        "client {client} was given a list without {name:?}, and somebody is in it"
                    )));
                }
                None
            }
            other => {
                self.judge(Err(format!(
                    "client {client} asked for {other:?} and was given a list"
                )));
                None
            }
        }
    }

    fn check_listed(
        &self,
        client: ClientIndex,
        summary: &RoomSummary,
        game: &str,
        is_new: bool,
        began_ns: u64,
    ) -> Verdict {
        if !is_new {
            return Err(format!(
                "client {client} was given a list with {:?} twice",
                summary.name
            ));
        }
        if summary.game != game {
            return Err(format!(
                "client {client} was given a list of {game} with {summary:?}"
            ));
        }
        // A room of ours that nobody is known to be in: somebody is about to be, or to have been.
        let is_ours = summary.name.starts_with(&self.tag) && (game != QUICK_GAME || summary.passcode);
        let is_known = self.model.room(summary.room).is_some() || self.model.is_remembered(summary.room);
        let is_being_made = || {
            let pending = self.members.iter().filter_map(|member| member.pending.as_ref());
            let mut made = pending.filter_map(|pending| match &pending.asked {
                Asked::Create(made) => Some(&made.name),
                _ => None,
            });
            made.any(|name| *name == summary.name)
        };
        if is_ours && !is_known && !is_being_made() {
            return Err(format!(
                "client {client} was given a list with {:?}, which was gone long ago",
                summary.name
            ));
        }
        self.model.check_summary(summary, began_ns)
    }
}
