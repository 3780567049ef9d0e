//! Promise: whatever a telnet client sends, only what was typed reaches the line, and the client is answered. What
//! people write reaches another terminal as they wrote it. A machine that is gone is noticed in two minutes.

use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::SockRef;

use crate::common::Server;
use crate::common::text_client::{IAC, TextClient};

fn guest(server: &Server) -> TextClient {
    let mut text_player = TextClient::connect(server);
    text_player.type_line("");
    text_player.read_until("> ");
    text_player
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16).expect("hexadecimal")).expect("a digit"))
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn an_unfinished_subnegotiation_takes_no_command_with_it() {
    let server = Server::start(&[]);
    let mut text_player = TextClient::connect(&server);
    text_player.send(&unhex("0d0afffa1877686f0d0afffb1f68656c700d0a"));
    text_player.read_until("Anything else is a move in your game.\r\n> ");
    let heard = String::from_utf8_lossy(&text_player.received);
    assert!(!heard.contains("Here are"), "{heard}");
    // A person whose keyboard sends these bytes can go on typing, too.
    text_player.send(&[IAC, 250]);
    text_player.send(&[b'x'; 1024]);
    text_player.type_line("look");
    text_player.read_until("in the lobby.");
}

#[test]
fn a_client_that_asks_whether_the_server_is_there_sees_a_line() {
    let server = Server::start(&[]);
    let mut text_player = TextClient::connect(&server);
    text_player.send(&unhex("0d0afff6"));
    text_player.read_until("\r\n[Yes]\r\n> ");
    text_player.send(&[b'l', b'o', IAC, 246, b'o', b'k', b'\r', b'\n']);
    text_player.read_until("\r\n[Yes]\r\n> ");
    text_player.read_until("in the lobby.");
}

#[test]
fn the_opening_of_a_mud_client_reaches_no_line_and_is_answered_once() {
    let server = Server::start(&[]);
    let mut text_player = TextClient::connect(&server);
    text_player.send(&unhex(
        "fffc22fffe03fffb1ffffa1f0064002dfff0fffb18fffd56fffd46fffd45fffa4501224c495354220222434f4d4d414e445322fff0fffdc9",
    ));
    text_player.type_line("look");
    text_player.read_until("in the lobby.");
    let received = &text_player.received;
    for answer in [[254, 31], [254, 24], [252, 86], [252, 70], [252, 69], [252, 201]] {
        let wanted = [IAC, answer[0], answer[1]];
        let count = received.windows(3).filter(|part| *part == wanted).count();
        assert_eq!(count, 1, "{wanted:?}");
    }
    let heard = String::from_utf8_lossy(received);
    assert!(!heard.contains("No:") && !heard.contains("LIST"), "{heard}");
}

#[test]
fn joined_letters_and_emoji_reach_other_terminals_as_they_are() {
    let server = Server::start(&[]);
    let (mut typist, mut reader) = (guest(&server), guest(&server));
    for said in [
        "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
        "\u{1f469}\u{200d}\u{1f680}",
        "\u{2764}\u{fe0f}\u{200d}\u{1f525} ok",
    ] {
        typist.type_line(&format!("shout {said}"));
        reader.read_until(&format!(" shouts: {said}\r\n"));
    }
    // What joins nothing could only mislead.
    typist.type_line("shout \u{200d}a\u{200d} b");
    reader.read_until(" shouts: a b\r\n");
    typist.type_line(&format!("shout Z{}", "\u{301}".repeat(50)));
    reader.read_until(" shouts: Z\u{301}\u{301}\r\n");
}

#[test]
fn a_line_is_wrapped_where_the_most_generous_terminal_would_wrap_it() {
    let server = Server::start(&[]);
    let (mut typist, mut reader) = (guest(&server), guest(&server));
    let astronaut = "\u{1f469}\u{200d}\u{1f680}";
    typist.type_line(&format!("shout {}", astronaut.repeat(30)));
    let shown = reader.read_until("\r\n> ");
    let rows: Vec<_> = shown.split("\r\n").collect();
    assert!(rows.len() > 1, "{rows:?}");
    for row in rows {
        // Each of the two is two columns wide at a terminal that does not join them.
        assert!(4 * row.matches(astronaut).count() < 80, "{row}");
        assert!(
            !row.ends_with('\u{200d}') && !row.contains("    \u{1f680}"),
            "cut in two: {row}"
        );
    }
}

#[test]
fn a_row_that_begins_from_the_right_is_still_read_from_the_left() {
    let server = Server::start(&[]);
    let mut reader = guest(&server);
    let mut typist = TextClient::named(&server, "\u{5d0}\u{5d1}");
    typist.type_line("shout \u{202e}hi");
    reader.read_until("\r\u{200e}\u{5d0}\u{5d1} shouts: hi\r\n");
}

#[test]
fn a_text_player_whose_machine_is_gone_is_noticed_in_two_minutes() {
    let server = Server::start(&[]);
    let text_player = TextClient::named(&server, "Ann");
    let handler = server.handler_of("Ann").expect("it is served");
    let pid = Pid::from_raw(i32::try_from(handler).expect("a pid")).expect("not zero");
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("it lives");
    let own_address = text_player.stream.local_addr().expect("connected");
    let files = std::fs::read_dir(format!("/proc/{handler}/fd")).expect("it lives");
    let numbers = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok());
    let socket = numbers
        .filter_map(|number| pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()).ok())
        .find(|file| {
            let peer = SockRef::from(file).peer_addr().ok();
            peer.and_then(|peer| peer.as_socket()) == Some(own_address)
        })
        .expect("the handler has the socket");
    let socket = socket.as_fd();
    let socket = SockRef::from(&socket);
    assert!(socket.keepalive().expect("an option of TCP"));
    let [time, interval] =
        [socket.tcp_keepalive_time(), socket.tcp_keepalive_interval()].map(|time| time.expect("set"));
    let probes = socket.tcp_keepalive_retries().expect("an option of TCP");
    let noticed = time + interval * probes;
    assert!(noticed <= Duration::from_secs(120), "idle: {noticed:?}");
    let unacknowledged = socket.tcp_user_timeout().expect("an option of TCP");
    assert_eq!(unacknowledged, Some(noticed), "with output on its way");
}
