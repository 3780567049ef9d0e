//! How the connections of one keeper become the next one's.
//!
//! A keeper that makes way hands on what it holds: no handler notices. One that was killed could not: the handlers were given to the
//! supervisor when their parent died, so their end is seen by pidfd; and asked by signal, each offers duplicates of its sockets.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Token};
use nix::sys::signal::Signal;

use super::crew::Worker;
use super::{FIRST_ADOPTED, Keeper, Kept};
use crate::limits::{ADOPT_AGAIN_MS, ADOPTIONS_AT_ONCE_MAX, UPGRADE_HANDLER_EVERY_MS};
use crate::lobby::connections::{Claim, Kind};
use crate::sys::clock::now_ms;
use crate::sys::process::ProcessId;
use crate::sys::sockets::SendOutcome;
use crate::wiring::Delivery;

/// Where that cannot be found out it counts as alive: who is left out here is never adopted.
fn may_be_alive(handler: ProcessId) -> bool {
    handler.is_alive().unwrap_or_else(|error| {
        log::warn!("cannot look whether handler {handler} lives: {error}");
        true
    })
}

impl Keeper {
    /// Hands all connections on to the keeper that takes this one's place.
    pub(super) fn hand_on(&self) {
        let memory = self.context.memory;
        let is_for_players = |index: &&u32| memory.connections.at(**index).kind() == Kind::Game;
        let kept: Vec<u32> = self.kept.keys().filter(is_for_players).copied().collect();
        let channel = self.context.wiring.keeper_channel(self.index);
        for connections in kept.chunks(Delivery::CONNECTIONS_MAX).map(<[u32]>::to_vec) {
            let sockets: Vec<BorrowedFd<'_>> = connections
                .iter()
                .map(|index| self.kept[index].socket.as_fd())
                .collect();
            let delivery = Delivery::Adopt { connections };
            match channel.send(&delivery.encode(), &sockets) {
                Ok(SendOutcome::Sent) => {}
                // Their handlers are asked for them.
                Ok(SendOutcome::WouldBlock | SendOutcome::PeerGone) => {
                    return log::warn!("the channel to the next keeper is full");
                }
                Err(error) => return log::warn!("cannot hand connections on to the next keeper: {error}"),
            }
        }
    }

    /// Makes handlers whose keeper has died offer their sockets: a few at a time, for their offers to find place in the channel.
    pub(super) fn ask_for_offers(&mut self) {
        if self.to_adopt.is_empty() {
            return;
        }
        if self.to_ask.is_empty() && self.ask_again_at_ms <= now_ms() {
            self.look_who_is_to_be_adopted();
        }
        let at_once = self.to_ask.len().min(ADOPTIONS_AT_ONCE_MAX);
        for index in self.to_ask.drain(..at_once).collect::<Vec<u32>>() {
            if self.context.memory.connections.at(index).keeper_epoch() != self.epoch {
                self.nudge(index);
            }
        }
    }

    /// When others are to be asked, in milliseconds from now.
    pub(super) fn ask_again_ms(&self) -> Option<u64> {
        let is_due = !self.to_ask.is_empty();
        let next_round_ms = self.ask_again_at_ms.saturating_sub(now_ms());
        (!self.to_adopt.is_empty()).then_some(if is_due { 0 } else { next_round_ms })
    }

    fn look_who_is_to_be_adopted(&mut self) {
        let memory = self.context.memory;
        self.ask_again_at_ms = now_ms() + ADOPT_AGAIN_MS;
        let (over, to_adopt) = std::mem::take(&mut self.to_adopt)
            .into_iter()
            .partition::<Vec<u32>, _>(|index| {
                let record = memory.connections.at(*index);
                record.is_over() && record.claimed() == Claim::Held && record.keeper_epoch() != self.epoch
            });
        self.to_adopt = to_adopt;
        for index in over {
            // Nobody has it any more, and its handler lives for others.
            memory.connections.at(index).free();
            self.free.push(index);
        }
        let lives_on = |index: &u32| {
            let record = memory.connections.at(*index);
            record.claimed() == Claim::Held
                && record.keeper_epoch() != self.epoch
                // One without an entry may be on its way to a handler. (If it is not, the ticker frees it in a moment.)
                && record.handler().is_none_or(may_be_alive)
        };
        self.to_adopt.retain(lives_on);
        self.to_ask.extend(&self.to_adopt);
    }

    /// Takes over the keeping of connections. Those whose handlers have died meanwhile get others.
    pub(super) fn adopt_all(&mut self, offered: impl Iterator<Item = (u32, OwnedFd)>) {
        let mut of_the_dead: HashMap<ProcessId, Vec<u32>> = HashMap::new();
        for (index, socket) in offered {
            if let Some(dead) = self.adopt(index, socket) {
                of_the_dead.entry(dead).or_default().push(index);
            }
        }
        for (dead, connections) in of_the_dead {
            self.replace_dead(dead, connections);
        }
    }

    /// Takes over the keeping of a connection. If its handler has died, and will not be reported, gives that.
    fn adopt(&mut self, index: u32, socket: OwnedFd) -> Option<ProcessId> {
        let record = self.context.memory.connections.get(index)?;
        let handler = record.handler().filter(|_| record.claimed() == Claim::Held)?;
        if self.kept.contains_key(&index) {
            // Offered twice.
            return None;
        }
        let lives = match self.know_handler(handler, record.handler_build()) {
            Ok(lives) => lives,
            Err(error) => {
                // It goes on without a keeper until it is asked again, in a moment.
                log::error!("cannot adopt handler {handler} yet: {error}");
                return None;
            }
        };
        record.set_keeper_epoch(self.epoch);
        self.slot().hold(record.kind());
        self.context.memory.count_outliving(self.index);
        let mut kept = Kept::new(socket);
        kept.handler = handler.pid;
        self.kept.insert(index, kept);
        self.crew.change(handler.pid, |worker| worker.take_on(index));
        if record.is_over() {
            // Its end was told before the offer was looked at.
            self.let_go(index);
            return None;
        }
        (!lives).then_some(handler)
    }

    /// Keeps a connection no more until its handler has offered it, as if this keeper had just begun.
    pub(super) fn adopt_anew(&mut self, index: u32) {
        if self.kept.remove(&index).is_none() {
            return;
        }
        let record = self.context.memory.connections.at(index);
        record.set_keeper_epoch(self.epoch.wrapping_sub(1));
        self.slot().let_go(record.kind());
        self.context.memory.count_outliving(self.index);
        self.to_adopt.push(index);
    }

    /// Makes a handler one of this keeper's, if it is not. Says whether its end is still to come.
    pub(super) fn know_handler(&mut self, handler: ProcessId, build: u32) -> io::Result<bool> {
        let is_it = |worker: &Worker| worker.process == handler;
        match self.crew.get(handler.pid).is_some_and(is_it) {
            true => Ok(true),
            false => self.adopt_handler(handler, build),
        }
    }

    /// Whether a connection that the handler serves, or may be about to serve, has not been offered yet: it would be lost with it.
    fn has_more_to_offer(&self, pid: u32) -> bool {
        let may_be_its = |index: &u32| {
            let record = self.context.memory.connections.at(*index);
            record.claimed() == Claim::Held
                && record.keeper_epoch() != self.epoch
                && record.handler().is_none_or(|handler| handler.pid == pid)
        };
        self.to_adopt.iter().any(may_be_its)
    }

    /// From now on this process watches for the end of a handler that is not its child. It cannot give it anybody new to serve.
    /// Says whether there is an end to be watched for yet.
    fn adopt_handler(&mut self, handler: ProcessId, build: u32) -> io::Result<bool> {
        let Some(pidfd) = handler.open_pidfd()? else {
            return Ok(false);
        };
        let token = Token(FIRST_ADOPTED + handler.pid as usize);
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&pidfd.as_raw_fd()), token, Interest::READABLE)?;
        if build != self.context.build {
            self.outdated.push_back(handler.pid);
        }
        let mut worker = Worker::new(handler, Vec::new(), None, self.context.config);
        worker.pidfd = Some(pidfd);
        self.crew.enter(worker);
        Ok(true)
    }

    /// Replaces the next handler that runs the program before an upgrade: it is killed, and its successor takes over.
    pub(super) fn replace_outdated(&mut self) {
        let now = now_ms();
        if self.outdated.is_empty() || now < self.replace_outdated_at_ms {
            return;
        }
        self.replace_outdated_at_ms = now + UPGRADE_HANDLER_EVERY_MS;
        for _ in 0..self.outdated.len() {
            let Some(pid) = self.outdated.pop_front() else {
                return;
            };
            if self.has_more_to_offer(pid) {
                self.outdated.push_back(pid);
                continue;
            }
            // It may have died meanwhile, and another's successor, this process's child, have its pid.
            let Some(worker) = self.crew.get(pid).filter(|worker| worker.pidfd.is_some()) else {
                continue;
            };
            match worker.process.send_signal(Signal::SIGKILL) {
                Ok(_) => {
                    self.crew.change(pid, |worker| worker.is_replaced = true);
                }
                Err(error) => {
                    log::error!("cannot replace handler {pid} yet: {error}");
                    self.outdated.push_back(pid);
                }
            }
            return;
        }
    }

    /// The end of a handler that this process watches, because it is not its child, is seen.
    pub(super) fn adopted_handler_ended(&mut self, pid: u32) {
        let take_pidfd = |worker: &mut Worker| worker.pidfd.take();
        let Some(pidfd) = self.crew.change(pid, take_pidfd).flatten() else {
            // The end of this process's own children is seen elsewhere.
            return;
        };
        // To close it is not enough while a handler that was just forked has a copy. The end is told again when the supervisor has reaped
        // the dead one, and would be taken for its successor's, which lives.
        let raw = pidfd.as_raw_fd();
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&raw)) {
            log::error!("cannot leave off watching a handler that has ended: {error}");
        }
        // Its exit status is the supervisor's to see, who was given the orphan; but the records tell what it has brought to an end.
        self.handler_ended(pid, None);
    }
}
