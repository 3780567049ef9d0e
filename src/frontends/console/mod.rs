//! The console: an operator's connection, line by line, for `telnet` and for scripts alike.
//!
//! - A line is a command; `help` lists them. Every reply ends in a line `OK` or `ERR <why>`. Lines end in CR LF. Nothing is sent
//!   before the first command, so that what a script reads first is the reply to what it asked first.
//! - With `--json` the answer to a query is one line of JSON. Lists are read from the tables in small steps, each under one lock
//!   for microseconds, so a list is no picture of one moment: who comes or goes meanwhile may be in it or not.
//! - A connection that is ended by the server is told why by a last line `ERR <why>`.
//! - For an operator at a telnet the line can be [edited](editor); scripts and netcat notice nothing of that (see [`terminal`]).
//! - There is no password: who can connect to the console's port may do all of this. It belongs on a loopback address.
//!
//! The process is a handler like any other, with an operator instead of a player. It must never hold a lock while it waits for
//! the operator's socket, and never hold more of an answer than one step of it: an operator who does not read stops being answered,
//! and nobody else notices. When it is killed, its successor goes on with the connection; what the operator had asked for
//! meanwhile is not in shared memory, so the successor says that it is lost ([`INTERRUPTED`]), and only if there was anything.

mod actions;
mod commands;
pub(crate) mod context;
mod editor;
mod execute;
mod format_frame;
mod live_views;
mod queries;
mod replies;
mod telnet_options;
mod terminal;

use crate::lobby::departure;
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{SockRef, TcpKeepalive};

use crate::frontends::console::context::ConsoleContext;
use crate::frontends::console::live_views::{LiveView, Progress};
use crate::frontends::console::replies::Reply;
use crate::frontends::console::terminal::{Input, Terminal};
use crate::limits::{
    CLOSING_TIMEOUT_MS, CONSOLE_IDLE_TIMEOUT_MS, CONSOLE_KEEP_ALIVE_MS, CONSOLE_LINE_BYTES_MAX,
    WRITE_STALL_TIMEOUT_MS,
};
use crate::logging;
use crate::session::transport::Passed;
use crate::session::{Session, Wanted};
use crate::state::connections::Phase;
use crate::state::handle::StateHandle;
use forkade_text::render;
use shmem::sys::clock::now_ms;
use shmem::sys::process::set_name;
use shmem::sys::signals::{Signal, Signals};
use shmem::sys::sockets::{Received, Sent, receive_into, send_from, shut_down};
use shmem::transaction::SingleWriter;

const SOCKET: Token = Token(0);
const SIGNALS: Token = Token(1);
const LIFELINE: Token = Token(2);
const ROOM_DOORBELL: Token = Token(3);
const DOORBELL_ANSWER: Token = Token(4);

/// Bytes that are received at once.
const RECEIVE_BYTES: usize = 4096;

/// What a successor says first, if its predecessor died over something.
const INTERRUPTED: &str = "interrupted: this console's process was replaced; repeat the command";

/// Serves an operator, in the process that was forked for the connection. Exit status 0 means that the connection has come to
/// its end.
pub(crate) fn run(state: &mut StateHandle, connection: u32, socket: OwnedFd, context: ConsoleContext) -> u8 {
    logging::set_role("console");
    let served = Console::attach(state, connection, socket, context).and_then(|mut console| console.serve());
    match served {
        Ok(Exit::Connection) => 0,
        Ok(Exit::Server) => 1,
        Err(error) => {
            log::error!("cannot go on: {error}");
            1
        }
    }
}

/// What has come to its end.
enum Exit {
    Connection,
    Server,
}

struct Console<'s> {
    context: ConsoleContext,
    session: Session<'s>,
    socket: OwnedFd,
    poll: Poll,
    signals: Signals,
    terminal: Terminal,
    /// Received, and not looked at yet.
    input: VecDeque<u8>,
    /// Said, and not taken by the kernel yet.
    output: VecDeque<u8>,
    /// The answer that is being given.
    reply: Option<Reply>,
    /// What goes on until it is over, or until the operator sends a line.
    live_view: Option<LiveView>,
    /// When it is to be asked again, whatever happens.
    view_due_at_ms: u64,
    stage: Stage,
    stage_began_ms: u64,
    /// Why the server ends the connection, if it is the server that does.
    close_reason: Option<String>,
    /// When the operator last sent something complete or took something of the answer.
    last_active_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Commands are taken and answered.
    Open,
    /// What is left to say is said; no command is taken any more.
    Closing,
    /// All is said. What arrives is thrown away until the operator ends the connection too: closed with unread bytes, the
    /// kernel would reset it, and what was said last could be lost.
    Lingering,
}

/// What the next turn of the loop should begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There is more to do at once.
    Continue,
    /// Waiting for the socket, a signal or a time.
    Wait,
    /// The connection is over.
    Done,
}

impl<'s> Console<'s> {
    fn attach(
        state: &'s mut StateHandle,
        connection: u32,
        socket: OwnedFd,
        context: ConsoleContext,
    ) -> io::Result<Self> {
        let signals = Signals::block(&[Signal::SIGUSR1, Signal::SIGTERM])?;
        set_name("console")?;
        let poll = Poll::new()?;
        for (descriptor, token, interest) in [
            (socket.as_fd(), SOCKET, Interest::READABLE | Interest::WRITABLE),
            (signals.as_fd(), SIGNALS, Interest::READABLE),
            (context.lifeline.as_fd(), LIFELINE, Interest::READABLE),
        ] {
            poll.registry()
                .register(&mut SourceFd(&descriptor.as_raw_fd()), token, interest)?;
        }
        enable_keepalive(&socket)?;
        let predecessor = predecessor_of(state, connection);
        let mode = state
            .memory
            .connections
            .at(connection)
            .terminal
            .load(Ordering::Acquire);
        let terminal = match predecessor {
            Predecessor::None => Terminal::new(),
            _ => Terminal::resumed(mode),
        };
        let (session, _) = Session::attach(state, connection, Passed::default());
        let now = now_ms();
        let mut console = Self {
            context,
            session,
            socket,
            poll,
            signals,
            terminal,
            input: VecDeque::new(),
            output: VecDeque::new(),
            reply: None,
            live_view: None,
            view_due_at_ms: u64::MAX,
            stage: Stage::Open,
            stage_began_ms: now,
            close_reason: None,
            last_active_ms: now,
        };
        if predecessor == Predecessor::Interrupted {
            // The predecessor may have said half a line.
            console.write_line("");
            console.write_error(INTERRUPTED);
        }
        Ok(console)
    }

    fn serve(&mut self) -> io::Result<Exit> {
        let mut events = Events::with_capacity(8);
        while self.session.phase() != Phase::DONE {
            self.session.record().liveness.record_progress();
            let step = self.step()?;
            let timeout_ms = self.deadline_ms().saturating_sub(now_ms());
            if step == Step::Done || (timeout_ms == 0 && self.on_deadline()) {
                break;
            }
            let view_due_in_ms = match self.output.is_empty() {
                true => self.view_due_at_ms.saturating_sub(now_ms()),
                false => u64::MAX,
            };
            let timeout_ms = timeout_ms.min(view_due_in_ms);
            let timeout = Duration::from_millis(if step == Step::Wait { timeout_ms } else { 0 });
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    LIFELINE => return Ok(Exit::Server),
                    // They only wake the process up; what they are about is looked at in each turn.
                    SIGNALS => while self.signals.read()?.is_some() {},
                    DOORBELL_ANSWER => {
                        if let Some(live_view) = &mut self.live_view {
                            live_view.accept_doorbell(&self.poll)?;
                        }
                    }
                    _ => {}
                }
            }
        }
        self.close();
        Ok(Exit::Connection)
    }

    /// Does one thing that can be done without waiting.
    fn step(&mut self) -> io::Result<Step> {
        if self.stage == Stage::Open && self.session.wanted() == Wanted::Stop {
            return Ok(self.close_with("the server is stopping"));
        }
        if !self.output.is_empty() {
            return Ok(self.send());
        }
        if let Some(reply) = &mut self.reply {
            if !reply.write_next(&mut self.session.state, &mut self.output) {
                self.reply = None;
            }
            return Ok(Step::Continue);
        }
        if self.stage == Stage::Open && self.live_view.is_none() && self.input.is_empty() {
            self.terminal.prompt(&mut self.output);
            if !self.output.is_empty() {
                return Ok(self.send());
            }
        }
        let accepts_input = self.live_view.as_ref().is_none_or(LiveView::ends_on_input);
        Ok(match self.stage {
            Stage::Open if !accepts_input => self.advance()?,
            Stage::Open if !self.input.is_empty() => self.process_input()?,
            Stage::Open => match self.receive() {
                Step::Wait => self.advance()?,
                step => step,
            },
            Stage::Closing => self.finish_output(),
            Stage::Lingering => self.drain_input(),
        })
    }

    fn send(&mut self) -> Step {
        match send_from(&self.socket, self.output.as_slices().0) {
            Sent::Bytes(bytes) => {
                self.output.drain(..bytes);
                self.last_active_ms = now_ms();
                Step::Continue
            }
            Sent::WouldBlock => Step::Wait,
            Sent::Gone(_) => Step::Done,
        }
    }

    fn receive(&mut self) -> Step {
        let record = self.session.record();
        // Before anything is taken from the kernel, so that nothing can be lost unnoticed. The time tells one piece of work
        // from the next: only a process that dies over the same piece again and again is to blame.
        record.working_on.store(now_ms().max(1), Ordering::Release);
        let mut buffer = [0; RECEIVE_BYTES];
        match receive_into(&self.socket, &mut buffer) {
            Received::Bytes(bytes) => {
                self.input.extend(&buffer[..bytes]);
                Step::Continue
            }
            Received::WouldBlock => {
                if self.terminal.is_between_lines() && self.live_view.is_none() {
                    record.working_on.store(0, Ordering::Release);
                }
                Step::Wait
            }
            // All complete lines before the end were answered. An incomplete one may lack its end: it is not obeyed.
            Received::Ended => self.enter(Stage::Closing),
            Received::Gone(_) => Step::Done,
        }
    }

    /// Takes in what was received, up to the first thing that is to be answered.
    fn process_input(&mut self) -> io::Result<Step> {
        let accepts_more = |console: &Self| {
            console.output.is_empty()
                && console.reply.is_none()
                && console.stage == Stage::Open
                && console.live_view.as_ref().is_none_or(LiveView::ends_on_input)
        };
        while accepts_more(self) {
            let Some(byte) = self.input.pop_front() else { break };
            let is_viewing = self.live_view.is_some();
            let Some(input) = self.terminal.push(byte, is_viewing, &mut self.output) else {
                continue;
            };
            self.last_active_ms = now_ms();
            match input {
                Input::TooLong => {
                    self.write_error(&format!("line too long: at most {CONSOLE_LINE_BYTES_MAX} bytes"))
                }
                _ if is_viewing => {
                    self.end_view()?;
                    self.write_line(replies::OK);
                }
                Input::Line(line) => self.execute_line(&line),
                Input::Interrupt => {}
                Input::End => {
                    self.enter(Stage::Closing);
                }
            }
        }
        // A successor finds the operator's terminal as it was left.
        let mode = self.terminal.mode();
        self.session.record().terminal.store(mode, Ordering::Release);
        Ok(Step::Continue)
    }

    fn set_reply(&mut self, reply: Reply) {
        self.reply = Some(reply);
    }

    fn start_view(&mut self, live_view: LiveView) {
        self.live_view = Some(live_view);
    }

    /// Lets what goes on say what there is to say.
    fn advance(&mut self) -> io::Result<Step> {
        let Some(live_view) = &mut self.live_view else {
            return Ok(Step::Wait);
        };
        match live_view.advance(&mut self.session.state, &self.poll)? {
            Progress::Output(lines) => {
                // From now on the operator has time to read, however long it was quiet.
                self.last_active_ms = now_ms();
                for line in lines {
                    // What somebody has said must not begin a row of its own at the terminal's edge, and look like another record.
                    match self.terminal.columns() {
                        Some(columns) => render::wrap_to("", &line, columns.saturating_sub(1))
                            .lines()
                            .for_each(|row| self.write_line(row)),
                        None => self.write_line(&line),
                    }
                }
            }
            Progress::Wait { until_ms } => {
                self.view_due_at_ms = until_ms;
                return Ok(Step::Wait);
            }
            Progress::Finished(reply) => {
                self.end_view()?;
                self.set_reply(reply);
            }
            Progress::Failed(why) => {
                self.end_view()?;
                self.write_error(&why);
            }
        }
        Ok(Step::Continue)
    }

    fn end_view(&mut self) -> io::Result<()> {
        self.view_due_at_ms = u64::MAX;
        self.live_view
            .take()
            .map_or(Ok(()), |live_view| live_view.end(&self.session.state, &self.poll))
    }

    fn write_line(&mut self, line: &str) {
        self.output.extend(line.as_bytes());
        self.output.extend(replies::LINE_END.as_bytes());
    }

    fn write_error(&mut self, why: &str) {
        self.write_line(&format!("ERR {why}"));
    }

    /// Ends the connection when the answer that is being given, if any, is complete.
    fn close_with(&mut self, why: &str) -> Step {
        self.close_reason = Some(why.to_owned());
        self.view_due_at_ms = u64::MAX;
        self.enter(Stage::Closing)
    }

    fn enter(&mut self, stage: Stage) -> Step {
        self.stage = stage;
        self.stage_began_ms = now_ms();
        Step::Continue
    }

    fn finish_output(&mut self) -> Step {
        if let Some(why) = self.close_reason.take() {
            self.terminal.make_way(&mut self.output);
            self.write_error(&why);
            return Step::Continue;
        }
        match shut_down(&self.socket, Shutdown::Write) {
            Ok(()) => self.enter(Stage::Lingering),
            Err(_) => Step::Done,
        }
    }

    fn drain_input(&mut self) -> Step {
        match receive_into(&self.socket, &mut [0; RECEIVE_BYTES]) {
            Received::Bytes(_) => Step::Continue,
            // The server's end is not kept waiting by an operator who just sits there.
            Received::WouldBlock if self.session.wanted() != Wanted::Stop => Step::Wait,
            _ => Step::Done,
        }
    }

    /// When patience with the operator ends.
    fn deadline_ms(&self) -> u64 {
        match self.stage {
            // It lasts for as long as the operator likes; whether there still is one, the kernel asks.
            Stage::Open if self.output.is_empty() && self.live_view.is_some() => u64::MAX,
            Stage::Open if self.output.is_empty() => self.last_active_ms + CONSOLE_IDLE_TIMEOUT_MS,
            Stage::Open => self.last_active_ms + WRITE_STALL_TIMEOUT_MS,
            Stage::Closing | Stage::Lingering => self.stage_began_ms + CLOSING_TIMEOUT_MS,
        }
    }

    /// Whether the connection is over now. (Else there is still something to say.)
    fn on_deadline(&mut self) -> bool {
        if !self.output.is_empty() {
            log::info!(
                "the operator at {} does not read: closing",
                self.session.record().peer()
            );
            return true;
        }
        if self.stage != Stage::Open {
            return true;
        }
        self.close_with(&format!(
            "closed: no line for {} seconds",
            CONSOLE_IDLE_TIMEOUT_MS / 1000
        ));
        false
    }

    fn close(&mut self) {
        if let Err(error) = shut_down(&self.socket, Shutdown::Both) {
            log::warn!("cannot shut the connection down: {error}");
        }
        if let Some(keeper) = departure::finish(&mut self.session) {
            self.context.doorbells.ring_keeper(keeper);
        }
        self.session.record().working_on.store(0, Ordering::Release);
    }
}

/// Has the kernel find out when the operator's machine is gone, even if nobody says anything.
fn enable_keepalive(socket: &OwnedFd) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_millis(CONSOLE_KEEP_ALIVE_MS))
        .with_interval(Duration::from_millis(CONSOLE_KEEP_ALIVE_MS / 4));
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// Who has animated this connection before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Predecessor {
    None,
    /// It had nothing in hand when it died.
    Idle,
    /// It died over something that the operator has sent.
    Interrupted,
}

fn predecessor_of(state: &mut StateHandle, connection: u32) -> Predecessor {
    let record = state.memory.connections.at(connection);
    state
        .memory
        .recover(&mut state.attachment, record.noted_lock().load(Ordering::Relaxed));
    state.attachment.acquire(record);
    if state.attachment.read_own(&record.occupant) != record.reference(connection).generation() {
        return Predecessor::None;
    }
    match record.working_on.load(Ordering::Acquire) {
        0 => Predecessor::Idle,
        _ => Predecessor::Interrupted,
    }
}
