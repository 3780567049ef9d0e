//! A keeper's handlers, and which of them could serve one client more.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use crate::config::Config;
use crate::limits::PLACES_FOR_MOVES_ONE_IN;
use shmem::sys::process::ProcessId;
use shmem::sys::sockets::Channel;

/// A handler.
pub(crate) struct Worker {
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
    pub(crate) clients_left: u32,
}

impl Worker {
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
            clients_left: config.handler_life.saturating_sub(taken),
        }
    }

    /// It serves this connection, too, or was promised it.
    pub(crate) fn take_on(&mut self, index: u32) {
        if !self.connections.contains(&index) {
            self.connections.push(index);
            self.clients_left = self.clients_left.saturating_sub(1);
        }
    }

    /// It does not serve this connection any more.
    pub(crate) fn leave_off(&mut self, index: u32) {
        self.connections.retain(|other| *other != index);
    }

    /// The same of one that goes on elsewhere: it has not used a place up.
    pub(crate) fn hand_over(&mut self, index: u32) {
        self.leave_off(index);
        self.clients_left = self.clients_left.saturating_add(1);
    }

    /// Whether it may be given somebody, as far as its places do not decide that.
    fn is_to_be_had(&self) -> bool {
        self.channel.is_some() && self.clients_left > 0
    }
}

/// All handlers of a keeper, by pid.
pub(crate) struct Crew {
    workers: BTreeMap<u32, Worker>,
    /// Those with somebody to serve and a place for somebody new.
    open: BTreeSet<u32>,
    /// Those with nobody to serve who could have somebody.
    idle: BTreeSet<u32>,
    places: usize,
    places_for_newcomers: usize,
}

impl Crew {
    /// Nobody yet.
    pub(crate) fn new(config: &Config) -> Self {
        let places = config.clients_per_handler;
        Self {
            workers: BTreeMap::new(),
            open: BTreeSet::new(),
            idle: BTreeSet::new(),
            places: places as usize,
            places_for_newcomers: (places - places / PLACES_FOR_MOVES_ONE_IN) as usize,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn get(&self, pid: u32) -> Option<&Worker> {
        self.workers.get(&pid)
    }

    pub(crate) fn enter(&mut self, worker: Worker) {
        let pid = worker.process.pid;
        self.workers.insert(pid, worker);
        self.sort(pid);
    }

    pub(crate) fn remove(&mut self, pid: u32) -> Option<Worker> {
        let worker = self.workers.remove(&pid);
        self.sort(pid);
        worker
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Worker> {
        self.open.clear();
        self.idle.clear();
        std::mem::take(&mut self.workers).into_values()
    }

    /// Changes something about a handler, if it is one of these.
    pub(crate) fn change<R>(&mut self, pid: u32, change: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        let changed = self.workers.get_mut(&pid).map(change);
        self.sort(pid);
        changed
    }

    /// Who is to have somebody new: the first that has others already and a place, so that places are filled before processes are
    /// used up; else one that is idle.
    pub(crate) fn place_for_newcomer(&self) -> Option<u32> {
        self.open.first().or(self.idle.first()).copied()
    }

    /// Whether a client of another handler's could be moved to this one.
    pub(crate) fn has_place_for_move(&self, pid: u32) -> bool {
        let has_place = |worker: &Worker| worker.is_to_be_had() && worker.connections.len() < self.places;
        self.workers.get(&pid).is_some_and(has_place)
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
        self.open.remove(&pid);
        self.idle.remove(&pid);
        let Some(worker) = self.workers.get_mut(&pid) else {
            return;
        };
        if worker.connections.is_empty() && worker.clients_left == 0 {
            // It ends when it sees that nothing will come.
            worker.channel = None;
        }
        if !worker.is_to_be_had() {
            return;
        }
        if worker.connections.is_empty() {
            self.idle.insert(pid);
        } else if worker.connections.len() < self.places_for_newcomers {
            self.open.insert(pid);
        }
    }
}
