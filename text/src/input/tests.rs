//! Input in any pieces; garbage; what telnet mixes in.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::commands::{Command, ParseError, parse};
use crate::input::*;
use crate::limits::INPUT_RING_BYTES;
use crate::render;

const IAC: u8 = 255;
const DO: u8 = 253;
const WILL: u8 = 251;
const TIMING_MARK: u8 = 6;
const ARE_YOU_THERE: u8 = 246;

/// What came of the input so far, as a client would notice it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Line(Vec<u8>),
    TooLong,
}

/// A text player's input as it lies in the records: what processes do with it, one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Records {
    pending: Vec<u8>,
    state: InputState,
    refused: RefusedOptions,
    answered: usize,
    seen: Vec<Seen>,
    answers: Vec<u8>,
}

impl Records {
    fn arrives(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        assert!(
            self.pending.len() <= INPUT_RING_BYTES,
            "more waits than the ring holds"
        );
        while self.handle() {}
    }

    /// One transaction.
    fn handle(&mut self) -> bool {
        let (end, state) = match next_token(&self.pending, self.state, self.refused, self.answered) {
            Token::Incomplete => return false,
            Token::TelnetReply {
                replies,
                up_to,
                refused,
            } => {
                assert!(up_to > self.answered && up_to <= self.pending.len());
                self.answers.extend(replies);
                (self.answered, self.refused) = (up_to, refused);
                return true;
            }
            Token::Line { line, end, state } => {
                self.seen.push(Seen::Line(line));
                (end, state)
            }
            Token::LineTooLong { end, state } => {
                self.seen.push(Seen::TooLong);
                (end, state)
            }
            Token::Skip { end, state } => (end, state),
        };
        assert!(end > 0, "nothing was consumed");
        self.pending.drain(..end);
        self.answered = self.answered.saturating_sub(end);
        self.state = state;
        true
    }

    fn of(pieces: &[&[u8]]) -> Self {
        let mut records = Self::default();
        for piece in pieces {
            // No more than what the ring has space for.
            for piece in piece.chunks(TEXT_SKIP_BYTES_MIN) {
                records.arrives(piece);
            }
        }
        records
    }

    fn noticed(self) -> (Vec<Seen>, Vec<u8>) {
        (self.seen, self.answers)
    }
}

fn lines(bytes: &[u8]) -> Vec<Seen> {
    Records::of(&[bytes]).seen
}

fn line(text: &str) -> Seen {
    Seen::Line(text.as_bytes().to_vec())
}

#[test]
fn lines_end_and_are_corrected_as_on_the_console() {
    assert_eq!(lines(b"a\r\nb\r\0c\nd\re\n"), ["a", "b", "c", "d", "e"].map(line));
    assert_eq!(
        lines("stap\u{8}\u{8}op\u{7f}\u{7f}op\r\n日x\u{8}\u{8}ok\n".as_bytes()),
        [line("stop"), line("ok")]
    );
}

#[test]
fn half_a_line_stays_where_it_is() {
    let mut records = Records::of(&[b"name An"]);
    assert_eq!(records.pending, b"name An");
    records.arrives(b"n\r");
    assert_eq!(
        (records.seen.clone(), records.pending.len()),
        (vec![line("name Ann")], 0)
    );
    // The LF belongs to the Enter that was handled.
    records.arrives(b"\nx\n");
    assert_eq!(records.seen, [line("name Ann"), line("x")]);
}

#[test]
fn an_endless_line_is_told_once_and_what_follows_is_whole() {
    let mut bytes = vec![b'x'; 100_000];
    bytes.extend(b"\r\nnext\r\n");
    assert_eq!(lines(&bytes), [Seen::TooLong, line("next")]);
    let longest = "x".repeat(TEXT_LINE_BYTES_MAX);
    assert_eq!(lines(format!("{longest}\n").as_bytes()), [line(&longest)]);
    assert_eq!(lines(format!("{longest}y\n").as_bytes()), [Seen::TooLong]);
    // So is one that is corrected without end.
    let mut bytes = b"x".to_vec();
    bytes.extend(b"y\x08".repeat(50_000));
    bytes.extend(b"\nnext\n");
    assert_eq!(lines(&bytes), [Seen::TooLong, line("next")]);
}

#[test]
fn subnegotiations_without_end_take_no_space() {
    let mut records = Records::default();
    for _ in 0..1000 {
        records.arrives(&[IAC, 250, 24]);
        records.arrives(&[b'x'; 1000]);
        assert!(records.pending.len() < 2 * TEXT_SKIP_BYTES_MIN);
    }
    records.arrives(&[IAC, 240, b'h', b'i', b'\n']);
    assert_eq!(records.noticed(), (vec![line("hi")], vec![]));
}

#[test]
fn a_quarrel_about_options_ends_at_once_but_timing_marks_are_always_answered() {
    let quarrel = [IAC, DO, 1, IAC, WILL, 31].repeat(1000);
    let records = Records::of(&[b"he", &quarrel, b"lp\n"]);
    assert_eq!(
        records.noticed(),
        (vec![line("help")], vec![IAC, 252, 1, IAC, 254, 31])
    );
    let marks = [IAC, DO, TIMING_MARK].repeat(1000);
    let records = Records::of(&[b"he", &marks, b"lp\n"]);
    assert_eq!(
        records.noticed(),
        (vec![line("help")], [IAC, 252, TIMING_MARK].repeat(1000))
    );
}

#[test]
fn what_cannot_be_read_is_complained_about() {
    assert_eq!(parse(b"say \xff\xfe"), Err(ParseError::NotUtf8));
    assert_eq!(parse("say \u{e9}".as_bytes()).map(|_| ()), Ok(()));
    for control in (0..=0x1f).chain([0x7f]).filter(|byte| !b"\t".contains(byte)) {
        let complaint = parse(&[b's', b'a', b'y', b' ', control]).expect_err("a control character");
        assert!(matches!(complaint, ParseError::ControlCharacter { .. }));
        let told = complaint.to_string();
        assert!(!told.contains(char::is_control), "{told:?}");
    }
    assert!(matches!(
        parse("say \u{9b}2J".as_bytes()),
        Err(ParseError::ControlCharacter { .. })
    ));
    assert_eq!(parse(b" \t "), Ok(Command::Nothing));
}

/// Bytes as a hostile client might choose them: the ones that mean something more often than others.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let telling = prop::sample::select(vec![
        IAC,
        DO,
        WILL,
        250,
        240,
        247,
        248,
        TIMING_MARK,
        b'\r',
        b'\n',
        0,
        8,
        127,
        b'a',
    ]);
    let byte = prop_oneof![4 => telling, 1 => any::<u8>()];
    let long = prop_oneof![Just(vec![b'x'; 3000]), Just(b"y\x08".repeat(5000)), Just(vec![])];
    (vec(byte.clone(), 0..200), long, vec(byte, 0..200)).prop_map(|(a, b, c)| [a, b, c].concat())
}

proptest! {
    // The long lines are looked at again with every byte that arrives.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the bytes are cut into packets, and whichever process handles each, the result is the same.
    #[test]
    fn any_split_of_the_input_gives_the_same_as_the_whole(
        bytes in hostile(),
        cuts in vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
        pieces.push(&bytes[from..]);
        let singly: Vec<_> = bytes.chunks(1).collect();
        let whole = Records::of(&[&bytes]).noticed();
        prop_assert_eq!(Records::of(&pieces).noticed(), whole.clone());
        prop_assert_eq!(Records::of(&singly).noticed(), whole);
    }

    /// What is found first does not depend on what lies behind it.
    #[test]
    fn what_is_next_is_found_without_looking_further(bytes in hostile(), more in hostile()) {
        let found = next_token(&bytes, InputState::default(), RefusedOptions::default(), 0);
        if let Token::Line { .. } | Token::LineTooLong { .. } = &found {
            let together = [bytes, more].concat();
            prop_assert_eq!(next_token(&together, InputState::default(), RefusedOptions::default(), 0), found);
        }
    }

    #[test]
    fn no_line_makes_the_parser_panic_and_no_complaint_controls_a_terminal(line in vec(any::<u8>(), 0..300)) {
        if let Err(complaint) = parse(&line) {
            prop_assert!(!complaint.to_string().contains(char::is_control));
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(command in "(create|join|watch|set|tell|rooms|kick|help|name) ?", rest in "\\PC{0,40}") {
        let line = command + &rest;
        if let Err(complaint) = parse(line.as_bytes()) {
            let told = render::to_terminal(&render::refusal(&complaint.to_string()));
            let goes_on = |row: &str| row.starts_with("    ");
            prop_assert!(!told.is_empty() && told.lines().skip(1).all(goes_on), "{told:?}");
        }
    }
}

#[test]
fn a_client_is_told_each_time_that_the_server_is_there() {
    let mut records = Records::default();
    records.arrives(&[b'w', IAC, ARE_YOU_THERE, b'h']);
    records.arrives(&[IAC, ARE_YOU_THERE, b'o', b'\n']);
    assert_eq!(records.answers, b"\r\n[Yes]\r\n> \r\n[Yes]\r\n> ");
    assert_eq!(records.seen, [Seen::Line(b"who".to_vec())]);
    let mut many = Records::default();
    many.arrives(&[IAC, ARE_YOU_THERE].repeat(1000));
    assert_eq!(many.answers.len(), 1000 * "\r\n[Yes]\r\n> ".len());
}
