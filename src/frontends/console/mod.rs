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
mod editor;
mod execute;
mod format_frame;
mod live_views;
mod queries;
mod replies;
mod telnet_options;
mod terminal;

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{SockRef, TcpKeepalive};

use crate::frontends::console::live_views::{Activity, Progress};
use crate::frontends::console::replies::Reply;
use crate::frontends::console::terminal::{Input, Terminal};
use crate::limits::{
    CLOSING_TIMEOUT_MS, CONSOLE_IDLE_TIMEOUT_MS, CONSOLE_KEEP_ALIVE_MS, CONSOLE_LINE_BYTES_MAX,
    WRITE_STALL_TIMEOUT_MS,
};
use crate::lobby::Lobby;
use crate::logging;
use crate::process::process_table::Context;
use crate::session::transport::Passed;
use crate::session::{Session, Wanted};
use crate::state::connections::Phase;
use forkade_text::render;
use shmem::sys::clock::now_ms;
use shmem::sys::process::set_name;
use shmem::sys::signals::{Signal, Signals};
use shmem::sys::sockets::{Received, Sent, receive_into, send_from, shut_down};
use shmem::transaction::Animated;

const SOCKET: Token = Token(0);
const SIGNALS: Token = Token(1);
const LIFELINE: Token = Token(2);
const ROOM_BELL: Token = Token(3);
const BELL_ANSWER: Token = Token(4);

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
    terminal: Terminal,
    /// Received, and not looked at yet.
    input: VecDeque<u8>,
    /// Said, and not taken by the kernel yet.
    output: VecDeque<u8>,
    /// The answer that is being given.
    reply: Option<Reply>,
    /// What goes on until it is over, or until the operator sends a line.
    activity: Option<Activity>,
    /// When it is to be asked again, whatever happens.
    look_again_at_ms: u64,
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
        keep_alive(&socket)?;
        let predecessor = predecessor_of(&mut lobby, connection);
        let mode = lobby
            .memory
            .connections
            .at(connection)
            .terminal
            .load(Ordering::Acquire);
        let terminal = match predecessor {
            Predecessor::None => Terminal::new(),
            _ => Terminal::resumed(mode),
        };
        let (session, _) = Session::attach(lobby, connection, Passed::default());
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
            activity: None,
            look_again_at_ms: u64::MAX,
            stage: Stage::Talking,
            stage_began_ms: now,
            farewell: None,
            last_active_ms: now,
        };
        if predecessor == Predecessor::Interrupted {
            // The predecessor may have said half a line.
            console.say("");
            console.refuse(INTERRUPTED);
        }
        Ok(console)
    }

    fn serve(&mut self) -> io::Result<End> {
        let mut events = Events::with_capacity(8);
        while self.session.phase() != Phase::DONE {
            self.session.record().pulse.beat();
            let turn = self.take_turn()?;
            let patience_ms = self.deadline_ms().saturating_sub(now_ms());
            if turn == Turn::Over || (patience_ms == 0 && self.run_out_of_patience()) {
                break;
            }
            let look_again_ms = match self.output.is_empty() {
                true => self.look_again_at_ms.saturating_sub(now_ms()),
                false => u64::MAX,
            };
            let patience_ms = patience_ms.min(look_again_ms);
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
                    BELL_ANSWER => {
                        if let Some(activity) = &mut self.activity {
                            activity.take_bell(&self.poll)?;
                        }
                    }
                    _ => {}
                }
            }
        }
        self.close();
        Ok(End::Connection)
    }

    /// Does one thing that can be done without waiting.
    fn take_turn(&mut self) -> io::Result<Turn> {
        if self.stage == Stage::Talking && self.session.wanted() == Wanted::Stop {
            return Ok(self.end_because("the server is stopping"));
        }
        if !self.output.is_empty() {
            return Ok(self.send());
        }
        if let Some(reply) = &mut self.reply {
            if !reply.give_more(&mut self.session.lobby, &mut self.output) {
                self.reply = None;
            }
            return Ok(Turn::Again);
        }
        if self.stage == Stage::Talking && self.activity.is_none() && self.input.is_empty() {
            self.terminal.prompt(&mut self.output);
            if !self.output.is_empty() {
                return Ok(self.send());
            }
        }
        let listens = self.activity.as_ref().is_none_or(Activity::lasts_until_a_line);
        Ok(match self.stage {
            Stage::Talking if !listens => self.go_on()?,
            Stage::Talking if !self.input.is_empty() => self.read_on()?,
            Stage::Talking => match self.receive() {
                Turn::Wait => self.go_on()?,
                turn => turn,
            },
            Stage::Ending => self.take_leave(),
            Stage::Lingering => self.discard(),
        })
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
                if self.terminal.is_between_lines() && self.activity.is_none() {
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
    fn read_on(&mut self) -> io::Result<Turn> {
        let is_free = |console: &Self| {
            console.output.is_empty()
                && console.reply.is_none()
                && console.stage == Stage::Talking
                && console.activity.as_ref().is_none_or(Activity::lasts_until_a_line)
        };
        while is_free(self) {
            let Some(byte) = self.input.pop_front() else { break };
            let follows = self.activity.is_some();
            let Some(input) = self.terminal.push(byte, follows, &mut self.output) else {
                continue;
            };
            self.last_active_ms = now_ms();
            match input {
                Input::TooLong => {
                    self.refuse(&format!("line too long: at most {CONSOLE_LINE_BYTES_MAX} bytes"))
                }
                _ if follows => {
                    self.end_activity()?;
                    self.say(replies::OK);
                }
                Input::Line(line) => self.obey(&line),
                Input::Interrupt => {}
                Input::End => {
                    self.enter(Stage::Ending);
                }
            }
        }
        // A successor finds the operator's terminal as it was left.
        let mode = self.terminal.mode();
        self.session.record().terminal.store(mode, Ordering::Release);
        Ok(Turn::Again)
    }

    fn answer(&mut self, reply: Reply) {
        self.reply = Some(reply);
    }

    fn begin(&mut self, activity: Activity) {
        self.activity = Some(activity);
    }

    /// Lets what goes on say what there is to say.
    fn go_on(&mut self) -> io::Result<Turn> {
        let Some(activity) = &mut self.activity else {
            return Ok(Turn::Wait);
        };
        match activity.go_on(&mut self.session.lobby, &self.poll)? {
            Progress::Said(lines) => {
                // From now on the operator has time to read, however long it was quiet.
                self.last_active_ms = now_ms();
                for line in lines {
                    // What somebody has said must not begin a row of its own at the terminal's edge, and look like another record.
                    match self.terminal.columns() {
                        Some(columns) => render::wrap_to("", &line, columns.saturating_sub(1))
                            .lines()
                            .for_each(|row| self.say(row)),
                        None => self.say(&line),
                    }
                }
            }
            Progress::Wait { until_ms } => {
                self.look_again_at_ms = until_ms;
                return Ok(Turn::Wait);
            }
            Progress::Over(reply) => {
                self.end_activity()?;
                self.answer(reply);
            }
            Progress::Failed(why) => {
                self.end_activity()?;
                self.refuse(&why);
            }
        }
        Ok(Turn::Again)
    }

    fn end_activity(&mut self) -> io::Result<()> {
        self.look_again_at_ms = u64::MAX;
        self.activity
            .take()
            .map_or(Ok(()), |activity| activity.end(&self.session.lobby, &self.poll))
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
        self.look_again_at_ms = u64::MAX;
        self.enter(Stage::Ending)
    }

    fn enter(&mut self, stage: Stage) -> Turn {
        self.stage = stage;
        self.stage_began_ms = now_ms();
        Turn::Again
    }

    fn take_leave(&mut self) -> Turn {
        if let Some(why) = self.farewell.take() {
            self.terminal.make_way(&mut self.output);
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
            // It lasts for as long as the operator likes; whether there still is one, the kernel asks.
            Stage::Talking if self.output.is_empty() && self.activity.is_some() => u64::MAX,
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

/// Has the kernel find out when the operator's machine is gone, even if nobody says anything.
fn keep_alive(socket: &OwnedFd) -> io::Result<()> {
    let keep_alive = TcpKeepalive::new()
        .with_time(Duration::from_millis(CONSOLE_KEEP_ALIVE_MS))
        .with_interval(Duration::from_millis(CONSOLE_KEEP_ALIVE_MS / 4));
    SockRef::from(socket).set_tcp_keepalive(&keep_alive)
}

/// Who has animated this connection before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Predecessor {
    None,
    /// It had nothing in hand when it died.
    Rested,
    /// It died over something that the operator has sent.
    Interrupted,
}

fn predecessor_of(lobby: &mut Lobby, connection: u32) -> Predecessor {
    let record = lobby.memory.connections.at(connection);
    lobby
        .memory
        .settle(&mut lobby.hand, record.noted_lock().load(Ordering::Relaxed));
    lobby.hand.animate(record);
    if lobby.hand.own(&record.occupant) != record.reference(connection).generation() {
        return Predecessor::None;
    }
    match record.working_on.load(Ordering::Acquire) {
        0 => Predecessor::Rested,
        _ => Predecessor::Interrupted,
    }
}
