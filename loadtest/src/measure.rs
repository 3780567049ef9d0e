//! Runs one measurement from outside the swarm: starts or finds the server, reads what it uses, kills its processes if asked
//! to, shows progress, and puts the report together.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::chaos::kill_log::Kills;
use crate::chaos::killer::{ChaosError, Plot};
use crate::clients::{Go, Milestone, Swarm, SwarmError};
use crate::interrupt::{Interrupt, InterruptError};
use crate::machine::Machine;
use crate::machine::process_tree::{self, CpuFigures, TreeFigures};
use crate::machine::sampler::Sampler;
use crate::multiprocess::{Fleet, FleetError};
use crate::open_files::{self, OpenFilesError};
use crate::options::Options;
use crate::plan::Part;
use crate::progress::{self, Progress};
use crate::report::{Observations, Report};
use crate::run_state::RunState;
use crate::server::console::{Console, ConsoleError, ServerCounters};
use crate::server::peer::Contender;
use crate::server::process::{ServerError, ServerProcess};

/// A role that was killed is started again within this time: 5 s by the server's own limits, and as long as a busy machine may take for
/// it.
const RESTART_TIMEOUT: Duration = Duration::from_secs(60);
const RESTART_POLL: Duration = Duration::from_millis(100);
/// The role of the server's root process.
const SUPERVISOR: &str = "supervisor";

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
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
    Swarm(#[from] SwarmError),
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error("cannot read what the server uses: {0}")]
    Proc(io::Error),
    /// A started server ended, or something else went wrong with it.
    #[error("{cause}\n{last_words}")]
    WithLastWords { cause: Box<Self>, last_words: String },
}

impl ControlError {
    /// Whether nobody but Ctrl-C is to blame.
    pub(crate) fn is_interrupt(&self) -> bool {
        match self {
            Self::Swarm(SwarmError::Interrupted { .. }) => true,
            Self::WithLastWords { cause, .. } => cause.is_interrupt(),
            _ => false,
        }
    }

    /// Whether the command line asked for more than this machine can give.
    pub(crate) fn is_too_much(&self) -> bool {
        matches!(self, Self::OpenFiles(OpenFilesError::TooFew { .. }))
    }
}

/// Measures once. The server that was started for it is stopped whatever comes.
///
/// # Errors
/// When no figures came about. (Broken thresholds are in the report.)
pub(crate) fn run(options: &Options, parts: Vec<Part>) -> Result<Report, ControlError> {
    let machine = Machine::this();
    let clients: u32 = parts.iter().map(|part| part.shape.clients).sum();
    open_files::check(clients, options.swarm_processes)?;
    let state = Arc::new(RunState::default());
    // Before any other thread: all of them leave the signal to this one.
    Interrupt::watch(state.clone())?;
    // The server starts with the limits that it would have without a load generator: it raises its own.
    let server = &options.server;
    let contender = server.contender().map(|contender| match contender {
        Contender::Forkade(asked_for) => Contender::Forkade(server_arguments(&asked_for, &parts)),
        peer => peer,
    });
    let own_server = contender
        .map(|contender| ServerProcess::start(&contender, server.server_log.as_deref()))
        .transpose()?;
    open_files::raise()?;

    let result = Subject::find(options, own_server.as_ref())
        .and_then(|subject| measure(options, parts, subject, &state))
        .map_err(|cause| with_last_words(cause, own_server.as_ref()));
    let stopped = own_server.map_or(Ok(()), ServerProcess::stop);
    let mut report = result?;
    report.machine = machine;
    if let Err(error) = stopped {
        report.failures.push(error.to_string());
    }
    Ok(report)
}

/// What the server said last may say why.
fn with_last_words(cause: ControlError, server: Option<&ServerProcess>) -> ControlError {
    match server.and_then(ServerProcess::last_words) {
        Some(last_words) if !cause.is_interrupt() => ControlError::WithLastWords {
            cause: Box::new(cause),
            last_words,
        },
        _ => cause,
    }
}

/// The server under load, as far as it can be looked into.
struct Subject {
    game: SocketAddr,
    console_address: Option<SocketAddr>,
    console: Option<Console>,
    /// Its root process, if that runs here.
    root: Option<u32>,
}

impl Subject {
    fn find(options: &Options, own: Option<&ServerProcess>) -> Result<Self, ControlError> {
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

    /// What is to be killed here.
    fn plot(&self, options: &Options) -> Result<Option<Plot>, ControlError> {
        let Some(chaos) = options.kills() else {
            return Ok(None);
        };
        let (console, root) = self
            .console_address
            .zip(self.root)
            .ok_or(ControlError::NoConsole)?;
        Ok(Some(Plot::new(root, console, &chaos, options.seed)?))
    }

    fn counters(&mut self) -> Result<ServerCounters, ConsoleError> {
        self.console
            .as_mut()
            .map_or_else(|| Ok(ServerCounters::default()), Console::counters)
    }

    /// The same once all that were there before, and were killed, are there again. One that is being started again is in no list; one that
    /// was killed a moment ago may be in it still, which is why its restart is waited for.
    fn counters_after(
        &mut self,
        before: &ServerCounters,
        kills: Option<&Kills>,
    ) -> Result<ServerCounters, ConsoleError> {
        let began = Instant::now();
        loop {
            let counters = self.counters()?;
            let killed = |role: &str| kills.map_or(0, |kills| kills.of_role(role));
            let is_complete = counters.is_complete(before, killed);
            if is_complete || began.elapsed() > RESTART_TIMEOUT {
                return Ok(counters);
            }
            std::thread::sleep(RESTART_POLL);
        }
    }

    fn figures(&self) -> Result<Option<TreeFigures>, ControlError> {
        self.root
            .map(process_tree::tree)
            .transpose()
            .map_err(ControlError::Proc)
    }

    fn cpu(&self) -> Result<Option<(CpuFigures, Instant)>, ControlError> {
        let cpu = self
            .root
            .map(process_tree::cpu)
            .transpose()
            .map_err(ControlError::Proc)?;
        Ok(cpu.map(|cpu| (cpu, Instant::now())))
    }
}

fn measure(
    options: &Options,
    parts: Vec<Part>,
    mut subject: Subject,
    state: &Arc<RunState>,
) -> Result<Report, ControlError> {
    let plot = subject.plot(options)?;
    let mut progress = Progress::new();
    let (milestone_sender, milestones) = mpsc::channel();
    let (orders, order_receiver) = mpsc::channel();
    let mut observed = Observations {
        before: subject.figures()?,
        counters_before: subject.counters()?,
        ..Observations::default()
    };

    let swarm = match parts.as_slice() {
        [part] if options.swarm_processes > 1 => {
            let (part, processes) = (part.clone(), options.swarm_processes);
            let fleet = Fleet::start(subject.game, options, part, processes, state.clone())?;
            std::thread::spawn(move || {
                let outcome = fleet.run(&milestone_sender, &order_receiver);
                outcome.map_err(ControlError::from)
            })
        }
        _ => {
            let swarm = Swarm::new(subject.game, options, parts, state.clone())?;
            std::thread::spawn(move || {
                let outcome = swarm.run(&milestone_sender, &order_receiver);
                outcome.map_err(ControlError::from)
            })
        }
    };
    let watched = watch(
        options,
        (&mut subject, plot),
        &mut observed,
        &mut progress,
        state,
        &milestones,
        &orders,
    );
    // Without orders the swarm ends, if it waits for any; and if nobody watches, it is not to go on for long.
    drop(orders);
    if watched.is_err() {
        state.interrupted.store(true, Ordering::Relaxed);
    }
    let outcome = swarm
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    progress.end();
    watched?;
    Ok(Report::of(options, observed, outcome?))
}

/// Follows the swarm from milestone to milestone, to its end.
fn watch(
    options: &Options,
    (subject, mut plot): (&mut Subject, Option<Plot>),
    observed: &mut Observations,
    progress: &mut Progress,
    state: &RunState,
    milestones: &Receiver<Milestone>,
    orders: &Sender<Go>,
) -> Result<(), ControlError> {
    let (mut killer, mut sampler) = (None, None);
    progress.phase("joining", state);
    loop {
        match milestones.recv_timeout(progress::INTERVAL) {
            Ok(Milestone::Inside { seconds }) => {
                observed.join_seconds = seconds;
                observed.cpu_began = subject.cpu()?;
                let duration = Duration::from_secs_f64(options.duration);
                sampler = subject.root.map(|root| Sampler::start(root, duration));
                killer = plot.take().map(Plot::start);
                progress.phase("load", state);
                go(orders);
            }
            Ok(Milestone::LoadEnded { began }) => {
                observed.load_began = Some(began);
                observed.kills = killer.take().map(|killer| killer.end()).transpose()?;
                observed.cpu_ended = subject.cpu()?;
                let samples = sampler.take().map(|sampler: Sampler| sampler.end()).transpose();
                observed.samples = samples.map_err(ControlError::Proc)?.unwrap_or_default();
                progress.phase("draining", state);
            }
            Ok(Milestone::Settled) => {
                observed.after = subject.figures()?;
                observed.counters_after =
                    subject.counters_after(&observed.counters_before, observed.kills.as_ref())?;
                progress.phase("saying goodbye", state);
                go(orders);
            }
            Err(RecvTimeoutError::Timeout) => progress.show(state),
            // It is through, or has failed.
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// A swarm that has failed meanwhile tells so itself.
fn go(orders: &Sender<Go>) {
    let _ = orders.send(Go);
}

/// What the server that is started is told. One client that asks for the next thing as soon as the last has come is a flood, of which a
/// server lets each player have its share: a closed loop is there to measure without it.
fn server_arguments(asked_for: &[OsString], parts: &[Part]) -> Vec<OsString> {
    const RATE: &str = "--requests-per-minute";
    let is_said = asked_for
        .iter()
        .any(|argument| argument.to_string_lossy().starts_with(RATE));
    let is_closed_loop = parts.iter().any(|part| part.rate == 0.0);
    let unbounded = (is_closed_loop && !is_said).then(|| format!("{RATE}=0").into());
    unbounded.into_iter().chain(asked_for.iter().cloned()).collect()
}
