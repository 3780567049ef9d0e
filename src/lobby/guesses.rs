//! Guesses at a room's secrets: its passcode and its invite code.
//!
//! A player's own account (see [`rate`](crate::session::rate)) slows a single guesser. The room's budget slows all of
//! them together, so that many sessions do not find what one would not. A player that has failed before must leave half
//! of it to players that have not: a guest with the right passcode is judged at its first try, although others guess.
//! When the budget is spent, no guess is judged, right or wrong. The room's members notice nothing.

use std::sync::atomic::Ordering;

use forkade_protocol::RejectCode;

use crate::limits::GUESSES_BURST;
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::budget::{Budget, Rate};
use crate::state::header::Header;

/// How fast a player's guesses at a room are judged.
#[derive(Clone, Copy)]
pub(crate) struct Guesser {
    rate: Rate,
    header: &'static Header,
}

impl Guesser {
    /// The player of this session.
    pub(crate) fn of(session: &Session<'_>) -> Self {
        let header = session.state.memory.header;
        let per_minute = header.guesses_per_minute.load(Ordering::Relaxed);
        let rate = Rate::per_minute(per_minute, GUESSES_BURST);
        let rate = if session.has_not_failed() {
            rate
        } else {
            rate.keeping_half()
        };
        Self { rate, header }
    }

    /// Judges a guess. To be called under the room's lock, so that no other guess is judged between the check of the
    /// budget and its use.
    ///
    /// # Errors
    ///
    /// `wrong`, or [`RejectCode::TooFast`] if too many wrong guesses were made at the room.
    pub(crate) fn judge(self, budget: &Budget, is_right: bool, wrong: Rejection) -> Result<(), Rejection> {
        budget.check(self.rate, 1).map_err(|too_soon| {
            self.header.guesses_refused_total.fetch_add(1, Ordering::Relaxed);
            let rule = "too many wrong codes were tried at this room";
            Rejection::too_soon(RejectCode::TooFast, rule, too_soon)
        })?;
        if is_right {
            return Ok(());
        }
        // Granted, because the room's lock is held since the check.
        let _ = budget.take(self.rate, 1);
        Err(wrong)
    }
}
