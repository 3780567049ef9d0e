//! The rules of a game, as a pair needs them.

use std::fmt;

use forkade_protocol::Outcome;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A position of a game for two in which each move marks one cell for good. Its encoding is the game's view.
/// The rules are implemented a second time on purpose, so that errors of the server's implementation are
/// found.
pub(crate) trait Board:
    fmt::Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + 'static
{
    /// The game's name on the wire.
    const GAME: &'static str;

    /// The position before the first move; seat `next` moves first.
    fn empty(next: u8) -> Self;
    /// The seat to move, while the match is not over.
    fn next(&self) -> u8;
    /// Makes a move. Returns the cell that it marks, or `None` if the rules forbid it.
    fn play(&mut self, seat: u8, action: u8) -> Option<Mark>;
    /// Decodes an event of the game.
    fn event(data: &[u8]) -> Option<Mark>;
    /// How many moves have been made.
    fn moves_made(&self) -> usize;
    /// The legal moves of the seat to move.
    fn actions(&self) -> Vec<u8>;
    /// The result of the match, if it is over.
    fn outcome(&self) -> Option<Outcome>;
    /// Encodes the event of a move.
    #[cfg(test)]
    fn encode_event(mark: Mark) -> Vec<u8>;
}

/// A seat has marked a cell. No cell is marked twice in a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(super) seat: u8,
    /// The numbering depends on the game.
    pub(super) cell: u8,
}
