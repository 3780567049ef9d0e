//! Chat: to the room, to the lobby, to one player. The rate limit is in [`rate`](crate::session::rate).
//!
//! A line to the room is an event in the room's log, under the room's lock; a line to one player goes to its mailbox,
//! under the lobby's lock. Lines to the lobby are appended to one log with a lock of its own. Every player reads that
//! log, in the same order: the player's record has a cursor, and the player's handler copies lines without the log's
//! lock, in transactions of its own. An entry's audience is the number of its line, so a gap in the numbers tells a
//! reader how many lines it has missed.
//!
//! Line, charge and consumed frame are one transaction: after a crash a line was said once, or not at all and is
//! handled again.

use std::sync::atomic::Ordering;

use forkade_protocol::text::{self, TextError};
use forkade_protocol::{ChatScope, RejectCode, RoomEvent, ServerMessage, frame};
use shmem::event_log::Read;
use shmem::transaction::Tx;

use crate::limits::FRAME_TOTAL_BYTES_MAX;
use crate::lobby::delivery::Events;
use crate::lobby::fanout::{self, Cause, Payer};
use crate::lobby::ignoring::Ignored;
use crate::lobby::{join_leave, sanctions};
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::buffers;
use crate::state::chat::ChatRecord;
use crate::state::handle::StateHandle;
use crate::state::mailbox::PostError;

/// Lines that one transaction delivers at most.
const BATCH_MAX: usize = 64;

/// Charges the current frame as a line, and checks that its player may chat. A line of a muted player is charged, too:
/// the lobby's lock was taken for it.
///
/// # Errors
///
/// If the player is above the rate limit, or muted.
pub(crate) fn admit_line(session: &mut Session<'_>) -> Result<(), Rejection> {
    session.charge_line()?;
    sanctions::ensure_not_muted(session)
}

/// Sends a line to the room. The text was cleaned.
///
/// # Errors
///
/// If the player is in no room, above the rate limit, or muted.
pub fn chat_in_room(session: &mut Session<'_>, text: &str) -> Result<(), Rejection> {
    join_leave::current_room(session)?;
    admit_line(session)?;
    let chat = RoomEvent::Chat {
        from: session.name().as_str().to_owned(),
        text: text.to_owned(),
    };
    join_leave::change_room(session, |tx, context| {
        let cause = (Cause::member(context.seat), 1);
        fanout::charge_room(tx, context.payer, cause, RejectCode::ChatTooFast)?;
        let mut events = Events::begin(tx);
        events.push_to_all(tx, chat)?;
        events.finish(tx);
        Ok(())
    })
}

/// Sends a line to all players of the server. The text was cleaned.
///
/// # Errors
///
/// If the player is above the rate limit, or muted.
pub fn chat_in_lobby(session: &mut Session<'_>, text: &str) -> Result<(), Rejection> {
    admit_line(session)?;
    fanout::charge_lobby(Payer::of(session))?;
    let Some(player_tx) = session.player_tx() else {
        return Ok(());
    };
    let from = session.name().as_str().to_owned();
    let mut tx = session.state.attachment.begin(session.state.memory.chat);
    append_line(&mut tx, from, text)?;
    player_tx.consume(&mut tx);
    tx.commit()?;
    session.chat_doorbell = true;
    count_line(session.state);
    Ok(())
}

/// Sends a line to one player, which may be the sender. The text was cleaned.
///
/// # Errors
///
/// If no player has that name, its mailbox is full, or the sender is above the rate limit or muted.
pub fn whisper(session: &mut Session<'_>, to: &str, text: &str) -> Result<(), Rejection> {
    let unknown = || {
        Rejection::new(
            RejectCode::UnknownPlayer,
            format!("nobody here is called \"{}\"", to.escape_debug()),
        )
    };
    // Stored names were cleaned in the same way.
    let to_name = text::clean_player_name(to).map_err(|_| unknown())?;
    admit_line(session)?;
    let Some(player_tx) = session.player_tx() else {
        return Ok(());
    };
    let from = session.name().as_str().to_owned();
    let memory = session.state.memory;
    let mut tx = session.state.attachment.begin(memory.directory.record);
    let to = memory.directory.find_name(&tx, &to_name).ok_or_else(unknown)?;
    let to_name = tx.get(&memory.directory.identities.at(to.index()).name);
    let message = ServerMessage::Chat {
        scope: ChatScope::Whisper {
            to: to_name.as_str().to_owned(),
        },
        from,
        text: text.to_owned(),
    };
    let keeper = memory.post(&mut tx, to, &message).map_err(|error| match error {
        PostError::Gone => unknown(),
        PostError::Full => error.into(),
    })?;
    // In text mode only: a client program knows what it has sent.
    player_tx.say(&mut tx, &format!("You tell {}: {text}\n", to_name.as_str()));
    player_tx.consume(&mut tx);
    tx.commit()?;
    session.keeper_doorbells.extend(keeper);
    memory.header.whispers_total.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Copies lines of the lobby's chat to the player's output, as far as there is space, one batch at most. Returns
/// whether any was copied.
pub(crate) fn deliver_chat(session: &mut Session<'_>) -> Result<bool, Rejection> {
    let Some(player_tx) = session.player_tx() else {
        return Ok(false);
    };
    let (log, header) = (&session.state.memory.chat.log, session.state.memory.header);
    let mut cursor = session.state.attachment.read_own(&player_tx.player.chat_cursor);
    let space = session.space_for_events();
    if log.ends_at(cursor) || space < FRAME_TOTAL_BYTES_MAX as u64 {
        return Ok(false);
    }
    let ignored = Ignored::by(session);
    let mut tx = session.state.attachment.begin(player_tx.player);
    let mut line = tx.get(&player_tx.player.chat_line);
    let mut output = player_tx.begin_output(&tx);
    let space_end = output.head() + space;
    let (before, mut missed_total) = (line, 0);
    buffers::with_frame(|buffer| {
        for _ in 0..BATCH_MAX {
            // Space for the line and for the notice of missed lines. In text mode both take more than their frames.
            if space_end - output.head() < FRAME_TOTAL_BYTES_MAX as u64 {
                return;
            }
            match log.read(cursor, buffer) {
                Read::End => return,
                Read::Lost => cursor = log.tail(),
                Read::Entry {
                    audience,
                    length,
                    next,
                } => {
                    // An entry holds only the low half of its number.
                    let missed = u64::from(audience.wrapping_sub(low_half(line + 1)));
                    if missed > 0 {
                        output.put_short(&mut tx, &ServerMessage::ChatMissed { lines: missed });
                        missed_total += missed;
                    }
                    if !ignored.hides_frame(&buffer[..length]) {
                        output.put(&mut tx, &buffer[..length]);
                    }
                    line += missed + 1;
                    cursor = next;
                }
            }
        }
    });
    output.finish(&mut tx);
    tx.set(&player_tx.player.chat_cursor, cursor);
    tx.set(&player_tx.player.chat_line, line);
    tx.commit()?;
    header
        .lobby_lines_missed_total
        .fetch_add(missed_total, Ordering::Relaxed);
    Ok(line != before)
}

/// Sends a line to all players in the server's name, which is empty. The caller rings the chat's doorbell afterwards.
///
/// # Errors
///
/// If no character of the text is visible, or it is too long.
pub fn announce(state: &mut StateHandle, said: &str) -> Result<(), Rejection> {
    let said = clean_line(said)?;
    let mut tx = state.attachment.begin(state.memory.chat);
    append_line(&mut tx, String::new(), &said)?;
    tx.commit()?;
    count_line(state);
    Ok(())
}

fn count_line(state: &StateHandle) {
    state
        .memory
        .header
        .lobby_lines_total
        .fetch_add(1, Ordering::Relaxed);
}

/// Cleans a line of chat.
///
/// # Errors
///
/// If no character of it is visible, or it is too long.
pub fn clean_line(said: &str) -> Result<String, Rejection> {
    text::clean_chat(said).map_err(|error| {
        let code = match error {
            TextError::TooManyCharacters { .. } | TextError::TooManyBytes { .. } => RejectCode::ChatTooLong,
            _ => RejectCode::TextInvalid,
        };
        Rejection::new(code, error.to_string())
    })
}

fn append_line(tx: &mut Tx<'_, ChatRecord>, from: String, text: &str) -> Result<(), Rejection> {
    let message = ServerMessage::Chat {
        scope: ChatScope::Lobby,
        from,
        text: text.to_owned(),
    };
    // `false`: not all have read the log. Detached and slow players still need the old lines.
    let mut lines = tx.record().log.append(tx, false);
    buffers::with_frame(|buffer| {
        let length = frame::write_frame_into(&message, buffer).expect("every line fits a frame");
        let number = low_half(lines.next_number());
        lines.push(tx, number, &buffer[..length])
    })?;
    lines.finish(tx);
    Ok(())
}

/// Returns the part of a line's number that an entry holds. It suffices, because no reader misses 2^32 lines.
fn low_half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("masked to 32 bits")
}
