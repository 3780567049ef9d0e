//! Promise: typed commands are understood in the usual spellings.

use crate::common::Server;
use crate::common::text_client::TextClient;

#[test]
fn an_invite_code_is_accepted_as_read_aloud() {
    let server = Server::start(&[]);
    let mut ann = TextClient::named(&server, "Ann");
    ann.type_line("create relay");
    ann.read_until("You are in room");
    ann.type_line("invite");
    ann.read_until("With the code ");
    let code = ann.read_until(" anybody");
    let spoken = code.replace('-', " ").to_lowercase();
    for typed in [spoken.clone(), format!("\"{spoken}\""), spoken.replace(' ', "")] {
        let mut bob = TextClient::named(&server, "Bob");
        bob.type_line(&format!("join {typed}"));
        bob.read_until("You are in room");
        bob.type_line("quit");
        bob.read_until("Goodbye.");
        bob.read_to_end();
    }
}

#[test]
fn options_are_parsed_by_the_game() {
    let server = Server::start(&[]);
    let mut ann = TextClient::named(&server, "Ann");
    ann.type_line("create connect4 options=9x9");
    ann.read_until("No: connect4 has no options.");
    ann.type_line("create connect4 Mine options=");
    ann.read_until("You are in room");
    ann.type_line("set options=9x9");
    ann.read_until("No: connect4 has no options.");
}
