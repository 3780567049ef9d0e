//! The swarm's phases, in a thread of its own: enter, load, drain, say goodbye. Between them it waits for whoever measures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::engine::{Engine, EngineError, Live};
use crate::options::{Options, Shape};
use crate::workload::Figures;

/// A server that does not close thousands of connections in this time is not going to.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(15);

/// What the swarm tells as it gets on. It waits for a [`Go`] after `Inside` and after `Settled`.
#[derive(Debug)]
pub(crate) enum Milestone {
    /// All clients are in their rooms, so many seconds after the first began to connect.
    Inside { seconds: f64 },
    /// No further message is sent.
    LoadEnded,
    /// Nothing is under way any more, or nothing comes any more.
    Settled,
}

/// Lets the swarm go on to its next phase.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Go;

/// What the swarm has to say at the end.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub figures: Figures,
    pub load_seconds: f64,
    pub disconnects: u64,
    pub resumes: u64,
    pub resyncs: u64,
    /// Sessions that could not be resumed.
    pub sessions_lost: u64,
    /// Why connections were lost, and how often.
    pub losses: BTreeMap<String, u64>,
    /// Connections that the server had not closed in the time that a goodbye is given.
    pub unclosed: u64,
    /// Longest time that something due had to wait for this loop during the load.
    pub lag_ms_max: f64,
    /// CPU time of this thread during the load.
    pub cpu_seconds: f64,
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
    #[error("the run was called off")]
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
        shape: Shape,
        live: Arc<Live>,
    ) -> Result<Self, SwarmError> {
        Ok(Self {
            engine: Engine::new(server, options, shape, live)?,
            clients: shape.clients,
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

        let (load_began, cpu_before) = (Instant::now(), thread_cpu_seconds());
        let lag_ns_max = self.load()?;
        let (load_seconds, cpu_after) = (load_began.elapsed().as_secs_f64(), thread_cpu_seconds());
        report(milestones, Milestone::LoadEnded)?;

        self.drain()?;
        let figures = self.engine.workload().figures();
        report(milestones, Milestone::Settled)?;
        self.wait_for(orders)?;

        let unclosed = self.say_goodbye()?;
        let sessions = self.engine.session_counters();
        let connections = self.engine.connections();
        Ok(Outcome {
            figures,
            load_seconds,
            disconnects: connections.disconnects,
            resumes: sessions.resumes,
            resyncs: sessions.resyncs,
            sessions_lost: connections.sessions_lost,
            losses: connections.losses.clone(),
            unclosed,
            lag_ms_max: Duration::from_nanos(lag_ns_max).as_secs_f64() * 1e3,
            cpu_seconds: cpu_after - cpu_before,
        })
    }

    /// Brings all clients into their rooms; gives the seconds that took.
    fn enter(&mut self) -> Result<f64, SwarmError> {
        let began = Instant::now();
        let (mut inside, mut last_progress) = (0, began);
        loop {
            let inside_now = self.engine.enter()?;
            if inside_now == self.clients {
                return Ok(began.elapsed().as_secs_f64());
            }
            if inside_now > inside {
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

    /// Loads the server; gives the longest time that something due had to wait here.
    fn load(&mut self) -> Result<u64, SwarmError> {
        self.engine.take_lag_ns_max();
        let end_ns = self.engine.start_load(self.duration_ns)?;
        while self.engine.now_ns() < end_ns {
            self.engine.turn()?;
        }
        self.engine.stop_load()?;
        Ok(self.engine.take_lag_ns_max())
    }

    /// Waits until nothing is under way, or nothing has come for the drain timeout.
    fn drain(&mut self) -> Result<(), SwarmError> {
        let (mut counts, mut last_progress) = (self.engine.workload().counts(), Instant::now());
        while !self.engine.workload().is_settled() && last_progress.elapsed() < self.drain_timeout {
            self.engine.turn()?;
            let counts_now = self.engine.workload().counts();
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

fn thread_cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds and nanoseconds of a process's life"
    )]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    seconds
}
