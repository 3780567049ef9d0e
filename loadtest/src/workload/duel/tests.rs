//! A pair plays on a simulated server whose messages a test may change.

use std::collections::VecDeque;

use forkade_protocol::{
    ClientMessage, Outcome, Phase, RejectCode, RoomEvent, RoomId, RoomRules, Snapshot, codec,
};

use super::board::Mark;
use super::*;
use crate::options::Options;

const END_NS: u64 = 1_000_000;

/// A room for one pair, by the server's rules. It answers into a queue.
struct SimulatedServer<B> {
    board: B,
    phase: Phase,
    ready: [bool; 2],
    queue: VecDeque<(ClientIndex, ServerMessage)>,
}

impl<B: Board> SimulatedServer<B> {
    fn new() -> Self {
        Self {
            board: B::empty(0),
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
            game: B::GAME.to_owned(),
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

    fn send_to_both(&mut self, event: &RoomEvent) {
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

    fn handle(&mut self, client: ClientIndex, message: ClientMessage) {
        match message {
            ClientMessage::Ready { .. } | ClientMessage::Rematch { .. } => {
                self.ready[client as usize] = true;
                if self.ready == [true; 2] {
                    (self.board, self.phase, self.ready) = (B::empty(0), Phase::Playing, [false; 2]);
                    for client in 0..2 {
                        let snapshot = self.snapshot(client);
                        self.queue
                            .push_back((client, ServerMessage::Started { snapshot }));
                    }
                }
            }
            ClientMessage::Act { action, .. } => {
                let (seat, action) = (u8::try_from(client).unwrap(), codec::decode(&action).unwrap());
                let mark = self.board.play(seat, action).expect("an illegal move was sent");
                let data = B::encode_event(mark);
                self.send_to_both(&RoomEvent::Game { data });
                if let Some(outcome) = self.board.outcome() {
                    self.phase = Phase::Finished;
                    self.send_to_both(&RoomEvent::Finished { outcome });
                }
            }
            ClientMessage::Leave { request } => {
                self.queue.push_back((client, ServerMessage::Left { request }))
            }
            ClientMessage::CreateRoom { request, .. } | ClientMessage::JoinRoom { request, .. } => {
                (self.board, self.phase, self.ready) = (B::empty(0), Phase::Waiting, [false; 2]);
                let snapshot = self.snapshot(client);
                self.queue
                    .push_back((client, ServerMessage::Joined { request, snapshot }));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Runs a test for both games.
macro_rules! in_both_games {
    ($test:ident) => {
        $test::<TicTacToe>();
        $test::<Connect4>();
    };
}

/// One pair plays until `matches` are over. `tamper` may change, drop or duplicate the `n`th message to a
/// client.
fn play<B: Board>(
    matches: u64,
    mut tamper: impl FnMut(usize, ServerMessage) -> Vec<ServerMessage>,
) -> Figures {
    let plan = Options::plan_for_test(&["--workload", B::GAME, "--clients", "2", "--rate", "0"]);
    let mut workload = Duel::<B>::new(&plan);
    let (mut server, mut actions) = (SimulatedServer::<B>::new(), Actions::default());
    workload.start(0, END_NS, &mut actions);
    let mut count = 0;
    loop {
        for (client, message) in actions.sends.drain(..) {
            server.handle(client, message);
        }
        let Some((client, message)) = server.queue.pop_front() else {
            break;
        };
        for reported in tamper(count, message) {
            workload.received(client, reported, 1_000, &mut actions);
        }
        count += 1;
        if workload.counts().matches == matches {
            workload.stop(1_000);
        }
    }
    workload.figures()
}

#[test]
fn many_matches_are_played_in_turn_without_errors() {
    fn test<B: Board>() {
        let figures = play::<B>(50, |_, message| vec![message]);
        assert!((50..=51).contains(&figures.counts.matches), "{figures:?}");
        assert!(figures.counts.sent >= 50 * 5);
        assert_eq!(figures.counts.received, 2 * figures.counts.sent);
        assert_eq!(
            (figures.counts.mismatches, figures.counts.duplicated, figures.lost),
            (0, 0, 0)
        );
    }
    in_both_games!(test);
}

#[test]
fn a_wrong_result_is_a_mismatch() {
    fn test<B: Board>() {
        let figures = play::<B>(3, |_, message| match message {
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
    in_both_games!(test);
}

#[test]
fn a_move_that_no_player_made_is_a_mismatch() {
    fn test<B: Board>() {
        let data = B::encode_event(Mark { seat: 0, cell: 41 });
        let forged = ServerMessage::Event {
            number: 0,
            event: RoomEvent::Game { data },
        };
        let figures = play::<B>(1, |count, message| {
            if count == 3 {
                vec![forged.clone()]
            } else {
                vec![message]
            }
        });
        assert_eq!(figures.counts.mismatches, 1);
    }
    in_both_games!(test);
}

#[test]
fn a_move_received_twice_is_a_duplicate_and_play_continues() {
    fn test<B: Board>() {
        let figures = play::<B>(3, |_, message| match message {
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
    in_both_games!(test);
}

#[test]
fn a_move_that_is_never_received_is_lost_and_leaves_the_pair_waiting() {
    fn test<B: Board>() {
        // The messages: two for the start, then each move to both.
        let figures = play::<B>(
            1,
            |count, message| if count == 3 { vec![] } else { vec![message] },
        );
        assert_eq!(
            (figures.lost, figures.counts.mismatches, figures.counts.matches),
            (1, 1, 0)
        );
    }
    in_both_games!(test);
}

#[test]
fn a_refused_request_is_a_mismatch_but_the_refused_move_is_not_lost() {
    fn test<B: Board>() {
        let refusal = ServerMessage::Rejected {
            request: 2,
            code: RejectCode::GameFailed,
            text: String::new(),
        };
        let figures = play::<B>(1, |count, message| {
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
    in_both_games!(test);
}

#[test]
fn a_start_that_contains_the_first_move_counts_it_as_received() {
    fn test<B: Board>() {
        // The second player receives the start late: its snapshot contains the move, and the event is
        // dropped.
        let mut late = None;
        let figures = play::<B>(1, |count, message| match (count, message) {
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
                let mark = B::event(&data).unwrap();
                let mut snapshot = late.take().unwrap();
                let mut board = B::empty(0);
                // A first disc falls to the bottom row, whose cells are numbered like columns.
                assert_eq!(board.play(mark.seat, mark.cell), Some(mark));
                snapshot.view = codec::encode(&board).unwrap();
                vec![ServerMessage::Started { snapshot }]
            }
            (_, message) => vec![message],
        });
        assert_eq!(figures.counts.received, 2 * figures.counts.sent);
        assert_eq!((figures.counts.mismatches, figures.lost), (0, 0));
        assert!(figures.counts.matches >= 1);
    }
    in_both_games!(test);
}
