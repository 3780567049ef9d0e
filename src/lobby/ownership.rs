//! The owner of a room: which seat it is, which is next, and what only the owner may do.
//!
//! Owner and bans are part of the room, under the room's lock. Each change is one transaction with its events, so a
//! crash leaves the room with its old owner or its new one, never without.

use std::cell::LazyCell;

use forkade_protocol::{RejectCode, RoomEvent};

use crate::limits::{BANS_PER_ROOM_MAX, KICK_HOLDS_FOR_NAME_MS};
use crate::lobby::delivery::Events;
use crate::lobby::join_leave::{self, LeaveReason, RoomContext, free_seat};
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::directory::NameHashes;
use crate::state::layout::PlayerRef;
use crate::state::rooms::{RoomBan, RoomTx, Seat};
use shmem::sys::clock::now_ms;
use shmem::sys::memory::Guarded;

/// Value of a room's `owner` while no seat is taken.
pub(crate) const NO_OWNER: u32 = u32::MAX;

/// Kicks the player of that name from the seat, and bans it from the room: the player as long as the room lives, and
/// whoever has its name for [`KICK_HOLDS_FOR_NAME_MS`].
///
/// # Errors
///
/// If the caller is in no room or not the owner, the seat is free or its own, or a player of another name has it.
pub fn kick_from_seat(session: &mut Session<'_>, seat: u8, name: &str) -> Result<(), Rejection> {
    let name_hashes = session.state.memory.directory.hashes_of(name);
    join_leave::change_room(session, |tx, context| {
        context.ensure_owner(tx)?;
        let Seat { player, .. } = other_in_seat(tx, context, seat, name)?;
        context.charge_event(tx)?;
        ban(tx, player, name_hashes);
        free_seat(tx, &mut context.calls, seat, LeaveReason::Kicked)
    })
}

/// Makes the player of that name, in that seat, the room's owner.
///
/// # Errors
///
/// As for a kick.
pub fn transfer_ownership(session: &mut Session<'_>, seat: u8, name: &str) -> Result<(), Rejection> {
    join_leave::change_room(session, |tx, context| {
        context.ensure_owner(tx)?;
        other_in_seat(tx, context, seat, name)?;
        context.charge_event(tx)?;
        set_owner(tx, seat)
    })
}

impl RoomContext<'_> {
    /// Checks that the player is the room's owner. Returns its seat.
    ///
    /// # Errors
    ///
    /// If it is not.
    pub(crate) fn ensure_owner(&self, tx: &RoomTx<'_>) -> Result<u8, Rejection> {
        self.seat
            .filter(|seat| owner_of(tx) == Some(*seat))
            .ok_or_else(|| Rejection::new(RejectCode::NotOwner, "only the room's owner may do this"))
    }
}

/// Returns the seat of the room's owner; `None` if no seat is taken.
pub(crate) fn owner_of(tx: &RoomTx<'_>) -> Option<u8> {
    u8::try_from(tx.get(&tx.record().owner)).ok()
}

/// Elects an owner if the room has none and a seat is taken: the lowest seat whose player is connected, else the lowest
/// taken one.
pub(crate) fn elect_owner(tx: &mut RoomTx<'_>) -> Result<(), Rejection> {
    let record = tx.record();
    let (taken, connected) = (tx.get(&record.taken), tx.get(&record.connected));
    if owner_of(tx).is_some_and(|seat| taken >> seat & 1 != 0) {
        return Ok(());
    }
    let candidates = if taken & connected != 0 {
        taken & connected
    } else {
        taken
    };
    if candidates == 0 {
        tx.set(&record.owner, NO_OWNER);
        return Ok(());
    }
    set_owner(tx, u8::try_from(candidates.trailing_zeros()).expect("few seats"))
}

/// Whether the owner has kicked this player, or lately one of the same name. The name is hashed only if one was kicked.
pub(crate) fn is_banned(
    tx: &RoomTx<'_>,
    player: PlayerRef,
    name_hashes: impl FnOnce() -> NameHashes,
) -> bool {
    let (now_ms, name_hashes) = (now_ms(), LazyCell::new(name_hashes));
    bans(tx).map(|place| tx.get(place)).any(|ban| {
        ban.player == player || ban.name_until_ms > now_ms && ban.name_hashes.is_same(*name_hashes)
    })
}

/// The places of the room's bans.
pub(crate) fn bans(tx: &RoomTx<'_>) -> impl Iterator<Item = &'static Guarded<RoomBan>> {
    let record = tx.record();
    record.bans.iter().take(tx.get(&record.kicks) as usize)
}

fn set_owner(tx: &mut RoomTx<'_>, seat: u8) -> Result<(), Rejection> {
    tx.set(&tx.record().owner, u32::from(seat));
    let mut events = Events::begin(tx);
    events.push_to_all(tx, RoomEvent::Owner { seat })?;
    events.finish(tx);
    Ok(())
}

fn ban(tx: &mut RoomTx<'_>, player: PlayerRef, name_hashes: NameHashes) {
    let record = tx.record();
    let kicks = tx.get(&record.kicks);
    let ban = RoomBan {
        player,
        name_hashes,
        name_until_ms: now_ms() + KICK_HOLDS_FOR_NAME_MS,
    };
    tx.set(&record.bans[kicks as usize % BANS_PER_ROOM_MAX], ban);
    tx.set(&record.kicks, kicks + 1);
}

/// Lifts the bans of a player and of its name, if there are any.
pub(crate) fn unban(tx: &mut RoomTx<'_>, player: PlayerRef, name_hashes: NameHashes) {
    let lifted: Vec<_> = bans(tx)
        .filter(|place| {
            let ban = tx.get(place);
            ban.player == player || ban.name_hashes.is_same(name_hashes)
        })
        .collect();
    for place in lifted {
        tx.set(place, RoomBan::NONE);
    }
}

/// Returns the player in the seat, if it has the name that the owner has seen there. The seat may get another player
/// while a request is on its way; but a name belongs to one player at a time, and does not change inside a room.
fn other_in_seat(
    tx: &RoomTx<'_>,
    context: &RoomContext<'_>,
    seat: u8,
    name: &str,
) -> Result<Seat, Rejection> {
    let reject = |text| Err(Rejection::new(RejectCode::NoSuchSeat, text));
    if context.seat == Some(seat) {
        return reject("that is your own seat");
    }
    match tx.record().seats.get(usize::from(seat)).map(|cell| tx.get(cell)) {
        Some(occupant) if occupant.player.is_some() && occupant.name.as_str() == name => Ok(occupant),
        Some(occupant) if occupant.player.is_some() => Err(Rejection::new(
            RejectCode::SeatChanged,
            format!("{} sits there now", occupant.name.as_str()),
        )),
        _ => reject("nobody sits there"),
    }
}
