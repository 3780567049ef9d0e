//! Which bytes come next on a connection, computed from the kernel's byte counts and the records.
//!
//! Nothing is remembered here: a successor that asks the kernel computes the same.

use std::sync::atomic::Ordering;

use crate::limits::{FRAME_TOTAL_BYTES_MAX, HANDSHAKE_BYTES_MAX, INPUT_RING_BYTES, OPENING_BYTES_MAX};
use crate::session::Session;
use crate::state::connections::{ConnectionRecord, Phase};
use crate::state::players::{OutputRing, PlayerRecord};
use shmem::sys::shared_io;
use shmem::transaction::Attachment;

/// Bytes transferred on a connection in each direction since it was accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ByteCounts {
    /// Bytes that processes of this server have received.
    pub received: u64,
    /// Bytes that the kernel has accepted for sending.
    pub sent: u64,
}

/// The result of one receive call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Bytes received; 0 means that the client has closed its direction.
    pub bytes: usize,
    /// There was space for more, so the poll will report what arrives from now on.
    pub socket_drained: bool,
}

/// The next segment of the output.
enum OutputSegment<'a> {
    HandshakeReply(std::ops::Range<usize>),
    Stream(&'a PlayerRecord, std::ops::Range<u64>),
    CloseMessage(std::ops::Range<usize>),
}

impl Session<'_> {
    /// Input offset behind the last byte received.
    pub fn input_received(&self) -> u64 {
        let handshake = u64::from(self.state.attachment.read_own(&self.record.handshake_bytes));
        self.state.attachment.read_own(&self.record.input_base)
            + self.byte_counts.received.saturating_sub(handshake)
    }

    /// Whether more bytes of the player's input can be received before a frame is consumed.
    pub(crate) fn has_input_space(&self) -> bool {
        let Some((_, player)) = self.player else {
            return true;
        };
        let consumed = self.state.attachment.read_own(&player.consumed);
        self.input_received() < consumed + INPUT_RING_BYTES as u64
    }

    /// Output offset behind the last byte that the kernel has accepted.
    pub fn output_sent(&self) -> u64 {
        stream_sent(&self.state.attachment, self.record, self.byte_counts.sent)
    }

    /// Receives once from the socket, straight into shared memory. `Ok(None)`: there is no space until a frame is
    /// consumed.
    ///
    /// # Errors
    ///
    /// Those of recv(2).
    pub fn receive(&mut self, socket: &impl std::os::fd::AsFd) -> std::io::Result<Option<Receipt>> {
        let attachment = &self.state.attachment;
        let (received, space) = if let Some((_, player)) = self.player {
            let (from, consumed) = (self.input_received(), attachment.read_own(&player.consumed));
            let space = INPUT_RING_BYTES
                - usize::try_from(from - consumed).expect("the ring holds what was not consumed");
            let placement = player.input.view(attachment);
            let space = if player.traced.is_active() {
                // So that the oldest bytes are overwritten first.
                space.min(INPUT_RING_BYTES / 4)
            } else {
                space
            };
            let range = placement.range(from, space);
            if range.is_empty() {
                return Ok(None);
            }
            let ring_before = (from + range.len() as u64).saturating_sub(INPUT_RING_BYTES as u64);
            player.mark_input_overwritten(ring_before.max(player.input.base(attachment)));
            (
                shared_io::receive(socket, placement.bytes(), range.clone())?,
                range.len(),
            )
        } else {
            let from = usize::try_from(self.byte_counts.received).unwrap_or(usize::MAX);
            let end = match self.awaits_proxy_header() {
                true => OPENING_BYTES_MAX,
                false => self.proxy_header_bytes() + HANDSHAKE_BYTES_MAX,
            };
            if from < HANDSHAKE_BYTES_MAX {
                let range = from..HANDSHAKE_BYTES_MAX;
                (
                    shared_io::receive(socket, &self.record.handshake, range.clone())?,
                    range.len(),
                )
            } else if from < end {
                self.record.set_long_opening(true);
                let range = from - HANDSHAKE_BYTES_MAX..end - HANDSHAKE_BYTES_MAX;
                (
                    shared_io::receive(socket, &self.long_opening().bytes, range.clone())?,
                    range.len(),
                )
            } else {
                return Ok(None);
            }
        };
        self.byte_counts.received += received as u64;
        Ok(Some(Receipt {
            bytes: received,
            socket_drained: received < space,
        }))
    }

    /// Passes the next segment of output to the kernel. `Ok(None)`: there is nothing to send.
    ///
    /// # Errors
    ///
    /// Those of send(2).
    pub fn send(&mut self, socket: &impl std::os::fd::AsFd) -> std::io::Result<Option<usize>> {
        self.publish_streams();
        let sent = match self.next_piece() {
            None => return Ok(None),
            Some(OutputSegment::HandshakeReply(range)) => {
                let sent = shared_io::send(socket, &self.record.handshake_reply, range)?;
                self.byte_counts.sent += sent as u64;
                self.wipe_handshake_reply();
                return Ok(Some(sent));
            }
            Some(OutputSegment::CloseMessage(range)) => {
                shared_io::send(socket, &self.record.close_message, range)?
            }
            Some(OutputSegment::Stream(player, stream)) => {
                let placement = player.output.view(&self.state.attachment);
                let length =
                    usize::try_from(stream.end - stream.start).expect("the ring holds what was not sent");
                shared_io::send(socket, placement.bytes(), placement.range(stream.start, length))?
            }
        };
        self.byte_counts.sent += sent as u64;
        Ok(Some(sent))
    }

    /// Whether the kernel has accepted all output that exists so far.
    pub fn all_sent(&self) -> bool {
        self.next_piece().is_none()
    }

    /// Bytes of output that can be appended before bytes would be overwritten that were not sent, or that the client
    /// has not confirmed and may ask for again.
    pub fn output_space(&self) -> u64 {
        let Some((_, player)) = self.player else { return 0 };
        let head = self.state.attachment.read_own(&player.output_head);
        let needed_from = match self.must_confirm() {
            true => player.output_kept_from.load(Ordering::Acquire),
            false => self.output_sent(),
        };
        OutputRing::BYTES - head.saturating_sub(needed_from)
    }

    /// The part of the [space](Self::output_space) that events, chat and mail may use. The rest is for the reply to the
    /// next frame: without it, a confirm that lies behind other frames could not be reached.
    pub fn space_for_events(&self) -> u64 {
        self.output_space().saturating_sub(FRAME_TOTAL_BYTES_MAX as u64)
    }

    /// Whether nothing more can be sent before the client confirms what it has received.
    pub fn waits_for_confirm(&self) -> bool {
        self.must_confirm() && self.space_for_events() < FRAME_TOTAL_BYTES_MAX as u64
    }

    /// Whether output is kept until the client confirms it. For a client of version 1 that has never confirmed, and in
    /// text mode, it is kept only until the client's kernel has acknowledged it.
    fn must_confirm(&self) -> bool {
        self.player
            .is_some_and(|(_, player)| player.confirms.load(Ordering::Acquire) != 0)
    }

    /// Whether the kernel's counts fit the records. If not, this connection cannot be continued; the session can.
    pub(crate) fn byte_counts_are_plausible(&self) -> bool {
        let attachment = &self.state.attachment;
        let has_ended = [Phase::CLOSING, Phase::DONE].contains(&self.phase());
        let Some((_, player)) = self.player else {
            // A connection that has released its session may have received any number of bytes, and receives no more.
            let handshake = u64::from(attachment.read_own(&self.record.handshake_bytes));
            return has_ended
                || self.byte_counts.received.saturating_sub(handshake) <= OPENING_BYTES_MAX as u64;
        };
        let (consumed, head) = (
            attachment.read_own(&player.consumed),
            attachment.read_own(&player.output_head),
        );
        let (received, sent) = (self.input_received(), self.output_sent());
        // Behind the end of the stream, the close message is counted.
        let end = match has_ended {
            true => {
                attachment.read_own(&self.record.stream_end)
                    + u64::from(attachment.read_own(&self.record.close_message_bytes))
            }
            false => head,
        };
        (consumed..=consumed + INPUT_RING_BYTES as u64).contains(&received)
            && sent <= end
            && head.saturating_sub(sent) <= OutputRing::BYTES
    }

    fn next_piece(&self) -> Option<OutputSegment<'static>> {
        let (attachment, record) = (&self.state.attachment, self.record);
        let reply = u64::from(attachment.read_own(&record.handshake_reply_bytes));
        if self.byte_counts.sent < reply {
            return Some(OutputSegment::HandshakeReply(
                small(self.byte_counts.sent)..small(reply),
            ));
        }
        let (sent, stream_end) = (self.output_sent(), attachment.read_own(&record.stream_end));
        if let Some((_, player)) = self.player {
            let end = attachment.read_own(&player.output_head).min(stream_end);
            if sent < end {
                return Some(OutputSegment::Stream(player, sent..end));
            }
        }
        let close_message = u64::from(attachment.read_own(&record.close_message_bytes));
        let closing = attachment.read_own(&record.phase) == Phase::CLOSING.raw();
        (closing && sent >= stream_end && sent - stream_end < close_message)
            .then(|| OutputSegment::CloseMessage(small(sent - stream_end)..small(close_message)))
    }
}

/// Output offset behind the last byte that the kernel has accepted. Behind the end of the stream it counts the close
/// message.
pub(crate) fn stream_sent(attachment: &Attachment, record: &ConnectionRecord, sent: u64) -> u64 {
    attachment.read_own(&record.output_base)
        + sent.saturating_sub(u64::from(attachment.read_own(&record.handshake_reply_bytes)))
}

fn small(count: u64) -> usize {
    usize::try_from(count).expect("a count of bytes in a record is small")
}
