//! The limits of the machine that this process runs on.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::process::{Resource, geteuid, getrlimit};
use thiserror::Error;

/// The limits of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Open files of one process: the hard limit, to which the server raises its soft limit.
    pub open_files_max: u64,
    /// Processes of this user; `None` for root, to which the limit does not apply.
    pub processes_of_user_max: Option<u64>,
    /// Processes of the machine: the least of the limits of process ids, threads and the container's processes.
    pub processes_max: u64,
    /// Processes that exist now.
    pub processes_now: u64,
    /// Memory of the machine or container.
    pub memory_bytes: u64,
    /// Memory that is available now.
    pub memory_available_bytes: u64,
    /// Longest backlog of a listening socket.
    pub backlog_max: u64,
}

/// A limit of the machine cannot be read.
#[derive(Debug, Error)]
#[error("cannot read this machine's limits from {}: {cause}; is /proc mounted?", path.display())]
pub struct MachineError {
    /// The file.
    pub path: PathBuf,
    /// Why it cannot be read.
    pub cause: io::Error,
}

impl Machine {
    /// Reads the limits of this machine, of this process's container and of its user.
    ///
    /// # Errors
    ///
    /// `/proc` is not mounted, or a file in it is not as expected.
    pub fn read() -> Result<Self, MachineError> {
        let pids = read_number("/proc/sys/kernel/pid_max", parse_number)?;
        let threads = read_number("/proc/sys/kernel/threads-max", parse_number)?;
        let memory_total = read_number("/proc/meminfo", |text| parse_meminfo(text, "MemTotal:"))?;
        let memory_free = read_number("/proc/meminfo", |text| parse_meminfo(text, "MemAvailable:"))?;
        let mut machine = Machine {
            open_files_max: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            processes_of_user_max: getrlimit(Resource::Nproc)
                .current
                .filter(|_| !geteuid().is_root()),
            processes_max: pids.min(threads),
            processes_now: read_number("/proc/loadavg", |text| {
                text.split(['/', ' ']).nth(4)?.parse().ok()
            })?,
            memory_bytes: memory_total,
            memory_available_bytes: memory_free,
            backlog_max: read_number("/proc/sys/net/core/somaxconn", parse_number)?,
        };
        for folder in cgroup_folders() {
            machine.apply_cgroup_limits(&folder);
        }
        Ok(machine)
    }

    /// Applies the lower limits of a control group. (File names of versions 2 and 1.)
    fn apply_cgroup_limits(&mut self, folder: &Path) {
        let number = |name| parse_number(&fs::read_to_string(folder.join(name)).ok()?);
        if let Some(max) = number("pids.max") {
            self.processes_max = self.processes_max.min(max);
        }
        let memory = [
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ];
        for (max, used) in memory {
            if let (Some(max), Some(used)) = (number(max), number(used)) {
                self.memory_bytes = self.memory_bytes.min(max);
                self.memory_available_bytes = self.memory_available_bytes.min(max.saturating_sub(used));
            }
        }
    }
}

/// The folders of the control groups that limit this process: its own and its ancestors, as far as they are visible.
fn cgroup_folders() -> Vec<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut folders = Vec::new();
    for line in groups.lines() {
        // `id:controllers:path`. Version 2 lists no controllers; version 1 has one mount for each.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        if matches!(controllers, "" | "memory" | "pids") {
            let mount = Path::new("/sys/fs/cgroup").join(controllers);
            let path = Path::new(path.trim_start_matches('/'));
            folders.extend(path.ancestors().map(|ancestor| mount.join(ancestor)));
        }
    }
    folders
}

fn read_number(path: &str, find: impl FnOnce(&str) -> Option<u64>) -> Result<u64, MachineError> {
    let read = fs::read_to_string(path);
    let number =
        read.and_then(|text| find(&text).ok_or_else(|| io::Error::other("its content is not as expected")));
    number.map_err(|cause| MachineError {
        path: path.into(),
        cause,
    })
}

fn parse_number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn parse_meminfo(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    Some(parse_number(line.trim_end_matches("kB"))? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_this_machine_can_be_read() {
        let machine = Machine::read().expect("/proc is mounted");
        assert!(
            machine.open_files_max > 0 && machine.processes_now > 0 && machine.backlog_max > 0,
            "{machine:?}"
        );
        assert!(
            machine.memory_bytes > 0 && machine.memory_available_bytes <= machine.memory_bytes,
            "{machine:?}"
        );
    }
}
