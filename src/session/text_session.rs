//! Players in [text mode](forkade_text::input): how they come in, what they type, and what they are told.
//!
//! Whatever can be asked for in frames too is done by the same transactions; they consume a line instead of a frame, and their
//! replies become words on the way into the output ring. Here is the rest.

use std::sync::atomic::{AtomicU64, Ordering};

use forkade_protocol::Phase as MatchPhase;
use forkade_protocol::{ErrorCode, RejectCode, RoomEvent, RoomId, ServerMessage, Snapshot, codec};

use crate::limits::{FRAME_HEADER_BYTES, FRAME_TOTAL_BYTES_MAX, GREETING_BYTES_MAX, TEXT_NAMES_SHOWN_MAX};
use crate::lobby::delivery::{BATCH_MAX, Entry, Pause, read_entry};
use crate::lobby::{Lobby, Rejection};
use crate::session::handshake::{hash_of_token, open, token_of};
use crate::session::{CURSOR_LOST, Session};
use crate::state::buffers;
use crate::state::directory::{LobbyTx, Name, Presence};
use crate::state::layout::RoomRef;
use crate::state::rooms::{RoomTx, Seat, game_of, is_member, phase_of, read_state, snapshot, view_for};
use forkade_games::{GameError, Games};
use forkade_text::input;
use forkade_text::input::Token;
use forkade_text::render;
use forkade_text::render::RenderContext;
use forkade_text::telnet::RefusedOptions;
use shmem::sys::clock::now_ms;
use shmem::transaction::Record;

/// Names that are tried for a newcomer, should some of them be taken by people who chose them.
const GUEST_NAMES_TRIED: u32 = 16;

/// Identities looked at in one transaction of `who`.
const IDENTITIES_PER_LOOK: u32 = 64;

impl Session {
    /// Whether the connection carries somebody in text mode.
    pub fn is_text(&self) -> bool {
        self.player
            .is_some_and(|(_, player)| self.lobby.attachment.read_own(&player.is_text) != 0)
    }

    /// Milliseconds of silence after which the player is taken for gone.
    pub fn silence_max_ms(&self) -> u64 {
        let header = self.lobby.memory.header;
        let limit = match self.is_text() {
            true => &header.text_idle_timeout_ms,
            false => &header.heartbeat_timeout_ms,
        };
        limit.load(Ordering::Relaxed)
    }

    /// What whoever has been silent for so long is told.
    pub fn why_silent(&self) -> String {
        match self.is_text() {
            true => render::idle_timeout_text(self.silence_max_ms()),
            false => "nothing was heard of you for too long".into(),
        }
    }

    /// Something has arrived. What is typed comes in pieces, each a sign of life.
    pub fn note_typing(&self) {
        if self.is_text() {
            self.record.last_frame_at_ms.store(now_ms(), Ordering::Relaxed);
        }
    }

    /// Makes whoever connected a new player in text mode. All that was received belongs to the player's stream.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::ServerFull`], or [`ErrorCode::NameTaken`] if all names that were tried are; nothing was changed.
    pub fn greet_guest(&mut self) -> Result<(), ErrorCode> {
        if self.lobby.memory.header.is_draining() {
            return Err(ErrorCode::ShuttingDown);
        }
        let typed = self.handshake();
        let mut secret = [0; 12];
        // Nobody is ever shown the token; but nobody shall guess it either.
        getrandom::fill(&mut secret).map_err(|_| ErrorCode::InternalError)?;
        let (memory, record, connection) = (self.lobby.memory, self.record, self.connection);
        let games = self.lobby.games;
        // Of what was said before, the player hears nothing.
        let chat = self.lobby.end_of_chat();
        let mut tx = self.lobby.attachment.begin(memory.directory.record);
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
            Err(_) => self.lobby.attachment.release(player_record),
        }
        done
    }

    /// The next thing in a text player's input. A line is being handled from now on, and consumed by the transaction that does what
    /// it asks for.
    pub fn next_typed(&mut self) -> Token {
        let Some((_, player)) = self.player else {
            return Token::Incomplete;
        };
        let attachment = &self.lobby.attachment;
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
            self.record.working_on.store(end, Ordering::Release);
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
        let Some(own) = self.own() else { return Ok(()) };
        let mut tx = self.lobby.attachment.begin(own.player);
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
        let Some(own) = self.own() else { return Ok(()) };
        let mut tx = self.lobby.attachment.begin(own.player);
        own.say(&mut tx, text);
        own.consume(&mut tx);
        Ok(tx.commit()?)
    }

    /// Gives the player another name.
    ///
    /// # Errors
    ///
    /// In a room, where the others know the player by the old one; or the name taken.
    pub fn rename(&mut self, name: Name) -> Result<(), Rejection> {
        let Some((player, own)) = self.player().zip(self.own()) else {
            return Ok(());
        };
        self.must_be_in_lobby()?;
        let directory = self.lobby.memory.directory;
        let mut tx = self.lobby.attachment.begin(directory.record);
        let holder = directory.find_name(&tx, name.as_str());
        if holder.is_some_and(|holder| holder != player) {
            let text = "somebody here has this name; choose another";
            return Err(Rejection::new(RejectCode::TextInvalid, text));
        }
        directory.rename_player(&mut tx, player, name);
        tx.set(&own.player.name, name);
        own.say(&mut tx, &format!("You are called {} now.\n", name.as_str()));
        own.consume(&mut tx);
        Ok(tx.commit()?)
    }

    /// Shows the lobby.
    ///
    /// # Errors
    ///
    /// A transaction that does not fit, which is a mistake of this program's.
    pub fn look_around(&mut self) -> Result<(), Rejection> {
        let head = self.lobby.memory.directory.record;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (players, rooms) = (count(&head.players_published), count(&head.rooms_published));
        let name = self.name();
        self.say(&format!(
            "You are {}, in the lobby. Players here: {players}. Rooms: {rooms}.\n",
            name.as_str()
        ))
    }

    /// Tells who is here.
    ///
    /// # Errors
    ///
    /// A transaction that does not fit, which is a mistake of this program's.
    pub fn who(&mut self) -> Result<(), Rejection> {
        let (names, more) = self.lobby.names_of_players();
        let more = if more { " and more" } else { "" };
        self.say(&format!("Here are {}{more}.\n", names.join(", ")))
    }

    /// The room that people mean by a number: the one that is open in that place now, or any by its id.
    pub fn room_meant(&self, number: u64) -> RoomId {
        let index = number.checked_sub(1).and_then(|index| u32::try_from(index).ok());
        let record = index.and_then(|index| Some((index, self.lobby.memory.rooms.get(index)?)));
        let open = record.and_then(|(index, record)| Some(RoomRef::new(index, record.open_generation()?)));
        RoomId(open.map_or(number, RoomRef::to_id))
    }

    /// The room behind whose number a list is to begin.
    pub fn room_before(&self, number: u64) -> RoomId {
        match u32::try_from(number) {
            Ok(number) => RoomId(u64::from(number.saturating_sub(1))),
            Err(_) => RoomId(number),
        }
    }

    /// An action in the words of the room's game.
    ///
    /// # Errors
    ///
    /// In no room, or words that mean no action.
    pub fn action_of(&mut self, text: &str) -> Result<Vec<u8>, Rejection> {
        let game = self.look_in_room(|tx, inside| Ok(game_of(&tx, inside.games)))?;
        Ok(game.parse_action(text)?)
    }

    /// The player's room as it is now.
    ///
    /// # Errors
    ///
    /// In no room.
    pub fn room_now(&mut self) -> Result<Snapshot, Rejection> {
        self.look_in_room(|tx, inside| {
            Ok(snapshot(
                &tx,
                inside.room,
                inside.games,
                inside.seat,
                inside.faults,
            ))
        })
    }

    /// What was sent need not be kept: nobody can ask for it again.
    pub fn forget_sent(&self) {
        if let Some((_, player)) = self.player.filter(|_| self.is_text()) {
            player
                .output_kept_from
                .fetch_max(self.output_sent(), Ordering::AcqRel);
        }
    }

    /// Puts what has happened in the room into words, with a picture if the game has changed. Under the room's lock: who sits where
    /// is told by names, and the picture belongs to the last event that is told.
    pub(crate) fn tell_events(
        &mut self,
        room: RoomRef,
        cursor: u64,
        seat: Option<u8>,
    ) -> Result<Pause, Rejection> {
        let record = self.lobby.memory.rooms.at(room.index());
        if cursor == CURSOR_LOST {
            return Ok(Pause::Lost);
        }
        if record.log.ends_at(cursor) {
            return Ok(Pause::Idle);
        }
        let Some((player, own)) = self.player().zip(self.own()) else {
            return Ok(Pause::Idle);
        };
        let space_end = self.output_space() + self.lobby.attachment.read_own(&own.player.output_head);
        let (games, faults) = (self.lobby.games, &mut self.lobby.faults);
        let mut tx = self.lobby.attachment.begin(record);
        let mut next_cursor = cursor;
        let mut output = own.begin_output(&tx);
        let seats = seats_with_names(&tx);
        let named = |seat: u8, is_taken: bool| {
            let cell = seats.get(usize::from(seat))?;
            (cell.player.is_some() == is_taken).then(|| cell.name.as_str().to_owned())
        };
        let game = game_of(&tx, games);
        let context = RenderContext {
            game: Some(game),
            seat,
            names: &|seat| named(seat, true),
            left: &|seat| named(seat, false),
        };
        // Who has lost the seat must not see what whoever has it now may see.
        let is_there = is_member(&tx, room, player, seat);
        let mut has_changed = false;
        let mut entries = 0;
        let pause = loop {
            // What is told of one event, the picture, and the prompt.
            if space_end - output.head() < 2 * FRAME_TOTAL_BYTES_MAX as u64 {
                break Pause::Idle;
            }
            if entries == BATCH_MAX {
                break Pause::Batch;
            }
            entries += 1;
            let read = buffers::with_frame(|frame| match read_entry(record, next_cursor, seat, frame) {
                Entry::Frame { length, next } => Ok((Some(event_in(&frame[..length])), next)),
                Entry::ForOthers { next } => Ok((None, next)),
                Entry::None(pause) => Err(pause),
            });
            let event = match read {
                Err(pause) => break pause,
                Ok((event, next)) => {
                    next_cursor = next;
                    event
                }
            };
            let Some(event) = event else { continue };
            let is_end = matches!(event, RoomEvent::Finished { .. });
            if is_end && std::mem::take(&mut has_changed) {
                let picture = picture(&tx, games, seat, faults);
                output.say(&mut tx, &picture);
            }
            // Of a game in real time, which changes all the time, the picture is shown by `look` alone.
            has_changed |=
                is_there && matches!(event, RoomEvent::Game { .. }) && game.ticks_per_second() == 0;
            let told = context.event(&event).unwrap_or_else(|fault| {
                faults.push(fault);
                String::new()
            });
            output.say(&mut tx, &told);
        };
        if has_changed {
            let picture = picture(&tx, games, seat, faults);
            output.say(&mut tx, &picture);
        }
        output.finish(&mut tx);
        tx.set(&own.player.log_cursor, next_cursor);
        tx.commit()?;
        if let Some(seat) = seat {
            record.set_read_up_to(seat, next_cursor);
        }
        Ok(pause)
    }
}

fn event_in(frame: &[u8]) -> RoomEvent {
    let body = frame.get(FRAME_HEADER_BYTES..).unwrap_or_default();
    match codec::decode(body) {
        Ok(ServerMessage::Event { event, .. }) => event,
        other => panic!("a room's log holds events: {other:?}"),
    }
}

/// The match as the player sees it. If the game fails to show itself, `faults` says how.
fn picture(tx: &RoomTx<'_>, games: &Games, seat: Option<u8>, faults: &mut Vec<GameError>) -> String {
    let drawn = view_for(tx, games, seat).and_then(|view| match view.is_empty() {
        true => Ok(String::new()),
        false => game_of(tx, games).draw(&view),
    });
    let drawn = drawn.unwrap_or_else(|fault| {
        faults.push(fault);
        String::new()
    });
    drawn + turn_hint(tx, games, seat, faults)
}

/// Says so if it is for this seat to move.
pub(crate) fn turn_hint(
    tx: &RoomTx<'_>,
    games: &Games,
    seat: Option<u8>,
    faults: &mut Vec<GameError>,
) -> &'static str {
    if phase_of(tx.get(&tx.record().phase)) != MatchPhase::Playing {
        return "";
    }
    let to_move = game_of(tx, games)
        .to_move(&read_state(tx))
        .unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
    match to_move {
        Some(_) if to_move == seat => "It is your move.\n",
        _ => "",
    }
}

/// All seats: who has them, and the names of those who had them last.
fn seats_with_names(tx: &RoomTx<'_>) -> Vec<Seat> {
    let record = tx.record();
    let capacity = tx.get(&record.capacity) as usize;
    let seats = record.seats.iter().take(capacity);
    seats.map(|seat| tx.get(seat)).collect()
}

/// Names for a newcomer: by the connection's place in the order of all.
fn guest_names(order: u64) -> impl Iterator<Item = Name> {
    let names = (1..=GUEST_NAMES_TRIED).map(move |attempt| match attempt {
        1 => format!("guest-{order}"),
        _ => format!("guest-{order}-{attempt}"),
    });
    names.filter_map(|name| Name::new(&name))
}

impl Lobby {
    /// The names of those who are here, up to a number; and whether there are more.
    fn names_of_players(&mut self) -> (Vec<String>, bool) {
        let directory = self.memory.directory;
        let mut names = Vec::new();
        let mut first = 0;
        loop {
            let tx = self.attachment.begin(directory.record);
            let touched = tx.get(&directory.record.identities_touched);
            let end = touched.min(first + IDENTITIES_PER_LOOK);
            for identity in (first..end).map(|index| directory.identities.at(index)) {
                let presence = Presence::from_raw(tx.get(&identity.presence));
                if presence != Presence::ATTACHED {
                    continue;
                }
                if names.len() == TEXT_NAMES_SHOWN_MAX {
                    return (names, true);
                }
                names.push(tx.get(&identity.name).as_str().to_owned());
            }
            if end == touched {
                return (names, false);
            }
            first = end;
        }
    }
}
