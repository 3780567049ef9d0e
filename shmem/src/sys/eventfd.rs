//! A doorbell that many processes can hear: an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::EventfdFlags;
use rustix::io::Errno;

/// An eventfd: ringing makes it readable for all processes that have a descriptor of it.
///
/// There are two ways to listen, and one doorbell has one of them:
///
/// - **One listener** polls it and [clears](EventFd::clear) it when it rang, *before* it looks for what was announced.
/// - **Many listeners** each have their own epoll (made after the fork), registered *edge-triggered*, and nobody ever clears:
///   each ring is a new edge for everybody. One that cleared would take the ring from those that have not
///   been woken yet: epoll asks the descriptor again before it reports it.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A silent doorbell; closed on exec, never blocking.
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

    /// Rings. Costs the more the more listeners wait (0.45 ms for 100).
    ///
    /// # Panics
    ///
    /// If the descriptor is no eventfd: another kind was passed to this process in its place.
    pub fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &one)) {
            // Full after 2^64 rings without a listener clearing it: it is readable, and that is all there is to it.
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => panic!("ringing an eventfd failed: {error}"),
        }
    }

    /// Silences the doorbell; tells whether it had rung. Only for a doorbell with one listener.
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

/// For a doorbell that another process has passed on.
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

    /// One of many listeners, as a process of its own would be.
    struct Listener(OwnedFd);

    impl Listener {
        fn new(doorbell: &EventFd) -> Self {
            let poll = epoll::create(CreateFlags::CLOEXEC).expect("a descriptor");
            let edges = EventFlags::IN | EventFlags::ET;
            epoll::add(&poll, doorbell, EventData::new_u64(0), edges).expect("registers");
            Self(poll)
        }

        fn hears(&self) -> bool {
            let at_once = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let mut events = [MaybeUninit::uninit(); 1];
            let (heard, _) = epoll::wait(&self.0, &mut events, Some(&at_once)).expect("polls");
            !heard.is_empty()
        }
    }

    #[test]
    fn ringing_twice_is_as_ringing_once() {
        let doorbell = EventFd::new().expect("a descriptor");
        assert!(!doorbell.clear());
        doorbell.ring();
        doorbell.ring();
        assert!(doorbell.clear());
        assert!(!doorbell.clear());
    }

    #[test]
    fn each_ring_is_new_to_every_listener_if_nobody_clears() {
        let doorbell = EventFd::new().expect("a descriptor");
        let listeners = [Listener::new(&doorbell), Listener::new(&doorbell)];
        for _ in 0..3 {
            doorbell.ring();
            assert!(listeners.iter().all(Listener::hears));
            assert!(!listeners.iter().any(Listener::hears));
        }
    }

    #[test]
    fn one_that_clears_takes_the_ring_from_the_others() {
        let doorbell = EventFd::new().expect("a descriptor");
        let [quick, late] = [Listener::new(&doorbell), Listener::new(&doorbell)];
        doorbell.ring();
        assert!(quick.hears() && doorbell.clear());
        assert!(!late.hears());
    }
}
