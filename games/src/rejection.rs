//! What a game answers to what it does not allow.

use std::borrow::Cow;

use forkade_protocol::RejectCode;
use thiserror::Error;

use crate::limits::REJECTION_TEXT_BYTES_MAX;

/// Why a game refuses: a code for programs, from those that are a game's to give, and a text for people. The text is cut
/// at [`REJECTION_TEXT_BYTES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct Rejection {
    code: RejectCode,
    text: Cow<'static, str>,
}

impl Rejection {
    /// The rules forbid the action.
    pub fn illegal_action(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectCode::IllegalAction, text.into())
    }

    /// Another seat is to move.
    pub fn not_your_turn() -> Self {
        Self::new(RejectCode::NotYourTurn, "it is not your turn".into())
    }

    /// The match is over.
    pub fn match_is_over() -> Self {
        Self::new(RejectCode::NotPlaying, "the match is over".into())
    }

    /// What came is no action of this game at all.
    pub fn bad_action(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectCode::BadAction, text.into())
    }

    /// What came are no options of this game, or impossible ones.
    pub fn bad_options(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectCode::BadOptions, text.into())
    }

    /// The options do not go with so many seats.
    pub fn seats_out_of_range(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectCode::SeatsOutOfRange, text.into())
    }

    /// Why, for programs.
    pub fn code(&self) -> RejectCode {
        self.code
    }

    /// Why, for people.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn new(code: RejectCode, mut text: Cow<'static, str>) -> Self {
        let fits = floor_char_boundary(&text, REJECTION_TEXT_BYTES_MAX);
        if fits < text.len() {
            text.to_mut().truncate(fits);
        }
        Rejection { code, text }
    }
}

/// How much of a text is kept where there is space for `bytes_max` bytes, in bytes.
pub fn floor_char_boundary(text: &str, bytes_max: usize) -> usize {
    let longest = text.len().min(bytes_max);
    (0..=longest)
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let rejection = Rejection::illegal_action("x".to_owned() + &"é".repeat(REJECTION_TEXT_BYTES_MAX));
        assert_eq!(rejection.text().len(), REJECTION_TEXT_BYTES_MAX - 1);
        assert_eq!(rejection.code(), RejectCode::IllegalAction);
    }
}
