//! Tug of war: a small real-time game. Both players pull as often as they can; the rope gives way once a tick, to the
//! side that has pulled more often since the last one.
//!
//! ```text
//! cargo run --example tug_of_war      # a server: players on 127.0.0.1:4000, the console on 4001
//! telnet 127.0.0.1 4000               # in two other terminals: `quick tug_of_war`, `ansi on`, `ready`, then `pull`
//! ```

use std::ops::RangeInclusive;

use forkade::games::{Game, Outbox, Outcome, Rejection, Start, Viewer};
use serde::{Deserialize, Serialize};

const HALF_ROPE: i8 = 5;

/// Input between two ticks is kept in the state: any process may run the next tick.
#[derive(Clone, Default, Serialize, Deserialize)]
struct TugOfWar {
    pulls: [u16; 2],
    /// From `-HALF_ROPE` (seat 0 has won) to `HALF_ROPE`.
    knot: i8,
}

impl Game for TugOfWar {
    type Options = ();
    type Action = ();
    type Event = i8; // Where the knot is now.
    type View = i8;
    const NAME: &'static str = "tug_of_war";
    const SEATS: RangeInclusive<u8> = 2..=2;
    const TICKS_PER_SECOND: u16 = 4;
    const START: Start = Start::WhenSeatsReady;

    fn new((): (), _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(Self::default())
    }

    fn act(&mut self, seat: u8, (): (), _out: &mut Outbox<i8>) -> Result<(), Rejection> {
        let pulls = &mut self.pulls[usize::from(seat)];
        *pulls = pulls.saturating_add(1);
        Ok(())
    }

    fn tick(&mut self, out: &mut Outbox<i8>) {
        let [left, right] = std::mem::take(&mut self.pulls);
        let step = (i8::from(right > left)) - i8::from(left > right);
        if step != 0 {
            self.knot += step;
            // Nothing is sent in a tick in which nothing happens.
            out.to_all(&self.knot);
        }
    }

    fn leave(&mut self, seat: u8, _out: &mut Outbox<i8>) {
        self.knot = if seat == 0 { HALF_ROPE } else { -HALF_ROPE };
    }

    fn view(&self, _viewer: Viewer) -> i8 {
        self.knot
    }

    fn outcome(&self) -> Option<Outcome> {
        let winner = u8::from(self.knot > 0);
        (self.knot.abs() >= HALF_ROPE).then(|| Outcome::Won { seats: vec![winner] })
    }

    fn parse_action(text: &str, _view: Option<&Self::View>) -> Result<(), Rejection> {
        match text.trim() {
            "pull" => Ok(()),
            _ => Err(Rejection::bad_action("type pull, as often as you can")),
        }
    }

    fn draw(knot: &i8, _name_of: &dyn Fn(u8) -> String) -> String {
        let rope = (-HALF_ROPE..=HALF_ROPE).map(|place| if place == *knot { 'o' } else { '-' });
        format!("0 {} 1\n", rope.collect::<String>())
    }
}

fn main() -> std::process::ExitCode {
    forkade::Server::new()
        .game::<TugOfWar>()
        .program("tug-of-war", env!("CARGO_PKG_VERSION"))
        .main()
}
