//! Promise: a mistake in the configuration, or a machine that cannot hold it, is reported at once with a
//! remedy. All mistakes are reported together, and the server does not start partially.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Server, WAIT_MAX, command, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The program, without this process's environment variables.
fn forkade(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forkade-under-test"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FORKADE_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// Exit status and output of a program.
#[derive(Debug)]
struct Ended {
    status: Option<i32>,
    out: String,
    err: String,
}

/// Runs a program that must end by itself.
#[track_caller]
fn run(command: &mut Command) -> Ended {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be run");
    let deadline = Instant::now() + WAIT_MAX;
    while child.try_wait().expect("it is a child").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("it runs");
            panic!("it does not end: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().expect("it has ended");
    let text = |bytes| String::from_utf8(bytes).expect("it speaks UTF-8");
    Ended {
        status: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Both `serve` and `check` refuse with status 2, and print all these words.
#[track_caller]
fn expect_refused(arguments: &[&str], environment: &[(&str, &str)], words: &[&str]) {
    for verb in ["serve", "check"] {
        let ended = run(forkade(&[verb]).args(arguments).envs(environment.iter().copied()));
        assert_eq!(ended.status, Some(2), "{verb} {arguments:?}: {ended:?}");
        let said = ended.out + &ended.err;
        for word in words {
            assert!(
                said.contains(word),
                "{verb} {arguments:?}: {word:?} is not in {said}"
            );
        }
    }
}

/// A configuration file that is removed when this is dropped.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "forkade-test-{}-{}.toml",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("a temporary file");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("it is ours");
    }
}

#[test]
fn an_unknown_option_or_command_is_named() {
    expect_refused(&["--players-mix", "5"], &[], &["--players-mix"]);
    expect_refused(&["--players-max"], &[], &["--players-max"]);
    let ended = run(&mut forkade(&["dance"]));
    assert!(
        ended.status == Some(2) && ended.err.contains("dance"),
        "{ended:?}"
    );
}

#[test]
fn an_unknown_key_in_the_file_is_named_with_its_line_and_the_ones_there_are() {
    let file = File::new("players_max = 10\n\nplayers_mix = 5\n");
    expect_refused(
        &["--config", file.path()],
        &[],
        &[
            file.path(),
            ":3: players_mix",
            "no such setting",
            "players_max, rooms_max",
        ],
    );
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_the_reason() {
    let file = File::new("players_max = = 3");
    expect_refused(&["--config", file.path()], &[], &[file.path(), ":1: not TOML"]);
    let file = File::new("players_max = 3.5");
    expect_refused(
        &["--config", file.path()],
        &[],
        &["players_max", "neither a text nor a whole number"],
    );
    expect_refused(
        &["--config", "/nowhere/forkade.toml"],
        &[],
        &["/nowhere/forkade.toml", "cannot read"],
    );
    expect_refused(&["--config", "/dev/zero"], &[], &["/dev/zero"]);
    expect_refused(&["--config", "/tmp"], &[], &["/tmp"]);
}

#[test]
fn an_invalid_address_is_refused_with_an_example() {
    for address in [
        "localhost",
        "127.0.0.1",
        "127.0.0.1:70000",
        "4000",
        "",
        "::1:4000",
    ] {
        expect_refused(
            &["--listen", address],
            &[],
            &["--listen", "127.0.0.1:4000", "[::1]:4000"],
        );
    }
    expect_refused(&["--console", "nobody"], &[], &["--console", "or `none`"]);
    expect_refused(
        &[],
        &[("FORKADE_LISTEN", "here")],
        &["FORKADE_LISTEN", "\"here\""],
    );
    expect_refused(
        &["--listen", "127.0.0.1:4000", "--console", "127.0.0.1:4000"],
        &[],
        &["want the same port", "give the console another port"],
    );
}

#[test]
fn a_number_beyond_its_range_is_refused_with_the_range() {
    expect_refused(
        &["--players-max", "0"],
        &[],
        &["--players-max", "a number from 1 to 100000"],
    );
    expect_refused(
        &["--players-max", "many"],
        &[],
        &["\"many\"", "a number from 1 to 100000"],
    );
    expect_refused(&["--players-max=-5"], &[], &["\"-5\""]);
    expect_refused(
        &["--keepers", "1", "--connections-max", "1001"],
        &[],
        &["set keepers to 2 or more"],
    );
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let file = File::new("backlog = \"long\"\nwhat = 1\n");
    expect_refused(
        &["--config", file.path(), "--listen", "x"],
        &[("FORKADE_ROOMS_MAX", "none")],
        &["backlog", "what", "--listen", "FORKADE_ROOMS_MAX"],
    );
}

#[test]
fn an_unknown_environment_variable_is_warned_about() {
    let ended = run(forkade(&["check"]).env("FORKADE_PLAYERS_MIX", "5"));
    assert_eq!(ended.status, Some(0), "the port may be in use: {ended:?}");
    assert!(
        ended.out.contains("warning: FORKADE_PLAYERS_MIX is set"),
        "{ended:?}"
    );
}

#[test]
fn a_port_in_use_is_named_with_a_remedy() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = holder.local_addr().expect("bound").to_string();
    for arguments in [
        ["--listen", &taken, "--console", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--console", &taken],
    ] {
        let ended = run(forkade(&["serve"]).args(arguments));
        assert_eq!((ended.status, ended.out.as_str()), (Some(1), ""), "{ended:?}");
        assert!(ended.err.contains(&format!("{taken} is in use")), "{ended:?}");
        assert!(ended.err.contains("choose another port"), "{ended:?}");
    }
    // TEST-NET-1 (RFC 5737) is assigned to no machine.
    let ended = run(&mut forkade(&[
        "serve",
        "--listen",
        "192.0.2.1:4000",
        "--console",
        "none",
    ]));
    assert!(
        ended.status == Some(1) && ended.err.contains("no address 192.0.2.1"),
        "{ended:?}"
    );
}

/// The program under the limits set by these shell commands.
fn limited(limits: &str, arguments: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_forkade-under-test");
    shell
        .args(["-c", &format!("{limits} && exec \"$0\" \"$@\""), program])
        .args(arguments);
    shell
}

#[test]
fn a_capacity_beyond_the_open_file_limit_is_refused_with_a_remedy() {
    let capacity = ["--players-max", "200", "--rooms-max", "100", "--keepers", "1"];
    for (limit, words) in [
        (
            "64",
            [
                "a keeper of 300 connections needs 672 open files",
                "100 rooms need 164 open files",
            ],
        ),
        (
            "200",
            [
                "a keeper of 300 connections needs 672 open files",
                "or set keepers to 5 or more",
            ],
        ),
    ] {
        for verb in ["serve", "check"] {
            let ended = run(
                limited(&format!("ulimit -n {limit}"), &[verb, "--listen", "127.0.0.1:0"]).args(capacity),
            );
            assert_eq!(ended.status, Some(2), "{ended:?}");
            let said = ended.out + &ended.err;
            assert!(!said.contains("to 0 or less"), "{said}");
            assert!(!said.contains("\\n"), "{said}");
            for word in words.into_iter().chain(["raise the hard limit"]) {
                assert!(said.contains(word), "{word:?} is not in {said}");
            }
        }
    }
}

#[test]
fn the_suggested_open_file_limit_is_enough() {
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"];
    let capacity = ["--players-max", "200", "--rooms-max", "100", "--keepers", "5"];
    let server = Server::run(limited("ulimit -n 200", &arguments).args(capacity));
    // The maximal number of clients, all of which are served.
    let clients: Vec<_> = (0..200)
        .map(|number| server.client(&format!("Client {number}")))
        .collect();
    assert_eq!(server.status("players"), 200);
    drop(clients);
}

#[test]
fn a_failed_memory_allocation_ends_the_start_with_the_reason() {
    let arguments = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--console",
        "none",
        "--players-max",
        "20000",
        "--rooms-max",
        "10",
    ];
    let ended = run(&mut limited("ulimit -v 300000", &arguments));
    assert!(matches!(ended.status, Some(1 | 2)), "{ended:?}");
    assert!(ended.err.contains("lower players_max"), "{ended:?}");
    assert_eq!(ended.out, "", "it is not ready");
}

#[test]
fn checking_shows_each_setting_and_where_it_comes_from() {
    let file = File::new("players_max = 11\nrooms_max = 12\nbacklog = 13\nconsole = \"none\"\n");
    let environment = [
        ("FORKADE_PLAYERS_MAX", "21"),
        ("FORKADE_ROOMS_MAX", "22"),
        ("FORKADE_CONFIG", file.path()),
    ];
    let ended = run(forkade(&["check", "--players-max", "31"]).envs(environment));
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let line = |key: &str| {
        let line = ended
            .out
            .lines()
            .find(|line| line.split_whitespace().next() == Some(key));
        line.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .unwrap_or_default()
    };
    assert_eq!(line("players_max"), "players_max = 31 # command line");
    assert_eq!(line("rooms_max"), "rooms_max = 22 # environment");
    assert_eq!(line("backlog"), "backlog = 13 # file");
    assert_eq!(line("console"), "console = none # file");
    assert_eq!(line("listen"), "listen = 127.0.0.1:4000 # default");
    assert!(
        line("connections_max").starts_with("connections_max = 131"),
        "{}",
        ended.out
    );
    assert!(
        ended.out.contains("open files") && ended.out.contains("ok: the server can start"),
        "{}",
        ended.out
    );
}

#[test]
fn clients_are_told_the_configured_limits() {
    let file = File::new("heartbeat_timeout_ms = 11000\nseat_grace_ms = 12000\n");
    let server = Server::run(command(&["--config", file.path()]).env("FORKADE_SEAT_GRACE_MS", "22000"));
    let limits = server.client("Ann").session_info().expect("greeted").limits;
    assert_eq!(
        (limits.heartbeat_timeout_ms, limits.seat_grace_ms),
        (11_000, 22_000)
    );
}

#[test]
fn a_disabled_console_is_shown_in_the_ready_line() {
    let mut child = forkade(&["serve", "--listen", "127.0.0.1:0", "--console", "none"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program can be run");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it speaks");
    let ready: serde_json::Value =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let pid = child.id();
    assert_eq!(
        (&ready["event"], &ready["console"], &ready["pid"]),
        (&"ready".into(), &().into(), &pid.into())
    );
    let game = ready["game"].as_str().expect("an address").to_owned();
    std::net::TcpStream::connect(game).expect("it can be connected to");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("it runs");
    let mut status = None;
    eventually("the server ends", || {
        status = child.try_wait().expect("it is a child");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("it speaks no more");
    assert_eq!(rest, "", "only the ready line is on stdout");
}

#[test]
fn help_names_every_setting_with_its_default_and_its_variable() {
    let ended = run(&mut forkade(&["--help"]));
    assert_eq!(ended.status, Some(0));
    for word in [
        "--listen",
        "[default: 127.0.0.1:4000]",
        "[env: FORKADE_SEAT_GRACE_MS]",
        "check",
        "serve",
    ] {
        assert!(ended.out.contains(word), "{word} is not in {}", ended.out);
    }
    let ended = run(&mut forkade(&["--version"]));
    assert_eq!(
        (ended.status, ended.out.trim()),
        (Some(0), concat!("forkade ", env!("CARGO_PKG_VERSION")))
    );
}
