//! Promise: what one address does, only it pays. Connections, penalties and bans are counted by address, whatever
//! process is killed, and a player whose session waits can come back.

use std::net::Ipv4Addr;

use forkade_protocol::client::{Client, ClientOptions};
use forkade_protocol::{ClientMessage, ErrorCode, ServerMessage};

use crate::common::raw_client::{RawClient, framed, handshake, handshake_preamble};
use crate::common::{Server, WAIT_MAX, children, eventually, of_name, patient};
use crate::upgrade::Upgradable;

/// Addresses of the loopback network that are not exempt.
const ONE: &str = "127.0.0.2";
const OTHER: &str = "127.0.0.3";

fn from(server: &Server, address: &str) -> RawClient {
    let address: Ipv4Addr = address.parse().expect("an address");
    RawClient::over(server.connect_from(address.octets()))
}

fn options(address: &str) -> ClientOptions {
    ClientOptions {
        local_address: Some(address.parse().expect("an address")),
        ..patient()
    }
}

/// The connection is served.
#[track_caller]
fn expect_served(mut client: RawClient, name: &str) -> RawClient {
    client.send(&handshake(name));
    match client.next_message() {
        Ok(ServerMessage::Welcome { .. }) => client,
        other => panic!("{name} is not served: {other:?}"),
    }
}

/// A number in the list of sources; 0 if the source is not in it.
fn listed(server: &Server, source: &str, column: &str) -> u64 {
    let rows = server.ask_json("sources");
    let mut rows = rows.as_array().expect("a list").iter();
    let row = rows.find(|row| row["source"] == source);
    row.map_or(0, |row| row[column].as_u64().expect("a number"))
}

fn connections(server: &Server, source: &str) -> u64 {
    listed(server, source, "connections")
}

#[test]
fn one_address_has_a_limited_number_of_connections_and_others_have_theirs() {
    let server = Server::start(&["--source-connections", "3"]);
    let mut held: Vec<_> = (0..3).map(|_| from(&server, ONE)).collect();
    eventually("all are counted", || connections(&server, ONE) == 3);
    assert_eq!(listed(&server, ONE, "greeting"), 3);
    let text = from(&server, ONE).expect_error(ErrorCode::ServerFull);
    assert!(text.contains("your address"), "{text}");
    let _other = expect_served(from(&server, OTHER), "Other");
    assert_eq!(listed(&server, OTHER, "players"), 1);
    // The machine's own address is exempt.
    let own: Vec<_> = (0..9).map(|_| server.connect()).collect();
    eventually("they are served", || {
        connections(&server, "127.0.0.1") == own.len() as u64
    });
    held.pop();
    eventually("the place is free", || connections(&server, ONE) == 2);
    let _third = expect_served(from(&server, ONE), "Third");
    assert_eq!(server.status("sources_refused_total"), 1);
    server.expect_no_errors();
}

#[test]
fn an_address_that_opens_too_many_at_once_is_refused_the_rest() {
    let server = Server::start(&["--source-connections", "5"]);
    // Also of connections that are still on their way to a keeper.
    let opened: Vec<_> = (0..25).map(|_| from(&server, ONE)).collect();
    eventually("all are decided", || {
        connections(&server, ONE) + server.status("sources_refused_total") == opened.len() as u64
    });
    assert_eq!(connections(&server, ONE), 5);
}

#[test]
fn an_address_that_connects_too_fast_is_refused_and_not_another_one() {
    // Five at once, then one a second.
    let server = Server::start(&["--source-connects", "1", "--source-connections", "0"]);
    // Ten seconds would have to pass for none to be refused.
    let opened: Vec<_> = (0..15).map(|_| from(&server, ONE)).collect();
    eventually("all are decided", || {
        connections(&server, ONE) + server.status("sources_refused_total") == opened.len() as u64
    });
    assert!(server.status("sources_refused_total") > 0);
    expect_served(from(&server, OTHER), "Other");
}

#[test]
fn counts_and_penalties_outlive_the_processes_that_made_them_and_an_upgrade() {
    let upgradable = Upgradable::start(&["--source-connections", "2", "--handshake-timeout-ms", "60000"]);
    let server = &upgradable.server;
    let _held = [from(server, ONE), from(server, ONE)];
    eventually("both are counted", || connections(server, ONE) == 2);
    // Their penalties decay by a second per second.
    for _ in 0..40 {
        let mut bad = from(server, OTHER);
        bad.send(&[&handshake_preamble()[..], &framed(&[0xff])].concat());
        bad.rest();
    }
    let penalised = || {
        let refused = from(server, OTHER).expect_error(ErrorCode::ServerFull);
        assert!(refused.contains("bad connections"), "{refused}");
        from(server, ONE).expect_error(ErrorCode::ServerFull);
    };
    penalised();
    for role in ["listener", "keeper"] {
        let pids = || of_name(&children(server.pid()), role);
        let killed = pids();
        killed.iter().for_each(|pid| server.kill(*pid));
        eventually("they are replaced", || {
            let now = pids();
            now.len() == killed.len() && now.iter().all(|pid| !killed.contains(pid))
        });
        eventually("both are counted", || connections(server, ONE) == 2);
        penalised();
    }
    upgradable.upgrade();
    penalised();
    server.ask(&format!("unban {OTHER}"));
    let _served = expect_served(from(server, OTHER), "Forgiven");
}

#[test]
fn a_player_whose_session_waits_comes_back_although_others_fill_its_address() {
    let server = Server::start(&["--source-connections", "2"]);
    let mut ann = server.client_from(ONE, "Ann");
    let token = ann.token();
    ann.disconnect_abruptly();
    eventually("Ann is away", || connections(&server, ONE) == 0);
    let _silent = [from(&server, ONE), from(&server, ONE)];
    eventually("the address is full", || connections(&server, ONE) == 2);
    let back = Client::resume(server.game, token, options(ONE)).expect("one place is beyond the limit");
    from(&server, ONE).expect_error(ErrorCode::ServerFull);
    drop(back);
}

#[test]
fn coming_back_is_no_way_around_the_number_of_connections() {
    let server = Server::start(&["--source-connections", "2", "--source-connects", "1"]);
    let mut ann = server.client_from(ONE, "Ann");
    ann.disconnect_abruptly();
    eventually("Ann is away", || connections(&server, ONE) == 0);
    // Five connects are granted at once; from then on they are too fast, too.
    let opened: Vec<_> = (0..12).map(|_| from(&server, ONE)).collect();
    eventually("all are decided", || {
        connections(&server, ONE) + server.status("sources_refused_total") == opened.len() as u64
    });
    assert_eq!(connections(&server, ONE), 3, "two, and one for Ann");
}

#[test]
fn behind_a_proxy_the_clients_are_the_sources() {
    let server = Server::start(&["--trusted-proxy", "127.0.0.9", "--source-connections", "1"]);
    let via_proxy = |address: &str, name: &str| {
        let mut client = from(&server, "127.0.0.9");
        client.send(format!("PROXY TCP4 {address} 127.0.0.1 7 4000\r\n").as_bytes());
        client.send(&handshake(name));
        client
    };
    let _silent: Vec<_> = (0..3).map(|_| from(&server, "127.0.0.9")).collect();
    let mut ann = via_proxy("203.0.113.7", "Ann");
    let mut bob = via_proxy("203.0.113.8", "Bob");
    for client in [&mut ann, &mut bob] {
        assert!(matches!(client.next_message(), Ok(ServerMessage::Welcome { .. })));
    }
    via_proxy("203.0.113.7", "Cyd").expect_error(ErrorCode::ServerFull);
    assert_eq!(connections(&server, "203.0.113.7"), 1);
    assert_eq!(connections(&server, "127.0.0.9"), 0);
    // A successor does not judge the connection again.
    server.kill(server.handler_of("Bob").expect("Bob has a handler"));
    bob.send_message(&ClientMessage::Ping { nonce: 1 });
    bob.next_where(|message| matches!(message, ServerMessage::Pong { .. }));
    server.ask("ban 203.0.113.8");
    bob.expect_error(ErrorCode::Kicked);
    via_proxy("203.0.113.8", "Dan").expect_error(ErrorCode::Kicked);
}

#[test]
fn a_banned_address_is_refused_its_players_go_and_others_stay() {
    let server = Server::start(&[]);
    let mut ann = server.client_from(ONE, "Ann");
    let mut early = from(&server, ONE);
    eventually("both are counted", || connections(&server, ONE) == 2);
    let mut bob = server.client_from(OTHER, "Bob");
    server.ask(&format!("ban {ONE} 10m"));
    let ended = ann.receive_where(WAIT_MAX, |_| false).expect_err("Ann goes");
    assert_eq!(ended.error_code(), Some(ErrorCode::Kicked));
    assert!(ended.to_string().contains("banned your address"), "{ended}");
    let text = from(&server, ONE).expect_error(ErrorCode::Kicked);
    assert!(text.contains("10 minutes"), "{text}");
    // It connected before the ban.
    early.send(&handshake("Early"));
    early.expect_error(ErrorCode::Kicked);
    bob.ping().expect("Bob stays");
    let bans = server.ask_json("bans");
    assert_eq!(bans[0]["name"], ONE);
    server.ask(&format!("unban {ONE}"));
    server.client_from(ONE, "Ann again");
    assert!(server.try_ask(&format!("unban {ONE}")).is_err());
    // In quotes it is a name.
    server.ask(&format!("ban \"{ONE}\""));
    expect_served(from(&server, ONE), "Free");
}

#[test]
fn a_silent_address_is_penalised_and_another_one_is_not() {
    let server = Server::start(&["--handshake-timeout-ms", "100"]);
    eventually("it is penalised", || {
        let mut silent = from(&server, ONE);
        matches!(silent.next_message(), Ok(ServerMessage::Error { text, .. }) if text.contains("bad connections"))
    });
    let listed = server.ask_json("penalties");
    assert_eq!(listed[0]["source"], ONE, "{listed}");
    assert!(listed[0]["refused"].as_f64() > Some(0.0), "{listed}");
    expect_served(from(&server, OTHER), "Other");
    // The exempt address has no penalties.
    for _ in 0..6 {
        RawClient::connect(&server).expect_error(ErrorCode::HandshakeTimeout);
    }
    assert_eq!(server.ask_json("penalties").as_array().map(Vec::len), Some(1));
}

#[test]
fn connections_are_refused_at_random_when_many_have_not_greeted() {
    let server = Server::start(&["--early-refusal", "4:50:8"]);
    let silent: Vec<_> = (0..60).map(|_| server.connect()).collect();
    eventually("all are decided", || {
        connections(&server, "127.0.0.1") + server.status("refused_early_total") == silent.len() as u64
    });
    let open = connections(&server, "127.0.0.1");
    assert!((4..=8).contains(&open), "{open} are open");
    drop(silent);
    eventually("all places are free", || server.status("connections") == 0);
    let _served = server.client("Ann");
}

#[test]
fn a_source_that_sends_faster_than_it_may_waits_and_loses_nothing() {
    let server = Server::start(&["--source-messages", "20"]);
    let mut ann = server.client_from(ONE, "Ann");
    let mut bob = server.client_from(OTHER, "Bob");
    // A hundred are granted at once.
    for nonce in 0..160 {
        ann.send(&ClientMessage::Ping { nonce })
            .expect("Ann is connected");
    }
    eventually("Ann waits", || server.status("sources_held_total") > 0);
    bob.ping().expect("Bob does not");
    for nonce in 0..160 {
        let is_pong = |message: &ServerMessage| matches!(message, ServerMessage::Pong { nonce: of, .. } if *of == nonce);
        ann.receive_where(WAIT_MAX, is_pong)
            .expect("every ping is answered");
    }
}

#[test]
fn refusals_of_one_address_do_not_push_those_of_others_out_of_the_events() {
    let server = Server::start(&["--source-connections", "1"]);
    let _held = [from(&server, ONE), from(&server, OTHER)];
    eventually("both are counted", || {
        connections(&server, ONE) == 1 && connections(&server, OTHER) == 1
    });
    from(&server, OTHER).expect_error(ErrorCode::ServerFull);
    for _ in 0..600 {
        from(&server, ONE).expect_error(ErrorCode::ServerFull);
    }
    let events = server.ask_json("events 512");
    let about = |address: &str| {
        let events = events.as_array().expect("a list").iter();
        let part = format!("{address}:");
        events
            .filter(|event| event["what"].as_str().is_some_and(|what| what.contains(&part)))
            .count()
    };
    assert_eq!(about(OTHER), 1, "{events}");
    assert!((10..100).contains(&about(ONE)), "{events}");
}
