//! `forkade-loadtest compare`: measures Forkade and its [peers](crate::server::peer) in turn by the same
//! workload. Each figure comes from a separate run of this program with a command line that anyone can
//! repeat. Each round measures all candidates in turn, so that other load on the machine affects all of them.

mod measurement;
mod page;
mod summary;
mod table;

use std::io::{self, Write};

use serde::Serialize;

use self::measurement::Figures;
use self::summary::Summary;
use crate::machine::Machine;
use crate::options::CompareOptions;
use crate::output::{self, Output, OutputError};
use crate::server::peer::{self, NotInstalled, Peer};

/// Members of a room.
const ROOM_SIZE: u32 = 2;

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    #[error("--clients {0}: rooms have two members, so the number must be even")]
    Odd(u32),
    #[error("--rate 0: the closed loop is measured anyway")]
    NoPace,
    #[error("cannot start a measurement: {0}")]
    Start(io::Error),
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// A server to measure, and its name in the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Candidate {
    pub name: String,
    /// A peer; `None` is Forkade with these arguments.
    pub peer: Option<Peer>,
    pub arguments: Vec<String>,
}

/// How the messages are paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pacing {
    Paced,
    ClosedLoop,
}

/// One run of one server.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    #[serde(rename = "entrant")]
    pub candidate: String,
    pub clients: u32,
    pub pacing: Pacing,
    pub round: u32,
    /// The command line that repeats it.
    pub command: Vec<String>,
    pub figures: Option<Figures>,
    /// Why there are no figures.
    pub failure: Option<String>,
}

/// All measurements.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub machine: Machine,
    /// How the measurements were made, in one line.
    pub description: String,
    #[serde(rename = "entrants")]
    pub candidates: Vec<Candidate>,
    /// Peers that were not measured, and why.
    pub skipped: Vec<String>,
    /// Medians, for each candidate and number of clients.
    pub summaries: Vec<Summary>,
    pub measurements: Vec<Measurement>,
}

/// Measures everything, prints the table and writes the files. Returns whether every candidate has figures.
///
/// # Errors
/// When the options contradict each other, or nothing can be started or written.
pub(crate) fn run(options: &CompareOptions) -> Result<bool, CompareError> {
    if let Some(odd) = options
        .clients
        .iter()
        .find(|clients| !clients.is_multiple_of(ROOM_SIZE))
    {
        return Err(CompareError::Odd(*odd));
    }
    if options.rate == 0.0 {
        return Err(CompareError::NoPace);
    }
    let json = Output::open(options.json.as_ref())?;
    let page = Output::open(options.report.as_ref())?;
    let machine = Machine::this();
    let (candidates, skipped) = candidates(options);
    for missing in &skipped {
        eprintln!("skipped: {missing}");
    }
    let measurements = measure(options, &candidates)?;
    let comparison = Comparison {
        machine,
        description: description(options),
        skipped: skipped.iter().map(NotInstalled::to_string).collect(),
        summaries: summary::of(&candidates, &options.clients, &measurements),
        candidates,
        measurements,
    };
    output::print(&comparison);
    if let Some(json) = json {
        json.write_json(&comparison)?;
    }
    if let Some(page) = page {
        page.write(|file| file.write_all(page::render(&comparison)?.as_bytes()))?;
    }
    Ok(comparison
        .measurements
        .iter()
        .all(|measurement| measurement.failure.is_none()))
}

/// How the measurements are made, in one line.
fn description(options: &CompareOptions) -> String {
    let CompareOptions {
        payload,
        rate,
        duration,
        rounds,
        ..
    } = options;
    let s = if *rounds == 1 { "" } else { "s" };
    format!(
        "relay, rooms of {ROOM_SIZE}, {payload} bytes; paced: {rate}/s each; closed loop: one outstanding each; {duration} s each, {rounds} round{s}"
    )
}

/// The servers to measure, and the peers that are not installed.
fn candidates(options: &CompareOptions) -> (Vec<Candidate>, Vec<NotInstalled>) {
    let mut candidates: Vec<Candidate> = options
        .forkade
        .iter()
        .map(|arguments| {
            let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
            let words = [&["forkade".to_owned()], &arguments[..]].concat();
            Candidate {
                name: words.join(" "),
                peer: None,
                arguments,
            }
        })
        .collect();
    let mut skipped = Vec::new();
    let directory = peer::directory(options.peers_dir.as_deref());
    for peer in &options.peers {
        match peer.check_installed(&directory) {
            Ok(()) => candidates.push(Candidate {
                name: peer.name().to_owned(),
                peer: Some(*peer),
                arguments: Vec::new(),
            }),
            Err(missing) => skipped.push(missing),
        }
    }
    (candidates, skipped)
}

fn measure(options: &CompareOptions, candidates: &[Candidate]) -> Result<Vec<Measurement>, CompareError> {
    let mut measurements = Vec::new();
    for round in 1..=options.rounds {
        for clients in &options.clients {
            for pacing in [Pacing::Paced, Pacing::ClosedLoop] {
                for candidate in candidates {
                    eprintln!(
                        "round {round} of {}: {}, {clients} clients, {pacing}",
                        options.rounds, candidate.name
                    );
                    let measurement = measurement::run(options, candidate, *clients, pacing, round)
                        .map_err(CompareError::Start)?;
                    if let Some(failure) = &measurement.failure {
                        eprintln!("{failure}");
                    }
                    measurements.push(measurement);
                }
            }
        }
    }
    Ok(measurements)
}

impl std::fmt::Display for Pacing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Paced => "paced",
            Self::ClosedLoop => "closed loop",
        })
    }
}
