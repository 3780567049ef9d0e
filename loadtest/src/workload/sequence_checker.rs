//! Checks one numbered stream from one sender to one receiver: what is lost, duplicated or out of order.

use std::collections::BTreeSet;

/// The numbers 0, 1, 2 … that one receiver has received from one sender.
#[derive(Debug, Default)]
pub(crate) struct SequenceChecker {
    /// One more than the highest number seen.
    next: u64,
    /// Numbers below `next` that have not arrived. Empty unless something went wrong.
    missing: BTreeSet<u64>,
}

/// What the arrival of one number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Observation {
    /// Higher than all before. (Skipped numbers are missing until they arrive.)
    InOrder,
    /// It had been skipped: it arrived after a later one.
    Reordered,
    /// It had arrived already.
    Duplicated,
}

impl SequenceChecker {
    /// Records the arrival of `number`. The caller has checked that it was sent, so a gap is never longer
    /// than the number of messages sent.
    pub(crate) fn observe(&mut self, number: u64) -> Observation {
        if number < self.next {
            return if self.missing.remove(&number) {
                Observation::Reordered
            } else {
                Observation::Duplicated
            };
        }
        self.missing.extend(self.next..number);
        self.next = number + 1;
        Observation::InOrder
    }

    /// One more than the highest number seen.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// How many of the first `sent` numbers have not arrived, except those that the server `refused`.
    pub(crate) fn lost(&self, sent: u64, refused: &BTreeSet<u64>) -> u64 {
        let tail = sent.saturating_sub(self.next);
        let refused_here = refused
            .iter()
            .filter(|number| **number >= self.next || self.missing.contains(number))
            .count();
        (self.missing.len() as u64 + tail).saturating_sub(refused_here as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(numbers: &[u64]) -> (SequenceChecker, Vec<Observation>) {
        let mut checker = SequenceChecker::default();
        let observations = numbers.iter().map(|number| checker.observe(*number)).collect();
        (checker, observations)
    }

    #[test]
    fn a_complete_stream_has_nothing_lost() {
        let (checker, observations) = observed(&[0, 1, 2, 3]);
        assert!(
            observations
                .iter()
                .all(|observation| *observation == Observation::InOrder)
        );
        assert_eq!(checker.lost(4, &BTreeSet::new()), 0);
    }

    #[test]
    fn a_gap_and_a_missing_end_are_lost() {
        let (checker, _) = observed(&[0, 3, 4]);
        assert_eq!(checker.lost(7, &BTreeSet::new()), 4, "1, 2, 5 and 6");
    }

    #[test]
    fn a_late_number_is_reordered_once_and_duplicated_after_that() {
        let (checker, observations) = observed(&[0, 2, 1, 1, 2]);
        use Observation::*;
        assert_eq!(
            observations,
            [InOrder, InOrder, Reordered, Duplicated, Duplicated]
        );
        assert_eq!(checker.lost(3, &BTreeSet::new()), 0);
    }

    #[test]
    fn what_the_server_refused_is_not_lost() {
        let (checker, _) = observed(&[0, 2]);
        assert_eq!(checker.lost(5, &BTreeSet::from([1, 4])), 1, "only 3");
        assert_eq!(checker.lost(5, &BTreeSet::from([0])), 3, "0 arrived nevertheless");
    }
}
