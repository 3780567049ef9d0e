//! What a tree of processes uses, read from `/proc`.
//!
//! Memory is the sum of what each process is charged for in user space (`Pss` of `smaps_rollup`: each shared
//! page is divided among the processes that map it, whereas RSS counts it in each of them) and of what the
//! kernel holds for it: page tables (`VmPTE` of `status`) and one kernel stack per thread. No per-process
//! file counts slab memory (task structures, sockets, open files; about 28 KiB a process).
//! [`TreeFigures::machine_kernel_kib`] has it for the whole machine; only a difference of two readings means
//! anything, and only if no other process starts or ends in between. Neither figure includes socket buffers.
//!
//! CPU time is that of `schedstat`, in nanoseconds, and for reaped children `cutime` and `cstime` of `stat`.
//! (`utime` and `stime` are rounded down to 10 ms in every process: of a thousand handlers that use 5 ms
//! each, nothing would remain.)

use std::collections::HashMap;
use std::{fs, io};

use rustix::time::{ClockId, clock_gettime};

/// Kernel stack of one thread, in KiB: THREAD_SIZE of x86-64 and arm64.
const KERNEL_STACK_KIB: u64 = 16;
/// Fields of `/proc/meminfo`: what the kernel holds for processes, sockets and open files.
const KERNEL_FIELDS: [&str; 3] = ["SUnreclaim:", "KernelStack:", "PageTables:"];

/// What a tree of processes uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TreeFigures {
    pub processes: u64,
    /// User space and kernel together, as the module's documentation explains.
    pub memory_kib: u64,
    /// User space only.
    pub user_kib: u64,
    /// What the kernel of the whole machine holds and cannot reclaim.
    pub machine_kernel_kib: u64,
}

/// Reads the figures of `root` and all its descendants. A process that ends meanwhile is left out.
///
/// # Errors
/// When `/proc` or `root` itself cannot be read.
pub(crate) fn tree(root: u32) -> io::Result<TreeFigures> {
    let mut figures = TreeFigures::default();
    for stat in members(root)? {
        figures.processes += 1;
        let (user_kib, kernel_kib) = memory_kib(stat.pid).unwrap_or((0, 0));
        figures.memory_kib += user_kib + kernel_kib;
        figures.user_kib += user_kib;
    }
    let machine = fs::read_to_string("/proc/meminfo")?;
    figures.machine_kernel_kib = KERNEL_FIELDS
        .iter()
        .filter_map(|field| labelled_number(&machine, field))
        .sum();
    Ok(figures)
}

/// CPU time of a tree of processes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuFigures {
    pub processes: u64,
    /// Of all processes and their reaped children.
    pub cpu_seconds: f64,
}

/// Reads the CPU time that `root` and all its descendants have used so far.
///
/// # Errors
/// When `/proc` or `root` itself cannot be read.
pub(crate) fn cpu(root: u32) -> io::Result<CpuFigures> {
    let members = members(root)?;
    Ok(CpuFigures {
        processes: members.len() as u64,
        cpu_seconds: members.iter().map(Stat::cpu_seconds).sum(),
    })
}

/// Whether `pid` is `root` or one of its descendants.
pub(crate) fn is_member(root: u32, mut pid: u32) -> bool {
    while pid > 1 {
        if pid == root {
            return true;
        }
        match Stat::of(pid) {
            Ok(stat) => pid = stat.parent,
            Err(_) => return false,
        }
    }
    false
}

fn members(root: u32) -> io::Result<Vec<Stat>> {
    let mut children: HashMap<u32, Vec<Stat>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(stat) = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(|pid| Stat::of(pid).ok())
        {
            children.entry(stat.parent).or_default().push(stat);
        }
    }
    let mut members = vec![Stat::of(root)?];
    let mut next = 0;
    while let Some(parent) = members.get(next) {
        members.extend(children.remove(&parent.pid).unwrap_or_default());
        next += 1;
    }
    Ok(members)
}

/// Memory in user space, and in the kernel as far as `/proc` shows it per process.
fn memory_kib(pid: u32) -> io::Result<(u64, u64)> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |text, name| labelled_number(text, name).unwrap_or(0);
    let kernel_kib = field(&status, "VmPTE:") + field(&status, "Threads:") * KERNEL_STACK_KIB;
    Ok((field(&rollup, "Pss:"), kernel_kib))
}

/// The number after `label` at the start of a line, as in `Pss:    1234 kB`.
fn labelled_number(text: &str, label: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(label))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Clock ticks since the machine was booted, as [`Stat::started_ticks`] counts them.
pub(crate) fn ticks_since_boot() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let per_second = rustix::param::clock_ticks_per_second();
    let part = u64::try_from(time.tv_nsec).unwrap_or(0) * per_second / 1_000_000_000;
    u64::try_from(time.tv_sec).unwrap_or(0) * per_second + part
}

/// The fields needed of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pid: u32,
    state: char,
    pub(crate) parent: u32,
    /// utime and stime.
    own_ticks: u64,
    /// cutime and cstime.
    reaped_ticks: u64,
    threads: u64,
    /// Clock ticks from boot to the start of the process. Together with the pid it identifies a process for
    /// good.
    pub(crate) started_ticks: u64,
}

impl Stat {
    /// Reads `/proc/PID/stat`.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unknown format of /proc/PID/stat"))
    }

    /// The name in parentheses may contain anything, `)` and spaces included, so fields are counted after the
    /// last `)`.
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.rsplit_once(')')?;
        let pid = before.split_once(" (")?.0.parse().ok()?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        // proc_pid_stat(5) counts fields from 1, and `fields` begins with the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            pid,
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(field(4)?).ok()?,
            own_ticks: field(14)? + field(15)?,
            reaped_ticks: field(16)? + field(17)?,
            threads: field(20)?,
            started_ticks: field(22)?,
        })
    }

    /// Whether it has ended and waits to be reaped.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn cpu_seconds(&self) -> f64 {
        let seconds = |ticks: u64| ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        // `schedstat` counts only the first thread, and a kernel may be built without it.
        let precise = fs::read_to_string(format!("/proc/{}/schedstat", self.pid))
            .ok()
            .filter(|_| self.threads == 1);
        let nanoseconds = precise.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        nanoseconds.map_or_else(|| seconds(self.own_ticks), |nanoseconds| nanoseconds as f64 / 1e9)
            + seconds(self.reaped_ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = "4711 (a) b (c d) S 42 4711 42 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 777 2 3";
        assert_eq!(
            Stat::parse(line),
            Some(Stat {
                pid: 4711,
                parent: 42,
                own_ticks: 30,
                reaped_ticks: 70,
                threads: 1,
                state: 'S',
                started_ticks: 777,
            })
        );
        assert_eq!(Stat::parse("4711 (short) S 42"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn labels_match_whole_and_at_the_start() {
        let text = "Rss:   9 kB\nSwapPss:   7 kB\nPss_Dirty: 5 kB\nPss:   1234 kB\n";
        assert_eq!(labelled_number(text, "Pss:"), Some(1234));
        assert_eq!(labelled_number(text, "VmPTE:"), None);
    }

    #[test]
    fn this_process_is_in_its_own_tree_with_its_memory() {
        let own = std::process::id();
        let figures = tree(own).unwrap();
        assert!(figures.processes >= 1);
        assert!(figures.memory_kib > 100, "{figures:?}");
        assert!(
            figures.user_kib < figures.memory_kib && figures.machine_kernel_kib > 1000,
            "{figures:?}"
        );
        assert!(is_member(own, own));
        assert!(!is_member(own, Stat::of(own).unwrap().parent));
        assert!(!is_member(own, u32::MAX));
    }

    #[test]
    fn children_belong_to_the_tree_and_even_little_cpu_time_counts() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = std::process::id();
        assert!(members(own).unwrap().iter().any(|stat| stat.pid == child.id()));
        assert!(is_member(own, child.id()));
        assert!(cpu(child.id()).unwrap().cpu_seconds > 0.0);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
