//! When which clients send heartbeats.

/// Clients are divided into this many groups that send their heartbeats in turn. Heartbeats of all clients at
/// once would be a load of their own.
const GROUPS: usize = 16;
/// A client sends something at least this many times within the heartbeat timeout.
const PER_TIMEOUT: u64 = 4;

/// The turns of all groups, once the heartbeat timeout of the server is known.
#[derive(Debug)]
pub(super) struct Heartbeats {
    timeout_ns: u64,
    next_group: usize,
}

impl Heartbeats {
    pub(super) fn new(timeout_ms: u32) -> Self {
        Self {
            timeout_ns: u64::from(timeout_ms.max(1)) * 1_000_000,
            next_group: 0,
        }
    }

    /// The time between the heartbeats of one group and of the next, in nanoseconds.
    pub(super) fn interval_ns(&self) -> u64 {
        (self.timeout_ns / PER_TIMEOUT / GROUPS as u64).max(1)
    }

    /// A client needs no heartbeat if it has sent something within this time, in nanoseconds.
    pub(super) fn silence_ns_max(&self) -> u64 {
        self.timeout_ns / PER_TIMEOUT
    }

    /// The group whose turn it is: its indices among so many clients.
    pub(super) fn next_group(&mut self, clients: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.next_group;
        self.next_group = (first + 1) % GROUPS;
        (first..clients).step_by(GROUPS)
    }
}
