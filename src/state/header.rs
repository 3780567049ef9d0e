//! What lies at the memory's beginning and can be read without a lock: counters, settings, what roles and keepers show of themselves.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::limits::{CONNECTIONS_PER_KEEPER_MAX, KEEPERS_MAX, ROLES_MAX, UPGRADE_TEXT_BYTES};
use crate::state::connection_counts::Occupancy;
use crate::state::connections::Kind;
use crate::state::running_game::RunningGame;
use forkade_games::floor_char_boundary;
use shmem::hang_reports::HangReports;
use shmem::liveness::Liveness;
use shmem::shared_record;
use shmem::sys::clock::now_ns;
use shmem::sys::memory::SharedBytes;
use shmem::sys::process::ProcessId;

shared_record! {
    /// The head of the mapping: what all processes may read at any time, without a lock.
    pub struct Header {
        /// Of the record types and the capacity: a process built otherwise must not touch the mapping.
        pub layout_hash: AtomicU64,
        /// When the server started, in milliseconds of the monotonic clock.
        pub started_at_ms: AtomicU64,
        // The settings that `Welcome` announces or that change what players may do lie here, not only in each process's own
        // settings. An upgrade in place may change them, and handlers, ticker and consoles are then replaced one after another.
        // Here the new values hold for all processes at once, so the grace and the heartbeat timeout that one process
        // announces are those that another one enforces.
        /// How long the seat of a player without a connection is kept, in milliseconds.
        pub seat_grace_ms: AtomicU64,
        /// How long a seat is kept for an invited player, in milliseconds.
        pub seat_reservation_ms: AtomicU64,
        /// Silence after which a client counts as gone, in milliseconds.
        pub heartbeat_timeout_ms: AtomicU64,
        /// Silence after which a player in text mode counts as gone, in milliseconds.
        pub text_idle_timeout_ms: AtomicU64,
        /// Time for a client's handshake, in milliseconds.
        pub handshake_timeout_ms: AtomicU64,
        /// Chat lines that a player may send at once.
        pub chat_burst: AtomicU64,
        /// Chat lines that a player may send per minute in the long run; 0: no limit.
        pub chat_per_minute: AtomicU64,
        /// [Rate-limited](crate::session::rate) requests that a player may make at once.
        pub requests_burst: AtomicU64,
        /// Rate-limited requests that a player may make per minute in the long run; 0: no limit.
        pub requests_per_minute: AtomicU64,
        /// Nonzero from the moment that the server begins to stop.
        pub stopping: AtomicU32,
        /// Process id of the supervisor.
        pub supervisor_pid: AtomicU32,
        /// Counts the programs that have run this server: up by one with each upgrade in place.
        pub build: AtomicU32,
        /// How far an upgrade has come.
        pub upgrade: UpgradeSlot,
        /// Least important log records that are written, as the number of a [`log::LevelFilter`] + 1; 0 until it is set.
        pub log_level: AtomicU32,
        /// Nonzero once a drain has come to its end: the supervisor is to stop the server.
        pub drained: AtomicU32,
        /// While the server drains: when it ends at the latest, in milliseconds of the monotonic clock (`u64::MAX`: when the last match
        /// has). 0 while it does not.
        pub drain_until_ms: AtomicU64,
        /// Number of the last question for a sign of life: see [`RoleSlot::pong`].
        pub ping: AtomicU64,
        /// The supervisor's answer.
        pub supervisor_pong: Pong,
        /// Connections that were accepted and given to a keeper.
        pub accepted_total: AtomicU64,
        /// Connections that were refused, with a typed error.
        pub refused_total: AtomicU64,
        /// Connections that were accepted but lost before a handler had them: at most so many, since who died over one may have been
        /// done with it.
        pub lost_before_handshake_total: AtomicU64,
        /// 1 while the listener accepts a connection, or has one that it has not handed on: it would be lost with it.
        pub listener_in_flight: AtomicU32,
        /// Handlers that were replaced on a living connection.
        pub takeovers_total: AtomicU64,
        /// Transactions of dead processes that were undone or found complete by the next taker of their lock.
        pub recoveries_total: AtomicU64,
        /// Sessions that went on on a new connection.
        pub resumes_total: AtomicU64,
        /// Players who fell out of their room's log and were given a snapshot.
        pub resyncs_total: AtomicU64,
        /// Lines said to the lobby.
        pub lobby_lines_total: AtomicU64,
        /// Lines said to the lobby that were lost on the way to somebody, once for each.
        pub lobby_lines_missed_total: AtomicU64,
        /// Lines said to one player.
        pub whispers_total: AtomicU64,
        /// Connections that were closed because their handler kept dying in the same frame.
        pub blamed_total: AtomicU64,
        /// Doorbells that the ticker rang again.
        pub doorbells_rung_again_total: AtomicU64,
        /// Log records that were dropped because nobody read stderr.
        pub log_records_dropped_total: AtomicU64,
        /// Those of them that no later record has reported yet.
        pub log_records_unreported: AtomicU64,
        /// What seems to be stuck.
        pub hang_reports: HangReports,
        /// What the watchdog has done about it.
        pub watchdog: WatchdogRecord,
        /// Whose game's code the ticker runs.
        pub running_game: RunningGame,
        /// Matches that were abandoned because their game had killed several tickers.
        pub rooms_blamed_total: AtomicU64,
        /// The processes that the supervisor forked.
        pub roles: [RoleSlot; ROLES_MAX],
        /// One per keeper.
        pub keepers: [KeeperSlot; KEEPERS_MAX],
    }
}

shared_record! {
    /// How far the last upgrade has come. Only the supervisor writes it.
    pub struct UpgradeSlot {
        /// An [`UpgradeStage`], and in the upper bits how many upgrades were begun.
        state: AtomicU32,
        text_bytes: AtomicU32,
        text: SharedBytes<{ UPGRADE_TEXT_BYTES / 8 }>,
    }
}

/// What an upgrade in place is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum UpgradeStage {
    /// There was none.
    None = 0,
    /// The new program is looking at the memory, without touching it.
    Checking = 1,
    /// The new program will not do; nothing has changed.
    Refused = 2,
    /// The new program runs the supervisor; the other processes are replaced one after another.
    Replacing = 3,
    /// All processes run the new program.
    Done = 4,
    /// As [`Replacing`](Self::Replacing), but a process of the new program does not come up. It is tried again and again, and another
    /// upgrade may be begun.
    Stalled = 5,
}

impl UpgradeSlot {
    /// Which upgrade it is, how far it has come, and what there is to say about it.
    pub fn read(&self) -> (u32, UpgradeStage, String) {
        loop {
            let state = self.state.load(Ordering::Acquire);
            let mut text = [0; UPGRADE_TEXT_BYTES];
            self.text.copy_out(0, &mut text);
            let length = self.text_bytes.load(Ordering::Acquire) as usize;
            if self.state.load(Ordering::Acquire) != state {
                continue;
            }
            let stage = match state & 7 {
                1 => UpgradeStage::Checking,
                2 => UpgradeStage::Refused,
                3 => UpgradeStage::Replacing,
                4 => UpgradeStage::Done,
                5 => UpgradeStage::Stalled,
                _ => UpgradeStage::None,
            };
            let text = String::from_utf8_lossy(&text[..length.min(UPGRADE_TEXT_BYTES)]);
            return (state >> 3, stage, text.into_owned());
        }
    }

    /// Enters how far the upgrade has come. [`UpgradeStage::Checking`] begins another one.
    pub fn enter(&self, stage: UpgradeStage, text: &str) {
        let begun = (self.state.load(Ordering::Acquire) >> 3) + u32::from(stage == UpgradeStage::Checking);
        let length = floor_char_boundary(text, UPGRADE_TEXT_BYTES);
        self.text.copy_in(0, &text.as_bytes()[..length]);
        self.text_bytes
            .store(u32::try_from(length).expect("cut to less"), Ordering::Release);
        self.state.store(begun << 3 | stage as u32, Ordering::Release);
    }
}

shared_record! {
    /// What the watchdog has done, for operators. Only the supervisor writes it.
    pub struct WatchdogRecord {
        /// Processes that it has killed.
        pub kills_total: AtomicU64,
        /// The last one: its process id, and when it was killed, in milliseconds of the monotonic clock.
        pub last_pid: AtomicU32,
        /// See `last_pid`.
        pub last_at_ms: AtomicU64,
        /// What was stuck, as the word of a [`Subject`](shmem::hang_reports::Subject).
        pub last_subject: AtomicU64,
        /// What it was killed for: the number of a [`HangKind`](crate::state::hang_kind::HangKind).
        pub last_hang: AtomicU32,
    }
}

shared_record! {
    /// A process of the supervisor's.
    pub struct RoleSlot {
        /// Its id; 0 while there is none.
        pub pid: AtomicU32,
        /// How often it was started again.
        pub restarts: AtomicU32,
        /// When it was started: see [`ProcessId`].
        pub start_time: AtomicU64,
        /// Nonzero once the process has reported ready.
        pub ready: AtomicU32,
        /// Its answer to a [`ping`](Header::ping).
        pub pong: Pong,
        /// That it gets on.
        pub liveness: Liveness,
    }
}

shared_record! {
    /// A sign of life.
    pub struct Pong {
        /// When the process saw it, in nanoseconds of the monotonic clock. Written first.
        at_ns: AtomicU64,
        /// The last [`ping`](Header::ping) that the process has seen.
        seen: AtomicU64,
    }
}

impl Pong {
    /// Answers what was asked; to be called by the process whose answer it is, whenever it wakes up.
    pub fn answer(&self, asked: &AtomicU64) {
        let asked = asked.load(Ordering::Acquire);
        if self.seen.load(Ordering::Relaxed) != asked {
            self.at_ns.store(now_ns(), Ordering::Relaxed);
            self.seen.store(asked, Ordering::Release);
        }
    }

    /// When the answer to the question `asked`, or to a later one, was given, in nanoseconds of the monotonic clock.
    pub fn answered(&self, asked: u64) -> Option<u64> {
        (self.seen.load(Ordering::Acquire) >= asked).then(|| self.at_ns.load(Ordering::Relaxed))
    }
}

impl RoleSlot {
    /// The process; `None` while there is none.
    pub fn process(&self) -> Option<ProcessId> {
        // The start time is entered first.
        let pid = self.pid.load(Ordering::Acquire);
        let start_time = self.start_time.load(Ordering::Relaxed);
        (pid != 0).then_some(ProcessId { pid, start_time })
    }
}

shared_record! {
    /// What others leave for a keeper to find.
    pub struct KeeperSlot {
        /// One bit per connection slot whose handler should look at its flags.
        pub attention: [AtomicU64; CONNECTIONS_PER_KEEPER_MAX.div_ceil(64) as usize],
        /// One bit per connection slot of which a handler has news for the keeper.
        pub news: [AtomicU64; CONNECTIONS_PER_KEEPER_MAX.div_ceil(64) as usize],
        /// By kind: number of the last connection that the listener has sent. Only the listener writes it.
        sent: [AtomicU32; Kind::COUNT],
        /// By kind: connections that the keeper has taken, holds, or is yet to adopt.
        occupancy: [Occupancy; Kind::COUNT],
        /// Handlers of players that are this keeper's, and those of them that serve nobody yet, for operators. Only the keeper writes them.
        pub handlers: AtomicU32,
        /// See `handlers`.
        pub spare_handlers: AtomicU32,
        /// Connection slots from this one on were never claimed: their pages cost no memory until somebody looks.
        slots_touched: AtomicU32,
        /// Counts the processes that have held this slot, so that connections of a dead keeper are known.
        pub epoch: AtomicU32,
        /// The last epoch whose keeper has taken all that its predecessor had left in the channel.
        settled_epoch: AtomicU32,
    }
}

impl Header {
    /// Whether new players are refused, since the server is to end when its matches have.
    pub fn is_draining(&self) -> bool {
        self.drain_until_ms.load(Ordering::Acquire) != 0
    }
}

impl KeeperSlot {
    /// How many connections of the kind the keeper holds or is being sent, and how many live on without one.
    pub fn open(&self, kind: Kind) -> u32 {
        self.occupancy(kind).open(self.sent(kind))
    }

    /// What the keeper has of the kind.
    pub fn occupancy(&self, kind: Kind) -> &Occupancy {
        &self.occupancy[kind as usize]
    }

    /// Number of the last connection that the listener has entered as sent.
    pub fn sent(&self, kind: Kind) -> u32 {
        self.sent[kind as usize].load(Ordering::Acquire)
    }

    /// The listener has sent the connection of this number: one more than the last.
    pub fn set_sent(&self, kind: Kind, number: u32) {
        self.sent[kind as usize].store(number, Ordering::Release);
    }

    /// The keeper has taken all that its predecessor had left for it.
    pub fn settle(&self) {
        let epoch = self.epoch.load(Ordering::Relaxed);
        self.settled_epoch.store(epoch, Ordering::Release);
    }

    /// The epoch of the keeper; `None` while sockets may lie in the channel that no keeper has yet, or not any more.
    pub fn settled_epoch(&self) -> Option<u32> {
        let settled = self.settled_epoch.load(Ordering::Acquire);
        (settled == self.epoch.load(Ordering::Acquire)).then_some(settled)
    }

    /// The slot from which on none was ever claimed, counted from the keeper's first.
    pub fn slots_touched(&self) -> u32 {
        self.slots_touched.load(Ordering::Acquire)
    }

    /// Claims are about to reach up to `slots`.
    pub fn set_slots_touched(&self, slots: u32) {
        self.slots_touched.store(slots, Ordering::Release);
    }
}
