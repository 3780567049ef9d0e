//! What a change of a room means for the log: its match has begun or ended, the room has closed.
//!
//! It is found under the room's lock, from the phase before and after, and logged after the commit, without a lock.

use forkade_games::Games;
use forkade_protocol::{Outcome, Phase as MatchPhase, RoomEvent, ServerMessage, codec};
use shmem::event_log::Read;

use crate::limits::{FRAME_HEADER_BYTES, FRAME_TOTAL_BYTES_MAX};
use crate::state::layout::{Memory, RoomRef};
use crate::state::room_label::RoomLabel;
use crate::state::rooms::{RoomLife, RoomTx, phase_of};

/// The room before a change.
#[derive(Clone, Copy)]
pub(crate) struct Before {
    phase: MatchPhase,
    log_head: u64,
}

/// What a change has led to.
pub(crate) struct News {
    room: RoomRef,
    label: RoomLabel,
    has_begun: bool,
    /// The events of the change begin here in the log: one of them says how the match has ended.
    ended_behind: Option<u64>,
    has_closed: bool,
}

impl Before {
    pub(crate) fn of(tx: &RoomTx<'_>) -> Self {
        Self {
            phase: phase_of(tx.get(&tx.record().phase)),
            log_head: tx.record().log.head(tx),
        }
    }

    /// Of a room that this transaction opens.
    pub(crate) fn of_new_room(tx: &RoomTx<'_>) -> Self {
        Self {
            phase: MatchPhase::Waiting,
            log_head: tx.record().log.head(tx),
        }
    }

    /// What is worth a line in the log, if anything is.
    pub(crate) fn compare(self, tx: &RoomTx<'_>, games: &Games, room: RoomRef) -> Option<News> {
        let phase = phase_of(tx.get(&tx.record().phase));
        let has_closed = tx.get(&tx.record().life) == RoomLife::CLOSING.raw();
        (phase != self.phase || has_closed).then(|| News {
            room,
            label: RoomLabel::of(tx, games, room),
            has_begun: phase != self.phase && self.phase != MatchPhase::Playing,
            ended_behind: (phase != self.phase && phase == MatchPhase::Finished).then_some(self.log_head),
            has_closed,
        })
    }
}

impl News {
    /// Logs it. To be called after the commit, without a lock.
    pub(crate) fn log(&self, memory: &Memory) {
        if self.has_begun {
            log::info!("a match begins in {}", self.label);
        }
        if let Some(from) = self.ended_behind
            && log::log_enabled!(log::Level::Info)
        {
            match outcome_behind(memory, self.room, from) {
                Some(Outcome::Won { seats }) => {
                    log::info!("a match has ended in {}: won by the seats {seats:?}", self.label);
                }
                Some(outcome) => log::info!("a match has ended in {}: {outcome:?}", self.label),
                None => log::info!("a match has ended in {}", self.label),
            }
        }
        if self.has_closed {
            log::info!("{} has closed", self.label);
        }
    }
}

/// The outcome among the events from this offset on; `None` if they were overwritten since.
fn outcome_behind(memory: &Memory, room: RoomRef, from: u64) -> Option<Outcome> {
    let log = &memory.rooms.at(room.index()).log;
    let (mut cursor, mut frame) = (from, [0; FRAME_TOTAL_BYTES_MAX]);
    while let Read::Entry { length, next, .. } = log.read(cursor, &mut frame) {
        let body = frame.get(FRAME_HEADER_BYTES..length).unwrap_or_default();
        if let Ok(ServerMessage::Event {
            event: RoomEvent::Finished { outcome },
            ..
        }) = codec::decode(body)
        {
            return Some(outcome);
        }
        cursor = next;
    }
    None
}
