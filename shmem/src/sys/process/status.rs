//! The status of a process, from `/proc/PID/stat`.

use std::fs::File;
use std::io::{self, Read};

use crate::sys::process::id::ProcessId;

/// The status of a process at the time of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStatus {
    /// The process.
    pub process: ProcessId,
    /// Its scheduling state.
    pub state: RunState,
    /// CPU time used since its fork, in milliseconds, to the kernel's clock tick (10 ms).
    pub cpu_ms: u64,
}

/// The scheduling state of a living process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// On a CPU or runnable.
    Running,
    /// Waiting, interruptible by signals.
    Sleeping,
    /// Stopped by a signal or a tracer, until it is continued.
    Stopped,
    /// Waiting in the kernel, not interruptible, for a disk for example.
    Blocked,
}

impl ProcessStatus {
    /// The status of the process with this pid; `None` if there is none, or only a zombie.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read, for example without a free descriptor. The status is unknown then.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        let stat = ProcessStat::of(pid)?.filter(|stat| !stat.is_dead());
        Ok(stat.map(|stat| Self {
            process: ProcessId {
                pid,
                start_time: stat.start_time,
            },
            state: match stat.state {
                'R' => RunState::Running,
                'S' | 'I' => RunState::Sleeping,
                'T' | 't' => RunState::Stopped,
                _ => RunState::Blocked,
            },
            cpu_ms: stat.cpu_ticks * 1000 / rustix::param::clock_ticks_per_second().max(1),
        }))
    }
}

/// The pid of the process that the thread belongs to; `None` if there is no such thread.
///
/// # Errors
///
/// If `/proc` cannot be read, for example without a free descriptor.
pub fn process_of_thread(thread: u32) -> io::Result<Option<u32>> {
    let text = match std::fs::read_to_string(format!("/proc/{thread}/status")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        read => read?,
    };
    let group = text.lines().find_map(|line| line.strip_prefix("Tgid:"));
    let malformed = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "/proc/PID/status is not as in proc(5)",
        )
    };
    let pid = group.and_then(|pid| pid.trim().parse().ok());
    pid.map(Some).ok_or_else(malformed)
}

/// Fields of `/proc/PID/stat`.
pub(super) struct ProcessStat {
    pub start_time: u64,
    state: char,
    cpu_ticks: u64,
}

impl ProcessStat {
    pub(super) fn of(pid: u32) -> io::Result<Option<Self>> {
        Self::read(&format!("/proc/{pid}/stat"))
    }

    /// `None` if there is no such process.
    pub(super) fn read(path: &str) -> io::Result<Option<Self>> {
        // The start time ends within the first 512 bytes: a name of 64 bytes at most, and 20 numbers.
        let mut text = [0; 1024];
        let mut read = || {
            let mut file = File::open(path)?;
            loop {
                match file.read(&mut text) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => return read,
                }
            }
        };
        let length = match read() {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not as in proc(5)"));
        Self::parse(&text[..length]).map(Some).ok_or_else(malformed)
    }

    /// True if it can execute no more instruction.
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // The name is in parentheses and may contain any character, parentheses included: the numbers follow the last
        // one.
        let behind_name = text.iter().rposition(|byte| *byte == b')')? + 1;
        let mut fields = str::from_utf8(&text[behind_name..])
            .ok()?
            .split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        // Fields 14, 15 and 22 of proc(5); the state was field 3.
        let user: u64 = fields.nth(10)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        let start_time = fields.nth(6)?.parse().ok()?;
        Some(Self {
            start_time,
            state,
            cpu_ticks: user + system,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_forge_the_fields() {
        let numbers = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 99";
        let stat =
            ProcessStat::parse(format!("7 (x) Z 1 (\u{e9}) ) R {numbers}").as_bytes()).expect("parses");
        assert_eq!(
            (stat.start_time, stat.cpu_ticks, stat.is_dead()),
            (4242, 11 + 12, false)
        );
        let stat = ProcessStat::parse(format!("7 (R) Z {numbers}").as_bytes()).expect("parses");
        assert!(stat.is_dead());
        assert!(ProcessStat::parse(b"7 (cut off) R 1 2").is_none());
        assert!(ProcessStat::parse(b"").is_none());
    }

    #[test]
    fn used_cpu_time_is_counted() {
        let look = || {
            ProcessStatus::of(std::process::id())
                .expect("/proc can be read")
                .expect("this process exists")
        };
        let before = look();
        while look().cpu_ms < before.cpu_ms + 50 {}
        assert_eq!(look().process, before.process);
        assert_eq!(ProcessStatus::of(u32::MAX).expect("/proc can be read"), None);
    }
}
