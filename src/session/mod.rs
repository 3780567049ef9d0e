//! One player's byte streams on one TCP connection: bytes, frames, cursors, resume, close. No rule of the lobby.
//!
//! A session keeps nothing in the process that a successor would need: [`Session::attach`] reads everything from the
//! records, and the kernel tells how many bytes were transferred. The phases of a connection:
//!
//! ```text
//! HANDSHAKE ── greet ──────────────────────────────▶ OPEN ── close ──▶ CLOSING ── finish ──▶ DONE
//!     └─────── request_resume ──▶ RESUMING ── try_resume ──▶┘
//! ```
//!
//! * [`transport`]: which bytes come next, computed from the kernel's counts and the records;
//! * `frames`: the next frame of the input, and how a transaction consumes it and replies;
//! * `banner`, `handshake`, `close`: the start and the end of a connection;
//! * [`proxy_header`]: who the client is, if a proxy passes its connection on;
//! * [`text_session`]: what differs for players in text mode, and [`resume_word`], by which they come back;
//! * [`rate`]: how fast a player may make requests; `source`: what they cost its address;
//! * [`rejection`]: why a request changed nothing.

mod banner;
mod close;
mod frames;
pub(crate) mod handshake;
pub mod proxy_header;
pub mod rate;
pub mod rejection;
pub mod resume_word;
mod secrets;
pub(crate) mod source;
pub mod text_session;
pub mod transport;

use std::sync::atomic::Ordering;

use crate::limits::{
    HANDSHAKE_BYTES_MAX, HANDSHAKE_OUTPUT_BYTES_MAX, OPENING_BYTES_MAX, PROXY_HEADER_BYTES_MAX,
};
use crate::session::proxy_header::ProxyHeader;
use crate::session::rate::RateCharge;
use crate::session::transport::ByteCounts;
use crate::state::budget::{TooSoon, now_us};
use crate::state::connections::{ConnectionRecord, LongOpening, Phase};
use crate::state::directory::Name;
use crate::state::handle::StateHandle;
use crate::state::layout::{ConnectionRef, PlayerRef};
use crate::state::mailbox::has_mail;
use crate::state::players::{Dialect, Membership, PlayerRecord};
use forkade_text::input::InputState;
use shmem::mutants::Mutant;

pub use crate::session::close::CloseReason;
use crate::session::frames::ConfirmSearch;
pub(crate) use crate::session::frames::PlayerTx;
pub use crate::session::handshake::{Greeting, Resume};

/// A player's log cursor with this value: the player must get a snapshot before any further event.
pub(crate) const CURSOR_LOST: u64 = u64::MAX;

/// What a handler keeps of a session while another one is active. [`IdleSession::activate`] makes it a [`Session`]
/// again.
#[derive(Clone, Copy)]
pub struct IdleSession {
    connection: ConnectionRef,
    byte_counts: ByteCounts,
    record: &'static ConnectionRecord,
    player: Option<(PlayerRef, &'static PlayerRecord)>,
    mail_waits: bool,
    chat_goes_first: bool,
    input_held_until_us: u64,
    reader_wait: Option<ReaderWait>,
    confirm_search: ConfirmSearch,
}

/// The next frame waits for other readers of the room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReaderWait {
    /// When their wait was noted last, in milliseconds of the monotonic clock.
    pub(crate) since_ms: u64,
    /// Their seats, as bits.
    pub(crate) seats: u64,
}

impl IdleSession {
    /// The connection.
    pub fn connection(&self) -> ConnectionRef {
        self.connection
    }

    /// Activates the session. Until it is [parked](Session::park), this process writes to the records of this session
    /// only.
    pub fn activate(self, state: &mut StateHandle) -> Session<'_> {
        state.attachment.release_all();
        state.attachment.acquire(self.record);
        if let Some((_, player)) = self.player {
            state.attachment.acquire(player);
        }
        Session::with(state, self)
    }
}

/// A connection and its player, while this process works for them.
///
/// A process has one handle on the shared state, so it holds at most one lock, however many sessions it serves. A
/// session borrows the handle while it is active.
pub struct Session<'s> {
    /// This process's handle on the shared state.
    pub state: &'s mut StateHandle,
    /// The connection.
    pub connection: ConnectionRef,
    /// Bytes transferred on the connection: read once from the kernel, then counted.
    pub byte_counts: ByteCounts,
    pub(crate) record: &'static ConnectionRecord,
    pub(crate) player: Option<(PlayerRef, &'static PlayerRecord)>,
    /// Input offset behind the current frame, which the player's next transaction consumes.
    pub(crate) frame_end: Option<u64>,
    /// The charge for the current frame.
    pub(crate) charge: Option<RateCharge>,
    /// The charge for the current frame if it is rejected.
    pub(crate) charge_if_rejected: Option<RateCharge>,
    /// The request in the current frame, if its client wants to know that it was accepted.
    pub(crate) to_acknowledge: Option<u32>,
    /// The charge for the rooms that the current frame has examined.
    pub(crate) search_charge: Option<RateCharge>,
    /// In text mode: the parser's state behind the current line.
    pub(crate) input_state_behind: Option<InputState>,
    /// Rooms to whose log this process has written; their doorbells must be rung.
    pub(crate) doorbells: Vec<u32>,
    /// This process has written to the lobby's chat; its doorbell must be rung.
    pub(crate) chat_doorbell: bool,
    /// Keepers for whose handlers this process has set a flag; their doorbells must be rung.
    pub(crate) keeper_doorbells: Vec<u32>,
    /// The player has mail, or may have.
    pub(crate) mail_waits: bool,
    /// Which source is delivered first this time: the lobby's chat or the room's events.
    pub(crate) chat_goes_first: bool,
    /// No frame is handled before this time, in microseconds of the monotonic clock: see [`Session::hold_input`]. 0: it
    /// is not held.
    input_held_until_us: u64,
    /// The wait of the next frame for other readers of the room. A successor begins again: the wait is short.
    pub(crate) reader_wait: Option<ReaderWait>,
    confirm_search: ConfirmSearch,
}

/// This connection cannot be continued. The session can, on another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's counts of bytes do not fit the records: {0:?}")]
pub struct Implausible(ByteCounts);

/// What other processes request of this connection's handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlRequest {
    /// No request.
    Nothing,
    /// A newer connection has presented the player's token.
    Yield,
    /// An operator removes the player.
    Kick,
    /// The server stops.
    Stop,
}

impl<'s> Session<'s> {
    /// Takes over a connection, as its first handler or as a successor. `byte_counts` is what the kernel reports.
    ///
    /// Transactions that a predecessor left unfinished are decided first.
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
                input_held_until_us: 0,
                reader_wait: None,
                confirm_search: ConfirmSearch::default(),
            },
        );
        session.take_over();
        // Done again, because a predecessor may have died before it did this.
        session.wipe_handshake();
        session.wipe_handshake_reply();
        let plausible = if session.byte_counts_are_plausible() {
            Ok(())
        } else {
            Err(Implausible(byte_counts))
        };
        (session, plausible)
    }

    fn with(state: &'s mut StateHandle, idle: IdleSession) -> Self {
        state.serving = Some(idle.record);
        Self {
            state,
            connection: idle.connection,
            byte_counts: idle.byte_counts,
            record: idle.record,
            player: idle.player,
            frame_end: None,
            charge: None,
            charge_if_rejected: None,
            to_acknowledge: None,
            search_charge: None,
            input_state_behind: None,
            doorbells: Vec::new(),
            chat_doorbell: false,
            keeper_doorbells: Vec::new(),
            mail_waits: idle.mail_waits,
            chat_goes_first: idle.chat_goes_first,
            input_held_until_us: idle.input_held_until_us,
            reader_wait: idle.reader_wait,
            confirm_search: idle.confirm_search,
        }
    }

    /// Deactivates the session, so that another one can use the handle.
    ///
    /// # Panics
    ///
    /// If a frame is still current or a doorbell is still to be rung: a bug of the caller.
    pub fn park(self) -> IdleSession {
        assert!(self.frame_end.is_none() && self.input_state_behind.is_none() && self.charge.is_none());
        assert!(self.search_charge.is_none());
        assert!(self.doorbells.is_empty() && self.keeper_doorbells.is_empty() && !self.chat_doorbell);
        // The connection may move to another process, which then writes to its records.
        self.state.attachment.release_all();
        self.idle()
    }

    /// The part of the session that is kept while it is not active.
    pub fn idle(&self) -> IdleSession {
        IdleSession {
            connection: self.connection,
            byte_counts: self.byte_counts,
            record: self.record,
            player: self.player,
            mail_waits: self.mail_waits,
            chat_goes_first: self.chat_goes_first,
            input_held_until_us: self.input_held_until_us,
            reader_wait: self.reader_wait,
            confirm_search: self.confirm_search,
        }
    }

    fn take_over(&mut self) {
        use shmem::transaction::SingleWriter;
        let record = self.record;
        // Before anything is locked: that would note the lock in another session's records.
        self.state.attachment.release_all();
        self.state.recover(record.noted_lock().load(Ordering::Relaxed));
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
            if !Mutant::NoSecondRing.is_active() {
                // The predecessor may have died between its commit and ringing the doorbells.
                self.chat_doorbell = true;
                let place = self.membership().place();
                self.doorbells.extend(place.map(|(room, _)| room.index()));
            }
        }
    }

    /// Resets the record for the slot's new connection.
    fn reset_record(&mut self) {
        let (record, generation) = (self.record, self.connection.generation());
        let mut tx = self.state.attachment.begin(self.state.memory.directory.record);
        tx.set(&record.occupant, generation);
        tx.set(&record.phase, Phase::HANDSHAKE.raw());
        tx.set(&record.leaves, 0);
        for count in [
            &record.proxy_header_bytes,
            &record.handshake_bytes,
            &record.handshake_reply_bytes,
            &record.close_message_bytes,
        ] {
            tx.set(count, 0);
        }
        tx.set(&record.player, PlayerRef::NONE);
        tx.set(&record.input_base, 0);
        tx.set(&record.output_base, 0);
        tx.set(&record.asked_from, 0);
        tx.set(&record.proof, 0);
        tx.set(&record.stream_end, u64::MAX);
        tx.commit().expect("resetting a record fits the journal");
    }

    /// The connection's phase.
    pub fn phase(&self) -> Phase {
        Phase::from_raw(self.state.attachment.read_own(&self.record.phase))
    }

    /// The connection's record.
    pub fn record(&self) -> &'static ConnectionRecord {
        self.record
    }

    /// The player, once the handshake is complete.
    pub fn player(&self) -> Option<PlayerRef> {
        self.player.map(|(player, _)| player)
    }

    /// What the client has negotiated; before the handshake is complete, the least.
    pub(crate) fn dialect(&self) -> Dialect {
        self.player.map_or(Dialect::FIRST, |(_, record)| record.dialect())
    }

    /// The player's name; empty before the handshake is complete.
    pub fn name(&self) -> Name {
        self.player.map_or(Name::EMPTY, |(_, record)| {
            self.state.attachment.read_own(&record.name)
        })
    }

    /// Where the player is: in the lobby or in a room.
    pub fn membership(&self) -> Membership {
        self.player.map_or(Membership::LOBBY, |(_, record)| {
            self.state.attachment.read_own(&record.membership)
        })
    }

    /// When the connection started to close, in milliseconds of the monotonic clock.
    pub fn closing_since_ms(&self) -> u64 {
        self.state.attachment.read_own(&self.record.closing_since_ms)
    }

    /// Lets the player's input wait until the account that `too_soon` is about allows the next frame. Nothing is
    /// refused; the client notices that its bytes are not taken. (A successor asks the account again.)
    pub(crate) fn hold_input(&mut self, too_soon: TooSoon) {
        self.hold_input_for(too_soon.wait_us);
    }

    /// The same, for so many microseconds.
    pub(crate) fn hold_input_for(&mut self, us: u64) {
        self.input_held_until_us = now_us() + us;
    }

    /// Whether the input is [held](Self::hold_input). When its time is over, it is not held any more.
    pub(crate) fn holds_input(&mut self) -> bool {
        if self.input_held_until_us != 0 && self.input_held_until_us <= now_us() {
            self.input_held_until_us = 0;
        }
        self.input_held_until_us != 0
    }

    /// When the input that was [held](Self::holds_input) at the last look is to be looked at again, in milliseconds of
    /// the monotonic clock. The clock is not asked: a hold that ends just now is noticed by the next look.
    pub fn input_held_until_ms(&self) -> Option<u64> {
        let until_us = self.input_held_until_us;
        (until_us != 0).then(|| until_us.div_ceil(1000))
    }

    /// Whether the next frame waits for other readers of the room.
    pub fn waits_for_readers(&self) -> bool {
        self.reader_wait.is_some()
    }

    /// Takes the list of rooms whose doorbells must be rung if their log has unannounced entries.
    pub fn take_doorbells(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.doorbells)
    }

    /// Takes the flag that the doorbell of the lobby's chat must be rung.
    pub fn take_chat_doorbell(&mut self) -> bool {
        std::mem::take(&mut self.chat_doorbell)
    }

    /// Takes the list of keepers whose doorbells must be rung.
    pub fn take_keeper_doorbells(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.keeper_doorbells)
    }

    /// The bytes of the handshake that have arrived, without the PROXY header that was read.
    pub fn handshake(&self) -> Vec<u8> {
        let bytes_max = match self.record.has_long_opening() {
            true => OPENING_BYTES_MAX,
            false => HANDSHAKE_BYTES_MAX,
        };
        let length = usize::try_from(self.byte_counts.received)
            .unwrap_or(usize::MAX)
            .min(bytes_max);
        let mut bytes = vec![0; length];
        let (first, rest) = bytes.split_at_mut(length.min(HANDSHAKE_BYTES_MAX));
        self.record.handshake.copy_out(0, first);
        if !rest.is_empty() {
            self.long_opening().bytes.copy_out(0, rest);
        }
        bytes.drain(..self.proxy_header_bytes().min(length));
        bytes
    }

    /// Where the handshake continues that has no space in the record.
    fn long_opening(&self) -> &'static LongOpening {
        self.state.memory.long_openings.at(self.connection.index())
    }

    /// Bytes of the PROXY header that was read, in front of the handshake; 0: none was.
    pub fn proxy_header_bytes(&self) -> usize {
        self.state.attachment.read_own(&self.record.proxy_header_bytes) as usize
    }

    /// Whether the bytes that have arrived are still to begin with a PROXY header.
    pub fn awaits_proxy_header(&self) -> bool {
        self.record.is_behind_proxy() && self.proxy_header_bytes() == 0
    }

    /// The PROXY header has arrived: from now on the peer is the client that the header names. This is the one place
    /// where the address of a client behind a proxy becomes known. (If the process dies in here, its successor reads
    /// the header again, and enters the same.)
    pub fn enter_proxied_client(&mut self, header: ProxyHeader) {
        let record = self.record;
        if let Some(client) = header.client {
            record.set_peer(client.into());
        }
        // Last: whoever finds the header read finds the address entered.
        let mut tx = self.state.attachment.begin(self.state.memory.directory.record);
        tx.set(&record.proxy_header_bytes, header.bytes);
        tx.commit().expect("one number fits the journal");
    }

    /// Removes the handshake's bytes, among them a token, from shared memory, once no process needs them any more: a
    /// connection that waits for its session may still be refused in its client's language, or read what was typed
    /// behind a resume word.
    pub(crate) fn wipe_handshake(&self) {
        if !matches!(self.phase(), Phase::HANDSHAKE | Phase::RESUMING) {
            self.record.handshake.copy_in(0, &[0; HANDSHAKE_BYTES_MAX]);
            if self.record.has_long_opening() {
                self.long_opening().bytes.copy_in(0, &[0; PROXY_HEADER_BYTES_MAX]);
                self.record.set_long_opening(false);
            }
        }
    }

    /// Removes the handshake's reply, among it a token, from shared memory once the kernel has all of it.
    pub(crate) fn wipe_handshake_reply(&self) {
        let reply_bytes = self.state.attachment.read_own(&self.record.handshake_reply_bytes);
        if reply_bytes > 0 && self.byte_counts.sent >= u64::from(reply_bytes) {
            // (After a resume word, all that was sent on the connection counts as the reply.)
            self.record
                .handshake_reply
                .copy_in(0, &[0; HANDSHAKE_OUTPUT_BYTES_MAX]);
        }
    }

    /// What other processes request of this connection. Also updates whether the player has mail.
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::state::connections::Kind;
    use crate::state::layout::{Capacity, Memory};
    use forkade_games::Games;
    use shmem::transaction::SingleWriter;

    #[test]
    fn attaching_one_session_leaves_the_records_of_a_parked_one_alone() {
        let capacity = Capacity {
            players: 2,
            rooms: 1,
            keepers: 1,
        };
        let memory = Memory::create(capacity).expect("there is memory");
        let [first, second] = [0, 1].map(|slot| {
            let record = memory.connections.at(slot);
            assert!(record.claim(Kind::Game, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), 0, 0));
            record
        });
        let mut state = StateHandle::imitate(memory, Box::leak(Box::new(Games::default())));
        Session::attach(&mut state, 0, ByteCounts::default()).0.park();
        // Another process may own the first record now; a predecessor of the second has noted a lock.
        let noted = first.noted_lock().swap(0, Ordering::Relaxed);
        assert_ne!(noted, 0);
        second.noted_lock().store(noted, Ordering::Relaxed);
        Session::attach(&mut state, 1, ByteCounts::default()).0.park();
        assert_eq!(first.noted_lock().load(Ordering::Relaxed), 0);
    }
}
