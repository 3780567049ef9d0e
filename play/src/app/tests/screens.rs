//! The contents of screens of all sizes.

use proptest::prelude::*;

use crate::app::tests::*;

#[test]
fn a_scrolled_log_stays_where_it_is_when_lines_arrive() {
    let games = games();
    let mut app = in_room(&games, "tictactoe", Phase::Waiting);
    for number in 0..2 * PLAY_LOG_LINES_MAX {
        let (from, text) = ("Bob".to_owned(), format!("line {number}."));
        event(&mut app, 11 + number as u64, RoomEvent::Chat { from, text });
    }
    assert_eq!(app.log().len(), PLAY_LOG_LINES_MAX);
    expect_seen(&app, "line 999.");
    app.on_key(Key::PageUp, 0);
    assert!(!seen(&app).contains("line 999."));
    let before = seen(&app);
    let (from, text) = ("Bob".to_owned(), "one more".to_owned());
    event(&mut app, 5000, RoomEvent::Chat { from, text });
    assert_eq!(seen(&app), before);
    app.on_key(Key::PageDown, 0);
    app.on_key(Key::PageDown, 0);
    expect_seen(&app, "one more");
}

#[test]
fn help_can_be_read_on_a_small_screen() {
    let games = games();
    let mut app = greeted(&games, StartupAction::ShowLobby);
    app.on_key(Key::Function(1), 0);
    let mut read = seen_at(&app, (80, 12));
    for _ in 0..10 {
        app.on_key(Key::PageDown, 0);
        read.push_str(&seen_at(&app, (80, 12)));
    }
    for text in ["quick GAME", "reserve NAME", "Ctrl-C                 quits"] {
        assert!(read.contains(text), "{text}");
    }
    app.on_key(Key::Enter, 0);
    assert_eq!(app.help, None);
    assert_eq!(asked(&mut app), [], "the key that closes help does nothing else");
}

fn rejected(code: RejectCode) -> ServerMessage {
    ServerMessage::Rejected {
        request: 0,
        code,
        text: "no\u{1b}[2J".into(),
    }
}

proptest! {
    /// With any names, texts, keys and sizes: every row is there, none is too long, the cursor is on the screen, and no
    /// control character is shown.
    #[test]
    fn the_contents_fit_every_screen(
        (columns, rows) in (0_usize..140, 0_usize..60),
        name in any::<String>(),
        text in any::<String>(),
        typed in "\\PC{0,80}",
        (place, help, scrolled) in (0_u8..5, any::<bool>(), 0_usize..8),
    ) {
        let games = games();
        let mut app = match place {
            0 => App::new(&games, &name, StartupAction::ShowLobby),
            1 => greeted(&games, StartupAction::ShowLobby),
            2 => in_room(&games, "tictactoe", Phase::Waiting),
            3 => in_room(&games, "tictactoe", Phase::Playing),
            _ => in_room(&games, &name, Phase::Finished),
        };
        app.name.clone_from(&name);
        hear(&mut app, rejected(RejectCode::NotYourTurn));
        event(&mut app, 11, RoomEvent::Joined { seat: 1, name: name.clone() });
        event(&mut app, 12, RoomEvent::Chat { from: name.clone(), text: text.clone() });
        hear(&mut app, ServerMessage::Chat { scope: ChatScope::Whisper { to: name.clone() }, from: name.clone(), text });
        for character in typed.chars() {
            app.on_key(Key::Character(character), 0);
        }
        for _ in 0..scrolled {
            app.on_key(Key::PageUp, 0);
        }
        if help {
            app.on_key(Key::Function(1), 0);
        }
        let picture = screen::draw(&app, (columns, rows), 1234);
        let rows = if columns == 0 { 0 } else { rows };
        prop_assert_eq!(picture.lines.len(), rows);
        for line in &picture.lines {
            prop_assert!(line.columns() <= columns, "{:?}", line);
            prop_assert!(!line.text().chars().any(char::is_control));
        }
        match picture.cursor {
            Some((column, row)) => prop_assert!(usize::from(column) < columns && usize::from(row) < rows),
            None => prop_assert_eq!(rows, 0),
        }
    }
}
