//! Players' names: which names a player may have, and which two names count as one.
//!
//! In the lines that the server writes, a player's name precedes the player's text, and people know each other by
//! name. So a name cannot contain the characters that end a name in such a line (for example a colon), cannot read as
//! a line of the server, and cannot look like the name of another player or of the server. What looks alike is decided
//! by the skeletons of [UTS #39](https://www.unicode.org/reports/tr39/).

use unicode_normalization::UnicodeNormalization as _;
use unicode_security::mixed_script::AugmentedScriptSet;
use unicode_security::skeleton;

use crate::limits::{PLAYER_NAME_BYTES_MAX, PLAYER_NAME_CHARACTERS_MAX};
use crate::text::{MarkLimit, TextError, check_length, clean_composed};

/// Names that a player cannot have. Nor can it have a name that looks like one of them, if case and all characters but
/// letters and digits are ignored.
pub const PLAYER_NAMES_RESERVED: [&str; 7] = [
    "server",
    "the server",
    "you",
    "admin",
    "operator",
    "system",
    "moderator",
];

/// Characters that a player's name cannot contain: those that follow a name or enclose remarks in the server's lines,
/// the asterisk, which begins the server's own lines, and all that look like a colon or an asterisk.
pub const PLAYER_NAME_CHARACTERS_FORBIDDEN: &str = ":*,()\
    \u{2D0}\u{2F8}\u{589}\u{5C3}\u{703}\u{704}\u{16EC}\u{1803}\u{1809}\u{205A}\u{2236}\u{A4FD}\u{A789}\u{FE13}\u{FE30}\u{FE55}\u{FF1A}\
    \u{66D}\u{204E}\u{2051}\u{2217}\u{2731}\u{2732}\u{2733}\u{FE61}\u{FF0A}";

/// Characters that end a sentence, besides those whose compatible form (NFKC) ends in one of these.
const SENTENCE_ENDS: &str = ".!?\u{589}\u{61F}\u{6D4}\u{964}\u{965}\u{3002}";

/// Characters that can stand between the end of a sentence and the space after it.
const CLOSING_MARKS: &str = "\"'])}>\u{BB}\u{2019}\u{201D}\u{203A}\u{300D}\u{300F}";

/// Cleans a player's name.
///
/// # Errors
/// Any [`TextError`]. The limits are [`PLAYER_NAME_CHARACTERS_MAX`] and [`PLAYER_NAME_BYTES_MAX`]. A name contains none
/// of [`PLAYER_NAME_CHARACTERS_FORBIDDEN`], and none of [`PLAYER_NAMES_RESERVED`] [is](is_reserved) like it.
pub fn clean_player_name(name: &str) -> Result<String, TextError> {
    let name = check_length(
        clean_composed(name),
        PLAYER_NAME_CHARACTERS_MAX,
        PLAYER_NAME_BYTES_MAX,
    )?;
    if let Some(unfit) = name
        .chars()
        .find(|character| PLAYER_NAME_CHARACTERS_FORBIDDEN.contains(*character))
    {
        return Err(TextError::ForbiddenCharacter(unfit));
    }
    let mut marks = MarkLimit::default();
    if !name.chars().all(|character| marks.allows(character)) {
        return Err(TextError::TooManyMarks);
    }
    let mut words = name.split(' ');
    if words.any(|word| AugmentedScriptSet::for_str(word).is_empty()) {
        return Err(TextError::MixedScripts);
    }
    if has_end_of_sentence(&name) {
        return Err(TextError::Sentence);
    }
    match is_reserved(&name, &PLAYER_NAMES_RESERVED) {
        true => Err(TextError::Reserved),
        false => Ok(name),
    }
}

/// The keys by which names are compared: two names count as one if their first keys are equal, or their second keys.
/// The first is the skeleton of the name in small letters, so that a name is one in any case. The second is the
/// skeleton of the name as it is written: a capital letter can look like a letter of another alphabet that its small
/// letter does not look like.
pub fn name_keys(name: &str) -> [String; 2] {
    let small: String = name.chars().flat_map(char::to_lowercase).collect();
    [skeleton_of(&small), skeleton_of(name)]
}

/// Whether two names count as one: they are equal if case is ignored, or they look alike.
pub fn is_same_name(one: &str, other: &str) -> bool {
    let pairs = name_keys(one).into_iter().zip(name_keys(other));
    pairs.into_iter().any(|(one, other)| one == other)
}

/// Whether a name looks like one of the reserved names, if case and all characters but letters and digits are ignored.
pub fn is_reserved(name: &str, reserved: &[impl AsRef<str>]) -> bool {
    // A reserved name is reserved in every spelling: also as "Adm1n", where a digit looks like a letter.
    let keys = |name: &str| name_keys(&letters_and_digits(name)).map(|key| key.replace('i', "l"));
    let keys_of_name = keys(name);
    reserved.iter().any(|reserved| {
        std::iter::zip(keys(reserved.as_ref()), &keys_of_name).any(|(one, other)| one == *other)
    })
}

fn letters_and_digits(name: &str) -> String {
    name.chars()
        .filter(|character| character.is_alphanumeric())
        .collect()
}

/// The skeleton, in small letters: some characters have a capital letter as their skeleton.
fn skeleton_of(name: &str) -> String {
    skeleton(name).flat_map(char::to_lowercase).collect()
}

/// Whether the name has the end of a sentence before a space: the rest would read as a line of its own.
fn has_end_of_sentence(name: &str) -> bool {
    let ends_sentence = |word: &str| {
        let word = word.trim_end_matches(|character| CLOSING_MARKS.contains(character));
        word.nfkc()
            .last()
            .is_some_and(|last| SENTENCE_ENDS.contains(last))
    };
    name.rsplit(' ').skip(1).any(ends_sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_loses_its_invisible_characters() {
        assert_eq!(
            clean_player_name("  An\u{202E}n\u{200B} \t\r\n  B\u{7}o\u{1B}b\u{9B} "),
            Ok("Ann Bob".into())
        );
        assert_eq!(clean_player_name("A\u{200D}nn"), Ok("Ann".into()));
        assert_eq!(clean_player_name("Zoë Ωλ 名前"), Ok("Zoë Ωλ 名前".into()));
        assert_eq!(clean_player_name("Zoe\u{200D}\u{308}"), Ok("Zoë".into()));
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
            "J.R.O'Neil-Smith_2",
            "[7] of \"9\"",
            "\u{1F3B2} Jos\u{e9}",
            "\u{0928}\u{092E}\u{0903}",
            "Ann!",
            "5.5",
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
            "\u{405}erver",
            "\u{FF33}erver",
            "\u{FF33}\u{FF45}\u{FF52}\u{FF56}\u{FF45}\u{FF52}",
            "Admin",
            "ADMIN",
            "Adm1n",
            "AdmIn",
            "Adrnin",
            "operator",
            "0perator",
            "Systern",
            "m0derat0r",
        ] {
            let refused = clean_player_name(name);
            assert!(
                matches!(refused, Err(TextError::Reserved | TextError::MixedScripts)),
                "{name:?}: {refused:?}"
            );
        }
        for name in [
            "Serverin",
            "The servers",
            "Youssef",
            "No",
            "Administra",
            "\u{1F3B2}",
        ] {
            assert_eq!(clean_player_name(name), Ok(name.into()));
        }
        assert!(is_reserved("Th\u{435} Boss", &["the boss"]) && !is_reserved("The Bass", &["the boss"]));
    }

    #[test]
    fn a_name_draws_something() {
        for name in [
            "",
            " ",
            "\u{200B}\u{2800}",
            "\u{3000}\n",
            "\u{3164}",
            "\u{1D159}",
            "\u{FFFC}",
            "\u{301}",
            "\u{E000}\u{378}",
        ] {
            assert_eq!(clean_player_name(name), Err(TextError::Empty), "{name:?}");
        }
    }

    #[test]
    fn a_letter_of_a_name_has_few_marks() {
        let zalgo = format!("Z{}", "\u{301}".repeat(12));
        assert_eq!(clean_player_name(&zalgo), Err(TextError::TooManyMarks));
        let thai = format!("\u{E01}{}", "\u{E47}".repeat(5));
        assert_eq!(clean_player_name(&thai), Err(TextError::TooManyMarks));
        // A name of three marks in all, and a place in Burma.
        for name in [
            "\u{1F84}\u{3B4}\u{3C9}",
            "\u{1019}\u{103C}\u{102D}\u{102F}\u{1037}",
        ] {
            assert_eq!(clean_player_name(name), Ok(name.into()));
        }
    }

    #[test]
    fn a_word_of_a_name_has_one_script() {
        for name in ["Ann\u{430}", "\u{410}nn", "Bob \u{410}nn", "Zo\u{3AD}"] {
            assert_eq!(clean_player_name(name), Err(TextError::MixedScripts), "{name:?}");
        }
        for name in [
            "\u{5d0}\u{5d1}\u{5d2}",
            "\u{5c0f}\u{9f8d}",
            "\u{6771}\u{4EAC}\u{30BF}\u{30EF}\u{30FC}",
            "\u{AE40}\u{CCA0}\u{C218}",
            "\u{41C}\u{430}\u{440}\u{438}\u{44F}-2",
            "Ann \u{410}\u{43D}\u{43D}\u{430}",
        ] {
            assert_eq!(clean_player_name(name), Ok(name.into()));
        }
    }

    #[test]
    fn a_name_is_no_sentence() {
        for name in [
            "The match is over. Ann",
            "You win! Ann",
            "Ready? Ann",
            "Over\u{2026} Ann",
            "Over\u{FF0E} Ann",
            "\"Over.\" Ann",
            "J. R.",
            "\u{5c0f}\u{3002} \u{9f8d}",
        ] {
            assert_eq!(clean_player_name(name), Err(TextError::Sentence), "{name:?}");
        }
    }

    #[test]
    fn names_that_differ_in_case_or_look_alike_are_one() {
        for (one, other) in [
            ("Ann", "ANN"),
            ("Ann", "\u{410}nn"),
            ("Zo\u{eb}", "Zoe\u{308}"),
            ("Alice", "AIice"),
            ("Alice", "ALICE"),
            ("Bob", "B0b"),
            ("Barn", "Bam"),
            // Capitals that look Latin, with small letters that do not.
            ("BOB", "\u{412}\u{41E}\u{412}"),
            ("NINA", "\u{39D}\u{399}\u{39D}\u{391}"),
            ("\u{418}\u{432}\u{430}\u{43D}", "\u{418}\u{412}\u{410}\u{41D}"),
        ] {
            assert!(
                is_same_name(one, other) && is_same_name(other, one),
                "{one} {other}"
            );
        }
        for (one, other) in [
            ("Ann", "Ann 2"),
            ("c12", "c112"),
            ("c10", "c100"),
            ("Ali", "Al"),
            ("Zoe", "Zo\u{eb}"),
        ] {
            assert!(!is_same_name(one, other), "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_never_looks_like_a_reserved_one(
            reserved in proptest::sample::select(PLAYER_NAMES_RESERVED.as_slice()),
            changes in proptest::collection::vec((0_usize..12, proptest::sample::select("\u{455}\u{435}\u{443}\u{43E}\u{FF53}\u{FF25}Il10\u{406}\u{2170}".chars().collect::<Vec<_>>())), 0..6),
        ) {
            let mut letters: Vec<char> = reserved.chars().collect();
            for (at, letter) in changes {
                if let Some(changed) = letters.get_mut(at) {
                    *changed = letter;
                }
            }
            let name: String = letters.into_iter().collect();
            if let Ok(accepted) = clean_player_name(&name) {
                prop_assert!(!PLAYER_NAMES_RESERVED.iter().any(|reserved| is_same_name(reserved, &accepted)), "{accepted:?}");
            }
        }

        #[test]
        fn a_name_is_one_in_any_case_and_in_any_form(name in "\\PC{1,24}") {
            if let Ok(name) = clean_player_name(&name) {
                use unicode_normalization::UnicodeNormalization as _;
                let decomposed: String = name.nfd().collect();
                prop_assert!(is_same_name(&name, &decomposed));
                let small: String = name.chars().flat_map(char::to_lowercase).collect();
                prop_assert!(is_same_name(&name, &small));
            }
        }
    }
}
