//! Promise: typed commands are understood in the usual spellings.

use crate::common::Server;
use crate::common::text_client::TextClient;

#[test]
fn an_invite_code_is_accepted_as_read_aloud() {
    let server = Server::start(&[]);
    let mut ann = TextClient::named(&server, "Ann");
    ann.types("create relay");
    ann.reads("You are in room");
    ann.types("invite");
    ann.reads("With the code ");
    let code = ann.reads(" anybody");
    let spoken = code.replace('-', " ").to_lowercase();
    for typed in [spoken.clone(), format!("\"{spoken}\""), spoken.replace(' ', "")] {
        let mut bob = TextClient::named(&server, "Bob");
        bob.types(&format!("join {typed}"));
        bob.reads("You are in room");
        bob.types("quit");
        bob.reads("Goodbye.");
        bob.reads_to_the_end();
    }
}

#[test]
fn options_are_parsed_by_the_game() {
    let server = Server::start(&[]);
    let mut ann = TextClient::named(&server, "Ann");
    ann.types("create connect4 options=9x9");
    ann.reads("No: connect4 has no options.");
    ann.types("create connect4 Mine options=");
    ann.reads("You are in room");
    ann.types("set options=9x9");
    ann.reads("No: connect4 has no options.");
}
