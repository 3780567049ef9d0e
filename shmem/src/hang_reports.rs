//! Reports of what seems to hang: one word in a small table, and a signal to the hang detector.
//!
//! A report is one word, so that its sender may be killed at any instruction. It names only *what* makes no progress.
//! The detector finds out which process is the cause. When many processes report the same thing, the table holds it
//! once, or a few times if they race.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::signal::Signal;

use crate::limits::REPORTS_MAX;
use crate::shared_record;
use crate::sys::process::ProcessId;

shared_record! {
    /// The table of reports. Zeroed memory is an empty table without a detector.
    pub struct HangReports {
        detector_pid: AtomicU32,
        detector_start_time: AtomicU64,
        /// Calls of `report`.
        reported_total: AtomicU64,
        /// Words of [`Subject`]s, with [`SEEN`] once the detector has read them; 0 in a free place.
        reports: [AtomicU64; REPORTS_MAX],
    }
}

/// The detector has read the report and need not be woken again.
const SEEN: u64 = 1 << 63;
/// The kind of subject is above this bit, its number below.
const KIND_SHIFT: u32 = 56;
const LOCK: u64 = 1;
const CONNECTION: u64 = 2;
const ROLE: u64 = 3;

/// What seems to hang.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A lock that processes wait for.
    Lock {
        /// Offset of its record in the mapping, in bytes.
        offset: u64,
    },
    /// A connection whose handler makes no progress.
    Connection {
        /// Its slot.
        index: u32,
    },
    /// A process of the supervisor's own.
    Role {
        /// Index of its entry in the header.
        slot: u32,
    },
}

impl Subject {
    /// The subject as one word, which is never 0.
    pub fn to_word(self) -> u64 {
        let (kind, number) = match self {
            Self::Lock { offset } => (LOCK, offset),
            Self::Connection { index } => (CONNECTION, index.into()),
            Self::Role { slot } => (ROLE, slot.into()),
        };
        kind << KIND_SHIFT | number
    }

    /// The subject of a word; `None` if no subject has that word.
    pub fn from_word(word: u64) -> Option<Self> {
        let (kind, number) = ((word & !SEEN) >> KIND_SHIFT, word & ((1 << KIND_SHIFT) - 1));
        match kind {
            LOCK => Some(Self::Lock { offset: number }),
            CONNECTION => u32::try_from(number).ok().map(|index| Self::Connection { index }),
            ROLE => u32::try_from(number).ok().map(|slot| Self::Role { slot }),
            _ => None,
        }
    }
}

impl HangReports {
    /// Sets the process that reads the table. It is sent SIGUSR1 whenever there is a new report. Before this call,
    /// reports are only entered.
    pub fn set_detector(&self, detector: ProcessId) {
        self.detector_start_time
            .store(detector.start_time, Ordering::Relaxed);
        self.detector_pid.store(detector.pid, Ordering::Release);
    }

    /// Reports a subject. Repeat it as long as the condition lasts: a full table drops reports.
    pub fn report(&self, subject: Subject) {
        self.reported_total.fetch_add(1, Ordering::Relaxed);
        if !self.enter(subject.to_word()) {
            return;
        }
        let detector = ProcessId {
            pid: self.detector_pid.load(Ordering::Acquire),
            start_time: self.detector_start_time.load(Ordering::Relaxed),
        };
        if detector.pid != 0 {
            // Ignored: without a supervisor, which runs the detector, this process is about to end too.
            let _ = detector.send_signal(Signal::SIGUSR1);
        }
    }

    /// How often a process reported, repetitions included.
    pub fn reported_total(&self) -> u64 {
        self.reported_total.load(Ordering::Relaxed)
    }

    /// For the detector: the reports with their places in the table, which are marked as seen. Words that name no
    /// subject are removed.
    pub fn pending(&self) -> impl Iterator<Item = (usize, Subject)> {
        self.reports.iter().enumerate().filter_map(|(place, report)| {
            let word = report.load(Ordering::Acquire);
            let subject = Subject::from_word(word);
            match subject {
                Some(_) => report.store(word | SEEN, Ordering::Release),
                None if word != 0 => report.store(0, Ordering::Release),
                None => {}
            }
            subject.map(|subject| (place, subject))
        })
    }

    /// For the detector: removes the report at `place`. A process that still waits reports again.
    ///
    /// # Panics
    ///
    /// If `place` is not from [`pending`](Self::pending).
    pub fn clear(&self, place: usize) {
        self.reports[place].store(0, Ordering::Release);
    }

    /// Puts the word into the table, unless it is there. True if the detector must be woken.
    fn enter(&self, word: u64) -> bool {
        for report in &self.reports {
            match report.load(Ordering::Acquire) {
                // The process that entered it may have died before it woke the detector.
                entered if entered == word => return true,
                entered if entered == word | SEEN => return false,
                _ => {}
            }
        }
        self.reports.iter().any(|report| {
            report
                .compare_exchange(0, word, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        })
    }
}
