//! Operations of chat: to the lobby, and to single players.

use forkade::limits::CHAT_BYTES_MAX;
use forkade::testing::lobby::{chat, departure, sanctions};
use forkade::testing::state::sanctions::SanctionKind;

use crate::fixture::{chat, resume, say, whisper};
use crate::operations::Operation;
use crate::sweep::Act;

pub(crate) const TALK: &[Operation] = &[
    Operation::new("chat to the lobby", 2, |fixture| {
        fixture.players(["ann", "bob"]);
        fixture.says(0, &say("hello"))
    }),
    // Written across the end of the log and over the oldest lines, which were not delivered to bob.
    Operation::new("chat to the lobby over the oldest lines", 2, |fixture| {
        fixture.players(["ann", "bob"]);
        fixture.fills_chat();
        fixture.says(0, &say(&"!".repeat(CHAT_BYTES_MAX)))
    }),
    Operation::new("announce", 2, |fixture| {
        fixture.players(["ann"]);
        Act::lobby(|lobby| {
            chat::announce(lobby, "the server stops at noon").expect("it can be said");
        })
    })
    .once(),
    Operation::new("deliver the lobby's chat", 2, |fixture| {
        fixture.players(["ann", "bob"]);
        for line in ["one", "two", "three"] {
            fixture.tells(&say(line));
        }
        fixture.delivers(1)
    }),
    Operation::new("deliver the room's events and the lobby's chat", 3, |fixture| {
        fixture.room_of("tictactoe", ["ann", "bob"]);
        fixture.tells(&say("to all"));
        fixture.tells(&chat(5));
        fixture.delivers(1)
    }),
    // More than a batch.
    Operation::new("deliver the rest of the lobby's chat", 3, |fixture| {
        fixture.players(["ann", "bob"]);
        fixture.fills_chat();
        for _ in 0..2 {
            fixture.tells(&say(&"!".repeat(CHAT_BYTES_MAX)));
        }
        fixture.delivers(1)
    }),
    Operation::new("whisper", 2, |fixture| {
        fixture.players(["ann", "bob"]);
        fixture.says(0, &whisper("Bob", "psst"))
    }),
    Operation::new("whisper to an absent player", 2, |fixture| {
        fixture.players(["ann", "bob"]);
        departure::finish(&mut fixture.actors[1].session);
        fixture.says(0, &whisper("bob", "psst"))
    }),
    // Written across the end of the mailbox, part of which was delivered.
    Operation::new("whisper to a player with mail", 2, |fixture| {
        fixture.players(["ann", "bob"]);
        fixture.fills_mailbox(1, "bob");
        fixture.says(0, &whisper("bob", &"!".repeat(CHAT_BYTES_MAX)))
    }),
    Operation::new("chat while muted", 2, |fixture| {
        fixture.room_of("relay", ["ann", "bob"]);
        let lobby = fixture.world.leaked_lobby();
        sanctions::impose(lobby, SanctionKind::MUTE, "ann", 600_000).expect("there is a place");
        fixture.says(0, &chat(5))
    }),
    Operation::new("be refused a whisper", 2, |fixture| {
        fixture.players(["ann", "bob"]);
        fixture.says(0, &whisper("cyd", "psst"))
    }),
    Operation::new("deliver mail", 2, |fixture| {
        fixture.players(["ann", "bob"]);
        for text in ["one", "two", "three"] {
            fixture.tells(&whisper("bob", text));
        }
        fixture.delivers_mail(1)
    }),
    Operation::new("deliver mail after a resume", 2, |fixture| {
        fixture.players(["ann", "bob"]);
        departure::finish(&mut fixture.actors[1].session);
        fixture.tells(&whisper("bob", "psst"));
        let received = fixture.actors[1].received;
        fixture.comes_back(1, received);
        fixture.subject().process_handshake();
        resume(&mut fixture.subject().session);
        fixture.delivers_mail(2)
    }),
];
