//! Rates, and the budgets that many share: token buckets that store one number.
//!
//! An account or budget is the time up to which its owner has paid. Each unit costs a share of time, and the account
//! may run ahead of the clock by as much as the burst allows. A player's accounts lie in its record and are entered by
//! its transactions. A [`Budget`] belongs to a room or to the server. Many processes draw on it, so it is changed
//! without a lock; if a process dies before it has taken what it was granted, one unit is free.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use shmem::shared_record;
use shmem::sys::clock::now_ns;
use shmem::word::Word;

const SECOND_US: u64 = 1_000_000;
const MINUTE_US: u64 = 60 * SECOND_US;
/// No user waits longer for what was [spent](Budget::spend) already.
const DEBT_US_MAX: u64 = 10 * SECOND_US;

/// A rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Microseconds that one unit costs; 0: no limit.
    share_us: u64,
    /// Units that are granted at once, at least 1.
    burst: u64,
    /// Units of the burst that are kept for others.
    kept: u64,
}

impl Rate {
    /// `per_minute` units in the long run (0: no limit), and `burst` at once.
    pub(crate) const fn per_minute(per_minute: u64, burst: u64) -> Self {
        Self::new(MINUTE_US, per_minute, burst)
    }

    /// `per_second` units in the long run (0: no limit), and `burst` at once.
    pub(crate) const fn per_second(per_second: u64, burst: u64) -> Self {
        Self::new(SECOND_US, per_second, burst)
    }

    const fn new(period_us: u64, units: u64, burst: u64) -> Self {
        Self {
            // A rate too high to count is no limit.
            share_us: match period_us.checked_div(units) {
                Some(share_us) => share_us,
                None => 0,
            },
            burst: if burst == 0 { 1 } else { burst },
            kept: 0,
        }
    }

    /// Whether anything is granted at any time.
    pub(crate) fn is_unlimited(self) -> bool {
        self.share_us == 0
    }

    /// The rate of so many owners together.
    pub(crate) fn times(self, owners: u64) -> Self {
        Self {
            share_us: self.share_us.div_ceil(owners),
            burst: self.burst.saturating_mul(owners),
            kept: self.kept.saturating_mul(owners),
        }
    }

    /// Half of the rate, with half of the burst.
    pub(crate) fn half(self) -> Self {
        Self {
            share_us: self.share_us.saturating_mul(2),
            burst: self.burst.div_ceil(2),
            kept: self.kept / 2,
        }
    }

    /// The same rate for those that leave half of the burst to others.
    pub(crate) fn keeping_half(self) -> Self {
        Self {
            kept: self.burst / 2,
            ..self
        }
    }

    /// Charges `cost` units to an account. More than a burst grants costs a burst: it must be possible at some time.
    /// Returns the account's new value.
    ///
    /// # Errors
    ///
    /// If the account would run too far ahead of the clock.
    pub(crate) fn pay(self, paid_until_us: u64, now_us: u64, cost: u64) -> Result<u64, TooSoon> {
        let units_us = |units| self.share_us.saturating_mul(units);
        let granted = self.burst - self.kept;
        // An account further ahead than a burst is left over from a slower rate or from a clock that has jumped back.
        let paid_until_us = paid_until_us.clamp(now_us, now_us.saturating_add(units_us(self.burst)));
        let until_us = paid_until_us.saturating_add(units_us(cost.min(granted)));
        match until_us.saturating_sub(now_us.saturating_add(units_us(granted))) {
            0 => Ok(until_us),
            wait_us => Err(TooSoon {
                wait_us,
                paid_until_us,
            }),
        }
    }
}

/// An account has run too far ahead of the clock. Displays as the time to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSoon {
    /// Microseconds until the same charge is granted, if nothing else is charged.
    pub(crate) wait_us: u64,
    /// The account, without what a clock that has jumped back added to it.
    paid_until_us: u64,
}

impl fmt::Display for TooSoon {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "wait {:.1} s", self.wait_us.div_ceil(100_000) as f64 / 10.0)
    }
}

/// Microseconds of the clock by which accounts are kept.
pub(crate) fn now_us() -> u64 {
    now_ns() / 1000
}

shared_record! {
    /// A budget that many processes draw on without a lock.
    pub struct Budget {
        /// The time up to which it is spent, in microseconds of the monotonic clock.
        paid_until_us: AtomicU64,
    }
}

impl Budget {
    /// Takes `cost` units.
    ///
    /// # Errors
    ///
    /// If the budget is spent. Nothing is taken.
    pub(crate) fn take(&self, rate: Rate, cost: u64) -> Result<(), TooSoon> {
        self.take_at(rate, cost, now_us)
    }

    /// Takes `cost` units that are used already, whether they are left or not. Returns the microseconds that the user
    /// must wait until no more than the burst is used.
    pub(crate) fn spend(&self, rate: Rate, cost: u64) -> u64 {
        let us_of = |units| rate.share_us.saturating_mul(units);
        let now_us = now_us();
        let within_us = now_us.saturating_add(us_of(rate.burst));
        let spent = |paid_until_us: u64| {
            let latest_us = within_us.saturating_add(DEBT_US_MAX);
            let paid_until_us = paid_until_us.clamp(now_us, latest_us);
            paid_until_us.saturating_add(us_of(cost)).min(latest_us)
        };
        spent(Word::update(&self.paid_until_us, spent)).saturating_sub(within_us)
    }

    /// The time up to which it is spent, in microseconds of the monotonic clock.
    pub(crate) fn paid_until_us(&self) -> u64 {
        self.paid_until_us.load(Ordering::Acquire)
    }

    /// Checks that `cost` units are left.
    ///
    /// # Errors
    ///
    /// If the budget is spent.
    pub(crate) fn check(&self, rate: Rate, cost: u64) -> Result<(), TooSoon> {
        let paid_until_us = self.paid_until_us.load(Ordering::Acquire);
        rate.pay(paid_until_us, now_us(), cost).map(|_| ())
    }

    /// Makes the budget whole, for a new owner.
    pub(crate) fn reset(&self) {
        self.paid_until_us.store(0, Ordering::Release);
    }

    fn take_at(&self, rate: Rate, cost: u64, clock_us: impl Fn() -> u64) -> Result<(), TooSoon> {
        let mut current = self.paid_until_us.load(Ordering::Acquire);
        loop {
            // The clock is read after the word. So a time that another process has stored is never ahead of this one,
            // unless the clock has jumped back.
            let (next, result) = match rate.pay(current, clock_us(), cost) {
                Ok(until_us) => (until_us, Ok(())),
                Err(too_soon) => (too_soon.paid_until_us, Err(too_soon)),
            };
            match self
                .paid_until_us
                .compare_exchange(current, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return result,
                Err(other) => current = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many single units are granted in a row at the same moment.
    fn granted_at_once(rate: Rate, paid_until_us: &mut u64, now_us: u64) -> u64 {
        (0..)
            .find(|_| match rate.pay(*paid_until_us, now_us, 1) {
                Ok(until_us) => {
                    *paid_until_us = until_us;
                    false
                }
                Err(_) => true,
            })
            .expect("some end")
    }

    fn new_budget() -> Budget {
        Budget {
            paid_until_us: AtomicU64::new(0),
        }
    }

    #[test]
    fn a_burst_is_free_and_comes_back_as_fast_as_the_rate_says() {
        let rate = Rate::per_minute(60, 5);
        let (mut paid, start_us) = (0, 1_000_000_000);
        assert_eq!(granted_at_once(rate, &mut paid, start_us), 5);
        assert_eq!(granted_at_once(rate, &mut paid, start_us + 999_999), 0);
        assert_eq!(granted_at_once(rate, &mut paid, start_us + SECOND_US), 1);
        assert_eq!(granted_at_once(rate, &mut paid, start_us + 3 * SECOND_US), 2);
        assert_eq!(granted_at_once(rate, &mut paid, start_us + 3600 * SECOND_US), 5);
    }

    #[test]
    fn a_charge_that_comes_too_soon_tells_how_long_to_wait() {
        let rate = Rate::per_minute(30, 2);
        let mut paid = 0;
        assert_eq!(granted_at_once(rate, &mut paid, 0), 2);
        let too_soon = rate.pay(paid, 500_000, 1).expect_err("too soon");
        assert_eq!(too_soon.wait_us, 1_500_000);
        assert_eq!(too_soon.to_string(), "wait 1.5 s");
        assert!(rate.pay(paid, 500_000 + too_soon.wait_us, 1).is_ok());
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        for rate in [Rate::per_minute(0, 1), Rate::per_second(2 * SECOND_US, 1)] {
            assert!(rate.pay(u64::MAX, 0, u64::MAX).is_ok());
        }
    }

    #[test]
    fn a_rate_that_keeps_half_leaves_the_other_half_to_others() {
        let rate = Rate::per_second(1, 10);
        let mut paid = 0;
        assert_eq!(granted_at_once(rate.keeping_half(), &mut paid, 0), 5);
        assert_eq!(granted_at_once(rate, &mut paid, 0), 5);
        assert_eq!(granted_at_once(rate.keeping_half(), &mut paid, 0), 0);
        assert_eq!(granted_at_once(rate, &mut paid, 0), 0);
    }

    #[test]
    fn what_costs_more_than_a_burst_is_granted_when_the_budget_is_whole() {
        let (rate, budget) = (Rate::per_second(1, 10), new_budget());
        assert!(budget.take_at(rate, u64::MAX, || SECOND_US).is_ok());
        let too_soon = budget.take_at(rate, u64::MAX, || SECOND_US);
        assert_eq!(too_soon.expect_err("spent").wait_us, 10 * SECOND_US);
        budget.reset();
        assert!(budget.take_at(rate, u64::MAX, || SECOND_US).is_ok());
    }

    #[test]
    fn many_at_once_never_get_more_than_burst_and_rate_allow() {
        const BURST: u64 = 20;
        const STEPS: u64 = 5_000;
        // One unit costs 1 ms, and each try moves the clock by 50 µs.
        let (rate, budget, clock_us) = (Rate::per_second(1000, BURST), new_budget(), AtomicU64::new(1));
        let granted: u64 = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..STEPS)
                            .filter(|_| {
                                let clock = || clock_us.fetch_add(50, Ordering::SeqCst);
                                budget.take_at(rate, 1, clock).is_ok()
                            })
                            .count() as u64
                    })
                })
                .collect();
            takers
                .into_iter()
                .map(|taker| taker.join().expect("no panic"))
                .sum()
        });
        let elapsed_us = clock_us.into_inner();
        assert!(
            granted <= BURST + elapsed_us / 1000,
            "{granted} in {elapsed_us} us"
        );
        assert!(granted >= elapsed_us / 1000, "{granted} in {elapsed_us} us");
    }

    proptest! {
        #[test]
        fn burst_and_rate_bound_what_is_granted_however_the_clock_moves(
            (per_second, burst) in (1..2000_u64, 1..50_u64),
            steps in prop::collection::vec((-3_000_000..3_000_000_i64, 1..60_u64, any::<bool>()), 1..200),
        ) {
            let (whole, budget) = (Rate::per_second(per_second, burst), new_budget());
            let share_us = SECOND_US / per_second;
            let (mut now_us, mut forward_us, mut granted) = (1_000_000_000_u64, 0, 0);
            for (step_us, cost, keeps_half) in steps {
                let rate = if keeps_half { whole.keeping_half() } else { whole };
                now_us = now_us.checked_add_signed(step_us).expect("a time");
                forward_us += u64::try_from(step_us).unwrap_or(0);
                match budget.take_at(rate, cost, || now_us) {
                    Ok(()) => granted += cost.min(rate.burst - rate.kept),
                    Err(too_soon) => {
                        prop_assert!(too_soon.wait_us <= burst * share_us);
                        let mut later = rate.pay(too_soon.paid_until_us, now_us + too_soon.wait_us, cost);
                        prop_assert!(later.is_ok());
                        later = rate.pay(too_soon.paid_until_us, now_us + too_soon.wait_us - 1, cost);
                        prop_assert!(later.is_err());
                    }
                }
                prop_assert!(granted <= burst + forward_us / share_us, "{} granted", granted);
            }
        }
    }
}
