//! Why the watchdog kills a process, as it lies in shared memory.

use std::fmt;

/// How a process hung. No kind has the number 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum HangKind {
    /// It used too much processor time on one thing.
    Looping = 1,
    /// It was stopped and not continued.
    Stopped = 2,
    /// It slept while it held a lock.
    Asleep = 3,
}

impl HangKind {
    /// The number in shared memory.
    pub fn number(self) -> u32 {
        self as u32
    }

    /// The kind with this [number](Self::number); `None` for 0.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Looping, Self::Stopped, Self::Asleep]
            .into_iter()
            .find(|kind| kind.number() == number)
    }

    /// Whether the process hung by its own doing. A stopped process is assumed to have been stopped from outside; one
    /// that stops itself is noticed when every process that does the same stops.
    pub fn is_self_inflicted(self) -> bool {
        self != Self::Stopped
    }
}

impl fmt::Display for HangKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Looping => "looping",
            Self::Stopped => "stopped",
            Self::Asleep => "asleep",
        })
    }
}
