//! One mio loop that drives all clients. It does what [`Entry`] and the [`Workload`] decide, and brings back clients that
//! lose their connection.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forkade_protocol::session::Counters;
use forkade_protocol::{ClientMessage, ServerMessage, SessionError};
use mio::{Events, Poll, Token};

use crate::alarm::Alarm;
use crate::client::{Client, Loss, READ_BYTES};
use crate::entry::{Entry, EntryError};
use crate::options::{Options, Shape};
use crate::random::Random;
use crate::schedule::Timers;
use crate::workload::{self, Actions, ClientIndex, Workload};

/// What the poll reports is for the client of this index, or for the alarm.
const ALARM: Token = Token(usize::MAX);
const EVENTS_AT_ONCE: usize = 1024;
/// How long a turn sleeps at most: phases end by time, too.
const NAP: Duration = Duration::from_millis(50);
const BACK_OFF_NS_MIN: u64 = 10_000_000;
const BACK_OFF_DOUBLINGS_MAX: u32 = 7;
/// Signs of life are sent by one of so many groups of clients at a time; all at once they would be a load of their own.
const HEARTBEAT_GROUPS: u32 = 16;
/// A client says something at least so many times within the heartbeat timeout.
const HEARTBEATS_PER_TIMEOUT: u64 = 4;

/// All clients and what drives them.
pub(crate) struct Engine {
    server: SocketAddr,
    connecting: u32,
    began: Instant,
    poll: Poll,
    alarm: Alarm,
    /// Taken out while events are handled.
    events: Option<Events>,
    buffer: Vec<u8>,
    clients: Vec<Client>,
    entry: Entry,
    workload: Box<dyn Workload + Send>,
    timers: Timers<Task>,
    connections: Connections,
    /// A goodbye was said: connections that end now are meant to.
    leaving: bool,
    random: Random,
    heartbeat_group: u32,
    heartbeat_timeout_ns: Option<u64>,
    lag_ns_max: u64,
    live: Arc<Live>,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    /// A call of [`Workload::due`], with its intended time. (The timer's own is later if it was set too late for that.)
    Workload {
        client: ClientIndex,
        intended_ns: u64,
    },
    Connect(ClientIndex),
    Heartbeat,
    /// Nothing but a turn of the loop at this time.
    Turn,
}

/// What became of the connections.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// Connections lost, or refused.
    pub disconnects: u64,
    /// Sessions that no connection can bring back.
    pub sessions_lost: u64,
    /// Why, and how often.
    pub losses: BTreeMap<String, u64>,
}

/// Counts for whoever watches from another thread.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub inside: AtomicU64,
    pub sent: AtomicU64,
    pub received: AtomicU64,
    pub matches: AtomicU64,
    pub disconnects: AtomicU64,
}

/// Why the loop cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    #[error("cannot set up the loop: {0}")]
    SetUp(io::Error),
    #[error("the loop failed: {0}")]
    Loop(io::Error),
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error("client {client} cannot enter: {loss}")]
    TurnedAway { client: ClientIndex, loss: Loss },
    #[error("a message cannot be sent: {0}")]
    Unsendable(SessionError),
}

impl Engine {
    /// An engine that has not begun to connect.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub(crate) fn new(
        server: SocketAddr,
        options: &Options,
        shape: Shape,
        live: Arc<Live>,
    ) -> Result<Self, EngineError> {
        let poll = Poll::new().map_err(EngineError::SetUp)?;
        let alarm = Alarm::new(poll.registry(), ALARM).map_err(EngineError::SetUp)?;
        // Names must differ from those of other load generators on the same server.
        let process = std::process::id();
        Ok(Self {
            server,
            connecting: options.connecting,
            began: Instant::now(),
            poll,
            alarm,
            events: Some(Events::with_capacity(EVENTS_AT_ONCE)),
            buffer: vec![0; READ_BYTES],
            clients: (0..shape.clients)
                .map(|client| Client::new(format!("load-{process}-{client}")))
                .collect(),
            entry: Entry::new(options.workload, shape),
            workload: workload::of(options, shape),
            timers: Timers::new(),
            connections: Connections::default(),
            leaving: false,
            random: Random::new(options.seed, u64::MAX),
            heartbeat_group: 0,
            heartbeat_timeout_ns: None,
            lag_ns_max: 0,
            live,
        })
    }

    /// Connects as many clients as may be on their way, and gives how many are in their rooms.
    ///
    /// # Errors
    /// When connecting fails in a way that trying again cannot mend.
    pub(crate) fn enter(&mut self) -> Result<u32, EngineError> {
        while let Some(client) = self.entry.start_next(self.connecting) {
            self.connect(client)?;
        }
        Ok(self.entry.inside())
    }

    /// Starts the workload; gives the time at which it ends.
    ///
    /// # Errors
    /// As [`Engine::turn`].
    pub(crate) fn start_load(&mut self, duration_ns: u64) -> Result<u64, EngineError> {
        let (now_ns, mut actions) = (self.now_ns(), Actions::default());
        let end_ns = now_ns + duration_ns;
        self.timers.set(end_ns, Task::Turn);
        self.workload.start(now_ns, end_ns, &mut actions);
        self.apply(actions)?;
        Ok(end_ns)
    }

    /// Does what was due before the end, and begins nothing new from here on.
    ///
    /// # Errors
    /// As [`Engine::turn`].
    pub(crate) fn stop_load(&mut self) -> Result<(), EngineError> {
        self.fire_timers()?;
        self.workload.stop();
        Ok(())
    }

    /// All clients leave for good.
    ///
    /// # Errors
    /// As [`Engine::turn`].
    pub(crate) fn say_goodbye(&mut self) -> Result<(), EngineError> {
        self.leaving = true;
        let clients = 0..ClientIndex::try_from(self.clients.len()).unwrap_or(ClientIndex::MAX);
        let sends = clients.map(|client| (client, ClientMessage::Goodbye)).collect();
        self.apply(Actions {
            sends,
            timers: Vec::new(),
        })
    }

    /// One turn of the loop: what is due, then what the poll reports.
    ///
    /// # Errors
    /// When the loop cannot go on. A client's lost connection is no such reason.
    pub(crate) fn turn(&mut self) -> Result<(), EngineError> {
        self.fire_timers()?;
        let now_ns = self.now_ns();
        let patience = match self.timers.next_due() {
            Some(due_ns) if due_ns <= now_ns => Duration::ZERO,
            Some(due_ns) => {
                self.alarm.set(due_ns, now_ns).map_err(EngineError::Loop)?;
                NAP
            }
            None => NAP,
        };
        let mut events = self
            .events
            .take()
            .unwrap_or_else(|| Events::with_capacity(EVENTS_AT_ONCE));
        match self.poll.poll(&mut events, Some(patience)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(EngineError::Loop(error)),
            _ => {}
        }
        let woke_ns = self.now_ns();
        for event in &events {
            match event.token() {
                ALARM => self.alarm.reported(),
                Token(index) => {
                    self.ready(ClientIndex::try_from(index).unwrap_or(ClientIndex::MAX), event)?
                }
            }
        }
        self.events = Some(events);
        self.note_lag(woke_ns);
        self.publish();
        Ok(())
    }

    /// Nanoseconds since the engine was made: the unit of all its times.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn workload(&self) -> &dyn Workload {
        &*self.workload
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Clients that have a connection, or are about to make one.
    pub(crate) fn clients_around(&self) -> u64 {
        self.clients.iter().filter(|client| client.is_around()).count() as u64
    }

    /// The sums of all sessions' counters.
    pub(crate) fn session_counters(&self) -> Counters {
        self.clients
            .iter()
            .map(|client| client.session().counters())
            .fold(Counters::default(), |sum, one| Counters {
                resumes: sum.resumes + one.resumes,
                gaps: sum.gaps + one.gaps,
                resyncs: sum.resyncs + one.resyncs,
            })
    }

    /// The longest time since the last call for which something that was due, or had arrived, had to wait for this loop.
    pub(crate) fn take_lag_ns_max(&mut self) -> u64 {
        std::mem::take(&mut self.lag_ns_max)
    }

    fn fire_timers(&mut self) -> Result<(), EngineError> {
        let now_ns = self.now_ns();
        while let Some((due_ns, task)) = self.timers.pop_due(now_ns) {
            match task {
                Task::Workload { client, intended_ns } if self.client(client).is_congested() => {
                    self.client(client).deferred = Some(intended_ns);
                }
                Task::Workload { client, intended_ns } => {
                    self.note_lag(due_ns);
                    let mut actions = Actions::default();
                    self.workload.due(client, intended_ns, now_ns, &mut actions);
                    self.apply(actions)?;
                }
                Task::Connect(client) => self.connect(client)?,
                Task::Heartbeat => self.give_signs_of_life(now_ns)?,
                Task::Turn => {}
            }
        }
        Ok(())
    }

    fn ready(&mut self, index: ClientIndex, event: &mio::event::Event) -> Result<(), EngineError> {
        let mut messages = Vec::new();
        let client = &mut self.clients[index as usize];
        let result = client.ready(event, &mut self.buffer, &mut messages);
        let now_ns = self.now_ns();
        let mut actions = Actions::default();
        for message in messages {
            self.received(index, message, now_ns, &mut actions)?;
        }
        let client = self.client(index);
        if let (false, Some(intended_ns)) = (client.is_congested(), client.deferred) {
            client.deferred = None;
            actions.timers.push((intended_ns, index));
        }
        match result.and_then(|()| self.client(index).flush(now_ns)) {
            Ok(()) => {}
            Err(loss) => self.lost(index, loss)?,
        }
        self.apply(actions)
    }

    fn received(
        &mut self,
        index: ClientIndex,
        message: ServerMessage,
        now_ns: u64,
        actions: &mut Actions,
    ) -> Result<(), EngineError> {
        if let ServerMessage::Welcome { .. } | ServerMessage::Resumed { .. } = message {
            self.client(index).failed_attempts = 0;
            self.expect_heartbeats(&message, now_ns);
        }
        if self.entry.is_complete() {
            self.workload.received(index, message, now_ns, actions);
        } else {
            self.entry.received(index, message, actions)?;
        }
        Ok(())
    }

    fn apply(&mut self, actions: Actions) -> Result<(), EngineError> {
        let now_ns = self.now_ns();
        for (intended_ns, client) in actions.timers {
            self.timers
                .set(intended_ns.max(now_ns), Task::Workload { client, intended_ns });
        }
        for (index, message) in actions.sends {
            let now_ns = self.now_ns();
            let client = self.client(index);
            match client.send(message) {
                // Whoever has lost its session for good has been counted.
                Ok(()) | Err(SessionError::Ended) => {}
                Err(error) => return Err(EngineError::Unsendable(error)),
            }
            if let Err(loss) = client.flush(now_ns) {
                self.lost(index, loss)?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: ClientIndex) -> Result<(), EngineError> {
        let client = &mut self.clients[index as usize];
        client.is_coming_back = false;
        match client.connect(self.poll.registry(), self.server, Token(index as usize)) {
            Ok(()) => Ok(()),
            Err(loss) => self.lost(index, loss),
        }
    }

    /// A connection is over. The client comes back after a pause that grows from time to time, if it can.
    fn lost(&mut self, index: ClientIndex, loss: Loss) -> Result<(), EngineError> {
        let entered = self.entry.is_complete();
        let client = &mut self.clients[index as usize];
        client.disconnect();
        if self.leaving {
            return Ok(());
        }
        self.connections.disconnects += 1;
        *self.connections.losses.entry(loss.to_string()).or_default() += 1;
        // Where nobody listens, and nobody ever has, trying again changes nothing.
        let nobody_there = loss.is_refused() && self.heartbeat_timeout_ns.is_none();
        if client.session().is_ended() || nobody_there {
            self.connections.sessions_lost += 1;
            return if entered {
                Ok(())
            } else {
                Err(EngineError::TurnedAway { client: index, loss })
            };
        }
        let longest_ns = BACK_OFF_NS_MIN << client.failed_attempts.min(BACK_OFF_DOUBLINGS_MAX);
        client.failed_attempts += 1;
        client.is_coming_back = true;
        // Those who were cut off together must not come back together.
        let pause_ns = longest_ns / 2 + self.random.below(longest_ns / 2);
        let due_ns = self.now_ns() + pause_ns;
        self.timers.set(due_ns, Task::Connect(index));
        Ok(())
    }

    /// The first welcome tells how often the server wants to hear from a client.
    fn expect_heartbeats(&mut self, message: &ServerMessage, now_ns: u64) {
        if let (ServerMessage::Welcome { limits, .. }, None) = (message, self.heartbeat_timeout_ns) {
            let timeout_ns = u64::from(limits.heartbeat_timeout_ms.max(1)) * 1_000_000;
            self.heartbeat_timeout_ns = Some(timeout_ns);
            self.timers
                .set(now_ns + self.heartbeat_pause_ns(), Task::Heartbeat);
        }
    }

    fn give_signs_of_life(&mut self, now_ns: u64) -> Result<(), EngineError> {
        let silence_ns_max = self.heartbeat_timeout_ns.unwrap_or(u64::MAX) / HEARTBEATS_PER_TIMEOUT;
        let first = self.heartbeat_group as usize;
        self.heartbeat_group = (self.heartbeat_group + 1) % HEARTBEAT_GROUPS;
        self.timers
            .set(now_ns + self.heartbeat_pause_ns(), Task::Heartbeat);
        for index in (first..self.clients.len()).step_by(HEARTBEAT_GROUPS as usize) {
            let client = &mut self.clients[index];
            if now_ns.saturating_sub(client.last_sent_ns) < silence_ns_max {
                continue;
            }
            client.ping();
            if let Err(loss) = client.flush(now_ns) {
                self.lost(ClientIndex::try_from(index).unwrap_or(ClientIndex::MAX), loss)?;
            }
        }
        Ok(())
    }

    /// From one group's turn to the next.
    fn heartbeat_pause_ns(&self) -> u64 {
        let timeout_ns = self.heartbeat_timeout_ns.unwrap_or(u64::MAX);
        (timeout_ns / HEARTBEATS_PER_TIMEOUT / u64::from(HEARTBEAT_GROUPS)).max(1)
    }

    fn client(&mut self, index: ClientIndex) -> &mut Client {
        &mut self.clients[index as usize]
    }

    fn note_lag(&mut self, since_ns: u64) {
        self.lag_ns_max = self.lag_ns_max.max(self.now_ns().saturating_sub(since_ns));
    }

    fn publish(&self) {
        let (live, counts) = (&self.live, self.workload.counts());
        for (published, value) in [
            (&live.inside, u64::from(self.entry.inside())),
            (&live.sent, counts.sent),
            (&live.received, counts.received),
            (&live.matches, counts.matches),
            (&live.disconnects, self.connections.disconnects),
        ] {
            published.store(value, Ordering::Relaxed);
        }
    }
}
