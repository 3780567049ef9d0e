//! What clients do in their rooms. A workload decides and checks; it does no input or output, and knows no time but what
//! it is told: messages in, [`Actions`] out.

pub(crate) mod relay;
pub(crate) mod tictactoe;

use forkade_protocol::{ClientMessage, RoomSettings, ServerMessage};

use crate::latency::Latency;
use crate::options::{Options, Shape, WorkloadKind};

/// Index of a client. Room `client / room_size`, member `client % room_size`; member 0 made the room.
pub(crate) type ClientIndex = u32;

/// One kind of load, over all clients. Times are nanoseconds since the program's start.
pub(crate) trait Workload {
    /// All clients are in their rooms: the load begins. Nothing is due at `end_ns` or later.
    fn start(&mut self, now_ns: u64, end_ns: u64, actions: &mut Actions);
    /// A timer that the workload set for `client` is due. `intended_ns` is when it was set to; `now_ns` may be later, if
    /// this program or the client's connection was congested.
    fn due(&mut self, client: ClientIndex, intended_ns: u64, now_ns: u64, actions: &mut Actions);
    /// The server said something to `client`.
    fn received(&mut self, client: ClientIndex, message: ServerMessage, now_ns: u64, actions: &mut Actions);
    /// The load ends: nothing new is begun from here on.
    fn stop(&mut self);
    /// Whether, after [`Workload::stop`], nothing is under way any more.
    fn is_settled(&self) -> bool;
    /// What was counted so far; cheap, for the progress display.
    fn counts(&self) -> Counts;
    /// The sums at the end, when what has not arrived never will.
    fn figures(&self) -> Figures;
}

/// The workload that the options name.
pub(crate) fn of(options: &Options, shape: Shape) -> Box<dyn Workload + Send> {
    match options.workload {
        WorkloadKind::Relay => Box::new(relay::Relay::new(options, shape)),
        WorkloadKind::Tictactoe => Box::new(tictactoe::Tictactoe::new(options, shape)),
    }
}

/// What a workload wants done.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    /// Messages to send, in this order.
    pub sends: Vec<(ClientIndex, ClientMessage)>,
    /// Calls of [`Workload::due`], at these times.
    pub timers: Vec<(u64, ClientIndex)>,
}

/// Running counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages sent by clients (tictactoe: moves).
    pub sent: u64,
    /// Messages received by clients: each that was sent comes to every member of its room.
    pub received: u64,
    /// Received again.
    pub duplicated: u64,
    /// Received after a later one of the same sender.
    pub reordered: u64,
    /// What must not happen at all: foreign or altered content, a wrong board, a wrong result.
    pub mismatches: u64,
    /// Refused by the server, with a reason.
    pub rejected: u64,
    /// Matches played to their end.
    pub matches: u64,
}

/// The sums of a run.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub counts: Counts,
    /// Receipts that never came.
    pub lost: u64,
    /// Messages that were due within the load and could not be sent in it.
    pub unsent: u64,
    /// From the intended time of sending to each receipt.
    pub latency: Latency,
    /// The same, for the sender's own copy alone.
    pub round_trip: Latency,
}

/// The message with which the first member of room `number` makes it.
pub(crate) fn create_room(request: u32, game: &str, number: u32, seats: u8) -> ClientMessage {
    let name = format!("load {number}");
    ClientMessage::CreateRoom {
        request,
        game: game.to_owned(),
        name,
        settings: RoomSettings {
            seats,
            ..RoomSettings::default()
        },
    }
}
