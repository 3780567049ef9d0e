//! Which handler serves which connection, as long as nobody dies.
//!
//! Somebody new goes where there is a place, and else to a new process. Whoever enters a room asks to be served where the others in it
//! are. The keeper sends the socket to the next handler, and then asks the present one to let go, which says so in the record: two never
//! animate one connection, and at no moment does nobody.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use crate::process::admission::Refusal;
use crate::process::ipc::HandlerMessage;
use crate::process::keeper::handlers::HandlerEntry;
use crate::process::keeper::spawn::SpawnError;
use crate::process::keeper::{HeldConnection, Keeper};
use crate::state::connections::Kind;
use shmem::sys::clock::now_ms;
use shmem::sys::process::{ForkError, ProcessId};
use shmem::sys::sockets::SendOutcome;

impl Keeper {
    /// A connection that was just accepted.
    pub(crate) fn accept_connection(&mut self, kind: Kind, order: u64, socket: OwnedFd) {
        let socket = TcpStream::from(socket);
        // A client that has gone already has no address any more.
        let peer = socket
            .peer_addr()
            .unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let socket = OwnedFd::from(socket);
        let Some((index, record)) = self.claim_slot(kind, peer) else {
            log::error!("no connection slot is free");
            self.refuse(kind, &socket, Refusal::Full);
            return;
        };
        record.set_order(order);
        self.held.insert(index, HeldConnection::new(socket));
        self.slot().occupancy(kind).hold_new();
        let shares = kind == Kind::Game && self.assigns_connections();
        if shares && self.assign_to_running_handler(index) {
            self.spares.client_came(self.handlers.idle(), now_ms());
            return;
        }
        if shares {
            self.spares.client_came(0, now_ms());
        }
        if let Err(error) = self.spawn_handler(vec![index], false, shares) {
            log::error!("cannot fork a handler: {error}");
            if matches!(error, SpawnError::Fork(ForkError::Identify(_))) {
                // It was there, and may have greeted: what it held is the ticker's to free. The client comes again.
                return self.abandon_connection(index);
            }
            if let Some(held) = self.held.remove(&index) {
                self.refuse(kind, &held.socket, Refusal::NoResources);
            }
            self.free_slot(index, kind);
        }
    }

    /// What handlers have to say of their connections.
    pub(crate) fn process_notifications(&mut self) {
        let memory = self.context.memory;
        let first = memory.connections_of_keeper(self.index).start;
        for (word_index, word) in (0_u32..).zip(&self.slot().news) {
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let index = first + word_index * 64 + bits.trailing_zeros();
                bits &= bits - 1;
                let record = memory.connections.at(index);
                self.complete_move(index);
                if record.is_over() {
                    self.release_connection(index);
                } else if let Some(other) = record.take_beside() {
                    self.start_move(index, other);
                }
            }
        }
    }

    /// If the connection's handler has handed it over, it is the other's from now on.
    pub(crate) fn complete_move(&mut self, index: u32) {
        let record = self.context.memory.connections.at(index);
        let (Some(handler), Some(held)) = (record.handler(), self.held.get_mut(&index)) else {
            return;
        };
        if held.handler == 0 || held.handler == handler.pid {
            return;
        }
        let from = std::mem::replace(&mut held.handler, handler.pid);
        self.handlers.change(from, |entry| entry.move_out(index));
        self.cancel_move(index);
        // Promised or not, it has it.
        match self.ensure_tracked(handler, record.handler_build()) {
            Ok(true) => {
                self.handlers
                    .change(handler.pid, |entry| entry.add_connection(index));
            }
            Ok(false) => self.replace_dead(handler, vec![index]),
            Err(error) => {
                log::error!("cannot watch handler {handler}, which has taken a connection over: {error}");
                self.requeue_adoption(index);
            }
        }
    }

    /// A client asks to be served where another one is. Its next handler gets the socket before its present one is asked to let go:
    /// somebody has it at every moment.
    fn start_move(&mut self, index: u32, other: u32) {
        let (Some(held), Some(to)) = (self.held.get(&index), self.held.get(&other)) else {
            return;
        };
        let (from, to) = (held.handler, to.handler);
        if from == to || held.moves_to == Some(to) || !self.handlers.can_receive_move(to) {
            return;
        }
        let asked = self.handlers.get(from).filter(|entry| entry.channel.is_some());
        let Some(present) = asked.map(|entry| entry.process) else {
            return;
        };
        let connection = self.context.memory.connections.at(index).reference(index);
        self.cancel_move(index);
        let expect = HandlerMessage::ExpectMove {
            connection,
            from: present,
        };
        let Some(next) = self.send_socket(index, to, expect) else {
            return;
        };
        if let Some(held) = self.held.get_mut(&index) {
            held.moves_to = Some(to);
        }
        let hand_over = HandlerMessage::MoveTo { connection, to: next }.encode();
        let asks = self.handlers.get(from).and_then(|entry| entry.channel.as_ref());
        if !asks.is_some_and(|asks| matches!(asks.send(&hand_over, &[]), Ok(SendOutcome::Sent))) {
            // It stays where it is.
            self.cancel_move(index);
        }
    }

    /// A handler that was promised the connection does not get it.
    pub(crate) fn cancel_move(&mut self, index: u32) {
        let promised_to = self.held.get_mut(&index).and_then(|held| held.moves_to.take());
        if let Some(other) = promised_to {
            self.handlers.change(other, |entry| entry.move_out(index));
        }
    }

    fn assign_to_running_handler(&mut self, index: u32) -> bool {
        while let Some(pid) = self.handlers.pick_for_new_connection() {
            if self.assign(index, pid) {
                return true;
            }
            // It is dead, or has too much to do: it is given nothing more.
            self.handlers.change(pid, |entry| entry.channel = None);
        }
        false
    }

    /// Gives a connection to a handler that is there. Says whether that was possible.
    fn assign(&mut self, index: u32, pid: u32) -> bool {
        let record = self.context.memory.connections.at(index);
        let serve = HandlerMessage::Serve {
            connection: record.reference(index),
        };
        let Some(handler) = self.send_socket(index, pid, serve) else {
            return false;
        };
        if let Some(held) = self.held.get_mut(&index) {
            held.handler = pid;
        }
        // Not before it was sent: if this process died in between, the handler would be waited for that had never heard of it.
        record.set_handler(handler, self.context.build);
        true
    }

    /// Sends a connection's socket to a handler, which has one client more from now on.
    fn send_socket(&mut self, index: u32, pid: u32, message: HandlerMessage) -> Option<ProcessId> {
        let socket = self.held.get(&index)?.socket.as_fd();
        let send = |entry: &mut HandlerEntry| {
            let channel = entry.channel.as_ref()?;
            match channel.send(&message.encode(), &[socket]) {
                Ok(SendOutcome::Sent) => {}
                Ok(SendOutcome::WouldBlock | SendOutcome::PeerGone) => return None,
                Err(error) => {
                    log::warn!("cannot give a connection to handler {}: {error}", entry.process);
                    return None;
                }
            }
            entry.add_connection(index);
            Some(entry.process)
        };
        self.handlers.change(pid, send).flatten()
    }
}
