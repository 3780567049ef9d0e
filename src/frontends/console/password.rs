//! The password of the console on TCP. The unix socket needs none: only the server's own user can connect to it.

use std::sync::atomic::Ordering;

use shmem::sys::clock::now_ms;

use crate::config::password_digest;
use crate::frontends::console::{Console, Step, replies};
use crate::limits::{PASSWORD_GUESS_MS, PASSWORD_GUESSES_MAX, PASSWORD_TIMEOUT_MS};
use crate::state::connections::{OperatorFlag, Peer};

impl Console<'_> {
    /// Whether the operator must give the password before any command.
    pub(super) fn needs_password(&self) -> bool {
        let record = self.session.record();
        self.context.password.is_some()
            && matches!(record.peer(), Peer::Network(_))
            && !record.has_operator_flag(OperatorFlag::Password)
    }

    /// When the password must have been given: a successor counts from the accept, too.
    pub(super) fn password_due_ms(&self) -> u64 {
        self.session.record().accepted_at_ms.load(Ordering::Relaxed) + PASSWORD_TIMEOUT_MS
    }

    /// Ends a connection that has not given the password in time.
    pub(super) fn refuse_without_password(&mut self) {
        let header = self.session.state.memory.header;
        header.passwords_overdue_total.fetch_add(1, Ordering::Relaxed);
        let peer = self.session.record().peer();
        log::warn!("a client at {peer} has not given the console's password in time");
        self.guess = None;
        self.input.clear();
        self.close_with(&format!(
            "closed: no password within {} seconds",
            PASSWORD_TIMEOUT_MS / 1000
        ));
    }

    /// Takes a guess. It is answered only after a while, right or wrong, so that the number of guesses per second is
    /// bounded by the number of consoles.
    pub(super) fn guess_password(&mut self, guess: &str) {
        let Some(password) = self.context.password else {
            return self.write_error("this console has no password");
        };
        let is_right = are_equal(&password_digest(guess), &password);
        self.guess = Some((is_right, now_ms() + PASSWORD_GUESS_MS));
    }

    /// Answers the guess.
    pub(super) fn judge_guess(&mut self, is_right: bool) -> Step {
        self.guess = None;
        self.view_due_at_ms = u64::MAX;
        let record = self.session.record();
        if is_right {
            record.set_operator_flag(OperatorFlag::Password, true);
            log::info!("an operator at {} has given the password", record.peer());
            self.write_line(replies::OK);
            return Step::Continue;
        }
        self.wrong_guesses += 1;
        log::warn!("a client at {} has given a wrong password", record.peer());
        if self.wrong_guesses >= PASSWORD_GUESSES_MAX {
            return self.close_with("wrong password; too many guesses");
        }
        self.write_error("wrong password");
        Step::Continue
    }
}

/// Compares in a time that does not depend on where the two differ.
fn are_equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let difference = one
        .iter()
        .zip(other)
        .fold(0, |found, (one, other)| found | (one ^ other));
    std::hint::black_box(difference) == 0
}
