//! The sources: where clients connect from.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::json;

use crate::frontends::console::queries::{Column, List, rows_in_steps, seconds, text};
use crate::state::handle::StateHandle;
use crate::state::layout::Memory;
use crate::state::sources::{SourceKey, SourcePresence};

/// What is known of a source.
#[derive(Default)]
struct Summary {
    presence: SourcePresence,
    players: u32,
    penalty_us: u64,
    refused_us: u64,
    banned_ms: u64,
}

const SOURCES: [Column; 7] = [
    ("source", 24),
    ("connections", 11),
    ("greeting", 8),
    ("players", 7),
    ("penalty", 7),
    ("refused", 7),
    ("banned", 9),
];

/// All sources that have connections, players, penalties or bans; with `penalised` those with penalties alone. Those
/// with the most connections come first. Times are seconds left.
pub(crate) fn sources(penalised: bool) -> List {
    let prepare = move |lobby: &mut StateHandle| {
        let summaries = summaries(lobby.memory);
        let mut rows: Vec<_> = summaries
            .into_iter()
            .filter(|(_, summary)| !penalised || summary.penalty_us > 0)
            .collect();
        rows.sort_by_key(|(key, summary)| (Reverse(summary.presence.connections), *key));
        (u32::try_from(rows.len()).unwrap_or(u32::MAX), rows)
    };
    let row = |lobby: &mut StateHandle, rows: &Vec<(SourceKey, Summary)>, index: u32| {
        let (key, summary) = rows.get(index as usize)?;
        Some(vec![
            text(&key.text(lobby.memory.header.source_prefixes())),
            json!(summary.presence.connections),
            json!(summary.presence.greeting),
            json!(summary.players),
            seconds(summary.penalty_us / 1000),
            seconds(summary.refused_us / 1000),
            seconds(summary.banned_ms),
        ])
    };
    List {
        columns: &SOURCES,
        next: rows_in_steps(prepare, row),
    }
}

fn summaries(memory: &Memory) -> BTreeMap<SourceKey, Summary> {
    let mut summaries: BTreeMap<SourceKey, Summary> = BTreeMap::new();
    for (key, is_greeting) in memory.connection_sources() {
        summaries.entry(key).or_default().presence.add(is_greeting);
    }
    for index in 0..memory.players.len() {
        if let Some(key) = memory.sources.of_player(index) {
            summaries.entry(key).or_default().players += 1;
        }
    }
    for (key, left_us) in memory.sources.penalties() {
        let summary = summaries.entry(key).or_default();
        (summary.penalty_us, summary.refused_us) = (left_us, memory.sources.refused_for_us(key));
    }
    for (key, left_ms) in memory.sources.bans() {
        summaries.entry(key).or_default().banned_ms = left_ms;
    }
    summaries
}
