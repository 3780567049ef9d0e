//! System calls that read into, and send from, shared memory: no copy in between.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use crate::sys::memory::SharedBytes;

/// Receives what the kernel has for this socket into `range`, without waiting. Zero bytes mean the peer's end (FIN).
///
/// Only the process that animates the ring these bytes belong to may call this.
///
/// # Errors
///
/// Those of recv(2), among them [`io::ErrorKind::WouldBlock`] when there is nothing.
///
/// # Panics
///
/// If the range is not within the bytes.
pub fn receive<const WORDS: usize>(
    socket: &impl AsFd,
    bytes: &SharedBytes<WORDS>,
    range: Range<usize>,
) -> io::Result<usize> {
    assert!(
        range.start <= range.end && range.end <= SharedBytes::<WORDS>::BYTES,
        "receive beyond shared bytes"
    );
    // SAFETY: the start was just found to lie inside.
    let start = unsafe { bytes.as_ptr().add(range.start) };
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: the kernel writes at most the range's length there, into atomics, which may change under any reference.
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

/// Hands the bytes of `range` to the kernel, without waiting and without a SIGPIPE; gives how many it took.
///
/// # Errors
///
/// Those of send(2), among them [`io::ErrorKind::WouldBlock`] when the socket's buffer is full.
///
/// # Panics
///
/// If the range is not within the bytes.
pub fn send<const WORDS: usize>(
    socket: &impl AsFd,
    bytes: &SharedBytes<WORDS>,
    range: Range<usize>,
) -> io::Result<usize> {
    assert!(
        range.start <= range.end && range.end <= SharedBytes::<WORDS>::BYTES,
        "send beyond shared bytes"
    );
    // SAFETY: the start was just found to lie inside.
    let start = unsafe { bytes.as_ptr().add(range.start) };
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads at most the range's length there.
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
