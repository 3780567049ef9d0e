//! Kills processes of the server under load, in a thread of its own. The console lists the processes. A pid
//! is killed only while it still belongs to the process that was listed.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::kill_log::{Kill, KillLog, ProcessList};
use crate::machine::process_tree::{self, Stat};
use crate::options::KillRates;
use crate::random::Random;
use crate::schedule::Schedule;
use crate::server::console::{Console, ConsoleError, Process};
use crate::server::roles::{CONSOLE, HANDLER, KEEPER, SUPERVISOR};

/// The process list is refreshed when it is older than this. The replacements of killed processes are
/// candidates, too.
const LIST_AGE_MAX: Duration = Duration::from_secs(1);
/// How many times another victim is chosen if the chosen one is gone, before the kill is skipped.
const ATTEMPTS_MAX: usize = 3;

/// Why no process can be killed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChaosError {
    #[error(transparent)]
    Console(#[from] ConsoleError),
    #[error("the server has no process of the role {role}; it has: {roles}")]
    NoSuchRole { role: String, roles: String },
    #[error(
        "process {pid}, the server's {role}, is no descendant of its supervisor: does the server run on this machine?"
    )]
    NotHere { role: String, pid: u32 },
}

/// A running killer.
#[derive(Debug)]
pub(crate) struct Killer {
    stop: Sender<()>,
    thread: JoinHandle<Result<KillLog, ConsoleError>>,
}

/// What is to be killed, checked and ready to start.
#[derive(Debug)]
pub(crate) struct KillPlan {
    root: u32,
    console: Console,
    rates: Vec<(String, f64)>,
    seed: u64,
}

impl KillPlan {
    /// Checks that the processes to be killed exist and run on this machine, below `root`.
    ///
    /// # Errors
    /// When they do not.
    pub(crate) fn new(
        root: u32,
        console: SocketAddr,
        kill_rates: &KillRates,
        seed: u64,
    ) -> Result<Self, ChaosError> {
        let mut console = Console::connect(console)?;
        let processes = console.processes()?;
        for process in &processes {
            let is_here = process_tree::is_member(root, process.pid);
            // A process that serves a connection may have ended since.
            if !is_here && process.restarts.is_some() {
                let (role, pid) = (process.role.clone(), process.pid);
                return Err(ChaosError::NotHere { role, pid });
            }
        }
        let mut roles: BTreeSet<&str> = processes.iter().map(|process| process.role.as_str()).collect();
        roles.extend([HANDLER, CONSOLE]);
        roles.remove(SUPERVISOR);
        if let Some((role, _)) = kill_rates.rates().find(|(role, _)| !roles.contains(role)) {
            return Err(ChaosError::NoSuchRole {
                role: role.to_owned(),
                roles: roles.into_iter().collect::<Vec<_>>().join(", "),
            });
        }
        let rates = kill_rates
            .rates()
            .map(|(role, rate)| (role.to_owned(), rate))
            .collect();
        Ok(Self {
            root,
            console,
            rates,
            seed,
        })
    }

    /// Starts the thread that kills.
    pub(crate) fn start(self) -> Killer {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut state = KillerState::new(self);
            loop {
                match stopped.recv_timeout(state.until_next()) {
                    Err(RecvTimeoutError::Timeout) => state.kill_due()?,
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(state.kills),
                }
            }
        });
        Killer { stop, thread }
    }
}

impl Killer {
    /// Stops the thread and returns the log of kills.
    ///
    /// # Errors
    /// When the console did not list the processes, so that the thread ended early.
    pub(crate) fn end(self) -> Result<KillLog, ConsoleError> {
        drop(self.stop);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// The state of the thread.
struct KillerState {
    root: u32,
    console: Console,
    began: Instant,
    schedules: Vec<RoleSchedule>,
    random: Random,
    /// Candidates of the last list: each process once, and none that was killed already.
    victims: Vec<Victim>,
    /// `None` if it is out of date.
    process_list: Option<Arc<ProcessList>>,
    /// Pids and start times of all processes that were killed. Such a process stays listed until it has been
    /// reaped and replaced, and for a while it does not even look dead.
    killed: HashSet<(u32, u64)>,
    kills: KillLog,
}

/// When a process of this role is killed next. A kill happens at a random time within its interval: at the
/// starts of the intervals several roles would be hit at once.
struct RoleSchedule {
    role: String,
    schedule: Schedule,
    due: Duration,
}

/// A listed process and its start time.
#[derive(Debug, Clone)]
struct Victim {
    process: Process,
    started_ticks: u64,
}

impl KillerState {
    fn new(plan: KillPlan) -> Self {
        let mut random = Random::new(plan.seed, u64::MAX - 1);
        let schedules = plan.rates.into_iter().map(|(role, rate)| {
            let mut schedule = RoleSchedule {
                role,
                schedule: Schedule::new(0, rate),
                due: Duration::ZERO,
            };
            schedule.advance(&mut random);
            schedule
        });
        Self {
            root: plan.root,
            console: plan.console,
            began: Instant::now(),
            schedules: schedules.collect(),
            random,
            victims: Vec::new(),
            process_list: None,
            killed: HashSet::new(),
            kills: KillLog::default(),
        }
    }

    /// The time until the next kill.
    fn until_next(&self) -> Duration {
        let next = self.schedules.iter().map(|schedule| schedule.due).min();
        next.map_or(Duration::MAX, |due| due.saturating_sub(self.began.elapsed()))
    }

    fn kill_due(&mut self) -> Result<(), ConsoleError> {
        let now = self.began.elapsed();
        for index in 0..self.schedules.len() {
            if self.schedules[index].due > now {
                continue;
            }
            self.schedules[index].advance(&mut self.random);
            let role = self.schedules[index].role.clone();
            match self.kill_one(&role)? {
                Some(kill) => self.kills.log.push(kill),
                None => *self.kills.missed.entry(role).or_default() += 1,
            }
        }
        Ok(())
    }

    fn kill_one(&mut self, role: &str) -> Result<Option<Kill>, ConsoleError> {
        for _ in 0..ATTEMPTS_MAX {
            let of_role = |victim: &Victim| victim.process.role == role;
            // For the kill of a keeper the list must be fresh: it tells which handlers have no successor yet.
            let process_list = self.process_list.take().filter(|process_list| {
                role != KEEPER
                    && process_list.at.elapsed() <= LIST_AGE_MAX
                    && self.victims.iter().any(of_role)
            });
            let process_list = match process_list {
                Some(process_list) => process_list,
                None => self.refresh_list()?,
            };
            self.process_list = Some(process_list.clone());
            let candidates: Vec<usize> = (0..self.victims.len())
                .filter(|index| of_role(&self.victims[*index]))
                .collect();
            let Some(index) = self.random.pick(&candidates).copied() else {
                continue;
            };
            let victim = self.victims.swap_remove(index);
            let at = Instant::now();
            let Ok(parent) = kill(self.root, &victim) else {
                // The process has ended since, or its pid belongs to another one: the list is out of date.
                self.process_list = None;
                continue;
            };
            self.killed.insert((victim.process.pid, victim.started_ticks));
            return Ok(Some(Kill {
                at,
                is_orphan: parent == self.root,
                parent,
                pid: victim.process.pid,
                process_list,
                role: victim.process.role,
            }));
        }
        Ok(None)
    }

    /// Queries the list of processes. A process that started after the query may have the pid of a listed
    /// process that has ended, so only older processes are candidates.
    fn refresh_list(&mut self) -> Result<Arc<ProcessList>, ConsoleError> {
        let (at, asked_ticks) = (Instant::now(), process_tree::ticks_since_boot());
        let processes = self.console.processes()?;
        let process_list = ProcessList::of(&processes, at);
        // A handler that serves several players is listed once for each of them.
        let mut seen = HashSet::new();
        let victims = processes.into_iter().filter_map(|process| {
            let started_ticks = Stat::of(process.pid).ok()?.started_ticks;
            let is_candidate = started_ticks < asked_ticks
                && seen.insert(process.pid)
                && !self.killed.contains(&(process.pid, started_ticks));
            is_candidate.then_some(Victim {
                process,
                started_ticks,
            })
        });
        self.victims = victims.collect();
        Ok(Arc::new(process_list))
    }
}

impl RoleSchedule {
    fn advance(&mut self, random: &mut Random) {
        let begin_ns = self.schedule.advance();
        let within_ns = random.below((self.schedule.intended() - begin_ns).max(1));
        self.due = Duration::from_nanos(begin_ns + within_ns);
    }
}

/// Kills the process if it is still the one that was listed, and a descendant of `root`. Returns its parent.
/// The pidfd is opened before the checks: from then on the pid cannot be reused unnoticed.
fn kill(root: u32, victim: &Victim) -> io::Result<u32> {
    let pid = victim.process.pid;
    let target = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(target, PidfdFlags::empty())?;
    let stat = Stat::of(pid)?;
    let is_same = stat.started_ticks == victim.started_ticks && pid != root;
    if !is_same || stat.is_dead() || !process_tree::is_member(root, pid) {
        return Err(io::ErrorKind::NotFound.into());
    }
    pidfd_send_signal(process, Signal::KILL)?;
    Ok(stat.parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    fn victim(pid: u32, started_ticks: u64) -> Victim {
        Victim {
            process: Process::listed("handler", pid, None),
            started_ticks,
        }
    }

    #[test]
    fn only_descendants_that_still_are_the_listed_process_are_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let own = std::process::id();
        let started = |pid| Stat::of(pid).expect("it runs").started_ticks;
        let listed = victim(child.id(), started(child.id()));
        assert!(kill(own, &victim(own, started(own))).is_err(), "the root itself");
        assert!(
            kill(child.id(), &victim(own, started(own))).is_err(),
            "its parent"
        );
        assert!(kill(own, &victim(1, started(1))).is_err(), "no descendant");
        let earlier = victim(child.id(), listed.started_ticks - 1);
        assert!(kill(own, &earlier).is_err(), "a pid that was reused");
        assert_eq!(kill(own, &listed).expect("it is killed"), own);
        assert_eq!(child.wait().expect("it ends").signal(), Some(9));
        assert!(kill(own, &listed).is_err(), "gone");
    }

    #[test]
    fn a_killed_process_is_no_candidate_although_it_is_still_listed_and_does_not_look_dead() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let pid = child.id();
        let console = console_that_always_lists(&[
            Process::listed("handler", pid, Some("ann")),
            Process::listed("handler", pid, Some("bob")),
        ]);
        let mut state = KillerState::new(KillPlan {
            root: std::process::id(),
            console,
            rates: Vec::new(),
            seed: 1,
        });
        // Only processes older than the query are candidates, and start times are rounded to hundredths of a
        // second.
        std::thread::sleep(Duration::from_millis(20));
        state.refresh_list().expect("it answers");
        assert_eq!(state.victims.len(), 1, "one process that serves two");
        state.killed.insert((pid, state.victims[0].started_ticks));
        assert!(state.kill_one("handler").expect("it answers").is_none());
        assert!(state.victims.is_empty());
        child.kill().expect("it still runs");
        assert_eq!(child.wait().expect("it ends").signal(), Some(9));
    }

    fn console_that_always_lists(processes: &[Process]) -> Console {
        let rows = processes.iter().map(|process| {
            let Process {
                role, pid, player, ..
            } = process;
            serde_json::json!({"role": role, "pid": pid, "player": player})
        });
        let answer = format!("{}\r\nOK\r\n", serde_json::Value::from_iter(rows));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("the killer");
            let mut writer = stream.try_clone().expect("a descriptor");
            for _ in BufReader::new(stream).lines() {
                writer.write_all(answer.as_bytes()).expect("it is read");
            }
        });
        Console::connect(address).expect("it listens")
    }
}
