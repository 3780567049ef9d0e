//! Operations of chat: to the lobby, and to single players.

use forkade::limits::CHAT_BYTES_MAX;
use forkade::testing::lobby::chat;
use forkade::testing::lobby::departure;

use crate::fixture::{chat, resume, say, whisper};
use crate::operations::Operation;
use crate::sweep::Act;

pub(crate) const TALK: &[Operation] = &[
    Operation::new("chat to the lobby", 2, |stage| {
        stage.players(["ann", "bob"]);
        stage.says(0, &say("hello"))
    }),
    // Written across the end of the log and over the oldest lines, which were not delivered to bob.
    Operation::new("chat to the lobby over the oldest lines", 2, |stage| {
        stage.players(["ann", "bob"]);
        stage.fills_chat();
        stage.says(0, &say(&"!".repeat(CHAT_BYTES_MAX)))
    }),
    Operation::new("announce", 2, |stage| {
        stage.players(["ann"]);
        Act::lobby(|lobby| {
            chat::announce(lobby, "the server stops at noon").expect("it can be said");
        })
    })
    .once(),
    Operation::new("deliver the lobby's chat", 2, |stage| {
        stage.players(["ann", "bob"]);
        for line in ["one", "two", "three"] {
            stage.tells(&say(line));
        }
        stage.delivers(1)
    }),
    Operation::new("deliver the room's events and the lobby's chat", 3, |stage| {
        stage.room_of("tictactoe", ["ann", "bob"]);
        stage.tells(&say("to all"));
        stage.tells(&chat(5));
        stage.delivers(1)
    }),
    // More than a batch.
    Operation::new("deliver the rest of the lobby's chat", 3, |stage| {
        stage.players(["ann", "bob"]);
        stage.fills_chat();
        for _ in 0..2 {
            stage.tells(&say(&"!".repeat(CHAT_BYTES_MAX)));
        }
        stage.delivers(1)
    }),
    Operation::new("whisper", 2, |stage| {
        stage.players(["ann", "bob"]);
        stage.says(0, &whisper("Bob", "psst"))
    }),
    Operation::new("whisper to an absent player", 2, |stage| {
        stage.players(["ann", "bob"]);
        departure::finish(&mut stage.actors[1].session);
        stage.says(0, &whisper("bob", "psst"))
    }),
    // Written across the end of the mailbox, part of which was delivered.
    Operation::new("whisper to a player with mail", 2, |stage| {
        stage.players(["ann", "bob"]);
        stage.fills_mailbox(1, "bob");
        stage.says(0, &whisper("bob", &"!".repeat(CHAT_BYTES_MAX)))
    }),
    Operation::new("be refused a whisper", 2, |stage| {
        stage.players(["ann", "bob"]);
        stage.says(0, &whisper("cyd", "psst"))
    }),
    Operation::new("deliver mail", 2, |stage| {
        stage.players(["ann", "bob"]);
        for text in ["one", "two", "three"] {
            stage.tells(&whisper("bob", text));
        }
        stage.delivers_mail(1)
    }),
    Operation::new("deliver mail after a resume", 2, |stage| {
        stage.players(["ann", "bob"]);
        departure::finish(&mut stage.actors[1].session);
        stage.tells(&whisper("bob", "psst"));
        let received = stage.actors[1].received;
        stage.comes_back(1, received);
        stage.subject().process_handshake();
        resume(&mut stage.subject().session);
        stage.delivers_mail(2)
    }),
];
