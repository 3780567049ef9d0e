//! Everything about one player or one room.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forkade_protocol::{SeatInfo, Snapshot};
use serde_json::{Value, json};
use thiserror::Error;

use crate::frontends::console::queries::lists::phase_name;
use crate::frontends::console::queries::{Fields, PlayerSummary, seconds_since, text};
use crate::limits::{CONSOLE_ROOM_WAIT_MS, INPUT_RING_BYTES, MAILBOX_BYTES, OUTPUT_RING_BYTES};
use crate::lobby::room_view::snapshot;
use crate::state::connections::ConnectionRecord;
use crate::state::handle::StateHandle;
use crate::state::layout::{PlayerRef, RoomRef};
use crate::state::room_label::{RoomLabel, room_number};
use crate::state::rooms::{RoomRecord, is_open, occupants};
use crate::state::shown_game::ShownGame;
use forkade_text::escape::Escaped;
use forkade_text::render::name_in;
use shmem::lock::LockStats;
use shmem::sys::clock::now_ms;
use shmem::transaction::Record;

/// The player, room or seat does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum NotFound {
    #[error("no player has that id or name")]
    Player,
    #[error("no open room has that number or id: `rooms` lists them")]
    Room,
    #[error("the room has no such seat: they count from 0")]
    Seat,
    #[error(
        "the room's lock is held for long, perhaps because its game hangs: `locks` shows by which process"
    )]
    Busy,
}

/// The player whose id is `id_or_name`, or else the one with this name.
///
/// # Errors
///
/// [`NotFound::Player`].
pub(crate) fn find_player(lobby: &mut StateHandle, id_or_name: &str) -> Result<PlayerRef, NotFound> {
    let directory = lobby.memory.directory;
    let tx = lobby.attachment.begin(directory.record);
    let by_id = id_or_name.parse().ok().map(PlayerRef::from_id);
    by_id
        .filter(|player| directory.identity(&tx, *player).is_some())
        .or_else(|| directory.find_name(&tx, id_or_name))
        .ok_or(NotFound::Player)
}

/// Everything about a player.
///
/// # Errors
///
/// [`NotFound::Player`].
pub(crate) fn player(lobby: &mut StateHandle, id_or_name: &str) -> Result<Fields, NotFound> {
    let player = find_player(lobby, id_or_name)?;
    let summary = PlayerSummary::of(lobby, player).ok_or(NotFound::Player)?;
    let connection = summary.connection(lobby);
    let record = lobby.memory.players.at(player.index());
    let stream_status = record.stream_status(player);
    let since_ms = connection.map_or(summary.detached_at_ms, |record| {
        record.accepted_at_ms.load(Ordering::Relaxed)
    });
    let idle = connection.map(|record| seconds_since(record.last_frame_at_ms.load(Ordering::Relaxed)));
    let room = stream_status.and_then(|stream_status| stream_status.room);
    let mut fields = vec![
        ("id", json!(player.to_id())),
        ("name", text(summary.name.as_str())),
        ("presence", json!(summary.presence())),
        ("seconds", seconds_since(since_ms)),
        ("idle_seconds", json!(idle)),
        ("peer", json!(connection.map(|it| it.peer().to_string()))),
        (
            "connection",
            json!(connection.map(|_| summary.connection.index())),
        ),
        (
            "pid",
            json!(
                connection
                    .and_then(ConnectionRecord::handler)
                    .map(|handler| handler.pid)
            ),
        ),
        ("room", json!(room.map(|room| room_number(room.index())))),
        (
            "seat",
            json!(stream_status.and_then(|stream_status| stream_status.seat)),
        ),
        ("room_name", room_name(lobby, room)),
        ("mail_waiting", json!(summary.mail_bytes)),
        ("mailbox", json!(MAILBOX_BYTES)),
    ];
    if let Some(stream_status) = stream_status {
        let between = |from: u64, to: u64| json!(to.saturating_sub(from));
        let mode = if stream_status.is_text { "text" } else { "binary" };
        fields.extend([
            ("mode", json!(mode)),
            ("input_handled", json!(stream_status.consumed)),
            (
                "input_waiting",
                between(stream_status.consumed, stream_status.input_received),
            ),
            ("input_ring", json!(INPUT_RING_BYTES)),
            ("output_written", json!(stream_status.output_head)),
            (
                "output_unsent",
                between(stream_status.output_sent, stream_status.output_head),
            ),
            (
                "output_kept",
                between(stream_status.output_kept_from, stream_status.output_head),
            ),
            ("output_ring", json!(OUTPUT_RING_BYTES)),
        ]);
    }
    fields.extend(lock_fields(&record.lock().stats()));
    Ok(fields)
}

fn room_name(lobby: &StateHandle, room: Option<RoomRef>) -> Value {
    let Some(room) = room else { return Value::Null };
    match lobby.memory.rooms.at(room.index()).published() {
        Some(published) if published.generation == room.generation() => text(published.name.as_str()),
        _ => Value::Null,
    }
}

/// The open room with this number, or with this id, by which clients name it.
///
/// # Errors
///
/// [`NotFound::Room`].
pub(crate) fn open_room(lobby: &StateHandle, id: u64) -> Result<RoomRef, NotFound> {
    let generation_of = |index| {
        lobby
            .memory
            .rooms
            .get(index)
            .and_then(RoomRecord::open_generation)
    };
    // Ids are greater than any `u32`, because generations count from 1.
    let room = match u32::try_from(id) {
        Ok(number) => {
            let index = number.checked_sub(1).ok_or(NotFound::Room)?;
            RoomRef::new(index, generation_of(index).ok_or(NotFound::Room)?)
        }
        Err(_) => RoomRef::from_id(id),
    };
    if generation_of(room.index()) == Some(room.generation()) {
        Ok(room)
    } else {
        Err(NotFound::Room)
    }
}

/// Everything about a room, with the game as `seat` or a spectator sees it.
///
/// # Errors
///
/// [`NotFound::Room`], [`NotFound::Seat`].
pub(crate) fn room(lobby: &mut StateHandle, id: u64, seat: Option<u8>) -> Result<Fields, NotFound> {
    let room = open_room(lobby, id)?;
    let record = lobby.memory.rooms.at(room.index());
    let (games, mut faults) = (lobby.games, Vec::new());
    let patience = Duration::from_millis(CONSOLE_ROOM_WAIT_MS);
    let tx = lobby.attachment.try_begin(record, patience);
    let tx = tx.ok_or(NotFound::Busy)?;
    if !is_open(&tx, room) {
        return Err(NotFound::Room);
    }
    if seat.is_some_and(|seat| u32::from(seat) >= tx.get(&record.capacity)) {
        return Err(NotFound::Seat);
    }
    let shown = ShownGame::mark(lobby.serving, record, room);
    let snapshot = snapshot(&tx, &shown, games, seat, &mut faults);
    let players: Vec<(u8, PlayerRef)> = occupants(&tx)
        .map(|(number, seat)| (number, seat.player))
        .collect();
    let (due_us, state_bytes) = (tx.get(&record.next_tick_at_us), tx.get(&record.state_bytes));
    let has_state = tx.get(&record.match_seats) != 0;
    drop(tx);
    for fault in faults {
        log::warn!("the game's code failed for an operator: {fault}");
    }
    let next_tick_ms = (due_us != u64::MAX && has_state).then(|| (due_us / 1000).saturating_sub(now_ms()));
    let (oldest, newest) = record.log.window();
    let picture = draw_game(lobby, room, &snapshot);
    let described = games
        .find(&snapshot.game)
        .filter(|_| !shown.is_switched_off())
        .and_then(|(_, game)| game.describe_options(&snapshot.rules.options).ok());
    drop(shown);
    let seats: Vec<Value> = (0..)
        .zip(&snapshot.seats)
        .map(|(number, taken)| seat_value(number, taken.as_ref(), &players))
        .collect();
    let reservations: Vec<Value> = snapshot
        .reservations
        .iter()
        .map(|kept| json!({"seat": kept.seat, "name": text(&kept.name), "milliseconds": kept.milliseconds}))
        .collect();
    let rules = &snapshot.rules;
    let options_text = described.map_or(Value::Null, |described| text(&described));
    let mut fields = vec![
        ("room", json!(room_number(room.index()))),
        ("id", json!(room.to_id())),
        ("name", text(&snapshot.name)),
        ("game", json!(snapshot.game)),
        ("phase", json!(phase_name(snapshot.phase))),
        ("owner", json!(snapshot.owner)),
        ("seats", json!(seats)),
        ("reservations", json!(reservations)),
        ("spectators", json!(snapshot.spectators)),
        ("passcode", json!(rules.passcode)),
        ("unlisted", json!(rules.unlisted)),
        ("no_spectators", json!(rules.no_spectators)),
        ("turn_seconds", json!(rules.turn_seconds)),
        ("options", hex(&rules.options)),
        ("options_text", options_text),
        ("turn_seat", json!(snapshot.turn.map(|turn| turn.seat))),
        ("turn_ms", json!(snapshot.turn.map(|turn| turn.milliseconds))),
        ("next_tick_ms", json!(next_tick_ms)),
        ("state_bytes", json!(has_state.then_some(state_bytes))),
        ("events", json!(snapshot.event)),
        ("log", json!([oldest, newest, record.log.announced()])),
    ];
    fields.extend(lock_fields(&record.lock().stats()));
    fields.push(("picture", picture));
    Ok(fields)
}

fn seat_value(number: u8, taken: Option<&SeatInfo>, players: &[(u8, PlayerRef)]) -> Value {
    let Some(seat) = taken else {
        return json!({"seat": number, "player": null});
    };
    let player = players.iter().find(|(other, _)| *other == number);
    json!({
        "seat": number,
        "player": player.map(|(_, player)| player.to_id()),
        "name": text(&seat.name),
        "connected": seat.connected,
        "ready": seat.ready,
    })
}

/// The game as text. The game's code runs on a copy, with no lock held.
fn draw_game(lobby: &StateHandle, room: RoomRef, snapshot: &Snapshot) -> Value {
    if snapshot.view.is_empty() {
        return Value::Null;
    }
    let Some((_, game)) = lobby.games.find(&snapshot.game) else {
        return Value::Null;
    };
    match game.draw(&snapshot.view, &|seat| name_in(snapshot, seat)) {
        // Line ends are the game's own; the text in a line may come from a player.
        Ok(drawn) => Value::String(
            drawn
                .lines()
                .map(|line| Escaped(line).to_string())
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        Err(error) => {
            let room = RoomLabel::published(lobby.memory, lobby.games, room.index());
            log::warn!("the game's code failed for an operator: draw in {room}: {error}");
            Value::Null
        }
    }
}

fn lock_fields(figures: &LockStats) -> [(&'static str, Value); 4] {
    [
        ("lock_holder", json!(figures.holder.map(|holder| holder.pid))),
        ("lock_taken", json!(figures.epoch)),
        ("lock_waits", json!(figures.waits)),
        ("lock_recoveries", json!(figures.recoveries)),
    ]
}

/// Bytes in a game's own encoding; null if there are none.
fn hex(bytes: &[u8]) -> Value {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    json!((!bytes.is_empty()).then_some(text))
}
