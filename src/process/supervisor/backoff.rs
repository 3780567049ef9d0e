//! When a role that has exited is started again: a pure decision from how long it ran.

use crate::limits::{RESTART_BACKOFF_MS_MAX, RESTART_BACKOFF_MS_MIN, RESTART_BACKOFF_RESET_AFTER_MS};

/// The policy: at once if it ran for long, else later each time.
#[derive(Debug)]
pub(crate) struct Backoff {
    /// `None`: it was not started since it exited.
    started_at_ms: Option<u64>,
    delay_ms: u64,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            started_at_ms: None,
            delay_ms: RESTART_BACKOFF_MS_MIN,
        }
    }

    /// It was started.
    pub(crate) fn started(&mut self, now_ms: u64) {
        self.started_at_ms = Some(now_ms);
    }

    /// When it was started, if it has not exited since.
    pub(crate) fn started_at_ms(&self) -> Option<u64> {
        self.started_at_ms
    }

    /// It has exited, or could not be started. Gives the time at which to start it again.
    pub(crate) fn ended(&mut self, now_ms: u64) -> u64 {
        let lived_ms = self
            .started_at_ms
            .take()
            .map_or(0, |started_at_ms| now_ms.saturating_sub(started_at_ms));
        if lived_ms >= RESTART_BACKOFF_RESET_AFTER_MS {
            self.delay_ms = RESTART_BACKOFF_MS_MIN;
            return now_ms;
        }
        let restart_at_ms = now_ms + self.delay_ms;
        self.delay_ms = (self.delay_ms * 2).min(RESTART_BACKOFF_MS_MAX);
        restart_at_ms
    }

    /// It has exited because it was told to: its successor starts without delay.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_ran_for_long_restarts_at_once_and_one_that_dies_early_later_each_time() {
        let mut backoff = Backoff::new();
        backoff.started(0);
        assert_eq!(
            backoff.ended(RESTART_BACKOFF_RESET_AFTER_MS),
            RESTART_BACKOFF_RESET_AFTER_MS
        );
        let delays = [(); 11].map(|()| {
            backoff.started(1000);
            backoff.ended(1001) - 1001
        });
        assert_eq!(delays, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000]);
        backoff.started(2000);
        assert_eq!(backoff.ended(9000), 9000);
    }

    #[test]
    fn a_role_that_cannot_be_started_is_tried_later_each_time_however_long_it_ran_before() {
        let mut backoff = Backoff::new();
        backoff.started(0);
        let tries = [7000, 7000, 7010, 9000].map(|now_ms| backoff.ended(now_ms) - now_ms);
        assert_eq!(tries, [0, 10, 20, 40]);
    }
}
