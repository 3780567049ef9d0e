//! The locks and their statistics.

use serde_json::json;

use crate::frontends::console::context::ConsoleContext;
use crate::frontends::console::queries::processes::role_name;
use crate::frontends::console::queries::{Column, List, Row, identities_touched, rows_in_steps};
use crate::state::handle::StateHandle;
use crate::state::room_label::room_number;
use shmem::lock::{Lock, LockStats};
use shmem::sys::clock::now_ms;
use shmem::transaction::Record;

const LOCKS: [Column; 9] = [
    ("lock", 6),
    ("number", 7),
    ("holder", 7),
    ("role", 10),
    ("held_ms", 8),
    ("taken", 12),
    ("waits", 10),
    ("long_waits", 10),
    ("recoveries", 10),
];

/// The locks that were contended, recovered or are held, or `all` of them. The last row is the total of all.
pub(crate) fn locks(context: ConsoleContext, all: bool) -> List {
    let mut sums = LockStats {
        holder: None,
        epoch: 0,
        acquired_at_ms: 0,
        waits: 0,
        long_waits: 0,
        recoveries: 0,
    };
    let touched = |lobby: &mut StateHandle| {
        let (players, rooms) = (identities_touched(lobby), lobby.rooms_touched());
        (players + rooms + 3, (players, rooms))
    };
    let row = move |lobby: &mut StateHandle, (players, rooms): &(u32, u32), index: u32| {
        let memory = lobby.memory;
        let (kind, number, lock): (_, _, &Lock) = if index == 0 {
            ("lobby", None, memory.directory.record.lock())
        } else if index <= *players {
            (
                "player",
                Some(u64::from(index)),
                memory.players.at(index - 1).lock(),
            )
        } else if index <= players + rooms {
            let room = index - players - 1;
            ("room", Some(room_number(room)), memory.rooms.at(room).lock())
        } else if index == players + rooms + 1 {
            ("chat", None, memory.chat.lock())
        } else {
            return Some(lock_row(context, "total", None, &sums));
        };
        let figures = lock.stats();
        sums.epoch += figures.epoch;
        sums.waits += figures.waits;
        sums.long_waits += figures.long_waits;
        sums.recoveries += figures.recoveries;
        let is_of_interest = figures.holder.is_some() || figures.waits + figures.recoveries > 0;
        (all || is_of_interest).then(|| lock_row(context, kind, number, &figures))
    };
    List {
        columns: &LOCKS,
        next: rows_in_steps(touched, row),
    }
}

fn lock_row(context: ConsoleContext, kind: &str, number: Option<u64>, figures: &LockStats) -> Row {
    let held_ms = figures
        .holder
        .map(|_| now_ms().saturating_sub(figures.acquired_at_ms));
    vec![
        json!(kind),
        json!(number),
        json!(figures.holder.map(|holder| holder.pid)),
        json!(figures.holder.and_then(|holder| role_name(holder.pid, context))),
        json!(held_ms),
        json!(figures.epoch),
        json!(figures.waits),
        json!(figures.long_waits),
        json!(figures.recoveries),
    ]
}
