//! How many connections of a kind a keeper has: one word, so that whoever adds them up counts nobody twice, whatever moment it looks at.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::CONNECTIONS_PER_KEEPER_MAX;
use shmem::shared_record;

shared_record! {
    /// What a keeper has of one kind of connection. The keeper writes it, and the ticker the count of those without a keeper.
    pub struct Occupancy {
        word: AtomicU64,
    }
}

/// What was there at some time.
#[derive(Debug, Clone, Copy)]
pub struct CountSnapshot(u64);

/// What the word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Number of the last connection that the keeper has taken out of its channel.
    taken: u32,
    /// Connections that it holds.
    held: u16,
    /// Connections whose handlers live on without a keeper.
    orphaned_counts: u16,
    /// One of those it holds is not yet counted as taken.
    is_taking: bool,
}

const COUNT_BITS: u32 = 15;
const COUNT_MAX: u16 = (1 << COUNT_BITS) - 1;
const _: () = assert!(CONNECTIONS_PER_KEEPER_MAX <= COUNT_MAX as u32);

impl Counts {
    fn of(word: u64) -> Self {
        let count = |shift: u32| u16::try_from(word >> shift & u64::from(COUNT_MAX)).expect("masked");
        Self {
            taken: u32::try_from(word >> 32).expect("what is left"),
            held: count(1 + COUNT_BITS),
            orphaned_counts: count(1),
            is_taking: word & 1 != 0,
        }
    }

    fn word(self) -> u64 {
        u64::from(self.taken) << 32
            | u64::from(self.held.min(COUNT_MAX)) << (1 + COUNT_BITS)
            | u64::from(self.orphaned_counts.min(COUNT_MAX)) << 1
            | u64::from(self.is_taking)
    }
}

impl Occupancy {
    /// How many connections there are, if the last that was sent to the keeper has this number: those that it holds or is being sent, and
    /// those that live on without one.
    pub fn open(&self, sent: u32) -> u32 {
        let counts = self.counts();
        // The keeper may have taken what the listener has yet to enter as sent.
        let under_way = sent
            .wrapping_sub(counts.taken)
            .cast_signed()
            .max(0)
            .cast_unsigned();
        let on_the_way = under_way.saturating_sub(counts.is_taking.into());
        on_the_way + u32::from(counts.held) + u32::from(counts.orphaned_counts)
    }

    /// How many the keeper holds.
    pub fn held(&self) -> u32 {
        self.counts().held.into()
    }

    /// The keeper holds a new one, which it will [have taken](Self::set_taken_up_to) in a moment.
    pub fn hold_new(&self) {
        self.change(|counts| Counts {
            held: counts.held.saturating_add(1),
            is_taking: true,
            ..counts
        });
    }

    /// The keeper holds one that has lived on without.
    pub fn hold_adopted(&self) {
        self.change(|counts| Counts {
            held: counts.held.saturating_add(1),
            orphaned_counts: counts.orphaned_counts.saturating_sub(1),
            ..counts
        });
    }

    /// The keeper holds one less, which lives on without.
    pub fn let_live_on(&self) {
        self.change(|counts| Counts {
            held: counts.held.saturating_sub(1),
            orphaned_counts: counts.orphaned_counts.saturating_add(1),
            ..counts
        });
    }

    /// The keeper holds one less.
    pub fn let_go(&self) {
        self.change(|counts| Counts {
            held: counts.held.saturating_sub(1),
            is_taking: false,
            ..counts
        });
    }

    /// The keeper has taken all connections up to this number, or they were lost on their way. Says how many are new with that.
    pub fn set_taken_up_to(&self, number: u32) -> u32 {
        let is_new = |taken: u32| number.wrapping_sub(taken).cast_signed().max(0).cast_unsigned();
        let before = self.change(|counts| Counts {
            taken: counts.taken.wrapping_add(is_new(counts.taken)),
            is_taking: false,
            ..counts
        });
        is_new(before.taken)
    }

    /// Another keeper begins, which holds nothing yet: so many live on without. (One that its predecessor was taking is among them.)
    pub fn begin(&self, orphaned_counts: u16) {
        self.change(|counts| Counts {
            held: 0,
            orphaned_counts,
            ..counts
        });
    }

    /// As it is now, for who is about to [count anew](Self::set_outliving).
    pub fn moment(&self) -> CountSnapshot {
        CountSnapshot(self.word.load(Ordering::Acquire))
    }

    /// So many live on without a keeper, if nothing has changed since that moment; else it is to be counted again.
    pub fn set_outliving(&self, orphaned_counts: u16, since: CountSnapshot) {
        let counts = Counts {
            orphaned_counts,
            ..Counts::of(since.0)
        };
        let _ = self
            .word
            .compare_exchange(since.0, counts.word(), Ordering::AcqRel, Ordering::Relaxed);
    }

    fn counts(&self) -> Counts {
        Counts::of(self.word.load(Ordering::Acquire))
    }

    /// Gives what was there before.
    fn change(&self, change: impl Fn(Counts) -> Counts) -> Counts {
        let change = |word| Some(change(Counts::of(word)).word());
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        Counts::of(before.expect("there is always a change"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmem::sys::memory::Mapping;

    fn occupancy() -> &'static Occupancy {
        Mapping::create("occupancy-test", 4096)
            .expect("memory is there")
            .record(0)
    }

    #[test]
    fn nobody_is_counted_twice_on_the_way_from_the_listener_to_the_keeper() {
        let occupancy = occupancy();
        assert_eq!(occupancy.open(3), 3, "all are on their way");
        for number in 1..=3 {
            occupancy.hold_new();
            assert_eq!(occupancy.open(3), 3);
            assert_eq!(occupancy.set_taken_up_to(number), 1);
            assert_eq!(occupancy.open(3), 3);
        }
        occupancy.hold_new();
        assert_eq!(occupancy.open(3), 4, "the listener has yet to enter it");
        assert_eq!(
            (occupancy.set_taken_up_to(4), occupancy.open(3), occupancy.open(4)),
            (1, 4, 4)
        );
        occupancy.let_go();
        assert_eq!((occupancy.open(4), occupancy.held()), (3, 3));
    }

    #[test]
    fn what_is_lost_on_its_way_or_refused_does_not_stay_counted() {
        let occupancy = occupancy();
        assert_eq!((occupancy.set_taken_up_to(5), occupancy.open(5)), (5, 0));
        assert_eq!(occupancy.set_taken_up_to(5), 0);
        occupancy.hold_new();
        occupancy.let_go();
        assert_eq!(occupancy.open(6), 1, "it is still to be taken");
        assert_eq!((occupancy.set_taken_up_to(6), occupancy.open(6)), (1, 0));
    }

    #[test]
    fn nobody_is_counted_twice_on_the_way_from_a_keeper_to_the_next() {
        let occupancy = occupancy();
        for number in 1..=3 {
            occupancy.hold_new();
            occupancy.set_taken_up_to(number);
        }
        occupancy.begin(3);
        assert_eq!((occupancy.open(3), occupancy.held()), (3, 0));
        occupancy.hold_adopted();
        assert_eq!((occupancy.open(3), occupancy.held()), (3, 1));
        occupancy.let_live_on();
        assert_eq!((occupancy.open(3), occupancy.held()), (3, 0));
        occupancy.hold_adopted();
        let moment = occupancy.moment();
        occupancy.hold_adopted();
        occupancy.set_outliving(2, moment);
        assert_eq!(
            occupancy.open(3),
            3,
            "what was counted before that is not true any more"
        );
        occupancy.set_outliving(0, occupancy.moment());
        assert_eq!(occupancy.open(3), 2);
    }

    #[test]
    fn who_was_being_taken_when_the_keeper_died_is_counted_once() {
        let occupancy = occupancy();
        occupancy.hold_new();
        occupancy.begin(1);
        assert_eq!(occupancy.open(1), 1);
        assert_eq!((occupancy.set_taken_up_to(1), occupancy.open(1)), (1, 1));
    }

    #[test]
    fn numbers_begin_anew_after_the_greatest() {
        let occupancy = occupancy();
        occupancy.set_taken_up_to(1 << 30);
        occupancy.set_taken_up_to(1 << 31);
        occupancy.set_taken_up_to(3 << 30);
        occupancy.set_taken_up_to(u32::MAX);
        assert_eq!(occupancy.open(1), 2);
        assert_eq!((occupancy.set_taken_up_to(1), occupancy.open(1)), (2, 0));
    }
}
