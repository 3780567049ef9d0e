//! What a keeper does that takes a dead one's place: it adopts the connections whose handlers live on.
//!
//! The handlers were given to the supervisor when their parent died, so their end is seen by pidfd. Asked by signal, each offers a
//! duplicate of its socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Token};
use nix::sys::signal::Signal;

use super::{FIRST_ADOPTED, Keeper, Kept};
use crate::deaths::Deaths;
use crate::limits::{ADOPT_AGAIN_MS, UPGRADE_HANDLER_EVERY_MS};
use crate::lobby::connections::Claim;
use crate::sys::clock::now_ms;
use crate::sys::process::ProcessId;

/// Where that cannot be found out it counts as alive: who is left out here is never adopted.
fn may_be_alive(handler: ProcessId) -> bool {
    handler.is_alive().unwrap_or_else(|error| {
        log::warn!("cannot look whether handler {handler} lives: {error}");
        true
    })
}

impl Keeper {
    /// Makes handlers whose keeper has died offer their sockets.
    pub(super) fn ask_for_offers(&mut self) {
        let (memory, now) = (self.context.memory, now_ms());
        if self.to_adopt.is_empty() || now < self.ask_again_at_ms {
            return;
        }
        self.ask_again_at_ms = now + ADOPT_AGAIN_MS;
        let lives_on = |index: &u32| {
            let record = memory.connections.at(*index);
            record.claimed() == Claim::Held
                && record.keeper_epoch() != self.epoch
                && record.handler().is_some_and(may_be_alive)
        };
        self.to_adopt.retain(lives_on);
        for index in &self.to_adopt {
            self.nudge(*index);
        }
    }

    /// Takes over the keeping of a connection whose handler lives on.
    pub(super) fn adopt(&mut self, index: u32, socket: OwnedFd) {
        let Some(record) = self.context.memory.connections.get(index) else {
            return;
        };
        let handler = record.handler().filter(|_| record.claimed() == Claim::Held);
        let (Some(handler), false) = (handler, self.kept.contains_key(&index)) else {
            // Freed, or offered twice.
            return;
        };
        let pidfd = match self.watch_for_end(index, handler) {
            Ok(pidfd) => pidfd,
            // It goes on without a keeper until it is asked again, in a moment.
            Err(error) => return log::error!("cannot adopt handler {handler} yet: {error}"),
        };
        record.set_keeper_epoch(self.epoch);
        self.slot().hold(record.kind());
        self.context.memory.count_outliving(self.index);
        let has_ended = pidfd.is_none();
        self.kept.insert(
            index,
            Kept {
                socket,
                handler,
                pidfd,
                is_replaced: false,
                deaths: Deaths::default(),
            },
        );
        if has_ended {
            self.go_on_without(index);
        } else if record.handler_build() != self.context.build {
            self.outdated.push_back(index);
        }
    }

    /// Has the end of a handler told that is not this process's child; `None` if that has ended.
    fn watch_for_end(&self, index: u32, handler: ProcessId) -> io::Result<Option<OwnedFd>> {
        let pidfd = handler.open_pidfd()?;
        if let Some(pidfd) = &pidfd {
            let (raw, token) = (pidfd.as_raw_fd(), Token(FIRST_ADOPTED + index as usize));
            let registry = self.poll.registry();
            registry.register(&mut SourceFd(&raw), token, Interest::READABLE)?;
        }
        Ok(pidfd)
    }

    /// Replaces the next handler that runs the program before an upgrade: it is killed, and its successor takes over.
    pub(super) fn replace_outdated(&mut self) {
        let now = now_ms();
        if self.outdated.is_empty() || now < self.replace_outdated_at_ms {
            return;
        }
        self.replace_outdated_at_ms = now + UPGRADE_HANDLER_EVERY_MS;
        while let Some(index) = self.outdated.pop_front() {
            let record = self.context.memory.connections.at(index);
            let Some(kept) = self.kept.get_mut(&index) else {
                continue;
            };
            // It may have died meanwhile, and its successor, or the slot's next occupant, is not outdated.
            if record.handler_build() == self.context.build {
                continue;
            }
            kept.is_replaced = true;
            if let Err(error) = kept.handler.send_signal(Signal::SIGKILL) {
                log::error!("cannot replace handler {}: {error}", kept.handler);
            }
            return;
        }
    }

    /// The end of a handler that this process watches, because it is not its child, is seen.
    pub(super) fn adopted_handler_ended(&mut self, index: u32) {
        let Some(pidfd) = self.kept.get_mut(&index).and_then(|kept| kept.pidfd.take()) else {
            // The end of this process's own children is seen elsewhere.
            return;
        };
        // To close it is not enough while a handler that was just forked has a copy. The end is told again when the supervisor has reaped
        // the dead one, and would be taken for its successor's, which lives.
        let raw = pidfd.as_raw_fd();
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&raw)) {
            log::error!("cannot leave off watching a handler that has ended: {error}");
        }
        self.go_on_without(index);
    }

    /// Its exit status is the supervisor's to see, who was given the orphan; but the record tells whether it was done.
    fn go_on_without(&mut self, index: u32) {
        if self.context.memory.connections.at(index).is_over() {
            self.let_go(index);
        } else {
            self.replace(index, None);
        }
    }
}
