//! Guesses at a room's secrets: its passcode and its invite code.
//!
//! A player's own account (see [`rate`](crate::session::rate)) slows a single guesser. The room's budget slows all of
//! them together, so that many sessions do not find what one would not. A player that has failed before must leave half
//! of it to players that have not: a guest with the right passcode is judged at its first try, although others guess.
//! So must a player from whose [source](crate::state::sources) others have guessed: another name is no new beginning. A
//! source has an account of its own for the guesses at all rooms.
//! When the budget is spent, no guess is judged, right or wrong. The room's members notice nothing.

use std::sync::atomic::Ordering;

use forkade_protocol::RejectCode;

use crate::limits::{FAILURE_REMEMBERED_MS, GUESSES_BURST};
use crate::session::Session;
use crate::session::rejection::Rejection;
use crate::state::budget::{Budget, Rate};
use crate::state::layout::Memory;
use crate::state::sources::{SourceAccount, SourceKey};

/// How fast a player's guesses at a room are judged.
#[derive(Clone, Copy)]
pub(crate) struct Guesser {
    rate: Rate,
    memory: &'static Memory,
    source: Option<SourceKey>,
}

impl Guesser {
    /// The player of this session.
    pub(crate) fn of(session: &Session<'_>) -> Self {
        let (memory, source) = (session.state.memory, session.source());
        let per_minute = memory.header.guesses_per_minute.load(Ordering::Relaxed);
        let rate = Rate::per_minute(per_minute, GUESSES_BURST);
        let remembered_us = FAILURE_REMEMBERED_MS * 1000;
        let has_guessed = |key| {
            memory
                .sources
                .was_used_within(key, SourceAccount::Guesses, remembered_us)
        };
        let rate = match session.has_not_failed() && !source.is_some_and(has_guessed) {
            true => rate,
            false => rate.keeping_half(),
        };
        Self { rate, memory, source }
    }

    /// Judges a guess. To be called under the room's lock, so that no other guess is judged between the check of the
    /// budget and its use.
    ///
    /// # Errors
    ///
    /// `wrong`, or [`RejectCode::TooFast`] if too many wrong guesses were made at the room or by the source's players.
    pub(crate) fn judge(self, budget: &Budget, is_right: bool, wrong: Rejection) -> Result<(), Rejection> {
        let (header, sources) = (self.memory.header, &self.memory.sources);
        let per_minute = header.source_guesses_per_minute.load(Ordering::Relaxed);
        let of_source = Rate::per_minute(per_minute, per_minute);
        let refused = |rule| {
            move |too_soon| {
                header.guesses_refused_total.fetch_add(1, Ordering::Relaxed);
                Rejection::too_soon(RejectCode::TooFast, rule, too_soon)
            }
        };
        budget
            .check(self.rate, 1)
            .map_err(refused("too many wrong codes were tried at this room"))?;
        self.source
            .map_or(Ok(()), |key| {
                sources.check(key, SourceAccount::Guesses, of_source)
            })
            .map_err(refused("too many wrong codes were tried from your address"))?;
        if is_right {
            return Ok(());
        }
        // Granted, because the room's lock is held since the check.
        let _ = budget.take(self.rate, 1);
        if let Some(key) = self.source {
            sources.spend(key, SourceAccount::Guesses, of_source, 1);
        }
        Err(wrong)
    }
}
