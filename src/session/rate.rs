//! Rate limits for what a player writes into shared logs.
//!
//! There are two rates: chat lines, and requests that others in a room or in the lobby see (join, create, configure
//! and the like). Moves have no rate here: a game decides how fast it may be played. Leaving needs none, because a
//! player must have joined before; neither does getting ready, because a player must have withdrawn it or finished a
//! match before.
//!
//! The account lies in the player's record and is updated by the transaction that executes the request. So a
//! successor or a resumed connection continues with the same account, and a refused request costs nothing.

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
    /// The charge for one more chat line, if the player may send it now. It counts once it is
    /// [entered](RateCharge::enter).
    pub(crate) fn charge_line(&self) -> Result<RateCharge, Rejection> {
        let header = self.state.memory.header;
        let rate = Rate::of(&header.chat_burst, &header.chat_per_minute);
        self.pay(rate, |player| &player.chat_paid_until_us)
            .map_err(|wait| {
                let text = format!("you may say {} lines a minute; {wait}", rate.per_minute);
                Rejection::new(RejectCode::ChatTooFast, text)
            })
    }

    /// The charge for one more rate-limited request, if the player may make it now. It counts once it is
    /// [entered](RateCharge::enter).
    pub(crate) fn charge_request(&self) -> Result<RateCharge, Rejection> {
        let header = self.state.memory.header;
        let rate = Rate::of(&header.requests_burst, &header.requests_per_minute);
        self.pay(rate, |player| &player.requests_paid_until_us)
            .map_err(|wait| {
                let text = format!("you may do this {} times a minute; {wait}", rate.per_minute);
                Rejection::new(RejectCode::TooFast, text)
            })
    }

    /// Charges the current frame: the transaction that consumes it enters the charge.
    ///
    /// # Errors
    ///
    /// [`RejectCode::TooFast`].
    pub fn charge(&mut self) -> Result<(), Rejection> {
        self.charge = Some(self.charge_request()?);
        Ok(())
    }

    /// Cancels the charge: the request was refused.
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

/// Whether the dispatcher charges the request. (Others are charged where their effect is known.)
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
        // Charged by what it changes: see `match_play::ready`.
        ClientMessage::Ready { .. } | ClientMessage::Rematch { .. } => false,
        // Charged as chat lines.
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

/// A rate limit.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// Requests in a burst.
    burst: u64,
    /// Requests per minute in the long run; 0: no limit.
    per_minute: u64,
}

impl Rate {
    fn of(burst: &AtomicU64, per_minute: &AtomicU64) -> Self {
        Self {
            burst: burst.load(Ordering::Relaxed),
            per_minute: per_minute.load(Ordering::Relaxed),
        }
    }

    /// Charges one request: it takes its share of a minute, and the account may run ahead of the clock by as much as
    /// the burst allows. (A token bucket that stores one number.)
    ///
    /// # Errors
    ///
    /// Microseconds to wait.
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

/// A charge that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct RateCharge {
    until_us: Option<u64>,
}

impl RateCharge {
    /// Enters the charge in this transaction; `paid_until_us` is the account in the player's record.
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

    /// How many lines are accepted in a row at the same moment.
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
    fn a_player_over_the_rate_is_told_how_long_to_wait() {
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
