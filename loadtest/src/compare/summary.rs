//! Medians over the rounds.

use serde::Serialize;

use super::{Candidate, Figures, Measurement, Pacing};
use crate::server::peer::Peer;

/// The medians of one server at one number of clients. `None` where nothing was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    #[serde(rename = "entrant")]
    pub candidate: String,
    pub peer: Option<Peer>,
    pub clients: u32,
    /// Over both kinds of pacing.
    pub joins_per_second: Option<f64>,
    pub paced_p50_ms: Option<f64>,
    pub paced_p99_ms: Option<f64>,
    /// Closed loop: messages that the server received.
    pub messages_in_per_second: Option<f64>,
    /// Closed loop: CPU time of the server's processes per message.
    pub cpu_us_per_message: Option<f64>,
    /// Of the paced runs: what the server's processes are charged for.
    pub memory_kib_per_client: Option<f64>,
    /// The same, including all other memory of the machine's kernel.
    pub memory_all_kib_per_client: Option<f64>,
    /// What a reader of these figures must know.
    pub remarks: Vec<String>,
}

/// Summaries of all servers, ordered by the number of clients first.
pub(super) fn of(candidates: &[Candidate], clients: &[u32], measurements: &[Measurement]) -> Vec<Summary> {
    let pairs = clients
        .iter()
        .flat_map(|clients| candidates.iter().map(move |candidate| (*clients, candidate)));
    pairs
        .map(|(clients, candidate)| summarise(candidate, clients, measurements))
        .collect()
}

fn summarise(candidate: &Candidate, clients: u32, measurements: &[Measurement]) -> Summary {
    let runs = |pacing: Option<Pacing>| {
        measurements
            .iter()
            .filter(move |run| run.candidate == candidate.name && run.clients == clients)
            .filter(move |run| pacing.is_none_or(|pacing| run.pacing == pacing))
            .filter_map(|run| run.figures.as_ref())
    };
    let median_of = |pacing: Option<Pacing>, figure: &dyn Fn(&Figures) -> Option<f64>| {
        median(runs(pacing).filter_map(figure).collect())
    };
    let (paced, closed) = (Some(Pacing::Paced), Some(Pacing::ClosedLoop));
    Summary {
        candidate: candidate.name.clone(),
        peer: candidate.peer,
        clients,
        joins_per_second: median_of(None, &|run| Some(run.joins_per_second)),
        paced_p50_ms: median_of(paced, &|run| Some(run.latency_ms?.p50)),
        paced_p99_ms: median_of(paced, &|run| Some(run.latency_ms?.p99)),
        messages_in_per_second: median_of(closed, &|run| Some(run.sent_per_second)),
        cpu_us_per_message: median_of(closed, &|run| {
            let microseconds_per_second = run.server.cpu_percent? * 1e4;
            Some(microseconds_per_second / run.sent_per_second)
        }),
        memory_kib_per_client: median_of(paced, &|run| run.server.memory_kib_per_client),
        memory_all_kib_per_client: median_of(paced, &|run| run.server.memory_all_kib_per_client),
        remarks: [Pacing::Paced, Pacing::ClosedLoop]
            .into_iter()
            .filter_map(|pacing| remark(pacing, &runs(Some(pacing)).collect::<Vec<_>>()))
            .collect(),
    }
}

/// What limited the runs other than the server, and what went wrong.
fn remark(pacing: Pacing, runs: &[&Figures]) -> Option<String> {
    let mut remarks = Vec::new();
    let sum_of = |figure: fn(&Figures) -> u64| runs.iter().map(|run| figure(run)).sum::<u64>();
    for (what, count) in [
        ("lost", sum_of(|run| run.lost)),
        ("duplicated", sum_of(|run| run.duplicated)),
        ("reordered", sum_of(|run| run.reordered)),
        ("altered", sum_of(|run| run.mismatches)),
        ("not sent in time", sum_of(|run| run.unsent)),
        ("connections lost", sum_of(|run| run.disconnects)),
    ] {
        if count > 0 {
            remarks.push(format!("{count} {what}"));
        }
    }
    let limited = |by: &str| {
        let is_by = |run: &&&Figures| run.notes.iter().any(|note| note.starts_with(by));
        runs.iter().filter(is_by).count()
    };
    for (by, what) in [
        (
            "the load generator was the bottleneck",
            "by the load generator, so the server can do more",
        ),
        (
            "the machine was the bottleneck",
            "by the machine's cores, which load generator and server share",
        ),
    ] {
        match limited(by) {
            0 => {}
            all if all == runs.len() => remarks.push(format!("limited {what}")),
            some => remarks.push(format!("{some} of {} runs limited {what}", runs.len())),
        }
    }
    (!remarks.is_empty()).then(|| format!("{pacing}: {}", remarks.join("; ")))
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len().is_multiple_of(2) {
        Some((values[middle - 1] + upper) / 2.0)
    } else {
        Some(upper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
