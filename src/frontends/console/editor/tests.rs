use proptest::prelude::*;

use crate::frontends::console::editor::*;
use forkade_text::telnet::Parser;

/// The one line of a terminal that the editor is concerned with.
#[derive(Default)]
struct Screen {
    line: Vec<char>,
    column: usize,
}

impl Screen {
    fn show(&mut self, text: &str) {
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '\r' => self.column = 0,
                '\n' => self.line.clear(),
                '\x07' => {}
                '\x1b' => {
                    assert_eq!((characters.next(), characters.next()), (Some('['), Some('K')));
                    self.line.truncate(self.column);
                }
                visible => {
                    assert!(!visible.is_control(), "{visible:?} is shown raw");
                    self.line.resize(self.line.len().max(self.column + 1), ' ');
                    self.line[self.column] = visible;
                    self.column += 1;
                }
            }
        }
    }

    fn line(&self) -> String {
        self.line.iter().collect()
    }
}

fn type_in(editor: &mut TerminalEditor, bytes: &[u8], out: &mut String) -> Vec<Edited> {
    let mut filter = Parser::default();
    let typed = bytes.iter().filter_map(|byte| filter.push(*byte));
    typed.filter_map(|typed| editor.push(typed, out)).collect()
}

fn lines(bytes: &[u8]) -> Vec<Edited> {
    type_in(&mut TerminalEditor::new(0), bytes, &mut String::new())
}

fn line(text: &str) -> Edited {
    Edited::Line(text.to_owned())
}

const UP: &[u8] = b"\x1b[A";
const DOWN: &[u8] = b"\x1b[B";

#[test]
fn the_usual_keys_do_what_they_do_elsewhere() {
    assert_eq!(lines(b"status\r\n"), [line("status")]);
    assert_eq!(lines(b"tatus\x01s\x05!\r\0"), [line("status!")]);
    assert_eq!(
        lines(b"stxatus\x1b[D\x1bOD\x1b[D\x1b[D\x7f\r\n"),
        [line("status")]
    );
    assert_eq!(lines(b"sxtatus\x1b[H\x1b[C\x1b[3~\x1b[F!\r\n"), [line("status!")]);
    assert_eq!(lines(b"a\x1b[1~b\x1b[4~c\x1b[7~d\x1b[8~e\r\n"), [line("dbace")]);
    assert_eq!(lines(b"kick bob now\x17\x17ann\r\n"), [line("kick ann")]);
    assert_eq!(lines(b"abcdef\x02\x02\x0b\r\n"), [line("abcd")]);
    assert_eq!(lines(b"abcdef\x02\x02\x15\r\n"), [line("ef")]);
    assert_eq!(lines(b"one two\x1bb\x1bb\x04\x1bf!\r\n"), [line("ne! two")]);
    assert_eq!(lines(b"a\x1b[1;5Cb\x1b[200~c\x1b[?25hd\r\n"), [line("abcd")]);
    assert_eq!(lines("kick Zoë\u{7f}e\r\n".as_bytes()), [line("kick Zoe")]);
}

#[test]
fn a_line_is_cancelled_and_an_empty_one_ends() {
    assert_eq!(lines(b"stop\x03status\r\n"), [Edited::Cancelled, line("status")]);
    assert_eq!(
        lines(&[b's', 255, 244, b'x', b'\r', 0]),
        [Edited::Cancelled, line("x")]
    );
    assert_eq!(lines(b"x\x04\x7f\x04"), [Edited::End]);
}

#[test]
fn history_goes_up_and_down_and_back_to_what_was_typed() {
    let typed = [
        b"one\r\ntwo\r\ntwo\r\ndra",
        UP,
        UP,
        UP,
        DOWN,
        b"!\r\n",
        UP,
        b"\r\nft",
    ]
    .concat();
    assert_eq!(
        lines(&[&typed[..], UP, DOWN, b"\r\n"].concat()),
        [
            line("one"),
            line("two"),
            line("two"),
            line("two!"),
            line("two!"),
            line("ft")
        ]
    );
    let mut editor = TerminalEditor::new(0);
    for number in 0..3 * CONSOLE_HISTORY_LINES_MAX {
        type_in(
            &mut editor,
            format!("{number}\r\n").as_bytes(),
            &mut String::new(),
        );
    }
    let oldest = type_in(
        &mut editor,
        &[UP.repeat(1000), b"\r\n".to_vec()].concat(),
        &mut String::new(),
    );
    assert_eq!(oldest, [line(&(2 * CONSOLE_HISTORY_LINES_MAX).to_string())]);
}

#[test]
fn what_is_no_visible_text_is_not_taken() {
    assert_eq!(lines("a\u{202e}b\u{9b}c\u{200b}d\r\n".as_bytes()), [line("abcd")]);
    assert_eq!(lines(b"a\xfeb\xc3(c\x80d\r\n"), [line("abcd")]);
    let mut out = String::new();
    let long = "x".repeat(CONSOLE_LINE_BYTES_MAX + 100) + "\r\n";
    let entered = type_in(&mut TerminalEditor::new(0), long.as_bytes(), &mut out);
    assert_eq!(entered, [line(&"x".repeat(CONSOLE_LINE_BYTES_MAX))]);
}

#[test]
fn a_window_of_any_size_shows_the_cursor_s_part_of_a_long_line() {
    for columns in [0, 1, 19, 20, 21, 80, u16::MAX] {
        let (mut editor, mut screen, mut out) = (TerminalEditor::new(0), Screen::default(), String::new());
        editor.resize(columns);
        editor.draw(&mut out);
        type_in(&mut editor, "0123456789".repeat(30).as_bytes(), &mut out);
        screen.show(&out);
        assert!(screen.line().ends_with("789"), "{columns}: {:?}", screen.line());
        assert!(columns < 20 || screen.line.len() < usize::from(columns));
        out.clear();
        type_in(&mut editor, b"\x01", &mut out);
        screen.show(&out);
        assert!(
            screen.line().starts_with("forkade> 012345"),
            "{columns}: {:?}",
            screen.line()
        );
        assert_eq!(screen.column, PROMPT.len());
    }
}

proptest! {
    /// Whatever is typed, the terminal shows the line and stands where the cursor is.
    #[test]
    fn the_screen_shows_the_line(
        keys in proptest::collection::vec(prop::sample::select(vec![
            &b"a"[..], b"b", b" ", b"x y", b"\x01", b"\x05", b"\x02", b"\x06", b"\x0b", b"\x15", b"\x17", b"\x0c", b"\x08", b"\x04",
            b"\t", b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[3~", b"\x1bb", b"\x1bf", b"\r\n", b"\x03", b"\x1b[99999999~", b"\x1b",
        ]), 0..200),
        columns in 20_u16..50,
    ) {
        let (mut editor, mut screen, mut out) = (TerminalEditor::new(0), Screen::default(), String::new());
        editor.resize(columns);
        editor.draw(&mut out);
        for key in keys {
            if !type_in(&mut editor, key, &mut out).is_empty() {
                editor.draw(&mut out);
            }
            screen.show(&out);
            out.clear();
            let shown = editor.window();
            let text: String = editor.line.characters(shown.clone()).iter().collect();
            prop_assert_eq!(screen.line(), format!("{PROMPT}{text}"));
            prop_assert_eq!(screen.column, PROMPT.len() + editor.line.cursor() - shown.start);
            prop_assert!(screen.column < usize::from(columns) && screen.line.len() < usize::from(columns));
        }
    }

    /// Without keys that move, the line is what was typed.
    #[test]
    fn text_comes_out_as_it_was_typed(text in "[a-z0-9 éß日🎲]{0,200}") {
        let entered = lines(format!("{text}\r\n").as_bytes());
        prop_assert_eq!(entered, [line(&text)]);
    }

    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000), columns in any::<u16>()) {
        let (mut editor, mut out) = (TerminalEditor::new(0), String::new());
        editor.resize(columns);
        for edited in type_in(&mut editor, &bytes, &mut out) {
            if let Edited::Line(line) = edited {
                prop_assert!(line.len() <= CONSOLE_LINE_BYTES_MAX && !line.contains(char::is_control));
            }
        }
        Screen::default().show(&out);
    }
}
