//! When the ticks of a match are due. Pure arithmetic in microseconds of the monotonic clock.
//!
//! Tick *k* is due *k* / rate seconds after the match began. It is computed from the beginning and not from the tick
//! before, so rounding never adds up.

/// The deadlines of one match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TickSchedule {
    /// When the match began.
    pub(crate) from_us: u64,
    /// At least 1.
    pub(crate) ticks_per_second: u16,
}

/// What follows a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NextTick {
    pub(crate) due_us: u64,
    /// Ticks before it that are left out.
    pub(crate) missed: u64,
}

impl TickSchedule {
    /// When tick `number` is due; the first has the number 1.
    pub(crate) fn due_us(self, number: u64) -> u64 {
        let after_us = u128::from(number) * 1_000_000 / u128::from(self.ticks_per_second);
        self.from_us
            .saturating_add(u64::try_from(after_us).unwrap_or(u64::MAX))
    }

    /// The number of the last tick that is due at `at_us` or before; 0 for none.
    fn number_at(self, at_us: u64) -> u64 {
        // Tick k is due at k / rate seconds, rounded down to a microsecond: one microsecond later it is due in any
        // case.
        let us = u128::from(at_us.saturating_sub(self.from_us)) + 1;
        let number = (us * u128::from(self.ticks_per_second)).div_ceil(1_000_000) - 1;
        u64::try_from(number).unwrap_or(u64::MAX)
    }

    /// The tick that follows the one that was due at `due_us` and ran at `now_us`. Up to `made_up_for` missed ticks are
    /// made up for. Only each `stride`-th tick takes place.
    pub(crate) fn after(self, due_us: u64, now_us: u64, made_up_for: u16, stride: u64) -> NextTick {
        let next = self.number_at(due_us).saturating_add(stride);
        let first_in_future = self.number_at(now_us).saturating_add(1);
        let number = next.max(first_in_future.saturating_sub(made_up_for.into()));
        NextTick {
            due_us: self.due_us(number),
            missed: number - next,
        }
    }
}

#[cfg(test)]
mod tests {
    use forkade_games::limits::TICKS_PER_SECOND_MAX;
    use proptest::prelude::*;

    use super::*;

    fn schedule(ticks_per_second: u16) -> TickSchedule {
        TickSchedule {
            from_us: 12_345_678_901,
            ticks_per_second,
        }
    }

    /// The ticks of so many seconds, each run when it is due.
    fn ticks(schedule: TickSchedule, seconds: u64) -> Vec<u64> {
        let end_us = schedule.from_us + seconds * 1_000_000;
        let after = |due_us: &u64| {
            let next = schedule.after(*due_us, *due_us, 0, 1);
            assert_eq!(next.missed, 0);
            Some(next.due_us)
        };
        std::iter::successors(Some(schedule.due_us(1)), after)
            .take_while(|due_us| *due_us <= end_us)
            .collect()
    }

    #[test]
    fn sixty_ticks_per_second_are_sixty_thousand_in_a_thousand_seconds() {
        let ticks = ticks(schedule(60), 1000);
        assert_eq!(ticks.len(), 60_000);
        for (number, due_us) in (1..).zip(ticks) {
            let exact_us = number as f64 * 1e6 / 60.0;
            let us = (due_us - schedule(60).from_us) as f64;
            assert!((us - exact_us).abs() < 1.0, "tick {number} is due after {us} µs");
        }
    }

    proptest! {
        #[test]
        fn each_rate_is_exact(rate in 1..=TICKS_PER_SECOND_MAX, seconds in 1_u64..30) {
            let ticks = ticks(schedule(rate), seconds);
            prop_assert_eq!(ticks.len() as u64, u64::from(rate) * seconds);
            prop_assert_eq!(ticks.last(), Some(&(schedule(rate).from_us + seconds * 1_000_000)));
        }

        #[test]
        fn a_late_tick_is_followed_by_one_in_the_future_at_its_usual_time_or_by_what_is_made_up_for(
            rate in 1..=TICKS_PER_SECOND_MAX,
            number in 1_u64..1_000_000,
            late_us in 0_u64..10_000_000,
            made_up_for in 0_u16..=100,
            stride in 1_u64..5,
        ) {
            let schedule = schedule(rate);
            let due_us = schedule.due_us(number);
            let now_us = due_us + late_us;
            let next = schedule.after(due_us, now_us, made_up_for, stride);
            let following = number + stride + next.missed;
            prop_assert_eq!(next.due_us, schedule.due_us(following));
            let overdue = (following..).take_while(|number| schedule.due_us(*number) <= now_us).count();
            prop_assert!(overdue <= usize::from(made_up_for), "{} ticks at once", overdue);
            // No more are left out than must be.
            prop_assert!(next.missed == 0 || overdue == usize::from(made_up_for));
        }
    }

    #[test]
    fn a_time_in_a_far_future_is_no_overflow() {
        let next = schedule(100).after(schedule(100).due_us(1), u64::MAX / 2, 0, 4);
        assert!(next.due_us > u64::MAX / 2);
    }
}
