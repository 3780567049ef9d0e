//! The list of rooms, and quick match.
//!
//! A list is made of what the rooms [publish](crate::state::rooms::RoomRecord::published), without their locks: a room
//! whose game hangs keeps no client waiting. It is no snapshot of all rooms: each line is true at the moment of its
//! copy. Nothing is changed here, so a crash leaves nothing; quick match ends in `join_leave`.
//!
//! A list or search costs as much as it examines: see [`admit_search`].

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use forkade_games::{Games, Start};
use forkade_protocol::{Phase, RejectCode, RoomFilter, RoomId, RoomSettings, RoomSummary, ServerMessage};

use crate::limits::{
    QUICK_MATCH_LOCK_WAIT_MS, ROOM_FILTER_BYTES_MAX, ROOMS_EXAMINED_PER_LIST_MAX, ROOMS_PER_PAGE_MAX,
};
use crate::lobby::join_leave::{self, NewRoom};
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::budget::TooSoon;
use crate::state::handle::StateHandle;
use crate::state::layout::{Memory, RoomRef};
use crate::state::rooms::{PublishedNumbers, PublishedRoom, phase_of};

/// Checks that the player's account allows it to examine all rooms that one request can examine.
///
/// # Errors
///
/// If the account is spent. The request must wait; it has changed nothing.
pub(crate) fn admit_search(session: &Session<'_>) -> Result<(), TooSoon> {
    let rooms = &session.state.memory.directory.record.rooms_published;
    session.charge_search(rooms.load(Ordering::Relaxed)).map(|_| ())
}

/// Replies with one page of the rooms that pass the filter, starting behind `after`. Examines a bounded number of
/// rooms: a page may be shorter than others, or empty, and not be the last.
///
/// # Errors
///
/// If the filter's text is too long.
pub fn list_rooms(
    session: &mut Session<'_>,
    request: u32,
    filter: &RoomFilter,
    after: Option<RoomId>,
) -> Result<(), Rejection> {
    let first = after.map_or(0, |room| RoomRef::from_id(room.0).index().saturating_add(1));
    let search = Search::new(session.state.games, filter)?;
    let (mut rooms, mut next, mut examined) = (Vec::new(), None, 0);
    for index in session.state.memory.directory.visited_rooms(first) {
        if examined == ROOMS_EXAMINED_PER_LIST_MAX {
            // The list goes on behind the last room that was examined.
            next = Some(RoomId(RoomRef::new(index - 1, 1).to_id()));
            break;
        }
        examined += 1;
        let Some(room) = search.find(session.state.memory, index) else {
            continue;
        };
        if rooms.len() == ROOMS_PER_PAGE_MAX {
            next = rooms.last().map(|last: &RoomSummary| last.room);
            break;
        }
        rooms.push(summary(session.state.games, index, &room));
    }
    session.charge_for_search(examined);
    session.consume_and_reply(Some(&ServerMessage::Rooms { request, rooms, next }))
}

/// Joins the first listed room of the game that has a free seat and no passcode, or opens a new room. It waits only
/// for a moment for a room whose lock is held: its game may hang.
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
    let search = Search::new(session.state.games, &filter)?;
    let waits_until = Instant::now() + Duration::from_millis(QUICK_MATCH_LOCK_WAIT_MS);
    let memory = session.state.memory;
    let mut examined = 0;
    // Another player may take the seat between the list and the join: then the next room is tried.
    for index in memory.directory.visited_rooms(0) {
        examined += 1;
        let Some(candidate) = search.find(memory, index) else {
            continue;
        };
        session.charge_for_search(examined);
        let room = RoomRef::new(index, candidate.generation);
        let patience = waits_until.saturating_duration_since(Instant::now());
        match join_leave::join_open_room(session, request, room, patience) {
            Err(Rejection { code, .. }) if is_lost_race(code) => {}
            decided => return decided,
        }
    }
    session.charge_for_search(examined);
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

/// Returns the number of rooms in which a match is being played.
pub fn matches_under_way(state: &StateHandle) -> u32 {
    let memory = state.memory;
    let numbers = memory
        .directory
        .visited_rooms(0)
        .filter_map(|index| memory.rooms.at(index).published_numbers());
    let playing = numbers.filter(|room| phase_of(room.phase.into()) == Phase::Playing);
    u32::try_from(playing.count()).unwrap_or(u32::MAX)
}

/// Returns the room's entry in a list.
pub fn summary(games: &Games, index: u32, room: &PublishedRoom) -> RoomSummary {
    let numbers = room.numbers;
    RoomSummary {
        room: RoomId(RoomRef::new(index, room.generation).to_id()),
        game: games.get(numbers.game).map_or("", |game| game.name()).to_owned(),
        name: room.name.as_str().to_owned(),
        phase: phase_of(numbers.phase.into()),
        seats: numbers.seats,
        taken: numbers.taken,
        spectators: numbers.spectators,
        passcode: numbers.has_passcode,
    }
}

/// A filter, prepared once for many rooms.
struct Search {
    games: &'static Games,
    /// Index of the game; `None` if all games are wanted.
    game: Option<u16>,
    /// The server does not offer the game.
    finds_nothing: bool,
    /// Part of the name, in lower case.
    part: Option<String>,
    joinable: bool,
}

impl Search {
    fn new(games: &'static Games, filter: &RoomFilter) -> Result<Self, Rejection> {
        let part = filter.name_contains.as_deref();
        if part.is_some_and(|part| part.len() > ROOM_FILTER_BYTES_MAX) {
            let text = format!("the part of a name to look for has at most {ROOM_FILTER_BYTES_MAX} bytes");
            return Err(Rejection::new(RejectCode::RoomNameInvalid, text));
        }
        let game = filter.game.as_deref().map(|name| games.find(name));
        Ok(Self {
            games,
            game: game.flatten().map(|(index, _)| index),
            finds_nothing: matches!(game, Some(None)),
            part: part.map(str::to_lowercase),
            joinable: filter.joinable,
        })
    }

    /// The room that is open in the slot, if it is listed and passes the filter.
    fn find(&self, memory: &Memory, index: u32) -> Option<PublishedRoom> {
        let record = memory.rooms.at(index);
        // Most rooms fail here, before their names are read.
        record.published_numbers().filter(|room| self.fits(room))?;
        let room = record.published().filter(|room| self.fits(&room.numbers))?;
        let name_fits = |part: &String| room.name.as_str().to_lowercase().contains(part.as_str());
        self.part.as_ref().is_none_or(name_fits).then_some(room)
    }

    fn fits(&self, room: &PublishedNumbers) -> bool {
        !self.finds_nothing
            && !room.is_unlisted
            && self.game.is_none_or(|game| game == room.game)
            && (!self.joinable || is_joinable(room, self.games))
    }
}

/// Whether a player without passcode and reservation could take a seat.
fn is_joinable(room: &PublishedNumbers, games: &Games) -> bool {
    let starts_when_ready = || {
        games
            .get(room.game)
            .is_some_and(|game| game.start_rule() == Start::WhenSeatsReady)
    };
    let has_begun = phase_of(room.phase.into()) == Phase::Playing && starts_when_ready();
    !room.has_passcode && room.has_free_seat && !has_begun
}

/// Whether a join was refused because the room has changed since it was listed, or because of what others do in it.
fn is_lost_race(code: RejectCode) -> bool {
    matches!(
        code,
        RejectCode::TooFast
            | RejectCode::RoomFull
            | RejectCode::RoomNotFound
            | RejectCode::AlreadyStarted
            | RejectCode::WrongPasscode
            | RejectCode::Banned
    )
}
