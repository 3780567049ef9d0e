//! How many spare handlers a keeper forks ahead of need: a pure decision from when connections have arrived.

use crate::config::Span;
use crate::limits::{SPARE_FORK_BATCH_MAX, SPARES_SHRINK_AFTER_MS};

/// The policy: twice as many whenever there were not enough, half as many after a quiet time.
#[derive(Debug)]
pub(crate) struct PreforkPolicy {
    span: Span,
    target: u32,
    quiet_since_ms: u64,
    retry_at_ms: u64,
}

impl PreforkPolicy {
    pub(crate) fn new(span: Span, now_ms: u64) -> Self {
        Self {
            span,
            target: span.min,
            quiet_since_ms: now_ms,
            retry_at_ms: 0,
        }
    }

    /// A connection has arrived, and so many handlers are idle now; 0 if one had to be forked for it.
    pub(crate) fn on_connection(&mut self, idle: u32, now_ms: u64) {
        self.quiet_since_ms = now_ms;
        if idle == 0 {
            self.target = (self.target * 2)
                .clamp(1, self.span.max.max(1))
                .min(self.span.max);
        }
    }

    /// A fork failed: the next try is due later.
    pub(crate) fn fork_failed(&mut self, now_ms: u64) {
        self.retry_at_ms = now_ms + SPARES_SHRINK_AFTER_MS;
    }

    /// Whether no fork has just failed.
    pub(crate) fn may_fork(&self, now_ms: u64) -> bool {
        self.retry_at_ms <= now_ms
    }

    /// How many to fork now.
    pub(crate) fn to_fork(&self, idle: u32, now_ms: u64) -> u32 {
        match self.may_fork(now_ms) {
            true => self.target.saturating_sub(idle).min(SPARE_FORK_BATCH_MAX),
            false => 0,
        }
    }

    /// How many to retire now.
    pub(crate) fn retire_count(&mut self, idle: u32, now_ms: u64) -> u32 {
        if now_ms.saturating_sub(self.quiet_since_ms) < SPARES_SHRINK_AFTER_MS {
            return 0;
        }
        self.quiet_since_ms = now_ms;
        self.target = (self.target / 2).max(self.span.min);
        idle.saturating_sub(self.target)
    }

    /// When the next decision is due, if no connection arrives before.
    pub(crate) fn due_ms(&self, idle: u32, now_ms: u64) -> Option<u64> {
        if self.target > idle {
            return Some(now_ms.max(self.retry_at_ms));
        }
        (idle > self.span.min).then_some(self.quiet_since_ms + SPARES_SHRINK_AFTER_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { min: 2, max: 16 };

    #[test]
    fn the_target_doubles_each_time_there_were_not_enough_up_to_the_maximum() {
        let mut policy = PreforkPolicy::new(SPAN, 0);
        let target = [1, 2, 3, 4, 5].map(|now| {
            policy.on_connection(0, now);
            policy.target
        });
        assert_eq!(target, [4, 8, 16, 16, 16]);
        policy.on_connection(3, 6);
        assert_eq!(policy.target, 16, "there were enough");
    }

    #[test]
    fn the_target_halves_after_each_quiet_time_down_to_the_minimum() {
        let mut policy = PreforkPolicy::new(SPAN, 0);
        (0..4).for_each(|now| policy.on_connection(0, now));
        assert_eq!(policy.retire_count(16, 100), 0, "it has not been quiet for long");
        let times = [1, 2, 3, 4].map(|nth| nth * SPARES_SHRINK_AFTER_MS + 100);
        assert_eq!(times.map(|now| policy.retire_count(16, now)), [8, 12, 14, 14]);
    }

    #[test]
    fn a_maximum_of_zero_forks_none() {
        let mut policy = PreforkPolicy::new(Span { min: 0, max: 0 }, 0);
        policy.on_connection(0, 1);
        assert_eq!(policy.to_fork(0, 2), 0);
        assert_eq!(policy.due_ms(0, 2), None);
    }

    #[test]
    fn few_are_forked_at_a_time_and_none_for_a_while_after_a_failure() {
        let mut policy = PreforkPolicy::new(Span { min: 9, max: 9 }, 0);
        assert_eq!(policy.to_fork(0, 1), SPARE_FORK_BATCH_MAX);
        assert_eq!(policy.to_fork(8, 1), 1);
        policy.fork_failed(1);
        assert_eq!(policy.to_fork(0, 2), 0);
        assert_eq!(
            policy.to_fork(0, 1 + SPARES_SHRINK_AFTER_MS),
            SPARE_FORK_BATCH_MAX
        );
    }
}
