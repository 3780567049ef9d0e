//! Relay: every client sends numbered messages on a schedule, the server relays each to all members of the
//! room, and each of them checks the number and the content.

use forkade_protocol::{ClientMessage, RoomEvent, ServerMessage, codec};

use super::fanout::{Fanout, number_of, request_of};
use super::pace::Pace;
use super::{Actions, ClientIndex, Counts, Figures, Workload};
use crate::plan::WorkloadPlan;

/// The relay workload.
#[derive(Debug)]
pub(crate) struct Relay {
    payload_bytes: usize,
    pace: Pace,
    fanout: Fanout,
    counts: Counts,
}

impl Relay {
    pub(crate) fn new(plan: &WorkloadPlan) -> Self {
        Self {
            payload_bytes: plan.payload_bytes as usize,
            pace: Pace::new(plan),
            fanout: Fanout::new(plan.shape.clients, plan.shape.room_size),
            counts: Counts::default(),
        }
    }

    fn send(&mut self, client: ClientIndex, intended_ns: u64, actions: &mut Actions) {
        let header = Header {
            sender: client,
            number: self.fanout.send(client),
            intended_ns,
        };
        let message = ClientMessage::Act {
            request: request_of(header.number),
            action: header.payload(self.payload_bytes),
        };
        self.counts.sent += 1;
        actions.sends.push((client, message));
    }

    /// Closed loop: the next message follows when the last one has been received, refused or skipped.
    fn continue_closed_loop(&mut self, client: ClientIndex, now_ns: u64, actions: &mut Actions) {
        if self.pace.is_closed_loop(now_ns) {
            self.send(client, now_ns, actions);
        }
    }

    fn on_relayed(&mut self, receiver: ClientIndex, data: &[u8], now_ns: u64, actions: &mut Actions) {
        let Some(header) = self.verify(receiver, data) else {
            self.counts.mismatches += 1;
            return;
        };
        let Header {
            sender,
            number,
            intended_ns,
        } = header;
        if !self.fanout.receive(receiver, sender, number, &mut self.counts) {
            return;
        }
        let own = sender == receiver;
        actions.receipt(intended_ns, now_ns, own);
        // A message that arrives late, after a resync, has been followed already.
        if own && number + 1 == self.fanout.sent(receiver) {
            self.continue_closed_loop(receiver, now_ns, actions);
        }
    }

    /// The header of relayed bytes, if a member of the receiver's room has sent exactly these bytes.
    fn verify(&self, receiver: ClientIndex, data: &[u8]) -> Option<Header> {
        let (_seat, payload): (u8, Vec<u8>) = codec::decode(data).ok()?;
        let header = Header::parse(&payload)?;
        let is_from_room = self.fanout.is_for(receiver, header.sender, header.number);
        (is_from_room && header.payload(self.payload_bytes) == payload).then_some(header)
    }

    fn on_rejected(&mut self, client: ClientIndex, request: u32, now_ns: u64, actions: &mut Actions) {
        self.counts.rejected += 1;
        match number_of(request, self.fanout.sent(client)) {
            Some(number) => {
                self.fanout.refuse(client, number);
                self.continue_closed_loop(client, now_ns, actions);
            }
            None => self.counts.mismatches += 1,
        }
    }
}

impl Workload for Relay {
    fn start(&mut self, now_ns: u64, end_ns: u64, actions: &mut Actions) {
        for client in self.pace.start(now_ns, end_ns, actions) {
            self.send(client, now_ns, actions);
        }
    }

    fn due(&mut self, client: ClientIndex, intended_ns: u64, _now_ns: u64, actions: &mut Actions) {
        if self.pace.take_due(client, intended_ns, actions) {
            self.send(client, intended_ns, actions);
        }
    }

    fn received(&mut self, client: ClientIndex, message: ServerMessage, now_ns: u64, actions: &mut Actions) {
        match message {
            ServerMessage::Event {
                event: RoomEvent::Game { data },
                ..
            } => {
                self.on_relayed(client, &data, now_ns, actions);
            }
            ServerMessage::Rejected { request, .. } => self.on_rejected(client, request, now_ns, actions),
            // Skipped messages show as numbers that never arrive. If the client's own copy is among them,
            // only this continues its loop.
            ServerMessage::Resync { .. } => self.continue_closed_loop(client, now_ns, actions),
            _ => {}
        }
    }

    fn stop(&mut self, now_ns: u64) {
        self.pace.stop(now_ns);
    }

    fn is_settled(&self) -> bool {
        self.fanout.is_settled()
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn figures(&self) -> Figures {
        Figures {
            counts: self.counts,
            lost: self.fanout.lost(),
            unsent: self.pace.unsent(),
            examples: self.fanout.examples(),
            ..Figures::default()
        }
    }
}

/// The start of every payload; the rest follows from sender and number, so that altered bytes are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    sender: ClientIndex,
    number: u64,
    intended_ns: u64,
}

impl Header {
    /// `payload_bytes` is at least [`RELAY_HEADER_BYTES`](crate::plan::RELAY_HEADER_BYTES).
    fn payload(&self, payload_bytes: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(payload_bytes);
        payload.extend(self.sender.to_le_bytes());
        payload.extend(self.number.to_le_bytes());
        payload.extend(self.intended_ns.to_le_bytes());
        let mut filler = self
            .number
            .wrapping_mul(31)
            .wrapping_add(u64::from(self.sender))
            .to_le_bytes()[0];
        payload.resize_with(payload_bytes, || {
            filler = filler.wrapping_add(1);
            filler
        });
        payload
    }

    fn parse(payload: &[u8]) -> Option<Self> {
        let (sender, rest) = payload.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (intended_ns, _) = rest.split_first_chunk()?;
        Some(Self {
            sender: ClientIndex::from_le_bytes(*sender),
            number: u64::from_le_bytes(*number),
            intended_ns: u64::from_le_bytes(*intended_ns),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use forkade_protocol::RejectCode;

    const SECOND: u64 = 1_000_000_000;

    fn relay(arguments: &[&str]) -> Relay {
        Relay::new(&Options::plan_for_test(arguments))
    }

    fn action((_, message): &(ClientIndex, ClientMessage)) -> Vec<u8> {
        match message {
            ClientMessage::Act { action, .. } => action.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn event(payload: Vec<u8>) -> ServerMessage {
        let data = codec::encode(&(0_u8, payload)).unwrap();
        ServerMessage::Event {
            number: 1,
            event: RoomEvent::Game { data },
        }
    }

    /// Starts a load that ends at `end_ns`, fires all timers before `until_ns`, and returns what was sent.
    fn run(relay: &mut Relay, end_ns: u64, until_ns: u64) -> Vec<(ClientIndex, ClientMessage)> {
        let mut actions = Actions::default();
        relay.start(0, end_ns, &mut actions);
        let mut sends = std::mem::take(&mut actions.sends);
        while let Some(next) = actions
            .timers
            .iter()
            .enumerate()
            .min_by_key(|(_, timer)| **timer)
            .map(|(at, _)| at)
        {
            let (due, client) = actions.timers.swap_remove(next);
            if due >= until_ns {
                break;
            }
            relay.due(client, due, due, &mut actions);
            sends.append(&mut actions.sends);
        }
        sends
    }

    #[test]
    fn an_open_loop_sends_at_its_rate_and_settles_when_all_is_received() {
        let mut relay = relay(&["--clients", "4", "--rate", "5"]);
        let sends = run(&mut relay, 2 * SECOND, 2 * SECOND);
        assert_eq!(sends.len(), 4 * 5 * 2);
        relay.stop(2 * SECOND);
        for send in &sends {
            assert!(!relay.is_settled());
            let first = send.0 / 2 * 2;
            for receiver in first..first + 2 {
                relay.received(receiver, event(action(send)), 2 * SECOND, &mut Actions::default());
            }
        }
        assert!(relay.is_settled());
        let figures = relay.figures();
        assert_eq!((figures.lost, figures.unsent), (0, 0));
        assert_eq!((figures.counts.sent, figures.counts.received), (40, 80));
        assert_eq!((figures.counts.mismatches, figures.counts.reordered), (0, 0));
    }

    #[test]
    fn messages_that_were_due_and_not_sent_are_counted() {
        let mut relay = relay(&["--clients", "2", "--rate", "10"]);
        let sends = run(&mut relay, 3 * SECOND, SECOND);
        assert_eq!(relay.figures().unsent, 60 - sends.len() as u64);
    }

    #[test]
    fn lost_duplicated_and_reordered_messages_are_told_apart() {
        let mut relay = relay(&["--clients", "2", "--rate", "4"]);
        let sends = run(&mut relay, SECOND, SECOND);
        let mine: Vec<_> = sends.iter().filter(|send| send.0 == 0).map(action).collect();
        for number in [0, 2, 1, 1] {
            relay.received(1, event(mine[number].clone()), SECOND, &mut Actions::default());
        }
        let figures = relay.figures();
        assert_eq!((figures.counts.duplicated, figures.counts.reordered), (1, 1));
        assert_eq!(figures.lost, 16 - 3, "8 messages go to both");
    }

    #[test]
    fn foreign_and_altered_payloads_are_mismatches() {
        let mut relay = relay(&["--clients", "4", "--rate", "1", "--payload", "64"]);
        let sends = run(&mut relay, SECOND, SECOND);
        let of_room_0 = action(sends.iter().find(|send| send.0 < 2).unwrap());
        let mut altered = of_room_0.clone();
        altered[50] ^= 1;
        let mut never_sent = of_room_0.clone();
        never_sent[4] = 9;
        for (receiver, payload) in [
            (0, altered),
            (0, never_sent),
            (2, of_room_0.clone()),
            (0, of_room_0[..63].to_vec()),
            (0, vec![]),
        ] {
            relay.received(receiver, event(payload), SECOND, &mut Actions::default());
        }
        assert_eq!((relay.counts().mismatches, relay.counts().received), (5, 0));
    }

    #[test]
    fn a_closed_loop_has_one_message_outstanding() {
        let mut relay = relay(&["--clients", "2", "--rate", "0"]);
        let first = run(&mut relay, SECOND, SECOND);
        assert_eq!(first.len(), 2);
        let mut actions = Actions::default();
        relay.received(1, event(action(&first[0])), 5, &mut actions);
        assert!(
            actions.sends.is_empty(),
            "the loop does not wait for the other client's message"
        );
        relay.received(0, event(action(&first[0])), 5, &mut actions);
        assert_eq!(actions.sends.len(), 1);
        relay.received(0, event(action(&first[0])), 6, &mut actions);
        assert_eq!(actions.sends.len(), 1, "a duplicate starts no second loop");
    }

    #[test]
    fn a_refused_message_is_not_lost_and_the_closed_loop_continues() {
        let mut relay = relay(&["--clients", "2", "--rate", "0"]);
        run(&mut relay, SECOND, SECOND);
        let mut actions = Actions::default();
        let refusal = ServerMessage::Rejected {
            request: 0,
            code: RejectCode::GameFailed,
            text: String::new(),
        };
        relay.received(0, refusal, 5, &mut actions);
        assert_eq!(actions.sends.len(), 1);
        assert_eq!(
            (relay.counts().rejected, relay.figures().lost),
            (1, 4),
            "sent 3, one of them refused"
        );
    }
}
