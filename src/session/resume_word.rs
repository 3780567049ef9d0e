//! The word by which a player in text mode resumes: what a token is to a program, but short enough to type.

use std::fmt;

use forkade_text::code;
use sha2::{Digest, Sha256};

use crate::limits::PLAYERS_OR_ROOMS_MAX;

/// Letters and digits of a word, 5 bits each.
const DIGITS: u32 = 16;
const SECRET_BITS: u32 = 60;
const INDEX_BITS: u32 = 5 * DIGITS - SECRET_BITS;
const _: () = assert!(PLAYERS_OR_ROOMS_MAX <= 1 << INDEX_BITS);

/// A decoded word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResumeWord {
    /// Index of the player's record.
    pub(crate) index: u32,
    secret: u64,
}

impl ResumeWord {
    /// The word of a player, with as many of the random bits as it has.
    pub(crate) fn new(index: u32, random: u64) -> Self {
        Self {
            index,
            secret: random & ((1 << SECRET_BITS) - 1),
        }
    }

    /// Parses a [word](code::parse). Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let bits = code::parse(text, DIGITS)?;
        Some(Self {
            index: u32::try_from(bits >> SECRET_BITS).ok()?,
            secret: u64::try_from(bits & ((1 << SECRET_BITS) - 1)).ok()?,
        })
    }

    /// The hash that the player's identity keeps in place of a token's. It differs from the hash of every token: the
    /// hashed text has another beginning and another length.
    pub(crate) fn hash(self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(b"resume word");
        hasher.update(self.index.to_le_bytes());
        hasher.update(self.secret.to_le_bytes());
        hasher.finalize().into()
    }
}

impl fmt::Display for ResumeWord {
    /// Formats the word for people: `0007-Q2HM-ZK4T-9WXP`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from(self.index) << SECRET_BITS | u128::from(self.secret);
        formatter.write_str(&code::format(bits, DIGITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_understood_however_it_is_typed() {
        let word = ResumeWord::new(7, 0x0123_4567_89AB_CDEF);
        let shown = word.to_string();
        assert_eq!(shown.len(), 19);
        for typed in [shown.clone(), shown.to_lowercase(), shown.replace('-', " ")] {
            assert_eq!(ResumeWord::parse(&typed), Some(word));
        }
        assert_eq!(ResumeWord::parse(&shown[1..]), None);
        assert_ne!(word.hash(), ResumeWord::new(7, 0).hash());
    }
}
