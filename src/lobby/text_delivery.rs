//! Delivers the room's events to a player in text mode: events as sentences, and the match as the game draws it.
//!
//! As in [`delivery`](crate::lobby::delivery), but one transaction under the room's lock: it reads the names of the
//! seats, and a drawing belongs to the last event before it.

use forkade_games::Games;
use forkade_protocol::{RoomEvent, ServerMessage, codec};
use forkade_text::render::{self, RenderContext};

use crate::limits::{FRAME_HEADER_BYTES, FRAME_TOTAL_BYTES_MAX};
use crate::lobby::delivery::{BATCH_MAX, DeliveryStop, Entry, read_entry};
use crate::lobby::ignoring::Ignored;
use crate::lobby::room_view::{seat_to_move, view_for};
use crate::session::rejection::Rejection;
use crate::session::{CURSOR_LOST, Session};
use crate::state::buffers;
use crate::state::fault::{Fault, GameCall};
use crate::state::layout::RoomRef;
use crate::state::rooms::{RoomTx, Seat, game_of, is_member};
use crate::state::shown_game::ShownGame;

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
        if is_end && std::mem::take(&mut has_changed) {
            let drawing = draw_match(&tx, &shown, games, seat, faults);
            output.say(&mut tx, &drawing);
        }
        // A real-time game changes all the time, so only `look` shows its drawing.
        has_changed |= is_there && matches!(event, RoomEvent::Game { .. }) && game.ticks_per_second() == 0;
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
