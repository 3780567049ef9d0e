//! What rooms there are: read one room at a time, so that a list never holds anybody up.

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

/// Answers with a page of the rooms that pass the filter, from the one behind `after` on.
///
/// # Errors
///
/// If the answer does not fit, which is a mistake of this program's.
pub fn list_rooms(
    session: &mut Session<'_>,
    request: u32,
    filter: &RoomFilter,
    after: Option<RoomId>,
) -> Result<(), Rejection> {
    let first = after.map_or(0, |room| RoomRef::from_id(room.0).index().saturating_add(1));
    let mut rooms = rooms_from(session.state, first, filter, ROOMS_PER_PAGE_MAX + 1);
    // The page ends with a room only if there is one behind it.
    let more = rooms.len() > ROOMS_PER_PAGE_MAX;
    rooms.truncate(ROOMS_PER_PAGE_MAX);
    let next = rooms.last().filter(|_| more).map(|room| room.room);
    session.consume_and_reply(Some(&ServerMessage::Rooms { request, rooms, next }))
}

/// Joins any public room of the game that has a seat free, or opens one.
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
    // Whoever comes first gets the seat: a room that was full by then is passed over.
    while let Some(candidate) = rooms_from(session.state, first, &filter, 1).first() {
        match join_leave::join_room(session, request, candidate.room, None, false) {
            Err(Rejection { code, .. }) if lost_the_race(code) => {}
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

/// At most `count` listed rooms that pass the filter, in the order of their records from `first` on.
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

/// The line of the room that is open in a record, if one is.
pub fn room_summary(state: &mut StateHandle, index: u32) -> Option<RoomSummary> {
    let (record, games) = (state.memory.rooms.get(index)?, state.games);
    let room = RoomRef::new(index, record.open_generation()?);
    let tx = state.attachment.begin(record);
    is_open(&tx, room).then(|| summary(&tx, room, games))
}

/// How many rooms have a match under way.
pub fn matches_under_way(state: &mut StateHandle) -> u32 {
    let rooms = (0..state.rooms_touched()).filter_map(|index| room_summary(state, index));
    let playing = rooms.filter(|room| room.phase == Phase::Playing).count();
    u32::try_from(playing).unwrap_or(u32::MAX)
}

/// The line of the room that is open in a record, if it is listed and passes the filter.
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

/// Whether anybody, without a passcode, could take a seat.
fn is_joinable(tx: &RoomTx<'_>, games: &Games) -> bool {
    tx.get(&tx.record().passcode).set == 0 && first_free_seat(tx, games).is_ok()
}

fn lost_the_race(code: RejectCode) -> bool {
    matches!(
        code,
        RejectCode::RoomFull
            | RejectCode::RoomNotFound
            | RejectCode::AlreadyStarted
            | RejectCode::WrongPasscode
            | RejectCode::Banned
    )
}
