//! The head of the memory, which every process reads without a lock: counters, settings, and the slots of roles and
//! keepers.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::limits::{
    CONNECTION_SLOTS_PER_KEEPER, KEEPERS_MAX, LOG_KINDS_MAX, PANIC_PLACES_MAX, ROLES_MAX,
    SETTINGS_TEXT_BYTES_MAX, TICKERS_MAX, UPGRADE_TEXT_BYTES,
};
use crate::state::budget::Budget;
use crate::state::close_counters::CloseCounters;
use crate::state::connection_counts::ConnectionCounts;
use crate::state::connections::Kind;
use crate::state::running_game::RunningGame;
use crate::state::tick_figures::TickFigures;
use forkade_games::floor_char_boundary;
use shmem::hang_reports::HangReports;
use shmem::liveness::Liveness;
use shmem::shared_record;
use shmem::sys::clock::now_ns;
use shmem::sys::memory::SharedBytes;
use shmem::sys::process::ProcessId;
use shmem::word::Word;

shared_record! {
    /// The head of the mapping. Every process may read it at any time, without a lock.
    pub struct Header {
        /// When the server started, in milliseconds of the monotonic clock.
        pub started_at_ms: AtomicU64,
        // The settings that `Welcome` announces or that change what players may do lie here, not only in each process's
        // own settings. An upgrade in place may change them, and handlers, ticker and consoles are then replaced one
        // after another. Here the new values hold for all processes at once, so the grace and the heartbeat timeout
        // that one process announces are those that another one enforces.
        /// How long the seat of a player without a connection is kept, in milliseconds.
        pub seat_grace_ms: AtomicU64,
        /// How long a seat is kept for an invited player, in milliseconds.
        pub seat_reservation_ms: AtomicU64,
        /// Silence after which a client counts as gone, in milliseconds.
        pub heartbeat_timeout_ms: AtomicU64,
        /// Silence after which a player in text mode counts as gone, in milliseconds.
        pub text_idle_timeout_ms: AtomicU64,
        /// How long a move or chat line waits for readers of its room that have fallen behind, in milliseconds.
        pub reader_wait_ms: AtomicU64,
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
        /// Requests of a player that may be rejected in a row before the next one has to wait.
        pub failures_burst: AtomicU64,
        /// Requests of a player that may be rejected per minute in the long run; 0: no limit.
        pub failures_per_minute: AtomicU64,
        /// Wrong passcodes, and as many wrong invite codes, that a room judges per minute; 0: no limit.
        pub guesses_per_minute: AtomicU64,
        /// Deliveries of lobby lines per second, to all players together; 0: no limit.
        pub lobby_fanout: AtomicU64,
        /// Deliveries of a room's events per second, to its members together; 0: no limit. (A game's own events are
        /// not limited.)
        pub room_fanout: AtomicU64,
        /// The same for all rooms together.
        pub server_fanout: AtomicU64,
        /// Wrong passcodes and invite codes that are judged per minute from one [source](crate::state::sources); 0: no
        /// limit.
        pub source_guesses_per_minute: AtomicU64,
        /// Frames or lines that one source may send per second; 0: no limit.
        pub source_messages_per_second: AtomicU64,
        /// Kibibytes that one source may send per second; 0: no limit.
        pub source_kib_per_second: AtomicU64,
        /// How many bits of an IPv4 address name its source.
        pub ipv4_source_prefix: AtomicU64,
        /// How many bits of an IPv6 address name its source.
        pub ipv6_source_prefix: AtomicU64,
        /// What of [`lobby_fanout`](Self::lobby_fanout) is spent.
        pub(crate) lobby_deliveries: Budget,
        /// What of [`server_fanout`](Self::server_fanout) is spent.
        pub(crate) server_deliveries: Budget,
        /// Nonzero once the server has begun to stop.
        pub stopping: AtomicU32,
        /// Process id of the supervisor.
        pub supervisor_pid: AtomicU32,
        /// Counts the programs that have run this server: incremented by each upgrade in place.
        pub build: AtomicU32,
        /// The progress of an upgrade.
        pub upgrade: UpgradeSlot,
        /// The log level, as the number of a [`log::LevelFilter`] + 1; 0 until it is set.
        pub log_level: AtomicU32,
        /// Nonzero once a drain is complete: the supervisor must stop the server.
        pub drained: AtomicU32,
        /// While the server drains: when it stops at the latest, in milliseconds of the monotonic clock (`u64::MAX`:
        /// when the last match has ended). 0 while it does not drain.
        pub drain_until_ms: AtomicU64,
        /// Number of the last ping: see [`RoleSlot::pong`].
        pub ping: AtomicU64,
        /// The supervisor's reply.
        pub supervisor_pong: Pong,
        /// Connections accepted and sent to a keeper.
        pub accepted_total: AtomicU64,
        /// Connections closed with a typed error, by its code.
        pub closes: CloseCounters,
        /// Connections to the game port that were closed because they speak another protocol: HTTP, TLS, SSH or PROXY.
        pub foreign_openings_total: AtomicU64,
        /// Connections refused for what their source has done: too many of them, too fast, penalised or banned.
        pub sources_refused_total: AtomicU64,
        /// Connections refused at random because too many others have not greeted.
        pub refused_early_total: AtomicU64,
        /// Turns after which a player's input waited because its source sends too fast.
        pub sources_held_total: AtomicU64,
        /// Penalties of sources.
        pub penalties_total: AtomicU64,
        /// Upper bound of the connections that were accepted but lost before a handler served them. (A process that
        /// dies over one may already have passed it on.)
        pub lost_before_handshake_total: AtomicU64,
        /// 1 while the listener accepts a connection or holds one that it has not yet sent: it is lost if the
        /// listener dies.
        pub listener_in_flight: AtomicU32,
        /// Handlers replaced on a living connection.
        pub takeovers_total: AtomicU64,
        /// Transactions of dead processes that the next holder of their lock rolled back or found complete.
        pub recoveries_total: AtomicU64,
        /// Sessions resumed on a new connection.
        pub resumes_total: AtomicU64,
        /// Players that fell behind their room's log and got a snapshot.
        pub resyncs_total: AtomicU64,
        /// Moves and chat lines that waited for readers that had fallen behind.
        pub reader_waits_total: AtomicU64,
        /// Readers that writers stopped waiting for.
        pub readers_given_up_total: AtomicU64,
        /// Connections closed because the client confirmed nothing.
        pub unconfirmed_closed_total: AtomicU64,
        /// Chat lines sent to the lobby.
        pub lobby_lines_total: AtomicU64,
        /// Lobby chat lines that a reader missed, counted once for each reader.
        pub lobby_lines_missed_total: AtomicU64,
        /// Whispers sent.
        pub whispers_total: AtomicU64,
        /// Requests and lines refused because the player's own account was spent.
        pub too_fast_total: AtomicU64,
        /// Rejected requests that were charged to their player.
        pub failed_requests_total: AtomicU64,
        /// Passcodes and invite codes refused unjudged because too many wrong ones were given at the room.
        pub guesses_refused_total: AtomicU64,
        /// Greetings, resumes and new names refused because an operator has banned the name.
        pub banned_total: AtomicU64,
        /// Chat lines refused because an operator has muted the name.
        pub muted_total: AtomicU64,
        /// Acts of operators that could not be written to the audit log.
        pub audit_lines_lost_total: AtomicU64,
        /// Connections to the console closed because they did not give the password in time.
        pub passwords_overdue_total: AtomicU64,
        /// Requests and lines refused because a room, all rooms or the lobby had too much to deliver.
        pub fanout_refused_total: AtomicU64,
        /// Connections closed because the same frame crashed several handlers.
        pub blocked_frames_total: AtomicU64,
        /// Doorbells that the ticker rang again.
        pub doorbells_rung_again_total: AtomicU64,
        /// Log records dropped because stderr was not read.
        pub log_records_dropped_total: AtomicU64,
        /// Log records left out because there were too many of their kind.
        pub log_records_left_out_total: AtomicU64,
        /// By kind of log record: see [`LogLimits`](crate::logging::LogLimits).
        pub log_kinds: [AtomicU64; LOG_KINDS_MAX],
        /// By place of a panic: see [`LogLimits`](crate::logging::LogLimits).
        pub panic_places: [AtomicU64; PANIC_PLACES_MAX],
        /// The settings in effect.
        pub settings: SettingsSlot,
        /// The level of the log that is configured, as in `log_level`.
        pub log_level_configured: AtomicU32,
        /// Dropped log records that no later record has reported yet.
        pub log_records_unreported: AtomicU64,
        /// Suspected hangs.
        pub hang_reports: HangReports,
        /// What the watchdog has done.
        pub watchdog: WatchdogRecord,
        /// By ticker: which room's game it runs.
        pub running_games: [RunningGame; TICKERS_MAX],
        /// How late ticks are.
        pub ticks: TickFigures,
        /// Matches abandoned because their game crashed several tickers, or took too long again and again.
        pub matches_abandoned_total: AtomicU64,
        /// Rooms that are not shown any more because their game crashed several handlers that showed the match.
        pub matches_not_shown_total: AtomicU64,
        /// The processes that the supervisor forked.
        pub roles: [RoleSlot; ROLES_MAX],
        /// One per keeper.
        pub keepers: [KeeperSlot; KEEPERS_MAX],
    }
}

shared_record! {
    /// The progress of the last upgrade. Only the supervisor writes it.
    pub struct UpgradeSlot {
        /// See [`Editions`].
        editions: AtomicU64,
        /// By edition: an [`UpgradeStage`]; the upper bits count upgrades.
        states: [AtomicU32; 2],
        text_bytes: [AtomicU32; 2],
        texts: [SharedBytes<{ UPGRADE_TEXT_BYTES / 8 }>; 2],
    }
}

/// The word that counts the editions of something that one process writes and others read without a lock. Two editions
/// are kept, in two places that take turns. So a writer that is killed leaves the last edition whole, and no reader
/// waits for it.
#[derive(Debug)]
pub struct Editions<'e, W>(pub &'e W);

impl<W: Word> Editions<'_, W> {
    /// Writes the next edition: `write` gets its place.
    pub fn publish<T>(&self, write: impl FnOnce(usize) -> T) -> T {
        let edition = self.0.load(Ordering::Relaxed);
        // Pairs with the fence in `read`: a reader that sees a part of the next edition sees that the last one was
        // published, so that this place's former edition is not the last any more.
        W::fence(Ordering::Release);
        let written = write(place_of(edition.wrapping_add(1)));
        // Pairs with the load in `read`: a reader that sees this number sees the whole edition.
        self.0.store(edition.wrapping_add(1), Ordering::Release);
        written
    }

    /// The place of the last edition, for its writer.
    pub fn last(&self) -> usize {
        place_of(self.0.load(Ordering::Relaxed))
    }

    /// Reads the last edition: `read` gets its place, and is repeated when a further edition was published meanwhile.
    pub fn read<T>(&self, read: impl Fn(usize) -> T) -> T {
        loop {
            let edition = self.0.load(Ordering::Acquire);
            let found = read(place_of(edition));
            // Pairs with the fence in `publish`.
            W::fence(Ordering::Acquire);
            if self.0.load(Ordering::Relaxed) == edition {
                return found;
            }
        }
    }
}

fn place_of(edition: u64) -> usize {
    usize::from(!edition.is_multiple_of(2))
}

/// The stage of an upgrade in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum UpgradeStage {
    /// There was no upgrade.
    None = 0,
    /// The new program checks the memory without changing it.
    Checking = 1,
    /// The new program was refused; nothing has changed.
    Refused = 2,
    /// The new program runs the supervisor; the other processes are replaced one after another.
    Replacing = 3,
    /// All processes run the new program.
    Done = 4,
    /// Like [`Replacing`](Self::Replacing), but a process of the new program fails to start. Starting it is retried,
    /// and another upgrade may be started.
    Stalled = 5,
}

impl UpgradeSlot {
    /// The upgrade's number, its stage, and a text about it.
    pub fn read(&self) -> (u32, UpgradeStage, String) {
        let (state, length, text) = Editions(&self.editions).read(|place| {
            let mut text = [0; UPGRADE_TEXT_BYTES];
            self.texts[place].copy_out(0, &mut text);
            let length = self.text_bytes[place].load(Ordering::Relaxed) as usize;
            (self.states[place].load(Ordering::Relaxed), length, text)
        });
        let stage = match state & 7 {
            1 => UpgradeStage::Checking,
            2 => UpgradeStage::Refused,
            3 => UpgradeStage::Replacing,
            4 => UpgradeStage::Done,
            5 => UpgradeStage::Stalled,
            _ => UpgradeStage::None,
        };
        let text = String::from_utf8_lossy(&text[..length.min(UPGRADE_TEXT_BYTES)]);
        (state >> 3, stage, text.into_owned())
    }

    /// Enters the stage of the upgrade. [`UpgradeStage::Checking`] starts the next one.
    pub fn enter(&self, stage: UpgradeStage, text: &str) {
        let editions = Editions(&self.editions);
        let last = self.states[editions.last()].load(Ordering::Relaxed) >> 3;
        let number = last + u32::from(stage == UpgradeStage::Checking);
        let length = floor_char_boundary(text, UPGRADE_TEXT_BYTES);
        editions.publish(|place| {
            self.texts[place].copy_in(0, &text.as_bytes()[..length]);
            self.text_bytes[place].store(u32::try_from(length).expect("cut to less"), Ordering::Relaxed);
            self.states[place].store(number << 3 | stage as u32, Ordering::Relaxed);
        });
    }
}

shared_record! {
    /// The settings in effect, as text. Only the supervisor writes it, at the start and after an upgrade.
    pub struct SettingsSlot {
        /// See [`Editions`].
        editions: AtomicU64,
        text_bytes: [AtomicU32; 2],
        texts: [SharedBytes<{ SETTINGS_TEXT_BYTES_MAX / 8 }>; 2],
    }
}

impl SettingsSlot {
    /// Enters the text; false if it is too long.
    pub fn enter(&self, text: &str) -> bool {
        let Some(length) = u32::try_from(text.len())
            .ok()
            .filter(|_| text.len() <= SETTINGS_TEXT_BYTES_MAX)
        else {
            return false;
        };
        Editions(&self.editions).publish(|place| {
            self.texts[place].copy_in(0, text.as_bytes());
            self.text_bytes[place].store(length, Ordering::Relaxed);
        });
        true
    }

    /// The text; empty before the first one is entered.
    pub fn read(&self) -> String {
        let text = Editions(&self.editions).read(|place| {
            let length = self.text_bytes[place].load(Ordering::Relaxed) as usize;
            let mut text = vec![0; length.min(SETTINGS_TEXT_BYTES_MAX)];
            self.texts[place].copy_out(0, &mut text);
            text
        });
        String::from_utf8_lossy(&text).into_owned()
    }
}

shared_record! {
    /// What the watchdog has done, for operators. Only the supervisor writes it.
    pub struct WatchdogRecord {
        /// Processes killed.
        pub kills_total: AtomicU64,
        /// Pid of the process killed last.
        pub last_pid: AtomicU32,
        /// When it was killed, in milliseconds of the monotonic clock.
        pub last_at_ms: AtomicU64,
        /// What it hung over, as the word of a [`Subject`](shmem::hang_reports::Subject).
        pub last_subject: AtomicU64,
        /// Why it was killed: the number of a [`HangKind`](crate::state::hang_kind::HangKind).
        pub last_hang: AtomicU32,
    }
}

shared_record! {
    /// A process that the supervisor forked.
    pub struct RoleSlot {
        /// Its pid; 0 while there is none.
        pub pid: AtomicU32,
        /// How often it was restarted.
        pub restarts: AtomicU32,
        /// Its start time: see [`ProcessId`].
        pub start_time: AtomicU64,
        /// Nonzero once the process has reported ready.
        pub ready: AtomicU32,
        /// Its reply to a [`ping`](Header::ping).
        pub pong: Pong,
        /// When it last made progress.
        pub liveness: Liveness,
    }
}

shared_record! {
    /// A reply to a ping.
    pub struct Pong {
        /// When the process saw the ping, in nanoseconds of the monotonic clock. Written first.
        at_ns: AtomicU64,
        /// The last [`ping`](Header::ping) that the process has seen.
        seen: AtomicU64,
    }
}

impl Pong {
    /// Replies to the ping `asked`. The process that owns this slot calls it whenever it wakes up.
    pub fn answer(&self, asked: &AtomicU64) {
        let asked = asked.load(Ordering::Acquire);
        if self.seen.load(Ordering::Relaxed) != asked {
            self.at_ns.store(now_ns(), Ordering::Relaxed);
            self.seen.store(asked, Ordering::Release);
        }
    }

    /// When the process replied to the ping `asked` or to a later one, in nanoseconds of the monotonic clock.
    pub fn answered(&self, asked: u64) -> Option<u64> {
        (self.seen.load(Ordering::Acquire) >= asked).then(|| self.at_ns.load(Ordering::Relaxed))
    }
}

impl RoleSlot {
    /// The process; `None` while there is none.
    pub fn process(&self) -> Option<ProcessId> {
        // The start time is stored first.
        let pid = self.pid.load(Ordering::Acquire);
        let start_time = self.start_time.load(Ordering::Relaxed);
        (pid != 0).then_some(ProcessId { pid, start_time })
    }
}

shared_record! {
    /// A keeper's slot: flags that other processes set for it, and its counts.
    pub struct KeeperSlot {
        /// One bit per connection slot whose handler must check its flags.
        pub attention: [AtomicU64; CONNECTION_SLOTS_PER_KEEPER.div_ceil(64) as usize],
        /// One bit per connection slot for which a handler has notified the keeper.
        pub notifications: [AtomicU64; CONNECTION_SLOTS_PER_KEEPER.div_ceil(64) as usize],
        /// One bit per connection slot whose client has not greeted yet.
        pub greeting: [AtomicU64; CONNECTION_SLOTS_PER_KEEPER.div_ceil(64) as usize],
        /// By kind: number of the last connection sent to the keeper. Only the listener writes it.
        sent: [AtomicU32; Kind::COUNT],
        /// By kind: connections that the keeper has received, holds, or has yet to adopt.
        connection_counts: [ConnectionCounts; Kind::COUNT],
        /// The keeper's handlers of players, for operators. Only the keeper writes it.
        pub handlers: AtomicU32,
        /// Those of `handlers` that serve no connection yet. Only the keeper writes it.
        pub spare_handlers: AtomicU32,
        /// The keeper's receptions, for operators. Only the keeper writes it.
        pub receptions: AtomicU32,
        /// Connection slots from this one on were never claimed, so their pages cost no memory.
        slots_touched: AtomicU32,
        /// Counts the processes that have had this slot, so that connections of a dead keeper are recognised.
        pub epoch: AtomicU32,
        /// The last epoch whose keeper has received everything that its predecessor left in the channel.
        settled_epoch: AtomicU32,
    }
}

impl Header {
    /// Whether the server drains: new players and matches are refused.
    pub fn is_draining(&self) -> bool {
        self.drain_until_ms.load(Ordering::Acquire) != 0
    }
}

impl KeeperSlot {
    /// Connections of the kind that the keeper holds or is being sent, and those that live on without a keeper.
    pub fn open(&self, kind: Kind) -> u32 {
        self.connection_counts(kind).open(self.sent(kind))
    }

    /// Connections of the kind that are on their way to the keeper.
    pub fn in_flight(&self, kind: Kind) -> u32 {
        self.connection_counts(kind).in_flight(self.sent(kind))
    }

    /// The keeper's counts for the kind.
    pub fn connection_counts(&self, kind: Kind) -> &ConnectionCounts {
        &self.connection_counts[kind as usize]
    }

    /// Number of the last connection that the listener has counted as sent.
    pub fn sent(&self, kind: Kind) -> u32 {
        self.sent[kind as usize].load(Ordering::Acquire)
    }

    /// Counts the connection of this number, one more than the last, as sent.
    pub fn set_sent(&self, kind: Kind, number: u32) {
        self.sent[kind as usize].store(number, Ordering::Release);
    }

    /// The keeper has received everything that its predecessor left.
    pub fn settle(&self) {
        let epoch = self.epoch.load(Ordering::Relaxed);
        self.settled_epoch.store(epoch, Ordering::Release);
    }

    /// The keeper's epoch; `None` while sockets may lie in the channel for which there is no keeper.
    pub fn settled_epoch(&self) -> Option<u32> {
        let settled = self.settled_epoch.load(Ordering::Acquire);
        (settled == self.epoch.load(Ordering::Acquire)).then_some(settled)
    }

    /// Slots from this one on, counted from the keeper's first, were never claimed.
    pub fn slots_touched(&self) -> u32 {
        self.slots_touched.load(Ordering::Acquire)
    }

    /// Claims are about to reach up to `slots`.
    pub fn set_slots_touched(&self, slots: u32) {
        self.slots_touched.store(slots, Ordering::Release);
    }
}
