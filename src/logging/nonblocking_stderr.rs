//! Writes log records to stderr without ever waiting.
//!
//! `O_NONBLOCK` belongs to the open file description, so setting it on stderr itself would affect all processes that
//! share it: the shell, a service manager, a pipe's other writers. Pipes and terminals are therefore reopened through
//! `/proc/self/fd`, which gives this server a file description of its own.

use std::io::{self, Stderr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

/// A descriptor, and how to write to it without waiting.
pub(crate) struct NonblockingWriter<F> {
    descriptor: F,
    mode: WriteMode,
    /// The last record was written in part only. Its line must be ended before the next record.
    is_line_partial: bool,
}

/// How a write avoids waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteMode {
    /// Write: the descriptor is a regular file, or a non-blocking file description of our own.
    Direct,
    /// Send with `MSG_DONTWAIT`: the descriptor is a socket, which cannot be reopened.
    Send,
    /// Poll before each write: any other descriptor. (If another writer fills it in between, this one waits.)
    PollFirst,
}

impl NonblockingWriter<Stderr> {
    /// Stderr, reopened as non-blocking where that is possible.
    pub(crate) fn stderr() -> Self {
        let stderr = io::stderr();
        let mode = match reopen_nonblocking(stderr.as_fd()) {
            // It replaces descriptor 2: there is no further descriptor, which a role could close by mistake.
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
    /// Writes the whole record without waiting, in one write if the kernel accepts it in one. `false`: it is lost,
    /// because there is no space or no reader.
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

/// Opens a non-blocking file description of our own for the pipe or terminal behind `descriptor`. `None`: the
/// descriptor is of a kind that needs none, or cannot be reopened.
fn reopen_nonblocking(descriptor: BorrowedFd<'_>) -> rustix::io::Result<Option<OwnedFd>> {
    match file_type(descriptor)? {
        FileType::Fifo | FileType::CharacterDevice => {
            let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            open(path, flags, Mode::empty()).map(Some)
        }
        // A new description of a regular file would begin at its start and overwrite the content.
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

    /// Writes until a record is lost. It does so in a thread, so that a write that waits is detected.
    fn fill<F: AsFd + Send + 'static>(mut output: NonblockingWriter<F>) -> (NonblockingWriter<F>, usize) {
        let (done, filled) = mpsc::channel();
        std::thread::spawn(move || {
            let written = std::iter::repeat_with(|| output.write_record(&RECORD))
                .take_while(|&written| written)
                .count();
            done.send((output, written))
        });
        filled
            .recv_timeout(Duration::from_secs(60))
            .expect("a write to a full descriptor waited")
    }

    #[test]
    fn a_stalled_pipe_stalls_no_writer_and_stays_blocking_for_other_processes() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let own = reopen_nonblocking(writer.as_fd())
            .expect("reopened")
            .expect("a pipe is reopened");
        let (mut output, written) = fill(NonblockingWriter {
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
        assert!(output.write_record(b"through again\n"));
    }

    #[test]
    fn a_pipe_that_cannot_be_reopened_is_polled_before_each_write() {
        let (reader, writer) = io::pipe().expect("a pipe");
        assert_eq!(write_mode_of(writer.as_fd()), WriteMode::PollFirst);
        let (mut output, written) = fill(NonblockingWriter {
            descriptor: writer,
            mode: WriteMode::PollFirst,
            is_line_partial: false,
        });
        assert!(written > 0);
        drop(reader);
        assert!(!output.write_record(b"nobody reads\n"));
    }

    #[test]
    fn a_stalled_socket_stalls_no_writer_and_a_partial_line_is_ended_before_the_next() {
        let (mut reader, writer) = UnixStream::pair().expect("a socket pair");
        assert_eq!(write_mode_of(writer.as_fd()), WriteMode::Send);
        let (mut output, written) = fill(NonblockingWriter {
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
        output.is_line_partial = true;
        assert!(output.write_record(b"next\n"));
        let mut next = [0; 6];
        reader.read_exact(&mut next).expect("the next record");
        assert_eq!(&next, b"\nnext\n");
    }

    #[test]
    fn a_regular_file_is_not_reopened() {
        let file = std::fs::File::open("/proc/self/exe").expect("a file");
        assert!(reopen_nonblocking(file.as_fd()).expect("looked at").is_none());
        assert_eq!(write_mode_of(file.as_fd()), WriteMode::Direct);
    }
}
