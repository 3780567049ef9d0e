//! Which client of a handler is run next, and for how long: pure decisions.
//!
//! A client that fills its process with work costs the others at most one turn: the client that has used less goes
//! first. A client that was idle does not get back all the time that it has not used, so that it cannot keep the others
//! waiting later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Microseconds that one turn lasts. (The frame that is being handled is finished.)
const TURN_US: u64 = 1000;

/// Frames that one turn handles.
const FRAMES_PER_TURN_MAX: u32 = 256;

/// Microseconds by which a client that was idle goes before those that were not.
const IDLE_CREDIT_US: u64 = 50_000;

/// Microseconds for which clients are run before the process looks for events, its signals and its lifeline.
pub(crate) const LOOK_EVERY_US: u64 = TURN_US;

/// What is left of a client's turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    ends_at_us: u64,
    frames_left: u32,
}

impl Turn {
    /// A turn that begins at this time.
    pub(crate) fn begin(now_us: u64) -> Self {
        Self {
            ends_at_us: now_us + TURN_US,
            frames_left: FRAMES_PER_TURN_MAX,
        }
    }

    /// Counts a frame.
    pub(crate) fn count_frame(&mut self) {
        self.frames_left = self.frames_left.saturating_sub(1);
    }

    /// Whether other clients are to be run now.
    pub(crate) fn is_over(&self, now_us: u64) -> bool {
        self.frames_left == 0 || now_us >= self.ends_at_us
    }
}

/// The clients that have something to do, by key. The one that has used the least time is next; of equals, the one
/// that was entered first.
#[derive(Debug, Default)]
pub(crate) struct ReadyQueue {
    /// Time used, number of the entry, key.
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    entries: u64,
    /// The most that a client had used when its turn came.
    served_us: u64,
}

impl ReadyQueue {
    /// Enters a client. `used_us` is what it has used; of a client that was idle, it is raised.
    pub(crate) fn push(&mut self, key: usize, used_us: &mut u64) {
        *used_us = (*used_us).max(self.served_us.saturating_sub(IDLE_CREDIT_US));
        self.entries += 1;
        self.heap.push(Reverse((*used_us, self.entries, key)));
    }

    /// Takes the next client.
    pub(crate) fn pop(&mut self) -> Option<usize> {
        let Reverse((used_us, _, key)) = self.heap.pop()?;
        self.served_us = self.served_us.max(used_us);
        Some(key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Clients by key: what each has used, and how much each uses in a turn if it always has something to do.
    struct Process {
        queue: ReadyQueue,
        used_us: Vec<u64>,
        turn_us: Vec<u64>,
    }

    impl Process {
        fn new(turn_us: Vec<u64>) -> Self {
            let mut process = Self {
                queue: ReadyQueue::default(),
                used_us: vec![0; turn_us.len()],
                turn_us,
            };
            (0..process.turn_us.len()).for_each(|key| process.wake(key));
            process
        }

        fn wake(&mut self, key: usize) {
            self.queue.push(key, &mut self.used_us[key]);
        }

        /// Gives one turn. Returns the client that had it; the caller wakes the client again.
        fn step(&mut self) -> usize {
            let key = self.queue.pop().expect("somebody is ready");
            self.used_us[key] += self.turn_us[key];
            key
        }
    }

    #[test]
    fn a_turn_ends_by_its_time_or_by_its_frames_whichever_is_first() {
        let mut turn = Turn::begin(5000);
        assert!(!turn.is_over(5999) && turn.is_over(6000));
        (1..FRAMES_PER_TURN_MAX).for_each(|_| turn.count_frame());
        assert!(!turn.is_over(5000));
        turn.count_frame();
        assert!(turn.is_over(5000));
    }

    proptest! {
        #[test]
        fn a_client_that_uses_little_waits_for_at_most_one_turn_of_any_number_that_use_all_they_can(
            greedy in 1_usize..255,
            pauses in prop::collection::vec(0_usize..600, 1..20),
        ) {
            let mut turns = vec![TURN_US; greedy];
            turns.push(30);
            let mut process = Process::new(turns);
            // All have been run once.
            for _ in 0..=greedy {
                let key = process.step();
                if key != greedy {
                    process.wake(key);
                }
            }
            for pause in pauses {
                for _ in 0..pause {
                    let key = process.step();
                    process.wake(key);
                }
                process.wake(greedy);
                prop_assert_eq!(process.step(), greedy);
            }
        }

        #[test]
        fn clients_that_always_have_something_to_do_share_the_time_alike(
            turns in prop::collection::vec(1_u64..=TURN_US, 2..50),
        ) {
            let mut process = Process::new(turns);
            for _ in 0..10_000 {
                let key = process.step();
                process.wake(key);
                let (least, most) = (process.used_us.iter().min(), process.used_us.iter().max());
                prop_assert!(most.expect("some") - least.expect("some") <= TURN_US);
            }
        }

        #[test]
        fn a_client_that_was_idle_for_long_does_not_keep_the_others_waiting_for_long(
            idle_turns in 0_usize..100_000,
        ) {
            let mut process = Process::new(vec![TURN_US; 2]);
            let idle = process.step();
            for _ in 0..idle_turns {
                let key = process.step();
                prop_assert_ne!(key, idle);
                process.wake(key);
            }
            process.wake(idle);
            let mut in_a_row = 0;
            while process.step() == idle {
                process.wake(idle);
                in_a_row += 1;
            }
            prop_assert!(in_a_row <= IDLE_CREDIT_US / TURN_US + 1, "{} turns in a row", in_a_row);
        }
    }
}
