//! The console: an operator's connection, line by line, for `telnet` and for scripts alike.
//!
//! - A line is a command; `help` lists them. Every reply ends in a line `OK` or `ERR <why>`. Lines end in CR LF. Nothing is sent
//!   before the first command, so that what a script reads first is the reply to what it asked first.
//! - With `--json` the answer to a query is one line of JSON. Lists are read from the tables in small steps, each under one lock
//!   for microseconds, so a list is no picture of one moment: who comes or goes meanwhile may be in it or not.
//! - A connection that is ended by the server is told why by a last line `ERR <why>`.
//! - There is no password: who can connect to the console's port may do all of this. It belongs on a loopback address.
//!
//! The process is a handler like any other, with an operator instead of a player. It must never hold a lock while it waits for
//! the operator's socket, and never hold more of an answer than one step of it: an operator who does not read stops being answered,
//! and nobody else notices. When it is killed, its successor goes on with the connection; what the operator had asked for
//! meanwhile is not in shared memory, so the successor says that it is lost ([`INTERRUPTED`]), and only if there was anything.

mod actions;
mod commands;
mod queries;
mod replies;

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use self::commands::{Command, Query};
use self::replies::Reply;
use crate::limits::{
    CLOSING_TIMEOUT_MS, CONSOLE_IDLE_TIMEOUT_MS, CONSOLE_LINE_BYTES_MAX, WRITE_STALL_TIMEOUT_MS,
};
use crate::lobby::Lobby;
use crate::lobby::connections::Phase;
use crate::lobby::session::{Session, Wanted};
use crate::lobby::transport::Passed;
use crate::logging;
use crate::role::Context;
use crate::shm::transaction::Animated;
use crate::sys::clock::now_ms;
use crate::sys::process::set_name;
use crate::sys::signals::{Signal, Signals};
use crate::sys::sockets::{Received, Sent, receive_into, send_from, shut_down};
use crate::telnet::{Input, LineReader};

const SOCKET: Token = Token(0);
const SIGNALS: Token = Token(1);
const LIFELINE: Token = Token(2);

/// Bytes that are received at once.
const RECEIVE_BYTES: usize = 4096;

/// What a successor says first, if its predecessor died over something.
const INTERRUPTED: &str = "interrupted: this console's process was replaced; repeat the command";

/// Serves an operator, in the process that was forked for the connection. Exit status 0 means that the connection has come to
/// its end.
pub(crate) fn run(lobby: Lobby, connection: u32, socket: OwnedFd, context: Context) -> u8 {
    logging::set_role("console");
    let served = Console::attach(lobby, connection, socket, context).and_then(|mut console| console.serve());
    match served {
        Ok(End::Connection) => 0,
        Ok(End::Server) => 1,
        Err(error) => {
            log::error!("cannot go on: {error}");
            1
        }
    }
}

/// What has come to its end.
enum End {
    Connection,
    Server,
}

struct Console {
    context: Context,
    session: Session,
    socket: OwnedFd,
    poll: Poll,
    signals: Signals,
    reader: LineReader,
    /// Received, and not looked at yet.
    input: VecDeque<u8>,
    /// Said, and not taken by the kernel yet.
    output: VecDeque<u8>,
    /// The answer that is being given.
    reply: Option<Reply>,
    stage: Stage,
    stage_began_ms: u64,
    /// Why the server ends the connection, if it is the server that does.
    farewell: Option<String>,
    /// When the operator last sent something complete or took something of the answer.
    last_active_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Commands are taken and answered.
    Talking,
    /// What is left to say is said; no command is taken any more.
    Ending,
    /// All is said. What arrives is thrown away until the operator ends the connection too: closed with unread bytes, the
    /// kernel would reset it, and what was said last could be lost.
    Lingering,
}

/// What the next turn of the loop should begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There is more to do at once.
    Again,
    /// Waiting for the socket, a signal or a time.
    Wait,
    /// The connection is over.
    Over,
}

impl Console {
    fn attach(mut lobby: Lobby, connection: u32, socket: OwnedFd, context: Context) -> io::Result<Self> {
        let signals = Signals::block(&[Signal::SIGUSR1, Signal::SIGTERM])?;
        set_name("console")?;
        let poll = Poll::new()?;
        for (descriptor, token, interest) in [
            (socket.as_fd(), SOCKET, Interest::READABLE | Interest::WRITABLE),
            (signals.as_fd(), SIGNALS, Interest::READABLE),
            (context.wiring.lifeline.as_fd(), LIFELINE, Interest::READABLE),
        ] {
            poll.registry()
                .register(&mut SourceFd(&descriptor.as_raw_fd()), token, interest)?;
        }
        let interrupted = predecessor_was_interrupted(&mut lobby, connection);
        let (session, _) = Session::attach(lobby, connection, Passed::default());
        let now = now_ms();
        let mut console = Self {
            context,
            session,
            socket,
            poll,
            signals,
            reader: LineReader::new(CONSOLE_LINE_BYTES_MAX),
            input: VecDeque::new(),
            output: VecDeque::new(),
            reply: None,
            stage: Stage::Talking,
            stage_began_ms: now,
            farewell: None,
            last_active_ms: now,
        };
        if interrupted {
            // The predecessor may have said half a line.
            console.say("");
            console.refuse(INTERRUPTED);
        }
        Ok(console)
    }

    fn serve(&mut self) -> io::Result<End> {
        let mut events = Events::with_capacity(8);
        while self.session.phase() != Phase::DONE {
            let turn = self.take_turn();
            let patience_ms = self.deadline_ms().saturating_sub(now_ms());
            if turn == Turn::Over || (patience_ms == 0 && self.run_out_of_patience()) {
                break;
            }
            let timeout = Duration::from_millis(if turn == Turn::Wait { patience_ms } else { 0 });
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    LIFELINE => return Ok(End::Server),
                    // They only wake the process up; what they are about is looked at in each turn.
                    SIGNALS => while self.signals.read()?.is_some() {},
                    _ => {}
                }
            }
        }
        self.close();
        Ok(End::Connection)
    }

    /// Does one thing that can be done without waiting.
    fn take_turn(&mut self) -> Turn {
        if self.stage == Stage::Talking && self.session.wanted() == Wanted::Stop {
            return self.end_because("the server is stopping");
        }
        if !self.output.is_empty() {
            return self.send();
        }
        if let Some(reply) = &mut self.reply {
            if !reply.give_more(&mut self.session.lobby, &mut self.output) {
                self.reply = None;
            }
            return Turn::Again;
        }
        match self.stage {
            Stage::Talking if self.input.is_empty() => self.receive(),
            Stage::Talking => self.read_on(),
            Stage::Ending => self.take_leave(),
            Stage::Lingering => self.discard(),
        }
    }

    fn send(&mut self) -> Turn {
        match send_from(&self.socket, self.output.as_slices().0) {
            Sent::Bytes(bytes) => {
                self.output.drain(..bytes);
                self.last_active_ms = now_ms();
                Turn::Again
            }
            Sent::WouldBlock => Turn::Wait,
            Sent::Gone(_) => Turn::Over,
        }
    }

    fn receive(&mut self) -> Turn {
        let record = self.session.record();
        // Before anything is taken from the kernel, so that nothing can be lost unnoticed. The time tells one piece of work
        // from the next: only a process that dies over the same piece again and again is to blame.
        record.working_on.store(now_ms().max(1), Ordering::Release);
        let mut buffer = [0; RECEIVE_BYTES];
        match receive_into(&self.socket, &mut buffer) {
            Received::Bytes(bytes) => {
                self.input.extend(&buffer[..bytes]);
                Turn::Again
            }
            Received::WouldBlock => {
                if self.reader.is_between_lines() {
                    record.working_on.store(0, Ordering::Release);
                }
                Turn::Wait
            }
            // All complete lines before the end were answered. An incomplete one may lack its end: it is not obeyed.
            Received::Ended => self.enter(Stage::Ending),
            Received::Gone(_) => Turn::Over,
        }
    }

    /// Takes in what was received, up to the first thing that is to be answered.
    fn read_on(&mut self) -> Turn {
        while self.output.is_empty() && self.reply.is_none() && self.stage == Stage::Talking {
            let Some(byte) = self.input.pop_front() else { break };
            let Some(input) = self.reader.push(byte) else {
                continue;
            };
            self.last_active_ms = now_ms();
            match input {
                Input::Answer(answer) => self.output.extend(answer),
                Input::TooLong => {
                    self.refuse(&format!("line too long: at most {CONSOLE_LINE_BYTES_MAX} bytes"))
                }
                Input::Line(line) => self.obey(&line),
            }
        }
        Turn::Again
    }

    fn obey(&mut self, line: &[u8]) {
        let command = match commands::parse(line) {
            Ok(command) => command,
            Err(error) => return self.refuse(&error.to_string()),
        };
        let lobby = &mut self.session.lobby;
        match command {
            Command::Help(None) => self.reply = Some(Reply::Lines(commands::overview())),
            Command::Help(Some(about)) => self.reply = Some(Reply::Lines(about.explanation())),
            Command::Query(query, form) => {
                self.reply = Some(match query {
                    Query::Status => Reply::object(&queries::status(lobby, self.context), form),
                    Query::Processes { memory } => {
                        Reply::list(queries::processes(self.context, memory), form)
                    }
                    Query::Players => Reply::list(queries::players(), form),
                    Query::Rooms => Reply::list(queries::rooms(), form),
                    Query::Locks { all } => Reply::list(queries::locks(all), form),
                });
            }
            Command::Kick(name) => match actions::kick(lobby, self.context.wiring, &name) {
                Ok(()) => self.say(replies::OK),
                Err(error) => self.refuse(&error.to_string()),
            },
            Command::Stop => match actions::stop(self.context) {
                Ok(()) => self.say(replies::OK),
                Err(error) => self.refuse(&format!("cannot signal the supervisor: {error}")),
            },
            Command::Quit => {
                self.say(replies::OK);
                self.enter(Stage::Ending);
            }
        }
    }

    fn say(&mut self, line: &str) {
        self.output.extend(line.as_bytes());
        self.output.extend(replies::LINE_END.as_bytes());
    }

    fn refuse(&mut self, why: &str) {
        self.say(&format!("ERR {why}"));
    }

    /// Ends the connection when the answer that is being given, if any, is complete.
    fn end_because(&mut self, why: &str) -> Turn {
        self.farewell = Some(why.to_owned());
        self.enter(Stage::Ending)
    }

    fn enter(&mut self, stage: Stage) -> Turn {
        self.stage = stage;
        self.stage_began_ms = now_ms();
        Turn::Again
    }

    fn take_leave(&mut self) -> Turn {
        if let Some(why) = self.farewell.take() {
            self.refuse(&why);
            return Turn::Again;
        }
        match shut_down(&self.socket, Shutdown::Write) {
            Ok(()) => self.enter(Stage::Lingering),
            Err(_) => Turn::Over,
        }
    }

    fn discard(&mut self) -> Turn {
        match receive_into(&self.socket, &mut [0; RECEIVE_BYTES]) {
            Received::Bytes(_) => Turn::Again,
            // The server's end is not kept waiting by an operator who just sits there.
            Received::WouldBlock if self.session.wanted() != Wanted::Stop => Turn::Wait,
            _ => Turn::Over,
        }
    }

    /// When patience with the operator ends.
    fn deadline_ms(&self) -> u64 {
        match self.stage {
            Stage::Talking if self.output.is_empty() => self.last_active_ms + CONSOLE_IDLE_TIMEOUT_MS,
            Stage::Talking => self.last_active_ms + WRITE_STALL_TIMEOUT_MS,
            Stage::Ending | Stage::Lingering => self.stage_began_ms + CLOSING_TIMEOUT_MS,
        }
    }

    /// Whether the connection is over now. (Else there is still something to say.)
    fn run_out_of_patience(&mut self) -> bool {
        if !self.output.is_empty() {
            log::info!(
                "the operator at {} does not read: closing",
                self.session.record().peer()
            );
            return true;
        }
        if self.stage != Stage::Talking {
            return true;
        }
        self.end_because(&format!(
            "closed: no line for {} seconds",
            CONSOLE_IDLE_TIMEOUT_MS / 1000
        ));
        false
    }

    fn close(&mut self) {
        if let Err(error) = shut_down(&self.socket, Shutdown::Both) {
            log::warn!("cannot shut the connection down: {error}");
        }
        if let Some(keeper) = self.session.finish() {
            self.context.wiring.ring_keeper(keeper);
        }
        self.session.record().working_on.store(0, Ordering::Release);
    }
}

/// Whether another process has animated this connection before and died over something that the operator has sent.
fn predecessor_was_interrupted(lobby: &mut Lobby, connection: u32) -> bool {
    let record = lobby.memory.connections.at(connection);
    lobby
        .memory
        .settle(&mut lobby.hand, record.noted_lock().load(Ordering::Relaxed));
    lobby.hand.animate(record);
    let is_successor = lobby.hand.own(&record.occupant) == record.reference(connection).generation();
    is_successor && record.working_on.load(Ordering::Acquire) != 0
}
