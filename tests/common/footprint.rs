//! The resources of a server: processes and open files as the kernel counts them, players and rooms as the
//! console does.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use super::{Server, WAIT_MAX, eventually, is_alive, of_name, processes_below};

/// Consecutive equal samples after which the server counts as idle.
const EQUAL_LOOKS: u32 = 3;

/// The resources of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// By process name: number of processes and of their open files.
    pub processes: BTreeMap<String, (usize, usize)>,
    /// Number of players, rooms and handlers.
    pub held: [u64; 3],
}

impl Footprint {
    /// Waits until nothing changes any more, and returns the footprint.
    pub fn settled(server: &Server) -> Self {
        let mut last = Self::of(server);
        let mut equal_looks = 0;
        eventually("the server becomes idle", || {
            let next = Self::of(server);
            equal_looks = if next == last { equal_looks + 1 } else { 0 };
            last = next;
            equal_looks == EQUAL_LOOKS
        });
        last
    }

    /// Waits until the server's footprint equals this one.
    #[track_caller]
    pub fn expect_again(&self, server: &Server) {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let now = Self::of(server);
            if now == *self {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the server holds {now:?}, and held {self:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The footprint at this moment. Processes that are starting or ending may be included.
    fn of(server: &Server) -> Self {
        let held = held(server);
        // The console process that answered above is not counted.
        eventually("the console's process is gone", || {
            !processes(server).contains_key("console")
        });
        Self {
            processes: processes(server),
            held,
        }
    }
}

/// Number of players, rooms and handlers, from the console.
pub fn held(server: &Server) -> [u64; 3] {
    let status = server.ask_json("status");
    ["players", "rooms", "handlers"].map(|key| {
        status[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no {key} in {status}"))
    })
}

/// By process name: number of processes and of their open files.
pub fn processes(server: &Server) -> BTreeMap<String, (usize, usize)> {
    processes_of(server.pid())
}

/// Like [`processes`], for the server whose supervisor has this pid.
pub fn processes_of(supervisor: u32) -> BTreeMap<String, (usize, usize)> {
    let mut processes = BTreeMap::new();
    for pid in processes_below(supervisor).into_iter().chain([supervisor]) {
        // A process that has just ended has no name and no files any more.
        let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) else {
            continue;
        };
        let (count, files) = processes.entry(name.trim_end().to_owned()).or_insert((0, 0));
        *count += 1;
        *files += open_files(pid);
    }
    processes
}

/// Pids of all living processes with this name.
pub fn running(server: &Server, name: &str) -> Vec<u32> {
    let mut pids = of_name(&processes_below(server.pid()), name);
    pids.retain(|pid| is_alive(*pid));
    pids
}

/// Number of files that a process has open.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Memory of the whole server in KiB. Each shared page is counted once (PSS).
pub fn memory_kib(server: &Server) -> u64 {
    let pss = |pid: u32| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|line| line.trim().split(' ').next()?.parse().ok())
            .unwrap_or(0)
    };
    processes_below(server.pid())
        .into_iter()
        .chain([server.pid()])
        .map(pss)
        .sum()
}

/// Number of sockets that a process has open.
pub fn sockets(pid: u32) -> usize {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let targets = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}
