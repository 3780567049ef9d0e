//! Promise: a program that speaks another protocol becomes no player, and a web page in an operator's browser cannot
//! make the console execute anything.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::common::operator::{Operator, kill_console};
use crate::common::text_client::TextClient;
use crate::common::{Server, WAIT_MAX, eventually};

/// What is sent, and what the refusal names.
const OPENINGS: [(&[u8], &str); 7] = [
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
    (b"POST / HTTP/1.1\r\n\r\nwho\r\nwho\r\n", "HTTP"),
    (b"\r\nHEAD / HTTP/1.0\r\n\r\n", "HTTP"),
    (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "TLS"),
    (b"SSH-2.0-x\r\n", "SSH"),
    (b"PROXY TCP4 203.0.113.7 127.0.0.1 55555 4000\r\nwho\r\n", "PROXY"),
    (
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0",
        "PROXY",
    ),
];

/// What the server says up to the end of the connection.
fn read_to_end(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    stream
        .read_to_end(&mut said)
        .expect("an answer, and then the end");
    String::from_utf8(said).expect("text")
}

#[test]
fn an_opening_of_another_protocol_is_refused_and_becomes_no_player() {
    let server = Server::start(&[]);
    for (bytes, protocol) in OPENINGS {
        // In one piece, and in two with whatever delay the network makes between them.
        for cut in [bytes.len(), 1, 2, 3, 4] {
            let mut stream = server.connect();
            stream.set_nodelay(true).expect("an option");
            stream.write_all(&bytes[..cut]).expect("the server reads");
            // The connection may already be refused.
            let _ = stream.write_all(&bytes[cut..]);
            let expected = match protocol {
                "PROXY" => "\rA PROXY header is accepted from trusted proxies only, and once.\r\n".to_owned(),
                _ => format!("\rThis is the port of a game server, which does not speak {protocol}.\r\n"),
            };
            assert_eq!(read_to_end(&mut stream), expected, "{bytes:?}, cut at {cut}");
        }
    }
    assert_eq!(server.status("players"), 0);
    assert_eq!(server.status("foreign_openings_total"), 5 * OPENINGS.len() as u64);
    // Players' numbers begin with the first: there was no guest.
    let mut person = TextClient::connect(&server);
    person.type_line("");
    person.read_until("Welcome to Forkade.");
    assert_eq!(server.ask_json("players")[0]["id"], 1_u64 << 32);
}

#[test]
fn a_person_whose_first_line_looks_like_a_method_is_a_player_and_is_answered() {
    let server = Server::start(&[]);
    for line in ["GET", "get /", "POST office", "SSH", "PROXY", "who"] {
        let mut person = TextClient::connect(&server);
        person.type_line(line);
        person.read_until("Welcome to Forkade.");
        person.read_until("\r\n> ");
        assert!(person.ask("who").contains("guest-"), "after {line:?}");
    }
    eventually("all have left", || server.status("players") == 0);
    // One that closes its direction at once is answered as well.
    let mut person = TextClient::connect(&server);
    person.send(b"\r\n");
    person.half_close();
    let shown = person.read_to_end();
    assert!(shown.contains("Welcome to Forkade."), "{shown:?}");
}

#[test]
fn http_on_the_console_executes_nothing_however_it_is_cut() {
    let server = Server::start(&[]);
    let requests: [&[u8]; 5] = [
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1:4001\r\nContent-Length: 6\r\n\r\nsay forged\r\n",
        b"say forged HTTP/1.1\r\nHost: x\r\n\r\nsay forged\r\n",
        b"GET /\r\nAccept: */*\r\nhost: x\r\nsay forged\r\n",
        b"\x16\x03\x01\r\nsay forged\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nsay forged\r\n",
    ];
    for (nth, request) in requests.into_iter().enumerate() {
        for cut in [request.len(), 1, 5, request.len() - 3] {
            let mut console = TcpStream::connect(server.console).expect("the console accepts");
            console.set_read_timeout(Some(WAIT_MAX)).expect("an option");
            console.set_nodelay(true).expect("an option");
            console.write_all(&request[..cut]).expect("the console reads");
            let _ = console.write_all(&request[cut..]);
            let said = read_to_end(&mut console);
            let last = said.lines().last().unwrap_or_default();
            assert!(
                last.starts_with("ERR this is the console of a game server"),
                "request {nth}, cut at {cut}: {said:?}"
            );
            server.expect_logged("to the console: nothing of it is executed");
        }
    }
    assert!(!server.log().contains("forged"), "{}", server.log());
    assert_eq!(server.status("lobby_lines_total"), 0);
}

#[test]
fn a_request_whose_console_process_is_killed_in_the_middle_is_not_obeyed_by_the_next_one() {
    let server = Server::start(&[]);
    let mut console = Operator::new(&server);
    console.send(b"POST / HTT");
    eventually("the console has received it", || {
        let processes = server.ask_json("processes --memory");
        let is_it = |process: &&serde_json::Value| process["peer"] == console.address().to_string();
        let found = processes.as_array().expect("a list").iter().find(is_it).cloned();
        found.is_some_and(|process| process["state"] == "S")
    });
    kill_console(&server, &console);
    let _ = console
        .stream
        .write_all(b"P/1.1\r\nAccept: */*\r\n\r\nsay forged\r\n");
    let said = console.read_to_end();
    assert!(said.ends_with("repeat the command\r\n"), "{said:?}");
    let _ = console.stream.shutdown(Shutdown::Both);
    assert_eq!(server.status("lobby_lines_total"), 0);
}
