//! Requests that only text mode has: another name, the names of the players, the lobby, a room by its number.
//!
//! A new name is one transaction under the lobby's lock, with the reply and the consumed line. The others only read,
//! under the lobby's lock or the room's.

use std::sync::atomic::{AtomicU64, Ordering};

use forkade_protocol::{RejectCode, RoomId, Snapshot};

use crate::limits::{IDENTITIES_PER_TRANSACTION, TEXT_NAMES_SHOWN_MAX};
use crate::lobby::join_leave;
use crate::lobby::room_view::{snapshot, view_for};
use crate::session::Session;
use crate::session::handshake::{Refusal, ensure_not_banned};
use crate::session::rejection::Rejection;
use crate::state::directory::{Name, Presence};
use crate::state::fault::{Fault, GameCall};
use crate::state::handle::StateHandle;
use crate::state::layout::RoomRef;
use crate::state::players::LastDrawing;
use crate::state::room_label::RoomLabel;
use crate::state::rooms::game_of;
use forkade_text::render;

/// Gives the player another name.
///
/// # Errors
///
/// If the player is in a room, where the others know it by the old name, or the name is taken or banned.
pub fn rename(session: &mut Session<'_>, name: Name) -> Result<(), Rejection> {
    let Some((player, player_tx)) = session.player().zip(session.player_tx()) else {
        return Ok(());
    };
    join_leave::ensure_in_lobby(session)?;
    let memory = session.state.memory;
    let directory = memory.directory;
    let mut tx = session.state.attachment.begin(directory.record);
    if let Err(Refusal::Banned { left_ms }) = ensure_not_banned(&tx, memory, name) {
        return Err(Rejection::new(RejectCode::Banned, render::banned(left_ms)));
    }
    if directory
        .holders(&tx, name.as_str())
        .any(|holder| holder != player)
    {
        let text = "somebody here has this name; choose another";
        return Err(Rejection::new(RejectCode::TextInvalid, text));
    }
    directory.rename_player(&mut tx, player, name);
    tx.set(&player_tx.player.name, name);
    player_tx.say(&mut tx, &format!("You are called {} now.\n", name.as_str()));
    player_tx.consume(&mut tx);
    Ok(tx.commit()?)
}

/// Notes whether the player's terminal understands ANSI's control sequences.
///
/// # Errors
///
/// If the transaction does not fit. That is a bug in the server.
pub fn set_ansi(session: &mut Session<'_>, has_ansi: bool) -> Result<(), Rejection> {
    let Some(player_tx) = session.player_tx() else {
        return Ok(());
    };
    let player = player_tx.player;
    let mut tx = session.state.attachment.begin(player);
    tx.set(&player.has_ansi, u32::from(has_ansi));
    tx.set(&player.last_drawing, LastDrawing::default());
    let text = match has_ansi {
        true => {
            let mut output = player_tx.begin_output(&tx);
            output.put_bytes(&mut tx, render::FREE_TOP_ROWS.as_bytes());
            output.finish(&mut tx);
            "A real-time match is drawn at the top of the screen now.\n"
        }
        false => "A real-time match is drawn as lines now.\n",
    };
    player_tx.say(&mut tx, text);
    player_tx.consume(&mut tx);
    Ok(tx.commit()?)
}

/// Replies with the player's name and the numbers of players and rooms.
///
/// # Errors
///
/// If the transaction does not fit. That is a bug in the server.
pub fn describe_lobby(session: &mut Session<'_>) -> Result<(), Rejection> {
    let head = session.state.memory.directory.record;
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (players, rooms) = (count(&head.players_published), count(&head.rooms_published));
    let name = session.name();
    session.say(&format!(
        "You are {}, in the lobby. Players here: {players}. Rooms: {rooms}.\n",
        name.as_str()
    ))
}

/// Replies with the names of the connected players.
///
/// # Errors
///
/// If the transaction does not fit. That is a bug in the server.
pub fn list_players(session: &mut Session<'_>) -> Result<(), Rejection> {
    let (names, more) = online_names(session.state);
    let more = if more { " and more" } else { "" };
    session.say(&format!("Here are {}{more}.\n", names.join(", ")))
}

/// Returns the room for a number that was typed: the room that is open in that slot (counted from 1), else the one with
/// that id.
pub fn room_by_number(session: &Session<'_>, number: u64) -> RoomId {
    let index = number.checked_sub(1).and_then(|index| u32::try_from(index).ok());
    let record = index.and_then(|index| Some((index, session.state.memory.rooms.get(index)?)));
    let open = record.and_then(|(index, record)| Some(RoomRef::new(index, record.open_generation()?)));
    RoomId(open.map_or(number, RoomRef::to_id))
}

/// Returns the cursor for a list that starts with the room of that number.
pub fn list_cursor_before(number: u64) -> RoomId {
    match u32::try_from(number) {
        Ok(number) => RoomId(u64::from(number.saturating_sub(1))),
        Err(_) => RoomId(number),
    }
}

/// Parses an action in the notation of the room's game.
///
/// # Errors
///
/// If the player is in no room, or the text is no action.
pub fn parse_action(session: &mut Session<'_>, text: &str) -> Result<Vec<u8>, Rejection> {
    let name = session.name();
    let (game, view, label, seat) = join_leave::with_room(session, |tx, context| {
        let shown = context.mark_shown(&tx);
        let games = context.calls.games;
        let view = view_for(&tx, &shown, games, context.seat).unwrap_or_else(|error| {
            let call = GameCall::of("view", context.seat);
            context.calls.keep_fault(&tx, call, error);
            Vec::new()
        });
        let label = RoomLabel::of(&tx, games, context.calls.room);
        Ok((game_of(&tx, games), view, label, context.seat))
    })?;
    game.parse_action(text, &view).map_err(|error| {
        Rejection::of_call(error, |error| {
            Fault::for_player(label, seat.map(|seat| (seat, name)), "parse_action", error)
        })
    })
}

/// Returns a snapshot of the player's room.
///
/// # Errors
///
/// If the player is in no room.
pub fn current_snapshot(session: &mut Session<'_>) -> Result<Snapshot, Rejection> {
    join_leave::with_room(session, |tx, context| {
        let shown = context.mark_shown(&tx);
        Ok(snapshot(
            &tx,
            &shown,
            context.calls.games,
            context.seat,
            context.calls.faults,
        ))
    })
}

/// Returns the names of the connected players, up to a limit, and whether there are more.
fn online_names(state: &mut StateHandle) -> (Vec<String>, bool) {
    let directory = state.memory.directory;
    let mut names = Vec::new();
    let mut first = 0;
    loop {
        let tx = state.attachment.begin(directory.record);
        let touched = tx.get(&directory.record.identities_touched);
        let end = touched.min(first + IDENTITIES_PER_TRANSACTION);
        for identity in (first..end).map(|index| directory.identities.at(index)) {
            let presence = Presence::from_raw(tx.get(&identity.presence));
            if presence != Presence::ATTACHED {
                continue;
            }
            if names.len() == TEXT_NAMES_SHOWN_MAX {
                return (names, true);
            }
            names.push(tx.get(&identity.name).as_str().to_owned());
        }
        if end == touched {
            return (names, false);
        }
        first = end;
    }
}
