//! How connections arrive: from the channel that the listener, other keepers and their handlers send sockets to.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use crate::limits::{ACCEPT_RETRY_MS, ASSIGN_BATCH_MAX, OPENING_BYTES_MAX};
use crate::process::admission::Refusal;
use crate::process::handler::Start;
use crate::process::ipc::KeeperMessage;
use crate::process::keeper::handlers::Purpose;
use crate::process::keeper::spawn::SpawnError;
use crate::process::keeper::{HeldConnection, Keeper};
use crate::process::listener::{peer_of, send_refusal};
use crate::process::process_table::Context;
use crate::state::connections::{Claim, ConnectionRecord, KINDS, Kind, Peer};
use shmem::sys::clock::now_ms;
use shmem::sys::process::{ForkError, ProcessId};
use shmem::sys::sockets::{ChannelError, ReceiveOutcome, receive_into};

impl Keeper {
    /// Receives what is in the channel: from the listener, from handlers that outlived a keeper, and from a
    /// predecessor.
    pub(super) fn receive_connections(&mut self) -> io::Result<()> {
        let mut by_dead_handler = HashMap::new();
        let received = self.receive_messages(&mut by_dead_handler);
        for (dead, connections) in by_dead_handler {
            self.replace_dead(dead, connections);
        }
        received
    }

    /// Collects connections whose handler is found dead, by that handler: so all connections of one handler get one
    /// successor.
    fn receive_messages(&mut self, by_dead_handler: &mut HashMap<ProcessId, Vec<u32>>) -> io::Result<()> {
        let ipc = self.context.ipc;
        let channel = &ipc.keepers[self.index as usize].receiver;
        let slot = self.slot();
        let sent_before = KINDS.map(|kind| slot.sent(kind));
        let mut message = [0; KeeperMessage::BYTES_MAX];
        self.receive_again_at_ms = None;
        let mut accepted = 0;
        loop {
            // Others get a handler in between, first of all those that have lost theirs. (Adopted connections do not
            // count: a handler whose connection was not adopted yet could die unnoticed.)
            if accepted == ASSIGN_BATCH_MAX {
                self.receive_again_at_ms = Some(now_ms());
                return Ok(());
            }
            self.liveness.report();
            match channel.receive(&mut message) {
                Ok(ReceiveOutcome::Message { bytes, descriptors }) => {
                    match KeeperMessage::decode(&message[..bytes]) {
                        Some(KeeperMessage::New { kind, number, order }) => {
                            for socket in descriptors {
                                accepted += 1;
                                self.accept_connection(kind, order, socket);
                                // This connection has arrived; an earlier one that has not is lost.
                                let new = slot.connection_counts(kind).set_received_up_to(number);
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
                // Nothing is lost: what is in the channel is received later.
                Err(error @ ChannelError::System { .. }) => {
                    log::error!(
                        "cannot receive connections from the listener: {error}; trying again in {ACCEPT_RETRY_MS} ms"
                    );
                    self.receive_again_at_ms = Some(now_ms() + ACCEPT_RETRY_MS);
                    return Ok(());
                }
                // A new client sees a reset and connects again. A connection with a handler is requested again.
                Err(error) => log::error!("sockets were lost in transit: {error}"),
            }
        }
        // All that were sent before have arrived, or died with a predecessor.
        for (kind, sent) in KINDS.into_iter().zip(sent_before) {
            self.count_lost(slot.connection_counts(kind).set_received_up_to(sent));
        }
        slot.settle();
        Ok(())
    }

    /// Gives a connection that was just accepted a slot and a handler, or refuses it.
    pub(crate) fn accept_connection(&mut self, kind: Kind, order: u64, socket: OwnedFd) {
        let peer = peer_of(&socket);
        // It has reset the connection already, as proxies end their health checks: nobody is left to be served, and
        // whether it is a trusted proxy cannot be told.
        if peer.is_gone() {
            return;
        }
        if let Peer::Process { .. } = peer {
            log::info!("a console connection from {peer}");
        }
        let Some((index, record)) = self.claim_slot(kind, peer) else {
            log::error!("no connection slot is free");
            self.refuse(kind, &socket, Refusal::Full);
            return;
        };
        record.set_order(order);
        self.held.insert(index, HeldConnection::new(socket));
        self.slot().connection_counts(kind).add_new();
        let served = match kind {
            Kind::Game => self.assign_to_reception(index),
            Kind::Console => self
                .spawn_handler(vec![index], Purpose::OPERATOR, Start::New)
                .map(drop),
        };
        if let Err(error) = served {
            log::error!("a connection gets no handler: {error}");
            if matches!(error, SpawnError::Fork(ForkError::Identify(_))) {
                // The handler ran, and may have begun a session: the ticker frees what it held. The client connects
                // again.
                return self.abandon_connection(index);
            }
            if let Some(held) = self.held.remove(&index) {
                let refusal = match error {
                    SpawnError::TooManyReceptions => Refusal::Full,
                    _ => Refusal::NoResources,
                };
                self.refuse(kind, &held.socket, refusal);
            }
            self.free_slot(index, kind);
        }
    }

    /// Enters where the client of a new connection comes from: that of a trusted proxy is known later.
    fn enter_origin(&self, index: u32, peer: Peer) {
        let Context { memory, config, .. } = self.context;
        memory.set_greeting(index, true);
        match peer {
            Peer::Network(address) if config.is_trusted_proxy(address.ip()) => {
                memory.connections.at(index).set_behind_proxy();
            }
            _ => {
                let source = memory.header.source_of(peer);
                memory.sources.set_of_connection(index, source);
            }
        }
    }

    /// Counts connections that a predecessor had received when it died, or whose descriptor did not arrive.
    fn count_lost(&self, connections: u32) {
        let lost = &self.context.memory.header.lost_before_handshake_total;
        lost.fetch_add(connections.into(), Ordering::Relaxed);
    }

    fn refuse(&self, kind: Kind, socket: &OwnedFd, refusal: Refusal) {
        send_refusal(&self.context, kind, socket, refusal);
        // The kernel would send a reset if the socket were closed with bytes unread, and the client could lose the
        // reason.
        let mut ignored = [0; OPENING_BYTES_MAX];
        let _ = receive_into(socket, &mut ignored);
    }

    fn claim_slot(&mut self, kind: Kind, peer: Peer) -> Option<(u32, &'static ConnectionRecord)> {
        let memory = self.context.memory;
        loop {
            // A slot that was free when it was noted may be in use again.
            while let Some(index) = self.free.pop() {
                let record = memory.connections.at(index);
                if record.claim(kind, peer, self.epoch, now_ms()) {
                    if kind == Kind::Game {
                        self.enter_origin(index, peer);
                    }
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
}
