//! `top`: who sends and gets most, and which rooms are busiest. It reads counters that there are anyway, twice, and
//! shows the difference.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::frontends::console::commands::Format;
use crate::frontends::console::live_views::Progress;
use crate::frontends::console::queries::{List, players_with_streams, text};
use crate::frontends::console::replies::Reply;
use crate::limits::TOP_ROWS_MAX;
use crate::state::handle::StateHandle;
use crate::state::layout::RoomRef;
use crate::state::room_label::room_number;
use shmem::sys::clock::now_ms;
use shmem::transaction::Record;

/// Counters of each player or room; by a number that no later one has.
type Counts<T, const N: usize> = HashMap<u64, (T, [u64; N])>;

/// A player's name, and its room.
type PlayerRow = (String, Option<RoomRef>);

/// The first look, whose second one is due.
pub(crate) struct Top {
    began_ms: u64,
    due_ms: u64,
    format: Format,
    players: Counts<PlayerRow, 2>,
    rooms: Counts<RoomRef, 3>,
}

impl Top {
    pub(crate) fn start(lobby: &mut StateHandle, seconds: u32, format: Format) -> Self {
        let (players, rooms) = (players(lobby), rooms(lobby));
        let now = now_ms();
        Self {
            began_ms: now,
            due_ms: now + u64::from(seconds) * 1000,
            format,
            players,
            rooms,
        }
    }

    pub(crate) fn advance(&self, lobby: &mut StateHandle) -> Progress {
        let now = now_ms();
        if now < self.due_ms {
            return Progress::Wait {
                until_ms: self.due_ms,
            };
        }
        let seconds = (now - self.began_ms).max(1) as f64 / 1000.0;
        let rate = |count: u64| json!((count as f64 / seconds).round());
        let busiest_rooms = busiest(&self.rooms, rooms(lobby));
        let busiest_players = busiest(&self.players, players(lobby));
        let number = |room: RoomRef| json!(room_number(room.index()));
        let rooms = busiest_rooms
            .into_iter()
            .map(|(room, [taken, bytes, late_ticks])| {
                let published = lobby.memory.rooms.at(room.index()).published();
                let name = published.map_or(Value::Null, |published| text(published.name.as_str()));
                vec![
                    json!("room"),
                    number(room),
                    rate(taken),
                    Value::Null,
                    rate(bytes),
                    json!(late_ticks),
                    name,
                ]
            });
        let players = busiest_players
            .into_iter()
            .map(|((name, room), [received, sent])| {
                let room = room.map_or(Value::Null, number);
                vec![
                    json!("player"),
                    room,
                    Value::Null,
                    rate(received),
                    rate(sent),
                    Value::Null,
                    text(&name),
                ]
            });
        let mut rows = Some(rooms.chain(players).collect());
        let list = List {
            columns: &[
                ("top", 8),
                ("room", 6),
                ("changes_s", 10),
                ("bytes_in_s", 10),
                ("bytes_out_s", 11),
                ("ticks_late", 10),
                ("name", 24),
            ],
            next: Box::new(move |_| rows.take()),
        };
        Progress::Finished(Reply::list(list, self.format))
    }
}

/// What has grown most, by the first counter: at most so many, and nothing that has not grown.
fn busiest<T, const N: usize>(before: &Counts<T, N>, after: Counts<T, N>) -> Vec<(T, [u64; N])> {
    let mut grown: Vec<(T, [u64; N])> = after
        .into_iter()
        .map(|(id, (row, counts))| {
            // What is new has had nothing before.
            let former = before.get(&id).map_or([0; N], |(_, counts)| *counts);
            (
                row,
                std::array::from_fn(|index| counts[index].saturating_sub(former[index])),
            )
        })
        .filter(|(_, counts)| counts[0] > 0)
        .collect();
    grown.sort_by_key(|(_, counts)| Reverse(counts[0]));
    grown.truncate(TOP_ROWS_MAX);
    grown
}

/// By id: bytes of each player's handled input, and of its output.
fn players(lobby: &mut StateHandle) -> Counts<PlayerRow, 2> {
    let row = |(id, name, streams): (u64, String, crate::state::stream_tap::StreamStatus)| {
        (
            id,
            ((name, streams.room), [streams.consumed, streams.output_head]),
        )
    };
    players_with_streams(lobby).into_iter().map(row).collect()
}

/// By slot: how often the lock of each open room was taken for a change or a look, the bytes of its events, and its
/// late ticks.
fn rooms(lobby: &mut StateHandle) -> Counts<RoomRef, 3> {
    let of_room = |index: u32| {
        let record = lobby.memory.rooms.at(index);
        let room = RoomRef::new(index, record.open_generation()?);
        let late_ticks = record.late_ticks.load(Ordering::Relaxed);
        let counts = [record.lock().stats().epoch, record.log.window().1, late_ticks];
        // The counters go on when another room uses the record.
        Some((u64::from(index), (room, counts)))
    };
    lobby
        .memory
        .directory
        .visited_rooms(0)
        .filter_map(of_room)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_come_first_and_what_stands_still_not_at_all() {
        let counts = |rows: &[(u64, u64)]| -> Counts<u64, 2> {
            rows.iter().map(|(id, count)| (*id, (*id, [*count, 7]))).collect()
        };
        let before = counts(&[(1, 10), (2, 10), (3, 10)]);
        let after = counts(&[(1, 11), (2, 30), (3, 10), (4, 5)]);
        let found: Vec<(u64, u64)> = busiest(&before, after)
            .into_iter()
            .map(|(id, counts)| (id, counts[0]))
            .collect();
        assert_eq!(found, [(2, 20), (4, 5), (1, 1)]);
        let many: Vec<(u64, u64)> = (1..100).map(|id| (id, id)).collect();
        assert_eq!(busiest(&counts(&[]), counts(&many)).len(), TOP_ROWS_MAX);
    }
}
