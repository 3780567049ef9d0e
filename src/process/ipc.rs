//! What the processes of one server inherit from the supervisor: sockets, channels, doorbells and the lifeline; and
//! the messages that go through the channels.
//!
//! All of it is created before the first fork, and the supervisor keeps all of it open. So a role that is started
//! again finds what its predecessor had, with everything that was sent meanwhile. Each role closes what it must not
//! have.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixListener;

use serde::{Deserialize, Serialize};
use socket2::SockRef;

use crate::config::Config;
use crate::state::connections::{KINDS, Kind};
use crate::state::doorbells::{ChannelPair, Doorbells};
use crate::state::layout::ConnectionRef;
use shmem::sys::eventfd::EventFd;
use shmem::sys::exec;
use shmem::sys::process::{Lifeline, LifelineHolder, ProcessId, lifeline};
use shmem::sys::sockets::{Channel, DESCRIPTORS_PER_MESSAGE_MAX};

/// Everything that is inherited.
#[derive(Debug)]
pub(crate) struct IpcHandles {
    /// Where players connect.
    pub(crate) games: Vec<TcpListener>,
    /// Where operators connect.
    pub(crate) console: Option<TcpListener>,
    /// Where operators of this machine connect.
    pub(crate) console_unix: Option<UnixListener>,
    /// Open in the supervisor alone: when it exits, all others exit, too.
    lifeline_holder: LifelineHolder,
    /// The other end, which every process watches.
    pub(crate) lifeline: Lifeline,
    /// One per keeper. Its messages carry sockets, from the listener, from handlers whose keeper has died, and from a
    /// keeper that is replaced.
    pub(crate) keepers: Vec<ChannelPair>,
    pub(crate) doorbells: Doorbells,
    /// Rung by a role that is ready.
    pub(crate) ready: EventFd,
}

/// The descriptor numbers by which the program that replaces this one finds the [`IpcHandles`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct IpcDescriptors {
    games: Vec<RawFd>,
    console: Option<RawFd>,
    #[serde(default)]
    console_unix: Option<RawFd>,
    lifeline_holder: RawFd,
    lifeline: RawFd,
    /// Sender and receiver of its channel, and its doorbell.
    keepers: Vec<([RawFd; 2], RawFd)>,
    room_doorbells: Vec<RawFd>,
    ready: RawFd,
    doorbell_requests: [RawFd; 2],
    chat_doorbell: RawFd,
}

impl IpcHandles {
    /// Creates everything that is inherited.
    ///
    /// # Errors
    ///
    /// No descriptor or no memory left.
    pub(crate) fn new(
        games: Vec<TcpListener>,
        console: Option<TcpListener>,
        console_unix: Option<UnixListener>,
        keepers: u32,
        rooms: u32,
    ) -> io::Result<Self> {
        let (lifeline_holder, lifeline) = lifeline()?;
        Ok(Self {
            games,
            console,
            console_unix,
            lifeline_holder,
            lifeline,
            keepers: (0..keepers)
                .map(|_| ChannelPair::new())
                .collect::<io::Result<_>>()?,
            doorbells: Doorbells::new(keepers, rooms)?,
            ready: EventFd::new()?,
        })
    }

    /// Leaves everything open for the program that replaces this one.
    ///
    /// # Errors
    ///
    /// Those of [`exec::keep_open`].
    pub(crate) fn keep_open(&self) -> io::Result<IpcDescriptors> {
        let pair = |pair: &ChannelPair| {
            io::Result::Ok([
                exec::keep_open(pair.sender.as_fd())?,
                exec::keep_open(pair.receiver.as_fd())?,
            ])
        };
        let doorbell = |doorbell: &EventFd| exec::keep_open(doorbell.as_fd());
        let doorbells = &self.doorbells;
        let keepers = self.keepers.iter().zip(&doorbells.keepers);
        Ok(IpcDescriptors {
            games: self
                .games
                .iter()
                .map(|game| exec::keep_open(game.as_fd()))
                .collect::<io::Result<_>>()?,
            console: self
                .console
                .as_ref()
                .map(|console| exec::keep_open(console.as_fd()))
                .transpose()?,
            console_unix: self
                .console_unix
                .as_ref()
                .map(|console| exec::keep_open(console.as_fd()))
                .transpose()?,
            lifeline_holder: exec::keep_open(self.lifeline_holder.as_fd())?,
            lifeline: exec::keep_open(self.lifeline.as_fd())?,
            keepers: keepers
                .map(|(channel, bell)| Ok((pair(channel)?, doorbell(bell)?)))
                .collect::<io::Result<_>>()?,
            room_doorbells: doorbells.rooms.iter().map(doorbell).collect::<io::Result<_>>()?,
            ready: exec::keep_open(self.ready.as_fd())?,
            doorbell_requests: pair(&doorbells.requests)?,
            chat_doorbell: doorbell(&doorbells.chat)?,
        })
    }

    /// Takes over what the program before this one has left open.
    ///
    /// # Errors
    ///
    /// Those of [`exec::take_inherited`].
    pub(crate) fn claim(numbers: &IpcDescriptors) -> io::Result<Self> {
        let pair = |[sender, receiver]: [RawFd; 2]| {
            io::Result::Ok(ChannelPair {
                sender: exec::take_inherited(sender)?.into(),
                receiver: exec::take_inherited(receiver)?.into(),
            })
        };
        let doorbell = |number: &RawFd| exec::take_inherited(*number).map(EventFd::from);
        let keepers = &numbers.keepers;
        Ok(Self {
            games: numbers
                .games
                .iter()
                .map(|number| exec::take_inherited(*number).map(TcpListener::from))
                .collect::<io::Result<_>>()?,
            console: numbers
                .console
                .map(|number| exec::take_inherited(number).map(TcpListener::from))
                .transpose()?,
            console_unix: numbers
                .console_unix
                .map(|number| exec::take_inherited(number).map(UnixListener::from))
                .transpose()?,
            lifeline_holder: exec::take_inherited(numbers.lifeline_holder)?.into(),
            lifeline: exec::take_inherited(numbers.lifeline)?.into(),
            keepers: keepers
                .iter()
                .map(|(channel, _)| pair(*channel))
                .collect::<io::Result<_>>()?,
            doorbells: Doorbells {
                keepers: keepers
                    .iter()
                    .map(|(_, number)| doorbell(number))
                    .collect::<io::Result<_>>()?,
                rooms: numbers
                    .room_doorbells
                    .iter()
                    .map(doorbell)
                    .collect::<io::Result<_>>()?,
                chat: doorbell(&numbers.chat_doorbell)?,
                requests: pair(numbers.doorbell_requests)?,
            },
            ready: doorbell(&numbers.ready)?,
        })
    }

    /// Sets the options of listening sockets that another program has opened.
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2) and listen(2).
    pub(crate) fn configure(&self, config: &Config) -> io::Result<()> {
        let backlog = i32::try_from(config.backlog).unwrap_or(i32::MAX);
        for socket in self.games.iter().chain(&self.console) {
            // Connections inherit it from the listening socket.
            let send_buffer_bytes = usize::try_from(config.send_buffer_bytes).unwrap_or(usize::MAX);
            SockRef::from(socket).set_send_buffer_size(send_buffer_bytes)?;
            rustix::net::listen(socket, backlog)?;
        }
        if let Some(socket) = &self.console_unix {
            rustix::net::listen(socket, backlog)?;
        }
        Ok(())
    }

    /// Where messages to this keeper are sent: to it, or to the one that replaces it.
    pub(crate) fn keeper_channel(&self, keeper: u32) -> &Channel {
        &self.keepers[keeper as usize].sender
    }
}

/// To be increased with each change to the messages below: during an upgrade, processes of two programs exchange
/// them.
pub(crate) const MESSAGES_VERSION: u32 = 1;

/// A message to a keeper about the sockets that it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeeperMessage {
    /// From the listener: a connection that was just accepted.
    New {
        /// What it speaks.
        kind: Kind,
        /// Its number among those of its kind for this keeper. A gap in the numbers shows that a connection was lost
        /// on the way.
        number: u32,
        /// Its number among all: a connection that was accepted later has a greater one.
        order: u64,
    },
    /// From a handler whose keeper has died, or from a keeper that is replaced: duplicates of connections' sockets.
    Adopt {
        /// The connections, in the order of the sockets.
        connections: Vec<ConnectionRef>,
    },
}

/// In place of a [`Kind`]: the connection is not new.
const ADOPT: u8 = u8::MAX;

impl KeeperMessage {
    /// Most connections in one message.
    pub(crate) const CONNECTIONS_MAX: usize = DESCRIPTORS_PER_MESSAGE_MAX;
    /// Length of the longest message, in bytes.
    pub(crate) const BYTES_MAX: usize = 1 + Self::CONNECTIONS_MAX * size_of::<u64>();

    /// The message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::New { kind, number, order } => {
                [&[*kind as u8][..], &number.to_le_bytes(), &order.to_le_bytes()].concat()
            }
            Self::Adopt { connections } => {
                let ids = connections.iter().map(|connection| connection.to_id());
                std::iter::once(ADOPT)
                    .chain(ids.flat_map(u64::to_le_bytes))
                    .collect()
            }
        }
    }

    /// What a message says; `None` if no process of this server sends such a message.
    pub(crate) fn decode(message: &[u8]) -> Option<Self> {
        let (tag, numbers) = message.split_first()?;
        if *tag == ADOPT {
            let (ids, rest) = numbers.as_chunks();
            let connection = |id: &[u8; 8]| ConnectionRef::from_id(u64::from_le_bytes(*id));
            let connections = ids.iter().map(connection).collect();
            return rest.is_empty().then_some(Self::Adopt { connections });
        }
        let (number, order) = numbers.split_first_chunk()?;
        let number = u32::from_le_bytes(*number);
        let order = u64::from_le_bytes(order.try_into().ok()?);
        KINDS
            .into_iter()
            .find(|kind| *kind as u8 == *tag)
            .map(|kind| Self::New { kind, number, order })
    }
}

/// A message from a keeper to a handler that serves several connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandlerMessage {
    /// The handler is to serve the connection, whose socket comes with the message.
    Serve {
        /// The connection, and which occupant of the slot.
        connection: ConnectionRef,
    },
    /// As [`Self::Serve`], as soon as the connection's present handler releases it.
    ExpectMove {
        /// The connection.
        connection: ConnectionRef,
        /// The present handler.
        from: ProcessId,
    },
    /// The handler is to release the connection to another process, which has its socket already.
    MoveTo {
        /// The connection.
        connection: ConnectionRef,
        /// The other process.
        to: ProcessId,
    },
}

impl HandlerMessage {
    /// Length of each message, in bytes.
    pub(crate) const BYTES: usize = 17;

    /// The message.
    pub(crate) fn encode(self) -> [u8; Self::BYTES] {
        let (tag, connection, other) = match self {
            Self::Serve { connection } => (0, connection, 0),
            Self::ExpectMove { connection, from } => (1, connection, from.to_u64()),
            Self::MoveTo { connection, to } => (2, connection, to.to_u64()),
        };
        let mut message = [tag; Self::BYTES];
        message[1..9].copy_from_slice(&connection.to_id().to_le_bytes());
        message[9..].copy_from_slice(&other.to_le_bytes());
        message
    }

    /// What a message says; `None` if no process of this server sends such a message.
    pub(crate) fn decode(message: &[u8]) -> Option<Self> {
        let (tag, numbers) = message.split_first()?;
        let (id, other) = numbers.split_first_chunk()?;
        let connection = ConnectionRef::from_id(u64::from_le_bytes(*id));
        let other = ProcessId::from_u64(u64::from_le_bytes(other.try_into().ok()?));
        match (tag, other) {
            (0, None) => Some(Self::Serve { connection }),
            (1, Some(from)) => Some(Self::ExpectMove { connection, from }),
            (2, Some(to)) => Some(Self::MoveTo { connection, to }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_message_is_decoded_as_it_was_encoded_and_nothing_else_is() {
        let kind = Kind::Console;
        let (number, order) = (u32::MAX, u64::MAX - 1);
        let most = (1..)
            .map(ConnectionRef::from_id)
            .take(KeeperMessage::CONNECTIONS_MAX)
            .collect();
        for delivery in [
            KeeperMessage::New { kind, number, order },
            KeeperMessage::Adopt {
                connections: vec![ConnectionRef::new(7, 3)],
            },
            KeeperMessage::Adopt { connections: most },
        ] {
            let message = delivery.encode();
            assert!(message.len() <= KeeperMessage::BYTES_MAX);
            assert_eq!(KeeperMessage::decode(&message[..message.len() - 1]), None);
            assert_eq!(KeeperMessage::decode(&message), Some(delivery));
        }
        assert_eq!(KeeperMessage::decode(&[]), None);
        assert_eq!(KeeperMessage::decode(&[ADOPT - 1; 13]), None);
    }
}
