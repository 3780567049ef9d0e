//! Promise: the tests notice when what they are about is broken. Each switch of [`forkade::sabotage`] is turned on, and a test of the
//! suite that passes without it must fail. (Those of the journal are turned on by the instruction sweep itself.)
//!
//! ```text
//! cargo test --release --features sabotage --test sabotage
//! ```

use std::process::{Command, ExitStatus, Stdio};

use forkade::sabotage::Switch;

/// How often a test is run that does not meet with the broken thing every time.
const ATTEMPTS_MAX: usize = 10;

/// Runs a test of the suite, in the build that this one is in, with a switch turned on or with none.
fn run(test: &str, name: &str, switch: Option<Switch>) -> ExitStatus {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "test",
        "--quiet",
        "--features",
        "sabotage",
        "--package",
        "forkade",
    ]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    cargo.args(["--test", test]);
    cargo.args(["--", name]);
    cargo.env_remove("FORKADE_SABOTAGE").stdin(Stdio::null());
    if let Some(switch) = switch {
        // What it says when it fails is of no interest.
        cargo.env("FORKADE_SABOTAGE", switch.name());
        cargo.stdout(Stdio::null()).stderr(Stdio::null());
    }
    cargo.status().expect("cargo can be run")
}

fn expect_noticed(switch: Switch, test: &str, name: &str) {
    assert!(
        run(test, name, None).success(),
        "{name} fails although nothing is broken"
    );
    let is_noticed = || !run(test, name, Some(switch)).success();
    assert!(
        (0..ATTEMPTS_MAX).any(|_| is_noticed()),
        "{name} has not noticed {switch:?} in {ATTEMPTS_MAX} runs"
    );
}

#[test]
fn a_bell_rung_before_the_commit_is_noticed() {
    expect_noticed(
        Switch::BellBeforeCommit,
        "promises",
        "nobody_sleeps_while_there_is_something_to_hear",
    );
}

#[test]
fn a_bell_that_nobody_rings_again_is_noticed() {
    expect_noticed(
        Switch::NoSecondBell,
        "promises",
        "nobody_sleeps_while_there_is_something_to_hear",
    );
}

#[test]
fn a_fin_that_counts_as_a_byte_is_noticed() {
    expect_noticed(
        Switch::FinCounted,
        "promises",
        "what_a_client_has_sent_before_it_closed_its_side_is_answered_to_the_last_byte",
    );
}

#[test]
fn a_mutex_that_is_not_made_consistent_is_noticed() {
    expect_noticed(
        Switch::NeverConsistent,
        "promises",
        "no_byte_is_lost_repeated_or_reordered_however_often_the_handler_is_killed",
    );
}
