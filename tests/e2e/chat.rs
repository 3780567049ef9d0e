//! Promise: lobby chat reaches all players in one order, and a whisper only its addressee. A player that
//! reads slowly or loses its handler costs the others nothing. No player can exceed the chat rate.

use std::io::Read;
use std::time::Duration;

use forkade::limits::MAILBOX_BYTES;
use forkade_protocol::client::{Client, ClientError, NewRoom};
use forkade_protocol::frame::append_frame;
use forkade_protocol::{ChatScope, ClientMessage, RejectCode, RoomEvent, ServerMessage};
use nix::sys::signal::Signal;

use crate::common::killer::{Killer, kills, send};
use crate::common::liveness::expect_no_pending_work;
use crate::common::random::{Random, seed};
use crate::common::raw_client::{RawClient, handshake};
use crate::common::rooms::rejection;
use crate::common::{Server, WAIT_MAX, children, eventually, of_name};
use crate::harness::{Actor, World};
use forkade::testing::lobby::delivery;
use forkade::testing::state::layout::Capacity;

/// No chat rate limit.
const NO_RATE: [&str; 4] = ["--chat-per-minute", "0", "--lobby-fanout", "0"];

fn to(name: &str) -> ChatScope {
    ChatScope::Whisper { to: name.to_owned() }
}

/// Sends chat without waiting for its result.
fn say(client: &mut Client, scope: ChatScope, text: &str) {
    let message = ClientMessage::Chat {
        request: 0,
        scope,
        text: text.to_owned(),
    };
    client.send(&message).expect("the session lives");
}

/// The next line of lobby chat or the next whisper: sender and text.
fn next_line(client: &mut Client, lobby: bool) -> (String, String) {
    let is_it = |message: &ServerMessage| match message {
        ServerMessage::Chat { scope, .. } => (*scope == ChatScope::Lobby) == lobby,
        ServerMessage::ChatMissed { .. } => true,
        _ => false,
    };
    match client.receive_where(WAIT_MAX, is_it).expect("the session lives") {
        Some(ServerMessage::Chat { from, text, .. }) => (from, text),
        other => panic!("{other:?} instead of a line"),
    }
}

/// No chat is queued for the client.
fn expect_silence(client: &mut Client) {
    client.ping().expect("the session lives");
    let is_chat = |message: &ServerMessage| {
        matches!(
            message,
            ServerMessage::Chat { .. } | ServerMessage::ChatMissed { .. }
        )
    };
    let heard = client.receive_where(Duration::ZERO, is_chat);
    assert_eq!(heard.expect("the session lives"), None);
}

#[test]
fn lobby_chat_reaches_all_players_in_one_order() {
    const LINES: usize = 25;
    let server = Server::start(&NO_RATE);
    let mut players: Vec<Client> = (0..8)
        .map(|number| server.client(&format!("Player {number}")))
        .collect();
    // In a match, spectating it, alone in a room, and in no room.
    let room = players[0]
        .create_room(NewRoom::new("tictactoe", "match"))
        .expect("a room is free")
        .room;
    players[1].join_room(room, None).expect("a seat is free");
    players[2].spectate(room, None).expect("spectators are allowed");
    players[3]
        .create_room(NewRoom::new("relay", "alone"))
        .expect("a room is free");

    for line in 0..LINES {
        for speaker in [0, 2, 3, 5] {
            say(&mut players[speaker], ChatScope::Lobby, &format!("line {line}"));
        }
    }
    let first = server.client("Late");
    let mut heard: Vec<Vec<(String, String)>> = players
        .iter_mut()
        .map(|player| (0..4 * LINES).map(|_| next_line(player, true)).collect())
        .collect();
    for speaker in [0, 2, 3, 5] {
        let name = format!("Player {speaker}");
        let said: Vec<&String> = heard[0]
            .iter()
            .filter(|(from, _)| *from == name)
            .map(|(_, text)| text)
            .collect();
        let order: Vec<String> = (0..LINES).map(|line| format!("line {line}")).collect();
        assert_eq!(said, order.iter().collect::<Vec<_>>(), "what {name} has said");
    }
    let order = heard.pop().expect("it was delivered");
    assert!(heard.iter().all(|others| *others == order), "{heard:?}");
    assert_eq!(server.status("lobby_lines_total"), 4 * LINES as u64);

    // A new player gets only later chat.
    drop(first);
    let mut late = server.client("Later");
    expect_silence(&mut late);
    players[0]
        .chat(ChatScope::Lobby, " hi\n\u{1b}[2Jthere ")
        .expect("said");
    assert_eq!(
        next_line(&mut late, true),
        ("Player 0".to_owned(), "hi [2Jthere".to_owned())
    );
    assert_eq!(
        rejection(late.chat(ChatScope::Lobby, "x".repeat(501))),
        RejectCode::ChatTooLong
    );
    assert_eq!(
        rejection(late.chat(ChatScope::Lobby, "\u{200b}")),
        RejectCode::TextInvalid
    );
    server.expect_no_errors();
}

#[test]
fn a_slow_reader_is_told_how_many_chat_lines_it_missed_and_delays_nobody() {
    const LINES: u64 = 2500;
    let server = Server::start(&NO_RATE);
    // The kernel's buffers are so small that the server would have to keep nearly everything.
    let mut sleeper = RawClient::with_receive_buffer(&server, 4096);
    sleeper.send(&handshake("Sleeper"));
    assert!(matches!(
        sleeper.next_message(),
        Ok(ServerMessage::Welcome { .. })
    ));
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    for line in 0..LINES {
        say(&mut ann, ChatScope::Lobby, &format!("{line:0>480}"));
        for client in [&mut ann, &mut bob] {
            let (_, text) = next_line(client, true);
            assert_eq!(text.parse(), Ok(line), "a line was lost or repeated");
        }
    }
    let (mut next, mut missed_total) = (0, 0);
    while next < LINES {
        match sleeper.next_message() {
            Ok(ServerMessage::Chat { text, .. }) => {
                assert_eq!(text.parse(), Ok(next), "a line was lost or repeated");
                next += 1;
            }
            Ok(ServerMessage::ChatMissed { lines }) => {
                next += lines;
                missed_total += lines;
            }
            other => panic!("the sleeper received {other:?}"),
        }
    }
    assert!(missed_total > 0 && next == LINES, "{missed_total} of {next}");
    assert_eq!(server.status("lobby_lines_missed_total"), missed_total);
    ann.chat(ChatScope::Lobby, "awake?").expect("said");
    match sleeper.next_message() {
        Ok(ServerMessage::Chat { text, .. }) => assert_eq!(text, "awake?"),
        other => panic!("the sleeper received {other:?}"),
    }
    assert_eq!(server.status("takeovers_total"), 0);
    server.expect_no_errors();
}

/// Rendered text takes more space than frames: it is wrapped and indented.
#[test]
fn a_slow_text_client_misses_chat_lines_and_no_process_dies() {
    const LINES: u64 = 1500;
    let server = Server::start(&[&NO_RATE[..], &["--send-buffer-bytes", "4096"]].concat());
    let mut sleeper = RawClient::with_receive_buffer(&server, 4096);
    sleeper.send(b"Sleeper\r\n");
    let mut ann = server.client("Ann");
    eventually("the sleeper has come in", || server.status("players") == 2);
    for line in 0..LINES {
        say(
            &mut ann,
            ChatScope::Lobby,
            &format!("<{line}>{}", "x".repeat(450)),
        );
        next_line(&mut ann, true);
    }
    ann.chat(ChatScope::Lobby, "the end").expect("said");
    let (mut heard, mut chunk) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&heard).contains("the end") {
        let length = sleeper.stream.read(&mut chunk).expect("something comes");
        assert!(length > 0, "the sleeper was sent out");
        heard.extend_from_slice(&chunk[..length]);
    }
    let heard = String::from_utf8_lossy(&heard);
    let number = |text: &str| {
        text.split_once('>')
            .and_then(|(number, _)| number.parse::<u64>().ok())
    };
    let mut next = 0;
    for line in heard.lines() {
        if let Some((missed, _)) = line.split_once(" lines of the lobby's chat were lost") {
            let missed = missed
                .rsplit(|character: char| !character.is_ascii_digit())
                .next();
            next += missed
                .and_then(|missed| missed.parse::<u64>().ok())
                .expect("a number");
        } else if let Some((_, said)) = line.split_once("Ann shouts: <") {
            assert_eq!(number(said), Some(next), "a line was lost or repeated");
            next += 1;
        }
    }
    assert_eq!(next, LINES);
    assert!(server.status("lobby_lines_missed_total") > 0);
    assert_eq!(server.status("takeovers_total"), 0);
    server.expect_no_errors();
}

#[test]
fn a_slow_reader_gets_both_room_events_and_lobby_chat() {
    let world = World::new(Capacity {
        players: 2,
        rooms: 1,
        keepers: 1,
    });
    let mut ann = Actor::connect_as(world, 0, "ann");
    let mut bob = Actor::connect_as(world, 1, "bob");
    ann.request(&ClientMessage::QuickMatch {
        request: 1,
        game: "relay".into(),
        options: Vec::new(),
    });
    bob.request(&ClientMessage::QuickMatch {
        request: 1,
        game: "relay".into(),
        options: Vec::new(),
    });
    bob.receive_messages();
    // Far more of both than fits into the output ring.
    for _ in 0..25 {
        ann.request(&ClientMessage::Act {
            request: 2,
            action: vec![0; 4000],
        });
        ann.receive_messages();
    }
    for _ in 0..150 {
        ann.request(&ClientMessage::Chat {
            request: 3,
            scope: ChatScope::Lobby,
            text: "x".repeat(480),
        });
        ann.receive_messages();
    }
    let mut counts = [0; 2];
    for _ in 0..6 {
        delivery::deliver(&mut bob.session).expect("events fit");
        bob.flush();
        let mut now = [0; 2];
        while let Some(message) = bob.next_message() {
            match message {
                ServerMessage::Event { .. } => now[0] += 1,
                ServerMessage::Chat { .. } => now[1] += 1,
                other => panic!("bob was told {other:?}"),
            }
        }
        assert!(
            now.iter().all(|count| *count > 0)
                || counts.iter().zip([25, 150]).any(|(count, all)| *count >= all),
            "{now:?} after {counts:?}"
        );
        counts = [counts[0] + now[0], counts[1] + now[1]];
    }
    assert_eq!(counts, [25, 150]);
}

#[test]
fn a_whisper_reaches_only_its_addressee_in_any_room() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, mut cyd) = (server.client("Ann"), server.client("Bob"), server.client("Cyd"));
    let room = bob
        .create_room(NewRoom::new("relay", "elsewhere"))
        .expect("a room is free")
        .room;
    cyd.join_room(room, None).expect("a seat is free");
    ann.chat(to(" bOB "), "psst").expect("he is here");
    match bob.receive_where(WAIT_MAX, |message| matches!(message, ServerMessage::Chat { .. })) {
        Ok(Some(ServerMessage::Chat { scope, from, text })) => {
            // The player's exact name, not the spelling of the addressee.
            assert_eq!(
                (scope, from, text),
                (to("Bob"), "Ann".to_owned(), "psst".to_owned())
            );
        }
        other => panic!("Bob was told {other:?}"),
    }
    bob.chat(to("Bob"), "note to myself").expect("he is here, too");
    assert_eq!(
        next_line(&mut bob, false),
        ("Bob".to_owned(), "note to myself".to_owned())
    );
    for client in [&mut ann, &mut bob, &mut cyd] {
        expect_silence(client);
    }

    assert_eq!(rejection(ann.chat(to("Dan"), "psst")), RejectCode::UnknownPlayer);
    assert_eq!(rejection(ann.chat(to(""), "psst")), RejectCode::UnknownPlayer);
    bob.goodbye().expect("said in order");
    assert_eq!(rejection(ann.chat(to("Bob"), "psst")), RejectCode::UnknownPlayer);
    // Another Bob does not get the mail of the first.
    let mut other = server.client("Bob");
    expect_silence(&mut other);
    assert_eq!(server.status("whispers_total"), 2);
}

#[test]
fn mail_of_an_expired_player_is_not_given_to_the_next_player() {
    let server = Server::start(&["--seat-grace-ms", "200"]);
    let mut ann = server.client("Ann");
    eventually("Bob is away, and mail waits for him", || {
        server.client("Bob").disconnect_abruptly();
        eventually("the server knows that Bob is away", || {
            server.status("handlers") == 1
        });
        // On a busy machine the grace may have expired already.
        let waits = ann.chat(to("Bob"), "come back").is_ok();
        eventually("he has stayed away", || server.status("players") == 1);
        waits
    });
    let mut other = server.client("Bob");
    ann.chat(to("Bob"), "welcome").expect("he is here");
    assert_eq!(next_line(&mut other, false).1, "welcome");
    expect_silence(&mut other);
}

#[test]
fn whispers_to_an_absent_player_wait_until_the_mailbox_is_full() {
    let server = Server::start(&NO_RATE);
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let text = "x".repeat(480);
    let mut whole = Vec::new();
    let message = ServerMessage::Chat {
        scope: to("Bob"),
        from: "Ann".to_owned(),
        text: text.clone(),
    };
    append_frame(&message, &mut whole).expect("it fits");
    for round in 0..3 {
        bob.disconnect_abruptly();
        eventually("the server knows that Bob is away", || {
            server.status("handlers") == 1
        });
        let mut sent = 0;
        let full = loop {
            match ann.chat(to("Bob"), text.as_str()) {
                Ok(()) => sent += 1,
                refused => break rejection(refused),
            }
        };
        assert_eq!(full, RejectCode::MailboxFull);
        assert_eq!(sent, MAILBOX_BYTES / whole.len());
        // A short message may still fit, in order.
        ann.chat(to("bob"), format!("{round}"))
            .expect("there is some space");
        for _ in 0..sent {
            assert_eq!(next_line(&mut bob, false), ("Ann".to_owned(), text.clone()));
        }
        assert_eq!(next_line(&mut bob, false), ("Ann".to_owned(), round.to_string()));
        expect_silence(&mut bob);
        let counters = bob.counters();
        assert_eq!((counters.gaps, counters.resyncs), (0, 0));
    }
    server.expect_no_errors();
}

#[test]
fn the_chat_rate_covers_all_scopes_and_survives_the_handler() {
    let server = Server::start(&["--chat-burst", "3", "--chat-per-minute", "1"]);
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    ann.create_room(NewRoom::new("relay", "here"))
        .expect("a room is free");
    // A request refused for another reason does not count.
    for _ in 0..5 {
        assert_eq!(rejection(ann.chat(to("Nobody"), "hi")), RejectCode::UnknownPlayer);
    }
    ann.chat(ChatScope::Room, "one").expect("within the burst");
    ann.chat(ChatScope::Lobby, "two").expect("within the burst");
    ann.chat(to("Bob"), "three").expect("within the burst");
    for scope in [ChatScope::Room, ChatScope::Lobby, to("Bob")] {
        match ann.chat(scope.clone(), "four") {
            Err(ClientError::Rejected { code, text, .. }) => {
                assert_eq!(code, RejectCode::ChatTooFast);
                assert!(text.contains("wait"), "{text}");
            }
            other => panic!("{scope:?}: {other:?}"),
        }
    }
    // Other players are not affected, and a new handler continues the count.
    bob.chat(ChatScope::Lobby, "five").expect("within the burst");
    let handler = server.handler_of("Ann").expect("she is connected");
    server.kill(handler);
    eventually("another process has taken over", || {
        server
            .handler_of("Ann")
            .is_some_and(|successor| successor != handler)
    });
    assert_eq!(
        rejection(ann.chat(ChatScope::Room, "six")),
        RejectCode::ChatTooFast
    );
    assert_eq!(next_line(&mut bob, true).1, "two");
    assert_eq!(next_line(&mut bob, true).1, "five");
    assert_eq!(next_line(&mut bob, false).1, "three");
    expect_silence(&mut bob);
}

#[test]
fn a_player_that_has_waited_may_chat_again() {
    let server = Server::start(&["--chat-burst", "1", "--chat-per-minute", "60"]);
    let mut ann = server.client("Ann");
    let mut said = 0;
    for _ in 0..2 {
        eventually("it is too much", || {
            match ann.chat(ChatScope::Lobby, "on and on") {
                Ok(()) => {
                    said += 1;
                    false
                }
                refused => rejection(refused) == RejectCode::ChatTooFast,
            }
        });
        eventually("it is her turn again", || {
            ann.chat(ChatScope::Lobby, "at last").is_ok()
        });
        said += 1;
    }
    for _ in 0..said {
        next_line(&mut ann, true);
    }
    expect_silence(&mut ann);
}

#[test]
fn no_chat_is_lost_or_repeated_while_handlers_are_killed() {
    const PLAYERS: usize = 5;
    let server = Server::start(&[&NO_RATE[..], &["--heartbeat-timeout-ms", "600000"]].concat());
    let mut players: Vec<Client> = (0..PLAYERS)
        .map(|number| server.client(&number.to_string()))
        .collect();
    for pair in players.chunks_mut(2) {
        for player in pair {
            player
                .quick_match("tictactoe", Vec::new())
                .expect("a seat is free");
        }
    }
    let killer = Killer::start(
        &server,
        Random::new(seed(), 71),
        kills(40),
        Duration::from_micros(2500),
    );
    let mut rounds = 0_u64;
    while !killer.is_done() {
        for (number, player) in players.iter_mut().enumerate() {
            say(player, ChatScope::Lobby, &rounds.to_string());
            let next = ((number + 1) % PLAYERS).to_string();
            say(player, to(&next), &format!("whisper {rounds}"));
        }
        let mut orders = Vec::new();
        for (number, player) in players.iter_mut().enumerate() {
            let order: Vec<String> = (0..PLAYERS)
                .map(|_| {
                    let (from, text) = next_line(player, true);
                    assert_eq!(text, rounds.to_string(), "{number} has heard it from {from}");
                    from
                })
                .collect();
            orders.push(order);
            let before = (number + PLAYERS - 1) % PLAYERS;
            let whispered = next_line(player, false);
            assert_eq!(whispered, (before.to_string(), format!("whisper {rounds}")));
        }
        assert!(orders.windows(2).all(|pair| pair[0] == pair[1]), "{orders:?}");
        let mut speakers = orders.pop().expect("there are players");
        speakers.sort();
        assert_eq!(
            speakers,
            (0..PLAYERS).map(|number| number.to_string()).collect::<Vec<_>>()
        );
        rounds += 1;
    }
    println!("{} handlers killed over {rounds} rounds", killer.stop());
    expect_no_pending_work(&server);
    for player in &mut players {
        expect_silence(player);
        let counters = player.counters();
        assert_eq!((counters.resumes, counters.gaps, counters.resyncs), (0, 0, 0));
    }
    assert_eq!(server.status("lobby_lines_missed_total"), 0);
    server.expect_no_errors();
}

#[test]
fn a_whisper_is_delivered_although_the_keeper_dies() {
    let server = Server::start(&NO_RATE);
    let mut players: Vec<Client> = ["Ann", "Bob", "Cyd", "Dan"]
        .map(|name| server.client(name))
        .into_iter()
        .collect();
    for round in 0..4 {
        let keepers = of_name(&children(server.pid()), "keeper");
        for (number, (player, next)) in players.iter_mut().zip(["Bob", "Cyd", "Dan", "Ann"]).enumerate() {
            say(player, to(next), &round.to_string());
            for keeper in keepers.iter().filter(|_| number == 1) {
                assert!(send(*keeper, Signal::SIGKILL));
            }
        }
        for player in &mut players {
            assert_eq!(next_line(player, false).1, round.to_string());
        }
        eventually("there are keepers again", || {
            let processes = server.ask_json("processes");
            let is_new = |process: &&serde_json::Value| {
                let pid = process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
                process["role"] == "keeper" && pid.is_some_and(|pid| !keepers.contains(&pid))
            };
            processes
                .as_array()
                .expect("a list")
                .iter()
                .filter(is_new)
                .count()
                == keepers.len()
        });
    }
    for player in &mut players {
        expect_silence(player);
        assert_eq!(player.counters().resumes, 0);
    }
}

/// Room chat is an event and counts like any other line of chat.
#[test]
fn room_chat_does_not_appear_in_the_lobby() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    ann.create_room(NewRoom::new("relay", "here"))
        .expect("a room is free");
    ann.chat(ChatScope::Room, "just us").expect("in the room");
    let is_chat = |message: &ServerMessage| {
        matches!(
            message,
            ServerMessage::Event {
                event: RoomEvent::Chat { .. },
                ..
            }
        )
    };
    assert!(
        ann.receive_where(WAIT_MAX, is_chat)
            .expect("the session lives")
            .is_some()
    );
    expect_silence(&mut ann);
    expect_silence(&mut bob);
    assert_eq!(server.status("lobby_lines_total"), 0);
}
