//! Promise: `forkade play` plays in a terminal, continues when processes and connections are killed, and
//! restores the terminal in every case.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use crate::common::cutting_proxy::CuttingProxy;
use crate::common::random::Random;
use crate::common::terminal::Terminal;
use crate::common::{Server, WAIT_MAX, eventually, is_alive};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{
    Budgets, ChatScope, GameInfo, Limits, Phase, PlayerId, RejectCode, RoomEvent, RoomFilter, RoomId,
    RoomRules, RoomSettings, SeatInfo, ServerMessage, Snapshot, Token, codec, frame,
};
use nix::sys::signal::Signal;

/// Texts that the screen would show if the player noticed a fault.
const NOTICED: [&str; 3] = ["lost", "reconnecting", "again: nothing"];

/// The number of the only room.
fn the_room(client: &mut Client) -> RoomId {
    let mut found = Vec::new();
    eventually("there is a room", || {
        found = client.list_rooms(RoomFilter::default(), None).expect("a list").0;
        !found.is_empty()
    });
    assert_eq!(found.len(), 1);
    found[0].room
}

/// Waits until the other seat has moved, and moves.
fn answer(bob: &mut Client, cell: u8) {
    let is_anns = |message: &ServerMessage| matches!(message, ServerMessage::Event { event: RoomEvent::Game { data }, .. } if data[0] == 0);
    let heard = bob.receive_where(WAIT_MAX, is_anns).expect("the session lives");
    assert!(heard.is_some(), "Ann did not move");
    bob.act(codec::encode(&cell).expect("an action"))
        .expect("it is Bob's turn");
}

/// Kills Ann's handler, and waits for its replacement.
fn kill_anns_handler(server: &Server) {
    let handler = server.handler_of("Ann").expect("Ann is connected");
    server.kill(handler);
    eventually("Ann's handler has a successor", || {
        server
            .handler_of("Ann")
            .is_some_and(|successor| successor != handler)
    });
}

#[test]
fn a_match_is_played_to_its_end_while_handlers_are_killed() {
    let server = Server::start(&[]);
    let Some(mut ann) = Terminal::play(server.game, &["--name", "Ann"]) else {
        return;
    };
    let mut bob = server.client("Bob");
    ann.expect("new room: tictactoe");
    ann.type_keys("create tic\t A duel\r");
    ann.expect("A duel: tictactoe, waiting");
    let room = the_room(&mut bob);
    bob.join_room(room, None).expect("a seat is free");
    bob.ready(true).expect("the match has not begun");
    ann.expect("Bob, ready");
    ann.type_keys("\r");
    ann.expect("X is to move");
    ann.expect("It is your move.");
    // What happens before a client is told of the start is in the picture that it gets then, and is no event for it.
    let started = |message: &ServerMessage| matches!(message, ServerMessage::Started { .. });
    assert!(
        bob.receive_where(WAIT_MAX, started)
            .expect("the session lives")
            .is_some()
    );

    ann.type_keys("4\r");
    ann.expect(" 3 | X | 5");
    answer(&mut bob, 0);
    ann.expect(" O | 1 | 2");
    kill_anns_handler(&server);
    // The first half of a line is typed before the kill, the second after it.
    ann.type_keys("sa");
    kill_anns_handler(&server);
    ann.type_keys("y still here\r2\r");
    answer(&mut bob, 1);
    ann.expect(" O | O | X");
    ann.expect("Ann says: still here");
    let handler = server.handler_of("Ann").expect("Ann is connected");
    server.kill(handler);
    ann.type_keys("6\r");
    ann.expect("You have won!");
    ann.expect(" X | 7 | 8");
    for text in NOTICED {
        assert!(!ann.written().contains(text), "{text:?} was shown");
    }
    let is_end = |message: &ServerMessage| {
        let ServerMessage::Event { event, .. } = message else {
            return false;
        };
        matches!(event, RoomEvent::Finished { .. })
    };
    assert!(
        bob.receive_where(WAIT_MAX, is_end)
            .expect("the session lives")
            .is_some()
    );

    ann.type_keys("\r");
    ann.expect("Ann (you), owner, ready");
    ann.type_keys("quit\r");
    assert!(ann.wait().success());
    ann.expect_restored();
    // The server received the goodbye: seat and name are free at once, not after the grace.
    server.client("Ann").goodbye().expect("said in order");
}

#[test]
fn a_cut_connection_is_resumed_without_loss() {
    let server = Server::start(&[]);
    let proxy = CuttingProxy::start(server.game, Random::new(7, 1), 400);
    let Some(mut ann) = Terminal::play(proxy.address, &["--name", "Ann", "--game", "relay"]) else {
        return;
    };
    ann.expect("relay, the match is on");
    let mut bob = server.client("Bob");
    let room = the_room(&mut bob);
    bob.join_room(room, None).expect("a seat is free");
    proxy.set_cutting(true);
    // Moves of this game are arbitrary text without a rate limit.
    for number in 0..60_u8 {
        ann.type_keys(&format!("number {number} of Ann's\r"));
        let of_bob = format!("number {number} of Bob's 👩\u{200d}🚀");
        bob.act(of_bob.clone().into_bytes()).expect("he is in the room");
        ann.expect_written(&of_bob);
        ann.expect_written(&format!("number {number} of Ann's"));
    }
    proxy.set_cutting(false);
    let cuts = proxy.cuts();
    assert!(cuts >= 3, "only {cuts} connections were cut");
    ann.expect_written("Connected again: nothing is lost.");
    for number in 0..60_u8 {
        let of_ann = |message: &ServerMessage| match message {
            ServerMessage::Event {
                event: RoomEvent::Game { data },
                ..
            } => {
                let (seat, said) = codec::decode::<(u8, Vec<u8>)>(data).expect("an event of relay");
                (seat == 0).then_some(said)
            }
            _ => None,
        };
        let heard = bob.receive_where(WAIT_MAX, |message| of_ann(message).is_some());
        let heard = heard.expect("the session lives").expect("it comes");
        assert_eq!(
            of_ann(&heard),
            Some(format!("number {number} of Ann's").into_bytes())
        );
    }
    ann.type_keys("\x03");
    ann.type_keys("\x03");
    assert!(ann.wait().success());
}

#[test]
fn the_client_waits_for_a_dead_server_and_then_gives_up() {
    let mut server = Server::start(&["--seat-grace-ms", "1000"]);
    server.expect_any_end();
    let Some(mut ann) = Terminal::play(server.game, &["--name", "Ann", "--game", "tictactoe"]) else {
        return;
    };
    ann.expect("tictactoe for anybody");
    server.kill(server.pid());
    ann.expect("reconnecting");
    ann.type_keys("say is anybody there?\r");
    assert_eq!(ann.wait().code(), Some(1));
    ann.expect("your session is gone");
    ann.expect_restored();
}

#[test]
fn the_client_reports_a_server_that_stops() {
    let mut server = Server::start(&[]);
    let Some(mut ann) = Terminal::play(server.game, &["--name", "Ann"]) else {
        return;
    };
    ann.expect("Welcome, Ann");
    assert!(server.stop().success());
    assert_eq!(ann.wait().code(), Some(1));
    ann.expect("the server has stopped");
    ann.expect_restored();
}

#[test]
fn a_signal_restores_the_terminal_and_frees_the_seat() {
    let server = Server::start(&[]);
    for (signal, status) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGINT, 130),
        (Signal::SIGHUP, 129),
    ] {
        let Some(mut ann) = Terminal::play(server.game, &["--name", "Ann", "--game", "relay"]) else {
            return;
        };
        ann.expect("the match is on");
        assert!(ann.is_raw());
        ann.signal(signal);
        assert_eq!(ann.wait().code(), Some(status), "{signal}");
        ann.expect_restored();
        server.client("Ann").goodbye().expect("said in order");
    }
}

#[test]
fn a_hangup_ends_the_client_and_frees_the_seat() {
    let server = Server::start(&[]);
    let Some(mut ann) = Terminal::play(server.game, &["--name", "Ann", "--game", "relay"]) else {
        return;
    };
    ann.expect("the match is on");
    let pid = ann.pid();
    ann.pull();
    ann.wait();
    assert!(!is_alive(pid));
    eventually("the server has let Ann go", || server.handler_of("Ann").is_none());
    server.client("Ann").goodbye().expect("said in order");
}

#[test]
fn the_client_suspends_and_continues_under_job_control() {
    let server = Server::start(&[]);
    let Some(mut ann) = Terminal::play(server.game, &["--name", "Ann"]) else {
        return;
    };
    ann.expect("Welcome, Ann");
    ann.type_keys("\x1a");
    let stat = format!("/proc/{}/stat", ann.pid());
    eventually("it is stopped", || {
        let stat = std::fs::read_to_string(&stat).expect("it has not ended");
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    });
    ann.expect_restored();
    ann.signal(Signal::SIGCONT);
    eventually("it has the terminal again", || ann.is_raw());
    ann.type_keys("create relay\r");
    ann.expect("the match is on");
}

#[test]
fn a_terminal_without_a_size_can_be_played_in() {
    let server = Server::start(&[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_forkade-under-test"));
    command.args(["play", &server.game.to_string(), "--name", "Ann"]);
    let Some(mut ann) = Terminal::run(&mut command, (0, 0)) else {
        return;
    };
    let mut bob = server.client("Bob");
    eventually("Ann is there", || server.handler_of("Ann").is_some());
    ann.type_keys("create tictactoe Blind\r");
    let room = the_room(&mut bob);
    bob.join_room(room, None).expect("a seat is free");
    for (columns, rows) in [(1, 1), (2, 3), (20, 5), (100, 30)] {
        ann.resize(columns, rows);
    }
    ann.expect("Blind: tictactoe");
    ann.expect("Bob");
    ann.resize(0, 0);
    ann.type_keys("leave\r");
    bob.leave().expect("he is in a room");
    eventually("the room is gone", || {
        bob.list_rooms(RoomFilter::default(), None)
            .expect("a list")
            .0
            .is_empty()
    });
    ann.type_keys("quit\r");
    assert!(ann.wait().success());
    ann.expect_restored();
}

#[test]
fn text_of_other_players_does_not_move_the_cursor() {
    let server = Server::start(&[]);
    let mut bob = server.client("Bo\u{1b}[31mb");
    let room = NewRoom::new("relay", "a\u{1b}[2J\u{202e}room");
    let room = bob.create_room(room).expect("a room is free").room;
    let Some(mut ann) = Terminal::play(server.game, &["--name", "Ann", "--room", "1"]) else {
        return;
    };
    ann.expect("relay, the match is on");
    bob.chat(
        ChatScope::Room,
        "\u{1b}]0;title\u{7}boo\u{9b}2J 名前 👩\u{200d}🚀",
    )
    .expect("he is in the room");
    // Only the screen can escape the payload of a move.
    bob.act(b"\x1b[2J\x1b[Hforged\r\nline".to_vec())
        .expect("relay takes all");
    ann.expect("boo");
    ann.expect("forged");
    ann.type_keys("tell Nobody \x1b hi\r");
    ann.expect("boo");
    for forged in ["\x1b]0;title", "\x1b[31m", "\x1b[Hforged", "\x07", "\u{9b}2J"] {
        assert!(!ann.written().contains(forged), "{forged:?} was written");
    }
    assert_eq!(bob.look().expect("he is in the room").room, room);
}

#[test]
fn an_invitation_is_accepted_and_a_turn_timeout_is_shown() {
    let server = Server::start(&[]);
    let mut bob = server.client("Bob");
    let settings = RoomSettings {
        unlisted: true,
        turn_seconds: 5,
        ..RoomSettings::default()
    };
    let room = NewRoom {
        settings,
        ..NewRoom::new("tictactoe", "Secret")
    };
    bob.create_room(room).expect("a room is free");
    let code = bob.invite(false).expect("he owns the room");
    let Some(mut ann) = Terminal::play(server.game, &["--name", "Ann", "--invite", &code]) else {
        return;
    };
    ann.expect("Secret: tictactoe, waiting for players, unlisted, 5 s for a turn");
    bob.ready(true).expect("the match has not begun");
    ann.expect("Bob, owner, ready");
    ann.type_keys("\r");
    ann.expect_that("a clock that runs for Bob", |screen| {
        let has_clock = |line: &str| line.contains("Bob, owner, ") && line.contains(" s left");
        screen.lines().any(has_clock)
    });
    ann.expect("Bob took too long.");
}

/// A server that completes every handshake, sends the same messages to all, and reads until the end.
fn liar(messages: Vec<ServerMessage>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("it comes");
        let mut bytes = Vec::new();
        for message in &messages {
            frame::append_frame(message, &mut bytes).expect("it fits");
        }
        client.write_all(&bytes).expect("it reads");
        let mut buffer = [0; 1024];
        while matches!(client.read(&mut buffer), Ok(1..)) {}
    });
    address
}

#[test]
fn text_of_the_server_does_not_move_the_cursor() {
    let evil = || "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\r\n\u{202e}evil".to_owned();
    let game = GameInfo {
        name: evil(),
        seats_min: 0,
        seats_max: 255,
        ticks_per_second: 0,
    };
    let greeted = ServerMessage::Greeted {
        version: 2,
        token: Token([7; 16]),
        player: PlayerId(1),
        name: evil(),
        limits: Limits {
            frame_bytes_max: 0,
            name_bytes_max: 0,
            chat_bytes_max: 0,
            confirm_every_bytes: 0,
            heartbeat_timeout_ms: 0,
            seat_grace_ms: 0,
        },
        budgets: Budgets {
            unconfirmed_bytes_max: 0,
            unconfirmed_timeout_ms: 0,
            room_log_bytes: 0,
            chat_burst: 0,
            chat_per_minute: 0,
            requests_burst: 0,
            requests_per_minute: 0,
        },
        received: 0,
        games: vec![game],
    };
    let seat = |name| SeatInfo {
        name,
        connected: false,
        ready: true,
    };
    let snapshot = || Snapshot {
        room: RoomId(u64::MAX),
        game: "tictactoe".into(),
        name: evil(),
        phase: Phase::Playing,
        seat: Some(200),
        seats: vec![Some(seat(evil())), None],
        spectators: u32::MAX,
        event: 5,
        view: evil().into_bytes(),
        owner: Some(255),
        rules: RoomRules::default(),
        reservations: Vec::new(),
        turn: None,
    };
    let event = |number, event| ServerMessage::Event { number, event };
    let messages = vec![
        greeted,
        ServerMessage::Joined {
            request: 0,
            snapshot: snapshot(),
        },
        event(6, RoomEvent::Left { seat: 99 }),
        event(7, RoomEvent::Game { data: evil().into() }),
        event(
            u64::MAX,
            RoomEvent::Chat {
                from: evil(),
                text: evil(),
            },
        ),
        ServerMessage::Removed {
            room: RoomId(0),
            text: evil(),
        },
        ServerMessage::Rejected {
            request: 0,
            code: RejectCode::NotOwner,
            text: evil() + " to the end",
        },
    ];
    let Some(mut ann) = Terminal::play(liar(messages), &["--name", "Ann"]) else {
        return;
    };
    ann.expect("evil to the end");
    for forged in ["\u{1b}[2J\u{1b}]", "\u{1b}]0;", "\u{7}", "\u{9b}", "\u{202e}"] {
        assert!(!ann.written().contains(forged), "{forged:?} was written");
    }
    ann.type_keys("\x03");
    ann.wait();
    ann.expect_restored();
}

#[test]
fn a_failed_start_is_explained() {
    let server = Server::start(&[]);
    let _bob = server.client("Bob");
    let Some(mut taken) = Terminal::play(server.game, &["--name", "Bob"]) else {
        return;
    };
    assert_eq!(taken.wait().code(), Some(1));
    taken.expect("somebody here has this name");
    taken.expect_restored();

    let mut command = Command::new(env!("CARGO_BIN_EXE_forkade-under-test"));
    command
        .args(["play", &server.game.to_string()])
        .env("USER", "Bob");
    let Some(mut other) = Terminal::run(&mut command, (80, 24)) else {
        return;
    };
    other.expect("Welcome, Bob 2");
    other.type_keys("\x04");
    assert!(other.wait().success());

    // The console's port does not speak the protocol, and an unused port does not answer.
    let Some(mut deaf) = Terminal::play(server.console, &[]) else {
        return;
    };
    assert_eq!(deaf.wait().code(), Some(1));
    deaf.expect("forkade play: ");
    deaf.expect_restored();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = nobody.local_addr().expect("bound");
    drop(nobody);
    let Some(mut alone) = Terminal::play(address, &[]) else {
        return;
    };
    assert_eq!(alone.wait().code(), Some(1));
    alone.expect("cannot be reached");
    alone.expect_restored();
}

#[test]
fn without_a_terminal_the_client_points_scripts_to_text_mode() {
    let output = Command::new(env!("CARGO_BIN_EXE_forkade-under-test"))
        .args(["play", "127.0.0.1:1"])
        .stdin(Stdio::null())
        .output()
        .expect("the binary can be run");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("must be a terminal") && told.contains("nc 127.0.0.1 1"),
        "{told}"
    );
    assert!(output.stdout.is_empty());
}
