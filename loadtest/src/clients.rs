//! The swarm's phases, in a thread of its own: enter, load, drain, say goodbye. Between them it waits for whoever measures.

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
use crate::plan::Part;
use crate::run_state::RunState;
use crate::workload::Figures;

/// A server that does not close thousands of connections in this time is not going to.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(15);

/// What the swarm tells as it gets on. It waits for a [`Go`] after `Inside` and after `Settled`.
#[derive(Debug)]
pub(crate) enum Milestone {
    /// All clients are in their rooms, so many seconds after the first began to connect.
    Inside { seconds: f64 },
    /// No further message is sent. The load began then.
    LoadEnded { began: Instant },
    /// Nothing is under way any more, or nothing comes any more.
    Settled,
}

/// Lets the swarm go on to its next phase.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Go;

/// What the swarm has to say at the end.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub groups: Vec<GroupOutcome>,
    pub load_seconds: f64,
    /// The load was ended before its time.
    pub interrupted: bool,
    pub timeline: Vec<Point>,
    pub disconnects: u64,
    /// Connections lost before the server had answered their greeting.
    pub early_resets: u64,
    /// Connections not made, or turned away.
    pub refused: u64,
    pub resumes: u64,
    pub resyncs: u64,
    /// Sessions that could not be resumed.
    pub sessions_lost: u64,
    /// Why connections were lost, and how often.
    pub losses: BTreeMap<String, u64>,
    /// Whose greeted connections were lost, and when.
    pub loss_log: Vec<(String, Instant)>,
    /// Connections that the server had not closed in the time that a goodbye is given.
    pub unclosed: u64,
    /// How long what was due, or had arrived, had to wait for this loop during the load.
    pub lag: Latency,
    /// CPU time of this thread during the load.
    pub cpu_seconds: f64,
    /// Time during the load for which this thread could have run and had no core, if the kernel counts that.
    pub wait_seconds: Option<f64>,
}

/// What one workload has to say at the end.
#[derive(Debug)]
pub(crate) struct GroupOutcome {
    pub part: Part,
    pub figures: Figures,
    pub latency: Latency,
    pub round_trip: Latency,
    pub to_the_last: Latency,
}

/// Why the swarm could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwarmError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(
        "{inside} of {clients} clients are in their rooms, and in {seconds} seconds no other has come in{because}"
    )]
    JoinTimeout {
        inside: u32,
        clients: u32,
        seconds: f64,
        because: String,
    },
    #[error("interrupted when {inside} of {clients} clients were in their rooms, so nothing was measured")]
    Interrupted { inside: u32, clients: u32 },
    #[error("the run was cancelled")]
    CalledOff,
}

/// All clients on their way through a run.
pub(crate) struct Swarm {
    engine: Engine,
    clients: u32,
    duration_ns: u64,
    join_timeout: Duration,
    drain_timeout: Duration,
}

impl Swarm {
    /// A swarm that has not begun to connect.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub(crate) fn new(
        server: SocketAddr,
        options: &Options,
        parts: Vec<Part>,
        state: Arc<RunState>,
    ) -> Result<Self, SwarmError> {
        Ok(Self {
            clients: parts.iter().map(|part| part.shape.clients).sum(),
            engine: Engine::new(server, options, parts, state)?,
            duration_ns: options.duration_ns(),
            join_timeout: Duration::from_secs_f64(options.join_timeout),
            drain_timeout: Duration::from_secs_f64(options.drain_timeout),
        })
    }

    /// Goes through all phases.
    ///
    /// # Errors
    /// When not all clients can be brought into their rooms, or the loop itself fails.
    pub(crate) fn run(
        mut self,
        milestones: &Sender<Milestone>,
        orders: &Receiver<Go>,
    ) -> Result<Outcome, SwarmError> {
        let seconds = self.enter()?;
        report(milestones, Milestone::Inside { seconds })?;
        self.wait_for(orders)?;

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
        self.wait_for(orders)?;

        let unclosed = self.say_goodbye()?;
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

    /// Brings all clients into their rooms; gives the seconds that took.
    fn enter(&mut self) -> Result<f64, SwarmError> {
        let (began, began_ns) = (Instant::now(), self.engine.now_ns());
        let (mut inside, mut last_progress) = (0, began);
        loop {
            let inside_now = self.engine.enter(began_ns)?;
            if inside_now == self.clients {
                return Ok(began.elapsed().as_secs_f64());
            }
            if self.engine.is_interrupted() {
                return Err(SwarmError::Interrupted {
                    inside: inside_now,
                    clients: self.clients,
                });
            }
            // On a slow ramp there may be nobody to wait for.
            if inside_now > inside || self.engine.on_their_way() == 0 {
                (inside, last_progress) = (inside_now, Instant::now());
            } else if last_progress.elapsed() > self.join_timeout {
                let losses = self.engine.connections().losses.iter();
                let because = losses
                    .map(|(reason, times)| format!("; {times} × {reason}"))
                    .collect();
                let seconds = self.join_timeout.as_secs_f64();
                return Err(SwarmError::JoinTimeout {
                    inside,
                    clients: self.clients,
                    seconds,
                    because,
                });
            }
            self.engine.turn()?;
        }
    }

    /// Loads the server; gives what happened over time.
    fn load(&mut self) -> Result<Vec<Point>, SwarmError> {
        let end_ns = self.engine.start_load(self.duration_ns)?;
        while self.engine.now_ns() < end_ns && !self.engine.is_interrupted() {
            self.engine.turn()?;
        }
        Ok(self.engine.stop_load()?)
    }

    /// Waits until nothing is under way, or nothing has come for the drain timeout.
    fn drain(&mut self) -> Result<(), SwarmError> {
        let (mut counts, mut last_progress) = (self.engine.counts(), Instant::now());
        while !self.engine.is_settled() && last_progress.elapsed() < self.drain_timeout {
            self.engine.turn()?;
            let counts_now = self.engine.counts();
            if counts != counts_now {
                (counts, last_progress) = (counts_now, Instant::now());
            }
        }
        Ok(())
    }

    /// Leaves for good; gives how many connections the server did not close.
    fn say_goodbye(&mut self) -> Result<u64, SwarmError> {
        self.engine.say_goodbye()?;
        let began = Instant::now();
        while self.engine.clients_around() > 0 && began.elapsed() < GOODBYE_TIMEOUT {
            self.engine.turn()?;
        }
        Ok(self.engine.clients_around())
    }

    /// Keeps the clients alive until told to go on.
    fn wait_for(&mut self, orders: &Receiver<Go>) -> Result<(), SwarmError> {
        loop {
            match orders.try_recv() {
                Ok(Go) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(SwarmError::CalledOff),
                Err(TryRecvError::Empty) => self.engine.turn()?,
            }
        }
    }
}

fn report(milestones: &Sender<Milestone>, milestone: Milestone) -> Result<(), SwarmError> {
    milestones.send(milestone).map_err(|_| SwarmError::CalledOff)
}

impl GroupOutcome {
    fn of(group: &Group) -> Self {
        Self {
            part: group.part().clone(),
            figures: group.workload().figures(),
            latency: group.latency().clone(),
            round_trip: group.round_trip().clone(),
            to_the_last: group.to_the_last().clone(),
        }
    }
}
