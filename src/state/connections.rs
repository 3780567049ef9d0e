//! Connection records: what a successor needs to continue on the same TCP connection.
//!
//! In each direction, a connection carries handshake bytes, then a part of the session's stream and, to the client,
//! perhaps a close message (an error for this connection alone). The kernel knows how many bytes were transferred;
//! the record says what they are:
//!
//! ```text
//! from the client:  preamble, Hello or Resume │ stream from `input_base` on …
//! to the client:    banner, Welcome or Resumed │ stream from `output_base` to `stream_end` │ close message
//! ```
//!
//! A trusted proxy sends a PROXY header in front of all that, which counts as part of the handshake.
//!
//! A keeper claims and frees the slots of its own range. Guarded fields belong to the handler that serves the
//! connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::limits::{
    CLOSE_MESSAGE_BYTES_MAX, CONNECTION_SLOTS_PER_KEEPER, HANDSHAKE_BYTES_MAX, HANDSHAKE_OUTPUT_BYTES_MAX,
    PLAYER_NAME_BYTES_MAX, PROXY_HEADER_BYTES_MAX,
};
use crate::state::hang_kind::HangKind;
use crate::state::layout::{ConnectionRef, Memory, PlayerRef, RoomRef};
use forkade_text::input::InputState;
use forkade_text::telnet::options::RefusedOptions;
use shmem::liveness::Liveness;
use shmem::shared_record;
use shmem::sys::memory::{Guarded, SharedBytes};
use shmem::sys::process::ProcessId;
use shmem::transaction::SingleWriter;
use shmem::word::Word;

shared_record! {
    /// One TCP connection.
    pub struct ConnectionRecord {
        noted_lock: AtomicU64,
        /// A [`Claim`].
        claim: AtomicU32,
        /// Counts the connections that have used this slot, from 1.
        generation: AtomicU32,
        /// Epoch of the keeper that holds the connection.
        keeper_epoch: AtomicU32,
        kind: AtomicU32,
        /// The process that serves the connection, [as a number](ProcessId::to_u64); 0 for none.
        handler: AtomicU64,
        peer_port: AtomicU32,
        /// The [build](crate::state::header::Header::build) that the handler's process runs.
        handler_build: AtomicU32,
        /// Nonzero if the handler is a reception.
        at_reception: AtomicU32,
        peer_address: [AtomicU64; 2],
        /// Why the watchdog killed the handler, as a [`HangKind`]'s number; 0 if it did not.
        hang: AtomicU32,
        /// Nonzero once a handler crashed over this connection: it is then served alone.
        suspect: AtomicU32,
        /// The room whose game the handler runs in order to show its match, as a reference's number; 0 for none. See
        /// [`shown_game`](crate::state::shown_game).
        pub(crate) shown_room: AtomicU64,
        /// Nonzero once the handler has ended the connection and its slot can be freed.
        over: AtomicU32,
        /// Nonzero if the peer is a trusted proxy, whose first bytes must be a PROXY header.
        behind_proxy: AtomicU32,
        /// Nonzero if bytes of the handshake lie in the connection's [`LongOpening`].
        long_opening: AtomicU32,
        /// Nonzero if another process asks the handler to check its flags.
        attention: AtomicU32,
        /// A [`MoveRequest`], as a number; 0 for none.
        move_request: AtomicU32,
        /// For an operator's connection: what was negotiated with the terminal. See the console.
        pub terminal: AtomicU32,
        /// For an operator's connection: flags of [`OperatorFlag`].
        operator_flags: AtomicU32,
        order: AtomicU64,
        /// When the connection was accepted, in milliseconds of the monotonic clock.
        pub accepted_at_ms: AtomicU64,
        /// When the last complete frame arrived, in milliseconds of the monotonic clock. A client that is silent for
        /// too long is disconnected.
        pub last_frame_at_ms: AtomicU64,
        /// When the handler last made progress.
        pub liveness: Liveness,
        /// Input offset behind the frame that is being executed; 0 between frames. Crashes are attributed by it.
        pub current_frame: AtomicU64,
        /// The frame, as in `current_frame`, that no handler executes any more because all that did crashed; 0 for
        /// none.
        pub blocked_frame: AtomicU64,
        /// The generation that the guarded fields belong to. The first handler of a new connection resets them.
        pub occupant: Guarded<u32>,
        /// A [`Phase`].
        pub phase: Guarded<u32>,
        /// Nonzero if the player leaves for good when the connection has closed; otherwise its seat is kept for the
        /// grace.
        pub leaves: Guarded<u32>,
        /// Bytes of the PROXY header that was read; 0: none was.
        pub proxy_header_bytes: Guarded<u32>,
        /// Bytes from the client before the input stream, those of the PROXY header included.
        pub handshake_bytes: Guarded<u32>,
        /// Bytes to the client before the output stream.
        pub handshake_reply_bytes: Guarded<u32>,
        /// Bytes to the client behind the end of the output stream.
        pub close_message_bytes: Guarded<u32>,
        /// The session that this connection carries or requests.
        pub player: Guarded<PlayerRef>,
        /// Input offset of the first byte behind the handshake.
        pub input_base: Guarded<u64>,
        /// Output offset of the first byte behind the handshake reply.
        pub output_base: Guarded<u64>,
        /// Output offset up to which the client has received the stream, as it claims in `Resume`.
        pub asked_from: Guarded<u64>,
        /// How the client proves that the session is its own: a [`Proof`](crate::session::handshake::Proof).
        pub proof: Guarded<u32>,
        /// Of a player in text mode that asks for a session: how many bytes it has typed behind that line. They lie in
        /// `handshake`.
        pub typed_behind: Guarded<u32>,
        /// The parser's state in front of these bytes.
        pub typed_state: Guarded<InputState>,
        /// The telnet options that were refused on this connection.
        pub telnet_refused: Guarded<RefusedOptions>,
        /// Output offset at which the stream ends on this connection; `u64::MAX` while it is open.
        pub stream_end: Guarded<u64>,
        /// When [`Phase::CLOSING`] began, in milliseconds of the monotonic clock.
        pub closing_since_ms: Guarded<u64>,
        /// The name of the player that the connection carries: for its keeper, which takes no lock. Only the handler
        /// writes it.
        player_name: SharedBytes<{ PLAYER_NAME_BYTES_MAX / 8 }>,
        /// Its length, in bytes; 0 while it is written, and without a player.
        player_name_bytes: AtomicU32,
        /// Received straight from the socket. What has no space here lies in the [`LongOpening`].
        pub handshake: SharedBytes<{ HANDSHAKE_BYTES_MAX / 8 }>,
        /// Sent straight from here.
        pub handshake_reply: SharedBytes<{ HANDSHAKE_OUTPUT_BYTES_MAX / 8 }>,
        /// Sent straight from here.
        pub close_message: SharedBytes<{ CLOSE_MESSAGE_BYTES_MAX / 8 }>,
    }
}

shared_record! {
    /// What of a connection's first bytes has no space in its record: few have so many, and the memory of the others is
    /// never touched.
    pub struct LongOpening {
        /// Received straight from the socket.
        pub bytes: SharedBytes<{ PROXY_HEADER_BYTES_MAX / 8 }>,
    }
}

impl SingleWriter for ConnectionRecord {
    fn noted_lock(&self) -> &AtomicU64 {
        &self.noted_lock
    }
}

/// The state of a connection slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Claim {
    /// A keeper may claim it.
    Free = 0,
    /// A keeper holds a duplicate of the socket and replaces the handler if it dies.
    Held = 1,
    /// The keeper is dead or has given up. The ticker frees what the connection holds, once its handler is dead.
    Abandoned = 2,
}

impl Claim {
    fn of(number: u64) -> Self {
        match number {
            0 => Self::Free,
            1 => Self::Held,
            _ => Self::Abandoned,
        }
    }
}

/// Stores `to` in the word if it holds `from`, before the caller looks at what other processes store elsewhere.
pub fn exchange_then_look<W: Word>(claim: &W, from: u64, to: u64) -> bool {
    let exchanged = claim
        .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
        .is_ok();
    // Pairs with the fence in `load_after_store`: either this process sees what the other one has stored before that,
    // or the other one sees the exchange.
    W::fence(Ordering::SeqCst);
    exchanged
}

/// Loads the word, after the caller has stored elsewhere what others look at after an [`exchange_then_look`].
pub fn load_after_store<W: Word>(claim: &W) -> u64 {
    // Pairs with the fence in `exchange_then_look`.
    W::fence(Ordering::SeqCst);
    claim.load(Ordering::Acquire)
}

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase(u32);

impl Phase {
    /// The preamble and the first frame are awaited.
    pub const HANDSHAKE: Self = Self(0);
    /// A valid token was presented; the session must be released by its former handler. `player` is requested, not
    /// owned, and `asked_from` holds the offset that the client requests.
    pub const RESUMING: Self = Self(1);
    /// The session's streams are open.
    pub const OPEN: Self = Self(2);
    /// Nothing more is read. Pending output is sent, then the connection is shut down.
    pub const CLOSING: Self = Self(3);
    /// The connection holds nothing any more.
    pub const DONE: Self = Self(4);

    /// From the raw number in a [`ConnectionRecord`].
    pub fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// To the raw number in a [`ConnectionRecord`].
    pub fn raw(self) -> u32 {
        self.0
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A player.
    Game,
    /// An operator.
    Console,
}

/// What is known of an operator's connection. A successor must know it, too: else it would execute what its predecessor
/// would have refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum OperatorFlag {
    /// Its first line was a command, and no line since was of HTTP.
    Commands = 1,
    /// It has given the password.
    Password = 2,
    /// It is to end, because it was idle the longest and another operator has connected. The listener sets this.
    MakesRoom = 4,
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An address of a network.
    Network(SocketAddr),
    /// A process of this machine, on a unix socket.
    Process {
        /// Its user.
        uid: u32,
        /// Its pid when it connected.
        pid: u32,
    },
}

impl Peer {
    /// In place of the address of a client that had disconnected before it was asked for.
    pub(crate) const GONE: Self = Self::Network(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));

    /// Whether the other end had disconnected before its address was asked for.
    pub(crate) fn is_gone(self) -> bool {
        self == Self::GONE
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(address) => write!(formatter, "{address}"),
            Self::Process { uid, pid } => write!(formatter, "unix:uid={uid},pid={pid}"),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Network(address)
    }
}

/// A process that serves connections, as it is entered in their records.
#[derive(Debug, Clone, Copy)]
pub struct ServedBy {
    /// The process.
    pub process: ProcessId,
    /// The [build](crate::state::header::Header::build) that it runs.
    pub build: u32,
    /// It serves connections until they have greeted.
    pub is_reception: bool,
}

/// By which handler a connection should be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveRequest {
    /// By one for players: it has greeted.
    OutOfReception,
    /// By that of this connection.
    Near(u32),
}

/// In place of an index + 1.
const OUT_OF_RECEPTION: u32 = u32::MAX;

/// In place of a port: the peer is a process.
const PORT_OF_PROCESS: u32 = u32::MAX;

/// All kinds.
pub const KINDS: [Kind; Kind::COUNT] = [Kind::Game, Kind::Console];

impl Kind {
    /// The number of kinds.
    pub const COUNT: usize = 2;
}

impl ConnectionRecord {
    /// Claims a free slot for a connection that was just accepted. Only the slot's keeper may call this.
    pub fn claim(&self, kind: Kind, peer: impl Into<Peer>, keeper_epoch: u32, now_ms: u64) -> bool {
        let (free, held) = (Claim::Free as u32, Claim::Held as u32);
        if self
            .claim
            .compare_exchange(free, held, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            return false;
        }
        // A keeper that dies here leaves a held slot in phase DONE, with no handler and nothing to free.
        let generation = self.generation.load(Ordering::Relaxed).wrapping_add(1).max(1);
        self.generation.store(generation, Ordering::Relaxed);
        self.keeper_epoch.store(keeper_epoch, Ordering::Relaxed);
        self.kind
            .store(u32::from(kind == Kind::Console), Ordering::Relaxed);
        self.accepted_at_ms.store(now_ms, Ordering::Relaxed);
        self.last_frame_at_ms.store(now_ms, Ordering::Relaxed);
        self.current_frame.store(0, Ordering::Relaxed);
        self.blocked_frame.store(0, Ordering::Relaxed);
        self.over.store(0, Ordering::Relaxed);
        self.suspect.store(0, Ordering::Relaxed);
        self.behind_proxy.store(0, Ordering::Relaxed);
        self.long_opening.store(0, Ordering::Relaxed);
        self.attention.store(0, Ordering::Relaxed);
        self.move_request.store(0, Ordering::Relaxed);
        self.terminal.store(0, Ordering::Relaxed);
        self.operator_flags.store(0, Ordering::Relaxed);
        self.hang.store(0, Ordering::Relaxed);
        self.shown_room.store(0, Ordering::Relaxed);
        self.player_name_bytes.store(0, Ordering::Relaxed);
        self.set_peer(peer.into());
        true
    }

    /// Enters the other end. Not in one step: a process that dies over it is followed by one that does it again.
    pub fn set_peer(&self, peer: Peer) {
        let (words, port) = match peer {
            Peer::Network(address) => {
                let octets = match address.ip() {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                let number = u128::from_be_bytes(octets);
                #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
                let words = [(number >> 64) as u64, number as u64];
                (words, u32::from(address.port()))
            }
            Peer::Process { uid, pid } => ([uid.into(), pid.into()], PORT_OF_PROCESS),
        };
        for (word, half) in self.peer_address.iter().zip(words) {
            word.store(half, Ordering::Relaxed);
        }
        self.peer_port.store(port, Ordering::Relaxed);
    }

    /// Marks the connection as one of a trusted proxy. Only the slot's keeper may call this, before the first handler.
    pub fn set_behind_proxy(&self) {
        self.behind_proxy.store(1, Ordering::Release);
    }

    /// Whether the connection comes from a trusted proxy.
    pub fn is_behind_proxy(&self) -> bool {
        self.behind_proxy.load(Ordering::Acquire) != 0
    }

    /// Notes that bytes of the handshake lie in the [`LongOpening`], or that none do any more.
    pub(crate) fn set_long_opening(&self, is_long: bool) {
        self.long_opening.store(is_long.into(), Ordering::Release);
    }

    /// Whether bytes of the handshake lie in the [`LongOpening`].
    pub(crate) fn has_long_opening(&self) -> bool {
        self.long_opening.load(Ordering::Acquire) != 0
    }

    /// Frees the slot: see [`Memory::free_connection`].
    pub(crate) fn free(&self) {
        self.handler.store(0, Ordering::Relaxed);
        self.claim.store(Claim::Free as u32, Ordering::Release);
    }

    /// The keeper gives up this connection; the ticker frees what it holds.
    pub fn abandon(&self) {
        self.claim.store(Claim::Abandoned as u32, Ordering::Release);
    }

    /// Changes the slot's state, if it is `from`. Fenced: either this process sees what another one stored before it
    /// called [`claim_after_store`](Self::claim_after_store), or that one sees the change.
    pub fn exchange_claim(&self, from: Claim, to: Claim) -> bool {
        exchange_then_look(&self.claim, from as u64, to as u64)
    }

    /// Like [`claimed`](Self::claimed), but fenced: call it after storing what the ticker reads after its
    /// [`exchange_claim`](Self::exchange_claim).
    pub fn claim_after_store(&self) -> Claim {
        Claim::of(load_after_store(&self.claim))
    }

    /// The slot's state.
    pub fn claimed(&self) -> Claim {
        Claim::of(self.claim.load(Ordering::Acquire).into())
    }

    /// Epoch of the keeper that claimed the slot.
    pub fn keeper_epoch(&self) -> u32 {
        self.keeper_epoch.load(Ordering::Relaxed)
    }

    /// Enters the epoch of the keeper that adopted the connection.
    pub fn set_keeper_epoch(&self, epoch: u32) {
        self.keeper_epoch.store(epoch, Ordering::Release);
    }

    /// Marks the connection as ended, for a keeper that is not the handler's parent and cannot see its exit status.
    pub fn set_over(&self) {
        self.over.store(1, Ordering::Release);
    }

    /// Whether the handler has ended the connection.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) != 0
    }

    /// Marks the connection to be served by a handler of its own. Only its keeper may call this; the mark outlives
    /// the keeper.
    pub fn set_suspect(&self) {
        self.suspect.store(1, Ordering::Release);
    }

    /// Whether a handler has crashed over this connection.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire) != 0
    }

    /// Enters the connection's number in the order of acceptance. Only the slot's keeper may call this, before the
    /// first handler.
    pub fn set_order(&self, order: u64) {
        self.order.store(order, Ordering::Relaxed);
    }

    /// The connection's number in the order of acceptance. (Two connections share a number if the listener died
    /// between them.)
    pub fn order(&self) -> u64 {
        self.order.load(Ordering::Relaxed)
    }

    /// What the connection is for.
    pub fn kind(&self) -> Kind {
        if self.kind.load(Ordering::Relaxed) == 0 {
            Kind::Game
        } else {
            Kind::Console
        }
    }

    /// Whether an operator's connection has proved this.
    pub fn has_operator_flag(&self, flag: OperatorFlag) -> bool {
        self.operator_flags.load(Ordering::Acquire) & flag as u32 != 0
    }

    /// Sets or clears the flag of an operator's connection.
    pub fn set_operator_flag(&self, flag: OperatorFlag, on: bool) {
        match on {
            true => self.operator_flags.fetch_or(flag as u32, Ordering::AcqRel),
            false => self.operator_flags.fetch_and(!(flag as u32), Ordering::AcqRel),
        };
    }

    /// Publishes the name of the player that the connection carries. Only its handler may call this.
    pub(crate) fn set_player_name(&self, name: &str) {
        let bytes = u32::try_from(name.len()).expect("a name is short");
        self.player_name_bytes.store(0, Ordering::Release);
        self.player_name.copy_in(0, name.as_bytes());
        self.player_name_bytes.store(bytes, Ordering::Release);
    }

    /// The name of the player that the connection carries; empty if there is none, or while the handler writes it.
    pub(crate) fn player_name(&self) -> String {
        let mut name = [0; PLAYER_NAME_BYTES_MAX];
        let bytes = self.player_name_bytes.load(Ordering::Acquire) as usize;
        let name = &mut name[..bytes.min(PLAYER_NAME_BYTES_MAX)];
        self.player_name.copy_out(0, name);
        String::from_utf8_lossy(name).into_owned()
    }

    /// The other end of the connection.
    pub fn peer(&self) -> Peer {
        let [high, low] = self
            .peer_address
            .each_ref()
            .map(|half| half.load(Ordering::Relaxed));
        let port = self.peer_port.load(Ordering::Relaxed);
        if port == PORT_OF_PROCESS {
            let number = |word| u32::try_from(word).unwrap_or(u32::MAX);
            return Peer::Process {
                uid: number(high),
                pid: number(low),
            };
        }
        let address = Ipv6Addr::from((u128::from(high) << 64) | u128::from(low));
        let port = u16::try_from(port).unwrap_or(0);
        Peer::Network(SocketAddr::new(address.to_canonical(), port))
    }

    /// The process that serves the connection, as entered by itself, its keeper or its predecessor.
    pub fn handler(&self) -> Option<ProcessId> {
        ProcessId::from_u64(self.handler.load(Ordering::Acquire))
    }

    /// The [build](crate::state::header::Header::build) that the handler's process runs.
    pub fn handler_build(&self) -> u32 {
        self.handler_build.load(Ordering::Relaxed)
    }

    /// Whether the process that serves the connection is a reception. (A moment after a move this may still be said of
    /// the next process.)
    pub fn is_at_reception(&self) -> bool {
        self.at_reception.load(Ordering::Relaxed) != 0
    }

    /// Enters the process that serves the connection.
    pub fn set_handler(&self, server: ServedBy) {
        self.handler_build.store(server.build, Ordering::Relaxed);
        self.at_reception
            .store(u32::from(server.is_reception), Ordering::Relaxed);
        self.handler.store(server.process.to_u64(), Ordering::Release);
    }

    /// Removes this process as the handler.
    pub fn clear_handler(&self, handler: ProcessId) {
        self.exchange_handler(handler.to_u64(), 0);
    }

    /// Enters another process, which has the socket already, as the handler. Only the current handler may call this.
    pub fn move_to(&self, from: ProcessId, to: ProcessId) {
        self.exchange_handler(from.to_u64(), to.to_u64());
    }

    /// Does nothing if another process is entered: a successor.
    fn exchange_handler(&self, from: u64, to: u64) {
        let _ = self
            .handler
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Takes the flag by which another process asks the handler to check its flags.
    pub fn take_attention(&self) -> bool {
        self.attention.swap(0, Ordering::AcqRel) != 0
    }

    /// Requests to be served by another handler of the same keeper.
    pub fn request_move(&self, request: MoveRequest) {
        let number = match request {
            MoveRequest::OutOfReception => OUT_OF_RECEPTION,
            MoveRequest::Near(other) => other + 1,
        };
        self.move_request.store(number, Ordering::Release);
    }

    /// Takes the request to be served by another handler.
    pub fn take_move_request(&self) -> Option<MoveRequest> {
        match self.move_request.swap(0, Ordering::AcqRel) {
            0 => None,
            OUT_OF_RECEPTION => Some(MoveRequest::OutOfReception),
            number => Some(MoveRequest::Near(number - 1)),
        }
    }

    /// When the handler last made progress, in milliseconds of the monotonic clock: a round of its loop, or a frame.
    pub fn last_progress_ms(&self) -> u64 {
        let last_frame_ms = self.last_frame_at_ms.load(Ordering::Relaxed);
        self.liveness.last_progress_ms().max(last_frame_ms)
    }

    /// Enters why the watchdog is about to kill the handler. Only the supervisor may call this.
    pub fn set_hang(&self, hang: HangKind) {
        self.hang.store(hang.number(), Ordering::Release);
    }

    /// Takes the reason for which the watchdog killed the handler; `None` if it did not.
    pub fn take_hang(&self) -> Option<HangKind> {
        HangKind::from_number(self.hang.swap(0, Ordering::AcqRel))
    }

    /// Takes the mark of the room whose game the handler was running when it died, in order to show its match.
    pub(crate) fn take_shown_room(&self) -> Option<RoomRef> {
        let id = self.shown_room.swap(0, Ordering::AcqRel);
        (id != 0).then(|| RoomRef::from_id(id))
    }

    /// The reference to the slot's present connection.
    pub fn reference(&self, index: u32) -> ConnectionRef {
        ConnectionRef::new(index, self.generation.load(Ordering::Relaxed))
    }
}

impl Memory {
    /// Asks a connection's handler to check its flags. Returns the keeper whose doorbell must be rung.
    pub fn raise_attention(&self, connection: ConnectionRef) -> u32 {
        let slots = CONNECTION_SLOTS_PER_KEEPER;
        let (keeper, slot) = (connection.index() / slots, connection.index() % slots);
        let word = &self.header.keepers[keeper as usize].attention[slot as usize / 64];
        self.connections
            .at(connection.index())
            .attention
            .store(1, Ordering::Release);
        word.fetch_or(1 << (slot % 64), Ordering::AcqRel);
        keeper
    }

    /// Frees a connection's slot. Its keeper or the ticker calls this when no process serves the connection.
    pub fn free_connection(&self, index: u32) {
        // First: a process that dies in between leaves a slot that is freed again, not a word that counts for nobody.
        self.sources.set_of_connection(index, None);
        self.set_greeting(index, false);
        self.connections.at(index).free();
    }

    /// Enters whether the client of a connection is still to greet.
    pub fn set_greeting(&self, connection: u32, is_greeting: bool) {
        let slot = connection % CONNECTION_SLOTS_PER_KEEPER;
        let word = &self.keeper_of(connection).greeting[slot as usize / 64];
        let bit = 1 << (slot % 64);
        match is_greeting {
            true => word.fetch_or(bit, Ordering::AcqRel),
            false => word.fetch_and(!bit, Ordering::AcqRel),
        };
    }

    /// Whether the client of a connection is still to greet.
    pub fn is_greeting(&self, connection: u32) -> bool {
        let slot = connection % CONNECTION_SLOTS_PER_KEEPER;
        let word = &self.keeper_of(connection).greeting[slot as usize / 64];
        word.load(Ordering::Acquire) & 1 << (slot % 64) != 0
    }

    /// Connections whose clients are still to greet, with those on their way to a keeper.
    pub fn greeting_connections(&self) -> u32 {
        let keepers = self.connections.len().div_ceil(CONNECTION_SLOTS_PER_KEEPER) as usize;
        let keepers = self.header.keepers.iter().take(keepers);
        keepers
            .map(|keeper| {
                let words = keeper.greeting.iter();
                let entered: u32 = words.map(|word| word.load(Ordering::Relaxed).count_ones()).sum();
                entered + keeper.in_flight(Kind::Game)
            })
            .sum()
    }

    /// Notifies the keeper that a connection has ended or should be moved. The keeper's doorbell must be rung.
    pub fn notify_keeper(&self, connection: u32) {
        let slot = connection % CONNECTION_SLOTS_PER_KEEPER;
        let word = &self.keeper_of(connection).notifications[slot as usize / 64];
        word.fetch_or(1 << (slot % 64), Ordering::AcqRel);
    }
}
