//! Which handler serves which connection, as long as nobody dies.
//!
//! Somebody new goes where there is a place, and else to a new process. Whoever enters a room asks to be served where the others in it
//! are. The keeper sends the socket to the next handler, and then asks the present one to let go, which says so in the record: two never
//! animate one connection, and at no moment does nobody.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use crate::process::admission::Refusal;
use crate::process::ipc::Assignment;
use crate::process::keeper::handlers::Worker;
use crate::process::keeper::spawn::HireError;
use crate::process::keeper::{Keeper, Kept};
use crate::state::connections::Kind;
use shmem::sys::clock::now_ms;
use shmem::sys::process::{ForkError, ProcessId};
use shmem::sys::sockets::SendOutcome;

impl Keeper {
    /// A connection that was just accepted.
    pub(crate) fn take_in(&mut self, kind: Kind, order: u64, socket: OwnedFd) {
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
        self.kept.insert(index, Kept::new(socket));
        self.slot().occupancy(kind).hold_new();
        let shares = kind == Kind::Game && self.hands_out();
        if shares && self.assign_to_newcomers_place(index) {
            self.spares.client_came(self.crew.idle(), now_ms());
            return;
        }
        if shares {
            self.spares.client_came(0, now_ms());
        }
        if let Err(error) = self.hire(vec![index], false, shares) {
            log::error!("cannot fork a handler: {error}");
            if matches!(error, HireError::Fork(ForkError::Identify(_))) {
                // It was there, and may have greeted: what it held is the ticker's to free. The client comes again.
                return self.give_up(index);
            }
            if let Some(kept) = self.kept.remove(&index) {
                self.refuse(kind, &kept.socket, Refusal::NoResources);
            }
            self.give_slot_back(index, kind);
        }
    }

    /// What handlers have to say of their connections.
    pub(crate) fn hear_news(&mut self) {
        let memory = self.context.memory;
        let first = memory.connections_of_keeper(self.index).start;
        for (word_index, word) in (0_u32..).zip(&self.slot().news) {
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let index = first + word_index * 64 + bits.trailing_zeros();
                bits &= bits - 1;
                let record = memory.connections.at(index);
                self.follow_move(index);
                if record.is_over() {
                    self.let_go(index);
                } else if let Some(other) = record.take_beside() {
                    self.ask_to_move(index, other);
                }
            }
        }
    }

    /// If the connection's handler has handed it over, it is the other's from now on.
    pub(crate) fn follow_move(&mut self, index: u32) {
        let record = self.context.memory.connections.at(index);
        let (Some(handler), Some(kept)) = (record.handler(), self.kept.get_mut(&index)) else {
            return;
        };
        if kept.handler == 0 || kept.handler == handler.pid {
            return;
        }
        let from = std::mem::replace(&mut kept.handler, handler.pid);
        self.crew.change(from, |worker| worker.hand_over(index));
        self.break_promise(index);
        // Promised or not, it has it.
        match self.know_handler(handler, record.handler_build()) {
            Ok(true) => {
                self.crew.change(handler.pid, |worker| worker.take_on(index));
            }
            Ok(false) => self.replace_dead(handler, vec![index]),
            Err(error) => {
                log::error!("cannot watch handler {handler}, which has taken a connection over: {error}");
                self.adopt_anew(index);
            }
        }
    }

    /// A client asks to be served where another one is. Its next handler gets the socket before its present one is asked to let go:
    /// somebody has it at every moment.
    fn ask_to_move(&mut self, index: u32, other: u32) {
        let (Some(kept), Some(to)) = (self.kept.get(&index), self.kept.get(&other)) else {
            return;
        };
        let (from, to) = (kept.handler, to.handler);
        if from == to || kept.moves_to == Some(to) || !self.crew.has_place_for_move(to) {
            return;
        }
        let asked = self.crew.get(from).filter(|worker| worker.channel.is_some());
        let Some(present) = asked.map(|worker| worker.process) else {
            return;
        };
        let connection = self.context.memory.connections.at(index).reference(index);
        self.break_promise(index);
        let expect = Assignment::Expect {
            connection,
            from: present,
        };
        let Some(next) = self.send_socket(index, to, expect) else {
            return;
        };
        if let Some(kept) = self.kept.get_mut(&index) {
            kept.moves_to = Some(to);
        }
        let hand_over = Assignment::HandOver { connection, to: next }.encode();
        let asks = self.crew.get(from).and_then(|worker| worker.channel.as_ref());
        if !asks.is_some_and(|asks| matches!(asks.send(&hand_over, &[]), Ok(SendOutcome::Sent))) {
            // It stays where it is.
            self.break_promise(index);
        }
    }

    /// A handler that was promised the connection does not get it.
    pub(crate) fn break_promise(&mut self, index: u32) {
        let promised_to = self.kept.get_mut(&index).and_then(|kept| kept.moves_to.take());
        if let Some(other) = promised_to {
            self.crew.change(other, |worker| worker.hand_over(index));
        }
    }

    fn assign_to_newcomers_place(&mut self, index: u32) -> bool {
        while let Some(pid) = self.crew.place_for_newcomer() {
            if self.assign(index, pid) {
                return true;
            }
            // It is dead, or has too much to do: it is given nothing more.
            self.crew.change(pid, |worker| worker.channel = None);
        }
        false
    }

    /// Gives a connection to a handler that is there. Says whether that was possible.
    fn assign(&mut self, index: u32, pid: u32) -> bool {
        let record = self.context.memory.connections.at(index);
        let serve = Assignment::Serve {
            connection: record.reference(index),
        };
        let Some(handler) = self.send_socket(index, pid, serve) else {
            return false;
        };
        if let Some(kept) = self.kept.get_mut(&index) {
            kept.handler = pid;
        }
        // Not before it was sent: if this process died in between, the handler would be waited for that had never heard of it.
        record.set_handler(handler, self.context.build);
        true
    }

    /// Sends a connection's socket to a handler, which has one client more from now on.
    fn send_socket(&mut self, index: u32, pid: u32, message: Assignment) -> Option<ProcessId> {
        let socket = self.kept.get(&index)?.socket.as_fd();
        let send = |worker: &mut Worker| {
            let channel = worker.channel.as_ref()?;
            match channel.send(&message.encode(), &[socket]) {
                Ok(SendOutcome::Sent) => {}
                Ok(SendOutcome::WouldBlock | SendOutcome::PeerGone) => return None,
                Err(error) => {
                    log::warn!("cannot give a connection to handler {}: {error}", worker.process);
                    return None;
                }
            }
            worker.take_on(index);
            Some(worker.process)
        };
        self.crew.change(pid, send).flatten()
    }
}
