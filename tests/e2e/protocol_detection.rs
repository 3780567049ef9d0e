//! Promise: a client that has sent no byte, and so may be a person or a program, is told why the connection
//! ends in a form that both understand.

use crate::common::raw_client::{RawClient, handshake_preamble};
use crate::common::text_client::TextClient;
use crate::common::{Server, patient};
use forkade_protocol::ErrorCode;
use forkade_protocol::client::Client;

#[test]
fn a_silent_connection_is_told_why_it_ends_in_text_and_in_a_frame() {
    let server = Server::start(&["--handshake-timeout-ms", "300"]);
    let mut text_player = TextClient::connect(&server);
    let shown = text_player.read_to_end();
    let told = "\rYou did not greet in time; people press Enter first.\r\n";
    assert!(shown.ends_with(told), "{shown:?}");
    let said = RawClient::connect(&server).expect_error(ErrorCode::HandshakeTimeout);
    assert!(said.ends_with(told), "{said:?}");
    // A client whose protocol is known is told only in that protocol.
    let mut program = RawClient::connect(&server);
    program.send(&handshake_preamble()[..5]);
    let said = program.expect_error(ErrorCode::HandshakeTimeout);
    assert_eq!(said, "you did not greet in time; people press Enter first");
}

#[test]
fn a_refused_connection_is_told_the_reason() {
    let server = Server::start(&["--players-max", "1", "--connections-max", "1"]);
    let _first = server.client("Ann");
    let shown = TextClient::connect(&server).read_to_end();
    assert!(
        shown.ends_with("\rThe server is full; try again later.\r\n"),
        "{shown:?}"
    );
    let error = Client::connect(server.game, "Bob", patient()).expect_err("it is full");
    assert_eq!(error.error_code(), Some(ErrorCode::ServerFull));
    assert!(
        error
            .to_string()
            .ends_with("The server is full; try again later."),
        "{error}"
    );
}
