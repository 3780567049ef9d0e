//! Where every record lies in the shared mapping, and how the mapping is created.
//!
//! ```text
//! header │ chat │ incidents │ sources │ directory: lobby lock, identities, room entries, bits of rooms, name buckets,
//! mailboxes │ connections │ players │ rooms │ long openings
//! ```
//!
//! The [header](crate::state::header) is read without a lock. The directory is one region under the lobby's lock. The
//! lobby's chat and every player and room record start with a lock of their own. What one process touches lies
//! together; untouched records cost no memory.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use forkade_protocol::Phase as MatchPhase;

use crate::limits::{CONNECTION_SLOTS_PER_KEEPER, SOURCE_SETS};
use crate::state::chat::ChatRecord;
use crate::state::connections::{Claim, ConnectionRecord, Kind, LongOpening, Phase};
use crate::state::directory::{Directory, DirectoryRecord, Identity, Presence, RoomEntry};
use crate::state::hang_kind::HangKind;
use crate::state::header::{Header, KeeperSlot, UpgradeStage};
use crate::state::incidents::{IncidentKind, Incidents};
use crate::state::mailbox::Mailbox;
use crate::state::players::PlayerRecord;
use crate::state::room_label::room_number;
use crate::state::rooms::{RoomLife, RoomRecord, raw_phase};
use crate::state::sources::{SourceSet, Sources, SourcesHead};
use shmem::lock::Lock;
use shmem::sys::clock::now_ms;
#[cfg(any(test, feature = "testing"))]
use shmem::sys::memory::PrivateCopy;
use shmem::sys::memory::{Guarded, LayoutPlan, Mapping, Place, ReadOnlyMapping};
use shmem::table::Table;
use shmem::transaction::{Attachment, Record};

/// A reference to a slot's present connection.
pub type ConnectionRef = shmem::table::Reference<ConnectionRecord>;
/// A reference to a player.
pub type PlayerRef = shmem::table::Reference<PlayerRecord>;
/// A reference to a room.
pub type RoomRef = shmem::table::Reference<RoomRecord>;

/// How many records of each kind the memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Players, connected or in their grace.
    pub players: u32,
    /// Rooms.
    pub rooms: u32,
    /// Keepers, with [`CONNECTION_SLOTS_PER_KEEPER`] connection slots each.
    pub keepers: u32,
}

/// What a lock guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockOwner {
    /// The directory.
    Lobby,
    /// The lobby's chat.
    Chat,
    /// The player record with this index.
    Player(u32),
    /// The room record with this index.
    Room(u32),
}

impl std::fmt::Display for LockOwner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lobby => formatter.write_str("the lobby"),
            Self::Chat => formatter.write_str("the lobby's chat"),
            Self::Player(index) => write!(formatter, "player {index}"),
            Self::Room(index) => write!(formatter, "room {}", room_number(*index)),
        }
    }
}

/// The shared memory of a server.
pub struct Memory {
    /// The mapping.
    pub mapping: &'static Mapping,
    /// What is read without a lock.
    pub header: &'static Header,
    /// What the lobby's lock guards.
    pub directory: Directory,
    /// Connections, in a fixed range of slots per keeper.
    pub connections: Table<ConnectionRecord>,
    /// The rest of the connections' first bytes, by the same index.
    pub long_openings: Table<LongOpening>,
    /// Players.
    pub players: Table<PlayerRecord>,
    /// Rooms.
    pub rooms: Table<RoomRecord>,
    /// The lobby's chat.
    pub chat: &'static ChatRecord,
    /// The last incidents.
    pub incidents: &'static Incidents,
    /// The addresses that clients connect from.
    pub sources: Sources,
}

impl Memory {
    /// Bytes of virtual memory that the capacity needs.
    pub fn bytes_needed(capacity: Capacity) -> usize {
        Plan::new(capacity).layout.bytes()
    }

    /// Creates the memory of a new server. Call it before the first fork.
    ///
    /// # Errors
    ///
    /// Those of [`Mapping::create`].
    pub fn create(capacity: Capacity) -> std::io::Result<&'static Self> {
        let plan = Plan::new(capacity);
        let memory = plan.over(Mapping::create("forkade", &plan.layout)?);
        let header = memory.header;
        header.started_at_ms.store(now_ms(), Ordering::Relaxed);
        header.supervisor_pid.store(std::process::id(), Ordering::Relaxed);
        memory.directory.prepare(plan.directory_bytes());
        memory.chat.lock().prepare();
        memory.sources.prepare();
        header.ipv4_source_prefix.store(32, Ordering::Relaxed);
        header.ipv6_source_prefix.store(64, Ordering::Relaxed);
        Ok(memory)
    }

    /// The hash by which programs tell whether they lay out the memory of this capacity alike.
    pub fn layout_hash(capacity: Capacity) -> u64 {
        Plan::new(capacity).layout.hash()
    }

    /// Opens the memory of a running server, for a program that continues it.
    ///
    /// # Errors
    ///
    /// The server has another capacity, or its program uses another layout.
    pub fn open(descriptor: OwnedFd, capacity: Capacity) -> std::io::Result<&'static Self> {
        let plan = Plan::new(capacity);
        Ok(plan.over(Mapping::open(descriptor, &plan.layout)?))
    }

    /// Checks, without changing anything, whether [`open`](Self::open) could open the memory.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn check(descriptor: OwnedFd, capacity: Capacity) -> std::io::Result<()> {
        ReadOnlyMapping::open(descriptor)?.check(&Plan::new(capacity).layout)
    }

    /// Memory of zeroes, to be overwritten with a copy of a server's.
    ///
    /// # Errors
    ///
    /// Those of [`Mapping::create`].
    #[doc(hidden)]
    #[cfg(any(test, feature = "testing"))]
    pub fn zeroed(capacity: Capacity) -> std::io::Result<&'static Self> {
        let plan = Plan::new(capacity);
        Ok(plan.over(Mapping::create("forkade-copy", &plan.layout)?))
    }

    /// Attaches the calling process. Call it once per process, after its fork.
    ///
    /// # Panics
    ///
    /// If the process is attached already.
    pub fn attach(&self) -> Attachment {
        Attachment::new(
            self.mapping,
            &self.header.recoveries_total,
            &self.header.hang_reports,
        )
    }

    /// For tests that imitate several processes in one: an attachment as if of another process.
    #[doc(hidden)]
    #[cfg(any(test, feature = "testing"))]
    pub fn imitate_attachment(&self) -> Attachment {
        Attachment::imitate(
            self.mapping,
            &self.header.recoveries_total,
            &self.header.hang_reports,
        )
    }

    /// Decides the transaction that a dead process left unfinished under the lock at `offset`, as noted in a record
    /// that it owned.
    pub fn recover(&self, attachment: &mut Attachment, offset: u64) {
        if offset == self.offset_of(self.directory.record) {
            attachment.recover(self.directory.record);
        } else if offset == self.offset_of(self.chat) {
            attachment.recover(self.chat);
        } else if let Some(index) = self.players.index_of_offset(offset) {
            attachment.recover(self.players.at(index));
        } else if let Some(index) = self.rooms.index_of_offset(offset) {
            attachment.recover(self.rooms.at(index));
        } else {
            assert_eq!(
                offset, 0,
                "a noted lock is the lobby's, the chat's, a player's or a room's"
            );
        }
    }

    /// The lock of the record at `offset`, and what it guards; `None` if there is none.
    pub fn lock_at(&self, offset: u64) -> Option<(&'static Lock, LockOwner)> {
        if offset == self.offset_of(self.directory.record) {
            Some((self.directory.record.lock(), LockOwner::Lobby))
        } else if offset == self.offset_of(self.chat) {
            Some((self.chat.lock(), LockOwner::Chat))
        } else if let Some(index) = self.players.index_of_offset(offset) {
            Some((self.players.at(index).lock(), LockOwner::Player(index)))
        } else {
            let index = self.rooms.index_of_offset(offset)?;
            Some((self.rooms.at(index).lock(), LockOwner::Room(index)))
        }
    }

    /// Where the record lies in the mapping, in bytes: the number of its lock.
    pub(crate) fn offset_of(&self, record: &'static impl Record) -> u64 {
        self.mapping.offset_of(record.guarded_addresses().start) as u64
    }

    /// In a private copy of a server's mapping: leaves every lock as its holder's death would.
    #[doc(hidden)]
    #[cfg(any(test, feature = "testing"))]
    pub fn abandon_copy(&self, copy: &PrivateCopy) {
        let players = self.players.iter().map(|(_, player)| player.lock());
        let rooms = self.rooms.iter().map(|(_, room)| room.lock());
        let others = [self.directory.record.lock(), self.chat.lock()];
        for lock in players.chain(rooms).chain(others) {
            lock.abandon_copy(copy);
        }
    }

    /// The connection slots of a keeper.
    pub fn connections_of_keeper(&self, keeper: u32) -> Range<u32> {
        let first = keeper * CONNECTION_SLOTS_PER_KEEPER;
        first..(first + CONNECTION_SLOTS_PER_KEEPER).min(self.connections.len())
    }

    /// The keeper's slots that were ever claimed.
    pub fn touched_connections_of_keeper(&self, keeper: u32) -> Range<u32> {
        let all = self.connections_of_keeper(keeper);
        all.start
            ..all
                .end
                .min(all.start + self.header.keepers[keeper as usize].slots_touched())
    }

    /// The connection slots that were ever claimed, with their indices.
    pub fn touched_connections(&self) -> impl Iterator<Item = (u32, &'static ConnectionRecord)> {
        let keepers = 0..self.connections.len().div_ceil(CONNECTION_SLOTS_PER_KEEPER);
        keepers
            .flat_map(|keeper| self.touched_connections_of_keeper(keeper))
            .map(|index| (index, self.connections.at(index)))
    }

    /// The index of the connection's keeper.
    pub fn keeper_index_of(&self, connection: u32) -> u32 {
        connection / CONNECTION_SLOTS_PER_KEEPER
    }

    /// The slot of the connection's keeper.
    pub fn keeper_of(&self, connection: u32) -> &'static KeeperSlot {
        &self.header.keepers[self.keeper_index_of(connection) as usize]
    }

    /// By kind: connections of the keeper's slots that live on though the keeper that held them is dead.
    pub fn orphaned_counts(&self, keeper: u32) -> [u16; Kind::COUNT] {
        let epoch = self.header.keepers[keeper as usize].epoch.load(Ordering::Acquire);
        let mut orphaned_counts = [0; Kind::COUNT];
        // The first keeper has no predecessor.
        if epoch > 1 {
            let records = self
                .touched_connections_of_keeper(keeper)
                .map(|index| self.connections.at(index));
            for record in
                records.filter(|record| record.claimed() == Claim::Held && record.keeper_epoch() != epoch)
            {
                orphaned_counts[record.kind() as usize] += 1;
            }
        }
        orphaned_counts
    }

    /// How many connections of the kind there are.
    pub fn open_connections(&self, kind: Kind) -> u64 {
        self.header
            .keepers
            .iter()
            .map(|keeper| u64::from(keeper.open(kind)))
            .sum()
    }
}

fn connections_of(capacity: Capacity) -> u32 {
    capacity.keepers * CONNECTION_SLOTS_PER_KEEPER
}

fn name_buckets_of(capacity: Capacity) -> u32 {
    capacity.players.next_power_of_two()
}

/// A version, counted by hand, for changes of the memory's meaning that the hash of its layout cannot see: a field that
/// keeps its name and type but gets another unit, for example. A program of another version must not continue the
/// server.
const MEMORY_VERSION: u64 = 1;

/// Where each table lies. What every process touches comes first, and small tables before large ones: each 2 MiB
/// region that a process touches costs it a page table.
struct Plan {
    header: Place<Header>,
    chat: Place<ChatRecord>,
    incidents: Place<Incidents>,
    sources: Place<SourcesHead>,
    source_sets: Place<SourceSet>,
    connection_sources: Place<AtomicU64>,
    player_sources: Place<AtomicU64>,
    directory: Place<DirectoryRecord>,
    identities: Place<Identity>,
    room_entries: Place<RoomEntry>,
    visited: Place<AtomicU64>,
    name_buckets: Place<Guarded<u32>>,
    mailboxes: Place<Mailbox>,
    connections: Place<ConnectionRecord>,
    players: Place<PlayerRecord>,
    rooms: Place<RoomRecord>,
    long_openings: Place<LongOpening>,
    layout: LayoutPlan,
}

impl Plan {
    fn new(capacity: Capacity) -> Self {
        let mut layout = LayoutPlan::default();
        layout.include("memory version", MEMORY_VERSION);
        for (name, number) in stored_numbers() {
            layout.include(name, number);
        }
        Self {
            header: layout.reserve(1),
            chat: layout.reserve(1),
            incidents: layout.reserve(1),
            sources: layout.reserve(1),
            source_sets: layout.reserve(SOURCE_SETS),
            connection_sources: layout.reserve(connections_of(capacity)),
            player_sources: layout.reserve(capacity.players),
            directory: layout.reserve(1),
            identities: layout.reserve(capacity.players),
            room_entries: layout.reserve(capacity.rooms),
            visited: layout.reserve(capacity.rooms.div_ceil(u64::BITS)),
            name_buckets: layout.reserve(name_buckets_of(capacity)),
            mailboxes: layout.reserve(capacity.players),
            connections: layout.reserve(connections_of(capacity)),
            players: layout.reserve(capacity.players),
            rooms: layout.reserve(capacity.rooms),
            long_openings: layout.reserve(connections_of(capacity)),
            layout,
        }
    }

    /// The tables in a mapping that was created for this plan.
    fn over(&self, mapping: &'static Mapping) -> &'static Memory {
        Box::leak(Box::new(Memory {
            mapping,
            header: mapping.record(self.header),
            directory: Directory {
                record: mapping.record(self.directory),
                identities: Table::new(mapping, self.identities),
                rooms: Table::new(mapping, self.room_entries),
                name_buckets: Table::new(mapping, self.name_buckets),
                mailboxes: Table::new(mapping, self.mailboxes),
                visited: Table::new(mapping, self.visited),
            },
            connections: Table::new(mapping, self.connections),
            players: Table::new(mapping, self.players),
            rooms: Table::new(mapping, self.rooms),
            long_openings: Table::new(mapping, self.long_openings),
            chat: mapping.record(self.chat),
            incidents: mapping.record(self.incidents),
            sources: Sources {
                head: mapping.record(self.sources),
                sets: Table::new(mapping, self.source_sets),
                of_connections: Table::new(mapping, self.connection_sources),
                of_players: Table::new(mapping, self.player_sources),
            },
        }))
    }

    /// The directory's region ends where the connections start.
    fn directory_bytes(&self) -> usize {
        self.connections.offset() - self.directory.offset()
    }
}

/// The numbers of states and kinds, as they are stored.
fn stored_numbers() -> impl Iterator<Item = (&'static str, u64)> {
    let narrow = [
        ("claim free", Claim::Free as u32),
        ("claim held", Claim::Held as u32),
        ("claim abandoned", Claim::Abandoned as u32),
        ("kind game", Kind::Game as u32),
        ("kind console", Kind::Console as u32),
        ("connection in handshake", Phase::HANDSHAKE.raw()),
        ("connection resuming", Phase::RESUMING.raw()),
        ("connection open", Phase::OPEN.raw()),
        ("connection closing", Phase::CLOSING.raw()),
        ("connection done", Phase::DONE.raw()),
        ("player free", Presence::FREE.raw()),
        ("player attached", Presence::ATTACHED.raw()),
        ("player detached", Presence::DETACHED.raw()),
        ("player expiring", Presence::EXPIRING.raw()),
        ("room closed", RoomLife::CLOSED.raw()),
        ("room open", RoomLife::OPEN.raw()),
        ("room closing", RoomLife::CLOSING.raw()),
        ("match waiting", raw_phase(MatchPhase::Waiting)),
        ("match playing", raw_phase(MatchPhase::Playing)),
        ("match finished", raw_phase(MatchPhase::Finished)),
        ("upgrade none", UpgradeStage::None as u32),
        ("upgrade checking", UpgradeStage::Checking as u32),
        ("upgrade refused", UpgradeStage::Refused as u32),
        ("upgrade replacing", UpgradeStage::Replacing as u32),
        ("upgrade done", UpgradeStage::Done as u32),
        ("upgrade stalled", UpgradeStage::Stalled as u32),
        ("hang looping", HangKind::Looping.number()),
        ("hang stopped", HangKind::Stopped.number()),
        ("hang asleep", HangKind::Asleep.number()),
    ];
    let incidents = IncidentKind::ALL.map(|kind| (kind.name(), kind as u64));
    narrow
        .into_iter()
        .map(|(name, number)| (name, number.into()))
        .chain(incidents)
}
