//! Player records: a session's byte streams, and where its player is. They outlive connections and processes.
//!
//! Name, token and presence lie in the [`Identity`](crate::state::directory::Identity), under the lobby's lock. A
//! player record is owned by the one process that serves the player, which changes it under whatever lock it holds.
//! Other processes read only its atomic fields.

use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::limits::{IGNORED_NAMES_MAX, INPUT_RING_BYTES, OUTPUT_RING_BYTES};
use crate::state::chat::ChatCursor;
use crate::state::directory::{Name, NameHashes};
use crate::state::layout::RoomRef;
use crate::state::stream_tap::TapLease;
use forkade_text::input;
use forkade_text::telnet::options::RefusedOptions;
use shmem::byte_ring::ByteRing;
use shmem::lock::Lock;
use shmem::shared_record;
use shmem::sys::memory::{Guarded, PageStart};
use shmem::transaction::{Attachment, Record, SingleWriter, Tx, View};

/// The ring of bytes from the player.
pub type InputRing = ByteRing<{ INPUT_RING_BYTES / 8 }>;
/// The ring of bytes to the player.
pub type OutputRing = ByteRing<{ OUTPUT_RING_BYTES / 8 }>;

shared_record! {
    /// A player's session.
    pub struct PlayerRecord {
        lock: Lock,
        noted_lock: AtomicU64,
        /// The player's name, as in the identity.
        pub name: Guarded<Name>,
        /// Where the player is.
        pub membership: Guarded<Membership>,
        /// Offset in the room's log behind the last event copied to the output ring.
        pub log_cursor: Guarded<u64>,
        /// Offset in the lobby's chat behind the last line copied to the output ring.
        pub chat_cursor: Guarded<u64>,
        /// Number of that line, or of the last one before the player connected.
        pub chat_line: Guarded<u64>,
        /// By [`Account`]: the time up to which the player has paid, in microseconds of the monotonic clock.
        pub paid_until_us: [Guarded<u64>; Account::COUNT],
        /// How many names the player ignores: the first of `ignored_names`.
        pub(crate) ignored: Guarded<u32>,
        /// Input offset up to which frames or lines were executed.
        pub consumed: Guarded<u64>,
        /// Output offset behind the last whole frame.
        pub output_head: Guarded<u64>,
        /// Offset of the oldest output byte kept for a resume. Advanced before the byte is overwritten, outside the
        /// journal.
        pub output_kept_from: AtomicU64,
        /// Nonzero if at most one ring of output is sent before the client confirms it. So it is for clients of version
        /// 2, and for others from their first confirm on.
        pub confirms: AtomicU32,
        /// Output offset up to which bytes were ever written. Advanced before a byte is written, outside the journal,
        /// because other processes read it without a lock.
        pub output_reached: AtomicU64,
        /// Protocol version of the session. Set before the player exists, and constant from then on.
        pub version: AtomicU32,
        /// Nonzero if the client wants accepted requests acknowledged. Constant like the version.
        pub acknowledges: AtomicU32,
        /// Nonzero for a player in [text mode](forkade_text::input).
        pub is_text: Guarded<u32>,
        /// In text mode: the parser's state behind the consumed input.
        pub input_state: Guarded<input::InputState>,
        /// In text mode: the telnet options that were refused.
        pub telnet_refused: Guarded<RefusedOptions>,
        /// In text mode: the secret part of the resume word. Others check its hash, in the identity; the player can ask
        /// for the word.
        pub resume_secret: Guarded<u64>,
        /// In text mode: what the player was last shown of a real-time match.
        pub(crate) last_drawing: Guarded<LastDrawing>,
        /// Nonzero in text mode if the player has said that its terminal understands ANSI's control sequences.
        pub(crate) has_ansi: Guarded<u32>,
        /// In text mode: resume words that were refused.
        pub words_refused: Guarded<u32>,
        /// In text mode: input offset up to which telnet commands were answered.
        pub telnet_answered: Guarded<u64>,
        /// Input offset before which bytes may have been overwritten. Advanced before they are.
        pub(crate) input_overwritten_before: AtomicU64,
        /// Output offset before which bytes may have been overwritten because the ring was restarted. Advanced before
        /// they are.
        pub(crate) output_restarted_at: AtomicU64,
        /// Held while an operator traces the streams.
        pub traced: TapLease,
        /// The state of the streams, for readers without the lock.
        pub(crate) published: PublishedStreams,
        /// Bytes from the player.
        pub input: InputRing,
        output_begins_a_page: PageStart,
        /// Bytes to the player.
        pub output: OutputRing,
        /// At the end, because few players use it: see [`ignored`](Self::ignored).
        pub(crate) ignored_names: [IgnoredName; IGNORED_NAMES_MAX],
    }
}

shared_record! {
    /// A name that a player ignores.
    pub(crate) struct IgnoredName {
        pub(crate) hashes: Guarded<NameHashes>,
        pub(crate) name: Guarded<Name>,
    }
}

shared_record! {
    /// The state of a player's streams as the player's process last published it, between two transactions.
    pub(crate) struct PublishedStreams {
        /// The player's reference.
        pub(crate) player: AtomicU64,
        /// The room's reference, if the player is in one.
        pub(crate) room: AtomicU64,
        /// Nonzero in text mode.
        pub(crate) is_text: AtomicU64,
        /// The player's seat + 1; 0 without one.
        pub(crate) seat: AtomicU64,
        pub(crate) input_received: AtomicU64,
        pub(crate) input_base: AtomicU64,
        pub(crate) consumed: AtomicU64,
        pub(crate) output_sent: AtomicU64,
        pub(crate) output_base: AtomicU64,
        pub(crate) output_head: AtomicU64,
    }
}

impl Record for PlayerRecord {
    fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Nothing: other processes read only what the owner stores itself.
    fn publish(&'static self, _view: &View<'_>) {}
}

impl SingleWriter for PlayerRecord {
    fn noted_lock(&self) -> &AtomicU64 {
        &self.noted_lock
    }
}

/// What a player is charged for: see [`rate`](crate::session::rate).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// Lines of chat.
    Chat,
    /// Requests that others see.
    Requests,
    /// Requests that were rejected.
    Failures,
    /// Rooms that lists and searches have examined.
    Searches,
    /// Deliveries of the events that the player's connection was lost and is back.
    Returns,
}

impl Account {
    /// The number of accounts.
    pub const COUNT: usize = 5;
}

/// A player's accounts: by [`Account`], the time up to which the player has paid.
pub type PaidUntil = [u64; Account::COUNT];

/// Where a player is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Membership {
    state: u32,
    seat: u32,
    /// The room, unless the player is in the lobby.
    pub room: RoomRef,
}

/// In a [`Membership`]: a spectator, without a seat.
const WATCHING: u32 = u32::MAX;

impl Membership {
    /// In the lobby.
    pub const LOBBY: Self = Self {
        state: 0,
        seat: 0,
        room: RoomRef::NONE,
    };

    /// The player was given this room record but has not opened it yet. Any process that finds this completes or
    /// undoes it.
    pub fn opening(room: RoomRef) -> Self {
        Self {
            state: 1,
            seat: 0,
            room,
        }
    }

    /// In a room, in a seat or as a spectator.
    pub fn in_room(room: RoomRef, seat: Option<u8>) -> Self {
        Self {
            state: 2,
            seat: seat.map_or(WATCHING, u32::from),
            room,
        }
    }

    /// The room that the player is about to open.
    pub fn being_opened(self) -> Option<RoomRef> {
        (self.state == 1).then_some(self.room)
    }

    /// Whether the player has a seat in a room.
    pub fn has_seat(self) -> bool {
        matches!(self.place(), Some((_, Some(_))))
    }

    /// The player's room, and the seat unless it is a spectator.
    pub fn place(self) -> Option<(RoomRef, Option<u8>)> {
        (self.state == 2).then(|| (self.room, u8::try_from(self.seat).ok()))
    }
}

/// What a player in text mode was last shown of a real-time match.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct LastDrawing {
    /// A hash of the drawing.
    pub(crate) hash: u64,
    /// When the match was last looked at, in milliseconds of the monotonic clock.
    pub(crate) looked_at_ms: u64,
    /// The output offset behind the drawing.
    pub(crate) output_head: u64,
    /// The rows at the top of the terminal that the drawing takes; 0 if it was drawn as lines.
    pub(crate) rows: u32,
    /// Nonzero if the player has moved since then, and has got no answer: it is drawn in any case.
    pub(crate) is_owed: u32,
}

impl LastDrawing {
    /// A hash of a drawing.
    pub(crate) fn hash_of(drawing: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(drawing.as_bytes());
        hasher.finish()
    }
}

/// What a client has negotiated in its greeting. It holds for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) version: u16,
    /// The client wants accepted requests acknowledged.
    pub(crate) acknowledges: bool,
}

impl Dialect {
    /// Of players in text mode and of programs that negotiate nothing.
    pub(crate) const FIRST: Self = Self {
        version: 1,
        acknowledges: false,
    };
}

impl PlayerRecord {
    /// The names that the player ignores.
    pub(crate) fn ignored_names<'r>(
        &'r self,
        attachment: &Attachment,
    ) -> impl Iterator<Item = &'r IgnoredName> + use<'r> {
        let count = attachment.read_own(&self.ignored) as usize;
        self.ignored_names[..count].iter()
    }

    /// What the client has negotiated.
    pub(crate) fn dialect(&self) -> Dialect {
        Dialect {
            version: u16::try_from(self.version.load(Ordering::Acquire)).unwrap_or(1),
            acknowledges: self.acknowledges.load(Ordering::Acquire) != 0,
        }
    }

    /// Initialises the record for a new player, in the transaction that allocates it.
    pub(crate) fn reset<R: Record>(
        &self,
        tx: &mut Tx<'_, R>,
        name: Name,
        chat: ChatCursor,
        paid_until_us: PaidUntil,
        dialect: Dialect,
    ) {
        tx.set(&self.name, name);
        tx.set(&self.membership, Membership::LOBBY);
        tx.set(&self.log_cursor, 0);
        tx.set(&self.chat_cursor, chat.cursor);
        tx.set(&self.chat_line, chat.line);
        for (account, until_us) in self.paid_until_us.iter().zip(paid_until_us) {
            tx.set(account, until_us);
        }
        tx.set(&self.ignored, 0);
        tx.set(&self.consumed, 0);
        tx.set(&self.output_head, 0);
        tx.set(&self.is_text, 0);
        tx.set(&self.last_drawing, LastDrawing::default());
        tx.set(&self.has_ansi, 0);
        self.input.rebase(tx, 0);
        self.output.rebase(tx, 0);
        // Not journaled: until the commit the record belongs to no player.
        self.version.store(dialect.version.into(), Ordering::Release);
        self.confirms
            .store(u32::from(dialect.version >= 2), Ordering::Release);
        self.acknowledges
            .store(dialect.acknowledges.into(), Ordering::Release);
        self.output_kept_from.store(0, Ordering::Release);
        self.output_reached.store(0, Ordering::Release);
        self.input_overwritten_before.store(0, Ordering::Release);
        self.output_restarted_at.store(0, Ordering::Release);
    }

    /// The output offsets that are kept, from the oldest byte to the head.
    pub(crate) fn kept_output(&self, attachment: &Attachment) -> std::ops::Range<u64> {
        self.output_kept_from.load(Ordering::Acquire)..attachment.read_own(&self.output_head)
    }
}
