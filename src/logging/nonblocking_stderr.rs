//! Where records leave the process: a descriptor that is never waited for.
//!
//! Setting `O_NONBLOCK` on stderr itself would set it for everybody who shares the open file: the shell, a supervisor, a
//! pipe's other writers. So pipes and terminals are opened anew through `/proc/self/fd`, which gives a file description
//! of our own.

use std::io::{self, Stderr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

/// A descriptor for records and the way to write to it without waiting.
pub(crate) struct NonblockingWriter<F> {
    descriptor: F,
    mode: WriteMode,
    /// The last record got out in part only: its line must be ended before the next one begins.
    is_line_partial: bool,
}

/// How a write is kept from waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteMode {
    /// It never waits: a regular file, or a non-blocking description of our own.
    Direct,
    /// A socket, which cannot be opened anew, but be told with each message.
    Send,
    /// Anything else is asked before each write. (Another writer can take the room in between; then this one waits.)
    PollFirst,
}

impl NonblockingWriter<Stderr> {
    /// Stderr, made non-blocking where that needs a description of our own.
    pub(crate) fn stderr() -> Self {
        let stderr = io::stderr();
        let mode = match reopen_nonblocking(stderr.as_fd()) {
            // In place of the old one: one descriptor fewer, and none that a role could close by mistake.
            Ok(Some(own)) => {
                rustix::stdio::dup2_stderr(&own).map_or(WriteMode::PollFirst, |()| WriteMode::Direct)
            }
            Ok(None) => write_mode_of(stderr.as_fd()),
            Err(_) => WriteMode::PollFirst,
        };
        NonblockingWriter {
            descriptor: stderr,
            mode,
            is_line_partial: false,
        }
    }
}

impl<F: AsFd> NonblockingWriter<F> {
    /// Writes the record whole, in one write wherever the kernel takes it in one, and without waiting.
    /// `false`: there was no room, or nobody reads; it is lost.
    pub(crate) fn write_record(&mut self, record: &[u8]) -> bool {
        if self.is_line_partial && !self.write_all(b"\n") {
            return false;
        }
        self.is_line_partial = false;
        self.write_all(record)
    }

    fn write_all(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.write_once(rest) {
                Ok(written) if written > 0 => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => {
                    self.is_line_partial |= rest.len() < bytes.len();
                    return false;
                }
            }
        }
        true
    }

    fn write_once(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        let descriptor = self.descriptor.as_fd();
        match self.mode {
            WriteMode::Direct => rustix::io::write(descriptor, bytes),
            WriteMode::Send => send(descriptor, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            WriteMode::PollFirst => {
                let now = Timespec {
                    tv_sec: 0,
                    tv_nsec: 0,
                };
                match poll(&mut [PollFd::new(&descriptor, PollFlags::OUT)], Some(&now))? {
                    0 => Err(Errno::AGAIN),
                    _ => rustix::io::write(descriptor, bytes),
                }
            }
        }
    }
}

/// A non-blocking description of our own for the pipe or terminal behind `descriptor`; `None` where none is needed, or
/// none can be had.
fn reopen_nonblocking(descriptor: BorrowedFd<'_>) -> rustix::io::Result<Option<OwnedFd>> {
    match file_type(descriptor)? {
        FileType::Fifo | FileType::CharacterDevice => {
            let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            open(path, flags, Mode::empty()).map(Some)
        }
        // A new description of a regular file would begin at its start, and write over what is there.
        _ => Ok(None),
    }
}

fn write_mode_of(descriptor: BorrowedFd<'_>) -> WriteMode {
    match file_type(descriptor) {
        Ok(FileType::RegularFile) => WriteMode::Direct,
        Ok(FileType::Socket) => WriteMode::Send,
        _ => WriteMode::PollFirst,
    }
}

fn file_type(descriptor: BorrowedFd<'_>) -> rustix::io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(descriptor)?.st_mode))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::fs::fcntl_getfl;

    use super::*;

    const RECORD: [u8; 4096] = [b'x'; 4096];

    /// Fills what `outlet` writes to until a record is lost; in a thread, so that a write that waits is seen.
    fn fill<F: AsFd + Send + 'static>(mut outlet: NonblockingWriter<F>) -> (NonblockingWriter<F>, usize) {
        let (done, filled) = mpsc::channel();
        std::thread::spawn(move || {
            let written = std::iter::repeat_with(|| outlet.write_record(&RECORD))
                .take_while(|&written| written)
                .count();
            done.send((outlet, written))
        });
        filled
            .recv_timeout(Duration::from_secs(60))
            .expect("a write to a full outlet waited")
    }

    #[test]
    fn a_stalled_pipe_stalls_nobody_and_the_pipe_of_the_others_stays_blocking() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let own = reopen_nonblocking(writer.as_fd())
            .expect("reopened")
            .expect("a pipe is opened anew");
        let (mut outlet, written) = fill(NonblockingWriter {
            descriptor: own,
            mode: WriteMode::Direct,
            is_line_partial: false,
        });
        assert!(written > 0);
        assert!(!fcntl_getfl(&writer).expect("flags").contains(OFlags::NONBLOCK));

        let mut drained = vec![0; written * RECORD.len()];
        reader
            .read_exact(&mut drained)
            .expect("whole records were written");
        assert!(outlet.write_record(b"through again\n"));
    }

    #[test]
    fn a_pipe_that_cannot_be_opened_anew_is_asked_first() {
        let (reader, writer) = io::pipe().expect("a pipe");
        assert_eq!(write_mode_of(writer.as_fd()), WriteMode::PollFirst);
        let (mut outlet, written) = fill(NonblockingWriter {
            descriptor: writer,
            mode: WriteMode::PollFirst,
            is_line_partial: false,
        });
        assert!(written > 0);
        drop(reader);
        assert!(!outlet.write_record(b"nobody reads\n"));
    }

    #[test]
    fn a_stalled_socket_stalls_nobody_and_a_torn_line_is_ended_before_the_next() {
        let (mut reader, writer) = UnixStream::pair().expect("a socket pair");
        assert_eq!(write_mode_of(writer.as_fd()), WriteMode::Send);
        let (mut outlet, written) = fill(NonblockingWriter {
            descriptor: writer,
            mode: WriteMode::Send,
            is_line_partial: false,
        });
        assert!(written > 0);

        reader.set_nonblocking(true).expect("non-blocking");
        let mut drained = Vec::new();
        assert_eq!(
            reader.read_to_end(&mut drained).map_err(|error| error.kind()),
            Err(io::ErrorKind::WouldBlock)
        );
        outlet.is_line_partial = true;
        assert!(outlet.write_record(b"next\n"));
        let mut next = [0; 6];
        reader.read_exact(&mut next).expect("the next record");
        assert_eq!(&next, b"\nnext\n");
    }

    #[test]
    fn a_regular_file_is_not_opened_anew() {
        let file = std::fs::File::open("/proc/self/exe").expect("a file");
        assert!(reopen_nonblocking(file.as_fd()).expect("looked at").is_none());
        assert_eq!(write_mode_of(file.as_fd()), WriteMode::Direct);
    }
}
