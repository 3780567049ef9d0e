//! One sweep: a process is stopped after every store of an operation into the shared memory, and its death there is
//! tried.

use std::ops::{Range, RangeInclusive};
use std::rc::Rc;

use forkade::testing::maintenance::state_dump;
use forkade::testing::session::Session;
use forkade::testing::session::transport::ByteCounts;
use forkade::testing::state::handle::StateHandle;
use forkade::testing::state::layout::{Capacity, Memory};

use crate::harness::World;
use crate::recovery_checker::{
    Examined, Picture, RecoveryChecker, abandon, are_equal, difference, new_memory,
};
use crate::stepper::{StepError, Stepper};

/// The smallest capacity: all of it is copied for every examined state.
pub(crate) const CAPACITY: Capacity = Capacity {
    players: 4,
    rooms: 2,
    keepers: 1,
};

/// Stores between two checks of the pages that must not change.
const STORES_PER_FULL_LOOK: u64 = 64;

/// The step that is swept.
pub(crate) enum Act {
    /// A handler attaches to the connection.
    Attach,
    /// A handler of the connection does this.
    Session(Rc<dyn Fn(&mut Session<'_>)>),
    /// The ticker, or an operator's console, does this.
    Lobby(Rc<dyn Fn(&mut StateHandle)>),
}

impl Act {
    pub(crate) fn session(act: impl Fn(&mut Session<'_>) + 'static) -> Self {
        Self::Session(Rc::new(act))
    }

    pub(crate) fn lobby(act: impl Fn(&mut StateHandle) + 'static) -> Self {
        Self::Lobby(Rc::new(act))
    }
}

/// A lobby, and the step that is about to happen.
pub(crate) struct Subject {
    pub(crate) world: World,
    /// Slot of the connection that it concerns.
    pub(crate) slot: u32,
    /// Bytes counted on each connection, from the first slot on.
    pub(crate) passed: Vec<ByteCounts>,
    pub(crate) act: Act,
    /// Whether the handler's attaching is swept, too.
    pub(crate) attach_is_stepped: bool,
    /// A successor that repeats it reaches the same final state.
    pub(crate) repeatable: bool,
}

impl Subject {
    /// Prepares everything up to the first instruction of the sweep.
    pub(crate) fn prepare<'s>(&'s self, world: World) -> Box<dyn FnOnce() -> Option<Session<'static>> + 's> {
        let lobby = world.leaked_lobby();
        match &self.act {
            Act::Attach => Box::new(move || Some(self.attach(lobby))),
            Act::Session(act) if self.attach_is_stepped => Box::new(move || {
                let mut session = self.attach(lobby);
                act(&mut session);
                Some(session)
            }),
            Act::Session(act) => {
                let mut session = self.attach(lobby);
                Box::new(move || {
                    act(&mut session);
                    Some(session)
                })
            }
            Act::Lobby(act) => Box::new(move || {
                act(lobby);
                None
            }),
        }
    }

    pub(crate) fn attach<'l>(&self, lobby: &'l mut StateHandle) -> Session<'l> {
        let (session, plausible) = Session::attach(lobby, self.slot, self.passed[self.slot as usize]);
        plausible.expect("a successor finds the kernel's counts plausible");
        session
    }
}

/// The findings of a sweep.
#[derive(Default)]
pub(crate) struct Findings {
    /// Instructions that stored into the memory.
    pub(crate) stores: u64,
    /// States in which a death was tried: the first, and those after instructions that changed the memory.
    pub(crate) states: u64,
    pub(crate) violations: Vec<String>,
    /// The memory just before each observable commit, when the journal is fullest.
    pub(crate) undecided: Vec<&'static Memory>,
}

/// Steps through the operation. `expected` is its number of observable states, the first and the last
/// included; `sabotage` is called in the process that is stepped through.
///
/// # Errors
///
/// If the process cannot be stepped through, or ends before the operation does.
pub(crate) fn sweep(
    subject: &Subject,
    expected: RangeInclusive<usize>,
    sabotage: fn(),
) -> Result<Findings, StepError> {
    let live = subject.world.memory.mapping;
    let checker = RecoveryChecker::new(subject);
    let undisturbed = checker.undisturbed();
    let (shadow, before) = (new_memory().mapping, new_memory().mapping);
    let mut stepper = Stepper::start(subject.world.memory, || {
        sabotage();
        subject.prepare(subject.world)
    })?;
    checker.copy(shadow, live);
    checker.copy(before, live);
    let (mut findings, mut seen) = (Findings::default(), Vec::new());
    findings.enter(
        &checker.examine(shadow, &undisturbed.end),
        &mut seen,
        *expected.end(),
    );
    while stepper.step()? {
        findings.stores += 1;
        if findings.stores % STORES_PER_FULL_LOOK == 0 {
            checker.expect_no_change_beyond(&undisturbed.pages, live, shadow);
        }
        let has_changed = |page: &&Range<usize>| !are_equal(shadow, live, page);
        let changed: Vec<_> = undisturbed.pages.iter().filter(has_changed).cloned().collect();
        if changed.is_empty() {
            continue;
        }
        for page in &changed {
            // SAFETY: the process is stopped, and no process holds a lock in a shadow.
            unsafe { shadow.copy_from(live, page.clone()) };
        }
        if findings.enter(
            &checker.examine(shadow, &undisturbed.end),
            &mut seen,
            *expected.end(),
        ) {
            let undecided = new_memory();
            checker.copy(undecided.mapping, before);
            findings.undecided.push(undecided);
        }
        for page in &changed {
            // SAFETY: no process uses either.
            unsafe { before.copy_from(shadow, page.clone()) };
        }
    }
    checker.expect_no_change_beyond(&undisturbed.pages, live, shadow);
    if !expected.contains(&seen.len()) {
        findings
            .violations
            .push(format!("{} states were seen, not {expected:?}", seen.len()));
    }
    if subject.repeatable && seen.last() != Some(&undisturbed.last) {
        findings
            .violations
            .push("the operation comes to another end than on a copy".into());
    }
    Ok(findings)
}

/// Steps through a successor's work on a memory that [`sweep`] has found just before a commit: it takes the
/// lock that its predecessor left, and rolls back. It may die in turn at every instruction of that.
/// `pictures` is the number of states that the operation would still have shown.
///
/// If a transaction of the operation was committed before, other processes can find the state in between.
/// Then the rest of the operation is swept as well. (Otherwise the rest is the whole operation, which is
/// swept anyway.)
///
/// # Errors
///
/// Those of [`sweep`].
pub(crate) fn sweep_recovery(
    subject: &Subject,
    undecided: &'static Memory,
    pictures: usize,
    is_first: bool,
) -> Result<Findings, StepError> {
    let world = World {
        memory: undecided,
        games: subject.world.games,
    };
    abandon(undecided);
    let goes_on = subject.repeatable && !is_first;
    let act = match &subject.act {
        Act::Session(act) if goes_on => Act::Session(Rc::clone(act)),
        Act::Lobby(act) if goes_on => Act::Lobby(Rc::clone(act)),
        Act::Session(_) => Act::Attach,
        Act::Attach | Act::Lobby(_) => Act::lobby(|lobby| {
            state_dump::recover_all(lobby);
        }),
    };
    let (slot, passed) = (subject.slot, subject.passed.clone());
    let successor = Subject {
        world,
        slot,
        passed,
        act,
        attach_is_stepped: true,
        repeatable: true,
    };
    sweep(&successor, 1..=if goes_on { pictures } else { 1 }, || {})
}

impl Findings {
    /// Records the consequences of a death in the present state. Returns whether it leads to a new observable
    /// state.
    fn enter(&mut self, examined: &Examined, seen: &mut Vec<Picture>, pictures_max: usize) -> bool {
        self.states += 1;
        let place = format!("after store {}", self.stores);
        self.violations
            .extend(examined.faults.iter().map(|fault| format!("{place}: {fault}")));
        let Some(last) = seen.last() else {
            seen.push(examined.picture.clone());
            return false;
        };
        if *last == examined.picture {
            return false;
        }
        if seen.contains(&examined.picture) {
            self.violations
                .push(format!("{place}: a former state has come back"));
        } else if seen.len() >= pictures_max {
            self.violations.push(format!(
                "{place}: a state too many: {}",
                difference(last, &examined.picture)
            ));
        }
        seen.push(examined.picture.clone());
        true
    }
}
