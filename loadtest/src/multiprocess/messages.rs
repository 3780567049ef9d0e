//! Messages from the workers to the process that started them, one line of JSON each; and how the workers'
//! figures become those of one run.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::clients::{GroupOutcome, Outcome};
use crate::engine::timeline::{LatencySummary, Point};
use crate::latency::Latency;
use crate::plan::WorkloadPlan;
use crate::workload::{Counts, Figures};

/// Commands to a worker: begin the next phase, or end the load.
pub(super) const GO: &str = "go";
pub(super) const STOP: &str = "stop";

/// A message of a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// All its clients are in their rooms.
    AllJoined {
        seconds: f64,
    },
    LoadEnded,
    Settled,
    Counts(WorkerCounts),
    Ended(Box<WorkerOutcome>),
    Failed {
        reason: String,
    },
    /// Its stdout has ended. (A worker never sends this.)
    Exited,
}

/// What a worker has counted so far.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct WorkerCounts {
    pub joined: u64,
    pub sent: u64,
    pub received: u64,
    pub disconnects: u64,
}

/// An [`Outcome`] with one workload, without the fields that have no meaning in another process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WorkerOutcome {
    counts: Counts,
    lost: u64,
    unsent: u64,
    examples: Vec<String>,
    latency: Latency,
    round_trip: Latency,
    to_last_recipient: Latency,
    load_seconds: f64,
    interrupted: bool,
    timeline: Vec<Point>,
    disconnects: u64,
    early_resets: u64,
    refused: u64,
    resumes: u64,
    resyncs: u64,
    sessions_lost: u64,
    losses: BTreeMap<String, u64>,
    unclosed: u64,
    lag: Latency,
    cpu_seconds: f64,
    wait_seconds: Option<f64>,
}

impl WorkerOutcome {
    /// The outcome of a run with one workload; `None` if there is no workload.
    pub(super) fn of(outcome: Outcome) -> Option<Self> {
        let group = outcome.groups.into_iter().next()?;
        Some(Self {
            counts: group.figures.counts,
            lost: group.figures.lost,
            unsent: group.figures.unsent,
            examples: group.figures.examples,
            latency: group.latency,
            round_trip: group.round_trip,
            to_last_recipient: group.to_last_recipient,
            load_seconds: outcome.load_seconds,
            interrupted: outcome.interrupted,
            timeline: outcome.timeline,
            disconnects: outcome.disconnects,
            early_resets: outcome.early_resets,
            refused: outcome.refused,
            resumes: outcome.resumes,
            resyncs: outcome.resyncs,
            sessions_lost: outcome.sessions_lost,
            losses: outcome.losses,
            unclosed: outcome.unclosed,
            lag: outcome.lag,
            cpu_seconds: outcome.cpu_seconds,
            wait_seconds: outcome.wait_seconds,
        })
    }
}

/// The outcomes of all workers as one run of `plan`. Of the workers' own usage the highest counts, because
/// the busiest worker is the first bottleneck.
pub(super) fn merge(plan: WorkloadPlan, outcomes: Vec<WorkerOutcome>) -> Outcome {
    let sum_of = |field: fn(&WorkerOutcome) -> u64| outcomes.iter().map(field).sum::<u64>();
    let most_of = |field: fn(&WorkerOutcome) -> f64| outcomes.iter().map(field).fold(0.0, f64::max);
    let all_of = |field: fn(&WorkerOutcome) -> &Latency| {
        let mut all = Latency::new();
        outcomes.iter().for_each(|outcome| all.add(field(outcome)));
        all
    };
    let mut losses = BTreeMap::new();
    for (reason, times) in outcomes.iter().flat_map(|outcome| &outcome.losses) {
        *losses.entry(reason.clone()).or_default() += times;
    }
    let figures = Figures {
        counts: outcomes
            .iter()
            .map(|outcome| outcome.counts)
            .fold(Counts::default(), Counts::plus),
        lost: sum_of(|outcome| outcome.lost),
        unsent: sum_of(|outcome| outcome.unsent),
        details: Vec::new(),
        examples: outcomes
            .iter()
            .flat_map(|outcome| outcome.examples.iter().cloned())
            .collect(),
    };
    let group = GroupOutcome {
        plan,
        figures,
        latency: all_of(|outcome| &outcome.latency),
        round_trip: all_of(|outcome| &outcome.round_trip),
        to_last_recipient: all_of(|outcome| &outcome.to_last_recipient),
    };
    Outcome {
        groups: vec![group],
        load_seconds: most_of(|outcome| outcome.load_seconds),
        interrupted: outcomes.iter().any(|outcome| outcome.interrupted),
        timeline: timeline_of(&outcomes),
        disconnects: sum_of(|outcome| outcome.disconnects),
        early_resets: sum_of(|outcome| outcome.early_resets),
        refused: sum_of(|outcome| outcome.refused),
        resumes: sum_of(|outcome| outcome.resumes),
        resyncs: sum_of(|outcome| outcome.resyncs),
        sessions_lost: sum_of(|outcome| outcome.sessions_lost),
        losses,
        loss_log: Vec::<(String, Instant)>::new(),
        unclosed: sum_of(|outcome| outcome.unclosed),
        lag: all_of(|outcome| &outcome.lag),
        cpu_seconds: most_of(|outcome| outcome.cpu_seconds),
        wait_seconds: outcomes
            .iter()
            .filter_map(|outcome| outcome.wait_seconds)
            .reduce(f64::max),
    }
}

/// Second by second: sums of sent and received messages, and the worst of all other figures.
fn timeline_of(outcomes: &[WorkerOutcome]) -> Vec<Point> {
    let longest = outcomes.iter().map(|outcome| outcome.timeline.len()).max();
    let seconds = 0..longest.unwrap_or(0);
    seconds
        .filter_map(|second| {
            let points = outcomes.iter().filter_map(|outcome| outcome.timeline.get(second));
            points.copied().reduce(worse)
        })
        .collect()
}

fn worse(one: Point, other: Point) -> Point {
    let summaries = [one.latency_ms, other.latency_ms];
    let worst = summaries
        .into_iter()
        .flatten()
        .reduce(|one, other| LatencySummary {
            p50: one.p50.max(other.p50),
            p99: one.p99.max(other.p99),
            max: one.max.max(other.max),
        });
    Point {
        seconds: one.seconds.max(other.seconds),
        sent_per_second: one.sent_per_second + other.sent_per_second,
        received_per_second: one.received_per_second + other.received_per_second,
        latency_ms: worst,
        own_cpu_percent: one.own_cpu_percent.max(other.own_cpu_percent),
        lag_ms_max: one.lag_ms_max.max(other.lag_ms_max),
    }
}
