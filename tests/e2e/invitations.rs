//! Promise: an invite code admits to its own room only, and a reserved seat is given to no other player until
//! the reservation expires.

use std::time::{Duration, Instant};

use crate::common::rooms::{expect_event, message, picture, public, rejection, removed, room_of};
use crate::common::{MAY_FAIL, Server, eventually};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{Phase, RejectCode, RoomEvent, RoomId, RoomSettings, ServerMessage};
use nix::sys::signal::Signal;

fn invited(client: &mut Client) -> (RoomId, String, u16) {
    message(client, |message| match message {
        ServerMessage::Invited {
            room,
            game,
            name,
            from,
            code,
            seconds,
        } => {
            assert_eq!(
                (game.as_str(), name.as_str(), from.as_str()),
                ("relay", "table", "Ann")
            );
            Some((*room, code.clone(), *seconds))
        }
        _ => None,
    })
}

#[test]
fn an_invite_code_admits_to_its_room_in_any_spelling() {
    let server = Server::start(&[]);
    let closed = RoomSettings {
        passcode: Some("sesame".into()),
        unlisted: true,
        ..public()
    };
    let (mut ann, [], room) = room_of(&server, "relay", closed, []);
    let code = ann.invite(false).expect("the owner may ask");
    assert_eq!(code.len(), 14);
    assert_eq!(
        ann.invite(false).expect("the owner may ask"),
        code,
        "the same again"
    );
    let mut bob = server.client("Bob");
    for typed in [
        code.clone(),
        code.to_lowercase(),
        code.replace('-', ""),
        format!(
            "  {}",
            code.replace('-', " - ").replace('0', "o").replace('1', "L")
        ),
    ] {
        let snapshot = bob.join_by_invite(typed, false).expect("the code is good");
        assert_eq!((snapshot.room, snapshot.seat), (room, Some(1)));
        bob.leave().expect("in a room");
        assert_eq!(
            bob.join_by_invite(code.as_str(), true).expect("it is good").seat,
            None
        );
        bob.leave().expect("in a room");
    }
}

#[test]
fn an_unknown_invite_code_is_rejected() {
    let server = Server::start(&MAY_FAIL);
    let (mut ann, [], room) = room_of(&server, "relay", public(), []);
    let code = ann.invite(false).expect("the owner may ask");
    let mut bob = server.client("Bob");
    let mut typo = code.clone().into_bytes();
    typo[13] = if typo[13] == b'Z' { b'Y' } else { b'Z' };
    // The same secret with the number of another room, or of an impossible one.
    let elsewhere = format!("0001{}", &code[4..]);
    let nowhere = format!("ZZZZ{}", &code[4..]);
    for wrong in [
        String::from_utf8(typo).expect("ASCII"),
        elsewhere,
        nowhere,
        String::new(),
        "-".repeat(1000),
        "0".repeat(1000),
        "0000-0000-0000".into(),
        "n\u{f6} code".into(),
        code[..13].into(),
        format!("{code}0"),
    ] {
        assert_eq!(
            rejection(bob.join_by_invite(wrong.as_str(), false)),
            RejectCode::InviteUnknown,
            "{wrong}"
        );
    }
    // A renewed code is invalid, and so is the code of a closed room.
    let renewed = ann.invite(true).expect("the owner may ask");
    assert_ne!(renewed, code);
    assert_eq!(
        rejection(bob.join_by_invite(code, false)),
        RejectCode::InviteUnknown
    );
    assert_eq!(
        rejection(ann.join_by_invite(renewed.as_str(), false)),
        RejectCode::AlreadyInRoom
    );
    ann.leave().expect("in a room");
    assert_eq!(
        rejection(bob.join_by_invite(renewed.as_str(), false)),
        RejectCode::InviteUnknown
    );
    let again = ann
        .create_room(NewRoom::new("relay", "again"))
        .expect("a room is free");
    assert_eq!(
        again.room.0 & 0xFFFF_FFFF,
        room.0 & 0xFFFF_FFFF,
        "the same record"
    );
    assert_eq!(
        rejection(bob.join_by_invite(renewed, false)),
        RejectCode::InviteUnknown
    );
}

#[test]
fn an_invite_code_overrides_no_capacity_and_no_ban() {
    let server = Server::start(&[]);
    let small = RoomSettings {
        seats: 2,
        no_spectators: true,
        ..public()
    };
    let (mut ann, [mut bob], _) = room_of(&server, "relay", small, ["Bob"]);
    let (mut cyd, mut dan) = (server.client("Cyd"), server.client("Dan"));
    assert_eq!(rejection(bob.invite(false)), RejectCode::NotOwner);
    assert_eq!(rejection(cyd.invite(false)), RejectCode::NotInRoom);
    let code = ann.invite(false).expect("the owner may ask");
    assert_eq!(
        rejection(cyd.join_by_invite(code.as_str(), false)),
        RejectCode::RoomFull
    );
    assert_eq!(
        rejection(cyd.join_by_invite(code.as_str(), true)),
        RejectCode::NoSpectators
    );
    ann.kick(1, "Bob").expect("the owner may");
    removed(&mut bob);
    assert_eq!(
        rejection(bob.join_by_invite(code.as_str(), false)),
        RejectCode::Banned
    );
    cyd.join_by_invite(code.as_str(), false).expect("a seat is free");
    cyd.leave().expect("in a room");
    // Each owner of the room can read its code.
    dan.join_by_invite(code.as_str(), false).expect("a seat is free");
    ann.hand_over(1, "Dan").expect("the owner may");
    assert_eq!(rejection(ann.invite(true)), RejectCode::NotOwner);
    assert_eq!(dan.invite(false).expect("the owner may ask"), code);
}

#[test]
fn a_reserved_seat_is_given_only_to_the_named_player() {
    let server = Server::start(&[]);
    let closed = RoomSettings {
        passcode: Some("sesame".into()),
        seats: 2,
        ..public()
    };
    let (mut ann, [], room) = room_of(&server, "relay", closed, []);
    let (mut zoe, mut bob) = (server.client("Zo\u{eb}"), server.client("Bob"));
    ann.reserve("ZO\u{cb} ").expect("the owner may");
    let reserved = RoomEvent::Reserved {
        seat: 1,
        name: "Zo\u{eb}".into(),
    };
    expect_event(&mut ann, &reserved);
    let (to, code, seconds) = invited(&mut zoe);
    assert_eq!((to, seconds), (room, 30));
    assert_eq!(code, ann.invite(false).expect("the owner may ask"));
    let kept = picture(&mut ann).reservations;
    assert_eq!(
        (kept.len(), kept[0].seat, kept[0].name.as_str()),
        (1, 1, "Zo\u{eb}")
    );
    assert!((1..=30_000).contains(&kept[0].milliseconds), "{kept:?}");
    // No other player gets the seat, whether by code or by passcode.
    assert_eq!(
        rejection(bob.join_room(room, Some("sesame"))),
        RejectCode::RoomFull
    );
    assert_eq!(
        rejection(bob.join_by_invite(code.as_str(), false)),
        RejectCode::RoomFull
    );
    ann.configure(RoomSettings { seats: 2, ..public() })
        .expect("the owner may");
    assert_ne!(
        bob.quick_match("relay", Vec::new()).expect("a room is free").room,
        room,
        "not a joinable one"
    );
    bob.leave().expect("in a room");
    ann.configure(RoomSettings {
        passcode: Some("another".into()),
        seats: 2,
        ..public()
    })
    .expect("the owner may");
    // The room's number is enough for the player with the reservation.
    assert_eq!(zoe.join_room(room, None).expect("it is kept").seat, Some(1));
    expect_event(
        &mut ann,
        &RoomEvent::Joined {
            seat: 1,
            name: "Zo\u{eb}".into(),
        },
    );
    assert_eq!(picture(&mut ann).reservations, []);
    assert_eq!(rejection(ann.reserve("zo\u{eb}")), RejectCode::AlreadyInRoom);
    assert_eq!(rejection(ann.reserve("Ann")), RejectCode::AlreadyInRoom);
    assert_eq!(rejection(ann.reserve("Bob")), RejectCode::RoomFull);
    assert_eq!(rejection(zoe.reserve("Bob")), RejectCode::NotOwner);
    assert_eq!(rejection(bob.reserve("Bob")), RejectCode::NotInRoom);
    for nobody in ["Nobody", "", "\u{200b}", &"x".repeat(1000)] {
        assert_eq!(
            rejection(ann.reserve(nobody)),
            RejectCode::UnknownPlayer,
            "{nobody}"
        );
    }
}

#[test]
fn a_reservation_expires_and_is_renewed_when_repeated() {
    let server = Server::start(&["--seat-reservation-ms", "5000"]);
    let (mut ann, [], room) = room_of(&server, "relay", RoomSettings { seats: 3, ..public() }, []);
    let (mut zoe, mut bob) = (server.client("Zoe"), server.client("Bob"));
    ann.reserve("Zoe").expect("the owner may");
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    ann.reserve("Zoe").expect("it begins anew");
    assert_eq!(picture(&mut ann).reservations.len(), 1);
    assert_eq!(bob.join_room(room, None).expect("a seat is free").seat, Some(2));
    for client in [&mut ann, &mut bob] {
        expect_event(client, &RoomEvent::ReservationOver { seat: 1 });
    }
    let lasted = begun.elapsed();
    // The server counts in whole milliseconds.
    assert!(lasted.as_millis() >= 4998, "over after {lasted:?}");
    assert_eq!(picture(&mut ann).reservations, []);
    let mut cyd = server.client("Cyd");
    assert_eq!(cyd.join_room(room, None).expect("a seat is free").seat, Some(1));
    assert_eq!(rejection(zoe.join_room(room, None)), RejectCode::RoomFull);
    assert_eq!(invited(&mut zoe).2, 5);
    invited(&mut zoe);
    server.expect_no_errors();
}

#[test]
fn a_reservation_reaches_an_absent_player_and_lifts_a_ban() {
    let server = Server::start(&[]);
    let (mut ann, [mut bob], room) = room_of(&server, "relay", public(), ["Bob"]);
    ann.kick(1, "Bob").expect("the owner may");
    removed(&mut bob);
    bob.disconnect_abruptly();
    eventually("bob is away", || server.handler_of("Bob").is_none());
    ann.reserve("bob").expect("the owner may");
    assert_eq!(invited(&mut bob).0, room);
    assert_eq!(bob.join_room(room, None).expect("pardoned").seat, Some(1));
}

#[test]
fn a_reservation_ends_when_its_seat_is_removed() {
    let server = Server::start(&[]);
    let (mut ann, [], _) = room_of(&server, "tictactoe", public(), []);
    let _bob = server.client("Bob");
    ann.reserve("Bob").expect("the owner may");
    // A reserved seat delays the match like any other free seat.
    ann.ready(true).expect("not yet started");
    assert_eq!(picture(&mut ann).phase, Phase::Waiting);
    ann.leave().expect("in a room");
    let (mut cyd, [], _) = room_of_cyd(&server);
    cyd.reserve("Bob").expect("the owner may");
    cyd.configure(RoomSettings { seats: 2, ..public() })
        .expect("the owner may");
    assert_eq!(picture(&mut cyd).reservations.len(), 1);
    cyd.reserve("Ann").expect_err("no other seat is free");
    cyd.configure(RoomSettings { seats: 3, ..public() })
        .expect("the owner may");
    cyd.reserve("Ann").expect("the owner may");
    cyd.configure(RoomSettings { seats: 2, ..public() })
        .expect("the owner may");
    expect_event(&mut cyd, &RoomEvent::ReservationOver { seat: 2 });
    assert_eq!(picture(&mut cyd).reservations.len(), 1);
}

fn room_of_cyd(server: &Server) -> (Client, [Client; 0], RoomId) {
    let mut cyd = server.client("Cyd");
    let room = cyd
        .create_room(NewRoom::new("eights", "table"))
        .expect("a room is free")
        .room;
    (cyd, [], room)
}

#[test]
fn invitations_are_limited_by_rate_and_mailbox() {
    let server = Server::start(&["--chat-burst", "3", "--chat-per-minute", "1"]);
    let (mut ann, [], _) = room_of(&server, "relay", public(), []);
    let _zoe = server.client("Zoe");
    for _ in 0..3 {
        ann.reserve("Zoe").expect("the owner may");
    }
    assert_eq!(rejection(ann.reserve("Zoe")), RejectCode::ChatTooFast);

    // With a full mailbox, no seat is reserved either.
    let server = Server::start(&["--chat-per-minute", "0"]);
    let (mut ann, [], _) = room_of(&server, "relay", public(), []);
    let mut zoe = server.client("Zoe");
    zoe.disconnect_abruptly();
    eventually("zoe is away", || server.handler_of("Zoe").is_none());
    let refused = std::iter::repeat_with(|| ann.reserve("Zoe"))
        .take(1000)
        .find_map(Result::err)
        .expect("a mailbox has an end");
    assert_eq!(refused.reject_code(), Some(RejectCode::MailboxFull));
    let kept = picture(&mut ann).reservations.len();
    assert_eq!(kept, 1, "as it was");
    invited(&mut zoe);
}

#[test]
fn a_failed_reservation_leaves_an_earlier_one_unchanged() {
    // The watchdog ignores stopped processes.
    let server = Server::start(&["--seat-reservation-ms", "60000", "--watchdog-cpu-ms", "0"]);
    let (mut ann, [], _) = room_of(&server, "relay", public(), []);
    let _zoe = server.client("Zoe");
    ann.reserve("Zoe").expect("the owner may");
    // Her player is expiring and can get no mail any more. Her handler is stopped, so that the player still
    // exists.
    let handler = server.handler_of("Zoe").expect("she has one");
    server.signal(handler, Signal::SIGSTOP);
    server.ask("kick Zoe");
    let left_ms = picture(&mut ann).reservations[0].milliseconds;
    let refused = ann.reserve("Zoe");
    let kept = picture(&mut ann).reservations;
    server.signal(handler, Signal::SIGCONT);
    assert_eq!(rejection(refused), RejectCode::UnknownPlayer);
    assert_eq!(kept.len(), 1, "as it was");
    assert!(kept[0].milliseconds <= left_ms, "and for no longer");
}
