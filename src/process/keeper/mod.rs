//! A keeper: holds a duplicate of each of its connections' sockets, and replaces the handler of a connection whenever
//! it dies.
//!
//! It must never register a client's socket in its poll: events would wake it for every byte of a thousand clients.
//! It must never take a lock: a process stuck under one would keep handlers from being replaced. It must never read
//! what a client sends, or run a game: nothing a client does can kill it. (The one message of the protocol that it
//! writes is a refusal, when it has no slot or no process for a new connection.) It keeps few pages and few
//! descriptors, since every fork copies them.

mod adoption;
mod assign;
mod handlers;
mod liveness;
mod prefork;
mod receive;
mod spawn;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::Signal;

use crate::limits::KEEPER_HANDOFF_TIMEOUT_MS;
use crate::maintenance::crash_policy::CrashHistory;
use crate::process::keeper::handlers::HandlerSet;
use crate::process::keeper::prefork::PreforkPolicy;
use crate::process::keeper::spawn::PendingRespawn;
use crate::process::process_table::{Context, LivenessHandle, RoleStart};
use crate::process::watchdog::progress::ProgressMarks;
use crate::state::connections::{Claim, KINDS, Kind};
use crate::state::header::KeeperSlot;
use crate::state::layout::ConnectionRef;
use shmem::sys::clock::now_ms;
use shmem::sys::signals::Signals;

const CONNECTIONS: Token = Token(0);
const SIGNALS: Token = Token(1);
const DOORBELL: Token = Token(2);
const LIFELINE: Token = Token(3);
/// Tokens from here on: the exit of an adopted handler, by its pid.
const FIRST_ADOPTED: usize = 16;

/// The role's entry.
pub(crate) fn run(start: &RoleStart) -> io::Result<u8> {
    let ipc = start.context.ipc;
    let mine = &ipc.keepers[start.index as usize];
    let mut keep = vec![
        mine.receiver.as_fd(),
        // Handlers that outlive this process offer their sockets to the next keeper here, and so does this process
        // when it is replaced.
        mine.sender.as_fd(),
        ipc.lifeline.as_fd(),
        ipc.ready.as_fd(),
    ];
    // For the handlers, which inherit them.
    keep.extend(ipc.doorbells.for_clients());
    start.keep_only(&keep)?;
    // SIGUSR1 is blocked because handlers inherit the mask: they may be sent it before they read signals.
    let signals = Signals::block(&[Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGUSR1])?;
    let mut keeper = Keeper::new(start, signals)?;
    keeper.maintain_spares();
    start.report_ready();
    keeper.serve()
}

struct Keeper {
    context: Context,
    liveness: LivenessHandle,
    progress_marks: ProgressMarks,
    index: u32,
    epoch: u32,
    signals: Signals,
    poll: Poll,
    /// By the connection's index.
    held: HashMap<u32, HeldConnection>,
    handlers: HandlerSet,
    /// Connections that have lost their handler and have no other yet.
    pending_respawns: VecDeque<PendingRespawn>,
    /// Connections in receptions that have greeted, and are to be moved to handlers for players.
    greeted: VecDeque<ConnectionRef>,
    /// When the next of them is moved, in milliseconds of the monotonic clock.
    greeted_due_ms: u64,
    prefork: PreforkPolicy,
    /// Slots that were free when this process last looked.
    free: Vec<u32>,
    /// Connections of a former keeper whose sockets have not arrived yet, from that keeper or from the handlers that
    /// outlived it.
    to_adopt: Vec<u32>,
    /// Handlers of theirs that were not asked for sockets in this round: the first connection of each, and how many
    /// it has.
    handlers_to_request: VecDeque<(u32, usize)>,
    /// When the next round begins, in milliseconds of the monotonic clock.
    next_adoption_round_ms: u64,
    /// Pids of adopted handlers that run the program before an upgrade, or are receptions.
    outdated: VecDeque<u32>,
    /// When the next of them is replaced.
    replace_outdated_at_ms: u64,
    /// When to receive connections again: set after a full batch, or when resources ran out. The poll does not
    /// announce them again.
    receive_again_at_ms: Option<u64>,
    /// Another keeper replaces this one as soon as every connection has a handler, and at this time at the latest.
    transfer_deadline_ms: Option<u64>,
    /// Connections that are in the channel for the next keeper.
    transferred: HashSet<u32>,
    /// When the remaining handlers are killed; set when the server stops.
    stop_by_ms: Option<u64>,
}

/// A connection that this keeper holds.
struct HeldConnection {
    socket: OwnedFd,
    /// Pid of its handler; 0 while it has none.
    handler: u32,
    /// Pid of the handler that it moves to, as soon as the present one has released it.
    moves_to: Option<u32>,
    crash_history: CrashHistory,
}

impl HeldConnection {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            handler: 0,
            moves_to: None,
            crash_history: CrashHistory::default(),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Event {
    Connections,
    Children,
    AdoptedExited(u32),
    Doorbell,
    Stop,
    SupervisorGone,
}

impl Keeper {
    fn new(start: &RoleStart, signals: Signals) -> io::Result<Self> {
        let context = start.context;
        let mine = &context.ipc.keepers[start.index as usize];
        let slot = &context.memory.header.keepers[start.index as usize];
        // From here on the connections of a predecessor count as not held.
        let epoch = slot.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        let orphaned_counts = context.memory.orphaned_counts(start.index);
        for kind in KINDS {
            slot.connection_counts(kind).begin(orphaned_counts[kind as usize]);
        }
        slot.handlers.store(0, Ordering::Relaxed);
        slot.spare_handlers.store(0, Ordering::Relaxed);
        slot.receptions.store(0, Ordering::Relaxed);
        // An operator's connection is not adopted: it has no state, and the operator connects again.
        let is_held = |index: &u32| {
            let record = context.memory.connections.at(*index);
            record.kind() == Kind::Game && record.claimed() == Claim::Held
        };
        let to_adopt = context
            .memory
            .touched_connections_of_keeper(start.index)
            .filter(is_held)
            .collect();
        let poll = Poll::new()?;
        for (descriptor, token) in [
            (mine.receiver.as_fd(), CONNECTIONS),
            (signals.as_fd(), SIGNALS),
            (
                context.ipc.doorbells.keepers[start.index as usize].as_fd(),
                DOORBELL,
            ),
            (context.ipc.lifeline.as_fd(), LIFELINE),
        ] {
            poll.registry()
                .register(&mut SourceFd(&descriptor.as_raw_fd()), token, Interest::READABLE)?;
        }
        Ok(Self {
            context,
            liveness: start.liveness(),
            progress_marks: ProgressMarks::default(),
            index: start.index,
            epoch,
            signals,
            poll,
            held: HashMap::new(),
            handlers: HandlerSet::new(context.config),
            pending_respawns: VecDeque::new(),
            greeted: VecDeque::new(),
            greeted_due_ms: 0,
            prefork: PreforkPolicy::new(context.config.spare_handlers, now_ms()),
            free: Vec::new(),
            to_adopt,
            handlers_to_request: VecDeque::new(),
            next_adoption_round_ms: 0,
            outdated: VecDeque::new(),
            replace_outdated_at_ms: 0,
            receive_again_at_ms: None,
            transfer_deadline_ms: None,
            transferred: HashSet::new(),
            stop_by_ms: None,
        })
    }

    fn serve(&mut self) -> io::Result<u8> {
        let mut events = Events::with_capacity(16);
        self.receive_connections()?;
        loop {
            self.check_liveness();
            self.request_sockets();
            self.replace_outdated();
            if self.receive_again_at_ms.is_some_and(|at_ms| at_ms <= now_ms()) {
                self.receive_connections()?;
            }
            self.respawn_pending();
            self.move_greeted();
            if let Some(by_ms) = self.transfer_deadline_ms
                && (self.pending_respawns.is_empty() || by_ms <= now_ms())
            {
                self.transfer_connections(by_ms)?;
                return Ok(0);
            }
            self.maintain_spares();
            self.publish_counts();
            match self.poll.poll(&mut events, self.poll_timeout()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            self.liveness.report();
            let tokens: Vec<Token> = events.iter().map(mio::event::Event::token).collect();
            for token in tokens {
                for event in self.events_of(token)? {
                    if event == Event::SupervisorGone {
                        return Ok(1);
                    }
                    self.on_event(event)?;
                }
            }
            if let Some(stop_by_ms) = self.stop_by_ms {
                self.handlers.retire_all_idle();
                if self.held.is_empty() && self.handlers.is_empty() {
                    return Ok(0);
                }
                if stop_by_ms <= now_ms() {
                    self.kill_handlers();
                }
            }
        }
    }

    fn on_event(&mut self, event: Event) -> io::Result<()> {
        match event {
            // A connection that is received later anyway waits for the events before it, or for the next keeper.
            Event::Connections
                if self.receive_again_at_ms.is_some() || self.transfer_deadline_ms.is_some() => {}
            Event::Connections => self.receive_connections()?,
            Event::Children => self.reap_handlers(),
            Event::AdoptedExited(pid) => self.on_adopted_exit(pid),
            Event::Doorbell => {
                self.context.ipc.doorbells.keepers[self.index as usize].clear();
                self.forward_attention();
                self.process_notifications();
            }
            // Only this process sees the exit status. The next keeper sees that the handler is dead, but not why.
            Event::Stop if !self.server_is_stopping() => {
                self.reap_handlers();
                self.receive_again_at_ms = None;
                self.transfer_deadline_ms = Some(now_ms() + KEEPER_HANDOFF_TIMEOUT_MS);
            }
            Event::Stop => {
                if self.transfer_deadline_ms.take().is_some() {
                    // These were left for the next keeper, which is not started any more.
                    self.receive_again_at_ms = Some(now_ms());
                }
                self.stop();
            }
            Event::SupervisorGone => {}
        }
        Ok(())
    }

    fn events_of(&self, token: Token) -> io::Result<Vec<Event>> {
        Ok(match token {
            CONNECTIONS => vec![Event::Connections],
            DOORBELL => vec![Event::Doorbell],
            LIFELINE => vec![Event::SupervisorGone],
            Token(adopted @ FIRST_ADOPTED..) => u32::try_from(adopted - FIRST_ADOPTED)
                .map(Event::AdoptedExited)
                .into_iter()
                .collect(),
            _ => {
                let mut events = Vec::new();
                while let Some(received) = self.signals.read()? {
                    match received.signal {
                        Signal::SIGCHLD => events.push(Event::Children),
                        Signal::SIGTERM => events.push(Event::Stop),
                        _ => {}
                    }
                }
                events
            }
        })
    }

    fn poll_timeout(&self) -> Option<Duration> {
        let replace_ms =
            (!self.outdated.is_empty()).then(|| self.replace_outdated_at_ms.saturating_sub(now_ms()).max(1));
        let receive_again_ms = self
            .receive_again_at_ms
            .map(|at_ms| at_ms.saturating_sub(now_ms()));
        let stop_ms = self
            .stop_by_ms
            .map(|stop_by_ms| stop_by_ms.saturating_sub(now_ms()).max(10));
        self.adoption_due_ms()
            .into_iter()
            .chain(replace_ms)
            .chain(receive_again_ms)
            .chain(stop_ms)
            .chain(self.liveness_due_ms())
            .chain(self.prefork_due_ms())
            .chain(self.respawn_due_ms())
            .chain(self.move_greeted_due_ms())
            .min()
            .map(Duration::from_millis)
    }

    /// What others see of this keeper.
    fn slot(&self) -> &'static KeeperSlot {
        &self.context.memory.header.keepers[self.index as usize]
    }

    /// Signals the handlers of all connections whose flags another process has set.
    fn forward_attention(&self) {
        let first = self.context.memory.connections_of_keeper(self.index).start;
        let words = &self.slot().attention;
        for (word_index, word) in (0_u32..).zip(words) {
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                if !self.signal_handler(first + word_index * 64 + bits.trailing_zeros()) {
                    // The ticker rings this keeper again while a bit is set.
                    word.fetch_or(bits & bits.wrapping_neg(), Ordering::AcqRel);
                }
                bits &= bits - 1;
            }
        }
    }

    /// Makes a connection's handler look at its flags, whether it is this keeper's or a predecessor's. False if that
    /// must be tried again.
    fn signal_handler(&self, index: u32) -> bool {
        let Some(handler) = self.context.memory.connections.at(index).handler() else {
            return true;
        };
        // A dead handler needs no signal: its successor looks at everything.
        let sent = handler.send_signal(Signal::SIGUSR1);
        if let Err(error) = &sent {
            log::warn!("cannot signal handler {handler}: {error}");
        }
        sent.is_ok()
    }

    /// Shows operators how many handlers there are.
    fn publish_counts(&self) {
        let slot = self.slot();
        let (handlers, receptions) = self.handlers.counts();
        let for_players = handlers.saturating_sub(slot.connection_counts(Kind::Console).held());
        slot.handlers.store(for_players, Ordering::Relaxed);
        slot.receptions.store(receptions, Ordering::Relaxed);
        slot.spare_handlers.store(self.handlers.idle(), Ordering::Relaxed);
    }

    fn server_is_stopping(&self) -> bool {
        self.context.memory.header.stopping.load(Ordering::Acquire) != 0
    }

    fn stop(&mut self) {
        let timeout_ms = u64::from(self.context.config.drain_timeout_ms);
        self.stop_by_ms.get_or_insert(now_ms() + timeout_ms);
        for index in self.context.memory.touched_connections_of_keeper(self.index) {
            if self.context.memory.connections.at(index).claimed() != Claim::Free {
                self.signal_handler(index);
            }
        }
    }
}
