//! How many bytes of a TCP connection were received and sent, from the kernel. After a crash no other place knows what
//! the dead process had received and sent.
//!
//! The kernel's counts need two corrections. A FIN counts as one byte of its direction, from the moment it arrives (or,
//! our own, is queued). And the counts come from several system calls, so bytes that arrive between two of them make
//! the results inconsistent.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::mutants::Mutant;

/// Attempts before giving up, some 10 ms in total. No process receives from the socket meanwhile, so the socket's
/// buffers bound what can still change.
const READINGS_MAX: u32 = 10_000;

/// Progress of an accepted connection, in bytes since it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpProgress {
    /// Bytes that processes have received from the socket.
    pub received: u64,
    /// Bytes that the kernel took from processes for sending, acknowledged by the peer or not.
    pub sent: u64,
    /// Bytes that have arrived and that no process has received yet.
    pub unread: u64,
    /// Bytes of `sent` that the peer has not acknowledged yet.
    pub unacknowledged: u64,
    /// The peer's FIN has arrived: no bytes follow the unread ones.
    pub fin_received: bool,
    /// This side was shut down for sending, so its FIN is queued or sent.
    pub fin_sent: bool,
}

/// Why the progress cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TcpProgressError {
    /// Reset, timed out, or closed by both sides: the kernel has dropped its counts.
    #[error("the connection is over")]
    ConnectionOver,
    /// A socket that listens or is connecting.
    #[error("the socket is not connected (TCP state {0})")]
    NotConnected(u8),
    /// Without `SO_OOBINLINE`, an urgent byte makes the kernel's count of unread bytes wrong.
    #[error("the socket keeps urgent bytes out of line: its unread bytes cannot be counted")]
    UrgentOutOfLine,
    /// The counts changed at every attempt: another process uses the socket.
    #[error("the connection did not stand still for one of {READINGS_MAX} readings")]
    Unsettled,
    /// This kernel (before Linux 4.1) does not count the bytes.
    #[error("the kernel's TCP_INFO has no byte counts")]
    NotTcpInfo,
    /// The named step failed.
    #[error("{step} failed: {source}")]
    System {
        /// The system call.
        step: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

impl TcpProgress {
    /// Reads the progress of a socket that was accepted from a listening socket with `SO_OOBINLINE`. (For a socket that
    /// was connected from here, the kernel counts the SYN too.) No other process may receive or send on it meanwhile.
    ///
    /// # Errors
    ///
    /// [`TcpProgressError`]. After any of them the connection cannot be taken over.
    pub fn read(socket: &impl AsFd) -> Result<Self, TcpProgressError> {
        let socket = socket.as_fd();
        if !rustix::net::sockopt::socket_oobinline(socket).map_err(failed("getsockopt(SO_OOBINLINE)"))? {
            return Err(TcpProgressError::UrgentOutOfLine);
        }
        let mut before = TcpInfo::read(socket)?;
        before.fins()?;
        for _ in 0..READINGS_MAX {
            let queued_in = rustix::io::ioctl_fionread(socket).map_err(failed("ioctl(SIOCINQ)"))?;
            let queued_out = queued_out(socket)?;
            let after = TcpInfo::read(socket)?;
            // These counts only grow. If they are equal before and after, nothing arrived and nothing was acknowledged
            // in between, so the queue lengths belong to them.
            if before == after {
                return after.progress(queued_in, queued_out);
            }
            before = after;
        }
        Err(TcpProgressError::Unsettled)
    }
}

/// The counts of one TCP_INFO.
#[derive(Clone, Copy, PartialEq, Eq)]
struct TcpInfo {
    state: u8,
    received: u64,
    acknowledged: u64,
}

// The states of a connection, numbered as in the kernel's include/net/tcp_states.h; libc names them for some targets
// only.
const ESTABLISHED: u8 = 1;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

impl TcpInfo {
    fn read(socket: BorrowedFd<'_>) -> Result<Self, TcpProgressError> {
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).expect("a small structure");
        // SAFETY: the kernel writes at most `length` bytes to `info`, and how many it wrote to `length`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(failed("getsockopt(TCP_INFO)")(io::Error::last_os_error()));
        }
        let needed = std::mem::offset_of!(libc::tcp_info, tcpi_bytes_received) + size_of::<u64>();
        if usize::try_from(length).is_ok_and(|length| length < needed) {
            return Err(TcpProgressError::NotTcpInfo);
        }
        // SAFETY: all of it was zeroed, then partly overwritten, and it consists of integers.
        let info = unsafe { info.assume_init() };
        Ok(Self {
            state: info.tcpi_state,
            received: info.tcpi_bytes_received,
            acknowledged: info.tcpi_bytes_acked,
        })
    }

    /// Whether the peer has sent a FIN, and whether this side has.
    fn fins(self) -> Result<(bool, bool), TcpProgressError> {
        match self.state {
            ESTABLISHED => Ok((false, false)),
            CLOSE_WAIT => Ok((true, false)),
            FIN_WAIT1 | FIN_WAIT2 => Ok((false, true)),
            CLOSING | LAST_ACK => Ok((true, true)),
            CLOSE | TIME_WAIT => Err(TcpProgressError::ConnectionOver),
            state => Err(TcpProgressError::NotConnected(state)),
        }
    }

    /// Corrects these counts and queue lengths for the FINs.
    fn progress(self, queued_in: u64, queued_out: u64) -> Result<TcpProgress, TcpProgressError> {
        let (fin_received, fin_sent) = self.fins()?;
        // The peer's FIN counts as received, but never as unread. Our own counts as queued until the peer has
        // acknowledged it (as only FIN_WAIT2 shows), and as acknowledged from then on.
        let fin_is_subtracted = fin_received && !Mutant::FinCounted.is_active();
        let arrived = self.received.saturating_sub(u64::from(fin_is_subtracted));
        let queued_and_acknowledged = self.acknowledged + queued_out;
        let our_fin_is_queued = fin_sent && self.state != FIN_WAIT2;
        Ok(TcpProgress {
            received: arrived.saturating_sub(queued_in),
            sent: queued_and_acknowledged.saturating_sub(u64::from(fin_sent)),
            unread: queued_in,
            unacknowledged: queued_out.saturating_sub(u64::from(our_fin_is_queued)),
            fin_received,
            fin_sent,
        })
    }
}

/// Bytes queued or in flight, not acknowledged yet, our own FIN included.
fn queued_out(socket: BorrowedFd<'_>) -> Result<u64, TcpProgressError> {
    let mut queued: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (SIOCOUTQ for a socket) writes one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
    if result != 0 {
        return Err(failed("ioctl(SIOCOUTQ)")(io::Error::last_os_error()));
    }
    Ok(u64::from(queued.cast_unsigned()))
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> TcpProgressError {
    move |source| TcpProgressError::System {
        step,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests;
