//! Promise: a game whose code fails affects no other client. The request is rejected, the match stays as it
//! was, and the room and its process survive. Code that kills its process closes only the connection that
//! requested it.
//!
//! This program runs without the test harness because it is also the server: started with `serve`, it offers
//! games that fail.

mod changed_state;
#[path = "../common/mod.rs"]
mod common;
mod games;
mod many;
mod shown;
mod slow;
mod table;

use changed_state::{a_program_that_cannot_read_a_running_match_is_refused_with_game_and_room, with_ledger};
use common::rooms::rejection;
use common::text_client::TextClient;
use std::process::{Command, ExitCode};
use std::time::Duration;

use common::{Server, WAIT_MAX, eventually};
use forkade::games::relay::Relay;
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::{
    ClientMessage, Outcome, RejectCode, RoomEvent, RoomId, RoomSettings, ServerMessage, codec,
};
use games::{Clock, Deed, FailsIn, Fragile, NOBODYS_TURN, Sluggish, Unseen};
use many::{
    a_client_that_killed_a_shared_handler_stays_isolated_under_the_next_keeper,
    a_client_that_kills_a_shared_handler_is_soon_isolated_and_the_others_continue,
};
use shown::{
    a_match_that_cannot_be_shown_goes_on_without_pictures_and_no_player_loses_a_connection,
    options_that_cannot_be_described_cost_the_room_its_pictures_and_nobody_a_connection,
};
use slow::{
    a_room_whose_ticks_take_long_is_slowed_and_abandoned_and_others_tick_on,
    a_tick_that_never_ends_keeps_one_ticker_and_no_other_room,
    any_ticker_runs_the_rooms_of_another_that_stands_still,
    late_ticks_are_shown_by_status_and_for_their_room_by_top,
    ticks_that_sleep_in_as_many_rooms_as_there_are_tickers_are_ended,
};

/// Runs this program as a server.
fn start() -> Server {
    let this_program = std::env::current_exe().expect("a running program has a file");
    Server::run(Command::new(this_program).args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--console",
        "127.0.0.1:0",
    ]))
}

/// Ann and Bob in a room of the fragile game.
fn together(server: &Server) -> (Client, Client, RoomId) {
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let room = ann
        .create_room(NewRoom::new("fragile", "china shop"))
        .expect("a room is free")
        .room;
    bob.join_room(room, None).expect("a seat is free");
    (ann, bob, room)
}

fn deed(deed: &Deed) -> Vec<u8> {
    codec::encode(deed).expect("encodes")
}

/// The number in the next event of the game.
fn number(client: &mut Client) -> u32 {
    let is_game = |message: &ServerMessage| {
        matches!(
            message,
            ServerMessage::Event {
                event: RoomEvent::Game { .. },
                ..
            }
        )
    };
    match client
        .receive_where(WAIT_MAX, is_game)
        .expect("the session lives")
    {
        Some(ServerMessage::Event {
            event: RoomEvent::Game { data },
            ..
        }) => codec::decode(&data).expect("a number"),
        other => panic!("the game says nothing, but {other:?}"),
    }
}

fn room_failing_in(fails_in: FailsIn) -> NewRoom {
    NewRoom {
        settings: RoomSettings {
            options: codec::encode(&fails_in).expect("encodes"),
            ..RoomSettings::default()
        },
        ..NewRoom::new("fragile", "china shop")
    }
}

/// Every line of the log is a record, and one of them contains all of `parts`.
fn expect_logged(server: &Server, parts: &[&str]) {
    let is_it = |line: &str| parts.iter().all(|part| line.contains(part));
    eventually("the failure is in one record of the log", || {
        server.log().lines().any(is_it)
    });
    for line in server.log().lines() {
        assert!(
            line.contains(&format!("[{}]", pid_in(line))),
            "no record: {line:?}"
        );
    }
}

/// The pid in the first brackets of a record.
fn pid_in(line: &str) -> u32 {
    let pid = line
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']')?.0.parse().ok());
    pid.unwrap_or_else(|| panic!("no record: {line:?}"))
}

fn an_action_that_panics_is_rejected_and_room_and_process_survive() {
    let server = start();
    let (mut ann, mut bob, room) = together(&server);
    let handler = server.handler_of("Ann").expect("she is served");
    ann.act(deed(&Deed::Add(5))).expect("legal");
    let failing = [
        (
            Deed::Panic("a cup\nfell \u{1b}[31mdown".to_owned()),
            RejectCode::GameFailed,
        ),
        (Deed::PanicAfterEvents, RejectCode::GameFailed),
        (Deed::SaySoMuch, RejectCode::GameFailed),
        (Deed::WinWithoutASeat, RejectCode::GameFailed),
        (Deed::GrowTooLarge, RejectCode::StateTooLarge),
        (Deed::WinForSeat9, RejectCode::GameFailed),
        (Deed::TellSeat9, RejectCode::GameFailed),
    ];
    for (failing, expected) in failing {
        assert_eq!(rejection(ann.act(deed(&failing))), expected, "{failing:?}");
    }
    bob.act(deed(&Deed::Add(2))).expect("legal");
    for client in [&mut ann, &mut bob] {
        // No event of a failed action was delivered, and no change was kept.
        assert_eq!([number(client), number(client)], [5, 7]);
    }
    let seen = server
        .client("Carol")
        .spectate(room, None)
        .expect("spectators are allowed");
    assert_eq!(codec::decode::<u32>(&seen.view), Ok(7));
    assert_eq!(
        server.handler_of("Ann"),
        Some(handler),
        "the process that ran the code lives on"
    );
    assert_eq!(server.status("takeovers_total"), 0);
    let record = [
        "handler",
        "player=\"Ann\"",
        "panicked at tests/broken_games/games.rs",
        "a cup\\nfell \\u{1b}[31mdown",
        "called from",
    ];
    expect_logged(&server, &record);
    expect_logged(&server, &["handler", "nothing is there", "called from", "act"]);
    let panic = deed(&Deed::PanicAfterEvents);
    let hex: String = panic.iter().map(|byte| format!("{byte:02x}")).collect();
    let place = "act in room 1 (fragile, \"";
    let action = format!(
        ", seat 0 \"Ann\", action of {} bytes {hex}: panicked at",
        panic.len()
    );
    expect_logged(&server, &["handler", place, &action, "nothing is there"]);
    let failures = server.status("game_failures_total");
    let events = server.ask_json("events 100");
    let entered = events.as_array().expect("a list").iter();
    let entered = entered.filter(|event| event["kind"] == "failure").count();
    assert!(
        failures >= 6 && failures == entered as u64,
        "{failures}, {entered}"
    );
    let is_it = |event: &&serde_json::Value| {
        let what = event["what"].as_str().unwrap_or_default();
        event["kind"] == "failure" && what.ends_with("panicked: nothing is there")
    };
    let events = events.as_array().expect("a list");
    let failure = events.iter().find(is_it).expect("it is among the events");
    assert_eq!((&failure["room"], &failure["player"]), (&1.into(), &"Ann".into()));
    // From the author's code, and no further than that.
    let log = server.log();
    let backtrace = log
        .lines()
        .filter_map(|line| line.split_once("; called from "))
        .map(|(_, frames)| frames)
        .collect::<Vec<_>>();
    assert!(!backtrace.is_empty(), "{log}");
    for frames in backtrace {
        let first = frames.split(" < ").next().unwrap_or_default();
        assert!(first.contains("games.rs:"), "{frames}");
        assert!(
            !frames.contains("erased.rs")
                && !frames.contains("catch_panic")
                && !frames.contains("forkade::process"),
            "{frames}"
        );
    }
    for what in ["outcome", "event"] {
        let text = format!("its {what} names seat 9, and the match has 4 seats");
        expect_logged(&server, &["handler", "player=\"Ann\"", &text]);
    }
}

fn an_action_that_sleeps_is_logged_even_if_no_player_waits_for_it() {
    let server = start();
    let mut ann = server.client("Ann");
    ann.create_room(NewRoom::new("fragile", "alone"))
        .expect("a room is free");
    ann.act(deed(&Deed::Add(5))).expect("legal");
    assert!(!server.log().contains("took"), "{}", server.log());
    ann.act(deed(&Deed::Sleep)).expect("legal, though slow");
    expect_logged(
        &server,
        &["handler", "player=\"Ann\"", "act in room", ": it took 15"],
    );
}

fn what_a_player_types_is_parsed_with_the_view_and_a_failure_names_game_and_room() {
    let server = start();
    let (mut ann, bob, _) = together(&server);
    drop(bob);
    let mut cyd = TextClient::connect(&server);
    cyd.type_line("name Cyd");
    cyd.read_until("You are called Cyd now.");
    cyd.type_line("join 1");
    cyd.read_until("You are in room 1");
    ann.act(deed(&Deed::Add(5))).expect("legal");
    assert_eq!(number(&mut ann), 5);
    // He sees that the sum is 5.
    cyd.type_line("the same again");
    assert_eq!(number(&mut ann), 10);
    cyd.type_line("panic");
    cyd.read_until("No: ");
    let place = "parse_action in room 1 (fragile, \"china shop\"), seat 2 \"Cyd\": panicked at";
    expect_logged(&server, &["handler", "player=\"Cyd\"", place, "unspeakable"]);
    let events = server.ask_json("events");
    let is_it = |event: &serde_json::Value| {
        event["kind"] == "failure" && event["room"] == 1 && event["player"] == "Cyd"
    };
    assert!(events.as_array().expect("a list").iter().any(is_it), "{events}");
}

fn a_game_whose_constructor_fails_leaves_no_room_behind() {
    let server = start();
    let mut ann = server.client("Ann");
    for _ in 0..3 {
        assert_eq!(
            rejection(ann.create_room(room_failing_in(FailsIn::New))),
            RejectCode::GameFailed
        );
    }
    assert_eq!(server.status("rooms"), 0);
    ann.create_room(NewRoom::new("fragile", "china shop"))
        .expect("a room is free");
    expect_logged(&server, &["handler", "cannot be made"]);
}

fn a_game_whose_view_fails_keeps_its_players_in_the_room() {
    let server = start();
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let room = ann
        .create_room(room_failing_in(FailsIn::View))
        .expect("a room is free");
    assert!(room.view.is_empty());
    assert!(
        bob.join_room(room.room, None)
            .expect("a seat is free")
            .view
            .is_empty()
    );
    ann.act(deed(&Deed::Add(1))).expect("legal");
    assert_eq!((number(&mut ann), number(&mut bob)), (1, 1));
    expect_logged(&server, &["handler", "cannot be seen"]);
}

fn a_game_whose_leave_fails_is_over_and_releases_the_player() {
    let server = start();
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let room = ann
        .create_room(room_failing_in(FailsIn::Leave))
        .expect("a room is free")
        .room;
    bob.join_room(room, None).expect("a seat is free");
    bob.leave().expect("in the room");
    let is_end = |message: &ServerMessage| {
        matches!(
            message,
            ServerMessage::Event {
                event: RoomEvent::Finished { .. },
                ..
            }
        )
    };
    let end = ann.receive_where(WAIT_MAX, is_end).expect("the session lives");
    assert!(
        matches!(
            end,
            Some(ServerMessage::Event {
                event: RoomEvent::Finished {
                    outcome: Outcome::Abandoned
                },
                ..
            })
        ),
        "{end:?}"
    );
    bob.create_room(NewRoom::new("relay", "elsewhere"))
        .expect("a room is free");
    expect_logged(
        &server,
        &[
            "handler",
            "leave in room 1 (fragile, ",
            "seat 1 \"Bob\"",
            "cannot be left",
        ],
    );
}

fn a_turn_timeout_that_panics_ends_only_its_own_match() {
    let server = start();
    let mut players = [("Ann", FailsIn::Timeout), ("Bob", FailsIn::Nothing)].map(|(name, fails_in)| {
        let mut player = server.client(name);
        let mut wish = room_failing_in(fails_in);
        wish.settings.turn_seconds = 1;
        player.create_room(wish).expect("a room is free");
        player
    });
    let mut event = |player: usize, wanted: fn(&RoomEvent) -> bool| {
        let is_wanted =
            |message: &ServerMessage| matches!(message, ServerMessage::Event { event, .. } if wanted(event));
        players[player]
            .receive_where(WAIT_MAX, is_wanted)
            .expect("the session lives")
            .expect("it comes in time")
    };
    event(0, |event| {
        matches!(
            event,
            RoomEvent::Finished {
                outcome: Outcome::Abandoned
            }
        )
    });
    // The other player's turn times out repeatedly.
    for _ in 0..2 {
        event(1, |event| matches!(event, RoomEvent::TurnTimedOut { seat: 0 }));
        event(1, |event| matches!(event, RoomEvent::Turn { seat: 0, .. }));
    }
    expect_logged(
        &server,
        &[
            "ticker",
            "abandoned",
            "turn_timed_out in room ",
            "seat 0 \"Ann\"",
            "cannot be waited for",
        ],
    );
}

fn a_stopped_game_clock_is_reported() {
    let server = start();
    let mut ann = server.client("Ann");
    let mut wish = room_failing_in(FailsIn::Nothing);
    wish.settings.turn_seconds = 3600;
    ann.create_room(wish).expect("a room is free");
    let mut events_of = |deed_done: Deed| -> Vec<RoomEvent> {
        ann.act(deed(&deed_done)).expect("legal");
        let turn = ann.look().expect("in a room").turn.map(|turn| turn.seat);
        let heard = std::iter::from_fn(|| ann.receive(Duration::ZERO).expect("the session lives"));
        let events: Vec<RoomEvent> = heard
            .filter_map(|message| match message {
                ServerMessage::Event { event, .. } => Some(event),
                _ => None,
            })
            .filter(|event| !matches!(event, RoomEvent::Game { .. }))
            .collect();
        let is_running = matches!(events.last(), Some(RoomEvent::Turn { .. }));
        assert_eq!(turn, is_running.then_some(0), "{events:?}");
        events
    };
    let turn = RoomEvent::Turn {
        seat: 0,
        milliseconds: 3_600_000,
    };
    let one = || Deed::Add(1);
    assert_eq!(events_of(one()), std::slice::from_ref(&turn));
    assert_eq!(events_of(Deed::Add(NOBODYS_TURN - 1)), [RoomEvent::TurnStopped]);
    assert_eq!(events_of(Deed::Add(0)), [], "it stands still");
    assert_eq!(events_of(one()), [turn]);
}

fn a_kick_from_a_game_whose_leave_fails_ends_the_match() {
    let server = start();
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let room = ann
        .create_room(room_failing_in(FailsIn::Leave))
        .expect("a room is free")
        .room;
    bob.join_room(room, None).expect("a seat is free");
    ann.kick(1, "Bob").expect("the owner may");
    let is_removal = |message: &ServerMessage| matches!(message, ServerMessage::Removed { .. });
    assert!(
        bob.receive_where(WAIT_MAX, is_removal)
            .expect("the session lives")
            .is_some()
    );
    let is_end = |message: &ServerMessage| {
        matches!(
            message,
            ServerMessage::Event {
                event: RoomEvent::Finished {
                    outcome: Outcome::Abandoned
                },
                ..
            }
        )
    };
    assert!(
        ann.receive_where(WAIT_MAX, is_end)
            .expect("the session lives")
            .is_some()
    );
}

fn a_tick_that_panics_stops_only_its_own_clock() {
    let server = start();
    let ticker = |server: &Server| {
        let processes = server.ask_json("processes");
        let is_it = |process: &&serde_json::Value| process["role"] == "ticker";
        processes
            .as_array()
            .expect("a list")
            .iter()
            .find(is_it)
            .expect("there is one")["pid"]
            .clone()
    };
    let before = ticker(&server);
    let (mut ann, mut bob) = (server.client("Ann"), server.client("Bob"));
    let clock = |fails_at: u32| NewRoom {
        settings: RoomSettings {
            options: codec::encode(&fails_at).expect("encodes"),
            ..RoomSettings::default()
        },
        ..NewRoom::new("clock", "tower")
    };
    bob.create_room(clock(0)).expect("a room is free");
    ann.create_room(clock(3)).expect("a room is free");
    assert_eq!([number(&mut ann), number(&mut ann)], [1, 2]);
    let seen = number(&mut bob);
    while number(&mut bob) < seen + 20 {}
    let end = ann.receive_where(WAIT_MAX, |message| {
        matches!(
            message,
            ServerMessage::Event {
                event: RoomEvent::Finished {
                    outcome: Outcome::Abandoned
                },
                ..
            }
        )
    });
    assert!(matches!(end, Ok(Some(_))), "the players are told: {end:?}");
    ann.leave().expect("in the room");
    let after = ann.create_room(clock(0)).expect("a room is free");
    assert_eq!(after.phase, forkade_protocol::Phase::Playing);
    assert_eq!(number(&mut ann), 1);
    assert_eq!(ticker(&server), before, "the ticker lives on");
    expect_logged(
        &server,
        &[
            "ticker",
            "panicked at tests/broken_games/games.rs",
            "the spring is broken",
            "called from",
        ],
    );
}

fn a_program_has_its_authors_name_and_version() {
    let printed = |argument: &str| {
        let this_program = std::env::current_exe().expect("a running program has a file");
        let run = Command::new(this_program)
            .args(["without-command", argument])
            .output();
        String::from_utf8(run.expect("it can be run").stdout).expect("text")
    };
    let own = format!("7.1 (Forkade {})", env!("CARGO_PKG_VERSION"));
    assert_eq!(printed("--version"), format!("broken-games {own}\n"));
    assert!(
        printed("--help").contains("Usage: broken-games"),
        "{}",
        printed("--help")
    );
    let server = start();
    let mut ann = common::text_client::TextClient::connect(&server);
    ann.type_line("");
    ann.read_until("Welcome to broken-games 7.1. You are called");
    ann.ask("create relay \"my room\" seats=3");
    assert!(ann.ask("look").contains("room 1, \"my room\": relay"));
    let status = server.ask_json("status");
    assert_eq!(
        (status["program"].as_str(), status["version"].as_str()),
        (Some("broken-games"), Some(&*own))
    );
}

fn a_server_without_games_says_so() {
    let this_program = std::env::current_exe().expect("a running program has a file");
    let server = Server::run(Command::new(this_program).arg("serve-nothing"));
    server.expect_logged("this server has no games");
}

fn an_action_that_repeatedly_kills_its_process_closes_only_its_own_connection() {
    let server = start();
    let (mut ann, mut bob, _) = together(&server);
    let bobs_handler = server.handler_of("Bob").expect("he is served");
    ann.act(deed(&Deed::Add(5))).expect("legal");
    ann.send(&ClientMessage::Act {
        request: 9,
        action: deed(&Deed::Abort),
    })
    .expect("the session lives");
    // Bob is notified, and the game is as it was before.
    let is_loss = |message: &ServerMessage| {
        matches!(
            message,
            ServerMessage::Event {
                event: RoomEvent::Connection {
                    seat: 0,
                    connected: false
                },
                ..
            }
        )
    };
    assert_eq!(number(&mut bob), 5);
    assert!(
        bob.receive_where(WAIT_MAX, is_loss)
            .expect("the session lives")
            .is_some()
    );
    bob.act(deed(&Deed::Add(2))).expect("legal");
    assert_eq!(number(&mut bob), 7);
    assert_eq!(server.handler_of("Bob"), Some(bobs_handler));
    assert_eq!(server.status("blamed_total"), 1);
    assert_eq!(bob.counters().resumes, 0);
}

/// The server that this program is, too.
fn program() -> forkade::Server {
    let server = forkade::Server::new()
        .game::<Fragile>()
        .game::<Clock>()
        .game::<Unseen>()
        .game::<Sluggish>()
        .game::<Relay>();
    with_ledger(server).program("broken-games", "7.1")
}

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => return program().main(),
        Some("table") => {
            table::print();
            return ExitCode::SUCCESS;
        }
        Some("without-command") => return program().main_from(std::env::args_os().skip(1)),
        Some("serve-nothing") => {
            let arguments = ["x", "--listen", "127.0.0.1:0", "--console", "127.0.0.1:0"];
            return forkade::Server::new().main_from(arguments.map(Into::into));
        }
        _ => {}
    }
    run![
        an_action_that_panics_is_rejected_and_room_and_process_survive,
        a_program_has_its_authors_name_and_version,
        a_server_without_games_says_so,
        an_action_that_sleeps_is_logged_even_if_no_player_waits_for_it,
        a_game_whose_constructor_fails_leaves_no_room_behind,
        a_game_whose_view_fails_keeps_its_players_in_the_room,
        a_game_whose_leave_fails_is_over_and_releases_the_player,
        a_turn_timeout_that_panics_ends_only_its_own_match,
        a_stopped_game_clock_is_reported,
        a_kick_from_a_game_whose_leave_fails_ends_the_match,
        a_tick_that_panics_stops_only_its_own_clock,
        a_room_whose_ticks_take_long_is_slowed_and_abandoned_and_others_tick_on,
        a_tick_that_never_ends_keeps_one_ticker_and_no_other_room,
        any_ticker_runs_the_rooms_of_another_that_stands_still,
        late_ticks_are_shown_by_status_and_for_their_room_by_top,
        ticks_that_sleep_in_as_many_rooms_as_there_are_tickers_are_ended,
        what_a_player_types_is_parsed_with_the_view_and_a_failure_names_game_and_room,
        an_action_that_repeatedly_kills_its_process_closes_only_its_own_connection,
        a_client_that_kills_a_shared_handler_is_soon_isolated_and_the_others_continue,
        a_client_that_killed_a_shared_handler_stays_isolated_under_the_next_keeper,
        a_program_that_cannot_read_a_running_match_is_refused_with_game_and_room,
        options_that_cannot_be_described_cost_the_room_its_pictures_and_nobody_a_connection,
        a_match_that_cannot_be_shown_goes_on_without_pictures_and_no_player_loses_a_connection,
    ];
    ExitCode::SUCCESS
}

/// Runs the tests one after the other; those whose names contain the first argument, if there is one. A panic ends the
/// program with a failure status.
macro_rules! run {
    ($($test:ident),* $(,)?) => {
        let part = std::env::args().nth(1).unwrap_or_default();
        $(if stringify!($test).contains(&part) {
            println!("test {} ...", stringify!($test));
            $test();
        })*
    };
}
use run;
