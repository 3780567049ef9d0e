//! What the lobby's lock guards: players, rooms in use, and the index of names.
//!
//! The index and the free lists can be derived from the identities and room entries. The consistency check derives
//! and compares them.

use std::hash::Hasher;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use forkade_protocol::text::names::name_keys;
use siphasher::sip::SipHasher13;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::limits::{PLAYER_NAME_BYTES_MAX, REMEMBERED_ACCOUNTS_MAX, SANCTIONS_MAX};
use crate::state::fixed_string::Text;
use crate::state::layout::{ConnectionRef, PlayerRef};
use crate::state::mailbox::Mailbox;
use crate::state::players::{Account, PaidUntil};
use crate::state::sanctions::SanctionRecord;
use shmem::lock::Lock;
use shmem::shared_record;
use shmem::sys::memory::Guarded;
use shmem::table::Table;
use shmem::transaction::{Record, Tx, View};

shared_record! {
    /// The head of the directory's region, with the lobby's lock.
    pub struct DirectoryRecord {
        lock: Lock,
        region_bytes: AtomicU64,
        name_hash_key: [AtomicU64; 2],
        /// Players present: connected, in their grace, or expiring.
        pub players_present: Guarded<u32>,
        /// Rooms in use.
        pub rooms_in_use: Guarded<u32>,
        /// Index + 1 of the first free identity that was used before; 0 for none.
        pub free_identity: Guarded<u32>,
        /// Identities from this index on were never used.
        pub identities_touched: Guarded<u32>,
        /// Index + 1 of the first free room that was used before; 0 for none.
        pub free_room: Guarded<u32>,
        /// Rooms from this index on were never used.
        pub rooms_touched: Guarded<u32>,
        /// The accounts of players that have left, by the hash of their names.
        pub remembered_accounts: [Guarded<RememberedAccounts>; REMEMBERED_ACCOUNTS_MAX],
        /// What operators have imposed on names.
        pub(crate) sanctions: [SanctionRecord; SANCTIONS_MAX],
        /// Records of sanctions from this index on were never used.
        pub(crate) sanctions_touched: Guarded<u32>,
        /// From when on no name is muted, in milliseconds of the monotonic clock, or a later time.
        pub(crate) mutes_end_ms: Guarded<u64>,
        /// `mutes_end_ms`, for readers without the lock.
        pub(crate) mutes_end_published_ms: AtomicU64,
        /// `players_present`, for readers without the lock.
        pub players_published: AtomicU64,
        /// `rooms_in_use`, for readers without the lock.
        pub rooms_published: AtomicU64,
    }
}

shared_record! {
    /// The player that uses a player record.
    pub struct Identity {
        /// Counts the players that have used the record, from 1.
        pub generation: Guarded<u32>,
        /// A [`Presence`].
        pub presence: Guarded<u32>,
        /// Index + 1 of the next identity in the free list.
        pub next: Guarded<u32>,
        /// For each key of the name: the next [link](NameLink) in its bucket of the name index.
        pub next_of_key: [Guarded<u32>; NAME_KEYS],
        /// Nonzero when an operator has removed the player.
        pub kicked: Guarded<u32>,
        /// The number with which the client can repeat its greeting; 0 for none.
        pub greeting_nonce: Guarded<u64>,
        /// SHA-256 of the resume token.
        pub token_hash: Guarded<[u8; 32]>,
        /// The connection whose handler owns the player record.
        pub connection: Guarded<ConnectionRef>,
        /// A newer connection that presented the token and waits for the record.
        pub claimant: Guarded<ConnectionRef>,
        /// Number, in the order of acceptance, of the newest connection that had or requested the session.
        pub newest: Guarded<u64>,
        /// When the player was detached, in milliseconds of the monotonic clock.
        pub detached_at_ms: Guarded<u64>,
        /// Offset of the oldest frame in the player's mailbox.
        pub mail_tail: Guarded<u64>,
        /// Offset behind the newest frame in the player's mailbox. Equal to the tail if there is no mail.
        pub mail_head: Guarded<u64>,
        /// The player's name.
        pub name: Guarded<Name>,
    }
}

shared_record! {
    /// Whether a room record is in use, and its generation.
    pub struct RoomEntry {
        /// Generation of the room that last used the record. The room's own field follows when it is opened.
        pub generation: Guarded<u32>,
        /// Nonzero while the record is in use.
        pub in_use: Guarded<u32>,
        /// Index + 1 of the next free room.
        pub next: Guarded<u32>,
        /// The player that is to open the room.
        pub opener: Guarded<PlayerRef>,
    }
}

/// A player's name, as plain data.
pub type Name = Text<PLAYER_NAME_BYTES_MAX>;

/// The accounts of a player that has left. A new player of the same name continues with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct RememberedAccounts {
    name_hash: u64,
    paid_until_us: PaidUntil,
}

impl RememberedAccounts {
    fn last_us(&self) -> u64 {
        self.paid_until_us.into_iter().max().unwrap_or(0)
    }
}

/// Whether a player is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct Presence(u32);

impl Presence {
    /// The record is free.
    pub const FREE: Self = Self(0);
    /// A connection's handler owns the record.
    pub const ATTACHED: Self = Self(1);
    /// There is no connection; the seat is kept for the grace, and the client may resume.
    pub const DETACHED: Self = Self(2);
    /// The player is leaving for good. Any process that finds this completes it.
    pub const EXPIRING: Self = Self(3);

    /// From the raw number in an [`Identity`].
    pub fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// To the raw number in an [`Identity`].
    pub fn raw(self) -> u32 {
        self.0
    }
}

impl Record for DirectoryRecord {
    fn lock(&self) -> &Lock {
        &self.lock
    }

    fn guarded_addresses(&self) -> Range<usize> {
        let start = std::ptr::from_ref(self) as usize;
        start..start + usize::try_from(self.region_bytes.load(Ordering::Relaxed)).unwrap_or(0)
    }

    fn publish(&'static self, view: &View<'_>) {
        self.players_published
            .store(u64::from(view.get(&self.players_present)), Ordering::Relaxed);
        self.rooms_published
            .store(u64::from(view.get(&self.rooms_in_use)), Ordering::Relaxed);
        self.mutes_end_published_ms
            .store(view.get(&self.mutes_end_ms), Ordering::Relaxed);
    }
}

/// A transaction under the lobby's lock.
pub type LobbyTx<'h> = Tx<'h, DirectoryRecord>;

/// The directory's tables.
#[derive(Clone, Copy)]
pub struct Directory {
    /// The head, with the lock.
    pub record: &'static DirectoryRecord,
    /// One per player record.
    pub identities: Table<Identity>,
    /// One per room record.
    pub rooms: Table<RoomEntry>,
    /// The first [link](NameLink) of each bucket of the name index. Their number is a power of two.
    pub name_buckets: Table<Guarded<u32>>,
    /// One per player record; the identity says which bytes are mail.
    pub mailboxes: Table<Mailbox>,
    /// A bit for each room record to look at, read without the lock: see [`Directory::visited_rooms`].
    pub(crate) visited: Table<AtomicU64>,
}

impl Directory {
    /// Initialises the directory in zeroed memory, before the first fork.
    pub(crate) fn prepare(&self, region_bytes: usize) {
        self.record
            .region_bytes
            .store(region_bytes as u64, Ordering::Relaxed);
        for key in &self.record.name_hash_key {
            // A secret key, so that players cannot choose names that collide.
            key.store(
                getrandom::u64().expect("the kernel gives random bytes"),
                Ordering::Relaxed,
            );
        }
        self.record.lock.prepare();
    }

    /// The identity that a reference names; `None` if the reference is stale.
    pub fn identity(&self, tx: &LobbyTx<'_>, player: PlayerRef) -> Option<&'static Identity> {
        let identity = self.identities.get(player.index())?;
        let current = player.is_some()
            && tx.get(&identity.generation) == player.generation()
            && tx.get(&identity.presence) != Presence::FREE.raw();
        current.then_some(identity)
    }

    /// The player of that name, ignoring case, or else of a name that looks like it.
    pub fn find_name(&self, tx: &LobbyTx<'_>, name: &str) -> Option<PlayerRef> {
        self.holders(tx, name).next()
    }

    /// The players that have this name, in any case, or one that looks like it; at most one for each key. Another
    /// player may take the name only if there is none.
    pub(crate) fn holders(&self, tx: &LobbyTx<'_>, name: &str) -> impl Iterator<Item = PlayerRef> {
        let keys = name_keys(name);
        (0..NAME_KEYS).filter_map(move |which| {
            let mut link = NameLink(tx.get(self.bucket(which, &keys[which])));
            while let Some((index, key)) = link.target() {
                let identity = self.identities.at(index);
                if key == which && name_keys(tx.get(&identity.name).as_str())[which] == keys[which] {
                    return Some(PlayerRef::new(index, tx.get(&identity.generation)));
                }
                link = NameLink(tx.get(&identity.next_of_key[key]));
            }
            None
        })
    }

    /// Allocates a record for a new player; `None` if all are in use. The name must be free.
    pub(crate) fn add_player(
        &self,
        tx: &mut LobbyTx<'_>,
        name: Name,
        (connection, order): (ConnectionRef, u64),
        token_hash_of: impl FnOnce(u32) -> [u8; 32],
    ) -> Option<PlayerRef> {
        let head = self.record;
        let index = match tx.get(&head.free_identity).checked_sub(1) {
            Some(index) => {
                tx.set(&head.free_identity, tx.get(&self.identities.at(index).next));
                index
            }
            None => {
                let index = tx.get(&head.identities_touched);
                self.identities.get(index)?;
                tx.set(&head.identities_touched, index + 1);
                index
            }
        };
        let identity = self.identities.at(index);
        let player = PlayerRef::new(index, next_generation(tx.get(&identity.generation)));
        tx.set(&identity.generation, player.generation());
        tx.set(&identity.presence, Presence::ATTACHED.raw());
        tx.set(&identity.kicked, 0);
        tx.set(&identity.greeting_nonce, 0);
        tx.set(&identity.token_hash, token_hash_of(index));
        tx.set(&identity.connection, connection);
        tx.set(&identity.claimant, ConnectionRef::NONE);
        tx.set(&identity.newest, order);
        tx.set(&identity.mail_tail, 0);
        tx.set(&identity.mail_head, 0);
        tx.set(&identity.name, name);
        self.link_name(tx, player);
        tx.set(&head.players_present, tx.get(&head.players_present) + 1);
        Some(player)
    }

    /// Renames a player. The new name must be free.
    pub(crate) fn rename_player(&self, tx: &mut LobbyTx<'_>, player: PlayerRef, name: Name) {
        self.unlink_name(tx, player);
        tx.set(&self.identities.at(player.index()).name, name);
        self.link_name(tx, player);
    }

    /// Frees a player's record.
    pub(crate) fn remove_player(&self, tx: &mut LobbyTx<'_>, player: PlayerRef) {
        let head = self.record;
        let identity = self.identities.at(player.index());
        self.unlink_name(tx, player);
        tx.set(&identity.presence, Presence::FREE.raw());
        tx.set(&identity.connection, ConnectionRef::NONE);
        tx.set(&identity.claimant, ConnectionRef::NONE);
        tx.set(&identity.next, tx.get(&head.free_identity));
        tx.set(&head.free_identity, player.index() + 1);
        tx.set(&head.players_present, tx.get(&head.players_present) - 1);
    }

    /// Allocates a room record; `None` if all are in use. Returns its index and the generation that the room will
    /// have.
    pub(crate) fn add_room(&self, tx: &mut LobbyTx<'_>, opener: PlayerRef) -> Option<(u32, u32)> {
        let head = self.record;
        let index = match tx.get(&head.free_room).checked_sub(1) {
            Some(index) => {
                tx.set(&head.free_room, tx.get(&self.rooms.at(index).next));
                index
            }
            None => {
                let index = tx.get(&head.rooms_touched);
                self.rooms.get(index)?;
                tx.set(&head.rooms_touched, index + 1);
                index
            }
        };
        // Outside the journal: a bit too many costs a look, and the ticker clears it.
        self.visited
            .at(index / u64::BITS)
            .fetch_or(1 << (index % u64::BITS), Ordering::AcqRel);
        let entry = self.rooms.at(index);
        let generation = next_generation(tx.get(&entry.generation));
        tx.set(&entry.generation, generation);
        tx.set(&entry.in_use, 1);
        tx.set(&entry.opener, opener);
        tx.set(&head.rooms_in_use, tx.get(&head.rooms_in_use) + 1);
        Some((index, generation))
    }

    /// Frees a room record, if it is still in use by that generation.
    pub(crate) fn free_room(&self, tx: &mut LobbyTx<'_>, index: u32, generation: u32) {
        let head = self.record;
        let entry = self.rooms.at(index);
        if tx.get(&entry.in_use) == 0 || tx.get(&entry.generation) != generation {
            return;
        }
        tx.set(&entry.in_use, 0);
        tx.set(&entry.opener, PlayerRef::NONE);
        tx.set(&entry.next, tx.get(&head.free_room));
        tx.set(&head.free_room, index + 1);
        tx.set(&head.rooms_in_use, tx.get(&head.rooms_in_use) - 1);
    }

    /// Remembers the accounts of a player that leaves, in place of others that are settled earlier.
    pub(crate) fn remember_accounts(&self, tx: &mut LobbyTx<'_>, name: &str, paid_until_us: PaidUntil) {
        let name_hash = self.hash_of(0, &name_keys(name)[0]);
        let leaving = RememberedAccounts {
            name_hash,
            paid_until_us,
        };
        let place = self.place_of_accounts(name_hash);
        let other = tx.get(place);
        if other.name_hash == name_hash || other.last_us() < leaving.last_us() {
            tx.set(place, leaving);
        }
    }

    /// The accounts with which a new player of that name begins.
    pub(crate) fn remembered_accounts(&self, tx: &LobbyTx<'_>, name: &str) -> PaidUntil {
        let name_hash = self.hash_of(0, &name_keys(name)[0]);
        let found = tx.get(self.place_of_accounts(name_hash));
        if found.name_hash == name_hash {
            found.paid_until_us
        } else {
            [0; Account::COUNT]
        }
    }

    /// The hashes of names whose accounts are remembered, and the accounts.
    pub(crate) fn all_remembered_accounts(&self, tx: &LobbyTx<'_>) -> Vec<(u64, PaidUntil)> {
        let places = self.record.remembered_accounts.iter().map(|place| tx.get(place));
        let used = places.filter(|found| found.last_us() != 0);
        used.map(|found| (found.name_hash, found.paid_until_us)).collect()
    }

    fn place_of_accounts(&self, name_hash: u64) -> &'static Guarded<RememberedAccounts> {
        let places = &self.record.remembered_accounts;
        // The high bits: the low ones choose the bucket of the index.
        let place = (name_hash >> 32) % places.len() as u64;
        &places[usize::try_from(place).expect("less than the length")]
    }

    /// The room records from `first` on that are in use or have a doorbell to be rung, in the order of their slots,
    /// and perhaps some others. Read without a lock; the cost depends on the rooms there are, not on those there were.
    pub fn visited_rooms(self, first: u32) -> impl Iterator<Item = u32> {
        let words = first / u64::BITS..self.visited.len();
        words.flat_map(move |word| {
            let bits = self.visited.at(word).load(Ordering::Acquire);
            let below = first.saturating_sub(word * u64::BITS).min(u64::BITS - 1);
            set_bits(bits >> below << below).map(move |bit| word * u64::BITS + bit)
        })
    }

    /// Whether the room record is in use and so prepared. If not, and `is_done`, it is visited no more.
    pub(crate) fn is_room_in_use(
        &self,
        tx: &LobbyTx<'_>,
        index: u32,
        is_done: impl FnOnce() -> bool,
    ) -> bool {
        let in_use = tx.get(&self.rooms.at(index).in_use) != 0;
        // The bit is set only under the lobby's lock, which is held.
        if !in_use && is_done() {
            self.visited
                .at(index / u64::BITS)
                .fetch_and(!(1 << (index % u64::BITS)), Ordering::AcqRel);
        }
        in_use
    }

    /// Adds a player to the index of names.
    fn link_name(&self, tx: &mut LobbyTx<'_>, player: PlayerRef) {
        let identity = self.identities.at(player.index());
        let keys = name_keys(tx.get(&identity.name).as_str());
        for (which, key) in keys.iter().enumerate() {
            let bucket = self.bucket(which, key);
            tx.set(&identity.next_of_key[which], tx.get(bucket));
            tx.set(bucket, NameLink::to(player.index(), which).0);
        }
    }

    /// Removes a player from the index of names.
    fn unlink_name(&self, tx: &mut LobbyTx<'_>, player: PlayerRef) {
        let identity = self.identities.at(player.index());
        let keys = name_keys(tx.get(&identity.name).as_str());
        for (which, key) in keys.iter().enumerate() {
            let own = NameLink::to(player.index(), which);
            let mut link = self.bucket(which, key);
            while tx.get(link) != own.0 {
                let (index, key) = NameLink(tx.get(link))
                    .target()
                    .expect("a present player is in the name index");
                link = &self.identities.at(index).next_of_key[key];
            }
            tx.set(link, tx.get(&identity.next_of_key[which]));
        }
    }

    /// The bucket of the index for one key of a name.
    pub(crate) fn bucket(&self, which: usize, key: &str) -> &'static Guarded<u32> {
        let mask = u64::from(self.name_buckets.len() - 1);
        let bucket = self.hash_of(which, key) & mask;
        self.name_buckets
            .at(u32::try_from(bucket).expect("masked to the number of buckets"))
    }

    /// The hashes of a name's keys. They are secret, so that nobody can choose a name whose hashes are another's.
    pub(crate) fn hashes_of(&self, name: &str) -> NameHashes {
        let keys = name_keys(name);
        NameHashes(std::array::from_fn(|which| self.hash_of(which, &keys[which])))
    }

    fn hash_of(&self, which: usize, key: &str) -> u64 {
        let [key0, key1] = self
            .record
            .name_hash_key
            .each_ref()
            .map(|key| key.load(Ordering::Relaxed));
        let mut hasher = SipHasher13::new_with_keys(key0, key1);
        hasher.write_usize(which);
        hasher.write(key.as_bytes());
        hasher.finish()
    }
}

/// The number of keys by which a name is in the index.
pub(crate) const NAME_KEYS: usize = 2;

/// The hashes of a name's [keys](name_keys), by which names are compared where many of them are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub(crate) struct NameHashes([u64; NAME_KEYS]);

impl NameHashes {
    /// Of no name.
    pub(crate) const NONE: Self = Self([0; NAME_KEYS]);

    /// Whether the two names count as one: see [`is_same_name`](forkade_protocol::text::is_same_name).
    pub(crate) fn is_same(self, other: Self) -> bool {
        std::iter::zip(self.0, other.0).any(|(one, other)| one == other)
    }
}

/// A link of the name index: to an identity, by one of the [keys](name_keys) of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameLink(pub(crate) u32);

impl NameLink {
    fn to(index: u32, which: usize) -> Self {
        let which = u32::try_from(which).expect("there are two keys");
        Self(index * 2 + which + 1)
    }

    /// The identity's index, and which key of its name.
    pub(crate) fn target(self) -> Option<(u32, usize)> {
        let number = self.0.checked_sub(1)?;
        Some((number / 2, usize::from(number % 2 == 1)))
    }
}

/// The numbers of the bits that are set.
fn set_bits(bits: u64) -> impl Iterator<Item = u32> {
    let mut rest = bits;
    std::iter::from_fn(move || {
        let bit = (rest != 0).then(|| rest.trailing_zeros())?;
        rest &= rest - 1;
        Some(bit)
    })
}

/// Generations start at 1 and skip 0, which means none.
fn next_generation(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

#[cfg(test)]
mod tests {
    use forkade_games::Games;
    use proptest::prelude::*;

    use super::*;
    use crate::state::handle::StateHandle;
    use crate::state::layout::{Capacity, Memory, RoomRef};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_reference_is_stale_after_its_record_was_reused_even_where_generations_wrap(
            before_the_end in 0..4_u32,
            reuses in 1..8_usize,
        ) {
            let capacity = Capacity { players: 1, rooms: 1, keepers: 1 };
            let memory = Memory::create(capacity).expect("there is memory");
            let mut state = StateHandle::imitate(memory, Box::leak(Box::new(Games::default())));
            let directory = &memory.directory;
            let mut tx = state.attachment.begin(directory.record);
            tx.set(&directory.rooms.at(0).generation, u32::MAX - before_the_end);
            let mut given: Vec<RoomRef> = Vec::new();
            for _ in 0..reuses {
                let (index, generation) = directory.add_room(&mut tx, PlayerRef::NONE).expect("it is free");
                let room = RoomRef::new(index, generation);
                prop_assert!(room.is_some() && !given.contains(&room));
                // Freeing a former room again frees nothing.
                given.iter().for_each(|former| directory.free_room(&mut tx, index, former.generation()));
                prop_assert_eq!(tx.get(&directory.record.rooms_in_use), 1);
                directory.free_room(&mut tx, index, generation);
                prop_assert_eq!(tx.get(&directory.record.rooms_in_use), 0);
                given.push(room);
            }
        }
    }
}
