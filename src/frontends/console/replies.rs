//! Replies on their way out: lines, objects and lists, for people or for programs, given piece by piece.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;

use serde_json::Value;

use crate::frontends::console::commands::Form;
use crate::frontends::console::queries::List;
use crate::state::handle::StateHandle;
use forkade_text::escape::Escaped;

/// What ends each line. Telnet wants both characters, and scripts do not mind.
pub(crate) const LINE_END: &str = "\r\n";

/// The last line of a reply to a command that was done.
pub(crate) const OK: &str = "OK";

/// A reply of which a part is still to be given.
pub(crate) enum Reply {
    Lines(Vec<String>),
    List {
        list: List,
        form: Form,
        /// How many rows were given; nothing before the first piece.
        given: Option<usize>,
    },
}

impl Reply {
    /// Text of our own.
    pub(crate) fn lines(lines: Vec<String>) -> Self {
        Self::Lines(lines)
    }

    /// One thing's values by their names.
    pub(crate) fn object(fields: &[(&str, Value)], form: Form) -> Self {
        Self::Lines(match form {
            Form::Json => vec![json_object(fields.iter().map(|(key, value)| (*key, value)))],
            Form::Table => fields
                .iter()
                .flat_map(|(key, value)| table_lines(key, value))
                .collect(),
        })
    }

    /// Many things of one kind.
    pub(crate) fn list(list: List, form: Form) -> Self {
        Self::List {
            list,
            form,
            given: None,
        }
    }

    /// Gives the next piece; says whether there is another one.
    pub(crate) fn give_more(&mut self, lobby: &mut StateHandle, output: &mut VecDeque<u8>) -> bool {
        let mut piece = String::new();
        let more = match self {
            Self::Lines(lines) => {
                for line in lines {
                    piece.push_str(line);
                    piece.push_str(LINE_END);
                }
                false
            }
            Self::List { list, form, given } => {
                let rows = (list.next)(lobby);
                let more = rows.is_some();
                let rows = rows.unwrap_or_default();
                match form {
                    Form::Json => write_json(&mut piece, list, &rows, given.unwrap_or(0), more),
                    Form::Table => write_table(&mut piece, list, &rows, given.is_none()),
                }
                *given = Some(given.unwrap_or(0) + rows.len());
                more
            }
        };
        if !more {
            piece.push_str(OK);
            piece.push_str(LINE_END);
        }
        output.extend(piece.as_bytes());
        more
    }
}

fn write_json(piece: &mut String, list: &List, rows: &[Vec<Value>], given: usize, more: bool) {
    for (number, row) in (given..).zip(rows) {
        let keys = list.columns.iter().map(|(key, _)| *key);
        piece.push(if number == 0 { '[' } else { ',' });
        piece.push_str(&json_object(keys.zip(row)));
    }
    if !more {
        piece.push_str(if given + rows.len() == 0 { "[]" } else { "]" });
        piece.push_str(LINE_END);
    }
}

/// One value for people: beside its name, or, where it has several lines, below it.
fn table_lines(key: &str, value: &Value) -> Vec<String> {
    let below = |lines: Vec<String>| {
        let indented = lines.into_iter().map(|line| format!("  {line}"));
        std::iter::once(key.to_owned()).chain(indented).collect()
    };
    match value {
        Value::Array(values) if values.iter().any(Value::is_object) => {
            below(values.iter().map(|value| shown(value).into_owned()).collect())
        }
        Value::String(text) if text.contains('\n') => {
            below(text.lines().map(|line| Escaped(line).to_string()).collect())
        }
        value => vec![format!("{key:<32}{}", shown(value))],
    }
}

fn json_object<'v>(fields: impl Iterator<Item = (&'v str, &'v Value)>) -> String {
    let mut object = String::new();
    for (key, value) in fields {
        let before = if object.is_empty() { '{' } else { ',' };
        // Keys are ours: plain words. Values write themselves as JSON.
        let _ = write!(object, "{before}\"{key}\":{}", harmless(value));
    }
    object + "}"
}

fn write_table(piece: &mut String, list: &List, rows: &[Vec<Value>], with_head: bool) {
    if with_head {
        write_cells(
            piece,
            list,
            list.columns.iter().map(|(key, _)| Cow::Borrowed(*key)),
        );
    }
    for row in rows {
        write_cells(piece, list, row.iter().map(shown));
    }
}

fn write_cells<'c>(piece: &mut String, list: &List, cells: impl Iterator<Item = Cow<'c, str>>) {
    let mut line = String::new();
    for ((_, width), cell) in list.columns.iter().zip(cells) {
        // Two blanks keep apart even what is wider than its column.
        let _ = write!(line, "{cell:<width$}  ");
    }
    piece.push_str(line.trim_end());
    piece.push_str(LINE_END);
}

/// The value with every text in it escaped, line by line. JSON escapes some characters itself, but none that reorder text.
fn harmless(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let lines: Vec<String> = text.split('\n').map(|line| Escaped(line).to_string()).collect();
            Value::String(lines.join("\n"))
        }
        Value::Array(values) => values.iter().map(harmless).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), harmless(value)))
            .collect(),
        other => other.clone(),
    }
}

/// A value for people. Texts are escaped here whatever they are, and once more is the same as once.
fn shown(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed("-"),
        Value::String(text) => Cow::Owned(Escaped(text).to_string()),
        Value::Array(values) if values.is_empty() => Cow::Borrowed("-"),
        Value::Object(fields) => {
            let field = |(key, value): &(&String, &Value)| format!("{key} {}", shown(value));
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key != "seat");
            Cow::Owned(fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        Value::Array(values) => Cow::Owned(values.iter().map(shown).collect::<Vec<_>>().join(", ")),
        other => Cow::Owned(other.to_string()),
    }
}
