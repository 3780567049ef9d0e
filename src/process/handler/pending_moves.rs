//! Connections that are moving to this process: it has their sockets, and their present handlers serve them until
//! they release them.
//!
//! So a connection that moves has exactly one handler at every moment, which is entered in its record and has its
//! socket. Whichever process is killed meanwhile, another goes on with the connection.
//!
//! A keeper that dies between its two messages leaves a move that is never completed. It costs this process a
//! descriptor and a look per second until the connection ends or moves again: it cannot be told from one whose second
//! message was not read yet.

use std::os::fd::OwnedFd;

use crate::limits::{PENDING_MOVE_POLL_MS_MAX, PENDING_MOVE_POLL_MS_MIN};
use crate::state::connections::{Claim, ConnectionRecord};
use crate::state::layout::ConnectionRef;
use shmem::sys::process::ProcessId;
use shmem::table::Table;

/// Those connections. The handler that releases one sends a signal. Since it can be killed before that, the records
/// are looked at now and then, too.
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
    /// The handler that is to release it. If the record names a third process, the connection does not come from
    /// there any more.
    from: ProcessId,
}

/// What the record says of a moving connection.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Its present handler has not released it.
    ToCome,
    /// It belongs to this process.
    HandedOver,
    /// It has ended, or another process has it: it does not come here.
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

    /// When to look at the records, in milliseconds of the monotonic clock.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.look_at_ms)
    }

    /// The keeper has announced a move.
    pub(crate) fn enter(&mut self, connection: ConnectionRef, socket: OwnedFd, from: ProcessId, now_ms: u64) {
        // Announced again, it comes from the handler that it has now.
        self.connections.retain(|other| other.connection != connection);
        self.connections.push(PendingMove {
            connection,
            socket,
            from,
        });
        // It may have been released already.
        self.look_at_ms = now_ms;
        self.pause_ms = PENDING_MOVE_POLL_MS_MIN;
    }

    /// Takes out the connections that belong to this process now, and drops those that do not come any more.
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
        // (Checked once more: one that was released meanwhile is kept.)
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
