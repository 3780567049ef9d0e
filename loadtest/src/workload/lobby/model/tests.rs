//! What the model accepts and what it refuses.

use super::*;

const ROOM: RoomId = RoomId(7);

fn created() -> CreatedRoom {
    CreatedRoom {
        game: "relay".to_owned(),
        name: "a room".to_owned(),
        seats: 2,
        passcode: None,
    }
}

fn summary(taken: u8, spectators: u32) -> RoomSummary {
    RoomSummary {
        room: ROOM,
        game: "relay".to_owned(),
        name: "a room".to_owned(),
        phase: Phase::Playing,
        seats: 2,
        taken,
        spectators,
        passcode: false,
    }
}

/// Client 0 has had a seat since 10, client 1 has watched since 20.
fn model() -> Model {
    let mut model = Model::default();
    model.client_joined(ROOM, created, (0, "anna", Some(0)), 10);
    model.client_joined(ROOM, created, (1, "bert", None), 20);
    model
}

#[test]
fn a_count_may_lag_behind_only_to_the_time_of_the_request() {
    let mut model = model();
    assert_eq!(model.check_summary(&summary(1, 1), 20), Ok(()));
    assert_eq!(
        model.check_summary(&summary(1, 0), 19),
        Ok(()),
        "requested before client 1 had joined"
    );
    assert!(model.check_summary(&summary(1, 0), 20).is_err());
    assert!(model.check_summary(&summary(0, 1), 20).is_err());
    assert!(model.check_summary(&summary(2, 1), 20).is_err());
    model.add_pending_join(ROOM);
    assert_eq!(
        model.check_summary(&summary(2, 1), 20),
        Ok(()),
        "a client may have joined"
    );
    model.client_leaving(ROOM, 1);
    assert_eq!(
        model.check_summary(&summary(1, 0), 20),
        Ok(()),
        "client 1 may have left"
    );
    model.client_left(ROOM, 1, 30);
    assert_eq!(
        model.check_summary(&summary(1, 1), 30),
        Ok(()),
        "the request may have been handled first"
    );
    model.end_pending_join(ROOM, 31);
    assert!(model.check_summary(&summary(1, 1), 32).is_err());
}

#[test]
fn a_room_that_all_have_left_is_closed_unless_a_join_is_pending() {
    let mut model = model();
    model.add_pending_join(ROOM);
    model.client_left(ROOM, 0, 30);
    model.client_left(ROOM, 1, 40);
    assert!(!model.was_closed(ROOM, 50) && model.room(ROOM).is_some());
    model.end_pending_join(ROOM, 60);
    assert!(model.was_closed(ROOM, 60) && !model.was_closed(ROOM, 59));
    assert!(
        model.check_summary(&summary(0, 0), 60).is_err(),
        "a room that had closed is listed"
    );
    assert_eq!(model.check_summary(&summary(0, 0), 59), Ok(()));
    model.forget_closed_before(61);
    assert!(!model.was_closed(ROOM, 60));
}

#[test]
fn altered_rooms_and_wrong_refusals_are_detected() {
    let model = model();
    for altered in [
        RoomSummary {
            seats: 3,
            ..summary(1, 1)
        },
        RoomSummary {
            passcode: true,
            ..summary(1, 1)
        },
        RoomSummary {
            game: "eights".to_owned(),
            ..summary(1, 1)
        },
        RoomSummary {
            phase: Phase::Waiting,
            ..summary(1, 1)
        },
    ] {
        assert!(model.check_summary(&altered, 20).is_err(), "{altered:?}");
    }
    let refused = |code| model.check_refusal(2, ROOM, false, code, 20);
    assert!(refused(RejectCode::RoomNotFound).is_err());
    assert!(refused(RejectCode::RoomFull).is_err(), "one seat is free");
    assert!(refused(RejectCode::WrongPasscode).is_err());
    assert_eq!(
        model.check_refusal(2, RoomId(8), false, RejectCode::RoomNotFound, 20),
        Ok(())
    );
}

#[test]
fn a_full_room_refuses_a_join_but_no_spectator() {
    let mut model = model();
    model.client_joined(ROOM, created, (2, "cleo", Some(1)), 25);
    model.add_pending_join(ROOM);
    assert_eq!(
        model.check_refusal(3, ROOM, false, RejectCode::RoomFull, 30),
        Ok(())
    );
    assert!(
        model
            .check_refusal(3, ROOM, true, RejectCode::RoomFull, 30)
            .is_err(),
        "a full room may be watched"
    );
}

#[test]
fn without_pending_requests_all_views_must_match_the_model() {
    let model = model();
    assert!(model.matches_view(ROOM, &[Some("anna".to_owned()), None]));
    assert!(!model.matches_view(ROOM, &[None, None]));
    assert!(!model.matches_view(ROOM, &[Some("anna".to_owned()), Some("bert".to_owned())]));
    assert!(!model.matches_view(RoomId(8), &[None, None]));
}
