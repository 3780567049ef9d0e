//! Promise: behind a trusted proxy each client has its own address, from the PROXY header, wherever it is shown. Nobody
//! else can claim an address, and no header, however it is cut or wrong, concerns another connection.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::common::control_pair::expect_harmless;
use crate::common::raw_client::{RawClient, frame, handshake};
use crate::common::text_client::{IAC, TextClient};
use crate::common::{Server, connect_from, eventually};
use crate::harness::{Actor, World};
use crate::upgrade::Upgradable;
use forkade::limits::PROXY_HEADER_BYTES_MAX;
use forkade::testing::frontends::dispatch::HandshakeOutcome;
use forkade::testing::session::CloseReason;
use forkade::testing::state::layout::Capacity;
use forkade_protocol::{ClientMessage, ErrorCode, ServerMessage};

const PROXY: [u8; 4] = [127, 0, 0, 2];
const STRANGER: [u8; 4] = [127, 0, 0, 3];
const TRUSTS: [&str; 4] = ["--trusted-proxy", "127.0.0.2", "--trusted-proxy", "2001:db8::/32"];

const CLIENT: &str = "203.0.113.7:55555";
const TEXT_HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 55555 4000\r\n";

/// A header of version 2: command, family and protocol, and what follows the length.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("a length of two bytes");
    [
        b"\r\n\r\n\0\r\nQUIT\n",
        &[command, family][..],
        &length.to_be_bytes(),
        rest,
    ]
    .concat()
}

/// The addresses of [`CLIENT`] and the server, as in version 2.
const ADDRESSES: [u8; 12] = [203, 0, 113, 7, 192, 0, 2, 1, 0xd9, 0x03, 0x0f, 0xa0];

/// Version 2, of so many bytes altogether.
fn binary_of(bytes: usize) -> Vec<u8> {
    let mut rest = ADDRESSES.to_vec();
    rest.resize(bytes - 16, 0);
    binary(0x21, 0x11, &rest)
}

fn binary_header() -> Vec<u8> {
    binary_of(28)
}

/// Whole headers that name a client, and its address.
fn headers_of_clients() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (TEXT_HEADER.to_vec(), CLIENT),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 55555 4000\r\n".to_vec(),
            "[2001:db8::7]:55555",
        ),
        (binary_header(), CLIENT),
        (binary_of(200), CLIENT),
        // The greeting lies on both sides of the record's end, and behind it.
        (binary_of(500), CLIENT),
        (binary_of(600), CLIENT),
        (binary_of(PROXY_HEADER_BYTES_MAX), CLIENT),
    ]
}

/// Headers of proxies that speak for themselves, or do not know a client's address.
fn headers_without_client() -> Vec<Vec<u8>> {
    vec![
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(),
        binary(0x20, 0x00, &[]),
        binary(0x20, 0x11, &ADDRESSES),
        binary(0x21, 0x00, &[4, 0, 3, 0, 0, 0]),
        binary(0x21, 0x31, &[b'/'; 216]),
    ]
}

fn own_address(stream: &TcpStream) -> String {
    stream.local_addr().expect("connected").to_string()
}

/// The address that the console's `players` shows.
fn shown(server: &Server, name: &str) -> Option<String> {
    let players = server.ask_json("players");
    let is_it = |player: &&serde_json::Value| player["name"] == name;
    let player = players.as_array().expect("a list").iter().find(is_it)?;
    player["peer"].as_str().map(str::to_owned)
}

/// The process that serves the connection from this address, whether it has a player or not.
fn handler_of_peer(server: &Server, peer: &str) -> Option<u32> {
    let processes = server.ask_json("processes");
    let is_it = |process: &&serde_json::Value| process["peer"] == peer;
    let process = processes.as_array().expect("a list").iter().find(is_it)?;
    process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
}

fn expect_welcome(raw: &mut RawClient) {
    let welcome = raw.next_message();
    assert!(
        matches!(welcome, Ok(ServerMessage::Welcome { .. })),
        "{welcome:?}"
    );
}

fn expect_pong(raw: &mut RawClient, nonce: u64) {
    raw.send_message(&ClientMessage::Ping { nonce });
    raw.next_where(|message| matches!(message, ServerMessage::Pong { nonce: its, .. } if *its == nonce));
}

#[test]
fn a_client_is_shown_everywhere_with_the_address_in_the_header() {
    let server = Server::start(&TRUSTS);
    let mut clients = Vec::new();
    for (nth, (header, address)) in headers_of_clients().into_iter().enumerate() {
        let name = format!("Client{nth}");
        let mut raw = RawClient::over(server.connect_from(PROXY));
        // In one piece, with a message behind it that belongs to the stream.
        let ping = frame(&ClientMessage::Ping { nonce: 7 });
        raw.send(&[header, handshake(&name), ping].concat());
        expect_welcome(&mut raw);
        raw.next_where(|message| matches!(message, ServerMessage::Pong { nonce: 7, .. }));
        assert_eq!(shown(&server, &name).as_deref(), Some(address), "header {nth}");
        assert!(handler_of_peer(&server, address).is_some());
        server.expect_logged(&format!(
            "player={name:?} forkade::process::handler::drive: came, from {address}"
        ));
        clients.push(raw);
    }
    drop(clients);
    eventually("events show who has gone from where", || {
        let events = server.ask("events 100");
        events.contains(&format!(
            "has lost the connection, and may come back, at {CLIENT}"
        ))
    });
    // A refusal behind the header shows the client, too.
    let mut raw = RawClient::over(server.connect_from(PROXY));
    raw.send(&[&binary_header()[..], b"\xf7nothing"].concat());
    raw.expect_error(ErrorCode::BadPreamble);
    server.expect_logged(&format!("refusing the connection from {CLIENT}: BadPreamble"));
    server.expect_no_errors();
}

#[test]
fn without_a_client_in_the_header_the_proxys_own_address_stays() {
    let server = Server::start(&TRUSTS);
    for (nth, header) in headers_without_client().into_iter().enumerate() {
        let name = format!("Client{nth}");
        let mut raw = RawClient::over(server.connect_from(PROXY));
        raw.send(&[header, handshake(&name)].concat());
        expect_welcome(&mut raw);
        assert_eq!(
            shown(&server, &name),
            Some(own_address(&raw.stream)),
            "header {nth}"
        );
    }
    // A health check says nothing more, and many proxies end it by a reset.
    let mut check = RawClient::over(server.connect_from(PROXY));
    check.send(&headers_without_client()[2]);
    check.half_close();
    assert_eq!(check.rest().0, []);
    for _ in 0..50 {
        let mut check = RawClient::over(server.connect_from(PROXY));
        check.send(&headers_without_client()[2]);
        check.reset();
    }
    eventually("no process serves a proxy any more", || {
        !server.ask("processes").contains("127.0.0.2")
    });
    assert!(!server.log().contains("refusing"), "{}", server.log());
}

#[test]
fn text_mode_telnet_and_a_silent_client_work_behind_a_header() {
    let server = Server::start(&[&TRUSTS[..], &["--handshake-timeout-ms", "1000"]].concat());
    for header in [TEXT_HEADER.to_vec(), binary_header(), binary_of(3000)] {
        let mut person = TextClient::over(server.connect_from(PROXY));
        person.send(&header);
        person.type_line("");
        person.read_until("Welcome to Forkade. You are called ");
        let name = person.read_until(";");
        person.read_until("\r\n> ");
        assert_eq!(shown(&server, &name).as_deref(), Some(CLIENT));
        assert!(person.ask("who").contains(&name));
        // Telnet's questions are answered once each, and the line behind them is obeyed.
        let mut telnet = TextClient::over(server.connect_from(PROXY));
        telnet.send(&[&header[..], &[IAC, 251, 31, IAC, 253, 1], b"name Tell\r\n"].concat());
        telnet.read_until("You are called Tell now.");
        assert_eq!(shown(&server, "Tell").as_deref(), Some(CLIENT));
        telnet.type_line("quit");
        telnet.read_to_end();
        // It may be a program or a person: the reason is readable for both.
        let mut silent = RawClient::over(server.connect_from(PROXY));
        silent.send(&header);
        silent.expect_error(ErrorCode::HandshakeTimeout);
        person.type_line("quit");
        person.read_to_end();
    }
}

/// How a connection is refused that begins with these bytes: in a line of text.
fn refusal(server: &Server, from: [u8; 4], bytes: &[u8]) -> String {
    let mut client = TextClient::over(server.connect_from(from));
    // The connection may already be refused.
    let _ = client.stream.write_all(bytes);
    client.read_to_end()
}

#[test]
fn a_header_that_is_doubled_or_from_a_stranger_is_refused() {
    expect_harmless(&TRUSTS, |server| {
        let refused = "\rA PROXY header is accepted from trusted proxies only, and once.\r\n";
        for header in [TEXT_HEADER.to_vec(), binary_header()] {
            let with_greeting = [header.clone(), handshake("Eve")].concat();
            assert_eq!(refusal(server, STRANGER, &with_greeting), refused);
            let doubled = [header, with_greeting].concat();
            assert_eq!(refusal(server, PROXY, &doubled), refused);
        }
        eventually("the refusals are in the log under both addresses", || {
            let log = server.log();
            log.contains(&format!("refusing the connection from {CLIENT}"))
                && log.contains("refusing the connection from 127.0.0.3:")
        });
        // From anywhere else, everything is as without proxies.
        let mut raw = RawClient::over(server.connect_from(STRANGER));
        raw.send(&handshake("Ann"));
        expect_welcome(&mut raw);
        assert_eq!(shown(server, "Ann"), Some(own_address(&raw.stream)));
        raw.send_message(&ClientMessage::Goodbye);
        raw.rest();
    });
}

#[test]
fn a_missing_or_wrong_header_is_refused_with_the_reason() {
    expect_harmless(&TRUSTS, |server| {
        let missing = "connections from a trusted proxy begin with a PROXY header";
        let mut raw = RawClient::over(server.connect_from(PROXY));
        raw.send(&handshake("Eve"));
        assert_eq!(raw.expect_error(ErrorCode::BadPreamble), missing);
        let as_line = "Connections from a trusted proxy begin with a PROXY header.";
        for bytes in [
            &b"who\r\n"[..],
            b"\r\nwho\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02",
        ] {
            assert_eq!(
                refusal(server, PROXY, bytes),
                format!("\r{as_line}\r\n"),
                "{bytes:?}"
            );
        }
        let mut unknown_protocol = binary_header();
        unknown_protocol[13] = 0x44;
        for (bytes, said) in [
            (unknown_protocol, "malformed"),
            (binary(0x21, 0x21, &ADDRESSES), "malformed"),
            (binary(0x21, 0x11, &ADDRESSES[..11]), "malformed"),
            (b"PROXY TCP4 nobody 192.0.2.1 1 2\r\n".to_vec(), "malformed"),
            ([&b"PROXY TCP4 "[..], &[b'1'; 4000]].concat(), "malformed"),
            (binary(0x21, 0x12, &ADDRESSES), "does not speak TCP"),
            (
                binary_of(PROXY_HEADER_BYTES_MAX + 1),
                "has 3585 bytes, and at most 3584",
            ),
            (
                binary_of(16 + usize::from(u16::MAX))[..16].to_vec(),
                "has 65551 bytes",
            ),
        ] {
            let line = refusal(server, PROXY, &bytes);
            assert!(
                line.contains(said),
                "{line:?} for {:?}",
                &bytes[..bytes.len().min(40)]
            );
        }
    });
}

#[test]
fn a_silent_person_behind_a_proxy_is_spoken_to_once_the_header_has_come() {
    let server = Server::start(&[&TRUSTS[..], &["--banner-after-ms", "1"]].concat());
    let mut person = TextClient::over(server.connect_from(PROXY));
    person.send(TEXT_HEADER);
    assert_eq!(
        person.read_until("Press Enter to play.\r\n"),
        "This is a game server. "
    );
    person.type_line("");
    assert_eq!(person.read_until("Welcome to Forkade."), "", "it is said once");
}

#[test]
fn the_header_must_come_within_the_handshakes_time() {
    let server = Server::start(&[&TRUSTS[..], &["--handshake-timeout-ms", "300"]].concat());
    for part in [&b""[..], b"PROXY TCP4 203.0.113.7", &binary_header()[..27]] {
        let mut client = RawClient::over(server.connect_from(PROXY));
        client.send(part);
        match part {
            [] => drop(client.expect_error(ErrorCode::HandshakeTimeout)),
            _ => assert!(
                TextClient::over(client.stream)
                    .read_to_end()
                    .contains("did not greet in time")
            ),
        }
    }
}

#[test]
fn a_header_and_a_greeting_may_be_cut_at_any_byte_and_the_handler_may_die_there() {
    for (nth, (header, address)) in headers_of_clients().into_iter().enumerate() {
        let whole = [header.clone(), handshake("Ann")].concat();
        // Of the longest, the places around each end.
        let is_near = |cut: usize| {
            [0, 512, header.len(), whole.len()]
                .iter()
                .any(|end| end.abs_diff(cut) < 40)
        };
        let cuts = (0..whole.len()).filter(|cut| whole.len() < 300 || is_near(*cut));
        for cut in cuts {
            for dies in [false, true] {
                let world = World::new(Capacity {
                    players: 2,
                    rooms: 1,
                    keepers: 1,
                });
                let mut actor = Actor::connect(world, 0);
                actor.session.record().set_behind_proxy();
                actor.send(&whole[..cut]);
                assert_eq!(
                    actor.process_handshake(),
                    HandshakeOutcome::Incomplete,
                    "{nth}: {cut}"
                );
                if dies {
                    actor.replace_handler(world);
                }
                actor.send(&whole[cut..]);
                actor.send_message(&ClientMessage::Ping { nonce: 7 });
                assert_eq!(
                    actor.process_handshake(),
                    HandshakeOutcome::Greeted,
                    "{nth}: {cut}"
                );
                assert_eq!(actor.session.record().peer().to_string(), address);
                if dies {
                    actor.replace_handler(world);
                }
                actor.handle();
                let messages = actor.receive_messages();
                assert!(
                    matches!(
                        messages[..],
                        [
                            ServerMessage::Welcome { .. },
                            ServerMessage::Pong { nonce: 7, .. }
                        ]
                    ),
                    "{nth}: {cut}: {messages:?}"
                );
            }
        }
    }
}

#[test]
fn a_successor_that_finds_a_half_entered_address_enters_it_again() {
    let world = World::new(Capacity {
        players: 2,
        rooms: 1,
        keepers: 1,
    });
    let mut actor = Actor::connect(world, 0);
    let record = actor.session.record();
    record.set_behind_proxy();
    actor.send(&binary_header());
    // The handler has died between the address's words: it is neither the proxy's nor the client's.
    record.set_peer(
        "[2001:db8::7]:1"
            .parse::<std::net::SocketAddr>()
            .expect("an address")
            .into(),
    );
    actor.replace_handler(world);
    assert_eq!(actor.process_handshake(), HandshakeOutcome::Incomplete);
    assert_eq!(record.peer().to_string(), CLIENT);
    // What it has read is not read again.
    actor.replace_handler(world);
    actor.send(&binary_header());
    assert!(matches!(actor.process_handshake(), HandshakeOutcome::Foreign(_)));
    actor.session.close(false, &CloseReason::None);
    actor.end();
    // The next connection in the slot begins without a header.
    let mut next = Actor::connect(world, 0);
    next.send_hello("Ann");
    assert_eq!(next.process_handshake(), HandshakeOutcome::Greeted);
}

#[test]
fn a_handler_that_is_killed_in_or_behind_the_header_has_a_successor_that_goes_on() {
    let server = Server::start(&TRUSTS);
    for (nth, (header, address)) in headers_of_clients().into_iter().enumerate() {
        for (part, cut) in [1, header.len() / 2, header.len() - 1, header.len()]
            .into_iter()
            .enumerate()
        {
            let name = format!("Client{nth}n{part}");
            let mut raw = RawClient::over(server.connect_from(PROXY));
            raw.send(&header[..cut]);
            let (own, is_whole) = (own_address(&raw.stream), cut == header.len());
            let peer = if is_whole { address } else { &own };
            let mut handler = None;
            eventually(
                "a process serves the connection under the address known so far",
                || {
                    handler = handler_of_peer(&server, peer);
                    handler.is_some()
                },
            );
            let taken_over = server.status("takeovers_total");
            server.kill(handler.expect("just found"));
            eventually("it is replaced", || server.status("takeovers_total") > taken_over);
            raw.send(&[&header[cut..], &handshake(&name)].concat());
            expect_welcome(&mut raw);
            assert_eq!(
                shown(&server, &name).as_deref(),
                Some(address),
                "{nth}, cut at {cut}"
            );
            // And once more, with the session open.
            server.kill(server.handler_of(&name).expect("it is served"));
            expect_pong(&mut raw, 8);
            assert_eq!(shown(&server, &name).as_deref(), Some(address));
            raw.send_message(&ClientMessage::Goodbye);
            drop(raw);
            eventually("its process is gone", || {
                handler_of_peer(&server, address).is_none()
            });
        }
    }
    server.expect_no_errors();
}

#[test]
fn an_upgrade_keeps_the_address_of_who_has_greeted_and_of_who_has_not() {
    let upgradable = Upgradable::start(&TRUSTS);
    let server = &upgradable.server;
    let [mut before, mut between, mut within] = [0; 3].map(|_| RawClient::over(server.connect_from(PROXY)));
    before.send(&[&binary_header()[..], &handshake("Before")].concat());
    expect_welcome(&mut before);
    between.send(TEXT_HEADER);
    within.send(&binary_header()[..20]);
    eventually("the header is read", || {
        server.ask("processes").matches(CLIENT).count() == 2
    });
    upgradable.install_itself();
    upgradable.upgrade();
    expect_pong(&mut before, 1);
    between.send(&handshake("Between"));
    within.send(&[&binary_header()[20..], &handshake("Within")].concat());
    for (name, raw) in [("Between", &mut between), ("Within", &mut within)] {
        expect_welcome(raw);
        assert_eq!(shown(server, name).as_deref(), Some(CLIENT));
    }
    assert_eq!(shown(server, "Before").as_deref(), Some(CLIENT));
    server.expect_no_errors();
}

/// HAProxy in front of a server, as the chapter on security shows it.
struct Haproxy {
    child: Child,
    address: SocketAddr,
    configuration: PathBuf,
}

impl Haproxy {
    /// `None`, and says so, where HAProxy is not installed. It connects to the server from [`PROXY`].
    fn start(server: &Server) -> Option<Self> {
        let name = format!("forkade-haproxy-{}.cfg", std::process::id());
        let configuration = std::env::temp_dir().join(name);
        let text = format!(
            "defaults\n mode tcp\n timeout connect 60s\n timeout client 1h\n timeout server 1h\n\
             frontend players\n bind fd@0\n default_backend forkade\n\
             backend forkade\n server forkade {} send-proxy-v2 source 127.0.0.2 check inter 100ms\n",
            server.game
        );
        std::fs::write(&configuration, text).expect("a temporary file");
        // It inherits its listening socket, in place of its standard input: so the kernel can choose the port.
        let listening = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listening.local_addr().expect("bound");
        let started = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(&configuration)
            .stdin(Stdio::from(OwnedFd::from(listening)))
            .stdout(Stdio::null())
            .spawn();
        match started {
            Ok(child) => Some(Self {
                child,
                address,
                configuration,
            }),
            Err(error) => {
                // Not through `eprintln!`, whose output the test harness captures.
                let text = format!("SKIPPED: the test with HAProxy, which cannot be run: {error}\n");
                let _ = std::io::stderr().write_all(text.as_bytes());
                std::fs::remove_file(&configuration).expect("it is ours");
                None
            }
        }
    }

    fn client(&self, from: [u8; 4], name: &str) -> RawClient {
        let mut raw = RawClient::over(connect_from(from, self.address));
        raw.send(&handshake(name));
        expect_welcome(&mut raw);
        raw
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.configuration);
    }
}

#[test]
fn behind_haproxy_every_client_has_its_address_through_a_takeover_and_an_upgrade() {
    let upgradable = Upgradable::start(&TRUSTS);
    let server = &upgradable.server;
    let Some(haproxy) = Haproxy::start(server) else {
        return;
    };
    let (mut ann, mut bob) = (
        haproxy.client([127, 0, 0, 4], "Ann"),
        haproxy.client([127, 0, 0, 5], "Bob"),
    );
    let mut person = TextClient::over(connect_from([127, 0, 0, 6], haproxy.address));
    person.type_line("name Eve");
    person.read_until("You are called Eve now.");
    let expected = [
        ("Ann", own_address(&ann.stream)),
        ("Bob", own_address(&bob.stream)),
        ("Eve", own_address(&person.stream)),
    ];
    let expect_addresses = || {
        for (name, address) in &expected {
            assert_eq!(shown(server, name).as_ref(), Some(address), "{name}");
        }
    };
    expect_addresses();
    server.kill(server.handler_of("Ann").expect("she is served"));
    expect_pong(&mut ann, 1);
    expect_addresses();
    upgradable.install_itself();
    upgradable.upgrade();
    expect_pong(&mut ann, 2);
    expect_pong(&mut bob, 3);
    person.type_line("who");
    person.read_until("Ann");
    expect_addresses();
    let cid = haproxy.client([127, 0, 0, 4], "Cid");
    assert_eq!(shown(server, "Cid"), Some(own_address(&cid.stream)));
    // HAProxy's checks of the server's health say LOCAL.
    assert!(!server.log().contains("refusing"), "{}", server.log());
    server.expect_no_errors();
}
