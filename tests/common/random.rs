//! Reproducible pseudo-random numbers: a failed test prints its seed.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seed in `FORKADE_TEST_SEED`, or a new one. It is printed, and so shown if the test fails.
pub fn seed() -> u64 {
    let chosen = std::env::var("FORKADE_TEST_SEED").map(|seed| seed.parse().expect("a seed is a number"));
    let seed = chosen.unwrap_or_else(|_| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(1, |since| {
            since.as_secs() << 20 | u64::from(since.subsec_micros())
        })
    });
    println!("FORKADE_TEST_SEED={seed}");
    seed
}

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed and purpose give the same numbers.
    pub fn new(seed: u64, purpose: u64) -> Self {
        Self(seed ^ purpose.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    /// True in `percent` of a hundred calls.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One element at random.
    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
