//! What differs for players in [text mode](forkade_text::input): how they connect, and how typed lines are consumed
//! and answered.
//!
//! Requests that frames can make too run through the same transactions. They consume a line instead of a frame, and
//! their replies are rendered as text on the way into the output ring.

use std::sync::atomic::Ordering;

use forkade_protocol::ErrorCode;

use crate::limits::{HANDSHAKE_BYTES_MAX, HANDSHAKE_REPLY_BYTES_MAX};
use crate::session::Session;
use crate::session::handshake::{Proof, Refusal, ensure_not_banned, open, random_word, request_session};
use crate::session::rejection::Rejection;
use crate::session::resume_word::ResumeWord;
use crate::state::connections::Phase;
use crate::state::directory::{LobbyTx, Name, Presence};
use crate::state::layout::{ConnectionRef, PlayerRef};
use crate::state::players::Dialect;
use crate::state::sanctions::SanctionKind;
use forkade_text::input::{self, Token};
use forkade_text::render;
use forkade_text::telnet::options::RefusedOptions;
use shmem::sys::clock::now_ms;
use shmem::transaction::Record;

/// Why a player in text mode cannot resume a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResumeRefusal {
    /// Output is still to be sent: the line is to be handled again.
    #[error("output is on its way; try again")]
    NotYet,
    /// No session has the word.
    #[error("no session has this word (any more)")]
    UnknownWord,
    /// An operator has banned the session's name.
    #[error("{}", render::banned(*left_ms))]
    Banned {
        /// For so many milliseconds more.
        left_ms: u64,
    },
    /// It is the word of the player that types it.
    #[error("that is your own word: keep it for when you have lost the connection")]
    OwnWord,
    /// A newer connection has had the session, or has asked for it.
    #[error("this connection is older than the session's last one: connect again, and type the word there")]
    Replaced,
    /// Too much was typed behind the line.
    #[error("you typed more behind that line than can wait; type it again")]
    TypedAhead,
    /// The connection has carried too much.
    #[error("this connection is too old for that: connect again")]
    TooLate,
}

/// Guest names that are tried for a new player, in case others are taken.
const GUEST_NAMES_TRIED: u32 = 16;

impl Session<'_> {
    /// Whether the player is in text mode, or asks for the session of one.
    pub fn is_text(&self) -> bool {
        let attachment = &self.state.attachment;
        match self.player {
            Some((_, player)) => attachment.read_own(&player.is_text) != 0,
            None => {
                self.phase() == Phase::RESUMING && Proof::Word.is(attachment.read_own(&self.record.proof))
            }
        }
    }

    /// Whether the player leaves when its connection ends: in text mode, only a seat is kept. A player without one
    /// connects again, has lost nothing, and finds its name free.
    pub fn has_nothing_to_keep(&self) -> bool {
        let has_seat = matches!(self.membership().place(), Some((_, Some(_))));
        self.is_text() && !has_seat
    }

    /// The word by which the player in text mode can resume.
    pub fn resume_word(&self) -> Option<ResumeWord> {
        let (player, record) = self.player?;
        let secret = self.state.attachment.read_own(&record.resume_secret);
        Some(ResumeWord::new(player.index(), secret))
    }

    /// Requests the session that `word` belongs to, in place of the player that typed it. That player leaves, and its
    /// handler is not ready for its next line. Returns the keeper whose doorbell must be rung.
    ///
    /// # Errors
    ///
    /// [`ResumeRefusal`]. Nothing was changed.
    pub fn request_resume_by_word(&mut self, word: ResumeWord) -> Result<Option<u32>, ResumeRefusal> {
        let (Some((guest, guest_record)), Some(end)) = (self.player, self.frame_end) else {
            return Err(ResumeRefusal::UnknownWord);
        };
        // Output that is not sent yet belongs to the guest.
        if !self.all_sent() {
            return Err(ResumeRefusal::NotYet);
        }
        let (memory, record, connection) = (self.state.memory, self.record, self.connection);
        let behind = usize::try_from(self.input_received() - end).unwrap_or(usize::MAX);
        if behind > HANDSHAKE_BYTES_MAX {
            return Err(ResumeRefusal::TypedAhead);
        }
        let mut typed = vec![0; behind];
        guest_record
            .input
            .view(&self.state.attachment)
            .read(end, &mut typed);
        let used = self.byte_counts.received - behind as u64;
        let (Ok(used), Ok(sent)) = (u32::try_from(used), u32::try_from(self.byte_counts.sent)) else {
            return Err(ResumeRefusal::TooLate);
        };
        let refused = self.state.attachment.read_own(&guest_record.telnet_refused);
        let state = self.input_state_behind.unwrap_or_default();

        let mut tx = self.state.attachment.begin(memory.directory.record);
        let identities = &memory.directory.identities;
        let identity = identities.get(word.index).ok_or(ResumeRefusal::UnknownWord)?;
        let presence = Presence::from_raw(tx.get(&identity.presence));
        if tx.get(&identity.token_hash) != word.hash() {
            return Err(ResumeRefusal::UnknownWord);
        }
        if let Err(Refusal::Banned { left_ms }) = ensure_not_banned(&tx, memory, tx.get(&identity.name)) {
            return Err(ResumeRefusal::Banned { left_ms });
        }
        let resumable =
            [Presence::ATTACHED, Presence::DETACHED].contains(&presence) && tx.get(&identity.kicked) == 0;
        if !resumable {
            return Err(ResumeRefusal::UnknownWord);
        }
        if word.index == guest.index() {
            return Err(ResumeRefusal::OwnWord);
        }
        tx.write(&record.handshake, 0, &typed);
        tx.set(
            &record.typed_behind,
            u32::try_from(behind).expect("less than a handshake"),
        );
        tx.set(&record.typed_state, state);
        tx.set(&record.telnet_refused, refused);
        tx.set(&record.handshake_reply_bytes, sent);
        tx.set(&record.output_base, 0);
        // Any process that finds this completes it.
        let guest_identity = identities.at(guest.index());
        tx.set(&guest_identity.presence, Presence::EXPIRING.raw());
        tx.set(&guest_identity.connection, ConnectionRef::NONE);
        let player = PlayerRef::new(word.index, tx.get(&identity.generation));
        // It cannot count what it has received, so no byte is confirmed.
        let asked = (0, Proof::Word);
        let requested = request_session(
            tx,
            memory,
            (record, connection),
            player,
            usize::try_from(used).expect("a count of bytes in a record"),
            asked,
        );
        let keeper = requested.map_err(|code| match code {
            ErrorCode::Replaced => ResumeRefusal::Replaced,
            _ => ResumeRefusal::UnknownWord,
        })?;
        self.state.attachment.release(guest_record);
        self.player = None;
        Ok(keeper)
    }

    /// Refuses what was typed as a resume word. Returns how many words this player has tried.
    ///
    /// # Errors
    ///
    /// The transaction does not fit its journal: a bug.
    pub fn refuse_word(&mut self, text: &str) -> Result<u32, Rejection> {
        let Some(own) = self.player_tx() else {
            return Ok(0);
        };
        let mut tx = self.state.attachment.begin(own.player);
        let tried = tx.get(&own.player.words_refused) + 1;
        tx.set(&own.player.words_refused, tried);
        own.say(&mut tx, text);
        own.consume(&mut tx);
        tx.commit()?;
        Ok(tried)
    }

    /// Milliseconds of silence after which the connection is closed, if places are free.
    pub fn silence_timeout_ms(&self) -> u64 {
        let header = self.state.memory.header;
        let limit = match self.is_text() {
            true => &header.text_idle_timeout_ms,
            false => &header.heartbeat_timeout_ms,
        };
        limit.load(Ordering::Relaxed)
    }

    /// What a client that was silent for longer than `timeout_ms` is told.
    pub fn silence_text(&self, timeout_ms: u64) -> String {
        match self.is_text() {
            true => render::idle_timeout_text(timeout_ms),
            false => "nothing was heard of you for too long".into(),
        }
    }

    /// Records that input has arrived. A person types in pieces, and each piece shows that the client is alive.
    pub fn record_typing(&self) {
        if self.is_text() {
            self.record.last_frame_at_ms.store(now_ms(), Ordering::Relaxed);
        }
    }

    /// Creates a player in text mode for the client. All received bytes belong to the player's stream, but for a PROXY
    /// header.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::ServerFull`], [`ErrorCode::ShuttingDown`] while the server drains, or [`ErrorCode::NameTaken`] if
    /// all guest names that were tried are taken. Nothing was changed.
    pub fn create_guest(&mut self) -> Result<(), ErrorCode> {
        if self.state.memory.header.is_draining() {
            return Err(ErrorCode::ShuttingDown);
        }
        let (proxy_header, typed) = (self.proxy_header_bytes(), self.handshake());
        let random = random_word()?;
        let (memory, record, connection) = (self.state.memory, self.record, self.connection);
        let games = self.state.games;
        // A new player does not get older chat lines.
        let chat = self.state.end_of_chat();
        let mut tx = self.state.attachment.begin(memory.directory.record);
        let is_free = |tx: &LobbyTx<'_>, name: &Name| {
            memory.directory.find_name(tx, name.as_str()).is_none()
                && memory
                    .directory
                    .sanction_left_ms(tx, SanctionKind::BAN, *name)
                    .is_none()
        };
        let name = guest_names(record.order())
            .find(|name| is_free(&tx, name))
            .ok_or(ErrorCode::NameTaken)?;
        let hash_of = |index| ResumeWord::new(index, random).hash();
        let player = memory
            .directory
            .add_player(&mut tx, name, (connection, record.order()), hash_of)
            .ok_or(ErrorCode::ServerFull)?;
        let player_record = memory.players.at(player.index());
        player_record.lock().prepare();
        tx.acquire(player_record);
        let accounts = memory.directory.remembered_accounts(&tx, name.as_str());
        player_record.reset(&mut tx, name, chat, accounts, Dialect::FIRST);
        tx.set(&player_record.is_text, 1);
        tx.set(&player_record.resume_secret, random);
        tx.set(&player_record.words_refused, 0);
        tx.set(&player_record.input_state, input::InputState::default());
        tx.set(&player_record.telnet_refused, RefusedOptions::default());
        tx.set(&player_record.telnet_answered, 0);
        player_record.input.write(&mut tx, 0, &typed);
        let word = ResumeWord::new(player.index(), random).to_string();
        let welcome = render::to_terminal(&render::welcome(name.as_str(), &word, games));
        let reply = welcome.as_bytes();
        let reply = &reply[..reply.len().min(HANDSHAKE_REPLY_BYTES_MAX)];
        open(&mut tx, record, player, proxy_header, (0, 0), reply);
        let done = tx.commit().map_err(|_| ErrorCode::InternalError);
        match done {
            Ok(()) => {
                record.last_frame_at_ms.store(now_ms(), Ordering::Relaxed);
                self.player = Some((player, player_record));
            }
            Err(_) => self.state.attachment.release(player_record),
        }
        done
    }

    /// The next token of a text player's input. A line becomes the current frame; the transaction that executes it
    /// consumes it.
    pub fn next_typed(&mut self) -> Token {
        let Some((_, player)) = self.player else {
            return Token::Incomplete;
        };
        let attachment = &self.state.attachment;
        let (consumed, received) = (attachment.read_own(&player.consumed), self.input_received());
        let waiting = usize::try_from(received.saturating_sub(consumed)).unwrap_or(0);
        if waiting == 0 {
            return Token::Incomplete;
        }
        let mut input = vec![0; waiting];
        player.input.view(attachment).read(consumed, &mut input);
        let answered = attachment
            .read_own(&player.telnet_answered)
            .saturating_sub(consumed);
        let found = input::next_token(
            &input,
            attachment.read_own(&player.input_state),
            attachment.read_own(&player.telnet_refused),
            usize::try_from(answered).unwrap_or(usize::MAX),
        );
        if let Token::Line { end, state, .. }
        | Token::LineTooLong { end, state }
        | Token::Skip { end, state } = found
        {
            let end = consumed + end as u64;
            self.frame_end = Some(end);
            self.input_state_behind = Some(state);
            self.record.current_frame.store(end, Ordering::Release);
        }
        found
    }

    /// Sends replies to telnet commands, which cover `up_to` bytes behind the consumed input.
    ///
    /// # Errors
    ///
    /// The transaction does not fit its journal: a bug.
    pub fn answer_telnet(
        &mut self,
        answers: &[u8],
        up_to: usize,
        refused: RefusedOptions,
    ) -> Result<(), Rejection> {
        let Some(own) = self.player_tx() else {
            return Ok(());
        };
        let mut tx = self.state.attachment.begin(own.player);
        let consumed = tx.get(&own.player.consumed);
        tx.set(&own.player.telnet_answered, consumed + up_to as u64);
        tx.set(&own.player.telnet_refused, refused);
        let mut output = own.begin_output(&tx);
        output.put_bytes(&mut tx, answers);
        output.finish(&mut tx);
        Ok(tx.commit()?)
    }

    /// Answers the current line.
    ///
    /// # Errors
    ///
    /// The transaction does not fit its journal: a bug.
    pub fn say(&mut self, text: &str) -> Result<(), Rejection> {
        let Some(own) = self.player_tx() else {
            return Ok(());
        };
        let mut tx = self.state.attachment.begin(own.player);
        own.say(&mut tx, text);
        own.consume(&mut tx);
        Ok(tx.commit()?)
    }

    /// Discards output that was sent: a text player cannot resume and ask for it again.
    pub fn discard_sent(&self) {
        if let Some((_, player)) = self.player.filter(|_| self.is_text()) {
            player
                .output_kept_from
                .fetch_max(self.output_sent(), Ordering::AcqRel);
        }
    }
}

/// Guest names, derived from the connection's number in the order of acceptance.
fn guest_names(order: u64) -> impl Iterator<Item = Name> {
    let names = (1..=GUEST_NAMES_TRIED).map(move |attempt| match attempt {
        1 => format!("guest-{order}"),
        _ => format!("guest-{order}-{attempt}"),
    });
    names.filter_map(|name| Name::new(&name))
}
