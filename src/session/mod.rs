//! One connection and, after the greeting, the player it carries, as animated by this process.
//!
//! A session holds nothing that a successor would need: [`Session::attach`] finds everything in the records, and the kernel says
//! how many bytes have byte_counts. The life of a connection:
//!
//! ```text
//! HANDSHAKE ── greet ──────────────────────────────▶ OPEN ── close ──▶ CLOSING ── finish ──▶ DONE
//!     └─────── request_resume ──▶ RESUMING ── resume ──▶┘
//! ```

mod close;
mod frames;
pub(crate) mod handshake;
pub mod rate;
pub mod rejection;
pub mod text_session;
pub mod transport;

use std::sync::atomic::Ordering;

use crate::limits::HANDSHAKE_BYTES_MAX;
use crate::session::rate::RateCharge;
use crate::session::transport::ByteCounts;
use crate::state::connections::{ConnectionRecord, Phase};
use crate::state::directory::Name;
use crate::state::handle::StateHandle;
use crate::state::layout::{ConnectionRef, PlayerRef};
use crate::state::mailbox::has_mail;
use crate::state::players::{Membership, PlayerRecord};
use forkade_text::input::InputState;
use shmem::mutants::Mutant;

pub use crate::session::close::CloseReason;
pub(crate) use crate::session::frames::PlayerTx;
pub use crate::session::handshake::Resume;

/// In a player's log cursor: the player must be given a snapshot before any further event.
pub(crate) const CURSOR_LOST: u64 = u64::MAX;

/// What a process keeps of a session between two turns. [`IdleSession::activate`] makes it a [`Session`] again.
#[derive(Clone, Copy)]
pub struct IdleSession {
    connection: ConnectionRef,
    byte_counts: ByteCounts,
    record: &'static ConnectionRecord,
    player: Option<(PlayerRef, &'static PlayerRecord)>,
    mail_waits: bool,
    chat_goes_first: bool,
}

impl IdleSession {
    /// The connection.
    pub fn connection(&self) -> ConnectionRef {
        self.connection
    }

    /// The session's next turn. Until it [ends](Session::park), the process writes to the records of this session alone.
    pub fn activate(self, state: &mut StateHandle) -> Session<'_> {
        state.attachment.release_all();
        state.attachment.acquire(self.record);
        if let Some((_, player)) = self.player {
            state.attachment.acquire(player);
        }
        Session::with(state, self)
    }
}

/// One connection and its player, for the duration of a turn.
///
/// A process has one handle on the shared state, and so holds at most one lock, however many sessions it serves: a session borrows
/// the handle while it is active.
pub struct Session<'s> {
    /// This process's handle on the shared state.
    pub state: &'s mut StateHandle,
    /// The connection.
    pub connection: ConnectionRef,
    /// What has byte_counts on the connection: the handler asks the kernel once and counts from there.
    pub byte_counts: ByteCounts,
    pub(crate) record: &'static ConnectionRecord,
    pub(crate) player: Option<(PlayerRef, &'static PlayerRecord)>,
    /// Stream offset behind the frame that is being handled, which the next transaction of the player's consumes.
    pub(crate) frame_end: Option<u64>,
    /// What that frame costs.
    pub(crate) charge: Option<RateCharge>,
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
pub struct Implausible(ByteCounts);

/// What other processes want of this connection's handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlRequest {
    /// Nothing.
    Nothing,
    /// A newer connection has published the player's token.
    Yield,
    /// An operator wants the player out.
    Kick,
    /// The server stops.
    Stop,
}

impl<'s> Session<'s> {
    /// Begins to acquire a connection, as its first handler or as a successor. `byte_counts` is what the kernel says.
    ///
    /// What a predecessor left under a lock is decided first.
    ///
    /// # Errors
    ///
    /// [`Implausible`]; the caller ends the connection, and the client resumes on a new one.
    pub fn attach(
        state: &'s mut StateHandle,
        index: u32,
        byte_counts: ByteCounts,
    ) -> (Self, Result<(), Implausible>) {
        let record = state.memory.connections.at(index);
        let mut session = Self::with(
            state,
            IdleSession {
                connection: record.reference(index),
                byte_counts,
                record,
                player: None,
                mail_waits: false,
                chat_goes_first: false,
            },
        );
        session.take_over();
        let plausible = if session.passed_is_plausible() {
            Ok(())
        } else {
            Err(Implausible(byte_counts))
        };
        (session, plausible)
    }

    fn with(state: &'s mut StateHandle, idle: IdleSession) -> Self {
        Self {
            state,
            connection: idle.connection,
            byte_counts: idle.byte_counts,
            record: idle.record,
            player: idle.player,
            frame_end: None,
            charge: None,
            input_state_behind: None,
            doorbells: Vec::new(),
            chat_doorbell: false,
            keeper_doorbells: Vec::new(),
            mail_waits: idle.mail_waits,
            chat_goes_first: idle.chat_goes_first,
        }
    }

    /// Ends the turn: another session may use the handle.
    ///
    /// # Panics
    ///
    /// If something has been left half done: a frame that is being handled, a doorbell that is to be rung. A mistake of the caller's.
    pub fn park(self) -> IdleSession {
        assert!(self.frame_end.is_none() && self.input_state_behind.is_none() && self.charge.is_none());
        assert!(self.doorbells.is_empty() && self.keeper_doorbells.is_empty() && !self.chat_doorbell);
        self.idle()
    }

    /// What is to be kept of the session as it stands now.
    pub fn idle(&self) -> IdleSession {
        IdleSession {
            connection: self.connection,
            byte_counts: self.byte_counts,
            record: self.record,
            player: self.player,
            mail_waits: self.mail_waits,
            chat_goes_first: self.chat_goes_first,
        }
    }

    fn take_over(&mut self) {
        use shmem::transaction::SingleWriter;
        let record = self.record;
        self.state.recover(record.noted_lock().load(Ordering::Relaxed));
        self.state.attachment.release_all();
        self.state.attachment.acquire(record);
        if self.state.attachment.read_own(&record.occupant) != self.connection.generation() {
            self.reset_record();
            return;
        }
        let player = self.state.attachment.read_own(&record.player);
        if player.is_some() && self.phase() != Phase::RESUMING {
            let player_record = self.state.memory.players.at(player.index());
            self.state
                .recover(player_record.noted_lock().load(Ordering::Relaxed));
            self.state.attachment.acquire(player_record);
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
        let mut tx = self.state.attachment.begin(self.state.memory.directory.record);
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
        Phase::from_raw(self.state.attachment.read_own(&self.record.phase))
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
            self.state.attachment.read_own(&record.name)
        })
    }

    /// Where the player is.
    pub fn membership(&self) -> Membership {
        self.player.map_or(Membership::LOBBY, |(_, record)| {
            self.state.attachment.read_own(&record.membership)
        })
    }

    /// Since when the connection has been closing, in milliseconds of the monotonic clock.
    pub fn closing_since_ms(&self) -> u64 {
        self.state.attachment.read_own(&self.record.closing_since_ms)
    }

    /// Rooms whose doorbell should be rung if their log has anything unannounced_head; asking empties the list.
    pub fn take_doorbells(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.doorbells)
    }

    /// Whether the lobby's chat is to be rung for; asking says that it will be.
    pub fn take_chat_doorbell(&mut self) -> bool {
        std::mem::take(&mut self.chat_doorbell)
    }

    /// Keepers whose doorbell should be rung; asking empties the list.
    pub fn take_keeper_doorbells(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.keeper_doorbells)
    }

    /// The bytes of the handshake that have arrived.
    pub fn handshake(&self) -> Vec<u8> {
        let length = usize::try_from(self.byte_counts.received)
            .unwrap_or(usize::MAX)
            .min(HANDSHAKE_BYTES_MAX);
        let mut bytes = vec![0; length];
        self.record.handshake.copy_out(0, &mut bytes);
        bytes
    }

    /// What others want of this connection. Also finds out whether there is mail for the player.
    pub fn control_request(&mut self) -> ControlRequest {
        let memory = self.state.memory;
        if memory.header.stopping.load(Ordering::Acquire) != 0 {
            return ControlRequest::Stop;
        }
        let Some((player, _)) = self.player else {
            return ControlRequest::Nothing;
        };
        let tx = self.state.attachment.begin(memory.directory.record);
        let Some(identity) = memory.directory.identity(&tx, player) else {
            return ControlRequest::Kick;
        };
        self.mail_waits = has_mail(&tx, identity);
        if tx.get(&identity.kicked) != 0 {
            ControlRequest::Kick
        } else if tx.get(&identity.claimant).is_some() {
            ControlRequest::Yield
        } else {
            ControlRequest::Nothing
        }
    }
}
