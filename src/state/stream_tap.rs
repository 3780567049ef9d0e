//! Reading a player's byte streams for an operator, without a lock and without involving the player's process.
//!
//! The bytes lie in the player's rings at absolute offsets. The process that serves the player publishes the state of
//! the streams between two transactions, which costs it a few stores. A reader copies the bytes up to there, and then
//! checks two marks that are advanced *before* anything is overwritten: they tell whether the copy is whole. No
//! writer waits for a reader, and a reader that is killed leaves nothing behind but a lease that expires.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::state::layout::{PlayerRef, RoomRef};
use crate::state::players::{InputRing, OutputRing, PlayerRecord, PublishedStreams};
use shmem::byte_ring::ByteRing;
use shmem::shared_record;
use shmem::sys::clock::now_ms;
use shmem::word::Word;

/// How long a lease keeps a ring or log from being restarted.
const FOLLOWED_MS: u64 = 2000;

/// In [`PublishedStreams::player`]: the published values are not all of one player. No reference has this id.
const NONE: u64 = 0;

shared_record! {
    /// A lease on a ring or log. While it is held, the writer does not restart the ring when all has been read, so
    /// that a reader can see older bytes.
    pub struct TapLease {
        /// When the lease expires, in milliseconds of the monotonic clock; 0: not held.
        until_ms: AtomicU64,
    }
}

impl TapLease {
    /// Holds the lease for a moment from now on.
    pub fn follow(&self) {
        self.until_ms.store(now_ms() + FOLLOWED_MS, Ordering::Relaxed);
    }

    /// Whether the lease is held. The writer calls this.
    pub(crate) fn is_active(&self) -> bool {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        if until_ms == 0 {
            return false;
        }
        let is_active = until_ms > now_ms();
        if !is_active {
            // So that the clock is not read again. A reader that renews the lease at this moment renews it again
            // soon.
            self.until_ms.store(0, Ordering::Relaxed);
        }
        is_active
    }
}

/// The direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    In,
    /// To the client.
    Out,
}

/// The result of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look<T = Vec<u8>> {
    /// The stream's bytes from the given offset up to the end of what was consumed or written; may be empty.
    Bytes(T),
    /// The bytes were overwritten. The stream continues at this offset.
    Missed {
        /// The start of a frame.
        goes_on_at: u64,
    },
    /// The record belongs to another player now.
    Gone,
}

/// The state of a player's streams, and where the player is. The values are read one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStatus {
    /// The room, if the player is in one.
    pub room: Option<RoomRef>,
    /// The seat, unless the player is a spectator.
    pub seat: Option<u8>,
    /// The player is in text mode: the streams are text, not frames.
    pub is_text: bool,
    /// Input offset behind the last byte received.
    pub input_received: u64,
    /// Input offset behind the last frame executed.
    pub consumed: u64,
    /// Output offset behind the last byte that the kernel has accepted.
    pub output_sent: u64,
    /// Output offset behind the last frame.
    pub output_head: u64,
    /// Output offset of the oldest byte kept for a resume.
    pub output_kept_from: u64,
}

impl PublishedStreams {
    /// Starts to publish values of this player. Until all are published they belong to no player, so that no reader
    /// takes a former player's values for the new one's.
    pub(crate) fn begin(&self, player: PlayerRef) {
        Ownership(&self.player).begin(player.to_id());
    }

    /// All values of this player are published.
    pub(crate) fn end(&self, player: PlayerRef) {
        Ownership(&self.player).end(player.to_id());
    }

    /// Whether the values read before this call, and those read next, belong to this player.
    fn is_of(&self, player: PlayerRef) -> bool {
        Ownership(&self.player).is_of(player.to_id())
    }
}

/// The word that says to which player the values beside it belong.
#[derive(Debug)]
pub struct Ownership<'p, W>(pub &'p W);

impl<W: Word> Ownership<'_, W> {
    /// Starts to publish values of this player.
    pub fn begin(&self, player: u64) {
        if self.0.load(Ordering::Relaxed) != player {
            self.0.store(NONE, Ordering::Relaxed);
            // Pairs with the fence in `is_of`: a reader that sees a value of the new player no longer sees the former
            // player here.
            W::fence(Ordering::Release);
        }
    }

    /// All values of this player are published.
    pub fn end(&self, player: u64) {
        // Pairs with the load in `is_of`: a reader that sees this player sees its values, or later ones.
        self.0.store(player, Ordering::Release);
    }

    /// Whether the values read before this call, and those read next, belong to this player. Ask before and after.
    pub fn is_of(&self, player: u64) -> bool {
        // Pairs with the fence in `begin`.
        W::fence(Ordering::Acquire);
        self.0.load(Ordering::Acquire) == player
    }
}

/// Advances the mark before which a ring's bytes are about to be overwritten.
pub fn mark_overwritten<W: Word>(mark: &W, before: u64) {
    mark.update(|marked| marked.max(before));
    // Pairs with the fence in `copy`: a reader that has copied an overwritten byte sees this mark.
    W::fence(Ordering::Release);
}

impl PlayerRecord {
    /// Marks input bytes before this offset as about to be overwritten.
    pub(crate) fn mark_input_overwritten(&self, offset: u64) {
        mark_overwritten(&self.input_overwritten_before, offset);
    }

    /// Marks that the output ring is restarted: bytes before this offset are about to be overwritten.
    pub(crate) fn mark_output_restarted(&self, offset: u64) {
        mark_overwritten(&self.output_restarted_at, offset);
    }

    /// Marks that output is about to be written up to this offset, over what lies a ring's length before it.
    pub(crate) fn mark_output_reached(&self, offset: u64) {
        mark_overwritten(&self.output_reached, offset);
    }

    /// The state last published; `None` if none was, or if the record belongs to another player.
    pub fn stream_status(&self, player: PlayerRef) -> Option<StreamStatus> {
        let published = &self.published;
        let load = |cell: &AtomicU64| cell.load(Ordering::Acquire);
        if !published.is_of(player) {
            return None;
        }
        let room = RoomRef::from_id(load(&published.room));
        let stream_status = StreamStatus {
            room: room.is_some().then_some(room),
            seat: load(&published.seat)
                .checked_sub(1)
                .and_then(|seat| u8::try_from(seat).ok()),
            is_text: load(&published.is_text) != 0,
            input_received: load(&published.input_received),
            consumed: load(&published.consumed),
            output_sent: load(&published.output_sent),
            output_head: load(&published.output_head),
            output_kept_from: load(&self.output_kept_from),
        };
        published.is_of(player).then_some(stream_status)
    }

    /// Copies a stream's bytes from offset `from` on.
    pub fn look(&self, player: PlayerRef, direction: Direction, from: u64) -> Look {
        let published = &self.published;
        if !published.is_of(player) {
            return Look::Gone;
        }
        let seen = match direction {
            Direction::In => copy(
                (&published.input_base, &published.consumed),
                from,
                InputRing::BYTES,
                // Called again after the copy.
                || self.input_overwritten_before.load(Ordering::Relaxed),
                |base, length| bytes_of(&self.input, base, from, length),
            ),
            Direction::Out => copy(
                (&published.output_base, &published.output_head),
                from,
                OutputRing::BYTES,
                || {
                    let reached = self.output_reached.load(Ordering::Relaxed);
                    let begun_anew_at = self.output_restarted_at.load(Ordering::Relaxed);
                    begun_anew_at.max(reached.saturating_sub(OutputRing::BYTES))
                },
                |base, length| bytes_of(&self.output, base, from, length),
            ),
        };
        if !published.is_of(player) {
            return Look::Gone;
        }
        seen
    }
}

fn bytes_of<const WORDS: usize>(ring: &ByteRing<WORDS>, base: u64, from: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ring.view_from(base).read(from, &mut bytes);
    bytes
}

/// Copies a stream's bytes from offset `from` up to the published end, of a ring of `capacity` bytes. `read` gets the
/// ring's base and the number of bytes; `gone_before` is the mark that is advanced before bytes are overwritten.
pub fn copy<W: Word, T>(
    (base, end): (&W, &W),
    from: u64,
    capacity: u64,
    gone_before: impl Fn() -> u64,
    read: impl FnOnce(u64, usize) -> T,
) -> Look<T> {
    // Pairs with the store that publishes the end: a reader that sees it sees its bytes, and its base or a later one.
    let end = end.load(Ordering::Acquire);
    let missed = Look::Missed { goes_on_at: end };
    let base = base.load(Ordering::Relaxed);
    if from > end {
        return Look::Gone;
    }
    let length = usize::try_from(end - from).unwrap_or(usize::MAX);
    if length == 0 {
        return Look::Bytes(read(from, 0));
    }
    if base > from || gone_before() > from || length as u64 > capacity {
        return missed;
    }
    let bytes = read(base, length);
    // Pairs with the fence in `mark_overwritten`.
    W::fence(Ordering::Acquire);
    if gone_before() > from {
        return missed;
    }
    Look::Bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::layout::{Capacity, Memory};

    /// A player whose process has published that both streams start at `base` and reach to `end`.
    fn player(base: u64, end: u64) -> (&'static PlayerRecord, PlayerRef) {
        let capacity = Capacity {
            players: 1,
            rooms: 1,
            keepers: 1,
        };
        let record = Memory::create(capacity).expect("there is memory").players.at(0);
        let (player, published) = (PlayerRef::new(0, 1), &record.published);
        published.player.store(player.to_id(), Ordering::Relaxed);
        for cell in [&published.input_base, &published.output_base] {
            cell.store(base, Ordering::Relaxed);
        }
        for cell in [
            &published.consumed,
            &published.output_head,
            &record.output_reached,
        ] {
            cell.store(end, Ordering::Relaxed);
        }
        (record, player)
    }

    #[test]
    fn bytes_are_shown_until_they_may_have_been_overwritten() {
        let (record, player) = player(1000, 1040);
        let frame = *b"twenty bytes, or so.";
        record.input.view_from(1000).bytes().copy_in(20, &frame);
        record.output.view_from(1000).bytes().copy_in(20, &frame);
        let look = |direction, from| record.look(player, direction, from);
        let (whole, missed) = (Look::Bytes(frame.to_vec()), Look::Missed { goes_on_at: 1040 });
        for direction in [Direction::In, Direction::Out] {
            assert_eq!(look(direction, 1020), whole);
            assert_eq!(look(direction, 1040), Look::Bytes(Vec::new()));
            assert_eq!(
                (look(direction, 999), look(direction, 1041)),
                (missed.clone(), Look::Gone)
            );
        }
        record.mark_input_overwritten(1020);
        assert_eq!(
            (look(Direction::In, 1020), look(Direction::In, 1019)),
            (whole.clone(), missed.clone())
        );
        // Written so far that the ring has wrapped around.
        record
            .output_reached
            .store(1020 + OutputRing::BYTES, Ordering::Relaxed);
        assert_eq!(
            (look(Direction::Out, 1020), look(Direction::Out, 1019)),
            (whole, missed.clone())
        );
        record.mark_output_restarted(1040);
        assert_eq!(look(Direction::Out, 1020), missed);
        let another = PlayerRef::new(0, 2);
        assert_eq!(record.look(another, Direction::In, 1020), Look::Gone);
        assert_eq!(
            (
                record.stream_status(another),
                record.stream_status(player).is_some()
            ),
            (None, true)
        );
    }

    #[test]
    fn a_reader_never_mixes_values_of_two_players() {
        let (record, first) = player(0, 0);
        let second = PlayerRef::new(0, 2);
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..100_000 {
                    // All values of a player are equal, and those of the other player differ.
                    let (player, value) = if round % 2 == 0 {
                        (second, 2000)
                    } else {
                        (first, 1000)
                    };
                    let published = &record.published;
                    let a_while = || (0..20).for_each(|_| std::hint::spin_loop());
                    published.begin(player);
                    a_while();
                    published.input_received.store(value, Ordering::Relaxed);
                    published.output_sent.store(value, Ordering::Relaxed);
                    a_while();
                    published.consumed.store(value, Ordering::Release);
                    published.output_head.store(value, Ordering::Release);
                    published.end(player);
                    a_while();
                }
                is_over.store(true, Ordering::Relaxed);
            });
            while !is_over.load(Ordering::Relaxed) {
                for (player, value) in [(first, 1000), (second, 2000)] {
                    let Some(seen) = record.stream_status(player) else {
                        continue;
                    };
                    let figures = [
                        seen.input_received,
                        seen.output_sent,
                        seen.consumed,
                        seen.output_head,
                    ];
                    // The record starts with values of no player.
                    let is_one = |figures: [u64; 4]| figures == [value; 4] || figures == [0; 4];
                    assert!(is_one(figures), "{player:?}: {figures:?}");
                }
            }
        });
    }

    #[test]
    fn a_lease_expires_after_a_while() {
        let (record, _) = player(0, 0);
        assert!(!record.traced.is_active());
        record.traced.follow();
        assert!(record.traced.is_active());
        record.traced.until_ms.store(1, Ordering::Relaxed);
        assert!(!record.traced.is_active());
        assert_eq!(record.traced.until_ms.load(Ordering::Relaxed), 0);
    }
}
