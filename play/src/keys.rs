//! From the bytes that a terminal sends to keys. Pure: what is half there waits for the rest, and time is the caller's.
//!
//! The escape key sends what all sequences begin with. So a lone escape is [undecided](KeyDecoder::is_undecided) until more
//! bytes come, or the caller has waited long enough and says [`KeyDecoder::decide`].

/// Bytes of one escape sequence: longer than any key's.
const SEQUENCE_BYTES_MAX: usize = 32;

const ESCAPE: u8 = 0x1b;

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Character(char),
    Enter,
    Tab,
    Escape,
    Backspace,
    Delete,
    Left,
    Right,
    WordLeft,
    WordRight,
    Home,
    End,
    Up,
    Down,
    PageUp,
    PageDown,
    /// Deletes the word before the cursor.
    DeleteWord,
    DeleteToStart,
    DeleteToEnd,
    Function(u8),
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D.
    EndOfInput,
    /// Ctrl-Z.
    Suspend,
    /// Ctrl-L.
    Redraw,
}

/// Bytes in, keys out.
#[derive(Debug, Default)]
pub(crate) struct KeyDecoder {
    pending: Vec<u8>,
    /// Inside of a bracketed paste, whose line ends must not send anything.
    is_pasting: bool,
}

/// What the first bytes are.
enum First {
    Incomplete,
    /// So many bytes, and the key they stand for, if it is one that we know.
    Whole(usize, Option<Key>),
    /// So many bytes, after which a paste begins or ends.
    Paste(usize, bool),
}

impl KeyDecoder {
    /// The keys that are complete with these bytes.
    pub(crate) fn take_in(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.pending.extend_from_slice(bytes);
        let mut keys = Vec::new();
        let mut used = 0;
        loop {
            match first(&self.pending[used..]) {
                First::Incomplete => break,
                First::Whole(length, key) => {
                    used += length;
                    keys.extend(key.and_then(|key| self.unless_pasted(key)));
                }
                First::Paste(length, begins) => {
                    used += length;
                    self.is_pasting = begins;
                }
            }
        }
        self.pending.drain(..used);
        keys
    }

    /// Whether there are bytes that could become one key or another.
    pub(crate) fn is_undecided(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Nothing has followed for a while: a lone escape is the escape key, and half of anything else is nothing.
    pub(crate) fn decide(&mut self) -> Option<Key> {
        let is_escape = self.pending == [ESCAPE];
        self.pending.clear();
        is_escape.then_some(Key::Escape)
    }

    fn unless_pasted(&self, key: Key) -> Option<Key> {
        match key {
            _ if !self.is_pasting => Some(key),
            Key::Character(_) => Some(key),
            Key::Enter | Key::Tab => Some(Key::Character(' ')),
            _ => None,
        }
    }
}

fn first(bytes: &[u8]) -> First {
    match bytes {
        [] | [ESCAPE] => First::Incomplete,
        [ESCAPE, b'[', rest @ ..] => control_sequence(rest),
        [ESCAPE, b'O'] => First::Incomplete,
        [ESCAPE, b'O', letter, ..] => First::Whole(3, of_letter(*letter, false)),
        // Two escapes: the first was the key.
        [ESCAPE, ESCAPE, ..] => First::Whole(1, Some(Key::Escape)),
        [ESCAPE, with_alt, ..] => First::Whole(2, of_alt(*with_alt)),
        [byte, ..] if byte.is_ascii() => First::Whole(1, of_ascii(*byte)),
        _ => character(bytes),
    }
}

/// What comes behind `ESC [`.
fn control_sequence(rest: &[u8]) -> First {
    // The function keys of the Linux console.
    if let [b'[', letter @ b'A'..=b'E', ..] = rest {
        return First::Whole(4, Some(Key::Function(letter - b'A' + 1)));
    }
    let Some(length) = rest
        .iter()
        .position(|byte| (0x40..=0x7e).contains(byte) && *byte != b'[')
    else {
        return if rest.len() < SEQUENCE_BYTES_MAX {
            First::Incomplete
        } else {
            First::Whole(2 + rest.len(), None)
        };
    };
    let total = 2 + length + 1;
    let parameters = std::str::from_utf8(&rest[..length]).unwrap_or_default();
    let mut numbers = parameters
        .split(';')
        .map(|number| number.parse::<u8>().unwrap_or(0));
    let (number, modifiers) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // 1 and a bit for each of shift, alt and control.
    let by_word = modifiers > 1 && (modifiers - 1) & 0b110 != 0;
    match (rest[length], number) {
        (b'~', 200) => First::Paste(total, true),
        (b'~', 201) => First::Paste(total, false),
        (b'~', _) => First::Whole(total, of_number(number)),
        (letter, _) => First::Whole(total, of_letter(letter, by_word)),
    }
}

fn of_letter(letter: u8, by_word: bool) -> Option<Key> {
    Some(match letter {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' if by_word => Key::WordRight,
        b'C' => Key::Right,
        b'D' if by_word => Key::WordLeft,
        b'D' => Key::Left,
        b'F' => Key::End,
        b'H' => Key::Home,
        b'P'..=b'S' => Key::Function(letter - b'P' + 1),
        _ => return None,
    })
}

fn of_number(number: u8) -> Option<Key> {
    Some(match number {
        1 | 7 => Key::Home,
        4 | 8 => Key::End,
        3 => Key::Delete,
        5 => Key::PageUp,
        6 => Key::PageDown,
        11..=15 => Key::Function(number - 10),
        17..=21 => Key::Function(number - 11),
        23 | 24 => Key::Function(number - 12),
        _ => return None,
    })
}

fn of_alt(byte: u8) -> Option<Key> {
    Some(match byte {
        b'b' | b'B' => Key::WordLeft,
        b'f' | b'F' => Key::WordRight,
        0x7f | 0x08 => Key::DeleteWord,
        _ => return None,
    })
}

fn of_ascii(byte: u8) -> Option<Key> {
    let control = |letter: u8| letter - b'@';
    Some(match byte {
        b'\r' | b'\n' => Key::Enter,
        b'\t' => Key::Tab,
        0x7f | 0x08 => Key::Backspace,
        _ if byte == control(b'A') => Key::Home,
        _ if byte == control(b'B') => Key::Left,
        _ if byte == control(b'C') => Key::Interrupt,
        _ if byte == control(b'D') => Key::EndOfInput,
        _ if byte == control(b'E') => Key::End,
        _ if byte == control(b'F') => Key::Right,
        _ if byte == control(b'K') => Key::DeleteToEnd,
        _ if byte == control(b'L') => Key::Redraw,
        _ if byte == control(b'N') => Key::Down,
        _ if byte == control(b'P') => Key::Up,
        _ if byte == control(b'U') => Key::DeleteToStart,
        _ if byte == control(b'W') => Key::DeleteWord,
        _ if byte == control(b'Z') => Key::Suspend,
        b' '..=b'~' => Key::Character(char::from(byte)),
        _ => return None,
    })
}

/// A character beyond ASCII; bytes that are none are skipped one by one.
fn character(bytes: &[u8]) -> First {
    let start = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) if error.error_len().is_none() => return First::Incomplete,
        Err(_) => "",
    };
    match valid.chars().next() {
        Some(character) if character.is_control() => First::Whole(character.len_utf8(), None),
        Some(character) => First::Whole(character.len_utf8(), Some(Key::Character(character))),
        None => First::Whole(1, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        KeyDecoder::default().take_in(bytes)
    }

    #[test]
    fn terminals_of_all_kinds_are_understood() {
        for (bytes, key) in [
            (&b"\x1b[A"[..], Key::Up),
            (b"\x1bOA", Key::Up),
            (b"\x1b[1;5D", Key::WordLeft),
            (b"\x1b[1;3C", Key::WordRight),
            (b"\x1bb", Key::WordLeft),
            (b"\x1b[1~", Key::Home),
            (b"\x1b[H", Key::Home),
            (b"\x1b[7~", Key::Home),
            (b"\x01", Key::Home),
            (b"\x1b[F", Key::End),
            (b"\x1b[3~", Key::Delete),
            (b"\x1b[5~", Key::PageUp),
            (b"\x1bOP", Key::Function(1)),
            (b"\x1b[[A", Key::Function(1)),
            (b"\x1b[11~", Key::Function(1)),
            (b"\x1b[15~", Key::Function(5)),
            (b"\x1b[21~", Key::Function(10)),
            (b"\x1b\x7f", Key::DeleteWord),
            (b"\x7f", Key::Backspace),
            (b"\r", Key::Enter),
            ("ß".as_bytes(), Key::Character('ß')),
            ("😀".as_bytes(), Key::Character('😀')),
        ] {
            assert_eq!(keys(bytes), [key], "{bytes:?}");
        }
    }

    #[test]
    fn a_lone_escape_is_the_escape_key_once_nothing_follows() {
        let mut decoder = KeyDecoder::default();
        assert_eq!(decoder.take_in(b"\x1b"), []);
        assert!(decoder.is_undecided());
        assert_eq!(decoder.decide(), Some(Key::Escape));
        assert!(!decoder.is_undecided());
        assert_eq!(decoder.take_in(b"\x1b"), []);
        assert_eq!(decoder.take_in(b"[A"), [Key::Up]);
        assert_eq!(keys(b"\x1b\x1b[A"), [Key::Escape, Key::Up]);
        assert_eq!(decoder.take_in(b"\x1b[1;"), []);
        assert_eq!(decoder.decide(), None, "half a sequence is no key");
    }

    #[test]
    fn what_is_pasted_sends_nothing() {
        let pasted = keys(b"\x1b[200~a\r\nb\x03\x1b[A\x1b[201~\r");
        let expected = [
            Key::Character('a'),
            Key::Character(' '),
            Key::Character(' '),
            Key::Character('b'),
            Key::Enter,
        ];
        assert_eq!(pasted, expected);
    }

    #[test]
    fn an_endless_sequence_is_given_up() {
        let mut decoder = KeyDecoder::default();
        decoder.take_in(b"\x1b[");
        decoder.take_in(&[b'1'; 100]);
        assert!(!decoder.is_undecided());
        assert_eq!(decoder.take_in(b"x"), [Key::Character('x')]);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_come(bytes in proptest::collection::vec(any::<u8>(), 0..60), cut in 0_usize..60) {
            let cut = cut.min(bytes.len());
            let mut decoder = KeyDecoder::default();
            let mut in_parts = decoder.take_in(&bytes[..cut]);
            in_parts.extend(decoder.take_in(&bytes[cut..]));
            let whole = keys(&bytes);
            prop_assert_eq!(&in_parts, &whole);
            for key in whole {
                prop_assert!(!matches!(key, Key::Character(character) if character.is_control()));
            }
        }
    }
}
