//! Latencies of a repeated step.

use std::time::{Duration, Instant};

/// Figures to print, never to assert: they depend on the machine as much as on the server.
#[derive(Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Runs a step and records how long it took.
    pub fn measure(&mut self, what: impl FnOnce()) {
        let began = Instant::now();
        what();
        self.0.push(began.elapsed());
    }

    /// Adds the measurements of `others`.
    pub fn add(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Prints the distribution in one line.
    pub fn print(mut self, what: &str) {
        self.0.sort_unstable();
        let Some(last) = self.0.len().checked_sub(1) else {
            println!("{what}: never");
            return;
        };
        let at = |permille: usize| self.0[last * permille / 1000];
        println!(
            "{what}, {} times: p50 {:?}, p90 {:?}, p99 {:?}, longest {:?}",
            self.0.len(),
            at(500),
            at(900),
            at(990),
            at(1000)
        );
    }
}
