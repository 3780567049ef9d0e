//! Clients in several processes. The limits of one process (open files, and ports of one source address)
//! allow about 20,000 clients. Each worker process is this program run again; it drives its share of the
//! rooms from a source address of its own. This module keeps the workers in step and merges their figures.

mod messages;
mod worker;

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use self::messages::{GO, Message, STOP, WorkerOutcome};
pub(crate) use self::worker::run as run_worker;
use crate::clients::{Milestone, Outcome, Proceed};
use crate::options::Options;
use crate::plan::WorkloadPlan;
use crate::run_state::RunState;

/// How often to check whether the run must end early.
const INTERRUPT_POLL: Duration = Duration::from_millis(100);
/// Longer than any timeout within a worker.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// The worker processes of a run. Dropping it ends them.
pub(crate) struct WorkerPool {
    plan: WorkloadPlan,
    workers: Vec<Worker>,
    messages: Receiver<(usize, Message)>,
    state: Arc<RunState>,
    /// Seconds until the last client was in its room.
    join_seconds: f64,
    /// The workers were told to end the load early.
    stopped: bool,
}

struct Worker {
    child: Child,
    commands: ChildStdin,
    /// The counts that it reported last.
    counts: messages::WorkerCounts,
    phase: Phase,
    outcome: Option<WorkerOutcome>,
}

/// The last phase that a worker has reported. A worker may report a phase before the others have finished the
/// one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Joining,
    AllJoined,
    LoadEnded,
    Settled,
    Ended,
}

/// Why a worker failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("cannot start worker process {number}: {cause}")]
    Start { number: usize, cause: io::Error },
    #[error("worker process {number}: {reason}")]
    Failed { number: usize, reason: String },
    #[error("worker process {number} exited without a result")]
    Exited { number: usize },
    #[error("no worker process has sent a message for {} seconds", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the run was cancelled")]
    Cancelled,
}

impl WorkerPool {
    /// Starts `count` workers, whose clients begin to join at once.
    ///
    /// # Errors
    /// When a worker cannot be started.
    pub(crate) fn start(
        server: SocketAddr,
        options: &Options,
        plan: WorkloadPlan,
        count: u32,
        state: Arc<RunState>,
    ) -> Result<Self, WorkerError> {
        let (sender, messages) = mpsc::channel();
        let mut pool = Self {
            workers: Vec::new(),
            messages,
            state,
            plan,
            join_seconds: 0.0,
            stopped: false,
        };
        let mut first_room = 0;
        for number in 0..count {
            let rooms = pool.plan.shape.rooms / count + u32::from(number < pool.plan.shape.rooms % count);
            first_room += rooms;
            let arguments = arguments(server, options, &pool.plan, number, rooms);
            let worker = Worker::start(pool.workers.len(), &arguments, &sender)?;
            pool.workers.push(worker);
        }
        debug_assert_eq!(first_room, pool.plan.shape.rooms);
        Ok(pool)
    }

    /// Goes through all phases, as [`ClientRun::run`](crate::clients::ClientRun::run) does.
    ///
    /// # Errors
    /// When any worker fails.
    pub(crate) fn run(
        mut self,
        milestones: &Sender<Milestone>,
        commands: &Receiver<Proceed>,
    ) -> Result<Outcome, WorkerError> {
        let report = |milestone| milestones.send(milestone).map_err(|_| WorkerError::Cancelled);
        self.wait_until_all(Phase::AllJoined)?;
        let seconds = self.join_seconds;
        report(Milestone::AllJoined { seconds })?;
        self.wait_for_proceed(commands)?;
        let began = Instant::now();
        self.send_command(GO)?;
        self.wait_until_all(Phase::LoadEnded)?;
        report(Milestone::LoadEnded { began })?;
        self.wait_until_all(Phase::Settled)?;
        report(Milestone::Settled)?;
        self.wait_for_proceed(commands)?;
        self.send_command(GO)?;
        self.wait_until_all(Phase::Ended)?;
        let outcomes = self
            .workers
            .iter_mut()
            .filter_map(|worker| worker.outcome.take())
            .collect();
        Ok(messages::merge(self.plan.clone(), outcomes))
    }

    /// Waits until each worker has reached `phase`.
    fn wait_until_all(&mut self, phase: Phase) -> Result<(), WorkerError> {
        let mut last_message = Instant::now();
        while self.workers.iter().any(|worker| worker.phase < phase) {
            if !self.stopped && self.state.interrupted.load(Ordering::Relaxed) {
                self.send_command(STOP)?;
                self.stopped = true;
            }
            let (number, message) = match self.messages.recv_timeout(INTERRUPT_POLL) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) if last_message.elapsed() < SILENCE_MAX => continue,
                Err(_) => return Err(WorkerError::Silent),
            };
            last_message = Instant::now();
            let worker = &mut self.workers[number];
            match message {
                Message::AllJoined { seconds } => {
                    worker.phase = Phase::AllJoined;
                    self.join_seconds = self.join_seconds.max(seconds);
                }
                Message::LoadEnded => worker.phase = Phase::LoadEnded,
                Message::Settled => worker.phase = Phase::Settled,
                Message::Counts(counted) => {
                    worker.counts = counted;
                    self.publish_counts();
                }
                Message::Failed { reason } => return Err(WorkerError::Failed { number, reason }),
                Message::Ended(outcome) => {
                    worker.phase = Phase::Ended;
                    worker.outcome = Some(*outcome);
                }
                Message::Exited if worker.phase != Phase::Ended => {
                    return Err(WorkerError::Exited { number });
                }
                Message::Exited => {}
            }
        }
        Ok(())
    }

    fn send_command(&mut self, command: &str) -> Result<(), WorkerError> {
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let sent = writeln!(worker.commands, "{command}").and_then(|()| worker.commands.flush());
            sent.map_err(|_| WorkerError::Exited { number })?;
        }
        Ok(())
    }

    /// Waits until the next phase may begin.
    fn wait_for_proceed(&mut self, commands: &Receiver<Proceed>) -> Result<(), WorkerError> {
        commands
            .recv()
            .map(|Proceed| ())
            .map_err(|_| WorkerError::Cancelled)
    }

    fn publish_counts(&self) {
        let sum_of = |field: fn(&messages::WorkerCounts) -> u64| {
            self.workers
                .iter()
                .map(|worker| field(&worker.counts))
                .sum::<u64>()
        };
        for (published, value) in [
            (&self.state.joined, sum_of(|counted| counted.joined)),
            (&self.state.sent, sum_of(|counted| counted.sent)),
            (&self.state.received, sum_of(|counted| counted.received)),
            (&self.state.disconnects, sum_of(|counted| counted.disconnects)),
        ] {
            published.store(value, Ordering::Relaxed);
        }
    }
}

impl Worker {
    fn start(
        number: usize,
        arguments: &[String],
        messages: &Sender<(usize, Message)>,
    ) -> Result<Self, WorkerError> {
        let failed = |cause| WorkerError::Start { number, cause };
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C on the terminal is for this process, which tells the workers.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (commands, stdout) = pipes.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let messages = messages.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let message = serde_json::from_str(&line).unwrap_or_else(|error| Message::Failed {
                    reason: format!("{line:?} ({error})"),
                });
                // After the end of the run the receiver is gone.
                let _ = messages.send((number, message));
            }
            let _ = messages.send((number, Message::Exited));
        });
        Ok(Self {
            child,
            commands,
            counts: messages::WorkerCounts::default(),
            phase: Phase::Joining,
            outcome: None,
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker that has finished ends by itself; any other is killed.
        if self.phase != Phase::Ended {
            // It may have ended meanwhile.
            let _ = self.child.kill();
        }
        if let Err(error) = self.child.wait() {
            eprintln!("cannot reap a worker process, pid {}: {error}", self.child.id());
        }
    }
}

/// The command line of one worker. All members of its rooms are its clients.
fn arguments(
    server: SocketAddr,
    options: &Options,
    plan: &WorkloadPlan,
    number: u32,
    rooms: u32,
) -> Vec<String> {
    let mut arguments: Vec<String> = [
        ("server", server.to_string()),
        ("workload", plan.kind.name().to_owned()),
        ("rooms", rooms.to_string()),
        ("room-size", plan.shape.room_size.to_string()),
        ("rate", plan.rate.to_string()),
        ("payload", plan.payload_bytes.to_string()),
        ("duration", options.duration.to_string()),
        ("seed", (options.seed + u64::from(number)).to_string()),
        ("connecting", options.connecting.to_string()),
        ("join-timeout", options.join_timeout.to_string()),
        ("drain-timeout", options.drain_timeout.to_string()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [format!("--{name}"), value])
    .collect();
    if let Some(ramp) = options.ramp {
        arguments.extend(["--ramp".to_owned(), ramp.to_string()]);
    }
    if let Some(source) = source_address(server, number) {
        arguments.extend(["--source".to_owned(), source.to_string()]);
    }
    if options.server.allow_remote {
        arguments.push("--allow-remote".to_owned());
    }
    arguments.push("--part-of-a-fleet".to_owned());
    arguments
}

/// Each worker has an address of its own in the loopback range; elsewhere the system chooses.
fn source_address(server: SocketAddr, number: u32) -> Option<IpAddr> {
    let IpAddr::V4(address) = server.ip().to_canonical() else {
        return None;
    };
    let first = u32::from(Ipv4Addr::LOCALHOST);
    address
        .is_loopback()
        .then(|| Ipv4Addr::from(first + 1 + number).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_on_the_loopback_has_an_address_of_its_own() {
        let server = |text: &str| text.parse().expect("an address");
        assert_eq!(
            source_address(server("127.0.0.1:4000"), 0),
            Some(Ipv4Addr::new(127, 0, 0, 2).into())
        );
        assert_eq!(
            source_address(server("127.0.0.1:4000"), 3),
            Some(Ipv4Addr::new(127, 0, 0, 5).into())
        );
        assert_eq!(source_address(server("192.0.2.1:4000"), 0), None);
        assert_eq!(source_address(server("[::1]:4000"), 0), None);
    }
}
