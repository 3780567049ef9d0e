//! Eights: a card game for two to six with hidden hands, in the public domain (a plain kind of Crazy Eights).
//!
//! # Rules
//!
//! - One pack of 52 cards. Two players get seven cards each, more get five. The next card is turned up as the top of
//!   the pile, and the others are the stock, face down. Seat 0 begins, and the seats follow in their order.
//! - The player to move plays a card of the suit to follow, or of the rank of the top card. The suit to follow is that
//!   of the top card, unless that is an eight.
//! - An eight goes on any card, and its player names the suit to follow. (An eight turned up at the beginning asks for
//!   its own suit.)
//! - Instead, the player may draw the top card of the stock, once in a turn, and then play any fitting card or pass. A
//!   player who has not drawn may pass only if there is nothing to draw.
//! - If the stock is empty when a player draws, all cards of the pile but the top one are shuffled and become the
//!   stock.
//! - A player without cards has won.
//! - If all players in turn pass because there is nothing to draw, the match is over: the fewest cards win. If several
//!   players have the fewest, they have won together; if all have, it is a draw.
//! - A player who leaves is out, and the cards of that seat are shuffled into the stock. The last remaining player has
//!   won.
//! - A player who takes too long over a turn draws, if possible, and passes.
//!
//! # What is hidden
//!
//! A hand is hidden from all but its seat, and the order of the stock from all. The numbers of cards of each seat and
//! of the stock are public, as is every card in the pile. Nothing public depends on what is hidden: the winner follows
//! from public numbers alone. Only the player who draws a card sees it ([`Event::Got`]).

mod card;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use crate::eights::card::{Card, Suit};
use crate::{Game, Outbox, Outcome, Rejection, Start, Viewer};

/// The state of a match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eights {
    seed: u64,
    /// The number of shuffles so far; each uses another order.
    shuffles: u64,
    /// Each seat's cards in the order in which it got them; none once it has left.
    hands: Vec<Option<Vec<Card>>>,
    /// The stock; the last card is drawn first.
    stock: Vec<Card>,
    top: Card,
    /// The pile without its top card, the last played card last.
    beneath: Vec<Card>,
    follow: Suit,
    next: u8,
    /// Whether the seat that is to move has drawn.
    has_drawn: bool,
    /// How many seats in a row have passed without having drawn.
    idle_passes: usize,
}

/// What a seat does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Plays a card.
    Play {
        /// The card.
        card: Card,
        /// The suit to follow, with an eight and only with an eight.
        named: Option<Suit>,
    },
    /// Draws a card from the stock.
    Draw,
    /// Ends the turn without a card.
    Pass,
}

/// What happened. `next` is the seat that is to move now; once the match is over, it means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A card was played.
    Played {
        /// The seat.
        seat: u8,
        /// The new top card.
        card: Card,
        /// The suit to follow: the card's own, or the named one.
        follow: Suit,
        /// The seat that is to move.
        next: u8,
    },
    /// A card was drawn. It is still that seat's turn.
    Drew {
        /// The seat.
        seat: u8,
    },
    /// The card that was just drawn. Only the seat that drew it gets this event.
    Got {
        /// The card.
        card: Card,
    },
    /// A seat has passed.
    Passed {
        /// The seat.
        seat: u8,
        /// The seat that is to move.
        next: u8,
    },
    /// The stock was empty, so the pile without its top card became the stock.
    Turned {
        /// Number of cards in the stock.
        stock: u8,
    },
    /// A seat has left, and its cards were shuffled into the stock.
    Left {
        /// The seat.
        seat: u8,
        /// Number of cards in the stock.
        stock: u8,
        /// The seat that is to move.
        next: u8,
    },
}

/// A match as one viewer sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The viewer's seat; `None` for a spectator.
    pub seat: Option<u8>,
    /// The viewer's cards, sorted; empty for a spectator.
    pub hand: Vec<Card>,
    /// The number of cards of each seat; `None` for a seat that has left.
    pub counts: Vec<Option<u8>>,
    /// The top of the pile.
    pub top: Card,
    /// The suit to follow.
    pub follow: Suit,
    /// Number of cards in the stock.
    pub stock: u8,
    /// Number of cards in the pile beneath its top.
    pub beneath: u8,
    /// The seat that is to move.
    pub next: u8,
    /// Whether that seat has drawn in this turn.
    pub has_drawn: bool,
    /// Whether the match is over. The seat with the fewest cards has won.
    pub over: bool,
}

impl Game for Eights {
    type Options = ();
    type Action = Action;
    type Event = Event;
    type View = Table;

    const NAME: &'static str = "eights";
    const SEATS: RangeInclusive<u8> = 2..=6;
    const TICKS_PER_SECOND: u16 = 0;
    const START: Start = Start::WhenSeatsReady;

    fn new(_options: (), seats: u8, seed: u64) -> Result<Self, Rejection> {
        let mut stock = shuffled(Card::pack().collect(), seed, 0);
        let each = if seats == 2 { 7 } else { 5 };
        let mut deal = |cards: usize| stock.split_off(stock.len().saturating_sub(cards));
        let hands = (0..seats).map(|_| Some(deal(each))).collect();
        let top = stock
            .pop()
            .ok_or_else(|| Rejection::seats_out_of_range("there are not enough cards for so many seats"))?;
        Ok(Eights {
            seed,
            shuffles: 1,
            hands,
            stock,
            top,
            beneath: Vec::new(),
            follow: top.suit(),
            next: 0,
            has_drawn: false,
            idle_passes: 0,
        })
    }

    fn act(&mut self, seat: u8, action: Action, out: &mut Outbox<Event>) -> Result<(), Rejection> {
        if self.is_over() {
            return Err(Rejection::match_is_over());
        }
        if seat != self.next {
            return Err(Rejection::not_your_turn());
        }
        match action {
            Action::Play { card, named } => self.play(seat, card, named, out),
            Action::Draw => self.draw_card(seat, out),
            Action::Pass => self.pass(seat, out),
        }
    }

    fn leave(&mut self, seat: u8, out: &mut Outbox<Event>) {
        if self.is_over() {
            return;
        }
        let Some(hand) = self.hands.get_mut(usize::from(seat)).and_then(Option::take) else {
            return;
        };
        // The whole stock, not only the cards put back: otherwise players could tell later which drawn cards were that
        // seat's.
        self.stock.extend(hand);
        self.stock = shuffled(std::mem::take(&mut self.stock), self.seed, self.shuffles);
        self.shuffles += 1;
        self.idle_passes = 0;
        if seat == self.next {
            self.end_turn();
        }
        let (stock, next) = (count(&self.stock), self.next);
        out.to_all(&Event::Left { seat, stock, next });
    }

    fn to_move(&self) -> Option<u8> {
        Some(self.next)
    }

    fn turn_timed_out(&mut self, seat: u8, out: &mut Outbox<Event>) {
        if self.is_over() || seat != self.next {
            return;
        }
        // Refused if there is nothing to draw, or if the seat has drawn; then it may pass without drawing.
        let _ = self.draw_card(seat, out);
        self.pass(seat, out)
            .expect("a seat that has drawn or cannot draw may pass");
    }

    fn view(&self, viewer: Viewer) -> Table {
        let own = match viewer {
            Viewer::Seat(seat) => self.hand(seat).map(|hand| (seat, hand)),
            Viewer::Spectator => None,
        };
        let mut hand = own.map_or_else(Vec::new, |(_, hand)| hand.clone());
        hand.sort();
        Table {
            seat: own.map(|(seat, _)| seat),
            hand,
            counts: self.hands.iter().map(|hand| hand.as_deref().map(count)).collect(),
            top: self.top,
            follow: self.follow,
            stock: count(&self.stock),
            beneath: count(&self.beneath),
            next: self.next,
            has_drawn: self.has_drawn,
            over: self.is_over(),
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        let table = self.view(Viewer::Spectator);
        let winners = table.winners();
        let present = table.counts.iter().flatten().count();
        match winners.len() {
            _ if !table.over => None,
            0 => Some(Outcome::Abandoned),
            2.. if winners.len() == present => Some(Outcome::Draw),
            _ => Some(Outcome::Won { seats: winners }),
        }
    }

    fn parse_action(text: &str, _view: Option<&Self::View>) -> Result<Action, Rejection> {
        let text = text.to_ascii_lowercase();
        let mut words: Vec<&str> = text.split_whitespace().collect();
        if words.first() == Some(&"play") {
            words.remove(0);
        }
        let action = match words[..] {
            ["draw"] => Some(Action::Draw),
            ["pass"] => Some(Action::Pass),
            [card] => Card::parse(card).map(|card| Action::Play { card, named: None }),
            [card, suit] => Card::parse(card)
                .zip(Suit::parse(suit))
                .map(|(card, suit)| Action::Play {
                    card,
                    named: Some(suit),
                }),
            _ => None,
        };
        action.ok_or_else(|| {
            Rejection::bad_action("type a card (10h, qs), an eight with a suit (8c hearts), draw, or pass")
        })
    }

    fn draw(table: &Table, name_of: &dyn Fn(u8) -> String) -> String {
        table.draw(name_of)
    }

    fn describe(event: &Event, name_of: &dyn Fn(u8) -> String) -> String {
        match *event {
            Event::Played {
                seat, card, follow, ..
            } if card.is_eight() => {
                format!("{} plays {card} and names {follow}.", name_of(seat))
            }
            Event::Played { seat, card, .. } => format!("{} plays {card}.", name_of(seat)),
            Event::Drew { seat } => format!("{} draws a card.", name_of(seat)),
            Event::Got { card } => format!("You got {card}."),
            Event::Passed { seat, .. } => format!("{} passes.", name_of(seat)),
            Event::Turned { stock } => format!("The pile was shuffled: {stock} cards are the new stock."),
            Event::Left { seat, .. } => format!("Seat {seat} is out: its cards are back in the stock."),
        }
    }
}

impl Eights {
    fn play(
        &mut self,
        seat: u8,
        card: Card,
        named: Option<Suit>,
        out: &mut Outbox<Event>,
    ) -> Result<(), Rejection> {
        let fits = card.fits(self.top, self.follow);
        let hand = self.hand_mut(seat)?;
        let position = hand
            .iter()
            .position(|&own| own == card)
            .ok_or_else(|| Rejection::illegal_action("you do not have that card"))?;
        let follow = match named {
            Some(suit) if card.is_eight() => suit,
            None if card.is_eight() => {
                return Err(Rejection::illegal_action("name a suit with an eight: 8c hearts"));
            }
            Some(_) => return Err(Rejection::illegal_action("only an eight names a suit")),
            None if fits => card.suit(),
            None => {
                return Err(Rejection::illegal_action(
                    "that card has neither the suit to follow nor the rank of the top card",
                ));
            }
        };
        hand.remove(position);
        self.beneath.push(std::mem::replace(&mut self.top, card));
        self.follow = follow;
        self.idle_passes = 0;
        self.end_turn();
        let next = self.next;
        out.to_all(&Event::Played {
            seat,
            card,
            follow,
            next,
        });
        Ok(())
    }

    fn draw_card(&mut self, seat: u8, out: &mut Outbox<Event>) -> Result<(), Rejection> {
        if self.has_drawn {
            return Err(Rejection::illegal_action("you have drawn: play a card or pass"));
        }
        if self.stock.is_empty() && !self.beneath.is_empty() {
            self.stock = shuffled(std::mem::take(&mut self.beneath), self.seed, self.shuffles);
            self.shuffles += 1;
            out.to_all(&Event::Turned {
                stock: count(&self.stock),
            });
        }
        let card = self
            .stock
            .pop()
            .ok_or_else(|| Rejection::illegal_action("there is nothing to draw: play a card or pass"))?;
        self.hand_mut(seat)?.push(card);
        self.has_drawn = true;
        self.idle_passes = 0;
        out.to_all(&Event::Drew { seat });
        out.to_seat(seat, &Event::Got { card });
        Ok(())
    }

    fn pass(&mut self, seat: u8, out: &mut Outbox<Event>) -> Result<(), Rejection> {
        if !self.has_drawn {
            if !self.stock.is_empty() || !self.beneath.is_empty() {
                return Err(Rejection::illegal_action("draw a card before you pass"));
            }
            self.idle_passes += 1;
        }
        self.end_turn();
        out.to_all(&Event::Passed {
            seat,
            next: self.next,
        });
        Ok(())
    }

    fn end_turn(&mut self) {
        let later = self.next.saturating_add(1)..count(&self.hands);
        let mut seats = later.chain(0..self.next);
        if let Some(seat) = seats.find(|&seat| self.hand(seat).is_some()) {
            self.next = seat;
        }
        self.has_drawn = false;
    }

    /// Uses public information alone.
    fn is_over(&self) -> bool {
        let mut present = self.hands.iter().flatten();
        let players = present.clone().count();
        players < 2 || self.idle_passes >= players || present.any(Vec::is_empty)
    }

    fn hand(&self, seat: u8) -> Option<&Vec<Card>> {
        self.hands.get(usize::from(seat))?.as_ref()
    }

    fn hand_mut(&mut self, seat: u8) -> Result<&mut Vec<Card>, Rejection> {
        let hand = self.hands.get_mut(usize::from(seat)).and_then(Option::as_mut);
        hand.ok_or_else(Rejection::not_your_turn)
    }
}

impl Table {
    /// The seats with the fewest cards.
    fn winners(&self) -> Vec<u8> {
        let fewest = self.counts.iter().flatten().min();
        let has_fewest = |(_, cards): &(u8, &Option<u8>)| cards.is_some() && cards.as_ref() == fewest;
        let seats = (0..).zip(&self.counts).filter(has_fewest);
        seats.map(|(seat, _)| seat).collect()
    }

    fn draw(&self, name_of: &dyn Fn(u8) -> String) -> String {
        let may_move = !self.over && self.seat == Some(self.next);
        let mut drawn = format!(
            "top card {}, follow {}; stock {}, pile {}\n",
            self.top,
            self.follow,
            self.stock,
            u16::from(self.beneath) + 1
        );
        for (seat, cards) in (0..).zip(&self.counts) {
            let turn = if seat == self.next && !self.over { '>' } else { ' ' };
            let cards = match cards {
                None => "left".to_owned(),
                Some(1) => "1 card".to_owned(),
                Some(cards) => format!("{cards} cards"),
            };
            let you = if self.seat == Some(seat) { " (you)" } else { "" };
            drawn.push_str(&format!("{turn} {}: {cards}{you}\n", name_of(seat)));
        }
        if self.seat.is_some() {
            drawn.push_str("your hand:");
            for card in &self.hand {
                drawn.push_str(&match may_move && card.fits(self.top, self.follow) {
                    true => format!(" [{card}]"),
                    false => format!(" {card}"),
                });
            }
            drawn.push('\n');
        }
        let can_draw = !self.has_drawn && (self.stock > 0 || self.beneath > 0);
        drawn.push_str(&match &self.winners()[..] {
            _ if may_move && can_draw => "play a card in [ ], or draw\n".to_owned(),
            _ if may_move => "play a card in [ ], or pass\n".to_owned(),
            _ if !self.over => format!("{} is to move\n", name_of(self.next)),
            [seat] => format!("{} has won\n", name_of(*seat)),
            seats => {
                let names: Vec<_> = seats.iter().map(|seat| name_of(*seat)).collect();
                format!("{} have the fewest cards\n", names.join(" and "))
            }
        });
        drawn
    }
}

/// The cards in an order that depends on `seed` and the number of the shuffle alone. It must be a cryptographic hash:
/// with a plain generator, a player could compute the seed from the cards seen so far, and then know all hands. The new
/// position of a card depends on its old position, not on its face, so a shuffle of hidden cards reveals nothing about
/// them.
fn shuffled(cards: Vec<Card>, seed: u64, number: u64) -> Vec<Card> {
    let key = |position: u64| -> [u8; 32] {
        let parts = [seed, number, position].map(u64::to_le_bytes);
        Sha256::digest(parts.concat()).into()
    };
    let mut keyed: Vec<_> = (0..).map(key).zip(cards).collect();
    keyed.sort();
    keyed.into_iter().map(|(_, card)| card).collect()
}

/// A length that is at most 52.
fn count<T>(items: &[T]) -> u8 {
    u8::try_from(items.len()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests;
