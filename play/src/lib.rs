//! `forkade play`: a client in a terminal, for any game that this program was built with.
//!
//! It shares nothing with the server but the protocol and the games' code: [`Games`] draws the views and parses the
//! moves. After an event of a game it requests the new view ([`Look`](forkade_protocol::ClientMessage::Look)), because
//! only the game itself could apply an event to a view.
//!
//! One thread waits in one poll for keys, signals and the socket; nothing else ever waits. Reading order:
//!
//! | | |
//! |---|---|
//! | this file | [`main`] and the loop |
//! | `options` | the command line |
//! | `terminal` | the terminal: taken, drawn on, and always given back |
//! | `connection` | the socket, reconnected when it is lost, over the protocol's sans-io session |
//! | `app`, `listing`, `room` | the state, and what keys and messages do to it; pure |
//! | `screen`, `styled` | what the screen shows; pure, and the only way to the terminal |
#![forbid(unsafe_code)]

mod app;
mod connection;
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

use crate::app::{App, ExitReason};
use crate::connection::{Connection, ConnectionEvent};
use crate::options::Options;
use crate::terminal::Terminal;
use forkade_games::{Games, panics};
use forkade_text::keys::KeyDecoder;
use shmem::sys::signals::{Signal, Signals};

pub use crate::options::command;

/// The exit status for a bad command line, or without a terminal.
const USAGE: u8 = 2;

/// The exit status after a signal is this plus the signal's number.
const SIGNALLED: i32 = 128;

/// After this time a lone escape byte is the escape key: the bytes of a sequence arrive together, or nearly so on a
/// slow line.
const ESCAPE_DELAY: Duration = Duration::from_millis(50);

/// How long to wait until the server has closed the connection after a goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// How this program introduces itself to the server.
const CLIENT: &str = concat!("forkade play ", env!("CARGO_PKG_VERSION"));

/// Runs the client. The first two `arguments` are the names of program and subcommand.
pub fn main(games: &Games, arguments: &[OsString]) -> ExitCode {
    let user = std::env::var("USER").ok();
    let options = match options::parse(arguments, user.as_deref()) {
        Ok(options) => options,
        Err(error) => {
            // Help goes to stdout, errors to stderr. If it cannot be written, there is no other place for it.
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
    // A panic is shown once the terminal is restored, not on the alternate screen.
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

/// Takes the terminal, runs the client, and gives the terminal back.
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
    let mut client = Client {
        app: App::new(games, &options.server, options.startup_action),
        connection,
        terminal: Terminal::take()?,
        signals,
        decoder: KeyDecoder::with_bracketed_paste(),
        started: Instant::now(),
        goodbye_sent_at: None,
        terminal_lost: false,
    };
    let ended = client.run();
    let Client {
        app,
        terminal,
        connection,
        ..
    } = client;
    // What is printed from here on appears on the shell's screen.
    drop(terminal);
    let signalled = ended?;
    if connection.has_resumable_session() {
        eprintln!(
            "forkade play: the connection was lost, so the server could not be told: it keeps your seat for a while."
        );
    }
    match (signalled, app.exit_reason()) {
        (Some(signal), _) => {
            let status = u8::try_from(SIGNALLED + signal as i32);
            Ok(status.map_or(ExitCode::FAILURE, ExitCode::from))
        }
        (None, Some(ExitReason::SessionEnded(why))) => {
            eprintln!("forkade play: {why}");
            Ok(ExitCode::FAILURE)
        }
        (None, _) => Ok(ExitCode::SUCCESS),
    }
}

/// The running client.
struct Client<'g> {
    app: App<'g>,
    connection: Connection,
    terminal: Terminal,
    signals: Signals,
    decoder: KeyDecoder,
    started: Instant,
    /// When the goodbye was sent.
    goodbye_sent_at: Option<Instant>,
    /// The terminal can no longer be read or written.
    terminal_lost: bool,
}

/// What is ready after a wait.
struct Ready {
    keys: bool,
    signals: bool,
}

impl Client<'_> {
    /// Runs until the end. Returns the signal that caused it, if one did.
    fn run(&mut self) -> io::Result<Option<Signal>> {
        let mut ended_by = None;
        loop {
            for event in self.connection.step(Instant::now()) {
                self.on_event(event);
            }
            self.app.run_timers(self.now_ms());
            self.send();
            if self.is_over() {
                return Ok(ended_by);
            }
            if self.app.take_redraw_request() {
                self.terminal.redraw_all();
            }
            if !self.terminal_lost {
                let contents = screen::draw(&self.app, self.terminal.size(), self.now_ms());
                self.terminal.draw(contents)?;
            }

            let ready = self.wait()?;
            if ready.signals {
                ended_by = self.handle_signals()?.or(ended_by);
            }
            if ready.keys {
                self.handle_keys()?;
            }
            if self.app.take_suspend_request() {
                self.terminal.suspend()?;
            }
        }
    }

    fn on_event(&mut self, event: ConnectionEvent) {
        let now_ms = self.now_ms();
        self.app.on_event(event, now_ms);
    }

    fn send(&mut self) {
        loop {
            let messages = self.app.take_messages();
            if messages.is_empty() {
                break;
            }
            for message in messages {
                if let Err(why) = self.connection.send(&message) {
                    self.app.on_send_failed(&why);
                }
            }
            // Send now rather than at the next event. A reply may arrive at once and lead to the next request.
            for event in self.connection.step(Instant::now()) {
                self.on_event(event);
            }
        }
        if self.app.exit_reason() == Some(&ExitReason::Quit) && self.goodbye_sent_at.is_none() {
            self.goodbye_sent_at = Some(Instant::now());
            // The client leaves even if this cannot be sent.
            let _ = self.connection.send(&ClientMessage::Goodbye);
        }
        for event in self.connection.step(Instant::now()) {
            self.on_event(event);
        }
    }

    /// Whether the client can exit.
    fn is_over(&self) -> bool {
        match (self.app.exit_reason(), self.goodbye_sent_at) {
            (None, _) => false,
            (Some(ExitReason::SessionEnded(_)), _) => true,
            (Some(ExitReason::Quit), None) => false,
            (Some(ExitReason::Quit), Some(since)) => {
                !self.connection.is_up() || since.elapsed() >= GOODBYE_TIMEOUT
            }
        }
    }

    /// Waits for a key, a signal, the socket, or the next timer.
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
            .goodbye_sent_at
            .map(|since| (since + GOODBYE_TIMEOUT).saturating_duration_since(now));
        let waits = [escape, change, connection, goodbye].into_iter().flatten();
        let timeout = waits.min().map(|wait| {
            // One millisecond more: a wait that ends too early would be repeated many times.
            let wait = wait + Duration::from_millis(1);
            Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(wait.subsec_nanos()),
            }
        });

        let mut descriptors = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if !self.terminal_lost {
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
            keys: !self.terminal_lost && (has_events(1) || escape.is_some()),
        })
    }

    fn handle_signals(&mut self) -> io::Result<Option<Signal>> {
        let mut ended_by = None;
        while let Some(received) = self.signals.read()? {
            match received.signal {
                Signal::SIGWINCH => self.terminal.redraw_all(),
                signal => {
                    ended_by = Some(signal);
                    self.app.quit();
                }
            }
        }
        Ok(ended_by)
    }

    fn handle_keys(&mut self) -> io::Result<()> {
        let input = self.terminal.input();
        let mut descriptors = [PollFd::from_borrowed_fd(input, PollFlags::IN)];
        let is_ready = poll(&mut descriptors, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
        let keys = if !is_ready {
            self.decoder.decide().into_iter().collect()
        } else if let Some(bytes) = self.terminal.read()? {
            self.decoder.push(&bytes)
        } else {
            self.terminal_lost = true;
            self.app.quit();
            Vec::new()
        };
        let now_ms = self.now_ms();
        for key in keys {
            self.app.on_key(key, now_ms);
        }
        Ok(())
    }

    /// Milliseconds since the start.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
