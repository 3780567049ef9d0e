//! How fast a player may write into what others share.
//!
//! There are two rates: one of lines that are said, and one of requests that everybody in a room, or whoever looks at the lobby, is
//! published the traces of: coming in, opening a room, changing it. Moves in a match have none: their rate is the game's to say, and whoever
//! plays in real time has to be as fast as it takes. Nor has leaving, for one must have come in before; nor getting ready, for one
//! must have taken that back before, or a match must have been played.
//!
//! What was paid for stands in the player's record, and is entered by the transaction that does what was asked for: a
//! successor, or a resumed connection, goes on with the same account, and what was refused has cost nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use forkade_protocol::{ClientMessage, RejectCode};

use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::players::PlayerRecord;
use shmem::sys::clock::now_ns;
use shmem::sys::memory::Guarded;
use shmem::transaction::{Record, Tx};

const MINUTE_US: u64 = 60_000_000;

impl Session<'_> {
    /// What one more line costs the player, who may say it now.
    pub(crate) fn charge_line(&self) -> Result<RateCharge, Rejection> {
        let header = self.state.memory.header;
        let rate = Rate::of(&header.chat_burst, &header.chat_per_minute);
        self.pay(rate, |player| &player.chat_paid_until_us)
            .map_err(|wait| {
                let text = format!("you may say {} lines a minute; {wait}", rate.per_minute);
                Rejection::new(RejectCode::ChatTooFast, text)
            })
    }

    /// What one more request costs the player, who may make it now.
    pub(crate) fn charge_request(&self) -> Result<RateCharge, Rejection> {
        let header = self.state.memory.header;
        let rate = Rate::of(&header.requests_burst, &header.requests_per_minute);
        self.pay(rate, |player| &player.requests_paid_until_us)
            .map_err(|wait| {
                let text = format!("you may do this {} times a minute; {wait}", rate.per_minute);
                Rejection::new(RejectCode::TooFast, text)
            })
    }

    /// The frame that is being handled asks for something that has its price: whatever transaction consumes it, enters that.
    ///
    /// # Errors
    ///
    /// [`RejectCode::TooFast`].
    pub fn charge(&mut self) -> Result<(), Rejection> {
        self.charge = Some(self.charge_request()?);
        Ok(())
    }

    /// What was asked for is refused, and costs nothing.
    pub fn cancel_charge(&mut self) {
        self.charge = None;
    }

    fn pay(
        &self,
        rate: Rate,
        account: impl FnOnce(&PlayerRecord) -> &Guarded<u64>,
    ) -> Result<RateCharge, String> {
        let paid_until_us = self
            .player
            .map_or(0, |(_, player)| self.state.attachment.read_own(account(player)));
        let paid = rate.pay(paid_until_us, now_ns() / 1000);
        paid.map_err(|wait_us| format!("wait {:.1} s", wait_us.div_ceil(100_000) as f64 / 10.0))
    }
}

/// Whether the request has its price whatever comes of it.
pub fn is_rate_limited(message: &ClientMessage) -> bool {
    match message {
        ClientMessage::CreateRoom { .. }
        | ClientMessage::JoinRoom { .. }
        | ClientMessage::QuickMatch { .. }
        | ClientMessage::Spectate { .. }
        | ClientMessage::JoinByInvite { .. }
        | ClientMessage::Configure { .. }
        | ClientMessage::Invite { .. }
        | ClientMessage::Kick { .. }
        | ClientMessage::HandOver { .. } => true,
        // By what it changes: see `Session::ready`.
        ClientMessage::Ready { .. } | ClientMessage::Rematch { .. } => false,
        // As lines that are said.
        ClientMessage::Chat { .. } | ClientMessage::Reserve { .. } => false,
        ClientMessage::Act { .. } | ClientMessage::Leave { .. } => false,
        // They change nothing that others see.
        ClientMessage::Hello { .. }
        | ClientMessage::Resume { .. }
        | ClientMessage::ListRooms { .. }
        | ClientMessage::Look { .. }
        | ClientMessage::Confirm { .. }
        | ClientMessage::Ping { .. }
        | ClientMessage::Goodbye => false,
    }
}

/// How fast a player may do something.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// How often at once.
    burst: u64,
    /// How often in the long run; 0: without a limit.
    per_minute: u64,
}

impl Rate {
    fn of(burst: &AtomicU64, per_minute: &AtomicU64) -> Self {
        Self {
            burst: burst.load(Ordering::Relaxed),
            per_minute: per_minute.load(Ordering::Relaxed),
        }
    }

    /// Once more: each time takes its share of a minute to be paid for, and the player may run so far ahead as the burst
    /// allows. (A token bucket, which fills as time passes, with one number to remember.)
    ///
    /// # Errors
    ///
    /// How many microseconds there are to wait.
    fn pay(self, paid_until_us: u64, now_us: u64) -> Result<RateCharge, u64> {
        if self.per_minute == 0 {
            return Ok(RateCharge { until_us: None });
        }
        let share_us = MINUTE_US / self.per_minute;
        let until_us = paid_until_us.max(now_us) + share_us;
        let latest_us = now_us + share_us * self.burst.max(1);
        match until_us.checked_sub(latest_us) {
            None | Some(0) => Ok(RateCharge {
                until_us: Some(until_us),
            }),
            Some(wait_us) => Err(wait_us),
        }
    }
}

/// Something that the player may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct RateCharge {
    until_us: Option<u64>,
}

impl RateCharge {
    /// It is done by this transaction; `paid_until_us` is where the player's record says so.
    pub(crate) fn enter<R: Record>(self, tx: &mut Tx<'_, R>, paid_until_us: &Guarded<u64>) {
        if let Some(until_us) = self.until_us {
            tx.set(paid_until_us, until_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    /// How many lines are accepted, one after the other, at one moment.
    fn said_at_once(rate: Rate, paid_until_us: &mut u64, now_us: u64) -> u64 {
        (0..)
            .find(|_| match rate.pay(*paid_until_us, now_us) {
                Ok(paid) => {
                    *paid_until_us = paid.until_us.expect("there is a limit");
                    false
                }
                Err(_) => true,
            })
            .expect("some end")
    }

    #[test]
    fn a_burst_is_free_and_comes_back_as_fast_as_the_rate_says() {
        let rate = Rate {
            burst: 5,
            per_minute: 60,
        };
        let (mut paid, start_us) = (0, 1_000_000_000);
        assert_eq!(said_at_once(rate, &mut paid, start_us), 5);
        assert_eq!(said_at_once(rate, &mut paid, start_us + 999_999), 0);
        assert_eq!(said_at_once(rate, &mut paid, start_us + SECOND_US), 1);
        assert_eq!(said_at_once(rate, &mut paid, start_us + 3 * SECOND_US), 2);
        assert_eq!(said_at_once(rate, &mut paid, start_us + 3600 * SECOND_US), 5);
    }

    #[test]
    fn who_is_too_fast_is_told_how_long_to_wait_and_may_speak_then() {
        let rate = Rate {
            burst: 2,
            per_minute: 30,
        };
        let mut paid = 0;
        assert_eq!(said_at_once(rate, &mut paid, 0), 2);
        let wait_us = rate.pay(paid, 500_000).expect_err("too fast");
        assert_eq!(wait_us, 1_500_000);
        assert!(rate.pay(paid, 500_000 + wait_us).is_ok());
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let rate = Rate {
            burst: 1,
            per_minute: 0,
        };
        assert_eq!(rate.pay(u64::MAX, 0), Ok(RateCharge { until_us: None }));
    }
}
