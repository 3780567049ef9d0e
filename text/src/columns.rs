//! How many columns of a terminal text takes.

use unicode_width::UnicodeWidthChar as _;

/// Columns that a character takes; 0 for a mark on the character before it.
pub fn columns_of_character(character: char) -> usize {
    character.width().unwrap_or(0)
}

/// Columns that a text takes, character by character.
pub fn columns_of(text: &str) -> usize {
    text.chars().map(columns_of_character).sum()
}
