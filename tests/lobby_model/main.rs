//! The lobby against a simple model: thousands of random requests, deaths, resumes and sweeps.
//!
//! Every operation is applied to the real lobby, by the code that handlers and the ticker run, and to a model
//! made of ordinary collections. After each of them the shared memory must be consistent
//! ([`forkade::testing::maintenance::check`]), players and rooms must be as in the model, and every client
//! must have received exactly what the model says: each event once, in order, across lost connections and
//! replaced handlers.
//!
//! A run is determined by its seed; every fourth has hundreds of players. A failure names the seed. To repeat
//! that run, or to run more:
//!
//! ```text
//! FORKADE_TEST_SEED=7 cargo test --test lobby_model
//! FORKADE_TEST_RUNS=200 cargo test --release --test lobby_model
//! ```

mod chat_model;
#[path = "../harness/mod.rs"]
mod harness;
mod model;
mod random;
mod run;
mod view;

use run::Run;

/// Number of fixed seeds.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=4;
/// Number of new seeds, unless `FORKADE_TEST_RUNS` says otherwise.
const RUNS: u64 = 4;
const OPERATIONS: usize = 20_000;

#[test]
fn the_lobby_agrees_with_its_model() {
    // Games panic on purpose, without output.
    std::panic::set_hook(Box::new(|info| {
        if !info.to_string().ends_with("on purpose") {
            eprintln!("{info}");
        }
    }));
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse().expect("a number in the environment"))
    };
    if let Some(seed) = number("FORKADE_TEST_SEED") {
        return Run::new(seed).go(OPERATIONS);
    }
    for seed in SEEDS {
        Run::new(seed).go(OPERATIONS);
    }
    let random = || getrandom::u64().expect("the kernel gives random bytes");
    match number("FORKADE_TEST_RUNS") {
        Some(runs) => (0..runs).for_each(|_| Run::new(random()).go(OPERATIONS)),
        // One run with hundreds of players is enough by default.
        None => (0..RUNS).for_each(|_| Run::new(random() | 1).go(OPERATIONS)),
    }
}
