//! One mio loop that drives all clients. It does what the [groups](Group) decide, and reconnects clients that
//! lose their connection.

pub(crate) mod client;
pub(crate) mod connection_counts;
mod connections;
pub(crate) mod group;
mod heartbeats;
pub(crate) mod join_phase;
mod poll_timer;
pub(crate) mod timeline;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use forkade_protocol::ClientMessage;
use forkade_protocol::session::Counters;
use mio::{Events, Poll, Token};

use self::client::{Client, ConnectionError, READ_BYTES};
use self::connection_counts::ConnectionCounts;
use self::group::Group;
use self::heartbeats::Heartbeats;
use self::join_phase::JoinError;
use self::poll_timer::PollTimer;
use self::timeline::{Point, Timeline, Totals};
use crate::client_protocol::ProtocolError;
use crate::latency::Latency;
use crate::machine::thread_usage;
use crate::options::Options;
use crate::plan::WorkloadPlan;
use crate::random::Random;
use crate::run_state::RunState;
use crate::schedule::Timers;
use crate::workload::{Actions, ClientIndex, Counts};

/// The token of the timer. Every other token is the index of a client.
const TIMER: Token = Token(usize::MAX);
const EVENTS_PER_POLL: usize = 1024;
/// How long one iteration of the loop sleeps at most, because phases also end by time.
const POLL_TIMEOUT_MAX: Duration = Duration::from_millis(50);

/// All clients and the loop that drives them.
pub(crate) struct Engine {
    server: SocketAddr,
    /// The address that clients connect from.
    source: Option<IpAddr>,
    connecting: u32,
    /// Clients connect evenly over this time; 0: as fast as they can.
    ramp_ns: u64,
    /// The next time at which the ramp starts a client, once a timer is set to it.
    ramp_timer_ns: u64,
    began: Instant,
    poll: Poll,
    poll_timer: PollTimer,
    /// `None` while events are handled.
    events: Option<Events>,
    buffer: Vec<u8>,
    clients: Vec<Client>,
    /// In the order of their clients.
    groups: Vec<Group>,
    timers: Timers<Task>,
    connections: ConnectionCounts,
    /// All clients have sent a goodbye, so connections that end now are not counted as lost.
    disconnecting: bool,
    random: Random,
    /// `Some` once a server has welcomed a client.
    heartbeats: Option<Heartbeats>,
    /// How long due sends and received data waited for this loop since the load began.
    lag: Latency,
    /// `Some` while there is load.
    timeline: Option<Timeline>,
    state: Arc<RunState>,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    /// A call of [`Group::due`] with its intended time. The timer's own time is later if it was set too late
    /// for that.
    Workload {
        client: ClientIndex,
        intended_ns: u64,
    },
    Connect(ClientIndex),
    Heartbeat,
    /// Only an iteration of the loop at this time.
    Wake,
}

/// Why the loop cannot continue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("cannot set up the loop: {0}")]
    SetUp(io::Error),
    #[error("the loop failed: {0}")]
    Loop(io::Error),
    #[error(transparent)]
    JoinPhase(#[from] JoinError),
    #[error("no server can be reached at {server}: {error}")]
    Unreachable {
        server: SocketAddr,
        error: ConnectionError,
    },
    #[error("client {client} cannot connect: {error}")]
    Rejected {
        client: ClientIndex,
        error: ConnectionError,
    },
    #[error("a message cannot be sent: {0}")]
    Send(ProtocolError),
}

impl Engine {
    /// An engine that has not connected any client yet.
    ///
    /// # Errors
    /// When the process has no file descriptors left.
    pub(crate) fn new(
        server: SocketAddr,
        options: &Options,
        plans: Vec<WorkloadPlan>,
        state: Arc<RunState>,
    ) -> Result<Self, EngineError> {
        let poll = Poll::new().map_err(EngineError::SetUp)?;
        let poll_timer = PollTimer::new(poll.registry(), TIMER).map_err(EngineError::SetUp)?;
        // Names must differ from those of other load generators on the same server.
        let process = std::process::id();
        let mut clients = 0;
        let groups: Vec<Group> = plans
            .into_iter()
            .map(|plan| {
                let first = clients;
                clients += plan.shape.clients;
                Group::new(plan, first)
            })
            .collect();
        Ok(Self {
            server,
            source: options.source,
            connecting: options.connecting,
            ramp_ns: options.ramp_ns(),
            ramp_timer_ns: 0,
            began: Instant::now(),
            poll,
            poll_timer,
            events: Some(Events::with_capacity(EVENTS_PER_POLL)),
            buffer: vec![0; READ_BYTES],
            clients: (0..clients)
                .map(|client| Client::new(format!("load-{process}-{client}"), options.server.protocol()))
                .collect(),
            groups,
            timers: Timers::new(),
            connections: ConnectionCounts::default(),
            disconnecting: false,
            random: Random::new(options.seed, u64::MAX),
            heartbeats: None,
            lag: Latency::new(),
            timeline: None,
            state,
        })
    }

    /// Connects clients up to the limit of those that may be joining at once. Returns how many are in their
    /// rooms. `since_ns` is the time at which the first client could start.
    ///
    /// # Errors
    /// When connecting fails in a way that a retry cannot repair.
    pub(crate) fn advance_joining(&mut self, since_ns: u64) -> Result<u32, EngineError> {
        let now_ns = self.now_ns();
        let mut next_ns = u64::MAX;
        for index in 0..self.groups.len() {
            while self.joining() < self.connecting {
                let (group, ramp_ns) = (&mut self.groups[index], self.ramp_ns);
                let (started, clients) = (group.join_phase.started(), group.plan().shape.clients);
                let due_ns = since_ns + scaled(ramp_ns, started, clients);
                if started < clients && due_ns > now_ns {
                    next_ns = next_ns.min(due_ns);
                    break;
                }
                let first = group.first();
                let Some(client) = group.join_phase.start_next() else {
                    break;
                };
                self.connect(first + client)?;
            }
        }
        if next_ns != u64::MAX && next_ns != self.ramp_timer_ns {
            self.timers.set(next_ns, Task::Wake);
            self.ramp_timer_ns = next_ns;
        }
        Ok(self.joined())
    }

    /// Clients that have started to connect and are not yet in their rooms.
    pub(crate) fn joining(&self) -> u32 {
        self.groups.iter().map(|group| group.join_phase.joining()).sum()
    }

    fn joined(&self) -> u32 {
        self.groups.iter().map(|group| group.join_phase.joined()).sum()
    }

    /// Starts the workloads. Returns the time at which they end.
    ///
    /// # Errors
    /// As [`Engine::run_once`].
    pub(crate) fn start_load(&mut self, duration_ns: u64) -> Result<u64, EngineError> {
        let now_ns = self.now_ns();
        let end_ns = now_ns + duration_ns;
        self.timers.set(end_ns, Task::Wake);
        self.lag = Latency::new();
        self.timeline = Some(Timeline::start(now_ns, duration_ns, self.totals()));
        for index in 0..self.groups.len() {
            let actions = self.groups[index].start(now_ns, end_ns);
            self.apply(actions)?;
        }
        Ok(end_ns)
    }

    /// Sends what was due before the end, and starts nothing new. Returns the timeline of the load.
    ///
    /// # Errors
    /// As [`Engine::run_once`].
    pub(crate) fn stop_load(&mut self) -> Result<Vec<Point>, EngineError> {
        let end_ns = self.now_ns();
        // Each pass handles one due time per client; a client that is late has several.
        while self.has_overdue_sends(end_ns) {
            self.fire_timers()?;
        }
        self.groups.iter_mut().for_each(|group| group.stop(end_ns));
        let (now_ns, totals) = (self.now_ns(), self.totals());
        let points = self.timeline.take().map(|mut timeline| {
            timeline.advance(now_ns, totals);
            timeline.into_points()
        });
        Ok(points.unwrap_or_default())
    }

    /// All clients end their sessions with a goodbye.
    ///
    /// # Errors
    /// As [`Engine::run_once`].
    pub(crate) fn disconnect(&mut self) -> Result<(), EngineError> {
        self.disconnecting = true;
        let clients = 0..ClientIndex::try_from(self.clients.len()).unwrap_or(ClientIndex::MAX);
        let sends = clients.map(|client| (client, ClientMessage::Goodbye)).collect();
        self.apply(Actions {
            sends,
            ..Actions::default()
        })
    }

    /// One iteration of the loop: due timers first, then the events of the poll.
    ///
    /// # Errors
    /// When the loop cannot continue. The loss of a client's connection is no error.
    pub(crate) fn run_once(&mut self) -> Result<(), EngineError> {
        self.fire_timers()?;
        let now_ns = self.now_ns();
        let timeout = match self.timers.next_due() {
            Some(due_ns) if due_ns <= now_ns => Duration::ZERO,
            Some(due_ns) => {
                self.poll_timer.set(due_ns, now_ns).map_err(EngineError::Loop)?;
                POLL_TIMEOUT_MAX
            }
            None => POLL_TIMEOUT_MAX,
        };
        let mut events = self
            .events
            .take()
            .unwrap_or_else(|| Events::with_capacity(EVENTS_PER_POLL));
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(EngineError::Loop(error)),
            _ => {}
        }
        let woke_ns = self.now_ns();
        for event in &events {
            match event.token() {
                TIMER => self.poll_timer.clear(),
                Token(index) => {
                    self.record_lag(woke_ns);
                    self.on_ready(ClientIndex::try_from(index).unwrap_or(ClientIndex::MAX), event)?;
                }
            }
        }
        self.events = Some(events);
        self.advance_timeline();
        self.publish_counts();
        Ok(())
    }

    /// Nanoseconds since the engine was created: the clock of all its times.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The clients of each workload.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The sums of what all workloads have counted so far.
    pub(crate) fn counts(&self) -> Counts {
        self.groups.iter().fold(Counts::default(), |sum, group| {
            sum.plus(group.workload().counts())
        })
    }

    /// Whether no message is outstanding any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.groups.iter().all(|group| group.workload().is_settled())
    }

    /// Whether the load was asked to end early.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.state.interrupted.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> &ConnectionCounts {
        &self.connections
    }

    /// Clients that are connected, connecting, or about to reconnect.
    pub(crate) fn active_clients(&self) -> u64 {
        self.clients.iter().filter(|client| client.is_active()).count() as u64
    }

    /// The sums of all sessions' counters.
    pub(crate) fn session_counters(&self) -> Counters {
        self.clients
            .iter()
            .map(Client::counters)
            .fold(Counters::default(), client::sum)
    }

    /// How long due sends and received data waited for this loop since the load began.
    pub(crate) fn lag(&self) -> &Latency {
        &self.lag
    }

    /// Whether anything that was due before `end_ns` is still to be done.
    fn has_overdue_sends(&self, end_ns: u64) -> bool {
        let is_overdue =
            |task: &Task| matches!(task, Task::Workload { intended_ns, .. } if *intended_ns < end_ns);
        self.timers.tasks().any(is_overdue)
    }

    fn fire_timers(&mut self) -> Result<(), EngineError> {
        let now_ns = self.now_ns();
        while let Some((due_ns, task)) = self.timers.pop_due(now_ns) {
            match task {
                Task::Workload { client, intended_ns } if self.client(client).is_congested() => {
                    self.client(client).deferred_due_ns = Some(intended_ns);
                }
                Task::Workload { client, intended_ns } => {
                    self.record_lag(due_ns);
                    let actions = self.group_of(client).due(client, intended_ns, now_ns);
                    self.apply(actions)?;
                }
                Task::Connect(client) => self.connect(client)?,
                Task::Heartbeat => self.send_heartbeats(now_ns)?,
                Task::Wake => {}
            }
        }
        Ok(())
    }

    fn on_ready(&mut self, index: ClientIndex, event: &mio::event::Event) -> Result<(), EngineError> {
        let mut messages = Vec::new();
        let client = &mut self.clients[index as usize];
        let result = client.on_ready(event, &mut self.buffer, &mut messages);
        let now_ns = self.now_ns();
        if let Some(first) = messages.first() {
            self.on_handshake(index, first, now_ns);
        }
        let mut actions = self.group_of(index).received(index, messages, now_ns)?;
        let client = self.client(index);
        if let (false, Some(intended_ns)) = (client.is_congested(), client.deferred_due_ns) {
            client.deferred_due_ns = None;
            actions.timers.push((intended_ns, index));
        }
        match result.and_then(|()| self.client(index).flush(now_ns)) {
            Ok(()) => {}
            Err(error) => self.on_connection_lost(index, error)?,
        }
        self.apply(actions)
    }

    fn apply(&mut self, actions: Actions) -> Result<(), EngineError> {
        let now_ns = self.now_ns();
        if let Some(timeline) = &mut self.timeline {
            actions
                .receipts
                .iter()
                .for_each(|receipt| timeline.record(receipt.latency_ns));
        }
        for (intended_ns, client) in actions.timers {
            self.timers
                .set(intended_ns.max(now_ns), Task::Workload { client, intended_ns });
        }
        for (index, message) in actions.sends {
            let now_ns = self.now_ns();
            let client = self.client(index);
            match client.send(message) {
                // A session that has ended for good was counted when it ended.
                Ok(()) => {}
                Err(error) if error.is_session_end() => {}
                Err(error) => return Err(EngineError::Send(error)),
            }
            if let Err(error) = client.flush(now_ns) {
                self.on_connection_lost(index, error)?;
            }
        }
        for index in actions.new_players {
            self.replace_player(index)?;
        }
        Ok(())
    }

    fn client(&mut self, index: ClientIndex) -> &mut Client {
        &mut self.clients[index as usize]
    }

    fn group_of(&mut self, client: ClientIndex) -> &mut Group {
        let after = self.groups.partition_point(|group| group.first() <= client);
        &mut self.groups[after - 1]
    }

    fn record_lag(&mut self, since_ns: u64) {
        let lag_ns = self.now_ns().saturating_sub(since_ns);
        if let Some(timeline) = &mut self.timeline {
            self.lag.record(lag_ns);
            timeline.record_lag(lag_ns);
        }
    }

    /// Ends the current interval of the timeline when its time is over.
    fn advance_timeline(&mut self) {
        let now_ns = self.now_ns();
        if self
            .timeline
            .as_ref()
            .is_some_and(|timeline| timeline.is_over(now_ns))
        {
            let totals = self.totals();
            self.timeline
                .iter_mut()
                .for_each(|timeline| timeline.advance(now_ns, totals));
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            counts: self.counts(),
            cpu_seconds: thread_usage::cpu_seconds(),
        }
    }

    fn publish_counts(&self) {
        let (state, counts) = (&self.state, self.counts());
        for (published, value) in [
            (&state.joined, u64::from(self.joined())),
            (&state.sent, counts.sent),
            (&state.received, counts.received),
            (&state.matches, counts.matches),
            (&state.disconnects, self.connections.disconnects),
        ] {
            published.store(value, Ordering::Relaxed);
        }
    }
}

/// The share `part` / `whole` of `time_ns`.
fn scaled(time_ns: u64, part: u32, whole: u32) -> u64 {
    let scaled = u128::from(time_ns) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
