//! Two clients that play each other: what they do next, and whether the events they receive are those of the
//! moves that were played.

use std::collections::BTreeSet;

use forkade_protocol::{ClientMessage, Outcome, Phase, RoomEvent, RoomId, ServerMessage, Snapshot, codec};

use super::SharedState;
use super::board::{Board, Mark};
use crate::client_protocol::create_room;
use crate::random::Random;
use crate::workload::sequence_checker::{Observation, SequenceChecker};
use crate::workload::{Actions, ClientIndex};

/// A pair of clients, members 0 and 1.
#[derive(Debug)]
pub(super) struct Pair<B> {
    number: u32,
    stage: Stage,
    players: [Player<B>; 2],
    /// The moves of the current match that were sent.
    moves: Vec<Move>,
    board: B,
    /// Number of moves of all matches before. The number of a move is this plus its index in `moves`.
    moves_before: u64,
    /// Numbers of moves that the server refused.
    refused: BTreeSet<u64>,
    /// Outstanding receipts of moves, as far as known.
    outstanding: u64,
    random: Random,
}

/// What a pair is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Both have sent that they are ready; not both have seen the match start.
    Starting,
    Playing,
    /// The match is over and no further one follows.
    Idle,
    /// Both leave the room; `remaining` members are still in it.
    Leaving {
        remaining: u8,
    },
    /// Member 0 creates a new room.
    Creating,
    /// Member 1 joins it.
    Joining,
    /// A check failed (counted as a mismatch); the pair plays no more.
    Failed,
}

/// One member's own view of the match.
#[derive(Debug)]
struct Player<B> {
    client: ClientIndex,
    seat: u8,
    board: B,
    /// Whether it has seen the current match start, and end.
    started: bool,
    finished: bool,
    /// It has decided to move and has not received that move yet.
    moving: bool,
    /// Earliest time of its next move, in nanoseconds.
    may_move_ns: u64,
    checker: SequenceChecker,
    last_request: u32,
}

impl<B> Player<B> {
    /// The time of its next move. With a rate, that is one of its own evenly spaced times: if members that
    /// waited for the server moved at once, one stall would synchronize all pairs from then on.
    fn next_due_ns(&self, now_ns: u64, interval_ns: u64) -> u64 {
        match now_ns.checked_sub(self.may_move_ns) {
            Some(late_ns) if interval_ns > 0 => {
                self.may_move_ns + late_ns.div_ceil(interval_ns) * interval_ns
            }
            Some(_) => now_ns,
            None => self.may_move_ns,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Move {
    mark: Mark,
    action: u8,
    intended_ns: u64,
}

impl<B: Board> Pair<B> {
    pub(super) fn new(number: u32, seed: u64) -> Self {
        let player = |member| Player {
            client: number * 2 + member,
            seat: 0,
            board: B::empty(0),
            started: false,
            finished: false,
            moving: false,
            may_move_ns: 0,
            checker: SequenceChecker::default(),
            last_request: 0,
        };
        Self {
            number,
            stage: Stage::Idle,
            players: [player(0), player(1)],
            moves: Vec::new(),
            board: B::empty(0),
            moves_before: 0,
            refused: BTreeSet::new(),
            outstanding: 0,
            random: Random::new(seed, u64::from(number)),
        }
    }

    /// Begins the first match, in the room that both are in.
    pub(super) fn start(&mut self, now_ns: u64, shared: &SharedState, actions: &mut Actions) {
        for player in &mut self.players {
            // Spread over the interval: otherwise all pairs would move at once.
            player.may_move_ns = now_ns + self.random.below(shared.move_interval_ns.max(1));
        }
        self.send_ready(actions);
    }

    /// Sends the move that the member decided to make at `intended_ns`.
    pub(super) fn make_move(
        &mut self,
        member: usize,
        intended_ns: u64,
        shared: &mut SharedState,
        actions: &mut Actions,
    ) {
        let player = &mut self.players[member];
        if shared.stopped || intended_ns >= shared.end_ns || self.stage == Stage::Failed {
            return;
        }
        let Some(action) = self.random.pick(&player.board.actions()).copied() else {
            return;
        };
        let seat = player.seat;
        let Some(mark) = self.board.play(seat, action) else {
            // The member's board allowed this move, so that board is wrong.
            self.fail(shared);
            return;
        };
        player.may_move_ns = intended_ns + shared.move_interval_ns;
        self.moves.push(Move {
            mark,
            action,
            intended_ns,
        });
        self.outstanding += 2;
        shared.counts.sent += 1;
        let action = codec::encode(&action).expect("a number can be encoded");
        self.send(member, actions, |request| ClientMessage::Act { request, action });
    }

    pub(super) fn received(
        &mut self,
        member: usize,
        message: ServerMessage,
        now_ns: u64,
        shared: &mut SharedState,
        actions: &mut Actions,
    ) {
        if self.stage == Stage::Failed {
            return;
        }
        match message {
            ServerMessage::Started { snapshot } => {
                self.on_started(member, &snapshot, now_ns, shared, actions)
            }
            ServerMessage::Event {
                event: RoomEvent::Game { data },
                ..
            } => {
                self.on_move(member, &data, now_ns, shared, actions);
            }
            ServerMessage::Event {
                event: RoomEvent::Finished { outcome },
                ..
            } => {
                self.on_finished(member, Some(&outcome), shared, actions);
            }
            ServerMessage::Left { .. } => self.on_left(shared, actions),
            ServerMessage::Joined { snapshot, .. } => self.on_joined(snapshot.room, shared, actions),
            ServerMessage::Resync { snapshot } => self.on_resync(member, snapshot, shared, actions),
            ServerMessage::Rejected { .. } => self.on_rejected(member, shared),
            _ => {}
        }
        self.schedule_move(member, now_ns, shared, actions);
    }

    /// Whether nothing is expected from the server, except consequences of further moves.
    pub(super) fn is_idle(&self) -> bool {
        match self.stage {
            Stage::Playing => self.outstanding == 0 && self.board.outcome().is_none(),
            Stage::Idle | Stage::Failed => true,
            Stage::Starting | Stage::Leaving { .. } | Stage::Creating | Stage::Joining => false,
        }
    }

    /// Receipts of moves that have not arrived.
    pub(super) fn lost(&self) -> u64 {
        let sent = self.moves_before + self.moves.len() as u64;
        self.players
            .iter()
            .map(|player| player.checker.lost(sent, &self.refused))
            .sum()
    }

    fn send_ready(&mut self, actions: &mut Actions) {
        self.stage = Stage::Starting;
        for member in 0..2 {
            self.send(member, actions, |request| ClientMessage::Ready {
                request,
                ready: true,
            });
        }
    }

    /// The match starts for one member. Its snapshot may contain moves already, because the other member may
    /// have seen the start earlier.
    fn on_started(
        &mut self,
        member: usize,
        snapshot: &Snapshot,
        now_ns: u64,
        shared: &mut SharedState,
        actions: &mut Actions,
    ) {
        let Some(contained) = self.apply_snapshot(member, snapshot, shared) else {
            return;
        };
        for index in 0..contained {
            self.observe(member, index, now_ns, shared, actions);
        }
    }

    fn on_move(
        &mut self,
        member: usize,
        data: &[u8],
        now_ns: u64,
        shared: &mut SharedState,
        actions: &mut Actions,
    ) {
        let Some(mark) = B::event(data) else {
            return self.fail(shared);
        };
        let Some(index) = self.moves.iter().position(|played| played.mark == mark) else {
            return self.fail(shared);
        };
        let action = self.moves[index].action;
        if self.observe(member, index, now_ns, shared, actions) == Observation::InOrder
            && self.players[member].board.play(mark.seat, action) != Some(mark)
        {
            self.fail(shared);
        }
    }

    /// One member has received the move at `index`.
    fn observe(
        &mut self,
        member: usize,
        index: usize,
        now_ns: u64,
        shared: &mut SharedState,
        actions: &mut Actions,
    ) -> Observation {
        let (player, played) = (&mut self.players[member], self.moves[index]);
        let observation = player.checker.observe(self.moves_before + index as u64);
        shared.counts.received += 1;
        match observation {
            Observation::Duplicated => {
                shared.counts.duplicated += 1;
                return observation;
            }
            Observation::Reordered => shared.counts.reordered += 1,
            Observation::InOrder => {}
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        let own = played.mark.seat == player.seat;
        actions.receipt(played.intended_ns, now_ns, own);
        if own {
            player.moving = false;
        }
        observation
    }

    /// The match is over for one member, with the `outcome` that it received. When it is over for both, the
    /// next one begins.
    fn on_finished(
        &mut self,
        member: usize,
        outcome: Option<&Outcome>,
        shared: &mut SharedState,
        actions: &mut Actions,
    ) {
        let player = &mut self.players[member];
        let expected = player.board.outcome();
        if expected.is_none()
            || outcome.is_some_and(|reported| Some(reported) != expected.as_ref())
            || player.finished
        {
            return self.fail(shared);
        }
        player.finished = true;
        if self.players.iter().all(|player| player.finished) {
            shared.counts.matches += 1;
            self.start_next_match(shared, actions);
        }
    }

    fn start_next_match(&mut self, shared: &SharedState, actions: &mut Actions) {
        for player in &mut self.players {
            (player.started, player.finished, player.moving) = (false, false, false);
        }
        if shared.stopped {
            self.stage = Stage::Idle;
        } else if self.random.below(2) == 0 {
            self.stage = Stage::Starting;
            for member in 0..2 {
                self.send(member, actions, |request| ClientMessage::Rematch { request });
            }
        } else {
            self.stage = Stage::Leaving { remaining: 2 };
            for member in 0..2 {
                self.send(member, actions, |request| ClientMessage::Leave { request });
            }
        }
    }

    fn on_left(&mut self, shared: &mut SharedState, actions: &mut Actions) {
        match self.stage {
            Stage::Leaving { remaining: 2 } => self.stage = Stage::Leaving { remaining: 1 },
            Stage::Leaving { .. } if shared.stopped => self.stage = Stage::Idle,
            Stage::Leaving { .. } => {
                self.stage = Stage::Creating;
                let number = self.number;
                self.send(0, actions, |request| create_room(request, B::GAME, number, 2));
            }
            _ => self.fail(shared),
        }
    }

    fn on_joined(&mut self, room: RoomId, shared: &mut SharedState, actions: &mut Actions) {
        match self.stage {
            Stage::Creating => {
                self.stage = Stage::Joining;
                self.send(1, actions, |request| ClientMessage::JoinRoom {
                    request,
                    room,
                    passcode: None,
                });
            }
            Stage::Joining => self.send_ready(actions),
            _ => self.fail(shared),
        }
    }

    /// The member has received a snapshot instead of the events since. The checker counts the skipped moves
    /// as lost; here the pair only continues.
    fn on_resync(
        &mut self,
        member: usize,
        snapshot: Option<Snapshot>,
        shared: &mut SharedState,
        actions: &mut Actions,
    ) {
        let Some(snapshot) = snapshot else {
            return self.on_left(shared, actions);
        };
        match (self.stage, snapshot.phase) {
            (Stage::Creating | Stage::Joining, _) => self.on_joined(snapshot.room, shared, actions),
            (Stage::Leaving { .. }, _) | (Stage::Starting, Phase::Waiting) => {}
            (Stage::Starting | Stage::Playing, Phase::Playing | Phase::Finished) => {
                let known = self.players[member].checker.next();
                let Some(contained) = self.apply_snapshot(member, &snapshot, shared) else {
                    return;
                };
                let skipped = (self.moves_before + contained as u64).saturating_sub(known);
                self.outstanding = self.outstanding.saturating_sub(skipped);
                if snapshot.phase == Phase::Finished && !self.players[member].finished {
                    self.on_finished(member, None, shared, actions);
                }
            }
            _ => self.fail(shared),
        }
    }

    /// Sets a member's board to the server's snapshot. Returns how many of the sent moves the snapshot
    /// contains.
    fn apply_snapshot(
        &mut self,
        member: usize,
        snapshot: &Snapshot,
        shared: &mut SharedState,
    ) -> Option<usize> {
        let view = codec::decode::<B>(&snapshot.view).ok();
        let (Some(view), Some(seat)) = (view, snapshot.seat) else {
            self.fail(shared);
            return None;
        };
        if !self.players.iter().any(|player| player.started) {
            // A new match: no move can have been made in it.
            self.moves_before += self.moves.len() as u64;
            self.moves.clear();
            self.board = B::empty(view.next());
        }
        let contained = view.moves_made();
        let first_mover = if self.moves.len().is_multiple_of(2) {
            self.board.next()
        } else {
            1 - self.board.next()
        };
        let mut replayed = B::empty(first_mover);
        for played in self.moves.iter().take(contained) {
            replayed.play(played.mark.seat, played.action);
        }
        if replayed != view || seat > 1 {
            self.fail(shared);
            return None;
        }
        let player = &mut self.players[member];
        (player.seat, player.board, player.started) = (seat, replayed, true);
        if self.players.iter().all(|player| player.started) {
            self.stage = Stage::Playing;
        }
        Some(contained)
    }

    /// The server refused a request, although all requests are legal.
    fn on_rejected(&mut self, member: usize, shared: &mut SharedState) {
        let player = &self.players[member];
        shared.counts.rejected += 1;
        if player.moving
            && self
                .moves
                .last()
                .is_some_and(|last| last.mark.seat == player.seat)
        {
            self.refused
                .insert(self.moves_before + self.moves.len() as u64 - 1);
        }
        self.fail(shared);
    }

    fn fail(&mut self, shared: &mut SharedState) {
        shared.counts.mismatches += 1;
        self.stage = Stage::Failed;
    }

    /// If it is the member's turn by its own board, it moves as soon as its rate allows.
    fn schedule_move(&mut self, member: usize, now_ns: u64, shared: &mut SharedState, actions: &mut Actions) {
        let player = &mut self.players[member];
        let is_to_move = player.started
            && !player.moving
            && player.board.next() == player.seat
            && player.board.outcome().is_none();
        if !is_to_move || self.stage == Stage::Failed {
            return;
        }
        player.moving = true;
        let due_ns = player.next_due_ns(now_ns, shared.move_interval_ns);
        if due_ns > now_ns {
            actions.timers.push((due_ns, player.client));
        } else {
            self.make_move(member, now_ns, shared, actions);
        }
    }

    fn send(&mut self, member: usize, actions: &mut Actions, message: impl FnOnce(u32) -> ClientMessage) {
        let player = &mut self.players[member];
        player.last_request = player.last_request.wrapping_add(1);
        actions.sends.push((player.client, message(player.last_request)));
    }
}
