//! Disconnect, kick, and leave for good.
//!
//! Leaving for good takes three transactions: the lobby's lock marks the player as [`Presence::EXPIRING`], the room's
//! lock removes it from its room, the lobby's lock frees its record. After a crash between them the ticker completes
//! the leave (`maintenance::expiry`). Disconnecting leaves a player detached, for the length of its grace.

use std::time::Duration;

use forkade_protocol::RoomEvent;

use crate::lobby::delivery::Events;
use crate::lobby::join_leave::{self, remove_member};
use crate::lobby::match_play::GameCalls;
use crate::lobby::news::Before;
use crate::session::Session;
use crate::state::connections::Phase;
use crate::state::directory::{LobbyTx, Presence};
use crate::state::handle::StateHandle;
use crate::state::layout::{ConnectionRef, Memory, PlayerRef, RoomRef};
use crate::state::players::Membership;
use crate::state::rooms::{RoomLife, is_open};
use crate::state::running_game::mark_game_running;

/// Ends the connection's part of shared state: the player is detached or, if so requested, leaves for good. To be
/// called when the last bytes are sent, or cannot be. Returns the keeper whose doorbell is to be rung.
pub fn finish(session: &mut Session<'_>) -> Option<u32> {
    match session.player {
        Some(_) if session.leaves_for_good() => {
            leave_for_good(session);
            None
        }
        Some(_) => {
            set_connected(session, false);
            let record = session.record;
            session.detach(|tx| tx.set(&record.phase, Phase::DONE.raw()))
        }
        None => session.end_without_session(),
    }
}

/// Tells the room whether this player is connected, if that has changed.
pub fn set_connected(session: &mut Session<'_>, connected: bool) {
    let Some((player, _)) = session.player else { return };
    let Some((room, Some(seat))) = session.membership().place() else {
        return;
    };
    if publish_connected(session.state, player, room, seat, connected) {
        session.doorbells.push(room.index());
    }
}

fn leave_for_good(session: &mut Session<'_>) {
    let record = session.record;
    let Some((player, player_record)) = session.player else {
        return;
    };
    if let Some((room, _)) = session.membership().place() {
        session.doorbells.push(room.index());
    }
    mark_expiring(session.state, player);
    expire(session.state, player, None, |tx| {
        tx.set(&record.player, PlayerRef::NONE);
        tx.set(&record.phase, Phase::DONE.raw());
    });
    session.state.attachment.release(player_record);
    session.player = None;
}

/// Marks a player as leaving for good. From here on, any process that finds the mark completes the leave.
pub(crate) fn mark_expiring(state: &mut StateHandle, player: PlayerRef) {
    let directory = state.memory.directory;
    let mut tx = state.attachment.begin(directory.record);
    if let Some(identity) = directory.identity(&tx, player) {
        tx.set(&identity.presence, Presence::EXPIRING.raw());
    }
    tx.commit().expect("one mark fits the journal");
}

/// Completes the leave of a player whose record this process has acquired: out of the room, then out of the lobby.
/// `also` runs in the transaction that frees the record. Without `patience`, it waits for the room's lock; else at most
/// so long, and returns false if another process holds it: then nothing has changed.
pub(crate) fn expire(
    state: &mut StateHandle,
    player: PlayerRef,
    patience: Option<Duration>,
    also: impl FnOnce(&mut LobbyTx<'_>),
) -> bool {
    let memory = state.memory;
    let record = memory.players.at(player.index());
    let membership = state.attachment.read_own(&record.membership);
    if let Some(place) = membership.place()
        && !leave_current_room(state, player, place, patience)
    {
        return false;
    }
    let mut tx = state.attachment.begin(memory.directory.record);
    if let Some(room) = membership.being_opened() {
        memory
            .directory
            .free_room(&mut tx, room.index(), room.generation());
    }
    tx.set(&record.membership, Membership::LOBBY);
    if let Some(identity) = memory.directory.identity(&tx, player) {
        let (name, accounts) = (tx.get(&identity.name), record.paid_until_us.each_ref());
        let paid_until_us = accounts.map(|account| tx.get(account));
        memory
            .directory
            .remember_accounts(&mut tx, name.as_str(), paid_until_us);
        memory.directory.remove_player(&mut tx, player);
    }
    also(&mut tx);
    tx.commit().expect("freeing a player's record fits the journal");
    true
}

fn leave_current_room(
    state: &mut StateHandle,
    player: PlayerRef,
    (room, seat): (RoomRef, Option<u8>),
    patience: Option<Duration>,
) -> bool {
    let memory = state.memory;
    let record = memory.players.at(player.index());
    let room_record = memory.rooms.at(room.index());
    let mut tx = match patience {
        None => state.attachment.begin(room_record),
        Some(patience) => match state.attachment.try_begin(room_record, patience) {
            Some(tx) => tx,
            None => return false,
        },
    };
    let before = Before::of(&tx);
    let running_mark = mark_game_running(state.running_mark, room);
    let removed = remove_member(
        &mut tx,
        &mut GameCalls {
            games: state.games,
            outbox: &mut state.outbox,
            faults: &mut state.faults,
            room,
        },
        room,
        player,
        seat,
    );
    tx.set(&record.membership, Membership::LOBBY);
    let closing = tx.get(&tx.record().life) == RoomLife::CLOSING.raw();
    let news = before.compare(&tx, state.games, room);
    let committed = removed.and_then(|()| Ok(tx.commit()?));
    if let Err(rejection) = committed {
        // The limits of events and journal are chosen so that leaving always fits. This is a bug in the server.
        panic!("a player cannot leave the room: {rejection}");
    }
    drop(running_mark);
    if let Some(news) = news {
        news.log(memory);
    }
    if closing {
        join_leave::free_room(state, room);
    }
    true
}

/// Marks the player of that name as kicked by an operator. Returns the keeper whose doorbell is to be rung, or `None`
/// if the player is not connected and the ticker applies the kick.
///
/// # Errors
///
/// If no player has that name.
pub fn kick(state: &mut StateHandle, name: &str) -> Result<Option<u32>, NoSuchPlayer> {
    let directory = state.memory.directory;
    let mut tx = state.attachment.begin(directory.record);
    let player = directory.find_name(&tx, name).ok_or(NoSuchPlayer)?;
    let connection = mark_kicked(&mut tx, state.memory, player);
    tx.commit().expect("one mark fits the journal");
    Ok(connection.map(|connection| state.memory.raise_attention(connection)))
}

/// Marks a player as kicked. Returns its connection, whose handler is to be told after the commit.
pub(crate) fn mark_kicked(tx: &mut LobbyTx<'_>, memory: &Memory, player: PlayerRef) -> Option<ConnectionRef> {
    let identity = memory.directory.identities.at(player.index());
    tx.set(&identity.kicked, 1);
    let connection = tx.get(&identity.connection);
    connection.is_some().then_some(connection)
}

/// Stores in the room whether a player is connected, and tells the room. Returns false if that was known, or the seat
/// is another player's.
pub(crate) fn publish_connected(
    state: &mut StateHandle,
    player: PlayerRef,
    room: RoomRef,
    seat: u8,
    connected: bool,
) -> bool {
    let mut tx = state.attachment.begin(state.memory.rooms.at(room.index()));
    let record = tx.record();
    let bit = 1 << seat;
    let known = tx.get(&record.connected) & bit != 0;
    if known == connected || !is_open(&tx, room) || tx.get(&record.seats[usize::from(seat)]).player != player
    {
        return false;
    }
    let bits = tx.get(&record.connected);
    tx.set(
        &record.connected,
        if connected { bits | bit } else { bits & !bit },
    );
    let mut events = Events::begin(&mut tx);
    let told = events.push_to_all(&mut tx, RoomEvent::Connection { seat, connected });
    events.finish(&mut tx);
    told.is_ok() && tx.commit().is_ok()
}

/// No player has that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no player has that name")]
pub struct NoSuchPlayer;
