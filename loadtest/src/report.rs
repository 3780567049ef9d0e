//! The figures of a run: as JSON, as a table, and measured against the thresholds.

use std::fmt;

use serde::Serialize;

use crate::latency::Percentiles;
use crate::options::Thresholds;

/// Everything that was measured. The JSON file is this, field by field; what could not be measured is null.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub workload: &'static str,
    pub clients: u32,
    pub rooms: u32,
    pub room_size: u32,
    /// Messages per client and second; 0: closed loop.
    pub rate: f64,
    pub payload_bytes: u32,
    pub seed: u64,
    /// Seconds of load.
    pub load_seconds: f64,
    /// Seconds from the first connect to the last client in its room.
    pub join_seconds: f64,
    /// Clients over `join_seconds`; each join is a connection, a greeting and entering a room.
    pub joins_per_second: f64,
    pub sent: u64,
    pub received: u64,
    pub sent_per_second: f64,
    pub received_per_second: f64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// Foreign or altered content, wrong boards, wrong results, requests refused without a reason. Always a failure.
    pub mismatches: u64,
    /// Messages that the server refused.
    pub rejected: u64,
    /// Messages that were due and could not be sent during the load.
    pub unsent: u64,
    pub disconnects: u64,
    pub resumes: u64,
    pub resyncs: u64,
    /// Sessions that could not be resumed.
    pub sessions_lost: u64,
    pub takeovers: Option<u64>,
    pub handlers_killed: u64,
    pub matches: u64,
    pub matches_per_second: f64,
    /// From the intended time of sending to the receipt, over all receipts.
    pub latency_ms: Option<Percentiles>,
    /// The same over the senders' own copies.
    pub round_trip_ms: Option<Percentiles>,
    pub server: ServerFigures,
    pub load_generator: OwnFigures,
    /// What a reader of the figures ought to know.
    pub notes: Vec<String>,
    /// Why the run counts as failed; empty when it does not.
    pub failures: Vec<String>,
}

/// What the server used.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ServerFigures {
    /// With all clients connected.
    pub processes: Option<u64>,
    /// What the clients added, at the end of the load, over their number.
    pub memory_kib_per_client: Option<f64>,
    /// All of it, at the end of the load.
    pub memory_kib: Option<u64>,
    /// During the load; 100 is one core.
    pub cpu_percent: Option<f64>,
}

/// What the load generator itself used.
#[derive(Debug, Default, Serialize)]
pub(crate) struct OwnFigures {
    /// Of the thread that drives the clients, during the load; 100 is one core, and the most there can be.
    pub cpu_percent: f64,
    /// Longest time that something due had to wait for the load generator.
    pub loop_lag_ms_max: f64,
    /// Whether the figures may show the load generator's limits, or the machine's, instead of the server's.
    pub bottleneck: bool,
}

impl Report {
    /// Says so if this program, or both together on one machine, had no more to give.
    pub(crate) fn judge_load_generator(&mut self, cores: usize) {
        const BUSY_PERCENT: f64 = 90.0;
        const LAG_MS: f64 = 50.0;
        let own = &self.load_generator;
        let mut notes = Vec::new();
        if own.cpu_percent > BUSY_PERCENT {
            notes.push(format!(
                "the load generator used {:.0} % of its core: throughput and latency may be its limit, not the server's",
                own.cpu_percent
            ));
        }
        if own.loop_lag_ms_max > LAG_MS {
            notes.push(format!(
                "the load generator was up to {:.0} ms late, which is part of the latencies",
                own.loop_lag_ms_max
            ));
        }
        let both = own.cpu_percent + self.server.cpu_percent.unwrap_or(0.0);
        #[expect(clippy::cast_precision_loss, reason = "a number of cores")]
        let all = cores as f64 * 100.0;
        if self.server.cpu_percent.is_some() && both > all * BUSY_PERCENT / 100.0 {
            notes.push(format!(
                "server and load generator together used {both:.0} of the {all:.0} % that this machine's cores have: \
                 they took time from each other"
            ));
        }
        self.load_generator.bottleneck = !notes.is_empty();
        self.notes.append(&mut notes);
    }

    /// Adds a sentence to the failures for every threshold that was broken.
    pub(crate) fn judge(&mut self, thresholds: &Thresholds) {
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
                "mismatches (wrong content, boards or results)",
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
                        "{:.0} joins per second, at least {limit} wanted",
                        self.joins_per_second
                    )
                }),
            thresholds
                .min_received
                .filter(|limit| self.received < *limit)
                .map(|limit| format!("{} messages received, at least {limit} wanted", self.received)),
        ];
        self.failures.extend(broken.into_iter().flatten());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, table: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row =
            |table: &mut fmt::Formatter<'_>, name: &str, text: String| writeln!(table, "  {name:<15} {text}");
        let pace = if self.rate > 0.0 {
            format!("{}/s each", self.rate)
        } else {
            "closed loop".to_owned()
        };
        let (clients, rooms, room_size) = (self.clients, self.rooms, self.room_size);
        write!(
            table,
            "{}: {clients} clients in {rooms} rooms of {room_size}, {pace}",
            self.workload
        )?;
        writeln!(table, ", {:.1} s", self.load_seconds)?;
        row(
            table,
            "joins",
            format!(
                "{:.0}/s (all in after {:.3} s)",
                self.joins_per_second, self.join_seconds
            ),
        )?;
        row(
            table,
            "sent",
            format!("{} ({:.0}/s)", self.sent, self.sent_per_second),
        )?;
        row(
            table,
            "received",
            format!("{} ({:.0}/s)", self.received, self.received_per_second),
        )?;
        if self.matches > 0 {
            row(
                table,
                "matches",
                format!("{} ({:.0}/s)", self.matches, self.matches_per_second),
            )?;
        }
        row(
            table,
            "integrity",
            format!(
                "{} lost, {} duplicated, {} reordered, {} mismatches, {} rejected, {} unsent",
                self.lost, self.duplicated, self.reordered, self.mismatches, self.rejected, self.unsent
            ),
        )?;
        row(
            table,
            "connections",
            format!(
                "{} disconnects, {} resumes, {} resyncs, {} sessions lost",
                self.disconnects, self.resumes, self.resyncs, self.sessions_lost
            ),
        )?;
        let takeovers = measured(self.takeovers, |takeovers| format!("{takeovers} takeovers"));
        row(
            table,
            "handlers",
            format!("{} killed, {takeovers}", self.handlers_killed),
        )?;
        row(
            table,
            "latency",
            measured(self.latency_ms, |latency| latency.to_string()),
        )?;
        row(
            table,
            "round trip",
            measured(self.round_trip_ms, |latency| latency.to_string()),
        )?;
        row(
            table,
            "server",
            format!(
                "{}, {}, {}",
                measured(self.server.processes, |processes| format!(
                    "{processes} processes"
                )),
                measured(self.server.memory_kib_per_client, |kib| format!(
                    "{kib:.1} KiB per client"
                )),
                measured(self.server.cpu_percent, |percent| format!("{percent:.0} % CPU")),
            ),
        )?;
        let own = &self.load_generator;
        row(
            table,
            "load generator",
            format!(
                "{:.0} % CPU, at most {:.1} ms late",
                own.cpu_percent, own.loop_lag_ms_max
            ),
        )?;
        for note in &self.notes {
            row(table, "note", note.clone())?;
        }
        for failure in &self.failures {
            row(table, "FAILED", failure.clone())?;
        }
        Ok(())
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

fn measured<Figure>(figure: Option<Figure>, show: impl FnOnce(Figure) -> String) -> String {
    figure.map_or_else(|| "(not measured)".to_owned(), show)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        report.judge(&thresholds);
        report.failures.len()
    }

    #[test]
    fn each_threshold_holds_at_its_limit_and_breaks_beyond() {
        type Case = (fn(&mut Report), Thresholds);
        let none = Thresholds::default;
        let cases: [Case; 8] = [
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
    fn a_mismatch_fails_without_being_asked_for() {
        let mut report = Report {
            mismatches: 1,
            ..report()
        };
        assert_eq!(failures(&mut report, Thresholds::default()), 1);
    }

    #[test]
    fn an_exhausted_load_generator_or_machine_is_said_to_be_one() {
        let judged = |own, server, lag| {
            let mut report = report();
            report.load_generator = OwnFigures {
                cpu_percent: own,
                loop_lag_ms_max: lag,
                bottleneck: false,
            };
            report.server.cpu_percent = server;
            report.judge_load_generator(2);
            (report.load_generator.bottleneck, report.notes.len())
        };
        assert_eq!(judged(30.0, Some(100.0), 2.0), (false, 0));
        assert_eq!(judged(30.0, None, 2.0), (false, 0));
        assert_eq!(judged(95.0, None, 2.0), (true, 1));
        assert_eq!(judged(60.0, Some(130.0), 2.0), (true, 1));
        assert_eq!(judged(30.0, Some(100.0), 80.0), (true, 1));
    }

    #[test]
    fn the_json_has_the_promised_keys() {
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
