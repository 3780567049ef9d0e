//! Promise: a telnet client on the game port can play, in the same rooms as all other clients. All input gets
//! a clear answer, and a handler killed in the middle of a typed line is not noticed.

use std::time::{Duration, Instant};

use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{ChatScope, RoomEvent, RoomId, ServerMessage, codec};
use nix::sys::signal::Signal;

use crate::common::killer::{Handlers, Killer, kills};
use crate::common::liveness::expect_no_pending_work;
use crate::common::random::{Random, seed};
use crate::common::rooms::event;
use crate::common::text_client::{IAC, TextClient};
use crate::common::{Server, WAIT_MAX, eventually};

const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const DONT: u8 = 254;

/// Longest pause between a replacement's start and its death.
const PAUSE_MAX: Duration = Duration::from_millis(3);

/// Two text players in a match of tic-tac-toe; Ann begins.
fn match_of_two(server: &Server) -> (TextClient, TextClient) {
    let (mut ann, mut bob) = (TextClient::named(server, "Ann"), TextClient::named(server, "Bob"));
    assert!(
        ann.ask("create tictactoe")
            .contains("You are in room 1, \"Ann's room\": tictactoe")
    );
    assert!(bob.ask("rooms").contains("1/2"));
    bob.type_line("join 1");
    bob.read_until("seat 1 (O): Bob (you)");
    ann.read_until("Bob takes seat 1 (O).");
    ann.type_line("ready");
    bob.type_line("ready");
    ann.read_until("The match begins. You are X.");
    bob.read_until("The match begins. You are O.");
    ann.read_until(" 6 | 7 | 8\r\nX is to move\r\nIt is your move.\r\n> ");
    bob.read_until(" 6 | 7 | 8\r\nX is to move\r\n> ");
    (ann, bob)
}

/// Ann wins with the upper row.
fn play_to_the_end(ann: &mut TextClient, bob: &mut TextClient) {
    for (number, cell) in ["0", "3", "1", "4", "2"].into_iter().enumerate() {
        let (name, mark) = [("Ann", "X"), ("Bob", "O")][number % 2];
        let typist = if number % 2 == 0 { &mut *ann } else { &mut *bob };
        typist.type_line(cell);
        for text_player in [&mut *ann, &mut *bob] {
            text_player.read_until(&format!("{name} puts {mark} on {cell}.\r\n"));
        }
    }
    for text_player in [&mut *ann, &mut *bob] {
        text_player.read_until(
            " X | X | X\r\n---+---+---\r\n O | O | 5\r\n---+---+---\r\n 6 | 7 | 8\r\nX has won\r\n",
        );
    }
    ann.read_until("You have won!");
    bob.read_until("Ann has won.");
}

#[test]
fn two_text_players_play_a_match_and_a_rematch() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = match_of_two(&server);
    play_to_the_end(&mut ann, &mut bob);
    ann.type_line("rematch");
    bob.read_until("Ann is ready.");
    bob.type_line("rematch");
    for text_player in [&mut ann, &mut bob] {
        text_player.read_until("The match begins.");
        text_player.read_until("X is to move\r\n");
    }
    play_to_the_end(&mut ann, &mut bob);
    bob.type_line("quit");
    assert!(bob.read_to_end().ends_with("Goodbye.\r\n"));
    ann.read_until("Bob has left.");
    server.expect_no_errors();
}

#[test]
fn a_match_continues_while_all_handlers_are_killed() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = match_of_two(&server);
    let killer = Killer::start(&server, Random::new(seed(), 0), kills(20), PAUSE_MAX);
    while !killer.is_done() {
        play_to_the_end(&mut ann, &mut bob);
        ann.type_line("rematch");
        bob.type_line("rematch");
        for text_player in [&mut ann, &mut bob] {
            text_player.read_until("The match begins.");
        }
    }
    assert_eq!(killer.stop(), kills(20));
    play_to_the_end(&mut ann, &mut bob);
    expect_no_pending_work(&server);
    // No line was sent twice.
    for text_player in [&ann, &bob] {
        let heard = String::from_utf8_lossy(&text_player.received);
        let (matches, wins) = (
            heard.matches("The match begins.").count(),
            heard.matches("X has won").count(),
        );
        assert_eq!(
            (heard.matches("Ann puts X on 2.").count(), wins),
            (matches, matches)
        );
    }
}

#[test]
fn a_handler_killed_during_a_half_typed_line_is_not_noticed() {
    let script: &[&[u8]] = &[
        b"\r\n",
        b"na",
        &[IAC, DO],
        &[1],
        b"me A\x08An",
        &[IAC, 250, 24, b'\n'],
        &[IAC, IAC, IAC, 240],
        b"n\r",
        b"\0",
        b"create tictac",
        b"toe\r\n",
        b"sa",
        b"y one\r",
        b"\nlo",
        b"ok\r\n",
        b"rea",
        b"dy\r\n",
        &[b'x'; 700],
        &[b'x'; 700],
        &[b'x'; 50],
        b"\r",
        b"\ngam",
        b"es\n",
        &[IAC, WILL, 31],
        b"\r\n",
        "say z\u{f6}".as_bytes(),
        b"\x7f\x08zwei\r\n",
        b"say \xc3",
        b"\r\n",
        b"lea",
        &[IAC, DO, 6],
        b"ve\r\n",
        b"look\r\n",
        b"qu",
        b"it\r\n",
    ];
    let talk = |kills: bool| {
        let server = Server::start(&[]);
        let handlers = Handlers::of(&server);
        let mut text_player = TextClient::connect(&server);
        let mut last = Vec::new();
        for piece in script {
            if *piece == b"look\r\n" {
                text_player.read_until("You are back in the lobby.");
                // Where the handler dies over it, a ticker closes the room that all have left.
                eventually("the room is closed", || server.status("rooms") == 0);
            }
            text_player.send(piece);
            // The handler is killed at once, when it may not have received the piece, or a moment later, when
            // it may have.
            for pause in [0, 1500] {
                if !kills {
                    continue;
                }
                std::thread::sleep(Duration::from_micros(pause));
                eventually("the handler is a new one", || {
                    let pids = handlers.pids();
                    let is_new = !pids.is_empty() && pids != last;
                    if is_new {
                        last = pids;
                    }
                    is_new || piece.ends_with(b"it\r\n")
                });
                handlers.signal_all(Signal::SIGKILL);
            }
        }
        text_player.read_to_end();
        let takeovers = if kills {
            server.status("takeovers_total")
        } else {
            0
        };
        (text_player.received, takeovers)
    };
    // Each has its own resume word.
    let without_word = |mut said: Vec<u8>| {
        let before = b"\"resume ";
        let at = said
            .windows(before.len())
            .position(|part| part == before)
            .expect("shown");
        said.drain(at + before.len()..at + before.len() + 19);
        said
    };
    let (undisturbed, disturbed, takeovers) = {
        let ((undisturbed, _), (disturbed, takeovers)) = (talk(false), talk(true));
        (without_word(undisturbed), without_word(disturbed), takeovers)
    };
    assert!(takeovers >= script.len() as u64, "only {takeovers} takeovers");
    assert_eq!(
        String::from_utf8_lossy(&disturbed),
        String::from_utf8_lossy(&undisturbed)
    );
    let text = String::from_utf8_lossy(&undisturbed);
    for expected in [
        "You are called Ann now.",
        "Ann says: one",
        "Ann says: zwei",
        "No: that line has more than 1024 bytes",
        "No: that line is not UTF-8",
        "Goodbye.",
    ] {
        assert_eq!(text.matches(expected).count(), 1, "{expected:?} in {text:?}");
    }
}

#[test]
fn a_text_player_and_a_binary_client_share_a_room() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (TextClient::named(&server, "Ann"), server.client("Bob"));
    ann.ask("create tictactoe Open House");
    let (rooms, _) = bob
        .list_rooms(forkade_protocol::RoomFilter::default(), None)
        .expect("a list");
    assert_eq!((rooms.len(), rooms[0].name.as_str()), (1, "Open House"));
    let snapshot = bob.join_room(rooms[0].room, None).expect("a seat is free");
    let names: Vec<_> = snapshot
        .seats
        .iter()
        .flatten()
        .map(|seat| seat.name.clone())
        .collect();
    assert_eq!(names, ["Ann", "Bob"]);
    bob.ready(true).expect("not started");
    ann.read_until("Bob is ready.");
    ann.type_line("ready");
    ann.read_until("The match begins. You are X.");
    // Otherwise the move may be part of the first snapshot.
    let is_start = |message: &ServerMessage| matches!(message, ServerMessage::Started { .. });
    let started = bob.receive_where(WAIT_MAX, is_start).expect("the session lives");
    assert!(started.is_some());
    ann.type_line("4");
    let placed = event(&mut bob, |event| match event {
        RoomEvent::Game { data } => codec::decode::<(u8, u8)>(data).ok(),
        _ => None,
    });
    assert_eq!(placed, (0, 4));
    bob.act(vec![8]).expect("a free cell");
    ann.read_until("Bob puts O on 8.\r\n 0 | 1 | 2\r\n---+---+---\r\n 3 | X | 5\r\n---+---+---\r\n 6 | 7 | O\r\nX is to move\r\nIt is your move.\r\n> ");
    ann.type_line("say well done");
    let said = event(&mut bob, |event| match event {
        RoomEvent::Chat { from, text } => Some((from.clone(), text.clone())),
        _ => None,
    });
    assert_eq!(said, ("Ann".to_owned(), "well done".to_owned()));
    bob.chat(ChatScope::Whisper { to: "ann".into() }, "thank you")
        .expect("it is sent");
    ann.read_until("Bob tells Ann: thank you\r\n> ");
    assert_eq!(
        ann.ask("tell Bob \u{fc}ber"),
        "\u{fc}ber".replace('\u{fc}', "You tell Bob: \u{fc}")
    );
    ann.ask("shout hello all");
    let is_chat = |wanted: &'static str| move |message: &ServerMessage| matches!(message, ServerMessage::Chat { text, .. } if text == wanted);
    for words in ["\u{fc}ber", "hello all"] {
        let heard = bob
            .receive_where(WAIT_MAX, is_chat(words))
            .expect("the session lives");
        assert!(heard.is_some(), "{words}");
    }
}

#[test]
fn a_text_player_that_quits_is_removed_at_once_and_so_is_one_without_a_seat() {
    let server = Server::start(&["--seat-grace-ms", "600000"]);
    let mut bob = server.client("Bob");
    for way in ["half-closed", "reset", "watching", "quit"] {
        let mut ann = TextClient::named(&server, "Ann");
        if way == "watching" {
            bob.create_room(NewRoom::new("tictactoe", "Bob's"))
                .expect("there is space");
            ann.type_line("watch 1");
            ann.read_until("You are watching.");
        }
        match way {
            "half-closed" => {
                ann.half_close();
                ann.read_to_end();
            }
            "quit" => ann.type_line("quit"),
            _ => socket2::SockRef::from(&ann.stream)
                .set_linger(Some(Duration::ZERO))
                .expect("an option can be set"),
        }
        drop(ann);
        eventually("the name is free", || server.status("players") == 1);
        if way == "watching" {
            bob.leave().expect("in a room");
        }
    }
    let mut ann = TextClient::named(&server, "Ann");
    ann.ask("create tictactoe");
    let room = RoomId(server.ask_json("rooms")[0]["id"].as_u64().expect("a room"));
    bob.join_room(room, None).expect("a seat is free");
    ann.type_line("quit");
    ann.read_to_end();
    let seat = event(&mut bob, |event| match event {
        RoomEvent::Left { seat } => Some(*seat),
        _ => None,
    });
    assert_eq!(seat, 0);
    bob.leave().expect("in a room");
    eventually("the name is free", || server.status("players") == 1);
}

#[test]
fn telnet_negotiation_is_answered_once_and_loses_no_input() {
    let server = Server::start(&[]);
    let mut text_player = TextClient::named(&server, "Ann");
    // A client that replies to each reply.
    for _ in 0..3 {
        text_player.send(&[
            b'g', b'a', IAC, DO, 1, IAC, WILL, 31, b'm', IAC, DO, 1, IAC, DONT, 1, IAC, WONT, 31,
        ]);
        text_player.send(b"es\r\n");
        text_player.read_until("tictactoe");
        text_player.read_until("> ");
    }
    let answers = |wanted: &[u8]| {
        text_player
            .received
            .windows(3)
            .filter(|part| *part == wanted)
            .count()
    };
    assert_eq!((answers(&[IAC, WONT, 1]), answers(&[IAC, DONT, 31])), (1, 1));
    // Sub-negotiations of a megabyte, and then one in fragments.
    for _ in 0..1024 {
        text_player.send(&[IAC, 250, 24]);
        text_player.send(&[b'\n'; 1023]);
    }
    text_player.send(&[IAC, 240]);
    for byte in [b'w', IAC, 250, 39, IAC, IAC, b'x', IAC, 240, b'h', b'o', b'\r', 0] {
        text_player.send(&[byte]);
    }
    assert_eq!(text_player.read_until("\r\n> "), "Here are Ann.");
    server.expect_no_errors();
}

#[test]
fn unknown_input_is_explained_and_changes_nothing() {
    let server = Server::start(&[]);
    let mut text_player = TextClient::named(&server, "Ann");
    let before = server.ask_json("players");
    let mut told = |line: &[u8]| {
        text_player.send(line);
        text_player.send(b"\r\n");
        // A text that does not fit into one line is shown in two.
        text_player.read_until("\r\n> ").replace("\r\n    ", " ")
    };
    assert!(told(b"name Z\xf6e").starts_with("No: that line is not UTF-8"));
    assert!(
        told(b"name Zoe\x1b[A")
            .starts_with("No: that line has the control character \\u{1b} (an arrow key?)")
    );
    for control in (1..32_u8).filter(|byte| !b"\x08\t\n\r".contains(byte)) {
        let answer = told(&[b'n', b'a', b'm', b'e', b' ', b'Z', control]);
        assert!(answer.contains("control character"), "{control}: {answer:?}");
        assert!(!answer.contains(char::is_control), "{control}: {answer:?}");
    }
    assert!(told("name Zoe\u{9b}2J".as_bytes()).contains("control character"));
    assert!(told(&[b'x'; 10_000]).contains("more than 1024 bytes"));
    for (line, answer) in [
        ("fly", "No: \"fly\" is no command; \"help\" lists them."),
        ("4", "No: \"4\" is no command; \"help\" lists them."),
        ("join", "No: the command is: join N|CODE [PASSCODE]."),
        ("join 7", "No: there is no such room (any more)."),
        (
            "join 99999999999999999999 x",
            "No: \"99999999999999999999\" is no number of a room; the command is: join N|CODE [PASSCODE].",
        ),
        ("create chess", "No: no game is called \"chess\"."),
        (
            "create tictactoe seats=9",
            "No: tictactoe is played with 2 to 2 seats, not with 9.",
        ),
        (
            "create tictactoe colour=red",
            "No: \"colour\" is no option; the command is: create GAME [NAME] [OPTIONS].",
        ),
        ("leave", "No: you are in no room."),
        ("ready", "No: you are in no room."),
        ("rematch", "No: you are in no room."),
        ("say hello", "No: you are in no room."),
        ("kick Bob", "No: you are in no room."),
        ("tell nobody hello", "No: nobody here is called \"nobody\"."),
        (
            "help fly",
            "No: there is no command \"fly\"; \"help\" lists them.",
        ),
        (
            "name \u{200b}",
            "No: the name cannot be used: nothing is left of it without invisible characters.",
        ),
    ] {
        assert_eq!(told(line.as_bytes()), answer, "{line:?}");
    }
    let mut after = server.ask_json("players");
    let mut before = before;
    for players in [&mut before, &mut after] {
        for player in players.as_array_mut().expect("a list") {
            player
                .as_object_mut()
                .expect("a player")
                .retain(|key, _| ["name", "room", "seat"].contains(&key.as_str()));
        }
    }
    assert_eq!(before, after);
    server.expect_no_errors();
}

#[test]
fn a_name_can_change_only_in_the_lobby_and_only_to_a_free_one() {
    let server = Server::start(&[]);
    let mut text_player = TextClient::named(&server, "Ann");
    let _bob = server.client("Bob");
    assert_eq!(
        text_player.ask("name BOB"),
        "No: somebody here has this name; choose another."
    );
    assert_eq!(text_player.ask("name ANN"), "You are called ANN now.");
    assert_eq!(text_player.ask("name Zo\u{eb}"), "You are called Zo\u{eb} now.");
    // The old name is free, the new one taken.
    let _ann = server.client("Ann");
    assert!(Client::connect(server.game, "zo\u{eb}", crate::common::patient()).is_err());
    text_player.ask("create tictactoe");
    assert_eq!(
        text_player.ask("name Zed"),
        "No: leave the room you are in first."
    );
    text_player.ask("leave");
    assert_eq!(text_player.ask("name Zed"), "You are called Zed now.");
    assert!(server.ask_json("processes").to_string().contains("\"Zed\""));
}

#[test]
fn a_text_player_that_thinks_stays_and_a_dead_connection_is_removed() {
    let server = Server::start(&[
        "--heartbeat-timeout-ms",
        "200",
        "--text-idle-timeout-ms",
        "600000",
    ]);
    let mut text_player = TextClient::named(&server, "Ann");
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(text_player.ask("who"), "Here are Ann.");

    let server = Server::start(&["--text-idle-timeout-ms", "2500"]);
    let mut text_player = TextClient::named(&server, "Ann");
    let begun = Instant::now();
    // Half a line counts as activity.
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(800));
        text_player.send(b"x");
    }
    let last_words = text_player.read_to_end();
    assert_eq!(last_words, "\rYou have typed nothing for 3 seconds.\r\n");
    assert!(begun.elapsed() >= Duration::from_millis(3200));
    eventually("the player is gone", || server.status("players") == 0);
}

#[test]
fn a_room_owner_has_all_rights_in_text_mode() {
    let server = Server::start(&[]);
    let mut ann = TextClient::named(&server, "Ann");
    let (mut bob, mut cyd) = (
        TextClient::named(&server, "Bob"),
        TextClient::named(&server, "Cyd Lee"),
    );
    ann.ask("create eights passcode=sesame seats=3");
    assert_eq!(bob.ask("join 1"), "No: this room asks for a passcode.");
    bob.type_line("join 1 sesame");
    bob.read_until("rules: passcode");
    ann.read_until("Bob takes seat 1.\r\n> ");
    assert!(ann.ask("set seats=4").starts_with("No: your room has a passcode"));
    ann.type_line("set passcode= seats=4 unlisted=yes");
    bob.read_until("The owner has changed the room: 4 seats, unlisted.");
    assert!(cyd.ask("rooms").contains("There is no such room."));
    cyd.type_line("join 1");
    cyd.read_until("seat 2: Cyd Lee (you)");
    ann.type_line("kick cyd lee");
    cyd.read_until("\r\n> ");
    bob.read_until("The owner has sent Cyd Lee out.");
    let mut dan = TextClient::named(&server, "Dan");
    ann.type_line("invite");
    ann.read_until("With the code ");
    let code = ann.read_until(" anybody can come in");
    ann.type_line("reserve Dan");
    dan.read_until("Ann keeps a seat for you");
    dan.type_line(&format!("join {}", code.to_lowercase()));
    dan.read_until("Dan (you)");
    ann.read_until("Dan takes seat 2.\r\n> ");
    ann.type_line("owner Bob");
    bob.read_until("You own the room now.");
    ann.read_until("Bob owns the room now.\r\n> ");
    assert_eq!(ann.ask("set seats=2"), "No: only the room's owner may do this.");
}

#[test]
fn a_hidden_hand_is_shown_only_to_its_own_seat() {
    let server = Server::start(&[]);
    let mut people: Vec<_> = ["Ann", "Bob"].map(|name| TextClient::named(&server, name)).into();
    people[0].ask("create eights seats=2");
    people[1].ask("join 1");
    let mut watcher = TextClient::named(&server, "Eve");
    watcher.type_line("watch 1");
    watcher.read_until("You are watching.");
    for text_player in &mut people {
        text_player.type_line("ready");
    }
    let mut hands = Vec::new();
    for text_player in &mut people {
        text_player.read_until("The match begins.");
        text_player.read_until("your hand: ");
        hands.push(text_player.read_until("\r\n"));
    }
    assert_ne!(hands[0], hands[1]);
    watcher.read_until("The match begins.");
    let table = watcher.read_until("Ann is to move\r\n");
    assert!(!table.contains("your hand"), "{table}");
    let plain = |hand: &str| hand.replace(['[', ']'], "");
    assert!(!String::from_utf8_lossy(&people[1].received).contains(&plain(&hands[0])));
}

#[test]
fn text_players_are_told_that_the_server_stops() {
    let mut server = Server::start(&[]);
    let mut text_player = TextClient::named(&server, "Ann");
    assert!(server.stop().success());
    assert_eq!(text_player.read_to_end(), "\rThe server is stopping.\r\n");
}
