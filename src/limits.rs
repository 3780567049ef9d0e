//! Every bound of the server, in one place, with its unit in its name.
//!
//! Reaching a bound gives a typed error to the client that caused it, and nothing to any other. Bounds that clients
//! know too are in [`forkade_protocol::limits`]. A bound that an operator may change has its default here and its
//! range in [`config`](crate::config). How the bounds depend on each other is checked below, at compile time.

pub use forkade_games::limits::*;
pub use forkade_text::limits::*;
pub use shmem::limits::*;

pub use forkade_protocol::limits::*;

// --- Capacity ---------------------------------------------------------------------------------------------------

/// Players, connected or in their grace, unless configured.
pub const PLAYERS_MAX_DEFAULT: u32 = 2000;

/// Rooms, unless configured.
pub const ROOMS_MAX_DEFAULT: u32 = 1000;

/// Most players or rooms that can be configured: far above what one machine serves with a process per client, and low
/// enough that no size in the mapping overflows.
pub const PLAYERS_OR_ROOMS_MAX: u32 = 100_000;

/// Names that the operator's list may reserve. Each is compared with each name that is chosen.
pub const RESERVED_NAMES_MAX: usize = 100;

/// Connections beyond the number of players, unless configured: connections in the handshake, former connections of
/// players that resume, and consoles.
pub const CONNECTIONS_BEYOND_PLAYERS_DEFAULT: u32 = 100;

/// Clients' connections of one keeper. The cost of `waitpid` and fork grows with children and open files.
pub const CONNECTIONS_PER_KEEPER_MAX: u32 = 1000;

/// Connection slots of one keeper: those of consoles are never used for clients, so that a full server has a console.
pub const CONNECTION_SLOTS_PER_KEEPER: u32 = CONNECTIONS_PER_KEEPER_MAX + CONSOLE_SLOTS_PER_KEEPER;

/// Clients of one handler at the widest setting of the isolation dial. A takeover of so many makes the last one wait
/// a few milliseconds.
pub const CLIENTS_PER_HANDLER_MAX: u32 = 256;

/// One in so many of a handler's slots is reserved for clients that move to the handler of their room.
pub const PLACES_FOR_MOVES_ONE_IN: u32 = 8;

/// Connections of one reception. A takeover of so many makes the last one wait a few milliseconds.
pub const RECEPTION_CONNECTIONS_MAX: usize = 256;

/// Receptions of one keeper: enough for all of its connections, and as many more that were split because one has
/// crashed, or that a keeper has left to its successor.
pub const RECEPTIONS_PER_KEEPER_MAX: u32 = 8;

const _: () = assert!(
    CONNECTIONS_PER_KEEPER_MAX as usize <= RECEPTIONS_PER_KEEPER_MAX as usize / 2 * RECEPTION_CONNECTIONS_MAX
);

/// Spare handlers of one keeper.
pub const SPARE_HANDLERS_MAX: u32 = 250;

/// Spare handlers that a keeper forks before it looks at its other work.
pub const SPARE_FORK_BATCH_MAX: u32 = 4;

/// Time without a new connection after which a keeper halves its spare handlers.
pub const SPARES_SHRINK_AFTER_MS: u64 = 5000;

/// Keepers. Their slots lie in the header of the shared memory.
pub const KEEPERS_MAX: usize = 128;

/// Fewest tickers: while a room's game keeps one, another one serves all other rooms.
pub const TICKERS_MIN: usize = 2;

/// Most tickers. Each looks at all rooms.
pub const TICKERS_MAX: usize = 8;

/// Tickers without a setting: one per core, but not more than this.
pub const TICKERS_AUTOMATIC_MAX: u32 = 4;

/// Processes that the supervisor forks: keepers, tickers, listener, and roles to come.
pub const ROLES_MAX: usize = KEEPERS_MAX + TICKERS_MAX + 8;

/// Addresses that clients can connect to, as configured and as their names are resolved.
pub const LISTEN_ADDRESSES_MAX: usize = 16;

/// Bytes of a host name, as in DNS.
pub const HOST_NAME_BYTES_MAX: usize = 253;

/// Networks of trusted proxies. Each new connection is compared with each of them.
pub const TRUSTED_PROXIES_MAX: usize = 64;

/// Bytes of a PROXY header. One of version 2 may carry fields of a proxy's own beside the addresses (TLVs).
pub const PROXY_HEADER_BYTES_MAX: usize = 3584;

/// Bytes of a connection that are received before it has a session: a PROXY header and the greeting behind it.
pub const OPENING_BYTES_MAX: usize = PROXY_HEADER_BYTES_MAX + HANDSHAKE_BYTES_MAX;

/// Console connections. One more takes the place of the one that was idle the longest.
pub const CONSOLE_CONNECTIONS_MAX: usize = 16;

/// Console connections beyond the maximum, while others that were told to end have not ended yet.
pub const CONSOLES_LEAVING_MAX: usize = 8;

/// Console slots of one keeper: one may have all consoles.
pub const CONSOLE_SLOTS_PER_KEEPER: u32 = 24;

const _: () = assert!(CONSOLE_CONNECTIONS_MAX + CONSOLES_LEAVING_MAX <= CONSOLE_SLOTS_PER_KEEPER as usize);

/// Connections that one listening socket accepts before the listener looks at its other sockets and at its signals.
pub const ACCEPTS_PER_ROUND_MAX: u32 = 64;

/// Clients' connections on their way to one keeper. A console's connection waits behind as many at most.
pub const CONNECTIONS_IN_FLIGHT_MAX: u32 = 16;

/// How soon a connection that no keeper could take is offered to the keepers again.
pub const KEEPER_CHANNEL_RETRY_MS: u64 = 5;

/// Connections that the kernel queues until they are accepted, unless configured; `net.core.somaxconn` caps it.
pub const BACKLOG_DEFAULT: u32 = 1024;

/// Open files of a process besides those that grow with the capacity: standard streams, polls, signals, pipes to
/// other processes, listening sockets.
pub const OPEN_FILES_BASE: u64 = 64;

/// Memory of one handler: page tables, kernel stack, private pages. (The load test measures 200 KiB per client with a
/// process of its own, shared memory that it touches included.)
pub const MEMORY_PER_HANDLER_BYTES: u64 = 176 * 1024;

/// Memory of one idle connection: the kernel's socket, and its descriptors in two processes.
pub const MEMORY_PER_CONNECTION_BYTES: u64 = 16 * 1024;

/// Path of a unix socket, in bytes: what the kernel's address holds, less the NUL at its end.
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Time that a server which starts waits for the lock on the directory of the console's unix socket. Another server
/// that starts there holds it for a moment.
pub const DIRECTORY_LOCK_TIMEOUT_MS: u64 = 2000;

/// How often it looks whether the lock is free.
pub const DIRECTORY_LOCK_POLL_MS: u64 = 5;

/// Bytes of the file with the console's password.
pub const PASSWORD_FILE_BYTES_MAX: u64 = 512;

/// Time that a guess at the console's password takes, whether it is right or wrong. So there are at most as many
/// guesses per second as consoles.
pub const PASSWORD_GUESS_MS: u64 = 1000;

/// Wrong guesses on one connection.
pub const PASSWORD_GUESSES_MAX: u32 = 3;

/// Time for a console connection to give the password, from its accept on, whatever it sends meanwhile.
pub const PASSWORD_TIMEOUT_MS: u64 = 30_000;

/// Log records of one kind (from one place in the code) per second, in all processes together. The next one says how
/// many were left out.
pub const LOG_RECORDS_PER_KIND_AND_SECOND_MAX: u64 = 50;

/// Kinds of log records that are counted apart; some share a count.
pub const LOG_KINDS_MAX: usize = 8192;

/// Places of panics whose backtraces are counted apart.
pub const PANIC_PLACES_MAX: usize = 64;

/// Bytes that are read and discarded from a client after its connection's last message was sent.
pub const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a configuration file.
pub const CONFIG_FILE_BYTES_MAX: u64 = 64 * 1024;

// --- A player's bytes -------------------------------------------------------------------------------------------

/// Output that is kept until the client confirms it: also the most that is sent before it does.
pub const OUTPUT_RING_BYTES: usize = 64 * 1024;

/// Send buffer (`SO_SNDBUF`) of a connection, unless configured. A client that never reads fills at most twice this,
/// because the kernel doubles it for its own book-keeping.
pub const SEND_BUFFER_BYTES_DEFAULT: u32 = 64 * 1024;

/// Bytes to the client before its stream: a banner, and the answer to its greeting.
pub const HANDSHAKE_OUTPUT_BYTES_MAX: usize = BANNER_BYTES_MAX + HANDSHAKE_REPLY_BYTES_MAX;

// --- Rooms and games --------------------------------------------------------------------------------------------

/// Players that a room remembers as kicked. Beyond them the oldest is dropped and may join again.
pub const BANS_PER_ROOM_MAX: usize = 16;

/// Time for which an owner's kick holds for the name of the player. (For the player itself it holds as long as the
/// room.)
pub const KICK_HOLDS_FOR_NAME_MS: u64 = 10 * 60_000;

/// Bans and mutes by operators, all together. Each greeting is compared with each of them.
pub const SANCTIONS_MAX: usize = 1024;

/// Time of a ban, unless the operator gives one.
pub const BAN_MS_DEFAULT: u64 = 24 * 3_600_000;

/// Time of a mute, unless the operator gives one.
pub const MUTE_MS_DEFAULT: u64 = 3_600_000;

/// Longest time of a ban or mute: what a client is told in 32 bits of milliseconds.
pub const SANCTION_MS_MAX: u64 = 30 * 24 * 3_600_000;

const _: () = assert!(SANCTION_MS_MAX <= u32::MAX as u64);

/// Names that a player may ignore. What is delivered to the player is compared with each of them.
pub const IGNORED_NAMES_MAX: usize = 32;

/// A room's log. A reader that falls further behind gets a snapshot. Two players who do nothing but send 70,000 moves
/// a second fill it in 70 ms; on a crowded machine a reader's process may have to wait that long for a processor.
/// (With 32 KiB such readers fell behind.) It costs memory only in rooms whose readers do not keep up.
pub const ROOM_LOG_BYTES: usize = 256 * 1024;

/// Unread bytes of a room's log beyond which writers wait for a seat's reader. The rest of the log is for what writers
/// append that were let through at the same time: 15 events of the largest size.
pub const ROOM_LOG_UNREAD_BYTES_MAX: u64 = ROOM_LOG_BYTES as u64 / 2;

/// Time that moves and chat lines wait in a [window](READER_WAIT_WINDOW_MS) for each reader of their room that has
/// fallen behind, unless configured.
pub const READER_WAIT_MS_DEFAULT: u32 = 200;

/// Time in which writers wait for a reader no longer than that in all. So a reader that is slow all the time takes 2 %
/// of its room's time.
pub const READER_WAIT_WINDOW_MS: u64 = 10_000;

/// How often a writer that waits for readers checks how far they have read.
pub const READER_WAIT_POLL_MS: u64 = 2;

/// The log of the lobby's chat. A reader that falls further behind is told how many lines it missed. It holds some
/// 190 of the longest lines, or 1,500 usual ones.
pub const CHAT_LOG_BYTES: usize = 128 * 1024;

/// A player's mailbox, in whole frames: eleven of the longest whispers, or a hundred usual ones.
pub const MAILBOX_BYTES: usize = 8 * 1024;

/// Chat lines that a player may send at once, in all scopes together, unless configured.
pub const CHAT_BURST_DEFAULT: u32 = 10;

/// Chat lines that a player may send per minute in the long run, unless configured.
pub const CHAT_PER_MINUTE_DEFAULT: u32 = 60;

/// Rate-limited requests (those that others see: join, create, configure a room) that a player may make at once,
/// unless configured: more than a person makes in a minute of changing rooms.
pub const REQUESTS_BURST_DEFAULT: u32 = 60;

/// Rate-limited requests that a player may make per minute in the long run, unless configured: two a second.
pub const REQUESTS_PER_MINUTE_DEFAULT: u32 = 120;

/// Deliveries of lobby lines per second, to all players together, unless configured: a third of what two processors
/// deliver. With 2,000 players these are five lines a second.
pub const LOBBY_FANOUT_DEFAULT: u32 = 10_000;

/// Deliveries of a room's events per second, those of its game apart, unless configured. A room with ten members never
/// reaches it; with 2,000 spectators, two events a second do.
pub const ROOM_FANOUT_DEFAULT: u32 = 4000;

/// The same for all rooms together, unless configured.
pub const SERVER_FANOUT_DEFAULT: u32 = 20_000;

/// Seconds of the rate that a burst of deliveries may take at once.
pub const FANOUT_BURST_SECONDS: u64 = 4;

/// Requests of a player that may be rejected in a row before the next one has to wait, unless configured: more than a
/// person mistypes.
pub const FAILURES_BURST_DEFAULT: u32 = 10;

/// Requests of a player that may be rejected per minute in the long run, unless configured: one every five seconds.
pub const FAILURES_PER_MINUTE_DEFAULT: u32 = 12;

/// Wrong passcodes that a room judges in a row, and as many wrong invite codes. Half of them are kept for players that
/// have not failed before.
pub const GUESSES_BURST: u64 = 20;

/// Wrong passcodes, and as many wrong invite codes, that a room judges per minute, unless configured. Half of all
/// passcodes of six digits take 58 days, however many connections guess.
pub const GUESSES_PER_MINUTE_DEFAULT: u32 = 6;

/// Time after a rejected request for which its player leaves half of a room's guesses to others. It is long enough that
/// one session cannot use up a room's guesses by failing slowly.
pub const FAILURE_REMEMBERED_MS: u64 = 600_000;

/// Deliveries per second, in the long run, of the events that a player's connection was lost and is back: two events to
/// each other member of its room. Beyond that, it comes back later. In a room with one other member this allows 250
/// returns a second, more than any network breaks; with 1,000 spectators, one in four seconds.
pub const RETURN_DELIVERIES_PER_SECOND: u64 = 500;

/// The same, at once. An account that is spent allows any return after this burst's time, 10 s: not more than a resume
/// may wait.
pub const RETURN_DELIVERIES_BURST: u64 = 10 * RETURN_DELIVERIES_PER_SECOND;

/// Connections that one source may have at once, unless configured: a large household or a classroom, and a twentieth
/// of the places.
pub const SOURCE_CONNECTIONS_DEFAULT: u32 = 100;

/// Connections that one source may open per second in the long run, unless configured.
pub const SOURCE_CONNECTS_PER_SECOND_DEFAULT: u32 = 20;

/// Seconds of the rate that a source may take at once of connections, messages and bytes.
pub const SOURCE_BURST_SECONDS: u64 = 5;

/// Connections per second that one source may open beyond its limits while a player of it is away: that player may be
/// coming back.
pub const SOURCE_RETURNS_PER_SECOND: u64 = 1;

/// The same, at once.
pub const SOURCE_RETURNS_BURST: u64 = 10;

/// Wrong passcodes and invite codes that are judged per minute from one source, and as many at once, unless configured:
/// five times what one player may.
pub const SOURCE_GUESSES_PER_MINUTE_DEFAULT: u32 = 5 * FAILURES_PER_MINUTE_DEFAULT;

/// Frames or lines that one source may send per second in the long run, unless configured: those of 100 players at 60
/// a second, and a reserve.
pub const SOURCE_MESSAGES_PER_SECOND_DEFAULT: u32 = 10_000;

/// Kibibytes that one source may send per second in the long run, unless configured.
pub const SOURCE_KIB_PER_SECOND_DEFAULT: u32 = 4096;

/// Identities that one transaction examines or marks, so that the lobby's lock is held for microseconds.
pub const IDENTITIES_PER_TRANSACTION: u32 = 64;
/// A mark takes two words in the journal: its value and its offset.
const _: () = assert!(IDENTITIES_PER_TRANSACTION as usize * 16 <= JOURNAL_BYTES);

/// Places for sources whose keys have the same hash.
pub const SOURCES_PER_SET: usize = 8;

/// Sets of such places. Altogether, 4,096 sources have accounts of their own; one takes a place only while one of its
/// accounts is in use.
pub const SOURCE_SETS: u32 = 512;

/// How many sources' worth the sources without a place may use together.
pub const SOURCES_SHARING: u64 = 16;

/// Bans of addresses by operators. Each connection is compared with each of them.
pub const ADDRESS_BANS_MAX: usize = 256;

/// Penalty of a source for a connection whose first bytes are no greeting.
pub const PENALTY_BAD_GREETING_US: u64 = 5_000_000;

/// Penalty of a source for a connection that does not greet in time.
pub const PENALTY_NO_GREETING_US: u64 = 10_000_000;

/// Penalty of a source for a connection whose input kills its handlers until the server gives it up.
pub const PENALTY_CRASH_US: u64 = 90_000_000;

/// Penalties below this sum have no effect: anyone makes a mistake.
pub const PENALTY_ENFORCED_FROM_US: u64 = 30_000_000;

/// Longest penalty of a source.
pub const PENALTY_US_MAX: u64 = 600_000_000;

/// Entries about one source in the list of incidents: so many at once.
pub const SOURCE_INCIDENTS_BURST: u64 = 10;

/// The same, per minute in the long run.
pub const SOURCE_INCIDENTS_PER_MINUTE: u64 = 6;

/// Chance in percent that a connection is refused early when half of all connections have not greeted, unless
/// configured. It grows to 100 when all have not.
pub const EARLY_REFUSAL_PERCENT_DEFAULT: u32 = 30;

/// Unless configured, no connection is refused early while fewer than this many have not greeted: a small server is
/// full before it needs that.
pub const EARLY_REFUSAL_START_MIN: u32 = 100;

/// Connections from one exempt address from which on the log tells the operator that it is exempt.
pub const EXEMPT_CONNECTIONS_TOLD: u32 = 500;

/// Departed players whose accounts are remembered. Beyond them the account that is settled earliest is forgotten.
pub const REMEMBERED_ACCOUNTS_MAX: usize = 1024;

/// Rooms that one list examines. Then it ends, and the client asks for the rest: so a list takes at most some hundred
/// microseconds, in which the other clients of its process wait.
pub const ROOMS_EXAMINED_PER_LIST_MAX: u32 = 1024;

/// Rooms that lists and searches of one player examine per second in the long run. Beyond that, its input waits.
pub const ROOMS_EXAMINED_PER_SECOND: u64 = 20_000;

/// Rooms that lists and searches of one player examine at once.
pub const ROOMS_EXAMINED_BURST: u64 = 20_000;

/// Bytes of the part of a name in a list's filter. A name in lower case may be longer than as it is written.
pub const ROOM_FILTER_BYTES_MAX: usize = 2 * ROOM_NAME_BYTES_MAX;

/// Time that one quick match waits for the locks of rooms, in all. A room whose game hangs is passed over; one that is
/// only busy is free sooner.
pub const QUICK_MATCH_LOCK_WAIT_MS: u64 = 25;

/// Bytes of the events that one such request causes, at most: a longest name and a few numbers.
const REQUEST_EVENTS_BYTES_MAX: usize = 256;

const _: () = assert!(REQUESTS_BURST_DEFAULT as usize * REQUEST_EVENTS_BYTES_MAX <= ROOM_LOG_BYTES);

/// Bytes of the text that tells why a seat was lost.
pub const REMOVAL_TEXT_BYTES: usize = 64;

// --- Transactions -----------------------------------------------------------------------------------------------

/// Time that a log's announced head may lag behind before the ticker rings again.
pub const DOORBELL_RETRY_MS: u64 = 20;

// --- Timeouts for clients and operators -------------------------------------------------------------------------

/// Time for the handshake, unless configured.
pub const HANDSHAKE_TIMEOUT_MS_DEFAULT: u32 = 10_000;

/// Time from the accept after which a client that has sent nothing gets the banner, unless configured: people notice
/// the wait, and programs have greeted long before.
pub const BANNER_AFTER_MS_DEFAULT: u32 = 1000;

/// Time from the accept in which Enter alone does not make a player in text mode: the header of a proxy begins with
/// it, and its rest may come in another packet.
pub const ENTER_WAIT_MS: u64 = 300;

/// A client that completes no frame for this long counts as gone, unless configured.
pub const HEARTBEAT_TIMEOUT_MS_DEFAULT: u32 = 30_000;

/// Time that a seat is kept for a player without a connection, unless configured.
pub const SEAT_GRACE_MS_DEFAULT: u32 = 60_000;

/// Time that a player without a seat is kept without a connection even if no other place is free. The more places are
/// free, the longer, up to the grace of a seat.
pub const LOBBY_GRACE_MS_MIN: u64 = 1000;

/// How often a player in text mode that sits silent in the lobby is looked at: when few places are free, its place is
/// needed sooner.
pub const LOBBY_GUEST_RECHECK_MS: u64 = 3000;

/// Time that a seat is reserved for an invited player, unless configured.
pub const SEAT_RESERVATION_MS_DEFAULT: u32 = 30_000;

/// A client that reads nothing of its pending output, or confirms nothing although no more can be sent, for this long
/// counts as gone.
pub const WRITE_STALL_TIMEOUT_MS: u64 = 30_000;

/// Time that a refused connection is still read from after its error was sent, so that a reset does not destroy the
/// error.
pub const REFUSAL_LINGER_MS: u64 = 1000;

/// Refused connections in that state; beyond them the oldest is closed early.
pub const REFUSED_LINGERING_MAX: usize = 256;

/// Time that a closing connection has to send its pending output, and then again for the client to close its side.
pub const CLOSING_TIMEOUT_MS: u64 = 2000;

/// Time that a session's former handler has to release it before it is reported to the watchdog.
pub const SESSION_RELEASE_TIMEOUT_MS: u64 = 1000;

/// How often a connection that waits for a session checks whether it is released, in case a notification is lost.
pub const RESUME_RETRY_MS: u64 = 20;

/// Time that a connection waits for the session that it requests.
pub const RESUME_TIMEOUT_MS: u64 = 10_000;

/// Time that a connection which has greeted waits for a process of its own.
pub const HANDLER_WAIT_TIMEOUT_MS: u64 = 10_000;

/// Time for a console connection between two lines.
pub const CONSOLE_IDLE_TIMEOUT_MS: u64 = 600_000;

/// Time that a query of the console waits for the lock of one room: its game may hang, and is then reported to the
/// watchdog.
pub const CONSOLE_ROOM_WAIT_MS: u64 = shmem::limits::LOCK_WAIT_REPORT_MS;

/// Lines of history that a console keeps for line editing.
pub const CONSOLE_HISTORY_LINES_MAX: usize = 100;

/// Silence on a console connection after which the kernel probes the other side.
pub const CONSOLE_KEEP_ALIVE_MS: u64 = 60_000;

/// A line on the console.
pub const CONSOLE_LINE_BYTES_MAX: usize = 1024;

/// Characters of a message in the console's description of it, before escaping; the rest is cut.
pub const CONSOLE_DESCRIPTION_CHARACTERS_MAX: usize = 1000;

/// Time for a process to reply to an operator's ping.
pub const PING_TIMEOUT_MS: u64 = 1000;

/// How often a traced player's streams are read.
pub const TRACE_POLL_MS: u64 = 4;

/// How often a live view of the console checks whether its subject has ended or changed.
pub const FOLLOW_POLL_MS: u64 = 200;

/// Time for a player in text mode between two keys, unless configured: people think longer than programs.
pub const TEXT_IDLE_TIMEOUT_MS_DEFAULT: u32 = 30 * 60_000;

/// Silence on a text player's connection after which the kernel probes the other side (TCP keepalive).
pub const TEXT_KEEPALIVE_SECONDS: u64 = 60;

/// Time between two such probes.
pub const TEXT_KEEPALIVE_INTERVAL_SECONDS: u64 = 10;

/// Probes without an answer after which the connection is lost: 110 s after the other side was last heard of.
pub const TEXT_KEEPALIVE_PROBES: u32 = 5;

/// The same time for output that the other side does not acknowledge (TCP_USER_TIMEOUT): the kernel does not probe
/// while it has something to send.
pub const TEXT_UNACKNOWLEDGED_SECONDS: u64 =
    TEXT_KEEPALIVE_SECONDS + TEXT_KEEPALIVE_INTERVAL_SECONDS * TEXT_KEEPALIVE_PROBES as u64;

// --- Text mode --------------------------------------------------------------------------------------------------

/// Resume words that a text player may try before its connection is closed.
pub const RESUME_WORDS_TRIED_MAX: u32 = 3;

/// Least time between two looks at a real-time match for a player in text mode: it is drawn at most so often.
pub const TEXT_REDRAW_INTERVAL_MS: u64 = 250;

/// Names in one answer to `who`.
pub const TEXT_NAMES_SHOWN_MAX: usize = 50;

// --- Timeouts for the server's own processes --------------------------------------------------------------------

/// Time for a role to report ready.
pub const ROLE_READY_TIMEOUT_MS: u64 = 10_000;

/// Delay before a role that died young is restarted; doubled with each death in a row, up to the maximum.
pub const RESTART_BACKOFF_MS_MIN: u64 = 10;

/// See [`RESTART_BACKOFF_MS_MIN`].
pub const RESTART_BACKOFF_MS_MAX: u64 = 5000;

/// A role that lived this long is restarted at once: it could do its work, and starting it twice a second costs less
/// than players that wait for a missing listener.
pub const RESTART_BACKOFF_RESET_AFTER_MS: u64 = 500;

/// A call of a game that takes this long is logged, because everyone in the room waits for it. More than a process on a
/// crowded machine usually waits for a processor.
pub const GAME_CALL_REPORTED_MS: u64 = 250;

/// Crashes of handlers in the same frame, within [`CRASH_WINDOW_MS`], after which the connection is closed.
pub const CRASHES_SAME_FRAME_MAX: u32 = 3;

/// Crashes of tickers in the same room's game, within [`CRASH_WINDOW_MS`], after which its match is abandoned; and of
/// handlers while they show it, after which it is not shown any more.
pub const CRASHES_SAME_ROOM_MAX: u32 = 3;

/// See [`CRASHES_SAME_FRAME_MAX`].
pub const CRASH_WINDOW_MS: u64 = 5000;

/// Crashes of one connection's handlers within [`CRASH_WINDOW_MS`], other than by SIGKILL, after which it is given
/// up: a bug outside frames would otherwise fork forever.
pub const CRASHES_PER_CONNECTION_MAX: u32 = 10;

/// How soon a keeper retries to fork a handler for connections without one, or that have greeted, after fork failed for
/// lack of processes, memory or descriptors.
pub const TAKEOVER_RETRY_MS: u64 = 50;

/// How often it tries before it gives the connections up: 5 s in all. Their clients resume.
pub const TAKEOVER_TRIES_MAX: u32 = 100;

/// How soon a handler checks whether a connection that it expects has been released to it, if it is not notified.
pub const PENDING_MOVE_POLL_MS_MIN: u64 = 20;

/// The check's interval doubles each time, up to this.
pub const PENDING_MOVE_POLL_MS_MAX: u64 = 1000;

/// Successors that a keeper forks before it looks at new connections.
pub const TAKEOVER_BATCH_MAX: u32 = 4;

/// New connections that a keeper takes, and connections that have greeted, before it looks at connections without a
/// handler.
pub const ASSIGN_BATCH_MAX: u32 = 8;

/// How often a new keeper asks its predecessor's handlers for their sockets.
pub const ADOPTION_RETRY_MS: u64 = 50;

/// Connections for whose sockets it asks before it receives what is offered: the channel holds some 280 offers. (A
/// handler with more connections is asked alone, and offers all.)
pub const ADOPTION_BATCH_MAX: usize = 64;

/// Processor time that a process may use under a lock that others wait for, or without a round of its loop, before
/// the watchdog kills it, unless configured.
pub const WATCHDOG_CPU_MS_DEFAULT: u32 = 1000;

/// How often the watchdog checks suspects.
pub const WATCHDOG_POLL_MS: u64 = 100;

/// How often keepers check their handlers for progress, and the watchdog the supervisor's own processes.
pub const LIVENESS_POLL_MS: u64 = 1000;

/// How often a handler records progress: often enough for every check to see it.
pub const LIVENESS_UPDATE_MS: u64 = LIVENESS_POLL_MS / 4;

/// Checks in a row, [`WATCHDOG_POLL_MS`] apart, that must find a suspect stopped before it is killed: it may be about
/// to be continued.
pub const WATCHDOG_STOPPED_POLLS: u32 = 5;

/// Checks in a row that must find the holder of a lock asleep, without using processor time, before it is killed. No
/// code of the server sleeps under a lock, but a game's code might.
pub const WATCHDOG_ASLEEP_POLLS: u32 = 50;

/// Kills by the watchdog per second: should it be wrong about many processes, the server survives.
pub const WATCHDOG_KILLS_PER_SECOND_MAX: u32 = 10;

/// Time that an orderly stop waits for pending output, unless configured.
pub const DRAIN_TIMEOUT_MS_DEFAULT: u32 = 5000;

/// Time between SIGTERM and SIGKILL for a process of the server.
pub const TERMINATE_TIMEOUT_MS: u64 = 5000;

/// Time that a keeper that is being replaced goes on to respawn handlers, before it leaves that to its successor.
pub const KEEPER_HANDOFF_TIMEOUT_MS: u64 = TERMINATE_TIMEOUT_MS / 2;

/// How soon it retries to transfer connections when the channel to the next keeper is full.
pub const TRANSFER_RETRY_MS: u64 = 5;

/// How often a ticker looks for rooms with timers, and the first one for unannounced logs. A match that begins between
/// two looks has its first tick later than the second: its period is not shorter.
pub const TICK_MS: u64 = 10;

const _: () = assert!(TICK_MS * TICKS_PER_SECOND_MAX as u64 <= 1000);

/// How often a ticker looks for rooms with timers as long as none is due within this time.
pub const TICK_IDLE_MS: u64 = 100;

/// Lateness of a room's timer after which any ticker runs it, in microseconds: its own ticker is dead, or busy. More
/// than a process usually waits for a processor, and little against any period.
pub const TICK_STEAL_AFTER_US: u64 = 2000;

/// How soon a ticker tries a room again whose lock another process held, in microseconds.
pub const TICK_RETRY_US: u64 = 1000;

/// Time for which a room waits for the successor of a ticker that died in its game, before another ticker decides.
pub const TICK_MARK_TIMEOUT_MS: u64 = 100;

/// Time that a call of a game by a ticker may take, in microseconds, unless half of the game's period is less. Players
/// notice a pause of a tenth of a second.
pub const TICK_BUDGET_US_MAX: u64 = 100_000;

/// Calls by tickers over which a room's overruns are counted.
pub const TICK_CALLS_PER_WINDOW: u32 = 100;

/// Calls in a window that take too long, after which the room is slowed: one or two happen to a good game, too.
pub const TICK_OVERRUNS_SLOWED: u32 = 3;

/// Calls in a window that take too long, after which the match is abandoned.
pub const TICK_OVERRUNS_ABANDONED: u32 = 10;

/// The period of a slowed room, in periods of its game.
pub const TICK_SLOWED_PERIODS: u64 = 4;

/// A tick that comes later than this is counted as late, in microseconds.
pub const TICK_LATE_US: u64 = 10_000;

/// Time whose ticks are counted together, in microseconds: figures about the last minute consist of seven such parts.
pub const TICK_FIGURES_SLICE_US: u64 = 10_000_000;

/// How often the ticker checks what changes slowly: graces, closed rooms, orphaned connections.
pub const EXPIRY_INTERVAL_MS: u64 = 100;

/// Time that a connection must have been without keeper and handler before the ticker frees it: a handler that was
/// just forked has not entered itself yet. (While sockets lie in a channel that no keeper has emptied, the time does
/// not count.)
pub const ORPHAN_AFTER_MS: u64 = 1000;

/// How long accepting pauses after it failed for lack of descriptors or memory.
pub const ACCEPT_RETRY_MS: u64 = 100;

// --- Upgrade in place -------------------------------------------------------------------------------------------

/// Bytes of the text of all settings that the console shows.
pub const SETTINGS_TEXT_BYTES_MAX: usize = 32 * 1024;

/// Time for a new program to check the running server's memory and report whether it can continue.
pub const UPGRADE_PROBE_TIMEOUT_MS: u64 = 10_000;

/// How often the progress of an upgrade is checked.
pub const UPGRADE_POLL_MS: u64 = 20;

/// Bytes of text that a new program may report.
pub const UPGRADE_TEXT_BYTES: usize = 512;

/// Bytes of a new program's whole report, as JSON: a text of [`UPGRADE_TEXT_BYTES`] with every character escaped, its
/// version, its settings, and the field names.
pub const UPGRADE_REPLY_BYTES_MAX: usize = 8 * UPGRADE_TEXT_BYTES + SETTINGS_TEXT_BYTES_MAX;

/// Crashes in a row of a new program's process before it is ready, after which the upgrade counts as stalled and
/// another may be started.
pub const UPGRADE_STALLED_AFTER_CRASHES: u32 = 3;

/// Bytes of what the old program passes to the new one: mostly numbers of descriptors.
pub const HANDOVER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Interval at which each keeper replaces handlers after an upgrade: 200 a second, so that forking leaves processor
/// time to players.
pub const UPGRADE_HANDLER_INTERVAL_MS: u64 = 5;

// --- Logging ----------------------------------------------------------------------------------------------------

/// Bytes of a player's action that the log shows, when a game has failed over it.
pub const LOGGED_ACTION_BYTES_MAX: usize = 32;

/// Players, and rooms, that `top` shows.
pub const TOP_ROWS_MAX: usize = 10;

/// Time over which `top` measures.
pub const TOP_SECONDS_MAX: u32 = 60;

/// Incidents of each kind that the console's `events` shows: the last ones.
pub const INCIDENTS_PER_KIND_MAX: usize = 512;

/// Incidents that `events` shows if it is not told how many.
pub const EVENTS_SHOWN_DEFAULT: usize = 20;

/// Bytes of an incident's texts: the player's name, and what happened. A multiple of 8.
pub const INCIDENT_TEXT_BYTES: usize = 192;

/// A log record with its line end: what Linux writes to a pipe in one piece (`PIPE_BUF`).
pub const LOG_RECORD_BYTES_MAX: usize = 4096;

// --- How the bounds depend on each other ------------------------------------------------------------------------
//
// Integers are counted at their longest encoding: 1 byte for the tag, and the full width behind it.

const TAG: usize = 1;
const LENGTH: usize = 3;
const U32: usize = 5;
const U64: usize = 9;

const ROOM_SUMMARY_BYTES: usize =
    U64 + (1 + GAME_NAME_BYTES_MAX) + (1 + ROOM_NAME_BYTES_MAX) + TAG + 1 + 1 + U32 + 1;
/// A seat is taken, or it is free and reserved: then it has a tag for itself and a reservation.
const SEAT_INFO_BYTES: usize = TAG + (1 + PLAYER_NAME_BYTES_MAX) + 1 + U32;
const RULES_BYTES: usize = 1 + 1 + (LENGTH + GAME_OPTIONS_BYTES_MAX) + 1 + 1 + 3;
const SNAPSHOT_BYTES: usize = (U64 + (1 + GAME_NAME_BYTES_MAX) + (1 + ROOM_NAME_BYTES_MAX) + TAG + TAG + 1)
    + (1 + 1 + SEATS_MAX as usize * SEAT_INFO_BYTES)
    + (U32 + U64 + LENGTH + GAME_VIEW_BYTES_MAX)
    + (TAG + 1 + RULES_BYTES + TAG + 1 + U32);
/// Bytes of the message about a reservation, with its frame, at most.
pub const INVITED_BYTES_MAX: usize = FRAME_HEADER_BYTES
    + (TAG + U64 + (1 + GAME_NAME_BYTES_MAX) + (1 + ROOM_NAME_BYTES_MAX))
    + (1 + PLAYER_NAME_BYTES_MAX)
    + (1 + INVITE_CODE_BYTES + 3);
const REMOVED_BYTES: usize = TAG + U64 + (1 + REMOVAL_TEXT_BYTES);
const GAME_INFO_BYTES: usize = 1 + GAME_NAME_BYTES_MAX + 1 + 1 + 3;
/// `Greeted`, which is `Welcome` with the budgets and an offset.
const WELCOME_BYTES: usize =
    (TAG + 3 + 16 + U64 + 1 + PLAYER_NAME_BYTES_MAX + 13 * U32 + U64) + (1 + GAMES_MAX * GAME_INFO_BYTES);
const CHAT_LINE_BYTES: usize =
    TAG + (TAG + 1 + PLAYER_NAME_BYTES_MAX) + (1 + PLAYER_NAME_BYTES_MAX) + LENGTH + CHAT_BYTES_MAX;
/// `Greet`, which is `Hello` with a number and a flag.
const HELLO_BYTES: usize = TAG + (1 + PLAYER_NAME_BYTES_MAX) + (1 + CLIENT_NAME_BYTES_MAX) + U64 + 1;

/// Every message at its longest fits its frame, and every frame fits the ring or record that it waits in.
const _: () = {
    assert!(FRAME_TOTAL_BYTES_MAX <= INPUT_RING_BYTES);
    assert!(2 * FRAME_TOTAL_BYTES_MAX <= OUTPUT_RING_BYTES);
    // A player may learn that its seat was lost by asking to join elsewhere: both messages fit one frame.
    assert!(REMOVED_BYTES + FRAME_HEADER_BYTES + TAG + U32 + SNAPSHOT_BYTES <= FRAME_BYTES_MAX);
    // Half a line, and what is skipped before it, leave space for more input.
    assert!(TEXT_LINE_RAW_BYTES_MAX + 2 * TEXT_SKIP_BYTES_MIN < INPUT_RING_BYTES);
    assert!(TEXT_LINE_BYTES_MAX < TEXT_LINE_RAW_BYTES_MAX && CHAT_BYTES_MAX < TEXT_LINE_BYTES_MAX);
    assert!(TELNET_REPLY_BATCH_BYTES + 3 <= TEXT_OUTPUT_BYTES_MAX);
    assert!(TAG + U32 + LENGTH + ROOMS_PER_PAGE_MAX * ROOM_SUMMARY_BYTES + TAG + U64 <= FRAME_BYTES_MAX);
    assert!(TAG + U32 + LENGTH + ACTION_BYTES_MAX <= FRAME_BYTES_MAX);
    assert!(TAG + U64 + TAG + LENGTH + GAME_EVENT_BYTES_MAX <= FRAME_BYTES_MAX);
    // Frames of both kinds wait whole, and a reader has some time before it falls behind.
    assert!(100 * (FRAME_HEADER_BYTES + CHAT_LINE_BYTES) <= CHAT_LOG_BYTES);
    assert!(8 * (FRAME_HEADER_BYTES + CHAT_LINE_BYTES) <= MAILBOX_BYTES);
    assert!(FRAME_HEADER_BYTES + WELCOME_BYTES <= HANDSHAKE_REPLY_BYTES_MAX);
    assert!(FRAME_HEADER_BYTES + HELLO_BYTES + 8 <= HANDSHAKE_BYTES_MAX);
    // What arrives together with a PROXY header starts the player's input.
    assert!(OPENING_BYTES_MAX <= INPUT_RING_BYTES);
    // The events of one call never push each other out of the log, with 32 bytes of log overhead each (more than it
    // needs).
    assert!(OUTBOX_BYTES_MAX + 32 * OUTBOX_EVENTS_MAX <= ROOM_LOG_BYTES);
    assert!(GAME_EVENT_BYTES_MAX + OUTBOX_EVENT_HEADER_BYTES <= OUTBOX_BYTES_MAX);
    assert!(RETURN_DELIVERIES_BURST * 1000 <= RETURN_DELIVERIES_PER_SECOND * RESUME_TIMEOUT_MS);
    // An account of which nothing is spent allows any list.
    assert!(ROOMS_EXAMINED_PER_LIST_MAX as u64 <= ROOMS_EXAMINED_BURST);
    assert!(PLAYERS_MAX_DEFAULT <= PLAYERS_OR_ROOMS_MAX && ROOMS_MAX_DEFAULT <= PLAYERS_OR_ROOMS_MAX);
    assert!(
        (PLAYERS_OR_ROOMS_MAX + CONNECTIONS_BEYOND_PLAYERS_DEFAULT) as usize
            <= KEEPERS_MAX * CONNECTIONS_PER_KEEPER_MAX as usize
    );
};
