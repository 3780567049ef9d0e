//! The answer of a game to an action or options that it does not allow.

use std::borrow::Cow;

use forkade_protocol::RejectCode;
use thiserror::Error;

use crate::limits::REJECTION_TEXT_BYTES_MAX;

/// Why a game refuses: a code for programs, and a text for people. The constructors cover the codes that a game may
/// give. A text of more than [`REJECTION_TEXT_BYTES_MAX`] bytes is cut.
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

    /// The text or bytes are no action of this game.
    pub fn bad_action(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectCode::BadAction, text.into())
    }

    /// The text or bytes are no options of this game, or options that contradict each other.
    pub fn bad_options(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectCode::BadOptions, text.into())
    }

    /// The game cannot be played with this number of seats, or not with these options.
    pub fn seats_out_of_range(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RejectCode::SeatsOutOfRange, text.into())
    }

    /// The reason, for programs.
    pub fn code(&self) -> RejectCode {
        self.code
    }

    /// The reason, for people.
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

/// The largest number of bytes, at most `bytes_max`, at which `text` can be cut between two characters. (The standard
/// library has `str::floor_char_boundary` since Rust 1.91.)
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
