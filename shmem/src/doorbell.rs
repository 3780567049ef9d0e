//! Doorbells: how one process makes others look at shared memory.
//!
//! A doorbell only says "look". It carries no data, and two rings may count as one. The data is in shared memory. A
//! process may die between commit and ring. Then the ring is lost, and the event log has an [unannounced
//! head](crate::event_log::EventLog::unannounced_head). The next writer, a handler that takes over, or the ticker finds
//! that and rings again.
//!
//! A writer that is the [only subscriber](Subscribers::is_only_subscriber) need not ring.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::event_log::EventLog;
use crate::shared_record;
use crate::sys::eventfd::EventFd;
use crate::sys::process::ProcessId;
use crate::word::Word;

/// Wakes the readers of `log` if it has events that were not announced.
///
/// The published offset is read before the ring: events that are committed in between are announced by their own
/// writer.
///
/// # Panics
///
/// If `doorbell` is no eventfd.
pub fn ring<const WORDS: usize>(log: &EventLog<WORDS>, doorbell: &EventFd) {
    if let Some(offset) = log.unannounced_head() {
        doorbell.ring();
        log.set_announced(offset);
    }
}

/// Subscribers that are told apart. With more of them, every writer rings.
const SUBSCRIBERS_MAX: usize = 6;

shared_record! {
    /// The processes that listen for a doorbell. The set may hold processes that were killed, which costs a needless
    /// ring. It never lacks a process that listens.
    pub struct Subscribers {
        slots: [AtomicU64; SUBSCRIBERS_MAX],
        /// Nonzero once a subscriber found no free place.
        overflowed: AtomicU64,
    }
}

/// A set of subscribers. A subscriber is a number other than 0.
#[derive(Debug)]
pub struct Subscriptions<'s, W> {
    /// A subscriber, or 0, in each.
    pub places: &'s [W],
    /// Nonzero once a subscriber found no free place.
    pub overflowed: &'s W,
}

impl<W: Word> Subscriptions<'_, W> {
    /// Adds `me`. It may take the place of a subscriber of which `is_gone` is true.
    #[inline]
    pub fn add(&self, me: u64, is_gone: impl Fn(u64) -> bool) {
        let is_in = self
            .places
            .iter()
            .any(|place| place.load(Ordering::Relaxed) == me);
        if !is_in && !self.take_place(me, is_gone) {
            self.overflowed.store(1, Ordering::SeqCst);
        }
        // Pairs with the fence in `is_only`: either this process sees what the writer has published, or the writer sees
        // this process.
        W::fence(Ordering::SeqCst);
    }

    /// Removes `me`.
    #[inline]
    pub fn remove(&self, me: u64) {
        for place in self.places {
            let _ = place.compare_exchange(me, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// True if no subscriber but `me` must be woken for what was published before this call.
    #[inline]
    pub fn is_only(&self, me: u64) -> bool {
        // Pairs with the fence in `add`.
        W::fence(Ordering::SeqCst);
        self.overflowed.load(Ordering::Acquire) == 0
            && self
                .places
                .iter()
                .map(|place| place.load(Ordering::Acquire))
                .all(|occupant| occupant == 0 || occupant == me)
    }

    fn take_place(&self, me: u64, is_gone: impl Fn(u64) -> bool) -> bool {
        self.places.iter().any(|place| {
            let occupant = place.load(Ordering::Acquire);
            let is_free = occupant == 0 || is_gone(occupant);
            is_free
                && place
                    .compare_exchange(occupant, me, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
        })
    }
}

impl Subscribers {
    /// Adds `me`. The caller must look at the log afterwards: nothing announces to it what was published before.
    pub fn subscribe(&self, me: ProcessId) {
        self.subscriptions().add(me.to_u64(), is_gone);
    }

    /// Removes `me`.
    pub fn unsubscribe(&self, me: ProcessId) {
        self.subscriptions().remove(me.to_u64());
    }

    /// True if no process but `me` must be woken for what was published before this call.
    pub fn is_only_subscriber(&self, me: ProcessId) -> bool {
        self.subscriptions().is_only(me.to_u64())
    }

    /// Removes all. Call it only when no process listens and none publishes.
    pub fn clear(&self) {
        self.overflowed.store(0, Ordering::Release);
        self.slots
            .iter()
            .for_each(|slot| slot.store(0, Ordering::Release));
    }

    fn subscriptions(&self) -> Subscriptions<'_, AtomicU64> {
        Subscriptions {
            places: &self.slots,
            overflowed: &self.overflowed,
        }
    }
}

/// True if no process has that pid. If another process has got the pid, a place stays occupied, which is harmless.
fn is_gone(word: u64) -> bool {
    ProcessId::from_u64(word).is_none_or(ProcessId::pid_is_free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::Mapping;

    fn subscribers() -> &'static Subscribers {
        Mapping::create_record("doorbell-test").expect("memory is there")
    }

    /// Living processes: this one, with different start times.
    fn process(start_time: u64) -> ProcessId {
        ProcessId {
            start_time,
            ..ProcessId::current()
        }
    }

    #[test]
    fn a_subscriber_is_the_only_one_until_another_subscribes() {
        let subscribers = subscribers();
        let (one, other) = (process(1), process(2));
        assert!(subscribers.is_only_subscriber(one), "no subscriber at all");
        subscribers.subscribe(one);
        subscribers.subscribe(one);
        assert!(subscribers.is_only_subscriber(one) && !subscribers.is_only_subscriber(other));
        subscribers.subscribe(other);
        assert!(!subscribers.is_only_subscriber(one) && !subscribers.is_only_subscriber(other));
        subscribers.unsubscribe(other);
        assert!(subscribers.is_only_subscriber(one));
    }

    #[test]
    fn after_an_overflow_no_subscriber_is_the_only_one_until_all_are_cleared() {
        let subscribers = subscribers();
        let all: Vec<_> = (1..=SUBSCRIBERS_MAX as u64 + 1).map(process).collect();
        all.iter().for_each(|process| subscribers.subscribe(*process));
        all[1..]
            .iter()
            .for_each(|process| subscribers.unsubscribe(*process));
        assert!(
            !subscribers.is_only_subscriber(all[0]),
            "the last one found no place"
        );
        subscribers.clear();
        assert!(subscribers.is_only_subscriber(all[0]));
    }
}
