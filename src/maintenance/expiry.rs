//! Expiry, and recovery of what dead processes left: the ticker's work, in small transactions.
//!
//! Players are marked as expiring under the lobby's lock, then leave as in [`departure`]; closed rooms' records are
//! freed under the lobby's lock. Connections are claimed without a lock, by a compare-and-swap. If the ticker dies in
//! between, its successor finds the same marks and goes on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shmem::lock::Lock;
use shmem::transaction::SingleWriter;

use crate::limits::{IDENTITIES_PER_TRANSACTION, LOBBY_GRACE_MS_MIN};
use crate::lobby::{departure, join_leave};
use crate::maintenance::eviction::shortened_ms;
use crate::session::Session;
use crate::session::transport::ByteCounts;
use crate::state::connections::{Claim, ConnectionRecord};
use crate::state::directory::{Name, Presence};
use crate::state::handle::StateHandle;
use crate::state::incidents::IncidentKind;
use crate::state::layout::{LockOwner, PlayerRef, RoomRef};
use crate::state::room_label::Quoted;
use crate::state::rooms::RoomLife;

/// Removes all players whose grace has expired at `now_ms`, and completes the leave of players whose process died
/// during it. Returns the rooms whose doorbell is to be rung.
pub fn expire_players(state: &mut StateHandle, now_ms: u64) -> Vec<u32> {
    let (mut doorbells, mut first) = (Vec::new(), Some(0));
    while let Some(from) = first {
        let (rooms, next) = expire_some_players(state, from, now_ms);
        doorbells.extend(rooms);
        first = next;
    }
    doorbells
}

/// A bounded part of [`expire_players`], with the players from the record `first` on. Returns the rooms whose doorbell
/// is to be rung, and the record to go on with, if any. A player whose room's lock is held at this moment is left for
/// the next time: its game may hang, and nobody else's grace is to wait for it.
pub fn expire_some_players(state: &mut StateHandle, first: u32, now_ms: u64) -> (Vec<u32>, Option<u32>) {
    let mut doorbells = Vec::new();
    let (leaving, next) = collect_expired(state, first, now_ms);
    for (player, why) in leaving {
        let record = state.memory.players.at(player.index());
        let noted = record.noted_lock().load(Ordering::Relaxed);
        let is_held = |lock: &Lock| lock.holder().is_some();
        if let Some((lock, LockOwner::Room(_))) = state.memory.lock_at(noted)
            && is_held(lock)
        {
            continue;
        }
        state.memory.recover(&mut state.attachment, noted);
        state.attachment.acquire(record);
        let place = state.attachment.read_own(&record.membership).place();
        let room = place.map(|(room, _)| room.index());
        let name = state.attachment.read_own(&record.name);
        if departure::expire(state, player, Some(Duration::ZERO), |_| {}) {
            tell_departure(state, name, room, why);
            doorbells.extend(room);
        } else if let Some(room) = room {
            // Its holder may hang, and perhaps nobody else needs the room.
            state.attachment.report_held(state.memory.rooms.at(room));
        }
        state.attachment.release(record);
    }
    (doorbells, next)
}

/// Says in the log and among the incidents that a player is gone.
fn tell_departure(state: &StateHandle, name: Name, room: Option<u32>, why: &str) {
    log::info!("{} has left: {why}", Quoted(name.as_str()));
    state.memory.incidents.enter(
        IncidentKind::Departure,
        (std::process::id(), room),
        name.as_str(),
        format_args!("has left: {why}"),
    );
}

/// Marks the expired players among the next identities from `first` on. Returns them with the reason, and the index to
/// go on with, if any.
fn collect_expired(
    state: &mut StateHandle,
    first: u32,
    now_ms: u64,
) -> (Vec<(PlayerRef, &'static str)>, Option<u32>) {
    let (memory, directory) = (state.memory, state.memory.directory);
    let grace_ms = memory.header.seat_grace_ms.load(Ordering::Relaxed);
    let mut tx = state.attachment.begin(directory.record);
    let places = directory.identities.len();
    let players = tx.get(&directory.record.players_present);
    let lobby_grace_ms = shortened_ms(grace_ms, LOBBY_GRACE_MS_MIN, players, places);
    let touched = tx.get(&directory.record.identities_touched);
    let end = touched.min(first + IDENTITIES_PER_TRANSACTION);
    let (mut leaving, mut examined) = (Vec::new(), Vec::new());
    for index in first..end {
        let identity = directory.identities.at(index);
        let presence = Presence::from_raw(tx.get(&identity.presence));
        if presence == Presence::FREE && memory.sources.of_player(index).is_some() {
            memory.sources.set_of_player(index, None);
        }
        // A player that has a connection, even one that leaves for good, belongs to the connection's handler.
        if tx.get(&identity.connection).is_some() {
            continue;
        }
        let away_ms = now_ms.saturating_sub(tx.get(&identity.detached_at_ms));
        let is_detached = presence == Presence::DETACHED;
        let expired = is_detached && (away_ms >= grace_ms || tx.get(&identity.kicked) != 0);
        let is_resuming = tx.get(&identity.claimant).is_some();
        // The grace is for seats. Mail keeps no place: otherwise a client with two players could keep both places for
        // ever.
        let expired = expired
            || is_detached && away_ms >= lobby_grace_ms && !is_resuming && {
                // The player was detached under the lobby's lock, which is held, so its record has no undecided
                // transaction.
                let player_record = memory.players.at(index);
                tx.acquire(player_record);
                examined.push(player_record);
                !tx.get(&player_record.membership).has_seat()
            };
        if expired {
            tx.set(&identity.presence, Presence::EXPIRING.raw());
        }
        if expired || presence == Presence::EXPIRING {
            let why = match (expired, tx.get(&identity.kicked) != 0) {
                (false, _) => "its leaving was interrupted",
                (true, true) => "an operator has removed it",
                (true, false) => "it did not come back in time",
            };
            leaving.push((PlayerRef::new(index, tx.get(&identity.generation)), why));
        }
    }
    tx.commit().expect("the marks of one transaction fit the journal");
    for player_record in examined {
        state.attachment.release(player_record);
    }
    (leaving, (end < touched).then_some(end))
}

/// Frees the records of closed rooms, where the process of the last player to leave died before it did so.
pub fn free_closed_rooms(state: &mut StateHandle) {
    for index in state.memory.directory.visited_rooms(0) {
        free_room_if_closed(state, index);
    }
}

/// Frees the record if its room has closed, and ends the visits to a record that is free. It waits for no room's lock:
/// the game of a room that is being opened may hang.
pub fn free_room_if_closed(state: &mut StateHandle, index: u32) {
    let (directory, record) = (state.memory.directory, state.memory.rooms.at(index));
    if record.open_generation().is_some() {
        return;
    }
    let tx = state.attachment.begin(directory.record);
    let is_announced = || record.log.unannounced_head().is_none();
    if !directory.is_room_in_use(&tx, index, is_announced) {
        return;
    }
    let given = tx.get(&directory.rooms.at(index).generation);
    drop(tx);
    let Some(tx) = state.attachment.try_begin(record, Duration::ZERO) else {
        return;
    };
    let closing = tx.get(&record.life) == RoomLife::CLOSING.raw() && tx.get(&record.generation) == given;
    drop(tx);
    if closing {
        join_leave::free_room(state, RoomRef::new(index, given));
    }
}

/// Frees a connection that no process serves or will serve: detaches its player and frees its slot. To be called only
/// when the handler is dead. Returns the keeper whose doorbell is to be rung.
#[must_use]
pub fn free_connection(state: &mut StateHandle, index: u32) -> Option<u32> {
    let record = state.memory.connections.at(index);
    let (mut session, _) = Session::attach(state, index, ByteCounts::default());
    let keeper = departure::finish(&mut session);
    state.attachment.release(record);
    state.memory.free_connection(index);
    keeper
}

/// Returns the connections to free, in the order of their slots: their keeper has abandoned them or is dead, and their
/// handler is dead.
pub fn orphaned_connections(state: &StateHandle) -> Vec<u32> {
    state
        .memory
        .touched_connections()
        .filter(|(index, record)| match record.claimed() {
            Claim::Free => false,
            Claim::Abandoned => has_no_handler(record),
            Claim::Held => is_without_keeper(state, *index, record) && has_no_handler(record),
        })
        .map(|(index, _)| index)
        .collect()
}

/// Claims an orphaned connection: from here on no keeper adopts it, and no handler starts to serve it. Returns false if
/// one did just before.
pub fn claim_orphan(state: &StateHandle, index: u32) -> bool {
    let record = state.memory.connections.at(index);
    if record.claimed() == Claim::Abandoned {
        return has_no_handler(record);
    }
    if !record.exchange_claim(Claim::Held, Claim::Abandoned) {
        return false;
    }
    let is_orphan = is_without_keeper(state, index, record) && has_no_handler(record);
    if !is_orphan {
        record.exchange_claim(Claim::Abandoned, Claim::Held);
    }
    is_orphan
}

/// Whether no keeper has the connection or will adopt it.
fn is_without_keeper(state: &StateHandle, index: u32, record: &ConnectionRecord) -> bool {
    let keeper = state.memory.keeper_of(index);
    keeper
        .settled_epoch()
        .is_some_and(|epoch| record.keeper_epoch() != epoch)
}

fn has_no_handler(record: &ConnectionRecord) -> bool {
    record
        .handler()
        .is_none_or(|handler| !handler.is_alive().unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::layout::{Capacity, Memory};
    use forkade_games::Games;
    use shmem::transaction::Record;

    #[test]
    fn the_rooms_to_visit_are_those_that_there_are_and_not_those_that_there_were() {
        let capacity = Capacity {
            players: 1,
            rooms: 300,
            keepers: 1,
        };
        let memory = Memory::create(capacity).expect("there is memory");
        let directory = memory.directory;
        let mut state = StateHandle::imitate(memory, Box::leak(Box::new(Games::default())));
        let rooms: Vec<RoomRef> = (0..300)
            .map(|_| {
                let mut tx = state.attachment.begin(directory.record);
                let (index, generation) = directory
                    .add_room(&mut tx, PlayerRef::NONE)
                    .expect("a record is free");
                memory.rooms.at(index).lock().prepare();
                tx.commit().expect("it fits the journal");
                RoomRef::new(index, generation)
            })
            .collect();
        let visited = |first| directory.visited_rooms(first).collect::<Vec<u32>>();
        assert_eq!(visited(0), (0..300).collect::<Vec<_>>());
        assert_eq!(visited(130), (130..300).collect::<Vec<_>>());
        let kept = [7, 64, 299];
        for room in rooms.iter().filter(|room| !kept.contains(&room.index())) {
            join_leave::free_room(&mut state, *room);
        }
        free_closed_rooms(&mut state);
        assert_eq!(visited(0), kept);
        assert_eq!(visited(65), [299]);
    }
}
