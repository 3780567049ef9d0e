//! The real load generator against a real server: figures, thresholds, exit status, and that nothing is left running.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const LOADTEST: &str = env!("CARGO_BIN_EXE_forkade-loadtest");

/// What a finished load test left behind.
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

    /// Nothing was lost, doubled, disordered, altered or disconnected.
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

/// Runs the load test to its end. `name` is the test's.
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

#[test]
fn ten_relay_clients_receive_everything_once_and_in_order() {
    let run = run(
        "relay",
        &[
            "--clients",
            "10",
            "--rate",
            "20",
            "--duration",
            "2",
            "--payload",
            "200",
        ],
    );
    run.assert_flawless();
    assert_eq!(run.number("/sent"), 10.0 * 20.0 * 2.0);
    assert_eq!(run.number("/received"), 2.0 * run.number("/sent"));
    assert!(run.number("/joins_per_second") > 0.0);
    for pair in ["p50", "p90", "p99", "p999", "max"].windows(2) {
        let percentile = |name| run.number(&format!("/latency_ms/{name}"));
        assert!(percentile(pair[0]) <= percentile(pair[1]));
    }
    assert!(run.number("/latency_ms/p50") > 0.0);
    assert!(
        run.number("/server/processes") >= 10.0 + 4.0,
        "one for each client, and the roles"
    );
    assert!(run.number("/server/memory_kib_per_client") > 10.0);
    assert!(run.number("/server/cpu_percent") >= 0.0);
    assert_eq!(run.number("/takeovers"), 0.0);
    assert!(
        run.stdout.contains("0 lost, 0 duplicated, 0 reordered"),
        "{}",
        run.stdout
    );
}

#[test]
fn large_rooms_and_a_closed_loop_lose_nothing() {
    let run = run(
        "closed_loop",
        &[
            "--rooms",
            "2",
            "--room-size",
            "5",
            "--rate",
            "0",
            "--duration",
            "2",
        ],
    );
    run.assert_flawless();
    assert!(run.number("/sent") > 10.0);
    assert_eq!(run.number("/received"), 5.0 * run.number("/sent"));
}

#[test]
fn ten_tictactoe_clients_play_matches_to_their_right_ends() {
    let run = run(
        "tictactoe",
        &[
            "--workload",
            "tictactoe",
            "--clients",
            "10",
            "--rate",
            "0",
            "--duration",
            "2",
        ],
    );
    run.assert_flawless();
    assert!(run.number("/matches") >= 5.0, "{}", run.stdout);
    assert_eq!(run.number("/received"), 2.0 * run.number("/sent"));
}

#[test]
fn handlers_killed_meanwhile_cost_nothing() {
    let run = run(
        "kills",
        &[
            "--clients",
            "10",
            "--rate",
            "50",
            "--duration",
            "3",
            "--kill-handlers-per-second",
            "5",
        ],
    );
    run.assert_flawless();
    assert!(run.number("/handlers_killed") >= 1.0);
    assert!(run.number("/takeovers") >= 1.0);
}

#[test]
fn a_broken_threshold_is_said_and_decides_the_exit_status() {
    let short = ["--clients", "2", "--duration", "0.2"];
    let kept = run(
        "kept",
        &[&short[..], &["--max-lost", "0", "--max-p99-ms", "60000"]].concat(),
    );
    assert_eq!(kept.status, Some(0), "{}\n{}", kept.stdout, kept.stderr);
    let broken = run(
        "broken",
        &[&short[..], &["--min-received", "1000000000"]].concat(),
    );
    assert_eq!(broken.status, Some(1), "{}", broken.stderr);
    assert!(
        broken
            .stdout
            .contains("messages received, at least 1000000000 wanted"),
        "{}",
        broken.stdout
    );
    assert_eq!(
        broken
            .json
            .pointer("/failures")
            .and_then(Value::as_array)
            .map(Vec::len),
        Some(1)
    );
}

#[test]
fn arguments_that_make_no_sense_are_refused_before_anything_starts() {
    for (arguments, reason) in [
        (&["--no-such-option"][..], "--no-such-option"),
        (&["--clients", "-3"], "--clients"),
        (&["--clients", "3"], "do not fill"),
        (&["--workload", "chess"], "chess"),
        (&["--server", "192.0.2.1:4000"], "--allow-remote"),
        (&["--payload", "100000"], "--payload"),
        (&["serve me"], "serve me"),
    ] {
        let run = run("refused", arguments);
        assert_eq!(run.status, Some(2), "{arguments:?}");
        assert!(run.stderr.contains(reason), "{arguments:?}: {}", run.stderr);
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn a_server_that_does_not_start_or_is_not_there_is_no_measurement() {
    let log = temporary("no_start", "log");
    let log = log.to_str().expect("a path in UTF-8");
    let bad_argument = run(
        "no_start",
        &["--server-arg=--no-such-option", "--server-log", log],
    );
    assert_eq!(bad_argument.status, Some(2));
    assert!(
        bad_argument.stderr.contains("ended before it was ready"),
        "{}",
        bad_argument.stderr
    );
    assert!(
        fs::read_to_string(log)
            .expect("a log")
            .contains("--no-such-option")
    );

    // A port that was free a moment ago, and outside of those that are given out.
    let nobody_there = run("nobody_there", &["--server", "127.0.0.1:1"]);
    assert_eq!(nobody_there.status, Some(2));
    assert!(nobody_there.stderr.contains("refused"), "{}", nobody_there.stderr);
}

/// A server of the test's own.
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

impl Drop for Server {
    fn drop(&mut self) {
        // Its processes see their root's end and follow.
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }
}

#[test]
fn a_running_server_is_measured_with_and_without_its_console() {
    let server = Server::start();
    let address = |name| server.ready[name].as_str().expect("an address");
    let short = ["--clients", "4", "--duration", "1", "--server", address("game")];
    let without = run("foreign", &short);
    without.assert_flawless();
    assert!(without.json.pointer("/takeovers").is_some_and(Value::is_null));
    assert!(
        without
            .json
            .pointer("/server/processes")
            .is_some_and(Value::is_null)
    );
    let with = run(
        "foreign_console",
        &[&short[..], &["--console", address("console")]].concat(),
    );
    with.assert_flawless();
    assert_eq!(with.number("/takeovers"), 0.0);
    assert!(with.number("/server/processes") >= 4.0 + 4.0);
}

/// Relays between clients and the server at `server`, and cuts every connection after so many bytes to the client.
/// Gives its address.
fn cutting_proxy(server: String, bytes: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (
                client.expect("a client"),
                TcpStream::connect(&server).expect("the server"),
            );
            let (mut from_client, mut to_server) = (copy_of(&client), copy_of(&server));
            std::thread::spawn(move || io::copy(&mut from_client, &mut to_server));
            std::thread::spawn(move || {
                // Whichever end fails first: both sides see a connection that is gone.
                let _ = io::copy(&mut copy_of(&server).take(bytes), &mut copy_of(&client));
                let _ = (server.shutdown(Shutdown::Both), client.shutdown(Shutdown::Both));
            });
        }
    });
    address
}

fn copy_of(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a descriptor")
}

#[test]
fn clients_whose_connections_are_cut_in_mid_frame_come_back_and_miss_nothing() {
    let server = Server::start();
    let proxy = cutting_proxy(
        server.ready["game"].as_str().expect("an address").to_owned(),
        3001,
    );
    let run = run(
        "cuts",
        &[
            "--server",
            &proxy,
            "--clients",
            "10",
            "--rate",
            "50",
            "--duration",
            "3",
            "--max-lost",
            "0",
        ],
    );
    assert_eq!(run.status, Some(0), "{}\n{}", run.stdout, run.stderr);
    assert!(run.number("/resumes") >= 10.0, "{}", run.stdout);
    for figure in [
        "/lost",
        "/duplicated",
        "/reordered",
        "/mismatches",
        "/resyncs",
        "/sessions_lost",
    ] {
        assert_eq!(run.number(figure), 0.0, "{figure}: {}", run.stdout);
    }
}

/// Pids of the processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let stats = fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        Some((pid, parent))
    });
    stats
        .filter(|(_, of)| *of == parent)
        .map(|(pid, _)| pid)
        .collect()
}

#[test]
fn a_killed_load_generator_takes_its_server_with_it() {
    let mut loadtest = Command::new(LOADTEST)
        .args(["--clients", "2", "--duration", "600"])
        .stdout(Stdio::null())
        .spawn()
        .expect("it can be started");
    let server = await_some(|| {
        let server = *children(loadtest.id()).first()?;
        (!children(server).is_empty()).then_some(server)
    });
    loadtest.kill().expect("it runs");
    loadtest.wait().expect("it ends");
    // Whoever adopts the server may be slow to reap it.
    await_some(|| match fs::read_to_string(format!("/proc/{server}/stat")) {
        Ok(stat) => stat
            .rsplit_once(')')?
            .1
            .trim_start()
            .starts_with('Z')
            .then_some(()),
        Err(_) => Some(()),
    });
}

/// Waits until there is something. The limit only keeps a failing test from hanging.
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
