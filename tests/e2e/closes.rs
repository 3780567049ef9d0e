//! Promise: whatever connection the server refuses or closes, the operator can see how many there were for each reason,
//! and the log says from where.

use std::io::{Read, Write};
use std::net::Shutdown;

use crate::common::text_client::TextClient;
use crate::common::{Server, eventually, patient};
use forkade_protocol::ErrorCode;
use forkade_protocol::client::Client;

/// Refused and ended connections with this reason.
fn closes(server: &Server, reason: ErrorCode) -> (u64, u64) {
    let rows = server.ask_json("closes");
    let row = rows.as_array().expect("a list").iter();
    let row = row.into_iter().find(|row| row["reason"] == format!("{reason:?}"));
    row.map_or((0, 0), |row| {
        let number = |key: &str| row[key].as_u64().expect("a number");
        assert!(row["seconds_ago"].as_f64().is_some_and(|seconds| seconds >= 0.0));
        (number("refused"), number("ended"))
    })
}

#[test]
fn refused_and_closed_connections_are_counted_by_reason_and_logged_with_the_peer() {
    let server = Server::start(&["--players-max", "2", "--handshake-timeout-ms", "3000"]);
    assert_eq!(server.ask_json("closes").as_array().map(Vec::len), Some(0));
    let _ann = server.client("Ann");
    for _ in 0..3 {
        let refused = Client::connect(server.game, "Ann", patient()).err();
        assert_eq!(
            refused.and_then(|error| error.error_code()),
            Some(ErrorCode::NameTaken)
        );
    }
    assert_eq!(closes(&server, ErrorCode::NameTaken), (3, 0));
    let _bob = server.client("Bob");
    let refused = Client::connect(server.game, "Cyd", patient()).err();
    assert_eq!(
        refused.and_then(|error| error.error_code()),
        Some(ErrorCode::ServerFull)
    );
    // A person at a terminal is told the same in a line.
    let mut person = TextClient::connect(&server);
    person.type_line("");
    person.read_until("as many players as it can");
    assert_eq!(closes(&server, ErrorCode::ServerFull), (2, 0));
    let mut browser = server.connect();
    let peer = browser.local_addr().expect("it is connected");
    browser
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .expect("the server reads");
    browser
        .read_to_end(&mut Vec::new())
        .expect("an answer and the end");
    assert_eq!(closes(&server, ErrorCode::BadPreamble), (1, 0));
    server.expect_logged(&format!(
        "refusing the connection from {peer}: BadPreamble: this is the port of a game server, which does not speak HTTP"
    ));
    let mut silent = server.connect();
    silent
        .read_to_end(&mut Vec::new())
        .expect("an answer and the end");
    silent.shutdown(Shutdown::Both).ok();
    assert_eq!(closes(&server, ErrorCode::HandshakeTimeout), (1, 0));
    server.ask("kick Bob");
    eventually("Bob is sent out", || closes(&server, ErrorCode::Kicked) == (0, 1));
    assert_eq!(
        (server.status("refused_total"), server.status("ended_total")),
        (7, 1)
    );
}
