//! The command line: what to measure, against which server, and which figures count as failure.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, ValueEnum};

use crate::workload::relay;

/// Most clients that one load generator drives: each needs a port of its own towards the one server address.
const CLIENTS_MAX: u32 = 28_000;
/// Highest `--rate` and `--kill-handlers-per-second`; above it a schedule in nanoseconds means nothing.
const PER_SECOND_MAX: f64 = 100_000.0;
/// Lowest one above 0.
const PER_SECOND_MIN: f64 = 0.001;
const SECONDS_MAX: f64 = 86_400.0;

/// Measures a Forkade server under load and checks every payload.
///
/// Without --server it starts a server of its own, on free ports, and stops it at the end.
#[derive(Debug, Clone, Parser)]
#[command(
    version,
    allow_negative_numbers = true,
    after_help = "Exit status: 0 when every threshold held, 1 when one was broken, 2 when nothing could be measured."
)]
pub(crate) struct Options {
    /// Address of a running server's game port; without it a server is started.
    #[arg(long, value_name = "IP:PORT")]
    pub server: Option<SocketAddr>,
    /// Address of that server's console, for its process list and takeovers.
    #[arg(long, value_name = "IP:PORT", requires = "server")]
    pub console: Option<SocketAddr>,
    /// Allow a server that is not on this machine.
    #[arg(long, requires = "server")]
    pub allow_remote: bool,
    /// Argument handed to the server that is started (repeatable), such as --server-arg=--players-max=5000.
    #[arg(
        long,
        value_name = "ARG",
        conflicts_with = "server",
        allow_hyphen_values = true
    )]
    pub server_arg: Vec<OsString>,
    /// Append the started server's log to this file instead of to stderr.
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub server_log: Option<PathBuf>,

    /// What the clients do.
    #[arg(long, value_enum, default_value = "relay")]
    pub workload: WorkloadKind,
    /// Number of clients [default: 100, or rooms × room size].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    pub clients: Option<u32>,
    /// Number of rooms [default: clients / room size].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    pub rooms: Option<u32>,
    /// Members of each room [default: 2, or clients / rooms]; tictactoe knows only 2.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub room_size: Option<u32>,
    /// Messages (tictactoe: moves at most) per client and second; 0: the next one when the last has come back.
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = per_second)]
    pub rate: f64,
    /// Seconds of load, counted from when the last client is in its room.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub duration: f64,
    /// Bytes of each relay message, its header of 20 included.
    #[arg(long, value_name = "BYTES", default_value_t = 32,
          value_parser = clap::value_parser!(u32).range(relay::HEADER_BYTES as i64..=relay::PAYLOAD_BYTES_MAX as i64))]
    pub payload: u32,
    /// Seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Most clients on their way into a room at once.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connecting: u32,
    /// Give up when for this many seconds no further client gets into its room.
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0, value_parser = seconds)]
    pub join_timeout: f64,
    /// After the load, count as lost what has not come when nothing has come for this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub drain_timeout: f64,
    /// Kill this many random handler processes of the started server per second, by SIGKILL, during the load.
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = per_second)]
    pub kill_handlers_per_second: f64,
    /// Write the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub thresholds: Thresholds,
}

/// Figures beyond which the run counts as failed (exit status 1).
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Thresholds")]
pub(crate) struct Thresholds {
    /// Highest 99th percentile of latency, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub max_p99_ms: Option<f64>,
    /// Most messages that may be lost.
    #[arg(long, value_name = "N")]
    pub max_lost: Option<u64>,
    /// Most messages that may arrive again.
    #[arg(long, value_name = "N")]
    pub max_duplicated: Option<u64>,
    /// Most messages that may arrive after a later one.
    #[arg(long, value_name = "N")]
    pub max_reordered: Option<u64>,
    /// Most TCP connections that may be lost.
    #[arg(long, value_name = "N")]
    pub max_disconnects: Option<u64>,
    /// Fewest joins per second.
    #[arg(long, value_name = "N")]
    pub min_joins_per_second: Option<f64>,
    /// Fewest messages received.
    #[arg(long, value_name = "N")]
    pub min_received: Option<u64>,
}

/// What the clients do once they are in their rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorkloadKind {
    /// Every message goes to all members of the room, numbered and checked.
    Relay,
    /// Pairs play random legal matches, one after the other, and check every event and result.
    Tictactoe,
}

impl WorkloadKind {
    /// The game's name on the wire.
    pub(crate) const fn game(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Tictactoe => "tictactoe",
        }
    }
}

/// How many clients sit in how many rooms. `clients == rooms * room_size`, none is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub clients: u32,
    pub rooms: u32,
    pub room_size: u32,
}

impl Options {
    /// The process's arguments, checked. Prints what is wrong and exits with status 2 when they make no sense.
    pub(crate) fn from_command_line() -> (Self, Shape) {
        let options = Self::parse();
        match options.shape().and_then(|shape| options.check().map(|()| shape)) {
            Ok(shape) => (options, shape),
            Err(reason) => Self::command().error(ErrorKind::ValueValidation, reason).exit(),
        }
    }

    /// `--duration` in nanoseconds.
    pub(crate) fn duration_ns(&self) -> u64 {
        u64::try_from(Duration::from_secs_f64(self.duration).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Completes `--clients`, `--rooms` and `--room-size` from those that were given.
    fn shape(&self) -> Result<Shape, String> {
        let paired = self.workload == WorkloadKind::Tictactoe;
        if paired && self.room_size.is_some_and(|size| size != 2) {
            return Err("a tictactoe room has two seats: leave out --room-size".to_owned());
        }
        let shape = match (self.clients, self.rooms, self.room_size) {
            (Some(clients), Some(rooms), None) if !paired => Shape {
                clients,
                rooms,
                room_size: clients / rooms,
            },
            (None, Some(rooms), size) => {
                let room_size = size.unwrap_or(2);
                Shape {
                    clients: rooms.saturating_mul(room_size),
                    rooms,
                    room_size,
                }
            }
            (clients, rooms, size) => {
                let (clients, room_size) = (clients.unwrap_or(100), size.unwrap_or(2));
                Shape {
                    clients,
                    rooms: rooms.unwrap_or(clients / room_size),
                    room_size,
                }
            }
        };
        let Shape {
            clients,
            rooms,
            room_size,
        } = shape;
        if clients > CLIENTS_MAX {
            return Err(format!(
                "{rooms} rooms of {room_size} make {clients} clients; the most is {CLIENTS_MAX}"
            ));
        }
        if rooms == 0 || rooms.checked_mul(room_size) != Some(clients) {
            return Err(format!(
                "{clients} clients do not fill {} rooms of {} exactly",
                rooms.max(1),
                room_size.max(1)
            ));
        }
        if room_size > 255 {
            return Err(format!(
                "{clients} clients in {rooms} rooms: a room has at most 255 members"
            ));
        }
        Ok(shape)
    }

    /// The options and shape of a valid command line.
    #[cfg(test)]
    pub(crate) fn for_test(arguments: &[&str]) -> (Self, Shape) {
        let options = Self::parse_from([&["forkade-loadtest"], arguments].concat());
        let shape = options.shape().expect("a valid shape");
        (options, shape)
    }

    fn check(&self) -> Result<(), String> {
        for (name, address) in [("--server", self.server), ("--console", self.console)] {
            if let Some(address) = address.filter(|address| !address.ip().is_loopback() && !self.allow_remote)
            {
                return Err(format!(
                    "{name} {address} is another machine; add --allow-remote if it is yours"
                ));
            }
        }
        if self.kill_handlers_per_second > 0.0 && self.server.is_some() {
            return Err(
                "--kill-handlers-per-second kills only in a server started here: leave out --server"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

fn per_second(text: &str) -> Result<f64, String> {
    match number_within(text, 0.0, PER_SECOND_MAX) {
        Ok(number) if number > 0.0 && number < PER_SECOND_MIN => Err(format!(
            "must be 0 or a number from {PER_SECOND_MIN} to {PER_SECOND_MAX}"
        )),
        other => other,
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    number_within(text, 0.001, SECONDS_MAX)
}

fn number_within(text: &str, min: f64, max: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("must be a number from {min} to {max}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Shape, String> {
        let options = Options::try_parse_from([&["forkade-loadtest"], arguments].concat())
            .map_err(|error| error.to_string())?;
        options.check()?;
        options.shape()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn any_two_of_clients_rooms_and_size_give_the_third() {
        let shape = |clients, rooms, room_size| {
            Ok(Shape {
                clients,
                rooms,
                room_size,
            })
        };
        assert_eq!(parsed(&[]), shape(100, 50, 2));
        assert_eq!(parsed(&["--clients", "10"]), shape(10, 5, 2));
        assert_eq!(parsed(&["--rooms", "7"]), shape(14, 7, 2));
        assert_eq!(parsed(&["--rooms", "7", "--room-size", "3"]), shape(21, 7, 3));
        assert_eq!(parsed(&["--rooms", "5", "--clients", "20"]), shape(20, 5, 4));
        assert_eq!(
            parsed(&["--workload", "tictactoe", "--clients", "20"]),
            shape(20, 10, 2)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (arguments, reason) in [
            (&["--clients", "3"][..], "do not fill"),
            (&["--clients", "1"], "do not fill"),
            (&["--clients", "0"], "not in 1..=28000"),
            (&["--rooms", "28000", "--room-size", "2"], "the most is"),
            (&["--clients", "600", "--rooms", "2"], "at most 255"),
            (&["--clients", "10", "--rooms", "20"], "do not fill"),
            (&["--workload", "tictactoe", "--room-size", "3"], "two seats"),
            (
                &["--workload", "tictactoe", "--rooms", "2", "--clients", "8"],
                "do not fill",
            ),
            (&["--rate=-1"], "must be a number"),
            (&["--rate", "NaN"], "must be a number"),
            (&["--duration", "0"], "must be a number"),
            (&["--payload", "19"], "20.."),
            (&["--server", "nowhere"], "--server"),
            (&["--server", "192.0.2.1:4000"], "--allow-remote"),
            (
                &["--server", "127.0.0.1:4000", "--console", "192.0.2.1:4001"],
                "--allow-remote",
            ),
            (&["--console", "127.0.0.1:4001"], "--server"),
            (
                &["--server", "127.0.0.1:4000", "--server-arg=--x"],
                "cannot be used",
            ),
            (
                &["--server", "127.0.0.1:4000", "--kill-handlers-per-second", "1"],
                "leave out --server",
            ),
        ] {
            let refused = parsed(arguments).expect_err(&format!("{arguments:?} was accepted"));
            assert!(refused.contains(reason), "{arguments:?}: {refused}");
        }
    }
}
