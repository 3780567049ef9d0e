//! Queries: rows are read from the tables a few at a time, each record under its own lock for microseconds.
//!
//! Texts in rows are escaped here for both formats, so no text that a player chose reaches a terminal unescaped.

mod config;
mod details;
mod lists;
mod locks;
mod processes;
mod sources;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::frontends::console::context::ConsoleContext;
pub(crate) use crate::frontends::console::queries::config::{config, log_level};
pub(crate) use crate::frontends::console::queries::details::{
    NotFound, find_player, open_room, player, room,
};
pub(crate) use crate::frontends::console::queries::lists::{bans, close_reasons, events, players, rooms};
pub(crate) use crate::frontends::console::queries::locks::locks;
pub(crate) use crate::frontends::console::queries::processes::processes;
pub(crate) use crate::frontends::console::queries::sources::sources;
use crate::state::budget::now_us;
use crate::state::close_counters::{Closes, closes};
use crate::state::connections::{ConnectionRecord, Kind};
use crate::state::directory::{Identity, LobbyTx, Name, Presence};
use crate::state::handle::StateHandle;
use crate::state::hang_kind::HangKind;
use crate::state::header::KeeperSlot;
use crate::state::incidents::IncidentKind;
use crate::state::layout::{ConnectionRef, PlayerRef};
use crate::state::room_label::lock_owner_name;
use crate::state::stream_tap::StreamStatus;
use crate::state::tick_figures::Lateness;
use forkade_text::escape::Escaped;
use shmem::hang_reports::Subject;
use shmem::sys::clock::now_ms;

/// Records that are read for one piece of a reply, so that the piece stays small and is sent soon.
const RECORDS_PER_STEP: u32 = 32;

/// A column's name, and its width in characters in a table, or [`JSON_ONLY`].
pub(crate) type Column = (&'static str, usize);

/// In place of a width: the column is not in the table.
pub(crate) const JSON_ONLY: usize = 0;

/// A list; each row has one value per column.
pub(crate) struct List {
    pub(crate) columns: &'static [Column],
    /// Returns the next rows, perhaps none; `None` after the last.
    pub(crate) next: Next,
}

/// The fields of one object.
pub(crate) type Fields = Vec<(&'static str, Value)>;

type Row = Vec<Value>;
type Next = Box<dyn FnMut(&mut StateHandle) -> Option<Vec<Row>>>;

/// The counters of the whole server.
pub(crate) fn status(lobby: &StateHandle, context: ConsoleContext) -> Fields {
    let (header, directory) = (lobby.memory.header, lobby.memory.directory);
    let count = |counter: &AtomicU64| json!(counter.load(Ordering::Relaxed));
    let late = header.ticks.lateness(now_us());
    let lateness = |us: fn(Lateness) -> u64| json!(late.map(|late| us(late) as f64 / 1000.0));
    let uptime_ms = now_ms().saturating_sub(header.started_at_ms.load(Ordering::Relaxed));
    vec![
        ("program", json!(context.games.program().name())),
        ("version", json!(context.games.program().version())),
        ("pid", json!(header.supervisor_pid.load(Ordering::Relaxed))),
        ("uptime_seconds", seconds(uptime_ms)),
        ("stopping", json!(header.stopping.load(Ordering::Relaxed) != 0)),
        ("draining", json!(header.is_draining())),
        ("drain_seconds_left", drain_seconds_left(lobby)),
        ("log", json!(crate::logging::level().as_str().to_lowercase())),
        ("players", count(&directory.record.players_published)),
        ("players_max", json!(context.config.players_max)),
        ("rooms", count(&directory.record.rooms_published)),
        ("rooms_max", json!(context.config.rooms_max)),
        ("connections", json!(lobby.memory.open_connections(Kind::Game))),
        ("connections_max", json!(context.config.connections_max)),
        ("consoles", json!(lobby.memory.open_connections(Kind::Console))),
        ("keepers", json!(context.config.keepers)),
        ("tickers", json!(context.config.tickers)),
        (
            "handlers",
            json!(sum_over_keepers(lobby, |keeper| &keeper.handlers)),
        ),
        (
            "spare_handlers",
            json!(sum_over_keepers(lobby, |keeper| &keeper.spare_handlers)),
        ),
        (
            "receptions",
            json!(sum_over_keepers(lobby, |keeper| &keeper.receptions)),
        ),
        ("accepted_total", count(&header.accepted_total)),
        (
            "refused_total",
            json!(sum_of_closes(lobby, |closes| closes.refused)),
        ),
        ("ended_total", json!(sum_of_closes(lobby, |closes| closes.ended))),
        ("foreign_openings_total", count(&header.foreign_openings_total)),
        (
            "lost_before_greeting_total",
            count(&header.lost_before_handshake_total),
        ),
        ("takeovers_total", count(&header.takeovers_total)),
        ("recoveries_total", count(&header.recoveries_total)),
        ("resumes_total", count(&header.resumes_total)),
        ("resyncs_total", count(&header.resyncs_total)),
        ("reader_waits_total", count(&header.reader_waits_total)),
        ("readers_given_up_total", count(&header.readers_given_up_total)),
        (
            "unconfirmed_closed_total",
            count(&header.unconfirmed_closed_total),
        ),
        ("too_fast_total", count(&header.too_fast_total)),
        ("failed_requests_total", count(&header.failed_requests_total)),
        ("guesses_refused_total", count(&header.guesses_refused_total)),
        ("sources_refused_total", count(&header.sources_refused_total)),
        ("refused_early_total", count(&header.refused_early_total)),
        ("sources_held_total", count(&header.sources_held_total)),
        ("penalties_total", count(&header.penalties_total)),
        ("passwords_overdue_total", count(&header.passwords_overdue_total)),
        ("fanout_refused_total", count(&header.fanout_refused_total)),
        ("banned_total", count(&header.banned_total)),
        ("muted_total", count(&header.muted_total)),
        ("audit_lines_lost_total", count(&header.audit_lines_lost_total)),
        ("lobby_lines_total", count(&header.lobby_lines_total)),
        (
            "lobby_lines_missed_total",
            count(&header.lobby_lines_missed_total),
        ),
        ("whispers_total", count(&header.whispers_total)),
        ("ticks_total", count(&header.ticks.ticks_total)),
        ("ticks_late_total", count(&header.ticks.late_total)),
        ("ticks_missed_total", count(&header.ticks.missed_total)),
        ("tick_lateness_p50_ms", lateness(|late| late.p50_us)),
        ("tick_lateness_p99_ms", lateness(|late| late.p99_us)),
        ("tick_lateness_max_ms", lateness(|late| late.max_us)),
        ("slow_calls_total", count(&header.ticks.overruns_total)),
        ("rooms_slowed_total", count(&header.ticks.slowed_total)),
        ("blamed_total", count(&header.blocked_frames_total)),
        (
            "rooms_blamed_total",
            json!(
                header.matches_abandoned_total.load(Ordering::Relaxed)
                    + header.matches_not_shown_total.load(Ordering::Relaxed)
            ),
        ),
        (
            "game_failures_total",
            json!(lobby.memory.incidents.entered(IncidentKind::Failure)),
        ),
        (
            "lock_waits_reported_total",
            json!(header.hang_reports.reported_total()),
        ),
        ("watchdog_kills_total", count(&header.watchdog.kills_total)),
        ("watchdog_last_kill", last_kill(lobby)),
        (
            "bells_rung_again_total",
            count(&header.doorbells_rung_again_total),
        ),
        (
            "log_records_dropped_total",
            count(&header.log_records_dropped_total),
        ),
        (
            "log_records_left_out_total",
            count(&header.log_records_left_out_total),
        ),
    ]
}

/// The sum over all reasons for which connections were closed.
fn sum_of_closes(lobby: &StateHandle, count: impl Fn(&Closes) -> u64) -> u64 {
    closes(&lobby.memory.header.closes)
        .map(|closes| count(&closes))
        .sum()
}

/// The sum of a count over all keepers.
fn sum_over_keepers(lobby: &StateHandle, count: impl Fn(&KeeperSlot) -> &AtomicU32) -> u32 {
    let keepers = lobby.memory.header.keepers.iter();
    keepers.map(|keeper| count(keeper).load(Ordering::Relaxed)).sum()
}

/// The process that the watchdog killed last, and why.
fn last_kill(lobby: &StateHandle) -> Value {
    let record = &lobby.memory.header.watchdog;
    let Some(hang) = HangKind::from_number(record.last_hang.load(Ordering::Relaxed)) else {
        return Value::Null;
    };
    let pid = record.last_pid.load(Ordering::Relaxed);
    let seconds = now_ms().saturating_sub(record.last_at_ms.load(Ordering::Relaxed)) / 1000;
    let over = match Subject::from_word(record.last_subject.load(Ordering::Relaxed)) {
        Some(Subject::Lock { offset }) => match lobby.memory.lock_at(offset) {
            Some((_, owner)) => format!(
                "under the lock of {}",
                lock_owner_name(lobby.memory, lobby.games, owner)
            ),
            None => "under a lock".to_owned(),
        },
        Some(Subject::Connection { index }) => format!("as the handler of connection {index}"),
        Some(Subject::Role { .. }) | None => "in its loop".to_owned(),
    };
    json!(format!("process {pid}, {hang} {over}, {seconds} seconds ago"))
}

// --- Shared by the queries --------------------------------------------------------------------------------------

/// Rows of the records from 0 up to the count that `prepare` returns, some at a time. `row` gets the other value of
/// `prepare`.
fn rows_in_steps<T: 'static>(
    prepare: impl Fn(&mut StateHandle) -> (u32, T) + 'static,
    mut row: impl FnMut(&mut StateHandle, &T, u32) -> Option<Row> + 'static,
) -> Next {
    let (mut first, mut prepared) = (0, None);
    Box::new(move |lobby| {
        let (end, context) = prepared.get_or_insert_with(|| prepare(lobby));
        let step = first..(*end).min(first + RECORDS_PER_STEP);
        first = step.end;
        (!step.is_empty()).then(|| step.filter_map(|index| row(lobby, context, index)).collect())
    })
}

/// A player's entry in the directory.
pub(crate) struct PlayerSummary {
    player: PlayerRef,
    pub(crate) name: Name,
    presence: Presence,
    pub(crate) connection: ConnectionRef,
    detached_at_ms: u64,
    mail_bytes: u64,
}

fn player_summary(lobby: &mut StateHandle, index: u32) -> Option<PlayerSummary> {
    let directory = lobby.memory.directory;
    let tx = lobby.attachment.begin(directory.record);
    let identity = directory.identities.at(index);
    let is_free = tx.get(&identity.presence) == Presence::FREE.raw();
    (!is_free).then(|| PlayerSummary::read(&tx, index, identity))
}

impl PlayerSummary {
    fn read(tx: &LobbyTx<'_>, index: u32, identity: &Identity) -> Self {
        Self {
            player: PlayerRef::new(index, tx.get(&identity.generation)),
            name: tx.get(&identity.name),
            presence: Presence::from_raw(tx.get(&identity.presence)),
            connection: tx.get(&identity.connection),
            detached_at_ms: tx.get(&identity.detached_at_ms),
            mail_bytes: tx
                .get(&identity.mail_head)
                .saturating_sub(tx.get(&identity.mail_tail)),
        }
    }

    /// The summary of a player; `None` if the player has left.
    pub(crate) fn of(lobby: &mut StateHandle, player: PlayerRef) -> Option<Self> {
        let directory = lobby.memory.directory;
        let tx = lobby.attachment.begin(directory.record);
        let identity = directory.identity(&tx, player)?;
        Some(Self::read(&tx, player.index(), identity))
    }

    /// The record of the player's connection, if there is one.
    pub(crate) fn connection(&self, lobby: &StateHandle) -> Option<&'static ConnectionRecord> {
        let record = lobby.memory.connections.get(self.connection.index())?;
        let is_current =
            self.connection.is_some() && record.reference(self.connection.index()) == self.connection;
        is_current.then_some(record)
    }

    /// The presence in words.
    pub(crate) fn presence(&self) -> &'static str {
        match self.presence {
            Presence::ATTACHED => "connected",
            Presence::DETACHED => "away",
            _ => "leaving",
        }
    }
}

/// The connected or absent players that have streams: id, name, and how far their streams are.
pub(crate) fn players_with_streams(lobby: &mut StateHandle) -> Vec<(u64, String, StreamStatus)> {
    let touched = identities_touched(lobby);
    let of_player = |index: u32| {
        let summary = player_summary(lobby, index)?;
        let streams = lobby.memory.players.at(index).stream_status(summary.player)?;
        Some((summary.player.to_id(), summary.name.as_str().to_owned(), streams))
    };
    (0..touched).filter_map(of_player).collect()
}

/// Slots from this one on were never used by a player.
fn identities_touched(lobby: &mut StateHandle) -> u32 {
    let directory = lobby.memory.directory.record;
    let tx = lobby.attachment.begin(directory);
    tx.get(&directory.identities_touched)
}

fn drain_seconds_left(lobby: &StateHandle) -> Value {
    match lobby.memory.header.drain_until_ms.load(Ordering::Relaxed) {
        0 | u64::MAX => Value::Null,
        until_ms => seconds(until_ms.saturating_sub(now_ms())),
    }
}

pub(crate) fn text(text: &str) -> Value {
    Value::String(Escaped(text).to_string())
}

fn seconds_since(moment_ms: u64) -> Value {
    seconds(now_ms().saturating_sub(moment_ms))
}

fn seconds(ms: u64) -> Value {
    // Exact below 2^53 milliseconds.
    json!(ms as f64 / 1000.0)
}

fn number(length: usize) -> u32 {
    u32::try_from(length).expect("bounded by the limit of roles")
}
