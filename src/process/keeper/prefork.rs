//! How many handlers a keeper holds ready for clients to come: a pure decision from how they have come lately.

use crate::config::Span;
use crate::limits::{SPARES_AT_ONCE_MAX, SPARES_SHRINK_AFTER_MS};

/// The policy: twice as many whenever there were not enough, half as many whenever it has been quiet.
#[derive(Debug)]
pub(crate) struct PreforkPolicy {
    span: Span,
    wanted: u32,
    quiet_since_ms: u64,
    rest_until_ms: u64,
}

impl PreforkPolicy {
    pub(crate) fn new(span: Span, now_ms: u64) -> Self {
        Self {
            span,
            wanted: span.min,
            quiet_since_ms: now_ms,
            rest_until_ms: 0,
        }
    }

    /// A client has come, and so many are idle now.
    pub(crate) fn client_came(&mut self, idle: u32, now_ms: u64) {
        self.quiet_since_ms = now_ms;
        if idle == 0 {
            self.wanted = (self.wanted * 2)
                .clamp(1, self.span.max.max(1))
                .min(self.span.max);
        }
    }

    /// None could be forked: another try comes later.
    pub(crate) fn fork_failed(&mut self, now_ms: u64) {
        self.rest_until_ms = now_ms + SPARES_SHRINK_AFTER_MS;
    }

    /// How many are to be forked now.
    pub(crate) fn missing(&self, idle: u32, now_ms: u64) -> u32 {
        match now_ms < self.rest_until_ms {
            true => 0,
            false => self.wanted.saturating_sub(idle).min(SPARES_AT_ONCE_MAX),
        }
    }

    /// How many are to be let go now.
    pub(crate) fn beyond_need(&mut self, idle: u32, now_ms: u64) -> u32 {
        if now_ms.saturating_sub(self.quiet_since_ms) < SPARES_SHRINK_AFTER_MS {
            return 0;
        }
        self.quiet_since_ms = now_ms;
        self.wanted = (self.wanted / 2).max(self.span.min);
        idle.saturating_sub(self.wanted)
    }

    /// When the next decision is due, if no client comes before.
    pub(crate) fn due_ms(&self, idle: u32, now_ms: u64) -> Option<u64> {
        if self.wanted > idle {
            return Some(now_ms.max(self.rest_until_ms));
        }
        (idle > self.span.min).then_some(self.quiet_since_ms + SPARES_SHRINK_AFTER_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { min: 2, max: 16 };

    #[test]
    fn under_pressure_there_are_twice_as_many_each_time_up_to_the_most() {
        let mut spares = PreforkPolicy::new(SPAN, 0);
        let wanted = [1, 2, 3, 4, 5].map(|now| {
            spares.client_came(0, now);
            spares.wanted
        });
        assert_eq!(wanted, [4, 8, 16, 16, 16]);
        spares.client_came(3, 6);
        assert_eq!(spares.wanted, 16, "there were enough");
    }

    #[test]
    fn when_it_is_quiet_half_of_them_go_each_time_down_to_the_least() {
        let mut spares = PreforkPolicy::new(SPAN, 0);
        (0..4).for_each(|now| spares.client_came(0, now));
        assert_eq!(spares.beyond_need(16, 100), 0, "it has not been quiet for long");
        let times = [1, 2, 3, 4].map(|nth| nth * SPARES_SHRINK_AFTER_MS + 100);
        assert_eq!(times.map(|now| spares.beyond_need(16, now)), [8, 12, 14, 14]);
    }

    #[test]
    fn who_wants_none_gets_none() {
        let mut spares = PreforkPolicy::new(Span { min: 0, max: 0 }, 0);
        spares.client_came(0, 1);
        assert_eq!(spares.missing(0, 2), 0);
        assert_eq!(spares.due_ms(0, 2), None);
    }

    #[test]
    fn a_few_are_forked_at_a_time_and_none_for_a_while_after_that_failed() {
        let mut spares = PreforkPolicy::new(Span { min: 9, max: 9 }, 0);
        assert_eq!(spares.missing(0, 1), SPARES_AT_ONCE_MAX);
        assert_eq!(spares.missing(8, 1), 1);
        spares.fork_failed(1);
        assert_eq!(spares.missing(0, 2), 0);
        assert_eq!(spares.missing(0, 1 + SPARES_SHRINK_AFTER_MS), SPARES_AT_ONCE_MAX);
    }
}
