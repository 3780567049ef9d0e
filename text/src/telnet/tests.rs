//! Bytes in any pieces: lines, replies, and what does not belong to a line.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::telnet::options::RefusedOptions;
use crate::telnet::*;

const TIMING_MARK: u8 = 6;

/// What came of the bytes so far, with every option refused.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LineEvent {
    Line(Vec<u8>),
    TooLong,
    Reply([u8; 3]),
}

struct Client {
    parser: Parser,
    refused: RefusedOptions,
    reader: LineReader,
}

impl Client {
    fn new(bytes_max: usize) -> Self {
        Self {
            parser: Parser::default(),
            refused: RefusedOptions::default(),
            reader: LineReader::new(bytes_max),
        }
    }

    fn push(&mut self, byte: u8) -> Option<LineEvent> {
        let event = self.parser.push(byte)?;
        if let Event::Option(verb, option) = event {
            return self.refused.refuse(verb, option).map(LineEvent::Reply);
        }
        Some(match self.reader.push(event)? {
            Line::Complete(line) => LineEvent::Line(line),
            Line::TooLong => LineEvent::TooLong,
        })
    }

    fn is_between_lines(&self) -> bool {
        self.reader.is_between_lines() && self.parser.is_between_commands()
    }
}

fn read(bytes: &[u8]) -> Vec<LineEvent> {
    let mut client = Client::new(16);
    bytes.iter().filter_map(|byte| client.push(*byte)).collect()
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let lines = read(bytes).into_iter().map(|input| match input {
        LineEvent::Line(line) => String::from_utf8(line).expect("text"),
        other => panic!("{other:?}"),
    });
    lines.collect()
}

#[test]
fn each_kind_of_line_end_is_one_enter() {
    assert_eq!(lines(b"a\r\nb\r\0c\nd\re\n"), ["a", "b", "c", "d", "e"]);
    assert_eq!(lines(b"\r\n\r\n\n\n"), ["", "", "", ""]);
    assert_eq!(lines(b"a\0b\n"), ["ab"]);
}

#[test]
fn backspace_and_delete_take_back_one_character() {
    assert_eq!(lines("stap\u{8}\u{8}op\u{7f}\u{7f}op\n".as_bytes()), ["stop"]);
    assert_eq!(lines("ñé\u{8}\u{8}\u{8}o日\u{7f}k\n".as_bytes()), ["ok"]);
    assert_eq!(lines(&[b'a', IAC, ERASE_CHARACTER, b'b', b'\n']), ["b"]);
    assert_eq!(lines(&[b'a', b'b', IAC, INTERRUPT_PROCESS, b'c', b'\n']), ["c"]);
    // Bytes that are no characters are erased too, some at a time.
    assert_eq!(lines(b"\x80\x80\x80\x80\x80\x08\x08a\n"), ["a"]);
}

#[test]
fn each_option_is_refused_once() {
    let negotiation = [
        IAC, WILL, 31, IAC, DO, 1, IAC, WILL, 31, IAC, DO, 1, IAC, WONT, 31, IAC, DONT, 1,
    ];
    let answers = [
        LineEvent::Reply([IAC, DONT, 31]),
        LineEvent::Reply([IAC, WONT, 1]),
    ];
    assert_eq!(read(&negotiation), answers);
}

#[test]
fn every_timing_mark_is_answered() {
    let twice = [IAC, DO, TIMING_MARK, IAC, DO, TIMING_MARK];
    assert_eq!(
        read(&twice),
        [
            LineEvent::Reply([IAC, WONT, TIMING_MARK]),
            LineEvent::Reply([IAC, WONT, TIMING_MARK])
        ]
    );
}

#[test]
fn a_doubled_255_is_text_and_commands_are_not() {
    let bytes = [b'a', IAC, IAC, IAC, 241, b'b', IAC, 242, b'\r', IAC, 241, b'\n'];
    assert_eq!(read(&bytes), [LineEvent::Line(vec![b'a', IAC, b'b'])]);
}

#[test]
fn a_subnegotiation_is_skipped_up_to_its_end() {
    let mut bytes = vec![b'a', IAC, SUBNEGOTIATION, 24];
    bytes.extend([b'\n', IAC, IAC, b'x'].repeat(200));
    let mut reader = Client::new(16);
    assert!(bytes.iter().all(|byte| reader.push(*byte).is_none()));
    assert!(!reader.is_between_lines());
    let rest = [IAC, SUBNEGOTIATION_END, b'b', b'\n'];
    let read: Vec<_> = rest.iter().filter_map(|byte| reader.push(*byte)).collect();
    assert_eq!(read, [LineEvent::Line(b"ab".to_vec())]);
    assert!(reader.is_between_lines());
}

#[test]
fn an_unfinished_subnegotiation_ends_at_the_next_command() {
    for command in [
        &[IAC, WONT, 31][..],
        &[IAC, 241],
        &[IAC, SUBNEGOTIATION, 31, IAC, SUBNEGOTIATION_END],
    ] {
        let bytes = [&[b'a', IAC, SUBNEGOTIATION, 24][..], b"who\r\n", command, b"b\n"].concat();
        assert_eq!(read(&bytes), [LineEvent::Line(b"ab".to_vec())], "{command:?}");
    }
}

#[test]
fn an_unfinished_subnegotiation_ends_at_its_limit() {
    let skipped = vec![b'x'; SUBNEGOTIATION_BYTES_MAX as usize];
    let bytes = [&[b'a', IAC, SUBNEGOTIATION][..], &skipped, b"bc\n"].concat();
    assert_eq!(read(&bytes), [LineEvent::Line(b"abc".to_vec())]);
    // Each has the limit for itself.
    let half = vec![b'x'; skipped.len() / 2 + 1];
    let one = [&[IAC, SUBNEGOTIATION][..], &half, &[IAC, SUBNEGOTIATION_END]].concat();
    assert_eq!(
        read(&[&one[..], &one, b"d\n"].concat()),
        [LineEvent::Line(b"d".to_vec())]
    );
}

#[test]
fn a_line_too_long_is_told_once_and_the_next_one_is_whole() {
    assert_eq!(
        read(b"0123456789abcdef\n"),
        [LineEvent::Line(b"0123456789abcdef".to_vec())]
    );
    let mut bytes = vec![b'x'; 100_000];
    bytes.extend(b"\r\nnext\n");
    assert_eq!(
        read(&bytes),
        [LineEvent::TooLong, LineEvent::Line(b"next".to_vec())]
    );
    bytes.truncate(50);
    bytes.extend([IAC, ERASE_LINE]);
    bytes.extend(b"again\n");
    assert_eq!(
        read(&bytes),
        [LineEvent::TooLong, LineEvent::Line(b"again".to_vec())]
    );
}

proptest! {
    /// What a person typed comes out the same, whatever a telnet client puts in between.
    #[test]
    fn commands_anywhere_in_the_text_change_no_line(
        typed in vec("[a-z é日]{0,8}", 1..6),
        ends in vec(prop::sample::select(vec!["\r\n", "\r\0", "\n"]), 6),
        commands in vec((any::<prop::sample::Index>(), prop::sample::select(vec![
            vec![IAC, 241],
            vec![IAC, WONT, 3],
            vec![IAC, SUBNEGOTIATION, 24, b'\n', IAC, IAC, SUBNEGOTIATION_END, IAC, SUBNEGOTIATION_END],
        ])), 0..5),
    ) {
        let text: String = typed.iter().zip(&ends).flat_map(|(line, end)| [line.as_str(), end]).collect();
        let mut bytes = text.into_bytes();
        // From the back, so that no command lands inside another.
        let mut places: Vec<_> = commands.iter().map(|(at, command)| (at.index(bytes.len() + 1), command)).collect();
        places.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        for (at, command) in places {
            bytes.splice(at..at, command.iter().copied());
        }
        let mut reader = Client::new(64);
        let read: Vec<_> = bytes.iter().filter_map(|byte| reader.push(*byte)).collect();
        let expected: Vec<_> = typed.into_iter().map(|line| LineEvent::Line(line.into_bytes())).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn no_bytes_make_a_line_longer_than_allowed(bytes in vec(any::<u8>(), 0..2000)) {
        for input in read(&bytes) {
            if let LineEvent::Line(line) = input {
                prop_assert!(line.len() <= 16 && !line.iter().any(|byte| b"\r\n\0".contains(byte)));
            }
        }
    }
}
