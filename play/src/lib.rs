//! `forkade play`: a client in a terminal, for any game that this program knows.
//!
//! It is a client like any other and shares nothing with the server but the protocol and the games' code: [`Games`] draws the views
//! and understands the moves. So a server binary with games of its own plays those, too. After an event of a game it asks for the
//! new view ([`Look`](forkade_protocol::ClientMessage::Look)): what an event makes of a view, only the game itself could say.
//!
//! One thread waits in one poll for keys, signals and the socket; nothing else ever waits.
//!
//! | | |
//! |---|---|
//! | `options` | the command line |
//! | `terminal` | the terminal: taken, drawn on, given back whatever happens |
//! | `keys`, `input_line` | bytes to keys, keys to a line; pure |
//! | `connection` | the socket, lost and made again, over the sans-io session of the protocol |
//! | `app`, `listing`, `room` | what is known, and what becomes of keys and messages; pure |
//! | `screen`, `styled` | what is shown of it; pure, and the only way to the terminal |

mod app;
mod connection;
mod input_line;
mod keys;
mod limits;
mod listing;
mod options;
mod room;
mod screen;
mod styled;
mod terminal;

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use forkade_protocol::ClientMessage;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::app::{App, Ending};
use crate::connection::{Connection, Report};
use crate::keys::KeyDecoder;
use crate::options::Options;
use crate::terminal::Terminal;
use forkade_games::Games;
use forkade_games::panics;
use shmem::sys::signals::{Signal, Signals};

pub use crate::options::command;

/// Exit status when the command line is at fault, or there is no terminal.
const USAGE: u8 = 2;

/// Signals that end a program are 128 and their number as its exit status.
const SIGNALLED: i32 = 128;

/// After so long a lone escape is the escape key: a sequence comes in one piece, or over a slow line nearly so.
const ESCAPE_DELAY: Duration = Duration::from_millis(50);

/// How long the server has for hearing a goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the server is told about this program.
const CLIENT: &str = concat!("forkade play ", env!("CARGO_PKG_VERSION"));

/// Plays as `arguments` say, the first two of which are the names of program and subcommand.
pub fn main(games: &Games, arguments: &[OsString]) -> ExitCode {
    let user = std::env::var("USER").ok();
    let options = match options::parse(arguments, user.as_deref()) {
        Ok(options) => options,
        Err(error) => {
            // Help goes to stdout, and errors to stderr. With neither of them there is nobody left to tell.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    if !Terminal::is_there() {
        eprintln!(
            "forkade play: input and output must be a terminal. Scripts talk to the server in text mode: nc {}",
            options.server.replace(':', " ")
        );
        return ExitCode::from(USAGE);
    }
    let servers = match options.server.to_socket_addrs() {
        Ok(servers) => servers.collect(),
        Err(error) => {
            eprintln!(
                "forkade play: {} is no address of a server: {error}; give one like 127.0.0.1:4000",
                options.server.escape_debug()
            );
            return ExitCode::from(USAGE);
        }
    };
    // A panic is shown once the terminal is as it was, not on the screen that goes away with us.
    panics::install_hook();
    match panics::catch_panic(|| run(games, options, servers)) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            eprintln!("forkade play: {error}");
            ExitCode::FAILURE
        }
        Err(panic) => {
            eprintln!("forkade play: this is a fault of the program: {panic}");
            ExitCode::FAILURE
        }
    }
}

/// Takes the terminal, plays, and gives it back.
fn run(games: &Games, options: Options, servers: Vec<SocketAddr>) -> io::Result<ExitCode> {
    let signals = Signals::block(&[
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGWINCH,
    ])?;
    let Some(connection) = Connection::new(servers, options.names, CLIENT, Instant::now()) else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the server's name has no address",
        ));
    };
    let mut player = Player {
        app: App::new(games, &options.server, options.wish),
        connection,
        terminal: Terminal::take()?,
        signals,
        decoder: KeyDecoder::default(),
        started: Instant::now(),
        said_goodbye: None,
        terminal_is_gone: false,
    };
    let ended = player.play();
    let Player {
        app,
        terminal,
        connection,
        ..
    } = player;
    // Words from here on go where the shell is.
    drop(terminal);
    let signalled = ended?;
    if connection.is_waiting_to_come_back() {
        eprintln!(
            "forkade play: the connection was lost, so the server could not be told: it keeps your seat for a while."
        );
    }
    match (signalled, app.ending()) {
        (Some(signal), _) => {
            let status = u8::try_from(SIGNALLED + signal as i32);
            Ok(status.map_or(ExitCode::FAILURE, ExitCode::from))
        }
        (None, Some(Ending::Gone(why))) => {
            eprintln!("forkade play: {why}");
            Ok(ExitCode::FAILURE)
        }
        (None, _) => Ok(ExitCode::SUCCESS),
    }
}

/// All that plays.
struct Player<'g> {
    app: App<'g>,
    connection: Connection,
    terminal: Terminal,
    signals: Signals,
    decoder: KeyDecoder,
    started: Instant,
    /// Since when the server has been told that we leave.
    said_goodbye: Option<Instant>,
    /// Nothing can be read from it or shown on it any more.
    terminal_is_gone: bool,
}

/// What there is to look after.
struct Ready {
    keys: bool,
    signals: bool,
}

impl Player<'_> {
    /// Plays to the end. Gives the signal that ended it, if one did.
    fn play(&mut self) -> io::Result<Option<Signal>> {
        let mut ended_by = None;
        loop {
            for report in self.connection.step(Instant::now()) {
                self.hear(report);
            }
            self.app.pass_time(self.now_ms());
            self.send();
            if self.is_over() {
                return Ok(ended_by);
            }
            if self.app.wants_redraw() {
                self.terminal.forget();
            }
            if !self.terminal_is_gone {
                let picture = screen::draw(&self.app, self.terminal.size(), self.now_ms());
                self.terminal.show(picture)?;
            }

            let ready = self.wait()?;
            if ready.signals {
                ended_by = self.take_signals()?.or(ended_by);
            }
            if ready.keys {
                self.take_keys()?;
            }
            if self.app.takes_a_break() {
                self.terminal.suspend()?;
            }
        }
    }

    fn hear(&mut self, report: Report) {
        let now_ms = self.now_ms();
        self.app.hear(report, now_ms);
    }

    fn send(&mut self) {
        loop {
            let messages = self.app.take_messages();
            if messages.is_empty() {
                break;
            }
            for message in messages {
                if let Err(why) = self.connection.send(&message) {
                    self.app.could_not_send(&why);
                }
            }
            // What was queued goes out now rather than when something else happens. An answer may be here at once, and lead to the
            // next question.
            for report in self.connection.step(Instant::now()) {
                self.hear(report);
            }
        }
        if self.app.ending() == Some(&Ending::Quit) && self.said_goodbye.is_none() {
            self.said_goodbye = Some(Instant::now());
            // What cannot be sent has nobody to be told to: we leave in any case.
            let _ = self.connection.send(&ClientMessage::Goodbye);
        }
        for report in self.connection.step(Instant::now()) {
            self.hear(report);
        }
    }

    /// Whether there is nothing left to wait for.
    fn is_over(&self) -> bool {
        match (self.app.ending(), self.said_goodbye) {
            (None, _) => false,
            (Some(Ending::Gone(_)), _) => true,
            (Some(Ending::Quit), None) => false,
            (Some(Ending::Quit), Some(since)) => {
                !self.connection.is_up() || since.elapsed() >= GOODBYE_TIMEOUT
            }
        }
    }

    /// Waits for a key, a signal, the socket, or for time to change something.
    fn wait(&self) -> io::Result<Ready> {
        let (now, now_ms) = (Instant::now(), self.now_ms());
        let escape = self.decoder.is_undecided().then_some(ESCAPE_DELAY);
        let change = self.app.next_change_ms(now_ms);
        let change = change.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)));
        let connection = self
            .connection
            .deadline()
            .map(|at| at.saturating_duration_since(now));
        let goodbye = self
            .said_goodbye
            .map(|since| (since + GOODBYE_TIMEOUT).saturating_duration_since(now));
        let waits = [escape, change, connection, goodbye].into_iter().flatten();
        let timeout = waits.min().map(|wait| {
            // A whole millisecond more: a wait that ends too early would be one of many.
            let wait = wait + Duration::from_millis(1);
            Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(wait.subsec_nanos()),
            }
        });

        let mut descriptors = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if !self.terminal_is_gone {
            let input = self.terminal.input();
            descriptors.push(PollFd::from_borrowed_fd(input, PollFlags::IN));
        }
        if let Some((socket, writes)) = self.connection.socket() {
            let flags = if writes {
                PollFlags::IN | PollFlags::OUT
            } else {
                PollFlags::IN
            };
            descriptors.push(PollFd::from_borrowed_fd(socket, flags));
        }
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has_events = |index: usize| !descriptors[index].revents().is_empty();
        Ok(Ready {
            signals: has_events(0),
            keys: !self.terminal_is_gone && (has_events(1) || escape.is_some()),
        })
    }

    fn take_signals(&mut self) -> io::Result<Option<Signal>> {
        let mut ended_by = None;
        while let Some(received) = self.signals.read()? {
            match received.signal {
                Signal::SIGWINCH => self.terminal.forget(),
                signal => {
                    ended_by = Some(signal);
                    self.app.quit();
                }
            }
        }
        Ok(ended_by)
    }

    fn take_keys(&mut self) -> io::Result<()> {
        let input = self.terminal.input();
        let mut descriptors = [PollFd::from_borrowed_fd(input, PollFlags::IN)];
        let is_ready = poll(&mut descriptors, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
        let keys = if !is_ready {
            self.decoder.decide().into_iter().collect()
        } else if let Some(bytes) = self.terminal.read()? {
            self.decoder.take_in(&bytes)
        } else {
            self.terminal_is_gone = true;
            self.app.quit();
            Vec::new()
        };
        let now_ms = self.now_ms();
        for key in keys {
            self.app.press(key, now_ms);
        }
        Ok(())
    }

    /// Milliseconds since the start.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
