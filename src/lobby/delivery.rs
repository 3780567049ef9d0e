//! Delivers the room's events to the output of each member. A writer of the log never waits for its readers under the
//! lock; before a move it [waits](must_wait_for_readers) a bounded time for those that have fallen behind. The lobby's
//! chat and the player's mailbox are delivered in alternation, so that none of the three starves the others.
//!
//! The log's entries are complete frames, so delivery copies them, without the room's lock. The reader's cursor is part
//! of the player's record, and advances in the same transaction that appends the frames to the output: a crash neither
//! loses nor repeats an event. A reader that falls behind the log gets a snapshot instead, under the room's lock.

use std::sync::atomic::Ordering;

use forkade_games::Audience;
use forkade_protocol::{RejectCode, RoomEvent, ServerMessage, frame};
use forkade_text::render;
use shmem::event_log::{Appender, Read};
use shmem::sys::clock::now_ms;

use crate::limits::{FRAME_TOTAL_BYTES_MAX, ROOM_LOG_BYTES};
use crate::lobby::ignoring::Ignored;
use crate::lobby::room_view::{seat_to_move, snapshot};
use crate::lobby::{chat, join_leave, mail_delivery, text_delivery};
use crate::session::rejection::Rejection;
use crate::session::{CURSOR_LOST, ReaderWait, Session};
use crate::state::buffers;
use crate::state::rooms::{RoomRecord, RoomTx, all_read, is_member};
use crate::state::shown_game::ShownGame;

/// Audience: all members of the room.
pub(crate) const TO_ALL: u32 = u32::MAX;
/// Audience of an entry without a frame: the match starts, and each member gets a snapshot as seen from its own seat.
pub(crate) const MATCH_STARTED: u32 = u32::MAX - 1;

/// Audience, with the number of a seat added: an event for all but the player that was kicked from the seat, which is
/// told otherwise.
pub(crate) const TO_ALL_BUT_KICKED: u32 = 1 << 16;

/// Audience: the spectators.
pub(crate) const TO_SPECTATORS: u32 = 1 << 8;

/// Audience, with the number of a seat added: all members but that seat.
pub(crate) const TO_ALL_BUT: u32 = 1 << 9;

/// Maximum of entries that one transaction delivers.
pub(crate) const BATCH_MAX: usize = 64;

/// A player's frames are not handled while it has more than this of the room's log undelivered.
const UNDELIVERED_BYTES_MAX: u64 = ROOM_LOG_BYTES as u64 / 4;

/// Why delivery paused.
pub(crate) enum DeliveryStop {
    /// There is nothing more to deliver, or no space.
    Idle,
    /// The batch is full.
    Batch,
    /// The match has started: the player gets a snapshot.
    Started,
    /// The player was kicked.
    Removed,
    /// The log has overwritten events that the player has not got.
    Lost,
}

/// Delivers the events of the player's room up to now. Returns false if not all of them fit.
///
/// # Errors
///
/// Those of [`deliver`].
pub fn catch_up(session: &mut Session<'_>) -> Result<bool, Rejection> {
    let frame_end = session.frame_end.take();
    // Delivery must not consume the frame that is being handled.
    let delivered = loop {
        match deliver_room(session) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(rejection) => break Err(rejection),
        }
    };
    session.frame_end = frame_end;
    delivered?;
    let Some(((_, player), (room, _))) = session.player.zip(session.membership().place()) else {
        return Ok(true);
    };
    let cursor = session.state.attachment.read_own(&player.log_cursor);
    Ok(session.state.memory.rooms.at(room.index()).log.ends_at(cursor))
}

/// Delivers the player's mail, the events of its room and the lobby's chat, as far as there is space. Returns whether
/// anything moved.
///
/// # Errors
///
/// If a snapshot does not fit a transaction. That is a bug in the server.
pub fn deliver(session: &mut Session<'_>) -> Result<bool, Rejection> {
    let mut moved = mail_delivery::deliver_mail(session)?;
    loop {
        // Room and chat take turns to go first, in case there is no space for both.
        session.chat_goes_first = !session.chat_goes_first;
        let mut moved_now = session.chat_goes_first && chat::deliver_chat(session)?;
        moved_now |= deliver_room(session)?;
        moved_now |= !session.chat_goes_first && chat::deliver_chat(session)?;
        if !moved_now {
            return Ok(moved | text_delivery::redraw(session)?);
        }
        moved = true;
    }
}

/// Delivers the room's events, one batch at most. Returns whether anything moved, so that there may be more.
fn deliver_room(session: &mut Session<'_>) -> Result<bool, Rejection> {
    let mut moved = false;
    loop {
        let Some(player_tx) = session.player_tx() else {
            return Ok(moved);
        };
        let cursor = session.state.attachment.read_own(&player_tx.player.log_cursor);
        let Some((room, seat)) = session.membership().place() else {
            if cursor == CURSOR_LOST && session.space_for_events() >= FRAME_TOTAL_BYTES_MAX as u64 {
                send_lobby_resync(session)?;
                return Ok(true);
            }
            return Ok(moved);
        };
        let record = session.state.memory.rooms.at(room.index());
        let copied = match session.is_text() {
            true => text_delivery::deliver_as_text(session, room, cursor, seat),
            false => copy_events(session, record, cursor, seat),
        };
        match copied? {
            DeliveryStop::Idle => return Ok(moved),
            DeliveryStop::Batch => return Ok(true),
            DeliveryStop::Started => {
                if !send_snapshot(session, |snapshot| ServerMessage::Started { snapshot })? {
                    return Ok(moved);
                }
            }
            DeliveryStop::Removed => {
                if session.space_for_events() < FRAME_TOTAL_BYTES_MAX as u64 {
                    return Ok(moved);
                }
                join_leave::apply_kick(session)?;
            }
            DeliveryStop::Lost => {
                if !send_snapshot(session, |snapshot| ServerMessage::Resync {
                    snapshot: Some(snapshot),
                })? {
                    return Ok(moved);
                }
                // Otherwise the player had been kicked, too, and got no snapshot.
                if session.membership().place().is_some() {
                    session
                        .state
                        .memory
                        .header
                        .resyncs_total
                        .fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        moved = true;
    }
}

/// Whether the next frame must wait because the client does not read: its reply may not fit, or so many events are
/// undelivered that those of the frame could overwrite them in the log.
pub fn is_blocked_on_output(session: &Session<'_>) -> bool {
    let Some((_, player)) = session.player else {
        return true;
    };
    let undelivered = || {
        let (room, _) = session.membership().place()?;
        let cursor = session.state.attachment.read_own(&player.log_cursor);
        let record = session.state.memory.rooms.at(room.index());
        Some(record.log.unread_bytes(cursor))
    };
    let output_is_full = !session.all_sent() && lacks_space_for_reply(session);
    // All may have been sent, and wait for a confirm: then nothing more is delivered, either. If the confirm lies
    // behind more frames than the server looks at, they are handled: otherwise it would never be reached.
    let may_confirm = !session.waits_for_confirm() || session.has_input_space();
    output_is_full || (may_confirm && undelivered().is_some_and(|bytes| bytes > UNDELIVERED_BYTES_MAX))
}

/// Whether the reply to the next frame may not fit the output. It may be sent in full and wait for a confirm.
pub(crate) fn lacks_space_for_reply(session: &Session<'_>) -> bool {
    session.output_space() < FRAME_TOTAL_BYTES_MAX as u64
}

/// Whether the player's next move or chat line must wait, because readers of its room have fallen so far behind that it
/// could overwrite what they have not read. Writers wait for each reader a bounded time, so that one that stalls, or is
/// slower than the others all the time, does not slow its room for long.
pub(crate) fn must_wait_for_readers(session: &mut Session<'_>) -> bool {
    let waited = session.reader_wait.take();
    let Some((room, seat)) = session.membership().place() else {
        return false;
    };
    let header = session.state.memory.header;
    let times = || (now_ms(), header.reader_wait_ms.load(Ordering::Relaxed));
    let record = session.state.memory.rooms.at(room.index());
    if let Some(ReaderWait { since_ms, seats }) = waited {
        let (now_ms, wait_ms) = times();
        let given_up = record.add_reader_wait(seats, now_ms - since_ms, (now_ms, wait_ms));
        header
            .readers_given_up_total
            .fetch_add(given_up, Ordering::Relaxed);
    }
    let seats = record.readers_behind(seat, times);
    if seats == 0 {
        return false;
    }
    if waited.is_none() {
        header.reader_waits_total.fetch_add(1, Ordering::Relaxed);
    }
    session.reader_wait = Some(ReaderWait {
        since_ms: now_ms(),
        seats,
    });
    true
}

fn copy_events(
    session: &mut Session<'_>,
    record: &'static RoomRecord,
    cursor: u64,
    seat: Option<u8>,
) -> Result<DeliveryStop, Rejection> {
    if cursor == CURSOR_LOST {
        return Ok(DeliveryStop::Lost);
    }
    if record.log.ends_at(cursor) {
        return Ok(DeliveryStop::Idle);
    }
    let Some(player_tx) = session.player_tx() else {
        return Ok(DeliveryStop::Idle);
    };
    let mut space = session.space_for_events();
    let ignored = Ignored::by(session);
    let mut tx = session.state.attachment.begin(player_tx.player);
    let mut next_cursor = cursor;
    let mut output = player_tx.begin_output(&tx);
    let pause = buffers::with_frame(|frame| {
        for _ in 0..BATCH_MAX {
            if space < FRAME_TOTAL_BYTES_MAX as u64 {
                return DeliveryStop::Idle;
            }
            match read_entry(record, next_cursor, seat, frame) {
                Entry::Frame { next, length } if ignored.hides_frame(&frame[..length]) => next_cursor = next,
                Entry::Frame { length, next } => {
                    output.put(&mut tx, &frame[..length]);
                    space -= length as u64;
                    next_cursor = next;
                }
                Entry::ForOthers { next } => next_cursor = next,
                Entry::None(pause) => return pause,
            }
        }
        DeliveryStop::Batch
    });
    output.finish(&mut tx);
    tx.set(&player_tx.player.log_cursor, next_cursor);
    tx.commit()?;
    if let Some(seat) = seat {
        record.set_read_up_to(seat, next_cursor);
    }
    Ok(pause)
}

/// Sends the player a snapshot of the room, and moves its cursor to the event after it; or applies a kick. Returns
/// false if there is no space yet.
fn send_snapshot(
    session: &mut Session<'_>,
    message: impl FnOnce(forkade_protocol::Snapshot) -> ServerMessage,
) -> Result<bool, Rejection> {
    let (Some(player_tx), Some((room, seat))) = (session.player_tx(), session.membership().place()) else {
        return Ok(false);
    };
    if session.space_for_events() < FRAME_TOTAL_BYTES_MAX as u64 {
        return Ok(false);
    }
    let Some(player) = session.player() else {
        return Ok(false);
    };
    let games = session.state.games;
    let mut tx = session
        .state
        .attachment
        .begin(session.state.memory.rooms.at(room.index()));
    if !is_member(&tx, room, player, seat) {
        drop(tx);
        join_leave::apply_kick(session)?;
        return Ok(true);
    }
    let shown = ShownGame::mark(session.state.serving, tx.record(), room);
    let snapshot = snapshot(&tx, &shown, games, seat, &mut session.state.faults);
    let head = tx.record().log.head(&tx);
    if player_tx.is_text() {
        let to_move = seat_to_move(&tx, &shown, games, seat, &mut session.state.faults);
        let hint = render::turn_hint(to_move, seat);
        player_tx.note_drawing(&mut tx, &snapshot, to_move);
        player_tx.say(&mut tx, &(render::message(games, &message(snapshot)) + hint));
    } else {
        player_tx.reply(&mut tx, &message(snapshot));
    }
    tx.set(&player_tx.player.log_cursor, head);
    let record = tx.record();
    tx.commit()?;
    if let Some(seat) = seat {
        record.set_read_up_to(seat, head);
    }
    Ok(true)
}

/// Tells a player that lost bytes that it is in no room.
fn send_lobby_resync(session: &mut Session<'_>) -> Result<(), Rejection> {
    let Some(player_tx) = session.player_tx() else {
        return Ok(());
    };
    let mut tx = session.state.attachment.begin(player_tx.player);
    player_tx.reply(&mut tx, &ServerMessage::Resync { snapshot: None });
    tx.set(&player_tx.player.log_cursor, 0);
    tx.commit()?;
    session
        .state
        .memory
        .header
        .resyncs_total
        .fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// An entry of a room's log, as one member sees it.
pub(crate) enum Entry {
    /// An event, as a frame.
    Frame {
        /// Its length, in bytes.
        length: usize,
        /// The cursor behind it.
        next: u64,
    },
    /// An entry for other members.
    ForOthers {
        /// The cursor behind it.
        next: u64,
    },
    /// No frame to deliver.
    None(DeliveryStop),
}

/// Reads the entry at `cursor` for the member in `seat` (`None`: a spectator), and copies it into `frame`.
pub(crate) fn read_entry(record: &RoomRecord, cursor: u64, seat: Option<u8>, frame: &mut [u8]) -> Entry {
    let (audience, length, next) = match record.log.read(cursor, frame) {
        Read::Entry {
            audience,
            length,
            next,
        } => (audience, length, next),
        Read::End => return Entry::None(DeliveryStop::Idle),
        Read::Lost => return Entry::None(DeliveryStop::Lost),
    };
    let is_for_seat = |offset: u32| seat.is_some_and(|seat| audience == offset + u32::from(seat));
    match audience {
        MATCH_STARTED => Entry::None(DeliveryStop::Started),
        _ if is_for_seat(TO_ALL_BUT_KICKED) => Entry::None(DeliveryStop::Removed),
        _ if audience >= TO_ALL_BUT_KICKED || is_for_seat(0) => Entry::Frame { length, next },
        TO_SPECTATORS if seat.is_none() => Entry::Frame { length, next },
        TO_ALL_BUT.. if !is_for_seat(TO_ALL_BUT) => Entry::Frame { length, next },
        _ => Entry::ForOthers { next },
    }
}

/// The events that one transaction appends to the room's log.
pub(crate) struct Events<'l>(Appender<'l, { ROOM_LOG_BYTES / 8 }>);

impl Events<'_> {
    /// Starts to append to the log of the transaction's room.
    pub(crate) fn begin(tx: &mut RoomTx<'_>) -> Events<'static> {
        let all_read = all_read(tx);
        Events(tx.record().log.append(tx, all_read))
    }

    /// Appends an event for all members.
    pub(crate) fn push_to_all(&mut self, tx: &mut RoomTx<'_>, event: RoomEvent) -> Result<(), Rejection> {
        self.push(tx, TO_ALL, event)
    }

    /// Appends the event that the owner has kicked the player in this seat.
    pub(crate) fn push_kick(&mut self, tx: &mut RoomTx<'_>, seat: u8) -> Result<(), Rejection> {
        self.push(
            tx,
            TO_ALL_BUT_KICKED + u32::from(seat),
            RoomEvent::Kicked { seat },
        )
    }

    /// Appends an event that a game has emitted.
    pub(crate) fn push_game_event(
        &mut self,
        tx: &mut RoomTx<'_>,
        audience: Audience,
        data: &[u8],
    ) -> Result<(), Rejection> {
        let audience = match audience {
            Audience::All => TO_ALL,
            Audience::Seat(seat) => u32::from(seat),
            Audience::AllBut(seat) => TO_ALL_BUT + u32::from(seat),
            Audience::Spectators => TO_SPECTATORS,
        };
        self.push(tx, audience, RoomEvent::Game { data: data.to_vec() })
    }

    /// Appends the mark that the match starts.
    pub(crate) fn start_match(&mut self, tx: &mut RoomTx<'_>) -> Result<(), Rejection> {
        Ok(self.0.push(tx, MATCH_STARTED, &[])?)
    }

    /// Makes the events part of the transaction.
    pub(crate) fn finish(self, tx: &mut RoomTx<'_>) {
        self.0.finish(tx);
    }

    fn push(&mut self, tx: &mut RoomTx<'_>, audience: u32, event: RoomEvent) -> Result<(), Rejection> {
        let message = ServerMessage::Event {
            number: self.0.next_number(),
            event,
        };
        buffers::with_frame(|buffer| {
            let length = frame::write_frame_into(&message, buffer).map_err(|error| {
                Rejection::new(
                    RejectCode::StateTooLarge,
                    format!("an event that fits no frame: {error}"),
                )
            })?;
            Ok(self.0.push(tx, audience, &buffer[..length])?)
        })
    }
}
