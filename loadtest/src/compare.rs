//! `forkade-loadtest compare`: Forkade and its [peers](crate::peer), one after the other, by the same workload. Each figure comes
//! from a run of this program's own, with a command line that anybody can repeat; the rounds go through all contenders in turn,
//! so that whatever else the machine has to do meets all of them.

mod measurement;
mod page;
mod summary;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use self::measurement::{Figures, MeasurementError};
use self::summary::Summary;
use crate::machine::Machine;
use crate::output::{Output, OutputError};
use crate::peer::{self, NotInstalled, Peer};
use crate::plan::{CLIENTS_MAX, per_second};
use crate::workload::relay;

/// What Forkade is run with unless `--forkade` says otherwise, each by itself.
const FORKADE_DEFAULT: [&str; 2] = ["", "--clients-per-handler 256"];
/// Members of a room.
const ROOM_SIZE: u32 = 2;

/// Measures Forkade and other servers by the same workload, and prints one table.
///
/// The workload is `relay`: rooms of two, each message goes to both. At each number of clients it is run once at a fixed pace
/// (latency) and once in a closed loop with one message outstanding per client (throughput). Peers that are not installed are
/// skipped, and it is said how to install them.
#[derive(Debug, Clone, Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct CompareOptions {
    /// Numbers of clients; the table is of the last one, the plots are of all.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [100, 300, 1000], value_parser = clap::value_parser!(u32).range(2..=i64::from(CLIENTS_MAX)))]
    clients: Vec<u32>,
    /// Arguments of a Forkade server to be measured, in one word (repeatable): --forkade "" --forkade "--keepers 4".
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true, default_values_t = FORKADE_DEFAULT.map(str::to_owned))]
    forkade: Vec<String>,
    /// Which peers to measure.
    #[arg(long, value_enum, value_name = "PEER,…", value_delimiter = ',', default_values_t = Peer::ALL)]
    peers: Vec<Peer>,
    /// Where the peers lie [default: loadtest/peers, where this program was built].
    #[arg(long, value_name = "DIR")]
    peers_dir: Option<PathBuf>,
    /// How often everything is measured; the table has medians.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load of each measurement.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = crate::options::seconds)]
    duration: f64,
    /// Messages per client and second, where they are paced.
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = per_second)]
    rate: f64,
    /// Bytes of each message, its header of 20 included.
    #[arg(long, value_name = "BYTES", default_value_t = 32, value_parser = clap::value_parser!(u32).range(i64::from(relay::HEADER_BYTES)..=i64::from(relay::PAYLOAD_BYTES_MAX)))]
    payload: u32,
    /// Write all figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with plots to this file: latencies, throughput and memory against the number of clients.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

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

/// A server and how it is named.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entrant {
    pub name: String,
    /// A peer; or else Forkade with these arguments.
    pub peer: Option<Peer>,
    pub arguments: Vec<String>,
}

/// Paced, or a closed loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pacing {
    Paced,
    ClosedLoop,
}

/// One run of one server.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    pub entrant: String,
    pub clients: u32,
    pub pacing: Pacing,
    pub round: u32,
    /// What to type to repeat it.
    pub command: Vec<String>,
    pub figures: Option<Figures>,
    /// Why there are no figures.
    pub failure: Option<String>,
}

/// All that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub machine: Machine,
    /// How the measurements were made, in one line.
    pub description: String,
    pub entrants: Vec<Entrant>,
    /// Who is not among them, and why.
    pub skipped: Vec<String>,
    /// Medians, for each entrant and number of clients.
    pub summaries: Vec<Summary>,
    pub measurements: Vec<Measurement>,
}

/// Measures everything, prints the table, writes the files. Says whether every entrant has figures.
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
    let (entrants, skipped) = entrants(options);
    for missing in &skipped {
        eprintln!("skipped: {missing}");
    }
    let measurements = measure(options, &entrants)?;
    let comparison = Comparison {
        machine,
        description: options.description(),
        skipped: skipped.iter().map(NotInstalled::to_string).collect(),
        summaries: summary::of(&entrants, &options.clients, &measurements),
        entrants,
        measurements,
    };
    // Whoever closed stdout does not want the table.
    let _ = write!(io::stdout(), "{comparison}");
    if let Some(json) = json {
        json.write(|file| {
            serde_json::to_writer_pretty(&mut *file, &comparison)?;
            writeln!(file)
        })?;
    }
    if let Some(page) = page {
        page.write(|file| file.write_all(page::render(&comparison)?.as_bytes()))?;
    }
    Ok(comparison
        .measurements
        .iter()
        .all(|measurement| measurement.failure.is_none()))
}

impl CompareOptions {
    fn description(&self) -> String {
        let s = if self.rounds == 1 { "" } else { "s" };
        format!(
            "relay, rooms of {ROOM_SIZE}, {} bytes; paced: {}/s each; closed loop: one outstanding each; {} s each, {} round{s}",
            self.payload, self.rate, self.duration, self.rounds
        )
    }
}

/// Who is measured, and who cannot be.
fn entrants(options: &CompareOptions) -> (Vec<Entrant>, Vec<NotInstalled>) {
    let mut entrants: Vec<Entrant> = options
        .forkade
        .iter()
        .map(|arguments| {
            let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
            let words = [&["forkade".to_owned()], &arguments[..]].concat();
            Entrant {
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
            Ok(()) => entrants.push(Entrant {
                name: peer.name().to_owned(),
                peer: Some(*peer),
                arguments: Vec::new(),
            }),
            Err(missing) => skipped.push(missing),
        }
    }
    (entrants, skipped)
}

fn measure(options: &CompareOptions, entrants: &[Entrant]) -> Result<Vec<Measurement>, CompareError> {
    let mut measurements = Vec::new();
    for round in 1..=options.rounds {
        for clients in &options.clients {
            for pacing in [Pacing::Paced, Pacing::ClosedLoop] {
                for entrant in entrants {
                    eprintln!(
                        "round {round} of {}: {}, {clients} clients, {pacing}",
                        options.rounds, entrant.name
                    );
                    let measurement =
                        measurement::run(options, entrant, *clients, pacing, round).map_err(|error| {
                            let MeasurementError::Start(cause) = error;
                            CompareError::Start(cause)
                        })?;
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
