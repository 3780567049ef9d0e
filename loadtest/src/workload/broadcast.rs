//! One client sends and all others receive: a seat of a room that all others watch (broadcast), or a client
//! whose lobby chat all clients on the server receive (announce). Every line is numbered, must reach each
//! recipient and its sender once and in order, and counts as delivered when the last one has received it.

use std::collections::{BTreeSet, VecDeque};

use forkade_protocol::{ChatScope, ClientMessage, RoomEvent, ServerMessage, codec};

use super::examples::Examples;
use super::fanout::{number_of, request_of};
use super::{Actions, ClientIndex, Counts, Figures, Workload};
use crate::plan::{WorkloadKind, WorkloadPlan};
use crate::schedule::Schedule;
use crate::workload::sequence_checker::{Observation, SequenceChecker};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Broadcast {
    target: Target,
    line_bytes: usize,
    /// Distinguishes this run's lines from others.
    tag: u32,
    rate: f64,
    end_ns: u64,
    stopped: bool,
    /// Clients of one audience, its sender included, which is the first.
    audience_size: u32,
    audiences: Vec<Audience>,
    /// The lines that each client has received from its audience's sender.
    recipients: Vec<SequenceChecker>,
    counts: Counts,
    /// Receipts that the server announced as missed.
    missed: u64,
    examples: Examples,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Room,
    Lobby,
}

/// A sender and the state of its lines.
#[derive(Debug, Default)]
struct Audience {
    sent: u64,
    refused: BTreeSet<u64>,
    /// Lines that not all have received, the oldest first: how many receipts are missing.
    outstanding: VecDeque<u32>,
    /// Open loop only, once the load has begun.
    schedule: Option<Schedule>,
}

impl Broadcast {
    pub(crate) fn new(plan: &WorkloadPlan) -> Self {
        let (target, audience_size) = match plan.kind {
            WorkloadKind::Announce => (Target::Lobby, plan.shape.clients),
            _ => (Target::Room, plan.shape.room_size),
        };
        let clients = plan.shape.clients as usize;
        Self {
            target,
            line_bytes: plan.payload_bytes as usize,
            tag: std::process::id(),
            rate: plan.rate,
            end_ns: 0,
            stopped: false,
            audience_size,
            audiences: std::iter::repeat_with(Audience::default)
                .take(clients / audience_size as usize)
                .collect(),
            recipients: std::iter::repeat_with(SequenceChecker::default)
                .take(clients)
                .collect(),
            counts: Counts::default(),
            missed: 0,
            examples: Examples::default(),
        }
    }

    fn send_line(&mut self, sender: ClientIndex, intended_ns: u64, actions: &mut Actions) {
        let size = self.audience_size;
        let audience = &mut self.audiences[(sender / size) as usize];
        let number = audience.sent;
        audience.sent += 1;
        audience.outstanding.push_back(size);
        self.counts.sent += 1;
        let (request, text) = (request_of(number), self.line_text(sender, number, intended_ns));
        let message = match self.target {
            Target::Room => ClientMessage::Act {
                request,
                action: text.into_bytes(),
            },
            Target::Lobby => ClientMessage::Chat {
                request,
                scope: ChatScope::Lobby,
                text,
            },
        };
        actions.sends.push((sender, message));
    }

    fn line_text(&self, sender: ClientIndex, number: u64, intended_ns: u64) -> String {
        let words = format!("load {} {sender} {number} {intended_ns} ", self.tag);
        format!("{words:.<length$}", length = self.line_bytes)
    }

    /// Sender, number and intended time of a line, if it is exactly the line that was sent.
    fn parse_line(&self, text: &str) -> Option<(ClientIndex, u64, u64)> {
        let mut numbers = text.strip_prefix("load ")?.split(' ');
        let tag: u32 = numbers.next()?.parse().ok()?;
        let sender = numbers.next()?.parse().ok()?;
        let number = numbers.next()?.parse().ok()?;
        let intended_ns = numbers.next()?.parse().ok()?;
        let is_own = tag == self.tag && self.line_text(sender, number, intended_ns) == text;
        is_own.then_some((sender, number, intended_ns))
    }

    fn on_line(&mut self, recipient: ClientIndex, text: &str, now_ns: u64, actions: &mut Actions) {
        let index = recipient / self.audience_size;
        let sender = index * self.audience_size;
        let audience = &mut self.audiences[index as usize];
        let sent = audience.sent;
        let Some((of, number, intended_ns)) = self.parse_line(text).filter(|line| line.1 < sent) else {
            self.counts.mismatches += 1;
            return;
        };
        if of != sender {
            self.counts.mismatches += 1;
            return;
        }
        self.counts.received += 1;
        match self.recipients[recipient as usize].observe(number) {
            Observation::InOrder => {}
            Observation::Duplicated => {
                self.counts.duplicated += 1;
                self.examples
                    .add(format!("client {recipient} received line {number} again"));
                return;
            }
            Observation::Reordered => {
                self.counts.reordered += 1;
                self.examples.add(format!(
                    "client {recipient} received line {number} after a later one"
                ));
            }
        }
        actions.receipt(intended_ns, now_ns, recipient == sender);
        if self.record_delivery(index, number) {
            actions.completions.push(now_ns.saturating_sub(intended_ns));
            self.continue_closed_loop(sender, now_ns, actions);
        }
    }

    /// Records one receipt of a line. Returns whether it was the last one.
    fn record_delivery(&mut self, index: u32, number: u64) -> bool {
        let audience = &mut self.audiences[index as usize];
        let oldest = audience.sent - audience.outstanding.len() as u64;
        let missing = number
            .checked_sub(oldest)
            .and_then(|at| audience.outstanding.get_mut(usize::try_from(at).ok()?));
        let Some(missing) = missing.filter(|missing| **missing > 0) else {
            return false;
        };
        *missing -= 1;
        let is_last = *missing == 0;
        audience.drop_delivered();
        is_last
    }

    fn on_rejected(&mut self, sender: ClientIndex, request: u32, now_ns: u64, actions: &mut Actions) {
        self.counts.rejected += 1;
        let audience = &mut self.audiences[(sender / self.audience_size) as usize];
        let Some(number) = number_of(request, audience.sent) else {
            self.counts.mismatches += 1;
            return;
        };
        audience.refused.insert(number);
        let oldest = audience.sent - audience.outstanding.len() as u64;
        let at = number.checked_sub(oldest).and_then(|at| usize::try_from(at).ok());
        if let Some(missing) = at.and_then(|at| audience.outstanding.get_mut(at)) {
            *missing = 0;
        }
        audience.drop_delivered();
        self.continue_closed_loop(sender, now_ns, actions);
    }

    /// Closed loop: the next line follows when the last one is delivered or refused.
    fn continue_closed_loop(&mut self, sender: ClientIndex, now_ns: u64, actions: &mut Actions) {
        if self.rate == 0.0 && now_ns < self.end_ns && !self.stopped {
            self.send_line(sender, now_ns, actions);
        }
    }

    fn lost_by(&self, recipient: usize) -> u64 {
        let audience = &self.audiences[recipient / self.audience_size as usize];
        self.recipients[recipient].lost(audience.sent, &audience.refused)
    }
}

impl Audience {
    fn drop_delivered(&mut self) {
        while self.outstanding.front() == Some(&0) {
            self.outstanding.pop_front();
        }
    }
}

impl Workload for Broadcast {
    fn start(&mut self, now_ns: u64, end_ns: u64, actions: &mut Actions) {
        self.end_ns = end_ns;
        for (sender, index) in (0..)
            .step_by(self.audience_size as usize)
            .zip(0..self.audiences.len())
        {
            if self.rate == 0.0 {
                self.send_line(sender, now_ns, actions);
            } else {
                let schedule = Schedule::new(now_ns, self.rate);
                actions.timers.push((schedule.intended(), sender));
                self.audiences[index].schedule = Some(schedule);
            }
        }
    }

    fn due(&mut self, sender: ClientIndex, intended_ns: u64, _now_ns: u64, actions: &mut Actions) {
        if intended_ns >= self.end_ns || self.stopped {
            return;
        }
        let index = sender / self.audience_size;
        if let Some(schedule) = &mut self.audiences[index as usize].schedule {
            schedule.advance();
            actions.timers.push((schedule.intended(), sender));
        }
        self.send_line(sender, intended_ns, actions);
    }

    fn received(&mut self, client: ClientIndex, message: ServerMessage, now_ns: u64, actions: &mut Actions) {
        match (message, self.target) {
            (
                ServerMessage::Event {
                    event: RoomEvent::Game { data },
                    ..
                },
                Target::Room,
            ) => {
                let relayed: Option<(u8, Vec<u8>)> = codec::decode(&data).ok();
                let text = relayed.and_then(|(_seat, payload)| String::from_utf8(payload).ok());
                self.on_line(client, &text.unwrap_or_default(), now_ns, actions);
            }
            (
                ServerMessage::Chat {
                    scope: ChatScope::Lobby,
                    text,
                    ..
                },
                Target::Lobby,
            ) => self.on_line(client, &text, now_ns, actions),
            (ServerMessage::Rejected { request, .. }, _) => {
                self.on_rejected(client, request, now_ns, actions)
            }
            // Skipped lines show as numbers that never arrive.
            (ServerMessage::ChatMissed { lines }, Target::Lobby) => self.missed += lines,
            _ => {}
        }
    }

    fn stop(&mut self, now_ns: u64) {
        self.stopped = true;
        self.end_ns = self.end_ns.min(now_ns);
    }

    fn is_settled(&self) -> bool {
        self.audiences
            .iter()
            .all(|audience| audience.outstanding.is_empty())
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn figures(&self) -> Figures {
        let schedules = self
            .audiences
            .iter()
            .filter_map(|audience| audience.schedule.as_ref());
        let recipients = 0..self.recipients.len();
        let missing = recipients.clone().filter_map(|recipient| {
            let lost = self.lost_by(recipient);
            (lost > 0).then(|| format!("client {recipient} has not received {lost} lines"))
        });
        Figures {
            counts: self.counts,
            lost: recipients.map(|recipient| self.lost_by(recipient)).sum(),
            unsent: schedules
                .map(|schedule| schedule.remaining_before(self.end_ns))
                .sum(),
            details: match self.target {
                Target::Room => Vec::new(),
                Target::Lobby => vec![("lobby_lines_missed", self.missed)],
            },
            examples: self.examples.with(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use forkade_protocol::RejectCode;

    const SECOND: u64 = 1_000_000_000;

    fn broadcast(arguments: &[&str]) -> (Broadcast, Actions) {
        let mut broadcast = Broadcast::new(&Options::plan_for_test(arguments));
        let mut actions = Actions::default();
        broadcast.start(0, SECOND, &mut actions);
        (broadcast, actions)
    }

    fn event(message: &ClientMessage) -> ServerMessage {
        let ClientMessage::Act { action, .. } = message else {
            panic!("{message:?}")
        };
        let data = codec::encode(&(0_u8, action)).expect("it is encoded");
        ServerMessage::Event {
            number: 1,
            event: RoomEvent::Game { data },
        }
    }

    #[test]
    fn a_line_is_delivered_when_the_last_recipient_has_it() {
        let (mut broadcast, mut actions) =
            broadcast(&["--workload", "broadcast", "--clients", "3", "--rate", "2"]);
        assert_eq!(actions.timers, [(0, 0)], "only the sender has a timer");
        broadcast.due(0, 0, 0, &mut actions);
        let line = event(&actions.sends[0].1);
        for (recipient, now_ns) in [(2, 5), (0, 6), (1, 9)] {
            assert!(!broadcast.is_settled() && actions.completions.is_empty());
            broadcast.received(recipient, line.clone(), now_ns, &mut actions);
        }
        assert!(broadcast.is_settled());
        assert_eq!(actions.completions, [9]);
        assert_eq!(actions.receipts.len(), 3);
        broadcast.received(1, line, 10, &mut actions);
        assert_eq!((broadcast.counts.duplicated, broadcast.figures().lost), (1, 0));
    }

    #[test]
    fn a_closed_loop_waits_for_the_last_recipient() {
        let (mut broadcast, mut actions) =
            broadcast(&["--workload", "broadcast", "--clients", "2", "--rate", "0"]);
        let line = event(&actions.sends[0].1);
        broadcast.received(0, line.clone(), 5, &mut actions);
        assert_eq!(actions.sends.len(), 1);
        broadcast.received(1, line, 6, &mut actions);
        assert_eq!(actions.sends.len(), 2);
        assert_eq!(broadcast.figures().lost, 2, "the second line is outstanding");
    }

    #[test]
    fn lines_of_others_are_mismatches_and_refused_lines_are_not_expected() {
        let (mut broadcast, mut actions) =
            broadcast(&["--workload", "announce", "--clients", "2", "--rate", "1"]);
        broadcast.due(0, 0, 0, &mut actions);
        let chat = |text: &str| ServerMessage::Chat {
            scope: ChatScope::Lobby,
            from: "load".to_owned(),
            text: text.to_owned(),
        };
        let never_sent = broadcast.line_text(0, 1, 0);
        for text in ["hello", &never_sent] {
            broadcast.received(1, chat(text), 5, &mut actions);
        }
        assert_eq!((broadcast.counts.mismatches, broadcast.counts.received), (2, 0));
        let refusal = ServerMessage::Rejected {
            request: 0,
            code: RejectCode::ChatTooFast,
            text: String::new(),
        };
        broadcast.received(0, refusal, 6, &mut actions);
        assert!(broadcast.is_settled());
        assert_eq!(broadcast.figures().lost, 0);
    }
}
