//! The lobby: an API over shared state. Every change is a transaction under exactly one lock.
//!
//! * [`memory`]: what lies where; [`header`]: what is read without a lock; [`directory`], [`connections`], [`players`], [`rooms`]: the records;
//! * [`session`]: one connection and its player, as animated by a handler: [greeting](session::Session::greet), resume, end;
//! * [`membership`]: create, join, watch, leave; `settings`, `ownership`, [`invites`] and `reservations`: what a room's owner decides;
//! * [`play`]: ready, act; `turns`: their clocks; [`listing`]: what rooms there are;
//! * [`chat`]: what is said, and to whom; [`rate`]: how fast; [`mailbox`]: what waits for one player;
//! * [`delivery`]: from the room's log, the lobby's chat and the mailbox to the player's output;
//! * [`text_session`]: what is different with players in text mode;
//! * [`blame`]: rooms whose game kills the ticker;
//! * [`spyglass`]: an operator's look at a player's streams;
//! * [`sweep`]: what happens by time, and what dead processes left;
//! * [`check`]: whether all of it is consistent; [`picture`]: what it shows, for proofs.
//!
//! What concerns the lobby *and* a room takes two transactions with a lasting state in between, which whoever finds it can
//! complete or undo: a [player opening a room](players::Membership::opening), a [room that
//! closes](rooms::RoomLife::CLOSING), a [player who leaves for good](directory::Presence::EXPIRING).

pub mod chat;
pub mod delivery;
pub mod invites;
pub mod join_leave;
pub mod listing;
pub mod mailbox;
pub mod match_play;
pub(crate) mod ownership;
pub(crate) mod reservations;
mod room_query;
pub(crate) mod settings;
pub(crate) mod turns;

use forkade_protocol::RejectCode;

use crate::state::layout::Memory;
use forkade_games::{ErasedOutbox, GameError, Games, floor_char_boundary};
use shmem::transaction::Attachment;

/// One process's access to the lobby.
pub struct Lobby {
    /// The shared memory.
    pub memory: &'static Memory,
    /// The games that this server offers.
    pub games: &'static Games,
    pub(crate) attachment: Attachment,
    /// The events of one call of a game; used again and again.
    pub(crate) outbox: ErasedOutbox,
    /// Whether this process is the one that [notes](blame) whose game's code it runs.
    pub(crate) notes_games: bool,
    /// See [`Lobby::take_faults`].
    pub(crate) faults: Vec<GameError>,
}

impl Lobby {
    /// The calling process's access. To be called once per process, after its fork.
    pub fn attach(memory: &'static Memory, games: &'static Games) -> Self {
        Self {
            memory,
            games,
            attachment: memory.attach(),
            outbox: ErasedOutbox::new(),
            notes_games: false,
            faults: Vec::new(),
        }
    }

    /// What has failed in games' code where nobody's request could be rejected for it. For the log, when no lock is held.
    pub fn take_faults(&mut self) -> Vec<GameError> {
        std::mem::take(&mut self.faults)
    }
}

/// Why a request changed nothing: goes to the client who made it.
#[derive(Debug, thiserror::Error)]
#[error("{code:?}: {text}")]
pub struct Rejection {
    /// For programs.
    pub code: RejectCode,
    /// For people.
    pub text: String,
    /// What failed in the game's own code, for the server's log: to be shown when no lock is held.
    pub fault: Option<Box<GameError>>,
}

impl Rejection {
    /// A rejection with its reason, which is cut at [`REJECTION_TEXT_BYTES_MAX`](crate::limits::REJECTION_TEXT_BYTES_MAX):
    /// it may repeat what the client sent.
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
        }
    }
}

impl From<GameError> for Rejection {
    fn from(error: GameError) -> Self {
        let rejection = error.rejection();
        let fault = (!error.is_rejection()).then(|| Box::new(error));
        Self {
            code: rejection.code(),
            text: rejection.text().to_owned(),
            fault,
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
