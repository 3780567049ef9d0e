//! Promise: whatever system call of accepting, forking, passing, polling and sending fails, nobody hangs, no descriptor is lost, no
//! zombie is left, the log tells, and the server goes on serving.
//!
//! The real server runs under a tracer, which makes one call of one of its processes fail, the first of its kind, the second, and so on,
//! with each error that the kernel may give there ([`calls::MATRIX`]). Meanwhile players come, play, talk, lose a connection and go, and
//! two bystanders talk to each other. After each failure:
//!
//! - whoever was struck was served in spite of it, refused with a typed error, or disconnected and resumed; the next one is served;
//! - the bystanders have lost, doubled and reordered nothing, and have not lost their connections, unless it was their own handler's call;
//! - the server comes to hold what it held before: the same processes, no zombie, as many descriptors in each;
//! - nobody has panicked, and the log has a warning or an error with what the kernel said (where it is worth telling).
//!
//! A server whose start is disturbed serves, or ends with the reason and leaves no process behind.
//!
//! A few calls of each row are tried, spread over all of them; `FORKADE_TEST_CALLS=20` tries more, and `FORKADE_TEST_CALLS=all` all of
//! them, in some minutes. An argument selects rows by a part of their name: `cargo test --test failing_calls -- "Keeper fork"`.
//!
//! Where this machine does not let processes be traced, nothing is proved, and the test says so and succeeds; with `REQUIRE_PTRACE=1`, as
//! in the project's own checks, it fails. It knows the registers of x86-64.

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

/// Whether it counts as a failure that nothing can be proved on this machine.
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

    /// Exit status of a worker that may not trace.
    const NOT_PERMITTED: u8 = 77;
    /// Rows that are tried on one server, if nothing goes wrong.
    const ROWS_PER_SERVER: usize = 6;
    /// Calls of each row that fail with each error, unless told otherwise.
    const CALLS_DEFAULT: u32 = 2;

    /// What all workers share: whose turn is next, and the sums. All numbers.
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
        let numbers = Mapping::create("failing-calls", 4 * size_of::<AtomicU64>()).expect("a page");
        let number = |index: usize| numbers.record(index * size_of::<AtomicU64>());
        let shared = Shared {
            next: number(0),
            failed: number(1),
            refused: number(2),
            violated: number(3),
        };
        let extent = extent();
        // They wait for each other's processes more than they use a processor.
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
