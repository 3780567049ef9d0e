//! Rate limits for what a player asks for.
//!
//! A player has five accounts: for chat lines; for requests that others in a room or in the lobby see (join, create,
//! configure and the like); for requests that were rejected, so that no player tries passcodes or names in large
//! numbers; for the rooms that its lists and searches examine; and for what others are told when its connection is lost
//! and it comes back. Moves have no rate here: a game decides how fast it may be played. Leaving needs none, because a
//! player must have joined before; neither does getting ready, because a player must have withdrawn it or finished a
//! match before.
//!
//! The accounts lie in the player's record and are updated by the transaction that executes or rejects the request. So
//! a successor, a resumed connection, or a new player of the same name continues with the same accounts.

use std::sync::atomic::Ordering;

use forkade_protocol::{ChatScope, ClientMessage, RejectCode};

use crate::limits::{
    FAILURE_REMEMBERED_MS, RETURN_DELIVERIES_BURST, RETURN_DELIVERIES_PER_SECOND, ROOMS_EXAMINED_BURST,
    ROOMS_EXAMINED_PER_SECOND,
};
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::budget::{Rate, TooSoon, now_us};
use crate::state::header::Header;
use crate::state::layout::Memory;
use crate::state::players::{Account, PlayerRecord};
use shmem::transaction::{Record, Tx};

impl Session<'_> {
    /// Charges the current frame as a line of chat: the transaction that consumes it enters the charge.
    ///
    /// # Errors
    ///
    /// [`RejectCode::ChatTooFast`].
    pub(crate) fn charge_line(&mut self) -> Result<(), Rejection> {
        self.charge = Some(self.pay(Account::Chat, 1)?);
        Ok(())
    }

    /// The charge for one more rate-limited request, if the player may make it now. It counts once it is
    /// [entered](RateCharge::enter).
    pub(crate) fn charge_request(&self) -> Result<RateCharge, Rejection> {
        self.pay(Account::Requests, REQUEST_PRICE)
    }

    /// Charges the current frame its [price](price_of): the transaction that consumes it enters the charge.
    ///
    /// # Errors
    ///
    /// [`RejectCode::TooFast`].
    pub fn charge(&mut self, price: u64) -> Result<(), Rejection> {
        self.charge = Some(self.pay(Account::Requests, price)?);
        Ok(())
    }

    /// Charges the current frame as a rate-limited request, accepted or rejected: before anything is looked up for it.
    ///
    /// # Errors
    ///
    /// [`RejectCode::TooFast`].
    pub fn charge_in_any_case(&mut self) -> Result<(), Rejection> {
        // The account that makes the player wait for longest comes first, so that the player is told that wait.
        self.charge_if_rejected()?;
        self.charge(REQUEST_PRICE)
    }

    /// Makes the current frame one that is charged if it is [rejected](Session::fail).
    ///
    /// # Errors
    ///
    /// [`RejectCode::TooFast`] if too many were rejected. The request must not be judged then: its result would be
    /// worth a guess.
    pub fn charge_if_rejected(&mut self) -> Result<(), Rejection> {
        self.charge_if_rejected = Some(self.pay(Account::Failures, 1)?);
        Ok(())
    }

    /// Notes that the current frame is rejected for what it asks. It costs a failure if that was
    /// [prepared](Session::charge_if_rejected), and nothing else.
    pub fn fail(&mut self) {
        self.charge = self.charge_if_rejected.take();
        if self.charge.is_some() {
            let header = self.state.memory.header;
            header.failed_requests_total.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether none of the player's requests was rejected within [`FAILURE_REMEMBERED_MS`].
    pub(crate) fn has_not_failed(&self) -> bool {
        let paid_until_us = self.paid_until_us(Account::Failures);
        paid_until_us == 0 || paid_until_us.saturating_add(FAILURE_REMEMBERED_MS * 1000) <= now_us()
    }

    /// The charge for a list or search that examines so many rooms, if the player's account allows it now. It counts
    /// once it is [entered](RateCharge::enter).
    pub(crate) fn charge_search(&self, rooms: u64) -> Result<RateCharge, TooSoon> {
        let account = Account::Searches;
        let (burst, per_minute) = burst_and_rate(self.state.memory.header, account);
        Rate::per_minute(per_minute, burst)
            .pay(self.paid_until_us(account), now_us(), rooms.max(1))
            .map(|until_us| RateCharge { account, until_us })
    }

    /// Charges the current frame for the rooms that it has examined, which the account has allowed before: the
    /// transaction that consumes the frame enters the charge, also if it is rejected.
    pub(crate) fn charge_for_search(&mut self, rooms: u32) {
        self.search_charge = self.charge_search(rooms.into()).ok();
    }

    fn pay(&self, account: Account, price: u64) -> Result<RateCharge, Rejection> {
        let header = self.state.memory.header;
        let (burst, per_minute) = burst_and_rate(header, account);
        Rate::per_minute(per_minute, burst)
            .pay(self.paid_until_us(account), now_us(), price)
            .map(|until_us| RateCharge { account, until_us })
            .map_err(|too_soon| {
                header.too_fast_total.fetch_add(1, Ordering::Relaxed);
                let (code, rule) = match account {
                    Account::Chat => (
                        RejectCode::ChatTooFast,
                        format!("you may say {per_minute} lines a minute"),
                    ),
                    Account::Requests => (
                        RejectCode::TooFast,
                        format!("you may do this {} times a minute", per_minute / REQUEST_PRICE),
                    ),
                    Account::Failures => (
                        RejectCode::TooFast,
                        "too many of your requests were refused".to_owned(),
                    ),
                    Account::Searches => (
                        RejectCode::TooFast,
                        format!("you may look through {per_minute} rooms a minute"),
                    ),
                    Account::Returns => (RejectCode::TooFast, "you come back too often".to_owned()),
                };
                Rejection::too_soon(code, &rule, too_soon)
            })
    }

    fn paid_until_us(&self, account: Account) -> u64 {
        self.player.map_or(0, |(_, player)| {
            let account = &player.paid_until_us[account as usize];
            self.state.attachment.read_own(account)
        })
    }
}

/// The charge for coming back on another connection, if the player's account allows it now: each other member of the
/// room was told that the player's connection was lost, and will be told that it is back. Nothing is charged where
/// nobody is told: for a spectator, and for a player whose connection is replaced before the room has noticed its loss.
/// To be called under the lock under which the player attaches.
pub(crate) fn charge_return<R: Record>(
    memory: &Memory,
    tx: &Tx<'_, R>,
    player: &PlayerRecord,
) -> Result<Option<RateCharge>, TooSoon> {
    let Some((room, Some(seat))) = tx.get(&player.membership).place() else {
        return Ok(None);
    };
    let room = memory.rooms.at(room.index());
    let Some(numbers) = room.published_numbers().filter(|_| !room.is_seat_connected(seat)) else {
        return Ok(None);
    };
    let others = u64::from(numbers.taken).saturating_sub(1) + u64::from(numbers.spectators);
    let account = Account::Returns;
    let paid_until_us = tx.get(&player.paid_until_us[account as usize]);
    let (burst, per_minute) = burst_and_rate(memory.header, account);
    let price = EVENTS_OF_A_RETURN * others;
    let until_us = Rate::per_minute(per_minute, burst).pay(paid_until_us, now_us(), price)?;
    Ok(Some(RateCharge { account, until_us }))
}

/// The burst of an account, and its units per minute in the long run.
fn burst_and_rate(header: &Header, account: Account) -> (u64, u64) {
    let (burst, per_minute) = match account {
        Account::Chat => (&header.chat_burst, &header.chat_per_minute),
        Account::Requests => (&header.requests_burst, &header.requests_per_minute),
        Account::Failures => (&header.failures_burst, &header.failures_per_minute),
        Account::Searches => return (ROOMS_EXAMINED_BURST, 60 * ROOMS_EXAMINED_PER_SECOND),
        Account::Returns => return (RETURN_DELIVERIES_BURST, 60 * RETURN_DELIVERIES_PER_SECOND),
    };
    let units = match account {
        Account::Requests => REQUEST_PRICE,
        Account::Chat | Account::Failures | Account::Searches | Account::Returns => 1,
    };
    (
        burst.load(Ordering::Relaxed) * units,
        per_minute.load(Ordering::Relaxed) * units,
    )
}

/// The room is told of the loss of the connection and of its return.
const EVENTS_OF_A_RETURN: u64 = 2;

/// The price of a rate-limited request.
pub const REQUEST_PRICE: u64 = 10;

/// The price of a look at the room or at who is here: a lock is held for a moment, but no other player sees anything.
pub const LOOK_PRICE: u64 = 1;

/// What the dispatcher charges for a request; 0: nothing. (Others are charged where their effect is known.)
pub fn price_of(message: &ClientMessage) -> u64 {
    match message {
        ClientMessage::CreateRoom { .. }
        | ClientMessage::JoinRoom { .. }
        | ClientMessage::QuickMatch { .. }
        | ClientMessage::Spectate { .. }
        | ClientMessage::JoinByInvite { .. }
        | ClientMessage::Configure { .. }
        | ClientMessage::Invite { .. }
        | ClientMessage::Kick { .. }
        | ClientMessage::HandOver { .. } => REQUEST_PRICE,
        ClientMessage::Look { .. } => LOOK_PRICE,
        // Charged by what it changes: see `match_play::ready`.
        ClientMessage::Ready { .. } | ClientMessage::Rematch { .. } => 0,
        // Charged as chat lines.
        ClientMessage::Chat { .. } | ClientMessage::Reserve { .. } => 0,
        ClientMessage::Act { .. } | ClientMessage::Leave { .. } => 0,
        // They change nothing that others see.
        ClientMessage::Hello { .. }
        | ClientMessage::Greet { .. }
        | ClientMessage::Resume { .. }
        | ClientMessage::ListRooms { .. }
        | ClientMessage::Ignore { .. }
        | ClientMessage::Confirm { .. }
        | ClientMessage::Ping { .. }
        | ClientMessage::Goodbye => 0,
    }
}

/// Whether a request counts as a failure if it is rejected: it is rate-limited, or its answer tells which players are
/// present.
pub fn costs_if_rejected(message: &ClientMessage) -> bool {
    let names_player = matches!(
        message,
        ClientMessage::Reserve { .. }
            | ClientMessage::Chat {
                scope: ChatScope::Whisper { .. },
                ..
            }
    );
    names_player || price_of(message) == REQUEST_PRICE
}

/// A charge that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct RateCharge {
    account: Account,
    until_us: u64,
}

impl RateCharge {
    /// Enters the charge in this transaction, in the player's record.
    pub(crate) fn enter<R: Record>(self, tx: &mut Tx<'_, R>, player: &PlayerRecord) {
        tx.set(&player.paid_until_us[self.account as usize], self.until_us);
    }
}
