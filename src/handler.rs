//! A handler: animates one connection and its player. Bytes in, transactions, bytes out.
//!
//! It must never keep anything that a successor would need anywhere but in shared memory: it can be killed between any two
//! instructions, and the next one goes on from what the kernel and the records say.

mod patience;

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use forkade_protocol::ErrorCode;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::Signal;
use socket2::{SockRef, TcpKeepalive};

use self::patience::{Deadline, Meaning, Times, next_deadline};
use crate::limits::{CLOSING_TIMEOUT_MS, RESUME_TIMEOUT_MS, TEXT_KEEPALIVE_SECONDS, YIELD_TIMEOUT_MS};
use crate::lobby::Lobby;
use crate::lobby::connections::{Kind, Phase};
use crate::lobby::session::{Farewell, Resume, Session, Wanted};
use crate::lobby::transport::{Passed, Receipt};
use crate::player::{self, Handshake, Next};
use crate::role::Context;
use crate::room_bell::RoomBell;
use crate::sys::clock::now_ms;
use crate::sys::process::{NewProcess, ProcessId, set_name};
use crate::sys::signals::Signals;
use crate::sys::sockets::{SendOutcome, shut_down};
use crate::sys::tcp_cursors::{CursorError, TcpCursors};
use crate::wiring::Delivery;
use crate::{console, logging};

/// Rounds of work after which a process looks at its signals, however much there still is to do.
const ROUNDS_PER_LOOK: u32 = 64;

const SOCKET: Token = Token(0);
const SIGNALS: Token = Token(1);
const LIFELINE: Token = Token(2);
const ROOM_BELL: Token = Token(3);
const BELL_ANSWER: Token = Token(4);
const CHAT_BELL: Token = Token(5);

/// What a keeper gives to a handler.
pub(crate) struct Inheritance<'a> {
    pub(crate) context: Context,
    /// Index of the connection.
    pub(crate) connection: u32,
    pub(crate) socket: &'a OwnedFd,
    /// Another handler has animated the connection before.
    pub(crate) is_successor: bool,
}

/// Runs in the process that was just forked for the connection. Exit status 0 means that the connection has come to its end.
pub(crate) fn run(new_process: &NewProcess, inheritance: Inheritance<'_>) -> u8 {
    logging::set_role("handler");
    let record = inheritance.context.memory.connections.at(inheritance.connection);
    record.pulse.beat();
    record.set_handler(ProcessId::of_self(), inheritance.context.build);
    match serve(new_process, &inheritance) {
        Ok(status) => {
            if status == 0 {
                record.set_over();
            }
            status
        }
        Err(error) => {
            log::error!("cannot go on: {error}");
            1
        }
    }
}

fn serve(new_process: &NewProcess, inheritance: &Inheritance<'_>) -> io::Result<u8> {
    let Context {
        memory,
        games,
        wiring,
        ..
    } = inheritance.context;
    let record = memory.connections.at(inheritance.connection);
    let mut keep = vec![
        inheritance.socket.as_fd(),
        wiring.lifeline.as_fd(),
        wiring.bell_requests.sender.as_fd(),
        wiring.chat_bell.as_fd(),
        wiring.keepers[memory.keeper_index_of(inheritance.connection) as usize]
            .connections
            .sender
            .as_fd(),
    ];
    keep.extend(wiring.keepers.iter().map(|keeper| keeper.bell.as_fd()));
    new_process.keep_only(&keep)?;
    set_name("handler")?;
    let lobby = Lobby::attach(memory, games);
    if record.kind() == Kind::Console {
        return Ok(console::run(
            lobby,
            inheritance.connection,
            inheritance.socket.try_clone()?,
            inheritance.context,
        ));
    }
    let (passed, over) = match inheritance
        .is_successor
        .then(|| TcpCursors::read(inheritance.socket))
    {
        None => (Passed::default(), None),
        Some(Ok(cursors)) => (
            Passed {
                received: cursors.received,
                sent: cursors.handed_over,
            },
            None,
        ),
        Some(Err(error)) => (Passed::default(), Some(error)),
    };
    let (session, plausible) = Session::attach(lobby, inheritance.connection, passed);
    let mut handler = Handler::new(inheritance, session)?;
    match (over, plausible) {
        (Some(CursorError::ConnectionOver), _) => handler.end(),
        (Some(error), _) => {
            log::error!("the connection cannot be taken over: {error}");
            handler.end();
        }
        (None, Err(implausible)) => {
            log::error!("the connection cannot be taken over: {implausible}");
            handler.end();
        }
        (None, Ok(())) => handler.run()?,
    }
    handler.linger()?;
    Ok(u8::from(handler.supervisor_is_gone))
}

struct Handler<'a> {
    context: Context,
    session: Session,
    socket: &'a OwnedFd,
    poll: Poll,
    signals: Signals,
    bell: RoomBell,
    /// The socket may have bytes: true until it says that it has not.
    readable: bool,
    /// The socket may take bytes: true until it says that it does not.
    writable: bool,
    /// The poll has told of the client's end, or of an urgent byte, before which receiving stops: behind what is received at once
    /// there is more, and it will not be told again.
    more_behind: bool,
    /// There was no end of what could be done without waiting.
    more_to_do: bool,
    /// The client has ended its direction, and everything was received.
    client_has_ended: bool,
    /// The chat's bell wakes this process.
    hears_chat_bell: bool,
    /// Somebody may want something of this connection.
    look_at_flags: bool,
    /// When the client last took bytes, or nothing waited for it.
    last_taken_ms: u64,
    supervisor_is_gone: bool,
}

impl<'a> Handler<'a> {
    fn new(inheritance: &Inheritance<'a>, session: Session) -> io::Result<Self> {
        let signals = Signals::block(&[Signal::SIGUSR1, Signal::SIGTERM])?;
        let poll = Poll::new()?;
        let all = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        for (descriptor, token, interest) in [
            (inheritance.socket.as_fd(), SOCKET, all),
            (signals.as_fd(), SIGNALS, Interest::READABLE),
            (
                inheritance.context.wiring.lifeline.as_fd(),
                LIFELINE,
                Interest::READABLE,
            ),
        ] {
            poll.registry()
                .register(&mut SourceFd(&descriptor.as_raw_fd()), token, interest)?;
        }
        Ok(Self {
            context: inheritance.context,
            session,
            socket: inheritance.socket,
            poll,
            signals,
            bell: RoomBell::new(ROOM_BELL, BELL_ANSWER),
            readable: true,
            writable: true,
            more_behind: false,
            more_to_do: false,
            client_has_ended: false,
            hears_chat_bell: false,
            // What a predecessor was told, its successor has to find by itself; and the server may be stopping.
            look_at_flags: true,
            last_taken_ms: now_ms(),
            supervisor_is_gone: false,
        })
    }

    /// Serves until the connection holds nothing any more.
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(8);
        self.begin()?;
        while !self.supervisor_is_gone {
            self.work()?;
            for fault in self.session.lobby.take_faults() {
                log::warn!("the game's code failed: {fault}");
            }
            if self.session.phase() == Phase::DONE {
                return Ok(());
            }
            let patience = if std::mem::take(&mut self.more_to_do) {
                Some(Duration::ZERO)
            } else {
                self.patience()
            };
            match self.poll.poll(&mut events, patience) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    SOCKET => {
                        self.more_behind |= event.is_read_closed() || event.is_priority();
                        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
                    }
                    SIGNALS => {
                        while self.signals.read()?.is_some() {
                            self.look_at_flags = true;
                        }
                    }
                    // Nothing to clear: all who listen share the bell, and each ring is a new edge.
                    ROOM_BELL | CHAT_BELL => {}
                    BELL_ANSWER => self.bell.take_answer(&self.poll)?,
                    LIFELINE => self.supervisor_is_gone = true,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What a successor makes up for.
    fn begin(&mut self) -> io::Result<()> {
        if self.session.phase() == Phase::OPEN {
            self.enter_player();
            self.listen_to_chat()?;
            self.session.show_connected(true);
            // There may be mail, which came while nobody was here to be told.
            self.look_at_flags = true;
        }
        Ok(())
    }

    /// From now on this process is woken when something is said to the lobby.
    fn listen_to_chat(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.hears_chat_bell, true) {
            let bell = self.context.wiring.chat_bell.as_fd().as_raw_fd();
            let registry = self.poll.registry();
            registry.register(&mut SourceFd(&bell), CHAT_BELL, Interest::READABLE)?;
        }
        Ok(())
    }

    /// The connection carries a player.
    fn enter_player(&self) {
        let name = self.session.name();
        logging::set_player(Some(name.as_str()));
        if self.session.is_text() {
            // Nothing is to be expected of a person's machine for as long as the person thinks.
            let patience = TcpKeepalive::new().with_time(Duration::from_secs(TEXT_KEEPALIVE_SECONDS));
            if let Err(error) = SockRef::from(self.socket).set_tcp_keepalive(&patience) {
                log::warn!("the connection will not be asked whether it lives: {error}");
            }
        }
    }

    /// Does what can be done without waiting.
    fn work(&mut self) -> io::Result<()> {
        for _ in 0..ROUNDS_PER_LOOK {
            self.session.record().pulse.beat();
            if std::mem::take(&mut self.look_at_flags) {
                self.offer_to_keeper();
                self.do_what_is_wanted();
            }
            let phase = self.session.phase();
            let mut moved = match phase {
                Phase::HANDSHAKE => self.shake_hands()?,
                Phase::RESUMING => self.resume()?,
                Phase::OPEN => self.play(),
                Phase::DONE => return Ok(()),
                _ => false,
            };
            self.ring_bells()?;
            moved |= self.send();
            self.watch_time();
            if !moved && self.session.phase() == phase {
                return Ok(());
            }
        }
        // A client that never stops sending must not keep this process from its signals and its lifeline.
        self.more_to_do = true;
        Ok(())
    }

    fn shake_hands(&mut self) -> io::Result<bool> {
        let received = self.receive();
        match player::shake_hands(&mut self.session) {
            Handshake::Incomplete if self.client_has_ended => self.end(),
            Handshake::Incomplete => return Ok(received),
            Handshake::Greeted => {
                self.listen_to_chat()?;
                self.enter_player();
                log::debug!("greeted, from {}", self.session.record().peer());
            }
            Handshake::Resuming(keeper) => self.ring_keeper(keeper),
            Handshake::Refused(farewell) => self.session.close(false, &farewell),
        }
        Ok(true)
    }

    fn resume(&mut self) -> io::Result<bool> {
        let refuse = |session: &mut Session, code, text: &str| {
            session.close(false, &Farewell::Error(code, text.to_owned()));
        };
        match self.session.try_resume() {
            Resume::NotYet => {
                self.wait_for_session();
                return Ok(false);
            }
            Resume::Done => {
                log::debug!("resumed, from {}", self.session.record().peer());
                self.begin()?;
            }
            Resume::Superseded => {
                refuse(
                    &mut self.session,
                    ErrorCode::Replaced,
                    "your session goes on on a newer connection",
                );
            }
            Resume::Gone => refuse(
                &mut self.session,
                ErrorCode::TokenUnknown,
                "the session has come to its end",
            ),
            Resume::BeyondTheEnd => {
                refuse(
                    &mut self.session,
                    ErrorCode::Malformed,
                    "more bytes were claimed received than were sent",
                );
            }
        }
        Ok(true)
    }

    /// The session's former handler has not let go yet. One that does not answer is killed: its successor will let go at once.
    fn wait_for_session(&mut self) {
        let waited = now_ms().saturating_sub(self.session.record().last_frame_at_ms.load(Ordering::Relaxed));
        if waited >= RESUME_TIMEOUT_MS {
            let text = "the session is still held by its former connection; try again";
            self.session
                .close(false, &Farewell::Error(ErrorCode::InternalError, text.to_owned()));
        } else if waited >= YIELD_TIMEOUT_MS
            && let Some(holder) = self.session.holder_of_session()
        {
            log::warn!("handler {holder} does not let go of the session: killed");
            if let Err(error) = holder.send_signal(Signal::SIGKILL) {
                log::error!("cannot kill handler {holder}: {error}");
            }
        } else {
            let keeper = self.session.remind_holder_of_session();
            self.ring_keeper(keeper);
        }
    }

    /// Frames in, events out.
    fn play(&mut self) -> bool {
        let mut moved = self.receive();
        loop {
            match player::handle_next_frame(&mut self.session) {
                Next::Handled => moved = true,
                Next::Wait => break,
                Next::Close { leaves, farewell } => {
                    if farewell != Farewell::None && !leaves {
                        log::info!(
                            "closing the connection from {}: {farewell:?}",
                            self.session.record().peer()
                        );
                    }
                    self.session.close(leaves, &farewell);
                    return true;
                }
            }
        }
        match self.session.deliver() {
            Ok(delivered) => moved |= delivered,
            Err(rejection) => log::error!("cannot deliver the room's events: {rejection}"),
        }
        if self.client_has_ended && !moved && !self.session.is_held_up() {
            // It will send nothing more, and all it sent was handled.
            self.session.close(false, &Farewell::None);
            return true;
        }
        moved
    }

    /// Receives what there is and what there is space for. Says whether anything came.
    fn receive(&mut self) -> bool {
        let mut moved = false;
        while self.readable {
            match self.session.receive(self.socket) {
                Ok(Some(Receipt { bytes: 0, .. })) => {
                    self.client_has_ended = true;
                    self.readable = false;
                }
                Ok(Some(receipt)) => {
                    moved = true;
                    self.session.note_typing();
                    self.readable = !receipt.was_all || self.more_behind;
                }
                // Full: what is there must be handled first.
                Ok(None) => break,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.readable = false,
                    io::ErrorKind::Interrupted => {}
                    _ => {
                        self.end();
                        return true;
                    }
                },
            }
        }
        moved
    }

    /// Sends what there is, as far as the kernel takes it. Says whether anything went.
    fn send(&mut self) -> bool {
        let mut moved = false;
        while self.writable {
            match self.session.send(self.socket) {
                Ok(None) => break,
                Ok(Some(_)) => moved = true,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.writable = false,
                    io::ErrorKind::Interrupted => {}
                    _ => {
                        self.end();
                        return true;
                    }
                },
            }
        }
        if moved || self.session.all_sent() {
            self.last_taken_ms = now_ms();
        }
        if moved {
            self.session.forget_sent();
        }
        moved
    }

    /// If the keeper is another than the one that forked this process, gives it a duplicate of the socket: it adopts the connection.
    fn offer_to_keeper(&mut self) {
        let (connection, memory) = (self.session.connection.index(), self.context.memory);
        let keeper = memory.keeper_of(connection);
        if self.session.record().keeper_epoch() == keeper.epoch.load(Ordering::Acquire) {
            return;
        }
        let channel = &self.context.wiring.keepers[memory.keeper_index_of(connection) as usize]
            .connections
            .sender;
        match channel.send(&Delivery::Adopt { connection }.encode(), &[self.socket.as_fd()]) {
            Ok(SendOutcome::Sent) => {}
            // A thousand offer themselves at once: the keeper asks again those whose offer it has not had.
            Ok(SendOutcome::WouldBlock | SendOutcome::PeerGone) => {}
            Err(error) => log::warn!("cannot offer the connection to the keeper: {error}"),
        }
    }

    fn do_what_is_wanted(&mut self) {
        let phase = self.session.phase();
        let wanted = self.session.wanted();
        match (phase, wanted) {
            (Phase::CLOSING | Phase::OPEN, Wanted::Yield) => self.let_go_of_session(),
            (Phase::CLOSING | Phase::DONE, _) | (_, Wanted::Nothing) => {}
            (_, Wanted::Stop) => self
                .session
                .close(false, &Farewell::ShuttingDown("the server is stopping".into())),
            (Phase::OPEN, Wanted::Kick) => {
                let farewell = Farewell::Error(ErrorCode::Kicked, "an operator has sent you out".into());
                self.session.close(true, &farewell);
            }
            _ => {}
        }
    }

    /// A newer connection is to have the session. What this one was still to get of it, that one will.
    fn let_go_of_session(&mut self) {
        // A predecessor may have died over it, and behind half a frame nothing can be said.
        self.send();
        match self.session.phase() {
            Phase::OPEN => {
                let keeper = self.session.yield_to_claimant();
                self.ring_keeper(keeper);
            }
            Phase::CLOSING => self.end(),
            // The client is gone.
            _ => {}
        }
    }

    fn ring_bells(&mut self) -> io::Result<()> {
        let memory = self.context.memory;
        if self.session.take_chat_bell() {
            self.context.wiring.ring_chat(memory.chat);
        }
        for keeper in self.session.take_keeper_bells() {
            self.context.wiring.ring_keeper(keeper);
        }
        for room in self.session.take_bells() {
            // A bell that is not here (yet) is rung by the ticker, who has them all.
            self.bell.ring(room, &memory.rooms.at(room).log);
        }
        let room = self.session.membership().place().map(|(room, _)| room.index());
        self.bell
            .follow(room, &self.poll, &self.context.wiring.bell_requests.sender)
    }

    fn ring_keeper(&self, keeper: Option<u32>) {
        if let Some(keeper) = keeper {
            self.context.wiring.ring_keeper(keeper);
        }
    }

    /// Ends what has taken too long.
    fn watch_time(&mut self) {
        let farewell = |code, text: &str| Farewell::Error(code, text.into());
        let passed = self
            .next_deadline()
            .filter(|deadline| deadline.at_ms <= now_ms())
            .map(|deadline| deadline.meaning);
        let farewell = match passed {
            Some(Meaning::NotGreeted) => farewell(
                ErrorCode::HandshakeTimeout,
                "you did not greet in time; people press Enter first",
            ),
            Some(Meaning::Silent) => farewell(ErrorCode::Silent, &self.session.why_silent()),
            Some(Meaning::NotReading) => farewell(ErrorCode::NotReading, "you did not read for too long"),
            Some(Meaning::NotClosing) => return self.end(),
            None if self.session.phase() == Phase::CLOSING && self.session.all_sent() => return self.end(),
            Some(Meaning::LookAgain) | None => return,
        };
        self.session.close(false, &farewell);
    }

    /// How long nothing needs to be done, if nothing happens.
    fn patience(&self) -> Option<Duration> {
        let wait_ms = self.next_deadline()?.at_ms.saturating_sub(now_ms());
        Some(Duration::from_millis(wait_ms.max(1)))
    }

    fn next_deadline(&self) -> Option<Deadline> {
        let (record, header) = (self.session.record(), self.context.memory.header);
        let times = Times {
            now_ms: now_ms(),
            accepted_at_ms: record.accepted_at_ms.load(Ordering::Relaxed),
            last_frame_at_ms: record.last_frame_at_ms.load(Ordering::Relaxed),
            not_taking_since_ms: (!self.session.all_sent()).then_some(self.last_taken_ms),
            closing_since_ms: self.session.closing_since_ms(),
            bell_is_out_of_reach: self.bell.is_out_of_reach(),
            handshake_timeout_ms: header.handshake_timeout_ms.load(Ordering::Relaxed),
            heartbeat_timeout_ms: self.session.silence_max_ms(),
        };
        next_deadline(self.session.phase(), &times)
    }

    /// Ends the connection's hold on everything.
    fn end(&mut self) {
        let keeper = self.session.finish();
        self.ring_keeper(keeper);
        // The room is told by the bell it has, or, where that is not here, by the ticker.
        for room in self.session.take_bells() {
            self.bell.ring(room, &self.context.memory.rooms.at(room).log);
        }
    }

    /// Shuts the connection down, and reads on for a moment: closed with unread bytes, the kernel would send a reset, and the
    /// client could lose what it has not read yet.
    fn linger(&mut self) -> io::Result<()> {
        // For all duplicates: the keeper's would keep the connection open.
        shut_down(self.socket, Shutdown::Write)?;
        let give_up_at = now_ms() + CLOSING_TIMEOUT_MS;
        let mut events = Events::with_capacity(8);
        let mut ignored = [0; 4096];
        while !self.client_has_ended && !self.supervisor_is_gone && now_ms() < give_up_at {
            self.session.record().pulse.beat();
            match crate::sys::sockets::receive_into(self.socket, &mut ignored) {
                crate::sys::sockets::Received::Bytes(_) => continue,
                crate::sys::sockets::Received::WouldBlock => {}
                _ => break,
            }
            let patience = Duration::from_millis(give_up_at.saturating_sub(now_ms()));
            match self.poll.poll(&mut events, Some(patience)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                polled => polled?,
            }
            self.supervisor_is_gone |= events.iter().any(|event| event.token() == LIFELINE);
        }
        shut_down(self.socket, Shutdown::Both)
    }
}
