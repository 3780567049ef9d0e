//! The doorbells of the rooms that a handler's players are in: one for each room, however many of them are in it.

use std::collections::HashMap;
use std::io;

use mio::{Poll, Token};

use crate::frontends::room_doorbell::RoomDoorbell;
use crate::state::layout::{Memory, RoomRef};
use shmem::sys::process::ProcessId;
use shmem::sys::sockets::Channel;

/// Tokens of doorbells lie from here on, by room, below those of answers.
pub(crate) const FIRST_DOORBELL: usize = 1 << 24;
/// And those of the channels on which doorbells arrive that were asked for.
pub(crate) const FIRST_REPLY: usize = 1 << 25;
const _: () = assert!((crate::limits::PLAYERS_OR_ROOMS_MAX as usize) < FIRST_DOORBELL);

/// All doorbells of one process.
pub(crate) struct RoomDoorbells {
    memory: &'static Memory,
    me: ProcessId,
    rooms: HashMap<u32, Subscription>,
}

/// A room in which there is somebody.
struct Subscription {
    doorbell: RoomDoorbell,
    /// The places in this process of those who are in it.
    places: Vec<usize>,
}

impl RoomDoorbells {
    /// None yet, for the calling process.
    pub(crate) fn new(memory: &'static Memory, me: ProcessId) -> Self {
        Self {
            memory,
            me,
            rooms: HashMap::new(),
        }
    }

    /// Whoever has the place goes from one room to another, or stays, and is to hear the room's doorbell. Who comes to a room looks at its
    /// log afterwards.
    pub(crate) fn follow(
        &mut self,
        place: usize,
        (from, to): (Option<RoomRef>, Option<RoomRef>),
        poll: &Poll,
        requests: &Channel,
    ) -> io::Result<()> {
        if from != to
            && let Some(left) = from.map(RoomRef::index)
            && let Some(followed) = self.rooms.get_mut(&left)
        {
            followed.places.retain(|other| *other != place);
            if followed.places.is_empty() {
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
            places: Vec::with_capacity(2),
        });
        if from != to {
            // Again even if this process is entered already: the room may be another one in the same record.
            self.memory.rooms.at(room).subscribers.subscribe(self.me);
            followed.places.push(place);
        }
        followed.doorbell.follow(Some(room), poll, requests)
    }

    /// Tells those in the room, if its log has anything that nobody was told of: the ones in this process by `wake`, and others, if there
    /// are any, by the doorbell. A doorbell that is not here (yet) is rung by the ticker, who has them all.
    pub(crate) fn ring(&self, room: u32, wake: impl FnMut(usize)) {
        let Some(followed) = self.rooms.get(&room) else {
            return;
        };
        let record = self.memory.rooms.at(room);
        let Some(offset) = record.log.unannounced_head() else {
            return;
        };
        if record.subscribers.is_only_subscriber(self.me) {
            followed.places.iter().copied().for_each(wake);
            record.log.set_announced(offset);
        } else {
            followed.doorbell.ring(room, record);
        }
    }

    /// The places of those in the room.
    pub(crate) fn places(&self, room: u32) -> &[usize] {
        self.rooms.get(&room).map_or(&[], |followed| &followed.places)
    }

    /// Nothing will wake those in the room when something happens there: they must look again soon.
    pub(crate) fn is_unavailable(&self, room: u32) -> bool {
        self.rooms
            .get(&room)
            .is_some_and(|followed| followed.doorbell.is_unavailable())
    }

    /// Takes the doorbell that was asked for, if it has come.
    pub(crate) fn take_reply(&mut self, room: u32, poll: &Poll) -> io::Result<()> {
        match self.rooms.get_mut(&room) {
            Some(followed) => followed.doorbell.take_reply(poll),
            None => Ok(()),
        }
    }
}
