//! Which room's game a process runs in order to show its match: to make a view, to draw it, or to describe an event.
//!
//! No player asks for that by a request of its own, so a crash in it is counted against the room, not against the
//! connection. A room whose game crashes one handler after another in this way is not shown any more: its players get
//! empty views, and its match goes on.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::state::connections::ConnectionRecord;
use crate::state::layout::RoomRef;
use crate::state::rooms::RoomRecord;

/// A room's game while this process runs it in order to show the match. Clears the connection's mark when dropped.
#[must_use]
pub(crate) struct ShownGame {
    room: RoomRef,
    is_switched_off: bool,
    mark: Option<&'static AtomicU64>,
}

impl ShownGame {
    /// Marks in the record of the connection that this process works for that it is about to run the room's game.
    pub(crate) fn mark(
        connection: Option<&'static ConnectionRecord>,
        record: &RoomRecord,
        room: RoomRef,
    ) -> Self {
        let mark = connection.map(|connection| &connection.shown_room);
        if let Some(mark) = mark {
            mark.store(room.to_id(), Ordering::Release);
        }
        Self {
            room,
            is_switched_off: record.not_shown.load(Ordering::Acquire) == room.generation(),
            mark,
        }
    }

    /// The room.
    pub(crate) fn room(&self) -> RoomRef {
        self.room
    }

    /// Whether the room's game must not be asked to show its match, because that has crashed several handlers.
    pub(crate) fn is_switched_off(&self) -> bool {
        self.is_switched_off
    }
}

impl Drop for ShownGame {
    fn drop(&mut self) {
        if let Some(mark) = self.mark {
            mark.store(0, Ordering::Release);
        }
    }
}
