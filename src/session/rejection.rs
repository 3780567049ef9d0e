//! Rejections: why a request changed nothing.

use forkade_protocol::RejectCode;

use crate::state::budget::TooSoon;
use crate::state::fault::Fault;
use crate::state::mailbox::PostError;
use forkade_games::{GameError, floor_char_boundary};

/// Why a request changed nothing. It goes to the client that made the request.
#[derive(Debug, thiserror::Error)]
#[error("{code:?}: {text}")]
pub struct Rejection {
    /// For programs.
    pub code: RejectCode,
    /// For people.
    pub text: String,
    /// A failure in the game's own code, for the server's log. It must be logged only when no lock is held.
    pub fault: Option<Box<Fault>>,
    /// Milliseconds after which the same request may be granted, if it came too soon.
    pub retry_after_ms: Option<u32>,
}

impl Rejection {
    /// A rejection whose text is cut to [`REJECTION_TEXT_BYTES_MAX`](crate::limits::REJECTION_TEXT_BYTES_MAX),
    /// because it may repeat what the client sent.
    pub fn new(code: RejectCode, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(floor_char_boundary(
            &text,
            crate::limits::REJECTION_TEXT_BYTES_MAX,
        ));
        Self {
            code,
            text,
            fault: None,
            retry_after_ms: None,
        }
    }

    /// A rejection because of a call of a game. If the game's code has failed, `fault` says in which call.
    pub(crate) fn of_call(error: GameError, fault: impl FnOnce(GameError) -> Fault) -> Self {
        let rejection = error.rejection();
        Self {
            code: rejection.code(),
            text: rejection.text().to_owned(),
            fault: (!error.is_rejection()).then(|| Box::new(fault(error))),
            retry_after_ms: None,
        }
    }

    /// A rejection of what came too soon. `rule` says what is limited; the time to wait is added to it.
    pub(crate) fn too_soon(code: RejectCode, rule: &str, too_soon: TooSoon) -> Self {
        Self {
            retry_after_ms: Some(u32::try_from(too_soon.wait_us.div_ceil(1000)).unwrap_or(u32::MAX)),
            ..Self::new(code, format!("{rule}; {too_soon}"))
        }
    }
}

impl From<shmem::journal::JournalFull> for Rejection {
    fn from(full: shmem::journal::JournalFull) -> Self {
        Self::new(RejectCode::StateTooLarge, full.to_string())
    }
}

impl From<shmem::event_log::EntryTooLarge> for Rejection {
    fn from(error: shmem::event_log::EntryTooLarge) -> Self {
        Self::new(RejectCode::StateTooLarge, error.to_string())
    }
}

impl From<PostError> for Rejection {
    fn from(error: PostError) -> Self {
        let code = match error {
            PostError::Gone => RejectCode::UnknownPlayer,
            PostError::Full => RejectCode::MailboxFull,
        };
        Self::new(code, error.to_string())
    }
}
