//! Tic-tac-toe: pairs play random legal matches, one after the other. Every client keeps a board of its own from the
//! events it gets, moves when that board says that it is to move, and checks each event against what was really played
//! and each result against its board. After a match a pair starts the next one, now by a rematch, now in a new room.

mod board;
mod pair;

use forkade_protocol::ServerMessage;

use self::pair::Pair;
use super::{Actions, ClientIndex, Counts, Figures, Workload};
use crate::latency::Latency;
use crate::options::{Options, Shape};
use crate::schedule::Schedule;

/// The tic-tac-toe workload. Clients 2i and 2i + 1 are pair i.
#[derive(Debug)]
pub(crate) struct Tictactoe {
    pairs: Vec<Pair>,
    tally: Tally,
}

/// What all pairs share.
#[derive(Debug)]
struct Tally {
    /// Least time between two moves of one client, in nanoseconds; 0: none.
    move_interval_ns: u64,
    /// No move after this time.
    end_ns: u64,
    stopped: bool,
    counts: Counts,
    latency: Latency,
    round_trip: Latency,
}

impl Tictactoe {
    pub(crate) fn new(options: &Options, shape: Shape) -> Self {
        let capped = options.rate > 0.0;
        Self {
            pairs: (0..shape.rooms)
                .map(|number| Pair::new(number, options.seed))
                .collect(),
            tally: Tally {
                move_interval_ns: if capped {
                    Schedule::new(0, options.rate).interval_ns()
                } else {
                    0
                },
                end_ns: 0,
                stopped: false,
                counts: Counts::default(),
                latency: Latency::new(),
                round_trip: Latency::new(),
            },
        }
    }
}

impl Workload for Tictactoe {
    fn start(&mut self, now_ns: u64, end_ns: u64, actions: &mut Actions) {
        self.tally.end_ns = end_ns;
        for pair in &mut self.pairs {
            pair.start(now_ns, &self.tally, actions);
        }
    }

    fn due(&mut self, client: ClientIndex, intended_ns: u64, _now_ns: u64, actions: &mut Actions) {
        let (pair, member) = (client as usize / 2, client as usize % 2);
        self.pairs[pair].make_move(member, intended_ns, &mut self.tally, actions);
    }

    fn received(&mut self, client: ClientIndex, message: ServerMessage, now_ns: u64, actions: &mut Actions) {
        let (pair, member) = (client as usize / 2, client as usize % 2);
        self.pairs[pair].received(member, message, now_ns, &mut self.tally, actions);
    }

    fn stop(&mut self) {
        self.tally.stopped = true;
    }

    fn is_settled(&self) -> bool {
        self.pairs.iter().all(Pair::is_at_rest)
    }

    fn counts(&self) -> Counts {
        self.tally.counts
    }

    fn figures(&self) -> Figures {
        let mut counts = self.tally.counts;
        // A pair that still waits for the server now would do so for ever.
        counts.mismatches += self.pairs.iter().filter(|pair| !pair.is_at_rest()).count() as u64;
        Figures {
            counts,
            lost: self.pairs.iter().map(Pair::lost).sum(),
            unsent: 0,
            latency: self.tally.latency.clone(),
            round_trip: self.tally.round_trip.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use forkade_protocol::{
        ClientMessage, Outcome, Phase, RejectCode, RoomEvent, RoomId, RoomRules, Snapshot, codec,
    };

    use super::board::{Board, Placed};
    use super::*;

    const END_NS: u64 = 1_000_000;

    /// A room for one pair, by the server's rules; it answers into queues that a test may tamper with.
    struct Referee {
        board: Board,
        phase: Phase,
        ready: [bool; 2],
        queue: VecDeque<(ClientIndex, ServerMessage)>,
    }

    impl Referee {
        fn new() -> Self {
            Self {
                board: Board::empty(0),
                phase: Phase::Waiting,
                ready: [false; 2],
                queue: VecDeque::new(),
            }
        }

        fn snapshot(&self, seat: ClientIndex) -> Snapshot {
            let view = if self.phase == Phase::Waiting {
                Vec::new()
            } else {
                codec::encode(&self.board).unwrap()
            };
            Snapshot {
                room: RoomId(1),
                game: "tictactoe".to_owned(),
                name: "load 0".to_owned(),
                phase: self.phase,
                seat: u8::try_from(seat).ok(),
                seats: Vec::new(),
                spectators: 0,
                event: 0,
                view,
                owner: Some(0),
                rules: RoomRules::default(),
                reservations: Vec::new(),
                turn: None,
            }
        }

        fn tell_both(&mut self, event: &RoomEvent) {
            for client in 0..2 {
                self.queue.push_back((
                    client,
                    ServerMessage::Event {
                        number: 0,
                        event: event.clone(),
                    },
                ));
            }
        }

        fn take(&mut self, client: ClientIndex, message: ClientMessage) {
            match message {
                ClientMessage::Ready { .. } | ClientMessage::Rematch { .. } => {
                    self.ready[client as usize] = true;
                    if self.ready == [true; 2] {
                        (self.board, self.phase, self.ready) = (Board::empty(0), Phase::Playing, [false; 2]);
                        for client in 0..2 {
                            let snapshot = self.snapshot(client);
                            self.queue
                                .push_back((client, ServerMessage::Started { snapshot }));
                        }
                    }
                }
                ClientMessage::Act { action, .. } => {
                    let (seat, cell) = (u8::try_from(client).unwrap(), codec::decode(&action).unwrap());
                    assert!(self.board.place(seat, cell), "an illegal move was sent");
                    let data = codec::encode(&Placed { seat, cell }).unwrap();
                    self.tell_both(&RoomEvent::Game { data });
                    if let Some(outcome) = self.board.outcome() {
                        self.phase = Phase::Finished;
                        self.tell_both(&RoomEvent::Finished { outcome });
                    }
                }
                ClientMessage::Leave { request } => {
                    self.queue.push_back((client, ServerMessage::Left { request }))
                }
                ClientMessage::CreateRoom { request, .. } | ClientMessage::JoinRoom { request, .. } => {
                    (self.board, self.phase, self.ready) = (Board::empty(0), Phase::Waiting, [false; 2]);
                    let snapshot = self.snapshot(client);
                    self.queue
                        .push_back((client, ServerMessage::Joined { request, snapshot }));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// One pair plays until `matches` are over. `tamper` may change the `n`th message that a client gets, drop it, or
    /// double it.
    fn play(matches: u64, mut tamper: impl FnMut(usize, ServerMessage) -> Vec<ServerMessage>) -> Figures {
        let (options, shape) =
            crate::options::Options::for_test(&["--workload", "tictactoe", "--clients", "2", "--rate", "0"]);
        let mut workload = Tictactoe::new(&options, shape);
        let (mut referee, mut actions) = (Referee::new(), Actions::default());
        workload.start(0, END_NS, &mut actions);
        let mut count = 0;
        loop {
            for (client, message) in actions.sends.drain(..) {
                referee.take(client, message);
            }
            let Some((client, message)) = referee.queue.pop_front() else {
                break;
            };
            for told in tamper(count, message) {
                workload.received(client, told, 1_000, &mut actions);
            }
            count += 1;
            if workload.counts().matches == matches {
                workload.stop();
            }
        }
        workload.figures()
    }

    #[test]
    fn many_matches_are_played_in_turn_and_nothing_is_amiss() {
        let figures = play(50, |_, message| vec![message]);
        assert!((50..=51).contains(&figures.counts.matches), "{figures:?}");
        assert!(figures.counts.sent >= 50 * 5);
        assert_eq!(figures.counts.received, 2 * figures.counts.sent);
        assert_eq!(
            (figures.counts.mismatches, figures.counts.duplicated, figures.lost),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_wrong_result_is_a_mismatch() {
        let figures = play(3, |_, message| match message {
            ServerMessage::Event {
                number,
                event: RoomEvent::Finished { .. },
            } => {
                let event = RoomEvent::Finished {
                    outcome: Outcome::Abandoned,
                };
                vec![ServerMessage::Event { number, event }]
            }
            other => vec![other],
        });
        assert_eq!((figures.counts.mismatches, figures.counts.matches), (1, 0));
    }

    #[test]
    fn a_move_that_nobody_made_is_a_mismatch() {
        let data = codec::encode(&Placed { seat: 0, cell: 9 }).unwrap();
        let forged = ServerMessage::Event {
            number: 0,
            event: RoomEvent::Game { data },
        };
        let figures = play(1, |count, message| {
            if count == 3 {
                vec![forged.clone()]
            } else {
                vec![message]
            }
        });
        assert_eq!(figures.counts.mismatches, 1);
    }

    #[test]
    fn a_move_told_twice_is_a_duplicate_and_play_goes_on() {
        let figures = play(3, |_, message| match message {
            ServerMessage::Event {
                event: RoomEvent::Game { .. },
                ..
            } => vec![message.clone(), message],
            other => vec![other],
        });
        assert_eq!(figures.counts.duplicated, 2 * figures.counts.sent);
        assert_eq!((figures.counts.mismatches, figures.lost), (0, 0));
        assert!(figures.counts.matches >= 3);
    }

    #[test]
    fn a_move_that_is_never_told_is_lost_and_leaves_the_pair_waiting() {
        // The messages: two of the start, then each move to both.
        let figures = play(
            1,
            |count, message| if count == 3 { vec![] } else { vec![message] },
        );
        assert_eq!(
            (figures.lost, figures.counts.mismatches, figures.counts.matches),
            (1, 1, 0)
        );
    }

    #[test]
    fn a_refused_request_is_a_mismatch_but_the_refused_move_is_not_lost() {
        let refusal = ServerMessage::Rejected {
            request: 2,
            code: RejectCode::GameFailed,
            text: String::new(),
        };
        let figures = play(1, |count, message| {
            if count == 2 {
                vec![refusal.clone()]
            } else if count > 2 {
                vec![]
            } else {
                vec![message]
            }
        });
        assert_eq!(
            (figures.counts.rejected, figures.counts.mismatches, figures.lost),
            (1, 1, 0)
        );
    }

    #[test]
    fn a_beginning_that_contains_the_first_move_counts_it_as_told() {
        // The second player hears late that the match began: its picture has the move, and the event does not come.
        let mut late = None;
        let figures = play(1, |count, message| match (count, message) {
            (1, ServerMessage::Started { snapshot }) => {
                late = Some(snapshot);
                vec![]
            }
            (
                3,
                ServerMessage::Event {
                    event: RoomEvent::Game { data },
                    ..
                },
            ) => {
                let placed: Placed = codec::decode(&data).unwrap();
                let mut snapshot = late.take().unwrap();
                let mut board = Board::empty(0);
                assert!(board.place(placed.seat, placed.cell));
                snapshot.view = codec::encode(&board).unwrap();
                vec![ServerMessage::Started { snapshot }]
            }
            (_, message) => vec![message],
        });
        assert_eq!(figures.counts.received, 2 * figures.counts.sent);
        assert_eq!((figures.counts.mismatches, figures.lost), (0, 0));
        assert!(figures.counts.matches >= 1);
    }
}
