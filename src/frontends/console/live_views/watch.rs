//! `watch`: follows a room's events. It is a further reader of the room's log, woken by the room's doorbell; writers do
//! not wait for it.

use std::collections::BTreeMap;
use std::io;

use forkade_protocol::{RoomEvent, ServerMessage, codec, frame};
use mio::Poll;

use crate::frontends::console::context::ConsoleContext;
use crate::frontends::console::live_views::{LINES_PER_STEP_MAX, Progress};
use crate::frontends::console::queries::{self, NotFound};
use crate::frontends::console::replies::Reply;
use crate::frontends::console::{DOORBELL_ANSWER, ROOM_DOORBELL, format_frame};
use crate::frontends::room_doorbell::RoomDoorbell;
use crate::limits::{DOORBELL_RETRY_MS, FOLLOW_POLL_MS, FRAME_BYTES_MAX, FRAME_TOTAL_BYTES_MAX};
use crate::lobby::delivery::{MATCH_STARTED, TO_ALL_BUT, TO_ALL_BUT_KICKED, TO_SPECTATORS};
use crate::state::handle::StateHandle;
use crate::state::layout::RoomRef;
use crate::state::room_label::RoomLabel;
use crate::state::rooms::{game_of, is_open, occupants};
use crate::state::shown_game::ShownGame;
use forkade_games::{AnyGame, Games};
use shmem::event_log::Read;
use shmem::sys::clock::now_ms;

/// A watch of one room.
pub(crate) struct Watch {
    context: ConsoleContext,
    room: RoomRef,
    hidden: bool,
    /// Offset in the log of the next event.
    cursor: u64,
    /// Number of the last event.
    number: u64,
    game: &'static dyn AnyGame,
    /// Names of the players in the seats.
    names: BTreeMap<u8, String>,
    doorbell: RoomDoorbell,
    frame: Vec<u8>,
    /// The line before the first event.
    opening: Option<String>,
}

impl Watch {
    /// Begins with the next event.
    ///
    /// # Errors
    ///
    /// [`NotFound::Room`].
    pub(crate) fn begin(
        lobby: &mut StateHandle,
        context: ConsoleContext,
        id: u64,
        hidden: bool,
    ) -> Result<Self, NotFound> {
        let room = queries::open_room(lobby, id)?;
        lobby.memory.rooms.at(room.index()).watched.follow();
        lobby
            .memory
            .rooms
            .at(room.index())
            .subscribers
            .subscribe(lobby.attachment.process());
        let (cursor, number) = end_of_log(lobby, room).ok_or(NotFound::Room)?;
        let RoomInfo { game, names } = room_info(lobby, context.games, room).ok_or(NotFound::Room)?;
        let label = RoomLabel::published(lobby.memory, context.games, room.index());
        let opening = format!("(watching {label} after event {number}; Enter ends it)");
        Ok(Self {
            context,
            room,
            hidden,
            cursor,
            number,
            game,
            names,
            doorbell: RoomDoorbell::new(ROOM_DOORBELL, DOORBELL_ANSWER),
            frame: vec![0; FRAME_TOTAL_BYTES_MAX],
            opening: Some(opening),
        })
    }

    pub(crate) fn advance(&mut self, lobby: &mut StateHandle, poll: &Poll) -> io::Result<Progress> {
        let requests = &self.context.doorbells.requests.sender;
        self.doorbell.follow(Some(self.room.index()), poll, requests)?;
        let record = lobby.memory.rooms.at(self.room.index());
        record.watched.follow();
        let shown = ShownGame::mark(lobby.serving, record, self.room);
        let mut lines = Vec::from_iter(self.opening.take());
        while lines.len() < LINES_PER_STEP_MAX {
            let open = record.open_generation();
            let read = record.log.read(self.cursor, &mut self.frame);
            // A new room in this slot gets its generation before its first event.
            let is_another = record
                .open_generation()
                .is_some_and(|generation| generation != self.room.generation());
            match read {
                _ if is_another => return Ok(self.finished(lines)),
                Read::Entry {
                    audience,
                    length,
                    next,
                } => {
                    self.cursor = next;
                    self.number += 1;
                    lines.push(self.line(&shown, audience, length));
                }
                Read::Lost => match end_of_log(lobby, self.room) {
                    None => return Ok(self.finished(lines)),
                    Some((cursor, number)) => {
                        lines.push(format!("(missed {} events)", number.saturating_sub(self.number)));
                        (self.cursor, self.number) = (cursor, number);
                    }
                },
                Read::End if open != Some(self.room.generation()) => return Ok(self.finished(lines)),
                Read::End => break,
            }
        }
        let until_ms = now_ms()
            + if self.doorbell.is_unavailable() {
                DOORBELL_RETRY_MS
            } else {
                FOLLOW_POLL_MS
            };
        Ok(if lines.is_empty() {
            Progress::Wait { until_ms }
        } else {
            Progress::Output(lines)
        })
    }

    pub(crate) fn accept_doorbell(&mut self, poll: &Poll) -> io::Result<()> {
        self.doorbell.take_reply(poll)
    }

    pub(crate) fn end(mut self, lobby: &StateHandle, poll: &Poll) -> io::Result<()> {
        let record = lobby.memory.rooms.at(self.room.index());
        record.subscribers.unsubscribe(lobby.attachment.process());
        self.doorbell
            .follow(None, poll, &self.context.doorbells.requests.sender)
    }

    fn finished(&self, mut lines: Vec<String>) -> Progress {
        lines.push("(the room has closed)".to_owned());
        Progress::Finished(Reply::lines(lines))
    }

    fn line(&mut self, shown: &ShownGame, audience: u32, length: usize) -> String {
        let number = self.number;
        if audience == MATCH_STARTED {
            return format!("{number:<6} Started");
        }
        let event = match audience {
            // A kick is an event for all except the player who was kicked.
            TO_ALL_BUT_KICKED.. => self.event(shown, length),
            _ => {
                let to = match audience {
                    TO_ALL_BUT.. => format!("(to all but seat {})", audience - TO_ALL_BUT),
                    TO_SPECTATORS => "(to spectators only)".to_owned(),
                    seat => format!("(to seat {seat} only)"),
                };
                match self.hidden {
                    true => format!("{to} {}", self.event(shown, length)),
                    false => to,
                }
            }
        };
        format!("{number:<6} {event}")
    }

    fn event(&mut self, shown: &ShownGame, length: usize) -> String {
        let body = match frame::split(&self.frame[..length], FRAME_BYTES_MAX) {
            frame::Split::Frame { body, .. } => body,
            _ => &self.frame[..length],
        };
        match codec::decode(body) {
            Ok(ServerMessage::Event { event, .. }) => {
                self.track_names(&event);
                self.described(shown, &event)
                    .unwrap_or_else(|| format_frame::event(&event))
            }
            _ => format_frame::server_frame(body),
        }
    }
}

impl Watch {
    /// Updates the names of the players in the seats.
    fn track_names(&mut self, event: &RoomEvent) {
        match event {
            RoomEvent::Joined { seat, name } => {
                self.names.insert(*seat, name.clone());
            }
            RoomEvent::Left { seat } | RoomEvent::Kicked { seat } => {
                self.names.remove(seat);
            }
            _ => {}
        }
    }

    /// The game's own description of one of its events, if it has one.
    fn described(&self, shown: &ShownGame, event: &RoomEvent) -> Option<String> {
        let RoomEvent::Game { data } = event else {
            return None;
        };
        if shown.is_switched_off() {
            return None;
        }
        let name_of = |seat: u8| {
            let name = self.names.get(&seat).cloned();
            name.unwrap_or_else(|| format!("seat {seat}"))
        };
        match self.game.describe(data, &name_of) {
            Ok(description) if description.is_empty() => None,
            Ok(description) => Some(format!(
                "Game {}",
                format_frame::typed(description.trim_end().as_bytes())
            )),
            Err(error) => {
                let room = RoomLabel::published(self.context.memory, self.context.games, self.room.index());
                log::warn!("the game's code failed for an operator: describe in {room}: {error}");
                None
            }
        }
    }
}

/// What a watch needs of a room besides its events.
struct RoomInfo {
    game: &'static dyn AnyGame,
    names: BTreeMap<u8, String>,
}

fn room_info(lobby: &mut StateHandle, games: &'static Games, room: RoomRef) -> Option<RoomInfo> {
    let tx = lobby.attachment.begin(lobby.memory.rooms.at(room.index()));
    is_open(&tx, room).then(|| RoomInfo {
        game: game_of(&tx, games),
        names: occupants(&tx)
            .map(|(seat, occupant)| (seat, occupant.name.as_str().to_owned()))
            .collect(),
    })
}

/// The end of the room's log and the number of its last event; `None` if the room is closed.
fn end_of_log(lobby: &mut StateHandle, room: RoomRef) -> Option<(u64, u64)> {
    let tx = lobby.attachment.begin(lobby.memory.rooms.at(room.index()));
    let log = &tx.record().log;
    is_open(&tx, room).then(|| (log.head(&tx), log.next_number(&tx) - 1))
}
