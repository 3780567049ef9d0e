//! Models of what this crate's processes do without a lock, checked over all interleavings of threads and all values
//! that the memory model allows them to see, on x86 or elsewhere.
//!
//! They run the functions that the processes run, on the words of a model checker (loom). Each model is run again with
//! words whose fences or orders are left out, or with a step in the wrong place, and must fail then. Deaths are not
//! modelled: the instruction sweep does that.

#[path = "models/words.rs"]
mod words;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use loom::sync::Arc;
use loom::thread;
use shmem::doorbell::Subscriptions;
use shmem::event_log::{Announcement, Found, Window};
use words::{ModelWord, Sound, Unfenced, Unordered, fails, holds};

/// A log of two words, an event in each.
struct Log<W> {
    tail: W,
    base: W,
    head: W,
    events: [W; 2],
}

impl<W: ModelWord> Log<W> {
    fn window(&self) -> Window<'_, W> {
        Window {
            tail: &self.tail,
            base: &self.base,
            head: &self.head,
        }
    }

    fn event(&self, base: u64, offset: u64) -> &W {
        &self.events[usize::from(!offset.wrapping_sub(base).is_multiple_of(2))]
    }

    fn append(&self, base: u64, offset: u64, event: u64) {
        self.event(base, offset).store(event, Relaxed);
        self.window().publish(base, offset + 1);
    }

    fn read(&self, cursor: u64) -> Found<u64> {
        self.window()
            .read(cursor, |base| Some(self.event(base, cursor).load(Relaxed)))
    }
}

/// The writer overwrites the oldest of two events, then a reader's next.
fn event_log_wraps<W: ModelWord>() {
    let log = Arc::new(Log {
        tail: W::new(0),
        base: W::new(0),
        head: W::new(2),
        events: [W::new(10), W::new(11)],
    });
    let writer = thread::spawn({
        let log = Arc::clone(&log);
        move || {
            for offset in [2, 3] {
                log.window().close(offset - 1);
                log.append(0, offset, 10 + offset);
            }
        }
    });
    for cursor in [0, 1] {
        let found = log.read(cursor);
        assert!(
            matches!(found, Found::Lost) || found == Found::Copy(10 + cursor),
            "at {cursor}: {found:?}"
        );
    }
    writer.join().expect("no panic");
}

/// The writer starts again at the first byte, with a new base.
fn event_log_restarts<W: ModelWord>() {
    let log = Arc::new(Log {
        tail: W::new(0),
        base: W::new(0),
        head: W::new(1),
        events: [W::new(10), W::new(0)],
    });
    let writer = thread::spawn({
        let log = Arc::clone(&log);
        move || {
            log.window().close(1);
            log.append(1, 1, 11);
        }
    });
    let (old, new) = (log.read(0), log.read(1));
    assert!(
        matches!(old, Found::Lost) || old == Found::Copy(10),
        "the old event: {old:?}"
    );
    assert!(
        matches!(new, Found::Lost | Found::End) || new == Found::Copy(11),
        "the new event: {new:?}"
    );
    writer.join().expect("no panic");
}

#[test]
fn a_reader_of_the_log_gets_whole_events_or_is_told_that_it_has_lost_them() {
    holds("event log, wrapping", event_log_wraps::<Sound>);
    holds("event log, restarted", event_log_restarts::<Sound>);
    fails("event log, wrapping, without fences", event_log_wraps::<Unfenced>);
    fails(
        "event log, restarted, without fences",
        event_log_restarts::<Unfenced>,
    );
    fails(
        "event log, restarted, without orders",
        event_log_restarts::<Unordered>,
    );
}

const WRITER: u64 = 1;

/// Readers subscribe and then look; a writer publishes and then asks whether a process must be woken. There is one
/// place: a second reader finds none.
fn subscribers<W: ModelWord>(readers: &[u64]) {
    struct Room<W> {
        head: W,
        places: [W; 1],
        overflowed: W,
    }
    impl<W: ModelWord> Room<W> {
        fn subscriptions(&self) -> Subscriptions<'_, W> {
            Subscriptions {
                places: &self.places,
                overflowed: &self.overflowed,
            }
        }
    }
    let room = Arc::new(Room {
        head: W::new(0),
        places: [W::new(0)],
        overflowed: W::new(0),
    });
    let readers: Vec<_> = readers
        .iter()
        .map(|me| {
            let (room, me) = (Arc::clone(&room), *me);
            thread::spawn(move || {
                room.subscriptions().add(me, |_| false);
                room.head.load(Acquire) == 1
            })
        })
        .collect();
    room.head.store(1, Release);
    let is_only = room.subscriptions().is_only(WRITER);
    for reader in readers {
        let has_seen_it = reader.join().expect("no panic");
        assert!(
            has_seen_it || !is_only,
            "nobody wakes a reader that has not seen it"
        );
    }
}

#[test]
fn a_subscriber_sees_what_was_published_or_is_woken() {
    holds("a subscriber", || subscribers::<Sound>(&[2]));
    holds("two subscribers, one place", || subscribers::<Sound>(&[2, 3]));
    fails("a subscriber, without fences", || subscribers::<Unfenced>(&[2]));
    fails("two subscribers, one place, without fences", || {
        subscribers::<Unfenced>(&[2, 3]);
    });
}

/// A writer commits twice and rings; the ticker rings again if it finds a ring due; a reader clears the doorbell and
/// then looks, or the other way round.
fn announcement<W: ModelWord>(clears_first: bool) {
    struct Room<W> {
        head: W,
        announced: W,
        bell: W,
    }
    impl<W: ModelWord> Room<W> {
        fn announcement(&self) -> Announcement<'_, W> {
            Announcement {
                head: &self.head,
                announced: &self.announced,
            }
        }

        fn ring_if_due(&self) {
            if let Some(head) = self.announcement().due() {
                // A write to an eventfd adds to its counter.
                self.bell.update(|rings| rings + 1);
                self.announcement().note(head);
            }
        }

        fn clear(&self) {
            self.bell.update(|_| 0);
        }
    }
    let room = Arc::new(Room {
        head: W::new(0),
        announced: W::new(0),
        bell: W::new(0),
    });
    let writer = thread::spawn({
        let room = Arc::clone(&room);
        move || {
            room.head.store(1, Release);
            room.head.store(2, Release);
            room.ring_if_due();
        }
    });
    let ticker = thread::spawn({
        let room = Arc::clone(&room);
        move || room.ring_if_due()
    });
    let seen = if clears_first {
        room.clear();
        room.head.load(Acquire)
    } else {
        let seen = room.head.load(Acquire);
        room.clear();
        seen
    };
    writer.join().expect("no panic");
    ticker.join().expect("no panic");
    let is_due = room.announcement().due().is_some();
    assert!(
        seen == 2 || room.bell.load(Acquire) != 0 || is_due,
        "the reader sleeps, and nobody rings again"
    );
}

#[test]
fn an_event_is_seen_or_the_doorbell_is_rung_or_a_ring_is_due() {
    holds("doorbell", || announcement::<Sound>(true));
    fails("doorbell, cleared after the look", || {
        announcement::<Sound>(false)
    });
}
