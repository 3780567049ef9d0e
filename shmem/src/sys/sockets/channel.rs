//! Channels between processes: whole messages that can carry descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Descriptors that one message can carry. (The kernel's maximum is 253, `SCM_MAX_FD`.)
pub const DESCRIPTORS_PER_MESSAGE_MAX: usize = 120;

/// One end of a channel between two processes: whole messages in order, each with zero or more descriptors.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// The result of sending.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The whole message was sent.
    Sent,
    /// The channel is full. Nothing was sent.
    WouldBlock,
    /// All copies of the other end are closed. Nothing was sent.
    PeerGone,
}

/// The result of receiving.
#[must_use]
#[derive(Debug)]
pub enum ReceiveOutcome {
    /// A message.
    Message {
        /// Its length at the start of the buffer, in bytes.
        bytes: usize,
        /// Its descriptors, in the order in which they were sent.
        descriptors: Vec<OwnedFd>,
    },
    /// No message has arrived.
    WouldBlock,
    /// All copies of the other end are closed, and every message was received.
    PeerGone,
}

/// Why a message was not sent, or not received complete.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// A message without bytes would look like the end of the channel.
    #[error("an empty message cannot be sent")]
    Empty,
    /// See [`DESCRIPTORS_PER_MESSAGE_MAX`].
    #[error("{0} descriptors in one message: {DESCRIPTORS_PER_MESSAGE_MAX} is the maximum")]
    TooManyDescriptors(usize),
    /// The message was longer than the buffer. Its end is lost, with all its descriptors.
    #[error("a message is longer than the {0} bytes that were expected")]
    Truncated(usize),
    /// Not all descriptors arrived, usually because of this process's limit of open files. Those that arrived were
    /// closed.
    #[error("descriptors were lost on their way (is this process's limit of open files reached?)")]
    DescriptorsLost {
        /// Length of the message at the start of the buffer, in bytes: its bytes did arrive.
        bytes: usize,
    },
    /// The system call failed.
    #[error("{step} failed: {source}")]
    System {
        /// The system call.
        step: &'static str,
        /// The kernel's error. `ETOOMANYREFS` when sending: too many descriptors of this user are in flight.
        #[source]
        source: io::Error,
    },
}

impl Channel {
    /// Both ends of a new channel, closed on exec and non-blocking.
    ///
    /// # Errors
    ///
    /// No descriptor left, or no memory.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(one), Self(other)))
    }

    /// Sends a message. The descriptors are copied: the sender keeps its own, and the copies stay valid even if the
    /// sender ends before they are received.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Empty`], [`ChannelError::TooManyDescriptors`], or [`ChannelError::System`], for example for a
    /// message longer than the socket's buffer. Nothing was sent then.
    pub fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<SendOutcome, ChannelError> {
        if message.is_empty() {
            return Err(ChannelError::Empty);
        }
        if descriptors.len() > DESCRIPTORS_PER_MESSAGE_MAX {
            return Err(ChannelError::TooManyDescriptors(descriptors.len()));
        }
        let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            let fits = control.push(SendAncillaryMessage::ScmRights(descriptors));
            assert!(fits, "the space is that of the maximum");
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let message = [IoSlice::new(message)];
        match rustix::io::retry_on_intr(|| rustix::net::sendmsg(&self.0, &message, &mut control, flags)) {
            Ok(_) => Ok(SendOutcome::Sent),
            Err(Errno::AGAIN) => Ok(SendOutcome::WouldBlock),
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(SendOutcome::PeerGone),
            Err(errno) => Err(ChannelError::System {
                step: "sendmsg",
                source: errno.into(),
            }),
        }
    }

    /// Receives a message into `buffer`. Its descriptors are closed on exec. Their file status flags are the sender's.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Truncated`], [`ChannelError::DescriptorsLost`] or [`ChannelError::System`]. The channel stays
    /// usable: the next message is complete.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<ReceiveOutcome, ChannelError> {
        let expected = buffer.len();
        let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut target = [IoSliceMut::new(buffer)];
        let received = match rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(&self.0, &mut target, &mut control, flags)
        }) {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Ok(ReceiveOutcome::WouldBlock),
            Err(Errno::CONNRESET) => return Ok(ReceiveOutcome::PeerGone),
            Err(errno) => {
                return Err(ChannelError::System {
                    step: "recvmsg",
                    source: errno.into(),
                });
            }
        };
        // Taken out before any return, so that every received descriptor has an owner that closes it.
        let mut descriptors = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                descriptors.extend(rights);
            }
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(ChannelError::Truncated(expected));
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ChannelError::DescriptorsLost {
                bytes: received.bytes,
            });
        }
        if received.bytes == 0 {
            return Ok(ReceiveOutcome::PeerGone);
        }
        Ok(ReceiveOutcome::Message {
            bytes: received.bytes,
            descriptors,
        })
    }
}

/// For an end that was received through another channel.
impl From<OwnedFd> for Channel {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE_MAX));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors_in_order() {
        let (one, other) = Channel::pair().expect("descriptors");
        let (first, first_end) = Channel::pair().expect("descriptors");
        let (second, second_end) = Channel::pair().expect("descriptors");
        let sent = one
            .send(b"two of them", &[first.as_fd(), second.as_fd()])
            .expect("sends");
        assert_eq!(sent, SendOutcome::Sent);
        drop((first, second));
        assert_eq!(one.send(b"none", &[]).expect("sends"), SendOutcome::Sent);

        let mut buffer = [0; 64];
        let Ok(ReceiveOutcome::Message { bytes, descriptors }) = other.receive(&mut buffer) else {
            panic!("no message")
        };
        assert_eq!((&buffer[..bytes], descriptors.len()), (&b"two of them"[..], 2));
        for (descriptor, (name, end)) in descriptors
            .into_iter()
            .zip([(b"1", first_end), (b"2", second_end)])
        {
            let flags = rustix::io::fcntl_getfd(&descriptor).expect("open");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            assert_eq!(
                Channel(descriptor).send(name, &[]).expect("sends"),
                SendOutcome::Sent
            );
            assert!(matches!(
                end.receive(&mut buffer),
                Ok(ReceiveOutcome::Message { bytes: 1, .. })
            ));
            assert_eq!(&buffer[..1], name);
        }
        let next = other.receive(&mut buffer);
        assert!(
            matches!(next, Ok(ReceiveOutcome::Message { bytes: 4, descriptors }) if descriptors.is_empty())
        );
        assert!(matches!(
            other.receive(&mut buffer),
            Ok(ReceiveOutcome::WouldBlock)
        ));
    }

    #[test]
    fn a_message_that_is_empty_or_too_large_is_not_sent() {
        let (one, other) = Channel::pair().expect("descriptors");
        assert!(matches!(one.send(b"", &[]), Err(ChannelError::Empty)));
        let most = [other.as_fd(); DESCRIPTORS_PER_MESSAGE_MAX + 1];
        assert!(matches!(
            one.send(b"x", &most),
            Err(ChannelError::TooManyDescriptors(_))
        ));
        assert!(matches!(
            one.send(&vec![0; 10 << 20], &[]),
            Err(ChannelError::System { .. })
        ));
        assert!(matches!(
            other.receive(&mut [0; 8]),
            Ok(ReceiveOutcome::WouldBlock)
        ));
        assert_eq!(one.send(b"x", &most[1..]).expect("sends"), SendOutcome::Sent);
        let received = other.receive(&mut [0; 8]).expect("receives");
        assert!(matches!(received, ReceiveOutcome::Message { descriptors, .. }
            if descriptors.len() == DESCRIPTORS_PER_MESSAGE_MAX));
    }

    #[test]
    fn a_lost_part_is_an_error_and_the_next_message_is_whole() {
        let (one, other) = Channel::pair().expect("descriptors");
        let too_many = [other.as_fd(); 2 * DESCRIPTORS_PER_MESSAGE_MAX];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2 * DESCRIPTORS_PER_MESSAGE_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&too_many)));
        rustix::net::sendmsg(&one, &[IoSlice::new(b"crowd")], &mut control, SendFlags::empty())
            .expect("sends");
        assert!(matches!(
            other.receive(&mut [0; 8]),
            Err(ChannelError::DescriptorsLost { bytes: 5 })
        ));

        assert_eq!(
            one.send(b"too long", &[other.as_fd()]).expect("sends"),
            SendOutcome::Sent
        );
        assert!(matches!(
            other.receive(&mut [0; 7]),
            Err(ChannelError::Truncated(7))
        ));

        assert_eq!(
            one.send(b"whole", &[other.as_fd()]).expect("sends"),
            SendOutcome::Sent
        );
        let received = other.receive(&mut [0; 7]).expect("receives");
        assert!(
            matches!(received, ReceiveOutcome::Message { bytes: 5, descriptors } if descriptors.len() == 1)
        );
    }

    #[test]
    fn sending_never_blocks_and_a_closed_end_is_reported() {
        let (one, other) = Channel::pair().expect("descriptors");
        let mut sent = 0;
        while one.send(&[1; 1000], &[]).expect("sends") == SendOutcome::Sent {
            sent += 1;
        }
        drop(one);
        for _ in 0..sent {
            assert!(matches!(
                other.receive(&mut [0; 1000]),
                Ok(ReceiveOutcome::Message { bytes: 1000, .. })
            ));
        }
        assert!(matches!(
            other.receive(&mut [0; 1000]),
            Ok(ReceiveOutcome::PeerGone)
        ));
        assert_eq!(other.send(b"x", &[]).expect("sends"), SendOutcome::PeerGone);

        let (one, other) = Channel::pair().expect("descriptors");
        assert_eq!(one.send(b"never read", &[]).expect("sends"), SendOutcome::Sent);
        drop(other);
        assert!(matches!(one.receive(&mut [0; 8]), Ok(ReceiveOutcome::PeerGone)));
    }
}
