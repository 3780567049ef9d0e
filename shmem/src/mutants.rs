//! Switches that break a promise on purpose, each the way in which it was broken once or could be. The tests must notice.
//!
//! A product is built without the feature `mutants`; then every question is answered by no, and costs nothing. With it, a switch is
//! turned on in a process, or in all processes of a server by the environment (`FORKADE_MUTANT=ring-before-commit`).

#[cfg(feature = "mutants")]
use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

/// What can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Old bytes are not kept in the journal.
    JournalSkipped,
    /// The commit first drops a part of the journal.
    CommitInTwoStores,
    /// A room's events count as rung for before they are committed: whoever looked, looked too early.
    RingBeforeCommit,
    /// A doorbell that was lost, or is not there yet, is rung again neither by the ticker nor by a successor.
    NoSecondRing,
    /// The end of a client's stream counts as a byte of it.
    FinCounted,
    /// A mutex of a dead owner is repaired, but not made consistent.
    NeverConsistent,
}

impl Mutant {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::JournalSkipped,
        Self::CommitInTwoStores,
        Self::RingBeforeCommit,
        Self::NoSecondRing,
        Self::FinCounted,
        Self::NeverConsistent,
    ];

    /// What it is called in the environment.
    pub fn name(self) -> &'static str {
        match self {
            Self::JournalSkipped => "journal-skipped",
            Self::CommitInTwoStores => "commit-in-two-stores",
            Self::RingBeforeCommit => "ring-before-commit",
            Self::NoSecondRing => "no-second-ring",
            Self::FinCounted => "fin-counted",
            Self::NeverConsistent => "never-consistent",
        }
    }

    /// Breaks this, in this process and those it will fork.
    #[cfg(feature = "mutants")]
    pub fn turn_on(self) {
        ON[self as usize].store(true, Ordering::Relaxed);
    }

    /// Whether this is broken.
    #[cfg(feature = "mutants")]
    pub fn is_on(self) -> bool {
        ON[self as usize].load(Ordering::Relaxed) || from_environment() == Some(self)
    }

    /// Whether this is broken.
    #[cfg(not(feature = "mutants"))]
    pub const fn is_on(self) -> bool {
        false
    }
}

#[cfg(feature = "mutants")]
static ON: [AtomicBool; Mutant::ALL.len()] = [const { AtomicBool::new(false) }; Mutant::ALL.len()];

/// The switch that the environment names.
///
/// # Panics
///
/// If there is none of that name: a test that believes to break something would prove nothing.
#[cfg(feature = "mutants")]
fn from_environment() -> Option<Mutant> {
    static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("FORKADE_MUTANT").ok()?;
        let found = Mutant::ALL.into_iter().find(|switch| switch.name() == name);
        Some(found.unwrap_or_else(|| panic!("nothing can be sabotaged by the name of {name:?}")))
    })
}
