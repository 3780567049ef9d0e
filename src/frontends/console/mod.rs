//! The console: an operator's connection, line by line, for `telnet` and for scripts.
//!
//! - Each line is a command; `help` lists them. Every reply ends in a line `OK` or `ERR <why>`. Lines end in CR LF.
//!   Nothing is sent before the first command, so the first bytes that a script reads are the reply to its first
//!   command.
//! - With `--json` the reply to a query is one line of JSON. Lists are read from the tables in small steps, each under
//!   one lock for microseconds. A list is therefore no snapshot: it may or may not contain what is added or removed
//!   meanwhile.
//! - When the server ends the connection, the last line is `ERR <why>`.
//! - A web page can make a browser send lines to the port. So a connection that speaks another protocol, as its first
//!   line or a line `Host:` shows, is closed, and nothing behind that is executed.
//! - An operator at a telnet client can [edit](editor) the line. Scripts and netcat are not affected (see
//!   [`terminal`]).
//! - On a unix socket and on a loopback address without a [`password`], anyone who can connect can use every command.
//!
//! The process is a handler like any other, with an operator in place of a player. It must never hold a lock while it
//! waits for the operator's socket, and never buffer more than one step of a reply: if the operator does not read, only
//! this reply waits. When the process is killed, its successor takes the connection over. Unfinished commands are not
//! in shared memory, so the successor reports them as lost ([`INTERRUPTED`]), and only if there were any.

mod actions;
mod commands;
pub(crate) mod context;
mod editor;
mod execute;
mod format_frame;
mod live_views;
mod password;
mod queries;
mod replies;
mod streams;
mod terminal;

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use shmem::sys::clock::now_ms;
use shmem::sys::process::set_name;
use shmem::sys::signals::{Signal, Signals};
use shmem::sys::sockets::shut_down;
use shmem::transaction::SingleWriter;
use socket2::{SockRef, TcpKeepalive};

use crate::frontends::console::context::ConsoleContext;
use crate::frontends::console::live_views::LiveView;
use crate::frontends::console::replies::Reply;
use crate::frontends::console::terminal::Terminal;
use crate::limits::{
    CLOSING_TIMEOUT_MS, CONSOLE_CONNECTIONS_MAX, CONSOLE_IDLE_TIMEOUT_MS, CONSOLE_KEEP_ALIVE_MS,
    WRITE_STALL_TIMEOUT_MS,
};
use crate::lobby::departure;
use crate::logging;
use crate::session::transport::ByteCounts;
use crate::session::{ControlRequest, Session};
use crate::state::connections::{OperatorFlag, Peer, Phase};
use crate::state::handle::StateHandle;
use forkade_text::opening::ForeignProtocol;

const SOCKET: Token = Token(0);
const SIGNALS: Token = Token(1);
const LIFELINE: Token = Token(2);
const ROOM_DOORBELL: Token = Token(3);
const DOORBELL_ANSWER: Token = Token(4);

/// The first reply of a successor whose predecessor died with an unfinished command.
const INTERRUPTED: &str = "interrupted: this console's process was replaced; repeat the command";

/// Serves an operator, in the process that was forked for the connection. Returns the exit status; 0 means that the
/// connection has ended.
pub(crate) fn run(state: &mut StateHandle, connection: u32, socket: OwnedFd, context: ConsoleContext) -> u8 {
    logging::set_role("console");
    let served = Console::attach(state, connection, socket, context).and_then(|mut console| console.serve());
    match served {
        Ok(Exit::Connection) => 0,
        Ok(Exit::Server) => 1,
        Err(error) => {
            log::error!("the console failed: {error}");
            1
        }
    }
}

/// Why the process ends.
enum Exit {
    /// The connection has ended.
    Connection,
    /// The supervisor has ended.
    Server,
}

struct Console<'s> {
    context: ConsoleContext,
    session: Session<'s>,
    socket: OwnedFd,
    poll: Poll,
    signals: Signals,
    terminal: Terminal,
    /// Bytes that were received and not processed yet.
    input: VecDeque<u8>,
    /// Bytes that the kernel has not taken yet.
    output: VecDeque<u8>,
    /// The reply that is being written.
    reply: Option<Reply>,
    /// The live view that is running, if any.
    live_view: Option<LiveView>,
    /// When the live view must be advanced at the latest.
    view_due_at_ms: u64,
    stage: Stage,
    stage_began_ms: u64,
    /// Why the server ends the connection; `None` if the operator does.
    close_reason: Option<String>,
    /// A guess at the password that is not answered yet: whether it is right, and when the answer is due.
    guess: Option<(bool, u64)>,
    wrong_guesses: u32,
    /// When the operator last completed a line or read a part of the reply.
    last_active_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Commands are read and answered.
    Open,
    /// The remaining output is written; no further command is read.
    Closing,
    /// All output is written. Input is discarded until the operator closes the connection too: if it were closed with
    /// unread bytes, the kernel would reset it, and the last output could be lost.
    Lingering,
}

/// The result of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// More can be done without waiting.
    Continue,
    /// The next step waits for the socket, a signal or a time.
    Wait,
    /// The connection has ended.
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
        if let Peer::Network(_) = state.memory.connections.at(connection).peer() {
            enable_keepalive(&socket)?;
        }
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
        let (session, _) = Session::attach(state, connection, ByteCounts::default());
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
            guess: None,
            wrong_guesses: 0,
            last_active_ms: now,
        };
        if predecessor == Predecessor::Interrupted {
            // The predecessor may have written half a line.
            console.write_line("");
            // A client that negotiates as telnet does speaks nothing else.
            let is_operator = console.session.record().has_operator_flag(OperatorFlag::Commands);
            match is_operator || console.terminal.is_in_character_mode() {
                true => console.write_error(INTERRUPTED),
                // The lines that would have shown another protocol are lost.
                false => {
                    console.close_with(INTERRUPTED);
                }
            }
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
                    // Signals only wake the process; each step checks the flags that they announce.
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

    /// Does one thing that needs no waiting.
    fn step(&mut self) -> io::Result<Step> {
        if self.stage == Stage::Open && self.session.control_request() == ControlRequest::Stop {
            return Ok(self.close_with("the server is stopping"));
        }
        if self.stage == Stage::Open && self.session.record().has_operator_flag(OperatorFlag::MakesRoom) {
            return Ok(self.close_with(&format!(
                "closed: another operator has connected, {CONSOLE_CONNECTIONS_MAX} consoles were open, and this one \
                 was idle the longest"
            )));
        }
        if !self.output.is_empty() {
            return Ok(self.send());
        }
        if let Some(reply) = &mut self.reply {
            if !reply.write_next(self.session.state, self.terminal.line_end(), &mut self.output) {
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
        if let Some((is_right, at_ms)) = self.guess {
            return Ok(match now_ms() < at_ms {
                true => {
                    self.view_due_at_ms = at_ms;
                    Step::Wait
                }
                false => self.judge_guess(is_right),
            });
        }
        let accepts_input = self.live_view.as_ref().is_none_or(LiveView::ends_on_input);
        Ok(match self.stage {
            Stage::Open if !accepts_input => self.advance_view()?,
            Stage::Open if !self.input.is_empty() => self.process_input()?,
            Stage::Open => match self.receive() {
                Step::Wait => self.advance_view()?,
                step => step,
            },
            Stage::Closing => self.finish_output(),
            Stage::Lingering => self.drain_input(),
        })
    }

    fn set_reply(&mut self, reply: Reply) {
        self.reply = Some(reply);
    }

    fn start_view(&mut self, live_view: LiveView) {
        self.live_view = Some(live_view);
    }

    fn end_view(&mut self) -> io::Result<()> {
        self.view_due_at_ms = u64::MAX;
        self.live_view
            .take()
            .map_or(Ok(()), |live_view| live_view.end(self.session.state, &self.poll))
    }

    /// The operator has entered a line, or has read a part of the reply.
    fn record_activity(&mut self) {
        self.last_active_ms = now_ms();
        // The listener finds by this the console that is idle the longest.
        let record = self.session.record();
        record
            .last_frame_at_ms
            .store(self.last_active_ms, Ordering::Relaxed);
    }

    /// Ends the connection because it speaks another protocol. What has arrived behind it is not executed, not even by
    /// a successor.
    fn refuse_protocol(&mut self, protocol: ForeignProtocol) {
        let record = self.session.record();
        record.set_operator_flag(OperatorFlag::Commands, false);
        log::warn!(
            "a client at {} has sent {protocol} to the console: nothing of it is executed",
            record.peer()
        );
        self.input.clear();
        self.close_with(&format!(
            "this is the console of a game server, which does not speak {protocol}"
        ));
    }

    /// Ends the connection after the current reply, if any, is complete.
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
            self.terminal.clear_prompt(&mut self.output);
            self.write_error(&why);
            return Step::Continue;
        }
        match shut_down(&self.socket, Shutdown::Write) {
            Ok(()) => self.enter(Stage::Lingering),
            Err(_) => Step::Done,
        }
    }

    /// When to stop waiting for the operator.
    fn deadline_ms(&self) -> u64 {
        match self.stage {
            Stage::Open if self.needs_password() => self.password_due_ms(),
            // A live view may last for any time; TCP keepalive detects an operator that is gone.
            Stage::Open if self.output.is_empty() && self.live_view.is_some() => u64::MAX,
            Stage::Open if self.output.is_empty() => self.last_active_ms + CONSOLE_IDLE_TIMEOUT_MS,
            Stage::Open => self.last_active_ms + WRITE_STALL_TIMEOUT_MS,
            Stage::Closing | Stage::Lingering => self.stage_began_ms + CLOSING_TIMEOUT_MS,
        }
    }

    /// Handles the deadline. `true`: the connection ends now; `false`: the reason for its end is still to be written.
    fn on_deadline(&mut self) -> bool {
        if self.stage == Stage::Open && self.needs_password() {
            self.refuse_without_password();
            // It need not read that.
            return false;
        }
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
        self.session.record().current_frame.store(0, Ordering::Release);
    }
}

/// Enables TCP keepalive, by which the kernel detects that the operator's machine is gone.
fn enable_keepalive(socket: &OwnedFd) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_millis(CONSOLE_KEEP_ALIVE_MS))
        .with_interval(Duration::from_millis(CONSOLE_KEEP_ALIVE_MS / 4));
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// Which process served this connection before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Predecessor {
    /// None: the connection is new.
    None,
    /// A process that had no unfinished command.
    Idle,
    /// A process that died with an unfinished command.
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
    match record.current_frame.load(Ordering::Acquire) {
        0 => Predecessor::Idle,
        _ => Predecessor::Interrupted,
    }
}
