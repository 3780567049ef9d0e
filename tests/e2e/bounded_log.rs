//! Promise: whatever clients do, the log grows slowly; and the secrets that they got or sent do not stay in the
//! server's memory.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Instant;

use crate::common::raw_client::{RawClient, handshake};
use crate::common::text_client::TextClient;
use crate::common::{Server, eventually};
use forkade::limits::{LINGER_BYTES_MAX, LOG_RECORDS_PER_KIND_AND_SECOND_MAX};
use forkade_protocol::client::NewRoom;
use forkade_protocol::{RoomSettings, ServerMessage};

#[test]
fn what_clients_make_the_log_say_is_bounded_and_what_is_left_out_is_counted() {
    let server = Server::start(&["--clients-per-handler", "16"]);
    let begun = Instant::now();
    let count = 400;
    for _ in 0..count {
        let mut stream = server.connect();
        stream
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .expect("the server reads");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let seconds = begun.elapsed().as_secs() + 2;
    let logged = |server: &Server| server.log().matches("does not speak HTTP").count() as u64;
    let left_out = server.status("log_records_left_out_total");
    eventually("the rest is logged", || logged(&server) + left_out >= count);
    assert_eq!(logged(&server) + left_out, count);
    assert!(
        logged(&server) <= seconds * LOG_RECORDS_PER_KIND_AND_SECOND_MAX,
        "{} records",
        logged(&server)
    );
    if left_out > 0 {
        // The next one says how many, in a later second.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let mut stream = server.connect();
        stream
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .expect("the server reads");
        server.expect_logged("more like this were left out]");
    }
}

/// Whether the server's shared memory contains these bytes.
fn memory_contains(server: &Server, bytes: &[u8]) -> bool {
    let folder = format!("/proc/{}/fd", server.pid());
    let is_memory = |path: &std::path::PathBuf| {
        fs::read_link(path).is_ok_and(|link| link.to_string_lossy().contains("memfd:forkade"))
    };
    let mut paths = fs::read_dir(folder)
        .expect("a process")
        .map(|entry| entry.expect("an entry").path());
    let mut memory = File::open(paths.find(is_memory).expect("the memory")).expect("it can be read");
    memory.seek(SeekFrom::Start(0)).expect("it has a beginning");
    let mut kept = Vec::new();
    let mut part = vec![0; 1 << 20];
    loop {
        let length = memory.read(&mut part).expect("it can be read");
        if length == 0 {
            return false;
        }
        kept.extend_from_slice(&part[..length]);
        let is_unused = kept.iter().all(|byte| *byte == 0);
        if !is_unused && kept.windows(bytes.len()).any(|window| window == bytes) {
            return true;
        }
        let rest = kept.len().saturating_sub(bytes.len());
        kept.drain(..rest);
    }
}

#[test]
fn tokens_and_passcodes_do_not_stay_in_shared_memory() {
    let server = Server::start(&[
        "--players-max",
        "16",
        "--rooms-max",
        "4",
        "--connections-max",
        "16",
        "--keepers",
        "1",
    ]);
    // The name is there: the search finds what lies in the memory.
    let mut raw = RawClient::connect(&server);
    raw.send(&handshake("Searchable"));
    let Ok(ServerMessage::Welcome { token, .. }) = raw.next_message() else {
        panic!("no welcome");
    };
    assert!(memory_contains(&server, b"Searchable"));
    eventually("the token is gone", || !memory_contains(&server, &token.0));
    let mut ann = server.client("Ann");
    let settings = RoomSettings {
        passcode: Some("oPenSesame1".into()),
        ..RoomSettings::default()
    };
    ann.create_room(NewRoom {
        settings,
        ..NewRoom::new("relay", "A room")
    })
    .expect("a room");
    let mut person = TextClient::named(&server, "Bob");
    let shown = person.ask("create relay Another room passcode=oPenSesame2");
    assert!(shown.contains("Another room"), "{shown:?}");
    eventually("the passcodes are gone", || {
        !memory_contains(&server, b"oPenSesame1") && !memory_contains(&server, b"oPenSesame2")
    });
}

#[test]
fn after_the_last_message_the_server_reads_a_bounded_number_of_bytes() {
    let server = Server::start(&[]);
    let mut raw = RawClient::connect(&server);
    raw.send(b"\xf7GET / HTTP/1.1\r\n");
    let begun = Instant::now();
    let part = [b'x'; 65_536];
    let mut sent = 0;
    raw.stream
        .set_write_timeout(Some(crate::common::WAIT_MAX))
        .expect("an option");
    while raw.stream.write_all(&part).is_ok() {
        sent += part.len();
        assert!(
            begun.elapsed() < crate::common::WAIT_MAX,
            "{sent} bytes were taken"
        );
    }
    // What the kernels hold on both sides comes on top.
    assert!(sent < LINGER_BYTES_MAX + (24 << 20), "{sent} bytes were taken");
}
