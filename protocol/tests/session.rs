//! A session over connections that are cut at any byte: every message arrives exactly once, in both directions.

#[path = "support/mod.rs"]
mod support;

use std::collections::VecDeque;

use forkade_protocol::{
    ClientMessage, ClientSession, ErrorCode, RoomEvent, ServerMessage, SessionError, Token, frame,
    limits::FRAME_TOTAL_BYTES_MAX,
    session::{INPUT_BYTES_MAX, SESSION_NONCE},
};
use proptest::{collection::vec, prelude::*};
use support::{ModelServer, TOKEN};

/// The least that a session can be told to keep, so that it is often full.
const UNACKNOWLEDGED_BYTES_MAX: usize = 2 * FRAME_TOTAL_BYTES_MAX;

/// A client, a server, and a network that holds bytes back and loses them when it is cut.
struct World {
    session: ClientSession,
    server: ModelServer,
    connected: bool,
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    /// Bytes that went into the network or came out of it.
    moved: usize,
    /// Numbers of the messages that were sent and received.
    sent: u32,
    said: u64,
    heard: Vec<u64>,
}

/// Something that happens in the world.
#[derive(Clone, Debug)]
enum Step {
    Connect,
    Cut,
    /// The client sends a message with so many bytes.
    Send(usize),
    /// The server sends one.
    Say(usize),
    ClientPings,
    /// At most so many bytes pass from one to the next.
    ClientWrites(usize),
    ServerReads(usize),
    ServerWrites(usize),
    ClientReads(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Connect),
        1 => Just(Step::Cut),
        4 => (0..3000_usize).prop_map(Step::Send),
        4 => (0..3000_usize).prop_map(Step::Say),
        1 => Just(Step::ClientPings),
        4 => (1..5000_usize).prop_map(Step::ClientWrites),
        4 => (1..5000_usize).prop_map(Step::ServerReads),
        4 => (1..5000_usize).prop_map(Step::ServerWrites),
        4 => (1..5000_usize).prop_map(Step::ClientReads),
    ]
}

impl World {
    fn new(server_keeps_bytes: usize) -> Self {
        Self {
            session: ClientSession::new("Ann", "test")
                .with_unacknowledged_bytes_max(UNACKNOWLEDGED_BYTES_MAX),
            server: ModelServer::new(server_keeps_bytes),
            connected: false,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            moved: 0,
            sent: 0,
            said: 0,
            heard: Vec::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Connect if self.connected => {}
            Step::Connect => {
                self.session.begin().expect("the session goes on");
                self.server.accept();
                self.connected = true;
            }
            Step::Cut => {
                self.session.connection_lost();
                self.server.connection_lost();
                self.connected = false;
                self.to_server.clear();
                self.to_client.clear();
            }
            Step::Send(size) => self.send(size),
            Step::Say(size) => self.say(size),
            Step::ClientPings => match self.session.ping() {
                Ok(()) | Err(SessionError::BufferFull { .. }) => {}
                Err(error) => panic!("{error}"),
            },
            Step::ClientWrites(count) => {
                let bytes = self.session.bytes();
                let count = count.min(bytes.len());
                self.to_server.extend(&bytes[..count]);
                self.moved += count;
                self.session.advance(count);
            }
            Step::ServerReads(count) => {
                let count = count.min(self.to_server.len());
                self.moved += count;
                self.server
                    .receive(&self.to_server.drain(..count).collect::<Vec<_>>());
            }
            Step::ServerWrites(count) => {
                let bytes = self.server.send(count);
                self.moved += bytes.len();
                self.to_client.extend(bytes);
            }
            Step::ClientReads(count) => self.client_reads(count),
        }
        assert!(self.session.unacknowledged() <= UNACKNOWLEDGED_BYTES_MAX);
    }

    fn send(&mut self, size: usize) {
        let message = ClientMessage::Act {
            request: self.sent,
            action: vec![0; size],
        };
        match self.session.send(&message) {
            Ok(()) => self.sent += 1,
            Err(SessionError::BufferFull { unacknowledged, .. }) => {
                assert!(unacknowledged + FRAME_TOTAL_BYTES_MAX > UNACKNOWLEDGED_BYTES_MAX / 2);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn say(&mut self, size: usize) {
        // Before the greeting there is no stream to say it in.
        if self.session.token().is_some() {
            let event = RoomEvent::Game { data: vec![0; size] };
            self.server.say(&ServerMessage::Event {
                number: self.said,
                event,
            });
            self.said += 1;
        }
    }

    fn client_reads(&mut self, count: usize) {
        let count = count.min(self.to_client.len());
        self.moved += count;
        self.session
            .receive(&self.to_client.drain(..count).collect::<Vec<_>>())
            .expect("there is room");
        while let Some(message) = self
            .session
            .next_message()
            .expect("the server keeps to the protocol")
        {
            match message {
                ServerMessage::Event { number, .. } => self.heard.push(number),
                ServerMessage::Welcome { .. }
                | ServerMessage::Resumed { .. }
                | ServerMessage::Resync { .. } => {}
                other => panic!("nobody said {other:?}"),
            }
        }
    }

    /// Connects and lets everything pass until nothing moves.
    fn settle(&mut self) {
        self.take(Step::Connect);
        loop {
            let moved_before = self.moved;
            for all in [
                Step::ClientWrites,
                Step::ServerReads,
                Step::ServerWrites,
                Step::ClientReads,
            ] {
                self.take(all(usize::MAX));
            }
            assert!(!self.server.is_closing(), "no goodbye was said");
            if self.moved == moved_before {
                break;
            }
        }
    }

    fn requests_taken_in(&self) -> Vec<u32> {
        self.server
            .messages
            .iter()
            .map(|message| message.request().expect("acts have requests"))
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn everything_arrives_exactly_once_wherever_connections_are_cut(steps in vec(step(), 0..200)) {
        let mut world = World::new(usize::MAX);
        for step in steps {
            world.take(step);
        }
        world.settle();
        prop_assert_eq!(world.requests_taken_in(), (0..world.sent).collect::<Vec<_>>());
        prop_assert_eq!(&world.heard, &(0..world.said).collect::<Vec<_>>());
        prop_assert_eq!(world.session.counters().gaps, 0);
        prop_assert_eq!(world.session.counters().resyncs, 0);
        prop_assert_eq!(world.session.sent(), world.server.taken_in);
        prop_assert_eq!(world.session.received(), world.server.stream_end());
    }

    #[test]
    fn a_forgetful_server_loses_nothing_of_the_client_and_repeats_nothing(steps in vec(step(), 0..200)) {
        let mut world = World::new(2000);
        for step in steps {
            world.take(step);
        }
        world.settle();
        prop_assert_eq!(world.requests_taken_in(), (0..world.sent).collect::<Vec<_>>());
        prop_assert!(world.heard.is_sorted_by(|earlier, later| earlier < later), "{:?}", world.heard);
        let lost = world.heard.len() as u64 != world.said;
        prop_assert_eq!(lost, world.session.counters().gaps > 0);
        prop_assert_eq!(lost, world.session.counters().resyncs > 0);
        // And it goes on: what the session wanted to know when bytes were lost, it asks again.
        for _ in 0..10 {
            let sent = world.sent;
            world.send(3000);
            prop_assert_eq!(world.sent, sent + 1);
            world.settle();
        }
    }
}

#[test]
fn the_client_confirms_after_the_agreed_number_of_bytes() {
    let mut world = World::new(usize::MAX);
    world.settle();
    for _ in 0..100 {
        world.say(1000);
        world.settle();
        let unconfirmed = world.server.stream_end() - world.server.confirmed;
        assert!(unconfirmed < 4096, "{unconfirmed}");
    }
    assert!(world.server.confirmed > 90_000);
}

#[test]
fn a_full_buffer_is_a_typed_error_and_empties_by_itself() {
    let mut world = World::new(usize::MAX);
    world.settle();
    let message = ClientMessage::Act {
        request: 0,
        action: vec![0; 1000],
    };
    let sent = (0..100)
        .take_while(|_| world.session.send(&message).is_ok())
        .count();
    assert!(sent < 20, "{sent}");
    assert!(matches!(
        world.session.send(&message),
        Err(SessionError::BufferFull { .. })
    ));
    assert_eq!(
        world.session.ping(),
        Ok(()),
        "signs of life have room of their own"
    );
    world.settle();
    assert!(
        world.session.unacknowledged() < UNACKNOWLEDGED_BYTES_MAX / 2,
        "{}",
        world.session.unacknowledged()
    );
    assert_eq!(world.session.send(&message), Ok(()));
}

#[test]
fn a_large_message_that_meets_a_full_buffer_makes_the_session_ask() {
    let mut world = World::new(usize::MAX);
    world.settle();
    // Not yet half full, and yet too full for the largest message.
    world.send(UNACKNOWLEDGED_BYTES_MAX / 2 - 200);
    world.settle();
    let largest = ClientMessage::Act {
        request: 1,
        action: vec![0; 8180],
    };
    assert!(matches!(
        world.session.send(&largest),
        Err(SessionError::BufferFull { .. })
    ));
    world.settle();
    assert_eq!(world.session.send(&largest), Ok(()));
}

#[test]
fn what_is_sent_before_the_greeting_is_answered_goes_out_behind_the_hello() {
    let mut session = ClientSession::new("Ann", "test");
    session
        .send(&ClientMessage::Leave { request: 1 })
        .expect("there is room");
    assert!(session.bytes().is_empty());
    session.begin().expect("it can begin");
    let greeting = session.bytes().len();
    session.advance(greeting);
    assert_eq!(session.bytes(), [2, 0, 0, 0, 7, 1]);
}

#[test]
fn nothing_of_the_stream_goes_out_before_a_resume_is_answered() {
    let mut world = World::new(usize::MAX);
    world.settle();
    world.send(10);
    world.take(Step::Cut);
    world.take(Step::Connect);
    world.take(Step::ClientWrites(usize::MAX));
    assert!(world.session.bytes().is_empty());
    assert!(!world.session.is_established());
    world.settle();
    assert_eq!(world.requests_taken_in(), [0]);
}

#[test]
fn a_bare_token_is_enough_to_come_back() {
    let mut world = World::new(usize::MAX);
    world.settle();
    world.send(10);
    world.say(10);
    world.settle();
    world.take(Step::Cut);
    world.session = ClientSession::from_token(TOKEN);
    world.send(20);
    world.settle();
    assert_eq!(world.requests_taken_in(), [0, 1]);
    assert_eq!(world.session.sent(), world.server.taken_in);
    assert_eq!(world.session.received(), world.server.stream_end());
}

#[test]
fn an_error_says_whether_to_come_back() {
    let mut world = World::new(usize::MAX);
    world.settle();
    for (code, ended) in [
        (ErrorCode::InternalError, false),
        (ErrorCode::Silent, false),
        (ErrorCode::Replaced, true),
    ] {
        world.take(Step::Cut);
        world.session.begin().expect("the session goes on");
        receive(
            &mut world.session,
            &ServerMessage::Error {
                code,
                text: "because".into(),
            },
        );
        let closed = SessionError::Closed {
            code,
            text: "because".into(),
        };
        assert_eq!(world.session.next_message(), Err(closed));
        assert_eq!(world.session.is_ended(), ended, "{code:?}");
        assert!(world.session.bytes().is_empty());
    }
    assert_eq!(world.session.begin(), Err(SessionError::Ended));
    assert_eq!(
        world.session.send(&ClientMessage::Leave { request: 0 }),
        Err(SessionError::Ended)
    );
}

#[test]
fn a_refused_hello_can_be_tried_again() {
    let mut session = ClientSession::new("Ann", "test");
    session.begin().expect("it can begin");
    receive(
        &mut session,
        &ServerMessage::Error {
            code: ErrorCode::NameTaken,
            text: String::new(),
        },
    );
    assert!(session.next_message().is_err());
    assert_eq!(session.begin(), Ok(()));
}

#[test]
fn errors_and_the_end_of_the_server_are_not_part_of_the_stream() {
    let mut world = World::new(usize::MAX);
    world.settle();
    receive(
        &mut world.session,
        &ServerMessage::ShuttingDown { text: "bye".into() },
    );
    assert!(matches!(
        world.session.next_message(),
        Ok(Some(ServerMessage::ShuttingDown { .. }))
    ));
    assert_eq!(world.session.received(), 0);
    assert!(world.session.is_ended());
}

#[test]
fn a_server_that_breaks_the_protocol_ends_the_session() {
    let left = ServerMessage::Left { request: 1 };
    let resumed = |received, resuming_at| ServerMessage::Resumed {
        received,
        resuming_at,
    };
    for wrong in [left.clone(), resumed(0, 0)] {
        let mut session = ClientSession::new("Ann", "test");
        session.begin().expect("it can begin");
        receive(&mut session, &wrong);
        assert!(
            matches!(session.next_message(), Err(SessionError::Violation(_))),
            "{wrong:?}"
        );
        assert!(session.is_ended());
    }
    for wrong in [
        resumed(0, 0),
        ServerMessage::Pong {
            nonce: 0,
            received: 1 << 40,
        },
    ] {
        let mut world = World::new(usize::MAX);
        world.settle();
        receive(&mut world.session, &wrong);
        assert!(
            matches!(world.session.next_message(), Err(SessionError::Violation(_))),
            "{wrong:?}"
        );
    }
    // Greetings that take back what was agreed: the server has taken in 18 bytes and sent 6.
    for wrong in [left, resumed(19, 6), resumed(0, 6), resumed(18, 0)] {
        let mut world = World::new(usize::MAX);
        world.settle();
        world.send(11);
        world.session.ping().expect("there is room");
        world.settle();
        assert_eq!(world.session.unacknowledged(), 0);
        world.take(Step::Cut);
        world.session.begin().expect("it goes on");
        receive(&mut world.session, &wrong);
        assert!(world.session.next_message().is_err(), "{wrong:?}");
        assert!(world.session.is_ended());
    }
}

#[test]
fn the_sessions_own_messages_cannot_be_sent_by_others() {
    let mut session = ClientSession::new("Ann", "test");
    for message in [
        ClientMessage::Hello {
            name: String::new(),
            client: String::new(),
        },
        ClientMessage::Resume {
            token: Token([0; 16]),
            received: 0,
        },
        ClientMessage::Confirm { received: 0 },
        ClientMessage::Ping { nonce: SESSION_NONCE },
    ] {
        assert_eq!(session.send(&message), Err(SessionError::Reserved), "{message:?}");
    }
    assert_eq!(session.send(&ClientMessage::Goodbye), Ok(()));
    assert_eq!(session.send(&ClientMessage::Goodbye), Err(SessionError::Ended));
}

#[test]
fn input_that_nobody_fetches_is_bounded() {
    let mut session = ClientSession::new("Ann", "test");
    session.begin().expect("it can begin");
    assert_eq!(session.receive(&vec![0; INPUT_BYTES_MAX]), Ok(()));
    assert_eq!(session.receive(&[0]), Err(SessionError::InputFull));
}

#[test]
fn a_callers_pong_is_shown_and_the_sessions_own_is_not() {
    let mut world = World::new(usize::MAX);
    world.settle();
    world.session.ping().expect("there is room");
    world
        .session
        .send(&ClientMessage::Ping { nonce: 7 })
        .expect("there is room");
    world.take(Step::ClientWrites(usize::MAX));
    world.take(Step::ServerReads(usize::MAX));
    let answer = world.server.send(usize::MAX);
    world.session.receive(&answer).expect("there is room");
    assert!(matches!(
        world.session.next_message(),
        Ok(Some(ServerMessage::Pong { nonce: 7, .. }))
    ));
    assert_eq!(world.session.next_message(), Ok(None));
}

fn receive(session: &mut ClientSession, message: &ServerMessage) {
    let mut bytes = Vec::new();
    frame::append_frame(message, &mut bytes).expect("it fits");
    session.receive(&bytes).expect("there is room");
}
