//! Where every record lies in the shared mapping, and how the mapping is created.
//!
//! ```text
//! header │ chat │ directory: lobby lock, identities, room entries, name buckets, mailboxes │ connections │ players │ rooms
//! ```
//!
//! The [header](crate::state::header) is read without a lock. The directory is one region under the lobby's lock. The
//! lobby's chat and every player and room record start with a lock of their own. What one process touches lies
//! together; untouched records cost no memory.

use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::limits::CONNECTIONS_PER_KEEPER_MAX;
use crate::state::chat::ChatRecord;
use crate::state::connections::{Claim, ConnectionRecord, Kind};
use crate::state::directory::{Directory, DirectoryRecord, Identity, RoomEntry};
use crate::state::header::{Header, KeeperSlot};
use crate::state::mailbox::Mailbox;
use crate::state::players::PlayerRecord;
use crate::state::rooms::RoomRecord;
use shmem::lock::Lock;
use shmem::sys::clock::now_ms;
use shmem::sys::memory::{Guarded, Mapping};
use shmem::table::{LayoutPlan, Table};
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
    /// Keepers, with [`CONNECTIONS_PER_KEEPER_MAX`] connections each.
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
            Self::Room(index) => write!(formatter, "room {index}"),
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
    /// Players.
    pub players: Table<PlayerRecord>,
    /// Rooms.
    pub rooms: Table<RoomRecord>,
    /// The lobby's chat.
    pub chat: &'static ChatRecord,
}

impl Memory {
    /// Bytes of virtual memory that the capacity needs.
    pub fn bytes_needed(capacity: Capacity) -> usize {
        Plan::new(capacity).bytes
    }

    /// Creates the memory of a new server. Call it before the first fork.
    ///
    /// # Errors
    ///
    /// Those of [`Mapping::create`].
    pub fn create(capacity: Capacity) -> std::io::Result<&'static Self> {
        let plan = Plan::new(capacity);
        let memory = Self::from_mapping(Mapping::create("forkade", plan.bytes)?, capacity);
        let header = memory.header;
        header.layout_hash.store(plan.hash, Ordering::Relaxed);
        header.started_at_ms.store(now_ms(), Ordering::Relaxed);
        header.supervisor_pid.store(std::process::id(), Ordering::Relaxed);
        memory.directory.prepare(plan.directory_bytes());
        memory.chat.lock().prepare();
        Ok(memory)
    }

    /// The [`Header::layout_hash`] that this program writes for the capacity.
    pub fn layout_hash(capacity: Capacity) -> u64 {
        Plan::new(capacity).hash
    }

    /// Opens the memory of a running server, for a program that continues it.
    ///
    /// # Errors
    ///
    /// The server has another capacity, or its program uses another layout.
    pub fn open(mapping: &'static Mapping, capacity: Capacity) -> std::io::Result<&'static Self> {
        let plan = Plan::new(capacity);
        if mapping.bytes() < plan.bytes {
            return Err(std::io::Error::other("it is smaller than this program's"));
        }
        let header: &Header = mapping.record(plan.header);
        if header.layout_hash.load(Ordering::Relaxed) != plan.hash {
            return Err(std::io::Error::other("it is laid out otherwise"));
        }
        Ok(Self::from_mapping(mapping, capacity))
    }

    /// Maps the tables onto a mapping that was created for the same capacity.
    pub fn from_mapping(mapping: &'static Mapping, capacity: Capacity) -> &'static Self {
        let plan = Plan::new(capacity);
        let connections = connections_of(capacity);
        Box::leak(Box::new(Self {
            mapping,
            header: mapping.record(plan.header),
            directory: Directory {
                record: mapping.record(plan.directory),
                identities: LayoutPlan::table(mapping, plan.identities, capacity.players),
                rooms: LayoutPlan::table(mapping, plan.room_entries, capacity.rooms),
                name_buckets: LayoutPlan::table(mapping, plan.name_buckets, name_buckets_of(capacity)),
                mailboxes: LayoutPlan::table(mapping, plan.mailboxes, capacity.players),
            },
            connections: LayoutPlan::table(mapping, plan.connections, connections),
            players: LayoutPlan::table(mapping, plan.players, capacity.players),
            rooms: LayoutPlan::table(mapping, plan.rooms, capacity.rooms),
            chat: mapping.record(plan.chat),
        }))
    }

    /// Attaches the calling process. Call it once per process, after its fork.
    pub fn attach(&self) -> Attachment {
        Attachment::new(
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

    fn offset_of(&self, record: &'static impl Record) -> u64 {
        self.mapping.offset_of(record.guarded_addresses().start) as u64
    }

    /// In a private copy of a server's mapping: leaves every lock as its holder's death would.
    #[doc(hidden)]
    pub fn abandon_copy(&self) {
        let players = self.players.iter().map(|(_, player)| player.lock());
        let rooms = self.rooms.iter().map(|(_, room)| room.lock());
        let others = [self.directory.record.lock(), self.chat.lock()];
        for lock in players.chain(rooms).chain(others) {
            lock.abandon_copy();
        }
    }

    /// The connection slots of a keeper.
    pub fn connections_of_keeper(&self, keeper: u32) -> Range<u32> {
        let first = keeper * CONNECTIONS_PER_KEEPER_MAX;
        first..(first + CONNECTIONS_PER_KEEPER_MAX).min(self.connections.len())
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
        let keepers = 0..self.connections.len().div_ceil(CONNECTIONS_PER_KEEPER_MAX);
        keepers
            .flat_map(|keeper| self.touched_connections_of_keeper(keeper))
            .map(|index| (index, self.connections.at(index)))
    }

    /// The index of the connection's keeper.
    pub fn keeper_index_of(&self, connection: u32) -> u32 {
        connection / CONNECTIONS_PER_KEEPER_MAX
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
    capacity.keepers * CONNECTIONS_PER_KEEPER_MAX
}

fn name_buckets_of(capacity: Capacity) -> u32 {
    capacity.players.next_power_of_two()
}

/// Where each table lies. What every process touches comes first, and small tables before large ones: each 2 MiB
/// region that a process touches costs it a page table.
struct Plan {
    header: usize,
    chat: usize,
    directory: usize,
    identities: usize,
    room_entries: usize,
    name_buckets: usize,
    mailboxes: usize,
    connections: usize,
    players: usize,
    rooms: usize,
    bytes: usize,
    hash: u64,
}

impl Plan {
    fn new(capacity: Capacity) -> Self {
        let mut plan = LayoutPlan::default();
        let mut places = Self {
            header: plan.reserve::<Header>(1),
            chat: plan.reserve::<ChatRecord>(1),
            directory: plan.reserve::<DirectoryRecord>(1),
            identities: plan.reserve::<Identity>(capacity.players),
            room_entries: plan.reserve::<RoomEntry>(capacity.rooms),
            name_buckets: plan.reserve::<Guarded<u32>>(name_buckets_of(capacity)),
            mailboxes: plan.reserve::<Mailbox>(capacity.players),
            connections: plan.reserve::<ConnectionRecord>(connections_of(capacity)),
            players: plan.reserve::<PlayerRecord>(capacity.players),
            rooms: plan.reserve::<RoomRecord>(capacity.rooms),
            bytes: plan.bytes(),
            hash: 0,
        };
        places.hash = places.layout_hash(capacity);
        places
    }

    /// The directory's region ends where the connections start.
    fn directory_bytes(&self) -> usize {
        self.connections - self.directory
    }

    /// FNV-1a over the fields of every record, the position of every table, and the capacity. Equal layouts have
    /// equal hashes.
    fn layout_hash(&self, capacity: Capacity) -> u64 {
        let records = [
            Header::FINGERPRINT,
            DirectoryRecord::FINGERPRINT,
            Identity::FINGERPRINT,
            RoomEntry::FINGERPRINT,
            Mailbox::FINGERPRINT,
            ConnectionRecord::FINGERPRINT,
            PlayerRecord::FINGERPRINT,
            RoomRecord::FINGERPRINT,
            ChatRecord::FINGERPRINT,
        ];
        let sizes = [
            size_of::<Header>(),
            size_of::<DirectoryRecord>(),
            size_of::<Identity>(),
            size_of::<RoomEntry>(),
            size_of::<Mailbox>(),
            size_of::<ConnectionRecord>(),
            size_of::<PlayerRecord>(),
            size_of::<RoomRecord>(),
            size_of::<ChatRecord>(),
            capacity.players as usize,
            capacity.rooms as usize,
            capacity.keepers as usize,
        ];
        let places = [
            self.header,
            self.chat,
            self.directory,
            self.identities,
            self.room_entries,
            self.name_buckets,
            self.mailboxes,
            self.connections,
            self.players,
            self.rooms,
        ];
        let text = records.iter().flat_map(|fields| fields.bytes());
        let numbers = sizes.iter().chain(&places).flat_map(|size| size.to_le_bytes());
        text.chain(numbers).fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        })
    }
}
