//! How many columns of a terminal text takes.

use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Columns that a character takes; 0 for a mark on the character before it.
pub fn columns_of_character(character: char) -> usize {
    character.width().unwrap_or(0)
}

/// Columns that a grapheme cluster takes at most: some terminals draw its characters as one, others draw each.
pub fn columns_of_grapheme(grapheme: &str) -> usize {
    grapheme.width().max(columns_of(grapheme))
}

/// Columns that a text takes at most, at any terminal.
pub fn columns_at_most(text: &str) -> usize {
    text.graphemes(true).map(columns_of_grapheme).sum()
}

/// Columns that a text takes, character by character.
pub fn columns_of(text: &str) -> usize {
    text.chars().map(columns_of_character).sum()
}

/// The pieces of a text that must not be torn: its grapheme clusters. One of more than `columns_max` columns, which
/// would not fit a line at a terminal that draws each of its characters, is given as its characters.
pub fn pieces(text: &str, columns_max: usize) -> impl Iterator<Item = &str> {
    text.graphemes(true).flat_map(move |grapheme| {
        let is_too_wide = columns_of_grapheme(grapheme) > columns_max;
        grapheme.split_inclusive(move |_| is_too_wide)
    })
}
