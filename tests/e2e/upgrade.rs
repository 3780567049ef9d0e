//! Promise: a new program takes over the listening sockets, the lobby and the live connections. A program
//! that cannot is refused with the reason, and the old one keeps serving.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::common::control_pair::ControlPair;
use crate::common::footprint::processes;
use crate::common::{Server, command, eventually};
use nix::sys::signal::Signal;

/// Copies a program with another process: children of this process's other threads would inherit the open
/// file, and it could not be executed.
fn copy(program: &str, to: &Path) {
    let copied = Command::new("cp").arg(program).arg(to).status();
    assert!(
        copied.expect("there is cp").success(),
        "the program can be copied"
    );
}

/// A server whose program file this test can replace.
pub(crate) struct Upgradable {
    pub(crate) server: Server,
    folder: PathBuf,
}

impl Upgradable {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::run(command(arguments).get_args())
    }

    /// Starts the server with these arguments alone.
    pub(crate) fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("forkade-upgrade-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder can be made");
        let program = folder.join("forkade");
        copy(env!("CARGO_BIN_EXE_forkade-under-test"), &program);
        let mut command_there = Command::new(&program);
        command_there.current_dir(&folder);
        command_there.args(arguments);
        Self {
            server: Server::run(&mut command_there),
            folder,
        }
    }

    fn program(&self) -> PathBuf {
        self.folder.join("forkade")
    }

    /// Replaces the running program's file, as an installation does: the old file lives on without a name.
    fn install(&self, write: impl FnOnce(&Path)) {
        let new = self.folder.join("new");
        write(&new);
        fs::rename(&new, self.program()).expect("the program can be replaced");
    }

    pub(crate) fn install_itself(&self) {
        self.install(|new| {
            copy(env!("CARGO_BIN_EXE_forkade-under-test"), new);
        });
    }

    fn ask_for_upgrade(&self) {
        self.server.signal(self.server.pid(), Signal::SIGUSR2);
    }

    /// Runs `forkade upgrade`.
    pub(crate) fn ask_by_command(&self) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_forkade-under-test"))
            .args(["upgrade", "--console", &self.server.console.to_string()])
            .output()
            .expect("the program can be run")
    }

    fn times_logged(&self, text: &str) -> usize {
        self.server.log().matches(text).count()
    }

    /// Upgrades, and waits for the end of the upgrade.
    pub(crate) fn upgrade(&self) {
        let done = "upgraded: all processes run";
        let before = self.times_logged(done);
        self.ask_for_upgrade();
        eventually("the upgrade is done", || self.times_logged(done) > before);
    }

    /// Requests an upgrade, and returns the reason of its refusal.
    pub(crate) fn refusal(&self) -> String {
        let refused = "the upgrade is refused, and nothing has changed: ";
        let before = self.times_logged(refused);
        self.ask_for_upgrade();
        eventually("the upgrade is refused", || self.times_logged(refused) > before);
        let log = self.server.log();
        let reason = log.rsplit(refused).next().expect("it was logged");
        reason.lines().next().unwrap_or_default().to_owned()
    }

    /// The processes of a role, or all processes.
    fn pids(&self, role: Option<&str>) -> BTreeSet<u64> {
        let processes = self.server.ask_json("processes");
        let of_role = |process: &&serde_json::Value| {
            process["role"] != "console" && role.is_none_or(|role| process["role"] == role)
        };
        let listed = processes.as_array().expect("a list").iter().filter(of_role);
        listed.filter_map(|process| process["pid"].as_u64()).collect()
    }
}

impl Drop for Upgradable {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn an_upgrade_of_shared_handlers_keeps_every_connection() {
    let dial = [
        "--clients-per-handler",
        "64",
        "--connections-max",
        "900",
        "--keepers",
        "1",
    ];
    let upgradable = Upgradable::start(&dial);
    let mut clients: Vec<_> = (0..300)
        .map(|nth| upgradable.server.client(&format!("Client{nth}")))
        .collect();
    for _ in 0..2 {
        let before = upgradable.pids(Some("handler"));
        assert!(before.len() < 10, "{before:?}");
        upgradable.install_itself();
        upgradable.upgrade();
        for client in &mut clients {
            client.ping().expect("the session lives");
            assert_eq!(client.counters().resumes, 0);
        }
        let after = upgradable.pids(Some("handler"));
        assert!(
            before.is_disjoint(&after) && after.len() == before.len(),
            "{before:?}, {after:?}"
        );
    }
    upgradable.server.expect_no_errors();
}

#[test]
fn an_upgrade_replaces_every_process_and_no_player_notices() {
    let upgradable = Upgradable::start(&[]);
    let control_pair = ControlPair::start(&upgradable.server);
    let stop = Arc::new(AtomicBool::new(false));
    // Clients connect and disconnect throughout.
    let (stopped, address) = (Arc::clone(&stop), upgradable.server.game);
    let comers = std::thread::spawn(move || {
        let mut came = 0;
        while !stopped.load(Ordering::Relaxed) {
            let options = crate::common::patient();
            let client = forkade_protocol::Client::connect(address, format!("comer {came}"), options);
            client
                .expect("a new client is served")
                .goodbye()
                .expect("a client may leave");
            came += 1;
        }
        came
    });
    for _ in 0..3 {
        let supervisor = upgradable.pids(Some("supervisor"));
        let (rest, playing) = (upgradable.pids(None), upgradable.pids(Some("handler")));
        assert!(playing.len() >= 2);
        control_pair.expect_progress();
        upgradable.install_itself();
        upgradable.upgrade();
        assert_eq!(
            upgradable.pids(Some("supervisor")),
            supervisor,
            "the same process"
        );
        eventually("no process runs the old program", || {
            let now = upgradable.pids(None);
            now.intersection(&rest).eq(supervisor.iter())
        });
        control_pair.expect_progress();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(comers.join().expect("no client was refused") > 0);
    control_pair.finish();
    upgradable.server.expect_no_errors();
    assert_eq!(
        upgradable.server.status("resumes_total"),
        0,
        "no client lost its connection"
    );
    assert_eq!(upgradable.server.status("refused_total"), 0);
}

#[test]
fn an_unsuitable_program_is_refused_and_the_old_one_keeps_serving() {
    let upgradable = Upgradable::start(&[]);
    let before = upgradable.pids(None);
    let mut ann = upgradable.server.client("Ann");
    let own = fs::read(env!("CARGO_BIN_EXE_forkade-under-test")).expect("the program can be read");
    let expect_refusal = |what: &str, write: &dyn Fn(&Path), because: &[&str]| {
        upgradable.install(write);
        let reason = upgradable.refusal();
        assert!(
            because.iter().any(|because| reason.contains(because)),
            "{what}: {reason}"
        );
    };
    let executable = |path: &Path, bytes: &[u8]| {
        use std::os::unix::fs::PermissionsExt;
        fs::write(path, bytes).expect("a file can be written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    };
    expect_refusal(
        "cut short",
        &|path| executable(path, &own[..own.len() / 20]),
        &["said nothing", "cannot be executed"],
    );
    expect_refusal(
        "no program",
        &|path| executable(path, b"not a program\n"),
        &["cannot be executed"],
    );
    expect_refusal(
        "not executable",
        &|path| fs::write(path, &own).expect("a file can be written"),
        &["cannot be executed"],
    );
    expect_refusal(
        "another program",
        &|path| {
            copy("/bin/true", path);
        },
        &["said nothing"],
    );
    let library = own
        .windows(10)
        .position(|bytes| bytes == b"libc.so.6\0")
        .expect("it links the C library");
    let mut without_library = own.clone();
    without_library[library + 3] = b'?';
    expect_refusal(
        "a library is missing",
        &|path| executable(path, &without_library),
        &["said nothing"],
    );
    fs::remove_file(upgradable.program()).expect("it is there");
    let reason = upgradable.refusal();
    assert!(reason.contains("cannot open"), "{reason}");

    ann.ping().expect("she is still served");
    assert!(
        before.is_subset(&upgradable.pids(None)),
        "no process was replaced"
    );
    let _bob = upgradable.server.client("Bob");
    let asked = upgradable.ask_by_command();
    assert!(!asked.status.success());
    assert!(String::from_utf8_lossy(&asked.stderr).contains("refused, and nothing has changed: cannot open"));
    upgradable.install_itself();
    let asked = upgradable.ask_by_command();
    assert!(asked.status.success(), "{asked:?}");
    assert!(String::from_utf8_lossy(&asked.stdout).contains("all processes run version"));
    upgradable.upgrade();
    ann.ping().expect("she is served by the new program");
}

#[test]
fn a_program_that_writes_without_end_is_refused_and_affects_nobody() {
    let upgradable = Upgradable::start(&[]);
    let control_pair = ControlPair::start(&upgradable.server);
    // The server's own argument `serve` is the script that the shell runs.
    let script = "while :; do echo on and on >&${_FORKADE_HANDOVER##*:}; done\n";
    fs::write(upgradable.folder.join("serve"), script).expect("a file can be written");
    upgradable.install(|new| {
        copy("/bin/bash", new);
    });
    let reason = upgradable.refusal();
    assert!(reason.contains("it says more than"), "{reason}");
    control_pair.expect_progress();
    let is_known = |name: &String| {
        ["forkade", "ticker", "keeper", "listener", "handler", "reception"].contains(&name.as_str())
    };
    eventually("the talker is gone", || {
        processes(&upgradable.server).keys().all(is_known)
    });
    upgradable.install_itself();
    upgradable.upgrade();
    control_pair.finish();
}

#[test]
fn a_configuration_that_needs_other_memory_is_refused_and_a_compatible_one_accepted() {
    let file = std::env::temp_dir().join(format!("forkade-upgrade-{}.toml", std::process::id()));
    fs::write(&file, "rooms_max = 50\nseat_grace_ms = 50000\n").expect("a file can be written");
    let upgradable = Upgradable::start(&["--config", file.to_str().expect("a name")]);
    fs::write(&file, "rooms_max = 60\nseat_grace_ms = 50000\n").expect("a file can be written");
    let reason = upgradable.refusal();
    assert!(
        reason.contains("rooms_max would change from 50 to 60"),
        "{reason}"
    );
    fs::write(&file, "rooms_max = \"fifty\"\n").expect("a file can be written");
    let reason = upgradable.refusal();
    assert!(
        reason.contains("rooms_max") && reason.contains("fifty"),
        "{reason}"
    );
    fs::write(&file, "rooms_max = 50\nseat_grace_ms = 70000\n").expect("a file can be written");
    upgradable.upgrade();
    let ann = upgradable.server.client("Ann");
    assert_eq!(
        ann.session_info().expect("greeted").limits.seat_grace_ms,
        70_000,
        "the new configuration holds"
    );
    fs::remove_file(&file).expect("it is there");
}

#[test]
fn an_upgraded_server_stops_cleanly_and_frees_its_port() {
    let mut upgradable = Upgradable::start(&[]);
    let _ann = upgradable.server.client("Ann");
    upgradable.upgrade();
    assert!(upgradable.server.stop().success());
    assert!(TcpStream::connect(upgradable.server.game).is_err());
    std::net::TcpListener::bind(upgradable.server.game).expect("the port is free");
}

#[test]
fn an_upgrade_through_a_symbolic_link_runs_the_program_that_it_leads_to() {
    let versions = Upgradable::start(&[]);
    let (first, second) = (versions.folder.join("v1"), versions.folder.join("v2"));
    for version in [&first, &second] {
        copy(env!("CARGO_BIN_EXE_forkade-under-test"), version);
    }
    let link = versions.folder.join("current");
    let point_to = |version: &str| {
        let new = versions.folder.join("link");
        std::os::unix::fs::symlink(version, &new).expect("a link");
        fs::rename(&new, &link).expect("it replaces the link");
    };
    point_to("v1");
    let mut command_there = Command::new(&link);
    command_there.args(command(&[]).get_args());
    let server = Server::run(&mut command_there);
    let runs = || fs::read_link(format!("/proc/{}/exe", server.pid())).expect("it runs");
    assert_eq!(runs(), first);
    point_to("v2");
    let told = server.ask("upgrade");
    assert_eq!(runs(), second);
    assert!(told.contains(second.to_str().expect("a plain path")), "{told}");
    server.expect_logged(&format!("({}) goes on in the place", second.display()));
}

#[test]
fn an_upgrade_runs_with_the_configuration_that_was_checked() {
    let folder = Upgradable::start(&[]);
    let path = folder.folder.join("settings.toml");
    nix::unistd::mkfifo(
        &path,
        nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR,
    )
    .expect("a pipe");
    // Each reading is given other settings; those of the third would end the server.
    let reads = Arc::new(AtomicU32::new(0));
    let (writer_path, count) = (path.clone(), Arc::clone(&reads));
    std::thread::spawn(move || {
        for settings in [
            "seat_grace_ms = 11111\n",
            "seat_grace_ms = 22222\nlog = \"debug\"\n",
            "nonsense",
        ] {
            let Ok(mut pipe) = fs::OpenOptions::new().write(true).open(&writer_path) else {
                return;
            };
            count.fetch_add(1, Ordering::AcqRel);
            let _ = std::io::Write::write_all(&mut pipe, settings.as_bytes());
            drop(pipe);
            // The reader has seen the end before the pipe is opened again.
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    });
    let server = Server::start(&["--config", path.to_str().expect("a plain path")]);
    let setting = |shown: &serde_json::Value, key: &str| {
        let rows = shown.as_array().expect("a list");
        let row = rows
            .iter()
            .find(|row| row["setting"] == key)
            .expect("it is listed");
        row["value"].as_str().expect("a text").to_owned()
    };
    // This operator's process runs the old program for ever.
    let mut operator = crate::common::operator::Operator::new(&server);
    assert_eq!(setting(&operator.ask_json("config"), "seat_grace_ms"), "11111");
    server.ask("upgrade");
    assert_eq!(reads.load(Ordering::Acquire), 2, "once by each program");
    for shown in [operator.ask_json("config"), server.ask_json("config")] {
        assert_eq!(setting(&shown, "seat_grace_ms"), "22222");
        assert_eq!(setting(&shown, "log"), "debug");
    }
    assert_eq!(
        operator.ask_json("log")["level"],
        "debug",
        "what is shown is in effect"
    );
}

#[test]
fn a_configuration_that_cannot_be_read_after_the_check_is_loaded_anew_and_the_server_goes_on() {
    let upgradable = Upgradable::start(&[]);
    let mut ann = upgradable.server.client("Ann");
    // The server's own argument `serve` is the script that the shell runs. It agrees, and hands over settings that the
    // program which it then executes does not know.
    let settings = r#"{"values":[["fog","on","Default"]],"file":null,"console_password":null}"#;
    let script = format!(
        r#"case $_FORKADE_HANDOVER in
            check:*) echo '{{"version":"1","objection":null,"settings":{settings}}}' >&${{_FORKADE_HANDOVER##*:}} ;;
            *) exec {} serve "$@" ;;
        esac
        "#,
        env!("CARGO_BIN_EXE_forkade-under-test")
    );
    fs::write(upgradable.folder.join("serve"), script).expect("a file can be written");
    upgradable.install(|new| {
        copy("/bin/bash", new);
    });
    upgradable.upgrade();
    upgradable
        .server
        .expect_logged("handed over cannot be read, and was loaded anew: it has other settings");
    ann.ping().expect("she is served by the new program");
    upgradable.server.client("Bob");
}

#[test]
fn what_an_upgrade_cleans_up_is_no_alarm_in_the_log() {
    let upgradable = Upgradable::start(&["--clients-per-handler", "4"]);
    let mut ann = upgradable.server.client("Ann");
    upgradable.install_itself();
    // From a console, whose connection stays with the old program until it ends.
    assert!(upgradable.ask_by_command().status.success());
    ann.ping().expect("the session lives");
    let consoles = || upgradable.server.ask_json("status")["consoles"] == 1;
    eventually("the console's place is free again", consoles);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let log = upgradable.server.log();
    let alarms: Vec<&str> = log
        .lines()
        .filter(|line| {
            [" WARN ", " ERROR ", "its place is free again"]
                .iter()
                .any(|sign| line.contains(sign))
        })
        .collect();
    assert!(alarms.is_empty(), "{alarms:#?}");
}
