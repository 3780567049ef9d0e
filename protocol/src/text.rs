//! Cleaning of names and chat. The server applies it; a client can apply it first to check a text.
//!
//! Cleaning removes invisible characters (control characters, direction overrides, zero-width characters), so that no
//! text can forge a line of a log or a terminal. It replaces any run of white space by one space, and removes white
//! space at both ends.
//!
//! [`names`] has the further rules for players' names: in the lines that the server writes, a player's name precedes
//! the player's text.

pub mod names;

use thiserror::Error;
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;
use unicode_script::{Script, UnicodeScript as _};

use crate::limits::{
    CHAT_BYTES_MAX, MARKS_OF_A_SCRIPT_MAX, MARKS_ON_A_LETTER_MAX, ROOM_NAME_BYTES_MAX,
    ROOM_NAME_CHARACTERS_MAX,
};

pub use crate::text::names::{clean_player_name, is_same_name};

/// Why a text is not valid after cleaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TextError {
    /// No visible character is left.
    #[error("nothing is left of it without invisible characters")]
    Empty,
    /// Too many characters.
    #[error("it has {characters} characters, at most {characters_max} are allowed")]
    TooManyCharacters {
        /// The number after cleaning.
        characters: usize,
        /// The limit.
        characters_max: usize,
    },
    /// Too many bytes in UTF-8.
    #[error("it has {bytes} bytes, at most {bytes_max} are allowed")]
    TooManyBytes {
        /// The number after cleaning.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A character that a player's name cannot contain, because it could make a line look like another player's.
    #[error("a name cannot contain '{0}'")]
    ForbiddenCharacter(char),
    /// More marks on a letter of a player's name than any reader needs.
    #[error("a name cannot have more than {MARKS_ON_A_LETTER_MAX} marks on a letter")]
    TooManyMarks,
    /// A word of a player's name mixes scripts, as if to look like another name.
    #[error("a word of a name cannot mix letters of several scripts")]
    MixedScripts,
    /// A player's name with the end of a sentence in it would read as if the server spoke.
    #[error("a name cannot contain the end of a sentence")]
    Sentence,
    /// A name that the server uses for itself or for the reader, that claims authority, or that its operator reserves;
    /// or a name that looks like one of these.
    #[error("that name is reserved")]
    Reserved,
}

/// Cleans a room's name. It is in composed form (NFC), and has no joiners.
///
/// # Errors
/// Any [`TextError`]. The limits are [`ROOM_NAME_CHARACTERS_MAX`] and [`ROOM_NAME_BYTES_MAX`].
pub fn clean_room_name(name: &str) -> Result<String, TextError> {
    let mut marks = MarkLimit::default();
    check_length(
        clean_composed(name)
            .chars()
            .filter(|character| marks.allows(*character))
            .nfc()
            .collect(),
        ROOM_NAME_CHARACTERS_MAX,
        ROOM_NAME_BYTES_MAX,
    )
}

/// Cleans a chat text. Variation selectors stay, and joiners between two characters, because scripts and emoji need
/// them. Marks beyond those that a letter may carry are removed.
///
/// # Errors
/// [`TextError::Empty`] or [`TextError::TooManyBytes`]. The limit is [`CHAT_BYTES_MAX`].
pub fn clean_chat(text: &str) -> Result<String, TextError> {
    let mut marks = MarkLimit::default();
    let is_kept =
        |character| (!is_invisible(character) || is_variation_selector(character)) && marks.allows(character);
    check_length(clean(text, is_kept, is_joiner), CHAT_BYTES_MAX, CHAT_BYTES_MAX)
}

/// Without invisible characters, and in composed form (NFC).
fn clean_composed(text: &str) -> String {
    // What is removed could keep a letter and its mark apart.
    clean(text, |character| !is_invisible(character), |_| false)
        .nfc()
        .collect()
}

/// Keeps the characters for which `is_kept` is true, and one space for each run of white space between them. A
/// character for which `joins` is true stays between two others that stay.
fn clean(text: &str, mut is_kept: impl FnMut(char) -> bool, joins: impl Fn(char) -> bool) -> String {
    let mut cleaned = String::new();
    let (mut space_before, mut joiner_before) = (false, None);
    for character in text.chars() {
        if character.is_whitespace() {
            space_before = !cleaned.is_empty();
            joiner_before = None;
        } else if joins(character) {
            joiner_before = joiner_before.or((!space_before && !cleaned.is_empty()).then_some(character));
        } else if is_kept(character) {
            if std::mem::take(&mut space_before) {
                cleaned.push(' ');
            }
            cleaned.extend(joiner_before.take());
            cleaned.push(character);
        }
    }
    cleaned
}

/// Counts the marks of a letter: stacked, they cover the lines above and below.
#[derive(Default)]
struct MarkLimit {
    general: usize,
    of_script: usize,
}

impl MarkLimit {
    /// Returns false if the next character of a text is a mark beyond those that its letter may carry.
    fn allows(&mut self, character: char) -> bool {
        if !is_combining_mark(character) {
            *self = Self::default();
            return true;
        }
        let (marks, marks_max) = match character.script() {
            Script::Inherited => (&mut self.general, MARKS_ON_A_LETTER_MAX),
            // Some scripts write vowels and tones in such marks.
            _ => (&mut self.of_script, MARKS_OF_A_SCRIPT_MAX),
        };
        *marks += 1;
        *marks <= marks_max
    }
}

fn check_length(text: String, characters_max: usize, bytes_max: usize) -> Result<String, TextError> {
    // Joiners, variation selectors and marks alone are not visible.
    if !text.chars().any(is_visible) {
        return Err(TextError::Empty);
    }
    let bytes = text.len();
    if bytes > bytes_max {
        return Err(TextError::TooManyBytes { bytes, bytes_max });
    }
    let characters = text.chars().count();
    if characters > characters_max {
        return Err(TextError::TooManyCharacters {
            characters,
            characters_max,
        });
    }
    Ok(text)
}

/// Whether the character shows by itself.
fn is_visible(character: char) -> bool {
    !is_invisible(character) && !is_combining_mark(character) && !character.is_whitespace()
}

/// Control characters, characters that Unicode defines to render as nothing (Default_Ignorable_Code_Point, and format
/// characters for direction and annotation), characters that are drawn blank, and those that Unicode does not assign.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || character.script() == Script::Unknown
        || matches!(
            character,
            '\u{AD}'
                | '\u{34F}'
                | '\u{61C}'
                | '\u{115F}'..='\u{1160}'
                | '\u{17B4}'..='\u{17B5}'
                | '\u{180B}'..='\u{180F}'
                | '\u{200B}'..='\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{FE00}'..='\u{FE0F}'
                | '\u{FEFF}'
                | '\u{FFA0}'
                | '\u{FFF0}'..='\u{FFFC}'
                | '\u{13430}'..='\u{1343F}'
                | '\u{13441}'..='\u{13446}'
                | '\u{1BCA0}'..='\u{1BCA3}'
                | '\u{1D159}'
                | '\u{1D173}'..='\u{1D17A}'
                | '\u{E0000}'..='\u{E0FFF}'
        )
}

/// Zero-width joiner and non-joiner.
fn is_joiner(character: char) -> bool {
    matches!(character, '\u{200C}' | '\u{200D}')
}

fn is_variation_selector(character: char) -> bool {
    matches!(character, '\u{FE00}'..='\u{FE0F}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn length_limits_apply_after_cleaning() {
        assert_eq!(
            clean_player_name(&format!("  {}\u{200B}", "n".repeat(24))),
            Ok("n".repeat(24))
        );
        let too_long = clean_player_name(&"n".repeat(25));
        assert_eq!(
            too_long,
            Err(TextError::TooManyCharacters {
                characters: 25,
                characters_max: 24
            })
        );
        assert_eq!(
            clean_room_name(&"😀".repeat(31)),
            Err(TextError::TooManyBytes {
                bytes: 124,
                bytes_max: 120
            })
        );
        assert_eq!(
            clean_chat(&"c".repeat(501)),
            Err(TextError::TooManyBytes {
                bytes: 501,
                bytes_max: 500
            })
        );
    }

    #[test]
    fn chat_keeps_joined_emoji_and_stays_on_one_line() {
        for text in [
            "👩\u{200D}🚀 \u{2764}\u{FE0F}",
            "\u{645}\u{6CC}\u{200C}\u{62E}\u{648}\u{627}\u{647}\u{645}",
            "\u{2764}\u{FE0F}\u{200D}🔥",
        ] {
            assert_eq!(clean_chat(text), Ok(text.into()));
        }
        assert_eq!(clean_chat("a\u{2028}b\u{85}c\u{202E}d"), Ok("a b cd".into()));
    }

    #[test]
    fn a_joiner_that_joins_nothing_is_removed() {
        assert_eq!(
            clean_chat("\u{200D}a\u{200D}\u{200C}b\u{200D} \u{200C}c\u{200D}"),
            Ok("a\u{200D}b c".into())
        );
        assert_eq!(clean_chat("\u{200D}"), Err(TextError::Empty));
    }

    #[test]
    fn a_letter_of_a_chat_text_keeps_few_marks() {
        let marks = "\u{301}".repeat(12);
        assert_eq!(clean_chat(&format!("Z{marks}al")), Ok("Z\u{301}\u{301}al".into()));
        let joined = "\u{301}\u{200D}".repeat(12);
        let kept = clean_chat(&format!("Z{joined}al")).expect("it has letters");
        assert_eq!(kept.matches('\u{301}').count(), 2);
        // Of two consonants, with a vowel and tones each.
        let burmese = "\u{1019}\u{103C}\u{102D}\u{102F}\u{1037}";
        assert_eq!(clean_chat(burmese), Ok(burmese.into()));
    }

    #[test]
    fn a_room_name_is_composed_and_draws_something() {
        assert_eq!(
            clean_room_name("Zoe\u{308}'s \u{202E}room"),
            Ok("Zo\u{eb}'s room".into())
        );
        for blank in ["\u{1D159}", "\u{FFFC}", "\u{E000} \u{301}", "\u{2800}"] {
            assert_eq!(clean_room_name(blank), Err(TextError::Empty), "{blank:?}");
        }
    }

    proptest! {
        #[test]
        fn a_clean_text_is_clean(text in "\\PC{0,60}|[a-z\u{301}\u{200c}\u{200d} \u{202e}\u{5d0}\u{410}\u{fe0f}]{0,20}") {
            for clean in [clean_player_name, clean_room_name, clean_chat] {
                if let Ok(cleaned) = clean(&text) {
                    prop_assert_eq!(clean(&cleaned), Ok(cleaned));
                }
            }
        }
    }
}
