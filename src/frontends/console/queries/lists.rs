//! The players and the rooms.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forkade_protocol::{ErrorCode, Phase};
use serde_json::{Value, json};

use crate::frontends::console::queries::{
    Column, JSON_ONLY, List, identities_touched, player_summary, rows_in_steps, seconds, seconds_since, text,
};
use crate::limits::CONSOLE_ROOM_WAIT_MS;
use crate::lobby::listing::summary;
use crate::state::close_counters::closes;
use crate::state::connections::ConnectionRecord;
use crate::state::directory::Name;
use crate::state::handle::StateHandle;
use crate::state::incidents::{Incident, IncidentKind};
use crate::state::layout::RoomRef;
use crate::state::room_label::room_number;
use crate::state::rooms::{is_open, occupants};
use crate::state::sources::SourceKey;
use shmem::sys::clock::now_ms;

const PLAYERS: [Column; 8] = [
    ("id", 12),
    ("presence", 9),
    ("seconds", 10),
    ("pid", 7),
    ("peer", 21),
    ("room", 6),
    ("seat", 4),
    ("name", 24),
];

/// The players.
pub(crate) fn players() -> List {
    let row = |lobby: &mut StateHandle, seats: &HashMap<u64, (RoomRef, u8)>, index: u32| {
        let summary = player_summary(lobby, index)?;
        let record = summary.connection(lobby);
        let since_ms = record.map_or(summary.detached_at_ms, |record| {
            record.accepted_at_ms.load(Ordering::Relaxed)
        });
        let seat = seats.get(&summary.player.to_id());
        // A spectator is in no seat of the room.
        let watched = || lobby.memory.players.at(index).stream_status(summary.player)?.room;
        let room = seat.map(|(room, _)| *room).or_else(watched);
        Some(vec![
            json!(summary.player.to_id()),
            json!(summary.presence()),
            seconds_since(since_ms),
            json!(
                record
                    .and_then(ConnectionRecord::handler)
                    .map(|handler| handler.pid)
            ),
            json!(record.map(|it| it.peer().to_string())),
            json!(room.map(|room| room_number(room.index()))),
            json!(seat.map(|(_, seat)| seat)),
            text(summary.name.as_str()),
        ])
    };
    List {
        columns: &PLAYERS,
        next: rows_in_steps(|lobby| (identities_touched(lobby), seats(lobby)), row),
    }
}

/// Room and seat by player's id. (The player's own record has them, too, but only its handler may read that.)
fn seats(lobby: &mut StateHandle) -> HashMap<u64, (RoomRef, u8)> {
    let mut seats = HashMap::new();
    for index in 0..lobby.rooms_touched() {
        let record = lobby.memory.rooms.at(index);
        let Some(generation) = record.open_generation() else {
            continue;
        };
        let room = RoomRef::new(index, generation);
        // Without the seats of a room whose game hangs.
        let tx = lobby
            .attachment
            .try_begin(record, Duration::from_millis(CONSOLE_ROOM_WAIT_MS));
        if let Some(tx) = tx.filter(|tx| is_open(tx, room)) {
            seats.extend(occupants(&tx).map(|(number, seat)| (seat.player.to_id(), (room, number))));
        }
    }
    seats
}

const ROOMS: [Column; 11] = [
    ("id", JSON_ONLY),
    ("room", 6),
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

/// The open rooms. Of a room whose lock is held for long, perhaps because its game hangs, the columns `events` and
/// `players` are null.
pub(crate) fn rooms() -> List {
    let row = |lobby: &mut StateHandle, (): &(), index: u32| {
        let record = lobby.memory.rooms.at(index);
        let published = record.published()?;
        let room = RoomRef::new(index, published.generation);
        let summary = summary(lobby.games, index, &published);
        let tx = lobby
            .attachment
            .try_begin(record, Duration::from_millis(CONSOLE_ROOM_WAIT_MS));
        let (events, names) = match tx {
            Some(tx) if !is_open(&tx, room) => return None,
            Some(tx) => {
                let events = record.log.next_number(&tx) - 1;
                let names: Vec<Name> = occupants(&tx).map(|(_, seat)| seat.name).collect();
                (Some(events), Some(names))
            }
            None => (None, None),
        };
        let names = names.map(|names| names.iter().map(|name| text(name.as_str())).collect());
        Some(vec![
            json!(summary.room.0),
            json!(room_number(index)),
            json!(summary.game),
            json!(phase_name(summary.phase)),
            json!(summary.taken),
            json!(summary.seats),
            json!(summary.spectators),
            json!(summary.passcode),
            json!(events),
            text(&summary.name),
            names.unwrap_or(Value::Null),
        ])
    };
    List {
        columns: &ROOMS,
        next: rows_in_steps(|lobby| (lobby.rooms_touched(), ()), row),
    }
}

const BANS: [Column; 3] = [("kind", 4), ("seconds_left", 12), ("name", 24)];

/// The bans and mutes in force: those of names, then those of addresses.
pub(crate) fn bans() -> List {
    let places_touched = |lobby: &mut StateHandle| {
        let head = lobby.memory.directory.record;
        let tx = lobby.attachment.begin(head);
        let touched = tx.get(&head.sanctions_touched);
        drop(tx);
        let addresses: Vec<_> = lobby.memory.sources.bans().collect();
        let rows = touched + u32::try_from(addresses.len()).unwrap_or(0);
        (rows, (touched, addresses))
    };
    let row = |lobby: &mut StateHandle, (touched, addresses): &(u32, Vec<(SourceKey, u64)>), index: u32| {
        let (directory, now_ms) = (lobby.memory.directory, now_ms());
        if let Some(beyond) = index.checked_sub(*touched) {
            let (key, left_ms) = addresses.get(beyond as usize)?;
            let source = key.text(lobby.memory.header.source_prefixes());
            return Some(vec![json!("ban"), seconds(*left_ms), text(&source)]);
        }
        let tx = lobby.attachment.begin(directory.record);
        let sanction = directory.sanction(&tx, index, now_ms)?;
        drop(tx);
        Some(vec![
            json!(sanction.kind.to_string()),
            seconds(sanction.until_ms - now_ms),
            text(sanction.name.as_str()),
        ])
    };
    List {
        columns: &BANS,
        next: rows_in_steps(places_touched, row),
    }
}

const CLOSES: [Column; 4] = [("reason", 18), ("refused", 8), ("ended", 8), ("seconds_ago", 11)];

/// Why the server has closed connections, how often, and when it did so last.
pub(crate) fn close_reasons() -> List {
    let all = |_: &mut StateHandle| (u32::try_from(ErrorCode::ALL.len()).unwrap_or(u32::MAX), ());
    let row = |lobby: &mut StateHandle, (): &(), index: u32| {
        let closes = closes(&lobby.memory.header.closes).nth(index as usize)?;
        (closes.refused + closes.ended > 0).then(|| {
            vec![
                json!(format!("{:?}", closes.code)),
                json!(closes.refused),
                json!(closes.ended),
                seconds(now_ms().saturating_sub(closes.last_at_ms)),
            ]
        })
    };
    List {
        columns: &CLOSES,
        next: rows_in_steps(all, row),
    }
}

const EVENTS: [Column; 6] = [
    ("seconds_ago", 11),
    ("kind", 9),
    ("pid", 7),
    ("room", 6),
    ("player", 16),
    ("what", 40),
];

/// The last `count` incidents of all kinds, the latest first.
pub(crate) fn events(count: usize) -> List {
    let mut rows = Some(());
    List {
        columns: &EVENTS,
        next: Box::new(move |lobby| {
            rows.take()?;
            let incidents = lobby.memory.incidents;
            let of_kind = |kind| {
                let latest = incidents.latest(kind).take(count);
                latest.map(move |incident| (kind, incident))
            };
            let mut all: Vec<(IncidentKind, Incident)> =
                IncidentKind::ALL.into_iter().flat_map(of_kind).collect();
            all.sort_by_key(|(_, incident)| Reverse(incident.at_ms));
            all.truncate(count);
            let row = |(kind, incident): (IncidentKind, Incident)| {
                vec![
                    seconds_since(incident.at_ms),
                    json!(kind.name()),
                    json!(incident.pid),
                    json!((incident.room != 0).then_some(incident.room)),
                    match incident.player.is_empty() {
                        true => Value::Null,
                        false => text(&incident.player),
                    },
                    text(&incident.text),
                ]
            };
            Some(all.into_iter().map(row).collect())
        }),
    }
}

pub(crate) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Waiting => "waiting",
        Phase::Playing => "playing",
        Phase::Finished => "finished",
    }
}
