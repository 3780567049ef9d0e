//! Promise: the operator can always connect: through a file that only the server's user can open, past idle consoles,
//! past a full server and past a flood. Where a password is needed, no command is executed without it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::operator::Operator;
use crate::common::{Server, WAIT_MAX, command, eventually};
use forkade::limits::CONSOLE_CONNECTIONS_MAX;

/// A directory of the test's own, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("forkade-console-{}-{nth}", std::process::id()));
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The console's reply to one line, on any stream.
fn ask(stream: &mut (impl Read + Write), line: &str) -> Vec<String> {
    stream
        .write_all(format!("{line}\n").as_bytes())
        .expect("the console reads");
    let mut lines = Vec::new();
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).expect("the console replies") == 0 {
            return lines;
        }
        let line = line.trim_end().to_owned();
        let is_last = line == "OK" || line.starts_with("ERR ");
        lines.push(line);
        if is_last {
            return lines;
        }
    }
}

fn unix_console(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("the unix console accepts");
    stream.set_read_timeout(Some(WAIT_MAX)).expect("an option");
    stream
}

fn tcp_console(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.console).expect("the console accepts");
    stream.set_read_timeout(Some(WAIT_MAX)).expect("an option");
    stream
}

/// What a server that does not start says.
fn refusal(arguments: &[&str]) -> String {
    let output = command(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the server's binary can be run");
    assert!(!output.status.success(), "it has started and ended well");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_unix_console_belongs_to_the_user_and_goes_with_the_server() {
    let directory = Directory::new();
    let path = directory.file("console");
    let option = format!("unix:{}", path.display());
    let mut server = Server::start(&["--console", &option]);
    let mode = std::fs::metadata(&path)
        .expect("the socket's file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut console = unix_console(&path);
    assert_eq!(ask(&mut console, "log debug"), ["OK"]);
    let who = format!("unix:uid={},pid={}", nix::unistd::getuid(), std::process::id());
    server.expect_logged(&who);
    let processes = server.ask_json("processes");
    assert!(
        processes
            .as_array()
            .expect("a list")
            .iter()
            .any(|it| it["peer"] == who.as_str()),
        "{processes}"
    );
    // A successor takes it over, as on TCP.
    let pid = processes
        .as_array()
        .expect("a list")
        .iter()
        .find(|it| it["peer"] == who.as_str())
        .and_then(|it| it["pid"].as_u64())
        .expect("a pid");
    server.kill(u32::try_from(pid).expect("a pid"));
    eventually("another process takes over", || {
        server.status("takeovers_total") > 0
    });
    assert_eq!(
        ask(&mut console, "log info").last().map(String::as_str),
        Some("OK")
    );
    // A second server does not take the path away from a living one.
    let told = refusal(&["--console", &option]);
    assert!(told.contains("is in use by another server"), "{told}");
    assert_eq!(ask(&mut unix_console(&path), "log info"), ["OK"]);
    assert!(server.stop().success());
    assert!(!path.exists(), "the file is still there");
}

#[test]
fn a_unix_console_replaces_the_file_of_a_dead_server_and_no_other_file() {
    let directory = Directory::new();
    let path = directory.file("console");
    let option = format!("unix:{}", path.display());
    let mut dead = Server::start(&["--console", &option]);
    dead.expect_any_end();
    dead.kill(dead.pid());
    dead.wait();
    drop(dead);
    assert!(path.exists(), "nobody has removed it");
    let server = Server::start(&[
        "--console",
        "none",
        "--console",
        "127.0.0.1:0",
        "--console",
        &option,
    ]);
    assert_eq!(ask(&mut unix_console(&path), "log info"), ["OK"]);
    drop(server);
    std::fs::write(&path, "mine").expect("a file");
    let told = refusal(&["--console", &option]);
    assert!(told.contains("is no socket"), "{told}");
    assert_eq!(std::fs::read(&path).expect("still there"), b"mine");
}

#[test]
fn a_console_off_loopback_needs_a_password_and_executes_nothing_without_it() {
    let told = refusal(&["--console", "0.0.0.0:0"]);
    assert!(told.contains("console-password-file"), "{told}");
    let directory = Directory::new();
    let file = directory.file("password");
    let option = file.to_str().expect("a plain path");
    let told = refusal(&["--console-password-file", option]);
    assert!(told.contains("cannot use the password file"), "{told}");
    std::fs::write(&file, "\n").expect("a file");
    let told = refusal(&["--console-password-file", option]);
    assert!(told.contains("it is empty"), "{told}");

    std::fs::write(&file, "correct horse\n").expect("a file");
    let unix = directory.file("console");
    let unix_option = format!("unix:{}", unix.display());
    let mut server = Server::start(&[
        "--console",
        "0.0.0.0:0",
        "--console",
        &unix_option,
        "--console-password-file",
        option,
    ]);
    server.console.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    let mut console = tcp_console(&server);
    for line in ["status", "stop", "nonsense", "help"] {
        assert!(
            ask(&mut console, line)[0].starts_with("ERR a password is needed"),
            "{line}"
        );
    }
    let begun = Instant::now();
    assert_eq!(ask(&mut console, "password correct hors"), ["ERR wrong password"]);
    assert!(
        begun.elapsed() >= Duration::from_millis(900),
        "a guess is delayed"
    );
    assert!(ask(&mut console, "status")[0].starts_with("ERR a password is needed"));
    assert_eq!(ask(&mut console, "password correct horse"), ["OK"]);
    assert_eq!(ask(&mut console, "status").last().map(String::as_str), Some("OK"));
    // Guesses are bounded, and what follows the last one is not executed.
    let mut guesser = tcp_console(&server);
    let guesses = "password a\npassword b\npassword c\npassword correct horse\nstop\n";
    guesser.write_all(guesses.as_bytes()).expect("the console reads");
    let mut said = String::new();
    guesser.read_to_string(&mut said).expect("an end");
    assert_eq!(
        said,
        "ERR wrong password\nERR wrong password\nERR wrong password; too many guesses\n"
    );
    server.expect_logged("has given a wrong password");
    // The unix socket needs none, and the one connection that has given it keeps its right.
    assert_eq!(ask(&mut unix_console(&unix), "log info"), ["OK"]);
    assert_eq!(ask(&mut console, "log info"), ["OK"]);
}

#[test]
fn idle_consoles_lock_no_operator_out() {
    let server = Server::start(&[]);
    let mut idle: Vec<_> = (0..CONSOLE_CONNECTIONS_MAX)
        .map(|_| Operator::new(&server))
        .collect();
    idle[1].ask_json("status");
    // A console counts as active until its process has noticed that the reply was read.
    thread::sleep(Duration::from_millis(200));
    for operator in idle.iter_mut().skip(2) {
        operator.ask_json("status");
    }
    // The first has entered nothing; of the others, the second is idle the longest.
    let mut newcomer = Operator::new(&server);
    newcomer.ask_json("status");
    let mut second_newcomer = Operator::new(&server);
    second_newcomer.ask_json("status");
    for nth in [0, 1] {
        let told = idle[nth].read_to_end();
        assert!(
            told.starts_with("ERR closed: another operator has connected") && told.ends_with("\r\n"),
            "{nth}: {told:?}"
        );
    }
    for operator in idle.iter_mut().skip(2) {
        operator.ask_json("log");
    }
    newcomer.ask_json("log");
    eventually("the places of the two are free", || {
        second_newcomer.ask_json("status")["consoles"] == CONSOLE_CONNECTIONS_MAX
    });
}

#[test]
fn a_crowd_of_silent_consoles_drives_no_operator_out() {
    let server = Server::start(&[]);
    let mut operator = Operator::new(&server);
    operator.ask_json("status");
    for _ in 0..4 {
        let crowd: Vec<_> = (0..CONSOLE_CONNECTIONS_MAX)
            .map(|_| tcp_console(&server))
            .collect();
        operator.ask_json("log");
        drop(crowd);
    }
}

#[test]
fn a_server_full_of_clients_has_a_console() {
    // One keeper, with all its connections in use.
    let server = Server::start(&[
        "--connections-max",
        "1000",
        "--keepers",
        "1",
        "--players-max",
        "10",
        "--clients-per-handler",
        "256",
        "--handshake-timeout-ms",
        "600000",
        "--early-refusal",
        "none",
    ]);
    let clients: Vec<_> = (0..1000).map(|_| server.connect()).collect();
    eventually("all are connected", || server.status("connections") == 1000);
    assert!(server.ask("ping").contains("keeper"));
    drop(clients);
}

#[test]
fn a_flood_on_the_game_port_delays_no_operator() {
    let server = Server::start(&[
        "--connections-max",
        "64",
        "--keepers",
        "1",
        "--clients-per-handler",
        "64",
        "--handshake-timeout-ms",
        "600000",
    ]);
    let is_over = Arc::new(AtomicBool::new(false));
    let flooders: Vec<_> = (0..2)
        .map(|_| {
            let (game, is_over) = (server.game, Arc::clone(&is_over));
            thread::spawn(move || {
                let mut made = 0_u32;
                while !is_over.load(Ordering::Relaxed) && made < 100_000 {
                    // Refused or accepted: the next one follows at once.
                    drop(TcpStream::connect(game));
                    made += 1;
                }
                made
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for _ in 0..30 {
        let begun = Instant::now();
        let mut console = tcp_console(&server);
        assert_eq!(ask(&mut console, "log info"), ["OK"]);
        slowest = slowest.max(begun.elapsed());
    }
    is_over.store(true, Ordering::Relaxed);
    let made: u32 = flooders
        .into_iter()
        .map(|flooder| flooder.join().expect("no panic"))
        .sum();
    assert!(made > 100, "that was no flood");
    println!("{made} connections; an operator waited {slowest:?} at most");
    assert!(slowest < WAIT_MAX / 2, "an operator waited {slowest:?}");
}

#[test]
fn a_console_without_the_password_ends_in_time_although_it_goes_on_sending() {
    let directory = Directory::new();
    let file = directory.file("password");
    std::fs::write(&file, "correct horse\n").expect("a file");
    let server = Server::start(&["--console-password-file", file.to_str().expect("a plain path")]);
    let mut operator = tcp_console(&server);
    assert_eq!(ask(&mut operator, "password correct horse"), ["OK"]);
    let (begun, mut talker, mut silent) = (Instant::now(), tcp_console(&server), tcp_console(&server));
    let mut reader = talker.try_clone().expect("a descriptor is left");
    let said = thread::spawn(move || {
        let mut said = String::new();
        reader.read_to_string(&mut said).map(|_| said)
    });
    while !said.is_finished() {
        assert!(begun.elapsed() < WAIT_MAX, "it is still heard");
        let _ = talker.write_all(b"status\r\n");
        thread::sleep(Duration::from_millis(100));
    }
    // Its handler answers each line, until the time is up.
    let said = said
        .join()
        .expect("no panic")
        .expect("the connection ends in order");
    assert!(said.starts_with("ERR a password is needed"), "{said}");
    assert!(
        said.ends_with("ERR closed: no password within 30 seconds\r\n"),
        "{said}"
    );
    assert!(
        begun.elapsed() >= Duration::from_secs(29),
        "{:?}",
        begun.elapsed()
    );
    let mut said = String::new();
    silent
        .read_to_string(&mut said)
        .expect("the connection ends in order");
    assert_eq!(said, "ERR closed: no password within 30 seconds\r\n");
    server.expect_logged("has not given the console's password in time");
    assert!(
        ask(&mut operator, "status")
            .iter()
            .any(|line| { line.split_whitespace().eq(["passwords_overdue_total", "2"]) })
    );
}
