//! A process's subscription to the doorbell of one room.
//!
//! All subscribers poll the same eventfd, edge-triggered: one write wakes all. The supervisor creates one for each
//! room, and the ticker, which keeps all of them, sends them on request. Until the reply arrives, the ticker also
//! rings for this process, and this process looks by itself now and then, because the ticker may be dead.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use shmem::doorbell;
use shmem::sys::eventfd::EventFd;
use shmem::sys::sockets::{Channel, ReceiveOutcome, SendOutcome};

use crate::state::room_label::room_number;
use crate::state::rooms::RoomRecord;

/// The doorbell that a process has or has requested.
pub(crate) struct RoomDoorbell {
    doorbell_token: Token,
    reply_token: Token,
    held: Option<(u32, EventFd)>,
    requested: Option<(u32, Channel)>,
}

impl RoomDoorbell {
    /// No subscription.
    pub(crate) fn new(doorbell_token: Token, reply_token: Token) -> Self {
        Self {
            doorbell_token,
            reply_token,
            held: None,
            requested: None,
        }
    }

    /// No doorbell wakes this process when something happens in its room: it must look again soon, and
    /// [follow](Self::follow) the room again.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.held.is_none()
    }

    /// Rings the room's doorbell, if it is the one held.
    pub(crate) fn ring(&self, room: u32, record: &RoomRecord) {
        if let Some((held, eventfd)) = &self.held
            && *held == room
        {
            doorbell::ring(&record.log, eventfd);
        }
    }

    /// Subscribes to `room` from now on, or to none. Requests its doorbell if it is not held.
    pub(crate) fn follow(&mut self, room: Option<u32>, poll: &Poll, requests: &Channel) -> io::Result<()> {
        let held = self.held.as_ref().map(|(held, _)| *held);
        if held != room
            && let Some((_, eventfd)) = self.held.take()
        {
            poll.registry()
                .deregister(&mut SourceFd(&eventfd.as_fd().as_raw_fd()))?;
        }
        let requested = self.requested.as_ref().map(|(requested, _)| *requested);
        if requested.is_some()
            && requested != room
            && let Some((_, answers)) = self.requested.take()
        {
            poll.registry()
                .deregister(&mut SourceFd(&answers.as_fd().as_raw_fd()))?;
        }
        match room {
            Some(room) if self.held.is_none() && self.requested.is_none() => self.ask(room, poll, requests),
            _ => Ok(()),
        }
    }

    /// Takes the doorbell that was requested, if it has arrived.
    pub(crate) fn take_reply(&mut self, poll: &Poll) -> io::Result<()> {
        let Some((room, answers)) = self.requested.take() else {
            return Ok(());
        };
        match answers.receive(&mut [0; 8]) {
            Ok(ReceiveOutcome::WouldBlock) => self.requested = Some((room, answers)),
            Ok(ReceiveOutcome::Message { descriptors, .. }) => {
                poll.registry()
                    .deregister(&mut SourceFd(&answers.as_fd().as_raw_fd()))?;
                if let Some(descriptor) = descriptors.into_iter().next() {
                    self.hold(room, descriptor, poll)?;
                }
            }
            // The ticker died over the request: it is sent again.
            ended => {
                if let Err(error) = ended {
                    log::warn!(
                        "the doorbell of room {} was lost in transit: {error}",
                        room_number(room)
                    );
                }
                poll.registry()
                    .deregister(&mut SourceFd(&answers.as_fd().as_raw_fd()))?;
            }
        }
        Ok(())
    }

    fn hold(&mut self, room: u32, descriptor: OwnedFd, poll: &Poll) -> io::Result<()> {
        let eventfd = EventFd::from(descriptor);
        let raw = eventfd.as_fd().as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&raw), self.doorbell_token, Interest::READABLE)?;
        self.held = Some((room, eventfd));
        Ok(())
    }

    fn ask(&mut self, room: u32, poll: &Poll, requests: &Channel) -> io::Result<()> {
        let (mine, theirs) = match Channel::pair() {
            Ok(pair) => pair,
            Err(error) => {
                log::warn!(
                    "there is no channel to ask for the doorbell of room {}: {error}",
                    room_number(room)
                );
                return Ok(());
            }
        };
        match requests.send(&room.to_le_bytes(), &[theirs.as_fd()]) {
            Ok(SendOutcome::Sent) => {
                let raw = mine.as_fd().as_raw_fd();
                poll.registry()
                    .register(&mut SourceFd(&raw), self.reply_token, Interest::READABLE)?;
                self.requested = Some((room, mine));
            }
            // The channel is full of requests.
            Ok(SendOutcome::WouldBlock | SendOutcome::PeerGone) => {}
            Err(error) => log::warn!(
                "cannot ask for the doorbell of room {}: {error}",
                room_number(room)
            ),
        }
        Ok(())
    }
}
