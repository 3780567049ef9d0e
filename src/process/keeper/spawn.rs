//! Forking handlers: for new connections, ahead of need, and as successors of handlers that died.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;

use crate::limits::{PENALTY_CRASH_US, TAKEOVER_BATCH_MAX, TAKEOVER_RETRY_MS, TAKEOVER_TRIES_MAX};
use crate::maintenance::crash_attribution;
use crate::maintenance::crash_policy::{Crash, RestartDecision, WatchdogKill, regroup};
use crate::process::handler::{self, HandlerArgs, Start};
use crate::process::keeper::Keeper;
use crate::process::keeper::handlers::{HandlerEntry, Purpose};
use crate::process::process_table::Context;
use crate::state::connections::{Kind, ServedBy};
use crate::state::incidents::IncidentKind;
use crate::state::layout::ConnectionRef;
use crate::state::layout::RoomRef;
use crate::state::room_label::RoomLabel;
use shmem::sys::clock::now_ms;
use shmem::sys::process::{ChildEvent, Exit, ForkError, ProcessId, Reaped, child_events, fork};
use shmem::sys::sockets::{Channel, shut_down};

/// Why a handler could not be forked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("cannot duplicate a socket for it: {0}")]
    Duplicate(#[source] io::Error),
    #[error("cannot make a channel for it: {0}")]
    Channel(#[source] io::Error),
    #[error("{0}")]
    Fork(#[from] ForkError),
    #[error("all receptions are full")]
    TooManyReceptions,
}

/// Connections that have lost their handler and wait for a new one: for their turn, or for the resources that a
/// process needs.
pub(crate) struct PendingRespawn {
    connections: Vec<u32>,
    purpose: Purpose,
    tries_left: u32,
    /// When the next try is due, in milliseconds of the monotonic clock.
    at_ms: u64,
}

impl PendingRespawn {
    /// They get a handler as soon as possible.
    pub(crate) fn new(connections: Vec<u32>, purpose: Purpose) -> Self {
        Self {
            connections,
            purpose,
            tries_left: TAKEOVER_TRIES_MAX,
            at_ms: 0,
        }
    }
}

impl Keeper {
    /// Whether running handlers are given players: they serve several, one after another or at once, or are
    /// forked ahead of need.
    pub(crate) fn assigns_connections(&self) -> bool {
        let config = self.context.config;
        config.handler_life > 1 || config.spare_handlers.max > 0
    }

    /// Forks a handler for connections that this keeper holds.
    pub(crate) fn spawn_handler(
        &mut self,
        connections: Vec<u32>,
        purpose: Purpose,
        start: Start,
    ) -> Result<ProcessId, SpawnError> {
        let duplicate = |index: &u32| {
            let (held, record) = (&self.held[index], self.context.memory.connections.at(*index));
            Ok((record.reference(*index), held.socket.try_clone()?))
        };
        let sockets = connections
            .iter()
            .map(duplicate)
            .collect::<io::Result<Vec<(ConnectionRef, OwnedFd)>>>()
            .map_err(SpawnError::Duplicate)?;
        let (mine, theirs) = match purpose.needs_channel() {
            true => Channel::pair()
                .map(|(mine, theirs)| (Some(mine), Some(theirs)))
                .map_err(SpawnError::Channel)?,
            false => (None, None),
        };
        let (context, keeper) = (self.context, self.index);
        let process = fork(forkade_games::panics::log_panic, move |new_process| {
            let args = HandlerArgs {
                context,
                keeper,
                connections: sockets,
                start,
                is_reception: purpose.is_reception,
                assignments: theirs,
            };
            handler::run(&new_process, args)
        })?;
        if start == Start::Takeover {
            let player = match connections[..] {
                [index] => context.memory.connections.at(index).player_name(),
                _ => String::new(),
            };
            let peers = connections.iter().take(1);
            let peers = peers.map(|index| context.memory.connections.at(*index).peer().to_string());
            context.memory.incidents.enter(
                IncidentKind::Takeover,
                (process.pid, None),
                &player,
                format_args!(
                    "handler {process} goes on with {} connections: {}",
                    connections.len(),
                    peers.collect::<String>()
                ),
            );
        }
        self.evict_stale_pid(process);
        for index in &connections {
            let Some(held) = self.held.get_mut(index) else {
                continue;
            };
            if let Start::Move { .. } = start {
                held.moves_to = Some(process.pid);
                continue;
            }
            (held.handler, held.moves_to) = (process.pid, None);
            context.memory.connections.at(*index).set_handler(ServedBy {
                process,
                build: context.build,
                is_reception: purpose.is_reception,
            });
        }
        let entry = HandlerEntry::new(process, connections, mine, purpose, context.config);
        self.handlers.insert(entry);
        Ok(process)
    }

    /// Forks a reception if none has room, and spare handlers, and retires those beyond need.
    pub(crate) fn maintain_spares(&mut self) {
        let now = now_ms();
        if self.stop_by_ms.is_some() {
            return;
        }
        if self.handlers.pick_reception().is_none()
            && self.handlers.has_room_for_reception()
            && self.prefork.may_fork(now)
            && let Err(error) = self.spawn_handler(Vec::new(), Purpose::RECEPTION, Start::New)
        {
            log::warn!("cannot fork a reception ahead: {error}");
            self.prefork.fork_failed(now);
        }
        self.handlers.retire_surplus_receptions();
        if !self.assigns_connections() {
            return;
        }
        let retire_count = self.prefork.retire_count(self.handlers.idle(), now);
        self.retire_idle(retire_count);
        let purpose = Purpose {
            is_reception: false,
            takes_more: true,
        };
        for _ in 0..self.prefork.to_fork(self.handlers.idle(), now) {
            if let Err(error) = self.spawn_handler(Vec::new(), purpose, Start::New) {
                log::warn!("cannot fork a handler ahead: {error}");
                self.prefork.fork_failed(now);
            }
        }
    }

    /// When the spare handlers are to be looked at again, in milliseconds from now.
    pub(crate) fn prefork_due_ms(&self) -> Option<u64> {
        let now = now_ms();
        let due_ms = match self.assigns_connections() && self.stop_by_ms.is_none() {
            true => self.prefork.due_ms(self.handlers.idle(), now)?,
            false => return None,
        };
        Some(due_ms.saturating_sub(now))
    }

    /// Retires so many handlers that serve no connection.
    pub(crate) fn retire_idle(&mut self, count: u32) {
        for _ in 0..count.min(self.handlers.idle()) {
            if let Some(pid) = self.handlers.first_idle() {
                // It exits when it sees its channel closed.
                self.handlers.update(pid, |entry| entry.channel = None);
            }
        }
    }

    /// Reaps handlers that have exited, and reports those that were stopped.
    pub(crate) fn reap_handlers(&mut self) {
        for event in child_events() {
            self.liveness.report();
            match event {
                ChildEvent::Exited(Reaped { pid, exit }) => self.on_handler_exit(pid, Some(exit)),
                ChildEvent::Stopped { pid } => {
                    let is_its = |index: &&u32| self.held.get(index).is_some_and(|held| held.handler == pid);
                    let its_first = self
                        .handlers
                        .get(pid)
                        .and_then(|entry| entry.connections.iter().find(is_its));
                    if let Some(index) = its_first {
                        self.report_hang(*index);
                    }
                }
            }
        }
    }

    /// A handler has exited: other handlers go on with its unfinished connections. Without `exit` it was not this
    /// process's child, and its exit status is not known.
    pub(crate) fn on_handler_exit(&mut self, pid: u32, exit: Option<Exit>) {
        let connections = self.handlers.get(pid).map(|entry| entry.connections.clone());
        // Connections may have moved to it or away from it that this keeper has not been notified of.
        for index in connections.unwrap_or_default() {
            self.complete_move(index);
            if self.held.get(&index).is_some_and(|held| held.handler != pid) {
                // The handler that it moved to may not have been signalled.
                self.signal_handler(index);
            }
        }
        let Some(entry) = self.handlers.remove(pid) else {
            return;
        };
        let memory = self.context.memory;
        let (over, left): (Vec<u32>, Vec<u32>) = entry
            .connections
            .iter()
            .filter(|index| self.was_serving(**index, pid))
            .partition(|index| memory.connections.at(**index).is_over());
        over.into_iter().for_each(|index| self.release_connection(index));
        if left.is_empty() {
            if exit.is_some_and(|exit| exit != Exit::Code(0)) {
                log::warn!("handler {} died, which served no connection", entry.process);
                // If it failed while it started, the next one would, too.
                self.prefork.fork_failed(now_ms());
            }
            return;
        }
        self.replace(&entry, left, exit);
    }

    /// Whether a dead handler served the connection. (It may only have been moving to that handler.)
    fn was_serving(&mut self, index: u32, pid: u32) -> bool {
        let Some(held) = self.held.get_mut(&index) else {
            return false;
        };
        let is_its = held.handler == pid;
        if held.moves_to == Some(pid) {
            held.moves_to = None;
            let record = self.context.memory.connections.at(index);
            if record.is_at_reception() {
                self.retry_greeted(record.reference(index));
            }
        }
        is_its
    }

    /// The handler of these connections is found dead, and is not one that this keeper has tracked.
    pub(crate) fn replace_dead(&mut self, handler: ProcessId, connections: Vec<u32>) {
        let is_at_reception = |index: &u32| self.context.memory.connections.at(*index).is_at_reception();
        let purpose = Purpose {
            is_reception: connections.first().is_some_and(is_at_reception),
            takes_more: false,
        };
        let entry = HandlerEntry::new(handler, connections.clone(), None, purpose, self.context.config);
        self.replace(&entry, connections, None);
    }

    /// A connection has ended: its slot is free.
    pub(crate) fn release_connection(&mut self, index: u32) {
        self.cancel_move(index);
        let Some(held) = self.held.remove(&index) else {
            return;
        };
        self.handlers
            .update(held.handler, |entry| entry.remove_connection(index));
        let kind = self.context.memory.connections.at(index).kind();
        self.free_slot(index, kind);
    }

    pub(crate) fn free_slot(&mut self, index: u32, kind: Kind) {
        self.context.memory.free_connection(index);
        self.free.push(index);
        self.slot().connection_counts(kind).remove();
    }

    /// Gives the connections that a dead handler has left to other handlers.
    fn replace(&mut self, entry: &HandlerEntry, mut left: Vec<u32>, exit: Option<Exit>) {
        let dead = entry.process;
        let how = exit.map_or_else(
            || "adopted: exit status unknown".to_owned(),
            |exit| exit.to_string(),
        );
        let is_crash = !entry.is_replaced && exit != Some(Exit::Code(0));
        let (suspect, crash) = self.crash_of(&left, exit);
        // A reception that was killed from outside was in the middle of somebody's greeting by chance.
        let suspect = suspect.filter(|_| !entry.purpose.is_reception || crash.is_self_inflicted());
        let (mut decision, mut crashes_of_suspect) = (RestartDecision::Replace, 0);
        if is_crash
            && crash.is_self_inflicted()
            && let Some(room) = crash.shown_room
            // Of a room that is switched off nothing of the game runs. If it does, the connection pays.
            && !crash_attribution::is_switched_off(self.context.memory, room)
        {
            self.blame_room(room, crash, &format!("handler {dead} died ({how})"));
        } else if let Some(index) = suspect
            && is_crash
        {
            (decision, crashes_of_suspect) =
                self.enter_crash(index, crash, &format!("handler {dead} died ({how})"));
        }
        if decision == RestartDecision::GiveUp {
            left.retain(|index| Some(*index) != suspect);
        }
        for index in &left {
            self.cancel_move(*index);
            if let Some(held) = self.held.get_mut(index) {
                held.handler = 0;
            }
        }
        if let Some(index) = suspect
            && is_crash
            && !crash.is_external_kill(crashes_of_suspect)
        {
            self.context.memory.connections.at(index).set_suspect();
        }
        let groups = match is_crash {
            true => regroup(left, suspect, crash, crashes_of_suspect),
            false => vec![left],
        };
        if groups.iter().any(|group| !group.is_empty()) {
            let takeovers = &self.context.memory.header.takeovers_total;
            takeovers.fetch_add(1, Ordering::Relaxed);
            match entry.is_replaced {
                true => log::debug!("handler {dead} is replaced"),
                false => log::warn!("handler {dead} died ({how}): replaced"),
            }
        }
        if is_crash {
            let peer = suspect.map(|index| self.context.memory.connections.at(index).peer());
            let player = suspect.map(|index| self.context.memory.connections.at(index).player_name());
            let over = peer.map_or_else(String::new, |peer| format!(" over the client at {peer}"));
            self.context.memory.incidents.enter(
                IncidentKind::Death,
                (dead.pid, crash.shown_room.map(RoomRef::index)),
                &player.unwrap_or_default(),
                format_args!("handler {dead} died ({how}){over}"),
            );
        }
        let is_split = groups.len() > 1;
        for group in groups {
            self.schedule_respawn(group, entry.purpose.is_reception, is_split);
        }
    }

    /// Counts a crash against the room whose game the handler ran in order to show its match.
    fn blame_room(&self, room: RoomRef, crash: Crash, what: &str) {
        let Context { memory, games, .. } = self.context;
        let has_hung = crash.watchdog_kill.is_some();
        let (is_over, crashes) = crash_attribution::attribute_show_crash(memory, room, has_hung);
        let room = RoomLabel::published(memory, games, room.index());
        if is_over {
            log::error!("{what} in view, draw or a description of {room}, which gets no pictures any more");
        } else {
            log::warn!("{what} in view, draw or a description of {room} ({crashes} such crashes recently)");
        }
    }

    /// Enters a crash into the history of the connection that is suspected of it, and carries out what follows for that
    /// connection. Gives the decision, and how many handlers in a row have died in the same frame.
    fn enter_crash(&mut self, suspect: u32, crash: Crash, what: &str) -> (RestartDecision, u32) {
        let Some(held) = self.held.get_mut(&suspect) else {
            return (RestartDecision::Replace, 0);
        };
        let decision = held.crash_history.enter(now_ms(), crash);
        let crashes = held.crash_history.in_same_frame();
        let memory = self.context.memory;
        if decision != RestartDecision::Replace {
            memory.penalise_connection(suspect, PENALTY_CRASH_US);
            memory.header.blocked_frames_total.fetch_add(1, Ordering::Relaxed);
        }
        match decision {
            RestartDecision::Replace => {}
            RestartDecision::RefuseFrame => {
                log::error!("{what} in a frame in which others have died: it is refused");
                let record = memory.connections.at(suspect);
                record.blocked_frame.store(crash.current_frame, Ordering::Release);
            }
            RestartDecision::GiveUp => {
                log::error!("{what} repeatedly: its connection is given up");
                self.abandon_connection(suspect);
            }
        }
        (decision, crashes)
    }

    /// What the records say of the death of a process that served `connections`: which of them it died over, and how.
    fn crash_of(&self, connections: &[u32], exit: Option<Exit>) -> (Option<u32>, Crash) {
        let (mut suspect, mut hang, mut shown) = (None, None, None);
        for index in connections {
            let record = self.context.memory.connections.at(*index);
            if let Some(room) = record.take_shown_room() {
                shown = Some((*index, room));
            }
            let current_frame = match record.kind() {
                // Cleared: if its successor dies before it has come to a frame, this one is not counted again.
                Kind::Game => record.current_frame.swap(0, Ordering::AcqRel),
                // Left for the successor, which tells the operator that something was lost.
                Kind::Console => record.current_frame.load(Ordering::Acquire),
            };
            if current_frame != 0 {
                suspect = Some((*index, current_frame));
            }
            hang = record.take_hang().or(hang);
        }
        let at = suspect.map_or(connections[0], |(index, _)| index);
        let mark_ms = self.context.memory.connections.at(at).last_progress_ms();
        let watchdog_kill = hang.map(|hang| WatchdogKill {
            is_self_inflicted: hang.is_self_inflicted(),
            hung_ms: now_ms().saturating_sub(mark_ms),
        });
        let crash = Crash {
            current_frame: suspect.map_or(0, |(_, frame)| frame),
            exit,
            watchdog_kill,
            shown_room: shown.map(|(_, room)| room),
        };
        // Without a frame or a room, only a connection that was served alone can be suspected.
        let alone = || (connections.len() == 1).then(|| connections[0]);
        let suspect = suspect.map(|(index, _)| index).or(shown.map(|(index, _)| index));
        (suspect.or_else(alone), crash)
    }

    /// Gives connections whose handler has died another one. That gets no further connections if one of these is a
    /// suspect, or may be: if they are a part of a set that was split.
    fn schedule_respawn(&mut self, group: Vec<u32>, is_reception: bool, is_part: bool) {
        if group.is_empty() {
            return;
        }
        let may_have_company = |index: &u32| {
            let record = self.context.memory.connections.at(*index);
            record.kind() == Kind::Game && !record.is_suspect()
        };
        let is_assignable = is_reception || self.assigns_connections();
        let purpose = Purpose {
            is_reception,
            takes_more: is_assignable && !is_part && group.iter().all(may_have_company),
        };
        self.pending_respawns
            .push_back(PendingRespawn::new(group, purpose));
    }

    /// Forks a handler for connections that have none. If that fails, it is tried again a little later.
    fn respawn(&mut self, mut pending_respawns: PendingRespawn) {
        let is_unserved = |index: &u32| self.held.get(index).is_some_and(|held| held.handler == 0);
        pending_respawns.connections.retain(is_unserved);
        if pending_respawns.connections.is_empty() {
            return;
        }
        let Err(error) = self.spawn_handler(
            pending_respawns.connections.clone(),
            pending_respawns.purpose,
            Start::Takeover,
        ) else {
            return;
        };
        pending_respawns.tries_left -= 1;
        if pending_respawns.tries_left == 0 {
            log::error!("cannot fork another handler: {error}; the connection is given up");
            pending_respawns
                .connections
                .into_iter()
                .for_each(|index| self.abandon_connection(index));
            return;
        }
        if pending_respawns.tries_left + 1 == TAKEOVER_TRIES_MAX {
            log::error!("cannot fork another handler: {error}; trying again in {TAKEOVER_RETRY_MS} ms");
        }
        pending_respawns.at_ms = now_ms() + TAKEOVER_RETRY_MS;
        self.pending_respawns.push_back(pending_respawns);
    }

    /// Forks handlers for connections that have none, a few at a time: when a thousand have died at once, a new
    /// connection must not wait for all successors.
    pub(crate) fn respawn_pending(&mut self) {
        let (now, mut forked) = (now_ms(), 0);
        for _ in 0..self.pending_respawns.len() {
            if forked == TAKEOVER_BATCH_MAX {
                return;
            }
            match self.pending_respawns.pop_front() {
                Some(due) if due.at_ms <= now => {
                    forked += 1;
                    self.respawn(due);
                }
                other => self.pending_respawns.extend(other),
            }
        }
    }

    /// How long until the next of these handlers is forked, in milliseconds.
    pub(crate) fn respawn_due_ms(&self) -> Option<u64> {
        let due_ms = self
            .pending_respawns
            .iter()
            .map(|pending_respawns| pending_respawns.at_ms)
            .min()?;
        Some(due_ms.saturating_sub(now_ms()))
    }

    /// Ends a connection; the ticker frees what it held. The client may resume on a new one.
    pub(crate) fn abandon_connection(&mut self, index: u32) {
        self.cancel_move(index);
        let Some(held) = self.held.remove(&index) else {
            return;
        };
        end_connection(&held.socket);
        let record = self.context.memory.connections.at(index);
        let kind = record.kind();
        record.abandon();
        self.slot().connection_counts(kind).remove();
    }

    /// Kills the handlers that did not exit in time when the server stops.
    pub(crate) fn kill_handlers(&mut self) {
        self.held.clear();
        self.pending_respawns.clear();
        for entry in self.handlers.drain() {
            log::warn!("handler {} did not exit in time: killed", entry.process);
            let _ = entry.process.send_signal(Signal::SIGKILL);
            let _ = entry.process.wait();
        }
    }
}

fn end_connection(socket: &OwnedFd) {
    if let Err(error) = shut_down(socket, Shutdown::Both) {
        log::warn!("cannot shut down a connection: {error}");
    }
}
