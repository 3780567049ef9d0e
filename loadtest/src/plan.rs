//! The plan of a run: one workload or several, each with clients, rooms and a rate of its own.

mod kind;
mod workload_options;

use std::fmt;

pub(crate) use self::kind::{RELAY_HEADER_BYTES, RELAY_PAYLOAD_BYTES_MAX, Scope, WorkloadKind};
pub(crate) use self::workload_options::WorkloadOptions;

/// Most clients of a run.
pub(crate) const CLIENTS_MAX: u32 = 200_000;
/// Most clients that one process drives: each needs a port of its own towards the one address of the server.
pub(crate) const CLIENTS_PER_PROCESS_MAX: u32 = 28_000;
/// Highest rate: a schedule in nanoseconds is too coarse for more.
const PER_SECOND_MAX: f64 = 100_000.0;
/// Lowest rate above 0.
const PER_SECOND_MIN: f64 = 0.001;

/// One workload of a run. Its clients are numbered from 0, whatever their indices in the run are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkloadPlan {
    /// Index of this workload in the run.
    pub number: u32,
    pub kind: WorkloadKind,
    pub shape: Shape,
    /// Messages per client and second; 0 is a closed loop.
    pub rate: f64,
    pub payload_bytes: u32,
    /// The recipients of chat lines, in turn; empty for other workloads.
    pub chat_scopes: Vec<Scope>,
    /// Seed of all its random numbers.
    pub seed: u64,
}

/// How many clients are in how many rooms: `clients == rooms * room_size`. Both are 0 if the workload does
/// not put its clients into rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub clients: u32,
    pub rooms: u32,
    pub room_size: u32,
}

impl WorkloadPlan {
    /// Shortest time between two messages of one client, in nanoseconds; 0 in a closed loop.
    pub(crate) fn interval_ns(&self) -> u64 {
        if self.rate > 0.0 {
            crate::schedule::Schedule::new(0, self.rate).interval_ns()
        } else {
            0
        }
    }
}

/// The workload in one line: `relay: 100 clients in 50 rooms of 2, 10/s each`.
impl fmt::Display for WorkloadPlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape {
            clients,
            rooms,
            room_size,
        } = self.shape;
        write!(formatter, "{}: {clients} clients", self.kind)?;
        if rooms > 0 {
            let s = if rooms == 1 { "" } else { "s" };
            write!(formatter, " in {rooms} room{s} of {room_size}")?;
        }
        if self.rate > 0.0 {
            write!(formatter, ", {}/s each", self.rate)?;
        } else {
            formatter.write_str(", closed loop")?;
        }
        for (place, scope) in self.chat_scopes.iter().enumerate() {
            write!(formatter, "{} {scope}", if place == 0 { ", to" } else { " /" })?;
        }
        Ok(())
    }
}

/// Parses a rate per second, or 0, for the command line.
pub(crate) fn per_second(text: &str) -> Result<f64, String> {
    let number = text.parse().map_err(|_| rate_error())?;
    check_per_second(number)
}

/// Checks that `number` is a rate per second, or 0.
pub(crate) fn check_per_second(number: f64) -> Result<f64, String> {
    let is_rate = number == 0.0 || (PER_SECOND_MIN..=PER_SECOND_MAX).contains(&number);
    if is_rate { Ok(number) } else { Err(rate_error()) }
}

fn rate_error() -> String {
    format!("must be a number: 0, or from {PER_SECOND_MIN} to {PER_SECOND_MAX}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_that_a_schedule_can_keep() {
        assert_eq!((per_second("0"), per_second("2.5")), (Ok(0.0), Ok(2.5)));
        for bad in ["-1", "NaN", "inf", "0.0001", "1e9", "fast"] {
            assert!(per_second(bad).is_err(), "{bad}");
        }
    }
}
