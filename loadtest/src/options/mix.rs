//! A file of workloads that run side by side:
//!
//! ```toml
//! [[workload]]
//! kind = "relay"
//! clients = 400
//! room_size = 4
//!
//! [[workload]]
//! kind = "lobby"
//! clients = 50
//! rate = 2
//! ```
//!
//! The keys are those of the command line: `kind` (`--workload`), `clients`, `rooms`, `room_size`, `rate`,
//! `payload`, `say` (a list of `"room"`, `"lobby"`, `"whisper"`).

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::plan::{CLIENTS_MAX, Scope, WorkloadKind, WorkloadOptions, WorkloadPlan, check_per_second};

const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Most workloads of one run: enough for each kind at several sizes.
const WORKLOADS_MAX: usize = 32;

/// Why a file is invalid.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MixError {
    #[error("cannot read {path}: {cause}")]
    Read { path: PathBuf, cause: io::Error },
    #[error("{path} is longer than {FILE_BYTES_MAX} bytes")]
    TooLong { path: PathBuf },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{path}, line {line}: {reason}")]
    Syntax {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    /// A value that is invalid, alone or together with others.
    #[error("{path}, line {line}: {key}: {reason}")]
    Value {
        path: PathBuf,
        line: usize,
        key: &'static str,
        reason: String,
    },
    #[error("{path} has no [[workload]]")]
    Empty { path: PathBuf },
    #[error("{path} has {count} workloads; the most is {WORKLOADS_MAX}")]
    TooMany { path: PathBuf, count: usize },
    #[error("{path}: its workloads have {clients} clients together; the most is {CLIENTS_MAX}")]
    TooManyClients { path: PathBuf, clients: u64 },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mix {
    #[serde(default)]
    workload: Vec<Spanned<Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kind: Spanned<WorkloadKind>,
    clients: Option<Spanned<u32>>,
    rooms: Option<Spanned<u32>>,
    room_size: Option<Spanned<u32>>,
    rate: Option<Spanned<f64>>,
    payload: Option<Spanned<u32>>,
    say: Option<Spanned<Vec<Scope>>>,
}

/// The workloads that the file at `path` lists.
///
/// # Errors
/// What is invalid, and in which line.
pub(crate) fn read(path: &Path, seed: u64) -> Result<Vec<WorkloadPlan>, MixError> {
    let failed = |cause| MixError::Read {
        path: path.to_owned(),
        cause,
    };
    let mut text = String::new();
    let read = File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(failed)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(MixError::TooLong {
            path: path.to_owned(),
        });
    }
    parse(path, &text, seed)
}

fn parse(path: &Path, text: &str, seed: u64) -> Result<Vec<WorkloadPlan>, MixError> {
    let path = path.to_owned();
    let mix: Mix = match toml::from_str(text) {
        Ok(mix) => mix,
        Err(error) => {
            let line = error.span().map_or(1, |span| line_of(text, &span));
            let reason = error.message().to_owned();
            return Err(MixError::Syntax { path, line, reason });
        }
    };
    if mix.workload.is_empty() {
        return Err(MixError::Empty { path });
    }
    if mix.workload.len() > WORKLOADS_MAX {
        let count = mix.workload.len();
        return Err(MixError::TooMany { path, count });
    }
    let mut plans = Vec::new();
    for (number, entry) in (0..).zip(&mix.workload) {
        let plan = part_of(entry.get_ref(), number, seed).map_err(|(key, reason)| MixError::Value {
            line: line_of(text, &entry.get_ref().span_of(key).unwrap_or(entry.span())),
            path: path.clone(),
            key,
            reason,
        })?;
        plans.push(plan);
    }
    let clients: u64 = plans.iter().map(|plan| u64::from(plan.shape.clients)).sum();
    if clients > u64::from(CLIENTS_MAX) {
        return Err(MixError::TooManyClients { path, clients });
    }
    Ok(plans)
}

fn part_of(entry: &Entry, number: u32, seed: u64) -> Result<WorkloadPlan, (&'static str, String)> {
    let counts = [
        ("clients", &entry.clients, CLIENTS_MAX),
        ("rooms", &entry.rooms, CLIENTS_MAX),
        ("room_size", &entry.room_size, CLIENTS_MAX),
    ];
    for (key, value, most) in counts {
        if let Some(value) = value
            .as_ref()
            .filter(|value| !(1..=most).contains(value.get_ref()))
        {
            return Err((key, format!("{} is not from 1 to {most}", value.get_ref())));
        }
    }
    let number_of = |value: &Option<Spanned<u32>>| value.as_ref().map(|value| *value.get_ref());
    let rate = entry.rate.as_ref().map(|rate| check_per_second(*rate.get_ref()));
    let wish = WorkloadOptions {
        kind: Some(*entry.kind.get_ref()),
        clients: number_of(&entry.clients),
        rooms: number_of(&entry.rooms),
        room_size: number_of(&entry.room_size),
        rate: rate.transpose().map_err(|reason| ("rate", reason))?,
        payload: number_of(&entry.payload),
        say: entry.say.as_ref().map(|say| say.get_ref().clone()),
    };
    wish.complete(number, seed)
        .map_err(|invalid| (invalid.key, invalid.reason))
}

impl Entry {
    /// The position of the value of `key`, if it is present.
    fn span_of(&self, key: &str) -> Option<Range<usize>> {
        match key {
            "clients" => self.clients.as_ref().map(Spanned::span),
            "rooms" => self.rooms.as_ref().map(Spanned::span),
            "room_size" => self.room_size.as_ref().map(Spanned::span),
            "rate" => self.rate.as_ref().map(Spanned::span),
            "payload" => self.payload.as_ref().map(Spanned::span),
            "say" => self.say.as_ref().map(Spanned::span),
            _ => Some(self.kind.span()),
        }
    }
}

/// The number, from 1, of the line in which `span` begins.
fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.as_bytes().get(..span.start).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<WorkloadPlan>, String> {
        parse(Path::new("mix.toml"), text, 1).map_err(|error| error.to_string())
    }

    #[test]
    fn each_workload_has_its_own_clients_rate_payload_and_rooms() {
        let plans = parsed(
            "[[workload]]\nkind = \"relay\"\nclients = 12\nroom_size = 4\nrate = 2.5\npayload = 200\n\
             [[workload]]\nkind = \"connect4\"\nrooms = 3\nrate = 0\n\
             [[workload]]\nkind = \"lobby\"\n",
        )
        .expect("valid");
        let shapes: Vec<_> = plans
            .iter()
            .map(|plan| {
                (
                    plan.number,
                    plan.kind,
                    plan.shape.clients,
                    plan.shape.rooms,
                    plan.rate,
                )
            })
            .collect();
        assert_eq!(
            shapes,
            [
                (0, WorkloadKind::Relay, 12, 3, 2.5),
                (1, WorkloadKind::Connect4, 6, 3, 0.0),
                (2, WorkloadKind::Lobby, 100, 0, 10.0),
            ]
        );
        assert_eq!((plans[0].payload_bytes, plans[1].payload_bytes), (200, 0));
    }

    #[test]
    fn an_invalid_file_is_an_error_with_key_and_line() {
        let head = "# A mix.\n[[workload]]\nkind = \"relay\"\n";
        for (text, line, reason) in [
            (format!("{head}speed = 3\n"), 4, "unknown field `speed`"),
            (
                format!("{head}clients = \"many\"\n"),
                4,
                "invalid type: string \"many\"",
            ),
            (format!("{head}clients = 0\n"), 4, "clients: 0 is not from 1"),
            (format!("{head}clients = -4\n"), 4, "-4"),
            (format!("{head}rate = nan\n"), 4, "rate: must be a number"),
            (
                format!("{head}rooms = 2\nroom_size = 300\n"),
                4,
                "rooms: 600 clients in 2 rooms: a room has at most 255 seats",
            ),
            (format!("{head}payload = 9000\n"), 4, "payload: 9000 bytes"),
            (
                format!("{head}clients = 3\n"),
                4,
                "clients: 3 clients do not fill",
            ),
            (
                format!("{head}[[workload]]\nclients = 4\n"),
                4,
                "missing field `kind`",
            ),
            (
                format!("{head}[[workload]]\nkind = \"chess\"\n"),
                5,
                "unknown variant `chess`",
            ),
            (
                format!("{head}[[workload]]\nkind = \"lobby\"\nrooms = 1\n"),
                6,
                "rooms: lobby has no rooms",
            ),
            (format!("{head}rate = \n"), 4, ""),
            (format!("{head}say = [\"room\"]\n"), 4, "say: relay sends no chat"),
            (
                format!("{head}[[workload]]\nkind = \"chat\"\nsay = [\"moon\"]\n"),
                6,
                "unknown variant `moon`",
            ),
            ("duration = 3\n".to_owned(), 1, "unknown field `duration`"),
        ] {
            let reported = parsed(&text).expect_err(&text);
            assert!(
                reported.starts_with(&format!("mix.toml, line {line}: ")),
                "{text}: {reported}"
            );
            assert!(reported.contains(reason), "{text}: {reported}");
        }
    }

    #[test]
    fn files_without_workloads_or_with_too_many_are_refused() {
        assert!(parsed("").expect_err("empty").contains("no [[workload]]"));
        let large = "[[workload]]\nkind = \"relay\"\nclients = 120000\n".repeat(2);
        assert!(
            parsed(&large)
                .expect_err("large")
                .contains("240000 clients together")
        );
        let many = "[[workload]]\nkind = \"lobby\"\nclients = 1\n".repeat(33);
        assert!(parsed(&many).expect_err("many").contains("33 workloads"));
        assert!(matches!(
            read(Path::new("/nowhere/mix.toml"), 1),
            Err(MixError::Read { .. })
        ));
    }
}
