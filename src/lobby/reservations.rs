//! Reserved seats: the owner names a player, who is invited and has a seat reserved for a limited time.
//!
//! A reservation takes two transactions. The first, under the room's lock, reserves the seat. The second, under the
//! lobby's lock, puts the invitation into the player's mailbox and consumes the owner's frame. A handler that takes
//! over between them handles the frame again: it finds the seat reserved, and its time starts again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use forkade_protocol::{RejectCode, Reservation, RoomEvent, RoomId, ServerMessage, text};
use shmem::sys::clock::now_ms;

use crate::limits::INVITED_BYTES_MAX;
use crate::lobby::chat::admit_line;
use crate::lobby::delivery::Events;
use crate::lobby::invites::code_of;
use crate::lobby::join_leave::{self, RoomContext, first_free_seat};
use crate::lobby::match_play::RoomTimers;
use crate::lobby::ownership::unban;
use crate::lobby::turns::remaining_ms;
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::directory::{Name, NameHashes};
use crate::state::handle::StateHandle;
use crate::state::layout::{PlayerRef, RoomRef};
use crate::state::rooms::{RoomLife, RoomTx, Seat, game_of, is_open, seats_in};

/// Reserves a free seat for the player of that name, and invites it. Is charged like a line of chat.
///
/// # Errors
///
/// If the caller is in no room or not the owner, no player has the name, the player has a seat here already, no seat is
/// free, the match has begun, the player's mailbox is full, or the caller is muted.
pub fn reserve(session: &mut Session<'_>, name: &str) -> Result<(), Rejection> {
    join_leave::with_room(session, |tx, context| context.ensure_owner(&tx))?;
    admit_line(session)?;
    let player = find_addressee(session.state, name)?;
    let lasts_ms = session
        .state
        .memory
        .header
        .seat_reservation_ms
        .load(Ordering::Relaxed);
    let directory = session.state.memory.directory;
    let name_hashes = directory.hashes_of(player.1.as_str());
    let (room, (invited, reserved_until_ms)) = join_leave::with_room(session, |mut tx, context| {
        context.ensure_owner(&tx)?;
        context.charge_event(&tx)?;
        let reserved_until_ms = seat_reserved_for(&tx, player.0)
            .map(|seat| tx.get(&tx.record().reserved_until_ms[usize::from(seat)]));
        let invited = reserve_seat(&mut tx, context, (player, name_hashes), lasts_ms)?;
        tx.commit()?;
        Ok((context.room, (invited, reserved_until_ms)))
    })?;
    session.doorbells.push(room.index());

    let Some(player_tx) = session.player_tx() else {
        return Ok(());
    };
    let memory = session.state.memory;
    let mut tx = session.state.attachment.begin(memory.directory.record);
    match memory.post(&mut tx, player.0, &invited) {
        Ok(keeper) => {
            player_tx.consume(&mut tx);
            tx.commit()?;
            session.keeper_doorbells.extend(keeper);
            Ok(())
        }
        // The mailbox has filled up since the check, or the player has left.
        Err(error) => {
            drop(tx);
            cancel_reservation(session.state, room, player.0, reserved_until_ms)?;
            Err(error.into())
        }
    }
}

/// Reserves a seat for a player that has none in the room. Returns the invitation.
fn reserve_seat(
    tx: &mut RoomTx<'_>,
    context: &RoomContext<'_>,
    ((player, name), name_hashes): ((PlayerRef, Name), NameHashes),
    lasts_ms: u64,
) -> Result<ServerMessage, Rejection> {
    let record = tx.record();
    let is_here = |tx: &RoomTx<'_>| record.seats.iter().any(|seat| tx.get(seat).player == player);
    if is_here(tx) {
        return Err(Rejection::new(
            RejectCode::AlreadyInRoom,
            "that player has a seat here already",
        ));
    }
    let seat = match seat_reserved_for(tx, player) {
        Some(seat) => seat,
        None => first_free_seat(tx, context.calls.games)?,
    };
    unban(tx, player, name_hashes);
    tx.set(&record.reserved, tx.get(&record.reserved) | 1 << seat);
    tx.set(&record.reserved_for[usize::from(seat)], Seat::of(player, name));
    tx.set(&record.reserved_until_ms[usize::from(seat)], now_ms() + lasts_ms);
    let mut events = Events::begin(tx);
    let name = name.as_str().to_owned();
    events.push_to_all(tx, RoomEvent::Reserved { seat, name })?;
    events.finish(tx);
    let owner = context
        .seat
        .map(|seat| tx.get(&record.seats[usize::from(seat)]).name);
    Ok(ServerMessage::Invited {
        room: RoomId(context.room.to_id()),
        game: game_of(tx, context.calls.games).name().to_owned(),
        name: tx.get(&record.name).as_str().to_owned(),
        from: owner.map_or_else(String::new, |name| name.as_str().to_owned()),
        code: code_of(tx, context.room).to_string(),
        seconds: u16::try_from(lasts_ms.div_ceil(1000)).unwrap_or(u16::MAX),
    })
}

/// Returns the player of that name, if its mailbox has space for an invitation.
fn find_addressee(state: &mut StateHandle, name: &str) -> Result<(PlayerRef, Name), Rejection> {
    let unknown = || {
        let text = format!("nobody here is called \"{}\"", name.escape_debug());
        Rejection::new(RejectCode::UnknownPlayer, text)
    };
    // Stored names were cleaned in the same way.
    let cleaned = text::clean_player_name(name).map_err(|_| unknown())?;
    let directory = state.memory.directory;
    let tx = state.attachment.begin(directory.record);
    let player = directory.find_name(&tx, &cleaned).ok_or_else(unknown)?;
    state.memory.check_mailbox_space(&tx, player, INVITED_BYTES_MAX)?;
    let name = tx.get(&directory.identities.at(player.index()).name);
    Ok((player, name))
}

/// Sets a player's reservation back to the time that it had before, or releases it for `None`.
fn cancel_reservation(
    state: &mut StateHandle,
    room: RoomRef,
    player: PlayerRef,
    reserved_until_ms: Option<u64>,
) -> Result<(), Rejection> {
    let mut tx = state.attachment.begin(state.memory.rooms.at(room.index()));
    if is_open(&tx, room)
        && let Some(seat) = seat_reserved_for(&tx, player)
    {
        match reserved_until_ms {
            Some(until_ms) => tx.set(&tx.record().reserved_until_ms[usize::from(seat)], until_ms),
            None => release_reservations(&mut tx, 1 << seat)?,
        }
    }
    Ok(tx.commit()?)
}

/// Releases the reservations in a room that have expired at `now_ms`.
///
/// # Errors
///
/// If the events do not fit. That is a bug in the server.
pub(crate) fn expire_reservations(
    state: &mut StateHandle,
    index: u32,
    now_ms: u64,
) -> Result<RoomTimers, Rejection> {
    let Some(mut tx) = state
        .attachment
        .try_begin(state.memory.rooms.at(index), Duration::ZERO)
    else {
        return Ok(RoomTimers::Busy);
    };
    let record = tx.record();
    if tx.get(&record.life) != RoomLife::OPEN.raw() {
        return Ok(RoomTimers::NotDue);
    }
    let expired = seats_in(tx.get(&record.reserved))
        .filter(|seat| tx.get(&record.reserved_until_ms[usize::from(*seat)]) <= now_ms)
        .fold(0, |expired, seat| expired | 1 << seat);
    if expired == 0 {
        return Ok(RoomTimers::NotDue);
    }
    release_reservations(&mut tx, expired)?;
    tx.commit()?;
    Ok(RoomTimers::Done)
}

/// Returns the seat that is reserved for the player.
pub(crate) fn seat_reserved_for(tx: &RoomTx<'_>, player: PlayerRef) -> Option<u8> {
    let record = tx.record();
    seats_in(tx.get(&record.reserved))
        .find(|seat| tx.get(&record.reserved_for[usize::from(*seat)]).player == player)
}

/// Removes the reservation of a seat whose player takes it.
pub(crate) fn claim_reservation(tx: &mut RoomTx<'_>, seat: u8) {
    let record = tx.record();
    tx.set(&record.reserved, tx.get(&record.reserved) & !(1 << seat));
}

/// Releases the reservations of these seats (a bit per seat), and tells the room.
pub(crate) fn release_reservations(tx: &mut RoomTx<'_>, seats: u64) -> Result<(), Rejection> {
    let record = tx.record();
    tx.set(&record.reserved, tx.get(&record.reserved) & !seats);
    let mut events = Events::begin(tx);
    for seat in seats_in(seats) {
        events.push_to_all(tx, RoomEvent::ReservationOver { seat })?;
    }
    events.finish(tx);
    Ok(())
}

/// Returns the room's reservations, as its members see them.
pub(crate) fn reservations(tx: &RoomTx<'_>) -> Vec<Reservation> {
    let (record, now_ms) = (tx.record(), now_ms());
    let reservation = |seat: u8| Reservation {
        seat,
        name: tx
            .get(&record.reserved_for[usize::from(seat)])
            .name
            .as_str()
            .to_owned(),
        milliseconds: remaining_ms(tx.get(&record.reserved_until_ms[usize::from(seat)]), now_ms),
    };
    seats_in(tx.get(&record.reserved)).map(reservation).collect()
}
