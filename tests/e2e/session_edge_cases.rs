//! Promise: a refused client stays refused, and a client that uses all of its time limit loses nothing by it.

use std::time::Duration;

use crate::common::raw_client::{RawClient, frame, handshake, handshake_preamble};
use crate::common::{Server, eventually, is_alive};
use forkade_protocol::{ClientMessage, ErrorCode, ServerMessage, Token};

/// The token in the answer to a handshake.
fn token_of(client: &mut RawClient) -> Token {
    match client.next_message() {
        Ok(ServerMessage::Welcome { token, .. }) => token,
        other => panic!("no welcome, but {other:?}"),
    }
}

fn resume(server: &Server, token: Token, received: u64) -> RawClient {
    let mut client = RawClient::connect(server);
    client.send(&handshake_preamble());
    client.send(&frame(&ClientMessage::Resume { token, received }));
    client
}

fn greeted(server: &Server, name: &str) -> (RawClient, Token) {
    let mut client = RawClient::connect(server);
    client.send(&handshake(name));
    let token = token_of(&mut client);
    (client, token)
}

#[test]
fn a_kicked_player_cannot_resume() {
    let server = Server::start(&[]);
    for round in 0..20 {
        let name = format!("Ann {round}");
        let (ann, token) = greeted(&server, &name);
        ann.reset();
        eventually("the connection's end is seen", || {
            server.handler_of(&name).is_none()
        });
        server.ask(&format!("kick {name}"));
        resume(&server, token, 0).expect_error(ErrorCode::TokenUnknown);
    }
    eventually("no player is left", || server.status("players") == 0);
}

#[test]
fn a_resume_late_in_the_handshake_does_not_kill_the_former_handler() {
    let server = Server::start(&[]);
    let (mut old, token) = greeted(&server, "Ann");
    let holder = server.handler_of("Ann").expect("she is served");
    let mut new = RawClient::connect(&server);
    // Longer than the former handler may take to yield, counted from the resume.
    std::thread::sleep(Duration::from_millis(
        forkade::limits::SESSION_RELEASE_TIMEOUT_MS + 300,
    ));
    assert!(is_alive(holder));
    new.send(&handshake_preamble());
    new.send(&frame(&ClientMessage::Resume { token, received: 0 }));
    assert!(matches!(new.next_message(), Ok(ServerMessage::Resumed { .. })));
    old.expect_error(ErrorCode::Replaced);
    assert_eq!(server.status("takeovers_total"), 0);
}

#[test]
fn a_resume_kills_nothing_and_its_client_is_told_to_try_again() {
    // The watchdog does not judge whether the former handler hangs.
    let server = Server::start(&["--watchdog-cpu-ms", "0"]);
    let (old, token) = greeted(&server, "Ann");
    let holder = server.handler_of("Ann").expect("she is served");
    server.signal(holder, nix::sys::signal::Signal::SIGSTOP);
    let text = resume(&server, token, 0).expect_error(ErrorCode::SessionHeld);
    assert_eq!(
        text,
        "the session is still held by its former connection; try again"
    );
    assert!(is_alive(holder));
    server.signal(holder, nix::sys::signal::Signal::SIGCONT);
    assert!(matches!(
        resume(&server, token, 0).next_message(),
        Ok(ServerMessage::Resumed { .. })
    ));
    assert_eq!(server.status("takeovers_total"), 0);
    drop(old);
}

#[test]
fn the_heartbeat_timeout_starts_after_the_handshake() {
    let server = Server::start(&["--heartbeat-timeout-ms", "4000"]);
    let mut ann = RawClient::connect(&server);
    std::thread::sleep(Duration::from_millis(4500));
    ann.send(&handshake("Ann"));
    token_of(&mut ann);
    ann.send_message(&ClientMessage::Ping { nonce: 7 });
    assert!(matches!(
        ann.next_message(),
        Ok(ServerMessage::Pong { nonce: 7, .. })
    ));
}

#[test]
fn a_resume_beyond_the_streams_end_is_refused_and_the_session_survives() {
    let server = Server::start(&[]);
    let (old, token) = greeted(&server, "Ann");
    old.reset();
    for beyond in [1, u64::MAX / 2, u64::MAX] {
        resume(&server, token, beyond).expect_error(ErrorCode::Malformed);
    }
    assert!(matches!(
        resume(&server, token, 0).next_message(),
        Ok(ServerMessage::Resumed { .. })
    ));
    assert_eq!(server.status("takeovers_total"), 0);
}

#[test]
fn a_client_that_connects_during_a_stop_is_told_so() {
    let server = Server::start(&["--watchdog-cpu-ms", "0"]);
    let (_ann, _) = greeted(&server, "Ann");
    let stuck = server.handler_of("Ann").expect("she is served");
    server.signal(stuck, nix::sys::signal::Signal::SIGSTOP);
    server.signal(server.pid(), nix::sys::signal::Signal::SIGTERM);
    eventually("the stop has begun", || {
        let mut late = RawClient::connect(&server);
        late.send(&handshake("Late"));
        matches!(
            late.next_message(),
            Ok(ServerMessage::Error {
                code: ErrorCode::ShuttingDown,
                ..
            })
        )
    });
    server.signal(stuck, nix::sys::signal::Signal::SIGCONT);
}
