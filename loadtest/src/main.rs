//! `forkade-loadtest` measures a Forkade server under load and checks every payload.
//!
//! ```text
//! main ── options, mix, plan ── control (this thread: measures, shows progress) ── report: table, JSON, page
//!                      │ server_process, peer, console, sampler, chaos::killer, interrupt
//!                      └ swarm (its own thread: the phases) ── engine (one mio loop)
//!                           ├ group      the clients of one workload
//!                           │  ├ entry      how they get into their rooms      (pure)
//!                           │  └ workload   what they do, and what is right    (pure)
//!                           └ client     a session (speech: Forkade's or a peer's) and its connection
//!      │                 (or fleet: several processes, each with such a swarm)
//!      ├ compare: this program again, for each server and number of clients
//!      └ growth: single clients beside a fleet of few and of many
//! ```

#![forbid(unsafe_code)]

mod alarm;
mod chaos;
mod checker;
mod client;
mod compare;
mod connections;
mod console;
mod control;
mod engine;
mod entry;
mod fleet;
mod group;
mod growth;
mod interrupt;
mod latency;
mod machine;
mod mix;
mod options;
mod output;
mod page;
mod peer;
mod plan;
mod proc_figures;
mod progress;
mod random;
mod report;
mod sampler;
mod schedule;
mod server_log;
mod server_process;
mod speech;
mod swarm;
mod thread_figures;
mod timeline;
mod workload;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::compare::CompareError;
use crate::control::ControlError;
use crate::growth::GrowthError;
use crate::options::{Options, Task};
use crate::output::{Output, OutputError};
use crate::plan::Part;
use crate::report::Report;

// Exit statuses. (Beside those of success, usage and Ctrl-C; `--help` explains them.)
const THRESHOLD_BROKEN: u8 = 1;
const USAGE: u8 = 2;
const NOT_MEASURED: u8 = 3;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments
        .get(1)
        .is_some_and(|first| first == server_process::SERVE)
    {
        return server_process::serve(arguments);
    }
    if arguments.get(1).is_some_and(|first| first == peer::FLOOR) {
        return server_process::serve_floor();
    }
    let (options, parts) = Options::from_command_line();
    if let Some(task) = &options.command {
        return match task {
            Task::Compare(compare) => done(compare::run(compare).map_err(Failure::from)),
            Task::Growth(growth) => done(growth::run(growth).map(|()| true).map_err(Failure::from)),
        };
    }
    if let (true, Some(server)) = (options.part_of_a_fleet, options.server.server) {
        return fleet::run_part(&options, server, parts);
    }
    match measure(&options, parts) {
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

/// The exit status of a task that measures several things, and says whether it has all.
fn done(result: Result<bool, Failure>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_MEASURED),
        Err(failure) => {
            eprintln!("forkade-loadtest: {failure}");
            ExitCode::from(failure.exit_status())
        }
    }
}

/// Why there are no figures, or nowhere to put them.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("nothing was measured: {0}")]
    Control(#[from] ControlError),
    #[error("nothing was compared: {0}")]
    Compare(#[from] CompareError),
    #[error("nothing was measured: {0}")]
    Growth(#[from] GrowthError),
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Failure {
    fn exit_status(&self) -> u8 {
        match self {
            Self::Control(error) if error.is_interrupt() => interrupt::EXIT_STATUS,
            Self::Control(error) if error.is_too_much() => USAGE,
            Self::Control(_) => NOT_MEASURED,
            Self::Growth(GrowthError::Interrupted { .. }) => interrupt::EXIT_STATUS,
            Self::Growth(GrowthError::Output(_)) | Self::Output(_) => USAGE,
            Self::Growth(_) | Self::Compare(CompareError::Start(_)) => NOT_MEASURED,
            Self::Compare(_) => USAGE,
        }
    }
}

fn measure(options: &Options, parts: Vec<Part>) -> Result<Report, Failure> {
    let json = Output::open(options.json.as_ref())?;
    let page = Output::open(options.report.as_ref())?;
    let report = control::run(options, parts)?;
    // Whoever closed stdout does not want the table.
    let _ = write!(io::stdout(), "{report}");
    if let Some(json) = json {
        json.write(|file| {
            serde_json::to_writer_pretty(&mut *file, &report)?;
            writeln!(file)
        })?;
    }
    if let Some(page) = page {
        page.write(|file| file.write_all(page::render(&report)?.as_bytes()))?;
    }
    Ok(report)
}
