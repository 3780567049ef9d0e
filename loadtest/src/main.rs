//! `forkade-loadtest` measures a Forkade server under load and checks every payload.
//!
//! A run goes through these modules:
//!
//! ```text
//! options, plan ── measure (main thread) ── report: table, JSON, HTML page
//!   ├ server     starts or finds the server: its process, log and console; which peer it is
//!   ├ chaos      kills its processes (a thread of its own)
//!   ├ machine    samples what it uses (a thread of its own)
//!   └ clients    join, load, drain, disconnect (a thread of its own, or one in each process of multiprocess)
//!      └ engine              one mio loop
//!         ├ group            the clients of one workload
//!         │  ├ join_phase    how they get into their rooms      (no input or output)
//!         │  └ workload      what they do, and what is right    (no input or output)
//!         └ client           a session (client_protocol) and its connection
//!
//! compare    runs this program once for each server and number of clients
//! scaling    lets single clients measure beside few players and beside many
//! ```
//!
//! The modules form layers, here from the top down. A module uses only modules of lower layers, or of its own
//! layer without a cycle. `tests/layers` of the workspace checks that.
//!
//! 1. `compare`, `scaling`
//! 2. `measure`
//! 3. `report`, `multiprocess`
//! 4. `clients`, `chaos`
//! 5. `engine`
//! 6. `workload`
//! 7. `client_protocol`
//! 8. `options`
//! 9. `server`
//! 10. `plan`
//! 11. `interrupt`, `latency`, `machine`, `progress`
//! 12. `open_files`, `output`, `random`, `run_state`, `schedule`

#![forbid(unsafe_code)]

mod chaos;
mod client_protocol;
mod clients;
mod compare;
mod engine;
mod interrupt;
mod latency;
mod machine;
mod measure;
mod multiprocess;
mod open_files;
mod options;
mod output;
mod plan;
mod progress;
mod random;
mod report;
mod run_state;
mod scaling;
mod schedule;
mod server;
mod workload;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::compare::CompareError;
use crate::measure::MeasureError;
use crate::options::{Command, Options};
use crate::output::{Output, OutputError};
use crate::plan::WorkloadPlan;
use crate::report::{Report, page};
use crate::scaling::ScalingError;
use crate::server::{peer, process};

// The other exit statuses are success, usage and Ctrl-C; `--help` explains all of them.
const THRESHOLD_BROKEN: u8 = 1;
const USAGE: u8 = 2;
const NOT_MEASURED: u8 = 3;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == peer::SERVE) {
        return process::serve(arguments);
    }
    if arguments.get(1).is_some_and(|first| first == peer::FLOOR) {
        return process::serve_floor();
    }
    let (options, plans) = Options::from_command_line();
    if let Some(task) = &options.command {
        return match task {
            Command::Compare(compare) => exit_code(compare::run(compare).map_err(Failure::from)),
            Command::Scaling(options) => {
                exit_code(scaling::run(options).map(|()| true).map_err(Failure::from))
            }
        };
    }
    if let (true, Some(server)) = (options.is_worker, options.server.server) {
        return multiprocess::run_worker(&options, server, plans);
    }
    match measure(&options, plans) {
        Ok(report) if !report.failures.is_empty() => {
            eprintln!("forkade-loadtest: failed: {}", report.failures.join("; "));
            ExitCode::from(THRESHOLD_BROKEN)
        }
        Ok(report) if report.interrupted => ExitCode::from(interrupt::EXIT_STATUS),
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("forkade-loadtest: {failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}

/// The exit status of a command that makes several measurements. `Ok(false)`: some of them failed.
fn exit_code(result: Result<bool, Failure>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_MEASURED),
        Err(failure) => {
            eprintln!("forkade-loadtest: {failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}

/// Why nothing was measured, or the figures could not be written.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("nothing was measured: {0}")]
    Measure(#[from] MeasureError),
    #[error("nothing was compared: {0}")]
    Compare(#[from] CompareError),
    #[error("nothing was measured: {0}")]
    Scaling(#[from] ScalingError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Failure {
    fn exit_status(&self) -> u8 {
        match self {
            Self::Measure(error) if error.is_interrupt() => interrupt::EXIT_STATUS,
            Self::Measure(error) if error.exceeds_machine() => USAGE,
            Self::Measure(_) => NOT_MEASURED,
            Self::Scaling(ScalingError::Interrupted { .. }) => interrupt::EXIT_STATUS,
            Self::Scaling(ScalingError::Output(_)) | Self::Output(_) => USAGE,
            Self::Scaling(_) | Self::Compare(CompareError::Start(_)) => NOT_MEASURED,
            Self::Compare(_) => USAGE,
        }
    }
}

fn measure(options: &Options, plans: Vec<WorkloadPlan>) -> Result<Report, Failure> {
    let json = Output::open(options.json.as_ref())?;
    let page = Output::open(options.report.as_ref())?;
    let report = measure::run(options, plans)?;
    output::print(&report);
    if let Some(json) = json {
        json.write_json(&report)?;
    }
    if let Some(page) = page {
        page.write(|file| file.write_all(page::render(&report)?.as_bytes()))?;
    }
    Ok(report)
}
