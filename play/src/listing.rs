//! The lobby as it is shown: the rooms, and the games of which a new room could be opened. One of these is chosen.

use forkade_protocol::{ClientMessage, GameInfo, Phase, RoomFilter, RoomId, RoomSummary};

use crate::limits::PLAY_ROOMS_MAX;
use forkade_games::{Games, Start};
use forkade_text::render::room_number;

/// How often the list is asked for while it is looked at.
const REFRESH_MS: u64 = 3000;

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Which rooms are shown.
    pub filter: RoomFilter,
    rooms: Vec<RoomSummary>,
    offered: Vec<GameInfo>,
    chosen: Option<Entry>,
    /// Pages that have come of a list that is not complete yet.
    coming: Vec<RoomSummary>,
    /// The request whose answer is awaited. It differs from those before, whose answers come too late.
    awaited: Option<u32>,
    asked_at_ms: Option<u64>,
    /// Whether there has been a whole list.
    is_known: bool,
}

/// Something that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Room(RoomId),
    /// A new room, of a game.
    New(String),
}

/// What to do about a chosen entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Sit(RoomId),
    Watch(RoomId),
    /// A passcode is asked for.
    AskPasscode(u64),
    Open(String),
}

impl Listing {
    /// Sets what can be played here.
    pub(crate) fn offer(&mut self, games: Vec<GameInfo>) {
        self.offered = games;
    }

    /// What can be played here.
    pub(crate) fn offered(&self) -> &[GameInfo] {
        &self.offered
    }

    /// Whether the rooms are known at all.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known
    }

    /// The rooms that were listed last.
    pub(crate) fn rooms(&self) -> &[RoomSummary] {
        &self.rooms
    }

    /// The room that people call by this number, or whose id it is.
    pub(crate) fn room(&self, number: u64) -> Option<RoomId> {
        let listed = self.rooms.iter().map(|room| room.room);
        let mut meant = listed.filter(|room| room_number(*room) == number);
        // An id is longer than any number.
        meant
            .next()
            .or((number > u64::from(u32::MAX)).then_some(RoomId(number)))
    }

    /// All that can be chosen, from above to below.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        let rooms = self.rooms.iter().map(|room| Entry::Room(room.room));
        rooms.chain(self.offered.iter().map(|game| Entry::New(game.name.clone())))
    }

    /// Which of the [entries](Self::entries) is chosen; the first unless another one was.
    pub(crate) fn chosen(&self) -> usize {
        let chosen = self.chosen.as_ref();
        chosen
            .and_then(|chosen| self.entries().position(|entry| entry == *chosen))
            .unwrap_or(0)
    }

    /// Chooses another entry, so many below or above.
    pub(crate) fn choose(&mut self, by: isize) {
        let last = self.entries().count().saturating_sub(1);
        let index = self.chosen().saturating_add_signed(by).min(last);
        let chosen = self.entries().nth(index);
        self.chosen = chosen;
    }

    /// What is to be done about the chosen entry: to sit down where that is possible, unless one only wants to `watch`.
    pub(crate) fn choice(&self, watch: bool, games: &Games) -> Option<Choice> {
        match self.entries().nth(self.chosen())? {
            Entry::New(game) => Some(Choice::Open(game)),
            Entry::Room(id) => {
                let room = self.rooms.iter().find(|room| room.room == id)?;
                Some(if room.passcode {
                    Choice::AskPasscode(room_number(id))
                } else if watch || !has_seat(room, games) {
                    Choice::Watch(id)
                } else {
                    Choice::Sit(id)
                })
            }
        }
    }

    /// The message that asks for the list anew, if it is time.
    pub(crate) fn ask(&mut self, request: u32, now_ms: u64) -> Option<ClientMessage> {
        if self.due_ms().is_some_and(|due| now_ms < due) {
            return None;
        }
        self.asked_at_ms = Some(now_ms);
        self.coming.clear();
        Some(self.page(request, None))
    }

    /// Asks as soon as possible.
    pub(crate) fn hurry(&mut self) {
        (self.asked_at_ms, self.awaited) = (None, None);
    }

    /// When the list is to be asked for again.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.asked_at_ms.map(|asked| asked + REFRESH_MS)
    }

    /// Takes a page of the list. Gives the message that asks for the next one.
    pub(crate) fn take(
        &mut self,
        request: u32,
        rooms: Vec<RoomSummary>,
        next: Option<RoomId>,
        next_request: u32,
    ) -> Option<ClientMessage> {
        if self.awaited != Some(request) {
            return None;
        }
        self.coming.extend(rooms);
        if let Some(after) = next
            && self.coming.len() < PLAY_ROOMS_MAX
        {
            return Some(self.page(next_request, Some(after)));
        }
        (self.awaited, self.is_known) = (None, true);
        // The choice stays where it was on the screen if what was chosen is gone.
        let index = self.chosen();
        self.rooms = std::mem::take(&mut self.coming);
        let is_gone = |chosen: &Entry| !self.entries().any(|entry| entry == *chosen);
        if self.chosen.as_ref().is_some_and(is_gone) {
            self.chosen = None;
            self.choose(isize::try_from(index).unwrap_or(0));
        }
        None
    }

    fn page(&mut self, request: u32, after: Option<RoomId>) -> ClientMessage {
        self.awaited = Some(request);
        ClientMessage::ListRooms {
            request,
            filter: self.filter.clone(),
            after,
        }
    }
}

/// Whether one could sit down, as far as can be known: of games that this program does not know, it cannot be.
fn has_seat(room: &RoomSummary, games: &Games) -> bool {
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
        listing.offer(vec![GameInfo {
            name: "tictactoe".into(),
            seats_min: 2,
            seats_max: 2,
            ticks_per_second: 0,
        }]);
        renew(&mut listing, ids);
        listing
    }

    fn renew(listing: &mut Listing, ids: &[u64]) {
        listing.hurry();
        assert!(listing.ask(5, 0).is_some());
        let rooms = ids.iter().map(|id| room(*id)).collect();
        assert_eq!(listing.take(5, rooms, None, 6), None);
    }

    #[test]
    fn the_choice_stays_with_its_room() {
        let mut list = listing(&[1, 2, 3]);
        list.choose(1);
        assert_eq!(list.choice(false, &Games::new()), Some(Choice::Sit(RoomId(2))));
        renew(&mut list, &[0, 1, 2, 3]);
        assert_eq!(list.choice(true, &Games::new()), Some(Choice::Watch(RoomId(2))));
        renew(&mut list, &[0, 1, 3]);
        assert_eq!(list.chosen(), 2, "what is gone gives its place to the next");
        list.choose(100);
        assert_eq!(
            list.choice(false, &Games::new()),
            Some(Choice::Open("tictactoe".into()))
        );
        list.choose(-100);
        assert_eq!(list.chosen(), 0);
    }

    #[test]
    fn a_room_that_is_full_is_watched_and_one_with_a_passcode_asks_for_it() {
        let mut list = listing(&[1, 2]);
        (list.rooms[0].taken, list.rooms[1].passcode) = (2, true);
        assert_eq!(list.choice(false, &Games::new()), Some(Choice::Watch(RoomId(1))));
        list.choose(1);
        assert_eq!(list.choice(false, &Games::new()), Some(Choice::AskPasscode(3)));
    }

    #[test]
    fn a_list_comes_in_pages_and_a_late_one_is_dropped() {
        let mut list = listing(&[]);
        list.hurry();
        assert!(list.ask(7, 1).is_some());
        assert_eq!(list.ask(8, 2), None, "it was asked a moment ago");
        assert_eq!(list.take(6, vec![room(9)], None, 8), None);
        assert!(list.rooms().is_empty());
        let next = list.take(7, vec![room(1)], Some(RoomId(1)), 8);
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
        assert_eq!(list.take(8, vec![room(2)], None, 9), None);
        assert_eq!(list.rooms().len(), 2);
    }

    #[test]
    fn an_empty_lobby_of_a_server_without_games_has_nothing_to_choose() {
        let mut list = Listing::default();
        list.choose(1);
        assert_eq!((list.chosen(), list.choice(false, &Games::new())), (0, None));
    }
}
