//! The states of all matches, which a new program decodes and encodes before it takes over: a game whose state has
//! another form, although its `STATE_VERSION` is the same, would otherwise lose every match.
//!
//! The process that is about to execute the new program copies each state under the lock of its room. (The supervisor
//! takes no lock, and the new program gets no descriptor by which it could.) What changes afterwards has the same form.

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::state::handle::StateHandle;
use crate::state::layout::Memory;
use crate::state::room_label::{RoomLabel, room_number};
use crate::state::rooms::{RoomLife, read_state};
use forkade_games::Games;
use forkade_games::limits::GAME_STATE_BYTES_MAX;

/// Time for each room's lock: a game that is stuck holds it, and the operator is told so.
const STATE_WAIT: Duration = Duration::from_secs(1);

/// Writes the state of each room that has one: the game's index, the room's number and the state's length, each a
/// `u32`, and the state.
///
/// # Errors
///
/// Those of `file`, or a room's lock was held all the time.
pub(crate) fn write(memory: &'static Memory, games: &'static Games, file: &mut impl Write) -> io::Result<()> {
    let mut state = StateHandle::attach(memory, games);
    for index in 0..state.rooms_touched() {
        let record = memory.rooms.at(index);
        // A record that was never opened has no lock to take.
        if record.open_generation().is_none() {
            continue;
        }
        let Some(tx) = state.attachment.try_begin(record, STATE_WAIT) else {
            let room = RoomLabel::published(memory, games, index);
            return Err(io::Error::other(format!("the game of {room} is busy; try again")));
        };
        let is_open = tx.get(&record.life) == RoomLife::OPEN.raw();
        if !is_open || tx.get(&record.match_seats) == 0 {
            continue;
        }
        let (game, bytes) = (tx.get(&record.game), read_state(&tx));
        // No lock is held while it writes.
        drop(tx);
        let number = u32::try_from(room_number(index)).unwrap_or(u32::MAX);
        let length = u32::try_from(bytes.len()).expect("a state fits its slot");
        for word in [game, number, length] {
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// Why these games cannot continue with the states that [`write`] has written.
///
/// # Errors
///
/// Those of `file`, or it has another form.
pub(crate) fn objection(mut file: impl Read, games: &Games) -> io::Result<Option<String>> {
    let mut scratch = vec![0; GAME_STATE_BYTES_MAX];
    loop {
        let mut header = [0; 12];
        match file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let [game, number, length] = [0, 4, 8].map(|at| {
            let word = header[at..].first_chunk().expect("three words");
            u32::from_le_bytes(*word)
        });
        let mut state = vec![0; (length as usize).min(GAME_STATE_BYTES_MAX)];
        file.read_exact(&mut state)?;
        let game = u16::try_from(game).ok().and_then(|index| games.get(index));
        let Some(game) = game else {
            return Ok(Some(format!("the game of room {number} would be missing")));
        };
        if let Err(error) = game.check_state(&state, &mut scratch) {
            return Ok(Some(format!(
                "the match of {} in room {number} cannot go on: {error}; a state of another form needs another \
                 STATE_VERSION, and a drain and a fresh start",
                game.name()
            )));
        }
    }
}
