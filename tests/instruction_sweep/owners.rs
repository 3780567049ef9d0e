//! The operations of rooms' owners, and of those whom they concern.

use forkade::lobby::session::Farewell;
use forkade_protocol::{ClientMessage, RoomId, RoomSettings};

use crate::operations::Operation;
use crate::stage::{Stage, chat, create, finish, join};

pub(crate) const OWNERS: &[Operation] = &[
    Operation::new("change a room's settings", 2, |stage| {
        stage.room_of("relay", ["ann", "bob"]);
        stage.says(0, &configure())
    }),
    Operation::new("be refused what is the owner's", 2, |stage| {
        stage.room_of("relay", ["ann", "bob"]);
        stage.says(1, &configure())
    }),
    Operation::new("hand a room over", 2, |stage| {
        stage.room_of("tictactoe", ["ann", "bob"]);
        stage.says(0, &ClientMessage::HandOver { request: 6, seat: 1 })
    }),
    Operation::new("kick from a seat", 2, |stage| {
        stage.room_of("tictactoe", ["ann", "bob"]);
        stage.says(0, &kick())
    }),
    Operation::new("kick from a match", 2, |stage| {
        stage.match_of(["ann", "bob"]);
        stage.says(0, &kick())
    }),
    Operation::new("be told of another's kick", 2, |stage| {
        stage.room_of("relay", ["ann", "bob", "cyd"]);
        stage.actors[0].asks(&kick());
        stage.delivers(2)
    }),
    // What had happened before is delivered, and then the place is put right.
    Operation::new("be told of one's own kick", 3, |stage| {
        stage.room_of("tictactoe", ["ann", "bob"]);
        stage.actors[0].asks(&chat(5));
        stage.actors[0].asks(&kick());
        stage.delivers(1)
    }),
    Operation::new(
        "be told of one's own kick when the log has moved on",
        2,
        |stage| {
            stage.room_of("relay", ["ann", "bob"]);
            stage.actors[0].asks(&kick());
            stage.fills_log();
            stage.fills_log();
            stage.delivers(1)
        },
    ),
    Operation::new("be told of one's own kick when the room is another", 2, |stage| {
        stage.is_kicked_from_a_room_that_closes();
        stage.actors[0].asks(&create("tictactoe", None));
        stage.delivers(1)
    }),
    // The news, and then the answer.
    Operation::new("act after a kick", 3, |stage| {
        stage.room_of("relay", ["ann", "bob"]);
        stage.actors[0].asks(&kick());
        stage.says(1, &chat(5))
    }),
    Operation::new("join another room after a kick", 3, |stage| {
        stage.is_kicked_from_a_room_that_closes();
        stage.player("cyd");
        stage.actors[2].asks(&create("tictactoe", None));
        let join = ClientMessage::JoinRoom {
            request: 2,
            room: RoomId(2 << 32),
            passcode: None,
        };
        stage.says(1, &join)
    }),
    Operation::new("be refused the room one was sent out of", 2, |stage| {
        stage.room_of("relay", ["ann", "bob"]);
        stage.actors[0].asks(&kick());
        stage.actors[1].hear();
        stage.says(1, &join())
    }),
    // Room and lobby, as for anybody.
    Operation::new("leave for good after a kick", 4, |stage| {
        stage.room_of("relay", ["ann", "bob"]);
        stage.actors[0].asks(&kick());
        // Sent out by an operator, too: who says goodbye has heard of the kick before.
        stage.actors[1].session.close(true, &Farewell::None);
        stage.subject = 1;
        finish()
    }),
];

fn configure() -> ClientMessage {
    ClientMessage::Configure {
        request: 6,
        settings: RoomSettings {
            unlisted: true,
            no_spectators: true,
            ..RoomSettings::default()
        },
    }
}

fn kick() -> ClientMessage {
    ClientMessage::Kick { request: 6, seat: 1 }
}

impl Stage {
    /// Ann kicks bob from her room and leaves it, and bob has not heard of it.
    fn is_kicked_from_a_room_that_closes(&mut self) {
        self.room_of("tictactoe", ["ann", "bob"]);
        self.actors[0].asks(&kick());
        self.actors[0].asks(&ClientMessage::Leave { request: 7 });
    }
}
