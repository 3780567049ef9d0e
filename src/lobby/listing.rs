//! What rooms there are: read one room at a time, so that a list never holds anybody up.

use forkade_protocol::{Phase, RejectCode, RoomFilter, RoomId, RoomSettings, RoomSummary, ServerMessage};

use crate::limits::ROOMS_PER_PAGE_MAX;
use crate::lobby::join_leave::{NewRoom, free_seat};
use crate::lobby::settings::is_unlisted;
use crate::lobby::{Lobby, Rejection};
use crate::session::Session;
use crate::state::layout::RoomRef;
use crate::state::rooms::{RoomTx, is_open, summary};
use forkade_games::Games;

impl Session {
    /// Answers with a page of the rooms that pass the filter, from the one behind `after` on.
    ///
    /// # Errors
    ///
    /// If the answer does not fit, which is a mistake of this program's.
    pub fn list_rooms(
        &mut self,
        request: u32,
        filter: &RoomFilter,
        after: Option<RoomId>,
    ) -> Result<(), Rejection> {
        let first = after.map_or(0, |room| RoomRef::from_id(room.0).index().saturating_add(1));
        let mut rooms = self.lobby.rooms_from(first, filter, ROOMS_PER_PAGE_MAX + 1);
        // The page ends with a room only if there is one behind it.
        let more = rooms.len() > ROOMS_PER_PAGE_MAX;
        rooms.truncate(ROOMS_PER_PAGE_MAX);
        let next = rooms.last().filter(|_| more).map(|room| room.room);
        self.consume_and_reply(Some(&ServerMessage::Rooms { request, rooms, next }))
    }

    /// Joins any public room of the game that has a seat free, or opens one.
    ///
    /// # Errors
    ///
    /// As for creating a room.
    pub fn quick_match(&mut self, request: u32, game: &str, options: &[u8]) -> Result<(), Rejection> {
        let filter = RoomFilter {
            game: Some(game.to_owned()),
            name_contains: None,
            joinable: true,
        };
        let mut first = 0;
        // Whoever comes first gets the seat: a room that was full by then is passed over.
        while let Some(candidate) = self.lobby.rooms_from(first, &filter, 1).first() {
            match self.join_room(request, candidate.room, None, false) {
                Err(Rejection { code, .. }) if lost_the_race(code) => {}
                decided => return decided,
            }
            first = RoomRef::from_id(candidate.room.0).index() + 1;
        }
        let name = format!("{game} for anybody");
        self.create_room(
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
}

impl Lobby {
    /// At most `count` listed rooms that pass the filter, in the order of their records from `first` on.
    pub fn rooms_from(&mut self, first: u32, filter: &RoomFilter, count: usize) -> Vec<RoomSummary> {
        let touched = self.rooms_touched();
        let mut found = Vec::new();
        for index in first..touched {
            if found.len() == count {
                break;
            }
            found.extend(self.listed_room(index, filter));
        }
        found
    }

    /// The line of the room that is open in a record, if one is.
    pub fn room_summary(&mut self, index: u32) -> Option<RoomSummary> {
        let (record, games) = (self.memory.rooms.get(index)?, self.games);
        let room = RoomRef::new(index, record.open_generation()?);
        let tx = self.attachment.begin(record);
        is_open(&tx, room).then(|| summary(&tx, room, games))
    }

    /// Room records from this index on were never used.
    pub fn rooms_touched(&mut self) -> u32 {
        let directory = self.memory.directory;
        let tx = self.attachment.begin(directory.record);
        tx.get(&directory.record.rooms_touched)
    }

    /// How many rooms have a match under way.
    pub fn matches_under_way(&mut self) -> u32 {
        let rooms = (0..self.rooms_touched()).filter_map(|index| self.room_summary(index));
        let playing = rooms.filter(|room| room.phase == Phase::Playing).count();
        u32::try_from(playing).unwrap_or(u32::MAX)
    }

    /// The line of the room that is open in a record, if it is listed and passes the filter.
    fn listed_room(&mut self, index: u32, filter: &RoomFilter) -> Option<RoomSummary> {
        let (record, games) = (self.memory.rooms.get(index)?, self.games);
        let room = RoomRef::new(index, record.open_generation()?);
        let tx = self.attachment.begin(record);
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
}

/// Whether anybody, without a passcode, could take a seat.
fn is_joinable(tx: &RoomTx<'_>, games: &Games) -> bool {
    tx.get(&tx.record().passcode).set == 0 && free_seat(tx, games).is_ok()
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
