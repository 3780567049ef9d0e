//! Operations of room owners, and their effects on other players.

use forkade::testing::lobby::{departure, match_play};
use forkade::testing::session::CloseReason;
use forkade::testing::state::handle::StateHandle;
use forkade_protocol::{ClientMessage, RoomId, RoomSettings, ServerMessage};

use crate::fixture::{Fixture, chat, create, finish, join, place, ready, tick};
use crate::operations::Operation;
use crate::sweep::Act;

pub(crate) const OWNERS: &[Operation] = &[
    Operation::new("change a room's settings", 2, |fixture| {
        fixture.room_of("relay", ["ann", "bob"]);
        fixture.says(0, &configure())
    }),
    Operation::new("be refused an owner's request", 2, |fixture| {
        fixture.room_of("relay", ["ann", "bob"]);
        fixture.says(1, &configure())
    }),
    Operation::new("withdraw readiness", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.tells(&ready());
        let (request, ready) = (6, false);
        fixture.says(0, &ClientMessage::Ready { request, ready })
    }),
    Operation::new("transfer a room", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.says(0, &hand_over("bob"))
    }),
    Operation::new("be refused a seat that another player has", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.says(0, &hand_over("eve"))
    }),
    Operation::new("kick from a seat", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.says(0, &kick())
    }),
    Operation::new("kick from a match", 2, |fixture| {
        fixture.match_of(["ann", "bob"]);
        fixture.says(0, &kick())
    }),
    Operation::new("be notified of another's kick", 2, |fixture| {
        fixture.room_of("relay", ["ann", "bob", "cyd"]);
        fixture.actors[0].request(&kick());
        fixture.delivers(2)
    }),
    // Earlier events are delivered, and then the membership is corrected.
    Operation::new("be notified of one's own kick", 3, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.actors[0].request(&chat(5));
        fixture.actors[0].request(&kick());
        fixture.delivers(1)
    }),
    Operation::new(
        "be notified of one's own kick when the log has moved on",
        2,
        |fixture| {
            fixture.room_of("relay", ["ann", "bob"]);
            fixture.actors[0].request(&kick());
            fixture.fills_log();
            fixture.fills_log();
            fixture.delivers(1)
        },
    ),
    Operation::new(
        "be notified of one's own kick when the record has another room",
        2,
        |fixture| {
            fixture.is_kicked_from_a_room_that_closes();
            fixture.actors[0].request(&create("tictactoe", None));
            fixture.delivers(1)
        },
    ),
    // The removal notice, and then the answer.
    Operation::new("act after a kick", 3, |fixture| {
        fixture.room_of("relay", ["ann", "bob"]);
        fixture.actors[0].request(&kick());
        fixture.says(1, &chat(5))
    }),
    Operation::new("join another room after a kick", 3, |fixture| {
        fixture.is_kicked_from_a_room_that_closes();
        fixture.player("cyd");
        fixture.actors[2].request(&create("tictactoe", None));
        let join = ClientMessage::JoinRoom {
            request: 2,
            room: RoomId(2 << 32),
            passcode: None,
        };
        fixture.says(1, &join)
    }),
    Operation::new("be refused a room after a kick", 2, |fixture| {
        fixture.room_of("relay", ["ann", "bob"]);
        fixture.actors[0].request(&kick());
        fixture.actors[1].receive_messages();
        fixture.says(1, &join())
    }),
    Operation::new("ask for the invite code", 2, |fixture| {
        fixture.room_of("relay", ["ann"]);
        fixture.says(0, &invite(false))
    }),
    // The new code is random.
    Operation::new("renew the invite code", 2, |fixture| {
        fixture.room_of("relay", ["ann"]);
        fixture.says(0, &invite(true))
    })
    .once(),
    Operation::new("join by invite code", 2, |fixture| {
        fixture.room_of("relay", ["ann"]);
        let code = fixture.invite_code();
        fixture.player("bob");
        let join = ClientMessage::JoinByInvite {
            request: 2,
            code,
            watch: false,
        };
        fixture.says(1, &join)
    }),
    // The seat is reserved, and then the invitation is mailed. A repetition renews the reservation.
    Operation::new("reserve a seat", 3, |fixture| {
        fixture.room_of("relay", ["ann"]);
        fixture.player("bob");
        fixture.says(0, &reserve())
    })
    .once(),
    Operation::new("reserve a seat for an absent kicked player", 3, |fixture| {
        fixture.room_of("relay", ["ann", "bob"]);
        fixture.actors[0].request(&kick());
        fixture.actors[1].receive_messages();
        departure::finish(&mut fixture.actors[1].session);
        fixture.says(0, &reserve())
    })
    .once(),
    Operation::new("take a reserved seat", 2, |fixture| {
        fixture.keeps_a_seat();
        fixture.says(1, &join())
    }),
    Operation::new("let a reservation expire", 2, |fixture| {
        fixture.keeps_a_seat();
        Act::lobby(run_room_timers)
    }),
    Operation::new("remove a reserved seat by changing settings", 2, |fixture| {
        fixture.clock(1);
        tick(&mut fixture.world.lobby());
        fixture.player("bob");
        fixture.actors[0].request(&reserve());
        let settings = RoomSettings {
            seats: 1,
            ..RoomSettings::default()
        };
        fixture.says(0, &ClientMessage::Configure { request: 6, settings })
    }),
    Operation::new("act, which restarts the turn clock", 2, |fixture| {
        fixture.match_with_clock();
        fixture.says(0, &place(4))
    }),
    Operation::new("act and win against the clock", 2, |fixture| {
        fixture.match_with_clock();
        fixture.moves(&[0, 3, 1, 4]);
        fixture.says(0, &place(2))
    }),
    Operation::new("time out a turn, which ends the match", 2, |fixture| {
        fixture.match_with_clock();
        Act::lobby(run_room_timers)
    }),
    // Room and lobby, as for any player.
    Operation::new("leave for good after a kick", 4, |fixture| {
        fixture.room_of("relay", ["ann", "bob"]);
        fixture.actors[0].request(&kick());
        // Also kicked by an operator: a player that says goodbye was notified of the kick before.
        fixture.actors[1].session.close(true, &CloseReason::None);
        fixture.subject = 1;
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
        self.actors[0].request(&reserve());
        self.all_hear();
    }

    /// The invite code of ann's room.
    fn invite_code(&mut self) -> String {
        self.actors[0].request(&invite(false));
        let code_in = |message| match message {
            ServerMessage::Invitation { code, .. } => Some(code),
            _ => None,
        };
        let heard = self.actors[0].receive_messages();
        heard.into_iter().find_map(code_in).expect("she owns it")
    }

    /// Ann and bob in a match with a turn clock.
    fn match_with_clock(&mut self) {
        self.room_of("tictactoe", ["ann", "bob"]);
        let settings = RoomSettings {
            turn_seconds: 60,
            ..RoomSettings::default()
        };
        self.actors[0].request(&ClientMessage::Configure { request: 6, settings });
        self.actors[0].request(&ready());
        self.actors[1].request(&ready());
        self.all_hear();
    }

    /// Ann kicks bob from her room and leaves it, and bob was not notified yet.
    fn is_kicked_from_a_room_that_closes(&mut self) {
        self.room_of("tictactoe", ["ann", "bob"]);
        self.actors[0].request(&kick());
        self.actors[0].request(&ClientMessage::Leave { request: 7 });
    }
}
