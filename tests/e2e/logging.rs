//! Promise: a log record is one line that names the role and pid of its writer, no client's input can forge one, and an
//! unread log delays no player.

use std::io::{PipeReader, Read, pipe};
use std::net::Shutdown;
use std::process::Stdio;

use crate::common::control_pair::ControlPair;
use crate::common::raw_client::{RawClient, framed, handshake, handshake_preamble};
use crate::common::{Server, command, eventually, processes_below};
use forkade_protocol::client::NewRoom;
use forkade_protocol::{ChatScope, ErrorCode, RoomSettings};

const ROLES: [&str; 8] = [
    "supervisor",
    "ticker",
    "keeper",
    "listener",
    "handler",
    "reception",
    "console",
    "forkade",
];
const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/// A parsed log record.
#[derive(Debug)]
struct LogRecord<'l> {
    level: &'l str,
    role: &'l str,
    pid: u32,
    player: Option<String>,
    message: &'l str,
}

/// Parses a line; `None` if it is no complete record.
fn parse(line: &str) -> Option<LogRecord<'_>> {
    let (time, rest) = line.split_once(' ')?;
    let is_time = time.len() == "2026-01-31T23:59:59.999Z".len() && time.ends_with('Z');
    let (level, rest) = rest.split_once(' ')?;
    let (process, rest) = rest.trim_start().split_once("] ")?;
    let (role, pid) = process.split_once('[')?;
    let (player, rest) = match rest.strip_prefix("player=\"") {
        None => (None, rest),
        Some(rest) => {
            let (name, rest) = quoted(rest)?;
            (Some(name), rest.strip_prefix(' ')?)
        }
    };
    let (target, message) = rest.split_once(": ")?;
    let is_ours = LEVELS.contains(&level) && ROLES.contains(&role) && !target.contains(' ');
    let is_clean = !line.chars().any(char::is_control);
    (is_time && is_ours && is_clean).then_some(LogRecord {
        level,
        role,
        pid: pid.parse().ok()?,
        player,
        message,
    })
}

/// A quoted text, and the rest behind its closing quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((name, &text[at + 1..])),
            '\\' => name.push(characters.next()?.1),
            other => name.push(other),
        }
    }
    None
}

/// All records whose line is complete.
#[track_caller]
fn records(log: &str) -> Vec<LogRecord<'_>> {
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole
        .lines()
        .map(|line| parse(line).unwrap_or_else(|| panic!("no record: {line:?}")))
        .collect()
}

/// Connects, completes the handshake under this name, and sends an invalid message, so that the handler logs
/// why it closes.
fn provoke(server: &Server, name: &str) {
    let mut raw = RawClient::connect(server);
    raw.send(&[handshake(name), framed(&[0xff])].concat());
    raw.expect_error(ErrorCode::Malformed);
}

#[test]
fn each_record_is_one_line_with_role_and_pid_and_player() {
    let server = Server::start(&[]);
    let pids = processes_below(server.pid());
    let ann = server.client("Ann");
    let handler = server.handler_of("Ann").expect("she is served");
    server.kill(handler);
    provoke(&server, "Bob");
    let is_written = |wanted: &dyn Fn(&LogRecord<'_>) -> bool| records(&server.log()).iter().any(wanted);
    eventually("the keeper has logged the takeover", || {
        is_written(&|record| {
            record.role == "keeper"
                && record.level == "WARN"
                && pids.contains(&record.pid)
                && record.message.contains(&handler.to_string())
        })
    });
    eventually("the handler has logged why it closes", || {
        is_written(&|record| {
            record.role == "handler"
                && record.player.as_deref() == Some("Bob")
                && !pids.contains(&record.pid)
                && record.message.contains("Malformed")
        })
    });
    eventually("the supervisor has logged something", || {
        is_written(&|record| record.role == "supervisor" && record.pid == server.pid())
    });
    ann.goodbye().expect("served");
}

#[test]
fn nothing_a_client_sends_can_forge_a_record() {
    let server = Server::start(&["--log", "trace", "--seat-grace-ms", "0"]);
    let forged =
        "2026-01-01T00:00:00.000Z ERROR supervisor[1] forkade::testing::process::supervisor: the end is near";
    let names = [
        "a\" ERROR keeper[1] x",
        "\\\" INFO ticker[2] b",
        "a\nWARN listener[3] d",
        "\u{1b}[2K\r\u{202e}live",
        "\\",
    ];
    for name in names {
        provoke(&server, name);
        eventually("the name is free again", || server.status("players") == 0);
        let mut client = server.client(name);
        let room = NewRoom {
            settings: RoomSettings {
                passcode: Some("open-sesame".to_owned()),
                ..RoomSettings::default()
            },
            ..NewRoom::new("relay", format!("r\n{name}"))
        };
        client.create_room(room).expect("a room is free");
        client
            .chat(ChatScope::Room, format!("\r\n{forged}\r\n"))
            .expect("in the room");
        client.act(format!("\n{forged}\n").into_bytes()).expect("legal");
        let rejected = client
            .quick_match(format!("\n{forged}\n"), vec![])
            .expect_err("no such game");
        assert!(rejected.reject_code().is_some());
        client.goodbye().expect("served");
    }
    for bytes in [forged.as_bytes(), b"\nERROR keeper[1] a: b\n", b"\xf7\n\n\n\n"] {
        let mut raw = RawClient::connect(&server);
        raw.send(bytes);
        // Input that is no preamble starts text mode, which lasts until the client disconnects.
        raw.stream.shutdown(Shutdown::Write).expect("it is connected");
        let mut answer = Vec::new();
        raw.stream
            .read_to_end(&mut answer)
            .expect("an answer, and the end");
    }
    let mut raw = RawClient::connect(&server);
    raw.send(&[&handshake_preamble()[..], &framed(forged.as_bytes())].concat());
    raw.rest();

    let names = names.map(|name| forkade_protocol::text::clean_player_name(name).expect("a name"));
    eventually("all names are in the log", || {
        let log = server.log();
        let players: Vec<String> = records(&log)
            .into_iter()
            .filter_map(|record| record.player)
            .collect();
        names.iter().all(|name| players.contains(name))
    });
    let log = server.log();
    let pids = [processes_below(server.pid()), vec![server.pid()]].concat();
    for record in records(&log) {
        assert!(!record.message.contains("the end is near"), "{record:?}");
        // Records of the server that name and run it are no forgeries; neither 1 nor 2 nor 3 is among them.
        assert!(
            record.pid > 3
                && (record.role == "handler" || record.role == "console" || pids.contains(&record.pid)),
            "{record:?}"
        );
    }
    assert!(!log.contains("open-sesame"), "a secret is in the log");
}

#[test]
fn the_log_contains_what_its_level_selects() {
    let levels_of = |level: &str| {
        let (mut server, mut reader) = unread(&["--log", level]);
        server.client("Ann").goodbye().expect("served");
        provoke(&server, "Bob");
        server.stop();
        let mut log = String::new();
        reader.read_to_string(&mut log).expect("UTF-8");
        assert!(
            log.is_empty() || log.ends_with('\n'),
            "the last line has no end: {log:?}"
        );
        let mut levels: Vec<String> = records(&log)
            .iter()
            .map(|record| record.level.to_owned())
            .collect();
        levels.sort_unstable();
        levels.dedup();
        levels
    };
    assert_eq!(levels_of("error"), [""; 0]);
    assert_eq!(levels_of("off"), [""; 0]);
    assert_eq!(levels_of("info"), ["INFO"]);
    assert_eq!(levels_of("debug"), ["DEBUG", "INFO"]);
}

/// A server whose log goes into a pipe that no process reads.
fn unread(arguments: &[&str]) -> (Server, PipeReader) {
    let (reader, writer) = pipe().expect("a pipe");
    let server = Server::run_with_stderr(&mut command(arguments), Stdio::from(writer));
    (server, reader)
}

#[test]
fn an_unread_log_delays_nobody_and_reports_lost_records_later() {
    let (mut server, mut reader) = unread(&["--seat-grace-ms", "0"]);
    let control_pair = ControlPair::start(&server);
    let mut visits = 0;
    while server.status("log_records_dropped_total") < 100 {
        for _ in 0..50 {
            provoke(&server, &format!("visitor {visits}"));
            visits += 1;
        }
    }
    control_pair.expect_progress();
    let victim = server.handler_of("control one").expect("served");
    server.kill(victim);
    control_pair.finish();

    // When reading begins, the pipe contains complete records, and later ones report how many are missing.
    let read = std::thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).expect("UTF-8");
        log
    });
    let mut late_visitors = 0;
    // Neither dropped, nor left out because there were many of its kind within a second.
    let lost = || ["log_records_dropped_total", "log_records_left_out_total"].map(|key| server.status(key));
    eventually("there is room again", || {
        let before = lost();
        provoke(&server, &format!("late visitor {late_visitors}"));
        late_visitors += 1;
        before == lost()
    });
    let dropped = server.status("log_records_dropped_total");
    assert!(server.stop().success());
    let log = read.join().expect("read to its end");
    let reported: u64 = records(&log)
        .iter()
        .filter_map(|record| dropped_before(record.message))
        .sum();
    assert_eq!(reported, dropped, "of what was lost");
    assert!(log.contains("player=\"late visitor"), "records get through again");
}

/// The number of lost records that a message reports.
fn dropped_before(message: &str) -> Option<u64> {
    let (_, report) = message.rsplit_once(" [")?;
    let count = report.strip_suffix(" dropped before this one]")?;
    count.split(' ').next()?.parse().ok()
}

#[test]
fn a_closed_log_pipe_stops_no_process() {
    let (mut server, reader) = unread(&["--seat-grace-ms", "0"]);
    drop(reader);
    let control_pair = ControlPair::start(&server);
    for visit in 0..20 {
        provoke(&server, &format!("visitor {visit}"));
    }
    control_pair.finish();
    assert!(server.stop().success());
}
