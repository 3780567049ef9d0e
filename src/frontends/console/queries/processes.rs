//! The server's processes.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::frontends::console::context::ConsoleContext;
use crate::frontends::console::queries::{
    Column, List, Row, identities_touched, number, player_summary, rows_in_steps, seconds_since, text,
};
use crate::state::connections::{Claim, ConnectionRecord, Kind};
use crate::state::handle::StateHandle;
use crate::state::roles::RoleInstance;

const PROCESSES: [Column; 10] = [
    ("state", 5),
    ("pss_kib", 8),
    ("role", 10),
    ("number", 6),
    ("pid", 7),
    ("restarts", 8),
    ("age", 10),
    ("seconds", 10),
    ("peer", 21),
    ("player", 24),
];

/// The number of leading columns that `--memory` adds.
const MEMORY_COLUMNS: usize = 2;

/// Where the age of the process stands, behind those.
const AGE_COLUMN: usize = 4;

/// All processes: the supervisor, its roles, and one per connection.
pub(crate) fn processes(context: ConsoleContext, memory: bool) -> List {
    let instances = RoleInstance::all(context.config);
    let connections = context.memory.connections;
    // Only claimed slots: reading a slot that was never claimed would allocate its pages.
    let claimed: Vec<u32> = context
        .memory
        .touched_connections()
        .map(|(index, _)| index)
        .collect();
    // The last row of `--memory` is the total.
    let (last, mut total_kib) = (1 + number(instances.len()) + number(claimed.len()), 0);
    let count = last + u32::from(memory);
    let mut counted = HashSet::new();
    let row = move |_: &mut StateHandle, players: &HashMap<u32, Value>, index: u32| {
        if index == last {
            let mut row = vec![Value::Null, json!(total_kib), json!("total")];
            row.resize(PROCESSES.len(), Value::Null);
            return Some(row);
        }
        let (pid, mut row) = match index.checked_sub(1) {
            None => {
                let pid = context.memory.header.supervisor_pid.load(Ordering::Relaxed);
                (
                    pid,
                    vec![json!("supervisor"), Value::Null, json!(pid), Value::Null],
                )
            }
            Some(index) => match instances.get(index as usize) {
                Some(instance) => role_row(*instance, context)?,
                None => {
                    let index = *claimed.get(index as usize - instances.len())?;
                    connection_row(connections.at(index), players.get(&index))?
                }
            },
        };
        row.resize(PROCESSES.len() - MEMORY_COLUMNS - 1, Value::Null);
        row.insert(AGE_COLUMN, process_age(pid));
        if memory {
            let pss_kib = process_pss_kib(pid);
            // A process has a row for each of its connections.
            if counted.insert(pid) {
                total_kib += pss_kib.as_u64().unwrap_or(0);
            }
            row.splice(0..0, [process_state(pid), pss_kib]);
        }
        Some(row)
    };
    List {
        columns: &PROCESSES[if memory { 0 } else { MEMORY_COLUMNS }..],
        next: rows_in_steps(move |lobby| (count, players_by_connection(lobby)), row),
    }
}

fn role_row(instance: RoleInstance, context: ConsoleContext) -> Option<(u32, Row)> {
    let slot = instance.slot(context.memory);
    let (pid, restarts) = (
        slot.pid.load(Ordering::Relaxed),
        slot.restarts.load(Ordering::Relaxed),
    );
    (pid != 0).then(|| {
        (
            pid,
            vec![
                json!(instance.role.name()),
                json!(instance.index),
                json!(pid),
                json!(restarts),
            ],
        )
    })
}

fn connection_row(record: &ConnectionRecord, player: Option<&Value>) -> Option<(u32, Row)> {
    let handler = record.handler().filter(|_| record.claimed() != Claim::Free)?;
    let row = vec![
        json!(connection_role(record)),
        Value::Null,
        json!(handler.pid),
        Value::Null,
        seconds_since(record.accepted_at_ms.load(Ordering::Relaxed)),
        json!(record.peer().to_string()),
        player.cloned().unwrap_or_default(),
    ];
    Some((handler.pid, row))
}

/// The names of connected players, by the slot of their connection.
fn players_by_connection(lobby: &mut StateHandle) -> HashMap<u32, Value> {
    let mut players = HashMap::new();
    for index in 0..identities_touched(lobby) {
        let Some(summary) = player_summary(lobby, index) else {
            continue;
        };
        if summary.connection(lobby).is_some() {
            players.insert(summary.connection.index(), text(summary.name.as_str()));
        }
    }
    players
}

/// How long the process has run, in seconds.
fn process_age(pid: u32) -> Value {
    let started = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may have spaces and brackets: the 22nd field of all.
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_whitespace().nth(19)?.parse::<u64>().ok()
    };
    let uptime = || {
        let text = fs::read_to_string("/proc/uptime").ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    // Both count from the start of the machine; the kernel counts in hundredths of a second for every program.
    json!(started().zip(uptime()).map(|(started, uptime)| {
        let age = uptime - started as f64 / 100.0;
        (age.max(0.0) * 100.0).round() / 100.0
    }))
}

fn process_state(pid: u32) -> Value {
    let state = proc_field(pid, "status", "State:");
    json!(state.and_then(|state| state.chars().next()))
}

fn process_pss_kib(pid: u32) -> Value {
    let pss = proc_field(pid, "smaps_rollup", "Pss:");
    json!(pss.and_then(|pss| pss.trim_end_matches(" kB").parse::<u64>().ok()))
}

/// The value of a key in a file of `/proc`; `None` if the process has ended.
fn proc_field(pid: u32, file: &str, key: &str) -> Option<String> {
    let content = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let value = content.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.trim().to_owned())
}

/// The role of a process; `None` if the server has no such process.
pub(crate) fn role_name(pid: u32, context: ConsoleContext) -> Option<&'static str> {
    if context.memory.header.supervisor_pid.load(Ordering::Relaxed) == pid {
        return Some("supervisor");
    }
    let instances = RoleInstance::all(context.config);
    let instance = instances
        .into_iter()
        .find(|instance| instance.slot(context.memory).pid.load(Ordering::Relaxed) == pid);
    if let Some(instance) = instance {
        return Some(instance.role.name());
    }
    let is_it = |record: &&ConnectionRecord| record.handler().is_some_and(|handler| handler.pid == pid);
    let mut records = context.memory.touched_connections().map(|(_, record)| record);
    records.find(is_it).map(connection_role)
}

fn connection_role(record: &ConnectionRecord) -> &'static str {
    match record.kind() {
        Kind::Game if record.is_at_reception() => "reception",
        Kind::Game => "handler",
        Kind::Console => "console",
    }
}
