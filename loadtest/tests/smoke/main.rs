//! The load generator against a real server: figures, thresholds, exit statuses, and that no process is left
//! running.

mod chaos;
mod compare;
mod exit_statuses;
mod many;
mod running_server;
mod workloads;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const LOADTEST: &str = env!("CARGO_BIN_EXE_forkade-loadtest");

/// The results of a load test that has ended.
struct Run {
    status: Option<i32>,
    stdout: String,
    stderr: String,
    json: Value,
}

impl Run {
    fn number(&self, pointer: &str) -> f64 {
        let value = self.json.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("{pointer} is no number in {:#}", self.json))
    }

    /// The timeline has a point for each second. The rest of an interval at the end may add one. A load
    /// generator that stalled for most of a second has left that one out.
    fn assert_timeline(&self) {
        let points = self.json["timeline"].as_array().expect("a list");
        let ends: Vec<f64> = points
            .iter()
            .map(|point| point["seconds"].as_f64().expect("a time"))
            .collect();
        let load_seconds = self.number("/load_seconds");
        let stalled = self.number("/load_generator/lag_ms_max") > 800.0;
        let least = if stalled { 1.0 } else { load_seconds.floor() };
        let told = format!("{ends:?} of {load_seconds}: {}", self.stdout);
        assert!(
            (least..=load_seconds + 1.0).contains(&(ends.len() as f64)),
            "{told}"
        );
        assert!(ends.is_sorted_by(|one, next| next - one >= 0.1), "{told}");
        assert!(ends[0] >= 1.0 && ends[ends.len() - 1] <= load_seconds, "{told}");
    }

    /// Nothing was lost, duplicated, reordered, altered or disconnected.
    fn assert_flawless(&self) {
        assert_eq!(self.status, Some(0), "{}\n{}", self.stdout, self.stderr);
        for figure in [
            "/lost",
            "/duplicated",
            "/reordered",
            "/mismatches",
            "/rejected",
            "/disconnects",
            "/resyncs",
            "/sessions_lost",
        ] {
            assert_eq!(
                self.number(figure),
                0.0,
                "{figure}: {}\n{}",
                self.stdout,
                self.stderr
            );
        }
    }
}

/// Runs the load test to its end. `name` is that of the test.
fn run(name: &str, arguments: &[&str]) -> Run {
    let json = temporary(name, "json");
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(LOADTEST)
        .args(arguments)
        .arg("--json")
        .arg(&json)
        .output()
        .expect("it can be started");
    Run {
        status: status.code(),
        stdout: String::from_utf8(stdout).expect("text"),
        stderr: String::from_utf8(stderr).expect("text"),
        json: fs::read(&json)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default(),
    }
}

fn temporary(name: &str, extension: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{extension}"))
}

/// A server that the test has started.
struct Server {
    process: Child,
    _stdout: BufReader<ChildStdout>,
    ready: Value,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new(LOADTEST)
            .args(["serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be started");
        let mut stdout = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a ready line");
        Self {
            process,
            _stdout: stdout,
            ready: serde_json::from_str(&line).expect("a ready line"),
        }
    }
}

impl Server {
    /// The address of its "game" or "console" port.
    fn address(&self, name: &str) -> &str {
        self.ready[name].as_str().expect("an address")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its other processes end with their root.
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }
}

/// Waits until `look` returns a value. The limit only keeps a failing test from hanging.
fn await_some<Thing>(look: impl Fn() -> Option<Thing>) -> Thing {
    let began = Instant::now();
    loop {
        match look() {
            Some(thing) => return thing,
            None => assert!(began.elapsed() < Duration::from_secs(120), "it does not come"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
