//! Replies: lines, objects and lists, as a table or as JSON, written piece by piece.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;

use serde_json::Value;

use crate::frontends::console::commands::Format;
use crate::frontends::console::queries::{Column, JSON_ONLY, List};
use crate::state::handle::StateHandle;
use forkade_text::escape::Escaped;

/// The last line of the reply to a successful command.
pub(crate) const OK: &str = "OK";

/// A reply that is not completely written yet.
pub(crate) enum Reply {
    Lines(Vec<String>),
    List {
        list: List,
        format: Format,
        /// Rows written so far; `None` before the first piece.
        rows_written: Option<usize>,
    },
}

impl Reply {
    /// Lines of the console's own text.
    pub(crate) fn lines(lines: Vec<String>) -> Self {
        Self::Lines(lines)
    }

    /// The fields of one object.
    pub(crate) fn object(fields: &[(&str, Value)], format: Format) -> Self {
        Self::Lines(match format {
            Format::Json => vec![json_object(fields.iter().map(|(key, value)| (*key, value)))],
            Format::Table => fields
                .iter()
                .flat_map(|(key, value)| table_lines(key, value))
                .collect(),
        })
    }

    /// The rows of a list.
    pub(crate) fn list(list: List, format: Format) -> Self {
        Self::List {
            list,
            format,
            rows_written: None,
        }
    }

    /// Appends the next piece to `output`; each of its lines ends in `line_end`. `true`: more pieces follow.
    pub(crate) fn write_next(
        &mut self,
        lobby: &mut StateHandle,
        line_end: &str,
        output: &mut VecDeque<u8>,
    ) -> bool {
        let mut text = String::new();
        let more = match self {
            Self::Lines(lines) => {
                for line in lines {
                    text.push_str(line);
                    text.push('\n');
                }
                false
            }
            Self::List {
                list,
                format,
                rows_written,
            } => {
                let rows = (list.next)(lobby);
                let more = rows.is_some();
                let rows = rows.unwrap_or_default();
                match format {
                    Format::Json => write_json(&mut text, list, &rows, rows_written.unwrap_or(0), more),
                    Format::Table => write_table(&mut text, list, &rows, rows_written.is_none()),
                }
                *rows_written = Some(rows_written.unwrap_or(0) + rows.len());
                more
            }
        };
        if !more {
            text.push_str(OK);
            text.push('\n');
        }
        output.extend(text.replace('\n', line_end).as_bytes());
        more
    }
}

fn write_json(text: &mut String, list: &List, rows: &[Vec<Value>], rows_written: usize, more: bool) {
    for (number, row) in (rows_written..).zip(rows) {
        let keys = list.columns.iter().map(|(key, _)| *key);
        text.push(if number == 0 { '[' } else { ',' });
        text.push_str(&json_object(keys.zip(row)));
    }
    if !more {
        text.push_str(if rows_written + rows.len() == 0 { "[]" } else { "]" });
        text.push('\n');
    }
}

/// One field in a table: the value beside its name, or below it if the value has several lines.
fn table_lines(key: &str, value: &Value) -> Vec<String> {
    let below = |lines: Vec<String>| {
        let indented = lines.into_iter().map(|line| format!("  {line}"));
        std::iter::once(key.to_owned()).chain(indented).collect()
    };
    match value {
        Value::Array(values) if values.iter().any(Value::is_object) => below(
            values
                .iter()
                .map(|value| display_value(value).into_owned())
                .collect(),
        ),
        Value::String(text) if text.contains('\n') => {
            below(text.lines().map(|line| Escaped(line).to_string()).collect())
        }
        value => vec![format!("{key:<32}{}", display_value(value))],
    }
}

fn json_object<'v>(fields: impl Iterator<Item = (&'v str, &'v Value)>) -> String {
    let mut object = String::new();
    for (key, value) in fields {
        let before = if object.is_empty() { '{' } else { ',' };
        // Keys are the console's own plain words and need no escaping.
        let _ = write!(object, "{before}\"{key}\":{}", escaped_value(value));
    }
    object + "}"
}

fn write_table(text: &mut String, list: &List, rows: &[Vec<Value>], with_head: bool) {
    if with_head {
        write_cells(
            text,
            list,
            list.columns.iter().map(|(key, _)| Cow::Borrowed(*key)),
        );
    }
    for row in rows {
        write_cells(text, list, row.iter().map(display_value));
    }
}

fn write_cells<'c>(text: &mut String, list: &List, cells: impl Iterator<Item = Cow<'c, str>>) {
    let mut line = String::new();
    let in_table = |((_, width), _): &(&Column, _)| *width != JSON_ONLY;
    for ((_, width), cell) in list.columns.iter().zip(cells).filter(in_table) {
        // Two spaces separate even cells that are wider than their column.
        let _ = write!(line, "{cell:<width$}  ");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// The value with every text in it escaped, line by line. JSON itself escapes no characters that reorder text.
fn escaped_value(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let lines: Vec<String> = text.split('\n').map(|line| Escaped(line).to_string()).collect();
            Value::String(lines.join("\n"))
        }
        Value::Array(values) => values.iter().map(escaped_value).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), escaped_value(value)))
            .collect(),
        other => other.clone(),
    }
}

/// A value for people. All texts are escaped; escaping twice gives the same result as escaping once.
fn display_value(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed("-"),
        Value::String(text) => Cow::Owned(Escaped(text).to_string()),
        Value::Array(values) if values.is_empty() => Cow::Borrowed("-"),
        Value::Object(fields) => {
            let field = |(key, value): &(&String, &Value)| format!("{key} {}", display_value(value));
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key != "seat");
            Cow::Owned(fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        Value::Array(values) => Cow::Owned(values.iter().map(display_value).collect::<Vec<_>>().join(", ")),
        other => Cow::Owned(other.to_string()),
    }
}
