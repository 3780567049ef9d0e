//! The figures of a run: everything that the JSON file, the table and the HTML page show.

mod build;
mod observations;
pub(crate) mod page;
mod table;
mod thresholds;

use std::collections::BTreeMap;

use serde::Serialize;

pub(crate) use self::observations::Observations;
use crate::engine::timeline::Point;
use crate::latency::Percentiles;
use crate::machine::Machine;

/// Everything that was measured. The JSON file has these fields; what could not be measured is null. Counts
/// and latencies are those of all workloads together.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Name of the workload; "mix" if there are several.
    pub workload: &'static str,
    pub workloads: Vec<WorkloadReport>,
    pub clients: u32,
    pub seed: u64,
    /// Seconds of load.
    pub load_seconds: f64,
    /// The load was ended by Ctrl-C.
    pub interrupted: bool,
    /// Seconds from the first connect to the last client in its room.
    pub join_seconds: f64,
    /// Clients divided by `join_seconds`; each join is a connection, a handshake and entering a room.
    pub joins_per_second: f64,
    pub sent: u64,
    pub received: u64,
    pub sent_per_second: f64,
    pub received_per_second: f64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// Foreign or altered content, wrong boards, results or lists, requests refused without a reason. Always
    /// a failure.
    pub mismatches: u64,
    /// Messages that the server refused.
    pub rejected: u64,
    /// Messages that were due and could not be sent during the load.
    pub unsent: u64,
    /// Connections lost after the server had answered their handshake.
    pub disconnects: u64,
    /// Those of them whose handler was killed together with its keeper.
    pub double_faults: u64,
    /// Connections lost before the server had answered their handshake; each was retried.
    pub early_resets: u64,
    /// Connections that could not be made, or were refused with a reason.
    pub refused: u64,
    pub resumes: u64,
    pub resyncs: u64,
    /// Sessions that could not be resumed.
    pub sessions_lost: u64,
    pub takeovers: Option<u64>,
    pub handlers_killed: u64,
    /// What `--chaos` did.
    pub chaos: Option<ChaosReport>,
    pub matches: u64,
    pub matches_per_second: f64,
    /// From the intended time of sending to the receipt, over all receipts.
    pub latency_ms: Option<Percentiles>,
    /// The same, over the senders' own copies.
    pub round_trip_ms: Option<Percentiles>,
    /// From the intended time of sending until the last recipient has received the message, where that is
    /// measured.
    pub to_the_last_ms: Option<Percentiles>,
    pub server: ServerFigures,
    pub load_generator: LoadGeneratorFigures,
    pub machine: Machine,
    /// The command line, including the program.
    pub command: Vec<String>,
    /// What happened in each second of the load.
    pub timeline: Vec<Point>,
    /// What the server used over time.
    pub server_timeline: Vec<ServerPoint>,
    /// What a reader of the figures must know.
    pub notes: Vec<String>,
    /// Why the run counts as failed; empty if it does not.
    pub failures: Vec<String>,
}

/// The figures of one workload.
#[derive(Debug, Default, Serialize)]
pub(crate) struct WorkloadReport {
    pub kind: &'static str,
    /// The workload in one line.
    pub description: String,
    pub clients: u32,
    pub rooms: u32,
    pub room_size: u32,
    /// Messages per client and second; 0: closed loop.
    pub rate: f64,
    pub payload_bytes: u32,
    pub sent: u64,
    pub received: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub mismatches: u64,
    pub rejected: u64,
    pub unsent: u64,
    pub matches: u64,
    /// Counts that only this kind of workload has.
    pub details: BTreeMap<&'static str, u64>,
    pub latency_ms: Option<Percentiles>,
    pub round_trip_ms: Option<Percentiles>,
    /// Shares of all receipts and the milliseconds within which they were received.
    pub latency_curve: Vec<(f64, f64)>,
    /// Descriptions of some of the errors.
    pub examples: Vec<String>,
}

/// What was killed, and what followed. The keys are roles.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ChaosReport {
    pub killed: BTreeMap<String, u64>,
    /// How often a kill was due and no process of the role existed.
    pub missed: BTreeMap<String, u64>,
    /// Restarts by the server.
    pub restarts: BTreeMap<String, u64>,
    /// Handlers killed when they may have had no keeper, or together with it: these may cost a connection.
    pub double_faults: u64,
    /// Each kill.
    pub kills: Vec<KillPoint>,
}

/// One kill.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct KillPoint {
    /// Seconds since the load began.
    pub seconds: f64,
    pub role: String,
}

/// What the server used.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ServerFigures {
    /// With all clients connected.
    pub processes: Option<u64>,
    /// What the clients added, at the end of the load, divided by their number.
    pub memory_kib_per_client: Option<f64>,
    /// The same, including all other memory that the machine's kernel cannot reclaim, the load generator's
    /// sockets among it. It means something only if no other program starts or ends meanwhile; null if one
    /// evidently has.
    pub memory_all_kib_per_client: Option<f64>,
    /// The server's total, at the end of the load.
    pub memory_kib: Option<u64>,
    /// During the load; 100 is one core.
    pub cpu_percent: Option<f64>,
}

/// What the server used at one moment of the load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct ServerPoint {
    /// Since the load began.
    pub seconds: f64,
    pub processes: u64,
    pub cpu_percent: Option<f64>,
    pub memory_kib: Option<u64>,
}

/// What the load generator itself used.
#[derive(Debug, Default, Serialize)]
pub(crate) struct LoadGeneratorFigures {
    /// Of the thread that drives the clients, during the load; 100 is one core, which is the maximum.
    pub cpu_percent: f64,
    /// Share of the time in which that thread was runnable and had no core.
    pub waiting_percent: Option<f64>,
    /// 99th percentile of how long due sends and received data waited for that thread.
    pub lag_ms_p99: f64,
    /// The longest of these waits.
    pub lag_ms_max: f64,
    /// Whether the figures show the limits of the load generator or the machine, not those of the server.
    pub bottleneck: bool,
}
