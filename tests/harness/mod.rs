//! Clients and their sessions without processes and without TCP, for tests that drive the lobby itself.
//!
//! An [`Actor`] is both sides of one connection: the session that a handler would drive, in the server's own
//! code, and the client at the other end of a socket pair. Only the test makes progress, in the order that it
//! chooses.

#![allow(dead_code, reason = "each test uses its part")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;

use forkade::games::relay::Relay;
use forkade::games::tictactoe::TicTacToe;
use forkade::games::{Game, Games, Outbox, Outcome, Rejection, Start, Viewer};
use forkade::limits::{FRAME_BYTES_MAX, SEAT_RESERVATION_MS_DEFAULT};
use forkade_protocol::frame::{self, Split};
use forkade_protocol::{ClientMessage, ServerMessage, Token, codec, preamble};
use serde::{Deserialize, Serialize};

use forkade::testing::frontends::dispatch::{self, FrameOutcome, HandshakeOutcome};
use forkade::testing::lobby::{delivery, departure};
use forkade::testing::session::Session;
use forkade::testing::session::transport::ByteCounts;
use forkade::testing::state::connections::{Kind, Phase};
use forkade::testing::state::handle::StateHandle;
use forkade::testing::state::layout::{Capacity, Memory};

/// A game driven by time: it announces its ticks, and ends by itself. It panics on request.
#[derive(Serialize, Deserialize)]
pub(crate) struct Clock {
    ticks: u32,
    /// After this many ticks the match is over; 0: never.
    last: u32,
}

impl Game for Clock {
    type Options = u32;
    type Action = bool;
    type Event = u32;
    type View = u32;

    const NAME: &'static str = "clock";
    const SEATS: RangeInclusive<u8> = 1..=2;
    const TICKS_PER_SECOND: u16 = 1;
    const START: Start = Start::AtOnce;

    fn new(last: u32, _seats: u8, _seed: u64) -> Result<Self, Rejection> {
        Ok(Self { ticks: 0, last })
    }

    fn act(&mut self, _seat: u8, panics: bool, _out: &mut Outbox<u32>) -> Result<(), Rejection> {
        assert!(!panics, "on purpose");
        Ok(())
    }

    fn tick(&mut self, out: &mut Outbox<u32>) {
        self.ticks += 1;
        out.to_all(&self.ticks);
    }

    fn view(&self, _viewer: Viewer) -> u32 {
        self.ticks
    }

    fn outcome(&self) -> Option<Outcome> {
        (self.last != 0 && self.ticks == self.last).then_some(Outcome::Draw)
    }

    fn parse_action(_text: &str, _view: Option<&Self::View>) -> Result<bool, Rejection> {
        Ok(false)
    }

    fn draw(view: &u32, _name_of: &dyn Fn(u8) -> String) -> String {
        format!("{view}\n")
    }
}

/// The shared memory and the games of one server.
#[derive(Clone, Copy)]
pub(crate) struct World {
    pub(crate) memory: &'static Memory,
    pub(crate) games: &'static Games,
}

impl World {
    pub(crate) fn new(capacity: Capacity) -> Self {
        let mut games = Games::new();
        games.add::<Relay>().expect("a name of its own");
        games.add::<TicTacToe>().expect("a name of its own");
        games.add::<Clock>().expect("a name of its own");
        let memory = Memory::create(capacity).expect("memory for a small server");
        memory
            .header
            .seat_reservation_ms
            .store(SEAT_RESERVATION_MS_DEFAULT.into(), Ordering::Relaxed);
        // The rates are never reached.
        let header = memory.header;
        for rate in [
            &header.requests_burst,
            &header.requests_per_minute,
            &header.failures_burst,
            &header.failures_per_minute,
            &header.guesses_per_minute,
            &header.lobby_fanout,
            &header.room_fanout,
            &header.server_fanout,
        ] {
            rate.store(10_000_000, Ordering::Relaxed);
        }
        Self {
            memory,
            games: Box::leak(Box::new(games)),
        }
    }

    pub(crate) fn lobby(self) -> StateHandle {
        StateHandle::imitate(self.memory, self.games)
    }

    /// A handle that lives as long as the test, so that a session can borrow it for as long.
    pub(crate) fn leaked_lobby(self) -> &'static mut StateHandle {
        Box::leak(Box::new(self.lobby()))
    }

    /// Claims the connection slot for a new connection, as its keeper does.
    pub(crate) fn claim(self, slot: u32) {
        let keeper = self.memory.keeper_of(slot);
        keeper.set_slots_touched(keeper.slots_touched().max(slot + 1));
        let record = self.memory.connections.at(slot);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert!(record.claim(Kind::Game, peer, 0, 0), "slot {slot} is not free");
    }
}

/// One connection, with both its ends.
pub(crate) struct Actor {
    pub(crate) session: Session<'static>,
    pub(crate) slot: u32,
    server_end: UnixStream,
    client_end: UnixStream,
    /// Bytes that the client has received and not yet parsed.
    unread: Vec<u8>,
    /// Bytes of the server's stream that the client has parsed into messages.
    pub(crate) received: u64,
    pub(crate) token: Option<Token>,
}

impl Actor {
    /// A new connection in a free slot, with its first handler.
    pub(crate) fn connect(world: World, slot: u32) -> Self {
        world.claim(slot);
        let (server_end, client_end) = UnixStream::pair().expect("descriptors");
        for end in [&server_end, &client_end] {
            end.set_nonblocking(true).expect("sockets can be so");
        }
        let (session, plausible) = Session::attach(world.leaked_lobby(), slot, ByteCounts::default());
        plausible.expect("a new connection is plausible");
        Self {
            session,
            slot,
            server_end,
            client_end,
            unread: Vec::new(),
            received: 0,
            token: None,
        }
    }

    /// A new player, after the handshake.
    pub(crate) fn connect_as(world: World, slot: u32, name: &str) -> Self {
        let mut actor = Self::connect(world, slot);
        actor.send_hello(name);
        assert_eq!(
            dispatch::process_handshake(&mut actor.session),
            dispatch::HandshakeOutcome::Greeted
        );
        actor.receive_messages();
        actor
    }

    /// The connection is one of a trusted proxy, which sends its header.
    #[allow(dead_code, reason = "not every program has proxies")]
    pub(crate) fn send_proxy_header(&mut self) {
        self.session.record().set_behind_proxy();
        self.send(b"PROXY TCP4 203.0.113.7 192.0.2.1 55555 4000\r\n");
    }

    /// The client sends its preamble and `Hello`, and the handler receives it.
    pub(crate) fn send_hello(&mut self, name: &str) {
        self.send(&preamble::build(1, 1));
        self.send_message(&ClientMessage::Hello {
            name: name.into(),
            client: String::new(),
        });
    }

    /// The client sends its preamble and `Greet`, and the handler receives it.
    #[allow(dead_code, reason = "not every program repeats a greeting")]
    pub(crate) fn send_greet(&mut self, name: &str, nonce: u64) {
        self.send(&preamble::build(2, 2));
        self.send_message(&ClientMessage::Greet {
            name: name.into(),
            client: String::new(),
            nonce,
            acknowledge: true,
        });
    }

    /// The client sends its preamble and `Resume`, and the handler receives it.
    pub(crate) fn send_resume(&mut self, token: Token, received: u64) {
        self.send(&preamble::build(1, 2));
        self.send_message(&ClientMessage::Resume { token, received });
        self.token = Some(token);
    }

    /// The client sends a message. The handler receives it but does not handle it yet.
    pub(crate) fn send_message(&mut self, message: &ClientMessage) {
        let mut bytes = Vec::new();
        frame::append_frame(message, &mut bytes).expect("a message fits a frame");
        self.send(&bytes);
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.client_end.write_all(bytes).expect("the socket has room");
        loop {
            match self.session.receive(&self.server_end) {
                Ok(None) => return,
                Ok(Some(receipt)) if receipt.socket_drained => return,
                Ok(Some(_)) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("cannot receive: {error}"),
            }
        }
    }

    /// The handler handles the next frame.
    pub(crate) fn handle(&mut self) -> FrameOutcome {
        dispatch::handle_next_frame(&mut self.session)
    }

    /// The client sends a message, and the handler handles it.
    pub(crate) fn send_and_handle(&mut self, message: &ClientMessage) -> FrameOutcome {
        self.send_message(message);
        self.handle()
    }

    /// The handler delivers mail, room events and lobby chat, and sends all output. Returns the messages that
    /// the client receives.
    pub(crate) fn receive_messages(&mut self) -> Vec<ServerMessage> {
        let mut messages = Vec::new();
        // As after a notification: there may be mail.
        self.session.control_request();
        loop {
            // Events may wait for space in the output.
            let delivered = self.session.phase() == Phase::OPEN
                && delivery::deliver(&mut self.session).expect("events fit");
            let sent = self.flush();
            messages.extend(std::iter::from_fn(|| self.next_message()));
            if !delivered && !sent {
                return messages;
            }
        }
    }

    /// The next message that the client has received and not parsed yet.
    pub(crate) fn next_message(&mut self) -> Option<ServerMessage> {
        let Split::Frame { body, total } = frame::split(&self.unread, FRAME_BYTES_MAX) else {
            return None;
        };
        let message: ServerMessage = codec::decode(body).expect("the server sends messages");
        self.unread.drain(..total);
        match message {
            ServerMessage::Welcome { token, .. } | ServerMessage::Greeted { token, .. } => {
                self.token = Some(token);
            }
            ServerMessage::Resumed { resuming_at, .. } => self.received = resuming_at,
            ServerMessage::Error { .. } | ServerMessage::ShuttingDown { .. } => {}
            _ => self.received += total as u64,
        }
        Some(message)
    }

    /// The handler sends its output, without retaining it. Returns what a text client would show.
    #[allow(dead_code, reason = "not every program has people in text mode")]
    pub(crate) fn terminal_output(&mut self) -> String {
        self.flush();
        self.session.discard_sent();
        String::from_utf8(std::mem::take(&mut self.unread)).expect("text")
    }

    /// The handler sends its output, and the client receives it. Returns whether there was any.
    pub(crate) fn flush(&mut self) -> bool {
        let before = self.session.byte_counts.sent;
        loop {
            match self.session.send(&self.server_end) {
                Ok(None) => break,
                Ok(Some(_)) => self.receive_bytes(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.receive_bytes(),
                Err(error) => panic!("cannot send: {error}"),
            }
        }
        self.receive_bytes();
        self.session.byte_counts.sent != before
    }

    fn receive_bytes(&mut self) {
        let mut buffer = [0; 65536];
        loop {
            match self.client_end.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("cannot read: {error}"),
            }
        }
    }

    /// The client sends a message, which the handler handles without closing the connection.
    pub(crate) fn request(&mut self, message: &ClientMessage) {
        assert_eq!(
            self.send_and_handle(message),
            FrameOutcome::Handled,
            "{message:?}"
        );
    }

    /// The client sends a message after which the handler closes the connection.
    pub(crate) fn ask_and_close(&mut self, message: &ClientMessage) {
        match self.send_and_handle(message) {
            FrameOutcome::Close { leaves, reason } => self.session.close(leaves, &reason),
            other => panic!("{message:?}: {other:?}"),
        }
    }

    /// The player says goodbye, the connection ends, and the keeper frees its slot.
    pub(crate) fn leave_for_good(&mut self) {
        self.ask_and_close(&ClientMessage::Goodbye);
        self.end();
    }

    /// The connection ends, and the keeper frees its slot.
    pub(crate) fn end(&mut self) {
        departure::finish(&mut self.session);
        assert_eq!(self.session.phase(), Phase::DONE);
        self.session.state.memory.free_connection(self.slot);
    }

    /// The handler performs its part of the handshake.
    pub(crate) fn process_handshake(&mut self) -> HandshakeOutcome {
        process_handshake(&mut self.session)
    }

    /// The handler dies, and the keeper forks another for the same connection.
    pub(crate) fn replace_handler(&mut self, world: World) {
        let (session, plausible) = Session::attach(world.leaked_lobby(), self.slot, self.session.byte_counts);
        plausible.expect("what has passed is what was counted");
        self.session = session;
    }
}

/// What a handler does with the bytes of a handshake, behind a PROXY header, too.
pub(crate) fn process_handshake(session: &mut Session<'_>) -> HandshakeOutcome {
    match dispatch::process_handshake(session) {
        HandshakeOutcome::ClientKnown => dispatch::process_handshake(session),
        outcome => outcome,
    }
}
