//! The line that is typed: its text, the cursor, and the lines entered before. Pure: keys in; what shows the line draws
//! it.

use std::collections::VecDeque;
use std::ops::Range;

use crate::columns::columns_of_character;
use crate::keys::Key;

/// What a line may hold.
#[derive(Debug, Clone, Copy)]
pub struct LineLimits {
    /// The longest line in characters.
    pub characters_max: usize,
    /// The longest line in bytes of UTF-8.
    pub bytes_max: usize,
    /// The number of lines that can be recalled.
    pub history_lines_max: usize,
    /// Whether a character, which is no control character, may be in a line.
    pub accepts: fn(char) -> bool,
}

/// What a key has done to the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// The line or the cursor has changed.
    Changed,
    /// Nothing: the key edits, but not here.
    NoEffect,
    /// Nothing: it is no editing key.
    NotHandled,
}

/// A line under construction, with its history.
#[derive(Debug)]
pub struct LineEditor {
    limits: LineLimits,
    text: Vec<char>,
    /// The index of the character at the cursor; never that of a mark, which belongs to the character before it.
    cursor: usize,
    history: VecDeque<Vec<char>>,
    /// The index of the line of the history that is shown, and the text before it was recalled.
    recalled: Option<(usize, Vec<char>)>,
}

impl LineEditor {
    /// An empty line without a history.
    pub fn new(limits: LineLimits) -> Self {
        Self {
            limits,
            text: Vec::new(),
            cursor: 0,
            history: VecDeque::new(),
            recalled: None,
        }
    }

    /// The text.
    pub fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// Some characters of the text.
    pub fn characters(&self, range: Range<usize>) -> &[char] {
        &self.text[range]
    }

    /// The cursor's position in characters.
    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// Whether the cursor is behind the last character.
    pub fn is_at_end(&self) -> bool {
        self.cursor == self.text.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Replaces the text; the cursor is behind it.
    pub fn replace(&mut self, text: &str) {
        self.text.clear();
        self.cursor = 0;
        for character in text.chars() {
            self.insert(character);
        }
    }

    /// Discards the text and keeps the history.
    pub fn clear(&mut self) {
        self.text.clear();
        (self.cursor, self.recalled) = (0, None);
    }

    /// Takes the line out of the editor. Its text can be recalled, unless it is blank or the same as the one before.
    pub fn take(&mut self) -> String {
        let line = std::mem::take(&mut self.text);
        let text: String = line.iter().collect();
        self.clear();
        if !text.trim().is_empty() && self.history.back() != Some(&line) {
            if self.history.len() == self.limits.history_lines_max {
                self.history.pop_front();
            }
            self.history.push_back(line);
        }
        text
    }

    /// Applies an editing key.
    pub fn edit(&mut self, key: Key) -> Edit {
        let has_effect = match key {
            Key::Character(character) => self.insert(character),
            Key::Backspace => self.delete(self.before_cursor()..self.cursor),
            Key::Delete => self.delete(self.cursor..self.behind_cursor()),
            Key::DeleteWord => self.delete(self.word_start()..self.cursor),
            Key::DeleteToStart => self.delete(0..self.cursor),
            Key::DeleteToEnd => self.delete(self.cursor..self.text.len()),
            Key::Left => self.move_to(self.before_cursor()),
            Key::Right => self.move_to(self.behind_cursor()),
            Key::WordLeft => self.move_to(self.word_start()),
            Key::WordRight => self.move_to(self.word_end()),
            Key::Home => self.move_to(0),
            Key::End => self.move_to(self.text.len()),
            Key::Up => self.recall_older(),
            Key::Down => self.recall_newer(),
            _ => return Edit::NotHandled,
        };
        if has_effect { Edit::Changed } else { Edit::NoEffect }
    }

    /// The characters to show in a window of `columns`, of which the last one stays free for the cursor. The window
    /// begins at the character `first`, or as much further as the cursor requires.
    pub fn window(&self, first: usize, columns: usize) -> Range<usize> {
        let space = columns.saturating_sub(1);
        let columns_of = |index: usize| columns_of_character(self.text[index]);
        let mut first = first.min(self.cursor);
        let mut used: usize = (first..self.cursor).map(columns_of).sum();
        while used > space {
            used -= columns_of(first);
            first += 1;
        }
        let mut end = self.cursor;
        while end < self.text.len() && used + columns_of(end) <= space {
            used += columns_of(end);
            end += 1;
        }
        first..end
    }

    fn insert(&mut self, character: char) -> bool {
        let bytes: usize = self.text.iter().map(|character| character.len_utf8()).sum();
        if self.text.len() >= self.limits.characters_max
            || bytes + character.len_utf8() > self.limits.bytes_max
            || character.is_control()
            || !(self.limits.accepts)(character)
        {
            return false;
        }
        self.text.insert(self.cursor, character);
        self.cursor += 1;
        true
    }

    fn delete(&mut self, range: Range<usize>) -> bool {
        let has_effect = !range.is_empty();
        self.cursor = range.start;
        self.text.drain(range);
        has_effect
    }

    fn move_to(&mut self, cursor: usize) -> bool {
        std::mem::replace(&mut self.cursor, cursor) != cursor
    }

    /// The index of the character before the cursor. Marks belong to the character that they stand on.
    fn before_cursor(&self) -> usize {
        let characters = self.text[..self.cursor].iter();
        let base = characters.rev().position(|character| !is_mark(*character));
        base.map_or(0, |distance| self.cursor - 1 - distance)
    }

    /// The index behind the character at the cursor and its marks.
    fn behind_cursor(&self) -> usize {
        let Some(rest) = self.text.get(self.cursor + 1..) else {
            return self.text.len();
        };
        let marks = rest.iter().take_while(|character| is_mark(**character)).count();
        self.cursor + 1 + marks
    }

    fn word_start(&self) -> usize {
        let mut at = self.cursor;
        while at > 0 && self.text[at - 1] == ' ' {
            at -= 1;
        }
        while at > 0 && self.text[at - 1] != ' ' {
            at -= 1;
        }
        at
    }

    fn word_end(&self) -> usize {
        let mut at = self.cursor;
        while self.text.get(at) == Some(&' ') {
            at += 1;
        }
        while self.text.get(at).is_some_and(|character| *character != ' ') {
            at += 1;
        }
        at
    }

    fn recall_older(&mut self) -> bool {
        let shown = self
            .recalled
            .as_ref()
            .map_or(self.history.len(), |(shown, _)| *shown);
        let Some(older) = shown.checked_sub(1) else {
            return false;
        };
        let replaced = std::mem::replace(&mut self.text, self.history[older].clone());
        let draft = self.recalled.take().map_or(replaced, |(_, draft)| draft);
        self.recalled = Some((older, draft));
        self.cursor = self.text.len();
        true
    }

    fn recall_newer(&mut self) -> bool {
        let Some((shown, draft)) = self.recalled.take() else {
            return false;
        };
        match self.history.get(shown + 1) {
            Some(newer) => {
                self.text.clone_from(newer);
                self.recalled = Some((shown + 1, draft));
            }
            None => self.text = draft,
        }
        self.cursor = self.text.len();
        true
    }
}

fn is_mark(character: char) -> bool {
    columns_of_character(character) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHARACTERS_MAX: usize = 600;
    const HISTORY_LINES_MAX: usize = 100;

    fn editor() -> LineEditor {
        LineEditor::new(LineLimits {
            characters_max: CHARACTERS_MAX,
            bytes_max: usize::MAX,
            history_lines_max: HISTORY_LINES_MAX,
            accepts: |_| true,
        })
    }

    fn typed(text: &str) -> LineEditor {
        let mut line = editor();
        for character in text.chars() {
            line.edit(Key::Character(character));
        }
        line
    }

    fn after(text: &str, keys: &[Key]) -> (String, usize) {
        let mut line = typed(text);
        for key in keys {
            assert_ne!(line.edit(*key), Edit::NotHandled);
        }
        (line.text(), line.cursor)
    }

    #[test]
    fn keys_edit_where_the_cursor_stands() {
        use Key::*;
        assert_eq!(after("abc", &[Left, Character('x')]), ("abxc".into(), 3));
        assert_eq!(after("abc", &[Left, Backspace]), ("ac".into(), 1));
        assert_eq!(after("abc", &[Home, Delete]), ("bc".into(), 0));
        assert_eq!(after("abc", &[Home, Backspace, Left]), ("abc".into(), 0));
        assert_eq!(after("abc", &[Delete, Right]), ("abc".into(), 3));
        assert_eq!(after("one two  ", &[DeleteWord]), ("one ".into(), 4));
        assert_eq!(after("one two", &[WordLeft, DeleteToStart]), ("two".into(), 0));
        assert_eq!(
            after("one two", &[Home, WordRight, DeleteToEnd]),
            ("one".into(), 3)
        );
    }

    #[test]
    fn a_mark_goes_with_its_character() {
        assert_eq!(after("e\u{301}", &[Key::Backspace]), (String::new(), 0));
        assert_eq!(
            after("ae\u{301}b", &[Key::Home, Key::Right, Key::Right, Key::Backspace]),
            ("ab".into(), 1)
        );
    }

    #[test]
    fn the_history_goes_back_and_forth_and_gives_back_the_draft() {
        let mut line = editor();
        for text in ["first", "second", "second", " "] {
            line.replace(text);
            assert_eq!(line.take(), text);
        }
        line.replace("draft");
        let mut shown = Vec::new();
        for key in [Key::Up, Key::Up, Key::Up, Key::Down, Key::Down, Key::Down] {
            line.edit(key);
            shown.push(line.text());
        }
        assert_eq!(shown, ["second", "first", "first", "second", "draft", "draft"]);
    }

    #[test]
    fn the_history_forgets_the_oldest() {
        let mut line = editor();
        for number in 0..=HISTORY_LINES_MAX {
            line.replace(&number.to_string());
            line.take();
        }
        assert_eq!(line.history.len(), HISTORY_LINES_MAX);
        assert_eq!(line.history[0], ['1']);
    }

    #[test]
    fn a_line_has_an_end() {
        assert_eq!(typed(&"x".repeat(5000)).text.len(), CHARACTERS_MAX);
    }

    #[test]
    fn a_key_that_changes_nothing_says_so() {
        let mut line = typed("a");
        let edits = [
            Key::Right,
            Key::Delete,
            Key::Up,
            Key::Down,
            Key::Home,
            Key::Home,
            Key::Tab,
        ]
        .map(|key| line.edit(key));
        use Edit::*;
        assert_eq!(
            edits,
            [
                NoEffect, NoEffect, NoEffect, NoEffect, Changed, NoEffect, NotHandled
            ]
        );
    }

    proptest! {
        #[test]
        fn the_cursor_is_always_seen(text in "[a-e\u{301}名😀 ]{0,40}", left in 0_usize..45, columns in 1_usize..30) {
            let mut line = typed(&text);
            for _ in 0..left {
                line.edit(Key::Left);
            }
            let window = line.window(0, columns);
            let columns_of = |range: Range<usize>| line.text[range].iter().copied().map(columns_of_character).sum::<usize>();
            prop_assert!(window.start <= line.cursor && line.cursor <= window.end);
            prop_assert!(columns_of(window.start..line.cursor) < columns);
            prop_assert!(columns_of(window) <= columns);
        }
    }
}
