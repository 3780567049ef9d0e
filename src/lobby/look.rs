//! Looking at the room one is in: the one way for a client that knows a game only by its view to learn what an event has made of it.

use forkade_protocol::{RejectCode, ServerMessage};

use super::Rejection;
use super::rooms::{is_open, snapshot};
use super::session::Session;

impl Session {
    /// Shows the player the room as it is now. Delivery does not change: events up to now reach the player all the same, before
    /// or after.
    ///
    /// # Errors
    ///
    /// If the player is in no room, or no longer has the seat.
    pub fn look(&mut self, request: u32) -> Result<(), Rejection> {
        let Some((player, own)) = self.player().zip(self.own()) else {
            return Ok(());
        };
        let (room, seat) = self.must_be_in_room()?;
        let games = self.lobby.games;
        let mut tx = self.lobby.hand.begin(self.lobby.memory.rooms.at(room.index()));
        let seats = &tx.record().seats;
        // Who has lost the seat must not see what whoever has it now may see.
        let is_there = seat.is_none_or(|seat| tx.get(&seats[usize::from(seat)]).player == player);
        if !is_open(&tx, room) || !is_there {
            return Err(Rejection::new(
                RejectCode::NotInRoom,
                "you are no longer in the room",
            ));
        }
        let snapshot = snapshot(&tx, room, games, seat, &mut self.lobby.faults);
        own.reply(&mut tx, &ServerMessage::Picture { request, snapshot });
        own.consume(&mut tx);
        Ok(tx.commit()?)
    }
}
