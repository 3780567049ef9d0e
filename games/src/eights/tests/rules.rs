//! The rules implemented a second time, and matches that both implementations play.

use crate::eights::tests::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Stock,
    Pile,
    Top,
    Hand(u8),
}

/// The rules implemented differently: where each card is, by its name. The order of the stock is not part of it.
struct Model {
    places: BTreeMap<String, Place>,
    /// The seats that still play, the one that is to move first.
    order: VecDeque<u8>,
    follow: char,
    has_drawn: bool,
    idle_passes: usize,
}

impl Model {
    fn of_the_deal(game: &Eights) -> Self {
        let mut places = BTreeMap::from([(game.top.to_string(), Place::Top)]);
        places.extend(game.stock.iter().map(|card| (card.to_string(), Place::Stock)));
        for (seat, hand) in (0..).zip(&game.hands) {
            let hand = hand.as_ref().expect("nobody has left");
            places.extend(hand.iter().map(|card| (card.to_string(), Place::Hand(seat))));
        }
        Model {
            follow: suit_of(&game.top.to_string()),
            places,
            order: (0..count(&game.hands)).collect(),
            has_drawn: false,
            idle_passes: 0,
        }
    }

    fn cards(&self, place: Place) -> BTreeSet<&str> {
        let there = self.places.iter().filter(|(_, at)| **at == place);
        there.map(|(card, _)| card.as_str()).collect()
    }

    fn outcome(&self) -> Option<Outcome> {
        let size = |seat: u8| self.cards(Place::Hand(seat)).len();
        if let Some(&seat) = self.order.iter().find(|&&seat| size(seat) == 0) {
            return Some(Outcome::Won { seats: vec![seat] });
        }
        match self.order.len() {
            0 => return Some(Outcome::Abandoned),
            1 => {
                let seats = self.order.iter().copied().collect();
                return Some(Outcome::Won { seats });
            }
            players if self.idle_passes < players => return None,
            _ => {}
        }
        let mut by_size: BTreeMap<usize, BTreeSet<u8>> = BTreeMap::new();
        for &seat in &self.order {
            by_size.entry(size(seat)).or_default().insert(seat);
        }
        let (_, winners) = by_size.pop_first()?;
        Some(if by_size.is_empty() {
            Outcome::Draw
        } else {
            Outcome::Won {
                seats: winners.into_iter().collect(),
            }
        })
    }

    /// Whether the action is legal; if not, the reason.
    fn judge(&self, seat: u8, action: Action) -> Result<(), RejectCode> {
        if self.outcome().is_some() {
            return Err(RejectCode::NotPlaying);
        }
        if self.order.front() != Some(&seat) {
            return Err(RejectCode::NotYourTurn);
        }
        let nothing_to_draw = self.cards(Place::Stock).is_empty() && self.cards(Place::Pile).is_empty();
        let is_legal = match action {
            Action::Draw => !self.has_drawn && !nothing_to_draw,
            Action::Pass => self.has_drawn || nothing_to_draw,
            Action::Play { card, named } => {
                let card = card.to_string();
                let top = *self.cards(Place::Top).first().expect("there is a top");
                let is_own = self.cards(Place::Hand(seat)).contains(&*card);
                let fits = suit_of(&card) == self.follow || rank_of(&card) == rank_of(top);
                is_own
                    && if rank_of(&card) == "8" {
                        named.is_some()
                    } else {
                        named.is_none() && fits
                    }
            }
        };
        if is_legal {
            Ok(())
        } else {
            Err(RejectCode::IllegalAction)
        }
    }

    /// Applies a legal action and returns its events.
    fn apply(&mut self, input: Input, got: Option<Card>) -> Vec<(Audience, Event)> {
        let mut told = Vec::new();
        match input {
            Input::Leave(seat) => {
                if self.outcome().is_some() || !self.order.contains(&seat) {
                    return told;
                }
                self.move_all(Place::Hand(seat), Place::Stock);
                self.has_drawn &= self.order.front() != Some(&seat);
                self.order.retain(|&other| other != seat);
                self.idle_passes = 0;
                let stock = self.stock();
                // When no seat is left, the turn stays where it was.
                let next = self.order.front().copied().unwrap_or(seat);
                told.push((Audience::All, Event::Left { seat, stock, next }));
            }
            Input::Act(seat, Action::Draw) => {
                if self.stock() == 0 {
                    self.move_all(Place::Pile, Place::Stock);
                    told.push((Audience::All, Event::Turned { stock: self.stock() }));
                }
                let card = got.expect("a card is drawn");
                let from = self.places.insert(card.to_string(), Place::Hand(seat));
                assert_eq!(from, Some(Place::Stock), "{card} comes from the stock");
                (self.has_drawn, self.idle_passes) = (true, 0);
                told.push((Audience::All, Event::Drew { seat }));
                told.push((Audience::Seat(seat), Event::Got { card }));
            }
            Input::Act(seat, Action::Pass) => {
                self.idle_passes += usize::from(!self.has_drawn);
                let next = self.rotate();
                told.push((Audience::All, Event::Passed { seat, next }));
            }
            Input::Act(seat, Action::Play { card, named }) => {
                self.move_all(Place::Top, Place::Pile);
                self.places.insert(card.to_string(), Place::Top);
                let follow = named.unwrap_or(card.suit());
                self.follow = initial(follow);
                self.idle_passes = 0;
                let next = self.rotate();
                told.push((
                    Audience::All,
                    Event::Played {
                        seat,
                        card,
                        follow,
                        next,
                    },
                ));
            }
        }
        told
    }

    fn rotate(&mut self) -> u8 {
        self.order.rotate_left(1);
        self.has_drawn = false;
        self.order[0]
    }

    fn move_all(&mut self, from: Place, to: Place) {
        let there = self.places.values_mut().filter(|place| **place == from);
        there.for_each(|place| *place = to);
    }

    fn stock(&self) -> u8 {
        u8::try_from(self.cards(Place::Stock).len()).expect("a pack has 52")
    }

    fn assert_is(&self, game: &Eights) {
        let names = |cards: &[Card]| -> BTreeSet<String> { cards.iter().map(Card::to_string).collect() };
        let total = game.stock.len() + game.beneath.len() + 1 + game.hands.iter().flatten().flatten().count();
        assert_eq!(total, 52, "no card is twice there");
        let at = |place| -> BTreeSet<String> { self.cards(place).into_iter().map(str::to_owned).collect() };
        assert_eq!(names(&game.stock), at(Place::Stock));
        assert_eq!(names(&game.beneath), at(Place::Pile));
        assert_eq!(names(&[game.top]), at(Place::Top));
        for (seat, hand) in (0..).zip(&game.hands) {
            assert_eq!(hand.is_some(), self.order.contains(&seat));
            assert_eq!(names(hand.as_deref().unwrap_or_default()), at(Place::Hand(seat)));
        }
        assert_eq!(initial(game.follow), self.follow);
        assert_eq!(game.has_drawn, self.has_drawn);
        assert_eq!(game.outcome(), self.outcome());
    }
}

fn suit_of(card: &str) -> char {
    card.chars().last().expect("a card has a name")
}

fn rank_of(card: &str) -> &str {
    &card[..card.len() - 1]
}

fn initial(suit: Suit) -> char {
    suit.to_string().remove(0).to_ascii_uppercase()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn matches_go_as_the_model_says(course in courses(), stranger in 0..8_u8) {
        let mut model = Model::of_the_deal(&new(course.0, course.1));
        let ended = play(&course, |game, input, next, events| {
            for seat in [game.next, stranger] {
                for action in all_actions() {
                    let verdict = attempt(game, seat, action).map(drop);
                    assert_eq!(verdict.map_err(|rejection| rejection.code()), model.judge(seat, action));
                }
            }
            let got = events.iter().find_map(|(_, event)| match event {
                Event::Got { card } => Some(*card),
                _ => None,
            });
            assert_eq!(events, model.apply(input, got));
            model.assert_is(next);
            assert!(next.is_over() || model.order.front() == Some(&next.next));
            let state = codec::encode(next).expect("it encodes");
            assert!(state.len() <= 128, "{} bytes of state", state.len());
            assert_eq!(codec::decode::<Eights>(&state).as_ref(), Ok(next));
        });
        model.assert_is(&ended);
    }
}
