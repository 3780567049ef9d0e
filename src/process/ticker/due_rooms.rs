//! The rooms whose timers a ticker is about to run, and when it looks at each.
//!
//! Each room has a ticker of its own, by its number, which runs its timers when they are due. The other tickers look a
//! moment later, and run what is still due: the room's own ticker is dead, or a game keeps it. Only one of them does
//! it, because nobody waits for a room's lock. So no ticker is needed for any room. The looks of the others at many
//! rooms fall together.
//!
//! A [suspect](crate::state::rooms::RoomRecord::is_suspect) room is left to the last ticker: it cannot keep the others.

use crate::limits::{TICK_RETRY_US, TICK_STEAL_AFTER_US};
use crate::state::rooms::RoomRecord;

/// Rooms with timers, and when the ticker looks at them.
#[derive(Debug)]
pub(super) struct DueRooms {
    /// Which of how many tickers.
    ticker: u32,
    tickers: u32,
    /// Rooms, and when they are looked at, in microseconds of the monotonic clock.
    rooms: Vec<(u32, u64)>,
    /// Rooms whose timers are due later are not entered.
    until_us: u64,
}

impl DueRooms {
    pub(super) fn new(ticker: u32, tickers: u32) -> Self {
        Self {
            ticker,
            tickers,
            rooms: Vec::new(),
            until_us: 0,
        }
    }

    /// Begins anew, with the rooms that are due until then.
    pub(super) fn begin(&mut self, until_us: u64) {
        self.rooms.clear();
        self.until_us = until_us;
    }

    /// Enters a room, if it is due soon.
    pub(super) fn enter(&mut self, room: u32, record: &RoomRecord, now_us: u64) {
        let due_us = record.due_us();
        if due_us >= self.until_us {
            return;
        }
        let is_suspect = record.is_suspect(now_us / 1000);
        if let Some(look_at_us) = self.look_at_us(room, due_us, is_suspect) {
            self.rooms.push((room, look_at_us));
        }
    }

    /// When this ticker looks at a room that is due at `due_us`; `None`: the room is left to another one.
    fn look_at_us(&self, room: u32, due_us: u64, is_suspect: bool) -> Option<u64> {
        let own_ticker = match is_suspect {
            true => self.tickers - 1,
            false => room % self.tickers,
        };
        if own_ticker == self.ticker {
            return Some(due_us);
        }
        // Many such looks fall into one wake-up.
        let late_us = due_us.saturating_add(TICK_STEAL_AFTER_US);
        let late_us = late_us.checked_next_multiple_of(TICK_STEAL_AFTER_US);
        (!is_suspect).then(|| late_us.unwrap_or(u64::MAX))
    }

    /// Whether the room has become suspect, so that only the last ticker runs it.
    pub(super) fn is_left_to_another(&self, record: &RoomRecord, now_us: u64) -> bool {
        self.ticker != self.tickers - 1 && record.is_suspect(now_us / 1000)
    }

    /// When the first look is due; `None` if no room is entered.
    pub(super) fn next_look_us(&self) -> Option<u64> {
        self.rooms.iter().map(|(_, look_at_us)| *look_at_us).min()
    }

    /// Takes the rooms out that are looked at now. Each is to be [entered](Self::enter) again, or [kept](Self::retry).
    pub(super) fn take_due(&mut self, now_us: u64) -> Vec<u32> {
        let due = self.rooms.extract_if(.., |(_, look_at_us)| *look_at_us <= now_us);
        due.map(|(room, _)| room).collect()
    }

    /// The room's lock is held, or another ticker runs its game: it is looked at again soon.
    pub(super) fn retry(&mut self, room: u32, now_us: u64) {
        self.rooms.push((room, now_us + TICK_RETRY_US));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_room_has_one_ticker_at_once_and_all_others_a_moment_later(
            tickers in 2_u32..=8,
            room in 0_u32..1000,
            due_us in 1_u64..1 << 50,
        ) {
            let looks = |is_suspect: bool| -> Vec<Option<u64>> {
                let look = |ticker| DueRooms::new(ticker, tickers).look_at_us(room, due_us, is_suspect);
                (0..tickers).map(look).collect()
            };
            let ordinary = looks(false);
            prop_assert_eq!(ordinary.iter().filter(|look| **look == Some(due_us)).count(), 1);
            for look in ordinary {
                let late_us = look.expect("every ticker looks") - due_us;
                let later = TICK_STEAL_AFTER_US..2 * TICK_STEAL_AFTER_US;
                prop_assert!(late_us == 0 || later.contains(&late_us));
            }
            let (last, others) = (looks(true).pop(), looks(true).len() - 1);
            prop_assert_eq!(last, Some(Some(due_us)));
            prop_assert!(looks(true)[..others].iter().all(Option::is_none));
        }
    }

    #[test]
    fn a_room_is_looked_at_once_for_each_time_that_it_is_entered() {
        let mut rooms = DueRooms::new(0, 2);
        rooms.begin(1000);
        rooms.retry(7, 100);
        rooms.retry(8, 200);
        assert_eq!(rooms.next_look_us(), Some(100 + TICK_RETRY_US));
        assert!(rooms.take_due(99 + TICK_RETRY_US).is_empty());
        assert_eq!(rooms.take_due(100 + TICK_RETRY_US), [7]);
        assert_eq!(rooms.take_due(u64::MAX), [8]);
        assert_eq!(rooms.next_look_us(), None);
    }
}
