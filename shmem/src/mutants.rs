//! Mutants: promises broken on purpose, to prove that the tests notice. Each is a mistake that was made once, or could
//! be.
//!
//! Without the feature `mutants`, as in a product, no mutant is ever active and the question costs nothing. With it, a
//! mutant is activated in one process by a call, or in all processes of a server by the environment
//! (`FORKADE_MUTANT=ring-before-commit`).

#[cfg(feature = "mutants")]
use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

/// A promise that can be broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Old bytes are not kept in the journal.
    JournalSkipped,
    /// The commit first drops a part of the journal.
    CommitInTwoStores,
    /// Events count as announced before they are committed, so that readers look too early.
    RingBeforeCommit,
    /// A lost ring of a doorbell is repeated neither by the ticker nor by a handler that takes over.
    NoSecondRing,
    /// A client's FIN counts as a received byte.
    FinCounted,
    /// A mutex whose owner died is repaired, but not marked consistent.
    NeverConsistent,
    /// One action of a player in a hundred is rejected for no reason.
    OneActRejected,
}

impl Mutant {
    /// All mutants.
    pub const ALL: [Self; 7] = [
        Self::JournalSkipped,
        Self::CommitInTwoStores,
        Self::RingBeforeCommit,
        Self::NoSecondRing,
        Self::FinCounted,
        Self::NeverConsistent,
        Self::OneActRejected,
    ];

    /// Its name in the environment.
    pub fn name(self) -> &'static str {
        match self {
            Self::JournalSkipped => "journal-skipped",
            Self::CommitInTwoStores => "commit-in-two-stores",
            Self::RingBeforeCommit => "ring-before-commit",
            Self::NoSecondRing => "no-second-ring",
            Self::FinCounted => "fin-counted",
            Self::NeverConsistent => "never-consistent",
            Self::OneActRejected => "one-act-rejected",
        }
    }

    /// Activates the mutant in this process and in those it will fork.
    #[cfg(feature = "mutants")]
    pub fn activate(self) {
        ACTIVE[self as usize].store(true, Ordering::Relaxed);
    }

    /// Whether the mutant is active in this process.
    #[cfg(feature = "mutants")]
    #[inline]
    pub fn is_active(self) -> bool {
        ACTIVE[self as usize].load(Ordering::Relaxed) || from_environment() == Some(self)
    }

    /// Always false: the crate was built without the feature.
    #[cfg(not(feature = "mutants"))]
    #[inline]
    pub const fn is_active(self) -> bool {
        false
    }
}

#[cfg(feature = "mutants")]
static ACTIVE: [AtomicBool; Mutant::ALL.len()] = [const { AtomicBool::new(false) }; Mutant::ALL.len()];

/// The mutant that the environment names.
///
/// # Panics
///
/// If there is none of that name: a test that runs with a mistyped mutant would prove nothing.
#[cfg(feature = "mutants")]
fn from_environment() -> Option<Mutant> {
    static CHOSEN: OnceLock<Option<Mutant>> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("FORKADE_MUTANT").ok()?;
        let found = Mutant::ALL.into_iter().find(|mutant| mutant.name() == name);
        Some(found.unwrap_or_else(|| panic!("FORKADE_MUTANT={name:?} names no mutant")))
    })
}
