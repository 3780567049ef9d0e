//! Promise: clients can connect at every address that is configured, by IPv4 and IPv6, and an upgrade keeps all of
//! them. An address that cannot be had is named.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use crate::common::{Server, patient};
use crate::upgrade::Upgradable;
use forkade_protocol::client::Client;

/// Addresses besides the first, which every test server has.
fn elsewhere() -> Vec<&'static str> {
    let mut addresses = vec!["127.0.0.2:0", "localhost:0"];
    match TcpListener::bind("[::1]:0") {
        Ok(_) => addresses.push("[::1]:0"),
        Err(error) => eprintln!("IPv6 is not tested: {error}"),
    }
    addresses
}

fn arguments() -> Vec<&'static str> {
    elsewhere()
        .into_iter()
        .flat_map(|address| ["--listen", address])
        .collect()
}

/// Connects one client at each address.
fn visit_all(server: &Server, prefix: &str) -> Vec<Client> {
    let visit = |(nth, address): (usize, &SocketAddr)| {
        let client = Client::connect(*address, format!("{prefix}{nth}"), patient());
        client.unwrap_or_else(|error| panic!("at {address}: {error:?}; log: {}", server.log()))
    };
    server.games.iter().enumerate().map(visit).collect()
}

#[test]
fn clients_can_connect_at_every_address_and_meet_there() {
    let server = Server::start(&arguments());
    assert_eq!(server.games[0], server.game);
    assert!(server.games.len() > elsewhere().len(), "{:?}", server.games);
    for (address, given) in server.games[1..].iter().zip(elsewhere()) {
        let is_same_family = address.is_ipv6() == given.starts_with('[');
        assert!(is_same_family && address.port() != 0, "{address} for {given}");
    }
    let _clients = visit_all(&server, "Guest");
    assert_eq!(server.status("players"), server.games.len() as u64);
    server.expect_no_errors();
}

#[test]
fn an_upgrade_keeps_every_address_and_every_connection() {
    let upgradable = Upgradable::start(&arguments());
    let server = &upgradable.server;
    let mut before = visit_all(server, "Before");
    for round in 0..2 {
        upgradable.install_itself();
        upgradable.upgrade();
        for client in &mut before {
            client.ping().expect("the session lives");
            assert_eq!(client.counters().resumes, 0);
        }
        let after = visit_all(server, &format!("After{round}n"));
        assert_eq!(after.len(), server.games.len());
    }
    server.expect_no_errors();
}

#[test]
fn an_upgrade_to_more_fewer_or_other_addresses_is_refused_and_the_old_program_keeps_serving() {
    let path = std::env::temp_dir().join(format!("forkade-listening-{}.toml", std::process::id()));
    let write = |addresses: &str| std::fs::write(&path, format!("listen = [{addresses}]\n")).expect("a file");
    write("\"127.0.0.1:0\", \"127.0.0.2:0\"");
    let file = path.to_str().expect("a plain path");
    let upgradable = Upgradable::run(["serve", "--console", "127.0.0.1:0", "--config", file]);
    assert_eq!(upgradable.server.games.len(), 2);
    for other in [
        "\"127.0.0.1:0\"",
        "\"127.0.0.1:0\", \"127.0.0.2:0\", \"127.0.0.3:0\"",
        "\"127.0.0.1:0\", \"localhost:0\"",
    ] {
        write(other);
        let why = upgradable.refusal();
        let becomes = other.replace([' ', '"'], "");
        assert_eq!(
            why,
            format!("listen would change from 127.0.0.1:0,127.0.0.2:0 to {becomes}")
        );
    }
    visit_all(&upgradable.server, "Late");
    std::fs::remove_file(&path).expect("it is ours");
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let taken = taken.local_addr().expect("bound").to_string();
    for (address, said) in [
        // TEST-NET-1 (RFC 5737) belongs to no machine, and RFC 6761 reserves the name.
        ("192.0.2.1:0", "this machine has no address 192.0.2.1"),
        ("nobody.invalid:4000", "cannot resolve nobody.invalid: "),
        (&*taken, &*format!("{taken} is in use by another program")),
    ] {
        let ended = Command::new(env!("CARGO_BIN_EXE_forkade-under-test"))
            .args([
                "serve",
                "--console",
                "none",
                "--listen",
                "127.0.0.1:0",
                "--listen",
                address,
            ])
            .stdin(Stdio::null())
            .output()
            .expect("the program can be run");
        let log = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{address}: {log}");
        assert!(log.contains(said) && ended.stdout.is_empty(), "{address}: {log}");
    }
}
