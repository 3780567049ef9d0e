//! The time that a call of a game by a ticker may take, and what follows when a room's game takes longer.
//!
//! Everyone in the room waits meanwhile, and one of the few tickers. A call that takes longer is reported at once. A
//! room whose calls take longer again and again is slowed: it is ticked less often, and by one ticker only. If that
//! does not help, its match is abandoned.
//!
//! Time for which the process was ready to run and did not get a processor is not the game's fault. So a call counts as
//! too long if, besides the time, it used as much of a processor, or slept.

use forkade_games::AnyGame;
use shmem::sys::clock::ThreadUsage;

use crate::limits::{
    TICK_BUDGET_US_MAX, TICK_CALLS_PER_WINDOW, TICK_OVERRUNS_ABANDONED, TICK_OVERRUNS_SLOWED,
};
use crate::state::budget::now_us;
use crate::state::tick_conduct::TickConduct;

/// The time that one call of the game may take: half of its period, but never more than [`TICK_BUDGET_US_MAX`].
pub(crate) fn budget_us(game: &dyn AnyGame) -> u64 {
    match u64::from(game.ticks_per_second()) {
        0 => TICK_BUDGET_US_MAX,
        rate => (1_000_000 / rate / 2).min(TICK_BUDGET_US_MAX),
    }
}

/// A call that runs.
pub(crate) struct CallTimer {
    began_us: u64,
    usage: ThreadUsage,
}

/// How long a call took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CallTime {
    pub(crate) took_us: u64,
    pub(crate) is_too_long: bool,
}

impl CallTimer {
    /// The call begins now.
    pub(crate) fn start() -> Self {
        Self {
            usage: ThreadUsage::now(),
            began_us: now_us(),
        }
    }

    /// The call has ended.
    pub(crate) fn stop(self, budget_us: u64) -> CallTime {
        let took_us = now_us().saturating_sub(self.began_us);
        let is_too_long = took_us > budget_us && {
            let usage = ThreadUsage::now();
            usage.sleeps > self.usage.sleeps || usage.cpu_us - self.usage.cpu_us > budget_us
        };
        CallTime { took_us, is_too_long }
    }
}

/// What follows from a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    InTime,
    /// It took too long.
    Overrun,
    /// It took too long, and the room is slowed from now on.
    Slowed,
    /// The room is not slowed any more.
    Restored,
    /// It took too long, and the match is to be abandoned.
    Abandoned,
}

/// Enters a call. Only for the process that holds the room's lock.
pub(crate) fn enter_call(conduct: &mut TickConduct, is_too_long: bool) -> Verdict {
    conduct.calls += 1;
    conduct.overruns += u32::from(is_too_long);
    if conduct.overruns >= TICK_OVERRUNS_ABANDONED {
        (conduct.calls, conduct.overruns) = (0, 0);
        return Verdict::Abandoned;
    }
    if conduct.overruns >= TICK_OVERRUNS_SLOWED && !conduct.is_slowed {
        conduct.is_slowed = true;
        return Verdict::Slowed;
    }
    if conduct.calls >= TICK_CALLS_PER_WINDOW {
        let is_good = conduct.overruns < TICK_OVERRUNS_SLOWED;
        (conduct.calls, conduct.overruns) = (0, 0);
        if is_good && std::mem::take(&mut conduct.is_slowed) {
            return Verdict::Restored;
        }
    }
    match is_too_long {
        true => Verdict::Overrun,
        false => Verdict::InTime,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn enter(conduct: &mut TickConduct, calls: impl IntoIterator<Item = bool>) -> Vec<Verdict> {
        let verdicts = calls.into_iter().map(|call| enter_call(conduct, call));
        verdicts.filter(|verdict| *verdict != Verdict::InTime).collect()
    }

    #[test]
    fn a_room_that_always_overruns_is_slowed_and_then_abandoned() {
        let mut conduct = TickConduct::default();
        let verdicts = enter(&mut conduct, [true; TICK_OVERRUNS_ABANDONED as usize]);
        let slowed = verdicts.iter().position(|verdict| *verdict == Verdict::Slowed);
        assert_eq!(slowed, Some(TICK_OVERRUNS_SLOWED as usize - 1));
        assert_eq!(verdicts.last(), Some(&Verdict::Abandoned));
        // Its next match has a chance of its own.
        assert_eq!(enter(&mut conduct, [true]), [Verdict::Overrun]);
        assert!(conduct.is_slowed);
    }

    #[test]
    fn rare_overruns_are_forgiven_and_a_room_that_improves_is_restored() {
        let mut conduct = TickConduct::default();
        let rare = (1..=100 * TICK_CALLS_PER_WINDOW).map(|call| call % TICK_CALLS_PER_WINDOW == 7);
        let verdicts = enter(&mut conduct, rare);
        assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Overrun));
        enter(&mut conduct, [true; TICK_OVERRUNS_SLOWED as usize]);
        assert!(conduct.is_slowed);
        let better = enter(&mut conduct, [false; 2 * TICK_CALLS_PER_WINDOW as usize]);
        assert_eq!(better, [Verdict::Restored]);
    }

    #[test]
    fn a_call_that_sleeps_or_computes_is_too_long_and_one_within_its_budget_is_not() {
        let timer = CallTimer::start();
        std::thread::sleep(Duration::from_millis(2));
        assert!(timer.stop(1000).is_too_long);
        let timer = CallTimer::start();
        let end = ThreadUsage::now().cpu_us + 2000;
        while ThreadUsage::now().cpu_us < end {
            std::hint::spin_loop();
        }
        let time = timer.stop(1000);
        assert!(time.is_too_long && time.took_us >= 2000, "{time:?}");
        assert!(!CallTimer::start().stop(u64::MAX).is_too_long);
    }
}
