//! Room records: seats, the game's state, and the log of events.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use forkade_games::{AnyGame, Games};
use shmem::doorbell::Subscribers;
use shmem::event_log::EventLog;
use shmem::lock::Lock;
use shmem::shared_record;
use shmem::sys::memory::{Guarded, SharedBytes};
use shmem::transaction::{Record, Tx, View};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::limits::BANS_PER_ROOM_MAX;
use crate::limits::{
    GAME_OPTIONS_BYTES_MAX, GAME_STATE_BYTES_MAX, GAMES_MAX, PLAYERS_OR_ROOMS_MAX, READER_WAIT_WINDOW_MS,
    ROOM_LOG_BYTES, ROOM_LOG_UNREAD_BYTES_MAX, ROOM_NAME_BYTES_MAX, SEATS_MAX,
};
use crate::state::budget::Budget;
use crate::state::directory::{Name, NameHashes};
use crate::state::fixed_string::{ShortBytes, Text};
use crate::state::layout::{ConnectionRef, PlayerRef, RoomRef};
use crate::state::running_game::RoomCrashCounter;
use crate::state::stream_tap::TapLease;
use crate::state::tick_conduct::TickConductCell;

shared_record! {
    /// A room. Guarded fields are guarded by the room's own lock.
    pub struct RoomRecord {
        lock: Lock,
        /// Counts the rooms that have used the record; [`RoomEntry`](crate::state::directory::RoomEntry) has the last
        /// one given out.
        pub generation: Guarded<u32>,
        /// A [`RoomLife`].
        pub life: Guarded<u32>,
        /// The match's phase: see [`phase_of`].
        pub phase: Guarded<u32>,
        /// Index of the game among the server's games.
        pub game: Guarded<u32>,
        /// The number of seats.
        pub capacity: Guarded<u32>,
        /// The owner's seat; `u32::MAX` if no seat is taken.
        pub owner: Guarded<u32>,
        /// Whether the room is listed, may be spectated and has a passcode: see the settings.
        pub flags: Guarded<u32>,
        /// Time for a turn, in seconds; 0: no limit.
        pub turn_seconds: Guarded<u32>,
        /// Players that watch without a seat.
        pub spectators: Guarded<u32>,
        /// Bit per seat: it is taken.
        pub taken: Guarded<u64>,
        /// Bit per seat: its player is connected.
        pub connected: Guarded<u64>,
        /// Bit per seat: its player is ready for the next match.
        pub ready: Guarded<u64>,
        /// Which of the two states is current.
        pub state_slot: Guarded<u32>,
        /// Bytes of the current state. A state may be empty.
        pub state_bytes: Guarded<u32>,
        /// Number of seats of the present or last match; 0 if there was none.
        pub match_seats: Guarded<u32>,
        /// The options of the room, as its game encodes them.
        pub options: Guarded<RoomOptions>,
        /// When the match began, from which its ticks are counted, in microseconds of the monotonic clock.
        pub ticks_from_us: Guarded<u64>,
        /// When the game's next tick is due, in microseconds of the monotonic clock; `u64::MAX` for never.
        pub next_tick_at_us: Guarded<u64>,
        /// The room's name.
        pub name: Guarded<RoomName>,
        /// The passcode's salt and hash, if the flags say that there is one.
        pub passcode: Guarded<Passcode>,
        /// Deliveries of the room's events.
        pub(crate) deliveries: Budget,
        /// Wrong passcodes that the room judges.
        pub passcode_guesses: Budget,
        /// Wrong invite codes that the room judges.
        pub invite_guesses: Budget,
        /// The players that the owner has kicked. Each kick takes the next place, in place of the oldest.
        pub(crate) bans: [Guarded<RoomBan>; BANS_PER_ROOM_MAX],
        /// How many players the owner has kicked.
        pub(crate) kicks: Guarded<u32>,
        /// The secret of the room's invite code.
        pub invite_secret: Guarded<u64>,
        /// The seat whose turn clock runs; `u32::MAX` for none.
        pub turn_seat: Guarded<u32>,
        /// When the turn clock runs out, in milliseconds of the monotonic clock; `u64::MAX` for never.
        pub turn_ends_at_ms: Guarded<u64>,
        /// Bit per seat: it is reserved.
        pub reserved: Guarded<u64>,
        /// The players in the seats.
        pub seats: [Guarded<Seat>; SEATS_MAX as usize],
        /// The players for whom seats are reserved; valid where [`reserved`](Self::reserved) has the bit.
        pub reserved_for: [Guarded<Seat>; SEATS_MAX as usize],
        /// When each reservation expires, in milliseconds of the monotonic clock.
        pub reserved_until_ms: [Guarded<u64>; SEATS_MAX as usize],
        /// The room's generation while it is open, else 0; for readers without the lock.
        open: AtomicU64,
        /// The numbers of the room's [`PublishedRoom`], packed; for readers without the lock.
        published_numbers: AtomicU64,
        /// The name of the open room; for readers without the lock. It is written before the room is published as open,
        /// and stays.
        published_name: SharedBytes<{ ROOM_NAME_BYTES_MAX / 8 }>,
        /// Its length, in bytes.
        published_name_bytes: AtomicU64,
        /// When a timer of the room (tick, turn clock, reservation) is next due, in microseconds of the monotonic
        /// clock; `u64::MAX` for never. For the tickers.
        due_us: AtomicU64,
        /// The processes that subscribe to the room's doorbell.
        pub subscribers: Subscribers,
        /// The connection near which the room's members are to be served, as a reference's number; 0 for none.
        anchor: AtomicU64,
        /// Held while an operator watches the room.
        pub watched: TapLease,
        /// Crashes of tickers that this room's game caused. The tickers write it.
        pub crash_counter: RoomCrashCounter,
        /// How the room's game keeps to the time that a ticker's call may take.
        pub tick_conduct: TickConductCell,
        /// Late ticks of all rooms that have used the record.
        pub late_ticks: AtomicU64,
        /// Crashes of handlers that this room's game caused while it showed its match. The keepers write it.
        pub show_crash_counter: RoomCrashCounter,
        /// The generation of the room whose game is not asked any more to show its match.
        pub not_shown: AtomicU32,
        /// Log offset up to which the seat's player was given the events, or less. The writer need not keep what
        /// every player has read.
        read_up_to: [AtomicU64; SEATS_MAX as usize],
        /// Bit per seat: it has a player with a connection. For readers without the lock.
        readers: AtomicU64,
        /// When the window began in which writers have waited for the seat's reader, in milliseconds of the monotonic
        /// clock.
        wait_window_from_ms: [AtomicU64; SEATS_MAX as usize],
        /// How long they have waited in it.
        waited_ms: [AtomicU64; SEATS_MAX as usize],
        /// The encoded game, twice: a change is written to the slot that is not current.
        pub states: [SharedBytes<{ GAME_STATE_BYTES_MAX / 8 }>; 2],
        /// The events of the room.
        pub log: EventLog<{ ROOM_LOG_BYTES / 8 }>,
    }
}

/// A transaction under a room's lock.
pub type RoomTx<'h> = Tx<'h, RoomRecord>;
/// Bit of a room's `flags`: the room is in no list and no quick match.
pub(crate) const UNLISTED: u32 = 1;
/// Bit of a room's `flags`: the room has a passcode.
pub(crate) const HAS_PASSCODE: u32 = 4;
/// A room's options, as plain data.
pub type RoomOptions = ShortBytes<GAME_OPTIONS_BYTES_MAX>;
/// A room's name, as plain data.
pub type RoomName = Text<ROOM_NAME_BYTES_MAX>;

/// A player that the owner has kicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct RoomBan {
    pub(crate) player: PlayerRef,
    /// Of the player's name.
    pub(crate) name_hashes: NameHashes,
    /// Until when the name is banned, whoever has it, in milliseconds of the monotonic clock.
    pub(crate) name_until_ms: u64,
}

impl RoomBan {
    /// In place of a ban that was lifted.
    pub(crate) const NONE: Self = Self {
        player: PlayerRef::NONE,
        name_hashes: NameHashes::NONE,
        name_until_ms: 0,
    };
}

/// A seat.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Seat {
    /// The player; none if the seat is free.
    pub player: PlayerRef,
    /// The player's name.
    pub name: Name,
    padding: [u8; 7],
}

impl Seat {
    /// A free seat.
    pub const FREE: Self = Self::of(PlayerRef::NONE, Name::EMPTY);

    /// A seat with this player and name. A free seat may keep its last player's name.
    pub const fn of(player: PlayerRef, name: Name) -> Self {
        Self {
            player,
            name,
            padding: [0; 7],
        }
    }
}

/// A room's passcode, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Passcode {
    /// Random, so that equal passcodes have different hashes.
    pub salt: [u8; 16],
    /// SHA-256 of salt and passcode.
    pub hash: [u8; 32],
}

impl Passcode {
    /// No passcode.
    pub const NONE: Self = Self {
        salt: [0; 16],
        hash: [0; 32],
    };

    /// Hashes a passcode with a fresh salt.
    ///
    /// SHA-256 can be brute-forced quickly by an attacker that reads the server's memory. The passcode lives no
    /// longer than its room, and a slow hash would let any client burn the server's time.
    pub fn new(text: &str) -> Self {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).expect("the kernel gives random bytes");
        Self {
            salt,
            hash: hash_of(&salt, text),
        }
    }

    /// Whether a player that gives `text` may join.
    pub fn admits(&self, text: &str) -> bool {
        hash_of(&self.salt, text) == self.hash
    }
}

fn hash_of(salt: &[u8], text: &str) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::new()
        .chain_update(salt)
        .chain_update(text.as_bytes())
        .finalize()
        .into()
}

/// Whether a room exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomLife(u32);

impl RoomLife {
    /// The record holds no room.
    pub const CLOSED: Self = Self(0);
    /// The room can be listed and joined.
    pub const OPEN: Self = Self(1);
    /// The last player has left. Any process that finds this frees the record.
    pub const CLOSING: Self = Self(2);

    /// From the raw number in a [`RoomRecord`].
    pub fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// To the raw number in a [`RoomRecord`].
    pub fn raw(self) -> u32 {
        self.0
    }
}

/// The phase of a match, from the raw number in a room's record.
pub fn phase_of(raw: u32) -> forkade_protocol::Phase {
    match raw {
        1 => forkade_protocol::Phase::Playing,
        2 => forkade_protocol::Phase::Finished,
        _ => forkade_protocol::Phase::Waiting,
    }
}

/// The raw number of a match's phase.
pub fn raw_phase(phase: forkade_protocol::Phase) -> u32 {
    match phase {
        forkade_protocol::Phase::Waiting => 0,
        forkade_protocol::Phase::Playing => 1,
        forkade_protocol::Phase::Finished => 2,
    }
}

impl Record for RoomRecord {
    fn lock(&self) -> &Lock {
        &self.lock
    }

    fn publish(&'static self, view: &View<'_>) {
        // `open` holds only a generation: the reader knows the index by which it found the record.
        let open = view.get(&self.life) == RoomLife::OPEN.raw();
        let generation = if open {
            u64::from(view.get(&self.generation))
        } else {
            0
        };
        if generation != 0 && self.open.load(Ordering::Relaxed) != generation {
            // A reader that sees anything of the next room also sees that the former one is gone.
            self.open.store(0, Ordering::Relaxed);
            fence(Ordering::Release);
            let name = view.get(&self.name);
            let name = name.as_str().as_bytes();
            self.published_name.copy_in(0, name);
            self.published_name_bytes
                .store(name.len() as u64, Ordering::Relaxed);
        }
        let numbers = PublishedNumbers::of(view, self);
        self.published_numbers.store(numbers.pack(), Ordering::Release);
        self.open.store(generation, Ordering::Release);
        let reserved = seats_in(view.get(&self.reserved));
        let due_us = reserved
            .map(|seat| view.get(&self.reserved_until_ms[usize::from(seat)]))
            .chain([view.get(&self.turn_ends_at_ms)])
            .map(|due_ms| due_ms.saturating_mul(1000))
            .chain([view.get(&self.next_tick_at_us)])
            .filter(|_| open)
            .min();
        self.due_us.store(due_us.unwrap_or(u64::MAX), Ordering::Release);
        self.readers.store(
            view.get(&self.taken) & view.get(&self.connected),
            Ordering::Release,
        );
        self.log.publish(view);
    }
}

impl RoomRecord {
    /// The generation of the open room, read without the lock: it may close at any moment.
    pub fn open_generation(&self) -> Option<u32> {
        u32::try_from(self.open.load(Ordering::Acquire))
            .ok()
            .filter(|generation| *generation != 0)
    }

    /// The name of the room's game, read without the lock.
    pub fn game_name(&self, games: &Games) -> &'static str {
        let numbers = PublishedNumbers::unpack(self.published_numbers.load(Ordering::Acquire));
        games
            .get(numbers.game)
            .map_or("of an unknown name", |game| game.name())
    }

    /// What the room shows to all players, read without the lock; `None` if no room is open. It was true at one moment.
    pub fn published(&self) -> Option<PublishedRoom> {
        loop {
            let generation = self.open_generation()?;
            let numbers = PublishedNumbers::unpack(self.published_numbers.load(Ordering::Acquire));
            let mut name = [0; ROOM_NAME_BYTES_MAX];
            let name_bytes = usize::try_from(self.published_name_bytes.load(Ordering::Relaxed));
            let name = &mut name[..name_bytes.unwrap_or(usize::MAX).min(ROOM_NAME_BYTES_MAX)];
            self.published_name.copy_out(0, name);
            fence(Ordering::Acquire);
            // Otherwise the record was given to another room meanwhile, which takes a writer two transactions.
            if self.open_generation() == Some(generation) {
                let name = std::str::from_utf8(name).ok().and_then(RoomName::new);
                return Some(PublishedRoom {
                    generation,
                    numbers,
                    name: name.unwrap_or(RoomName::EMPTY),
                });
            }
        }
    }

    /// The numbers of [`published`](Self::published) alone, read without the lock; `None` if no room is open.
    pub fn published_numbers(&self) -> Option<PublishedNumbers> {
        self.open_generation()?;
        Some(PublishedNumbers::unpack(
            self.published_numbers.load(Ordering::Acquire),
        ))
    }

    /// Whether the seat has a player with a connection, as the room was told last. Read without the lock.
    pub(crate) fn is_seat_connected(&self, seat: u8) -> bool {
        self.readers.load(Ordering::Acquire) >> seat & 1 != 0
    }

    /// The connection near which the room's members are to be served. If there is none any more, it is `mine` from
    /// now on.
    pub fn colocation_anchor(
        &self,
        mine: ConnectionRef,
        is_there: impl Fn(ConnectionRef) -> bool,
    ) -> ConnectionRef {
        let current = self.anchor.load(Ordering::Acquire);
        let anchor = ConnectionRef::from_id(current);
        if current != 0 && is_there(anchor) {
            return anchor;
        }
        match self
            .anchor
            .compare_exchange(current, mine.to_id(), Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) | Err(0) => mine,
            Err(other) => ConnectionRef::from_id(other),
        }
    }

    /// Removes the connection as the anchor: it no longer belongs to a member.
    pub fn clear_colocation_anchor(&self, connection: ConnectionRef) {
        let _ = self
            .anchor
            .compare_exchange(connection.to_id(), 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Clears the subscribers of a room that is about to be opened, under its lock.
    pub(crate) fn reset_subscribers(&self) {
        self.anchor.store(0, Ordering::Release);
        // A member of the former room may still have to be told how it ended.
        if self.log.unannounced_head().is_none() {
            self.subscribers.clear();
        }
    }

    /// The seat's player was given the events up to `offset`, for good.
    pub fn set_read_up_to(&self, seat: u8, offset: u64) {
        self.read_up_to[usize::from(seat)].store(offset, Ordering::Release);
    }

    /// The seat has a new player, whose reading begins at `offset` of the log.
    pub(crate) fn begin_reading(&self, seat: u8, offset: u64) {
        self.set_read_up_to(seat, offset);
        self.waited_ms[usize::from(seat)].store(0, Ordering::Relaxed);
    }

    /// The seats, as bits, whose connected readers have so much unread that the room's writers should wait for them:
    /// more than [`ROOM_LOG_UNREAD_BYTES_MAX`], or half of that for the writer's own seat. In a window, they wait for a
    /// reader for `wait_ms` at most. Read without the lock.
    pub(crate) fn readers_behind(&self, own_seat: Option<u8>, times: impl Fn() -> (u64, u64)) -> u64 {
        let readers = self.readers.load(Ordering::Acquire);
        let tail = self.log.tail();
        let is_behind = |seat: &u8| {
            let offset = self.read_up_to[usize::from(*seat)].load(Ordering::Acquire);
            let bytes_max = match Some(*seat) == own_seat {
                true => ROOM_LOG_UNREAD_BYTES_MAX / 2,
                false => ROOM_LOG_UNREAD_BYTES_MAX,
            };
            // A wait does not help a reader for which events were overwritten already.
            self.log.unread_bytes(offset) > bytes_max && offset >= tail && {
                let (now_ms, wait_ms) = times();
                self.waited_in_window_ms(*seat, now_ms) < wait_ms
            }
        };
        seats_in(readers)
            .filter(is_behind)
            .fold(0, |seats, seat| seats | 1 << seat)
    }

    /// Notes that a writer has waited for the readers in these seats (bits). Returns the number of those for which no
    /// writer waits any more in this window.
    pub(crate) fn add_reader_wait(&self, seats: u64, waited_ms: u64, (now_ms, wait_ms): (u64, u64)) -> u64 {
        let is_given_up = |seat: &u8| {
            let before_ms = self.waited_in_window_ms(*seat, now_ms);
            let after_ms = before_ms.saturating_add(waited_ms);
            if before_ms == 0 {
                self.wait_window_from_ms[usize::from(*seat)].store(now_ms, Ordering::Relaxed);
            }
            // If two writers wait at once, one wait may be lost.
            self.waited_ms[usize::from(*seat)].store(after_ms, Ordering::Relaxed);
            before_ms < wait_ms && after_ms >= wait_ms
        };
        seats_in(seats).filter(is_given_up).count() as u64
    }

    fn waited_in_window_ms(&self, seat: u8, now_ms: u64) -> u64 {
        let from_ms = self.wait_window_from_ms[usize::from(seat)].load(Ordering::Relaxed);
        match now_ms < from_ms + READER_WAIT_WINDOW_MS {
            true => self.waited_ms[usize::from(seat)].load(Ordering::Relaxed),
            false => 0,
        }
    }

    /// Whether a timer of the room is due, read without the lock.
    pub fn is_due(&self, now_us: u64) -> bool {
        self.open_generation().is_some() && self.due_us() <= now_us
    }

    /// When a timer of the room is next due, in microseconds of the monotonic clock, read without the lock.
    pub(crate) fn due_us(&self) -> u64 {
        self.due_us.load(Ordering::Acquire)
    }

    /// Whether the room's game has recently crashed a ticker, or is slowed: it is left to one ticker, so that it keeps
    /// no other one. Read without the lock.
    pub(crate) fn is_suspect(&self, now_ms: u64) -> bool {
        self.open_generation().is_some_and(|generation| {
            self.tick_conduct.load(generation).is_slowed || self.crash_counter.is_recent(generation, now_ms)
        })
    }
}

/// What a room shows to all players, copied at one moment without its lock.
#[derive(Debug, Clone, Copy)]
pub struct PublishedRoom {
    /// Which of the rooms that have used the record it is.
    pub generation: u32,
    /// Its numbers.
    pub numbers: PublishedNumbers,
    /// Its name.
    pub name: RoomName,
}

/// The numbers that a room shows to all players. They are published in one word, so they fit each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedNumbers {
    /// Index of the game among the server's games.
    pub game: u16,
    /// The number of seats.
    pub seats: u8,
    /// Taken seats.
    pub taken: u8,
    /// The match's phase: see [`phase_of`].
    pub phase: u8,
    /// The room has a passcode.
    pub has_passcode: bool,
    /// The room is in no list and no quick match.
    pub is_unlisted: bool,
    /// A seat is neither taken nor reserved.
    pub has_free_seat: bool,
    /// Players that watch without a seat.
    pub spectators: u32,
}

const _: () = {
    assert!(GAMES_MAX <= 1 << 8 && SEATS_MAX < 1 << 6);
    assert!(PLAYERS_OR_ROOMS_MAX < 1 << 24);
};

impl PublishedNumbers {
    fn of(view: &View<'_>, record: &RoomRecord) -> Self {
        let number = |cell: &Guarded<u32>| u8::try_from(view.get(cell)).unwrap_or(u8::MAX);
        let (taken, seats) = (view.get(&record.taken), view.get(&record.capacity));
        let flags = view.get(&record.flags);
        let occupied = taken | view.get(&record.reserved);
        Self {
            game: number(&record.game).into(),
            seats: number(&record.capacity),
            taken: u8::try_from(taken.count_ones()).unwrap_or(u8::MAX),
            phase: number(&record.phase),
            has_passcode: flags & HAS_PASSCODE != 0,
            is_unlisted: flags & UNLISTED != 0,
            has_free_seat: occupied.trailing_ones() < seats,
            spectators: view.get(&record.spectators),
        }
    }

    fn pack(self) -> u64 {
        let flags = [self.has_passcode, self.is_unlisted, self.has_free_seat];
        let fields = [
            (u64::from(self.game), 8),
            (u64::from(self.seats), 6),
            (u64::from(self.taken), 6),
            (u64::from(self.phase), 2),
            (u64::from(self.spectators), 24),
        ];
        let bits = flags.map(|flag| (u64::from(flag), 1));
        let packed = fields.into_iter().chain(bits);
        packed.fold(0, |word, (value, bits)| word << bits | value & ((1 << bits) - 1))
    }

    fn unpack(word: u64) -> Self {
        // From the last field packed to the first.
        let mut rest = word;
        let mut take = |bits: u32| {
            let value = rest & ((1 << bits) - 1);
            rest >>= bits;
            value
        };
        let [has_free_seat, is_unlisted, has_passcode] = [take(1), take(1), take(1)].map(|flag| flag != 0);
        let spectators = u32::try_from(take(24)).expect("masked");
        let [phase, taken, seats, game] = [2, 6, 6, 8].map(|bits| u8::try_from(take(bits)).expect("masked"));
        Self {
            game: game.into(),
            seats,
            taken,
            phase,
            has_passcode,
            is_unlisted,
            has_free_seat,
            spectators,
        }
    }
}

/// Whether no player needs the events in the log any more: all are connected and were given them. (How far spectators
/// have read is not current.)
pub fn all_read(tx: &RoomTx<'_>) -> bool {
    let record = tx.record();
    let taken = tx.get(&record.taken);
    let head = record.log.head(tx);
    // Offsets only grow, so a former player's offset is never beyond the present player's.
    let has_read = |seat: u8| record.read_up_to[usize::from(seat)].load(Ordering::Acquire) == head;
    taken != 0
        && !record.watched.is_active()
        && tx.get(&record.spectators) == 0
        && taken == tx.get(&record.connected)
        && seats_in(taken).all(has_read)
}

/// The room's game.
///
/// # Panics
///
/// If the server does not offer it. Rooms are created with an offered game, and all processes offer the same.
pub fn game_of<'g>(tx: &RoomTx<'_>, games: &'g Games) -> &'g dyn AnyGame {
    let index = u16::try_from(tx.get(&tx.record().game)).unwrap_or(u16::MAX);
    games.get(index).expect("a room's game is one of the server's")
}

/// Whether the transaction's room is the one that `room` names, and is open.
pub fn is_open(tx: &RoomTx<'_>, room: RoomRef) -> bool {
    let record = tx.record();
    tx.get(&record.generation) == room.generation() && tx.get(&record.life) == RoomLife::OPEN.raw()
}

/// Whether the player is where its own record says. The owner may have taken its seat meanwhile.
pub fn is_member(tx: &RoomTx<'_>, room: RoomRef, player: PlayerRef, seat: Option<u8>) -> bool {
    let seats = &tx.record().seats;
    is_open(tx, room) && seat.is_none_or(|seat| tx.get(&seats[usize::from(seat)]).player == player)
}

/// The taken seats.
pub fn occupants(tx: &RoomTx<'_>) -> impl Iterator<Item = (u8, Seat)> {
    let record = tx.record();
    let capacity = tx.get(&record.capacity) as usize;
    let seats: Vec<Seat> = record
        .seats
        .iter()
        .take(capacity)
        .map(|seat| tx.get(seat))
        .collect();
    (0..).zip(seats).filter(|(_, seat)| seat.player.is_some())
}

/// Copies the game's current state.
pub fn read_state(tx: &RoomTx<'_>) -> Vec<u8> {
    let record = tx.record();
    let mut state = vec![0; (tx.get(&record.state_bytes) as usize).min(GAME_STATE_BYTES_MAX)];
    record.states[tx.get(&record.state_slot) as usize % 2].copy_out(0, &mut state);
    state
}

/// Makes `state` the current state of a match with `seats` seats. It is written to the other slot, which nothing
/// refers to before the commit.
pub fn write_state(tx: &mut RoomTx<'_>, state: &[u8], seats: u32) {
    let record = tx.record();
    let slot = 1 - tx.get(&record.state_slot) % 2;
    tx.write(&record.states[slot as usize], 0, state);
    tx.set(&record.state_slot, slot);
    tx.set(
        &record.state_bytes,
        u32::try_from(state.len()).expect("a state fits its slot"),
    );
    tx.set(&record.match_seats, seats);
}

/// The seats whose bits are set.
pub(crate) fn seats_in(bits: u64) -> impl Iterator<Item = u8> {
    // Allocates nothing: mostly no bit is set, and every commit in a room calls this.
    let mut rest = bits;
    std::iter::from_fn(move || {
        let seat = (rest != 0).then(|| rest.trailing_zeros())?;
        rest &= rest - 1;
        u8::try_from(seat).ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn published_numbers_are_read_as_they_were_written(
            (game, seats, phase) in (0_u16..256, 0_u8..=SEATS_MAX, 0_u8..3),
            taken in 0_u8..=SEATS_MAX,
            spectators in 0_u32..=PLAYERS_OR_ROOMS_MAX,
            (has_passcode, is_unlisted, has_free_seat) in any::<(bool, bool, bool)>(),
        ) {
            let numbers = PublishedNumbers {
                game, seats, taken, phase, has_passcode, is_unlisted, has_free_seat, spectators,
            };
            prop_assert_eq!(PublishedNumbers::unpack(numbers.pack()), numbers);
        }
    }
}
