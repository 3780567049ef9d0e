//! The lines that a player in text mode types and sees, for `trace`. Passcodes and invite codes are left out: they are
//! part of typed lines, so they are searched for where commands contain them.

use crate::frontends::console::format_frame::{self, SECRET};
use crate::limits::TEXT_LINE_RAW_BYTES_MAX;
use forkade_text::render;
use forkade_text::telnet::{Line, LineReader, Parser};

/// The state of a player's typed input, which may end within a line.
pub(crate) struct Transcript {
    parser: Parser,
    reader: LineReader,
    /// No byte was read yet. The first byte may be the rest of the previous line's end.
    is_new: bool,
}

impl Transcript {
    pub(crate) fn new() -> Self {
        Self {
            parser: Parser::default(),
            reader: LineReader::new(TEXT_LINE_RAW_BYTES_MAX),
            is_new: true,
        }
    }

    /// The completed lines, without erased characters and telnet commands.
    pub(crate) fn typed(&mut self, bytes: &[u8]) -> Vec<String> {
        let bytes = match bytes {
            [b'\n' | 0, rest @ ..] if std::mem::take(&mut self.is_new) => rest,
            bytes => bytes,
        };
        self.is_new &= bytes.is_empty();
        let events = bytes.iter().filter_map(|byte| self.parser.push(*byte));
        let lines = events.filter_map(|event| self.reader.push(event));
        let lines = lines.map(|line| match line {
            Line::Complete(line) => format_frame::typed(&without_secrets(&line)),
            Line::TooLong => "(a line too long)".to_owned(),
        });
        lines.collect()
    }

    /// The lines that the player saw, without the bytes that clear the prompt. The text after the last line end is
    /// included; it is usually the prompt.
    pub(crate) fn shown(bytes: &[u8]) -> Vec<String> {
        let lines = bytes.split(|byte| *byte == b'\n');
        let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let lines = lines.map(|line| {
            line.strip_prefix(render::OVERWRITE_PROMPT.as_bytes())
                .unwrap_or(line)
        });
        let is_something = |line: &&[u8]| !line.is_empty();
        lines
            .filter(is_something)
            .map(|line| format_frame::typed(&without_codes(line)))
            .collect()
    }
}

/// A typed line without passcodes and invite codes.
fn without_secrets(line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(line);
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default().to_lowercase();
    // Commands may be abbreviated or misspelt, so rather one word too many is left out. They may begin with a slash or
    // be in quotes.
    let bare = first.trim_matches(['/', '"']);
    let is_join = ["join", "watch", "spectate"]
        .iter()
        .any(|command| !bare.is_empty() && (command.starts_with(bare) || bare.starts_with(command)));
    if is_join {
        let room = words.next().unwrap_or_default();
        let is_number = !room.is_empty() && room.trim_start_matches('#').parse::<u64>().is_ok();
        let rest = if is_number {
            words.next()
        } else {
            Some(room).filter(|room| !room.is_empty())
        };
        let mut shown = first;
        if is_number {
            shown.push(' ');
            shown.push_str(room);
        }
        if rest.is_some() {
            shown.push(' ');
            shown.push_str(SECRET);
        }
        return shown.into_bytes();
    }
    if !bare.is_empty() && ("resume".starts_with(bare) || bare.starts_with("resume")) {
        return format!("{first} {SECRET}").into_bytes();
    }
    if !text.to_lowercase().contains("pass") {
        return without_codes(line);
    }
    let shown: Vec<String> = text
        .split_whitespace()
        .map(|word| match word.split_once('=') {
            Some((key, _)) if key.to_lowercase().starts_with("pass") => format!("{key}={SECRET}"),
            _ => word.to_owned(),
        })
        .collect();
    without_codes(shown.join(" ").as_bytes())
}

/// A text without invite codes and resume words, which are three or four groups of four letters or digits, joined by
/// hyphens.
fn without_codes(line: &[u8]) -> Vec<u8> {
    const GROUP: usize = 4;
    let is_code = |part: &[u8]| {
        part.iter().enumerate().all(|(at, byte)| match at % (GROUP + 1) {
            GROUP => *byte == b'-',
            _ => byte.is_ascii_alphanumeric(),
        })
    };
    // The longer code first: its beginning looks like the shorter one.
    let lengths = [4, 3].map(|groups| groups * (GROUP + 1) - 1);
    let mut shown = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((byte, behind)) = rest.split_first() {
        match lengths
            .into_iter()
            .find(|length| rest.get(..*length).is_some_and(is_code))
        {
            Some(length) => {
                shown.extend(SECRET.as_bytes());
                rest = &rest[length..];
            }
            None => {
                shown.push(*byte);
                rest = behind;
            }
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn typed(bytes: &[u8]) -> Vec<String> {
        Transcript::new().typed(bytes)
    }

    #[test]
    fn resume_words_are_not_shown() {
        let secret = "0007-Q2HM-ZK4T-9WXP";
        for line in [
            format!("resume {secret}"),
            format!("/Resum {}", secret.replace('-', " ")),
            format!("x {secret}"),
        ] {
            let shown = typed(format!("{line}\r\n").as_bytes()).concat();
            assert!(!shown.contains("9WXP") && !shown.contains("Q2HM"), "{shown}");
        }
        let shown = Transcript::shown(format!("\"resume {secret}\" takes\r\n").as_bytes()).concat();
        assert!(!shown.contains("9WXP"), "{shown}");
    }

    #[test]
    fn lines_are_shown_without_erased_characters() {
        assert_eq!(
            typed(b"say hellp\x08o\x1b[2J\r\n\xff\xfb\x1fmove 4\r\0half"),
            ["say hello\\u{1b}[2J", "move 4"]
        );
        let shown = Transcript::shown("a\tb\u{202e}\r\n\r\n> ".as_bytes());
        assert_eq!(shown, ["a\\tb\\u{202e}", "> "]);
    }

    #[test]
    fn bytes_outside_lines_are_not_shown() {
        // The rest of the previous line's end, and the bytes that clear the prompt.
        let mut transcript = Transcript::new();
        assert_eq!(transcript.typed(b"\nsay a\r"), ["say a"]);
        assert_eq!(transcript.typed(b"\n\r\n"), [""]);
        assert_eq!(Transcript::shown(b"\rAnn says: a\r\n> "), ["Ann says: a", "> "]);
    }

    #[test]
    fn secrets_are_left_out_in_every_spelling_of_a_command() {
        for line in [
            "join 5 sesame",
            "join #5 sesame open",
            "JOIN sesame",
            "watch 5 sesame",
            "j 5 sesame",
            "/join 5 sesame",
            "\"join\" 5 sesame",
            "spectate 5 sesame",
            "create relay den passcode=sesame",
            "set seats=2 PassCode=sesame",
            "set passcod=sesame",
        ] {
            let shown = typed(format!("{line}\r\n").as_bytes());
            assert!(
                !shown[0].contains("sesame") && shown[0].contains(SECRET),
                "{line}: {shown:?}"
            );
        }
        assert_eq!(
            typed(b"join 5 s\x08sesame\r\njoin 5\r\n"),
            ["join 5 (secret)", "join 5"]
        );
        let reported = Transcript::shown(
            b"With the code AB2D-EFGH-JKLM anybody can come in, by \"join AB2D-EFGH-JKLM\".\r\n",
        );
        assert_eq!(
            reported,
            ["With the code (secret) anybody can come in, by \"join (secret)\"."]
        );
        assert_eq!(
            typed(b"say come with AB2D-EFGH-JKLM\n"),
            ["say come with (secret)"]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_shown_as_visible_text(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let mut transcript = Transcript::new();
            for line in transcript.typed(&bytes).into_iter().chain(Transcript::shown(&bytes)) {
                prop_assert!(!line.contains(char::is_control), "{:?}", line);
            }
        }
    }
}
