//! One measurement: a run of this program in a process of its own, so that no run is affected by leftovers of
//! the one before.

use std::io;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{Candidate, Measurement, Pacing, ROOM_SIZE};
use crate::latency::Percentiles;
use crate::options::CompareOptions;

/// How long a server that is slow to admit clients may take for the next one.
const JOIN_TIMEOUT_SECONDS: u32 = 60;

/// The fields of a run's JSON that a comparison needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub joins_per_second: f64,
    pub sent_per_second: f64,
    pub received_per_second: f64,
    pub latency_ms: Option<Percentiles>,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub mismatches: u64,
    pub unsent: u64,
    pub disconnects: u64,
    pub server: Server,
    pub load_generator: LoadGenerator,
    pub workloads: Vec<Workload>,
    pub notes: Vec<String>,
    pub failures: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Server {
    pub processes: Option<u64>,
    pub memory_kib_per_client: Option<f64>,
    pub memory_all_kib_per_client: Option<f64>,
    pub cpu_percent: Option<f64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LoadGenerator {
    pub cpu_percent: f64,
    pub waiting_percent: Option<f64>,
    pub bottleneck: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Workload {
    pub latency_curve: Vec<(f64, f64)>,
}

/// Measures one server once. A failure of the server is part of the measurement.
///
/// # Errors
/// When this program cannot be started again.
pub(super) fn run(
    options: &CompareOptions,
    candidate: &Candidate,
    clients: u32,
    pacing: Pacing,
    round: u32,
) -> io::Result<Measurement> {
    let arguments = arguments(options, candidate, clients, pacing, round);
    let json = std::env::temp_dir().join(format!("forkade-compare-{}.json", std::process::id()));
    let output = Command::new(std::env::current_exe()?)
        .args(&arguments)
        .arg("--json")
        .arg(&json)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .output()?;
    let text = std::fs::read(&json);
    // A failed run may not have written it.
    let _ = std::fs::remove_file(&json);
    let figures: Option<Figures> = text
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .filter(|_| output.status.code().is_some_and(|code| code <= 1));
    let failure = match &figures {
        Some(figures) if figures.failures.is_empty() => None,
        Some(figures) => Some(format!("{}: {}", candidate.name, figures.failures.join("; "))),
        None => Some(format!(
            "{} was not measured: {}",
            candidate.name,
            last_error(&output.stderr)
        )),
    };
    let mut command = vec!["forkade-loadtest".to_owned()];
    command.extend(arguments);
    Ok(Measurement {
        candidate: candidate.name.clone(),
        clients,
        pacing,
        round,
        command,
        figures,
        failure,
    })
}

fn arguments(
    options: &CompareOptions,
    candidate: &Candidate,
    clients: u32,
    pacing: Pacing,
    round: u32,
) -> Vec<String> {
    let room_size = candidate
        .peer
        .map_or(ROOM_SIZE, |peer| peer.room_size_max().min(ROOM_SIZE));
    let rate = match pacing {
        Pacing::Paced => options.rate,
        Pacing::ClosedLoop => 0.0,
    };
    let mut arguments: Vec<String> = [
        ("workload", "relay".to_owned()),
        ("clients", clients.to_string()),
        ("room-size", room_size.to_string()),
        ("rate", rate.to_string()),
        ("payload", options.payload.to_string()),
        ("duration", options.duration.to_string()),
        ("join-timeout", JOIN_TIMEOUT_SECONDS.to_string()),
        ("seed", round.to_string()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [format!("--{name}"), value])
    .collect();
    match candidate.peer {
        Some(peer) => {
            arguments.extend(["--peer".to_owned(), peer.name().to_owned()]);
            if let Some(directory) = &options.peers_dir {
                arguments.extend(["--peers-dir".to_owned(), directory.display().to_string()]);
            }
        }
        None => arguments.extend(
            candidate
                .arguments
                .iter()
                .map(|word| format!("--server-arg={word}")),
        ),
    }
    arguments
}

/// The last message of a failed run, without its progress.
fn last_error(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let from = ["forkade-loadtest: ", "error: "]
        .iter()
        .filter_map(|begins| text.rfind(begins))
        .min();
    text[from.unwrap_or(0)..].trim().to_owned()
}
