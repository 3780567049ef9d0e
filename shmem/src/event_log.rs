//! A room's events: written under the room's lock, read by all members without it.
//!
//! An entry is a header word (`audience << 32 | length`) and the event's bytes, ready to be sent and padded to words.
//! Offsets are absolute. The writer never waits for readers. Before it overwrites the oldest entries it advances the
//! tail, *for good*: outside the journal. A reader copies an entry and then checks the tail. If the tail has passed the
//! entry, the copy may be torn: the reader has fallen out of the window and must resynchronise.
//!
//! The entry at `offset` lies at `(offset − base) mod BYTES`. When all readers have read everything, the writer may
//! start again at the first byte. So a log whose readers keep up uses one page.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::mutants::Mutant;
use crate::shared_record;
use crate::sys::memory::{Guarded, SharedBytes};
use crate::transaction::{Record, Tx, View};
use crate::word::Word;

const HEADER_BYTES: u64 = 8;

shared_record! {
    /// The last `8 × WORDS` bytes of events.
    pub struct EventLog<const WORDS: usize> {
        /// Offset of the entry that lies, or would lie, at the first byte.
        base: Guarded<u64>,
        /// Offset after the last committed entry.
        head: Guarded<u64>,
        /// Number of the last committed event; events count from 1.
        last_number: Guarded<u64>,
        /// Offset of the oldest entry that is still whole.
        tail: AtomicU64,
        /// `base`, published after the commit for readers, before `head` is.
        published_base: AtomicU64,
        /// `head`, published after the commit for readers.
        published: AtomicU64,
        /// `published` when the doorbell was last rung. If it is less than `published`, a reader may sleep that should
        /// look.
        announced: AtomicU64,
        bytes: SharedBytes<WORDS>,
    }
}

/// The words by which a log's writer tells its readers, which take no lock, what can be read.
#[derive(Debug)]
pub struct Window<'l, W> {
    /// Offset of the oldest entry that is still whole.
    pub tail: &'l W,
    /// Offset of the entry that lies at the first byte.
    pub base: &'l W,
    /// Offset after the last committed entry.
    pub head: &'l W,
}

/// What a reader found in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<T> {
    /// Nothing new.
    End,
    /// A copy, which is whole.
    Copy(T),
    /// What was there was overwritten.
    Lost,
}

impl<W: Word> Window<'_, W> {
    /// Makes everything before `tail` unreadable. The writer calls it before it overwrites that.
    #[inline]
    pub fn close(&self, tail: u64) {
        self.tail.store(tail, Ordering::Release);
        // Pairs with the fence in `read`: a reader that has copied a byte stored after this sees the new tail.
        W::fence(Ordering::Release);
    }

    /// Makes everything before `head` readable. The writer calls it when the bytes are written and committed.
    #[inline]
    pub fn publish(&self, base: u64, head: u64) {
        self.base.store(base, Ordering::Release);
        // Pairs with the load in `read`: a reader that sees this head sees its bytes, and this base or a later one.
        self.head.store(head, Ordering::Release);
    }

    /// Copies what lies at `cursor`. `copy` gets the base. It may find bytes of two entries, and returns `None` if they
    /// cannot be an entry.
    #[inline]
    pub fn read<T>(&self, cursor: u64, copy: impl FnOnce(u64) -> Option<T>) -> Found<T> {
        let end = self.head.load(Ordering::Acquire);
        if cursor == end {
            return Found::End;
        }
        if cursor > end || cursor < self.tail.load(Ordering::Acquire) {
            return Found::Lost;
        }
        // The base may be that of later entries. Then the tail is past the cursor, and the second look finds that.
        let copied = copy(self.base.load(Ordering::Acquire));
        // Pairs with the fence in `close`.
        W::fence(Ordering::Acquire);
        match copied {
            Some(copied) if self.tail.load(Ordering::Relaxed) <= cursor => Found::Copy(copied),
            _ => Found::Lost,
        }
    }
}

/// The words that show that a doorbell was not rung, because the process that should have rung it died.
#[derive(Debug)]
pub struct Announcement<'l, W> {
    /// Offset after the last committed entry.
    pub head: &'l W,
    /// The head when the doorbell was last rung.
    pub announced: &'l W,
}

impl<W: Word> Announcement<'_, W> {
    /// The head, if the doorbell was not rung for it yet. Ring, and then [note](Self::note) it.
    #[inline]
    pub fn due(&self) -> Option<u64> {
        let head = self.head.load(Ordering::Acquire);
        (self.announced.load(Ordering::Acquire) != head).then_some(head)
    }

    /// Notes that the doorbell was rung for the entries before `head`. An entry committed since then stays due, because
    /// it has moved the head.
    #[inline]
    pub fn note(&self, head: u64) {
        self.announced.store(head, Ordering::Release);
    }
}

/// The event is longer than [`EventLog::EVENT_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of {bytes} bytes does not fit the room's log")]
pub struct EntryTooLarge {
    bytes: usize,
}

/// Appends events. They count after [`Appender::finish`] and the commit, not before.
#[must_use]
pub struct Appender<'l, const WORDS: usize> {
    log: &'l EventLog<WORDS>,
    base: u64,
    head: u64,
    last_number: u64,
}

impl<const WORDS: usize> Appender<'_, WORDS> {
    /// The number of the next event.
    pub fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    /// Appends one event for an `audience`, a code of the caller's.
    ///
    /// # Errors
    ///
    /// [`EntryTooLarge`]; then nothing was appended.
    pub fn push<R: Record>(
        &mut self,
        tx: &mut Tx<'_, R>,
        audience: u32,
        event: &[u8],
    ) -> Result<(), EntryTooLarge> {
        if event.len() > EventLog::<WORDS>::EVENT_BYTES_MAX {
            return Err(EntryTooLarge { bytes: event.len() });
        }
        let next = self.head + HEADER_BYTES + (event.len() as u64).next_multiple_of(8);
        self.log.evict_until_fits(self.base, next);
        let header = u64::from(audience) << 32 | event.len() as u64;
        tx.write(
            &self.log.bytes,
            position::<WORDS>(self.base, self.head),
            &header.to_ne_bytes(),
        );
        let start = position::<WORDS>(self.base, self.head + HEADER_BYTES);
        let (first, second) = event.split_at(event.len().min(SharedBytes::<WORDS>::BYTES - start));
        tx.write(&self.log.bytes, start, first);
        tx.write(&self.log.bytes, 0, second);
        self.head = next;
        self.last_number += 1;
        Ok(())
    }

    /// Makes the events part of the transaction.
    pub fn finish<R: Record>(self, tx: &mut Tx<'_, R>) {
        if Mutant::RingBeforeCommit.is_active() {
            self.log.announced.store(self.head, Ordering::Release);
        }
        tx.set(&self.log.head, self.head);
        tx.set(&self.log.last_number, self.last_number);
    }
}

/// What a reader found at its cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Nothing new.
    End,
    /// An entry, copied to the reader's buffer.
    Entry {
        /// Its readers, as the writer's own code.
        audience: u32,
        /// Length of the event, in bytes.
        length: usize,
        /// The cursor after it.
        next: u64,
    },
    /// The entry at the cursor was overwritten.
    Lost,
}

impl<const WORDS: usize> EventLog<WORDS> {
    /// Capacity in bytes, headers and padding included.
    pub const BYTES: u64 = WORDS as u64 * 8;
    /// Longest event, in bytes: one entry never evicts more than half of the log.
    pub const EVENT_BYTES_MAX: usize = WORDS * 4 - 8;

    /// Empties the log, when a room is opened. Offsets continue, so that a cursor into the former room's events stays
    /// lost.
    pub fn reset<R: Record>(&self, tx: &mut Tx<'_, R>) {
        // The window closes first: a reader of the former room's events must find none.
        let head = tx.get(&self.head);
        self.close_window(head);
        tx.set(&self.base, head);
        tx.set(&self.last_number, 0);
    }

    /// Begins to append events, under the room's lock. Readers see them after the commit. `all_read` says that no
    /// reader needs what is in the log; the events then go to its first bytes.
    pub fn append<R: Record>(&self, tx: &mut Tx<'_, R>, all_read: bool) -> Appender<'_, WORDS> {
        let head = tx.get(&self.head);
        if all_read && tx.get(&self.base) != head {
            // Outside the journal: the old entries are overwritten even if the transaction is rolled back.
            self.close_window(head);
            tx.set(&self.base, head);
        }
        Appender {
            log: self,
            base: tx.get(&self.base),
            head,
            last_number: tx.get(&self.last_number),
        }
    }

    /// The number of the next event, under the lock.
    pub fn next_number<R: Record>(&self, tx: &Tx<'_, R>) -> u64 {
        tx.get(&self.last_number) + 1
    }

    /// The offset after the last event, under the lock: where a reader starts that has just received a snapshot.
    pub fn head<R: Record>(&self, tx: &Tx<'_, R>) -> u64 {
        tx.get(&self.head)
    }

    /// Publishes the head for readers. Call it from [`Record::publish`].
    pub fn publish(&self, view: &View<'_>) {
        self.window_words()
            .publish(view.get(&self.base), view.get(&self.head));
    }

    /// Copies the entry at `cursor` into `target`, which must have [`EVENT_BYTES_MAX`](Self::EVENT_BYTES_MAX) bytes. No
    /// lock is needed.
    pub fn read(&self, cursor: u64, target: &mut [u8]) -> Read {
        let found = self.window_words().read(cursor, |base| {
            let header = self.header(base, cursor);
            let length = usize::try_from(header & u64::from(u32::MAX)).unwrap_or(usize::MAX);
            if length > Self::EVENT_BYTES_MAX || length > target.len() {
                // The header was overwritten while it was read: no event is that long.
                return None;
            }
            let start = position::<WORDS>(base, cursor + HEADER_BYTES);
            let (first, second) =
                target[..length].split_at_mut(length.min(SharedBytes::<WORDS>::BYTES - start));
            self.bytes.copy_out(start, first);
            self.bytes.copy_out(0, second);
            Some(((header >> 32) as u32, length))
        });
        match found {
            Found::End => Read::End,
            Found::Lost => Read::Lost,
            Found::Copy((audience, length)) => Read::Entry {
                audience,
                length,
                next: cursor + HEADER_BYTES + (length as u64).next_multiple_of(8),
            },
        }
    }

    /// True if there is no event after `cursor`. No lock is needed.
    #[inline]
    pub fn ends_at(&self, cursor: u64) -> bool {
        self.published.load(Ordering::Acquire) == cursor
    }

    /// Bytes of entries after `cursor`. No lock is needed.
    #[inline]
    pub fn unread_bytes(&self, cursor: u64) -> u64 {
        self.published.load(Ordering::Acquire).saturating_sub(cursor)
    }

    /// The offset after the last published event, if the doorbell was not rung for it yet.
    #[inline]
    pub fn unannounced_head(&self) -> Option<u64> {
        self.announcement().due()
    }

    /// Notes that the doorbell was rung for the events before `offset`.
    #[inline]
    pub fn set_announced(&self, offset: u64) {
        self.announcement().note(offset);
    }

    fn announcement(&self) -> Announcement<'_, AtomicU64> {
        Announcement {
            head: &self.published,
            announced: &self.announced,
        }
    }

    fn window_words(&self) -> Window<'_, AtomicU64> {
        Window {
            tail: &self.tail,
            base: &self.published_base,
            head: &self.published,
        }
    }

    /// Number of the last event, under the lock.
    pub fn last_number<R: Record>(&self, tx: &Tx<'_, R>) -> u64 {
        tx.get(&self.last_number)
    }

    /// Offset of the oldest entry: where a reader can continue that fell out of the window and may skip events. No lock
    /// is needed. The entry may be overwritten at any moment.
    pub fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// The offset up to which the doorbell was rung.
    pub fn announced(&self) -> u64 {
        self.announced.load(Ordering::Acquire)
    }

    /// The oldest readable offset and the end, for the consistency check and the tests.
    #[doc(hidden)]
    pub fn window(&self) -> (u64, u64) {
        (
            self.tail.load(Ordering::Acquire),
            self.published.load(Ordering::Acquire),
        )
    }

    fn header(&self, base: u64, offset: u64) -> u64 {
        let mut header = [0; 8];
        self.bytes.copy_out(position::<WORDS>(base, offset), &mut header);
        u64::from_ne_bytes(header)
    }

    /// Advances the tail over whole entries until everything before `next` fits.
    fn evict_until_fits(&self, base: u64, next: u64) {
        let mut tail = self.tail.load(Ordering::Relaxed);
        while next - tail > Self::BYTES {
            let length = self.header(base, tail) & u64::from(u32::MAX);
            tail += HEADER_BYTES + length.next_multiple_of(8);
        }
        self.close_window(tail);
    }

    /// Makes everything before `tail` unreadable, even if the transaction is rolled back.
    fn close_window(&self, tail: u64) {
        self.window_words().close(tail);
    }
}

/// Index of a byte in the log's memory. Entries are whole words, so a header never wraps.
fn position<const WORDS: usize>(base: u64, offset: u64) -> usize {
    usize::try_from(offset.wrapping_sub(base) % (WORDS as u64 * 8)).expect("a position in the log is small")
}
