//! The tickers: do what happens by time and not by a message.
//!
//! Each of them runs the timers of rooms (ticks, turn clocks, reservations), and serves requests for the rooms'
//! doorbells: any ticker does that for any room ([`due_rooms`]). The first one also does the upkeep: it ends the seats
//! of players whose grace is over, frees what dead processes held, and rings doorbells again that were lost.
//!
//! A ticker must never hold two locks, nor wait for a room whose lock another process holds: its game may take long,
//! and every other room would wait with it. What is to happen in such a room is left for the next round.

mod due_rooms;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::Signal;
use shmem::mutants::Mutant;
use shmem::sys::signals::Signals;
use shmem::sys::sockets::{Channel, ChannelError, ReceiveOutcome};
use shmem::sys::timer::Timer;

use crate::limits::{
    DOORBELL_RETRY_MS, EXPIRY_INTERVAL_MS, LOCK_WAIT_REPORT_MS, ORPHAN_AFTER_MS, TICK_IDLE_MS, TICK_MS,
};
use crate::lobby::listing;
use crate::lobby::match_play::{self, RoomTimers};
use crate::maintenance::crash_attribution::{self, TickerCrash};
use crate::maintenance::expiry;
use crate::process::process_table::{Context, LivenessHandle, RoleStart};
use crate::process::ticker::due_rooms::DueRooms;
use crate::session::rejection::Rejection;
use crate::state::budget::now_us;
use crate::state::connections::{KINDS, Kind};
use crate::state::handle::StateHandle;
use crate::state::roles::Role;
use crate::state::room_label::{RoomLabel, room_number};
use crate::state::running_game::is_run_elsewhere;

const SIGNALS: Token = Token(0);
const LIFELINE: Token = Token(1);
const DOORBELL_REQUESTS: Token = Token(2);
const TIMER: Token = Token(3);

/// Requests for doorbells that are served before the ticker looks at its rooms and shows that it makes progress.
const REQUESTS_PER_ROUND: u32 = 256;
/// Parts of a sweep over the players that are done in one round.
const SWEEP_PARTS_PER_ROUND: u32 = 8;

/// The role's entry.
pub(crate) fn run(start: &RoleStart) -> io::Result<u8> {
    let ipc = start.context.ipc;
    let mut keep = vec![
        ipc.lifeline.as_fd(),
        ipc.ready.as_fd(),
        ipc.doorbells.requests.receiver.as_fd(),
        ipc.doorbells.chat.as_fd(),
    ];
    keep.extend(ipc.doorbells.rooms.iter().map(AsFd::as_fd));
    keep.extend(ipc.doorbells.keepers.iter().map(AsFd::as_fd));
    start.keep_only(&keep)?;
    let signals = Signals::block(&[Signal::SIGTERM])?;
    let mut ticker = Ticker::new(start, signals)?;
    start.report_ready();
    ticker.serve()
}

struct Ticker {
    context: Context,
    /// Its number among the tickers.
    number: u32,
    /// Wakes it up when a room is due.
    timer: Timer,
    /// Due rooms whose lock another process holds, and since when, or since it was reported, in microseconds.
    busy_since_us: HashMap<u32, u64>,
    due_rooms: DueRooms,
    /// When it looks at all rooms again.
    next_look_us: u64,
    liveness: LivenessHandle,
    state: StateHandle,
    signals: Signals,
    poll: Poll,
    /// Rooms with unannounced events, and since when.
    unannounced_since_ms: HashMap<u32, u64>,
    /// Since when the lobby's chat has had unannounced lines.
    chat_unannounced_since_ms: Option<u64>,
    /// Connections that seem to be orphaned, and since when.
    orphans: HashMap<u32, u64>,
    next_sweep_ms: u64,
    /// The player's record with which the sweep goes on; `None` between two sweeps.
    sweep_from: Option<u32>,
    /// Requests for doorbells are left, and the poll does not announce them again.
    requests_left: RequestsLeft,
}

/// Whether requests for doorbells are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestsLeft {
    /// None, as far as is known.
    None,
    /// A round has served as many as it may.
    More,
    /// They could not be received, and are tried again later.
    Later,
}

impl Ticker {
    fn new(start: &RoleStart, signals: Signals) -> io::Result<Self> {
        let context = start.context;
        let poll = Poll::new()?;
        let timer = Timer::new()?;
        for (descriptor, token) in [
            (signals.as_fd(), SIGNALS),
            (context.ipc.lifeline.as_fd(), LIFELINE),
            (context.ipc.doorbells.requests.receiver.as_fd(), DOORBELL_REQUESTS),
            (timer.as_fd(), TIMER),
        ] {
            poll.registry()
                .register(&mut SourceFd(&descriptor.as_raw_fd()), token, Interest::READABLE)?;
        }
        let state = StateHandle::attach(context.memory, context.games);
        Ok(Self {
            context,
            number: start.index,
            timer,
            busy_since_us: HashMap::new(),
            due_rooms: DueRooms::new(start.index, Role::Ticker.count(context.config)),
            next_look_us: 0,
            liveness: start.liveness(),
            state,
            signals,
            poll,
            unannounced_since_ms: HashMap::new(),
            chat_unannounced_since_ms: None,
            orphans: HashMap::new(),
            next_sweep_ms: 0,
            sweep_from: None,
            requests_left: RequestsLeft::None,
        })
    }

    fn serve(&mut self) -> io::Result<u8> {
        let mut events = Events::with_capacity(8);
        self.attribute_predecessor_crash();
        self.serve_doorbell_requests();
        loop {
            let timeout = match self.requests_left {
                RequestsLeft::More => Some(Duration::ZERO),
                RequestsLeft::Later => Some(Duration::from_millis(TICK_MS)),
                RequestsLeft::None => None,
            };
            let next_us = self.due_rooms.next_look_us().unwrap_or(u64::MAX);
            self.timer.set_at_us(next_us.min(self.next_look_us))?;
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            self.liveness.report();
            for event in &events {
                match event.token() {
                    DOORBELL_REQUESTS => self.serve_doorbell_requests(),
                    SIGNALS if self.signals.read()?.is_some() => return Ok(0),
                    LIFELINE => return Ok(1),
                    _ => {}
                }
            }
            if self.requests_left != RequestsLeft::None {
                self.serve_doorbell_requests();
            }
            self.run_due_rooms();
            let now_us = now_us();
            if now_us >= self.next_look_us {
                self.look_at_rooms(now_us);
                if self.does_upkeep() {
                    self.do_upkeep(now_us / 1000);
                }
            }
        }
    }

    /// Whether this ticker also does the upkeep. One process alone must do it: it owns the records of players that it
    /// removes.
    fn does_upkeep(&self) -> bool {
        self.number == 0
    }

    /// Finds the rooms that are due before the next look.
    fn look_at_rooms(&mut self, now_us: u64) {
        let memory = self.context.memory;
        self.due_rooms.begin(now_us + TICK_MS * 1000);
        let mut first_due_us = u64::MAX;
        for index in memory.directory.visited_rooms(0) {
            let record = memory.rooms.at(index);
            if record.open_generation().is_some() {
                first_due_us = first_due_us.min(record.due_us());
                self.due_rooms.enter(index, record, now_us);
            }
        }
        // The first match after a pause is found in time by the ticker that does the upkeep.
        let is_idle = first_due_us > now_us + TICK_IDLE_MS * 1000 && !self.does_upkeep();
        self.next_look_us = now_us + 1000 * if is_idle { TICK_IDLE_MS } else { TICK_MS };
    }

    /// Runs the timers that are due, of rooms that no other process is busy with.
    fn run_due_rooms(&mut self) {
        for index in self.due_rooms.take_due(now_us()) {
            // A thousand rooms that each take their time take long.
            self.liveness.report();
            let record = self.context.memory.rooms.at(index);
            let now_us = now_us();
            // Another ticker was quicker, or the room has become suspect.
            let is_left = !record.is_due(now_us) || self.due_rooms.is_left_to_another(record, now_us);
            if is_left || self.run_room(index, now_us) {
                self.busy_since_us.remove(&index);
                self.due_rooms.enter(index, record, now_us);
                continue;
            }
            let since_us = self.busy_since_us.entry(index).or_insert(now_us);
            if now_us - *since_us >= LOCK_WAIT_REPORT_MS * 1000 {
                // No ticker waits for the lock, so nobody else reports a holder that hangs.
                *since_us = now_us;
                self.state.attachment.report_held(record);
            }
            self.due_rooms.retry(index, now_us);
        }
    }

    /// Runs the room's timers; false if there is nothing to do at this moment: another process is busy with the room.
    fn run_room(&mut self, index: u32, now_us: u64) -> bool {
        let memory = self.context.memory;
        let own_mark = &memory.header.running_games[self.number as usize];
        if is_run_elsewhere(memory, own_mark, index) {
            return false;
        }
        let run = match_play::run_room_timers(&mut self.state, index, now_us);
        // Also if the room is busy: a reservation may have expired a moment before.
        let log = &memory.rooms.at(index).log;
        self.context.ipc.doorbells.ring_room(index, log);
        for fault in self.state.take_faults() {
            fault.enter(memory);
            log::warn!("the game keeps others waiting: {fault}");
        }
        match run {
            // A room that says that it is due, and is not, must not keep the ticker awake.
            Ok(RoomTimers::Busy | RoomTimers::NotDue) => return false,
            Ok(RoomTimers::Done) => {}
            Err(Rejection {
                fault: Some(fault), ..
            }) => {
                fault.enter(memory);
                log::error!("the game failed as time passed, and the match is abandoned: {fault}");
            }
            Err(rejection) => log::error!(
                "the game in {} failed as time passed, and the match is abandoned: {rejection}",
                self.label(index)
            ),
        }
        true
    }

    fn do_upkeep(&mut self, now_ms: u64) {
        for index in self.context.memory.directory.visited_rooms(0) {
            self.liveness.report();
            self.ring_overdue_room(index, now_ms);
        }
        self.ring_overdue_chat(now_ms);
        self.ring_overdue_keepers();
        if now_ms >= self.next_sweep_ms {
            self.next_sweep_ms = now_ms + EXPIRY_INTERVAL_MS;
            self.sweep_from.get_or_insert(0);
            for index in self.context.memory.directory.visited_rooms(0) {
                self.liveness.report();
                expiry::free_room_if_closed(&mut self.state, index);
            }
            self.free_orphans(now_ms);
            self.finish_drain(now_ms);
            let left = crash_attribution::attribute_crash_without_successor(&mut self.state);
            self.tell_crash(left);
        }
        self.sweep_players(now_ms);
    }

    /// Goes on with the sweep over the players, for a while.
    fn sweep_players(&mut self, now_ms: u64) {
        for _ in 0..SWEEP_PARTS_PER_ROUND {
            let Some(first) = self.sweep_from else { return };
            self.liveness.report();
            let (doorbells, next) = expiry::expire_some_players(&mut self.state, first, now_ms);
            self.sweep_from = next;
            for room in doorbells {
                self.context
                    .ipc
                    .doorbells
                    .ring_room(room, &self.context.memory.rooms.at(room).log);
            }
            for fault in self.state.take_faults() {
                fault.enter(self.context.memory);
                log::warn!("the game's code failed when a player left: {fault}");
            }
        }
    }

    fn label(&self, room: u32) -> RoomLabel {
        RoomLabel::published(self.context.memory, self.context.games, room)
    }

    /// Attributes the predecessor's death to a room, if it died while it ran that room's game.
    fn attribute_predecessor_crash(&mut self) {
        let number = self.number as usize;
        let crash = crash_attribution::attribute_ticker_crash(&mut self.state, number);
        self.tell_crash(crash);
    }

    /// Tells of a ticker's death in a game, in the log and to the room whose match is abandoned.
    fn tell_crash(&self, crash: Result<Option<TickerCrash>, Rejection>) {
        match crash {
            Ok(None) => {}
            Ok(Some(TickerCrash::Counted { room, crashes })) => log::warn!(
                "a ticker ended while it ran the game in {} ({crashes} such crashes recently)",
                self.label(room.index())
            ),
            Ok(Some(TickerCrash::MatchAbandoned { room })) => {
                log::error!(
                    "the game in {} has ended one ticker after another, and the match is abandoned",
                    self.label(room.index())
                );
                let record = self.context.memory.rooms.at(room.index());
                self.context.ipc.doorbells.ring_room(room.index(), &record.log);
            }
            Err(rejection) => log::error!("a match cannot be abandoned: {rejection}"),
        }
    }

    /// Rings for a room whose events have been unannounced for too long: the process that should have rung has died.
    fn ring_overdue_room(&mut self, index: u32, now_ms: u64) {
        let log = &self.context.memory.rooms.at(index).log;
        if log.unannounced_head().is_none() || Mutant::NoSecondRing.is_active() {
            self.unannounced_since_ms.remove(&index);
        } else if now_ms - *self.unannounced_since_ms.entry(index).or_insert(now_ms) >= DOORBELL_RETRY_MS {
            self.context.ipc.doorbells.ring_room(index, log);
            self.context
                .memory
                .header
                .doorbells_rung_again_total
                .fetch_add(1, Ordering::Relaxed);
            self.unannounced_since_ms.remove(&index);
        }
    }

    /// As [`Ticker::ring_overdue_room`], for the lobby's chat.
    fn ring_overdue_chat(&mut self, now_ms: u64) {
        let chat = self.context.memory.chat;
        if chat.log.unannounced_head().is_none() {
            self.chat_unannounced_since_ms = None;
        } else if now_ms - *self.chat_unannounced_since_ms.get_or_insert(now_ms) >= DOORBELL_RETRY_MS {
            self.context.ipc.doorbells.ring_chat(&chat.log);
            self.context
                .memory
                .header
                .doorbells_rung_again_total
                .fetch_add(1, Ordering::Relaxed);
            self.chat_unannounced_since_ms = None;
        }
    }

    /// Rings for keepers with notifications to look at: the doorbell may have been lost when the process that left
    /// them died.
    fn ring_overdue_keepers(&self) {
        for (keeper, slot) in (0..).zip(&self.context.memory.header.keepers[..self.context.ipc.keepers.len()])
        {
            let mut words = slot.attention.iter().chain(&slot.notifications);
            if words.any(|word| word.load(Ordering::Relaxed) != 0) {
                self.context.ipc.doorbells.ring_keeper(keeper);
            }
        }
    }

    /// Tells the supervisor to stop the server when it drains and the last match or the time is over.
    fn finish_drain(&mut self, now_ms: u64) {
        let header = self.context.memory.header;
        let until_ms = header.drain_until_ms.load(Ordering::Acquire);
        if until_ms == 0 || header.stopping.load(Ordering::Acquire) != 0 {
            return;
        }
        let matches = listing::matches_under_way(&self.state);
        if matches != 0 && now_ms < until_ms {
            return;
        }
        if header.drained.swap(1, Ordering::AcqRel) == 0 {
            log::info!("the drain is over, with {matches} matches under way");
        }
        // Repeated until the supervisor stops the server.
        if let Err(error) = self.context.signal_supervisor(rustix::process::Signal::USR1) {
            log::error!("cannot signal the supervisor: {error}");
        }
    }

    fn free_orphans(&mut self, now_ms: u64) {
        let orphaned = expiry::orphaned_connections(&self.state);
        self.orphans
            .retain(|index, _| orphaned.binary_search(index).is_ok());
        for index in orphaned {
            self.liveness.report();
            if now_ms - *self.orphans.entry(index).or_insert(now_ms) < ORPHAN_AFTER_MS {
                continue;
            }
            self.orphans.remove(&index);
            if !expiry::claim_orphan(&self.state, index) {
                continue;
            }
            // An operator's connection that an upgrade has left with the old program ends like this: nothing was lost.
            let level = match self.context.memory.connections.at(index).kind() {
                Kind::Console => log::Level::Debug,
                Kind::Game => log::Level::Info,
            };
            log::log!(level, "connection {index} has ended, and its place is free again");
            if let Some(keeper) = expiry::free_connection(&mut self.state, index) {
                self.context.ipc.doorbells.ring_keeper(keeper);
            }
        }
        self.recount_orphaned();
    }

    /// Counts again the connections that live on without a keeper: some may have ended while no keeper was there to
    /// count that.
    fn recount_orphaned(&self) {
        let memory = self.context.memory;
        for keeper in 0..self.context.config.keepers {
            let slot = &memory.header.keepers[keeper as usize];
            let before = KINDS.map(|kind| slot.connection_counts(kind).snapshot());
            let orphaned_counts = memory.orphaned_counts(keeper);
            for (kind, before) in KINDS.into_iter().zip(before) {
                slot.connection_counts(kind)
                    .set_orphaned(orphaned_counts[kind as usize], before);
            }
        }
    }

    /// Answers requests for the doorbell of a room.
    fn serve_doorbell_requests(&mut self) {
        let requests = &self.context.ipc.doorbells.requests.receiver;
        self.requests_left = RequestsLeft::None;
        for _ in 0..REQUESTS_PER_ROUND {
            let mut room = [0; 4];
            match requests.receive(&mut room) {
                Ok(ReceiveOutcome::Message {
                    bytes: 4,
                    descriptors,
                }) => {
                    let room = u32::from_le_bytes(room);
                    for answers in descriptors.into_iter().map(Channel::from) {
                        self.send_doorbell(room, &answers);
                    }
                }
                Ok(ReceiveOutcome::Message { .. }) => log::error!("a request for a doorbell was malformed"),
                Ok(ReceiveOutcome::WouldBlock | ReceiveOutcome::PeerGone) => return,
                Err(error @ ChannelError::System { .. }) => {
                    log::error!(
                        "cannot receive questions for doorbells: {error}; trying again in {TICK_MS} ms"
                    );
                    self.requests_left = RequestsLeft::Later;
                    return;
                }
                // The requester sees its channel closed, and asks again.
                Err(error) => log::error!("a request for a doorbell was lost: {error}"),
            }
        }
        self.requests_left = RequestsLeft::More;
    }

    fn send_doorbell(&self, room: u32, answers: &Channel) {
        let Some(doorbell) = self.context.ipc.doorbells.rooms.get(room as usize) else {
            log::error!(
                "the doorbell of room {} was requested, which does not exist",
                room_number(room)
            );
            return;
        };
        if let Err(error) = answers.send(&[1], &[doorbell.as_fd()]) {
            log::warn!("cannot send the doorbell of room {}: {error}", room_number(room));
        }
        // The requester may have entered the room with events for others and had no doorbell to ring.
        if !Mutant::NoSecondRing.is_active() {
            self.context
                .ipc
                .doorbells
                .ring_room(room, &self.context.memory.rooms.at(room).log);
        }
    }
}
