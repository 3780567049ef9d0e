//! Promise: nothing is sent that could not be sent again, so a lost connection costs a client nothing that confirms
//! what it has received; and a client that reads promptly loses no event, however fast another one sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::raw_client::{End, RawClient, frame};
use crate::common::{Server, WAIT_MAX};
use crate::harness::{Actor, World};
use forkade::testing::frontends::dispatch::FrameOutcome;
use forkade::testing::state::layout::Capacity;
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::limits::CONFIRM_EVERY_BYTES;
use forkade_protocol::{
    ChatScope, ClientMessage, ErrorCode, RoomEvent, RoomId, RoomSettings, ServerMessage, Token, preamble,
};

/// Bytes of one move. With its envelope an event has less than 1100 bytes.
const MOVE_BYTES: usize = 1024;
/// Most bytes that may be sent before the client confirms.
const RING_BYTES: u64 = forkade::limits::OUTPUT_RING_BYTES as u64;

fn act(request: u32) -> ClientMessage {
    let mut action = request.to_le_bytes().to_vec();
    action.resize(MOVE_BYTES, 0);
    ClientMessage::Act { request, action }
}

/// The number in a move's event, if it is one.
fn number_of(message: &ServerMessage) -> Option<u32> {
    let ServerMessage::Event {
        event: RoomEvent::Game { data },
        ..
    } = message
    else {
        return None;
    };
    // Seat, length in three bytes, and the move.
    let number = data.get(4..8)?;
    Some(u32::from_le_bytes(number.try_into().expect("four bytes")))
}

/// A client without a library that counts its stream.
struct Counting {
    raw: RawClient,
    token: Token,
    received: u64,
    confirmed: u64,
}

impl Counting {
    fn connect(server: &Server, name: &str) -> Self {
        let mut raw = RawClient::connect(server);
        let greet = ClientMessage::Greet {
            name: name.to_owned(),
            client: "raw".to_owned(),
            nonce: 1,
            acknowledge: false,
        };
        raw.send(&[&preamble::build(2, 2)[..], &frame(&greet)].concat());
        match raw.next_message() {
            Ok(ServerMessage::Greeted { token, .. }) => Self {
                raw,
                token,
                received: 0,
                confirmed: 0,
            },
            other => panic!("no greeting, but {other:?}"),
        }
    }

    /// Continues on a new connection. Returns the offset at which the server's stream continues.
    fn resume(&mut self, server: &Server) -> u64 {
        self.raw = RawClient::connect(server);
        let resume = ClientMessage::Resume {
            token: self.token,
            received: self.received,
        };
        self.raw
            .send(&[&preamble::build(1, 2)[..], &frame(&resume)].concat());
        match self.raw.next_message() {
            Ok(ServerMessage::Resumed { resuming_at, .. }) => {
                self.received = resuming_at;
                self.confirmed = resuming_at;
                resuming_at
            }
            other => panic!("no resume, but {other:?}"),
        }
    }

    /// The next message. Does not confirm.
    fn next(&mut self) -> Result<ServerMessage, End> {
        let message = self.raw.next_message()?;
        if !matches!(message, ServerMessage::Error { .. }) {
            let mut bytes = Vec::new();
            self.received +=
                forkade_protocol::frame::append_frame(&message, &mut bytes).expect("it was a frame") as u64;
        }
        Ok(message)
    }

    /// Confirms what was received, if it is time to.
    fn confirm(&mut self) {
        if self.received - self.confirmed >= u64::from(CONFIRM_EVERY_BYTES) {
            self.confirmed = self.received;
            let received = self.received;
            self.raw.send_message(&ClientMessage::Confirm { received });
        }
    }

    fn join(&mut self, room: RoomId) {
        self.raw.send_message(&ClientMessage::JoinRoom {
            request: 1,
            room,
            passcode: None,
        });
        while !matches!(self.next(), Ok(ServerMessage::Joined { .. })) {}
    }

    /// Receives moves from `first` to `last`, each once and in order, and confirms them.
    fn expect_moves(&mut self, first: u32, last: u32) {
        let mut expected = first;
        while expected <= last {
            let message = self.next().expect("the connection lives");
            assert!(
                !matches!(message, ServerMessage::Resync { .. }),
                "move {expected} was lost"
            );
            if let Some(number) = number_of(&message) {
                assert_eq!(number, expected);
                expected += 1;
            }
            self.confirm();
        }
    }
}

/// A relay room with this many seats, and its owner.
fn room(server: &Server, name: &str, seats: u8) -> (Client, RoomId) {
    let mut owner = server.client(name);
    let settings = RoomSettings {
        seats,
        ..RoomSettings::default()
    };
    let new = NewRoom {
        settings,
        ..NewRoom::new("relay", "flooded")
    };
    let room = owner.create_room(new).expect("a room is free").room;
    (owner, room)
}

/// Makes these moves and waits until the server has executed them.
fn make_moves(client: &mut Client, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        client.send(&act(number)).expect("the session lives");
        while client
            .receive(Duration::ZERO)
            .expect("the session lives")
            .is_some()
        {}
    }
    client.ping().expect("the session lives");
}

#[test]
fn a_lost_connection_costs_a_client_no_byte_of_what_its_kernel_had_received() {
    // More than the ring holds, and less than ring and room's log together.
    const MOVES: u32 = 230;
    let server = Server::start(&[]);
    let (mut ann, room) = room(&server, "Ann", 3);
    let mut bob = Counting::connect(&server, "Bob");
    bob.join(room);
    make_moves(&mut ann, 1..=MOVES);
    // The client's machine has acknowledged whatever was sent, and its program has seen nothing of it.
    let before = bob.received;
    bob.raw.stream.peek(&mut [0]).expect("something has arrived");
    thread::sleep(Duration::from_millis(300));
    std::mem::replace(&mut bob.raw, RawClient::connect(&server)).reset();
    assert_eq!(bob.resume(&server), before, "bytes were lost");
    bob.expect_moves(1, MOVES);
    server.expect_no_errors();
}

#[test]
fn a_client_that_reads_and_never_confirms_is_told_so_and_can_resume_without_loss() {
    const MOVES: u32 = 230;
    let server = Server::start(&["--heartbeat-timeout-ms", "120000"]);
    let (mut ann, room) = room(&server, "Ann", 2);
    let mut bob = Counting::connect(&server, "Bob");
    bob.join(room);
    make_moves(&mut ann, 1..=MOVES);
    let mut last = 0;
    let error = loop {
        match bob.next() {
            Ok(ServerMessage::Error { code, text }) => break (code, text),
            Ok(message) => last = number_of(&message).unwrap_or(last),
            Err(end) => panic!("the connection ended without an error: {end:?}"),
        }
    };
    assert_eq!(error.0, ErrorCode::NotConfirming);
    assert!(error.1.contains("Confirm"), "{}", error.1);
    assert!(
        bob.received <= RING_BYTES,
        "{} bytes were sent unconfirmed",
        bob.received
    );
    assert!(last > 0 && last < MOVES);
    assert_eq!(server.status("unconfirmed_closed_total"), 1);
    let before = bob.received;
    assert_eq!(bob.resume(&server), before);
    bob.expect_moves(last + 1, MOVES);
}

#[test]
fn a_confirm_behind_many_moves_is_heard() {
    const MOVES: u32 = 500;
    let server = Server::start(&[]);
    let (mut ann, room) = room(&server, "Ann", 2);
    let mut bob = Counting::connect(&server, "Bob");
    bob.join(room);
    // Everything at once, and nothing is confirmed before the end.
    let bytes: Vec<u8> = (1..=MOVES).flat_map(|number| frame(&act(number))).collect();
    let mut writer = bob.raw.stream.try_clone().expect("a socket");
    let sending =
        thread::spawn(move || std::io::Write::write_all(&mut writer, &bytes).expect("the server reads"));
    let reading = thread::spawn(move || {
        for expected in 1..=MOVES {
            let is_move = |message: &ServerMessage| number_of(message).is_some();
            let message = ann.receive_where(WAIT_MAX, is_move).expect("the session lives");
            let number = message.as_ref().and_then(number_of);
            assert_eq!(number, Some(expected), "a move was lost");
        }
        ann.counters().resyncs
    });
    sending.join().expect("all was sent");
    // The sender has got as much as could be kept for it, and goes on once it confirms.
    while !matches!(
        bob.next().expect("the connection lives"),
        ServerMessage::Resync { .. }
    ) {
        bob.confirm();
    }
    assert_eq!(reading.join().expect("it lost nothing"), 0);
    server.expect_no_errors();
}

#[test]
fn a_prompt_reader_loses_nothing_when_a_seat_sends_half_a_mebibyte_at_once() {
    const MOVES: u32 = 512;
    const READERS: usize = 6;
    // On a crowded machine a prompt reader, too, may wait for a processor for long.
    let server = Server::start(&["--reader-wait-ms", "5000"]);
    let (mut ann, room) = room(&server, "Ann", 1 + u8::try_from(READERS).expect("few"));
    let readers: Vec<_> = (0..READERS)
        .map(|nth| {
            let mut reader = server.client(&format!("Reader {nth}"));
            reader.join_room(room, None).expect("a seat is free");
            thread::spawn(move || {
                let mut expected = 1;
                while expected <= MOVES {
                    let message = reader
                        .receive(WAIT_MAX)
                        .expect("the session lives")
                        .expect("a message");
                    assert!(
                        !matches!(message, ServerMessage::Resync { .. }),
                        "reader {nth} lost move {expected}"
                    );
                    if let Some(number) = number_of(&message) {
                        assert_eq!(number, expected);
                        expected += 1;
                    }
                }
            })
        })
        .collect();
    make_moves(&mut ann, 1..=MOVES);
    for reader in readers {
        reader.join().expect("it lost nothing");
    }
    assert_eq!(server.status("resyncs_total"), 0);
    server.expect_no_errors();
}

#[test]
fn a_move_waits_for_a_reader_that_could_lose_it_and_not_again_and_again() {
    let world = World::new(Capacity {
        players: 4,
        rooms: 4,
        keepers: 1,
    });
    let wait_ms = &world.memory.header.reader_wait_ms;
    // Longer than the test takes.
    wait_ms.store(10 * 60_000, Ordering::Relaxed);
    let mut ann = Actor::connect_as(world, 0, "Ann");
    ann.request(&ClientMessage::CreateRoom {
        request: 1,
        game: "relay".into(),
        name: "flooded".into(),
        settings: RoomSettings::default(),
    });
    let mut bob = Actor::connect_as(world, 1, "Bob");
    bob.request(&ClientMessage::JoinRoom {
        request: 1,
        room: RoomId(1 << 32),
        passcode: None,
    });
    let is_resync = |message: &ServerMessage| matches!(message, ServerMessage::Resync { .. });
    for _ in 0..3 {
        // Four times what the log holds; Ann reads what she says, Bob only when she has to wait.
        let mut waits = 0_u32;
        for number in 0..1000 {
            ann.send_message(&act(number));
            while ann.handle() == FrameOutcome::Wait {
                waits += 1;
                assert!(
                    !bob.receive_messages().iter().any(is_resync),
                    "move {number} was lost"
                );
            }
            ann.receive_messages();
        }
        assert!(waits > 3, "the writer never waited");
    }
    bob.receive_messages();
    // Now Bob reads nothing. Once the time is over, Ann does not wait for him again.
    let handled = |ann: &mut Actor, number| {
        let outcome = ann.send_and_handle(&act(number));
        ann.receive_messages();
        outcome == FrameOutcome::Handled
    };
    assert!(!(0..1000).all(|number| handled(&mut ann, number)));
    wait_ms.store(1, Ordering::Relaxed);
    let began = Instant::now();
    let mut waits = 0_u32;
    let mut is_waiting = true;
    for number in 0..1000 {
        while is_waiting && ann.handle() == FrameOutcome::Wait {
            waits += 1;
            thread::sleep(Duration::from_millis(2));
        }
        is_waiting = !handled(&mut ann, number);
    }
    // The wait is over at the latest when it is looked at again.
    let windows = 1 + began.elapsed().as_millis() / u128::from(forkade::limits::READER_WAIT_WINDOW_MS);
    assert!(u128::from(waits) <= 2 * windows + 1, "Ann waited {waits} times");
    assert!(bob.receive_messages().iter().any(is_resync));
}

#[test]
fn a_reader_that_stalls_does_not_slow_a_writer_again_and_again() {
    const MOVES: u32 = 3000;
    let server = Server::start(&[]);
    let (mut ann, room) = room(&server, "Ann", 2);
    let mut sleeper = Counting::connect(&server, "Sleeper");
    sleeper.join(room);
    let began = Instant::now();
    make_moves(&mut ann, 1..=MOVES);
    let windows = u64::try_from(began.elapsed().as_millis()).expect("not long")
        / forkade::limits::READER_WAIT_WINDOW_MS;
    let given_up = server.status("readers_given_up_total");
    assert!(
        (1..=1 + windows).contains(&given_up),
        "it was waited for {given_up} times"
    );
}

#[test]
fn a_slow_but_steady_reader_lives_on_by_snapshots() {
    let server = Server::start(&["--heartbeat-timeout-ms", "2000"]);
    let (mut ann, room) = room(&server, "Ann", 2);
    let mut bob = Counting::connect(&server, "Bob");
    bob.join(room);
    let (is_over, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let flooding = thread::spawn({
        let (is_over, made) = (Arc::clone(&is_over), Arc::clone(&made));
        move || {
            while !is_over.load(Ordering::Relaxed) {
                let number = made.load(Ordering::Relaxed);
                make_moves(&mut ann, number + 1..=number + 10);
                made.store(number + 10, Ordering::Relaxed);
            }
        }
    });
    // It reads one message while two moves are made, confirms, and sends heartbeats, for much longer than the heartbeat
    // timeout.
    let (mut resyncs, mut nonce, mut read) = (0, 0, 0);
    let (began, mut last_ping) = (Instant::now(), Instant::now());
    while resyncs == 0 || began.elapsed() < Duration::from_secs(6) {
        assert!(began.elapsed() < 2 * WAIT_MAX, "it never fell behind");
        if last_ping.elapsed() > Duration::from_millis(500) {
            nonce += 1;
            bob.raw.send_message(&ClientMessage::Ping { nonce });
            last_ping = Instant::now();
        }
        if 2 * read > made.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        match bob.next() {
            Ok(ServerMessage::Error { code, text }) => panic!("{code:?}: {text}"),
            Ok(ServerMessage::Resync { .. }) => resyncs += 1,
            Ok(_) => read += 1,
            Err(end) => panic!("the connection ended: {end:?}"),
        }
        bob.confirm();
    }
    is_over.store(true, Ordering::Relaxed);
    flooding.join().expect("the writer lives");
}

#[test]
fn a_gap_drops_only_what_the_client_has_confirmed() {
    let server = Server::start(&[]);
    let mut ann = server.client("Ann");
    let mut bob = Counting::connect(&server, "Bob");
    let whisper = |text: &str| ClientMessage::Chat {
        request: 1,
        scope: ChatScope::Whisper { to: "Bob".into() },
        text: text.into(),
    };
    let is = |message: &ServerMessage, expected: &str| matches!(message, ServerMessage::Chat { text, .. } if text == expected);
    ann.send(&whisper("one")).expect("the session lives");
    assert!(is(&bob.next().expect("a whisper"), "one"));
    let confirmed = bob.received;
    bob.raw
        .send_message(&ClientMessage::Confirm { received: confirmed });
    bob.raw.send_message(&ClientMessage::Ping { nonce: 1 });
    assert!(matches!(bob.next(), Ok(ServerMessage::Pong { .. })));
    ann.send(&whisper("two")).expect("the session lives");
    assert!(is(&bob.next().expect("a whisper"), "two"));
    // The program was restarted and has only its token.
    bob.received = 0;
    assert_eq!(bob.resume(&server), confirmed);
    assert!(matches!(bob.next(), Ok(ServerMessage::Pong { .. })));
    assert!(is(&bob.next().expect("a whisper"), "two"));
    assert!(matches!(bob.next(), Ok(ServerMessage::Resync { snapshot: None })));
}
