//! `forkade-loadtest growth`: what a join, a message, a listing and a takeover cost with a hundred players on
//! the server, and with thousands. The players of the population play in rooms of two at a slow rate, and
//! single clients measure beside them.

mod probe;

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;
use std::{fmt, io};

use clap::Parser;
use serde::Serialize;

use self::probe::{ProbeError, Probes};
use crate::clients::{Milestone, Outcome, Proceed};
use crate::interrupt::{Interrupt, InterruptError};
use crate::latency::Percentiles;
use crate::machine::{Machine, process_tree};
use crate::multiprocess::{WorkerError, WorkerPool};
use crate::options::{Options, ScalingOptions};
use crate::output::{self, Output, OutputError};
use crate::run_state::RunState;
use crate::server::peer::ServerChoice;
use crate::server::process::{ServerError, ServerProcess};

/// Clients of one worker process: its open files and ports suffice for them.
const CLIENTS_PER_WORKER: u32 = 15_000;
/// Players beyond the population: the probes, and former probes whose players have not expired yet.
const PROBE_PLAYERS_MAX: u32 = 500;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScalingError {
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("cannot read what the server uses: {0}")]
    Proc(io::Error),
    #[error(transparent)]
    WorkerPool(#[from] WorkerError),
    #[error("with {players} players: {cause}")]
    Probe { players: u32, cause: ProbeError },
    #[error("the population did not join, or did not stay")]
    NoPopulation,
    #[error("interrupted with {players} players on the server")]
    Interrupted { players: u32 },
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// What was measured with one number of players.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub players: u32,
    /// While the population joined.
    pub joins_per_second: f64,
    pub probes: Probes,
    /// Of the population's own messages, while the probes measured.
    pub population_ms: Option<Percentiles>,
    pub lost: u64,
    pub memory_kib_per_client: f64,
    pub memory_all_kib_per_client: f64,
    /// While the probes measured; 100 is one core.
    pub server_cpu_percent: f64,
}

/// All steps.
#[derive(Debug, Serialize)]
pub(crate) struct ScalingReport {
    pub machine: Machine,
    pub server_args: Vec<String>,
    pub steps: Vec<Step>,
}

/// Measures, prints the table and writes the file.
///
/// # Errors
/// When something could not be measured; then no figures are shown at all.
pub(crate) fn run(options: &ScalingOptions) -> Result<(), ScalingError> {
    let json = Output::open(options.json.as_ref())?;
    let machine = Machine::this();
    let state = Arc::new(RunState::default());
    // Before any other thread is started, because threads inherit the blocked signals.
    Interrupt::watch(state.clone())?;
    let mut steps = Vec::new();
    for players in &options.players {
        eprintln!("{players} players");
        steps.push(step(options, players.next_multiple_of(2), &state)?);
    }
    let report = ScalingReport {
        machine,
        server_args: options
            .server_arg
            .iter()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect(),
        steps,
    };
    output::print(&report);
    if let Some(json) = json {
        json.write_json(&report)?;
    }
    Ok(())
}

/// Starts one server and its population, and measures with single clients.
#[expect(clippy::cast_precision_loss, reason = "figures for display")]
fn step(options: &ScalingOptions, players: u32, state: &Arc<RunState>) -> Result<Step, ScalingError> {
    let capacity = [
        format!("--players-max={}", players + PROBE_PLAYERS_MAX),
        format!("--rooms-max={}", players / 2 + PROBE_PLAYERS_MAX),
    ];
    let arguments = capacity.into_iter().map(OsString::from);
    let arguments = arguments.chain(options.server_arg.iter().cloned()).collect();
    let server = ServerProcess::start(&ServerChoice::Forkade(arguments), None)?;
    let figures_of = |pid| process_tree::tree(pid).map_err(ScalingError::Proc);
    let before = figures_of(server.pid())?;
    let population = Population::join(options, &server, players, state)?;
    let after = figures_of(server.pid())?;
    let user_and_kernel = |figures: process_tree::TreeFigures| figures.user_kib + figures.machine_kernel_kib;
    let added = |after: u64, before: u64| (after as f64 - before as f64) / f64::from(players);

    let cpu = || process_tree::cpu(server.pid()).map_err(ScalingError::Proc);
    let (cpu_before, began) = (cpu()?, Instant::now());
    let probes = probe::run(&server, options.probes, options.takeovers, &state.interrupted);
    let (cpu_after, seconds) = (cpu()?, began.elapsed().as_secs_f64());
    if state.interrupted.load(Ordering::Relaxed) {
        return Err(ScalingError::Interrupted { players });
    }
    let probes = probes.map_err(|cause| ScalingError::Probe { players, cause })?;
    let joins_per_second = f64::from(players) / population.join_seconds;
    let (population_ms, lost) = population.finish()?;
    server.stop()?;
    Ok(Step {
        players,
        joins_per_second,
        probes,
        population_ms,
        lost,
        memory_kib_per_client: added(after.memory_kib, before.memory_kib),
        memory_all_kib_per_client: added(user_and_kernel(after), user_and_kernel(before)),
        server_cpu_percent: (cpu_after.cpu_seconds - cpu_before.cpu_seconds) / seconds * 100.0,
    })
}

/// Players in their rooms, which send at their rate until they are told to leave.
struct Population {
    thread: std::thread::JoinHandle<Result<Outcome, WorkerError>>,
    milestones: Receiver<Milestone>,
    commands: mpsc::Sender<Proceed>,
    /// Used to end its load.
    state: Arc<RunState>,
    join_seconds: f64,
}

impl Population {
    fn join(
        options: &ScalingOptions,
        server: &ServerProcess,
        players: u32,
        interrupted: &RunState,
    ) -> Result<Self, ScalingError> {
        let text = format!(
            "forkade-loadtest --clients {players} --rate {} --duration 86400 --join-timeout 120",
            options.rate
        );
        let options = Options::parse_from(text.split(' '));
        let plans = options.plans().map_err(|_| ScalingError::NoPopulation)?;
        let plan = plans.into_iter().next().ok_or(ScalingError::NoPopulation)?;
        let processes = players.div_ceil(CLIENTS_PER_WORKER);
        let state = Arc::new(RunState::default());
        let pool = WorkerPool::start(server.game(), &options, plan, processes, state.clone())?;
        let (milestone_sender, milestones) = mpsc::channel();
        let (commands, command_receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || pool.run(&milestone_sender, &command_receiver));
        let mut population = Self {
            thread,
            milestones,
            commands,
            state,
            join_seconds: 0.0,
        };
        loop {
            match population.milestones.recv_timeout(crate::progress::INTERVAL) {
                Ok(Milestone::AllJoined { seconds }) => {
                    population.join_seconds = seconds;
                    break;
                }
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if interrupted.interrupted.load(Ordering::Relaxed) {
                        return Err(ScalingError::Interrupted { players });
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(population.failure()),
            }
        }
        // A run that has failed meanwhile reports that itself.
        let _ = population.commands.send(Proceed);
        Ok(population)
    }

    /// Ends the population. Returns the latencies of its messages, and how many were lost.
    fn finish(self) -> Result<(Option<Percentiles>, u64), ScalingError> {
        self.state.interrupted.store(true, Ordering::Relaxed);
        loop {
            match self.milestones.recv() {
                Ok(Milestone::Settled) => break,
                Ok(_) => {}
                Err(_) => return Err(self.failure()),
            }
        }
        let _ = self.commands.send(Proceed);
        let outcome = self
            .thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let group = outcome.groups.first().ok_or(ScalingError::NoPopulation)?;
        Ok((group.latency.percentiles(), group.figures.lost))
    }

    /// Why it ended early.
    fn failure(self) -> ScalingError {
        match self.thread.join() {
            Ok(Err(error)) => error.into(),
            Ok(Ok(_)) => ScalingError::NoPopulation,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl fmt::Display for ScalingReport {
    fn fmt(&self, table: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            table,
            "forkade {}: p50 (p99) in ms; KiB per client (with all kernel memory)",
            self.server_args.join(" ")
        )?;
        writeln!(
            table,
            "{:>8}  {:>8}  {:>17}  {:>17}  {:>17}  {:>17}  {:>17}  {:>15}  {:>6}",
            "players", "joins/s", "join", "message", "listing", "search", "takeover", "KiB (all)", "CPU %"
        )?;
        for step in &self.steps {
            let format_latency = |figures: &Option<Percentiles>| {
                figures
                    .as_ref()
                    .map_or_else(|| "–".to_owned(), |ms| format!("{:.3} ({:.2})", ms.p50, ms.p99))
            };
            let probes = &step.probes;
            let memory = format!(
                "{:.1} ({:.1})",
                step.memory_kib_per_client, step.memory_all_kib_per_client
            );
            writeln!(
                table,
                "{:>8}  {:>8.0}  {:>17}  {:>17}  {:>17}  {:>17}  {:>17}  {memory:>15}  {:>6.0}",
                step.players,
                step.joins_per_second,
                format_latency(&probes.join_ms),
                format_latency(&probes.message_ms),
                format_latency(&probes.listing_ms),
                format_latency(&probes.search_ms),
                format_latency(&probes.takeover_ms),
                step.server_cpu_percent,
            )?;
            if step.lost > 0 {
                writeln!(table, "{:>8}  {} messages were lost", "", step.lost)?;
            }
        }
        Ok(())
    }
}
