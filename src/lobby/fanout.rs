//! What reaches many costs what it causes: an event of a room is charged once for each of its members, a line of the
//! lobby once for each player.
//!
//! A room has a budget, all rooms together have one, and so has the lobby. The budgets are what the server can deliver
//! without delaying any client, so no number of players causes more. When a room's budget is short, players with a seat
//! go before spectators and newcomers: the latter leave half of each burst to the former. Leaving cannot be refused; it
//! is paid for on entering. A game's own events are not charged: the game decides what its moves cause.

use std::sync::atomic::{AtomicU64, Ordering};

use forkade_protocol::RejectCode;

use crate::limits::FANOUT_BURST_SECONDS;
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::budget::{Rate, TooSoon};
use crate::state::header::Header;
use crate::state::layout::Memory;
use crate::state::rooms::RoomTx;
use crate::state::sources::{SourceAccount, SourceKey};

/// The kind of player that causes an event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A player with a seat, or with a reservation.
    Seat,
    /// A spectator, or a player that wants to join.
    Other,
}

impl Cause {
    /// The member in this seat; `None` for a spectator.
    pub(crate) fn member(seat: Option<u8>) -> Self {
        if seat.is_some() { Self::Seat } else { Self::Other }
    }
}

/// On whose account deliveries go: that of the server, and that of the source which causes them.
#[derive(Clone, Copy)]
pub(crate) struct Payer {
    memory: &'static Memory,
    source: Option<SourceKey>,
}

impl Payer {
    /// The source of the session's player.
    pub(crate) fn of(session: &Session<'_>) -> Self {
        Self {
            memory: session.state.memory,
            source: session.source(),
        }
    }

    /// The rate at which the source is granted deliveries of a budget of the whole server. A source that takes more
    /// than half of the budget in the long run leaves half of each burst to the others.
    fn share_of(self, account: SourceAccount, whole: Rate) -> Rate {
        let is_within = |key| self.memory.sources.check(key, account, whole.half()).is_ok();
        match self.source.is_none_or(is_within) {
            true => whole,
            false => whole.keeping_half(),
        }
    }

    /// Enters deliveries that were granted.
    fn enter(self, account: SourceAccount, whole: Rate, deliveries: u64) {
        if let Some(key) = self.source {
            self.memory.sources.spend(key, account, whole.half(), deliveries);
        }
    }
}

/// Charges events for all members of the room. To be called under the room's lock, before
/// anything is changed.
///
/// # Errors
///
/// `code`, if the budget of the room or of all rooms is spent.
pub(crate) fn charge_room(
    tx: &RoomTx<'_>,
    payer: Payer,
    (cause, events): (Cause, u64),
    code: RejectCode,
) -> Result<(), Rejection> {
    let record = tx.record();
    let members = tx.get(&record.taken).count_ones() + tx.get(&record.spectators);
    let deliveries = events * u64::from(members.max(1));
    charge(tx, payer, (cause, deliveries), code)
}

fn charge(
    tx: &RoomTx<'_>,
    payer: Payer,
    (cause, deliveries): (Cause, u64),
    code: RejectCode,
) -> Result<(), Rejection> {
    let header = payer.memory.header;
    let room_deliveries = &tx.record().deliveries;
    let granted = |rate: Rate| match cause {
        Cause::Seat => rate,
        Cause::Other => rate.keeping_half(),
    };
    let (account, whole) = (SourceAccount::RoomDeliveries, rate(&header.server_fanout));
    let of_server = granted(payer.share_of(account, whole));
    // What the server refuses must not use up the room's budget.
    header
        .server_deliveries
        .check(of_server, deliveries)
        .and_then(|()| room_deliveries.take(granted(rate(&header.room_fanout)), deliveries))
        .and_then(|()| header.server_deliveries.take(of_server, deliveries))
        .map(|()| payer.enter(account, whole, deliveries))
        .map_err(|too_soon| refused(header, code, "too much is going on in this room", too_soon))
}

/// Charges a look at the room, or the entry of a spectator: it reaches no other player, but takes the room's lock for a
/// moment. `seat` is the member's, if it has one.
///
/// # Errors
///
/// As for an event.
pub(crate) fn charge_look(tx: &RoomTx<'_>, payer: Payer, seat: Option<u8>) -> Result<(), Rejection> {
    charge(tx, payer, (Cause::member(seat), 1), RejectCode::TooFast)
}

/// Charges a line for all players.
///
/// # Errors
///
/// [`RejectCode::ChatTooFast`], if the lobby's budget is spent.
pub(crate) fn charge_lobby(payer: Payer) -> Result<(), Rejection> {
    let header = payer.memory.header;
    let (account, whole) = (SourceAccount::LobbyDeliveries, rate(&header.lobby_fanout));
    let players = payer
        .memory
        .directory
        .record
        .players_published
        .load(Ordering::Relaxed);
    header
        .lobby_deliveries
        .take(payer.share_of(account, whole), players)
        .map(|()| payer.enter(account, whole, players))
        .map_err(|too_soon| {
            refused(
                header,
                RejectCode::ChatTooFast,
                "too much is said in the lobby",
                too_soon,
            )
        })
}

fn rate(per_second: &AtomicU64) -> Rate {
    let per_second = per_second.load(Ordering::Relaxed);
    Rate::per_second(per_second, per_second * FANOUT_BURST_SECONDS)
}

fn refused(header: &Header, code: RejectCode, rule: &str, too_soon: TooSoon) -> Rejection {
    header.fanout_refused_total.fetch_add(1, Ordering::Relaxed);
    Rejection::too_soon(code, rule, too_soon)
}
