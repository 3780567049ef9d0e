//! What the figures mean: which thresholds were exceeded, and whether the server was the bottleneck at all.

use super::Report;
use crate::options::Thresholds;

/// Above this share of a core the load generator's thread has no reserve left.
const BUSY_PERCENT: f64 = 90.0;
/// If the thread waits for a core for a larger share of the time than this, and longer than it uses one,
/// everything is late.
const WAITING_PERCENT: f64 = 20.0;
/// Lateness below this does not affect the figures noticeably.
const LAG_MS_MIN: f64 = 1.0;
/// Lateness above this share of the latency's 99th percentile dominates the measurement.
const LAG_SHARE: f64 = 0.5;

impl Report {
    /// Adds a note if this program, or the machine, was the bottleneck. The criteria:
    ///
    /// - the load generator: its thread used more than 90 % of a core; or its own lateness (p99, above 1 ms)
    ///   is at least half of the latency's p99, and it did not wait for a core longer than it worked;
    /// - the machine: server and load generator together used more than 90 % of all cores; or the load
    ///   generator waited longer for a core than it used one, and did so for more than 20 % of the time or
    ///   with that lateness.
    pub(crate) fn detect_bottleneck(&mut self, cores: usize) {
        let own = &self.load_generator;
        let waiting = own.waiting_percent.unwrap_or(0.0);
        #[expect(clippy::cast_precision_loss, reason = "a number of cores")]
        let all = cores as f64 * 100.0;
        let together = own.cpu_percent + self.server.cpu_percent.unwrap_or(0.0);
        let p99 = self.latency_ms.map_or(0.0, |latency| latency.p99);
        let is_late = own.lag_ms_p99 > LAG_MS_MIN && own.lag_ms_p99 > p99 * LAG_SHARE;
        let lateness = format!(
            "its own lateness (p99 {:.3} ms) makes up most of the latency (p99 {p99:.3} ms)",
            own.lag_ms_p99
        );
        let mut notes = Vec::new();
        if own.cpu_percent > BUSY_PERCENT {
            notes.push(format!(
                "the load generator was the bottleneck: its thread used {:.0} % of a core, so throughput and latency may be its \
                 limit, not the server's",
                own.cpu_percent
            ));
        } else if is_late && waiting <= own.cpu_percent {
            notes.push(format!("the load generator was the bottleneck: {lateness}"));
        }
        if self.server.cpu_percent.is_some() && together > all * BUSY_PERCENT / 100.0 {
            notes.push(format!(
                "the machine was the bottleneck: server and load generator used {together:.0} of the {all:.0} % of its cores"
            ));
        } else if waiting > own.cpu_percent && (is_late || waiting > WAITING_PERCENT) {
            let lateness_note = if is_late {
                format!(", and {lateness}")
            } else {
                String::new()
            };
            notes.push(format!(
                "the machine was the bottleneck: the load generator waited longer for a core ({waiting:.1} % of the time) than it \
                 used one ({:.1} %){lateness_note}",
                own.cpu_percent
            ));
        }
        self.load_generator.bottleneck = !notes.is_empty();
        self.notes.append(&mut notes);
    }

    /// Adds a sentence to the failures for every threshold that was exceeded.
    pub(crate) fn check_thresholds(&mut self, thresholds: &Thresholds) {
        let p99_ms = self.latency_ms.map(|latency| latency.p99);
        let at_most = |name: &str, value: u64, limit: Option<u64>| {
            limit
                .filter(|limit| value > *limit)
                .map(|limit| format!("{value} {name}, at most {limit} allowed"))
        };
        let broken = [
            at_most("messages lost", self.lost, thresholds.max_lost),
            at_most("messages duplicated", self.duplicated, thresholds.max_duplicated),
            at_most("messages reordered", self.reordered, thresholds.max_reordered),
            at_most("connections lost", self.disconnects, thresholds.max_disconnects),
            at_most(
                "connections lost other than by a double fault",
                self.disconnects - self.double_faults.min(self.disconnects),
                thresholds.max_unexplained_disconnects,
            ),
            at_most("messages rejected", self.rejected, thresholds.max_rejected),
            at_most("messages not sent", self.unsent, thresholds.max_unsent),
            at_most("resyncs", self.resyncs, thresholds.max_resyncs),
            at_most("sessions lost", self.sessions_lost, thresholds.max_sessions_lost),
            at_most(
                "mismatches (wrong content, boards, results or lists)",
                self.mismatches,
                Some(0),
            ),
            thresholds.max_p99_ms.and_then(|limit| match p99_ms {
                None => Some(format!(
                    "no latency was measured, so the 99th percentile is not below {limit} ms"
                )),
                Some(p99) => (p99 > limit).then(|| {
                    format!("the 99th percentile of latency was {p99:.3} ms, at most {limit} ms allowed")
                }),
            }),
            thresholds
                .min_joins_per_second
                .filter(|limit| self.joins_per_second < *limit)
                .map(|limit| {
                    format!(
                        "{:.0} joins per second, at least {limit} required",
                        self.joins_per_second
                    )
                }),
            thresholds
                .min_received
                .filter(|limit| self.received < *limit)
                .map(|limit| format!("{} messages received, at least {limit} required", self.received)),
        ];
        self.failures.extend(broken.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::super::LoadGeneratorFigures;
    use super::*;
    use crate::latency::Percentiles;

    fn report() -> Report {
        let latency = Percentiles {
            p50: 1.0,
            p90: 2.0,
            p99: 3.0,
            p999: 4.0,
            max: 5.0,
        };
        Report {
            latency_ms: Some(latency),
            received: 10,
            joins_per_second: 100.0,
            ..Report::default()
        }
    }

    fn failures(report: &mut Report, thresholds: Thresholds) -> usize {
        report.check_thresholds(&thresholds);
        report.failures.len()
    }

    #[test]
    fn each_threshold_holds_at_its_limit_and_fails_beyond() {
        type Case = (fn(&mut Report), Thresholds);
        let none = Thresholds::default;
        let cases: [Case; 13] = [
            (
                |report| report.lost += 1,
                Thresholds {
                    max_lost: Some(0),
                    ..none()
                },
            ),
            (
                |report| report.duplicated += 1,
                Thresholds {
                    max_duplicated: Some(0),
                    ..none()
                },
            ),
            (
                |report| report.reordered += 1,
                Thresholds {
                    max_reordered: Some(0),
                    ..none()
                },
            ),
            (
                |report| report.disconnects += 1,
                Thresholds {
                    max_disconnects: Some(0),
                    ..none()
                },
            ),
            (
                |report| report.disconnects += 1,
                Thresholds {
                    max_unexplained_disconnects: Some(0),
                    ..none()
                },
            ),
            (
                |report| report.rejected += 1,
                Thresholds {
                    max_rejected: Some(0),
                    ..none()
                },
            ),
            (
                |report| report.unsent += 1,
                Thresholds {
                    max_unsent: Some(0),
                    ..none()
                },
            ),
            (
                |report| report.resyncs += 1,
                Thresholds {
                    max_resyncs: Some(0),
                    ..none()
                },
            ),
            (
                |report| report.sessions_lost += 1,
                Thresholds {
                    max_sessions_lost: Some(0),
                    ..none()
                },
            ),
            (
                |report| report.latency_ms = report.latency_ms.map(|ms| Percentiles { p99: 3.1, ..ms }),
                Thresholds {
                    max_p99_ms: Some(3.0),
                    ..none()
                },
            ),
            (
                |report| report.latency_ms = None,
                Thresholds {
                    max_p99_ms: Some(3.0),
                    ..none()
                },
            ),
            (
                |report| report.joins_per_second = 99.0,
                Thresholds {
                    min_joins_per_second: Some(100.0),
                    ..none()
                },
            ),
            (
                |report| report.received = 9,
                Thresholds {
                    min_received: Some(10),
                    ..none()
                },
            ),
        ];
        for (break_it, thresholds) in cases {
            let (mut kept, mut broken) = (report(), report());
            break_it(&mut broken);
            assert_eq!(failures(&mut kept, thresholds.clone()), 0, "{thresholds:?}");
            assert_eq!(failures(&mut broken, thresholds.clone()), 1, "{thresholds:?}");
        }
    }

    #[test]
    fn a_double_fault_explains_a_disconnect() {
        let mut report = Report {
            disconnects: 3,
            double_faults: 3,
            ..report()
        };
        let thresholds = Thresholds {
            max_unexplained_disconnects: Some(0),
            ..Thresholds::default()
        };
        assert_eq!(failures(&mut report, thresholds), 0);
    }

    #[test]
    fn a_mismatch_fails_without_a_threshold() {
        let mut report = Report {
            mismatches: 1,
            ..report()
        };
        assert_eq!(failures(&mut report, Thresholds::default()), 1);
    }

    #[test]
    fn a_load_generator_or_machine_at_its_limit_is_noted() {
        /// The arguments are the thread's CPU, its waiting for a core, its lateness (p99) and the server's
        /// CPU; there are two cores, and the latency's p99 is 3 ms.
        fn notes(own: f64, waiting: f64, lag: f64, server: Option<f64>) -> Vec<String> {
            let mut report = report();
            report.load_generator = LoadGeneratorFigures {
                cpu_percent: own,
                waiting_percent: Some(waiting),
                lag_ms_p99: lag,
                ..LoadGeneratorFigures::default()
            };
            report.server.cpu_percent = server;
            report.detect_bottleneck(2);
            assert_eq!(report.load_generator.bottleneck, !report.notes.is_empty());
            report.notes
        }
        assert!(notes(30.0, 5.0, 0.2, Some(100.0)).is_empty());
        assert!(
            notes(3.0, 15.0, 0.2, None).is_empty(),
            "a load generator with little to do"
        );
        assert!(notes(30.0, 0.0, 0.9, None).is_empty());
        assert!(
            notes(30.0, 0.0, 1.2, None).is_empty(),
            "a small part of the latency"
        );
        let is_said = |notes: Vec<String>, what: &str| notes.len() == 1 && notes[0].starts_with(what);
        assert!(is_said(
            notes(95.0, 0.0, 0.2, None),
            "the load generator was the bottleneck: its thread used 95 %"
        ));
        assert!(is_said(
            notes(30.0, 5.0, 2.0, Some(100.0)),
            "the load generator was the bottleneck: its own lateness"
        ));
        assert!(is_said(
            notes(60.0, 10.0, 1.2, Some(130.0)),
            "the machine was the bottleneck: server and"
        ));
        assert!(is_said(
            notes(30.0, 40.0, 0.2, Some(100.0)),
            "the machine was the bottleneck: the load generator waited longer for a core (40.0 % of the time) than"
        ));
        assert!(is_said(
            notes(30.0, 40.0, 2.0, Some(100.0)),
            "the machine was the bottleneck: the load generator waited"
        ));
    }

    #[test]
    fn the_json_has_the_documented_keys() {
        let json = serde_json::to_value(report()).unwrap();
        for key in [
            "/joins_per_second",
            "/sent",
            "/received",
            "/lost",
            "/duplicated",
            "/reordered",
            "/disconnects",
            "/resumes",
            "/takeovers",
            "/latency_ms/p50",
            "/latency_ms/p90",
            "/latency_ms/p99",
            "/latency_ms/p999",
            "/latency_ms/max",
            "/server/processes",
            "/server/memory_kib_per_client",
            "/server/cpu_percent",
        ] {
            assert!(json.pointer(key).is_some(), "{key}");
        }
    }
}
