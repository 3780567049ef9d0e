//! A keeper's handlers, and which of them can serve one connection more.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use crate::config::Config;
use crate::limits::{PLACES_FOR_MOVES_ONE_IN, RECEPTION_CONNECTIONS_MAX, RECEPTIONS_PER_KEEPER_MAX};
use shmem::sys::process::ProcessId;
use shmem::sys::sockets::Channel;

/// What a handler is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Purpose {
    /// It serves connections until they have greeted. Otherwise it serves players, or an operator.
    pub(crate) is_reception: bool,
    /// It may be given connections besides those that it was forked with.
    pub(crate) takes_more: bool,
}

impl Purpose {
    /// Of a reception that any newcomer may be given to.
    pub(crate) const RECEPTION: Self = Self {
        is_reception: true,
        takes_more: true,
    };

    /// Of the handler of a console connection.
    pub(crate) const OPERATOR: Self = Self {
        is_reception: false,
        takes_more: false,
    };

    /// Whether it has a channel, by which the keeper tells it what to serve and what to release.
    pub(crate) fn needs_channel(self) -> bool {
        self.is_reception || self.takes_more
    }
}

/// One handler, as its keeper knows it.
pub(crate) struct HandlerEntry {
    pub(crate) process: ProcessId,
    pub(crate) purpose: Purpose,
    /// Indices of the connections that it serves, or that are moving to it.
    pub(crate) connections: Vec<u32>,
    /// By which it is told what else to serve, and what to release. `None`: it serves what it has, and then exits.
    pub(crate) channel: Option<Channel>,
    /// Becomes readable when it exits; `None` if it is a child of this process.
    pub(crate) pidfd: Option<OwnedFd>,
    /// It was killed to be replaced by one that runs the new program, which is not a crash.
    pub(crate) is_replaced: bool,
    /// Connections that it may still be given before it is to exit.
    pub(crate) connections_left: u32,
}

impl HandlerEntry {
    /// A handler that was forked with these connections.
    pub(crate) fn new(
        process: ProcessId,
        connections: Vec<u32>,
        channel: Option<Channel>,
        purpose: Purpose,
        config: &Config,
    ) -> Self {
        let given = u32::try_from(connections.len()).unwrap_or(u32::MAX);
        let life = match purpose.is_reception {
            true => u32::MAX,
            false => config.handler_life,
        };
        Self {
            process,
            purpose,
            connections,
            channel,
            pidfd: None,
            is_replaced: false,
            connections_left: life.saturating_sub(given),
        }
    }

    /// It serves this connection too, or the connection is moving to it.
    pub(crate) fn add_connection(&mut self, index: u32) {
        if !self.connections.contains(&index) {
            self.connections.push(index);
            self.connections_left = self.connections_left.saturating_sub(1);
        }
    }

    /// It does not serve this connection any more.
    pub(crate) fn remove_connection(&mut self, index: u32) {
        self.connections.retain(|other| *other != index);
    }

    /// As [`Self::remove_connection`], but the connection lives on elsewhere: it does not count towards the handler's
    /// life.
    pub(crate) fn move_out(&mut self, index: u32) {
        self.remove_connection(index);
        self.connections_left = self.connections_left.saturating_add(1);
    }

    /// Whether it may be given a connection, if it has room.
    fn is_available(&self) -> bool {
        self.channel.is_some() && self.purpose.takes_more && self.connections_left > 0
    }
}

/// All handlers of a keeper, by pid.
pub(crate) struct HandlerSet {
    entries: BTreeMap<u32, HandlerEntry>,
    /// Those that serve connections and have room for a new one.
    partly_filled: BTreeSet<u32>,
    /// Those that serve no connection and may be given one.
    idle: BTreeSet<u32>,
    /// Receptions that have room for a newcomer.
    receptions: BTreeSet<u32>,
    capacity: usize,
    capacity_for_new: usize,
}

impl HandlerSet {
    /// An empty set.
    pub(crate) fn new(config: &Config) -> Self {
        let capacity = config.clients_per_handler;
        Self {
            entries: BTreeMap::new(),
            partly_filled: BTreeSet::new(),
            idle: BTreeSet::new(),
            receptions: BTreeSet::new(),
            capacity: capacity as usize,
            capacity_for_new: (capacity - capacity / PLACES_FOR_MOVES_ONE_IN) as usize,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many there are: for players and operators, and receptions.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let receptions = self.entries.values().filter(|entry| entry.purpose.is_reception);
        let receptions = receptions.count();
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        (number(self.entries.len() - receptions), number(receptions))
    }

    pub(crate) fn get(&self, pid: u32) -> Option<&HandlerEntry> {
        self.entries.get(&pid)
    }

    pub(crate) fn insert(&mut self, entry: HandlerEntry) {
        let pid = entry.process.pid;
        self.entries.insert(pid, entry);
        self.reindex(pid);
    }

    pub(crate) fn remove(&mut self, pid: u32) -> Option<HandlerEntry> {
        let entry = self.entries.remove(&pid);
        self.reindex(pid);
        entry
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = HandlerEntry> {
        self.partly_filled.clear();
        self.idle.clear();
        self.receptions.clear();
        std::mem::take(&mut self.entries).into_values()
    }

    /// Changes a handler, if it is in the set.
    pub(crate) fn update<R>(&mut self, pid: u32, update: impl FnOnce(&mut HandlerEntry) -> R) -> Option<R> {
        let result = self.entries.get_mut(&pid).map(update);
        self.reindex(pid);
        result
    }

    /// Which reception gets a newcomer.
    pub(crate) fn pick_reception(&self) -> Option<u32> {
        self.receptions.first().copied()
    }

    /// Whether there may be another reception.
    pub(crate) fn has_room_for_reception(&self) -> bool {
        self.counts().1 < RECEPTIONS_PER_KEEPER_MAX
    }

    /// Which handler gets a connection that has greeted: one that already serves some and has room, so that processes
    /// are filled before another is used; else one that is idle.
    pub(crate) fn pick_for_player(&self) -> Option<u32> {
        self.partly_filled.first().or(self.idle.first()).copied()
    }

    /// Whether a connection of another handler can move to this one.
    pub(crate) fn can_receive_move(&self, pid: u32) -> bool {
        let has_room = |entry: &HandlerEntry| {
            entry.is_available() && !entry.purpose.is_reception && entry.connections.len() < self.capacity
        };
        self.entries.get(&pid).is_some_and(has_room)
    }

    /// How many are idle.
    pub(crate) fn idle(&self) -> u32 {
        u32::try_from(self.idle.len()).unwrap_or(u32::MAX)
    }

    /// An idle one: the oldest, as far as pids tell.
    pub(crate) fn first_idle(&self) -> Option<u32> {
        self.idle.first().copied()
    }

    /// Retires receptions that serve nothing while another one has room: one is enough for the next newcomer.
    pub(crate) fn retire_surplus_receptions(&mut self) {
        let is_idle = |pid: &&u32| {
            self.entries
                .get(pid)
                .is_some_and(|entry| entry.connections.is_empty())
        };
        if self.receptions.len() > 1
            && let Some(idle) = self.receptions.iter().find(is_idle).copied()
        {
            self.update(idle, |entry| entry.channel = None);
        }
    }

    /// Retires all that serve nothing.
    pub(crate) fn retire_all_idle(&mut self) {
        let idle = self
            .entries
            .values_mut()
            .filter(|entry| entry.connections.is_empty());
        idle.for_each(|entry| entry.channel = None);
        self.idle.clear();
        self.receptions
            .retain(|pid| self.entries.get(pid).is_some_and(HandlerEntry::is_available));
    }

    fn reindex(&mut self, pid: u32) {
        self.partly_filled.remove(&pid);
        self.idle.remove(&pid);
        self.receptions.remove(&pid);
        let Some(entry) = self.entries.get_mut(&pid) else {
            return;
        };
        if !entry.is_available() {
            if entry.connections.is_empty() {
                // It exits when it sees its channel closed.
                entry.channel = None;
            }
            return;
        }
        if entry.purpose.is_reception {
            if entry.connections.len() < RECEPTION_CONNECTIONS_MAX {
                self.receptions.insert(pid);
            }
        } else if entry.connections.is_empty() {
            self.idle.insert(pid);
        } else if entry.connections.len() < self.capacity_for_new {
            self.partly_filled.insert(pid);
        }
    }
}
