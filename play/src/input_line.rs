//! The line that is being typed: text, cursor, and the lines sent before.

use std::collections::VecDeque;

use crate::keys::Key;
use crate::limits::{PLAY_HISTORY_LINES_MAX, PLAY_INPUT_CHARACTERS_MAX};
use crate::styled::{columns_of, columns_of_character};

/// What is being typed.
#[derive(Debug, Default)]
pub(crate) struct InputLine {
    text: Vec<char>,
    /// Before which character the cursor stands; never between a character and the marks that it bears.
    cursor: usize,
    history: VecDeque<String>,
    /// Which line of the history is shown, and what was being typed before.
    recalled: Option<(usize, Vec<char>)>,
}

impl InputLine {
    /// What is there.
    pub(crate) fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// Whether nothing is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Puts other text in place of what is there, with the cursor behind it.
    pub(crate) fn replace(&mut self, text: &str) {
        self.text.clear();
        self.cursor = 0;
        for character in text.chars() {
            self.insert(character);
        }
    }

    /// Takes the line away and keeps it in the history.
    pub(crate) fn take(&mut self) -> String {
        let text = self.text();
        if !text.trim().is_empty() && self.history.back() != Some(&text) {
            if self.history.len() == PLAY_HISTORY_LINES_MAX {
                self.history.pop_front();
            }
            self.history.push_back(text.clone());
        }
        self.replace("");
        self.recalled = None;
        text
    }

    /// Does what an editing key does. False: it is none.
    pub(crate) fn edit(&mut self, key: Key) -> bool {
        match key {
            Key::Character(character) => self.insert(character),
            Key::Backspace => self.delete(self.before(), self.cursor),
            Key::Delete => self.delete(self.cursor, self.behind()),
            Key::DeleteWord => self.delete(self.word_before(), self.cursor),
            Key::DeleteToStart => self.delete(0, self.cursor),
            Key::DeleteToEnd => self.delete(self.cursor, self.text.len()),
            Key::Left => self.cursor = self.before(),
            Key::Right => self.cursor = self.behind(),
            Key::WordLeft => self.cursor = self.word_before(),
            Key::WordRight => self.cursor = self.word_behind(),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = self.text.len(),
            Key::Up => self.recall_older(),
            Key::Down => self.recall_newer(),
            _ => return false,
        }
        true
    }

    /// As much of the text as `columns` can show, and in which of them the cursor stands.
    pub(crate) fn shown(&self, columns: usize) -> (String, usize) {
        // The cursor needs a column, also behind the text.
        let room = columns.saturating_sub(1);
        let mut start = self.cursor;
        let mut before = 0;
        while start > 0 {
            let width = columns_of_character(self.text[start - 1]);
            if before + width > room {
                break;
            }
            (start, before) = (start - 1, before + width);
        }
        let mut shown = String::new();
        for character in &self.text[start..] {
            if columns_of(&shown) + columns_of_character(*character) > columns {
                break;
            }
            shown.push(*character);
        }
        (shown, before)
    }

    fn insert(&mut self, character: char) {
        if self.text.len() < PLAY_INPUT_CHARACTERS_MAX && !character.is_control() {
            self.text.insert(self.cursor, character);
            self.cursor += 1;
        }
    }

    fn delete(&mut self, from: usize, to: usize) {
        self.text.drain(from..to);
        self.cursor = from;
    }

    /// Where the character before the cursor begins; marks belong to what they stand on.
    fn before(&self) -> usize {
        let mut at = self.cursor;
        while at > 0 {
            at -= 1;
            if columns_of_character(self.text[at]) > 0 {
                break;
            }
        }
        at
    }

    fn behind(&self) -> usize {
        let mut at = (self.cursor + 1).min(self.text.len());
        while self
            .text
            .get(at)
            .is_some_and(|mark| columns_of_character(*mark) == 0)
        {
            at += 1;
        }
        at
    }

    fn word_before(&self) -> usize {
        let mut at = self.cursor;
        while at > 0 && self.text[at - 1] == ' ' {
            at -= 1;
        }
        while at > 0 && self.text[at - 1] != ' ' {
            at -= 1;
        }
        at
    }

    fn word_behind(&self) -> usize {
        let mut at = self.cursor;
        while self.text.get(at) == Some(&' ') {
            at += 1;
        }
        while self.text.get(at).is_some_and(|character| *character != ' ') {
            at += 1;
        }
        at
    }

    fn recall_older(&mut self) {
        let (index, draft) = match self.recalled.take() {
            Some((index, draft)) => (index.saturating_sub(1), draft),
            None if self.history.is_empty() => return,
            None => (self.history.len() - 1, self.text.clone()),
        };
        let line = self.history[index].clone();
        self.replace(&line);
        self.recalled = Some((index, draft));
    }

    fn recall_newer(&mut self) {
        let Some((index, draft)) = self.recalled.take() else {
            return;
        };
        if let Some(line) = self.history.get(index + 1).cloned() {
            self.replace(&line);
            self.recalled = Some((index + 1, draft));
        } else {
            self.cursor = draft.len();
            self.text = draft;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn typed(text: &str) -> InputLine {
        let mut line = InputLine::default();
        for character in text.chars() {
            line.edit(Key::Character(character));
        }
        line
    }

    fn after(text: &str, keys: &[Key]) -> (String, usize) {
        let mut line = typed(text);
        for key in keys {
            assert!(line.edit(*key));
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
        let mut line = InputLine::default();
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
        let mut line = InputLine::default();
        for number in 0..=PLAY_HISTORY_LINES_MAX {
            line.replace(&number.to_string());
            line.take();
        }
        assert_eq!(line.history.len(), PLAY_HISTORY_LINES_MAX);
        assert_eq!(line.history[0], "1");
    }

    #[test]
    fn a_line_has_an_end() {
        assert_eq!(typed(&"x".repeat(5000)).text.len(), PLAY_INPUT_CHARACTERS_MAX);
    }

    proptest! {
        #[test]
        fn the_cursor_is_always_seen(text in "[a-e\u{301}名😀 ]{0,40}", left in 0_usize..45, columns in 1_usize..30) {
            let mut line = typed(&text);
            for _ in 0..left {
                line.edit(Key::Left);
            }
            let (shown, cursor) = line.shown(columns);
            prop_assert!(cursor < columns);
            prop_assert!(columns_of(&shown) <= columns);
        }
    }
}
