//! Views of a room for its members. Read under the room's lock; nothing is changed.

use forkade_games::{GameError, Games, Viewer};
use forkade_protocol::{Phase, RoomId, RoomRules, SeatInfo, ServerMessage, Snapshot};

use crate::limits::GAME_VIEW_BYTES_MAX;
use crate::lobby::fanout;
use crate::lobby::join_leave;
use crate::lobby::ownership::owner_of;
use crate::lobby::reservations::reservations;
use crate::lobby::settings::rules;
use crate::lobby::turns::current_turn;
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::fault::{Fault, GameCall};
use crate::state::rooms::{RoomTx, game_of, occupants, phase_of, read_state};
use crate::state::shown_game::ShownGame;

/// Sends the player a snapshot of the room as it is now. The player's cursor does not move: events up to now are
/// delivered as usual, before or after the reply.
///
/// # Errors
///
/// If the player is in no room, or no longer has the seat.
pub fn look(session: &mut Session<'_>, request: u32) -> Result<(), Rejection> {
    join_leave::with_room(session, |mut tx, context| {
        fanout::charge_look(&tx, context.payer, context.seat)?;
        // A player who has lost the seat does not get here, and never sees the view of the seat's new player.
        let shown = context.mark_shown(&tx);
        let snapshot = snapshot(
            &tx,
            &shown,
            context.calls.games,
            context.seat,
            context.calls.faults,
        );
        let player_tx = context.player_tx;
        let message = match player_tx.knows_seat_to_move() {
            true => ServerMessage::PictureToMove {
                request,
                snapshot,
                to_move: seat_to_move(
                    &tx,
                    &shown,
                    context.calls.games,
                    context.seat,
                    context.calls.faults,
                ),
            },
            false => ServerMessage::Picture { request, snapshot },
        };
        player_tx.reply(&mut tx, &message);
        player_tx.consume(&mut tx);
        Ok(tx.commit()?)
    })
}

/// Returns the room as its member in `seat` (`None`: a spectator) sees it, up to the last event. If the game's view
/// fails, the error is added to `faults`.
pub(crate) fn snapshot(
    tx: &RoomTx<'_>,
    shown: &ShownGame,
    games: &Games,
    seat: Option<u8>,
    faults: &mut Vec<Fault>,
) -> Snapshot {
    let record = tx.record();
    let game = game_of(tx, games);
    let (connected, ready) = (tx.get(&record.connected), tx.get(&record.ready));
    let mut seats = vec![None; tx.get(&record.capacity) as usize];
    for (number, seat) in occupants(tx) {
        let bit = 1 << number;
        seats[usize::from(number)] = Some(SeatInfo {
            name: seat.name.as_str().to_owned(),
            connected: connected & bit != 0,
            ready: ready & bit != 0,
        });
    }
    Snapshot {
        room: RoomId(shown.room().to_id()),
        game: game.name().to_owned(),
        name: tx.get(&record.name).as_str().to_owned(),
        phase: phase_of(tx.get(&record.phase)),
        seat,
        seats,
        spectators: tx.get(&record.spectators),
        event: record.log.next_number(tx) - 1,
        // If the game's view fails, the player still gets the rest of the snapshot.
        view: view_for(tx, shown, games, seat).unwrap_or_else(|error| {
            let call = GameCall::of("view", seat);
            faults.push(Fault::in_room(tx, games, shown.room(), call, error));
            Vec::new()
        }),
        owner: owner_of(tx),
        rules: match shown.is_switched_off() {
            // A description of the options may be what crashed.
            true => RoomRules {
                options: Vec::new(),
                ..rules(tx)
            },
            false => rules(tx),
        },
        reservations: reservations(tx),
        turn: current_turn(tx),
    }
}

/// Returns the seat to move, if a match is in progress and its seats move in turn. `seat` is the seat of the player
/// that is shown the match. If the game fails, the error is added to `faults`.
pub(crate) fn seat_to_move(
    tx: &RoomTx<'_>,
    shown: &ShownGame,
    games: &Games,
    seat: Option<u8>,
    faults: &mut Vec<Fault>,
) -> Option<u8> {
    if phase_of(tx.get(&tx.record().phase)) != Phase::Playing || shown.is_switched_off() {
        return None;
    }
    let to_move = game_of(tx, games).to_move(&read_state(tx));
    to_move.unwrap_or_else(|error| {
        let call = GameCall::of("to_move", seat);
        faults.push(Fault::in_room(tx, games, shown.room(), call, error));
        None
    })
}

/// Returns the game's view for a seat or a spectator; empty if there was no match yet, or the game cannot show it.
pub(crate) fn view_for(
    tx: &RoomTx<'_>,
    shown: &ShownGame,
    games: &Games,
    seat: Option<u8>,
) -> Result<Vec<u8>, GameError> {
    let record = tx.record();
    let match_seats = tx.get(&record.match_seats);
    if match_seats == 0 || shown.is_switched_off() {
        return Ok(Vec::new());
    }
    // The room may have grown since its last match, in which the new seats had no part.
    let seat = seat.filter(|seat| u32::from(*seat) < match_seats);
    let viewer = seat.map_or(Viewer::Spectator, Viewer::Seat);
    let mut view = vec![0; GAME_VIEW_BYTES_MAX];
    let length = game_of(tx, games).view(&read_state(tx), viewer, &mut view)?;
    view.truncate(length);
    Ok(view)
}
