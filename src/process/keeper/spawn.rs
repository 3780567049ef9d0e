//! Handlers come and go: they are forked, held ready, reaped and replaced.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;

use crate::limits::{TAKEOVER_AGAIN_MS, TAKEOVER_TRIES_MAX, TAKEOVERS_AT_ONCE_MAX};
use crate::process::crash_policy::{Death, Stuck, Verdict, regroup};
use crate::process::handler;
use crate::process::handler::Inheritance;
use crate::process::keeper::Keeper;
use crate::process::keeper::handlers::Worker;
use crate::state::connections::Kind;
use shmem::sys::clock::now_ms;
use shmem::sys::process::{Change, Exit, ForkError, ProcessId, Reaped, changes, fork};
use shmem::sys::sockets::{Channel, shut_down};

/// Why there is no further handler.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HireError {
    #[error("a socket cannot be duplicated for it: {0}")]
    Duplicate(#[source] io::Error),
    #[error("there is no channel for it: {0}")]
    Channel(#[source] io::Error),
    #[error("{0}")]
    Fork(#[from] ForkError),
}

/// Connections that others have animated and nobody does now: they wait for their turn, or for the resources that a process needs.
pub(crate) struct Unserved {
    connections: Vec<u32>,
    with_channel: bool,
    tries_left: u32,
    /// When the next try is due, in milliseconds of the monotonic clock.
    at_ms: u64,
}

impl Unserved {
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
    pub(crate) fn hands_out(&self) -> bool {
        let config = self.context.config;
        config.handler_life > 1 || config.spare_handlers.max > 0
    }

    /// Forks a handler for connections that this process keeps. With a channel it can be given more.
    pub(crate) fn hire(
        &mut self,
        connections: Vec<u32>,
        is_successor: bool,
        with_channel: bool,
    ) -> Result<(), HireError> {
        let duplicate = |index: &u32| {
            let kept = &self.kept[index];
            Ok((*index, kept.socket.try_clone()?))
        };
        let sockets = connections
            .iter()
            .map(duplicate)
            .collect::<io::Result<Vec<(u32, OwnedFd)>>>()
            .map_err(HireError::Duplicate)?;
        let (mine, theirs) = match with_channel {
            true => Channel::pair()
                .map(|(mine, theirs)| (Some(mine), Some(theirs)))
                .map_err(HireError::Channel)?,
            false => (None, None),
        };
        let (context, keeper) = (self.context, self.index);
        let process = fork(forkade_games::panics::log_panic, move |new_process| {
            let inheritance = Inheritance {
                context,
                keeper,
                connections: sockets,
                is_successor,
                assignments: theirs,
            };
            handler::run(&new_process, inheritance)
        })?;
        self.forget_former(process);
        for index in &connections {
            let record = context.memory.connections.at(*index);
            record.set_handler(process, context.build);
            if let Some(kept) = self.kept.get_mut(index) {
                (kept.handler, kept.moves_to) = (process.pid, None);
            }
        }
        self.crew
            .enter(Worker::new(process, connections, mine, context.config));
        Ok(())
    }

    /// Forks handlers ahead, and lets those go of which there are too many.
    pub(crate) fn keep_spares(&mut self) {
        let now = now_ms();
        if !self.hands_out() || self.stop_by_ms.is_some() {
            return;
        }
        let beyond_need = self.spares.beyond_need(self.crew.idle(), now);
        self.let_idle_go(beyond_need);
        for _ in 0..self.spares.missing(self.crew.idle(), now) {
            if let Err(error) = self.hire(Vec::new(), false, true) {
                log::warn!("cannot fork a handler ahead: {error}");
                self.spares.fork_failed(now);
            }
        }
    }

    /// When spares are to be looked at again, in milliseconds from now.
    pub(crate) fn spares_due_ms(&self) -> Option<u64> {
        let now = now_ms();
        let due_ms = match self.hands_out() && self.stop_by_ms.is_none() {
            true => self.spares.due_ms(self.crew.idle(), now)?,
            false => return None,
        };
        Some(due_ms.saturating_sub(now))
    }

    /// Lets so many handlers go that have nobody to serve.
    pub(crate) fn let_idle_go(&mut self, count: u32) {
        for _ in 0..count.min(self.crew.idle()) {
            if let Some(pid) = self.crew.first_idle() {
                // It ends when it sees that nothing will come.
                self.crew.change(pid, |worker| worker.channel = None);
            }
        }
    }

    /// Looks which handlers have ended, or were stopped.
    pub(crate) fn reap_handlers(&mut self) {
        for change in changes() {
            self.life.show();
            match change {
                Change::Ended(Reaped { pid, exit }) => self.handler_ended(pid, Some(exit)),
                Change::Stopped { pid } => {
                    let is_its = |index: &&u32| self.kept.get(index).is_some_and(|kept| kept.handler == pid);
                    let its_first = self
                        .crew
                        .get(pid)
                        .and_then(|worker| worker.connections.iter().find(is_its));
                    if let Some(index) = its_first {
                        self.report_handler(*index);
                    }
                }
            }
        }
    }

    /// A handler has ended. What it has not brought to an end goes on in others. Of one that was not this process's child it is not
    /// known how it ended.
    pub(crate) fn handler_ended(&mut self, pid: u32, exit: Option<Exit>) {
        let connections = self.crew.get(pid).map(|worker| worker.connections.clone());
        // It may have been handed some before it died that this process has not heard of, and have handed others over.
        for index in connections.unwrap_or_default() {
            self.follow_move(index);
            if self.kept.get(&index).is_some_and(|kept| kept.handler != pid) {
                // Who has it may not have been told.
                self.nudge(index);
            }
        }
        let Some(worker) = self.crew.remove(pid) else {
            return;
        };
        let memory = self.context.memory;
        let (over, left): (Vec<u32>, Vec<u32>) = worker
            .connections
            .iter()
            .filter(|index| self.was_its(**index, pid))
            .partition(|index| memory.connections.at(**index).is_over());
        over.into_iter().for_each(|index| self.let_go(index));
        if left.is_empty() {
            if exit.is_some_and(|exit| exit != Exit::Code(0)) {
                log::warn!("handler {} died, which had nobody to serve", worker.process);
                // If it could not even begin, nor will the next.
                self.spares.fork_failed(now_ms());
            }
            return;
        }
        self.replace(&worker, left, exit);
    }

    /// Whether a dead handler was the one that animated the connection. It may have been promised only.
    fn was_its(&mut self, index: u32, pid: u32) -> bool {
        let Some(kept) = self.kept.get_mut(&index) else {
            return false;
        };
        kept.moves_to = kept.moves_to.filter(|promised_to| *promised_to != pid);
        kept.handler == pid
    }

    /// The handler of these connections is found dead, which this process did not know as one of its own.
    pub(crate) fn replace_dead(&mut self, handler: ProcessId, connections: Vec<u32>) {
        let worker = Worker::new(handler, connections.clone(), None, self.context.config);
        self.replace(&worker, connections, None);
    }

    /// A connection has come to its end.
    pub(crate) fn let_go(&mut self, index: u32) {
        self.break_promise(index);
        let Some(kept) = self.kept.remove(&index) else {
            return;
        };
        self.crew.change(kept.handler, |worker| worker.leave_off(index));
        let kind = self.context.memory.connections.at(index).kind();
        self.give_slot_back(index, kind);
    }

    pub(crate) fn give_slot_back(&mut self, index: u32, kind: Kind) {
        self.context.memory.connections.at(index).free();
        self.free.push(index);
        self.slot().occupancy(kind).let_go();
    }

    /// A handler has died: others go on with the same connections.
    fn replace(&mut self, worker: &Worker, mut left: Vec<u32>, exit: Option<Exit>) {
        let dead = worker.process;
        let how = exit.map_or_else(
            || "adopted: exit status unknown".to_owned(),
            |exit| exit.to_string(),
        );
        let is_blameless = worker.is_replaced || exit == Some(Exit::Code(0));
        let (suspect, death) = self.circumstances(&left, exit);
        // Without a frame, only who was alone can be meant.
        let suspect = suspect.or(match left[..] {
            [alone] => Some(alone),
            _ => None,
        });
        let (mut verdict, mut deaths_of_suspect) = (Verdict::Replace, 0);
        if let Some(kept) = suspect.and_then(|index| self.kept.get_mut(&index))
            && !is_blameless
        {
            verdict = kept.deaths.enter(now_ms(), death);
            deaths_of_suspect = kept.deaths.in_same_frame();
        }
        if let (Some(index), Verdict::RefuseFrame | Verdict::GiveUp) = (suspect, verdict) {
            let header = self.context.memory.header;
            header.blamed_total.fetch_add(1, Ordering::Relaxed);
            let record = self.context.memory.connections.at(index);
            if verdict == Verdict::RefuseFrame {
                log::error!(
                    "handler {dead} died ({how}) in a frame in which others have died: it is refused"
                );
                record.refused_frame.store(death.working_on, Ordering::Release);
            } else {
                log::error!("handler {dead} died ({how}), again and again: its connection is given up");
                self.give_up(index);
                left.retain(|other| *other != index);
            }
        }
        for index in &left {
            self.break_promise(*index);
            if let Some(kept) = self.kept.get_mut(index) {
                kept.handler = 0;
            }
        }
        if let Some(index) = suspect
            && !is_blameless
            && !death.speaks_against_nobody(deaths_of_suspect)
        {
            self.context.memory.connections.at(index).set_suspect();
        }
        let groups = match is_blameless {
            true => vec![left],
            false => regroup(left, suspect, death, deaths_of_suspect),
        };
        if groups.iter().any(|group| !group.is_empty()) {
            let takeovers = &self.context.memory.header.takeovers_total;
            takeovers.fetch_add(1, Ordering::Relaxed);
            match worker.is_replaced {
                true => log::debug!("handler {dead} is replaced"),
                false => log::warn!("handler {dead} died ({how}): replaced"),
            }
        }
        let is_split = groups.len() > 1;
        for group in groups {
            self.replace_for(group, is_split);
        }
    }

    /// What the records say of the death of a process that had `connections`: whom it was at work for, and how it died.
    fn circumstances(&self, connections: &[u32], exit: Option<Exit>) -> (Option<u32>, Death) {
        let (mut suspect, mut fault) = (None, None);
        for index in connections {
            let record = self.context.memory.connections.at(*index);
            let working_on = match record.kind() {
                // Taken away: a successor that dies before it has come to any frame must not be blamed on the same one again.
                Kind::Game => record.working_on.swap(0, Ordering::AcqRel),
                // An operator is told by the successor that something was lost.
                Kind::Console => record.working_on.load(Ordering::Acquire),
            };
            if working_on != 0 {
                suspect = Some((*index, working_on));
            }
            fault = record.take_fault().or(fault);
        }
        let at = suspect.map_or(connections[0], |(index, _)| index);
        let mark_ms = self.context.memory.connections.at(at).mark();
        let stuck = fault.map(|fault| Stuck {
            by_itself: fault.is_its_own(),
            for_ms: now_ms().saturating_sub(mark_ms),
        });
        let death = Death {
            working_on: suspect.map_or(0, |(_, frame)| frame),
            exit,
            stuck,
        };
        (suspect.map(|(index, _)| index), death)
    }

    /// Gives connections whose handler has died another. It gets nobody else to serve if one of them is a suspect, or may be: if it is
    /// one of the parts of a set that was split.
    fn replace_for(&mut self, group: Vec<u32>, is_part: bool) {
        if group.is_empty() {
            return;
        }
        let may_have_company = |index: &u32| {
            let record = self.context.memory.connections.at(*index);
            record.kind() == Kind::Game && !record.is_suspect()
        };
        let with_channel = self.hands_out() && !is_part && group.iter().all(may_have_company);
        self.unserved.push_back(Unserved::new(group, with_channel));
    }

    /// Gives connections that others have animated a new handler; if that cannot be had now, a little later.
    fn serve_again(&mut self, mut unserved: Unserved) {
        let is_unserved = |index: &u32| self.kept.get(index).is_some_and(|kept| kept.handler == 0);
        unserved.connections.retain(is_unserved);
        if unserved.connections.is_empty() {
            return;
        }
        let Err(error) = self.hire(unserved.connections.clone(), true, unserved.with_channel) else {
            return;
        };
        unserved.tries_left -= 1;
        if unserved.tries_left == 0 {
            log::error!("no other handler can be forked: {error}; the connection is given up");
            unserved
                .connections
                .into_iter()
                .for_each(|index| self.give_up(index));
            return;
        }
        if unserved.tries_left + 1 == TAKEOVER_TRIES_MAX {
            log::error!("no other handler can be forked: {error}; trying again in {TAKEOVER_AGAIN_MS} ms");
        }
        unserved.at_ms = now_ms() + TAKEOVER_AGAIN_MS;
        self.unserved.push_back(unserved);
    }

    /// Forks handlers for those who have none, a few at a time: when a thousand have died together, whoever comes meanwhile must not wait
    /// for all their successors.
    pub(crate) fn serve_the_unserved(&mut self) {
        let (now, mut forked) = (now_ms(), 0);
        for _ in 0..self.unserved.len() {
            if forked == TAKEOVERS_AT_ONCE_MAX {
                return;
            }
            match self.unserved.pop_front() {
                Some(due) if due.at_ms <= now => {
                    forked += 1;
                    self.serve_again(due);
                }
                other => self.unserved.extend(other),
            }
        }
    }

    /// How long until somebody of those who have no handler is to be given one, in milliseconds.
    pub(crate) fn unserved_due_ms(&self) -> Option<u64> {
        let due_ms = self.unserved.iter().map(|unserved| unserved.at_ms).min()?;
        Some(due_ms.saturating_sub(now_ms()))
    }

    /// The connection ends; the ticker frees what it held. The client may resume on a new one.
    pub(crate) fn give_up(&mut self, index: u32) {
        self.break_promise(index);
        let Some(kept) = self.kept.remove(&index) else {
            return;
        };
        end_connection(&kept.socket);
        let record = self.context.memory.connections.at(index);
        let kind = record.kind();
        record.abandon();
        self.slot().occupancy(kind).let_go();
    }

    /// The server stops, and these have not come to an end in time.
    pub(crate) fn kill_handlers(&mut self) {
        self.kept.clear();
        self.unserved.clear();
        for worker in self.crew.drain() {
            log::warn!("handler {} did not end in time: killed", worker.process);
            let _ = worker.process.send_signal(Signal::SIGKILL);
            let _ = worker.process.wait();
        }
    }
}

fn end_connection(socket: &OwnedFd) {
    if let Err(error) = shut_down(socket, Shutdown::Both) {
        log::warn!("cannot shut a connection down: {error}");
    }
}
