//! Latency percentiles.
//!
//! In an open loop (`--rate` above 0) every message has an *intended* time, which only the schedule
//! determines, and its latency counts from that time. If the server (or this program) stalls, the latencies
//! of the messages that were due meanwhile include their delay. So the measured data needs no correction for
//! coordinated omission. In a closed loop (`--rate 0`) there is no schedule: a latency is what one waiting
//! client sees, from sending to receipt, and includes no delay of messages that were not sent meanwhile.

use std::fmt;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies in nanoseconds, to three significant digits. Serialized as pairs of a value and how often it was
/// recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "Vec<(u64, u64)>", from = "Vec<(u64, u64)>")]
pub(crate) struct Latency {
    histogram: Histogram<u64>,
}

impl From<Latency> for Vec<(u64, u64)> {
    fn from(latency: Latency) -> Self {
        let recorded = latency.histogram.iter_recorded();
        recorded
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect()
    }
}

impl From<Vec<(u64, u64)>> for Latency {
    fn from(recorded: Vec<(u64, u64)>) -> Self {
        let mut latency = Self::new();
        for (value_ns, count) in recorded {
            latency.histogram.saturating_record_n(value_ns, count);
        }
        latency
    }
}

/// Percentiles of a distribution, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
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

    /// Records one latency.
    pub(crate) fn record(&mut self, latency_ns: u64) {
        self.histogram.saturating_record(latency_ns.max(1));
    }

    /// Adds all records of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.histogram
            .add(&other.histogram)
            .expect("all have the same bounds");
    }

    /// The percentile curve: pairs of a share of all receipts and the time, in milliseconds, within which
    /// that share was received. It goes from the shortest latency to the share that is one receipt short of
    /// all, and gets denser towards the end.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        const TICKS_PER_HALVING: u32 = 10;
        let steps = self.histogram.iter_quantiles(TICKS_PER_HALVING);
        let points = steps.map(|step| {
            (
                step.quantile_iterated_to(),
                milliseconds(step.value_iterated_to()),
            )
        });
        points.filter(|(quantile, _)| *quantile < 1.0).collect()
    }

    /// The percentiles; `None` if nothing was recorded.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| milliseconds(self.histogram.value_at_quantile(quantile));
        (!self.histogram.is_empty()).then(|| Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        })
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            p50,
            p90,
            p99,
            p999,
            max,
        } = self;
        write!(
            formatter,
            "p50 {p50:.3}  p90 {p90:.3}  p99 {p99:.3}  p99.9 {p999:.3}  max {max:.3} ms"
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are significant")]
fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_serialized_distribution_has_the_same_percentiles() {
        let mut latency = Latency::new();
        (1..=1000).for_each(|ms| latency.record(ms * MS));
        let text = serde_json::to_string(&latency).expect("it is written");
        let read: Latency = serde_json::from_str(&text).expect("it is read");
        assert_eq!(read.percentiles(), latency.percentiles());
        assert_eq!(read.histogram.len(), 1000);
    }

    #[test]
    fn nothing_recorded_has_no_percentiles() {
        assert_eq!(Latency::new().percentiles(), None);
    }

    #[test]
    fn the_curve_rises_to_the_last_receipt_but_one() {
        let mut latency = Latency::new();
        (1..=1000).for_each(|ms| latency.record(ms * MS));
        let curve = latency.curve();
        assert!(
            curve.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1),
            "{curve:?}"
        );
        let near = |share: f64| {
            curve
                .iter()
                .find(|point| point.0 >= share)
                .expect("it goes so far")
                .1
        };
        assert!((495.0..560.0).contains(&near(0.5)), "{curve:?}");
        assert!((985.0..1001.0).contains(&near(0.99)), "{curve:?}");
        assert!(
            curve
                .last()
                .is_some_and(|(share, _)| *share < 1.0 && *share > 0.998),
            "{curve:?}"
        );
    }

    #[test]
    fn a_stall_delays_every_message_that_was_due_during_it() {
        // 100 messages a second for 10 seconds, each taking 1 ms; but from 5 s to 6 s everything stalls.
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
            corrected.record(free - intended);
            blind.record(free - sent);
        }
        let (corrected, blind) = (corrected.percentiles().unwrap(), blind.percentiles().unwrap());
        assert!(
            blind.max < 1.1,
            "measuring from the actual sending hides the stall: {blind:?}"
        );
        assert!(corrected.p50 < 1.1 && corrected.max > 990.0, "{corrected:?}");
        // A tenth of all messages waited, evenly from 0 to 1,000 ms, so the 99th percentile is about 900 ms.
        assert!((850.0..950.0).contains(&corrected.p99), "{corrected:?}");
    }
}
