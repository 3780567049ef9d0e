//! The tests notice when the behaviour that they check is broken. Each mutant of [`shmem::mutants`] is turned
//! on, and a test of this program that passes without it must fail. (The instruction sweep itself turns on
//! the mutants of the journal.)
//!
//! ```text
//! cargo test --features mutants --test kills mutants::
//! ```

use std::process::{Command, Output, Stdio};

use shmem::mutants::Mutant;

/// Runs of a test that does not hit the mutant every time.
const ATTEMPTS_MAX: usize = 10;

/// Runs one test of this program in a process of its own, with a mutant turned on or with none.
fn run(test: &str, switch: Option<Mutant>) -> Output {
    let mut program = Command::new(std::env::current_exe().expect("a running program has a file"));
    program.args(["--exact", test]).stdin(Stdio::null());
    match switch {
        Some(switch) => program.env("FORKADE_MUTANT", switch.name()),
        None => program.env_remove("FORKADE_MUTANT"),
    };
    program.output().expect("this program can be run")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn expect_noticed(switch: Mutant, test: &str) {
    let unbroken = run(test, None);
    assert!(
        unbroken.status.success() && said(&unbroken).contains("1 passed"),
        "{test} fails although nothing is broken: {}",
        said(&unbroken)
    );
    for attempt in 1..=ATTEMPTS_MAX {
        let broken = run(test, Some(switch));
        if !broken.status.success() {
            println!("{test} has noticed {switch:?} in run {attempt}");
            assert!(said(&broken).contains("1 failed"), "{}", said(&broken));
            return;
        }
    }
    panic!("{test} has not noticed {switch:?} in {ATTEMPTS_MAX} runs");
}

#[test]
fn a_doorbell_rung_before_the_commit_is_noticed() {
    expect_noticed(
        Mutant::RingBeforeCommit,
        "takeover::an_event_reaches_its_listener_although_the_senders_handler_is_killed",
    );
}

#[test]
fn a_doorbell_that_is_not_rung_again_is_noticed() {
    expect_noticed(
        Mutant::NoSecondRing,
        "takeover::an_event_reaches_its_listener_although_the_senders_handler_is_killed",
    );
}

#[test]
fn a_fin_that_counts_as_a_byte_is_noticed() {
    expect_noticed(
        Mutant::FinCounted,
        "takeover::all_input_before_a_half_close_is_answered",
    );
}

#[test]
fn a_mutex_that_is_not_made_consistent_is_noticed() {
    expect_noticed(
        Mutant::NeverConsistent,
        "takeover::no_byte_is_lost_repeated_or_reordered_however_often_the_handler_is_killed",
    );
}
