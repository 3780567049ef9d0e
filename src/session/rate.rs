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
use crate::state::budget::{Rate, TooSoon, now_us};
use crate::state::players::PlayerRecord;
use shmem::sys::memory::Guarded;
use shmem::transaction::{Record, Tx};

impl Session<'_> {
    /// The charge for one more chat line, if the player may send it now. It counts once it is
    /// [entered](RateCharge::enter).
    pub(crate) fn charge_line(&self) -> Result<RateCharge, Rejection> {
        let header = self.state.memory.header;
        let (burst, per_minute) = (&header.chat_burst, &header.chat_per_minute);
        self.pay((burst, per_minute), |player| &player.chat_paid_until_us)
            .map_err(|(per_minute, too_soon)| {
                let rule = format!("you may say {per_minute} lines a minute");
                Rejection::too_soon(RejectCode::ChatTooFast, &rule, too_soon)
            })
    }

    /// The charge for one more rate-limited request, if the player may make it now. It counts once it is
    /// [entered](RateCharge::enter).
    pub(crate) fn charge_request(&self) -> Result<RateCharge, Rejection> {
        let header = self.state.memory.header;
        let (burst, per_minute) = (&header.requests_burst, &header.requests_per_minute);
        self.pay((burst, per_minute), |player| &player.requests_paid_until_us)
            .map_err(|(per_minute, too_soon)| {
                let rule = format!("you may do this {per_minute} times a minute");
                Rejection::too_soon(RejectCode::TooFast, &rule, too_soon)
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
        (burst, per_minute): (&AtomicU64, &AtomicU64),
        account: impl FnOnce(&PlayerRecord) -> &Guarded<u64>,
    ) -> Result<RateCharge, (u64, TooSoon)> {
        let [burst, per_minute] = [burst, per_minute].map(|setting| setting.load(Ordering::Relaxed));
        let paid_until_us = self
            .player
            .map_or(0, |(_, player)| self.state.attachment.read_own(account(player)));
        Rate::per_minute(per_minute, burst)
            .pay(paid_until_us, now_us(), 1)
            .map(|until_us| RateCharge { until_us })
            .map_err(|too_soon| (per_minute, too_soon))
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

/// A charge that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct RateCharge {
    until_us: u64,
}

impl RateCharge {
    /// Enters the charge in this transaction; `paid_until_us` is the account in the player's record.
    pub(crate) fn enter<R: Record>(self, tx: &mut Tx<'_, R>, paid_until_us: &Guarded<u64>) {
        tx.set(paid_until_us, self.until_us);
    }
}
