//! Intended times of an open loop, and the timers of all clients.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Evenly spaced intended times, fixed from the start: a late message does not postpone the next one.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    step: u64,
}

impl Schedule {
    /// The times `start_ns`, `start_ns` + 1/rate, … for a `rate` per second above 0.
    pub(crate) fn new(start_ns: u64, rate: f64) -> Self {
        Self {
            start_ns,
            interval_ns: 1e9 / rate,
            step: 0,
        }
    }

    /// The next intended time, in nanoseconds.
    pub(crate) fn intended(&self) -> u64 {
        // Counted from the start, so that rounding errors do not add up.
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, below the 2^53 ns (104 days) that a double holds exactly"
        )]
        let since_start = (self.step as f64 * self.interval_ns) as u64;
        self.start_ns + since_start
    }

    /// Nanoseconds from one intended time to the next.
    pub(crate) fn interval_ns(&self) -> u64 {
        Self {
            start_ns: 0,
            step: 1,
            ..*self
        }
        .intended()
    }

    /// How many intended times before `end_ns` are unused.
    pub(crate) fn remaining_before(&self, end_ns: u64) -> u64 {
        let mut ahead = self.clone();
        std::iter::repeat_with(|| ahead.advance())
            .take_while(|intended| *intended < end_ns)
            .count() as u64
    }

    /// Returns the next intended time and moves on to the one after it.
    pub(crate) fn advance(&mut self) -> u64 {
        let intended = self.intended();
        self.step += 1;
        intended
    }
}

/// Tasks in the order of their times.
#[derive(Debug)]
pub(crate) struct Timers<Task> {
    heap: BinaryHeap<Reverse<(u64, Task)>>,
}

impl<Task: Ord> Timers<Task> {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
        }
    }

    pub(crate) fn set(&mut self, due_ns: u64, task: Task) {
        self.heap.push(Reverse((due_ns, task)));
    }

    /// Removes the earliest task that is due. Returns it with its time, or `None` if no task is due.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<(u64, Task)> {
        if self.next_due()? > now_ns {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| due)
    }

    /// All tasks, in no order.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.heap.iter().map(|Reverse((_, task))| task)
    }

    /// The time of the next task.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((due_ns, _))| *due_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intended_times_do_not_drift() {
        let mut schedule = Schedule::new(5, 3.0);
        for _ in 0..3_000_000 {
            schedule.advance();
        }
        assert_eq!(schedule.intended(), 5 + 1_000_000_000_000_000);
    }

    #[test]
    fn timers_fire_in_the_order_of_their_times_and_not_early() {
        let mut timers = Timers::new();
        for (due, task) in [(30, 'c'), (10, 'a'), (20, 'b')] {
            timers.set(due, task);
        }
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(25), Some((10, 'a')));
        assert_eq!(timers.pop_due(25), Some((20, 'b')));
        assert_eq!(timers.pop_due(25), None);
        assert_eq!(timers.next_due(), Some(30));
    }
}
