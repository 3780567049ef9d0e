//! Players in [text mode](forkade_text::input): how they come in, what they type, and what they are told.
//!
//! Whatever can be asked for in frames too is done by the same transactions; they consume a line instead of a frame, and their
//! replies become words on the way into the output ring. Here is the rest.

use std::sync::atomic::Ordering;

use forkade_protocol::ErrorCode;

use crate::limits::GREETING_BYTES_MAX;
use crate::session::Session;
use crate::session::handshake::{hash_of_token, open, token_of};
use crate::session::rejection::Rejection;
use crate::state::directory::{LobbyTx, Name};
use forkade_text::input;
use forkade_text::input::Token;
use forkade_text::render;
use forkade_text::telnet::RefusedOptions;
use shmem::sys::clock::now_ms;
use shmem::transaction::Record;

/// Names that are tried for a newcomer, should some of them be taken by people who chose them.
const GUEST_NAMES_TRIED: u32 = 16;

impl Session<'_> {
    /// Whether the connection carries somebody in text mode.
    pub fn is_text(&self) -> bool {
        self.player
            .is_some_and(|(_, player)| self.state.attachment.read_own(&player.is_text) != 0)
    }

    /// Milliseconds of silence after which the player is taken for gone.
    pub fn silence_timeout_ms(&self) -> u64 {
        let header = self.state.memory.header;
        let limit = match self.is_text() {
            true => &header.text_idle_timeout_ms,
            false => &header.heartbeat_timeout_ms,
        };
        limit.load(Ordering::Relaxed)
    }

    /// What whoever has been silent for so long is told.
    pub fn silence_text(&self) -> String {
        match self.is_text() {
            true => render::idle_timeout_text(self.silence_timeout_ms()),
            false => "nothing was heard of you for too long".into(),
        }
    }

    /// Something has arrived. What is typed comes in pieces, each a sign of life.
    pub fn record_typing(&self) {
        if self.is_text() {
            self.record.last_frame_at_ms.store(now_ms(), Ordering::Relaxed);
        }
    }

    /// Makes whoever connected a new player in text mode. All that was received belongs to the player's stream.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::ServerFull`], or [`ErrorCode::NameTaken`] if all names that were tried are; nothing was changed.
    pub fn create_guest(&mut self) -> Result<(), ErrorCode> {
        if self.state.memory.header.is_draining() {
            return Err(ErrorCode::ShuttingDown);
        }
        let typed = self.handshake();
        let mut secret = [0; 12];
        // Nobody is ever published the token; but nobody shall guess it either.
        getrandom::fill(&mut secret).map_err(|_| ErrorCode::InternalError)?;
        let (memory, record, connection) = (self.state.memory, self.record, self.connection);
        let games = self.state.games;
        // Of what was said before, the player hears nothing.
        let chat = self.state.end_of_chat();
        let mut tx = self.state.attachment.begin(memory.directory.record);
        let is_free = |tx: &LobbyTx<'_>, name: &Name| memory.directory.find_name(tx, name.as_str()).is_none();
        let name = guest_names(record.order())
            .find(|name| is_free(&tx, name))
            .ok_or(ErrorCode::NameTaken)?;
        let hash_of = |index| hash_of_token(token_of(index, secret));
        let player = memory
            .directory
            .add_player(&mut tx, name, (connection, record.order()), hash_of)
            .ok_or(ErrorCode::ServerFull)?;
        let player_record = memory.players.at(player.index());
        player_record.lock().prepare();
        tx.acquire(player_record);
        player_record.reset(&mut tx, name, chat);
        tx.set(&player_record.is_text, 1);
        tx.set(&player_record.input_state, input::InputState::default());
        tx.set(&player_record.telnet_refused, RefusedOptions::default());
        tx.set(&player_record.telnet_answered, 0);
        player_record.input.write(&mut tx, 0, &typed);
        let welcome = render::to_terminal(&render::welcome(name.as_str(), games));
        let greeting = welcome.as_bytes();
        let greeting = &greeting[..greeting.len().min(GREETING_BYTES_MAX)];
        open(&mut tx, record, player, 0, (0, 0), greeting);
        // Also if nobody is left to say so.
        tx.set(&record.leaves, 1);
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

    /// The next thing in a text player's input. A line is being handled from now on, and consumed by the transaction that does what
    /// it asks for.
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

    /// Sends what telnet's commands are answered, up to `up_to` bytes behind what was consumed.
    ///
    /// # Errors
    ///
    /// A transaction that does not fit, which is a mistake of this program's.
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

    /// Answers a line.
    ///
    /// # Errors
    ///
    /// A transaction that does not fit, which is a mistake of this program's.
    pub fn say(&mut self, text: &str) -> Result<(), Rejection> {
        let Some(own) = self.player_tx() else {
            return Ok(());
        };
        let mut tx = self.state.attachment.begin(own.player);
        own.say(&mut tx, text);
        own.consume(&mut tx);
        Ok(tx.commit()?)
    }

    /// What was sent need not be kept: nobody can ask for it again.
    pub fn discard_sent(&self) {
        if let Some((_, player)) = self.player.filter(|_| self.is_text()) {
            player
                .output_kept_from
                .fetch_max(self.output_sent(), Ordering::AcqRel);
        }
    }
}

/// Names for a newcomer: by the connection's place in the order of all.
fn guest_names(order: u64) -> impl Iterator<Item = Name> {
    let names = (1..=GUEST_NAMES_TRIED).map(move |attempt| match attempt {
        1 => format!("guest-{order}"),
        _ => format!("guest-{order}-{attempt}"),
    });
    names.filter_map(|name| Name::new(&name))
}
