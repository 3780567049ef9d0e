//! Which handler serves which connection, as long as no process dies.
//!
//! A new connection goes to a running handler that has room, or else to a new process. When a player enters a room,
//! its handler asks the keeper to move the connection to the handler that serves the others in the room. The keeper
//! sends the socket to the next handler, and then asks the present one to release the connection, which it does in
//! one store in the record. So a connection has exactly one handler at every moment.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use crate::process::ipc::HandlerMessage;
use crate::process::keeper::Keeper;
use crate::process::keeper::handlers::HandlerEntry;
use shmem::sys::process::ProcessId;
use shmem::sys::sockets::SendOutcome;

impl Keeper {
    /// Looks at the connections of which handlers have notified this keeper.
    pub(crate) fn process_notifications(&mut self) {
        let memory = self.context.memory;
        let first = memory.connections_of_keeper(self.index).start;
        for (word_index, word) in (0_u32..).zip(&self.slot().notifications) {
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let index = first + word_index * 64 + bits.trailing_zeros();
                bits &= bits - 1;
                let record = memory.connections.at(index);
                self.complete_move(index);
                if record.is_over() {
                    self.release_connection(index);
                } else if let Some(other) = record.take_move_near() {
                    self.start_move(index, other);
                }
            }
        }
    }

    /// Makes the handler in the connection's record its handler, if that is another than before: the move is
    /// complete.
    pub(crate) fn complete_move(&mut self, index: u32) {
        let record = self.context.memory.connections.at(index);
        let (Some(handler), Some(held)) = (record.handler(), self.held.get_mut(&index)) else {
            return;
        };
        if held.handler == 0 || held.handler == handler.pid {
            return;
        }
        let from = std::mem::replace(&mut held.handler, handler.pid);
        self.handlers.update(from, |entry| entry.move_out(index));
        self.cancel_move(index);
        // It has the connection, whether this keeper expected that or not.
        match self.ensure_tracked(handler, record.handler_build()) {
            Ok(true) => {
                self.handlers
                    .update(handler.pid, |entry| entry.add_connection(index));
            }
            Ok(false) => self.replace_dead(handler, vec![index]),
            Err(error) => {
                log::error!("cannot watch handler {handler}, to which a connection has moved: {error}");
                self.requeue_adoption(index);
            }
        }
    }

    /// Begins to move a connection to the handler of another one. That handler gets the socket before the present one
    /// is asked to release the connection, so that one of them has it at every moment.
    fn start_move(&mut self, index: u32, other: u32) {
        let (Some(held), Some(to)) = (self.held.get(&index), self.held.get(&other)) else {
            return;
        };
        let (from, to) = (held.handler, to.handler);
        if from == to || held.moves_to == Some(to) || !self.handlers.can_receive_move(to) {
            return;
        }
        let present = self.handlers.get(from).filter(|entry| entry.channel.is_some());
        let Some(present) = present.map(|entry| entry.process) else {
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
        let move_to = HandlerMessage::MoveTo { connection, to: next }.encode();
        let channel = self.handlers.get(from).and_then(|entry| entry.channel.as_ref());
        if !channel.is_some_and(|channel| matches!(channel.send(&move_to, &[]), Ok(SendOutcome::Sent))) {
            // It stays where it is.
            self.cancel_move(index);
        }
    }

    /// The handler that the connection was to move to does not get it.
    pub(crate) fn cancel_move(&mut self, index: u32) {
        let moves_to = self.held.get_mut(&index).and_then(|held| held.moves_to.take());
        if let Some(other) = moves_to {
            self.handlers.update(other, |entry| entry.move_out(index));
        }
    }

    pub(super) fn assign_to_running_handler(&mut self, index: u32) -> bool {
        while let Some(pid) = self.handlers.pick_for_new_connection() {
            if self.assign(index, pid) {
                return true;
            }
            // It is dead or overloaded: it gets no further connections.
            self.handlers.update(pid, |entry| entry.channel = None);
        }
        false
    }

    /// Gives a connection to a running handler. Says whether that was possible.
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
        // Only after the message was sent: if this process died in between, the record would name a handler that
        // never hears of it.
        record.set_handler(handler, self.context.build);
        true
    }

    /// Sends a connection's socket to a handler, which from now on counts it as its own.
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
        self.handlers.update(pid, send).flatten()
    }
}
