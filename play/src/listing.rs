//! The lobby: the rooms, and the games of which a room can be created. One entry is selected.

use forkade_protocol::{ClientMessage, GameInfo, Phase, RoomFilter, RoomId, RoomSummary};

use crate::limits::PLAY_ROOMS_MAX;
use forkade_games::{Games, Start};
use forkade_text::render::room_number;

/// The interval of requests for the list while it is shown.
const REFRESH_MS: u64 = 3000;

/// The entries of the lobby.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Which rooms to list.
    pub filter: RoomFilter,
    rooms: Vec<RoomSummary>,
    games: Vec<GameInfo>,
    selected: Option<Entry>,
    /// The received pages of an incomplete list.
    pages: Vec<RoomSummary>,
    /// The number of the pending request. Replies to earlier requests are ignored.
    pending_request: Option<u32>,
    requested_at_ms: Option<u64>,
    /// Whether a complete list was received.
    is_known: bool,
}

/// An entry that can be selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Room(RoomId),
    /// Create a room of this game.
    New(String),
}

/// The action of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EntryAction {
    Join(RoomId),
    Watch(RoomId),
    /// The player must type the passcode of the room with this number.
    AskPasscode(u64),
    Create(String),
}

impl Listing {
    /// Sets the games of the server.
    pub(crate) fn set_games(&mut self, games: Vec<GameInfo>) {
        self.games = games;
    }

    /// The games of the server.
    pub(crate) fn games(&self) -> &[GameInfo] {
        &self.games
    }

    /// Whether a complete list was received.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known
    }

    /// The rooms of the last complete list.
    pub(crate) fn rooms(&self) -> &[RoomSummary] {
        &self.rooms
    }

    /// The room with this number or id.
    pub(crate) fn room(&self, number: u64) -> Option<RoomId> {
        let listed = self.rooms.iter().map(|room| room.room);
        let mut meant = listed.filter(|room| room_number(*room) == number);
        // An id is longer than any number.
        meant
            .next()
            .or((number > u64::from(u32::MAX)).then_some(RoomId(number)))
    }

    /// All entries from top to bottom.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        let rooms = self.rooms.iter().map(|room| Entry::Room(room.room));
        rooms.chain(self.games.iter().map(|game| Entry::New(game.name.clone())))
    }

    /// The index of the selected one of the [entries](Self::entries).
    pub(crate) fn selected(&self) -> usize {
        let chosen = self.selected.as_ref();
        chosen
            .and_then(|chosen| self.entries().position(|entry| entry == *chosen))
            .unwrap_or(0)
    }

    /// Moves the selection down, or up if `by` is negative.
    pub(crate) fn move_selection(&mut self, by: isize) {
        let last = self.entries().count().saturating_sub(1);
        let index = self.selected().saturating_add_signed(by).min(last);
        let chosen = self.entries().nth(index);
        self.selected = chosen;
    }

    /// The action of the selected entry: to join where a seat is free, unless the player only wants to `watch`.
    pub(crate) fn selected_action(&self, watch: bool, games: &Games) -> Option<EntryAction> {
        match self.entries().nth(self.selected())? {
            Entry::New(game) => Some(EntryAction::Create(game)),
            Entry::Room(id) => {
                let room = self.rooms.iter().find(|room| room.room == id)?;
                Some(if room.passcode {
                    EntryAction::AskPasscode(room_number(id))
                } else if watch || !has_free_seat(room, games) {
                    EntryAction::Watch(id)
                } else {
                    EntryAction::Join(id)
                })
            }
        }
    }

    /// The request for the list, if it is due.
    pub(crate) fn request_if_due(&mut self, request: u32, now_ms: u64) -> Option<ClientMessage> {
        if self.due_ms().is_some_and(|due| now_ms < due) {
            return None;
        }
        self.requested_at_ms = Some(now_ms);
        self.pages.clear();
        Some(self.page(request, None))
    }

    /// Makes the next request due at once.
    pub(crate) fn refresh_now(&mut self) {
        (self.requested_at_ms, self.pending_request) = (None, None);
    }

    /// When the next request is due; `None`: at once.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.requested_at_ms.map(|asked| asked + REFRESH_MS)
    }

    /// Adds a page of the list. Returns the request for the next page, if there is one.
    pub(crate) fn on_page(
        &mut self,
        request: u32,
        rooms: Vec<RoomSummary>,
        next: Option<RoomId>,
        next_request: u32,
    ) -> Option<ClientMessage> {
        if self.pending_request != Some(request) {
            return None;
        }
        self.pages.extend(rooms);
        if let Some(after) = next
            && self.pages.len() < PLAY_ROOMS_MAX
        {
            return Some(self.page(next_request, Some(after)));
        }
        (self.pending_request, self.is_known) = (None, true);
        // If the selected entry is gone, the selection stays at its position.
        let index = self.selected();
        self.rooms = std::mem::take(&mut self.pages);
        let is_gone = |chosen: &Entry| !self.entries().any(|entry| entry == *chosen);
        if self.selected.as_ref().is_some_and(is_gone) {
            self.selected = None;
            self.move_selection(isize::try_from(index).unwrap_or(0));
        }
        None
    }

    fn page(&mut self, request: u32, after: Option<RoomId>) -> ClientMessage {
        self.pending_request = Some(request);
        ClientMessage::ListRooms {
            request,
            filter: self.filter.clone(),
            after,
        }
    }
}

/// Whether a seat can be taken, as far as this program knows: it does not know when matches of an unknown game begin.
fn has_free_seat(room: &RoomSummary, games: &Games) -> bool {
    let begins_at_once = games
        .find(&room.game)
        .is_some_and(|(_, game)| game.start_rule() == Start::AtOnce);
    room.taken < room.seats && (room.phase != Phase::Playing || begins_at_once)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(id: u64) -> RoomSummary {
        RoomSummary {
            room: RoomId(id),
            game: "tictactoe".into(),
            name: format!("room {id}"),
            phase: Phase::Waiting,
            seats: 2,
            taken: 1,
            spectators: 0,
            passcode: false,
        }
    }

    fn listing(ids: &[u64]) -> Listing {
        let mut listing = Listing::default();
        listing.set_games(vec![GameInfo {
            name: "tictactoe".into(),
            seats_min: 2,
            seats_max: 2,
            ticks_per_second: 0,
        }]);
        renew(&mut listing, ids);
        listing
    }

    fn renew(listing: &mut Listing, ids: &[u64]) {
        listing.refresh_now();
        assert!(listing.request_if_due(5, 0).is_some());
        let rooms = ids.iter().map(|id| room(*id)).collect();
        assert_eq!(listing.on_page(5, rooms, None, 6), None);
    }

    #[test]
    fn the_choice_stays_with_its_room() {
        let mut list = listing(&[1, 2, 3]);
        list.move_selection(1);
        assert_eq!(
            list.selected_action(false, &Games::new()),
            Some(EntryAction::Join(RoomId(2)))
        );
        renew(&mut list, &[0, 1, 2, 3]);
        assert_eq!(
            list.selected_action(true, &Games::new()),
            Some(EntryAction::Watch(RoomId(2)))
        );
        renew(&mut list, &[0, 1, 3]);
        assert_eq!(
            list.selected(),
            2,
            "the next entry takes the position of one that is gone"
        );
        list.move_selection(100);
        assert_eq!(
            list.selected_action(false, &Games::new()),
            Some(EntryAction::Create("tictactoe".into()))
        );
        list.move_selection(-100);
        assert_eq!(list.selected(), 0);
    }

    #[test]
    fn a_room_that_is_full_is_watched_and_one_with_a_passcode_asks_for_it() {
        let mut list = listing(&[1, 2]);
        (list.rooms[0].taken, list.rooms[1].passcode) = (2, true);
        assert_eq!(
            list.selected_action(false, &Games::new()),
            Some(EntryAction::Watch(RoomId(1)))
        );
        list.move_selection(1);
        assert_eq!(
            list.selected_action(false, &Games::new()),
            Some(EntryAction::AskPasscode(3))
        );
    }

    #[test]
    fn a_list_comes_in_pages_and_a_late_one_is_dropped() {
        let mut list = listing(&[]);
        list.refresh_now();
        assert!(list.request_if_due(7, 1).is_some());
        assert_eq!(list.request_if_due(8, 2), None, "it was asked a moment ago");
        assert_eq!(list.on_page(6, vec![room(9)], None, 8), None);
        assert!(list.rooms().is_empty());
        let next = list.on_page(7, vec![room(1)], Some(RoomId(1)), 8);
        let after = next.map(|message| {
            matches!(
                message,
                ClientMessage::ListRooms {
                    after: Some(RoomId(1)),
                    ..
                }
            )
        });
        assert_eq!(after, Some(true));
        assert_eq!(list.on_page(8, vec![room(2)], None, 9), None);
        assert_eq!(list.rooms().len(), 2);
    }

    #[test]
    fn an_empty_lobby_of_a_server_without_games_has_nothing_to_choose() {
        let mut list = Listing::default();
        list.move_selection(1);
        assert_eq!(
            (list.selected(), list.selected_action(false, &Games::new())),
            (0, None)
        );
    }
}
