//! The operations to sweep, and the lobby in which each of them starts.
//!
//! An operation is what a handler does with one frame or in one phase, what the ticker does in one round, or
//! what an operator's command does. `states` counts its observable states: one more than its observable
//! transactions. The preparation runs at full speed, by the same code.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;

use forkade::limits::{LOBBY_GRACE_MS_MIN, OUTPUT_RING_BYTES};
use forkade_protocol::{ClientMessage, ErrorCode, RoomFilter};
use shmem::sys::clock::now_ms;

use crate::fixture::{
    Fixture, ROOM, chat, create, finish, handle_frame, join, join_with, place, process_handshake,
    quick_match, ready, relayed, resume, tick,
};
use crate::sweep::{Act, Subject};
use forkade::testing::lobby::{departure, sanctions};
use forkade::testing::maintenance::expiry;
use forkade::testing::session::transport::ByteCounts;
use forkade::testing::session::{CloseReason, Resume};
use forkade::testing::state::connections::{Kind, Phase};
use forkade::testing::state::handle::StateHandle;
use forkade::testing::state::sanctions::SanctionKind;
use forkade::testing::state::sources::{PrefixLengths, SourceKey};

/// One operation.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// Number of its observable states.
    pub(crate) states: usize,
    /// Prepares the lobby, and returns the operation.
    prepare: fn(&mut Fixture) -> Act,
    /// Whether a successor that repeats it reaches the same final state. (It does not where chance is
    /// involved, as in tokens, or where the handler continues differently.)
    repeatable: bool,
    /// Whether it changes at most one observable cell: such a change is atomic even without a journal.
    pub(crate) is_one_cell: bool,
}

impl Operation {
    pub(crate) const fn new(name: &'static str, states: usize, prepare: fn(&mut Fixture) -> Act) -> Self {
        Self {
            name,
            states,
            prepare,
            repeatable: true,
            is_one_cell: false,
        }
    }

    /// A successor reaches another final state.
    pub(crate) const fn once(mut self) -> Self {
        self.repeatable = false;
        self
    }

    /// It changes one observable cell.
    pub(crate) const fn one_cell(mut self) -> Self {
        self.is_one_cell = true;
        self
    }

    /// A new lobby in which the operation is about to happen.
    pub(crate) fn set_up(&self) -> Subject {
        let mut fixture = Fixture::new();
        let act = (self.prepare)(&mut fixture);
        fixture.subject_doing(act, self.repeatable)
    }
}

fn impose(lobby: &mut StateHandle, kind: SanctionKind, name: &str) {
    sanctions::impose(lobby, kind, name, 600_000).expect("there is a place");
}

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

fn source() -> SourceKey {
    SourceKey::new(ADDRESS, PrefixLengths { v4: 32, v6: 64 })
}

fn ban_address(lobby: &mut StateHandle) {
    sanctions::ban_address(lobby, ADDRESS, 600_000).expect("there is a place");
}

fn penalise(lobby: &mut StateHandle) {
    lobby.memory.sources.penalise(source(), 600_000_000);
}

impl Fixture {
    fn imposes(&mut self, kind: SanctionKind, name: &str) {
        impose(self.world.leaked_lobby(), kind, name);
    }
}

/// All operations, in the order of a connection's life.
pub(crate) const OPERATIONS: &[Operation] = &[
    // No transaction, but marks in an order that the ticker can interpret.
    Operation::new("claim a slot that was used before", 1, |fixture| {
        fixture.player("ann");
        fixture.actors[0].leave_for_good();
        Act::lobby(|lobby| {
            // On the memory that the lobby is attached to, which may be a copy.
            let record = lobby.memory.connections.at(0);
            record.claim(Kind::Game, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), 0, 0);
        })
    })
    .one_cell(),
    Operation::new("reset a slot that was used before", 2, |fixture| {
        fixture.player("ann");
        fixture.actors[0].leave_for_good();
        fixture.world.claim(0);
        fixture.actors[0].session.byte_counts = ByteCounts::default();
        Act::Attach
    }),
    Operation::new("handshake", 2, |fixture| {
        fixture.player("ann");
        fixture.newcomer(|bob| bob.send_hello("bob"));
        Act::session(process_handshake)
    })
    .once(),
    Operation::new("handshake in a record that was used before", 2, |fixture| {
        fixture.player("ann");
        fixture.actors[0].leave_for_good();
        fixture.newcomer(|bob| bob.send_hello("bob"));
        Act::session(process_handshake)
    })
    .once(),
    Operation::new("read a PROXY header", 2, |fixture| {
        fixture.newcomer(|ann| ann.send_proxy_header());
        Act::session(process_handshake)
    })
    .one_cell(),
    // The state in between: the header is read, and the greeting is not.
    Operation::new("handshake behind a PROXY header", 3, |fixture| {
        fixture.newcomer(|ann| {
            ann.send_proxy_header();
            ann.send_hello("ann");
        });
        Act::session(process_handshake)
    })
    .once(),
    Operation::new("handshake with a frame behind it", 2, |fixture| {
        fixture.newcomer(|ann| {
            ann.send_hello("ann");
            ann.send_message(&ClientMessage::Ping { nonce: 7 });
        });
        Act::session(process_handshake)
    })
    .once(),
    Operation::new(
        "handshake under the name of a player that has left",
        2,
        |fixture| {
            fixture.leaves_with_accounts("ann");
            fixture.newcomer(|again| again.send_hello("Ann"));
            Act::session(process_handshake)
        },
    )
    .once(),
    Operation::new("refuse a name that is taken", 2, |fixture| {
        fixture.player("ann");
        fixture.newcomer(|other| other.send_hello("ANN"));
        Act::session(process_handshake)
    }),
    Operation::new("ask to resume", 2, |fixture| {
        let confirmed = fixture.detached_in_room();
        fixture.comes_back(0, confirmed);
        Act::session(process_handshake)
    }),
    Operation::new(
        "ask to resume a session that another handler serves",
        2,
        |fixture| {
            fixture.players(["ann"]);
            fixture.comes_back(0, 0);
            Act::session(process_handshake)
        },
    ),
    // The third state: received output is forgotten after the commit; a successor leaves that to a `Confirm`.
    Operation::new("resume", 3, |fixture| {
        fixture.detached_in_room();
        let received = fixture.actors[0].received;
        fixture.comes_back(0, received);
        fixture.subject().process_handshake();
        Act::session(resume)
    })
    .once(),
    // What the client has confirmed before is forgotten already; the rest is kept.
    Operation::new("resume when bytes were lost", 2, |fixture| {
        let confirmed = fixture.detached_in_room();
        fixture.comes_back(0, confirmed - 1);
        fixture.subject().process_handshake();
        Act::session(resume)
    })
    .once(),
    Operation::new("ask for a lost answer to a greeting", 2, |fixture| {
        fixture.loses_its_greeting();
        Act::session(process_handshake)
    }),
    // The token is random. A successor that repeats what was rolled back makes another one.
    Operation::new("answer a greeting again", 2, |fixture| {
        fixture.loses_its_greeting();
        fixture.subject().process_handshake();
        Act::session(resume)
    })
    .once(),
    Operation::new("acknowledge a move", 2, |fixture| {
        fixture.newcomer(|ann| ann.send_greet("ann", 7));
        fixture.subject().process_handshake();
        fixture.subject().request(&create("relay", None));
        fixture.says(0, &relayed(100, 5))
    }),
    Operation::new("show that a player has resumed", 2, |fixture| {
        let confirmed = fixture.detached_in_room();
        fixture.comes_back(0, confirmed);
        fixture.subject().process_handshake();
        resume(&mut fixture.subject().session);
        Act::session(|session| departure::set_connected(session, true))
    }),
    Operation::new("yield to a newer connection", 2, |fixture| {
        fixture.players(["ann"]);
        fixture.comes_back(0, 0);
        fixture.subject().process_handshake();
        fixture.subject = 0;
        Act::session(|session| {
            if session.phase() == Phase::OPEN {
                session.yield_to_claimant();
            }
        })
    }),
    Operation::new("be told that a still newer connection resumes", 2, |fixture| {
        fixture.players(["ann"]);
        fixture.comes_back(0, 0);
        fixture.subject().process_handshake();
        fixture.comes_back(0, 0);
        fixture.subject().process_handshake();
        fixture.subject = 1;
        Act::session(|session| {
            if session.phase() == Phase::RESUMING {
                assert_eq!(session.try_resume(), Resume::Superseded);
                session.close(
                    false,
                    &CloseReason::Error(ErrorCode::Replaced, "elsewhere".into()),
                );
            }
        })
    }),
    Operation::new("give up waiting for a session", 2, |fixture| {
        fixture.players(["ann"]);
        fixture.comes_back(0, 0);
        fixture.subject().process_handshake();
        Act::session(|session| session.close(false, &CloseReason::None))
    }),
    Operation::new("create a room", 3, |fixture| {
        fixture.players(["ann"]);
        fixture.says(0, &create("tictactoe", None))
    }),
    // The salt of a passcode is random.
    Operation::new("create a room with a passcode", 3, |fixture| {
        fixture.players(["ann"]);
        fixture.says(0, &create("relay", Some("sesame")))
    })
    .once(),
    Operation::new("create a room in a record that was used before", 3, |fixture| {
        fixture.players(["ann"]);
        fixture.actors[0].request(&create("relay", None));
        fixture.actors[0].request(&ClientMessage::Leave { request: 2 });
        fixture.says(0, &create("tictactoe", None))
    }),
    Operation::new("quick match, into a new room", 3, |fixture| {
        fixture.players(["ann"]);
        fixture.says(0, &quick_match())
    }),
    Operation::new("quick match, into an existing room", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann"]);
        fixture.player("bob");
        fixture.says(1, &quick_match())
    }),
    Operation::new("join", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann"]);
        fixture.player("bob");
        fixture.says(1, &join())
    }),
    Operation::new("join a running match", 2, |fixture| {
        fixture.room_of("relay", ["ann"]);
        fixture.player("bob");
        fixture.says(1, &join())
    }),
    // The predecessor died between reserving a room record and opening the room, so there is no room to join
    // yet.
    Operation::new(
        "quick match, after a predecessor had begun to open a room",
        3,
        |fixture| {
            fixture.players(["ann", "bob"]);
            let act = fixture.says(1, &quick_match());
            fixture.dies_opening_a_room(act);
            fixture.actors[0].request(&create("tictactoe", None));
            fixture.subject = 1;
            handle_frame()
        },
    ),
    Operation::new("be refused a seat", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.player("cyd");
        fixture.says(2, &join())
    }),
    Operation::new("guess a passcode", 2, |fixture| {
        fixture.players(["ann", "bob"]);
        fixture.actors[0].request(&create("relay", Some("sesame")));
        fixture.says(1, &join_with("guess"))
    }),
    Operation::new("ask again after too many rejected requests", 2, |fixture| {
        fixture.players(["ann", "bob"]);
        fixture.actors[0].request(&create("relay", Some("sesame")));
        let header = fixture.world.memory.header;
        header.failures_burst.store(1, Ordering::Relaxed);
        header.failures_per_minute.store(1, Ordering::Relaxed);
        fixture.actors[1].request(&join_with("guess"));
        fixture.says(1, &join_with("sesame"))
    })
    // It is told how long to wait.
    .once(),
    Operation::new("watch", 2, |fixture| {
        fixture.match_of(["ann", "bob"]);
        fixture.player("cyd");
        fixture.says(
            2,
            &ClientMessage::Spectate {
                request: 2,
                room: ROOM,
                passcode: None,
            },
        )
    }),
    Operation::new("leave", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.says(0, &ClientMessage::Leave { request: 3 })
    }),
    Operation::new("leave in the middle of a match", 2, |fixture| {
        fixture.match_of(["ann", "bob"]);
        fixture.says(0, &ClientMessage::Leave { request: 3 })
    }),
    Operation::new("leave as the last one", 3, |fixture| {
        fixture.room_of("tictactoe", ["ann"]);
        fixture.says(0, &ClientMessage::Leave { request: 3 })
    }),
    Operation::new("be ready", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.says(0, &ready())
    }),
    Operation::new("be ready, so that the match starts", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.actors[0].request(&ready());
        fixture.says(1, &ready())
    }),
    Operation::new("act", 2, |fixture| {
        fixture.match_of(["ann", "bob"]);
        fixture.says(0, &place(4))
    }),
    Operation::new("act and win", 2, |fixture| {
        fixture.match_of(["ann", "bob"]);
        fixture.moves(&[0, 3, 1, 4]);
        fixture.says(0, &place(2))
    }),
    Operation::new("act against the rules", 2, |fixture| {
        fixture.match_of(["ann", "bob"]);
        fixture.says(1, &place(4))
    }),
    Operation::new("act so that the game panics", 2, |fixture| {
        fixture.clock(1000);
        fixture.says(
            0,
            &ClientMessage::Act {
                request: 4,
                action: vec![1],
            },
        )
    }),
    // Written across the end of the log and over the oldest events, which were not delivered to bob.
    Operation::new("act with thousands of bytes", 2, |fixture| {
        fixture.room_of("relay", ["ann", "bob"]);
        fixture.fills_log();
        fixture.says(0, &relayed(3000, b'!'))
    }),
    Operation::new("ask for a rematch", 2, |fixture| {
        fixture.match_of(["ann", "bob"]);
        fixture.moves(&[0, 3, 1, 4, 2]);
        fixture.says(0, &ClientMessage::Rematch { request: 9 })
    }),
    Operation::new("chat", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.says(0, &chat(5))
    }),
    Operation::new("chat, with another frame behind it", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann"]);
        let act = fixture.says(0, &chat(5));
        fixture.actors[0].send_message(&chat(6));
        act
    })
    .once(),
    Operation::new("chat over the oldest events", 2, |fixture| {
        fixture.room_of("relay", ["ann", "bob"]);
        fixture.fills_log();
        fixture.says(0, &chat(500))
    }),
    Operation::new("look, with an event not yet delivered", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.actors[1].request(&chat(5));
        fixture.says(0, &ClientMessage::Look { request: 3 })
    }),
    Operation::new("deliver events", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        for _ in 0..3 {
            fixture.actors[0].request(&chat(40));
        }
        fixture.delivers(1)
    }),
    Operation::new("deliver the start of a match", 3, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.actors[0].request(&ready());
        fixture.actors[1].request(&ready());
        fixture.delivers(0)
    }),
    Operation::new("deliver more than the log still has", 2, |fixture| {
        fixture.room_of("relay", ["ann", "bob"]);
        fixture.fills_log();
        fixture.tells(&relayed(3000, b'!'));
        fixture.delivers(1)
    }),
    Operation::new("deliver over retained output", 2, |fixture| {
        fixture.room_of("relay", ["ann", "bob"]);
        // No client confirms.
        for _ in 0..=OUTPUT_RING_BYTES / 3000 {
            fixture.tells(&relayed(3000, b'.'));
            fixture.actors[1].receive_messages();
        }
        fixture.tells(&relayed(3000, b'!'));
        fixture.delivers(1)
    }),
    Operation::new(
        "tell a client that lost bytes that it is in no room",
        2,
        |fixture| {
            fixture.players(["ann"]);
            fixture.actors[0].request(&ClientMessage::Ping { nonce: 1 });
            fixture.confirms(0);
            departure::finish(&mut fixture.actors[0].session);
            fixture.comes_back(0, 0);
            fixture.subject().process_handshake();
            resume(&mut fixture.subject().session);
            fixture.delivers(1)
        },
    ),
    Operation::new("answer a ping", 2, |fixture| {
        fixture.players(["ann"]);
        fixture.says(0, &ClientMessage::Ping { nonce: 7 })
    }),
    Operation::new("answer when all output was confirmed", 2, |fixture| {
        fixture.players(["ann"]);
        fixture.actors[0].request(&ClientMessage::Ping { nonce: 1 });
        fixture.confirms(0);
        fixture.says(0, &ClientMessage::Ping { nonce: 2 })
    }),
    // Received output is forgotten for good, and then the frame is consumed.
    Operation::new("confirm", 3, |fixture| {
        fixture.players(["ann"]);
        fixture.actors[0].request(&ClientMessage::Ping { nonce: 1 });
        fixture.actors[0].receive_messages();
        let received = fixture.actors[0].received;
        fixture.says(0, &ClientMessage::Confirm { received })
    })
    .one_cell(),
    Operation::new("list rooms", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        let filter = RoomFilter {
            game: None,
            name_contains: None,
            joinable: false,
        };
        fixture.says(
            0,
            &ClientMessage::ListRooms {
                request: 4,
                filter,
                after: None,
            },
        )
    }),
    Operation::new("say goodbye", 2, |fixture| {
        fixture.players(["ann"]);
        fixture.says(0, &ClientMessage::Goodbye)
    }),
    Operation::new("end a connection without a player", 2, |fixture| {
        fixture.newcomer(|stranger| stranger.session.close(false, &CloseReason::None));
        finish()
    })
    .one_cell(),
    Operation::new("end a connection that waits for a session", 2, |fixture| {
        fixture.players(["ann"]);
        fixture.comes_back(0, 0);
        fixture.subject().process_handshake();
        finish()
    }),
    Operation::new("detach a player in the lobby", 2, |fixture| {
        fixture.players(["ann"]);
        finish()
    }),
    Operation::new("detach a player with a seat", 3, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        finish()
    }),
    Operation::new("leave for good, from the lobby", 3, |fixture| {
        fixture.players(["ann"]);
        fixture.actors[0].ask_and_close(&ClientMessage::Goodbye);
        finish()
    }),
    Operation::new("leave for good, with accounts to remember", 3, |fixture| {
        fixture.players(["ann"]);
        fixture.fails_and_chats();
        fixture.actors[0].ask_and_close(&ClientMessage::Goodbye);
        finish()
    }),
    Operation::new("leave for good, from a match", 4, |fixture| {
        fixture.match_of(["ann", "bob"]);
        fixture.actors[0].ask_and_close(&ClientMessage::Goodbye);
        finish()
    }),
    Operation::new("leave for good, as the last in a room", 5, |fixture| {
        fixture.room_of("tictactoe", ["ann"]);
        fixture.actors[0].ask_and_close(&ClientMessage::Goodbye);
        finish()
    }),
    Operation::new("leave for good, while opening a room", 3, |fixture| {
        fixture.players(["ann"]);
        let act = fixture.says(0, &create("relay", None));
        fixture.dies_opening_a_room(act);
        fixture.actors[0].session.close(true, &CloseReason::None);
        finish()
    }),
    Operation::new("free a connection without processes", 3, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.actors[0].session.record().abandon();
        Act::lobby(|lobby| {
            let _ = expiry::free_connection(lobby, 0);
        })
    }),
    // Two players are marked in one transaction; each then leaves room and lobby, and the last one's room is
    // freed.
    Operation::new("expire players whose grace is over", 7, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        departure::finish(&mut fixture.actors[0].session);
        departure::finish(&mut fixture.actors[1].session);
        Act::lobby(|lobby| {
            expiry::expire_players(lobby, u64::MAX);
            expiry::free_closed_rooms(lobby);
        })
    }),
    // Ann is marked, and leaves the lobby; the player with a seat is kept.
    Operation::new("evict a player whose place is needed", 3, |fixture| {
        fixture.room_of("tictactoe", ["ann"]);
        fixture.players(["bob", "cyd", "dan"]);
        let header = fixture.world.memory.header;
        header.seat_grace_ms.store(3_600_000, Ordering::Relaxed);
        for actor in &mut fixture.actors[..2] {
            departure::finish(&mut actor.session);
        }
        Act::lobby(|lobby| {
            expiry::expire_players(lobby, now_ms() + LOBBY_GRACE_MS_MIN);
        })
    }),
    Operation::new("free a closed room", 2, |fixture| {
        fixture.room_of("tictactoe", ["ann"]);
        let record = fixture.world.memory.rooms.at(0);
        let leave = fixture.says(0, &ClientMessage::Leave { request: 3 });
        fixture.dies_when(leave, || record.open_generation().is_none());
        Act::lobby(|lobby| {
            expiry::free_closed_rooms(lobby);
        })
    }),
    Operation::new("kick", 2, |fixture| {
        fixture.players(["ann"]);
        Act::lobby(|lobby| {
            departure::kick(lobby, "ann").expect("she is here");
        })
    })
    .one_cell(),
    Operation::new("ban", 2, |fixture| {
        fixture.players(["ann"]);
        Act::lobby(|lobby| impose(lobby, SanctionKind::BAN, "Ann"))
    }),
    Operation::new("ban, in place of one that is over", 2, |fixture| {
        fixture.player("cyd");
        fixture.imposes(SanctionKind::MUTE, "bob");
        sanctions::lift(fixture.world.leaked_lobby(), "bob").expect("it was imposed");
        Act::lobby(|lobby| impose(lobby, SanctionKind::BAN, "Ann"))
    }),
    Operation::new("mute, in place of an earlier mute", 2, |fixture| {
        fixture.player("cyd");
        fixture.imposes(SanctionKind::MUTE, "ANN");
        Act::lobby(|lobby| impose(lobby, SanctionKind::MUTE, "Ann"))
    }),
    Operation::new("lift a ban and a mute", 2, |fixture| {
        fixture.player("cyd");
        fixture.imposes(SanctionKind::BAN, "ann");
        fixture.imposes(SanctionKind::MUTE, "ann");
        Act::lobby(|lobby| {
            // A successor finds that it is done.
            let _ = sanctions::lift(lobby, "Ann");
        })
    }),
    Operation::new("refuse a name that is banned", 2, |fixture| {
        fixture.imposes(SanctionKind::BAN, "ann");
        fixture.newcomer(|banned| banned.send_hello("ANN"));
        Act::session(process_handshake)
    }),
    // The ban, then the kicks.
    Operation::new("ban an address", 3, |fixture| {
        fixture.players(["ann", "bob"]);
        let sources = &fixture.world.leaked_lobby().memory.sources;
        for player in 0..2 {
            sources.set_of_player(player, Some(source()));
        }
        Act::lobby(ban_address)
    }),
    Operation::new("lift the ban and the penalty of an address", 3, |fixture| {
        fixture.player("ann");
        ban_address(fixture.world.leaked_lobby());
        penalise(fixture.world.leaked_lobby());
        // Two words, without a transaction: each change is atomic by itself.
        Act::lobby(|lobby| {
            lobby.memory.sources.lift(source());
        })
    })
    .one_cell(),
    // Entering the source, and the penalty.
    Operation::new("penalise a source", 2, |fixture| {
        fixture.player("ann");
        Act::lobby(penalise)
    })
    .one_cell(),
    Operation::new("tick", 2, |fixture| {
        fixture.clock(1000);
        Act::lobby(tick)
    })
    .once(),
    Operation::new("tick that ends the match", 2, |fixture| {
        fixture.clock(1);
        Act::lobby(tick)
    }),
];
