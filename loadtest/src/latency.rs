//! Latency percentiles.
//!
//! In an open loop (`--rate` above 0) every message has an *intended* time, fixed by the schedule alone, and its latency
//! counts from there. So when the server (or this program) stalls, the messages that should have been sent meanwhile are
//! late by what they waited: the correction for coordinated omission is in the data, and none is computed afterwards.
//! In a closed loop (`--rate 0`) there is no schedule: a latency is what one waiting client sees, from sending to
//! receipt, and says nothing about messages that it would have liked to send meanwhile.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies in nanoseconds, to three significant digits.
#[derive(Debug, Clone)]
pub(crate) struct Latency {
    histogram: Histogram<u64>,
}

/// A distribution's figures in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latency {
    pub(crate) fn new() -> Self {
        const HOUR_NS: u64 = 3_600_000_000_000;
        let histogram = Histogram::new_with_bounds(1, HOUR_NS, 3).expect("constant bounds are valid");
        Self { histogram }
    }

    /// Takes note of one receipt, `now_ns`, of what should have been sent at `intended_ns`.
    pub(crate) fn record(&mut self, intended_ns: u64, now_ns: u64) {
        self.histogram
            .saturating_record(now_ns.saturating_sub(intended_ns).max(1));
    }

    /// The figures; nothing when nothing was recorded.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let milliseconds = |quantile| {
            #[expect(clippy::cast_precision_loss, reason = "three digits are significant")]
            let nanoseconds = self.histogram.value_at_quantile(quantile) as f64;
            nanoseconds / 1e6
        };
        (!self.histogram.is_empty()).then(|| Percentiles {
            p50: milliseconds(0.5),
            p90: milliseconds(0.9),
            p99: milliseconds(0.99),
            p999: milliseconds(0.999),
            max: milliseconds(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;

    const MS: u64 = 1_000_000;

    #[test]
    fn nothing_recorded_has_no_percentiles() {
        assert_eq!(Latency::new().percentiles(), None);
    }

    #[test]
    fn a_stall_counts_for_every_message_that_should_have_been_sent_during_it() {
        // 100 messages a second for 10 seconds, each taking 1 ms; but from 5 s to 6 s everything stands still.
        let mut schedule = Schedule::new(0, 100.0);
        let (mut corrected, mut blind) = (Latency::new(), Latency::new());
        let mut free = 0;
        while schedule.intended() < 10_000 * MS {
            let intended = schedule.advance();
            let mut sent = intended.max(free);
            if (5_000 * MS..6_000 * MS).contains(&sent) {
                sent = 6_000 * MS;
            }
            free = sent + MS;
            corrected.record(intended, free);
            blind.record(sent, free);
        }
        let (corrected, blind) = (corrected.percentiles().unwrap(), blind.percentiles().unwrap());
        assert!(
            blind.max < 1.1,
            "measuring from the actual sending hides the stall: {blind:?}"
        );
        assert!(corrected.p50 < 1.1 && corrected.max > 990.0, "{corrected:?}");
        // A tenth of all messages waited, evenly from 0 to 1,000 ms: so the 99th percentile is about 900 ms.
        assert!((850.0..950.0).contains(&corrected.p99), "{corrected:?}");
    }
}
