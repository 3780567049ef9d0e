//! Connections that this process is about to serve: it has their sockets, and others animate them until they say that they do not any more.
//!
//! So a connection that moves from one process to another has an owner at every moment, entered in its record, who has its socket:
//! whoever is killed meanwhile, somebody goes on with it.
//!
//! A keeper that dies between its two messages leaves a promise that nobody will keep. It costs this process a descriptor and a look
//! per second until the connection ends or changes hands: it cannot be told from one whose second message has not been read yet.

use std::os::fd::OwnedFd;

use crate::limits::{PENDING_MOVE_POLL_MS_MAX, PENDING_MOVE_POLL_MS_MIN};
use crate::state::connections::{Claim, ConnectionRecord};
use crate::state::layout::ConnectionRef;
use shmem::sys::process::ProcessId;
use shmem::table::Table;

/// Those connections. Who hands one over sends a signal; they are looked at all the same now and then, since it can be killed before.
#[derive(Debug, Default)]
pub(crate) struct PendingMoves {
    connections: Vec<PendingMove>,
    look_at_ms: u64,
    pause_ms: u64,
}

#[derive(Debug)]
struct PendingMove {
    connection: ConnectionRef,
    socket: OwnedFd,
    /// Who is to hand it over. If anybody else comes to have it, it does not come from there any more.
    from: ProcessId,
}

/// What an entry says of an expected connection.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Its handler has not let go of it.
    ToCome,
    /// It is this process's.
    HandedOver,
    /// It ended, or another process has it, and it does not come any more.
    Gone,
}

impl PendingMove {
    fn state(&self, record: &ConnectionRecord, me: ProcessId) -> State {
        let handler = record.handler();
        let is_there = record.claimed() == Claim::Held
            && record.reference(self.connection.index()) == self.connection
            && !record.is_over();
        match is_there {
            true if handler == Some(me) => State::HandedOver,
            true if handler == Some(self.from) => State::ToCome,
            _ => State::Gone,
        }
    }
}

impl PendingMoves {
    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// When it is time to look, in milliseconds of the monotonic clock.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.look_at_ms)
    }

    /// The keeper has announced one.
    pub(crate) fn enter(&mut self, connection: ConnectionRef, socket: OwnedFd, from: ProcessId, now_ms: u64) {
        // Announced again, it is expected from whoever has it now.
        self.connections.retain(|other| other.connection != connection);
        self.connections.push(PendingMove {
            connection,
            socket,
            from,
        });
        // It may have been handed over already.
        self.look_at_ms = now_ms;
        self.pause_ms = PENDING_MOVE_POLL_MS_MIN;
    }

    /// Takes out those that are this process's now, and forgets those that do not come any more.
    pub(crate) fn take_completed(
        &mut self,
        records: &Table<ConnectionRecord>,
        me: ProcessId,
        now_ms: u64,
    ) -> Vec<(ConnectionRef, OwnedFd)> {
        if self.is_empty() {
            return Vec::new();
        }
        let state = |arrival: &PendingMove| arrival.state(records.at(arrival.connection.index()), me);
        let (arrived, others) = std::mem::take(&mut self.connections)
            .into_iter()
            .partition::<Vec<PendingMove>, _>(|arrival| state(arrival) == State::HandedOver);
        self.connections = others;
        // (Looked at once more: what has been handed over meanwhile is kept.)
        self.connections.retain(|arrival| state(arrival) != State::Gone);
        if self.look_at_ms <= now_ms {
            self.look_at_ms = now_ms + self.pause_ms;
            self.pause_ms = (self.pause_ms * 2).min(PENDING_MOVE_POLL_MS_MAX);
        }
        arrived
            .into_iter()
            .map(|arrival| (arrival.connection, arrival.socket))
            .collect()
    }
}
