//! The figures as a table for a terminal.

use std::collections::BTreeMap;
use std::fmt;

use super::{ChaosReport, Report, WorkloadReport};

/// Most examples of errors that are shown.
const EXAMPLES_SHOWN: usize = 5;

impl fmt::Display for Report {
    fn fmt(&self, table: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = &self.workloads[..] {
            writeln!(table, "{}, {:.1} s", only.description, self.load_seconds)?;
        } else {
            writeln!(
                table,
                "{} workloads, {} clients, {:.1} s",
                self.workloads.len(),
                self.clients,
                self.load_seconds
            )?;
        }
        for (name, text) in self.rows() {
            writeln!(table, "  {name:<15} {text}")?;
        }
        Ok(())
    }
}

impl Report {
    /// The rows of the table: a name and its figures.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            (
                "joins",
                format!(
                    "{:.0}/s (all in after {:.3} s)",
                    self.joins_per_second, self.join_seconds
                ),
            ),
            ("sent", format!("{} ({:.0}/s)", self.sent, self.sent_per_second)),
            (
                "received",
                format!("{} ({:.0}/s)", self.received, self.received_per_second),
            ),
        ];
        if self.matches > 0 {
            rows.push((
                "matches",
                format!("{} ({:.0}/s)", self.matches, self.matches_per_second),
            ));
        }
        rows.push((
            "integrity",
            format!(
                "{} lost, {} duplicated, {} reordered, {} mismatches, {} rejected, {} unsent",
                self.lost, self.duplicated, self.reordered, self.mismatches, self.rejected, self.unsent
            ),
        ));
        let double_faults = match self.double_faults {
            0 => String::new(),
            count => format!(" ({count} by double faults)"),
        };
        rows.push((
            "connections",
            format!(
                "{} disconnects{double_faults}, {} early resets, {} refused, {} resumes, {} resyncs, {} sessions lost",
                self.disconnects, self.early_resets, self.refused, self.resumes, self.resyncs, self.sessions_lost
            ),
        ));
        match &self.chaos {
            Some(chaos) => rows.extend(chaos.rows(self.takeovers)),
            None => rows.push((
                "takeovers",
                measured(self.takeovers, |takeovers| takeovers.to_string()),
            )),
        }
        rows.push((
            "latency",
            measured(self.latency_ms, |latency| latency.to_string()),
        ));
        rows.push((
            "round trip",
            measured(self.round_trip_ms, |latency| latency.to_string()),
        ));
        if let Some(latency) = self.to_the_last_ms {
            rows.push(("last recipient", latency.to_string()));
        }
        rows.push((
            "server",
            format!(
                "{}, {}{}, {}",
                measured(self.server.processes, |processes| format!(
                    "{processes} processes"
                )),
                measured(self.server.memory_kib_per_client, |kib| format!(
                    "{kib:.1} KiB per client"
                )),
                self.server
                    .memory_all_kib_per_client
                    .map_or_else(String::new, |kib| format!(" ({kib:.1} with all kernel memory)")),
                measured(self.server.cpu_percent, |percent| format!("{percent:.0} % CPU")),
            ),
        ));
        let own = &self.load_generator;
        let waiting = own.waiting_percent.map_or_else(String::new, |percent| {
            format!(", waited {percent:.0} % for a core")
        });
        rows.push((
            "load generator",
            format!(
                "{:.0} % CPU{waiting}, late by p99 {:.3} max {:.3} ms",
                own.cpu_percent, own.lag_ms_p99, own.lag_ms_max
            ),
        ));
        rows.extend(
            self.workloads
                .iter()
                .flat_map(|workload| workload.rows(self.workloads.len() > 1)),
        );
        rows.extend(self.notes.iter().map(|note| ("note", note.clone())));
        rows.extend(self.failures.iter().map(|failure| ("FAILED", failure.clone())));
        rows
    }
}

impl ChaosReport {
    fn rows(&self, takeovers: Option<u64>) -> Vec<(&'static str, String)> {
        let takeovers = measured(takeovers, |takeovers| format!("{takeovers} takeovers"));
        let killed = format!(
            "{}; {takeovers}, {} possible double faults",
            format_counts(&self.killed),
            self.double_faults
        );
        let mut rows = vec![("killed", killed), ("restarts", format_counts(&self.restarts))];
        if !self.missed.is_empty() {
            rows.push(("kills missed", format_counts(&self.missed)));
        }
        rows
    }
}

impl WorkloadReport {
    /// Of one workload among several all figures; of the only one those that the sums do not have.
    fn rows(&self, among_others: bool) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        if among_others {
            rows.push(("workload", self.description.clone()));
            rows.push((
                "",
                format!(
                    "sent {}, received {}, {} lost, {} duplicated, {} reordered, {} mismatches, {} rejected",
                    self.sent,
                    self.received,
                    self.lost,
                    self.duplicated,
                    self.reordered,
                    self.mismatches,
                    self.rejected
                ),
            ));
            rows.push(("", measured(self.latency_ms, |latency| latency.to_string())));
        }
        if !self.details.is_empty() {
            let name = if among_others { "" } else { "details" };
            rows.push((name, format_counts(&self.details)));
        }
        let examples = self.examples.iter().take(EXAMPLES_SHOWN);
        rows.extend(examples.map(|example| ("for example", example.clone())));
        rows
    }
}

/// `handler 20, keeper 3`, or `none`.
fn format_counts<Name: fmt::Display>(counts: &BTreeMap<Name, u64>) -> String {
    let texts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if texts.is_empty() {
        "none".to_owned()
    } else {
        texts.join(", ")
    }
}

fn measured<Figure>(figure: Option<Figure>, show: impl FnOnce(Figure) -> String) -> String {
    figure.map_or_else(|| "(not measured)".to_owned(), show)
}
