//! One connection and, after the greeting, the player it carries, as animated by this process.
//!
//! A session holds nothing that a successor would need: [`Session::attach`] finds everything in the records, and the kernel says
//! how many bytes have passed. The life of a connection:
//!
//! ```text
//! HANDSHAKE ── greet ──────────────────────────────▶ OPEN ── close ──▶ CLOSING ── finish ──▶ DONE
//!     └─────── ask_to_resume ──▶ RESUMING ── resume ──▶┘
//! ```

mod close;
mod frames;
pub(crate) mod handshake;
mod parked;
pub mod rate;
pub mod stream_tap;
pub mod text_session;
pub mod transport;

use std::sync::atomic::Ordering;

use crate::limits::HANDSHAKE_BYTES_MAX;
use crate::lobby::Lobby;
use crate::lobby::mailbox::has_mail;
use crate::session::rate::Paid;
use crate::session::transport::Passed;
use crate::state::connections::{ConnectionRecord, Phase};
use crate::state::directory::Name;
use crate::state::layout::{ConnectionRef, PlayerRef};
use crate::state::players::{Membership, PlayerRecord};
use forkade_text::input::InputState;
use shmem::mutants::Mutant;

pub use crate::session::close::Farewell;
pub(crate) use crate::session::frames::Own;
pub use crate::session::handshake::Resume;
pub use crate::session::parked::Parked;

/// In a player's log cursor: the player must be given a snapshot before any further event.
pub(crate) const CURSOR_LOST: u64 = u64::MAX;

/// One connection and its player.
pub struct Session {
    /// This process's access to the lobby.
    pub lobby: Lobby,
    /// The connection.
    pub connection: ConnectionRef,
    /// What has passed on the connection: the handler asks the kernel once and counts from there.
    pub passed: Passed,
    pub(crate) record: &'static ConnectionRecord,
    pub(crate) player: Option<(PlayerRef, &'static PlayerRecord)>,
    /// Stream offset behind the frame that is being handled, which the next transaction of the player's consumes.
    pub(crate) frame_end: Option<u64>,
    /// What that frame costs.
    pub(crate) paid: Option<Paid>,
    /// In text mode: what the bytes up to there mean for those behind.
    pub(crate) input_state_behind: Option<InputState>,
    /// Rooms whose log this process has written to, and whose doorbell is to be rung.
    pub(crate) doorbells: Vec<u32>,
    /// This process has written to the lobby's chat, whose doorbell is to be rung.
    pub(crate) chat_doorbell: bool,
    /// Keepers for one of whose handlers this process has left word, and whose doorbell is to be rung.
    pub(crate) keeper_doorbells: Vec<u32>,
    /// There is, or may be, mail for the player.
    pub(crate) mail_waits: bool,
    /// What is delivered first this time, the lobby's chat or the room's events.
    pub(crate) chat_goes_first: bool,
}

/// The connection is beyond saving; the session is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's counts of bytes do not fit the records: {0:?}")]
pub struct Implausible(Passed);

/// What other processes want of this connection's handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Nothing,
    /// A newer connection has shown the player's token.
    Yield,
    /// An operator wants the player out.
    Kick,
    /// The server stops.
    Stop,
}

impl Session {
    /// Begins to animate a connection, as its first handler or as a successor. `passed` is what the kernel says.
    ///
    /// What a predecessor left under a lock is decided first.
    ///
    /// # Errors
    ///
    /// [`Implausible`]; the caller ends the connection, and the client resumes on a new one.
    pub fn attach(lobby: Lobby, index: u32, passed: Passed) -> (Self, Result<(), Implausible>) {
        let record = lobby.memory.connections.at(index);
        let connection = record.reference(index);
        let mut session = Self {
            lobby,
            connection,
            passed,
            record,
            player: None,
            frame_end: None,
            paid: None,
            input_state_behind: None,
            doorbells: Vec::with_capacity(2),
            chat_doorbell: false,
            keeper_doorbells: Vec::new(),
            mail_waits: false,
            chat_goes_first: false,
        };
        session.take_over();
        let plausible = if session.passed_is_plausible() {
            Ok(())
        } else {
            Err(Implausible(passed))
        };
        (session, plausible)
    }

    fn take_over(&mut self) {
        let lobby = &mut self.lobby;
        let settle = |lobby: &mut Lobby, noted: u64| lobby.memory.recover(&mut lobby.attachment, noted);
        use shmem::transaction::SingleWriter;
        settle(lobby, self.record.noted_lock().load(Ordering::Relaxed));
        lobby.attachment.acquire(self.record);
        if lobby.attachment.read_own(&self.record.occupant) != self.connection.generation() {
            self.reset_record();
            return;
        }
        let player = lobby.attachment.read_own(&self.record.player);
        if player.is_some() && self.phase() != Phase::RESUMING {
            let player_record = self.lobby.memory.players.at(player.index());
            settle(
                &mut self.lobby,
                player_record.noted_lock().load(Ordering::Relaxed),
            );
            self.lobby.attachment.acquire(player_record);
            self.player = Some((player, player_record));
            if !Mutant::NoSecondRing.is_on() {
                // The predecessor may have died between commit and doorbell.
                self.chat_doorbell = true;
                let place = self.membership().place();
                self.doorbells.extend(place.map(|(room, _)| room.index()));
            }
        }
    }

    /// The slot has a new occupant: the former's fields mean nothing.
    fn reset_record(&mut self) {
        let (record, generation) = (self.record, self.connection.generation());
        let mut tx = self.lobby.attachment.begin(self.lobby.memory.directory.record);
        tx.set(&record.occupant, generation);
        tx.set(&record.phase, Phase::HANDSHAKE.raw());
        tx.set(&record.leaves, 0);
        for count in [
            &record.handshake_bytes,
            &record.greeting_bytes,
            &record.farewell_bytes,
        ] {
            tx.set(count, 0);
        }
        tx.set(&record.player, PlayerRef::NONE);
        tx.set(&record.input_base, 0);
        tx.set(&record.output_base, 0);
        tx.set(&record.asked_from, 0);
        tx.set(&record.stream_end, u64::MAX);
        tx.commit().expect("resetting a record fits the journal");
    }

    /// Where the connection is in its life.
    pub fn phase(&self) -> Phase {
        Phase::from_raw(self.lobby.attachment.read_own(&self.record.phase))
    }

    /// The record of the connection.
    pub fn record(&self) -> &'static ConnectionRecord {
        self.record
    }

    /// The player, after the greeting.
    pub fn player(&self) -> Option<PlayerRef> {
        self.player.map(|(player, _)| player)
    }

    /// The player's name; empty before the greeting.
    pub fn name(&self) -> Name {
        self.player.map_or(Name::EMPTY, |(_, record)| {
            self.lobby.attachment.read_own(&record.name)
        })
    }

    /// Where the player is.
    pub fn membership(&self) -> Membership {
        self.player.map_or(Membership::LOBBY, |(_, record)| {
            self.lobby.attachment.read_own(&record.membership)
        })
    }

    /// Since when the connection has been closing, in milliseconds of the monotonic clock.
    pub fn closing_since_ms(&self) -> u64 {
        self.lobby.attachment.read_own(&self.record.closing_since_ms)
    }

    /// Rooms whose doorbell should be rung if their log has anything unannounced; asking empties the list.
    pub fn take_doorbells(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.doorbells)
    }

    /// Keepers whose doorbell should be rung; asking empties the list.
    pub fn take_keeper_doorbells(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.keeper_doorbells)
    }

    /// The bytes of the handshake that have arrived.
    pub fn handshake(&self) -> Vec<u8> {
        let length = usize::try_from(self.passed.received)
            .unwrap_or(usize::MAX)
            .min(HANDSHAKE_BYTES_MAX);
        let mut bytes = vec![0; length];
        self.record.handshake.copy_out(0, &mut bytes);
        bytes
    }

    /// What others want of this connection. Also finds out whether there is mail for the player.
    pub fn wanted(&mut self) -> Wanted {
        let memory = self.lobby.memory;
        if memory.header.stopping.load(Ordering::Acquire) != 0 {
            return Wanted::Stop;
        }
        let Some((player, _)) = self.player else {
            return Wanted::Nothing;
        };
        let tx = self.lobby.attachment.begin(memory.directory.record);
        let Some(identity) = memory.directory.identity(&tx, player) else {
            return Wanted::Kick;
        };
        self.mail_waits = has_mail(&tx, identity);
        if tx.get(&identity.kicked) != 0 {
            Wanted::Kick
        } else if tx.get(&identity.claimant).is_some() {
            Wanted::Yield
        } else {
            Wanted::Nothing
        }
    }
}
