//! Tic-tac-toe: two seats, nine cells, three in a row. Seat 0 begins. A player who leaves or takes too long loses.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{Game, Outbox, Outcome, Rejection, Start, Viewer};

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

/// The state of a match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicTacToe {
    board: Board,
    /// The seat that left before the match was decided.
    forfeited_by: Option<u8>,
}

/// The view of every viewer; nothing is hidden in this game.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// The seat that has each cell, row by row from the top left.
    pub cells: [Option<u8>; 9],
    /// The seat that is to move.
    pub next: u8,
}

/// A seat has taken a cell. (An action is the number of a cell, from 0 to 8.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The seat.
    pub seat: u8,
    /// The number of the cell, from 0 to 8.
    pub cell: u8,
}

impl Game for TicTacToe {
    type Options = ();
    type Action = u8;
    type Event = Placed;
    type View = Board;

    const NAME: &'static str = "tictactoe";
    const SEATS: RangeInclusive<u8> = 2..=2;
    const TICKS_PER_SECOND: u16 = 0;
    const START: Start = Start::WhenSeatsReady;

    fn new(_options: (), _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(TicTacToe {
            board: Board {
                cells: [None; 9],
                next: 0,
            },
            forfeited_by: None,
        })
    }

    fn act(&mut self, seat: u8, cell: u8, out: &mut Outbox<Placed>) -> Result<(), Rejection> {
        if self.outcome().is_some() {
            return Err(Rejection::match_is_over());
        }
        if seat != self.board.next {
            return Err(Rejection::not_your_turn());
        }
        match self.board.cells.get_mut(usize::from(cell)) {
            None => {
                return Err(Rejection::illegal_action(
                    "there is no such cell: they are numbered 0 to 8",
                ));
            }
            Some(Some(_)) => return Err(Rejection::illegal_action("that cell is taken")),
            Some(free) => *free = Some(seat),
        }
        self.board.next = other(seat);
        out.to_all(&Placed { seat, cell });
        Ok(())
    }

    fn leave(&mut self, seat: u8, _out: &mut Outbox<Placed>) {
        if self.outcome().is_none() {
            self.forfeited_by = Some(seat);
        }
    }

    fn to_move(&self) -> Option<u8> {
        Some(self.board.next)
    }

    fn view(&self, _viewer: Viewer) -> Board {
        self.board.clone()
    }

    fn outcome(&self) -> Option<Outcome> {
        let winner = self.board.winner().or(self.forfeited_by.map(other));
        match winner {
            Some(seat) => Some(Outcome::Won { seats: vec![seat] }),
            None if self.board.is_full() => Some(Outcome::Draw),
            None => None,
        }
    }

    fn parse_action(text: &str, _view: Option<&Self::View>) -> Result<u8, Rejection> {
        match text.trim().parse() {
            Ok(cell @ 0..=8) => Ok(cell),
            _ => Err(Rejection::bad_action("type the number of a free cell, 0 to 8")),
        }
    }

    fn draw(board: &Board, _name_of: &dyn Fn(u8) -> String) -> String {
        let cell = |index: usize| match board.cells[index] {
            Some(seat) => mark(seat).to_string(),
            None => index.to_string(),
        };
        let row = |first: usize| format!(" {} | {} | {}\n", cell(first), cell(first + 1), cell(first + 2));
        let turn = match (board.winner(), board.is_full()) {
            (Some(winner), _) => format!("{} has won\n", mark(winner)),
            (None, true) => "a draw\n".to_owned(),
            (None, false) => format!("{} is to move\n", mark(board.next)),
        };
        let line = "---+---+---\n";
        [&row(0), line, &row(3), line, &row(6), turn.as_str()].concat()
    }

    fn describe(placed: &Placed, name_of: &dyn Fn(u8) -> String) -> String {
        format!(
            "{} puts {} on {}.",
            name_of(placed.seat),
            mark(placed.seat),
            placed.cell
        )
    }

    fn seat_label(seat: u8) -> String {
        mark(seat).to_string()
    }
}

impl Board {
    fn winner(&self) -> Option<u8> {
        LINES.iter().find_map(|&[first, second, third]| {
            let seat = self.cells[first]?;
            (self.cells[second] == Some(seat) && self.cells[third] == Some(seat)).then_some(seat)
        })
    }

    fn is_full(&self) -> bool {
        self.cells.iter().all(Option::is_some)
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
    use forkade_protocol::{RejectCode, codec};
    use proptest::prelude::*;

    use super::*;
    use crate::{Audience, ErasedOutbox, Games, Step};

    /// The rules implemented a second time and differently: the moves made so far, and sets of cells that add up to 15
    /// on the magic square.
    #[derive(Default)]
    struct Model {
        moves: Vec<u8>,
    }

    impl Model {
        fn cells_of(&self, seat: u8) -> Vec<u8> {
            (0..)
                .zip(&self.moves)
                .filter(|(turn, _)| turn % 2 == seat)
                .map(|(_, &cell)| cell)
                .collect()
        }

        fn has_won(&self, seat: u8) -> bool {
            const MAGIC: [i32; 9] = [2, 7, 6, 9, 5, 1, 4, 3, 8];
            let values: Vec<i32> = self
                .cells_of(seat)
                .iter()
                .map(|&cell| MAGIC[usize::from(cell)])
                .collect();
            (0..values.len()).any(|a| (0..a).any(|b| (0..b).any(|c| values[a] + values[b] + values[c] == 15)))
        }

        fn outcome(&self) -> Option<Outcome> {
            match (0..2).find(|&seat| self.has_won(seat)) {
                Some(seat) => Some(Outcome::Won { seats: vec![seat] }),
                None => (self.moves.len() == 9).then_some(Outcome::Draw),
            }
        }

        fn play(&mut self, seat: u8, cell: u8) -> Result<(), RejectCode> {
            if self.outcome().is_some() {
                Err(RejectCode::NotPlaying)
            } else if usize::from(seat) != self.moves.len() % 2 {
                Err(RejectCode::NotYourTurn)
            } else if cell > 8 || self.moves.contains(&cell) {
                Err(RejectCode::IllegalAction)
            } else {
                self.moves.push(cell);
                Ok(())
            }
        }
    }

    fn new() -> TicTacToe {
        TicTacToe::new((), 2, 0).expect("no options to reject")
    }

    /// Plays every possible match, move by move. Returns how many ended in X, in O, and in a draw.
    fn play_all(game: &TicTacToe, moves: &mut Vec<u8>, ended: &mut [u32; 3]) {
        let model = Model { moves: moves.clone() };
        assert_eq!(game.outcome(), model.outcome(), "after {moves:?}");
        match game.outcome() {
            Some(Outcome::Won { seats }) => ended[usize::from(seats[0])] += 1,
            Some(_) => ended[2] += 1,
            None => {
                for cell in (0..9).filter(|cell| !model.moves.contains(cell)) {
                    let mut next = game.clone();
                    next.act(game.board.next, cell, &mut Outbox::new())
                        .expect("a free cell and the right seat");
                    moves.push(cell);
                    play_all(&next, moves, ended);
                    moves.pop();
                }
            }
        }
    }

    #[test]
    fn all_matches_end_as_the_model_says() {
        let mut ended = [0; 3];
        play_all(&new(), &mut Vec::new(), &mut ended);
        assert_eq!(ended, [131_184, 77_904, 46_080], "the numbers are known");
    }

    #[test]
    fn a_player_that_leaves_loses_unless_the_match_is_decided() {
        let mut game = new();
        game.leave(0, &mut Outbox::new());
        assert_eq!(game.outcome(), Some(Outcome::Won { seats: vec![1] }));
        game.leave(1, &mut Outbox::new());
        assert_eq!(game.outcome(), Some(Outcome::Won { seats: vec![1] }));
    }

    #[test]
    fn people_can_play_it() {
        let mut game = new();
        for (seat, text) in [(0, "4"), (1, " 0\r\n")] {
            game.act(
                seat,
                TicTacToe::parse_action(text, None).expect("a cell"),
                &mut Outbox::new(),
            )
            .expect("a free one");
        }
        let drawn = TicTacToe::draw(&game.view(Viewer::Spectator), &|seat| format!("seat {seat}"));
        assert_eq!(
            drawn,
            " O | 1 | 2\n---+---+---\n 3 | X | 5\n---+---+---\n 6 | 7 | 8\nX is to move\n"
        );
        let name_of = |seat: u8| ["Ann", "Bob"][usize::from(seat)].to_owned();
        assert_eq!(
            TicTacToe::describe(&Placed { seat: 1, cell: 0 }, &name_of),
            "Bob puts O on 0."
        );
        for bad in ["", "9", "-1", "middle", "4 4"] {
            assert_eq!(
                TicTacToe::parse_action(bad, None).expect_err(bad).code(),
                RejectCode::BadAction
            );
        }
    }

    proptest! {
        #[test]
        fn any_sequence_of_actions_goes_as_the_model_says(
            actions in proptest::collection::vec((0..3_u8, 0..11_u8), 0..40)
        ) {
            let (mut game, mut model) = (new(), Model::default());
            for (seat, cell) in actions {
                let mut out = Outbox::new();
                let before = game.clone();
                let result = game.act(seat, cell, &mut out).map_err(|rejection| rejection.code());
                prop_assert_eq!(result, model.play(seat, cell));
                if result.is_ok() {
                    prop_assert_eq!(out.events(), vec![(Audience::All, Placed { seat, cell })]);
                } else {
                    prop_assert!(game == before && out.events().is_empty());
                }
                prop_assert_eq!(game.outcome(), model.outcome());
                let bytes = codec::encode(&game).expect("it encodes");
                prop_assert_eq!(codec::decode::<TicTacToe>(&bytes), Ok(game.clone()));
            }
        }

        #[test]
        fn the_same_inputs_give_the_same_bytes(
            actions in proptest::collection::vec((0..2_u8, proptest::collection::vec(any::<u8>(), 0..3)), 0..40)
        ) {
            let mut games = Games::new();
            games.add::<TicTacToe>().expect("the first game");
            let (_, game) = games.find("tictactoe").expect("it was added");
            let run = || {
                let (mut slots, mut out) = ([[0; 64]; 2], ErasedOutbox::new());
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
        games.add::<TicTacToe>().expect("the first game");
        let (_, game) = games.find("tictactoe").expect("it was added");
        let (mut first, mut second, mut view) = ([0; 64], [0; 64], [0; 64]);
        let mut out = ErasedOutbox::new();
        let start = game.start(&[], 2, 0, &mut first).expect("it starts");
        let step = game
            .act(&first[..start.state_bytes], 0, &[8], &mut out, &mut second)
            .expect("a legal move");
        assert_eq!(
            step,
            Step {
                state_bytes: 12,
                outcome: None,
                to_move: Some(1)
            }
        );
        assert_eq!(out.iter().collect::<Vec<_>>(), [(Audience::All, &[0, 8][..])]);
        let bytes = game
            .view(&second[..12], Viewer::Seat(1), &mut view)
            .expect("it is seen");
        assert_eq!(view[..bytes], [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
    }
}
