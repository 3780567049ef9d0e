//! Tries deaths on copies of the memory.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use forkade::limits::MAILBOX_BYTES;
use shmem::sys::memory::{Mapping, PrivateCopy};

use crate::harness::World;
use crate::sweep::{Act, CAPACITY, Subject};
use forkade::testing::maintenance::check::check_all;
use forkade::testing::maintenance::expiry;
use forkade::testing::maintenance::state_dump;
use forkade::testing::state::connections::Claim;
use forkade::testing::state::layout::Memory;
use forkade::testing::state::players::PlayerRecord;
use forkade::testing::state::rooms::RoomRecord;

pub(crate) const PAGE_BYTES: usize = 4096;

/// In a state dump: a player with a connection.
const PRESENCE_ATTACHED: &str = " presence 1 ";

/// Everything observable.
pub(crate) type Picture = Vec<String>;

/// Tries deaths on a copy of its own.
pub(crate) struct RecoveryChecker<'s> {
    subject: &'s Subject,
    copy: World,
    /// The used part of the mapping.
    parts: Vec<Range<usize>>,
}

/// What the operation does without a death.
pub(crate) struct Undisturbed {
    /// Its final state.
    pub(crate) last: Picture,
    /// Its final state once the ticker has freed closed rooms.
    pub(crate) end: Picture,
    /// The pages that it changes.
    pub(crate) pages: Vec<Range<usize>>,
}

/// The consequences of a death.
pub(crate) struct Examined {
    pub(crate) picture: Picture,
    pub(crate) faults: Vec<String>,
}

impl<'s> RecoveryChecker<'s> {
    pub(crate) fn new(subject: &'s Subject) -> Self {
        let memory = subject.world.memory;
        let copy = World {
            memory: new_memory(),
            games: subject.world.games,
        };
        let connections = u32::try_from(subject.passed.len()).expect("a few");
        let unused = offset(memory, memory.connections.at(connections)).next_multiple_of(PAGE_BYTES);
        let parts = vec![
            0..unused,
            offset(memory, memory.players.at(0))..memory.mapping.bytes(),
        ];
        Self { subject, copy, parts }
    }

    /// Copies the used part.
    pub(crate) fn copy(&self, target: &Mapping, original: &Mapping) {
        for part in &self.parts {
            // SAFETY: the processes that use them are stopped, or killed; a copy's locks are free, or abandoned.
            unsafe { target.copy_from(original, part.clone()) };
        }
    }

    /// Runs the operation on a copy without a death.
    pub(crate) fn undisturbed(&self) -> Undisturbed {
        let original = self.subject.world.memory.mapping;
        self.take_copy(original);
        drop(self.subject.prepare(self.copy)());
        // Counters and marks may change for a moment and change back: they lie in the shared header and at
        // the heads of records.
        let (shared, heads) = (self.parts[0].end, self.heads());
        // These shared tables are large and rarely written.
        let (memory, mailboxes) = (self.copy.memory, &self.copy.memory.directory.mailboxes);
        let (mail, chat) = (offset(memory, mailboxes.at(0)), offset(memory, memory.chat));
        let mail = mail..mail + MAILBOX_BYTES * mailboxes.len() as usize;
        let chat = chat..chat + size_of_val(memory.chat);
        let is_large = |page: &Range<usize>| mail.contains(&page.start) || chat.contains(&page.start);
        let is_head = |page: &Range<usize>| {
            heads
                .iter()
                .any(|head| head.start < page.end && page.start < head.end)
        };
        let changes = |page: &Range<usize>| !are_equal(self.copy.memory.mapping, original, page);
        let may_change =
            |page: &Range<usize>| page.start < shared && !is_large(page) || is_head(page) || changes(page);
        let pages = self.pages().filter(may_change).collect();
        let last = self.look().picture;
        expiry::free_closed_rooms(&mut self.copy.lobby());
        let end = self.look().picture;
        Undisturbed { last, end, pages }
    }

    /// Ensures that only pages that an undisturbed run changes have changed, since only those are compared
    /// every time.
    ///
    /// # Panics
    ///
    /// If another page has changed.
    pub(crate) fn expect_no_change_beyond(&self, pages: &[Range<usize>], live: &Mapping, shadow: &Mapping) {
        for page in self.pages().filter(|page| !pages.contains(page)) {
            assert!(
                are_equal(shadow, live, &page),
                "page {page:x?} has changed, which an undisturbed run leaves alone"
            );
        }
    }

    /// What a death at this moment leads to: for the next owner of each lock, and for the process's own
    /// successor.
    pub(crate) fn examine(&self, original: &Mapping, end: &Picture) -> Examined {
        let examined = catch_unwind(AssertUnwindSafe(|| {
            self.take_copy(original);
            let mut examined = self.look();
            self.take_copy(original);
            examined.faults.extend(self.succeed(end));
            self.take_copy(original);
            examined.faults.extend(self.abandon());
            examined
        }));
        examined.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map_or("", String::as_str);
            Examined {
                picture: Vec::new(),
                faults: vec![format!("the check panics: {text}")],
            }
        })
    }

    /// A copy of the memory as the process's death would leave it.
    fn take_copy(&self, original: &Mapping) {
        self.copy(self.copy.memory.mapping, original);
        abandon(self.copy.memory);
    }

    /// Recovers all locks of the copy, and dumps its state.
    fn look(&self) -> Examined {
        let mut lobby = self.copy.lobby();
        state_dump::recover_all(&mut lobby);
        let faults = check_all(&mut lobby);
        Examined {
            picture: state_dump::dump_all(&mut lobby, &self.subject.passed),
            faults,
        }
    }

    /// A successor recovers what its own records name, continues, and repeats the interrupted step.
    fn succeed(&self, end: &Picture) -> Vec<String> {
        let mut faults = Vec::new();
        match &self.subject.act {
            Act::Lobby(act) => act(&mut self.copy.lobby()),
            Act::Attach => drop(self.subject.attach(&mut self.copy.lobby())),
            Act::Session(act) => {
                let mut lobby = self.copy.lobby();
                let mut session = self.subject.attach(&mut lobby);
                let seen = state_dump::dump_session(&session);
                state_dump::recover_all(session.state);
                let settled = state_dump::dump_session(&session);
                if seen != settled {
                    faults.push(format!(
                        "a successor has seen what was undecided: {}",
                        difference(&seen, &settled)
                    ));
                }
                act(&mut session);
            }
        }
        // If the last player to leave a room died before freeing it, the ticker frees it.
        expiry::free_closed_rooms(&mut self.copy.lobby());
        let looked = self.look();
        faults.extend(
            looked
                .faults
                .into_iter()
                .map(|fault| format!("after a successor: {fault}")),
        );
        if self.subject.repeatable && looked.picture != *end {
            faults.push(format!(
                "a successor comes to another end: {}",
                difference(end, &looked.picture)
            ));
        }
        faults
    }

    /// No handler takes the connection over: the ticker frees what it held, and expires all players without
    /// connection.
    fn abandon(&self) -> Vec<String> {
        let record = self.copy.memory.connections.at(self.subject.slot);
        record.abandon();
        let mut lobby = self.copy.lobby();
        let _ = expiry::free_connection(&mut lobby, self.subject.slot);
        expiry::expire_players(&mut lobby, u64::MAX);
        expiry::free_closed_rooms(&mut lobby);
        let looked = self.look();
        let mut faults = looked.faults;
        let is_left = |line: &&String| line.starts_with("player ") && !line.contains(PRESENCE_ATTACHED);
        faults.extend(looked.picture.iter().filter(is_left).cloned());
        if record.claimed() != Claim::Free {
            faults.push("the slot is not free".into());
        }
        faults
            .into_iter()
            .map(|fault| format!("after the ticker's sweeps: {fault}"))
            .collect()
    }

    fn pages(&self) -> impl Iterator<Item = Range<usize>> {
        self.parts
            .iter()
            .flat_map(|part| part.clone().step_by(PAGE_BYTES))
            .map(|page| page..page + PAGE_BYTES)
    }

    /// Where the fields of player and room records lie, without their rings, logs and states.
    fn heads(&self) -> Vec<Range<usize>> {
        let memory = self.copy.memory;
        let player = |record: &'static PlayerRecord| offset(memory, record)..offset(memory, &record.input);
        let room = |record: &'static RoomRecord| {
            let log = offset(memory, &record.log);
            [
                offset(memory, record)..offset(memory, &record.states),
                log..log + PAGE_BYTES,
            ]
        };
        let chat = offset(memory, memory.chat)..offset(memory, &memory.chat.log) + PAGE_BYTES;
        let players = memory.players.iter().map(|(_, record)| player(record));
        players
            .chain(memory.rooms.iter().flat_map(|(_, record)| room(record)))
            .chain([chat])
            .collect()
    }
}

/// The lines that only one of the two contains.
pub(crate) fn difference(one: &Picture, other: &Picture) -> String {
    let only = |these: &Picture, those: &Picture| {
        these
            .iter()
            .filter(|line| !those.contains(line))
            .cloned()
            .collect::<Vec<_>>()
            .join("\n    ")
    };
    format!("\n  - {}\n  + {}", only(one, other), only(other, one))
}

/// Offset of a record in the mapping.
fn offset<R>(memory: &Memory, record: &'static R) -> usize {
    memory.mapping.offset_of(std::ptr::from_ref(record) as usize)
}

pub(crate) fn new_memory() -> &'static Memory {
    Memory::zeroed(CAPACITY).expect("memory for a copy")
}

/// Whether a page is the same in both mappings.
pub(crate) fn are_equal(one: &Mapping, other: &Mapping, page: &Range<usize>) -> bool {
    // SAFETY: the processes that use them are stopped.
    unsafe { one.equals(other, page.clone()) }
}

/// Leaves every lock of a copy as its holder's death would.
pub(crate) fn abandon(copy: &Memory) {
    // SAFETY: the memory is a copy, in which no lock is held by this process.
    copy.abandon_copy(&unsafe { PrivateCopy::new() });
}
