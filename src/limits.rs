//! Every bound of the server, in one place, with its unit in its name.
//!
//! Reaching a bound gives a typed error to whoever caused it and nothing to anybody else. Bounds that clients know about
//! too are those of [`forkade_protocol::limits`]; what an operator may change has its default here and its range in
//! [`config`](crate::config). How the bounds depend on each other is checked below, when the crate is compiled.

pub use forkade_games::limits::*;
pub use forkade_text::limits::*;
pub use shmem::limits::*;

pub use forkade_protocol::limits::*;

// --- Capacity ---------------------------------------------------------------------------------------------------

/// Players that exist at once, connected or in their grace, unless configured.
pub const PLAYERS_MAX_DEFAULT: u32 = 2000;

/// Rooms that exist at once, unless configured.
pub const ROOMS_MAX_DEFAULT: u32 = 1000;

/// Most players or rooms that can be configured: far above what one machine serves with a process per client, and low
/// enough that no size in the mapping overflows.
pub const PLAYERS_OR_ROOMS_MAX: u32 = 100_000;

/// Connections beyond the players, unless configured: those that are not greeted yet, the old ones of players who
/// resume, and consoles.
pub const CONNECTIONS_BEYOND_PLAYERS_DEFAULT: u32 = 100;

/// Connections of one keeper: `waitpid` and fork cost it more with each child and each open file.
pub const CONNECTIONS_PER_KEEPER_MAX: u32 = 1000;

/// Clients of one handler, at the widest setting of the isolation dial: its successor makes the last of so many wait a few milliseconds.
pub const CLIENTS_PER_HANDLER_MAX: u32 = 256;

/// Of a handler's places, one in so many is kept from new clients, for those who are moved to where their room is.
pub const PLACES_FOR_MOVES_ONE_IN: u32 = 8;

/// Handlers that one keeper may hold ready.
pub const SPARE_HANDLERS_MAX: u32 = 250;

/// Spare handlers that a keeper forks in one go, before it looks at what else there is to do.
pub const SPARE_FORK_BATCH_MAX: u32 = 4;

/// How long no connection must have come in before a keeper holds half as many handlers ready.
pub const SPARES_SHRINK_AFTER_MS: u64 = 5000;

/// Keepers; their slots lie in the header of the shared memory.
pub const KEEPERS_MAX: usize = 128;

/// Processes that the supervisor itself forks: keepers, listener, ticker, and those to come.
pub const ROLES_MAX: usize = KEEPERS_MAX + 8;

/// Console connections at once: operators, not clients.
pub const CONSOLE_CONNECTIONS_MAX: usize = 16;

/// Connections that the kernel holds until they are accepted, unless configured; `net.core.somaxconn` caps it.
pub const BACKLOG_DEFAULT: u32 = 1024;

/// Open files of a process besides those that grow with the capacity: standard streams, polls, signals, pipes to
/// other processes, listening sockets.
pub const OPEN_FILES_BASE: u64 = 64;

/// Memory of one handler, everything counted: page tables, kernel stack, private pages. (The load test measures 200 KiB for each client that
/// has a process of its own, what it touches of the shared memory included.)
pub const MEMORY_PER_HANDLER_BYTES: u64 = 176 * 1024;

/// Memory of one connection: what the kernel has for its socket and its descriptors in two processes, as long as nothing waits in it.
pub const MEMORY_PER_CONNECTION_BYTES: u64 = 16 * 1024;

/// Bytes of a configuration file.
pub const CONFIG_FILE_BYTES_MAX: u64 = 64 * 1024;

// --- A player's bytes -------------------------------------------------------------------------------------------

/// What a player was sent and has not confirmed yet.
pub const OUTPUT_RING_BYTES: usize = 64 * 1024;

/// Send buffer (`SO_SNDBUF`) of each connection, unless configured: a client that never reads fills no more of the
/// kernel's memory than twice this (the kernel doubles it for its own book-keeping).
pub const SEND_BUFFER_BYTES_DEFAULT: u32 = 64 * 1024;

// --- Rooms and games --------------------------------------------------------------------------------------------

/// Players that a room remembers as sent out by its owner; beyond them the oldest is forgotten, and could come in again.
pub const BANS_PER_ROOM_MAX: usize = 16;

/// A room's events that slow readers can still catch up with; who falls further behind gets a snapshot. Two players who do nothing but
/// play 70,000 times a second fill it in 70 ms, which a reader's process may have to wait for its turn on a crowded machine (with 32 KiB
/// such readers fell out). It costs memory only in rooms whose readers do not keep up.
pub const ROOM_LOG_BYTES: usize = 256 * 1024;

/// The lobby's chat that slow readers can still catch up with; who falls further behind is told how many lines were missed. Some 190 of
/// the longest lines, or 1,500 of the usual.
pub const CHAT_LOG_BYTES: usize = 128 * 1024;

/// What waits for one player, in whole frames: whispers and invitations. Eleven of the longest whispers, or a hundred of the usual.
pub const MAILBOX_BYTES: usize = 8 * 1024;

/// Lines that a player may say at once, in all scopes together, unless configured.
pub const CHAT_BURST_DEFAULT: u32 = 10;

/// Lines that a player may say in a minute in the long run, unless configured.
pub const CHAT_PER_MINUTE_DEFAULT: u32 = 60;

/// Requests that leave traces for others (to come into a room, to open or to change one) which a player may make at once, unless
/// configured: so few that what they lead to fits a room's log.
pub const REQUESTS_BURST_DEFAULT: u32 = 1000;

/// The same in a minute in the long run, unless configured: more than programs ask for that play match after match, each in a room of its
/// own, as fast as they can; and a tenth of what one that does nothing else could (its part of the lobby's lock is then some 4 %).
pub const REQUESTS_PER_MINUTE_DEFAULT: u32 = 60_000;

/// Bytes of the events that one such request leads to, at most: a longest name, and a few numbers.
const REQUEST_EVENTS_BYTES_MAX: usize = 256;

const _: () = assert!(REQUESTS_BURST_DEFAULT as usize * REQUEST_EVENTS_BYTES_MAX <= ROOM_LOG_BYTES);

/// Bytes of the text that tells why a seat was lost, at most.
pub const REMOVAL_TEXT_BYTES: usize = 64;

// --- Transactions -----------------------------------------------------------------------------------------------

/// An announced head that lags behind its log for longer than this is announced and rung for again.
pub const DOORBELL_RETRY_MS: u64 = 20;

// --- Patience with peers ----------------------------------------------------------------------------------------

/// Time for a connection to say who it is, unless configured.
pub const HANDSHAKE_TIMEOUT_MS_DEFAULT: u32 = 10_000;

/// A client that completes no frame for so long is taken for gone, unless configured.
pub const HEARTBEAT_TIMEOUT_MS_DEFAULT: u32 = 30_000;

/// How long a seat is kept for a player without a connection, unless configured.
pub const SEAT_GRACE_MS_DEFAULT: u32 = 60_000;

/// How long a player in no room, for whom no mail waits, is kept without a connection even if the last place is taken. With more places
/// free it is longer, up to the grace of a seat.
pub const LOBBY_GRACE_MS_MIN: u64 = 1000;

/// How long a seat is kept for a player whom the room's owner has invited, unless configured.
pub const SEAT_RESERVATION_MS_DEFAULT: u32 = 30_000;

/// A client that takes nothing of what waits for it for so long is taken for gone.
pub const WRITE_STALL_TIMEOUT_MS: u64 = 30_000;

/// How long a refused connection is read from after its error was sent, so that the error is not lost to a reset.
pub const REFUSAL_LINGER_MS: u64 = 1000;

/// Refused connections that linger at once; beyond them the oldest is closed early.
pub const REFUSED_LINGERING_MAX: usize = 256;

/// How long a closing connection may take for what waits to be sent, and then for the client to close its side.
pub const CLOSING_TIMEOUT_MS: u64 = 2000;

/// How long a session's former handler may take to let go of it before it is killed for the newer connection's sake.
pub const SESSION_RELEASE_TIMEOUT_MS: u64 = 1000;

/// How often a connection that waits for a session looks whether it is free, should the word be lost.
pub const RESUME_RETRY_MS: u64 = 20;

/// How long a connection waits for the session it asks to resume.
pub const RESUME_TIMEOUT_MS: u64 = 10_000;

/// Time for a console connection between two lines.
pub const CONSOLE_IDLE_TIMEOUT_MS: u64 = 600_000;

/// Lines that a console remembers for who edits them.
pub const CONSOLE_HISTORY_LINES_MAX: usize = 100;

/// Silence on a console's connection after which the kernel asks whether the other side is still there.
pub const CONSOLE_KEEP_ALIVE_MS: u64 = 60_000;

/// A line on the console.
pub const CONSOLE_LINE_BYTES_MAX: usize = 1024;

/// Characters of a message as the console describes it, before they are escaped; what is longer is cut.
pub const CONSOLE_DESCRIPTION_CHARACTERS_MAX: usize = 1000;

/// Time that a process has to answer when an operator asks whether it is alive.
pub const PING_TIMEOUT_MS: u64 = 1000;

/// How often a player's streams are looked at for an operator who follows them.
pub const TRACE_POLL_MS: u64 = 4;

/// How often an operator who follows something is told that it has ended or changed, should nothing else happen.
pub const FOLLOW_POLL_MS: u64 = 200;

/// Time for somebody in text mode between two keys that arrive, unless configured: people think longer than programs.
pub const TEXT_IDLE_TIMEOUT_MS_DEFAULT: u32 = 30 * 60_000;

/// How long nothing may be heard of a text player's machine before it is asked whether it is still there (TCP keepalive).
pub const TEXT_KEEPALIVE_SECONDS: u64 = 60;

// --- Text mode --------------------------------------------------------------------------------------------------

/// Names in one answer to `who`.
pub const TEXT_NAMES_SHOWN_MAX: usize = 50;

// --- The terminal client ----------------------------------------------------------------------------------------

// --- Patience with our own processes ----------------------------------------------------------------------------

/// Time for a role to report ready.
pub const ROLE_READY_TIMEOUT_MS: u64 = 10_000;

/// Delay before a role that died, and had not lived long, is started again: doubled with each death in a row, up to the maximum.
pub const RESTART_BACKOFF_MS_MIN: u64 = 10;

/// See [`RESTART_BACKOFF_MS_MIN`].
pub const RESTART_BACKOFF_MS_MAX: u64 = 5000;

/// A role that has lived so long is started again at once: it could do its work, and starting it twice a second costs less than players
/// who wait for a listener that is not there.
pub const RESTART_BACKOFF_RESET_AFTER_MS: u64 = 500;

/// Deaths of handlers in the same frame, within [`CRASH_WINDOW_MS`], after which its connection is closed.
pub const CRASHES_SAME_FRAME_MAX: u32 = 3;

/// Deaths of tickers in the same room's game, within [`CRASH_WINDOW_MS`], after which its match is abandoned.
pub const CRASHES_SAME_ROOM_MAX: u32 = 3;

/// See [`CRASHES_SAME_FRAME_MAX`].
pub const CRASH_WINDOW_MS: u64 = 5000;

/// Deaths of one connection's handlers within [`CRASH_WINDOW_MS`], other than by SIGKILL, after which it is given up: a fault that
/// strikes outside frames would otherwise fork for ever.
pub const CRASHES_PER_CONNECTION_MAX: u32 = 10;

/// How soon a keeper tries again to fork a handler for connections whose handler has died, after that failed for want of processes, memory
/// or descriptors.
pub const TAKEOVER_RETRY_MS: u64 = 50;

/// How often it tries in all, before it gives the connections up: 5 s. Their clients resume.
pub const TAKEOVER_TRIES_MAX: u32 = 100;

/// How soon a handler looks whether a connection that it has been promised is its own now, if nobody says so.
pub const PENDING_MOVE_POLL_MS_MIN: u64 = 20;

/// It waits twice as long each time, and at most so long.
pub const PENDING_MOVE_POLL_MS_MAX: u64 = 1000;

/// Successors that a keeper forks in one go, before it looks who else has come.
pub const TAKEOVER_BATCH_MAX: u32 = 4;

/// New connections that a keeper takes in one go, before it looks who has lost a handler.
pub const ASSIGN_BATCH_MAX: u32 = 8;

/// How often a keeper that took a dead one's place asks the handlers that live on for their sockets.
pub const ADOPTION_RETRY_MS: u64 = 50;

/// Connections for whose sockets it asks in one go, before it takes what is offered: the channel holds some 280 offers. (A handler that
/// has more is asked alone, and offers all.)
pub const ADOPTION_BATCH_MAX: usize = 64;

/// Processor time that a process may use under a lock that others wait for, or without coming round its loop, before the watchdog kills
/// it, unless configured.
pub const WATCHDOG_CPU_MS_DEFAULT: u32 = 1000;

/// How often the watchdog looks at those under suspicion.
pub const WATCHDOG_POLL_MS: u64 = 100;

/// How often keepers look whether their handlers get on, and the watchdog whether the supervisor's own processes do.
pub const LIVENESS_POLL_MS: u64 = 1000;

/// How often a handler shows that it gets on, if it does: often enough to be seen at each look.
pub const LIVENESS_UPDATE_MS: u64 = LIVENESS_POLL_MS / 4;

/// Looks in a row, [`WATCHDOG_POLL_MS`] apart, that must find a suspect stopped before it is killed: somebody may be about to continue it.
pub const WATCHDOG_STOPPED_POLLS: u32 = 5;

/// Looks in a row that must find the holder of a lock asleep, without having used any processor time, before it is killed: nothing of
/// this server's sleeps under a lock, but a game's code might.
pub const WATCHDOG_ASLEEP_POLLS: u32 = 50;

/// Kills of the watchdog within a second: should it ever be wrong about many, the server lives on.
pub const WATCHDOG_KILLS_PER_SECOND_MAX: u32 = 10;

/// How long an orderly stop waits for what is still on its way to clients, unless configured.
pub const DRAIN_TIMEOUT_MS_DEFAULT: u32 = 5000;

/// Time between being asked to end and being killed, for a process of the server.
pub const TERMINATE_TIMEOUT_MS: u64 = 5000;

/// How long a keeper that makes way goes on to replace handlers that have died, before it leaves that to the next.
pub const KEEPER_HANDOFF_TIMEOUT_MS: u64 = TERMINATE_TIMEOUT_MS / 2;

/// How soon it tries again to hand its connections on, when the channel to the next keeper had no place for all.
pub const TRANSFER_RETRY_MS: u64 = 5;

/// The ticker's step: how often it looks for seats whose grace is over, lagging doorbells and what the dead left behind.
pub const TICK_MS: u64 = 10;

/// How often the ticker looks at what changes slowly: graces, closed rooms, orphaned connections.
pub const EXPIRY_INTERVAL_MS: u64 = 100;

/// How long a connection must have been without keeper and handler before the ticker frees it: a handler that was just forked has not
/// entered itself yet. (While sockets lie in a channel that no keeper has emptied yet, it has no keeper *yet*, and the time does not count.)
pub const ORPHAN_AFTER_MS: u64 = 1000;

/// How long accepting rests after it failed for want of descriptors or memory, or because every keeper has as much to take as its channel
/// holds.
pub const ACCEPT_RETRY_MS: u64 = 100;

// --- Upgrade in place -------------------------------------------------------------------------------------------

/// Time for a new program to look at the running server's memory and say whether it can go on with it.
pub const UPGRADE_PROBE_TIMEOUT_MS: u64 = 10_000;

/// How often it is looked how far an upgrade has come.
pub const UPGRADE_POLL_MS: u64 = 20;

/// What a new program may say about itself, in bytes.
pub const UPGRADE_TEXT_BYTES: usize = 512;

/// What a new program may say about itself in all, as JSON: a text of [`UPGRADE_TEXT_BYTES`] in any spelling, its version, and the names.
pub const UPGRADE_REPLY_BYTES_MAX: usize = 8 * UPGRADE_TEXT_BYTES;

/// Deaths in a row of a new program's process that has not come up, after which the upgrade counts as stalled, and another may be begun.
pub const UPGRADE_STALLED_AFTER_CRASHES: u32 = 3;

/// What is handed over to the new program: numbers of descriptors, mostly. In bytes.
pub const HANDOVER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// After an upgrade each keeper replaces one handler in so many milliseconds: 200 a second, so that forking them does not keep those
/// who play from the processors.
pub const UPGRADE_HANDLER_INTERVAL_MS: u64 = 5;

// --- Logging ----------------------------------------------------------------------------------------------------

/// A log record with its line end: what Linux writes to a pipe in one piece (`PIPE_BUF`).
pub const LOG_RECORD_BYTES_MAX: usize = 4096;

// --- How they depend on each other ------------------------------------------------------------------------------
// Integers are taken at their longest encoding: 1 byte for the tag, the full width behind it.

const TAG: usize = 1;
const LENGTH: usize = 3;
const U32: usize = 5;
const U64: usize = 9;

const ROOM_SUMMARY_BYTES: usize =
    U64 + (1 + GAME_NAME_BYTES_MAX) + (1 + ROOM_NAME_BYTES_MAX) + TAG + 1 + 1 + U32 + 1;
/// A seat is taken, or free and kept for somebody: then it has a tag for itself and a reservation.
const SEAT_INFO_BYTES: usize = TAG + (1 + PLAYER_NAME_BYTES_MAX) + 1 + U32;
const RULES_BYTES: usize = 1 + 1 + (LENGTH + GAME_OPTIONS_BYTES_MAX) + 1 + 1 + 3;
const SNAPSHOT_BYTES: usize = (U64 + (1 + GAME_NAME_BYTES_MAX) + (1 + ROOM_NAME_BYTES_MAX) + TAG + TAG + 1)
    + (1 + 1 + SEATS_MAX as usize * SEAT_INFO_BYTES)
    + (U32 + U64 + LENGTH + GAME_VIEW_BYTES_MAX)
    + (TAG + 1 + RULES_BYTES + TAG + 1 + U32);
/// Bytes of the message that tells of a reservation, with its frame, at most.
pub const INVITED_BYTES_MAX: usize = FRAME_HEADER_BYTES
    + (TAG + U64 + (1 + GAME_NAME_BYTES_MAX) + (1 + ROOM_NAME_BYTES_MAX))
    + (1 + PLAYER_NAME_BYTES_MAX)
    + (1 + INVITE_CODE_BYTES + 3);
const REMOVED_BYTES: usize = TAG + U64 + (1 + REMOVAL_TEXT_BYTES);
const GAME_INFO_BYTES: usize = 1 + GAME_NAME_BYTES_MAX + 1 + 1 + 3;
const WELCOME_BYTES: usize =
    (TAG + 3 + 16 + U64 + 1 + PLAYER_NAME_BYTES_MAX + 6 * U32) + (1 + GAMES_MAX * GAME_INFO_BYTES);
const CHAT_LINE_BYTES: usize =
    TAG + (TAG + 1 + PLAYER_NAME_BYTES_MAX) + (1 + PLAYER_NAME_BYTES_MAX) + LENGTH + CHAT_BYTES_MAX;
const HELLO_BYTES: usize = TAG + (1 + PLAYER_NAME_BYTES_MAX) + (1 + CLIENT_NAME_BYTES_MAX);

/// Every message fits its frame at its longest, and every frame the ring or record it waits in.
const _: () = {
    assert!(FRAME_TOTAL_BYTES_MAX <= INPUT_RING_BYTES);
    assert!(2 * FRAME_TOTAL_BYTES_MAX <= OUTPUT_RING_BYTES);
    // Who has lost a seat may learn it by asking to be let in elsewhere.
    assert!(REMOVED_BYTES + FRAME_HEADER_BYTES + TAG + U32 + SNAPSHOT_BYTES <= FRAME_BYTES_MAX);
    // Half a line and what is skipped before it leave space for more to arrive.
    assert!(TEXT_LINE_RAW_BYTES_MAX + 2 * TEXT_SKIP_BYTES_MIN < INPUT_RING_BYTES);
    assert!(TEXT_LINE_BYTES_MAX < TEXT_LINE_RAW_BYTES_MAX && CHAT_BYTES_MAX < TEXT_LINE_BYTES_MAX);
    assert!(TELNET_REPLY_BATCH_BYTES + 3 <= TEXT_OUTPUT_BYTES_MAX);
    assert!(TAG + U32 + LENGTH + ROOMS_PER_PAGE_MAX * ROOM_SUMMARY_BYTES + TAG + U64 <= FRAME_BYTES_MAX);
    assert!(TAG + U32 + LENGTH + ACTION_BYTES_MAX <= FRAME_BYTES_MAX);
    assert!(TAG + U64 + TAG + LENGTH + GAME_EVENT_BYTES_MAX <= FRAME_BYTES_MAX);
    // Frames of both kinds wait whole, and a reader of the log has a moment before it falls out.
    assert!(100 * (FRAME_HEADER_BYTES + CHAT_LINE_BYTES) <= CHAT_LOG_BYTES);
    assert!(8 * (FRAME_HEADER_BYTES + CHAT_LINE_BYTES) <= MAILBOX_BYTES);
    assert!(FRAME_HEADER_BYTES + WELCOME_BYTES <= HANDSHAKE_REPLY_BYTES_MAX);
    assert!(FRAME_HEADER_BYTES + HELLO_BYTES + 8 <= HANDSHAKE_BYTES_MAX);
    // One call's events never push each other out of the log, whatever the log needs for each (32 bytes are plenty).
    assert!(OUTBOX_BYTES_MAX + 32 * OUTBOX_EVENTS_MAX <= ROOM_LOG_BYTES);
    assert!(GAME_EVENT_BYTES_MAX + OUTBOX_EVENT_HEADER_BYTES <= OUTBOX_BYTES_MAX);
    assert!(PLAYERS_MAX_DEFAULT <= PLAYERS_OR_ROOMS_MAX && ROOMS_MAX_DEFAULT <= PLAYERS_OR_ROOMS_MAX);
    assert!(
        (PLAYERS_OR_ROOMS_MAX + CONNECTIONS_BEYOND_PLAYERS_DEFAULT) as usize
            <= KEEPERS_MAX * CONNECTIONS_PER_KEEPER_MAX as usize
    );
};
