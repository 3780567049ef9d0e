//! The audit log: a file with one line of JSON for each act of an operator.
//!
//! The file is opened for each line, so that whoever rotates it need not tell the server. A line is one write behind
//! the end of the file, so that lines of several processes do not mix.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::json;

use crate::logging::line::Timestamp;

/// Opens the file, and creates it if there is none. Never waits for the other end of a pipe.
///
/// # Errors
///
/// What open(2) says.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

/// Appends the line about an act.
///
/// # Errors
///
/// If the file cannot be opened, or does not take the whole line.
pub(crate) fn append(path: &Path, peer: &str, command: &str, outcome: &str) -> io::Result<()> {
    let time = Timestamp::now().to_string();
    let act = json!({ "time": time, "peer": peer, "command": command, "outcome": outcome });
    let line = format!("{act}\n");
    match open(path)?.write(line.as_bytes())? {
        written if written == line.len() => Ok(()),
        written => Err(io::Error::other(format!(
            "only {written} of {} bytes were written",
            line.len()
        ))),
    }
}
