//! One connection of a handler's: what it remembers between turns, and what it does in one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use forkade_protocol::ErrorCode;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Poll};
use nix::sys::signal::Signal;
use socket2::{SockRef, TcpKeepalive};

use super::CHAT_BELL;
use super::patience::{Deadline, Meaning, Times, next_deadline};
use super::room_bells::RoomBells;
use crate::limits::{RESUME_TIMEOUT_MS, TEXT_KEEPALIVE_SECONDS, YIELD_TIMEOUT_MS};
use crate::lobby::Lobby;
use crate::lobby::connections::{Claim, Phase};
use crate::lobby::memory::{ConnectionRef, RoomRef};
use crate::lobby::session::{Farewell, Parked, Resume, Session, Wanted};
use crate::lobby::transport::Passed;
use crate::logging;
use crate::player::{self, Handshake, Next};
use crate::role::Context;
use crate::sys::clock::now_ms;
use crate::sys::process::ProcessId;
use crate::sys::sockets::SendOutcome;
use crate::sys::tcp_cursors::{CursorError, TcpCursors};
use crate::wiring::Delivery;

/// Rounds of work in one turn, after which others come to theirs, however much there still is to do; and the process looks at its signals
/// and its lifeline.
const ROUNDS_PER_TURN: u32 = 64;
/// The same where others wait for their turn.
const ROUNDS_PER_SHARED_TURN: u32 = 8;

/// What all clients of a process share.
pub(super) struct Shared {
    pub(super) context: Context,
    /// Index of the keeper.
    pub(super) keeper: u32,
    pub(super) me: ProcessId,
    pub(super) poll: Poll,
    pub(super) bells: RoomBells,
    /// Places of clients that have something to do now, through what another one did.
    pub(super) woken: Vec<usize>,
    /// Whether there may be others than the one whose turn it is.
    pub(super) serves_several: bool,
    /// Lent to whoever has a turn.
    lobby: Option<Lobby>,
    /// The chat's bell wakes this process.
    hears_chat_bell: bool,
}

/// One connection, between its turns.
pub(super) struct Client {
    pub(super) socket: OwnedFd,
    /// In the list of those who have something to do.
    pub(super) is_ready: bool,
    /// Somebody may want something of this connection.
    pub(super) look_at_flags: bool,
    /// The process that the keeper wants it served by.
    pub(super) asked_for_by: Option<ProcessId>,
    /// When the next turn is due, whatever happens; `u64::MAX`: never.
    pub(super) due_ms: u64,
    /// The room whose bell wakes this client.
    pub(super) room: Option<RoomRef>,
    /// `None` only during a turn.
    session: Option<Parked>,
    connection: ConnectionRef,
    pub(super) flow: Flow,
    /// All is said; what still arrives is thrown away until then, or until the client ends the connection, too.
    pub(super) lingers_until_ms: Option<u64>,
}

/// What is known of the socket.
pub(super) struct Flow {
    /// The socket may have bytes: true until it says that it has not.
    pub(super) readable: bool,
    /// The socket may take bytes: true until it says that it does not.
    pub(super) writable: bool,
    /// The poll has told of the client's end, or of an urgent byte, before which receiving stops: behind what is received at once
    /// there is more, and it will not be told again.
    pub(super) more_behind: bool,
    /// The client has ended its direction, and everything was received.
    pub(super) client_has_ended: bool,
    /// When the client last took bytes, or nothing waited for it.
    pub(super) last_taken_ms: u64,
}

/// How a turn has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Until something happens, or the time comes that is due.
    Wait,
    /// There was no end of what could be done without waiting.
    More,
    /// Nothing is left of the connection.
    Over,
    /// Another process is to have it now.
    HandOver(ProcessId),
}

impl Shared {
    pub(super) fn new(context: Context, keeper: u32, lobby: Lobby, me: ProcessId) -> io::Result<Self> {
        Ok(Self {
            context,
            keeper,
            me,
            poll: Poll::new()?,
            bells: RoomBells::new(context.memory, me),
            woken: Vec::new(),
            serves_several: false,
            lobby: Some(lobby),
            hears_chat_bell: false,
        })
    }

    /// Nobody in `place` listens for the room any more.
    pub(super) fn leave_room(&mut self, place: usize, room: Option<RoomRef>) -> io::Result<()> {
        let requests = &self.context.wiring.bell_requests.sender;
        self.bells.follow(place, (room, None), &self.poll, requests)
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

    fn ring_keeper(&self, keeper: Option<u32>) {
        if let Some(keeper) = keeper {
            self.context.wiring.ring_keeper(keeper);
        }
    }
}

impl Client {
    /// Begins to animate a connection. If others have before, the kernel is asked how far they have come.
    pub(super) fn attach(
        place: usize,
        index: u32,
        socket: OwnedFd,
        is_successor: bool,
        shared: &mut Shared,
    ) -> io::Result<Self> {
        let (passed, over) = match is_successor.then(|| TcpCursors::read(&socket)) {
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
        let lobby = shared.lobby.take().expect("lent out only within a turn");
        let (session, plausible) = Session::attach(lobby, index, passed);
        let mut client = Self {
            socket,
            is_ready: false,
            // What a predecessor was told, its successor has to find by itself; and the server may be stopping.
            look_at_flags: true,
            asked_for_by: None,
            due_ms: 0,
            room: None,
            session: None,
            connection: session.connection,
            flow: Flow::new(),
            lingers_until_ms: None,
        };
        client.have_turn(place, shared, session, |turn| {
            match (over, plausible) {
                (Some(CursorError::ConnectionOver), _) => turn.end(),
                (Some(error), _) => {
                    log::error!("the connection cannot be taken over: {error}");
                    turn.end();
                }
                (None, Err(implausible)) => {
                    log::error!("the connection cannot be taken over: {implausible}");
                    turn.end();
                }
                (None, Ok(())) => turn.begin()?,
            }
            turn.ring_bells().map(drop)
        })?;
        Ok(client)
    }

    /// Which connection it is.
    pub(super) fn connection(&self) -> ConnectionRef {
        self.connection
    }

    /// The poll has told of the socket.
    pub(super) fn hear(&mut self, event: &Event) {
        self.flow.more_behind |= event.is_read_closed() || event.is_priority();
        self.flow.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.flow.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// Does what can be done without waiting, or a good part of it.
    pub(super) fn take_turn(&mut self, place: usize, shared: &mut Shared) -> io::Result<Outcome> {
        let lobby = shared.lobby.take().expect("lent out only within a turn");
        let session = self
            .session
            .take()
            .expect("lent out only within a turn")
            .wake(lobby);
        self.have_turn(place, shared, session, |turn| turn.run())
    }

    fn have_turn<R>(
        &mut self,
        place: usize,
        shared: &mut Shared,
        session: Session,
        act: impl FnOnce(&mut Turn<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        if shared.serves_several {
            let name = session.name();
            logging::set_player(Some(name.as_str()).filter(|name| !name.is_empty()));
        }
        let mut turn = Turn {
            place,
            shared,
            client: self,
            session,
        };
        // If this fails, so does the process: what its clients have begun, their successors end.
        let done = act(&mut turn)?;
        let due_ms = turn.due_ms();
        for fault in turn.session.lobby.take_faults() {
            log::warn!("the game's code failed: {fault}");
        }
        let Turn { shared, session, .. } = turn;
        let (parked, lobby) = session.park();
        shared.lobby = Some(lobby);
        self.session = Some(parked);
        self.due_ms = due_ms;
        Ok(done)
    }
}

impl Flow {
    fn new() -> Self {
        Self {
            readable: true,
            writable: true,
            more_behind: false,
            client_has_ended: false,
            last_taken_ms: now_ms(),
        }
    }
}

/// A client while it is being served.
pub(super) struct Turn<'a> {
    place: usize,
    pub(super) shared: &'a mut Shared,
    pub(super) client: &'a mut Client,
    pub(super) session: Session,
}

impl Turn<'_> {
    fn run(&mut self) -> io::Result<Outcome> {
        let has_more = self.client.lingers_until_ms.is_none() && self.work()?;
        if self.session.phase() == Phase::DONE {
            return self.linger();
        }
        if has_more {
            return Ok(Outcome::More);
        }
        // Others know this one as theirs while it plays, and only then.
        Ok(match self.client.asked_for_by.take() {
            Some(other) if self.session.phase() == Phase::OPEN => Outcome::HandOver(other),
            _ => Outcome::Wait,
        })
    }

    /// Does what can be done without waiting. Says whether there is more.
    fn work(&mut self) -> io::Result<bool> {
        let rounds = match self.shared.serves_several {
            true => ROUNDS_PER_SHARED_TURN,
            false => ROUNDS_PER_TURN,
        };
        for _ in 0..rounds {
            if std::mem::take(&mut self.client.look_at_flags) {
                self.offer_to_keeper();
                self.do_what_is_wanted();
            }
            let phase = self.session.phase();
            let mut moved = match phase {
                Phase::HANDSHAKE => self.shake_hands()?,
                Phase::RESUMING => self.resume()?,
                Phase::OPEN => self.play(),
                Phase::DONE => return Ok(false),
                _ => false,
            };
            moved |= self.ring_bells()?;
            moved |= self.send();
            self.watch_time();
            if !moved && self.session.phase() == phase {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a successor makes up for.
    fn begin(&mut self) -> io::Result<()> {
        if self.session.phase() == Phase::OPEN {
            self.enter_player();
            self.shared.listen_to_chat()?;
            self.session.show_connected(true);
            // There may be mail, which came while nobody was here to be told.
            self.client.look_at_flags = true;
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
            if let Err(error) = SockRef::from(&self.client.socket).set_tcp_keepalive(&patience) {
                log::warn!("the connection will not be asked whether it lives: {error}");
            }
        }
    }

    fn shake_hands(&mut self) -> io::Result<bool> {
        let received = self.receive();
        match player::shake_hands(&mut self.session) {
            Handshake::Incomplete if self.client.flow.client_has_ended => self.end(),
            Handshake::Incomplete => return Ok(received),
            Handshake::Greeted => {
                self.shared.listen_to_chat()?;
                self.enter_player();
                log::debug!("greeted, from {}", self.session.record().peer());
            }
            Handshake::Resuming(keeper) => self.shared.ring_keeper(keeper),
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
            self.shared.ring_keeper(keeper);
            // Its keeper may be what does not get on.
            if let Some(holder) = self.session.holder_of_session()
                && let Err(error) = holder.send_signal(Signal::SIGUSR1)
            {
                log::warn!("cannot signal handler {holder}: {error}");
            }
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
                    self.session.end_frame();
                    return true;
                }
            }
        }
        match self.session.deliver() {
            Ok(delivered) => moved |= delivered,
            Err(rejection) => log::error!("cannot deliver the room's events: {rejection}"),
        }
        if self.client.flow.client_has_ended && !moved && !self.session.is_held_up() {
            // It will send nothing more, and all it sent was handled.
            self.session.close(false, &Farewell::None);
            return true;
        }
        moved
    }

    /// If the keeper is another than the one that forked this process, gives it a duplicate of the socket: it adopts the connection.
    fn offer_to_keeper(&mut self) {
        let (connection, memory) = (self.session.connection.index(), self.shared.context.memory);
        let keeper = memory.keeper_of(connection);
        if self.session.record().keeper_epoch() == keeper.epoch.load(Ordering::Acquire) {
            return;
        }
        let channel = self.shared.context.wiring.keeper_channel(self.shared.keeper);
        match channel.send(
            &Delivery::Adopt { connection }.encode(),
            &[self.client.socket.as_fd()],
        ) {
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
                self.shared.ring_keeper(keeper);
            }
            Phase::CLOSING => self.end(),
            // The client is gone.
            _ => {}
        }
    }

    /// Wakes whoever is to look at what this client has done, and listens to the room that it is in. Says whether that is another than
    /// before, at whose log it must look now.
    fn ring_bells(&mut self) -> io::Result<bool> {
        self.ring_pending();
        let room = self.session.membership().place().map(|(room, _)| room);
        let before = std::mem::replace(&mut self.client.room, room);
        let requests = &self.shared.context.wiring.bell_requests.sender;
        self.shared
            .bells
            .follow(self.place, (before, room), &self.shared.poll, requests)?;
        if before == room {
            return Ok(false);
        }
        if let Some(left) = before {
            let rooms = &self.shared.context.memory.rooms;
            rooms.at(left.index()).leave_home(self.session.connection);
        }
        if let Some(entered) = room {
            self.join_the_others(entered);
        }
        Ok(room.is_some())
    }

    fn ring_pending(&mut self) {
        let Shared {
            context,
            bells,
            woken,
            ..
        } = &mut *self.shared;
        if self.session.take_chat_bell() {
            context.wiring.ring_chat(context.memory.chat);
        }
        for keeper in self.session.take_keeper_bells() {
            context.wiring.ring_keeper(keeper);
        }
        for room in self.session.take_bells() {
            bells.ring(room, |place| woken.push(place));
        }
    }

    /// Asks to be served by the process that serves the others in the room, if there is one of the same keeper's: what they say to each
    /// other then needs no second process.
    fn join_the_others(&self, room: RoomRef) {
        let Context {
            memory,
            config,
            wiring,
            ..
        } = self.shared.context;
        if config.clients_per_handler == 1 {
            return;
        }
        let mine = self.session.connection;
        let is_there = |it: ConnectionRef| {
            let record = memory.connections.get(it.index());
            record.is_some_and(|record| record.claimed() == Claim::Held && record.reference(it.index()) == it)
        };
        let home = memory.rooms.at(room.index()).home_or(mine, is_there);
        let handler = memory.connections.at(home.index()).handler();
        if memory.keeper_index_of(home.index()) == self.shared.keeper
            && handler.is_some_and(|handler| handler != self.shared.me)
        {
            self.session.record().ask_to_be_beside(home.index());
            memory.tell_keeper_of(mine.index());
            wiring.ring_keeper(self.shared.keeper);
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

    fn next_deadline(&self) -> Option<Deadline> {
        let (record, header) = (self.session.record(), self.shared.context.memory.header);
        let is_out_of_reach = |room: RoomRef| self.shared.bells.is_out_of_reach(room.index());
        let times = Times {
            now_ms: now_ms(),
            accepted_at_ms: record.accepted_at_ms.load(Ordering::Relaxed),
            last_frame_at_ms: record.last_frame_at_ms.load(Ordering::Relaxed),
            not_taking_since_ms: (!self.session.all_sent()).then_some(self.client.flow.last_taken_ms),
            closing_since_ms: self.session.closing_since_ms(),
            bell_is_out_of_reach: self.client.room.is_some_and(is_out_of_reach),
            handshake_timeout_ms: header.handshake_timeout_ms.load(Ordering::Relaxed),
            heartbeat_timeout_ms: self.session.silence_max_ms(),
        };
        next_deadline(self.session.phase(), &times)
    }

    /// Ends the connection's hold on everything.
    pub(super) fn end(&mut self) {
        let keeper = self.session.finish();
        self.shared.ring_keeper(keeper);
        self.ring_pending();
    }

    /// When the next turn is due, if nothing happens.
    fn due_ms(&self) -> u64 {
        let deadline_ms = || self.next_deadline().map(|deadline| deadline.at_ms);
        self.client
            .lingers_until_ms
            .or_else(deadline_ms)
            .unwrap_or(u64::MAX)
    }
}
