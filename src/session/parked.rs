//! A session between two turns, in a process that animates several.
//!
//! A process has one access to the lobby, and so holds one lock at most, however many connections it serves: the access goes from
//! session to session, and with it the process's hand, which touches the records of one session at a time.

use crate::lobby::Lobby;
use crate::session::Session;
use crate::session::transport::Passed;
use crate::state::connections::ConnectionRecord;
use crate::state::layout::{ConnectionRef, PlayerRef};
use crate::state::players::PlayerRecord;
use shmem::transaction::OwnedRecords;

/// A [`Session`] without its access to the lobby.
pub struct Parked {
    connection: ConnectionRef,
    passed: Passed,
    record: &'static ConnectionRecord,
    player: Option<(PlayerRef, &'static PlayerRecord)>,
    animated: OwnedRecords,
    mail_waits: bool,
    chat_goes_first: bool,
}

impl Session {
    /// Gives the access to the lobby back, for another session's turn.
    ///
    /// # Panics
    ///
    /// If something has been left half done: a frame that is being handled, a doorbell that is to be rung. A mistake of the caller's.
    pub fn park(mut self) -> (Parked, Lobby) {
        assert!(self.frame_end.is_none() && self.input_state_behind.is_none() && self.paid.is_none());
        assert!(self.doorbells.is_empty() && self.keeper_doorbells.is_empty() && !self.chat_doorbell);
        let animated = self.lobby.attachment.swap_owned(OwnedRecords::default());
        let parked = Parked {
            connection: self.connection,
            passed: self.passed,
            record: self.record,
            player: self.player,
            animated,
            mail_waits: self.mail_waits,
            chat_goes_first: self.chat_goes_first,
        };
        (parked, self.lobby)
    }
}

impl Parked {
    /// The session's next turn.
    pub fn wake(self, mut lobby: Lobby) -> Session {
        // What the access animated before was parked with another session, or is nothing.
        let _ = lobby.attachment.swap_owned(self.animated);
        Session {
            lobby,
            connection: self.connection,
            passed: self.passed,
            record: self.record,
            player: self.player,
            frame_end: None,
            input_state_behind: None,
            paid: None,
            doorbells: Vec::new(),
            chat_doorbell: false,
            keeper_doorbells: Vec::new(),
            mail_waits: self.mail_waits,
            chat_goes_first: self.chat_goes_first,
        }
    }

    /// The connection.
    pub fn connection(&self) -> ConnectionRef {
        self.connection
    }

    /// The record of the connection.
    pub fn record(&self) -> &'static ConnectionRecord {
        self.record
    }
}
