//! From a room's log to the output of each of its players: who writes never waits for who reads. What was said to the lobby and
//! what lies in the player's mailbox comes in between, so that none of the three starves the others.
//!
//! A log's entries are whole frames, ready to be sent; delivering is copying. The reader's place in the log is part of the
//! player's record, and moves in the same transaction in which the frames become output.

use std::sync::atomic::Ordering;

use forkade_games::Audience;
use forkade_protocol::{RejectCode, RoomEvent, ServerMessage, frame};
use forkade_text::render;
use shmem::event_log::{Appender, Read};

use crate::limits::{FRAME_TOTAL_BYTES_MAX, ROOM_LOG_BYTES};
use crate::lobby::room_view::snapshot;
use crate::lobby::text_delivery::{self, turn_hint};
use crate::lobby::{chat, join_leave, mail_delivery};
use crate::session::rejection::Rejection;
use crate::session::{CURSOR_LOST, Session};
use crate::state::buffers;
use crate::state::rooms::{RoomRecord, RoomTx, all_read, is_member};

/// For everybody in the room.
pub(crate) const TO_ALL: u32 = u32::MAX;
/// Not an event to pass on: each player is to be published the beginning match as seen from the own seat.
pub(crate) const MATCH_STARTED: u32 = u32::MAX - 1;

/// And the number of a seat: its player has lost it, and is told in another way; for all others, an event like any other.
pub(crate) const TO_ALL_BUT_KICKED: u32 = 1 << 16;

/// Entries that one transaction delivers at most.
pub(crate) const BATCH_MAX: usize = 64;

/// A player's frames wait while more than this of the room's log waits for space in the player's own output.
const UNDELIVERED_BYTES_MAX: u64 = ROOM_LOG_BYTES as u64 / 4;

/// Why delivery paused.
pub(crate) enum DeliveryStop {
    /// Nothing more to deliver, or no space for more.
    Idle,
    /// The batch is full.
    Batch,
    /// The match has started: the player gets a picture of it.
    Started,
    /// The seat was taken from the player.
    Removed,
    /// The log has moved on without this player.
    Lost,
}

/// Delivers what has happened in the player's room until now. Says whether that was all of it: false if space is short.
///
/// # Errors
///
/// Those of [`deliver`].
pub fn catch_up(session: &mut Session<'_>) -> Result<bool, Rejection> {
    let frame_end = session.frame_end.take();
    // The frame that is being handled is not consumed by what comes before it.
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

/// Moves what has happened in the player's room, what was said to the lobby, and what was said to this player, into the player's
/// output, as far as there is space. Says whether anything moved.
///
/// # Errors
///
/// A snapshot that fits no transaction, which is a mistake of this program's.
pub fn deliver(session: &mut Session<'_>) -> Result<bool, Rejection> {
    let mut moved = mail_delivery::deliver_mail(session)?;
    loop {
        // Whose turn it is to be first where space is short.
        session.chat_goes_first = !session.chat_goes_first;
        let mut moved_now = session.chat_goes_first && chat::deliver_chat(session)?;
        moved_now |= deliver_room(session)?;
        moved_now |= !session.chat_goes_first && chat::deliver_chat(session)?;
        if !moved_now {
            return Ok(moved);
        }
        moved = true;
    }
}

/// Moves the room's events, a batch at most. Says whether there may be more to move.
fn deliver_room(session: &mut Session<'_>) -> Result<bool, Rejection> {
    let mut moved = false;
    loop {
        let Some(player_tx) = session.player_tx() else {
            return Ok(moved);
        };
        let cursor = session.state.attachment.read_own(&player_tx.player.log_cursor);
        let Some((room, seat)) = session.membership().place() else {
            if cursor == CURSOR_LOST && session.output_space() >= FRAME_TOTAL_BYTES_MAX as u64 {
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
                if session.output_space() < FRAME_TOTAL_BYTES_MAX as u64 {
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
                // Else the seat was lost, too.
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

/// Whether the next frame must wait: because there may be no space for its reply, or because so many events wait for space that
/// those it leads to could push them out of the log. Who does not read is not read from.
pub fn is_blocked_on_output(session: &Session<'_>) -> bool {
    let Some((_, player)) = session.player else {
        return true;
    };
    let undelivered = || {
        let (room, _) = session.membership().place()?;
        let cursor = session.state.attachment.read_own(&player.log_cursor);
        Some(
            session
                .state
                .memory
                .rooms
                .at(room.index())
                .log
                .unread_bytes(cursor),
        )
    };
    session.output_space() < FRAME_TOTAL_BYTES_MAX as u64
        || undelivered().is_some_and(|bytes| bytes > UNDELIVERED_BYTES_MAX)
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
    let mut space = session.output_space();
    let mut tx = session.state.attachment.begin(player_tx.player);
    let mut next_cursor = cursor;
    let mut output = player_tx.begin_output(&tx);
    let pause = buffers::with_frame(|frame| {
        for _ in 0..BATCH_MAX {
            if space < FRAME_TOTAL_BYTES_MAX as u64 {
                return DeliveryStop::Idle;
            }
            match read_entry(record, next_cursor, seat, frame) {
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

/// Gives the player a snapshot of the room; the next event delivered is the one after it. (Or says that the seat is lost.) False: no
/// space yet.
fn send_snapshot(
    session: &mut Session<'_>,
    message: impl FnOnce(forkade_protocol::Snapshot) -> ServerMessage,
) -> Result<bool, Rejection> {
    let (Some(player_tx), Some((room, seat))) = (session.player_tx(), session.membership().place()) else {
        return Ok(false);
    };
    if session.output_space() < FRAME_TOTAL_BYTES_MAX as u64 {
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
    let snapshot = snapshot(&tx, room, games, seat, &mut session.state.faults);
    let head = tx.record().log.head(&tx);
    let message = message(snapshot);
    if player_tx.is_text() {
        let hint = turn_hint(&tx, games, seat, &mut session.state.faults);
        player_tx.say(&mut tx, &(render::message(games, &message) + hint));
    } else {
        player_tx.reply(&mut tx, &message);
    }
    tx.set(&player_tx.player.log_cursor, head);
    let record = tx.record();
    tx.commit()?;
    if let Some(seat) = seat {
        record.set_read_up_to(seat, head);
    }
    Ok(true)
}

/// Tells a player who lost bytes that there is no room to be in.
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

/// What lies at some place of a room's log, for the player in a seat or who watches.
pub(crate) enum Entry {
    /// An event, as a frame.
    Frame {
        /// Its length, in bytes.
        length: usize,
        /// The place behind it.
        next: u64,
    },
    /// Something that is not for this player.
    ForOthers {
        /// The place behind it.
        next: u64,
    },
    /// Nothing that could be passed on.
    None(DeliveryStop),
}

/// Copies the entry at `cursor` into `frame`.
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
        _ => Entry::ForOthers { next },
    }
}

/// The events of one transaction, on their way into the room's log.
pub(crate) struct Events<'l>(Appender<'l, { ROOM_LOG_BYTES / 8 }>);

impl Events<'_> {
    /// Begins to write to the log of the transaction's room.
    pub(crate) fn begin(tx: &mut RoomTx<'_>) -> Events<'static> {
        let all_read = all_read(tx);
        Events(tx.record().log.append(tx, all_read))
    }

    /// An event for everybody.
    pub(crate) fn push_to_all(&mut self, tx: &mut RoomTx<'_>, event: RoomEvent) -> Result<(), Rejection> {
        self.tell(tx, TO_ALL, event)
    }

    /// The owner has taken this seat from its player.
    pub(crate) fn push_kick(&mut self, tx: &mut RoomTx<'_>, seat: u8) -> Result<(), Rejection> {
        self.tell(
            tx,
            TO_ALL_BUT_KICKED + u32::from(seat),
            RoomEvent::Kicked { seat },
        )
    }

    /// An event that a game gave out.
    pub(crate) fn push_game_event(
        &mut self,
        tx: &mut RoomTx<'_>,
        audience: Audience,
        data: &[u8],
    ) -> Result<(), Rejection> {
        let audience = match audience {
            Audience::All => TO_ALL,
            Audience::Seat(seat) => u32::from(seat),
        };
        self.tell(tx, audience, RoomEvent::Game { data: data.to_vec() })
    }

    /// The match begins.
    pub(crate) fn start_match(&mut self, tx: &mut RoomTx<'_>) -> Result<(), Rejection> {
        Ok(self.0.push(tx, MATCH_STARTED, &[])?)
    }

    /// Makes the events part of the transaction.
    pub(crate) fn finish(self, tx: &mut RoomTx<'_>) {
        self.0.finish(tx);
    }

    fn tell(&mut self, tx: &mut RoomTx<'_>, audience: u32, event: RoomEvent) -> Result<(), Rejection> {
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
