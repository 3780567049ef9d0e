//! Kills processes of the server under load, in a thread of its own. It learns from the console which there are, and kills a
//! pid only while it still is the process that was listed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Chaos;
use crate::console::{Console, ConsoleError, Process};
use crate::proc_figures::{self, Stat};
use crate::random::Random;
use crate::schedule::Schedule;

/// The process list is asked for anew when it is older than this. Replacements for the killed ones are fair game.
const LIST_AGE_MAX: Duration = Duration::from_secs(1);
/// A victim that is gone is looked for anew so many times before its turn passes.
const TRIES: usize = 3;
/// A keeper that dies so soon after one of its handlers may not have forked the successor yet.
const TAKEOVER_TIME: Duration = Duration::from_millis(200);
/// A keeper that was killed has a successor, and that one has adopted the handlers that live on, within this time.
const ADOPTION_TIME: Duration = Duration::from_secs(1);
/// A connection lost to a double fault is noticed by its client within this time.
const LOSS_NOTICED_WITHIN: Duration = Duration::from_secs(10);

/// Why nobody can be killed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChaosError {
    #[error(transparent)]
    Console(#[from] ConsoleError),
    #[error("the server has no process of the role {role}; it has: {roles}")]
    NoSuchRole { role: String, roles: String },
    #[error(
        "process {pid}, the server's {role}, is not a child of its supervisor here: is the server on this machine?"
    )]
    NotHere { role: String, pid: u32 },
}

/// One process that was killed.
#[derive(Debug, Clone)]
pub(crate) struct Kill {
    pub at: Instant,
    pub role: String,
    pid: u32,
    /// Whom it served.
    player: Option<String>,
    /// Its parent: for a handler the keeper that forked it, or the supervisor if that one has died since.
    parent: u32,
    /// The keeper that forked it is dead; another has adopted it, or is about to.
    orphan: bool,
}

/// What was killed in the whole run.
#[derive(Debug, Default)]
pub(crate) struct Kills {
    pub log: Vec<Kill>,
    /// Times that a role's turn came and none of its processes was there to be killed.
    pub missed: BTreeMap<String, u64>,
}

/// A running killer.
#[derive(Debug)]
pub(crate) struct Killer {
    stop: Sender<()>,
    thread: JoinHandle<Result<Kills, ConsoleError>>,
}

/// Everything that is needed to begin.
#[derive(Debug)]
pub(crate) struct Plot {
    root: u32,
    console: Console,
    rates: Vec<(String, f64)>,
    seed: u64,
}

impl Plot {
    /// Checks that the processes to be killed are there and run here, below `root`.
    ///
    /// # Errors
    /// What is not so.
    pub(crate) fn new(root: u32, console: SocketAddr, chaos: &Chaos, seed: u64) -> Result<Self, ChaosError> {
        let mut console = Console::connect(console)?;
        let processes = console.processes()?;
        for process in &processes {
            let is_here = proc_figures::is_member(root, process.pid);
            // Whoever serves a connection may have ended since.
            if !is_here && process.restarts.is_some() {
                let (role, pid) = (process.role.clone(), process.pid);
                return Err(ChaosError::NotHere { role, pid });
            }
        }
        let mut roles: BTreeSet<&str> = processes.iter().map(|process| process.role.as_str()).collect();
        roles.extend(["handler", "console"]);
        roles.remove(super::SUPERVISOR);
        if let Some((role, _)) = chaos.rates().find(|(role, _)| !roles.contains(role)) {
            return Err(ChaosError::NoSuchRole {
                role: role.to_owned(),
                roles: roles.into_iter().collect::<Vec<_>>().join(", "),
            });
        }
        let rates = chaos
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

    /// Begins to kill.
    pub(crate) fn start(self) -> Killer {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut work = Work::new(self);
            loop {
                match stopped.recv_timeout(work.pause()) {
                    Err(RecvTimeoutError::Timeout) => work.kill_due()?,
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(work.kills),
                }
            }
        });
        Killer { stop, thread }
    }
}

impl Killer {
    /// Stops, and gives what was killed.
    ///
    /// # Errors
    /// When the console did not say which processes there are, and the killing ended early.
    pub(crate) fn end(self) -> Result<Kills, ConsoleError> {
        drop(self.stop);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Kills {
    /// How many of a role were killed.
    pub(crate) fn of_role(&self, role: &str) -> u64 {
        self.log.iter().filter(|kill| kill.role == role).count() as u64
    }

    /// The handlers that were killed while perhaps nobody was there to replace them, or whose keeper was killed before it
    /// can have done so: what may cost a connection. `slack` is what the machine's own slowness adds to the times that such
    /// things take.
    pub(crate) fn double_faults(&self, slack: Duration) -> impl Iterator<Item = &Kill> {
        self.log
            .iter()
            .filter(move |kill| kill.role == super::HANDLER && self.is_double_fault(kill, slack))
    }

    fn is_double_fault(&self, handler: &Kill, slack: Duration) -> bool {
        let may_have_kept =
            |kill: &&Kill| kill.role == super::KEEPER && (kill.pid == handler.parent || handler.orphan);
        let at_once = |kill: &Kill| match kill.at.checked_duration_since(handler.at) {
            Some(after) => after < TAKEOVER_TIME + slack,
            None => handler.at - kill.at < ADOPTION_TIME + slack,
        };
        self.log.iter().filter(may_have_kept).any(at_once)
    }

    /// How many of these losses (whose connection, and when) a double fault explains.
    pub(crate) fn explain(&self, losses: &[(String, Instant)], slack: Duration) -> u64 {
        let doubles: Vec<&Kill> = self.double_faults(slack).collect();
        let explained = |(name, at): &&(String, Instant)| {
            doubles.iter().any(|kill| {
                kill.player.as_ref() == Some(name)
                    && *at >= kill.at
                    && *at - kill.at < LOSS_NOTICED_WITHIN + slack
            })
        };
        losses.iter().filter(explained).count() as u64
    }
}

/// The killer's own state.
struct Work {
    root: u32,
    console: Console,
    began: Instant,
    turns: Vec<Turn>,
    random: Random,
    /// Each process once, and none that was killed already.
    victims: Vec<Victim>,
    listed: Option<Instant>,
    /// Pids and start times of all that were killed. Such a process is listed until it has been reaped and replaced, and for a while it
    /// does not even look dead.
    killed: HashSet<(u32, u64)>,
    kills: Kills,
}

/// When which role is next. A kill falls somewhere within its turn: at the turns' beginnings several roles would be hit at once.
struct Turn {
    role: String,
    schedule: Schedule,
    due: Duration,
}

/// A process that was listed, and since when it runs.
#[derive(Debug, Clone)]
struct Victim {
    process: Process,
    started_ticks: u64,
}

impl Work {
    fn new(plot: Plot) -> Self {
        let mut random = Random::new(plot.seed, u64::MAX - 1);
        let turns = plot.rates.into_iter().map(|(role, rate)| {
            let mut turn = Turn {
                role,
                schedule: Schedule::new(0, rate),
                due: Duration::ZERO,
            };
            turn.advance(&mut random);
            turn
        });
        Self {
            root: plot.root,
            console: plot.console,
            began: Instant::now(),
            turns: turns.collect(),
            random,
            victims: Vec::new(),
            listed: None,
            killed: HashSet::new(),
            kills: Kills::default(),
        }
    }

    /// How long it is until the next kill.
    fn pause(&self) -> Duration {
        let next = self.turns.iter().map(|turn| turn.due).min();
        next.map_or(Duration::MAX, |due| due.saturating_sub(self.began.elapsed()))
    }

    fn kill_due(&mut self) -> Result<(), ConsoleError> {
        let now = self.began.elapsed();
        for index in 0..self.turns.len() {
            if self.turns[index].due > now {
                continue;
            }
            self.turns[index].advance(&mut self.random);
            let role = self.turns[index].role.clone();
            match self.kill_one(&role)? {
                Some(kill) => self.kills.log.push(kill),
                None => *self.kills.missed.entry(role).or_default() += 1,
            }
        }
        Ok(())
    }

    fn kill_one(&mut self, role: &str) -> Result<Option<Kill>, ConsoleError> {
        for _ in 0..TRIES {
            let of_role = |victim: &Victim| victim.process.role == role;
            let is_old = self.listed.is_none_or(|listed| listed.elapsed() > LIST_AGE_MAX);
            if is_old || !self.victims.iter().any(of_role) {
                self.list()?;
            }
            let candidates: Vec<usize> = (0..self.victims.len())
                .filter(|index| of_role(&self.victims[*index]))
                .collect();
            let Some(index) = self.random.pick(&candidates).copied() else {
                continue;
            };
            let victim = self.victims.swap_remove(index);
            // One that has ended since, or whose number has gone to another, is no victim, and the list is out of date.
            let killed = kill(self.root, &victim);
            if killed.is_err() {
                self.listed = None;
            }
            if let Ok(parent) = killed {
                self.killed.insert((victim.process.pid, victim.started_ticks));
                return Ok(Some(Kill {
                    at: Instant::now(),
                    orphan: parent == self.root,
                    parent,
                    pid: victim.process.pid,
                    player: victim.process.player,
                    role: victim.process.role,
                }));
            }
        }
        Ok(None)
    }

    /// Asks which processes there are. A process that began after the question may bear the number of another that had ended
    /// by then; so only those are victims that are older.
    fn list(&mut self) -> Result<(), ConsoleError> {
        let asked_ticks = proc_figures::ticks_since_boot();
        let processes = self.console.processes()?;
        // A handler that serves several is listed for each of them.
        let mut seen = HashSet::new();
        let victims = processes.into_iter().filter_map(|process| {
            let started_ticks = Stat::of(process.pid).ok()?.started_ticks;
            let is_fair_game = started_ticks < asked_ticks
                && seen.insert(process.pid)
                && !self.killed.contains(&(process.pid, started_ticks));
            is_fair_game.then_some(Victim {
                process,
                started_ticks,
            })
        });
        self.victims = victims.collect();
        self.listed = Some(Instant::now());
        Ok(())
    }
}

impl Turn {
    fn advance(&mut self, random: &mut Random) {
        let begin_ns = self.schedule.advance();
        let within_ns = random.below((self.schedule.intended() - begin_ns).max(1));
        self.due = Duration::from_nanos(begin_ns + within_ns);
    }
}

/// Kills the process if it is still the one that was listed, and `root`'s descendant; gives its parent. The descriptor is taken
/// first: from then on its number cannot go to a stranger.
fn kill(root: u32, victim: &Victim) -> io::Result<u32> {
    let pid = victim.process.pid;
    let target = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(target, PidfdFlags::empty())?;
    let stat = Stat::of(pid)?;
    let is_it = stat.started_ticks == victim.started_ticks && pid != root;
    if !is_it || stat.is_dead() || !proc_figures::is_member(root, pid) {
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
            process: listed("handler", pid, None),
            started_ticks,
        }
    }

    #[test]
    fn only_descendants_that_still_are_who_was_listed_are_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let own = std::process::id();
        let started = |pid| Stat::of(pid).expect("it runs").started_ticks;
        let listed = victim(child.id(), started(child.id()));
        assert!(kill(own, &victim(own, started(own))).is_err(), "the root itself");
        assert!(
            kill(child.id(), &victim(own, started(own))).is_err(),
            "its parent"
        );
        assert!(kill(own, &victim(1, started(1))).is_err(), "a stranger");
        let earlier = victim(child.id(), listed.started_ticks - 1);
        assert!(kill(own, &earlier).is_err(), "a number that has gone to another");
        assert_eq!(kill(own, &listed).expect("it is killed"), own);
        assert_eq!(child.wait().expect("it ends").signal(), Some(9));
        assert!(kill(own, &listed).is_err(), "gone");
    }

    fn handler(at: Instant, pid: u32, parent: u32, orphan: bool) -> Kill {
        Kill {
            at,
            role: "handler".to_owned(),
            pid,
            player: Some(format!("player {pid}")),
            parent,
            orphan,
        }
    }

    #[test]
    fn a_loss_is_explained_only_by_a_handler_and_its_keeper_at_once() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let keeper = Kill {
            role: "keeper".to_owned(),
            player: None,
            ..handler(at(1000), 50, 1, false)
        };
        let log = vec![
            handler(at(0), 60, 50, false),
            handler(at(950), 61, 50, false),
            handler(at(950), 62, 51, false),
            keeper,
            handler(at(1001), 63, 1, true),
            handler(at(1001), 64, 51, false),
            handler(at(3000), 65, 1, true),
        ];
        let kills = Kills {
            log,
            missed: BTreeMap::new(),
        };
        let doubles: Vec<u32> = kills.double_faults(Duration::ZERO).map(|kill| kill.pid).collect();
        assert_eq!(
            doubles,
            [61, 63],
            "60 had long been replaced, 62 and 64 have another keeper, and 65 had long been adopted"
        );
        let loss = |pid: u32, ms| (format!("player {pid}"), at(ms));
        let explain = |losses: &[(String, Instant)]| kills.explain(losses, Duration::ZERO);
        assert_eq!(explain(&[loss(61, 960), loss(63, 1300)]), 2);
        assert_eq!(explain(&[loss(60, 10), loss(62, 960), loss(99, 960)]), 0);
        assert_eq!(
            explain(&[loss(61, 940), loss(61, 60_000)]),
            0,
            "before it, and long after"
        );
        let slow = Duration::from_secs(3);
        assert_eq!(
            kills.explain(&[loss(60, 10), loss(65, 3100)], slow),
            2,
            "on a slow machine"
        );
    }

    fn listed(role: &str, pid: u32, player: Option<&str>) -> Process {
        Process {
            role: role.to_owned(),
            pid,
            restarts: None,
            player: player.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn what_was_killed_is_no_victim_again_although_it_is_listed_and_does_not_look_dead() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let pid = child.id();
        let console = console_that_always_lists(&[
            listed("handler", pid, Some("ann")),
            listed("handler", pid, Some("bob")),
        ]);
        let mut work = Work::new(Plot {
            root: std::process::id(),
            console,
            rates: Vec::new(),
            seed: 1,
        });
        // The console is asked for what is older than the question, to the hundredth of a second.
        std::thread::sleep(Duration::from_millis(20));
        work.list().expect("it answers");
        assert_eq!(work.victims.len(), 1, "one process that serves two");
        work.killed.insert((pid, work.victims[0].started_ticks));
        work.listed = None;
        assert!(work.kill_one("handler").expect("it answers").is_none());
        assert!(work.victims.is_empty());
        child.kill().expect("it was let live");
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
