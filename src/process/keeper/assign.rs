//! Which handler serves which connection, as long as no process dies.
//!
//! A new connection goes to a reception: a handler that serves newcomers until they have greeted, and runs no player.
//! A connection that has greeted moves on to a running handler that has room, or else to a new process. When a player
//! enters a room, its handler asks the keeper to move the connection to the handler that serves the others in the room.
//!
//! For a move the keeper gives the socket to the next handler, and then asks the present one to release the connection,
//! which it does in one store in the record. So a connection has exactly one handler at every moment.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use crate::limits::{ASSIGN_BATCH_MAX, TAKEOVER_RETRY_MS};
use crate::process::handler::Start;
use crate::process::ipc::HandlerMessage;
use crate::process::keeper::Keeper;
use crate::process::keeper::handlers::{HandlerEntry, Purpose};
use crate::process::keeper::spawn::SpawnError;
use crate::state::connections::{MoveRequest, ServedBy};
use crate::state::layout::ConnectionRef;
use shmem::sys::clock::now_ms;
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
                } else {
                    match record.take_move_request() {
                        Some(MoveRequest::OutOfReception) => self.greeted.push_back(record.reference(index)),
                        Some(MoveRequest::Near(other)) => self.start_move_near(index, other),
                        None => {}
                    }
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
        match self.ensure_tracked(handler, record) {
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

    /// Begins to move connections that have greeted out of the receptions, a few at a time. What cannot be moved now is
    /// tried again a little later; the client waits, at most until the reception gives it up.
    pub(crate) fn move_greeted(&mut self) {
        if self.greeted_due_ms > now_ms() {
            return;
        }
        for _ in 0..self.greeted.len().min(ASSIGN_BATCH_MAX as usize) {
            if let Some(connection) = self.greeted.pop_front()
                && !self.move_out_of_reception(connection)
            {
                self.retry_greeted(connection);
            }
        }
    }

    /// How long until connections that have greeted are moved, in milliseconds.
    pub(crate) fn move_greeted_due_ms(&self) -> Option<u64> {
        (!self.greeted.is_empty()).then(|| self.greeted_due_ms.saturating_sub(now_ms()))
    }

    /// The next handler of a connection that has greeted failed, or there is none.
    pub(crate) fn retry_greeted(&mut self, connection: ConnectionRef) {
        self.greeted.push_back(connection);
        self.greeted_due_ms = now_ms() + TAKEOVER_RETRY_MS;
    }

    /// False if that must be tried again.
    fn move_out_of_reception(&mut self, connection: ConnectionRef) -> bool {
        let index = connection.index();
        let record = self.context.memory.connections.at(index);
        let Some(held) = self
            .held
            .get(&index)
            .filter(|_| record.reference(index) == connection)
        else {
            return true;
        };
        let is_able = |entry: &&HandlerEntry| entry.purpose.is_reception && entry.channel.is_some();
        let Some(from) = self.handlers.get(held.handler).filter(is_able) else {
            // It has moved; or a successor of its reception asks again.
            return true;
        };
        let from = from.process;
        let next = match held.moves_to {
            Some(pid) => self.handlers.get(pid).map(|entry| entry.process),
            None => self.prepare_handler(index, from),
        };
        next.is_some_and(|next| self.ask_to_release(index, next))
    }

    /// Gives the socket of a connection that has greeted to a handler of players, which then expects it.
    fn prepare_handler(&mut self, index: u32, from: ProcessId) -> Option<ProcessId> {
        let may_share = self.assigns_connections() && !self.context.memory.connections.at(index).is_suspect();
        if may_share {
            while let Some(pid) = self.handlers.pick_for_player() {
                if let Some(next) = self.expect_move(index, pid, from) {
                    self.prefork.on_connection(self.handlers.idle(), now_ms());
                    return Some(next);
                }
                self.stop_assigning(pid);
            }
            self.prefork.on_connection(0, now_ms());
        }
        let purpose = Purpose {
            is_reception: false,
            takes_more: may_share,
        };
        match self.spawn_handler(vec![index], purpose, Start::Move { from }) {
            Ok(next) => Some(next),
            Err(error) => {
                log::error!("cannot fork a handler: {error}; trying again in {TAKEOVER_RETRY_MS} ms");
                None
            }
        }
    }

    /// Begins to move a connection to the handler of another one.
    fn start_move_near(&mut self, index: u32, other: u32) {
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
        self.cancel_move(index);
        if let Some(next) = self.expect_move(index, to, present)
            && !self.ask_to_release(index, next)
        {
            // It stays where it is.
            self.cancel_move(index);
        }
    }

    /// Gives the socket to a running handler that gets the connection as soon as the present one has released it. That
    /// comes first, so that one of them has it at every moment.
    fn expect_move(&mut self, index: u32, to: u32, from: ProcessId) -> Option<ProcessId> {
        let connection = self.context.memory.connections.at(index).reference(index);
        let next = self.send_socket(index, to, HandlerMessage::ExpectMove { connection, from })?;
        if let Some(held) = self.held.get_mut(&index) {
            held.moves_to = Some(to);
        }
        Some(next)
    }

    /// Asks the present handler to release the connection to another one, which expects it. Says whether it will hear
    /// of that.
    fn ask_to_release(&self, index: u32, to: ProcessId) -> bool {
        let connection = self.context.memory.connections.at(index).reference(index);
        let move_to = HandlerMessage::MoveTo { connection, to }.encode();
        let present = self
            .held
            .get(&index)
            .and_then(|held| self.handlers.get(held.handler));
        present
            .and_then(|entry| entry.channel.as_ref())
            .is_some_and(|channel| matches!(channel.send(&move_to, &[]), Ok(SendOutcome::Sent)))
    }

    /// The handler that the connection was to move to does not get it.
    pub(crate) fn cancel_move(&mut self, index: u32) {
        let moves_to = self.held.get_mut(&index).and_then(|held| held.moves_to.take());
        if let Some(other) = moves_to {
            self.handlers.update(other, |entry| entry.move_out(index));
        }
    }

    /// Gives a newcomer to a reception.
    pub(super) fn assign_to_reception(&mut self, index: u32) -> Result<(), SpawnError> {
        while let Some(pid) = self.handlers.pick_reception() {
            if self.assign(index, pid) {
                return Ok(());
            }
            self.stop_assigning(pid);
        }
        if !self.handlers.has_room_for_reception() {
            return Err(SpawnError::TooManyReceptions);
        }
        self.spawn_handler(vec![index], Purpose::RECEPTION, Start::New)
            .map(drop)
    }

    /// The handler is dead or overloaded: it gets no further connections.
    fn stop_assigning(&mut self, pid: u32) {
        self.handlers
            .update(pid, |entry| entry.purpose.takes_more = false);
    }

    /// Gives a newcomer to a running reception. Says whether that was possible.
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
        record.set_handler(ServedBy {
            process: handler,
            build: self.context.build,
            is_reception: true,
        });
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
