//! The lobby's churn: clients list, make, join, watch and leave rooms, match quickly, ask for what they may not have, and go
//! and come back as new players. Every answer must come, and be possible, given [what is known](model) of who is where; what
//! each member sees happening in its room must add up, and agree with what is known when all has come to rest.

mod member;
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use forkade_protocol::{
    ClientMessage, RejectCode, RoomEvent, RoomFilter, RoomId, RoomSettings, RoomSummary, ServerMessage,
    Snapshot,
};

use self::member::{Asked, Member, Pending, Place};
use self::model::{Made, Model, QUICK_GAME, Verdict};
use super::pace::Pace;
use super::{Actions, ClientIndex, Counts, Figures, Workload};
use crate::plan::Part;
use crate::random::Random;

/// Games of the rooms that are made; nobody in them gets ready, so their matches do not begin (relay's begins with the room).
const GAMES: [&str; 4] = ["relay", "tictactoe", "connect4", QUICK_GAME];
/// Mismatches that are told in words.
const EXAMPLES_MAX: usize = 20;
/// No room has this id: the server's begin with a generation above 0.
const NO_ROOM: RoomId = RoomId(0);

/// The lobby workload.
#[derive(Debug)]
pub(crate) struct Lobby {
    /// What the names of this run's rooms begin with.
    tag: String,
    members: Vec<Member>,
    model: Model,
    rooms_made: u64,
    pace: Pace,
    random: Random,
    counts: Counts,
    details: BTreeMap<&'static str, u64>,
    examples: Vec<String>,
}

impl Lobby {
    pub(crate) fn new(part: &Part) -> Self {
        Self {
            tag: format!("churn {}.{}.", std::process::id(), part.number),
            members: std::iter::repeat_with(Member::default)
                .take(part.shape.clients as usize)
                .collect(),
            model: Model::default(),
            rooms_made: 0,
            pace: Pace::new(part),
            random: Random::new(part.seed, 1),
            counts: Counts::default(),
            details: BTreeMap::new(),
            examples: Vec::new(),
        }
    }

    /// A client asks for something, whatever comes to its mind.
    fn act(&mut self, client: ClientIndex, intended_ns: u64, now_ns: u64, actions: &mut Actions) {
        let whim = self.random.below(100);
        let asked = match &self.members[client as usize].place {
            Some(place) => {
                let room = place.room;
                match whim {
                    0..60 => Asked::Leave { room },
                    60..80 => self.find(room),
                    80..85 => self.list(now_ns),
                    _ => Asked::Wrong {
                        code: RejectCode::AlreadyInRoom,
                        room: None,
                    },
                }
            }
            None => match whim {
                0..25 => self.create(client),
                25..60 => self.enter(client, whim >= 50),
                60..75 => Asked::QuickMatch,
                75..82 => self.find_any(client),
                82..88 => self.list(now_ns),
                88..95 => self.ask_wrongly(),
                _ => Asked::Renewal,
            },
        };
        self.ask(client, asked, None, intended_ns, now_ns, actions);
    }

    fn create(&mut self, client: ClientIndex) -> Asked {
        let most_rooms = self.members.len() / 2;
        if self.model.rooms().count() > most_rooms {
            return self.enter(client, false);
        }
        self.rooms_made += 1;
        let game = self.random.pick(&GAMES).copied().unwrap_or(QUICK_GAME);
        let has_passcode = self.random.below(4) == 0;
        Asked::Create(Made {
            game: game.to_owned(),
            // Its end keeps one name from being contained in another.
            name: format!("{}{};", self.tag, self.rooms_made),
            seats: 2,
            passcode: has_passcode.then(|| format!("open {}", self.rooms_made)),
        })
    }

    fn enter(&mut self, client: ClientIndex, watch: bool) -> Asked {
        match self.any_room() {
            Some(room) => Asked::Enter { room, watch },
            None => {
                // The first of all makes a room; with none there is nothing to limit.
                self.create(client)
            }
        }
    }

    fn any_room(&mut self) -> Option<RoomId> {
        let rooms: Vec<RoomId> = self.model.rooms().map(|(id, _)| id).collect();
        self.random.pick(&rooms).copied()
    }

    fn find(&self, room: RoomId) -> Asked {
        let name = self.model.room(room).map(|room| room.made.name.clone());
        Asked::Find {
            room,
            name: name.unwrap_or_default(),
        }
    }

    fn find_any(&mut self, client: ClientIndex) -> Asked {
        match self.any_room() {
            Some(room) => self.find(room),
            None => self.create(client),
        }
    }

    fn list(&mut self, now_ns: u64) -> Asked {
        Asked::List {
            game: self.random.pick(&GAMES).copied().unwrap_or(QUICK_GAME),
            seen: BTreeSet::new(),
            began_ns: now_ns,
        }
    }

    fn ask_wrongly(&mut self) -> Asked {
        let locked: Vec<RoomId> = self
            .model
            .rooms()
            .filter(|(_, room)| room.made.passcode.is_some())
            .map(|(id, _)| id)
            .collect();
        match (self.random.below(3), self.random.pick(&locked)) {
            (0, Some(room)) => Asked::Wrong {
                code: RejectCode::WrongPasscode,
                room: Some(*room),
            },
            (1, _) => Asked::Wrong {
                code: RejectCode::NotInRoom,
                room: None,
            },
            _ => Asked::Wrong {
                code: RejectCode::RoomNotFound,
                room: Some(NO_ROOM),
            },
        }
    }

    /// Sends the request; `after` is where a list goes on.
    fn ask(
        &mut self,
        client: ClientIndex,
        asked: Asked,
        after: Option<RoomId>,
        intended_ns: u64,
        now_ns: u64,
        actions: &mut Actions,
    ) {
        let member = &mut self.members[client as usize];
        member.request = member.request.wrapping_add(1);
        let request = member.request;
        match &asked {
            Asked::Enter { room, .. } => self.model.seek(*room),
            Asked::QuickMatch => self.model.quick_matches(true),
            Asked::Leave { room } => self.model.leave(*room, client),
            _ => {}
        }
        match message(&asked, request, after, &self.model) {
            Some(message) => actions.sends.push((client, message)),
            None => actions.renewals.push(client),
        }
        self.counts.sent += 1;
        member.pending = Some(Pending {
            request,
            intended_ns,
            asked_ns: now_ns,
            asked,
        });
    }

    /// The pending request, if `request` is its number; else the answer is to nothing that was asked.
    fn answered(
        &mut self,
        client: ClientIndex,
        request: u32,
        now_ns: u64,
        actions: &mut Actions,
    ) -> Option<Pending> {
        let member = &mut self.members[client as usize];
        let Some(pending) = member.pending.take_if(|pending| pending.request == request) else {
            self.judge(Err(format!(
                "client {client} got an answer to request {request}, which it did not wait for"
            )));
            return None;
        };
        self.counts.received += 1;
        actions.receipt(pending.intended_ns, now_ns, true);
        Some(pending)
    }

    fn joined(&mut self, client: ClientIndex, pending: Pending, snapshot: &Snapshot, now_ns: u64) {
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
    fn is_in(
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

    fn is_out(&mut self, client: ClientIndex, now_ns: u64) {
        if let Some(place) = self.members[client as usize].place.take() {
            self.model.left(place.room, client, now_ns);
        }
    }

    fn refused(&mut self, client: ClientIndex, pending: Pending, code: RejectCode, text: &str, now_ns: u64) {
        let asked_ns = pending.asked_ns;
        let verdict = match pending.asked {
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
    fn listed(
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
                let is_missing = |(id, room): &(RoomId, &model::Room)| {
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

    fn happened(&mut self, client: ClientIndex, number: u64, event: &RoomEvent) {
        let verdict = match &mut self.members[client as usize].place {
            Some(place) => place
                .happens(number, event)
                .map_err(|reason| format!("client {client} in room {}: {reason}", place.room)),
            None => Err(format!("client {client} is in no room and was told of {event:?}")),
        };
        self.judge(verdict);
    }

    /// The server says where the client is, instead of what has happened.
    fn resynced(&mut self, client: ClientIndex, snapshot: Option<&Snapshot>, now_ns: u64) {
        let before = self.members[client as usize]
            .place
            .as_ref()
            .map(|place| place.room);
        if before != snapshot.map(|snapshot| snapshot.room) {
            self.is_out(client, now_ns);
        }
        if let Some(snapshot) = snapshot {
            let own = (client, self.members[client as usize].name.clone());
            self.is_in(own, snapshot, now_ns, Asked::QuickMatch);
        }
    }

    /// What is due next, if anything is.
    fn go_on(&mut self, client: ClientIndex, now_ns: u64, actions: &mut Actions) {
        let member = &mut self.members[client as usize];
        if member.pending.is_some() || self.pace.is_stopped() {
            return;
        }
        if let Some(intended_ns) = member.backlog.pop_front() {
            self.act(client, intended_ns, now_ns, actions);
        } else if self.pace.is_closed_loop(now_ns) {
            self.act(client, now_ns, now_ns, actions);
        }
    }

    fn judge(&mut self, verdict: Verdict) {
        if let Err(reason) = verdict {
            self.counts.mismatches += 1;
            if self.examples.len() < EXAMPLES_MAX {
                self.examples.push(reason);
            }
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.details.entry(what).or_default() += 1;
    }

    /// What the oldest question that is not answered was asked at.
    fn oldest_question_ns(&self) -> u64 {
        let asked = self
            .members
            .iter()
            .filter_map(|member| member.pending.as_ref())
            .map(|pending| match &pending.asked {
                Asked::List { began_ns, .. } => *began_ns,
                _ => pending.asked_ns,
            });
        asked.min().unwrap_or(u64::MAX)
    }

    fn sees_what_is_known(&self, member: &Member) -> bool {
        let place = member.place.as_ref();
        place.is_none_or(|place| self.model.agrees(place.room, &place.seats))
    }
}

impl Workload for Lobby {
    fn welcomed(&mut self, client: ClientIndex, name: &str, now_ns: u64, actions: &mut Actions) {
        let member = &mut self.members[client as usize];
        name.clone_into(&mut member.name);
        if let Some(pending) = member
            .pending
            .take_if(|pending| matches!(pending.asked, Asked::Renewal))
        {
            self.counts.received += 1;
            self.count("came_back_as_new");
            actions.receipt(pending.intended_ns, now_ns, true);
            self.go_on(client, now_ns, actions);
        }
    }

    fn start(&mut self, now_ns: u64, end_ns: u64, actions: &mut Actions) {
        for client in self.pace.start(now_ns, end_ns, actions) {
            self.act(client, now_ns, now_ns, actions);
        }
    }

    fn due(&mut self, client: ClientIndex, intended_ns: u64, now_ns: u64, actions: &mut Actions) {
        if self.pace.is_due(client, intended_ns, actions) {
            self.members[client as usize].backlog.push_back(intended_ns);
            self.go_on(client, now_ns, actions);
        }
    }

    fn received(&mut self, client: ClientIndex, message: ServerMessage, now_ns: u64, actions: &mut Actions) {
        match message {
            ServerMessage::Event { number, event } => return self.happened(client, number, &event),
            ServerMessage::Resync { snapshot } => return self.resynced(client, snapshot.as_ref(), now_ns),
            ServerMessage::Rooms { request, rooms, next } => {
                if let Some(pending) = self.answered(client, request, now_ns, actions)
                    && let Some((asked, after)) = self.listed(client, pending, &rooms, next)
                {
                    self.ask(client, asked, Some(after), now_ns, now_ns, actions);
                }
                let oldest_ns = self.oldest_question_ns();
                self.model.forget_gone_before(oldest_ns);
            }
            ServerMessage::Joined { request, snapshot } => {
                if let Some(pending) = self.answered(client, request, now_ns, actions) {
                    self.joined(client, pending, &snapshot, now_ns);
                }
            }
            ServerMessage::Left { request } => {
                if let Some(pending) = self.answered(client, request, now_ns, actions) {
                    self.count("left");
                    if !matches!(pending.asked, Asked::Leave { .. }) {
                        self.judge(Err(format!(
                            "client {client} asked for {:?} and was let out",
                            pending.asked
                        )));
                    }
                    self.is_out(client, now_ns);
                }
            }
            ServerMessage::Rejected { request, code, text } => {
                if let Some(pending) = self.answered(client, request, now_ns, actions) {
                    self.refused(client, pending, code, &text, now_ns);
                }
            }
            _ => return,
        }
        self.go_on(client, now_ns, actions);
    }

    fn stop(&mut self, now_ns: u64) {
        self.pace.stop(now_ns);
    }

    fn is_settled(&self) -> bool {
        self.members.iter().all(|member| member.pending.is_none())
            && self.members.iter().all(|member| self.sees_what_is_known(member))
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures {
            counts: self.counts,
            lost: self
                .members
                .iter()
                .filter(|member| member.pending.is_some())
                .count() as u64,
            unsent: self.pace.unsent()
                + self
                    .members
                    .iter()
                    .map(|member| member.backlog.len() as u64)
                    .sum::<u64>(),
            details: self.details.iter().map(|(what, count)| (*what, *count)).collect(),
            examples: self.examples.clone(),
        };
        // While answers are missing nobody can tell what the others should have seen.
        if figures.lost == 0 {
            for member in self
                .members
                .iter()
                .filter(|member| !self.sees_what_is_known(member))
            {
                figures.counts.mismatches += 1;
                figures
                    .examples
                    .push(format!("in the end, {} had seen {:?}", member.name, member.place));
            }
        }
        figures
    }
}

/// How a request is put into words; nothing for a renewal, which is none.
fn message(asked: &Asked, request: u32, after: Option<RoomId>, model: &Model) -> Option<ClientMessage> {
    let passcode_of = |room: RoomId| model.room(room).and_then(|room| room.made.passcode.clone());
    Some(match asked {
        Asked::Create(made) => ClientMessage::CreateRoom {
            request,
            game: made.game.clone(),
            name: made.name.clone(),
            settings: RoomSettings {
                seats: made.seats,
                passcode: made.passcode.clone(),
                ..RoomSettings::default()
            },
        },
        Asked::Enter { room, watch: false } => ClientMessage::JoinRoom {
            request,
            room: *room,
            passcode: passcode_of(*room),
        },
        Asked::Enter { room, watch: true } => ClientMessage::Spectate {
            request,
            room: *room,
            passcode: passcode_of(*room),
        },
        Asked::QuickMatch => ClientMessage::QuickMatch {
            request,
            game: QUICK_GAME.to_owned(),
            options: Vec::new(),
        },
        Asked::Leave { .. } => ClientMessage::Leave { request },
        Asked::Wrong {
            code: RejectCode::NotInRoom,
            ..
        } => ClientMessage::Leave { request },
        Asked::Wrong { code, room } => ClientMessage::JoinRoom {
            request,
            room: room.unwrap_or(NO_ROOM),
            passcode: (*code == RejectCode::WrongPasscode).then(|| "let me in".to_owned()),
        },
        Asked::Find { name, .. } => ClientMessage::ListRooms {
            request,
            filter: RoomFilter {
                game: None,
                name_contains: Some(name.clone()),
                joinable: false,
            },
            after,
        },
        Asked::List { game, .. } => ClientMessage::ListRooms {
            request,
            filter: RoomFilter {
                game: Some((*game).to_owned()),
                name_contains: None,
                joinable: false,
            },
            after,
        },
        Asked::Renewal => return None,
    })
}
