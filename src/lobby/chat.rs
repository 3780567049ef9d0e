//! What players say: to their room, to the lobby, to one another. ([`rate`](crate::session::rate) says how fast they may.)
//!
//! What is said to the lobby lies in one log with a lock of its own, as a room's events do in theirs. Everybody on the server hears
//! it, in the same order: each reader has a place in the log, in the player's record, and copies lines from there without a lock, in
//! transactions of its own. An entry's audience is the number of its line, so a reader who finds another number than the next one
//! knows how many lines it has missed.

use std::sync::atomic::Ordering;

use forkade_protocol::text::{self, TextError};
use forkade_protocol::{ChatScope, RejectCode, RoomEvent, ServerMessage, frame};
use shmem::event_log::Read;
use shmem::transaction::Tx;

use crate::limits::FRAME_TOTAL_BYTES_MAX;
use crate::lobby::delivery::Events;
use crate::lobby::join_leave;
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::buffers;
use crate::state::chat::ChatRecord;
use crate::state::handle::StateHandle;
use crate::state::mailbox::PostError;

/// Lines that one transaction delivers at most.
const BATCH_MAX: usize = 64;

/// Says something to everybody in the room. The text is validated.
///
/// # Errors
///
/// If the player is in no room, or has said too much lately.
pub fn chat_in_room(session: &mut Session<'_>, text: &str) -> Result<(), Rejection> {
    join_leave::current_room(session)?;
    let paid = session.charge_line()?;
    let chat = RoomEvent::Chat {
        from: session.name().as_str().to_owned(),
        text: text.to_owned(),
    };
    join_leave::change_room(session, |tx, context| {
        let mut events = Events::begin(tx);
        events.push_to_all(tx, chat)?;
        events.finish(tx);
        paid.enter(tx, &context.player_tx.player.chat_paid_until_us);
        Ok(())
    })
}

/// Says something to everybody on the server. The text is validated.
///
/// # Errors
///
/// If the player has said too much lately.
pub fn chat_in_lobby(session: &mut Session<'_>, text: &str) -> Result<(), Rejection> {
    let Some(player_tx) = session.player_tx() else {
        return Ok(());
    };
    let paid = session.charge_line()?;
    let from = session.name().as_str().to_owned();
    let mut tx = session.state.attachment.begin(session.state.memory.chat);
    append_line(&mut tx, from, text)?;
    paid.enter(&mut tx, &player_tx.player.chat_paid_until_us);
    player_tx.consume(&mut tx);
    tx.commit()?;
    session.chat_doorbell = true;
    count_line(session.state);
    Ok(())
}

/// Says something to one player, who may be oneself. The text is validated.
///
/// # Errors
///
/// Nobody has that name, the addressee's mailbox is full, or the player has said too much lately.
pub fn whisper(session: &mut Session<'_>, to: &str, text: &str) -> Result<(), Rejection> {
    let Some(player_tx) = session.player_tx() else {
        return Ok(());
    };
    let unknown = || {
        Rejection::new(
            RejectCode::UnknownPlayer,
            format!("nobody here is called \"{}\"", to.escape_debug()),
        )
    };
    // As the names of those who are here were cleaned.
    let to_name = text::clean_player_name(to).map_err(|_| unknown())?;
    let paid = session.charge_line()?;
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
    paid.enter(&mut tx, &player_tx.player.chat_paid_until_us);
    // Programs know what they have asked for.
    player_tx.say(&mut tx, &format!("You tell {}: {text}\n", to_name.as_str()));
    player_tx.consume(&mut tx);
    tx.commit()?;
    session.keeper_doorbells.extend(keeper);
    memory.header.whispers_total.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Moves what was said to the lobby into the player's output, as far as there is space, but no more than a batch. Says whether
/// anything moved.
pub(crate) fn deliver_chat(session: &mut Session<'_>) -> Result<bool, Rejection> {
    let Some(player_tx) = session.player_tx() else {
        return Ok(false);
    };
    let (log, header) = (&session.state.memory.chat.log, session.state.memory.header);
    let mut cursor = session.state.attachment.read_own(&player_tx.player.chat_cursor);
    let space = session.output_space();
    if log.ends_at(cursor) || space < FRAME_TOTAL_BYTES_MAX as u64 {
        return Ok(false);
    }
    let mut tx = session.state.attachment.begin(player_tx.player);
    let mut line = tx.get(&player_tx.player.chat_line);
    let mut output = player_tx.begin_output(&tx);
    let space_end = output.head() + space;
    let (before, mut missed_total) = (line, 0);
    buffers::with_frame(|buffer| {
        for _ in 0..BATCH_MAX {
            // For the line, and for the word that others were missed. (In text mode both take more space than their frames.)
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
                    // Numbers are compared as far as the entry tells them.
                    let missed = u64::from(audience.wrapping_sub(low_half(line + 1)));
                    if missed > 0 {
                        output.put_short(&mut tx, &ServerMessage::ChatMissed { lines: missed });
                        missed_total += missed;
                    }
                    output.put(&mut tx, &buffer[..length]);
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

/// Says something to everybody on the server, in the server's own name: nobody's. The chat's doorbell is to be rung then.
///
/// # Errors
///
/// If nothing can be seen of the text, or it is too long.
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

/// Cleans what somebody says.
///
/// # Errors
///
/// If nothing can be seen of it, or it is too long.
pub fn clean_line(said: &str) -> Result<String, Rejection> {
    text::clean_chat(said).map_err(|error| {
        let code = match error {
            TextError::TooManyCharacters { .. } | TextError::TooManyBytes { .. } => RejectCode::ChatTooLong,
            TextError::Empty | TextError::ForbiddenCharacter(_) | TextError::Reserved(_) => {
                RejectCode::TextInvalid
            }
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
    // Those who are away, or slow, may still want what others have read.
    let mut lines = tx.record().log.append(tx, false);
    buffers::with_frame(|buffer| {
        let length = frame::write_frame_into(&message, buffer).expect("every line fits a frame");
        let number = low_half(lines.next_number());
        lines.push(tx, number, &buffer[..length])
    })?;
    lines.finish(tx);
    Ok(())
}

/// A line's number, as far as an entry of the log tells it. Nobody misses four thousand million lines.
fn low_half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("masked to 32 bits")
}
