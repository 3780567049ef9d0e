//! How late ticks are, and what became of late rooms: figures for operators, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use shmem::shared_record;

use crate::limits::{TICK_FIGURES_SLICE_US, TICK_LATE_US};

/// Slices of time that are kept: the present one, and six before it.
const SLICES: usize = 7;
/// Lateness below this is counted as one, in microseconds: the timer and the wake-up take as long.
const FINEST_US: u64 = 1 << FINEST_LOG2;
const FINEST_LOG2: u32 = 6;
/// Counts: four for each doubling, up to 16 s, and one for all below the finest.
const BUCKETS: usize = 1 + 4 * 18;

shared_record! {
    /// The figures of all tickers together.
    pub struct TickFigures {
        /// Ticks of all rooms.
        pub ticks_total: AtomicU64,
        /// Those that came later than [`TICK_LATE_US`].
        pub late_total: AtomicU64,
        /// Ticks that were left out because their time had passed.
        pub missed_total: AtomicU64,
        /// Calls of games by tickers that took longer than they may.
        pub overruns_total: AtomicU64,
        /// Rooms that were slowed because of that.
        pub slowed_total: AtomicU64,
        slices: [LatenessSlice; SLICES],
    }
}

shared_record! {
    /// The lateness of the ticks of ten seconds.
    pub struct LatenessSlice {
        /// Which ten seconds of the monotonic clock.
        number: AtomicU64,
        max_us: AtomicU64,
        counts: [AtomicU64; BUCKETS],
    }
}

/// The lateness of ticks in the last minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lateness {
    /// Half of the ticks were not later than this.
    pub p50_us: u64,
    /// 99 of 100 ticks were not later.
    pub p99_us: u64,
    /// The latest one.
    pub max_us: u64,
}

impl TickFigures {
    /// Counts a tick that took place so late, at `now_us`. Returns whether it was later than [`TICK_LATE_US`].
    pub(crate) fn enter_tick(&self, now_us: u64, late_us: u64) -> bool {
        self.ticks_total.fetch_add(1, Ordering::Relaxed);
        let is_late = late_us > TICK_LATE_US;
        if is_late {
            self.late_total.fetch_add(1, Ordering::Relaxed);
        }
        let number = now_us / TICK_FIGURES_SLICE_US;
        let slice = &self.slices[place_of(number)];
        let before = slice.number.load(Ordering::Relaxed);
        // What another ticker counts while the slice is cleared may be lost.
        if before != number
            && slice
                .number
                .compare_exchange(before, number, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            slice.max_us.store(0, Ordering::Relaxed);
            slice
                .counts
                .iter()
                .for_each(|count| count.store(0, Ordering::Relaxed));
        }
        slice.max_us.fetch_max(late_us, Ordering::Relaxed);
        slice.counts[bucket_of(late_us)].fetch_add(1, Ordering::Relaxed);
        is_late
    }

    /// The lateness of the ticks of the last minute; `None` if there were none. A percentile is the upper end of a
    /// range that is at most a quarter wide.
    pub fn lateness(&self, now_us: u64) -> Option<Lateness> {
        let newest = now_us / TICK_FIGURES_SLICE_US;
        let (mut counts, mut max_us) = ([0; BUCKETS], 0);
        for slice in &self.slices {
            let number = slice.number.load(Ordering::Relaxed);
            if number > newest || number + SLICES as u64 <= newest {
                continue;
            }
            max_us = max_us.max(slice.max_us.load(Ordering::Relaxed));
            for (sum, count) in counts.iter_mut().zip(&slice.counts) {
                *sum += count.load(Ordering::Relaxed);
            }
        }
        let total: u64 = counts.iter().sum();
        let percentile_us = |percent: u64| {
            let mut rest = (total * percent).div_ceil(100);
            let bucket = counts.iter().position(|count| {
                let is_it = rest <= *count;
                rest = rest.saturating_sub(*count);
                is_it
            });
            bucket_end_us(bucket.unwrap_or(BUCKETS - 1)).min(max_us)
        };
        (total > 0).then(|| Lateness {
            p50_us: percentile_us(50),
            p99_us: percentile_us(99),
            max_us,
        })
    }
}

fn place_of(number: u64) -> usize {
    usize::try_from(number % SLICES as u64).expect("there are few")
}

fn bucket_of(late_us: u64) -> usize {
    if late_us < FINEST_US {
        return 0;
    }
    let log2 = late_us.ilog2();
    let quarter = usize::try_from(late_us >> (log2 - 2) & 3).expect("two bits");
    (1 + 4 * (log2 - FINEST_LOG2) as usize + quarter).min(BUCKETS - 1)
}

/// The first lateness beyond the bucket.
fn bucket_end_us(bucket: usize) -> u64 {
    match bucket.checked_sub(1) {
        None => FINEST_US,
        Some(rest) => (FINEST_US << (rest / 4)) / 4 * (5 + rest as u64 % 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::layout::{Capacity, Memory};

    fn figures() -> &'static TickFigures {
        let capacity = Capacity {
            players: 1,
            rooms: 1,
            keepers: 1,
        };
        &Memory::create(capacity).expect("there is memory").header.ticks
    }

    #[test]
    fn each_lateness_lies_in_a_range_of_a_quarter() {
        for late_us in (0..100_000).chain([1_000_000, 9_999_999, 16_777_215]) {
            let bucket = bucket_of(late_us);
            assert!(late_us < bucket_end_us(bucket));
            assert!(bucket == 0 || late_us >= bucket_end_us(bucket - 1));
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_last_minute_counts_and_nothing_before_it() {
        let figures = figures();
        assert_eq!(figures.lateness(0), None);
        let start_us = 1000 * TICK_FIGURES_SLICE_US;
        for tick in 0..1000 {
            figures.enter_tick(start_us, if tick < 980 { 1000 } else { 50_000 });
        }
        let lateness = figures.lateness(start_us + 60_000_000).expect("there were ticks");
        assert!((1000..1251).contains(&lateness.p50_us), "{lateness:?}");
        assert!((40_000..=50_000).contains(&lateness.p99_us), "{lateness:?}");
        assert_eq!(lateness.max_us, 50_000);
        assert_eq!(figures.late_total.load(Ordering::Relaxed), 20);
        let later_us = start_us + SLICES as u64 * TICK_FIGURES_SLICE_US;
        assert_eq!(figures.lateness(later_us), None);
        figures.enter_tick(later_us, 7);
        assert_eq!(
            figures.lateness(later_us),
            Some(Lateness {
                p50_us: 7,
                p99_us: 7,
                max_us: 7
            })
        );
    }
}
