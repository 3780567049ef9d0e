//! The doorbells of a server: eventfds by which processes wake each other to look at shared memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use shmem::doorbell;
use shmem::event_log::EventLog;
use shmem::sys::eventfd::EventFd;
use shmem::sys::sockets::Channel;

/// All doorbells. A process closes those that it neither rings nor polls; ringing a closed one is a bug.
#[derive(Debug)]
pub(crate) struct Doorbells {
    /// One per keeper, rung when the keeper must look at its slot.
    pub(crate) keepers: Vec<EventFd>,
    /// One per room, rung when its log has new entries. The ticker keeps all of them and serves requests for them.
    pub(crate) rooms: Vec<EventFd>,
    /// Rung when the lobby's chat has new lines. Every handler polls it.
    pub(crate) chat: EventFd,
    /// Requests for a room's doorbell: the room's index, with a channel for the reply.
    pub(crate) requests: ChannelPair,
}

/// Both ends of a channel.
#[derive(Debug)]
pub(crate) struct ChannelPair {
    pub(crate) sender: Channel,
    pub(crate) receiver: Channel,
}

impl ChannelPair {
    pub(crate) fn new() -> io::Result<Self> {
        let (sender, receiver) = Channel::pair()?;
        Ok(Self { sender, receiver })
    }
}

impl Doorbells {
    /// Creates the doorbells for this many keepers and rooms.
    ///
    /// # Errors
    ///
    /// No descriptor or no memory left.
    pub(crate) fn new(keepers: u32, rooms: u32) -> io::Result<Self> {
        Ok(Self {
            keepers: (0..keepers).map(|_| EventFd::new()).collect::<io::Result<_>>()?,
            rooms: (0..rooms).map(|_| EventFd::new()).collect::<io::Result<_>>()?,
            chat: EventFd::new()?,
            requests: ChannelPair::new()?,
        })
    }

    /// What a process needs to ring keepers, poll the chat and subscribe to rooms.
    pub(crate) fn for_clients(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let keepers = self.keepers.iter().map(AsFd::as_fd);
        keepers.chain([self.chat.as_fd(), self.requests.sender.as_fd()])
    }

    /// Wakes a keeper.
    pub(crate) fn ring_keeper(&self, keeper: u32) {
        self.keepers[keeper as usize].ring();
    }

    /// Wakes every handler, if the chat's log has an unannounced entry.
    pub(crate) fn ring_chat<const WORDS: usize>(&self, log: &EventLog<WORDS>) {
        doorbell::ring(log, &self.chat);
    }

    /// Wakes the room's subscribers, if its log has an unannounced entry. Only the ticker has these doorbells open.
    pub(crate) fn ring_room<const WORDS: usize>(&self, room: u32, log: &EventLog<WORDS>) {
        doorbell::ring(log, &self.rooms[room as usize]);
    }
}
