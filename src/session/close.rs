//! How a connection ends, and what becomes of its session.

use forkade_protocol::{ErrorCode, ServerMessage, frame};

use crate::limits::FAREWELL_BYTES_MAX;
use crate::session::Session;
use crate::session::transport;
use crate::state::connections::{ConnectionRecord, Phase};
use crate::state::directory::{LobbyTx, Presence};
use crate::state::layout::{ConnectionRef, Memory, PlayerRef};
use forkade_games::floor_char_boundary;
use forkade_text::render;
use shmem::sys::clock::now_ms;
use shmem::transaction::{Record, Tx};

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// Without a word: the client said goodbye or is gone.
    None,
    /// With an error to the client.
    Error(ErrorCode, String),
    /// The server stops.
    ShuttingDown(String),
    /// In words, to somebody in text mode.
    Line(String),
}

impl Session<'_> {
    /// Begins to end the connection: what waits is still sent, then the farewell. With `leaves` the player then leaves for good.
    pub fn close(&mut self, leaves: bool, farewell: &CloseReason) {
        let record = self.record;
        let stream_end = match self.player {
            Some((_, player)) => self.state.attachment.read_own(&player.output_head),
            None => transport::stream_sent(&self.state.attachment, record, self.byte_counts.sent),
        };
        let mut buffer = [0; FAREWELL_BYTES_MAX];
        let farewell = match self.is_text() {
            true => farewell_line(farewell, &mut buffer),
            false if self.byte_counts.received == 0 => farewell_frame(&for_anybody(farewell), &mut buffer),
            false => farewell_frame(farewell, &mut buffer),
        };
        // Without a token nobody comes back.
        let leaves = leaves || self.is_text();
        let now = now_ms();
        match self.player {
            Some((_, player)) => {
                let mut tx = self.state.attachment.begin(player);
                enter_closing(&mut tx, record, leaves, stream_end, now, farewell);
                tx.commit().expect("closing fits the journal");
            }
            None => {
                let asked_for = self.state.attachment.read_own(&record.player);
                let mut tx = self.state.attachment.begin(self.state.memory.directory.record);
                // Now, with the phase by which a successor knows that the session is only asked for: it would animate it.
                drop_claim(&mut tx, self.state.memory, self.connection, record, asked_for);
                enter_closing(&mut tx, record, leaves, stream_end, now, farewell);
                tx.commit().expect("closing fits the journal");
            }
        }
    }

    /// Lets go of the session for the newer connection that has published its token, and tells this one's client, in one transaction:
    /// whoever dies over it has done both or neither. The caller has sent what could be sent: a frame that was cut off cannot be
    /// followed by a farewell. Gives the keeper whose doorbell is to be rung.
    pub fn yield_to_claimant(&mut self) -> Option<u32> {
        let (_, player) = self.player?;
        let stream_end = self.state.attachment.read_own(&player.output_head);
        let farewell = if self.output_sent() == stream_end {
            let text = "your session goes on on a newer connection";
            CloseReason::Error(ErrorCode::Replaced, text.into())
        } else {
            CloseReason::None
        };
        let mut buffer = [0; FAREWELL_BYTES_MAX];
        let farewell = farewell_frame(&farewell, &mut buffer);
        let (record, now) = (self.record, now_ms());
        self.detach(|tx| enter_closing(tx, record, false, stream_end, now, farewell))
    }

    /// The player keeps the seat for the grace; the session waits for a resume. `also` is done in the same transaction, and ends the
    /// connection's phase [`Phase::OPEN`].
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
        drop_claim(&mut tx, memory, self.connection, record, asked_for);
        tx.set(&record.phase, Phase::DONE.raw());
        tx.commit().expect("ending a connection fits the journal");
        None
    }
}

/// The session that the connection had asked for, if any, is not asked for any more.
fn drop_claim(
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
    farewell: &[u8],
) {
    tx.write(&record.farewell, 0, farewell);
    tx.set(
        &record.farewell_bytes,
        u32::try_from(farewell.len()).expect("a farewell is small"),
    );
    tx.set(&record.phase, Phase::CLOSING.raw());
    tx.set(&record.leaves, u32::from(leaves));
    tx.set(&record.stream_end, stream_end);
    tx.set(&record.closing_since_ms, now_ms);
}

/// A farewell to somebody who has not sent a byte: it may be a person as well as a program.
fn for_anybody(farewell: &CloseReason) -> CloseReason {
    match farewell {
        CloseReason::Error(code, text) => CloseReason::Error(*code, render::readable_by_any_client(text)),
        CloseReason::ShuttingDown(text) => CloseReason::ShuttingDown(render::readable_by_any_client(text)),
        other => other.clone(),
    }
}

fn farewell_frame<'b>(farewell: &CloseReason, buffer: &'b mut [u8]) -> &'b [u8] {
    let message = match farewell {
        CloseReason::None => return &[],
        CloseReason::Error(code, text) => ServerMessage::Error {
            code: *code,
            text: text[..floor_char_boundary(text, crate::limits::REJECTION_TEXT_BYTES_MAX)].to_owned(),
        },
        CloseReason::ShuttingDown(text) => ServerMessage::ShuttingDown { text: text.clone() },
        CloseReason::Line(_) => return farewell_line(farewell, buffer),
    };
    let length = frame::write_frame_into(&message, buffer).expect("farewells are short");
    &buffer[..length]
}

/// A farewell for people. It takes the place of the prompt, if there is one.
fn farewell_line<'b>(farewell: &CloseReason, buffer: &'b mut [u8]) -> &'b [u8] {
    let text = match farewell {
        CloseReason::None => return &[],
        CloseReason::Error(_, text) | CloseReason::ShuttingDown(text) | CloseReason::Line(text) => text,
    };
    let text =
        render::to_sentence(&text[..floor_char_boundary(text, crate::limits::REJECTION_TEXT_BYTES_MAX)]);
    let line = [render::OVERWRITE_PROMPT, &render::to_terminal(&text)].concat();
    // Escapes can make it longer.
    let length = floor_char_boundary(&line, buffer.len());
    let target = &mut buffer[..length];
    target.copy_from_slice(&line.as_bytes()[..length]);
    target
}
