//! The lobby in which an operation is prepared, and the steps of handlers, clients and the ticker there.

use std::sync::atomic::Ordering;

use forkade::limits::{CHAT_BYTES_MAX, CHAT_LOG_BYTES, FRAME_TOTAL_BYTES_MAX, MAILBOX_BYTES, ROOM_LOG_BYTES};
use forkade_protocol::{ChatScope, ClientMessage, RoomId, RoomSettings, codec};

use crate::harness::{self, Actor, World};
use crate::stepper::Stepper;
use crate::sweep::{Act, CAPACITY, Subject};
use forkade::testing::frontends::dispatch::{self, FrameOutcome, HandshakeOutcome};
use forkade::testing::lobby::{delivery, departure, match_play};
use forkade::testing::session::{ControlRequest, Resume, Session};
use forkade::testing::state::connections::Phase;
use forkade::testing::state::handle::StateHandle;

/// The id of the first room that is created.
pub(crate) const ROOM: RoomId = RoomId(1 << 32);

/// The lobby in which an operation is prepared.
pub(crate) struct Fixture {
    pub(crate) world: World,
    pub(crate) actors: Vec<Actor>,
    /// Index of the actor that performs the operation.
    pub(crate) subject: usize,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self {
            world: World::new(CAPACITY),
            actors: Vec::new(),
            subject: 0,
        }
    }

    pub(crate) fn player(&mut self, name: &str) {
        self.newcomer(|actor| {
            actor.send_hello(name);
            actor.process_handshake();
            actor.receive_messages();
        });
    }

    pub(crate) fn players<const N: usize>(&mut self, names: [&str; N]) {
        names.iter().for_each(|name| self.player(name));
        self.subject = 0;
    }

    /// An actor on a new connection, which becomes the subject of the operation.
    pub(crate) fn newcomer(&mut self, begin: impl FnOnce(&mut Actor)) {
        let slot = u32::try_from(self.actors.len()).expect("a few");
        let mut actor = Actor::connect(self.world, slot);
        begin(&mut actor);
        self.subject = self.actors.len();
        self.actors.push(actor);
    }

    pub(crate) fn subject(&mut self) -> &mut Actor {
        &mut self.actors[self.subject]
    }

    /// The first actor creates a room, the others join it, and all receive the events.
    pub(crate) fn room_of<const N: usize>(&mut self, game: &str, names: [&str; N]) {
        self.players(names);
        self.actors[0].request(&create(game, None));
        for actor in &mut self.actors[1..] {
            actor.request(&join());
        }
        self.all_hear();
    }

    pub(crate) fn match_of(&mut self, names: [&str; 2]) {
        self.room_of("tictactoe", names);
        self.actors[0].request(&ready());
        self.actors[1].request(&ready());
        self.all_hear();
    }

    pub(crate) fn clock(&mut self, ticks: u32) {
        self.players(["ann"]);
        let options = codec::encode(&ticks).expect("a number");
        let name = "Here".to_owned();
        self.actors[0].request(&ClientMessage::CreateRoom {
            request: 1,
            game: "clock".into(),
            name,
            settings: RoomSettings {
                options,
                ..RoomSettings::default()
            },
        });
    }

    pub(crate) fn moves(&mut self, cells: &[u8]) {
        for (number, cell) in cells.iter().enumerate() {
            self.actors[number % 2].request(&place(*cell));
        }
        self.all_hear();
    }

    /// The first actor sends this request, which is handled; only the first actor receives output.
    pub(crate) fn tells(&mut self, message: &ClientMessage) {
        self.actors[0].request(message);
        self.actors[0].receive_messages();
    }

    /// The first actor sends so much that the next thousands of bytes exceed the room's log. The others
    /// receive nothing.
    pub(crate) fn fills_log(&mut self) {
        for _ in 0..ROOM_LOG_BYTES / 3000 - 1 {
            self.tells(&relayed(3000, b'.'));
        }
    }

    /// The first actor sends so much lobby chat that the next long line exceeds the chat log. The others
    /// receive nothing.
    pub(crate) fn fills_chat(&mut self) {
        let line = "x".repeat(CHAT_BYTES_MAX);
        let entry_bytes = CHAT_BYTES_MAX + 24;
        for _ in 0..CHAT_LOG_BYTES / entry_bytes {
            self.tells(&say(&line));
        }
    }

    /// The actor has so much mail, part of it delivered, that the next long whisper wraps to the mailbox's
    /// beginning. The actor's output ring is almost full.
    pub(crate) fn fills_mailbox(&mut self, actor: usize, to: &str) {
        let space_left = 2 * FRAME_TOTAL_BYTES_MAX + CHAT_BYTES_MAX / 2;
        while self.actors[actor].session.output_space() > space_left as u64 {
            self.actors[actor].request(&ClientMessage::Ping { nonce: 1 });
        }
        let line = whisper(to, &"x".repeat(CHAT_BYTES_MAX));
        for number in 0..MAILBOX_BYTES / (CHAT_BYTES_MAX + 10) - 1 {
            self.tells(&line);
            if number == 1 {
                let session = &mut self.actors[actor].session;
                assert_eq!(session.control_request(), ControlRequest::Nothing);
                assert!(delivery::deliver(session).expect("some mail fits"));
            }
        }
    }

    /// The first actor makes a request that is rejected, and says a line in the lobby.
    pub(crate) fn fails_and_chats(&mut self) {
        self.tells(&join());
        self.tells(&say("hello"));
    }

    /// A player has come, been charged, and left for good.
    pub(crate) fn leaves_with_accounts(&mut self, name: &str) {
        self.players([name]);
        self.fails_and_chats();
        self.actors[0].leave_for_good();
    }

    pub(crate) fn all_hear(&mut self) {
        for actor in &mut self.actors {
            actor.receive_messages();
        }
    }

    /// The actor's client sends this; the operation is its handling.
    pub(crate) fn says(&mut self, actor: usize, message: &ClientMessage) -> Act {
        self.subject = actor;
        self.actors[actor].send_message(message);
        handle_frame()
    }

    /// The operation: the actor's handler delivers the room's events.
    pub(crate) fn delivers(&mut self, actor: usize) -> Act {
        self.subject = actor;
        Act::session(|session| {
            delivery::deliver(session).expect("events fit");
        })
    }

    /// The operation: the actor's handler checks for mail and delivers it.
    pub(crate) fn delivers_mail(&mut self, actor: usize) -> Act {
        self.subject = actor;
        Act::session(|session| {
            assert_eq!(session.control_request(), ControlRequest::Nothing);
            delivery::deliver(session).expect("mail fits");
        })
    }

    /// Ann has a seat in a room, and her connection has ended. Returns the offset that she has confirmed.
    pub(crate) fn detached_in_room(&mut self) -> u64 {
        self.room_of("tictactoe", ["ann", "bob"]);
        let received = self.confirms(0);
        self.actors[1].request(&chat(20));
        self.actors[0].receive_messages();
        departure::finish(&mut self.actors[0].session);
        received
    }

    /// The actor's client confirms everything it has received, which is handled. Returns the offset.
    pub(crate) fn confirms(&mut self, actor: usize) -> u64 {
        let actor = &mut self.actors[actor];
        actor.receive_messages();
        let received = actor.received;
        actor.request(&ClientMessage::Confirm { received });
        received
    }

    /// The actor's client returns on a new connection and claims to have received this many bytes.
    pub(crate) fn comes_back(&mut self, actor: usize, received: u64) {
        let token = self.actors[actor].token.expect("greeted");
        self.newcomer(|back| back.send_resume(token, received));
    }

    /// Ann's greeting has created her player, and she repeats it on a new connection.
    pub(crate) fn loses_its_greeting(&mut self) {
        self.newcomer(|ann| ann.send_greet("ann", 7));
        self.subject().process_handshake();
        self.subject().request(&create("relay", None));
        departure::finish(&mut self.subject().session);
        self.newcomer(|ann| ann.send_greet("ann", 7));
    }

    /// The subject's handler dies after it has reserved a room record that it is about to open.
    pub(crate) fn dies_opening_a_room(&mut self, act: Act) {
        let published = &self.world.memory.directory.record.rooms_published;
        let before = published.load(Ordering::Relaxed);
        self.dies_when(act, || published.load(Ordering::Relaxed) > before);
    }

    /// The subject's handler dies at the instruction after which the condition holds.
    pub(crate) fn dies_when(&mut self, act: Act, condition: impl Fn() -> bool) {
        let subject = self.subject_doing(act, true);
        let mut stepper = Stepper::start(self.world.memory, || subject.prepare(self.world))
            .expect("a child to step through");
        while !condition() {
            assert!(
                stepper.step().expect("a step"),
                "the child came to its end without meeting the condition"
            );
        }
    }

    pub(crate) fn subject_doing(&self, act: Act, repeatable: bool) -> Subject {
        let passed = self
            .actors
            .iter()
            .map(|actor| actor.session.byte_counts)
            .collect();
        Subject {
            world: self.world,
            slot: self.actors[self.subject].slot,
            passed,
            act,
            attach_is_stepped: false,
            repeatable,
        }
    }
}

pub(crate) fn create(game: &str, passcode: Option<&str>) -> ClientMessage {
    ClientMessage::CreateRoom {
        request: 1,
        game: game.into(),
        name: "Here".into(),
        settings: RoomSettings {
            passcode: passcode.map(str::to_owned),
            ..RoomSettings::default()
        },
    }
}

pub(crate) fn quick_match() -> ClientMessage {
    ClientMessage::QuickMatch {
        request: 2,
        game: "tictactoe".into(),
        options: Vec::new(),
    }
}

pub(crate) fn join_with(passcode: &str) -> ClientMessage {
    ClientMessage::JoinRoom {
        request: 2,
        room: ROOM,
        passcode: Some(passcode.to_owned()),
    }
}

pub(crate) fn join() -> ClientMessage {
    ClientMessage::JoinRoom {
        request: 2,
        room: ROOM,
        passcode: None,
    }
}

pub(crate) fn ready() -> ClientMessage {
    ClientMessage::Ready {
        request: 3,
        ready: true,
    }
}

pub(crate) fn place(cell: u8) -> ClientMessage {
    ClientMessage::Act {
        request: 4,
        action: vec![cell],
    }
}

pub(crate) fn relayed(bytes: usize, byte: u8) -> ClientMessage {
    ClientMessage::Act {
        request: 4,
        action: vec![byte; bytes],
    }
}

pub(crate) fn chat(bytes: usize) -> ClientMessage {
    ClientMessage::Chat {
        request: 5,
        scope: ChatScope::Room,
        text: "x".repeat(bytes),
    }
}

pub(crate) fn say(text: &str) -> ClientMessage {
    ClientMessage::Chat {
        request: 5,
        scope: ChatScope::Lobby,
        text: text.into(),
    }
}

pub(crate) fn whisper(to: &str, text: &str) -> ClientMessage {
    ClientMessage::Chat {
        request: 5,
        scope: ChatScope::Whisper { to: to.into() },
        text: text.into(),
    }
}

/// What a handler does in the phase HANDSHAKE.
pub(crate) fn process_handshake(session: &mut Session<'_>) {
    if session.phase() == Phase::HANDSHAKE
        && let HandshakeOutcome::Refused(farewell) = harness::process_handshake(session)
    {
        session.close(false, &farewell);
    }
}

/// What a handler does in the phase RESUMING.
pub(crate) fn resume(session: &mut Session<'_>) {
    if session.phase() == Phase::RESUMING {
        assert_eq!(session.try_resume(), Resume::Done);
    }
}

/// What a handler does with the next frame.
pub(crate) fn handle_frame() -> Act {
    Act::session(|session| {
        if session.phase() == Phase::OPEN
            && let FrameOutcome::Close { leaves, reason } = dispatch::handle_next_frame(session)
        {
            session.close(leaves, &reason);
        }
    })
}

/// What a handler does at the end of a connection.
pub(crate) fn finish() -> Act {
    Act::session(|session| {
        if session.phase() != Phase::DONE {
            departure::finish(session);
        }
    })
}

pub(crate) fn tick(lobby: &mut StateHandle) {
    match_play::tick(lobby, 0, u64::MAX / 2).expect("the clock does not fail");
}
