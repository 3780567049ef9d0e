//! System calls that receive into shared memory and send from it, without a copy.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use crate::sys::memory::SharedBytes;

/// Receives into `range`, without waiting, and returns the number of bytes. Zero bytes mean the peer's FIN.
///
/// Only the process that owns the ring of these bytes may call this.
///
/// # Errors
///
/// Those of recv(2), among them [`io::ErrorKind::WouldBlock`] when there is nothing.
///
/// # Panics
///
/// If the range is not inside the bytes.
pub fn receive<const WORDS: usize>(
    socket: &impl AsFd,
    bytes: &SharedBytes<WORDS>,
    range: Range<usize>,
) -> io::Result<usize> {
    assert!(
        range.start <= range.end && range.end <= SharedBytes::<WORDS>::BYTES,
        "receive beyond shared bytes"
    );
    // SAFETY: the start was checked to lie inside.
    let start = unsafe { bytes.as_ptr().add(range.start) };
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: the kernel writes at most the range's length, into atomics, which may change under any reference.
    let received = unsafe {
        libc::recv(
            socket.as_fd().as_raw_fd(),
            start.cast(),
            range.end - range.start,
            flags,
        )
    };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// Sends the bytes of `range`, without waiting and without SIGPIPE, and returns how many the kernel took.
///
/// # Errors
///
/// Those of send(2), among them [`io::ErrorKind::WouldBlock`] when the socket's buffer is full.
///
/// # Panics
///
/// If the range is not inside the bytes.
pub fn send<const WORDS: usize>(
    socket: &impl AsFd,
    bytes: &SharedBytes<WORDS>,
    range: Range<usize>,
) -> io::Result<usize> {
    assert!(
        range.start <= range.end && range.end <= SharedBytes::<WORDS>::BYTES,
        "send beyond shared bytes"
    );
    // SAFETY: the start was checked to lie inside.
    let start = unsafe { bytes.as_ptr().add(range.start) };
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads at most the range's length.
    let sent = unsafe {
        libc::send(
            socket.as_fd().as_raw_fd(),
            start.cast_const().cast(),
            range.end - range.start,
            flags,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
