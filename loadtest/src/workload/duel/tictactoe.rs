//! The rules of tic-tac-toe, implemented a second time on purpose, so that errors of the server's
//! implementation are found.

use forkade_protocol::{Outcome, codec};
use serde::{Deserialize, Serialize};

use super::board::{Board, Mark};

const LINES: [[usize; 3]; 8] = [
    [0, 1, 2],
    [3, 4, 5],
    [6, 7, 8],
    [0, 3, 6],
    [1, 4, 7],
    [2, 5, 8],
    [0, 4, 8],
    [2, 4, 6],
];

/// A position. Its encoding is the game's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TicTacToe {
    /// Which seat has marked each cell.
    cells: [Option<u8>; 9],
    /// The seat to move, while the match is not over.
    next: u8,
}

/// The game's event: a seat has marked a cell.
#[derive(Serialize, Deserialize)]
struct Placed {
    seat: u8,
    cell: u8,
}

impl Board for TicTacToe {
    const GAME: &'static str = "tictactoe";

    fn empty(next: u8) -> Self {
        Self {
            cells: [None; 9],
            next,
        }
    }

    fn next(&self) -> u8 {
        self.next
    }

    fn play(&mut self, seat: u8, action: u8) -> Option<Mark> {
        let legal = self.outcome().is_none() && seat == self.next;
        match self.cells.get_mut(usize::from(action)) {
            Some(free @ None) if legal => {
                *free = Some(seat);
                self.next = 1 - seat;
                Some(Mark { seat, cell: action })
            }
            _ => None,
        }
    }

    fn event(data: &[u8]) -> Option<Mark> {
        let Placed { seat, cell } = codec::decode(data).ok()?;
        Some(Mark { seat, cell })
    }

    fn moves_made(&self) -> usize {
        self.cells.iter().flatten().count()
    }

    fn outcome(&self) -> Option<Outcome> {
        let owner = |line: &[usize; 3]| {
            let [first, second, third] = line.map(|cell| self.cells[cell]);
            first.filter(|_| first == second && second == third)
        };
        match LINES.iter().find_map(owner) {
            Some(winner) => Some(Outcome::Won { seats: vec![winner] }),
            None => self.cells.iter().all(Option::is_some).then_some(Outcome::Draw),
        }
    }

    /// The free cells.
    fn actions(&self) -> Vec<u8> {
        (0_u8..)
            .zip(&self.cells)
            .filter(|(_, owner)| owner.is_none())
            .map(|(cell, _)| cell)
            .collect()
    }

    #[cfg(test)]
    fn encode_event(mark: Mark) -> Vec<u8> {
        let Mark { seat, cell } = mark;
        codec::encode(&Placed { seat, cell }).expect("it encodes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(cells: &[u8]) -> TicTacToe {
        let mut board = TicTacToe::empty(0);
        for cell in cells {
            let mark = Mark {
                seat: board.next,
                cell: *cell,
            };
            assert_eq!(board.play(mark.seat, *cell), Some(mark), "{cell} of {cells:?}");
        }
        board
    }

    #[test]
    fn a_line_wins_and_a_full_board_without_one_is_a_draw() {
        assert_eq!(after(&[0, 3, 1, 4]).outcome(), None);
        assert_eq!(
            after(&[0, 3, 1, 4, 2]).outcome(),
            Some(Outcome::Won { seats: vec![0] })
        );
        assert_eq!(
            after(&[1, 0, 2, 4, 3, 8]).outcome(),
            Some(Outcome::Won { seats: vec![1] })
        );
        assert_eq!(after(&[0, 1, 2, 4, 3, 5, 7, 6, 8]).outcome(), Some(Outcome::Draw));
    }

    #[test]
    fn taken_cells_wrong_seats_and_moves_after_the_end_are_illegal() {
        let mut board = after(&[0]);
        assert_eq!(board.play(0, 1), None, "not its turn");
        assert_eq!(board.play(1, 0), None, "taken");
        assert_eq!(board.play(1, 9), None, "no such cell");
        assert_eq!(board.actions(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(after(&[0, 3, 1, 4, 2]).play(1, 8), None, "over");
    }
}
