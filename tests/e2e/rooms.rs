//! Promise: the owner of a room decides its settings and its members. A room has an owner as long as any seat
//! is taken, and no other player can make the owner's requests.

use crate::common::rooms::{
    event, expect_event, heard, listed, message, picture, public, rejection, removed, room_of, start,
};
use crate::common::{Server, eventually};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{
    ClientMessage, Outcome, Phase, RejectCode, RoomEvent, RoomRules, RoomSettings, ServerMessage, codec,
};
use nix::sys::signal::Signal;

#[test]
fn an_unlisted_room_can_be_joined_only_by_its_number() {
    let server = Server::start(&[]);
    let hidden = RoomSettings {
        unlisted: true,
        ..public()
    };
    let (mut ann, [], room) = room_of(&server, "relay", hidden, []);
    let mut bob = server.client("Bob");
    assert_eq!(listed(&mut bob), []);
    let matched = bob.quick_match("relay", Vec::new()).expect("a room is free");
    assert_ne!(matched.room, room, "a quick match leads to listed rooms only");
    bob.leave().expect("in a room");
    let snapshot = bob.join_room(room, None).expect("its number is known");
    assert!(snapshot.rules.unlisted);
    ann.configure(public()).expect("the owner may");
    expect_event(
        &mut bob,
        &RoomEvent::Configured {
            rules: RoomRules {
                seats: 32,
                ..RoomRules::default()
            },
        },
    );
    assert_eq!(listed(&mut bob), [room]);
}

#[test]
fn a_room_that_forbids_spectators_cannot_be_watched() {
    let server = Server::start(&[]);
    let private = RoomSettings {
        no_spectators: true,
        ..public()
    };
    let (mut ann, [], room) = room_of(&server, "tictactoe", private.clone(), []);
    let mut eve = server.client("Eve");
    assert_eq!(rejection(eve.spectate(room, None)), RejectCode::NoSpectators);
    ann.configure(public()).expect("the owner may");
    eve.spectate(room, None).expect("spectators are allowed");
    // Present spectators may stay.
    ann.configure(private).expect("the owner may");
    assert!(picture(&mut eve).rules.no_spectators);
    eve.leave().expect("watching");
    assert_eq!(rejection(eve.spectate(room, None)), RejectCode::NoSpectators);
    eve.join_room(room, None).expect("a seat is free");
}

#[test]
fn invalid_settings_are_rejected_and_change_nothing() {
    let server = Server::start(&[]);
    let (mut ann, [mut bob], _) = room_of(&server, "eights", public(), ["Bob"]);
    let before = picture(&mut bob);
    let wish = |change: fn(&mut RoomSettings)| {
        let mut wish = public();
        change(&mut wish);
        wish
    };
    let impossible = [
        (wish(|wish| wish.seats = 7), RejectCode::SeatsOutOfRange),
        (wish(|wish| wish.seats = 255), RejectCode::SeatsOutOfRange),
        (wish(|wish| wish.seats = 1), RejectCode::SeatsOutOfRange),
        (wish(|wish| wish.options = vec![1]), RejectCode::BadOptions),
        (wish(|wish| wish.options = vec![0; 65]), RejectCode::BadOptions),
        (
            wish(|wish| wish.passcode = Some("x".repeat(65))),
            RejectCode::WrongPasscode,
        ),
        (wish(|wish| wish.turn_seconds = 3601), RejectCode::BadSettings),
        (wish(|wish| wish.turn_seconds = u16::MAX), RejectCode::BadSettings),
    ];
    let mut cyd = server.client("Cyd");
    for (settings, code) in impossible {
        assert_eq!(rejection(ann.configure(settings.clone())), code, "{settings:?}");
        let new = NewRoom {
            settings,
            ..NewRoom::new("eights", "another")
        };
        assert_eq!(rejection(cyd.create_room(new)), code);
    }
    let after = picture(&mut bob);
    assert_eq!(after, before);
}

#[test]
fn changed_settings_are_announced_and_reset_readiness() {
    let server = Server::start(&[]);
    let settings = RoomSettings { seats: 3, ..public() };
    let (mut ann, [mut bob], room) = room_of(&server, "eights", settings, ["Bob"]);
    ann.ready(true).expect("not yet started");
    bob.ready(true).expect("not yet started");
    let settings = RoomSettings {
        passcode: Some("sesame".into()),
        seats: 2,
        unlisted: true,
        no_spectators: true,
        ..public()
    };
    ann.configure(settings.clone()).expect("the owner may");
    let rules = RoomRules {
        seats: 2,
        passcode: true,
        options: Vec::new(),
        unlisted: true,
        no_spectators: true,
        turn_seconds: 0,
    };
    for client in [&mut ann, &mut bob] {
        expect_event(client, &RoomEvent::Configured { rules: rules.clone() });
    }
    let now = picture(&mut bob);
    assert_eq!(
        (now.rules, now.phase, now.seats.len()),
        (rules, Phase::Waiting, 2)
    );
    assert!(now.seats.iter().flatten().all(|seat| !seat.ready));
    // A free seat can be removed, a taken one cannot.
    ann.configure(RoomSettings { seats: 6, ..public() })
        .expect("the owner may");
    let mut cyd = server.client("Cyd");
    assert_eq!(cyd.join_room(room, None).expect("a seat is free").seat, Some(2));
    bob.leave().expect("in a room");
    assert_eq!(
        rejection(ann.configure(settings.clone())),
        RejectCode::BadSettings
    );
    cyd.leave().expect("in a room");
    ann.configure(settings).expect("the owner may");
    assert_eq!(rejection(cyd.join_room(room, None)), RejectCode::WrongPasscode);
    cyd.join_room(room, Some("sesame")).expect("the new word");
}

#[test]
fn settings_that_a_match_depends_on_cannot_change_during_it() {
    let server = Server::start(&[]);
    let (mut ann, [mut bob], _) = room_of(&server, "eights", RoomSettings { seats: 2, ..public() }, ["Bob"]);
    start(&mut [&mut ann, &mut bob]);
    for settings in [
        RoomSettings { seats: 3, ..public() },
        RoomSettings {
            seats: 2,
            turn_seconds: 60,
            ..public()
        },
    ] {
        assert_eq!(rejection(ann.configure(settings)), RejectCode::AlreadyStarted);
    }
    let private = RoomSettings {
        seats: 2,
        passcode: Some("sesame".into()),
        no_spectators: true,
        ..public()
    };
    ann.configure(private).expect("no matter of the match");
    assert_eq!(picture(&mut bob).phase, Phase::Playing);
    let mut eve = server.client("Eve");
    let room = picture(&mut bob).room;
    assert_eq!(
        rejection(eve.spectate(room, Some("sesame"))),
        RejectCode::NoSpectators
    );
}

#[test]
fn requests_of_the_owner_are_rejected_from_other_players() {
    let server = Server::start(&[]);
    let (mut ann, [mut bob], room) = room_of(&server, "relay", public(), ["Bob"]);
    let (mut eve, mut zoe) = (server.client("Eve"), server.client("Zoe"));
    eve.spectate(room, None).expect("spectators are allowed");
    let before = picture(&mut ann);
    for (client, code) in [
        (&mut bob, RejectCode::NotOwner),
        (&mut eve, RejectCode::NotOwner),
        (&mut zoe, RejectCode::NotInRoom),
    ] {
        assert_eq!(rejection(client.configure(public())), code);
        assert_eq!(rejection(client.kick(0, "Ann")), code);
        assert_eq!(rejection(client.kick(255, "Ann")), code);
        assert_eq!(rejection(client.hand_over(1, "Bob")), code);
    }
    for seat in [0, 2, 31, 32, 255] {
        assert_eq!(rejection(ann.kick(seat, "Ann")), RejectCode::NoSuchSeat, "{seat}");
        assert_eq!(
            rejection(ann.hand_over(seat, "Ann")),
            RejectCode::NoSuchSeat,
            "{seat}"
        );
    }
    assert_eq!(picture(&mut ann), before, "nothing has happened");
}

#[test]
fn ownership_is_transferred_with_all_its_rights() {
    let server = Server::start(&[]);
    let (mut ann, [mut bob], room) = room_of(&server, "relay", public(), ["Bob"]);
    ann.hand_over(1, "Bob").expect("the owner may");
    for client in [&mut ann, &mut bob] {
        expect_event(client, &RoomEvent::Owner { seat: 1 });
    }
    assert_eq!(rejection(ann.kick(1, "Bob")), RejectCode::NotOwner);
    assert_eq!(rejection(ann.hand_over(0, "Ann")), RejectCode::NotOwner);
    bob.kick(0, "Ann").expect("the owner may");
    assert_eq!(removed(&mut ann), room);
    assert_eq!(picture(&mut bob).owner, Some(1));
}

/// The next owner.
fn next_owner(client: &mut Client) -> u8 {
    event(client, |event| match event {
        RoomEvent::Owner { seat } => Some(*seat),
        _ => None,
    })
}

#[test]
fn the_lowest_connected_seat_succeeds_an_owner_that_leaves() {
    let server = Server::start(&[]);
    let (mut ann, [bob, mut cyd, mut dan], room) = room_of(&server, "relay", public(), ["Bob", "Cyd", "Dan"]);
    // Bob's connection is lost, and his seat is kept.
    drop(bob);
    for client in [&mut cyd, &mut dan] {
        expect_event(
            client,
            &RoomEvent::Connection {
                seat: 1,
                connected: false,
            },
        );
    }
    ann.leave().expect("in a room");
    for client in [&mut cyd, &mut dan] {
        expect_event(client, &RoomEvent::Left { seat: 0 });
        assert_eq!(next_owner(client), 2);
    }
    assert_eq!(ann.join_room(room, None).expect("a seat is free").owner, Some(2));
    // The player on seat 0, who is not the owner, leaves for good.
    cyd.goodbye().expect("the server lives");
    assert_eq!(next_owner(&mut dan), 0);
    ann.leave().expect("in a room");
    assert_eq!(next_owner(&mut dan), 3);
    dan.configure(public()).expect("the owner may");
}

#[test]
fn an_owner_whose_grace_expires_is_succeeded() {
    let server = Server::start(&["--seat-grace-ms", "100"]);
    let (ann, [mut bob], _) = room_of(&server, "relay", public(), ["Bob"]);
    drop(ann);
    expect_event(&mut bob, &RoomEvent::Left { seat: 0 });
    expect_event(&mut bob, &RoomEvent::Owner { seat: 1 });
    bob.configure(public()).expect("the owner may");
}

#[test]
fn a_room_with_only_spectators_is_owned_by_the_next_player_that_joins() {
    let server = Server::start(&[]);
    let (mut ann, [], room) = room_of(&server, "relay", public(), []);
    let mut eve = server.client("Eve");
    eve.spectate(room, None).expect("spectators are allowed");
    ann.leave().expect("in a room");
    expect_event(&mut eve, &RoomEvent::Left { seat: 0 });
    assert_eq!(picture(&mut eve).owner, None);
    assert_eq!(rejection(eve.configure(public())), RejectCode::NotOwner);
    let mut bob = server.client("Bob");
    assert_eq!(bob.join_room(room, None).expect("a seat is free").owner, Some(0));
    expect_event(&mut eve, &RoomEvent::Owner { seat: 0 });
    bob.kick(1, "Bob").expect_err("nobody is connected");
    bob.configure(public()).expect("the owner may");
}

#[test]
fn a_kicked_player_is_banned_and_the_others_are_told() {
    let server = Server::start(&[]);
    let (mut ann, [mut bob, mut cyd], room) = room_of(&server, "relay", public(), ["Bob", "Cyd"]);
    let mut eve = server.client("Eve");
    eve.spectate(room, None).expect("spectators are allowed");
    ann.kick(1, "Bob").expect("the owner may");
    for client in [&mut ann, &mut cyd, &mut eve] {
        expect_event(client, &RoomEvent::Kicked { seat: 1 });
        assert_eq!(picture(client).seats[1], None);
    }
    assert_eq!(removed(&mut bob), room);
    // No event of the room is delivered any more.
    heard(&mut bob);
    cyd.act(b"gone?".to_vec()).expect("a match is on");
    event(&mut eve, |event| {
        matches!(event, RoomEvent::Game { .. }).then_some(())
    });
    assert_eq!(heard(&mut bob), []);
    assert_eq!(rejection(bob.act(b"here".to_vec())), RejectCode::NotInRoom);
    // No request leads back into the room.
    assert_eq!(rejection(bob.join_room(room, None)), RejectCode::Banned);
    assert_eq!(rejection(bob.spectate(room, None)), RejectCode::Banned);
    let matched = bob.quick_match("relay", Vec::new()).expect("another room");
    assert_ne!(matched.room, room);
    // Another player can take the seat.
    let mut dan = server.client("Dan");
    assert_eq!(dan.join_room(room, None).expect("a seat is free").seat, Some(1));
    server.expect_no_errors();
}

#[test]
fn a_player_kicked_during_a_match_loses_it() {
    let server = Server::start(&[]);
    let (mut ann, [mut bob], _) = room_of(&server, "tictactoe", public(), ["Bob"]);
    start(&mut [&mut ann, &mut bob]);
    ann.act(codec::encode(&4_u8).expect("a number"))
        .expect("a free cell");
    ann.kick(1, "Bob").expect("the owner may");
    let outcome = event(&mut ann, |event| match event {
        RoomEvent::Finished { outcome } => Some(outcome.clone()),
        _ => None,
    });
    assert_eq!(outcome, Outcome::Won { seats: vec![0] });
    removed(&mut bob);
}

#[test]
fn a_request_that_crosses_a_kick_is_rejected_after_the_removal_notice() {
    // The watchdog ignores stopped processes.
    let server = Server::start(&["--watchdog-cpu-ms", "0"]);
    let (mut ann, [mut bob], room) = room_of(&server, "relay", public(), ["Bob"]);
    // Bob's handler is stopped while he is kicked and sends more requests.
    let handler = server.handler_of("Bob").expect("bob is connected");
    server.signal(handler, Signal::SIGSTOP);
    ann.kick(1, "Bob").expect("the owner may");
    expect_event(&mut ann, &RoomEvent::Kicked { seat: 1 });
    let requests = [
        ClientMessage::Act {
            request: 901,
            action: vec![7],
        },
        ClientMessage::Leave { request: 902 },
        ClientMessage::JoinRoom {
            request: 903,
            room,
            passcode: None,
        },
    ];
    for request in requests {
        bob.send(&request).expect("the server lives");
    }
    server.signal(handler, Signal::SIGCONT);
    let answers: Vec<_> = (0..4)
        .map(|_| {
            message(&mut bob, |message| match message {
                ServerMessage::Removed { room, .. } => Some((0, Ok(*room))),
                ServerMessage::Rejected { request, code, .. } => Some((*request, Err(*code))),
                _ => None,
            })
        })
        .collect();
    let expected = [
        (0, Ok(room)),
        (901, Err(RejectCode::NotInRoom)),
        (902, Err(RejectCode::NotInRoom)),
        (903, Err(RejectCode::Banned)),
    ];
    assert_eq!(answers, expected);
}

#[test]
fn a_player_kicked_while_absent_is_told_on_resume_even_if_the_room_has_closed() {
    let server = Server::start(&[]);
    for the_room_closes in [false, true] {
        let (mut ann, [mut bob], room) = room_of(&server, "relay", public(), ["Bob"]);
        bob.disconnect_abruptly();
        expect_event(
            &mut ann,
            &RoomEvent::Connection {
                seat: 1,
                connected: false,
            },
        );
        ann.kick(1, "Bob").expect("the owner may");
        if the_room_closes {
            ann.leave().expect("in a room");
            // Another room uses the same record.
            let again = ann
                .create_room(NewRoom::new("relay", "another"))
                .expect("a room is free");
            assert_eq!(
                again.room.0 & 0xFFFF_FFFF,
                room.0 & 0xFFFF_FFFF,
                "the same record"
            );
        }
        assert_eq!(removed(&mut bob), room);
        assert_eq!(heard(&mut bob), []);
        bob.create_room(NewRoom::new("relay", "my own"))
            .expect("in no room");
        ann.goodbye().expect("the server lives");
        bob.goodbye().expect("the server lives");
        eventually("both are gone", || server.status("players") == 0);
    }
    server.expect_no_errors();
}

#[test]
fn a_room_bans_the_last_sixteen_kicked_players() {
    let server = Server::start(&[]);
    let (mut ann, [], room) = room_of(&server, "relay", public(), []);
    let mut kicked: Vec<Client> = (0..17)
        .map(|number| {
            let mut guest = server.client(&format!("Guest {number}"));
            guest.join_room(room, None).expect("a seat is free");
            ann.kick(1, format!("Guest {number}")).expect("the owner may");
            removed(&mut guest);
            guest
        })
        .collect();
    for guest in &mut kicked[1..] {
        assert_eq!(rejection(guest.join_room(room, None)), RejectCode::Banned);
    }
    kicked[0].join_room(room, None).expect("forgotten");
}

#[test]
fn a_kick_does_not_remove_the_seats_next_player() {
    let server = Server::start(&[]);
    let (mut ann, [mut bob], room) =
        room_of(&server, "relay", RoomSettings { seats: 2, ..public() }, ["Bob"]);
    let mut cyd = server.client("Cyd");
    // Ann has seen Bob on seat 1, and makes her request while Cyd replaces him.
    bob.leave().expect("in a room");
    cyd.join_room(room, None).expect("a seat is free");
    let before = picture(&mut ann);
    assert_eq!(rejection(ann.kick(1, "Bob")), RejectCode::SeatChanged);
    assert_eq!(rejection(ann.hand_over(1, "Bob")), RejectCode::SeatChanged);
    assert_eq!(picture(&mut ann), before, "nothing has happened");
    ann.hand_over(1, "Cyd").expect("that is she");
    expect_event(&mut cyd, &RoomEvent::Owner { seat: 1 });
    cyd.kick(0, "Ann").expect("the owner may");
    server.expect_no_errors();
}
