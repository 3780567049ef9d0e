//! Which handler serves which connection, as long as nobody dies.
//!
//! Somebody new goes where there is a place, and else to a new process. Whoever enters a room asks to be served where the others in it
//! are. The keeper then asks the present handler to let go, which sends the socket back; only then has the next one it: two never
//! animate one connection.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use super::hiring::{HireError, Unserved};
use super::{Keeper, Kept};
use crate::admission::Refusal;
use crate::lobby::connections::{Claim, Kind};
use crate::sys::clock::now_ms;
use crate::sys::process::ForkError;
use crate::sys::sockets::SendOutcome;
use crate::wiring::Assignment;

impl Keeper {
    /// A connection that was just accepted.
    pub(super) fn take_in(&mut self, kind: Kind, order: u64, socket: OwnedFd) {
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
        self.slot().hold(kind);
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
    pub(super) fn hear_news(&mut self) {
        let memory = self.context.memory;
        let first = memory.connections_of_keeper(self.index).start;
        for (word_index, word) in (0_u32..).zip(&self.slot().news) {
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let index = first + word_index * 64 + bits.trailing_zeros();
                bits &= bits - 1;
                let record = memory.connections.at(index);
                if record.is_over() {
                    self.let_go(index);
                } else if let Some(other) = record.take_beside() {
                    self.ask_to_move(index, other);
                }
            }
        }
    }

    /// The connection's handler has let go of it, so that another may have it. Its socket comes with the news, unless it was lost on the
    /// way.
    pub(super) fn handed_over(&mut self, index: u32, pid: u32, socket: Option<OwnedFd>) {
        let Some(record) = self.context.memory.connections.get(index) else {
            return;
        };
        let moves_to = match (self.kept.get_mut(&index), socket) {
            (Some(kept), _) if kept.handler == pid => {
                kept.handler = 0;
                self.crew.change(pid, |worker| {
                    worker.leave_off(index);
                    // Who goes on elsewhere has not used a place up.
                    worker.clients_left = worker.clients_left.saturating_add(1);
                });
                kept.moves_to.take()
            }
            // That handler has died meanwhile, and its successor has what it had.
            (Some(_), _) => return,
            // This keeper's predecessor had asked for it.
            (None, Some(socket))
                if record.claimed() == Claim::Held
                    && !record.is_over()
                    // Else that keeper has lived to give it to another.
                    && record.handler().is_none_or(|handler| handler.pid == pid) =>
            {
                self.kept.insert(index, Kept::new(socket));
                record.set_keeper_epoch(self.epoch);
                self.slot().hold(record.kind());
                self.context.memory.count_outliving(self.index);
                None
            }
            (None, _) => return,
        };
        let is_placed = moves_to
            .is_some_and(|pid| self.crew.has_place_for_move(pid) && self.assign(index, pid))
            || self.assign_to_newcomers_place(index);
        if !is_placed {
            self.unserved.push_back(Unserved::new(vec![index], true));
        }
    }

    /// A client asks to be served where another one is.
    fn ask_to_move(&mut self, index: u32, other: u32) {
        let handler_of = |index| self.kept.get(&index).map(|kept| kept.handler);
        let (Some(from), Some(to)) = (handler_of(index), handler_of(other)) else {
            return;
        };
        if from == to || !self.crew.has_place_for_move(to) {
            return;
        }
        let Some(channel) = self.crew.get(from).and_then(|worker| worker.channel.as_ref()) else {
            return;
        };
        let connection = self.context.memory.connections.at(index).reference(index);
        // If it cannot be asked, the client stays where it is.
        if let Ok(SendOutcome::Sent) = channel.send(&Assignment::HandOver { connection }.encode(), &[])
            && let Some(kept) = self.kept.get_mut(&index)
        {
            kept.moves_to = Some(to);
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
        let Some(kept) = self.kept.get_mut(&index) else {
            return false;
        };
        let record = self.context.memory.connections.at(index);
        let message = Assignment::Serve {
            connection: record.reference(index),
        };
        let socket = kept.socket.as_fd();
        let send = |worker: &mut super::crew::Worker| {
            let channel = worker.channel.as_ref()?;
            match channel.send(&message.encode(), &[socket]) {
                Ok(SendOutcome::Sent) => {}
                Ok(SendOutcome::WouldBlock | SendOutcome::PeerGone) => return None,
                Err(error) => {
                    log::warn!("cannot give a connection to handler {}: {error}", worker.process);
                    return None;
                }
            }
            worker.connections.push(index);
            worker.clients_left = worker.clients_left.saturating_sub(1);
            Some(worker.process)
        };
        let Some(handler) = self.crew.change(pid, send).flatten() else {
            return false;
        };
        kept.handler = pid;
        // Not before it was sent: if this process died in between, the handler would be waited for that had never heard of it.
        record.set_handler(handler, self.context.build);
        true
    }
}
