//! Looking at the room one is in: the one way for a client that knows a game only by its view to learn what an event has made of it.

use forkade_protocol::ServerMessage;

use crate::lobby::join_leave::{self, RoomContext};
use crate::lobby::room_view::snapshot;
use crate::session::Session;
use crate::session::rejection::Rejection;

/// Shows the player the room as it is now. Delivery does not change: events up to now reach the player all the same, before
/// or after.
///
/// # Errors
///
/// If the player is in no room, or no longer has the seat.
pub fn look(session: &mut Session<'_>, request: u32) -> Result<(), Rejection> {
    join_leave::with_room(session, |mut tx, context| {
        let RoomContext {
            own,
            room,
            seat,
            games,
            ..
        } = *context;
        // Who has lost the seat does not get here, and does not see what whoever has it now may see.
        let snapshot = snapshot(&tx, room, games, seat, context.faults);
        own.reply(&mut tx, &ServerMessage::Picture { request, snapshot });
        own.consume(&mut tx);
        Ok(tx.commit()?)
    })
}
