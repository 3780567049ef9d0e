//! What `/proc` says about a process.

use std::fs::File;
use std::io::{self, Read};

use crate::sys::process::ProcessId;

/// What a process was at when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStatus {
    /// Which process.
    pub process: ProcessId,
    /// What the scheduler has of it.
    pub state: RunState,
    /// Milliseconds of processor time that it has used since it was forked, to the kernel's clock tick (10 ms).
    pub cpu_ms: u64,
}

/// Whether a process gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// On a processor, or waiting for its turn.
    Running,
    /// Waiting for something that a signal would interrupt.
    Sleeping,
    /// Stopped by a signal or a tracer: it gets no turn until somebody continues it.
    Stopped,
    /// Waiting inside the kernel, for a disk say.
    Blocked,
}

impl ProcessStatus {
    /// Looks at a process; `None` if there is none with this pid that can still execute an instruction.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read, for want of a descriptor, say: then nothing is known.
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

/// What `/proc/PID/stat` says.
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

    /// Whether it can execute no instruction any more.
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // The name stands in parentheses and may contain anything, more of them included: what counts is behind the last one.
        let behind_name = text.iter().rposition(|byte| *byte == b')')? + 1;
        let mut fields = str::from_utf8(&text[behind_name..])
            .ok()?
            .split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        // The 14th, 15th and 22nd field of proc(5); the state was the third.
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
    fn a_name_cannot_disguise_the_state_or_the_figures() {
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
    fn processor_time_is_seen_to_be_used() {
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
