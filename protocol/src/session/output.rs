//! The client's stream: what is not yet written, and what may have to be written again.

use super::SessionError;
use crate::{byte_queue::ByteQueue, frame, limits::FRAME_TOTAL_BYTES_MAX, messages::ClientMessage};

/// Default limit for the bytes of its stream that a session keeps until the server has processed them.
pub const UNACKNOWLEDGED_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the limit that only the session's own confirms and pings may use.
const CONTROL_BYTES_RESERVED: usize = 256;

/// Which part of the limit a message may use.
#[derive(Clone, Copy)]
pub(super) enum Reserve {
    /// Messages of the session's user leave the reserve for control messages free.
    Keep,
    /// Confirms and pings of the session itself.
    Use,
}

/// The client's stream from the first byte that the server has not acknowledged.
#[derive(Debug)]
pub(super) struct OutputStream {
    queue: ByteQueue,
    /// Offset of the queue's first byte.
    start: u64,
    /// Offset of the next byte to write to the current connection.
    written: u64,
    bytes_max: usize,
}

impl Default for OutputStream {
    fn default() -> Self {
        Self {
            queue: ByteQueue::default(),
            start: 0,
            written: 0,
            bytes_max: UNACKNOWLEDGED_BYTES_MAX,
        }
    }
}

impl OutputStream {
    /// Sets the limit, which is at least two frames of the largest size.
    pub(super) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max.max(2 * FRAME_TOTAL_BYTES_MAX);
    }

    /// Offset of the first byte that the server has not acknowledged.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the last queued byte.
    pub(super) fn end(&self) -> u64 {
        self.start + self.queue.len() as u64
    }

    /// Offset of the next byte to write to the current connection.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Number of queued bytes that the server has not acknowledged, written or not.
    pub(super) fn unacknowledged(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_half_full(&self) -> bool {
        self.queue.len() >= self.bytes_max / 2
    }

    /// The bytes that are not yet written to the current connection.
    pub(super) fn unwritten(&self) -> &[u8] {
        &self.queue.as_slice()[to_index(self.written - self.start)..]
    }

    /// Records that the first `count` unwritten bytes were written.
    pub(super) fn advance(&mut self, count: usize) {
        self.written += count as u64;
    }

    /// Starts over: everything that the server has not acknowledged is unwritten.
    pub(super) fn rewind(&mut self) {
        self.written = self.start;
    }

    /// Sets the offset of the first queued byte, which only the server knew. [`resume_at`](Self::resume_at) follows.
    pub(super) fn set_start(&mut self, offset: u64) {
        self.start = offset;
    }

    /// Continues on a new connection at `offset`: the server has processed everything before it.
    pub(super) fn resume_at(&mut self, offset: u64) {
        self.written = offset;
        self.acknowledge(offset);
    }

    /// Discards the bytes before `offset`, which the server has processed.
    pub(super) fn acknowledge(&mut self, offset: u64) {
        if let Some(count) = offset.checked_sub(self.start) {
            self.queue.consume(to_index(count));
            self.start = offset;
        }
    }

    /// Appends a message. After an error the stream is unchanged.
    pub(super) fn append(&mut self, message: &ClientMessage, reserve: Reserve) -> Result<(), SessionError> {
        let bytes_max = match reserve {
            Reserve::Keep => self.bytes_max - CONTROL_BYTES_RESERVED,
            Reserve::Use => self.bytes_max,
        };
        let unacknowledged = self.queue.len();
        frame::append_frame(message, self.queue.tail_mut()).map_err(SessionError::Unsendable)?;
        if self.queue.len() > bytes_max {
            self.queue.truncate(unacknowledged);
            return Err(SessionError::BufferFull {
                unacknowledged,
                bytes_max,
            });
        }
        Ok(())
    }
}

fn to_index(distance: u64) -> usize {
    usize::try_from(distance).expect("the queue fits into memory")
}
