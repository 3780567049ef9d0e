//! Games for two: pairs of clients play random legal matches, one after the other. Every client keeps a board
//! of its own from the events that it receives, moves when it is its turn by that board, and checks each
//! event against the moves that were really played and each result against its board. After a match a pair
//! starts the next one, either by a rematch or in a new room.

mod board;
mod connect4;
mod pair;
#[cfg(test)]
mod tests;
mod tictactoe;

use forkade_protocol::ServerMessage;

use self::board::Board;
pub(crate) use self::connect4::Connect4;
use self::pair::Pair;
pub(crate) use self::tictactoe::TicTacToe;
use super::{Actions, ClientIndex, Counts, Figures, Workload};
use crate::plan::WorkloadPlan;

/// The workload of one such game. Clients 2i and 2i + 1 are pair i.
#[derive(Debug)]
pub(crate) struct Duel<B> {
    pairs: Vec<Pair<B>>,
    shared: SharedState,
}

/// The state that all pairs share.
#[derive(Debug)]
struct SharedState {
    /// Shortest time between two moves of one client, in nanoseconds; 0: none.
    move_interval_ns: u64,
    /// No move is sent after this time.
    end_ns: u64,
    stopped: bool,
    counts: Counts,
}

impl<B: Board> Duel<B> {
    pub(crate) fn new(plan: &WorkloadPlan) -> Self {
        Self {
            pairs: (0..plan.shape.rooms)
                .map(|number| Pair::new(number, plan.seed))
                .collect(),
            shared: SharedState {
                move_interval_ns: plan.interval_ns(),
                end_ns: 0,
                stopped: false,
                counts: Counts::default(),
            },
        }
    }
}

impl<B: Board> Workload for Duel<B> {
    fn start(&mut self, now_ns: u64, end_ns: u64, actions: &mut Actions) {
        self.shared.end_ns = end_ns;
        for pair in &mut self.pairs {
            pair.start(now_ns, &self.shared, actions);
        }
    }

    fn due(&mut self, client: ClientIndex, intended_ns: u64, _now_ns: u64, actions: &mut Actions) {
        let (pair, member) = (client as usize / 2, client as usize % 2);
        self.pairs[pair].make_move(member, intended_ns, &mut self.shared, actions);
    }

    fn received(&mut self, client: ClientIndex, message: ServerMessage, now_ns: u64, actions: &mut Actions) {
        let (pair, member) = (client as usize / 2, client as usize % 2);
        self.pairs[pair].received(member, message, now_ns, &mut self.shared, actions);
    }

    fn stop(&mut self, _now_ns: u64) {
        self.shared.stopped = true;
    }

    fn is_settled(&self) -> bool {
        self.pairs.iter().all(Pair::is_idle)
    }

    fn counts(&self) -> Counts {
        self.shared.counts
    }

    fn figures(&self) -> Figures {
        let mut counts = self.shared.counts;
        // A pair that still waits for the server at the end would wait forever.
        counts.mismatches += self.pairs.iter().filter(|pair| !pair.is_idle()).count() as u64;
        Figures {
            counts,
            lost: self.pairs.iter().map(Pair::lost).sum(),
            ..Figures::default()
        }
    }
}
