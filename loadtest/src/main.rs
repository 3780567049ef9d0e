//! `forkade-loadtest` measures a Forkade server under load and checks every payload.
//!
//! ```text
//! main ── options ── control (this thread: measures, kills, shows progress) ── report
//!                      │ server_process, console, proc_figures, chaos
//!                      └ swarm (its own thread: the phases) ── engine (one mio loop)
//!                           ├ entry      how clients get into their rooms     (pure)
//!                           ├ workload   what they do there, and what is right (pure)
//!                           └ client     a session and its connection
//! ```

#![forbid(unsafe_code)]

mod alarm;
mod chaos;
mod checker;
mod client;
mod console;
mod control;
mod engine;
mod entry;
mod latency;
mod options;
mod proc_figures;
mod progress;
mod random;
mod report;
mod schedule;
mod server_process;
mod swarm;
mod workload;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::control::ControlError;
use crate::options::{Options, Shape};
use crate::report::Report;

const THRESHOLD_BROKEN: u8 = 1;
const NOT_MEASURED: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments
        .get(1)
        .is_some_and(|first| first == server_process::SERVE)
    {
        return server_process::serve(arguments);
    }
    let (options, shape) = Options::from_command_line();
    match measure(&options, shape) {
        Ok(report) if report.failures.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(THRESHOLD_BROKEN),
        Err(error) => {
            eprintln!("forkade-loadtest: {error}");
            ExitCode::from(NOT_MEASURED)
        }
    }
}

/// Why there are no figures, or nowhere to put them.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("cannot write {path}: {cause}")]
    Json { path: PathBuf, cause: io::Error },
}

fn measure(options: &Options, shape: Shape) -> Result<Report, Failure> {
    let failed = |cause| Failure::Json {
        path: options.json.clone().unwrap_or_default(),
        cause,
    };
    // Opened first: a path that cannot be written to should not show only when the run is over.
    let json = options
        .json
        .as_ref()
        .map(File::create)
        .transpose()
        .map_err(failed)?;
    let report = control::run(options, shape)?;
    // Whoever closed stdout does not want the table.
    let _ = write!(io::stdout(), "{report}");
    json.map(|file| write_json(&report, file))
        .transpose()
        .map_err(failed)?;
    Ok(report)
}

fn write_json(report: &Report, file: File) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    serde_json::to_writer_pretty(&mut file, report)?;
    writeln!(file)?;
    file.flush()
}
