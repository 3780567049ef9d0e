//! Text from outside, escaped for logs and terminals.

use std::fmt::{self, Write as _};
use std::ops::Range;

/// Displays text from outside so that it can neither end a line, nor control a terminal, nor hide or reorder the text
/// around it. A joiner between two characters stays: some scripts and emoji are not what they are without it.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(joiner) = find_joiner(rest) {
            Escaper(&mut *out).write_str(&rest[..joiner.start])?;
            out.write_str(&rest[joiner.clone()])?;
            rest = &rest[joiner.end..];
        }
        Escaper(out).write_str(rest)
    }
}

/// The first joiner between two visible characters.
fn find_joiner(text: &str) -> Option<Range<usize>> {
    let joins = |character: Option<char>| {
        character.is_some_and(|character| !is_harmful(character) && !character.is_whitespace())
    };
    let mut joiners = text.match_indices(['\u{200c}', '\u{200d}']);
    joiners.find_map(|(start, joiner)| {
        let end = start + joiner.len();
        let between = joins(text[..start].chars().next_back()) && joins(text[end..].chars().next());
        between.then_some(start..end)
    })
}

/// Writes text escaped, joiners too: it may be called with pieces of a text.
pub struct Escaper<W>(pub W);

impl<W: fmt::Write> fmt::Write for Escaper<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, found)) = rest.char_indices().find(|&(_, character)| is_harmful(character)) {
            self.plain(&rest[..at])?;
            match found {
                '\n' => self.0.write_str("\\n")?,
                '\r' => self.0.write_str("\\r")?,
                '\t' => self.0.write_str("\\t")?,
                other => write!(self.0, "\\u{{{:x}}}", u32::from(other))?,
            }
            rest = &rest[at + found.len_utf8()..];
        }
        self.plain(rest)
    }
}

impl<W: fmt::Write> Escaper<W> {
    /// Writes as much as fits: if the whole text does not, character by character.
    fn plain(&mut self, text: &str) -> fmt::Result {
        if self.0.write_str(text).is_ok() {
            return Ok(());
        }
        text.chars()
            .try_for_each(|character| self.0.write_char(character))
    }
}

/// Whether `character` is no visible part of a text: it could mislead a terminal or a reader of the log.
pub fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}'     // soft hyphen, Arabic letter mark, invisible spaces
            | '\u{200b}'..='\u{200f}'                          // zero width, left-to-right and right-to-left marks
            | '\u{2028}'..='\u{202e}'                          // line and paragraph separators, embeddings, overrides
            | '\u{2060}'..='\u{206f}'                          // invisible operators, isolates
            | '\u{fff9}'..='\u{fffb}'                          // interlinear annotation
            | '\u{e0000}'..='\u{e0fff}') // tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_forge_a_line_is_escaped() {
        assert_eq!(Escaped("a\r\nb\tc").to_string(), "a\\r\\nb\\tc");
        assert_eq!(
            Escaped("\u{1b}[2J\u{9b}H\u{7f}").to_string(),
            "\\u{1b}[2J\\u{9b}H\\u{7f}"
        );
        assert_eq!(
            Escaped("\u{202e}live\u{2028}").to_string(),
            "\\u{202e}live\\u{2028}"
        );
        assert_eq!(Escaped("Zoë 🎲 日本").to_string(), "Zoë 🎲 日本");
    }

    #[test]
    fn a_joiner_stays_where_it_joins() {
        for text in [
            "\u{645}\u{6CC}\u{200C}\u{62E}\u{648}\u{627}\u{647}\u{645} 👩\u{200D}🚀",
            "\u{2764}\u{FE0F}\u{200D}🔥",
        ] {
            assert_eq!(Escaped(text).to_string(), text);
        }
        assert_eq!(
            Escaped("\u{200d}a\u{200d}\u{200d}b\u{200c} \u{200c}\u{1b}").to_string(),
            "\\u{200d}a\\u{200d}\\u{200d}b\\u{200c} \\u{200c}\\u{1b}"
        );
    }
}
