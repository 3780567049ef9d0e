//! What happened in each second of the load.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::workload::Counts;

const SECOND_NS: u64 = 1_000_000_000;
/// A latency above one hour is recorded as one hour.
const LATENCY_NS_MAX: u64 = 3600 * SECOND_NS;
/// A shorter interval has too few events for meaningful figures.
const INTERVAL_NS_MIN: u64 = SECOND_NS / 10;
/// More points than this do not show in a plot; a longer load has longer intervals.
const POINTS_MAX: u64 = 600;

/// One interval of the load, a second unless the load is long.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// End of the interval, in seconds since the load began.
    pub seconds: f64,
    pub sent_per_second: f64,
    pub received_per_second: f64,
    /// Of the messages received in this interval; `None` if there were none.
    pub latency_ms: Option<LatencySummary>,
    /// CPU use of the load generator's thread; 100 is one core.
    pub own_cpu_percent: f64,
    /// Longest time that a due send or received data waited for the load generator.
    pub lag_ms_max: f64,
}

/// A few percentiles of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct LatencySummary {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// Running totals; the figures of an interval are their differences.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub counts: Counts,
    pub cpu_seconds: f64,
}

/// Collects points.
#[derive(Debug)]
pub(crate) struct Timeline {
    start_ns: u64,
    interval_ns: u64,
    interval_began_ns: u64,
    before: Totals,
    latencies_ns: Histogram<u64>,
    lag_ns_max: u64,
    points: Vec<Point>,
}

impl Timeline {
    /// The load begins, and will last for `duration_ns`.
    pub(crate) fn start(now_ns: u64, duration_ns: u64, totals: Totals) -> Self {
        let seconds = duration_ns.div_ceil(SECOND_NS);
        Self {
            start_ns: now_ns,
            interval_ns: seconds.div_ceil(POINTS_MAX).max(1) * SECOND_NS,
            interval_began_ns: now_ns,
            before: totals,
            // Two digits are more than a plot shows.
            latencies_ns: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 2)
                .expect("constant bounds are valid"),
            lag_ns_max: 0,
            points: Vec::new(),
        }
    }

    /// Records the latency of a received message.
    pub(crate) fn record(&mut self, latency_ns: u64) {
        self.latencies_ns.saturating_record(latency_ns.max(1));
    }

    /// Records how long something waited for the load generator.
    pub(crate) fn record_lag(&mut self, lag_ns: u64) {
        self.lag_ns_max = self.lag_ns_max.max(lag_ns);
    }

    /// Whether the interval is over, so that [`Timeline::advance`] must be called. An interval that began
    /// late does not end late: otherwise the delays would add up and whole intervals would be left out.
    pub(crate) fn is_over(&self, now_ns: u64) -> bool {
        let intervals_before = (self.interval_began_ns - self.start_ns) / self.interval_ns;
        let end_ns = self.start_ns + (intervals_before + 1) * self.interval_ns;
        now_ns >= end_ns.max(self.interval_began_ns + INTERVAL_NS_MIN)
    }

    /// Ends the current interval, even if it is not over.
    pub(crate) fn advance(&mut self, now_ns: u64, totals: Totals) {
        let elapsed_ns = now_ns - self.interval_began_ns;
        // What remains of an interval when the load ends may be that short, too.
        if elapsed_ns == 0 || (elapsed_ns < INTERVAL_NS_MIN && !self.points.is_empty()) {
            return;
        }
        let elapsed = seconds(elapsed_ns);
        let per_second = |now: u64, before: u64| count(now - before) / elapsed;
        let milliseconds = |quantile| seconds(self.latencies_ns.value_at_quantile(quantile)) * 1e3;
        let (counts, before) = (totals.counts, self.before.counts);
        self.points.push(Point {
            seconds: seconds(now_ns - self.start_ns),
            sent_per_second: per_second(counts.sent, before.sent),
            received_per_second: per_second(counts.received, before.received),
            latency_ms: (!self.latencies_ns.is_empty()).then(|| LatencySummary {
                p50: milliseconds(0.5),
                p99: milliseconds(0.99),
                max: milliseconds(1.0),
            }),
            own_cpu_percent: (totals.cpu_seconds - self.before.cpu_seconds) / elapsed * 100.0,
            lag_ms_max: seconds(self.lag_ns_max) * 1e3,
        });
        (self.interval_began_ns, self.before, self.lag_ns_max) = (now_ns, totals, 0);
        self.latencies_ns.reset();
    }

    /// All intervals so far.
    pub(crate) fn into_points(self) -> Vec<Point> {
        self.points
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for display")]
fn count(count: u64) -> f64 {
    count as f64
}

fn seconds(nanoseconds: u64) -> f64 {
    count(nanoseconds) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(sent: u64, received: u64, cpu_seconds: f64) -> Totals {
        let counts = Counts {
            sent,
            received,
            ..Counts::default()
        };
        Totals { counts, cpu_seconds }
    }

    #[test]
    fn each_second_has_its_own_figures() {
        let mut timeline = Timeline::start(5 * SECOND_NS, 10 * SECOND_NS, totals(100, 200, 3.0));
        timeline.record(2_000_000);
        timeline.record_lag(7_000_000);
        assert!(!timeline.is_over(6 * SECOND_NS - 1));
        assert!(timeline.is_over(6 * SECOND_NS));
        timeline.advance(6 * SECOND_NS, totals(110, 220, 3.5));
        timeline.advance(8 * SECOND_NS, totals(110, 240, 3.5));
        timeline.advance(8 * SECOND_NS + 5, totals(110, 240, 3.5));
        let points = timeline.into_points();
        assert_eq!(points.len(), 2, "five nanoseconds are no interval");
        let first = points[0];
        assert_eq!(
            (first.seconds, first.sent_per_second, first.received_per_second),
            (1.0, 10.0, 20.0)
        );
        assert_eq!((first.own_cpu_percent, first.lag_ms_max), (50.0, 7.0));
        let latency = first.latency_ms.expect("something came");
        assert!((1.9..2.1).contains(&latency.p50) && latency.max >= latency.p99);
        assert_eq!(
            (points[1].received_per_second, points[1].latency_ms),
            (10.0, None)
        );
    }

    #[test]
    fn delays_of_intervals_do_not_add_up() {
        let mut timeline = Timeline::start(0, 3 * SECOND_NS, Totals::default());
        const MS: u64 = 1_000_000;
        for late_ms in [1300, 2950] {
            assert!(timeline.is_over(late_ms * MS));
            timeline.advance(late_ms * MS, Totals::default());
        }
        assert!(
            !timeline.is_over(3049 * MS) && timeline.is_over(3050 * MS),
            "at 3000 it would be too short"
        );
        timeline.advance(3050 * MS, Totals::default());
        assert!(!timeline.is_over(3999 * MS) && timeline.is_over(4000 * MS));
    }

    #[test]
    fn a_long_load_has_longer_intervals() {
        let timeline = Timeline::start(0, 86_400 * SECOND_NS, Totals::default());
        assert!(!timeline.is_over(143 * SECOND_NS) && timeline.is_over(144 * SECOND_NS));
    }
}
