//! Delivers the room's events to a player in text mode: events as sentences, and the match as the game draws it.
//!
//! As in [`delivery`](crate::lobby::delivery), but one transaction under the room's lock: it reads the names of the
//! seats, and a drawing belongs to the last event before it.

use forkade_games::Games;
use forkade_protocol::{Phase as MatchPhase, RoomEvent, ServerMessage, codec};
use forkade_text::render::{self, RenderContext};

use crate::limits::{FRAME_HEADER_BYTES, FRAME_TOTAL_BYTES_MAX, TEXT_REDRAW_INTERVAL_MS};
use crate::lobby::delivery::{BATCH_MAX, DeliveryStop, Entry, read_entry};
use crate::lobby::ignoring::Ignored;
use crate::lobby::room_view::{seat_to_move, view_for};
use crate::session::rejection::Rejection;
use crate::session::{CURSOR_LOST, PlayerTx, Session};
use crate::state::buffers;
use crate::state::fault::{Fault, GameCall};
use crate::state::layout::RoomRef;
use crate::state::players::LastDrawing;
use crate::state::rooms::{RoomTx, Seat, game_of, is_member, phase_of};
use crate::state::shown_game::ShownGame;
use shmem::sys::clock::now_ms;

/// Delivers a batch of events as sentences, with a drawing if the game has changed.
pub(crate) fn deliver_as_text(
    session: &mut Session<'_>,
    room: RoomRef,
    cursor: u64,
    seat: Option<u8>,
) -> Result<DeliveryStop, Rejection> {
    let record = session.state.memory.rooms.at(room.index());
    if cursor == CURSOR_LOST {
        return Ok(DeliveryStop::Lost);
    }
    if record.log.ends_at(cursor) {
        return Ok(DeliveryStop::Idle);
    }
    let Some((player, player_tx)) = session.player().zip(session.player_tx()) else {
        return Ok(DeliveryStop::Idle);
    };
    let space_end =
        session.space_for_events() + session.state.attachment.read_own(&player_tx.player.output_head);
    let ignored = Ignored::by(session);
    let (games, faults) = (session.state.games, &mut session.state.faults);
    let mut tx = session.state.attachment.begin(record);
    let mut next_cursor = cursor;
    let mut output = player_tx.begin_output(&tx);
    let seats = seats_with_names(&tx);
    let named = |seat: u8, is_taken: bool| {
        let cell = seats.get(usize::from(seat))?;
        (cell.player.is_some() == is_taken).then(|| cell.name.as_str().to_owned())
    };
    let game = game_of(&tx, games);
    let shown = ShownGame::mark(session.state.serving, record, room);
    let context = RenderContext {
        game: (!shown.is_switched_off()).then_some(game),
        seat,
        names: &|seat| named(seat, true),
        left: &|seat| named(seat, false),
    };
    // A player that was kicked must not see the view of the seat's new player.
    let is_there = is_member(&tx, room, player, seat);
    let is_real_time = game.ticks_per_second() > 0;
    let mut has_changed = false;
    let mut entries = 0;
    let pause = loop {
        // Space for the text of one event, the drawing and the prompt.
        if space_end - output.head() < 2 * FRAME_TOTAL_BYTES_MAX as u64 {
            break DeliveryStop::Idle;
        }
        if entries == BATCH_MAX {
            break DeliveryStop::Batch;
        }
        entries += 1;
        let read = buffers::with_frame(|frame| match read_entry(record, next_cursor, seat, frame) {
            Entry::Frame { length, next } => Ok((Some(decode_event(&frame[..length])), next)),
            Entry::ForOthers { next } => Ok((None, next)),
            Entry::None(pause) => Err(pause),
        });
        let event = match read {
            Err(pause) => break pause,
            Ok((event, next)) => {
                next_cursor = next;
                event
            }
        };
        let Some(event) = event.filter(|event| !ignored.hides(event)) else {
            continue;
        };
        let is_end = matches!(event, RoomEvent::Finished { .. });
        if is_end && (std::mem::take(&mut has_changed) || is_there && is_real_time) {
            let drawing = draw_match(&tx, &shown, games, seat, faults);
            output.say(&mut tx, &drawing);
        }
        // A real-time game may change in each tick: `redraw` draws it.
        has_changed |= is_there && matches!(event, RoomEvent::Game { .. }) && !is_real_time;
        let sentence = context.event(&event).unwrap_or_else(|error| {
            let call = GameCall::of("describe", seat);
            faults.push(Fault::in_room(&tx, games, room, call, error));
            String::new()
        });
        output.say(&mut tx, &sentence);
    };
    if has_changed {
        let drawing = draw_match(&tx, &shown, games, seat, faults);
        output.say(&mut tx, &drawing);
    }
    output.finish(&mut tx);
    tx.set(&player_tx.player.log_cursor, next_cursor);
    tx.commit()?;
    if let Some(seat) = seat {
        record.set_read_up_to(seat, next_cursor);
    }
    Ok(pause)
}

/// When the player's real-time match is to be looked at again, in milliseconds of the monotonic clock. While the player
/// has not taken what it was sent before, it is not: drawings are left out then.
pub(crate) fn redraw_due_ms(session: &Session<'_>) -> Option<u64> {
    let (_, player) = session.player.filter(|_| session.is_text())?;
    let (room, _) = session.membership().place()?;
    let numbers = session.state.memory.rooms.at(room.index()).published_numbers()?;
    let game = session.state.games.get(numbers.game)?;
    let is_played = phase_of(numbers.phase.into()) == MatchPhase::Playing;
    let last = session.state.attachment.read_own(&player.last_drawing);
    (is_played && game.ticks_per_second() > 0 && session.all_sent())
        .then_some(last.looked_at_ms + TEXT_REDRAW_INTERVAL_MS)
}

/// Draws the player's real-time match, if that is due, and if it looks different or the player has moved. Returns
/// whether it was drawn.
pub(crate) fn redraw(session: &mut Session<'_>) -> Result<bool, Rejection> {
    let looked_at_ms = now_ms();
    let is_due = redraw_due_ms(session).is_some_and(|due_ms| due_ms <= looked_at_ms);
    let place = session.membership().place();
    let Some(((player, player_tx), (room, seat))) = session.player().zip(session.player_tx()).zip(place)
    else {
        return Ok(false);
    };
    if !is_due || session.space_for_events() < 2 * FRAME_TOTAL_BYTES_MAX as u64 {
        return Ok(false);
    }
    let (games, faults) = (session.state.games, &mut session.state.faults);
    let record = session.state.memory.rooms.at(room.index());
    let mut tx = session.state.attachment.begin(record);
    let shown = ShownGame::mark(session.state.serving, record, room);
    let last = tx.get(&player_tx.player.last_drawing);
    let mut new = LastDrawing { looked_at_ms, ..last };
    // A player that was kicked must not see the view of the seat's new player.
    let is_played = phase_of(tx.get(&record.phase)) == MatchPhase::Playing;
    let is_drawn = if is_played && is_member(&tx, room, player, seat) {
        let drawing = draw_match(&tx, &shown, games, seat, faults);
        new.hash = LastDrawing::hash_of(&drawing);
        let is_owed = std::mem::take(&mut new.is_owed) != 0;
        let has_ansi = tx.get(&player_tx.player.has_ansi) != 0;
        let mut output = player_tx.begin_output(&tx);
        // What was written since has scrolled a drawing in place away.
        let is_out_of_place = has_ansi && output.head() != last.output_head;
        let is_drawn = is_owed || is_out_of_place || new.hash != last.hash;
        match (is_drawn, has_ansi) {
            (false, _) => {}
            (true, false) => output.say(&mut tx, &drawing),
            (true, true) => {
                let (drawn, rows) = render::in_place(&drawing, last.rows);
                new.rows = rows;
                output.put_bytes(&mut tx, drawn.as_bytes());
                if is_owed {
                    output.put_bytes(&mut tx, render::PROMPT.as_bytes());
                }
            }
        }
        new.output_head = output.head();
        output.finish(&mut tx);
        is_drawn
    } else {
        false
    };
    tx.set(&player_tx.player.last_drawing, new);
    tx.commit()?;
    Ok(is_drawn)
}

/// The player has moved: in a real-time match, its answer is a drawing.
pub(crate) fn owe_drawing(tx: &mut RoomTx<'_>, player_tx: &PlayerTx, games: &Games) {
    if player_tx.is_text() && game_of(tx, games).ticks_per_second() > 0 {
        let last = tx.get(&player_tx.player.last_drawing);
        tx.set(&player_tx.player.last_drawing, LastDrawing { is_owed: 1, ..last });
    }
}

/// Decodes an event from a frame of the room's log.
fn decode_event(frame: &[u8]) -> RoomEvent {
    let body = frame.get(FRAME_HEADER_BYTES..).unwrap_or_default();
    match codec::decode(body) {
        Ok(ServerMessage::Event { event, .. }) => event,
        other => panic!("a room's log holds events: {other:?}"),
    }
}

/// Returns the drawing of the match as the player sees it. If the game fails, the error is added to `faults`.
fn draw_match(
    tx: &RoomTx<'_>,
    shown: &ShownGame,
    games: &Games,
    seat: Option<u8>,
    faults: &mut Vec<Fault>,
) -> String {
    if shown.is_switched_off() {
        return render::NO_DRAWING.to_owned();
    }
    let drawn = view_for(tx, shown, games, seat).and_then(|view| match view.is_empty() {
        true => Ok(String::new()),
        false => game_of(tx, games).draw(&view, &|seat| name_of(tx, seat)),
    });
    let drawn = drawn.unwrap_or_else(|error| {
        let call = GameCall::of("view or draw", seat);
        faults.push(Fault::in_room(tx, games, shown.room(), call, error));
        String::new()
    });
    drawn + render::turn_hint(seat_to_move(tx, shown, games, seat, faults), seat)
}

/// Returns the name of the player in a seat, or its number.
fn name_of(tx: &RoomTx<'_>, seat: u8) -> String {
    let cell = tx.record().seats.get(usize::from(seat)).map(|seat| tx.get(seat));
    let taken = cell.filter(|cell| cell.player.is_some());
    taken.map_or_else(|| format!("seat {seat}"), |cell| cell.name.as_str().to_owned())
}

/// Returns all seats: their players, and the names of their last players.
fn seats_with_names(tx: &RoomTx<'_>) -> Vec<Seat> {
    let record = tx.record();
    let capacity = tx.get(&record.capacity) as usize;
    let seats = record.seats.iter().take(capacity);
    seats.map(|seat| tx.get(seat)).collect()
}
