//! Handlers come and go: they are forked, held ready, reaped and replaced.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;

use crate::limits::{TAKEOVER_AGAIN_MS, TAKEOVER_TRIES_MAX, TAKEOVERS_AT_ONCE_MAX};
use crate::maintenance::crash_policy::{Crash, RestartDecision, WatchdogKill, regroup};
use crate::process::handler;
use crate::process::handler::HandlerArgs;
use crate::process::keeper::Keeper;
use crate::process::keeper::handlers::HandlerEntry;
use crate::state::connections::Kind;
use shmem::sys::clock::now_ms;
use shmem::sys::process::{ChildEvent, Exit, ForkError, ProcessId, Reaped, child_events, fork};
use shmem::sys::sockets::{Channel, shut_down};

/// Why there is no further handler.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("a socket cannot be duplicated for it: {0}")]
    Duplicate(#[source] io::Error),
    #[error("there is no channel for it: {0}")]
    Channel(#[source] io::Error),
    #[error("{0}")]
    Fork(#[from] ForkError),
}

/// Connections that others have animated and nobody does now: they wait for their turn, or for the resources that a process needs.
pub(crate) struct PendingRespawn {
    connections: Vec<u32>,
    with_channel: bool,
    tries_left: u32,
    /// When the next try is due, in milliseconds of the monotonic clock.
    at_ms: u64,
}

impl PendingRespawn {
    /// They get a process as soon as they can. With a channel it can be given more.
    pub(crate) fn new(connections: Vec<u32>, with_channel: bool) -> Self {
        Self {
            connections,
            with_channel,
            tries_left: TAKEOVER_TRIES_MAX,
            at_ms: 0,
        }
    }
}

impl Keeper {
    /// Whether handlers are given connections after their birth: they serve several, one after another or at once, or are forked ahead.
    pub(crate) fn assigns_connections(&self) -> bool {
        let config = self.context.config;
        config.handler_life > 1 || config.spare_handlers.max > 0
    }

    /// Forks a handler for connections that this process keeps. With a channel it can be given more.
    pub(crate) fn spawn_handler(
        &mut self,
        connections: Vec<u32>,
        is_successor: bool,
        with_channel: bool,
    ) -> Result<(), SpawnError> {
        let duplicate = |index: &u32| {
            let held = &self.held[index];
            Ok((*index, held.socket.try_clone()?))
        };
        let sockets = connections
            .iter()
            .map(duplicate)
            .collect::<io::Result<Vec<(u32, OwnedFd)>>>()
            .map_err(SpawnError::Duplicate)?;
        let (mine, theirs) = match with_channel {
            true => Channel::pair()
                .map(|(mine, theirs)| (Some(mine), Some(theirs)))
                .map_err(SpawnError::Channel)?,
            false => (None, None),
        };
        let (context, keeper) = (self.context, self.index);
        let process = fork(forkade_games::panics::log_panic, move |new_process| {
            let inheritance = HandlerArgs {
                context,
                keeper,
                connections: sockets,
                is_successor,
                assignments: theirs,
            };
            handler::run(&new_process, inheritance)
        })?;
        self.evict_stale_pid(process);
        for index in &connections {
            let record = context.memory.connections.at(*index);
            record.set_handler(process, context.build);
            if let Some(held) = self.held.get_mut(index) {
                (held.handler, held.moves_to) = (process.pid, None);
            }
        }
        self.handlers
            .insert(HandlerEntry::new(process, connections, mine, context.config));
        Ok(())
    }

    /// Forks handlers ahead, and lets those go of which there are too many.
    pub(crate) fn maintain_spares(&mut self) {
        let now = now_ms();
        if !self.assigns_connections() || self.stop_by_ms.is_some() {
            return;
        }
        let to_retire = self.prefork.to_retire(self.handlers.idle(), now);
        self.retire_idle(to_retire);
        for _ in 0..self.prefork.to_fork(self.handlers.idle(), now) {
            if let Err(error) = self.spawn_handler(Vec::new(), false, true) {
                log::warn!("cannot fork a handler ahead: {error}");
                self.prefork.fork_failed(now);
            }
        }
    }

    /// When spares are to be looked at again, in milliseconds from now.
    pub(crate) fn prefork_due_ms(&self) -> Option<u64> {
        let now = now_ms();
        let due_ms = match self.assigns_connections() && self.stop_by_ms.is_none() {
            true => self.prefork.due_ms(self.handlers.idle(), now)?,
            false => return None,
        };
        Some(due_ms.saturating_sub(now))
    }

    /// Lets so many handlers go that have nobody to serve.
    pub(crate) fn retire_idle(&mut self, count: u32) {
        for _ in 0..count.min(self.handlers.idle()) {
            if let Some(pid) = self.handlers.first_idle() {
                // It ends when it sees that nothing will come.
                self.handlers.update(pid, |entry| entry.channel = None);
            }
        }
    }

    /// Looks which handlers have ended, or were stopped.
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

    /// A handler has ended. What it has not brought to an end goes on in others. Of one that was not this process's child it is not
    /// known how it ended.
    pub(crate) fn on_handler_exit(&mut self, pid: u32, exit: Option<Exit>) {
        let connections = self.handlers.get(pid).map(|entry| entry.connections.clone());
        // It may have been handed some before it died that this process has not heard of, and have handed others over.
        for index in connections.unwrap_or_default() {
            self.complete_move(index);
            if self.held.get(&index).is_some_and(|held| held.handler != pid) {
                // Who has it may not have been told.
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
                log::warn!("handler {} died, which had nobody to serve", entry.process);
                // If it could not even begin, nor will the next.
                self.prefork.fork_failed(now_ms());
            }
            return;
        }
        self.replace(&entry, left, exit);
    }

    /// Whether a dead handler was the one that animated the connection. It may have been promised only.
    fn was_serving(&mut self, index: u32, pid: u32) -> bool {
        let Some(held) = self.held.get_mut(&index) else {
            return false;
        };
        held.moves_to = held.moves_to.filter(|promised_to| *promised_to != pid);
        held.handler == pid
    }

    /// The handler of these connections is found dead, which this process did not know as one of its own.
    pub(crate) fn replace_dead(&mut self, handler: ProcessId, connections: Vec<u32>) {
        let entry = HandlerEntry::new(handler, connections.clone(), None, self.context.config);
        self.replace(&entry, connections, None);
    }

    /// A connection has come to its end.
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
        self.context.memory.connections.at(index).free();
        self.free.push(index);
        self.slot().occupancy(kind).let_go();
    }

    /// A handler has died: others go on with the same connections.
    fn replace(&mut self, entry: &HandlerEntry, mut left: Vec<u32>, exit: Option<Exit>) {
        let dead = entry.process;
        let how = exit.map_or_else(
            || "adopted: exit status unknown".to_owned(),
            |exit| exit.to_string(),
        );
        let is_blameless = entry.is_replaced || exit == Some(Exit::Code(0));
        let (suspect, crash) = self.crash_of(&left, exit);
        // Without a frame, only who was alone can be meant.
        let suspect = suspect.or(match left[..] {
            [alone] => Some(alone),
            _ => None,
        });
        let (mut decision, mut crashes_of_suspect) = (RestartDecision::Replace, 0);
        if let Some(held) = suspect.and_then(|index| self.held.get_mut(&index))
            && !is_blameless
        {
            decision = held.crash_history.enter(now_ms(), crash);
            crashes_of_suspect = held.crash_history.in_same_frame();
        }
        if let (Some(index), RestartDecision::RefuseFrame | RestartDecision::GiveUp) = (suspect, decision) {
            let header = self.context.memory.header;
            header.blamed_total.fetch_add(1, Ordering::Relaxed);
            let record = self.context.memory.connections.at(index);
            if decision == RestartDecision::RefuseFrame {
                log::error!(
                    "handler {dead} died ({how}) in a frame in which others have died: it is refused"
                );
                record.blocked_frame.store(crash.current_frame, Ordering::Release);
            } else {
                log::error!("handler {dead} died ({how}), again and again: its connection is given up");
                self.abandon_connection(index);
                left.retain(|other| *other != index);
            }
        }
        for index in &left {
            self.cancel_move(*index);
            if let Some(held) = self.held.get_mut(index) {
                held.handler = 0;
            }
        }
        if let Some(index) = suspect
            && !is_blameless
            && !crash.is_external_kill(crashes_of_suspect)
        {
            self.context.memory.connections.at(index).set_suspect();
        }
        let groups = match is_blameless {
            true => vec![left],
            false => regroup(left, suspect, crash, crashes_of_suspect),
        };
        if groups.iter().any(|group| !group.is_empty()) {
            let takeovers = &self.context.memory.header.takeovers_total;
            takeovers.fetch_add(1, Ordering::Relaxed);
            match entry.is_replaced {
                true => log::debug!("handler {dead} is replaced"),
                false => log::warn!("handler {dead} died ({how}): replaced"),
            }
        }
        let is_split = groups.len() > 1;
        for group in groups {
            self.schedule_respawn(group, is_split);
        }
    }

    /// What the records say of the death of a process that had `connections`: whom it was at work for, and how it died.
    fn crash_of(&self, connections: &[u32], exit: Option<Exit>) -> (Option<u32>, Crash) {
        let (mut suspect, mut fault) = (None, None);
        for index in connections {
            let record = self.context.memory.connections.at(*index);
            let current_frame = match record.kind() {
                // Taken away: a successor that dies before it has come to any frame must not be blamed on the same one again.
                Kind::Game => record.current_frame.swap(0, Ordering::AcqRel),
                // An operator is told by the successor that something was lost.
                Kind::Console => record.current_frame.load(Ordering::Acquire),
            };
            if current_frame != 0 {
                suspect = Some((*index, current_frame));
            }
            fault = record.take_fault().or(fault);
        }
        let at = suspect.map_or(connections[0], |(index, _)| index);
        let mark_ms = self.context.memory.connections.at(at).mark();
        let stuck = fault.map(|fault| WatchdogKill {
            by_itself: fault.is_self_inflicted(),
            for_ms: now_ms().saturating_sub(mark_ms),
        });
        let crash = Crash {
            current_frame: suspect.map_or(0, |(_, frame)| frame),
            exit,
            stuck,
        };
        (suspect.map(|(index, _)| index), crash)
    }

    /// Gives connections whose handler has died another. It gets nobody else to serve if one of them is a suspect, or may be: if it is
    /// one of the parts of a set that was split.
    fn schedule_respawn(&mut self, group: Vec<u32>, is_part: bool) {
        if group.is_empty() {
            return;
        }
        let may_have_company = |index: &u32| {
            let record = self.context.memory.connections.at(*index);
            record.kind() == Kind::Game && !record.is_suspect()
        };
        let with_channel = self.assigns_connections() && !is_part && group.iter().all(may_have_company);
        self.pending_respawns
            .push_back(PendingRespawn::new(group, with_channel));
    }

    /// Gives connections that others have animated a new handler; if that cannot be had now, a little later.
    fn respawn(&mut self, mut pending_respawns: PendingRespawn) {
        let is_unserved = |index: &u32| self.held.get(index).is_some_and(|held| held.handler == 0);
        pending_respawns.connections.retain(is_unserved);
        if pending_respawns.connections.is_empty() {
            return;
        }
        let Err(error) = self.spawn_handler(
            pending_respawns.connections.clone(),
            true,
            pending_respawns.with_channel,
        ) else {
            return;
        };
        pending_respawns.tries_left -= 1;
        if pending_respawns.tries_left == 0 {
            log::error!("no other handler can be forked: {error}; the connection is given up");
            pending_respawns
                .connections
                .into_iter()
                .for_each(|index| self.abandon_connection(index));
            return;
        }
        if pending_respawns.tries_left + 1 == TAKEOVER_TRIES_MAX {
            log::error!("no other handler can be forked: {error}; trying again in {TAKEOVER_AGAIN_MS} ms");
        }
        pending_respawns.at_ms = now_ms() + TAKEOVER_AGAIN_MS;
        self.pending_respawns.push_back(pending_respawns);
    }

    /// Forks handlers for those who have none, a few at a time: when a thousand have died together, whoever comes meanwhile must not wait
    /// for all their successors.
    pub(crate) fn respawn_pending(&mut self) {
        let (now, mut forked) = (now_ms(), 0);
        for _ in 0..self.pending_respawns.len() {
            if forked == TAKEOVERS_AT_ONCE_MAX {
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

    /// How long until somebody of those who have no handler is to be given one, in milliseconds.
    pub(crate) fn respawn_due_ms(&self) -> Option<u64> {
        let due_ms = self
            .pending_respawns
            .iter()
            .map(|pending_respawns| pending_respawns.at_ms)
            .min()?;
        Some(due_ms.saturating_sub(now_ms()))
    }

    /// The connection ends; the ticker frees what it held. The client may resume on a new one.
    pub(crate) fn abandon_connection(&mut self, index: u32) {
        self.cancel_move(index);
        let Some(held) = self.held.remove(&index) else {
            return;
        };
        end_connection(&held.socket);
        let record = self.context.memory.connections.at(index);
        let kind = record.kind();
        record.abandon();
        self.slot().occupancy(kind).let_go();
    }

    /// The server stops, and these have not come to an end in time.
    pub(crate) fn kill_handlers(&mut self) {
        self.held.clear();
        self.pending_respawns.clear();
        for entry in self.handlers.drain() {
            log::warn!("handler {} did not end in time: killed", entry.process);
            let _ = entry.process.send_signal(Signal::SIGKILL);
            let _ = entry.process.wait();
        }
    }
}

fn end_connection(socket: &OwnedFd) {
    if let Err(error) = shut_down(socket, Shutdown::Both) {
        log::warn!("cannot shut a connection down: {error}");
    }
}
