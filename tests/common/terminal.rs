//! A pseudo-terminal for programs that need a terminal, with an emulated screen.

use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::num::NonZero;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use super::WAIT_MAX;

/// A terminal in which a program runs. When dropped, the program is killed if it still runs.
pub struct Terminal {
    child: Child,
    /// The controlling end; `None` after [`Terminal::pull`].
    keyboard: Option<File>,
    /// Kept open to read the terminal's settings after the program has ended.
    own: File,
    settings_before: String,
    shown: Arc<Mutex<Output>>,
    is_pulled: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

struct Output {
    screen: vt100::Parser,
    bytes: Vec<u8>,
}

impl Terminal {
    /// Runs `command` in a terminal of this size. Returns `None`, with a message on stderr, if the machine
    /// cannot create a pty.
    pub fn run(command: &mut Command, (columns, rows): (u16, u16)) -> Option<Self> {
        let Some((ours, own)) = pair() else {
            // Not through `eprintln!`, whose output the test harness captures.
            let _ = std::io::stderr().write_all(b"SKIPPED: no pty can be made on this machine\n");
            return None;
        };
        let program = || own.try_clone().expect("a descriptor is free");
        set_size(&ours, columns, rows);
        let settings_before = settings(&own);
        let child = command
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(program())
            .stdout(program())
            .stderr(program())
            .process_group(0)
            .spawn()
            .expect("the binary can be run");
        let shown = Arc::new(Mutex::new(Output {
            screen: vt100::Parser::new(at_least_one(rows), at_least_one(columns), 0),
            bytes: Vec::new(),
        }));
        let (reader, written) = (
            ours.try_clone().expect("a descriptor is free"),
            Arc::clone(&shown),
        );
        let is_pulled = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_pulled);
        let reader = std::thread::spawn(move || show(reader, &written, &until));
        Some(Self {
            child,
            keyboard: Some(ours),
            own,
            settings_before,
            shown,
            is_pulled,
            reader: Some(reader),
        })
    }

    /// Runs `forkade play` with additional arguments.
    pub fn play(server: SocketAddr, arguments: &[&str]) -> Option<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forkade-under-test"));
        command.arg("play").arg(server.to_string()).args(arguments);
        Self::run(&mut command, (100, 30))
    }

    /// Pid of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types keys. `\r` is the Enter key.
    pub fn type_keys(&mut self, keys: &str) {
        let keyboard = self.keyboard.as_mut().expect("it was not pulled");
        keyboard
            .write_all(keys.as_bytes())
            .expect("the terminal takes keys");
    }

    /// The text on the screen.
    pub fn screen(&self) -> String {
        self.shown
            .lock()
            .expect("no panic under it")
            .screen
            .screen()
            .contents()
    }

    /// Everything that the program has written.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("no panic under it").bytes).into_owned()
    }

    /// Waits until the screen contains a text.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        self.expect_that(text, |screen| screen.contains(text));
    }

    /// Waits until a text has been written, even if the screen no longer shows it.
    #[track_caller]
    pub fn expect_written(&self, text: &str) {
        self.expect_that(text, |_| self.written().contains(text));
    }

    /// Waits until the screen satisfies a condition.
    #[track_caller]
    pub fn expect_that(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + WAIT_MAX;
        while !holds(&self.screen()) {
            assert!(
                Instant::now() < deadline,
                "in {WAIT_MAX:?} there was no {what:?} on the screen:\n{}",
                self.screen()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Resizes the terminal. (The kernel would signal this to the foreground process group of a session that
    /// has this terminal.)
    pub fn resize(&mut self, columns: u16, rows: u16) {
        set_size(self.keyboard.as_ref().expect("it was not pulled"), columns, rows);
        let mut shown = self.shown.lock().expect("no panic under it");
        let screen = shown.screen.screen_mut();
        screen.set_size(at_least_one(rows), at_least_one(columns));
        drop(shown);
        self.signal(Signal::SIGWINCH);
    }

    /// Signals the program.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("it is a child that was not waited for");
    }

    /// Hangs up the terminal, as when its window is closed.
    pub fn pull(&mut self) {
        self.is_pulled.store(true, Ordering::Relaxed);
        // The reader thread has a duplicate of the controlling end.
        if let Some(reader) = self.reader.take() {
            reader.join().expect("it does not panic");
        }
        self.keyboard = None;
    }

    /// Waits for the program's end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it did not end; the screen:\n{}",
                self.screen()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The terminal is as it was before: its settings, its screen, its cursor.
    #[track_caller]
    pub fn expect_restored(&self) {
        assert_eq!(settings(&self.own), self.settings_before);
        let is_restored = || {
            let shown = self.shown.lock().expect("no panic under it");
            let screen = shown.screen.screen();
            !screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste()
        };
        super::eventually("the shell's screen is shown", is_restored);
    }

    /// Whether the terminal delivers single keys instead of lines.
    pub fn is_raw(&self) -> bool {
        settings(&self.own) != self.settings_before
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the screen ---\n{}\n---", self.screen());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Feeds the program's output to the screen until the terminal is pulled or no process has it open.
fn show(mut terminal: File, shown: &Mutex<Output>, is_pulled: &AtomicBool) {
    const GLANCE: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    let mut buffer = [0; 4096];
    while !is_pulled.load(Ordering::Relaxed) {
        let mut input = [PollFd::new(&terminal, PollFlags::IN)];
        if poll(&mut input, Some(&GLANCE)) == Ok(0) {
            continue;
        }
        let Ok(length @ 1..) = terminal.read(&mut buffer) else {
            return;
        };
        let mut shown = shown.lock().expect("no panic under it");
        shown.screen.process(&buffer[..length]);
        shown.bytes.extend_from_slice(&buffer[..length]);
    }
}

fn pair() -> Option<(File, File)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).ok()?;
    grantpt(&ours).ok()?;
    unlockpt(&ours).ok()?;
    let name = ptsname(&ours, Vec::new()).ok()?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let own = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).ok()?;
    Some((ours.into(), own.into()))
}

/// The emulator needs a size of at least one; a terminal may have none.
fn at_least_one(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap_or(NonZero::<u16>::MIN)
}

fn set_size(terminal: &File, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).expect("a terminal has a size");
}

fn settings(terminal: &File) -> String {
    format!("{:?}", tcgetattr(terminal).expect("a terminal has settings"))
}
