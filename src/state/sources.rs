//! Sources: the addresses that clients connect from. What one address does, only it pays.
//!
//! A source is an IPv4 address or an IPv6 network of 64 bits, or a wider network if so configured. Its key is one word,
//! so any process can enter it in the table by one compare-and-swap. The accounts of a source are single words, too:
//! [budgets](crate::state::budget), and the time up to which it is penalised. A process that dies between two of these
//! steps leaves nothing to clean up.
//!
//! The table has sets of [`SOURCES_PER_SET`] places, chosen by a keyed hash. If every place of a set is in use, a new
//! source replaces the one whose accounts are nearest to rest; with it goes what it has used. A source whose penalties
//! have an effect is not replaced. If all of a set are such, further sources share one entry, with the limits of
//! [`SOURCES_SHARING`] sources.
//!
//! How many connections a source has is not counted but derived: each connection slot has a word with the key of its
//! source. So a process that dies cannot leave a wrong count.

use std::fmt;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use siphasher::sip::SipHasher13;

use crate::limits::{
    ADDRESS_BANS_MAX, PENALTY_ENFORCED_FROM_US, PENALTY_US_MAX, SOURCE_INCIDENTS_BURST,
    SOURCE_INCIDENTS_PER_MINUTE, SOURCE_SETS, SOURCES_PER_SET, SOURCES_SHARING,
};
use crate::state::budget::{Budget, Rate, TooSoon, now_us};
use crate::state::connections::Peer;
use crate::state::header::Header;
use crate::state::incidents::IncidentKind;
use crate::state::layout::Memory;
use shmem::shared_record;
use shmem::sys::clock::now_ms;
use shmem::table::Table;
use shmem::word::Word;

/// Names a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceKey(NonZeroU64);

/// How many bits of an address name its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixLengths {
    /// Of an IPv4 address, up to 32.
    pub v4: u32,
    /// Of an IPv6 address, up to 64.
    pub v6: u32,
}

/// In front of an IPv4 address. No packet comes from the IPv6 network 100::/64 (RFC 6666).
const IPV4_MARK: u64 = 0x0100 << 48;

impl SourceKey {
    /// The source of an address.
    pub fn new(address: IpAddr, lengths: PrefixLengths) -> Self {
        let number = match address.to_canonical() {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - lengths.v4).unwrap_or(0);
                IPV4_MARK | u64::from(u32::from(address) & mask)
            }
            IpAddr::V6(address) => {
                let mask = u64::MAX.checked_shl(64 - lengths.v6).unwrap_or(0);
                let network = (u128::from(address) >> 64) as u64;
                network & mask
            }
        };
        // The network ::/64 is written like its neighbour, which nobody uses either.
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    fn from_word(word: u64) -> Option<Self> {
        NonZeroU64::new(word).map(Self)
    }

    /// As operators write it: an address, or a network with the length of its prefix.
    pub fn text(self, lengths: PrefixLengths) -> String {
        let number = self.0.get();
        match u32::try_from(number ^ IPV4_MARK) {
            Ok(address) if lengths.v4 == 32 => Ipv4Addr::from(address).to_string(),
            Ok(address) => format!("{}/{}", Ipv4Addr::from(address), lengths.v4),
            Err(_) => format!("{}/{}", Ipv6Addr::from(u128::from(number) << 64), lengths.v6),
        }
    }
}

/// Whether an address has no limits on connections and messages, and no penalties: it is the machine's own.
pub(crate) fn is_exempt(address: IpAddr) -> bool {
    matches!(
        address.to_canonical(),
        IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST)
    )
}

/// What a source is charged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceAccount {
    /// Connections.
    Connects,
    /// Frames or lines that its players send.
    Messages,
    /// Bytes that its players send.
    Bytes,
    /// Wrong passcodes and invite codes of its players.
    Guesses,
    /// Deliveries of lobby lines.
    LobbyDeliveries,
    /// Deliveries of rooms' events.
    RoomDeliveries,
    /// Connections beyond its limits, for players that come back.
    Returns,
    /// Entries about it in the list of incidents.
    Incidents,
}

impl SourceAccount {
    const COUNT: usize = 8;
}

shared_record! {
    /// The accounts of one source.
    pub struct SourceRecord {
        /// By [`SourceAccount`].
        accounts: [Budget; SourceAccount::COUNT],
        /// The end of its penalties, in microseconds of the monotonic clock.
        penalised_until_us: AtomicU64,
    }
}

shared_record! {
    /// The places for sources whose keys have the same hash. The keys lie together: a search touches one cache line.
    pub struct SourceSet {
        keys: [AtomicU64; SOURCES_PER_SET],
        records: [SourceRecord; SOURCES_PER_SET],
    }
}

shared_record! {
    /// An operator's ban of a source.
    struct AddressBan {
        key: AtomicU64,
        /// In milliseconds of the monotonic clock.
        until_ms: AtomicU64,
    }
}

shared_record! {
    /// What sources have in common.
    pub struct SourcesHead {
        /// Random, so that nobody can choose addresses that share a set.
        hash_key: [AtomicU64; 2],
        /// Used by sources that have no place of their own.
        common: SourceRecord,
        bans: [AddressBan; ADDRESS_BANS_MAX],
    }
}

const _: () = assert!(SOURCE_SETS.is_power_of_two());

/// All sources.
pub struct Sources {
    /// What they have in common.
    pub(crate) head: &'static SourcesHead,
    /// The table.
    pub(crate) sets: Table<SourceSet>,
    /// By connection slot: the key of the source of its connection; 0: none.
    pub(crate) of_connections: Table<AtomicU64>,
    /// By player record: the key of the source that the player came from last; 0: none. Kept while it is away.
    pub(crate) of_players: Table<AtomicU64>,
}

/// There is no place for another ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {ADDRESS_BANS_MAX} bans of addresses already: lift one, or wait until one is over")]
pub struct AddressBansFull;

impl Sources {
    /// Prepares the sources of a new server.
    pub(crate) fn prepare(&self) {
        for word in &self.head.hash_key {
            let random = getrandom::u64().expect("the kernel gives random bytes");
            word.store(random, Ordering::Relaxed);
        }
    }

    /// Takes `cost` units from an account of the source.
    ///
    /// # Errors
    ///
    /// If it is spent. Nothing is taken.
    pub(crate) fn take(
        &self,
        key: SourceKey,
        account: SourceAccount,
        rate: Rate,
        cost: u64,
    ) -> Result<(), TooSoon> {
        if rate.is_unlimited() {
            return Ok(());
        }
        let (record, owners) = self.enter(key);
        record.accounts[account as usize].take(rate.times(owners), cost)
    }

    /// Takes `cost` units that are used already. Returns the microseconds that the source must wait for it.
    pub(crate) fn spend(&self, key: SourceKey, account: SourceAccount, rate: Rate, cost: u64) -> u64 {
        if rate.is_unlimited() {
            return 0;
        }
        let (record, owners) = self.enter(key);
        record.accounts[account as usize].spend(rate.times(owners), cost)
    }

    /// Checks that a unit is left in an account of the source.
    ///
    /// # Errors
    ///
    /// If it is spent.
    pub(crate) fn check(&self, key: SourceKey, account: SourceAccount, rate: Rate) -> Result<(), TooSoon> {
        if rate.is_unlimited() {
            return Ok(());
        }
        let (record, owners) = self.enter(key);
        record.accounts[account as usize].check(rate.times(owners), 1)
    }

    /// Whether anything of an account was used within so many microseconds, beyond what the account has recovered
    /// since.
    pub(crate) fn was_used_within(&self, key: SourceKey, account: SourceAccount, us: u64) -> bool {
        let used = |record: &SourceRecord| record.accounts[account as usize].paid_until_us();
        let until_us = self.record(key).map_or(0, used);
        until_us != 0 && until_us.saturating_add(us) > now_us()
    }

    /// Penalises the source for so many microseconds more.
    pub fn penalise(&self, key: SourceKey, us: u64) {
        let (record, owners) = self.enter(key);
        // Nobody pays for what another one has done.
        if owners > 1 {
            return;
        }
        let now_us = now_us();
        let latest_us = now_us + PENALTY_US_MAX;
        Word::update(&record.penalised_until_us, |until_us| {
            until_us
                .clamp(now_us, latest_us)
                .saturating_add(us)
                .min(latest_us)
        });
    }

    /// Microseconds for which the source is still penalised; 0: not at all.
    pub(crate) fn penalty_left_us(&self, key: SourceKey) -> u64 {
        let until_us = |record: &SourceRecord| record.penalised_until_us.load(Ordering::Acquire);
        let left_us = self.record(key).map_or(0, until_us).saturating_sub(now_us());
        left_us.min(PENALTY_US_MAX)
    }

    /// Microseconds for which connections of the source are refused because of its penalties; 0: they are not.
    pub(crate) fn refused_for_us(&self, key: SourceKey) -> u64 {
        self.penalty_left_us(key).saturating_sub(PENALTY_ENFORCED_FROM_US)
    }

    /// Bans the source until that time, in milliseconds of the monotonic clock, in place of an earlier ban. To be
    /// called under the lobby's lock, so that two operators do not take the same place.
    ///
    /// # Errors
    ///
    /// [`AddressBansFull`].
    pub(crate) fn ban(&self, key: SourceKey, until_ms: u64) -> Result<(), AddressBansFull> {
        let now_ms = now_ms();
        let is_its = |ban: &&AddressBan| ban.key.load(Ordering::Acquire) == key.0.get();
        let is_over = |ban: &&AddressBan| ban.until_ms.load(Ordering::Acquire) <= now_ms;
        let bans = &self.head.bans;
        let place = bans.iter().find(is_its).or_else(|| bans.iter().find(is_over));
        let place = place.ok_or(AddressBansFull)?;
        place.key.store(key.0.get(), Ordering::Release);
        place.until_ms.store(until_ms, Ordering::Release);
        Ok(())
    }

    /// Lifts the ban of the source, and its penalties. False if there were none.
    pub fn lift(&self, key: SourceKey) -> bool {
        let now_ms = now_ms();
        let mut lifted = self.penalty_left_us(key) > 0;
        if let Some(record) = self.record(key) {
            record.penalised_until_us.store(0, Ordering::Release);
        }
        let word = key.0.get();
        for ban in self
            .head
            .bans
            .iter()
            .filter(|ban| ban.key.load(Ordering::Acquire) == word)
        {
            lifted |= ban.until_ms.swap(0, Ordering::AcqRel) > now_ms;
        }
        lifted
    }

    /// Milliseconds for which the source is banned; `None`: it is not.
    pub(crate) fn ban_left_ms(&self, key: SourceKey) -> Option<u64> {
        self.bans()
            .find(|(banned, _)| *banned == key)
            .map(|(_, left_ms)| left_ms)
    }

    /// The bans in force, each with the milliseconds that it still lasts.
    pub(crate) fn bans(&self) -> impl Iterator<Item = (SourceKey, u64)> {
        let now_ms = now_ms();
        self.head.bans.iter().filter_map(move |ban| {
            let key = SourceKey::from_word(ban.key.load(Ordering::Acquire))?;
            let left_ms = ban.until_ms.load(Ordering::Acquire).checked_sub(now_ms)?;
            (left_ms > 0).then_some((key, left_ms))
        })
    }

    /// The sources that are penalised, each with the microseconds left.
    pub(crate) fn penalties(&self) -> impl Iterator<Item = (SourceKey, u64)> {
        let keys = self.sets.iter().flat_map(|(_, set)| &set.keys);
        keys.filter_map(|key| SourceKey::from_word(key.load(Ordering::Acquire)))
            .map(|key| (key, self.penalty_left_us(key)))
            .filter(|(_, left_us)| *left_us > 0)
    }

    /// The source of the connection in this slot.
    pub fn of_connection(&self, index: u32) -> Option<SourceKey> {
        SourceKey::from_word(self.of_connections.at(index).load(Ordering::Relaxed))
    }

    /// Enters the source of the connection in this slot, or that it has none.
    pub(crate) fn set_of_connection(&self, index: u32, key: Option<SourceKey>) {
        self.of_connections
            .at(index)
            .store(word_of(key), Ordering::Relaxed);
    }

    /// The source that the player in this record came from last.
    pub(crate) fn of_player(&self, index: u32) -> Option<SourceKey> {
        SourceKey::from_word(self.of_players.at(index).load(Ordering::Relaxed))
    }

    /// The indices of the players that came from the source last, connected or in their grace.
    pub(crate) fn players_of(&self, key: SourceKey) -> impl Iterator<Item = u32> {
        let its = move |(_, word): &(u32, &AtomicU64)| word.load(Ordering::Relaxed) == key.0.get();
        self.of_players.iter().filter(its).map(|(index, _)| index)
    }

    /// Enters the source that the player in this record comes from, or that there is no player.
    pub fn set_of_player(&self, index: u32, key: Option<SourceKey>) {
        self.of_players.at(index).store(word_of(key), Ordering::Relaxed);
    }

    /// The accounts of a source that has a place in the table.
    fn record(&self, key: SourceKey) -> Option<&'static SourceRecord> {
        let set = self.set_of(key);
        let way = set
            .keys
            .iter()
            .position(|other| other.load(Ordering::Acquire) == key.0.get())?;
        Some(&set.records[way])
    }

    /// The accounts that the source uses, and how many sources share them. It gets a place if there is one. (A process
    /// that is interrupted for long between this and a charge may charge the source that has the place by then.)
    fn enter(&self, key: SourceKey) -> (&'static SourceRecord, u64) {
        let set = self.set_of(key);
        let enforced_from_us = now_us() + PENALTY_ENFORCED_FROM_US;
        // Each round that fails means that another source was entered in this set.
        for _ in 0..SOURCES_PER_SET {
            if let Some(record) = self.record(key) {
                return (record, 1);
            }
            let places = std::iter::zip(&set.keys, &set.records).map(|(place, record)| {
                let former = place.load(Ordering::Acquire);
                (place, former, record)
            });
            let nearest_to_rest = places
                .filter(|(_, _, record)| {
                    record.penalised_until_us.load(Ordering::Acquire) <= enforced_from_us
                })
                .min_by_key(|(_, _, record)| record.in_use_until_us());
            let Some((place, former, record)) = nearest_to_rest else {
                return (&self.head.common, SOURCES_SHARING);
            };
            let exchanged = place.compare_exchange(former, key.0.get(), Ordering::AcqRel, Ordering::Acquire);
            if exchanged.is_ok() {
                record.reset();
            }
        }
        (&self.head.common, SOURCES_SHARING)
    }

    fn set_of(&self, key: SourceKey) -> &'static SourceSet {
        let [key0, key1] = self
            .head
            .hash_key
            .each_ref()
            .map(|word| word.load(Ordering::Relaxed));
        let mut hasher = SipHasher13::new_with_keys(key0, key1);
        hasher.write_u64(key.0.get());
        let set = hasher.finish() & u64::from(self.sets.len() - 1);
        self.sets
            .at(u32::try_from(set).expect("masked to the number of sets"))
    }
}

impl SourceRecord {
    /// When all accounts are as new, in microseconds of the monotonic clock.
    fn in_use_until_us(&self) -> u64 {
        let accounts = self.accounts.iter().map(Budget::paid_until_us);
        let penalised_until_us = self.penalised_until_us.load(Ordering::Acquire);
        accounts.chain([penalised_until_us]).max().unwrap_or(0)
    }

    /// Makes the accounts as new, for another source. (If the process dies in between, that one begins with a part of
    /// what the former one has used.)
    fn reset(&self) {
        self.accounts.iter().for_each(Budget::reset);
        self.penalised_until_us.store(0, Ordering::Release);
    }
}

fn word_of(key: Option<SourceKey>) -> u64 {
    key.map_or(0, |key| key.0.get())
}

impl Header {
    /// How many bits of an address name its source.
    pub(crate) fn source_prefixes(&self) -> PrefixLengths {
        let bits = |word: &AtomicU64| u32::try_from(word.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        PrefixLengths {
            v4: bits(&self.ipv4_source_prefix).min(32),
            v6: bits(&self.ipv6_source_prefix).min(64),
        }
    }

    /// The source of a peer; `None` for a process on a unix socket.
    pub(crate) fn source_of(&self, peer: Peer) -> Option<SourceKey> {
        match peer {
            Peer::Network(address) => Some(SourceKey::new(address.ip(), self.source_prefixes())),
            Peer::Process { .. } => None,
        }
    }
}

impl Memory {
    /// Penalises the source of a connection for so many microseconds more, unless it is exempt.
    pub(crate) fn penalise_connection(&self, connection: u32, us: u64) {
        if let Some(key) = self.sources.of_connection(connection)
            && let Peer::Network(address) = self.connections.at(connection).peer()
            && !is_exempt(address.ip())
        {
            self.header.penalties_total.fetch_add(1, Ordering::Relaxed);
            self.sources.penalise(key, us);
        }
    }

    /// Enters a refusal in the list of incidents, unless there are many about the same source already.
    pub(crate) fn enter_refusal(&self, peer: Peer, player: &str, text: fmt::Arguments<'_>) {
        let rate = Rate::per_minute(SOURCE_INCIDENTS_PER_MINUTE, SOURCE_INCIDENTS_BURST);
        let is_granted = |key| self.sources.take(key, SourceAccount::Incidents, rate, 1).is_ok();
        if self.header.source_of(peer).is_none_or(is_granted) {
            let process = (std::process::id(), None);
            self.incidents.enter(IncidentKind::Refusal, process, player, text);
        }
    }

    /// The source of each connection whose source is known, and whether its client is still to greet.
    pub(crate) fn connection_sources(&self) -> impl Iterator<Item = (SourceKey, bool)> {
        self.touched_connections()
            .filter_map(|(index, _)| Some((self.sources.of_connection(index)?, self.is_greeting(index))))
    }

    /// What is open from a source.
    pub(crate) fn source_presence(&self, key: SourceKey) -> SourcePresence {
        let mut presence = SourcePresence::default();
        let of_source = self.connection_sources().filter(|(other, _)| *other == key);
        of_source.for_each(|(_, is_greeting)| presence.add(is_greeting));
        presence
    }
}

/// How many connections a source has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SourcePresence {
    /// All.
    pub(crate) connections: u32,
    /// Those whose clients are still to greet.
    pub(crate) greeting: u32,
}

impl SourcePresence {
    /// Counts one connection more.
    pub(crate) fn add(&mut self, is_greeting: bool) {
        self.connections += 1;
        self.greeting += u32::from(is_greeting);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::state::layout::Capacity;

    const WHOLE: PrefixLengths = PrefixLengths { v4: 32, v6: 64 };
    const SOURCES_MAX: u32 = 8 * SOURCE_SETS;
    /// A unit is in use for longer than any test.
    const SLOW: Rate = Rate::per_minute(1, 3);

    fn memory() -> &'static Memory {
        let capacity = Capacity {
            players: 1,
            rooms: 1,
            keepers: 1,
        };
        Memory::create(capacity).expect("there is memory")
    }

    fn key(address: &str) -> SourceKey {
        SourceKey::new(address.parse().expect("an address"), WHOLE)
    }

    fn nth(number: u32) -> SourceKey {
        SourceKey::new(Ipv4Addr::from(0x0b00_0000 + number).into(), WHOLE)
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_network() {
        assert_eq!(key("203.0.113.7"), key("::ffff:203.0.113.7"));
        assert_ne!(key("203.0.113.7"), key("203.0.113.8"));
        let of_one_network: HashSet<_> = (0..=u16::MAX)
            .map(|host| {
                let address = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, host, 3, 4, host);
                SourceKey::new(address.into(), WHOLE)
            })
            .collect();
        assert_eq!(of_one_network.len(), 1);
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("203.0.113.7").text(WHOLE), "203.0.113.7");
        assert_eq!(key("2001:db8:1:2::1").text(WHOLE), "2001:db8:1:2::/64");
        let wide = PrefixLengths { v4: 24, v6: 48 };
        let text = |address: &str| SourceKey::new(address.parse().expect("an address"), wide).text(wide);
        assert_eq!(text("203.0.113.7"), "203.0.113.0/24");
        assert_eq!(text("2001:db8:1:2::1"), "2001:db8:1::/48");
        assert!(is_exempt("127.0.0.1".parse().expect("an address")));
        assert!(is_exempt("::ffff:127.0.0.1".parse().expect("an address")));
        assert!(!is_exempt("127.0.0.2".parse().expect("an address")));
    }

    proptest! {
        #[test]
        fn a_key_is_written_as_an_address_of_its_source(address: u128, short: u32, v4 in 8..=32_u32, v6 in 16..=64_u32) {
            let lengths = PrefixLengths { v4, v6 };
            for address in [IpAddr::from(Ipv6Addr::from(address)), Ipv4Addr::from(short).into()] {
                let key = SourceKey::new(address, lengths);
                let text = key.text(lengths);
                let network = text.split('/').next().expect("there is a part before it");
                prop_assert_eq!(SourceKey::new(network.parse().expect("an address"), lengths), key, "{}", text);
            }
        }
    }

    #[test]
    fn each_source_pays_for_itself() {
        let sources = &memory().sources;
        let take = |key| sources.take(key, SourceAccount::Connects, SLOW, 1).is_ok();
        assert_eq!([0; 4].map(|_| take(nth(1))), [true, true, true, false]);
        assert!(take(nth(2)));
        let take_other = sources.take(nth(1), SourceAccount::Returns, SLOW, 1);
        assert!(take_other.is_ok(), "it is another account");
    }

    #[test]
    fn a_new_source_takes_the_place_of_one_that_is_nearer_to_rest() {
        let sources = &memory().sources;
        let take = |key| sources.take(key, SourceAccount::Connects, SLOW, 1).is_ok();
        let used = 4 * SOURCES_MAX;
        for number in 0..used {
            assert!(take(nth(number)), "the first of {number}");
        }
        let latest = nth(used - 1);
        assert_eq!(
            [0; 3].map(|_| take(latest)),
            [true, true, false],
            "it has used one of three"
        );
        // What has no effect yet does not keep a place.
        (0..used).for_each(|number| sources.penalise(nth(number), 7_000_000));
        assert!(sources.penalty_left_us(latest) > 0);
        assert!(take(nth(used)));
        assert!(sources.record(nth(used)).is_some());
    }

    #[test]
    fn sources_without_a_place_share_one_entry_and_those_whose_penalties_have_an_effect_keep_theirs() {
        let sources = &memory().sources;
        let all = || (0..4 * SOURCES_MAX).map(nth);
        all().for_each(|key| sources.penalise(key, PENALTY_US_MAX));
        let penalised = sources.penalties().count();
        assert_eq!(penalised, SOURCES_MAX as usize, "each has kept its place");
        let outsiders: Vec<_> = all().filter(|key| sources.record(*key).is_none()).collect();
        let take = |key: &SourceKey| sources.take(*key, SourceAccount::Connects, SLOW, 1).is_ok();
        let granted = outsiders.iter().filter(|key| take(key)).count() as u64;
        assert_eq!(
            granted,
            3 * SOURCES_SHARING,
            "three times for each of those that share it"
        );
        assert!(
            sources
                .check(outsiders[0], SourceAccount::Connects, SLOW)
                .is_err()
        );
        // Nobody is penalised for what another source without a place has done.
        sources.penalise(outsiders[0], PENALTY_US_MAX);
        assert_eq!(sources.penalties().count(), penalised);
    }

    #[test]
    fn penalties_add_up_to_a_maximum_and_have_an_effect_from_a_sum_on() {
        let sources = &memory().sources;
        sources.penalise(nth(1), PENALTY_ENFORCED_FROM_US);
        assert_eq!(sources.refused_for_us(nth(1)), 0);
        sources.penalise(nth(1), 60_000_000);
        let refused_us = sources.refused_for_us(nth(1));
        assert!((1..=60_000_000).contains(&refused_us), "{refused_us}");
        sources.penalise(nth(1), u64::MAX);
        assert!(sources.penalty_left_us(nth(1)) <= PENALTY_US_MAX);
        assert_eq!(sources.penalty_left_us(nth(2)), 0);
        assert!(sources.lift(nth(1)));
        assert_eq!(sources.penalty_left_us(nth(1)), 0);
        assert!(!sources.lift(nth(1)));
    }

    #[test]
    fn bans_are_replaced_and_lifted_and_there_is_an_end_of_them() {
        let sources = &memory().sources;
        let now_ms = now_ms();
        for number in 0..u32::try_from(ADDRESS_BANS_MAX).expect("few") {
            sources
                .ban(nth(number), now_ms + 3_600_000)
                .expect("there is a place");
        }
        assert_eq!(sources.ban(nth(999), now_ms + 1), Err(AddressBansFull));
        sources
            .ban(nth(7), now_ms + 7_200_000)
            .expect("it replaces its own");
        assert!(sources.ban_left_ms(nth(7)) > Some(3_600_000));
        assert!(sources.lift(nth(7)));
        assert_eq!(sources.ban_left_ms(nth(7)), None);
        sources
            .ban(nth(999), now_ms + 3_600_000)
            .expect("a place is free");
        assert!(sources.ban_left_ms(nth(999)).is_some() && sources.ban_left_ms(nth(8)).is_some());
        assert_eq!(sources.bans().count(), ADDRESS_BANS_MAX);
    }

    #[test]
    fn processes_that_enter_one_source_at_once_do_not_multiply_what_it_may_use() {
        let sources = &memory().sources;
        let burst = Rate::per_minute(1, 100);
        for number in 0..200 {
            let granted: usize = std::thread::scope(|scope| {
                let takers = [(); 4].map(|()| {
                    scope.spawn(|| {
                        let take = |_: &i32| {
                            sources
                                .take(nth(number), SourceAccount::Connects, burst, 1)
                                .is_ok()
                        };
                        (0..100).filter(take).count()
                    })
                });
                takers
                    .into_iter()
                    .map(|taker| taker.join().expect("no panic"))
                    .sum()
            });
            // Each taker may have used an entry for a moment that a later search does not find.
            assert!((100..=103).contains(&granted), "{granted}");
        }
    }
}
