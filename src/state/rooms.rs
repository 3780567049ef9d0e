//! Room records: seats, the game's state, and the log of events.

use crate::limits::BANS_PER_ROOM_MAX;
use crate::state::running_game::RoomCrashCounter;
use crate::state::stream_tap::TapLease;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::limits::{
    GAME_OPTIONS_BYTES_MAX, GAME_STATE_BYTES_MAX, ROOM_LOG_BYTES, ROOM_NAME_BYTES_MAX, SEATS_MAX,
};
use crate::state::directory::Name;
use crate::state::fixed_string::{ShortBytes, Text};
use crate::state::layout::{ConnectionRef, PlayerRef, RoomRef};
use forkade_games::{AnyGame, Games};
use shmem::doorbell::Subscribers;
use shmem::event_log::EventLog;
use shmem::lock::Lock;
use shmem::shared_record;
use shmem::sys::memory::{Guarded, SharedBytes};
use shmem::transaction::{Record, Tx, View};

shared_record! {
    /// A room. Everything guarded is guarded by the room's own lock.
    pub struct RoomRecord {
        lock: Lock,
        /// Which life of the record this is; [`RoomEntry`](crate::state::directory::RoomEntry) says which was given out last.
        pub generation: Guarded<u32>,
        /// A [`RoomLife`].
        pub life: Guarded<u32>,
        /// A phase of the match: see [`phase_of`].
        pub phase: Guarded<u32>,
        /// Index of the game among the server's games.
        pub game: Guarded<u32>,
        /// How many seats the room has.
        pub capacity: Guarded<u32>,
        /// The owner's seat; `u32::MAX` if nobody has a seat.
        pub owner: Guarded<u32>,
        /// Who may find and watch the room: see the settings.
        pub flags: Guarded<u32>,
        /// How long a turn may take, in seconds; 0: as long as it takes.
        pub turn_seconds: Guarded<u32>,
        /// How many players watch without a seat.
        pub spectators: Guarded<u32>,
        /// Bit per seat: somebody sits there.
        pub taken: Guarded<u64>,
        /// Bit per seat: its player's connection is alive.
        pub connected: Guarded<u64>,
        /// Bit per seat: its player is ready for the next match.
        pub ready: Guarded<u64>,
        /// Which of the two states is the current one.
        pub state_slot: Guarded<u32>,
        /// Length of the current state, in bytes. A state may well have none.
        pub state_bytes: Guarded<u32>,
        /// Nonzero if there is a state: a match that is being played or was. It is the number of its seats.
        pub match_seats: Guarded<u32>,
        /// The options the room was created with, as its game encodes them.
        pub options: Guarded<RoomOptions>,
        /// When the game's next tick is due, in milliseconds of the monotonic clock.
        pub next_tick_at_ms: Guarded<u64>,
        /// The room's name.
        pub name: Guarded<RoomName>,
        /// The passcode's salt and hash, if it has one.
        pub passcode: Guarded<Passcode>,
        /// Whom the owner has sent out.
        pub bans: Guarded<Bans>,
        /// The secret of the room's invite code.
        pub invite_secret: Guarded<u64>,
        /// Whose clock is running; `u32::MAX`: nobody's.
        pub turn_seat: Guarded<u32>,
        /// When it runs out, in milliseconds of the monotonic clock; `u64::MAX`: never.
        pub turn_ends_at_ms: Guarded<u64>,
        /// Bit per seat: it is kept for somebody.
        pub reserved: Guarded<u64>,
        /// Who sits where.
        pub seats: [Guarded<Seat>; SEATS_MAX as usize],
        /// For whom seats are kept; means something only where [`reserved`](Self::reserved) says so.
        pub kept_for: [Guarded<Seat>; SEATS_MAX as usize],
        /// And until when, in milliseconds of the monotonic clock.
        pub kept_until_ms: [Guarded<u64>; SEATS_MAX as usize],
        /// The room's reference while it is open, else 0; for readers without the lock.
        open: AtomicU64,
        /// When time next makes a difference (a tick, the end of a turn or of a reservation), in milliseconds of the monotonic clock;
        /// `u64::MAX` if it does not; for the ticker.
        due_ms: AtomicU64,
        /// Which processes listen for the room's doorbell.
        pub subscribers: Subscribers,
        /// The connection beside which the room's members are to be served, as a reference's number; 0 for none.
        home: AtomicU64,
        /// Whether an operator watches.
        pub watched: TapLease,
        /// What it has cost in tickers.
        pub blame: RoomCrashCounter,
        /// Offset in the log up to which the seat's player was given the events, or less; for the writer, who need not keep what
        /// all have read.
        read_up_to: [AtomicU64; SEATS_MAX as usize],
        /// The encoded game, twice: a change is written to the slot that is not current.
        pub states: [SharedBytes<{ GAME_STATE_BYTES_MAX / 8 }>; 2],
        /// What happened, for everybody in the room.
        pub log: EventLog<{ ROOM_LOG_BYTES / 8 }>,
    }
}

/// A transaction under a room's lock.
pub type RoomTx<'h> = Tx<'h, RoomRecord>;
/// A room's options, as plain data.
pub type RoomOptions = ShortBytes<GAME_OPTIONS_BYTES_MAX>;
/// A room's name, as plain data.
pub type RoomName = Text<ROOM_NAME_BYTES_MAX>;

/// The players whom a room's owner has sent out, the last one first. Beyond the limit the oldest is forgotten.
pub(crate) type Bans = [PlayerRef; BANS_PER_ROOM_MAX];

/// Who sits in a seat.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Seat {
    /// The player; nobody if the seat is free.
    pub player: PlayerRef,
    /// The player's name.
    pub name: Name,
    padding: [u8; 7],
}

impl Seat {
    /// A free seat.
    pub const FREE: Self = Self::of(PlayerRef::NONE, Name::EMPTY);

    /// A taken seat.
    pub const fn of(player: PlayerRef, name: Name) -> Self {
        Self {
            player,
            name,
            padding: [0; 7],
        }
    }
}

/// A room's passcode as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Passcode {
    /// Nonzero if there is one.
    pub set: u8,
    /// Random, so that equal passcodes do not look equal.
    pub salt: [u8; 15],
    /// SHA-256 of salt and passcode.
    pub hash: [u8; 32],
}

impl Passcode {
    /// None is asked for.
    pub const NONE: Self = Self {
        set: 0,
        salt: [0; 15],
        hash: [0; 32],
    };

    /// Hashes a passcode with a fresh salt.
    ///
    /// SHA-256 is quick to guess through for who can read the server's memory; it lives no longer than its room, and
    /// a slow hash would let anybody who asks to join burn the server's time.
    pub fn new(text: &str) -> Self {
        let mut salt = [0; 15];
        getrandom::fill(&mut salt).expect("the kernel gives random bytes");
        Self {
            set: 1,
            salt,
            hash: hash_of(&salt, text),
        }
    }

    /// Whether somebody who gives `text` may come in.
    pub fn admits(&self, text: Option<&str>) -> bool {
        self.set == 0 || text.is_some_and(|text| hash_of(&self.salt, text) == self.hash)
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
    /// Not opened, or not yet again.
    pub const CLOSED: Self = Self(0);
    /// Can be seen and joined.
    pub const OPEN: Self = Self(1);
    /// Everybody has left; the record is to be taken back by whoever finds this.
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

/// The phase of a match that a room's raw number stands for.
pub fn phase_of(raw: u32) -> forkade_protocol::Phase {
    match raw {
        1 => forkade_protocol::Phase::Playing,
        2 => forkade_protocol::Phase::Finished,
        _ => forkade_protocol::Phase::Waiting,
    }
}

/// The raw number in a room's record for a phase of the match.
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
        // `open` names only a generation; the index is the reader's, who found the record by it.
        let open = view.get(&self.life) == RoomLife::OPEN.raw();
        self.open.store(
            if open {
                u64::from(view.get(&self.generation))
            } else {
                0
            },
            Ordering::Release,
        );
        let clocks = [view.get(&self.next_tick_at_ms), view.get(&self.turn_ends_at_ms)];
        let reserved = seats_in(view.get(&self.reserved));
        let due_ms = reserved
            .map(|seat| view.get(&self.kept_until_ms[usize::from(seat)]))
            .chain(clocks)
            .filter(|_| open)
            .min();
        self.due_ms.store(due_ms.unwrap_or(u64::MAX), Ordering::Release);
        self.log.publish(view);
    }
}

impl RoomRecord {
    /// The generation of the room that is open in this record, without the lock: it may be gone the next moment.
    pub fn open_generation(&self) -> Option<u32> {
        u32::try_from(self.open.load(Ordering::Acquire))
            .ok()
            .filter(|generation| *generation != 0)
    }

    /// Beside which connection the room's members are to be served: if there is none any more, beside `mine` from now on.
    pub fn colocation_anchor(
        &self,
        mine: ConnectionRef,
        is_there: impl Fn(ConnectionRef) -> bool,
    ) -> ConnectionRef {
        let known = self.home.load(Ordering::Acquire);
        let home = ConnectionRef::from_id(known);
        if known != 0 && is_there(home) {
            return home;
        }
        match self
            .home
            .compare_exchange(known, mine.to_id(), Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) | Err(0) => mine,
            Err(other) => ConnectionRef::from_id(other),
        }
    }

    /// The connection is not one of a member any more: the others are to gather elsewhere from now on, if it was beside this one.
    pub fn clear_colocation_anchor(&self, connection: ConnectionRef) {
        let _ = self
            .home
            .compare_exchange(connection.to_id(), 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Nobody listens yet: the room is about to be opened, under its lock. (When it closed, those who had been in it were to hear of it.)
    pub(crate) fn reset_subscribers(&self) {
        self.home.store(0, Ordering::Release);
        // Somebody may still have to hear how the former room ended.
        if self.log.unannounced_head().is_none() {
            self.subscribers.clear();
        }
    }

    /// The seat's player was given the events up to `offset`, for good.
    pub fn set_read_up_to(&self, seat: u8, offset: u64) {
        self.read_up_to[usize::from(seat)].store(offset, Ordering::Release);
    }

    /// Whether time makes a difference in the room now, without the lock.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.open_generation().is_some() && self.due_ms() <= now_ms
    }

    /// When time next makes a difference, in milliseconds of the monotonic clock, without the lock.
    pub(crate) fn due_ms(&self) -> u64 {
        self.due_ms.load(Ordering::Acquire)
    }
}

/// Whether nobody needs the events in the room's log any more: all are connected, and were given them. (How far those who only
/// watch have read is not known.)
pub fn all_read(tx: &RoomTx<'_>) -> bool {
    let record = tx.record();
    let taken = tx.get(&record.taken);
    let head = record.log.head(tx);
    // Offsets only grow, so what a former occupant of the seat had read is never more than what the present one has.
    let has_read =
        |(seat, offset): (u32, &AtomicU64)| taken >> seat & 1 == 0 || offset.load(Ordering::Acquire) == head;
    taken != 0
        && !record.watched.is_active()
        && tx.get(&record.spectators) == 0
        && taken == tx.get(&record.connected)
        && (0..).zip(&record.read_up_to).all(has_read)
}

/// The room's game.
///
/// # Panics
///
/// If the server does not offer it: rooms are created with a game that it does, and all its processes offer the same.
pub fn game_of<'g>(tx: &RoomTx<'_>, games: &'g Games) -> &'g dyn AnyGame {
    let index = u16::try_from(tx.get(&tx.record().game)).unwrap_or(u16::MAX);
    games.get(index).expect("a room's game is one of the server's")
}

/// Whether the transaction's room is still the one that `room` names.
pub fn is_open(tx: &RoomTx<'_>, room: RoomRef) -> bool {
    let record = tx.record();
    tx.get(&record.generation) == room.generation() && tx.get(&record.life) == RoomLife::OPEN.raw()
}

/// Whether the player is where its own record says. A seat may have been taken from it without its doing.
pub fn is_member(tx: &RoomTx<'_>, room: RoomRef, player: PlayerRef, seat: Option<u8>) -> bool {
    let seats = &tx.record().seats;
    is_open(tx, room) && seat.is_none_or(|seat| tx.get(&seats[usize::from(seat)]).player == player)
}

/// The seats that the room has and their present occupants.
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

/// Copies the current state of the game.
pub fn read_state(tx: &RoomTx<'_>) -> Vec<u8> {
    let record = tx.record();
    let mut state = vec![0; (tx.get(&record.state_bytes) as usize).min(GAME_STATE_BYTES_MAX)];
    record.states[tx.get(&record.state_slot) as usize % 2].copy_out(0, &mut state);
    state
}

/// Makes `state` the current state, of a match with `seats` seats: written to the other slot, which nothing refers to until the
/// commit.
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
    // Mostly there are none, and every commit in a room asks.
    let mut rest = bits;
    std::iter::from_fn(move || {
        let seat = (rest != 0).then(|| rest.trailing_zeros())?;
        rest &= rest - 1;
        u8::try_from(seat).ok()
    })
}
