//! Exit statuses, final messages, and that no process is left running.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{LOADTEST, await_some, run, temporary};

#[test]
fn an_exceeded_threshold_is_reported_and_decides_the_exit_status() {
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
            .contains("messages received, at least 1000000000 required"),
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
fn invalid_arguments_are_refused_before_anything_starts() {
    let bad_mix = temporary("bad_mix", "toml");
    fs::write(&bad_mix, "[[workload]]\nkind = \"relay\"\nspeed = 3\n").expect("a file");
    let bad_mix = bad_mix.to_str().expect("a path in UTF-8");
    for (arguments, reason) in [
        (&["--no-such-option"][..], "--no-such-option"),
        (&["--clients", "-3"], "--clients"),
        (&["--clients", "3"], "do not fill"),
        (&["--workload", "chess"], "chess"),
        (&["--server", "192.0.2.1:4000"], "--allow-remote"),
        (&["--payload", "100000"], "--payload"),
        (&["--chaos", "supervisor=1/s"], "ends the server"),
        (&["--mix", bad_mix], "bad_mix.toml, line 3: unknown field `speed`"),
        (&["--report", "/nowhere/page.html"], "/nowhere/page.html"),
        (&["serve me"], "serve me"),
    ] {
        let run = run("refused", arguments);
        assert_eq!(run.status, Some(2), "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(reason), "{arguments:?}: {}", run.stderr);
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn without_a_server_nothing_is_measured() {
    let log = temporary("no_start", "log");
    let log = log.to_str().expect("a path in UTF-8");
    for arguments in [
        &["--server-arg=--no-such-option"][..],
        &["--server-arg=--no-such-option", "--server-log", log],
    ] {
        let run = run("no_start", arguments);
        assert_eq!(run.status, Some(3));
        assert!(run.stderr.contains("ended before it was ready"), "{}", run.stderr);
        let (_, log_tail) = run
            .stderr
            .split_once("of the server's log:")
            .expect("the end of the server's log");
        assert!(log_tail.contains("--no-such-option"), "{}", run.stderr);
    }

    // A port that no server uses, outside the range of ephemeral ports.
    let unreachable = run("unreachable", &["--server", "127.0.0.1:1"]);
    assert_eq!(unreachable.status, Some(3));
    assert!(
        unreachable
            .stderr
            .contains("reached at 127.0.0.1:1: cannot connect"),
        "{}",
        unreachable.stderr
    );
}

#[test]
fn an_interrupted_run_reports_what_it_has_measured_and_stops_its_server() {
    let json = temporary("interrupted", "json");
    let mut loadtest = Command::new(LOADTEST)
        .args(["--clients", "4", "--duration", "600", "--json"])
        .arg(&json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let mut progress = BufReader::new(loadtest.stderr.take().expect("a pipe")).lines();
    let load_has_begun = progress.any(|line| line.is_ok_and(|line| line.starts_with("load (")));
    assert!(load_has_begun, "the run ended before the load");
    let server = *children(loadtest.id()).first().expect("its server");
    // A part of the load.
    std::thread::sleep(Duration::from_millis(500));
    let kill = Command::new("kill")
        .args(["-INT", &loadtest.id().to_string()])
        .status();
    assert!(kill.expect("kill(1)").success());
    let output = loadtest.wait_with_output().expect("it ends");
    let stdout = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(130), "{stdout}");
    assert!(
        stdout.contains("interrupted: ") && stdout.contains("of 600 seconds"),
        "{stdout}"
    );
    let json: Value = serde_json::from_slice(&fs::read(&json).expect("figures")).expect("JSON");
    assert_eq!(json["interrupted"], Value::Bool(true));
    assert_eq!(
        (&json["lost"], &json["unsent"]),
        (&Value::from(0), &Value::from(0))
    );
    assert!(!std::path::Path::new(&format!("/proc/{server}")).exists());
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
    // The process that inherits the server may be slow to reap it.
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
