//! One connection and, after the greeting, the player it carries, as animated by this process.
//!
//! A session holds nothing that a successor would need: [`Session::attach`] finds everything in the records, and the kernel says
//! how many bytes have passed. The life of a connection:
//!
//! ```text
//! HANDSHAKE ── greet ──────────────────────────────▶ OPEN ── close ──▶ CLOSING ── finish ──▶ DONE
//!     └─────── ask_to_resume ──▶ RESUMING ── resume ──▶┘
//! ```

use std::sync::atomic::Ordering;

use forkade_protocol::codec::CodecError;
use forkade_protocol::{ErrorCode, GameInfo, Limits, PlayerId, ServerMessage, Token, frame};

use super::connections::{ConnectionRecord, Phase};
use super::directory::{LobbyTx, Name, Presence};
use super::memory::{ConnectionRef, PlayerRef};
use super::players::{Membership, PlayerRecord};
use super::transport::Passed;
use super::{Lobby, Rejection};
use crate::limits::{
    CHAT_BYTES_MAX, CONFIRM_EVERY_BYTES, FAREWELL_BYTES_MAX, FRAME_BYTES_MAX, FRAME_HEADER_BYTES,
    FRAME_TOTAL_BYTES_MAX, GREETING_BYTES_MAX, HANDSHAKE_BYTES_MAX, PLAYER_NAME_BYTES_MAX,
};
use crate::shm::transaction::{Record, Tx};
use crate::sys::clock::now_ms;
use crate::sys::process::ProcessId;

/// In a player's log cursor: the player must be given a snapshot before any further event.
pub(super) const CURSOR_LOST: u64 = u64::MAX;

/// One connection and its player.
pub struct Session {
    /// This process's access to the lobby.
    pub lobby: Lobby,
    /// The connection.
    pub connection: ConnectionRef,
    /// What has passed on the connection: the handler asks the kernel once and counts from there.
    pub passed: Passed,
    pub(super) record: &'static ConnectionRecord,
    pub(super) player: Option<(PlayerRef, &'static PlayerRecord)>,
    /// Stream offset behind the frame that is being handled, which the next transaction of the player's consumes.
    pub(super) frame_end: Option<u64>,
    /// Rooms whose log this process has written to, and whose bell is to be rung.
    pub(super) bells: Vec<u32>,
}

/// The connection is beyond saving; the session is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's counts of bytes do not fit the records: {0:?}")]
pub struct Implausible(Passed);

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Farewell {
    /// Without a word: the client said goodbye or is gone.
    None,
    /// With an error to the client.
    Error(ErrorCode, String),
    /// The server stops.
    ShuttingDown(String),
    /// To somebody who speaks text.
    Line(String),
}

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

/// Where a resume stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// The session goes on here.
    Done,
    /// Its former handler has not let go of it yet.
    NotYet,
    /// A still newer connection asks for it.
    Superseded,
    /// The session is gone.
    Gone,
    /// The client claims to have received more than was ever sent.
    BeyondTheEnd,
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
            bells: Vec::with_capacity(2),
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
        let settle = |lobby: &mut Lobby, noted: u64| lobby.memory.settle(&mut lobby.hand, noted);
        use crate::shm::transaction::Animated;
        settle(lobby, self.record.noted_lock().load(Ordering::Relaxed));
        lobby.hand.animate(self.record);
        if lobby.hand.own(&self.record.occupant) != self.connection.generation() {
            self.reset_record();
            return;
        }
        let player = lobby.hand.own(&self.record.player);
        if player.is_somebody() && self.phase() != Phase::RESUMING {
            let player_record = self.lobby.memory.players.at(player.index());
            settle(
                &mut self.lobby,
                player_record.noted_lock().load(Ordering::Relaxed),
            );
            self.lobby.hand.animate(player_record);
            self.player = Some((player, player_record));
            if let Some((room, _)) = self.membership().place() {
                // The predecessor may have died between commit and bell.
                self.bells.push(room.index());
            }
        }
    }

    /// The slot has a new occupant: the former's fields mean nothing.
    fn reset_record(&mut self) {
        let (record, generation) = (self.record, self.connection.generation());
        let mut tx = self.lobby.hand.begin(self.lobby.memory.directory.record);
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
        tx.set(&record.player, PlayerRef::NOBODY);
        tx.set(&record.input_base, 0);
        tx.set(&record.output_base, 0);
        tx.set(&record.stream_end, u64::MAX);
        tx.commit().expect("resetting a record fits the journal");
    }

    /// Where the connection is in its life.
    pub fn phase(&self) -> Phase {
        Phase::from_raw(self.lobby.hand.own(&self.record.phase))
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
        self.player
            .map_or(Name::EMPTY, |(_, record)| self.lobby.hand.own(&record.name))
    }

    /// Where the player is.
    pub fn membership(&self) -> Membership {
        self.player.map_or(Membership::LOBBY, |(_, record)| {
            self.lobby.hand.own(&record.membership)
        })
    }

    /// Since when the connection has been closing, in milliseconds of the monotonic clock.
    pub fn closing_since_ms(&self) -> u64 {
        self.lobby.hand.own(&self.record.closing_since_ms)
    }

    /// Rooms whose bell should be rung if their log has anything unannounced; asking empties the list.
    pub fn take_bells(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.bells)
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

    /// Makes the client a new player: answers `Hello`. `used` of the received bytes were the handshake; those behind are the
    /// first of the stream.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NameTaken`] or [`ErrorCode::ServerFull`]; nothing was changed.
    pub fn greet(&mut self, version: u16, name: Name, used: usize) -> Result<(), ErrorCode> {
        let handshake = self.handshake();
        let mut secret = [0; 12];
        getrandom::fill(&mut secret).map_err(|_| ErrorCode::InternalError)?;
        let (memory, record, connection) = (self.lobby.memory, self.record, self.connection);
        let (limits, games) = (self.limits(), self.games());

        let mut tx = self.lobby.hand.begin(memory.directory.record);
        if memory.directory.find_name(&tx, name.as_str()).is_some() {
            return Err(ErrorCode::NameTaken);
        }
        let hash_of = |index| hash_of_token(token_of(index, secret));
        let Some(player) = memory.directory.add_player(&mut tx, name, connection, hash_of) else {
            return Err(ErrorCode::ServerFull);
        };
        let player_record = memory.players.at(player.index());
        player_record.lock().prepare();
        tx.animate(player_record);
        player_record.reset(&mut tx, name);
        player_record.input.write(&mut tx, 0, &handshake[used..]);
        let welcome = ServerMessage::Welcome {
            version,
            token: token_of(player.index(), secret),
            player: PlayerId(player.to_id()),
            name: name.as_str().to_owned(),
            limits,
            games,
        };
        let done = open(&mut tx, record, player, used, (0, 0), &welcome)
            .map_err(|_| ErrorCode::InternalError)
            .and_then(|()| tx.commit().map_err(|_| ErrorCode::InternalError));
        match done {
            Ok(()) => self.player = Some((player, player_record)),
            Err(_) => self.lobby.hand.let_go(player_record),
        }
        done
    }

    /// Asks for the session that `token` belongs to: answers `Resume`. Its present handler, if it has one, is asked to yield.
    /// Gives the keeper whose bell is to be rung.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::TokenUnknown`]; nothing was changed for anybody.
    pub fn ask_to_resume(
        &mut self,
        token: Token,
        received: u64,
        used: usize,
    ) -> Result<Option<u32>, ErrorCode> {
        let (memory, record, connection) = (self.lobby.memory, self.record, self.connection);
        let (index, hash) = (index_of_token(token), hash_of_token(token));
        let mut tx = self.lobby.hand.begin(memory.directory.record);
        let identity = memory
            .directory
            .identities
            .get(index)
            .ok_or(ErrorCode::TokenUnknown)?;
        let presence = Presence::from_raw(tx.get(&identity.presence));
        let resumable = [Presence::ATTACHED, Presence::DETACHED].contains(&presence);
        if !resumable || tx.get(&identity.token_hash) != hash {
            return Err(ErrorCode::TokenUnknown);
        }
        let former_claimant = tx.get(&identity.claimant);
        tx.set(&identity.claimant, connection);
        tx.set(
            &record.player,
            PlayerRef::new(index, tx.get(&identity.generation)),
        );
        tx.set(&record.phase, Phase::RESUMING.raw());
        tx.set(&record.handshake_bytes, u32::try_from(used).unwrap_or(u32::MAX));
        tx.set(&record.output_base, received);
        let holder = tx.get(&identity.connection);
        tx.commit().map_err(|_| ErrorCode::InternalError)?;
        for other in [former_claimant, holder] {
            if other.is_somebody() && other != connection {
                return Ok(Some(memory.call_attention(other)));
            }
        }
        Ok(None)
    }

    /// Goes on with the session that was asked for, once its former handler has let go: sends `Resumed`.
    pub fn try_resume(&mut self) -> Resume {
        let (memory, record, connection) = (self.lobby.memory, self.record, self.connection);
        let player = self.lobby.hand.own(&record.player);
        let asked = self.lobby.hand.own(&record.output_base);
        let mut tx = self.lobby.hand.begin(memory.directory.record);
        let Some(identity) = memory.directory.identity(&tx, player) else {
            return Resume::Gone;
        };
        if tx.get(&identity.claimant) != connection {
            return Resume::Superseded;
        }
        match Presence::from_raw(tx.get(&identity.presence)) {
            Presence::DETACHED => {}
            Presence::ATTACHED => return Resume::NotYet,
            _ => return Resume::Gone,
        }
        let player_record = memory.players.at(player.index());
        // The session was detached under the lobby's lock, which is held: nothing of it is undecided.
        tx.animate(player_record);
        let (consumed, head) = (
            tx.get(&player_record.consumed),
            tx.get(&player_record.output_head),
        );
        let kept_from = player_record.output_kept_from.load(Ordering::Acquire);
        if asked > head {
            drop(tx);
            self.lobby.hand.let_go(player_record);
            return Resume::BeyondTheEnd;
        }
        let resuming_at = if asked >= kept_from { asked } else { head };
        if resuming_at != asked {
            tx.set(&player_record.log_cursor, CURSOR_LOST);
        }
        tx.set(&identity.presence, Presence::ATTACHED.raw());
        tx.set(&identity.connection, connection);
        tx.set(&identity.claimant, ConnectionRef::NOBODY);
        player_record.input.rebase(&mut tx, consumed);
        let used = tx.get(&record.handshake_bytes) as usize;
        let resumed = ServerMessage::Resumed {
            received: consumed,
            resuming_at,
        };
        open(&mut tx, record, player, used, (consumed, resuming_at), &resumed)
            .expect("Resumed fits the greeting");
        tx.commit().expect("resuming fits the journal");
        // Confirmed by the client, so not needed any more. Not before the commit: another claimant might yet ask for more.
        player_record
            .output_kept_from
            .fetch_max(resuming_at, Ordering::AcqRel);
        memory.header.resumes_total.fetch_add(1, Ordering::Relaxed);
        self.player = Some((player, player_record));
        Resume::Done
    }

    /// What others want of this connection.
    pub fn wanted(&mut self) -> Wanted {
        let memory = self.lobby.memory;
        if memory.header.stopping.load(Ordering::Acquire) != 0 {
            return Wanted::Stop;
        }
        let Some((player, _)) = self.player else {
            return Wanted::Nothing;
        };
        let tx = self.lobby.hand.begin(memory.directory.record);
        let Some(identity) = memory.directory.identity(&tx, player) else {
            return Wanted::Kick;
        };
        if tx.get(&identity.kicked) != 0 {
            Wanted::Kick
        } else if tx.get(&identity.claimant).is_somebody() {
            Wanted::Yield
        } else {
            Wanted::Nothing
        }
    }

    /// Begins to end the connection: what waits is still sent, then the farewell. With `leaves` the player then leaves for good.
    pub fn close(&mut self, leaves: bool, farewell: &Farewell) {
        let record = self.record;
        let stream_end = match self.player {
            Some((_, player)) => self.lobby.hand.own(&player.output_head),
            None => super::transport::stream_sent(&self.lobby.hand, record, self.passed.sent),
        };
        let mut buffer = [0; FAREWELL_BYTES_MAX];
        let farewell = farewell_frame(farewell, &mut buffer);
        let now = now_ms();
        match self.player {
            Some((_, player)) => {
                let mut tx = self.lobby.hand.begin(player);
                enter_closing(&mut tx, record, leaves, stream_end, now, farewell);
                tx.commit().expect("closing fits the journal");
            }
            None => {
                let mut tx = self.lobby.hand.begin(self.lobby.memory.directory.record);
                enter_closing(&mut tx, record, leaves, stream_end, now, farewell);
                tx.commit().expect("closing fits the journal");
            }
        }
    }

    /// Lets go of the session for the newer connection that has shown its token, and tells this one's client.
    /// Gives the keeper whose bell is to be rung.
    pub fn yield_to_claimant(&mut self) -> Option<u32> {
        let farewell = Farewell::Error(
            ErrorCode::Replaced,
            "your session goes on on a newer connection".into(),
        );
        let whole_frames = self
            .player
            .is_some_and(|(_, player)| self.output_sent() == self.lobby.hand.own(&player.output_head));
        // A frame that was cut off cannot be followed by another.
        self.close(false, if whole_frames { &farewell } else { &Farewell::None });
        self.detach(Phase::CLOSING)
    }

    /// Ends the connection's hold on everything, when its last bytes are out or nobody waits for them.
    /// Gives the keeper whose bell is to be rung.
    pub fn finish(&mut self) -> Option<u32> {
        match self.player {
            Some(_) if self.lobby.hand.own(&self.record.leaves) != 0 => {
                self.leave_for_good();
                None
            }
            Some(_) => {
                self.show_connected(false);
                self.detach(Phase::DONE)
            }
            None => self.drop_claim(),
        }
    }

    /// Tells the room whether this player's connection is alive, if it does not know.
    pub fn show_connected(&mut self, connected: bool) {
        let Some((player, _)) = self.player else { return };
        let Some((room, Some(seat))) = self.membership().place() else {
            return;
        };
        if self.lobby.show_connected(player, room, seat, connected) {
            self.bells.push(room.index());
        }
    }

    /// The player keeps the seat for the grace; the session waits for a resume.
    fn detach(&mut self, phase: Phase) -> Option<u32> {
        let (memory, record) = (self.lobby.memory, self.record);
        let (player, player_record) = self.player?;
        let mut tx = self.lobby.hand.begin(memory.directory.record);
        let mut claimant = ConnectionRef::NOBODY;
        if let Some(identity) = memory.directory.identity(&tx, player) {
            claimant = tx.get(&identity.claimant);
            tx.set(&identity.presence, Presence::DETACHED.raw());
            tx.set(&identity.connection, ConnectionRef::NOBODY);
            tx.set(&identity.detached_at_ms, now_ms());
        }
        tx.set(&record.player, PlayerRef::NOBODY);
        tx.set(&record.phase, phase.raw());
        tx.commit().expect("detaching fits the journal");
        self.lobby.hand.let_go(player_record);
        self.player = None;
        claimant.is_somebody().then(|| memory.call_attention(claimant))
    }

    fn leave_for_good(&mut self) {
        let record = self.record;
        let Some((player, player_record)) = self.player else {
            return;
        };
        if let Some((room, _)) = self.membership().place() {
            self.bells.push(room.index());
        }
        self.lobby.begin_to_expire(player);
        self.lobby.expire(player, |tx| {
            tx.set(&record.player, PlayerRef::NOBODY);
            tx.set(&record.phase, Phase::DONE.raw());
        });
        self.lobby.hand.let_go(player_record);
        self.player = None;
    }

    /// Ends a connection that carries no session; one it had asked for is not asked for any more.
    fn drop_claim(&mut self) -> Option<u32> {
        let (memory, record, connection) = (self.lobby.memory, self.record, self.connection);
        let player = self.lobby.hand.own(&record.player);
        let mut tx = self.lobby.hand.begin(memory.directory.record);
        if let Some(identity) = memory.directory.identity(&tx, player)
            && tx.get(&identity.claimant) == connection
        {
            tx.set(&identity.claimant, ConnectionRef::NOBODY);
        }
        tx.set(&record.player, PlayerRef::NOBODY);
        tx.set(&record.phase, Phase::DONE.raw());
        tx.commit().expect("ending a connection fits the journal");
        None
    }

    fn limits(&self) -> Limits {
        let header = self.lobby.memory.header;
        let milliseconds = |value: &std::sync::atomic::AtomicU64| {
            u32::try_from(value.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
        };
        Limits {
            frame_bytes_max: wire(FRAME_BYTES_MAX),
            name_bytes_max: wire(PLAYER_NAME_BYTES_MAX),
            chat_bytes_max: wire(CHAT_BYTES_MAX),
            confirm_every_bytes: CONFIRM_EVERY_BYTES,
            heartbeat_timeout_ms: milliseconds(&header.heartbeat_timeout_ms),
            seat_grace_ms: milliseconds(&header.seat_grace_ms),
        }
    }

    fn games(&self) -> Vec<GameInfo> {
        self.lobby.games.infos()
    }
}

/// A limit as clients are told it.
fn wire(limit: usize) -> u32 {
    u32::try_from(limit).expect("limits are small")
}

/// Opens the session's stream on the connection, with `greeting` in front of it.
fn open(
    tx: &mut LobbyTx<'_>,
    record: &'static ConnectionRecord,
    player: PlayerRef,
    used: usize,
    (input_base, output_base): (u64, u64),
    greeting: &ServerMessage,
) -> Result<(), CodecError> {
    let mut buffer = [0; GREETING_BYTES_MAX];
    let length = frame::write_frame_into(greeting, &mut buffer)?;
    tx.write(&record.greeting, 0, &buffer[..length]);
    tx.set(
        &record.greeting_bytes,
        u32::try_from(length).expect("a greeting is small"),
    );
    tx.set(
        &record.handshake_bytes,
        u32::try_from(used).expect("a handshake is small"),
    );
    tx.set(&record.player, player);
    tx.set(&record.input_base, input_base);
    tx.set(&record.output_base, output_base);
    tx.set(&record.stream_end, u64::MAX);
    tx.set(&record.phase, Phase::OPEN.raw());
    Ok(())
}

fn enter_closing<R: Record>(
    tx: &mut Tx<'_, R>,
    record: &'static ConnectionRecord,
    leaves: bool,
    stream_end: u64,
    now_ms: u64,
    farewell: &[u8],
) {
    tx.write(&record.farewell, 0, farewell);
    tx.set(
        &record.farewell_bytes,
        u32::try_from(farewell.len()).expect("a farewell is small"),
    );
    tx.set(&record.phase, Phase::CLOSING.raw());
    tx.set(&record.leaves, u32::from(leaves));
    tx.set(&record.stream_end, stream_end);
    tx.set(&record.closing_since_ms, now_ms);
}

fn farewell_frame<'b>(farewell: &Farewell, buffer: &'b mut [u8]) -> &'b [u8] {
    let message = match farewell {
        Farewell::None => return &[],
        Farewell::Error(code, text) => ServerMessage::Error {
            code: *code,
            text: text.clone(),
        },
        Farewell::ShuttingDown(text) => ServerMessage::ShuttingDown { text: text.clone() },
        Farewell::Line(text) => {
            let line = buffer.get_mut(..text.len() + 2).expect("farewells are short");
            let (words, end) = line.split_at_mut(text.len());
            words.copy_from_slice(text.as_bytes());
            end.copy_from_slice(b"\r\n");
            return line;
        }
    };
    let length = frame::write_frame_into(&message, buffer).expect("farewells are short");
    &buffer[..length]
}

/// A token is the index of its player's record, in little-endian order, and 12 random bytes. To clients it is opaque.
fn token_of(index: u32, secret: [u8; 12]) -> Token {
    let mut token = [0; 16];
    token[..4].copy_from_slice(&index.to_le_bytes());
    token[4..].copy_from_slice(&secret);
    Token(token)
}

fn index_of_token(token: Token) -> u32 {
    let [a, b, c, d, ..] = token.0;
    u32::from_le_bytes([a, b, c, d])
}

fn hash_of_token(token: Token) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(token.0).into()
}

/// What a transaction of the player's does besides its purpose.
#[derive(Clone, Copy)]
pub(super) struct Own {
    pub(super) player: &'static PlayerRecord,
    frame_end: Option<u64>,
    received: u64,
    sent: u64,
}

impl Session {
    /// What the next transaction of the player's needs. `None` before the greeting.
    pub(super) fn own(&self) -> Option<Own> {
        let (_, player) = self.player?;
        Some(Own {
            player,
            frame_end: self.frame_end,
            received: self.input_received(),
            sent: self.output_sent(),
        })
    }

    /// The next frame of the input, if it has arrived whole: it is being handled from now on, and consumed by the transaction that
    /// does what it asks for.
    ///
    /// # Errors
    ///
    /// The announced length, if it is over the limit.
    pub fn next_frame<'b>(
        &mut self,
        buffer: &'b mut [u8; FRAME_BYTES_MAX],
    ) -> Result<Option<&'b [u8]>, usize> {
        let Some((_, player)) = self.player else {
            return Ok(None);
        };
        let (consumed, received) = (self.lobby.hand.own(&player.consumed), self.input_received());
        let input = player.input.placement(&self.lobby.hand);
        let body_start = consumed + FRAME_HEADER_BYTES as u64;
        if received < body_start {
            return Ok(None);
        }
        let mut header = [0; FRAME_HEADER_BYTES];
        input.read(consumed, &mut header);
        let length = u32::from_le_bytes(header) as usize;
        let body = buffer.get_mut(..length).ok_or(length)?;
        let end = body_start + length as u64;
        if received < end {
            return Ok(None);
        }
        input.read(body_start, body);
        self.frame_end = Some(end);
        self.record.working_on.store(end, Ordering::Release);
        self.record.last_frame_at_ms.store(now_ms(), Ordering::Relaxed);
        Ok(Some(body))
    }

    /// The frame was handled.
    pub fn end_frame(&mut self) {
        self.frame_end = None;
        self.record.working_on.store(0, Ordering::Release);
    }

    /// The client has received the output stream up to this offset: it need not be kept any longer.
    ///
    /// # Errors
    ///
    /// How much was sent, if less than is confirmed.
    pub fn confirm(&mut self, received: u64) -> Result<Result<(), Rejection>, u64> {
        let sent = self.output_sent();
        if received > sent {
            return Err(sent);
        }
        if let Some((_, player)) = self.player {
            // For good: what the client has said it has does not depend on the transaction.
            player.output_kept_from.fetch_max(received, Ordering::AcqRel);
        }
        Ok(self.consume_and_reply(None))
    }

    /// Answers a ping, with how much of the client's stream is taken in for good: up to the end of the ping itself.
    ///
    /// # Errors
    ///
    /// Those of [`Session::consume_and_reply`].
    pub fn pong(&mut self, nonce: u64) -> Result<(), Rejection> {
        let received = self.frame_end.unwrap_or_default();
        self.consume_and_reply(Some(&ServerMessage::Pong { nonce, received }))
    }

    /// The process that holds the session which this connection asks to resume, if one does.
    pub fn holder_of_session(&mut self) -> Option<ProcessId> {
        let memory = self.lobby.memory;
        let player = self.lobby.hand.own(&self.record.player);
        let tx = self.lobby.hand.begin(memory.directory.record);
        let holder = tx.get(&memory.directory.identity(&tx, player)?.connection);
        drop(tx);
        let record = memory.connections.get(holder.index())?;
        (holder.is_somebody() && record.reference(holder.index()) == holder)
            .then(|| record.handler())
            .flatten()
    }

    /// Consumes the frame in a transaction of its own, and writes `reply`, if any.
    ///
    /// # Errors
    ///
    /// If the reply does not fit a frame, which is a mistake of this program's.
    pub fn consume_and_reply(&mut self, reply: Option<&ServerMessage>) -> Result<(), Rejection> {
        let Some(own) = self.own() else { return Ok(()) };
        let mut tx = self.lobby.hand.begin(own.player);
        if let Some(reply) = reply {
            own.reply(&mut tx, reply);
        }
        own.consume(&mut tx);
        tx.commit()?;
        Ok(())
    }
}

impl Own {
    /// The frame is handled by this transaction.
    pub(super) fn consume<R: Record>(&self, tx: &mut Tx<'_, R>) {
        if let Some(end) = self.frame_end {
            tx.set(&self.player.consumed, end);
            if end == self.received {
                self.player.input.rebase(tx, end);
            }
        }
    }

    /// Puts a message into the output stream.
    ///
    /// # Panics
    ///
    /// If the message does not fit a frame: what goes into messages is bounded so that it does (see [`limits`](crate::limits)).
    pub(super) fn reply<R: Record>(&self, tx: &mut Tx<'_, R>, message: &ServerMessage) {
        let mut buffer = [0; FRAME_TOTAL_BYTES_MAX];
        let length = frame::write_frame_into(message, &mut buffer).expect("every message fits a frame");
        self.put(tx, &buffer[..length]);
    }

    /// Puts a whole frame into the output stream. The caller has checked the [space](Session::output_space).
    pub(super) fn put<R: Record>(&self, tx: &mut Tx<'_, R>, frame: &[u8]) {
        let mut output = self.begin_output(tx);
        output.put(tx, frame);
        output.finish(tx);
    }

    /// Begins to write several frames.
    pub(super) fn begin_output<R: Record>(&self, tx: &Tx<'_, R>) -> Output {
        Output {
            player: self.player,
            sent: self.sent,
            head: tx.get(&self.player.output_head),
        }
    }
}

/// Frames on their way into the output stream; nothing of it counts before [`Output::finish`] and the commit.
#[must_use]
pub(super) struct Output {
    player: &'static PlayerRecord,
    sent: u64,
    head: u64,
}

impl Output {
    pub(super) fn put<R: Record>(&mut self, tx: &mut Tx<'_, R>, frame: &[u8]) {
        let next = self.head + frame.len() as u64;
        let oldest = next.saturating_sub(super::players::OutputRing::BYTES);
        assert!(
            oldest <= self.sent,
            "output that was not sent would be overwritten"
        );
        // For good: what is overwritten can not be kept for a resume, whatever becomes of the transaction.
        let kept_from = self
            .player
            .output_kept_from
            .fetch_max(oldest, Ordering::AcqRel)
            .max(oldest);
        if kept_from == self.head {
            self.player.output.rebase(tx, self.head);
        }
        self.player.output.write(tx, self.head, frame);
        self.head = next;
    }

    pub(super) fn finish<R: Record>(self, tx: &mut Tx<'_, R>) {
        tx.set(&self.player.output_head, self.head);
    }
}
