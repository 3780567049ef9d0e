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
use std::path::Path;
use std::process::ExitCode;

use crate::options::Options;
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
    let report = match control::run(&options, shape) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("forkade-loadtest: {error}");
            return ExitCode::from(NOT_MEASURED);
        }
    };
    // Whoever closed stdout does not want the table.
    let _ = write!(io::stdout(), "{report}");
    if let Some(path) = &options.json
        && let Err(error) = write_json(&report, path)
    {
        eprintln!("forkade-loadtest: cannot write {}: {error}", path.display());
        return ExitCode::from(NOT_MEASURED);
    }
    if report.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(THRESHOLD_BROKEN)
    }
}

fn write_json(report: &Report, path: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    serde_json::to_writer_pretty(&mut file, report)?;
    writeln!(file)?;
    file.flush()
}
