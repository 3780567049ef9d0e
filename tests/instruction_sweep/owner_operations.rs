//! Operations of room owners, and their effects on other players.

use forkade::testing::lobby::departure;
use forkade::testing::lobby::match_play;
use forkade::testing::session::CloseReason;
use forkade::testing::state::handle::StateHandle;
use forkade_protocol::{ClientMessage, RoomId, RoomSettings, ServerMessage};

use crate::fixture::{Fixture, chat, create, finish, join, place, ready, tick};
use crate::operations::Operation;
use crate::sweep::Act;

pub(crate) const OWNERS: &[Operation] = &[
    Operation::new("change a room's settings", 2, |stage| {
        stage.room_of("relay", ["ann", "bob"]);
        stage.says(0, &configure())
    }),
    Operation::new("be refused an owner's request", 2, |stage| {
        stage.room_of("relay", ["ann", "bob"]);
        stage.says(1, &configure())
    }),
    Operation::new("withdraw readiness", 2, |stage| {
        stage.room_of("tictactoe", ["ann", "bob"]);
        stage.tells(&ready());
        let (request, ready) = (6, false);
        stage.says(0, &ClientMessage::Ready { request, ready })
    }),
    Operation::new("transfer a room", 2, |stage| {
        stage.room_of("tictactoe", ["ann", "bob"]);
        stage.says(0, &hand_over("bob"))
    }),
    Operation::new("be refused a seat that another player has", 2, |stage| {
        stage.room_of("tictactoe", ["ann", "bob"]);
        stage.says(0, &hand_over("eve"))
    }),
    Operation::new("kick from a seat", 2, |stage| {
        stage.room_of("tictactoe", ["ann", "bob"]);
        stage.says(0, &kick())
    }),
    Operation::new("kick from a match", 2, |stage| {
        stage.match_of(["ann", "bob"]);
        stage.says(0, &kick())
    }),
    Operation::new("be notified of another's kick", 2, |stage| {
        stage.room_of("relay", ["ann", "bob", "cyd"]);
        stage.actors[0].asks(&kick());
        stage.delivers(2)
    }),
    // Earlier events are delivered, and then the membership is corrected.
    Operation::new("be notified of one's own kick", 3, |stage| {
        stage.room_of("tictactoe", ["ann", "bob"]);
        stage.actors[0].asks(&chat(5));
        stage.actors[0].asks(&kick());
        stage.delivers(1)
    }),
    Operation::new(
        "be notified of one's own kick when the log has moved on",
        2,
        |stage| {
            stage.room_of("relay", ["ann", "bob"]);
            stage.actors[0].asks(&kick());
            stage.fills_log();
            stage.fills_log();
            stage.delivers(1)
        },
    ),
    Operation::new(
        "be notified of one's own kick when the record has another room",
        2,
        |stage| {
            stage.is_kicked_from_a_room_that_closes();
            stage.actors[0].asks(&create("tictactoe", None));
            stage.delivers(1)
        },
    ),
    // The removal notice, and then the answer.
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
    Operation::new("be refused a room after a kick", 2, |stage| {
        stage.room_of("relay", ["ann", "bob"]);
        stage.actors[0].asks(&kick());
        stage.actors[1].hear();
        stage.says(1, &join())
    }),
    Operation::new("ask for the invite code", 2, |stage| {
        stage.room_of("relay", ["ann"]);
        stage.says(0, &invite(false))
    }),
    // The new code is random.
    Operation::new("renew the invite code", 2, |stage| {
        stage.room_of("relay", ["ann"]);
        stage.says(0, &invite(true))
    })
    .once(),
    Operation::new("join by invite code", 2, |stage| {
        stage.room_of("relay", ["ann"]);
        let code = stage.invite_code();
        stage.player("bob");
        let join = ClientMessage::JoinByInvite {
            request: 2,
            code,
            watch: false,
        };
        stage.says(1, &join)
    }),
    // The seat is reserved, and then the invitation is mailed. A repetition renews the reservation.
    Operation::new("reserve a seat", 3, |stage| {
        stage.room_of("relay", ["ann"]);
        stage.player("bob");
        stage.says(0, &reserve())
    })
    .once(),
    Operation::new("reserve a seat for an absent kicked player", 3, |stage| {
        stage.room_of("relay", ["ann", "bob"]);
        stage.actors[0].asks(&kick());
        stage.actors[1].hear();
        departure::finish(&mut stage.actors[1].session);
        stage.says(0, &reserve())
    })
    .once(),
    Operation::new("take a reserved seat", 2, |stage| {
        stage.keeps_a_seat();
        stage.says(1, &join())
    }),
    Operation::new("let a reservation expire", 2, |stage| {
        stage.keeps_a_seat();
        Act::lobby(run_room_timers)
    }),
    Operation::new("remove a reserved seat by changing settings", 2, |stage| {
        stage.clock(1);
        tick(&mut stage.world.lobby());
        stage.player("bob");
        stage.actors[0].asks(&reserve());
        let settings = RoomSettings {
            seats: 1,
            ..RoomSettings::default()
        };
        stage.says(0, &ClientMessage::Configure { request: 6, settings })
    }),
    Operation::new("act, which restarts the turn clock", 2, |stage| {
        stage.match_with_clock();
        stage.says(0, &place(4))
    }),
    Operation::new("act and win against the clock", 2, |stage| {
        stage.match_with_clock();
        stage.moves(&[0, 3, 1, 4]);
        stage.says(0, &place(2))
    }),
    Operation::new("time out a turn, which ends the match", 2, |stage| {
        stage.match_with_clock();
        Act::lobby(run_room_timers)
    }),
    // Room and lobby, as for any player.
    Operation::new("leave for good after a kick", 4, |stage| {
        stage.room_of("relay", ["ann", "bob"]);
        stage.actors[0].asks(&kick());
        // Also kicked by an operator: a player that says goodbye was notified of the kick before.
        stage.actors[1].session.close(true, &CloseReason::None);
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

fn invite(renew: bool) -> ClientMessage {
    ClientMessage::Invite { request: 6, renew }
}

fn reserve() -> ClientMessage {
    ClientMessage::Reserve {
        request: 6,
        player: "bob".into(),
    }
}

/// All timers that are due.
fn run_room_timers(lobby: &mut StateHandle) {
    match_play::run_room_timers(lobby, 0, u64::MAX / 2).expect("no game fails");
}

fn kick() -> ClientMessage {
    let (request, seat, name) = (6, 1, "bob".to_owned());
    ClientMessage::Kick { request, seat, name }
}

fn hand_over(name: &str) -> ClientMessage {
    let (request, seat, name) = (6, 1, name.to_owned());
    ClientMessage::HandOver { request, seat, name }
}

impl Fixture {
    /// Ann reserves a seat for bob.
    fn keeps_a_seat(&mut self) {
        self.room_of("relay", ["ann"]);
        self.player("bob");
        self.actors[0].asks(&reserve());
        self.all_hear();
    }

    /// The invite code of ann's room.
    fn invite_code(&mut self) -> String {
        self.actors[0].asks(&invite(false));
        let code_in = |message| match message {
            ServerMessage::Invitation { code, .. } => Some(code),
            _ => None,
        };
        let heard = self.actors[0].hear();
        heard.into_iter().find_map(code_in).expect("she owns it")
    }

    /// Ann and bob in a match with a turn clock.
    fn match_with_clock(&mut self) {
        self.room_of("tictactoe", ["ann", "bob"]);
        let settings = RoomSettings {
            turn_seconds: 60,
            ..RoomSettings::default()
        };
        self.actors[0].asks(&ClientMessage::Configure { request: 6, settings });
        self.actors[0].asks(&ready());
        self.actors[1].asks(&ready());
        self.all_hear();
    }

    /// Ann kicks bob from her room and leaves it, and bob was not notified yet.
    fn is_kicked_from_a_room_that_closes(&mut self) {
        self.room_of("tictactoe", ["ann", "bob"]);
        self.actors[0].asks(&kick());
        self.actors[0].asks(&ClientMessage::Leave { request: 7 });
    }
}
