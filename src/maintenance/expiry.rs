//! What happens by time, and what dead processes left behind: the ticker's work, one small transaction at a time.

use crate::limits::JOURNAL_BYTES;
use crate::lobby::Lobby;
use crate::lobby::join_leave::vacate;
use crate::maintenance::crash_attribution::note_game;
use crate::maintenance::eviction::lobby_grace_ms;
use crate::session::Session;
use crate::session::transport::Passed;
use crate::state::connections::{Claim, ConnectionRecord};
use crate::state::directory::{LobbyTx, Presence};
use crate::state::layout::{ConnectionRef, PlayerRef, RoomRef};
use crate::state::players::Membership;
use crate::state::rooms::RoomLife;
use shmem::transaction::SingleWriter;
use std::sync::atomic::Ordering;

/// Identities looked at in one transaction: the lobby's lock is held for microseconds.
const IDENTITIES_PER_LOOK: u32 = 64;
/// A mark is one word in the journal, and one that says where it belongs.
const _: () = assert!(IDENTITIES_PER_LOOK as usize * 16 <= JOURNAL_BYTES);

impl Lobby {
    /// Lets players go whose grace is over at `now_ms`, and completes the leave of those whose process died over it.
    /// Gives the rooms whose doorbell is to be rung.
    pub fn sweep_players(&mut self, now_ms: u64) -> Vec<u32> {
        let mut doorbells = Vec::new();
        let mut first = 0;
        loop {
            let (leaving, next) = self.players_to_let_go(first, now_ms);
            for player in leaving {
                let record = self.memory.players.at(player.index());
                self.memory
                    .recover(&mut self.attachment, record.noted_lock().load(Ordering::Relaxed));
                self.attachment.acquire(record);
                doorbells.extend(
                    self.attachment
                        .read_own(&record.membership)
                        .place()
                        .map(|(room, _)| room.index()),
                );
                self.expire(player, |_| {});
                self.attachment.release(record);
            }
            match next {
                Some(next) => first = next,
                None => return doorbells,
            }
        }
    }

    /// Marks the players of one stretch of the table whose time is over, and gives them, with where the next stretch begins.
    fn players_to_let_go(&mut self, first: u32, now_ms: u64) -> (Vec<PlayerRef>, Option<u32>) {
        let (memory, directory) = (self.memory, self.memory.directory);
        let grace_ms = memory.header.seat_grace_ms.load(Ordering::Relaxed);
        let mut tx = self.attachment.begin(directory.record);
        let places = directory.identities.len();
        let lobby_grace_ms = lobby_grace_ms(grace_ms, tx.get(&directory.record.players_present), places);
        let touched = tx.get(&directory.record.identities_touched);
        let end = touched.min(first + IDENTITIES_PER_LOOK);
        let (mut leaving, mut looked_at) = (Vec::new(), Vec::new());
        for index in first..end {
            let identity = directory.identities.at(index);
            let presence = Presence::from_raw(tx.get(&identity.presence));
            // Who is attached, or leaving while attached, is the business of the connection's handler.
            if tx.get(&identity.connection).is_some() {
                continue;
            }
            let away_ms = now_ms.saturating_sub(tx.get(&identity.detached_at_ms));
            let is_detached = presence == Presence::DETACHED;
            let over = is_detached && (away_ms >= grace_ms || tx.get(&identity.kicked) != 0);
            let is_awaited = tx.get(&identity.claimant).is_some()
                || tx.get(&identity.mail_head) != tx.get(&identity.mail_tail);
            let over = over
                || is_detached && away_ms >= lobby_grace_ms && !is_awaited && {
                    // It was detached under the lobby's lock, which is held: nothing of it is undecided.
                    let player_record = memory.players.at(index);
                    tx.acquire(player_record);
                    looked_at.push(player_record);
                    tx.get(&player_record.membership) == Membership::LOBBY
                };
            if over {
                tx.set(&identity.presence, Presence::EXPIRING.raw());
            }
            if over || presence == Presence::EXPIRING {
                leaving.push(PlayerRef::new(index, tx.get(&identity.generation)));
            }
        }
        tx.commit().expect("the marks of one look fit the journal");
        for player_record in looked_at {
            self.attachment.release(player_record);
        }
        (leaving, (end < touched).then_some(end))
    }

    /// Marks a player as leaving for good.
    pub(crate) fn begin_to_expire(&mut self, player: PlayerRef) {
        let directory = self.memory.directory;
        let mut tx = self.attachment.begin(directory.record);
        if let Some(identity) = directory.identity(&tx, player) {
            tx.set(&identity.presence, Presence::EXPIRING.raw());
        }
        tx.commit().expect("one mark fits the journal");
    }

    /// Completes the leave of a player whom this process animates: out of the room, then out of the lobby. `also` is done in
    /// the transaction that takes the record back.
    pub(crate) fn expire(&mut self, player: PlayerRef, also: impl FnOnce(&mut LobbyTx<'_>)) {
        let memory = self.memory;
        let record = memory.players.at(player.index());
        let membership = self.attachment.read_own(&record.membership);
        if let Some((room, seat)) = membership.place() {
            self.leave_silently(player, room, seat);
        }
        let mut tx = self.attachment.begin(memory.directory.record);
        if let Some(room) = membership.being_opened() {
            memory
                .directory
                .take_room_back(&mut tx, room.index(), room.generation());
        }
        tx.set(&record.membership, Membership::LOBBY);
        if memory.directory.identity(&tx, player).is_some() {
            memory.directory.remove_player(&mut tx, player);
        }
        also(&mut tx);
        tx.commit().expect("taking a player back fits the journal");
    }

    fn leave_silently(&mut self, player: PlayerRef, room: RoomRef, seat: Option<u8>) {
        let memory = self.memory;
        let record = memory.players.at(player.index());
        let mut tx = self.attachment.begin(memory.rooms.at(room.index()));
        let _noted = note_game(memory, self.notes_games, room);
        let vacated = vacate(
            &mut tx,
            self.games,
            (&mut self.outbox, &mut self.faults),
            room,
            player,
            seat,
        );
        tx.set(&record.membership, Membership::LOBBY);
        let closing = tx.get(&tx.record().life) == RoomLife::CLOSING.raw();
        let committed = vacated.and_then(|()| Ok(tx.commit()?));
        if let Err(rejection) = committed {
            // Bounds of events and journal are chosen so that leaving always fits: a mistake of this program's.
            panic!("a player cannot leave the room: {rejection}");
        }
        if closing {
            self.take_room_back(room);
        }
    }

    /// Takes back the records of rooms that have closed, where the last to leave died before doing so.
    pub fn sweep_rooms(&mut self) {
        let directory = self.memory.directory;
        for index in 0..self.rooms_touched() {
            let record = self.memory.rooms.at(index);
            if record.open_generation().is_some() {
                continue;
            }
            let tx = self.attachment.begin(record);
            let closing = tx.get(&record.life) == RoomLife::CLOSING.raw();
            let generation = tx.get(&record.generation);
            drop(tx);
            let tx = self.attachment.begin(directory.record);
            let entry = directory.rooms.at(index);
            let still_given = tx.get(&entry.given) != 0 && tx.get(&entry.generation) == generation;
            drop(tx);
            if closing && still_given {
                self.take_room_back(RoomRef::new(index, generation));
            }
        }
    }

    /// Frees what a connection held that no process animates any more and none will: its player is detached, its slot given
    /// back. To be called only when the handler is dead. Gives the keepers whose doorbell is to be rung.
    #[must_use]
    pub fn free_connection(self, index: u32) -> (Self, Option<u32>) {
        let record = self.memory.connections.at(index);
        let (mut session, _) = Session::attach(self, index, Passed::default());
        let keeper = session.finish();
        let mut lobby = session.lobby;
        lobby.attachment.release(record);
        record.free();
        (lobby, keeper)
    }

    /// Wants a player out; gives the keeper whose doorbell is to be rung. `None`: nobody is connected, the ticker does it.
    pub fn kick(&mut self, name: &str) -> Result<Option<u32>, NoSuchPlayer> {
        let directory = self.memory.directory;
        let mut tx = self.attachment.begin(directory.record);
        let player = directory.find_name(&tx, name).ok_or(NoSuchPlayer)?;
        let identity = directory.identities.at(player.index());
        tx.set(&identity.kicked, 1);
        let connection: ConnectionRef = tx.get(&identity.connection);
        tx.commit().expect("one mark fits the journal");
        Ok(connection
            .is_some()
            .then(|| self.memory.call_attention(connection)))
    }

    /// Connections that need freeing: their keeper has given them up or is dead, and so is their handler.
    pub fn orphaned_connections(&self) -> Vec<u32> {
        self.memory
            .touched_connections()
            .filter(|(index, record)| match record.claimed() {
                Claim::Free => false,
                Claim::Abandoned => has_no_handler(record),
                Claim::Held => self.is_without_keeper(*index, record) && has_no_handler(record),
            })
            .map(|(index, _)| index)
            .collect()
    }

    /// From here on no keeper adopts the connection, and no handler begins to serve it. Says whether none has at the last moment.
    pub fn give_up_orphan(&self, index: u32) -> bool {
        let record = self.memory.connections.at(index);
        if record.claimed() == Claim::Abandoned {
            return has_no_handler(record);
        }
        if !record.exchange_claim(Claim::Held, Claim::Abandoned) {
            return false;
        }
        let is_orphan = self.is_without_keeper(index, record) && has_no_handler(record);
        if !is_orphan {
            record.exchange_claim(Claim::Abandoned, Claim::Held);
        }
        is_orphan
    }

    /// Whether no keeper has the connection, nor will have.
    fn is_without_keeper(&self, index: u32, record: &ConnectionRecord) -> bool {
        let keeper = self.memory.keeper_of(index);
        keeper
            .settled_epoch()
            .is_some_and(|epoch| record.keeper_epoch() != epoch)
    }
}

fn has_no_handler(record: &ConnectionRecord) -> bool {
    record
        .handler()
        .is_none_or(|handler| !handler.is_alive().unwrap_or(true))
}

/// Nobody here has that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no player has that name")]
pub struct NoSuchPlayer;
