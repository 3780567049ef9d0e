//! How the connections of one keeper pass to the next.
//!
//! A keeper that is replaced transfers its sockets, and no handler notices. A keeper that was killed cannot: its
//! handlers become children of the supervisor. The next keeper watches their exit by pidfd, and asks them by signal
//! to send duplicates of their sockets.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use nix::sys::signal::Signal;

use crate::limits::{ADOPTION_BATCH_MAX, ADOPTION_RETRY_MS, TRANSFER_RETRY_MS, UPGRADE_HANDLER_INTERVAL_MS};
use crate::process::ipc::KeeperMessage;
use crate::process::keeper::handlers::{HandlerEntry, Purpose};
use crate::process::keeper::{FIRST_ADOPTED, HeldConnection, Keeper};
use crate::state::connections::{Claim, ConnectionRecord, Kind};
use crate::state::layout::ConnectionRef;
use shmem::sys::clock::now_ms;
use shmem::sys::process::ProcessId;
use shmem::sys::sockets::{ChannelError, SendOutcome};

/// Why connections could not be transferred.
#[derive(Debug, thiserror::Error)]
enum TransferError {
    #[error("the channel is full")]
    Full,
    #[error("{0}")]
    Send(#[from] ChannelError),
}

/// True if that cannot be found out: a connection that is left out here is never adopted.
fn may_be_alive(handler: ProcessId) -> bool {
    handler.is_alive().unwrap_or_else(|error| {
        log::warn!("cannot tell whether handler {handler} is alive: {error}");
        true
    })
}

impl Keeper {
    /// Sends all connections to the keeper that replaces this one. If the channel stays full until `by_ms`, the next
    /// keeper requests the rest from their handlers.
    pub(crate) fn transfer_connections(&mut self, by_ms: u64) -> io::Result<()> {
        while let Err(why) = self.transfer_remaining() {
            if by_ms <= now_ms() {
                log::warn!("cannot transfer all connections to the next keeper: {why}");
                return Ok(());
            }
            // It is full of new connections, or too many descriptors are in flight.
            self.receive_connections()?;
            std::thread::sleep(Duration::from_millis(TRANSFER_RETRY_MS));
        }
        Ok(())
    }

    fn transfer_remaining(&mut self) -> Result<(), TransferError> {
        let memory = self.context.memory;
        let is_left = |(index, _): &(&u32, &HeldConnection)| {
            memory.connections.at(**index).kind() == Kind::Game && !self.transferred.contains(index)
        };
        let mut left: Vec<(&u32, &HeldConnection)> = self.held.iter().filter(is_left).collect();
        // Sorted by handler: if a handler dies meanwhile, one successor gets all its connections.
        left.sort_by_key(|(_, held)| held.handler);
        let channel = self.context.ipc.keeper_channel(self.index);
        for part in left.chunks(KeeperMessage::CONNECTIONS_MAX) {
            let reference =
                |(index, _): &(&u32, &HeldConnection)| memory.connections.at(**index).reference(**index);
            let delivery = KeeperMessage::Adopt {
                connections: part.iter().map(reference).collect(),
            };
            let sockets: Vec<BorrowedFd<'_>> = part.iter().map(|(_, held)| held.socket.as_fd()).collect();
            match channel.send(&delivery.encode(), &sockets)? {
                SendOutcome::Sent => self.transferred.extend(part.iter().map(|(index, _)| **index)),
                SendOutcome::WouldBlock | SendOutcome::PeerGone => return Err(TransferError::Full),
            }
        }
        Ok(())
    }

    /// Signals handlers that outlived their keeper to offer their sockets: a few at a time, so that the channel has
    /// room for the offers.
    pub(crate) fn request_sockets(&mut self) {
        if self.to_adopt.is_empty() {
            return;
        }
        if self.handlers_to_request.is_empty() && self.next_adoption_round_ms <= now_ms() {
            self.refresh_adoptions();
        }
        let mut asked_for = 0;
        while asked_for < ADOPTION_BATCH_MAX
            && let Some((index, count)) = self.handlers_to_request.pop_front()
        {
            if self.context.memory.connections.at(index).keeper_epoch() != self.epoch {
                self.signal_handler(index);
                asked_for += count;
            }
        }
    }

    /// When handlers are to be signalled next, in milliseconds from now.
    pub(crate) fn adoption_due_ms(&self) -> Option<u64> {
        let is_due = !self.handlers_to_request.is_empty();
        let next_round_ms = self.next_adoption_round_ms.saturating_sub(now_ms());
        // Offers that are on their way are received first.
        (!self.to_adopt.is_empty()).then_some(if is_due { 1 } else { next_round_ms })
    }

    fn refresh_adoptions(&mut self) {
        let memory = self.context.memory;
        self.next_adoption_round_ms = now_ms() + ADOPTION_RETRY_MS;
        let (over, to_adopt) = std::mem::take(&mut self.to_adopt)
            .into_iter()
            .partition::<Vec<u32>, _>(|index| {
                let record = memory.connections.at(*index);
                record.is_over() && record.claimed() == Claim::Held && record.keeper_epoch() != self.epoch
            });
        self.to_adopt = to_adopt;
        for index in over {
            // No keeper holds it, and its handler lives on for others.
            let record = memory.connections.at(index);
            if record.exchange_claim(Claim::Held, Claim::Abandoned) {
                memory.free_connection(index);
                self.free.push(index);
            }
        }
        let lives_on = |index: &u32| {
            let record = memory.connections.at(*index);
            record.claimed() == Claim::Held
                && record.keeper_epoch() != self.epoch
                // A connection without an entry may be on its way to a handler. (If it is not, the ticker frees it
                // soon.)
                && record.handler().is_none_or(may_be_alive)
        };
        self.to_adopt.retain(lives_on);
        let mut by_handler: BTreeMap<u64, (u32, usize)> = BTreeMap::new();
        for index in &self.to_adopt {
            if let Some(handler) = memory.connections.at(*index).handler() {
                by_handler.entry(handler.to_u64()).or_insert((*index, 0)).1 += 1;
            }
        }
        self.handlers_to_request = by_handler.into_values().collect();
    }

    /// Holds a connection from now on. If its handler is already dead, so that no exit will be seen, gives that.
    pub(crate) fn adopt(&mut self, connection: ConnectionRef, socket: OwnedFd) -> Option<ProcessId> {
        let index = connection.index();
        let record = self.context.memory.connections.get(index)?;
        let is_still_there = || record.claimed() == Claim::Held && record.reference(index) == connection;
        let handler = record.handler().filter(|_| is_still_there())?;
        if self.held.contains_key(&index) {
            // Offered twice; or transferred by this keeper itself, which has received it again.
            self.transferred.remove(&index);
            return None;
        }
        let lives = match self.ensure_tracked(handler, record) {
            Ok(lives) => lives,
            Err(error) => {
                // It goes on without a keeper until it is asked again, soon.
                log::error!("cannot adopt handler {handler} yet: {error}");
                return None;
            }
        };
        record.set_keeper_epoch(self.epoch);
        if record.claim_after_store() != Claim::Held {
            // The ticker has just found it orphaned. If the ticker then leaves it alone, it must find it orphaned
            // again.
            record.set_keeper_epoch(self.epoch.wrapping_sub(1));
            return None;
        }
        self.slot().connection_counts(record.kind()).add_adopted();
        let mut held = HeldConnection::new(socket);
        held.handler = handler.pid;
        self.held.insert(index, held);
        self.handlers
            .update(handler.pid, |entry| entry.add_connection(index));
        if record.is_over() {
            // The handler reported its end before the offer was received.
            self.release_connection(index);
            return None;
        }
        (!lives).then_some(handler)
    }

    /// Drops a connection until its handler offers it, as if this keeper had just started.
    pub(crate) fn requeue_adoption(&mut self, index: u32) {
        if self.held.remove(&index).is_none() {
            return;
        }
        let record = self.context.memory.connections.at(index);
        record.set_keeper_epoch(self.epoch.wrapping_sub(1));
        self.slot().connection_counts(record.kind()).mark_orphaned();
        self.to_adopt.push(index);
    }

    /// Adds a handler to this keeper's set, if it is not there. Says whether its exit is still to come.
    pub(crate) fn ensure_tracked(
        &mut self,
        handler: ProcessId,
        record: &ConnectionRecord,
    ) -> io::Result<bool> {
        let is_it = |entry: &HandlerEntry| entry.process == handler;
        match self.handlers.get(handler.pid).is_some_and(is_it) {
            true => Ok(true),
            false => self.track_adopted_handler(handler, record),
        }
    }

    /// Whether a connection that the handler serves, or may be about to serve, was not adopted yet: it would be lost
    /// with the handler.
    fn has_unadopted_connections(&self, pid: u32) -> bool {
        let may_be_its = |index: &u32| {
            let record = self.context.memory.connections.at(*index);
            record.claimed() == Claim::Held
                && record.keeper_epoch() != self.epoch
                && record.handler().is_none_or(|handler| handler.pid == pid)
        };
        self.to_adopt.iter().any(may_be_its)
    }

    /// Watches for the exit of a handler that is not a child of this process. It cannot be given new connections.
    /// Says whether its exit is still to come.
    fn track_adopted_handler(&mut self, handler: ProcessId, record: &ConnectionRecord) -> io::Result<bool> {
        let Some(pidfd) = handler.open_pidfd()? else {
            return Ok(false);
        };
        self.evict_stale_pid(handler);
        let token = Token(FIRST_ADOPTED + handler.pid as usize);
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&pidfd.as_raw_fd()), token, Interest::READABLE)?;
        let purpose = Purpose {
            is_reception: record.is_at_reception(),
            takes_more: false,
        };
        // A reception whose channel has ended cannot be told to release anybody.
        if purpose.is_reception {
            // First: those that have greeted there wait for a process.
            self.outdated.push_front(handler.pid);
        } else if record.handler_build() != self.context.build {
            self.outdated.push_back(handler.pid);
        }
        let mut entry = HandlerEntry::new(handler, Vec::new(), None, purpose, self.context.config);
        entry.pidfd = Some(pidfd);
        self.handlers.insert(entry);
        Ok(true)
    }

    /// Replaces the next handler that runs the program before an upgrade, or the next reception of a former keeper: it
    /// is killed, and its successor takes over.
    pub(crate) fn replace_outdated(&mut self) {
        let now = now_ms();
        if self.outdated.is_empty() || now < self.replace_outdated_at_ms {
            return;
        }
        self.replace_outdated_at_ms = now + UPGRADE_HANDLER_INTERVAL_MS;
        for _ in 0..self.outdated.len() {
            let Some(pid) = self.outdated.pop_front() else {
                return;
            };
            if self.has_unadopted_connections(pid) {
                self.outdated.push_back(pid);
                continue;
            }
            // It may have died meanwhile, and its pid may be that of another handler, which is a child of this
            // process.
            let Some(entry) = self.handlers.get(pid).filter(|entry| entry.pidfd.is_some()) else {
                continue;
            };
            match entry.process.send_signal(Signal::SIGKILL) {
                Ok(_) => {
                    self.handlers.update(pid, |entry| entry.is_replaced = true);
                }
                Err(error) => {
                    log::error!("cannot replace handler {pid} yet: {error}");
                    self.outdated.push_back(pid);
                }
            }
            return;
        }
    }

    /// Removes a handler that had the same pid and whose exit was not seen yet.
    pub(crate) fn evict_stale_pid(&mut self, process: ProcessId) {
        if self
            .handlers
            .get(process.pid)
            .is_some_and(|entry| entry.process != process)
        {
            self.on_adopted_exit(process.pid);
        }
    }

    /// An adopted handler has exited.
    pub(crate) fn on_adopted_exit(&mut self, pid: u32) {
        let take_pidfd = |entry: &mut HandlerEntry| entry.pidfd.take();
        let Some(pidfd) = self.handlers.update(pid, take_pidfd).flatten() else {
            // The exit of this process's own children is seen elsewhere.
            return;
        };
        // Closing it is not enough: a handler that was just forked may have a copy. The pidfd becomes readable again
        // when the supervisor reaps the dead handler, and that would be taken for the exit of its living successor.
        let raw = pidfd.as_raw_fd();
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&raw)) {
            log::error!("cannot stop watching a handler that has exited: {error}");
        }
        // Only the supervisor, as its parent, sees the exit status. The records tell which connections it has
        // finished.
        self.on_handler_exit(pid, None);
    }
}
