//! The rules of connect four, implemented a second time on purpose, so that errors of the server's
//! implementation are found.

use forkade_protocol::{Outcome, codec};
use serde::{Deserialize, Serialize};

use super::board::{Board, Mark};

const COLUMNS: u8 = 7;
const ROWS: u8 = 6;
/// Discs in a row to win.
const FOUR: usize = 4;

/// A position. Its encoding is the game's view: the rows from the bottom, in each the columns from the left,
/// and the seat to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connect4 {
    rows: [[Option<u8>; COLUMNS as usize]; ROWS as usize],
    next: u8,
}

/// The game's event: a disc was dropped.
#[derive(Serialize, Deserialize)]
struct Dropped {
    seat: u8,
    column: u8,
    row: u8,
}

impl Board for Connect4 {
    const GAME: &'static str = "connect4";

    fn empty(next: u8) -> Self {
        Self {
            rows: [[None; COLUMNS as usize]; ROWS as usize],
            next,
        }
    }

    fn next(&self) -> u8 {
        self.next
    }

    fn play(&mut self, seat: u8, action: u8) -> Option<Mark> {
        if seat != self.next || action >= COLUMNS || self.outcome().is_some() {
            return None;
        }
        let row = (0..ROWS).find(|row| self.disc(*row, action).is_none())?;
        self.rows[usize::from(row)][usize::from(action)] = Some(seat);
        self.next = 1 - seat;
        Some(Mark {
            seat,
            cell: row * COLUMNS + action,
        })
    }

    fn event(data: &[u8]) -> Option<Mark> {
        let Dropped { seat, column, row } = codec::decode(data).ok()?;
        let is_cell = column < COLUMNS && row < ROWS;
        is_cell.then(|| Mark {
            seat,
            cell: row * COLUMNS + column,
        })
    }

    fn moves_made(&self) -> usize {
        self.rows.iter().flatten().flatten().count()
    }

    fn actions(&self) -> Vec<u8> {
        (0..COLUMNS)
            .filter(|column| self.disc(ROWS - 1, *column).is_none())
            .collect()
    }

    fn outcome(&self) -> Option<Outcome> {
        let owner = |row, column| {
            let seat = self.disc(row, column)?;
            // To the right, up, and both diagonals; each line is found from its lower or left end.
            let wins = [(0, 1), (1, 0), (1, 1), (1, -1)].iter().any(|(up, right)| {
                (1..FOUR).all(|step| {
                    let along =
                        |from: u8, by: i8| (0..step).try_fold(from, |at, _| at.checked_add_signed(by));
                    let next = along(row, *up).zip(along(column, *right));
                    next.and_then(|(row, column)| self.disc(row, column)) == Some(seat)
                })
            });
            wins.then_some(seat)
        };
        let winner = (0..ROWS).find_map(|row| (0..COLUMNS).find_map(|column| owner(row, column)));
        match winner {
            Some(winner) => Some(Outcome::Won { seats: vec![winner] }),
            None => self.actions().is_empty().then_some(Outcome::Draw),
        }
    }

    #[cfg(test)]
    fn encode_event(mark: Mark) -> Vec<u8> {
        let Mark { seat, cell } = mark;
        let (column, row) = (cell % COLUMNS, cell / COLUMNS);
        codec::encode(&Dropped { seat, column, row }).expect("it encodes")
    }
}

impl Connect4 {
    fn disc(&self, row: u8, column: u8) -> Option<u8> {
        *self.rows.get(usize::from(row))?.get(usize::from(column))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(columns: &[u8]) -> Connect4 {
        let mut board = Connect4::empty(0);
        for column in columns {
            assert!(
                board.play(board.next, *column).is_some(),
                "{column} of {columns:?}"
            );
        }
        board
    }

    #[test]
    fn four_in_a_vertical_horizontal_or_diagonal_row_win_and_three_do_not() {
        let won = |seat| Some(Outcome::Won { seats: vec![seat] });
        assert_eq!(after(&[0, 1, 0, 1, 0, 1]).outcome(), None);
        assert_eq!(after(&[0, 1, 0, 1, 0, 1, 0]).outcome(), won(0));
        assert_eq!(after(&[3, 3, 4, 4, 5, 5, 6]).outcome(), won(0));
        assert_eq!(
            after(&[0, 1, 1, 2, 2, 3, 2, 3, 3, 6, 3]).outcome(),
            won(0),
            "rising"
        );
        assert_eq!(
            after(&[6, 5, 5, 4, 4, 3, 4, 3, 3, 0, 3]).outcome(),
            won(0),
            "falling"
        );
        assert_eq!(after(&[6, 0, 1, 0, 1, 0, 1, 0]).outcome(), won(1));
    }

    #[test]
    fn a_line_does_not_wrap_around_the_edge() {
        // The end of one row and the start of the next.
        assert_eq!(after(&[4, 4, 5, 5, 6, 6, 0, 0]).outcome(), None);
    }

    #[test]
    fn a_full_grid_is_a_draw() {
        let columns = b"545062455041104565311226266362030334314210".map(|digit| digit - b'0');
        assert_eq!(after(&columns[..41]).outcome(), None);
        assert_eq!(after(&columns).outcome(), Some(Outcome::Draw));
    }

    #[test]
    fn a_disc_falls_to_the_lowest_free_cell_and_full_columns_and_wrong_seats_are_illegal() {
        let mut board = after(&[2, 2, 2, 2, 2]);
        assert_eq!(board.play(0, 2), None, "not its turn");
        assert_eq!(board.play(1, 7), None, "no such column");
        assert_eq!(
            board.play(1, 2),
            Some(Mark {
                seat: 1,
                cell: 5 * 7 + 2
            })
        );
        assert_eq!(board.play(0, 2), None, "full");
        assert_eq!(board.actions(), [0, 1, 3, 4, 5, 6]);
        assert_eq!(after(&[0, 1, 0, 1, 0, 1, 0]).play(1, 5), None, "over");
    }
}
