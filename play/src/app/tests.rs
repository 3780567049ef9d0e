//! The client without a terminal and without a server.

mod screens;

use std::time::Duration;

use forkade_protocol::{
    ChatScope, ErrorCode, GameInfo, Outcome, Phase, PlayerId, RejectCode, RoomEvent, RoomId, RoomRules,
    RoomSummary, SeatInfo, ServerMessage, Snapshot, Token, Turn, codec,
};

use crate::app::*;
use crate::connection::ConnectionEvent;
use crate::screen;
use forkade_games::eights::Eights;
use forkade_games::tictactoe::{Board, Placed, TicTacToe};

fn games() -> Games {
    let mut games = Games::new();
    games.add::<TicTacToe>().expect("the first");
    games.add::<Eights>().expect("the second");
    games
}

fn greeted<'g>(games: &'g Games, startup_action: StartupAction) -> App<'g> {
    let mut app = App::new(games, "127.0.0.1:4000", startup_action);
    let games = ["tictactoe", "mystery"].map(|name| GameInfo {
        name: name.into(),
        seats_min: 2,
        seats_max: 2,
        ticks_per_second: 0,
    });
    let welcome = ServerMessage::Welcome {
        version: 1,
        token: Token([7; 16]),
        player: PlayerId(1),
        name: "Ann".into(),
        limits: Limits {
            frame_bytes_max: 8192,
            name_bytes_max: 96,
            chat_bytes_max: 500,
            confirm_every_bytes: 4096,
            heartbeat_timeout_ms: 30_000,
            seat_grace_ms: 60_000,
        },
        games: games.into(),
    };
    hear(&mut app, welcome);
    app
}

fn hear(app: &mut App<'_>, message: ServerMessage) {
    app.on_event(ConnectionEvent::Message(message), 0);
}

fn event(app: &mut App<'_>, number: u64, event: RoomEvent) {
    hear(app, ServerMessage::Event { number, event });
}

fn say(app: &mut App<'_>, line: &str) -> Vec<ClientMessage> {
    for character in line.chars() {
        app.on_key(Key::Character(character), 0);
    }
    app.on_key(Key::Enter, 0);
    asked(app)
}

/// The requests so far, except those for lists of rooms.
fn asked(app: &mut App<'_>) -> Vec<ClientMessage> {
    let mut messages = app.take_messages();
    messages.retain(|message| !matches!(message, ClientMessage::ListRooms { .. }));
    messages
}

fn snapshot(game: &str, phase: Phase) -> Snapshot {
    let seat = |name: &str| {
        Some(SeatInfo {
            name: name.into(),
            connected: true,
            ready: false,
        })
    };
    let board = Board {
        cells: [None; 9],
        next: 0,
    };
    Snapshot {
        room: RoomId(4 << 32),
        game: game.into(),
        name: "A duel".into(),
        phase,
        seat: Some(0),
        seats: vec![seat("Ann"), seat("Bob")],
        spectators: 0,
        event: 10,
        view: match phase {
            Phase::Waiting => Vec::new(),
            _ => codec::encode(&board).expect("a view"),
        },
        owner: Some(0),
        rules: RoomRules {
            seats: 2,
            ..RoomRules::default()
        },
        reservations: Vec::new(),
        turn: None,
    }
}

fn in_room<'g>(games: &'g Games, game: &str, phase: Phase) -> App<'g> {
    let mut app = greeted(games, StartupAction::ShowLobby);
    let snapshot = snapshot(game, phase);
    let picture = ServerMessage::PictureToMove {
        request: 1,
        snapshot: snapshot.clone(),
        to_move: None,
    };
    hear(&mut app, ServerMessage::Joined { request: 0, snapshot });
    hear(&mut app, picture);
    app.take_messages();
    app
}

fn seen_at(app: &App<'_>, size: (usize, usize)) -> String {
    let lines = screen::draw(app, size, 0).lines;
    lines.iter().map(|line| line.text() + "\n").collect()
}

fn seen(app: &App<'_>) -> String {
    seen_at(app, (100, 30))
}

#[track_caller]
fn expect_seen(app: &App<'_>, text: &str) {
    assert!(seen(app).contains(text), "no {text:?} in\n{}", seen(app));
}

#[test]
fn pressing_enter_alone_starts_a_match() {
    let games = games();
    let mut app = greeted(&games, StartupAction::ShowLobby);
    expect_seen(&app, "new room: tictactoe");
    let asked = say(&mut app, "");
    assert!(
        matches!(&asked[..], [ClientMessage::CreateRoom { game, name, .. }] if game == "tictactoe" && name == "Ann's room"),
        "{asked:?}"
    );
    let snapshot = snapshot("tictactoe", Phase::Waiting);
    hear(&mut app, ServerMessage::Joined { request: 0, snapshot });
    expect_seen(&app, "Enter: ready");
    assert_eq!(
        say(&mut app, ""),
        [ClientMessage::Ready {
            request: 0,
            ready: true
        }]
    );
    event(&mut app, 11, RoomEvent::Ready { seat: 0, ready: true });
    expect_seen(&app, "Ann (you), owner, ready");
    assert_eq!(say(&mut app, ""), [], "what is said already is not said again");
}

#[test]
fn the_chosen_room_is_joined_or_watched() {
    let games = games();
    let mut app = greeted(&games, StartupAction::ShowLobby);
    app.run_timers(0);
    let Some(ClientMessage::ListRooms { request, .. }) = app.take_messages().pop() else {
        panic!("the list was not asked for")
    };
    let room = |index: u64, taken| RoomSummary {
        room: RoomId(1 << 32 | index),
        game: "tictactoe".into(),
        name: format!("Table {index}"),
        phase: Phase::Waiting,
        seats: 2,
        taken,
        spectators: 0,
        passcode: false,
    };
    let rooms = vec![room(0, 1), room(1, 2)];
    hear(
        &mut app,
        ServerMessage::Rooms {
            request,
            rooms,
            next: None,
        },
    );
    expect_seen(&app, "Table 1");
    app.on_key(Key::Down, 0);
    let asked = say(&mut app, "");
    assert!(
        matches!(
            asked[..],
            [ClientMessage::Spectate {
                room: RoomId(0x1_0000_0001),
                ..
            }]
        ),
        "{asked:?}"
    );
    app.on_key(Key::Up, 0);
    let asked = say(&mut app, "");
    assert!(
        matches!(
            asked[..],
            [ClientMessage::JoinRoom {
                room: RoomId(0x1_0000_0000),
                ..
            }]
        ),
        "{asked:?}"
    );
    let asked = say(&mut app, "/join 2");
    assert!(
        matches!(
            asked[..],
            [ClientMessage::JoinRoom {
                room: RoomId(0x1_0000_0001),
                ..
            }]
        ),
        "{asked:?}"
    );
    assert_eq!(say(&mut app, "join 77"), []);
    expect_seen(&app, "There is no room 77");
}

#[test]
fn a_move_is_sent_and_the_view_is_requested_once() {
    let games = games();
    let mut app = in_room(&games, "tictactoe", Phase::Playing);
    let action = codec::encode(&4_u8).expect("an action");
    assert_eq!(say(&mut app, "4"), [ClientMessage::Act { request: 0, action }]);
    assert_eq!(say(&mut app, "nonsense"), []);
    expect_seen(&app, "type the number of a free cell");

    let placed = |seat, cell| RoomEvent::Game {
        data: codec::encode(&Placed { seat, cell }).expect("an event"),
    };
    event(&mut app, 11, placed(0, 4));
    event(&mut app, 12, placed(1, 0));
    let asked_for = asked(&mut app);
    assert!(
        matches!(asked_for[..], [ClientMessage::Look { .. }]),
        "one question at a time: {asked_for:?}"
    );
    let mut snapshot = snapshot("tictactoe", Phase::Playing);
    let mut cells = [None; 9];
    cells[4] = Some(0);
    snapshot.view = codec::encode(&Board { cells, next: 1 }).expect("a view");
    snapshot.event = 11;
    hear(&mut app, ServerMessage::Picture { request: 1, snapshot });
    expect_seen(&app, " 3 | X | 5");
    expect_seen(&app, "O is to move");
    let asked_for = asked(&mut app);
    assert!(
        matches!(asked_for[..], [ClientMessage::Look { .. }]),
        "something had happened since: {asked_for:?}"
    );
}

#[test]
fn the_player_to_move_is_told_so() {
    let games = games();
    let mut app = in_room(&games, "tictactoe", Phase::Waiting);
    let snapshot = snapshot("tictactoe", Phase::Playing);
    let started = ServerMessage::Started {
        snapshot: snapshot.clone(),
    };
    hear(&mut app, started);
    let asked_for = asked(&mut app);
    assert!(
        matches!(asked_for[..], [ClientMessage::Look { .. }]),
        "only the answer says it: {asked_for:?}"
    );
    assert!(!seen(&app).contains("It is your move."));
    let picture = |app: &mut App<'_>, to_move| {
        let snapshot = snapshot.clone();
        hear(
            app,
            ServerMessage::PictureToMove {
                request: 1,
                snapshot,
                to_move,
            },
        );
    };
    picture(&mut app, Some(0));
    expect_seen(&app, "It is your move.");
    expect_seen(&app, "▸ seat 0");
    picture(&mut app, Some(1));
    assert!(!seen(&app).contains("It is your move."));
    expect_seen(&app, "▸ seat 1");
    picture(&mut app, Some(0));
    let outcome = Outcome::Draw;
    event(&mut app, 11, RoomEvent::Finished { outcome });
    assert!(!seen(&app).contains("It is your move."));
}

#[test]
fn an_event_that_the_snapshot_contains_is_shown_but_changes_nothing() {
    let games = games();
    let mut app = in_room(&games, "tictactoe", Phase::Playing);
    event(
        &mut app,
        9,
        RoomEvent::Finished {
            outcome: Outcome::Draw,
        },
    );
    expect_seen(&app, "the match is on");
    expect_seen(&app, "A draw.");
    event(
        &mut app,
        11,
        RoomEvent::Finished {
            outcome: Outcome::Draw,
        },
    );
    expect_seen(&app, "the match is over");
}

#[test]
fn a_lost_reply_is_not_waited_for() {
    let games = games();
    let mut app = in_room(&games, "tictactoe", Phase::Playing);
    let left = || RoomEvent::TurnTimedOut { seat: 1 };
    event(&mut app, 11, left());
    assert_eq!(asked(&mut app).len(), 1);
    let mut now = snapshot("tictactoe", Phase::Playing);
    now.event = 20;
    hear(&mut app, ServerMessage::Resync { snapshot: Some(now) });
    event(&mut app, 21, left());
    assert_eq!(
        asked(&mut app).len(),
        1,
        "the answer to the first question will not come"
    );
    hear(&mut app, ServerMessage::Resync { snapshot: None });
    assert!(app.is_in_lobby());
}

#[test]
fn an_unknown_game_is_reported_and_its_events_are_shown_as_bytes() {
    let games = games();
    let mut app = in_room(&games, "mystery", Phase::Playing);
    expect_seen(&app, "does not know the game");
    let data = vec![1, b'a', 0x1b];
    event(&mut app, 11, RoomEvent::Game { data });
    expect_seen(&app, "3 bytes: \\x01a\\x1b");
    app.take_messages();
    assert_eq!(say(&mut app, "4"), []);
    expect_seen(&app, "does not know the game mystery");
    let asked = say(&mut app, "say hello");
    assert!(
        matches!(&asked[..], [ClientMessage::Chat { scope: ChatScope::Room, text, .. }] if text == "hello")
    );
}

#[test]
fn an_invalid_view_is_not_drawn_and_nothing_breaks() {
    let games = games();
    let mut app = in_room(&games, "tictactoe", Phase::Playing);
    let mut snapshot = snapshot("tictactoe", Phase::Playing);
    snapshot.view = vec![0xff; 40];
    snapshot.seat = Some(200);
    hear(&mut app, ServerMessage::Picture { request: 1, snapshot });
    expect_seen(&app, "cannot draw itself");
}

#[test]
fn outside_of_a_match_a_typed_line_is_chat() {
    let games = games();
    let mut app = in_room(&games, "tictactoe", Phase::Waiting);
    let asked = say(&mut app, "hello there");
    assert!(
        matches!(&asked[..], [ClientMessage::Chat { scope: ChatScope::Room, text, .. }] if text == "hello there")
    );
    let asked = say(&mut app, "/tell \"Bob B\" hi");
    assert!(
        matches!(&asked[..], [ClientMessage::Chat { scope: ChatScope::Whisper { to }, .. }] if to == "Bob B")
    );
    assert_eq!(
        say(&mut app, &format!("say {}", "é".repeat(251))),
        [],
        "502 bytes are too many"
    );
    assert_eq!(say(&mut app, "/dance"), [], "a command that is none is not said");
}

#[test]
fn the_rooms_settings_that_are_not_changed_stay() {
    let games = games();
    let mut app = in_room(&games, "tictactoe", Phase::Waiting);
    let rules = RoomRules {
        seats: 2,
        unlisted: true,
        turn_seconds: 30,
        ..RoomRules::default()
    };
    event(&mut app, 11, RoomEvent::Configured { rules });
    let asked = say(&mut app, "/set spectators=no passcode=sesame");
    let [ClientMessage::Configure { settings, .. }] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!(
        (
            settings.unlisted,
            settings.no_spectators,
            settings.turn_seconds,
            settings.seats
        ),
        (true, true, 30, 2)
    );
    let rules = RoomRules {
        seats: 2,
        passcode: true,
        ..RoomRules::default()
    };
    event(&mut app, 12, RoomEvent::Configured { rules: rules.clone() });
    let asked = say(&mut app, "/set turn=10");
    assert!(
        matches!(&asked[..], [ClientMessage::Configure { settings, .. }] if settings.passcode.as_deref() == Some("sesame"))
    );
    let mut app = in_room(&games, "tictactoe", Phase::Waiting);
    event(&mut app, 11, RoomEvent::Configured { rules });
    assert_eq!(say(&mut app, "/set turn=10"), [], "the passcode would be lost");
    expect_seen(&app, "say passcode=WORD as well");
}

#[test]
fn players_are_addressed_by_name() {
    let games = games();
    let mut app = in_room(&games, "tictactoe", Phase::Waiting);
    let (request, seat, name) = (0, 1, "Bob".to_owned());
    let kick = [ClientMessage::Kick { request, seat, name }];
    assert_eq!(say(&mut app, "/kick bob"), kick);
    assert_eq!(say(&mut app, "/kick 1"), []);
    assert_eq!(say(&mut app, "/kick Eve"), []);
}

#[test]
fn clocks_count_down() {
    let games = games();
    let mut app = in_room(&games, "tictactoe", Phase::Playing);
    assert_eq!(app.next_change_ms(1), None, "nothing changes by itself");
    let mut snapshot = snapshot("tictactoe", Phase::Playing);
    snapshot.turn = Some(Turn {
        seat: 1,
        milliseconds: 20_000,
    });
    let picture = ServerMessage::Picture { request: 1, snapshot };
    app.on_event(ConnectionEvent::Message(picture), 500);
    let at = |app: &App<'_>, now_ms| {
        let lines = screen::draw(app, (100, 30), now_ms).lines;
        lines.iter().map(|line| line.text() + "\n").collect::<String>()
    };
    assert!(at(&app, 500).contains("Bob, 20 s left"), "{}", at(&app, 500));
    assert!(at(&app, 5501).contains("Bob, 15 s left"));
    assert!(at(&app, 90_000).contains("Bob, 0 s left"));
    assert_eq!(app.next_change_ms(1500), Some(2000));
}

#[test]
fn a_lost_connection_is_shown_until_it_is_back() {
    let games = games();
    let mut app = in_room(&games, "tictactoe", Phase::Playing);
    let lost = ConnectionEvent::Lost {
        cause: "pulled".into(),
        retry_for: Duration::from_secs(65),
    };
    app.on_event(lost, 0);
    let title = screen::draw(&app, (100, 30), 3100).lines[0].text();
    assert!(title.ends_with("reconnecting, 3 s (up to 65 s)"), "{title}");
    hear(
        &mut app,
        ServerMessage::Resumed {
            received: 1,
            resuming_at: 1,
        },
    );
    assert!(
        screen::draw(&app, (100, 30), 3100).lines[0]
            .text()
            .ends_with(" connected")
    );
    app.connection_ended(SessionEnd::Closed(ErrorCode::TokenUnknown, "no session".into()));
    assert!(matches!(app.exit_reason(), Some(ExitReason::SessionEnded(why)) if why.contains("no session")));
}

#[test]
fn in_a_match_one_key_does_not_quit() {
    let games = games();
    let mut app = in_room(&games, "tictactoe", Phase::Playing);
    app.on_key(Key::Interrupt, 0);
    assert_eq!(app.exit_reason(), None);
    app.on_key(Key::Left, 0);
    app.on_key(Key::Interrupt, 0);
    assert_eq!(app.exit_reason(), None, "it was another key in between");
    app.on_key(Key::Interrupt, 0);
    assert_eq!(app.exit_reason(), Some(&ExitReason::Quit));
    let mut app = greeted(&games, StartupAction::ShowLobby);
    app.on_key(Key::EndOfInput, 0);
    assert_eq!(app.exit_reason(), Some(&ExitReason::Quit));
}

#[test]
fn the_action_of_the_command_line_is_requested_first() {
    let games = games();
    let mut app = greeted(&games, StartupAction::QuickMatch("eights".into()));
    assert!(matches!(&asked(&mut app)[..], [ClientMessage::QuickMatch { game, .. }] if game == "eights"));
    let startup_action = StartupAction::Join {
        number: 1 << 32,
        watch: true,
    };
    let mut app = greeted(&games, startup_action);
    assert!(matches!(
        asked(&mut app)[..],
        [ClientMessage::Spectate {
            room: RoomId(0x1_0000_0000),
            ..
        }]
    ));
    let startup_action = StartupAction::Join {
        number: 1,
        watch: false,
    };
    let mut app = greeted(&games, startup_action);
    app.run_timers(0);
    let [ClientMessage::ListRooms { request, .. }] = app.take_messages()[..] else {
        panic!("the list was not asked for")
    };
    let rooms = ServerMessage::Rooms {
        request,
        rooms: Vec::new(),
        next: None,
    };
    hear(&mut app, rooms);
    assert_eq!(asked(&mut app), []);
    expect_seen(&app, "There is no room 1");
}

#[test]
fn tab_completes_commands_and_games() {
    let games = games();
    let mut app = greeted(&games, StartupAction::ShowLobby);
    for (typed, completed) in [
        ("/cr", "/create "),
        ("rem", "rematch "),
        ("re", "re"),
        ("quick ti", "quick tictactoe "),
        ("say t", "say t"),
    ] {
        app.input.replace(typed);
        app.on_key(Key::Tab, 0);
        assert_eq!(app.input.text(), completed);
    }
}
