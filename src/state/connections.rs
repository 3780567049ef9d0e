//! Connection records: what a successor needs to go on with the same TCP connection.
//!
//! A connection's bytes are, in each direction: the greeting (what comes before the session's byte stream), a part of the stream,
//! and at the end perhaps a farewell (an error that belongs to this connection alone). How many bytes have passed is known by the
//! kernel; what they mean is written here:
//!
//! ```text
//! from the client:  preamble, Hello or Resume │ stream from `input_base` on …
//! to the client:    Welcome, Resumed or Error │ stream from `output_base` to `stream_end` │ farewell
//! ```
//!
//! Keepers claim a slot of their own range and give it back; everything guarded belongs to the handler that animates the record.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::limits::{
    CLOSE_MESSAGE_BYTES_MAX, CONNECTIONS_PER_KEEPER_MAX, HANDSHAKE_BYTES_MAX, HANDSHAKE_REPLY_BYTES_MAX,
};
use crate::state::hang_kind::HangKind;
use crate::state::layout::{ConnectionRef, Memory, PlayerRef};
use shmem::liveness::Liveness;
use shmem::shared_record;
use shmem::sys::memory::{Guarded, SharedBytes};
use shmem::sys::process::ProcessId;
use shmem::transaction::SingleWriter;

shared_record! {
    /// One TCP connection.
    pub struct ConnectionRecord {
        noted_lock: AtomicU64,
        /// A [`Claim`].
        claim: AtomicU32,
        /// Which occupant of the slot this is, counted from 1.
        generation: AtomicU32,
        /// Epoch of the keeper that holds the connection.
        keeper_epoch: AtomicU32,
        kind: AtomicU32,
        /// The process that animates the connection, [as a number](ProcessId::to_u64); 0: none does.
        handler: AtomicU64,
        peer_port: AtomicU32,
        /// Which of the programs that have run this server the handler's process runs, counted up with each upgrade.
        handler_build: AtomicU32,
        peer_address: [AtomicU64; 2],
        /// What the watchdog has killed the handler for, as a [`HangKind`]'s number; 0 for nothing.
        hang: AtomicU32,
        /// Nonzero once what the connection wants has cost a process: it is served alone from then on.
        suspect: AtomicU32,
        /// Nonzero once the handler has brought the connection to its end: what is left is to be dropped.
        over: AtomicU32,
        /// Nonzero if somebody has left word for the handler, who should look at what is wanted.
        attention: AtomicU32,
        /// Index + 1 of a connection beside which this one would be better served; 0 for none.
        beside: AtomicU32,
        /// Of an operator's connection: what was agreed on with the terminal. See the console.
        pub terminal: AtomicU32,
        order: AtomicU64,
        /// When the connection was accepted, in milliseconds of the monotonic clock.
        pub accepted_at_ms: AtomicU64,
        /// When the last whole frame arrived: who is silent for too long is taken for gone.
        pub last_frame_at_ms: AtomicU64,
        /// That the handler gets on.
        pub liveness: Liveness,
        /// Offset + 1 of the frame that is being handled; 0 between frames. For blame, when the handler dies.
        pub current_frame: AtomicU64,
        /// The frame, as in `current_frame`, that no handler is to handle any more: all who did have died. 0 for none.
        pub blocked_frame: AtomicU64,
        /// Which generation the guarded fields belong to: they are reset by the first handler of a new occupant.
        pub occupant: Guarded<u32>,
        /// A [`Phase`].
        pub phase: Guarded<u32>,
        /// Nonzero if the player leaves for good when the connection has closed, instead of keeping the seat for the grace.
        pub leaves: Guarded<u32>,
        /// Bytes from the client before its stream begins.
        pub handshake_bytes: Guarded<u32>,
        /// Bytes to the client before the session's stream begins.
        pub handshake_reply_bytes: Guarded<u32>,
        /// Bytes to the client after the stream's end.
        pub close_message_bytes: Guarded<u32>,
        /// The session that this connection carries or asks for.
        pub player: Guarded<PlayerRef>,
        /// Stream offset of the first byte after the handshake.
        pub input_base: Guarded<u64>,
        /// Stream offset of the first byte after the greeting.
        pub output_base: Guarded<u64>,
        /// How much of the output stream the client has, as it says when it asks to resume.
        pub asked_from: Guarded<u64>,
        /// Stream offset at which this connection's part of the output ends; `u64::MAX` while it is open.
        pub stream_end: Guarded<u64>,
        /// When the phase [`Phase::CLOSING`] was entered, in milliseconds of the monotonic clock.
        pub closing_since_ms: Guarded<u64>,
        /// Received straight from the socket.
        pub handshake: SharedBytes<{ HANDSHAKE_BYTES_MAX / 8 }>,
        /// Sent straight from here.
        pub handshake_reply: SharedBytes<{ HANDSHAKE_REPLY_BYTES_MAX / 8 }>,
        /// Sent straight from here.
        pub close_message: SharedBytes<{ CLOSE_MESSAGE_BYTES_MAX / 8 }>,
    }
}

impl SingleWriter for ConnectionRecord {
    fn noted_lock(&self) -> &AtomicU64 {
        &self.noted_lock
    }
}

/// Who is responsible for a connection slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Claim {
    /// Nobody: a keeper may take it.
    Free = 0,
    /// A keeper holds the socket's duplicate and restarts the handler.
    Held = 1,
    /// Its keeper is gone or has given up; the ticker frees what the connection held once its handler is dead.
    Abandoned = 2,
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase(u32);

impl Phase {
    /// The preamble and the first frame are awaited.
    pub const HANDSHAKE: Self = Self(0);
    /// A valid token was published; the session's record is awaited from its former handler. `player` is asked for, not animated, and
    /// `asked_from` holds the offset that the client asks for.
    pub const RESUMING: Self = Self(1);
    /// The session's stream flows.
    pub const OPEN: Self = Self(2);
    /// Nothing is read any more; what is left to send is sent, and the connection shut down.
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

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A player.
    Game,
    /// An operator.
    Console,
}

/// All kinds.
pub const KINDS: [Kind; Kind::COUNT] = [Kind::Game, Kind::Console];

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = 2;
}

impl ConnectionRecord {
    /// Takes a free slot for a connection that was just accepted. Only the slot's keeper may ask.
    pub fn claim(&self, kind: Kind, peer: SocketAddr, keeper_epoch: u32, now_ms: u64) -> bool {
        let (free, held) = (Claim::Free as u32, Claim::Held as u32);
        if self
            .claim
            .compare_exchange(free, held, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            return false;
        }
        // Whoever dies here leaves a held slot with the phase DONE: nobody's handler, nothing to free.
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
        self.attention.store(0, Ordering::Relaxed);
        self.beside.store(0, Ordering::Relaxed);
        self.terminal.store(0, Ordering::Relaxed);
        self.hang.store(0, Ordering::Relaxed);
        let address = match peer.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        for (word, half) in self.peer_address.iter().zip(address.as_chunks::<8>().0) {
            word.store(u64::from_be_bytes(*half), Ordering::Relaxed);
        }
        self.peer_port.store(u32::from(peer.port()), Ordering::Relaxed);
        true
    }

    /// Gives the slot back, by its keeper or by the ticker, when no process animates it.
    pub fn free(&self) {
        self.handler.store(0, Ordering::Relaxed);
        self.claim.store(Claim::Free as u32, Ordering::Release);
    }

    /// The keeper cannot go on with this connection: the ticker is to free what it held.
    pub fn abandon(&self) {
        self.claim.store(Claim::Abandoned as u32, Ordering::Release);
    }

    /// Changes who is responsible for the slot, if it is who is thought. Whoever looks afterwards at what others enter before they look
    /// at this sees it, or they see this.
    pub fn exchange_claim(&self, from: Claim, to: Claim) -> bool {
        let exchanged = self
            .claim
            .compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        fence(Ordering::SeqCst);
        exchanged
    }

    /// Who is responsible for the slot, for who has entered something that the ticker looks at after it has
    /// [exchanged](Self::exchange_claim) that.
    pub fn claim_after_store(&self) -> Claim {
        fence(Ordering::SeqCst);
        self.claimed()
    }

    /// Who is responsible for the slot.
    pub fn claimed(&self) -> Claim {
        match self.claim.load(Ordering::Acquire) {
            0 => Claim::Free,
            1 => Claim::Held,
            _ => Claim::Abandoned,
        }
    }

    /// Epoch of the keeper that claimed the slot.
    pub fn keeper_epoch(&self) -> u32 {
        self.keeper_epoch.load(Ordering::Relaxed)
    }

    /// A keeper holds the connection whose predecessor had claimed the slot.
    pub fn set_keeper_epoch(&self, epoch: u32) {
        self.keeper_epoch.store(epoch, Ordering::Release);
    }

    /// The handler has brought the connection to its end. For keepers that are not its parent and cannot see its exit status.
    pub fn set_over(&self) {
        self.over.store(1, Ordering::Release);
    }

    /// Whether the connection has come to its end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) != 0
    }

    /// From now on the connection is served by a process of its own. Only its keeper may say so; the next keeper goes by it, too.
    pub fn set_suspect(&self) {
        self.suspect.store(1, Ordering::Release);
    }

    /// Whether what it wants has cost a process.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire) != 0
    }

    /// Enters the connection's place in the order in which all were accepted. Only the slot's keeper may, before its first handler.
    pub fn set_order(&self, order: u64) {
        self.order.store(order, Ordering::Relaxed);
    }

    /// The connection's place in the order in which all were accepted. (Two are in the same place if the listener died between them.)
    pub fn order(&self) -> u64 {
        self.order.load(Ordering::Relaxed)
    }

    /// What the connection speaks.
    pub fn kind(&self) -> Kind {
        if self.kind.load(Ordering::Relaxed) == 0 {
            Kind::Game
        } else {
            Kind::Console
        }
    }

    /// Where the client connects from.
    pub fn peer(&self) -> SocketAddr {
        let [high, low] = self
            .peer_address
            .each_ref()
            .map(|half| half.load(Ordering::Relaxed));
        let address = Ipv6Addr::from((u128::from(high) << 64) | u128::from(low));
        let port = u16::try_from(self.peer_port.load(Ordering::Relaxed)).unwrap_or(0);
        SocketAddr::new(address.to_canonical(), port)
    }

    /// The process that animates the connection: entered by itself, by its keeper, or by the one before it.
    pub fn handler(&self) -> Option<ProcessId> {
        ProcessId::from_u64(self.handler.load(Ordering::Acquire))
    }

    /// Which of the programs that have run this server the handler's process runs: see [`Header::build`](crate::state::header::Header::build).
    pub fn handler_build(&self) -> u32 {
        self.handler_build.load(Ordering::Relaxed)
    }

    /// Enters the process that animates the connection, and which program it runs.
    pub fn set_handler(&self, handler: ProcessId, build: u32) {
        self.handler_build.store(build, Ordering::Relaxed);
        self.handler.store(handler.to_u64(), Ordering::Release);
    }

    /// The handler does not serve the connection after all.
    pub fn clear_handler(&self, handler: ProcessId) {
        self.exchange_handler(handler.to_u64(), 0);
    }

    /// From here on another process animates the connection, which has its socket already. Only who animates it may say so.
    pub fn hand_over(&self, from: ProcessId, to: ProcessId) {
        self.exchange_handler(from.to_u64(), to.to_u64());
    }

    /// Does nothing if the entry is another's already: that of a successor.
    fn exchange_handler(&self, from: u64, to: u64) {
        let _ = self
            .handler
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Whether somebody has left word since this was last asked.
    pub fn take_attention(&self) -> bool {
        self.attention.swap(0, Ordering::AcqRel) != 0
    }

    /// The handler would rather have the connection served where the other one of this keeper's is.
    pub fn request_move_near(&self, other: u32) {
        self.beside.store(other + 1, Ordering::Release);
    }

    /// Beside which connection this one should be served, if its handler has said so. Asking forgets it.
    pub fn take_move_near(&self) -> Option<u32> {
        self.beside.swap(0, Ordering::AcqRel).checked_sub(1)
    }

    /// When the handler last got on, in milliseconds of the monotonic clock: by coming round its loop, or from one frame to the next.
    pub fn mark(&self) -> u64 {
        let last_frame_ms = self.last_frame_at_ms.load(Ordering::Relaxed);
        self.liveness.last_progress_ms().max(last_frame_ms)
    }

    /// The watchdog is about to kill the handler. Only the supervisor may say so.
    pub fn set_hang(&self, hang: HangKind) {
        self.hang.store(hang.number(), Ordering::Release);
    }

    /// What the watchdog has killed the handler for, if it was the watchdog. Asking forgets it.
    pub fn take_hang(&self) -> Option<HangKind> {
        HangKind::from_number(self.hang.swap(0, Ordering::AcqRel))
    }

    /// The reference to the slot's present occupant.
    pub fn reference(&self, index: u32) -> ConnectionRef {
        ConnectionRef::new(index, self.generation.load(Ordering::Relaxed))
    }
}

impl Memory {
    /// Leaves word that a connection's handler should look at its flags; gives the keeper whose doorbell is to be rung.
    pub fn raise_attention(&self, connection: ConnectionRef) -> u32 {
        let slots = CONNECTIONS_PER_KEEPER_MAX;
        let (keeper, slot) = (connection.index() / slots, connection.index() % slots);
        let word = &self.header.keepers[keeper as usize].attention[slot as usize / 64];
        self.connections
            .at(connection.index())
            .attention
            .store(1, Ordering::Release);
        word.fetch_or(1 << (slot % 64), Ordering::AcqRel);
        keeper
    }

    /// Leaves word for its keeper that there is news of a connection: it is over, or should be served elsewhere. The keeper's doorbell is to
    /// be rung.
    pub fn notify_keeper(&self, connection: u32) {
        let slot = connection % CONNECTIONS_PER_KEEPER_MAX;
        let word = &self.keeper_of(connection).news[slot as usize / 64];
        word.fetch_or(1 << (slot % 64), Ordering::AcqRel);
    }
}
