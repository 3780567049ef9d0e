//! The rules of tic-tac-toe, written a second time on purpose: the server's own cannot vouch for themselves.

use forkade_protocol::Outcome;
use serde::{Deserialize, Serialize};

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
pub(super) struct Board {
    /// Which seat has marked each cell.
    pub(super) cells: [Option<u8>; 9],
    /// The seat to move, while the match is not over.
    pub(super) next: u8,
}

/// The game's event: a seat has marked a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Placed {
    pub(super) seat: u8,
    pub(super) cell: u8,
}

impl Board {
    pub(super) fn empty(next: u8) -> Self {
        Self {
            cells: [None; 9],
            next,
        }
    }

    /// Marks `cell` for `seat`; says whether the rules allow that.
    pub(super) fn place(&mut self, seat: u8, cell: u8) -> bool {
        let legal = self.outcome().is_none() && seat == self.next;
        match self.cells.get_mut(usize::from(cell)) {
            Some(free @ None) if legal => {
                *free = Some(seat);
                self.next = 1 - seat;
                true
            }
            _ => false,
        }
    }

    /// How the match has ended, if it has.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        let owner = |line: &[usize; 3]| {
            let [first, second, third] = line.map(|cell| self.cells[cell]);
            first.filter(|_| first == second && second == third)
        };
        match LINES.iter().find_map(owner) {
            Some(winner) => Some(Outcome::Won { seats: vec![winner] }),
            None => self.cells.iter().all(Option::is_some).then_some(Outcome::Draw),
        }
    }

    /// Cells that nobody has marked.
    pub(super) fn free_cells(&self) -> Vec<u8> {
        (0_u8..)
            .zip(&self.cells)
            .filter(|(_, owner)| owner.is_none())
            .map(|(cell, _)| cell)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(cells: &[u8]) -> Board {
        let mut board = Board::empty(0);
        for cell in cells {
            assert!(board.place(board.next, *cell), "{cell} of {cells:?}");
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
        assert!(!board.place(0, 1), "not its turn");
        assert!(!board.place(1, 0), "taken");
        assert!(!board.place(1, 9), "no such cell");
        assert_eq!(board.free_cells(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(!after(&[0, 3, 1, 4, 2]).place(1, 8), "over");
    }
}
