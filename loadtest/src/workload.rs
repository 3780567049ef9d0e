//! What clients do. A workload decides and checks. It does no input or output and reads no clock: messages
//! and times in, [`Actions`] out.

mod broadcast;
mod chat;
mod duel;
mod examples;
mod fanout;
mod lobby;
mod pace;
mod relay;
mod sequence_checker;

use forkade_protocol::{ClientMessage, ServerMessage};
use serde::{Deserialize, Serialize};

use crate::plan::{WorkloadKind, WorkloadPlan};

/// Index of a client within its workload. With rooms: room `client / room_size`, member `client % room_size`;
/// member 0 created the room.
pub(crate) type ClientIndex = u32;

/// One workload with all its clients. Times are nanoseconds since the engine was created.
pub(crate) trait Workload {
    /// A client has been welcomed as a new player named `name`.
    fn welcomed(&mut self, _client: ClientIndex, _name: &str, _now_ns: u64, _actions: &mut Actions) {}
    /// All clients are in their rooms and the load begins. Nothing is due at `end_ns` or later.
    fn start(&mut self, now_ns: u64, end_ns: u64, actions: &mut Actions);
    /// A timer that the workload set for `client` is due. `intended_ns` is the time it was set to; `now_ns`
    /// may be later if this program or the client's connection was congested.
    fn due(&mut self, client: ClientIndex, intended_ns: u64, now_ns: u64, actions: &mut Actions);
    /// `client` has received `message`. Called only once all clients of the workload are in their rooms.
    fn received(&mut self, client: ClientIndex, message: ServerMessage, now_ns: u64, actions: &mut Actions);
    /// The load ends, at its planned end or before: nothing new is started from now on, and what would have
    /// been due later does not count as unsent.
    fn stop(&mut self, now_ns: u64);
    /// Whether, after [`Workload::stop`], no message is outstanding any more.
    fn is_settled(&self) -> bool;
    /// What was counted so far; cheap, for the progress display.
    fn counts(&self) -> Counts;
    /// The final figures, when messages that have not arrived count as lost.
    fn figures(&self) -> Figures;
}

/// Creates the workload of `plan`.
pub(crate) fn create(plan: &WorkloadPlan) -> Box<dyn Workload + Send> {
    match plan.kind {
        WorkloadKind::Relay => Box::new(relay::Relay::new(plan)),
        WorkloadKind::Tictactoe => Box::new(duel::Duel::<duel::TicTacToe>::new(plan)),
        WorkloadKind::Connect4 => Box::new(duel::Duel::<duel::Connect4>::new(plan)),
        WorkloadKind::Lobby => Box::new(lobby::Lobby::new(plan)),
        WorkloadKind::Chat => Box::new(chat::Chat::new(plan)),
        WorkloadKind::Broadcast | WorkloadKind::Announce => Box::new(broadcast::Broadcast::new(plan)),
    }
}

/// What the engine must do for a workload.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    /// Messages to send, in this order.
    pub sends: Vec<(ClientIndex, ClientMessage)>,
    /// Calls of [`Workload::due`], at these times.
    pub timers: Vec<(u64, ClientIndex)>,
    /// Received messages, for the measurement.
    pub receipts: Vec<Receipt>,
    /// Nanoseconds from the intended time of a message until the last recipient received it, where that is
    /// measured.
    pub completions: Vec<u64>,
    /// Clients that end their session and reconnect as new players. (They are [welcomed](Workload::welcomed)
    /// then.)
    pub new_players: Vec<ClientIndex>,
}

/// A message that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Counted from the time when it should have been sent.
    pub latency_ns: u64,
    /// Its own sender received it: a round trip.
    pub own: bool,
}

impl Actions {
    /// Records what was received at `now_ns` and should have been sent at `intended_ns`.
    pub(crate) fn receipt(&mut self, intended_ns: u64, now_ns: u64, own: bool) {
        let latency_ns = now_ns.saturating_sub(intended_ns);
        self.receipts.push(Receipt { latency_ns, own });
    }
}

/// Running counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Messages sent by clients: payloads, moves, requests, lines.
    pub sent: u64,
    /// Messages received by clients: each message reaches every member of its room; a request has one answer.
    pub received: u64,
    /// Received again.
    pub duplicated: u64,
    /// Received after a later one of the same sender.
    pub reordered: u64,
    /// What must never happen: foreign or altered content, a wrong board, a wrong result, a wrong list.
    pub mismatches: u64,
    /// Refused by the server, with a reason, although valid.
    pub rejected: u64,
    /// Matches played to their end.
    pub matches: u64,
}

impl Counts {
    /// The sums of both.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            mismatches: self.mismatches + other.mismatches,
            rejected: self.rejected + other.rejected,
            matches: self.matches + other.matches,
        }
    }
}

/// The final figures of a workload.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub counts: Counts,
    /// Receipts that never arrived.
    pub lost: u64,
    /// Messages that were due within the load and could not be sent in it.
    pub unsent: u64,
    /// Further counts of this kind of workload, by name.
    pub details: Vec<(&'static str, u64)>,
    /// Descriptions of some of the errors.
    pub examples: Vec<String>,
}
