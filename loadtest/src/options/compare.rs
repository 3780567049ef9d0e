//! The command line of `forkade-loadtest compare`.

use std::path::PathBuf;

use clap::Args;

use super::seconds;
use crate::plan::{CLIENTS_MAX, RELAY_HEADER_BYTES, RELAY_PAYLOAD_BYTES_MAX, per_second};
use crate::server::peer::Peer;

/// The arguments of Forkade servers measured by default, one server each.
const FORKADE_DEFAULT: [&str; 2] = ["", "--clients-per-handler 256"];

/// Measures Forkade and other servers by the same workload, and prints one table.
///
/// The workload is `relay`: rooms of two, each message goes to both. For each number of clients it is run
/// once at a fixed rate (latency) and once in a closed loop with one outstanding message per client
/// (throughput). Peers that are not installed are skipped, with a message that says how to install them.
#[derive(Debug, Clone, Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct CompareOptions {
    /// Numbers of clients; the table shows the last one, the plots show all.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [100, 300, 1000], value_parser = clap::value_parser!(u32).range(2..=i64::from(CLIENTS_MAX)))]
    pub clients: Vec<u32>,
    /// Arguments of a Forkade server to measure, as one word (repeatable): --forkade "" --forkade "--keepers
    /// 4".
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true, default_values_t = FORKADE_DEFAULT.map(str::to_owned))]
    pub forkade: Vec<String>,
    /// Which peers to measure.
    #[arg(long, value_enum, value_name = "PEER,…", value_delimiter = ',', default_values_t = Peer::ALL)]
    pub peers: Vec<Peer>,
    /// Directory of the peers [default: loadtest/peers, where this program was built].
    #[arg(long, value_name = "DIR")]
    pub peers_dir: Option<PathBuf>,
    /// How often everything is measured; the table shows medians.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Seconds of load of each measurement.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub duration: f64,
    /// Messages per client and second at the fixed rate.
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = per_second)]
    pub rate: f64,
    /// Bytes of each message, including its header of 20.
    #[arg(long, value_name = "BYTES", default_value_t = 32, value_parser = clap::value_parser!(u32).range(i64::from(RELAY_HEADER_BYTES)..=i64::from(RELAY_PAYLOAD_BYTES_MAX)))]
    pub payload: u32,
    /// Write all figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write an HTML page with plots to this file: latencies, throughput and memory against the number of
    /// clients.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}
