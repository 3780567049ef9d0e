//! What lies where in the shared mapping, and how it is made.
//!
//! ```text
//! header │ directory: lobby lock, identities, room entries, name buckets, mailboxes │ connections │ players │ rooms │ chat
//! ```
//!
//! The directory is one region under the lobby's lock. The lobby's chat and each player and room record begin with
//! their own lock. What one process
//! touches lies together, and untouched records cost no memory.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::blame::GameNote;
use super::chat::ChatRecord;
use super::connections::{Claim, ConnectionRecord, Kind};
use super::directory::{Directory, DirectoryRecord, Identity, RoomEntry};
use super::mailbox::Mailbox;
use super::players::PlayerRecord;
use super::rooms::RoomRecord;
use crate::games::length_that_fits;
use crate::limits::{CONNECTIONS_PER_KEEPER_MAX, KEEPERS_MAX, ROLES_MAX, UPGRADE_TEXT_BYTES};
use crate::shared_record;
use crate::shm::alarm::Alarm;
use crate::shm::lock::Lock;
use crate::shm::pulse::Pulse;
use crate::shm::table::{LayoutPlan, Table};
use crate::shm::transaction::{Hand, Record};
use crate::sys::clock::{now_ms, now_ns};
use crate::sys::memory::{Guarded, Mapping, SharedBytes};
use crate::sys::process::ProcessId;

/// A reference to a connection's present occupant.
pub type ConnectionRef = crate::shm::table::Reference<ConnectionRecord>;
/// A reference to a player.
pub type PlayerRef = crate::shm::table::Reference<PlayerRecord>;
/// A reference to a room's present life.
pub type RoomRef = crate::shm::table::Reference<RoomRecord>;

shared_record! {
    /// The head of the mapping: what all processes may read at any time, without a lock.
    pub struct Header {
        /// Of the record types and the capacity: a process built otherwise must not touch the mapping.
        pub layout_hash: AtomicU64,
        /// When the server started, in milliseconds of the monotonic clock.
        pub started_at_ms: AtomicU64,
        /// Milliseconds that a disconnected player's seat is kept.
        pub seat_grace_ms: AtomicU64,
        /// Milliseconds that a seat is kept for a player who was invited.
        pub seat_reservation_ms: AtomicU64,
        /// Milliseconds of silence after which a client is taken for gone.
        pub heartbeat_timeout_ms: AtomicU64,
        /// Milliseconds without a key after which somebody in text mode is taken for gone.
        pub text_idle_timeout_ms: AtomicU64,
        /// Milliseconds that a client has to greet.
        pub handshake_timeout_ms: AtomicU64,
        /// Lines that a player may say at once.
        pub chat_burst: AtomicU64,
        /// Lines that a player may say in a minute in the long run; 0: any number.
        pub chat_per_minute: AtomicU64,
        /// Requests that [have their price](super::rate) which a player may make at once.
        pub requests_burst: AtomicU64,
        /// The same in a minute in the long run; 0: any number.
        pub requests_per_minute: AtomicU64,
        /// Nonzero from the moment that the server begins to stop.
        pub stopping: AtomicU32,
        /// Process id of the supervisor.
        pub supervisor_pid: AtomicU32,
        /// Counts the programs that have run this server: up by one with each upgrade in place.
        pub build: AtomicU32,
        /// How far an upgrade has come.
        pub upgrade: UpgradeSlot,
        /// Least important log records that are written, as the number of a [`log::LevelFilter`] + 1; 0 until it is set.
        pub log_level: AtomicU32,
        /// Nonzero once a drain has come to its end: the supervisor is to stop the server.
        pub drained: AtomicU32,
        /// While the server drains: when it ends at the latest, in milliseconds of the monotonic clock (`u64::MAX`: when the last match
        /// has). 0 while it does not.
        pub drain_until_ms: AtomicU64,
        /// Number of the last question for a sign of life: see [`RoleSlot::pong`].
        pub ping: AtomicU64,
        /// The supervisor's answer.
        pub supervisor_pong: Pong,
        /// Connections that were accepted and given to a keeper.
        pub accepted_total: AtomicU64,
        /// Connections that were refused, with a typed error.
        pub refused_total: AtomicU64,
        /// Connections that were accepted but lost before a handler had them: at most so many, since who died over one may have been
        /// done with it.
        pub lost_before_greeting_total: AtomicU64,
        /// 1 while the listener accepts a connection, or has one that it has not handed on: it would be lost with it.
        pub in_listeners_hands: AtomicU32,
        /// Handlers that were replaced on a living connection.
        pub takeovers_total: AtomicU64,
        /// Transactions of dead processes that were undone or found complete by the next taker of their lock.
        pub recoveries_total: AtomicU64,
        /// Sessions that went on on a new connection.
        pub resumes_total: AtomicU64,
        /// Players who fell out of their room's log and were given a snapshot.
        pub resyncs_total: AtomicU64,
        /// Lines said to the lobby.
        pub lobby_lines_total: AtomicU64,
        /// Lines said to the lobby that were lost on the way to somebody, once for each.
        pub lobby_lines_missed_total: AtomicU64,
        /// Lines said to one player.
        pub whispers_total: AtomicU64,
        /// Connections that were closed because their handler kept dying in the same frame.
        pub blamed_total: AtomicU64,
        /// Bells that the ticker rang again.
        pub bells_rung_again_total: AtomicU64,
        /// Log records that were dropped because nobody read stderr.
        pub log_records_dropped_total: AtomicU64,
        /// Those of them that no later record has reported yet.
        pub log_records_unreported: AtomicU64,
        /// What seems to be stuck.
        pub alarm: Alarm,
        /// What the watchdog has done about it.
        pub watchdog: WatchdogRecord,
        /// Whose game's code the ticker runs.
        pub game_note: GameNote,
        /// Matches that were abandoned because their game had killed several tickers.
        pub rooms_blamed_total: AtomicU64,
        /// The processes that the supervisor forked.
        pub roles: [RoleSlot; ROLES_MAX],
        /// One per keeper.
        pub keepers: [KeeperSlot; KEEPERS_MAX],
    }
}

shared_record! {
    /// How far the last upgrade has come. Only the supervisor writes it.
    pub struct UpgradeSlot {
        /// An [`UpgradeStage`], and in the upper bits how many upgrades were begun.
        state: AtomicU32,
        text_bytes: AtomicU32,
        text: SharedBytes<{ UPGRADE_TEXT_BYTES / 8 }>,
    }
}

/// What an upgrade in place is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum UpgradeStage {
    /// There was none.
    None = 0,
    /// The new program is looking at the memory, without touching it.
    Checking = 1,
    /// The new program will not do; nothing has changed.
    Refused = 2,
    /// The new program runs the supervisor; the other processes are replaced one after another.
    Replacing = 3,
    /// All processes run the new program.
    Done = 4,
    /// As [`Replacing`](Self::Replacing), but a process of the new program does not come up. It is tried again and again, and another
    /// upgrade may be begun.
    Stalled = 5,
}

impl UpgradeSlot {
    /// Which upgrade it is, how far it has come, and what there is to say about it.
    pub fn read(&self) -> (u32, UpgradeStage, String) {
        loop {
            let state = self.state.load(Ordering::Acquire);
            let mut text = [0; UPGRADE_TEXT_BYTES];
            self.text.copy_out(0, &mut text);
            let length = self.text_bytes.load(Ordering::Acquire) as usize;
            if self.state.load(Ordering::Acquire) != state {
                continue;
            }
            let stage = match state & 7 {
                1 => UpgradeStage::Checking,
                2 => UpgradeStage::Refused,
                3 => UpgradeStage::Replacing,
                4 => UpgradeStage::Done,
                5 => UpgradeStage::Stalled,
                _ => UpgradeStage::None,
            };
            let text = String::from_utf8_lossy(&text[..length.min(UPGRADE_TEXT_BYTES)]);
            return (state >> 3, stage, text.into_owned());
        }
    }

    /// Enters how far the upgrade has come. [`UpgradeStage::Checking`] begins another one.
    pub fn enter(&self, stage: UpgradeStage, text: &str) {
        let begun = (self.state.load(Ordering::Acquire) >> 3) + u32::from(stage == UpgradeStage::Checking);
        let length = length_that_fits(text, UPGRADE_TEXT_BYTES);
        self.text.copy_in(0, &text.as_bytes()[..length]);
        self.text_bytes
            .store(u32::try_from(length).expect("cut to less"), Ordering::Release);
        self.state.store(begun << 3 | stage as u32, Ordering::Release);
    }
}

shared_record! {
    /// What the watchdog has done, for operators. Only the supervisor writes it.
    pub struct WatchdogRecord {
        /// Processes that it has killed.
        pub kills_total: AtomicU64,
        /// The last one: its process id, and when it was killed, in milliseconds of the monotonic clock.
        pub last_pid: AtomicU32,
        /// See `last_pid`.
        pub last_at_ms: AtomicU64,
        /// What was stuck, as the word of a [`Subject`](crate::shm::alarm::Subject).
        pub last_subject: AtomicU64,
        /// What it was killed for: the number of a [`FaultKind`](crate::watchdog::case::FaultKind).
        pub last_fault: AtomicU32,
    }
}

shared_record! {
    /// A process of the supervisor's.
    pub struct RoleSlot {
        /// Its id; 0 while there is none.
        pub pid: AtomicU32,
        /// How often it was started again.
        pub restarts: AtomicU32,
        /// When it was started: see [`ProcessId`].
        pub start_time: AtomicU64,
        /// Nonzero once the process has reported ready.
        pub ready: AtomicU32,
        /// Its answer to a [`ping`](Header::ping).
        pub pong: Pong,
        /// That it gets on.
        pub pulse: Pulse,
    }
}

shared_record! {
    /// A sign of life.
    pub struct Pong {
        /// When the process saw it, in nanoseconds of the monotonic clock. Written first.
        at_ns: AtomicU64,
        /// The last [`ping`](Header::ping) that the process has seen.
        seen: AtomicU64,
    }
}

impl Pong {
    /// Answers what was asked; to be called by the process whose answer it is, whenever it wakes up.
    pub fn answer(&self, asked: &AtomicU64) {
        let asked = asked.load(Ordering::Acquire);
        if self.seen.load(Ordering::Relaxed) != asked {
            self.at_ns.store(now_ns(), Ordering::Relaxed);
            self.seen.store(asked, Ordering::Release);
        }
    }

    /// When the answer to the question `asked`, or to a later one, was given, in nanoseconds of the monotonic clock.
    pub fn answered(&self, asked: u64) -> Option<u64> {
        (self.seen.load(Ordering::Acquire) >= asked).then(|| self.at_ns.load(Ordering::Relaxed))
    }
}

impl RoleSlot {
    /// The process; `None` while there is none.
    pub fn process(&self) -> Option<ProcessId> {
        // The start time is entered first.
        let pid = self.pid.load(Ordering::Acquire);
        let start_time = self.start_time.load(Ordering::Relaxed);
        (pid != 0).then_some(ProcessId { pid, start_time })
    }

    /// The process, once it has come up, and when it last came round its loop.
    pub fn gets_on(&self) -> Option<(ProcessId, u64)> {
        let process = self.process()?;
        let is_up = self.ready.load(Ordering::Acquire) != 0;
        is_up.then(|| (process, self.pulse.last_ms()))
    }
}

shared_record! {
    /// What others leave for a keeper to find.
    pub struct KeeperSlot {
        /// One bit per connection slot whose handler should look at its flags.
        pub attention: [AtomicU64; CONNECTIONS_PER_KEEPER_MAX.div_ceil(64) as usize],
        /// One bit per connection slot of which a handler has news for the keeper.
        pub news: [AtomicU64; CONNECTIONS_PER_KEEPER_MAX.div_ceil(64) as usize],
        /// By kind: number of the last connection that the listener has sent. Only the listener writes it.
        sent: [AtomicU32; Kind::COUNT],
        /// By kind: number of the last connection that the keeper has taken. Only the keeper writes it.
        taken: [AtomicU32; Kind::COUNT],
        /// By kind: connections that the keeper holds. Only the keeper writes it.
        held: [AtomicU32; Kind::COUNT],
        /// By kind: connections whose handlers live on without a keeper. The ticker writes it, and a keeper at its start; both count
        /// anew, so that whatever happens between them is made good.
        outliving: [AtomicU32; Kind::COUNT],
        /// Handlers of players that are this keeper's, and those of them that serve nobody yet, for operators. Only the keeper writes them.
        pub handlers: AtomicU32,
        /// See `handlers`.
        pub spare_handlers: AtomicU32,
        /// Connection slots from this one on were never claimed: their pages cost no memory until somebody looks.
        slots_touched: AtomicU32,
        /// Counts the processes that have held this slot, so that connections of a dead keeper are known.
        pub epoch: AtomicU32,
    }
}

impl Header {
    /// Whether new players are refused, since the server is to end when its matches have.
    pub fn is_draining(&self) -> bool {
        self.drain_until_ms.load(Ordering::Acquire) != 0
    }
}

impl KeeperSlot {
    /// How many connections of the kind the keeper holds or is being sent, and how many live on without one.
    pub fn open(&self, kind: Kind) -> u32 {
        let load = |counts: &[AtomicU32; Kind::COUNT]| counts[kind as usize].load(Ordering::Acquire);
        // The keeper may have taken what the listener has yet to enter as sent.
        let under_way = load(&self.sent)
            .wrapping_sub(load(&self.taken))
            .cast_signed()
            .max(0);
        under_way.cast_unsigned() + load(&self.held) + load(&self.outliving)
    }

    /// Number of the last connection that the listener has entered as sent.
    pub fn sent(&self, kind: Kind) -> u32 {
        self.sent[kind as usize].load(Ordering::Acquire)
    }

    /// The listener has sent the connection of this number: one more than the last.
    pub fn set_sent(&self, kind: Kind, number: u32) {
        self.sent[kind as usize].store(number, Ordering::Release);
    }

    /// The keeper has taken all connections up to this number, or they were lost on their way. Says how many are new with that.
    pub fn set_taken_up_to(&self, kind: Kind, number: u32) -> u32 {
        let taken = &self.taken[kind as usize];
        let new = number
            .wrapping_sub(taken.load(Ordering::Relaxed))
            .cast_signed()
            .max(0);
        if new > 0 {
            taken.store(number, Ordering::Release);
        }
        new.cast_unsigned()
    }

    /// How many connections of the kind the keeper holds.
    pub fn held(&self, kind: Kind) -> u32 {
        self.held[kind as usize].load(Ordering::Relaxed)
    }

    /// The keeper holds one more.
    pub fn hold(&self, kind: Kind) {
        self.held[kind as usize].fetch_add(1, Ordering::AcqRel);
    }

    /// The keeper holds one less.
    pub fn let_go(&self, kind: Kind) {
        self.held[kind as usize].fetch_sub(1, Ordering::AcqRel);
    }

    /// A new keeper begins. Those that its predecessor held have been counted as living on.
    pub fn hold_none(&self) {
        self.held.iter().for_each(|held| held.store(0, Ordering::Release));
    }

    /// The slot from which on none was ever claimed, counted from the keeper's first.
    pub fn slots_touched(&self) -> u32 {
        self.slots_touched.load(Ordering::Acquire)
    }

    /// Claims are about to reach up to `slots`.
    pub fn set_slots_touched(&self, slots: u32) {
        self.slots_touched.store(slots, Ordering::Release);
    }
}

/// How many of everything there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Players, connected or in their grace.
    pub players: u32,
    /// Rooms.
    pub rooms: u32,
    /// Keepers, each with [`CONNECTIONS_PER_KEEPER_MAX`] connections.
    pub keepers: u32,
}

/// Whose lock it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockOwner {
    /// The lobby's: the directory.
    Lobby,
    /// That of the lobby's chat.
    Chat,
    /// That of the player record with this index.
    Player(u32),
    /// That of the room record with this index.
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

/// The shared memory of one server.
pub struct Memory {
    /// The mapping itself.
    pub mapping: &'static Mapping,
    /// What can be read without a lock.
    pub header: &'static Header,
    /// What the lobby's lock guards.
    pub directory: Directory,
    /// Transport state, in a fixed range of slots per keeper.
    pub connections: Table<ConnectionRecord>,
    /// Sessions.
    pub players: Table<PlayerRecord>,
    /// Rooms.
    pub rooms: Table<RoomRecord>,
    /// What is said to the lobby.
    pub chat: &'static ChatRecord,
}

impl Memory {
    /// How many bytes of (virtual) memory the capacity needs.
    pub fn bytes_needed(capacity: Capacity) -> usize {
        Plan::new(capacity).bytes
    }

    /// Creates the memory of a new server. To be called before the first fork.
    ///
    /// # Errors
    ///
    /// Those of [`Mapping::create`].
    pub fn create(capacity: Capacity) -> std::io::Result<&'static Self> {
        let plan = Plan::new(capacity);
        let memory = Self::laid_over(Mapping::create("forkade", plan.bytes)?, capacity);
        let header = memory.header;
        header.layout_hash.store(plan.hash, Ordering::Relaxed);
        header.started_at_ms.store(now_ms(), Ordering::Relaxed);
        header.supervisor_pid.store(std::process::id(), Ordering::Relaxed);
        memory.directory.prepare(plan.directory_bytes());
        memory.chat.lock().prepare();
        Ok(memory)
    }

    /// What [`Header::layout_hash`] says in the memory of a server with this capacity, made by this program.
    pub fn layout_hash(capacity: Capacity) -> u64 {
        Plan::new(capacity).hash
    }

    /// The memory of a running server, for a program that is to go on with it.
    ///
    /// # Errors
    ///
    /// The server has another capacity, or its program lays the memory out otherwise.
    pub fn open(mapping: &'static Mapping, capacity: Capacity) -> std::io::Result<&'static Self> {
        let plan = Plan::new(capacity);
        if mapping.bytes() < plan.bytes {
            return Err(std::io::Error::other("it is smaller than this program's"));
        }
        let header: &Header = mapping.record(plan.header);
        if header.layout_hash.load(Ordering::Relaxed) != plan.hash {
            return Err(std::io::Error::other("it is laid out otherwise"));
        }
        Ok(Self::laid_over(mapping, capacity))
    }

    /// Lays the tables over a mapping that was created for the same capacity.
    pub fn laid_over(mapping: &'static Mapping, capacity: Capacity) -> &'static Self {
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

    /// The calling process's access to shared state. To be called once per process, after its fork.
    pub fn attach(&self) -> Hand {
        Hand::new(self.mapping, &self.header.recoveries_total, &self.header.alarm)
    }

    /// Decides what a dead process left under the lock that lies at `offset`, as noted in a record it animated.
    pub fn settle(&self, hand: &mut Hand, offset: u64) {
        if offset == self.offset_of(self.directory.record) {
            hand.settle(self.directory.record);
        } else if offset == self.offset_of(self.chat) {
            hand.settle(self.chat);
        } else if let Some(index) = self.players.index_of_offset(offset) {
            hand.settle(self.players.at(index));
        } else if let Some(index) = self.rooms.index_of_offset(offset) {
            hand.settle(self.rooms.at(index));
        } else {
            assert_eq!(
                offset, 0,
                "a noted lock is the lobby's, the chat's, a player's or a room's"
            );
        }
    }

    /// The lock of the record that begins at `offset`, and whose it is; `None` if there is none.
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

    /// In a copy of another server's mapping, which is nobody else's: leaves every lock as its holder's death would.
    #[doc(hidden)]
    pub fn abandon_copy(&self) {
        let players = self.players.iter().map(|(_, player)| player.lock());
        let rooms = self.rooms.iter().map(|(_, room)| room.lock());
        let others = [self.directory.record.lock(), self.chat.lock()];
        for lock in players.chain(rooms).chain(others) {
            lock.abandon_copy();
        }
    }

    /// The connection slots that belong to a keeper.
    pub fn connections_of_keeper(&self, keeper: u32) -> Range<u32> {
        let first = keeper * CONNECTIONS_PER_KEEPER_MAX;
        first..(first + CONNECTIONS_PER_KEEPER_MAX).min(self.connections.len())
    }

    /// Those of a keeper's slots that were ever claimed.
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

    /// The index of the keeper that a connection belongs to.
    pub fn keeper_index_of(&self, connection: u32) -> u32 {
        connection / CONNECTIONS_PER_KEEPER_MAX
    }

    /// The slot of the keeper that a connection belongs to.
    pub fn keeper_of(&self, connection: u32) -> &'static KeeperSlot {
        &self.header.keepers[self.keeper_index_of(connection) as usize]
    }

    /// Counts the connections of a keeper's slots whose handlers live on though that keeper, or the one that was, is dead.
    pub fn count_outliving(&self, keeper: u32) {
        let slot = &self.header.keepers[keeper as usize];
        let epoch = slot.epoch.load(Ordering::Acquire);
        let mut outliving = [0; Kind::COUNT];
        // The first keeper has no predecessor.
        if epoch > 1 {
            let records = self
                .touched_connections_of_keeper(keeper)
                .map(|index| self.connections.at(index));
            for record in
                records.filter(|record| record.claimed() == Claim::Held && record.keeper_epoch() != epoch)
            {
                outliving[record.kind() as usize] += 1;
            }
        }
        for (count, outliving) in slot.outliving.iter().zip(outliving) {
            count.store(outliving, Ordering::Release);
        }
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

/// Where everything lies. What every process touches comes first, and small tables before large ones: each region of 2 MiB in which a
/// process touches anything costs it a page table.
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
            header: plan.place::<Header>(1),
            chat: plan.place::<ChatRecord>(1),
            directory: plan.place::<DirectoryRecord>(1),
            identities: plan.place::<Identity>(capacity.players),
            room_entries: plan.place::<RoomEntry>(capacity.rooms),
            name_buckets: plan.place::<Guarded<u32>>(name_buckets_of(capacity)),
            mailboxes: plan.place::<Mailbox>(capacity.players),
            connections: plan.place::<ConnectionRecord>(connections_of(capacity)),
            players: plan.place::<PlayerRecord>(capacity.players),
            rooms: plan.place::<RoomRecord>(capacity.rooms),
            bytes: plan.bytes(),
            hash: 0,
        };
        places.hash = places.layout_hash(capacity);
        places
    }

    /// The directory's region ends where the connections begin.
    fn directory_bytes(&self) -> usize {
        self.connections - self.directory
    }

    /// FNV-1a over the fields of every record, its place and the capacity: equal layouts have equal hashes.
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
