//! The command line: what to measure, against which server, and which figures count as failure.

mod compare;
mod kill_rates;
mod mix;
mod scaling;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

pub(crate) use self::compare::CompareOptions;
pub(crate) use self::kill_rates::KillRates;
pub(crate) use self::scaling::ScalingOptions;
use crate::plan::{CLIENTS_PER_PROCESS_MAX, WorkloadKind, WorkloadOptions, WorkloadPlan, per_second};
use crate::server::peer::{self, Peer, Protocol, ServerChoice};

const SECONDS_MAX: f64 = 86_400.0;

const AFTER_HELP: &str = "\
Exit status:
  0    measured, and every threshold held
  1    measured, and a threshold was exceeded or a check failed: the report says which
  2    the command line, or a file that it names, is invalid
  3    nothing could be measured: the server could not be started or reached, or not all clients joined
  130  interrupted by Ctrl-C; the report shows what was measured until then

Examples:
  forkade-loadtest --clients 1000 --rate 10 --duration 60 --report report.html
  forkade-loadtest --workload connect4 --clients 200 --rate 0
  forkade-loadtest --clients 1000 --chaos handler=20/s,listener=1/s,keeper=0.2/s --max-lost 0
  forkade-loadtest --mix loadtest/examples/evening.toml --ramp 10 --duration 60 --json figures.json
  forkade-loadtest compare --rounds 3 --report compare.html
  forkade-loadtest growth --players 100,1000,10000
  forkade-loadtest --server 127.0.0.1:4000 --console 127.0.0.1:4001 --workload lobby --max-p99-ms 50";

/// Measures a Forkade server under load and checks every payload.
///
/// Without --server it starts a server of its own, on free ports, and stops it at the end. First all clients
/// join, then the load lasts for --duration, then outstanding messages may still arrive. Everything received
/// is checked: numbered messages, boards, results, room lists. In an open loop (--rate above 0) latency
/// counts from when a message should have been sent, so a stall counts for all messages that it delayed.
#[derive(Debug, Clone, Parser)]
#[command(version, allow_negative_numbers = true, after_help = AFTER_HELP, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub server: ServerOptions,
    #[command(flatten)]
    pub workload: WorkloadOptions,
    /// Run the workloads that this TOML file lists side by side, instead of one from the command line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "clients", "rooms", "room_size", "rate", "payload", "say"])]
    pub mix: Option<PathBuf>,
    /// Seconds over which the clients join, evenly; without it they join as fast as the server lets them.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub ramp: Option<f64>,
    /// Seconds of load, counted from when the last client is in its room.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub duration: f64,
    /// Seed of all random numbers.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Most clients that may be joining at once.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connecting: u32,
    /// Drive the clients from this many processes, each from a loopback address of its own, because the open
    /// files and ports of one process suffice for some 20,000 clients. Only for the relay workload.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub swarm_processes: u32,
    /// Address that the clients connect from [default: the system's choice].
    #[arg(long, value_name = "IP")]
    pub source: Option<IpAddr>,
    /// This process is a worker of a run with several processes.
    #[arg(long = "part-of-a-fleet", hide = true)]
    pub is_worker: bool,
    /// Give up when no further client has joined for this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0, value_parser = seconds)]
    pub join_timeout: f64,
    /// After the load, count outstanding messages as lost when nothing has arrived for this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub drain_timeout: f64,
    /// Kill processes of the server during the load, by SIGKILL: this many of each role per second, such as
    /// "handler=10/s,listener=1/s,keeper=0.2/s". Which process of a role is killed, and when within its
    /// interval, is random.
    #[arg(long, value_name = "ROLE=N/s,…", value_parser = clap::value_parser!(KillRates))]
    pub chaos: Option<KillRates>,
    /// Short for --chaos handler=N/s.
    #[arg(long, value_name = "N", conflicts_with = "chaos", value_parser = per_second)]
    pub kill_handlers_per_second: Option<f64>,
    /// Write the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a self-contained HTML page with plots to this file: latency and throughput over time,
    /// percentiles, kills, what the server used.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    #[command(flatten)]
    pub thresholds: Thresholds,
}

/// What to do instead of measuring one server once.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    Compare(CompareOptions),
    #[command(name = "growth")]
    Scaling(ScalingOptions),
}

/// Which server is measured.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerOptions {
    /// Address of a running server's game port; without it a server is started.
    #[arg(long, value_name = "IP:PORT")]
    pub server: Option<SocketAddr>,
    /// Address of that server's console, for its processes and counters.
    #[arg(long, value_name = "IP:PORT", requires = "server")]
    pub console: Option<SocketAddr>,
    /// Allow a server outside the loopback range. A server on another machine must be yours.
    #[arg(long, requires = "server")]
    pub allow_remote: bool,
    /// Start this server instead of Forkade, and measure it by the same workload. docs/loadtest.md says what
    /// it does not do.
    #[arg(long, value_enum, conflicts_with_all = ["server", "server_arg"])]
    pub peer: Option<Peer>,
    /// Directory of the peers [default: loadtest/peers, where this program was built].
    #[arg(long, value_name = "DIR")]
    pub peers_dir: Option<PathBuf>,
    /// Argument of the server that is started (repeatable), such as --server-arg=--players-max=5000.
    #[arg(
        long,
        value_name = "ARG",
        conflicts_with = "server",
        allow_hyphen_values = true
    )]
    pub server_arg: Vec<OsString>,
    /// Append the started server's log to this file; "-" is stderr. Without it only the last lines are kept;
    /// they are shown when the server does not start or ends early.
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub server_log: Option<PathBuf>,
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
    /// Most messages that may arrive twice.
    #[arg(long, value_name = "N")]
    pub max_duplicated: Option<u64>,
    /// Most messages that may arrive after a later one.
    #[arg(long, value_name = "N")]
    pub max_reordered: Option<u64>,
    /// Most TCP connections that may be lost after their handshake.
    #[arg(long, value_name = "N")]
    pub max_disconnects: Option<u64>,
    /// Most of them that may be lost other than by a double fault of --chaos (handler and keeper at once).
    #[arg(long, value_name = "N")]
    pub max_unexplained_disconnects: Option<u64>,
    /// Most messages that the server may refuse.
    #[arg(long, value_name = "N")]
    pub max_rejected: Option<u64>,
    /// Most messages that may be due and not sent when the load ends.
    #[arg(long, value_name = "N")]
    pub max_unsent: Option<u64>,
    /// Most snapshots that clients may get because they fell behind.
    #[arg(long, value_name = "N")]
    pub max_resyncs: Option<u64>,
    /// Most sessions that may be lost: their clients could not resume.
    #[arg(long, value_name = "N")]
    pub max_sessions_lost: Option<u64>,
    /// Fewest joins per second.
    #[arg(long, value_name = "N")]
    pub min_joins_per_second: Option<f64>,
    /// Fewest messages received.
    #[arg(long, value_name = "N")]
    pub min_received: Option<u64>,
}

impl ServerOptions {
    /// The protocol that clients speak to the server.
    pub(crate) fn protocol(&self) -> Protocol {
        self.peer.map_or(Protocol::Forkade, Peer::protocol)
    }

    /// The server to start; `None` if a running one is measured.
    pub(crate) fn choice(&self) -> Option<ServerChoice> {
        match (self.server, self.peer) {
            (Some(_), _) => None,
            (None, Some(peer)) => Some(ServerChoice::Peer(
                peer,
                peer::directory(self.peers_dir.as_deref()),
            )),
            (None, None) => Some(ServerChoice::Forkade(self.server_arg.clone())),
        }
    }
}

impl Options {
    /// Parses and checks the process's arguments. Returns them with the workloads that they ask for. If they
    /// are invalid, prints the reason and exits with status 2.
    pub(crate) fn from_command_line() -> (Self, Vec<WorkloadPlan>) {
        let options = Self::parse();
        match options.plan() {
            Ok(plans) => (options, plans),
            Err(reason) => Self::command().error(ErrorKind::ValueValidation, reason).exit(),
        }
    }

    /// `--duration` in nanoseconds.
    pub(crate) fn duration_ns(&self) -> u64 {
        nanoseconds(self.duration)
    }

    /// `--ramp` in nanoseconds; 0: none.
    pub(crate) fn ramp_ns(&self) -> u64 {
        self.ramp.map_or(0, nanoseconds)
    }

    /// The processes to kill, from either of the two options.
    pub(crate) fn kill_rates(&self) -> Option<KillRates> {
        let handlers = self.kill_handlers_per_second.filter(|rate| *rate > 0.0);
        self.chaos.clone().or(handlers.map(KillRates::of_handlers))
    }

    /// Checks the options against each other, and completes the workloads.
    pub(crate) fn plan(&self) -> Result<Vec<WorkloadPlan>, String> {
        let ServerOptions {
            server,
            console,
            allow_remote,
            ..
        } = self.server;
        for (name, address) in [("--server", server), ("--console", console)] {
            let is_remote = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
            if let Some(address) = address.filter(|address| is_remote(address) && !allow_remote) {
                return Err(format!(
                    "{name} {address} is not on this machine's loopback; add --allow-remote if that server is yours"
                ));
            }
            if self.kill_rates().is_some() && address.is_some_and(|address| is_remote(&address)) {
                return Err(format!(
                    "{name} {address:?}: processes of another machine cannot be killed from here"
                ));
            }
        }
        if self.kill_rates().is_some() && server.is_some() && console.is_none() {
            return Err("--chaos needs the --console of that server, which lists its processes".to_owned());
        }
        let plans = self.plans()?;
        self.check_processes(&plans)?;
        if let Some(peer) = self.server.peer {
            if self.kill_rates().is_some() {
                return Err(format!(
                    "{} has no console to list the processes that can be killed",
                    peer.name()
                ));
            }
            peer.check_installed(&peer::directory(self.server.peers_dir.as_deref()))
                .map_err(|missing| missing.to_string())?;
            plans.iter().try_for_each(|plan| peer.check(plan))?;
        }
        Ok(plans)
    }

    /// Checks that the number of processes suits the clients and the workload.
    fn check_processes(&self, plans: &[WorkloadPlan]) -> Result<(), String> {
        let clients: u32 = plans.iter().map(|plan| plan.shape.clients).sum();
        let processes = self.swarm_processes;
        if clients.div_ceil(processes) > CLIENTS_PER_PROCESS_MAX {
            return Err(format!(
                "--clients: one process has ports for {CLIENTS_PER_PROCESS_MAX} clients; for {clients} it takes --swarm-processes {}",
                clients.div_ceil(CLIENTS_PER_PROCESS_MAX)
            ));
        }
        if processes == 1 {
            return Ok(());
        }
        let protocol = self.server.protocol();
        match plans {
            [plan] if plan.kind == WorkloadKind::Relay && plan.shape.rooms < processes => {
                Err(format!("--swarm-processes {processes}: there are only {} rooms", plan.shape.rooms))
            }
            [plan] if plan.kind == WorkloadKind::Relay && self.kill_rates().is_none() && protocol == Protocol::Forkade => {
                Ok(())
            }
            _ => Err(
                "--swarm-processes is for the relay workload alone, on servers that speak Forkade's protocol, without --chaos"
                    .to_owned(),
            ),
        }
    }

    /// The workloads that are asked for.
    ///
    /// # Errors
    /// Which option or value is invalid.
    pub(crate) fn plans(&self) -> Result<Vec<WorkloadPlan>, String> {
        match &self.mix {
            Some(path) => mix::read(path, self.seed).map_err(|error| error.to_string()),
            None => {
                let option = |key: &str| format!("--{}", key.replace('_', "-"));
                let plan = self.workload.complete(0, self.seed);
                let plan = plan.map_err(|invalid| format!("{}: {}", option(invalid.key), invalid.reason))?;
                Ok(vec![plan])
            }
        }
    }

    /// The only workload of a valid command line.
    #[cfg(test)]
    pub(crate) fn plan_for_test(arguments: &[&str]) -> WorkloadPlan {
        let options = Self::parse_from([&["forkade-loadtest"], arguments].concat());
        options.plan().expect("a valid command line").remove(0)
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    u64::try_from(Duration::from_secs_f64(seconds).as_nanos()).unwrap_or(u64::MAX)
}

/// Parses a duration in seconds for the command line.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.001..=SECONDS_MAX).contains(&number) => Ok(number),
        _ => Err(format!("must be a number from 0.001 to {SECONDS_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(arguments: &[&str]) -> Result<Vec<WorkloadPlan>, String> {
        let options = Options::try_parse_from([&["forkade-loadtest"], arguments].concat())
            .map_err(|error| error.to_string())?;
        options.plan()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn the_option_to_kill_handlers_is_a_short_form_of_chaos() {
        let kills = |arguments: &[&str]| {
            let options = Options::parse_from([&["forkade-loadtest"], arguments].concat());
            options.kill_rates()
        };
        assert_eq!(kills(&[]), None);
        assert_eq!(kills(&["--kill-handlers-per-second", "0"]), None);
        assert_eq!(
            kills(&["--kill-handlers-per-second", "5"]),
            kills(&["--chaos", "handler=5/s"])
        );
    }

    #[test]
    fn invalid_options_are_refused_with_a_reason() {
        for (arguments, reason) in [
            (&["--clients", "3"][..], "--clients: 3 clients do not fill"),
            (&["--clients", "0"], "not in 1..=200000"),
            (&["--clients", "40000"], "it takes --swarm-processes 2"),
            (
                &["--clients", "4", "--swarm-processes", "3"],
                "there are only 2 rooms",
            ),
            (
                &["--workload", "chat", "--swarm-processes", "2"],
                "for the relay workload alone",
            ),
            (
                &["--workload", "tictactoe", "--room-size", "3"],
                "--room-size: a tictactoe room has two seats",
            ),
            (&["--rate=-1"], "must be a number"),
            (&["--rate", "NaN"], "must be a number"),
            (&["--duration", "0"], "must be a number"),
            (&["--ramp", "-2"], "must be a number"),
            (&["--payload", "19"], "--payload: 19 bytes"),
            (&["--server", "nowhere"], "--server"),
            (&["--server", "192.0.2.1:4000"], "--allow-remote"),
            (&["--server", "0.0.0.0:4000"], "--allow-remote"),
            (&["--server", "[::ffff:192.0.2.1]:4000"], "--allow-remote"),
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
                &["--server", "127.0.0.1:4000", "--chaos", "handler=1/s"],
                "--console",
            ),
            (
                &[
                    "--server",
                    "192.0.2.1:4000",
                    "--console",
                    "192.0.2.1:4001",
                    "--allow-remote",
                    "--chaos",
                    "handler=1/s",
                ],
                "another machine",
            ),
            (&["--chaos", "supervisor=1/s"], "ends the server"),
            (
                &["--chaos", "handler=1/s", "--kill-handlers-per-second", "1"],
                "cannot be used",
            ),
            (&["--mix", "/nowhere/mix.toml"], "cannot read /nowhere/mix.toml"),
            (&["--mix", "mix.toml", "--clients", "10"], "cannot be used"),
        ] {
            let refused = planned(arguments).expect_err(&format!("{arguments:?} was accepted"));
            assert!(refused.contains(reason), "{arguments:?}: {refused}");
        }
        for loopback in [
            "127.0.0.1:4000",
            "127.9.9.9:4000",
            "[::1]:4000",
            "[::ffff:127.0.0.1]:4000",
        ] {
            assert!(planned(&["--server", loopback]).is_ok(), "{loopback}");
        }
    }
}
