//! Lifelines: pipes from which processes learn that another one has ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;

/// Makes a lifeline. Its other end becomes readable when the last copy of the holder's end is closed.
///
/// # Errors
///
/// No descriptor left.
pub fn lifeline() -> io::Result<(LifelineHolder, Lifeline)> {
    let (read_end, write_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    Ok((LifelineHolder { write_end }, Lifeline { read_end }))
}

/// The end of a lifeline whose closing cuts it. Every child forked while it exists must close its copy, for example
/// with [`NewProcess::close_all_except`](crate::sys::process::NewProcess::close_all_except).
#[derive(Debug)]
pub struct LifelineHolder {
    write_end: OwnedFd,
}

impl AsFd for LifelineHolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.write_end.as_fd()
    }
}

/// For the program that replaces this one by execve(2).
impl From<OwnedFd> for LifelineHolder {
    fn from(write_end: OwnedFd) -> Self {
        Self { write_end }
    }
}

/// The end of a lifeline that processes inherit which must not outlive its holder. A poll reports it as hung up when
/// the holder has ended, for whatever reason. No byte is ever sent.
#[derive(Debug)]
pub struct Lifeline {
    read_end: OwnedFd,
}

impl Lifeline {
    /// True if the holder has ended.
    ///
    /// # Errors
    ///
    /// Those of poll(2): no memory.
    pub fn is_cut(&self) -> io::Result<bool> {
        let mut poll = [PollFd::new(&self.read_end, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&at_once)))?;
        Ok(poll[0].revents().contains(PollFlags::HUP))
    }
}

/// For the program that replaces this one by execve(2).
impl From<OwnedFd> for Lifeline {
    fn from(read_end: OwnedFd) -> Self {
        Self { read_end }
    }
}

impl AsFd for Lifeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read_end.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifeline_is_cut_when_its_holder_is_dropped() {
        let (holder, line) = lifeline().expect("descriptors");
        assert!(!line.is_cut().expect("poll"));
        drop(holder);
        assert!(line.is_cut().expect("poll"));
    }
}
