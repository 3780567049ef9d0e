//! The descriptor of a doorbell: an eventfd that many processes can poll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::EventfdFlags;
use rustix::io::Errno;

/// An eventfd. A ring makes it readable in all processes that have a descriptor of it.
///
/// A doorbell is used in one of two ways:
///
/// - **One subscriber** polls it and [clears](EventFd::clear) it after a ring, *before* it looks for what was
///   announced.
/// - **Many subscribers** poll it, each with its own epoll (made after the fork), *edge-triggered*. None of them clears
///   it, so that each ring is a new edge for all. A process that cleared it would take the ring from those that were
///   not woken yet, because epoll checks the descriptor again before it reports it.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new eventfd, not rung, closed on exec and non-blocking.
    ///
    /// # Errors
    ///
    /// No descriptor left, or no memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self(rustix::event::eventfd(
            0,
            EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC,
        )?))
    }

    /// Rings. The cost grows with the number of processes that wait (0.45 ms for 100).
    ///
    /// # Panics
    ///
    /// If the descriptor, received from another process, is no eventfd.
    pub fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &one)) {
            // The counter is full after 2^64 rings without a clear. It is readable, which is all that counts.
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => panic!("ringing an eventfd failed: {error}"),
        }
    }

    /// Clears the doorbell and returns whether it was rung. Only for a doorbell with one subscriber.
    ///
    /// # Panics
    ///
    /// If the descriptor is no eventfd.
    pub fn clear(&self) -> bool {
        let mut count = [0; 8];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut count)) {
            Ok(_) => true,
            Err(Errno::AGAIN) => false,
            Err(error) => panic!("clearing an eventfd failed: {error}"),
        }
    }
}

/// For an eventfd received from another process.
impl From<OwnedFd> for EventFd {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use rustix::event::Timespec;
    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

    use super::*;

    /// One of many subscribers, as a process of its own would be.
    struct Subscriber(OwnedFd);

    impl Subscriber {
        fn new(doorbell: &EventFd) -> Self {
            let poll = epoll::create(CreateFlags::CLOEXEC).expect("a descriptor");
            let edges = EventFlags::IN | EventFlags::ET;
            epoll::add(&poll, doorbell, EventData::new_u64(0), edges).expect("registers");
            Self(poll)
        }

        fn is_woken(&self) -> bool {
            let at_once = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let mut events = [MaybeUninit::uninit(); 1];
            let (woken, _) = epoll::wait(&self.0, &mut events, Some(&at_once)).expect("polls");
            !woken.is_empty()
        }
    }

    #[test]
    fn two_rings_count_as_one() {
        let doorbell = EventFd::new().expect("a descriptor");
        assert!(!doorbell.clear());
        doorbell.ring();
        doorbell.ring();
        assert!(doorbell.clear());
        assert!(!doorbell.clear());
    }

    #[test]
    fn each_ring_wakes_every_subscriber_if_none_clears() {
        let doorbell = EventFd::new().expect("a descriptor");
        let subscribers = [Subscriber::new(&doorbell), Subscriber::new(&doorbell)];
        for _ in 0..3 {
            doorbell.ring();
            assert!(subscribers.iter().all(Subscriber::is_woken));
            assert!(!subscribers.iter().any(Subscriber::is_woken));
        }
    }

    #[test]
    fn a_subscriber_that_clears_takes_the_ring_from_the_others() {
        let doorbell = EventFd::new().expect("a descriptor");
        let [quick, late] = [Subscriber::new(&doorbell), Subscriber::new(&doorbell)];
        doorbell.ring();
        assert!(quick.is_woken() && doorbell.clear());
        assert!(!late.is_woken());
    }
}
