//! Load on the lobby: clients list, create, join, watch and leave rooms, ask for quick matches, send requests
//! that must be refused, and reconnect as new players. Every request must be answered, and the answer must be
//! possible given [what all clients know](model) about the rooms. The events that each member receives must
//! be consistent, and its view must match the model when no request is pending.

mod action_generator;
mod answers;
mod member;
mod model;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use forkade_protocol::{RoomEvent, RoomId, ServerMessage, Snapshot};

use self::member::{Member, PendingRequest, RequestKind};
use self::model::{CheckResult, Model};
use super::examples::Examples;
use super::pace::Pace;
use super::{Actions, ClientIndex, Counts, Figures, Workload};
use crate::plan::WorkloadPlan;
use crate::random::Random;

/// The lobby workload.
#[derive(Debug)]
pub(crate) struct Lobby {
    /// The prefix of the names of this run's rooms.
    tag: String,
    members: Vec<Member>,
    model: Model,
    rooms_created: u64,
    pace: Pace,
    random: Random,
    counts: Counts,
    details: BTreeMap<&'static str, u64>,
    examples: Examples,
}

impl Lobby {
    pub(crate) fn new(plan: &WorkloadPlan) -> Self {
        Self {
            tag: format!("churn {}.{}.", std::process::id(), plan.number),
            members: std::iter::repeat_with(Member::default)
                .take(plan.shape.clients as usize)
                .collect(),
            model: Model::default(),
            rooms_created: 0,
            pace: Pace::new(plan),
            random: Random::new(plan.seed, 1),
            counts: Counts::default(),
            details: BTreeMap::new(),
            examples: Examples::default(),
        }
    }

    /// Sends the request. `after` is where a list continues.
    fn send_request(
        &mut self,
        client: ClientIndex,
        kind: RequestKind,
        after: Option<RoomId>,
        intended_ns: u64,
        now_ns: u64,
        actions: &mut Actions,
    ) {
        let member = &mut self.members[client as usize];
        member.request = member.request.wrapping_add(1);
        let request = member.request;
        match &kind {
            RequestKind::Join { room, .. } => self.model.add_pending_join(*room),
            RequestKind::QuickMatch => self.model.add_quick_match(),
            RequestKind::Leave { room } => self.model.client_leaving(*room, client),
            _ => {}
        }
        match action_generator::message(&kind, request, after, &self.model) {
            Some(message) => actions.sends.push((client, message)),
            None => actions.new_players.push(client),
        }
        self.counts.sent += 1;
        member.pending = Some(PendingRequest {
            request,
            intended_ns,
            sent_ns: now_ns,
            kind,
        });
    }

    /// Takes the pending request if its number is `request`; otherwise the answer is unexpected.
    fn take_pending(
        &mut self,
        client: ClientIndex,
        request: u32,
        now_ns: u64,
        actions: &mut Actions,
    ) -> Option<PendingRequest> {
        let member = &mut self.members[client as usize];
        let Some(pending) = member.pending.take_if(|pending| pending.request == request) else {
            self.check(Err(format!(
                "client {client} received an answer to request {request}, which is not pending"
            )));
            return None;
        };
        self.counts.received += 1;
        actions.receipt(pending.intended_ns, now_ns, true);
        Some(pending)
    }

    fn on_event(&mut self, client: ClientIndex, number: u64, event: &RoomEvent) {
        let result = match &mut self.members[client as usize].view {
            Some(view) => view
                .apply_event(number, event)
                .map_err(|reason| format!("client {client} in room {}: {reason}", view.room)),
            None => Err(format!("client {client} is in no room and received {event:?}")),
        };
        self.check(result);
    }

    /// The server has sent a snapshot instead of the events since.
    fn on_resync(&mut self, client: ClientIndex, snapshot: Option<&Snapshot>, now_ns: u64) {
        let before = self.members[client as usize].view.as_ref().map(|view| view.room);
        if before != snapshot.map(|snapshot| snapshot.room) {
            self.on_left(client, now_ns);
        }
        if let Some(snapshot) = snapshot {
            let own = (client, self.members[client as usize].name.clone());
            self.on_joined(own, snapshot, now_ns, RequestKind::QuickMatch);
        }
    }

    /// Sends the next request that is due, if any.
    fn send_next(&mut self, client: ClientIndex, now_ns: u64, actions: &mut Actions) {
        let member = &mut self.members[client as usize];
        if member.pending.is_some() || self.pace.is_stopped() {
            return;
        }
        if let Some(intended_ns) = member.backlog.pop_front() {
            self.send_random_request(client, intended_ns, now_ns, actions);
        } else if self.pace.is_closed_loop(now_ns) {
            self.send_random_request(client, now_ns, now_ns, actions);
        }
    }

    fn check(&mut self, result: CheckResult) {
        if let Err(reason) = result {
            self.counts.mismatches += 1;
            self.examples.add(reason);
        }
    }

    fn count_detail(&mut self, what: &'static str) {
        *self.details.entry(what).or_default() += 1;
    }

    /// The time of the oldest unanswered request.
    fn oldest_request_ns(&self) -> u64 {
        let kind = self
            .members
            .iter()
            .filter_map(|member| member.pending.as_ref())
            .map(|pending| match &pending.kind {
                RequestKind::List { began_ns, .. } => *began_ns,
                _ => pending.sent_ns,
            });
        kind.min().unwrap_or(u64::MAX)
    }

    fn view_matches_model(&self, member: &Member) -> bool {
        let view = member.view.as_ref();
        view.is_none_or(|view| self.model.matches_view(view.room, &view.seats))
    }
}

impl Workload for Lobby {
    fn welcomed(&mut self, client: ClientIndex, name: &str, now_ns: u64, actions: &mut Actions) {
        let member = &mut self.members[client as usize];
        name.clone_into(&mut member.name);
        if let Some(pending) = member
            .pending
            .take_if(|pending| matches!(pending.kind, RequestKind::NewPlayer))
        {
            self.counts.received += 1;
            self.count_detail("came_back_as_new");
            actions.receipt(pending.intended_ns, now_ns, true);
            self.send_next(client, now_ns, actions);
        }
    }

    fn start(&mut self, now_ns: u64, end_ns: u64, actions: &mut Actions) {
        for client in self.pace.start(now_ns, end_ns, actions) {
            self.send_random_request(client, now_ns, now_ns, actions);
        }
    }

    fn due(&mut self, client: ClientIndex, intended_ns: u64, now_ns: u64, actions: &mut Actions) {
        if self.pace.take_due(client, intended_ns, actions) {
            self.members[client as usize].backlog.push_back(intended_ns);
            self.send_next(client, now_ns, actions);
        }
    }

    fn received(&mut self, client: ClientIndex, message: ServerMessage, now_ns: u64, actions: &mut Actions) {
        match message {
            ServerMessage::Event { number, event } => return self.on_event(client, number, &event),
            ServerMessage::Resync { snapshot } => return self.on_resync(client, snapshot.as_ref(), now_ns),
            ServerMessage::Rooms { request, rooms, next } => {
                if let Some(pending) = self.take_pending(client, request, now_ns, actions)
                    && let Some((kind, after)) = self.check_list(client, pending, &rooms, next)
                {
                    self.send_request(client, kind, Some(after), now_ns, now_ns, actions);
                }
                let oldest_ns = self.oldest_request_ns();
                self.model.forget_closed_before(oldest_ns);
            }
            ServerMessage::Joined { request, snapshot } => {
                if let Some(pending) = self.take_pending(client, request, now_ns, actions) {
                    self.check_joined(client, pending, &snapshot, now_ns);
                }
            }
            ServerMessage::Left { request } => {
                if let Some(pending) = self.take_pending(client, request, now_ns, actions) {
                    self.count_detail("left");
                    if !matches!(pending.kind, RequestKind::Leave { .. }) {
                        self.check(Err(format!(
                            "client {client} asked for {:?} and was told that it has left",
                            pending.kind
                        )));
                    }
                    self.on_left(client, now_ns);
                }
            }
            ServerMessage::Rejected { request, code, text } => {
                if let Some(pending) = self.take_pending(client, request, now_ns, actions) {
                    self.check_refused(client, pending, code, &text, now_ns);
                }
            }
            _ => return,
        }
        self.send_next(client, now_ns, actions);
    }

    fn stop(&mut self, now_ns: u64) {
        self.pace.stop(now_ns);
    }

    fn is_settled(&self) -> bool {
        self.members.iter().all(|member| member.pending.is_none())
            && self.members.iter().all(|member| self.view_matches_model(member))
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
            examples: self.examples.with(std::iter::empty()),
        };
        // While answers are missing, the model does not know what the other members should have seen.
        if figures.lost == 0 {
            for member in self
                .members
                .iter()
                .filter(|member| !self.view_matches_model(member))
            {
                figures.counts.mismatches += 1;
                figures
                    .examples
                    .push(format!("at the end, {} had seen {:?}", member.name, member.view));
            }
        }
        figures
    }
}
