//! Frames of the input stream, and the part that every transaction of a player shares: it consumes the frame that
//! caused it and appends to the output.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use forkade_protocol::{ClientMessage, ServerMessage, Snapshot, codec, frame};

use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::session::Session;
use crate::session::rate::RateCharge;
use crate::session::rejection::Rejection;
use crate::state::buffers;
use crate::state::players::{LastDrawing, OutputRing, PlayerRecord};
use forkade_games::Games;
use forkade_text::input::InputState;
use forkade_text::render;
use shmem::sys::clock::{last_tick_ms, now_ms};
use shmem::transaction::{Record, Tx};

/// Bytes of a frame whose message holds only a few numbers.
const SHORT_FRAME_BYTES_MAX: usize = 32;

impl Session<'_> {
    /// What the player's next transaction needs. `None` before the handshake is complete.
    pub(crate) fn player_tx(&self) -> Option<PlayerTx> {
        let (_, player) = self.player?;
        Some(PlayerTx {
            player,
            frame_end: self.frame_end,
            charge: self.charge,
            to_acknowledge: self.to_acknowledge,
            search_charge: self.search_charge,
            received: self.input_received(),
            sent: self.output_sent(),
            text: self.is_text().then_some(TextMode {
                games: self.state.games,
                input_state: self.input_state_behind,
            }),
        })
    }

    /// The next frame of the input, if it has arrived whole. It becomes the current frame; the transaction that
    /// executes it consumes it.
    ///
    /// # Errors
    ///
    /// The announced length in bytes, if it exceeds [`FRAME_BYTES_MAX`].
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, usize> {
        let Some((_, player)) = self.player else {
            return Ok(None);
        };
        let (consumed, received) = (
            self.state.attachment.read_own(&player.consumed),
            self.input_received(),
        );
        let input = player.input.view(&self.state.attachment);
        let body_start = consumed + FRAME_HEADER_BYTES as u64;
        if received < body_start {
            return Ok(None);
        }
        let mut header = [0; FRAME_HEADER_BYTES];
        input.read(consumed, &mut header);
        let length = u32::from_le_bytes(header) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(length);
        }
        let end = body_start + length as u64;
        if received < end {
            return Ok(None);
        }
        let mut body = vec![0; length];
        input.read(body_start, &mut body);
        self.frame_end = Some(end);
        self.record.current_frame.store(end, Ordering::Release);
        self.record
            .last_frame_at_ms
            .store(last_tick_ms(), Ordering::Relaxed);
        Ok(Some(body))
    }

    /// Whether the current frame is blocked because it crashed too many handlers.
    pub fn frame_is_blocked(&self) -> bool {
        let refused = self.record.blocked_frame.load(Ordering::Acquire);
        refused != 0 && self.frame_end == Some(refused)
    }

    /// Ends the current frame.
    pub fn end_frame(&mut self) {
        self.frame_end = None;
        self.charge = None;
        self.charge_if_rejected = None;
        self.to_acknowledge = None;
        self.search_charge = None;
        self.input_state_behind = None;
        self.record.current_frame.store(0, Ordering::Release);
        self.publish_streams();
    }

    /// Publishes the state of the player's streams for readers without the lock. Call it between two transactions.
    pub(crate) fn publish_streams(&self) {
        let Some((player, record)) = self.player else {
            return;
        };
        let (attachment, published) = (&self.state.attachment, &record.published);
        let place = self.membership().place();
        let seat = place.and_then(|(_, seat)| seat);
        let show = |cell: &AtomicU64, value| cell.store(value, Ordering::Relaxed);
        published.begin(player);
        show(&published.room, place.map_or(0, |(room, _)| room.to_id()));
        show(&published.is_text, u64::from(self.is_text()));
        show(&published.seat, seat.map_or(0, |seat| u64::from(seat) + 1));
        show(&published.input_received, self.input_received());
        show(&published.output_sent, self.output_sent());
        show(&published.input_base, record.input.base(attachment));
        show(&published.output_base, record.output.base(attachment));
        // A reader that sees these values sees all that was stored before them.
        published
            .consumed
            .store(attachment.read_own(&record.consumed), Ordering::Release);
        published
            .output_head
            .store(attachment.read_own(&record.output_head), Ordering::Release);
        published.end(player);
    }

    /// The client confirms that it has received the output stream up to this offset: the server need not keep it.
    ///
    /// # Errors
    ///
    /// The offset sent so far, if it is less.
    pub fn confirm(&mut self, received: u64) -> Result<Result<(), Rejection>, u64> {
        self.enter_confirm(received)?;
        Ok(self.consume_and_reply(None))
    }

    fn enter_confirm(&self, received: u64) -> Result<(), u64> {
        let sent = self.output_sent();
        if received > sent {
            return Err(sent);
        }
        if let Some((_, player)) = self.player {
            // Not journaled: the confirmation holds whatever becomes of the transaction.
            player.output_kept_from.fetch_max(received, Ordering::AcqRel);
            player.confirms.store(1, Ordering::Release);
        }
        Ok(())
    }

    /// Input offset up to which frames or lines were executed; 0 without a player.
    pub(crate) fn input_consumed(&self) -> u64 {
        self.player
            .map_or(0, |(_, player)| self.state.attachment.read_own(&player.consumed))
    }

    /// Enters the confirms among the frames that have arrived but must wait: what they wait for may be a confirm.
    /// (Each is entered again, without effect, when its turn comes.)
    pub(crate) fn enter_confirms_ahead(&mut self) {
        let Some((_, player)) = self.player else { return };
        let waiting = self.state.attachment.read_own(&player.consumed)..self.input_received();
        let input = player.input.view(&self.state.attachment);
        let mut search = self.confirm_search;
        let found = search.advance(waiting, |from, bytes| input.read(from, bytes));
        self.confirm_search = search;
        for received in found {
            // A false one is answered when its turn comes.
            let _ = self.enter_confirm(received);
        }
    }

    /// Answers a ping with the input offset that is consumed for good: the end of the ping itself.
    ///
    /// # Errors
    ///
    /// Those of [`Session::consume_and_reply`].
    pub fn pong(&mut self, nonce: u64) -> Result<(), Rejection> {
        let received = self.frame_end.unwrap_or_default();
        self.consume_and_reply(Some(&ServerMessage::Pong { nonce, received }))
    }

    /// Consumes the current frame in a transaction of its own, and writes `reply`, if any.
    ///
    /// # Errors
    ///
    /// The reply does not fit a frame: a bug.
    pub fn consume_and_reply(&mut self, reply: Option<&ServerMessage>) -> Result<(), Rejection> {
        let Some(own) = self.player_tx() else {
            return Ok(());
        };
        let mut tx = self.state.attachment.begin(own.player);
        if let Some(reply) = reply {
            own.reply(&mut tx, reply);
        }
        own.consume(&mut tx);
        tx.commit()?;
        Ok(())
    }
}

/// How far the frames that wait have been searched for confirms. Each is looked at once by a process: a client may let
/// thousands of them wait. A successor searches again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ConfirmSearch {
    /// Input offset: the start of a frame.
    searched_to: u64,
}

impl ConfirmSearch {
    /// What is confirmed in the whole frames within this range of the input that were not searched before. The range
    /// begins with a frame.
    fn advance(&mut self, waiting: Range<u64>, read: impl Fn(u64, &mut [u8])) -> Vec<u64> {
        let mut confirmed = Vec::new();
        let mut start = self.searched_to.max(waiting.start);
        loop {
            self.searched_to = start;
            let body_start = start + FRAME_HEADER_BYTES as u64;
            if waiting.end < body_start {
                return confirmed;
            }
            let mut header = [0; FRAME_HEADER_BYTES];
            read(start, &mut header);
            let length = u32::from_le_bytes(header) as usize;
            start = body_start + length as u64;
            if length > FRAME_BYTES_MAX || waiting.end < start {
                return confirmed;
            }
            let mut body = [0; SHORT_FRAME_BYTES_MAX];
            let Some(body) = body.get_mut(..length) else {
                continue;
            };
            read(body_start, body);
            if let Ok(ClientMessage::Confirm { received }) = codec::decode(body) {
                confirmed.push(received);
            }
        }
    }
}

/// The part that every transaction of a player shares: it consumes the current frame, enters its charge and writes
/// output.
#[derive(Clone, Copy)]
pub(crate) struct PlayerTx {
    pub(crate) player: &'static PlayerRecord,
    frame_end: Option<u64>,
    /// The charge for the current frame.
    charge: Option<RateCharge>,
    /// The request in the current frame, if its client wants to know that it was accepted.
    to_acknowledge: Option<u32>,
    /// The charge for the rooms that it has examined.
    search_charge: Option<RateCharge>,
    received: u64,
    sent: u64,
    /// Set for a player in text mode.
    text: Option<TextMode>,
}

/// What differs for a player in text mode.
#[derive(Clone, Copy)]
struct TextMode {
    games: &'static Games,
    /// The parser's state behind the line that is being executed.
    input_state: Option<InputState>,
}

impl PlayerTx {
    /// Makes the current frame consumed by this transaction.
    pub(crate) fn consume<R: Record>(&self, tx: &mut Tx<'_, R>) {
        if let Some(end) = self.frame_end {
            tx.set(&self.player.consumed, end);
            if let Some(paid) = self.charge {
                paid.enter(tx, self.player);
            }
            if let Some(request) = self.to_acknowledge {
                self.reply(tx, &ServerMessage::Accepted { request });
            }
            if let Some(paid) = self.search_charge {
                paid.enter(tx, self.player);
            }
            if let Some(TextMode {
                input_state: Some(input_state),
                ..
            }) = self.text
            {
                tx.set(&self.player.input_state, input_state);
            }
            if end == self.received && !self.player.traced.is_active() {
                self.player.input.rebase(tx, end);
            }
        }
    }

    /// Appends a message to the output stream; for a player in text mode, as text.
    ///
    /// # Panics
    ///
    /// If the message does not fit a frame. The contents of messages are bounded so that it does (see
    /// [`limits`](crate::limits)).
    pub(crate) fn reply<R: Record>(&self, tx: &mut Tx<'_, R>, message: &ServerMessage) {
        if let Some(TextMode { games, .. }) = self.text {
            match message {
                ServerMessage::Joined { snapshot, .. } => self.note_drawing(tx, snapshot, None),
                ServerMessage::PictureToMove {
                    snapshot, to_move, ..
                } => self.note_drawing(tx, snapshot, *to_move),
                _ => {}
            }
            return self.say(tx, &render::message(games, message));
        }
        buffers::with_frame(|buffer| {
            let length = frame::write_frame_into(message, buffer).expect("every message fits a frame");
            self.put(tx, &buffer[..length]);
        });
    }

    /// Whether the player is in text mode.
    pub(crate) fn is_text(&self) -> bool {
        self.text.is_some()
    }

    /// Whether the player can be told the seat to move.
    pub(crate) fn knows_seat_to_move(&self) -> bool {
        self.is_text() || self.player.dialect().version >= 3
    }

    /// Notes that the player is shown this snapshot as text, with its drawing.
    pub(crate) fn note_drawing<R: Record>(
        &self,
        tx: &mut Tx<'_, R>,
        snapshot: &Snapshot,
        to_move: Option<u8>,
    ) {
        let Some(TextMode { games, .. }) = self.text else {
            return;
        };
        // A drawing in place is another one.
        if tx.get(&self.player.has_ansi) == 0 {
            let drawing = render::view_text(games, snapshot) + render::turn_hint(to_move, snapshot.seat);
            let last = LastDrawing {
                hash: LastDrawing::hash_of(&drawing),
                looked_at_ms: now_ms(),
                ..LastDrawing::default()
            };
            tx.set(&self.player.last_drawing, last);
        }
    }

    /// Appends text and a prompt to the output of a player in text mode. Does nothing for other players.
    pub(crate) fn say<R: Record>(&self, tx: &mut Tx<'_, R>, text: &str) {
        if self.text.is_none() {
            return;
        }
        let mut output = self.begin_output(tx);
        output.say(tx, text);
        output.finish(tx);
    }

    /// Appends a whole frame to the output stream; for a player in text mode, its message as text. The caller has
    /// checked the [space](Session::output_space).
    pub(crate) fn put<R: Record>(&self, tx: &mut Tx<'_, R>, frame: &[u8]) {
        let mut output = self.begin_output(tx);
        output.put(tx, frame);
        output.finish(tx);
    }

    /// Starts a sequence of frames.
    pub(crate) fn begin_output<R: Record>(&self, tx: &Tx<'_, R>) -> Output {
        Output {
            player: self.player,
            sent: self.sent,
            head: tx.get(&self.player.output_head),
            text: self.text.map(|TextMode { games, .. }| TextOutput {
                games,
                is_asked_for: self.frame_end.is_some(),
                has_begun: false,
            }),
        }
    }
}

/// Frames on their way into the output stream. They count only after [`Output::finish`] and the commit.
#[must_use]
pub(crate) struct Output {
    player: &'static PlayerRecord,
    sent: u64,
    head: u64,
    text: Option<TextOutput>,
}

/// Output as text.
struct TextOutput {
    games: &'static Games,
    /// It answers a typed line, so the cursor is at the start of an empty line.
    is_asked_for: bool,
    /// Some text was written, so a prompt must follow.
    has_begun: bool,
}

impl Output {
    /// Output to a player to which everything was sent, as bytes.
    pub(crate) fn of_idle_stream(player: &'static PlayerRecord, head: u64) -> Self {
        Self {
            player,
            sent: head,
            head,
            text: None,
        }
    }

    /// Appends a frame; for a player in text mode, its message as text.
    pub(crate) fn put<R: Record>(&mut self, tx: &mut Tx<'_, R>, frame: &[u8]) {
        let Some(TextOutput { games, .. }) = self.text else {
            return self.put_bytes(tx, frame);
        };
        let message = frame
            .get(FRAME_HEADER_BYTES..)
            .map(codec::decode::<ServerMessage>);
        let message = message
            .expect("a frame has a header")
            .expect("frames are made here");
        self.say(tx, &render::message(games, &message));
    }

    /// Appends text for a player in text mode.
    pub(crate) fn say<R: Record>(&mut self, tx: &mut Tx<'_, R>, text: &str) {
        let Some(text_output) = &mut self.text else { return };
        let over = !text_output.is_asked_for && !text.is_empty() && !text_output.has_begun;
        text_output.has_begun |= text_output.is_asked_for || !text.is_empty();
        if over {
            self.put_bytes(tx, render::OVERWRITE_PROMPT.as_bytes());
        }
        self.put_bytes(tx, render::to_terminal(text).as_bytes());
    }

    /// The stream offset behind the last byte appended.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Appends bytes as they are.
    pub(crate) fn put_bytes<R: Record>(&mut self, tx: &mut Tx<'_, R>, frame: &[u8]) {
        let next = self.head + frame.len() as u64;
        let oldest = next.saturating_sub(OutputRing::BYTES);
        assert!(
            oldest <= self.sent,
            "output that was not sent would be overwritten"
        );
        assert!(
            oldest <= self.player.output_kept_from.load(Ordering::Acquire)
                || self.player.confirms.load(Ordering::Acquire) == 0,
            "output that was not confirmed would be overwritten"
        );
        // Not journaled: what is about to be overwritten cannot be kept for a resume, whatever becomes of the
        // transaction.
        let kept_from = self
            .player
            .output_kept_from
            .fetch_max(oldest, Ordering::AcqRel)
            .max(oldest);
        if kept_from == self.head && !self.player.traced.is_active() {
            self.player.mark_output_restarted(self.head);
            self.player.output.rebase(tx, self.head);
        }
        self.player.mark_output_reached(next);
        self.player.output.write(tx, self.head, frame);
        self.head = next;
    }

    /// Appends a message of at most [`SHORT_FRAME_BYTES_MAX`] bytes.
    pub(crate) fn put_short<R: Record>(&mut self, tx: &mut Tx<'_, R>, message: &ServerMessage) {
        let mut buffer = [0; SHORT_FRAME_BYTES_MAX];
        let length = frame::write_frame_into(message, &mut buffer).expect("a short message");
        self.put(tx, &buffer[..length]);
    }

    pub(crate) fn finish<R: Record>(mut self, tx: &mut Tx<'_, R>) {
        if self
            .text
            .as_ref()
            .is_some_and(|text_output| text_output.has_begun)
        {
            self.put_bytes(tx, render::PROMPT.as_bytes());
        }
        tx.set(&self.player.output_head, self.head);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    fn frames(messages: &[ClientMessage]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            frame::append_frame(message, &mut bytes).expect("a short message");
        }
        bytes
    }

    proptest! {
        /// Whatever has arrived when it is searched, and whatever is consumed in between.
        #[test]
        fn every_confirm_that_waits_is_found_once_and_every_frame_is_read_once(
            confirms in prop::collection::vec(prop::option::of(1_u64..1_000_000), 1..200),
            steps in prop::collection::vec((0_usize..64, 0_usize..4), 0..400),
        ) {
            let messages: Vec<_> = confirms
                .iter()
                .map(|confirm| match confirm {
                    Some(received) => ClientMessage::Confirm { received: *received },
                    None => ClientMessage::Ping { nonce: 7 },
                })
                .collect();
            let input = frames(&messages);
            let ends: Vec<_> = (1..=messages.len()).map(|count| frames(&messages[..count]).len() as u64).collect();
            let reads = Cell::new(0);
            let read = |from: u64, bytes: &mut [u8]| {
                reads.set(reads.get() + 1);
                let from = usize::try_from(from).expect("small");
                bytes.copy_from_slice(&input[from..from + bytes.len()]);
            };
            let (mut search, mut found) = (ConfirmSearch::default(), Vec::new());
            let (mut arrived, mut consumed, mut searches) = (0, 0, 0);
            for (more, handled) in steps.into_iter().chain([(input.len(), 0)]) {
                arrived = (arrived + more).min(input.len());
                let start = if consumed == 0 { 0 } else { ends[consumed - 1] };
                found.extend(search.advance(start..arrived as u64, read));
                searches += 1;
                // Only what was searched is consumed, so that nothing is left out.
                let whole = ends.iter().take_while(|end| **end <= arrived as u64).count();
                consumed = (consumed + handled).min(whole);
            }
            prop_assert_eq!(found, confirms.into_iter().flatten().collect::<Vec<_>>());
            prop_assert!(reads.get() <= 2 * messages.len() + searches, "{} reads", reads.get());
        }
    }

    #[test]
    fn the_search_goes_on_behind_what_was_consumed_without_it() {
        let handled = frames(&[ClientMessage::Ping { nonce: 1 }]);
        let input = [handled.clone(), frames(&[ClientMessage::Confirm { received: 9 }])].concat();
        let read = |from: u64, bytes: &mut [u8]| {
            let from = usize::try_from(from).expect("small");
            bytes.copy_from_slice(&input[from..from + bytes.len()]);
        };
        let mut search = ConfirmSearch::default();
        let waiting = handled.len() as u64..input.len() as u64;
        assert_eq!(search.advance(waiting.clone(), read), [9_u64]);
        assert_eq!(search.advance(waiting, read), [0_u64; 0]);
    }
}
