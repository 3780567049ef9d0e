//! The clients of one workload among all of a run's: translates between their own numbers and the run's, and keeps what is
//! measured of them.

use forkade_protocol::ServerMessage;

use crate::engine::join_phase::{Entry, EntryError};
use crate::latency::Latency;
use crate::plan::Part;
use crate::workload::{self, Actions, ClientIndex, Receipt, Workload};

/// See the module's documentation.
pub(crate) struct Group {
    part: Part,
    /// The run's number of its first client.
    first: ClientIndex,
    pub(crate) entry: Entry,
    workload: Box<dyn Workload + Send>,
    /// From the intended time of sending to each receipt.
    latency: Latency,
    /// The same, for the sender's own copy alone.
    round_trip: Latency,
    /// From the intended time of sending until the last recipient had it.
    to_the_last: Latency,
}

impl Group {
    /// The clients from `first` on are this part's.
    pub(crate) fn new(part: Part, first: ClientIndex) -> Self {
        Self {
            entry: Entry::new(part.kind, part.shape),
            workload: workload::of(&part),
            first,
            latency: Latency::new(),
            round_trip: Latency::new(),
            to_the_last: Latency::new(),
            part,
        }
    }

    pub(crate) fn part(&self) -> &Part {
        &self.part
    }

    pub(crate) fn first(&self) -> ClientIndex {
        self.first
    }

    pub(crate) fn workload(&self) -> &(dyn Workload + Send) {
        &*self.workload
    }

    pub(crate) fn latency(&self) -> &Latency {
        &self.latency
    }

    pub(crate) fn round_trip(&self) -> &Latency {
        &self.round_trip
    }

    pub(crate) fn to_the_last(&self) -> &Latency {
        &self.to_the_last
    }

    pub(crate) fn start(&mut self, now_ns: u64, end_ns: u64) -> Actions {
        let mut actions = Actions::default();
        self.workload.start(now_ns, end_ns, &mut actions);
        self.of_the_run(actions)
    }

    pub(crate) fn due(&mut self, client: ClientIndex, intended_ns: u64, now_ns: u64) -> Actions {
        let mut actions = Actions::default();
        self.workload
            .due(client - self.first, intended_ns, now_ns, &mut actions);
        self.of_the_run(actions)
    }

    /// The server said this to `client`.
    ///
    /// # Errors
    /// When the client cannot get into its room.
    pub(crate) fn received(
        &mut self,
        client: ClientIndex,
        messages: Vec<ServerMessage>,
        now_ns: u64,
    ) -> Result<Actions, EntryError> {
        let mut actions = Actions::default();
        let client = client - self.first;
        for message in messages {
            if let ServerMessage::Welcome { name, .. } = &message {
                self.workload.welcomed(client, name, now_ns, &mut actions);
            }
            if self.entry.is_complete() {
                self.workload.received(client, message, now_ns, &mut actions);
            } else {
                self.entry.received(client, message, &mut actions)?;
            }
        }
        Ok(self.of_the_run(actions))
    }

    pub(crate) fn stop(&mut self, now_ns: u64) {
        self.workload.stop(now_ns);
    }

    /// Keeps the receipts, and numbers clients as the run does.
    fn of_the_run(&mut self, mut actions: Actions) -> Actions {
        for Receipt { latency_ns, own } in &actions.receipts {
            self.latency.record(*latency_ns);
            if *own {
                self.round_trip.record(*latency_ns);
            }
        }
        actions
            .completions
            .iter()
            .for_each(|latency_ns| self.to_the_last.record(*latency_ns));
        let sends = actions.sends.iter_mut().map(|(client, _)| client);
        let timers = actions.timers.iter_mut().map(|(_, client)| client);
        for client in sends.chain(timers).chain(&mut actions.renewals) {
            *client += self.first;
        }
        actions
    }
}
