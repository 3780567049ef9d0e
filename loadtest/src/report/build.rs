//! Builds a report from the outcome of the clients and the observations of the server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{
    ChaosReport, KillPoint, LoadGeneratorFigures, Observations, Report, ServerFigures, ServerPoint,
    WorkloadReport,
};
use crate::chaos::kill_log::KillLog;
use crate::clients::{GroupOutcome, Outcome};
use crate::latency::Latency;
use crate::machine;
use crate::machine::process_tree::TreeFigures;
use crate::machine::sampler::Sample;
use crate::options::Options;
use crate::server::roles::HANDLER;
use crate::workload::Counts;

/// A keeper that restarts and adopts handlers waits for a core several times. Each wait is estimated by the
/// load generator's own lateness.
const LAG_TO_SLACK: f64 = 10.0;
/// A single stall shows in no percentile, and the server's longest one may be longer than the load
/// generator's.
const LAG_MAX_TO_SLACK: f64 = 3.0;
/// Most kills that are listed one by one.
const KILLS_LISTED_MAX: usize = 20_000;

impl Report {
    /// The report of a run, with thresholds checked.
    #[expect(clippy::cast_precision_loss, reason = "figures for display")]
    pub(crate) fn of(options: &Options, observed: Observations, outcome: Outcome) -> Self {
        let load_seconds = outcome.load_seconds;
        let per_second = |count: u64| count as f64 / load_seconds;
        let groups = &outcome.groups;
        let counts = groups
            .iter()
            .map(|group| group.figures.counts)
            .fold(Counts::default(), Counts::plus);
        let clients = groups.iter().map(|group| group.plan.shape.clients).sum();
        let sum_of = |field: fn(&GroupOutcome) -> u64| groups.iter().map(field).sum::<u64>();
        let all_of = |field: fn(&GroupOutcome) -> &Latency| {
            let mut all = Latency::new();
            groups.iter().for_each(|group| all.add(field(group)));
            all.percentiles()
        };
        let lag = outcome.lag.percentiles().unwrap_or_default();
        let kill_log = observed.kill_log.as_ref();
        // The server's processes wait for the same cores.
        let slack_ms = (lag.p99 * LAG_TO_SLACK).max(lag.max * LAG_MAX_TO_SLACK);
        let slack = Duration::from_secs_f64(slack_ms / 1e3);
        let mut report = Self {
            workload: match &groups[..] {
                [only] => only.plan.kind.name(),
                _ => "mix",
            },
            workloads: groups.iter().map(WorkloadReport::of).collect(),
            clients,
            seed: options.seed,
            load_seconds,
            interrupted: outcome.interrupted,
            join_seconds: observed.join_seconds,
            joins_per_second: f64::from(clients) / observed.join_seconds,
            sent: counts.sent,
            received: counts.received,
            sent_per_second: per_second(counts.sent),
            received_per_second: per_second(counts.received),
            lost: sum_of(|group| group.figures.lost),
            duplicated: counts.duplicated,
            reordered: counts.reordered,
            mismatches: counts.mismatches,
            rejected: counts.rejected,
            unsent: sum_of(|group| group.figures.unsent),
            disconnects: outcome.disconnects,
            double_faults: kill_log.map_or(0, |kill_log| kill_log.count_explained(&outcome.loss_log, slack)),
            early_resets: outcome.early_resets,
            refused: outcome.refused,
            resumes: outcome.resumes,
            resyncs: outcome.resyncs,
            sessions_lost: outcome.sessions_lost,
            takeovers: difference(
                observed.counters_before.takeovers,
                observed.counters_after.takeovers,
            ),
            handlers_killed: kill_log.map_or(0, |kill_log| kill_log.count(HANDLER)),
            chaos: kill_log.map(|kill_log| ChaosReport::of(kill_log, &observed, slack)),
            matches: counts.matches,
            matches_per_second: per_second(counts.matches),
            latency_ms: all_of(|group| &group.latency),
            round_trip_ms: all_of(|group| &group.round_trip),
            to_the_last_ms: all_of(|group| &group.to_last_recipient),
            server: ServerFigures::of(clients, &observed),
            load_generator: LoadGeneratorFigures {
                cpu_percent: outcome.cpu_seconds / load_seconds * 100.0,
                waiting_percent: outcome.wait_seconds.map(|waited| waited / load_seconds * 100.0),
                lag_ms_p99: lag.p99,
                lag_ms_max: lag.max,
                bottleneck: false,
            },
            command: std::env::args_os()
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect(),
            server_timeline: observed
                .samples
                .iter()
                .filter_map(|sample| ServerPoint::of(sample, observed.load_began?))
                .collect(),
            timeline: outcome.timeline,
            ..Self::default()
        };
        let losses = outcome.losses.iter();
        report
            .notes
            .extend(losses.map(|(reason, times)| format!("{times} × connection lost: {reason}")));
        if outcome.interrupted {
            report.notes.push(format!(
                "interrupted: {load_seconds:.1} of {} seconds of load were measured",
                options.duration
            ));
        }
        if report.unsent > 0 {
            report.notes.push(format!(
                "{} messages were due and not sent in time: the server, or this program, did not keep up with the rate",
                report.unsent
            ));
        }
        if outcome.unclosed > 0 {
            report.failures.push(format!(
                "{} connections were not closed after a goodbye",
                outcome.unclosed
            ));
        }
        report.detect_bottleneck(machine::cores());
        report.check_thresholds(&options.thresholds);
        report
    }
}

impl WorkloadReport {
    fn of(group: &GroupOutcome) -> Self {
        let (plan, figures) = (&group.plan, &group.figures);
        let counts = figures.counts;
        Self {
            kind: plan.kind.name(),
            description: plan.to_string(),
            clients: plan.shape.clients,
            rooms: plan.shape.rooms,
            room_size: plan.shape.room_size,
            rate: plan.rate,
            payload_bytes: plan.payload_bytes,
            sent: counts.sent,
            received: counts.received,
            lost: figures.lost,
            duplicated: counts.duplicated,
            reordered: counts.reordered,
            mismatches: counts.mismatches,
            rejected: counts.rejected,
            unsent: figures.unsent,
            matches: counts.matches,
            details: figures.details.iter().copied().collect(),
            latency_ms: group.latency.percentiles(),
            round_trip_ms: group.round_trip.percentiles(),
            latency_curve: group.latency.curve(),
            examples: figures.examples.clone(),
        }
    }
}

impl ChaosReport {
    fn of(kill_log: &KillLog, observed: &Observations, slack: Duration) -> Self {
        let mut killed = BTreeMap::new();
        for kill in &kill_log.log {
            *killed.entry(kill.role.clone()).or_default() += 1;
        }
        let before = &observed.counters_before.restarts;
        let restarts = observed.counters_after.restarts.iter().map(|(role, after)| {
            let before = before.get(role).copied().unwrap_or(0);
            (role.clone(), after.saturating_sub(before))
        });
        let since_began = |at: Instant| {
            let began = observed.load_began?;
            Some(at.saturating_duration_since(began).as_secs_f64())
        };
        Self {
            killed,
            missed: kill_log.missed.clone(),
            restarts: restarts.filter(|(_, times)| *times > 0).collect(),
            double_faults: kill_log.double_faults(slack).count() as u64,
            kills: kill_log
                .log
                .iter()
                .take(KILLS_LISTED_MAX)
                .filter_map(|kill| {
                    let (seconds, role) = (since_began(kill.at)?, kill.role.clone());
                    Some(KillPoint { seconds, role })
                })
                .collect(),
        }
    }
}

impl ServerFigures {
    #[expect(clippy::cast_precision_loss, reason = "figures for display")]
    fn of(clients: u32, observed: &Observations) -> Self {
        let cpu_percent =
            observed
                .cpu_began
                .zip(observed.cpu_ended)
                .map(|((before, began), (after, ended))| {
                    (after.cpu_seconds - before.cpu_seconds) / (ended - began).as_secs_f64() * 100.0
                });
        let memory_added = observed.before.zip(observed.after).map(|(before, after)| {
            let added_kib = after.memory_kib as f64 - before.memory_kib as f64;
            added_kib / f64::from(clients)
        });
        let all_added = observed.before.zip(observed.after).map(|(before, after)| {
            let all_kib = |figures: TreeFigures| (figures.user_kib + figures.machine_kernel_kib) as f64;
            (all_kib(after) - all_kib(before)) / f64::from(clients)
        });
        Self {
            processes: observed.after.map(|figures| figures.processes),
            memory_kib_per_client: memory_added,
            // If the total grew less than a part of it, something else has freed memory meanwhile.
            memory_all_kib_per_client: all_added.filter(|all| memory_added.is_some_and(|plan| *all >= plan)),
            memory_kib: observed.after.map(|figures| figures.memory_kib),
            cpu_percent,
        }
    }
}

impl ServerPoint {
    /// `None` for a sample from before the load.
    fn of(sample: &Sample, load_began: Instant) -> Option<Self> {
        // The sampler starts a moment before the load.
        let seconds = sample.at.saturating_duration_since(load_began).as_secs_f64();
        Some(Self {
            seconds,
            processes: sample.processes,
            cpu_percent: sample.cpu_percent,
            memory_kib: sample.memory_kib,
        })
    }
}

fn difference(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    Some(after?.saturating_sub(before?))
}
