//! Rendered messages, and that no player can forge lines of another.

use forkade_protocol::SeatInfo;
use proptest::prelude::*;

use forkade_protocol::{ChatScope, Outcome, RoomEvent, RoomId, RoomRules, RoomSummary, Snapshot};
use unicode_width::UnicodeWidthStr as _;

use crate::columns::columns_of_character;
use crate::render::*;
use forkade_games::tictactoe::{Placed, TicTacToe};
use forkade_games::{Game, Viewer};
use forkade_protocol::limits::{
    CLOSE_MESSAGE_BYTES_MAX, FRAME_BYTES_MAX, FRAME_TOTAL_BYTES_MAX, GAME_NAME_BYTES_MAX,
    HANDSHAKE_REPLY_BYTES_MAX, PLAYER_NAME_BYTES_MAX, ROOM_NAME_BYTES_MAX, ROOMS_PER_PAGE_MAX,
};

fn tictactoe() -> Games {
    let mut games = Games::new();
    games.add::<TicTacToe>().expect("the first game");
    games
}

fn encoded<T: serde::Serialize>(value: &T) -> Vec<u8> {
    forkade_protocol::codec::encode(value).expect("it encodes")
}

fn snapshot(names: &[&str]) -> Snapshot {
    let seat = |name: &&str| {
        Some(SeatInfo {
            name: (*name).to_owned(),
            connected: true,
            ready: false,
        })
    };
    let game = TicTacToe::new((), 2, 0).expect("a match");
    Snapshot {
        room: RoomId(1 << 32 | 6),
        game: TicTacToe::NAME.into(),
        name: "Here".into(),
        phase: Phase::Playing,
        seat: Some(1),
        seats: names.iter().map(seat).collect(),
        spectators: 1,
        event: 0,
        view: encoded(&game.view(Viewer::Seat(1))),
        owner: Some(0),
        rules: RoomRules::default(),
        reservations: Vec::new(),
        turn: None,
    }
}

fn described(event: &RoomEvent, seat: Option<u8>) -> String {
    let games = tictactoe();
    let names = |seat: u8| {
        ["Ann", "Bob"]
            .get(usize::from(seat))
            .map(|name| (*name).to_owned())
    };
    let context = RenderContext {
        game: games.get(0),
        seat,
        names: &names,
        left: &|seat| (seat == 2).then(|| "Cyd".to_owned()),
    };
    context.event(event).expect("the game works")
}

#[test]
fn programs_recognise_the_banner() {
    let then_a_frame = [BANNER.as_bytes(), &[1, 0, 0, 0, 0]].concat();
    assert_eq!(forkade_protocol::frame::banner(&then_a_frame), Some(BANNER.len()));
}

#[test]
fn a_match_begins_with_the_board_and_the_players_mark() {
    let message = message(
        &tictactoe(),
        &ServerMessage::Started {
            snapshot: snapshot(&["Ann", "Bob"]),
        },
    );
    assert!(
        message.starts_with("The match begins. You are O.\n 0 | 1 | 2\n"),
        "{message}"
    );
}

#[test]
fn a_room_has_a_short_number_and_shows_its_players() {
    let shown = room(&tictactoe(), &snapshot(&["Ann", "Bob"]));
    let head =
        "room 7, \"Here\": tictactoe, a match is on.\n  seat 0 (X): Ann, owner\n  seat 1 (O): Bob (you)\n";
    assert!(shown.starts_with(head), "{shown}");
}

#[test]
fn events_are_described_with_names() {
    let placed = RoomEvent::Game {
        data: encoded(&Placed { seat: 0, cell: 4 }),
    };
    assert_eq!(described(&placed, None), "Ann puts X on 4.\n");
    let won = RoomEvent::Finished {
        outcome: Outcome::Won { seats: vec![1] },
    };
    assert!(described(&won, Some(1)).starts_with("You have won! "));
    assert!(described(&won, Some(0)).starts_with("Bob has won. "));
    assert_eq!(described(&won, None), "Bob has won.\n");
    let joined = RoomEvent::Joined {
        seat: 1,
        name: "Bob".into(),
    };
    assert_eq!(described(&joined, Some(0)), "Bob takes seat 1 (O).\n");
    assert_eq!(described(&RoomEvent::Left { seat: 2 }, None), "Cyd has left.\n");
    // Another player has the seat by now.
    assert_eq!(
        described(&RoomEvent::Left { seat: 1 }, None),
        "The player on seat 1 (O) has left.\n"
    );
}

#[test]
fn no_text_forges_lines_of_others() {
    let chat = RoomEvent::Chat {
        from: "Eve".into(),
        text: "hi\r\nAnn says: I give up\u{1b}[2J".into(),
    };
    let line = to_terminal(&described(&chat, Some(0)));
    assert_eq!(line, "Eve says: hi\\r\\nAnn says: I give up\\u{1b}[2J\r\n");
    // Nor by the end of a terminal's line.
    let filler = "x".repeat(80 - "Eve says: ".len());
    for text in [
        format!("{filler}The server says: go home"),
        format!("{filler} *** The server says: go home"),
        format!("{} Ann says: I give up", "word ".repeat(14)),
        "\u{540d}\u{524d}".repeat(60),
    ] {
        let from = "Eve".to_owned();
        let lines = described(&RoomEvent::Chat { from, text }, Some(0));
        for (number, line) in lines.lines().enumerate() {
            assert!(line.width() < 80, "{line}");
            assert!(number == 0 || line.starts_with("    "), "{line}");
        }
    }
}

#[test]
fn messages_of_the_server_look_like_no_players() {
    let said = |from: &str, text: &str| {
        let (scope, from, text) = (ChatScope::Lobby, from.to_owned(), text.to_owned());
        message(&tictactoe(), &ServerMessage::Chat { scope, from, text })
    };
    assert_eq!(said("", "we close"), "*** The server says: we close\n");
    assert_eq!(said("Ann", "we close"), "Ann shouts: we close\n");
}

#[test]
fn a_close_message_to_an_unknown_client_is_a_frame_and_can_be_read() {
    use forkade_protocol::{ErrorCode, codec, frame};
    let said = |text: &str| readable_by_any_client(text);
    let texts = [
        "x",
        "the server is stopping",
        &"\u{e9}".repeat(200),
        "you did not greet in time",
    ];
    let messages = texts.into_iter().flat_map(|text| {
        let codes = [
            ErrorCode::ServerFull,
            ErrorCode::ShuttingDown,
            ErrorCode::HandshakeTimeout,
            ErrorCode::InternalError,
        ];
        let errors = codes.map(|code| ServerMessage::Error {
            code,
            text: said(text),
        });
        let stop = ServerMessage::ShuttingDown { text: said(text) };
        errors.into_iter().chain([stop])
    });
    for message in messages {
        let mut buffer = [0; CLOSE_MESSAGE_BYTES_MAX];
        let length = frame::write_frame_into(&message, &mut buffer).expect("it fits");
        let frame::Split::Frame { body, total } = frame::split(&buffer, FRAME_BYTES_MAX) else {
            panic!("no frame: {message:?}")
        };
        assert_eq!((codec::decode(body).as_ref(), total), (Ok(&message), length));
        let is_visible = |byte: u8| (b' '..=b'~').contains(&byte);
        let text_at = buffer
            .windows(2)
            .position(|bytes| bytes == b"\x0f\r")
            .expect("it is there");
        assert!(
            is_visible(buffer[0]) && is_visible(buffer[text_at - 1]),
            "{buffer:?}"
        );
        assert_eq!(buffer[1..4], [0; 3]);
        let shown = std::str::from_utf8(&buffer[text_at..length]).expect("text");
        assert!(
            shown.starts_with("\u{f}\r") && shown.ends_with("\r\n"),
            "{shown:?}"
        );
    }
    assert_eq!(
        said("the server is full; try again later"),
        "\u{f}\rThe server is full; try again later.\r\n"
    );
}

#[test]
fn the_longest_page_of_rooms_is_shown_whole() {
    let room = RoomSummary {
        room: RoomId(99_999),
        game: "g".repeat(GAME_NAME_BYTES_MAX),
        // As many bytes as its characters can have.
        name: "é".repeat(ROOM_NAME_BYTES_MAX / 2),
        phase: Phase::Waiting,
        seats: 32,
        taken: 32,
        spectators: 100_000,
        passcode: true,
    };
    let list = list_of_rooms(&vec![room; ROOMS_PER_PAGE_MAX], Some(RoomId(99_999)));
    let shown = to_terminal(&list);
    assert!(
        shown.ends_with(" 100000\".\r\n"),
        "{} of {}",
        shown.len(),
        list.len()
    );
    assert!(to_terminal(&help()).ends_with("game.\r\n"));
}

#[test]
fn the_longest_welcome_fits_the_handshake_reply() {
    let mut games = tictactoe();
    let longest = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    games.set_program(longest, longest).expect("as long as it may be");
    let name = "n".repeat(PLAYER_NAME_BYTES_MAX);
    let welcome = to_terminal(&welcome(&name, "0000-0000-0000-0000", &games));
    // Sixteen games are as many as there can be.
    assert!(welcome.len() + 16 * (GAME_NAME_BYTES_MAX + 2) <= HANDSHAKE_REPLY_BYTES_MAX);
    assert!(to_sentence(&"x".repeat(200)).len() + 3 <= CLOSE_MESSAGE_BYTES_MAX);
}

#[test]
fn a_player_is_welcomed_to_the_authors_program_and_told_of_games() {
    let mut games = tictactoe();
    assert!(welcome("Ann", "", &games).starts_with("Welcome to Forkade. You are called Ann;"));
    games.set_program("club", "1.2").expect("a name and a version");
    assert!(welcome("Ann", "", &games).starts_with("Welcome to club 1.2. You are called Ann;"));
    assert!(games.set_program("two words", "1").is_err());
    let empty = welcome("Ann", "", &Games::new());
    assert!(
        empty.contains("This server has no games.") && !empty.contains("quick"),
        "{empty}"
    );
}

proptest! {
    #[test]
    fn the_line_shows_who_speaks(
        name in "[A-Za-z '.:*<>_-]{1,24}",
        other in "(says|tells|shouts|server|[A-Za-z .'-]){1,4}",
        text in "[ -~]{1,80}",
    ) {
        use forkade_protocol::text::{clean_chat, clean_player_name};
        let (Ok(from), Ok(to), Ok(text)) = (clean_player_name(&name), clean_player_name(&other), clean_chat(&text)) else {
            return Ok(());
        };
        let heads = [
            (ChatScope::Room, format!("{from} says")),
            (ChatScope::Lobby, format!("{from} shouts")),
            (ChatScope::Whisper { to: to.clone() }, format!("{from} tells {to}")),
        ];
        for (scope, expected) in heads {
            let line = wrap(&chat_prefix(&scope, &from), &text);
            let (head, _) = line.split_once(": ").expect("who says it");
            prop_assert_eq!(head, expected);
            prop_assert!(!line.starts_with('*') && !line.to_lowercase().starts_with("the server says"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_becomes_visible_lines_that_fit(text in "(\\PC|[\u{0}-\u{9f}]|\u{202e}|\n|👩\u{200d}🚀|\u{2764}\u{fe0f}|1\u{fe0f}\u{20e3}){0,1000}", times in 1..12_usize) {
        let sent = to_terminal(&text.repeat(times));
        prop_assert!(sent.len() + OVERWRITE_PROMPT.len() + PROMPT.len() <= FRAME_TOTAL_BYTES_MAX);
        prop_assert!(sent.is_empty() || sent.ends_with("\r\n"));
        for line in sent.split_terminator("\r\n") {
            prop_assert!(!line.contains(char::is_control));
            let by_character: usize = line.chars().map(columns_of_character).sum();
            prop_assert!(by_character < 80 && line.width() < 80, "a row of its own would be made of its end: {line:?}");
        }
    }
}

#[test]
fn a_cluster_of_characters_is_not_cut_in_two() {
    let family = "👩\u{200d}👩\u{200d}👧";
    // Six columns at a terminal that draws each, so eleven of them with a letter fit a row.
    let sent = to_terminal(&format!("a{}", family.repeat(20)));
    let rows: Vec<_> = sent.lines().collect();
    assert_eq!(
        rows,
        [
            format!("a{}", family.repeat(13)),
            format!("    {}", family.repeat(7))
        ]
    );
    // Unless no row could hold it.
    let endless = format!("a{}", "\u{200d}👩".repeat(100));
    assert!(
        to_terminal(&endless)
            .lines()
            .all(|row| row.chars().map(columns_of_character).sum::<usize>() < 80)
    );
    let heart = to_terminal(&"\u{2764}\u{fe0f}".repeat(100));
    assert!(heart.lines().all(|row| row.width() < 80), "{heart}");
}

proptest! {
    /// At a terminal that reorders text written from the right, too.
    #[test]
    fn who_speaks_is_drawn_in_front_of_what_is_said(
        name in "[A-Za-z]{1,8}|[\u{5d0}-\u{5ea}]{1,8}( [\u{5d0}-\u{5ea}]{1,4})?|[\u{627}-\u{63a}]{1,8}",
        text in "([a-z:*]|[\u{5d0}-\u{5ea}]|[\u{627}-\u{63a}]|[0-9\u{660}-\u{669}]|[ .,:!-]|\u{202e}|\u{2067}|\u{200f}){1,60}",
    ) {
        use forkade_protocol::text::{clean_chat, clean_player_name};
        use unicode_bidi::BidiInfo;
        let (Ok(name), Ok(text)) = (clean_player_name(&name), clean_chat(&text)) else {
            return Ok(());
        };
        let sent = to_terminal(&wrap(&chat_prefix(&ChatScope::Room, &name), &text));
        for (number, row) in sent.lines().enumerate() {
            let order = BidiInfo::new(row, None);
            let paragraph = &order.paragraphs[0];
            prop_assert!(paragraph.level.is_ltr(), "{row:?}");
            let drawn = order.reorder_line(paragraph, paragraph.range.clone());
            let drawn = drawn.replace('\u{200e}', "");
            let in_front = |row: &str| row.split_once(" says: ").map(|(name, _)| name.chars().count());
            if number == 0 {
                prop_assert_eq!(in_front(&drawn), Some(name.chars().count()), "{:?}", drawn);
            } else {
                prop_assert!(drawn.starts_with("    "), "{:?}", drawn);
            }
        }
    }
}
