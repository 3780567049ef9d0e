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

/// The smallest limit that a session accepts, so that its buffer is often full.
const UNACKNOWLEDGED_BYTES_MAX: usize = 2 * FRAME_TOTAL_BYTES_MAX;

/// A client, a server, and a network that delays bytes and loses them when the connection is cut.
struct Simulation {
    session: ClientSession,
    server: ModelServer,
    connected: bool,
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    /// Bytes written to and read from the network.
    moved: usize,
    /// Messages that the client sent.
    sent: u32,
    events_sent: u64,
    events_received: Vec<u64>,
}

/// A step of the simulation.
#[derive(Clone, Debug)]
enum Step {
    Connect,
    Cut,
    /// The client sends a message with this number of bytes.
    ClientSends(usize),
    /// The server sends a message with this number of bytes.
    ServerSends(usize),
    ClientPings,
    /// At most this number of bytes passes from one to the next.
    ClientWrites(usize),
    ServerReads(usize),
    ServerWrites(usize),
    ClientReads(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Connect),
        1 => Just(Step::Cut),
        4 => (0..3000_usize).prop_map(Step::ClientSends),
        4 => (0..3000_usize).prop_map(Step::ServerSends),
        1 => Just(Step::ClientPings),
        4 => (1..5000_usize).prop_map(Step::ClientWrites),
        4 => (1..5000_usize).prop_map(Step::ServerReads),
        4 => (1..5000_usize).prop_map(Step::ServerWrites),
        4 => (1..5000_usize).prop_map(Step::ClientReads),
    ]
}

impl Simulation {
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
            events_sent: 0,
            events_received: Vec::new(),
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Connect if self.connected => {}
            Step::Connect => {
                self.session.begin().expect("the session continues");
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
            Step::ClientSends(size) => self.send(size),
            Step::ServerSends(size) => self.send_event(size),
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

    fn send_event(&mut self, size: usize) {
        // Before the `Welcome` the server has no stream.
        if self.session.token().is_some() {
            let event = RoomEvent::Game { data: vec![0; size] };
            self.server.queue(&ServerMessage::Event {
                number: self.events_sent,
                event,
            });
            self.events_sent += 1;
        }
    }

    fn client_reads(&mut self, count: usize) {
        let count = count.min(self.to_client.len());
        self.moved += count;
        self.session
            .receive(&self.to_client.drain(..count).collect::<Vec<_>>())
            .expect("there is space");
        while let Some(message) = self
            .session
            .next_message()
            .expect("the server follows the protocol")
        {
            match message {
                ServerMessage::Event { number, .. } => self.events_received.push(number),
                ServerMessage::Welcome { .. }
                | ServerMessage::Resumed { .. }
                | ServerMessage::Resync { .. } => {}
                other => panic!("unexpected message {other:?}"),
            }
        }
    }

    /// Connects and passes bytes until none are left.
    fn run_until_idle(&mut self) {
        self.apply(Step::Connect);
        loop {
            let moved_before = self.moved;
            for all in [
                Step::ClientWrites,
                Step::ServerReads,
                Step::ServerWrites,
                Step::ClientReads,
            ] {
                self.apply(all(usize::MAX));
            }
            assert!(!self.server.is_closing(), "no goodbye was sent");
            if self.moved == moved_before {
                break;
            }
        }
    }

    fn requests_processed(&self) -> Vec<u32> {
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
    fn every_message_arrives_exactly_once_wherever_connections_are_cut(steps in vec(step(), 0..200)) {
        let mut simulation = Simulation::new(usize::MAX);
        for step in steps {
            simulation.apply(step);
        }
        simulation.run_until_idle();
        prop_assert_eq!(simulation.requests_processed(), (0..simulation.sent).collect::<Vec<_>>());
        prop_assert_eq!(&simulation.events_received, &(0..simulation.events_sent).collect::<Vec<_>>());
        prop_assert_eq!(simulation.session.counters().gaps, 0);
        prop_assert_eq!(simulation.session.counters().resyncs, 0);
        prop_assert_eq!(simulation.session.sent(), simulation.server.processed);
        prop_assert_eq!(simulation.session.received(), simulation.server.stream_end());
    }

    #[test]
    fn a_server_that_discards_output_loses_no_client_message_and_repeats_none(steps in vec(step(), 0..200)) {
        let mut simulation = Simulation::new(2000);
        for step in steps {
            simulation.apply(step);
        }
        simulation.run_until_idle();
        prop_assert_eq!(simulation.requests_processed(), (0..simulation.sent).collect::<Vec<_>>());
        prop_assert!(simulation.events_received.is_sorted_by(|earlier, later| earlier < later), "{:?}", simulation.events_received);
        let lost = simulation.events_received.len() as u64 != simulation.events_sent;
        prop_assert_eq!(lost, simulation.session.counters().gaps > 0);
        prop_assert_eq!(lost, simulation.session.counters().resyncs > 0);
        // The session repeats its ping if the pong was among the lost bytes, so its buffer drains.
        for _ in 0..10 {
            let sent = simulation.sent;
            simulation.send(3000);
            prop_assert_eq!(simulation.sent, sent + 1);
            simulation.run_until_idle();
        }
    }
}

#[test]
fn the_client_confirms_after_the_agreed_number_of_bytes() {
    let mut simulation = Simulation::new(usize::MAX);
    simulation.run_until_idle();
    for _ in 0..100 {
        simulation.send_event(1000);
        simulation.run_until_idle();
        let unconfirmed = simulation.server.stream_end() - simulation.server.confirmed;
        assert!(unconfirmed < 4096, "{unconfirmed}");
    }
    assert!(simulation.server.confirmed > 90_000);
}

#[test]
fn a_full_buffer_is_a_typed_error_and_drains_by_itself() {
    let mut simulation = Simulation::new(usize::MAX);
    simulation.run_until_idle();
    let message = ClientMessage::Act {
        request: 0,
        action: vec![0; 1000],
    };
    let sent = (0..100)
        .take_while(|_| simulation.session.send(&message).is_ok())
        .count();
    assert!(sent < 20, "{sent}");
    assert!(matches!(
        simulation.session.send(&message),
        Err(SessionError::BufferFull { .. })
    ));
    assert_eq!(
        simulation.session.ping(),
        Ok(()),
        "heartbeats have reserved space"
    );
    simulation.run_until_idle();
    assert!(
        simulation.session.unacknowledged() < UNACKNOWLEDGED_BYTES_MAX / 2,
        "{}",
        simulation.session.unacknowledged()
    );
    assert_eq!(simulation.session.send(&message), Ok(()));
}

#[test]
fn a_large_message_that_does_not_fit_requests_an_acknowledgement() {
    let mut simulation = Simulation::new(usize::MAX);
    simulation.run_until_idle();
    // Less than half full, but too full for the largest message.
    simulation.send(UNACKNOWLEDGED_BYTES_MAX / 2 - 200);
    simulation.run_until_idle();
    let largest = ClientMessage::Act {
        request: 1,
        action: vec![0; 8180],
    };
    assert!(matches!(
        simulation.session.send(&largest),
        Err(SessionError::BufferFull { .. })
    ));
    simulation.run_until_idle();
    assert_eq!(simulation.session.send(&largest), Ok(()));
}

#[test]
fn messages_sent_before_the_welcome_follow_the_hello() {
    let mut session = ClientSession::new("Ann", "test");
    session
        .send(&ClientMessage::Leave { request: 1 })
        .expect("there is space");
    assert!(session.bytes().is_empty());
    session.begin().expect("it can begin");
    let greeting = session.bytes().len();
    session.advance(greeting);
    assert_eq!(session.bytes(), [2, 0, 0, 0, 7, 1]);
}

#[test]
fn the_stream_waits_until_a_resume_is_answered() {
    let mut simulation = Simulation::new(usize::MAX);
    simulation.run_until_idle();
    simulation.send(10);
    simulation.apply(Step::Cut);
    simulation.apply(Step::Connect);
    simulation.apply(Step::ClientWrites(usize::MAX));
    assert!(simulation.session.bytes().is_empty());
    assert!(!simulation.session.is_established());
    simulation.run_until_idle();
    assert_eq!(simulation.requests_processed(), [0]);
}

#[test]
fn a_token_alone_resumes_a_session() {
    let mut simulation = Simulation::new(usize::MAX);
    simulation.run_until_idle();
    simulation.send(10);
    simulation.send_event(10);
    simulation.run_until_idle();
    simulation.apply(Step::Cut);
    simulation.session = ClientSession::from_token(TOKEN);
    simulation.send(20);
    simulation.run_until_idle();
    assert_eq!(simulation.requests_processed(), [0, 1]);
    assert_eq!(simulation.session.sent(), simulation.server.processed);
    assert_eq!(simulation.session.received(), simulation.server.stream_end());
}

#[test]
fn an_error_code_decides_whether_the_session_has_ended() {
    let mut simulation = Simulation::new(usize::MAX);
    simulation.run_until_idle();
    for (code, ended) in [
        (ErrorCode::InternalError, false),
        (ErrorCode::Silent, false),
        (ErrorCode::Replaced, true),
    ] {
        simulation.apply(Step::Cut);
        simulation.session.begin().expect("the session continues");
        receive(
            &mut simulation.session,
            &ServerMessage::Error {
                code,
                text: "because".into(),
            },
        );
        let closed = SessionError::Closed {
            code,
            text: "because".into(),
        };
        assert_eq!(simulation.session.next_message(), Err(closed));
        assert_eq!(simulation.session.is_ended(), ended, "{code:?}");
        assert!(simulation.session.bytes().is_empty());
    }
    assert_eq!(simulation.session.begin(), Err(SessionError::Ended));
    assert_eq!(
        simulation.session.send(&ClientMessage::Leave { request: 0 }),
        Err(SessionError::Ended)
    );
}

#[test]
fn a_refused_hello_can_be_repeated() {
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
fn a_shutdown_message_is_not_part_of_the_stream_and_ends_the_session() {
    let mut simulation = Simulation::new(usize::MAX);
    simulation.run_until_idle();
    receive(
        &mut simulation.session,
        &ServerMessage::ShuttingDown { text: "bye".into() },
    );
    assert!(matches!(
        simulation.session.next_message(),
        Ok(Some(ServerMessage::ShuttingDown { .. }))
    ));
    assert_eq!(simulation.session.received(), 0);
    assert!(simulation.session.is_ended());
}

#[test]
fn a_protocol_violation_ends_the_session() {
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
        let mut simulation = Simulation::new(usize::MAX);
        simulation.run_until_idle();
        receive(&mut simulation.session, &wrong);
        assert!(
            matches!(simulation.session.next_message(), Err(SessionError::Violation(_))),
            "{wrong:?}"
        );
    }
    // Answers that contradict the session: the server has processed 18 bytes and sent 6.
    for wrong in [left, resumed(19, 6), resumed(0, 6), resumed(18, 0)] {
        let mut simulation = Simulation::new(usize::MAX);
        simulation.run_until_idle();
        simulation.send(11);
        simulation.session.ping().expect("there is space");
        simulation.run_until_idle();
        assert_eq!(simulation.session.unacknowledged(), 0);
        simulation.apply(Step::Cut);
        simulation.session.begin().expect("the session continues");
        receive(&mut simulation.session, &wrong);
        assert!(simulation.session.next_message().is_err(), "{wrong:?}");
        assert!(simulation.session.is_ended());
    }
}

#[test]
fn a_caller_cannot_send_the_sessions_own_messages() {
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
fn unfetched_input_is_bounded() {
    let mut session = ClientSession::new("Ann", "test");
    session.begin().expect("it can begin");
    assert_eq!(session.receive(&vec![0; INPUT_BYTES_MAX]), Ok(()));
    assert_eq!(session.receive(&[0]), Err(SessionError::InputFull));
}

#[test]
fn a_callers_pong_is_returned_and_the_sessions_own_is_not() {
    let mut simulation = Simulation::new(usize::MAX);
    simulation.run_until_idle();
    simulation.session.ping().expect("there is space");
    simulation
        .session
        .send(&ClientMessage::Ping { nonce: 7 })
        .expect("there is space");
    simulation.apply(Step::ClientWrites(usize::MAX));
    simulation.apply(Step::ServerReads(usize::MAX));
    let answer = simulation.server.send(usize::MAX);
    simulation.session.receive(&answer).expect("there is space");
    assert!(matches!(
        simulation.session.next_message(),
        Ok(Some(ServerMessage::Pong { nonce: 7, .. }))
    ));
    assert_eq!(simulation.session.next_message(), Ok(None));
}

#[test]
fn events_between_a_gap_and_the_resync_are_left_out() {
    let mut session = ClientSession::from_token(forkade_protocol::Token([1; 16]));
    session.begin().expect("it can begin");
    let event = |number| ServerMessage::Event {
        number,
        event: RoomEvent::Game { data: Vec::new() },
    };
    let resumed = ServerMessage::Resumed {
        received: 0,
        resuming_at: 100,
    };
    let resync = ServerMessage::Resync { snapshot: None };
    for message in [&resumed, &event(8), &event(9), &resync, &event(10)] {
        receive(&mut session, message);
    }
    let returned: Vec<ServerMessage> =
        std::iter::from_fn(|| session.next_message().expect("messages")).collect();
    assert_eq!(returned, [resumed, resync, event(10)]);
}

fn receive(session: &mut ClientSession, message: &ServerMessage) {
    let mut bytes = Vec::new();
    frame::append_frame(message, &mut bytes).expect("it fits");
    session.receive(&bytes).expect("there is space");
}

#[test]
fn limits_of_a_server_are_clamped_to_what_the_library_can_work_with() {
    for (announced, expected) in [(0, (256, 300, 0)), (u32::MAX, (4096, 600_000, 86_400_000))] {
        let mut session = ClientSession::new("Ann", "test").with_version_max(1);
        session.begin().expect("it can begin");
        let welcome = ServerMessage::Welcome {
            version: 1,
            token: forkade_protocol::Token([1; 16]),
            player: forkade_protocol::PlayerId(1),
            name: "Ann".into(),
            limits: forkade_protocol::Limits {
                frame_bytes_max: announced,
                name_bytes_max: announced,
                chat_bytes_max: announced,
                confirm_every_bytes: announced,
                heartbeat_timeout_ms: announced,
                seat_grace_ms: announced,
            },
            games: Vec::new(),
        };
        let mut bytes = Vec::new();
        forkade_protocol::frame::append_frame(&welcome, &mut bytes).expect("it fits");
        session.receive(&bytes).expect("there is space");
        let Ok(Some(ServerMessage::Welcome { limits: returned, .. })) = session.next_message() else {
            panic!("no welcome")
        };
        let kept = session.session_info().expect("it is established").limits;
        for limits in [returned, kept] {
            let clamped = (
                limits.confirm_every_bytes,
                limits.heartbeat_timeout_ms,
                limits.seat_grace_ms,
            );
            assert_eq!(clamped, expected);
        }
    }
}
