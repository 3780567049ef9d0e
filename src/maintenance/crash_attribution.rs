//! Blame of rooms: a room whose game kills the ticker must not do it for ever.
//!
//! Before the ticker runs a game's code it notes the room, and takes the note back afterwards. Its successor finds the note of one that
//! did not come back, and counts.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::lobby::match_play::finish;
use crate::lobby::{Lobby, Rejection};
use crate::maintenance::crash_policy::{RestartDecision, RoomCrashHistory};
use crate::state::layout::{Memory, RoomRef};
use crate::state::rooms::{RoomLife, is_open, phase_of};
use forkade_protocol::{Outcome, Phase as MatchPhase};
use shmem::shared_record;
use shmem::sys::clock::now_ms;

shared_record! {
    /// Whose game's code the ticker runs.
    pub struct GameNote {
        /// A room's reference; 0 for none.
        room: AtomicU64,
        since_ms: AtomicU64,
    }
}

shared_record! {
    /// How many tickers a room has cost lately. Only the ticker writes it.
    pub struct BlameRecord {
        generation: AtomicU32,
        deaths: AtomicU32,
        window_began_ms: AtomicU64,
    }
}

/// The room is noted until this is dropped.
#[must_use]
pub(crate) struct Noted(Option<&'static GameNote>);

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some(note) = self.0 {
            note.room.store(0, Ordering::Release);
        }
    }
}

/// What the predecessor's death has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomBlame {
    /// It died while it ran a game's code.
    Counted {
        /// The room.
        room: RoomRef,
        /// How many have died so lately.
        deaths: u32,
    },
    /// As others did: the match is abandoned.
    Abandoned {
        /// The room.
        room: RoomRef,
    },
}

impl Lobby {
    /// The ticker's access: from now on this process notes whose game's code it runs. Looks first at what its predecessor had noted.
    ///
    /// # Errors
    ///
    /// If the match that is to blame cannot be abandoned, which is a mistake of this program's.
    pub fn begin_to_tick(&mut self) -> Result<Option<RoomBlame>, Rejection> {
        self.notes_games = true;
        let note = &self.memory.header.game_note;
        let id = note.room.swap(0, Ordering::AcqRel);
        let room = RoomRef::from_id(id);
        let Some(record) = (id != 0).then(|| self.memory.rooms.get(room.index())).flatten() else {
            return Ok(None);
        };
        let (now, blame) = (now_ms(), &record.blame);
        let mut deaths = RoomCrashHistory::default();
        if blame.generation.swap(room.generation(), Ordering::Relaxed) == room.generation() {
            deaths.window_began_ms = blame.window_began_ms.load(Ordering::Relaxed);
            deaths.count = blame.deaths.load(Ordering::Relaxed);
        }
        let decision = deaths.enter(now, now.saturating_sub(note.since_ms.load(Ordering::Relaxed)));
        blame
            .window_began_ms
            .store(deaths.window_began_ms, Ordering::Relaxed);
        blame.deaths.store(deaths.count, Ordering::Relaxed);
        if decision == RestartDecision::Replace || !self.abandon_match_of(room)? {
            let deaths = deaths.count;
            return Ok(Some(RoomBlame::Counted { room, deaths }));
        }
        blame.deaths.store(0, Ordering::Relaxed);
        self.memory
            .header
            .rooms_blamed_total
            .fetch_add(1, Ordering::Relaxed);
        Ok(Some(RoomBlame::Abandoned { room }))
    }

    /// Ends the match in a room without asking its game. Says whether there was one.
    fn abandon_match_of(&mut self, room: RoomRef) -> Result<bool, Rejection> {
        let mut tx = self.attachment.begin(self.memory.rooms.at(room.index()));
        let record = tx.record();
        let is_played = is_open(&tx, room)
            && tx.get(&record.life) == RoomLife::OPEN.raw()
            && phase_of(tx.get(&record.phase)) == MatchPhase::Playing;
        if is_played {
            finish(&mut tx, Outcome::Abandoned)?;
            tx.commit()?;
        }
        Ok(is_played)
    }
}

/// Notes that the room's game is about to run, if this process is the one that does so.
pub(crate) fn note_game(memory: &Memory, notes_games: bool, room: RoomRef) -> Noted {
    let note = notes_games.then_some(&memory.header.game_note);
    if let Some(note) = note {
        note.since_ms.store(now_ms(), Ordering::Relaxed);
        note.room.store(room.to_id(), Ordering::Release);
    }
    Noted(note)
}
