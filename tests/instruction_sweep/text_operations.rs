//! Operations of players in text mode.

use forkade::limits::{TEXT_LINE_BYTES_MAX, TEXT_SKIP_BYTES_MIN};
use forkade::testing::frontends::dispatch::{self, FrameOutcome};
use forkade::testing::lobby::{delivery, departure};

use crate::fixture::{
    chat, create, finish, handle_frame, join, place, process_handshake, ready, resume, say, whisper,
};
use crate::operations::Operation;
use crate::sweep::Act;

const IAC: u8 = 255;
const DO: u8 = 253;
const BEGIN_SUBNEGOTIATION: [u8; 3] = [IAC, 250, 24];

pub(crate) const TYPING: &[Operation] = &[
    Operation::new("handshake in text mode", 2, |fixture| {
        fixture.player("ann");
        fixture.newcomer(|guest| guest.send(b"\r\n"));
        Act::session(process_handshake)
    })
    .once(),
    Operation::new("handshake in text mode, in the middle of a line", 2, |fixture| {
        fixture.player("ann");
        fixture.actors[0].leave_for_good();
        fixture.newcomer(|guest| guest.send(b"help\r\nhe"));
        Act::session(process_handshake)
    })
    .once(),
    // No other process acts on half a line.
    Operation::new("look at half a line", 1, |fixture| {
        fixture.typist("ann");
        fixture.types(0, b"name An")
    })
    .one_cell(),
    Operation::new("handle a line", 2, |fixture| {
        fixture.typist("ann");
        fixture.types(0, b"games\r\n")
    }),
    Operation::new("handle a line that was corrected", 2, |fixture| {
        fixture.typist("ann");
        fixture.types(0, b"gix\x08\x7fames\r\0")
    }),
    Operation::new("handle a line with half a line behind it", 2, |fixture| {
        fixture.typist("ann");
        let act = fixture.types(0, b"look\r\nha");
        fixture.subject().send(b"l");
        act
    }),
    Operation::new("refuse a line", 2, |fixture| {
        fixture.typist("ann");
        fixture.types(0, b"say \xff\xff\x1b\n")
    }),
    Operation::new("begin to discard a line", 2, |fixture| {
        fixture.typist("ann");
        fixture.types(0, &[b'x'; TEXT_LINE_BYTES_MAX + 1])
    }),
    Operation::new("discard the rest of a line", 2, |fixture| {
        fixture.typist("ann");
        fixture.types(0, &[b'x'; TEXT_LINE_BYTES_MAX + 9]);
        fixture.subject().handle();
        fixture.types(0, b"x\r\nhelp")
    }),
    Operation::new("answer telnet in the middle of a line", 2, |fixture| {
        fixture.typist("ann");
        fixture.types(0, &[b'h', b'e', IAC, DO, 1, b'l', IAC, DO, 6])
    }),
    Operation::new("skip telnet commands", 2, |fixture| {
        fixture.typist("ann");
        let said = [&BEGIN_SUBNEGOTIATION[..], &[b'x'; TEXT_SKIP_BYTES_MIN]].concat();
        fixture.types(0, &said)
    }),
    Operation::new("rename", 2, |fixture| {
        fixture.player("bob");
        fixture.typist("ann");
        fixture.types(1, b"name Cyd\r\n")
    }),
    Operation::new("be refused a name", 2, |fixture| {
        fixture.player("bob");
        fixture.typist("ann");
        fixture.types(1, b"name BOB\r\n")
    }),
    Operation::new("list rooms in text mode", 2, |fixture| {
        fixture.player("bob");
        fixture.actors[0].request(&create("tictactoe", None));
        fixture.typist("ann");
        fixture.types(1, b"rooms\n")
    }),
    Operation::new("join by typing", 2, |fixture| {
        fixture.player("bob");
        fixture.actors[0].request(&create("tictactoe", None));
        fixture.typist("ann");
        fixture.types(1, b"join 1\n")
    }),
    // The move, and its events.
    Operation::new("type a move", 3, |fixture| {
        fixture.match_with_typist();
        fixture.types(0, b"4\r\n");
        Act::session(|session| {
            dispatch::handle_next_frame(session);
            delivery::deliver(session).expect("events fit");
        })
    }),
    Operation::new("type an invalid move", 2, |fixture| {
        fixture.match_with_typist();
        fixture.types(0, b"middle\r\n")
    }),
    Operation::new("type a whisper", 2, |fixture| {
        fixture.player("bob");
        fixture.typist("ann");
        fixture.types(1, b"tell bob psst\n")
    }),
    Operation::new("render events and a view", 2, |fixture| {
        fixture.match_with_typist();
        fixture.types(0, b"4\r\n");
        fixture.subject().handle();
        fixture.all_hear();
        fixture.actors[1].request(&chat(5));
        fixture.actors[1].request(&place(0));
        fixture.delivers(0)
    }),
    Operation::new("render the start of a match", 3, |fixture| {
        fixture.room_with_typist();
        fixture.types(0, b"ready\r\n");
        fixture.subject().handle();
        fixture.actors[1].request(&ready());
        fixture.delivers(0)
    }),
    Operation::new("draw a real-time match as lines", 2, |fixture| {
        fixture.real_time_match(b"ansi off\r\n");
        fixture.delivers(0)
    }),
    Operation::new("draw a real-time match in place", 2, |fixture| {
        fixture.real_time_match(b"ansi on\r\n");
        fixture.delivers(0)
    }),
    // The drawing, and then the move.
    Operation::new("type a move in a real-time match", 3, |fixture| {
        fixture.real_time_match(b"ansi off\r\n");
        fixture.types(0, b"go\r\n")
    }),
    // The events, and then the answer.
    Operation::new("type with events pending", 3, |fixture| {
        fixture.room_with_typist();
        fixture.actors[1].request(&chat(5));
        fixture.types(0, b"look\n")
    }),
    Operation::new("ignore a name", 2, |fixture| {
        fixture.typist("ann");
        fixture.types(0, b"ignore bob\r\n")
    }),
    Operation::new("ignore a name in place of a similar one", 2, |fixture| {
        fixture.typist("ann");
        fixture.types(0, b"ignore bob 1\r\nignore cyd\r\n");
        fixture.subject().handle();
        fixture.subject().handle();
        fixture.types(0, b"ignore Bob l\r\n")
    }),
    Operation::new("ignore a name no more", 2, |fixture| {
        fixture.typist("ann");
        fixture.types(0, b"ignore bob\r\nignore cyd\r\n");
        fixture.subject().handle();
        fixture.subject().handle();
        fixture.types(0, b"unignore BOB\r\n")
    }),
    Operation::new("deliver nothing of an ignored player", 3, |fixture| {
        fixture.players(["ann", "bob"]);
        fixture.typist("cyd");
        fixture.types(2, b"ignore ann\r\n");
        fixture.subject().handle();
        fixture.tells(&say("to all"));
        fixture.tells(&whisper("cyd", "psst"));
        fixture.delivers_mail(2)
    }),
    Operation::new("quit by typing", 2, |fixture| {
        fixture.typist("ann");
        fixture.types(0, b"quit\r\n")
    }),
    Operation::new("leave for good with the connection", 3, |fixture| {
        fixture.typist("ann");
        fixture.subject = 0;
        finish()
    }),
    Operation::new(
        "keep the seat without the connection, in text mode",
        3,
        |fixture| {
            fixture.match_with_typist();
            fixture.subject = 0;
            finish()
        },
    ),
    Operation::new("ask to resume by a word", 2, |fixture| fixture.types_word()),
    Operation::new("be refused a word", 2, |fixture| {
        fixture.typist("ann");
        fixture.types(0, b"resume 0000-0000-0000-0000\r\n")
    }),
    Operation::new("resume by a word", 3, |fixture| {
        fixture.types_word();
        fixture.subject().handle();
        Act::session(resume)
    })
    .once(),
];

impl crate::fixture::Fixture {
    /// A text player with a name.
    fn typist(&mut self, name: &str) {
        self.newcomer(|typist| {
            typist.send(b"\r\n");
            typist.process_handshake();
            typist.send(format!("name {name}\r\n").as_bytes());
            while typist.handle() == FrameOutcome::Handled {}
            typist.receive_messages();
        });
    }

    /// The first player of a match, in text mode, is back on a new connection and types its word, with half a line
    /// behind it.
    fn types_word(&mut self) -> Act {
        self.match_with_typist();
        let word = self.actors[0].session.resume_word().expect("in text mode");
        departure::finish(&mut self.actors[0].session);
        self.typist("guest");
        let guest = self.actors.len() - 1;
        self.types(guest, format!("resume {word}\r\nloo").as_bytes())
    }

    /// The actor types this; the operation is the handling of its first line.
    fn types(&mut self, actor: usize, bytes: &[u8]) -> Act {
        self.subject = actor;
        self.actors[actor].send(bytes);
        handle_frame()
    }

    /// Ann, in text mode, creates a room, and Bob joins it with the binary protocol.
    fn room_with_typist(&mut self) {
        self.typist("ann");
        self.types(0, b"create tictactoe\r\n");
        self.subject().handle();
        self.player("bob");
        self.actors[1].request(&join());
        self.all_hear();
    }

    /// Ann, in text mode, is in a real-time match, which is to be drawn anew after this line.
    fn real_time_match(&mut self, line: &[u8]) {
        self.typist("ann");
        for line in [b"create clock\r\n".as_slice(), line] {
            self.types(0, line);
            self.subject().handle();
            self.subject().flush();
        }
    }

    fn match_with_typist(&mut self) {
        self.room_with_typist();
        self.types(0, b"ready\r\n");
        self.subject().handle();
        self.actors[1].request(&ready());
        self.all_hear();
    }
}
