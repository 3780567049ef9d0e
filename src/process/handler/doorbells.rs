//! The doorbells of the rooms that a handler's players are in: one subscription per room, however many of them are in
//! it.

use std::collections::BTreeMap;
use std::io;

use mio::{Poll, Token};

use crate::frontends::room_doorbell::RoomDoorbell;
use crate::state::layout::{Memory, RoomRef};
use shmem::sys::process::ProcessId;
use shmem::sys::sockets::Channel;

/// Tokens of doorbells begin here, by room, and end below those of replies.
pub(crate) const FIRST_DOORBELL: usize = 1 << 24;
/// Tokens of the channels on which requested doorbells arrive begin here, by room.
pub(crate) const FIRST_REPLY: usize = 1 << 25;
const _: () = assert!((crate::limits::PLAYERS_OR_ROOMS_MAX as usize) < FIRST_DOORBELL);

/// All room doorbells of one process.
pub(crate) struct RoomDoorbells {
    memory: &'static Memory,
    me: ProcessId,
    rooms: BTreeMap<u32, Subscription>,
}

/// A room with at least one player of this process.
struct Subscription {
    doorbell: RoomDoorbell,
    /// Keys of the clients that are in it.
    client_keys: Vec<usize>,
}

impl RoomDoorbells {
    /// None yet, for the calling process.
    pub(crate) fn new(memory: &'static Memory, me: ProcessId) -> Self {
        Self {
            memory,
            me,
            rooms: BTreeMap::new(),
        }
    }

    /// The client with this key goes from one room to another, or stays, and is to be woken by the room's doorbell. A
    /// client that comes to a room reads its log afterwards.
    pub(crate) fn follow(
        &mut self,
        key: usize,
        (from, to): (Option<RoomRef>, Option<RoomRef>),
        poll: &Poll,
        requests: &Channel,
    ) -> io::Result<()> {
        if from != to
            && let Some(left) = from.map(RoomRef::index)
            && let Some(followed) = self.rooms.get_mut(&left)
        {
            followed.client_keys.retain(|other| *other != key);
            if followed.client_keys.is_empty() {
                self.memory.rooms.at(left).subscribers.unsubscribe(self.me);
                followed.doorbell.follow(None, poll, requests)?;
                self.rooms.remove(&left);
            }
        }
        let Some(room) = to.map(RoomRef::index) else {
            return Ok(());
        };
        let followed = self.rooms.entry(room).or_insert_with(|| Subscription {
            doorbell: RoomDoorbell::new(
                Token(FIRST_DOORBELL + room as usize),
                Token(FIRST_REPLY + room as usize),
            ),
            client_keys: Vec::with_capacity(2),
        });
        if from != to {
            // Again even if this process is entered already: the room may be another one in the same record.
            self.memory.rooms.at(room).subscribers.subscribe(self.me);
            followed.client_keys.push(key);
        }
        followed.doorbell.follow(Some(room), poll, requests)
    }

    /// Announces new entries of the room's log to its members: to those in this process by `wake`, and to others, if
    /// there are any, by the doorbell. A doorbell that has not arrived yet is rung by the ticker, which has all of
    /// them.
    pub(crate) fn ring(&self, room: u32, wake: impl FnMut(usize)) {
        let Some(followed) = self.rooms.get(&room) else {
            return;
        };
        let record = self.memory.rooms.at(room);
        let Some(offset) = record.log.unannounced_head() else {
            return;
        };
        if record.subscribers.is_only_subscriber(self.me) {
            followed.client_keys.iter().copied().for_each(wake);
            record.log.set_announced(offset);
        } else {
            followed.doorbell.ring(room, record);
        }
    }

    /// Keys of the clients that are in the room.
    pub(crate) fn client_keys(&self, room: u32) -> &[usize] {
        self.rooms
            .get(&room)
            .map_or(&[], |followed| &followed.client_keys)
    }

    /// No doorbell wakes the room's members when something happens there: they must look again soon.
    pub(crate) fn is_unavailable(&self, room: u32) -> bool {
        self.rooms
            .get(&room)
            .is_some_and(|followed| followed.doorbell.is_unavailable())
    }

    /// Takes the doorbell that was requested, if it has arrived.
    pub(crate) fn take_reply(&mut self, room: u32, poll: &Poll) -> io::Result<()> {
        match self.rooms.get_mut(&room) {
            Some(followed) => followed.doorbell.take_reply(poll),
            None => Ok(()),
        }
    }
}
