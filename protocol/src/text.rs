//! Cleaning of names and chat. The server applies it; a client can apply it first to check a text.
//!
//! Cleaning removes invisible characters (control characters, direction overrides, zero-width characters), so that no
//! text can forge a line of a log or a terminal, and no two names look alike. It replaces any run of white space by one
//! space, and removes white space at both ends.
//!
//! In the lines that the server writes, a player's name precedes the player's text. A name therefore cannot contain the
//! characters that end a name in such a line (for example a colon), and cannot be the name that such lines use for the
//! server or for the reader.

use thiserror::Error;

use crate::limits::{
    CHAT_BYTES_MAX, PLAYER_NAME_BYTES_MAX, PLAYER_NAME_CHARACTERS_MAX, ROOM_NAME_BYTES_MAX,
    ROOM_NAME_CHARACTERS_MAX,
};

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
    /// A name that the server uses for itself or for the reader.
    #[error("the name \"{0}\" is reserved")]
    Reserved(&'static str),
}

/// Names that a player cannot have, ignoring case and all characters but letters and digits.
pub const PLAYER_NAMES_RESERVED: [&str; 3] = ["server", "the server", "you"];

/// Characters that a player's name cannot contain: those that follow a name or enclose remarks in the server's lines,
/// the asterisk, which begins the server's own lines, and all that look like a colon or an asterisk.
pub const PLAYER_NAME_CHARACTERS_FORBIDDEN: &str = ":*,()\
    \u{2D0}\u{2F8}\u{589}\u{5C3}\u{703}\u{704}\u{16EC}\u{1803}\u{1809}\u{205A}\u{2236}\u{A4FD}\u{A789}\u{FE13}\u{FE30}\u{FE55}\u{FF1A}\
    \u{66D}\u{204E}\u{2051}\u{2217}\u{2731}\u{2732}\u{2733}\u{FE61}\u{FF0A}";

/// Cleans a player's name.
///
/// # Errors
/// Any [`TextError`]. The limits are [`PLAYER_NAME_CHARACTERS_MAX`] and [`PLAYER_NAME_BYTES_MAX`]. A name contains none
/// of [`PLAYER_NAME_CHARACTERS_FORBIDDEN`], and its letters and digits are none of [`PLAYER_NAMES_RESERVED`].
pub fn clean_player_name(name: &str) -> Result<String, TextError> {
    let name = check_length(
        clean(name, is_invisible),
        PLAYER_NAME_CHARACTERS_MAX,
        PLAYER_NAME_BYTES_MAX,
    )?;
    if let Some(unfit) = name
        .chars()
        .find(|character| PLAYER_NAME_CHARACTERS_FORBIDDEN.contains(*character))
    {
        return Err(TextError::ForbiddenCharacter(unfit));
    }
    match PLAYER_NAMES_RESERVED
        .into_iter()
        .find(|reserved| lowercase_alphanumerics(reserved) == lowercase_alphanumerics(&name))
    {
        Some(reserved) => Err(TextError::Reserved(reserved)),
        None => Ok(name),
    }
}

/// The form of a name that is compared with reserved names.
fn lowercase_alphanumerics(name: &str) -> String {
    let letters = name.chars().filter(|character| character.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

/// Cleans a room's name.
///
/// # Errors
/// Any [`TextError`]. The limits are [`ROOM_NAME_CHARACTERS_MAX`] and [`ROOM_NAME_BYTES_MAX`].
pub fn clean_room_name(name: &str) -> Result<String, TextError> {
    check_length(
        clean(name, is_invisible),
        ROOM_NAME_CHARACTERS_MAX,
        ROOM_NAME_BYTES_MAX,
    )
}

/// Cleans a chat text. Joiners and variation selectors stay, because scripts and emoji need them.
///
/// # Errors
/// [`TextError::Empty`] or [`TextError::TooManyBytes`]. The limit is [`CHAT_BYTES_MAX`].
pub fn clean_chat(text: &str) -> Result<String, TextError> {
    let is_removed = |character| is_invisible(character) && !shapes_neighbours(character);
    check_length(clean(text, is_removed), CHAT_BYTES_MAX, CHAT_BYTES_MAX)
}

fn clean(text: &str, is_removed: impl Fn(char) -> bool) -> String {
    let mut cleaned = String::new();
    let mut space_before = false;
    for character in text.chars() {
        if character.is_whitespace() {
            space_before = !cleaned.is_empty();
        } else if !is_removed(character) {
            if std::mem::take(&mut space_before) {
                cleaned.push(' ');
            }
            cleaned.push(character);
        }
    }
    cleaned
}

fn check_length(text: String, characters_max: usize, bytes_max: usize) -> Result<String, TextError> {
    // Joiners alone are not visible.
    if !text.chars().any(|character| !is_invisible(character)) {
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

/// Control characters, characters that Unicode defines to render as nothing (Default_Ignorable_Code_Point, and format
/// characters for direction and annotation), and the blank braille pattern.
fn is_invisible(character: char) -> bool {
    character.is_control()
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
                | '\u{FFF0}'..='\u{FFFB}'
                | '\u{1BCA0}'..='\u{1BCA3}'
                | '\u{1D173}'..='\u{1D17A}'
                | '\u{E0000}'..='\u{E0FFF}'
        )
}

/// Zero-width joiner and non-joiner, and variation selectors.
fn shapes_neighbours(character: char) -> bool {
    matches!(character, '\u{200C}' | '\u{200D}' | '\u{FE00}'..='\u{FE0F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_loses_its_invisible_characters() {
        assert_eq!(
            clean_player_name("  An\u{202E}n\u{200B} \t\r\n  B\u{7}o\u{1B}b\u{9B} "),
            Ok("Ann Bob".into())
        );
        assert_eq!(clean_player_name("A\u{200D}nn"), Ok("Ann".into()));
        assert_eq!(clean_player_name("Zoë-Ωλ 名前"), Ok("Zoë-Ωλ 名前".into()));
    }

    #[test]
    fn a_name_cannot_contain_a_character_that_ends_names() {
        for name in [
            "Ann: I",
            "Ann\u{FF1A} I",
            "Ann \u{2236}",
            "a, b",
            "*Ann",
            "\u{2731} Ann",
            "Ann (you)",
        ] {
            assert!(
                matches!(clean_player_name(name), Err(TextError::ForbiddenCharacter(_))),
                "{name:?}"
            );
        }
        for name in [
            "J. R. O'Neil-Smith_2",
            "[7] of \"9\"",
            "\u{1F3B2} Jos\u{e9}",
            "\u{0928}\u{092E}\u{0903}",
        ] {
            assert_eq!(clean_player_name(name), Ok(name.into()));
        }
    }

    #[test]
    fn a_player_cannot_have_the_name_of_the_server_or_of_the_reader() {
        for name in [
            "The server",
            "the  SERVER",
            "Server",
            "T.h.e-server",
            "~ Server ~",
            "You",
            "y_o_u",
        ] {
            assert!(
                matches!(clean_player_name(name), Err(TextError::Reserved(_))),
                "{name:?}"
            );
        }
        for name in ["Serverin", "The servers", "Youssef", "No"] {
            assert_eq!(clean_player_name(name), Ok(name.into()));
        }
    }

    #[test]
    fn a_name_needs_a_visible_character() {
        for name in ["", " ", "\u{200B}\u{2800}", "\u{3000}\n", "\u{3164}"] {
            assert_eq!(clean_player_name(name), Err(TextError::Empty), "{name:?}");
        }
        assert_eq!(clean_chat("\u{200D}"), Err(TextError::Empty));
    }

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
        assert_eq!(
            clean_chat("👩\u{200D}🚀 \u{2764}\u{FE0F}\nok"),
            Ok("👩\u{200D}🚀 \u{2764}\u{FE0F} ok".into())
        );
        assert_eq!(clean_chat("a\u{2028}b\u{85}c\u{202E}d"), Ok("a b cd".into()));
    }
}
