//! How many connections of a kind a keeper has. All counts share one word, so a reader that adds up several keepers
//! never counts a connection twice.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::CONNECTION_SLOTS_PER_KEEPER;
use shmem::shared_record;
use shmem::word::Word;

shared_record! {
    /// A keeper's counts for one kind of connection. The keeper writes them; the ticker writes the count of orphaned
    /// connections.
    pub struct ConnectionCounts {
        word: AtomicU64,
    }
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy)]
pub struct CountsSnapshot(u64);

/// The fields of the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Number of the last connection that the keeper received from its channel.
    received: u32,
    /// Connections that the keeper holds.
    held: u16,
    /// Connections whose handlers live on without a keeper.
    orphaned: u16,
    /// One of the held connections is not yet counted as received.
    is_receiving: bool,
}

const COUNT_BITS: u32 = 15;
const COUNT_MAX: u16 = (1 << COUNT_BITS) - 1;
const _: () = assert!(CONNECTION_SLOTS_PER_KEEPER <= COUNT_MAX as u32);

impl Counts {
    /// The counts in a word.
    pub fn of(word: u64) -> Self {
        let count = |shift: u32| u16::try_from(word >> shift & u64::from(COUNT_MAX)).expect("masked");
        Self {
            received: u32::try_from(word >> 32).expect("what is left"),
            held: count(1 + COUNT_BITS),
            orphaned: count(1),
            is_receiving: word & 1 != 0,
        }
    }

    fn in_flight(self, sent: u32) -> u32 {
        // The keeper may have received a connection before the listener has counted it as sent.
        newer(sent, self.received).saturating_sub(self.is_receiving.into())
    }

    fn word(self) -> u64 {
        u64::from(self.received) << 32
            | u64::from(self.held.min(COUNT_MAX)) << (1 + COUNT_BITS)
            | u64::from(self.orphaned.min(COUNT_MAX)) << 1
            | u64::from(self.is_receiving)
    }

    /// How many connections there are: see [`ConnectionCounts::open`].
    pub fn open(self, sent: u32) -> u32 {
        self.in_flight(sent) + u32::from(self.held) + u32::from(self.orphaned)
    }

    /// See [`ConnectionCounts::add_new`].
    #[must_use]
    pub fn with_new(self) -> Self {
        Self {
            held: self.held.saturating_add(1),
            is_receiving: true,
            ..self
        }
    }

    /// See [`ConnectionCounts::add_adopted`].
    #[must_use]
    pub fn with_adopted(self) -> Self {
        Self {
            held: self.held.saturating_add(1),
            orphaned: self.orphaned.saturating_sub(1),
            ..self
        }
    }

    /// See [`ConnectionCounts::begin`].
    #[must_use]
    pub fn with_orphaned(self, orphaned: u16) -> Self {
        Self {
            held: 0,
            orphaned,
            ..self
        }
    }

    /// See [`ConnectionCounts::set_received_up_to`].
    #[must_use]
    pub fn with_received_up_to(self, number: u32) -> Self {
        Self {
            received: self.received.wrapping_add(newer(number, self.received)),
            is_receiving: false,
            ..self
        }
    }

    /// Changes the counts in a word, and returns the former ones.
    pub fn change<W: Word>(word: &W, change: impl Fn(Self) -> Self) -> Self {
        Self::of(word.update(|word| change(Self::of(word)).word()))
    }

    /// Sets the count of orphaned connections in a word, if nothing has changed since it was `since`.
    pub fn set_orphaned<W: Word>(word: &W, orphaned: u16, since: u64) {
        let counts = Self {
            orphaned,
            ..Self::of(since)
        };
        let _ = word.compare_exchange(since, counts.word(), Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// How many numbers `number` is after `last`; 0 if it is not. Numbers wrap around.
fn newer(number: u32, last: u32) -> u32 {
    number.wrapping_sub(last).cast_signed().max(0).cast_unsigned()
}

impl ConnectionCounts {
    /// How many connections there are, if `sent` is the number of the last one sent to the keeper: held, in flight,
    /// and orphaned.
    pub fn open(&self, sent: u32) -> u32 {
        self.counts().open(sent)
    }

    /// How many of them are in flight.
    pub fn in_flight(&self, sent: u32) -> u32 {
        self.counts().in_flight(sent)
    }

    /// Connections that the keeper holds.
    pub fn held(&self) -> u32 {
        self.counts().held.into()
    }

    /// Counts a new connection as held; [`set_received_up_to`](Self::set_received_up_to) follows.
    pub fn add_new(&self) {
        Counts::change(&self.word, Counts::with_new);
    }

    /// Counts an adopted connection as held.
    pub fn add_adopted(&self) {
        Counts::change(&self.word, Counts::with_adopted);
    }

    /// Counts a held connection as orphaned.
    pub fn mark_orphaned(&self) {
        Counts::change(&self.word, |counts| Counts {
            held: counts.held.saturating_sub(1),
            orphaned: counts.orphaned.saturating_add(1),
            ..counts
        });
    }

    /// Counts a connection as no longer held.
    pub fn remove(&self) {
        Counts::change(&self.word, |counts| Counts {
            held: counts.held.saturating_sub(1),
            is_receiving: false,
            ..counts
        });
    }

    /// The keeper has received all connections up to this number, or they were lost in flight. Returns how many are
    /// new.
    pub fn set_received_up_to(&self, number: u32) -> u32 {
        let before = Counts::change(&self.word, |counts| counts.with_received_up_to(number));
        newer(number, before.received)
    }

    /// Starts a new keeper's counts: it holds none, and `orphaned` live on. (A connection that its predecessor was
    /// receiving is among them.)
    pub fn begin(&self, orphaned: u16) {
        Counts::change(&self.word, |counts| counts.with_orphaned(orphaned));
    }

    /// The counts now, for a later [`set_orphaned`](Self::set_orphaned).
    pub fn snapshot(&self) -> CountsSnapshot {
        CountsSnapshot(self.word.load(Ordering::Acquire))
    }

    /// Sets the count of orphaned connections, if nothing has changed since the snapshot. Otherwise the caller must
    /// count again.
    pub fn set_orphaned(&self, orphaned: u16, since: CountsSnapshot) {
        Counts::set_orphaned(&self.word, orphaned, since.0);
    }

    fn counts(&self) -> Counts {
        Counts::of(self.word.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmem::sys::memory::Mapping;

    fn connection_counts() -> &'static ConnectionCounts {
        Mapping::create_record("connection_counts-test").expect("memory is there")
    }

    #[test]
    fn a_connection_in_flight_to_the_keeper_is_counted_once() {
        let connection_counts = connection_counts();
        assert_eq!(connection_counts.open(3), 3, "all are on their way");
        for number in 1..=3 {
            connection_counts.add_new();
            assert_eq!(connection_counts.open(3), 3);
            assert_eq!(connection_counts.set_received_up_to(number), 1);
            assert_eq!(connection_counts.open(3), 3);
        }
        connection_counts.add_new();
        assert_eq!(connection_counts.open(3), 4, "the listener has yet to enter it");
        assert_eq!(
            (
                connection_counts.set_received_up_to(4),
                connection_counts.open(3),
                connection_counts.open(4)
            ),
            (1, 4, 4)
        );
        connection_counts.remove();
        assert_eq!((connection_counts.open(4), connection_counts.held()), (3, 3));
    }

    #[test]
    fn a_connection_lost_in_flight_or_refused_is_not_counted() {
        let connection_counts = connection_counts();
        assert_eq!(
            (connection_counts.set_received_up_to(5), connection_counts.open(5)),
            (5, 0)
        );
        assert_eq!(connection_counts.set_received_up_to(5), 0);
        connection_counts.add_new();
        connection_counts.remove();
        assert_eq!(connection_counts.open(6), 1, "it is still to be received");
        assert_eq!(
            (connection_counts.set_received_up_to(6), connection_counts.open(6)),
            (1, 0)
        );
    }

    #[test]
    fn a_connection_between_two_keepers_is_counted_once() {
        let connection_counts = connection_counts();
        for number in 1..=3 {
            connection_counts.add_new();
            connection_counts.set_received_up_to(number);
        }
        connection_counts.begin(3);
        assert_eq!((connection_counts.open(3), connection_counts.held()), (3, 0));
        connection_counts.add_adopted();
        assert_eq!((connection_counts.open(3), connection_counts.held()), (3, 1));
        connection_counts.mark_orphaned();
        assert_eq!((connection_counts.open(3), connection_counts.held()), (3, 0));
        connection_counts.add_adopted();
        let snapshot = connection_counts.snapshot();
        connection_counts.add_adopted();
        connection_counts.set_orphaned(2, snapshot);
        assert_eq!(
            connection_counts.open(3),
            3,
            "what was counted before that is not true any more"
        );
        connection_counts.set_orphaned(0, connection_counts.snapshot());
        assert_eq!(connection_counts.open(3), 2);
    }

    #[test]
    fn a_connection_being_received_when_the_keeper_dies_is_counted_once() {
        let connection_counts = connection_counts();
        connection_counts.add_new();
        connection_counts.begin(1);
        assert_eq!(connection_counts.open(1), 1);
        assert_eq!(
            (connection_counts.set_received_up_to(1), connection_counts.open(1)),
            (1, 1)
        );
    }

    #[test]
    fn numbers_wrap_around() {
        let connection_counts = connection_counts();
        connection_counts.set_received_up_to(1 << 30);
        connection_counts.set_received_up_to(1 << 31);
        connection_counts.set_received_up_to(3 << 30);
        connection_counts.set_received_up_to(u32::MAX);
        assert_eq!(connection_counts.open(1), 2);
        assert_eq!(
            (connection_counts.set_received_up_to(1), connection_counts.open(1)),
            (2, 0)
        );
    }
}
