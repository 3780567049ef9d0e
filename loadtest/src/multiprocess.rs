//! A swarm of several processes: what one process may open (files, and ports of one address) is not enough for more players than
//! about 20,000. Each process is this program again and drives its share of the rooms, from a source address of its own; here
//! they are kept in step and their figures are put together.

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

use self::messages::{GO, PartOutcome, STOP, Word};
pub(crate) use self::worker::run as run_worker;
use crate::clients::{Go, Milestone, Outcome};
use crate::options::Options;
use crate::plan::Part;
use crate::run_state::RunState;

/// How often it is looked whether the run is to end early.
const LOOK: Duration = Duration::from_millis(100);
/// Beyond the timeouts of a part's own.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// Processes that drive a swarm together. Dropping it ends them.
pub(crate) struct Fleet {
    part: Part,
    processes: Vec<Process>,
    words: Receiver<(usize, Word)>,
    state: Arc<RunState>,
    /// Until the last client was in its room.
    join_seconds: f64,
    /// They were told to end the load early.
    stopped: bool,
}

struct Process {
    child: Child,
    orders: ChildStdin,
    /// What it counted last.
    state: messages::Counted,
    reached: Phase,
    outcome: Option<PartOutcome>,
}

/// How far a process is. The quickest one does not wait for the others to have heard of a phase's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Entering,
    Inside,
    LoadEnded,
    Settled,
    Ended,
}

/// Why a process of the fleet is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FleetError {
    #[error("cannot start process {number} of the swarm: {cause}")]
    Start { number: usize, cause: io::Error },
    #[error("process {number} of the swarm: {reason}")]
    Failed { number: usize, reason: String },
    #[error("process {number} of the swarm has ended without a word")]
    Gone { number: usize },
    #[error("nothing was heard of the swarm's processes for {} seconds", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the run was cancelled")]
    CalledOff,
}

impl Fleet {
    /// Starts so many processes, which begin at once to bring their clients into their rooms.
    ///
    /// # Errors
    /// When one cannot be started.
    pub(crate) fn start(
        server: SocketAddr,
        options: &Options,
        part: Part,
        processes: u32,
        state: Arc<RunState>,
    ) -> Result<Self, FleetError> {
        let (sender, words) = mpsc::channel();
        let mut fleet = Self {
            processes: Vec::new(),
            words,
            state,
            part,
            join_seconds: 0.0,
            stopped: false,
        };
        let mut first_room = 0;
        for number in 0..processes {
            let rooms =
                fleet.part.shape.rooms / processes + u32::from(number < fleet.part.shape.rooms % processes);
            first_room += rooms;
            let arguments = arguments(server, options, &fleet.part, number, rooms);
            let process = Process::start(fleet.processes.len(), &arguments, &sender)?;
            fleet.processes.push(process);
        }
        debug_assert_eq!(first_room, fleet.part.shape.rooms);
        Ok(fleet)
    }

    /// Goes through all phases, as [`Swarm::run`](crate::clients::Swarm::run) does.
    ///
    /// # Errors
    /// When any of its processes cannot.
    pub(crate) fn run(
        mut self,
        milestones: &Sender<Milestone>,
        orders: &Receiver<Go>,
    ) -> Result<Outcome, FleetError> {
        let report = |milestone| milestones.send(milestone).map_err(|_| FleetError::CalledOff);
        self.await_all(Phase::Inside)?;
        let seconds = self.join_seconds;
        report(Milestone::Inside { seconds })?;
        self.wait_for(orders)?;
        let began = Instant::now();
        self.order(GO)?;
        self.await_all(Phase::LoadEnded)?;
        report(Milestone::LoadEnded { began })?;
        self.await_all(Phase::Settled)?;
        report(Milestone::Settled)?;
        self.wait_for(orders)?;
        self.order(GO)?;
        self.await_all(Phase::Ended)?;
        let outcomes = self
            .processes
            .iter_mut()
            .filter_map(|process| process.outcome.take())
            .collect();
        Ok(messages::together(self.part.clone(), outcomes))
    }

    /// Waits until each process is so far.
    fn await_all(&mut self, phase: Phase) -> Result<(), FleetError> {
        let mut heard = Instant::now();
        while self.processes.iter().any(|process| process.reached < phase) {
            if !self.stopped && self.state.interrupted.load(Ordering::Relaxed) {
                self.order(STOP)?;
                self.stopped = true;
            }
            let (number, word) = match self.words.recv_timeout(LOOK) {
                Ok(word) => word,
                Err(RecvTimeoutError::Timeout) if heard.elapsed() < SILENCE_MAX => continue,
                Err(_) => return Err(FleetError::Silent),
            };
            heard = Instant::now();
            let process = &mut self.processes[number];
            match word {
                Word::Inside { seconds } => {
                    process.reached = Phase::Inside;
                    self.join_seconds = self.join_seconds.max(seconds);
                }
                Word::LoadEnded => process.reached = Phase::LoadEnded,
                Word::Settled => process.reached = Phase::Settled,
                Word::Counted(counted) => {
                    process.state = counted;
                    self.publish();
                }
                Word::Failed { reason } => return Err(FleetError::Failed { number, reason }),
                Word::Ended(outcome) => {
                    process.reached = Phase::Ended;
                    process.outcome = Some(*outcome);
                }
                Word::Gone if process.reached != Phase::Ended => return Err(FleetError::Gone { number }),
                Word::Gone => {}
            }
        }
        Ok(())
    }

    fn order(&mut self, order: &str) -> Result<(), FleetError> {
        for (number, process) in self.processes.iter_mut().enumerate() {
            let sent = writeln!(process.orders, "{order}").and_then(|()| process.orders.flush());
            sent.map_err(|_| FleetError::Gone { number })?;
        }
        Ok(())
    }

    /// Until told to go on.
    fn wait_for(&mut self, orders: &Receiver<Go>) -> Result<(), FleetError> {
        orders.recv().map(|Go| ()).map_err(|_| FleetError::CalledOff)
    }

    fn publish(&self) {
        let sum_of = |field: fn(&messages::Counted) -> u64| {
            self.processes
                .iter()
                .map(|process| field(&process.state))
                .sum::<u64>()
        };
        for (published, value) in [
            (&self.state.joined, sum_of(|counted| counted.inside)),
            (&self.state.sent, sum_of(|counted| counted.sent)),
            (&self.state.received, sum_of(|counted| counted.received)),
            (&self.state.disconnects, sum_of(|counted| counted.disconnects)),
        ] {
            published.store(value, Ordering::Relaxed);
        }
    }
}

impl Process {
    fn start(number: usize, arguments: &[String], words: &Sender<(usize, Word)>) -> Result<Self, FleetError> {
        let failed = |cause| FleetError::Start { number, cause };
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C on the terminal is for this process, which tells the others.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, said) = pipes.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let words = words.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                let word = serde_json::from_str(&line).unwrap_or_else(|error| Word::Failed {
                    reason: format!("{line:?} ({error})"),
                });
                // After the fleet's end nobody listens any more.
                let _ = words.send((number, word));
            }
            let _ = words.send((number, Word::Gone));
        });
        Ok(Self {
            child,
            orders,
            state: messages::Counted::default(),
            reached: Phase::Entering,
            outcome: None,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that is through ends by itself; any other is to.
        if self.reached != Phase::Ended {
            // It may have ended meanwhile.
            let _ = self.child.kill();
        }
        if let Err(error) = self.child.wait() {
            eprintln!(
                "cannot end a process of the swarm, pid {}: {error}",
                self.child.id()
            );
        }
    }
}

/// The command line of one process. All rooms of it have their members in it.
fn arguments(server: SocketAddr, options: &Options, part: &Part, number: u32, rooms: u32) -> Vec<String> {
    let mut arguments: Vec<String> = [
        ("server", server.to_string()),
        ("workload", part.kind.name().to_owned()),
        ("rooms", rooms.to_string()),
        ("room-size", part.shape.room_size.to_string()),
        ("rate", part.rate.to_string()),
        ("payload", part.payload_bytes.to_string()),
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
    if let Some(source) = source_of(server, number) {
        arguments.extend(["--source".to_owned(), source.to_string()]);
    }
    if options.server.allow_remote {
        arguments.push("--allow-remote".to_owned());
    }
    arguments.push("--part-of-a-fleet".to_owned());
    arguments
}

/// The loopback range has an address for each process; elsewhere the system chooses.
fn source_of(server: SocketAddr, number: u32) -> Option<IpAddr> {
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
    fn each_process_on_the_loopback_has_an_address_of_its_own() {
        let server = |text: &str| text.parse().expect("an address");
        assert_eq!(
            source_of(server("127.0.0.1:4000"), 0),
            Some(Ipv4Addr::new(127, 0, 0, 2).into())
        );
        assert_eq!(
            source_of(server("127.0.0.1:4000"), 3),
            Some(Ipv4Addr::new(127, 0, 0, 5).into())
        );
        assert_eq!(source_of(server("192.0.2.1:4000"), 0), None);
        assert_eq!(source_of(server("[::1]:4000"), 0), None);
    }
}
