//! The server under test, as seen from outside.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::footprint::processes_of;
use crate::play::LIMIT;
use crate::tracer::Plan;

/// Consecutive equal samples after which the server counts as idle.
const EQUAL_LOOKS: u32 = 3;

/// By process name: number of processes and of their open files.
pub(crate) type Footprint = BTreeMap<String, (usize, usize)>;

/// The server, after it has printed its ready line.
pub(crate) struct Subject {
    pub(crate) pid: u32,
    pub(crate) game: SocketAddr,
    pub(crate) console: SocketAddr,
    log: Log,
    plan: Arc<Mutex<Plan>>,
}

impl Subject {
    /// Waits for its ready line; `None` if it ends without one.
    pub(crate) fn await_ready(
        pid: u32,
        stdout: PipeReader,
        log: Log,
        plan: Arc<Mutex<Plan>>,
    ) -> Option<Self> {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).ok()?;
        let ready: serde_json::Value = serde_json::from_str(&line).ok()?;
        let address = |key: &str| ready[key].as_str()?.parse().ok();
        Some(Self {
            pid,
            game: address("game")?,
            console: address("console")?,
            log,
            plan,
        })
    }

    pub(crate) fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Pids of all processes with this name.
    pub(crate) fn pids(&self, name: &str) -> Vec<u32> {
        let has_name = |pid: &u32| {
            let comm = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        };
        let below = crate::common::processes_below(self.pid).into_iter();
        below
            .filter(|pid| has_name(pid) && crate::common::is_alive(*pid))
            .collect()
    }

    /// The server's footprint. Excludes the pidfds by which a keeper watches adopted handlers.
    pub(crate) fn footprint(&self) -> Footprint {
        let mut footprint = processes_of(self.pid);
        let orphans = self.orphans();
        if let Some((_, files)) = footprint.get_mut("keeper") {
            *files = files.saturating_sub(orphans);
        }
        footprint
    }

    /// Number of orphaned handlers, which are children of the supervisor.
    fn orphans(&self) -> usize {
        let children = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let children: Vec<u32> = children
            .split(' ')
            .filter_map(|pid| pid.trim().parse().ok())
            .collect();
        let handlers = self.pids("handler");
        handlers.iter().filter(|pid| children.contains(pid)).count()
    }

    /// The footprint once it is stable and this many clients are connected.
    pub(crate) fn settled(&self, clients: usize) -> Footprint {
        let mut last = self.footprint();
        let mut equal_looks = 0;
        let settles = eventually(|| {
            let next = self.footprint();
            let handlers = next.get("handler").map_or(0, |(handlers, _)| *handlers);
            let is_same = next == last && handlers == clients && !next.contains_key("console");
            equal_looks = if is_same { equal_looks + 1 } else { 0 };
            last = next;
            equal_looks == EQUAL_LOOKS
        });
        assert!(settles, "the server does not come to rest");
        last
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid.cast_signed()), signal);
    }
}

/// What the server has logged so far.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<String>>);

impl Log {
    /// Collects the log until the last process has closed the pipe.
    pub(crate) fn collect(&self, mut stderr: PipeReader) -> JoinHandle<()> {
        let log = self.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                log.0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&text);
            }
        })
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Waits until a condition holds. Returns false if it does not within the time limit.
pub(crate) fn eventually(holds: impl FnMut() -> bool) -> bool {
    within(LIMIT, holds)
}

/// Like [`eventually`], with another limit.
pub(crate) fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !holds() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}
