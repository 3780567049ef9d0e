//! How a connection closes: what is still sent, and whether the session is kept for a resume.

use std::fmt;

use forkade_protocol::preamble::{self, PreambleResult};
use forkade_protocol::{ErrorCode, ServerMessage, frame};

use crate::limits::CLOSE_MESSAGE_BYTES_MAX;
use crate::session::{Session, transport};
use crate::state::close_counters::count_close;
use crate::state::connections::{ConnectionRecord, Phase};
use crate::state::directory::{LobbyTx, Presence};
use crate::state::layout::{ConnectionRef, Memory, PlayerRef};
use forkade_games::floor_char_boundary;
use forkade_text::render;
use shmem::sys::clock::now_ms;
use shmem::transaction::{Record, Tx};

/// Why a connection closes, and what its client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The client said goodbye or is gone; nothing is sent.
    None,
    /// An `Error` message with this code and text.
    Error(ErrorCode, String),
    /// A `ShuttingDown` message with this text: the server stops.
    ShuttingDown(String),
    /// A line of text for a client that does not speak the binary protocol. The code, if it is an error, is for the
    /// operator.
    Line(Option<ErrorCode>, String),
}

impl CloseReason {
    /// The error, if it is one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Error(code, _) => Some(*code),
            Self::ShuttingDown(_) => Some(ErrorCode::ShuttingDown),
            Self::Line(code, _) => *code,
            Self::None => None,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Error(code, text) => write!(out, "{code:?}: {text}"),
            Self::ShuttingDown(text) => write!(out, "{:?}: {text}", ErrorCode::ShuttingDown),
            Self::Line(None, text) => write!(out, "{text}"),
            Self::Line(Some(code), text) => write!(out, "{code:?}: {text}"),
        }
    }
}

impl Session<'_> {
    /// Starts to close the connection: pending output is still sent, then the message of the close reason. With
    /// `leaves`, the player then leaves for good.
    pub fn close(&mut self, leaves: bool, reason: &CloseReason) {
        let record = self.record;
        let stream_end = match self.player {
            Some((_, player)) => self.state.attachment.read_own(&player.output_head),
            None => transport::stream_sent(&self.state.attachment, record, self.byte_counts.sent),
        };
        if let Some(code) = reason.code() {
            count_close(&self.state.memory.header.closes, code, self.player.is_some());
        }
        let reason = &in_version(reason, self.spoken_version());
        let mut buffer = [0; CLOSE_MESSAGE_BYTES_MAX];
        let message = match self.is_text() {
            true => close_line(reason, &mut buffer),
            // Half a line was typed, and no Enter; or a resume word, and the session was not reached.
            false
                if self.player.is_none()
                    && matches!(preamble::classify(&self.handshake()), PreambleResult::Text(_)) =>
            {
                close_line(reason, &mut buffer)
            }
            false if self.byte_counts.received == self.proxy_header_bytes() as u64 => {
                close_frame(&for_unknown_client(reason), &mut buffer)
            }
            false => close_frame(reason, &mut buffer),
        };
        let leaves = leaves || self.has_nothing_to_keep();
        let now = now_ms();
        match self.player {
            Some((_, player)) => {
                let mut tx = self.state.attachment.begin(player);
                enter_closing(&mut tx, record, leaves, stream_end, now, message);
                tx.commit().expect("closing fits the journal");
            }
            None => {
                let asked_for = self.state.attachment.read_own(&record.player);
                let mut tx = self.state.attachment.begin(self.state.memory.directory.record);
                // In the same transaction as the phase: a successor tells a requested session from an attached one by
                // the phase.
                withdraw_request(&mut tx, self.state.memory, self.connection, record, asked_for);
                enter_closing(&mut tx, record, leaves, stream_end, now, message);
                tx.commit().expect("closing fits the journal");
                self.wipe_handshake();
            }
        }
    }

    /// Whether the player leaves for good when its connection ends.
    pub(crate) fn leaves_for_good(&self) -> bool {
        self.state.attachment.read_own(&self.record.leaves) != 0 || self.has_nothing_to_keep()
    }

    /// The protocol version that the client understands: the negotiated one, or, before it has a session, the one that
    /// its preamble leads to.
    fn spoken_version(&self) -> u16 {
        if self.player.is_some() {
            return self.dialect().version;
        }
        let negotiated = match preamble::classify(&self.handshake()) {
            PreambleResult::Preamble { min, max } => preamble::negotiate(min, max),
            _ => None,
        };
        negotiated.unwrap_or(preamble::VERSION_MIN)
    }

    /// Releases the session for the newer connection that presented its token, and tells this connection's client, in
    /// one transaction. The caller has sent what it could: after a partly sent frame no message can follow. Returns
    /// the keeper whose doorbell must be rung.
    pub fn yield_to_claimant(&mut self) -> Option<u32> {
        let (_, player) = self.player?;
        let stream_end = self.state.attachment.read_own(&player.output_head);
        let message = if self.output_sent() == stream_end {
            count_close(&self.state.memory.header.closes, ErrorCode::Replaced, true);
            let text = "your session goes on on a newer connection";
            CloseReason::Error(ErrorCode::Replaced, text.into())
        } else {
            CloseReason::None
        };
        let mut buffer = [0; CLOSE_MESSAGE_BYTES_MAX];
        let message = match self.is_text() {
            true => close_line(&message, &mut buffer),
            false => close_frame(&message, &mut buffer),
        };
        let (record, now) = (self.record, now_ms());
        self.detach(|tx| enter_closing(tx, record, false, stream_end, now, message))
    }

    /// Detaches the player from the connection: its seat is kept for the grace, and the session waits for a resume.
    /// `also` runs in the same transaction and must end [`Phase::OPEN`]. Returns the keeper whose doorbell must be
    /// rung.
    pub(crate) fn detach(&mut self, also: impl FnOnce(&mut LobbyTx<'_>)) -> Option<u32> {
        let (memory, record) = (self.state.memory, self.record);
        let (player, player_record) = self.player?;
        let mut tx = self.state.attachment.begin(memory.directory.record);
        let mut claimant = ConnectionRef::NONE;
        if let Some(identity) = memory.directory.identity(&tx, player) {
            claimant = tx.get(&identity.claimant);
            tx.set(&identity.presence, Presence::DETACHED.raw());
            tx.set(&identity.connection, ConnectionRef::NONE);
            tx.set(&identity.detached_at_ms, now_ms());
        }
        tx.set(&record.player, PlayerRef::NONE);
        also(&mut tx);
        tx.commit().expect("detaching fits the journal");
        self.state.attachment.release(player_record);
        self.player = None;
        claimant.is_some().then(|| memory.raise_attention(claimant))
    }

    /// Ends a connection that carries no session.
    pub(crate) fn end_without_session(&mut self) -> Option<u32> {
        let (memory, record) = (self.state.memory, self.record);
        let asked_for = self.state.attachment.read_own(&record.player);
        let mut tx = self.state.attachment.begin(memory.directory.record);
        withdraw_request(&mut tx, memory, self.connection, record, asked_for);
        tx.set(&record.phase, Phase::DONE.raw());
        tx.commit().expect("ending a connection fits the journal");
        None
    }
}

/// Withdraws the connection's request for a session, if it made one.
fn withdraw_request(
    tx: &mut LobbyTx<'_>,
    memory: &Memory,
    connection: ConnectionRef,
    record: &'static ConnectionRecord,
    player: PlayerRef,
) {
    if let Some(identity) = memory.directory.identity(tx, player)
        && tx.get(&identity.claimant) == connection
    {
        tx.set(&identity.claimant, ConnectionRef::NONE);
    }
    tx.set(&record.player, PlayerRef::NONE);
}

fn enter_closing<R: Record>(
    tx: &mut Tx<'_, R>,
    record: &'static ConnectionRecord,
    leaves: bool,
    stream_end: u64,
    now_ms: u64,
    message: &[u8],
) {
    tx.write(&record.close_message, 0, message);
    tx.set(
        &record.close_message_bytes,
        u32::try_from(message.len()).expect("a message is small"),
    );
    tx.set(&record.phase, Phase::CLOSING.raw());
    tx.set(&record.leaves, u32::from(leaves));
    tx.set(&record.stream_end, stream_end);
    tx.set(&record.closing_since_ms, now_ms);
}

/// The reason as a client of this protocol version knows it.
fn in_version(reason: &CloseReason, version: u16) -> CloseReason {
    match reason {
        CloseReason::Error(code, text) => CloseReason::Error(code.in_version(version), text.clone()),
        reason => reason.clone(),
    }
}

/// A close message for a client that has not sent a byte: it may be a program or a person at a terminal.
fn for_unknown_client(reason: &CloseReason) -> CloseReason {
    match reason {
        CloseReason::Error(code, text) => CloseReason::Error(*code, render::readable_by_any_client(text)),
        CloseReason::ShuttingDown(text) => CloseReason::ShuttingDown(render::readable_by_any_client(text)),
        other => other.clone(),
    }
}

fn close_frame<'b>(reason: &CloseReason, buffer: &'b mut [u8]) -> &'b [u8] {
    let message = match reason {
        CloseReason::None => return &[],
        CloseReason::Error(code, text) => ServerMessage::Error {
            code: *code,
            text: text[..floor_char_boundary(text, crate::limits::REJECTION_TEXT_BYTES_MAX)].to_owned(),
        },
        CloseReason::ShuttingDown(text) => ServerMessage::ShuttingDown { text: text.clone() },
        CloseReason::Line(..) => return close_line(reason, buffer),
    };
    let length = frame::write_frame_into(&message, buffer).expect("close messages are short");
    &buffer[..length]
}

/// A close message as a line of text. It overwrites the prompt, if there is one.
fn close_line<'b>(reason: &CloseReason, buffer: &'b mut [u8]) -> &'b [u8] {
    let text = match reason {
        CloseReason::None => return &[],
        CloseReason::Error(_, text) | CloseReason::ShuttingDown(text) | CloseReason::Line(_, text) => text,
    };
    let text =
        render::to_sentence(&text[..floor_char_boundary(text, crate::limits::REJECTION_TEXT_BYTES_MAX)]);
    let line = [render::OVERWRITE_PROMPT, &render::to_terminal(&text)].concat();
    // Escaping can lengthen the text.
    let length = floor_char_boundary(&line, buffer.len());
    let target = &mut buffer[..length];
    target.copy_from_slice(&line.as_bytes()[..length]);
    target
}
