//! The log of a server that this program started: where it goes, and its last lines, which tell why the
//! server did not start or ended.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many of the last lines are shown.
const LINES_SHOWN: usize = 12;
/// The last lines are searched within this many bytes at the end of a file. A line that is kept is at most as
/// long.
const TAIL_BYTES: u64 = 8 * 1024;
/// How long to wait until the reader has read all that an ended server left in the pipe. It reads to the end
/// of the pipe; the limit is for a pipe that another process still holds open.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// The same for a running server, whose pipe has no end yet.
pub(crate) const READ_TIMEOUT_RUNNING: Duration = Duration::from_secs(1);

/// The file for the log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the server's log to {path}: {cause}")]
pub(crate) struct LogError {
    path: PathBuf,
    cause: io::Error,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) enum ServerLog {
    /// The log goes to stderr, where it is visible already.
    Stderr,
    /// The log is appended to a file, from offset `begins_at`.
    File { path: PathBuf, begins_at: u64 },
    /// The log is read from a pipe, and only its end is kept.
    Piped {
        lines: Arc<Mutex<VecDeque<String>>>,
        reader: Option<JoinHandle<()>>,
    },
}

impl ServerLog {
    /// Opens the file that `--server-log` names. Also returns the stderr to give to the server.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn open(path: Option<&Path>) -> Result<(Self, Stdio), LogError> {
        match path {
            None => {
                let lines = Arc::default();
                Ok((Self::Piped { lines, reader: None }, Stdio::piped()))
            }
            Some(path) if path == Path::new("-") => Ok((Self::Stderr, Stdio::inherit())),
            Some(path) => {
                let open = || {
                    let mut file = File::options().append(true).create(true).open(path)?;
                    Ok((file.seek(SeekFrom::End(0))?, file))
                };
                let (begins_at, file) = open().map_err(|cause| LogError {
                    path: path.to_owned(),
                    cause,
                })?;
                let path = path.to_owned();
                Ok((Self::File { path, begins_at }, file.into()))
            }
        }
    }

    /// Starts to read the server's stderr if it is a pipe.
    pub(crate) fn read_pipe(&mut self, pipe: Option<ChildStderr>) {
        let (Self::Piped { lines, reader }, Some(pipe)) = (self, pipe) else {
            return;
        };
        let lines = lines.clone();
        *reader = Some(std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            // A read error ends the log, too.
            while let Ok(1..) = pipe.by_ref().take(TAIL_BYTES).read_until(b'\n', &mut line) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == LINES_SHOWN {
                    lines.pop_front();
                }
                lines.push_back(text);
                line.clear();
            }
        }));
    }

    /// The last lines with a heading, or `None` if there are none. Waits for the end of the log, but not
    /// longer than `timeout`.
    pub(crate) fn tail(&self, timeout: Duration) -> Option<String> {
        let lines: Vec<String> = match self {
            Self::Stderr => return None,
            Self::File { path, begins_at } => tail_of_file(path, *begins_at).unwrap_or_default(),
            Self::Piped { lines, reader } => {
                let began = Instant::now();
                // If the server has ended, the reader is about to reach the end.
                while reader.as_ref().is_some_and(|reader| !reader.is_finished()) && began.elapsed() < timeout
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.iter().cloned().collect()
            }
        };
        (!lines.is_empty()).then(|| format!("The last lines of the server's log:\n  {}", lines.join("\n  ")))
    }
}

fn tail_of_file(path: &Path, begins_at: u64) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(begins_at.max(end.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
    Ok(shown.iter().map(|line| (*line).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::Command;

    #[test]
    fn the_end_of_a_file_is_shown_without_the_lines_of_earlier_runs() {
        let path = std::env::temp_dir().join(format!("forkade-loadtest-{}.log", std::process::id()));
        std::fs::write(&path, "an earlier run\n").expect("a file");
        let (log, _) = ServerLog::open(Some(&path)).expect("it opens");
        assert_eq!(log.tail(READ_TIMEOUT), None);
        let mut file = File::options().append(true).open(&path).expect("it opens");
        (0..20).for_each(|line| writeln!(file, "line {line}").expect("it is written"));
        let text = log.tail(READ_TIMEOUT).expect("lines");
        std::fs::remove_file(&path).expect("it is there");
        assert!(
            !text.contains("an earlier run") && !text.contains("line 7\n"),
            "{text}"
        );
        assert!(text.contains("line 8\n") && text.ends_with("line 19"), "{text}");
    }

    #[test]
    fn without_a_file_the_last_lines_are_kept() {
        let (mut log, stderr) = ServerLog::open(None).expect("nothing to open");
        let script = "for line in $(seq 30); do echo line $line >&2; done";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stderr(stderr)
            .spawn()
            .expect("a shell");
        log.read_pipe(child.stderr.take());
        child.wait().expect("it ends");
        let text = log.tail(READ_TIMEOUT).expect("lines");
        assert!(
            !text.contains("line 18\n") && text.contains("line 19\n") && text.ends_with("line 30"),
            "{text}"
        );
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error_that_names_it() {
        let error = ServerLog::open(Some(Path::new("/nowhere/log"))).expect_err("no such folder");
        assert!(error.to_string().contains("/nowhere/log"));
    }
}
