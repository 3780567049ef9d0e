//! A keeper's handlers, and which of them can serve one connection more.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use crate::config::Config;
use crate::limits::PLACES_FOR_MOVES_ONE_IN;
use shmem::sys::process::ProcessId;
use shmem::sys::sockets::Channel;

/// One handler, as its keeper knows it.
pub(crate) struct HandlerEntry {
    pub(crate) process: ProcessId,
    /// Indices of the connections that it serves, or that are moving to it.
    pub(crate) connections: Vec<u32>,
    /// By which it gets further connections. `None`: it serves those that it has, and then exits.
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
        config: &Config,
    ) -> Self {
        let given = u32::try_from(connections.len()).unwrap_or(u32::MAX);
        Self {
            process,
            connections,
            channel,
            pidfd: None,
            is_replaced: false,
            connections_left: config.handler_life.saturating_sub(given),
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
        self.channel.is_some() && self.connections_left > 0
    }
}

/// All handlers of a keeper, by pid.
pub(crate) struct HandlerSet {
    entries: BTreeMap<u32, HandlerEntry>,
    /// Those that serve connections and have room for a new one.
    partly_filled: BTreeSet<u32>,
    /// Those that serve no connection and may be given one.
    idle: BTreeSet<u32>,
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
            capacity: capacity as usize,
            capacity_for_new: (capacity - capacity / PLACES_FOR_MOVES_ONE_IN) as usize,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
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
        std::mem::take(&mut self.entries).into_values()
    }

    /// Changes a handler, if it is in the set.
    pub(crate) fn update<R>(&mut self, pid: u32, update: impl FnOnce(&mut HandlerEntry) -> R) -> Option<R> {
        let result = self.entries.get_mut(&pid).map(update);
        self.reindex(pid);
        result
    }

    /// Which handler gets a new connection: one that already serves some and has room, so that processes are filled
    /// before another is used; else one that is idle.
    pub(crate) fn pick_for_new_connection(&self) -> Option<u32> {
        self.partly_filled.first().or(self.idle.first()).copied()
    }

    /// Whether a connection of another handler can move to this one.
    pub(crate) fn can_receive_move(&self, pid: u32) -> bool {
        let has_room = |entry: &HandlerEntry| entry.is_available() && entry.connections.len() < self.capacity;
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

    fn reindex(&mut self, pid: u32) {
        self.partly_filled.remove(&pid);
        self.idle.remove(&pid);
        let Some(entry) = self.entries.get_mut(&pid) else {
            return;
        };
        if entry.connections.is_empty() && entry.connections_left == 0 {
            // It exits when it sees its channel closed.
            entry.channel = None;
        }
        if !entry.is_available() {
            return;
        }
        if entry.connections.is_empty() {
            self.idle.insert(pid);
        } else if entry.connections.len() < self.capacity_for_new {
            self.partly_filled.insert(pid);
        }
    }
}
