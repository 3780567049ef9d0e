//! Promise: a client that gives its process as much to do as it can delays the other clients of the process by one
//! turn, and the process lives on.

use std::io::Read;

use crate::common::Server;
use crate::common::raw_client::{End, RawClient, frame};
use forkade_protocol::client::{Client, NewRoom};
use forkade_protocol::frame::{Split, split};
use forkade_protocol::{ClientMessage, RoomFilter, ServerMessage};

/// All clients in one process.
const ONE_HANDLER: [&str; 4] = ["--clients-per-handler", "256", "--watchdog-cpu-ms", "300"];

/// Clients that each have a room of their own.
fn hosts(server: &Server, count: usize) -> Vec<Client> {
    let mut hosts: Vec<Client> = (0..count)
        .map(|number| server.client(&format!("Host {number}")))
        .collect();
    for host in &mut hosts {
        host.create_room(NewRoom::new("relay", "somewhere else"))
            .expect("a room is free");
    }
    hosts
}

/// So many requests, which find no room.
fn searches(count: u32) -> Vec<u8> {
    let search = |request| ClientMessage::ListRooms {
        request,
        filter: RoomFilter {
            name_contains: Some("no such room".to_owned()),
            ..RoomFilter::default()
        },
        after: None,
    };
    (0..count).flat_map(|request| frame(&search(request))).collect()
}

/// How many answers have arrived and were not read.
fn answers_so_far(client: &mut RawClient) -> usize {
    client.stream.set_nonblocking(true).expect("an option can be set");
    let mut received = Vec::new();
    // It ends with an error: there is nothing more to read at the moment.
    let _ = client.stream.read_to_end(&mut received);
    let (mut answers, mut rest) = (0, &received[..]);
    while let Split::Frame { total, .. } = split(rest, forkade_protocol::limits::FRAME_BYTES_MAX) {
        answers += 1;
        rest = &rest[total..];
    }
    answers
}

#[test]
fn a_client_is_answered_before_a_thousand_searches_of_another_client() {
    let server = Server::start(&ONE_HANDLER);
    let _hosts = hosts(&server, 200);
    let mut neighbour = server.client("Neighbour");
    let mut attacker = RawClient::connect_as(&server, "Attacker");
    assert_eq!(server.handler_of("Neighbour"), server.handler_of("Attacker"));
    attacker.send(&searches(1000));
    for _ in 0..20 {
        neighbour.ping().expect("the session lives");
    }
    let answered = answers_so_far(&mut attacker);
    assert!(answered < 1000, "the neighbour has waited for all of them");
    assert_eq!(server.status("watchdog_kills_total"), 0);
    assert_eq!(server.status("takeovers_total"), 0);
}

#[test]
fn a_client_that_searches_faster_than_it_may_is_slowed_and_gets_every_answer_in_order() {
    let server = Server::start(&ONE_HANDLER);
    let _hosts = hosts(&server, 30);
    let mut searcher = RawClient::connect_as(&server, "Searcher");
    let count = 1000;
    searcher.send(&searches(count));
    // What it has sent is answered even if it sends nothing more.
    searcher.half_close();
    for expected in 0..count {
        match searcher.next_message() {
            Ok(ServerMessage::Rooms { request, rooms, .. }) => {
                assert_eq!((request, rooms.len()), (expected, 0));
            }
            other => panic!("instead of the answer to {expected}: {other:?}"),
        }
    }
    assert_eq!(searcher.next_message(), Err(End::Closed));
}
