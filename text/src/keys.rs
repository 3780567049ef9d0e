//! Decodes the bytes that a terminal sends into keys. Pure: an incomplete key waits for more bytes, and the caller
//! keeps the time.
//!
//! All escape sequences begin with the byte of the escape key. So a lone escape is
//! [undecided](KeyDecoder::is_undecided) until more bytes come, or until the caller has waited long enough and calls
//! [`KeyDecoder::decide`].

/// The longest escape sequence in bytes; no key's is longer.
const SEQUENCE_BYTES_MAX: usize = 32;

const ESCAPE: u8 = 0x1b;

/// A key, by its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character that is no control character.
    Character(char),
    /// Enter.
    Enter,
    /// Tab.
    Tab,
    /// Escape.
    Escape,
    /// Deletes the character before the cursor.
    Backspace,
    /// Deletes the character at the cursor.
    Delete,
    /// One character to the left.
    Left,
    /// One character to the right.
    Right,
    /// To the beginning of the word before the cursor.
    WordLeft,
    /// To the end of the word behind the cursor.
    WordRight,
    /// To the beginning of the line.
    Home,
    /// To the end of the line.
    End,
    /// Up.
    Up,
    /// Down.
    Down,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Deletes the word before the cursor.
    DeleteWord,
    /// Deletes all before the cursor.
    DeleteToStart,
    /// Deletes all from the cursor on.
    DeleteToEnd,
    /// A function key, by its number.
    Function(u8),
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D.
    EndOfInput,
    /// Ctrl-Z.
    Suspend,
    /// Ctrl-L.
    Redraw,
    /// Another control character, or bytes that are no UTF-8.
    Unknown,
}

/// Decodes bytes into keys.
#[derive(Debug, Default)]
pub struct KeyDecoder {
    pending: Vec<u8>,
    bracketed_paste: bool,
    /// Within a bracketed paste, whose line ends must not send anything.
    is_pasting: bool,
}

/// What the first bytes are.
enum First {
    Incomplete,
    /// The number of bytes, and the key that they stand for, if it is a known one.
    Key(usize, Option<Key>),
    /// The number of bytes, after which a paste begins or ends.
    Paste(usize, bool),
}

impl KeyDecoder {
    /// A decoder for a terminal that marks pasted text ("bracketed paste"). Pasted keys edit nothing and end no line.
    pub fn with_bracketed_paste() -> Self {
        Self {
            bracketed_paste: true,
            ..Self::default()
        }
    }

    /// The keys that these bytes complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.pending.extend_from_slice(bytes);
        let mut keys = Vec::new();
        let mut used = 0;
        loop {
            match first(&self.pending[used..]) {
                First::Incomplete => break,
                First::Key(length, key) => {
                    used += length;
                    keys.extend(key.and_then(|key| self.unless_pasted(key)));
                }
                First::Paste(length, begins) => {
                    used += length;
                    self.is_pasting = begins && self.bracketed_paste;
                }
            }
        }
        self.pending.drain(..used);
        keys
    }

    /// Whether there are bytes that could still become different keys.
    pub fn is_undecided(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Discards what is incomplete: no more bytes have followed for a while. A lone escape is the escape key.
    pub fn decide(&mut self) -> Option<Key> {
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
        // The function keys of the Linux console.
        [ESCAPE, b'[', b'[', letter @ b'A'..=b'E', ..] => {
            First::Key(4, Some(Key::Function(letter - b'A' + 1)))
        }
        [ESCAPE, b'[', b'['] => First::Incomplete,
        [ESCAPE, b'[' | b'O', rest @ ..] => control_sequence(rest),
        // Two escapes: the first one was the key.
        [ESCAPE, ESCAPE, ..] => First::Key(1, Some(Key::Escape)),
        [ESCAPE, with_alt, ..] => First::Key(2, key_with_alt(*with_alt)),
        [byte, ..] if byte.is_ascii() => First::Key(1, Some(ascii_key(*byte))),
        _ => character(bytes),
    }
}

/// Parses what follows `ESC [` or `ESC O`: parameters, and the byte that ends the sequence.
fn control_sequence(rest: &[u8]) -> First {
    let Some(length) = rest.iter().position(|byte| !(b' '..=b'?').contains(byte)) else {
        return if rest.len() < SEQUENCE_BYTES_MAX {
            First::Incomplete
        } else {
            First::Key(2 + rest.len(), None)
        };
    };
    let total = 2 + length + 1;
    let parameters = std::str::from_utf8(&rest[..length]).unwrap_or_default();
    let mut numbers = parameters
        .split(';')
        .map(|number| number.parse::<u8>().unwrap_or(0));
    let (number, modifiers) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // 1, plus one bit each for shift, alt and control.
    let by_word = modifiers > 1 && (modifiers - 1) & 0b110 != 0;
    match (rest[length], number) {
        // A control character ends the sequence, and is a key of its own.
        (byte, _) if byte.is_ascii_control() => First::Key(total - 1, None),
        (b'~', 200) => First::Paste(total, true),
        (b'~', 201) => First::Paste(total, false),
        (b'~', _) => First::Key(total, numbered_key(number)),
        (letter, _) => First::Key(total, lettered_key(letter, by_word)),
    }
}

fn lettered_key(letter: u8, by_word: bool) -> Option<Key> {
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

fn numbered_key(number: u8) -> Option<Key> {
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

fn key_with_alt(byte: u8) -> Option<Key> {
    Some(match byte {
        b'b' | b'B' => Key::WordLeft,
        b'f' | b'F' => Key::WordRight,
        0x7f | 0x08 => Key::DeleteWord,
        _ => return None,
    })
}

/// The byte of a key that is pressed together with Ctrl.
const fn ctrl(key: u8) -> u8 {
    key & 0x1f
}

fn ascii_key(byte: u8) -> Key {
    match byte {
        b'\r' | b'\n' => Key::Enter,
        b'\t' => Key::Tab,
        0x7f | 0x08 => Key::Backspace,
        _ if byte == ctrl(b'a') => Key::Home,
        _ if byte == ctrl(b'b') => Key::Left,
        _ if byte == ctrl(b'c') => Key::Interrupt,
        _ if byte == ctrl(b'd') => Key::EndOfInput,
        _ if byte == ctrl(b'e') => Key::End,
        _ if byte == ctrl(b'f') => Key::Right,
        _ if byte == ctrl(b'k') => Key::DeleteToEnd,
        _ if byte == ctrl(b'l') => Key::Redraw,
        _ if byte == ctrl(b'n') => Key::Down,
        _ if byte == ctrl(b'p') => Key::Up,
        _ if byte == ctrl(b'u') => Key::DeleteToStart,
        _ if byte == ctrl(b'w') => Key::DeleteWord,
        _ if byte == ctrl(b'z') => Key::Suspend,
        b' '..=b'~' => Key::Character(char::from(byte)),
        _ => Key::Unknown,
    }
}

/// A character beyond ASCII. Bytes that are none are dropped together with the byte that shows it, unless that is a
/// control character.
fn character(bytes: &[u8]) -> First {
    for length in 1..=bytes.len() {
        match std::str::from_utf8(&bytes[..length]) {
            Ok(text) => {
                let key = text.chars().next().filter(|character| !character.is_control());
                return First::Key(length, Some(key.map_or(Key::Unknown, Key::Character)));
            }
            // At most four bytes: then they are a character or none.
            Err(error) if error.error_len().is_none() => {}
            Err(_) => {
                let ends_with_control = length > 1 && bytes[length - 1].is_ascii_control();
                return First::Key(length - usize::from(ends_with_control), Some(Key::Unknown));
            }
        }
    }
    First::Incomplete
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        KeyDecoder::with_bracketed_paste().push(bytes)
    }

    #[test]
    fn terminals_of_all_kinds_are_understood() {
        for (bytes, key) in [
            (&b"\x1b[A"[..], Key::Up),
            (b"\x1bOA", Key::Up),
            (b"\x1bO5D", Key::Left),
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
        assert_eq!(decoder.push(b"\x1b"), []);
        assert!(decoder.is_undecided());
        assert_eq!(decoder.decide(), Some(Key::Escape));
        assert!(!decoder.is_undecided());
        assert_eq!(decoder.push(b"\x1b"), []);
        assert_eq!(decoder.push(b"[A"), [Key::Up]);
        assert_eq!(keys(b"\x1b\x1b[A"), [Key::Escape, Key::Up]);
        assert_eq!(decoder.push(b"\x1b[1;"), []);
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
        decoder.push(b"\x1b[");
        decoder.push(&[b'1'; 100]);
        assert!(!decoder.is_undecided());
        assert_eq!(decoder.push(b"x"), [Key::Character('x')]);
    }

    #[test]
    fn bytes_that_are_no_character_are_one_unknown_key() {
        for (bytes, decoded) in [
            (
                &b"a\xfeb"[..],
                &[Key::Character('a'), Key::Unknown, Key::Character('b')][..],
            ),
            (b"\xc3\r", &[Key::Unknown, Key::Enter]),
            (b"\xc3\x1b[A", &[Key::Unknown, Key::Up]),
            (b"\x1b[1\x03", &[Key::Interrupt]),
            (b"\x1d", &[Key::Unknown]),
        ] {
            assert_eq!(keys(bytes), decoded, "{bytes:?}");
        }
    }

    #[test]
    fn a_terminal_that_does_not_mark_what_is_pasted_cannot_lock_its_keys() {
        let typed = KeyDecoder::default().push(b"\x1b[200~a\x03");
        assert_eq!(typed, [Key::Character('a'), Key::Interrupt]);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_come(bytes in proptest::collection::vec(any::<u8>(), 0..60), cut in 0_usize..60) {
            let cut = cut.min(bytes.len());
            let mut decoder = KeyDecoder::with_bracketed_paste();
            let mut in_parts = decoder.push(&bytes[..cut]);
            in_parts.extend(decoder.push(&bytes[cut..]));
            let whole = keys(&bytes);
            prop_assert_eq!(&in_parts, &whole);
            for key in whole {
                prop_assert!(!matches!(key, Key::Character(character) if character.is_control()));
            }
        }
    }
}
