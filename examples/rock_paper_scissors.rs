//! Rock, paper, scissors: a complete game that only links the library, and a server that offers it. Both players throw
//! at the same time, and the throws are shown when both have thrown. The first player to win three rounds wins.
//!
//! ```text
//! cargo run --example rock_paper_scissors      # a server: players on 127.0.0.1:4000, the console on 4001
//! telnet 127.0.0.1 4000                        # in two other terminals; press Enter, and `help` lists the commands
//! ```
//! One player types `create rock_paper_scissors`, the other `rooms` and `join`. Both type `ready`, and then for example
//! `paper`.

use std::ops::RangeInclusive;

use forkade::games::{Game, Outbox, Outcome, Rejection, Start, Viewer};
use serde::{Deserialize, Serialize};

const ROUNDS_TO_WIN: u8 = 3;
const HANDS: [Hand; 3] = [Hand::Rock, Hand::Paper, Hand::Scissors];

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Hand {
    Rock,
    Paper,
    Scissors,
}

/// The state of a match. In a view, `thrown` contains only the viewer's own hand.
#[derive(Clone, Default, Serialize, Deserialize)]
struct RockPaperScissors {
    thrown: [Option<Hand>; 2],
    has_thrown: [bool; 2],
    wins: [u8; 2],
}

impl Game for RockPaperScissors {
    type Options = ();
    type Action = Hand;
    type Event = (u8, Option<[Hand; 2]>); // The seat that has thrown, and both hands when both have thrown.
    type View = RockPaperScissors;
    const NAME: &'static str = "rock_paper_scissors";
    const SEATS: RangeInclusive<u8> = 2..=2;
    const TICKS_PER_SECOND: u16 = 0;
    const START: Start = Start::WhenSeatsReady;

    fn new(_options: (), _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(Self::default())
    }

    fn act(&mut self, seat: u8, hand: Hand, out: &mut Outbox<Self::Event>) -> Result<(), Rejection> {
        if std::mem::replace(&mut self.has_thrown[usize::from(seat)], true) {
            return Err(Rejection::illegal_action("wait for the other one"));
        }
        self.thrown[usize::from(seat)] = Some(hand);
        let [Some(first), Some(second)] = self.thrown else {
            out.to_all(&(seat, None));
            return Ok(());
        };
        // 0: a draw; 1: the first seat has won this round; 2: the second.
        let winner = (3 + first as usize - second as usize) % 3;
        if winner > 0 {
            self.wins[winner - 1] += 1;
        }
        (self.thrown, self.has_thrown) = ([None; 2], [false; 2]);
        out.to_all(&(seat, Some([first, second])));
        Ok(())
    }

    fn leave(&mut self, seat: u8, _out: &mut Outbox<Self::Event>) {
        self.wins[1 - usize::from(seat)] = ROUNDS_TO_WIN;
    }

    fn view(&self, viewer: Viewer) -> Self {
        let own = |seat: u8| self.thrown[usize::from(seat)].filter(|_| viewer == Viewer::Seat(seat));
        let mut view = self.clone();
        view.thrown = [own(0), own(1)];
        view
    }

    fn outcome(&self) -> Option<Outcome> {
        let winner = (0..).zip(self.wins).find(|&(_, wins)| wins >= ROUNDS_TO_WIN);
        winner.map(|(seat, _)| Outcome::Won { seats: vec![seat] })
    }

    fn parse_action(text: &str, _view: Option<&Self::View>) -> Result<Hand, Rejection> {
        let matches = |hand: &Hand| format!("{hand:?}").eq_ignore_ascii_case(text.trim());
        let hand = HANDS.into_iter().find(matches);
        hand.ok_or_else(|| Rejection::bad_action("type rock, paper or scissors"))
    }

    fn draw(view: &Self, _name_of: &dyn Fn(u8) -> String) -> String {
        let seat = |seat: usize| match (view.thrown[seat], view.has_thrown[seat]) {
            (Some(hand), _) => format!("{hand:?}"),
            (None, has_thrown) => (if has_thrown { "thrown" } else { "still thinks" }).to_owned(),
        };
        format!("{} : {} ({}, {})\n", view.wins[0], view.wins[1], seat(0), seat(1))
    }
}

fn main() -> std::process::ExitCode {
    forkade::Server::new().game::<RockPaperScissors>().main()
}
