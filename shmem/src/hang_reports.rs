//! How a process that gets nowhere is reported: one word in a small table, and a signal to who judges.
//!
//! A report is a single word, so that who reports can be killed at any instruction, and it names only *what* is stuck: who is to blame
//! for it, the detector finds out. Many may report the same; it is in the table once, or, if they race, a few times.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::sys::signal::Signal;

use crate::limits::REPORTS_MAX;
use crate::shared_record;
use crate::sys::process::ProcessId;

shared_record! {
    /// What seems to be stuck. Zeroes are an empty table, and nobody who would look at it.
    pub struct HangReports {
        detector_pid: AtomicU32,
        detector_start_time: AtomicU64,
        /// How often somebody reported.
        reported_total: AtomicU64,
        /// Words of [`Subject`]s, with [`SEEN`] once the detector knows; 0 where there is none.
        reports: [AtomicU64; REPORTS_MAX],
    }
}

/// The detector knows about it, and need not be woken.
const SEEN: u64 = 1 << 63;
/// What kind of subject a word names.
const KIND_SHIFT: u32 = 56;
const LOCK: u64 = 1;
const CONNECTION: u64 = 2;
const ROLE: u64 = 3;

/// What seems to be stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A lock that others wait for.
    Lock {
        /// Where its record begins in the mapping.
        offset: u64,
    },
    /// A connection whose handler does not get on.
    Connection {
        /// Its index.
        index: u32,
    },
    /// One of the supervisor's own processes.
    Role {
        /// Index of its slot in the header.
        slot: u32,
    },
}

impl Subject {
    /// As one word, which is not 0.
    pub fn to_word(self) -> u64 {
        let (kind, number) = match self {
            Self::Lock { offset } => (LOCK, offset),
            Self::Connection { index } => (CONNECTION, index.into()),
            Self::Role { slot } => (ROLE, slot.into()),
        };
        kind << KIND_SHIFT | number
    }

    /// What a word says; `None` for one that no subject has.
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
    /// Names the process that looks at the table, which is sent SIGUSR1 whenever there is something new in it. Until then reports wake
    /// nobody.
    pub fn set_detector(&self, detector: ProcessId) {
        self.detector_start_time
            .store(detector.start_time, Ordering::Relaxed);
        self.detector_pid.store(detector.pid, Ordering::Release);
    }

    /// Reports. To be repeated while it lasts: where the table is full, a report is dropped.
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
            // One that is gone takes this process with it in a moment.
            let _ = detector.send_signal(Signal::SIGUSR1);
        }
    }

    /// How often somebody reported.
    pub fn reported_total(&self) -> u64 {
        self.reported_total.load(Ordering::Relaxed)
    }

    /// For the detector: what is reported, with the places in the table. What is given is taken for seen; a word that is none is removed.
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

    /// For the detector: what was reported there is settled. Who still waits reports anew.
    pub fn clear(&self, place: usize) {
        self.reports[place].store(0, Ordering::Release);
    }

    /// Puts the word into the table, if it is not there. Says whether the detector should be woken.
    fn enter(&self, word: u64) -> bool {
        for report in &self.reports {
            match report.load(Ordering::Acquire) {
                // Whoever has entered it may have died before waking the detector.
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
