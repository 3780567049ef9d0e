//! Promise: clients that are slow, silent or do not read affect no other client, hold resources only for a
//! bounded time, and are told when it is over.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::common::control_pair::expect_harmless;
use crate::common::footprint::memory_kib;
use crate::common::raw_client::{End, RawClient, frame, handshake, handshake_preamble};
use crate::common::tcp_table::server_end;
use crate::common::{Server, WAIT_MAX, eventually};
use forkade_protocol::client::NewRoom;
use forkade_protocol::{ClientMessage, ErrorCode, RoomEvent, RoomId, RoomSettings, ServerMessage};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[test]
fn a_session_works_byte_by_byte() {
    expect_harmless(&[], |server| {
        let mut raw = RawClient::connect(server);
        let create = ClientMessage::CreateRoom {
            request: 1,
            game: "relay".to_owned(),
            name: "slow".to_owned(),
            settings: RoomSettings {
                seats: 1,
                ..RoomSettings::default()
            },
        };
        let said = [
            create,
            ClientMessage::Act {
                request: 2,
                action: vec![1, 2, 3],
            },
            ClientMessage::Goodbye,
        ];
        let bytes: Vec<u8> = handshake("Morse")
            .into_iter()
            .chain(said.iter().flat_map(frame))
            .collect();
        for byte in bytes {
            raw.send(&[byte]);
            std::thread::sleep(Duration::from_millis(1));
        }
        let (messages, end) = raw.rest();
        assert!(
            matches!(
                messages[..],
                [
                    ServerMessage::Welcome { .. },
                    ServerMessage::Joined { request: 1, .. },
                    ServerMessage::Event { .. }
                ]
            ),
            "{messages:?}"
        );
        assert_eq!(end, End::Closed);
    });
}

/// Sends single bytes with pauses until the server closes. Returns how long that took since `began`.
fn drip(raw: &mut RawClient, byte: u8, began: Instant) -> Duration {
    raw.stream.set_nonblocking(true).expect("a socket");
    while raw
        .stream
        .peek(&mut [0])
        .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    {
        assert!(began.elapsed() < WAIT_MAX, "the server waits for ever");
        raw.send(&[byte]);
        std::thread::sleep(Duration::from_millis(20));
    }
    raw.stream.set_nonblocking(false).expect("a socket");
    began.elapsed()
}

#[test]
fn a_handshake_timeout_is_reported_to_the_client() {
    expect_harmless(&["--handshake-timeout-ms", "1500"], |server| {
        let mut silent = RawClient::connect(server);
        silent.expect_error(ErrorCode::HandshakeTimeout);
        let began = Instant::now();
        let mut slow = RawClient::connect(server);
        slow.send(&handshake_preamble());
        slow.send(&400_u32.to_le_bytes());
        // The server counts in whole milliseconds.
        assert!(drip(&mut slow, 0, began) >= Duration::from_millis(1498));
        slow.expect_error(ErrorCode::HandshakeTimeout);
    });
}

#[test]
fn an_incomplete_frame_does_not_count_as_a_heartbeat() {
    expect_harmless(&["--heartbeat-timeout-ms", "3000"], |server| {
        let began = Instant::now();
        let mut slow = RawClient::connect_as(server, "Slow");
        slow.send(&8000_u32.to_le_bytes());
        assert!(drip(&mut slow, 0, began) >= Duration::from_millis(2998));
        slow.expect_error(ErrorCode::Silent);
    });
}

/// A client in a relay room: joins `room` if it is given, or else creates one with `seats` seats.
fn in_relay(raw: &mut RawClient, seats: u8, room: Option<RoomId>) -> RoomId {
    raw.send_message(&match room {
        Some(room) => ClientMessage::JoinRoom {
            request: 1,
            room,
            passcode: None,
        },
        None => ClientMessage::CreateRoom {
            request: 1,
            game: "relay".to_owned(),
            name: "flooded".to_owned(),
            settings: RoomSettings {
                seats,
                ..RoomSettings::default()
            },
        },
    });
    match raw.next_where(|message| message.request() == Some(1)) {
        ServerMessage::Joined { snapshot, .. } => snapshot.room,
        other => panic!("not in the room: {other:?}"),
    }
}

#[test]
fn a_client_that_never_reads_delays_nobody_and_gets_a_snapshot_when_it_reads_again() {
    const ROUNDS: u64 = 2000;
    expect_harmless(&[], |server| {
        // The kernel's buffers are so small that the server would have to keep nearly all of the flood.
        let mut sleeper = RawClient::with_receive_buffer(server, 4096);
        sleeper.send(&handshake("Sleeper"));
        let room = in_relay(&mut sleeper, 3, None);
        let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
        ann.join_room(room, None).expect("a seat is free");
        bob.join_room(room, None).expect("a seat is free");
        let memory_before_kib = memory_kib(server);

        let mut number = None;
        for _ in 0..ROUNDS {
            ann.send(&ClientMessage::Act {
                request: 1,
                action: vec![0; 4096],
            })
            .expect("the session lives");
            for client in [&mut ann, &mut bob] {
                let event = |message: &ServerMessage| {
                    matches!(
                        message,
                        ServerMessage::Event {
                            event: RoomEvent::Game { .. },
                            ..
                        }
                    )
                };
                match client.receive_where(WAIT_MAX, event).expect("the session lives") {
                    Some(ServerMessage::Event { number: next, .. }) => number = Some(next),
                    other => panic!("{other:?} instead of what was said"),
                }
            }
        }
        let number = number.expect("there were rounds");
        assert_eq!((ann.counters().resyncs, bob.counters().resyncs), (0, 0));

        // Twice SO_SNDBUF, and the kernel lets the last packet exceed it.
        let queued = queued_bytes(server, &sleeper);
        assert!(
            (1..=3 * 64 * 1024).contains(&queued),
            "the kernel holds {queued} bytes for the sleeper"
        );
        let grown_kib = memory_kib(server).saturating_sub(memory_before_kib);
        assert!(grown_kib < 2048, "the server has grown by {grown_kib} KiB");

        // The rest of the old output, then a snapshot, and nothing twice.
        let mut last = 0;
        let resync = loop {
            match sleeper.next_message().expect("the connection lives") {
                ServerMessage::Event { number, .. } => {
                    assert_eq!(number, last + 1, "an event was lost or came twice");
                    last = number;
                }
                ServerMessage::Resync { snapshot } => break snapshot.expect("it is in the room"),
                other => panic!("the sleeper received {other:?}"),
            }
        };
        assert!(
            last < number && resync.event == number && resync.seats.iter().flatten().count() == 3,
            "{resync:?}"
        );
        ann.act(vec![7]).expect("legal");
        match sleeper.next_message() {
            Ok(ServerMessage::Event {
                number: next,
                event: RoomEvent::Game { .. },
            }) => assert_eq!(next, number + 1),
            other => panic!("the sleeper received {other:?}"),
        }
        ann.goodbye().expect("said in order");
        bob.goodbye().expect("said in order");
    });
}

/// Bytes that the kernel holds for this client at the server's end.
fn queued_bytes(server: &Server, raw: &RawClient) -> usize {
    let end = server_end(server.game.port(), raw.port()).expect("the connection is in the kernel's table");
    usize::try_from(end.unsent).expect("so many fit")
}

#[test]
fn a_client_that_only_sends_is_not_read_and_is_answered_in_full_later() {
    // Far more than the ring and the kernel's buffers hold.
    const BYTES_MAX: usize = 64 << 20;
    expect_harmless(&[], |server| {
        let mut raw = RawClient::with_receive_buffer(server, 4096);
        raw.send(&handshake("Talker"));
        let first_nonce = 1 << 40;
        let ping = |nonce| frame(&ClientMessage::Ping { nonce });
        let memory_before_kib = memory_kib(server);

        raw.stream.set_nonblocking(true).expect("a socket");
        let mut pings = 0;
        let mut unsent = Vec::new();
        let mut stuck_since = Instant::now();
        while stuck_since.elapsed() < Duration::from_millis(500) {
            if unsent.is_empty() {
                unsent = (0..100)
                    .flat_map(|more| ping(first_nonce + pings + more))
                    .collect();
                pings += 100;
            }
            match raw.stream.write(&unsent) {
                Ok(count) => {
                    unsent.drain(..count);
                    stuck_since = Instant::now();
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
            assert!(
                pings < (BYTES_MAX / ping(first_nonce).len()) as u64,
                "the server reads without end"
            );
        }
        raw.stream.set_nonblocking(false).expect("a socket");
        let grown_kib = memory_kib(server).saturating_sub(memory_before_kib);
        assert!(grown_kib < 1024, "the server has grown by {grown_kib} KiB");

        let mut writer = raw.stream.try_clone().expect("a socket");
        let rest = std::thread::spawn(move || writer.write_all(&unsent).expect("the server reads on"));
        assert!(matches!(raw.next_message(), Ok(ServerMessage::Welcome { .. })));
        for nonce in first_nonce..first_nonce + pings {
            match raw.next_message() {
                Ok(ServerMessage::Pong { nonce: answered, .. }) => assert_eq!(answered, nonce),
                other => panic!("ping {nonce} was answered {other:?}"),
            }
        }
        rest.join().expect("all was sent");
    });
}

#[test]
fn a_client_that_does_not_read_for_too_long_is_disconnected() {
    let server = Server::start(&["--seat-grace-ms", "100", "--heartbeat-timeout-ms", "120000"]);
    let mut raw = RawClient::with_receive_buffer(&server, 4096);
    raw.send(&handshake("Statue"));
    in_relay(&mut raw, 1, None);
    raw.stream.set_nonblocking(true).expect("a socket");
    let act = frame(&ClientMessage::Act {
        request: 1,
        action: vec![0; 4096],
    });
    while raw.stream.write(&act).is_ok() {}
    eventually("the statue is gone", || server.status("players") == 0);
    eventually("its connection is closed", || server.status("handlers") == 0);
}

#[test]
fn a_thousand_silent_connections_take_no_place_from_players() {
    let connections = 1000.min(raised_open_file_limit().saturating_sub(200));
    expect_harmless(&["--handshake-timeout-ms", "3000"], |server| {
        let mut silent: Vec<RawClient> = (0..connections).map(|_| RawClient::connect(server)).collect();
        // Other clients connect, play and leave meanwhile.
        let mut guest = server.client("Guest");
        guest
            .create_room(NewRoom::new("relay", "meanwhile"))
            .expect("a room is free");
        guest.act(vec![1]).expect("legal");
        guest.goodbye().expect("said in order");
        for raw in &mut silent {
            raw.expect_error(ErrorCode::HandshakeTimeout);
        }
        assert!(server.status("accepted_total") > connections);
    });
}

/// Raises this process's limit of open files to the hard limit.
fn raised_open_file_limit() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit is allowed");
    hard
}
