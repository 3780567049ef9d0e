//! Promise: whatever system call fails while the server accepts, forks, transfers, polls or sends, no process
//! hangs, no descriptor is lost, no zombie is left, the log reports the error, and the server keeps serving.
//!
//! The real server runs under a tracer that makes one call of one of its processes fail: the first of its
//! kind, the second, and so on, with each error that the kernel may return there ([`calls::MATRIX`]).
//! Meanwhile players connect, play, chat, lose a connection and leave, and a control pair exchanges messages.
//! After each failure:
//!
//! - the affected client was served all the same, refused with a typed error, or disconnected and resumed;
//!   the next client is served;
//! - the control pair has lost, doubled and reordered nothing, and has kept its connections, unless the call
//!   was its own handler's;
//! - the server returns to what it held before: the same processes, no zombie, as many descriptors in each;
//! - no process has panicked, and the log has a warning or an error with the kernel's error (where the row
//!   demands it).
//!
//! A server whose start is disturbed either serves, or exits with the reason and leaves no process behind.
//!
//! A few calls of each row are tried, spread over all of them. `FORKADE_TEST_CALLS=20` tries more, and
//! `FORKADE_TEST_CALLS=all` tries all of them, in some minutes. An argument selects rows by a part of their
//! name: `cargo test --test failing_calls -- "Keeper fork"`.
//!
//! On a machine that does not allow tracing, nothing is proved: the test says so and succeeds. With
//! `REQUIRE_PTRACE=1`, as in the project's own checks, it fails. It knows the registers of x86-64.

#![cfg_attr(not(target_arch = "x86_64"), allow(unused))]

#[cfg(target_arch = "x86_64")]
mod calls;
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_arch = "x86_64")]
mod play;
#[cfg(target_arch = "x86_64")]
mod run;
#[cfg(target_arch = "x86_64")]
mod subject;
#[cfg(target_arch = "x86_64")]
mod tracer;

use std::process::ExitCode;

/// Whether the test fails if nothing can be proved on this machine.
fn proof_is_required() -> bool {
    std::env::var_os("REQUIRE_PTRACE").is_some_and(|value| !value.is_empty() && value != "0")
}

fn nothing_proved(why: &str) -> ExitCode {
    println!("NOTHING WAS PROVED: {why}. Run the test where it can.");
    if proof_is_required() {
        println!("FAILED: REQUIRE_PTRACE demands a proof.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    nothing_proved("the registers of this machine's processor are not known here")
}

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    matrix::main()
}

#[cfg(target_arch = "x86_64")]
mod matrix {
    use std::process::ExitCode;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use shmem::sys::memory::Mapping;
    use shmem::sys::process::{Exit, fork};

    use crate::calls::{MATRIX, Row, Scene};
    use crate::nothing_proved;
    use crate::run::{Extent, Finding, run};
    use crate::tracer::TraceError;

    /// Exit status of a worker that is not allowed to trace.
    const NOT_PERMITTED: u8 = 77;
    /// Rows that are tried on one server unless something goes wrong.
    const ROWS_PER_SERVER: usize = 6;
    /// Default number of calls of each row that fail with each error.
    const CALLS_DEFAULT: u32 = 2;

    /// Shared by all workers: the next row, and the sums. All numbers.
    struct Shared {
        next: &'static AtomicU64,
        failed: &'static AtomicU64,
        refused: &'static AtomicU64,
        violated: &'static AtomicU64,
    }

    pub(super) fn main() -> ExitCode {
        let selection = std::env::args()
            .skip(1)
            .find(|argument| !argument.starts_with('-'));
        let selection = selection.unwrap_or_default();
        let rows: Vec<Row> = MATRIX
            .iter()
            .filter(|row| name(row).contains(&selection))
            .copied()
            .collect();
        let portions: Vec<&[Row]> = rows
            .chunk_by(|row, next| (row.scene == Scene::Start) == (next.scene == Scene::Start))
            .flat_map(|of_kind| of_kind.chunks(ROWS_PER_SERVER))
            .collect();
        let begun = Instant::now();
        let [next, failed, refused, violated]: &'static [AtomicU64; 4] =
            Mapping::create_record("failing-calls").expect("a page");
        let shared = Shared {
            next,
            failed,
            refused,
            violated,
        };
        let extent = extent();
        // The workers mostly wait for the servers' processes.
        let workers = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        let children: Vec<_> = (0..workers)
            .map(|_| fork(|| {}, |_| work(&portions, extent, &shared)).expect("a worker can be forked"))
            .collect();
        let exits: Vec<Exit> = children
            .into_iter()
            .map(|child| child.wait().expect("a worker ends"))
            .collect();
        if exits.contains(&Exit::Code(NOT_PERMITTED)) {
            return nothing_proved("this machine does not let processes be traced (ptrace)");
        }
        let [failed, refused, violated] =
            [shared.failed, shared.refused, shared.violated].map(|sum| sum.load(Ordering::SeqCst));
        println!(
            "{} rows, {failed} calls failed, {refused} requests refused and then granted, {violated} violations, {:.1} s",
            rows.len(),
            begun.elapsed().as_secs_f64()
        );
        match violated == 0 && exits.iter().all(|exit| *exit == Exit::Code(0)) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }

    fn extent() -> Extent {
        match std::env::var("FORKADE_TEST_CALLS").as_deref() {
            Err(_) => Extent::Some(CALLS_DEFAULT),
            Ok("all") => Extent::All,
            Ok(number) => Extent::Some(number.parse().expect("a number, or all")),
        }
    }

    fn name(row: &Row) -> String {
        format!("{:?} {} {:?}", row.role, row.call.name, row.scene)
    }

    fn work(portions: &[&[Row]], extent: Extent, shared: &Shared) -> u8 {
        loop {
            let index = usize::try_from(shared.next.fetch_add(1, Ordering::SeqCst)).expect("a few");
            let Some(rows) = portions.get(index) else { return 0 };
            match run(rows, extent, |row, finding| report(row, finding, shared)) {
                Ok(()) => {}
                Err(TraceError::NotPermitted) => return NOT_PERMITTED,
                Err(error) => {
                    eprintln!("cannot trace: {error:?}");
                    return 1;
                }
            }
        }
    }

    fn report(row: &Row, finding: &Finding, shared: &Shared) {
        shared.failed.fetch_add(finding.failed.into(), Ordering::SeqCst);
        shared.refused.fetch_add(finding.refused.into(), Ordering::SeqCst);
        println!(
            "{:38} {:?}: {} failed, {} refused, {} not made",
            name(row),
            row.errors,
            finding.failed,
            finding.refused,
            finding.not_made
        );
        if let Some(violation) = &finding.violation {
            shared.violated.fetch_add(1, Ordering::SeqCst);
            println!("VIOLATION: {} {:?}: {violation}", name(row), row.errors);
        }
    }
}
