//! What is observed from outside while the clients run.

use std::time::Instant;

use crate::chaos::kill_log::KillLog;
use crate::machine::process_tree::{CpuFigures, TreeFigures};
use crate::machine::sampler::Sample;
use crate::server::console::ServerCounters;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Observations {
    pub before: Option<TreeFigures>,
    pub after: Option<TreeFigures>,
    pub counters_before: ServerCounters,
    pub counters_after: ServerCounters,
    pub join_seconds: f64,
    /// CPU time so far, and when it was read: at the start and at the end of the load.
    pub cpu_began: Option<(CpuFigures, Instant)>,
    pub cpu_ended: Option<(CpuFigures, Instant)>,
    pub load_began: Option<Instant>,
    pub samples: Vec<Sample>,
    /// `None` if nothing was to be killed.
    pub kill_log: Option<KillLog>,
}
