//! Runs one measurement: starts or finds the server, runs the clients, reads what the server uses, kills its
//! processes if asked to, shows progress, and builds the report.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::chaos::kill_log::KillLog;
use crate::chaos::killer::{ChaosError, KillPlan};
use crate::clients::{ClientRun, ClientRunError, Milestone, Proceed};
use crate::interrupt::{Interrupt, InterruptError};
use crate::machine::Machine;
use crate::machine::process_tree::{self, CpuFigures, TreeFigures};
use crate::machine::sampler::Sampler;
use crate::multiprocess::{WorkerError, WorkerPool};
use crate::open_files::{self, OpenFilesError};
use crate::options::Options;
use crate::plan::WorkloadPlan;
use crate::progress::{self, Progress};
use crate::report::{Observations, Report};
use crate::run_state::RunState;
use crate::server::console::{Console, ConsoleError, ServerCounters};
use crate::server::peer::ServerChoice;
use crate::server::process::{ServerError, ServerProcess};
use crate::server::roles::SUPERVISOR;

/// A killed process is restarted within this time: 5 s by the server's own limits, and the time that a busy
/// machine may add.
const RESTART_TIMEOUT: Duration = Duration::from_secs(60);
const RESTART_POLL: Duration = Duration::from_millis(100);

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    #[error(transparent)]
    OpenFiles(#[from] OpenFilesError),
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Console(#[from] ConsoleError),
    #[error(transparent)]
    Chaos(#[from] ChaosError),
    #[error("the server has no console, which would list the processes to be killed")]
    NoConsole,
    #[error(transparent)]
    ClientRun(#[from] ClientRunError),
    #[error(transparent)]
    WorkerPool(#[from] WorkerError),
    #[error("cannot read what the server uses: {0}")]
    Proc(io::Error),
    /// Something went wrong while a server that this program started was running; with the end of its log.
    #[error("{cause}\n{log_tail}")]
    WithLog { cause: Box<Self>, log_tail: String },
}

impl MeasureError {
    /// Whether the only cause is an interrupt.
    pub(crate) fn is_interrupt(&self) -> bool {
        match self {
            Self::ClientRun(ClientRunError::Interrupted { .. }) => true,
            Self::WithLog { cause, .. } => cause.is_interrupt(),
            _ => false,
        }
    }

    /// Whether the command line asked for more than this machine can provide.
    pub(crate) fn exceeds_machine(&self) -> bool {
        matches!(self, Self::OpenFiles(OpenFilesError::TooFew { .. }))
    }
}

/// Makes one measurement. A server that was started for it is stopped in any case.
///
/// # Errors
/// When nothing could be measured. (Exceeded thresholds are in the report.)
pub(crate) fn run(options: &Options, plans: Vec<WorkloadPlan>) -> Result<Report, MeasureError> {
    let machine = Machine::this();
    let clients: u32 = plans.iter().map(|plan| plan.shape.clients).sum();
    open_files::check(clients, options.swarm_processes)?;
    let state = Arc::new(RunState::default());
    // Before any other thread is started, because threads inherit the blocked signals.
    Interrupt::watch(state.clone())?;
    // The server inherits the original limit of open files and raises its own.
    let server = &options.server;
    let choice = server.choice().map(|choice| match choice {
        ServerChoice::Forkade(given) => ServerChoice::Forkade(server_arguments(&given)),
        peer => peer,
    });
    let own_server = choice
        .map(|choice| ServerProcess::start(&choice, server.server_log.as_deref()))
        .transpose()?;
    open_files::raise()?;

    let result = TestedServer::connect(options, own_server.as_ref())
        .and_then(|tested| measure(options, plans, tested, &state))
        .map_err(|cause| with_log_tail(cause, own_server.as_ref()));
    let stopped = own_server.map_or(Ok(()), ServerProcess::stop);
    let mut report = result?;
    report.machine = machine;
    if let Err(error) = stopped {
        report.failures.push(error.to_string());
    }
    Ok(report)
}

/// Adds the end of the server's log, which may tell the reason.
fn with_log_tail(cause: MeasureError, server: Option<&ServerProcess>) -> MeasureError {
    match server.and_then(ServerProcess::log_tail) {
        Some(log_tail) if !cause.is_interrupt() => MeasureError::WithLog {
            cause: Box::new(cause),
            log_tail,
        },
        _ => cause,
    }
}

/// The server under load, as far as it can be inspected.
struct TestedServer {
    game: SocketAddr,
    console_address: Option<SocketAddr>,
    console: Option<Console>,
    /// Its root process, if it runs on this machine.
    root: Option<u32>,
}

impl TestedServer {
    fn connect(options: &Options, own: Option<&ServerProcess>) -> Result<Self, MeasureError> {
        let (game, console_address) = match (own, options.server.server) {
            (Some(own), _) => (own.game(), own.console()),
            (None, Some(server)) => (server, options.server.console),
            (None, None) => unreachable!("without an address a server is started"),
        };
        let mut console = console_address.map(Console::connect).transpose()?;
        let root = match (own, &mut console) {
            (Some(own), _) => Some(own.pid()),
            (None, Some(console)) if game.ip().to_canonical().is_loopback() => console
                .processes()?
                .iter()
                .find(|process| process.role == SUPERVISOR)
                .map(|root| root.pid),
            _ => None,
        };
        Ok(Self {
            game,
            console_address,
            console,
            root,
        })
    }

    /// The processes to kill, if any.
    fn kill_plan(&self, options: &Options) -> Result<Option<KillPlan>, MeasureError> {
        let Some(rates) = options.kill_rates() else {
            return Ok(None);
        };
        let (console, root) = self
            .console_address
            .zip(self.root)
            .ok_or(MeasureError::NoConsole)?;
        Ok(Some(KillPlan::new(root, console, &rates, options.seed)?))
    }

    fn counters(&mut self) -> Result<ServerCounters, ConsoleError> {
        self.console
            .as_mut()
            .map_or_else(|| Ok(ServerCounters::default()), Console::counters)
    }

    /// The counters once all restarts that are due have happened, or after [`RESTART_TIMEOUT`].
    fn await_counters(
        &mut self,
        before: &ServerCounters,
        kill_log: Option<&KillLog>,
    ) -> Result<ServerCounters, ConsoleError> {
        let began = Instant::now();
        loop {
            let counters = self.counters()?;
            let killed = |role: &str| kill_log.map_or(0, |kill_log| kill_log.count(role));
            let is_complete = counters.is_complete(before, killed);
            if is_complete || began.elapsed() > RESTART_TIMEOUT {
                return Ok(counters);
            }
            std::thread::sleep(RESTART_POLL);
        }
    }

    fn figures(&self) -> Result<Option<TreeFigures>, MeasureError> {
        self.root
            .map(process_tree::tree)
            .transpose()
            .map_err(MeasureError::Proc)
    }

    fn cpu(&self) -> Result<Option<(CpuFigures, Instant)>, MeasureError> {
        let cpu = self
            .root
            .map(process_tree::cpu)
            .transpose()
            .map_err(MeasureError::Proc)?;
        Ok(cpu.map(|cpu| (cpu, Instant::now())))
    }
}

fn measure(
    options: &Options,
    plans: Vec<WorkloadPlan>,
    mut tested: TestedServer,
    state: &Arc<RunState>,
) -> Result<Report, MeasureError> {
    let kill_plan = tested.kill_plan(options)?;
    let mut progress = Progress::new();
    let (milestone_sender, milestones) = mpsc::channel();
    let (commands, command_receiver) = mpsc::channel();
    let mut observed = Observations {
        before: tested.figures()?,
        counters_before: tested.counters()?,
        ..Observations::default()
    };

    let client_run = match plans.as_slice() {
        [plan] if options.swarm_processes > 1 => {
            let (plan, processes) = (plan.clone(), options.swarm_processes);
            let pool = WorkerPool::start(tested.game, options, plan, processes, state.clone())?;
            std::thread::spawn(move || {
                let outcome = pool.run(&milestone_sender, &command_receiver);
                outcome.map_err(MeasureError::from)
            })
        }
        _ => {
            let client_run = ClientRun::new(tested.game, options, plans, state.clone())?;
            std::thread::spawn(move || {
                let outcome = client_run.run(&milestone_sender, &command_receiver);
                outcome.map_err(MeasureError::from)
            })
        }
    };
    let followed = follow(
        options,
        (&mut tested, kill_plan),
        &mut observed,
        &mut progress,
        state,
        &milestones,
        &commands,
    );
    // Without a sender the client thread ends if it waits for a command. If following it failed, its load
    // must end soon, too.
    drop(commands);
    if followed.is_err() {
        state.interrupted.store(true, Ordering::Relaxed);
    }
    let outcome = client_run
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    progress.end();
    followed?;
    Ok(Report::of(options, observed, outcome?))
}

/// Follows the client thread from milestone to milestone, to its end.
fn follow(
    options: &Options,
    (tested, mut kill_plan): (&mut TestedServer, Option<KillPlan>),
    observed: &mut Observations,
    progress: &mut Progress,
    state: &RunState,
    milestones: &Receiver<Milestone>,
    commands: &Sender<Proceed>,
) -> Result<(), MeasureError> {
    let (mut killer, mut sampler) = (None, None);
    progress.phase("joining", state);
    loop {
        match milestones.recv_timeout(progress::INTERVAL) {
            Ok(Milestone::AllJoined { seconds }) => {
                observed.join_seconds = seconds;
                observed.cpu_began = tested.cpu()?;
                let duration = Duration::from_secs_f64(options.duration);
                sampler = tested.root.map(|root| Sampler::start(root, duration));
                killer = kill_plan.take().map(KillPlan::start);
                progress.phase("load", state);
                proceed(commands);
            }
            Ok(Milestone::LoadEnded { began }) => {
                observed.load_began = Some(began);
                observed.kill_log = killer.take().map(|killer| killer.end()).transpose()?;
                observed.cpu_ended = tested.cpu()?;
                let samples = sampler.take().map(|sampler: Sampler| sampler.end()).transpose();
                observed.samples = samples.map_err(MeasureError::Proc)?.unwrap_or_default();
                progress.phase("draining", state);
            }
            Ok(Milestone::Settled) => {
                observed.after = tested.figures()?;
                observed.counters_after =
                    tested.await_counters(&observed.counters_before, observed.kill_log.as_ref())?;
                progress.phase("disconnecting", state);
                proceed(commands);
            }
            Err(RecvTimeoutError::Timeout) => progress.show(state),
            // The client thread has ended or failed.
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// A client thread that has failed meanwhile reports that itself.
fn proceed(commands: &Sender<Proceed>) {
    let _ = commands.send(Proceed);
}

/// The limits of a server that are meant for people: a load test measures without them.
const LIMITS_FOR_PEOPLE: [&str; 7] = [
    "--requests-per-minute",
    "--failures-per-minute",
    "--guesses-per-minute",
    "--source-guesses",
    "--lobby-fanout",
    "--room-fanout",
    "--server-fanout",
];

/// The arguments of the server to start: those given, and no limits for people unless they are given.
fn server_arguments(given: &[OsString]) -> Vec<OsString> {
    let is_given = |limit: &str| {
        let mut given = given.iter();
        given.any(|argument| argument.to_string_lossy().starts_with(limit))
    };
    let unbounded = LIMITS_FOR_PEOPLE.into_iter().filter(|limit| !is_given(limit));
    unbounded
        .map(|limit| format!("{limit}=0").into())
        .chain(given.iter().cloned())
        .collect()
}
