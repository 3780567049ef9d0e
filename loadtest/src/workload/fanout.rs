//! Numbered messages from each client to all members of its group: how many each has sent, and which of them
//! each member has received.

use std::collections::BTreeSet;
use std::ops::Range;

use super::examples::Examples;
use super::{ClientIndex, Counts};
use crate::workload::sequence_checker::{Observation, SequenceChecker};

/// One stream of numbers per client, received by every member of the client's group, itself included.
#[derive(Debug)]
pub(super) struct Fanout {
    group_size: u32,
    senders: Vec<Sender>,
    /// Entry r × group size + m checks the stream to receiver r from member m of its group.
    checkers: Vec<SequenceChecker>,
    /// Outstanding receipts, as far as known.
    outstanding: u64,
    /// Descriptions of the first duplicates and late messages.
    examples: Examples,
}

#[derive(Debug, Clone, Default)]
struct Sender {
    /// Number of the next message, which is also how many were sent.
    sent: u64,
    refused: BTreeSet<u64>,
}

impl Fanout {
    /// Groups of `group_size` clients with consecutive indices.
    pub(super) fn new(clients: u32, group_size: u32) -> Self {
        let pairs = clients as usize * group_size as usize;
        Self {
            group_size,
            senders: vec![Sender::default(); clients as usize],
            checkers: std::iter::repeat_with(SequenceChecker::default)
                .take(pairs)
                .collect(),
            outstanding: 0,
            examples: Examples::default(),
        }
    }

    /// Counts a message that `client` sends now. Returns its number.
    pub(super) fn send(&mut self, client: ClientIndex) -> u64 {
        let sender = &mut self.senders[client as usize];
        sender.sent += 1;
        self.outstanding += u64::from(self.group_size);
        sender.sent - 1
    }

    /// How many messages `client` has sent.
    pub(super) fn sent(&self, client: ClientIndex) -> u64 {
        self.senders.get(client as usize).map_or(0, |sender| sender.sent)
    }

    /// Whether `sender` has sent this number, and is in the group of `receiver`.
    pub(super) fn is_for(&self, receiver: ClientIndex, sender: ClientIndex, number: u64) -> bool {
        self.group_of(receiver).contains(&sender) && number < self.sent(sender)
    }

    /// Records that `receiver` has received a message which [`Fanout::is_for`] it, and counts it. Returns
    /// whether it is no duplicate.
    pub(super) fn receive(
        &mut self,
        receiver: ClientIndex,
        sender: ClientIndex,
        number: u64,
        counts: &mut Counts,
    ) -> bool {
        counts.received += 1;
        let pair = receiver as usize * self.group_size as usize + (sender % self.group_size) as usize;
        match self.checkers[pair].observe(number) {
            Observation::Duplicated => {
                counts.duplicated += 1;
                self.examples.add(format!(
                    "client {receiver} received message {number} of client {sender} again"
                ));
                return false;
            }
            Observation::Reordered => {
                counts.reordered += 1;
                self.examples.add(format!(
                    "client {receiver} received message {number} of client {sender} after a later one"
                ));
            }
            Observation::InOrder => {}
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        true
    }

    /// Descriptions of duplicated, late and missing messages, up to a limit.
    pub(super) fn examples(&self) -> Vec<String> {
        let size = self.group_size as usize;
        let missing = self.checkers.iter().enumerate().filter_map(|(pair, checker)| {
            let (receiver, sender) = (pair / size, pair / size / size * size + pair % size);
            let Sender { sent, refused } = &self.senders[sender];
            let lost = checker.lost(*sent, refused);
            (lost > 0).then(|| {
                format!("client {receiver} has not received {lost} of the {sent} messages of client {sender}")
            })
        });
        self.examples.with(missing)
    }

    /// The server has refused a message, so no receiver expects it.
    pub(super) fn refuse(&mut self, client: ClientIndex, number: u64) {
        self.senders[client as usize].refused.insert(number);
        self.outstanding = self.outstanding.saturating_sub(u64::from(self.group_size));
    }

    /// The server has announced that so many receipts will not arrive.
    pub(super) fn give_up(&mut self, receipts: u64) {
        self.outstanding = self.outstanding.saturating_sub(receipts);
    }

    /// Whether no receipt is outstanding, as far as known.
    pub(super) fn is_settled(&self) -> bool {
        self.outstanding == 0
    }

    /// Receipts that have not arrived.
    pub(super) fn lost(&self) -> u64 {
        let size = self.group_size as usize;
        let lost = self.checkers.iter().enumerate().map(|(pair, checker)| {
            let (receiver, member) = (pair / size, pair % size);
            let sender = &self.senders[receiver / size * size + member];
            checker.lost(sender.sent, &sender.refused)
        });
        lost.sum()
    }

    fn group_of(&self, client: ClientIndex) -> Range<ClientIndex> {
        let first = client - client % self.group_size;
        first..first + self.group_size
    }
}

/// The request number of a sender's message: the lower half of its number.
#[expect(clippy::cast_possible_truncation, reason = "only the lower half is used")]
pub(super) fn request_of(number: u64) -> u32 {
    number as u32
}

/// The number of the latest message before `sent` that had this request number.
pub(super) fn number_of(request: u32, sent: u64) -> Option<u64> {
    let back = request_of(sent).wrapping_sub(request);
    sent.checked_sub(u64::from(back)).filter(|_| back > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_of_a_group_expect_messages_of_each_other() {
        let mut fanout = Fanout::new(6, 3);
        assert_eq!((fanout.send(4), fanout.send(4)), (0, 1));
        assert!(fanout.is_for(3, 4, 1) && fanout.is_for(4, 4, 0));
        assert!(!fanout.is_for(2, 4, 0), "another group");
        assert!(!fanout.is_for(3, 4, 2), "never sent");
        assert!(!fanout.is_for(5, 99, 0), "no such client");
    }

    #[test]
    fn a_refused_message_is_not_expected() {
        let (mut fanout, mut counts) = (Fanout::new(2, 2), Counts::default());
        fanout.send(0);
        fanout.send(0);
        fanout.refuse(0, 0);
        for receiver in 0..2 {
            assert!(!fanout.is_settled());
            assert!(fanout.receive(receiver, 0, 1, &mut counts));
        }
        assert!(fanout.is_settled());
        assert_eq!((fanout.lost(), counts.received), (0, 2));
        assert!(fanout.examples().is_empty());
    }

    #[test]
    fn errors_are_described() {
        let (mut fanout, mut counts) = (Fanout::new(4, 2), Counts::default());
        fanout.send(2);
        for _ in 0..2 {
            fanout.receive(2, 2, 0, &mut counts);
        }
        let examples = fanout.examples();
        assert_eq!(examples[0], "client 2 received message 0 of client 2 again");
        assert_eq!(
            examples[1],
            "client 3 has not received 1 of the 1 messages of client 2"
        );
    }

    #[test]
    fn request_numbers_wrap() {
        let sent = (1 << 32) + 1;
        assert_eq!(number_of(0, sent), Some(1 << 32));
        assert_eq!(number_of(u32::MAX, sent), Some((1 << 32) - 1));
        assert_eq!(number_of(7, 7), None);
        assert_eq!(number_of(9, 7), None);
    }
}
