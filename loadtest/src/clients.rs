//! The phases of all clients, in a thread of their own: join, load, drain, disconnect. Between phases the
//! thread waits for the one that measures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use crate::engine::group::Group;
use crate::engine::timeline::Point;
use crate::engine::{Engine, EngineError};
use crate::latency::Latency;
use crate::machine::thread_usage;
use crate::options::Options;
use crate::plan::WorkloadPlan;
use crate::run_state::RunState;
use crate::workload::Figures;

/// A server that has not closed thousands of connections within this time is taken to hang.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// What the client thread reports. It waits for a [`Proceed`] after `AllJoined` and after `Settled`.
#[derive(Debug)]
pub(crate) enum Milestone {
    /// All clients are in their rooms, `seconds` after the first began to connect.
    AllJoined { seconds: f64 },
    /// No further message is sent. The load began at `began`.
    LoadEnded { began: Instant },
    /// No message is outstanding any more, or none has arrived for the drain timeout.
    Settled,
}

/// Lets the client thread begin its next phase.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proceed;

/// The results of all clients.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub groups: Vec<GroupOutcome>,
    pub load_seconds: f64,
    /// The load was ended early.
    pub interrupted: bool,
    pub timeline: Vec<Point>,
    pub disconnects: u64,
    /// Connections lost before the server had answered their handshake.
    pub early_resets: u64,
    /// Connections not made, or refused.
    pub refused: u64,
    pub resumes: u64,
    pub resyncs: u64,
    /// Sessions that could not be resumed.
    pub sessions_lost: u64,
    /// Why connections were lost, and how often.
    pub losses: BTreeMap<String, u64>,
    /// The player and the time of each connection lost after its handshake.
    pub loss_log: Vec<(String, Instant)>,
    /// Connections that the server had not closed within the disconnect timeout.
    pub unclosed: u64,
    /// How long due sends and received data waited for this thread during the load.
    pub lag: Latency,
    /// CPU time of this thread during the load.
    pub cpu_seconds: f64,
    /// Time during the load in which this thread was runnable and had no core; `None` if the kernel does not
    /// count that.
    pub wait_seconds: Option<f64>,
}

/// The results of one workload.
#[derive(Debug)]
pub(crate) struct GroupOutcome {
    pub plan: WorkloadPlan,
    pub figures: Figures,
    pub latency: Latency,
    pub round_trip: Latency,
    pub to_last_recipient: Latency,
}

/// Why the clients could not do their work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientRunError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(
        "{joined} of {clients} clients are in their rooms, and no other has joined in {seconds} seconds{reasons}"
    )]
    JoinTimeout {
        joined: u32,
        clients: u32,
        seconds: f64,
        reasons: String,
    },
    #[error("interrupted when {joined} of {clients} clients were in their rooms, so nothing was measured")]
    Interrupted { joined: u32, clients: u32 },
    #[error("the run was cancelled")]
    Cancelled,
}

/// All clients of a run and the limits of its phases.
pub(crate) struct ClientRun {
    engine: Engine,
    clients: u32,
    duration_ns: u64,
    join_timeout: Duration,
    drain_timeout: Duration,
}

impl ClientRun {
    /// A run whose clients have not begun to connect.
    ///
    /// # Errors
    /// When the process has no file descriptors left.
    pub(crate) fn new(
        server: SocketAddr,
        options: &Options,
        plans: Vec<WorkloadPlan>,
        state: Arc<RunState>,
    ) -> Result<Self, ClientRunError> {
        Ok(Self {
            clients: plans.iter().map(|plan| plan.shape.clients).sum(),
            engine: Engine::new(server, options, plans, state)?,
            duration_ns: options.duration_ns(),
            join_timeout: Duration::from_secs_f64(options.join_timeout),
            drain_timeout: Duration::from_secs_f64(options.drain_timeout),
        })
    }

    /// Goes through all phases.
    ///
    /// # Errors
    /// When not all clients can join, or the loop itself fails.
    pub(crate) fn run(
        mut self,
        milestones: &Sender<Milestone>,
        commands: &Receiver<Proceed>,
    ) -> Result<Outcome, ClientRunError> {
        let seconds = self.join()?;
        report(milestones, Milestone::AllJoined { seconds })?;
        self.wait_for_proceed(commands)?;

        let began = Instant::now();
        let (cpu_before, wait_before) = (thread_usage::cpu_seconds(), thread_usage::wait_seconds());
        let timeline = self.load()?;
        let load_seconds = began.elapsed().as_secs_f64();
        let (cpu_after, wait_after) = (thread_usage::cpu_seconds(), thread_usage::wait_seconds());
        let (lag, interrupted) = (self.engine.lag().clone(), self.engine.is_interrupted());
        report(milestones, Milestone::LoadEnded { began })?;

        self.drain()?;
        let groups = self.engine.groups().iter().map(GroupOutcome::of).collect();
        report(milestones, Milestone::Settled)?;
        self.wait_for_proceed(commands)?;

        let unclosed = self.disconnect()?;
        let sessions = self.engine.session_counters();
        let connections = self.engine.connections();
        Ok(Outcome {
            groups,
            load_seconds,
            interrupted,
            timeline,
            disconnects: connections.disconnects,
            early_resets: connections.early_resets,
            refused: connections.refused,
            resumes: sessions.resumes,
            resyncs: sessions.resyncs,
            sessions_lost: connections.sessions_lost,
            losses: connections.losses.clone(),
            loss_log: connections.log.clone(),
            unclosed,
            lag,
            cpu_seconds: cpu_after - cpu_before,
            wait_seconds: wait_after.zip(wait_before).map(|(after, before)| after - before),
        })
    }

    /// Brings all clients into their rooms. Returns the seconds that took.
    fn join(&mut self) -> Result<f64, ClientRunError> {
        let (began, began_ns) = (Instant::now(), self.engine.now_ns());
        let (mut joined, mut last_progress) = (0, began);
        loop {
            let joined_now = self.engine.advance_joining(began_ns)?;
            if joined_now == self.clients {
                return Ok(began.elapsed().as_secs_f64());
            }
            if self.engine.is_interrupted() {
                return Err(ClientRunError::Interrupted {
                    joined: joined_now,
                    clients: self.clients,
                });
            }
            // On a slow ramp there may be no client to wait for.
            if joined_now > joined || self.engine.joining() == 0 {
                (joined, last_progress) = (joined_now, Instant::now());
            } else if last_progress.elapsed() > self.join_timeout {
                let losses = self.engine.connections().losses.iter();
                let reasons = losses
                    .map(|(reason, times)| format!("; {times} × {reason}"))
                    .collect();
                let seconds = self.join_timeout.as_secs_f64();
                return Err(ClientRunError::JoinTimeout {
                    joined,
                    clients: self.clients,
                    seconds,
                    reasons,
                });
            }
            self.engine.run_once()?;
        }
    }

    /// Loads the server. Returns the timeline of the load.
    fn load(&mut self) -> Result<Vec<Point>, ClientRunError> {
        let end_ns = self.engine.start_load(self.duration_ns)?;
        while self.engine.now_ns() < end_ns && !self.engine.is_interrupted() {
            self.engine.run_once()?;
        }
        Ok(self.engine.stop_load()?)
    }

    /// Waits until no message is outstanding, or none has arrived for the drain timeout.
    fn drain(&mut self) -> Result<(), ClientRunError> {
        let (mut counts, mut last_progress) = (self.engine.counts(), Instant::now());
        while !self.engine.is_settled() && last_progress.elapsed() < self.drain_timeout {
            self.engine.run_once()?;
            let counts_now = self.engine.counts();
            if counts != counts_now {
                (counts, last_progress) = (counts_now, Instant::now());
            }
        }
        Ok(())
    }

    /// Disconnects all clients. Returns how many connections the server did not close.
    fn disconnect(&mut self) -> Result<u64, ClientRunError> {
        self.engine.disconnect()?;
        let began = Instant::now();
        while self.engine.active_clients() > 0 && began.elapsed() < DISCONNECT_TIMEOUT {
            self.engine.run_once()?;
        }
        Ok(self.engine.active_clients())
    }

    /// Keeps the clients' heartbeats going until the next phase may begin.
    fn wait_for_proceed(&mut self, commands: &Receiver<Proceed>) -> Result<(), ClientRunError> {
        loop {
            match commands.try_recv() {
                Ok(Proceed) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(ClientRunError::Cancelled),
                Err(TryRecvError::Empty) => self.engine.run_once()?,
            }
        }
    }
}

fn report(milestones: &Sender<Milestone>, milestone: Milestone) -> Result<(), ClientRunError> {
    milestones.send(milestone).map_err(|_| ClientRunError::Cancelled)
}

impl GroupOutcome {
    fn of(group: &Group) -> Self {
        Self {
            plan: group.plan().clone(),
            figures: group.workload().figures(),
            latency: group.latency().clone(),
            round_trip: group.round_trip().clone(),
            to_last_recipient: group.to_last_recipient().clone(),
        }
    }
}
