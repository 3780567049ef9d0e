//! The list of rooms, and quick match.
//!
//! A list takes the lock of one room at a time, to copy its line. It is no snapshot of all rooms: each line is true at
//! the moment of its copy. Nothing is changed here, so a crash leaves nothing; quick match ends in `join_leave`.

use forkade_games::Games;
use forkade_protocol::{Phase, RejectCode, RoomFilter, RoomId, RoomSettings, RoomSummary, ServerMessage};

use crate::limits::ROOMS_PER_PAGE_MAX;
use crate::lobby::join_leave::{self, NewRoom, first_free_seat};
use crate::lobby::room_view::summary;
use crate::lobby::settings::is_unlisted;
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::handle::StateHandle;
use crate::state::layout::RoomRef;
use crate::state::rooms::{RoomTx, is_open};

/// Replies with one page of the rooms that pass the filter, starting behind `after`.
///
/// # Errors
///
/// If the reply does not fit. That is a bug in the server.
pub fn list_rooms(
    session: &mut Session<'_>,
    request: u32,
    filter: &RoomFilter,
    after: Option<RoomId>,
) -> Result<(), Rejection> {
    let first = after.map_or(0, |room| RoomRef::from_id(room.0).index().saturating_add(1));
    let mut rooms = rooms_from(session.state, first, filter, ROOMS_PER_PAGE_MAX + 1);
    // One room more than fits was asked for: `next` is set only if there is another page.
    let more = rooms.len() > ROOMS_PER_PAGE_MAX;
    rooms.truncate(ROOMS_PER_PAGE_MAX);
    let next = rooms.last().filter(|_| more).map(|room| room.room);
    session.consume_and_reply(Some(&ServerMessage::Rooms { request, rooms, next }))
}

/// Joins the first listed room of the game that has a free seat and no passcode, or opens a new room.
///
/// # Errors
///
/// As for creating a room.
pub fn quick_match(
    session: &mut Session<'_>,
    request: u32,
    game: &str,
    options: &[u8],
) -> Result<(), Rejection> {
    let filter = RoomFilter {
        game: Some(game.to_owned()),
        name_contains: None,
        joinable: true,
    };
    let mut first = 0;
    // Another player may take the seat between the list and the join: then the next room is tried.
    while let Some(candidate) = rooms_from(session.state, first, &filter, 1).first() {
        match join_leave::join_room(session, request, candidate.room, None, false) {
            Err(Rejection { code, .. }) if is_lost_race(code) => {}
            decided => return decided,
        }
        first = RoomRef::from_id(candidate.room.0).index() + 1;
    }
    let name = format!("{game} for anybody");
    join_leave::create_room(
        session,
        request,
        &NewRoom {
            game,
            name: &name,
            settings: &RoomSettings {
                options: options.to_vec(),
                ..RoomSettings::default()
            },
        },
    )
}

/// Returns at most `count` listed rooms that pass the filter, in the order of their slots from `first` on.
pub fn rooms_from(
    state: &mut StateHandle,
    first: u32,
    filter: &RoomFilter,
    count: usize,
) -> Vec<RoomSummary> {
    let touched = state.rooms_touched();
    let mut found = Vec::new();
    for index in first..touched {
        if found.len() == count {
            break;
        }
        found.extend(listed_room(state, index, filter));
    }
    found
}

/// Returns the summary of the room that is open in the slot, listed or not.
pub fn room_summary(state: &mut StateHandle, index: u32) -> Option<RoomSummary> {
    let (record, games) = (state.memory.rooms.get(index)?, state.games);
    let room = RoomRef::new(index, record.open_generation()?);
    let tx = state.attachment.begin(record);
    is_open(&tx, room).then(|| summary(&tx, room, games))
}

/// Returns the number of rooms in which a match is being played.
pub fn matches_under_way(state: &mut StateHandle) -> u32 {
    let rooms = (0..state.rooms_touched()).filter_map(|index| room_summary(state, index));
    let playing = rooms.filter(|room| room.phase == Phase::Playing).count();
    u32::try_from(playing).unwrap_or(u32::MAX)
}

/// Returns the summary of the room that is open in the slot, if it is listed and passes the filter.
fn listed_room(state: &mut StateHandle, index: u32, filter: &RoomFilter) -> Option<RoomSummary> {
    let (record, games) = (state.memory.rooms.get(index)?, state.games);
    let room = RoomRef::new(index, record.open_generation()?);
    let tx = state.attachment.begin(record);
    if !is_open(&tx, room) || is_unlisted(&tx) || filter.joinable && !is_joinable(&tx, games) {
        return None;
    }
    let room = summary(&tx, room, games);
    drop(tx);
    let game_fits = filter.game.as_ref().is_none_or(|game| *game == room.game);
    let name_fits = filter
        .name_contains
        .as_ref()
        .is_none_or(|part| room.name.to_lowercase().contains(&part.to_lowercase()));
    (game_fits && name_fits).then_some(room)
}

/// Whether a player without passcode and reservation could take a seat.
fn is_joinable(tx: &RoomTx<'_>, games: &Games) -> bool {
    tx.get(&tx.record().passcode).set == 0 && first_free_seat(tx, games).is_ok()
}

/// Whether a join was refused because the room has changed since it was listed.
fn is_lost_race(code: RejectCode) -> bool {
    matches!(
        code,
        RejectCode::RoomFull
            | RejectCode::RoomNotFound
            | RejectCode::AlreadyStarted
            | RejectCode::WrongPasscode
            | RejectCode::Banned
    )
}
