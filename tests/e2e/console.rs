//! Promise: an operator, by `telnet` or by script, can inspect and control the server, and cannot harm other
//! clients by the form of a request.

use std::net::Shutdown;

use crate::common::operator::{Operator, console_process, one};
use crate::common::{Server, WAIT_MAX, eventually};
use forkade::limits::CONSOLE_LINE_BYTES_MAX;
use forkade_protocol::client::NewRoom;
use forkade_protocol::{ChatScope, ErrorCode};
use serde_json::Value;

const QUERIES: [&str; 8] = [
    "status",
    "processes",
    "players",
    "rooms",
    "locks",
    "config",
    "ping",
    "log",
];

/// Requests an answer that proves that all earlier bytes were processed: IAC DO TIMING-MARK, answered by IAC
/// WONT TIMING-MARK.
const TIMING_MARK: ([u8; 3], [u8; 3]) = ([255, 253, 6], [255, 252, 6]);

#[test]
fn every_reply_ends_in_ok_or_in_err_with_a_reason() {
    let server = Server::start(&[]);
    let mut operator = Operator::new(&server);
    for query in QUERIES {
        operator.ask_json(query);
        assert_eq!(operator.ask(query).pop().expect("a last line"), "OK");
        let wrong = operator.ask(&format!("{query} --wrong"));
        assert!(wrong[0].starts_with(&format!("ERR usage: {query}")), "{wrong:?}");
    }
    let help = operator.ask("help");
    let others = [
        "player", "room", "watch", "trace", "say", "kick", "drain", "stop", "edit", "quit", "help",
    ];
    for command in QUERIES.iter().chain(&others) {
        assert!(
            help.iter().any(|line| line.starts_with(command)),
            "{command} is missing in {help:?}"
        );
        assert!(operator.ask(&format!("help {command}"))[0].starts_with(command));
    }
    for wrong in [
        "stutus",
        "help stutus",
        "kick",
        "say",
        "say \u{200b}",
        "kick nobody",
        "player nobody",
        "player 4294967296",
        "room 4294967296",
        "room 18446744073709551615",
        "room the corner",
        "watch 4294967296",
        "trace nobody",
        "log loud",
        "drain tomorrow",
        "drain off",
        "stop now",
        "quit now",
        "status\tnow",
    ] {
        let reply = operator.ask(wrong);
        assert!(
            reply.len() == 1 && reply[0].len() > "ERR ".len(),
            "{wrong}: {reply:?}"
        );
    }
    assert_eq!(operator.ask("quit"), ["OK"]);
    assert_eq!(operator.line(), None);
}

#[test]
fn status_has_the_figures_that_scripts_rely_on() {
    let server = Server::start(&[]);
    let mut ann = server.client("Ann");
    let mut operator = Operator::new(&server);
    let status = operator.ask_json("status");
    let numbers = [
        "players",
        "rooms",
        "handlers",
        "accepted_total",
        "refused_total",
        "takeovers_total",
        "recoveries_total",
        "uptime_seconds",
    ];
    for key in numbers {
        assert!(status[key].is_number(), "{key} in {status}");
    }
    assert_eq!(status["players"], 1);
    // Her keeper may be a different one from the keeper that serves the operator.
    eventually("her handler is counted", || {
        operator.ask_json("status")["handlers"] == 1
    });

    let processes = operator.ask_json("processes");
    assert_eq!(one(&processes, "role", "supervisor".into())["pid"], server.pid());
    for role in ["listener", "ticker", "keeper", "console"] {
        assert!(one(&processes, "role", role.into())["player"].is_null());
    }
    let handler = one(&processes, "role", "handler".into());
    assert_eq!(handler["player"], "Ann");
    for process in processes.as_array().expect("a list") {
        let pid = process["pid"].as_u64().expect("a number");
        assert!(
            crate::common::is_alive(u32::try_from(pid).expect("a pid")),
            "{process}"
        );
    }
    let with_memory = operator.ask_json("processes --memory");
    assert!(
        one(&with_memory, "player", "Ann".into())["pss_kib"]
            .as_u64()
            .is_some_and(|kib| kib > 0)
    );

    server.kill(u32::try_from(handler["pid"].as_u64().expect("a number")).expect("a pid"));
    ann.ping().expect("another handler answers");
    eventually("the takeover is counted", || {
        operator.ask_json("status")["takeovers_total"] == 1
    });
}

#[test]
fn the_console_lists_players_rooms_and_processes() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob the 2nd"));
    let room = ann
        .create_room(NewRoom::new("tictactoe", "The corner"))
        .expect("a room is free")
        .room;
    bob.join_room(room, None).expect("a seat is free");
    // So that each handler has taken the lock of its own record.
    for client in [&mut ann, &mut bob] {
        client.ping().expect("the session lives");
    }
    let mut operator = Operator::new(&server);

    let rooms = operator.ask_json("rooms");
    let corner = one(&rooms, "id", room.0.into());
    assert_eq!(
        (&corner["name"], &corner["game"]),
        (&"The corner".into(), &"tictactoe".into())
    );
    assert_eq!(
        (&corner["phase"], &corner["taken"], &corner["seats"]),
        (&"waiting".into(), &2.into(), &2.into())
    );
    assert_eq!(
        corner["players"],
        Value::from(["Ann", "Bob the 2nd"].map(Value::from).to_vec())
    );

    let players = operator.ask_json("players");
    let second = one(&players, "name", "Bob the 2nd".into());
    assert_eq!(
        (&second["presence"], &second["seat"]),
        (&"connected".into(), &1.into())
    );
    assert_eq!(
        (&second["room"], second["pid"].as_u64()),
        (&1.into(), server.handler_of("Bob the 2nd").map(u64::from))
    );

    // One number for the room, which players in text mode see, too; the id on the wire does as well.
    assert_eq!(corner["room"], 1);
    for query in ["room 1", &format!("room {}", room.0)] {
        let shown = operator.ask_json(query);
        assert_eq!(
            (&shown["room"], &shown["id"]),
            (&1.into(), &room.0.into()),
            "{query}"
        );
    }
    let table = operator.ask("rooms");
    assert!(
        table[0].starts_with("room ") && table[1].starts_with("1 "),
        "{table:?}"
    );
    let locks = operator.ask_json("locks --all");
    assert_eq!(one(&locks, "lock", "room".into())["number"], 1);
    for lock in ["lobby", "player", "room", "total"] {
        assert!(
            one(&locks, "lock", lock.into())["taken"]
                .as_u64()
                .is_some_and(|taken| taken > 0),
            "{locks}"
        );
    }
    drop(bob);
    eventually("the lost connection shows", || {
        one(&operator.ask_json("players"), "name", "Bob the 2nd".into())["presence"] == "away"
    });
    let table = operator.ask("players");
    assert!(table[0].starts_with("id ") && table.len() == 4, "{table:?}");
}

#[test]
fn text_chosen_by_players_is_escaped_for_the_terminal() {
    let server = Server::start(&[]);
    let mut ann = server.client("An\u{1b}[2Jn\u{9b}H \"quo\\ted\"");
    ann.create_room(NewRoom::new("relay", "a\u{202e}b\rOK\u{7f}\u{2028}c"))
        .expect("a room is free");
    let mut operator = Operator::new(&server);
    let id = |list: &Value| list[0]["id"].as_u64().expect("a number");
    let (player, room) = (id(&operator.ask_json("players")), id(&operator.ask_json("rooms")));
    let mut queries = QUERIES.map(str::to_owned).to_vec();
    queries.extend([
        format!("player {player}"),
        format!("room {room}"),
        format!("room {room} --seat 0"),
    ]);
    let raw = |character: char| {
        character != '\n' && (character.is_control() || "\u{202e}\u{2028}\u{9b}".contains(character))
    };
    for query in &queries {
        for command in [query.to_owned(), format!("{query} --json")] {
            let reply = operator.ask(&command).join("\n");
            assert!(!reply.contains(raw), "{command}: {reply:?}");
        }
    }
    assert_eq!(
        one(
            &operator.ask_json("players"),
            "name",
            "An[2JnH \"quo\\ted\"".into()
        )["presence"],
        "connected"
    );
    // Lines that are shown live cannot be forged: each begins with a number written by the console.
    for command in [format!("watch {room} --hidden"), format!("trace {player}")] {
        operator.send(format!("{command}\n").as_bytes());
        operator.line().expect("it begins");
        let forged = "x\r\nOK\r\nERR\n\u{1b}[2J\u{202e}\u{9b}A".to_owned();
        ann.chat(ChatScope::Room, forged.clone()).expect("sent");
        ann.act(forged.into_bytes()).expect("sent");
        ann.chat(ChatScope::Room, "the end").expect("sent");
        loop {
            let line = operator.line().expect("it goes on");
            assert!(!line.contains(raw), "{command}: {line:?}");
            let first = line.split_whitespace().next().unwrap_or_default();
            assert!(first.parse::<f64>().is_ok(), "{command}: {line:?}");
            if line.contains("the end") {
                break;
            }
        }
        operator.send(b"\n");
        while operator.reply().pop().expect("a last line") != "OK" {}
    }
}

#[test]
fn a_command_is_the_same_in_any_case_spacing_and_fragmentation() {
    let server = Server::start(&[]);
    let mut operator = Operator::new(&server);
    let expected = operator.ask("help kick");
    for end in ["\n", "\r\n", "\r\0"] {
        operator.send(format!("help kick{end}help kick{end}").as_bytes());
        assert_eq!(
            (operator.reply(), operator.reply()),
            (expected.clone(), expected.clone())
        );
    }
    operator.send("hellpé\u{8}\u{8}\u{7f}p kick\r\n".as_bytes());
    assert_eq!(operator.reply(), expected);
    // Telnet options before, inside and between CR and LF of the command, each byte in a packet of its own.
    let parts: [&[u8]; 6] = [
        &[255, 251, 24, 255, 250, 24, 0, 80, b'\n', 255, 255, 0, 255, 240],
        b"help",
        &[255, 253, 5, 255, 251, 24],
        b" kick\r",
        &[255, 241],
        b"\n",
    ];
    for byte in parts.concat() {
        operator.send(&[byte]);
    }
    // A client that negotiates is a telnet client and is offered line editing (which this one does not
    // answer).
    let refusals = [255, 251, 1, 255, 251, 3, 255, 253, 31, 255, 254, 24, 255, 252, 5];
    while operator.received.len() < refusals.len() {
        assert!(operator.receive());
    }
    assert_eq!(
        operator.received.drain(..refusals.len()).collect::<Vec<_>>(),
        refusals
    );
    assert_eq!(operator.reply(), expected);
}

#[test]
fn endless_lines_and_binary_are_refused_and_the_next_command_is_answered() {
    let server = Server::start(&[]);
    let mut operator = Operator::new(&server);
    operator.send(&vec![b'x'; 5_000_000]);
    assert_eq!(
        operator.reply(),
        [format!(
            "ERR line too long: at most {CONSOLE_LINE_BYTES_MAX} bytes"
        )]
    );
    operator.send(b"\n");
    operator.ask_json("status");
    let garbage: Vec<u8> = (1..=250).filter(|byte| !b"\r\n\x08\x7f".contains(byte)).collect();
    operator.send(&[garbage, b"\nstat\x1b[Aus\n".to_vec()].concat());
    assert!(operator.reply()[0].starts_with("ERR not a command"));
    assert!(operator.reply()[0].starts_with("ERR not a command"));
    // Within its bound, nothing in a sub-negotiation is a line. (One without an end is in `telnet`.)
    operator.send(&[255, 250, 1]);
    operator.send(&[b'\n'; 1000]);
    operator.send(&[255, 240]);
    operator.ask_json("status");
}

#[test]
fn an_operator_that_does_not_read_delays_nobody_and_loses_nothing() {
    const COMMANDS: usize = 20_000;
    let server = Server::start(&[]);
    let mut operator = Operator::new(&server);
    let help_bytes: usize = operator.ask("help").iter().map(|line| line.len() + 2).sum();
    socket2::SockRef::from(&operator.stream)
        .set_recv_buffer_size(64 * 1024)
        .expect("an option can be set");
    operator.send("help\n".repeat(COMMANDS).as_bytes());
    operator.stream.peek(&mut [0]).expect("it begins to answer");
    let process = || console_process(&server, &operator, "processes --memory");
    eventually("it waits for its reader", || process()["state"] == "S");
    let pss_kib = process()["pss_kib"].as_u64().expect("a number");
    let answers_kib = (COMMANDS * help_bytes / 1024) as u64;
    assert!(
        pss_kib < answers_kib / 4,
        "it holds {pss_kib} KiB, with {answers_kib} KiB to say"
    );
    for _ in 0..COMMANDS {
        assert_eq!(operator.reply().pop().expect("a last line"), "OK");
    }
    operator.ask_json("status");
}

#[test]
fn commands_before_end_of_input_are_executed_except_an_incomplete_one() {
    let server = Server::start(&[]);
    let mut operator = Operator::new(&server);
    operator.send(b"players --json\nhelp quit\nstop");
    operator
        .stream
        .shutdown(Shutdown::Write)
        .expect("it is connected");
    assert_eq!(operator.reply(), ["[]", "OK"]);
    assert_eq!(operator.reply().len(), 2);
    assert_eq!(operator.line(), None);
    assert_eq!(Operator::new(&server).ask_json("status")["stopping"], false);
}

#[test]
fn a_kicked_player_is_told_and_disconnected() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (server.client("Ann Lee"), server.client("Bob"));
    let room = ann
        .create_room(NewRoom::new("relay", "The corner"))
        .expect("a room is free")
        .room;
    bob.join_room(room, None).expect("a seat is free");
    let mut operator = Operator::new(&server);
    assert_eq!(operator.ask("kick  ann LEE "), ["OK"]);
    let told = ann
        .receive_where(WAIT_MAX, |_| false)
        .expect_err("the connection is over");
    assert_eq!(told.error_code(), Some(ErrorCode::Kicked));
    // An absent player is removed at once, too: it has no connection to be notified on.
    drop(bob);
    eventually("the lost connection shows", || {
        operator
            .ask_json("players")
            .as_array()
            .is_some_and(|players| players.iter().all(|player| player["presence"] == "away"))
    });
    assert_eq!(operator.ask("kick Bob"), ["OK"]);
    eventually("both are gone, and so is their room", || {
        operator.ask_json("players") == Value::Array(Vec::new())
            && operator.ask_json("rooms") == Value::Array(Vec::new())
    });
    assert_eq!(operator.ask("kick Bob"), ["ERR no player has that name"]);
}

#[test]
fn stop_ends_the_server_cleanly_and_tells_the_other_operators() {
    let mut server = Server::start(&[]);
    let (mut idle, mut operator) = (Operator::new(&server), Operator::new(&server));
    idle.ask_json("status");
    assert_eq!(operator.ask("stop"), ["OK"]);
    for operator in [&mut idle, &mut operator] {
        assert_eq!(operator.reply(), ["ERR the server is stopping"]);
        assert_eq!(operator.line(), None);
    }
    assert!(server.wait().success());
}

#[test]
fn a_killed_console_session_continues_and_reports_what_was_lost() {
    let server = Server::start(&[]);
    let mut operator = Operator::new(&server);
    operator.ask_json("status");
    let kill = |operator: &Operator| {
        let takeovers = server.status("takeovers_total");
        let process = console_process(&server, operator, "processes");
        server.kill(u32::try_from(process["pid"].as_u64().expect("a number")).expect("a pid"));
        eventually("another process takes over", || {
            server.status("takeovers_total") > takeovers
        });
    };
    // A console process killed between two commands loses nothing.
    eventually("the console is idle", || {
        console_process(&server, &operator, "processes --memory")["state"] == "S"
    });
    kill(&operator);
    operator.ask_json("status");
    // Half a command is lost.
    operator.send(b"stat");
    operator.send(&TIMING_MARK.0);
    while operator.received.len() < TIMING_MARK.1.len() {
        assert!(operator.receive());
    }
    assert_eq!(std::mem::take(&mut operator.received), TIMING_MARK.1);
    kill(&operator);
    let lines = operator.reply();
    assert_eq!(lines[0], "");
    assert!(lines[1].starts_with("ERR interrupted: "), "{lines:?}");
    operator.ask_json("status");
}
