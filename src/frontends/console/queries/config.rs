//! The server's configuration.

use serde_json::{Value, json};

use crate::config::{ConfigSource, Setting, Settings};
use crate::frontends::console::context::ConsoleContext;
use crate::frontends::console::queries::{Column, Fields, List, Row, text};
use crate::logging;

const CONFIG: [Column; 4] = [("setting", 24), ("value", 24), ("source", 12), ("from", 32)];

/// The settings with their values and the sources of these.
pub(crate) fn config(context: ConsoleContext) -> List {
    let settings = context.settings;
    let mut rows: Option<Vec<Row>> = Some(settings.iter().map(|entry| row(settings, entry)).collect());
    List {
        columns: &CONFIG,
        next: Box::new(move |_| rows.take()),
    }
}

fn row(settings: &Settings, (setting, value, source): (&Setting, String, ConfigSource)) -> Row {
    let from = match source {
        ConfigSource::Default => Value::Null,
        ConfigSource::File => settings
            .file
            .as_ref()
            .map_or(Value::Null, |path| text(&path.display().to_string())),
        ConfigSource::Environment => json!(setting.variable()),
        ConfigSource::CommandLine => json!(format!("--{}", setting.flag)),
    };
    vec![
        json!(setting.key()),
        text(&value),
        json!(source.to_string()),
        from,
    ]
}

/// The level of the log.
pub(crate) fn log_level(context: ConsoleContext) -> Fields {
    vec![
        ("level", json!(logging::level().as_str().to_lowercase())),
        ("configured", json!(context.config.log.as_str().to_lowercase())),
    ]
}
