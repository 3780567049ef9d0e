//! The server's configuration.

use serde_json::{Value, json};

use crate::frontends::console::context::ConsoleContext;
use crate::frontends::console::queries::{Column, Fields, List, text};
use crate::logging;

const CONFIG: [Column; 4] = [("setting", 24), ("value", 24), ("source", 12), ("from", 32)];

/// The settings in effect with their values and the sources of these. They lie in shared memory: after an upgrade this
/// process may still run the program before.
pub(crate) fn config(context: ConsoleContext) -> List {
    let settings = context.memory.header.settings.read();
    // They are empty if they were too long to be entered. The supervisor has logged it then.
    let rows: Vec<[Option<String>; 4]> = serde_json::from_str(&settings).unwrap_or_default();
    let value = |value: &Option<String>| value.as_deref().map_or(Value::Null, text);
    let mut rows = Some(rows.iter().map(|row| row.iter().map(value).collect()).collect());
    List {
        columns: &CONFIG,
        next: Box::new(move |_| rows.take()),
    }
}

/// The level of the log.
pub(crate) fn log_level(context: ConsoleContext) -> Fields {
    vec![
        ("level", json!(logging::level().as_str().to_lowercase())),
        ("configured", json!(context.config.log.as_str().to_lowercase())),
    ]
}
