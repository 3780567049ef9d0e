//! Promise: each act of an operator has one line in the audit log, and no act depends on whether it can be written.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::common::{Server, command, eventually};

/// A folder of the test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("forkade-audit-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The lines of an audit log.
fn lines(path: impl AsRef<Path>) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("there is an audit log");
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(parse).collect()
}

/// Commands and outcomes.
fn acts(lines: &[Value]) -> Vec<(&str, &str)> {
    fn text(value: &Value) -> &str {
        value.as_str().expect("a text")
    }
    lines
        .iter()
        .map(|line| (text(&line["command"]), text(&line["outcome"])))
        .collect()
}

#[test]
fn each_act_has_one_line_and_queries_have_none() {
    let folder = Folder::new();
    let log = folder.file("audit");
    let mut server = Server::start(&["--audit-log", &log]);
    server.client("Ann");
    for query in [
        "status",
        "players",
        "bans --json",
        "log",
        "help",
        "config",
        "ping",
        "password secret",
    ] {
        server.ask(query);
    }
    server.try_ask("trace nobody").expect_err("not here");
    server.try_ask("nonsense").expect_err("no command");
    server.try_ask("ban").expect_err("no name");
    assert_eq!(lines(&log), Vec::<Value>::new());
    server.ask("kick Ann");
    server.try_ask("kick Nobody").expect_err("not here");
    server.ask("  ban Ann \"Lee\"  10m ");
    server.ask("mute Bob");
    server.ask("unban bob");
    server.ask("say We close \u{e4}t ten.");
    server.ask("log debug");
    server.ask("drain 600");
    server.ask("drain off");
    server.ask("stop");
    assert!(server.wait().success());
    let written = lines(&log);
    assert_eq!(
        acts(&written),
        [
            ("kick Ann", "OK"),
            ("kick Nobody", "ERR no player has that name"),
            ("ban Ann \"Lee\"  10m", "OK"),
            ("mute Bob", "OK"),
            ("unban bob", "OK"),
            ("say We close \u{e4}t ten.", "OK"),
            ("log debug", "OK"),
            ("drain 600", "OK"),
            ("drain off", "OK"),
            ("stop", "OK"),
        ]
    );
    for line in &written {
        assert!(
            line["peer"].as_str().expect("a text").starts_with("127.0.0.1:"),
            "{line}"
        );
        let time = line["time"].as_str().expect("a text");
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert_eq!(line.as_object().map(serde_json::Map::len), Some(4));
    }
    let mode = fs::metadata(&log).expect("there is a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_act_on_the_unix_socket_names_user_and_process() {
    let folder = Folder::new();
    let (log, socket) = (folder.file("audit"), folder.file("console"));
    let unix = format!("unix:{socket}");
    let server = Server::start(&[
        "--audit-log",
        &log,
        "--console",
        "127.0.0.1:0",
        "--console",
        &unix,
    ]);
    let mut console = UnixStream::connect(&socket).expect("the console accepts");
    console.write_all(b"say hi\n").expect("it reads");
    let mut reply = String::new();
    BufReader::new(&console)
        .read_line(&mut reply)
        .expect("it replies");
    assert_eq!(reply, "OK\n");
    let written = lines(&log);
    assert_eq!(acts(&written), [("say hi", "OK")]);
    let peer = written[0]["peer"].as_str().expect("a text");
    assert!(peer.contains(&std::process::id().to_string()), "{peer}");
    server.expect_no_errors();
}

#[test]
fn a_file_that_was_moved_away_is_made_again() {
    let folder = Folder::new();
    let (log, moved) = (folder.file("audit"), folder.file("audit.1"));
    let server = Server::start(&["--audit-log", &log]);
    server.ask("say one");
    fs::rename(&log, &moved).expect("it can be moved");
    server.ask("say two");
    assert_eq!(acts(&lines(&moved)), [("say one", "OK")]);
    assert_eq!(acts(&lines(&log)), [("say two", "OK")]);
}

#[test]
fn an_act_goes_on_when_the_disk_is_full_and_is_counted() {
    let server = Server::start(&["--audit-log", "/dev/full"]);
    for number in 1..=3 {
        server.ask(&format!("ban Ann {number}h"));
        assert_eq!(server.status("audit_lines_lost_total"), number);
    }
    assert_eq!(server.ask_json("bans").as_array().map(Vec::len), Some(1));
    server.expect_logged("an act of an operator is not in the audit log /dev/full: No space left");
}

#[test]
fn an_act_goes_on_without_the_folder_and_is_counted() {
    let folder = Folder::new();
    let inner = folder.0.join("inner");
    fs::create_dir(&inner).expect("a folder can be made");
    let log = inner.join("audit");
    let server = Server::start(&["--audit-log", log.to_str().expect("UTF-8")]);
    fs::remove_dir_all(&inner).expect("it can be removed");
    server.ask("ban Ann");
    assert_eq!(server.status("audit_lines_lost_total"), 1);
    server.ask("say I am back");
    fs::create_dir(&inner).expect("a folder can be made");
    eventually("acts are written again", || {
        server.ask("say I am back");
        log.exists()
    });
    assert_eq!(acts(&lines(&log)), [("say I am back", "OK")]);
}

#[test]
fn the_server_does_not_start_with_an_audit_log_that_it_cannot_write() {
    let folder = Folder::new();
    for path in [folder.file("missing/audit"), folder.file("")] {
        let mut refused = command(&["--audit-log", &path]);
        let refused = refused.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut refused = refused.spawn().expect("it can be run");
        let mut ready = String::new();
        let stdout = refused.stdout.take().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut ready)
            .expect("it can be read");
        if !ready.is_empty() {
            refused.kill().expect("it is a child");
            panic!("the server has started: {ready}");
        }
        let refused = refused.wait_with_output().expect("it is a child");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("cannot write the audit log"), "{said}");
    }
}
