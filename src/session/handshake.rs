//! The handshake: a connection gets a new session (`Hello`) or resumes one (`Resume`).

use std::sync::atomic::{AtomicU64, Ordering};

use forkade_protocol::{Budgets, ErrorCode, GameInfo, Limits, PlayerId, ServerMessage, Token, frame};

use crate::limits::{
    CHAT_BYTES_MAX, CONFIRM_EVERY_BYTES, ENTER_WAIT_MS, FRAME_BYTES_MAX, FRAME_HEADER_BYTES,
    HANDSHAKE_BYTES_MAX, HANDSHAKE_REPLY_BYTES_MAX, OUTPUT_RING_BYTES, PLAYER_NAME_BYTES_MAX, ROOM_LOG_BYTES,
    WRITE_STALL_TIMEOUT_MS,
};
use crate::session::frames::Output;
use crate::session::rate::charge_return;
use crate::session::resume_word::ResumeWord;
use crate::session::{CURSOR_LOST, Session};
use crate::state::connections::{ConnectionRecord, Phase};
use crate::state::directory::{LobbyTx, Name, Presence};
use crate::state::layout::{ConnectionRef, Memory, PlayerRef};
use crate::state::players::{Dialect, PlayerRecord};
use crate::state::sanctions::SanctionKind;
use forkade_text::render;
use shmem::sys::clock::now_ms;
use shmem::sys::process::ProcessId;
use shmem::transaction::Record;

/// The outcome of one attempt to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// The session continues on this connection.
    Done,
    /// The session's former handler still holds it.
    NotYet,
    /// The player comes back too often, and must wait.
    TooSoon,
    /// A newer connection requested the session.
    Superseded,
    /// The session has ended.
    Gone,
    /// An operator has kicked the player meanwhile. If its name is banned, `ban_ms` are the milliseconds left.
    Kicked {
        /// The milliseconds.
        ban_ms: Option<u64>,
    },
    /// The client claims to have received more bytes than were sent.
    BeyondTheEnd,
    /// The client repeats its greeting, but has received the answer to an earlier one.
    AnsweredBefore,
}

/// Why a greeting or resume was refused. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// An operator has banned the name, for so many milliseconds more.
    Banned {
        /// The milliseconds.
        left_ms: u64,
    },
    /// Another reason.
    Error(ErrorCode),
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code)
    }
}

/// What a client negotiates when it greets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// The protocol version.
    pub version: u16,
    /// The number of a `Greet`, with which it can be repeated; `None` for a `Hello`.
    pub nonce: Option<u64>,
    /// Accepted requests are to be acknowledged.
    pub acknowledge: bool,
}

impl Session<'_> {
    /// Creates a player for the client: answers `Hello` or `Greet`. `used` is the number of received bytes that belong
    /// to the handshake, with the PROXY header in front of it; the rest starts the input stream.
    ///
    /// # Errors
    ///
    /// [`Refusal::Banned`], [`ErrorCode::NameTaken`], [`ErrorCode::ServerFull`] or, while the server drains,
    /// [`ErrorCode::ShuttingDown`].
    pub fn greet(&mut self, greeting: Greeting, name: Name, used: usize) -> Result<(), Refusal> {
        if self.state.memory.header.is_draining() {
            return Err(ErrorCode::ShuttingDown.into());
        }
        let (proxy_header, handshake) = (self.proxy_header_bytes(), self.handshake());
        let secret = random_secret()?;
        let (memory, record, connection) = (self.state.memory, self.record, self.connection);
        let terms = self.terms();
        // A new player does not get older chat lines.
        let chat = self.state.end_of_chat();

        let mut tx = self.state.attachment.begin(memory.directory.record);
        ensure_not_banned(&tx, memory, name)?;
        if memory.directory.find_name(&tx, name.as_str()).is_some() {
            return Err(ErrorCode::NameTaken.into());
        }
        let hash_of = |index| hash_of_token(token_of(index, secret));
        let Some(player) = memory
            .directory
            .add_player(&mut tx, name, (connection, record.order()), hash_of)
        else {
            return Err(ErrorCode::ServerFull.into());
        };
        let player_record = memory.players.at(player.index());
        player_record.lock().prepare();
        tx.acquire(player_record);
        let accounts = memory.directory.remembered_accounts(&tx, name.as_str());
        let dialect = Dialect {
            version: greeting.version,
            acknowledges: greeting.acknowledge,
        };
        player_record.reset(&mut tx, name, chat, accounts, dialect);
        player_record
            .input
            .write(&mut tx, 0, &handshake[used - proxy_header..]);
        let identity = memory.directory.identities.at(player.index());
        tx.set(&identity.greeting_nonce, greeting.nonce.unwrap_or(0));
        let token = token_of(player.index(), secret);
        let reply = match greeting.nonce {
            None => terms.welcome(greeting.version, token, player, name),
            Some(_) => terms.greeted(greeting.version, token, player, name, 0),
        };
        let mut buffer = [0; HANDSHAKE_REPLY_BYTES_MAX];
        let done = frame::write_frame_into(&reply, &mut buffer)
            .map(|length| open(&mut tx, record, player, used, (0, 0), &buffer[..length]))
            .map_err(|_| ErrorCode::InternalError)
            .and_then(|()| tx.commit().map_err(|_| ErrorCode::InternalError));
        match done {
            Ok(()) => {
                record.last_frame_at_ms.store(now_ms(), Ordering::Relaxed);
                self.player = Some((player, player_record));
            }
            Err(_) => self.state.attachment.release(player_record),
        }
        Ok(done?)
    }

    /// Whether more of what the client sends at once may still be on its way: see [`ENTER_WAIT_MS`].
    pub fn is_just_accepted(&self) -> bool {
        now_ms() < self.enter_decided_at_ms()
    }

    /// From when on Enter alone is taken for a person, in milliseconds of the monotonic clock.
    pub fn enter_decided_at_ms(&self) -> u64 {
        self.record.accepted_at_ms.load(Ordering::Relaxed) + ENTER_WAIT_MS
    }

    /// Requests the session that `token` belongs to: answers `Resume`. The handler that holds the session, if any, is
    /// asked to yield. `versions` are those that the client speaks. Returns the keeper whose doorbell must be rung.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::TokenUnknown`]; [`Refusal::Banned`]; [`ErrorCode::VersionUnsupported`] if the client does not speak
    /// the session's version; [`ErrorCode::Replaced`] if a newer connection has or requested the session;
    /// [`ErrorCode::Malformed`] if fewer bytes than `received` were ever sent. Nothing was changed.
    pub fn request_resume(
        &mut self,
        versions: std::ops::RangeInclusive<u16>,
        token: Token,
        received: u64,
        used: usize,
    ) -> Result<Option<u32>, Refusal> {
        let memory = self.state.memory;
        let (index, hash) = (index_of_token(token), hash_of_token(token));
        let tx = self.state.attachment.begin(memory.directory.record);
        let identity = memory
            .directory
            .identities
            .get(index)
            .ok_or(ErrorCode::TokenUnknown)?;
        if tx.get(&identity.token_hash) != hash {
            return Err(ErrorCode::TokenUnknown.into());
        }
        // Also for a player that has been removed, until the record is used again.
        ensure_not_banned(&tx, memory, tx.get(&identity.name))?;
        let presence = Presence::from_raw(tx.get(&identity.presence));
        let resumable = [Presence::ATTACHED, Presence::DETACHED].contains(&presence);
        // A kicked player must not return before the ticker has removed it.
        if !resumable || tx.get(&identity.kicked) != 0 {
            return Err(ErrorCode::TokenUnknown.into());
        }
        let player_record = memory.players.at(index);
        if !versions.contains(&player_record.dialect().version) {
            return Err(ErrorCode::VersionUnsupported.into());
        }
        // If this were checked only after the holder had yielded, a false claim would cost the rightful connection.
        if received > player_record.output_reached.load(Ordering::Acquire) {
            return Err(ErrorCode::Malformed.into());
        }
        let player = PlayerRef::new(index, tx.get(&identity.generation));
        let asked = (received, Proof::Token);
        let connection = (self.record, self.connection);
        Ok(request_session(tx, memory, connection, player, used, asked)?)
    }

    /// Requests the session that an earlier greeting of the same client has created and whose answer the client has not
    /// received. `used` as in [`greet`](Self::greet). Returns the keeper whose doorbell must be rung.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NameTaken`] if the player of that name has another nonce or has confirmed the answer; as
    /// [`request_resume`](Self::request_resume). Nothing was changed.
    pub fn request_repeated_greeting(
        &mut self,
        name: Name,
        nonce: u64,
        used: usize,
    ) -> Result<Option<u32>, ErrorCode> {
        let memory = self.state.memory;
        let tx = self.state.attachment.begin(memory.directory.record);
        let player = memory
            .directory
            .find_name(&tx, name.as_str())
            .ok_or(ErrorCode::NameTaken)?;
        let identity = memory.directory.identities.at(player.index());
        let presence = Presence::from_raw(tx.get(&identity.presence));
        let is_same_client = nonce != 0
            && tx.get(&identity.greeting_nonce) == nonce
            && tx.get(&identity.kicked) == 0
            && [Presence::ATTACHED, Presence::DETACHED].contains(&presence)
            && !has_confirmed(memory, player);
        if !is_same_client {
            return Err(ErrorCode::NameTaken);
        }
        // What the client sends depends on the answer.
        if self.byte_counts.received > used as u64 {
            return Err(ErrorCode::WrongState);
        }
        let asked = (0, Proof::RepeatedGreeting);
        request_session(tx, memory, (self.record, self.connection), player, used, asked)
    }
    /// Continues the requested session once its former handler has released it: sends `Resumed`.
    pub fn try_resume(&mut self) -> Resume {
        let (memory, record, connection) = (self.state.memory, self.record, self.connection);
        let player = self.state.attachment.read_own(&record.player);
        let asked = self.state.attachment.read_own(&record.asked_from);
        let proof = self.state.attachment.read_own(&record.proof);
        let greets_again = Proof::RepeatedGreeting.is(proof);
        let (Ok(secret), Ok(random)) = (random_secret(), random_word()) else {
            return Resume::NotYet;
        };
        let terms = self.terms();
        let mut tx = self.state.attachment.begin(memory.directory.record);
        let Some(identity) = memory.directory.identity(&tx, player) else {
            return Resume::Gone;
        };
        if tx.get(&identity.claimant) != connection {
            return Resume::Superseded;
        }
        match Presence::from_raw(tx.get(&identity.presence)) {
            _ if tx.get(&identity.kicked) != 0 => {
                let name = tx.get(&identity.name);
                let ban_ms = memory.directory.sanction_left_ms(&tx, SanctionKind::BAN, name);
                return Resume::Kicked { ban_ms };
            }
            Presence::DETACHED => {}
            Presence::ATTACHED => return Resume::NotYet,
            _ => return Resume::Gone,
        }
        // A confirm may have arrived in the meantime, on the earlier connection.
        if greets_again && has_confirmed(memory, player) {
            return Resume::AnsweredBefore;
        }
        let player_record = memory.players.at(player.index());
        // The session was detached under the lobby's lock, which is held, so nothing of it is undecided.
        tx.acquire(player_record);
        let Ok(charge) = charge_return(memory, &tx, player_record) else {
            drop(tx);
            self.state.attachment.release(player_record);
            return Resume::TooSoon;
        };
        let (consumed, head) = (
            tx.get(&player_record.consumed),
            tx.get(&player_record.output_head),
        );
        let kept_from = player_record.output_kept_from.load(Ordering::Acquire);
        let is_text = Proof::Word.is(proof);
        if asked > head && !is_text {
            drop(tx);
            self.state.attachment.release(player_record);
            return Resume::BeyondTheEnd;
        }
        let resuming_at = match asked {
            _ if is_text => head,
            asked if asked >= kept_from => asked,
            // What is still kept is sent, if the client confirmed whole frames.
            _ if kept_frames_begin_at(&tx, player_record, kept_from, head) => kept_from,
            _ => head,
        };
        if let Some(charge) = charge {
            charge.enter(&mut tx, player_record);
        }
        if resuming_at != asked || is_text {
            tx.set(&player_record.log_cursor, CURSOR_LOST);
        }
        tx.set(&identity.presence, Presence::ATTACHED.raw());
        tx.set(&identity.connection, connection);
        tx.set(&identity.claimant, ConnectionRef::NONE);
        player_record.input.rebase(&mut tx, consumed);
        let used = tx.get(&record.handshake_bytes) as usize;
        let reply = if greets_again {
            // The former token was lost with the former answer, and only its hash is known.
            let token = token_of(player.index(), secret);
            tx.set(&identity.token_hash, hash_of_token(token));
            let version = player_record.dialect().version;
            terms.greeted(version, token, player, tx.get(&identity.name), consumed)
        } else {
            ServerMessage::Resumed {
                received: consumed,
                resuming_at,
            }
        };
        let bases = (consumed, resuming_at);
        if is_text {
            let word = ResumeWord::new(player.index(), random);
            tx.set(&identity.token_hash, word.hash());
            tx.set(&player_record.resume_secret, random);
            reopen_text(&mut tx, record, (player, player_record), used, bases, word);
        } else {
            let mut buffer = [0; HANDSHAKE_REPLY_BYTES_MAX];
            let length = frame::write_frame_into(&reply, &mut buffer).expect("a reply to a handshake fits");
            open(&mut tx, record, player, used, bases, &buffer[..length]);
        }
        tx.commit().expect("resuming fits the journal");
        // The client has confirmed these bytes. Not before the commit: another claimant might still ask for them.
        player_record
            .output_kept_from
            .fetch_max(resuming_at, Ordering::AcqRel);
        memory.header.resumes_total.fetch_add(1, Ordering::Relaxed);
        record.last_frame_at_ms.store(now_ms(), Ordering::Relaxed);
        self.player = Some((player, player_record));
        self.wipe_handshake();
        Resume::Done
    }

    /// The connection that holds the session which this one requests, if there is one.
    pub fn holder_of_session(&mut self) -> Option<ConnectionRef> {
        let memory = self.state.memory;
        let player = self.state.attachment.read_own(&self.record.player);
        let tx = self.state.attachment.begin(memory.directory.record);
        let holder = tx.get(&memory.directory.identity(&tx, player)?.connection);
        holder.is_some().then_some(holder)
    }

    /// The process that serves a connection, if the connection is still there.
    pub fn process_of(&self, connection: ConnectionRef) -> Option<ProcessId> {
        let record = self.state.memory.connections.get(connection.index())?;
        (record.reference(connection.index()) == connection)
            .then(|| record.handler())
            .flatten()
    }

    fn terms(&self) -> Terms {
        let header = self.state.memory.header;
        let number = |value: &AtomicU64| u32::try_from(value.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        Terms {
            limits: Limits {
                frame_bytes_max: wire(FRAME_BYTES_MAX),
                name_bytes_max: wire(PLAYER_NAME_BYTES_MAX),
                chat_bytes_max: wire(CHAT_BYTES_MAX),
                confirm_every_bytes: CONFIRM_EVERY_BYTES,
                heartbeat_timeout_ms: number(&header.heartbeat_timeout_ms),
                seat_grace_ms: number(&header.seat_grace_ms),
            },
            budgets: Budgets {
                unconfirmed_bytes_max: wire(OUTPUT_RING_BYTES),
                unconfirmed_timeout_ms: u32::try_from(WRITE_STALL_TIMEOUT_MS).unwrap_or(u32::MAX),
                room_log_bytes: wire(ROOM_LOG_BYTES),
                chat_burst: number(&header.chat_burst),
                chat_per_minute: number(&header.chat_per_minute),
                requests_burst: number(&header.requests_burst),
                requests_per_minute: number(&header.requests_per_minute),
            },
            games: self.state.games.infos(),
        }
    }
}

/// What the answer to a greeting says of the server.
struct Terms {
    limits: Limits,
    budgets: Budgets,
    games: Vec<GameInfo>,
}

impl Terms {
    fn welcome(self, version: u16, token: Token, player: PlayerRef, name: Name) -> ServerMessage {
        ServerMessage::Welcome {
            version,
            token,
            player: PlayerId(player.to_id()),
            name: name.as_str().to_owned(),
            limits: self.limits,
            games: self.games,
        }
    }

    fn greeted(
        self,
        version: u16,
        token: Token,
        player: PlayerRef,
        name: Name,
        received: u64,
    ) -> ServerMessage {
        ServerMessage::Greeted {
            version,
            token,
            player: PlayerId(player.to_id()),
            name: name.as_str().to_owned(),
            limits: self.limits,
            budgets: self.budgets,
            received,
            games: self.games,
        }
    }
}

/// Checks that no operator has banned the name.
///
/// # Errors
///
/// [`Refusal::Banned`], which is counted.
pub(crate) fn ensure_not_banned(tx: &LobbyTx<'_>, memory: &Memory, name: Name) -> Result<(), Refusal> {
    match memory.directory.sanction_left_ms(tx, SanctionKind::BAN, name) {
        None => Ok(()),
        Some(left_ms) => {
            memory.header.banned_total.fetch_add(1, Ordering::Relaxed);
            Err(Refusal::Banned { left_ms })
        }
    }
}

/// How a client proves that a session is its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// By the token.
    Token = 0,
    /// By the name and the number of its greeting.
    RepeatedGreeting = 1,
    /// By the resume word: a player in text mode, which cannot say how many bytes it has received.
    Word = 2,
}

impl Proof {
    pub(crate) fn is(self, raw: u32) -> bool {
        raw == self as u32
    }
}

/// Makes the connection the claimant of the session, and asks the holder to yield. Returns the keeper whose doorbell
/// must be rung.
pub(crate) fn request_session(
    mut tx: LobbyTx<'_>,
    memory: &Memory,
    (record, connection): (&'static ConnectionRecord, ConnectionRef),
    player: PlayerRef,
    used: usize,
    (received, proof): (u64, Proof),
) -> Result<Option<u32>, ErrorCode> {
    let identity = memory.directory.identities.at(player.index());
    // An older attempt of the same client must not take the session back, nor rewind it.
    if record.order() < tx.get(&identity.newest) {
        return Err(ErrorCode::Replaced);
    }
    let (former_claimant, holder) = (tx.get(&identity.claimant), tx.get(&identity.connection));
    tx.set(&identity.newest, record.order());
    tx.set(&identity.claimant, connection);
    tx.set(&record.player, player);
    tx.set(&record.phase, Phase::RESUMING.raw());
    tx.set(&record.handshake_bytes, u32::try_from(used).unwrap_or(u32::MAX));
    tx.set(&record.asked_from, received);
    tx.set(&record.proof, proof as u32);
    tx.commit().map_err(|_| ErrorCode::InternalError)?;
    // The time that the former holder has to yield starts now.
    record.last_frame_at_ms.store(now_ms(), Ordering::Relaxed);
    if former_claimant.is_some() {
        // It would notice by itself, but later. Its keeper may be rung together with the holder's.
        memory.raise_attention(former_claimant);
    }
    Ok(holder.is_some().then(|| memory.raise_attention(holder)))
}

/// Whether whole frames lie in the kept output from this offset on: they end where the output does.
fn kept_frames_begin_at(tx: &LobbyTx<'_>, player: &PlayerRecord, kept_from: u64, head: u64) -> bool {
    let output = player.output.view_in(tx);
    let mut offset = kept_from;
    while offset + (FRAME_HEADER_BYTES as u64) < head {
        let mut header = [0; FRAME_HEADER_BYTES];
        output.read(offset, &mut header);
        let length = u32::from_le_bytes(header);
        if length == 0 || length as usize > FRAME_BYTES_MAX {
            return false;
        }
        offset += FRAME_HEADER_BYTES as u64 + u64::from(length);
    }
    offset == head
}

/// Whether the client has confirmed any of its stream, and so has received the answer to its greeting.
fn has_confirmed(memory: &Memory, player: PlayerRef) -> bool {
    let record = memory.players.at(player.index());
    record.output_kept_from.load(Ordering::Acquire) > 0
}

pub(crate) fn random_secret() -> Result<[u8; 12], ErrorCode> {
    let mut secret = [0; 12];
    getrandom::fill(&mut secret).map_err(|_| ErrorCode::InternalError)?;
    Ok(secret)
}

/// The random part of a resume word.
pub(crate) fn random_word() -> Result<u64, ErrorCode> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| ErrorCode::InternalError)?;
    Ok(u64::from_le_bytes(random))
}

/// A limit in the type of the wire format.
fn wire(limit: usize) -> u32 {
    u32::try_from(limit).expect("limits are small")
}

/// Opens the session's streams on the connection, with `reply` in front of the output stream, behind what was noted to
/// be sent before.
pub(crate) fn open(
    tx: &mut LobbyTx<'_>,
    record: &'static ConnectionRecord,
    player: PlayerRef,
    used: usize,
    (input_base, output_base): (u64, u64),
    reply: &[u8],
) {
    let noted = tx.get(&record.handshake_reply_bytes);
    if !reply.is_empty() {
        tx.write(&record.handshake_reply, noted as usize, reply);
    }
    tx.set(
        &record.handshake_reply_bytes,
        noted + u32::try_from(reply.len()).expect("a handshake reply is small"),
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
}

/// Continues the session of a player in text mode: says so, with the next resume word, and takes in what was typed
/// behind the former one.
fn reopen_text(
    tx: &mut LobbyTx<'_>,
    record: &'static ConnectionRecord,
    (player, player_record): (PlayerRef, &'static PlayerRecord),
    used: usize,
    (consumed, resuming_at): (u64, u64),
    word: ResumeWord,
) {
    let mut typed = [0; HANDSHAKE_BYTES_MAX];
    let typed = &mut typed[..tx.get(&record.typed_behind) as usize];
    record.handshake.copy_out(0, typed);
    player_record.input.write(tx, consumed, typed);
    tx.set(&player_record.input_state, tx.get(&record.typed_state));
    tx.set(&player_record.telnet_refused, tx.get(&record.telnet_refused));
    tx.set(&player_record.telnet_answered, consumed);
    // It may be another terminal.
    tx.set(&player_record.has_ansi, 0);
    // All that the client was sent on this connection was sent before the stream.
    open(tx, record, player, used, (consumed, resuming_at), &[]);
    let name = tx.get(&player_record.name);
    let text = render::to_terminal(&render::resumed(name.as_str(), &word.to_string())) + render::PROMPT;
    let mut output = Output::of_idle_stream(player_record, resuming_at);
    output.put_bytes(tx, text.as_bytes());
    output.finish(tx);
}

/// A token is the index of the player's record (little-endian) and 12 random bytes. It is opaque to clients.
pub(crate) fn token_of(index: u32, secret: [u8; 12]) -> Token {
    let mut token = [0; 16];
    token[..4].copy_from_slice(&index.to_le_bytes());
    token[4..].copy_from_slice(&secret);
    Token(token)
}

fn index_of_token(token: Token) -> u32 {
    let [a, b, c, d, ..] = token.0;
    u32::from_le_bytes([a, b, c, d])
}

pub(crate) fn hash_of_token(token: Token) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(token.0).into()
}
