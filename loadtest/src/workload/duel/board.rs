//! What a pair must know of the game that it plays.

use std::fmt;

use forkade_protocol::Outcome;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A position of a game for two in which each move marks one cell for good. Its encoding is the game's view. The rules are
/// written a second time on purpose: the server's own cannot vouch for themselves.
pub(crate) trait Board:
    fmt::Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + 'static
{
    /// The game's name on the wire.
    const GAME: &'static str;

    /// The position before the first move, which is the seat `next`'s.
    fn empty(next: u8) -> Self;
    /// The seat to move, while the match is not over.
    fn next(&self) -> u8;
    /// Makes a move; gives the cell that it marks, or nothing if the rules forbid it.
    fn play(&mut self, seat: u8, action: u8) -> Option<Mark>;
    /// What an event of the game says.
    fn event(data: &[u8]) -> Option<Mark>;
    /// How many moves led here.
    fn moves_made(&self) -> usize;
    /// The moves that are open to whoever is to move.
    fn actions(&self) -> Vec<u8>;
    /// How the match has ended, if it has.
    fn outcome(&self) -> Option<Outcome>;
    /// The event that says this.
    #[cfg(test)]
    fn encode_event(mark: Mark) -> Vec<u8>;
}

/// A seat has marked a cell. No cell is marked twice in a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(super) seat: u8,
    /// Numbered as the game likes.
    pub(super) cell: u8,
}
