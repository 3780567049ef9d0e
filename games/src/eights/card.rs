//! The cards.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

const RANKS: [&str; 13] = ["A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K"];

/// A card: 13 times the number of its suit, plus its rank from 0, an ace, to 12, a king.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Card(u8);

/// A suit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they say it all")]
pub enum Suit {
    Clubs,
    Diamonds,
    Hearts,
    Spades,
}

/// The error for a number that no card has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cards are numbered 0 to 51")]
pub struct NoSuchCard;

impl Card {
    /// All 52 cards, in ascending order.
    pub fn pack() -> impl Iterator<Item = Card> {
        (0..52).map(Card)
    }

    /// Parses a card, such as `10h` or `QS`.
    pub fn parse(text: &str) -> Option<Card> {
        let text = text.to_ascii_uppercase();
        Card::pack().find(|card| card.to_string() == text)
    }

    /// The suit.
    pub fn suit(self) -> Suit {
        Suit::ALL[usize::from(self.0 / 13)]
    }

    /// Whether the card is an eight.
    pub fn is_eight(self) -> bool {
        self.rank() == "8"
    }

    /// Whether the card may be played on `top` when `follow` is the suit to follow.
    pub fn fits(self, top: Card, follow: Suit) -> bool {
        self.is_eight() || self.suit() == follow || self.rank() == top.rank()
    }

    fn rank(self) -> &'static str {
        RANKS[usize::from(self.0 % 13)]
    }
}

impl Suit {
    /// All four suits, in ascending order.
    pub const ALL: [Suit; 4] = [Suit::Clubs, Suit::Diamonds, Suit::Hearts, Suit::Spades];

    /// Parses a suit, such as `h`, `heart` or `Hearts`.
    pub fn parse(text: &str) -> Option<Suit> {
        let text = text.to_ascii_lowercase();
        Suit::ALL.into_iter().find(|suit| {
            let name = suit.name();
            [name, &name[..name.len() - 1], &name[..1]].contains(&text.as_str())
        })
    }

    fn name(self) -> &'static str {
        match self {
            Suit::Clubs => "clubs",
            Suit::Diamonds => "diamonds",
            Suit::Hearts => "hearts",
            Suit::Spades => "spades",
        }
    }
}

impl TryFrom<u8> for Card {
    type Error = NoSuchCard;

    fn try_from(number: u8) -> Result<Self, NoSuchCard> {
        if number < 52 {
            Ok(Card(number))
        } else {
            Err(NoSuchCard)
        }
    }
}

impl From<Card> for u8 {
    fn from(card: Card) -> u8 {
        card.0
    }
}

/// As in `10H`.
impl fmt::Display for Card {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suit = self.suit().name()[..1].to_ascii_uppercase();
        write!(out, "{}{suit}", self.rank())
    }
}

/// As in `hearts`.
impl fmt::Display for Suit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}
