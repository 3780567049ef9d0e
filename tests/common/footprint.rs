//! What a server holds: processes and open files as the kernel counts them, players and rooms as the console does.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use super::{Server, WAIT_MAX, eventually, is_alive, processes_below};

/// Looks in a row that must agree before the server counts as at rest.
const EQUAL_LOOKS: u32 = 3;

/// All that a server holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// By the processes' name: how many there are, and how many files they have open together.
    pub processes: BTreeMap<String, (usize, usize)>,
    /// Players, rooms and handlers.
    pub held: [u64; 3],
}

impl Footprint {
    /// Waits until nothing changes any more, and says what there is.
    pub fn settled(server: &Server) -> Self {
        let mut last = Self::of(server);
        let mut equal_looks = 0;
        eventually("the server comes to rest", || {
            let next = Self::of(server);
            equal_looks = if next == last { equal_looks + 1 } else { 0 };
            last = next;
            equal_looks == EQUAL_LOOKS
        });
        last
    }

    /// Waits until the server holds what it held when this was taken: no more and no less.
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

    /// Of this moment; processes that are just coming or going may be in it.
    fn of(server: &Server) -> Self {
        let held = held(server);
        // The one that was asked just now is not meant.
        eventually("the console's process is gone", || {
            !processes(server).contains_key("console")
        });
        Self {
            processes: processes(server),
            held,
        }
    }
}

/// Players, rooms and handlers, by the console.
pub fn held(server: &Server) -> [u64; 3] {
    let status = server.ask_json("status");
    ["players", "rooms", "handlers"].map(|key| {
        status[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no {key} in {status}"))
    })
}

/// By name: how many processes there are, and their open files.
pub fn processes(server: &Server) -> BTreeMap<String, (usize, usize)> {
    processes_of(server.pid())
}

/// As [`processes`], of the server whose supervisor has this process id.
pub fn processes_of(supervisor: u32) -> BTreeMap<String, (usize, usize)> {
    let mut processes = BTreeMap::new();
    for pid in processes_below(supervisor).into_iter().chain([supervisor]) {
        // One that has just ended has no name and no files any more.
        let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) else {
            continue;
        };
        let (count, files) = processes.entry(name.trim_end().to_owned()).or_insert((0, 0));
        *count += 1;
        *files += open_files(pid);
    }
    processes
}

/// Process ids of all that live and bear a name, as the kernel lists them.
pub fn running(server: &Server, name: &str) -> Vec<u32> {
    let bears_it = |pid: &u32| {
        let bears = fs::read_to_string(format!("/proc/{pid}/comm"));
        bears.is_ok_and(|bears| bears.trim_end() == name)
    };
    let processes = processes_below(server.pid()).into_iter();
    processes.filter(|pid| bears_it(pid) && is_alive(*pid)).collect()
}

/// How many files a process has open.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Memory of the whole server in KiB, each shared page counted once (PSS).
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

/// How many sockets a process has open.
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
