//! The clients of one workload of a run: translates between their indices within the workload and within the
//! run, and records their latencies.

use forkade_protocol::ServerMessage;

use crate::engine::join_phase::{JoinError, JoinPhase};
use crate::latency::Latency;
use crate::plan::WorkloadPlan;
use crate::workload::{self, Actions, ClientIndex, Receipt, Workload};

/// See the module's documentation.
pub(crate) struct Group {
    plan: WorkloadPlan,
    /// Index of its first client within the run.
    first: ClientIndex,
    pub(crate) join_phase: JoinPhase,
    workload: Box<dyn Workload + Send>,
    /// From the intended time of sending to each receipt.
    latency: Latency,
    /// The same, only for the sender's own copy.
    round_trip: Latency,
    /// From the intended time of sending until the last recipient has received the message.
    to_last_recipient: Latency,
}

impl Group {
    /// The clients of `plan`, whose indices in the run begin at `first`.
    pub(crate) fn new(plan: WorkloadPlan, first: ClientIndex) -> Self {
        Self {
            join_phase: JoinPhase::new(plan.kind, plan.shape),
            workload: workload::create(&plan),
            first,
            latency: Latency::new(),
            round_trip: Latency::new(),
            to_last_recipient: Latency::new(),
            plan,
        }
    }

    pub(crate) fn plan(&self) -> &WorkloadPlan {
        &self.plan
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

    pub(crate) fn to_last_recipient(&self) -> &Latency {
        &self.to_last_recipient
    }

    pub(crate) fn start(&mut self, now_ns: u64, end_ns: u64) -> Actions {
        let mut actions = Actions::default();
        self.workload.start(now_ns, end_ns, &mut actions);
        self.record_and_translate(actions)
    }

    pub(crate) fn due(&mut self, client: ClientIndex, intended_ns: u64, now_ns: u64) -> Actions {
        let mut actions = Actions::default();
        self.workload
            .due(client - self.first, intended_ns, now_ns, &mut actions);
        self.record_and_translate(actions)
    }

    /// `client` has received `messages`.
    ///
    /// # Errors
    /// When the client cannot get into its room.
    pub(crate) fn received(
        &mut self,
        client: ClientIndex,
        messages: Vec<ServerMessage>,
        now_ns: u64,
    ) -> Result<Actions, JoinError> {
        let mut actions = Actions::default();
        let client = client - self.first;
        for message in messages {
            if let ServerMessage::Welcome { name, .. } = &message {
                self.workload.welcomed(client, name, now_ns, &mut actions);
            }
            if self.join_phase.is_complete() {
                self.workload.received(client, message, now_ns, &mut actions);
            } else {
                self.join_phase.received(client, message, &mut actions)?;
            }
        }
        Ok(self.record_and_translate(actions))
    }

    pub(crate) fn stop(&mut self, now_ns: u64) {
        self.workload.stop(now_ns);
    }

    /// Records the receipts, and replaces indices within the workload by those within the run.
    fn record_and_translate(&mut self, mut actions: Actions) -> Actions {
        for Receipt { latency_ns, own } in &actions.receipts {
            self.latency.record(*latency_ns);
            if *own {
                self.round_trip.record(*latency_ns);
            }
        }
        actions
            .completions
            .iter()
            .for_each(|latency_ns| self.to_last_recipient.record(*latency_ns));
        let sends = actions.sends.iter_mut().map(|(client, _)| client);
        let timers = actions.timers.iter_mut().map(|(_, client)| client);
        for client in sends.chain(timers).chain(&mut actions.new_players) {
            *client += self.first;
        }
        actions
    }
}
