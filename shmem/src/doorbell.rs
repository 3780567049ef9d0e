//! How one process makes others look.
//!
//! A doorbell only says "look": it carries nothing, and ringing twice is the same as once. What was to be announced is in shared
//! memory, so a doorbell that was lost, because its ringer died between commit and ringing, is rung again by whoever notices that an
//! event log is [unannounced_head](crate::event_log::EventLog::unannounced_head): a successor, the next writer, or the ticker.
//!
//! Who is the only one to [listen](Subscribers) need not ring.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::event_log::EventLog;
use crate::shared_record;
use crate::sys::eventfd::EventFd;
use crate::sys::process::ProcessId;

/// Wakes the readers of `log`, if anything was published since they were last woken.
///
/// The published offset is read before the doorbell is rung: what is committed in between will be announced by its own writer.
pub fn ring<const WORDS: usize>(log: &EventLog<WORDS>, doorbell: &EventFd) {
    if let Some(offset) = log.unannounced_head() {
        doorbell.ring();
        log.set_announced(offset);
    }
}

/// Processes that are known by name. Where more listen, everybody rings.
const LISTENERS_KNOWN_MAX: usize = 6;

shared_record! {
    /// Which processes listen for a doorbell. It may name some that do not any more (they may have been killed), which costs a needless
    /// ring, but never leaves out one that does.
    pub struct Subscribers {
        known: [AtomicU64; LISTENERS_KNOWN_MAX],
        /// Nonzero once there was no place for somebody.
        more: AtomicU64,
    }
}

impl Subscribers {
    /// `me` listens from now on. The caller looks at the log afterwards: of what was published before, nobody may have told it.
    pub fn subscribe(&self, me: ProcessId) {
        let word = me.to_u64();
        if self
            .known
            .iter()
            .all(|known| known.load(Ordering::Relaxed) != word)
            && !self.take_place(word)
        {
            self.more.store(1, Ordering::SeqCst);
        }
        // See `is_only_subscriber`: either this process sees what the writer has published, or the writer sees this process.
        fence(Ordering::SeqCst);
    }

    /// `me` does not listen any more.
    pub fn unsubscribe(&self, me: ProcessId) {
        let word = me.to_u64();
        for known in &self.known {
            let _ = known.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Whether nobody but `me` has to be told of what was published before this was asked.
    pub fn is_only_subscriber(&self, me: ProcessId) -> bool {
        fence(Ordering::SeqCst);
        let (word, load) = (me.to_u64(), |known: &AtomicU64| known.load(Ordering::Acquire));
        self.more.load(Ordering::Acquire) == 0
            && self
                .known
                .iter()
                .map(load)
                .all(|known| known == 0 || known == word)
    }

    /// Nobody listens any more, nor is anything published for them.
    pub fn clear(&self) {
        self.more.store(0, Ordering::Release);
        self.known
            .iter()
            .for_each(|known| known.store(0, Ordering::Release));
    }

    fn take_place(&self, word: u64) -> bool {
        self.known.iter().any(|known| {
            let occupant = known.load(Ordering::Acquire);
            let is_free = occupant == 0 || is_gone(occupant);
            is_free
                && known
                    .compare_exchange(occupant, word, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
        })
    }
}

/// Whether there is no process of that pid. If there is, it may be another: then a place is wasted, no more.
fn is_gone(word: u64) -> bool {
    ProcessId::from_u64(word).is_none_or(ProcessId::pid_is_free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::Mapping;

    fn subscribers() -> &'static Subscribers {
        Mapping::create("doorbell-test", 4096)
            .expect("memory is there")
            .record(0)
    }

    /// Processes that live: this one, under many names.
    fn process(start_time: u64) -> ProcessId {
        ProcessId {
            start_time,
            ..ProcessId::current()
        }
    }

    #[test]
    fn only_who_listens_alone_is_told_so() {
        let subscribers = subscribers();
        let (one, other) = (process(1), process(2));
        assert!(subscribers.is_only_subscriber(one), "nobody listens");
        subscribers.subscribe(one);
        subscribers.subscribe(one);
        assert!(subscribers.is_only_subscriber(one) && !subscribers.is_only_subscriber(other));
        subscribers.subscribe(other);
        assert!(!subscribers.is_only_subscriber(one) && !subscribers.is_only_subscriber(other));
        subscribers.unsubscribe(other);
        assert!(subscribers.is_only_subscriber(one));
    }

    #[test]
    fn where_too_many_listen_nobody_is_alone_until_all_are_forgotten() {
        let subscribers = subscribers();
        let all: Vec<_> = (1..=LISTENERS_KNOWN_MAX as u64 + 1).map(process).collect();
        all.iter().for_each(|process| subscribers.subscribe(*process));
        all[1..]
            .iter()
            .for_each(|process| subscribers.unsubscribe(*process));
        assert!(
            !subscribers.is_only_subscriber(all[0]),
            "the last one was never known by name"
        );
        subscribers.clear();
        assert!(subscribers.is_only_subscriber(all[0]));
    }
}
