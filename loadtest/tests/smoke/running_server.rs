//! Servers that the load generator did not start, and connections that are cut.

use std::io::{self, Read};
use std::net::{Shutdown, TcpListener, TcpStream};

use serde_json::Value;

use super::{Server, run};

#[test]
fn a_running_server_is_measured_with_and_without_its_console() {
    let server = Server::start();
    let short = [
        "--clients",
        "4",
        "--duration",
        "1",
        "--server",
        server.address("game"),
    ];
    let without = run("running_server", &short);
    without.assert_flawless();
    assert!(without.json.pointer("/takeovers").is_some_and(Value::is_null));
    assert!(
        without
            .json
            .pointer("/server/processes")
            .is_some_and(Value::is_null)
    );
    let with = run(
        "running_server_console",
        &[&short[..], &["--console", server.address("console")]].concat(),
    );
    with.assert_flawless();
    assert_eq!(with.number("/takeovers"), 0.0);
    assert!(with.number("/server/processes") >= 4.0 + 4.0);
}

/// Relays between clients and the server at `server`, and cuts every connection after this many bytes to the
/// client. Returns its address.
fn cutting_proxy(server: String, bytes: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (
                client.expect("a client"),
                TcpStream::connect(&server).expect("the server"),
            );
            let (mut from_client, mut to_server) = (copy_of(&client), copy_of(&server));
            std::thread::spawn(move || io::copy(&mut from_client, &mut to_server));
            std::thread::spawn(move || {
                // Whichever side fails first, both see a lost connection.
                let _ = io::copy(&mut copy_of(&server).take(bytes), &mut copy_of(&client));
                let _ = (server.shutdown(Shutdown::Both), client.shutdown(Shutdown::Both));
            });
        }
    });
    address
}

fn copy_of(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a descriptor")
}

#[test]
fn clients_whose_connections_are_cut_within_a_frame_resume_and_lose_nothing() {
    let server = Server::start();
    let proxy = cutting_proxy(server.address("game").to_owned(), 3001);
    let run = run(
        "cuts",
        &[
            "--server",
            &proxy,
            "--clients",
            "10",
            "--rate",
            "50",
            "--duration",
            "3",
            "--max-lost",
            "0",
        ],
    );
    assert_eq!(run.status, Some(0), "{}\n{}", run.stdout, run.stderr);
    assert!(run.number("/resumes") >= 10.0, "{}", run.stdout);
    for figure in [
        "/lost",
        "/duplicated",
        "/reordered",
        "/mismatches",
        "/resyncs",
        "/sessions_lost",
    ] {
        assert_eq!(run.number(figure), 0.0, "{figure}: {}", run.stdout);
    }
}
