//! Lines of a screen: text in a few styles, of which it is known how many columns it takes at most. (Some terminals
//! draw joined characters as one, others draw each.)
//!
//! All text reaches the terminal through these lines, so this is where control and direction characters are escaped.

use forkade_text::columns::{columns_at_most, columns_of_character, columns_of_grapheme, pieces};
use forkade_text::escape::Escaped;

/// Combining marks that are shown on one character; more would reach into the lines above.
const COMBINING_MARKS_MAX: usize = 3;

/// The look of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Dim,
    Strong,
    /// The selected entry.
    Selected,
    Good,
    Bad,
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    spans: Vec<(Style, String)>,
    columns: usize,
}

impl Line {
    /// A line of one style.
    pub(crate) fn of(style: Style, text: &str) -> Self {
        Self::default().and(style, text)
    }

    /// A plain line.
    pub(crate) fn plain(text: &str) -> Self {
        Self::of(Style::Plain, text)
    }

    /// Appends text.
    pub(crate) fn and(mut self, style: Style, text: &str) -> Self {
        let text = sanitized(text);
        match self.spans.last_mut() {
            Some((last, before)) if *last == style => {
                // What is appended may join what is there.
                self.columns -= columns_at_most(before);
                before.push_str(&text);
                self.columns += columns_at_most(before);
            }
            _ => {
                self.columns += columns_at_most(&text);
                self.spans.push((style, text));
            }
        }
        self
    }

    /// Appends a line.
    pub(crate) fn and_line(mut self, other: Self) -> Self {
        self.columns += other.columns;
        self.spans.extend(other.spans);
        self
    }

    /// Pads the line with spaces to so many columns.
    pub(crate) fn padded(self, columns: usize) -> Self {
        let missing = columns.saturating_sub(self.columns);
        self.and(Style::Plain, &" ".repeat(missing))
    }

    /// The beginning that fits, with a sign that there is more.
    pub(crate) fn cut(self, columns: usize) -> Self {
        if self.columns <= columns {
            return self;
        }
        let Some(room) = columns.checked_sub(1) else {
            return Self::default();
        };
        let (head, _) = self.split(room);
        head.and(Style::Dim, "…")
    }

    /// Wraps the line into lines of at most so many columns. Those after the first are indented.
    pub(crate) fn wrapped(self, columns: usize) -> Vec<Self> {
        const INDENT: usize = 2;
        let indent = if columns > 4 * INDENT { INDENT } else { 0 };
        let mut lines = Vec::new();
        let (mut line, mut room) = (self, columns);
        while line.columns > room {
            let at = line.break_before(room);
            let (head, rest) = line.split(at);
            if head.columns == 0 {
                // Not even one character fits.
                return lines;
            }
            lines.push(Self::plain(&" ".repeat(columns - room)).and_line(head));
            room = columns - indent;
            line = rest.without_leading_spaces();
        }
        if line.columns > 0 || lines.is_empty() {
            lines.push(Self::plain(&" ".repeat(columns - room)).and_line(line));
        }
        lines
    }

    /// The columns that it takes at most.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The pieces with their styles.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (Style, &str)> {
        self.spans.iter().map(|(style, text)| (*style, text.as_str()))
    }

    /// The text without styles.
    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        self.spans.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// After how many columns to break: behind the last space in the second half of the line, or else where the line is
    /// full.
    fn break_before(&self, columns: usize) -> usize {
        let (mut at, mut found) = (0, None);
        for piece in self.spans().flat_map(|(_, text)| pieces(text, columns)) {
            at += columns_of_grapheme(piece);
            if at > columns {
                break;
            }
            if piece == " " && at > columns / 2 {
                found = Some(at);
            }
        }
        found.unwrap_or(columns)
    }

    /// The first columns, and the rest. What may be drawn as one and lies at the boundary belongs to the rest, unless
    /// it fits no line.
    fn split(self, columns: usize) -> (Self, Self) {
        let (mut head, mut rest) = (Self::default(), Self::default());
        for (style, text) in self.spans {
            let mut used = head.columns;
            let fits = |piece: &&str| {
                used += columns_of_grapheme(piece);
                used <= columns
            };
            let end = match rest.columns {
                0 => pieces(&text, columns).take_while(fits).map(str::len).sum(),
                _ => 0,
            };
            for (part, text) in [(&mut head, &text[..end]), (&mut rest, &text[end..])] {
                if !text.is_empty() {
                    part.columns += columns_at_most(text);
                    part.spans.push((style, text.to_owned()));
                }
            }
        }
        (head, rest)
    }

    fn without_leading_spaces(mut self) -> Self {
        if let Some((_, first)) = self.spans.first_mut() {
            let kept = first.trim_start_matches(' ').to_owned();
            self.columns = self.columns - columns_at_most(first) + columns_at_most(&kept);
            *first = kept;
        }
        self
    }
}

/// Text with every character visible, and nothing that changes the position of others.
fn sanitized(text: &str) -> String {
    let mut marks = 0;
    let kept = text.chars().filter(|character| {
        let is_mark = columns_of_character(*character) == 0 && !character.is_control();
        marks = if is_mark { marks + 1 } else { 0 };
        marks <= COMBINING_MARKS_MAX
    });
    Escaped(&kept.collect::<String>()).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(Line::text).collect()
    }

    #[test]
    fn characters_that_would_move_the_cursor_are_escaped() {
        let line = Line::plain("a\x1b[2Jb\rc\u{9b}d\u{202e}e\u{200d}");
        assert_eq!(line.text(), "a\\u{1b}[2Jb\\rc\\u{9b}d\\u{202e}e\\u{200d}");
        assert_eq!(line.columns(), line.text().len());
        let piled = Line::plain(&format!("a{}", "\u{301}".repeat(50)));
        assert_eq!(piled.text().chars().count(), 1 + COMBINING_MARKS_MAX);
    }

    #[test]
    fn a_line_breaks_between_words_if_it_can() {
        let wrapped = Line::plain("the quick brown fox").wrapped(10);
        assert_eq!(texts(&wrapped), ["the quick ", "  brown ", "  fox"]);
        let wrapped = Line::plain("aaaaaaaaaaaaaaaaaaaa").wrapped(9);
        assert_eq!(texts(&wrapped), ["aaaaaaaaa", "  aaaaaaa", "  aaaa"]);
        assert_eq!(texts(&Line::plain("").wrapped(9)), [""]);
        assert_eq!(texts(&Line::plain("名前").wrapped(1)), [""; 0]);
    }

    #[test]
    fn a_wide_character_is_not_cut_in_two() {
        assert_eq!(Line::plain("名前名").cut(4).text(), "名…");
        assert_eq!(Line::plain("名前").cut(4).text(), "名前");
        assert_eq!(Line::plain("abc").cut(0).text(), "");
    }

    #[test]
    fn joined_characters_are_drawn_and_not_torn_at_the_end_of_a_line() {
        // Six columns at a terminal that draws each character, two at one that joins them.
        let family = "👩\u{200d}👩\u{200d}👧";
        let line = Line::plain(&format!("a {family} {family}"));
        assert_eq!(line.text(), format!("a {family} {family}"));
        assert_eq!(line.columns(), 15);
        assert_eq!(
            texts(&line.clone().wrapped(14)),
            [format!("a {family} "), format!("  {family}")]
        );
        assert_eq!(line.clone().cut(14).text(), format!("a {family} …"));
        let persian = "\u{645}\u{6CC}\u{200C}\u{62E}\u{648}\u{627}\u{647}\u{645}";
        assert_eq!(Line::plain(persian).text(), persian);
        // A heart with a variation selector takes two columns at some terminals, and one at others.
        let heart = Line::plain("\u{2764}").and(Style::Plain, "\u{FE0F}");
        assert_eq!(
            (heart.columns(), heart.text()),
            (2, "\u{2764}\u{FE0F}".to_owned())
        );
        // What fits no line at all is torn, and nothing of it is lost.
        let crowd = ["👩"; 20].join("\u{200d}");
        assert_eq!(
            texts(&Line::plain(&crowd).wrapped(20)).concat().replace(' ', ""),
            crowd
        );
    }

    proptest! {
        #[test]
        fn no_text_gets_control_and_no_line_is_too_long(text in "(\\PC|[👩❤🔥e\u{301}\u{200c}\u{200d}\u{fe0f}\u{1b} ]){0,60}", more in "\\PC{0,40}", columns in 0_usize..40) {
            let line = Line::plain(&text).and(Style::Good, &more);
            let mut lines = line.clone().wrapped(columns);
            lines.push(line.cut(columns));
            for line in lines {
                prop_assert!(line.columns() <= columns);
                let at_most: usize = line.spans().map(|(_, text)| columns_at_most(text)).sum();
                prop_assert_eq!(line.columns(), at_most);
                prop_assert!(line.text().chars().map(columns_of_character).sum::<usize>() <= columns);
                prop_assert!(!line.text().chars().any(char::is_control));
            }
        }

        #[test]
        fn nothing_is_lost_by_wrapping(text in "[a-z ]{0,60}", columns in 2_usize..20) {
            let wrapped = texts(&Line::plain(&text).wrapped(columns)).concat().replace(' ', "");
            prop_assert_eq!(wrapped, text.replace(' ', ""));
        }
    }
}
