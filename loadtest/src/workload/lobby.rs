//! The lobby's churn: clients list, make, join, watch and leave rooms, match quickly, ask for what they may not have, and go
//! and come back as new players. Every answer must come, and be possible, given [what is known](model) of who is where; what
//! each member sees happening in its room must add up, and agree with what is known when all has come to rest.

mod action_generator;
mod answers;
mod member;
mod model;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use forkade_protocol::{RoomEvent, RoomId, ServerMessage, Snapshot};

use self::member::{Asked, Member, Pending};
use self::model::{Model, Verdict};
use super::pace::Pace;
use super::{Actions, ClientIndex, Counts, Figures, Workload};
use crate::plan::Part;
use crate::random::Random;

/// Mismatches that are told in words.
const EXAMPLES_MAX: usize = 20;

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
        match action_generator::message(&asked, request, after, &self.model) {
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
