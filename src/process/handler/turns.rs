//! Which client of a handler is run next, and for how long: pure decisions.
//!
//! A client that fills its process with work costs the others at most one turn. What each client has used is its
//! virtual time; next is the client that would have used the least after another turn like its last one. So a client of
//! short turns that was idle goes before all that use their turns up, however many they are. It does not get back the
//! time that it has not used, apart from one turn, so that it cannot keep the others waiting later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Microseconds that one turn lasts. (The frame that is being handled is finished.)
const TURN_US: u64 = 1000;

/// Frames that one turn handles.
const FRAMES_PER_TURN_MAX: u32 = 256;

/// Microseconds for which clients are run before the process looks for events, its signals and its lifeline.
pub(crate) const LOOK_EVERY_US: u64 = TURN_US;

/// What is left of a client's turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    began_at_us: u64,
    frames_left: u32,
}

impl Turn {
    /// A turn that begins at this time.
    pub(crate) fn begin(now_us: u64) -> Self {
        Self {
            began_at_us: now_us,
            frames_left: FRAMES_PER_TURN_MAX,
        }
    }

    /// When it began, in milliseconds of the monotonic clock.
    pub(crate) fn began_at_ms(&self) -> u64 {
        self.began_at_us / 1000
    }

    /// Counts a frame.
    pub(crate) fn count_frame(&mut self) {
        self.frames_left = self.frames_left.saturating_sub(1);
    }

    /// Whether other clients are to be run now.
    pub(crate) fn is_over(&self, now_us: u64) -> bool {
        self.frames_left == 0 || now_us >= self.began_at_us + TURN_US
    }
}

/// What a client has used of its process's time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    used_us: u64,
    /// What its next turn is expected to use: as much as the last one, but not more than a turn.
    turn_us: u64,
}

impl Usage {
    /// Of a new client: it is not known yet how long its turns are.
    pub(crate) fn new() -> Self {
        Self {
            used_us: 0,
            turn_us: TURN_US,
        }
    }

    /// Enters a turn.
    pub(crate) fn add(&mut self, turn_us: u64) {
        // At least 1, so that of two clients with short turns none is always first.
        self.used_us += turn_us.max(1);
        self.turn_us = turn_us.min(TURN_US);
    }
}

/// The clients that have something to do, by key. The one that would have used the least after its turn is next; of
/// equals, the one that was entered first.
#[derive(Debug, Default)]
pub(crate) struct ReadyQueue {
    /// Time used after the next turn, number of the entry, key, time used.
    heap: BinaryHeap<Reverse<(u64, u64, usize, u64)>>,
    entries: u64,
    /// The most that a client had used when its turn came: no client that was always here has used less by more than a
    /// turn.
    served_us: u64,
}

impl ReadyQueue {
    /// Enters a client. What it has used is raised if it was idle for long.
    pub(crate) fn push(&mut self, key: usize, usage: &mut Usage) {
        usage.used_us = usage.used_us.max(self.served_us.saturating_sub(TURN_US));
        self.entries += 1;
        let after_us = usage.used_us + usage.turn_us;
        self.heap
            .push(Reverse((after_us, self.entries, key, usage.used_us)));
    }

    /// Takes the next client.
    pub(crate) fn pop(&mut self) -> Option<usize> {
        let Reverse((_, _, key, used_us)) = self.heap.pop()?;
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
        usage: Vec<Usage>,
        turn_us: Vec<u64>,
        is_ready: Vec<bool>,
    }

    impl Process {
        fn new(turn_us: Vec<u64>) -> Self {
            let mut process = Self {
                queue: ReadyQueue::default(),
                usage: vec![Usage::new(); turn_us.len()],
                is_ready: vec![false; turn_us.len()],
                turn_us,
            };
            (0..process.turn_us.len()).for_each(|key| process.wake(key));
            process
        }

        fn wake(&mut self, key: usize) {
            if !std::mem::replace(&mut self.is_ready[key], true) {
                self.queue.push(key, &mut self.usage[key]);
            }
        }

        /// Gives one turn. Returns the client that had it; the caller wakes the client again.
        fn step(&mut self) -> usize {
            let key = self.queue.pop().expect("somebody is ready");
            self.usage[key].add(self.turn_us[key]);
            self.is_ready[key] = false;
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

    /// Microseconds of a turn of a client that does little.
    const SHORT_TURN_US: u64 = 30;

    proptest! {
        /// The greedy clients use whole turns. Each may have something to do always, or pause for a while as it likes.
        #[test]
        fn a_client_that_was_idle_waits_for_at_most_one_turn_whatever_the_greedy_ones_do(
            greedy in 1_usize..255,
            pauses in prop::collection::vec((0_usize..600, any::<prop::sample::Index>(), 0_usize..600), 1..40),
        ) {
            let mut process = Process::new([vec![TURN_US; greedy], vec![SHORT_TURN_US]].concat());
            let quiet = greedy;
            // All have been run once; the quiet client is idle since.
            for _ in 0..=greedy {
                let key = process.step();
                if key != quiet {
                    process.wake(key);
                }
            }
            // While the others use a turn each, it uses at most half of its share: 16 short turns.
            let least_pause = greedy / 16 + 1;
            for (pause, sleeper, sleep) in pauses {
                let sleeper = sleeper.index(greedy);
                let mut slept = None;
                for step in 0..pause.max(least_pause) {
                    if slept.is_some_and(|since| step - since == sleep) {
                        process.wake(sleeper);
                    }
                    // Where all sleep, time passes for none.
                    if process.queue.is_empty() {
                        break;
                    }
                    let key = process.step();
                    match key == sleeper && slept.is_none() {
                        true => slept = Some(step),
                        false => process.wake(key),
                    }
                }
                // What slept may be woken at the same moment, before the quiet client.
                process.wake(sleeper);
                process.wake(quiet);
                prop_assert_eq!(process.step(), quiet);
            }
        }

        /// Whatever the others use, and whenever they pause.
        #[test]
        fn no_client_that_has_something_to_do_is_passed_for_ever(
            turns in prop::collection::vec(1_u64..=TURN_US, 2..50),
            sleeps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..2000),
        ) {
            let mut process = Process::new(turns);
            let (mut passed_us, mut last) = (0, process.usage[0].used_us);
            for (sleeper, wakes) in sleeps {
                // The first client always has something to do.
                let sleeper = sleeper.index(process.turn_us.len());
                if wakes || process.queue.is_empty() {
                    process.wake(sleeper);
                    process.wake(0);
                }
                let key = process.step();
                passed_us += process.turn_us[key];
                process.wake(0);
                if key == 0 || process.usage[0].used_us != last {
                    (passed_us, last) = (0, process.usage[0].used_us);
                }
                // Each of the others may use its credit of a turn, and two turns more.
                prop_assert!(passed_us <= 4 * TURN_US * process.turn_us.len() as u64, "{} us", passed_us);
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
                let (least, most) = (process.usage.iter().map(|usage| usage.used_us).min(), process.usage.iter().map(|usage| usage.used_us).max());
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
            prop_assert!(in_a_row <= 2, "{} turns in a row", in_a_row);
        }
    }
}
