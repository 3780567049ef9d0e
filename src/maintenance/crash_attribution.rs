//! Blame of rooms: a room whose game kills the ticker must not do it for ever.
//!
//! Before the ticker runs a game's code it notes the room, and takes the note back afterwards. Its successor finds the note of one that
//! did not come back, and counts.

use std::sync::atomic::Ordering;

use crate::lobby::match_play::finish;
use crate::maintenance::crash_policy::{RestartDecision, RoomCrashHistory};
use crate::session::rejection::Rejection;
use crate::state::handle::StateHandle;
use crate::state::layout::RoomRef;
use crate::state::rooms::{RoomLife, is_open, phase_of};
use forkade_protocol::{Outcome, Phase as MatchPhase};
use shmem::sys::clock::now_ms;

/// What the predecessor's death has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomCrash {
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

/// The ticker's access: from now on this process notes whose game's code it runs. Looks first at what its predecessor had noted.
///
/// # Errors
///
/// If the match that is to blame cannot be abandoned, which is a mistake of this program's.
pub fn attribute_ticker_crash(state: &mut StateHandle) -> Result<Option<RoomCrash>, Rejection> {
    state.tracks_running_game = true;
    let note = &state.memory.header.running_game;
    let id = note.room.swap(0, Ordering::AcqRel);
    let room = RoomRef::from_id(id);
    let Some(record) = (id != 0).then(|| state.memory.rooms.get(room.index())).flatten() else {
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
    if decision == RestartDecision::Replace || !abandon_match_in(state, room)? {
        let deaths = deaths.count;
        return Ok(Some(RoomCrash::Counted { room, deaths }));
    }
    blame.deaths.store(0, Ordering::Relaxed);
    state
        .memory
        .header
        .rooms_blamed_total
        .fetch_add(1, Ordering::Relaxed);
    Ok(Some(RoomCrash::Abandoned { room }))
}

/// Ends the match in a room without asking its game. Says whether there was one.
fn abandon_match_in(state: &mut StateHandle, room: RoomRef) -> Result<bool, Rejection> {
    let mut tx = state.attachment.begin(state.memory.rooms.at(room.index()));
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
