//! Text from outside, escaped for logs and terminals.

use std::fmt::{self, Write as _};

/// Displays text from outside so that it can neither end a line, nor control a terminal, nor hide or reorder the text
/// around it.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaper(out).write_str(self.0)
    }
}

/// Writes text escaped.
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
}
