//! Promise: names, seats, rooms and places go to the first request, and every other client is told the reason
//! of its refusal.

use std::sync::Barrier;
use std::time::Duration;

use forkade::limits::LOBBY_GRACE_MS_MIN;
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::limits::ROOM_NAME_BYTES_MAX;
use forkade_protocol::{
    ChatScope, ClientMessage, ErrorCode, Phase, RejectCode, RoomEvent, RoomFilter, RoomId, RoomSettings,
    RoomSummary, ServerMessage,
};

use crate::common::raw_client::{RawClient, handshake};
use crate::common::rooms::{event, rejection, table};
use crate::common::text_client::TextClient;
use crate::common::{MAY_FAIL, Server, eventually, patient};

/// The error with which the server refuses a player of this name.
fn refusal(server: &Server, name: &str) -> Option<ErrorCode> {
    match Client::connect(server.game, name, patient()) {
        Ok(client) => {
            client.goodbye().expect("said in order");
            None
        }
        Err(error) => Some(
            error
                .error_code()
                .unwrap_or_else(|| panic!("{name} was not answered: {error}")),
        ),
    }
}

fn rooms(client: &mut Client, filter: RoomFilter) -> Vec<RoomSummary> {
    let (rooms, next) = client.list_rooms(filter, None).expect("a list");
    assert_eq!(next, None, "all rooms fit one page");
    rooms
}

#[test]
fn a_name_belongs_to_one_player_regardless_of_case() {
    let server = Server::start(&[]);
    let (ann, _zoe) = (server.client("Ann"), server.client("Zoë Ärger"));
    for taken in ["Ann", "ANN", "ann", "  a\u{200b}nn\n", "ZOË ÄRGER", "zoë  ärger"] {
        assert_eq!(refusal(&server, taken), Some(ErrorCode::NameTaken), "{taken:?}");
    }
    assert_eq!(refusal(&server, "Anna"), None);
    ann.goodbye().expect("said in order");
    assert_eq!(refusal(&server, "ANN"), None, "a goodbye frees the name");
}

#[test]
fn a_name_is_used_as_cleaned() {
    let server = Server::start(&[]);
    let client = server.client("  An\u{202e}n \r\n\t Bob\u{1b}\u{7}  ");
    assert_eq!(
        client.session_info().map(|info| info.name.as_str()),
        Some("Ann Bob")
    );
    for invalid in ["", " \n ", "\u{200b}\u{2800}", "1234567890123456789012345"] {
        assert_eq!(
            refusal(&server, invalid),
            Some(ErrorCode::NameInvalid),
            "{invalid:?}"
        );
    }
}

/// Runs `count` threads that act at the same moment, each with its number.
fn at_once<T: Send>(count: usize, act: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(count);
    std::thread::scope(|scope| {
        let (barrier, act) = (&barrier, &act);
        let started: Vec<_> = (0..count)
            .map(|number| {
                scope.spawn(move || {
                    barrier.wait();
                    act(number)
                })
            })
            .collect();
        started
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })
}

#[test]
fn one_of_fifty_simultaneous_claims_of_a_name_succeeds() {
    let server = Server::start(&[]);
    let answers = at_once(50, |_| {
        let mut raw = RawClient::connect(&server);
        raw.send(&handshake("Highlander"));
        (raw.next_message(), raw)
    });
    let (welcome, refused): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|(answer, _)| matches!(answer, Ok(ServerMessage::Welcome { .. })));
    assert_eq!(welcome.len(), 1);
    for (answer, _) in refused {
        assert!(
            matches!(
                answer,
                Ok(ServerMessage::Error {
                    code: ErrorCode::NameTaken,
                    ..
                })
            ),
            "{answer:?}"
        );
    }
}

#[test]
fn two_of_a_hundred_simultaneous_joins_of_two_seats_succeed() {
    const CLIENTS: usize = 100;
    let server = Server::start(&[]);
    let (mut host, mut watcher) = (server.client("Host"), server.client("Watcher"));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| std::sync::Mutex::new(server.client(&format!("Guest {number}"))))
        .collect();
    for round in 0..5 {
        let room = host
            .create_room(NewRoom::new("tictactoe", "two seats"))
            .expect("a room is free")
            .room;
        // A spectator keeps the room open, with both seats free.
        watcher.spectate(room, None).expect("spectators are allowed");
        host.leave().expect("in the room");

        let joined = at_once(CLIENTS, |number| {
            clients[number].lock().expect("no panic").join_room(room, None)
        });
        let seats: Vec<Option<u8>> = joined.iter().flatten().map(|snapshot| snapshot.seat).collect();
        assert!(
            seats == [Some(0), Some(1)] || seats == [Some(1), Some(0)],
            "round {round}: {seats:?} got in"
        );
        for refused in joined.iter().filter_map(|joined| joined.as_ref().err()) {
            assert_eq!(refused.reject_code(), Some(RejectCode::RoomFull));
        }
        // The spectator saw exactly the players that were admitted.
        let seen = [(); 2].map(|()| {
            event(&mut watcher, |event| match event {
                RoomEvent::Joined { seat, name } => Some((*seat, name.clone())),
                _ => None,
            })
        });
        for (number, snapshot) in joined
            .iter()
            .enumerate()
            .filter_map(|(number, joined)| Some((number, joined.as_ref().ok()?)))
        {
            let seat = snapshot.seat.expect("a seat");
            assert!(seen.contains(&(seat, format!("Guest {number}"))), "{seen:?}");
            clients[number]
                .lock()
                .expect("no panic")
                .leave()
                .expect("in the room");
        }
        watcher.leave().expect("in the room");
    }
    eventually("all rooms are closed", || server.status("rooms") == 0);
}

#[test]
fn rooms_are_listed_in_pages_without_gap_or_repetition() {
    let server = Server::start(&[]);
    let mut hosts: Vec<Client> = (0..90)
        .map(|number| server.client(&format!("Host {number}")))
        .collect();
    let created: Vec<RoomId> = (0..)
        .zip(&mut hosts)
        .map(|(number, host)| {
            host.create_room(NewRoom::new("relay", format!("Room {number}")))
                .expect("a room")
                .room
        })
        .collect();
    let mut reader = server.client("Reader");
    let (mut listed, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let (rooms, next) = reader.list_rooms(RoomFilter::default(), after).expect("a page");
        listed.extend(rooms.iter().map(|room| room.room));
        pages += 1;
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let sorted = |mut rooms: Vec<RoomId>| {
        rooms.sort_unstable();
        rooms
    };
    assert_eq!(sorted(listed), sorted(created));
    assert_eq!(pages, 3);
}

#[test]
fn a_list_contains_the_rooms_that_match_its_filter() {
    let server = Server::start(&[]);
    let mut hosts = ["One", "Two", "Three", "Four"].map(|name| server.client(name));
    let secret = NewRoom {
        settings: RoomSettings {
            passcode: Some("sesame".to_owned()),
            ..RoomSettings::default()
        },
        ..NewRoom::new("relay", "A secret place")
    };
    let full = NewRoom {
        settings: RoomSettings {
            seats: 1,
            ..RoomSettings::default()
        },
        ..NewRoom::new("relay", "Öde Insel")
    };
    let wishes = [
        NewRoom::new("tictactoe", "The corner"),
        NewRoom::new("relay", "The Open"),
        secret,
        full,
    ];
    for (host, wish) in hosts.iter_mut().zip(wishes) {
        host.create_room(wish).expect("a room is free");
    }
    let mut reader = server.client("Reader");
    let mut names = |filter| -> Vec<String> {
        rooms(&mut reader, filter)
            .into_iter()
            .map(|room| room.name)
            .collect()
    };
    let part = |part: &str| RoomFilter {
        name_contains: Some(part.to_owned()),
        ..RoomFilter::default()
    };
    let game = |game: &str| RoomFilter {
        game: Some(game.to_owned()),
        ..RoomFilter::default()
    };
    assert_eq!(
        names(RoomFilter::default()),
        ["The corner", "The Open", "A secret place", "Öde Insel"]
    );
    assert_eq!(names(game("relay")), ["The Open", "A secret place", "Öde Insel"]);
    assert_eq!(names(game("chess")), [""; 0]);
    assert_eq!(names(part("THE")), ["The corner", "The Open"]);
    assert_eq!(names(part("öDE")), ["Öde Insel"]);
    assert_eq!(
        names(RoomFilter {
            joinable: true,
            ..RoomFilter::default()
        }),
        ["The corner", "The Open"]
    );

    let line = rooms(&mut reader, part("corner")).remove(0);
    assert_eq!(
        (line.game.as_str(), line.phase, line.seats, line.taken),
        ("tictactoe", Phase::Waiting, 2, 1)
    );
    assert_eq!((line.spectators, line.passcode), (0, false));
    // A running match cannot be joined.
    let mut guest = server.client("Guest");
    guest.join_room(line.room, None).expect("a seat is free");
    hosts[0].ready(true).expect("not yet started");
    guest.ready(true).expect("not yet started");
    reader.spectate(line.room, None).expect("spectators are allowed");
    let line = rooms(&mut reader, part("corner")).remove(0);
    assert_eq!((line.phase, line.taken, line.spectators), (Phase::Playing, 2, 1));
}

#[test]
fn a_room_with_a_passcode_admits_only_players_that_give_it() {
    let server = Server::start(&[]);
    let (mut host, mut guest) = (server.client("Host"), server.client("Guest"));
    let wish = NewRoom {
        settings: RoomSettings {
            passcode: Some("sesame".to_owned()),
            ..RoomSettings::default()
        },
        ..NewRoom::new("relay", "cave")
    };
    let room = host.create_room(wish).expect("a room is free").room;
    assert!(rooms(&mut guest, RoomFilter::default())[0].passcode);
    for wrong in [None, Some(""), Some("Sesame"), Some("sesame ")] {
        assert_eq!(
            rejection(guest.join_room(room, wrong)),
            RejectCode::WrongPasscode,
            "{wrong:?}"
        );
        assert_eq!(
            rejection(guest.spectate(room, wrong)),
            RejectCode::WrongPasscode,
            "{wrong:?}"
        );
    }
    guest.spectate(room, Some("sesame")).expect("the right word");
    guest.leave().expect("in the room");
    guest.join_room(room, Some("sesame")).expect("the right word");
}

#[test]
fn a_server_without_free_connections_refuses_until_one_ends() {
    let server = Server::start(&["--connections-max", "3"]);
    let mut clients: Vec<Client> = (0..3)
        .map(|number| server.client(&format!("Client {number}")))
        .collect();
    for _ in 0..5 {
        // Some clients send a handshake, some wait for the server: all are told.
        assert_eq!(refusal(&server, "One too many"), Some(ErrorCode::ServerFull));
        RawClient::connect(&server).expect_error(ErrorCode::ServerFull);
    }
    assert_eq!(server.status("refused_total"), 10);
    for client in &mut clients {
        client.ping().expect("served as before");
    }
    clients.pop().expect("three").goodbye().expect("said in order");
    eventually("a place is free again", || refusal(&server, "Next").is_none());
}

#[test]
fn short_visits_take_no_place_or_seat_from_others() {
    let server = Server::start(&["--players-max", "5", "--seat-grace-ms", "600000"]);
    let mut seated = server.client("Seated");
    seated
        .create_room(NewRoom::new("relay", "kept"))
        .expect("a room is free");
    let mut written_to = server.client("Written to");
    seated.disconnect_abruptly();
    written_to.disconnect_abruptly();
    eventually("both are away", || {
        ["Seated", "Written to"]
            .iter()
            .all(|name| server.handler_of(name).is_none())
    });
    let mut writer = server.client("Writer");
    let to = "Written to".to_owned();
    writer
        .chat(ChatScope::Whisper { to }, "do not go")
        .expect("there is room in the mailbox");
    for number in 0..2 {
        drop(server.client(&format!("Passer-by {number}")));
    }
    let mut newcomers = Vec::new();
    eventually("there are places for new players", || {
        let name = format!("Newcomer {}", newcomers.len());
        newcomers.extend(Client::connect(server.game, name, patient()).ok());
        // Mail keeps no place when places are short.
        newcomers.len() == 3
    });
    // No player without a seat is kept, however long the grace is; a player with a seat is.
    std::thread::sleep(Duration::from_millis(2 * LOBBY_GRACE_MS_MIN));
    assert_eq!(refusal(&server, "One too many"), Some(ErrorCode::ServerFull));
    seated.act(b"still here".to_vec()).expect("the seat was kept");
}

#[test]
fn spectators_that_reset_their_connections_keep_no_places() {
    let server = Server::start(&["--players-max", "8", "--seat-grace-ms", "600000"]);
    let (mut ann, mut bob, room) = table(&server);
    for number in 0..6 {
        let mut watcher = server.client(&format!("Watcher {number}"));
        watcher.spectate(room, None).expect("spectators are allowed");
        watcher.disconnect_abruptly();
    }
    bob.disconnect_abruptly();
    let mut newcomers = Vec::new();
    eventually("the spectators' places are free", || {
        let name = format!("Newcomer {}", newcomers.len());
        newcomers.extend(Client::connect(server.game, name, patient()).ok());
        newcomers.len() == 6
    });
    assert_eq!(refusal(&server, "One too many"), Some(ErrorCode::ServerFull));
    bob.ready(true).expect("the seat was kept");
    ann.ready(true).expect("in the room");
}

#[test]
fn a_byte_is_no_greeting_and_takes_no_players_place() {
    let server = Server::start(&["--players-max", "2", "--handshake-timeout-ms", "2000"]);
    let mut silent = Vec::new();
    for byte in [b'x', b'7', b'/', b' ', 255, 0x16] {
        let mut text_player = TextClient::connect(&server);
        text_player.send(&[byte]);
        silent.push(text_player);
    }
    eventually("all are served", || server.status("connections") == 6);
    let _players = [server.client("Ann"), server.client("Bob")];
    assert_eq!(server.status("players"), 2);
    for mut text_player in silent {
        let told = text_player.read_to_end();
        assert!(told.contains("You did not greet in time"), "{told:?}");
    }
}

#[test]
fn a_silent_guest_in_the_lobby_keeps_its_place_only_while_places_are_free() {
    let server = Server::start(&["--players-max", "2", "--handshake-timeout-ms", "1000"]);
    let mut guests = [0, 1].map(|_| TextClient::connect(&server));
    for guest in &mut guests {
        guest.type_line("");
        guest.read_until("Welcome to Forkade.");
    }
    // One of them plays.
    guests[0].type_line("create relay");
    eventually("a newcomer gets the other's place", || {
        Client::connect(server.game, "Newcomer", patient()).is_ok()
    });
    assert!(
        guests[1]
            .read_to_end()
            .contains("You have typed nothing for 1 seconds")
    );
    guests[0].ask("rooms");
}

#[test]
fn a_server_without_free_player_records_refuses_until_one_leaves() {
    let server = Server::start(&["--players-max", "2"]);
    let (ann, _bob) = (server.client("Ann"), server.client("Bob"));
    assert_eq!(refusal(&server, "Carol"), Some(ErrorCode::ServerFull));
    ann.goodbye().expect("said in order");
    assert_eq!(refusal(&server, "Carol"), None);
}

#[test]
fn a_server_without_free_rooms_refuses_until_one_closes() {
    let server = Server::start(&["--rooms-max", "1"]);
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let first = ann
        .create_room(NewRoom::new("relay", "the only one"))
        .expect("a room is free")
        .room;
    assert_eq!(
        rejection(bob.create_room(NewRoom::new("relay", "another"))),
        RejectCode::RoomsFull
    );
    ann.leave().expect("in the room");
    let second = bob
        .create_room(NewRoom::new("relay", "another"))
        .expect("a room is free")
        .room;
    assert_ne!(first, second, "a room's id is never used again");
    assert_eq!(rejection(ann.join_room(first, None)), RejectCode::RoomNotFound);
}

#[test]
fn a_room_closes_when_its_last_player_or_spectator_leaves() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, room) = table(&server);
    let mut watcher = server.client("Watcher");
    watcher.spectate(room, None).expect("spectators are allowed");
    ann.leave().expect("in the room");
    let left = |event: &RoomEvent| matches!(event, RoomEvent::Left { seat: 0 }).then_some(());
    event(&mut bob, left);
    event(&mut watcher, left);
    bob.goodbye().expect("said in order");
    assert_eq!(server.status("rooms"), 1);
    watcher.leave().expect("in the room");
    assert_eq!(server.status("rooms"), 0);
    assert_eq!(rejection(watcher.spectate(room, None)), RejectCode::RoomNotFound);
}

#[test]
fn an_impossible_request_is_rejected_with_the_reason() {
    let server = Server::start(&MAY_FAIL);
    let mut ann = server.client("Ann");
    let wishes = [
        (NewRoom::new("chess", "r"), RejectCode::UnknownGame),
        (NewRoom::new("", "r"), RejectCode::UnknownGame),
        (NewRoom::new("relay", " \u{200b}\n"), RejectCode::RoomNameInvalid),
        (
            NewRoom::new("relay", "é".repeat(ROOM_NAME_BYTES_MAX)),
            RejectCode::RoomNameInvalid,
        ),
        (
            NewRoom {
                settings: RoomSettings {
                    seats: 33,
                    ..RoomSettings::default()
                },
                ..NewRoom::new("relay", "r")
            },
            RejectCode::SeatsOutOfRange,
        ),
        (
            NewRoom {
                settings: RoomSettings {
                    seats: 3,
                    ..RoomSettings::default()
                },
                ..NewRoom::new("tictactoe", "r")
            },
            RejectCode::SeatsOutOfRange,
        ),
        (
            NewRoom {
                settings: RoomSettings {
                    options: vec![1],
                    ..RoomSettings::default()
                },
                ..NewRoom::new("relay", "r")
            },
            RejectCode::BadOptions,
        ),
    ];
    for (wish, expected) in wishes {
        assert_eq!(rejection(ann.create_room(wish.clone())), expected, "{wish:?}");
    }
    assert_eq!(
        rejection(ann.quick_match("chess", vec![])),
        RejectCode::UnknownGame
    );
    let room = ann
        .create_room(NewRoom::new("relay", " a\tnice\n\u{202e}room "))
        .expect("a room is free");
    assert_eq!(room.name, "a nice room");
    assert_eq!(
        rejection(ann.create_room(NewRoom::new("relay", "r"))),
        RejectCode::AlreadyInRoom
    );
    assert_eq!(
        rejection(ann.join_room(room.room, None)),
        RejectCode::AlreadyInRoom
    );
    assert_eq!(
        rejection(ann.quick_match("relay", vec![])),
        RejectCode::AlreadyInRoom
    );
    assert_eq!(server.status("rooms"), 1);
}

#[test]
fn quick_match_joins_a_waiting_room() {
    let server = Server::start(&[]);
    let mut players = ["One", "Two", "Three", "Four"].map(|name| server.client(name));
    let mut host = server.client("Host");
    let secret = NewRoom {
        settings: RoomSettings {
            passcode: Some("sesame".to_owned()),
            ..RoomSettings::default()
        },
        ..NewRoom::new("tictactoe", "secret")
    };
    let secret = host.create_room(secret).expect("a room is free").room;
    let matched = players
        .each_mut()
        .map(|player| player.quick_match("tictactoe", vec![]).expect("a seat"));
    let rooms = matched.each_ref().map(|snapshot| snapshot.room);
    assert!(
        rooms[0] == rooms[1] && rooms[2] == rooms[3] && rooms[1] != rooms[2],
        "{rooms:?}"
    );
    assert!(
        !rooms.contains(&secret),
        "a quick match must not join a room with a passcode"
    );
    assert_eq!(
        matched.each_ref().map(|snapshot| snapshot.seat),
        [Some(0), Some(1), Some(0), Some(1)]
    );
}

#[test]
fn room_chat_reaches_everybody_in_the_room_and_nobody_else() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, room) = table(&server);
    let (mut watcher, mut elsewhere) = (server.client("Watcher"), server.client("Elsewhere"));
    watcher.spectate(room, None).expect("spectators are allowed");
    elsewhere
        .create_room(NewRoom::new("relay", "elsewhere"))
        .expect("a room is free");

    watcher
        .chat(ChatScope::Room, " hi\n\u{1b}[2Jthere \u{202e}")
        .expect("in the room");
    let said = |event: &RoomEvent| match event {
        RoomEvent::Chat { from, text } => Some((from.clone(), text.clone())),
        _ => None,
    };
    for client in [&mut ann, &mut bob, &mut watcher] {
        assert_eq!(
            event(client, said),
            ("Watcher".to_owned(), "hi [2Jthere".to_owned())
        );
    }
    assert_eq!(
        rejection(ann.chat(ChatScope::Room, "x".repeat(501))),
        RejectCode::ChatTooLong
    );
    assert_eq!(
        rejection(ann.chat(ChatScope::Room, "\n\u{200b}")),
        RejectCode::TextInvalid
    );
    ann.chat(ChatScope::Room, "x".repeat(500))
        .expect("as long as it may be");
    assert_eq!(event(&mut bob, said).1.len(), 500);
    // Its stream would carry the chat before the answer to a later request.
    elsewhere.ping().expect("the session lives");
    assert_eq!(
        elsewhere
            .receive(std::time::Duration::ZERO)
            .expect("the session lives"),
        None
    );
}

#[test]
fn a_list_omits_a_room_that_closed_meanwhile() {
    let server = Server::start(&[]);
    let mut reader = RawClient::connect_as(&server, "Reader");
    let mut host = server.client("Host");
    for request in 0..20 {
        let room = host
            .create_room(NewRoom::new("relay", "brief"))
            .expect("a room is free")
            .room;
        host.leave().expect("in the room");
        reader.send_message(&ClientMessage::ListRooms {
            request,
            filter: RoomFilter::default(),
            after: Some(room),
        });
        reader.send_message(&ClientMessage::ListRooms {
            request,
            filter: RoomFilter::default(),
            after: None,
        });
        for _ in 0..2 {
            match reader.next_message() {
                Ok(ServerMessage::Rooms {
                    rooms, next: None, ..
                }) => assert_eq!(rooms, []),
                other => panic!("instead of no rooms: {other:?}"),
            }
        }
    }
}
