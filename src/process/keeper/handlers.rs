//! A keeper's handlers, and which of them could serve one client more.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use crate::config::Config;
use crate::limits::PLACES_FOR_MOVES_ONE_IN;
use shmem::sys::process::ProcessId;
use shmem::sys::sockets::Channel;

/// A handler.
pub(crate) struct HandlerEntry {
    pub(crate) process: ProcessId,
    /// Indices of the connections that it serves, or was promised.
    pub(crate) connections: Vec<u32>,
    /// Where it is given more. `None`: it serves those it has, and ends with them.
    pub(crate) channel: Option<Channel>,
    /// Tells of its end, where it is not this process's child.
    pub(crate) pidfd: Option<OwnedFd>,
    /// It was killed to be replaced by one of the new program: nobody is to blame.
    pub(crate) is_replaced: bool,
    /// Clients that it may yet be given in its life.
    pub(crate) connections_left: u32,
}

impl HandlerEntry {
    /// One that was given its connections at its birth.
    pub(crate) fn new(
        process: ProcessId,
        connections: Vec<u32>,
        channel: Option<Channel>,
        config: &Config,
    ) -> Self {
        let taken = u32::try_from(connections.len()).unwrap_or(u32::MAX);
        Self {
            process,
            connections,
            channel,
            pidfd: None,
            is_replaced: false,
            connections_left: config.handler_life.saturating_sub(taken),
        }
    }

    /// It serves this connection, too, or was promised it.
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

    /// The same of one that goes on elsewhere: it has not used a place up.
    pub(crate) fn move_out(&mut self, index: u32) {
        self.remove_connection(index);
        self.connections_left = self.connections_left.saturating_add(1);
    }

    /// Whether it may be given somebody, as far as its places do not decide that.
    fn is_available(&self) -> bool {
        self.channel.is_some() && self.connections_left > 0
    }
}

/// All handlers of a keeper, by pid.
pub(crate) struct HandlerSet {
    entries: BTreeMap<u32, HandlerEntry>,
    /// Those with somebody to serve and a place for somebody new.
    partly_filled: BTreeSet<u32>,
    /// Those with nobody to serve who could have somebody.
    idle: BTreeSet<u32>,
    places: usize,
    capacity_for_new: usize,
}

impl HandlerSet {
    /// Nobody yet.
    pub(crate) fn new(config: &Config) -> Self {
        let places = config.clients_per_handler;
        Self {
            entries: BTreeMap::new(),
            partly_filled: BTreeSet::new(),
            idle: BTreeSet::new(),
            places: places as usize,
            capacity_for_new: (places - places / PLACES_FOR_MOVES_ONE_IN) as usize,
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

    pub(crate) fn enter(&mut self, entry: HandlerEntry) {
        let pid = entry.process.pid;
        self.entries.insert(pid, entry);
        self.sort(pid);
    }

    pub(crate) fn remove(&mut self, pid: u32) -> Option<HandlerEntry> {
        let entry = self.entries.remove(&pid);
        self.sort(pid);
        entry
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = HandlerEntry> {
        self.partly_filled.clear();
        self.idle.clear();
        std::mem::take(&mut self.entries).into_values()
    }

    /// Changes something about a handler, if it is one of these.
    pub(crate) fn change<R>(&mut self, pid: u32, change: impl FnOnce(&mut HandlerEntry) -> R) -> Option<R> {
        let changed = self.entries.get_mut(&pid).map(change);
        self.sort(pid);
        changed
    }

    /// Who is to have somebody new: the first that has others already and a place, so that places are filled before processes are
    /// used up; else one that is idle.
    pub(crate) fn pick_for_new_connection(&self) -> Option<u32> {
        self.partly_filled.first().or(self.idle.first()).copied()
    }

    /// Whether a client of another handler's could be moved to this one.
    pub(crate) fn can_receive_move(&self, pid: u32) -> bool {
        let has_place = |entry: &HandlerEntry| entry.is_available() && entry.connections.len() < self.places;
        self.entries.get(&pid).is_some_and(has_place)
    }

    /// How many are idle.
    pub(crate) fn idle(&self) -> u32 {
        u32::try_from(self.idle.len()).unwrap_or(u32::MAX)
    }

    /// One that is idle: the one that has been there the longest, as far as pids tell.
    pub(crate) fn first_idle(&self) -> Option<u32> {
        self.idle.first().copied()
    }

    fn sort(&mut self, pid: u32) {
        self.partly_filled.remove(&pid);
        self.idle.remove(&pid);
        let Some(entry) = self.entries.get_mut(&pid) else {
            return;
        };
        if entry.connections.is_empty() && entry.connections_left == 0 {
            // It ends when it sees that nothing will come.
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
