//! Runs one measurement from outside the swarm: starts or finds the server, reads what it uses, kills handlers if asked
//! to, shows progress, and puts the report together.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::chaos::HandlerKiller;
use crate::console::{Console, ConsoleError};
use crate::engine::Live;
use crate::options::{Options, Shape};
use crate::proc_figures::{self, TreeFigures};
use crate::progress::{self, Progress};
use crate::report::{OwnFigures, Report, ServerFigures};
use crate::server_process::{ServerError, ServerProcess};
use crate::swarm::{Go, Milestone, Outcome, Swarm, SwarmError};

/// Open files that are no client's connection.
const OTHER_FILES: u64 = 32;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error(
        "{clients} clients need {needed} open files, and this process may have {hard}: \
         use fewer clients, or raise the hard limit (ulimit -Hn)"
    )]
    OpenFiles { clients: u32, needed: u64, hard: u64 },
    #[error("cannot raise the limit of open files: {0}")]
    Limit(io::Error),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Console(#[from] ConsoleError),
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    #[error("cannot read what the server uses: {0}")]
    Proc(io::Error),
}

/// Measures once. The server that was started for it is stopped whatever comes.
///
/// # Errors
/// When no figures came about. (Broken thresholds are in the report.)
pub(crate) fn run(options: &Options, shape: Shape) -> Result<Report, ControlError> {
    let needed = u64::from(shape.clients) + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if let Some(hard) = limit.maximum.filter(|hard| *hard < needed) {
        return Err(ControlError::OpenFiles {
            clients: shape.clients,
            needed,
            hard,
        });
    }
    // The server starts with the limits that it would have without a load generator: it raises its own.
    let own_server = match options.server {
        Some(_) => None,
        None => Some(ServerProcess::start(
            &options.server_arg,
            options.server_log.as_deref(),
        )?),
    };
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|error| ControlError::Limit(error.into()))?;

    let result =
        Subject::find(options, own_server.as_ref()).and_then(|subject| measure(options, shape, subject));
    let stopped = own_server.map_or(Ok(()), ServerProcess::stop);
    let mut report = result?;
    if let Err(error) = stopped {
        report.failures.push(error.to_string());
    }
    Ok(report)
}

/// The server under load, as far as it can be looked into.
struct Subject {
    game: SocketAddr,
    console: Option<Console>,
    /// Its root process, if that runs here.
    root: Option<u32>,
}

impl Subject {
    fn find(options: &Options, own: Option<&ServerProcess>) -> Result<Self, ControlError> {
        let (game, console) = match (own, options.server) {
            (Some(own), _) => (own.game(), own.console()),
            (None, Some(server)) => (server, options.console),
            (None, None) => unreachable!("without an address a server is started"),
        };
        let mut console = console.map(Console::connect).transpose()?;
        let root = match (own, &mut console) {
            (Some(own), _) => Some(own.pid()),
            (None, Some(console)) if game.ip().is_loopback() => console
                .processes()?
                .iter()
                .find(|process| process.role == "supervisor")
                .map(|root| root.pid),
            _ => None,
        };
        Ok(Self { game, console, root })
    }

    fn takeovers(&mut self) -> Result<Option<u64>, ConsoleError> {
        self.console
            .as_mut()
            .map(|console| console.status().map(|status| status.takeovers_total))
            .transpose()
    }

    fn figures(&self) -> Result<Option<TreeFigures>, ControlError> {
        self.root
            .map(proc_figures::tree)
            .transpose()
            .map_err(ControlError::Proc)
    }

    fn cpu_seconds(&self) -> Result<Option<f64>, ControlError> {
        self.root
            .map(proc_figures::cpu_seconds)
            .transpose()
            .map_err(ControlError::Proc)
    }
}

/// What is observed from outside while the swarm is at work.
#[derive(Default)]
struct Observed {
    before: Option<TreeFigures>,
    after: Option<TreeFigures>,
    takeovers_before: Option<u64>,
    takeovers_after: Option<u64>,
    join_seconds: f64,
    /// CPU time so far, and when that was read: at the beginning and at the end of the load.
    cpu_began: Option<(f64, Instant)>,
    cpu_ended: Option<(f64, Instant)>,
    handlers_killed: u64,
}

fn measure(options: &Options, shape: Shape, mut subject: Subject) -> Result<Report, ControlError> {
    let live = Arc::new(Live::default());
    let mut progress = Progress::new();
    let swarm = Swarm::new(subject.game, options, shape, live.clone())?;
    let (milestone_sender, milestones) = mpsc::channel();
    let (orders, order_receiver) = mpsc::channel();
    let mut observed = Observed {
        before: subject.figures()?,
        takeovers_before: subject.takeovers()?,
        ..Observed::default()
    };

    let swarm = std::thread::spawn(move || swarm.run(&milestone_sender, &order_receiver));
    let watched = watch(
        options,
        &mut subject,
        &mut observed,
        &mut progress,
        &live,
        &milestones,
        &orders,
    );
    // Without orders the swarm ends, if it waits for any.
    drop(orders);
    let outcome = swarm
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    progress.end();
    watched?;
    Ok(report(options, shape, &observed, outcome?))
}

/// Follows the swarm from milestone to milestone, to its end.
fn watch(
    options: &Options,
    subject: &mut Subject,
    observed: &mut Observed,
    progress: &mut Progress,
    live: &Live,
    milestones: &Receiver<Milestone>,
    orders: &Sender<Go>,
) -> Result<(), ControlError> {
    let mut killer = None;
    progress.phase("joining", live);
    loop {
        let next_kill = killer.as_ref().map_or(progress::INTERVAL, HandlerKiller::pause);
        match milestones.recv_timeout(progress::INTERVAL.min(next_kill)) {
            Ok(Milestone::Inside { seconds }) => {
                observed.join_seconds = seconds;
                observed.cpu_began = subject.cpu_seconds()?.map(|seconds| (seconds, Instant::now()));
                let rate = options.kill_handlers_per_second;
                killer = subject
                    .root
                    .filter(|_| rate > 0.0)
                    .map(|root| HandlerKiller::new(root, rate, options.seed));
                progress.phase("load", live);
                go(orders);
            }
            Ok(Milestone::LoadEnded) => {
                observed.handlers_killed = killer.take().map_or(0, |killer| killer.killed());
                observed.cpu_ended = subject.cpu_seconds()?.map(|seconds| (seconds, Instant::now()));
                progress.phase("draining", live);
            }
            Ok(Milestone::Settled) => {
                observed.after = subject.figures()?;
                observed.takeovers_after = subject.takeovers()?;
                progress.phase("saying goodbye", live);
                go(orders);
            }
            Err(RecvTimeoutError::Timeout) => progress.show(live),
            // It is through, or has failed.
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        if let (Some(killer), Some(console)) = (&mut killer, &mut subject.console) {
            killer.kill_due(console)?;
        }
    }
}

/// A swarm that has failed meanwhile tells so itself.
fn go(orders: &Sender<Go>) {
    let _ = orders.send(Go);
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(options: &Options, shape: Shape, observed: &Observed, outcome: Outcome) -> Report {
    let figures = outcome.figures;
    let counts = figures.counts;
    let load_seconds = outcome.load_seconds;
    let per_second = |count: u64| count as f64 / load_seconds;
    let mut report = Report {
        workload: options.workload.game(),
        clients: shape.clients,
        rooms: shape.rooms,
        room_size: shape.room_size,
        rate: options.rate,
        payload_bytes: options.payload,
        seed: options.seed,
        load_seconds,
        join_seconds: observed.join_seconds,
        joins_per_second: f64::from(shape.clients) / observed.join_seconds,
        sent: counts.sent,
        received: counts.received,
        sent_per_second: per_second(counts.sent),
        received_per_second: per_second(counts.received),
        lost: figures.lost,
        duplicated: counts.duplicated,
        reordered: counts.reordered,
        mismatches: counts.mismatches,
        rejected: counts.rejected,
        unsent: figures.unsent,
        disconnects: outcome.disconnects,
        resumes: outcome.resumes,
        resyncs: outcome.resyncs,
        sessions_lost: outcome.sessions_lost,
        takeovers: difference(observed.takeovers_before, observed.takeovers_after),
        handlers_killed: observed.handlers_killed,
        matches: counts.matches,
        matches_per_second: per_second(counts.matches),
        latency_ms: figures.latency.percentiles(),
        round_trip_ms: figures.round_trip.percentiles(),
        server: server_figures(shape, observed),
        load_generator: OwnFigures {
            cpu_percent: outcome.cpu_seconds / load_seconds * 100.0,
            loop_lag_ms_max: outcome.lag_ms_max,
            bottleneck: false,
        },
        notes: outcome
            .losses
            .iter()
            .map(|(reason, times)| format!("{times} × connection lost: {reason}"))
            .collect(),
        failures: Vec::new(),
    };
    if figures.unsent > 0 {
        report.notes.push(format!(
            "{} messages were due and not sent in time: the server, or this program, did not keep up with the rate",
            figures.unsent
        ));
    }
    if outcome.unclosed > 0 {
        report.failures.push(format!(
            "{} connections were not closed after a goodbye",
            outcome.unclosed
        ));
    }
    report.judge_load_generator(proc_figures::cores());
    report.judge(&options.thresholds);
    report
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn server_figures(shape: Shape, observed: &Observed) -> ServerFigures {
    let cpu_percent = observed
        .cpu_began
        .zip(observed.cpu_ended)
        .map(|((before, began), (after, ended))| (after - before) / (ended - began).as_secs_f64() * 100.0);
    let memory_added = observed.before.zip(observed.after).map(|(before, after)| {
        let added_kib = after.memory_kib as f64 - before.memory_kib as f64;
        added_kib / f64::from(shape.clients)
    });
    ServerFigures {
        processes: observed.after.map(|figures| figures.processes),
        memory_kib_per_client: memory_added,
        memory_kib: observed.after.map(|figures| figures.memory_kib),
        cpu_percent,
    }
}

fn difference(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    Some(after?.saturating_sub(before?))
}
