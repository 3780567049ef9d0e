//! What an operator can ask: rows read from the tables, a few at a time, each record under its own lock for microseconds.
//!
//! Texts in rows are escaped here, once, for both forms: nothing that a player chose reaches a terminal raw.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use forkade_protocol::Phase;
use serde_json::{Value, json};

use crate::lobby::Lobby;
use crate::lobby::connections::{Claim, ConnectionRecord, Kind};
use crate::lobby::directory::{Name, Presence};
use crate::lobby::memory::{ConnectionRef, PlayerRef, RoomRef};
use crate::lobby::rooms::{is_open, occupants, summary};
use crate::logging::Escaped;
use crate::role::{Context, Post, ROLES};
use crate::shm::alarm::Subject;
use crate::shm::lock::{Lock, LockFigures};
use crate::shm::transaction::Record;
use crate::sys::clock::now_ms;
use crate::watchdog::case::FaultKind;

/// Records that are looked at for one piece of an answer: it stays small, and is on its way soon.
const RECORDS_PER_STEP: u32 = 32;

/// A column's name, and its width in characters where it is shown to people.
pub(super) type Column = (&'static str, usize);

/// Things of one kind. A row has one value per column.
pub(super) struct List {
    pub(super) columns: &'static [Column],
    /// The next rows, perhaps none; `None` after the last.
    pub(super) next: Next,
}

type Row = Vec<Value>;
type Next = Box<dyn FnMut(&mut Lobby) -> Option<Vec<Row>>>;

/// The counters of the whole server.
pub(super) fn status(lobby: &Lobby, context: Context) -> Vec<(&'static str, Value)> {
    let (header, directory) = (lobby.memory.header, lobby.memory.directory);
    let count = |counter: &AtomicU64| json!(counter.load(Ordering::Relaxed));
    let uptime_ms = now_ms().saturating_sub(header.started_at_ms.load(Ordering::Relaxed));
    vec![
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("pid", json!(header.supervisor_pid.load(Ordering::Relaxed))),
        ("uptime_seconds", seconds(uptime_ms)),
        ("stopping", json!(header.stopping.load(Ordering::Relaxed) != 0)),
        ("players", count(&directory.record.players_published)),
        ("players_max", json!(context.config.players_max)),
        ("rooms", count(&directory.record.rooms_published)),
        ("rooms_max", json!(context.config.rooms_max)),
        ("handlers", json!(lobby.memory.open_connections(Kind::Game))),
        ("connections_max", json!(context.config.connections_max)),
        ("consoles", json!(lobby.memory.open_connections(Kind::Console))),
        ("keepers", json!(context.config.keepers)),
        ("accepted_total", count(&header.accepted_total)),
        ("refused_total", count(&header.refused_total)),
        (
            "lost_before_greeting_total",
            count(&header.lost_before_greeting_total),
        ),
        ("takeovers_total", count(&header.takeovers_total)),
        ("recoveries_total", count(&header.recoveries_total)),
        ("resumes_total", count(&header.resumes_total)),
        ("resyncs_total", count(&header.resyncs_total)),
        ("lobby_lines_total", count(&header.lobby_lines_total)),
        (
            "lobby_lines_missed_total",
            count(&header.lobby_lines_missed_total),
        ),
        ("whispers_total", count(&header.whispers_total)),
        ("blamed_total", count(&header.blamed_total)),
        ("lock_waits_reported_total", json!(header.alarm.raised_total())),
        ("watchdog_kills_total", count(&header.watchdog.kills_total)),
        ("watchdog_last_kill", last_kill(lobby)),
        ("bells_rung_again_total", count(&header.bells_rung_again_total)),
        (
            "log_records_dropped_total",
            count(&header.log_records_dropped_total),
        ),
    ]
}

/// Whom the watchdog killed last, and what for.
fn last_kill(lobby: &Lobby) -> Value {
    let record = &lobby.memory.header.watchdog;
    let Some(fault) = FaultKind::from_number(record.last_fault.load(Ordering::Relaxed)) else {
        return Value::Null;
    };
    let pid = record.last_pid.load(Ordering::Relaxed);
    let seconds = now_ms().saturating_sub(record.last_at_ms.load(Ordering::Relaxed)) / 1000;
    let over = match Subject::from_word(record.last_subject.load(Ordering::Relaxed)) {
        Some(Subject::Lock { offset }) => match lobby.memory.lock_at(offset) {
            Some((_, owner)) => format!("under the lock of {owner}"),
            None => "under a lock".to_owned(),
        },
        Some(Subject::Connection { index }) => format!("as the handler of connection {index}"),
        Some(Subject::Role { .. }) | None => "in its loop".to_owned(),
    };
    json!(format!("process {pid}, {fault} {over}, {seconds} seconds ago"))
}

// --- Processes --------------------------------------------------------------------------------------------------

const PROCESSES: [Column; 9] = [
    ("state", 5),
    ("pss_kib", 8),
    ("role", 10),
    ("number", 6),
    ("pid", 7),
    ("restarts", 8),
    ("seconds", 10),
    ("peer", 21),
    ("player", 24),
];

/// How many of the first columns are about memory.
const MEMORY_COLUMNS: usize = 2;

/// All processes: the supervisor, its roles, and one per connection.
pub(super) fn processes(context: Context, memory: bool) -> List {
    let posts = Post::all(context.config);
    let connections = context.memory.connections;
    // Looking at a slot that was never claimed would give it memory.
    let claimed: Vec<u32> = context
        .memory
        .touched_connections()
        .map(|(index, _)| index)
        .collect();
    let count = 1 + number(posts.len()) + number(claimed.len());
    let row = move |_: &mut Lobby, players: &HashMap<u32, Value>, index: u32| {
        let (pid, mut row) = match index.checked_sub(1) {
            None => {
                let pid = context.memory.header.supervisor_pid.load(Ordering::Relaxed);
                (
                    pid,
                    vec![json!("supervisor"), Value::Null, json!(pid), Value::Null],
                )
            }
            Some(index) => match posts.get(index as usize) {
                Some(post) => row_of_post(*post, context)?,
                None => {
                    let index = *claimed.get(index as usize - posts.len())?;
                    row_of_connection(connections.at(index), players.get(&index))?
                }
            },
        };
        row.resize(PROCESSES.len() - MEMORY_COLUMNS, Value::Null);
        if memory {
            row.splice(0..0, [state_of(pid), pss_kib_of(pid)]);
        }
        Some(row)
    };
    List {
        columns: &PROCESSES[if memory { 0 } else { MEMORY_COLUMNS }..],
        next: in_steps(move |lobby| (count, players_by_connection(lobby)), row),
    }
}

fn row_of_post(post: Post, context: Context) -> Option<(u32, Row)> {
    let slot = post.slot(context.memory);
    let (pid, restarts) = (
        slot.pid.load(Ordering::Relaxed),
        slot.restarts.load(Ordering::Relaxed),
    );
    (pid != 0).then(|| {
        (
            pid,
            vec![
                json!(ROLES[post.role].name),
                json!(post.index),
                json!(pid),
                json!(restarts),
            ],
        )
    })
}

fn row_of_connection(record: &ConnectionRecord, player: Option<&Value>) -> Option<(u32, Row)> {
    let handler = record.handler().filter(|_| record.claimed() != Claim::Free)?;
    let role = match record.kind() {
        Kind::Game => "handler",
        Kind::Console => "console",
    };
    let row = vec![
        json!(role),
        Value::Null,
        json!(handler.pid),
        Value::Null,
        seconds_since(record.accepted_at_ms.load(Ordering::Relaxed)),
        json!(record.peer()),
        player.cloned().unwrap_or_default(),
    ];
    Some((handler.pid, row))
}

/// The names of those who are connected, by the index of their connection.
fn players_by_connection(lobby: &mut Lobby) -> HashMap<u32, Value> {
    let mut players = HashMap::new();
    for index in 0..identities_touched(lobby) {
        let Some(person) = person(lobby, index) else {
            continue;
        };
        if lobby
            .memory
            .connections
            .get(person.connection.index())
            .is_some_and(|record| is_of(&person, record))
        {
            players.insert(person.connection.index(), text(person.name.as_str()));
        }
    }
    players
}

fn state_of(pid: u32) -> Value {
    let state = proc_value(pid, "status", "State:");
    json!(state.and_then(|state| state.chars().next()))
}

fn pss_kib_of(pid: u32) -> Value {
    let pss = proc_value(pid, "smaps_rollup", "Pss:");
    json!(pss.and_then(|pss| pss.trim_end_matches(" kB").parse::<u64>().ok()))
}

/// What a file of `/proc` says behind a key; nothing if the process has ended meanwhile.
fn proc_value(pid: u32, file: &str, key: &str) -> Option<String> {
    let content = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let value = content.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.trim().to_owned())
}

// --- Players and rooms ------------------------------------------------------------------------------------------

const PLAYERS: [Column; 8] = [
    ("id", 12),
    ("presence", 9),
    ("seconds", 10),
    ("pid", 7),
    ("peer", 21),
    ("room", 12),
    ("seat", 4),
    ("name", 24),
];

/// Who is here.
pub(super) fn players() -> List {
    let row = |lobby: &mut Lobby, seats: &HashMap<u64, (RoomRef, u8)>, index: u32| {
        let person = person(lobby, index)?;
        let record = lobby.memory.connections.get(person.connection.index());
        let record = record.filter(|record| is_of(&person, record));
        let presence = match person.presence {
            Presence::ATTACHED => "connected",
            Presence::DETACHED => "away",
            _ => "leaving",
        };
        let since_ms = record.map_or(person.detached_at_ms, |record| {
            record.accepted_at_ms.load(Ordering::Relaxed)
        });
        let seat = seats.get(&person.player.to_id());
        Some(vec![
            json!(person.player.to_id()),
            json!(presence),
            seconds_since(since_ms),
            json!(
                record
                    .and_then(ConnectionRecord::handler)
                    .map(|handler| handler.pid)
            ),
            json!(record.map(ConnectionRecord::peer)),
            json!(seat.map(|(room, _)| room.to_id())),
            json!(seat.map(|(_, seat)| seat)),
            text(person.name.as_str()),
        ])
    };
    List {
        columns: &PLAYERS,
        next: in_steps(|lobby| (identities_touched(lobby), seats(lobby)), row),
    }
}

/// Who sits where, by the player's id. (Where a player is stands in the player's own record, too; but that is its handler's alone.)
fn seats(lobby: &mut Lobby) -> HashMap<u64, (RoomRef, u8)> {
    let mut seats = HashMap::new();
    for index in 0..lobby.rooms_touched() {
        let record = lobby.memory.rooms.at(index);
        let Some(generation) = record.open_generation() else {
            continue;
        };
        let room = RoomRef::new(index, generation);
        let tx = lobby.hand.begin(record);
        if is_open(&tx, room) {
            seats.extend(occupants(&tx).map(|(number, seat)| (seat.player.to_id(), (room, number))));
        }
    }
    seats
}

const ROOMS: [Column; 10] = [
    ("id", 12),
    ("game", 12),
    ("phase", 8),
    ("taken", 5),
    ("seats", 5),
    ("spectators", 10),
    ("passcode", 8),
    ("events", 8),
    ("name", 24),
    ("players", 24),
];

/// The rooms that are open.
pub(super) fn rooms() -> List {
    let row = |lobby: &mut Lobby, (): &(), index: u32| {
        let record = lobby.memory.rooms.at(index);
        let room = RoomRef::new(index, record.open_generation()?);
        let games = lobby.games;
        let tx = lobby.hand.begin(record);
        if !is_open(&tx, room) {
            return None;
        }
        let summary = summary(&tx, room, games);
        let events = record.log.next_number(&tx) - 1;
        let names: Vec<Name> = occupants(&tx).map(|(_, seat)| seat.name).collect();
        drop(tx);
        let phase = match summary.phase {
            Phase::Waiting => "waiting",
            Phase::Playing => "playing",
            Phase::Finished => "finished",
        };
        Some(vec![
            json!(summary.room.0),
            json!(summary.game),
            json!(phase),
            json!(summary.taken),
            json!(summary.seats),
            json!(summary.spectators),
            json!(summary.passcode),
            json!(events),
            text(&summary.name),
            names.iter().map(|name| text(name.as_str())).collect(),
        ])
    };
    List {
        columns: &ROOMS,
        next: in_steps(|lobby| (lobby.rooms_touched(), ()), row),
    }
}

// --- Locks ------------------------------------------------------------------------------------------------------

const LOCKS: [Column; 8] = [
    ("lock", 6),
    ("record", 7),
    ("holder", 7),
    ("held_ms", 8),
    ("taken", 12),
    ("waits", 10),
    ("long_waits", 10),
    ("recoveries", 10),
];

/// The locks: those of which there is something to tell, or `all`, and at the end their sums.
pub(super) fn locks(all: bool) -> List {
    let mut sums = LockFigures {
        holder: None,
        epoch: 0,
        taken_at_ms: 0,
        waits: 0,
        long_waits: 0,
        recoveries: 0,
    };
    let touched = |lobby: &mut Lobby| {
        let (players, rooms) = (identities_touched(lobby), lobby.rooms_touched());
        (players + rooms + 2, (players, rooms))
    };
    let row = move |lobby: &mut Lobby, (players, rooms): &(u32, u32), index: u32| {
        let memory = lobby.memory;
        let (kind, record, lock): (_, _, &Lock) = if index == 0 {
            ("lobby", None, memory.directory.record.lock())
        } else if index <= *players {
            ("player", Some(index - 1), memory.players.at(index - 1).lock())
        } else if index <= players + rooms {
            let room = index - players - 1;
            ("room", Some(room), memory.rooms.at(room).lock())
        } else {
            return Some(row_of_lock("total", None, &sums));
        };
        let figures = lock.figures();
        sums.epoch += figures.epoch;
        sums.waits += figures.waits;
        sums.long_waits += figures.long_waits;
        sums.recoveries += figures.recoveries;
        let has_a_story = figures.holder.is_some() || figures.waits + figures.recoveries > 0;
        (all || has_a_story).then(|| row_of_lock(kind, record, &figures))
    };
    List {
        columns: &LOCKS,
        next: in_steps(touched, row),
    }
}

fn row_of_lock(kind: &str, record: Option<u32>, figures: &LockFigures) -> Row {
    let held_ms = figures
        .holder
        .map(|_| now_ms().saturating_sub(figures.taken_at_ms));
    vec![
        json!(kind),
        json!(record),
        json!(figures.holder.map(|holder| holder.pid)),
        json!(held_ms),
        json!(figures.epoch),
        json!(figures.waits),
        json!(figures.long_waits),
        json!(figures.recoveries),
    ]
}

// --- What they have in common -----------------------------------------------------------------------------------

/// The rows of the records from 0 to what `prepare` says, some at a time. What else it gives is handed to `row`.
fn in_steps<T: 'static>(
    prepare: impl Fn(&mut Lobby) -> (u32, T) + 'static,
    mut row: impl FnMut(&mut Lobby, &T, u32) -> Option<Row> + 'static,
) -> Next {
    let (mut first, mut prepared) = (0, None);
    Box::new(move |lobby| {
        let (end, known) = prepared.get_or_insert_with(|| prepare(lobby));
        let step = first..(*end).min(first + RECORDS_PER_STEP);
        first = step.end;
        (!step.is_empty()).then(|| step.filter_map(|index| row(lobby, known, index)).collect())
    })
}

/// What the directory knows of a player.
struct Person {
    player: PlayerRef,
    name: Name,
    presence: Presence,
    connection: ConnectionRef,
    detached_at_ms: u64,
}

fn person(lobby: &mut Lobby, index: u32) -> Option<Person> {
    let directory = lobby.memory.directory;
    let tx = lobby.hand.begin(directory.record);
    let identity = directory.identities.at(index);
    let presence = Presence::from_raw(tx.get(&identity.presence));
    (presence != Presence::FREE).then(|| Person {
        player: PlayerRef::new(index, tx.get(&identity.generation)),
        name: tx.get(&identity.name),
        presence,
        connection: tx.get(&identity.connection),
        detached_at_ms: tx.get(&identity.detached_at_ms),
    })
}

/// Player records from this index on were never used.
fn identities_touched(lobby: &mut Lobby) -> u32 {
    let directory = lobby.memory.directory.record;
    let tx = lobby.hand.begin(directory);
    tx.get(&directory.identities_touched)
}

/// Whether the connection's record still belongs to the connection that the person had.
fn is_of(person: &Person, record: &ConnectionRecord) -> bool {
    person.connection.is_somebody() && record.reference(person.connection.index()) == person.connection
}

fn text(text: &str) -> Value {
    Value::String(Escaped(text).to_string())
}

fn seconds_since(moment_ms: u64) -> Value {
    seconds(now_ms().saturating_sub(moment_ms))
}

fn seconds(ms: u64) -> Value {
    // Exact: no server lives for 2^53 milliseconds.
    json!(ms as f64 / 1000.0)
}

fn number(length: usize) -> u32 {
    u32::try_from(length).expect("bounded by the limit of roles")
}
