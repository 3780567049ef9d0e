//! The command line of `forkade-loadtest growth`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::plan::{CLIENTS_MAX, per_second};

/// Measures what joining, sending, listing and a takeover cost with few and with many players on the server.
#[derive(Debug, Clone, Args)]
#[command(allow_negative_numbers = true)]
pub(crate) struct ScalingOptions {
    /// Numbers of players, each on a server of its own.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [100, 1000, 10_000], value_parser = clap::value_parser!(u32).range(2..=i64::from(CLIENTS_MAX)))]
    pub players: Vec<u32>,
    /// Messages that each player sends per second.
    #[arg(long, value_name = "N", default_value_t = 0.1, value_parser = per_second)]
    pub rate: f64,
    /// How often each operation is measured.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub probes: u32,
    /// How many handlers are killed to measure takeovers.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub takeovers: u32,
    /// Argument of the servers (repeatable); arguments for their capacity are added.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub server_arg: Vec<OsString>,
    /// Write all figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}
