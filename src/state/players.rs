//! Player records: a session's bytes and where its player is. They outlive connections and processes.
//!
//! Who the player *is* (name, token, presence) lies in the [`Identity`](crate::state::directory::Identity), under the lobby's lock. What lies
//! here belongs to the one process that animates the player, and is changed under whatever lock that process holds.

use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::limits::{INPUT_RING_BYTES, OUTPUT_RING_BYTES};
use crate::state::chat::ChatPlace;
use crate::state::directory::Name;
use crate::state::layout::RoomRef;
use crate::state::stream_tap::TapLease;
use forkade_text::input;
use forkade_text::telnet::RefusedOptions;
use shmem::byte_ring::ByteRing;
use shmem::lock::Lock;
use shmem::shared_record;
use shmem::sys::memory::{Guarded, PageStart};
use shmem::transaction::{Attachment, Record, SingleWriter, Tx, View};

/// The ring of what the player has sent.
pub type InputRing = ByteRing<{ INPUT_RING_BYTES / 8 }>;
/// The ring of what the player is sent.
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
        /// Offset in the room's log behind the last event that was put into the output ring.
        pub log_cursor: Guarded<u64>,
        /// Offset in the lobby's chat behind the last line that was put into the output ring.
        pub chat_cursor: Guarded<u64>,
        /// Number of that line, or of the last one before the player came.
        pub chat_line: Guarded<u64>,
        /// Until when the lines that the player has said are paid for, in microseconds of the monotonic clock.
        pub chat_paid_until_us: Guarded<u64>,
        /// The same of the requests that [have their price](crate::session::rate).
        pub requests_paid_until_us: Guarded<u64>,
        /// Stream offset up to which the input was handled: always the end of a frame, or of a line.
        pub consumed: Guarded<u64>,
        /// Stream offset behind the last byte of output: always the end of a frame.
        pub output_head: Guarded<u64>,
        /// Stream offset of the oldest byte of output that is still kept for a resume. It is advanced for good before the byte is
        /// overwritten, outside the journal.
        pub output_kept_from: AtomicU64,
        /// Stream offset beyond which no byte of output was ever written, and so none received. It is advanced for good before one is,
        /// outside the journal: others look at it, without a lock that guards the player's record.
        pub output_reached: AtomicU64,
        /// Nonzero: somebody in [text mode](forkade_text::input).
        pub is_text: Guarded<u32>,
        /// Of a text player: what the input that was consumed means for the byte behind it.
        pub input_state: Guarded<input::InputState>,
        /// Of a text player: what telnet options were refused.
        pub telnet_refused: Guarded<RefusedOptions>,
        /// Of a text player: stream offset up to which telnet's commands were answered.
        pub telnet_answered: Guarded<u64>,
        /// Stream offset before which bytes of input may have been overwritten. It is advanced for good before they are.
        pub(crate) input_overwritten_before: AtomicU64,
        /// Stream offset before which bytes of output may have been overwritten because the ring was begun anew. As above.
        pub(crate) output_restarted_at: AtomicU64,
        /// Whether an operator follows the streams.
        pub traced: TapLease,
        /// What an operator is published.
        pub(crate) published: PublishedStreams,
        /// What the player has sent.
        pub input: InputRing,
        output_begins_a_page: PageStart,
        /// What the player is sent.
        pub output: OutputRing,
    }
}

shared_record! {
    /// Where a player's streams were when the player's process was last between two transactions: committed, and never undone.
    pub(crate) struct PublishedStreams {
        /// The player's reference.
        pub(crate) player: AtomicU64,
        /// The room's reference, if the player is in one.
        pub(crate) room: AtomicU64,
        /// Nonzero for somebody in text mode.
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

    /// Nobody else reads a player's record.
    fn publish(&'static self, _view: &View<'_>) {}
}

impl SingleWriter for PlayerRecord {
    fn noted_lock(&self) -> &AtomicU64 {
        &self.noted_lock
    }
}

/// Where a player is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Membership {
    state: u32,
    seat: u32,
    /// The room, unless the player is in the lobby.
    pub room: RoomRef,
}

/// In a [`Membership`]: no seat, but watching.
const WATCHING: u32 = u32::MAX;

impl Membership {
    /// In the lobby.
    pub const LOBBY: Self = Self {
        state: 0,
        seat: 0,
        room: RoomRef::NONE,
    };

    /// The room record was given to this player, who has yet to open it: whoever finds this completes or undoes it.
    pub fn opening(room: RoomRef) -> Self {
        Self {
            state: 1,
            seat: 0,
            room,
        }
    }

    /// In a room: in a seat, or watching.
    pub fn in_room(room: RoomRef, seat: Option<u8>) -> Self {
        Self {
            state: 2,
            seat: seat.map_or(WATCHING, u32::from),
            room,
        }
    }

    /// The room that this player is about to open.
    pub fn being_opened(self) -> Option<RoomRef> {
        (self.state == 1).then_some(self.room)
    }

    /// The room this player is in, and the seat unless watching.
    pub fn place(self) -> Option<(RoomRef, Option<u8>)> {
        (self.state == 2).then(|| (self.room, u8::try_from(self.seat).ok()))
    }
}

impl PlayerRecord {
    /// Makes the record a new player's, in the transaction that gives it out.
    pub(crate) fn reset<R: Record>(&self, tx: &mut Tx<'_, R>, name: Name, chat: ChatPlace) {
        tx.set(&self.name, name);
        tx.set(&self.membership, Membership::LOBBY);
        tx.set(&self.log_cursor, 0);
        tx.set(&self.chat_cursor, chat.cursor);
        tx.set(&self.chat_line, chat.line);
        tx.set(&self.chat_paid_until_us, 0);
        tx.set(&self.requests_paid_until_us, 0);
        tx.set(&self.consumed, 0);
        tx.set(&self.output_head, 0);
        tx.set(&self.is_text, 0);
        self.input.rebase(tx, 0);
        self.output.rebase(tx, 0);
        // Not journaled: until the commit the record is nobody's.
        self.output_kept_from.store(0, Ordering::Release);
        self.output_reached.store(0, Ordering::Release);
        self.input_overwritten_before.store(0, Ordering::Release);
        self.output_restarted_at.store(0, Ordering::Release);
    }

    /// The bytes of output that are kept, from the oldest to the head.
    pub(crate) fn kept_output(&self, attachment: &Attachment) -> std::ops::Range<u64> {
        self.output_kept_from.load(Ordering::Acquire)..attachment.read_own(&self.output_head)
    }
}
