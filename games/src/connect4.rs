//! Connect four: seven columns of six cells. Two seats drop discs in turn, and each falls to the lowest free cell of
//! its column. Four in a row, vertical, horizontal or diagonal, win; a full grid without them is a draw. Seat 0 begins.
//! A player who leaves or takes too long loses.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{Game, Outbox, Outcome, Rejection, Start, Viewer};

/// Number of columns.
pub const COLUMNS: usize = 7;
/// Number of rows.
pub const ROWS: usize = 6;

/// The state of a match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect4 {
    grid: Grid,
    /// The seat that left before the match was decided.
    forfeited_by: Option<u8>,
}

/// The view of every viewer; nothing is hidden in this game.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grid {
    /// The seat whose disc is in each cell: row by row from the bottom, each from the left.
    pub rows: [[Option<u8>; COLUMNS]; ROWS],
    /// The seat that is to move.
    pub next: u8,
}

/// A disc has come to rest. (An action is the number of a column, from 0 to 6.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The seat that dropped it.
    pub seat: u8,
    /// The column, from 0 at the left to 6.
    pub column: u8,
    /// The row, from 0 at the bottom to 5.
    pub row: u8,
}

impl Game for Connect4 {
    type Options = ();
    type Action = u8;
    type Event = Dropped;
    type View = Grid;

    const NAME: &'static str = "connect4";
    const SEATS: RangeInclusive<u8> = 2..=2;
    const TICKS_PER_SECOND: u16 = 0;
    const START: Start = Start::WhenSeatsReady;

    fn new(_options: (), _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(Connect4 {
            grid: Grid {
                rows: [[None; COLUMNS]; ROWS],
                next: 0,
            },
            forfeited_by: None,
        })
    }

    fn act(&mut self, seat: u8, column: u8, out: &mut Outbox<Dropped>) -> Result<(), Rejection> {
        if self.outcome().is_some() {
            return Err(Rejection::match_is_over());
        }
        if seat != self.grid.next {
            return Err(Rejection::not_your_turn());
        }
        if usize::from(column) >= COLUMNS {
            return Err(Rejection::illegal_action(
                "there is no such column: they are numbered 0 to 6",
            ));
        }
        let cells = self.grid.rows.iter_mut().map(|row| &mut row[usize::from(column)]);
        let (row, cell) = (0..)
            .zip(cells)
            .find(|(_, cell)| cell.is_none())
            .ok_or_else(|| Rejection::illegal_action("that column is full"))?;
        *cell = Some(seat);
        self.grid.next = other(seat);
        out.to_all(&Dropped { seat, column, row });
        Ok(())
    }

    fn leave(&mut self, seat: u8, _out: &mut Outbox<Dropped>) {
        if self.outcome().is_none() {
            self.forfeited_by = Some(seat);
        }
    }

    fn to_move(&self) -> Option<u8> {
        Some(self.grid.next)
    }

    fn view(&self, _viewer: Viewer) -> Grid {
        self.grid.clone()
    }

    fn outcome(&self) -> Option<Outcome> {
        let winner = self.grid.winner().or(self.forfeited_by.map(other));
        match winner {
            Some(seat) => Some(Outcome::Won { seats: vec![seat] }),
            None if self.grid.is_full() => Some(Outcome::Draw),
            None => None,
        }
    }

    fn parse_action(text: &str, _view: Option<&Self::View>) -> Result<u8, Rejection> {
        match text.trim().parse() {
            Ok(column @ 0..=6) => Ok(column),
            _ => Err(Rejection::bad_action("type the number of a column, 0 to 6")),
        }
    }

    fn draw(grid: &Grid, _name_of: &dyn Fn(u8) -> String) -> String {
        let mut drawn = String::new();
        for row in grid.rows.iter().rev() {
            drawn.push('|');
            row.iter()
                .for_each(|cell| drawn.extend([' ', cell.map_or('.', mark)]));
            drawn.push_str(" |\n");
        }
        drawn.push_str("+---------------+\n  0 1 2 3 4 5 6\n");
        drawn.push_str(&match (grid.winner(), grid.is_full()) {
            (Some(winner), _) => format!("{} has won\n", mark(winner)),
            (None, true) => "a draw\n".to_owned(),
            (None, false) => format!("{} is to move\n", mark(grid.next)),
        });
        drawn
    }

    fn describe(dropped: &Dropped, name_of: &dyn Fn(u8) -> String) -> String {
        let Dropped { seat, column, .. } = *dropped;
        format!("{} drops {} into column {column}.", name_of(seat), mark(seat))
    }

    fn seat_label(seat: u8) -> String {
        mark(seat).to_string()
    }
}

impl Grid {
    fn winner(&self) -> Option<u8> {
        // Columns to the right and rows up. A line that goes down to the right is found from its other end.
        const DIRECTIONS: [(isize, isize); 4] = [(1, 0), (0, 1), (1, 1), (-1, 1)];
        let disc = |column: isize, row: isize| -> Option<u8> {
            let row = self.rows.get(usize::try_from(row).ok()?)?;
            *row.get(usize::try_from(column).ok()?)?
        };
        let lines = (0..).zip(&self.rows).flat_map(|(row, discs)| {
            (0..).zip(discs).flat_map(move |(column, seat)| {
                DIRECTIONS.map(|(right, up)| (*seat, [1, 2, 3].map(|n| (column + n * right, row + n * up))))
            })
        });
        lines
            .filter(|(seat, others)| {
                seat.is_some() && others.iter().all(|&(column, row)| disc(column, row) == *seat)
            })
            .find_map(|(seat, _)| seat)
    }

    fn is_full(&self) -> bool {
        self.rows.iter().flatten().all(Option::is_some)
    }
}

fn other(seat: u8) -> u8 {
    1 - seat.min(1)
}

fn mark(seat: u8) -> char {
    if seat == 0 { 'X' } else { 'O' }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use forkade_protocol::{RejectCode, codec};
    use proptest::prelude::*;

    use super::*;
    use crate::{Audience, ErasedOutbox, Games, Step};

    /// The rules implemented a second time and differently: columns are texts that grow, and lines are read as texts.
    #[derive(Clone, Default)]
    struct Model {
        columns: [String; COLUMNS],
        moves: usize,
    }

    impl Model {
        fn at(&self, column: usize, row: usize) -> char {
            self.columns[column].chars().nth(row).unwrap_or(' ')
        }

        /// All vertical, horizontal and diagonal lines; a diagonal is all cells with the same sum or difference.
        fn lines(&self) -> Vec<String> {
            let text = |on_line: &dyn Fn(usize, usize) -> bool| -> String {
                let cells = (0..COLUMNS).flat_map(|column| (0..ROWS).map(move |row| (column, row)));
                cells
                    .filter(|&(column, row)| on_line(column, row))
                    .map(|(column, row)| self.at(column, row))
                    .collect()
            };
            (0..COLUMNS + ROWS)
                .flat_map(|number| {
                    [
                        text(&|column, _| column == number),
                        text(&|_, row| row == number),
                        text(&|column, row| column + row == number),
                        text(&|column, row| column + ROWS == row + number),
                    ]
                })
                .collect()
        }

        fn outcome(&self) -> Option<Outcome> {
            let has = |four: &str| self.lines().iter().any(|line| line.contains(four));
            match (has("XXXX"), has("OOOO")) {
                (true, _) => Some(Outcome::Won { seats: vec![0] }),
                (_, true) => Some(Outcome::Won { seats: vec![1] }),
                _ => (self.moves == COLUMNS * ROWS).then_some(Outcome::Draw),
            }
        }

        /// Returns the row, or why the drop is illegal.
        fn play(&mut self, seat: u8, column: u8) -> Result<usize, RejectCode> {
            if self.outcome().is_some() {
                return Err(RejectCode::NotPlaying);
            }
            if usize::from(seat) != self.moves % 2 {
                return Err(RejectCode::NotYourTurn);
            }
            let discs = self
                .columns
                .get_mut(usize::from(column))
                .ok_or(RejectCode::IllegalAction)?;
            if discs.len() == ROWS {
                return Err(RejectCode::IllegalAction);
            }
            discs.push(mark(seat));
            self.moves += 1;
            Ok(discs.len() - 1)
        }

        fn assert_shows(&self, grid: &Grid) {
            for (row, cells) in grid.rows.iter().enumerate() {
                for (column, cell) in cells.iter().enumerate() {
                    assert_eq!(cell.map_or(' ', mark), self.at(column, row), "{column} {row}");
                }
            }
            assert_eq!(usize::from(grid.next), self.moves % 2);
        }
    }

    fn new() -> Connect4 {
        Connect4::new((), 2, 0).expect("no options to reject")
    }

    fn played(columns: impl IntoIterator<Item = u8>) -> Connect4 {
        let mut game = new();
        for column in columns {
            game.act(game.grid.next, column, &mut Outbox::new())
                .expect("a free column and the right seat");
        }
        game
    }

    #[test]
    fn as_many_positions_can_be_reached_as_is_known() {
        // Positions after 0, 1, 2… discs: sequence A212693 of the On-Line Encyclopedia of Integer Sequences.
        let mut positions = HashSet::from([new().grid]);
        for known in [1, 7, 49, 238, 1120, 4263, 16_422, 54_859] {
            assert_eq!(positions.len(), known);
            let next = positions.iter().flat_map(|grid| {
                (0..7).filter_map(|column| {
                    let mut game = Connect4 {
                        grid: grid.clone(),
                        forfeited_by: None,
                    };
                    let moved = game.act(grid.next, column, &mut Outbox::new());
                    moved.is_ok().then_some(game.grid)
                })
            });
            positions = next.collect();
        }
    }

    #[test]
    fn four_in_a_row_win_wherever_they_are() {
        // Every line on its own: 24 horizontal, 21 vertical, 12 for each diagonal.
        let mut lines = 0;
        for (right, up) in [(1, 0), (0, 1), (1, 1), (1, -1)] {
            for (column, row) in (0..7_i32).flat_map(|column| (0..6_i32).map(move |row| (column, row))) {
                let cells = [0, 1, 2, 3].map(|n| (column + n * right, row + n * up));
                if !cells
                    .iter()
                    .all(|&(column, row)| column < 7 && (0..6).contains(&row))
                {
                    continue;
                }
                lines += 1;
                let mut grid = new().grid;
                let mut model = Model::default();
                for (seat, (column, row)) in cells.into_iter().map(|cell| (1, cell)) {
                    let [column, row] = [column, row].map(|n| usize::try_from(n).expect("it is on the grid"));
                    grid.rows[row][column] = Some(seat);
                    let discs = &mut model.columns[column];
                    *discs = format!("{discs:row$}{}", mark(seat));
                    let whole = model.outcome() == Some(Outcome::Won { seats: vec![1] });
                    assert_eq!(grid.winner().is_some(), whole, "{cells:?}");
                }
                assert_eq!(grid.winner(), Some(1), "{cells:?}");
            }
        }
        assert_eq!(lines, 69);
    }

    #[test]
    fn a_full_grid_is_a_draw() {
        let columns = b"545062455041104565311226266362030334314210".map(|digit| digit - b'0');
        let (game, mut model) = (played(columns), Model::default());
        for (turn, column) in (0..).zip(columns) {
            model.play(turn % 2, column).expect("it is not over");
        }
        assert_eq!(model.outcome(), Some(Outcome::Draw));
        assert_eq!(game.outcome(), Some(Outcome::Draw));
        assert!(
            Connect4::draw(&game.view(Viewer::Spectator), &|seat| format!("seat {seat}"))
                .ends_with("a draw\n")
        );
    }

    #[test]
    fn a_player_that_leaves_loses_unless_the_match_is_decided() {
        let mut game = new();
        game.leave(0, &mut Outbox::new());
        assert_eq!(game.outcome(), Some(Outcome::Won { seats: vec![1] }));
        game.leave(1, &mut Outbox::new());
        assert_eq!(game.outcome(), Some(Outcome::Won { seats: vec![1] }));
        let mut game = played([0, 1, 0, 1, 0, 1, 0]);
        game.leave(0, &mut Outbox::new());
        assert_eq!(game.outcome(), Some(Outcome::Won { seats: vec![0] }));
    }

    #[test]
    fn people_can_play_it() {
        let game =
            played(["3", " 3\r\n", "2"].map(|text| Connect4::parse_action(text, None).expect("a column")));
        assert_eq!(
            Connect4::draw(&game.view(Viewer::Spectator), &|seat| format!("seat {seat}")),
            "| . . . . . . . |\n\
             | . . . . . . . |\n\
             | . . . . . . . |\n\
             | . . . . . . . |\n\
             | . . . O . . . |\n\
             | . . X X . . . |\n\
             +---------------+\n\
             \x20 0 1 2 3 4 5 6\n\
             O is to move\n"
        );
        for bad in ["", "7", "-1", "left", "3 3"] {
            assert_eq!(
                Connect4::parse_action(bad, None).expect_err(bad).code(),
                RejectCode::BadAction
            );
        }
    }

    proptest! {
        #[test]
        fn any_sequence_of_actions_goes_as_the_model_says(
            actions in proptest::collection::vec((0..8_u8, 0..20_u8), 0..80)
        ) {
            let (mut game, mut model) = (new(), Model::default());
            for (column, whim) in actions {
                // Mostly the seat that is to move: otherwise few matches would end.
                let seat = if whim == 0 { 2 } else { game.grid.next ^ u8::from(whim == 1) };
                let mut out = Outbox::new();
                let before = game.clone();
                let result = game.act(seat, column, &mut out).map_err(|rejection| rejection.code());
                let expected = model.play(seat, column);
                prop_assert_eq!(result, expected.map(drop));
                match expected {
                    Ok(row) => {
                        let row = u8::try_from(row).expect("below six");
                        prop_assert_eq!(out.events(), vec![(Audience::All, Dropped { seat, column, row })]);
                    }
                    Err(_) => prop_assert!(game == before && out.events().is_empty()),
                }
                prop_assert_eq!(game.outcome(), model.outcome());
                model.assert_shows(&game.view(Viewer::Seat(seat)));
                let bytes = codec::encode(&game).expect("it encodes");
                prop_assert_eq!(codec::decode::<Connect4>(&bytes), Ok(game.clone()));
            }
        }

        #[test]
        fn the_same_inputs_give_the_same_bytes(
            actions in proptest::collection::vec((0..2_u8, proptest::collection::vec(0..8_u8, 0..3)), 0..60)
        ) {
            let mut games = Games::new();
            games.add::<Connect4>().expect("the first game");
            let (_, game) = games.find("connect4").expect("it was added");
            let run = || {
                let (mut slots, mut out) = ([[0; 128]; 2], ErasedOutbox::new());
                let mut state_bytes = game.start(&[], 2, 7, &mut slots[0]).expect("it starts").state_bytes;
                let mut seen = Vec::new();
                for (seat, action) in &actions {
                    let [current, next] = &mut slots;
                    if let Ok(step) = game.act(&current[..state_bytes], *seat, action, &mut out, next) {
                        state_bytes = step.state_bytes;
                        slots.swap(0, 1);
                    }
                    seen.extend_from_slice(&slots[0][..state_bytes]);
                    out.iter().for_each(|(_, event)| seen.extend_from_slice(event));
                }
                seen
            };
            prop_assert_eq!(run(), run());
        }
    }

    #[test]
    fn views_and_events_look_as_documented_on_the_wire() {
        let mut games = Games::new();
        games.add::<Connect4>().expect("the first game");
        let (_, game) = games.find("connect4").expect("it was added");
        let (mut first, mut second, mut view) = ([0; 128], [0; 128], [0; 128]);
        let mut out = ErasedOutbox::new();
        let start = game.start(&[], 2, 0, &mut first).expect("it starts");
        let Step {
            state_bytes, outcome, ..
        } = game
            .act(&first[..start.state_bytes], 0, &[3], &mut out, &mut second)
            .expect("a legal move");
        assert_eq!(outcome, None);
        assert_eq!(out.iter().collect::<Vec<_>>(), [(Audience::All, &[0, 3, 0][..])]);
        let bytes = game
            .view(&second[..state_bytes], Viewer::Seat(1), &mut view)
            .expect("it is seen");
        let mut expected = vec![0, 0, 0, 1, 0];
        expected.resize(43, 0);
        expected.push(1);
        assert_eq!(view[..bytes], expected);
    }
}
