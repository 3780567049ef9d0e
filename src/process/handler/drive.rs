//! One run of a client by its handler: bytes in, frames handled, events and replies out.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forkade_protocol::ErrorCode;
use nix::sys::signal::Signal;
use shmem::hang_reports::Subject;
use shmem::sys::process::ProcessId;
use shmem::sys::sockets::SendOutcome;
use socket2::{SockRef, TcpKeepalive};

use crate::frontends::dispatch::{self, FrameOutcome, HandshakeOutcome};
use crate::limits::{
    PENALTY_BAD_GREETING_US, PENALTY_NO_GREETING_US, RESUME_TIMEOUT_MS, SESSION_RELEASE_TIMEOUT_MS,
    TEXT_KEEPALIVE_INTERVAL_SECONDS, TEXT_KEEPALIVE_PROBES, TEXT_KEEPALIVE_SECONDS,
    TEXT_UNACKNOWLEDGED_SECONDS,
};
use crate::lobby::{delivery, departure, sanctions, text_delivery};
use crate::logging;
use crate::maintenance::eviction::shortened_ms;
use crate::process::admission::Refusal;
use crate::process::handler::client::{Client, HandlerState};
use crate::process::handler::deadlines::{Deadline, TimeoutKind, Times, next_deadline};
use crate::process::handler::turns::Turn;
use crate::process::ipc::KeeperMessage;
use crate::process::listener::peer_of;
use crate::process::process_table::Context;
use crate::process::source_gate;
use crate::session::{CloseReason, ControlRequest, Resume, Session};
use crate::state::budget::now_us;
use crate::state::connections::{Claim, MoveRequest, Peer, Phase};
use crate::state::incidents::IncidentKind;
use crate::state::layout::{ConnectionRef, RoomRef};

/// How a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DriveOutcome {
    /// There is nothing to do until an event or the next deadline.
    Wait,
    /// There is more to do that needs no waiting.
    More,
    /// The connection has ended.
    Finished,
    /// The connection moves to this process.
    Move(ProcessId),
}

/// A client while it is being run.
pub(crate) struct Driver<'a> {
    pub(crate) key: usize,
    /// When the run began, in milliseconds of the monotonic clock: the present time for all that it does.
    pub(crate) now_ms: u64,
    pub(crate) state: &'a mut HandlerState,
    pub(crate) client: &'a mut Client,
    pub(crate) session: Session<'a>,
}

/// What the source of a connection is penalised for when the connection is closed: microseconds.
fn penalty_of(phase: Phase, reason: &CloseReason) -> Option<u64> {
    match reason {
        _ if phase != Phase::HANDSHAKE => None,
        CloseReason::Error(code, _) | CloseReason::Line(Some(code), _) => match code {
            ErrorCode::HandshakeTimeout => Some(PENALTY_NO_GREETING_US),
            ErrorCode::BadPreamble | ErrorCode::Malformed | ErrorCode::FrameTooLarge => {
                Some(PENALTY_BAD_GREETING_US)
            }
            _ => None,
        },
        _ => None,
    }
}

/// What a client is told whose connection is refused after it was accepted.
fn close_reason(refusal: Refusal) -> CloseReason {
    CloseReason::Error(refusal.code(), refusal.text().into_owned())
}

impl Driver<'_> {
    pub(crate) fn run(&mut self, turn: Turn) -> io::Result<DriveOutcome> {
        let has_more = self.client.linger_until_ms.is_none() && self.work(turn)?;
        if self.session.phase() == Phase::DONE {
            return self.linger();
        }
        if has_more {
            return Ok(DriveOutcome::More);
        }
        // A connection moves only while its session is open.
        Ok(match self.client.move_to.take() {
            Some(other) if self.session.phase() == Phase::OPEN => DriveOutcome::Move(other),
            _ => DriveOutcome::Wait,
        })
    }

    /// Does what can be done without waiting, up to the end of the turn: then other clients are run, even if there is
    /// more to do. Returns whether there is.
    fn work(&mut self, mut turn: Turn) -> io::Result<bool> {
        loop {
            if std::mem::take(&mut self.client.check_flags) {
                self.offer_to_keeper();
                self.apply_control_request();
            }
            let phase = self.session.phase();
            let mut moved = match phase {
                Phase::HANDSHAKE => self.process_handshake()?,
                Phase::RESUMING => self.resume()?,
                Phase::OPEN if self.state.me.is_reception => self.ask_for_handler(),
                Phase::OPEN => self.play(&mut turn),
                Phase::DONE => return Ok(false),
                _ => false,
            };
            moved |= self.ring_doorbells()?;
            moved |= self.send();
            let is_over = moved && turn.is_over(now_us());
            if !moved || is_over {
                self.check_deadlines();
            }
            if is_over {
                return Ok(true);
            }
            if !moved && self.session.phase() == phase {
                return Ok(false);
            }
        }
    }

    /// Begins to run the player, and makes up for what the handler before may have missed.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        if self.session.phase() != Phase::OPEN {
            return Ok(());
        }
        self.session.enter_player_source();
        if !self.state.me.is_reception {
            self.enter_player();
            self.state.listen_to_chat()?;
            departure::set_connected(&mut self.session, true);
            // Mail may have arrived while no handler was there to be notified.
            self.client.check_flags = true;
        }
        Ok(())
    }

    /// The connection carries a player from now on.
    fn enter_player(&self) {
        let name = self.session.name();
        logging::set_player(Some(name.as_str()));
        self.session.record().set_player_name(name.as_str());
        if self.session.is_text() {
            // A person may think for any time, and send nothing. So the kernel asks the machine whether it is still
            // there.
            let probes = TcpKeepalive::new()
                .with_time(Duration::from_secs(TEXT_KEEPALIVE_SECONDS))
                .with_interval(Duration::from_secs(TEXT_KEEPALIVE_INTERVAL_SECONDS))
                .with_retries(TEXT_KEEPALIVE_PROBES);
            let unacknowledged = Duration::from_secs(TEXT_UNACKNOWLEDGED_SECONDS);
            let socket = SockRef::from(&self.client.socket);
            let done = socket
                .set_tcp_keepalive(&probes)
                .and_then(|()| socket.set_tcp_user_timeout(Some(unacknowledged)));
            if let Err(error) = done {
                log::warn!("cannot enable keepalive on the connection: {error}");
            }
        }
    }

    fn process_handshake(&mut self) -> io::Result<bool> {
        let received = self.receive();
        let banner_ms = self
            .session
            .banner_due_ms(self.state.context.config.banner_after_ms);
        if banner_ms.is_some_and(|due_ms| due_ms <= self.now_ms) {
            self.session.note_banner();
            return Ok(true);
        }
        // If the process dies of what this client has sent, its keeper knows of which client.
        let current_frame = &self.session.record().current_frame;
        current_frame.store(self.session.byte_counts.received, Ordering::Release);
        let outcome = match self.judge_proxied_client() {
            Err(refusal) => HandshakeOutcome::Refused(close_reason(refusal)),
            Ok(()) if self.client.readiness.client_has_ended => {
                dispatch::process_ended_handshake(&mut self.session)
            }
            Ok(()) => dispatch::process_handshake(&mut self.session),
        };
        current_frame.store(0, Ordering::Release);
        match outcome {
            HandshakeOutcome::Incomplete if self.client.readiness.client_has_ended => self.end(),
            HandshakeOutcome::Incomplete => return Ok(received),
            HandshakeOutcome::ClientKnown => {}
            HandshakeOutcome::Greeted => {
                logging::set_player(Some(self.session.name().as_str()));
                log::info!("came, from {}", self.session.record().peer());
                self.begin()?;
            }
            HandshakeOutcome::Resuming(keeper) => self.state.ring_keeper(keeper),
            HandshakeOutcome::Refused(reason) => self.close(false, &reason),
            HandshakeOutcome::Foreign(protocol) => {
                let header = self.state.context.memory.header;
                header.foreign_openings_total.fetch_add(1, Ordering::Relaxed);
                let text = dispatch::foreign_text(protocol);
                self.close(false, &CloseReason::Line(Some(ErrorCode::BadPreamble), text));
            }
        }
        Ok(true)
    }

    /// Charges the connection of a client behind a proxy to the client's source, once that is known. (The listener has
    /// charged all others. A successor finds by the source's entry whether that was done.)
    fn judge_proxied_client(&self) -> Result<(), Refusal> {
        let (context, session) = (&self.state.context, &self.session);
        let peer = session.record().peer();
        let Peer::Network(address) = peer else {
            return Ok(());
        };
        if session.source().is_some() || session.awaits_proxy_header() {
            return Ok(());
        }
        // A proxy may also speak for itself.
        if peer != peer_of(&self.client.socket) {
            source_gate::judge(context, address.ip(), 0)?;
        }
        let source = context.memory.header.source_of(peer);
        context
            .memory
            .sources
            .set_of_connection(session.connection.index(), source);
        Ok(())
    }

    fn resume(&mut self) -> io::Result<bool> {
        let error = |code, text: &str| CloseReason::Error(code, text.to_owned());
        let reason = match self.session.try_resume() {
            Resume::TooSoon => {
                self.give_up_resume_in_time("you come back too often; try again");
                return Ok(false);
            }
            Resume::NotYet => {
                self.wait_for_session();
                return Ok(false);
            }
            Resume::Done => {
                logging::set_player(Some(self.session.name().as_str()));
                log::info!("came back, from {}", self.session.record().peer());
                self.begin()?;
                return Ok(true);
            }
            Resume::Kicked { ban_ms } => sanctions::kicked(ban_ms),
            Resume::Superseded => error(ErrorCode::Replaced, "your session goes on on a newer connection"),
            Resume::Gone => error(ErrorCode::TokenUnknown, "the session has come to its end"),
            Resume::AnsweredBefore => error(
                ErrorCode::NameTaken,
                "your greeting was answered on another connection",
            ),
            Resume::BeyondTheEnd => error(
                ErrorCode::Malformed,
                "more bytes were claimed received than were sent",
            ),
        };
        self.close(false, &reason);
        Ok(true)
    }

    /// Closes the connection if it has waited for its session for too long. Returns the milliseconds that it has waited,
    /// if it waits on.
    fn give_up_resume_in_time(&mut self, why: &str) -> Option<u64> {
        let since_ms = self.session.record().last_frame_at_ms.load(Ordering::Relaxed);
        let waited_ms = self.now_ms.saturating_sub(since_ms);
        if waited_ms < RESUME_TIMEOUT_MS {
            return Some(waited_ms);
        }
        self.close(false, &CloseReason::Error(ErrorCode::SessionHeld, why.to_owned()));
        None
    }

    /// The session's former handler has not released it yet. One that does not respond is reported: it may have to
    /// wait for a processor, which only the watchdog can tell from a hang.
    fn wait_for_session(&mut self) {
        let why = "the session is still held by its former connection; try again";
        let Some(waited) = self.give_up_resume_in_time(why) else {
            return;
        };
        let Some(holder) = self.session.holder_of_session() else {
            return;
        };
        if waited >= SESSION_RELEASE_TIMEOUT_MS {
            let index = holder.index();
            let hang_reports = &self.state.context.memory.header.hang_reports;
            hang_reports.report(Subject::Connection { index });
        }
        // Done again, because a predecessor may have died before it did this.
        let keeper = self.state.context.memory.raise_attention(holder);
        self.state.ring_keeper(Some(keeper));
        // Its keeper may be the process that makes no progress.
        if let Some(process) = self.session.process_of(holder)
            && let Err(error) = process.send_signal(Signal::SIGUSR1)
        {
            log::warn!("cannot signal handler {process}: {error}");
        }
    }

    /// Frames in, events out.
    fn play(&mut self, turn: &mut Turn) -> bool {
        let mut moved = self.receive();
        let (consumed, mut frames) = (self.session.input_consumed(), 0);
        loop {
            match dispatch::handle_next_frame(&mut self.session) {
                FrameOutcome::Handled => {
                    moved = true;
                    frames += 1;
                    turn.count_frame();
                    if turn.is_over(now_us()) {
                        break;
                    }
                }
                FrameOutcome::Wait => break,
                FrameOutcome::Close { leaves, reason } => {
                    self.charge_source(frames + 1, consumed);
                    self.close(leaves, &reason);
                    self.session.end_frame();
                    return true;
                }
            }
        }
        self.charge_source(frames, consumed);
        moved |= self.deliver();
        // A client that sends nothing more confirms nothing more, either.
        let input_waits = delivery::is_blocked_on_output(&self.session)
            || self.session.waits_for_readers()
            || self.session.input_held_until_ms().is_some();
        if self.client.readiness.client_has_ended && !moved && !input_waits {
            // It sends nothing more, and all that it sent was handled.
            self.session.close(false, &CloseReason::None);
            return true;
        }
        moved
    }

    /// Charges the source for the frames of a turn, which began when the input was consumed up to `consumed_before`.
    fn charge_source(&mut self, frames: u64, consumed_before: u64) {
        let bytes = self.session.input_consumed().saturating_sub(consumed_before);
        self.session.charge_source_for_input(frames, bytes);
    }

    /// Delivers the room's events. Says whether there were any.
    fn deliver(&mut self) -> bool {
        delivery::deliver(&mut self.session).unwrap_or_else(|rejection| {
            log::error!("cannot deliver the room's events: {rejection}");
            false
        })
    }

    /// If the keeper is another than the one that holds the connection, sends it a duplicate of the socket, so that
    /// it adopts the connection.
    fn offer_to_keeper(&mut self) {
        let (connection, memory) = (self.session.connection.index(), self.state.context.memory);
        let keeper = memory.keeper_of(connection);
        if self.session.record().keeper_epoch() == keeper.epoch.load(Ordering::Acquire) {
            return;
        }
        let channel = self.state.context.ipc.keeper_channel(self.state.keeper);
        let offer = KeeperMessage::Adopt {
            connections: vec![self.session.connection],
        };
        match channel.send(&offer.encode(), &[self.client.socket.as_fd()]) {
            Ok(SendOutcome::Sent) => {}
            // A thousand handlers offer their sockets at once. The keeper asks again for those that it did not get.
            Ok(SendOutcome::WouldBlock | SendOutcome::PeerGone) => {}
            Err(error) => log::warn!("cannot offer the connection to the keeper: {error}"),
        }
    }

    fn apply_control_request(&mut self) {
        let phase = self.session.phase();
        let wanted = self.session.control_request();
        match (phase, wanted) {
            (Phase::CLOSING | Phase::OPEN, ControlRequest::Yield) => self.release_session(),
            (Phase::CLOSING | Phase::DONE, _) | (_, ControlRequest::Nothing) => {}
            (_, ControlRequest::Stop) => {
                if phase == Phase::OPEN && !self.state.me.is_reception {
                    // For example the outcome of the last match.
                    self.deliver();
                }
                self.close(false, &CloseReason::ShuttingDown("the server is stopping".into()));
            }
            // (A player that leaves its room may run the room's game: that waits for a handler.)
            (Phase::OPEN, ControlRequest::Kick) if !self.state.me.is_reception => {
                let reason = sanctions::close_reason(&mut self.session);
                self.close(true, &reason);
            }
            _ => {}
        }
    }

    /// Releases the session to a newer connection, which gets what this one was still to receive.
    fn release_session(&mut self) {
        // A predecessor may have died in the middle of a frame, after which nothing else can be sent.
        self.send();
        match self.session.phase() {
            Phase::OPEN => {
                let keeper = self.session.yield_to_claimant();
                self.state.ring_keeper(keeper);
            }
            Phase::CLOSING => self.end(),
            // The client is gone.
            _ => {}
        }
    }

    /// Wakes the processes that should look at what this client has done, and subscribes to the room that it is in.
    /// Says whether that is another room than before: then its log must be read now.
    pub(crate) fn ring_doorbells(&mut self) -> io::Result<bool> {
        self.ring_pending();
        if self.state.me.is_reception {
            return Ok(false);
        }
        let room = self.session.membership().place().map(|(room, _)| room);
        let before = std::mem::replace(&mut self.client.room, room);
        let is_unavailable = |room: RoomRef| self.state.doorbells.is_unavailable(room.index());
        if before != room || room.is_some_and(is_unavailable) {
            let requests = &self.state.context.ipc.doorbells.requests.sender;
            self.state
                .doorbells
                .follow(self.key, (before, room), &self.state.poll, requests)?;
        }
        if before == room {
            return Ok(false);
        }
        if let Some(left) = before {
            let rooms = &self.state.context.memory.rooms;
            rooms
                .at(left.index())
                .clear_colocation_anchor(self.session.connection);
        }
        if let Some(entered) = room {
            self.request_colocation(entered);
        }
        Ok(room.is_some())
    }

    fn ring_pending(&mut self) {
        let HandlerState {
            context,
            doorbells,
            woken,
            ..
        } = &mut *self.state;
        if self.session.take_chat_doorbell() {
            context.ipc.doorbells.ring_chat(&context.memory.chat.log);
        }
        for keeper in self.session.take_keeper_doorbells() {
            context.ipc.doorbells.ring_keeper(keeper);
        }
        for room in self.session.take_doorbells() {
            doorbells.ring(room, |key| woken.push(key));
        }
    }

    /// Asks to be served by the process that serves the other members of the room, if the same keeper has one. What
    /// they send each other then needs no second process.
    fn request_colocation(&self, room: RoomRef) {
        let Context { memory, config, .. } = self.state.context;
        if config.clients_per_handler == 1 {
            return;
        }
        let mine = self.session.connection;
        let is_there = |it: ConnectionRef| {
            let record = memory.connections.get(it.index());
            record.is_some_and(|record| record.claimed() == Claim::Held && record.reference(it.index()) == it)
        };
        let anchor = memory.rooms.at(room.index()).colocation_anchor(mine, is_there);
        let handler = memory.connections.at(anchor.index()).handler();
        if memory.keeper_index_of(anchor.index()) == self.state.keeper
            && handler.is_some_and(|handler| handler != self.state.me.process)
        {
            self.request_move(MoveRequest::Near(anchor.index()));
        }
    }

    fn request_move(&self, request: MoveRequest) {
        self.session.record().request_move(request);
        let memory = self.state.context.memory;
        memory.notify_keeper(self.session.connection.index());
        self.state.ring_keeper(Some(self.state.keeper));
    }

    /// The client of this reception has greeted: the keeper is asked, once, for a handler that runs the player. A
    /// successor asks again.
    fn ask_for_handler(&mut self) -> bool {
        if !std::mem::replace(&mut self.client.asked_to_move, true) {
            self.request_move(MoveRequest::OutOfReception);
        }
        false
    }

    /// Ends what has taken too long.
    fn check_deadlines(&mut self) {
        let error = |code, text: &str| CloseReason::Error(code, text.into());
        let passed = self
            .next_deadline()
            .filter(|deadline| deadline.at_ms <= self.now_ms)
            .map(|deadline| deadline.kind);
        let reason = match passed {
            Some(TimeoutKind::Handshake) => error(
                ErrorCode::HandshakeTimeout,
                "you did not greet in time; people press Enter first",
            ),
            Some(TimeoutKind::NoHandler) => close_reason(Refusal::NoResources),
            Some(TimeoutKind::Silent) => error(
                ErrorCode::Silent,
                &self.session.silence_text(self.silence_timeout_ms()),
            ),
            Some(TimeoutKind::WriteStall) if self.session.all_sent() => {
                let header = self.state.context.memory.header;
                header.unconfirmed_closed_total.fetch_add(1, Ordering::Relaxed);
                error(
                    ErrorCode::NotConfirming,
                    "you confirm nothing of what you have received: send Confirm, or resume from where you are",
                )
            }
            Some(TimeoutKind::WriteStall) => error(ErrorCode::NotReading, "you did not read for too long"),
            Some(TimeoutKind::Closing) => return self.end(),
            None if self.session.phase() == Phase::CLOSING && self.session.all_sent() => return self.end(),
            Some(TimeoutKind::Recheck) | None => return,
        };
        self.close(false, &reason);
    }

    /// Closes the connection, and says so in the log.
    fn close(&mut self, leaves: bool, reason: &CloseReason) {
        if *reason != CloseReason::None {
            let done = if self.session.player().is_some() {
                "closing"
            } else {
                "refusing"
            };
            log::info!(
                "{done} the connection from {}: {reason}",
                self.session.record().peer()
            );
            let (memory, peer) = (self.state.context.memory, self.session.record().peer());
            let name = self.session.name();
            memory.enter_refusal(peer, name.as_str(), format_args!("{done} {peer}: {reason}"));
            if let Some(us) = penalty_of(self.session.phase(), reason) {
                memory.penalise_connection(self.session.connection.index(), us);
            }
        }
        self.session.close(leaves, reason);
    }

    /// Whether this is a player in text mode that is in no room.
    fn is_lobby_guest(&self) -> bool {
        self.session.is_text() && self.session.membership().place().is_none()
    }

    /// Milliseconds of silence after which the connection is closed.
    fn silence_timeout_ms(&self) -> u64 {
        let whole_ms = self.session.silence_timeout_ms();
        if !self.is_lobby_guest() {
            return whole_ms;
        }
        let memory = self.state.context.memory;
        let players = memory.directory.record.players_published.load(Ordering::Relaxed);
        let min_ms = memory.header.handshake_timeout_ms.load(Ordering::Relaxed);
        let players = u32::try_from(players).unwrap_or(u32::MAX);
        shortened_ms(whole_ms, min_ms, players, memory.directory.identities.len())
    }

    fn next_deadline(&self) -> Option<Deadline> {
        let (record, header) = (self.session.record(), self.state.context.memory.header);
        let is_unavailable = |room: RoomRef| self.state.doorbells.is_unavailable(room.index());
        let times = Times {
            now_ms: self.now_ms,
            accepted_at_ms: record.accepted_at_ms.load(Ordering::Relaxed),
            enter_decided_at_ms: (self.session.byte_counts.received > 0)
                .then(|| self.session.enter_decided_at_ms()),
            banner_ms: self
                .session
                .banner_due_ms(self.state.context.config.banner_after_ms),
            last_frame_at_ms: record.last_frame_at_ms.load(Ordering::Relaxed),
            not_taking_since_ms: (!self.session.all_sent() || self.session.waits_for_confirm())
                .then_some(self.client.readiness.last_taken_ms),
            waits_for_readers: self.session.waits_for_readers(),
            closing_since_ms: self.session.closing_since_ms(),
            doorbell_is_unavailable: self.client.room.is_some_and(is_unavailable),
            handshake_timeout_ms: header.handshake_timeout_ms.load(Ordering::Relaxed),
            heartbeat_timeout_ms: self.silence_timeout_ms(),
            is_lobby_guest: self.is_lobby_guest(),
            is_at_reception: self.state.me.is_reception,
        };
        next_deadline(self.session.phase(), &times)
    }

    /// Ends the connection and frees what it held.
    pub(crate) fn end(&mut self) {
        if self.session.player().is_some() {
            let room = self.session.membership().place().map(|(room, _)| room.index());
            let how = match self.session.leaves_for_good() {
                true => "has left",
                false => "has lost the connection, and may come back",
            };
            log::info!("{how}, at {}", self.session.record().peer());
            self.state.context.memory.incidents.enter(
                IncidentKind::Departure,
                (self.state.me.process.pid, room),
                self.session.name().as_str(),
                format_args!("{how}, at {}", self.session.record().peer()),
            );
        }
        let keeper = departure::finish(&mut self.session);
        self.state.ring_keeper(keeper);
        self.ring_pending();
    }

    /// When the next run is due, if nothing happens.
    pub(crate) fn due_ms(&self) -> u64 {
        let deadline_ms = || {
            let deadline_ms = self.next_deadline().map(|deadline| deadline.at_ms);
            let is_open = self.session.phase() == Phase::OPEN;
            let input_ms = self.session.input_held_until_ms().filter(|_| is_open);
            let redraw_ms = text_delivery::redraw_due_ms(&self.session).filter(|_| is_open);
            let all = [deadline_ms, input_ms, redraw_ms];
            all.into_iter().flatten().min()
        };
        self.client
            .linger_until_ms
            .or_else(deadline_ms)
            .unwrap_or(u64::MAX)
    }
}
