//! How one process makes others look.
//!
//! A bell only says "look": it carries nothing, and ringing twice is the same as once. What was to be announced is in shared
//! memory, so a bell that was lost, because its ringer died between commit and ringing, is rung again by whoever notices that an
//! event log is [unannounced](super::event_log::EventLog::unannounced): a successor, the next writer, or the ticker.

use super::event_log::EventLog;
use crate::sys::eventfd::EventFd;

/// Wakes the readers of `log`, if anything was published since they were last woken.
///
/// The published offset is read before the bell is rung: what is committed in between will be announced by its own writer.
pub fn ring<const WORDS: usize>(log: &EventLog<WORDS>, bell: &EventFd) {
    if let Some(offset) = log.unannounced() {
        bell.ring();
        log.set_announced(offset);
    }
}
