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
use crate::session::rejection::Rejection;
use crate::state::budget::{Rate, TooSoon};
use crate::state::header::Header;
use crate::state::layout::Memory;
use crate::state::rooms::RoomTx;

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

/// Charges events for all members of the room. To be called under the room's lock, before
/// anything is changed.
///
/// # Errors
///
/// `code`, if the budget of the room or of all rooms is spent.
pub(crate) fn charge_room(
    tx: &RoomTx<'_>,
    header: &Header,
    (cause, events): (Cause, u64),
    code: RejectCode,
) -> Result<(), Rejection> {
    let record = tx.record();
    let members = tx.get(&record.taken).count_ones() + tx.get(&record.spectators);
    let deliveries = events * u64::from(members.max(1));
    charge(tx, header, (cause, deliveries), code)
}

fn charge(
    tx: &RoomTx<'_>,
    header: &Header,
    (cause, deliveries): (Cause, u64),
    code: RejectCode,
) -> Result<(), Rejection> {
    let room_deliveries = &tx.record().deliveries;
    let rate_of = |per_second: &AtomicU64| match cause {
        Cause::Seat => rate(per_second),
        Cause::Other => rate(per_second).keeping_half(),
    };
    let of_server = rate_of(&header.server_fanout);
    // What the server refuses must not use up the room's budget.
    header
        .server_deliveries
        .check(of_server, deliveries)
        .and_then(|()| room_deliveries.take(rate_of(&header.room_fanout), deliveries))
        .and_then(|()| header.server_deliveries.take(of_server, deliveries))
        .map_err(|too_soon| refused(header, code, "too much is going on in this room", too_soon))
}

/// Charges a look at the room, or the entry of a spectator: it reaches no other player, but takes the room's lock for a
/// moment. `seat` is the member's, if it has one.
///
/// # Errors
///
/// As for an event.
pub(crate) fn charge_look(tx: &RoomTx<'_>, header: &Header, seat: Option<u8>) -> Result<(), Rejection> {
    charge(tx, header, (Cause::member(seat), 1), RejectCode::TooFast)
}

/// Charges a line for all players.
///
/// # Errors
///
/// [`RejectCode::ChatTooFast`], if the lobby's budget is spent.
pub(crate) fn charge_lobby(memory: &Memory) -> Result<(), Rejection> {
    let header = memory.header;
    let players = memory.directory.record.players_published.load(Ordering::Relaxed);
    header
        .lobby_deliveries
        .take(rate(&header.lobby_fanout), players)
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
