//! When each client sends: on a schedule of its own (an open loop), or when its last message has been
//! answered (a closed loop).

use super::{Actions, ClientIndex};
use crate::plan::WorkloadPlan;
use crate::random::Random;
use crate::schedule::Schedule;

/// The pace of all clients of a workload.
#[derive(Debug)]
pub(super) struct Pace {
    clients: u32,
    /// Messages per client and second; 0 is a closed loop.
    rate: f64,
    end_ns: u64,
    stopped: bool,
    /// Open loop only, once the load has begun.
    schedules: Vec<Schedule>,
    /// Spreads the clients' schedules over the first interval.
    random: Random,
}

impl Pace {
    pub(super) fn new(plan: &WorkloadPlan) -> Self {
        Self {
            clients: plan.shape.clients,
            rate: plan.rate,
            end_ns: 0,
            stopped: false,
            schedules: Vec::new(),
            random: Random::new(plan.seed, 0),
        }
    }

    /// The load begins: sets the first timer of each client. In a closed loop, returns the clients that must
    /// send at once instead.
    pub(super) fn start(
        &mut self,
        now_ns: u64,
        end_ns: u64,
        actions: &mut Actions,
    ) -> std::ops::Range<ClientIndex> {
        self.end_ns = end_ns;
        if self.rate == 0.0 {
            return 0..self.clients;
        }
        let interval_ns = Schedule::new(0, self.rate).interval_ns().max(1);
        for client in 0..self.clients {
            let schedule = Schedule::new(now_ns + self.random.below(interval_ns), self.rate);
            actions.timers.push((schedule.intended(), client));
            self.schedules.push(schedule);
        }
        0..0
    }

    /// The timer of a client is due: sets the next one, and returns whether the client sends.
    pub(super) fn take_due(&mut self, client: ClientIndex, intended_ns: u64, actions: &mut Actions) -> bool {
        if intended_ns >= self.end_ns || self.stopped {
            return false;
        }
        if let Some(schedule) = self.schedules.get_mut(client as usize) {
            schedule.advance();
            actions.timers.push((schedule.intended(), client));
        }
        true
    }

    /// Whether an answered message must be followed by the next one at once.
    pub(super) fn is_closed_loop(&self, now_ns: u64) -> bool {
        self.rate == 0.0 && now_ns < self.end_ns && !self.stopped
    }

    /// The load ends: nothing is due any more.
    pub(super) fn stop(&mut self, now_ns: u64) {
        self.stopped = true;
        self.end_ns = self.end_ns.min(now_ns);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// How many times of the schedules were not used.
    pub(super) fn unsent(&self) -> u64 {
        self.schedules
            .iter()
            .map(|schedule| schedule.remaining_before(self.end_ns))
            .sum()
    }
}
