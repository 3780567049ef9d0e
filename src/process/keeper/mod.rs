//! A keeper: holds a duplicate of each of its clients' sockets, and sees to it that each has a handler, again and again if need be.
//!
//! It must never register a client's socket in its poll (events would wake it for every byte of a thousand clients), never take
//! a lock (a stuck lobby must not keep handlers from being replaced), and never run game or protocol code (nothing a client
//! sends can kill it). It keeps few pages and few files, since every fork copies them.

mod adoption;
mod assign;
mod handlers;
mod liveness;
mod prefork;
mod spawn;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::Signal;

use crate::limits::{ACCEPT_RETRY_MS, HANDSHAKE_BYTES_MAX, MAKE_WAY_TIMEOUT_MS, NEWCOMERS_AT_ONCE_MAX};
use crate::maintenance::crash_policy::CrashHistory;
use crate::process::admission::Refusal;
use crate::process::ipc::KeeperMessage;
use crate::process::keeper::handlers::HandlerSet;
use crate::process::keeper::prefork::PreforkPolicy;
use crate::process::keeper::spawn::PendingRespawn;
use crate::process::listener::send_refusal;
use crate::process::process_table::{Context, LivenessHandle, RoleStart};
use crate::state::connections::{Claim, ConnectionRecord, KINDS, Kind};
use crate::state::header::KeeperSlot;
use shmem::sys::clock::now_ms;
use shmem::sys::process::ProcessId;
use shmem::sys::signals::Signals;
use shmem::sys::sockets::{ChannelError, ReceiveOutcome, receive_into};

const CONNECTIONS: Token = Token(0);
const SIGNALS: Token = Token(1);
const DOORBELL: Token = Token(2);
const LIFELINE: Token = Token(3);
/// From here on: the end of an adopted handler, by its pid.
const FIRST_ADOPTED: usize = 16;

/// The role's entry.
pub(crate) fn run(start: &RoleStart) -> io::Result<u8> {
    let ipc = start.context.ipc;
    let mine = &ipc.keepers[start.index as usize];
    let mut keep = vec![
        mine.receiver.as_fd(),
        // For the handlers: who outlives this process offers itself to the next. And for this process, when it makes way.
        mine.sender.as_fd(),
        ipc.lifeline.as_fd(),
        ipc.ready.as_fd(),
    ];
    // For the handlers, which inherit them.
    keep.extend(ipc.doorbells.for_clients());
    start.close_all_except(&keep)?;
    // SIGUSR1 is blocked for the handlers' sake: they inherit the mask, and may be sent it before they listen.
    let signals = Signals::block(&[Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGUSR1])?;
    let mut keeper = Keeper::new(start, signals)?;
    start.report_ready();
    keeper.serve()
}

struct Keeper {
    context: Context,
    liveness: LivenessHandle,
    watch: liveness::HandlerMarks,
    index: u32,
    epoch: u32,
    signals: Signals,
    poll: Poll,
    /// By the connection's index.
    held: HashMap<u32, HeldConnection>,
    handlers: HandlerSet,
    /// Connections that have lost their handlers and have no other yet.
    pending_respawns: VecDeque<PendingRespawn>,
    spares: PreforkPolicy,
    /// Slots that were free when this process last looked.
    free: Vec<u32>,
    /// Connections of a former keeper's, until their sockets have come: from itself, or from the handlers that live on.
    to_adopt: Vec<u32>,
    /// Connections of theirs whose handlers have not been asked in this round: of each handler the first, and how many it has.
    handlers_to_request: VecDeque<(u32, usize)>,
    /// When the next round begins.
    next_adoption_round_ms: u64,
    /// Adopted handlers that run the program before an upgrade, by pid.
    outdated: VecDeque<u32>,
    /// When the next of them is replaced.
    replace_outdated_at_ms: u64,
    /// When connections are taken again, after there were more than one look takes or resources were wanting: those that wait are not
    /// announced anew.
    receive_again_at_ms: Option<u64>,
    /// Another keeper is to take this one's place, as soon as everybody has a handler, and at this time at the latest.
    transfer_deadline_ms: Option<u64>,
    /// Connections that it has left in the channel for the next.
    transferred: HashSet<u32>,
    /// When what is left is killed; set when the server stops.
    stop_by_ms: Option<u64>,
}

/// A connection in this keeper's hands.
struct HeldConnection {
    socket: OwnedFd,
    /// Pid of its handler. 0: it has none at this moment.
    handler: u32,
    /// Pid of the handler that was promised it, and has it as soon as its present one lets go.
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

/// What there is to do.
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
        // From here on the connections of a predecessor are known to be nobody's.
        let epoch = slot.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        let outliving = context.memory.outliving(start.index);
        for kind in KINDS {
            slot.occupancy(kind).begin(outliving[kind as usize]);
        }
        slot.handlers.store(0, Ordering::Relaxed);
        slot.spare_handlers.store(0, Ordering::Relaxed);
        // An operator's connection is not adopted: it holds nothing, and is made again in a moment.
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
            watch: liveness::HandlerMarks::default(),
            index: start.index,
            epoch,
            signals,
            poll,
            held: HashMap::new(),
            handlers: HandlerSet::new(context.config),
            pending_respawns: VecDeque::new(),
            spares: PreforkPolicy::new(context.config.spare_handlers, now_ms()),
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
            self.watch_handlers();
            self.request_sockets();
            self.replace_outdated();
            if self.receive_again_at_ms.is_some_and(|at_ms| at_ms <= now_ms()) {
                self.receive_connections()?;
            }
            self.respawn_pending();
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
                    match event {
                        // If they are to be taken again anyway, others come first; if this process makes way, the next takes them.
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
                        // How they have died is known here; the next keeper sees only that they are dead.
                        Event::Stop if !self.server_is_stopping() => {
                            self.reap_handlers();
                            self.receive_again_at_ms = None;
                            self.transfer_deadline_ms = Some(now_ms() + MAKE_WAY_TIMEOUT_MS);
                        }
                        Event::Stop => {
                            if self.transfer_deadline_ms.take().is_some() {
                                // Those that wait were left for the next keeper, which will not come.
                                self.receive_again_at_ms = Some(now_ms());
                            }
                            self.stop();
                        }
                        Event::SupervisorGone => return Ok(1),
                    }
                }
            }
            if let Some(stop_by_ms) = self.stop_by_ms {
                self.retire_idle(u32::MAX);
                if self.held.is_empty() && self.handlers.is_empty() {
                    return Ok(0);
                }
                if stop_by_ms <= now_ms() {
                    self.kill_handlers();
                }
            }
        }
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
        let take_again_ms = self
            .receive_again_at_ms
            .map(|at_ms| at_ms.saturating_sub(now_ms()));
        let stop_ms = self
            .stop_by_ms
            .map(|stop_by_ms| stop_by_ms.saturating_sub(now_ms()).max(10));
        self.adoption_due_ms()
            .into_iter()
            .chain(replace_ms)
            .chain(take_again_ms)
            .chain(stop_ms)
            .chain(self.watch_again_ms())
            .chain(self.spares_due_ms())
            .chain(self.respawn_due_ms())
            .min()
            .map(Duration::from_millis)
    }

    /// Takes what waits in the channel: from the listener, from handlers that live on, and from a predecessor.
    fn receive_connections(&mut self) -> io::Result<()> {
        let mut by_dead_handler = HashMap::new();
        let taken = self.receive_messages(&mut by_dead_handler);
        for (dead, connections) in by_dead_handler {
            self.replace_dead(dead, connections);
        }
        taken
    }

    /// Those whose handlers have died meanwhile are collected, so that a set of them has one successor.
    fn receive_messages(&mut self, by_dead_handler: &mut HashMap<ProcessId, Vec<u32>>) -> io::Result<()> {
        let ipc = self.context.ipc;
        let channel = &ipc.keepers[self.index as usize].receiver;
        let slot = self.slot();
        let sent_before = KINDS.map(|kind| slot.sent(kind));
        let mut message = [0; KeeperMessage::BYTES_MAX];
        self.receive_again_at_ms = None;
        let mut newcomers = 0;
        loop {
            // Whoever has lost a handler comes in between. (Who is adopted counts for nothing here: if its handler died now, nobody
            // would know.)
            if newcomers == NEWCOMERS_AT_ONCE_MAX {
                self.receive_again_at_ms = Some(now_ms());
                return Ok(());
            }
            self.liveness.report();
            match channel.receive(&mut message) {
                Ok(ReceiveOutcome::Message { bytes, descriptors }) => {
                    match KeeperMessage::decode(&message[..bytes]) {
                        Some(KeeperMessage::New { kind, number, order }) => {
                            for socket in descriptors {
                                newcomers += 1;
                                self.accept_connection(kind, order, socket);
                                // One of them is here; whatever is missing before it is so for good.
                                let new = slot.occupancy(kind).set_taken_up_to(number);
                                self.count_lost(new.saturating_sub(1));
                            }
                        }
                        Some(KeeperMessage::Adopt { connections }) => {
                            for (connection, socket) in connections.into_iter().zip(descriptors) {
                                if let Some(dead) = self.adopt(connection, socket) {
                                    by_dead_handler.entry(dead).or_default().push(connection.index());
                                }
                            }
                        }
                        None => log::error!("a message to the keeper was malformed"),
                    }
                }
                Ok(ReceiveOutcome::WouldBlock | ReceiveOutcome::PeerGone) => break,
                // Nothing is lost: all that wait there are taken in a moment.
                Err(error @ ChannelError::System { .. }) => {
                    log::error!(
                        "cannot take connections from the listener: {error}; trying again in {ACCEPT_RETRY_MS} ms"
                    );
                    self.receive_again_at_ms = Some(now_ms() + ACCEPT_RETRY_MS);
                    return Ok(());
                }
                // A new client sees a reset and tries again. Whom a handler serves is asked for again.
                Err(error) => log::error!("sockets were lost on their way here: {error}"),
            }
        }
        // All that were sent before have come, or will not: a predecessor has died over them.
        for (kind, sent) in KINDS.into_iter().zip(sent_before) {
            self.count_lost(slot.occupancy(kind).set_taken_up_to(sent));
        }
        slot.settle();
        Ok(())
    }

    /// Connections that a predecessor had in hand when it died, or whose descriptor did not come.
    fn count_lost(&self, connections: u32) {
        let lost = &self.context.memory.header.lost_before_greeting_total;
        lost.fetch_add(connections.into(), Ordering::Relaxed);
    }

    fn refuse(&self, kind: Kind, socket: &OwnedFd, refusal: Refusal) {
        self.context
            .memory
            .header
            .refused_total
            .fetch_add(1, Ordering::Relaxed);
        send_refusal(kind, socket, refusal);
        // Closed with bytes unread, the kernel would send a reset, and the reason could be lost.
        let mut ignored = [0; HANDSHAKE_BYTES_MAX];
        let _ = receive_into(socket, &mut ignored);
    }

    fn claim_slot(&mut self, kind: Kind, peer: SocketAddr) -> Option<(u32, &'static ConnectionRecord)> {
        let memory = self.context.memory;
        loop {
            // What was free when it was noted may be in use again.
            while let Some(index) = self.free.pop() {
                let record = memory.connections.at(index);
                if record.claim(kind, peer, self.epoch, now_ms()) {
                    return Some((index, record));
                }
            }
            let touched = memory.touched_connections_of_keeper(self.index);
            let is_free = |index: &u32| memory.connections.at(*index).claimed() == Claim::Free;
            self.free.extend(touched.clone().filter(is_free));
            if self.free.is_empty() {
                let all = memory.connections_of_keeper(self.index);
                if touched.end == all.end {
                    return None;
                }
                memory
                    .keeper_of(touched.end)
                    .set_slots_touched(touched.end + 1 - all.start);
                self.free.push(touched.end);
            }
        }
    }

    /// What others see of this keeper.
    fn slot(&self) -> &'static KeeperSlot {
        &self.context.memory.header.keepers[self.index as usize]
    }

    /// Makes the handlers look at their flags for whom somebody has left word.
    fn forward_attention(&self) {
        let first = self.context.memory.connections_of_keeper(self.index).start;
        let words = &self.slot().attention;
        for (word_index, word) in (0_u32..).zip(words) {
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                if !self.signal_handler(first + word_index * 64 + bits.trailing_zeros()) {
                    // The ticker rings again while word is left.
                    word.fetch_or(bits & bits.wrapping_neg(), Ordering::AcqRel);
                }
                bits &= bits - 1;
            }
        }
    }

    /// Sends a handler the signal that makes it look at its flags: one of this process's, or a predecessor's that lives on. False if that
    /// must be tried again.
    fn signal_handler(&self, index: u32) -> bool {
        let Some(handler) = self.context.memory.connections.at(index).handler() else {
            return true;
        };
        // One that is dead needs no nudge: its successor looks at everything.
        let sent = handler.send_signal(Signal::SIGUSR1);
        if let Err(error) = &sent {
            log::warn!("cannot signal handler {handler}: {error}");
        }
        sent.is_ok()
    }

    /// Shows operators how many handlers there are.
    fn publish_counts(&self) {
        let slot = self.slot();
        let for_players = self
            .handlers
            .len()
            .saturating_sub(slot.occupancy(Kind::Console).held());
        slot.handlers.store(for_players, Ordering::Relaxed);
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
