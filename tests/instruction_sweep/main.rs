//! The instruction sweep: a process is killed after every single instruction of every kind of operation.
//!
//! A real kill would need a process for each instruction. Instead, a child is stopped with ptrace after each
//! instruction that stores into the shared memory; a death between two of them leaves the same memory. Whenever an
//! instruction has changed it, the memory is copied, the copy's locks are marked as the kernel marks those of a dead
//! owner, and the server's own recovery code runs on the copy. Then
//!
//! - every state is one that the undisturbed operation goes through, in the same order: before, after, and,
//!   where an operation takes several transactions, the lasting states between them. The comparison covers
//!   everything that a client or process could observe ([`forkade::testing::maintenance::state_dump`]);
//! - the state is consistent ([`forkade::testing::maintenance::check`]);
//! - a handler that takes the connection over finds nothing undecided, although it recovers only the locks
//!   noted in its own records;
//! - when it continues and repeats the step, it reaches the same final state as without the death: nothing is
//!   lost, nothing is done twice;
//! - if no handler takes over, the ticker's sweeps free everything that the connection held.
//!
//! Recovery is swept in the same way. From the state just before each commit, when the journal is fullest, a
//! successor is stopped after each store of the rollback; from states between transactions, of the rest
//! of the operation, too. It may die in turn at every instruction.
//!
//! The code under test is optimised: the development profile optimises, and with `--release` it is linked as in
//! the product. An argument selects operations by a part of their name:
//!
//! ```text
//! cargo test --release --test instruction_sweep -- resume
//! ```
//!
//! **Broken on purpose.** With `--features mutants` each operation is also swept with a journal that keeps nothing, and
//! with a commit that takes two stores. The sweep must report violations then, or it proves nothing:
//!
//! ```text
//! cargo test --release --features mutants --test instruction_sweep
//! ```
//!
//! On a machine that does not allow tracing, nothing is proved: the test says so and succeeds. With
//! `REQUIRE_PTRACE=1`, as in the project's own checks, it fails.

mod chat_operations;
mod fixture;
#[path = "../harness/mod.rs"]
mod harness;
mod operations;
mod owner_operations;
mod recovery_checker;
mod stepper;
mod sweep;
mod text_operations;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[cfg(feature = "mutants")]
use shmem::mutants::Mutant;
use shmem::sys::memory::Mapping;
use shmem::sys::process::{Exit, fork};

use chat_operations::TALK;
use operations::{OPERATIONS, Operation};
use owner_operations::OWNERS;
use stepper::StepError;
use sweep::{Findings, sweep, sweep_recovery};
use text_operations::TYPING;

/// Exit status of a worker that is not allowed to trace.
const NOT_PERMITTED: u8 = 77;

/// Number of violations of one operation that are shown in full.
const SHOWN_MAX: usize = 3;

/// A way to break the transactions on purpose, in the process that is stepped through.
struct Sabotage {
    name: &'static str,
    begin: fn(),
    /// Operations may survive it, if they do not need what it breaks.
    spares_some: bool,
}

#[cfg(feature = "mutants")]
const SABOTAGES: &[Sabotage] = &[
    Sabotage {
        name: "journal skipped",
        begin: || Mutant::JournalSkipped.activate(),
        spares_some: false,
    },
    Sabotage {
        name: "commit in two stores",
        begin: || Mutant::CommitInTwoStores.activate(),
        // A death between the two stores undoes the first change alone, which may be unobservable.
        spares_some: true,
    },
];
#[cfg(not(feature = "mutants"))]
const SABOTAGES: &[Sabotage] = &[];

/// The workers' findings about one operation. It lies in shared memory, so it contains only numbers.
#[derive(Default)]
struct Row {
    done: u64,
    stores: u64,
    states: u64,
    recovery_stores: u64,
    recovery_states: u64,
    violations: u64,
    /// By mutant: number of reported violations.
    caught: [u64; 2],
}

const COLUMNS: usize = 8;
const ROWS_MAX: usize = 256;
type Cells = [[AtomicU64; COLUMNS]; ROWS_MAX];

fn main() -> ExitCode {
    without_repeated_instructions();
    be_brief_about_panics();
    let selection = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .unwrap_or_default();
    let selected: Vec<&Operation> = [OPERATIONS, TALK, OWNERS, TYPING]
        .into_iter()
        .flatten()
        .filter(|operation| operation.name.contains(&selection))
        .collect();
    assert!(selected.len() <= ROWS_MAX, "more operations than rows");
    let begun = Instant::now();
    let cells: &'static Cells = Mapping::create_record("sweep-results").expect("a page or two");
    let next: &'static AtomicU64 = Mapping::create_record("sweep-next").expect("a page");
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let children: Vec<_> = (0..workers)
        .map(|_| fork(|| {}, |_| work(&selected, cells, next)).expect("a worker can be forked"))
        .collect();
    let exits: Vec<Exit> = children
        .into_iter()
        .map(|child| child.wait().expect("a worker ends"))
        .collect();
    if exits.contains(&Exit::Code(NOT_PERMITTED)) {
        println!(
            "NOTHING WAS PROVED: this machine does not let processes be traced (ptrace). Run the sweep where it does."
        );
        return if proof_is_required() {
            println!("FAILED: REQUIRE_PTRACE demands a proof.");
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    let rows: Vec<Row> = cells[..selected.len()].iter().map(Row::load).collect();
    show(&selected, &rows);
    println!("{:.1} s in {workers} processes", begun.elapsed().as_secs_f64());
    verdict(&selected, &rows, &exits)
}

/// Whether the test fails if nothing can be proved on this machine.
fn proof_is_required() -> bool {
    std::env::var_os("REQUIRE_PTRACE").is_some_and(|value| !value.is_empty() && value != "0")
}

/// An instruction that copies or fills a range is stopped once for each byte. This makes the C library use other
/// instructions, which store several bytes at once.
fn without_repeated_instructions() {
    const TUNABLES: &str = "GLIBC_TUNABLES";
    if std::env::var_os(TUNABLES).is_some() {
        return;
    }
    let never = usize::MAX / 16;
    let tunables =
        format!("glibc.cpu.x86_rep_stosb_threshold={never}:glibc.cpu.x86_rep_movsb_threshold={never}");
    let itself = std::env::current_exe().expect("a process knows its program");
    let error = Command::new(itself)
        .args(std::env::args_os().skip(1))
        .env(TUNABLES, tunables)
        .exec();
    panic!("cannot start again: {error}");
}

/// Some operations make games panic, and mutants make recovery panic.
fn be_brief_about_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        if !text.ends_with("on purpose") {
            eprintln!("{}", text.lines().take(4).collect::<Vec<_>>().join(" "));
        }
    }));
}

fn work(selected: &[&Operation], cells: &Cells, next: &AtomicU64) -> u8 {
    loop {
        let number = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("a few");
        let Some(operation) = selected.get(number) else {
            return 0;
        };
        match examine(operation) {
            Ok(row) => row.store(&cells[number]),
            Err(StepError::NotPermitted) => return NOT_PERMITTED,
            Err(error) => {
                eprintln!("{}: cannot be stepped through: {error}", operation.name);
                return 1;
            }
        }
    }
}

fn examine(operation: &Operation) -> Result<Row, StepError> {
    let subject = operation.set_up();
    let found = sweep(&subject, operation.states..=operation.states, || {})?;
    report(operation, "", &found);
    let mut row = Row {
        done: 1,
        stores: found.stores,
        states: found.states,
        ..Row::default()
    };
    row.violations = found.violations.len() as u64;
    for (committed, undecided) in found.undecided.into_iter().enumerate() {
        let found = sweep_recovery(&subject, undecided, operation.states - committed, committed == 0)?;
        report(operation, ", in recovery", &found);
        row.recovery_stores += found.stores;
        row.recovery_states += found.states;
        row.violations += found.violations.len() as u64;
    }
    for (sabotage, caught) in SABOTAGES.iter().zip(&mut row.caught) {
        *caught = match sweep(
            &operation.set_up(),
            operation.states..=operation.states,
            sabotage.begin,
        ) {
            Ok(found) => found.violations.len() as u64,
            // The worker hit its own broken state: the mutant was noticed.
            Err(StepError::Ended(_)) => 1,
            Err(error) => return Err(error),
        };
    }
    Ok(row)
}

fn report(operation: &Operation, when: &str, found: &Findings) {
    for violation in found.violations.iter().take(SHOWN_MAX) {
        eprintln!("VIOLATION: {}{when}: {violation}", operation.name);
    }
}

impl Row {
    fn numbers(&self) -> [u64; COLUMNS] {
        let Self {
            done,
            stores,
            states,
            recovery_stores,
            recovery_states,
            violations,
            caught,
        } = *self;
        [
            done,
            stores,
            states,
            recovery_stores,
            recovery_states,
            violations,
            caught[0],
            caught[1],
        ]
    }

    fn store(&self, cells: &[AtomicU64; COLUMNS]) {
        for (cell, number) in cells.iter().zip(self.numbers()) {
            cell.store(number, Ordering::Release);
        }
    }

    fn load(cells: &[AtomicU64; COLUMNS]) -> Self {
        let [
            done,
            stores,
            states,
            recovery_stores,
            recovery_states,
            violations,
            first,
            second,
        ] = cells.each_ref().map(|cell| cell.load(Ordering::Acquire));
        let caught = [first, second];
        Self {
            done,
            stores,
            states,
            recovery_stores,
            recovery_states,
            violations,
            caught,
        }
    }
}

fn show(selected: &[&Operation], rows: &[Row]) {
    print!(
        "\n{:58} transactions  stores  states  recovery: stores  states  violations",
        "operation"
    );
    for sabotage in SABOTAGES {
        print!("  {}", sabotage.name);
    }
    println!();
    let mut total = Row::default();
    let mut transactions = 0;
    for (operation, row) in selected.iter().zip(rows) {
        show_row(operation.name, operation.states - 1, row);
        transactions += operation.states - 1;
        total.stores += row.stores;
        total.states += row.states;
        total.recovery_stores += row.recovery_stores;
        total.recovery_states += row.recovery_states;
        total.violations += row.violations;
        for (sum, caught) in total.caught.iter_mut().zip(row.caught) {
            *sum += caught;
        }
    }
    show_row("all", transactions, &total);
}

fn show_row(name: &str, transactions: usize, row: &Row) {
    let Row {
        stores,
        states,
        recovery_stores,
        recovery_states,
        violations,
        caught,
        ..
    } = row;
    print!(
        "{name:58} {transactions:12}  {stores:6}  {states:6}  {recovery_stores:16}  {recovery_states:6}  {violations:10}"
    );
    for (sabotage, caught) in SABOTAGES.iter().zip(caught) {
        print!("  {caught:width$}", width = sabotage.name.len());
    }
    println!();
}

fn verdict(selected: &[&Operation], rows: &[Row], exits: &[Exit]) -> ExitCode {
    let mut failed = exits.iter().any(|exit| *exit != Exit::Code(0));
    for (operation, row) in selected.iter().zip(rows) {
        if row.done == 0 || row.violations > 0 {
            println!("FAILED: {}", operation.name);
            failed = true;
        }
    }
    for (number, sabotage) in SABOTAGES.iter().enumerate() {
        let unnoticed = |(operation, row): &(&&Operation, &Row)| {
            row.caught[number] == 0 && !(operation.is_one_cell || sabotage.spares_some)
        };
        let unnoticed: Vec<_> = selected
            .iter()
            .zip(rows)
            .filter(unnoticed)
            .map(|(operation, _)| operation.name)
            .collect();
        if !unnoticed.is_empty() || rows.iter().all(|row| row.caught[number] == 0) {
            println!(
                "FAILED: broken transactions were not noticed ({}): {unnoticed:?}",
                sabotage.name
            );
            failed = true;
        }
    }
    if SABOTAGES.is_empty() {
        println!("Not broken on purpose: that needs `--features mutants`.");
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
