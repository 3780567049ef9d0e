//! Promise: a text player in a match keeps its seat when its connection is lost: the resume word that it was shown
//! gives the seat back on a new connection.

use std::time::Duration;

use crate::common::killer::{Handlers, Killer, kills};
use crate::common::random::{Random, seed};
use crate::common::text_client::TextClient;
use crate::common::{Server, eventually};
use nix::sys::signal::Signal;

/// A text player with a name, and its resume word as it is shown at the beginning.
fn player(server: &Server, name: &str) -> (TextClient, String) {
    let mut text_player = TextClient::connect(server);
    text_player.type_line("");
    text_player.read_until("Welcome to Forkade.");
    let word = word_shown(&mut text_player);
    text_player.type_line(&format!("name {name}"));
    text_player.read_until(&format!("You are called {name} now.\r\n> "));
    (text_player, word)
}

#[track_caller]
fn word_shown(text_player: &mut TextClient) -> String {
    text_player.read_until("After a lost connection, \"resume ");
    let word = text_player.read_until("\" takes you to your seat.\r\n");
    assert_eq!(word.len(), "0000-0000-0000-0000".len());
    word
}

/// Ann, who begins, and Bob in a match of tic-tac-toe; and Ann's word.
fn match_of_two(server: &Server) -> (TextClient, TextClient, String) {
    let ((mut ann, word), (mut bob, _)) = (player(server, "Ann"), player(server, "Bob"));
    ann.ask("create tictactoe");
    bob.type_line("join 1");
    bob.read_until("Bob (you)");
    ann.type_line("ready");
    bob.type_line("ready");
    for text_player in [&mut ann, &mut bob] {
        text_player.read_until("The match begins.");
        text_player.read_until("X is to move\r\n");
    }
    (ann, bob, word)
}

fn lose(text_player: TextClient) {
    let socket = socket2::SockRef::from(&text_player.stream);
    socket
        .set_linger(Some(Duration::ZERO))
        .expect("an option can be set");
    drop(text_player);
}

fn guest(server: &Server) -> TextClient {
    let mut text_player = TextClient::connect(server);
    text_player.type_line("");
    text_player.read_until("\r\n> ");
    text_player
}

/// Ann on a new connection, with the next word.
#[track_caller]
fn come_back(server: &Server, word: &str) -> (TextClient, String) {
    let mut ann = guest(server);
    ann.type_line(&format!("resume {word}"));
    ann.read_until("Welcome back, Ann.");
    let next = word_shown(&mut ann);
    assert_ne!(next, word);
    (ann, next)
}

#[test]
fn a_seat_in_a_match_outlives_the_connection_and_the_word_gives_it_back() {
    let server = Server::start(&[]);
    let (ann, mut bob, word) = match_of_two(&server);
    lose(ann);
    bob.read_until("Ann has lost the connection; the seat is kept for a while.\r\n");
    let (mut ann, next) = come_back(&server, &word.to_lowercase().replace('-', " "));
    ann.read_until("You are in room 1");
    ann.read_until("X is to move\r\nIt is your move.\r\n> ");
    bob.read_until("Ann is back.\r\n");
    ann.type_line("4");
    bob.read_until("Ann puts X on 4.\r\n");
    eventually("the guest is gone", || server.status("players") == 2);
    // The word is used up, the next one is not.
    let mut eve = guest(&server);
    assert_eq!(
        eve.ask(&format!("resume {word}")),
        "No: no session has this word (any more)."
    );
    ann.half_close();
    bob.read_until("Ann has lost the connection");
    let (mut ann, _) = come_back(&server, &next);
    // What happens before this picture is in it, and is no event.
    ann.read_until("You are in room 1");
    bob.type_line("0");
    ann.read_until("Bob puts O on 0.\r\n");
    server.expect_no_errors();
}

#[test]
fn the_word_is_shown_again_and_takes_a_living_connection_over() {
    let server = Server::start(&[]);
    let (mut ann, mut bob, word) = match_of_two(&server);
    ann.type_line("whoami");
    ann.read_until("You are Ann.\r\n");
    assert_eq!(word_shown(&mut ann), word);
    let (mut back, next) = come_back(&server, &word);
    assert!(
        ann.read_to_end()
            .ends_with("Your session goes on on a newer connection.\r\n")
    );
    back.type_line("whoami");
    assert_eq!(word_shown(&mut back), next);
    back.type_line("4");
    bob.read_until("Ann puts X on 4.\r\n");
    // A player cannot resume its own session.
    back.type_line("leave");
    back.read_until("You are back in the lobby.\r\n> ");
    assert!(
        back.ask(&format!("resume {next}"))
            .starts_with("No: that is your own word")
    );
}

#[test]
fn what_is_typed_behind_the_word_is_done_in_the_session() {
    let server = Server::start(&[]);
    let (ann, mut bob, word) = match_of_two(&server);
    lose(ann);
    bob.read_until("Ann has lost the connection");
    let mut ann = TextClient::connect(&server);
    ann.send(format!("\r\nresume {word}\r\n4\r\nsay hel").as_bytes());
    bob.read_until("Ann puts X on 4.\r\n");
    ann.send(b"lo\r\n");
    bob.read_until("Ann says: hello\r\n");
    let mut eve = guest(&server);
    eve.send(format!("resume {word}\r\n{}", "x".repeat(600)).as_bytes());
    eve.read_until("No: ");
    server.expect_no_errors();
}

#[test]
fn a_client_that_guesses_words_is_disconnected() {
    let server = Server::start(&[]);
    let (_ann, _) = player(&server, "Ann");
    let mut eve = guest(&server);
    for word in ["0000-0000-0000-0000", "hello", "0001-0000-0000-0000"] {
        eve.type_line(&format!("resume {word}"));
    }
    eve.type_line("look");
    let heard = eve.read_to_end();
    assert!(
        heard.contains("No: no session has this word") && !heard.contains("in the lobby"),
        "{heard}"
    );
    eventually("only Ann is left", || server.status("players") == 1);
}

#[test]
fn a_seat_is_kept_for_the_grace_and_no_longer() {
    let server = Server::start(&["--seat-grace-ms", "300"]);
    let (ann, mut bob, word) = match_of_two(&server);
    lose(ann);
    bob.read_until("Ann has left.");
    let mut ann = guest(&server);
    assert!(ann.ask(&format!("resume {word}")).starts_with("No: no session"));
}

#[test]
fn a_player_comes_back_while_all_handlers_are_killed() {
    let server = Server::start(&["--seat-grace-ms", "600000", "--chat-per-minute", "0"]);
    let (mut ann, mut bob, mut word) = match_of_two(&server);
    let killer = Killer::start(
        &server,
        Random::new(seed(), 0),
        kills(30),
        Duration::from_millis(3),
    );
    let mut resumes = 0;
    while !killer.is_done() || resumes == 0 {
        lose(ann);
        (ann, word) = come_back(&server, &word);
        ann.read_until("You are in room 1");
        ann.type_line(&format!("say {resumes}"));
        bob.read_until(&format!("Ann says: {resumes}\r\n"));
        resumes += 1;
    }
    killer.stop();
    eventually("the guests are gone", || server.status("players") == 2);
    Handlers::of(&server).signal_all(Signal::SIGKILL);
    ann.type_line("4");
    bob.read_until("Ann puts X on 4.\r\n");
}

/// All that the connection was sent before the word counts as the reply to its handshake: more than a reply has.
#[test]
fn a_connection_that_came_back_late_is_taken_over_like_any_other() {
    let server = Server::start(&[]);
    let (ann, _bob, word) = match_of_two(&server);
    lose(ann);
    let mut ann = guest(&server);
    for _ in 0..3 {
        ann.ask("help");
    }
    ann.type_line(&format!("resume {word}"));
    ann.read_until("Welcome back, Ann.");
    ann.read_until("It is your move.\r\n> ");
    Handlers::of(&server).signal_all(Signal::SIGKILL);
    ann.type_line("whoami");
    ann.read_until("You are Ann.");
}

#[test]
fn a_word_typed_on_an_older_connection_is_refused_with_what_to_do_and_works_on_a_new_one() {
    let server = Server::start(&[]);
    let mut older = guest(&server);
    let (ann, mut bob, word) = match_of_two(&server);
    let refusal = "No: this connection is older than the session's last one: connect again, and\r\n    type the word there.";
    assert_eq!(older.ask(&format!("resume {word}")), refusal);
    // No connection has the session now: it goes on nowhere.
    lose(ann);
    bob.read_until("Ann has lost the connection; the seat is kept for a while.\r\n");
    assert_eq!(older.ask(&format!("resume {word}")), refusal);
    come_back(&server, &word);
    bob.read_until("Ann is back.\r\n");
    server.expect_no_errors();
}
