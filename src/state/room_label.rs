//! How players and operators refer to a room: by a short number, in log and console with game and name.

use std::fmt;

use forkade_games::Games;
use forkade_protocol::RoomId;
use forkade_text::escape::Escaped;

use crate::state::layout::{LockOwner, Memory, RoomRef};
use crate::state::rooms::{RoomName, RoomTx, game_of};

/// The number by which players and operators refer to the room in this slot. It is used again once the room is gone.
pub(crate) fn room_number(index: u32) -> u64 {
    forkade_text::render::room_number(RoomId(index.into()))
}

/// A room as log and console name it: `room 1 (tictactoe, "A duel")`.
#[derive(Debug, Clone, Copy)]
pub struct RoomLabel {
    number: u64,
    game: &'static str,
    /// `None` if no room is open in the slot.
    name: Option<RoomName>,
}

impl RoomLabel {
    /// The transaction's room.
    pub(crate) fn of(tx: &RoomTx<'_>, games: &Games, room: RoomRef) -> Self {
        Self {
            number: room_number(room.index()),
            game: game_of(tx, games).name(),
            name: Some(tx.get(&tx.record().name)),
        }
    }

    /// The room in this slot, read without its lock. Of a room that has closed, only the game is still known.
    pub(crate) fn published(memory: &Memory, games: &Games, index: u32) -> Self {
        let record = memory.rooms.at(index);
        Self {
            number: room_number(index),
            game: record.game_name(games),
            name: record.published().map(|published| published.name),
        }
    }

    /// The slot of its record.
    pub(crate) fn index(&self) -> Option<u32> {
        u32::try_from(self.number).ok()?.checked_sub(1)
    }

    /// The name of the room's game.
    pub(crate) fn game(&self) -> &'static str {
        self.game
    }
}

impl fmt::Display for RoomLabel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "room {} ({}", self.number, self.game)?;
        if let Some(name) = &self.name {
            write!(out, ", {}", Quoted(name.as_str()))?;
        }
        out.write_str(")")
    }
}

/// What a lock belongs to, as log and console name it.
pub(crate) fn lock_owner_name(memory: &Memory, games: &Games, owner: LockOwner) -> String {
    match owner {
        LockOwner::Room(index) => RoomLabel::published(memory, games, index).to_string(),
        other => other.to_string(),
    }
}

/// A text that a player chose, in quotes that it cannot close.
pub(crate) struct Quoted<'t>(pub(crate) &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.replace('\\', "\\\\").replace('"', "\\\"");
        write!(out, "\"{}\"", Escaped(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: Option<&str>) -> String {
        let label = RoomLabel {
            number: room_number(0),
            game: "tictactoe",
            name: name.map(|name| RoomName::new(name).expect("it is short")),
        };
        label.to_string()
    }

    #[test]
    fn a_room_has_the_players_number_its_game_and_a_name_that_cannot_leave_its_quotes() {
        assert_eq!(label(Some("A duel")), "room 1 (tictactoe, \"A duel\")");
        assert_eq!(label(None), "room 1 (tictactoe)");
        assert_eq!(
            label(Some("a\", room 2 (\\\u{202e}\n")),
            "room 1 (tictactoe, \"a\\\", room 2 (\\\\\\u{202e}\\n\")"
        );
    }
}
